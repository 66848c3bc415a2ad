// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2cprocessor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"go.opentelemetry.io/collector/client"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// series is what a backend such as Prometheus has of one series: values, at one millisecond each, and no idea of lives. The value
// of a histogram or summary is its count.
type series struct {
	metric   string
	mayFall  bool             // a sum that is not monotonic: a lower value is no reset
	at       map[int64]string // what was given out for each millisecond
	latest   int64            // of these
	value    float64          // of the last sample
	sum      float64          // of the last sample of a histogram
	increase float64          // from zero, over all resets
	sums     float64          // the same of sum
	highest  map[pcommon.Timestamp]float64
	last     map[pcommon.Timestamp]float64

	samples, resets, oldStart, zeros int
}

// point is one sample of a series as it was given out.
type point struct {
	start, time pcommon.Timestamp
	value, sum  float64
	mayFall     bool
	noValue     bool   // a "no recorded value" marker
	contents    string // all that a backend stores of it
}

// backend keeps the books of what was given out, in the order in which it was. It is safe for concurrent use.
type backend struct {
	metadata []string // keys of the client metadata that are part of a series' identity

	mu     sync.Mutex
	series map[string]*series
	latest pcommon.Timestamp
	behind pcommon.Timestamp // how far a sample was behind the latest of all when it came, at most
	wrong  []string          // what no input whatever may cause
	// Of the last sample of its kind.
	histogram   *pmetric.HistogramDataPoint
	exponential *pmetric.ExponentialHistogramDataPoint
}

func newBackend(metadata ...string) *backend {
	return &backend{metadata: metadata, series: map[string]*series{}}
}

// consume takes a batch as the component behind the processor does.
func (b *backend) consume(ctx context.Context, md pmetric.Metrics) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	from := ""
	for _, key := range b.metadata {
		from += fmt.Sprintf("%s=%q ", strings.ToLower(key), client.FromContext(ctx).Metadata.Get(key))
	}
	for _, rm := range md.ResourceMetrics().All() {
		for _, sm := range rm.ScopeMetrics().All() {
			scope := fmt.Sprintf("%s%s %s@%s%s", from, canonical(rm.Resource().Attributes()),
				sm.Scope().Name(), sm.Scope().Version(), canonical(sm.Scope().Attributes()))
			for _, m := range sm.Metrics().All() {
				b.take(scope, m)
			}
		}
	}
	return nil
}

// canonical is the text of attributes in one order.
func canonical(attributes pcommon.Map) string {
	var pairs []string
	for k, v := range attributes.All() {
		pairs = append(pairs, fmt.Sprintf("%s=%s:%q", k, v.Type(), v.AsString()))
	}
	slices.Sort(pairs)
	return fmt.Sprint(pairs)
}

func (b *backend) take(scope string, m pmetric.Metric) {
	put := func(attributes pcommon.Map, p point) {
		b.put(fmt.Sprintf("%s %s%s", scope, m.Name(), canonical(attributes)), m.Name(), p)
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
			put(dp.Attributes(), point{
				start: dp.StartTimestamp(), time: dp.Timestamp(), value: value, mayFall: !m.Sum().IsMonotonic(),
				noValue: dp.Flags().NoRecordedValue(), contents: fmt.Sprint(value, dp.Flags()),
			})
		}
	case pmetric.MetricTypeHistogram:
		temporality = m.Histogram().AggregationTemporality()
		for _, dp := range m.Histogram().DataPoints().All() {
			put(dp.Attributes(), point{
				start: dp.StartTimestamp(), time: dp.Timestamp(), value: float64(dp.Count()), sum: dp.Sum(),
				noValue: dp.Flags().NoRecordedValue(),
				contents: fmt.Sprint(dp.Count(), dp.HasSum(), dp.Sum(), dp.ExplicitBounds().AsRaw(), dp.BucketCounts().AsRaw(),
					dp.HasMin(), dp.Min(), dp.HasMax(), dp.Max(), dp.Flags()),
			})
			b.histogram = &dp
		}
	case pmetric.MetricTypeExponentialHistogram:
		temporality = m.ExponentialHistogram().AggregationTemporality()
		for _, dp := range m.ExponentialHistogram().DataPoints().All() {
			put(dp.Attributes(), point{
				start: dp.StartTimestamp(), time: dp.Timestamp(), value: float64(dp.Count()), sum: dp.Sum(),
				noValue: dp.Flags().NoRecordedValue(),
				contents: fmt.Sprint(dp.Count(), dp.HasSum(), dp.Sum(), dp.Scale(), dp.ZeroCount(), dp.ZeroThreshold(),
					dp.Positive().Offset(), dp.Positive().BucketCounts().AsRaw(), dp.Negative().Offset(),
					dp.Negative().BucketCounts().AsRaw(), dp.HasMin(), dp.Min(), dp.HasMax(), dp.Max(), dp.Flags()),
			})
			b.exponential = &dp
		}
	case pmetric.MetricTypeSummary:
		for _, dp := range m.Summary().DataPoints().All() {
			put(dp.Attributes(), point{
				start: dp.StartTimestamp(), time: dp.Timestamp(), value: float64(dp.Count()), sum: dp.Sum(),
				noValue: dp.Flags().NoRecordedValue(), contents: fmt.Sprint(dp.Count(), dp.Sum(), dp.Flags()),
			})
		}
	}
	if temporality == pmetric.AggregationTemporalityDelta {
		b.wrong = append(b.wrong, "delta: "+m.Name()+" was given out as it came")
	}
}

