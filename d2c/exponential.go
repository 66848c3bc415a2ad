// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"math"
	"math/bits"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

const (
	// maxBuckets bounds the buckets of each sign, as the SDKs' default of 160 does at the source.
	maxBuckets = 160

	minScale, maxScale = -10, 20

	// The exponents of two that hold a float64: (2^-1075, 2^-1074] has the smallest one, (2^1023, 2^1024] the largest.
	minExponent, maxExponent = -1075, 1023
)

// exponential is the value of an exponential histogram.
type exponential struct {
	distribution
	zeroCount     uint64
	zeroThreshold float64
	scale         int
	// The positive and the negative range. Their first and last buckets are not empty, but may become so where the
	// zero bucket grows.
	ranges [2]buckets
}

// buckets are the counts from bucket offset on; bucket i of a scale holds (2^(i*2^-scale), 2^((i+1)*2^-scale)].
// Offsets are int64 because a delta's offset plus its length may pass an int32.
type buckets struct {
	offset int64
	counts []uint64
}

// exponentialTotal is the total of an exponential histogram and the delta to add. All slices are scratch space.
type exponentialTotal struct {
	exponential
	delta exponential
	spare [2][]uint64
}

func (e *exponentialTotal) add() (Outcome, bool) {
	d, ok := e.plus(e.delta.distribution)
	if !ok {
		return RestartedOverflow, false
	}
	zero, carry := bits.Add64(e.zeroCount, e.delta.zeroCount, 0)
	if carry != 0 {
		return RestartedOverflow, false
	}
	if e.fits() {
		for i := range e.ranges {
			carry |= e.ranges[i].overflow(e.delta.ranges[i])
		}
		if carry != 0 {
			return RestartedOverflow, false
		}
		for i := range e.ranges {
			e.ranges[i].add(e.delta.ranges[i])
		}
		e.zeroCount = zero
	} else if !e.merge() {
		return RestartedOverflow, false
	}
	e.distribution = d
	return 0, true
}

// share leaves a histogram whole: nothing says which observations fell into which part of the interval.
func (e *exponentialTotal) share(_, _ int64) {}

// restart merges the delta into nothing, so that what is kept is bounded and normal from the first point on.
func (e *exponentialTotal) restart() {
	e.exponential = exponential{
		scale:  e.delta.scale,
		ranges: [2]buckets{{counts: e.ranges[0].counts[:0]}, {counts: e.ranges[1].counts[:0]}},
	}
	e.merge() // cannot overflow: checkExponential has summed the delta's buckets
	e.distribution = e.delta.distribution
}

// fits reports whether the delta can be added bucket by bucket as it stands, the usual case.
func (e *exponentialTotal) fits() bool {
	if e.scale != e.delta.scale || e.zeroThreshold != e.delta.zeroThreshold {
		return false
	}
	for i := range e.ranges {
		have, want := &e.ranges[i], &e.delta.ranges[i]
		if len(want.counts) > 0 &&
			(want.offset < have.offset || want.offset+int64(len(want.counts)) > have.offset+int64(len(have.counts))) {
			return false
		}
		// A delta may populate buckets that its own zero bucket covers.
		if e.zeroThreshold > 0 && len(want.counts) > 0 && bucketBound(want.offset, e.scale) < e.zeroThreshold {
			return false
		}
	}
	return true
}

// merge adds the delta at the finest scale and the narrowest zero bucket that take both within maxBuckets. The layout is
// found before anything is sized by it. It returns false, and changes nothing, if a count would overflow.
func (e *exponentialTotal) merge() bool {
	parts := [...]*exponential{&e.exponential, &e.delta}
	scale := min(e.scale, e.delta.scale)
	threshold := max(e.zeroThreshold, e.delta.zeroThreshold)
	var lo, hi [2]int64
	var zeroed int64 // buckets up to here at scale belong to the zero bucket
	for ; ; scale-- {
		threshold, zeroed = e.zeroBucket(threshold, scale)
		fit := true
		for i := range e.ranges {
			lo[i], hi[i] = math.MaxInt64, math.MinInt64
			for _, part := range parts {
				if from, to, ok := part.ranges[i].populated(part.scale-scale, zeroed); ok {
					lo[i], hi[i] = min(lo[i], from), max(hi[i], to)
				}
			}
			fit = fit && (lo[i] > hi[i] || hi[i]-lo[i] < maxBuckets)
		}
		if fit {
			break
		}
	}

	zero, carry := bits.Add64(e.zeroCount, e.delta.zeroCount, 0)
	for i := range e.ranges {
		n := int64(0)
		if lo[i] <= hi[i] {
			n = hi[i] - lo[i] + 1
		}
		merged := buckets{offset: lo[i], counts: append(e.spare[i][:0], make([]uint64, n)...)}
		for _, part := range parts {
			from, shift := &part.ranges[i], part.scale-scale
			for j, v := range from.counts {
				if v == 0 {
					continue
				}
				into := &zero
				if index := (from.offset + int64(j)) >> shift; index > zeroed {
					into = &merged.counts[index-merged.offset]
				}
				var c uint64
				*into, c = bits.Add64(*into, v, 0)
				carry |= c
			}
		}
		e.spare[i] = merged.counts
		if n == 0 {
			merged.offset = 0
		}
		lo[i] = merged.offset
	}
	if carry != 0 {
		return false
	}
	for i := range e.ranges {
		e.spare[i], e.ranges[i].counts = e.ranges[i].counts, e.spare[i]
		e.ranges[i].offset = lo[i]
	}
	e.zeroCount, e.zeroThreshold, e.scale = zero, threshold, scale
	return true
}

