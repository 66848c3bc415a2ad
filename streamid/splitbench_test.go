// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid_test

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/streamid"
)

// BenchmarkSplit is the cost per point on a batch of 10 resources with 6 attributes, 10 metrics each and 10 points with 4
// attributes each, by stream and for more and more owners:
//
//   - split is Splitter;
//   - exported is Splitter without the layout of pdata, as with the build tag purego;
//   - clone is the naive way, which copies each point with all its headers.
func BenchmarkSplit(b *testing.B) {
	for _, n := range []int{1, 2, 10, 100} {
		owner := ranged(n)
		s := &streamid.Splitter{Key: keySpec{Name: "streamID"}.key()}
		parts := make([]streamid.Part[pmetric.Metrics], 0, n)
		split := func(md pmetric.Metrics) { s.Metrics(md, n, owner, parts) }
		b.Run(fmt.Sprintf("split/owners=%d", n), func(b *testing.B) { perPoint(b, gridMetrics(10, 10, 10), split) })
		b.Run(fmt.Sprintf("exported/owners=%d", n), func(b *testing.B) {
			defer streamid.ForgetLayout()()
			perPoint(b, gridMetrics(10, 10, 10), split)
		})
		b.Run(fmt.Sprintf("clone/owners=%d", n), func(b *testing.B) {
			perPoint(b, gridMetrics(10, 10, 10), func(md pmetric.Metrics) { splitByCloning(md, n, owner) })
		})
	}
}

// BenchmarkSplitKeys is the cost per point of the other keys with 10 owners.
func BenchmarkSplitKeys(b *testing.B) {
	for _, spec := range []keySpec{
		{Name: "metric"}, {Name: "resource"}, {Name: "service"},
		{Name: "attributes", Attributes: []string{"k8s.node.name"}},
		{Name: "attributes", Attributes: []string{"http.route"}},
		{Name: "streamID"}, {Name: "aggregate", Rules: []ruleSpec{
			{[]string{"rpc.*", "*.duration"}, reductionSpec{Resource: drop("k8s.pod.name"), Point: keep()}},
			{[]string{"http.server.*"}, reductionSpec{Resource: drop("k8s.pod.name", "service.instance.id")}},
		}},
	} {
		owner := ranged(10)
		s := &streamid.Splitter{Key: spec.key()}
		parts := make([]streamid.Part[pmetric.Metrics], 0, 10)
		b.Run(fmt.Sprintf("%s%s", spec.Name, spec.Attributes), func(b *testing.B) {
			perPoint(b, gridMetrics(10, 10, 10), func(md pmetric.Metrics) { s.Metrics(md, 10, owner, parts) })
		})
	}
}

// BenchmarkSplitCold is the cost per point where what the table of owners is in has been used for other things since the batch before,
// as in a gateway, which has decoded and compressed meanwhile.
func BenchmarkSplitCold(b *testing.B) {
	table := make([]uint16, 1<<16) // as large as that of a ring
	for i := range table {
		table[i] = uint16(i % 3)
	}
	owner := func(key uint64) int { return int(table[key>>48]) }
	s := &streamid.Splitter{Key: keySpec{Name: "streamID"}.key()}
	parts := make([]streamid.Part[pmetric.Metrics], 0, 3)
	other := make([]byte, 64<<20)
	md := gridMetrics(10, 10, 10)
	var all []time.Duration
	for b.Loop() {
		of := metricsBatch.clone(md)
		for i := 0; i < len(other); i += 64 {
			other[i]++
		}
		for _, rm := range of.ResourceMetrics().All() { // a batch has been decoded just now
			for _, m := range rm.ScopeMetrics().At(0).Metrics().All() {
				for _, p := range m.Sum().DataPoints().All() {
					for _, v := range p.Attributes().All() {
						if v.Type() == pcommon.ValueTypeStr {
							other[0] += v.Str()[0]
						}
					}
				}
			}
		}
		start := time.Now()
		s.Metrics(of, 3, owner, parts)
		all = append(all, time.Since(start))
	}
	slices.Sort(all)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(all[len(all)/2].Nanoseconds())/float64(md.DataPointCount()), "ns/point")
}

