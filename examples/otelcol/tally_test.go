// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
)

// tally is an OTLP/HTTP backend that adds up what it can see of each series: values, one a millisecond, sorted by time. The value
// of a histogram is its count.
type tally struct {
	mu      sync.Mutex
	series  map[string]map[string][]tallied // by metric, then by all that identifies a series
	strange []string
}

type tallied struct {
	ms    int64
	start pcommon.Timestamp
	value float64
}

// verdict is what a metric has come to.
type verdict struct {
	total  float64 // increase from zero
	series int
	starts int
	resets int      // falls of a value
	wrong  []string // two values in one millisecond, deltas, and whatever else is never right
}

func newTally() *tally { return &tally{series: map[string]map[string][]tallied{}} }

func (y *tally) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	request, err := readExport(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	y.take(request.Metrics())
	body, _ := pmetricotlp.NewExportResponse().MarshalProto() // of an empty message; cannot fail
	w.Header().Set("Content-Type", "application/x-protobuf")
	_, _ = w.Write(body)
}

func (y *tally) take(md pmetric.Metrics) {
	y.mu.Lock()
	defer y.mu.Unlock()
	for _, rm := range md.ResourceMetrics().All() {
		for _, sm := range rm.ScopeMetrics().All() {
			for _, m := range sm.Metrics().All() {
				put := func(attributes pcommon.Map, start, time pcommon.Timestamp, value float64) {
					// Maps are printed in the order of their keys.
					key := fmt.Sprint(rm.Resource().Attributes().AsRaw(), sm.Scope().Name(), attributes.AsRaw())
					if y.series[m.Name()] == nil {
						y.series[m.Name()] = map[string][]tallied{}
					}
					y.series[m.Name()][key] = append(y.series[m.Name()][key], tallied{time.AsTime().UnixMilli(), start, value})
				}
				temporality := pmetric.AggregationTemporalityCumulative
				switch m.Type() {
				case pmetric.MetricTypeSum:
					temporality = m.Sum().AggregationTemporality()
					for _, dp := range m.Sum().DataPoints().All() {
						value := dp.DoubleValue()
						if dp.ValueType() == pmetric.NumberDataPointValueTypeInt {
							value = float64(dp.IntValue())
						}
						put(dp.Attributes(), dp.StartTimestamp(), dp.Timestamp(), value)
					}
				case pmetric.MetricTypeHistogram:
					temporality = m.Histogram().AggregationTemporality()
					for _, dp := range m.Histogram().DataPoints().All() {
						put(dp.Attributes(), dp.StartTimestamp(), dp.Timestamp(), float64(dp.Count()))
					}
				case pmetric.MetricTypeExponentialHistogram:
					temporality = m.ExponentialHistogram().AggregationTemporality()
					for _, dp := range m.ExponentialHistogram().DataPoints().All() {
						put(dp.Attributes(), dp.StartTimestamp(), dp.Timestamp(), float64(dp.Count()))
					}
				}
				if temporality != pmetric.AggregationTemporalityCumulative {
					y.strange = append(y.strange, fmt.Sprintf("%s is %v", m.Name(), temporality))
				}
			}
		}
	}
}

// of says what a metric has come to so far.
func (y *tally) of(metric string) (v verdict) {
	y.mu.Lock()
	defer y.mu.Unlock()
	v.wrong = slices.Clone(y.strange)
	for _, key := range slices.Sorted(maps.Keys(y.series[metric])) {
		v.series++
		samples := slices.Clone(y.series[metric][key])
		slices.SortStableFunc(samples, func(a, b tallied) int { return cmp.Compare(a.ms, b.ms) })
		starts, last := map[pcommon.Timestamp]bool{}, tallied{ms: -1}
		for _, s := range samples {
			if s.ms == last.ms && s.value != last.value {
				v.wrong = append(v.wrong, fmt.Sprintf("%s%s is %v and %v at %d ms", metric, key, last.value, s.value, s.ms))
			}
			switch {
			case s.value >= last.value:
				v.total += s.value - last.value
			default:
				v.resets++
				v.total += s.value
				if s.start <= last.start {
					v.wrong = append(v.wrong, fmt.Sprintf("%s%s falls from %v to %v under start %d", metric, key, last.value, s.value, s.start))
				}
			}
			starts[s.start] = true
			last = s
		}
		v.starts += len(starts)
	}
	return v
}

// await waits until metrics have come to these totals, and no more than that.
func (y *tally) await(t *testing.T, totals map[string]int) {
	t.Helper()
	err := poll(func() error {
		for _, metric := range slices.Sorted(maps.Keys(totals)) {
			switch v := y.of(metric); {
			case v.total > float64(totals[metric]):
				return fatal{fmt.Errorf("%s is %v, though no more than %d was counted", metric, v.total, totals[metric])}
			case v.total < float64(totals[metric]):
				return fmt.Errorf("%s is %v, want %d", metric, v.total, totals[metric])
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	for metric := range totals {
		if wrong := y.of(metric).wrong; len(wrong) > 0 {
			t.Errorf("%d things are wrong with %s:\n%s", len(wrong), metric, strings.Join(wrong[:min(3, len(wrong))], "\n"))
		}
	}
}

// TestTally shows that the tally sees what it is there to see.
func TestTally(t *testing.T) {
	const ms = 1_000_000
	for _, tc := range []struct {
		name    string
		samples []tallied // start in milliseconds
		want    verdict
		wrong   string
	}{
		{"grows", []tallied{{10, 0, 3}, {20, 0, 5}, {20, 0, 5}}, verdict{total: 5, starts: 1}, ""},
		{"comes in any order", []tallied{{20, 0, 5}, {10, 0, 3}}, verdict{total: 5, starts: 1}, ""},
		{"begins anew", []tallied{{10, 0, 3}, {20, 15, 2}}, verdict{total: 5, starts: 2, resets: 1}, ""},
		{"falls", []tallied{{10, 0, 3}, {20, 0, 2}}, verdict{total: 5, starts: 1, resets: 1}, "falls from 3 to 2"},
		{"falls to an older start", []tallied{{10, 5, 3}, {20, 0, 2}}, verdict{total: 5, starts: 2, resets: 1}, "falls from 3 to 2"},
		{"two values", []tallied{{10, 0, 3}, {10, 0, 4}}, verdict{total: 4, starts: 1}, "3 and 4 at 10 ms"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			y := newTally()
			for _, s := range tc.samples {
				md := pmetric.NewMetrics()
				m := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
				m.SetName("hits")
				m.SetEmptySum().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
				dp := m.Sum().DataPoints().AppendEmpty()
				dp.SetStartTimestamp(s.start * ms)
				dp.SetTimestamp(pcommon.Timestamp(s.ms * ms))
				dp.SetDoubleValue(s.value)
				y.take(md)
			}
			got := y.of("hits")
			if got.total != tc.want.total || got.starts != tc.want.starts || got.resets != tc.want.resets || got.series != 1 {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
			if wrong := strings.Join(got.wrong, "\n"); (wrong == "") != (tc.wrong == "") || !strings.Contains(wrong, tc.wrong) {
				t.Errorf("wrong is %q, want %q", wrong, tc.wrong)
			}
		})
	}
	y := newTally()
	md := pmetric.NewMetrics()
	m := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetEmptyHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	y.take(md)
	if wrong := y.of("").wrong; len(wrong) != 1 || !strings.Contains(wrong[0], "Delta") {
		t.Errorf("a delta is taken: %q", wrong)
	}
}
