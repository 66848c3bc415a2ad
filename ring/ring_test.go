// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// TestFleetHistory lets a fleet live: members join, leave, drain, change weight and zone. After every step the ring
// must be right, and so must be the plan, the rebalanced ring and the binary form.
func TestFleetHistory(t *testing.T) {
	steps := 120
	if testing.Short() || raceEnabled {
		steps = 10
	}
	for seed := range uint64(6) {
		rnd := rand.New(rand.NewPCG(seed, 9))
		slots := WithSlots(1024 << rnd.IntN(3))
		if seed >= 3 {
			slots = WithSlots([]int{16, 64, 256}[seed-3])
		}
		balance := WithBalance(randomBalance(rnd))
		members := randomMembers(rnd, 5)
		ring := mustNew(t, members, slots, balance)
		sticky := ring
		for step := range steps {
			changed := randomChange(rnd, members, step)
			for weighty(changed) > ring.Slots() {
				changed = randomChange(rnd, members, step)
			}
			members = changed
			t.Log(step, members)
			next := mustNew(t, members, slots, balance)
			check(t, next)
			checkPlan(t, ring, next)
			checkOwners(t, next)
			checkBinary(t, next)
			nextSticky := mustRebalance(t, sticky, members)
			checkRebalanced(t, sticky, nextSticky)
			checkPlan(t, sticky, nextSticky)
			checkPlan(t, next, nextSticky)
			checkOwners(t, nextSticky)
			checkBinary(t, nextSticky)
			ring, sticky = next, nextSticky
		}
	}
}

// randomChange returns members after one event. There is always one with a weight.
func randomChange(rnd *rand.Rand, members []Member, step int) []Member {
	for {
		next := slices.Clone(members)
		i := rnd.IntN(len(next))
		switch rnd.IntN(6) {
		case 0, 1:
			next = append(next, Member{Name: fmt.Sprint("joined-", step), Weight: next[i].Weight})
		case 2:
			next = slices.Delete(next, i, i+1)
		case 3:
			next[i].Weight = 0
		case 4:
			next[i].Weight = 1 + rnd.Uint32N(5)
		case 5:
			next[i].Zone = fmt.Sprint("zone-", rnd.IntN(3))
		}
		if totalWeight(next) > 0 {
			return next
		}
	}
}

// weighty returns how many members have a weight.
func weighty(members []Member) (n int) {
	for _, m := range members {
		if m.Weight > 0 {
			n++
		}
	}
	return n
}

func TestRemainingMembersKeepTheirSlotsUnbounded(t *testing.T) {
	// With room for everybody nothing but the joiner's slots moves: that is rendezvous hashing.
	members := fleet("worker", 12)
	for i := range members {
		members[i].Weight = uint32(i%3 + 1)
	}
	before := mustNew(t, members[:11], WithSlots(1<<14), WithBalance(1))
	after := mustNew(t, members, WithSlots(1<<14), WithBalance(1))
	for move := range Diff(before, after).Transfers() {
		if move.To != members[11].Name {
			t.Fatalf("%+v", move)
		}
	}
}

func TestNewDoesNotKeepTheMembers(t *testing.T) {
	members := fleet("worker", 3)
	r := mustNew(t, members, WithSlots(1024))
	members[0] = Member{}
	check(t, r)
	grown := append(r.Members(), Member{Name: "x"})
	if &grown[0] == &r.Members()[0] {
		t.Error("appending to Members may write to the ring")
	}
}

