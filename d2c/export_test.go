// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"context"
	"fmt"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/streamid"
)

// Shards is the number of shards.
const Shards = shardCount

// ReadSection reads a section to its end and returns how many records it has.
func ReadSection(b []byte) (records int, err error) {
	var rec record
	r := readSection(b)
	for r.next(&rec) {
		records++
	}
	return records, r.err
}

// Section is what records of a section say by stream, the latest of each, and the section written from the table they are put into.
func Section(b []byte) (records map[streamid.ID]string, written []byte, err error) {
	records = map[streamid.ID]string{}
	sh, rec, r := new(shard), record{}, readSection(b)
	for r.next(&rec) {
		t := &rec.timeline
		text := fmt.Sprintf("kind %d seen %d (%d, %d] emitted %d restarted %v marked %v gaps %v horizon %d ",
			rec.kind, rec.seen, t.start, t.last, t.emitted, t.restarted, t.marked, t.gaps.gaps[:t.gaps.n], t.gaps.horizon)
		switch rec.kind {
		case KindSum:
			text += fmt.Sprint(rec.number)
		case KindHistogram:
			text += fmt.Sprint(rec.histogram)
		case KindExponentialHistogram:
			text += fmt.Sprint(rec.exponential)
		}
		records[rec.id] = text
		sh.put(&rec)
	}
	var w recordWriter
	for i := range sh.n {
		w.add(sh, sh.slot(i), 0)
	}
	return records, w.append(nil), r.err
}

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

// Floor is the time up to which streams of a shard may have been lost.
func (c *Converter) Floor(shard int) int64 { return c.shards[shard].floor }

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

// AddSum makes a sum stream under any identity, as a forged record does.
func (c *Converter) AddSum(id streamid.ID) {
	s := c.shards[id.Hi>>shardShift].add(id, KindSum)
	s.meta &^= flagFresh
	s.start, s.last, s.value = 1, 2, 1<<40
	c.live.Add(1)
}
