// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// balancer hands connections on to its targets by turns, and knows nothing of requests, like most in front of gateways.
type balancer struct {
	listener net.Listener
	wg       sync.WaitGroup

	mu      sync.Mutex
	targets []string
	next    int
	open    map[string]int // connections, by target
	conns   map[net.Conn]bool
}

func startBalancer(t *testing.T, targets ...string) *balancer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &balancer{listener: l, targets: targets, open: map[string]int{}, conns: map[net.Conn]bool{}}
	b.wg.Go(b.serve)
	t.Cleanup(func() {
		_ = l.Close()
		b.mu.Lock()
		for c := range b.conns {
			_ = c.Close()
		}
		b.mu.Unlock()
		b.wg.Wait()
	})
	return b
}

func (b *balancer) add(target string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.targets = append(b.targets, target)
}

func (b *balancer) connections(target string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open[target]
}

func (b *balancer) serve() {
	for {
		client, err := b.listener.Accept()
		if err != nil {
			return
		}
		b.mu.Lock()
		target := b.targets[b.next%len(b.targets)]
		b.next++
		b.mu.Unlock()
		server, err := net.Dial("tcp", target)
		if err != nil {
			_ = client.Close()
			continue
		}
		b.note(target, 1, client, server)
		b.wg.Go(func() {
			var both sync.WaitGroup
			both.Go(func() { pipe(server, client) })
			pipe(client, server)
			both.Wait()
			b.note(target, -1, client, server)
		})
	}
}

func (b *balancer) note(target string, n int, conns ...net.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open[target] += n
	for _, c := range conns {
		if n > 0 {
			b.conns[c] = true
		} else {
			delete(b.conns, c)
		}
	}
}

func pipe(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	_ = to.Close()
	_ = from.Close()
}

// TestInstancesThatAreAddedGetTheirShare has producers that keep their connections to gateways, or to workers of one tier, behind a
// balancer of connections, and adds an instance: within two ages of a connection it has its share, and no request is lost on the way.
func TestInstancesThatAreAddedGetTheirShare(t *testing.T) {
	t.Parallel()
	const (
		age       = 3 * time.Second // of a connection; gRPC has it differ by a tenth
		producers = 30
		share     = producers / 3
	)
	backend := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	t.Cleanup(backend.Close)
	aged := []string{"--config", fmt.Sprintf("yaml:receivers::otlp::protocols::grpc::keepalive::server_parameters::max_connection_age: %v", age)}
	for name, start := range map[string]func(t *testing.T) func() *collector{
		"gateways": func(t *testing.T) func() *collector {
			names := newNameServer(t)
			names.set(map[string]*collector{"worker-0": startCollector(t, "worker.yaml", []string{"OTLP_BACKEND=" + backend.URL})})
			return func() *collector {
				g := startCollector(t, "gateway.yaml", []string{
					"WORKERS_SRV=" + workersService, "DNS_SERVER=" + names.address, "DNS_INTERVAL=100ms", "DNS_DEBOUNCE=0s"}, aged...)
				awaitTelemetry(t, g, 1, "otelcol_ring_members")
				return g
			}
		},
		"one tier": func(t *testing.T) func() *collector {
			redis := startRedis(t)
			return func() *collector {
				return startCollector(t, "shared.yaml", append(redis.environment(), "OTLP_BACKEND="+backend.URL), aged...)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			another := start(t)
			b := startBalancer(t, another().grpcEndpoint, another().grpcEndpoint)
			ctx, cancel := context.WithCancel(context.Background())
			var producing sync.WaitGroup
			defer producing.Wait()
			defer cancel()
			var refused atomic.Int64
			line := newTimeline()
			for i := range producers {
				conn, err := grpc.NewClient(b.listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = conn.Close() })
				producing.Go(func() { produce(ctx, t, pmetricotlp.NewGRPCClient(conn), line, i, &refused) })
			}
			if err := poll(func() error {
				if n := b.connections(b.targets[0]) + b.connections(b.targets[1]); n < producers {
					return fmt.Errorf("%d connections", n)
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			added := another()
			b.add(added.grpcEndpoint)
			since := time.Now()
			// The two others share what is left, but a connection that is about to end is counted until it has.
			if err := poll(func() error {
				if n := b.connections(added.grpcEndpoint); n < share*9/10 {
					return fmt.Errorf("%d connections of %d, want %d", n, producers, share)
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			took := time.Since(since)
			t.Logf("the third has its share after %v, of two ages of %v", took.Round(time.Millisecond), age)
			if took > 2*age*11/10 {
				t.Errorf("it took %v, want two ages of %v", took, age)
			}
			if err := poll(func() error {
				m, err := scrape(added.telemetryURL)
				if err == nil && m.sum("otelcol_receiver_accepted_metric_points") < 10*share {
					err = errors.New("it gets no points")
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if n := refused.Load(); n > 0 {
				t.Errorf("%d requests were refused", n)
			}
		})
	}
}

// produce sends deltas one after the other until ctx ends.
func produce(ctx context.Context, t *testing.T, client pmetricotlp.GRPCClient, line timeline, producer int, refused *atomic.Int64) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		request := deltas(1, line.at(i), line.at(i+1))
		request.Metrics().ResourceMetrics().At(0).Resource().Attributes().PutInt("producer", int64(producer))
		if _, err := client.Export(ctx, request, grpc.WaitForReady(true)); err != nil && ctx.Err() == nil {
			refused.Add(1)
			t.Log(err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
