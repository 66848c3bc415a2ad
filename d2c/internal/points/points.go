// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package points

import (
	"math"
	"math/bits"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c/internal/fold"
	"github.com/deltaring/deltaring/d2c/internal/table"
)

// histogramPoint is a data point on its way, with its value as long as that is the delta. Bounds and counts are the data
// point's.
type histogramPoint struct {
	pmetric.HistogramDataPoint
	value fold.Histogram
}

// exponentialPoint is a data point on its way, with its value as long as that is the delta. Its ranges are the data
// point's, between the first and the last bucket that is not empty: a point may have a million buckets, and is not copied to
// find that two of them count.
type exponentialPoint struct {
	pmetric.ExponentialHistogramDataPoint
	value fold.Exponential
}

// inspect reads the point, and returns its outcome if it is malformed.
func (p *histogramPoint) inspect(maxBuckets int) (o fold.Outcome, malformed bool) {
	v := &p.value
	readHistogram(&v.Distribution, p.HistogramDataPoint)
	if !v.Finite() {
		return fold.DroppedNotFinite, true
	}
	v.Bounds, v.Counts = boundsOf(p.ExplicitBounds()), countsOf(p.BucketCounts())
	n := len(v.Counts)
	if n > maxBuckets || n != len(v.Bounds)+1 && (n != 0 || len(v.Bounds) != 0) {
		return fold.DroppedBuckets, true
	}
	previous := math.Inf(-1)
	for i, bound := range v.Bounds {
		if !(bound > previous) && (i > 0 || !math.IsInf(bound, -1)) {
			return fold.DroppedBuckets, true
		}
		previous = bound
	}
	return 0, false
}

// write puts the total into the point that held the delta.
func (p *histogramPoint) write(h *fold.Histogram, o fold.Outcome) {
	writeHistogram(&h.Distribution, p.HistogramDataPoint)
	p.BucketCounts().FromRaw(h.Counts)
	if o == fold.Repeated { // maybe of a point from before the bounds changed
		p.ExplicitBounds().FromRaw(h.Bounds)
	}
}

// inspect reads the point, and returns its outcome if it is malformed.
func (p *exponentialPoint) inspect() (o fold.Outcome, malformed bool) {
	v := &p.value
	readExponential(&v.Distribution, p.ExponentialHistogramDataPoint)
	v.Scale, v.ZeroCount, v.ZeroThreshold = int(p.Scale()), p.ZeroCount(), p.ZeroThreshold()
	readBuckets(&v.Ranges[0], p.Positive())
	readBuckets(&v.Ranges[1], p.Negative())
	if !v.Finite() || !fold.Finite(v.ZeroThreshold) {
		return fold.DroppedNotFinite, true
	}
	if v.Scale < fold.MinScale || v.Scale > fold.MaxScale || v.ZeroThreshold < 0 {
		return fold.DroppedScale, true
	}
	total, carry := v.ZeroCount, uint64(0)
	for i := range v.Ranges {
		b := &v.Ranges[i]
		if !b.Useful(v.Scale) {
			return fold.DroppedScale, true
		}
		for _, v := range b.Counts {
			var c uint64
			total, c = bits.Add64(total, v, 0)
			carry |= c
		}
	}
	if carry != 0 {
		return fold.DroppedBuckets, true
	}
	return 0, false
}

// readBuckets takes the buckets between the first and the last that is not empty.
func readBuckets(b *fold.Buckets, src pmetric.ExponentialHistogramDataPointBuckets) {
	counts := countsOf(src.BucketCounts())
	lo, hi := 0, len(counts)
	for lo < hi && counts[lo] == 0 {
		lo++
	}
	for lo < hi && counts[hi-1] == 0 {
		hi--
	}
	if lo == hi {
		*b = fold.Buckets{}
		return
	}
	b.Offset, b.Counts = int64(src.Offset())+int64(lo), counts[lo:hi]
}

// write puts the total into the point that held the delta.
func (p *exponentialPoint) write(e *fold.Exponential) {
	writeExponential(&e.Distribution, p.ExponentialHistogramDataPoint)
	p.SetScale(int32(e.Scale))
	p.SetZeroCount(e.ZeroCount)
	p.SetZeroThreshold(e.ZeroThreshold)
	writeBuckets(&e.Ranges[0], p.Positive())
	writeBuckets(&e.Ranges[1], p.Negative())
}

func writeBuckets(b *fold.Buckets, to pmetric.ExponentialHistogramDataPointBuckets) {
	to.SetOffset(int32(b.Offset))
	to.BucketCounts().FromRaw(b.Counts)
}

// readHistogram and readExponential are one text twice: through a type parameter every accessor is an indirect call, which
// costs a histogram point 12 % of its time.

func readHistogram(d *fold.Distribution, dp pmetric.HistogramDataPoint) {
	*d = fold.Distribution{Count: dp.Count()}
	if dp.HasSum() {
		d.Sum, d.Has = dp.Sum(), d.Has|fold.HasSum
	}
	if dp.HasMin() {
		d.Min, d.Has = dp.Min(), d.Has|fold.HasMin
	}
	if dp.HasMax() {
		d.Max, d.Has = dp.Max(), d.Has|fold.HasMax
	}
}

func readExponential(d *fold.Distribution, dp pmetric.ExponentialHistogramDataPoint) {
	*d = fold.Distribution{Count: dp.Count()}
	if dp.HasSum() {
		d.Sum, d.Has = dp.Sum(), d.Has|fold.HasSum
	}
	if dp.HasMin() {
		d.Min, d.Has = dp.Min(), d.Has|fold.HasMin
	}
	if dp.HasMax() {
		d.Max, d.Has = dp.Max(), d.Has|fold.HasMax
	}
}

func writeHistogram(d *fold.Distribution, dp pmetric.HistogramDataPoint) {
	dp.SetCount(d.Count)
	if d.Has&fold.HasSum != 0 {
		dp.SetSum(d.Sum)
	} else {
		dp.RemoveSum()
	}
	if d.Has&fold.HasMin != 0 {
		dp.SetMin(d.Min)
	} else {
		dp.RemoveMin()
	}
	if d.Has&fold.HasMax != 0 {
		dp.SetMax(d.Max)
	} else {
		dp.RemoveMax()
	}
}

func writeExponential(d *fold.Distribution, dp pmetric.ExponentialHistogramDataPoint) {
	dp.SetCount(d.Count)
	if d.Has&fold.HasSum != 0 {
		dp.SetSum(d.Sum)
	} else {
		dp.RemoveSum()
	}
	if d.Has&fold.HasMin != 0 {
		dp.SetMin(d.Min)
	} else {
		dp.RemoveMin()
	}
	if d.Has&fold.HasMax != 0 {
		dp.SetMax(d.Max)
	} else {
		dp.RemoveMax()
	}
}

// Total returns a data point with the total of a record.
func Total(rec *table.Record) any {
	switch rec.Kind {
	case table.KindHistogram:
		p := histogramPoint{HistogramDataPoint: pmetric.NewHistogramDataPoint()}
		p.write(&rec.Histogram, fold.Repeated)
		return p.HistogramDataPoint
	case table.KindExponentialHistogram:
		p := exponentialPoint{ExponentialHistogramDataPoint: pmetric.NewExponentialHistogramDataPoint()}
		p.write(&rec.Exponential)
		return p.ExponentialHistogramDataPoint
	}
	dp := pmetric.NewNumberDataPoint()
	setNumber(dp, rec.Number)
	return dp
}
