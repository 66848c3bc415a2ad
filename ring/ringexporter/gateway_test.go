// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/exporter/exporterhelper"
	"go.opentelemetry.io/collector/exporter/exportertest"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/deltaring/deltaring/ring/ringexporter/internal/metadata"
)

// metricBatch has the n-th point of each stream.
func metricBatch(n int64, streams ...string) pmetric.Metrics {
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	rm.Resource().Attributes().PutStr("service.name", "test")
	sum := rm.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	sum.SetName("requests")
	points := sum.SetEmptySum().DataPoints()
	for _, s := range streams {
		p := points.AppendEmpty()
		p.Attributes().PutStr("stream", s)
		p.SetIntValue(n)
	}
	return md
}

func metricItems(md pmetric.Metrics) []item {
	var all []item
	for _, rm := range md.ResourceMetrics().All() {
		for _, sm := range rm.ScopeMetrics().All() {
			for _, m := range sm.Metrics().All() {
				for _, p := range m.Sum().DataPoints().All() {
					s, _ := p.Attributes().Get("stream")
					all = append(all, item{s.Str(), p.IntValue()})
				}
			}
		}
	}
	return all
}

// traceBatch has the n-th span of each trace, whose IDs are made of the streams.
func traceBatch(n int64, streams ...string) ptrace.Traces {
	td := ptrace.NewTraces()
	spans := td.ResourceSpans().AppendEmpty().ScopeSpans().AppendEmpty().Spans()
	for _, s := range streams {
		span := spans.AppendEmpty()
		var id pcommon.TraceID
		copy(id[:], s)
		span.SetTraceID(id)
		span.SetName(s)
		span.SetStartTimestamp(pcommon.Timestamp(n))
	}
	return td
}

func traceItems(td ptrace.Traces) []item {
	var all []item
	for _, rs := range td.ResourceSpans().All() {
		for _, ss := range rs.ScopeSpans().All() {
			for _, span := range ss.Spans().All() {
				all = append(all, item{span.Name(), int64(span.StartTimestamp())})
			}
		}
	}
	return all
}

// logBatch has the n-th record of each service.
func logBatch(n int64, streams ...string) plog.Logs {
	ld := plog.NewLogs()
	for _, s := range streams {
		rl := ld.ResourceLogs().AppendEmpty()
		rl.Resource().Attributes().PutStr("service.name", s)
		rl.ScopeLogs().AppendEmpty().LogRecords().AppendEmpty().Body().SetEmptyBytes().FromRaw(binary.BigEndian.AppendUint64(nil, uint64(n)))
	}
	return ld
}

func logItems(ld plog.Logs) []item {
	var all []item
	for _, rl := range ld.ResourceLogs().All() {
		s, _ := rl.Resource().Attributes().Get("service.name")
		for _, sl := range rl.ScopeLogs().All() {
			for _, r := range sl.LogRecords().All() {
				all = append(all, item{s.Str(), int64(binary.BigEndian.Uint64(r.Body().Bytes().AsRaw()))})
			}
		}
	}
	return all
}

func streamNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("stream-%04d", i)
	}
	return names
}

// load returns the configuration that the YAML makes of the default.
func load(t testing.TB, yaml string) (*Config, error) {
	t.Helper()
	retrieved, err := confmap.NewRetrievedFromYAML([]byte(yaml))
	require.NoError(t, err)
	conf, err := retrieved.AsConf()
	require.NoError(t, err)
	cfg := createDefaultConfig().(*Config)
	if err := conf.Unmarshal(cfg); err != nil {
		return nil, err
	}
	return cfg, confmap.Validate(cfg)
}

// config returns a configuration for tests: without TLS, and impatient.
func config(t testing.TB, yaml string) *Config {
	t.Helper()
	cfg, err := load(t, yaml)
	require.NoError(t, err)
	cfg.Protocol.OTLP.ClientConfig.TLS.Insecure = true
	for _, retry := range []*time.Duration{
		&cfg.RetryConfig.InitialInterval, &cfg.RetryConfig.MaxInterval,
		&cfg.Protocol.OTLP.RetryConfig.InitialInterval, &cfg.Protocol.OTLP.RetryConfig.MaxInterval,
	} {
		*retry = 5 * time.Millisecond
	}
	return cfg
}

// static has members of these names.
func static(workers map[string]*worker) StaticConfig {
	var cfg StaticConfig
	for name, w := range workers { // in any order
		cfg.Members = append(cfg.Members, MemberConfig{Name: name, Endpoint: w.address})
	}
	return cfg
}

// staticConfig routes by stream to members of these names.
func staticConfig(t testing.TB, workers map[string]*worker) *Config {
	t.Helper()
	cfg := config(t, "{routing_key: streamID, resolver: {static: {hostnames: [overwritten]}}}")
	cfg.Resolver.Static = configoptional.Some(static(workers))
	return cfg
}

// withoutQueues has members answer before a batch is taken over.
func withoutQueues(cfg *Config) *Config {
	cfg.Protocol.OTLP.QueueConfig = configoptional.None[exporterhelper.QueueBatchConfig]()
	return cfg
}

