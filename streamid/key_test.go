// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/deltaring/deltaring/streamid"
)

func TestParseKeyNamesWhatIsWrong(t *testing.T) {
	tests := []struct {
		name       string
		attributes []string
		want       string
	}{
		{"streamid", nil, `unknown routing key "streamid", did you mean "streamID"?`},
		{"trace_id", nil, `unknown routing key "trace_id", did you mean "traceID"?`},
		{"pod", nil, `unknown routing key "pod", want one of streamID, metric, resource, service, traceID, attributes, aggregate`},
		{strings.Repeat("x", 100), nil, `unknown routing key "` + strings.Repeat("x", 40) + `"`},
		{"attributes", nil, `routing key "attributes" needs at least one attribute`},
		{"attributes", []string{"a", ""}, `routing key "attributes": attribute 2 of 2 has no name`},
		{"attributes", []string{"a", "b", "a"}, `routing key "attributes": attribute "a" is listed twice`},
		{"service", []string{"tenant"}, `routing key "service" takes no attributes, got "tenant"`},
		{"", []string{"tenant"}, `routing key "" takes no attributes, got "tenant"`},
	}
	for _, test := range tests {
		key, err := streamid.ParseKey(test.name, test.attributes)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%.50q %q: got %v, %v, want %s", test.name, test.attributes, key, err, test.want)
		}
	}
}

