// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// checkRebalanced demands exact quotas and exactly as many moves as they take.
func checkRebalanced(t testing.TB, prev, r *Ring) {
	t.Helper()
	checkForm(t, r)
	quota, loads := quotas(r.Members(), r.Slots()), r.Loads()
	if !slices.Equal(loads, quota) {
		t.Fatalf("loads %v, want %v", loads, quota)
	}
	before := map[string]int{}
	for i, n := range prev.Loads() {
		before[prev.Members()[i].Name] = n
	}
	needed := 0
	for i, n := range loads {
		needed += max(0, n-before[r.Members()[i].Name])
	}
	if moved := Diff(prev, r).Moved; moved != needed {
		t.Fatalf("%d slots moved, %d had to", moved, needed)
	}
}

// TestRebalanceIsMinimal also demands a ratio of exactly 1 from the first exact ring on.
func TestRebalanceIsMinimal(t *testing.T) {
	steps := 60
	if testing.Short() || raceEnabled {
		steps = 5
	}
	rnd := rand.New(rand.NewPCG(10, 11))
	members := randomMembers(rnd, 30)
	first := mustNew(t, members)
	ring := mustRebalance(t, first, members)
	checkRebalanced(t, first, ring)
	for step := range steps {
		members = randomChange(rnd, members, step)
		next := mustRebalance(t, ring, members)
		checkRebalanced(t, ring, next)
		if p := Diff(ring, next); p.Ratio() != 1 {
			t.Fatalf("step %d: %d slots moved, minimum %d", step, p.Moved, p.Minimum)
		}
		ring = next
	}
}

func TestRebalanceWithoutChange(t *testing.T) {
	members := fleet("worker", 10)
	exact := mustRebalance(t, mustNew(t, members, WithSlots(1<<12)), members)
	if again := mustRebalance(t, exact, members); again.Epoch() != exact.Epoch() {
		t.Error("the ring changes without a change of members")
	}
}

// TestRebalanceStaysCloseToNew asks that moved slots go where New would send them, as far as quotas let them.
func TestRebalanceStaysCloseToNew(t *testing.T) {
	members := fleet("worker", 20)
	sticky := mustRebalance(t, mustNew(t, members[:10]), members[:10])
	for n := 11; n <= 20; n++ {
		sticky = mustRebalance(t, sticky, members[:n])
	}
	same := 1 - Diff(sticky, mustNew(t, members)).Share()
	t.Logf("after ten joins %.3f of the slots are where New puts them", same)
	if same < 0.9 {
		t.Errorf("after ten joins only %.3f of the slots are where New puts them", same)
	}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct{ from, to, want string }{
		{"abc", "abc", "[0 1 2]"},
		{"abc", "bd", "[-1 0 -1]"},
		{"bd", "abc", "[1 -1]"},
		{"z", "a", "[-1]"},
		{"a", "z", "[-1]"},
	} {
		var from, to []Member
		for _, name := range c.from {
			from = append(from, Member{Name: string(name)})
		}
		for _, name := range c.to {
			to = append(to, Member{Name: string(name)})
		}
		if got := fmt.Sprint(match(from, to)); got != c.want {
			t.Errorf("%s in %s: got %s, want %s", c.from, c.to, got, c.want)
		}
	}
}
