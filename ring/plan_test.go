// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"math"
	"slices"
	"strings"
	"testing"
)

// checkPlan compares Diff with plain maps of names.
func checkPlan(t testing.TB, old, new *Ring) {
	t.Helper()
	p := Diff(old, new)
	slots := max(old.Slots(), new.Slots())
	type pair struct{ from, to string }
	moves := map[pair]int{}
	moved := 0
	var transfers []Transfer
	for slot := range slots {
		key := uint64(slot) << (64 - max(old.bits, new.bits))
		m := pair{old.Members()[old.Owner(key)].Name, new.Members()[new.Owner(key)].Name}
		if m.from != m.to {
			moves[m]++
			moved++
			transfers = append(transfers, Transfer{slot, m.from, m.to})
		}
	}
	if p.Slots != slots || p.Moved != moved || len(p.Moves) != len(moves) {
		t.Fatalf("%d of %d slots in %d groups, want %d of %d in %d", p.Moved, p.Slots, len(p.Moves), moved, slots, len(moves))
	}
	for i, m := range p.Moves {
		if moves[pair{m.From, m.To}] != m.Slots {
			t.Fatalf("%+v, want %d slots", m, moves[pair{m.From, m.To}])
		}
		if i > 0 && strings.Compare(p.Moves[i-1].From+"\x00"+p.Moves[i-1].To, m.From+"\x00"+m.To) >= 0 {
			t.Fatalf("%+v after %+v", m, p.Moves[i-1])
		}
	}
	if got := slices.Collect(p.Transfers()); !slices.Equal(got, transfers) {
		t.Fatalf("got transfers %v, want %v", got, transfers)
	}
	quota := map[string]int{} // TestQuotas compares quotas with their definition
	for i, q := range quotas(old.Members(), slots) {
		quota[old.Members()[i].Name] -= q
	}
	for i, q := range quotas(new.Members(), slots) {
		quota[new.Members()[i].Name] += q
	}
	minimum := 0
	for _, q := range quota {
		minimum += max(0, q)
	}
	if p.Minimum != minimum {
		t.Fatalf("minimum %d, want %d", p.Minimum, minimum)
	}
	if want := float64(moved) / float64(slots); p.Share() != want {
		t.Fatalf("share %v, want %v", p.Share(), want)
	}
}

func TestDiffOfOneRingIsEmpty(t *testing.T) {
	r := mustNew(t, fleet("worker", 7), WithSlots(1024))
	p := Diff(r, mustNew(t, fleet("worker", 7), WithSlots(1024)))
	if p.Moved != 0 || p.Minimum != 0 || p.Ratio() != 1 || p.Share() != 0 || len(p.Moves) != 0 {
		t.Errorf("%+v", p)
	}
}

func TestRatio(t *testing.T) {
	// A balance is not a membership: all that moves could have stayed.
	members := fleet("worker", 7)
	loose := mustNew(t, members, WithSlots(1024), WithBalance(1))
	tight := mustNew(t, members, WithSlots(1024), WithBalance(0))
	if p := Diff(loose, tight); p.Moved == 0 || !math.IsInf(p.Ratio(), 1) {
		t.Errorf("%d moved, ratio %v", p.Moved, p.Ratio())
	}
	// Everybody changes the name: everything has to move.
	if p := Diff(loose, mustNew(t, fleet("other", 7), WithSlots(1024))); p.Moved != 1024 || p.Minimum != 1024 || p.Ratio() != 1 {
		t.Errorf("%d of at least %d slots moved", p.Moved, p.Minimum)
	}
}

func TestDiffOfDifferentSlotCounts(t *testing.T) {
	coarse := mustNew(t, fleet("worker", 7), WithSlots(1024))
	fine := mustNew(t, fleet("worker", 8), WithSlots(4096))
	checkPlan(t, coarse, fine)
	checkPlan(t, fine, coarse)
}

func TestTransfersStop(t *testing.T) {
	a, b := mustNew(t, fleet("a", 3), WithSlots(1024)), mustNew(t, fleet("b", 3), WithSlots(1024))
	n := 0
	for range Diff(a, b).Transfers() {
		if n++; n == 10 {
			break
		}
	}
	if n != 10 {
		t.Errorf("got %d transfers", n)
	}
}
