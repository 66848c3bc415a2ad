// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/deltaring/deltaring/internal/aggregate"
)

func TestEveryStreamHasOneOwnerInOrder(t *testing.T) {
	by := func(key string) func(*Config) {
		return func(cfg *Config) { cfg.RoutingKey = key }
	}
	t.Run("metrics", func(t *testing.T) {
		testOwners(t, by("streamID"), &metrics, metricBatch)
	})
	t.Run("traces", func(t *testing.T) {
		testOwners(t, by("traceID"), &traces, traceBatch)
	})
	t.Run("logs", func(t *testing.T) {
		testOwners(t, by("service"), &logs, logBatch)
	})
	// Here each batch comes from another writer, by another temporality.
	t.Run("aggregated metrics", func(t *testing.T) {
		testOwners(t, func(cfg *Config) {
			cfg.RoutingKey = "aggregate"
			cfg.Aggregate = []aggregate.RoutingRuleConfig{
				{RuleConfig: aggregate.RuleConfig{Metrics: []string{"other"}, Keep: &aggregate.AttributesConfig{Attributes: []string{}}}},
				{RuleConfig: aggregate.RuleConfig{
					Metrics: []string{"req*"}, Drop: &aggregate.AttributesConfig{Resource: []string{"pod"}, Attributes: []string{"worker"}},
				}},
			}
		}, &metrics, func(n int64, streams ...string) pmetric.Metrics {
			md := metricBatch(n, streams...)
			rm := md.ResourceMetrics().At(0)
			rm.Resource().Attributes().PutInt("pod", n)
			sum := rm.ScopeMetrics().At(0).Metrics().At(0).Sum()
			sum.SetAggregationTemporality(pmetric.AggregationTemporality(n % 3))
			for _, p := range sum.DataPoints().All() {
				p.Attributes().PutInt("worker", n)
			}
			return md
		})
	})
}

// testOwners sends through two gateways that know the same members, in different orders, one after the other.
func testOwners[B batch](
	t *testing.T, routing func(*Config), sig *signal[B], make func(int64, ...string) B,
) {
	workers := startWorkers(t, "a", "b", "c")
	streams := streamNames(300)
	const rounds = 20
	for gw := range 2 {
		cfg := staticConfig(t, workers)
		routing(cfg)
		if gw == 1 {
			slices.Reverse(cfg.Resolver.Static.Get().Members)
		}
		g := startGatewayOf(t, cfg, sig)
		for n := range rounds {
			require.NoError(t, g.consume(t.Context(), make(int64(gw*rounds+n), streams...)))
		}
		require.NoError(t, g.stop()) // delivers what is in the queues
	}

	owner := map[string]string{}
	next := map[string]int64{}
	for name, w := range workers {
		assert.InDelta(t, len(streams)/len(workers), len(w.streams()), 30)
		for _, i := range w.got() {
			if owner[i.stream] == "" {
				owner[i.stream] = name
			}
			require.Equal(t, owner[i.stream], name, "owner of %s", i.stream)
			require.Equal(t, next[i.stream], i.n, "order of %s", i.stream)
			next[i.stream]++
		}
	}
	for _, s := range streams {
		require.Equal(t, int64(2*rounds), next[s], s)
	}
}

// TestCrashRetriesOnlyItsPart kills a worker while it is handling its part of a batch.
func TestCrashRetriesOnlyItsPart(t *testing.T) {
	workers := startWorkers(t, "a", "b", "c")
	g := startGateway(t, withoutQueues(staticConfig(t, workers)))
	streams := streamNames(100)
	b := workers["b"]
	handling := make(chan struct{})
	b.setBefore(func(ctx context.Context) error {
		close(handling)
		<-ctx.Done() // killed
		return ctx.Err()
	})

	sent := make(chan error)
	go func() { sent <- g.consume(t.Context(), metricBatch(1, streams...)) }()
	<-handling
	b.kill()
	b.setBefore(nil)
	attempts := func() uint64 {
		return histogramCount(t, g, "otelcol_ring_send_duration", "member", "b", "outcome", "unsent")
	}
	require.Eventually(t, func() bool { return attempts() >= 4 }, patience, time.Millisecond, "attempts while b is down")
	select {
	case err := <-sent:
		t.Fatalf("returned while b is down: %v", err)
	default:
	}
	b.start(t)
	require.NoError(t, <-sent)

	for name, owned := range g.owned(streams) {
		w := workers[name]
		assert.Equal(t, 1, w.requests, "%s: requests accepted", name)
		assert.Len(t, w.got(), len(owned), "%s: items", name)
	}
	assert.Equal(t, []componentstatus.Status{componentstatus.StatusRecoverableError, componentstatus.StatusOK}, g.host.statuses())
}

