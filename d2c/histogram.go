// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"math"
	"math/bits"
	"slices"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// histogram is the value of an explicit-bounds histogram. Its bounds are never written to once others may see them: those
// of a stream are the shard's own.
type histogram struct {
	distribution
	bounds []float64
	counts []uint64
}

// histogramTotal is the total of a histogram and the delta to add. Counts and the delta's bounds are scratch space.
type histogramTotal struct {
	histogram
	delta histogram
}

func (h *histogramTotal) add() (Outcome, bool) {
	if len(h.counts) != len(h.delta.counts) || !slices.Equal(h.bounds, h.delta.bounds) {
		return RestartedLayout, false
	}
	d, ok := h.plus(h.delta.distribution)
	if !ok {
		return RestartedOverflow, false
	}
	// Buckets are checked of their own because nothing makes a producer's count their sum.
	var carry uint64
	for i, v := range h.delta.counts {
		_, c := bits.Add64(h.counts[i], v, 0)
		carry |= c
	}
	if carry != 0 {
		return RestartedOverflow, false
	}
	for i, v := range h.delta.counts {
		h.counts[i] += v
	}
	h.distribution = d
	return 0, true
}

// share leaves a histogram whole: nothing says which observations fell into which part of the interval.
func (h *histogramTotal) share(_, _ int64) {}

func (h *histogramTotal) restart() {
	h.distribution = h.delta.distribution
	h.bounds = h.delta.bounds
	h.counts = append(h.counts[:0], h.delta.counts...)
}

// read takes the delta from dp.
func (h *histogram) read(dp pmetric.HistogramDataPoint) {
	h.distribution = readDistribution(dp)
	bounds := dp.ExplicitBounds()
	h.bounds = slices.Grow(h.bounds[:0], bounds.Len())[:bounds.Len()]
	for i := range h.bounds {
		h.bounds[i] = bounds.At(i)
	}
	h.counts = appendCounts(h.counts[:0], dp.BucketCounts())
}

// write puts the total into dp, which holds the delta.
func (h *histogramTotal) write(dp pmetric.HistogramDataPoint) {
	writeDistribution(dp, h.distribution)
	dp.BucketCounts().FromRaw(h.counts)
	if !slices.Equal(h.bounds, h.delta.bounds) {
		dp.ExplicitBounds().FromRaw(h.bounds) // a repeat from before the bounds changed
	}
}

// checkHistogram returns the outcome of a malformed point, or false.
func checkHistogram(dp pmetric.HistogramDataPoint) (Outcome, bool) {
	if !readDistribution(dp).finite() {
		return DroppedNotFinite, true
	}
	bounds, n := dp.ExplicitBounds(), dp.BucketCounts().Len()
	if n > maxHistogramBuckets || n != bounds.Len()+1 && (n != 0 || bounds.Len() != 0) {
		return DroppedBuckets, true
	}
	previous := math.Inf(-1)
	for i := range bounds.Len() {
		bound := bounds.At(i)
		if !(bound > previous) && (i > 0 || !math.IsInf(bound, -1)) {
			return DroppedBuckets, true
		}
		previous = bound
	}
	return 0, false
}

func appendCounts(dst []uint64, src pcommon.UInt64Slice) []uint64 {
	n := src.Len()
	dst = slices.Grow(dst, n)
	for i := range n {
		dst = append(dst, src.At(i))
	}
	return dst
}
