// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid_test

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/deltaring/deltaring/streamid"
)

// gridMetrics is the batch of the benchmarks: resources with 6 attributes, each with one scope, metrics and points with 4
// attributes. The usual is 10 of each.
func gridMetrics(resources, metrics, points int) pmetric.Metrics {
	md := pmetric.NewMetrics()
	for r := range resources {
		rm := md.ResourceMetrics().AppendEmpty()
		resource, scope, _ := benchmarkHeaders()
		resource.Attributes().PutStr("service.name", fmt.Sprintf("service-%d", r))
		resource.MoveTo(rm.Resource())
		sm := rm.ScopeMetrics().AppendEmpty()
		scope.MoveTo(sm.Scope())
		for i := range metrics {
			m := sm.Metrics().AppendEmpty()
			m.SetName(fmt.Sprintf("http.server.requests.%d", i))
			m.SetUnit("{request}")
			m.SetEmptySum().SetIsMonotonic(true)
			m.Sum().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
			for p := range points {
				point := m.Sum().DataPoints().AppendEmpty()
				point.SetIntValue(int64(p))
				benchmarkAttributes(4).MoveTo(point.Attributes())
				point.Attributes().PutStr("http.route", fmt.Sprintf("/api/v1/route/%d", p))
			}
		}
	}
	return md
}

func TestOneOwnerGetsTheSameObject(t *testing.T) {
	md, td, ld := gridMetrics(2, 2, 2), randomTraces(newSteered(nil)), randomLogs(newSteered(nil))
	md.MarkReadOnly() // and so nothing is written
	td.MarkReadOnly()
	ld.MarkReadOnly()
	owner := func(uint64) int { return 3 }
	s := &streamid.Splitter{}
	if parts, _ := s.Metrics(md, 5, owner, nil); !slices.Equal(parts, []streamid.Part[pmetric.Metrics]{{Owner: 3, Batch: md}}) {
		t.Errorf("metrics: %v", parts)
	}
	if parts, _ := s.Traces(td, 5, owner, nil); !slices.Equal(parts, []streamid.Part[ptrace.Traces]{{Owner: 3, Batch: td}}) {
		t.Errorf("traces: %v", parts)
	}
	if parts, _ := s.Logs(ld, 5, owner, nil); !slices.Equal(parts, []streamid.Part[plog.Logs]{{Owner: 3, Batch: ld}}) {
		t.Errorf("logs: %v", parts)
	}
}

func TestBatchWithoutPointsGoesToTheOwnerOfKeyZero(t *testing.T) {
	nested := pmetric.NewMetrics()
	nested.ResourceMetrics().AppendEmpty()
	nested.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty().SetEmptySum()
	for _, md := range []pmetric.Metrics{pmetric.NewMetrics(), nested} {
		before := metricsBatch.bytes(t, md)
		owner := func(key uint64) int { return map[uint64]int{0: 7}[key] }
		parts, missing := splitterFor(keySpec{Name: "streamID"}, 0).Metrics(md, 8, owner, nil)
		if len(parts) != 1 || parts[0].Owner != 7 || parts[0].Batch != md || missing != 0 {
			t.Errorf("got %v, %d missing", parts, missing)
		}
		if after := metricsBatch.bytes(t, md); !bytes.Equal(after, before) {
			t.Errorf("got %x, want %x", after, before)
		}
	}
}

func TestPartsAreAppended(t *testing.T) {
	before := streamid.Part[pmetric.Metrics]{Owner: 42, Batch: pmetric.NewMetrics()}
	parts, _ := splitterFor(keySpec{Name: "streamID"}, 0).Metrics(gridMetrics(2, 2, 2), 10, ranged(10), []streamid.Part[pmetric.Metrics]{before})
	if len(parts) < 3 || parts[0] != before {
		t.Errorf("got %v", parts)
	}
	points := 0
	for _, p := range parts {
		points += p.Batch.DataPointCount()
	}
	if points != 8 {
		t.Errorf("%d points, want 8", points)
	}
}

