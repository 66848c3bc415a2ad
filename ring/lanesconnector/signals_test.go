// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package lanesconnector

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/connector"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// item is a data point, span or log record. What has one key is to stay in the order of the numbers.
type item struct {
	key    string
	number int64
}

func metricItems(all ...item) pmetric.Metrics {
	md := pmetric.NewMetrics()
	for _, it := range all {
		rm := md.ResourceMetrics().AppendEmpty()
		rm.Resource().Attributes().PutStr("key", it.key)
		m := rm.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
		m.SetName("m")
		dp := m.SetEmptyGauge().DataPoints().AppendEmpty()
		dp.SetIntValue(it.number)
	}
	return md
}

func itemsOfMetrics(md pmetric.Metrics) (all []item) {
	for _, rm := range md.ResourceMetrics().All() {
		for _, sm := range rm.ScopeMetrics().All() {
			for _, m := range sm.Metrics().All() {
				for _, dp := range m.Gauge().DataPoints().All() {
					all = append(all, item{keyOf(rm.Resource()), dp.IntValue()})
				}
			}
		}
	}
	return all
}

func traceItems(all ...item) ptrace.Traces {
	td := ptrace.NewTraces()
	for _, it := range all {
		rs := td.ResourceSpans().AppendEmpty()
		rs.Resource().Attributes().PutStr("key", it.key)
		s := rs.ScopeSpans().AppendEmpty().Spans().AppendEmpty()
		s.SetTraceID(pcommon.TraceID([]byte((it.key + "0123456789abcdef")[:16])))
		s.Attributes().PutInt("number", it.number)
	}
	return td
}

func itemsOfTraces(td ptrace.Traces) (all []item) {
	for _, rs := range td.ResourceSpans().All() {
		for _, ss := range rs.ScopeSpans().All() {
			for _, s := range ss.Spans().All() {
				n, _ := s.Attributes().Get("number")
				all = append(all, item{keyOf(rs.Resource()), n.Int()})
			}
		}
	}
	return all
}

func logItems(all ...item) plog.Logs {
	ld := plog.NewLogs()
	for _, it := range all {
		rl := ld.ResourceLogs().AppendEmpty()
		rl.Resource().Attributes().PutStr("key", it.key)
		rl.ScopeLogs().AppendEmpty().LogRecords().AppendEmpty().Attributes().PutInt("number", it.number)
	}
	return ld
}

func itemsOfLogs(ld plog.Logs) (all []item) {
	for _, rl := range ld.ResourceLogs().All() {
		for _, sl := range rl.ScopeLogs().All() {
			for _, r := range sl.LogRecords().All() {
				n, _ := r.Attributes().Get("number")
				all = append(all, item{keyOf(rl.Resource()), n.Int()})
			}
		}
	}
	return all
}

func keyOf(res pcommon.Resource) string {
	v, _ := res.Attributes().Get("key")
	return v.Str()
}

// keeper keeps what it is given by key, and refuses what has the key "bad" for good. It is slow.
type keeper struct {
	mu   sync.Mutex
	got  map[string][]int64
	down bool
}

func (k *keeper) take(all []item) error {
	time.Sleep(time.Second)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.down {
		return errDown
	}
	for _, it := range all {
		if it.key == "bad" {
			return consumererror.NewPermanent(errors.New("bad item"))
		}
	}
	for _, it := range all {
		k.got[it.key] = append(k.got[it.key], it.number)
	}
	return nil
}

func (*keeper) Capabilities() consumer.Capabilities { return consumer.Capabilities{} }
func (k *keeper) ConsumeMetrics(_ context.Context, md pmetric.Metrics) error {
	return k.take(itemsOfMetrics(md))
}
func (k *keeper) ConsumeTraces(_ context.Context, td ptrace.Traces) error {
	return k.take(itemsOfTraces(td))
}
func (k *keeper) ConsumeLogs(_ context.Context, ld plog.Logs) error { return k.take(itemsOfLogs(ld)) }

// TestAllSignals has each of them keep the order of a key, go together while it waits, and lose no more than what is bad.
func TestAllSignals(t *testing.T) {
	t.Run("metrics", func(t *testing.T) {
		testSignal(t, metricItems, func(f connector.Factory, cfg *Config, k *keeper) (consumeFunc[pmetric.Metrics], component.Component) {
			c, err := f.CreateMetricsToMetrics(t.Context(), nopSettings(), cfg, k)
			require.NoError(t, err)
			return c.ConsumeMetrics, c
		})
	})
	t.Run("traces", func(t *testing.T) {
		testSignal(t, traceItems, func(f connector.Factory, cfg *Config, k *keeper) (consumeFunc[ptrace.Traces], component.Component) {
			c, err := f.CreateTracesToTraces(t.Context(), nopSettings(), cfg, k)
			require.NoError(t, err)
			return c.ConsumeTraces, c
		})
	})
	t.Run("logs", func(t *testing.T) {
		testSignal(t, logItems, func(f connector.Factory, cfg *Config, k *keeper) (consumeFunc[plog.Logs], component.Component) {
			c, err := f.CreateLogsToLogs(t.Context(), nopSettings(), cfg, k)
			require.NoError(t, err)
			return c.ConsumeLogs, c
		})
	})
}

func testSignal[B batch](
	t *testing.T, of func(...item) B, create func(connector.Factory, *Config, *keeper) (consumeFunc[B], component.Component),
) {
	for _, yaml := range []string{"{lanes: 3}", "{lanes: 3, sending_queue: {}}"} {
		synctest.Test(t, func(t *testing.T) {
			cfg, err := load(t, yaml)
			require.NoError(t, err)
			k := &keeper{got: map[string][]int64{}}
			consume, c := create(NewFactory(), cfg, k)
			require.NoError(t, c.Start(t.Context(), hosted{}))
			const rounds = 20
			began := time.Now()
			var wg sync.WaitGroup
			for n := range int64(rounds) {
				wg.Go(func() {
					last := "e"
					if n == 7 {
						last = "bad"
					}
					err := consume(t.Context(), of(item{"a", n}, item{"b", n}, item{"c", n}, item{"d", n}, item{last, n}))
					assert.Equal(t, last == "bad" && !cfg.QueueConfig.HasValue(), consumererror.IsPermanent(err), "%v", err)
				})
				synctest.Wait()
			}
			wg.Wait()
			require.NoError(t, c.Shutdown(t.Context()))
			var want []int64
			for n := range int64(rounds) {
				want = append(want, n)
			}
			for _, key := range []string{"a", "b", "c", "d"} {
				assert.Equal(t, want, k.got[key], key)
			}
			assert.Equal(t, slices.Delete(want, 7, 8), k.got["e"])
			assert.Len(t, k.got, 5)
			assert.Less(t, time.Since(began), 130*time.Second)
		})
	}
}
