// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package lanesconnector

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
	"go.opentelemetry.io/collector/client"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/exporter/exporterhelper"
	"go.opentelemetry.io/collector/featuregate"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/streamid"
)

// TestRetriesStayInTheLane has a backend that is down, asks to wait, and takes what comes thereafter.
func TestRetriesStayInTheLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend(t)
		var at []time.Duration
		began := time.Now()
		answers := []error{errDown, exporterhelper.NewThrottleRetry(errors.New("429"), 20*time.Second), errDown}
		b.answer = func(pmetric.Metrics) error {
			at = append(at, time.Since(began).Round(time.Second))
			if n := len(at); n <= len(answers) {
				return answers[n-1]
			}
			return nil
		}
		l := newLab(t, "{lanes: 1, retry_on_failure: {initial_interval: 1s, randomization_factor: 0, multiplier: 2}}", b)
		var wg sync.WaitGroup
		for round := range uint64(5) {
			wg.Go(func() {
				assert.NoError(t, l.ConsumeMetrics(t.Context(), batchOf(0, 3, 0, round+1, func(int) float64 { return float64(round) })))
			})
			synctest.Wait()
		}
		wg.Wait()
		assert.Equal(t, []time.Duration{0, time.Second, 21 * time.Second, 25 * time.Second, 25 * time.Second}, at)
		assert.Equal(t, []stored{{1, 0}, {2, 1}, {3, 2}, {4, 3}, {5, 4}}, b.of(0, 2))
		assert.Equal(t, map[string]int64{"sent": 15}, l.outcomes())
		assert.Equal(t, 1, l.logs.FilterMessage("data is not taken, it will be sent again").Len())
		assert.Equal(t, 1, l.logs.FilterMessage("all lanes get rid of their data again").Len())
		l.stop()
	})
}

// TestWhoLeaves has givers that do not wait as long as the backend takes: what nobody waits for is not sent any more, and what was
// sent in spite of that is not taken for late when it comes again.
func TestWhoLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend(t)
		b.latency = func() time.Duration { return 10 * time.Second }
		l := newLab(t, "{lanes: 1}", b)
		consume := func(ms uint64, patience time.Duration) error {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			return l.ConsumeMetrics(ctx, batchOf(0, 1, 0, ms, one))
		}
		require.ErrorIs(t, consume(1, time.Second), context.DeadlineExceeded)
		synctest.Wait()
		assert.Zero(t, b.points)
		require.NoError(t, consume(1, time.Minute))
		assert.Equal(t, map[string]int64{"sent": 1, "returned": 1}, l.outcomes())

		var wg sync.WaitGroup
		wg.Go(func() { assert.NoError(t, consume(2, time.Minute)) }) // under way
		synctest.Wait()
		wg.Go(func() { assert.ErrorIs(t, consume(3, time.Second), context.DeadlineExceeded) }) // leaves while it waits
		synctest.Wait()
		wg.Go(func() { assert.ErrorIs(t, consume(5, 15*time.Second), context.DeadlineExceeded) })
		synctest.Wait()
		wg.Go(func() { assert.NoError(t, consume(6, time.Minute)) }) // in one request with the one before
		wg.Wait()
		assert.Equal(t, []stored{{1, 1}, {2, 1}, {5, 1}, {6, 1}}, b.of(0, 0))
		require.NoError(t, consume(5, time.Minute))
		assert.Equal(t, map[string]int64{"sent": 4, "returned": 2, "late": 1}, l.outcomes())
		l.stop()
	})
}

// TestCancelledIsNotRefused has an exporter that calls a request refused for good that was cancelled, as remote write does.
func TestCancelledIsNotRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend(t)
		b.latency = func() time.Duration { return time.Hour }
		l := newLab(t, "{lanes: 1}", permanent{b})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, l.ConsumeMetrics(ctx, batchOf(0, 100, 0, 1, one)), context.DeadlineExceeded)
		synctest.Wait()
		assert.Equal(t, map[string]int64{"returned": 100}, l.outcomes())
		assert.Equal(t, 1, b.requests)
		l.stop()
	})
}

// permanent is a backend all whose errors are.
type permanent struct{ *backend }

func (p permanent) ConsumeMetrics(ctx context.Context, md pmetric.Metrics) error {
	if err := p.backend.ConsumeMetrics(ctx, md); err != nil {
		return consumererror.NewPermanent(err)
	}
	return nil
}

