// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2cprocessor

import (
	"context"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/confmaptest"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/metric/metricdata/metricdatatest"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/processor/d2cprocessor/internal/metadatatest"
)

// newTestTelemetry collects what processors report; the settings made from it have the ID d2c.
func newTestTelemetry(t *testing.T) *componenttest.Telemetry {
	tt := componenttest.NewTelemetry()
	t.Cleanup(func() { require.NoError(t, tt.Shutdown(context.Background())) })
	return tt
}

// value is one measurement of processor d2c with more attributes, given as keys and values in turn.
func value[N int64 | float64](n N, attrs ...string) metricdata.DataPoint[N] {
	set := []attribute.KeyValue{attribute.String("processor", "d2c")}
	for i := 0; i < len(attrs); i += 2 {
		set = append(set, attribute.String(attrs[i], attrs[i+1]))
	}
	return metricdata.DataPoint[N]{Attributes: attribute.NewSet(set...), Value: n}
}

var ignoreTime = metricdatatest.IgnoreTimestamp()

func TestTelemetry(t *testing.T) {
	tt := newTestTelemetry(t)
	cfg := defaults()
	cfg.MaxStreams = 3
	p := create(t, metadatatest.NewSettings(tt), cfg, consumertest.NewNop())

	gauge := pmetric.NewMetrics()
	gauge.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty().
		SetEmptyGauge().DataPoints().AppendEmpty()
	for _, md := range []pmetric.Metrics{
		gauge,
		batch(delta{"a", 0, 10, 1}, delta{"b", 0, 10, 1}, delta{"c", 0, 10, math.MaxInt64}),
		batch(delta{"d", 0, 10, 1}), // beyond the limit
		batch(delta{"a", 10, 20, 1}, delta{"b", 40, 50, 1}, delta{"c", 10, 20, 1}), // aligned, a gap of 30 s, overflow
		batch(delta{"a", 10, 20, 1}, delta{"b", 10, 22, 1}),                        // repeat, late by 12 s
		batch(delta{"a", 20, 30, -1}),
	} {
		require.NoError(t, p.ConsumeMetrics(t.Context(), md))
	}

	metadatatest.AssertEqualD2cPoints(t, tt, []metricdata.DataPoint[int64]{
		value[int64](1, "outcome", "passed"),
		value[int64](3, "outcome", "first"),
		value[int64](1, "outcome", "aligned"),
		value[int64](1, "outcome", "gap"),
		value[int64](1, "outcome", "late"),
		value[int64](1, "outcome", "restart_overflow"),
		value[int64](1, "outcome", "repeat"),
		value[int64](1, "outcome", "dropped_limit"),
		value[int64](1, "outcome", "dropped_negative"),
	}, ignoreTime)
	metadatatest.AssertEqualD2cRestarts(t, tt, []metricdata.DataPoint[int64]{value[int64](1, "reason", "overflow")}, ignoreTime)
	metadatatest.AssertEqualD2cGapOpened(t, tt, []metricdata.DataPoint[float64]{value(30.0)}, ignoreTime)
	metadatatest.AssertEqualD2cGapFilled(t, tt, []metricdata.DataPoint[float64]{value(12.0)}, ignoreTime)
	metadatatest.AssertEqualD2cStreams(t, tt, []metricdata.DataPoint[int64]{value[int64](3)}, ignoreTime)
	metadatatest.AssertEqualD2cStreamsLimit(t, tt, []metricdata.DataPoint[int64]{value[int64](3)}, ignoreTime)
	assert.Positive(t, observedSum(t, tt, "otelcol_d2c_state_size"))
}

func observedSum(t *testing.T, tt *componenttest.Telemetry, name string) int64 {
	t.Helper()
	m, err := tt.GetMetric(name)
	require.NoError(t, err)
	points := m.Data.(metricdata.Sum[int64]).DataPoints
	require.Len(t, points, 1)
	return points[0].Value
}

func TestTelemetryCountsExpiredStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tt := newTestTelemetry(t)
		cfg := defaults()
		cfg.MaxStale = 10 * time.Minute
		p := create(t, metadatatest.NewSettings(tt), cfg, consumertest.NewNop())
		require.NoError(t, p.ConsumeMetrics(t.Context(), batch(delta{"a", 0, 10, 1}, delta{"b", 0, 10, 1})))
		time.Sleep(12 * time.Minute)
		synctest.Wait()
		metadatatest.AssertEqualD2cStreamsExpired(t, tt, []metricdata.DataPoint[int64]{value[int64](2)}, ignoreTime)
		metadatatest.AssertEqualD2cStreams(t, tt, []metricdata.DataPoint[int64]{value[int64](0)}, ignoreTime)
	})
}

