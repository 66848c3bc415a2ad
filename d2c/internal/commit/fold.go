// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package commit

import (
	"cmp"
	"slices"
	"time"

	"github.com/deltaring/deltaring/d2c/internal/fold"
	"github.com/deltaring/deltaring/d2c/internal/points"
	"github.com/deltaring/deltaring/d2c/internal/table"
	"github.com/deltaring/deltaring/streamid"
)

// Batch is the working memory of one Convert: the points of a batch, and the totals of the stream at hand.
type Batch struct {
	points.Batch
	ticket ticket
	tenant []streamid.TenantKey // whose the batch is
	naming table.Naming

	timeline    fold.Timeline
	wasMarked   bool          // the stream at hand, before the item
	latest      *points.Item  // that has got a sample
	forwarded   *table.Slot   // that is fresh, and of whose stream a marker has been passed on in this batch
	unseen      *points.Item  // that began a life which has got a zero and no sample yet
	zeroed      *table.Slot   // of the stream whose latest life has got a zero in this batch
	claimed     *table.Slot   // of the stream whose latest time was given out in this batch
	after       fold.Interval // start and latest time of what the stream at hand has lost, zero if it continues
	sum         fold.SumTotal
	histogram   fold.HistogramTotal
	exponential fold.ExponentialTotal
}

// maxScratch is the number of bucket counts that scratch space may hold on to between batches.
const maxScratch = 1 << 12

// Reset lets go of the batch's data.
func (b *Batch) Reset() {
	b.Batch.Reset()
	b.tenant = nil
	counts := b.histogram.Counts
	if cap(counts) > maxScratch {
		counts = nil
	}
	b.histogram = fold.HistogramTotal{Histogram: fold.Histogram{Counts: counts}}
	b.exponential.Delta, b.exponential.Narrow = nil, [2][]uint32{}
}

// target is where items are folded to.
type target struct {
	streams *table.Shard
	rules   *fold.Rules
	now     uint32 // seconds of the table's clock
	unix    uint32 // the same as Unix seconds
	lives   fold.Lives
}

// remembers reports whether streams remember their deltas.
func (to *target) remembers() bool {
	return to.rules.Writers == fold.WritersMany && to.rules.Identical == fold.IdenticalRepeat
}

// window is how long they do, in seconds.
func (to *target) window() uint32 {
	return uint32((to.rules.LateWindow + time.Second - 1) / time.Second)
}

// sort brings the items of one shard in an order in which those of a stream follow each other as their times do, and tells
// which are the last of their streams. It is called where a stream has several.
func sort(b *Batch, items []int32) {
	slices.SortStableFunc(items, func(i, j int32) int {
		a, b := &b.Items[i], &b.Items[j]
		return cmp.Or(cmp.Compare(a.ID.Hi, b.ID.Hi), cmp.Compare(a.ID.Lo, b.ID.Lo), cmp.Compare(a.Interval.Time, b.Interval.Time))
	})
	for n, i := range items[1:] {
		if before := &b.Items[items[n]]; before.ID == b.Items[i].ID {
			before.SetMore()
		}
	}
}

// touch marks the item's slot, and reports whether it was marked already. Folding takes the mark off.
func touch(it *points.Item) bool {
	if it.Slot == nil {
		return false
	}
	was := it.Slot.Meta&table.FlagTouched != 0
	it.Slot.Meta |= table.FlagTouched
	return was
}

// foldItems takes items into their streams, which are found already. floor is the time up to which the streams of the shard may
// have been lost.
func (b *Batch) foldItems(to *target, items []int32, floor int64) {
	b.begin()
	b.timeline.Floor = floor
	for _, i := range items {
		b.foldOne(to, &b.Items[i])
	}
}

// begin is for the items of another shard.
func (b *Batch) begin() {
	b.latest, b.claimed, b.forwarded, b.unseen, b.zeroed = nil, nil, nil, nil, nil
}

// foldOne takes one item into its stream and notes its outcome.
func (b *Batch) foldOne(to *target, it *points.Item) {
	if it.Again() {
		b.foldAgain(to, it)
		return
	}
	o := b.foldItem(to, it)
	if s := it.Slot; s != nil {
		s.Meta &^= table.FlagTouched
		if o.Added() || o.Answered() {
			s.Seen = to.now
		}
	}
	b.Note(it, o)
}