// TestMaxWaiting bounds what waits.
func TestMaxWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend(t)
		b.latency = func() time.Duration { return time.Hour }
		l := newLab(t, "{lanes: 1, max_waiting_items: 10}", b)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for p := range 3 {
			wg.Go(func() { _ = l.ConsumeMetrics(ctx, batchOf(p, 5, 0, 1, one)) })
			synctest.Wait()
		}
		err := l.ConsumeMetrics(ctx, batchOf(4, 5, 0, 1, one))
		assert.ErrorContains(t, err, "max_waiting_items")
		assert.False(t, consumererror.IsPermanent(err))
		cancel()
		wg.Wait()
		synctest.Wait()
		assert.Equal(t, map[string]int64{"returned": 20}, l.outcomes())
		l.stop()
	})
}

// TestTenants has two tenants send the same streams: no request has data of both, and each has its tenant's metadata and no other.
func TestTenants(t *testing.T) {
	for _, yaml := range []string{"{lanes: 2, metadata_keys: [X-Tenant]}", "{lanes: 2, metadata_keys: [X-Tenant], sending_queue: {}}"} {
		synctest.Test(t, func(t *testing.T) {
			b := newBackend(t)
			b.latency = func() time.Duration { return time.Second }
			var mu sync.Mutex
			tenants := map[string]map[string]bool{}
			next := consumerOf(b, func(ctx context.Context, md pmetric.Metrics) {
				info := client.FromContext(ctx).Metadata
				mu.Lock()
				defer mu.Unlock()
				assert.Empty(t, info.Get("x-secret"))
				require.Len(t, info.Get("x-tenant"), 1)
				of := info.Get("x-tenant")[0]
				numbersOf(md, func(_ streamid.ID, dp pmetric.NumberDataPoint) {
					if tenants[of] == nil {
						tenants[of] = map[string]bool{}
					}
					tenants[of][fmt.Sprint(dp.DoubleValue())] = true
				})
				b.mu.Lock()
				defer b.mu.Unlock()
				b.series = map[streamid.ID][]stored{} // each tenant has a store of its own
			})
			b.inflight = nil // of whom is not known there
			l := newLab(t, yaml, next)
			var wg sync.WaitGroup
			for i, name := range []string{"alice", "bob", "alice", "bob", "alice", "bob"} {
				ctx := client.NewContext(t.Context(), client.Info{Metadata: client.NewMetadata(map[string][]string{
					"X-Tenant": {name}, "X-Secret": {"s"},
				})})
				wg.Go(func() {
					assert.NoError(t, l.ConsumeMetrics(ctx, batchOf(0, 20, 0, uint64(i/2+1), func(int) float64 { return float64(len(name)) })))
				})
				synctest.Wait()
			}
			wg.Wait()
			for l.count("lanes_items", "", "") < 120 {
				time.Sleep(time.Second)
			}
			assert.Equal(t, map[string]int64{"sent": 120}, l.outcomes())
			assert.Equal(t, map[string]map[string]bool{"alice": {"5": true}, "bob": {"3": true}}, tenants)
			l.stop()
		})
	}
}

// TestShutdown sends what waits, and says what it could not.
func TestShutdown(t *testing.T) {
	for _, queue := range []bool{false, true} {
		for _, down := range []bool{false, true} {
			t.Run(fmt.Sprintf("queue %v, down %v", queue, down), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newBackend(t)
					b.latency = func() time.Duration { return 5 * time.Second }
					if down {
						b.answer = func(pmetric.Metrics) error { return errDown }
					}
					yaml := "{lanes: 2}"
					if queue {
						yaml = "{lanes: 2, sending_queue: {}}"
					}
					l := newLab(t, yaml, b)
					var wg sync.WaitGroup
					for round := range uint64(10) {
						wg.Go(func() {
							err := l.ConsumeMetrics(t.Context(), batchOf(0, 10, 0, round+1, one))
							assert.Equal(t, down && !queue, err != nil, "%v", err)
						})
						synctest.Wait()
					}
					began := time.Now()
					l.stop()
					wg.Wait()
					took := time.Since(began)
					assert.Equal(t, down && queue, l.logs.FilterMessage("data was lost at shutdown").Len() == 1)
					switch {
					case !down:
						assert.Equal(t, map[string]int64{"sent": 100}, l.outcomes())
						assert.LessOrEqual(t, took, 11*time.Second, "the request under way and one for what waits")
					case queue:
						assert.Equal(t, map[string]int64{"failed": 100}, l.outcomes())
						assert.LessOrEqual(t, took, 11*time.Second, "nobody waits for each of them")
					default:
						assert.Equal(t, map[string]int64{"returned": 100}, l.outcomes())
						assert.LessOrEqual(t, took, 11*time.Second)
					}
					assert.ErrorIs(t, l.ConsumeMetrics(t.Context(), batchOf(0, 10, 0, 100, one)), errStopping)
				})
			})
		}
	}
}

