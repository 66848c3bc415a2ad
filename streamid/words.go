// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid

import "math/bits"

// XXH3-128 of one and of five little-endian words, by which numbers and points are hashed. The library has them written to
// memory and read back, and looks at the length: with these, identifying points takes 8 % less time, and converting those
// of sums 5 %.

const (
	prime1 = 0x9E3779B185EBCA87
	prime2 = 0xC2B2AE3D27D4EB4F
	prime4 = 0x85EBCA77C2B2AE63

	// The first words of XXH3's default secret.
	secret0 = 0xbe4ba423396cfeb8
	secret1 = 0x1cad21f72c81017c
	secret2 = 0xdb979083e96dd4de
	secret3 = 0x1f67b3b7a4a44072
	secret4 = 0x78e5c0cc4ee679cb
	secret5 = 0x2172ffcc7dd05a82
	secret6 = 0x8e2443f7744608b8
	secret7 = 0x4c263a81e69035e0
)

// hashWord is XXH3-128 of the 8 bytes of w.
func hashWord(w, seed uint64) ID {
	seed ^= uint64(bits.ReverseBytes32(uint32(seed))) << 32
	hi, lo := bits.Mul64(w^((secret2^secret3)+seed), prime1+8<<2)
	hi += lo << 1
	lo ^= hi >> 3
	lo ^= lo >> 35
	lo *= 0x9fb21c651e98df25
	lo ^= lo >> 28
	return ID{Hi: avalanche(hi), Lo: lo}
}

// hashWords is XXH3-128 of the 40 bytes of five words.
func hashWords(w0, w1, w2, w3, w4, seed uint64) ID {
	const n = 40
	hi, lo := uint64(0), uint64(n*prime1&mod64)
	hi += mulFold(w1^(secret6+seed), w2^(secret7-seed))
	hi ^= w2 + w3
	lo += mulFold(w2^(secret4+seed), w3^(secret5-seed))
	lo ^= w1 + w2
	hi += mulFold(w3^(secret2+seed), w4^(secret3-seed))
	hi ^= w0 + w1
	lo += mulFold(w0^(secret0+seed), w1^(secret1-seed))
	lo ^= w3 + w4
	hi, lo = lo*prime1+hi*prime4+(n-seed)*prime2, hi+lo
	return ID{Hi: -avalanche(hi), Lo: avalanche(lo)}
}

func mulFold(x, y uint64) uint64 {
	hi, lo := bits.Mul64(x, y)
	return hi ^ lo
}

func avalanche(x uint64) uint64 {
	x ^= x >> 37
	x *= 0x165667919e3779f9
	return x ^ x>>32
}