func TestErrorHasExactlyTheUnsentData(t *testing.T) {
	workers := startWorkers(t, "a", "b", "c", "d")
	cfg := withoutQueues(staticConfig(t, workers))
	cfg.RetryConfig.Enabled = false
	g := startGateway(t, cfg)
	streams := streamNames(200)
	owned := g.owned(streams)
	refuse := func(err error) func(context.Context) error { return func(context.Context) error { return err } }
	workers["b"].setBefore(refuse(errUnavailable))
	workers["c"].setBefore(refuse(status.Error(codes.InvalidArgument, "for good")))
	workers["d"].setBefore(refuse(errUnavailable))

	err := g.ring.consume(t.Context(), metricBatch(7, streams...))
	require.ErrorContains(t, err, "as the test wants")
	assert.ErrorContains(t, err, "for good", "both are told")
	assert.False(t, consumererror.IsPermanent(err), "or the rest would not be tried again")
	unsent, ok := metrics.rest(err)
	require.True(t, ok)
	var got []string
	for _, i := range metricItems(unsent) {
		got = append(got, i.stream)
	}
	assert.ElementsMatch(t, slices.Concat(owned["b"], owned["d"]), got)
	assert.Len(t, workers["a"].got(), len(owned["a"]))

	// Only what is refused for good is left: nothing to try again.
	workers["b"].setBefore(nil)
	workers["d"].setBefore(nil)
	err = g.ring.consume(t.Context(), metricBatch(8, streams...))
	require.ErrorContains(t, err, "for good")
	assert.True(t, consumererror.IsPermanent(err))
	assert.EqualValues(t, 2*len(owned["c"]), sum(t, g, "otelcol_ring_items", "member", "c", "outcome", "refused"))
	assert.EqualValues(t, len(owned["b"]), sum(t, g, "otelcol_ring_items", "member", "b", "outcome", "sent"))
	assert.Zero(t, sum(t, g, "otelcol_ring_items", "outcome", "failed"), "attempts are not outcomes")
}

func TestSlowMemberHoldsUpNobody(t *testing.T) {
	workers := startWorkers(t, "a", "b", "c")
	cfg := staticConfig(t, workers)
	g := startGateway(t, cfg)
	streams := streamNames(100)
	owned := g.owned(streams)
	release := make(chan struct{})
	workers["b"].setBefore(func(context.Context) error {
		<-release
		return nil
	})
	const rounds = 10
	for n := range rounds {
		require.NoError(t, g.consume(t.Context(), metricBatch(int64(n), streams...)))
	}
	for _, name := range []string{"a", "c"} {
		workers[name].awaitItems(t, rounds*len(owned[name]))
	}
	assert.Empty(t, workers["b"].got())
	close(release)
	workers["b"].awaitItems(t, rounds*len(owned["b"]))
	checkInOrder(t, workers["b"])
}

func checkInOrder(t *testing.T, w *worker) {
	t.Helper()
	next := map[string]int64{}
	for _, i := range w.got() {
		require.Equal(t, next[i.stream], i.n, "order of %s", i.stream)
		next[i.stream]++
	}
}

// TestFullQueueIsRetried has more batches than the queue of a member takes.
func TestFullQueueIsRetried(t *testing.T) {
	workers := startWorkers(t, "a", "b")
	cfg := staticConfig(t, workers)
	cfg.Protocol.OTLP.QueueConfig.Get().QueueSize = 1
	g := startGateway(t, cfg)
	streams := streamNames(50)
	release := make(chan struct{})
	workers["b"].setBefore(func(context.Context) error {
		<-release
		return nil
	})
	const rounds = 6
	sent := make(chan error)
	go func() {
		var err error
		for n := 0; n < rounds && err == nil; n++ {
			err = g.consume(t.Context(), metricBatch(int64(n), streams...))
		}
		sent <- err
	}()
	require.Eventually(t, func() bool {
		return g.logs.FilterMessageSnippet("Will retry the request").Len() > 2
	}, patience, time.Millisecond, "the queue to be full")
	close(release)
	require.NoError(t, <-sent)
	require.NoError(t, g.stop())
	owned := g.ownedAfterStop(workers)
	for name, w := range workers {
		assert.Len(t, w.got(), rounds*owned[name], name)
		checkInOrder(t, w)
	}
}

