// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package fold

// A total is made of many streams, its writers. A delta is classified by the timeline of its writer, which holds no value, and is
// added to the total, which asks for no order: see FoldUnordered. So what is proved of one stream is proved of each writer, and
// a total is the sum of all that its writers have had accepted.

// Unvalued is a total as a writer sees it: nothing is added to it yet, but the delta can be reduced.
type Unvalued struct {
	Total
	last int64 // of the writer
}

func (*Unvalued) add(*Rules) (Outcome, bool) { return 0, true }

// Restart does nothing.
func (*Unvalued) Restart() {}

// Complete does nothing.
func (*Unvalued) Complete() {}

// Print is the delta's where it is needed to classify it. It costs less when the delta has been added.
func (v *Unvalued) Print(p Interval) uint64 {
	if p.Time > v.last {
		return 0
	}
	return v.Total.Print(p)
}

// FoldWriter takes a delta into the timeline of its writer. If it is to be added, v.Total has as much of it as is new. The timeline's
// Print is to be set when the delta has been added.
func FoldWriter(t *Timeline, v *Unvalued, p Interval, fresh bool, rules *Rules, gaps *Gaps) (o Outcome) {
	if fresh {
		t.Open(p, 0, rules)
		o = AddedFirst
	} else {
		v.last = t.Last
		o = Fold(t, v, p, rules, gaps)
	}
	// Nothing is given out of a writer.
	t.Emitted, t.Sampled, t.Replaces = t.Last, false, false
	return o
}

// Share is how much of a cumulative point is added.
type Share uint8

// The shares.
const (
	// ShareNothing: what it holds was added.
	ShareNothing Share = iota
	// ShareDifference is what it holds beyond the latest of its writer.
	ShareDifference
	// ShareWhole is all of it.
	ShareWhole
	// ShareZero opens the writer, and adds nothing.
	ShareZero
)

// FoldCumulative takes a cumulative point into the timeline of its writer. fell says that its value is not the latest one with something
// added, and same that it is the latest one. A writer that is not known may have been counted up to a time, known: what
// began before then counts from here on.
func FoldCumulative(t *Timeline, p Interval, fresh, fell, same bool, known int64) (o Outcome, s Share) {
	if fresh { // the timeline may hold what is another's
		t.Restarted, t.Marked = false, false
		t.Gaps.N, t.Gaps.Horizon = 0, 0
	}
	switch {
	case fresh && (p.Start == 0 || p.Start < known):
		o, s = Baseline, ShareZero
	case fresh:
		o, s = AddedFirst, ShareWhole
	case p.Time <= t.Last && same && p.Time == t.Last:
		return Repeat, ShareNothing
	case p.Time <= t.Last:
		return Covered, ShareNothing // in the one that came before it
	case fell && p.Start != 0 && p.Start < t.Start:
		return DroppedOlderStart, ShareNothing // of a process that the writer has survived
	case fell, p.Start != 0 && p.Start >= t.Last:
		o, s = AddedReset, ShareWhole
	default:
		o, s = AddedAligned, ShareDifference
	}
	if fresh || s == ShareWhole || p.Start != 0 && p.Start > t.Start {
		t.Start = p.Start
	}
	t.Last, t.Emitted = p.Time, p.Time
	return o, s
}

// OpenTotal begins a total at its first point. What others may have given out of it is not after elsewhere.
func (t *Timeline) OpenTotal(p Interval, print uint64, elsewhere int64, rules *Rules) {
	t.Open(p, print, rules)
	if elsewhere > 0 {
		t.after(elsewhere)
	}
}

// RestartTotal begins a total anew at p, as others may have had it meanwhile: what they have given out is not after elsewhere.
func RestartTotal(t *Timeline, v Total, p Interval, elsewhere int64, rules *Rules, gaps *Gaps) Outcome {
	v.Restart()
	t.Accept(RestartedGap, p, v.Print(p), rules, gaps)
	t.Restarted = false // what its writers say of time before is not in the life before, as that of one writer would be
	t.after(elsewhere)
	return RestartedGap
}

// after has a life that has just begun be later than a time.
func (t *Timeline) after(elsewhere int64) {
	if t.Start >= elsewhere {
		return
	}
	t.Start = elsewhere
	if t.Emitted < elsewhere+lateStep {
		t.Emitted = elsewhere + lateStep
	}
	t.place(elsewhere, false)
}

// Clear makes h a delta that counts nothing, in the layout of like.
func (h *Histogram) Clear(like *Histogram) {
	counts := append(h.Counts[:0], like.Counts...)
	clear(counts)
	*h = Histogram{Bounds: like.Bounds, Counts: counts}
	h.Has = like.Has & HasSum
}

// Clear makes e a delta that counts nothing, of the scale and zero threshold of like.
func (e *Exponential) Clear(like *Exponential) {
	*e = Exponential{}
	e.Scale, e.ZeroThreshold = like.Scale, like.ZeroThreshold
	e.Has = like.Has & HasSum
}
