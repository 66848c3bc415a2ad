// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// TestWordsHashAsTheirBytes holds both functions against the library.
func TestWordsHashAsTheirBytes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 3))
	edges := []uint64{0, 1, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 32, 1<<63 - 1, 1 << 63, 1<<64 - 1}
	word := func() uint64 {
		if r.IntN(3) == 0 {
			return edges[r.IntN(len(edges))]
		}
		return r.Uint64()
	}
	for range 100_000 {
		var w [5]uint64
		var bytes [40]byte
		for i := range w {
			w[i] = word()
			binary.LittleEndian.PutUint64(bytes[8*i:], w[i])
		}
		seed := word()
		if got, want := hashWord(w[0], seed), hashBytes(bytes[:8], seed); got != want {
			t.Fatalf("word %#x, seed %#x: %v, want %v", w[0], seed, got, want)
		}
		if got, want := hashWords(w[0], w[1], w[2], w[3], w[4], seed), hashBytes(bytes[:], seed); got != want {
			t.Fatalf("words %#x, seed %#x: %v, want %v", w, seed, got, want)
		}
	}
}
