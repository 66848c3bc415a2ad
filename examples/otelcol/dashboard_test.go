// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"math"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
)

// TestDashboardShowsARun runs two tiers, a durable node and two Collectors in trouble, has a Prometheus scrape them, and lets happen to
// them what the dashboard is there to show. Every query of every panel must have shown something by then.
func TestDashboardShowsARun(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	backend := httptest.NewServer(newWitness("")) // takes everything; what it makes of that is of no matter here
	t.Cleanup(backend.Close)
	env := append(redis.environment(), "OTLP_BACKEND="+backend.URL)
	workers := map[string]*collector{}
	for name, onError := range map[string]string{"worker-0": "reject", "worker-1": "local"} {
		workers[name] = startCollector(t, "shared.yaml", env, "--config", "yaml:extensions::redis_state::timeout: 500ms",
			"--config", "yaml:processors::d2c: {warn_duplicates: resource, max_stale: 4s, state: {on_error: "+onError+"}}")
	}
	gatewayBefore := func(s *nameServer, args ...string) *collector {
		return startCollector(t, "gateway.yaml", []string{
			"WORKERS_SRV=" + workersService, "DNS_SERVER=" + s.address, "DNS_INTERVAL=100ms", "DNS_DEBOUNCE=0s"}, args...)
	}
	names, nowhere := newNameServer(t), newNameServer(t)
	names.set(workers)
	gateway := gatewayBefore(names, "--config", "gateway-shared.yaml")
	durable := startCollector(t, "durable.yaml", append(env, "STATE_DIRECTORY="+t.TempDir()), "--config", "yaml:processors::d2c::gap: restart")
	// One has no workers, one has a queue of one request before a backend that is away, and one has no memory.
	lost := gatewayBefore(nowhere)
	full := startCollector(t, "one-node.yaml", env, "--config",
		"yaml:exporters::otlp_http: {endpoint: 'http://127.0.0.1:1', sending_queue: {enabled: true, queue_size: 1, num_consumers: 1}, retry_on_failure: {enabled: true}}")
	poor := startCollector(t, "one-node.yaml", env,
		"--config", "yaml:processors::memory_limiter: {check_interval: 100ms, limit_mib: 1, limit_percentage: 0, spike_limit_percentage: 0}")
	awaitTelemetry(t, gateway, 2, "otelcol_ring_members")

	prom := startScraping(t, map[string][]*collector{
		"gateways": {gateway, lost}, "workers": slices.Collect(maps.Values(workers)), "nodes": {durable, full, poor},
	})
	began := time.Now()
	stop := startOddities(t, gateway, durable, full, lost, poor)
	prom.await(t, "rate(otelcol_ring_unroutable[5s]) > 0")
	prom.await(t, `sum(rate(otelcol_receiver_accepted_metric_points{job="workers"}[5s])) > 0`)

	prom.await(t, "rate(otelcol_exporter_enqueue_failed_metric_points[5s]) > 0")

	redis.kill()
	prom.await(t, "rate(otelcol_redis_state_errors[5s]) > 0")
	prom.await(t, "rate(otelcol_d2c_points_refused[5s]) > 0")
	prom.await(t, "otelcol_d2c_points_outstanding > 0")
	redis.restart(t)
	prom.await(t, "sum(otelcol_d2c_points_outstanding) == 0")

	names.set(map[string]*collector{"worker-0": workers["worker-0"]})
	prom.await(t, "otelcol_ring_members == 1")
	names.set(workers)
	prom.await(t, "increase(otelcol_ring_moved[5s]) > 0")
	prom.await(t, "rate(otelcol_d2c_streams_expired[5s]) > 0")
	redis.damage(t)
	prom.await(t, "count_over_time(otelcol_redis_state_aside[10s]) > 4") // and what was before is over
	stop()
	checkPanels(t, prom, began)
}

// scraping is a Prometheus that scrapes Collectors.
type scraping struct{ *prometheus }

func startScraping(t *testing.T, jobs map[string][]*collector) scraping {
	t.Helper()
	var config strings.Builder
	config.WriteString("global: {scrape_interval: 500ms, scrape_timeout: 500ms}\nscrape_configs:\n")
	for job, collectors := range jobs {
		fmt.Fprintf(&config, "  - job_name: %s\n    static_configs:\n", job)
		for _, c := range collectors {
			fmt.Fprintf(&config, "      - {targets: [%q]}\n", strings.TrimSuffix(strings.TrimPrefix(c.telemetryURL, "http://"), "/metrics"))
		}
	}
	return scraping{startConfiguredPrometheus(t, newestPrometheus, config.String())}
}

