// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/deltaring/deltaring/d2c/internal/fold"
	"github.com/deltaring/deltaring/d2c/internal/journal"
	"github.com/deltaring/deltaring/d2c/internal/points"
	"github.com/deltaring/deltaring/d2c/internal/table"
	"github.com/deltaring/deltaring/streamid"
)

// Shards is the number of shards.
const Shards = table.ShardCount

// ReadSection reads a section to its end and returns how many records it has.
func ReadSection(b []byte) (records int, err error) {
	var rec table.Record
	r := table.ReadSection(b)
	for r.Next(&rec) {
		records++
	}
	return records, r.Err
}

// Section is what records of a section say by stream, the latest of each, to such writers, and the section written from the
// table they are put into.
func Section(b []byte, writers Writers) (records map[streamid.ID]string, written []byte, err error) {
	records = map[streamid.ID]string{}
	sh, rec, r := new(table.Shard), table.Record{}, table.ReadSection(b)
	like := table.New(TestKey, &fold.Rules{LateWindow: math.MaxInt64, Writers: writers})
	like.Aggregate()
	sh.SetLike(like)
	for r.Next(&rec) {
		t := &rec.Timeline
		text := fmt.Sprintf("role %d owner %x ", rec.Role, rec.Owner) + fmt.Sprintf("kind %d seen %d (%d, %d] emitted %d restarted %v marked %v print %x ",
			rec.Kind, rec.Seen, t.Start, t.Last, t.Emitted, t.Restarted, t.Marked, t.Print)
		if writers == WritersOne {
			text += fmt.Sprint("gaps ", t.Gaps.Gaps[:t.Gaps.N], " horizon ", t.Gaps.Horizon, " ")
		}
		switch rec.Kind {
		case KindSum:
			text += fmt.Sprint(rec.Number)
		case KindHistogram:
			text += fmt.Sprint(rec.Histogram)
		case KindExponentialHistogram:
			text += fmt.Sprint(rec.Exponential)
		}
		n := sh.Put(&rec)
		if sh.Read(sh.Slot(n), &rec); writers == WritersMany { // who forges may have more of them than there is room for
			text += fmt.Sprint(" memory ", memoryOf(&rec))
		}
		records[rec.ID] = text
	}
	var w table.RecordWriter
	for i := range sh.N {
		w.Add(sh, i, 0)
	}
	return records, w.Append(nil), r.Err
}

// The keys of Storage.
const KeyHead = journal.KeyHead

var (
	KeyEntry    = journal.KeyEntry
	KeyManifest = journal.KeyManifest
	KeyChunk    = journal.KeyChunk
	KeyAside    = journal.KeyAside
)

// IdentityOf tells one owner's state from another's.
var IdentityOf = table.IdentityOf

// Checkpoint writes the checkpoints of shards, of all if there are none, while no commit or checkpoint is under way.
func (c *Converter) Checkpoint(ctx context.Context, shards ...int) error {
	if len(shards) == 0 {
		for i := range table.ShardCount {
			shards = append(shards, i)
		}
	}
	return c.journal.Checkpoint(ctx, shards)
}

// SetChunkSize sets the size of a chunk and returns a function that sets it back.
func SetChunkSize(n int) (restore func()) {
	was := journal.ChunkSize
	journal.ChunkSize = n
	return func() { journal.ChunkSize = was }
}

// StopBackground ends the goroutine that writes checkpoints, so that Checkpoint alone does.
func (c *Converter) StopBackground() { c.journal.Stop() }

// TestKey says where in their tables the streams of all tests are.
var TestKey = table.Key{0x9e3779b97f4a7c15, 0xbf58476d1ce4e5b9}

func init() { newKey = func() table.Key { return TestKey } }

// ShardOf is the shard of a stream in a test.
func ShardOf(id streamid.ID) int { return table.New(TestKey, &fold.Rules{}).ShardOf(id) }

// Floor is the time up to which streams of a shard may have been lost.
func (c *Converter) Floor(shard int) int64 { return c.pipeline.Table.Shards[shard].Floor }

// Gone is the latest time given out of any stream that this process has forgotten.
func (c *Converter) Gone() int64 { return c.pipeline.Gone() }

// Remembered is a delta that a stream of many writers remembers.
type Remembered = table.Remembered

// memoryOf is what a record remembers, the oldest first.
func memoryOf(rec *table.Record) []Remembered {
	at := map[uint64]uint32{} // one that was counted again when it had been forgotten may be there twice
	for _, r := range rec.Memory {
		at[r.Print] = max(at[r.Print], r.At)
	}
	var memory []Remembered
	for print, at := range at {
		memory = append(memory, Remembered{Print: print, At: at})
	}
	slices.SortFunc(memory, func(a, b Remembered) int { return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.Print, b.Print)) })
	return memory
}

// State is all that a Converter knows of a stream but when it was last seen and which gaps it has had to forget.
type State struct {
	Stream
	Shard             int
	Restarted, Marked bool
	Gaps              [][2]uint64
	Print             uint32 // of the delta that was added last
	Memory            []Remembered
	Point             any // the total
}