func TestKeysGoWithTheSignalsTheyAreFor(t *testing.T) {
	signals := []streamid.Signal{streamid.SignalMetrics, streamid.SignalTraces, streamid.SignalLogs, 0}
	for name, want := range map[string]string{
		"":           "metrics traces logs",
		"streamID":   "metrics",
		"metric":     "metrics",
		"resource":   "metrics traces logs",
		"service":    "metrics traces logs",
		"traceID":    "traces logs",
		"attributes": "metrics traces logs",
	} {
		spec := keySpec{Name: name}
		if name == "attributes" {
			spec.Attributes = []string{"tenant"}
		}
		var got []string
		for _, signal := range signals {
			if err := spec.key().Check(signal); err == nil {
				got = append(got, signal.String())
			} else if want := fmt.Sprintf("routing key %q does not go with %v", name, signal); !strings.Contains(err.Error(), want) {
				t.Errorf("got %q, want %q", err, want)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q goes with %q, want %q", name, got, want)
		}
	}
}

func TestKeyString(t *testing.T) {
	for want, spec := range map[string]keySpec{
		"":                         {},
		"streamID":                 {Name: "streamID"},
		`attributes ["a b" "c,d"]`: {Name: "attributes", Attributes: []string{"a b", "c,d"}},
		"streamID, grouped":        {Name: "streamID", Grouped: true},
		"aggregate [], grouped":    {Name: "aggregate", Grouped: true},
	} {
		if got := spec.key().String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// TestGroupedKeysAreOfWholeGroups of streams, those of a total with all its writers. What tells totals apart is left of the writers too.
func TestGroupedKeysAreOfWholeGroups(t *testing.T) {
	for _, name := range []string{"", "metric", "resource", "service", "traceID"} {
		if key, err := must(streamid.ParseKey(name, nil)).Grouped(); err == nil || !strings.Contains(err.Error(), "want streamID or aggregate") {
			t.Errorf("%q: got %v, %v", name, key, err)
		}
	}
	if key, err := (keySpec{Name: "attributes", Attributes: []string{"tenant"}}).key().Grouped(); err == nil {
		t.Errorf("attributes: got %v", key)
	}
	original := keySpec{Name: "streamID"}.key()
	if _, err := original.Grouped(); err != nil || original.String() != "streamID" {
		t.Errorf("the key has changed to %v, error %v", original, err)
	}

	md := pmetric.NewMetrics()
	m := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetName("requests")
	points := m.SetEmptySum().DataPoints()
	for i := range int64(1000) {
		attrs := points.AppendEmpty().Attributes()
		attrs.PutInt("route", i/10)
		attrs.PutInt("pod", i%10)
	}
	rule := ruleSpec{Metrics: []string{"requests"}, reductionSpec: reductionSpec{Point: drop("pod")}}
	reduction := rulesOf([]ruleSpec{rule}).At(0)
	rm, sm := md.ResourceMetrics().At(0), md.ResourceMetrics().At(0).ScopeMetrics().At(0)
	tenant := streamid.Seed(3).Tenant()
	whole := tenant.Resource(rm.Resource()).Scope(sm.Scope()).Metric(m)
	left := reduction.Metric(reduction.Scope(reduction.Resource(tenant, rm.Resource()), sm.Scope()), m)
	keys, _ := keysOf(metricsBatch, keySpec{Name: "aggregate", Rules: []ruleSpec{rule}, Grouped: true}, 3, md)
	distinct := map[uint64]bool{}
	for i, key := range keys {
		total, writer := reduction.Points(whole, left, points.At(i).Attributes())
		if key != total.Hi || key != writer.Hi {
			t.Fatalf("point %d: key %x, total %v, writer %v", i, key, total, writer)
		}
		distinct[key] = true
	}
	if len(distinct) != 100 {
		t.Errorf("%d totals, want 100", len(distinct))
	}
}

// TestKeyDoesNotChange although the caller's list does.
func TestKeyDoesNotChange(t *testing.T) {
	names := []string{"tenant"}
	key := keySpec{Name: "attributes", Attributes: names}.key()
	names[0] = "host"
	if got, want := key.String(), `attributes ["tenant"]`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// keysOf returns the keys for which a split asks.
func keysOf[B comparable](b batch[B], spec keySpec, seed uint64, of B) (keys []uint64, missing int) {
	_, _, missing = b.split(splitterFor(spec, seed), b.clone(of), 1, func(key uint64) int {
		keys = append(keys, key)
		return 0
	})
	return keys, missing
}

// TestTheZeroKeyIsTheOneOfTheSignal as it is for contrib's load_balancing exporter.
func TestTheZeroKeyIsTheOneOfTheSignal(t *testing.T) {
	r := rand.New(rand.NewPCG(23, 1))
	for range 50 {
		md, td, ld := randomMetrics(r), randomTraces(r), randomLogs(r)
		for _, keys := range [][2]string{
			{fmt.Sprint(keysOf(metricsBatch, keySpec{}, 0, md)), fmt.Sprint(keysOf(metricsBatch, keySpec{Name: "service"}, 0, md))},
			{fmt.Sprint(keysOf(tracesBatch, keySpec{}, 0, td)), fmt.Sprint(keysOf(tracesBatch, keySpec{Name: "traceID"}, 0, td))},
			{fmt.Sprint(keysOf(logsBatch, keySpec{}, 0, ld)), fmt.Sprint(keysOf(logsBatch, keySpec{Name: "service"}, 0, ld))},
		} {
			if keys[0] != keys[1] {
				t.Fatalf("got %s, want %s", keys[0], keys[1])
			}
		}
	}
}

// TestOrderOfNamesDoesNotMatter, so that it may differ from gateway to gateway.
func TestOrderOfNamesDoesNotMatter(t *testing.T) {
	r := rand.New(rand.NewPCG(23, 2))
	for range 50 {
		ld := randomLogs(r)
		a := fmt.Sprint(keysOf(logsBatch, keySpec{Name: "attributes", Attributes: []string{"tenant", "host", "log.body"}}, 0, ld))
		b := fmt.Sprint(keysOf(logsBatch, keySpec{Name: "attributes", Attributes: []string{"log.body", "tenant", "host"}}, 0, ld))
		if a != b {
			t.Fatalf("got %s and %s", a, b)
		}
	}
}

// TestSeedsGiveOtherKeys: whoever does not know the seed cannot aim at an owner.
func TestSeedsGiveOtherKeys(t *testing.T) {
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	rm.Resource().Attributes().PutStr("service.name", "checkout")
	m := rm.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetName("orders")
	m.SetEmptyGauge().DataPoints().AppendEmpty()
	td := ptrace.NewTraces()
	td.ResourceSpans().AppendEmpty().ScopeSpans().AppendEmpty().Spans().AppendEmpty().SetTraceID([16]byte{1})
	seen := map[uint64]string{}
	for seed := range uint64(3) {
		for _, name := range []string{"streamID", "metric", "resource", "service"} {
			key, _ := keysOf(metricsBatch, keySpec{Name: name}, seed, md)
			seen[key[0]] = name
		}
		key, _ := keysOf(tracesBatch, keySpec{Name: "traceID"}, seed, td)
		seen[key[0]] = "traceID"
	}
	if len(seen) != 15 {
		t.Errorf("%d keys, want 15: %v", len(seen), seen)
	}
}

// TestKeysAreWellMixed puts similar things into slots by the top bits of their keys, as a ring does. The bound is five
// standard deviations of random keys.
func TestKeysAreWellMixed(t *testing.T) {
	const slots, perSlot = 256, 256
	similar := func(spec keySpec) pmetric.Metrics {
		md := pmetric.NewMetrics()
		ms := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics()
		for i := range slots * perSlot {
			name := fmt.Sprint(i)
			switch spec.Name {
			case "metric":
				ms.AppendEmpty().SetName(name)
				continue
			case "resource":
				md.ResourceMetrics().AppendEmpty().Resource().Attributes().PutInt("id", int64(i))
				continue
			case "service":
				md.ResourceMetrics().AppendEmpty().Resource().Attributes().PutStr("service.name", name)
				continue
			}
			if i == 0 {
				ms.AppendEmpty().SetEmptyGauge()
			}
			ms.At(0).Gauge().DataPoints().AppendEmpty().Attributes().PutStr("tenant", name)
		}
		return md
	}
	for _, spec := range []keySpec{
		{Name: "streamID"}, {Name: "metric"}, {Name: "resource"}, {Name: "service"},
		{Name: "attributes", Attributes: []string{"tenant"}},
	} {
		keys, _ := keysOf(metricsBatch, spec, 0, similar(spec))
		checkMixed(t, spec.Name, keys, perSlot)
	}
	td := ptrace.NewTraces()
	spans := td.ResourceSpans().AppendEmpty().ScopeSpans().AppendEmpty().Spans()
	for i := range slots * perSlot {
		spans.AppendEmpty().SetTraceID([16]byte{0: 1, 14: byte(i >> 8), 15: byte(i)})
	}
	keys, _ := keysOf(tracesBatch, keySpec{Name: "traceID"}, 0, td)
	checkMixed(t, "traceID", keys, perSlot)
}

func checkMixed(t *testing.T, name string, keys []uint64, perSlot float64) {
	t.Helper()
	for shift := 0; shift < 64; shift += 8 {
		var count [256]int
		for _, key := range keys {
			count[byte(key>>shift)]++
		}
		sum := 0.0
		for _, c := range count {
			sum += (float64(c) - perSlot) * (float64(c) - perSlot) / perSlot
		}
		// Chi squared with 255 degrees of freedom has mean 255 and standard deviation 22.6.
		if sum < 255-5*22.6 || sum > 255+5*22.6 {
			t.Errorf("%s: chi squared of bits %d to %d is %.0f, want 255", name, shift, shift+7, sum)
		}
	}
}

// TestKeysLeaveIDsAlone: tables index with the high bits of Hi or the low bits of Lo. Those of the streams that one owner
// has, which are told apart by the high bits of the key, must be as evenly spread as those of all.
func TestKeysLeaveIDsAlone(t *testing.T) {
	const perSlot = 64
	md := pmetric.NewMetrics()
	m := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetName("requests")
	points := m.SetEmptyGauge().DataPoints()
	for i := range int64(1 << 18) {
		points.AppendEmpty().Attributes().PutInt("id", i)
	}
	rm, sm := md.ResourceMetrics().At(0), md.ResourceMetrics().At(0).ScopeMetrics().At(0)
	id := streamid.Seed(0).Resource(rm.Resource()).Scope(sm.Scope()).Metric(m)
	keys, _ := keysOf(metricsBatch, keySpec{Name: "streamID"}, 0, md)
	var hi, lo []uint64
	for i := range points.Len() {
		if keys[i]>>60 == 5 {
			of := id.Point(points.At(i).Attributes())
			hi, lo = append(hi, of.Hi), append(lo, of.Lo)
		}
	}
	checkMixed(t, "Hi", hi, float64(len(hi))/256)
	checkMixed(t, "Lo", lo, float64(len(lo))/256)
	if len(hi) < 256*perSlot*9/10 {
		t.Errorf("only %d streams", len(hi))
	}
}