// TestJoin has members join, and checks that only what they own moves.
func TestJoin(t *testing.T) {
	workers := startWorkers(t, "a", "b", "c")
	s := startNameServer(t)
	s.serve(only(workers, "a", "b"))
	g := startGateway(t, dnsConfig(t, s))
	g.awaitMembers("a.workers.test", "b.workers.test")
	streams := streamNames(300)
	before := g.owned(streams)
	s.serve(workers)
	g.awaitMembers("a.workers.test", "b.workers.test", "c.workers.test")
	after := g.owned(streams)
	joined := after["c.workers.test"]
	assert.InDelta(t, 100, len(joined), 30)
	var moved int
	for _, old := range before {
		for _, stream := range old {
			if owner := g.ownerOf(stream); !slices.Contains(before[owner], stream) {
				moved++
			}
		}
	}
	assert.InDelta(t, len(joined), moved, 9, "streams that moved between members that stay")
	require.NoError(t, g.consume(t.Context(), metricBatch(0, streams...)))
	assert.Len(t, awaitAll(t, workers, 300), 300)
	assert.Len(t, workers["c"].streams(), len(joined))

	changes := g.logs.FilterMessage("members changed").All()
	require.Len(t, changes, 1)
	log := changes[0].ContextMap()
	assert.Equal(t, []any{"c.workers.test"}, log["joined"])
	assert.Empty(t, log["left"])
	assert.InDelta(t, 1./3, log["moved"], 0.02)
	assert.InDelta(t, 1.02, log["moved_to_minimum"], 0.04)
	assert.InDelta(t, 1./3, sumFloat(t, g, "otelcol_ring_moved"), 0.02)
	assert.EqualValues(t, 2, sum(t, g, "otelcol_ring_changes", "outcome", "applied"))
}

// TestLeaveReroutes kills a member that has data in its queue. Once it is gone from DNS, the others get that data.
func TestLeaveReroutes(t *testing.T) {
	workers := startWorkers(t, "a", "b", "c")
	s := startNameServer(t)
	s.serve(workers)
	g := startGateway(t, dnsConfig(t, s))
	g.awaitMembers("a.workers.test", "b.workers.test", "c.workers.test")
	streams := streamNames(120)
	b := g.owned(streams)["b.workers.test"]
	require.NotEmpty(t, b)

	const rounds = 8
	workers["b"].kill()
	for n := range rounds {
		require.NoError(t, g.consume(t.Context(), metricBatch(int64(n), streams...)))
	}
	alive := only(workers, "a", "c")
	awaitAll(t, alive, rounds*(len(streams)-len(b)))
	s.serve(alive)
	for i, times := range awaitAll(t, alive, rounds*len(streams)) {
		require.Equal(t, 1, times, i)
	}
	require.NoError(t, g.stop())
	assert.EqualValues(t, rounds*len(b), sum(t, g, "otelcol_ring_items", "member", "b.workers.test", "outcome", "rerouted"))
	assert.Zero(t, sum(t, g, "otelcol_ring_items", "outcome", "failed"))
	for _, w := range alive {
		checkInOrder(t, w) // holds here because nothing new was sent meanwhile
	}
}

// TestLeaveDrains has a member leave that is alive: it gets what is in its queue.
func TestLeaveDrains(t *testing.T) {
	workers := startWorkers(t, "a", "b")
	s := startNameServer(t)
	s.serve(workers)
	g := startGateway(t, dnsConfig(t, s))
	g.awaitMembers("a.workers.test", "b.workers.test")
	streams := streamNames(60)
	b := g.owned(streams)["b.workers.test"]
	handling, release := make(chan struct{}, 5), make(chan struct{})
	workers["b"].setBefore(func(context.Context) error {
		handling <- struct{}{}
		<-release
		return nil
	})
	const rounds = 5
	for n := range rounds {
		require.NoError(t, g.consume(t.Context(), metricBatch(int64(n), streams...)))
	}
	<-handling // its address is looked up, too
	s.serve(only(workers, "a"))
	g.awaitMembers("a.workers.test")
	close(release)
	workers["b"].awaitItems(t, rounds*len(b))
	checkInOrder(t, workers["b"])
	require.NoError(t, g.stop())
	assert.Len(t, workers["a"].got(), rounds*(len(streams)-len(b)))
}

