// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"fmt"
	"maps"
	"math"
	"math/big"
	"slices"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
)

// amount is a delta or a total. Amounts are never changed once made.
type amount interface {
	// opening is the total of a stream that this delta opens or restarts.
	opening() amount
	// plus returns the total with delta added, or the reason for a restart; Passed means there is none.
	plus(delta amount) (amount, d2c.Outcome)
	// share is the part/whole of this delta, for interpolation.
	share(part, whole uint64) amount
	write(dp dataPoint)
}

// latestTime leaves room above it for samples that go out later than their own time.
const latestTime = math.MaxInt64 - 1<<53

func notFinite(values ...float64) bool {
	return slices.ContainsFunc(values, func(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) })
}

// number is a sum's amount: i, or f if isDouble.
type number struct {
	isDouble bool
	i        *big.Int
	f        float64
}

func readNumber(dp pmetric.NumberDataPoint, monotonic bool) (amount, d2c.Outcome) {
	switch dp.ValueType() {
	case pmetric.NumberDataPointValueTypeInt:
		if monotonic && dp.IntValue() < 0 {
			return nil, d2c.DroppedNegative
		}
		return number{i: big.NewInt(dp.IntValue())}, d2c.Passed
	case pmetric.NumberDataPointValueTypeDouble:
		if notFinite(dp.DoubleValue()) {
			return nil, d2c.DroppedNotFinite
		}
		if monotonic && dp.DoubleValue() < 0 {
			return nil, d2c.DroppedNegative
		}
		return number{isDouble: true, f: dp.DoubleValue()}, d2c.Passed
	}
	return nil, d2c.DroppedNoValue
}

func (n number) String() string { return fmt.Sprint(n.isDouble, n.i.String(), n.f) }

func (n number) float() float64 {
	if n.isDouble {
		return n.f
	}
	return float64(n.i.Int64())
}

func (n number) opening() amount { return n }

func (n number) plus(delta amount) (amount, d2c.Outcome) {
	d := delta.(number)
	if n.isDouble || d.isDouble {
		f := n.float() + d.float()
		if math.IsInf(f, 0) {
			return nil, d2c.RestartedOverflow
		}
		return number{isDouble: true, f: f}, d2c.Passed
	}
	i := new(big.Int).Add(n.i, d.i)
	if !i.IsInt64() {
		return nil, d2c.RestartedOverflow
	}
	return number{i: i}, d2c.Passed
}

func (n number) share(part, whole uint64) amount {
	if n.isDouble {
		return number{isDouble: true, f: n.f * (float64(part) / float64(whole))}
	}
	i := new(big.Int).Mul(n.i, new(big.Int).SetUint64(part))
	return number{i: i.Quo(i, new(big.Int).SetUint64(whole))} // Quo truncates towards zero
}

func (n number) write(dp dataPoint) {
	if n.isDouble {
		dp.(pmetric.NumberDataPoint).SetDoubleValue(n.f)
	} else {
		dp.(pmetric.NumberDataPoint).SetIntValue(n.i.Int64())
	}
}

// stats is what both kinds of histograms have beside their buckets.
type stats struct {
	count         uint64
	sum, min, max optional
}

type optional struct {
	v  float64
	ok bool
}

type statsPoint interface {
	Count() uint64
	Sum() float64
	HasSum() bool
	Min() float64
	HasMin() bool
	Max() float64
	HasMax() bool
	SetCount(uint64)
	SetSum(float64)
	RemoveSum()
	SetMin(float64)
	RemoveMin()
	SetMax(float64)
	RemoveMax()
}

func readStats(dp statsPoint) stats {
	return stats{
		count: dp.Count(),
		sum:   optional{dp.Sum(), dp.HasSum()},
		min:   optional{dp.Min(), dp.HasMin()},
		max:   optional{dp.Max(), dp.HasMax()},
	}
}

// calm removes what is not finite.
func (s *stats) calm() {
	for _, o := range []*optional{&s.sum, &s.min, &s.max} {
		if notFinite(o.v) {
			*o = optional{}
		}
	}
}

func (s stats) finite() bool {
	for _, o := range []optional{s.sum, s.min, s.max} {
		if o.ok && notFinite(o.v) {
			return false
		}
	}
	return true
}