func TestEpoch(t *testing.T) {
	base := []Member{{"a", 1, "x"}, {"b", 1, "x"}, {"c", 0, "y"}}
	seen := map[uint64]string{}
	add := func(what string, r *Ring) {
		t.Helper()
		if other, ok := seen[r.Epoch()]; ok {
			t.Errorf("%s has the epoch of %s", what, other)
		}
		seen[r.Epoch()] = what
	}
	change := func(f func(m []Member)) *Ring {
		members := slices.Clone(base)
		f(members)
		return mustNew(t, members, WithSlots(1024))
	}
	add("base", mustNew(t, base, WithSlots(1024)))
	add("without c", mustNew(t, base[:2], WithSlots(1024)))
	add("more slots", mustNew(t, base, WithSlots(2048)))
	add("other balance", mustNew(t, base, WithSlots(1024), WithBalance(0.02)))
	add("other name", change(func(m []Member) { m[1].Name = "bb" }))
	add("other weight", change(func(m []Member) { m[1].Weight = 2 }))
	add("all weights doubled", change(func(m []Member) { m[0].Weight, m[1].Weight = 2, 2 }))
	add("other zone", change(func(m []Member) { m[2].Zone = "x" }))
	add("name and zone swapped", change(func(m []Member) { m[0] = Member{"x", 1, "a"} }))
	add("one side of zone moved", change(func(m []Member) { m[0] = Member{"ax", 1, ""} }))
	more := mustNew(t, append(fleet("gone", 3), base...), WithSlots(1024))
	add("other history", mustRebalance(t, more, base))
	if again := mustNew(t, base, WithSlots(1024)); seen[again.Epoch()] != "base" {
		t.Error("epochs of equal rings differ")
	}
}

func TestBadInput(t *testing.T) {
	long := strings.Repeat("n", 65536)
	for _, c := range []struct {
		want    string
		members []Member
		opts    []Option
	}{
		{"ring: no members", nil, nil},
		{"ring: member 2 of 2 has no name", []Member{{Name: "a", Weight: 1}, {Weight: 1}}, nil},
		{`ring: member "a" is listed twice`, []Member{{Name: "a", Weight: 1}, {Name: "b", Weight: 1}, {Name: "a", Weight: 2, Zone: "z"}}, nil},
		{`ring: total weight is zero: all members are draining, member "a" first`, []Member{{Name: "b"}, {Name: "a"}}, nil},
		{`name has 65536 bytes, at most 65535 are possible`, Equal("a", long), nil},
		{`ring: member "a": zone has 65536 bytes`, []Member{{Name: "a", Weight: 1, Zone: long}}, nil},
		{"ring: 1025 members for 1024 slots", fleet("worker", 1025), []Option{WithSlots(1024)}},
		{"ring: 65537 members, at most 65536 are possible", fleet("worker", 65537), nil},
		{"ring: 17 members for 16 slots", fleet("worker", 17), []Option{WithSlots(16)}},
		{"ring: slots: 3000 is not a power of two from 16 to 4194304", Equal("a"), []Option{WithSlots(3000)}},
		{"ring: slots: 8", Equal("a"), []Option{WithSlots(8)}},
		{"ring: slots: 24", Equal("a"), []Option{WithSlots(24)}},
		{"ring: slots: 8388608", Equal("a"), []Option{WithSlots(1 << 23)}},
		{"ring: slots: 0", Equal("a"), []Option{WithSlots(0)}},
		{"ring: slots: -1024", Equal("a"), []Option{WithSlots(-1024)}},
		{fmt.Sprint("ring: slots: ", math.MinInt), Equal("a"), []Option{WithSlots(math.MinInt)}},
		{"ring: balance: -0.01 is not between 0 and 1", Equal("a"), []Option{WithBalance(-0.01)}},
		{"ring: balance: 1.01", Equal("a"), []Option{WithBalance(1.01)}},
		{"ring: balance: NaN", Equal("a"), []Option{WithBalance(math.NaN())}},
		{"ring: balance: +Inf", Equal("a"), []Option{WithBalance(math.Inf(1))}},
	} {
		r, err := New(c.members, c.opts...)
		if err == nil || r != nil || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 200 {
			t.Errorf("got %v, %.300v, want %s", r, err, c.want)
		}
		if len(c.opts) > 0 {
			continue
		}
		prev := mustNew(t, fleet("worker", 3), WithSlots(1<<17))
		if _, err := Rebalance(prev, c.members); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("rebalance: got %.300v, want %s", err, c.want)
		}
	}
	// What is odd but right.
	for _, members := range [][]Member{
		append(fleet("worker", 1024), Member{Name: "draining"}),
		{{Name: "a", Weight: 1 << 31}, {Name: "b", Weight: 1}},
		{{Name: "\xff\x00", Weight: math.MaxUint32, Zone: "\xff"}, {Name: long[1:], Weight: math.MaxUint32}},
	} {
		check(t, mustNew(t, members, WithSlots(1024)))
	}
}

