// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid_test

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"testing"

	"github.com/zeebo/xxh3"

	"github.com/deltaring/deltaring/streamid"
)

// TestXXH3LibraryFollowsTheAlgorithm holds the library, with whatever vector instructions this machine has, against the
// plain implementation below: IDs must not depend on either.
func TestXXH3LibraryFollowsTheAlgorithm(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 3*1024+2)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	for n := range len(data) {
		for _, seed := range []uint64{0, 1, 1 << 63, r.Uint64()} {
			want := h128(data[:n], seed)
			if got := streamid.ID(xxh3.Hash128Seed(data[:n], seed)); got != want {
				t.Fatalf("%d bytes, seed %#x: library %v, algorithm %v", n, seed, got, want)
			}
		}
	}
}

// xxh3Secret is the default secret of XXH3.
var xxh3Secret = []byte("" +
	"\xb8\xfe\x6c\x39\x23\xa4\x4b\xbe\x7c\x01\x81\x2c\xf7\x21\xad\x1c\xde\xd4\x6d\xe9\x83\x90\x97\xdb\x72\x40\xa4\xa4\xb7\xb3\x67\x1f" +
	"\xcb\x79\xe6\x4e\xcc\xc0\xe5\x78\x82\x5a\xd0\x7d\xcc\xff\x72\x21\xb8\x08\x46\x74\xf7\x43\x24\x8e\xe0\x35\x90\xe6\x81\x3a\x26\x4c" +
	"\x3c\x28\x52\xbb\x91\xc3\x00\xcb\x88\xd0\x65\x8b\x1b\x53\x2e\xa3\x71\x64\x48\x97\xa2\x0d\xf9\x4e\x38\x19\xef\x46\xa9\xde\xac\xd8" +
	"\xa8\xfa\x76\x3f\xe3\x9c\x34\x3f\xf9\xdc\xbb\xc7\xc7\x0b\x4f\x1d\x8a\x51\xe0\x4b\xcd\xb4\x59\x31\xc8\x9f\x7e\xc9\xd9\x78\x73\x64" +
	"\xea\xc5\xac\x83\x34\xd3\xeb\xc3\xc5\x81\xa0\xff\xfa\x13\x63\xeb\x17\x0d\xdd\x51\xb7\xf0\xda\x49\xd3\x16\x55\x26\x29\xd4\x68\x9e" +
	"\x2b\x16\xbe\x58\x7d\x47\xa1\xfc\x8f\xf8\xb8\xd1\x7a\xd0\x31\xce\x45\xcb\x3a\x8f\x95\x16\x04\x28\xaf\xd7\xfb\xca\xbb\x4b\x40\x7e")

const (
	prime32x1 = 0x9E3779B1
	prime32x2 = 0x85EBCA77
	prime32x3 = 0xC2B2AE3D
	prime64x1 = 0x9E3779B185EBCA87
	prime64x2 = 0xC2B2AE3D27D4EB4F
	prime64x3 = 0x165667B19E3779F9
	prime64x4 = 0x85EBCA77C2B2AE63
	prime64x5 = 0x27D4EB2F165667C5
)

// h128 is XXH3-128 with a 64-bit seed and the default secret, written down from the specification of the algorithm
// (https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md) and not from the library.
func h128(in []byte, seed uint64) streamid.ID {
	n := len(in)
	length := uint64(n)
	switch {
	case n == 0:
		return streamid.ID{
			Hi: xxh64Avalanche(seed ^ sec64(80) ^ sec64(88)),
			Lo: xxh64Avalanche(seed ^ sec64(64) ^ sec64(72)),
		}
	case n <= 3:
		c1, c2, c3 := uint32(in[0]), uint32(in[n>>1]), uint32(in[n-1])
		lo := c1<<16 | c2<<24 | c3 | uint32(n)<<8
		hi := bits.RotateLeft32(bits.ReverseBytes32(lo), 13)
		return streamid.ID{
			Hi: xxh64Avalanche(uint64(hi) ^ (uint64(sec32(8)^sec32(12)) - seed)),
			Lo: xxh64Avalanche(uint64(lo) ^ (uint64(sec32(0)^sec32(4)) + seed)),
		}
	case n <= 8:
		seed ^= uint64(bits.ReverseBytes32(uint32(seed))) << 32
		in64 := uint64(le32(in, 0)) + uint64(le32(in, n-4))<<32
		keyed := in64 ^ ((sec64(16) ^ sec64(24)) + seed)
		hi, lo := bits.Mul64(keyed, prime64x1+length<<2)
		hi += lo << 1
		lo ^= hi >> 3
		lo ^= lo >> 35
		lo *= 0x9FB21C651E98DF25
		lo ^= lo >> 28
		return streamid.ID{Hi: xxh3Avalanche(hi), Lo: lo}
	case n <= 16:
		inLo, inHi := le64(in, 0), le64(in, n-8)
		mHi, mLo := bits.Mul64(inLo^inHi^((sec64(32)^sec64(40))-seed), prime64x1)
		mLo += (length - 1) << 54
		inHi ^= (sec64(48) ^ sec64(56)) + seed
		mHi += inHi + uint64(uint32(inHi))*(prime32x2-1)
		mLo ^= bits.ReverseBytes64(mHi)
		hi, lo := bits.Mul64(mLo, prime64x2)
		hi += mHi * prime64x2
		return streamid.ID{Hi: xxh3Avalanche(hi), Lo: xxh3Avalanche(lo)}
	case n <= 240:
		return h128Mid(in, seed)
	}
	return h128Long(in, seed)
}