// TestChangeUnderLoad has members come and go while batches are on their way.
func TestChangeUnderLoad(t *testing.T) {
	for _, queues := range []bool{true, false} {
		t.Run(fmt.Sprintf("queues=%v", queues), func(t *testing.T) {
			workers := startWorkers(t, "a", "b", "c", "d")
			s := startNameServer(t)
			s.serve(workers)
			cfg := dnsConfig(t, s)
			if !queues {
				withoutQueues(cfg)
			}
			g := startGateway(t, cfg)
			g.awaitMembers("a.workers.test", "b.workers.test", "c.workers.test", "d.workers.test")

			var done atomic.Bool
			var rounds [4]int
			var wg sync.WaitGroup
			for p := range rounds {
				streams := streamNames(80)[20*p : 20*(p+1)]
				wg.Go(func() {
					for !done.Load() {
						if !assert.NoError(t, g.consume(t.Context(), metricBatch(int64(rounds[p]), streams...))) {
							return
						}
						rounds[p]++
					}
				})
			}
			for i := range 2 {
				s.serve(only(workers, "a", "b"))
				g.awaitMembers("a.workers.test", "b.workers.test")
				if i%2 == 1 {
					s.serve(only(workers, "b", "c"))
					g.awaitMembers("b.workers.test", "c.workers.test")
				}
				s.serve(workers)
				g.awaitMembers("a.workers.test", "b.workers.test", "c.workers.test", "d.workers.test")
			}
			done.Store(true)
			wg.Wait()
			require.NoError(t, g.stop())
			total := 20 * (rounds[0] + rounds[1] + rounds[2] + rounds[3])
			times := awaitAll(t, workers, total)
			assert.Len(t, times, total)
			assert.Equal(t, 1, slices.Max(slices.Collect(maps.Values(times))))
		})
	}
}

func TestFailingLookupsKeepTheLastList(t *testing.T) {
	workers := startWorkers(t, "a", "b")
	s := startNameServer(t)
	g := startGateway(t, dnsConfig(t, s))

	// Not known yet: handed back, whole.
	s.awaitQueries(t, 3)
	err := g.ring.consume(t.Context(), metricBatch(0, "x"))
	require.ErrorIs(t, err, errNoMembers)
	unsent, ok := metrics.rest(err)
	require.True(t, ok)
	assert.Equal(t, 1, unsent.DataPointCount())

	s.serve(workers)
	g.awaitMembers("a.workers.test", "b.workers.test")
	streams := streamNames(20)
	require.NoError(t, g.consume(t.Context(), metricBatch(0, streams...)))
	awaitAll(t, workers, len(streams)) // connected: their addresses are looked up, too
	epoch := g.ring.ring().Epoch()
	for _, answer := range answersWithoutMembers {
		s.set(answer)
		s.awaitQueries(t, 10)
		assert.Equal(t, epoch, g.ring.ring().Epoch())
		assert.Equal(t, componentstatus.StatusRecoverableError, g.host.statuses()[len(g.host.statuses())-1])
		require.NoError(t, g.consume(t.Context(), metricBatch(0, streams...)))
		s.serve(workers)
		require.Eventually(t, func() bool {
			all := g.host.statuses()
			return all[len(all)-1] == componentstatus.StatusOK
		}, patience, time.Millisecond)
	}
	require.NoError(t, g.stop())
	assert.Len(t, g.logs.FilterMessageSnippet("the first lookup brought no members").All(), 1)
	assert.Len(t, g.logs.FilterMessageSnippet("last good ones are kept").All(), len(answersWithoutMembers), "once each time")
	assert.Len(t, g.logs.FilterMessageSnippet("bring members again").All(), len(answersWithoutMembers))
	assert.Equal(t, len(streams)*(1+len(answersWithoutMembers)), len(workers["a"].got())+len(workers["b"].got()))
	assert.NotZero(t, sum(t, g, "otelcol_ring_lookups", "outcome", "failed"))
	assert.NotZero(t, sum(t, g, "otelcol_ring_lookups", "outcome", "empty"))
	assert.EqualValues(t, 1, sum(t, g, "otelcol_ring_changes", "outcome", "applied"))
	assert.EqualValues(t, 1, sum(t, g, "otelcol_ring_unroutable"))
}

