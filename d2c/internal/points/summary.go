// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package points

import (
	"math"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c/internal/fold"
	"github.com/deltaring/deltaring/d2c/internal/table"
)

// A summary whose count and sum are deltas is folded as a histogram without buckets: the same rules, the same records. Its
// identity says that it is none. Quantiles are not for adding up, and stay as they came. The value of an item is the number of
// its point.

func (b *Batch) identifySummaries(m pmetric.Metric, who *identity) {
	dps := m.Summary().DataPoints()
	for i := range dps.Len() {
		dp := dps.At(i)
		it := b.item(table.KindHistogram, len(b.histograms))
		it.Value, it.flags = uint64(len(b.summaries)), flagSummary
		if !b.timed(it, dp.StartTimestamp(), dp.Timestamp(), dp.Flags()) {
			continue
		}
		var v fold.Histogram
		if !it.Marker {
			v.Count, v.Sum, v.Has = dp.Count(), dp.Sum(), fold.HasSum
			if v.Count == 0 {
				v.Calm() // a library may say that the sum of no values is not a number
			}
			if !v.Finite() {
				b.malformed(fold.DroppedNotFinite)
				continue
			}
			v.Rest = printQuantiles(dp.QuantileValues())
			b.spare += sparePerPoint
		}
		b.histograms = append(b.histograms, histogramPoint{value: v})
		b.summaries = append(b.summaries, dp)
		b.identified(it, who, dp.Attributes())
	}
}

// printQuantiles makes a fingerprint.
func printQuantiles(quantiles pmetric.SummaryDataPointValueAtQuantileSlice) uint32 {
	h := uint64(quantiles.Len())
	for i := range quantiles.Len() {
		q := quantiles.At(i)
		h = fold.MixPrint(fold.MixPrint(h, math.Float64bits(q.Quantile())), math.Float64bits(q.Value()))
	}
	return uint32(h>>32 ^ h)
}

// writeHistogram puts the total into the point that held the delta.
func (b *Batch) writeHistogram(it *Item, h *fold.Histogram, others bool) {
	if !it.Summary() {
		b.histograms[it.point].write(h, others)
		return
	}
	dp := b.summaries[it.Value]
	dp.SetCount(h.Count)
	dp.SetSum(h.Sum) // zero where there is none
	if others {
		dp.QuantileValues().RemoveIf(func(pmetric.SummaryDataPointValueAtQuantile) bool { return true })
	}
}

// Summary reports whether the item is a summary's, folded as a histogram.
func (it *Item) Summary() bool { return it.flags&flagSummary != 0 }
