// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"fmt"
	"slices"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
)

// summaryMetric is the metric whose summaries carry deltas, and Config.Summaries what says so.
const summaryMetric = "metric"

var someSummaries = []string{"other.*", "met?ic"}

// digest is a summary's amount.
type digest struct{ stats }

func (m *model) readSummary(p *modelPoint, dp pmetric.SummaryDataPoint) (amount, d2c.Outcome) {
	d := digest{stats{count: dp.Count(), sum: optional{dp.Sum(), true}}}
	if d.count == 0 {
		d.calm()
	}
	if !d.finite() {
		return nil, d2c.DroppedNotFinite
	}
	return d, d2c.Passed
}

func (d digest) opening() amount                 { return d }
func (d digest) share(part, whole uint64) amount { return d }

func (d digest) plus(delta amount) (amount, d2c.Outcome) {
	s, ok := d.stats.plus(delta.(digest).stats)
	if !ok {
		return nil, d2c.RestartedOverflow
	}
	return digest{s}, d2c.Passed
}

func (d digest) write(point dataPoint) {
	dp := point.(pmetric.SummaryDataPoint)
	dp.SetCount(d.count)
	dp.SetSum(d.sum.v)
}

// quantiles are not added up, and tell deltas apart.
func quantiles(dp pmetric.SummaryDataPoint) (text string) {
	for _, q := range dp.QuantileValues().All() {
		text += fmt.Sprintf(" %v: %v", q.Quantile(), q.Value())
	}
	return text
}

// takes reports whether the points of a metric are deltas.
func (m *model) takes(metric pmetric.Metric) bool {
	if metric.Type() == pmetric.MetricTypeSummary {
		return metric.Name() == summaryMetric && slices.Equal(m.cfg.Summaries, someSummaries)
	}
	return makeCumulative(metric)
}

func (g *history) summary(dp pmetric.SummaryDataPoint) {
	if flags, ok := g.marker(); ok {
		dp.SetFlags(flags)
		return
	}
	dp.SetCount(g.bucketCount())
	if !one(g.src, 12) {
		dp.SetSum(0.1*float64(g.src.n(200)) - 3)
	}
	if one(g.src, 30) {
		dp.SetSum(notANumber(g.src))
	}
	for i := range g.src.n(3) {
		q := dp.QuantileValues().AppendEmpty()
		q.SetQuantile(float64(i))
		if q.SetValue(float64(g.src.n(3))); one(g.src, 10) {
			q.SetValue(notANumber(g.src))
		}
	}
}
