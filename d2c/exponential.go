// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"math"
	"math/bits"
	"slices"

	"go.opentelemetry.io/collector/pdata/pmetric"
)

const (
	// maxBuckets bounds the buckets of each sign, as the SDKs' default of 160 does at the source.
	maxBuckets = 160

	minScale, maxScale = -10, 20

	// No float64 but zero is as small as 2^minExponent, none as large as 2^maxExponent.
	minExponent, maxExponent = -1075, 1024
)

// exponential is the value of an exponential histogram.
type exponential struct {
	exponentialHeader
	// The positive and the negative range. Their first and last buckets are not empty, but may become so where the
	// zero bucket grows.
	ranges [2]buckets
}

type exponentialHeader struct {
	distribution
	zeroCount     uint64
	zeroThreshold float64
	scale         int
}

// buckets are the counts from bucket offset on; bucket i of a scale holds (2^(i*2^-scale), 2^((i+1)*2^-scale)].
type buckets struct {
	offset int64 // int64 because a point's offset plus its length may pass an int32
	counts []uint64
}

// exponentialPoint is a data point on its way, with its value as long as that is the delta. Its ranges are the data
// point's, between the first and the last bucket that is not empty: a point may have a million buckets, and is not copied to
// find that two of them count.
type exponentialPoint struct {
	pmetric.ExponentialHistogramDataPoint
	exponential
}

// exponentialTotal is the total of an exponential histogram and the delta to add. Its slices are scratch space.
type exponentialTotal struct {
	exponential
	narrow [2][]uint32 // the total's counts as the stream keeps them, or nil once they are in ranges
	delta  *exponential
	spare  [2][]uint64
}

func (e *exponentialTotal) add() (Outcome, bool) {
	if !e.plus(&e.delta.distribution) {
		return RestartedOverflow, false
	}
	zero, carry := bits.Add64(e.zeroCount, e.delta.zeroCount, 0)
	if carry != 0 {
		return RestartedOverflow, false
	}
	if !e.fits() {
		e.complete()
		return RestartedOverflow, e.merge()
	}
	for i := range e.ranges {
		if !e.ranges[i].add(e.narrow[i], &e.delta.ranges[i]) {
			return RestartedOverflow, false
		}
	}
	e.zeroCount, e.narrow = zero, [2][]uint32{}
	return 0, true
}

func (e *exponentialTotal) complete() {
	for i := range e.ranges {
		unpackNarrow(e.ranges[i].counts, e.narrow[i])
	}
	e.narrow = [2][]uint32{}
}

// share leaves a histogram whole: nothing says which observations fell into which part of the interval.
func (e *exponentialTotal) share(_, _ int64) {}

// restart merges the delta into nothing, so that what is kept is bounded and normal from the first point on.
func (e *exponentialTotal) restart() {
	e.narrow = [2][]uint32{}
	if e.delta.zeroThreshold == 0 && len(e.delta.ranges[0].counts) <= maxBuckets && len(e.delta.ranges[1].counts) <= maxBuckets {
		// It is so already. A new stream opens in two thirds of the time.
		e.exponentialHeader = e.delta.exponentialHeader
		e.zeroThreshold = 0 // not -0
		for i := range e.ranges {
			from, to := &e.delta.ranges[i], &e.ranges[i]
			to.offset, to.counts = from.offset, append(to.counts[:0], from.counts...)
		}
		return
	}
	e.exponentialHeader = exponentialHeader{scale: e.delta.scale}
	for i := range e.ranges {
		e.ranges[i] = buckets{counts: e.ranges[i].counts[:0]}
	}
	e.merge() // cannot overflow: inspect has summed the delta's buckets
	e.distribution = e.delta.distribution
}

// fits reports whether the delta can be added bucket by bucket as it stands, the usual case.
func (e *exponentialTotal) fits() bool {
	if e.scale != e.delta.scale || e.zeroThreshold != e.delta.zeroThreshold {
		return false
	}
	for i := range e.ranges {
		have, want := &e.ranges[i], &e.delta.ranges[i]
		if len(want.counts) == 0 {
			continue
		}
		if want.offset < have.offset || want.end() > have.end() {
			return false
		}
		// A delta may populate buckets that its own zero bucket covers.
		if e.zeroThreshold > 0 && bucketBound(want.offset, e.scale) < e.zeroThreshold {
			return false
		}
	}
	return true
}

