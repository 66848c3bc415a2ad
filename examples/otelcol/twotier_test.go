// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"google.golang.org/grpc/metadata"
)

// TestTwoTiers runs gateway.yaml in front of three worker.yaml, and kills one of them.
func TestTwoTiers(t *testing.T) {
	t.Parallel()
	names := newNameServer(t)
	book := &totals{got: map[string]map[life]int64{}}
	workers := map[string]*collector{}
	for _, name := range []string{"worker-0", "worker-1", "worker-2"} {
		server := httptest.NewServer(book.of(name))
		t.Cleanup(server.Close)
		workers[name] = startCollector(t, "worker.yaml", []string{"OTLP_BACKEND=" + server.URL})
	}
	names.set(workers)
	gateway := startCollector(t, "gateway.yaml", []string{
		"WORKERS_SRV=" + workersService, "DNS_SERVER=" + names.address, "DNS_INTERVAL=100ms", "DNS_DEBOUNCE=0s"})
	awaitTelemetry(t, gateway, 3, "otelcol_ring_members")

	const streams = 90
	client, line := gateway.client(t), newTimeline()
	sent := 0 // intervals
	send := func(n int) {
		t.Helper()
		for range n {
			request := deltas(streams, line.at(sent), line.at(sent+1))
			if _, err := client.Export(context.Background(), request); err != nil {
				t.Fatal(err)
			}
			sent++
		}
	}

	send(5)
	book.await(t, 5*streams)
	before := book.lives()
	owners := map[string]int{}
	for stream, lives := range before {
		if len(lives) != 1 {
			t.Fatalf("%s has %v, want one owner and one start", stream, lives)
		}
		for life, total := range lives {
			owners[life.worker]++
			if life.start != line.at(0).UnixNano() || total != 5*increment(stream) {
				t.Fatalf("%s: total is %d since %d", stream, total, life.start)
			}
		}
	}
	if len(before) != streams || len(owners) != 3 {
		t.Fatalf("%d streams at %v, want %d at three workers", len(before), owners, streams)
	}

	// What is sent after the kill waits in the gateway until the worker has gone from the DNS, and goes to others then.
	const killed = "worker-1"
	workers[killed].kill()
	send(2)
	delete(workers, killed)
	names.set(workers)
	awaitTelemetry(t, gateway, float64(2*owners[killed]), "otelcol_ring_items", `outcome="rerouted"`)
	book.await(t, 7*streams)
	send(5)
	book.await(t, 12*streams)

	for stream, after := range book.lives() {
		for was, total := range before[stream] {
			if was.worker != killed {
				if len(after) != 1 || after[was] != 12*increment(stream) {
					t.Errorf("%s has not moved and has %v, was %v", stream, after, was)
				}
				continue
			}
			delete(after, was)
			for is, rest := range after {
				if len(after) != 1 || is.start != line.at(5).UnixNano() || total+rest != 12*increment(stream) {
					t.Errorf("%s moved, and has %d more in %v, was %d in %v", stream, rest, is, total, was)
				}
			}
		}
	}
	awaitTelemetry(t, gateway, 2, "otelcol_ring_members")
	awaitTelemetry(t, gateway, 0, "otelcol_ring_items", `outcome="failed"`)
	gateway.stop(t)
}

