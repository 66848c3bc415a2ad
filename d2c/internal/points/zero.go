// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package points

import (
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// Zero is a sample of value zero, with which a life begins: what it takes besides the point of the delta that begins it.
type Zero struct {
	Start, Time int64
	Threshold   float64 // as the next two, of an exponential histogram
	Scale       int
	HasSum      bool // of both kinds of histograms
	Double      bool // of a sum
}

// AddZero has a zero come out just before the point of the item.
func (b *Batch) AddZero(it *Item, z Zero) {
	b.zeros = append(b.zeros, z)
	for len(b.zeroOf) < len(b.outcomes) {
		b.zeroOf = append(b.zeroOf, 0)
	}
	b.zeroOf[it.position] = int32(len(b.zeros))
}

// DropZero takes the item's zero back.
func (b *Batch) DropZero(it *Item) {
	if len(b.zeroOf) > 0 {
		b.zeroOf[it.position] = 0
	}
}

// MoveZero gives the zero of an item, if it has one, to another, which has the sample that it comes before.
func (b *Batch) MoveZero(from, to *Item) {
	if len(b.zeroOf) > 0 {
		b.zeroOf[from.position], b.zeroOf[to.position] = 0, b.zeroOf[from.position]
	}
}

// findZeros lists the items that have zeros.
func (b *Batch) findZeros() {
	if len(b.zeros) == 0 {
		return
	}
	for i := range b.Items {
		if b.zeroOf[b.Items[i].position] != 0 {
			b.begun = append(b.begun, int32(i))
		}
	}
	b.Zeros = uint64(len(b.begun))
}

// beginning reports whether a metric, whose points begin at a position, has a point with a zero.
func (b *Batch) beginning(m pmetric.Metric, position int32) bool {
	if len(b.begun) == 0 {
		return false
	}
	n := pointsOf(m)
	return b.Items[b.begun[0]].position < position+int32(n)
}

// nextZero returns the item that begins a life at a position, or nil.
func (b *Batch) nextZero(position int32) *Item {
	if len(b.begun) == 0 {
		return nil
	}
	it := &b.Items[b.begun[0]]
	if it.position != position {
		return nil
	}
	b.begun = b.begun[1:]
	return it
}

// putZeros writes the points of a metric anew, with zeros and without those that are removed, and returns the position after them.
// Not every point costs this work, because lives begin rarely.
func (b *Batch) putZeros(m pmetric.Metric, position int32) int32 {
	switch m.Type() {
	case pmetric.MetricTypeSum:
		from, to := m.Sum().DataPoints(), pmetric.NewNumberDataPointSlice()
		to.EnsureCapacity(from.Len() + len(b.begun))
		for _, dp := range from.All() {
			if it := b.nextZero(position); it != nil {
				b.zeroNumber(to.AppendEmpty(), dp, it)
			}
			if !removed(b.outcomes[position]) {
				dp.MoveTo(to.AppendEmpty())
			}
			position++
		}
		from.RemoveIf(func(pmetric.NumberDataPoint) bool { return true })
		to.MoveAndAppendTo(from)
	case pmetric.MetricTypeHistogram:
		from, to := m.Histogram().DataPoints(), pmetric.NewHistogramDataPointSlice()
		for _, dp := range from.All() {
			if it := b.nextZero(position); it != nil {
				b.zeroHistogram(to.AppendEmpty(), dp, it)
			}
			if !removed(b.outcomes[position]) {
				dp.MoveTo(to.AppendEmpty())
			}
			position++
		}
		from.RemoveIf(func(pmetric.HistogramDataPoint) bool { return true })
		to.MoveAndAppendTo(from)
	case pmetric.MetricTypeExponentialHistogram:
		from, to := m.ExponentialHistogram().DataPoints(), pmetric.NewExponentialHistogramDataPointSlice()
		for _, dp := range from.All() {
			if it := b.nextZero(position); it != nil {
				b.zeroExponential(to.AppendEmpty(), dp, it)
			}
			if !removed(b.outcomes[position]) {
				dp.MoveTo(to.AppendEmpty())
			}
			position++
		}
		from.RemoveIf(func(pmetric.ExponentialHistogramDataPoint) bool { return true })
		to.MoveAndAppendTo(from)
	}
	return position
}

func (b *Batch) zeroNumber(to, dp pmetric.NumberDataPoint, it *Item) {
	z := &b.zeros[b.zeroOf[it.position]-1]
	dp.Attributes().CopyTo(to.Attributes())
	to.SetStartTimestamp(pcommon.Timestamp(z.Start))
	to.SetTimestamp(pcommon.Timestamp(z.Time))
	if z.Double {
		to.SetDoubleValue(0)
	} else {
		to.SetIntValue(0)
	}
}

func (b *Batch) zeroHistogram(to, dp pmetric.HistogramDataPoint, it *Item) {
	z := &b.zeros[b.zeroOf[it.position]-1]
	dp.Attributes().CopyTo(to.Attributes())
	to.SetStartTimestamp(pcommon.Timestamp(z.Start))
	to.SetTimestamp(pcommon.Timestamp(z.Time))
	if it.Withheld() { // then its delta begins the life, whose bounds are those of the delta
		value := &b.histograms[it.point].value
		to.ExplicitBounds().FromRaw(value.Bounds)
		to.BucketCounts().FromRaw(make([]uint64, len(value.Counts)))
	} else {
		dp.ExplicitBounds().CopyTo(to.ExplicitBounds())
		to.BucketCounts().FromRaw(make([]uint64, dp.BucketCounts().Len()))
	}
	if z.HasSum {
		to.SetSum(0)
	}
}

func (b *Batch) zeroExponential(to, dp pmetric.ExponentialHistogramDataPoint, it *Item) {
	z := &b.zeros[b.zeroOf[it.position]-1]
	dp.Attributes().CopyTo(to.Attributes())
	to.SetStartTimestamp(pcommon.Timestamp(z.Start))
	to.SetTimestamp(pcommon.Timestamp(z.Time))
	to.SetScale(int32(z.Scale))
	to.SetZeroThreshold(z.Threshold)
	if z.HasSum {
		to.SetSum(0)
	}
}
