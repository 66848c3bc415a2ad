// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package commit

import (
	"time"

	"github.com/deltaring/deltaring/d2c/internal/fold"
	"github.com/deltaring/deltaring/d2c/internal/points"
	"github.com/deltaring/deltaring/d2c/internal/table"
	"github.com/deltaring/deltaring/streamid"
)

// A point that is aggregated is folded twice: into the timeline of its writer, which says what of it is new, and into its total. Both
// are in one shard, and what changes them is one unit: in memory under one lock, in an entry of the journal, and in a shared
// store by swaps that are done all or none.

// Aggregate has metrics aggregated. It is called before the first batch, when Rules are set.
func (p *Pipeline) Aggregate(a *points.Aggregates) {
	p.Table.Aggregate()
	p.Reading.Aggregates = a
	p.writerRules, p.totalRules = p.Rules, p.Rules
	p.writerRules.Gap, p.writerRules.EmitZero = fold.GapContinue, false // a gap of one writer is none of the total
	p.totalRules.Writers, p.totalRules.Identical, p.totalRules.Gap = fold.WritersMany, fold.IdenticalAdd, fold.GapContinue
}

// findWriter finds the total and the writer of an item, or opens them. The shard is locked.
func (p *Pipeline) findWriter(b *Batch, sh *table.Shard, it *points.Item, w *points.Writer) {
	it.Slot, it.Number = sh.Seek(it.ID)
	w.Slot, w.Number = sh.Seek(w.ID)
	if it.Slot != nil && w.Slot != nil || it.Marker {
		return
	}
	owner := uint64(0)
	if it.Slot != nil {
		owner = sh.Owner(int(it.Number))
	}
	if w.Denied = b.denied(it, w, it.Slot, w.Slot == nil, owner, sh.Floor); w.Denied != 0 {
		return
	}
	opensTotal := it.Slot == nil
	if !p.room(sh, 0, w.Slot == nil, opensTotal) {
		w.Denied = fold.DroppedLimit
		return
	}
	if opensTotal {
		it.Slot = sh.Add(it.ID, it.Kind)
		it.Slot.Role = table.RoleTotal
		it.Number = int32(sh.N - 1)
	}
	if w.Slot == nil {
		w.Slot = sh.Add(w.ID, kindOf(it, w))
		w.Slot.Role = roleOf(w)
		w.Number = int32(sh.N - 1)
		sh.SetOwner(int(w.Number), it.ID.Lo)
		sh.SetOwner(int(it.Number), table.WithWriters(sh.Owner(int(it.Number)), 1))
		p.Writers.Add(1)
	}
}

// denied says why an item may not open what it lacks, zero if it may. owner is what its total, if there is one, has besides.
func (b *Batch) denied(it *points.Item, w *points.Writer, total *table.Slot, opensWriter bool, owner uint64, floor int64) fold.Outcome {
	limit := b.MaxWriters(w)
	switch {
	case it.Interval.Time <= floor:
		return fold.DroppedTooLate
	case !opensWriter:
		return 0
	case it.Interval.Time <= table.Horizon(owner), total != nil && total.Closed(it.Interval.Time):
		return fold.DroppedTooLate // and leaves no writer behind of which nothing was taken
	case limit > 0 && table.Writers(owner) >= limit:
		return fold.DroppedWriters
	}
	return 0
}

// kindOf is the kind of a writer's slot: one of deltas has no value.
func kindOf(it *points.Item, w *points.Writer) table.Kind {
	if w.Cumulative {
		return it.Kind
	}
	return table.KindSum
}

func roleOf(w *points.Writer) table.Role {
	if w.Cumulative {
		return table.RoleCumulative
	}
	return table.RoleWriter
}

