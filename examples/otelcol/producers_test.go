// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// The tests of this file have real producers of deltas count something, and compare what a backend gets with what was counted.

// producersBinary builds a Collector with components that make deltas.
var producersBinary = sync.OnceValues(func() (string, error) {
	if err := os.MkdirAll("build", 0o755); err != nil {
		return "", err
	}
	manifest := filepath.Join("testdata", "producers", "manifest.yaml")
	cmd := exec.Command("go", "run", builder, "--config", manifest)
	if out, err := cmd.CombinedOutput(); err != nil {
		err = fmt.Errorf("%v: %w\n%s", cmd, err, out)
		for _, why := range []string{"not available", "no such host", "i/o timeout", "connection refused", "module lookup disabled"} {
			if strings.Contains(string(out), why) {
				return "", notToBeHad{err}
			}
		}
		return "", err
	}
	return filepath.Abs(filepath.Join("build", "producers", "otelcol-producers"))
})

// notToBeHad is the error of something that a test needs from elsewhere, and that is not there.
type notToBeHad struct{ error }

// producersCollector is a running otelcol-producers.
type producersCollector struct {
	*child
	grpc, http, statsd string
	telemetryURL       string
}

// startProducers runs a configuration of testdata/producers. What its Collector gives out goes to backend.
func startProducers(t *testing.T, config, backend string, env ...string) *producersCollector {
	t.Helper()
	path, err := producersBinary()
	if _, ok := err.(notToBeHad); ok {
		t.Skipf("a Collector with the components that make deltas cannot be built here: %v", err)
	}
	if err != nil {
		t.Fatalf("no Collector to test: %v", err)
	}
	c := &producersCollector{}
	c.child = startOnFreePorts(t, 5, func(ports []int) (*child, error) {
		c.grpc, c.http, c.statsd = loopback(ports[0]), loopback(ports[1]), loopback(ports[4])
		c.telemetryURL = fmt.Sprintf("http://%s/metrics", loopback(ports[2]))
		health := loopback(ports[3])
		return start(t, "http://"+health, append(env[:len(env):len(env)],
			"OTLP_BACKEND="+backend,
			"OTLP_GRPC_ENDPOINT="+c.grpc,
			"OTLP_HTTP_ENDPOINT="+c.http,
			"STATSD_ENDPOINT="+c.statsd,
			fmt.Sprintf("TELEMETRY_PORT=%d", ports[2]),
			"HEALTH_ENDPOINT="+health,
		), path, "--config", filepath.Join("testdata", "producers", config))
	})
	return c
}

// startWorker runs d2c with a configuration, given as YAML in one line, in front of a tally.
func startWorker(t *testing.T, d2c string) (*producersCollector, *tally) {
	t.Helper()
	y := newTally()
	server := httptest.NewServer(y)
	t.Cleanup(server.Close)
	return startProducers(t, "worker.yaml", server.URL, "D2C="+d2c), y
}

// checkOutcomes reports points that were not added.
func (c *producersCollector) checkOutcomes(t *testing.T) {
	t.Helper()
	checkOutcomes(t, c.telemetryURL)
}

func checkOutcomes(t *testing.T, telemetryURL string) {
	t.Helper()
	m, err := scrape(telemetryURL)
	if err != nil {
		t.Fatal(err)
	}
	if !m.has("otelcol_d2c_points") {
		t.Error("no points have been counted")
	}
	for _, outcome := range []string{"dropped_", "covered", "repeat", "restart_"} {
		if n := m.sum("otelcol_d2c_points", `outcome="`+outcome); n != 0 {
			t.Errorf("%v points are %s", n, outcome)
		}
	}
}

// checkOneLife reports metrics of more than one series, or whose value has fallen.
func checkOneLife(t *testing.T, y *tally, metrics ...string) {
	t.Helper()
	for _, metric := range metrics {
		if v := y.of(metric); v.series != 1 || v.resets != 0 {
			t.Errorf("%s has %d series with %d starts and %d resets", metric, v.series, v.starts, v.resets)
		}
	}
}

