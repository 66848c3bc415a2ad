// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ring

import "github.com/zeebo/xxh3"

const (
	golden = 0x9E3779B97F4A7C15 // 2^64 divided by the golden ratio
	rounds = 4
)

// ranking is how one member ranks the slots: a permutation of them that depends on nothing but the member's name. It is
// a Feistel network, because that can be asked both ways without a table: which slot is at this rank, and which rank has
// this slot.
type ranking struct {
	seed uint64
	keys [rounds]uint64
}

func newRanking(name string) ranking {
	r := ranking{seed: xxh3.HashString(name)}
	for i := range r.keys {
		r.keys[i] = mix(r.seed + uint64(i+1)*golden)
	}
	return r
}

// slot returns the slot at a rank. Rank 0 is the slot this member is fondest of.
func (r *ranking) slot(rank uint32, bits uint8) uint32 {
	low := (bits / 2) & 31
	leftMask, rightMask := uint32(1)<<((bits-low)&31)-1, uint32(1)<<low-1
	left, right := rank>>low, rank&rightMask
	left ^= scramble(right, r.keys[0]) & leftMask
	right ^= scramble(left, r.keys[1]) & rightMask
	left ^= scramble(right, r.keys[2]) & leftMask
	right ^= scramble(left, r.keys[3]) & rightMask
	return left<<low | right
}

// rank returns the rank of a slot; it undoes slot.
func (r *ranking) rank(slot uint32, bits uint8) uint32 {
	low := (bits / 2) & 31
	leftMask, rightMask := uint32(1)<<((bits-low)&31)-1, uint32(1)<<low-1
	left, right := slot>>low, slot&rightMask
	right ^= scramble(left, r.keys[3]) & rightMask
	left ^= scramble(right, r.keys[2]) & leftMask
	right ^= scramble(left, r.keys[1]) & rightMask
	left ^= scramble(right, r.keys[0]) & leftMask
	return left<<low | right
}

// tie decides between members to which a slot is worth the same: the lower value wins.
func (r *ranking) tie(slot uint32) uint64 {
	return mix(r.seed ^ mix(uint64(slot)+1))
}

// scramble is the round function of the Feistel network.
func scramble(half uint32, key uint64) uint32 {
	x := (uint64(half) ^ key) * 0xBF58476D1CE4E5B9
	x ^= x >> 32
	x *= 0x94D049BB133111EB
	return uint32(x >> 32)
}

// mix is the finalizer of SplitMix64 (David Stafford's variant 13).
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xBF58476D1CE4E5B9
	x ^= x >> 27
	x *= 0x94D049BB133111EB
	return x ^ x>>31
}
