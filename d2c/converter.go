// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"context"
	"iter"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/streamid"
)

// Converter holds the state of all streams. It is safe for concurrent use; batches that share streams wait for each other
// only while one of 64 shards is at work on them.
type Converter struct {
	cfg      Config
	seed     streamid.Seed
	maxStale uint32 // seconds
	epoch    time.Time
	live     atomic.Int64
	batches  sync.Pool  // of *batch
	commits  *committer // nil in memory
	outage   *outage    // nil unless batches are to be kept while shared state fails
	shards   [shardCount]shard
}

// New returns a Converter without streams, or an error that names the field of cfg that is out of range.
func New(cfg Config) (*Converter, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	stale := min((cfg.MaxStale+time.Second-1)/time.Second, math.MaxUint32)
	return &Converter{cfg: cfg, seed: streamid.Seed(cfg.Seed), maxStale: uint32(stale), epoch: cfg.Now()}, nil
}

// clock returns the seconds since the Converter was made.
func (c *Converter) clock() uint32 {
	return uint32(max(c.cfg.Now().Sub(c.epoch)/time.Second, 0))
}

// Convert turns the delta metrics of md into cumulative ones, in place, and says what became of every point. Dropped
// points are removed, and so are the metrics, scopes and resources that this leaves empty; all else is untouched. md must
// not be read-only (the pdata setters panic).
//
// With state in memory the error is always nil. With durable or shared state nil means that whatever the result counts as
// added is stored. After an error md has not changed, nothing was given out, and the same md may be handed in again: it is
// ErrClosed, ErrContended, ErrOutstanding, ctx's error, or one of Storage or SharedStore. (These may report an error and keep
// what they were given nevertheless. Then a retry finds the batch counted, and takes it for the repeat that it is.)
//
// A batch that comes again, after a failed delivery say, is recognised point by point: what was added is not added again,
// and the latest sample of each stream is emitted once more.
//
// In steady state nothing is allocated. Hashing its attributes is the largest part of what a point of a sum costs.
func (c *Converter) Convert(ctx context.Context, md pmetric.Metrics) (Result, error) {
	if c.outage != nil {
		return c.convertOrKeep(ctx, md)
	}
	return c.convert(ctx, md)
}

func (c *Converter) convert(ctx context.Context, md pmetric.Metrics) (Result, error) {
	b, _ := c.batches.Get().(*batch)
	if b == nil {
		b = new(batch)
	}
	defer c.batches.Put(b)
	defer b.reset()

	b.identify(md, c.seed)
	b.group()
	if c.commits != nil {
		if err := c.commit(ctx, b); err != nil {
			return Result{}, err
		}
	} else {
		now := c.clock()
		for i := range c.shards {
			if items := b.shardItems(i); len(items) > 0 {
				sh := &c.shards[i]
				sh.mu.Lock()
				b.fold(sh, items, c, now, nil)
				sh.mu.Unlock()
			}
		}
	}
	b.emit(md)
	return b.result, nil
}

// commit folds the batch where state is durable.
func (c *Converter) commit(ctx context.Context, b *batch) error {
	if b.staged == nil {
		b.staged = new(stage)
	}
	b.staged.prepare(b)
	if len(b.items) == 0 {
		return nil
	}
	return c.commits.commit(ctx, c, b)
}

// Expire forgets streams that have been idle for longer than Config.MaxStale and returns how many. A point that comes for
// one of them later opens it anew. It visits every stream and locks one shard at a time; nothing calls it but you.
func (c *Converter) Expire() int {
	if c.cfg.MaxStale == 0 {
		return 0
	}
	if c.commits != nil {
		c.commits.running.Lock()
		defer c.commits.running.Unlock()
	}
	now := c.clock()
	expired := 0
	for i := range c.shards {
		sh := &c.shards[i]
		sh.mu.Lock()
		n := sh.expire(now, c.maxStale)
		sh.mu.Unlock()
		c.live.Add(-int64(n))
		expired += n
		if n > 0 && c.commits != nil && c.commits.journal != nil {
			c.commits.journal.expired(i, sh.n)
		}
	}
	return expired
}

// Len returns the number of live streams.
func (c *Converter) Len() int { return int(c.live.Load()) }

// Bytes returns the memory allocated for the state of all streams, exact but for the bookkeeping of shared histogram
// bounds, which is estimated.
func (c *Converter) Bytes() int64 {
	n := int64(0)
	for i := range c.shards {
		sh := &c.shards[i]
		sh.mu.Lock()
		n += sh.memory()
		sh.mu.Unlock()
	}
	return n
}

// Kind is the kind of a stream.
type Kind uint8

// The kinds of streams.
const (
	KindSum Kind = iota
	KindHistogram
	KindExponentialHistogram
)

// Stream describes one stream at the moment it was looked at.
type Stream struct {
	ID   streamid.ID
	Kind Kind
	// Start is the cumulative start timestamp, Last the end of the latest accepted interval, Emitted the latest time
	// given out (Last, or later after late points).
	Start, Last, Emitted pcommon.Timestamp
	// Int is the total of a sum, or Double if IsDouble. Count and Sum are those of a histogram.
	Int      int64
	Double   float64
	IsDouble bool
	Count    uint64
	Sum      float64
}

// Streams iterates over the live streams in no particular order. Each shard is locked while it is copied, not while the
// loop body runs, so the whole is no snapshot.
func (c *Converter) Streams() iter.Seq[Stream] {
	return func(yield func(Stream) bool) {
		var streams []Stream
		for i := range c.shards {
			streams = c.shards[i].streams(streams[:0])
			for _, s := range streams {
				if !yield(s) {
					return
				}
			}
		}
	}
}

func (sh *shard) streams(dst []Stream) []Stream {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for i := range sh.n {
		s := sh.slot(i)
		var t timeline
		sh.timeline(s, &t)
		out := Stream{
			ID: s.id, Kind: s.kind(),
			Start: pcommon.Timestamp(t.start), Last: pcommon.Timestamp(t.last), Emitted: pcommon.Timestamp(t.emitted),
		}
		if out.Kind == KindSum {
			if out.IsDouble = s.number().double; out.IsDouble {
				out.Double = s.number().float()
			} else {
				out.Int = s.number().int()
			}
		} else {
			var d distribution
			d.unpack(sh.blocks.block(blockRef(s.value)))
			out.Count, out.Sum = d.count, d.sum
		}
		dst = append(dst, out)
	}
	return dst
}
