// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"time"
)

// gcRow is what a side's state costs the garbage collector.
type gcRow struct {
	Side      string        `json:"side"`
	Streams   int           `json:"streams"`
	Cycle     time.Duration `json:"cycle_ns"`   // median of forced collections, wall time
	Mark      time.Duration `json:"mark_ns"`    // median CPU time spent marking in one of them
	Pause     time.Duration `json:"pause_ns"`   // longest stop-the-world of a forced collection
	ScanBytes uint64        `json:"scan_bytes"` // heap that the collector has to look through
	LiveBytes int64         `json:"live_bytes"` // heap that survives
}

// gcCost forces collections while a side's state is alive and idle.
func gcCost(name string, streams int, state any) gcRow {
	row := gcRow{Side: name, Streams: streams, LiveBytes: liveHeap()}
	const cycles = 7
	var wall, mark []float64
	for range cycles {
		cpu := markTime()
		begin := time.Now()
		runtime.GC()
		wall = append(wall, float64(time.Since(begin)))
		mark = append(mark, float64(markTime()-cpu))
	}
	var stats debug.GCStats
	debug.ReadGCStats(&stats)
	row.Cycle, row.Mark = time.Duration(median(wall)), time.Duration(median(mark))
	row.Pause = slices.Max(stats.Pause[:min(cycles, len(stats.Pause))])
	scan := []metrics.Sample{{Name: "/gc/scan/heap:bytes"}}
	metrics.Read(scan)
	row.ScanBytes = scan[0].Value.Uint64()
	runtime.KeepAlive(state)
	return row
}

// markTime returns the CPU time spent marking since the program began: workers, assists and what idle processors gave.
func markTime() time.Duration {
	samples := []metrics.Sample{
		{Name: "/cpu/classes/gc/mark/assist:cpu-seconds"},
		{Name: "/cpu/classes/gc/mark/dedicated:cpu-seconds"},
		{Name: "/cpu/classes/gc/mark/idle:cpu-seconds"},
	}
	metrics.Read(samples)
	var sum float64
	for _, s := range samples {
		sum += s.Value.Float64()
	}
	return time.Duration(sum * float64(time.Second))
}

// gcAt opens so many sum streams on a fresh side and measures.
func gcAt(s side, streams int) (gcRow, error) {
	r, err := newRunner(s, kindSum, pointsPerBatch)
	if err != nil {
		return gcRow{}, err
	}
	if err := r.start(streams); err != nil {
		return gcRow{}, err
	}
	return gcCost(s.name, streams, r.consume), nil
}
