// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"context"

	"github.com/deltaring/deltaring/streamid"
)

// Shards is the number of shards.
const Shards = shardCount

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

// SharedState is what a record of shared state says, or what a Converter remembers of one.
type SharedState struct {
	Tag                           uint64
	Start, Last, Emitted, Horizon int64
	Gaps                          [][2]int64
	Restarted, Marked             bool
	// Total is that of a sum, rounded if it is a double, or the count of a histogram.
	Total int64
}

func (t *timeline) shared(tag uint64, total int64) SharedState {
	s := SharedState{
		Tag: tag, Start: t.start, Last: t.last, Emitted: t.emitted, Horizon: t.gaps.horizon,
		Restarted: t.restarted, Marked: t.marked, Total: total,
	}
	for _, gap := range t.gaps.gaps[:t.gaps.n] {
		s.Gaps = append(s.Gaps, [2]int64{gap.start, gap.time})
	}
	return s
}

func (n number) rounded() int64 {
	if n.double {
		return int64(n.float())
	}
	return n.int()
}

// ReadShared reads a record as a Converter that shares its state does.
func (c *Converter) ReadShared(data []byte, id streamid.ID) (SharedState, error) {
	s := sharing{identity: c.commits.sharing.identity}
	tag, err := s.read(data, id)
	if err != nil {
		return SharedState{}, err
	}
	r := &s.record
	total := r.number.rounded()
	switch r.kind {
	case KindHistogram:
		total = int64(r.histogram.count)
	case KindExponentialHistogram:
		total = int64(r.exponential.count)
	}
	return r.timeline.shared(tag, total), nil
}

// Cached returns what a Converter that shares its state remembers of a stream.
func (c *Converter) Cached(id streamid.ID) (SharedState, bool) {
	sh := &c.shards[id.Hi>>shardShift]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s, n := sh.seek(id)
	if s == nil {
		return SharedState{}, false
	}
	var t timeline
	sh.timeline(s, &t)
	total := s.number().rounded()
	if s.kind() != KindSum {
		total = int64(get64(sh.blocks.block(blockRef(s.value))[wordCount:]))
	}
	return t.shared(sh.tags[n], total), true
}

// Records returns what is stored, for tests to change as they like.
func (m *MemoryStore) Records() map[streamid.ID][]byte {
	if m.records == nil {
		m.records = map[streamid.ID][]byte{}
	}
	return m.records
}

// Aside returns the number of values that have been set aside.
func (m *MemoryStore) Aside() int { return len(m.aside) }
