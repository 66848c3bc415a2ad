// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
)

// FuzzUnmarshalBinary also puts the right checksum to what it is given, so that it gets beyond it.
func FuzzUnmarshalBinary(f *testing.F) {
	mixed := []Member{{"alpha", 1, "x"}, {"beta", 1<<32 - 1, ""}, {"gamma", 0, "z"}}
	for _, members := range [][]Member{Equal("a"), mixed, fleet("worker", 50)} {
		data := marshal(f, mustNew(f, members, WithSlots(1024)))
		f.Add(data)
		f.Add(data[:len(data)-8])
		f.Add(data[:headerSize])
	}
	f.Add(marshal(f, mustNew(f, mixed, WithSlots(16))))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, data := range [][]byte{data, sum(data)} {
			var r Ring
			if err := r.UnmarshalBinary(data); err != nil {
				continue
			}
			checkForm(t, &r)
			checkOwners(t, &r)
			if !bytes.Equal(marshal(t, &r), data) {
				t.Fatal("written again it is different")
			}
		}
	})
}

// FuzzNew makes a fleet of the bytes, two for each member, then another one with a member changed, and checks all there
// is.
func FuzzNew(f *testing.F) {
	f.Add([]byte{1, 0}, uint8(0), uint8(0), uint8(10))
	f.Add([]byte{1, 0, 1, 1, 1, 2, 1, 0}, uint8(10), uint8(1), uint8(4))
	f.Add([]byte{1, 0, 200, 1, 255, 2, 0, 0, 254, 0}, uint8(0), uint8(4), uint8(5))
	f.Add(bytes.Repeat([]byte{1, 0}, 64), uint8(10), uint8(77), uint8(6))
	f.Add(bytes.Repeat([]byte{1, 0, 255, 1, 9, 3}, 20), uint8(1), uint8(5), uint8(10))
	f.Fuzz(func(t *testing.T, data []byte, percent, changed, bits uint8) {
		slots := WithSlots(1 << (minBits + bits%7))
		members := make([]Member, 0, len(data)/2)
		for i := 0; i+1 < len(data) && i < 128; i += 2 {
			// Weights 0 to 127, then the powers of two, then the largest.
			weight := uint32(data[i])
			if weight > 127 {
				weight = 1 << ((weight - 128) / 4)
			}
			if data[i] == 255 {
				weight = 1<<32 - 1
			}
			zone := string([]byte{'z', data[i+1]})
			members = append(members, Member{Name: string([]byte{byte(i), byte(i >> 8), data[i+1]}), Weight: weight, Zone: zone})
		}
		if n := weighty(members); n == 0 || n > 1<<(minBits+bits%7) {
			if _, err := New(members, slots); err == nil {
				t.Fatal("want an error")
			}
			return
		}
		balance := WithBalance(float64(percent%101) / 100)
		r := mustNew(t, members, slots, balance)
		check(t, r)
		if len(members) <= 40 {
			checkReferences(t, r)
		}
		checkOwners(t, r)
		checkBinary(t, r)
		exact := mustRebalance(t, r, members)
		checkRebalanced(t, r, exact)

		next := randomChange(rand.New(rand.NewPCG(uint64(changed), 0)), slices.Clone(members), int(changed))
		if weighty(next) > r.Slots() {
			return
		}
		other := mustNew(t, next, slots, balance)
		check(t, other)
		checkPlan(t, r, other)
		after := mustRebalance(t, exact, next)
		checkRebalanced(t, exact, after)
		if ratio := Diff(exact, after).Ratio(); ratio != 1 {
			t.Fatalf("ratio %v", ratio)
		}
	})
}
