// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.uber.org/goleak"
)

// asMain makes the test binary behave as the command, so that a test can run it as a process of its own.
const asMain = "QUICKSTART_TEST_AS_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asMain) != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

// short is the main job in about half a second.
func short() demonstration {
	return demonstration{
		grpc: "127.0.0.1:0", http: "127.0.0.1:0",
		load: load{steps: 80, pace: 4 * time.Millisecond, interval: 40 * time.Millisecond, pause: 30 * time.Millisecond},
	}
}

func TestTheMainJobIsExact(t *testing.T) {
	var out bytes.Buffer
	exact, err := short().run(t.Context(), &out)
	if err != nil {
		t.Fatal(err)
	}
	if !exact {
		t.Fatalf("not exact:\n%s", out.String())
	}
	for _, want := range []string{
		"21 of 21 series", "points arrived twice and were counted once", "7 series kept their start", "19 first", "0 dropped",
		"got lost", "starts again", "VERDICT: exact. The plain adder has 5 of 21 series wrong",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("output lacks %q", want)
		}
	}
	if t.Failed() {
		t.Log(out.String())
	}
}

func TestTheCommandEndsWithStatusZeroWhenExact(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if status := run(t.Context(), []string{"-for", "1s"}, &stdout, &stderr); status != exitExact {
		t.Fatalf("status %d\n%s%s", status, stdout.String(), stderr.String())
	}
}

func TestExitStatusSaysTheVerdict(t *testing.T) {
	for _, tc := range []struct {
		exact bool
		err   error
		want  int
	}{{true, nil, 0}, {false, nil, 1}, {false, io.EOF, 2}, {true, io.EOF, 2}} {
		if got := exitStatus(tc.exact, tc.err); got != tc.want {
			t.Errorf("exact %v, error %v: status %d, want %d", tc.exact, tc.err, got, tc.want)
		}
	}
}

