// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package fold

import (
	"math"
	"math/bits"
	"slices"
)

const (
	// MaxBuckets bounds the buckets of each sign, as the SDKs' default of 160 does at the source.
	MaxBuckets = 160

	// MinScale and MaxScale are the scales that a delta may have.
	MinScale, MaxScale = -10, 20

	// No float64 but zero is as small as 2^minExponent, none as large as 2^maxExponent.
	minExponent, maxExponent = -1075, 1024
)

// Exponential is the value of an exponential histogram.
type Exponential struct {
	exponentialHeader
	// The positive and the negative range. Their first and last buckets are not empty, but may become so where the
	// zero bucket grows.
	Ranges [2]Buckets
}

type exponentialHeader struct {
	Distribution
	ZeroCount     uint64
	ZeroThreshold float64
	Scale         int
}

// Buckets are the counts from bucket offset on; bucket i of a scale holds (2^(i*2^-scale), 2^((i+1)*2^-scale)].
type Buckets struct {
	Offset int64 // int64 because a point's offset plus its length may pass an int32
	Counts []uint64
}

// ExponentialTotal is the total of an exponential histogram and the delta to add. Its slices are scratch space.
type ExponentialTotal struct {
	Exponential
	Narrow [2][]uint32 // the total's counts as the stream keeps them, or nil once they are in ranges
	Delta  *Exponential
	spare  [2][]uint64

	printed bool      // counts are those of the delta
	counts  [2]uint64 // fingerprints
}

// Take has delta added next.
func (e *ExponentialTotal) Take(delta *Exponential) { e.Delta, e.printed = delta, false }

func (e *ExponentialTotal) add(*Rules) (Outcome, bool) {
	scale, threshold := e.Delta.Scale, e.Delta.ZeroThreshold
	if scale == e.Scale && threshold == e.ZeroThreshold {
		return e.addAligned()
	}
	e.align()
	o, ok := e.addAligned()
	e.Delta.Scale, e.Delta.ZeroThreshold = scale, threshold
	return o, ok
}

func (e *ExponentialTotal) addAligned() (Outcome, bool) {
	if !e.plus(&e.Delta.Distribution) {
		return RestartedOverflow, false
	}
	zero, carry := bits.Add64(e.ZeroCount, e.Delta.ZeroCount, 0)
	if carry != 0 {
		return RestartedOverflow, false
	}
	if !e.fits() {
		e.Complete()
		return RestartedOverflow, e.merge()
	}
	for i := range e.Ranges {
		if len(e.Ranges[i].Counts) == 0 { // nor has the delta any
			e.counts[i] = 0
			continue
		}
		var fits bool
		if e.counts[i], fits = e.Ranges[i].add(e.Narrow[i], &e.Delta.Ranges[i]); !fits {
			return RestartedOverflow, false
		}
	}
	e.ZeroCount, e.Narrow, e.printed = zero, [2][]uint32{}, true
	return 0, true
}

// align takes the scale of one of the two where the other has nothing in buckets, and its zero threshold where the other has
// nothing that is zero: who has counted nothing says nothing of how to count.
func (e *ExponentialTotal) align() {
	d := e.Delta
	if d.Buckets() == 0 {
		d.Scale = e.Scale
	} else if e.Buckets() == 0 {
		e.Scale = d.Scale
	}
	if d.ZeroCount == 0 {
		d.ZeroThreshold = e.ZeroThreshold
	} else if e.ZeroCount == 0 {
		e.ZeroThreshold = 0 // and becomes that of the delta where the two are merged
	}
}

// Complete unpacks the counts that are still narrow.
func (e *ExponentialTotal) Complete() {
	for i := range e.Ranges {
		unpackNarrow(e.Ranges[i].Counts, e.Narrow[i])
	}
	e.Narrow = [2][]uint32{}
}

// share leaves a histogram whole: nothing says which observations fell into which part of the interval.
func (e *ExponentialTotal) share(_, _ int64) {}

// Restart merges the delta into nothing, so that what is kept is bounded and normal from the first point on.
func (e *ExponentialTotal) Restart() {
	e.Narrow = [2][]uint32{}
	if e.Delta.ZeroThreshold == 0 && len(e.Delta.Ranges[0].Counts) <= MaxBuckets && len(e.Delta.Ranges[1].Counts) <= MaxBuckets {
		// It is so already. A new stream opens in two thirds of the time.
		e.exponentialHeader = e.Delta.exponentialHeader
		e.ZeroThreshold = 0 // not -0
		for i := range e.Ranges {
			from, to := &e.Delta.Ranges[i], &e.Ranges[i]
			to.Offset, to.Counts = from.Offset, append(to.Counts[:0], from.Counts...)
		}
		return
	}
	e.exponentialHeader = exponentialHeader{Scale: e.Delta.Scale}
	for i := range e.Ranges {
		e.Ranges[i] = Buckets{Counts: e.Ranges[i].Counts[:0]}
	}
	e.merge() // cannot overflow: inspect has summed the delta's buckets
	e.Distribution = e.Delta.Distribution
}

