// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2cprocessor

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/processor"
	"go.opentelemetry.io/collector/processor/processortest"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// at is a moment some seconds into the tests' history.
func at(seconds int) pcommon.Timestamp {
	return pcommon.NewTimestampFromTime(time.Unix(1_700_000_000+int64(seconds), 0))
}

// delta is an integer delta of the stream of that name over (start, end].
type delta struct {
	stream     string
	start, end int
	value      int64
}

// batch returns the deltas as one monotonic delta sum.
func batch(deltas ...delta) pmetric.Metrics {
	md := pmetric.NewMetrics()
	metrics := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics()
	sum := newSum(metrics, pmetric.AggregationTemporalityDelta)
	for _, d := range deltas {
		dp := sum.DataPoints().AppendEmpty()
		dp.Attributes().PutStr("stream", d.stream)
		dp.SetStartTimestamp(at(d.start))
		dp.SetTimestamp(at(d.end))
		dp.SetIntValue(d.value)
	}
	return md
}

func newSum(metrics pmetric.MetricSlice, temporality pmetric.AggregationTemporality) pmetric.Sum {
	metric := metrics.AppendEmpty()
	metric.SetName("requests")
	sum := metric.SetEmptySum()
	sum.SetIsMonotonic(true)
	sum.SetAggregationTemporality(temporality)
	return sum
}

// sample is what became of a delta.
type sample struct {
	stream     string
	start, end pcommon.Timestamp
	value      int64
}

// samples returns the points of the cumulative sum in md.
func samples(t *testing.T, md pmetric.Metrics) []sample {
	t.Helper()
	require.Equal(t, 1, md.MetricCount())
	sum := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum()
	require.Equal(t, pmetric.AggregationTemporalityCumulative, sum.AggregationTemporality())
	var got []sample
	for _, dp := range sum.DataPoints().All() {
		stream, _ := dp.Attributes().Get("stream")
		got = append(got, sample{stream.Str(), dp.StartTimestamp(), dp.Timestamp(), dp.IntValue()})
	}
	return got
}

// create makes a processor through the factory and starts it; it is shut down when the test ends.
func create(t *testing.T, set processor.Settings, cfg *Config, next consumer.Metrics) processor.Metrics {
	t.Helper()
	p, err := NewFactory().CreateMetrics(t.Context(), set, cfg, next)
	require.NoError(t, err)
	require.NoError(t, p.Start(t.Context(), componenttest.NewNopHost()))
	t.Cleanup(func() { require.NoError(t, p.Shutdown(context.Background())) })
	return p
}

// nop returns settings that report to nobody.
func nop() processor.Settings { return processortest.NewNopSettings(component.MustNewType("d2c")) }

// observed returns settings whose log, from the given level up, can be read.
func observed(level zapcore.Level) (processor.Settings, *observer.ObservedLogs) {
	core, logs := observer.New(level)
	set := nop()
	set.Logger = zap.New(core)
	return set, logs
}

func defaults() *Config { return createDefaultConfig().(*Config) }