// put takes the next sample of a series.
func (b *backend) put(key, metric string, p point) {
	s := b.series[key]
	if s == nil {
		s = &series{
			metric: metric, at: map[int64]string{}, latest: p.time.AsTime().UnixMilli(),
			highest: map[pcommon.Timestamp]float64{}, last: map[pcommon.Timestamp]float64{},
		}
		b.series[key] = s
	}
	b.latest = max(b.latest, p.time)
	b.behind = max(b.behind, b.latest-p.time)
	ms := p.time.AsTime().UnixMilli()
	if was, taken := s.at[ms]; taken && was != p.contents {
		b.wrong = append(b.wrong, fmt.Sprintf("duplicate: %s at %d ms is %s, then %s", key, ms, was, p.contents))
	}
	if ms < s.latest {
		b.wrong = append(b.wrong, fmt.Sprintf("out of order: %s at %d ms after %d ms", key, ms, s.latest))
	}
	if p.start > p.time {
		b.wrong = append(b.wrong, fmt.Sprintf("start after time: %s in (%d, %d]", key, p.start, p.time))
	}
	s.at[ms], s.latest = p.contents, max(s.latest, ms)
	s.samples++
	if p.noValue {
		return
	}
	if p.value == 0 {
		s.zeros++
	}
	if s.mayFall = p.mayFall; p.mayFall {
		s.last[p.start] = p.value
		return
	}
	for start, value := range s.highest {
		if start >= p.start && value > p.value {
			s.oldStart++
			break
		}
	}
	s.highest[p.start] = max(s.highest[p.start], p.value)
	if p.value < s.value {
		s.resets++
		s.value, s.sum = 0, 0
	}
	s.increase += p.value - s.value
	s.sums += p.sum - s.sum
	s.value, s.sum = p.value, p.sum
}

// total is the increase from zero that can be seen of a series; of one that may fall, what its lives came to.
func (s *series) total() float64 {
	total := s.increase
	for _, value := range s.last {
		total += value
	}
	return total
}

