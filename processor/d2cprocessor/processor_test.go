// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2cprocessor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
)

func TestDeltaSumsBecomeCumulative(t *testing.T) {
	sink := new(consumertest.MetricsSink)
	p := create(t, nop(), defaults(), sink)
	assert.True(t, p.Capabilities().MutatesData)

	require.NoError(t, p.ConsumeMetrics(t.Context(), batch(delta{"a", 0, 10, 5}, delta{"b", 0, 10, 1})))
	require.NoError(t, p.ConsumeMetrics(t.Context(), batch(delta{"a", 10, 20, 7})))
	require.NoError(t, p.ConsumeMetrics(t.Context(), batch(delta{"b", 10, 20, 0}, delta{"a", 20, 30, 1})))

	got := sink.AllMetrics()
	require.Len(t, got, 3)
	assert.Equal(t, []sample{{"a", at(0), at(10), 5}, {"b", at(0), at(10), 1}}, samples(t, got[0]))
	assert.Equal(t, []sample{{"a", at(0), at(20), 12}}, samples(t, got[1]))
	assert.Equal(t, []sample{{"b", at(0), at(20), 1}, {"a", at(0), at(30), 13}}, samples(t, got[2]))
}

func TestDeltaHistogramsBecomeCumulative(t *testing.T) {
	sink := new(consumertest.MetricsSink)
	p := create(t, nop(), defaults(), sink)

	for i := range 2 {
		md := pmetric.NewMetrics()
		metrics := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics()
		explicit := metrics.AppendEmpty()
		explicit.SetName("explicit")
		explicit.SetEmptyHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		h := explicit.Histogram().DataPoints().AppendEmpty()
		h.SetStartTimestamp(at(10 * i))
		h.SetTimestamp(at(10*i + 10))
		h.ExplicitBounds().FromRaw([]float64{1, 2})
		h.BucketCounts().FromRaw([]uint64{1, 0, 2})
		h.SetCount(3)
		h.SetSum(8)

		exponential := metrics.AppendEmpty()
		exponential.SetName("exponential")
		exponential.SetEmptyExponentialHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		e := exponential.ExponentialHistogram().DataPoints().AppendEmpty()
		e.SetStartTimestamp(at(10 * i))
		e.SetTimestamp(at(10*i + 10))
		e.Positive().SetOffset(2)
		e.Positive().BucketCounts().FromRaw([]uint64{4, 1})
		e.SetZeroCount(1)
		e.SetCount(6)
		e.SetSum(50)
		require.NoError(t, p.ConsumeMetrics(t.Context(), md))
	}

	require.Len(t, sink.AllMetrics(), 2)
	metrics := sink.AllMetrics()[1].ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics()
	assert.Equal(t, pmetric.AggregationTemporalityCumulative, metrics.At(0).Histogram().AggregationTemporality())
	h := metrics.At(0).Histogram().DataPoints().At(0)
	assert.Equal(t, []uint64{2, 0, 4}, h.BucketCounts().AsRaw())
	assert.Equal(t, uint64(6), h.Count())
	assert.Equal(t, 16.0, h.Sum())
	assert.Equal(t, at(0), h.StartTimestamp())
	assert.Equal(t, at(20), h.Timestamp())

	assert.Equal(t, pmetric.AggregationTemporalityCumulative, metrics.At(1).ExponentialHistogram().AggregationTemporality())
	e := metrics.At(1).ExponentialHistogram().DataPoints().At(0)
	assert.Equal(t, int32(2), e.Positive().Offset())
	assert.Equal(t, []uint64{8, 2}, e.Positive().BucketCounts().AsRaw())
	assert.Equal(t, uint64(2), e.ZeroCount())
	assert.Equal(t, uint64(12), e.Count())
	assert.Equal(t, 100.0, e.Sum())
}

func TestPoliciesReachTheConverter(t *testing.T) {
	overlapping := []delta{{"a", 0, 10, 100}, {"a", 5, 15, 10}}
	gapped := []delta{{"a", 0, 10, 100}, {"a", 20, 30, 10}}
	late := []delta{{"a", 0, 10, 100}, {"a", 20, 30, 10}, {"a", 10, 20, 1}}
	for name, test := range map[string]struct {
		change func(*Config)
		deltas []delta
		want   int64             // value of the last sample
		start  pcommon.Timestamp // its start
		sent   int               // number of batches that reach the next component
	}{
		"overlap add":         {func(*Config) {}, overlapping, 110, at(0), 2},
		"overlap drop":        {func(c *Config) { c.Overlap = d2c.OverlapDrop }, overlapping, 100, at(0), 1},
		"overlap interpolate": {func(c *Config) { c.Overlap = d2c.OverlapInterpolate }, overlapping, 105, at(0), 2},
		"gap continue":        {func(*Config) {}, gapped, 110, at(0), 2},
		"gap restart":         {func(c *Config) { c.Gap = d2c.GapRestart }, gapped, 10, at(20), 2},
		"late window":         {func(*Config) {}, late, 111, at(0), 3},
		"no late window":      {func(c *Config) { c.LateWindow = 0 }, late, 110, at(0), 2},
	} {
		t.Run(name, func(t *testing.T) {
			sink := new(consumertest.MetricsSink)
			cfg := defaults()
			test.change(cfg)
			p := create(t, nop(), cfg, sink)
			for _, d := range test.deltas {
				require.NoError(t, p.ConsumeMetrics(t.Context(), batch(d)))
			}
			require.Len(t, sink.AllMetrics(), test.sent)
			last := samples(t, sink.AllMetrics()[test.sent-1])[0]
			assert.Equal(t, test.want, last.value)
			assert.Equal(t, test.start, last.start)
		})
	}
}

