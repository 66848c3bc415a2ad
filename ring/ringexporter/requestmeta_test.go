// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/client"
	"go.opentelemetry.io/collector/config/configopaque"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/exporter/exporterhelper"

	"github.com/deltaring/deltaring/internal/tenant"
	"github.com/deltaring/deltaring/ring"
)

// epochAmong returns the epoch that all gateways send that see members of these names.
func epochAmong(t *testing.T, names ...string) string {
	t.Helper()
	var members []ring.Member
	for _, name := range names {
		members = append(members, ring.Member{Name: name, Weight: 1})
	}
	r, err := ring.New(members)
	require.NoError(t, err)
	return fmt.Sprintf("%016x", r.Epoch())
}

func TestRequestsSayByWhichRingToWhom(t *testing.T) {
	t.Run("metrics", func(t *testing.T) {
		testRequestMetadata(t, &metrics, metricBatch)
	})
	t.Run("traces", func(t *testing.T) {
		testRequestMetadata(t, &traces, traceBatch)
	})
	t.Run("logs", func(t *testing.T) {
		testRequestMetadata(t, &logs, logBatch)
	})
}

func testRequestMetadata[B batch](
	t *testing.T, sig *signal[B], make func(int64, ...string) B,
) {
	for _, queues := range []bool{true, false} {
		workers := startWorkers(t, "a", "b", "c d/é%") // as it is, no gRPC metadata
		cfg := staticConfig(t, workers)
		cfg.RoutingKey = ""
		cfg.Protocol.OTLP.ClientConfig.Headers = configopaque.MapList{{Name: "x-own", Value: "1"}}
		if !queues {
			withoutQueues(cfg)
		}
		started := time.Now().UnixMilli()
		g := startGatewayOf(t, cfg, sig)
		running := time.Now().UnixMilli()
		// What a gateway before this one may have sent is not passed on.
		ctx := client.NewContext(t.Context(), client.Info{Metadata: client.NewMetadata(map[string][]string{
			"X-Deltaring-Epoch": {"0123456789abcdef"}, "x-tenant": {"t"},
			"X-Deltaring-Since": {"1"}, "x-deltaring-previous": {"0123456789abcdef@1"},
		})})
		for _, s := range streamNames(50) {
			require.NoError(t, g.consume(ctx, make(0, s)))
		}
		require.NoError(t, g.stop())
		for name, w := range workers {
			if sig.id != metrics.id { // of which one service is all there is, so one member has them
				require.NotEmpty(t, w.gotRequests(), name)
			}
		}
		requests, epoch := 0, epochAmong(t, slices.Collect(maps.Keys(workers))...)
		for name, w := range workers {
			for _, r := range w.gotRequests() {
				requests++
				assert.Equal(t, []string{epoch}, r.metadata.Get(tenant.EpochKey))
				require.Len(t, r.metadata.Get(tenant.SinceKey), 1)
				since, err := strconv.ParseInt(r.metadata.Get(tenant.SinceKey)[0], 10, 64)
				require.NoError(t, err)
				assert.GreaterOrEqual(t, since, started)
				assert.LessOrEqual(t, since, running)
				assert.Empty(t, r.metadata.Get(tenant.PreviousKey), "there was none")
				assert.Equal(t, []string{map[string]string{"a": "a", "b": "b", "c d/é%": "c%20d/%C3%A9%25"}[name]}, r.metadata.Get(tenant.MemberKey))
				assert.Equal(t, []string{"1"}, r.metadata.Get("x-own"))
				assert.Empty(t, r.metadata.Get("x-tenant"), "client metadata is not sent by itself")
			}
		}
		assert.NotZero(t, requests)
	}
}

