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

// histogram is the value of an explicit-bounds histogram. Its bounds are shared and never written to.
type histogram struct {
	distribution
	bounds []float64
	counts []uint64
}

// histogramPoint is a data point on its way, with what it takes a walk through generated code to read.
type histogramPoint struct {
	pmetric.HistogramDataPoint
	distribution
}

// histogramTotal is the total of a histogram and the delta to add. The total's counts are scratch space; the delta's
// bounds and counts stay in the data point.
type histogramTotal struct {
	histogram
	delta struct {
		distribution
		bounds pcommon.Float64Slice
		counts pcommon.UInt64Slice
	}
}

func (h *histogramTotal) add() (Outcome, bool) {
	if !h.sameLayout() {
		return RestartedLayout, false
	}
	d, ok := h.plus(&h.delta.distribution)
	if !ok {
		return RestartedOverflow, false
	}
	// Buckets are checked of their own because nothing makes a producer's count their sum.
	var carry uint64
	for i, v := range h.counts {
		var c uint64
		h.counts[i], c = bits.Add64(v, h.delta.counts.At(i), 0)
		carry |= c
	}
	h.distribution = d
	return RestartedOverflow, carry == 0
}

func (h *histogramTotal) sameLayout() bool {
	bounds := h.delta.bounds
	if len(h.counts) != h.delta.counts.Len() || len(h.bounds) != bounds.Len() {
		return false
	}
	for i, bound := range h.bounds {
		if bound != bounds.At(i) {
			return false
		}
	}
	return true
}

// share leaves a histogram whole: nothing says which observations fell into which part of the interval.
func (h *histogramTotal) share(_, _ int64) {}

func (h *histogramTotal) restart() {
	h.distribution = h.delta.distribution
	h.bounds = h.delta.bounds.AsRaw()
	h.counts = slices.Grow(h.counts[:0], h.delta.counts.Len())
	for i := range h.delta.counts.Len() {
		h.counts = append(h.counts, h.delta.counts.At(i))
	}
}

// read takes the delta from a point; its bounds and counts stay where they are.
func (h *histogramTotal) read(p *histogramPoint) {
	h.delta.distribution = p.distribution
	h.delta.bounds, h.delta.counts = p.ExplicitBounds(), p.BucketCounts()
}

// write puts the total into the point that held the delta.
func (h *histogramTotal) write(p *histogramPoint, o Outcome) {
	h.writeHistogram(p.HistogramDataPoint)
	p.BucketCounts().FromRaw(h.counts)
	if o == Repeated { // maybe of a point from before the bounds changed
		p.ExplicitBounds().FromRaw(h.bounds)
	}
}

// inspect reads the point, and returns its outcome if it is malformed.
func (p *histogramPoint) inspect() (o Outcome, malformed bool) {
	p.readHistogram(p.HistogramDataPoint)
	if !p.finite() {
		return DroppedNotFinite, true
	}
	bounds, n := p.ExplicitBounds(), p.BucketCounts().Len()
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
