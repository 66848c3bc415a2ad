// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package lanesconnector

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/connector"
	"go.opentelemetry.io/collector/connector/connectortest"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/deltaring/deltaring/ring/lanesconnector/internal/metadata"
	"github.com/deltaring/deltaring/streamid"
)

// stored is a sample that a backend has.
type stored struct {
	ms    uint64
	value float64
}

// backend takes samples as Prometheus does that has no out-of-order window: each must be later than the last one of its series, or
// else the whole request is refused, and nothing of it is stored. It fails the test if requests with one stream overlap.
type backend struct {
	t        *testing.T
	latency  func() time.Duration
	answer   func(pmetric.Metrics) error // before anything is stored
	mutates  bool
	partial  bool // stores what is in order of a request that it refuses, as Cortex does
	inflight map[streamid.ID]bool

	mu       sync.Mutex
	series   map[streamid.ID][]stored
	requests int
	most     int // requests at once
	now      int
	rejected int // samples out of order
	points   int
	sizes    []int
}

func newBackend(t *testing.T) *backend {
	return &backend{
		t: t, inflight: map[streamid.ID]bool{}, series: map[streamid.ID][]stored{},
		latency: func() time.Duration { return 0 }, answer: func(pmetric.Metrics) error { return nil },
	}
}

func (b *backend) Capabilities() consumer.Capabilities {
	return consumer.Capabilities{MutatesData: b.mutates}
}

// numbersOf calls f for all number points, with the identities of their streams.
func numbersOf(md pmetric.Metrics, f func(streamid.ID, pmetric.NumberDataPoint)) {
	for _, rm := range md.ResourceMetrics().All() {
		for _, sm := range rm.ScopeMetrics().All() {
			for _, m := range sm.Metrics().All() {
				points := m.Sum().DataPoints
				if m.Type() == pmetric.MetricTypeGauge {
					points = m.Gauge().DataPoints
				}
				for _, dp := range points().All() {
					f(streamid.Of(rm.Resource(), sm.Scope(), m, dp.Attributes()), dp)
				}
			}
		}
	}
}

func (b *backend) ConsumeMetrics(ctx context.Context, md pmetric.Metrics) error {
	streams := map[streamid.ID]bool{}
	numbersOf(md, func(id streamid.ID, _ pmetric.NumberDataPoint) { streams[id] = true })
	b.mu.Lock()
	b.requests++
	b.now++
	b.most = max(b.most, b.now)
	b.sizes = append(b.sizes, md.DataPointCount())
	for id := range streams {
		if b.inflight == nil {
			break
		}
		if b.inflight[id] {
			b.t.Errorf("two requests with stream %v at once", id)
		}
		b.inflight[id] = true
	}
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.now--
		for id := range streams {
			delete(b.inflight, id)
		}
	}()
	select {
	case <-time.After(b.latency()):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := b.answer(md); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	fresh, late := map[streamid.ID][]stored{}, 0
	numbersOf(md, func(id streamid.ID, dp pmetric.NumberDataPoint) {
		before := fresh[id]
		if before == nil {
			before = b.series[id]
		}
		s := stored{uint64(dp.Timestamp()) / 1e6, dp.DoubleValue()}
		if dp.ValueType() == pmetric.NumberDataPointValueTypeInt {
			s.value = float64(dp.IntValue())
		}
		if n := len(before); n > 0 && before[n-1].ms >= s.ms {
			if before[n-1] != s {
				late++
			}
			return
		}
		fresh[id] = append(fresh[id], s)
	})
	if late == 0 || b.partial {
		for id, samples := range fresh {
			b.series[id] = append(b.series[id], samples...)
			b.points += len(samples)
		}
	}
	if late > 0 {
		b.rejected += late
		return consumererror.NewPermanent(fmt.Errorf("out of order sample, %d of them", late))
	}
	if b.mutates {
		md.ResourceMetrics().RemoveIf(func(pmetric.ResourceMetrics) bool { return true })
	}
	return nil
}

// stored returns how many points are.
func (b *backend) stored() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.points
}

// under returns how many requests are under way.
func (b *backend) under() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

// of returns what is stored of a series of batchOf.
func (b *backend) of(producer, series int) []stored {
	b.mu.Lock()
	defer b.mu.Unlock()
	md := batchOf(producer, 1, 0, 0, func(int) float64 { return 0 })
	m := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0)
	attrs := pcommon.NewMap()
	attrs.PutInt("series", int64(series))
	return b.series[streamid.Of(md.ResourceMetrics().At(0).Resource(), pcommon.NewInstrumentationScope(), m, attrs)]
}