// TestReroutedDataSaysTheNewRing has a member leave with data in its queue, and another keep what it was given before:
// what goes elsewhere is of the new ring, what stays is of the old one.
func TestReroutedDataSaysTheNewRing(t *testing.T) {
	for _, batching := range []bool{false, true} {
		t.Run(fmt.Sprintf("batching=%v", batching), func(t *testing.T) {
			workers := startWorkers(t, "a", "b")
			s := startNameServer(t)
			s.serve(workers)
			cfg := dnsConfig(t, s)
			if batching {
				cfg.Protocol.OTLP.QueueConfig.Get().Batch = configoptional.Some(exporterhelper.BatchConfig{
					Partition: exporterhelper.NewDefaultPartitionConfig(), FlushTimeout: 200 * time.Millisecond, Sizer: exporterhelper.RequestSizerTypeItems, MinSize: 1000,
				})
			}
			g := startGateway(t, cfg)
			g.awaitMembers("a.workers.test", "b.workers.test")
			streams := streamNames(60)
			owned := g.owned(streams)
			a, b := owned["a.workers.test"], owned["b.workers.test"]
			before := epochAmong(t, "a.workers.test", "b.workers.test")
			after := epochAmong(t, "a.workers.test")

			handling, release := make(chan struct{}, 100), make(chan struct{})
			workers["a"].setBefore(func(context.Context) error {
				handling <- struct{}{}
				<-release
				return nil
			})
			workers["b"].kill()
			const rounds = 3
			for n := range rounds {
				require.NoError(t, g.consume(t.Context(), metricBatch(int64(n), streams...)))
			}
			<-handling
			s.serve(only(workers, "a"))
			g.awaitMembers("a.workers.test")
			require.NoError(t, g.consume(t.Context(), metricBatch(rounds, streams...)))
			close(release)
			workers["a"].awaitItems(t, (rounds+1)*len(streams))
			require.NoError(t, g.stop())

			got := map[string]map[item]bool{}
			for _, r := range workers["a"].gotRequests() {
				require.Equal(t, []string{"a.workers.test"}, r.metadata.Get(tenant.MemberKey))
				require.Len(t, r.metadata.Get(tenant.EpochKey), 1)
				epoch := r.metadata.Get(tenant.EpochKey)[0]
				if got[epoch] == nil {
					got[epoch] = map[item]bool{}
				}
				for _, i := range r.items {
					got[epoch][i] = true
				}
			}
			want := map[string]map[item]bool{before: {}, after: {}}
			for n := range int64(rounds + 1) {
				for _, stream := range a {
					want[map[bool]string{true: before, false: after}[n < rounds]][item{stream, n}] = true
				}
				for _, stream := range b {
					want[after][item{stream, n}] = true
				}
			}
			assert.Equal(t, want, got)
		})
	}
}

// TestRetriedDataSaysTheNewRing is the same with one queue before splitting: what is split again is of the new ring.
func TestRetriedDataSaysTheNewRing(t *testing.T) {
	workers := startWorkers(t, "a", "b")
	s := startNameServer(t)
	s.serve(workers)
	g := startGateway(t, withoutQueues(dnsConfig(t, s)))
	g.awaitMembers("a.workers.test", "b.workers.test")
	streams := streamNames(60)
	owned := g.owned(streams)
	workers["b"].kill()
	sent := make(chan error)
	go func() { sent <- g.consume(t.Context(), metricBatch(0, streams...)) }()
	workers["a"].awaitItems(t, len(owned["a.workers.test"]))
	s.serve(only(workers, "a"))
	require.NoError(t, <-sent)
	requests := workers["a"].gotRequests()
	require.Len(t, requests, 2)
	assert.Equal(t, []string{epochAmong(t, "a.workers.test", "b.workers.test")}, requests[0].metadata.Get(tenant.EpochKey))
	assert.Equal(t, []string{epochAmong(t, "a.workers.test")}, requests[1].metadata.Get(tenant.EpochKey))
	assert.Len(t, requests[1].items, len(owned["b.workers.test"]))
}

