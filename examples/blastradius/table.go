// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/deltaring/deltaring/ring"
)

func writeChange(w io.Writer, p *population, c *change) error {
	fmt.Fprintf(w, "%s: %s streams, %s points\n", p.Source, thousands(p.Streams), thousands(p.Points))
	fmt.Fprintf(w, "%d to %d members: at least %s of everything must move, %s streams and %s points\n", len(c.From), len(c.To),
		percent(c.Least), thousands(round(c.Least*float64(p.Streams))), thousands(round(c.Least*float64(p.Points))))
	fmt.Fprintf(w, "deltaring moves %s of %s slots, %s x the least\n\n",
		thousands(c.Slots.Moved), thousands(c.Slots.Slots), times(c.Slots.Ratio()))

	t := newTable(w)
	t.row("routing key", "values", "scheme", "streams moved", "%", "x least", "points moved", "%",
		"hot streams", "hot points", "hottest")
	for k, g := range p.ByKey {
		for s, m := range c.ByKey[k] {
			key, values := g.Key.Name, thousands(len(g.Groups))
			if s > 0 {
				key, values = "", ""
			}
			t.row(key, values, schemes[s].Name,
				thousands(m.Streams), share(m.Streams, p.Streams), ratio(m.Streams, p.Streams, c.Least),
				thousands(m.Points), share(m.Points, p.Points),
				times(m.HotStreams.Ratio), times(m.HotPoints.Ratio), m.HotPoints.Name)
		}
	}
	if err := t.flush(); err != nil {
		return err
	}
	writeNotes(w, p, c.From, c.To)
	return nil
}

func writeRoll(w io.Writer, p *population, members []ring.Member, r *roll) error {
	fmt.Fprintf(w, "%s: %s streams, %s points\n", p.Source, thousands(p.Streams), thousands(p.Points))
	fmt.Fprintf(w, "rolling update of %d members, %d to %d of them running, in %d phases\n",
		len(members), r.Bounds.Floor, r.Bounds.Ceiling, len(r.Course))

	fmt.Fprintf(w, "\nPhase by phase, by routing key %s: streams moved\n", p.ByKey[0].Key.Name)
	t := newTable(w)
	head := []string{"phase", "", "members", "least"}
	for _, s := range schemes {
		head = append(head, s.Name, "%")
	}
	t.row(head...)
	for i, phase := range r.Course {
		what := fmt.Sprintf("stop %d", phase.Stopped)
		if phase.Started > 0 {
			what = fmt.Sprintf("start %d", phase.Started)
		}
		cells := []string{strconv.Itoa(i + 1), what, strconv.Itoa(phase.Old + phase.New),
			thousands(round(r.Least[i] * float64(p.Streams)))}
		for s := range schemes {
			n := r.ByKey[0][s].Streams[i]
			cells = append(cells, thousands(n), share(n, p.Streams))
		}
		t.row(cells...)
	}
	if err := t.flush(); err != nil {
		return err
	}

	least := 0.0
	for _, l := range r.Least {
		least += l
	}
	fmt.Fprintf(w, "\nThe whole roll: at least %s of all streams must move, %s moves\n",
		percent(least), thousands(round(least*float64(p.Streams))))
	t = newTable(w)
	t.row("routing key", "scheme", "moves", "% streams", "x least", "point moves", "% points", "peak %",
		"moved once+", "%", "twice+", "%", "same owner at end", "%")
	for k, g := range p.ByKey {
		for s, m := range r.ByKey[k] {
			key := g.Key.Name
			if s > 0 {
				key = ""
			}
			moves, points := total(m.Streams), total(m.Points)
			t.row(key, schemes[s].Name, thousands(moves), share(moves, p.Streams), ratio(moves, p.Streams, least),
				thousands(points), share(points, p.Points), share(peak(m.Streams), p.Streams),
				thousands(m.Once), share(m.Once, p.Streams), thousands(m.Twice), share(m.Twice, p.Streams),
				thousands(m.Back), share(m.Back, p.Streams))
		}
	}
	if err := t.flush(); err != nil {
		return err
	}
	if idle := r.ByKey[0][0].Idle; idle > 0 {
		fmt.Fprintf(w, "\nIn %d of the phases no member is running: nothing can be delivered.\n", idle)
	}
	writeNotes(w, p, members)
	return nil
}

// writeNotes says what a reader of the table might otherwise take wrongly.
func writeNotes(w io.Writer, p *population, fleets ...[]ring.Member) {
	for _, g := range p.ByKey {
		if g.Lacking > 0 {
			fmt.Fprintf(w, "\n%s points (%s %%) lack %s, or part of it.\n",
				thousands(g.Lacking), share(g.Lacking, p.Points), g.Key.Name)
		}
	}
	for _, members := range fleets {
		able := routable(members)
		for _, m := range able {
			if m.Weight != able[0].Weight {
				fmt.Fprint(w, "\nOnly deltaring knows weights; the others give every member as much.\n")
				return
			}
		}
	}
}

// table aligns columns: all to the right, as numbers are, but for the first, which is text.
type table struct {
	rows [][]string
	w    io.Writer
}

func newTable(w io.Writer) *table { return &table{w: w} }

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) flush() error {
	width := 0
	for _, r := range t.rows {
		width = max(width, len(r[0]))
	}
	tw := tabwriter.NewWriter(t.w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, r := range t.rows {
		fmt.Fprintf(tw, "%-*s\t%s\t\n", width, r[0], strings.Join(r[1:], "\t"))
	}
	return tw.Flush()
}

func round(x float64) int { return int(math.Round(x)) }

func percent(part float64) string { return fmt.Sprintf("%.2f %%", 100*part) }

func share(n, of int) string { return fmt.Sprintf("%.2f", 100*float64(n)/float64(of)) }

// ratio returns what moved as a multiple of the least.
func ratio(moved, of int, least float64) string {
	switch {
	case least > 0:
		return times(float64(moved) / (least * float64(of)))
	case moved == 0:
		return times(1)
	}
	return times(math.Inf(1))
}

func times(x float64) string {
	if math.IsInf(x, 1) {
		return "inf"
	}
	return fmt.Sprintf("%.2f", x)
}

// thousands writes a number with commas.
func thousands(n int) string {
	digits := strconv.Itoa(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