func (s stats) plus(d stats) (stats, bool) {
	switch {
	case d.count == 0:
		return s, true
	case s.count == 0:
		return d, true
	}
	count, ok := addCounts(s.count, d.count)
	sum := both(s.sum, d.sum, func(a, b float64) float64 { return a + b })
	if !ok || math.IsInf(sum.v, 0) {
		return stats{}, false
	}
	return stats{count, sum, both(s.min, d.min, math.Min), both(s.max, d.max, math.Max)}, true
}

func both(a, b optional, combine func(a, b float64) float64) optional {
	if !a.ok || !b.ok {
		return optional{}
	}
	return optional{combine(a.v, b.v), true}
}

func (s stats) write(dp statsPoint) {
	dp.SetCount(s.count)
	for _, f := range []struct {
		optional
		set    func(float64)
		remove func()
	}{{s.sum, dp.SetSum, dp.RemoveSum}, {s.min, dp.SetMin, dp.RemoveMin}, {s.max, dp.SetMax, dp.RemoveMax}} {
		if f.ok {
			f.set(f.v)
		} else {
			f.remove()
		}
	}
}

func addCounts(counts ...uint64) (sum uint64, ok bool) {
	total := new(big.Int)
	for _, c := range counts {
		total.Add(total, new(big.Int).SetUint64(c))
	}
	return total.Uint64(), total.IsUint64()
}

// explicit is a histogram's amount.
type explicit struct {
	stats
	bounds  []float64
	buckets []uint64
	repair  d2c.Repairs
}

func readHistogram(p *modelPoint, dp pmetric.HistogramDataPoint, repair d2c.Repairs) (amount, d2c.Outcome) {
	h := explicit{readStats(dp), dp.ExplicitBounds().AsRaw(), dp.BucketCounts().AsRaw(), repair}
	sum, fits := addCounts(h.buckets...)
	nothing := h.count == 0 && (sum == 0 && fits)
	if !h.mend(p) {
		if !nothing {
			return nil, d2c.DroppedBuckets
		}
		h.bounds, h.buckets = nil, nil
	}
	if nothing {
		h.calm()
	}
	if !h.finite() {
		return nil, d2c.DroppedNotFinite
	}
	return h, d2c.Passed
}

// mend repairs what may be repaired, and reports whether buckets and bounds fit.
func (h *explicit) mend(p *modelPoint) bool {
	last := len(h.bounds) - 1
	if last >= 0 && math.IsInf(h.bounds[last], 1) && h.repair&d2c.RepairInfiniteBound != 0 {
		if len(h.buckets) == len(h.bounds)+1 {
			if h.buckets[last+1] > 0 {
				return false
			}
			h.buckets = h.buckets[:last+1]
		}
		h.bounds = h.bounds[:last]
		if last > 0 && math.IsInf(h.bounds[last-1], 1) {
			return false
		}
		p.repaired |= d2c.RepairInfiniteBound
	}
	for i, b := range h.bounds {
		if math.IsNaN(b) || (i > 0 && b <= h.bounds[i-1]) {
			return false
		}
	}
	if len(h.buckets)+len(h.bounds) == 0 {
		return true
	}
	missing := len(h.bounds) + 1 - len(h.buckets)
	sum, ok := addCounts(h.buckets...)
	if missing == 0 && h.count > 0 {
		return true
	}
	if missing < 0 || !ok {
		return false
	}
	if h.count == 0 && sum > 0 && h.repair&d2c.RepairMissingCount != 0 {
		h.count = sum
		p.repaired |= d2c.RepairMissingCount
	}
	switch {
	case missing == 0:
		return true
	case len(h.buckets) == 0 && h.count > 0:
		return false
	case h.count == sum && h.repair&d2c.RepairTrailingBuckets != 0:
		p.repaired |= d2c.RepairTrailingBuckets
		h.buckets = append(h.buckets, make([]uint64, missing)...)
		return true
	case h.count > sum && missing == 1 && h.repair&d2c.RepairOverflowBucket != 0:
		p.repaired |= d2c.RepairOverflowBucket
		h.buckets = append(h.buckets, h.count-sum)
		return true
	}
	return false
}

// nothing reports whether nothing is counted.
func (h explicit) nothing() bool {
	return h.count == 0 && !slices.ContainsFunc(h.buckets, func(n uint64) bool { return n > 0 })
}

