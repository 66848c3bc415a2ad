// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"math"
	"time"
)

// interval is the time a delta covers, (start, time], in Unix nanoseconds. A start of zero is unknown.
type interval struct{ start, time int64 }

const (
	// maxGaps bounds the gaps remembered per stream. Reordering between a few gateways opens one or two at a time.
	maxGaps = 8

	// maxTime leaves room above any point's time for the steps that late points take.
	maxTime = math.MaxInt64 - 1<<53

	// lateStep is how long after the latest emitted time a total follows that cannot have its own time: the resolution of
	// Prometheus.
	lateStep = int64(time.Millisecond)
)

// gapSet holds the remembered gaps of a stream: disjoint, in rising order, all within (start, last].
type gapSet struct {
	// horizon is the end of the latest gap that was forgotten for want of room. Whether time before it was covered is no
	// longer known.
	horizon int64
	n       int
	gaps    [maxGaps]interval
}

// forget drops the gaps that end at or before t, and the horizon with them.
func (g *gapSet) forget(t int64) {
	i := 0
	for i < g.n && g.gaps[i].time <= t {
		i++
	}
	if i > 0 {
		g.n = copy(g.gaps[:], g.gaps[i:g.n])
	}
	if g.horizon <= t {
		g.horizon = 0
	}
}

// insert remembers a gap that touches no other.
func (g *gapSet) insert(gap interval) {
	if g.n == maxGaps {
		if gap.time <= g.gaps[0].start {
			g.horizon = max(g.horizon, gap.time)
			return
		}
		g.horizon = max(g.horizon, g.gaps[0].time)
		g.n = copy(g.gaps[:], g.gaps[1:])
	}
	i := g.n
	for i > 0 && g.gaps[i-1].start > gap.start {
		g.gaps[i] = g.gaps[i-1]
		i--
	}
	g.gaps[i] = gap
	g.n++
}

// cut removes p from the gaps and returns how much of them it covered, in nanoseconds.
func (g *gapSet) cut(p interval) (covered int64) {
	old := g.gaps
	n := g.n
	g.n = 0
	for _, gap := range old[:n] {
		from, to := max(gap.start, p.start), min(gap.time, p.time)
		if from >= to {
			g.insert(gap)
			continue
		}
		covered += to - from
		if gap.start < from {
			g.insert(interval{gap.start, from})
		}
		if to < gap.time {
			g.insert(interval{to, gap.time})
		}
	}
	return covered
}

// overlap returns how much of the gaps p covers, in nanoseconds.
func (g *gapSet) overlap(p interval) (covered int64) {
	for _, gap := range g.gaps[:g.n] {
		if from, to := max(gap.start, p.start), min(gap.time, p.time); from < to {
			covered += to - from
		}
	}
	return covered
}

// contains reports whether p lies inside one gap.
func (g *gapSet) contains(p interval) bool {
	for _, gap := range g.gaps[:g.n] {
		if gap.start <= p.start && p.time <= gap.time {
			return true
		}
	}
	return false
}

// timeline is what classification knows of a stream, whatever its kind: when, not how much.
type timeline struct {
	start   int64 // cumulative start
	last    int64 // end of the latest accepted interval
	emitted int64 // latest time given out; never before last
	// floor is the time up to which streams may have been lost that this one was: it takes nothing from before.
	floor int64
	// restarted streams take nothing from before their start: it belongs to the life before.
	restarted bool
	// marked streams gave out a "no recorded value" point last, so their value is not the sample at emitted.
	marked bool
	gaps   gapSet
}

// classify says what is to become of p by the table in the package comment. It changes nothing but what it forgets.
func (t *timeline) classify(p interval, c *Config) Outcome {
	if p.time > t.last {
		switch {
		case p.start == t.last:
			return AddedAligned
		case p.start == 0:
			return AddedNoStart
		case p.start > t.last:
			if c.Gap == GapRestart {
				return RestartedGap
			}
			return AddedGap
		case p.start < t.start:
			return DroppedOlderStart
		case c.Overlap == OverlapDrop:
			return DroppedOverlap
		}
		return AddedOverlap
	}
	if p.time == t.last {
		return Repeated
	}

	window := t.last - int64(c.LateWindow)
	t.gaps.forget(window)
	switch {
	case p.start != 0 && t.gaps.contains(p):
		return AddedLate
	case p.time <= t.start:
		// A point of unknown start that ends where the stream starts may be the one that opened it.
		if t.restarted || p.time < window || (p.start == 0 && p.time == t.start) {
			return DroppedTooLate
		}
		if p.time <= t.floor || p.start != 0 && p.start < t.floor {
			return DroppedTooLate
		}
		return AddedBeforeFirst
	case p.start >= max(t.start, window, t.gaps.horizon, 1) && t.gaps.overlap(p) == 0:
		return Repeated
	}
	return DroppedTooLate
}