// TestTwoTiersKeepTenantsApart runs the same two configurations with the settings for tenants, who send the same streams. Each begins
// at a time of its own, which tells its streams from those of the others at the backends.
func TestTwoTiersKeepTenantsApart(t *testing.T) {
	t.Parallel()
	include := []string{"--config", "yaml:receivers::otlp::protocols::grpc::include_metadata: true"}
	atWorkers := append(slices.Clone(include), "--config", "yaml:processors::d2c::metadata_keys: [x-tenant, X-Team]",
		"--config", "yaml:connectors::lanes::metadata_keys: [x-tenant, X-Team]")
	atGateways := append(slices.Clone(include), "--config", "yaml:exporters::ring::metadata_keys: [x-team, x-tenant]",
		"--config", "yaml:exporters::ring::routing_key: streamID") // by the resource, tenants who share one share a worker
	names := newNameServer(t)
	book := &totals{got: map[string]map[life]int64{}}
	workers := map[string]*collector{}
	for _, name := range []string{"worker-0", "worker-1"} {
		server := httptest.NewServer(book.of(name))
		t.Cleanup(server.Close)
		workers[name] = startCollector(t, "worker.yaml", []string{"OTLP_BACKEND=" + server.URL}, atWorkers...)
	}
	names.set(workers)
	gateway := startCollector(t, "gateway.yaml", []string{
		"WORKERS_SRV=" + workersService, "DNS_SERVER=" + names.address, "DNS_INTERVAL=100ms", "DNS_DEBOUNCE=0s"}, atGateways...)
	awaitTelemetry(t, gateway, 2, "otelcol_ring_members")

	tenants := []metadata.MD{
		{}, metadata.Pairs("x-tenant", "acme"), metadata.Pairs("x-tenant", "globex"), metadata.Pairs("x-tenant", ""),
		metadata.Pairs("x-tenant", "acme", "x-tenant", "globex"), metadata.Pairs("x-team", "acme"),
	}
	const streams, rounds = 40, 3
	client, line := gateway.client(t), newTimeline()
	begin := func(tenant, round int) time.Time { return line.at(round).Add(time.Duration(tenant) * time.Millisecond) }
	for round := range rounds {
		for i, tenant := range tenants {
			request := deltas(streams, begin(i, round), begin(i, round+1))
			if _, err := client.Export(metadata.NewOutgoingContext(context.Background(), tenant), request); err != nil {
				t.Fatal(err)
			}
		}
	}
	book.await(t, rounds*len(tenants)*streams)
	lives := book.lives()
	if len(lives) != streams {
		t.Fatalf("%d streams, want %d", len(lives), streams)
	}
	spread := 0
	for stream, lives := range lives {
		at := map[string]bool{}
		for life := range lives {
			at[life.worker] = true
		}
		spread += len(at)
		for i := range tenants {
			var got []int64
			for life, total := range lives {
				if life.start == begin(i, 0).UnixNano() {
					got = append(got, total)
				}
			}
			if len(lives) != len(tenants) || len(got) != 1 || got[0] != rounds*increment(stream) {
				t.Fatalf("%s has %v, want %d for each tenant, at one worker", stream, lives, rounds*increment(stream))
			}
		}
	}
	if spread <= streams {
		t.Error("each stream's tenants are all at one worker")
	}
	gateway.stop(t)
}

func TestBadRingConfigsAreRefusedByName(t *testing.T) {
	for _, tc := range []struct{ setting, mention string }{
		{"routing_key: name", "routing_key"},
		{"routing_key: attributes", "routing_key"},
		{"routing_key: traceID", "routing_key"}, // of metrics
		{"resolver: {static: {hostnames: [a]}}", "resolver"},
		{"resolver: {dns: {interval: 0s}}", "resolver::dns::interval"},
		{"resolver: {k8s: {service: workers}}", "k8s"},
		{"metadata_keys: [x-tenant, X-Tenant]", "metadata_keys::1"},
		{"protocol: {otlp: {sending_queue: {storage: file_storage}}}", "protocol::otlp::sending_queue::storage"},
	} {
		t.Run(tc.setting, func(t *testing.T) {
			out, err := validate(t, "--config", "gateway.yaml", "--config", "yaml:exporters: {ring: {"+tc.setting+"}}")
			if err == nil {
				t.Fatal("accepted")
			}
			if !regexp.MustCompile(`\b` + tc.mention + `\b`).MatchString(out) {
				t.Errorf("refused without naming %s:\n%s", tc.mention, out)
			}
		})
	}
}

