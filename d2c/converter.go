// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"context"
	"iter"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c/internal/commit"
	"github.com/deltaring/deltaring/d2c/internal/journal"
	"github.com/deltaring/deltaring/d2c/internal/shared"
)

// Converter holds the state of all streams. It is safe for concurrent use. In memory, batches wait for each other only while one
// of 64 shards of the streams is at work on both. With state that is durable or shared, batches that come while a commit is
// under way make the next one together.
type Converter struct {
	pipeline commit.Pipeline
	journal  *journal.Journal // nil unless state is durable
	shared   *shared.Keeper   // nil unless it is shared
	reemit   time.Duration    // Config.ReemitInterval
	outage   *shared.Outage   // nil unless batches are given out while the shared store fails

	aggregates *aggregates // nil without Config.Aggregate
}

// New returns a Converter without streams whose state is in memory alone, or an error that names the field of cfg that is out
// of range.
func New(cfg Config) (*Converter, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	c := new(Converter)
	var err error
	if c.aggregates, err = cfg.aggregates(); err != nil {
		return nil, err
	}
	cfg.apply(&c.pipeline, c.aggregates)
	c.reemit = cfg.ReemitInterval
	return c, nil
}

// Convert turns the delta metrics of md into cumulative ones, in place, and says what became of every point. Points that
// are dropped are removed, and so are the metrics, scopes and resources that this leaves empty; all else is untouched.
//
// With state in memory the only error is ErrReadOnly. With durable or shared state nil means that whatever the result counts
// as added is stored. After an error md has not changed, nothing was given out, and the same md may be handed in again: see the
// errors of Convert in this package. All others are ctx's error, or one of the store: StoreError tells. A store may report
// an error and keep what it was given nevertheless, and so may a commit that goes on after ctx has ended. Then a retry finds the
// batch counted, and takes it for the repeat that it is.
//
// Convert returns when ctx ends, however long the store hangs. The store is called with a context of the Converter's own,
// because a commit serves several callers.
//
// A batch that comes again, after a failed delivery say, is recognised point by point: what was added is not added again,
// and the latest sample of each stream is emitted once more.
//
// In steady state nothing is allocated in memory. Hashing its attributes is the largest part of what a point of a sum costs.
func (c *Converter) Convert(ctx context.Context, md pmetric.Metrics) (Result, error) {
	if md.IsReadOnly() {
		return Result{}, ErrReadOnly
	}
	route := RouteOf(ctx)
	r, err := c.pipeline.Convert(ctx, md, route.points(), tenantOf(ctx))
	if err != nil {
		return Result{}, err
	}
	return resultOf(&r), nil
}

// Expire forgets streams that have been idle for longer than Config.MaxStale and returns how many. A point that comes for one of
// them later opens it anew. It visits every stream, locks one shard at a time and waits for no store; nothing calls it but
// you.
func (c *Converter) Expire() int { return c.pipeline.Expire() }

// Stats are figures of a Converter.
type Stats struct {
	// Streams is the number of live streams, totals included. With shared state it is what this Converter has in its cache.
	Streams int
	// Writers is the number of writers that totals have, which are not among the streams: see Config.Aggregate.
	Writers int
	// MemoryBytes is the memory allocated for the state of all streams, exact but for the bookkeeping of shared histogram
	// bounds, which is estimated.
	MemoryBytes int64
	// JournalBytes and CheckpointBytes are what durable state takes in storage: the journal that is still needed, and the
	// checkpoints.
	JournalBytes, CheckpointBytes int64
	// Outstanding is the number of points that were given out, or kept, while the shared store fails, and that it does not have.
	Outstanding int
	// Missed is the number of points that were given out, or kept, while the shared store failed, and could not be added when it was
	// back: other workers had changed their streams, or the store had lost them.
	Missed uint64
}

// Stats returns the figures of this moment. It locks one shard at a time and waits for no store.
func (c *Converter) Stats() Stats {
	s := Stats{Streams: c.Len(), Writers: int(c.pipeline.Writers.Load()), MemoryBytes: c.pipeline.Table.Memory()}
	if d := c.pipeline.Duplicates; d != nil {
		s.MemoryBytes += d.Memory()
	}
	if c.journal != nil {
		s.JournalBytes, s.CheckpointBytes = c.journal.Size()
	}
	if c.outage != nil {
		s.Outstanding, s.Missed = c.outage.Outstanding(), c.outage.Missed()
	}
	return s
}

// Len returns the number of live streams: Stats().Streams, at no cost.
func (c *Converter) Len() int { return int(max(c.pipeline.Live.Load()-c.pipeline.Writers.Load(), 0)) }

// Streams iterates over the live streams in no particular order. Each shard is locked while it is copied, not while the
// loop body runs, so the whole is no snapshot.
func (c *Converter) Streams() iter.Seq[Stream] {
	return func(yield func(Stream) bool) {
		var streams []Stream
		for i := range c.pipeline.Table.Shards {
			streams = c.pipeline.Table.Shards[i].Streams(streams[:0])
			for _, s := range streams {
				if !yield(s) {
					return
				}
			}
		}
	}
}

// Reconcile brings what is outstanding to the shared store, if anything is: see SharedConfig.MaxOutstanding. It returns the
// store's error if that still fails. The Converter does it by itself each second.
func (c *Converter) Reconcile(ctx context.Context) error {
	if c.outage == nil {
		return nil
	}
	return c.outage.Reconcile(ctx)
}

// Close ends what OpenDurable or OpenShared began: later calls of Convert return ErrClosed. It waits for a commit or checkpoint
// that is under way, or returns ctx's error if that ends first. There is nothing to flush but what is outstanding, see
// Reconcile. A Converter in memory needs no Close.
func (c *Converter) Close(ctx context.Context) error {
	if c.journal == nil && c.shared == nil {
		return nil
	}
	err := c.pipeline.Close(ctx)
	if c.outage != nil {
		if e := c.outage.Close(ctx); err == nil {
			err = e
		}
	}
	if c.journal != nil {
		if e := c.journal.Close(ctx); err == nil {
			err = e
		}
	}
	return err
}
