// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/zeebo/xxh3"
)

func marshal(t testing.TB, r *Ring) []byte {
	t.Helper()
	data, err := r.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// checkBinary demands that nothing is lost.
func checkBinary(t testing.TB, r *Ring) {
	t.Helper()
	data := marshal(t, r)
	var got Ring
	if err := got.UnmarshalBinary(data); err != nil {
		t.Fatal(err)
	}
	if got.Epoch() != r.Epoch() || got.config != r.config ||
		!slices.Equal(got.Members(), r.Members()) || !slices.Equal(got.owners, r.owners) {
		t.Fatalf("got %v, want %v", got.Members(), r.Members())
	}
	var a, b [4]int
	for i := range uint64(20) {
		key := i * golden
		if !slices.Equal(got.Owners(key, a[:]), r.Owners(key, b[:])) {
			t.Fatalf("key %x: got owners %v, want %v", key, a, b)
		}
	}
	if !bytes.Equal(marshal(t, &got), data) {
		t.Fatal("written again it is different")
	}
}

func TestBinaryAppends(t *testing.T) {
	r := mustNew(t, fleet("worker", 3), WithSlots(1024))
	data, _ := r.AppendBinary([]byte("before"))
	if !bytes.Equal(data, append([]byte("before"), marshal(t, r)...)) {
		t.Error("not what AppendBinary(nil) returns")
	}
}

// sum puts the right checksum at the end of data, as nobody would who has not meant to.
func sum(body []byte) []byte {
	return binary.LittleEndian.AppendUint64(slices.Clone(body), xxh3.Hash(body))
}

func TestUnmarshalDamagedBytes(t *testing.T) {
	r := mustNew(t, []Member{{"alpha", 1, "x"}, {"beta", 2, ""}, {"gamma", 0, "z"}}, WithSlots(1024))
	good := marshal(t, r)
	body := good[:len(good)-8]
	reject := func(what string, data []byte, want error) {
		t.Helper()
		got := mustNew(t, Equal("untouched"), WithSlots(1024))
		epoch := got.Epoch()
		if err := got.UnmarshalBinary(data); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", what, err, want)
		}
		if got.Epoch() != epoch || got.Members()[0].Name != "untouched" {
			t.Errorf("%s: the ring has changed", what)
		}
	}
	for n := range good {
		reject("truncated", good[:n], ErrDamaged)
		bad := slices.Clone(good)
		bad[n] ^= 0x10
		if n == len(magic) {
			continue // the version
		}
		reject("flipped bit", bad, ErrDamaged)
	}
	reject("trailing byte", append(slices.Clone(good), 0), ErrDamaged)
	reject("foreign", []byte(`{"members":["a","b"]}, and so on and so forth`), ErrDamaged)

	patch := func(at int, bytes ...byte) []byte {
		b := slices.Clone(body)
		copy(b[at:], bytes)
		return sum(b)
	}
	reject("newer", patch(4, 2), ErrVersion)
	reject("newer and shorter", patch(4, 2)[:6], ErrVersion)
	reject("version 0", patch(4, 0), ErrDamaged)
	reject("too few slots", patch(5, 3), ErrDamaged)
	reject("no slots to speak of", patch(5, 0), ErrDamaged)
	reject("few slots for so many bytes", patch(5, 4), ErrDamaged)
	reject("too many slots", patch(5, 23), ErrDamaged)
	reject("absurd slots", patch(5, 255), ErrDamaged)
	reject("more slots than bytes", patch(5, 22), ErrDamaged)
	reject("fewer slots than bytes", sum(append(slices.Clone(body), 0, 0)), ErrDamaged)
	reject("balance", patch(6, 255, 255, 255, 255), ErrDamaged)
	reject("no members", patch(10, 0, 0, 0, 0), ErrDamaged)
	reject("absurd number of members", patch(10, 255, 255, 255, 255), ErrDamaged)
	reject("too many members", patch(10, 0, 4, 0, 0), ErrDamaged)
	reject("a member more", patch(10, 4, 0, 0, 0), ErrDamaged)
	reject("a member less", patch(10, 2, 0, 0, 0), ErrDamaged)
	reject("name beyond the end", patch(14, 255, 255), ErrDamaged)
	reject("zone beyond the end", patch(16, 255, 255), ErrDamaged)
	reject("names out of order", patch(14+memberSize, 'z'), ErrDamaged)
	table := len(body) - 2*1024
	reject("owner that does not exist", patch(table, 3, 0), ErrDamaged)
	reject("owner that is draining", patch(table+2*1023, 2, 0), ErrDamaged)
	reject("all draining", sum(bytes.Replace(bytes.Replace(body, []byte{1, 0, 0, 0, 'a'}, []byte{0, 0, 0, 0, 'a'}, 1),
		[]byte{2, 0, 0, 0, 'b'}, []byte{0, 0, 0, 0, 'b'}, 1)), ErrDamaged)

	if err := new(Ring).UnmarshalBinary(sum(body)); err != nil {
		t.Errorf("the helper itself is wrong: %v", err)
	}
}
