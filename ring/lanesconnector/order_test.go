// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package lanesconnector

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/streamid"
)

// TestInOrder has producers with ten batches under way at once, of the same streams, into a backend that refuses what is out of
// order, that is slow and fails at random. Whatever comes to it is in order, the last total of each stream is there, and every
// sample that is there is one that was sent.
func TestInOrder(t *testing.T) {
	for _, yaml := range []string{
		"{}", "{lanes: 1}", "{lanes: 3, max_request_items: 40}", "{routing_key: resource}", "{sending_queue: {}}",
		"{sending_queue: {batch: null}}", "{sending_queue: {batch: {min_size: 100, flush_timeout: 20ms}}}",
	} {
		for seed := range uint64(4) {
			t.Run(fmt.Sprintf("%s/%d", yaml, seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { testInOrder(t, yaml, seed) })
			})
		}
	}
}

func testInOrder(t *testing.T, yaml string, seed uint64) {
	const producers, series, rounds, under = 9, 25, 60, 10
	random := rand.New(rand.NewPCG(seed, 1))
	var mu sync.Mutex
	chance := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return random.IntN(n)
	}
	b := newBackend(t)
	b.mutates = seed%2 == 1
	b.latency = func() time.Duration { return time.Duration(chance(200)) * time.Millisecond }
	b.answer = func(pmetric.Metrics) error {
		switch chance(20) {
		case 0:
			return errDown
		default:
			return nil
		}
	}
	l := newLab(t, yaml, b)
	var given int64
	var wg sync.WaitGroup
	for p := range producers {
		room := make(chan struct{}, under)
		wg.Go(func() {
			var batches sync.WaitGroup
			for round := range rounds {
				room <- struct{}{}
				n := 1 + chance(series)
				first := chance(series - n + 1)
				mu.Lock()
				given += int64(n)
				mu.Unlock()
				md := batchOf(p, n, first, uint64(round+1), func(int) float64 { return float64(round + 1) })
				last := batchOf(p, series, 0, rounds+1, func(int) float64 { return rounds + 1 })
				batches.Go(func() {
					defer func() { <-room }()
					if round == rounds-1 {
						md = last
						mu.Lock()
						given += int64(series - n)
						mu.Unlock()
					}
					for l.ConsumeMetrics(t.Context(), md) != nil {
						t.Error("refused")
					}
				})
				time.Sleep(time.Duration(chance(50)) * time.Millisecond)
			}
			batches.Wait()
		})
	}
	wg.Wait()
	for l.count("lanes_items", "", "") < given { // what is in queues
		time.Sleep(time.Second)
	}
	l.stop()
	assert.Zero(t, b.rejected)
	outcomes := l.outcomes()
	assert.Equal(t, given, outcomes["sent"]+outcomes["late"], "%v", outcomes)
	assert.EqualValues(t, b.points, outcomes["sent"])
	require.Equal(t, producers*series, len(b.series))
	for id, samples := range b.series {
		for _, s := range samples {
			assert.InDelta(t, float64(s.ms), s.value, 0, "of %v", id)
		}
		require.EqualValues(t, rounds+1, samples[len(samples)-1].ms, "the last total is lost")
	}
}

// TestWritersHaveOneLane has each batch come from another writer of the same streams, by another temporality. A batch makes one request
// in each lane, and so all batches must be split alike.
func TestWritersHaveOneLane(t *testing.T) {
	const writers, series = 12, 40
	requests := func(yaml string) (splits [][]string) {
		var mu sync.Mutex
		var split []string
		b := consumerOf(newBackend(t), func(_ context.Context, md pmetric.Metrics) {
			var streams []int64
			numbersOf(md, func(_ streamid.ID, dp pmetric.NumberDataPoint) {
				v, _ := dp.Attributes().Get("series")
				streams = append(streams, v.Int())
			})
			mu.Lock()
			defer mu.Unlock()
			split = append(split, fmt.Sprint(streams))
		})
		l := newLab(t, yaml, b)
		for p := range writers {
			md := batchOf(p, series, 0, 1, one)
			md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum().SetAggregationTemporality(pmetric.AggregationTemporality(p % 3))
			require.NoError(t, l.ConsumeMetrics(t.Context(), md))
			slices.Sort(split)
			splits = append(splits, split)
			split = nil
		}
		l.stop()
		return splits
	}
	splits := requests("{lanes: 8, routing_key: aggregate, aggregate: [{metrics: [requests], drop: {resource: [service.instance.id]}}]}")
	assert.Len(t, splits[0], 8)
	for _, split := range splits {
		assert.Equal(t, splits[0], split)
	}
	assert.NotEqual(t, splits[0], requests("{lanes: 8}")[0])
}

// TestThroughput is that of 40 producers with batches of 20 points, into a backend that takes 100 ms for a request. Time is that of
// the test alone: what is computed takes none.
func TestThroughput(t *testing.T) {
	// perSecond returns how many points of producers get through in a second, with so many batches of each under way.
	perSecond := func(t *testing.T, yaml string, producers, series, under int) (rate float64) {
		synctest.Test(t, func(t *testing.T) {
			b := newBackend(t)
			b.latency = func() time.Duration { return 100 * time.Millisecond }
			l := newLab(t, yaml, b)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			var wg sync.WaitGroup
			for p := range producers {
				for u := range under {
					wg.Go(func() {
						for n := 0; ctx.Err() == nil; n++ {
							at := uint64(n*under+u) + 1
							_ = l.ConsumeMetrics(ctx, batchOf(p, series, u*series, at, func(int) float64 { return float64(at) }))
							time.Sleep(time.Millisecond)
						}
					})
				}
			}
			began := time.Now()
			wg.Wait()
			rate = float64(b.stored()) / time.Since(began).Seconds()
			l.stop()
			assert.Zero(t, b.rejected)
		})
		t.Logf("%-60s %d producers, batches of %d points, %d under way: %.0f points/s", yaml, producers, series, under, rate)
		return rate
	}
	assert.Greater(t, perSecond(t, "{sending_queue: {}}", 40, 20, 10), 50_000.0)
	assert.Greater(t, perSecond(t, "{}", 40, 20, 20), 50_000.0)
	one := perSecond(t, "{lanes: 1, max_request_items: 1}", 40, 1000, 1)
	assert.Greater(t, perSecond(t, "{}", 40, 1000, 1), 5*one)
}

