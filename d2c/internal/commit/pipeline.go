// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package commit

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c/internal/alike"
	"github.com/deltaring/deltaring/d2c/internal/fold"
	"github.com/deltaring/deltaring/d2c/internal/points"
	"github.com/deltaring/deltaring/d2c/internal/table"
	"github.com/deltaring/deltaring/streamid"
)

// Pipeline brings batches to the table.
type Pipeline struct {
	Table      *table.Table
	Rules      fold.Rules
	Reading    points.Reading
	MaxStreams int
	MaxStale   time.Duration
	Time       func() time.Time
	// OnNotice, if not nil, is called with what stands out in a batch.
	OnNotice func(Notice)
	// Duplicates, if not nil, finds streams that are one series to the backend.
	Duplicates *alike.Detector
	// Epoch is the time at which the table's clock reads zero.
	Epoch time.Time
	// Began is when the process began.
	Began time.Time
	// Live is the number of streams and writers, those included that a transaction is about to open; Writers that of writers in
	// the table.
	Live, Writers atomic.Int64
	// gone is the time from which a stream that starts may be one that has expired.
	gone atomic.Int64
	// periods are those of the routes by which batches come, if that makes a difference.
	periods Periods

	writerRules, totalRules fold.Rules // of what is aggregated

	namesHeld bool // of all streams, only totals that are held back by batches have names

	pool    sync.Pool // of *Batch
	keeper  Keeper    // nil in memory
	expired func(shard, left int)
	queue   queue
}

// Keep makes k keep all transactions. expired, if not nil, is called with the number of streams that an expiry has left in a shard.
func (p *Pipeline) Keep(k Keeper, expired func(shard, left int)) {
	p.keeper, p.expired = k, expired
	p.queue.work, p.queue.pace.points = p.work, maxPoints
}

// Clock returns the seconds since Epoch.
func (p *Pipeline) Clock() uint32 { return p.seconds(p.Time()) }

func (p *Pipeline) seconds(at time.Time) uint32 { return uint32(max(at.Sub(p.Epoch)/time.Second, 0)) }

