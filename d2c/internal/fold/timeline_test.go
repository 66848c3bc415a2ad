// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package fold

import (
	"math/rand/v2"
	"testing"
)

// TestGapSetAgainstCells compares a gap set with one flag per nanosecond, as long as no gap is forgotten for want of room.
func TestGapSetAgainstCells(t *testing.T) {
	const size = 60
	for seed := range uint64(2000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var g GapSet
		var missing [size + 1]bool // missing[i]: (i-1, i] is in a gap
		span := func() Interval {
			a, b := rng.Int64N(size), rng.Int64N(size)
			return Interval{min(a, b), max(a, b) + 1}
		}
		for range 40 {
			p := span()
			covered, inside := int64(0), true
			for i := p.Start + 1; i <= p.Time; i++ {
				if missing[i] {
					covered++
				} else {
					inside = false
				}
			}
			if got := g.overlap(p); got != covered {
				t.Fatalf("seed %d: overlap(%v) = %d, want %d of %v", seed, p, got, covered, g.Gaps[:g.N])
			}
			if got := g.contains(p); got != inside {
				t.Fatalf("seed %d: contains(%v) = %t, want %t of %v", seed, p, got, inside, g.Gaps[:g.N])
			}
			touches := p.Start > 0 && missing[p.Start] || p.Time < size && missing[p.Time+1]
			switch rng.IntN(3) {
			case 0:
				if covered > 0 || touches || g.N == MaxGaps {
					continue // a gap that opens has accepted time on both sides
				}
				g.insert(p)
				for i := p.Start + 1; i <= p.Time; i++ {
					missing[i] = true
				}
			case 1:
				if g.N == MaxGaps {
					continue // a cut may split one
				}
				if got := g.cut(p); got != covered {
					t.Fatalf("seed %d: cut(%v) = %d, want %d", seed, p, got, covered)
				}
				for i := p.Start + 1; i <= p.Time; i++ {
					missing[i] = false
				}
			case 2:
				if rng.IntN(4) > 0 {
					continue
				}
				g.forget(p.Start)
				for _, gap := range g.Gaps[:g.N] {
					if gap.Time <= p.Start {
						t.Fatalf("seed %d: forget(%d) kept %v", seed, p.Start, gap)
					}
				}
				for i := range missing { // what is left is what counts from here on
					missing[i] = false
				}
				for _, gap := range g.Gaps[:g.N] {
					for i := gap.Start + 1; i <= gap.Time; i++ {
						missing[i] = true
					}
				}
			}
			if g.Horizon != 0 {
				t.Fatalf("seed %d: horizon %d without a gap forgotten for want of room", seed, g.Horizon)
			}
			for i := 1; i < g.N; i++ {
				if g.Gaps[i-1].Time > g.Gaps[i].Start {
					t.Fatalf("seed %d: gaps out of order: %v", seed, g.Gaps[:g.N])
				}
			}
		}
	}
}

func TestGapSetForgetsTheOldestForWantOfRoom(t *testing.T) {
	var g GapSet
	for i := range int64(MaxGaps) {
		g.insert(Interval{100 * i, 100*i + 50})
	}
	g.insert(Interval{1000, 1010})
	if g.N != MaxGaps || g.Gaps[0].Start != 100 || g.Gaps[MaxGaps-1].Start != 1000 || g.Horizon != 50 {
		t.Fatalf("after a ninth gap: %+v", g)
	}
	g.insert(Interval{60, 70}) // older than all that are kept
	if g.N != MaxGaps || g.Gaps[0].Start != 100 || g.Horizon != 70 {
		t.Fatalf("after a gap older than all: %+v", g)
	}
	g.cut(Interval{110, 120}) // splits one
	if g.N != MaxGaps || g.Gaps[0] != (Interval{120, 150}) || g.Horizon != 110 {
		t.Fatalf("after a split: %+v", g)
	}
	g.forget(110)
	if g.Horizon != 0 {
		t.Fatalf("horizon %d still there behind the window", g.Horizon)
	}
}

// A delta that is missing is no repeat, though it may have the fingerprint of the one that was added last: one in 16 million has.
func TestMissingWhateverItsFingerprint(t *testing.T) {
	rules := &Rules{LateWindow: 100}
	var gaps Gaps
	var tl Timeline
	tl.Open(Interval{10, 20}, 1, rules)
	next := Interval{30, 40}
	tl.Accept(tl.Classify(next, 2, rules), next, 2, rules, &gaps)
	for _, x := range []struct {
		p     Interval
		print uint64
		want  Outcome
	}{
		{Interval{30, 40}, 2, Repeat},
		{Interval{22, 24}, 2, AddedLate},
		{Interval{22, 24}, 1, AddedLate},
		{Interval{20, 30}, 2, AddedLate},
		{Interval{12, 14}, 2, Repeat}, // which nothing tells from one
		{Interval{12, 14}, 1, Covered},
	} {
		if got := tl.Classify(x.p, x.print, rules); got != x.want {
			t.Errorf("%v: %v, want %v", x.p, got, x.want)
		}
	}
}
