// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"runtime"
	"runtime/metrics"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"
)

// loadRow is what the garbage collector takes while a side is under load, with all its streams alive.
type loadRow struct {
	Side    string `json:"side"`
	Streams int    `json:"streams"`
	Points  int    `json:"points"`    // consumed between the ends of two collections
	Cycles  uint64 `json:"gc_cycles"` // meanwhile, forced ones not among them
	// GCShare is the collector's share of the CPU time that was not idle, GCNsPoint its CPU time per point. Both are as the
	// runtime estimates them, marking by otherwise idle processors included.
	GCShare      float64 `json:"gc_cpu_share"`
	GCNsPoint    float64 `json:"gc_cpu_ns_per_point"`
	PointsSecond float64 `json:"points_per_second"` // of the whole loop, on one goroutine
}

// loadSides are the converters, and what is left of the load without one.
var loadSides = []side{
	{name: nameNone, open: func() (consume, error) { return func(pmetric.Metrics) error { return nil }, nil }},
	{name: nameOurs, converts: true, open: openOurs},
	{name: nameContrib, converts: true, open: openContrib},
}

const nameNone = "none"

// underLoad encodes, decodes and converts batches of known sum streams, as a Collector between two others does, on one
// goroutine for at least one pass over the streams and so many collections that the program's own garbage brings about. The
// sides cannot take turns here: the heap of one would be the others' to mark.
func underLoad(s side, streams int, cycles uint64) (loadRow, error) {
	row := loadRow{Side: s.name, Streams: streams}
	r, err := newRunner(s, kindSum, pointsPerBatch)
	if err != nil {
		return row, err
	}
	if err := r.start(streams); err != nil {
		return row, err
	}
	// With no more than a batch on the heap, collections would follow each other; a Collector has more than that.
	heap := make([]byte, 64<<20)
	defer runtime.KeepAlive(heap)
	runtime.GC() // the runtime brings CPU times up to date at the end of a collection: begin there, and end there
	first, begin := readLoad(), time.Now()
	last := first
	n := r.steps(streams)
	for {
		for i := range n {
			r.load(i)
			md, err := r.group[0].decoded()
			if err != nil {
				return row, err
			}
			if err := r.consume(md); err != nil {
				return row, fmt.Errorf("%s: %w", s.name, err)
			}
			row.Points += pointsPerBatch
			before := last.cycles
			if last = readLoad(); last.cycles == before || row.Points < streams || last.cycles < first.cycles+cycles {
				continue
			}
			gc, idle, all := last.gc-first.gc, last.idle-first.idle, last.all-first.all
			row.Cycles = last.cycles - first.cycles
			row.GCShare = gc / (all - idle)
			row.GCNsPoint = gc * 1e9 / float64(row.Points)
			row.PointsSecond = float64(row.Points) / time.Since(begin).Seconds()
			if s.converts {
				r.group[0].md = md
				r.n++
				return row, r.check()
			}
			return row, nil
		}
		r.n++
	}
}

// cpuTimes are those of the whole program at the end of the latest collection, in seconds.
type cpuTimes struct {
	cycles        uint64 // collections that have ended
	gc, idle, all float64
}

func readLoad() cpuTimes {
	samples := []metrics.Sample{
		{Name: "/gc/cycles/total:gc-cycles"},
		{Name: "/cpu/classes/gc/total:cpu-seconds"},
		{Name: "/cpu/classes/idle:cpu-seconds"},
		{Name: "/cpu/classes/total:cpu-seconds"},
	}
	metrics.Read(samples)
	return cpuTimes{samples[0].Value.Uint64(), samples[1].Value.Float64(), samples[2].Value.Float64(), samples[3].Value.Float64()}
}
