// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"math/bits"

	"go.opentelemetry.io/collector/pdata/pmetric"
)

// distribution is what both kinds of histogram have besides buckets.
type distribution struct {
	count         uint64
	sum, min, max float64
	has           presence
	// wide is set in a total that is kept with two words per bucket.
	wide bool
}

// presence says which optional fields a distribution has.
type presence uint8

const (
	hasSum presence = 1 << iota
	hasMin
	hasMax
)

// plus adds o, or returns false if a count or a sum would overflow; d is of no use then. An optional field is kept while
// every delta that counts anything has it.
func (d *distribution) plus(o *distribution) bool {
	switch {
	case o.count == 0:
		return true
	case d.count == 0:
		*d = *o
		return true
	}
	var carry uint64
	d.count, carry = bits.Add64(d.count, o.count, 0)
	d.has &= o.has
	if d.has&hasSum != 0 {
		d.sum += o.sum
	}
	d.min = min(d.min, o.min)
	d.max = max(d.max, o.max)
	return carry == 0 && finite(d.sum)
}

// finite reports whether no field that is there is a NaN or an infinity.
func (d *distribution) finite() bool {
	// Absent fields are zero.
	return finite(d.sum) && finite(d.min) && finite(d.max)
}

// finite is false for NaN and for infinities, whose difference from themselves is NaN.
func finite(v float64) bool { return v-v == 0 }

// readHistogram and readExponential are one text twice: through a type parameter every accessor is an indirect call, which
// costs a histogram point 12 % of its time.

func (d *distribution) readHistogram(dp pmetric.HistogramDataPoint) {
	*d = distribution{count: dp.Count()}
	if dp.HasSum() {
		d.sum, d.has = dp.Sum(), d.has|hasSum
	}
	if dp.HasMin() {
		d.min, d.has = dp.Min(), d.has|hasMin
	}
	if dp.HasMax() {
		d.max, d.has = dp.Max(), d.has|hasMax
	}
}

func (d *distribution) readExponential(dp pmetric.ExponentialHistogramDataPoint) {
	*d = distribution{count: dp.Count()}
	if dp.HasSum() {
		d.sum, d.has = dp.Sum(), d.has|hasSum
	}
	if dp.HasMin() {
		d.min, d.has = dp.Min(), d.has|hasMin
	}
	if dp.HasMax() {
		d.max, d.has = dp.Max(), d.has|hasMax
	}
}

func (d *distribution) writeHistogram(dp pmetric.HistogramDataPoint) {
	dp.SetCount(d.count)
	if d.has&hasSum != 0 {
		dp.SetSum(d.sum)
	} else {
		dp.RemoveSum()
	}
	if d.has&hasMin != 0 {
		dp.SetMin(d.min)
	} else {
		dp.RemoveMin()
	}
	if d.has&hasMax != 0 {
		dp.SetMax(d.max)
	} else {
		dp.RemoveMax()
	}
}

func (d *distribution) writeExponential(dp pmetric.ExponentialHistogramDataPoint) {
	dp.SetCount(d.count)
	if d.has&hasSum != 0 {
		dp.SetSum(d.sum)
	} else {
		dp.RemoveSum()
	}
	if d.has&hasMin != 0 {
		dp.SetMin(d.min)
	} else {
		dp.RemoveMin()
	}
	if d.has&hasMax != 0 {
		dp.SetMax(d.max)
	} else {
		dp.RemoveMax()
	}
}