// open begins the stream at its first point.
func (t *timeline) open(p interval) {
	t.start = p.start
	if p.start == 0 {
		// The data model's "reset at an unknown start": start and time are the same.
		t.start = p.time
	}
	t.start = max(t.start, t.floor)
	t.last = p.time
	t.emitted = p.time
	t.restarted = false
	t.marked = false
	t.gaps.n = 0
	t.gaps.horizon = 0
}

// accept moves the timeline on after p was added with outcome o, and counts gaps.
func (t *timeline) accept(o Outcome, p interval, c *Config, r *Result) {
	at := p.time
	switch o {
	case AddedLate:
		addDuration(&r.GapFilled, t.gaps.cut(p))
		at = 0 // behind what was given out: the next free time
	case AddedBeforeFirst:
		if p.start == 0 {
			t.start = p.time
		} else {
			t.openGap(interval{p.time, t.start}, c, r)
			t.start = p.start
		}
		at = 0
	case AddedGap:
		t.openGap(interval{t.last, p.start}, c, r)
	case AddedOverlap:
		if t.gaps.n > 0 {
			addDuration(&r.GapFilled, t.gaps.cut(p))
		}
	case RestartedGap, RestartedLayout, RestartedOverflow, RestartedLost:
		// Not before the latest sample given out: a start behind it would read as the old life going on. Nor the old
		// start again, where an unknown one had been put at the time of the only sample.
		t.start = max(p.start, t.emitted, t.start+1)
		t.restarted = true
		t.gaps.n = 0
		t.gaps.horizon = 0
	}
	t.last = max(t.last, p.time)
	t.emit(at)
	t.gaps.forget(t.last - int64(c.LateWindow))
}

func (t *timeline) openGap(gap interval, c *Config, r *Result) {
	if gap.start >= gap.time {
		return
	}
	addDuration(&r.GapOpened, gap.time-gap.start)
	if gap.time > t.last-int64(c.LateWindow) && c.LateWindow > 0 {
		t.gaps.insert(gap)
	}
}

// addDuration saturates: a batch may hold many gaps of centuries.
func addDuration(d *time.Duration, ns int64) {
	*d += time.Duration(ns)
	if *d < 0 {
		*d = math.MaxInt64
	}
}

// emit claims a time for the next sample: at, or just after the latest one given out. Never the same millisecond: to
// Prometheus that is the same time, and it refuses the whole request that brings it two values.
func (t *timeline) emit(at int64) {
	if at < t.emitted+lateStep && at/lateStep <= t.emitted/lateStep {
		at = t.emitted + lateStep
	}
	t.emitted = at
	t.marked = false
}

// repeat returns to the latest sample. If that was a "no recorded value" point the value needs a time of its own.
func (t *timeline) repeat() {
	if t.marked {
		t.emit(0)
	}
}

// mark forwards a "no recorded value" point at the given time, or says that the stream has spoken since.
func (t *timeline) mark(at int64) Outcome {
	if at <= t.last {
		return DroppedTooLate
	}
	t.emit(at)
	t.marked = true
	return Forwarded
}

// total is the value of one stream together with the delta that is about to be added to it.
type total interface {
	// add adds the delta. If it cannot, it returns the restart that would help, and the total is of no use any more.
	add() (restart Outcome, ok bool)
	// share reduces the delta to part of whole nanoseconds, where its kind can be divided.
	share(part, whole int64)
	// restart makes the delta the total.
	restart()
	// complete makes the total complete as it is: what reads it from a stream may leave the rest to add.
	complete()
}

// fold takes one point into a stream: the rules that are the same for every kind.
func fold(t *timeline, v total, p interval, c *Config, r *Result) Outcome {
	o := t.classify(p, c)
	if !o.Added() {
		if o == Repeated {
			t.repeat()
			v.complete()
		}
		return o
	}
	if o != RestartedGap {
		if o == AddedOverlap && c.Overlap == OverlapInterpolate {
			covered := interval{p.start, t.last}
			v.share(p.time-t.last+t.gaps.overlap(covered), p.time-p.start)
		}
		if restart, ok := v.add(); !ok {
			if p.time < t.last {
				return DroppedTooLate
			}
			o = restart
		}
	}
	if o.Restarted() {
		v.restart()
	}
	t.accept(o, p, c, r)
	return o
}