// zeroBucket widens the zero bucket to the upper bound of a populated bucket that the threshold cuts, and returns it with
// the index of the last bucket it covers at scale.
func (e *exponentialTotal) zeroBucket(threshold float64, scale int) (float64, int64) {
	if threshold <= 0 {
		return 0, math.MinInt64
	}
	// The bucket after the last one covered. The logarithm is only near; the bounds decide.
	i := int64(math.Floor(math.Ldexp(math.Log2(threshold), scale)))
	for bucketBound(i+1, scale) <= threshold {
		i++
	}
	for bucketBound(i, scale) > threshold {
		i--
	}
	if bucketBound(i, scale) == threshold {
		return threshold, i - 1
	}
	for _, part := range [...]*exponential{&e.exponential, &e.delta} {
		for j := range part.ranges {
			if part.ranges[j].holds(i, part.scale-scale) {
				return min(bucketBound(i+1, scale), math.MaxFloat64), i
			}
		}
	}
	return threshold, i - 1
}

// bucketBound returns the lower bound of a bucket: 2^(index * 2^-scale). Exact for scales up to zero.
func bucketBound(index int64, scale int) float64 {
	if scale <= 0 {
		return math.Ldexp(1, int(max(min(index<<-scale, 1<<20), -1<<20)))
	}
	whole := index >> scale
	part := index - whole<<scale
	return math.Ldexp(math.Exp2(math.Ldexp(float64(part), -scale)), int(whole))
}

// populated returns the first and the last index, shifted down, of a bucket above zeroed that is not empty.
func (b *buckets) populated(shift int, zeroed int64) (lo, hi int64, ok bool) {
	for j, v := range b.counts {
		if index := (b.offset + int64(j)) >> shift; v != 0 && index > zeroed {
			if !ok {
				lo, ok = index, true
			}
			hi = index
		}
	}
	return lo, hi, ok
}

// holds reports whether anything was counted in the bucket with this index after shifting down.
func (b *buckets) holds(index int64, shift int) bool {
	from := max(index<<shift-b.offset, 0)
	to := min((index+1)<<shift-b.offset, int64(len(b.counts)))
	for j := from; j < to; j++ {
		if b.counts[j] != 0 {
			return true
		}
	}
	return false
}

// overflow returns 1 if adding o, which lies within b, would wrap a count.
func (b *buckets) overflow(o buckets) (carry uint64) {
	if len(o.counts) == 0 {
		return 0
	}
	into := b.counts[o.offset-b.offset:]
	for j, v := range o.counts {
		_, c := bits.Add64(into[j], v, 0)
		carry |= c
	}
	return carry
}

func (b *buckets) add(o buckets) {
	if len(o.counts) == 0 {
		return
	}
	into := b.counts[o.offset-b.offset:]
	for j, v := range o.counts {
		into[j] += v
	}
}

func (e *exponential) read(dp pmetric.ExponentialHistogramDataPoint) {
	e.distribution = readDistribution(dp)
	e.scale = int(dp.Scale())
	e.zeroCount, e.zeroThreshold = dp.ZeroCount(), dp.ZeroThreshold()
	e.ranges[0].read(dp.Positive())
	e.ranges[1].read(dp.Negative())
}

// read takes the counts between the first and the last that is not zero.
func (b *buckets) read(src pmetric.ExponentialHistogramDataPointBuckets) {
	counts := src.BucketCounts()
	lo, hi := trim(counts)
	b.offset = int64(src.Offset()) + int64(lo)
	b.counts = b.counts[:0]
	for i := lo; i < hi; i++ {
		b.counts = append(b.counts, counts.At(i))
	}
}

func trim(counts pcommon.UInt64Slice) (lo, hi int) {
	hi = counts.Len()
	for lo < hi && counts.At(lo) == 0 {
		lo++
	}
	for lo < hi && counts.At(hi-1) == 0 {
		hi--
	}
	return lo, hi
}

func (e *exponential) write(dp pmetric.ExponentialHistogramDataPoint) {
	writeDistribution(dp, e.distribution)
	dp.SetScale(int32(e.scale))
	dp.SetZeroCount(e.zeroCount)
	dp.SetZeroThreshold(e.zeroThreshold)
	for i, b := range []pmetric.ExponentialHistogramDataPointBuckets{dp.Positive(), dp.Negative()} {
		b.SetOffset(int32(e.ranges[i].offset))
		b.BucketCounts().FromRaw(e.ranges[i].counts)
	}
}

// checkExponential returns the outcome of a malformed point, or false.
func checkExponential(dp pmetric.ExponentialHistogramDataPoint) (Outcome, bool) {
	if !readDistribution(dp).finite() || !finite(dp.ZeroThreshold()) {
		return DroppedNotFinite, true
	}
	scale := int(dp.Scale())
	if scale < minScale || scale > maxScale || dp.ZeroThreshold() < 0 {
		return DroppedScale, true
	}
	total, carry := dp.ZeroCount(), uint64(0)
	for _, b := range []pmetric.ExponentialHistogramDataPointBuckets{dp.Positive(), dp.Negative()} {
		counts := b.BucketCounts()
		lo, hi := trim(counts)
		if lo == hi {
			continue
		}
		offset := int64(b.Offset())
		if exponent(offset+int64(lo), scale) < minExponent || exponent(offset+int64(hi-1), scale) > maxExponent {
			return DroppedScale, true
		}
		for i := lo; i < hi; i++ {
			var c uint64
			total, c = bits.Add64(total, counts.At(i), 0)
			carry |= c
		}
	}
	if carry != 0 {
		return DroppedBuckets, true
	}
	return 0, false
}

// exponent returns the power of two in which a bucket begins.
func exponent(index int64, scale int) int64 {
	if scale >= 0 {
		return index >> scale
	}
	return index << -scale
}
