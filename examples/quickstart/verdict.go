// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
)

// maxBuckets is how many buckets per sign both the SDK's view and the processor give an exponential histogram.
const maxBuckets = 160

// evidence is all that the verdict rests on.
type evidence struct {
	producers []*producer
	board     *board
	accounts  accounts
	unlucky   *producer // the one that lost an answer
	resent    loss      // what of it reached the Collector twice
	resentErr error     // why nothing did
}

// check is one claim of the verdict; it holds if nothing speaks against it.
type check struct {
	text string
	bad  []string
}

// comparison is one series: what its producer counted beside what came out of the Collector.
type comparison struct {
	label
	want, got sample
	found     int // series with this label that came out; one is right
	diff      string
	plain     float64 // how much more than its producer a plain adder has, 0 for as much
}

func (c comparison) ok() bool { return c.found == 1 && c.diff == "" }

// outcome says what came out.
func (c comparison) outcome() string {
	switch {
	case c.found == 0:
		return "nothing"
	case !c.ok():
		return c.got.brief() + " DIFFERS"
	}
	return c.got.brief() + " ="
}

// plainly says what a plain adder has.
func (c comparison) plainly() string {
	if c.plain == 0 {
		return "="
	}
	return fmt.Sprintf("%s too %s", decimal(math.Abs(c.plain)), map[bool]string{true: "many", false: "few"}[c.plain > 0])
}

// compare sets every series of every producer beside what came out, and returns what came out besides.
func (e evidence) compare() (all []comparison, strangers []string) {
	out, plain := map[label][]shown{}, e.board.plainTotals()
	for _, row := range e.board.rows() {
		out[row.label] = append(out[row.label], row)
	}
	for _, p := range e.producers {
		labels := slices.SortedFunc(maps.Keys(p.tallies), func(a, b label) int { return cmp.Compare(a.series(), b.series()) })
		for _, l := range labels {
			c := comparison{label: l, want: p.expect(l), found: len(out[l])}
			c.plain = plain[l].amount() - c.want.amount()
			if c.found > 0 {
				c.got = out[l][0].latest
				c.diff = c.got.diff(c.want)
			}
			all = append(all, c)
			delete(out, l)
		}
	}
	for l := range out {
		strangers = append(strangers, l.producer+" "+l.series()+": came out but no producer has it")
	}
	slices.Sort(strangers)
	return all, strangers
}

// expect is the sample that a perfect Collector shows in the end: the producer's own total, from the start of the first
// interval sent to the end of the last.
func (p *producer) expect(l label) sample {
	t, sent := p.tallies[l], p.sent[l]
	want := t.total
	if sent == nil {
		return want // nothing was sent; nothing will be found
	}
	want.start, want.at = pcommon.NewTimestampFromTime(sent.start), pcommon.NewTimestampFromTime(sent.end)
	if want.kind == kindExponential {
		want.negative = map[int32]uint64{}
		want.zeros = t.values[0]
		// Both sides may lower the scale only as far as they must.
		for want.scale = sent.scale; ; want.scale-- {
			var fits bool
			if want.positive, fits = recount(t.values, want.scale); fits {
				break
			}
		}
	}
	return want
}

// recount puts every single value into its bucket at a scale: bucket i has the values in (b^i, b^(i+1)], b = 2^(2^-scale).
// It reports whether that takes no more than maxBuckets.
func recount(values map[float64]uint64, scale int32) (map[int32]uint64, bool) {
	buckets := map[int32]uint64{}
	lowest, highest := int32(math.MaxInt32), int32(math.MinInt32)
	for v, n := range values {
		if v == 0 {
			continue
		}
		i := int32(math.Ceil(math.Ldexp(math.Log2(v), int(scale)))) - 1
		buckets[i] += n
		lowest, highest = min(lowest, i), max(highest, i)
	}
	return buckets, len(buckets) == 0 || highest-lowest < maxBuckets
}

// checks returns every claim with what speaks against it.
func (e evidence) checks() []check {
	compared, strangers := e.compare()
	equal, bad := 0, strangers
	inexact := map[string]bool{} // producers by name
	streams := 0                 // series that the processor had to convert
	var restarted []*producer
	restarts := 0 // series that went through a restart of their producer
	for _, c := range compared {
		inexact[c.producer] = inexact[c.producer] || !c.ok()
		switch {
		case c.found == 0:
			bad = append(bad, c.producer+" "+c.series()+": did not come out")
		case c.found > 1:
			bad = append(bad, fmt.Sprintf("%s %s: came out as %d series", c.producer, c.series(), c.found))
		case c.diff != "":
			bad = append(bad, c.producer+" "+c.series()+": "+c.diff)
		default:
			equal++
		}
	}
	sent := 0
	var failed []string
	for _, p := range e.producers {
		sent += p.points
		for _, err := range p.failed {
			failed = append(failed, p.name()+": "+err.Error())
		}
		for _, s := range p.sent {
			if !s.cumulative {
				streams++
			}
		}
		if p.restarts {
			restarted = append(restarted, p)
			restarts += len(p.sent)
		}
	}
	e.board.mu.Lock()
	faults := slices.Clone(e.board.faults)
	came := e.board.points
	e.board.mu.Unlock()
	o := e.accounts.outcomes

	retry := check{text: fmt.Sprintf("a lost answer: %d points arrived twice and were counted once", e.resent.points)}
	switch {
	case e.resentErr != nil:
		retry.bad = []string{e.resentErr.Error()}
	case o["repeat"] != int64(e.resent.deltas):
		retry.bad = []string{fmt.Sprintf("the processor saw %d repeats, want %d", o["repeat"], e.resent.deltas)}
	case inexact[e.unlucky.name()]:
		retry.bad = []string{"see " + e.unlucky.name() + " above"}
	}

	restart := check{text: fmt.Sprintf("a restart: %d series kept their start and total over a gap of %v", restarts,
		(e.accounts.gap / time.Duration(max(1, o["gap"]))).Round(time.Millisecond))}
	if restarts == 0 || o["gap"] < int64(restarts) {
		restart.bad = append(restart.bad, fmt.Sprintf("the processor saw %d gaps, want at least %d", o["gap"], max(1, restarts)))
	}
	for _, p := range restarted {
		if inexact[p.name()] {
			restart.bad = append(restart.bad, "see "+p.name()+" above")
		}
	}

	var counted int64
	for _, n := range o {
		counted += n
	}
	received := int64(sent + e.resent.points)
	accounting := check{
		text: fmt.Sprintf("nothing missing: %d sent + %d again = %d in = %d outcomes = %d out",
			sent, e.resent.points, e.accounts.accepted, counted, came),
		bad: failed,
	}
	if received != e.accounts.accepted || received != counted || received != int64(came) {
		accounting.bad = append(accounting.bad, fmt.Sprintf("want %d everywhere", received))
	}
	if n := dropped(o); n > 0 {
		accounting.bad = append(accounting.bad, fmt.Sprintf("%d points were dropped", n))
	}
	if o["first"] != int64(streams) {
		accounting.bad = append(accounting.bad, fmt.Sprintf("the processor opened %d streams, want %d", o["first"], streams))
	}

	if equal == 0 && bad == nil {
		bad = []string{"there is nothing to compare"}
	}
	return []check{
		{fmt.Sprintf("%d of %d series equal, in value, sum, buckets, min, max, start and time",
			equal, len(compared)), bad},
		{fmt.Sprintf("in %d samples no start moved, no total fell, no time went back", came), faults},
		retry,
		restart,
		accounting,
	}
}