// TestOneOfAThousand has a backend that refuses a request for one sample in it: only that is lost.
func TestOneOfAThousand(t *testing.T) {
	bad := func(series int) float64 {
		if series == 617 {
			return -1
		}
		return 1
	}
	refuse := func(md pmetric.Metrics) (err error) {
		numbersOf(md, func(_ streamid.ID, dp pmetric.NumberDataPoint) {
			if dp.DoubleValue() < 0 {
				err = consumererror.NewPermanent(fmt.Errorf("no such value"))
			}
		})
		return err
	}
	b := newBackend(t)
	b.answer = refuse
	l := newLab(t, "{lanes: 4}", b)
	err := l.ConsumeMetrics(t.Context(), batchOf(0, 1000, 0, 1, bad))
	assert.True(t, consumererror.IsPermanent(err))
	assert.ErrorContains(t, err, "no such value")
	assert.Equal(t, map[string]int64{"sent": 999, "refused": 1}, l.outcomes())
	assert.EqualValues(t, 1, l.count("lanes_refused", "reason", "no such value"))
	assert.Equal(t, 999, b.points)
	assert.Empty(t, b.of(0, 617))
	assert.Less(t, b.requests, 4+4*10)
	// It has not made the rest late.
	require.NoError(t, l.ConsumeMetrics(t.Context(), batchOf(0, 1000, 0, 2, func(int) float64 { return 2 })))
	assert.Equal(t, 1999, b.points)
	l.stop()
}

// TestAllRefused has a backend that refuses whatever comes: that costs no more requests than it must, after the first.
func TestAllRefused(t *testing.T) {
	b := newBackend(t)
	b.answer = func(pmetric.Metrics) error { return consumererror.NewPermanent(fmt.Errorf("who are you?")) }
	l := newLab(t, "{lanes: 1}", b)
	const rounds = 100
	for i := range uint64(rounds) {
		require.Error(t, l.ConsumeMetrics(t.Context(), batchOf(0, 1000, 0, i+1, func(int) float64 { return 1 })))
	}
	assert.Less(t, b.requests, rounds+30)
	assert.Equal(t, map[string]int64{"refused": rounds * 1000}, l.outcomes())
	b.answer = func(pmetric.Metrics) error { return nil }
	require.NoError(t, l.ConsumeMetrics(t.Context(), batchOf(0, 1000, 0, 1, func(int) float64 { return 1 })))
	assert.Equal(t, 1000, b.points, "what was refused is not known as sent")
	l.stop()
}

// TestNobodySuffersForOthers has batches sent together of which one is refused.
func TestNobodySuffersForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend(t)
		b.latency = func() time.Duration { return time.Second }
		b.answer = func(md pmetric.Metrics) (err error) {
			numbersOf(md, func(_ streamid.ID, dp pmetric.NumberDataPoint) {
				if dp.DoubleValue() == 3 {
					err = consumererror.NewPermanent(fmt.Errorf("no such value"))
				}
			})
			return err
		}
		l := newLab(t, "{lanes: 1}", b)
		errs := make([]error, 6)
		var wg sync.WaitGroup
		for p := range errs {
			wg.Go(func() {
				errs[p] = l.ConsumeMetrics(t.Context(), batchOf(p, 10, 0, 1, func(int) float64 { return float64(p) }))
			})
			synctest.Wait()
		}
		wg.Wait()
		for p, err := range errs {
			if p == 3 {
				assert.True(t, consumererror.IsPermanent(err))
			} else {
				assert.NoError(t, err)
			}
		}
		assert.Equal(t, 10, b.sizes[0])
		assert.Equal(t, 50, b.sizes[1], "the others waited and went together")
		assert.Equal(t, map[string]int64{"sent": 50, "refused": 10}, l.outcomes())
		l.stop()
	})
}

// TestOneLaneIsStuck has a backend that never answers for one lane: the others go on.
func TestOneLaneIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend(t)
		stuck := make(chan struct{})
		b.answer = func(md pmetric.Metrics) error {
			var hang bool
			numbersOf(md, func(_ streamid.ID, dp pmetric.NumberDataPoint) { hang = hang || dp.DoubleValue() == 13 })
			if hang {
				<-stuck
			}
			return nil
		}
		l := newLab(t, "{lanes: 4}", b)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		waits := make(chan error)
		go func() { waits <- l.ConsumeMetrics(ctx, batchOf(13, 1, 0, 1, func(int) float64 { return 13 })) }()
		synctest.Wait()
		passed := 0
		for p := range 40 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if l.ConsumeMetrics(ctx, batchOf(p+100, 1, 0, 1, func(int) float64 { return 1 })) == nil {
				passed++
			}
			cancel()
		}
		assert.Greater(t, passed, 10, "about three of four: which lane a stream has is chance")
		require.ErrorIs(t, <-waits, context.DeadlineExceeded)
		close(stuck)
		l.stop()
	})
}
