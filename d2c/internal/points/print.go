// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package points

import (
	"math"
	"math/bits"

	"github.com/deltaring/deltaring/d2c/internal/fold"
)

// The fingerprint of a delta: equal for a delta that comes again, on any machine, because it is stored. What is multiplied are
// random numbers, so that small ones do not come to zero. It is no defence against those who choose what they send: they
// can do no more than have a delta of their own taken for another of their own.
const (
	print0 = 0xa0761d6478bd642f
	print1 = 0xe7037ed1a0b428db
	print2 = 0x8ebc6af09c88c6e3
	print3 = 0x589965cc75374cc3
)

func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

func printInterval(p fold.Interval) uint64 {
	return mix(uint64(p.Start)^print0, uint64(p.Time)^print1)
}

// printNumber goes on for a number.
func printNumber(h, value uint64, double bool) uint64 {
	k := uint64(print2)
	if double {
		k = print3
	}
	return mix(h^value, k)
}

func printDistribution(h uint64, d *fold.Distribution) uint64 {
	return mix(h^d.Count, math.Float64bits(d.Sum)^print2) ^
		mix(math.Float64bits(d.Min)^print0, math.Float64bits(d.Max)^uint64(d.Has)^print1)
}

// printCounts adds up what does not wait for each other.
func printCounts(h uint64, counts []uint64) uint64 {
	sum, k := uint64(len(counts)), uint64(print3)
	for ; len(counts) >= 2; counts = counts[2:] {
		sum += mix(counts[0]^k, counts[1]^print0)
		k += print1
	}
	if len(counts) > 0 {
		sum += mix(counts[0]^k, print0)
	}
	return mix(h^sum, print2)
}

func printHistogram(h uint64, v *fold.Histogram) uint64 {
	sum, k := uint64(0), uint64(print2)
	for _, bound := range v.Bounds {
		sum += (math.Float64bits(bound) ^ k) * print0
		k += print1
	}
	return printCounts(printDistribution(h^sum, &v.Distribution), v.Counts)
}

func printExponential(h uint64, v *fold.Exponential) uint64 {
	h = printDistribution(h, &v.Distribution)
	h = mix(h^v.ZeroCount, math.Float64bits(v.ZeroThreshold)^uint64(v.Scale)^print3)
	for i := range v.Ranges {
		h = printCounts(h^uint64(v.Ranges[i].Offset), v.Ranges[i].Counts)
	}
	return h
}
