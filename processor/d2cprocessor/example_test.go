// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2cprocessor_test

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/processor"

	d2cprocessor "github.com/deltaring/deltaring/processor/d2cprocessor"
)

// A Collector of your own lists the factory among its processors. What the Collector then does with it, the rest of the
// example does by hand: default configuration, keys from the file, create, start, consume, shut down.
func ExampleNewFactory() {
	factory := d2cprocessor.NewFactory()
	processors := map[component.Type]processor.Factory{ // otelcol.Factories.Processors
		factory.Type(): factory,
	}

	ctx := context.Background()
	d2cType := component.MustNewType("d2c")
	cfg := processors[d2cType].CreateDefaultConfig().(*d2cprocessor.Config)
	cfg.MaxStreams = 100_000
	settings := processor.Settings{ID: component.NewID(d2cType), TelemetrySettings: componenttest.NewNopTelemetrySettings()}
	next, _ := consumer.NewMetrics(show)
	p, err := processors[d2cType].CreateMetrics(ctx, settings, cfg, next)
	if err != nil {
		panic(err)
	}
	if err := p.Start(ctx, componenttest.NewNopHost()); err != nil {
		panic(err)
	}
	for i, n := range []int64{3, 4, 5} {
		if err := p.ConsumeMetrics(ctx, requests(time.Unix(1_700_000_000+int64(60*i), 0), n)); err != nil {
			panic(err)
		}
	}
	if err := p.Shutdown(ctx); err != nil {
		panic(err)
	}
	// Output:
	// requests: 3 (Cumulative)
	// requests: 7 (Cumulative)
	// requests: 12 (Cumulative)
}

// requests returns a delta over the minute from start.
func requests(start time.Time, n int64) pmetric.Metrics {
	md := pmetric.NewMetrics()
	m := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetName("requests")
	sum := m.SetEmptySum()
	sum.SetIsMonotonic(true)
	sum.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	dp := sum.DataPoints().AppendEmpty()
	dp.SetStartTimestamp(pcommon.NewTimestampFromTime(start))
	dp.SetTimestamp(pcommon.NewTimestampFromTime(start.Add(time.Minute)))
	dp.SetIntValue(n)
	return md
}

func show(_ context.Context, md pmetric.Metrics) error {
	m := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0)
	fmt.Printf("%s: %d (%s)\n", m.Name(), m.Sum().DataPoints().At(0).IntValue(), m.Sum().AggregationTemporality())
	return nil
}
