// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"
)

// targetRow is a number that ours is to reach, beside the one it has reached in this run. Missing one is shown, not an
// error: times depend on the machine.
type targetRow struct {
	What    string  `json:"what"`
	Unit    string  `json:"unit"`
	Least   bool    `json:"at_least,omitempty"` // Limit is from below
	Limit   float64 `json:"limit"`
	Got     float64 `json:"got"`
	Reached bool    `json:"reached"`
}

// target is reached by at most the limit.
func target(what, unit string, limit, got float64) targetRow {
	return targetRow{What: what, Unit: unit, Limit: limit, Got: got, Reached: got <= limit}
}

// targetLeast is reached by at least the limit.
func targetLeast(what, unit string, limit, got float64) targetRow {
	return targetRow{What: what, Unit: unit, Least: true, Limit: limit, Got: got, Reached: got >= limit}
}

// converterTargets judges what was measured of d2c. Memory and opening streams are judged where fixed costs no longer matter.
func converterTargets(rep *report) []targetRow {
	const many = 100_000
	var targets []targetRow
	bytes := map[kind]float64{kindSum: 64, kindSumDouble: 64, kindHistogram: 208, kindExponential: 320}
	allocs := 0.0
	for _, r := range rep.Steady {
		allocs = max(allocs, r.AllocsPoint[nameOurs])
		what := fmt.Sprintf("%s, %s streams", r.Kind, size(r.Streams))
		switch {
		case r.Kind == kindSum:
			targets = append(targets, targetLeast(what, "x contrib", 8, r.Ratio))
		case r.Streams == many:
			if r.Kind != kindSumDouble {
				targets = append(targets, targetLeast(what, "x contrib", 6, r.Ratio))
			}
		}
		if r.Kind == kindSum && r.Streams == many {
			targets = append(targets, target(what, "x hash+map", 1.6, r.Floor))
		}
		if r.Streams >= many {
			targets = append(targets, target(what, "bytes/stream", bytes[r.Kind], r.BytesStream[nameOurs]))
		}
	}
	if len(rep.Steady) > 0 {
		// None at all is what a test of d2c wants. Here the collector may empty the pool of working memory at any time.
		targets = append(targets, target("steady state, worst of all", "allocs/point", 0.01, allocs))
	}
	for _, r := range rep.New {
		if r.Streams >= many {
			targets = append(targets, targetLeast(fmt.Sprintf("%s, all new, %s", r.Kind, size(r.Streams)), "x contrib", 5, r.Ratio))
		}
	}
	for _, r := range rep.Cores {
		if r.Sharing == nameDisjoint && r.Cores == 2 {
			targets = append(targets, targetLeast("two cores, disjoint, "+size(r.Streams), "x one core", 1.8, r.Speedup[nameOurs]))
		} else if r.Sharing != nameDisjoint {
			targets = append(targets, targetLeast(fmt.Sprintf("all cores, %s, %s", r.Sharing, size(r.Streams)), "x one core", 1,
				r.Speedup[nameOurs]))
		}
	}
	for _, r := range rep.Durable {
		if r.FSync {
			continue
		}
		what := "durable, " + size(r.Streams)
		targets = append(targets, target(what, "x CPU in memory", 2, r.times()), targetLeast(what, "points/s", 300_000, 1e9/r.DurableNS))
		if r.Streams >= many { // below, the journal's least length
			targets = append(targets, target(what, "x live records", 3, float64(r.StoredBytes)/float64(r.RecordBytes)))
		}
		if r.Streams == 1_000_000 {
			targets = append(targets, target(what, "s to restart", 5, r.Restore.Seconds()))
		}
	}
	if g := rep.Growth; g != nil {
		millis := float64(g.Steadfast) / float64(time.Millisecond)
		targets = append(targets, target("longest call growing to "+size(g.Streams), "ms", 20, millis))
		if g.Streams == 10_000_000 {
			targets = append(targets, target("live heap at 10M sums", "MB", 700, float64(g.HeapBytes)/1e6))
		}
	}
	return targets
}

// ringTargets judges what was measured of ring. Numbers of members without a target of their own are in the worst of all.
func ringTargets(rows []ringRow, changes []changeRow) []targetRow {
	if len(rows) == 0 {
		return nil
	}
	var targets []targetRow
	var lookup, allocs, balance, diff, rebalance float64
	for _, r := range rows {
		if r.Scheme != nameRing {
			continue
		}
		lookup, allocs, balance = max(lookup, r.NsLookup), max(allocs, r.AllocsLookup), max(balance, r.Worst)
		moved := max(r.Join, r.Leave)
		switch r.Members {
		case 10:
			targets = append(targets, target("join and leave at n=10", "x minimum", 1.05, moved))
		case 100:
			targets = append(targets,
				target("join and leave at n=100", "x minimum", 1.10, moved),
				target("New at n=100", "ms", 150, float64(r.Build.Microseconds())/1000))
		case 300:
			targets = append(targets, target("join and leave at n=300", "x minimum", 1.3, moved))
		case 1000:
			targets = append(targets, target("New at n=1000", "ms", 1500, float64(r.Build.Microseconds())/1000))
		}
	}
	for _, c := range changes {
		diff = max(diff, float64(c.Diff.Microseconds())/1000)
		rebalance = max(rebalance, c.Rebalance)
	}
	return append(targets,
		target("slots max/mean, worst of all", "", 1.01, balance),
		target("Rebalance, worst of all", "x minimum", 1, rebalance),
		target("Owner, worst of all", "ns", 5, lookup),
		target("Owner allocations", "", 0, allocs),
		target("Diff of a join, worst of all", "ms", 5, diff))
}

// splitTargets judges what was measured of Splitter.
func splitTargets(rows []splitRow) []targetRow {
	var targets []targetRow
	for _, r := range rows {
		if r.Key == "streamID" {
			targets = append(targets,
				target("split by streamID", "ns/point", 150, r.NsPoint[nameSplit]),
				target("split by streamID", "allocs/point", 0.1, r.AllocsPoint[nameSplit]))
		}
	}
	return targets
}
