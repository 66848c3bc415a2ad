// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/client"
	"go.opentelemetry.io/collector/config/configopaque"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/exporter/exporterhelper"

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
		g := startGatewayOf(t, cfg, sig)
		// What a gateway before this one may have sent is not passed on.
		ctx := client.NewContext(t.Context(), client.Info{Metadata: client.NewMetadata(map[string][]string{
			"X-Deltaring-Epoch": {"0123456789abcdef"}, "x-tenant": {"t"},
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
				assert.Equal(t, []string{epoch}, r.metadata.Get(epochKey))
				assert.Equal(t, []string{map[string]string{"a": "a", "b": "b", "c d/é%": "c%20d/%C3%A9%25"}[name]}, r.metadata.Get(memberKey))
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
				require.Equal(t, []string{"a.workers.test"}, r.metadata.Get(memberKey))
				require.Len(t, r.metadata.Get(epochKey), 1)
				epoch := r.metadata.Get(epochKey)[0]
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
	assert.Equal(t, []string{epochAmong(t, "a.workers.test", "b.workers.test")}, requests[0].metadata.Get(epochKey))
	assert.Equal(t, []string{epochAmong(t, "a.workers.test")}, requests[1].metadata.Get(epochKey))
	assert.Len(t, requests[1].items, len(owned["b.workers.test"]))
}
