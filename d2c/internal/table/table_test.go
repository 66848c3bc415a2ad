// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package table

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/deltaring/deltaring/d2c/internal/fold"
	"github.com/deltaring/deltaring/streamid"
)

// check walks a shard and fails the test where anything contradicts anything else.
func (sh *Shard) check(t *testing.T) {
	t.Helper()
	if len(sh.index)%minIndex != 0 || sh.N*4 > len(sh.index)*3 {
		t.Fatalf("index of %d for %d streams", len(sh.index), sh.N)
	}
	entries := 0
	for _, entry := range sh.index {
		if entry != 0 {
			entries++
		}
	}
	room := 0
	for _, chunk := range sh.chunks {
		room += len(chunk)
	}
	if entries != sh.N || room != sh.room || sh.N > room || len(sh.chunks) > 0 && sh.N <= room-len(sh.chunks[len(sh.chunks)-1]) {
		t.Fatalf("%d streams, %d index entries, %d slots in %d chunks, %d counted", sh.N, entries, room, len(sh.chunks), sh.room)
	}
	asides, blocks, users := map[uint32]bool{}, map[blockRef]bool{}, make([]int, len(sh.bounds.sets))
	for _, i := range sh.asides.free {
		asides[i] = true
	}
	for i := range sh.N {
		s := sh.Slot(i)
		if sh.Find(s.ID) != s {
			t.Fatalf("stream %v is not found", s.ID)
		}
		if s.Meta&(FlagFresh|FlagTouched) != 0 {
			t.Fatalf("stream %v left in the middle of a batch: %b", s.ID, s.Meta)
		}
		if a := s.Meta >> asideShift; a != 0 {
			if asides[a-1] {
				t.Fatalf("aside %d is free or has two owners", a-1)
			}
			asides[a-1] = true
		}
		if s.Kind() == KindSum {
			continue
		}
		ref := blockRef(s.value)
		if blocks[ref] {
			t.Fatalf("block %x has two owners", ref)
		}
		blocks[ref] = true
		if s.Kind() == KindHistogram {
			users[sh.blocks.block(ref)[wordBounds]]++
		}
	}
	if len(asides) != int(sh.asides.used) {
		t.Fatalf("%d asides are free or owned, of %d", len(asides), sh.asides.used)
	}
	live := 0
	for i := range sh.blocks.classes {
		live += int(sh.blocks.classes[i].live)
	}
	if live != len(blocks) {
		t.Fatalf("%d blocks live, %d owned", live, len(blocks))
	}
	for i, set := range sh.bounds.sets {
		if set.users != users[i] {
			t.Fatalf("bounds %d count %d users, have %d", i, set.users, users[i])
		}
	}
}

func TestSlotSize(t *testing.T) {
	if size := unsafe.Sizeof(Slot{}); size != 56 {
		t.Errorf("a slot has %d bytes, want 56", size)
	}
	if size := unsafe.Sizeof([chunkSlots]Slot{}); size != 14336 {
		t.Errorf("a chunk has %d bytes, want the allocator's size class of 14336", size)
	}
}

func TestChunkOfNumbersSlotsDensely(t *testing.T) {
	chunk, at, size := 0, 0, chunkSlots
	for i := range 1 << 20 {
		if at == size {
			chunk, at = chunk+1, 0
			if chunk%chunksPerSize == 0 {
				size *= 2
			}
		}
		if c, a, s := chunkOf(i); c != chunk || a != at || s != size {
			t.Fatalf("slot %d is number %d of chunk %d of %d, want %d of %d of %d", i, a, c, s, at, chunk, size)
		}
		at++
	}
}

