// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/deltaring/deltaring/d2c"
)

const builder = "go.opentelemetry.io/collector/cmd/builder@v0.165.0"

// collectorBinary returns the path of the Collector under test: $OTELCOL_BINARY, or what the manifest builds.
var collectorBinary = sync.OnceValues(func() (string, error) {
	path := os.Getenv("OTELCOL_BINARY")
	if path == "" {
		path = filepath.Join("build", "otelcol-deltaring")
		cmd := exec.Command("go", "run", builder, "--config", "manifest.yaml")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as in the image
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("%v: %w\n%s", cmd, err, out)
		}
	}
	if _, err := os.Stat(path); err != nil {
		return "", err
	}
	return filepath.Abs(path)
})

// binary is collectorBinary for tests.
func binary(t *testing.T) string {
	t.Helper()
	path, err := collectorBinary()
	if err != nil {
		t.Fatalf("no Collector to test: %v", err)
	}
	return path
}

// collector is a running otelcol-deltaring.
type collector struct {
	*child
	grpcEndpoint string
	httpEndpoint string
	telemetryURL string
}

// startCollector runs a configuration on free ports, with further environment variables and arguments.
func startCollector(t *testing.T, config string, env []string, args ...string) *collector {
	t.Helper()
	c := &collector{}
	c.child = startOnFreePorts(t, 4, func(ports []int) (*child, error) {
		c.grpcEndpoint, c.httpEndpoint = loopback(ports[0]), loopback(ports[1])
		c.telemetryURL = fmt.Sprintf("http://%s/metrics", loopback(ports[2]))
		health := loopback(ports[3])
		env := append(env[:len(env):len(env)],
			"OTLP_GRPC_ENDPOINT="+c.grpcEndpoint,
			"OTLP_HTTP_ENDPOINT="+c.httpEndpoint,
			"TELEMETRY_HOST=127.0.0.1",
			fmt.Sprintf("TELEMETRY_PORT=%d", ports[2]),
			"HEALTH_ENDPOINT="+health)
		return start(t, "http://"+health, env, binary(t), append([]string{"--config", config}, args...)...)
	})
	return c
}

// client returns an OTLP client with a connection of its own.
func (c *collector) client(t *testing.T) pmetricotlp.GRPCClient {
	t.Helper()
	conn, err := grpc.NewClient(c.grpcEndpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return pmetricotlp.NewGRPCClient(conn)
}

// compareTelemetry compares what the Collector says about itself with what the ledger knows was sent.
func (c *collector) compareTelemetry(l *ledger) error {
	m, err := scrape(c.telemetryURL)
	if err != nil {
		return err
	}
	var errs []error
	expect := func(metric string, want float64, labels ...string) {
		if got := m.sum(metric, labels...); got != want {
			errs = append(errs, fmt.Errorf("%s%v is %v, want %v", metric, labels, got, want))
		}
	}
	var in, dropped uint64
	for o := range d2c.NumOutcomes {
		in += l.outcomes[o]
		if o.Dropped() {
			dropped += l.outcomes[o]
		}
		expect("otelcol_d2c_points", float64(l.outcomes[o]), fmt.Sprintf("outcome=%q", o))
	}
	expect("otelcol_d2c_streams", float64(l.streams))
	expect("otelcol_d2c_restarts", 0)
	expect("otelcol_d2c_gap_opened", l.gapOpened.Seconds())
	expect("otelcol_d2c_gap_filled", l.gapFilled.Seconds())

	expect("otelcol_receiver_accepted_metric_points", float64(in))
	expect("otelcol_receiver_refused_metric_points", 0)
	expect("otelcol_receiver_failed_metric_points", 0)
	// Counts what the backend took, so it also tells when the last request is through. What it has already does not go there again.
	twice := m.sum("otelcol_lanes_items", `outcome="duplicate"`)
	if again := l.outcomes[d2c.Repeat] + l.outcomes[d2c.Covered]; twice > float64(again) {
		errs = append(errs, fmt.Errorf("%v samples are duplicates, and %d points came again", twice, again))
	}
	expect("otelcol_exporter_sent_metric_points", float64(in-dropped)-twice)
	expect("otelcol_lanes_items", float64(in-dropped)-twice, `outcome="sent"`)
	expect("otelcol_lanes_items", float64(in-dropped))
	expect("otelcol_exporter_queue_size", 0)
	expect("otelcol_exporter_prometheusremotewrite_failed_translations", 0)
	return errors.Join(errs...)
}

// attempts returns how many remote writes the Collector has tried, whatever came of them.
func (c *collector) attempts(t *testing.T) float64 {
	t.Helper()
	m, err := scrape(c.telemetryURL)
	if err != nil {
		t.Fatal(err)
	}
	return m.sum("otelcol_exporter_prometheusremotewrite_sent_batches")
}