// batchOf returns one cumulative sample for each series of a producer.
func batchOf(producer, series, first int, ms uint64, value func(series int) float64) pmetric.Metrics {
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	rm.Resource().Attributes().PutStr("service.instance.id", strconv.Itoa(producer))
	m := rm.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetName("requests")
	sum := m.SetEmptySum()
	sum.SetIsMonotonic(true)
	sum.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	for i := range series {
		dp := sum.DataPoints().AppendEmpty()
		dp.Attributes().PutInt("series", int64(first+i))
		dp.SetTimestamp(pcommon.Timestamp(ms * 1e6))
		dp.SetDoubleValue(value(first + i))
	}
	return md
}

// lab is a running connector and all that can be seen of it.
type lab struct {
	t    *testing.T
	tel  *componenttest.Telemetry
	logs *observer.ObservedLogs
	connector.Metrics
}

type hosted struct {
	extensions map[component.ID]component.Component
}

func (h hosted) GetExtensions() map[component.ID]component.Component { return h.extensions }

func load(t testing.TB, yaml string) (*Config, error) {
	t.Helper()
	retrieved, err := confmap.NewRetrievedFromYAML([]byte(yaml))
	require.NoError(t, err)
	conf, err := retrieved.AsConf()
	require.NoError(t, err)
	cfg := createDefaultConfig().(*Config)
	if err := conf.Unmarshal(cfg); err != nil {
		return nil, err
	}
	return cfg, confmap.Validate(cfg)
}

func newLab(t *testing.T, yaml string, next consumer.Metrics) *lab {
	t.Helper()
	return newLabOn(t, hosted{}, yaml, next)
}

func newLabOn(t *testing.T, host component.Host, yaml string, next consumer.Metrics) *lab {
	t.Helper()
	cfg, err := load(t, yaml)
	require.NoError(t, err)
	tel := componenttest.NewTelemetry()
	t.Cleanup(func() { _ = tel.Shutdown(context.Background()) })
	core, logs := observer.New(zapcore.InfoLevel)
	set := nopSettings()
	set.TelemetrySettings = tel.NewTelemetrySettings()
	set.Logger = zap.New(core)
	c, err := NewFactory().CreateMetricsToMetrics(t.Context(), set, cfg, next)
	require.NoError(t, err)
	require.NoError(t, c.Start(t.Context(), host))
	return &lab{t: t, tel: tel, logs: logs, Metrics: c}
}

func (l *lab) stop() {
	l.t.Helper()
	require.NoError(l.t, l.Shutdown(context.Background()))
}

// count returns the sum of a counter's points that have such an attribute, of all if the key is empty.
func (l *lab) count(name, key, value string) (n int64) {
	l.t.Helper()
	m, err := l.tel.GetMetric("otelcol_" + name)
	if err != nil {
		return 0
	}
	for _, dp := range m.Data.(metricdata.Sum[int64]).DataPoints {
		if v, _ := dp.Attributes.Value(attribute.Key(key)); key == "" || v.AsString() == value {
			n += dp.Value
		}
	}
	return n
}

// outcomes returns lanes_items by outcome, without zeros.
func (l *lab) outcomes() map[string]int64 {
	l.t.Helper()
	all := map[string]int64{}
	for _, o := range []string{"sent", "late", "duplicate", "refused", "failed", "returned"} {
		if n := l.count("lanes_items", "outcome", o); n != 0 {
			all[o] = n
		}
	}
	return all
}

func nopSettings() connector.Settings {
	set := connectortest.NewNopSettings(metadata.Type)
	set.ID = component.NewID(metadata.Type) // or it would be another one each time
	return set
}

var errDown = errors.New("the backend is down")

// looking is a backend that somebody looks at.
type looking struct {
	*backend
	look func(context.Context, pmetric.Metrics)
}

func (l looking) ConsumeMetrics(ctx context.Context, md pmetric.Metrics) error {
	l.look(ctx, md)
	return l.backend.ConsumeMetrics(ctx, md)
}

func consumerOf(b *backend, look func(context.Context, pmetric.Metrics)) consumer.Metrics {
	return looking{b, look}
}
