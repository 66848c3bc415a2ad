// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package commit

import (
	"context"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c/internal/fold"
	"github.com/deltaring/deltaring/d2c/internal/points"
	"github.com/deltaring/deltaring/d2c/internal/table"
	"github.com/deltaring/deltaring/streamid"
)

// Streams of which nothing comes are given out again: their latest sample, at the time of now. That is a change like any other, because
// no sample may follow that is not later: a batch without points goes through the pipeline, and what it asks for is given out
// once it is kept.

// maxAgain bounds the samples of such a batch.
const maxAgain = 1000

// maxHold bounds how long the store may take for one: whoever holds back other batches meanwhile must not hang with it.
const maxHold = 5 * time.Second

// NameStreams has the pipeline know who its streams are, to give them out again, or only those that are not given out with batches. It is
// called before the first batch.
func (p *Pipeline) NameStreams(held bool) {
	p.Table.NameStreams()
	p.Reading.Names, p.namesHeld = true, held
}

// Reemit gives out again what has been quiet for an interval, but for streams that were counted since the time that hold returns,
// unless that is zero. It calls hold before it looks for a batch of them, and release once that is given out. It
// stops at an error of give, or of the Keeper, and returns how many samples give has taken.
func (p *Pipeline) Reemit(
	ctx context.Context, interval time.Duration, hold func() (since time.Time, release func()), give func(tenant []streamid.TenantKey, md pmetric.Metrics) error,
) (n int, err error) {
	return p.ask(ctx, request{interval: interval}, hold, give)
}

// MarkStale gives out "no recorded value" points of the streams that Expire would forget, in the same way.
func (p *Pipeline) MarkStale(
	ctx context.Context, hold func() (since time.Time, release func()), give func(tenant []streamid.TenantKey, md pmetric.Metrics) error,
) (n int, err error) {
	if p.MaxStale == 0 {
		return 0, nil
	}
	return p.ask(ctx, request{marks: true, age: p.MaxAge()}, hold, give)
}

// EmitTotals gives out the totals of some rules, by their numbers +1, that are held back by batches. Nothing of them is on its way elsewhere.
func (p *Pipeline) EmitTotals(
	ctx context.Context, rules *[256]bool, give func(tenant []streamid.TenantKey, md pmetric.Metrics) error,
) (n int, err error) {
	return p.ask(ctx, request{rules: rules}, func() (time.Time, func()) { return time.Time{}, func() {} }, give)
}

// request says what is asked for: what has been quiet for an interval, or marks of what nothing was counted of for more than age
// seconds, or totals of rules.
type request struct {
	rules    *[256]bool
	interval time.Duration
	marks    bool
	age      uint32
}

func (r *request) wants(sh *table.Shard, s *table.Slot, now int64, clock uint32) bool {
	quiet := max(clock, s.Seen) - s.Seen
	if r.marks {
		return quiet > r.age
	}
	return time.Duration(quiet)*time.Second >= r.interval && now-sh.Emitted(s) >= int64(r.interval)
}

func (p *Pipeline) ask(
	ctx context.Context, r request, hold func() (since time.Time, release func()), give func(tenant []streamid.TenantKey, md pmetric.Metrics) error,
) (n int, err error) {
	if !p.Reading.Names {
		return 0, nil
	}
	shard, number := 0, 0
	some := func() (int, error) {
		since, release := hold()
		defer release()
		b := p.get()
		at := p.Time()
		for shard < table.ShardCount && len(b.Items) < maxAgain {
			if number = p.quiet(b, shard, number, at, &r, since); number == 0 {
				shard++
			}
		}
		if len(b.Items) == 0 {
			p.put(b)
			return 0, nil
		}
		given, mine, err := p.again(ctx, b, p.seconds(at), give)
		if mine {
			p.put(b)
		}
		return given, err
	}
	for shard < table.ShardCount {
		given, err := some()
		if n += given; err != nil {
			return n, err
		}
	}
	return n, nil
}

// again takes a batch without points to the table and gives out what comes of it.
func (p *Pipeline) again(
	ctx context.Context, b *Batch, now uint32, give func(tenant []streamid.TenantKey, md pmetric.Metrics) error,
) (n int, mine bool, err error) {
	b.GroupBy(p.Table)
	b.Prepare()
	if p.keeper != nil {
		wait, cancel := context.WithTimeout(ctx, maxHold)
		defer cancel()
		if mine, err := p.commit(wait, b); err != nil {
			return 0, mine, err
		}
	} else {
		p.fold(b, now)
	}
	n, err = b.Named(give)
	return n, true, err
}

