// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strconv"
	"time"
)

// table prints rows as they are measured, in columns of fixed width.
type table struct{ w io.Writer }

func newTable(w io.Writer) table { return table{w} }

func (t table) steadyHead() {
	fmt.Fprintf(t.w, "\nSteady state: ns per point, allocations per point, bytes of live heap per stream\n")
	fmt.Fprintf(t.w, "%-12s %8s | %7s %8s %7s | %7s %8s | %7s %8s | %7s %8s\n", "kind", "streams",
		"d2c ns", "contrib", "ratio", "hash ns", "+map ns", "d2c al.", "contrib", "d2c B", "contrib")
}

func (t table) steadyRow(r steadyRow) {
	fmt.Fprintf(t.w, "%-12s %8s | %7.0f %8.0f %6.1fx | %7.0f %8.0f | %7.2f %8.2f | %7.0f %8.0f\n", r.Kind, size(r.Streams),
		r.NsPoint[nameOurs], r.NsPoint[nameContrib], r.Ratio, r.NsPoint[nameHash], r.NsPoint[nameMap],
		r.AllocsPoint[nameOurs], r.AllocsPoint[nameContrib], r.BytesStream[nameOurs], r.BytesStream[nameContrib])
}

func (t table) growth(r growthRow) {
	fmt.Fprintf(t.w, "\nGrowth: 0 to %s sum streams, %d new ones per call, %d runs\n", size(r.Streams), pointsPerBatch, r.Runs)
	fmt.Fprintf(t.w, "%8s %10s %10s %10s %12s %8s %10s %9s %11s\n", "streams", "median", "p99.9", "max",
		"max in every", "> 20 ms", "total", "heap MB", "peak B/str")
	fmt.Fprintf(t.w, "%8s %10s %10s %10s %12s %8d %10s %9.0f %11.1f\n", size(r.Streams), r.Median.Round(time.Microsecond),
		r.P999.Round(time.Microsecond), r.Max.Round(time.Microsecond), r.Steadfast.Round(time.Microsecond), r.Over20ms,
		r.Total.Round(time.Millisecond), float64(r.HeapBytes)/1e6, r.PeakBytesStream)
}

func (t table) gc(rows []gcRow) {
	fmt.Fprintf(t.w, "\nForced collections with all streams alive: wall time, marking CPU, longest pause\n")
	fmt.Fprintf(t.w, "%-8s %8s %10s %10s %10s %10s %10s\n", "side", "streams", "cycle", "marking", "pause", "scan MB", "live MB")
	for _, r := range rows {
		fmt.Fprintf(t.w, "%-8s %8s %10s %10s %10s %10.2f %10.1f\n", r.Side, size(r.Streams),
			r.Cycle.Round(10*time.Microsecond), r.Mark.Round(10*time.Microsecond), r.Pause.Round(time.Microsecond),
			float64(r.ScanBytes)/1e6, float64(r.LiveBytes)/1e6)
	}
}

// size writes a number of streams the way the flags read it.
func size(n int) string {
	switch {
	case n >= 1_000_000 && n%1_000_000 == 0:
		return strconv.Itoa(n/1_000_000) + "M"
	case n >= 1_000 && n%1_000 == 0:
		return strconv.Itoa(n/1_000) + "k"
	}
	return strconv.Itoa(n)
}
