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

func (t table) steadyHead(what string) {
	fmt.Fprintf(t.w, "\n%s: ns per point, allocations per point, bytes of live heap per stream\n", what)
	fmt.Fprintf(t.w, "%-12s %8s %6s | %7s %8s %7s | %7s %8s %6s | %7s %8s | %7s %8s\n", "kind", "streams", "points",
		"d2c ns", "contrib", "ratio", "hash ns", "+map ns", "ratio", "d2c al.", "contrib", "d2c B", "contrib")
}

func (t table) steadyRow(r steadyRow) {
	fmt.Fprintf(t.w, "%-12s %8s %6d | %7.0f %8.0f %6.1fx | %7.0f %8.0f %5.2fx | %7.2f %8.2f | %7.0f %8.0f\n",
		r.Kind, size(r.Streams), r.Points, r.NsPoint[nameOurs], r.NsPoint[nameContrib], r.Ratio, r.NsPoint[nameHash],
		r.NsPoint[nameMap], r.Floor, r.AllocsPoint[nameOurs], r.AllocsPoint[nameContrib], r.BytesStream[nameOurs],
		r.BytesStream[nameContrib])
}

func (t table) freshHead() {
	fmt.Fprintf(t.w, "\nAll new: ns per point, from no stream to so many, %d new ones per call\n", pointsPerBatch)
	fmt.Fprintf(t.w, "%-12s %8s | %7s %8s %7s | %7s %8s %6s\n", "kind", "streams", "d2c ns", "contrib", "ratio",
		"hash ns", "+map ns", "ratio")
}

func (t table) freshRow(r freshRow) {
	fmt.Fprintf(t.w, "%-12s %8s | %7.0f %8.0f %6.1fx | %7.0f %8.0f %5.2fx\n", r.Kind, size(r.Streams), r.NsPoint[nameOurs],
		r.NsPoint[nameContrib], r.Ratio, r.NsPoint[nameHash], r.NsPoint[nameMap], r.Floor)
}

func (t table) churnHead() {
	fmt.Fprintf(t.w, "\nChurn: every round a tenth is new and a tenth forgotten; ns per point with forgetting, time of forgetting per round\n")
	fmt.Fprintf(t.w, "%-12s %8s %8s | %7s %8s %7s | %7s %8s | %10s %10s %10s\n", "kind", "streams", "replaced", "d2c ns",
		"contrib", "ratio", "hash ns", "+map ns", "d2c", "contrib", "map")
}

func (t table) churnRow(r churnRow) {
	fmt.Fprintf(t.w, "%-12s %8s %8s | %7.0f %8.0f %6.1fx | %7.0f %8.0f | %10s %10s %10s\n", r.Kind, size(r.Streams),
		size(r.Replaced), r.NsPoint[nameOurs], r.NsPoint[nameContrib], r.Ratio, r.NsPoint[nameHash], r.NsPoint[nameMap],
		r.Forget[nameOurs].Round(time.Microsecond), r.Forget[nameContrib].Round(time.Microsecond),
		r.Forget[nameMap].Round(time.Microsecond))
}

func (t table) coresHead(cores int) {
	fmt.Fprintf(t.w, "\nCores: wall ns per point of sums on one core and on %d, and what is lost where points overtake each other\n", cores)
	fmt.Fprintf(t.w, "%-9s %8s | %7s %7s %7s | %7s %7s %7s | %7s %7s %7s | %8s %8s\n", "sharing", "streams", "d2c one", "all",
		"speedup", "contrib", "all", "speedup", "hash", "all", "speedup", "d2c lost", "contrib")
}

func (t table) coresRow(r coresRow) {
	fmt.Fprintf(t.w, "%-9s %8s |", r.Sharing, size(r.Streams))
	for _, name := range []string{nameOurs, nameContrib, nameHash} {
		fmt.Fprintf(t.w, " %7.0f %7.0f %6.2fx |", r.NsOne[name], r.NsAll[name], r.Speedup[name])
	}
	fmt.Fprintf(t.w, " %7.1f%% %7.1f%%\n", 100*r.Lost[nameOurs], 100*r.Lost[nameContrib])
}

func (t table) load(rows []loadRow) {
	fmt.Fprintf(t.w, "\nUnder load: decode, convert and encode on one goroutine; what the garbage collector takes\n")
	fmt.Fprintf(t.w, "%-8s %8s %8s %7s %9s %10s\n", "side", "streams", "points/s", "cycles", "GC share", "GC ns/point")
	for _, r := range rows {
		fmt.Fprintf(t.w, "%-8s %8s %7.0fk %7d %8.1f%% %10.0f\n", r.Side, size(r.Streams), r.PointsSecond/1000, r.Cycles,
			100*r.GCShare, r.GCNsPoint)
	}
}

