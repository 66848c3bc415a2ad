// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/streamid"
)

// requests returns one delta of a counter: n requests between from and to, in seconds after noon.
func requests(n int64, from, to int) pmetric.Metrics {
	noon := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	md := pmetric.NewMetrics()
	m := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetName("http_requests")
	m.SetEmptySum().SetIsMonotonic(true)
	m.Sum().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	dp := m.Sum().DataPoints().AppendEmpty()
	dp.Attributes().PutStr("method", "GET")
	dp.SetStartTimestamp(pcommon.NewTimestampFromTime(noon.Add(time.Duration(from) * time.Second)))
	dp.SetTimestamp(pcommon.NewTimestampFromTime(noon.Add(time.Duration(to) * time.Second)))
	dp.SetIntValue(n)
	return md
}

func Example() {
	conv, err := d2c.New(d2c.DefaultConfig())
	if err != nil {
		panic(err) // names the field
	}
	for _, md := range []pmetric.Metrics{
		requests(5, 0, 10),
		requests(3, 10, 20),
		requests(3, 10, 20), // a retry of the same delta
		requests(1, 30, 40), // 20..30 is missing
		requests(4, 20, 30), // and comes late
	} {
		result, err := conv.Convert(context.Background(), md)
		if err != nil {
			fmt.Println(err)
		}
		dp := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints().At(0)
		fmt.Printf("since %s at %s: %2d", dp.StartTimestamp().AsTime().Format(time.TimeOnly),
			dp.Timestamp().AsTime().Format("15:04:05.000"), dp.IntValue())
		for o, n := range result.Counts() {
			if n > 0 {
				fmt.Printf("  %v", d2c.Outcome(o))
			}
		}
		fmt.Println()
	}
	// Output:
	// since 12:00:00 at 12:00:10.000:  5  first
	// since 12:00:00 at 12:00:20.000:  8  aligned
	// since 12:00:00 at 12:00:20.000:  8  repeat
	// since 12:00:00 at 12:00:40.000:  9  gap
	// since 12:00:00 at 12:00:40.001: 13  late
}

// textExporter is somebody's own exporter for a backend that wants cumulative counters. With a Converter in front of its
// encoder it takes deltas too.
type textExporter struct {
	conv *d2c.Converter
	out  io.Writer
}

// ConsumeMetrics implements consumer.Metrics for monotonic integer sums. An error is safe to retry with the same deltas:
// they count once, and the totals that the failed attempt should have delivered are delivered again.
func (e *textExporter) ConsumeMetrics(ctx context.Context, md pmetric.Metrics) error {
	result, err := e.conv.Convert(ctx, md)
	if err != nil {
		return err
	}
	if n := result.Dropped(); n > 0 {
		fmt.Fprintf(e.out, "# %d points dropped\n", n)
	}
	var errs error
	for _, rm := range md.ResourceMetrics().All() {
		for _, sm := range rm.ScopeMetrics().All() {
			for _, m := range sm.Metrics().All() {
				for _, dp := range m.Sum().DataPoints().All() {
					method, _ := dp.Attributes().Get("method")
					_, err := fmt.Fprintf(e.out, "%s_total{method=%q} %d %d\n", m.Name(), method.Str(), dp.IntValue(),
						dp.Timestamp().AsTime().UnixMilli())
					errs = errors.Join(errs, err)
				}
			}
		}
	}
	return errs
}

// flaky fails its first write, as a backend would.
type flaky struct{ failed bool }

func (w *flaky) Write(p []byte) (int, error) {
	if !w.failed {
		w.failed = true
		return 0, errors.New("backend unavailable")
	}
	return os.Stdout.Write(p)
}

// An exporter of one's own that embeds a Converter to accept deltas.
func Example_exporter() {
	conv, err := d2c.New(d2c.DefaultConfig())
	if err != nil {
		panic(err)
	}
	exporter := &textExporter{conv: conv, out: &flaky{}}

	fmt.Println(exporter.ConsumeMetrics(context.Background(), requests(5, 0, 10)))
	fmt.Println(exporter.ConsumeMetrics(context.Background(), requests(5, 0, 10))) // the sender tries again
	fmt.Println(exporter.ConsumeMetrics(context.Background(), requests(2, 10, 20)))
	// Output:
	// backend unavailable
	// http_requests_total{method="GET"} 5 1780315210000
	// <nil>
	// http_requests_total{method="GET"} 7 1780315220000
	// <nil>
}

// Two tenants send the same stream, and a header of their requests says who is who.
func ExampleWithTenant() {
	conv, err := d2c.New(d2c.DefaultConfig())
	if err != nil {
		panic(err)
	}
	for i := range 2 {
		for n, name := range []string{"acme", "globex"} {
			ctx := d2c.WithTenant(context.Background(), streamid.TenantKey{Name: "x-tenant", Values: []string{name}})
			md := requests(int64(1+n), 10*i, 10*i+10)
			if _, err := conv.Convert(ctx, md); err != nil {
				fmt.Println(err)
			}
			fmt.Println(name, md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints().At(0).IntValue())
		}
	}
	// Output:
	// acme 1
	// globex 2
	// acme 2
	// globex 4
}