// TestRingThatComesBack is told from what it was before: ring AB, A, AB again, and then a member at another address, which is no
// other ring. Where there is a queue, data of all of these waits in it together.
func TestRingThatComesBack(t *testing.T) {
	all := maps.Clone(profiles)
	all["a queue for each member that batches"] = func(cfg *Config) {
		cfg.Protocol.OTLP.QueueConfig.Get().Batch = configoptional.Some(exporterhelper.BatchConfig{
			Partition: exporterhelper.NewDefaultPartitionConfig(), FlushTimeout: 200 * time.Millisecond, Sizer: exporterhelper.RequestSizerTypeItems, MinSize: 1000,
		})
	}
	for name, profile := range all {
		t.Run(name, func(t *testing.T) {
			workers := startWorkers(t, "a", "b", "b at another address")
			s := startNameServer(t)
			s.serve(only(workers, "a", "b"))
			cfg := dnsConfig(t, s)
			profile(cfg)
			g := startGateway(t, cfg)
			g.awaitMembers("a.workers.test", "b.workers.test")
			streams := g.owned(streamNames(60))["a.workers.test"] // in every ring
			queue := cfg.Protocol.OTLP.QueueConfig
			waits := queue.HasValue() && !queue.Get().WaitForResult && !cfg.QueueConfig.HasValue()

			release := make(chan struct{})
			if waits {
				workers["a"].setBefore(func(context.Context) error {
					<-release
					return nil
				})
			}
			sent := 0
			send := func() {
				require.NoError(t, g.consume(t.Context(), metricBatch(int64(sent), streams...)))
				sent++
				if !waits {
					workers["a"].awaitItems(t, sent*len(streams))
				}
			}
			send()
			s.serve(only(workers, "a"))
			g.awaitMembers("a.workers.test")
			send()
			s.serve(only(workers, "a", "b"))
			g.awaitMembers("a.workers.test", "b.workers.test")
			send()
			s.serve(map[string]*worker{"a": workers["a"], "b": workers["b at another address"]})
			was := g.ring.current.Load()
			require.Eventually(t, func() bool { return g.ring.current.Load() != was }, patience, time.Millisecond)
			g.awaitMembers("a.workers.test", "b.workers.test")
			send()
			close(release)
			workers["a"].awaitItems(t, sent*len(streams))
			require.NoError(t, g.stop())

			type told struct{ epoch, since, previous string }
			got := make([]told, sent)
			for _, r := range workers["a"].gotRequests() {
				require.Len(t, r.metadata.Get(tenant.EpochKey), 1)
				require.Len(t, r.metadata.Get(tenant.SinceKey), 1)
				for _, i := range r.items {
					told := told{r.metadata.Get(tenant.EpochKey)[0], r.metadata.Get(tenant.SinceKey)[0], strings.Join(r.metadata.Get(tenant.PreviousKey), " and ")}
					if got[i.n].epoch != "" {
						require.Equal(t, got[i.n], told)
					}
					got[i.n] = told
				}
			}
			ab, a := epochAmong(t, "a.workers.test", "b.workers.test"), epochAmong(t, "a.workers.test")
			began := func(n int) int64 {
				since, err := strconv.ParseInt(got[n].since, 10, 64)
				require.NoError(t, err)
				return since
			}
			assert.Equal(t, told{ab, got[0].since, ""}, got[0])
			assert.Equal(t, told{a, got[1].since, ab + "@" + got[0].since}, got[1])
			assert.Equal(t, told{ab, got[2].since, a + "@" + got[1].since}, got[2])
			assert.Less(t, began(0), began(1))
			assert.Less(t, began(1), began(2))
			assert.Equal(t, got[2], got[3])
		})
	}
}

// A ring's term begins after that of the one before, whatever the clock says.
func TestTermsFollowEachOther(t *testing.T) {
	first := term{}.next(0xa, 1000)
	assert.Equal(t, term{epoch: "000000000000000a", since: "1000", ring: 0xa, began: 1000}, first)
	assert.Equal(t, first, first.next(0xa, 2000), "it is the same ring")
	for now, want := range map[int64]int64{2000: 2000, 1001: 1001, 1000: 1001, 999: 1001, -5: 1001} {
		second := first.next(0xb, now)
		assert.Equal(t, want, second.began)
		assert.Equal(t, strconv.FormatInt(want, 10), second.since)
		assert.Equal(t, "000000000000000a@1000", second.previous)
		third := second.next(0xa, now)
		assert.Greater(t, third.began, second.began)
		assert.Equal(t, "000000000000000b@"+second.since, third.previous)
	}
}

// Queues that batch keep terms apart, whatever else they are to keep apart, and let them through.
func TestBatchingQueuesKeepTermsApart(t *testing.T) {
	queue := func(keys ...string) configoptional.Optional[exporterhelper.QueueBatchConfig] {
		cfg := exporterhelper.NewDefaultQueueConfig()
		cfg.Batch.GetOrInsertDefault().Partition.MetadataKeys = keys
		return configoptional.Some(cfg)
	}
	for _, keys := range [][]string{nil, {"x-tenant"}, {"X-Deltaring-Epoch", "x-tenant"}} {
		before := slices.Clone(keys)
		q := queue(keys...)
		apart := apartBy(termKeys, q)
		got := apart.Get().Batch.Get().Partition
		require.NoError(t, got.Validate(), "no key twice")
		for _, key := range termKeys {
			assert.True(t, slices.ContainsFunc(got.MetadataKeys, func(k string) bool { return strings.EqualFold(k, key) }), key)
		}
		assert.Equal(t, slices.Contains(keys, "x-tenant"), slices.Contains(got.MetadataKeys, "x-tenant"))
		assert.Equal(t, before, q.Get().Batch.Get().Partition.MetadataKeys, "it is the user's")
	}
}
