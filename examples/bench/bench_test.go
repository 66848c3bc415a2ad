// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// Large sizes are for a quiet machine: go test -bench . -streams 1k,100k,1M -grow 10M
var (
	streamsFlag = flag.String("streams", "1k,100k", "numbers of streams in benchmarks")
	growFlag    = flag.String("grow", "200k", "number of streams BenchmarkGrowth grows to")
)

// BenchmarkConvert is one call of Convert with 1000 points of known streams. ns/op and ns/point are time in Convert
// alone; the allocations are Convert's alone too.
func BenchmarkConvert(b *testing.B) {
	for _, k := range allKinds {
		for _, streams := range sizesOf(b, *streamsFlag) {
			b.Run("kind="+string(k)+"/streams="+size(streams), func(b *testing.B) {
				r, err := newRunner(sides[0], k, pointsPerBatch)
				if err != nil {
					b.Fatal(err)
				}
				if err := r.start(streams); err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				n := batches(streams)
				call := 0
				next := func() time.Duration {
					r.group[0].load(call%n, r.n+call/n)
					call++
					b.StartTimer()
					begin := time.Now()
					err := r.consume(r.group[0].md)
					spent := time.Since(begin)
					b.StopTimer()
					if err != nil {
						b.Fatal(err)
					}
					return spent
				}
				b.StopTimer()
				next() // may have to make working memory, where a collection has just swept it away
				b.ResetTimer()
				var spent time.Duration
				b.StartTimer()
				for b.Loop() {
					b.StopTimer()
					spent += next()
					b.StartTimer()
				}
				// The benchmark's own clock includes stopping and starting it.
				b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N), "ns/op")
				b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N*pointsPerBatch), "ns/point")
			})
		}
	}
}

// BenchmarkGrowth goes from no stream to many sums in calls of 1000 new streams each.
func BenchmarkGrowth(b *testing.B) {
	streams := sizesOf(b, *growFlag)[0]
	b.Run("streams="+size(streams), func(b *testing.B) {
		var row growthRow
		for b.Loop() {
			var err error
			if row, _, err = growth(streams, 1); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(row.Max.Microseconds())/1000, "max-ms/call")
		b.ReportMetric(float64(row.P999.Microseconds())/1000, "p99.9-ms/call")
		b.ReportMetric(float64(row.Total.Nanoseconds())/float64(streams), "ns/point")
		b.ReportMetric(float64(row.HeapBytes)/float64(streams), "B/stream")
	})
}

// BenchmarkGC is a forced collection with so many streams alive.
func BenchmarkGC(b *testing.B) {
	for _, streams := range sizesOf(b, *streamsFlag) {
		b.Run("streams="+size(streams), func(b *testing.B) {
			var row gcRow
			for b.Loop() {
				var err error
				if row, err = gcAt(sides[0], streams); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(row.Cycle.Microseconds())/1000, "ms/cycle")
			b.ReportMetric(float64(row.Mark.Microseconds())/1000, "mark-ms/cycle")
			b.ReportMetric(float64(row.ScanBytes), "scanned-B")
		})
	}
}

// A batch loaded again after a conversion must be the same input as before, for every kind and both converters;
// otherwise the second interval measures something else than the first.
func TestLoadUndoesAConversion(t *testing.T) {
	t.Parallel()
	for _, s := range sides {
		for _, k := range allKinds {
			t.Run(s.name+"/"+string(k), func(t *testing.T) {
				r, err := newRunner(s, k, pointsPerBatch)
				if err != nil {
					t.Fatal(err)
				}
				for n := range 3 {
					r.group[0].load(5, n)
					fresh, err := newBatch(k)
					if err != nil {
						t.Fatal(err)
					}
					fresh.load(5, n)
					if got, want := wire(t, r.group[0]), wire(t, fresh); got != want {
						t.Fatalf("interval %d: reloaded batch differs from a fresh one", n)
					}
					if err := r.consume(r.group[0].md); err != nil {
						t.Fatal(err)
					}
					if s.converts {
						if err := r.group[0].check(n + 1); err != nil {
							t.Fatal(err)
						}
					}
				}
			})
		}
	}
}

