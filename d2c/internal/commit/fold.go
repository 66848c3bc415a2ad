// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package commit

import (
	"cmp"
	"slices"

	"github.com/deltaring/deltaring/d2c/internal/alike"
	"github.com/deltaring/deltaring/d2c/internal/fold"
	"github.com/deltaring/deltaring/d2c/internal/points"
	"github.com/deltaring/deltaring/d2c/internal/table"
	"github.com/deltaring/deltaring/streamid"
)

// Batch is the working memory of one Convert: the points of a batch, and the totals of the stream at hand.
type Batch struct {
	points.Batch
	ticket ticket
	hasher alike.Hasher
	period uint8                // of the batch's route
	tenant []streamid.TenantKey // whose the batch is
	naming table.Naming

	timeline    fold.Timeline
	wasMarked   bool          // the stream at hand, before the item
	several     bool          // some stream has several points, and what follows is about those of one
	latest      *points.Item  // that has got a sample
	forwarded   *table.Slot   // that is fresh, and of whose stream a marker has been passed on in this batch
	unseen      *points.Item  // that began a life which has got a zero and no sample yet
	claimed     *table.Slot   // of the stream whose latest time was given out in this batch
	after       fold.Interval // start and latest time of what the stream at hand has lost, zero if it continues
	sum         fold.SumTotal
	histogram   fold.HistogramTotal
	exponential fold.ExponentialTotal

	// What follows is for items that are aggregated.
	writer   fold.Timeline
	unvalued fold.Unvalued
	more     more
	lost     int64 // up to when the cumulative writer at hand may have been counted, that a shared store has lost
}

// maxScratch is the number of bucket counts that scratch space may hold on to between batches.
const maxScratch = 1 << 12

// Reset lets go of the batch's data.
func (b *Batch) Reset() {
	b.Batch.Reset()
	b.several = false
	b.tenant = nil
	counts := b.histogram.Counts
	if cap(counts) > maxScratch {
		counts = nil
	}
	b.histogram = fold.HistogramTotal{Histogram: fold.Histogram{Counts: counts}}
	b.exponential.Delta, b.exponential.Narrow = nil, [2][]uint32{}
	b.unvalued.Total = nil
}

// target is where items are folded to.
type target struct {
	streams *table.Shard
	rules   *fold.Rules
	now     uint32 // seconds of the table's clock
	unix    uint32 // the same as Unix seconds
	lives   fold.Lives
	periods *Periods

	remembers bool   // streams remember their deltas
	window    uint32 // for how long, in seconds
	late      bool   // some items need more: see arrive
	many      bool   // streams have many writers
	memory    bool   // state ends with the process

	writer, total *fold.Rules // of what is aggregated
	// forgotten is up to when a shared store may have let records expire, of writers and totals that it does not have. It is to keep
	// them for MaxStale.
	forgotten int64
}

// clockMargin is by how many seconds the clocks of gateways and workers may differ.
const clockMargin = 30

// moved reports whether the stream may have been elsewhere since it was last counted. Of one that was counted before this process
// began, or longer ago than periods are told apart, what is known is when: if some gateway has used the ring since before, it
// was here.
func (to *target) moved(s *table.Slot, b *Batch) bool {
	if s.Period != 0 {
		return to.periods.Moved(s.Period, b.period)
	}
	counted := int64(to.unix) - int64(to.now) + int64(s.Seen)
	began := to.periods.Began(b.period)
	return began == 0 || began/1000 > counted-clockMargin
}