func (b *Batch) foldItem(to *target, it *points.Item) fold.Outcome {
	s, t := it.Slot, &b.timeline
	t.Lives = to.lives
	if s == nil && !it.Marker {
		if it.Interval.Time <= t.Floor {
			return fold.DroppedTooLate
		}
		return fold.DroppedLimit
	}
	if s != nil && s.Kind() != it.Kind {
		return fold.DroppedTooLate // the kind is part of the identity; but storage may say anything, to those who forge its checksums
	}
	fresh := s != nil && s.Meta&table.FlagFresh != 0
	if fresh && it.Interval.Time <= max(b.after.Time, t.Floor) {
		return fold.DroppedTooLate
	}
	if it.Marker && (s == nil || fresh) {
		if it.Interval.Time <= t.Floor {
			return fold.DroppedTooLate
		}
		b.forwarded, t.Forwarded = s, it.Interval.Time
		return fold.Forwarded // as it is: the stream has not begun, though a later point of this batch may open it
	}
	if !fresh {
		to.streams.Timeline(s, t)
	} else if b.forwarded != s {
		t.Forwarded = 0
	}
	if it.Arrived() && !fresh {
		it.Interval.Time = min(max(it.Interval.Time, t.Last+1), fold.MaxTime)
	}
	b.wasMarked = !fresh && t.Marked
	t.Sampled, t.Replaces = b.claimed == s, false
	t.Zeros = to.rules.EmitZero && (it.Kind != table.KindSum || it.Monotonic())
	var o fold.Outcome
	switch {
	case it.Marker:
		o = t.Mark(it.Interval.Time)
		if o == fold.Forwarded {
			b.give(it)
		}
	case it.Kind == table.KindSum:
		o = b.foldSum(to, s, it, fresh)
	case it.Kind == table.KindHistogram:
		o = b.foldHistogram(to, s, it, fresh)
	default:
		o = b.foldExponential(to, s, it, fresh)
	}
	if t.Zeros {
		b.giveZero(it, o)
	}
	if o.Added() && to.remembers() {
		to.streams.Remember(s, it.Print, to.unix, to.window())
	}
	if o.Added() || o == fold.Forwarded || o.Answered() && b.wasMarked {
		s.Meta |= table.FlagChanged
		b.claimed = s
	}
	s.Meta &^= table.FlagFresh
	to.streams.SetTimeline(s, t)
	return o
}

// giveZero gives out the zero with which the item begins a life, or began it: of a delta that comes again, and is the only one of
// its life, the first export may have failed. Each life gets one in a batch.
func (b *Batch) giveZero(it *points.Item, o fold.Outcome) {
	s, t := it.Slot, &b.timeline
	begins := o == fold.AddedFirst || o.Restarted()
	if begins {
		b.zeroed = nil
	}
	if t.Zero == fold.NoZero || !begins && (o != fold.Repeated || it.Delta().Print != t.Print || it.Withheld() || b.zeroed == s) {
		return
	}
	b.zeroed = s
	if it.Withheld() {
		b.unseen = it
	}
	z := points.Zero{Start: t.Start, Time: t.ZeroTime()}
	switch it.Kind {
	case table.KindSum:
		z.Double = b.sum.Double
	case table.KindHistogram:
		z.HasSum = b.histogram.Has&fold.HasSum != 0
	default:
		z.HasSum, z.Scale, z.Threshold = b.exponential.Has&fold.HasSum != 0, b.exponential.Scale, b.exponential.ZeroThreshold
	}
	b.AddZero(it, z)
}

// take folds the item into the total at hand. A life that ends before any sample of it was given out needs no zero.
func (b *Batch) take(to *target, v fold.Total, it *points.Item, fresh bool) fold.Outcome {
	o := b.takeInto(to, v, it, fresh)
	if b.unseen != nil && b.unseen.Slot == it.Slot && o.Restarted() {
		b.DropZero(b.unseen)
		b.unseen = nil
	}
	return o
}