// The verdict must fail whenever what comes out is wrong, however little, and must say what is wrong.
func TestTheVerdictFails(t *testing.T) {
	t.Parallel()
	const (
		wrongTotal = "FAIL  20 of 21 series"
		wrongOrder = "FAIL  in "
		missing    = "FAIL  nothing missing"
	)
	for _, tc := range []struct {
		name   string
		tamper func(pmetric.Metrics)
		uris   []string
		want   []string
	}{
		{name: "one order too many", want: []string{wrongTotal, "shop/1 orders{payment=card}: int value is"},
			tamper: everySample("orders", func(dp pmetric.NumberDataPoint, _ int) { dp.SetIntValue(dp.IntValue() + 1) })},
		{name: "half a cent lost", want: []string{wrongTotal, "shop/1 revenue: double value is"},
			tamper: everySample("revenue", func(dp pmetric.NumberDataPoint, _ int) { dp.SetDoubleValue(dp.DoubleValue() - 0.005) })},
		{name: "an observation in the wrong bucket", want: []string{wrongTotal, "shop/1 till.duration: buckets is"},
			tamper: everyHistogram(func(dp pmetric.HistogramDataPoint) {
				counts := dp.BucketCounts()
				counts.SetAt(7, counts.At(7)-1)
				counts.SetAt(6, counts.At(6)+1)
			})},
		{name: "a wrong minimum", want: []string{wrongTotal, "shop/1 till.duration: min is"},
			tamper: everyHistogram(func(dp pmetric.HistogramDataPoint) { dp.SetMin(dp.Min() + 1) })},
		{name: "an observation in the wrong exponential bucket", want: []string{wrongTotal, "shop/1 basket.size: positive buckets is"},
			tamper: everyExponential(func(dp pmetric.ExponentialHistogramDataPoint) {
				dp.Positive().SetOffset(dp.Positive().Offset() + 1)
			})},
		{name: "a needlessly coarse exponential histogram", want: []string{wrongTotal, "shop/1 basket.size: type is"},
			tamper: everyExponential(func(dp pmetric.ExponentialHistogramDataPoint) {
				dp.SetScale(-10)
				all := uint64(0)
				for _, n := range dp.Positive().BucketCounts().All() {
					all += n
				}
				dp.Positive().BucketCounts().FromRaw([]uint64{all})
				dp.Positive().SetOffset(0)
			})},
		{name: "a start that is a nanosecond off", want: []string{wrongTotal, "shop/1 revenue: start is"},
			tamper: everySample("revenue", func(dp pmetric.NumberDataPoint, _ int) { dp.SetStartTimestamp(dp.StartTimestamp() + 1) })},
		{name: "a time that is a nanosecond off", want: []string{wrongTotal, "shop/1 revenue: time is"},
			tamper: everySample("revenue", func(dp pmetric.NumberDataPoint, _ int) { dp.SetTimestamp(dp.Timestamp() + 1) })},
		{name: "a start that moved and came back", want: []string{wrongOrder, "shop/1 orders{payment=card}: start moved"},
			tamper: everySample("orders", func(dp pmetric.NumberDataPoint, n int) {
				if n == 2 {
					dp.SetStartTimestamp(dp.StartTimestamp() + 1)
				}
			})},
		{name: "a total that fell and recovered", want: []string{wrongOrder, "shop/1 orders{payment=card}: value fell from"},
			tamper: everySample("orders", func(dp pmetric.NumberDataPoint, n int) {
				if n == 2 {
					dp.SetIntValue(0)
				}
			})},
		{name: "a time that went back", want: []string{wrongOrder, "shop/1 orders{payment=card}: time went back"},
			tamper: everySample("orders", func(dp pmetric.NumberDataPoint, n int) {
				if n == 2 {
					dp.SetTimestamp(dp.StartTimestamp() + 1)
				}
			})},
		{name: "a sample that got lost", want: []string{missing},
			tamper: func() func(pmetric.Metrics) {
				batches := 0
				return func(md pmetric.Metrics) {
					if batches++; batches == 2 {
						md.ResourceMetrics().RemoveIf(func(pmetric.ResourceMetrics) bool { return true })
					}
				}
			}()},
		{name: "a series that got lost", want: []string{wrongTotal, "shop/1 revenue: did not come out"},
			tamper: func(md pmetric.Metrics) {
				eachMetricOfShop1(md, func(ms pmetric.MetricSlice) {
					ms.RemoveIf(func(m pmetric.Metric) bool { return m.Name() == "revenue" })
				})
			}},
		{name: "a series out of nowhere", want: []string{"shop/1 profit: came out but no producer has it"},
			tamper: func(md pmetric.Metrics) {
				eachMetricOfShop1(md, func(ms pmetric.MetricSlice) {
					m := ms.AppendEmpty()
					m.SetName("profit")
					m.SetEmptyGauge().DataPoints().AppendEmpty().SetTimestamp(1)
				})
			}},
		{name: "no processor", want: []string{"FAIL  2 of 21 series", "is still delta", "FAIL  a lost answer", "FAIL  a restart"},
			uris: []string{"yaml:service::pipelines::metrics::processors: []"}},
		{name: "a processor that begins anew after a gap", want: []string{wrongOrder, "start moved from", "see shop/3 above"},
			uris: []string{"yaml:processors::d2c::gap: restart"}},
		{name: "a processor that has no room", want: []string{"points were dropped"},
			uris: []string{"yaml:processors::d2c::max_streams: 18"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			d := short()
			d.tamper, d.uris = tc.tamper, tc.uris
			var out bytes.Buffer
			exact, err := d.run(t.Context(), &out)
			if err != nil {
				t.Fatal(err)
			}
			if exact || !strings.Contains(out.String(), "VERDICT: NOT EXACT") {
				t.Error("the verdict is exact")
			}
			for _, want := range tc.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("output lacks %q", want)
				}
			}
			if t.Failed() {
				t.Log(out.String())
			}
		})
	}
}

// everySample changes every sample of one series of shop/1: the named sum, for orders only those paid by card. n counts
// from 1.
func everySample(metric string, change func(dp pmetric.NumberDataPoint, n int)) func(pmetric.Metrics) {
	n := 0
	return func(md pmetric.Metrics) {
		eachMetricOfShop1(md, func(ms pmetric.MetricSlice) {
			for _, m := range ms.All() {
				if m.Name() != metric {
					continue
				}
				for _, dp := range m.Sum().DataPoints().All() {
					if payment, ok := dp.Attributes().Get("payment"); !ok || payment.Str() == "card" {
						n++
						change(dp, n)
					}
				}
			}
		})
	}
}

func everyHistogram(change func(pmetric.HistogramDataPoint)) func(pmetric.Metrics) {
	return func(md pmetric.Metrics) {
		eachMetricOfShop1(md, func(ms pmetric.MetricSlice) {
			for _, m := range ms.All() {
				if m.Type() == pmetric.MetricTypeHistogram {
					change(m.Histogram().DataPoints().At(0))
				}
			}
		})
	}
}

func everyExponential(change func(pmetric.ExponentialHistogramDataPoint)) func(pmetric.Metrics) {
	return func(md pmetric.Metrics) {
		eachMetricOfShop1(md, func(ms pmetric.MetricSlice) {
			for _, m := range ms.All() {
				if m.Type() == pmetric.MetricTypeExponentialHistogram {
					change(m.ExponentialHistogram().DataPoints().At(0))
				}
			}
		})
	}
}

