// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
)

// textbook is deferred acceptance as Gale and Shapley wrote it down, with the slots proposing: each slot has the full
// list of members in its order of preference and works through it; a member with too many slots rejects those it ranks
// last. It takes the slots in the order given, which must not matter.
func textbook(r *Ring, order []int) []uint16 {
	caps := capacities(r.members, r.slots(), r.balance)
	preferences := make([][]int, r.slots())
	for slot := range preferences {
		for i, m := range r.members {
			if m.Weight > 0 {
				preferences[slot] = append(preferences[slot], i)
			}
		}
		slices.SortFunc(preferences[slot], func(a, b int) int { return compareCosts(r, pairing{slot, a}, pairing{slot, b}) })
	}
	holds := make([][]int, len(r.members)) // slots in the order in which the member ranks them
	for free := slices.Clone(order); len(free) > 0; {
		slot := free[0]
		free = free[1:]
		i := preferences[slot][0]
		preferences[slot] = preferences[slot][1:]
		rank := func(slot int) uint32 { return r.rankings[i].rank(uint32(slot), r.bits) }
		at, _ := slices.BinarySearchFunc(holds[i], slot, func(a, b int) int { return cmp.Compare(rank(a), rank(b)) })
		holds[i] = slices.Insert(holds[i], at, slot)
		if n := len(holds[i]); n > caps[i] {
			free = append(free, holds[i][n-1])
			holds[i] = holds[i][:n-1]
		}
	}
	owners := make([]uint16, r.slots())
	for i, slots := range holds {
		for _, slot := range slots {
			owners[slot] = uint16(i)
		}
	}
	return owners
}

// greedy goes through all pairs of slot and member from the cheapest to the most expensive and joins those that are
// both still to be had. Because both sides judge by the same costs, that too leads to the only stable assignment.
func greedy(r *Ring) []uint16 {
	var pairs []pairing
	for i, m := range r.members {
		for slot := range r.slots() {
			if m.Weight > 0 {
				pairs = append(pairs, pairing{slot, i})
			}
		}
	}
	slices.SortFunc(pairs, func(a, b pairing) int { return compareCosts(r, a, b) })
	room := capacities(r.members, r.slots(), r.balance)
	owners := make([]uint16, r.slots())
	taken := make([]bool, r.slots())
	for _, p := range pairs {
		if !taken[p.slot] && room[p.member] > 0 {
			owners[p.slot], taken[p.slot] = uint16(p.member), true
			room[p.member]--
		}
	}
	return owners
}

type pairing struct{ slot, member int }

// compareCosts is the order of all pairs: cost / weight, then the tie hash, then names.
func compareCosts(r *Ring, a, b pairing) int {
	rankA, rankB := &r.rankings[a.member], &r.rankings[b.member]
	costA := r.costs.at(rankA.rank(uint32(a.slot), r.bits), r.bits)
	costB := r.costs.at(rankB.rank(uint32(b.slot), r.bits), r.bits)
	return cmp.Or(
		compareProducts(costA, uint64(r.members[b.member].Weight), costB, uint64(r.members[a.member].Weight)),
		cmp.Compare(rankA.tie(uint32(a.slot)), rankB.tie(uint32(b.slot))),
		cmp.Compare(r.members[a.member].Name, r.members[b.member].Name),
	)
}

// checkReferences compares the table of r with those of the slow and obvious methods.
func checkReferences(t testing.TB, r *Ring) {
	t.Helper()
	order := rand.New(rand.NewPCG(r.Epoch(), 2)).Perm(r.Slots())
	if !slices.Equal(r.owners, textbook(r, order)) {
		t.Fatalf("not what Gale and Shapley say: %v, balance %d", r.Members(), r.balance)
	}
	if !slices.Equal(r.owners, greedy(r)) {
		t.Fatalf("not what taking the cheapest pair first says: %v, balance %d", r.Members(), r.balance)
	}
}

func TestTableIsTheStableAssignment(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	steps := 60
	if testing.Short() {
		steps = 8
	}
	for range steps {
		r := mustNew(t, randomMembers(rnd, 1+rnd.IntN(40)), WithSlots(1024<<rnd.IntN(2)), WithBalance(randomBalance(rnd)))
		check(t, r)
		checkReferences(t, r)
		for few := 16; few < 1024; few *= 2 {
			r := mustNew(t, randomMembers(rnd, 1+rnd.IntN(min(few, 40))), WithSlots(few), WithBalance(randomBalance(rnd)))
			check(t, r)
			checkReferences(t, r)
		}
	}
	// As many members as slots: everything is a second choice.
	for _, slots := range []int{16, 64, 1024} {
		r := mustNew(t, fleet("tight", slots), WithSlots(slots))
		check(t, r)
		checkReferences(t, r)
	}
}

// TestEqualHashes gives members the same hash: they rank all slots alike, and only capacities and names tell them apart.
func TestEqualHashes(t *testing.T) {
	for _, weights := range [][]uint32{{1, 1, 1, 1}, {1, 2, 3, 2}} {
		members := fleet("same", len(weights))
		for i := range members {
			members[i].Weight = weights[i]
		}
		for _, bits := range []uint8{minBits, 10} {
			r := prepare(config{bits: bits, balance: defaultBalance}, members)
			for i := range r.rankings {
				r.rankings[i] = newRanking("same")
			}
			r.assign()
			checkForm(t, r)
			checkCapacities(t, r)
			checkStable(t, r)
			checkReferences(t, r)
		}
	}
}

func randomBalance(rnd *rand.Rand) float64 {
	return []float64{0, 0.001, 0.01, 0.01, 0.05, 1}[rnd.IntN(6)]
}

// randomMembers makes fleets of equal weights, of similar ones and of absurd ones, some members draining.
func randomMembers(rnd *rand.Rand, n int) []Member {
	highest := []uint32{1, 1, 3, 100, 1<<32 - 1}[rnd.IntN(5)]
	zones := []string{"", "a", "b", "c"}[:1+rnd.IntN(4)]
	members := fleet([]string{"a", "b"}[rnd.IntN(2)], n)
	for i := range members {
		members[i].Weight = 1 + rnd.Uint32N(highest)
		if rnd.IntN(8) == 0 && i > 0 {
			members[i].Weight = 0
		}
		members[i].Zone = zones[rnd.IntN(len(zones))]
	}
	rnd.Shuffle(n, func(i, j int) { members[i], members[j] = members[j], members[i] })
	return members
}
