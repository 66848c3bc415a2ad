// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package points

import (
	"math"
	"math/bits"

	"github.com/deltaring/deltaring/d2c/internal/fold"
	"github.com/deltaring/deltaring/d2c/internal/table"
)

// The fingerprint of a delta: equal for a delta that comes again, on any machine, because it is stored. It is a sum of products
// with random odd numbers, that do not wait for each other, mixed in the end. It is no defence against those who choose what they
// send: they can do no more than have a delta of their own taken for another of their own.
const (
	print0 = 0xa0761d6478bd642f
	print1 = 0xe7037ed1a0b428db
	print2 = 0x8ebc6af09c88c6e3
	print3 = 0x589965cc75374cc3
	print4 = 0x1d8e4e27c47d124f
	print5 = 0xeb44accab455d165
	print6 = 0x9c6e6877736c46e3

	printStep = 0x9e3779b97f4a7c16 // even: what is odd stays so
)

func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

// print is the fingerprint of an item that is not told apart from others.
func (b *Batch) print(it *Item) uint64 {
	h := printInterval(it.Interval)
	switch it.Kind {
	case table.KindSum:
		return printNumber(h, it.Value, it.Double)
	case table.KindHistogram:
		return printHistogram(h+it.Value>>32, &b.histograms[it.point].value) // of a summary the quantiles, else zero
	default:
		return printExponential(h, &b.exponentials[it.point].value)
	}
}

func printInterval(p fold.Interval) uint64 { return uint64(p.Start)*print0 + uint64(p.Time)*print1 }

// printNumber goes on for a number.
func printNumber(h, value uint64, double bool) uint64 {
	h += value * print2
	if double {
		h = ^h
	}
	return mix(h, print3)
}

func printDistribution(h uint64, d *fold.Distribution) uint64 {
	return h + d.Count*print2 + math.Float64bits(d.Sum)*print3 + math.Float64bits(d.Min)*print4 + math.Float64bits(d.Max)*print5 +
		uint64(d.Has)
}

func printCounts(h, k uint64, counts []uint64) uint64 {
	for _, c := range counts {
		h += c * k
		k += printStep
	}
	return h + uint64(len(counts))*print6
}

func printHistogram(h uint64, v *fold.Histogram) uint64 {
	h = printCounts(printDistribution(h, &v.Distribution), print6, v.Counts)
	// Of the bounds some will do: with others, the same numbers in the same interval do not come by chance.
	if n := len(v.Bounds); n > 0 {
		h += math.Float64bits(v.Bounds[0])*print0 + math.Float64bits(v.Bounds[n-1])*print1
	}
	return mix(h, print3)
}

func printExponential(h uint64, v *fold.Exponential) uint64 {
	h = printDistribution(h, &v.Distribution)
	h = mix(h+v.ZeroCount*print6+math.Float64bits(v.ZeroThreshold)*print0, uint64(v.Scale)^print1)
	for i := range v.Ranges {
		h = printCounts(h+uint64(v.Ranges[i].Offset)*print2, print6, v.Ranges[i].Counts)
		h = mix(h, print3)
	}
	return h
}
