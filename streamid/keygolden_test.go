// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"testing"

	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

const goldenKeysFile = "testdata/keys-v1.json"

// keyVector is one entry of the golden file of routing keys.
type keyVector struct {
	Description string `json:"description"`
	Signal      string `json:"signal"`
	keySpec
	routed
	Key     string `json:"key"`
	Lacking bool   `json:"lacking,omitempty"`
}

func TestGoldenKeys(t *testing.T) {
	if *update {
		writeGoldenKeys(t)
	}
	vectors := readGoldenKeys(t)
	if want := len(goldenKeys()); len(vectors) != want {
		t.Fatalf("%s has %d vectors, want %d: run go test -update", goldenKeysFile, len(vectors), want)
	}
	for _, v := range vectors {
		t.Run(v.Signal+" "+v.Name+" "+v.Description, func(t *testing.T) {
			key, lacking := v.reference(v.routed)
			if got := fmt.Sprintf("%016x", key); got != v.Key || lacking != v.Lacking {
				t.Errorf("reference: got %s, %v, want %s, %v", got, lacking, v.Key, v.Lacking)
			}
			var keys []uint64
			var missing int
			switch v.Signal {
			case "metrics":
				keys, missing = keysOf(metricsBatchOf(v.identity().tenantKeys()), v.keySpec, v.Seed, v.metrics(t))
			case "traces":
				keys, missing = keysOf(tracesBatch, v.keySpec, v.Seed, v.traces(t))
			case "logs":
				keys, missing = keysOf(logsBatch, v.keySpec, v.Seed, v.logs(t))
			}
			if got := fmt.Sprintf("%016x", keys); got != "["+v.Key+"]" || (missing == 1) != v.Lacking {
				t.Errorf("got %s, %d missing, want %s, %v", got, missing, v.Key, v.Lacking)
			}
		})
	}
}

// metrics makes a batch of one point.
func (r routed) metrics(t testing.TB) pmetric.Metrics {
	s := r.identity().pdata(t)
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	s.resource.MoveTo(rm.Resource())
	sm := rm.ScopeMetrics().AppendEmpty()
	s.scope.MoveTo(sm.Scope())
	m := sm.Metrics().AppendEmpty()
	s.metric.MoveTo(m)
	points := m.Sum().DataPoints
	if m.Type() == pmetric.MetricTypeGauge {
		points = m.Gauge().DataPoints
	}
	s.attributes.MoveTo(points().AppendEmpty().Attributes())
	return md
}

// traces makes a batch of one span.
func (r routed) traces(t testing.TB) ptrace.Traces {
	s := identity{Resource: r.Resource, Scope: r.Scope, Attributes: r.Attributes}.pdata(t)
	td := ptrace.NewTraces()
	rs := td.ResourceSpans().AppendEmpty()
	s.resource.MoveTo(rs.Resource())
	ss := rs.ScopeSpans().AppendEmpty()
	s.scope.MoveTo(ss.Scope())
	span := ss.Spans().AppendEmpty()
	s.attributes.MoveTo(span.Attributes())
	span.SetTraceID([16]byte(must(hex.DecodeString(r.TraceID))))
	for _, f := range r.Fields {
		switch f.Key {
		case "span.name":
			span.SetName(string(f.Value.bytes()))
		case "span.kind":
			kinds := []string{"Unspecified", "Internal", "Server", "Client", "Producer", "Consumer"}
			span.SetKind(ptrace.SpanKind(slices.Index(kinds, string(f.Value.bytes()))))
		}
	}
	return td
}

// logs makes a batch of one log record.
func (r routed) logs(t testing.TB) plog.Logs {
	s := identity{Resource: r.Resource, Scope: r.Scope, Attributes: r.Attributes}.pdata(t)
	ld := plog.NewLogs()
	rl := ld.ResourceLogs().AppendEmpty()
	s.resource.MoveTo(rl.Resource())
	sl := rl.ScopeLogs().AppendEmpty()
	s.scope.MoveTo(sl.Scope())
	record := sl.LogRecords().AppendEmpty()
	s.attributes.MoveTo(record.Attributes())
	record.SetTraceID([16]byte(must(hex.DecodeString(r.TraceID))))
	for _, f := range r.Fields {
		switch f.Key {
		case "log.severity":
			record.SetSeverityText(string(f.Value.bytes()))
		case "log.body":
			fillValue(record.Body(), f.Value)
		}
	}
	return ld
}

