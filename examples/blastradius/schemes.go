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

// plainRing is the consistent hash ring of contrib's load_balancing exporter, which has had 200 points on 131,071 positions
// since its pull request 49585, and 100 on 36,000 before. A point's position is the CRC-32 of the member's name and the
// point's number, modulo the positions. Points take their positions in the order of that hash, and the next free one if it
// is taken. A key belongs to the member of the first point at or after the key's own position. Weights it does not know.
// With more than 360 and 655 members there are more points than positions; which are left out is our choice, not contrib's.
func plainRing(points, positions int) func([]ring.Member) (func(uint64) int, error) {
	return func(members []ring.Member) (func(uint64) int, error) {
		type point struct {
			hash          uint32
			number, owner int
		}
		var all []point
		for owner, m := range members {
			for number := range points {
				hash := crc32.ChecksumIEEE(binary.LittleEndian.AppendUint32([]byte(m.Name), uint32(number)))
				all = append(all, point{hash, number, owner})
			}
		}
		slices.SortFunc(all, func(a, b point) int {
			return cmp.Or(cmp.Compare(a.hash, b.hash), a.number-b.number,
				strings.Compare(members[a.owner].Name, members[b.owner].Name))
		})
		ownerAt := make([]int, positions) // of the point there, or of the next
		free := newFreeList(positions)
		for _, p := range all[:min(len(all), positions)] {
			at := free.atOrAfter(int(p.hash % uint32(positions)))
			ownerAt[at] = p.owner
			free.take(at)
		}
		// Backwards, and twice round to know what comes after the last position.
		next := 0
		for i := 2*positions - 1; i >= 0; i-- {
			at := i % positions
			if free.isTaken(at) {
				next = ownerAt[at]
			}
			if i < positions {
				ownerAt[at] = next
			}
		}
		return func(key uint64) int {
			var bytes [8]byte
			binary.LittleEndian.PutUint64(bytes[:], key)
			return ownerAt[crc32.ChecksumIEEE(bytes[:])%uint32(positions)]
		}, nil
	}
}

// freeList finds free positions on a circle without walking along all that are taken: on a crowded one that would take
// minutes. It holds for each position itself if it is free, or else one that is nearer to the next free one.
type freeList []int

func newFreeList(positions int) freeList {
	f := make(freeList, positions)
	for i := range f {
		f[i] = i
	}
	return f
}

func (f freeList) isTaken(at int) bool { return f[at] != at }

// take takes a free position. The last one stays free as far as the list knows; nobody asks for another then.
func (f freeList) take(at int) { f[at] = (at + 1) % len(f) }

func (f freeList) atOrAfter(at int) int {
	for f[at] != at {
		f[at] = f[f[at]]
		at = f[at]
	}
	return at
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
