// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/streamid"
)

// storeError is an error of the SharedStore, rather than of the batch.
type storeError struct{ error }

func (e storeError) Unwrap() error { return e.error }

// outage is what a Converter does while its SharedStore fails, if Shared.MaxOutstanding allows anything: it folds batches
// onto a table of its own, which begins each stream with what the cache has, gives the totals out, and remembers the deltas.
// When the store is back it commits those as if they came only now, in the order in which they came, and gives nothing out:
// what comes next continues from there.
type outage struct {
	// mu is held for reading while a batch takes the usual way, so that none does while an outage begins or ends.
	mu      sync.RWMutex
	table   *Converter // nil while there is no outage
	backlog []kept
	points  int // in backlog
	retryAt time.Time
	missed  uint64 // see Converter.Missed
	// lost has the streams that the store turned out not to have any more, for which nothing of the backlog can be committed.
	lost map[streamid.ID]struct{}
}

// kept is a batch that has been given out, as it came.
type kept struct {
	md      pmetric.Metrics
	points  int
	dropped uint64 // points that were not given out
}

// retryStore is how often a store that failed is tried again while batches come.
const retryStore = time.Second

// convertOrKeep is Convert where Shared.MaxOutstanding is set.
func (c *Converter) convertOrKeep(ctx context.Context, md pmetric.Metrics) (Result, error) {
	o := c.outage
	o.mu.RLock()
	if o.table == nil {
		result, err := c.convert(ctx, md)
		o.mu.RUnlock()
		if !errors.As(err, new(storeError)) {
			return result, err
		}
	} else {
		o.mu.RUnlock()
	}

	o.mu.Lock()
	defer o.mu.Unlock()
	if c.commits.isClosed() {
		return Result{}, ErrClosed // what would be kept now would never be committed
	}
	if now := c.cfg.Now(); o.table != nil && !now.Before(o.retryAt) {
		if err := c.reconcile(ctx); err == nil {
			return c.convert(ctx, md)
		} else if !errors.As(err, new(storeError)) {
			return Result{}, err
		}
		o.retryAt = c.cfg.Now().Add(retryStore)
	}
	return c.keep(md)
}

// keep folds the batch onto the table of the outage and remembers it.
func (c *Converter) keep(md pmetric.Metrics) (Result, error) {
	o := c.outage
	points := md.DataPointCount()
	if o.points+points > c.commits.sharing.MaxOutstanding {
		return Result{}, ErrOutstanding
	}
	if o.table == nil {
		table, err := New(c.cfg)
		if err != nil {
			return Result{}, err
		}
		o.table, o.retryAt = table, c.cfg.Now().Add(retryStore)
	}
	k := kept{md: pmetric.NewMetrics(), points: points}
	md.CopyTo(k.md)

	// What the cache has of the streams of the batch, the table needs to begin with.
	b := new(batch)
	b.identify(md, c.seed)
	for i := range b.items {
		id := b.items[i].id
		from, to := &c.shards[id.Hi>>shardShift], &o.table.shards[id.Hi>>shardShift]
		from.mu.Lock() // Expire may be under way
		if s := from.find(id); s != nil && to.find(id) == nil {
			to.copyFrom(to.add(id, s.kind()), from, s)
			o.table.live.Add(1)
		}
		from.mu.Unlock()
	}
	result, err := o.table.Convert(context.Background(), md)
	k.dropped = result.Dropped()
	o.backlog = append(o.backlog, k)
	o.points += points
	return result, err
}

// ErrOutstanding is returned by Convert where the SharedStore fails and Shared.MaxOutstanding is reached. The batch may be
// handed in again.
var ErrOutstanding = errors.New("d2c: shared state fails and no more points can be kept back for it")

// Reconcile commits what is outstanding, if anything is. It returns the store's error if that still fails; what has been
// committed until then is not outstanding any more. Convert does it by itself, at most every second, when it is called.
func (c *Converter) Reconcile(ctx context.Context) error {
	if c.outage == nil {
		return nil
	}
	c.outage.mu.Lock()
	defer c.outage.mu.Unlock()
	return c.reconcile(ctx)
}

func (c *Converter) reconcile(ctx context.Context) error {
	o := c.outage
	for len(o.backlog) > 0 {
		// A copy, because a batch of which only a part was committed has to be handed in again as it came.
		md := pmetric.NewMetrics()
		o.backlog[0].md.CopyTo(md)
		result, err := c.convert(ctx, md)
		if err != nil {
			return err
		}
		o.missed += result.Dropped() - min(result.Dropped(), o.backlog[0].dropped)
		o.points -= o.backlog[0].points
		o.backlog[0] = kept{}
		o.backlog = o.backlog[1:]
	}
	o.recall(c)
	o.table, o.backlog, o.lost = nil, nil, nil
	return nil
}

// lose is told of a stream that the store has lost, and returns its start and the latest time that were given out meanwhile, if
// there is an outage that ends. What was given out stays: the stream's next life begins after that.
func (o *outage) lose(id streamid.ID) interval {
	if o == nil || o.table == nil {
		return interval{}
	}
	sh := &o.table.shards[id.Hi>>shardShift]
	s := sh.find(id)
	if s == nil {
		return interval{}
	}
	if o.lost == nil {
		o.lost = map[streamid.ID]struct{}{}
	}
	o.lost[id] = struct{}{}
	var t timeline
	sh.timeline(s, &t)
	return interval{t.start, t.emitted}
}

// recall makes the cache know what was given out of the streams that are lost. Their tags stay those of records that are not
// there, so that the next point of each finds out again.
func (o *outage) recall(c *Converter) {
	for id := range o.lost {
		from, to := &o.table.shards[id.Hi>>shardShift], &c.shards[id.Hi>>shardShift]
		to.mu.Lock()
		if s := to.find(id); s != nil {
			to.copyFrom(s, from, from.find(id))
			s.seen = c.clock()
		}
		to.mu.Unlock()
	}
}

// Missed returns the number of points that were given out while the SharedStore failed and could not be added when it was back:
// others had changed their streams, by more turns than are remembered as gaps, or the store had lost them.
func (c *Converter) Missed() uint64 {
	if c.outage == nil {
		return 0
	}
	c.outage.mu.RLock()
	defer c.outage.mu.RUnlock()
	return c.outage.missed
}

// Outstanding returns the number of points that have been given out but not committed, because the SharedStore fails.
func (c *Converter) Outstanding() int {
	if c.outage == nil {
		return 0
	}
	c.outage.mu.RLock()
	defer c.outage.mu.RUnlock()
	return c.outage.points
}