// TestShutdownInTime has a backend that never answers.
func TestShutdownInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend(t)
		b.latency = func() time.Duration { return 1000 * time.Hour }
		l := newLab(t, "{lanes: 2, sending_queue: {}}", b)
		for round := range uint64(10) {
			require.NoError(t, l.ConsumeMetrics(t.Context(), batchOf(0, 10, 0, round+1, one)))
		}
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		began := time.Now()
		err := l.Shutdown(ctx)
		assert.ErrorContains(t, err, "lost 100 items")
		assert.Equal(t, 10*time.Second, time.Since(began))
		assert.Equal(t, map[string]int64{"failed": 100}, l.outcomes())
	})
}

// TestLatePasses has the guard off.
func TestLatePasses(t *testing.T) {
	b := newBackend(t)
	l := newLab(t, "{lanes: 1, late: pass}", b)
	require.NoError(t, l.ConsumeMetrics(t.Context(), batchOf(0, 1, 0, 2, one)))
	require.Error(t, l.ConsumeMetrics(t.Context(), batchOf(0, 1, 0, 1, one)))
	assert.Equal(t, 1, b.rejected)
	l.stop()
}

// TestEmptyBatches go nowhere, and no harm is done.
func TestEmptyBatches(t *testing.T) {
	b := newBackend(t)
	l := newLab(t, "{}", b)
	require.NoError(t, l.ConsumeMetrics(t.Context(), pmetric.NewMetrics()))
	md := pmetric.NewMetrics()
	md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	require.NoError(t, l.ConsumeMetrics(t.Context(), md))
	assert.Zero(t, b.requests)
	assert.Empty(t, l.outcomes())
	l.stop()
}

// TestShutdownAnyTime is without a Start, after a Start that failed, as the Collector does it, and twice.
func TestShutdownAnyTime(t *testing.T) {
	l := newLab(t, "{}", newBackend(t))
	l.stop()
	l.stop()

	cfg, err := load(t, "{sending_queue: {storage: none}}")
	require.NoError(t, err)
	c, err := newConnector(nopSettings(), cfg, &metrics, newBackend(t).ConsumeMetrics, newBackend(t))
	require.NoError(t, err)
	require.ErrorContains(t, c.Start(t.Context(), hosted{}), "no storage extension")
	require.NoError(t, c.Shutdown(t.Context()))

	c, err = newConnector(nopSettings(), cfg, &metrics, newBackend(t).ConsumeMetrics, newBackend(t))
	require.NoError(t, err)
	require.NoError(t, c.Shutdown(t.Context()))
}

// TestShutdownWhileDataComes has batches come at the moment of the shutdown, with room in the queue and without: each has an outcome,
// and nobody waits on.
func TestShutdownWhileDataComes(t *testing.T) {
	for _, yaml := range []string{"{lanes: 1}", "{lanes: 1, sending_queue: {queue_size: 2}}", "{lanes: 1, sending_queue: {queue_size: 2, batch: {min_size: 1}}}"} {
		t.Run(yaml, func(t *testing.T) {
			for round := range 50 {
				b := newBackend(t)
				l := newLab(t, yaml, b)
				var wg sync.WaitGroup
				for p := range 8 {
					wg.Go(func() { _ = l.ConsumeMetrics(t.Context(), batchOf(p, 1, 0, 1, one)) })
				}
				time.Sleep(time.Duration(round) * 4 * time.Microsecond)
				l.stop()
				wg.Wait()
				require.EqualValues(t, 8, l.count("lanes_items", "", ""), "%v", l.outcomes())
				require.EqualValues(t, b.stored(), l.outcomes()["sent"])
			}
		})
	}
}