// figures are the facts about what was given out, by their names in want.json.
func (b *backend) figures(latestIn pcommon.Timestamp) map[string]any {
	b.mu.Lock()
	defer b.mu.Unlock()
	var total, sum float64
	var samples, resets, oldStart, zeros, starts int
	totals := map[string]float64{}
	for _, s := range b.series {
		total += s.total()
		totals[s.metric] += s.total()
		sum += s.sums
		samples += s.samples
		resets += s.resets
		oldStart += s.oldStart
		zeros += s.zeros
		starts += len(s.highest) + len(s.last)
	}
	f := map[string]any{
		"total": total, "totals": totals, "sum": sum, "resets": resets, "oldstart": oldStart, "streams": len(b.series),
		"starts": starts, "samples": samples, "samples_at_most": samples, "zeros": zeros,
		"ahead_ms": float64(int64(b.latest-latestIn)) / 1e6, "behind_ms": float64(b.behind) / 1e6,
		"min": nil, "max": nil,
	}
	if b.latest <= latestIn || latestIn == 0 {
		f["ahead_ms"] = 0
	}
	if h := b.histogram; h != nil {
		f["bounds"], f["buckets"] = h.ExplicitBounds().AsRaw(), h.BucketCounts().AsRaw()
		if h.HasMin() {
			f["min"] = h.Min()
		}
		if h.HasMax() {
			f["max"] = h.Max()
		}
	}
	if e := b.exponential; e != nil {
		f["scale"], f["zero_count"], f["zero_threshold"] = e.Scale(), e.ZeroCount(), e.ZeroThreshold()
		if e.HasMin() {
			f["min"] = e.Min()
		}
		if e.HasMax() {
			f["max"] = e.Max()
		}
	}
	return f
}

// breaches says what no input may cause: two values of a series in one millisecond, time that goes back, a start after its time,
// or a delta.
func (b *backend) breaches() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.wrong)
}

// TestBackend shows that the books are kept as they should, and that a breach is seen.
func TestBackend(t *testing.T) {
	const ms = 1_000_000
	number := func(start, time pcommon.Timestamp, value float64) point {
		return point{start: start * ms, time: time * ms, value: value, contents: fmt.Sprint(value)}
	}
	histogram := func(start, time pcommon.Timestamp, count, sum float64) point {
		return point{start: start * ms, time: time * ms, value: count, sum: sum, contents: fmt.Sprint(count, sum)}
	}
	falling := func(p point) point { p.mayFall = true; return p }
	marker := func(p point) point { p.noValue = true; p.contents += " none"; return p }
	inNanoseconds := func(p point, ns pcommon.Timestamp) point { p.time += ns; return p }

	for name, test := range map[string]struct {
		points []point
		want   map[string]any
		wrong  string
	}{
		"grows": {
			[]point{number(0, 10, 5), number(0, 20, 7), number(0, 30, 7)},
			map[string]any{"total": 7.0, "resets": 0, "oldstart": 0, "starts": 1, "samples": 3, "streams": 1}, "",
		},
		"given out once more": {
			[]point{number(0, 10, 5), number(0, 10, 5)}, map[string]any{"total": 5.0, "resets": 0, "samples": 2}, "",
		},
		"falls under a new start": {
			[]point{number(0, 10, 5), number(10, 20, 3), number(10, 30, 4)},
			map[string]any{"total": 9.0, "resets": 1, "oldstart": 0, "starts": 2}, "",
		},
		"a new start that values do not tell": {
			[]point{number(0, 10, 5), number(10, 20, 6)}, map[string]any{"total": 6.0, "resets": 0, "starts": 2}, "",
		},
		"a zero tells it": {
			[]point{number(0, 10, 5), number(10, 19, 0), number(10, 20, 6)},
			map[string]any{"total": 11.0, "resets": 1, "zeros": 1, "oldstart": 0}, "",
		},
		"falls under its start": {
			[]point{number(0, 10, 5), number(0, 20, 3)}, map[string]any{"total": 8.0, "resets": 1, "oldstart": 1}, "",
		},
		"falls under an earlier start": {
			[]point{number(5, 10, 5), number(0, 20, 3)}, map[string]any{"oldstart": 1}, "",
		},
		"an old start comes back": {
			[]point{number(0, 10, 5), number(10, 20, 1), number(0, 30, 6)},
			map[string]any{"resets": 1, "oldstart": 0, "total": 11.0}, "",
		},
		"lower than long ago": {
			[]point{number(0, 10, 5), number(10, 20, 1), number(0, 30, 2)}, map[string]any{"oldstart": 1}, "",
		},
		"may fall": {
			[]point{falling(number(0, 10, 5)), falling(number(0, 20, -3)), falling(number(20, 30, 2))},
			map[string]any{"total": -1.0, "resets": 0, "oldstart": 0, "starts": 2}, "",
		},
		"a histogram": {
			[]point{histogram(0, 10, 5, 50), histogram(0, 20, 6, 40), histogram(20, 30, 1, 7)},
			map[string]any{"total": 7.0, "sum": 47.0, "resets": 1}, "",
		},
		"a marker has no value": {
			[]point{number(0, 10, 5), marker(number(0, 20, 0)), number(0, 30, 6)},
			map[string]any{"total": 6.0, "resets": 0, "zeros": 0}, "",
		},
		"two values at one time": {
			[]point{number(0, 10, 5), number(0, 10, 6)}, map[string]any{"total": 6.0}, "duplicate",
		},
		"two values in one millisecond": {
			[]point{number(0, 10, 5), inNanoseconds(number(0, 10, 6), 999_999)}, nil, "duplicate",
		},
		"two values in a millisecond long ago": {
			[]point{number(0, 10, 5), number(0, 20, 6), number(0, 10, 6)}, nil, "duplicate",
		},
		"another sum in one millisecond": {
			[]point{histogram(0, 10, 5, 50), histogram(0, 10, 5, 51)}, nil, "duplicate",
		},
		"a marker at the time of a value": {
			[]point{number(0, 10, 5), marker(number(0, 10, 5))}, nil, "duplicate",
		},
		"the next millisecond": {
			[]point{inNanoseconds(number(0, 10, 5), 999_999), number(0, 11, 6)}, map[string]any{"total": 6.0}, "",
		},
		"time goes back": {
			[]point{number(0, 20, 5), number(0, 10, 4)}, map[string]any{"behind_ms": 10.0}, "out of order",
		},
		"a sample of long ago comes again": {
			[]point{number(0, 10, 5), number(0, 20, 6), number(0, 10, 5)}, nil, "out of order",
		},
		"starts after its time": {
			[]point{number(11, 10, 5)}, nil, "start after time",
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBackend()
			for _, p := range test.points {
				b.put("a", "requests", p)
			}
			figures := b.figures(0)
			for key, want := range test.want {
				assert.Equal(t, want, figures[key], key)
			}
			if test.wrong == "" {
				assert.Empty(t, b.breaches())
			} else {
				assert.Contains(t, strings.Join(b.breaches(), "\n"), test.wrong)
			}
		})
	}
}