// sort brings the items of one shard in an order in which those of a stream follow each other as their times do, and tells
// which are the last of their streams. It is called where a stream has several.
func sort(b *Batch, items []int32) {
	b.several = true
	slices.SortStableFunc(items, func(i, j int32) int {
		a, b := &b.Items[i], &b.Items[j]
		return cmp.Or(cmp.Compare(a.ID.Hi, b.ID.Hi), cmp.Compare(a.ID.Lo, b.ID.Lo), cmp.Compare(a.Interval.Time, b.Interval.Time))
	})
	for n, i := range items[1:] {
		if before := &b.Items[items[n]]; before.ID == b.Items[i].ID {
			before.SetMore()
			if items[n] > i {
				b.Unsorted = true
			}
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
	b.begin(to)
	b.timeline.Floor = floor
	for _, i := range items {
		b.foldOne(to, &b.Items[i])
	}
}

// begin is for the items of another shard.
func (b *Batch) begin(to *target) {
	b.latest, b.claimed, b.forwarded, b.unseen = nil, nil, nil, nil
	b.timeline.Lives, b.timeline.Sampled, b.timeline.Replaces = to.lives, false, false
}

// foldOne takes one item into its stream and notes its outcome.
func (b *Batch) foldOne(to *target, it *points.Item) {
	if it.Again() {
		b.foldAgain(to, it)
		return
	}
	if b.Aggregated() {
		if w := b.Writer(it); w != nil {
			b.foldWriter(to, it, w)
			return
		}
	}
	s, t := it.Slot, &b.timeline
	fresh := false
	if s == nil || it.Marker || s.Opens(it.Kind) {
		o, done := b.foldOdd(it)
		if done {
			b.Note(it, o)
			return
		}
		fresh = s.Meta&table.FlagFresh != 0
	}
	if !fresh {
		to.streams.Timeline(s, t)
		if to.late {
			b.arrive(to, it)
		}
	}
	b.wasMarked = t.Marked && !fresh
	if b.several {
		t.Sampled, t.Replaces = b.claimed == s, false
	}
	if to.rules.EmitZero {
		t.Zeros, t.Zero = (it.Kind != table.KindSum || it.Monotonic()) && !it.Summary(), fold.NoZero
		if fresh && b.forwarded != s {
			t.Forwarded = 0
		}
	}
	var o fold.Outcome
	switch {
	case it.Marker:
		if o = t.Mark(it.Interval.Time); o == fold.NoRecordedValue {
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
	added := o.Added()
	switch {
	case added:
		s.Seen, s.Period = to.now, b.period
	case o.Answered():
		s.Seen = to.now
	}
	meta := s.Meta &^ (table.FlagFresh | table.FlagTouched)
	if added || o == fold.NoRecordedValue || b.wasMarked && o.Answered() {
		meta |= table.FlagChanged
		if b.several {
			b.claimed = s
		}
	}
	s.Meta = meta
	to.streams.SetTimeline(s, t)
	if fresh && added && to.remembers && !it.Arrived() {
		to.streams.Remember(s, b.Print(it), to.unix, to.window)
	}
	b.Note(it, o)
}

// foldOdd says what becomes of an item without a stream or that is to open one, and of a marker, if that is known without the
// stream.
func (b *Batch) foldOdd(it *points.Item) (o fold.Outcome, done bool) {
	s, t := it.Slot, &b.timeline
	fresh := s != nil && s.Meta&table.FlagFresh != 0
	if s != nil {
		s.Meta &^= table.FlagTouched
	}
	switch {
	case s == nil && !it.Marker && it.Interval.Time > t.Floor:
		return fold.DroppedLimit, true
	case s == nil && !it.Marker:
		return fold.DroppedTooLate, true
	case s != nil && s.Kind() != it.Kind:
		return fold.DroppedTooLate, true // the kind is part of the identity; but storage may say anything, to those who forge its checksums
	case fresh && it.Interval.Time <= max(b.after.Time, t.Floor):
		return fold.DroppedTooLate, true
	case it.Marker && (s == nil || fresh) && it.Interval.Time <= t.Floor:
		return fold.DroppedTooLate, true
	case it.Marker && (s == nil || fresh):
		b.forwarded, t.Forwarded = s, it.Interval.Time
		return fold.NoRecordedValue, true // as it is: the stream has not begun, though a later point of this batch may open it
	}
	return 0, false
}

// arrive finds what few configurations need to know of an item of a known stream.
func (b *Batch) arrive(to *target, it *points.Item) {
	t := &b.timeline
	if it.Arrived() {
		it.Interval.Time = min(max(it.Interval.Time, t.Last+1), fold.MaxTime)
	}
	if to.rules.Gap == fold.GapRestartIfMoved {
		t.Moved = to.moved(it.Slot, b)
	}
}

// giveZero gives out the zero with which the item begins a life.
func (b *Batch) giveZero(it *points.Item, o fold.Outcome) {
	t := &b.timeline
	if t.Zero == fold.NoZero || o != fold.AddedFirst && !o.Restarted() {
		return
	}
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
func (b *Batch) take(to *target, v fold.Total, it *points.Item, fresh bool) (o fold.Outcome) {
	switch {
	case fresh:
		o = b.open(to, v, it)
	case to.rules.Writers == fold.WritersMany:
		o = b.takeUnordered(to, v, it)
	default:
		o = fold.Fold(&b.timeline, v, it.Interval, to.rules, &b.Gaps)
	}
	if b.unseen != nil && b.unseen.Slot == it.Slot && o.Restarted() {
		b.DropZero(b.unseen)
		b.unseen = nil
	}
	return o
}

// open makes the item's delta the total at hand, of a stream that is fresh.
func (b *Batch) open(to *target, v fold.Total, it *points.Item) fold.Outcome {
	v.Restart()
	if b.after.Time != 0 {
		b.timeline.Start, b.timeline.Emitted = b.after.Start, max(b.after.Time, b.timeline.Floor)
		b.timeline.Last = 0
		b.timeline.Accept(fold.RestartedLost, it.Interval, v.Print(it.Interval), to.rules, &b.Gaps)
		return fold.RestartedLost
	}
	b.timeline.Open(it.Interval, v.Print(it.Interval), to.rules)
	return fold.AddedFirst
}

// takeUnordered folds an item of many writers into the total at hand.
func (b *Batch) takeUnordered(to *target, v fold.Total, it *points.Item) fold.Outcome {
	if b.timeline.Before(it.Interval) {
		if to.remembers && to.streams.Remembers(it.Slot, b.Print(it), to.unix, to.window) {
			return b.timeline.Answer(v)
		}
		return fold.DroppedTooLate
	}
	if to.remembers && !it.Arrived() && to.streams.Remember(it.Slot, b.Print(it), to.unix, to.window) {
		return b.timeline.Answer(v)
	}
	return fold.FoldUnordered(&b.timeline, v, it.Interval, to.rules)
}

// answered reports whether what was not added needs no sample of its own: the stream's latest is in this batch already. Who
// sends one point a thousand times does not get a thousand histograms.
func (b *Batch) answered(s *table.Slot, o fold.Outcome) bool {
	return o.Answered() && b.latest != nil && b.latest.Slot == s && !b.wasMarked
}

// give has the item get the sample that the timeline says, in the place of one of its stream in this batch if that had the same
// time.
func (b *Batch) give(it *points.Item) {
	if b.several {
		if b.timeline.Replaces && b.latest != nil && b.latest.Slot == it.Slot {
			b.Supersede(b.latest)
		}
		b.latest = it
	}
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
	h.Take(b.HistogramDelta(it))
	if !fresh {
		to.streams.Histogram(s, h)
	}
	o := b.take(to, h, it, fresh)
	if o.Added() {
		to.streams.SetHistogram(s, &h.Histogram, fresh || h.Fit == fold.NewBounds)
		if h.Fit == fold.RoundedBounds {
			b.Repair(it, fold.RepairRoundedBounds)
		}
	}
	switch {
	case o.Dropped():
	case b.answered(s, o) || it.More() && !b.Afford(len(h.Counts)):
		b.Withhold(it)
	default:
		b.give(it)
		rest := it.Relaid() || h.Fit == fold.RoundedBounds || h.Fit == fold.OtherBounds
		if it.Summary() {
			// The latest sample has the quantiles of the delta that was added last. It must not be given out with others, and of
			// many writers nobody knows which was the last.
			rest = o.Answered() && (o != fold.Repeat || to.rules.Writers != fold.WritersOne)
		}
		b.PutHistogram(it, &h.Histogram, rest)
	}
	return o
}

func (b *Batch) foldExponential(to *target, s *table.Slot, it *points.Item, fresh bool) fold.Outcome {
	e := &b.exponential
	e.Take(b.ExponentialDelta(it))
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