// TestErrorsAreAboutTheWhole has a backend that returns what it has not taken with its error, of one lane only: it must not be
// taken for all that is to be sent again.
func TestErrorsAreAboutTheWhole(t *testing.T) {
	for _, permanent := range []bool{false, true} {
		b := newBackend(t)
		b.answer = func(md pmetric.Metrics) error {
			err := consumererror.NewMetrics(errDown, copyMetrics(md))
			if permanent {
				return consumererror.NewPermanent(err)
			}
			return err
		}
		l := newLab(t, "{lanes: 2, retry_on_failure: {enabled: false}}", b)
		err := l.ConsumeMetrics(t.Context(), batchOf(0, 10, 0, 1, one))
		var part consumererror.Metrics
		assert.False(t, errors.As(err, &part))
		assert.Equal(t, permanent, consumererror.IsPermanent(err))
		assert.ErrorIs(t, err, errDown, "all else can be seen")
		l.stop()
	}
}

// TestManyTenants has more tenants than the queue's batches have room for by the configuration, which would hang the lane.
func TestManyTenants(t *testing.T) {
	b := newBackend(t)
	b.inflight = nil
	l := newLab(t, "{lanes: 1, metadata_keys: [x-tenant], sending_queue: {batch: {flush_timeout: 10ms, partition: {cache_size: 1}}}}", b)
	for i := range 5 {
		require.NoError(t, l.ConsumeMetrics(as(t.Context(), fmt.Sprint(i)), batchOf(i, 3, 0, 1, one)))
	}
	require.Eventually(t, func() bool { return b.stored() == 15 }, 10*time.Second, time.Millisecond)
	l.stop()
}

// TestStreamsAreForgotten also where a lane has always something to send.
func TestStreamsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend(t)
		b.latency = func() time.Duration { return 100 * time.Millisecond }
		l := newLab(t, "{lanes: 1, max_stale: 8s}", b)
		var wg sync.WaitGroup
		for p := range 3 {
			wg.Go(func() {
				for i := range 600 {
					assert.NoError(t, l.ConsumeMetrics(t.Context(), batchOf(p*1000+i, 1, 0, 1, one)))
				}
			})
		}
		wg.Wait()
		assert.Less(t, l.count("lanes_streams", "", ""), int64(300), "of 9 s, three each 200 ms")
		l.stop()
	})
}

// TestPooledMemory has the Collector free what an exporter has returned from, with an error or without, as it does behind this gate.
func TestPooledMemory(t *testing.T) {
	const gate = "pdata.useProtoPooling"
	require.NoError(t, featuregate.GlobalRegistry().Set(gate, true))
	defer func() { require.NoError(t, featuregate.GlobalRegistry().Set(gate, false)) }()
	b := newBackend(t)
	answers := []error{errDown, consumererror.NewPermanent(errors.New("no such value"))}
	b.answer = func(pmetric.Metrics) error {
		if len(answers) == 0 {
			return nil
		}
		err := answers[0]
		answers = answers[1:]
		return err
	}
	l := newLab(t, "{lanes: 1, retry_on_failure: {initial_interval: 10ms}}", freeing{b})
	md := batchOf(0, 10, 0, 1, one)
	require.NoError(t, l.ConsumeMetrics(t.Context(), md))
	assert.Equal(t, 10, b.points)
	assert.Equal(t, []int{10, 10, 5, 5}, b.sizes)
	assert.Zero(t, md.ResourceMetrics().Len(), "nor has whoever gave it any of it")
	l.stop()
}

type freeing struct{ *backend }

func (f freeing) ConsumeMetrics(ctx context.Context, md pmetric.Metrics) error {
	defer md.ResourceMetrics().RemoveIf(func(pmetric.ResourceMetrics) bool { return true })
	return f.backend.ConsumeMetrics(ctx, md)
}

// TestQueuesCountNoItems: those of the exporter behind the lanes would be counted twice by whoever adds up exporters.
func TestQueuesCountNoItems(t *testing.T) {
	l := newLab(t, "{lanes: 2, sending_queue: {}}", newBackend(t))
	require.NoError(t, l.ConsumeMetrics(t.Context(), batchOf(0, 10, 0, 1, one)))
	_, err := l.tel.GetMetric("otelcol_exporter_queue_capacity")
	require.NoError(t, err)
	require.NoError(t, l.Shutdown(t.Context()))
	_, err = l.tel.GetMetric("otelcol_exporter_sent_metric_points")
	require.Error(t, err)
}