func TestDownstreamErrorIsReturnedAndTheRetryGetsThrough(t *testing.T) {
	var refused, accepted [][]sample
	unavailable := errors.New("unavailable")
	var answer error
	next, err := consumer.NewMetrics(func(_ context.Context, md pmetric.Metrics) error {
		if answer != nil {
			refused = append(refused, samples(t, md))
		} else {
			accepted = append(accepted, samples(t, md))
		}
		return answer
	})
	require.NoError(t, err)
	p := create(t, nop(), defaults(), next)
	require.NoError(t, p.ConsumeMetrics(t.Context(), batch(delta{"a", 0, 10, 5}, delta{"b", 0, 10, 50})))

	again := func() pmetric.Metrics { return batch(delta{"a", 10, 20, 7}, delta{"b", 10, 20, 70}) }
	answer = unavailable
	err = p.ConsumeMetrics(t.Context(), again())
	assert.True(t, err == unavailable, "want the very error of the next component, got %v", err)
	answer = nil
	require.NoError(t, p.ConsumeMetrics(t.Context(), again()))

	want := []sample{{"a", at(0), at(20), 12}, {"b", at(0), at(20), 120}}
	assert.Equal(t, [][]sample{want}, refused)
	require.Len(t, accepted, 2)
	assert.Equal(t, want, accepted[1])
}

func TestPassThroughIsUntouchedAndNotCopied(t *testing.T) {
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	rm.Resource().Attributes().PutStr("service.name", "shop")
	metrics := rm.ScopeMetrics().AppendEmpty().Metrics()
	gauge := metrics.AppendEmpty()
	gauge.SetName("gauge")
	gauge.SetEmptyGauge().DataPoints().AppendEmpty().SetDoubleValue(1.5)
	summary := metrics.AppendEmpty()
	summary.SetName("summary")
	summary.SetEmptySummary().DataPoints().AppendEmpty().SetCount(3)
	sum := newSum(metrics, pmetric.AggregationTemporalityCumulative)
	sum.DataPoints().AppendEmpty().SetIntValue(9)
	histogram := metrics.AppendEmpty()
	histogram.SetName("histogram")
	histogram.SetEmptyHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	histogram.Histogram().DataPoints().AppendEmpty().SetCount(4)
	metrics.AppendEmpty().SetName("without data")
	before := marshal(t, md)

	var got pmetric.Metrics
	next, err := consumer.NewMetrics(func(_ context.Context, md pmetric.Metrics) error {
		got = md
		return nil
	})
	require.NoError(t, err)
	p := create(t, nop(), defaults(), next)
	require.NoError(t, p.ConsumeMetrics(t.Context(), md))

	assert.Equal(t, before, marshal(t, got))
	assert.True(t, got == md, "the batch was replaced")
	// The handles taken before still reach the data that was handed on.
	gauge.Gauge().DataPoints().At(0).SetDoubleValue(2.5)
	sum.DataPoints().At(0).SetIntValue(10)
	passed := got.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics()
	assert.Equal(t, 2.5, passed.At(0).Gauge().DataPoints().At(0).DoubleValue())
	assert.Equal(t, int64(10), passed.At(2).Sum().DataPoints().At(0).IntValue())
}

func marshal(t *testing.T, md pmetric.Metrics) []byte {
	t.Helper()
	b, err := new(pmetric.ProtoMarshaler).MarshalMetrics(md)
	require.NoError(t, err)
	return b
}

func TestNothingIsSentOnWhenAllPointsWereDropped(t *testing.T) {
	sink := new(consumertest.MetricsSink)
	p := create(t, nop(), defaults(), sink)
	require.NoError(t, p.ConsumeMetrics(t.Context(), batch(delta{"a", 0, 10, -1})), "a retry would not help")
	assert.Empty(t, sink.AllMetrics())

	require.NoError(t, p.ConsumeMetrics(t.Context(), batch(delta{"a", 0, 10, -1}, delta{"b", 0, 10, 1})))
	require.Len(t, sink.AllMetrics(), 1)
	assert.Equal(t, []sample{{"b", at(0), at(10), 1}}, samples(t, sink.AllMetrics()[0]))
}

func TestEmptyBatchIsSentOn(t *testing.T) {
	sink := new(consumertest.MetricsSink)
	p := create(t, nop(), defaults(), sink)
	require.NoError(t, p.ConsumeMetrics(t.Context(), pmetric.NewMetrics()))
	require.Len(t, sink.AllMetrics(), 1)
	assert.Zero(t, sink.AllMetrics()[0].ResourceMetrics().Len())
}