// TestSplitterPanicsBeforeItChangesAnything, and works thereafter.
func TestSplitterPanicsBeforeItChangesAnything(t *testing.T) {
	owners := func(all ...int) func(uint64) int {
		return func(uint64) int {
			o := all[0]
			if len(all) > 1 {
				all = all[1:]
			}
			return o
		}
	}
	tests := []struct {
		name     string
		key      keySpec
		n        int
		owner    func(uint64) int
		readOnly bool
		want     string
	}{
		{"owner too large", keySpec{Name: "streamID"}, 3, owners(0, 1, 2, 3), false, "is 3, want 0 to 2"},
		{"owner negative", keySpec{Name: "streamID"}, 3, owners(0, 1, -1), false, "is -1, want 0 to 2"},
		{"owner smallest", keySpec{Name: "streamID"}, 3, owners(math.MinInt), false, "want 0 to 2"},
		{"no owners", keySpec{Name: "streamID"}, 0, owners(0), false, "is 0, want 0 to -1"},
		{"fewer than no owners", keySpec{Name: "streamID"}, -1, owners(0), false, "want 0 to -2"},
		{"owner panics", keySpec{Name: "streamID"}, 3, func(uint64) int { panic("no ring") }, false, "no ring"},
		{"key of another signal", keySpec{Name: "traceID"}, 3, owners(0), false, `routing key "traceID" does not go with metrics`},
		{"read-only", keySpec{Name: "streamID"}, 3, owners(0, 1, 2), true, "read-only"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			md := gridMetrics(2, 2, 2)
			before := metricsBatch.bytes(t, md)
			if test.readOnly {
				md.MarkReadOnly()
			}
			s := splitterFor(test.key, 0)
			got := func() (got string) {
				defer func() { got = fmt.Sprint(recover()) }()
				s.Metrics(md, test.n, test.owner, nil)
				return "nothing"
			}()
			if !strings.Contains(got, test.want) {
				t.Errorf("panic: got %s, want %s", got, test.want)
			}
			if after := metricsBatch.bytes(t, md); !bytes.Equal(after, before) {
				t.Errorf("got %x, want %x", after, before)
			}
			if test.key.Name == "streamID" {
				metricsBatch.checkOnce(t, gridMetrics(2, 2, 2), test.key, 0, 3)
			}
		})
	}
}

// TestWhatLacksTheKeyIsRoutedByItsResource and is counted, down to the number of points.
func TestWhatLacksTheKeyIsRoutedByItsResource(t *testing.T) {
	md := gridMetrics(2, 3, 4)
	md.ResourceMetrics().At(1).Resource().Attributes().Remove("service.name")
	byResource, none := keysOf(metricsBatch, keySpec{Name: "resource"}, 0, md)
	if none != 0 {
		t.Errorf("resource: %d missing, want none", none)
	}
	byService, missing := keysOf(metricsBatch, keySpec{Name: "service"}, 0, md)
	if byService[1] != byResource[1] || byService[0] == byResource[0] || missing != 12 {
		t.Errorf("service: keys %x, %d missing, want 12; by resource %x", byService, missing, byResource)
	}
	byTenant, missing := keysOf(metricsBatch, keySpec{Name: "attributes", Attributes: []string{"tenant"}}, 0, md)
	if len(byTenant) != 24 || byTenant[0] != byResource[0] || byTenant[23] != byResource[1] || missing != 24 {
		t.Errorf("attributes: keys %x, %d missing, want 24; by resource %x", byTenant, missing, byResource)
	}
}

func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool forget")
	}
	one, ten := ranged(1), ranged(10)
	t.Run("one owner", func(t *testing.T) {
		for _, spec := range append(keySpecs("metrics"), keySpec{}) {
			s := splitterFor(spec, 0)
			md := gridMetrics(10, 10, 10)
			parts := make([]streamid.Part[pmetric.Metrics], 0, 1)
			if got := testing.AllocsPerRun(100, func() { s.Metrics(md, 1, one, parts) }); got != 0 {
				t.Errorf("%v: %v allocations", spec, got)
			}
		}
		for _, spec := range keySpecs("traces") {
			s := splitterFor(spec, 0)
			td, ld := randomTraces(newSteered(nil)), randomLogs(newSteered(nil))
			spans, records := make([]streamid.Part[ptrace.Traces], 0, 1), make([]streamid.Part[plog.Logs], 0, 1)
			if got := testing.AllocsPerRun(100, func() {
				s.Traces(td, 1, one, spans)
				s.Logs(ld, 1, one, records)
			}); got != 0 {
				t.Errorf("%v: %v allocations", spec, got)
			}
		}
	})
	if !streamid.LayoutUsed {
		return
	}
	t.Run("ten owners", func(t *testing.T) {
		s := splitterFor(keySpec{Name: "streamID"}, 0)
		if got := allocationsPerPoint(gridMetrics(10, 10, 10), func(md pmetric.Metrics) { s.Metrics(md, 10, ten, nil) }); got > 0.1 {
			t.Errorf("%v allocations per point, want at most 0.1", got)
		}
	})
	t.Run("whole resources", func(t *testing.T) {
		// Two for the part, one for its list of resources.
		s := splitterFor(keySpec{Name: "resource"}, 0)
		parts := make([]streamid.Part[pmetric.Metrics], 0, 10)
		if got := allocationsPerPoint(gridMetrics(10, 10, 10), func(md pmetric.Metrics) { s.Metrics(md, 10, ten, parts) }); got > 0.03 {
			t.Errorf("%v allocations per point, want at most 0.03", got)
		}
	})
}

