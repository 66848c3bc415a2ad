// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !race

// The race detector triples the time and adds nothing: one goroutine converts.

package d2c_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
)

// What a stream costs is measured as live heap, everything included: slots, index, buckets, slack from growth and the
// Converter itself. Bytes must say the same.
func TestBytesPerStream(t *testing.T) {
	for _, c := range []struct {
		loadKind
		streams int
	}{
		{loadInt, 1_000_000},
		{loadDouble, 1_000_000},
		{loadHistogram, 200_000},
		{loadLargeHistogram, 200_000},
		{loadExponential, 200_000},
		{loadLargeExponential, 200_000},
	} {
		t.Run(c.name, func(t *testing.T) {
			if testing.Short() && c.streams > 200_000 {
				t.Skip("takes a second")
			}
			md := loadBatch(c.loadKind)
			before := liveHeap()
			conv := newLoadConverter(t)
			for interval := range 2 {
				for i := range c.streams / loadPoints {
					reload(md, c.loadKind, i, interval)
					r := convert(conv, md)
					if want := [...]d2c.Outcome{d2c.AddedFirst, d2c.AddedAligned}[interval]; r.Count(want) != loadPoints {
						t.Fatalf("outcomes %v, want %d %v", describeResult(r), loadPoints, want)
					}
				}
			}
			checkBytes(t, conv, liveHeap()-before, c.streams, c.limit)
			keepAlive(conv, md)
		})
	}
}

// An SDK sends nothing for an interval without measurements, so most counters have gaps all the time, and remember as many as
// there is room for.
func TestBytesPerQuietStream(t *testing.T) {
	const streams, limit = 1_000_000, 120
	if testing.Short() {
		t.Skip("takes seconds")
	}
	md := loadBatch(loadInt)
	random := rand.New(rand.NewPCG(1, 2))
	before := liveHeap()
	conv := newLoadConverter(t)
	for interval := range 6 {
		for i := range streams / loadPoints {
			reload(md, loadInt, i, 2*interval)
			m := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0)
			for _, dp := range m.Sum().DataPoints().All() {
				// Producers read their clocks when they can: no time is a round one, and no gap as long as another.
				dp.SetTimestamp(dp.Timestamp() + pcommon.Timestamp(random.Int64N(1e9)))
				dp.SetStartTimestamp(dp.StartTimestamp() + pcommon.Timestamp(random.Int64N(1e9)))
			}
			r := convert(conv, md)
			if want := [...]d2c.Outcome{d2c.AddedFirst, d2c.AddedGap}[min(interval, 1)]; r.Count(want) != loadPoints {
				t.Fatalf("outcomes %v, want %d %v", describeResult(r), loadPoints, want)
			}
		}
	}
	checkBytes(t, conv, liveHeap()-before, streams, limit)
	for _, s := range conv.States()[:100] {
		if len(s.Gaps) != 4 {
			t.Fatalf("%d gaps, want 4: %v", len(s.Gaps), s.Gaps)
		}
	}
	keepAlive(conv, md)
}

// Streams of many writers outgrow what they remember in, here all at the same deltas: what nobody needs any more is given back on
// the way, so that it is never more than half of what is needed.
func TestBytesOfManyWriters(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const most, perDelta = 40 << 10, 120
	for _, c := range []struct {
		streams, deltas int
		limit           float64 // in the end
	}{
		{100_000, 50, 50 * perDelta},
		{3000, 1600, most},
	} {
		t.Run(fmt.Sprintf("%d deltas", c.deltas), func(t *testing.T) {
			md := loadBatch(loadInt)
			before := liveHeap()
			conv := newConverter(t, manyWriters(d2c.DefaultConfig()))
			peak := 0.0
			for n := range c.deltas {
				for i := range c.streams / loadPoints {
					reload(md, loadInt, i, n)
					r := convert(conv, md)
					if want := [...]d2c.Outcome{d2c.AddedFirst, d2c.AddedUnordered}[min(n, 1)]; r.Count(want) != loadPoints {
						t.Fatalf("outcomes %v, want %d %v", describeResult(r), loadPoints, want)
					}
					peak = max(peak, float64(conv.Stats().MemoryBytes)/float64(c.streams))
				}
				if peak > most || n > 2 && c.streams > 10_000 && peak > perDelta*float64(n+1) {
					t.Fatalf("%.1f bytes per stream of %d deltas, want at most %d, and %d for each delta", peak, n+1, most, perDelta)
				}
			}
			checkBytes(t, conv, liveHeap()-before, c.streams, c.limit)
			t.Logf("%.1f bytes per stream at most", peak)
			keepAlive(conv, md)
		})
	}
}

func checkBytes(t *testing.T, conv *d2c.Converter, heap int64, streams int, limit float64) {
	t.Helper()
	if conv.Len() != streams {
		t.Fatalf("%d streams, want %d", conv.Len(), streams)
	}
	perStream := float64(heap) / float64(streams)
	t.Logf("%.1f bytes per stream, at most %v", perStream, limit)
	if perStream > limit {
		t.Errorf("%.1f bytes per stream, want at most %v", perStream, limit)
	}
	if off := math.Abs(float64(conv.Stats().MemoryBytes-heap)) / float64(heap); off > 0.01 {
		t.Errorf("Bytes says %d, the heap holds %d: %.1f %% off, want at most 1 %%", conv.Stats().MemoryBytes, heap, 100*off)
	}
}

// liveHeap returns the bytes that survive collection. It takes two: pools give up their contents over two cycles.
func liveHeap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// keepAlive sees to it that both heaps measured hold the same but for the streams.
func keepAlive(conv *d2c.Converter, md pmetric.Metrics) {
	runtime.KeepAlive(conv)
	runtime.KeepAlive(md)
}