func dropped(outcomes map[string]int64) (n int64) {
	for outcome, points := range outcomes {
		if strings.HasPrefix(outcome, "dropped_") {
			n += points
		}
	}
	return n
}

// outcomeLine says what became of the points, in one line where they are those of the demonstration.
func (a accounts) outcomeLine() string {
	// The order of a stream's life; whatever else there is comes after, by name.
	order := []string{"first", "aligned", "gap", "repeat", "passed"}
	names := slices.Sorted(maps.Keys(a.outcomes))
	slices.SortStableFunc(names, func(x, y string) int {
		return cmp.Compare(uint(slices.Index(order, x)), uint(slices.Index(order, y))) // -1 becomes the largest
	})
	var parts []string
	for _, name := range names {
		parts = append(parts, fmt.Sprintf("%d %s", a.outcomes[name], name))
	}
	parts = append(parts, fmt.Sprintf("%d dropped", dropped(a.outcomes)))
	return "outcomes: " + strings.Join(parts, " · ")
}

// footer is outcomeLine and, of each kind of points that are not added, how many there are and one of them.
func (a accounts) footer(b *board) string {
	var text strings.Builder
	text.WriteString(wrap(a.outcomeLine(), len("outcomes: "), usualWidth))
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.plain {
		if p.passed() {
			text.WriteString("  (passed): came as totals, not as deltas, and went out as they came\n")
			break
		}
	}
	for _, outcome := range slices.Sorted(maps.Keys(a.outcomes)) {
		if sample := b.troubles[outcome]; sample != "" {
			fmt.Fprintf(&text, "%s\n", clip(fmt.Sprintf("  not added: %d %s, such as %s", a.outcomes[outcome], outcome, sample), usualWidth))
		}
	}
	return text.String()
}

// print writes the comparison, the checks and the verdict, and reports whether everything is exact.
func (e evidence) print(out io.Writer) bool {
	compared, _ := e.compare()
	all := len(compared)
	fmt.Fprint(out, wrap("What the producers counted, what came out of the Collector, and what a plain adder has, "+
		"which adds up every delta that arrives:", 0, usualWidth), "\n")
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PRODUCER\tSERIES\tCOUNTED\tCOLLECTOR\tPLAIN ADDER\t")
	misled := 0 // series that a plain adder has wrong
	for len(compared) > 0 {
		producer, n := compared[0].producer, 0
		plainly := true // nothing to see but that all is equal
		for ; n < len(compared) && compared[n].producer == producer; n++ {
			plainly = plainly && compared[n].ok() && compared[n].plain == 0
			if compared[n].plain != 0 {
				misled++
			}
		}
		if plainly {
			fmt.Fprintf(w, "%s\tall %d\t\t=\t=\t\n", producer, n)
		} else {
			for i, c := range compared[:n] {
				if i > 0 {
					producer = ""
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t\n", producer, c.series(), c.want.brief(), c.outcome(), c.plainly())
			}
		}
		compared = compared[n:]
	}
	_ = w.Flush() // into memory
	fmt.Fprintf(out, "%s\n%s\n", trimLines(table.String()), wrap(e.accounts.outcomeLine(), len("outcomes: "), usualWidth))

	exact := true
	for _, c := range e.checks() {
		mark := "ok  "
		if len(c.bad) > 0 {
			mark, exact = "FAIL", false
		}
		fmt.Fprint(out, wrap(fmt.Sprintf("  %s  %s", mark, c.text), len("  FAIL  "), usualWidth))
		for i, bad := range c.bad {
			if i == 10 {
				fmt.Fprintf(out, "          ... and %d more\n", len(c.bad)-i)
				break
			}
			fmt.Fprintf(out, "          %s\n", bad)
		}
	}
	if exact {
		fmt.Fprintf(out, "\nVERDICT: exact. The plain adder has %d of %d series wrong\n", misled, all)
	} else {
		fmt.Fprintln(out, "\nVERDICT: NOT EXACT")
	}
	return exact
}