func TestConcurrentBatchesStayExact(t *testing.T) {
	const workers, rounds = 8, 50
	sink := new(consumertest.MetricsSink)
	p := create(t, nop(), defaults(), sink)
	for i := range rounds {
		// Within a round the workers' parts of the shared stream come in any order: at most four gaps at a time.
		var round sync.WaitGroup
		for w := range workers {
			round.Go(func() {
				part := i*workers + w
				md := batch(delta{fmt.Sprint("own ", w), i, i + 1, 2}, delta{"shared", part, part + 1, 3})
				assert.NoError(t, p.ConsumeMetrics(t.Context(), md))
			})
		}
		round.Wait()
	}

	last := map[string]sample{}
	for _, md := range sink.AllMetrics() {
		for _, s := range samples(t, md) {
			if s.end > last[s.stream].end {
				last[s.stream] = s
			}
		}
	}
	for w := range workers {
		own := fmt.Sprint("own ", w)
		assert.Equal(t, sample{own, at(0), at(rounds), 2 * rounds}, last[own])
	}
	assert.Equal(t, int64(3*workers*rounds), last["shared"].value)
	assert.Equal(t, at(0), last["shared"].start)
}

// In the tests below time is synctest's: it stands still while any goroutine can run and jumps when all of them wait.

func TestIdleStreamsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := new(consumertest.MetricsSink)
		cfg := defaults()
		cfg.MaxStale = 10 * time.Minute
		p := create(t, nop(), cfg, sink)
		require.NoError(t, p.ConsumeMetrics(t.Context(), batch(delta{"a", 0, 10, 5})))
		time.Sleep(9 * time.Minute)
		require.NoError(t, p.ConsumeMetrics(t.Context(), batch(delta{"a", 10, 20, 5})))
		time.Sleep(12 * time.Minute)
		synctest.Wait()
		require.NoError(t, p.ConsumeMetrics(t.Context(), batch(delta{"a", 20, 30, 5})))

		got := sink.AllMetrics()
		require.Len(t, got, 3)
		assert.Equal(t, []sample{{"a", at(0), at(20), 10}}, samples(t, got[1]), "it was not idle for long enough")
		assert.Equal(t, []sample{{"a", at(20), at(30), 5}}, samples(t, got[2]), "it should have been forgotten")
	})
}

func TestStreamsAreKeptForEverWithoutMaxStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := new(consumertest.MetricsSink)
		cfg := defaults()
		cfg.MaxStale = 0
		p := create(t, nop(), cfg, sink)
		require.NoError(t, p.ConsumeMetrics(t.Context(), batch(delta{"a", 0, 10, 5})))
		time.Sleep(1000 * time.Hour)
		require.NoError(t, p.ConsumeMetrics(t.Context(), batch(delta{"a", 10, 20, 5})))
		assert.Equal(t, []sample{{"a", at(0), at(20), 10}}, samples(t, sink.AllMetrics()[1]))
	})
}

func TestShutdown(t *testing.T) {
	t.Run("without start, twice", func(t *testing.T) {
		p, err := NewFactory().CreateMetrics(t.Context(), nop(), defaults(), consumertest.NewNop())
		require.NoError(t, err)
		assert.NoError(t, p.Shutdown(t.Context()))
		assert.NoError(t, p.Shutdown(t.Context()))
	})
	for name, maxStale := range map[string]time.Duration{"with a sweeper": time.Hour, "without one": 0} {
		t.Run("twice, "+name, func(t *testing.T) {
			// synctest fails if a goroutine is left behind.
			synctest.Test(t, func(t *testing.T) {
				cfg := defaults()
				cfg.MaxStale = maxStale
				p, err := NewFactory().CreateMetrics(t.Context(), nop(), cfg, consumertest.NewNop())
				require.NoError(t, err)
				require.NoError(t, p.Start(t.Context(), componenttest.NewNopHost()))
				assert.NoError(t, p.Shutdown(t.Context()))
				assert.NoError(t, p.Shutdown(t.Context()))
			})
		})
	}
}

func TestNothingIsSweptWithoutMaxStale(t *testing.T) {
	cfg := defaults()
	cfg.MaxStale = 0
	p, err := newProcessor(nop(), cfg)
	require.NoError(t, err)
	require.NoError(t, p.start(t.Context(), componenttest.NewNopHost()))
	assert.Nil(t, p.sweeper)
	assert.NoError(t, p.shutdown(t.Context()))
}

func TestSweepInterval(t *testing.T) {
	for maxStale, want := range map[time.Duration]time.Duration{
		time.Nanosecond:  time.Second,
		10 * time.Second: time.Second,
		90 * time.Second: 9 * time.Second,
		10 * time.Minute: time.Minute,
		time.Hour:        time.Minute,
	} {
		assert.Equal(t, want, sweepInterval(maxStale), "max_stale %v", maxStale)
	}
}