// The Collector makes one instance for each pipeline, all with one ID and one meter.
func TestTelemetryOfInstancesOfOneIDAddsUp(t *testing.T) {
	tt := newTestTelemetry(t)
	one := create(t, metadatatest.NewSettings(tt), defaults(), consumertest.NewNop())
	two := create(t, metadatatest.NewSettings(tt), defaults(), consumertest.NewNop())
	require.NoError(t, one.ConsumeMetrics(t.Context(), batch(delta{"a", 0, 10, 1}, delta{"b", 0, 10, 1})))
	require.NoError(t, two.ConsumeMetrics(t.Context(), batch(delta{"a", 0, 10, 1})))
	metadatatest.AssertEqualD2cPoints(t, tt, []metricdata.DataPoint[int64]{value[int64](3, "outcome", "first")}, ignoreTime)
	metadatatest.AssertEqualD2cStreams(t, tt, []metricdata.DataPoint[int64]{value[int64](3)}, ignoreTime)
}

func TestTelemetryEndsWithShutdown(t *testing.T) {
	tt := newTestTelemetry(t)
	cfg := defaults()
	cfg.MaxStreams = 0
	p, err := NewFactory().CreateMetrics(t.Context(), metadatatest.NewSettings(tt), cfg, consumertest.NewNop())
	require.NoError(t, err)
	require.NoError(t, p.Start(t.Context(), componenttest.NewNopHost()))
	_, err = tt.GetMetric("otelcol_d2c_streams")
	require.NoError(t, err)
	_, err = tt.GetMetric("otelcol_d2c_streams_limit")
	assert.Error(t, err, "there is no limit to report")
	require.NoError(t, p.Shutdown(t.Context()))
	_, err = tt.GetMetric("otelcol_d2c_streams")
	assert.Error(t, err)
}

// A batch costs the same whatever the number of its points, down to the allocations of the processor around package d2c.
func TestNoAllocationsPerPoint(t *testing.T) {
	tt := newTestTelemetry(t)
	p := create(t, metadatatest.NewSettings(tt), defaults(), consumertest.NewNop())
	allocations := func(points int) float64 {
		var deltas []delta
		for i := range points {
			// Zeros, so that a total can be sent as the next delta: setting a value allocates.
			deltas = append(deltas, delta{fmt.Sprint(points, " ", i), 0, 10, 0})
		}
		md := batch(deltas...)
		sum := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum()
		end := 10
		return testing.AllocsPerRun(100, func() {
			sum.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
			for i := range points {
				dp := sum.DataPoints().At(i)
				dp.SetStartTimestamp(at(end - 10))
				dp.SetTimestamp(at(end))
			}
			end += 10
			if err := p.ConsumeMetrics(t.Context(), md); err != nil {
				t.Error(err)
			}
		})
	}
	few, many := allocations(10), allocations(1000)
	// The race detector has sync.Pool forget now and then what package d2c keeps in it, hence not quite zero.
	assert.Less(t, (many-few)/990, 0.05, "allocations per point")
}

func TestRecordDoesNotAllocate(t *testing.T) {
	tt := newTestTelemetry(t)
	tel, err := newTelemetry(metadatatest.NewSettings(tt))
	require.NoError(t, err)
	conv, err := d2c.New(d2c.DefaultConfig())
	require.NoError(t, err)
	result, err := conv.Convert(t.Context(), batch(delta{"a", 0, 10, 5}, delta{"a", 20, 30, 5}, delta{"a", 0, 10, 5}, delta{"a", 0, 5, -1}))
	require.NoError(t, err)
	result.GapFilled = time.Second
	assert.Zero(t, testing.AllocsPerRun(100, func() { tel.record(t.Context(), &result) }))
}

// Every outcome and every reason is known to metadata.yaml. What to do about them is in README.md: see reference_test.go.
func TestMetadataHasTheOutcomes(t *testing.T) {
	var want, wantReasons []string
	for o := range d2c.NumOutcomes {
		want = append(want, o.String())
		if o.Restarted() {
			wantReasons = append(wantReasons, o.String()[len("restart_"):])
		}
	}
	conf, err := confmaptest.LoadConf("metadata.yaml")
	require.NoError(t, err)
	var md struct {
		Attributes map[string]struct {
			Enum []string `mapstructure:"enum"`
		} `mapstructure:"attributes"`
	}
	require.NoError(t, conf.Unmarshal(&md, confmap.WithIgnoreUnused()))
	assert.Equal(t, want, md.Attributes["outcome"].Enum)
	assert.Equal(t, wantReasons, md.Attributes["reason"].Enum)
}
