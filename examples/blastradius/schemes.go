// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"encoding/binary"
	"hash/crc32"
	"slices"
	"strings"

	"github.com/deltaring/deltaring/ring"
)

// scheme is a way to give every key an owner.
type scheme struct {
	Name string
	// Build returns the owner of a key as an index in members, of which there is at least one, each with a weight.
	Build func(members []ring.Member) (func(key uint64) int, error)
}

// schemes are those that are compared, ours first.
var schemes = []scheme{
	{"deltaring", deltaring},
	{"ring 100", plainRing(100, 36_000)},
	{"ring 200", plainRing(200, 131_071)},
	{"modulo", modulo},
}

func deltaring(members []ring.Member) (func(uint64) int, error) {
	r, err := ring.New(members)
	if err != nil {
		return nil, err
	}
	at := make(map[string]int, len(members))
	for i, m := range members {
		at[m.Name] = i
	}
	order := make([]int, len(members)) // the ring's to ours
	for i, m := range r.Members() {
		order[i] = at[m.Name]
	}
	return func(key uint64) int { return order[r.Owner(key)] }, nil
}

// probes is how many positions a point of a plain ring tries, its own first.
const probes = 10

// plainRing is the consistent hash ring of contrib's load_balancing exporter v0.160.0, which has 200 points on 131,071
// positions; it had 100 on 36,000 before its pull request 49585. A point belongs at the CRC-32 of the member's name and the
// point's number, modulo the positions. In the order of positions, then of hashes, points take theirs or one of the nine
// after it, or are left out if all are taken. A key belongs to the member of the first point at or after the key's own
// position. Weights it does not know.
func plainRing(points, positions int) func([]ring.Member) (func(uint64) int, error) {
	return func(members []ring.Member) (func(uint64) int, error) {
		type point struct {
			hash     uint32
			position int
			owner    int
		}
		var all []point
		for owner, m := range members {
			for number := range uint32(points) {
				hash := crc32.ChecksumIEEE(binary.LittleEndian.AppendUint32([]byte(m.Name), number))
				all = append(all, point{hash, int(hash % uint32(positions)), owner})
			}
		}
		slices.SortFunc(all, func(a, b point) int {
			return cmp.Or(a.position-b.position, cmp.Compare(a.hash, b.hash),
				strings.Compare(members[a.owner].Name, members[b.owner].Name))
		})
		ownerAt := slices.Repeat([]int{-1}, positions) // of the point there, then of the next as well
		for _, p := range all {
			for probe := range probes {
				if at := (p.position + probe) % positions; ownerAt[at] < 0 {
					ownerAt[at] = p.owner
					break
				}
			}
		}
		// Backwards, and twice round to know what comes after the last position.
		next := -1
		for i := 2*positions - 1; i >= 0; i-- {
			at := i % positions
			if ownerAt[at] < 0 {
				ownerAt[at] = next
			}
			next = ownerAt[at]
		}
		return func(key uint64) int {
			var bytes [8]byte
			binary.LittleEndian.PutUint64(bytes[:], key)
			return ownerAt[crc32.ChecksumIEEE(bytes[:])%uint32(positions)]
		}, nil
	}
}

// modulo numbers members by name. Weights it does not know.
func modulo(members []ring.Member) (func(uint64) int, error) {
	byName := make([]int, len(members))
	for i := range byName {
		byName[i] = i
	}
	slices.SortFunc(byName, func(a, b int) int { return strings.Compare(members[a].Name, members[b].Name) })
	n := uint64(len(members))
	return func(key uint64) int { return byName[key%n] }, nil
}