// TestShardAgainstMap adds, changes and expires random streams of all kinds and compares with a map.
func TestShardAgainstMap(t *testing.T) {
	type want struct {
		timeline fold.Timeline
		seen     uint32
		number   fold.Number
		counts   []uint64
		bounds   []float64
	}
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 3))
		sh := &New(NewKey(), &fold.Rules{LateWindow: time.Minute}).Shards[0]
		model := map[streamid.ID]*want{}
		for now := uint32(1); now < 60; now++ {
			for range rng.IntN(200) {
				// Few low bits and equal tags, so that probes are long and tags lie.
				id := streamid.ID{Hi: rng.Uint64N(3), Lo: rng.Uint64N(400)<<8 | rng.Uint64N(2)<<56}
				kind := Kind((id.Lo >> 8) % 3)
				s := sh.Find(id)
				if _, known := model[id]; known != (s != nil) {
					t.Fatalf("seed %d: stream %v found: %t, want %t", seed, id, s != nil, known)
				}
				if s == nil {
					if s = sh.Add(id, kind); s == nil {
						t.Fatalf("seed %d: no room", seed)
					}
					model[id] = &want{}
				}
				w := model[id]
				w.seen = now
				w.timeline = fold.Timeline{
					Start: rng.Int64N(100), Last: 100, Emitted: 100 + rng.Int64N(2),
					Restarted: rng.IntN(2) == 0, Marked: rng.IntN(2) == 0,
				}
				if rng.IntN(3) == 0 {
					w.timeline.Gaps.N, w.timeline.Gaps.Gaps[0] = 1, fold.Interval{Start: 1, Time: 1 + rng.Int64N(50)}
				}
				s.Seen = now
				switch kind {
				case KindSum:
					w.number = fold.Number{Bits: rng.Uint64(), Double: rng.IntN(2) == 0}
					s.SetNumber(w.number)
				case KindHistogram:
					n := rng.IntN(40)
					w.counts, w.bounds = randomCounts(rng, n+1), nil
					for i := range n {
						w.bounds = append(w.bounds, float64(i))
					}
					sh.SetHistogram(s, &fold.Histogram{Bounds: w.bounds, Counts: w.counts}, true)
				case KindExponentialHistogram:
					w.counts = randomCounts(rng, rng.IntN(40))
					e := fold.Exponential{Ranges: [2]fold.Buckets{
						{Offset: -5, Counts: w.counts}, {Offset: 7, Counts: w.counts[:len(w.counts)/2]},
					}}
					e.Scale = -7
					sh.SetExponential(s, &e)
				}
				s.Meta &^= FlagFresh
				sh.SetTimeline(s, &w.timeline)
			}
			if age := uint32(rng.IntN(20)); rng.IntN(4) == 0 {
				expired := 0
				for id, w := range model {
					if now-w.seen > age {
						delete(model, id)
						expired++
					}
				}
				if got, _, _ := sh.Expire(now, age, 0); got != expired {
					t.Fatalf("seed %d: expired %d, want %d", seed, got, expired)
				}
			}
			sh.check(t)
			if sh.N != len(model) {
				t.Fatalf("seed %d: %d streams, want %d", seed, sh.N, len(model))
			}
			for id, w := range model {
				s := sh.Find(id)
				var tl fold.Timeline
				sh.Timeline(s, &tl)
				got, expect := tl, w.timeline
				got.Gaps.Gaps, expect.Gaps.Gaps = [fold.MaxGaps]fold.Interval{}, [fold.MaxGaps]fold.Interval{}
				if got != expect || tl.Gaps.N > 0 && tl.Gaps.Gaps[0] != w.timeline.Gaps.Gaps[0] || s.Seen != w.seen {
					t.Fatalf("seed %d: timeline of %v is %+v, want %+v", seed, id, tl, w.timeline)
				}
				switch s.Kind() {
				case KindSum:
					if s.Number() != w.number {
						t.Fatalf("seed %d: %v is %v, want %v", seed, id, s.Number(), w.number)
					}
				case KindHistogram:
					var h fold.HistogramTotal
					sh.Histogram(s, &h)
					h.Complete()
					if !slices.Equal(h.Counts, w.counts) || !slices.Equal(h.Bounds, w.bounds) {
						t.Fatalf("seed %d: %v is %v, want %v", seed, id, h.Histogram, w)
					}
				case KindExponentialHistogram:
					var e fold.ExponentialTotal
					sh.Exponential(s, &e)
					e.Complete()
					if !slices.Equal(e.Ranges[0].Counts, w.counts) || !slices.Equal(e.Ranges[1].Counts, w.counts[:len(w.counts)/2]) ||
						e.Scale != -7 || e.Ranges[0].Offset != -5 || e.Ranges[1].Offset != 7 {
						t.Fatalf("seed %d: %v is %v, want %v", seed, id, e.Exponential, w)
					}
				}
			}
		}
		sh.Expire(1000, 0, 0)
		sh.check(t)
		if sh.N != 0 || sh.Memory() > 64<<10 {
			t.Fatalf("seed %d: empty shard holds %d streams, %d bytes", seed, sh.N, sh.Memory())
		}
	}
}

// randomCounts returns counts of which one in three sets needs 64 bits.
func randomCounts(rng *rand.Rand, n int) []uint64 {
	counts := make([]uint64, n)
	wide := rng.IntN(3) == 0
	for i := range counts {
		counts[i] = uint64(rng.Uint32())
		if wide {
			counts[i] = rng.Uint64()
		}
	}
	return counts
}

// What goes is asked about under the number it had before anything went, so that a set of numbers can say.
func TestRemoveByNumber(t *testing.T) {
	for _, n := range []int{0, 1, 2, 63, 64, 65, 300} {
		for _, every := range []int{1, 2, 3, 64} {
			sh, goes := new(Shard), map[int]bool{}
			want := map[streamid.ID]bool{}
			for i := range n {
				id := streamid.ID{Hi: 1, Lo: uint64(i)}
				sh.Add(id, KindSum)
				if goes[i] = i%every == 0; !goes[i] {
					want[id] = true
				}
			}
			asked := map[int]bool{}
			removed := sh.Remove(func(number int, s *Slot) bool {
				if asked[number] || s.ID.Lo != uint64(number) {
					t.Fatalf("asked about %v as number %d", s.ID, number)
				}
				asked[number] = true
				return goes[number]
			})
			if removed != n-len(want) || sh.N != len(want) || len(asked) != n {
				t.Fatalf("%d removed and %d asked about of %d, %d are left, want %d", removed, len(asked), n, sh.N, len(want))
			}
			for i := range n {
				id := streamid.ID{Hi: 1, Lo: uint64(i)}
				if (sh.Find(id) != nil) != want[id] {
					t.Fatalf("%v of %d, every %d: is it left: %v", id, n, every, !want[id])
				}
			}
		}
	}
}
