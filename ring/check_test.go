// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
)

// fleet returns n members of equal weight. Different fleets have different names.
func fleet(name string, n int) []Member {
	members := make([]Member, n)
	for i := range members {
		members[i] = Member{Name: fmt.Sprintf("%s-%d", name, i), Weight: 1}
	}
	return members
}

func mustNew(t testing.TB, members []Member, opts ...Option) *Ring {
	t.Helper()
	r, err := New(members, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func mustRebalance(t testing.TB, prev *Ring, members []Member) *Ring {
	t.Helper()
	r, err := Rebalance(prev, members)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// without returns members less the one at i.
func without(members []Member, i int) []Member {
	return slices.Delete(slices.Clone(members), i, i+1)
}

// check fails t unless r is what New promises: every slot is owned within the capacities, the assignment is stable, and
// the order of the members does not matter.
func check(t testing.TB, r *Ring) {
	t.Helper()
	checkForm(t, r)
	checkCapacities(t, r)
	checkStable(t, r)
	shuffled := slices.Clone(r.Members())
	rnd := rand.New(rand.NewPCG(r.Epoch(), 1))
	rnd.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	other := mustNew(t, shuffled, WithSlots(r.Slots()), WithBalance(float64(r.balance)/million))
	if other.Epoch() != r.Epoch() || !slices.Equal(other.owners, r.owners) {
		t.Fatalf("members in another order make another ring: %v", shuffled)
	}
}

// checkForm is the part of check that holds for any ring.
func checkForm(t testing.TB, r *Ring) {
	t.Helper()
	if r.Slots() != 1<<r.bits || len(r.owners) != r.Slots() {
		t.Fatalf("%d slots, table of %d", r.Slots(), len(r.owners))
	}
	for i, m := range r.Members() {
		if m.Name == "" || i > 0 && r.Members()[i-1].Name >= m.Name {
			t.Fatalf("member %d is %q after %q", i, m.Name, r.Members()[max(i, 1)-1].Name)
		}
	}
	for slot, o := range r.owners {
		if int(o) >= len(r.Members()) || r.Members()[o].Weight == 0 {
			t.Fatalf("slot %d is owned by %d", slot, o)
		}
		for _, low := range []uint64{0, 1<<(64-r.bits) - 1} {
			if got := r.Owner(uint64(slot)<<(64-r.bits) | low); got != int(o) {
				t.Fatalf("slot %d: got owner %d, want %d", slot, got, o)
			}
		}
	}
	sum := 0
	for _, n := range r.Loads() {
		sum += n
	}
	if sum != r.Slots() {
		t.Fatalf("loads sum up to %d, want %d", sum, r.Slots())
	}
}

// checkCapacities computes max(ceil(share), floor(share * (1 + balance))) with rational numbers.
func checkCapacities(t testing.TB, r *Ring) {
	t.Helper()
	total := new(big.Int)
	for _, m := range r.Members() {
		total.Add(total, big.NewInt(int64(m.Weight)))
	}
	sum := 0
	for i, load := range r.Loads() {
		share := new(big.Rat).SetFrac(big.NewInt(int64(r.Slots())*int64(r.Members()[i].Weight)), total)
		up := new(big.Int).Add(share.Num(), new(big.Int).Sub(share.Denom(), big.NewInt(1)))
		up.Quo(up, share.Denom())
		loose := new(big.Rat).Mul(share, big.NewRat(million+int64(r.balance), million))
		down := new(big.Int).Quo(loose.Num(), loose.Denom())
		most := int(max(up.Int64(), down.Int64()))
		if got := capacities(r.Members(), r.Slots(), r.balance)[i]; got != most {
			t.Fatalf("member %v: capacity %d, want %d", r.Members()[i], got, most)
		}
		if load > most {
			t.Fatalf("member %v owns %d slots, at most %d are allowed", r.Members()[i], load, most)
		}
		sum += most
	}
	if sum < r.Slots() {
		t.Fatalf("capacities sum up to %d for %d slots", sum, r.Slots())
	}
}

// checkStable looks for a slot and a member that would rather have each other.
func checkStable(t testing.TB, r *Ring) {
	t.Helper()
	loads, caps := r.Loads(), capacities(r.Members(), r.Slots(), r.balance)
	worst := make([]uint32, len(caps)) // rank of the slot each member would give up first
	for slot, o := range r.owners {
		worst[o] = max(worst[o], r.rankings[o].rank(uint32(slot), r.bits))
	}
	for slot, o := range r.owners {
		s := uint32(slot)
		has := r.offer(s, int(o))
		for i, m := range r.Members() {
			if m.Weight == 0 || i == int(o) {
				continue
			}
			other := r.offer(s, i)
			if r.cheaper(s, other, has) && (loads[i] < caps[i] || other.rank < worst[i]) {
				t.Fatalf("slot %d of member %v and member %v (%d of %d slots, ranks to %d) prefer each other",
					slot, r.Members()[o], m, loads[i], caps[i], worst[i])
			}
		}
	}
}