// deltas is one interval of counters, stream i by increment.
func deltas(streams int, start, end time.Time) pmetricotlp.ExportRequest {
	md := pmetric.NewMetrics()
	for i := range streams {
		rm, stream := md.ResourceMetrics().AppendEmpty(), fmt.Sprintf("stream-%03d", i)
		rm.Resource().Attributes().PutStr("service.instance.id", stream)
		sum := rm.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
		sum.SetName("requests")
		sum.SetEmptySum().SetIsMonotonic(true)
		sum.Sum().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		pt := sum.Sum().DataPoints().AppendEmpty()
		pt.Attributes().PutStr("stream", stream)
		pt.SetStartTimestamp(pcommon.Timestamp(start.UnixNano()))
		pt.SetTimestamp(pcommon.Timestamp(end.UnixNano()))
		pt.SetIntValue(increment(stream))
	}
	return pmetricotlp.NewExportRequestFromMetrics(md)
}

// increment is different for most streams.
func increment(stream string) int64 {
	return 1 + int64(stream[len(stream)-1]-'0')*10 + int64(stream[len(stream)-2]-'0')
}

// life is a stream under one start at one worker.
type life struct {
	worker string
	start  int64 // Unix time in nanoseconds
}

// totals is what the backends of all workers have.
type totals struct {
	mu     sync.Mutex
	points int
	got    map[string]map[life]int64 // latest total, by stream
}

// of returns the backend of a worker.
func (b *totals) of(worker string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		request, err := readExport(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, rm := range request.Metrics().ResourceMetrics().All() {
			for _, pt := range rm.ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints().All() {
				stream, _ := pt.Attributes().Get("stream")
				if b.got[stream.Str()] == nil {
					b.got[stream.Str()] = map[life]int64{}
				}
				b.got[stream.Str()][life{worker, int64(pt.StartTimestamp())}] = pt.IntValue()
				b.points++
			}
		}
		body, _ := pmetricotlp.NewExportResponse().MarshalProto() // of an empty message; cannot fail
		w.Header().Set("Content-Type", "application/x-protobuf")
		_, _ = w.Write(body)
	})
}

func (b *totals) await(t *testing.T, points int) {
	t.Helper()
	if err := poll(func() error {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.points != points {
			return fmt.Errorf("backends have %d points, want %d", b.points, points)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func (b *totals) lives() map[string]map[life]int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := map[string]map[life]int64{}
	for stream, lives := range b.got {
		all[stream] = maps.Clone(lives)
	}
	return all
}

// awaitTelemetry waits until the process says that a metric has a value.
func awaitTelemetry(t *testing.T, c *collector, want float64, metric string, labels ...string) {
	t.Helper()
	if err := poll(func() error {
		m, err := scrape(c.telemetryURL)
		if err != nil {
			return err
		}
		if got := m.sum(metric, labels...); got != want {
			return fmt.Errorf("%s%v is %v, want %v", metric, labels, got, want)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

const workersService = "_otlp._tcp.workers.test"

// nameServer is a DNS server that knows the workers.
type nameServer struct {
	address string
	mu      sync.Mutex
	workers map[string]*collector
}

func newNameServer(t *testing.T) *nameServer {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &nameServer{address: conn.LocalAddr().String()}
	server, started, done := &dns.Server{PacketConn: conn, Handler: s}, make(chan struct{}), make(chan struct{})
	server.NotifyStartedFunc = func() { close(started) }
	go func() {
		defer close(done)
		_ = server.ActivateAndServe() // returns on Shutdown
	}()
	<-started
	t.Cleanup(func() {
		_ = server.Shutdown()
		<-done
	})
	return s
}

func (s *nameServer) set(workers map[string]*collector) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.workers = maps.Clone(workers)
}

func (s *nameServer) ServeDNS(w dns.ResponseWriter, query *dns.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	reply, q := new(dns.Msg), query.Question[0]
	reply.SetReply(query)
	header := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET}
	for _, name := range slices.Sorted(maps.Keys(s.workers)) {
		target := name + ".workers.test."
		address := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s.workers[name].grpcEndpoint))
		switch {
		case q.Qtype == dns.TypeSRV && q.Name == workersService+".":
			reply.Answer = append(reply.Answer, &dns.SRV{Hdr: header, Target: target, Port: uint16(address.Port)})
		case q.Qtype == dns.TypeA && q.Name == target:
			reply.Answer = append(reply.Answer, &dns.A{Hdr: header, A: address.IP})
		}
	}
	_ = w.WriteMsg(reply)
}
