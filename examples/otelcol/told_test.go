// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestProducersAreNotToldAddresses has a store that cannot be reached behind a worker behind a gateway. Producers of both are told to
// send again, and by whom; where the store and the worker are is in the logs.
func TestProducersAreNotToldAddresses(t *testing.T) {
	t.Parallel()
	names := newNameServer(t)
	store := loopback(freePorts(t, 1)[0])
	worker := startCollector(t, "shared.yaml", []string{"REDIS_ENDPOINT=" + store, "REDIS_INSECURE=true", "OTLP_BACKEND=http://127.0.0.1:1"})
	names.set(map[string]*collector{"worker-0": worker})
	gateway := startCollector(t, "gateway.yaml", []string{
		"WORKERS_SRV=" + workersService, "DNS_SERVER=" + names.address, "DNS_INTERVAL=100ms", "DNS_DEBOUNCE=0s"},
		"--config", "gateway-shared.yaml", "--config", "yaml:exporters::ring::retry_on_failure::enabled: false")
	awaitTelemetry(t, gateway, 1, "otelcol_ring_members")

	line := newTimeline()
	refused := func(by *collector, code codes.Code, text string) {
		t.Helper()
		_, err := by.client(t).Export(context.Background(), deltas(3, line.at(0), line.at(1)))
		s := status.Convert(err)
		if s.Code() != code || s.Message() != text {
			t.Errorf("got %v: %q, want %v: %q", s.Code(), s.Message(), code, text)
		}
		if strings.Contains(s.Message(), "127.0.0.1") {
			t.Errorf("told an address: %q", s.Message())
		}
	}
	logged := func(by *collector, text string) {
		t.Helper()
		if !strings.Contains(by.log.String(), text) {
			t.Errorf("the log lacks %s:\n%s", text, by.log.String())
		}
	}
	const ours = "ring: workers did not take all of the data; send it again"
	refused(worker, codes.Unavailable, "d2c: the state of streams cannot be stored; send the data again")
	logged(worker, store)
	refused(gateway, codes.Unavailable, ours)
	worker.kill()
	refused(gateway, codes.Unavailable, ours)
	logged(gateway, worker.grpcEndpoint)
}
