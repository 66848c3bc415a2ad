// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"testing"
)

// BenchmarkOwner looks up random keys in a ring of a hundred members.
func BenchmarkOwner(b *testing.B) {
	p, err := buildRing(fleetNames(0, 100))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	p.lookups(b.N)
}

// What is counted must be what can be counted by hand: modulo moves two thirds of the keys from 2 to 3 members.
func TestCountOfModulo(t *testing.T) {
	modulo := scheme{name: "modulo", slots: 6, build: func(names []string) (placement, error) {
		return placement{owner: func(i int) string { return names[i%len(names)] }}, nil
	}}
	row := ringRow{Members: 2}
	if err := row.count(modulo, 0, 1); err != nil {
		t.Fatal(err)
	}
	if row.MaxMean != 1 || row.Worst != 1 || row.Join != 2 || row.Leave != 1 {
		t.Errorf("got %+v, want balance 1, join 2x, leave 1x", row)
	}
}

// Each scheme must have the balance it is known for: a rival that we have built badly would be a straw man.
func TestSchemesAreThemselves(t *testing.T) {
	t.Parallel()
	bounds := map[string]struct{ balance, moves [2]float64 }{
		nameRing:                       {[2]float64{1, 1.01}, [2]float64{0.98, 1.05}},
		nameRebalance:                  {[2]float64{1, 1.0001}, [2]float64{0.9999, 1.0001}},
		"serialx/hashring, 100 points": {[2]float64{1.03, 1.4}, [2]float64{0.7, 1.4}},
		"groupcache, 50 points":        {[2]float64{1.03, 1.9}, [2]float64{0.4, 2}},
		"contrib's ring, 200 points *": {[2]float64{1.03, 1.5}, [2]float64{0.6, 1.5}},
		"Maglev, 65537 slots *":        {[2]float64{1, 1.001}, [2]float64{1.01, 1.1}},
		"bounded ring, load 1.01 *":    {[2]float64{1.005, 1.0102}, [2]float64{1.05, 2}},
		nameSampled:                    {[2]float64{1, 1.2}, [2]float64{0, 20}},
	}
	within := func(x float64, b [2]float64) bool { return b[0] <= x && x <= b[1] }
	for _, s := range schemes {
		t.Run(s.name, func(t *testing.T) {
			if s.slots == 0 {
				s.slots = 1 << 14
			}
			row := ringRow{Members: 10}
			if err := row.count(s, 0, 1); err != nil {
				t.Fatal(err)
			}
			want, ok := bounds[s.name]
			if !ok {
				t.Fatal("no bounds")
			}
			if !within(row.MaxMean, want.balance) || !within(row.Join, want.moves) || !within(row.Leave, want.moves) {
				t.Errorf("max/mean %.4f, join %.4fx, leave %.4fx; want %v, %v", row.MaxMean, row.Join, row.Leave, want.balance, want.moves)
			}
		})
	}
}

// The order in which members are listed must not matter to a scheme, or it would move keys for nothing.
func TestSchemesIgnoreOrder(t *testing.T) {
	t.Parallel()
	names := fleetNames(0, 20)
	reversed := slices.Clone(names)
	slices.Reverse(reversed)
	for _, s := range schemes {
		if s.name == nameSampled {
			continue
		}
		a, err := s.build(names)
		if err != nil {
			t.Fatal(err)
		}
		b, err := s.build(reversed)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 10_000 {
			if a.owner(i) != b.owner(i) {
				t.Errorf("%s: key %d belongs to %s, or to %s", s.name, i, a.owner(i), b.owner(i))
				break
			}
		}
	}
}

func TestChangeAt(t *testing.T) {
	t.Parallel()
	row, err := changeAt(10, 1)
	if err != nil {
		t.Fatal(err)
	}
	if row.Diff <= 0 || row.Rebalance != 1 {
		t.Errorf("got %+v, want some time and exactly the minimum", row)
	}
}

func TestParseMembersAndSections(t *testing.T) {
	if got, err := parseMembers("10,100"); err != nil || !slices.Equal(got, []int{10, 100}) {
		t.Errorf("members: %v, %v", got, err)
	}
	for _, list := range []string{"1", "x", "10,", "5001"} {
		if got, err := parseMembers(list); err == nil {
			t.Errorf("members %q: %v, want an error", list, got)
		}
	}
	if got, err := parseSections("ring,split"); err != nil || !got["ring"] || !got["split"] || got["gc"] {
		t.Errorf("sections: %v, %v", got, err)
	}
	for _, list := range []string{"", "rings"} {
		if got, err := parseSections(list); err == nil {
			t.Errorf("sections %q: %v, want an error", list, got)
		}
	}
}
