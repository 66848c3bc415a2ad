// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package table

import (
	"math"
	"slices"

	"github.com/deltaring/deltaring/d2c/internal/fold"
)

// A histogram's block: a header, then the bucket counts in one word each, or in two if one of them needs it.
const (
	wordCount  = 0
	wordSum    = 2
	wordMin    = 4
	wordMax    = 6
	wordLayout = 8 // presence in the low byte, flagWide, the number of buckets (positive ones) above
	wordBounds = 9 // explicit: reference into the shard's bounds

	headerHistogram = 10

	wordZeroCount     = 9
	wordZeroThreshold = 11
	wordScale         = 13 // scale in the low byte, the number of negative buckets above
	wordOffsets       = 14 // of both ranges

	headerExponential = 16

	flagWide   = 1 << 7
	countShift = 8
)

// Explicit histograms keep as many buckets as their producers send, within what the layout word has bits for.
const MaxHistogramBuckets = 1<<(32-countShift) - 1

func widthOf(counts []uint64) int {
	var all uint64
	for _, v := range counts {
		all |= v
	}
	if all > math.MaxUint32 {
		return 2
	}
	return 1
}

// packCounts writes counts, or returns false if one of them needs more words than width; what it has written is of no use
// then. To find the width on the way, and not before, takes 4 % off a histogram point's time.
func packCounts(w []uint32, counts []uint64, width int) bool {
	if width == 2 {
		for i, v := range counts {
			put64(w[2*i:], v)
		}
		return true
	}
	w = w[:len(counts)]
	var all uint64
	for i, v := range counts {
		all |= v
		w[i] = uint32(v)
	}
	return all <= math.MaxUint32
}

// unpackCounts returns dst resized to n counts and filled from w, or the words to fill it from: counts of one word each are
// unpacked on the way to something else.
func unpackCounts(dst []uint64, w []uint32, n int, wide bool) (counts []uint64, narrow []uint32) {
	dst = slices.Grow(dst[:0], n)[:n]
	if !wide {
		return dst, w[:n]
	}
	for i := range dst {
		dst[i] = get64(w[2*i:])
	}
	return dst, nil
}

// distributionHeader is what the headers of both kinds have in common. The length of a block is checked once, where it becomes one,
// and not word by word: 2 % of a point's time.
type distributionHeader [wordLayout + 1]uint32

func unpackDistribution(d *fold.Distribution, w *distributionHeader) {
	d.Count = get64(w[wordCount:])
	d.Sum = math.Float64frombits(get64(w[wordSum:]))
	d.Min = math.Float64frombits(get64(w[wordMin:]))
	d.Max = math.Float64frombits(get64(w[wordMax:]))
	d.Has = fold.Presence(w[wordLayout]) & (fold.HasSum | fold.HasMin | fold.HasMax)
	d.Wide = w[wordLayout]&flagWide != 0
}

// packDistribution writes the distribution and the layout word.
func packDistribution(d *fold.Distribution, w *distributionHeader, buckets, width int) {
	put64(w[wordCount:], d.Count)
	put64(w[wordSum:], math.Float64bits(d.Sum))
	put64(w[wordMin:], math.Float64bits(d.Min))
	put64(w[wordMax:], math.Float64bits(d.Max))
	w[wordLayout] = uint32(d.Has) | uint32(buckets)<<countShift
	if width == 2 {
		w[wordLayout] |= flagWide
	}
}

// layout returns the number of buckets and the words each takes.
func layout(w []uint32) (buckets, width int) {
	return int(w[wordLayout] >> countShift), 1 + int(w[wordLayout]&flagWide)/flagWide
}

// Histogram unpacks a stream's value into h, but for narrow counts: h.add or h.complete does that.
func (sh *Shard) Histogram(s *Slot, h *fold.HistogramTotal) {
	w := sh.blocks.block(blockRef(s.value))
	unpackDistribution(&h.Distribution, (*distributionHeader)(w))
	h.Counts, h.Narrow = unpackCounts(h.Counts, w[headerHistogram:], int(w[wordLayout]>>countShift), h.Wide)
	h.Bounds = sh.bounds.at(w[wordBounds])
}

// SetHistogram packs it again. Bounds are looked up only when they may be others.
func (sh *Shard) SetHistogram(s *Slot, h *fold.Histogram, newBounds bool) {
	fresh, n, width := s.Meta&FlagFresh != 0, len(h.Counts), 1
	if fresh || h.Wide {
		width = widthOf(h.Counts)
	}
	w := sh.blockFor(s, headerHistogram+width*n)
	if !packCounts(w[headerHistogram:], h.Counts, width) {
		width = 2
		w = sh.blockFor(s, headerHistogram+width*n)
		packCounts(w[headerHistogram:], h.Counts, width)
	}
	if newBounds {
		bounds := sh.bounds.intern(h.Bounds)
		if !fresh {
			sh.bounds.release(w[wordBounds])
		}
		w[wordBounds] = bounds
	}
	packDistribution(&h.Distribution, (*distributionHeader)(w), n, width)
}