// fits reports whether the delta can be added bucket by bucket as it stands, the usual case.
func (e *ExponentialTotal) fits() bool {
	if e.Scale != e.Delta.Scale || e.ZeroThreshold != e.Delta.ZeroThreshold {
		return false
	}
	for i := range e.Ranges {
		have, want := &e.Ranges[i], &e.Delta.Ranges[i]
		if len(want.Counts) == 0 {
			continue
		}
		if want.Offset < have.Offset || want.end() > have.end() {
			return false
		}
		// A delta may populate buckets that its own zero bucket covers.
		if e.ZeroThreshold > 0 && bucketBound(want.Offset, e.Scale) < e.ZeroThreshold {
			return false
		}
	}
	return true
}

// merge adds the delta at the finest scale and the narrowest zero bucket that take both within maxBuckets. The layout is
// found before anything is sized by it. It returns false, and changes nothing, if a count would overflow.
func (e *ExponentialTotal) merge() bool {
	m := merger{threshold: max(e.ZeroThreshold, e.Delta.ZeroThreshold), scale: min(e.Scale, e.Delta.Scale)}
	for i := range e.Ranges {
		m.parts[i] = [2]Buckets{e.Ranges[i], e.Delta.Ranges[i]}
	}
	m.scales = [2]int{e.Scale, e.Delta.Scale}
	m.plan()

	zero, carry := bits.Add64(e.ZeroCount, e.Delta.ZeroCount, 0)
	for i, parts := range m.parts {
		n := max(m.hi[i]-m.lo[i]+1, 0)
		merged := slices.Grow(e.spare[i][:0], int(n))[:n]
		clear(merged)
		e.spare[i] = merged
		for k := range parts {
			part, shift := &parts[k], m.scales[k]-m.scale
			for j, v := range part.Counts {
				if v == 0 {
					continue
				}
				into := &zero
				if index := (part.Offset + int64(j)) >> shift; index > m.zeroed {
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
	for i := range e.Ranges {
		e.spare[i], e.Ranges[i].Counts = e.Ranges[i].Counts, e.spare[i]
		e.Ranges[i].Offset = m.lo[i]
	}
	e.ZeroCount, e.ZeroThreshold, e.Scale = zero, m.threshold, m.scale
	return true
}

// merger plans the layout that takes two exponential histograms.
type merger struct {
	parts     [2][2]Buckets // by sign, then total and delta
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
			fit = fit && m.hi[i]-m.lo[i] < MaxBuckets
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
func (b *Buckets) end() int64 { return b.Offset + int64(len(b.Counts)) }

// populated returns the first and the last index, shifted down, of a bucket above zeroed that is not empty.
func (b *Buckets) populated(shift int, zeroed int64) (lo, hi int64, ok bool) {
	for j, v := range b.Counts {
		if index := (b.Offset + int64(j)) >> shift; index > zeroed && v != 0 {
			if !ok {
				lo, ok = index, true
			}
			hi = index
		}
	}
	return lo, hi, ok
}

// holds reports whether anything was counted in the bucket with this index after shifting down.
func (b *Buckets) holds(index int64, shift int) bool {
	from := max(index<<shift-b.Offset, 0)
	to := min((index+1)<<shift-b.Offset, int64(len(b.Counts)))
	for j := from; j < to; j++ {
		if b.Counts[j] != 0 {
			return true
		}
	}
	return false
}

// add adds o, which lies within b, to the counts of b, or to the narrow ones if these are not yet there. It returns the
// fingerprint of o's counts, and false if a count has wrapped.
func (b *Buckets) add(narrow []uint32, o *Buckets) (print uint64, fits bool) {
	lo := 0
	if len(o.Counts) > 0 {
		lo = int(o.Offset - b.Offset)
	}
	hi := lo + len(o.Counts)
	if narrow != nil {
		unpackNarrow(b.Counts[:lo], narrow[:lo])
		unpackNarrow(b.Counts[hi:], narrow[hi:])
		narrow = narrow[lo:hi]
	}
	return addCounts(b.Counts[lo:hi], narrow, o.Counts)
}

// Useful reports whether a float64 lies between the bounds of each bucket.
func (b *Buckets) Useful(scale int) bool {
	return len(b.Counts) == 0 || !boundAtMost(b.Offset+1, scale, minExponent) && boundAtMost(b.end(), scale, maxExponent)
}

// boundAtMost reports whether the lower bound of a bucket is not above 2^exponent.
func boundAtMost(index int64, scale int, exponent int64) bool {
	if scale >= 0 {
		return index <= exponent<<scale
	}
	return index<<-scale <= exponent
}

// Buckets returns the number of buckets of both signs.
func (e *Exponential) Buckets() int { return len(e.Ranges[0].Counts) + len(e.Ranges[1].Counts) }