// quiet adds the quiet streams of a shard to a batch, from one on, until it is full. It returns the number of the next stream to look at,
// zero if there is none. Where streams move and no state is shared, those that were not counted under the ring of now are left alone:
// they may have moved, and what this worker knows of them is not to come between what another gives out.
func (p *Pipeline) quiet(b *Batch, shard, from int, at time.Time, r *request, since time.Time) (next int) {
	sh := &p.Table.Shards[shard]
	now, clock, before := at.UnixNano(), p.seconds(at), uint32(1<<32-1)
	if !since.IsZero() {
		before = p.seconds(since)
	}
	moves, newest := p.Rules.Gap == fold.GapRestartIfMoved, p.periods.Newest()
	sh.Lock()
	defer sh.Unlock()
	for number := from; number < sh.N; number++ {
		s := sh.Slot(number)
		if s.Role.Writes() || r.rules == nil && p.held(s) {
			continue
		}
		if r.rules != nil {
			if s.Role != table.RoleTotal || !r.rules[s.Rule] || !sh.Named(number) || moves && s.Period != newest && !s.Due {
				continue
			}
			if len(b.Items) >= maxAgain {
				return number
			}
			how := int64(points.Anyhow)
			if moves && s.Period != newest {
				how = points.AsItIs // others may have begun its next life by now
			}
			family, values := sh.NameOf(number, nil)
			b.AddAgain(s.ID, s.Kind(), now, false, points.Again{Family: family, Values: values, Emitted: how})
			continue
		}
		if moves && s.Period != newest || s.Seen >= before || s.Marked() || !r.wants(sh, s, now, clock) || !sh.Named(number) {
			continue
		}
		if len(b.Items) >= maxAgain {
			return number
		}
		family, values := sh.NameOf(number, nil)
		b.AddAgain(s.ID, s.Kind(), now, r.marks, points.Again{Family: family, Values: values, Emitted: sh.Emitted(s)})
	}
	return 0
}

// foldAgain gives an item the latest sample of its stream, at a later time. A stream of which something else has been given out
// meanwhile, by this worker or another, is left alone.
func (b *Batch) foldAgain(to *target, it *points.Item) {
	s, t := it.Slot, &b.timeline
	if s != nil {
		s.Meta &^= table.FlagTouched
	}
	defer b.Note(it, fold.Passed)
	if s == nil || s.Meta&table.FlagFresh != 0 || s.Kind() != it.Kind {
		return
	}
	to.streams.Timeline(s, t)
	before := b.EmittedBefore(it)
	if before >= 0 && (t.Marked || t.Emitted != before) || before == points.AsItIs && !s.Due {
		return
	}
	if s.Due = false; before != points.AsItIs {
		t.Again(it.Interval.Time)
	}
	switch {
	case it.Marker:
		t.Marked = true
	case it.Kind == table.KindSum:
		b.PutNumber(it, s.Number())
	case it.Kind == table.KindHistogram:
		to.streams.Histogram(s, &b.histogram)
		b.histogram.Complete()
		b.PutHistogram(it, &b.histogram.Histogram, true)
	default:
		to.streams.Exponential(s, &b.exponential)
		b.exponential.Complete()
		b.PutExponential(it, &b.exponential.Exponential)
	}
	b.Stamp(it, t)
	s.Meta |= table.FlagChanged
	to.streams.SetTimeline(s, t)
}

// held reports whether samples of the stream are given out by the clock.
func (p *Pipeline) held(s *table.Slot) bool {
	a := p.Reading.Aggregates
	return a != nil && s.Role == table.RoleTotal && s.Rule > 0 && int(s.Rule) <= len(a.Held) && a.Held[s.Rule-1]
}

// held reports whether samples of the item's total are given out by the clock.
func (b *Batch) held(it *points.Item) bool {
	w := b.Writer(it)
	return w != nil && b.Held(w)
}

// nameItems names the streams of items that have none, which are in the shard itself.
func (b *Batch) nameItems(t *table.Table, sh *table.Shard, items []int32, heldOnly bool) {
	for _, i := range items {
		it := &b.Items[i]
		if it.Slot == nil || it.Slot.Meta&table.FlagFresh != 0 || it.Again() || it.Summary() || b.Outcome(it).Dropped() || heldOnly && !b.held(it) {
			continue
		}
		if _, number := sh.Seek(it.ID); !sh.Named(int(number)) {
			sh.SetName(int(number), b.Name(t, &b.naming, i, b.tenant))
		}
	}
}

// nameCopies makes names for the copies of items whose originals have none. The shard is locked.
func (tx *Tx) nameCopies(b *Batch, sh *table.Shard, items []int32) {
	for _, i := range items {
		it := &b.Items[i]
		if it.Slot == nil || it.Again() || it.Summary() || tx.p.namesHeld && !b.held(it) || b.Outcome(it).Dropped() && !tx.conditional { // the store may have another opinion
			continue
		}
		if number := tx.of[it.Number].number; number >= 0 && !tx.held && sh.Named(int(number)) {
			continue
		}
		if _, known := tx.names[it.Number]; known {
			continue
		}
		if tx.names == nil {
			tx.names = map[int32]table.Name{}
		}
		tx.names[it.Number] = b.Name(tx.p.Table, &b.naming, i, b.tenant)
	}
}

// publishName names the stream with a number as its copy was, or forgets its name if it is others who count it.
func (tx *Tx) publishName(sh *table.Shard, number, n int) {
	name, named := tx.names[int32(n)]
	if named {
		delete(tx.names, int32(n))
		sh.SetName(number, name)
	} else if tx.of[n].left {
		sh.Unname(number)
	}
}

// dropNames gives back the names that no stream has got.
func (tx *Tx) dropNames() {
	for _, name := range tx.names {
		tx.p.Table.Drop(name)
	}
	clear(tx.names)
}