// The check behind every row must notice a point that is off by one delta.
func TestCheckNoticesAWrongTotal(t *testing.T) {
	t.Parallel()
	for _, k := range allKinds {
		r, err := newRunner(sides[0], k, pointsPerBatch)
		if err != nil {
			t.Fatal(err)
		}
		r.group[0].load(0, 0)
		if err := r.group[0].check(1); err == nil {
			t.Errorf("%s: deltas pass for totals", k)
		}
		if err := r.consume(r.group[0].md); err != nil {
			t.Fatal(err)
		}
		if err := r.group[0].check(1); err != nil {
			t.Errorf("%s: %v", k, err)
		}
		if err := r.group[0].check(2); err == nil {
			t.Errorf("%s: the total of one interval passes for that of two", k)
		}
	}
}

// Batches with different indices must name different streams, and the same index the same.
func TestBatchesNameDistinctStreams(t *testing.T) {
	t.Parallel()
	conv, err := newConverter()
	if err != nil {
		t.Fatal(err)
	}
	b, err := newBatch(kindSum)
	if err != nil {
		t.Fatal(err)
	}
	const n = 50
	for pass := range 2 {
		for i := range n {
			b.load(i, pass)
			if err := convert(conv, b.md); err != nil {
				t.Fatal(err)
			}
		}
		if conv.Len() != n*pointsPerBatch {
			t.Fatalf("pass %d: %d streams, want %d", pass, conv.Len(), n*pointsPerBatch)
		}
	}
}

func TestSizesReadAndWrite(t *testing.T) {
	for word, want := range map[string]int{"1k": 1000, "100k": 100_000, "10M": 10_000_000, "1500": 2000, "0": 0} {
		got, err := parseSize(word)
		if err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", word, got, err, want)
		}
	}
	for _, word := range []string{"", "k", "-1", "1G", "101M", "9999999999999999999k"} {
		if got, err := parseSize(word); err == nil {
			t.Errorf("%q: %d, want an error", word, got)
		}
	}
	if got, err := parsePoints("10,90,100,1k,10k"); err != nil || !slices.Equal(got, []int{10, 90, 100, 1000, 10_000}) {
		t.Errorf("points: %v, %v", got, err)
	}
	for _, list := range []string{"0", "5", "110", "x", "10,", "1M", "200k"} {
		if got, err := parsePoints(list); err == nil {
			t.Errorf("points %q: %v, want an error", list, got)
		}
	}
	for n, want := range map[int]string{1000: "1k", 100_000: "100k", 10_000_000: "10M", 1500: "1500", 0: "0"} {
		if got := size(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

// The command as a whole, at its smallest. No section may be missing.
func TestRunWritesJSONAndChart(t *testing.T) {
	dir := t.TempDir()
	file, chart := filepath.Join(dir, "bench.json"), filepath.Join(dir, "chart.png")
	if err := run([]string{"-sizes", "2k", "-kinds", "sum", "-points", "10", "-rounds", "1", "-calls", "1", "-growth", "3k",
		"-growth-runs", "1", "-gc", "1k", "-load", "2k", "-members", "10", "-fleets", "1", "-sample", "1000", "-json", file,
		"-chart", chart}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var rep report
	if err := json.Unmarshal(data, &rep); err != nil {
		t.Fatal(err)
	}
	got := map[string]int{"steady": len(rep.Steady), "points": len(rep.Points), "new": len(rep.New), "churn": len(rep.Churn),
		"gc": len(rep.GC), "load": len(rep.Load), "ring": len(rep.Ring), "change": len(rep.Change), "split": len(rep.Split)}
	want := map[string]int{"steady": 1, "points": 1, "new": 1, "churn": 1, "gc": 3, "load": 3, "ring": len(schemes), "change": 1,
		"split": len(splitKeys)}
	if !maps.Equal(got, want) {
		t.Errorf("rows: %v, want %v", got, want)
	}
	if rep.CPUs == 2 && len(rep.Cores) != len(sharings) {
		t.Errorf("%d rows of cores, want %d", len(rep.Cores), len(sharings))
	}
	if rep.Growth == nil || rep.Growth.Streams != 3_000 {
		t.Errorf("growth: %+v", rep.Growth)
	} else {
		positive(t, "growth", float64(rep.Growth.Steadfast), float64(rep.Growth.HeapBytes), rep.Growth.NsSteady)
	}
	if len(rep.Target) == 0 {
		t.Error("no targets")
	}
	if info, err := os.Stat(chart); err != nil || info.Size() < 5000 {
		t.Errorf("chart: %v, %v", info, err)
	}
}

func wire(t *testing.T, b *batch) string {
	t.Helper()
	data, err := b.encoded()
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func sizesOf(b *testing.B, list string) []int {
	b.Helper()
	sizes, err := parseSizes(list)
	if err != nil {
		b.Fatal(err)
	}
	return sizes
}
