// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"regexp"
	"strings"
	"testing"
)

// imbalance returns the highest and the lowest load as parts of the fair share, of members whose share is at least
// least slots.
func imbalance(r *Ring, least float64) (highest, lowest float64) {
	total := float64(totalWeight(r.Members()))
	lowest = math.Inf(1)
	for i, n := range r.Loads() {
		if share := float64(r.Slots()) * float64(r.Members()[i].Weight) / total; share > 0 && share >= least {
			highest, lowest = max(highest, float64(n)/share), min(lowest, float64(n)/share)
		}
	}
	return highest, lowest
}

// sample is what happened to some fleets of n members when one joined, and when one of n+1 left.
type sample struct {
	highest, lowest       float64 // of all
	join, leave           float64 // means of the ratios
	worstJoin, worstLeave float64
}

func measure(t testing.TB, n, fleets int, opts ...Option) sample {
	t.Helper()
	s := sample{lowest: math.Inf(1)}
	for i := range fleets {
		members := fleet(fmt.Sprintf("worker-%c", 'a'+i), n+1)
		all := mustNew(t, members, opts...)
		less := mustNew(t, members[:n], opts...)
		without := mustNew(t, without(members, (i*n/fleets+n/2)%n), opts...)
		for _, r := range []*Ring{less, without} {
			highest, lowest := imbalance(r, 0)
			s.highest, s.lowest = max(s.highest, highest), min(s.lowest, lowest)
		}
		join, leave := Diff(less, all).Ratio(), Diff(all, without).Ratio()
		s.join += join / float64(fleets)
		s.leave += leave / float64(fleets)
		s.worstJoin, s.worstLeave = max(s.worstJoin, join), max(s.worstLeave, leave)
	}
	return s
}

// TestBalance is the promise that no member of equal weight has more than 1 % above the mean, up to 1000 members.
func TestBalance(t *testing.T) {
	const slots = 1 << defaultBits
	for n := 2; n <= 1000; n++ {
		// The capacity keeps the promise alone, for every n.
		if limit := float64(capacities(fleet("worker", n), slots, defaultBalance)[0]) * float64(n) / slots; limit > 1.01 {
			t.Errorf("%d members: capacity is %.5f of the fair share", n, limit)
		}
		// That capacities are kept is checked everywhere, and for some n here.
		if n > 10 && n%197 != 0 && n != 100 && n != 1000 || (testing.Short() || raceEnabled) && n > 10 {
			continue
		}
		r := mustNew(t, fleet("worker", n))
		checkForm(t, r)
		if highest, lowest := imbalance(r, 0); highest > 1.01 || lowest < 0.85 {
			t.Errorf("%d members: loads from %.4f to %.4f of the fair share", n, lowest, highest)
		}
	}
}

func TestWeightedBalance(t *testing.T) {
	rnd := rand.New(rand.NewPCG(12, 13))
	ns := []int{2, 3, 10, 30, 100, 300, 1000}
	if testing.Short() || raceEnabled {
		ns = []int{2, 10}
	}
	for _, n := range ns {
		for _, highest := range []uint32{2, 10, 1000, 1<<32 - 1} {
			members := fleet("worker", n)
			for i := range members {
				members[i].Weight = 1 + rnd.Uint32N(highest)
			}
			r := mustNew(t, members)
			checkForm(t, r)
			checkCapacities(t, r) // at most one slot more than the fair share where that is below 100
			if got, _ := imbalance(r, 100); got > 1.01 {
				t.Errorf("%d members of weights up to %d: a load is %.5f of the fair share", n, highest, got)
			}
		}
	}
}

// TestMoves holds joins and leaves to what they may cost, as multiples of the minimum.
func TestMoves(t *testing.T) {
	for _, c := range []struct {
		n     int
		limit float64
		bits  int
	}{
		{2, 1.05, 18}, {3, 1.05, 18}, {5, 1.05, 18}, {10, 1.05, 18}, {20, 1.05, 18}, {50, 1.05, 18},
		{100, 1.10, 18}, {300, 1.3, 18}, {1000, 1.45, 20},
	} {
		if testing.Short() && c.n > 3 || raceEnabled {
			continue
		}
		fleets := 6
		if c.bits > 18 {
			fleets = 1
		}
		s := measure(t, c.n, fleets, WithSlots(1<<c.bits))
		t.Logf("%d members, 2^%d slots: join %.4f, leave %.4f at worst", c.n, c.bits, s.worstJoin, s.worstLeave)
		if s.worstJoin > c.limit || s.worstLeave > c.limit {
			t.Errorf("%d members, 2^%d slots: a join moves %.4f and a leave %.4f times the minimum, want at most %v",
				c.n, c.bits, s.worstJoin, s.worstLeave, c.limit)
		}
	}
}

// TestJoinMovesToTheJoiner counts the moves that are not to the joiner: those are the price of the bound.
func TestJoinMovesToTheJoiner(t *testing.T) {
	for _, c := range []struct {
		n     int
		share float64
	}{{10, 0.99}, {100, 0.90}} {
		members := fleet("worker", c.n+1)
		p := Diff(mustNew(t, members[:c.n]), mustNew(t, members))
		to := 0
		for _, m := range p.Moves {
			if m.To == members[c.n].Name {
				to += m.Slots
			}
		}
		share := float64(to) / float64(p.Moved)
		t.Logf("%d members: %d of %d moved slots go to the joiner", c.n, to, p.Moved)
		if share < c.share {
			t.Errorf("%d members: %.3f of the moved slots go to the joiner, want %v", c.n, share, c.share)
		}
	}
}

// TestPackageCommentTable measures the table in the package comment again. With -v it prints it.
func TestPackageCommentTable(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("takes long")
	}
	text, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile(`(?m)^//\t *(\d+) +2\^(\d+) +([\d.]+) .*$`).FindAllStringSubmatch(string(text), -1)
	if len(rows) < 5 {
		t.Fatalf("only %d rows in doc.go", len(rows))
	}
	for _, row := range rows {
		var n, bits int
		var epsilon float64
		if _, err := fmt.Sscan(row[1]+" "+row[2]+" "+row[3], &n, &bits, &epsilon); err != nil {
			t.Fatal(err)
		}
		s := measure(t, n, 4, WithSlots(1<<bits), WithBalance(epsilon))
		line := fmt.Sprintf("//\t%7d   2^%-2d   %.2f   %8.3f   %8.3f   %5.2f   %5.2f", n, bits, epsilon, s.highest, s.lowest, s.join, s.leave)
		t.Log(strings.TrimPrefix(line, "//\t"))
		if line != row[0] {
			t.Errorf("doc.go has\n%s\nmeasured\n%s", row[0], line)
		}
	}
}
