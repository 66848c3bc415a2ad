// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/deltaring/deltaring/internal/ports"
)

// repository is where the Makefile and the tools are that it builds.
const repository = "../.."

// backend is a database that takes metrics.
type backend struct {
	name, title string
	tool        string // variable of the Makefile that names the binary; empty for Debian's
	version     string // flag
	config      string // what its file of configuration has
	// arguments are those of its process, with its out-of-order window at the default, 0, where it has one.
	arguments     func(dir, address string) []string
	ready         string // path that answers when it is
	write, otlp   string // paths of remote write and of OTLP
	flush         string // path that makes all visible that has been taken, if that takes a while otherwise
	native        bool   // keeps exponential histograms as they are; else it makes series of their buckets
	unseen        func(from, to int64) int64
	counted       []string // metrics of what it has not taken
	countsRepeats bool     // counts the same sample of a native histogram as out of order when it comes twice, and loses nothing
}

func prometheusArguments(further ...string) func(dir, address string) []string {
	return func(dir, address string) []string {
		return append([]string{
			"--config.file=" + filepath.Join(dir, "backend.yml"),
			"--storage.tsdb.path=" + filepath.Join(dir, "backend"),
			"--web.listen-address=" + address,
			"--web.enable-remote-write-receiver",
		}, further...)
	}
}

// unseenFall is what increase() does not see of a series that begins anew: it has not fallen if it is not below where it was.
func unseenFall(from, to int64) int64 {
	if to >= from {
		return from
	}
	return 0
}

// unseenPartly is that of VictoriaMetrics, which takes a fall by less than an eighth for one that began anew at where it was.
func unseenPartly(from, to int64) int64 {
	if to < from && (from-to)*8 < from {
		return to
	}
	return unseenFall(from, to)
}

var (
	// Its OTLP receiver is none that anybody should use.
	prometheus2 = backend{name: "prometheus-2", title: "Prometheus 2", version: "--version", arguments: prometheusArguments("--enable-feature=native-histograms"),
		ready: "/-/ready", write: "/api/v1/write", native: true, unseen: unseenFall, counted: unacceptable, countsRepeats: true}
	prometheus3 = backend{name: "prometheus-3", title: "Prometheus 3", tool: "PROMETHEUS", arguments: prometheusArguments("--web.enable-otlp-receiver"),
		ready: "/-/ready", write: "/api/v1/write", otlp: "/api/v1/otlp", native: true, unseen: unseenFall, counted: unacceptable, countsRepeats: true}
	victoriaMetrics = backend{name: "victoriametrics", title: "VictoriaMetrics", tool: "VICTORIAMETRICS",
		arguments: func(dir, address string) []string {
			return []string{
				"-httpListenAddr=" + address,
				"-storageDataPath=" + filepath.Join(dir, "backend"),
				"-search.latencyOffset=0s", // the latest samples are not left out
				"-opentelemetry.usePrometheusNaming",
			}
		},
		ready: "/health", write: "/api/v1/write", otlp: "/opentelemetry", flush: "/internal/force_flush",
		unseen: unseenPartly, counted: []string{"vm_rows_ignored_total", "vm_rows_invalid_total"}}
)

// binary finds the server.
func (b backend) binary() (string, error) {
	if b.tool == "" {
		path, err := exec.LookPath("prometheus")
		if err != nil {
			return "", fmt.Errorf("the Prometheus server (Debian: apt-get install prometheus): %w", err)
		}
		return path, nil
	}
	return tool(b.tool)
}

// release names the server and its version.
func (b backend) release() (string, error) {
	path, err := b.binary()
	if err != nil {
		return "", err
	}
	if b.version == "" { // built without one, by its name in the Makefile
		return filepath.Base(path), nil
	}
	out, err := exec.Command(path, b.version).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	words := strings.Fields(string(out)) // prometheus, version 2.42.0+ds (branch: ...
	return strings.Join(words[:min(3, len(words))], " "), nil
}

// database is a backend that runs. It finds its data again when it is stopped and launched.
type database struct {
	*process
	backend
	dir, url, binary string
	args             []string
}

func startDatabase(ctx context.Context, b backend, dir string, flags ...string) (*database, error) {
	binary, err := b.binary()
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "backend.yml"), []byte(b.config), 0o600); err != nil {
		return nil, err
	}
	port, err := ports.Free()
	if err != nil {
		return nil, err
	}
	d := &database{backend: b, dir: dir, url: "http://" + loopback(port), binary: binary, args: append(b.arguments(dir, loopback(port)), flags...)}
	return d, d.launch(ctx)
}

func (d *database) launch(ctx context.Context) (err error) {
	d.process, err = start(ctx, filepath.Join(d.dir, "backend.log"), nil, answers(d.url+d.ready), d.binary, d.args...)
	return err
}

// rejections are how many samples the backend says it has not taken.
func (d *database) rejections() (int, error) {
	m, err := scrape(d.url + "/metrics")
	if err != nil {
		return 0, err
	}
	var sum float64
	for _, name := range d.counted {
		if !m.has(name) {
			return 0, fmt.Errorf("%s does not report %s", d.title, name)
		}
		sum += m.sum(name)
	}
	return int(sum), nil
}

// loaded is what the load sends, by its names.
const loaded = `{__name__=~"shop_.*"}`

