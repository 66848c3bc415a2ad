// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
)

// told are the notices of some batches, as text: what may be kept of them.
type told []string

func (n *told) take() []string {
	got := *n
	*n = nil
	return got
}

func (n *told) hear(notice d2c.Notice) {
	text := ""
	switch notice.Kind {
	case d2c.NoticeOutcome:
		text = notice.Outcome.String()
	case d2c.NoticeUnspecified:
		text = "unspecified"
	case d2c.NoticeDuplicate:
		text = "duplicate"
	case d2c.NoticeFixedStart:
		text = "fixed start"
	}
	text += fmt.Sprintf(" %d: %v %s %s %v", notice.Points, notice.Resource.Attributes().AsRaw(), notice.Scope.Name(), notice.Metric.Name(),
		notice.Attributes.AsRaw())
	if notice.Time != 0 {
		text += fmt.Sprintf(" (%v, %v]", seconds(notice.Start), seconds(notice.Time))
	}
	if notice.Stream.Last != 0 {
		text += fmt.Sprintf(" of (%v, %v]", seconds(notice.Stream.Start), seconds(notice.Stream.Last))
	}
	*n = append(*n, text)
}

func seconds(t pcommon.Timestamp) float64 { return float64(t) / 1e9 }

// place puts what follows into a resource, scope and point of its own.
func place(host string, p point) point {
	return func(md pmetric.Metrics) {
		one := batch(p)
		rm := one.ResourceMetrics().At(0)
		rm.Resource().Attributes().PutStr("host", host)
		rm.ScopeMetrics().At(0).Scope().SetName("scope " + host)
		rm.MoveTo(md.ResourceMetrics().AppendEmpty())
	}
}

func gauge(name series) point {
	return func(md pmetric.Metrics) { name.metric(md).SetEmptyGauge().DataPoints().AppendEmpty().SetTimestamp(1) }
}

// with gives the only point of a metric an attribute.
func (p point) with(key, value string) point {
	return func(md pmetric.Metrics) {
		p(md)
		ms := md.ResourceMetrics().At(md.ResourceMetrics().Len() - 1).ScopeMetrics().At(0).Metrics()
		forEachAttributes(ms.At(ms.Len()-1), func(attrs pcommon.Map) { attrs.PutStr(key, value) })
	}
}

func forEachAttributes(m pmetric.Metric, f func(pcommon.Map)) {
	switch m.Type() {
	case pmetric.MetricTypeSum:
		for _, dp := range m.Sum().DataPoints().All() {
			f(dp.Attributes())
		}
	case pmetric.MetricTypeHistogram:
		for _, dp := range m.Histogram().DataPoints().All() {
			f(dp.Attributes())
		}
	case pmetric.MetricTypeExponentialHistogram:
		for _, dp := range m.ExponentialHistogram().DataPoints().All() {
			f(dp.Attributes())
		}
	case pmetric.MetricTypeSummary:
		for _, dp := range m.Summary().DataPoints().All() {
			f(dp.Attributes())
		}
	}
}

// Every kind of drop is told of once a batch, with a point as it came, in every mode.
func TestNoticesOfDrops(t *testing.T) {
	var got told
	cfg := d2c.DefaultConfig()
	cfg.OnNotice = got.hear
	for mode, open := range keepersOf(t, cfg) {
		t.Run(mode, func(t *testing.T) {
			next := open()
			const a, b, c, d, h = series("a"), series("b"), series("c"), series("d"), series("h")
			convert(next(), batch(gauge("g"), place("one", a.int(10, 20, 1)), place("one", b.int(10, 20, 1)), place("one", c.double(10, 20, 1)),
				place("two", h.histogram(10, 20, hist([]float64{1}, 1, 2)))))
			if told := got.take(); told != nil {
				t.Errorf("nothing was dropped, and it says %q", told)
			}
			convert(next(), batch(gauge("g"), place("one", b.int(20, 30, 1)), place("one", a.int(12, 19, 1).with("k", "v")), // of another stream
				place("one", a.int(12, 19, 1)), place("one", a.int(12, 18, 1)), place("two", gauge("g")), place("two", h.histogram(10, 20, hist([]float64{1}, 1, 3)))))
			want := []string{
				"covered 3: map[host:one] scope one a map[] (12, 19] of (10, 20]",
			}
			if told := got.take(); !slices.Equal(told, want) {
				t.Errorf("got  %q\nwant %q", told, want)
			}
			convert(next(), batch(
				place("one", c.double(20, 30, math.NaN()).with("k", "v")), gauge("g"), place("one", b.int(30, 40, -1)), place("two", a.int(9, 8, -2)),
				place("one", b.int(5, 12, 1)), place("two", d.int(5, 0, 1)), place("one", c.double(20, 30, math.Inf(1)))))
			want = []string{
				"dropped_too_late 1: map[host:one] scope one b map[] (5, 12] of (10, 30]",
				"dropped_time 1: map[host:two] scope two d map[]",
				"dropped_not_finite 2: map[host:one] scope one c map[k:v] (20, 30]",
				"dropped_negative 2: map[host:one] scope one b map[] (30, 40]",
			}
			if told := got.take(); !slices.Equal(told, want) {
				t.Errorf("got  %q\nwant %q", told, want)
			}
		})
	}
}