// merge adds the delta at the finest scale and the narrowest zero bucket that take both within maxBuckets. The layout is
// found before anything is sized by it. It returns false, and changes nothing, if a count would overflow.
func (e *exponentialTotal) merge() bool {
	m := merger{threshold: max(e.zeroThreshold, e.delta.zeroThreshold), scale: min(e.scale, e.delta.scale)}
	for i := range e.ranges {
		m.parts[i] = [2]buckets{e.ranges[i], e.delta.ranges[i]}
	}
	m.scales = [2]int{e.scale, e.delta.scale}
	m.plan()

	zero, carry := bits.Add64(e.zeroCount, e.delta.zeroCount, 0)
	for i, parts := range m.parts {
		n := max(m.hi[i]-m.lo[i]+1, 0)
		merged := slices.Grow(e.spare[i][:0], int(n))[:n]
		clear(merged)
		e.spare[i] = merged
		for k := range parts {
			part, shift := &parts[k], m.scales[k]-m.scale
			for j, v := range part.counts {
				if v == 0 {
					continue
				}
				into := &zero
				if index := (part.offset + int64(j)) >> shift; index > m.zeroed {
					into = &merged[index-m.lo[i]]
				}
				var c uint64
				*into, c = bits.Add64(*into, v, 0)
				carry |= c
			}
		}
	}
	if carry != 0 {
		return false
	}
	for i := range e.ranges {
		e.spare[i], e.ranges[i].counts = e.ranges[i].counts, e.spare[i]
		e.ranges[i].offset = m.lo[i]
	}
	e.zeroCount, e.zeroThreshold, e.scale = zero, m.threshold, m.scale
	return true
}

// merger plans the layout that takes two exponential histograms.
type merger struct {
	parts     [2][2]buckets // by sign, then total and delta
	scales    [2]int        // of total and delta
	scale     int
	threshold float64
	zeroed    int64    // buckets up to here at scale belong to the zero bucket
	lo, hi    [2]int64 // the buckets to keep, by sign; 0 and -1 for none
}

// plan lowers scale and raises threshold as far as needed and finds the rest.
func (m *merger) plan() {
	for ; ; m.scale-- {
		m.widenZero()
		fit := true
		for i := range m.parts {
			m.lo[i], m.hi[i] = 0, -1
			for k := range m.parts[i] {
				lo, hi, ok := m.parts[i][k].populated(m.scales[k]-m.scale, m.zeroed)
				switch {
				case !ok:
				case m.hi[i] < m.lo[i]:
					m.lo[i], m.hi[i] = lo, hi
				default:
					m.lo[i], m.hi[i] = min(m.lo[i], lo), max(m.hi[i], hi)
				}
			}
			fit = fit && m.hi[i]-m.lo[i] < maxBuckets
		}
		if fit {
			return
		}
	}
}

// widenZero raises the threshold to the upper bound of a populated bucket that it cuts, and finds the last bucket covered.
func (m *merger) widenZero() {
	if m.threshold <= 0 {
		m.threshold, m.zeroed = 0, math.MinInt64
		return
	}
	i, atBound := bucketOf(m.threshold, m.scale)
	m.zeroed = i - 1
	if atBound {
		return
	}
	for _, parts := range m.parts {
		for k := range parts {
			if parts[k].holds(i, m.scales[k]-m.scale) {
				m.threshold, m.zeroed = min(bucketBound(i+1, m.scale), math.MaxFloat64), i
				return
			}
		}
	}
}

// bucketOf returns the last bucket whose lower bound is not above v, and whether it is v.
func bucketOf(v float64, scale int) (index int64, atBound bool) {
	mantissa, exponent := math.Frexp(v)
	mantissa *= 2 // 1 <= mantissa < 2, also of a subnormal v
	exponent--
	if scale <= 0 {
		index = int64(exponent) >> -scale
		return index, mantissa == 1 && index<<-scale == int64(exponent)
	}
	// The logarithm is only near; the bounds decide.
	part := int64(math.Ldexp(math.Log2(mantissa), scale))
	for part+1 < 1<<scale && octave(part+1, scale) <= mantissa {
		part++
	}
	for part > 0 && octave(part, scale) > mantissa {
		part--
	}
	return int64(exponent)<<scale + part, octave(part, scale) == mantissa
}