// TestFlappingAnswersChangeNothing answers with and without a member in turns.
func TestFlappingAnswersChangeNothing(t *testing.T) {
	workers := startWorkers(t, "a", "b")
	s := startNameServer(t)
	s.serve(workers)
	cfg := dnsConfig(t, s)
	cfg.Resolver.DNS.Get().Debounce = time.Minute
	g := startGateway(t, cfg)
	g.awaitMembers("a.workers.test", "b.workers.test") // the first list is taken at once
	var turn atomic.Int64
	s.set(func(q question) (int, []rr) {
		if turn.Add(1)%2 == 0 {
			return records(q, only(workers, "a"))
		}
		return records(q, workers)
	})
	s.awaitQueries(t, 20)
	assert.Zero(t, g.logs.FilterMessage("members changed").Len())
	assert.Equal(t, []string{"a.workers.test", "b.workers.test"}, g.members())
}

// TestShutdownDoesNotWaitForTheDead stops while a member is down, and another is black-holed.
func TestShutdownDoesNotWaitForTheDead(t *testing.T) {
	workers := startWorkers(t, "a", "b", "c")
	cfg := staticConfig(t, workers)
	cfg.Protocol.OTLP.RetryConfig.InitialInterval = time.Hour
	cfg.Protocol.OTLP.RetryConfig.MaxInterval = time.Hour
	cfg.Protocol.OTLP.TimeoutConfig.Timeout = 200 * time.Millisecond
	g := startGateway(t, cfg)
	workers["a"].kill()
	workers["b"].setBefore(func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	})
	streams := streamNames(90)
	owned := g.owned(streams)
	const rounds = 50
	for n := range rounds {
		require.NoError(t, g.consume(t.Context(), metricBatch(int64(n), streams...)))
	}
	began := time.Now()
	require.NoError(t, g.stop())
	assert.Less(t, time.Since(began), rounds*cfg.Protocol.OTLP.TimeoutConfig.Timeout/2)
	assert.Len(t, workers["c"].got(), rounds*len(owned["c"]))
	assert.EqualValues(t, rounds*len(owned["a"]), sum(t, g, "otelcol_ring_items", "member", "a", "outcome", "failed"))
	assert.EqualValues(t, rounds*len(owned["b"]), sum(t, g, "otelcol_ring_items", "member", "b", "outcome", "failed"))
}

func TestSettingsThatBreakOrderWarn(t *testing.T) {
	workers := startWorkers(t, "a")
	cfg := staticConfig(t, workers)
	cfg.Protocol.OTLP.QueueConfig.Get().NumConsumers = 10
	g := startGateway(t, cfg)
	warnings := g.logs.FilterMessageSnippet("do not stay in order").All()
	require.Len(t, warnings, 1)
	assert.Equal(t, map[string]any{"key": "protocol::otlp::sending_queue::num_consumers"}, warnings[0].ContextMap())
}

// TestWhatMovesNeedsNoRoom has a member leave whose data is to go to one whose queue is full of what was routed since, and waits for just
// that data.
func TestWhatMovesNeedsNoRoom(t *testing.T) {
	for _, stop := range []bool{false, true} {
		t.Run(fmt.Sprintf("stop=%v", stop), func(t *testing.T) {
			workers := startWorkers(t, "a", "b")
			s := startNameServer(t)
			s.serve(workers)
			cfg := dnsConfig(t, s)
			const queued = 3
			cfg.Protocol.OTLP.QueueConfig.Get().QueueSize = queued
			cfg.HandoverTimeout = time.Hour
			g := startGateway(t, cfg)
			g.awaitMembers("a.workers.test", "b.workers.test")
			streams := streamNames(60)
			owned := g.owned(streams)
			refuse := make(chan struct{})
			workers["b"].setBefore(func(ctx context.Context) error {
				select {
				case <-refuse:
				case <-ctx.Done():
				}
				return errUnavailable
			})
			b := owned["b.workers.test"]
			for n := range queued {
				require.NoError(t, g.consume(t.Context(), metricBatch(int64(n), b...)))
			}
			s.serve(only(workers, "a"))
			g.awaitMembers("a.workers.test")
			for n := range queued { // one of them is at the head and waits
				require.NoError(t, g.consume(t.Context(), metricBatch(int64(queued+n), b...)))
			}
			full := g.ring.consume(t.Context(), metricBatch(0, b...))
			require.Error(t, full, "the queue is full")
			require.Empty(t, workers["a"].got())
			stopped := make(chan error, 1)
			if stop {
				go func() { stopped <- g.stop() }()
				<-g.ring.shared.closing
			}
			close(refuse)
			workers["a"].awaitItems(t, 2*queued*len(b))
			if !stop {
				stopped <- g.stop()
			}
			require.NoError(t, <-stopped)
			assert.Len(t, workers["a"].got(), 2*queued*len(b))
			assert.Zero(t, sum(t, g, "otelcol_ring_items", "outcome", "failed"))
			checkInOrder(t, workers["a"])
		})
	}
}