func TestBackendTellsSeriesApart(t *testing.T) {
	b := newBackend("X-Tenant")
	give := func(tenant, instance, scope, metric string, attributes map[string]any) {
		md := pmetric.NewMetrics()
		rm := md.ResourceMetrics().AppendEmpty()
		rm.Resource().Attributes().PutStr("instance", instance)
		sm := rm.ScopeMetrics().AppendEmpty()
		sm.Scope().SetName(scope)
		m := sm.Metrics().AppendEmpty()
		m.SetName(metric)
		m.SetEmptySum().SetIsMonotonic(true)
		m.Sum().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		dp := m.Sum().DataPoints().AppendEmpty()
		dp.SetTimestamp(10_000_000)
		dp.SetIntValue(1)
		assert.NoError(t, dp.Attributes().FromRaw(attributes))
		ctx := client.NewContext(t.Context(), client.Info{Metadata: client.NewMetadata(map[string][]string{
			"x-tenant": {tenant}, "x-other": {metric + scope},
		})})
		assert.NoError(t, b.consume(ctx, md))
	}
	give("a", "1", "lib", "requests", nil)
	give("a", "1", "lib", "requests", nil)
	for n, differs := range []func(){
		func() { give("b", "1", "lib", "requests", nil) },
		func() { give("a", "2", "lib", "requests", nil) },
		func() { give("a", "1", "other", "requests", nil) },
		func() { give("a", "1", "lib", "errors", nil) },
		func() { give("a", "1", "lib", "requests", map[string]any{"code": "200"}) },
		func() { give("a", "1", "lib", "requests", map[string]any{"code": 200}) },
	} {
		differs()
		assert.Equal(t, n+2, b.figures(0)["streams"])
	}
	assert.Equal(t, map[string]float64{"requests": 6, "errors": 1}, b.figures(0)["totals"])
	assert.Equal(t, 5.0, b.figures(5_000_000)["ahead_ms"])
	assert.Empty(t, b.breaches())

	md := batch(delta{"a", 0, 10, 1})
	assert.NoError(t, b.consume(t.Context(), md))
	assert.Contains(t, b.breaches()[0], "delta: ")
}