func readGoldenKeys(t testing.TB) []keyVector {
	t.Helper()
	data, err := os.ReadFile(goldenKeysFile)
	if err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	var vectors []keyVector
	if err := decoder.Decode(&vectors); err != nil {
		t.Fatalf("%s: %v", goldenKeysFile, err)
	}
	return vectors
}

// writeGoldenKeys writes one vector a line. It refuses to change a vector that the file has.
func writeGoldenKeys(t *testing.T) {
	t.Helper()
	var frozen []keyVector
	if _, err := os.Stat(goldenKeysFile); err == nil {
		frozen = readGoldenKeys(t)
	}
	var lines [][]byte
	for i, v := range goldenKeys() {
		key, lacking := v.reference(v.routed)
		v.Key, v.Lacking = fmt.Sprintf("%016x", key), lacking
		if i < len(frozen) && (frozen[i].Key != v.Key || frozen[i].Lacking != v.Lacking) {
			t.Fatalf("vector %d, %q: encoding v1 is frozen, but the key differs", i, frozen[i].Description)
		}
		var line bytes.Buffer
		encoder := json.NewEncoder(&line)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(v); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, bytes.TrimSpace(line.Bytes()))
	}
	out := slices.Concat([]byte("[\n"), bytes.Join(lines, []byte(",\n")), []byte("\n]\n"))
	if err := os.WriteFile(goldenKeysFile, out, 0o644); err != nil {
		t.Fatal(err)
	}
}

