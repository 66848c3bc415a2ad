// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"
)

// certificate is what became of one trial.
type certificate struct {
	trial
	account
	err error // what kept it from being one

	requests       int // that the backend refused for good
	samplesRefused int // that the backend says it has not taken
	lanes          int // items that lanes say were refused or have failed
	late           int // items that lanes dropped because a later one had been sent
	excuse         string
	retries        int // of clients
	refusedClients int // requests of clients that were refused for good

	increased  float64 // what increase() says of all counters since their starts
	afterFirst float64 // and from their first samples, and these
	counted    float64 // what has been counted
	visible    float64 // less what increase() cannot see in values alone
}

// increases asks for the increase of all counters, from their starts and from their first samples.
func (c *certificate) increases(db *database, expectations map[seriesKey]expected, missed map[seriesKey]missed) error {
	type asked struct {
		begin, first, last int64
		instance           string
	}
	var windows []asked
	for key, e := range expectations {
		if key.name != counterSeries {
			continue
		}
		m := missed[key]
		c.counted += float64(e.last() - m.excused)
		c.visible += float64(e.last() - m.excused - m.hidden)
		c.afterFirst += float64(m.first)
		w := asked{e.begin, e.begin + interval.Milliseconds(), e.begin + int64(len(e.totals))*interval.Milliseconds(), key.instance}
		if !slices.Contains(windows, w) {
			windows = append(windows, w)
		}
	}
	for _, w := range windows {
		over := func(from int64) (float64, error) {
			// Without anything to extrapolate, but for a millisecond.
			results, err := db.query(fmt.Sprintf(`increase(%s{%s}[%dms])`, counterSeries, db.instance(w.instance), w.last-from+1), time.UnixMilli(w.last))
			var sum float64
			for _, r := range results {
				if r.Value != nil {
					sum += float64(r.Value[1])
				}
			}
			return sum, err
		}
		all, err := over(w.begin)
		if err != nil {
			return err
		}
		rest, err := over(w.first)
		if err != nil {
			return err
		}
		c.increased += all
		c.afterFirst += rest
	}
	return nil
}

// instance selects an agent. VictoriaMetrics keeps the names of resource attributes that come by OTLP.
func (d *database) instance(name string) string {
	if d.backend.native {
		return fmt.Sprintf(`instance=%q`, name)
	}
	return fmt.Sprintf(`instance=%q or service_instance_id=%q`, name, name)
}

func (c *certificate) near(is, want float64) bool { return math.Abs(is-want) <= 0.002*want }

// faults is what is not as it should be, though the backend could have done it.
func (c *certificate) faults() []string {
	switch {
	case c.err != nil:
		return []string{c.err.Error()}
	case c.trial.route.futile != "":
		return nil
	case c.trial.route.control:
		if len(c.findings()) == 0 {
			return []string{"what is wrong on purpose is not noticed"}
		}
		return nil
	}
	return c.findings()
}

// findings are what is not as it should be, whoever is at fault.
func (c *certificate) findings() []string {
	var faults []string
	fault := func(n int, what string) {
		if n != 0 {
			faults = append(faults, fmt.Sprintf("%d %s", n, what))
		}
	}
	if c.twice == 0 { // or else the backend had samples at their times already
		fault(c.requests, "requests rejected")
		fault(c.samplesRefused-c.repeats(), "samples rejected")
		fault(c.lanes, "items refused at lanes")
	}
	fault(c.refusedClients, "requests of clients refused")
	fault(c.lost, "samples lost")
	fault(c.wrong, "samples wrong")
	fault(c.totals, "totals wrong")
	switch {
	case c.trial.route.starts && !c.near(c.increased, c.toSee()):
		faults = append(faults, fmt.Sprintf("increase() is %.1f, %.1f were counted", c.increased, c.toSee()))
	case !c.trial.route.starts && !c.near(c.afterFirst, c.visible):
		faults = append(faults, fmt.Sprintf("increase() after the first samples is %.1f, %.1f were counted", c.afterFirst, c.visible))
	}
	if c.native == 0 {
		faults = append(faults, "no exponential histogram")
	}
	return faults
}

// toSee is what increase() can see of what was counted.
func (c *certificate) toSee() float64 {
	if slices.Contains(c.trial.route.flags, keptStarts) {
		return c.counted // whatever the values are
	}
	return c.visible
}

// repeats is how many of the samples that the backend says it has rejected are repeats of native histograms, which it has.
func (c *certificate) repeats() int {
	if !c.trial.route.backend.countsRepeats || c.requests > 0 || c.lost > 0 {
		return 0
	}
	return min(c.samplesRefused, c.retries*furtherStreams)
}

// notes are what to know of a row that is no fault of ours.
func (c *certificate) notes() []string {
	var notes []string
	if c.trial.route.futile != "" {
		notes = append(notes, c.trial.route.futile)
	}
	if c.trial.route.control {
		notes = append(notes, "as it has to be: "+strings.Join(c.findings(), ", "))
	}
	if n := c.repeats(); n > 0 {
		notes = append(notes, fmt.Sprintf("%d repeats of native histograms are counted as out of order", n))
	}
	if c.excused > 0 {
		notes = append(notes, "was in the memory of the killed process")
	}
	if c.twice > 0 {
		notes = append(notes, fmt.Sprintf("%d deltas that the killed process had not answered were counted again", c.twice))
	}
	if c.late > 0 {
		notes = append(notes, fmt.Sprintf("%d late at lanes", c.late))
	}
	return notes
}