func (t table) durableHead() {
	fmt.Fprintf(t.w, "\nDurable: the processor with sums in memory, and in file_storage; %d points per batch, one after the other\n", pointsPerBatch)
	fmt.Fprintf(t.w, "%8s %6s %10s %10s %7s %10s %10s %9s %9s\n", "streams", "fsync", "memory ns", "durable ns", "x CPU", "points/s",
		"restart", "x stored", "x file")
}

func (t table) durableRow(r durableRow) {
	fmt.Fprintf(t.w, "%8s %6t %10.0f %10.0f %7.2f %9.0fk %10s %9.2f %9.2f\n", size(r.Streams), r.FSync, r.MemoryNS, r.DurableNS, r.times(),
		1e6/r.DurableNS, r.Restore.Round(time.Millisecond), float64(r.StoredBytes)/float64(r.RecordBytes),
		float64(r.FileBytes)/float64(r.RecordBytes))
}

func (t table) growth(r growthRow) {
	fmt.Fprintf(t.w, "\nGrowth: 0 to %s sum streams, %d new ones per call, %d runs\n", size(r.Streams), pointsPerBatch, r.Runs)
	fmt.Fprintf(t.w, "%8s %10s %10s %10s %12s %8s %10s %9s %11s %10s\n", "streams", "median", "p99.9", "max",
		"max in every", "> 20 ms", "total", "heap MB", "peak B/str", "steady ns")
	fmt.Fprintf(t.w, "%8s %10s %10s %10s %12s %8d %10s %9.0f %11.1f %10.0f\n", size(r.Streams), r.Median.Round(time.Microsecond),
		r.P999.Round(time.Microsecond), r.Max.Round(time.Microsecond), r.Steadfast.Round(time.Microsecond), r.Over20ms,
		r.Total.Round(time.Millisecond), float64(r.HeapBytes)/1e6, r.PeakBytesStream, r.NsSteady)
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

func (t table) ringHead() {
	fmt.Fprintf(t.w, "\nRing: members of equal weight; moves as multiples of the minimum (* re-expressed here: no times, no memory)\n")
	fmt.Fprintf(t.w, "%7s %-30s | %8s %7s %7s | %9s %7s %10s %8s\n", "members", "scheme",
		"max/mean", "join", "leave", "ns/lookup", "allocs", "build", "KiB")
}

func (t table) ringRows(rows []ringRow) {
	for _, r := range rows {
		join, leave := fmt.Sprintf("%.2fx", r.Join), fmt.Sprintf("%.2fx", r.Leave)
		if r.Scheme == nameSampled {
			join, leave = "", ""
		}
		fmt.Fprintf(t.w, "%7d %-30s | %8.3f %7s %7s |", r.Members, r.Scheme, r.MaxMean, join, leave)
		if r.Build > 0 {
			fmt.Fprintf(t.w, " %9.1f %7.2f %10s %8.0f", r.NsLookup, r.AllocsLookup, r.Build.Round(10*time.Microsecond), float64(r.Bytes)/1024)
		}
		fmt.Fprintln(t.w)
	}
}

func (t table) split(rows []splitRow) {
	fmt.Fprintf(t.w, "\nSplit: the standard batch to %d owners, ns and allocations per point, beside a clone per point\n", splitOwners)
	fmt.Fprintf(t.w, "%-9s %6s | %8s %8s %7s | %9s %8s\n", "key", "parts", "split ns", "clone", "ratio", "split al.", "clone")
	for _, r := range rows {
		fmt.Fprintf(t.w, "%-9s %6d | %8.0f %8.0f %6.1fx | %9.3f %8.2f\n", r.Key, r.Parts,
			r.NsPoint[nameSplit], r.NsPoint[nameClone], r.Ratio, r.AllocsPoint[nameSplit], r.AllocsPoint[nameClone])
	}
}

func (t table) targets(rows []targetRow) {
	fmt.Fprintf(t.w, "\nTo reach\n%-34s %-12s %8s %10s %10s\n", "what", "unit", "", "limit", "got")
	for _, r := range rows {
		bound, verdict := "at most", "reached"
		if r.Least {
			bound = "at least"
		}
		if !r.Reached {
			verdict = "MISSED"
		}
		fmt.Fprintf(t.w, "%-34s %-12s %8s %10.3f %10.3f  %s\n", r.What, r.Unit, bound, r.Limit, r.Got, verdict)
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