// goldenKeys are the vectors of the golden file, without keys. Append; do not change.
func goldenKeys() (all []keyVector) {
	typical := routed{
		Resource: []attribute{
			attr("service.name", str("checkout")), attr("host", str("node-17")), attr("process.pid", integer(4711)),
		},
		Scope:      scope{Name: "otelhttp", Version: "0.60.0", Attributes: []attribute{attr("tenant", str("scope's"))}},
		Metric:     &metric{Name: "http.server.requests", Unit: "{request}", Type: "gauge", Temporality: "unspecified"},
		Attributes: []attribute{attr("tenant", str("acme")), attr("http.response.status_code", integer(200)), attr("ok", boolean(true))},
		TraceID:    "0af7651916cd43dd8448eb211c80319c",
	}
	nothing := routed{
		Metric:  &metric{Type: "gauge", Temporality: "unspecified"},
		TraceID: "00000000000000000000000000000000",
	}
	add := func(description, signal string, r routed, name string, attributes ...string) {
		if signal != "metrics" {
			r.Metric = nil
		} else {
			r.TraceID = ""
		}
		all = append(all, keyVector{Description: description, Signal: signal, keySpec: keySpec{Name: name, Attributes: attributes}, routed: r})
	}
	for _, seed := range []uint64{0, 0x9E3779B97F4A7C15} {
		seeded, empty := typical, nothing
		seeded.Seed, empty.Seed = seed, seed
		for _, name := range []string{"streamID", "metric", "resource", "service"} {
			add("typical", "metrics", seeded, name)
			add("nothing", "metrics", empty, name)
		}
		for _, signal := range []string{"traces", "logs"} {
			for _, name := range []string{"traceID", "resource", "service"} {
				add("typical", signal, seeded, name)
				add("nothing", signal, empty, name)
			}
		}
		for _, signal := range []string{"metrics", "traces", "logs"} {
			add("on the resource", signal, seeded, "attributes", "host")
			add("the scope before the point", signal, seeded, "attributes", "tenant")
			add("an integer on the point", signal, seeded, "attributes", "http.response.status_code")
			add("on resource, scope and point", signal, seeded, "attributes", "ok", "tenant", "process.pid")
			add("one of two", signal, seeded, "attributes", "host", "missing")
			add("none of two", signal, seeded, "attributes", "absent", "missing")
			add("none at all", signal, empty, "attributes", "host")
			add("the service name, as the key service has it", signal, seeded, "attributes", "service.name")
		}
	}

	values := []struct {
		description string
		value       value
	}{
		{"empty value", empty()}, {"empty string", str("")}, {"string", str("1")}, {"int", integer(1)}, {"double", double(1)},
		{"bool", boolean(true)}, {"bytes", blob("1")}, {"empty bytes", blob("")}, {"map", kvlist(attr("a", str("1")))},
		{"empty map", kvlist()}, {"slice", array(str("1"))}, {"empty slice", array()}, {"not ASCII", str("größe 尺寸")},
	}
	for _, v := range values {
		r := typical
		r.Attributes = []attribute{attr("key", v.value)}
		add(v.description, "metrics", r, "attributes", "key")
		add(v.description, "metrics", r, "attributes", "key", "host")
		r.Resource = []attribute{attr("service.name", v.value), attr("host", str("node-17"))}
		add(v.description, "logs", r, "service")
		r.Fields = []attribute{attr("log.body", v.value)}
		add(v.description, "logs", r, "attributes", "log.body")
	}

	emptyAbove := typical
	emptyAbove.Resource = []attribute{attr("tenant", str("")), attr("service.name", str("checkout"))}
	emptyAbove.Scope.Attributes = []attribute{attr("tenant", empty())}
	add("empty on resource and scope", "metrics", emptyAbove, "attributes", "tenant")
	twice := typical
	twice.Attributes = []attribute{attr("key", str("first")), attr("key", str("second"))}
	add("a key twice", "metrics", twice, "attributes", "key")

	span := typical
	span.Fields = []attribute{attr("span.name", str("GET /cart")), attr("span.kind", str("Server"))}
	add("name and kind", "traces", span, "attributes", "span.name", "span.kind")
	add("name", "traces", span, "attributes", "span.name")
	add("kind", "traces", span, "attributes", "span.kind")
	span.Resource = []attribute{attr("span.name", str("the resource's"))}
	add("the resource before the name", "traces", span, "attributes", "span.name")
	span.Fields, span.Resource = nil, nil
	add("no name", "traces", span, "attributes", "span.name")

	record := typical
	record.Fields = []attribute{attr("log.severity", str("ERROR")), attr("log.body", str("out of memory"))}
	add("severity and body", "logs", record, "attributes", "log.severity", "log.body")
	add("severity", "logs", record, "attributes", "log.severity")
	record.Fields = []attribute{attr("log.body", kvlist(attr("message", str("out of memory"))))}
	add("no severity", "logs", record, "attributes", "log.severity")
	add("body is a map", "logs", record, "attributes", "log.body")

	of := typical
	of.Tenant = []attribute{attr("x-tenant", array(str("acme"))), attr("x-team", array(str("a"), str("")))}
	for _, seed := range []uint64{0, 0x9E3779B97F4A7C15} {
		of.Seed = seed
		for _, name := range []string{"streamID", "metric", "resource", "service"} {
			add("of a tenant", "metrics", of, name)
		}
	}

	aggregate := func(description string, r routed, rules ...ruleSpec) {
		add(description, "metrics", r, "aggregate")
		all[len(all)-1].Rules = rules
	}
	rule := func(metric string, reduction reductionSpec) ruleSpec { return ruleSpec{[]string{metric}, reduction} }
	host, tenant := reductionSpec{Resource: drop("host", "process.pid")}, reductionSpec{Scope: drop("tenant"), Point: keep("tenant")}
	for _, r := range []routed{typical, nothing, of} {
		aggregate("without rules", r)
		aggregate("a rule that matches", r, rule("*", host))
		aggregate("a rule that does not match", r, rule("grpc.*", host))
		aggregate("the second of two rules", r, rule("*.duration", host), rule("http.*.requests", tenant), rule("*", host))
	}
	cumulative := typical
	cumulative.Metric = &metric{Name: "http.server.requests", Type: "sum", Monotonic: true, Temporality: "cumulative"}
	aggregate("cumulative", cumulative, rule("*", host))
	delta := cumulative
	delta.Metric = &metric{Name: "http.server.requests", Type: "sum", Monotonic: true, Temporality: "delta"}
	aggregate("delta, with the key of cumulative", delta, rule("*", host))

	for _, r := range []routed{typical, nothing, of} {
		add("grouped", "metrics", r, "streamID")
		all[len(all)-1].Grouped = true
		aggregate("grouped, a rule that matches", r, rule("*", host))
		all[len(all)-1].Grouped = true
		aggregate("grouped, a rule that does not match", r, rule("grpc.*", host))
		all[len(all)-1].Grouped = true
	}
	return all
}
