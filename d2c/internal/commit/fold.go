// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package commit

import (
	"cmp"
	"slices"

	"github.com/deltaring/deltaring/d2c/internal/fold"
	"github.com/deltaring/deltaring/d2c/internal/points"
	"github.com/deltaring/deltaring/d2c/internal/table"
)

// Batch is the working memory of one Convert: the points of a batch, and the totals of the stream at hand.
type Batch struct {
	points.Batch
	ticket ticket

	timeline    fold.Timeline
	wasMarked   bool          // the stream at hand, before the item
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
}

// sort puts the items of one shard in the order of their times, and tells which are the last of their streams. It is called
// where a stream has several, with all their slots marked touched.
func sort(b *Batch, items []int32) {
	slices.SortStableFunc(items, func(i, j int32) int {
		return cmp.Compare(b.Items[i].Interval.Time, b.Items[j].Interval.Time)
	})
	for _, i := range slices.Backward(items) {
		it := &b.Items[i]
		switch {
		case it.Slot == nil:
		case it.Slot.Meta&table.FlagTouched == 0:
			it.SetMore()
		default:
			it.Slot.Meta &^= table.FlagTouched
		}
	}
	for _, i := range items {
		if s := b.Items[i].Slot; s != nil {
			s.Meta |= table.FlagTouched
		}
	}
}

// touch marks the item's slot, as one of which no sample is in the batch yet, and reports whether it was marked already.
func touch(it *points.Item) bool {
	if it.Slot == nil {
		return false
	}
	was := it.Slot.Meta&table.FlagTouched != 0
	it.Slot.Meta |= table.FlagTouched
	return was
}

// foldItems takes items into their streams, which are found already and marked touched. floor is the time up to which the
// streams of the shard may have been lost.
func (b *Batch) foldItems(to *target, items []int32, floor int64) {
	b.timeline.Floor = floor
	for _, i := range items {
		b.foldOne(to, &b.Items[i])
	}
	b.untouch(items)
}

// untouch takes off the marks of streams of which no sample came of the batch.
func (b *Batch) untouch(items []int32) {
	if !b.Dropped {
		return
	}
	for _, i := range items {
		if s := b.Items[i].Slot; s != nil {
			s.Meta &^= table.FlagTouched
		}
	}
}

// foldOne takes one item into its stream and notes its outcome.
func (b *Batch) foldOne(to *target, it *points.Item) {
	o := b.foldItem(to, it)
	if s := it.Slot; s != nil {
		if !o.Dropped() {
			s.Meta &^= table.FlagTouched
		}
		if o.Added() || o == fold.Repeated {
			s.Seen = to.now
		}
	}
	b.Note(it, o)
}

func (b *Batch) foldItem(to *target, it *points.Item) fold.Outcome {
	s, t := it.Slot, &b.timeline
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
		return fold.Forwarded // as it is: the stream has not begun, though a later point of this batch may open it
	}
	if !fresh {
		to.streams.Timeline(s, t)
	}
	b.wasMarked = !fresh && t.Marked
	var o fold.Outcome
	switch {
	case it.Marker:
		o = t.Mark(it.Interval.Time)
		if o == fold.Forwarded {
			b.Stamp(it, t)
		}
	case it.Kind == table.KindSum:
		o = b.foldSum(to, s, it, fresh)
	case it.Kind == table.KindHistogram:
		o = b.foldHistogram(to, s, it, fresh)
	default:
		o = b.foldExponential(to, s, it, fresh)
	}
	if o.Added() || o == fold.Forwarded || o == fold.Repeated && b.wasMarked {
		s.Meta |= table.FlagChanged
	}
	s.Meta &^= table.FlagFresh
	to.streams.SetTimeline(s, t)
	return o
}

// take folds the item into the total at hand, which becomes the delta alone if the stream is fresh.
func (b *Batch) take(to *target, v fold.Total, it *points.Item, fresh bool) fold.Outcome {
	if fresh {
		v.Restart()
		if b.after.Time != 0 {
			b.timeline.Start, b.timeline.Emitted = b.after.Start, max(b.after.Time, b.timeline.Floor)
			b.timeline.Last = 0
			b.timeline.Accept(fold.RestartedLost, it.Interval, to.rules, &b.Gaps)
			return fold.RestartedLost
		}
		b.timeline.Open(it.Interval)
		return fold.AddedFirst
	}
	return fold.Fold(&b.timeline, v, it.Interval, to.rules, &b.Gaps)
}

// answered reports whether a repeat needs no sample of its own: the stream's latest is in this batch already. Who sends one
// point a thousand times does not get a thousand histograms.
func (b *Batch) answered(s *table.Slot, o fold.Outcome) bool {
	return o == fold.Repeated && s.Meta&table.FlagTouched == 0 && !b.wasMarked
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
		b.Stamp(it, &b.timeline)
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
		to.streams.SetHistogram(s, &h.Histogram, fresh || o.Restarted())
	}
	switch {
	case o.Dropped():
	case b.answered(s, o) || it.More() && !b.Afford(len(h.Counts)):
		b.Withhold(it)
	default:
		b.Stamp(it, &b.timeline)
		b.PutHistogram(it, &h.Histogram, o)
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
		b.Stamp(it, &b.timeline)
		b.PutExponential(it, &e.Exponential)
	}
	return o
}
