// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package fold

import (
	"math"
	"time"
)

// Interval is the time a delta covers, (start, time], in Unix nanoseconds. A start of zero is unknown.
type Interval struct{ Start, Time int64 }

const (
	// MaxGaps bounds the gaps remembered per stream. Reordering between a few gateways opens one or two at a time, a counter
	// that is quiet now and then has any number.
	MaxGaps = 4

	// MaxTime leaves room above any point's time for the steps that late points take.
	MaxTime = math.MaxInt64 - 1<<53

	// lateStep is how long after the latest emitted time a total follows that cannot have its own time: the resolution of
	// Prometheus.
	lateStep = int64(time.Millisecond)
)

// GapSet holds the remembered gaps of a stream: disjoint, in rising order, all before last.
type GapSet struct {
	// Horizon is the end of the latest gap that was forgotten for want of room. Whether time before it was covered is no
	// longer known.
	Horizon int64
	N       int // of Gaps
	Gaps    [MaxGaps]Interval
}

// forget drops what gaps there are at or before t, and the horizon with them.
func (g *GapSet) forget(t int64) {
	i := 0
	for i < g.N && g.Gaps[i].Time <= t {
		i++
	}
	if i > 0 {
		g.N = copy(g.Gaps[:], g.Gaps[i:g.N])
	}
	if g.N > 0 {
		g.Gaps[0].Start = max(g.Gaps[0].Start, t)
	}
	if g.Horizon <= t {
		g.Horizon = 0
	}
}

// insert remembers a gap that touches no other.
func (g *GapSet) insert(gap Interval) {
	if g.N == MaxGaps {
		if gap.Time <= g.Gaps[0].Start {
			g.Horizon = max(g.Horizon, gap.Time)
			return
		}
		g.Horizon = max(g.Horizon, g.Gaps[0].Time)
		g.N = copy(g.Gaps[:], g.Gaps[1:])
	}
	i := g.N
	for i > 0 && g.Gaps[i-1].Start > gap.Start {
		g.Gaps[i] = g.Gaps[i-1]
		i--
	}
	g.Gaps[i] = gap
	g.N++
}

// cut removes p from the gaps and returns how much of them it covered, in nanoseconds.
func (g *GapSet) cut(p Interval) (covered int64) {
	old := g.Gaps
	n := g.N
	g.N = 0
	for _, gap := range old[:n] {
		from, to := max(gap.Start, p.Start), min(gap.Time, p.Time)
		if from >= to {
			g.insert(gap)
			continue
		}
		covered += to - from
		if gap.Start < from {
			g.insert(Interval{gap.Start, from})
		}
		if to < gap.Time {
			g.insert(Interval{to, gap.Time})
		}
	}
	return covered
}

// overlap returns how much of the gaps p covers, in nanoseconds.
func (g *GapSet) overlap(p Interval) (covered int64) {
	for _, gap := range g.Gaps[:g.N] {
		if from, to := max(gap.Start, p.Start), min(gap.Time, p.Time); from < to {
			covered += to - from
		}
	}
	return covered
}

// contains reports whether p lies inside one gap.
func (g *GapSet) contains(p Interval) bool {
	for _, gap := range g.Gaps[:g.N] {
		if gap.Start <= p.Start && p.Time <= gap.Time {
			return true
		}
	}
	return false
}

// Rules are the parts of a configuration that decide what becomes of a point.
type Rules struct {
	Gap        GapPolicy
	Overlap    OverlapPolicy
	LateWindow time.Duration
	Writers    Writers
	Identical  Identical
	Repair     Repairs
	// EmitZero has a life begin with a zero.
	EmitZero bool
}

// Gaps is the time that points have left uncovered, and the part of such time that later ones have covered after all.
type Gaps struct{ Opened, Filled time.Duration }

// Timeline is what classification knows of a stream, whatever its kind: when, not how much.
type Timeline struct {
	Start   int64 // cumulative start
	Last    int64 // end of the latest accepted interval
	Emitted int64 // latest time given out; never before last
	// Floor is the time up to which streams may have been lost that this one was: it takes nothing from before.
	Floor int64
	// Lives is what may have been given out of it before it was opened.
	Lives Lives
	// Moved says that it may have been elsewhere since it was last counted.
	Moved bool
	// Restarted streams take nothing from before their start: it belongs to the life before.
	Restarted bool
	// Marked streams gave out a "no recorded value" point last, so their value is not the sample at emitted.
	Marked bool
	// Print is the fingerprint of the delta that was added last.
	Print uint32
	// Sampled says that the sample at Emitted is of this batch, so that the next may take its place; Replaces that it does.
	Sampled, Replaces bool
	// Zeros has lives of the stream begin with a zero; Zero is that of the life that begins with the sample at Emitted.
	Zeros bool
	Zero  Zero
	// Forwarded is the latest time of a "no recorded value" point that was passed on just before the stream opens.
	Forwarded int64
	Gaps      GapSet
}

// ShortPrint is a fingerprint as a stream keeps that of the delta which was added last. Two deltas of one interval that are not the
// same are taken for such once in 16 million times.
func ShortPrint(print uint64) uint32 { return uint32(print) & (1<<24 - 1) }