// TestCountConnector has the count connector count log records and spans: the interval of a count is that of the times in a batch.
func TestCountConnector(t *testing.T) {
	for _, tc := range []struct{ name, d2c string }{
		{"times", "{writers: many}"},
		{"whole seconds", "{writers: many, identical: add}"},
		{"no times", "{writers: many, identical: add}"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			coll, y := startWorker(t, tc.d2c)
			conn, err := grpc.NewClient(coll.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })

			// Times are of the last seconds, and batches overlap.
			begin := time.Now().Add(-10 * time.Second)
			random := rand.New(rand.NewPCG(uint64(len(tc.name)), 0))
			at := func(share float64) pcommon.Timestamp {
				when := begin.Add(time.Duration((8*share + 2*random.Float64()) * float64(time.Second)))
				switch tc.name {
				case "whole seconds":
					when = when.Truncate(time.Second)
				case "no times":
					return 0
				}
				return pcommon.NewTimestampFromTime(when)
			}
			const logBatches, records, spanBatches, spans, events = 30, 3, 60, 10, 2
			for i := range logBatches {
				ld := plog.NewLogs()
				rl := ld.ResourceLogs().AppendEmpty()
				rl.Resource().Attributes().PutStr("service.name", "shop")
				lr := rl.ScopeLogs().AppendEmpty().LogRecords()
				for range records {
					lr.AppendEmpty().SetTimestamp(at(float64(i) / logBatches))
				}
				if _, err := plogotlp.NewGRPCClient(conn).Export(t.Context(), plogotlp.NewExportRequestFromLogs(ld)); err != nil {
					t.Fatal(err)
				}
			}
			for i := range spanBatches {
				td := ptrace.NewTraces()
				rs := td.ResourceSpans().AppendEmpty()
				rs.Resource().Attributes().PutStr("service.name", "shop")
				ss := rs.ScopeSpans().AppendEmpty().Spans()
				for k := range spans {
					span := ss.AppendEmpty()
					span.SetName("GET")
					span.SetTraceID([16]byte{1, byte(i)})
					span.SetSpanID([8]byte{1, byte(k)})
					share := float64(i) / spanBatches
					span.SetStartTimestamp(at(share))
					span.SetEndTimestamp(max(span.StartTimestamp(), at(share)))
					if k < events {
						span.Events().AppendEmpty().SetTimestamp(span.EndTimestamp())
					}
				}
				if _, err := ptraceotlp.NewGRPCClient(conn).Export(t.Context(), ptraceotlp.NewExportRequestFromTraces(td)); err != nil {
					t.Fatal(err)
				}
			}
			y.await(t, map[string]int{
				"log.record.count": logBatches * records, "trace.span.count": spanBatches * spans,
				"trace.span.event.count": spanBatches * events,
			})
			checkOneLife(t, y, "log.record.count", "trace.span.count", "trace.span.event.count")
			coll.checkOutcomes(t)
		})
	}
}