// reserve counts one more live stream, within the limit.
func (p *Pipeline) reserve() bool {
	for {
		n := p.Live.Load()
		if p.MaxStreams > 0 && n >= int64(p.MaxStreams) {
			return false
		}
		if p.Live.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (p *Pipeline) get() *Batch {
	if b, _ := p.pool.Get().(*Batch); b != nil {
		return b
	}
	return new(Batch)
}

func (p *Pipeline) put(b *Batch) {
	b.Reset()
	p.pool.Put(b)
}

// Convert makes the delta points of md cumulative, in place, and returns what became of them. Route is the one by which the
// batch came, zero if there is none; tenant says whose batch it is.
func (p *Pipeline) Convert(ctx context.Context, md pmetric.Metrics, route points.Route, tenant []streamid.TenantKey) (points.Result, error) {
	b := p.get()
	b.Route, b.tenant, b.period = route, tenant, 0
	if p.Rules.Gap == fold.GapRestartIfMoved {
		b.period = p.periods.Of(route)
	}
	at := p.Time()
	whose := p.Reading.Seed.Tenant(tenant...)
	b.Identify(md, whose, &p.Reading, at)
	b.GroupBy(p.Table)
	if p.keeper == nil {
		p.fold(b, p.seconds(at))
	} else if len(b.Items) > 0 {
		b.Prepare()
		if mine, err := p.commit(ctx, b); err != nil {
			if mine {
				p.put(b)
			}
			return points.Result{}, err
		}
	}
	p.tell(md, b, whose)
	b.Emit(md)
	result := b.Result
	p.put(b)
	return result, nil
}

// fold folds the batch's items into their streams.
func (p *Pipeline) fold(b *Batch, now uint32) {
	to := p.target(now)
	for i := range table.ShardCount {
		if items := b.Shard(i); len(items) > 0 {
			p.foldShard(b, &to, i, items)
		}
	}
}

// foldShard folds the batch's items of one shard into their streams.
func (p *Pipeline) foldShard(b *Batch, to *target, shard int, items []int32) {
	sh := &p.Table.Shards[shard]
	sh.Lock()
	defer sh.Unlock()
	repeated, markers := false, false
	// Looking all up before folding any lets the cache misses of one stream overlap with those of the next.
	for _, i := range items {
		it := &b.Items[i]
		if b.Aggregated() {
			if w := b.Writer(it); w != nil {
				p.findWriter(b, sh, it, w)
				repeated = touch(it) || repeated
				continue
			}
		}
		if it.Marker {
			markers = true // may follow the point that opens its stream
			continue
		}
		if it.Slot = sh.Find(it.ID); it.Slot == nil && !it.Again() && it.Interval.Time > sh.Floor && p.reserve() {
			if it.Slot = sh.Add(it.ID, it.Kind); it.Slot == nil {
				p.Live.Add(-1)
			}
		}
		repeated = touch(it) || repeated
	}
	if markers {
		for _, i := range items {
			if it := &b.Items[i]; it.Marker && b.Writer(it) == nil {
				it.Slot = sh.Find(it.ID)
				repeated = touch(it) || repeated
			}
		}
	}
	if repeated {
		sort(b, items)
	}
	to.streams, to.lives = sh, p.lives()
	b.foldItems(to, items, sh.Floor)
	if sh.Names() {
		b.nameItems(p.Table, sh, items, p.namesHeld)
	}
}

// target is where items are folded to, apart from the streams.
func (p *Pipeline) target(now uint32) target {
	return target{
		rules: &p.Rules, now: now, unix: uint32(p.Epoch.Unix() + int64(now)), periods: &p.periods,
		remembers: p.Rules.Writers == fold.WritersMany && p.Rules.Identical == fold.IdenticalRepeat,
		window:    uint32((p.Rules.LateWindow + time.Second - 1) / time.Second),
		late:      p.Rules.Gap == fold.GapRestartIfMoved || p.Reading.Arrival,
		many:      p.Rules.Writers == fold.WritersMany, memory: p.keeper == nil,
		writer: &p.writerRules, total: &p.totalRules,
	}
}

// lives says what may have been given out for streams that are not known. The caller has locked the shard of these streams.
func (p *Pipeline) lives() fold.Lives {
	return fold.Lives{Began: p.Began.UnixNano(), Expired: p.Gone()}
}

// Expire forgets streams that have been idle for longer than MaxStale and returns how many. It locks one shard at a time, and
// waits for no store.
func (p *Pipeline) Expire() (expired int) {
	if p.periods.Due() {
		p.periods.Sweep(p.forgetPeriods)
	}
	if p.MaxStale == 0 {
		return 0
	}
	age := p.MaxAge()
	now := p.Clock()
	for i := range p.Table.Shards {
		n, writers, left := p.expireShard(i, now, age)
		expired += n
		if n+writers > 0 && p.expired != nil {
			p.expired(i, left)
		}
	}
	return expired
}

// forgetPeriods makes periods unknown.
func (p *Pipeline) forgetPeriods(stale *[256]bool) {
	for i := range p.Table.Shards {
		p.Table.Shards[i].ForgetPeriods(stale)
	}
}

func (p *Pipeline) expireShard(i int, now, age uint32) (expired, writers, left int) {
	sh := &p.Table.Shards[i]
	sh.Lock()
	defer sh.Unlock()
	expired, writers, free := sh.Expire(now, age, p.nanos(now))
	p.Forgot(free) // before the shard is unlocked: a point may wait to open one of these
	p.Live.Add(-int64(expired + writers))
	p.Writers.Add(-int64(writers))
	return expired, writers, sh.N
}

// nanos returns a time of the table's clock in Unix nanoseconds.
func (p *Pipeline) nanos(clock uint32) int64 {
	return p.Epoch.Add(time.Duration(clock) * time.Second).UnixNano()
}

// Gone returns the time from which a stream that starts may be one that has expired.
func (p *Pipeline) Gone() int64 { return p.gone.Load() }

// Forgot notes the time from which a stream that starts may be one that has expired.
func (p *Pipeline) Forgot(free int64) {
	for {
		before := p.gone.Load()
		if free <= before || p.gone.CompareAndSwap(before, free) {
			return
		}
	}
}

// MaxAge is MaxStale in seconds.
func (p *Pipeline) MaxAge() uint32 {
	return uint32(min((p.MaxStale+time.Second-1)/time.Second, math.MaxUint32))
}
