// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// divide is the method of Sainte-Laguë as it is defined: one slot after the other.
func divide(members []Member, slots int) []int {
	quota := make([]int, len(members))
	for range slots {
		best := -1
		for i, m := range members {
			if m.Weight > 0 && (best < 0 ||
				uint64(m.Weight)*uint64(2*quota[best]+1) > uint64(members[best].Weight)*uint64(2*quota[i]+1)) {
				best = i
			}
		}
		quota[best]++
	}
	return quota
}

func TestQuotas(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	// All fair shares but one are a little below half a slot, or a little above: rounding them is far off.
	below, above := fleet("small", 1000), fleet("small", 1000)
	for i := range below {
		below[i].Weight, above[i].Weight = 49, 51
	}
	below[500].Weight, above[500].Weight = 53000, 51000
	for _, members := range [][]Member{below, above, fleet("one", 1), fleet("odd", 3)} {
		if got, want := quotas(members, 1024), divide(members, 1024); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	for range 300 {
		members, _ := sorted(randomMembers(rnd, 1+rnd.IntN(60)), 1024)
		slots := []int{16, 64, 256, 1024, 2048}[rnd.IntN(5)]
		if got, want := quotas(members, slots), divide(members, slots); !slices.Equal(got, want) {
			t.Fatalf("%v, %d slots: got %v, want %v", members, slots, got, want)
		}
	}
}

// TestQuotasAreMonotone is why it is Sainte-Laguë: nobody gains because somebody joins, leaves others alone, or gets
// heavier.
func TestQuotasAreMonotone(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 8))
	for range 2000 {
		members, _ := sorted(randomMembers(rnd, 2+rnd.IntN(60)), 1024)
		slots := 1 << (minBits + rnd.IntN(15))
		i := rnd.IntN(len(members))
		lighter := slices.Clone(members)
		lighter[i].Weight = rnd.Uint32N(members[i].Weight + 1)
		if totalWeight(lighter) == 0 {
			continue
		}
		before, after := quotas(lighter, slots), quotas(members, slots)
		for j := range members {
			if j != i && after[j] > before[j] || j == i && after[j] < before[j] {
				t.Fatalf("%v, %d slots: weight of %v rises from %d, and the quota of %v changes from %d to %d",
					members, slots, members[i], lighter[i].Weight, members[j], before[j], after[j])
			}
		}
	}
}
