// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"sigs.k8s.io/yaml"
)

// TestSparseCounters has the Go and the JavaScript SDK count, now and then not at all, in front of every configuration that is
// shipped, and asks a real Prometheus what it has become. Where a configuration exports OTLP, which not every Prometheus takes, it
// has the exporter of prometheus.yaml.
func TestSparseCounters(t *testing.T) {
	t.Parallel()
	javascript, err := nodeProducer()
	if err != nil {
		t.Logf("the JavaScript SDK cannot be run here: %v", err)
	}
	forEachPrometheus(t, func(t *testing.T, prom *prometheus) { testSparseCounters(t, prom, javascript) })
}

// testSparseCounters has the JavaScript SDK count too if its directory is given.
func testSparseCounters(t *testing.T, prom *prometheus, javascript string) {
	redis := startRedis(t)
	queued, direct := remoteWrite(t, true), remoteWrite(t, false)
	all := []*shipped{
		{name: "one-node", worker: "one-node.yaml", args: queued},
		{name: "prometheus", worker: "prometheus.yaml"},
		{name: "durable", worker: "durable.yaml", args: direct},
		{name: "two-tiers", worker: "worker.yaml", args: queued, workers: 2, gateway: []string{}},
		// As kubernetes/two-tier-durable has it.
		{name: "two-tiers-durable", worker: "durable.yaml", args: append(slices.Clone(direct),
			"--config", "yaml:processors::d2c::gap: restart_if_moved",
			"--config", "yaml:receivers::otlp::protocols::grpc::include_metadata: true"), workers: 2, gateway: []string{}},
		{name: "shared", worker: "shared.yaml", args: direct, workers: 2},
		{name: "two-tiers-shared", worker: "shared.yaml", args: direct, workers: 2, gateway: []string{"--config", "gateway-shared.yaml"}},
	}
	var wg sync.WaitGroup
	for _, s := range all {
		s.start(t, append(prom.environment(), redis.environment()...))
		wg.Go(func() {
			if s.worker == "shared.yaml" {
				// A new store counts from a second after its first worker has started.
				time.Sleep(1100 * time.Millisecond)
			}
			const seconds = 8
			var both sync.WaitGroup
			both.Go(func() { s.inGo = countInGo(t, s.front, s.name+"-go", seconds*time.Second) })
			if javascript != "" {
				both.Go(func() {
					var err error
					s.inNode, err = runNode(javascript, balance(t, s.front), strconv.Itoa(seconds), s.name+"-js", "500")
					if err != nil {
						t.Error(err)
					}
				})
			}
			both.Wait()
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	for _, s := range all {
		t.Run(s.name, func(t *testing.T) {
			prom.checkCounters(t, s.name+"-go", s.inGo, map[string]string{
				"busy": "busy_total", "sparse": "sparse_total", "rare": "rare_total", "took": "took_count", "size": "size",
			})
			if javascript != "" {
				prom.checkCounters(t, s.name+"-js", s.inNode, map[string]string{
					"hits": "hits_total", "sparse": "sparse_total", "rare": "rare_total", "took": "took_seconds_count",
				})
			}
			s.checkWorkers(t)
		})
	}
	prom.checkNothingRejected(t, newLedger())
}

// shipped is a configuration at work.
type shipped struct {
	name, worker string
	args         []string
	workers      int      // one if not set
	gateway      []string // further arguments of the gateway, nil if there is none

	names  map[string]*collector // of the workers
	front  []*collector          // what producers send to
	inGo   map[string]int        // what they have counted
	inNode map[string]int
}

func (s *shipped) start(t *testing.T, env []string) {
	t.Helper()
	s.names = map[string]*collector{}
	for i := range max(1, s.workers) {
		w := startCollector(t, s.worker, append(slices.Clone(env), "REDIS_PREFIX="+s.name, "STATE_DIRECTORY="+t.TempDir()), s.args...)
		s.names[fmt.Sprintf("worker-%d", i)] = w
		s.front = append(s.front, w)
	}
	if s.gateway == nil {
		return
	}
	names := newNameServer(t)
	names.set(s.names)
	gateway := startCollector(t, "gateway.yaml", []string{
		"WORKERS_SRV=" + workersService, "DNS_SERVER=" + names.address, "DNS_INTERVAL=100ms", "DNS_DEBOUNCE=0s"},
		// By the resource, as gateway.yaml has it, some workers would have nothing to do.
		append(s.gateway[:len(s.gateway):len(s.gateway)], "--config", "yaml:exporters::ring::routing_key: streamID")...)
	awaitTelemetry(t, gateway, float64(s.workers), "otelcol_ring_members")
	s.front = []*collector{gateway}
}

// checkWorkers reports points that were not added to the streams that were there, and workers that had nothing to do.
func (s *shipped) checkWorkers(t *testing.T) {
	t.Helper()
	quiet := 0.0
	for name, w := range s.names {
		m, err := scrape(w.telemetryURL)
		if err != nil {
			t.Fatal(err)
		}
		quiet += m.sum("otelcol_d2c_points", `outcome="gap"`)
		if m.sum("otelcol_d2c_points") == 0 {
			t.Errorf("%s has nothing to do", name)
		}
		for _, outcome := range []string{"dropped_", "covered", "restart_"} {
			if n := m.sum("otelcol_d2c_points", `outcome="`+outcome); n != 0 {
				t.Errorf("%s: %v points are %s", name, n, outcome)
			}
		}
		if n := m.sum("otelcol_d2c_restarts"); n != 0 {
			t.Errorf("%s: %v streams have begun anew", name, n)
		}
	}
	if quiet == 0 {
		t.Error("no quiet intervals: these producers are not what they are for")
	}
	t.Logf("%v deltas came after quiet intervals", quiet)
}

// remoteWrite returns arguments that have a Collector write to Prometheus as prometheus.yaml does, with the queues of its lanes or without.
func remoteWrite(t *testing.T, queue bool) []string {
	t.Helper()
	text, err := os.ReadFile("prometheus.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Connectors map[string]any `json:"connectors"`
		Exporters  map[string]any `json:"exporters"`
	}
	if err := yaml.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	names := slices.Collect(maps.Keys(config.Exporters))
	if len(names) != 1 {
		t.Fatalf("prometheus.yaml has the exporters %q", names)
	}
	merged := map[string]any{
		"exporters": config.Exporters,
		"service":   map[string]any{"pipelines": map[string]any{"metrics/lanes": map[string]any{"exporters": names}}},
	}
	if queue {
		merged["connectors"] = config.Connectors
	}
	text, err = yaml.Marshal(merged)
	file := filepath.Join(t.TempDir(), "remote-write.yaml")
	if err := errors.Join(err, os.WriteFile(file, text, 0o600)); err != nil {
		t.Fatal(err)
	}
	return []string{"--config", file}
}

// countInGo has the Go SDK count for a while and returns what it has counted. Its requests go to the Collectors by turns.
func countInGo(t *testing.T, to []*collector, service string, during time.Duration) map[string]int {
	addresses := manual.NewBuilderWithScheme("front")
	var state resolver.State
	for _, c := range to {
		state.Addresses = append(state.Addresses, resolver.Address{Addr: c.grpcEndpoint})
	}
	addresses.InitialState(state)
	conn, err := grpc.NewClient("front:///", grpc.WithResolvers(addresses), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`))
	if err != nil {
		t.Error(err)
		return nil
	}
	defer conn.Close()
	exporter, err := otlpmetricgrpc.New(t.Context(), otlpmetricgrpc.WithGRPCConn(conn),
		otlpmetricgrpc.WithTemporalitySelector(func(metric.InstrumentKind) metricdata.Temporality { return metricdata.DeltaTemporality }))
	if err != nil {
		t.Error(err)
		return nil
	}
	provider := metric.NewMeterProvider(
		metric.WithResource(resource.NewSchemaless(attribute.String("service.name", service))),
		metric.WithReader(metric.NewPeriodicReader(exporter, metric.WithInterval(250*time.Millisecond))),
		metric.WithView(metric.NewView(metric.Instrument{Name: "size"},
			metric.Stream{Aggregation: metric.AggregationBase2ExponentialHistogram{MaxSize: 20, MaxScale: 8}})))
	meter := provider.Meter("shop")
	counted := map[string]int{}
	count := func(name string, n int) {
		counter, err := meter.Int64Counter(name)
		if err != nil {
			t.Error(err)
		}
		counter.Add(t.Context(), int64(n))
		counted[name] += n
	}
	record := func(name string, v float64) {
		histogram, err := meter.Float64Histogram(name)
		if err != nil {
			t.Error(err)
		}
		histogram.Record(t.Context(), v)
		counted[name]++
	}
	count("rare", 7)
	for i, end := 0, time.Now().Add(during); time.Now().Before(end); i++ {
		count("busy", 1+i%3)
		if i%25 == 3 { // every 1.25 s
			count("sparse", 5)
			record("took", float64(i))
		}
		if i%40 == 5 {
			record("size", float64(1+i)*1000)
		}
		time.Sleep(50 * time.Millisecond)
	}
	count("rare", 2)
	// Shutdown gives up what is on its way.
	if err := errors.Join(provider.ForceFlush(t.Context()), provider.Shutdown(t.Context())); err != nil {
		t.Error(err)
	}
	return counted
}

// balance returns the address to which HTTP requests are to be sent so that Collectors get them by turns.
func balance(t *testing.T, to []*collector) string {
	if len(to) == 1 {
		return to[0].httpEndpoint
	}
	var turn atomic.Int64
	proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: to[int(turn.Add(1))%len(to)].httpEndpoint})
	}})
	t.Cleanup(proxy.Close)
	return strings.TrimPrefix(proxy.URL, "http://")
}

// checkCounters waits until Prometheus has what a producer has counted, and compares all samples and increase() with that.
func (p *prometheus) checkCounters(t *testing.T, job string, counted map[string]int, names map[string]string) {
	t.Helper()
	if len(counted) != len(names) {
		t.Errorf("%s has counted %v", job, counted)
	}
	samples, total, increased := 0, 0, 0.0
	for instrument, want := range counted {
		name := names[instrument]
		selector := fmt.Sprintf("%s{job=%q}", name, job)
		var got []sample
		if err := poll(func() error {
			all, err := p.query(selector+"[10m]", time.Now())
			if err != nil {
				return err
			}
			if len(all) != 1 {
				return fmt.Errorf("%s has %d series", selector, len(all))
			}
			for _, got = range all {
			}
			if is := got[len(got)-1].value; is != float64(want) {
				return fmt.Errorf("%s is %v, %d were counted", selector, is, want)
			}
			return nil
		}); err != nil {
			t.Error(err)
			continue
		}
		for i := 1; i < len(got); i++ {
			if got[i].value < got[i-1].value {
				t.Errorf("%s falls from %v to %v", selector, got[i-1].value, got[i].value)
			}
		}
		samples += len(got)
		total += want
		first, last := got[0], got[len(got)-1]
		if len(got) < 2 {
			t.Errorf("%s has one sample", selector)
			continue
		}
		// Over the time from the first sample to the last nothing is extrapolated, but for a millisecond. increase() cannot
		// know what the first sample has grown from.
		over := fmt.Sprintf("(%s[%dms])", selector, last.ms-first.ms+1)
		one := func(promql string) float64 {
			all, err := p.query(promql, time.UnixMilli(last.ms))
			if err != nil || len(all) != 1 {
				t.Errorf("%s is %v, %v", promql, all, err)
			}
			for _, values := range all {
				return values[0].value
			}
			return math.NaN()
		}
		increase := one("increase" + over)
		if math.Abs(increase+first.value-float64(want)) > 0.001*float64(want) {
			t.Errorf("increase%s is %v after the first sample of %v, and %d were counted", over, increase, first.value, want)
		}
		increased += increase + first.value
		if first.native == nil { // of these it can be asked in later releases
			if resets := one("resets" + over); resets != 0 {
				t.Errorf("resets%s is %v", over, resets)
			}
		}
	}
	t.Logf("%s: %d counters have counted %d; first samples and increase() are %.2f, of %d samples", job, len(counted), total, increased, samples)
}
