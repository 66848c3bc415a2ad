// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"math/bits"
	"sync"
)

const (
	costBits  = 48 // bits after the binary point of a cost
	tableBits = 10
)

// costTable holds 1 - log2(1 + i/1024) for i = 0 to 1024.
type costTable [1<<tableBits + 1]uint64

// costs is shared by all rings. It takes some fifty microseconds to make, so importing the package does not make it.
var costs = sync.OnceValue(func() *costTable {
	var t costTable
	for i := range t {
		t[i] = 1<<costBits - log2(1<<63+uint64(i)<<(63-tableBits))
	}
	return &t
})

// log2 returns the binary logarithm of x / 2^63, which is in [1, 2), a bit at a time: squaring a number doubles its
// logarithm. The end of the table, 2, arrives as 0.
func log2(x uint64) uint64 {
	if x == 0 {
		return 1 << costBits
	}
	var sum uint64
	for range costBits {
		x, _ = bits.Mul64(x, x) // now x / 2^62, in [1, 4)
		sum <<= 1
		if x >= 1<<63 {
			sum |= 1
		} else {
			x <<= 1
		}
	}
	return sum
}

// at returns what the slot at a rank costs a member of weight 1: -log2(1 - (rank + 1/2) / slots). Ranks being uniform,
// these are exponentially distributed, and of exponential variables divided by weights each is the least as often as its
// weight says. A cost rises strictly with the rank and is below 2^53. No float is involved, so it is the same everywhere.
func (t *costTable) at(rank uint32, logSlots uint8) uint64 {
	x := uint64(2)<<logSlots - 2*uint64(rank) - 1
	zeros := bits.LeadingZeros64(x)
	whole := uint64(int(logSlots) + zeros - 63)
	x <<= zeros + 1 // drop the leading one: what is left is the fraction
	i := x >> (64 - tableBits)
	part, _ := bits.Mul64(t[i]-t[i+1], ^(x << tableBits))
	return whole<<costBits + t[i+1] + part
}

// compareProducts compares a*b with c*d.
func compareProducts(a, b, c, d uint64) int {
	high1, low1 := bits.Mul64(a, b)
	high2, low2 := bits.Mul64(c, d)
	switch {
	case high1 < high2 || high1 == high2 && low1 < low2:
		return -1
	case high1 == high2 && low1 == low2:
		return 0
	}
	return 1
}
