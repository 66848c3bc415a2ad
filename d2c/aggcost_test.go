// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !race

// The race detector makes sync.Pool forget at random, and allocates on its own account.

package d2c_test

import (
	"fmt"
	"runtime/debug"
	"testing"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/streamid"
)

// loadTotals makes one total of each thousand points, or of those of all resources with one route each.
func loadTotals(t *testing.T, ofResources bool) *d2c.Converter {
	t.Helper()
	cfg := d2c.DefaultConfig()
	rule := d2c.AggregateRule{Metrics: []string{"*"}, Attributes: streamid.Selection{Drop: []string{"http.route"}}}
	if ofResources {
		rule = d2c.AggregateRule{Metrics: []string{"*"}, Resource: streamid.Selection{Drop: []string{"service.instance.id"}}}
	}
	cfg.Aggregate = []d2c.AggregateRule{rule}
	return newConverter(t, cfg)
}

// In steady state a point of a total costs no allocation, whatever its kind, where all of a resource is aggregated by one rule.
func TestAggregatesDoNotAllocate(t *testing.T) {
	const runs = 20
	for _, k := range []loadKind{loadInt, loadDouble, loadHistogram, loadLargeHistogram, loadExponential, loadLargeExponential} {
		for _, cumulative := range []bool{false, true} {
			for _, ofResources := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, cumulative %v, of resources %v", k.name, cumulative, ofResources), func(t *testing.T) {
					conv := loadTotals(t, ofResources)
					batches := make([]pmetric.Metrics, runs+3)
					for i := range batches {
						batches[i] = loadBatch(k)
						if cumulative { // that stands still, so that one fill is enough
							reload(batches[i], k, i%2, i/2)
							cumulativeOf(batches[i])
						} else {
							reload(batches[i], k, i%2, i/2)
						}
					}
					defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection empties pools
					convert(conv, batches[0])
					convert(conv, batches[1])
					next := 2
					var r d2c.Result
					allocs := testing.AllocsPerRun(runs, func() {
						r = convert(conv, batches[next])
						next++
					})
					if n := r.Count(d2c.AddedAligned) + r.Count(d2c.AddedReset); n != loadPoints {
						t.Fatalf("outcomes %s, want %d added", describeResult(r), loadPoints)
					}
					if allocs != 0 {
						t.Errorf("%v allocations per batch of %d points, want 0", allocs, loadPoints)
					}
				})
			}
		}
	}
}

// A writer of deltas has no value: it costs 48 bytes beside its identity, its share of the index, and of the room that shards have ahead: they
// are not equally full, as all writers of a total are in one.
func TestBytesPerWriter(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second")
	}
	const writers, identity, index, ahead, limit = 1_000_000, 16, 4 * 5 / 3.0, 2.5, 48
	md := loadBatch(loadInt)
	before := liveHeap()
	conv := loadTotals(t, true)
	for interval := range 2 {
		for i := range writers / loadPoints {
			reload(md, loadInt, i, interval)
			for _, rm := range md.ResourceMetrics().All() { // what was left of it has lost its routes' points
				if rm.ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints().Len() != loadPoints {
					t.Fatal("points are missing")
				}
			}
			r := convert(conv, md)
			if n := r.Count(d2c.AddedFirst) + r.Count(d2c.AddedAligned); n != loadPoints {
				t.Fatalf("outcomes %s", describeResult(r))
			}
		}
	}
	heap := liveHeap() - before
	if s := conv.Stats(); s.Writers != writers || s.Streams != loadPoints {
		t.Fatalf("%d writers, %d totals", s.Writers, s.Streams)
	}
	perWriter := float64(heap) / writers
	t.Logf("%.1f bytes per writer", perWriter)
	if perWriter > identity+index+ahead+limit {
		t.Errorf("%.1f bytes per writer, want at most %v", perWriter, identity+index+ahead+limit)
	}
	if off := float64(conv.Stats().MemoryBytes-heap) / float64(heap); off > 0.01 || off < -0.01 {
		t.Errorf("Stats says %d, the heap holds %d", conv.Stats().MemoryBytes, heap)
	}
	keepAlive(conv, md)
}