// foldWriter takes an item into its writer and its total, and notes its outcome.
func (b *Batch) foldWriter(to *target, it *points.Item, w *points.Writer) {
	s := it.Slot
	if s != nil {
		s.Meta &^= table.FlagTouched
	}
	switch {
	case it.Marker:
		b.Withhold(it)
		b.Note(it, fold.WriterNoRecordedValue)
		return
	case s == nil || w.Slot == nil:
		b.Note(it, w.Denied)
		return
	case s.Role != table.RoleTotal || w.Slot.Role != roleOf(w) || s.Kind() != it.Kind || w.Slot.Kind() != kindOf(it, w):
		b.Note(it, fold.DroppedTooLate) // the identities say otherwise; but storage may say anything
		return
	}
	t, u := &b.timeline, &b.writer
	a := aggregation{
		Writer: w, fresh: s.Meta&table.FlagFresh != 0, unknown: w.Slot.Meta&table.FlagFresh != 0,
		known: max(t.Floor, table.Horizon(to.streams.Owner(int(it.Number)))),
	}
	t.Lives, a.counted = to.lives, b.lost
	if to.forgotten > 0 && it.Interval.Time > to.forgotten-int64(RetryHorizon) {
		t.Lives.Expired, a.known = max(t.Lives.Expired, to.forgotten), max(a.known, to.forgotten)
	}
	if a.unknown && it.Interval.Time <= a.known || a.fresh && it.Interval.Time <= max(b.after.Time, t.Floor) {
		b.Note(it, fold.DroppedTooLate)
		return
	}
	a.aligned = !w.Cumulative && !to.many && w.Slot.Aligned(it.Interval)
	if !a.aligned {
		// Of a writer that was forgotten and has come back, what came before that may have been counted.
		u.Floor, u.Lives, u.Zeros, u.Moved = a.known, t.Lives, false, false
	}
	if to.rules.Gap == fold.GapRestartIfMoved {
		b.moves(to, s, &a)
	}
	if !a.unknown && !a.aligned {
		to.streams.Timeline(w.Slot, u)
		if it.Arrived() {
			it.Interval.Time = min(max(it.Interval.Time, u.Last+1), fold.MaxTime)
		}
	}
	if !a.fresh {
		to.streams.Timeline(s, t)
		t.Moved = a.moved && (b.period != 0 || a.unknown || !a.aligned && it.Interval.Start != u.Last)
	}
	b.wasMarked = t.Marked && !a.fresh
	t.Forwarded, t.Sampled, t.Replaces = 0, b.several && b.claimed == s, false
	if to.rules.EmitZero {
		t.Zeros, t.Zero = (it.Kind != table.KindSum || it.Monotonic()) && !b.Held(w), fold.NoZero
	}

	v := b.load(to, it, &a)
	o := b.judge(to, v, it, &a)
	counts := o.Added() || o == fold.Baseline
	if counts {
		o = b.addTotal(to, v, it, o, &a)
		b.saveTotal(to, it, &a)
		if print := v.Print(it.Interval); a.aligned {
			w.Slot.Align(it.Interval, print)
			w.Slot.Meta |= table.FlagChanged
			w.Slot.Period = b.period
		} else {
			u.Print = fold.ShortPrint(print)
			b.saveWriter(to, it, &a)
		}
	} else if o.Answered() && !a.fresh {
		t.Answer(v)
	}
	if counts || o.Answered() {
		s.Seen, w.Slot.Seen = to.now, to.now
	}
	if o.Dropped() {
		b.Note(it, o)
		return
	}
	b.giveTotal(it, o, &a)
	if counts && t.Zeros {
		b.giveZero(it, a.ofTotal(o))
	}
	if counts || b.wasMarked {
		s.Period, s.Rule, s.Due = b.period, uint8(w.Rule), b.Held(w)
		s.Meta = s.Meta&^table.FlagFresh | table.FlagChanged
		if b.several {
			b.claimed = s
		}
		t.Last = t.Emitted // of a total nobody asks when its latest interval ended, and so it needs no aside
		to.streams.SetTimeline(s, t)
	}
	b.Note(it, o)
}

// aggregation is what folding one item needs.
type aggregation struct {
	*points.Writer
	fresh   bool  // the total
	unknown bool  // the writer
	aligned bool  // the point, to the writer
	known   int64 // up to when writers that are not known may have been counted
	open    fold.Interval

	// Where streams move between workers that share nothing:
	moved     bool  // others may have counted the total since this worker did
	elsewhere int64 // when gateways began to send the total here; zero if that is not known, and where nothing moves
	counted   int64 // up to when others may have counted a cumulative writer that is not known
}