func TestWeightsCannotOverflow(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("takes long")
	}
	members := fleet("worker", maxMembers)
	for i := range members {
		members[i].Weight = math.MaxUint32
	}
	r := mustNew(t, members)
	checkForm(t, r)
	for i, n := range r.Loads() {
		if n > 4 {
			t.Fatalf("%d members, %d slots: member %d owns %d", len(members), r.Slots(), i, n)
		}
	}
	if got := quotas(r.Members(), r.Slots()); slices.Min(got) != 4 || slices.Max(got) != 4 {
		t.Errorf("quotas from %d to %d, want 4", slices.Min(got), slices.Max(got))
	}
}

// TestAbsurdWeights demands an answer in reasonable time when a slot must wait for a member of next to no weight.
func TestAbsurdWeights(t *testing.T) {
	members := fleet("small", 500)
	for _, weights := range [][]uint32{{1, math.MaxUint32}, {1, 1 << 20}, {1, 1023 * 500}} {
		for i := range members {
			members[i].Weight = weights[0]
		}
		check(t, mustNew(t, append(slices.Clone(members), Member{Name: "big", Weight: weights[1]}), WithSlots(1024), WithBalance(0)))
	}
	// The quota of the heavy member is exactly all slots but one. If it gets the slots the light one is fondest of, the
	// last slot waits for that to go through nearly all of its ranks.
	const slots = 1 << 18
	heavy := Member{Name: "heavy", Weight: slots - 1}
	for _, light := range fleet("light", 10) {
		r := mustNew(t, []Member{heavy, light}, WithSlots(slots), WithBalance(0))
		if got := r.Loads(); got[0] != slots-1 || got[1] != 1 {
			t.Errorf("%s: got loads %v", light.Name, got)
		}
	}
}

func TestWithBalanceRounds(t *testing.T) {
	for want := range uint32(million + 1) {
		var c config
		if err := WithBalance(float64(want) / million)(&c); err != nil || c.balance != want {
			t.Fatalf("%v: got %d, %v, want %d", float64(want)/million, c.balance, err, want)
		}
	}
}

func TestAllocations(t *testing.T) {
	r := mustNew(t, fleet("worker", 20), WithSlots(1024))
	key := uint64(0)
	var buf [3]int
	for name, f := range map[string]func(){
		"Owner":  func() { key += golden; r.Owner(key) },
		"Owners": func() { key += golden; r.Owners(key, buf[:]) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// TestConcurrentUse is for the race detector.
func TestConcurrentUse(t *testing.T) {
	var current atomic.Pointer[Ring]
	current.Store(mustNew(t, fleet("worker", 5), WithSlots(1024)))
	done := make(chan struct{})
	for range 4 {
		go func() {
			defer func() { done <- struct{}{} }()
			var buf [3]int
			for key := uint64(0); key < 2000; key++ {
				r := current.Load()
				if len(r.Owners(key*golden, buf[:])) != 3 || r.Owner(key*golden) != buf[0] {
					panic("wrong owners")
				}
				if key%500 == 0 {
					Diff(r, current.Load())
					next, err := Rebalance(r, fleet("worker", 4+int(key/500)))
					if err != nil {
						panic(err)
					}
					current.Store(next)
				}
			}
		}()
	}
	for range 4 {
		<-done
	}
}
