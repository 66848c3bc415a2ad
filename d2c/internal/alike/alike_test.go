// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package alike

import (
	"math/rand/v2"
	"testing"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/streamid"
)

// stream is what a series is made of.
type stream struct {
	tenant                 streamid.ID
	resource, scope, point map[string]any
	scopeName, name, unit  string
	falling, summary       bool
}

func seriesOf(t *testing.T, d *Detector, s stream) uint64 {
	t.Helper()
	m, scope, r, attrs := pmetric.NewMetric(), pcommon.NewInstrumentationScope(), pcommon.NewResource(), pcommon.NewMap()
	switch {
	case s.summary:
		m.SetEmptySummary()
	default:
		m.SetEmptySum().SetIsMonotonic(!s.falling)
	}
	m.SetName(s.name)
	m.SetUnit(s.unit)
	scope.SetName(s.scopeName)
	for to, from := range map[*pcommon.Map]map[string]any{ptr(r.Attributes()): s.resource, ptr(scope.Attributes()): s.scope, &attrs: s.point} {
		if err := to.FromRaw(from); err != nil {
			t.Fatal(err)
		}
	}
	var h Hasher
	return d.Point(&h, d.Metric(&h, d.Resource(&h, s.tenant, r), scope, m), attrs)
}

func ptr[T any](v T) *T { return &v }

type object = map[string]any

func TestSeries(t *testing.T) {
	for _, c := range []struct {
		name           string
		a, b           stream
		service, whole bool // whether they are one where labels are Service, and Resource
	}{
		{"type of a value", stream{point: object{"code": 200}}, stream{point: object{"code": "200"}}, true, true},
		{"double", stream{point: object{"code": 200.0}}, stream{point: object{"code": "200"}}, true, true},
		{"bool", stream{point: object{"ok": true}}, stream{point: object{"ok": "true"}}, true, true},
		{"bytes", stream{point: object{"b": []byte("ab")}}, stream{point: object{"b": "YWI="}}, true, true},
		{"other value", stream{point: object{"code": 200}}, stream{point: object{"code": 201}}, false, false},
		{"empty and missing", stream{point: object{"a": ""}}, stream{}, true, true},
		{"null and missing", stream{point: object{"a": nil}}, stream{}, true, true},
		{"value and missing", stream{point: object{"a": " "}}, stream{}, false, false},
		{"dots", stream{point: object{"http.route": "x"}}, stream{point: object{"http_route": "x"}}, true, true},
		{"two dots", stream{point: object{"http..route": "x"}}, stream{point: object{"http_route": "x"}}, true, true},
		{"other key", stream{point: object{"http.route": "x"}}, stream{point: object{"http.rout": "x"}}, false, false},
		{"what is key, what value", stream{point: object{"a": "b=c"}}, stream{point: object{"a=b": "c"}}, false, false},
		{"pairs", stream{point: object{"a": "x", "b": "y"}}, stream{point: object{"a": "y", "b": "x"}}, false, false},
		{"name", stream{name: "a.b"}, stream{name: "a_b"}, true, true},
		{"name of a slash", stream{name: "a/b"}, stream{name: "a-b"}, true, true},
		{"case", stream{name: "a"}, stream{name: "A"}, false, false},
		{"total", stream{name: "a_total"}, stream{name: "a"}, true, true},
		{"total of what may fall", stream{name: "a_total", falling: true}, stream{name: "a", falling: true}, false, false},
		{"monotonic", stream{falling: true}, stream{}, false, false},
		{"kind", stream{summary: true}, stream{falling: true}, false, false},
		{"unit", stream{unit: "s"}, stream{unit: "ms"}, false, false},
		{"no unit", stream{unit: "{request}"}, stream{unit: "1"}, true, true},
		{"host", stream{resource: object{"host": "a"}}, stream{resource: object{"host": "b"}}, true, false},
		{"instance", stream{resource: object{"service.instance.id": "a"}}, stream{resource: object{"service.instance.id": "b"}}, false, false},
		{"empty instance", stream{resource: object{"service.instance.id": ""}}, stream{}, true, true},
		{"name and namespace", stream{resource: object{"service.name": "a"}}, stream{resource: object{"service.namespace": "a"}}, false, false},
		{"version", stream{resource: object{"service.version": "a"}}, stream{}, true, false},
		{"scope", stream{scopeName: "a"}, stream{scopeName: "b"}, true, false},
		{"attributes of scopes", stream{scope: object{"a": "a"}}, stream{scope: object{"a": "b"}}, true, false},
		{"scope and resource", stream{scope: object{"a": "a"}}, stream{resource: object{"a": "a"}}, true, false},
		{"tenant", stream{tenant: streamid.ID{Lo: 1}}, stream{}, false, false},
	} {
		for labels, want := range map[Labels]bool{Service: c.service, Resource: c.whole} {
			d := NewDetector(labels)
			if got := seriesOf(t, d, c.a) == seriesOf(t, d, c.b); got != want {
				t.Errorf("%s, labels %d: one series %v, want %v", c.name, labels, got, want)
			}
		}
	}
}

func TestSet(t *testing.T) {
	var s set
	n := 1_000_000
	if testing.Short() {
		n /= 10
	}
	rng := rand.New(rand.NewPCG(1, 2))
	wrong, entries := 0, make([][2]uint64, n)
	for i := range entries {
		entries[i] = [2]uint64{rng.Uint64(), rng.Uint64()}
		if s.add(entries[i][0], uint32(entries[i][1])) {
			wrong++
		}
	}
	if wrong > 1 {
		t.Errorf("%d series are taken for others", wrong)
	}
	for _, e := range entries {
		if s.add(e[0], uint32(e[1])) {
			t.Fatal("a stream that was opened again is not another one")
		}
	}
	forgotten := 0
	for _, e := range entries {
		if !s.add(e[0], uint32(e[1])+1) {
			forgotten++
		}
	}
	if forgotten > n/50 { // the last table is not full, but some of its buckets are
		t.Errorf("%d are forgotten", forgotten)
	}
	t.Logf("%.1f bytes a series, %d forgotten", float64(s.memory())/float64(n), forgotten)
	for range n / 2 {
		s.add(rng.Uint64(), rng.Uint32())
	}
	if m := s.memory(); m > 10<<20 {
		t.Errorf("%d bytes", m)
	}
	var small set
	for i := range uint64(100) {
		small.add(rng.Uint64(), uint32(i))
	}
	if m := small.memory(); m > 10_000 {
		t.Errorf("%d bytes for 100 series", m)
	}
}