func h128Mid(in []byte, seed uint64) streamid.ID {
	n := len(in)
	acc := streamid.ID{Lo: uint64(n) * prime64x1}
	if n <= 128 {
		for i := (n - 1) / 32; i >= 0; i-- {
			acc = mix32(acc, in, 16*i, n-16*(i+1), 32*i, seed)
		}
	} else {
		for i := 0; i < 128; i += 32 {
			acc = mix32(acc, in, i, i+16, i, seed)
		}
		acc.Lo, acc.Hi = xxh3Avalanche(acc.Lo), xxh3Avalanche(acc.Hi)
		for i := 160; i <= n; i += 32 {
			acc = mix32(acc, in, i-32, i-16, 3+i-160, seed)
		}
		acc = mix32(acc, in, n-16, n-32, 103, -seed)
	}
	return streamid.ID{
		Hi: -xxh3Avalanche(acc.Lo*prime64x1 + acc.Hi*prime64x4 + (uint64(n)-seed)*prime64x2),
		Lo: xxh3Avalanche(acc.Lo + acc.Hi),
	}
}

func h128Long(in []byte, seed uint64) streamid.ID {
	var secret [192]byte
	for i := 0; i < 192; i += 16 {
		binary.LittleEndian.PutUint64(secret[i:], sec64(i)+seed)
		binary.LittleEndian.PutUint64(secret[i+8:], sec64(i+8)-seed)
	}
	acc := [8]uint64{prime32x3, prime64x1, prime64x2, prime64x3, prime64x4, prime32x2, prime64x5, prime32x1}
	stripe := func(at, key int) {
		for i := range acc {
			v := le64(in, at+8*i)
			k := v ^ le64(secret[:], key+8*i)
			acc[i^1] += v
			acc[i] += (k & 0xFFFFFFFF) * (k >> 32)
		}
	}
	n := len(in)
	for s := 0; s < (n-1)/64; s++ {
		stripe(64*s, 8*(s%16))
		if s%16 == 15 {
			for i := range acc {
				acc[i] = (acc[i] ^ acc[i]>>47 ^ le64(secret[:], 128+8*i)) * prime32x1
			}
		}
	}
	stripe(n-64, 121)
	merge := func(key int, sum uint64) uint64 {
		for i := 0; i < 8; i += 2 {
			sum += mulFold(acc[i]^le64(secret[:], key+8*i), acc[i+1]^le64(secret[:], key+8*i+8))
		}
		return xxh3Avalanche(sum)
	}
	return streamid.ID{Hi: merge(117, ^(uint64(n) * prime64x2)), Lo: merge(11, uint64(n)*prime64x1)}
}

func mix32(acc streamid.ID, in []byte, a, b, key int, seed uint64) streamid.ID {
	acc.Lo += mix16(in, a, key, seed)
	acc.Lo ^= le64(in, b) + le64(in, b+8)
	acc.Hi += mix16(in, b, key+16, seed)
	acc.Hi ^= le64(in, a) + le64(in, a+8)
	return acc
}

func mix16(in []byte, at, key int, seed uint64) uint64 {
	return mulFold(le64(in, at)^(sec64(key)+seed), le64(in, at+8)^(sec64(key+8)-seed))
}

func mulFold(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

func xxh3Avalanche(x uint64) uint64 {
	x ^= x >> 37
	x *= 0x165667919E3779F9
	return x ^ x>>32
}

func xxh64Avalanche(x uint64) uint64 {
	x ^= x >> 33
	x *= prime64x2
	x ^= x >> 29
	x *= prime64x3
	return x ^ x>>32
}

func le32(in []byte, at int) uint32 {
	return uint32(in[at]) | uint32(in[at+1])<<8 | uint32(in[at+2])<<16 | uint32(in[at+3])<<24
}

func le64(in []byte, at int) uint64 {
	return uint64(le32(in, at)) | uint64(le32(in, at+4))<<32
}

func sec32(at int) uint32 { return le32(xxh3Secret, at) }
func sec64(at int) uint64 { return le64(xxh3Secret, at) }