// moves finds what may have been done elsewhere. A life of a total that was elsewhere begins when gateways began to send it here: what
// was given out there is of before. Its writers' deltas may be of before that, and are counted all the same.
func (b *Batch) moves(to *target, s *table.Slot, a *aggregation) {
	a.elsewhere = to.periods.Began(b.period) * int64(time.Millisecond)
	a.moved = !a.fresh && to.moved(s, b)
	if a.Cumulative && !a.unknown && (a.fresh || a.moved || a.Slot.Last() < s.Start()) {
		a.unknown = true // what it holds beyond the latest that is known here may have been counted there
	}
	switch {
	case !a.unknown:
	case !a.fresh && !a.moved:
		a.counted = s.Start() // all of its writers were counted here since
	case a.elsewhere == 0:
		a.counted = fold.MaxTime
	default:
		a.counted = a.elsewhere + clockMargin*int64(time.Second)
	}
}

// ofTotal is what an outcome is to the total: the first of a writer need not be that of its total.
func (a *aggregation) ofTotal(o fold.Outcome) fold.Outcome {
	switch {
	case o.Restarted():
		return o
	case a.fresh:
		return fold.AddedFirst
	}
	return fold.AddedAligned
}

// load has the total and the delta of an item at hand.
func (b *Batch) load(to *target, it *points.Item, a *aggregation) fold.Total {
	switch it.Kind {
	case table.KindSum:
		delta := it.NumberValue()
		b.sum.Number, b.sum.Delta, b.sum.Reduced = it.Slot.Number(), delta, delta
		return &b.sum
	case table.KindHistogram:
		b.histogram.Take(b.HistogramDelta(it))
		if !a.fresh {
			to.streams.Histogram(it.Slot, &b.histogram)
		}
		return &b.histogram
	default:
		b.exponential.Take(b.ExponentialDelta(it))
		if !a.fresh {
			to.streams.Exponential(it.Slot, &b.exponential)
		}
		return &b.exponential
	}
}

// judge folds the item into the timeline of its writer.
func (b *Batch) judge(to *target, v fold.Total, it *points.Item, a *aggregation) fold.Outcome {
	t, u, p := &b.timeline, &b.writer, it.Interval
	a.open = fold.Interval{Time: p.Time}
	before := !a.fresh && t.Before(p) // it may have been counted by another process
	switch {
	case a.Cumulative:
		return b.judgeCumulative(to, it, a)
	case a.aligned && !before:
		return fold.AddedAligned
	case a.aligned:
		return fold.DroppedTooLate
	case before && to.remembers && !a.unknown && to.streams.Remembers(a.Slot, b.Print(it), to.unix, to.window):
		return fold.Repeat
	case before && !to.many && !a.unknown:
		if o := u.Classify(p, v.Print(p), to.writer); o.Answered() {
			return o
		}
		return fold.DroppedTooLate
	case before:
		return fold.DroppedTooLate
	case to.many && !a.unknown:
		if u.Before(p) {
			if to.remembers && to.streams.Remembers(a.Slot, b.Print(it), to.unix, to.window) {
				return fold.Repeat
			}
			return fold.DroppedTooLate
		}
		if to.remembers && !it.Arrived() && to.streams.Remember(a.Slot, b.Print(it), to.unix, to.window) {
			return fold.Repeat
		}
		u.Last = max(u.Last, p.Time)
		u.Emitted = u.Last
		return fold.AddedUnordered
	}
	if a.unknown {
		a.open = p
	}
	b.unvalued.Total = v
	return fold.FoldWriter(u, &b.unvalued, p, a.unknown, to.writer, &b.Gaps)
}

