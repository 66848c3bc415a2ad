// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid

import (
	"github.com/zeebo/xxh3"
	"go.opentelemetry.io/collector/pdata/pcommon"
)

// hashString is XXH3-128 of the bytes of s.
func hashString(s string, seed uint64) ID { return ID(xxh3.HashString128Seed(s, seed)) }

// hashBytes is XXH3-128 of b.
func hashBytes(b []byte, seed uint64) ID { return ID(xxh3.Hash128Seed(b, seed)) }

// chunk is how much of a byte slice is copied out at a time: one block of XXH3.
const chunk = 1024

// hashByteSlice is XXH3-128 of the bytes of b, which pdata gives out one by one or as a copy of them all. Beyond one chunk
// it allocates 192 bytes, however long b is: the streaming form keeps its seeded secret there.
func hashByteSlice(b pcommon.ByteSlice, seed uint64) ID {
	if b.Len() > chunk {
		return hashLongByteSlice(b, seed)
	}
	var buf [chunk]byte
	return hashBytes(buf[:copyOut(buf[:], b, 0)], seed)
}

func hashLongByteSlice(b pcommon.ByteSlice, seed uint64) ID {
	var buf [chunk]byte
	var h xxh3.Hasher128
	h.ResetSeed(seed)
	for from := 0; from < b.Len(); from += chunk {
		_, _ = h.Write(buf[:copyOut(buf[:], b, from)]) // never fails
	}
	return ID(h.Sum128())
}

// copyOut copies bytes of src into dst, beginning at from, and returns how many.
func copyOut(dst []byte, src pcommon.ByteSlice, from int) int {
	n := min(len(dst), src.Len()-from)
	for i := range n {
		dst[i] = src.At(from + i)
	}
	return n
}