// TestNewAddressUnderTheOldName has a member come back elsewhere: it owns what it owned, including what is in its queue.
func TestNewAddressUnderTheOldName(t *testing.T) {
	workers := startWorkers(t, "a", "b", "new")
	s := startNameServer(t)
	s.serve(only(workers, "a", "b"))
	g := startGateway(t, dnsConfig(t, s))
	g.awaitMembers("a.workers.test", "b.workers.test")
	epoch := g.ring.ring().Epoch()
	streams := streamNames(50)
	b := g.owned(streams)["b.workers.test"]
	workers["b"].kill()
	require.NoError(t, g.consume(t.Context(), metricBatch(0, streams...)))
	s.serve(map[string]*worker{"a": workers["a"], "b": workers["new"]})
	workers["new"].awaitItems(t, len(b))
	require.NoError(t, g.consume(t.Context(), metricBatch(1, streams...)))
	require.NoError(t, g.stop())
	assert.Len(t, workers["new"].got(), 2*len(b))
	checkInOrder(t, workers["new"])
	changes := g.logs.FilterMessage("members changed").All()
	require.Len(t, changes, 1)
	assert.Equal(t, []any{"b.workers.test"}, changes[0].ContextMap()["readdressed"])
	assert.Zero(t, changes[0].ContextMap()["moved"])
	assert.EqualValues(t, epoch>>11, changes[0].ContextMap()["epoch"])
}

// TestQueueBeforeSplittingKeepsOrderThroughAChange has one queue for all, as is needed for one on disk: a member that is
// down holds up everybody, but when it has gone, its streams go on elsewhere without a delta out of order.
func TestQueueBeforeSplittingKeepsOrderThroughAChange(t *testing.T) {
	workers := startWorkers(t, "a", "b")
	s := startNameServer(t)
	s.serve(workers)
	cfg := withoutQueues(dnsConfig(t, s))
	cfg.QueueConfig = configoptional.Some(*createDefaultConfig().(*Config).QueueConfig.GetOrInsertDefault())
	g := startGateway(t, cfg)
	g.awaitMembers("a.workers.test", "b.workers.test")
	streams := streamNames(60)
	a := g.owned(streams)["a.workers.test"]
	workers["b"].kill()
	const rounds = 10
	for n := range rounds {
		require.NoError(t, g.consume(t.Context(), metricBatch(int64(n), streams...)))
	}
	workers["a"].awaitItems(t, len(a))
	require.Eventually(t, func() bool {
		return histogramCount(t, g, "otelcol_ring_send_duration", "member", "b.workers.test", "outcome", "unsent") > 3
	}, patience, time.Millisecond)
	assert.Len(t, workers["a"].got(), len(a), "the second batch waits for the first")
	s.serve(only(workers, "a"))
	workers["a"].awaitItems(t, rounds*len(streams))
	require.NoError(t, g.stop())
	assert.Len(t, workers["a"].got(), rounds*len(streams))
	checkInOrder(t, workers["a"])
}

// TestChildrenHaveTheirOwnIDs is about telemetry of queues, which is labelled by ID.
func TestChildrenHaveTheirOwnIDs(t *testing.T) {
	workers := startWorkers(t, "a", "b")
	g := startGateway(t, staticConfig(t, workers))
	m, err := g.tel.GetMetric("otelcol_exporter_queue_size")
	require.NoError(t, err)
	var ids []string
	for _, p := range m.Data.(metricdata.Gauge[int64]).DataPoints {
		id, _ := p.Attributes.Value("exporter")
		ids = append(ids, id.AsString())
	}
	assert.ElementsMatch(t, []string{g.ring.set.ID.String() + "/a", g.ring.set.ID.String() + "/b"}, ids)
}