func TestNoticeOfTheLimit(t *testing.T) {
	var got told
	cfg := d2c.DefaultConfig()
	cfg.OnNotice, cfg.MaxStreams = got.hear, 1
	conv := newConverter(t, cfg)
	convert(conv, batch(series("a").int(10, 20, 1)))
	convert(conv, batch(series("a").int(20, 30, 1), series("b").int(10, 20, 1)))
	if told, want := got.take(), []string{"dropped_limit 1: map[]  b map[] (10, 20]"}; !slices.Equal(told, want) {
		t.Errorf("got %q, want %q", told, want)
	}
}

// Whether a point of what does not say what it is is a delta is not guessed. It passes, and is told of.
func TestNoticeOfUnspecified(t *testing.T) {
	var got told
	cfg := d2c.DefaultConfig()
	cfg.OnNotice = got.hear
	unspecified := func(host string, p point) point {
		return func(md pmetric.Metrics) {
			place(host, p)(md)
			switch m := md.ResourceMetrics().At(md.ResourceMetrics().Len() - 1).ScopeMetrics().At(0).Metrics().At(0); m.Type() {
			case pmetric.MetricTypeSum:
				m.Sum().SetAggregationTemporality(pmetric.AggregationTemporalityUnspecified)
			case pmetric.MetricTypeHistogram:
				m.Histogram().SetAggregationTemporality(pmetric.AggregationTemporalityUnspecified)
			case pmetric.MetricTypeExponentialHistogram:
				m.ExponentialHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityUnspecified)
			}
		}
	}
	for mode, open := range keepersOf(t, cfg) {
		t.Run(mode, func(t *testing.T) {
			md := batch(gauge("g"), series("a").int(10, 20, 1), unspecified("one", series("a").int(10, 20, 1)),
				unspecified("two", series("h").histogram(10, 20, hist([]float64{1}, 1, 2))),
				unspecified("two", series("e").exponential(10, 20, expo(3, 0, 1, buckets{}, buckets{}))))
			want := lines(md) // a total of one delta looks like that
			result := convert(open()(), md)
			if result.Unspecified != 3 || result.Count(d2c.Passed) != 4 || result.Count(d2c.AddedFirst) != 1 {
				t.Errorf("%d unspecified, %s", result.Unspecified, describeResult(result))
			}
			if got := lines(md); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("got  %v\nwant %v", got, want)
			}
			wantTold := []string{
				"unspecified 1: map[host:one] scope one a map[]",
				"unspecified 1: map[host:two] scope two h map[]",
				"unspecified 1: map[host:two] scope two e map[]",
			}
			if told := got.take(); !slices.Equal(told, wantTold) {
				t.Errorf("got  %q\nwant %q", told, wantTold)
			}
		})
	}
}

// Who takes a part of each overlap loses most of what a producer counts whose start never moves.
func TestNoticeOfAFixedStart(t *testing.T) {
	var got told
	cfg := d2c.DefaultConfig()
	cfg.OnNotice, cfg.Overlap = got.hear, d2c.OverlapInterpolate
	for mode, open := range keepersOf(t, cfg) {
		t.Run(mode, func(t *testing.T) {
			next := open()
			const a, b, h = series("a"), series("b"), series("h")
			convert(next(), batch(a.int(10, 20, 1), b.int(10, 20, 1), h.histogram(10, 20, hist([]float64{1}, 1, 2))))
			convert(next(), batch(a.int(12, 30, 1), b.int(20, 30, 1)))
			if told := got.take(); told != nil {
				t.Errorf("an overlap like others, and it says %q", told)
			}
			convert(next(), batch(a.int(30, 40, 1), b.int(10, 40, 1), h.histogram(10, 40, hist([]float64{1}, 1, 2))))
			if told, want := got.take(), []string{"fixed start 1: map[]  b map[] (10, 40] of (10, 40]"}; !slices.Equal(told, want) {
				t.Errorf("got %q, want %q", told, want)
			}
		})
	}
	cfg.Overlap = d2c.OverlapAdd
	conv := newConverter(t, cfg)
	convert(conv, batch(series("a").int(10, 20, 1)))
	convert(conv, batch(series("a").int(10, 30, 1)))
	if told := got.take(); told != nil {
		t.Errorf("nothing is lost, and it says %q", told)
	}
}