// TestStatsd has two Collectors with a statsd receiver, which tell nothing of who they are, hand their deltas to one worker. The
// intervals of one lie within those of the other.
func TestStatsd(t *testing.T) {
	t.Parallel()
	worker, y := startWorker(t, "{writers: many}")
	var conns [2]net.Conn
	for i, interval := range []string{"1500ms", "300ms"} {
		edge := startProducers(t, "statsd.yaml", "http://"+worker.http, "STATSD_INTERVAL="+interval)
		conn, err := net.Dial("tcp", edge.statsd)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns[i] = conn
	}
	sent := map[string]int{}
	for i := range 60 {
		for _, conn := range conns {
			text := "cart.add:1|c\n"
			sent["cart.add"]++
			if i%20 < 3 { // and now and then only
				text += "cart.pay:2|c\n"
				sent["cart.pay"] += 2
			}
			text += fmt.Sprintf("cart.took:%d|ms\n", 1+i%50)
			sent["cart.took"]++
			if _, err := conn.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(70 * time.Millisecond)
	}
	y.await(t, sent)
	checkOneLife(t, y, "cart.add", "cart.pay", "cart.took")
	worker.checkOutcomes(t)
}

// TestGoSDK has the Go SDK send deltas: it sends no point for an interval without measurements.
func TestGoSDK(t *testing.T) {
	t.Parallel()
	worker, y := startWorker(t, "{}")
	exporter, err := otlpmetricgrpc.New(t.Context(), otlpmetricgrpc.WithEndpoint(worker.grpc), otlpmetricgrpc.WithInsecure(),
		otlpmetricgrpc.WithTemporalitySelector(func(metric.InstrumentKind) metricdata.Temporality { return metricdata.DeltaTemporality }))
	if err != nil {
		t.Fatal(err)
	}
	provider := metric.NewMeterProvider(
		metric.WithReader(metric.NewPeriodicReader(exporter, metric.WithInterval(100*time.Millisecond))),
		metric.WithView(metric.NewView(metric.Instrument{Name: "size"},
			metric.Stream{Aggregation: metric.AggregationBase2ExponentialHistogram{MaxSize: 20, MaxScale: 8}})))
	meter := provider.Meter("shop")
	counted := map[string]int{}
	count := func(name string, n int) {
		counter, err := meter.Int64Counter(name)
		if err != nil {
			t.Fatal(err)
		}
		counter.Add(t.Context(), int64(n))
		counted[name] += n
	}
	record := func(name string, v float64) {
		histogram, err := meter.Float64Histogram(name)
		if err != nil {
			t.Fatal(err)
		}
		histogram.Record(t.Context(), v)
		counted[name]++
	}
	count("rare", 7)
	for i := range 100 {
		count("busy", 1+i%3)
		if i%25 == 3 {
			count("sparse", 5)
			record("took", float64(i))
		}
		if i%40 == 5 {
			record("size", float64(1+i)*1000)
		}
		time.Sleep(25 * time.Millisecond)
	}
	count("rare", 2)
	// Shutdown gives up what is on its way.
	if err := errors.Join(provider.ForceFlush(t.Context()), provider.Shutdown(t.Context())); err != nil {
		t.Fatal(err)
	}
	y.await(t, counted)
	for metric := range counted {
		checkOneLife(t, y, metric)
		if v := y.of(metric); v.starts != 1 {
			t.Errorf("%s has %d starts", metric, v.starts)
		}
	}
	worker.checkOutcomes(t)
	if m, err := scrape(worker.telemetryURL); err != nil || m.sum("otelcol_d2c_points", `outcome="gap"`) == 0 {
		t.Errorf("no quiet intervals, %v: these producers are not what they are for", err)
	}
}

// nodeProducer is the directory of the program for the JavaScript SDK.
var nodeProducer = sync.OnceValues(func() (string, error) {
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "", err
		}
	}
	directory := filepath.Join("build", "js")
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return "", err
	}
	for _, file := range []string{"package.json", "package-lock.json", "producer.mjs"} {
		text, err := os.ReadFile(filepath.Join("testdata", "producers", "js", file))
		if err == nil {
			err = os.WriteFile(filepath.Join(directory, file), text, 0o644)
		}
		if err != nil {
			return "", err
		}
	}
	install := exec.Command("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
	install.Dir = directory
	if out, err := install.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%v: %w\n%s", install, err, out)
	}
	return directory, nil
})

// runNode has the JavaScript SDK count, and returns what it has counted.
func runNode(directory string, args ...string) (counted map[string]int, err error) {
	cmd := exec.Command("node", append([]string{"producer.mjs"}, args...)...)
	cmd.Dir = directory
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &counted)
	}
	if err != nil {
		return nil, fmt.Errorf("%v: %w\n%s", cmd, err, out)
	}
	return counted, nil
}

// TestNodeSDK has four processes of the JavaScript SDK count with one identity, as those that are forked from one do.
func TestNodeSDK(t *testing.T) {
	t.Parallel()
	directory, err := nodeProducer()
	if err != nil {
		t.Skipf("the JavaScript SDK cannot be run here: %v", err)
	}
	worker, y := startWorker(t, "{writers: many}")
	var mu sync.Mutex
	var wg sync.WaitGroup
	counted := map[string]int{}
	for range 4 {
		wg.Go(func() {
			counts, err := runNode(directory, worker.http, "4")
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for name, n := range counts {
				counted[name] += n
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	y.await(t, counted)
	checkOneLife(t, y, "hits", "sparse", "rare", "took")
	worker.checkOutcomes(t)
}
