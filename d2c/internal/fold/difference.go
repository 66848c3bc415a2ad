// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package fold

import (
	"math"
	"math/bits"
)

// The difference of two cumulative values of one producer is the delta between them: added to the earlier, it gives the later
// again. Where there is none, the producer has begun anew, and what it says now is a delta of its own. Both values are as points
// are read: numbers are finite, scales within MinScale and MaxScale, buckets useful. A total is one of the two only when it is
// complete, as narrow counts are not looked at.

// Minus returns what n, a cumulative value, holds beyond last, an earlier one. It is a double if one of them is. fell is true
// where there is no such delta: it would not fit its type, or be negative in a monotonic sum.
func (n Number) Minus(last Number, monotonic bool) (delta Number, fell bool) {
	if !n.Double && !last.Double {
		a, b := n.Int(), last.Int()
		d := a - b
		// Overflow is when the signs differ and the difference has not that of the first.
		if (a^b)&(a^d) < 0 || monotonic && a < b {
			return Number{}, true
		}
		return IntNumber(d), false
	}
	d := n.Float() - last.Float()
	if !Finite(d) || monotonic && d < 0 {
		return Number{}, true
	}
	return DoubleNumber(d), false
}

// difference makes d what now holds beyond last, or reports that there is no such delta; d is of no use then. A last that counts
// nothing says nothing, as where one is added to.
func (d *Distribution) difference(now, last *Distribution) (fell bool) {
	switch {
	case last.Count == 0:
		*d = *now
		d.Wide = false
		return false
	case now.Count < last.Count:
		return true
	}
	// The minimum and the maximum may be of any time before.
	*d = Distribution{Count: now.Count - last.Count, Rest: now.Rest, Has: now.Has & last.Has & HasSum}
	if d.Has != 0 {
		d.Sum = now.Sum - last.Sum // may be negative, as measurements may be
	}
	return !Finite(d.Sum)
}

// Difference makes h what now, a cumulative value, holds beyond last, an earlier one of the same producer. fell is true where
// there is no such delta: bounds or the number of buckets are others, a count is lower, or the sums are too far apart; h is of no
// use then. It writes to counts of its own only, which must be neither's, and shares the bounds of now.
func (h *Histogram) Difference(now, last *Histogram) (fell bool) {
	if h.difference(&now.Distribution, &last.Distribution) {
		return true
	}
	h.Bounds = now.Bounds
	h.Counts = append(h.Counts[:0], now.Counts...)
	if last.fit(now) == OtherBounds {
		return !last.Nothing() // nothing was counted under the bounds that there were
	}
	return !subtractCounts(h.Counts, last.Counts)
}

// subtractCounts subtracts last, which is as long, from counts. It returns false if a count has wrapped.
func subtractCounts(counts, last []uint64) (fits bool) {
	counts = counts[:len(last)]
	var wrapped uint64
	for i, v := range last {
		var borrow uint64
		counts[i], borrow = bits.Sub64(counts[i], v, 0)
		wrapped |= borrow
	}
	return wrapped == 0
}

// Difference makes e what now, a cumulative value, holds beyond last, an earlier one of the same producer, with the scale of now.
// fell is true where there is no such delta: now has a finer scale, a narrower zero bucket, or a lower count, or the sums are too
// far apart; e is of no use then. As where one is added to another, who has counted nothing says nothing of how to count. It
// writes to counts of its own only, which must be neither's.
//
// Both must be as their points say, or both as a total that was restarted with them: that may have a lower scale and a wider
// zero bucket.
func (e *Exponential) Difference(now, last *Exponential) (fell bool) {
	if e.difference(&now.Distribution, &last.Distribution) {
		return true
	}
	d := subtraction{zeroed: math.MinInt64, zeros: [2]uint64{now.ZeroCount, last.ZeroCount}}
	e.Scale, e.ZeroThreshold = now.Scale, now.ZeroThreshold
	if !last.noBuckets() {
		if now.noBuckets() { // the zero bucket may cover them all
			e.Scale = last.Scale
		}
		if d.shift = last.Scale - e.Scale; d.shift < 0 {
			return true // nobody can divide buckets
		}
	}
	switch {
	case now.ZeroCount == 0:
	case now.ZeroThreshold == last.ZeroThreshold:
		// What is in a bucket that the zero bucket cuts or covers was there before.
	case now.ZeroThreshold < last.ZeroThreshold && last.ZeroCount > 0:
		return true
	default:
		d.widenZero(e, last)
	}
	for i := range e.Ranges {
		if !d.subtract(&e.Ranges[i], &now.Ranges[i], &last.Ranges[i]) {
			return true
		}
	}
	if d.overflow || d.zeros[0] < d.zeros[1] {
		return true
	}
	if e.ZeroCount = d.zeros[0] - d.zeros[1]; e.ZeroCount == 0 {
		e.ZeroThreshold = 0 // it would be of nothing
	}
	return false
}

