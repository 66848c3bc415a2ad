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

// inspectHistogram reads the point and repairs what may be repaired, or returns its outcome if it is malformed. A point that counts nothing is
// well-formed, whatever else it says: an SDK may say that the least of no values is infinite.
func (b *Batch) inspectHistogram(p *histogramPoint, it *Item) (o fold.Outcome, malformed bool) {
	v := &p.value
	readHistogram(&v.Distribution, p.HistogramDataPoint)
	v.Bounds, v.Counts = boundsOf(p.ExplicitBounds()), countsOf(p.BucketCounts())
	if n := len(v.Bounds); v.Count != 0 && n > 0 && n < b.maxBuckets && len(v.Counts) == n+1 &&
		v.Bounds[n-1] <= math.MaxFloat64 && rise(v.Bounds) && v.Finite() {
		return 0, false // nearly all
	}
	if !b.repairBuckets(v) {
		if !v.Nothing() {
			return fold.DroppedBuckets, true
		}
		v.Bounds, v.Counts = nil, nil
	}
	if len(v.Bounds) != p.ExplicitBounds().Len() {
		it.flags |= flagRelaid
	}
	if v.Nothing() {
		v.Calm()
	}
	if !v.Finite() {
		return fold.DroppedNotFinite, true
	}
	return 0, false
}

// rise reports whether bounds rise strictly.
func rise(bounds []float64) bool {
	previous := math.Inf(-1)
	for i, bound := range bounds {
		if !(bound > previous) && (i > 0 || !math.IsInf(bound, -1)) {
			return false
		}
		previous = bound
	}
	return true
}

// repairBuckets makes bounds, counts and count fit each other if there is exactly one way to do so, and reports whether they
// fit. It does not write to the data point.
func (b *Batch) repairBuckets(v *fold.Histogram) bool {
	n := len(v.Bounds)
	if n > 0 && math.IsInf(v.Bounds[n-1], 1) && b.repair&fold.RepairInfiniteBound != 0 {
		n--
		v.Bounds = v.Bounds[:n]
		if n > 0 && math.IsInf(v.Bounds[n-1], 1) {
			return false
		}
		if len(v.Counts) == n+2 { // nothing is above infinity
			if v.Counts[n+1] != 0 {
				return false
			}
			v.Counts = v.Counts[:n+1]
		}
		b.repairing |= fold.RepairInfiniteBound
	}
	if !rise(v.Bounds) {
		return false
	}
	if len(v.Counts) == n+1 && v.Count != 0 || n == 0 && len(v.Counts) == 0 {
		return len(v.Counts) <= b.maxBuckets // nearly all
	}
	if len(v.Counts) > n+1 || n >= b.maxBuckets {
		return false
	}
	sum, carry := uint64(0), uint64(0)
	for _, c := range v.Counts {
		var c1 uint64
		sum, c1 = bits.Add64(sum, c, 0)
		carry |= c1
	}
	if carry != 0 {
		return false
	}
	if v.Count == 0 && sum > 0 && b.repair&fold.RepairMissingCount != 0 {
		v.Count = sum
		b.repairing |= fold.RepairMissingCount
	}
	missing := n + 1 - len(v.Counts)
	switch {
	case missing == 0:
		return true
	case len(v.Counts) == 0 && v.Count != 0:
		return false // nothing says in which buckets
	case v.Count == sum:
		if b.repair&fold.RepairTrailingBuckets == 0 {
			return false
		}
		b.repairing |= fold.RepairTrailingBuckets
		v.Counts = b.own(v.Counts, n+1)
		return true
	case missing == 1 && v.Count > sum:
		if b.repair&fold.RepairOverflowBucket == 0 {
			return false
		}
		b.repairing |= fold.RepairOverflowBucket
		v.Counts = b.own(v.Counts, n+1)
		v.Counts[n] = v.Count - sum
		return true
	}
	return false
}

// own returns a copy of counts with room for n of them; the added ones are zero.
func (b *Batch) own(counts []uint64, n int) []uint64 {
	from := len(b.owned)
	b.owned = append(b.owned, counts...)
	for len(b.owned) < from+n {
		b.owned = append(b.owned, 0)
	}
	return b.owned[from : from+n : from+n]
}

// write puts the total into the point that held the delta.
func (p *histogramPoint) write(h *fold.Histogram, bounds bool) {
	writeHistogram(&h.Distribution, p.HistogramDataPoint)
	p.BucketCounts().FromRaw(h.Counts)
	if bounds {
		p.ExplicitBounds().FromRaw(h.Bounds)
	}
}

// inspectExponential reads the point and repairs what may be repaired, or returns its outcome if it is malformed. Without buckets
// the scale means nothing, and without a zero count the threshold means nothing.
func (b *Batch) inspectExponential(p *exponentialPoint) (o fold.Outcome, malformed bool) {
	v := &p.value
	readExponential(&v.Distribution, p.ExponentialHistogramDataPoint)
	v.Scale, v.ZeroCount, v.ZeroThreshold = int(p.Scale()), p.ZeroCount(), p.ZeroThreshold()
	readBuckets(&v.Ranges[0], p.Positive())
	readBuckets(&v.Ranges[1], p.Negative())
	if v.Buckets() == 0 {
		v.Scale = min(max(v.Scale, fold.MinScale), fold.MaxScale)
	}
	if v.ZeroCount == 0 {
		v.ZeroThreshold = 0
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
	if v.Count == 0 {
		if total == 0 {
			v.Calm()
		} else if b.repair&fold.RepairMissingCount != 0 {
			v.Count = total
			b.repairing |= fold.RepairMissingCount
		}
	}
	if !v.Finite() || !fold.Finite(v.ZeroThreshold) {
		return fold.DroppedNotFinite, true
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
		p.write(&rec.Histogram, true)
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