// Classify says what is to become of p by the table in the package comment of d2c. It changes nothing but what it forgets. print
// is p's fingerprint, needed only where p ends no later than the stream.
func (t *Timeline) Classify(p Interval, print uint64, rules *Rules) Outcome {
	if p.Time > t.Last {
		switch {
		case p.Start == t.Last:
			return AddedAligned
		case p.Start == 0:
			return AddedNoStart
		case p.Start > t.Last:
			if rules.Gap == GapRestart || rules.Gap == GapRestartIfMoved && t.Moved {
				return RestartedGap
			}
			return AddedGap
		case p.Start < t.Start && !t.Restarted:
			// Of a stream that has restarted the producer need not know: its starts may be what they were, and never move.
			return DroppedOlderStart
		case rules.Overlap == OverlapDrop:
			return DroppedOverlap
		}
		return AddedOverlap
	}
	window := t.Last - int64(rules.LateWindow)
	t.Gaps.forget(window)
	switch {
	case p.Start != 0 && p.Time < t.Last && t.Gaps.contains(p):
		return AddedLate // whatever its fingerprint: what was added is not missing
	case ShortPrint(print) == t.Print:
		return Repeat
	case p.Time == t.Last:
		return Covered
	case p.Time <= t.Start:
		// A point of unknown start that ends where the stream starts may be the one that opened it.
		if t.Restarted || p.Time < window || (p.Start == 0 && p.Time == t.Start) {
			return DroppedTooLate
		}
		if p.Time <= t.Floor || p.Start != 0 && p.Start < t.Floor || p.Start == 0 && p.Time < t.Lives.Expired {
			return DroppedTooLate
		}
		return AddedBeforeFirst
	case p.Start >= max(t.Start, window, t.Gaps.Horizon, 1) && t.Gaps.overlap(p) == 0:
		return Covered
	}
	return DroppedTooLate
}

// Lives says what may have been given out of a stream that is not known.
type Lives struct {
	// Began is when this process did. What it was before may have given out anything up to then.
	Began int64
	// Expired is what the start of a stream must not be before that may be one that was forgotten: the latest time given out of
	// any, or just after if that was also its start.
	Expired int64
}

// cut reports whether p reaches back into what may have been given out of its stream, of a life whose start may be that of p. A
// producer whose start never moves does, each time its stream is opened. What ends before the process began is taken for a
// replay.
func (l *Lives) cut(p Interval) bool {
	return p.Start != 0 && (p.Start < l.Expired || p.Start < l.Began && l.Began < p.Time)
}

// Open begins the stream at its first point.
func (t *Timeline) Open(p Interval, print uint64, rules *Rules) {
	t.Start, t.Last, t.Emitted, t.Print = p.Start, p.Time, p.Time, ShortPrint(print)
	t.Restarted, t.Marked = false, false
	t.Gaps.N, t.Gaps.Horizon = 0, 0
	unknown := false
	switch {
	case p.Start == 0:
		// The data model's "reset at an unknown start": start and time are the same.
		t.Start, unknown = p.Time, true
	case t.Lives.cut(p):
		// So here, lest a lower value comes under a start of before.
		if t.Start, unknown = p.Time, true; rules.Writers == WritersOne {
			t.close(p.Start, rules)
		}
	}
	if t.Start < t.Floor {
		t.Start, t.Restarted = t.Floor, true
	}
	t.place(max(t.Floor, t.Forwarded, t.Lives.before(p.Time)), unknown)
}

// close leaves the start where it is. What is missing from before may still come, and is late then; but not what ends at the
// floor or before it, which may have been counted.
func (t *Timeline) close(before int64, rules *Rules) {
	t.Restarted = true
	if window := max(t.Last-int64(rules.LateWindow), t.Floor, 1); window < before {
		t.Gaps.insert(Interval{window, before})
	}
}

// Accept moves the timeline on after p was added with outcome o, and counts gaps.
func (t *Timeline) Accept(o Outcome, p Interval, print uint64, rules *Rules, gaps *Gaps) {
	at, before := p.Time, t.Emitted
	if o == AddedLate || o == AddedBeforeFirst {
		at = 0 // behind what was given out: the next free time
	}
	t.Print = ShortPrint(print)
	switch o {
	case AddedLate:
		addDuration(&gaps.Filled, t.Gaps.cut(p))
	case AddedBeforeFirst:
		if p.Start == 0 {
			t.Start = p.Time
			break
		}
		t.openGap(Interval{p.Time, t.Start}, rules, gaps)
		if t.Lives.cut(p) {
			t.close(p.Start, rules)
		} else {
			t.Start = p.Start
		}
	case AddedGap:
		t.openGap(Interval{t.Last, p.Start}, rules, gaps)
	case AddedOverlap:
		if t.Gaps.N > 0 {
			addDuration(&gaps.Filled, t.Gaps.cut(p))
		}
	case RestartedGap, RestartedLayout, RestartedOverflow, RestartedLost:
		// Not before the latest sample given out: a start behind it would read as the old life going on. Nor the old
		// start again, where an unknown one had been put at the time of the only sample.
		t.Start = max(p.Start, t.Emitted, t.Start+1)
		t.Restarted = true
		t.Sampled = false // what was given out under the old start stays
		t.Gaps.N = 0
		t.Gaps.Horizon = 0
	}
	t.Last = max(t.Last, p.Time)
	t.emit(at)
	if o.Restarted() {
		t.place(before, false)
	}
	t.Gaps.forget(t.Last - int64(rules.LateWindow))
}

