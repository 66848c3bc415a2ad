// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package lanesconnector

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/exporter/exporterhelper"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/streamid"
)

// refuseBad has a backend refuse requests with a negative value in them, for good.
func refuseBad(md pmetric.Metrics) (err error) {
	numbersOf(md, func(_ streamid.ID, dp pmetric.NumberDataPoint) {
		if dp.DoubleValue() < 0 {
			err = consumererror.NewPermanent(errors.New("no such value"))
		}
	})
	return err
}

// TestAcknowledged has producers whose clocks jump, some of whose samples are refused, and who do not always wait. What is
// acknowledged is at the backend, or a later sample of its stream is; and each item has one outcome.
func TestAcknowledged(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testAcknowledged(t, seed) })
		})
	}
}

func testAcknowledged(t *testing.T, seed uint64) {
	const producers, series, rounds = 12, 3, 30
	random := rand.New(rand.NewPCG(seed, 9))
	var mu sync.Mutex
	chance := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return random.IntN(n)
	}
	b := newBackend(t)
	b.latency = func() time.Duration { return time.Duration(chance(300)) * time.Millisecond }
	b.answer = func(md pmetric.Metrics) error {
		if chance(10) == 0 {
			return errDown
		}
		if chance(2) == 0 {
			md.MarkReadOnly() // as with several exporters
		}
		return refuseBad(md)
	}
	l := newLab(t, "{lanes: 2, retry_on_failure: {initial_interval: 100ms, max_interval: 100ms, max_elapsed_time: 150ms}}", b)
	type sample struct {
		producer, series int
		stored
	}
	var acknowledged, bad []sample
	var given int64
	var wg sync.WaitGroup
	for range producers {
		wg.Go(func() {
			for range rounds {
				p := chance(producers)
				var all []sample
				md := pmetric.NewMetrics()
				for range 1 + chance(3) {
					ms, first := uint64(1+chance(1000)), chance(series)
					value := float64(ms)
					if chance(8) == 0 {
						value = -value
					}
					batchOf(p, 1, first, ms, func(int) float64 { return value }).ResourceMetrics().MoveAndAppendTo(md.ResourceMetrics())
					all = append(all, sample{p, first, stored{ms, value}})
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(100+chance(2000))*time.Millisecond)
				err := l.ConsumeMetrics(ctx, md)
				cancel()
				mu.Lock()
				given += int64(len(all))
				for _, s := range all {
					if s.value < 0 {
						bad = append(bad, s)
					} else if err == nil {
						acknowledged = append(acknowledged, s)
					}
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	l.stop()
	require.Zero(t, b.rejected)
	require.Equal(t, given, l.count("lanes_items", "", ""), "%v", l.outcomes())
	assert.EqualValues(t, b.points, l.outcomes()["sent"])
	require.NotEmpty(t, acknowledged)
	require.NotEmpty(t, bad)
	assert.LessOrEqual(t, l.outcomes()["refused"], int64(len(bad)), "only what is bad is refused")
	for _, s := range acknowledged {
		all := b.of(s.producer, s.series)
		if assert.NotEmpty(t, all, "%v", s) {
			assert.GreaterOrEqual(t, all[len(all)-1].ms, s.ms, "%v", s)
		}
	}
}

// TestEachItemHasOneOutcome whatever the backend answers, however long the producers wait and whenever the connector is shut down,
// which it is in time.
func TestEachItemHasOneOutcome(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				random := rand.New(rand.NewPCG(seed, 9))
				var mu sync.Mutex
				chance := func(n int) int {
					mu.Lock()
					defer mu.Unlock()
					return random.IntN(n)
				}
				b := newBackend(t)
				b.mutates = seed%2 == 0
				b.inflight = nil
				b.latency = func() time.Duration { return time.Duration(chance(300)) * time.Millisecond }
				b.answer = func(md pmetric.Metrics) error {
					switch chance(8) {
					case 0:
						return errDown
					case 1:
						return exporterhelper.NewThrottleRetry(errDown, time.Second)
					case 2:
						return consumererror.NewPermanent(errors.New("bad"))
					case 3:
						return consumererror.NewMetrics(errDown, copyMetrics(md))
					}
					return refuseBad(md)
				}
				yaml := []string{"{lanes: 2, max_waiting_items: 20, %s}", "{lanes: 2, sending_queue: {queue_size: 3}, %s}",
					"{lanes: 2, sending_queue: {queue_size: 3, block_on_overflow: false, batch: {enabled: false}}, %s}",
					"{lanes: 2, metadata_keys: [x-tenant], sending_queue: {queue_size: 30, sizer: items, batch: {min_size: 10}}, %s}"}[seed%4]
				l := newLab(t, fmt.Sprintf(yaml, "retry_on_failure: {initial_interval: 100ms, max_interval: 100ms, max_elapsed_time: 350ms}"), b)
				var wg sync.WaitGroup
				var given int64
				for range 10 {
					wg.Go(func() {
						for range 20 {
							n := 1 + chance(6)
							ctx, cancel := context.WithTimeout(as(t.Context(), fmt.Sprint(chance(3))), time.Duration(chance(1500))*time.Millisecond)
							_ = l.ConsumeMetrics(ctx, batchOf(chance(4), n, chance(3), uint64(1+chance(500)), func(int) float64 { return float64(chance(20)) - 1 }))
							cancel()
							mu.Lock()
							given += int64(n)
							mu.Unlock()
						}
					})
				}
				time.Sleep(time.Duration(chance(4000)) * time.Millisecond)
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(chance(1000))*time.Millisecond)
				began := time.Now()
				_ = l.Shutdown(ctx)
				assert.LessOrEqual(t, time.Since(began), time.Second)
				cancel()
				wg.Wait()
				assert.Equal(t, given, l.count("lanes_items", "", ""), "%v", l.outcomes())
			})
		})
	}
}

