// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/exporter/exporterhelper"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// profiles are the places for queues.
var profiles = map[string]func(*Config){
	"a queue for each member": func(*Config) {},
	"no queue":                func(cfg *Config) { withoutQueues(cfg) },
	"one queue":               func(cfg *Config) { withoutQueues(cfg); withOneQueue(cfg) },
	"both":                    func(cfg *Config) { withOneQueue(cfg) },
	"one queue that batches": func(cfg *Config) {
		withoutQueues(cfg)
		withOneQueue(cfg).Batch = configoptional.Some(exporterhelper.BatchConfig{
			Partition: exporterhelper.NewDefaultPartitionConfig(), FlushTimeout: 10 * time.Millisecond, Sizer: exporterhelper.RequestSizerTypeItems, MinSize: 250,
		})
	},
	"queues that wait": func(cfg *Config) {
		cfg.Protocol.OTLP.QueueConfig.Get().WaitForResult = true
		withOneQueue(cfg).WaitForResult = true
	},
	"a queue for each member that waits": func(cfg *Config) { cfg.Protocol.OTLP.QueueConfig.Get().WaitForResult = true },
}

func withOneQueue(cfg *Config) *exporterhelper.QueueBatchConfig {
	cfg.QueueConfig = configoptional.Some(*createDefaultConfig().(*Config).QueueConfig.GetOrInsertDefault())
	return cfg.QueueConfig.Get()
}

// TestEveryItemHasOneOutcome stops while one member is down, one is well, one refuses and one rejects.
func TestEveryItemHasOneOutcome(t *testing.T) {
	for name, profile := range profiles {
		t.Run(name, func(t *testing.T) {
			workers := startWorkers(t, "well", "down", "refuses", "rejects")
			cfg := staticConfig(t, workers)
			profile(cfg)
			g := startGateway(t, cfg)
			workers["down"].setBefore(func(context.Context) error { return errUnavailable })
			workers["refuses"].setBefore(func(context.Context) error { return status.Error(codes.InvalidArgument, "for good") })
			workers["rejects"].setPartial(partialSuccess{1, "too old"})

			const rounds = 5
			streams := streamNames(100)
			owned := g.owned(streams)
			offered, first := 0, make(chan struct{})
			done := make(chan struct{})
			go func() {
				defer close(done)
				defer close(first)
				for n := range rounds {
					offered += len(streams)
					if err := g.consume(t.Context(), metricBatch(int64(n), streams...)); err != nil && !consumererror.IsPermanent(err) {
						return // stopped
					}
				}
			}()
			require.Eventually(t, func() bool {
				return histogramCount(t, g, "otelcol_ring_send_duration", "member", "down", "outcome", "unsent") > 3
			}, patience, time.Millisecond)
			select { // where consume takes over, all is taken over before the end
			case <-first:
			case <-time.After(50 * time.Millisecond):
			}
			require.NoError(t, g.stop())
			<-done

			batches := offered / len(streams)
			count := func(outcome string, member string) int {
				return int(sum(t, g, "otelcol_ring_items", "outcome", outcome, "member", member))
			}
			total := 0
			for _, outcome := range []string{"sent", "rejected", "refused", "failed", "returned"} {
				total += int(sum(t, g, "otelcol_ring_items", "outcome", outcome))
			}
			assert.Equal(t, offered, total)
			assert.Equal(t, batches*len(owned["well"]), count("sent", "well"))
			assert.Len(t, workers["well"].got(), count("sent", "well"))
			assert.Equal(t, workers["rejects"].requests, count("rejected", "rejects"))
			assert.Equal(t, batches*len(owned["rejects"])-count("rejected", "rejects"), count("sent", "rejects"))
			assert.Equal(t, batches*len(owned["refuses"]), count("refused", "refuses"))
			lost := batches * len(owned["down"])
			assert.Equal(t, lost, count("failed", "down")+count("returned", "down"))
			handsBack := !cfg.QueueConfig.HasValue() && !cfg.Protocol.OTLP.QueueConfig.HasValue() ||
				cfg.Protocol.OTLP.QueueConfig.HasValue() && cfg.Protocol.OTLP.QueueConfig.Get().WaitForResult
			assert.Equal(t, handsBack, count("failed", "down") == 0)
			logs := g.logs.FilterMessage("data was lost at shutdown").All()
			if handsBack {
				assert.Empty(t, logs)
			} else if assert.Len(t, logs, 1) {
				assert.EqualValues(t, count("failed", "down"), logs[0].ContextMap()["items"])
			}
		})
	}
}

// TestMembersWordsAreNoInterruption has a member say what exporterhelper says when it stops, as a Collector does that stops. What a
// queue on disk drops after its retries is lost and counted, whatever the member says.
func TestMembersWordsAreNoInterruption(t *testing.T) {
	workers := startWorkers(t, "a")
	workers["a"].setBefore(func(context.Context) error {
		return status.Error(codes.Unavailable, "interrupted due to shutdown: the next one is away")
	})
	cfg := staticConfig(t, workers)
	queue, id := exporterhelper.NewDefaultQueueConfig(), component.MustNewID("shelf")
	queue.NumConsumers, queue.StorageID = 1, &id
	withoutQueues(cfg).QueueConfig = configoptional.Some(queue)
	cfg.RetryConfig.InitialInterval, cfg.RetryConfig.MaxElapsedTime = time.Millisecond, 2*time.Millisecond
	g := startGatewayIn(t, newShelf(), cfg, &metrics)
	require.NoError(t, g.consume(t.Context(), metricBatch(0, streamNames(10)...)))
	require.Eventually(t, func() bool {
		_, err := g.tel.GetMetric("otelcol_ring_items")
		return err == nil && sum(t, g, "otelcol_ring_items", "outcome", "failed") == 10
	}, 10*time.Second, time.Millisecond)
	require.NoError(t, g.stop())
}

