// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/deltaring/deltaring/streamid"
)

// ranged is an owner function like that of a ring: each owner has a range of keys.
func ranged(n int) func(uint64) int {
	return func(key uint64) int { return int(key >> 32 * uint64(n) >> 32) }
}

// batch is any kind of batch; the functions are those of the test or of pdata for it.
type batch[B comparable] struct {
	copyTo  func(from, to B)
	create  func() B
	marshal func(B) ([]byte, error)
	split   func(*streamid.Splitter, B, int, func(uint64) int) (owners []int, parts []B, missing int)
	model   func(*modelOf, B) *element
	only    func(B, *element, int) B
}

var metricsBatch = batch[pmetric.Metrics]{
	copyTo:  pmetric.Metrics.CopyTo,
	create:  pmetric.NewMetrics,
	marshal: new(pmetric.ProtoMarshaler).MarshalMetrics,
	split: func(s *streamid.Splitter, md pmetric.Metrics, n int, owner func(uint64) int) (owners []int, batches []pmetric.Metrics, missing int) {
		parts, missing := s.Metrics(md, n, owner, nil)
		return unzip(parts, missing)
	},
	model: (*modelOf).metrics,
	only:  onlyMetrics,
}

// metricsBatchOf is metricsBatch for a tenant.
func metricsBatchOf(tenant []streamid.TenantKey) batch[pmetric.Metrics] {
	b := metricsBatch
	b.split = func(s *streamid.Splitter, md pmetric.Metrics, n int, owner func(uint64) int) (owners []int, batches []pmetric.Metrics, missing int) {
		parts, missing := s.MetricsOf(tenant, md, n, owner, nil)
		return unzip(parts, missing)
	}
	return b
}

func unzip(parts []streamid.Part[pmetric.Metrics], missing int) (owners []int, batches []pmetric.Metrics, _ int) {
	for _, p := range parts {
		owners, batches = append(owners, p.Owner), append(batches, p.Batch)
	}
	return owners, batches, missing
}

var tracesBatch = batch[ptrace.Traces]{
	copyTo:  ptrace.Traces.CopyTo,
	create:  ptrace.NewTraces,
	marshal: new(ptrace.ProtoMarshaler).MarshalTraces,
	split: func(s *streamid.Splitter, td ptrace.Traces, n int, owner func(uint64) int) (owners []int, batches []ptrace.Traces, missing int) {
		parts, missing := s.Traces(td, n, owner, nil)
		for _, p := range parts {
			owners, batches = append(owners, p.Owner), append(batches, p.Batch)
		}
		return owners, batches, missing
	},
	model: (*modelOf).traces,
	only:  onlyTraces,
}

var logsBatch = batch[plog.Logs]{
	copyTo:  plog.Logs.CopyTo,
	create:  plog.NewLogs,
	marshal: new(plog.ProtoMarshaler).MarshalLogs,
	split: func(s *streamid.Splitter, ld plog.Logs, n int, owner func(uint64) int) (owners []int, batches []plog.Logs, missing int) {
		parts, missing := s.Logs(ld, n, owner, nil)
		for _, p := range parts {
			owners, batches = append(owners, p.Owner), append(batches, p.Batch)
		}
		return owners, batches, missing
	},
	model: (*modelOf).logs,
	only:  onlyLogs,
}