// allocationsPerPoint calls f with copies of md.
func allocationsPerPoint(md pmetric.Metrics, f func(pmetric.Metrics)) float64 {
	const runs = 20
	copies := make([]pmetric.Metrics, 0, runs+1)
	for range cap(copies) {
		copies = append(copies, metricsBatch.clone(md))
	}
	return testing.AllocsPerRun(runs, func() {
		f(copies[0])
		copies = copies[1:]
	}) / float64(md.DataPointCount())
}

// TestConcurrentSplits is for the race detector: one Splitter, a batch for each goroutine.
func TestConcurrentSplits(t *testing.T) {
	spec := keySpec{Name: "streamID"}
	m := modelOf{spec: spec, owner: ranged(7)}
	original := gridMetrics(3, 3, 7)
	original.MarkReadOnly()
	model := m.metrics(original)
	var want [][]byte
	for _, owner := range model.owners() {
		want = append(want, metricsBatch.bytes(t, onlyMetrics(original, model, owner)))
	}
	s := &streamid.Splitter{Key: spec.key()}
	var splits sync.WaitGroup
	for range 4 {
		splits.Go(func() {
			for range 25 {
				parts, _ := s.Metrics(metricsBatch.clone(original), 7, ranged(7), nil)
				for i, p := range parts {
					if got := metricsBatch.bytes(t, p.Batch); !bytes.Equal(got, want[i]) {
						t.Errorf("part %d: got %x, want %x", i, got, want[i])
					}
				}
			}
		})
	}
	splits.Wait()
}

// TestEntityReferencesAreCopied, to which pdata gives access only on the wire.
func TestEntityReferencesAreCopied(t *testing.T) {
	reference := appendField(appendField(nil, 3, []byte("service.name")), 2, []byte("service")) // in the order of pdata
	for _, resource := range [][]byte{
		appendField(appendAttributes(nil, []attribute{attr("service.name", str("checkout"))}), 3, reference),
		appendField(appendAttributes(nil, []attribute{attr("process.pid", integer(1))}), 3, reference),
		appendField(nil, 3, reference),
	} {
		var points []byte
		for i := range int64(20) {
			points = appendField(points, 1, appendField(nil, 7, append([]byte{0x0a, 1, 'a', 0x12, 2, 0x18}, byte(i))))
		}
		gauge := appendField(nil, 2, appendField(nil, 2, appendField(nil, 5, points)))
		md, err := new(pmetric.ProtoUnmarshaler).UnmarshalMetrics(appendField(nil, 1, append(appendField(nil, 1, resource), gauge...)))
		if err != nil {
			t.Fatal(err)
		}
		if md.DataPointCount() != 20 {
			t.Fatalf("%d points: %x", md.DataPointCount(), metricsBatch.bytes(t, md))
		}
		if wire := metricsBatch.bytes(t, md); !bytes.Contains(wire, reference) {
			t.Fatalf("no %x in %x", reference, wire)
		}
		metricsBatch.check(t, md, keySpec{Name: "streamID"}, 0, 3)
	}
}

// TestManyOwners: thousands of members and a batch that all have something of.
func TestManyOwners(t *testing.T) {
	md := gridMetrics(4, 5, 100)
	inBothWays(t, func() {
		parts, _ := splitterFor(keySpec{Name: "streamID"}, 0).Metrics(metricsBatch.clone(md), 5000, ranged(5000), nil)
		points := 0
		for i, p := range parts {
			points += p.Batch.DataPointCount()
			if i > 0 && p.Owner == parts[i-1].Owner {
				t.Errorf("owner %d has two parts", p.Owner)
			}
		}
		if points != 2000 {
			t.Errorf("%d points, want 2000", points)
		}
	})
}
