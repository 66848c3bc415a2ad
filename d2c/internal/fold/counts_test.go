// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package fold

import (
	"math"
	"slices"
	"testing"
)

// Counts are added four at a time, and asked together whether one has wrapped: as if one by one, of every length, whatever is
// large and wherever it is.
func TestCountsAreAddedAsIfOneByOne(t *testing.T) {
	for n := range 14 {
		for at := range max(n, 1) {
			for _, have := range []uint32{0, 1, math.MaxUint32} {
				for _, large := range []uint64{0, 1<<63 - 1, 1 << 63, math.MaxUint64 - math.MaxUint32, math.MaxUint64} {
					narrow, delta := make([]uint32, n), make([]uint64, n)
					for i := range n {
						narrow[i], delta[i] = uint32(i), uint64(3*i)
					}
					if n > 0 {
						narrow[at], delta[at] = have, large
					}
					want, fit := make([]uint64, n), true
					for i, d := range delta {
						want[i] = uint64(narrow[i]) + d
						fit = fit && want[i] >= d
					}
					wide := make([]uint64, n)
					unpackNarrow(wide, narrow)
					got := make([]uint64, n)
					for what, x := range map[string]struct {
						counts []uint64
						narrow []uint32
					}{"narrow": {got, narrow}, "wide": {wide, nil}} {
						print, fits := addCounts(x.counts, x.narrow, delta)
						if fits != fit || print != printCounts(delta) || !slices.Equal(x.counts, want) {
							t.Fatalf("%s: %v and %v are %v, %v; want %v, %v", what, narrow, delta, x.counts, fits, want, fit)
						}
					}
				}
			}
		}
	}
}
