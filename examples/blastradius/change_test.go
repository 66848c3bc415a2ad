// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/deltaring/deltaring/ring"
)

// schemeAt returns the number of a scheme.
func schemeAt(t *testing.T, name string) int {
	t.Helper()
	i := slices.IndexFunc(schemes, func(s scheme) bool { return s.Name == name })
	if i < 0 {
		t.Fatalf("no scheme %s", name)
	}
	return i
}

// sixKeys is a population with keys 0 to 5, with 1 stream and 10 points, 2 and 20, 3 and 30 and so on.
func sixKeys() *population {
	p := &population{Streams: 21, Points: 210, ByKey: make([]grouping, 1)}
	for key := range 6 {
		p.ByKey[0].Groups = append(p.ByKey[0].Groups, group{Key: uint64(key), Streams: key + 1, Points: 10 * (key + 1)})
	}
	return p
}

// Keys 0 to 5 by modulo belong to a b a b a b, and with c to a b c a b c: 2, 3, 4 and 5 move, with 3+4+5+6 streams. After
// that c has 3+6 streams of 21, where 7 would be its share.
func TestChangeByHand(t *testing.T) {
	c, err := newChange(sixKeys(), ring.Equal("a", "b"), ring.Equal("c", "a", "b"))
	if err != nil {
		t.Fatal(err)
	}
	hot := hottest{"c", 9. / 7}
	want := moved{Streams: 18, Points: 180, HotStreams: hot, HotPoints: hot}
	if got := c.ByKey[0][schemeAt(t, "modulo")]; got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// Of 40, a has 10 and b 30. With weights 1 and 1 that makes b the hottest, with 1 and 4 it is a.
func TestHottestCountsByShare(t *testing.T) {
	for _, tc := range []struct {
		weight uint32
		want   hottest
	}{{1, hottest{"b", 1.5}}, {4, hottest{"a", 1.25}}} {
		members := []ring.Member{{Name: "a", Weight: 1}, {Name: "b", Weight: tc.weight}}
		if got := hottestOf(members, []int{10, 30}); got != tc.want {
			t.Errorf("weight %d: got %+v, want %+v", tc.weight, got, tc.want)
		}
	}
}

func TestDeltaringIsTheRing(t *testing.T) {
	members := []ring.Member{{Name: "c", Weight: 2}, {Name: "a", Weight: 1}, {Name: "b", Weight: 5}}
	r, err := ring.New(members)
	if err != nil {
		t.Fatal(err)
	}
	owners, err := ownersOf(schemes[0], append(members, ring.Member{Name: "0-draining"}))
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		key := rng.Uint64()
		if got, want := owners.name(key), r.Members()[r.Owner(key)].Name; got != want {
			t.Fatalf("key %#x: got %s, want %s", key, got, want)
		}
	}
}

// The plain ring beside one that is slow and obvious, from crowded to sparse.
func TestPlainRing(t *testing.T) {
	for _, tc := range []struct{ members, points, positions int }{
		{1, 1, 7}, {3, 2, 7}, {4, 2, 7}, {9, 5, 31}, {3, 100, 36_000}, {40, 100, 36_000}, {400, 100, 36_000},
	} {
		members := numbered(tc.members)
		owner, err := plainRing(tc.points, tc.positions)(members)
		if err != nil {
			t.Fatal(err)
		}
		var wishes []string // position, hash and name, such that they sort
		for _, m := range members {
			for i := range tc.points {
				hash := crc32.ChecksumIEEE([]byte(m.Name + string([]byte{byte(i), 0, 0, 0})))
				wishes = append(wishes, fmt.Sprintf("%06d %010d %s", hash%uint32(tc.positions), hash, m.Name))
			}
		}
		slices.Sort(wishes)
		at := make(map[int]string)
		for _, wish := range wishes {
			var position, hash int
			var name string
			if _, err := fmt.Sscanf(wish, "%d %d %s", &position, &hash, &name); err != nil {
				t.Fatal(err)
			}
			for i := range 10 {
				if next := (position + i) % tc.positions; at[next] == "" {
					at[next] = name
					break
				}
			}
		}
		for key := range uint64(2000) {
			position := int(crc32.ChecksumIEEE(binary.LittleEndian.AppendUint64(nil, key)) % uint32(tc.positions))
			for at[position] == "" {
				position = (position + 1) % tc.positions
			}
			if got := members[owner(key)].Name; got != at[position] {
				t.Fatalf("%+v: key %d: got %s, want %s", tc, key, got, at[position])
			}
		}
	}
}

// By modulo, keys 0, 2, 4 are of a and 1, 3, 5 of b: 1+3+5 = 9 and 2+4+6 = 12 streams. One at a time, those of whoever
// stops go away and come back.
func TestRollByHand(t *testing.T) {
	for _, tc := range []struct {
		name   string
		bounds rollout
		kept   bool
		want   rolled
	}{
		{"one at a time, names kept", rollout{2, 1, 2}, true, rolled{
			Streams: []int{9, 9, 12, 12}, Points: []int{90, 90, 120, 120}, Once: 21, Twice: 21, Back: 21}},
		{"one at a time, names changed", rollout{2, 1, 2}, false, rolled{
			Streams: []int{9, 9, 12, 12}, Points: []int{90, 90, 120, 120}, Once: 21, Twice: 21}},
		// Keys 0 to 5 go from a b a b a b to a a.new b b.new a a.new, where all but 0 and 4 move, with 2+3+4+6 streams, and
		// on to a.new b.new a.new b.new a.new b.new, where all but 3 move, with 1+2+3+5+6. 1, 2 and 5 move both times.
		{"all new ones first", rollout{2, 2, 4}, false, rolled{
			Streams: []int{15, 17}, Points: []int{150, 170}, Once: 21, Twice: 11}},
		{"all at once", rollout{2, 0, 2}, true, rolled{
			Streams: []int{0, 0}, Points: []int{0, 0}, Back: 21, Idle: 1}},
	} {
		r, err := newRoll(sixKeys(), ring.Equal("a", "b"), tc.bounds, tc.kept)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.ByKey[0][schemeAt(t, "modulo")]; fmt.Sprint(got) != fmt.Sprint(tc.want) {
			t.Errorf("%s: got %+v, want %+v", tc.name, got, tc.want)
		}
	}
}