// dnsConfig routes by stream to what the server has, and asks it all the time.
func dnsConfig(t testing.TB, s *nameServer) *Config {
	t.Helper()
	cfg := config(t, fmt.Sprintf(`
routing_key: streamID
resolver:
  dns: {hostname: _otlp._tcp.workers.test, srv: true, server: %q, debounce: 0s}`, s.address))
	cfg.Resolver.DNS.Get().Interval = 5 * time.Millisecond // more often than is accepted
	return cfg
}

// host collects what the exporter says of its status.
type host struct {
	component.Host
	mu     sync.Mutex
	status []componentstatus.Status
	errs   []string // of status
}

func (h *host) Report(e *componentstatus.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.status = append(h.status, e.Status())
	text := ""
	if e.Err() != nil {
		text = e.Err().Error()
	}
	h.errs = append(h.errs, text)
}

func (h *host) statuses() []componentstatus.Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.status)
}

// trouble returns the error of the last status.
func (h *host) trouble() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.errs) == 0 {
		return ""
	}
	return h.errs[len(h.errs)-1]
}

// gateway is a running exporter.
type gateway[B batch] struct {
	running[B]
	t    testing.TB
	ring *ringExporter[B]
	tel  *componenttest.Telemetry
	logs *observer.ObservedLogs
	host *host
	stop func() error // once
}

func startGateway(t testing.TB, cfg *Config) *gateway[pmetric.Metrics] {
	return startGatewayOf(t, cfg, &metrics)
}

func startGatewayOf[B batch](t testing.TB, cfg *Config, sig *signal[B]) *gateway[B] {
	t.Helper()
	return startGatewayIn(t, componenttest.NewNopHost(), cfg, sig)
}

func startGatewayIn[B batch](t testing.TB, in component.Host, cfg *Config, sig *signal[B]) *gateway[B] {
	t.Helper()
	g := &gateway[B]{t: t, tel: componenttest.NewTelemetry(), host: &host{Host: in}}
	set := exportertest.NewNopSettings(metadata.Type)
	set.TelemetrySettings = g.tel.NewTelemetrySettings()
	core, logs := observer.New(zapcore.InfoLevel)
	set.Logger, g.logs = zap.New(core), logs
	var err error
	g.ring, err = newExporter(set, cfg, sig)
	require.NoError(t, err)
	g.running, err = g.ring.build(t.Context())
	require.NoError(t, err)
	require.NoError(t, g.Start(t.Context(), g.host))
	g.stop = sync.OnceValue(func() error { return g.Shutdown(t.Context()) })
	t.Cleanup(func() {
		_ = g.stop() // tests check it that care
		_ = g.tel.Shutdown(t.Context())
		if t.Failed() {
			for _, l := range g.logs.All() {
				t.Log(l.Time.Format("05.000"), l.Level, l.Message, l.ContextMap())
			}
		}
	})
	return g
}

// members returns the names in the current ring.
func (g *gateway[B]) members() []string {
	v := g.ring.current.Load()
	if v == nil {
		return nil
	}
	return names(v)
}

func (g *gateway[B]) awaitMembers(want ...string) {
	g.t.Helper()
	require.Eventually(g.t, func() bool { return slices.Equal(g.members(), want) }, patience, time.Millisecond,
		"members %v", want)
}

// owner returns the member that a stream of metricBatch is routed to.
func (g *gateway[B]) ownerOf(stream string) string {
	v := g.ring.current.Load()
	var owner int
	g.ring.splitter.Metrics(metricBatch(0, stream), len(v.members), func(key uint64) int {
		owner = v.ring.Owner(key)
		return owner
	}, nil)
	return v.members[owner].Name
}

// owned returns the streams by owner.
func (g *gateway[B]) owned(streams []string) map[string][]string {
	all := map[string][]string{}
	for _, s := range streams {
		owner := g.ownerOf(s)
		all[owner] = append(all[owner], s)
	}
	return all
}

// workers starts one for each name, each at an address of its own.
func startWorkers(t testing.TB, names ...string) map[string]*worker {
	t.Helper()
	all := map[string]*worker{}
	for i, name := range names {
		all[name] = startWorker(t, fmt.Sprintf("127.0.0.%d:0", 2+i))
	}
	return all
}

func only(workers map[string]*worker, names ...string) map[string]*worker {
	workers = maps.Clone(workers)
	maps.DeleteFunc(workers, func(name string, _ *worker) bool { return !slices.Contains(names, name) })
	return workers
}

func (w *worker) awaitItems(t testing.TB, n int) {
	t.Helper()
	w.await(t, fmt.Sprintf("%d items at %s", n, w.address), func() bool { return len(w.items) >= n })
}

// awaitAll waits until the workers have n items, and returns how often each came.
func awaitAll(t testing.TB, workers map[string]*worker, n int) map[item]int {
	t.Helper()
	times := map[item]int{}
	require.Eventually(t, func() bool {
		clear(times)
		total := 0
		for _, w := range workers {
			for _, i := range w.got() {
				times[i]++
				total++
			}
		}
		return total >= n
	}, patience, time.Millisecond, "%d items in all", n)
	return times
}