// Exponential unpacks a stream's value into e, but for narrow counts: e.add or e.complete does that.
func (sh *Shard) Exponential(s *Slot, e *fold.ExponentialTotal) {
	w := sh.blocks.block(blockRef(s.value))
	head := (*[headerExponential]uint32)(w)
	unpackDistribution(&e.Distribution, (*distributionHeader)(head[:]))
	e.ZeroCount = get64(head[wordZeroCount:])
	e.ZeroThreshold = math.Float64frombits(get64(head[wordZeroThreshold:]))
	e.Scale = int(int8(head[wordScale]))
	e.Ranges[0].Offset = int64(int32(head[wordOffsets]))
	e.Ranges[1].Offset = int64(int32(head[wordOffsets+1]))
	positive, negative := int(head[wordLayout]>>countShift), int(head[wordScale]>>countShift)
	w = w[headerExponential:]
	e.Ranges[0].Counts, e.Narrow[0] = unpackCounts(e.Ranges[0].Counts, w, positive, e.Wide)
	if e.Wide {
		positive *= 2
	}
	e.Ranges[1].Counts, e.Narrow[1] = unpackCounts(e.Ranges[1].Counts, w[positive:], negative, e.Wide)
}

// SetExponential packs it again.
func (sh *Shard) SetExponential(s *Slot, e *fold.Exponential) {
	positive, negative := e.Ranges[0].Counts, e.Ranges[1].Counts
	n, width := len(positive)+len(negative), 1
	if s.Meta&FlagFresh != 0 || e.Wide {
		width = max(widthOf(positive), widthOf(negative))
	}
	w := sh.blockFor(s, headerExponential+width*n)
	if !packCounts(w[headerExponential:], positive, width) || !packCounts(w[headerExponential+width*len(positive):], negative, width) {
		width = 2
		w = sh.blockFor(s, headerExponential+width*n)
		packCounts(w[headerExponential:], positive, width)
		packCounts(w[headerExponential+width*len(positive):], negative, width)
	}
	head := (*[headerExponential]uint32)(w)
	packDistribution(&e.Distribution, (*distributionHeader)(head[:]), len(positive), width)
	put64(head[wordZeroCount:], e.ZeroCount)
	put64(head[wordZeroThreshold:], math.Float64bits(e.ZeroThreshold))
	head[wordScale] = uint32(uint8(e.Scale)) | uint32(len(negative))<<countShift
	head[wordOffsets] = uint32(int32(e.Ranges[0].Offset))
	head[wordOffsets+1] = uint32(int32(e.Ranges[1].Offset))
}

// blockFor returns a block of n words for the stream: the one it has if that is of the right size, with its content.
func (sh *Shard) blockFor(s *Slot, n int) []uint32 {
	if s.Meta&FlagFresh == 0 {
		if ref := blockRef(s.value); sh.blocks.fits(ref, n) {
			return sh.blocks.block(ref)
		}
	}
	ref := sh.blocks.alloc(n)
	w := sh.blocks.block(ref)
	if s.Meta&FlagFresh == 0 {
		w[wordBounds] = sh.blocks.block(blockRef(s.value))[wordBounds]
		sh.blocks.release(blockRef(s.value))
	}
	s.value = uint64(ref)
	return w
}

func (sh *Shard) copyBlock(dst *Slot, src *Shard, s *Slot) {
	from := src.blocks.block(blockRef(s.value))
	n, width := layout(from)
	if s.Kind() == KindExponentialHistogram {
		n += int(from[wordScale] >> countShift)
		from = from[:headerExponential+n*width]
		copy(sh.blockFor(dst, len(from)), from)
		return
	}
	from = from[:headerHistogram+n*width]
	fresh := dst.Meta&FlagFresh != 0
	w := sh.blockFor(dst, len(from))
	bounds, ref := src.bounds.at(from[wordBounds]), w[wordBounds]
	if fresh || !sameSlice(sh.bounds.at(ref), bounds) {
		old := ref
		ref = sh.bounds.share(bounds)
		if !fresh {
			sh.bounds.release(old)
		}
	}
	copy(w, from)
	w[wordBounds] = ref
}

// dropValue gives back what a histogram's value takes.
func (sh *Shard) dropValue(s *Slot) {
	switch s.Kind() {
	case KindHistogram:
		sh.bounds.release(sh.blocks.block(blockRef(s.value))[wordBounds])
		fallthrough
	case KindExponentialHistogram:
		sh.blocks.release(blockRef(s.value))
	}
}
