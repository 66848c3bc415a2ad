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

// Converter holds the state of all streams. It is safe for concurrent use. In memory, two batches wait for each other only
// while they use the same one of 64 shards. With durable or shared state, batches that arrive during a commit are committed
// together in the next one.
type Converter struct {
	pipeline commit.Pipeline
	journal  *journal.Journal // nil unless state is durable
	shared   *shared.Keeper   // nil unless it is shared
	reemit   time.Duration    // Config.ReemitInterval
	outage   *shared.Outage   // nil unless batches are given out while the shared store fails

	aggregates *aggregates // nil without Config.Aggregate
}

// New returns a Converter that has no streams yet and keeps its state in memory only. An error names the field of cfg that
// is out of range.
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

// Convert turns the delta metrics of md into cumulative ones, in place, and reports the outcome of every point. Dropped
// points are removed, and so are metrics, scopes and resources left empty; everything else is unchanged.
//
// With state in memory the only error is ErrReadOnly. With durable or shared state, a nil error means that everything the
// result counts as added is stored. After an error md is unchanged, nothing was given out, and the caller may pass the same
// md again: see the errors of Convert in this package. All other errors come from ctx or from the store; StoreError tells
// which. A store may keep data although it reported an error, and a commit may continue after ctx has ended. A retry is then
// recognised as a repeat of a batch already counted.
//
// Convert returns when ctx ends, even if the store hangs. The store is called with the Converter's own context, because one
// commit serves several callers.
//
// A batch that comes again, for instance after a failed delivery, is recognised point by point: nothing is added twice, and
// the latest sample of each stream is emitted once more.
//
// In steady state in memory, Convert does not allocate. Hashing the attributes is the largest cost of a sum point.
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

// Expire forgets streams that have been idle for longer than Config.MaxStale and returns how many. A later point of such a
// stream opens it again. Expire visits every stream, locks one shard at a time and does not wait for a store. The Converter
// does not call it: you must.
func (c *Converter) Expire() int { return c.pipeline.Expire() }

// Stats describes a Converter at one moment.
type Stats struct {
	// Streams is the number of live streams, totals included. With shared state it counts the streams in this Converter's
	// cache.
	Streams int
	// Writers is the number of writers of totals, which are not included in Streams: see Config.Aggregate.
	Writers int
	// MemoryBytes is the memory allocated for the state of all streams. It is exact except for the bookkeeping of shared
	// histogram bounds, which is estimated.
	MemoryBytes int64
	// JournalBytes and CheckpointBytes are the sizes of durable state in storage: the part of the journal still needed, and
	// the checkpoints.
	JournalBytes, CheckpointBytes int64
	// Outstanding is the number of points that were given out or kept during a failure of the shared store and are not
	// stored yet.
	Outstanding int
	// Missed is the number of points that were given out or kept during a failure of the shared store and could not be added
	// afterwards, because other workers had changed their streams or the store had lost them.
	Missed uint64
}

// Stats returns the current figures. It locks one shard at a time and does not wait for a store.
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

// Streams iterates over the live streams in no particular order. Each shard is locked only while it is copied, not while the
// loop body runs, so the result is not a consistent snapshot.
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

// Reconcile writes outstanding points to the shared store: see SharedConfig.MaxOutstanding. It returns the store's error if
// the store still fails, and does nothing if nothing is outstanding. The Converter also does this itself each second.
func (c *Converter) Reconcile(ctx context.Context) error {
	if c.outage == nil {
		return nil
	}
	return c.outage.Reconcile(ctx)
}

// Close releases what OpenDurable or OpenShared started; later calls of Convert return ErrClosed. It waits for a commit or
// checkpoint in progress, or returns ctx's error if ctx ends first. Only outstanding points need flushing: see Reconcile. A
// Converter in memory needs no Close.
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
