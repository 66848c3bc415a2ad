// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2cprocessor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/processor"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/processor/d2cprocessor/internal/metadatatest"
)

// Every outcome that is told of comes with what it means and what to do.
func TestOutcomesHaveAdvice(t *testing.T) {
	for o := range d2c.NumOutcomes {
		want := o.Dropped() || o == d2c.Covered || o == d2c.Kept
		assert.Equal(t, want, advice[o] != "", "%v: %q", o, advice[o])
	}
}

// A drop is told of at once, with whose it is, and then once a minute with what was dropped meanwhile.
func TestDropsAreToldOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set, logs := observed(zapcore.WarnLevel)
		p := create(t, set, defaults(), consumertest.NewNop())
		consume := func(deltas ...delta) {
			require.NoError(t, p.ConsumeMetrics(t.Context(), batch(deltas...)))
		}
		consume(delta{"a", 0, 10, 1}, delta{"b", 0, 10, 1})
		assert.Zero(t, logs.Len())
		for range 5 {
			consume(delta{"b", 10, 20, -1}, delta{"a", 0, 10, 2}, delta{"a", 0, 10, 3}) // a negative one, and two producers
		}
		got := logs.TakeAll()
		require.Len(t, got, 2)
		for i, outcome := range []d2c.Outcome{d2c.DroppedNegative, d2c.Covered} {
			assert.Equal(t, zapcore.WarnLevel, got[i].Level)
			assert.Equal(t, advice[outcome], got[i].Message)
		}
		assert.Equal(t, map[string]any{
			"outcome": "dropped_negative", "points": uint64(1), "metric": "requests", "type": "Sum",
			"resource": map[string]any{}, "attributes": map[string]any{"stream": "b"},
			"start": at(10).AsTime(), "time": at(20).AsTime(),
		}, got[0].ContextMap(), "it is malformed, and no stream was looked up")
		assert.Equal(t, map[string]any{
			"outcome": "covered", "points": uint64(2), "metric": "requests", "type": "Sum",
			"resource": map[string]any{}, "attributes": map[string]any{"stream": "a"},
			"start": at(0).AsTime(), "time": at(10).AsTime(), "stream_start": at(0).AsTime(), "stream_last": at(10).AsTime(),
		}, got[1].ContextMap())

		time.Sleep(noticeInterval - time.Second)
		consume(delta{"a", 0, 10, 4})
		assert.Zero(t, logs.Len())
		time.Sleep(time.Second)
		consume(delta{"a", 0, 10, 5})
		got = logs.TakeAll()
		require.Len(t, got, 1)
		assert.Equal(t, uint64(4*2+2), got[0].ContextMap()["points"])
		time.Sleep(time.Hour)
		assert.Zero(t, logs.Len())
	})
}

// What producers choose does not fill the log.
func TestSamplesAreCut(t *testing.T) {
	set, logs := observed(zapcore.WarnLevel)
	p := create(t, set, defaults(), consumertest.NewNop())
	md := batch(delta{"a", 0, 10, -1})
	rm := md.ResourceMetrics().At(0)
	long := strings.Repeat("ü", 1000)
	for _, m := range []pcommon.Map{rm.Resource().Attributes(), rm.ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints().At(0).Attributes()} {
		for i := range 100 {
			m.PutStr(fmt.Sprint(long, i), long)
		}
	}
	rm.ScopeMetrics().At(0).Metrics().At(0).SetName(long)
	rm.ScopeMetrics().At(0).Scope().SetName(long)
	require.NoError(t, p.ConsumeMetrics(t.Context(), md))
	require.Equal(t, 1, logs.Len())
	entry := logs.All()[0]
	text, err := zapcore.NewJSONEncoder(zapcore.EncoderConfig{}).EncodeEntry(entry.Entry, entry.Context)
	require.NoError(t, err)
	assert.Less(t, text.Len(), 2*(maxAttributes+2)*2*(maxText+10))
	assert.True(t, strings.Contains(text.String(), strings.Repeat("ü", maxText/2)+"..."), text.String())
	assert.Contains(t, text.String(), fmt.Sprintf(`"...":%d`, 100-maxAttributes))
}

func TestCutLeavesCharactersWhole(t *testing.T) {
	for n := range 4 {
		s := cut(strings.Repeat("a", n) + strings.Repeat("世", maxText))
		assert.True(t, utf8.ValidString(s) && len(s) <= maxText+3 && len(s) > maxText-3, s)
	}
	whole := strings.Repeat("a", maxText)
	assert.Equal(t, whole, cut(whole))
}

func TestAttributesHaveTheirTypes(t *testing.T) {
	m := pcommon.NewMap()
	require.NoError(t, m.FromRaw(map[string]any{"n": 200, "s": "200", "b": true, "f": 0.5, "l": []any{1, "a"}, "m": map[string]any{"k": 1}, "none": nil}))
	enc := zapcore.NewMapObjectEncoder()
	require.NoError(t, attributesOf(m).MarshalLogObject(enc))
	assert.Equal(t, map[string]any{"n": int64(200), "s": "200", "b": true, "f": 0.5, "l": `[1,"a"]`, "m": `{"k":1}`, "none": ""}, enc.Fields)
}

