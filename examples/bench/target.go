// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

// targetRow is a number that ring or Splitter is to reach, beside the one it has reached in this run. Missing one is shown,
// not an error: times depend on the machine.
type targetRow struct {
	What    string  `json:"what"`
	Unit    string  `json:"unit"`
	Limit   float64 `json:"limit"`
	Got     float64 `json:"got"`
	Reached bool    `json:"reached"`
}

func target(what, unit string, limit, got float64) targetRow {
	return targetRow{What: what, Unit: unit, Limit: limit, Got: got, Reached: got <= limit}
}

// ringTargets judges what was measured of ring. Numbers of members without a target of their own are in the worst of all.
func ringTargets(rows []ringRow, changes []changeRow) []targetRow {
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