func (t *Timeline) openGap(gap Interval, rules *Rules, gaps *Gaps) {
	if gap.Start >= gap.Time {
		return
	}
	addDuration(&gaps.Opened, gap.Time-gap.Start)
	if gap.Time > t.Last-int64(rules.LateWindow) && rules.LateWindow > 0 {
		t.Gaps.insert(gap)
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
// Prometheus that is the same time, and it refuses the whole request that brings it two values. Where the latest one is of this
// batch the next takes its place.
func (t *Timeline) emit(at int64) {
	t.Replaces = false
	if at < t.Emitted+lateStep && at/lateStep <= t.Emitted/lateStep {
		if t.Sampled {
			at, t.Replaces = max(at, t.Emitted), true
		} else {
			at = t.Emitted + lateStep
		}
	}
	t.Emitted = at
	t.Marked = false
}

// repeat returns to the latest sample. If that was a "no recorded value" point the value needs a time of its own.
func (t *Timeline) repeat() {
	if t.Marked {
		t.emit(0)
	}
}

// Again has the latest sample given out once more, at a time, or just after the latest.
func (t *Timeline) Again(at int64) {
	t.Sampled = false
	t.emit(min(at, MaxTime))
}

// Mark forwards a "no recorded value" point at the given time, or says that the stream has spoken since.
func (t *Timeline) Mark(at int64) Outcome {
	if at <= t.Last {
		return DroppedTooLate
	}
	t.emit(at)
	t.Marked = true
	return NoRecordedValue
}

// Total is the value of one stream together with the delta that is about to be added to it.
type Total interface {
	// add adds the delta. If it cannot, it returns the restart that would help, and the total is of no use any more.
	add(rules *Rules) (restart Outcome, ok bool)
	// Print is the fingerprint of the delta in an interval. It costs less when the delta has been added.
	Print(p Interval) uint64
	// share reduces the delta to part of whole nanoseconds, where its kind can be divided.
	share(part, whole int64)
	// Restart makes the delta the total.
	Restart()
	// Complete makes the total complete as it is: what reads it from a stream may leave the rest to add.
	Complete()
}

// Fold takes one point into a stream: the rules that are the same for every kind.
func Fold(t *Timeline, v Total, p Interval, rules *Rules, gaps *Gaps) Outcome {
	if p.Start == t.Last && p.Time > t.Last { // nearly all points, and with nothing else to ask
		restart, ok := v.add(rules)
		if !ok {
			v.Restart()
			t.Accept(restart, p, v.Print(p), rules, gaps)
			return restart
		}
		t.Print, t.Last = ShortPrint(v.Print(p)), p.Time
		t.emit(p.Time)
		if t.Gaps.N > 0 || t.Gaps.Horizon > 0 {
			t.Gaps.forget(t.Last - int64(rules.LateWindow))
		}
		return AddedAligned
	}
	print := uint64(0)
	if p.Time <= t.Last {
		print = v.Print(p)
	}
	o := t.Classify(p, print, rules)
	if !o.Added() {
		if o.Answered() {
			t.repeat()
			v.Complete()
		}
		return o
	}
	if o != RestartedGap {
		if o == AddedOverlap && rules.Overlap == OverlapInterpolate {
			covered := Interval{p.Start, t.Last}
			v.share(p.Time-t.Last+t.Gaps.overlap(covered), p.Time-p.Start)
		}
		if restart, ok := v.add(rules); !ok {
			if p.Time < t.Last {
				return DroppedTooLate
			}
			o = restart
		}
	}
	if o.Restarted() {
		v.Restart()
	}
	t.Accept(o, p, v.Print(p), rules, gaps)
	return o
}

// Before reports whether a point of many writers is from a life before, in which it may have been counted.
func (t *Timeline) Before(p Interval) bool {
	return p.Time <= t.Floor || t.Restarted && p.Time <= t.Start
}

// FoldUnordered takes one point of many writers into a stream, whatever its interval.
func FoldUnordered(t *Timeline, v Total, p Interval, rules *Rules) Outcome {
	o := AddedUnordered
	if restart, ok := v.add(rules); !ok {
		o = restart
		v.Restart()
		t.Start = max(t.Emitted, t.Start+1)
		t.Sampled = false
	}
	before := t.Emitted
	t.Print, t.Last = ShortPrint(v.Print(p)), max(t.Last, p.Time)
	t.emit(p.Time)
	if o.Restarted() {
		t.place(before, false)
	}
	return o
}

// Answer has the latest sample given out once more.
func (t *Timeline) Answer(v Total) Outcome {
	t.repeat()
	v.Complete()
	return Repeat
}