// Metrics that do not say what they are pass, are counted, and are told of once each.
func TestUnspecifiedIsToldOnce(t *testing.T) {
	tt := newTestTelemetry(t)
	set := metadatatest.NewSettings(tt)
	observing, logs := observed(zapcore.WarnLevel)
	set.Logger = observing.Logger
	sink := new(consumertest.MetricsSink)
	p := create(t, set, defaults(), sink)
	unspecified := func(name string) pmetric.Metrics {
		md := batch(delta{"a", 0, 10, 1}, delta{"b", 0, 10, 1})
		m := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0)
		m.SetName(name)
		m.Sum().SetAggregationTemporality(pmetric.AggregationTemporalityUnspecified)
		return md
	}
	for range 3 {
		require.NoError(t, p.ConsumeMetrics(t.Context(), unspecified("a")))
		require.NoError(t, p.ConsumeMetrics(t.Context(), unspecified("b")))
	}
	got := logs.TakeAll()
	require.Len(t, got, 2)
	for i, name := range []string{"a", "b"} {
		assert.Contains(t, got[i].Message, "temporality")
		assert.Equal(t, map[string]any{"points": uint64(2), "metric": name, "type": "Sum", "resource": map[string]any{}}, got[i].ContextMap())
	}
	assert.Equal(t, 12, sink.DataPointCount())
	metadatatest.AssertEqualD2cPointsUnspecified(t, tt, []metricdata.DataPoint[int64]{value[int64](12)}, ignoreTime)
	metadatatest.AssertEqualD2cPoints(t, tt, []metricdata.DataPoint[int64]{value[int64](12, "outcome", "passed")}, ignoreTime)

	for i := range 3 * maxNames {
		require.NoError(t, p.ConsumeMetrics(t.Context(), unspecified(fmt.Sprint(i))))
	}
	got = logs.TakeAll()
	require.Len(t, got, maxNames-2+1, "names that are made up")
	assert.Contains(t, got[maxNames-2].Message, "counted only")
}

// Streams that are one to the backend are told of once a metric, and counted.
func TestDuplicatesAreTold(t *testing.T) {
	for labels, want := range map[d2c.Duplicates]int64{d2c.DuplicatesService: 3, d2c.DuplicatesResource: 2, d2c.DuplicatesNone: 0} {
		t.Run(labels.String(), func(t *testing.T) {
			tt := newTestTelemetry(t)
			set := metadatatest.NewSettings(tt)
			observing, logs := observed(zapcore.WarnLevel)
			set.Logger = observing.Logger
			cfg := defaults()
			cfg.WarnDuplicates = labels
			p := create(t, set, cfg, consumertest.NewNop())
			code := func(host string, put func(pcommon.Map)) {
				md := batch(delta{"a", 0, 10, 1})
				md.ResourceMetrics().At(0).Resource().Attributes().PutStr("host", host)
				put(md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints().At(0).Attributes())
				require.NoError(t, p.ConsumeMetrics(t.Context(), md))
			}
			code("one", func(m pcommon.Map) { m.PutInt("code", 200) })
			code("one", func(m pcommon.Map) { m.PutInt("code", 201) })
			assert.Zero(t, logs.Len())
			code("one", func(m pcommon.Map) { m.PutStr("code", "200") })
			code("one", func(m pcommon.Map) { m.PutStr("code", "201") })
			code("two", func(m pcommon.Map) { m.PutInt("code", 200) })
			got := logs.TakeAll()
			if want == 0 {
				assert.Empty(t, got)
				_, err := tt.GetMetric("otelcol_d2c_streams_duplicate")
				assert.Error(t, err)
				return
			}
			require.Len(t, got, 1)
			assert.Contains(t, got[0].Message, "warn_duplicates")
			assert.Equal(t, map[string]any{"stream": "a", "code": "200"}, got[0].ContextMap()["attributes"])
			metadatatest.AssertEqualD2cStreamsDuplicate(t, tt, []metricdata.DataPoint[int64]{value(want)}, ignoreTime)
		})
	}
}

// Interpolation takes a part of what overlaps, and nearly all of a producer's whose start never moves.
func TestFixedStartsAreToldOnce(t *testing.T) {
	set, logs := observed(zapcore.WarnLevel)
	cfg := defaults()
	cfg.Overlap = d2c.OverlapInterpolate
	p := create(t, set, cfg, consumertest.NewNop())
	for i := range 30 {
		require.NoError(t, p.ConsumeMetrics(t.Context(), batch(delta{"a", 0, 10 + 10*i, 1}, delta{"b", 10 * i, 10 + 10*i, 1})))
		if i == 9 {
			assert.Zero(t, logs.Len(), "few of them are overlaps like others")
		}
	}
	require.Equal(t, 1, logs.Len())
	got := logs.All()[0]
	assert.Contains(t, got.Message, "Set overlap: add")
	assert.Equal(t, map[string]any{"stream": "a"}, got.ContextMap()["attributes"])
	assert.Equal(t, uint64(fixedFrom), got.ContextMap()["points"])
}

