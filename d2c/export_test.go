// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"context"

	"go.opentelemetry.io/collector/pdata/pmetric"
)

// Shards is the number of shards.
const Shards = shardCount

// KeyHead is the key of the head.
const KeyHead = keyHead

// KeyEntry, KeyManifest, KeyChunk and KeyAside return keys of Storage.
var (
	KeyEntry    = keyEntry
	KeyManifest = keyManifest
	KeyChunk    = keyChunk
	KeyAside    = keyAside
)

// IdentityOf tells one owner's state from another's.
var IdentityOf = identityOf

// Checkpoint writes the checkpoints of shards, of all if there are none, while no commit or checkpoint is under way.
func (c *Converter) Checkpoint(ctx context.Context, shards ...int) error {
	if len(shards) == 0 {
		for i := range shardCount {
			shards = append(shards, i)
		}
	}
	return c.commits.journal.checkpoint(ctx, c, shards)
}

// SetChunkSize sets the size of a chunk and returns a function that sets it back.
func SetChunkSize(n int) (restore func()) {
	was := chunkSize
	chunkSize = n
	return func() { chunkSize = was }
}

// StopBackground ends the goroutine that writes checkpoints, so that Checkpoint alone does.
func (c *Converter) StopBackground() {
	c.commits.journal.stop()
	<-c.commits.journal.done
}

// State is all that a Converter knows of a stream but when it was last seen and which gaps it has had to forget.
type State struct {
	Stream
	Shard             int
	Restarted, Marked bool
	Gaps              [][2]uint64
	Point             any // a data point with the total
}

// States lists the streams while nothing else is under way.
func (c *Converter) States() (states []State) {
	for i := range c.shards {
		sh := &c.shards[i]
		for n, stream := range sh.streams(nil) {
			s := sh.slot(n)
			state := State{Stream: stream, Shard: i}
			var t timeline
			sh.timeline(s, &t)
			state.Restarted, state.Marked = t.restarted, t.marked
			for _, gap := range t.gaps.gaps[:t.gaps.n] {
				state.Gaps = append(state.Gaps, [2]uint64{uint64(gap.start), uint64(gap.time)})
			}
			switch s.kind() {
			case KindSum:
				dp := pmetric.NewNumberDataPoint()
				setNumber(dp, s.number())
				state.Point = dp
			case KindHistogram:
				var h histogramTotal
				sh.histogram(s, &h)
				h.complete()
				p := histogramPoint{HistogramDataPoint: pmetric.NewHistogramDataPoint()}
				h.write(&p, Repeated)
				state.Point = p.HistogramDataPoint
			case KindExponentialHistogram:
				var e exponentialTotal
				sh.exponential(s, &e)
				e.complete()
				p := exponentialPoint{ExponentialHistogramDataPoint: pmetric.NewExponentialHistogramDataPoint()}
				e.write(&p)
				state.Point = p.ExponentialHistogramDataPoint
			}
			states = append(states, state)
		}
	}
	return states
}

// Waiting returns the number of batches that wait for a commit which has not begun.
func (c *Converter) Waiting() int {
	c.commits.mu.Lock()
	defer c.commits.mu.Unlock()
	return len(c.commits.queue)
}

// Due reports whether there are checkpoints to be written, or entries to be deleted.
func (c *Converter) Due() bool {
	c.commits.journal.mu.Lock()
	busy := c.commits.journal.oldest != c.commits.journal.first
	c.commits.journal.mu.Unlock()
	return busy || len(c.commits.journal.due()) > 0
}
