// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// prometheus is a running Prometheus that accepts remote writes, and OTLP if its release does, and, with its out-of-order window at
// the default of 0, only in order.
type prometheus struct {
	*child
	promQL
	port   int
	binary string
	dir    string
	flags  []string
}

// startPrometheus starts a release with further flags.
func startPrometheus(t *testing.T, r release, flags ...string) *prometheus {
	t.Helper()
	return startConfiguredPrometheus(t, r, "", flags...)
}

// startConfiguredPrometheus starts a release with a configuration.
func startConfiguredPrometheus(t *testing.T, r release, config string, flags ...string) *prometheus {
	t.Helper()
	binary, err := r.binary()
	if err != nil {
		t.Fatal(err)
	}
	p := &prometheus{binary: binary, dir: t.TempDir(), flags: slices.Concat(r.flags, flags)}
	if err := os.WriteFile(filepath.Join(p.dir, "prometheus.yml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	p.child = startOnFreePorts(t, 1, func(ports []int) (*child, error) {
		p.port = ports[0]
		p.url = "http://" + loopback(p.port)
		return p.launch(t)
	})
	return p
}

func (p *prometheus) launch(t *testing.T) (*child, error) {
	return start(t, p.url+"/-/ready", nil, p.binary, append([]string{
		"--config.file=" + filepath.Join(p.dir, "prometheus.yml"),
		"--storage.tsdb.path=" + filepath.Join(p.dir, "data"),
		"--web.listen-address=" + loopback(p.port),
		"--web.enable-remote-write-receiver",
	}, p.flags...)...)
}

// restart starts a stopped Prometheus again with the same data and address.
func (p *prometheus) restart(t *testing.T) {
	t.Helper()
	c, err := p.launch(t)
	if err != nil {
		t.Fatal(err)
	}
	p.child = c
}

// promQL is a server that answers PromQL and takes remote writes.
type promQL struct{ url string }

// environment is what prometheus.yaml needs to write here.
func (p *promQL) environment() []string {
	return []string{"REMOTE_WRITE_URL=" + p.url + "/api/v1/write"}
}

// query evaluates PromQL at a time. Keys of the result are series as seriesKey writes them.
func (p *promQL) query(promql string, at time.Time) (map[string][]sample, error) {
	body, err := get(p.url + "/api/v1/query?" + url.Values{
		"query": {promql},
		"time":  {strconv.FormatFloat(float64(at.UnixMilli())/1000, 'f', 3, 64)},
	}.Encode())
	if err != nil {
		return nil, err
	}
	var reply struct {
		Data struct {
			Result []struct {
				Metric     map[string]string
				Value      *floatPair // of an instant, as Histogram
				Histogram  *histogramPair
				Values     []floatPair // of a range, as Histograms
				Histograms []histogramPair
			}
		}
	}
	if err := json.Unmarshal(body, &reply); err != nil {
		return nil, fmt.Errorf("%s: %w", promql, err)
	}
	result := map[string][]sample{}
	for _, r := range reply.Data.Result {
		name := r.Metric["__name__"]
		delete(r.Metric, "__name__")
		key := seriesKey(name, r.Metric)
		if r.Value != nil {
			r.Values = append(r.Values, *r.Value)
		}
		if r.Histogram != nil {
			r.Histograms = append(r.Histograms, *r.Histogram)
		}
		for _, v := range r.Values {
			result[key] = append(result[key], sample(v))
		}
		for _, h := range r.Histograms {
			result[key] = append(result[key], sample(h))
		}
	}
	return result, nil
}

// floatPair and histogramPair are samples as the query API writes them: [unix seconds, "value"] and
// [unix seconds, {"count": "…", "sum": "…", "buckets": [[rule, "lower", "upper", "count"], …]}].
type (
	floatPair     sample
	histogramPair sample
)

func (p *floatPair) UnmarshalJSON(data []byte) error {
	var pair [2]number
	err := json.Unmarshal(data, &pair)
	p.ms, p.value = pair[0].milli(), float64(pair[1])
	return err
}

func (p *histogramPair) UnmarshalJSON(data []byte) error {
	var pair [2]json.RawMessage
	var seconds number
	var h struct {
		Count, Sum number
		Buckets    [][4]number
	}
	if err := errors.Join(json.Unmarshal(data, &pair), json.Unmarshal(pair[0], &seconds), json.Unmarshal(pair[1], &h)); err != nil {
		return err
	}
	p.ms, p.value = seconds.milli(), float64(h.Count)
	p.native = &native{sum: float64(h.Sum)}
	for _, b := range h.Buckets {
		p.native.buckets = append(p.native.buckets, bucket{float64(b[1]), float64(b[2]), float64(b[3])})
	}
	return nil
}

// number is a float64 that may be in quotes, as values in the query API are.
type number float64

func (n *number) UnmarshalJSON(data []byte) error {
	f, err := strconv.ParseFloat(strings.Trim(string(data), `"`), 64)
	*n = number(f)
	return err
}

func (n number) milli() int64 { return int64(math.Round(float64(n) * 1000)) }

// checkNothingRejected looks at every place where Prometheus counts a sample it did not take.
func (p *prometheus) checkNothingRejected(t *testing.T, l *ledger) {
	t.Helper()
	m, err := scrape(p.url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	count := func(name string) float64 {
		if !m.has(name) {
			t.Errorf("this Prometheus does not report %s", name)
		}
		return m.sum(name)
	}
	for _, name := range []string{
		"prometheus_tsdb_out_of_bound_samples_total",
		"prometheus_tsdb_too_old_samples_total",
		"prometheus_target_scrapes_sample_duplicate_timestamp_total",
		"prometheus_target_scrapes_sample_out_of_order_total",
	} {
		if n := count(name); n != 0 {
			t.Errorf("%s is %v, want 0", name, n)
		}
	}
	// A sample that is exactly the latest of its series is not an error and not stored again. Prometheus is silent about
	// it if it is a float and counts it as out of order if it is a native histogram.
	// See https://github.com/prometheus/prometheus/pull/19297.
	if n := count("prometheus_tsdb_out_of_order_samples_total"); n != 0 && n != float64(l.repeatedNative) {
		t.Errorf("prometheus_tsdb_out_of_order_samples_total is %v, want 0, or %d for the native histograms sent again", n, l.repeatedNative)
	}
	const requests = "prometheus_http_requests_total"
	// A Prometheus that is still starting answers 503, and the exporter asks again: that is no rejection.
	var accepted, starting, all float64
	for _, handler := range []string{`handler="/api/v1/write"`, `handler="/api/v1/otlp/v1/metrics"`} {
		accepted += m.sum(requests, handler, `code="2`)
		starting += m.sum(requests, handler, `code="503"`)
		all += m.sum(requests, handler)
	}
	if accepted == 0 || accepted+starting != all {
		t.Errorf("Prometheus accepted %v of %v requests, and was starting at %v", accepted, all, starting)
	}
	for line := range strings.Lines(p.log.String()) {
		if strings.Contains(line, "remote write") && strings.Contains(strings.ToLower(line), "level=error") {
			t.Errorf("Prometheus: %s", line)
		}
	}
}