// takeInto folds the item into the total at hand, which becomes the delta alone if the stream is fresh.
func (b *Batch) takeInto(to *target, v fold.Total, it *points.Item, fresh bool) fold.Outcome {
	if fresh {
		v.Restart()
		if b.after.Time != 0 {
			b.timeline.Start, b.timeline.Emitted = b.after.Start, max(b.after.Time, b.timeline.Floor)
			b.timeline.Last = 0
			b.timeline.Accept(fold.RestartedLost, it.Delta(), to.rules, &b.Gaps)
			return fold.RestartedLost
		}
		b.timeline.Open(it.Delta(), to.rules)
		return fold.AddedFirst
	}
	if to.rules.Writers == fold.WritersMany {
		if to.remembers() && to.streams.Remembers(it.Slot, it.Print, to.unix, to.window()) {
			return b.timeline.Answer(v)
		}
		return fold.FoldUnordered(&b.timeline, v, it.Delta(), to.rules)
	}
	return fold.Fold(&b.timeline, v, it.Delta(), to.rules, &b.Gaps)
}

// answered reports whether what was not added needs no sample of its own: the stream's latest is in this batch already. Who
// sends one point a thousand times does not get a thousand histograms.
func (b *Batch) answered(s *table.Slot, o fold.Outcome) bool {
	return o.Answered() && b.latest != nil && b.latest.Slot == s && !b.wasMarked
}

// give has the item get the sample that the timeline says, in the place of one of its stream in this batch if that had the same
// time.
func (b *Batch) give(it *points.Item) {
	if b.timeline.Replaces && b.latest != nil && b.latest.Slot == it.Slot {
		b.Supersede(b.latest)
	}
	b.latest = it
	b.unseen = nil
	b.Stamp(it, &b.timeline)
}

func (b *Batch) foldSum(to *target, s *table.Slot, it *points.Item, fresh bool) fold.Outcome {
	delta := fold.Number{Bits: it.Value, Double: it.Double}
	// One by one: copied as a whole right after it was written in parts, it waits for the stores to reach the cache.
	b.sum.Number, b.sum.Delta, b.sum.Reduced = s.Number(), delta, delta
	o := b.take(to, &b.sum, it, fresh)
	if o.Added() {
		s.SetNumber(b.sum.Number)
	}
	switch {
	case o.Dropped():
	case b.answered(s, o):
		b.Withhold(it)
	default:
		b.give(it)
		b.PutNumber(it, b.sum.Number)
	}
	return o
}

func (b *Batch) foldHistogram(to *target, s *table.Slot, it *points.Item, fresh bool) fold.Outcome {
	h := &b.histogram
	h.Delta = b.HistogramDelta(it)
	if !fresh {
		to.streams.Histogram(s, h)
	}
	o := b.take(to, h, it, fresh)
	if o.Added() {
		to.streams.SetHistogram(s, &h.Histogram, fresh || h.Fit == fold.NewBounds)
		if h.Fit == fold.RoundedBounds {
			it.Repaired |= fold.RepairRoundedBounds
		}
	}
	switch {
	case o.Dropped():
	case b.answered(s, o) || it.More() && !b.Afford(len(h.Counts)):
		b.Withhold(it)
	default:
		b.give(it)
		b.PutHistogram(it, &h.Histogram, it.Relaid() || h.Fit == fold.RoundedBounds || h.Fit == fold.OtherBounds)
	}
	return o
}

func (b *Batch) foldExponential(to *target, s *table.Slot, it *points.Item, fresh bool) fold.Outcome {
	e := &b.exponential
	e.Delta = b.ExponentialDelta(it)
	if !fresh {
		to.streams.Exponential(s, e)
	}
	o := b.take(to, e, it, fresh)
	if o.Added() {
		to.streams.SetExponential(s, &e.Exponential)
	}
	switch {
	case o.Dropped():
	case b.answered(s, o) || it.More() && !b.Afford(e.Buckets()):
		b.Withhold(it)
	default:
		b.give(it)
		b.PutExponential(it, &e.Exponential)
	}
	return o
}
