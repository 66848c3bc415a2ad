// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// checkOwners compares Owners with a full sort of the members for some keys.
func checkOwners(t testing.TB, r *Ring) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(r.Epoch(), 3))
	for range 20 {
		key := rnd.Uint64()
		slot := int(key >> (64 - r.bits))
		var preference []int
		for i, m := range r.Members() {
			if m.Weight > 0 && i != r.Owner(key) {
				preference = append(preference, i)
			}
		}
		slices.SortFunc(preference, func(a, b int) int { return compareCosts(r, pairing{slot, a}, pairing{slot, b}) })
		want := []int{r.Owner(key)}
		used := map[string]int{r.Members()[want[0]].Zone: 1}
		for len(preference) > 0 {
			at := 0
			for i, m := range preference {
				if used[r.Members()[m].Zone] < used[r.Members()[preference[at]].Zone] {
					at = i
				}
			}
			want = append(want, preference[at])
			used[r.Members()[preference[at]].Zone]++
			preference = slices.Delete(preference, at, at+1)
		}
		for _, n := range []int{0, 1, 2, 3, 5, len(want), len(want) + 2} {
			dst := make([]int, n, n+1)
			if got := r.Owners(key, dst); !slices.Equal(got, want[:min(n, len(want))]) {
				t.Fatalf("%v: %d owners of slot %d: got %v, want %v", r.Members(), n, slot, got, want)
			}
		}
	}
}

func TestOwnersSpreadOverZones(t *testing.T) {
	members := fleet("worker", 30)
	for i := range members {
		members[i].Zone = []string{"a", "b", "b"}[i%3]
	}
	r := mustNew(t, members, WithSlots(1024))
	checkOwners(t, r)
	if got := r.Owners(0, nil); len(got) != 0 {
		t.Errorf("got %v for an empty destination", got)
	}
	var buf [4]int
	for slot := range uint64(1024) {
		zones := map[string]int{}
		for _, i := range r.Owners(slot<<54, buf[:]) {
			zones[r.Members()[i].Zone]++
		}
		if zones["a"] != 2 || zones["b"] != 2 {
			t.Fatalf("slot %d: %v", slot, zones)
		}
	}
}

// TestStandbyTakesOver is the promise that makes a warm standby worth while.
func TestStandbyTakesOver(t *testing.T) {
	for _, c := range []struct {
		n    int
		want float64
	}{{10, 0.995}, {100, 0.97}} {
		members := fleet("worker", c.n)
		before := mustNew(t, members)
		leaver := c.n / 3
		after := mustNew(t, without(members, leaver))
		left, took := 0, 0
		var buf [2]int
		for slot := range uint64(before.Slots()) {
			key := slot << (64 - before.bits)
			if before.Members()[before.Owner(key)].Name != members[leaver].Name {
				continue
			}
			left++
			if before.Members()[before.Owners(key, buf[:])[1]].Name == after.Members()[after.Owner(key)].Name {
				took++
			}
		}
		share := float64(took) / float64(left)
		t.Logf("%d members: %.4f of %d slots", c.n, share, left)
		if share < c.want {
			t.Errorf("%d members: the first standby takes over %.4f of the slots, want %v", c.n, share, c.want)
		}
	}
}