// perPoint reports the time and the allocations that f takes per point. Each time f gets a copy of md, which is not counted.
// Meanwhile there is a heap of 64 MiB, as a collector has one at least: the garbage collector runs as often as the heap
// doubles, and with little more than a batch on it, that would be all it does.
func perPoint(b *testing.B, md pmetric.Metrics, f func(pmetric.Metrics)) {
	heap := make([]byte, 64<<20)
	points := float64(md.DataPointCount())
	var taken time.Duration
	runs := 0
	for b.Loop() {
		of := metricsBatch.clone(md)
		start := time.Now()
		f(of)
		taken += time.Since(start)
		runs++
	}
	b.ReportMetric(0, "ns/op") // it has the copying in it
	b.ReportMetric(float64(taken.Nanoseconds())/float64(runs)/points, "ns/point")
	b.ReportMetric(allocationsPerPoint(md, f), "allocs/point")
	runtime.KeepAlive(heap)
}

// splitByCloning copies each point, with resource, scope and metric, and puts the copies of an owner together.
func splitByCloning(md pmetric.Metrics, n int, owner func(uint64) int) map[int]pmetric.Metrics {
	parts := make(map[int]pmetric.Metrics, n)
	for _, rm := range md.ResourceMetrics().All() {
		for _, sm := range rm.ScopeMetrics().All() {
			for _, m := range sm.Metrics().All() {
				id := streamid.Seed(0).Resource(rm.Resource()).Scope(sm.Scope()).Metric(m)
				for _, point := range m.Sum().DataPoints().All() {
					clone := pmetric.NewMetrics()
					to := clone.ResourceMetrics().AppendEmpty()
					rm.Resource().CopyTo(to.Resource())
					to.SetSchemaUrl(rm.SchemaUrl())
					scope := to.ScopeMetrics().AppendEmpty()
					sm.Scope().CopyTo(scope.Scope())
					scope.SetSchemaUrl(sm.SchemaUrl())
					metric := scope.Metrics().AppendEmpty()
					metric.SetName(m.Name())
					metric.SetDescription(m.Description())
					metric.SetUnit(m.Unit())
					metric.SetEmptySum().SetIsMonotonic(m.Sum().IsMonotonic())
					metric.Sum().SetAggregationTemporality(m.Sum().AggregationTemporality())
					point.CopyTo(metric.Sum().DataPoints().AppendEmpty())

					o := owner(refFold(id.Point(point.Attributes())))
					if part, ok := parts[o]; ok {
						clone.ResourceMetrics().MoveAndAppendTo(part.ResourceMetrics())
					} else {
						parts[o] = clone
					}
				}
			}
		}
	}
	return parts
}

// TestSplitByCloningDoesTheSame, lest the benchmark compares what is not comparable.
func TestSplitByCloningDoesTheSame(t *testing.T) {
	md := gridMetrics(3, 3, 5)
	clones := splitByCloning(md, 4, ranged(4))
	parts, _ := splitterFor(keySpec{Name: "streamID"}, 0).Metrics(md, 4, ranged(4), nil)
	if len(parts) != len(clones) {
		t.Errorf("%d parts, want %d", len(parts), len(clones))
	}
	points := func(md pmetric.Metrics) (all [][]byte) {
		for _, rm := range md.ResourceMetrics().All() {
			for _, m := range rm.ScopeMetrics().At(0).Metrics().All() {
				for _, p := range m.Sum().DataPoints().All() {
					single := gridMetrics(1, 1, 1)
					to := single.ResourceMetrics().At(0)
					rm.Resource().CopyTo(to.Resource())
					to.ScopeMetrics().At(0).Metrics().At(0).SetName(m.Name())
					p.CopyTo(to.ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints().At(0))
					all = append(all, metricsBatch.bytes(t, single))
				}
			}
		}
		return all
	}
	for _, p := range parts {
		if !slices.EqualFunc(points(p.Batch), points(clones[p.Owner]), bytes.Equal) {
			t.Errorf("owner %d gets other points", p.Owner)
		}
	}
}