// sameBounds reports whether bounds are the same, or the same but for rounding.
func (h explicit) sameBounds(d explicit) (same, rounded bool) {
	if len(h.bounds) != len(d.bounds) || len(h.buckets) != len(d.buckets) {
		return false, false
	}
	for i, a := range h.bounds {
		if b := d.bounds[i]; a != b {
			rounded = true
			if math.IsInf(a, 0) || math.IsInf(b, 0) || math.Abs(a-b) > 1e-12*math.Max(math.Abs(a), math.Abs(b)) {
				return false, false
			}
		}
	}
	return !rounded || d.repair&d2c.RepairRoundedBounds != 0, rounded
}

func (h explicit) opening() amount                 { return h }
func (h explicit) share(part, whole uint64) amount { return h }

func (h explicit) plus(delta amount) (amount, d2c.Outcome) {
	d := delta.(explicit)
	if same, _ := h.sameBounds(d); !same {
		switch {
		case d.nothing():
			return h, d2c.Passed
		case h.nothing():
			return d, d2c.Passed
		}
		return nil, d2c.RestartedLayout
	}
	s, ok := h.stats.plus(d.stats)
	if !ok {
		return nil, d2c.RestartedOverflow
	}
	buckets := slices.Clone(h.buckets)
	for i := range buckets {
		if buckets[i], ok = addCounts(buckets[i], d.buckets[i]); !ok {
			return nil, d2c.RestartedOverflow
		}
	}
	return explicit{s, h.bounds, buckets, h.repair}, d2c.Passed
}

func (h explicit) write(point dataPoint) {
	dp := point.(pmetric.HistogramDataPoint)
	h.stats.write(dp)
	dp.ExplicitBounds().FromRaw(h.bounds)
	dp.BucketCounts().FromRaw(h.buckets)
}

// exponential is an exponential histogram's amount: counts by bucket index, populated buckets only.
type exponential struct {
	stats
	scale     int32
	threshold float64
	zeros     uint64
	pos, neg  map[int64]uint64
}

const maxBuckets = 160

func readExponential(p *modelPoint, dp pmetric.ExponentialHistogramDataPoint, repair d2c.Repairs) (amount, d2c.Outcome) {
	e := exponential{
		stats: readStats(dp), scale: dp.Scale(), threshold: dp.ZeroThreshold(), zeros: dp.ZeroCount(),
		pos: populated(dp.Positive()), neg: populated(dp.Negative()),
	}
	if len(e.pos)+len(e.neg) == 0 {
		e.scale = min(max(e.scale, -10), 20)
	}
	if e.zeros == 0 {
		e.threshold = 0
	}
	if e.scale < -10 || e.scale > 20 || e.threshold < 0 {
		return nil, d2c.DroppedScale
	}
	for _, buckets := range []map[int64]uint64{e.pos, e.neg} {
		for i := range buckets {
			// Exponents of the bounds; no float64 lies at or below 2^-1075, or above a lower bound of 2^1024.
			lower, upper := math.Ldexp(float64(i), -int(e.scale)), math.Ldexp(float64(i+1), -int(e.scale))
			if upper <= -1075 || lower >= 1024 {
				return nil, d2c.DroppedScale
			}
		}
	}
	counts := []uint64{e.zeros}
	for _, buckets := range []map[int64]uint64{e.pos, e.neg} {
		counts = slices.AppendSeq(counts, maps.Values(buckets))
	}
	all, ok := addCounts(counts...)
	if !ok {
		return nil, d2c.DroppedBuckets
	}
	if e.count == 0 {
		if all == 0 {
			e.calm()
		} else if repair&d2c.RepairMissingCount != 0 {
			e.count = all
			p.repaired |= d2c.RepairMissingCount
		}
	}
	if !e.finite() || notFinite(e.threshold) {
		return nil, d2c.DroppedNotFinite
	}
	return e, d2c.Passed
}

func populated(b pmetric.ExponentialHistogramDataPointBuckets) map[int64]uint64 {
	counts := map[int64]uint64{}
	for i, n := range b.BucketCounts().All() {
		if n > 0 {
			counts[int64(b.Offset())+int64(i)] = n
		}
	}
	return counts
}

// boundary is the lower boundary of bucket i, 2^(i*2^-scale). That of the bucket after the last is the largest float64.
func boundary(i int64, scale int32) float64 {
	exponent := math.Ldexp(float64(i), -int(scale))
	if exponent == math.Trunc(exponent) {
		return min(math.Ldexp(1, int(exponent)), math.MaxFloat64) // exact, and knows subnormals
	}
	return math.Exp2(exponent)
}