// noBuckets reports whether nothing is counted in buckets.
func (e *Exponential) noBuckets() bool {
	return allZero(e.Ranges[0].Counts) && allZero(e.Ranges[1].Counts)
}

// subtraction is how one exponential histogram is taken off another.
type subtraction struct {
	shift    int       // by which buckets of last are moved down
	zeroed   int64     // buckets up to here, at the scale of now, belong to the zero bucket of both
	zeros    [2]uint64 // zero counts of now and last
	overflow bool      // one of them has wrapped, which no sound producer's does
}

// widenZero finds what the zero bucket covers which has grown since last. The producer may have moved what it had in these
// buckets, so that both must be taken for zero. If it was in a bucket that the zero bucket cuts, it may have moved or not, and
// e gets the zero bucket that merging would make.
func (d *subtraction) widenZero(e, last *Exponential) {
	m := merger{threshold: e.ZeroThreshold, scale: e.Scale, scales: [2]int{e.Scale + d.shift, e.Scale}}
	for i := range m.parts {
		// Not now's: what is new in such a bucket can stay until it is added.
		m.parts[i][0] = last.Ranges[i]
	}
	m.widenZero()
	e.ZeroThreshold, d.zeroed = m.threshold, m.zeroed
}

// subtract makes to what now holds beyond last, or returns false.
func (d *subtraction) subtract(to, now, last *Buckets) bool {
	to.Offset, to.Counts = now.Offset, append(to.Counts[:0], now.Counts...)
	if d.zeroed >= to.Offset {
		covered := to.Counts[:min(d.zeroed-to.Offset+1, int64(len(to.Counts)))]
		for _, v := range covered {
			d.zero(0, v)
		}
		clear(covered)
	}
	if d.shift == 0 && d.zeroed < last.Offset && last.Offset >= to.Offset && last.end() <= to.end() {
		if !subtractCounts(to.Counts[last.Offset-to.Offset:][:len(last.Counts)], last.Counts) { // the usual case
			return false
		}
	} else {
		for j, v := range last.Counts {
			if v == 0 {
				continue
			}
			index := (last.Offset + int64(j)) >> d.shift
			if index <= d.zeroed {
				d.zero(1, v)
				continue
			}
			if index < to.Offset || index >= to.end() || to.Counts[index-to.Offset] < v {
				return false
			}
			to.Counts[index-to.Offset] -= v
		}
	}
	to.trim()
	return true
}

// zero counts n observations more as zero, in now or in last.
func (d *subtraction) zero(which int, n uint64) {
	var carry uint64
	d.zeros[which], carry = bits.Add64(d.zeros[which], n, 0)
	d.overflow = d.overflow || carry != 0
}

// trim removes the empty buckets at both ends. The others are moved to the front, so that the slice can take as many again.
func (b *Buckets) trim() {
	lo, hi := 0, len(b.Counts)
	for lo < hi && b.Counts[lo] == 0 {
		lo++
	}
	for lo < hi && b.Counts[hi-1] == 0 {
		hi--
	}
	b.Offset += int64(lo)
	if lo == hi {
		b.Offset = 0
	}
	b.Counts = b.Counts[:copy(b.Counts, b.Counts[lo:hi])]
}
