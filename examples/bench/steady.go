// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"runtime"
	"slices"
	"time"
)

// effort says how long to measure.
type effort struct {
	rounds int // of turns; medians are taken over them
	calls  int // of 1000 points in a turn, at the least
}

// passes is how often a turn goes over everything if that takes so many calls.
func (e effort) passes(calls int) int { return max(1, e.calls/calls) }

// steadyRow is the cost of points of streams that are all known, by side.
type steadyRow struct {
	Kind    kind               `json:"kind"`
	Streams int                `json:"streams"`
	Points  int                `json:"points_per_call"`
	NsPoint map[string]float64 `json:"ns_per_point"` // median of the rounds' means
	// Ratio is contrib over d2c, the median of the rounds' ratios: two turns of one round meet the same weather. Floor is
	// d2c over the higher of the two floors in the same way.
	Ratio       float64            `json:"ratio"`
	Floor       float64            `json:"over_floor"`
	AllocsPoint map[string]float64 `json:"allocs_per_point"`
	BytesStream map[string]float64 `json:"heap_bytes_per_stream"` // live heap after a collection, batches excluded
}

// runner is one side at work, with batches of its own and its own count of the intervals its streams have seen.
type runner struct {
	side
	consume consume
	group   []*batch // consumed one after the other in one reading of the clock
	n       int
}

// steady measures all sides in one process, with batches of so many points. In each round every side takes a turn over all
// streams, one interval after the other; the clock runs only while a side consumes a batch. A round begins with a
// collection, and the sides that make garbage come last: what a side leaves behind within its turn is its own to pay for,
// and not another's.
func steady(k kind, streams, points int, e effort) (steadyRow, error) {
	row := steadyRow{Kind: k, Streams: streams, Points: points, NsPoint: map[string]float64{},
		AllocsPoint: map[string]float64{}, BytesStream: map[string]float64{}}
	var runners []*runner
	for _, s := range sides {
		r, err := newRunner(s, k, points)
		if err != nil {
			return row, err
		}
		runners = append(runners, r)
		before := liveHeap()
		if err := r.start(streams); err != nil {
			return row, err
		}
		if s.converts {
			row.BytesStream[s.name] = float64(liveHeap()-before) / float64(streams)
		}
	}

	means := make(map[string][]float64)
	for range e.rounds {
		runtime.GC()
		for _, r := range runners {
			mean, err := r.turn(streams, e)
			if err != nil {
				return row, err
			}
			means[r.name] = append(means[r.name], mean)
		}
	}
	for _, r := range runners {
		row.NsPoint[r.name] = median(means[r.name])
		if !r.converts {
			continue
		}
		if err := r.check(); err != nil {
			return row, fmt.Errorf("%s at %d streams: %w", r.name, streams, err)
		}
		allocs, err := r.allocs(streams, e)
		if err != nil {
			return row, err
		}
		row.AllocsPoint[r.name] = allocs
	}
	row.Ratio = ratio(means[nameContrib], means[nameOurs])
	row.Floor = ratio(means[nameOurs], means[nameMap])
	return row, nil
}

// newRunner opens a side. Batches of fewer than 1000 points come in groups of as many, or the clock would be measured.
func newRunner(s side, k kind, points int) (*runner, error) {
	consume, err := s.open()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	r := &runner{side: s, consume: consume, group: make([]*batch, max(1, pointsPerBatch/points))}
	for i := range r.group {
		if r.group[i], err = newSized(k, points); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// points is how many points a step has.
func (r *runner) points() int { return len(r.group) * r.group[0].points }

// steps is how many steps go over so many streams.
func (r *runner) steps(streams int) int { return (streams + r.points() - 1) / r.points() }

// load makes the group the next delta of its streams.
func (r *runner) load(step int) {
	for i, b := range r.group {
		b.load(step*len(r.group)+i, r.n)
	}
}

// step consumes the group once, and returns how long that took.
func (r *runner) step(step int) (time.Duration, error) {
	r.load(step)
	begin := time.Now()
	for _, b := range r.group {
		if err := r.consume(b.md); err != nil {
			return 0, fmt.Errorf("%s: %w", r.name, err)
		}
	}
	return time.Since(begin), nil
}

// check reports the first point of the last step that is not the total of all intervals.
func (r *runner) check() error {
	for _, b := range r.group {
		if err := b.check(r.n); err != nil {
			return err
		}
	}
	return nil
}

// start gives the side the first point of every stream.
func (r *runner) start(streams int) error {
	for i := range r.steps(streams) {
		r.load(i)
		for _, b := range r.group {
			md := b.md
			if r.converts {
				var err error
				if md, err = b.decoded(); err != nil {
					return err
				}
			}
			if err := r.consume(md); err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
		}
	}
	r.n++
	return nil
}

// turn passes over all streams, as often as it takes for enough calls, and returns the mean ns per point.
func (r *runner) turn(streams int, e effort) (float64, error) {
	n := r.steps(streams)
	passes := e.passes(max(1, n*r.points()/pointsPerBatch))
	var spent time.Duration
	for range passes {
		for i := range n {
			took, err := r.step(i)
			if err != nil {
				return 0, err
			}
			spent += took
		}
		r.n++
	}
	return float64(spent.Nanoseconds()) / float64(passes*n*r.points()), nil
}

// allocs returns the allocations per point, the mean of 20 steps at most. The first few are not counted: a collection
// empties pools of working memory, and that is not steady state.
func (r *runner) allocs(streams int, e effort) (float64, error) {
	const ignored = 3
	counted := min(20, e.calls)
	n := r.steps(streams)
	var before, after runtime.MemStats
	var mallocs uint64
	for done := 0; done < ignored+counted; r.n++ {
		for i := 0; i < n && done < ignored+counted; i++ {
			r.load(i)
			runtime.ReadMemStats(&before)
			for _, b := range r.group {
				if err := r.consume(b.md); err != nil {
					return 0, err
				}
			}
			runtime.ReadMemStats(&after)
			if done++; done > ignored {
				mallocs += after.Mallocs - before.Mallocs
			}
		}
	}
	return float64(mallocs) / float64(counted*r.points()), nil
}

// batches is how many standard batches hold so many streams.
func batches(streams int) int { return (streams + pointsPerBatch - 1) / pointsPerBatch }

// liveHeap returns the bytes that survive a collection; two, so that what the first one freed is swept.
func liveHeap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// ratio returns the median of the rounds' ratios.
func ratio(over, under []float64) float64 {
	ratios := make([]float64, len(over))
	for i := range ratios {
		ratios[i] = over[i] / under[i]
	}
	return median(ratios)
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	if len(s)%2 == 1 {
		return s[len(s)/2]
	}
	return (s[len(s)/2-1] + s[len(s)/2]) / 2
}
