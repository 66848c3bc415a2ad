// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package fold

import (
	"math"
	"math/bits"
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
)

// MixPrint makes another fingerprint of one.
func MixPrint(print, n uint64) uint64 { return mix(print^print2, n^print3) }

func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

func (p Interval) print() uint64 { return uint64(p.Start)*print0 + uint64(p.Time)*print1 }

// Print is the fingerprint of a sum's delta.
func (n Number) Print(p Interval) uint64 {
	h := p.print() + n.Bits*print2
	if n.Double {
		h = ^h
	}
	return mix(h, print3)
}

func (d *Distribution) print(p Interval) uint64 {
	return p.print() + d.Count*print2 + math.Float64bits(d.Sum)*print3 +
		(math.Float64bits(d.Min)^bits.RotateLeft64(math.Float64bits(d.Max), 29))*print4 + uint64(d.Rest)<<8 + uint64(d.Has)
}

// printFour and printOne go on for counts. Where counts are added, they are on the way: see addCounts. One product for four
// will do, as most counts are small.

func printFour(h, a, b, c, d uint64) uint64 {
	return h*print4 + (a ^ bits.RotateLeft64(b, 16) ^ bits.RotateLeft64(c, 32) ^ bits.RotateLeft64(d, 48))
}

func printOne(h, a uint64) uint64 { return h*print5 + a }

func printCounts(counts []uint64) (h uint64) {
	for ; len(counts) >= 4; counts = counts[4:] {
		h = printFour(h, counts[0], counts[1], counts[2], counts[3])
	}
	for _, c := range counts {
		h = printOne(h, c)
	}
	return h
}

// Print is the fingerprint of a histogram's delta.
func (h *Histogram) Print(p Interval) uint64 { return h.print(p, printCounts(h.Counts)) }

func (h *Histogram) print(p Interval, counts uint64) uint64 {
	sum := h.Distribution.print(p) + uint64(len(h.Counts))
	// Of the bounds some will do: with others, the same numbers in the same interval do not come by chance.
	if n := len(h.Bounds); n > 0 {
		sum ^= math.Float64bits(h.Bounds[0]) + bits.RotateLeft64(math.Float64bits(h.Bounds[n-1]), 13)
	}
	return mix(sum^counts, print3)
}

// Print is the fingerprint of an exponential histogram's delta.
func (e *Exponential) Print(p Interval) uint64 {
	return e.print(p, [2]uint64{printCounts(e.Ranges[0].Counts), printCounts(e.Ranges[1].Counts)})
}

func (e *Exponential) print(p Interval, counts [2]uint64) uint64 {
	h := e.Distribution.print(p) + e.ZeroCount*print4 + math.Float64bits(e.ZeroThreshold)*print5 + uint64(e.Scale)
	for i := range e.Ranges {
		h = mix(h+uint64(e.Ranges[i].Offset)*print0, print3) + counts[i] + uint64(len(e.Ranges[i].Counts))
	}
	return mix(h, print2)
}

// Print is the fingerprint of the delta, which may have been found on the way.
func (h *HistogramTotal) Print(p Interval) uint64 {
	if h.printed {
		return h.Delta.print(p, h.counts)
	}
	return h.Delta.Print(p)
}

// Print is the fingerprint of the delta, which may have been found on the way.
func (e *ExponentialTotal) Print(p Interval) uint64 {
	if e.printed {
		return e.Delta.print(p, e.counts)
	}
	return e.Delta.Print(p)
}

// Print is the fingerprint of the delta.
func (s *SumTotal) Print(p Interval) uint64 { return s.Delta.Print(p) }
