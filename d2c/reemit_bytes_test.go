// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !race

// The race detector triples the time and adds nothing: one goroutine converts.

package d2c_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
)

// namedBatch is a thousand streams with five attributes, of 8 bytes each and with 12 bytes of value.
func namedBatch() pmetric.Metrics {
	md := loadBatch(loadInt)
	for i, dp := range md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints().All() {
		dp.Attributes().Clear()
		for k := range 5 {
			dp.Attributes().PutStr(fmt.Sprintf("key_%04d", k), fmt.Sprintf("value_%02d%04d", k, i))
		}
	}
	return md
}

// What a stream costs more that can be given out again, and was: who it is, and the time of that.
func TestBytesPerStreamGivenOutAgain(t *testing.T) {
	const streams = 400_000
	measure := func(interval time.Duration) float64 {
		md := namedBatch()
		before := liveHeap()
		cfg := d2c.DefaultConfig()
		now := time.Unix(1_760_000_020, 0)
		cfg.ReemitInterval, cfg.Now = interval, func() time.Time { return now }
		conv := newConverter(t, cfg)
		for i := range streams / loadPoints {
			// One resource for 50 000 streams, which are 50 metrics of a thousand.
			reload(md, loadInt, i/50, 0)
			md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).SetName(fmt.Sprint("load.", i%50))
			if r := convert(conv, md); r.Count(d2c.AddedFirst) != loadPoints {
				t.Fatal(describeResult(r))
			}
		}
		if interval > 0 {
			now = now.Add(time.Minute)
			n, err := conv.Reemit(context.Background(), nil, func(context.Context, pmetric.Metrics) error { return nil })
			if n != streams || err != nil {
				t.Fatal(n, err)
			}
		}
		heap := liveHeap() - before
		if off := math.Abs(float64(conv.Stats().MemoryBytes-heap)) / float64(heap); off > 0.01 && interval > 0 {
			t.Errorf("Bytes says %d, the heap holds %d: %.1f %% off, want at most 1 %%", conv.Stats().MemoryBytes, heap, 100*off)
		}
		keepAlive(conv, md)
		return float64(heap) / streams
	}
	without, with := measure(0), measure(time.Second)
	t.Logf("%.1f bytes per stream, %.1f without", with, without)
	if more := with - without; more > 160 {
		t.Errorf("%.1f bytes more per stream, want 160 at most", more)
	}
}

// Once a stream is known, to know who it is allocates nothing for its deltas, and nor does a zero for those that begin no life.
func TestNamedStreamsDoNotAllocate(t *testing.T) {
	const runs = 20
	cfg := d2c.DefaultConfig()
	cfg.ReemitInterval, cfg.EmitZero = time.Minute, true
	conv := newConverter(t, cfg)
	batches := make([]pmetric.Metrics, runs+2)
	for i := range batches {
		batches[i] = namedBatch()
		reload(batches[i], loadInt, 0, i)
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	convert(conv, batches[0])
	next := 1
	allocs := testing.AllocsPerRun(runs, func() {
		if r := convert(conv, batches[next]); r.Count(d2c.AddedAligned) != loadPoints {
			t.Fatal(describeResult(r))
		}
		next++
	})
	if allocs != 0 {
		t.Errorf("%v allocations per batch, want 0", allocs)
	}
}

// What streams no longer need is given back, but for a chunk of each shard: families that nobody is of, and the values of those that have expired.
func TestNamesAreGivenBack(t *testing.T) {
	now := int64(1_760_000_020)
	cfg := reemitting(&now)
	cfg.MaxStale = time.Second
	conv := newConverter(t, cfg)
	empty := conv.Stats().MemoryBytes
	md := namedBatch()
	for i := range 200 {
		reload(md, loadInt, i, 0)
		convert(conv, md)
	}
	full := conv.Stats().MemoryBytes
	now += 10
	for i := range 2 { // of two hundred thousand two stay
		reload(md, loadInt, 198+i, 1)
		convert(conv, md)
	}
	conv.Expire()
	if got := conv.Stats().MemoryBytes; got > full/10 {
		t.Errorf("%d bytes for a hundredth of the streams that took %d", got, full)
	}
	now += 20
	seen := map[string]bool{}
	n, err := conv.Reemit(context.Background(), nil, func(_ context.Context, md pmetric.Metrics) error {
		for _, l := range lines(md) {
			seen[l.key] = true
		}
		return nil
	})
	if n != 2*loadPoints || len(seen) != n || err != nil {
		t.Errorf("%d samples of %d streams, want %d: %v", n, len(seen), 2*loadPoints, err)
	}
	now += 10
	conv.Expire()
	if got := conv.Stats().MemoryBytes; conv.Len() != 0 || got > empty+d2c.Shards*17_000 {
		t.Errorf("%d streams left, and %d bytes, %d without streams", conv.Len(), got, empty)
	}
}

// Batches are bounded; what a consumer refuses comes again an interval later.
func TestReemitInBatches(t *testing.T) {
	now := int64(1000)
	for mode, conv := range converters(t, reemitting(&now)) {
		now = 1000
		md := loadBatch(loadInt)
		for i := range 3 {
			reload(md, loadInt, i, 0)
			for dp := range md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints().Len() {
				p := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints().At(dp)
				p.SetStartTimestamp(sec(1002))
				p.SetTimestamp(sec(1003))
			}
			if r, err := conv.Convert(context.Background(), md); err != nil || r.Count(d2c.AddedFirst) != loadPoints {
				t.Fatal(mode, err, describeResult(r))
			}
		}
		now = 1020
		refused, calls := errors.New("refused"), 0
		n, err := conv.Reemit(context.Background(), nil, func(_ context.Context, md pmetric.Metrics) error {
			if calls++; md.DataPointCount() > 1000 {
				t.Errorf("%s: %d points in a batch", mode, md.DataPointCount())
			}
			if calls == 2 {
				return refused
			}
			return nil
		})
		if n != 1000 || calls != 2 || !errors.Is(err, refused) {
			t.Errorf("%s: %d samples, %v", mode, n, err)
		}
		if n := givenAgain(t, conv, time.Time{}).DataPointCount(); n != 1000 {
			t.Errorf("%s: then %d, want the thousand that were not asked for", mode, n)
		}
		now = 1030
		if n := givenAgain(t, conv, time.Time{}).DataPointCount(); n != 3000 {
			t.Errorf("%s: an interval later %d, want all", mode, n)
		}
	}
}
