// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/exporter/exportertest"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/deltaring/deltaring/ring/ringexporter/internal/metadata"
)

// TestThrottlingMemberIsWaitedFor has a member that asks to be spared for longer than the configured interval.
func TestThrottlingMemberIsWaitedFor(t *testing.T) {
	workers := startWorkers(t, "a")
	g := startGateway(t, staticConfig(t, workers))
	const delay = 300 * time.Millisecond
	throttle, err := status.New(codes.ResourceExhausted, "slow down").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(delay)})
	require.NoError(t, err)
	var mu sync.Mutex
	var attempts []time.Time
	workers["a"].setBefore(func(context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		if attempts = append(attempts, time.Now()); len(attempts) == 1 {
			return throttle.Err()
		}
		return nil
	})
	require.NoError(t, g.consume(t.Context(), metricBatch(0, "x")))
	workers["a"].awaitItems(t, 1)
	require.NoError(t, g.stop())
	require.Len(t, attempts, 2)
	assert.GreaterOrEqual(t, attempts[1].Sub(attempts[0]), delay)
}

func TestRetriesEndAndAreCounted(t *testing.T) {
	workers := startWorkers(t, "a")
	cfg := staticConfig(t, workers)
	cfg.Protocol.OTLP.RetryConfig.MaxElapsedTime = time.Millisecond // shorter than the interval
	g := startGateway(t, cfg)
	workers["a"].kill()
	require.NoError(t, g.consume(t.Context(), metricBatch(0, "x", "y")))
	require.Eventually(t, func() bool {
		return sum(t, g, "otelcol_ring_items", "member", "a", "outcome", "failed") == 2
	}, patience, time.Millisecond)
	assert.EqualValues(t, 1, histogramCount(t, g, "otelcol_ring_send_duration", "outcome", "unsent"))
	require.NoError(t, g.stop())
}

// TestMemberThatCannotStart has one that cannot, as its certificates are not there.
func TestMemberThatCannotStart(t *testing.T) {
	workers := startWorkers(t, "a")
	cfg := staticConfig(t, workers)
	cfg.Protocol.OTLP.ClientConfig.TLS.Insecure = false
	cfg.Protocol.OTLP.ClientConfig.TLS.CAFile = "missing.pem"
	e, err := NewFactory().CreateMetrics(t.Context(), exportertest.NewNopSettings(metadata.Type), cfg)
	require.NoError(t, err)
	err = e.Start(t.Context(), componenttest.NewNopHost())
	require.ErrorContains(t, err, `member "a"`)
	assert.ErrorContains(t, err, "missing.pem")
	require.NoError(t, e.Shutdown(t.Context()))

	// At run time it is a change that is refused.
	s := startNameServer(t)
	s.serve(workers)
	cfg = dnsConfig(t, s)
	cfg.Protocol.OTLP.ClientConfig.TLS.Insecure = false
	cfg.Protocol.OTLP.ClientConfig.TLS.CAFile = "missing.pem"
	g := startGateway(t, cfg)
	require.Eventually(t, func() bool {
		return sum(t, g, "otelcol_ring_changes", "outcome", "refused") > 1
	}, patience, time.Millisecond, "it is tried again")
	assert.Empty(t, g.members())
	require.NoError(t, g.stop())
}

// TestStatusNamesMembersInTroubleNow has three members fail and recover one by one.
func TestStatusNamesMembersInTroubleNow(t *testing.T) {
	names := []string{"a", "b", "c"}
	workers := startWorkers(t, names...)
	g := startGateway(t, staticConfig(t, workers))
	refuse := func(context.Context) error { return errUnavailable }
	await := func(want ...string) {
		t.Helper()
		require.Eventually(t, func() bool {
			text := g.host.trouble()
			for _, name := range names {
				if strings.Contains(text, `member "`+name+`"`) != slices.Contains(want, name) {
					return false
				}
			}
			return true
		}, patience, time.Millisecond, "%v in trouble, and no others: %s", want, g.host.trouble())
	}
	for _, w := range workers {
		w.setBefore(refuse)
	}
	require.NoError(t, g.consume(t.Context(), metricBatch(0, streamNames(50)...)))
	await("a", "b", "c")
	workers["b"].setBefore(nil)
	await("a", "c")
	workers["a"].setBefore(nil)
	await("c")
	workers["b"].setBefore(refuse)
	require.NoError(t, g.consume(t.Context(), metricBatch(1, streamNames(50)...)))
	await("b", "c")
	workers["b"].setBefore(nil)
	workers["c"].setBefore(nil)
	require.Eventually(t, func() bool { return sum(t, g, "otelcol_ring_items", "outcome", "sent") == 100 }, patience, time.Millisecond)
	await()
	all := g.host.statuses()
	assert.Equal(t, componentstatus.StatusOK, all[len(all)-1])
	reported := len(all)
	for _, w := range workers {
		w.kill()
	}
	require.NoError(t, g.stop())
	assert.Len(t, g.host.statuses(), reported, "one that has stopped is not OK")
}