// TestWhatStaysOnDiskIsNotLost stops while the member is away: what is in a queue on disk is sent by the next run.
func TestWhatStaysOnDiskIsNotLost(t *testing.T) {
	workers := startWorkers(t, "a")
	workers["a"].setBefore(func(context.Context) error { return status.Error(codes.Unavailable, "away") })
	cfg := staticConfig(t, workers)
	queue, id := exporterhelper.NewDefaultQueueConfig(), component.MustNewID("shelf")
	queue.NumConsumers, queue.StorageID = 1, &id
	withoutQueues(cfg).QueueConfig = configoptional.Some(queue)
	disk := newShelf()
	g := startGatewayIn(t, disk, cfg, &metrics)
	require.NoError(t, g.consume(t.Context(), metricBatch(0, streamNames(10)...)))
	require.NoError(t, g.stop())
	_, err := g.tel.GetMetric("otelcol_ring_items")
	require.Error(t, err, "nothing has become of it yet")

	workers["a"].setBefore(nil)
	g = startGatewayIn(t, disk, cfg, &metrics)
	workers["a"].awaitItems(t, 10)
	require.NoError(t, g.stop())
	assert.EqualValues(t, 10, sum(t, g, "otelcol_ring_items", "outcome", "sent"))
}

// TestRefusalIsToldAfterRetries has one part refused for good and another taken only when it is tried again.
func TestRefusalIsToldAfterRetries(t *testing.T) {
	workers := startWorkers(t, "a", "b", "c")
	g := startGateway(t, withoutQueues(staticConfig(t, workers)))
	workers["a"].setBefore(func(context.Context) error { return status.Error(codes.InvalidArgument, "for good") })
	tries := 0
	workers["b"].setBefore(func(context.Context) error {
		if tries++; tries < 3 {
			return errUnavailable
		}
		return nil
	})
	streams := streamNames(60)
	owned := g.owned(streams)
	err := g.consume(t.Context(), metricBatch(0, streams...))
	require.ErrorContains(t, err, "for good")
	assert.True(t, consumererror.IsPermanent(err), "nothing is left to be tried again")
	assert.Len(t, workers["b"].got(), len(owned["b"]))
	assert.EqualValues(t, len(owned["a"]), sum(t, g, "otelcol_ring_items", "outcome", "refused"))
	require.NoError(t, g.stop())
}

// TestItemsWithoutMembersHaveAnOutcome stops before any members are known.
func TestItemsWithoutMembersHaveAnOutcome(t *testing.T) {
	s := startNameServer(t)
	cfg := withoutQueues(dnsConfig(t, s))
	withOneQueue(cfg)
	g := startGateway(t, cfg)
	require.NoError(t, g.consume(t.Context(), metricBatch(0, "x", "y")))
	require.NoError(t, g.stop())
	assert.EqualValues(t, 2, sum(t, g, "otelcol_ring_items", "member", "", "outcome", "failed"))
}

// TestShutdownObeysItsDeadline stops with little time, while members do not answer.
func TestShutdownObeysItsDeadline(t *testing.T) {
	for name, profile := range profiles {
		t.Run(name, func(t *testing.T) {
			workers := startWorkers(t, "a", "b")
			cfg := staticConfig(t, workers)
			profile(cfg)
			cfg.Protocol.OTLP.TimeoutConfig.Timeout = time.Hour
			g := startGateway(t, cfg)
			handling := make(chan struct{}, 100)
			workers["a"].setBefore(func(ctx context.Context) error {
				handling <- struct{}{}
				<-ctx.Done()
				return ctx.Err()
			})
			streams := streamNames(60)
			owned := g.owned(streams)
			const rounds = 5
			offered, done := 0, make(chan struct{})
			go func() {
				defer close(done)
				for n := range rounds {
					offered += len(streams)
					if g.consume(t.Context(), metricBatch(int64(n), streams...)) != nil {
						return
					}
				}
			}()
			<-handling
			select {
			case <-done:
			case <-time.After(50 * time.Millisecond):
			}
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			began := time.Now()
			err := g.Shutdown(ctx)
			g.stop = func() error { return nil }
			assert.Less(t, time.Since(began), 10*time.Second)
			<-done
			require.ErrorIs(t, err, context.DeadlineExceeded)
			total := 0
			for _, outcome := range []string{"sent", "failed", "returned"} {
				total += int(sum(t, g, "otelcol_ring_items", "outcome", outcome))
			}
			assert.Equal(t, offered, total)
			if failed := sum(t, g, "otelcol_ring_items", "outcome", "failed"); failed > 0 {
				assert.ErrorContains(t, err, "lost")
				assert.Contains(t, err.Error(), fmt.Sprintf("lost %d items", failed))
			}
			assert.GreaterOrEqual(t, total, len(owned["a"]))
			assert.NotContains(t, g.host.statuses(), componentstatus.StatusOK)
		})
	}
}
