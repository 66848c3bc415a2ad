// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
)

// reemit returns what Converter.Reemit must give out: lines by stream, sorted.
func (m *model) reemit() (given []string) {
	interval := m.cfg.ReemitInterval
	for key, s := range m.streams {
		quiet := time.Duration(m.now()-s.seen)*time.Second >= interval && int64(m.nanos())-int64(s.emitted) >= int64(interval)
		if _, summary := s.total.(digest); !quiet || s.marker || !s.named || summary {
			continue
		}
		s.emitted = m.nanos()
		var dp dataPoint
		switch s.kind {
		case d2c.KindSum:
			dp = pmetric.NewNumberDataPoint()
		case d2c.KindHistogram:
			dp = pmetric.NewHistogramDataPoint()
		case d2c.KindExponentialHistogram:
			dp = pmetric.NewExponentialHistogramDataPoint()
		}
		dp.SetStartTimestamp(pcommon.Timestamp(s.start))
		dp.SetTimestamp(pcommon.Timestamp(s.emitted))
		s.total.write(dp)
		given = append(given, fmt.Sprintf("%s (%d, %d] %s", key, s.start, s.emitted, describe(dp)))
	}
	slices.Sort(given)
	return given
}

// reemitted is reemit of the real thing; it also shows each batch to see.
func reemitted(conv *d2c.Converter, see func(pmetric.Metrics) error) (given []string, err error) {
	n, err := conv.Reemit(context.Background(), nil, func(_ context.Context, md pmetric.Metrics) error {
		forEachMetric(md, func(rm pmetric.ResourceMetrics, sm pmetric.ScopeMetrics, m pmetric.Metric) {
			prefix := metricKey(rm.Resource(), sm.Scope(), m)
			for _, p := range deltaPoints(m) {
				given = append(given, fmt.Sprintf("%s (%d, %d] %s", prefix+attributesKey(p.dp.Attributes()), p.start, p.time, describe(p.dp)))
			}
			if makeCumulative(m) {
				err = fmt.Errorf("given out again as deltas: %v", lines(md))
			}
		})
		return see(md)
	})
	if n != len(given) && err == nil {
		err = fmt.Errorf("told of %d samples, and gave out %d", n, len(given))
	}
	slices.Sort(given)
	return given, err
}

// again has the history's clock go on, and compares what is given out again.
func (g *history) again(conv *d2c.Converter, m *model, p2 timelines) error {
	*g.clock = g.clock.Add(pick(g.src, time.Second, 2*time.Second, 3*time.Second, 100*time.Second))
	got, err := reemitted(conv, p2.follow)
	if err != nil {
		return err
	}
	if want := m.reemit(); !slices.Equal(got, want) {
		return fmt.Errorf("given out again:\n got %v\nwant %v", got, want)
	}
	return nil
}