func eachMetricOfShop1(md pmetric.Metrics, visit func(pmetric.MetricSlice)) {
	for _, rm := range md.ResourceMetrics().All() {
		if producerName(rm.Resource().Attributes()) == "shop/1" {
			visit(rm.ScopeMetrics().At(0).Metrics())
		}
	}
}

func TestBadArgumentsAreSetUpErrors(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"-for", "10ms"}, "-for: must be at least 1s"},
		{[]string{"-for", "soon"}, "invalid value"},
		{[]string{"serve"}, `unexpected argument "serve"`},
		{[]string{"-nonsense"}, "not defined"},
		{[]string{"-grpc", "nowhere:0"}, "-grpc: "},
		{[]string{"-serve", "-grpc", "127.0.0.1:0", "-http", "127.0.0.1"}, "missing port"},
	} {
		var stdout, stderr bytes.Buffer
		if status := run(t.Context(), tc.args, &stdout, &stderr); status != exitSetup {
			t.Errorf("%q: status %d, want %d", tc.args, status, exitSetup)
		}
		if !strings.Contains(stderr.String(), tc.want) {
			t.Errorf("%q: said %q, want %q in it", tc.args, stderr.String(), tc.want)
		}
	}
}

func TestATakenPortIsASetUpErrorThatNamesTheWayOut(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, flag := range []string{"-grpc", "-http"} {
		args := []string{"-serve", "-grpc", "127.0.0.1:0", "-http", "127.0.0.1:0", flag, l.Addr().String()}
		var stdout, stderr bytes.Buffer
		if status := run(t.Context(), args, &stdout, &stderr); status != exitSetup {
			t.Errorf("%s: status %d, want %d", flag, status, exitSetup)
		}
		for _, want := range []string{l.Addr().String(), "choose others with -grpc and -http"} {
			if !strings.Contains(stderr.String(), want) {
				t.Errorf("%s: said %q, want %q in it", flag, stderr.String(), want)
			}
		}
	}
}

func TestAnInterruptedJobHasNoVerdict(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	d := short()
	d.load.steps = 1_000_000
	d.tamper = func(pmetric.Metrics) { cancel() } // as soon as anything has come out
	var out bytes.Buffer
	if _, err := d.run(ctx, &out); err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("got error %v, want one that says interrupted", err)
	}
	if strings.Contains(out.String(), "VERDICT") {
		t.Error("there is a verdict")
	}
}

func TestRecountPutsBoundaryValuesIntoTheLowerBucket(t *testing.T) {
	for _, tc := range []struct {
		value float64
		scale int32
		want  int32
	}{
		{1, 0, -1}, {1.5, 0, 0}, {2, 0, 0}, {2.5, 0, 1}, {4, 0, 1}, // base 2
		{4, -1, 0}, {5, -1, 1}, {16, -1, 1}, {17, -1, 2}, // base 4
		{1, 1, -1}, {1.4, 1, 0}, {1.5, 1, 1}, {2, 1, 1}, // base sqrt 2
		{1.0 / 64, 0, -7},
	} {
		buckets, fits := recount(map[float64]uint64{tc.value: 3}, tc.scale)
		if !fits || len(buckets) != 1 || buckets[tc.want] != 3 {
			t.Errorf("value %v at scale %d: got %v, want bucket %d", tc.value, tc.scale, buckets, tc.want)
		}
	}
	if _, fits := recount(map[float64]uint64{1: 1, 2: 1}, 8); fits {
		t.Error("257 buckets fit into 160")
	}
}

func TestABoardForgivesGaugesAndRepeats(t *testing.T) {
	b := newBoard()
	point := func(at pcommon.Timestamp, value int64) pmetric.Metrics {
		md := pmetric.NewMetrics()
		ms := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics()
		gauge, sum := ms.AppendEmpty(), ms.AppendEmpty()
		gauge.SetName("gauge")
		sum.SetName("sum")
		dp := gauge.SetEmptyGauge().DataPoints().AppendEmpty()
		dp.SetTimestamp(at)
		dp.SetIntValue(-value)
		sum.SetEmptySum().SetIsMonotonic(true)
		sum.Sum().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		dp = sum.Sum().DataPoints().AppendEmpty()
		dp.SetStartTimestamp(1)
		dp.SetTimestamp(at)
		dp.SetIntValue(value)
		return md
	}
	b.take(point(10, 5))
	b.take(point(10, 5))
	b.take(point(20, 6))
	if len(b.faults) > 0 {
		t.Errorf("faults: %q", b.faults)
	}
	b.take(point(20, 7))
	if len(b.faults) != 1 || !strings.Contains(b.faults[0], "two different samples at one time") {
		t.Errorf("faults: %q", b.faults)
	}
}
