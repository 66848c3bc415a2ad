// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"math/rand/v2"
	"testing"
)

// TestGapSetAgainstCells compares a gap set with one flag per nanosecond, as long as no gap is forgotten for want of room.
func TestGapSetAgainstCells(t *testing.T) {
	const size = 60
	for seed := range uint64(2000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var g gapSet
		var missing [size + 1]bool // missing[i]: (i-1, i] is in a gap
		span := func() interval {
			a, b := rng.Int64N(size), rng.Int64N(size)
			return interval{min(a, b), max(a, b) + 1}
		}
		for range 40 {
			p := span()
			covered, inside := int64(0), true
			for i := p.start + 1; i <= p.time; i++ {
				if missing[i] {
					covered++
				} else {
					inside = false
				}
			}
			if got := g.overlap(p); got != covered {
				t.Fatalf("seed %d: overlap(%v) = %d, want %d of %v", seed, p, got, covered, g.gaps[:g.n])
			}
			if got := g.contains(p); got != inside {
				t.Fatalf("seed %d: contains(%v) = %t, want %t of %v", seed, p, got, inside, g.gaps[:g.n])
			}
			touches := p.start > 0 && missing[p.start] || p.time < size && missing[p.time+1]
			switch rng.IntN(3) {
			case 0:
				if covered > 0 || touches || g.n == maxGaps {
					continue // a gap that opens has accepted time on both sides
				}
				g.insert(p)
				for i := p.start + 1; i <= p.time; i++ {
					missing[i] = true
				}
			case 1:
				if g.n == maxGaps {
					continue // a cut may split one
				}
				if got := g.cut(p); got != covered {
					t.Fatalf("seed %d: cut(%v) = %d, want %d", seed, p, got, covered)
				}
				for i := p.start + 1; i <= p.time; i++ {
					missing[i] = false
				}
			case 2:
				if rng.IntN(4) > 0 {
					continue
				}
				g.forget(p.start)
				for _, gap := range g.gaps[:g.n] {
					if gap.time <= p.start {
						t.Fatalf("seed %d: forget(%d) kept %v", seed, p.start, gap)
					}
				}
				for i := range missing { // what is left is what counts from here on
					missing[i] = false
				}
				for _, gap := range g.gaps[:g.n] {
					for i := gap.start + 1; i <= gap.time; i++ {
						missing[i] = true
					}
				}
			}
			if g.horizon != 0 {
				t.Fatalf("seed %d: horizon %d without a gap forgotten for want of room", seed, g.horizon)
			}
			for i := 1; i < g.n; i++ {
				if g.gaps[i-1].time > g.gaps[i].start {
					t.Fatalf("seed %d: gaps out of order: %v", seed, g.gaps[:g.n])
				}
			}
		}
	}
}

func TestGapSetForgetsTheOldestForWantOfRoom(t *testing.T) {
	var g gapSet
	for i := range int64(maxGaps) {
		g.insert(interval{100 * i, 100*i + 50})
	}
	g.insert(interval{1000, 1010})
	if g.n != maxGaps || g.gaps[0].start != 100 || g.gaps[maxGaps-1].start != 1000 || g.horizon != 50 {
		t.Fatalf("after a ninth gap: %+v", g)
	}
	g.insert(interval{60, 70}) // older than all that are kept
	if g.n != maxGaps || g.gaps[0].start != 100 || g.horizon != 70 {
		t.Fatalf("after a gap older than all: %+v", g)
	}
	g.cut(interval{110, 120}) // splits one
	if g.n != maxGaps || g.gaps[0] != (interval{120, 150}) || g.horizon != 110 {
		t.Fatalf("after a split: %+v", g)
	}
	g.forget(110)
	if g.horizon != 0 {
		t.Fatalf("horizon %d still there behind the window", g.horizon)
	}
}