// everything reads all samples of the load, in order.
func (d *database) everything() (map[seriesKey][]sample, error) {
	if d.flush != "" {
		if _, err := get(d.url + d.flush); err != nil {
			return nil, err
		}
	}
	results, err := d.query(loaded+"[1h]", time.Now().Add(5*time.Second))
	if err != nil {
		return nil, err
	}
	all := map[seriesKey][]sample{}
	for _, r := range results {
		if err := r.spread(all); err != nil {
			return nil, err
		}
	}
	for _, samples := range all {
		slices.SortStableFunc(samples, func(a, b sample) int { return cmp.Compare(a.ms, b.ms) })
	}
	return all, nil
}

// answered is a series that a query is answered with.
type answered struct {
	Metric     map[string]string
	Value      *pair // of an instant
	Values     []pair
	Histograms []nativePair
}

// query evaluates PromQL at a time.
func (d *database) query(promql string, at time.Time) ([]answered, error) {
	body, err := get(d.url + "/api/v1/query?" + url.Values{
		"query": {promql},
		"time":  {strconv.FormatFloat(float64(at.UnixMilli())/1000, 'f', 3, 64)},
	}.Encode())
	if err != nil {
		return nil, err
	}
	var reply struct{ Data struct{ Result []answered } }
	if err := json.Unmarshal(body, &reply); err != nil {
		return nil, fmt.Errorf("%s: %w", promql, err)
	}
	return reply.Data.Result, nil
}

// pair is a sample as the query API writes it, [unix seconds, "value"]; nativePair is that of a native histogram,
// [unix seconds, {"count": "…", "sum": "…", "buckets": [[rule, "lower", "upper", "count"], …]}].
type (
	pair       [2]number
	nativePair struct {
		at         number
		count, sum number
		buckets    map[string]number // by bucketName
	}
)

// UnmarshalJSON implements json.Unmarshaler.
func (p *nativePair) UnmarshalJSON(data []byte) error {
	var two [2]json.RawMessage
	var h struct {
		Count, Sum number
		Buckets    [][4]number
	}
	if err := errors.Join(json.Unmarshal(data, &two), json.Unmarshal(two[0], &p.at), json.Unmarshal(two[1], &h)); err != nil {
		return err
	}
	p.count, p.sum, p.buckets = h.Count, h.Sum, map[string]number{}
	for _, b := range h.Buckets {
		name := zeroBucket
		if b[1] > 0 {
			name = bucketName(sizeIndex(float64(b[2])))
		}
		p.buckets[name] += b[3]
	}
	return nil
}

func milli(seconds number) int64 { return int64(math.Round(float64(seconds) * 1000)) }

// spread adds the samples of a result to those of its series, and makes series of what is in a native histogram.
func (r answered) spread(all map[seriesKey][]sample) error {
	// VictoriaMetrics keeps the names of resource attributes.
	key := seriesKey{r.Metric["__name__"], cmp.Or(r.Metric["instance"], r.Metric["service_instance_id"]), r.Metric["stream"], r.Metric["le"]}
	if vmrange := r.Metric["vmrange"]; vmrange != "" { // "lower...upper"
		lower, upper, _ := strings.Cut(vmrange, "...")
		l, err1 := strconv.ParseFloat(lower, 64)
		u, err2 := strconv.ParseFloat(upper, 64)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		key.le = zeroBucket
		if l > 0 {
			key.le = bucketName(sizeIndex(u))
		}
	}
	if len(r.Values) > 0 && all[key] != nil {
		return fmt.Errorf("the backend has two series for %+v", key)
	}
	for _, v := range r.Values {
		all[key] = append(all[key], sample{milli(v[0]), float64(v[1])})
	}
	for _, h := range r.Histograms {
		of := func(name, le string, value number) {
			k := seriesKey{key.name + name, key.instance, key.stream, le}
			all[k] = append(all[k], sample{milli(h.at), float64(value)})
		}
		of("_count", "", h.count)
		of("_sum", "", h.sum)
		for le, n := range h.buckets {
			of("_bucket", le, n)
		}
	}
	return nil
}

// scraped are the values of an endpoint of metrics, by name and labels as they are written there.
type scraped map[string]float64

func scrape(url string) (scraped, error) {
	body, err := get(url)
	if err != nil {
		return nil, err
	}
	m := scraped{}
	for line := range strings.Lines(string(body)) {
		if i := strings.LastIndexByte(strings.TrimSpace(line), ' '); i > 0 && line[0] != '#' {
			if v, err := strconv.ParseFloat(strings.TrimSpace(line[i:]), 64); err == nil {
				m[line[:i]] += v
			}
		}
	}
	return m, nil
}

func (m scraped) has(name string) bool {
	for series := range m {
		if n, _, _ := strings.Cut(series, "{"); n == name {
			return true
		}
	}
	return false
}

// sum adds up all series of a name that have all of these labels, written as name="value".
func (m scraped) sum(name string, labels ...string) float64 {
	var sum float64
	for series, v := range m {
		n, rest, _ := strings.Cut(series, "{")
		if n == name && !slices.ContainsFunc(labels, func(label string) bool { return !strings.Contains(rest, label) }) {
			sum += v
		}
	}
	return sum
}