// TestRefusedDoesNotOvertake has a sample that the backend refuses come before an earlier one of its stream: that is not late.
func TestRefusedDoesNotOvertake(t *testing.T) {
	negative := func(int) float64 { return -1 }
	t.Run("one batch", func(t *testing.T) {
		b := newBackend(t)
		b.answer = refuseBad
		l := newLab(t, "{lanes: 1}", b)
		md := batchOf(0, 2, 0, 1000, negative)
		batchOf(0, 2, 0, 5, two).ResourceMetrics().MoveAndAppendTo(md.ResourceMetrics())
		assert.True(t, consumererror.IsPermanent(l.ConsumeMetrics(t.Context(), md)))
		assert.Equal(t, map[string]int64{"refused": 2, "sent": 2}, l.outcomes())
		assert.Equal(t, []stored{{5, 2}}, b.of(0, 1))
		l.stop()
	})
	t.Run("two batches", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBackend(t)
			b.latency = func() time.Duration { return time.Second }
			b.answer = refuseBad
			l := newLab(t, "{lanes: 1}", b)
			var wg sync.WaitGroup
			wg.Go(func() { assert.NoError(t, l.ConsumeMetrics(t.Context(), batchOf(1, 1, 0, 1, one))) })
			synctest.Wait()
			wg.Go(func() { assert.Error(t, l.ConsumeMetrics(t.Context(), batchOf(0, 1, 0, 1000, negative))) })
			synctest.Wait()
			wg.Go(func() { assert.NoError(t, l.ConsumeMetrics(t.Context(), batchOf(0, 1, 0, 5, two))) })
			wg.Wait()
			assert.Equal(t, map[string]int64{"refused": 1, "sent": 2}, l.outcomes())
			assert.Equal(t, []stored{{5, 2}}, b.of(0, 0))
			l.stop()
		})
	})
}

// TestOneOfAThousandBatches has them sent together, and one refused: it is found by halves.
func TestOneOfAThousandBatches(t *testing.T) {
	for all, most := range map[bool]int{false: 50, true: 1000 + 200} {
		synctest.Test(t, func(t *testing.T) {
			b := newBackend(t)
			b.latency = func() time.Duration { return 100 * time.Millisecond }
			b.answer = refuseBad
			l := newLab(t, "{lanes: 1}", b)
			var wg sync.WaitGroup
			for p := range 1000 {
				wg.Go(func() {
					_ = l.ConsumeMetrics(t.Context(), batchOf(p, 8, 0, 1, func(int) float64 {
						if all || p == 77 {
							return -1
						}
						return 1
					}))
				})
			}
			wg.Wait()
			assert.Less(t, b.requests, most)
			if all {
				assert.Equal(t, map[string]int64{"refused": 8000}, l.outcomes())
			} else {
				assert.Equal(t, map[string]int64{"sent": 7992, "refused": 8}, l.outcomes())
			}
			l.stop()
		})
	}
}

// TestTheLastLeaves has one of two givers of a request told what became of its batch; the other leaves while its own is sent again
// and again.
func TestTheLastLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend(t)
		b.latency = func() time.Duration { return time.Second }
		b.answer = func(md pmetric.Metrics) error {
			if md.DataPointCount() == 2 {
				return errDown
			}
			return refuseBad(md)
		}
		l := newLab(t, "{lanes: 1}", b)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() { assert.NoError(t, l.ConsumeMetrics(t.Context(), batchOf(0, 1, 0, 1, one))) })
		synctest.Wait()
		wg.Go(func() {
			assert.Error(t, l.ConsumeMetrics(t.Context(), batchOf(1, 1, 0, 1, func(int) float64 { return -1 })))
		})
		synctest.Wait()
		wg.Go(func() { assert.ErrorIs(t, l.ConsumeMetrics(ctx, batchOf(2, 2, 0, 1, one)), context.DeadlineExceeded) })
		wg.Wait()
		synctest.Wait()
		assert.Equal(t, map[string]int64{"sent": 1, "refused": 1, "returned": 2}, l.outcomes())
		l.stop()
	})
}

// TestLeavingWhileStopping ends one request, and not what waits behind it.
func TestLeavingWhileStopping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend(t)
		b.latency = func() time.Duration { return 10 * time.Second }
		l := newLab(t, "{lanes: 1}", b)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() { assert.ErrorIs(t, l.ConsumeMetrics(ctx, batchOf(0, 1, 0, 1, one)), context.DeadlineExceeded) })
		synctest.Wait()
		wg.Go(func() { assert.NoError(t, l.ConsumeMetrics(t.Context(), batchOf(1, 1, 0, 1, one))) })
		synctest.Wait()
		l.stop()
		wg.Wait()
		assert.Equal(t, map[string]int64{"sent": 1, "returned": 1}, l.outcomes())
	})
}
