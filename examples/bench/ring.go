// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/deltaring/deltaring/ring"
)

// ringRow is what a scheme makes of a fleet of members of equal weight. What is measured is the mean over several fleets
// with different names, but for times and memory, which are those of the first.
type ringRow struct {
	Scheme  string  `json:"scheme"`
	Members int     `json:"members"`
	MaxMean float64 `json:"max_over_mean"` // keys of the member with most, by those of the mean
	Worst   float64 `json:"worst_max_over_mean"`
	Join    float64 `json:"join_over_minimum"`  // keys that move when one member joins, by what a perfect scheme moves
	Leave   float64 `json:"leave_over_minimum"` // the same when one of them, anywhere in the list, leaves
	// These are zero for a scheme that is re-expressed here.
	NsLookup     float64       `json:"ns_per_lookup,omitempty"` // median of rounds
	AllocsLookup float64       `json:"allocs_per_lookup"`
	Build        time.Duration `json:"build_ns,omitempty"` // median
	Bytes        int64         `json:"heap_bytes,omitempty"`
}

// ringRows measures all schemes with so many members. Those without slots get so many keys as a sample. They take turns at
// lookups.
func ringRows(members, fleets, sample, rounds int) ([]ringRow, error) {
	rows := make([]ringRow, len(schemes))
	placements := make([]placement, len(schemes))
	for i, s := range schemes {
		rows[i] = ringRow{Scheme: s.name, Members: members}
		if s.slots == 0 {
			s.slots = sample
		}
		for fleet := range fleets {
			if err := rows[i].count(s, fleet, fleets); err != nil {
				return nil, fmt.Errorf("%s, %d members: %w", s.name, members, err)
			}
		}
		var err error
		if placements[i], err = rows[i].cost(s, rounds); err != nil {
			return nil, fmt.Errorf("%s, %d members: %w", s.name, members, err)
		}
	}
	ns := make([][]float64, len(schemes))
	for range rounds {
		runtime.GC()
		for i, p := range placements {
			if p.lookups != nil {
				ns[i] = append(ns[i], lookupTime(p))
			}
		}
	}
	for i, p := range placements {
		if p.lookups != nil {
			rows[i].NsLookup = median(ns[i])
			rows[i].AllocsLookup = lookupAllocs(p)
		}
	}
	return rows, nil
}

// count adds what one of several fleets has to say about balance and movement.
func (r *ringRow) count(s scheme, fleet, fleets int) error {
	names := fleetNames(fleet, r.Members+1)
	now, err := s.build(names[:r.Members])
	if err != nil {
		return err
	}
	next := s.build
	if now.next != nil {
		next = now.next
	}
	joined, err := next(names)
	if err != nil {
		return err
	}
	leaver := int(mix(uint64(fleet)) % uint64(r.Members))
	left, err := next(slices.Delete(slices.Clone(names[:r.Members]), leaver, leaver+1))
	if err != nil {
		return err
	}
	loads := make(map[string]int, r.Members)
	most, join, leave := 0, 0, 0
	for i := range s.slots {
		owner := now.owner(i)
		loads[owner]++
		most = max(most, loads[owner])
		if joined.owner(i) != owner {
			join++
		}
		if left.owner(i) != owner {
			leave++
		}
	}
	n, keys := float64(r.Members), float64(s.slots)
	balance := float64(most) / (keys / n)
	r.Worst = max(r.Worst, balance)
	r.MaxMean += balance / float64(fleets)
	r.Join += float64(join) / (keys / (n + 1)) / float64(fleets)
	r.Leave += float64(leave) / (keys / n) / float64(fleets)
	return nil
}

// cost measures building and memory, and returns what was built.
func (r *ringRow) cost(s scheme, rounds int) (placement, error) {
	names := fleetNames(0, r.Members+1)
	before := liveHeap()
	p, err := s.build(names[:r.Members])
	if err != nil || p.lookups == nil {
		return p, err
	}
	r.Bytes = liveHeap() - before
	build := func() (placement, error) { return s.build(names[:r.Members]) }
	if p.next != nil {
		build = func() (placement, error) { return p.next(names) }
	}
	var times []float64
	for range rounds {
		begin := time.Now()
		if _, err := build(); err != nil {
			return p, err
		}
		times = append(times, float64(time.Since(begin)))
	}
	r.Build = time.Duration(median(times))
	runtime.KeepAlive(p)
	return p, nil
}

// lookupTime returns the mean ns of a lookup over some 10 ms.
func lookupTime(p placement) float64 {
	n := 1000
	for {
		begin := time.Now()
		p.lookups(n)
		if spent := time.Since(begin); spent > 5*time.Millisecond {
			return float64(spent.Nanoseconds()) / float64(n)
		}
		n *= 2
	}
}

func lookupAllocs(p placement) float64 {
	const n = 10_000
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	p.lookups(n)
	runtime.ReadMemStats(&after)
	// A few are the runtime's own; they round away.
	return float64((after.Mallocs-before.Mallocs)/(n/100)) / 100
}

// changeRow is what Diff costs when a member joins, and what Rebalance moves then and when it leaves, as a multiple of the
// minimum that Diff knows exactly.
type changeRow struct {
	Members   int           `json:"members"`
	Diff      time.Duration `json:"diff_ns"`
	Rebalance float64       `json:"rebalance_over_minimum"`
}

func changeAt(members, rounds int) (changeRow, error) {
	row := changeRow{Members: members}
	names := fleetNames(0, members+1)
	now, err := ring.New(ring.Equal(names[:members]...))
	if err != nil {
		return row, err
	}
	joined, err := ring.New(ring.Equal(names...))
	if err != nil {
		return row, err
	}
	var times []float64
	for range rounds {
		begin := time.Now()
		plan := ring.Diff(now, joined)
		times = append(times, float64(time.Since(begin)))
		runtime.KeepAlive(plan)
	}
	row.Diff = time.Duration(median(times))

	for _, fleet := range [][]string{names[:members], names, names[1:]} {
		next, err := ring.Rebalance(now, ring.Equal(fleet...))
		if err != nil {
			return row, err
		}
		if len(fleet) != members || fleet[0] != names[0] { // the first only replaces New's balance by a perfect one
			row.Rebalance = max(row.Rebalance, ring.Diff(now, next).Ratio())
		}
		now = next
	}
	return row, nil
}

// fleetNames returns the names of so many members of a fleet: addresses, as resolvers give them. Rings that place points by
// CRC-32 are better or worse with other names; the rest does not care.
func fleetNames(fleet, members int) []string {
	names := make([]string, members)
	for i := range names {
		names[i] = fmt.Sprintf("10.%d.%d.%d:4317", fleet, i/250, 1+i%250)
	}
	return names
}