// opening is e added to nothing, which normalises it. It cannot overflow: readExponential saw to that.
func (e exponential) opening() amount {
	total, _ := exponential{scale: e.scale}.plus(e)
	normal := total.(exponential)
	normal.stats = e.stats
	return normal
}

func (e exponential) share(part, whole uint64) amount { return e }

func (e exponential) plus(delta amount) (amount, d2c.Outcome) {
	d := delta.(exponential)
	// Who has counted nothing says nothing of how to count.
	if len(d.pos)+len(d.neg) == 0 {
		d.scale = e.scale
	} else if len(e.pos)+len(e.neg) == 0 {
		e.scale = d.scale
	}
	if d.zeros == 0 {
		d.threshold = e.threshold
	} else if e.zeros == 0 {
		e.threshold = 0
	}
	s, ok := e.stats.plus(d.stats)
	if !ok {
		return nil, d2c.RestartedOverflow
	}
	sum := exponential{stats: s, scale: min(e.scale, d.scale), threshold: max(e.threshold, d.threshold)}
	for {
		raised := sum.threshold
		for _, side := range []exponential{e, d} {
			for _, buckets := range []map[int64]uint64{side.pos, side.neg} {
				for i := range buckets {
					i >>= side.scale - sum.scale
					if boundary(i, sum.scale) < sum.threshold && sum.threshold < boundary(i+1, sum.scale) {
						raised = boundary(i+1, sum.scale)
					}
				}
			}
		}
		sum.threshold = raised

		// Recount every bucket of both at the new scale.
		zeros := []uint64{e.zeros, d.zeros}
		recount := func(a, b map[int64]uint64) map[int64][]uint64 {
			counts := map[int64][]uint64{}
			for _, side := range []struct {
				buckets map[int64]uint64
				scale   int32
			}{{a, e.scale}, {b, d.scale}} {
				for i, n := range side.buckets {
					i >>= side.scale - sum.scale
					if sum.threshold > 0 && boundary(i+1, sum.scale) <= sum.threshold {
						zeros = append(zeros, n)
					} else {
						counts[i] = append(counts[i], n)
					}
				}
			}
			return counts
		}
		pos, neg := recount(e.pos, d.pos), recount(e.neg, d.neg)
		if span(pos) > maxBuckets || span(neg) > maxBuckets {
			sum.scale--
			continue
		}
		var okZ, okP, okN bool
		sum.zeros, okZ = addCounts(zeros...)
		sum.pos, okP = addBuckets(pos)
		sum.neg, okN = addBuckets(neg)
		if !okZ || !okP || !okN {
			return nil, d2c.RestartedOverflow
		}
		return sum, d2c.Passed
	}
}

func span[V any](buckets map[int64]V) int64 {
	if len(buckets) == 0 {
		return 0
	}
	lo, hi := int64(math.MaxInt64), int64(math.MinInt64)
	for i := range buckets {
		lo, hi = min(lo, i), max(hi, i)
	}
	return hi - lo + 1
}

func addBuckets(counts map[int64][]uint64) (map[int64]uint64, bool) {
	sums := map[int64]uint64{}
	for i, ns := range counts {
		n, ok := addCounts(ns...)
		if !ok {
			return nil, false
		}
		sums[i] = n
	}
	return sums, true
}

func (e exponential) write(point dataPoint) {
	dp := point.(pmetric.ExponentialHistogramDataPoint)
	e.stats.write(dp)
	dp.SetScale(e.scale)
	dp.SetZeroThreshold(e.threshold)
	dp.SetZeroCount(e.zeros)
	writeBuckets(dp.Positive(), e.pos)
	writeBuckets(dp.Negative(), e.neg)
}

// writeBuckets writes the shortest form: from the first populated bucket to the last.
func writeBuckets(b pmetric.ExponentialHistogramDataPointBuckets, buckets map[int64]uint64) {
	counts := make([]uint64, span(buckets))
	offset := int64(0)
	if len(buckets) > 0 {
		offset = math.MaxInt64
		for i := range buckets {
			offset = min(offset, i)
		}
	}
	for i, n := range buckets {
		counts[i-offset] = n
	}
	b.SetOffset(int32(offset))
	b.BucketCounts().FromRaw(counts)
}