func writeCertificates(out io.Writer, all []*certificate) {
	fmt.Fprintln(out, "| backend | path | topology | event | rejected | lost | lost as documented | wrong | restarts | increase() | and first samples | exponential buckets | starts | |")
	fmt.Fprintln(out, "|---|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---|---|")
	for _, c := range all {
		cells := []string{c.trial.route.backend.title, c.trial.route.title, c.trial.topology.title, c.trial.event.title}
		if c.err != nil {
			cells = append(cells, "", "", "", "", "", "", "", "", "")
		} else {
			cells = append(cells, c.rejected(), fmt.Sprint(c.lost), fmt.Sprint(c.excused), fmt.Sprint(c.wrong), fmt.Sprint(c.restarts),
				c.share(c.increased), c.andFirst(), fmt.Sprint(c.account.native), c.startsSeen())
		}
		verdict := "clean"
		if f := c.faults(); len(f) > 0 {
			verdict = "**not clean**: " + strings.Join(f, ", ")
		} else if n := c.notes(); len(n) > 0 {
			verdict = strings.Join(n, "; ")
		}
		fmt.Fprintf(out, "| %s |\n", strings.Join(append(cells, strings.ReplaceAll(verdict, "\n", " ")), " | "))
	}
}

// writeSummary has a row for each way into a backend and topology, and a column for each event.
func writeSummary(out io.Writer, all []*certificate) {
	type of struct{ backend, path, topology string }
	var rows []of
	var events []string
	cells := map[of]map[string]string{}
	for _, t := range trials() { // in their order, of what was run
		for _, c := range all {
			if c.trial.name() != t.name() {
				continue
			}
			key := of{t.route.backend.title, t.route.title, t.topology.title}
			if cells[key] == nil {
				cells[key] = map[string]string{}
				rows = append(rows, key)
			}
			cells[key][t.event.title] = c.short()
			if !slices.Contains(events, t.event.title) {
				events = append(events, t.event.title)
			}
		}
	}
	fmt.Fprintf(out, "| backend | path | topology | %s |\n|---|---|---|%s\n", strings.Join(events, " | "), strings.Repeat("---|", len(events)))
	for _, r := range rows {
		line := []string{r.backend, r.path, r.topology}
		for _, e := range events {
			line = append(line, cells[r][e])
		}
		fmt.Fprintf(out, "| %s |\n", strings.Join(line, " | "))
	}
}

// short is the verdict in a word or two.
func (c *certificate) short() string {
	switch {
	case len(c.faults()) > 0:
		return "**not clean**"
	case c.trial.route.futile != "":
		return "nothing arrives"
	case c.trial.route.control:
		return "not clean, on purpose"
	case c.excused > 0:
		return fmt.Sprintf("clean, but for %d", c.excused)
	case c.twice > 0:
		return fmt.Sprintf("clean, but for %d twice", c.twice)
	}
	return "clean"
}

// rejected is what the backend and lanes say.
func (c *certificate) rejected() string {
	if c.requests+c.samplesRefused+c.lanes == 0 {
		return "0"
	}
	return fmt.Sprintf("%d requests, %d samples, %d at lanes", c.requests, c.samplesRefused, c.lanes)
}

// share is that of what was counted.
func (c *certificate) share(increase float64) string {
	return fmt.Sprintf("%.1f %%", 100*increase/c.counted)
}

// andFirst is the share of increase() after the first samples with these, where it does not see them.
func (c *certificate) andFirst() string {
	if c.trial.route.starts {
		return ""
	}
	return c.share(c.afterFirst)
}

func (c *certificate) startsSeen() string {
	switch {
	case c.zeros > 0:
		return fmt.Sprintf("%d zeros", c.zeros)
	case slices.Contains(c.trial.route.flags, keptStarts):
		return "kept"
	}
	return ""
}

// line tells it all, for a reader who waits.
func (c *certificate) line() string {
	if c.err != nil {
		return c.trial.name() + ": " + c.err.Error()
	}
	s := fmt.Sprintf("%s: %d samples, %d lost, %d excused, %d twice, %d wrong, %d totals, %d restarts, rejected %s, late %d, increase %s %s, %d native, %d zeros, %d retries, %d refused",
		c.trial.name(), c.samples, c.lost, c.excused, c.twice, c.wrong, c.totals, c.restarts, c.rejected(), c.late, c.share(c.increased), c.andFirst(), c.account.native, c.zeros, c.retries, c.refusedClients)
	if f := c.faults(); len(f) > 0 {
		s += "; NOT CLEAN: " + strings.Join(f, ", ")
	}
	for _, more := range []string{c.example, c.excuse} {
		if more != "" {
			s += "; " + more
		}
	}
	return s
}