// octave returns 2^(part * 2^-scale).
func octave(part int64, scale int) float64 { return math.Exp2(math.Ldexp(float64(part), -scale)) }

// bucketBound returns the lower bound of a bucket: 2^(index * 2^-scale). Exact for scales up to zero.
func bucketBound(index int64, scale int) float64 {
	if scale <= 0 {
		return math.Ldexp(1, int(index<<-scale))
	}
	whole := index >> scale
	return math.Ldexp(octave(index-whole<<scale, scale), int(whole))
}

// end returns the offset behind the last bucket.
func (b *buckets) end() int64 { return b.offset + int64(len(b.counts)) }

// populated returns the first and the last index, shifted down, of a bucket above zeroed that is not empty.
func (b *buckets) populated(shift int, zeroed int64) (lo, hi int64, ok bool) {
	for j, v := range b.counts {
		if index := (b.offset + int64(j)) >> shift; index > zeroed && v != 0 {
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

// add adds o, which lies within b, to the counts of b, or to the narrow ones if these are not yet there. It returns false if
// a count has wrapped.
func (b *buckets) add(narrow []uint32, o *buckets) bool {
	lo := 0
	if len(o.counts) > 0 {
		lo = int(o.offset - b.offset)
	}
	hi := lo + len(o.counts)
	if narrow != nil {
		unpackNarrow(b.counts[:lo], narrow[:lo])
		unpackNarrow(b.counts[hi:], narrow[hi:])
		narrow = narrow[lo:hi]
	}
	return addCounts(b.counts[lo:hi], narrow, o.counts)
}

// read takes the delta from a point.
func (e *exponentialTotal) read(p *exponentialPoint) { e.delta = &p.exponential }

// read takes the buckets between the first and the last that is not empty.
func (b *buckets) read(src pmetric.ExponentialHistogramDataPointBuckets) {
	counts := countsOf(src.BucketCounts())
	lo, hi := 0, len(counts)
	for lo < hi && counts[lo] == 0 {
		lo++
	}
	for lo < hi && counts[hi-1] == 0 {
		hi--
	}
	if lo == hi {
		*b = buckets{}
		return
	}
	b.offset, b.counts = int64(src.Offset())+int64(lo), counts[lo:hi]
}

// write puts the total into the point that held the delta.
func (e *exponential) write(p *exponentialPoint) {
	e.writeExponential(p.ExponentialHistogramDataPoint)
	p.SetScale(int32(e.scale))
	p.SetZeroCount(e.zeroCount)
	p.SetZeroThreshold(e.zeroThreshold)
	e.ranges[0].write(p.Positive())
	e.ranges[1].write(p.Negative())
}

func (b *buckets) write(to pmetric.ExponentialHistogramDataPointBuckets) {
	to.SetOffset(int32(b.offset))
	to.BucketCounts().FromRaw(b.counts)
}

// inspect reads the point, and returns its outcome if it is malformed.
func (p *exponentialPoint) inspect() (o Outcome, malformed bool) {
	p.readExponential(p.ExponentialHistogramDataPoint)
	p.scale, p.zeroCount, p.zeroThreshold = int(p.Scale()), p.ZeroCount(), p.ZeroThreshold()
	p.ranges[0].read(p.Positive())
	p.ranges[1].read(p.Negative())
	if !p.finite() || !finite(p.zeroThreshold) {
		return DroppedNotFinite, true
	}
	if p.scale < minScale || p.scale > maxScale || p.zeroThreshold < 0 {
		return DroppedScale, true
	}
	total, carry := p.zeroCount, uint64(0)
	for i := range p.ranges {
		b := &p.ranges[i]
		if !b.useful(p.scale) {
			return DroppedScale, true
		}
		for _, v := range b.counts {
			var c uint64
			total, c = bits.Add64(total, v, 0)
			carry |= c
		}
	}
	if carry != 0 {
		return DroppedBuckets, true
	}
	return 0, false
}

// useful reports whether a float64 lies between the bounds of each bucket.
func (b *buckets) useful(scale int) bool {
	return len(b.counts) == 0 || !boundAtMost(b.offset+1, scale, minExponent) && boundAtMost(b.end(), scale, maxExponent)
}

// boundAtMost reports whether the lower bound of a bucket is not above 2^exponent.
func boundAtMost(index int64, scale int, exponent int64) bool {
	if scale >= 0 {
		return index <= exponent<<scale
	}
	return index<<-scale <= exponent
}