// States lists the streams while nothing else is under way.
func (c *Converter) States() (states []State) {
	for i := range c.pipeline.Table.Shards {
		sh := &c.pipeline.Table.Shards[i]
		for _, stream := range sh.Streams(nil) {
			s := sh.Find(stream.ID)
			state := State{Stream: stream, Shard: i}
			var rec table.Record
			sh.Read(s, &rec)
			t := &rec.Timeline
			state.Restarted, state.Marked = t.Restarted, t.Marked
			for _, gap := range t.Gaps.Gaps[:t.Gaps.N] {
				state.Gaps = append(state.Gaps, [2]uint64{uint64(gap.Start), uint64(gap.Time)})
			}
			state.Print, state.Memory = t.Print, memoryOf(&rec)
			state.Point = points.Total(&rec)
			states = append(states, state)
		}
	}
	return states
}

// Waiting returns the number of batches that wait for a commit which has not begun.
func (c *Converter) Waiting() int { return c.pipeline.Waiting() }

// Due reports whether there are checkpoints to be written, or entries to be deleted.
func (c *Converter) Due() bool { return c.journal.Due() }

// SharedState is what a record of shared state says, or what a Converter remembers of one.
type SharedState struct {
	Tag                           uint64
	Start, Last, Emitted, Horizon int64
	Gaps                          [][2]int64
	Restarted, Marked             bool
	Print                         uint32
	Memory                        []Remembered
	// Total is that of a sum, rounded if it is a double, or the count of a histogram.
	Total int64
}

func sharedState(rec *table.Record, tag uint64) SharedState {
	t := &rec.Timeline
	s := SharedState{
		Tag: tag, Start: t.Start, Last: t.Last, Emitted: t.Emitted, Horizon: t.Gaps.Horizon,
		Restarted: t.Restarted, Marked: t.Marked, Print: t.Print, Memory: memoryOf(rec),
	}
	for _, gap := range t.Gaps.Gaps[:t.Gaps.N] {
		s.Gaps = append(s.Gaps, [2]int64{gap.Start, gap.Time})
	}
	switch rec.Kind {
	case KindHistogram:
		s.Total = int64(rec.Histogram.Count)
	case KindExponentialHistogram:
		s.Total = int64(rec.Exponential.Count)
	default:
		if s.Total = rec.Number.Int(); rec.Number.Double {
			s.Total = int64(rec.Number.Float())
		}
	}
	return s
}

// ReadShared reads a record as a Converter that shares its state does.
func (c *Converter) ReadShared(data []byte, tag uint64, id streamid.ID) (SharedState, error) {
	var rec table.Record
	if err := c.shared.Read(data, tag, id, &rec); err != nil {
		return SharedState{}, err
	}
	return sharedState(&rec, tag), nil
}

// Cached returns what a Converter that shares its state remembers of a stream.
func (c *Converter) Cached(id streamid.ID) (SharedState, bool) {
	sh := &c.pipeline.Table.Shards[c.pipeline.Table.ShardOf(id)]
	sh.Lock()
	defer sh.Unlock()
	s, n := sh.Seek(id)
	if s == nil {
		return SharedState{}, false
	}
	var rec table.Record
	sh.Read(s, &rec)
	return sharedState(&rec, sh.Tag(int(n))), true
}

// AddSum makes a sum stream under any identity, as a forged record does.
func (c *Converter) AddSum(id streamid.ID) {
	c.pipeline.Table.Shards[c.pipeline.Table.ShardOf(id)].Put(&table.Record{
		ID: id, Kind: KindSum, Timeline: fold.Timeline{Start: 1, Last: 2, Emitted: 2}, Number: fold.IntNumber(1 << 40),
	})
	c.pipeline.Live.Add(1)
}

// Note adds n points to those with an outcome.
func (r *Result) Note(o Outcome, n uint64) { r.counts[o] += n }

// NoteRepairs counts a point that was repaired.
func (r *Result) NoteRepairs(ways Repairs) {
	for i := range r.repaired {
		if ways&(1<<i) != 0 {
			r.repaired[i]++
		}
	}
}

// Stored returns the bytes in storage.
func (c *Converter) Stored() (journal, checkpoints int64) {
	s := c.Stats()
	return s.JournalBytes, s.CheckpointBytes
}

// Points is what a result says of points, and not of the store.
func (r Result) Points() Result {
	r.Stored, r.Outstanding = false, false
	return r
}

// AddBroken makes a histogram stream under id whose value is nowhere: to fold a point into it panics.
func (c *Converter) AddBroken(id streamid.ID) {
	sh := &c.pipeline.Table.Shards[c.pipeline.Table.ShardOf(id)]
	sh.Add(id, KindHistogram).Break()
	c.pipeline.Live.Add(1)
}

// Live is the number of streams and writers that count against MaxStreams.
func (c *Converter) Live() int { return int(c.pipeline.Live.Load()) }