func (b batch[B]) bytes(t testing.TB, of B) []byte {
	t.Helper()
	wire, err := b.marshal(of)
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

func (b batch[B]) clone(of B) B {
	c := b.create()
	b.copyTo(of, c)
	return c
}

// check splits in both ways and demands of each that parts are as the model has them.
func (b batch[B]) check(t testing.TB, of B, spec keySpec, seed uint64, n int) {
	t.Helper()
	inBothWays(t, func() { b.checkOnce(t, b.clone(of), spec, seed, n) })
}

// checkOnce uses up what it is given.
func (b batch[B]) checkOnce(t testing.TB, of B, spec keySpec, seed uint64, n int) {
	t.Helper()
	original := b.clone(of)
	m := modelOf{spec: spec, seed: seed, owner: ranged(n)}
	model := b.model(&m, original)
	if model.owner == nobody {
		model.owner = ranged(n)(0)
	}

	s := splitterFor(spec, seed)
	owners, parts, missing := b.split(s, of, n, ranged(n))
	if missing != m.missing {
		t.Errorf("%v: %d missing, want %d", s.Key, missing, m.missing)
	}
	if want := model.owners(); !slices.Equal(owners, want) {
		t.Fatalf("%v: owners %v, want %v, of %x", s.Key, owners, want, b.bytes(t, original))
	}
	if len(parts) == 1 {
		if parts[0] != of {
			t.Errorf("%v: a batch with one owner is another object", s.Key)
		}
	} else if left := b.bytes(t, of); len(left) > 0 {
		t.Errorf("%v: left in the batch: %x", s.Key, left)
	}
	for i, owner := range owners {
		got, want := b.bytes(t, parts[i]), b.bytes(t, b.only(original, model, owner))
		if !bytes.Equal(got, want) {
			t.Fatalf("%v: part of %d of %d:\ngot  %x\nwant %x\nof   %x", s.Key, owner, n, got, want, b.bytes(t, original))
		}
	}
}

// splitters are used again and again, to find what one split leaves to the next.
var splitters = map[string]*streamid.Splitter{}

func splitterFor(spec keySpec, seed uint64) *streamid.Splitter {
	id := fmt.Sprintf("%#v %d", spec, seed)
	if splitters[id] == nil {
		splitters[id] = &streamid.Splitter{Key: spec.key(), Seed: streamid.Seed(seed)}
	}
	return splitters[id]
}

// inBothWays runs f as it is, and with the exported methods of pdata only.
func inBothWays(t testing.TB, f func()) {
	t.Helper()
	f()
	defer streamid.ForgetLayout()()
	f()
}

func TestSplitsAgreeWithTheModel(t *testing.T) {
	rounds := 1500
	if testing.Short() {
		rounds = 100
	}
	t.Run("metrics", func(t *testing.T) {
		r := rand.New(rand.NewPCG(21, 1))
		for range rounds {
			metricsBatch.check(t, randomMetrics(r), pick(r, keySpecs("metrics")), uint64(r.IntN(2)), 1+r.IntN(12))
		}
	})
	t.Run("traces", func(t *testing.T) {
		r := rand.New(rand.NewPCG(21, 2))
		for range rounds {
			tracesBatch.check(t, randomTraces(r), pick(r, keySpecs("traces")), uint64(r.IntN(2)), 1+r.IntN(12))
		}
	})
	t.Run("logs", func(t *testing.T) {
		r := rand.New(rand.NewPCG(21, 3))
		for range rounds {
			logsBatch.check(t, randomLogs(r), pick(r, keySpecs("logs")), uint64(r.IntN(2)), 1+r.IntN(12))
		}
	})
}

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

// TestPartsHaveNothingInCommon changes all there is in one part after another. It is to do what it does to a copy, and
// nothing to the other parts.
func TestPartsHaveNothingInCommon(t *testing.T) {
	r := rand.New(rand.NewPCG(22, 1))
	for range 200 {
		md := randomMetrics(r)
		spec := pick(r, keySpecs("metrics"))
		inBothWays(t, func() {
			_, parts, _ := metricsBatch.split(splitterFor(spec, 0), metricsBatch.clone(md), 5, ranged(5))
			unchanged := make([][]byte, len(parts))
			for i, part := range parts {
				unchanged[i] = metricsBatch.bytes(t, part)
			}
			for i := range parts {
				clone := metricsBatch.clone(parts[i])
				scribble(parts[i])
				scribble(clone)
				if got, want := metricsBatch.bytes(t, parts[i]), metricsBatch.bytes(t, clone); !bytes.Equal(got, want) {
					t.Fatalf("%v: part %d does not change as a copy does:\ngot  %x\nwant %x", spec, i, got, want)
				}
				for j := i + 1; j < len(parts); j++ {
					if got := metricsBatch.bytes(t, parts[j]); !bytes.Equal(got, unchanged[j]) {
						t.Fatalf("%v: changing part %d changes part %d:\ngot  %x\nwant %x", spec, i, j, got, unchanged[j])
					}
				}
			}
		})
	}
}

// scribble changes everything in md, and adds to every list.
func scribble(md pmetric.Metrics) {
	change := func(attrs pcommon.Map) {
		for _, v := range attrs.All() {
			v.SetStr("scribble")
		}
		attrs.PutStr("scribble", "scribble")
	}
	for _, rm := range md.ResourceMetrics().All() {
		change(rm.Resource().Attributes())
		rm.SetSchemaUrl("scribble")
		for _, sm := range rm.ScopeMetrics().All() {
			change(sm.Scope().Attributes())
			sm.Scope().SetName("scribble")
			for _, m := range sm.Metrics().All() {
				change(m.Metadata())
				m.SetName("scribble")
				for _, attrs := range pointAttributes(m) {
					change(attrs)
				}
				switch m.Type() {
				case pmetric.MetricTypeGauge:
					m.Gauge().DataPoints().AppendEmpty()
				case pmetric.MetricTypeSum:
					m.Sum().SetIsMonotonic(!m.Sum().IsMonotonic())
					m.Sum().DataPoints().AppendEmpty()
				case pmetric.MetricTypeHistogram:
					m.Histogram().SetAggregationTemporality(99)
					m.Histogram().DataPoints().AppendEmpty()
				case pmetric.MetricTypeExponentialHistogram:
					m.ExponentialHistogram().SetAggregationTemporality(99)
					m.ExponentialHistogram().DataPoints().AppendEmpty()
				case pmetric.MetricTypeSummary:
					m.Summary().DataPoints().AppendEmpty()
				}
			}
			sm.Metrics().AppendEmpty().SetEmptyGauge()
		}
		rm.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	}
	md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty()
}

// TestPartsDoNotKeepOneAnother: a part that waits in a queue keeps no points but its own from the garbage collector.
func TestPartsDoNotKeepOneAnother(t *testing.T) {
	const points, size = 64, 256 << 10
	s := splitterFor(keySpec{Name: "attributes", Attributes: []string{"tenant"}}, 0)
	for keep := range 4 {
		inBothWays(t, func() {
			md := pmetric.NewMetrics()
			metrics := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics()
			for i := range points {
				if i%16 == 0 {
					metrics.AppendEmpty().SetEmptyGauge()
				}
				attrs := metrics.At(metrics.Len() - 1).Gauge().DataPoints().AppendEmpty().Attributes()
				attrs.PutStr("tenant", string(rune('a'+i%4)))
				attrs.PutStr("big", strings.Repeat("x", size))
			}
			before := heap()
			_, parts, _ := metricsBatch.split(s, md, 1000, ranged(1000))
			if len(parts) != 4 {
				t.Fatalf("%d parts, want 4", len(parts))
			}
			part := parts[keep]
			clear(parts)
			if freed, want := before-heap(), int64(points*3/4*size*9/10); freed < want {
				t.Errorf("with part %d of 4 left, %d bytes were freed, want at least %d", keep, freed, want)
			}
			runtime.KeepAlive(part)
			runtime.KeepAlive(md)
		})
	}
}

func heap() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}
