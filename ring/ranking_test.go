// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"fmt"
	"math"
	"testing"
)

func TestRankingIsAPermutation(t *testing.T) {
	for bits := uint8(minBits); bits <= maxBits; bits++ {
		if testing.Short() && bits > 16 {
			break
		}
		r := newRanking(fmt.Sprint("member", bits))
		seen := make([]bool, 1<<bits)
		for rank := range uint32(1 << bits) {
			slot := r.slot(rank, bits)
			if slot>>bits != 0 || seen[slot] {
				t.Fatalf("2^%d slots: rank %d has slot %d, which is taken or none", bits, rank, slot)
			}
			seen[slot] = true
			if got := r.rank(slot, bits); got != rank {
				t.Fatalf("2^%d slots: slot %d has rank %d, want %d", bits, slot, got, rank)
			}
		}
	}
}

// TestRankingsAreIndependent asks whether the rank of a slot at one member tells anything about its rank at another
// one, with names that differ as little as names of workers do. The chi-square of a 16 by 16 table of ranks has 225
// degrees of freedom (rows and columns are exact) if not: mean 225, standard deviation 21.
func TestRankingsAreIndependent(t *testing.T) {
	const cells = 16
	for _, bits := range []uint8{10, 11, 14, 18} {
		pairs := 300
		if testing.Short() {
			pairs = 30
		}
		sum, highest := 0.0, 0.0
		for pair := range pairs {
			a, b := newRanking(fmt.Sprintf("worker-%d", pair)), newRanking(fmt.Sprintf("worker-%d", pair+1))
			var counts [cells][cells]float64
			for slot := range uint32(1 << bits) {
				counts[a.rank(slot, bits)>>(bits-4)][b.rank(slot, bits)>>(bits-4)]++
			}
			expected := math.Exp2(float64(bits)) / (cells * cells)
			chi := 0.0
			for _, row := range counts {
				for _, n := range row {
					chi += (n - expected) * (n - expected) / expected
				}
			}
			sum, highest = sum+chi, max(highest, chi)
		}
		mean := sum / float64(pairs)
		t.Logf("2^%d slots: mean %.1f, highest %.1f", bits, mean, highest)
		if off := math.Abs(mean-225) / (21.2 / math.Sqrt(float64(pairs))); off > 4 || highest > 225+6*21.2 {
			t.Errorf("2^%d slots: mean chi-square %.1f, highest %.1f: ranks of different members are related", bits, mean, highest)
		}
	}
}

// TestFewSlotsAreRankedEvenly: what a table of ranks cannot show of few slots, members by the hundred thousand do. Each rank of a slot is
// as frequent as any other, and so is each pair of ranks that a slot has at two members. Chi-square has as many degrees of freedom as
// there are of those, less one: mean as many, standard deviation the root of twice as many.
func TestFewSlotsAreRankedEvenly(t *testing.T) {
	const names = 100_000
	for bits := uint8(minBits); bits <= 6; bits++ {
		n := 1 << bits
		check := func(what string, counts []float64) {
			expected, chi := names/float64(len(counts)), 0.0
			for _, c := range counts {
				chi += (c - expected) * (c - expected) / expected
			}
			free := float64(len(counts) - 1)
			if off := (chi - free) / math.Sqrt(2*free); off > 5 {
				t.Errorf("2^%d slots, %s: chi-square %.0f, want %.0f (%+.1f standard deviations)", bits, what, chi, free, off)
			}
		}
		for slot := range uint32(n) {
			ranks, pairs := make([]float64, n), make([]float64, n*n)
			last := newRanking("worker-0")
			for i := range names {
				r := newRanking(fmt.Sprint("worker-", i+1))
				rank := r.rank(slot, bits)
				ranks[rank]++
				pairs[int(rank)*n+int(last.rank(slot, bits))]++
				last = r
			}
			check(fmt.Sprint("ranks of slot ", slot), ranks)
			check(fmt.Sprint("ranks of slot ", slot, " at two members"), pairs)
		}
	}
}

// TestCostsFollowWeights leaves out the capacities: the costs alone must make each member the first choice of its share
// of the slots, within what is to be expected of chance.
func TestCostsFollowWeights(t *testing.T) {
	for _, weights := range [][]uint32{{1, 2}, {1, 1, 1, 3}, {1, 10, 100}, {7, 7, 7, 7, 7, 7, 7, 7, 300}} {
		rounds := 20
		if testing.Short() {
			rounds = 3
		}
		first := make([]float64, len(weights))
		total := 0.0
		for _, w := range weights {
			total += float64(w)
		}
		for round := range rounds {
			members := fleet(fmt.Sprint("fleet", round), len(weights))
			for i := range members {
				members[i].Weight = weights[i]
			}
			r := prepare(config{bits: 16}, members)
			for slot := range uint32(r.slots()) {
				best := 0
				for i := range members {
					if r.cheaper(slot, r.offer(slot, i), r.offer(slot, best)) {
						best = i
					}
				}
				first[best]++
			}
		}
		draws := float64(rounds << 16)
		for i, w := range weights {
			p := float64(w) / total
			if off := (first[i] - draws*p) / math.Sqrt(draws*p*(1-p)); math.Abs(off) > 4 {
				t.Errorf("weights %v: member %d is the first choice of %.5f of the slots, want %.5f (%+.1f standard deviations)",
					weights, i, first[i]/draws, p, off)
			}
		}
	}
}

func TestCostIsALogarithm(t *testing.T) {
	for bits := uint8(minBits); bits <= maxBits; bits++ {
		if testing.Short() && bits > 16 {
			break
		}
		last := uint64(0)
		for rank := range uint32(1 << bits) {
			cost := costs().at(rank, bits)
			if cost <= last {
				t.Fatalf("2^%d slots: rank %d costs %d, the rank before it %d", bits, rank, cost, last)
			}
			last = cost
			want := -math.Log2(1 - (float64(rank)+0.5)/math.Exp2(float64(bits)))
			got := math.Ldexp(float64(cost), -costBits)
			if math.Abs(got-want) > 6e-4*want {
				t.Fatalf("2^%d slots: rank %d costs %v, want %v", bits, rank, got, want)
			}
		}
		if last >= 1<<53 {
			t.Fatalf("2^%d slots: highest cost %d", bits, last)
		}
	}
}

func TestCompareProducts(t *testing.T) {
	const m = math.MaxUint64
	for _, c := range []struct {
		a, b, c, d uint64
		want       int
	}{
		{2, 3, 6, 1, 0}, {2, 3, 7, 1, -1}, {2, 3, 5, 1, 1},
		{m, m, m, m, 0}, {m, m, m, m - 1, 1}, {m - 1, m, m, m, -1},
		{1 << 32, 1 << 32, m, 1, 1}, {m, 1, 1 << 32, 1 << 32, -1}, {1 << 40, 1 << 30, 1 << 35, 1 << 35, 0},
	} {
		if got := compareProducts(c.a, c.b, c.c, c.d); got != c.want {
			t.Errorf("%d*%d against %d*%d: got %d, want %d", c.a, c.b, c.c, c.d, got, c.want)
		}
	}
}