// forgetful is shared state that says for how long it remembers.
type forgetful struct {
	*pool
	ttl time.Duration
}

func (f *forgetful) RecordTTL() time.Duration { return f.ttl }

type forgetfulHost struct {
	component.Host
	ext component.Component
}

func (h *forgetfulHost) GetExtensions() map[component.ID]component.Component {
	return map[component.ID]component.Component{component.MustNewID("pool"): h.ext}
}

// A worker that remembers for longer than what it shares restarts streams, and tells of them as lost.
func TestMaxStaleAndRecordTTL(t *testing.T) {
	for _, c := range []struct {
		stale, ttl time.Duration
		want       string
	}{
		{time.Hour, 24 * time.Hour, ""},
		{time.Hour, time.Hour, ""},
		{time.Hour, 0, ""},
		{0, 0, ""},
		{2 * time.Hour, time.Hour, "max_stale: 2h0m0s is above record_ttl 1h0m0s of \"pool\""},
		{0, time.Hour, "max_stale: 0 keeps streams for ever"},
	} {
		host := &forgetfulHost{componenttest.NewNopHost(), &forgetful{&pool{stores: map[component.ID]*poolStore{}}, c.ttl}}
		cfg := inPool()
		cfg.MaxStale = c.stale
		for range 2 { // a start that failed leaves nothing behind
			p, err := NewFactory().CreateMetrics(t.Context(), nop(), cfg, consumertest.NewNop())
			require.NoError(t, err)
			err = p.Start(t.Context(), host)
			if c.want == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, c.want)
			}
			require.NoError(t, p.Shutdown(t.Context()))
		}
	}
}

func startIn(t *testing.T, set processor.Settings, cfg *Config, host component.Host, next consumer.Metrics) processor.Metrics {
	t.Helper()
	p, err := NewFactory().CreateMetrics(t.Context(), set, cfg, next)
	require.NoError(t, err)
	require.NoError(t, p.Start(t.Context(), host))
	t.Cleanup(func() { require.NoError(t, p.Shutdown(context.Background())) })
	return p
}

func TestGapRestartWithSharedStateIsToldOf(t *testing.T) {
	for _, gap := range []d2c.GapPolicy{d2c.GapContinue, d2c.GapRestart} {
		set, logs := observed(zapcore.WarnLevel)
		cfg := inPool()
		cfg.Gap = gap
		startIn(t, set, cfg, newWorker(map[component.ID]*poolStore{}), consumertest.NewNop())
		assert.Equal(t, int(gap), logs.FilterMessageSnippet("gap: restart").Len())
	}
	set, logs := observed(zapcore.WarnLevel)
	cfg := defaults()
	cfg.Gap = d2c.GapRestart
	create(t, set, cfg, consumertest.NewNop())
	assert.Zero(t, logs.Len())
}

// What is held back while shared state fails is told of like a drop, and so is what is dropped in any state.
func TestDropsAreToldInEveryState(t *testing.T) {
	told := func(logs *observer.ObservedLogs) (outcomes []any) {
		for _, entry := range logs.TakeAll() {
			outcomes = append(outcomes, entry.ContextMap()["outcome"])
		}
		return outcomes
	}
	set, logs := observed(zapcore.WarnLevel)
	stores := map[component.ID]*poolStore{}
	cfg := inPool()
	cfg.State.OnError = OnErrorLocal
	p := startIn(t, set, cfg, newWorker(stores), consumertest.NewNop())
	now := int(time.Now().Unix() - at(0).AsTime().Unix())
	require.NoError(t, p.ConsumeMetrics(t.Context(), batch(delta{"a", now + 10, now + 20, 1})))
	require.NoError(t, p.ConsumeMetrics(t.Context(), batch(delta{"a", now + 11, now + 20, 1})))
	assert.Equal(t, []any{"covered"}, told(logs))
	for _, st := range stores {
		st.fail(errors.New("away"))
	}
	require.NoError(t, p.ConsumeMetrics(t.Context(), batch(delta{"new", now - 20, now - 10, 1})))
	assert.Contains(t, told(logs), any("kept"))
	for _, st := range stores {
		st.fail(nil)
	}

	set, logs = observed(zapcore.WarnLevel)
	p = startIn(t, set, onShelf(), newWorker(nil), consumertest.NewNop())
	require.NoError(t, p.ConsumeMetrics(t.Context(), batch(delta{"a", 10, 20, 1})))
	require.NoError(t, p.ConsumeMetrics(t.Context(), batch(delta{"a", 11, 20, 1})))
	assert.Equal(t, []any{"covered"}, told(logs))
}