// judgeCumulative has of a cumulative item as much at hand as is new.
func (b *Batch) judgeCumulative(to *target, it *points.Item, a *aggregation) fold.Outcome {
	known := a.known
	if to.lives.Began < it.Interval.Time && (to.memory || a.fresh || b.timeline.Start >= to.lives.Began) {
		// The total is of this process, and what there was before may have counted the producer: under other rules, or without any. A total
		// that is older knows its writers.
		known = max(known, to.lives.Began)
	}
	known = max(known, a.counted)
	fell, same := false, false
	if !a.unknown {
		fell, same = b.compare(to, it, a)
	}
	o, share := fold.FoldCumulative(&b.writer, it.Interval, a.unknown, fell, same, known)
	if o == fold.AddedFirst {
		a.open = it.Interval
	}
	switch {
	case share == fold.ShareDifference && it.Kind == table.KindSum:
		b.sum.Delta, b.sum.Reduced = b.more.number, b.more.number
	case share == fold.ShareDifference && it.Kind == table.KindHistogram:
		b.histogram.Take(&b.more.histogram)
	case share == fold.ShareDifference:
		b.exponential.Take(&b.more.exponential)
	case share != fold.ShareZero:
	case it.Kind == table.KindSum:
		zero := fold.Number{Double: it.Double}
		b.sum.Delta, b.sum.Reduced = zero, zero
	case it.Kind == table.KindHistogram:
		b.more.histogram.Clear(b.HistogramDelta(it))
		b.histogram.Take(&b.more.histogram)
	default:
		b.more.exponential.Clear(b.ExponentialDelta(it))
		b.exponential.Take(&b.more.exponential)
	}
	return o
}

// more is what cumulative items hold beyond the latest of their writers, and the latest themselves.
type more struct {
	number          fold.Number
	histogram       fold.Histogram
	exponential     fold.Exponential
	lastHistogram   fold.HistogramTotal
	lastExponential fold.ExponentialTotal
	now             fold.ExponentialTotal
}

// cumulative is the value of an exponential histogram, with no more buckets than a stream keeps.
func (b *Batch) cumulative(it *points.Item) *fold.Exponential {
	now := b.ExponentialDelta(it)
	if len(now.Ranges[0].Counts) <= fold.MaxBuckets && len(now.Ranges[1].Counts) <= fold.MaxBuckets {
		return now
	}
	b.more.now.Take(now)
	b.more.now.Restart()
	return &b.more.now.Exponential
}

// compare finds what a cumulative item holds beyond the latest of its writer. It reports whether it holds less somewhere, and whether it is
// the same.
func (b *Batch) compare(to *target, it *points.Item, a *aggregation) (fell, same bool) {
	m := &b.more
	switch it.Kind {
	case table.KindSum:
		now, last := it.NumberValue(), a.Slot.Number()
		m.number, fell = now.Minus(last, it.Monotonic())
		return fell, now == last
	case table.KindHistogram:
		now := b.HistogramDelta(it)
		to.streams.Histogram(a.Slot, &m.lastHistogram)
		m.lastHistogram.Complete()
		same = now.Print(fold.Interval{}) == m.lastHistogram.Histogram.Print(fold.Interval{})
		return m.histogram.Difference(now, &m.lastHistogram.Histogram), same
	default:
		now := b.cumulative(it)
		to.streams.Exponential(a.Slot, &m.lastExponential)
		m.lastExponential.Complete()
		same = now.Print(fold.Interval{}) == m.lastExponential.Exponential.Print(fold.Interval{})
		return m.exponential.Difference(now, &m.lastExponential.Exponential), same
	}
}

// saveWriter keeps what is known of the writer.
func (b *Batch) saveWriter(to *target, it *points.Item, a *aggregation) {
	s := a.Slot
	switch {
	case !a.Cumulative:
		s.SetNumber(fold.Number{})
	case it.Kind == table.KindSum:
		s.SetNumber(it.NumberValue())
	case it.Kind == table.KindHistogram:
		to.streams.SetHistogram(s, b.HistogramDelta(it), true)
	default:
		to.streams.SetExponential(s, b.cumulative(it))
	}
	s.Meta = s.Meta&^table.FlagFresh | table.FlagChanged
	s.Period = b.period
	to.streams.SetTimeline(s, &b.writer)
	if a.unknown && to.remembers && !a.Cumulative && !it.Arrived() {
		to.streams.Remember(s, b.Print(it), to.unix, to.window)
	}
}