// await waits until an expression has a value.
func (s scraping) await(t *testing.T, expr string) {
	t.Helper()
	if err := poll(func() error {
		got, err := s.query(expr, time.Now())
		if err == nil && len(got) == 0 {
			err = fmt.Errorf("nothing for %s", expr)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

const oddInterval = 200 * time.Millisecond

// startOddities has a producer send what is not as it should be, over and over, until it is stopped. Whether it is acknowledged does
// not matter.
func startOddities(t *testing.T, to ...*collector) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	var clients []pmetricotlp.GRPCClient
	for _, c := range to {
		clients = append(clients, c.client(t))
	}
	began := time.Now()
	go func() {
		defer close(done)
		tick := time.NewTicker(oddInterval)
		defer tick.Stop()
		for n := 0; ; n++ {
			for _, client := range clients {
				call, end := context.WithTimeout(ctx, time.Second)
				_, _ = client.Export(call, odd(n, began, time.Now()))
				end()
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// odd is a request of deltas that are late, that repeat with other contents, that leave gaps, that another stream cannot be told from,
// and that do not say that they are deltas. Of several resources, so that each worker gets some.
func odd(n int, began, now time.Time) pmetricotlp.ExportRequest {
	md := pmetric.NewMetrics()
	for i := range 8 {
		resource := md.ResourceMetrics().AppendEmpty()
		resource.Resource().Attributes().PutStr("service.name", fmt.Sprintf("odd-%d", i))
		oddMetrics(resource.ScopeMetrics().AppendEmpty().Metrics(), n, began, now)
	}
	return pmetricotlp.NewExportRequestFromMetrics(md)
}

func oddMetrics(metrics pmetric.MetricSlice, n int, began, now time.Time) {
	add := func(name string, temporality pmetric.AggregationTemporality, start, end time.Time, value int64) pcommon.Map {
		m := metrics.AppendEmpty()
		m.SetName(name)
		sum := m.SetEmptySum()
		sum.SetIsMonotonic(true)
		sum.SetAggregationTemporality(temporality)
		p := sum.DataPoints().AppendEmpty()
		p.SetIntValue(value)
		p.SetStartTimestamp(pcommon.NewTimestampFromTime(start))
		p.SetTimestamp(pcommon.NewTimestampFromTime(end))
		return p.Attributes()
	}
	const delta = pmetric.AggregationTemporalityDelta
	moment := now.Add(-time.Millisecond)
	add("gaps", delta, moment, now, 1)
	add("gaps", delta, now.Add(-time.Hour), now.Add(-time.Hour+time.Second), 1) // late
	// The second of two intervals comes before the first. They are shorter than the time between requests, so none is ahead of time.
	start := began.Add(time.Duration(n^1) * oddInterval / 2)
	add("filled", delta, start, start.Add(oddInterval/2), 1)
	add("covered", delta, moment, now, 1)
	add("covered", delta, moment, now, 2)
	add("unspecified", pmetric.AggregationTemporalityUnspecified, moment, now, 1)
	once := fmt.Sprintf("once.%d", n)
	add(once, delta, moment, now, 1).PutStr("code", "200")
	add(once, delta, moment, now, 1).PutInt("code", 200)
}

// damage spoils all records.
func (r *redis) damage(t *testing.T) {
	t.Helper()
	conn, err := tls.Dial("tcp", r.addr, &tls.Config{InsecureSkipVerify: true}) // as launch does
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const script = `local n = 0
		for _, key in ipairs(redis.call('KEYS', '*:3n')) do
			local all = redis.call('HGETALL', key)
			for i = 1, #all, 2 do
				if all[i] ~= 'about' then redis.call('HSET', key, all[i], string.rep('x', #all[i+1])) n = n + 1 end
			end
		end
		return n`
	if _, err := fmt.Fprintf(conn, "AUTH %s\r\nEVAL %q 0\r\nQUIT\r\n", redisPassword, strings.Join(strings.Fields(script), " ")); err != nil {
		t.Fatal(err)
	}
	var answer strings.Builder
	buffer := make([]byte, 256)
	for {
		n, err := conn.Read(buffer)
		answer.Write(buffer[:n])
		if err != nil {
			break
		}
	}
	if !strings.Contains(answer.String(), "\r\n:") || strings.Contains(answer.String(), ":0\r\n") {
		t.Fatalf("nothing is damaged: %q", answer.String())
	}
}

// checkPanels asks what each query of the dashboard has shown since then.
func checkPanels(t *testing.T, prom scraping, since time.Time) {
	t.Helper()
	var dashboard struct{ Panels []panel }
	readYAML(t, "monitoring/dashboard.json", &dashboard)
	now, panels := time.Now(), 0
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			panels++
			expr := strings.NewReplacer("$__rate_interval", "5s", "$job", ".*", "$instance", ".*").Replace(target.Expr)
			shown, err := prom.query(fmt.Sprintf("max_over_time((%s)[%ds:500ms])", expr, int(now.Sub(since).Seconds())+1), now)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, s := range shown {
				if len(s) > 0 && !math.IsNaN(s[0].value) { // a quantile of nothing
					n++
				}
			}
			if n == 0 {
				t.Errorf("%s: nothing is shown of %s", p.Title, target.Expr)
			}
		}
	}
	if panels == 0 {
		t.Error("no panels")
	}
}