// addTotal adds what is new of an item to its total.
func (b *Batch) addTotal(to *target, v fold.Total, it *points.Item, o fold.Outcome, a *aggregation) fold.Outcome {
	t := &b.timeline
	was, at := o, to.notAhead(it.Interval)
	switch {
	case a.fresh && b.after.Time != 0:
		v.Restart()
		t.Start, t.Emitted, t.Last = b.after.Start, max(b.after.Time, t.Floor), 0
		o = fold.RestartedLost
		t.Accept(o, at, v.Print(at), to.total, &b.Gaps)
	case a.fresh:
		v.Restart()
		t.OpenTotal(to.notAhead(a.open), v.Print(at), a.elsewhere, to.total)
	case t.Moved:
		o = fold.RestartTotal(t, v, at, a.elsewhere, to.total, &b.Gaps)
	default:
		if r := fold.FoldUnordered(t, v, at, to.total); r.Restarted() {
			o = r
		}
	}
	if o.Restarted() && was == fold.Baseline {
		o = was // nothing of the point is in the new life
	}
	if b.unseen != nil && b.unseen.Slot == it.Slot && o.Restarted() {
		b.DropZero(b.unseen)
		b.unseen = nil
	}
	return o
}

// notAhead is an interval as a total takes it. One writer of a wrong clock is not to move the samples of all others to its time, where they
// would stay, and which no backend takes.
func (to *target) notAhead(p fold.Interval) fold.Interval {
	if latest := int64(to.unix)*int64(time.Second) + int64(MaxAhead); p.Time > latest {
		p.Time = latest
		if p.Start >= latest {
			p.Start = 0
		}
	}
	return p
}

// saveTotal keeps the total at hand.
func (b *Batch) saveTotal(to *target, it *points.Item, a *aggregation) {
	switch it.Kind {
	case table.KindSum:
		it.Slot.SetNumber(b.sum.Number)
	case table.KindHistogram:
		to.streams.SetHistogram(it.Slot, &b.histogram.Histogram, a.fresh || b.histogram.Fit == fold.NewBounds)
		if b.histogram.Fit == fold.RoundedBounds {
			b.Repair(it, fold.RepairRoundedBounds)
		}
	default:
		to.streams.SetExponential(it.Slot, &b.exponential.Exponential)
	}
}

// giveTotal gives an item the sample of its total, in the place of an earlier one of the batch, unless that was of a life before.
func (b *Batch) giveTotal(it *points.Item, o fold.Outcome, a *aggregation) {
	known := o.Added() || o == fold.Baseline
	before := b.latest
	if before != nil && before.Slot != it.Slot {
		before = nil
	}
	size := 0
	switch it.Kind {
	case table.KindHistogram:
		size = len(b.histogram.Counts)
	case table.KindExponentialHistogram:
		size = b.exponential.Buckets()
	}
	switch {
	case b.Held(a.Writer), a.fresh && !known, before != nil && !known && !b.wasMarked, it.More() && !b.Afford(size):
		b.Withhold(it)
		return
	}
	if b.several {
		if before != nil && !o.Restarted() {
			b.Supersede(before)
			b.MoveZero(before, it) // where the sample is: the points of a total are anywhere in a batch
		}
		b.latest = it
	}
	if b.unseen != nil && b.unseen.Slot == it.Slot && !o.Restarted() {
		b.MoveZero(b.unseen, it)
	}
	b.unseen = nil
	b.Stamp(it, &b.timeline)
	switch it.Kind {
	case table.KindSum:
		b.PutNumber(it, b.sum.Number)
	case table.KindHistogram:
		b.PutHistogram(it, &b.histogram.Histogram, true)
	default:
		b.PutExponential(it, &b.exponential.Exponential)
	}
}

// locateWriter finds the copies of an item's total and writer, or makes them. Until then slots and numbers are the originals'.
func (tx *Tx) locateWriter(b *Batch, it *points.Item, w *points.Writer, sh *table.Shard, shard int) {
	total, writer := it.Slot, w.Slot
	if it.Marker {
		it.Slot, w.Slot = nil, nil // nothing comes of it
		return
	}
	totalCopy, writerCopy := tx.copied(it.ID, total, it.Number), tx.copied(w.ID, writer, w.Number)
	if opens := writer == nil && writerCopy < 0; opens || total == nil && totalCopy < 0 {
		owner, floor, known := uint64(0), sh.Floor, total
		switch {
		case totalCopy >= 0:
			owner, known = tx.copies.Owner(int(totalCopy)), tx.copies.Slot(int(totalCopy))
		case total != nil:
			owner = sh.Owner(int(it.Number))
		}
		if tx.conditional {
			floor, known = 0, nil // the store decides
		}
		if w.Denied = b.denied(it, w, known, opens, owner, floor); w.Denied == 0 && !tx.roomFor(sh, opens, total == nil && totalCopy < 0) {
			w.Denied = fold.DroppedLimit
		}
		if w.Denied != 0 {
			it.Slot, w.Slot = nil, nil
			return
		}
	}
	it.Slot, it.Number = tx.copyOf(totalCopy, it.ID, total, it.Number, sh, shard, it.Kind, table.RoleTotal, 0)
	at := it.Number + 1
	opened := writer == nil && writerCopy < 0
	w.Slot, w.Number = tx.copyOf(writerCopy, w.ID, writer, w.Number, sh, shard, kindOf(it, w), roleOf(w), it.ID.Lo)
	tx.of[it.Number].total, tx.of[w.Number].total = at, at
	tx.of[it.Number].monotonic = it.Monotonic()
	if opened {
		tx.copies.SetOwner(int(it.Number), table.WithWriters(tx.copies.Owner(int(it.Number)), 1))
	}
}

// copied returns the number of the copy of a stream, or -1.
func (tx *Tx) copied(id streamid.ID, original *table.Slot, number int32) int32 {
	if original != nil {
		return tx.copyAt[number] - 1
	}
	if s, n := tx.copies.Seek(id); s != nil {
		return n
	}
	return -1
}

// roomFor reserves what an item opens, if there is room for it.
func (tx *Tx) roomFor(sh *table.Shard, writer, total bool) bool {
	if !tx.p.room(sh, tx.opened, writer, total) {
		return false
	}
	tx.opened += opening(writer, total)
	return true
}

// opening is how many slots that takes.
func opening(writer, total bool) (n int) {
	for _, opens := range [...]bool{writer, total} {
		if opens {
			n++
		}
	}
	return n
}

// room reserves what an item opens, if there is room for it in a shard that has so many slots more by then.
func (p *Pipeline) room(sh *table.Shard, more int, writer, total bool) bool {
	n := opening(writer, total)
	if sh.N+more+n > table.MaxSlots {
		return false
	}
	for i := range n {
		if !p.reserve() {
			p.Live.Add(-int64(i))
			return false
		}
	}
	return true
}

// copyOf returns a copy and its number. It makes one unless there is.
func (tx *Tx) copyOf(
	n int32, id streamid.ID, original *table.Slot, number int32, sh *table.Shard, shard int, kind table.Kind, role table.Role, owner uint64,
) (*table.Slot, int32) {
	if n >= 0 {
		return tx.copies.Slot(int(n)), n
	}
	from := origin{number: -1, shard: uint8(shard)}
	var s *table.Slot
	if original == nil {
		s = tx.copies.Add(id, kind)
		s.Role = role
	} else {
		s = tx.copies.Append(id, original.Kind())
		tx.copies.CopyFrom(s, sh, original)
		owner = sh.Owner(int(number))
		from.number, from.tag, from.seen = number, sh.Tag(int(number)), original.Seen
		tx.copyAt[number] = int32(tx.copies.N)
	}
	n = int32(tx.copies.N - 1)
	tx.copies.SetOwner(int(n), owner)
	tx.of = append(tx.of, from)
	if tx.conditional {
		tx.fates = append(tx.fates, fate{})
	}
	return s, n
}

// publishNew gives a total or a writer that is new to the table what it has besides.
func (tx *Tx) publishNew(sh *table.Shard, number, n int) {
	s := tx.copies.Slot(n)
	if !s.Role.Writes() {
		return
	}
	owner := tx.copies.Owner(n)
	sh.SetOwner(number, owner)
	tx.p.Writers.Add(1)
	if total, at := sh.Seek(s.Total(owner)); total != nil && total.Role == table.RoleTotal {
		sh.SetOwner(int(at), table.WithWriters(sh.Owner(int(at)), 1))
	}
}

// Total returns the copy of the total of a copy, which is itself for that of a total, or -1 if it is neither of a total nor of a writer.
func (tx *Tx) Total(n int) int { return int(tx.of[n].total) - 1 }
