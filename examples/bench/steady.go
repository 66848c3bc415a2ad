// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"runtime"
	"slices"
	"time"
)

// steadyRow is the cost of points of streams that are all known, by side.
type steadyRow struct {
	Kind    kind               `json:"kind"`
	Streams int                `json:"streams"`
	NsPoint map[string]float64 `json:"ns_per_point"` // median of the rounds' means
	// Ratio is contrib over d2c, the median of the rounds' ratios: two turns of one round meet the same weather.
	Ratio       float64            `json:"ratio"`
	AllocsPoint map[string]float64 `json:"allocs_per_point"`
	BytesStream map[string]float64 `json:"heap_bytes_per_stream"` // live heap after a collection, batches excluded
}

// runner is one side at work, with a batch of its own and its own count of the intervals its streams have seen.
type runner struct {
	side
	consume consume
	b       *batch
	n       int
}

// steady measures all sides in one process. In each round every side takes a turn over all streams, one interval after
// the other; the clock runs only while a side consumes a batch. A round begins with a collection, and the sides that make
// garbage come last: what a side leaves behind within its turn is its own to pay for, and not another's.
func steady(k kind, streams, rounds int) (steadyRow, error) {
	row := steadyRow{Kind: k, Streams: streams, NsPoint: map[string]float64{}, AllocsPoint: map[string]float64{},
		BytesStream: map[string]float64{}}
	var runners []*runner
	for _, s := range sides {
		r, err := newRunner(s, k)
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
	for range rounds {
		runtime.GC()
		for _, r := range runners {
			mean, err := r.turn(streams)
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
		if err := r.b.check(r.n); err != nil {
			return row, fmt.Errorf("%s at %d streams: %w", r.name, streams, err)
		}
		allocs, err := r.allocs(streams)
		if err != nil {
			return row, err
		}
		row.AllocsPoint[r.name] = allocs
	}
	ratios := make([]float64, rounds)
	for i := range ratios {
		ratios[i] = means[nameContrib][i] / means[nameOurs][i]
	}
	row.Ratio = median(ratios)
	return row, nil
}

func newRunner(s side, k kind) (*runner, error) {
	consume, err := s.open()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	b, err := newBatch(k)
	if err != nil {
		return nil, err
	}
	return &runner{side: s, consume: consume, b: b}, nil
}

// start gives the side the first point of every stream.
func (r *runner) start(streams int) error {
	for i := range batches(streams) {
		r.b.load(i, r.n)
		md := r.b.md
		if r.converts {
			var err error
			if md, err = r.b.decoded(); err != nil {
				return err
			}
		}
		if err := r.consume(md); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
	}
	r.n++
	return nil
}

// turn passes over all streams, as often as it takes for 200 batches, and returns the mean ns per point.
func (r *runner) turn(streams int) (float64, error) {
	n := batches(streams)
	passes := max(1, 200/n)
	var spent time.Duration
	for range passes {
		for i := range n {
			r.b.load(i, r.n)
			begin := time.Now()
			err := r.consume(r.b.md)
			spent += time.Since(begin)
			if err != nil {
				return 0, err
			}
		}
		r.n++
	}
	return float64(spent.Nanoseconds()) / float64(passes*n*pointsPerBatch), nil
}

// allocs returns the allocations per point, the mean of 20 batches. The first few are not counted: a collection empties
// pools of working memory, and that is not steady state.
func (r *runner) allocs(streams int) (float64, error) {
	const counted, ignored = 20, 3
	n := batches(streams)
	var before, after runtime.MemStats
	var mallocs uint64
	for done := 0; done < ignored+counted; r.n++ {
		for i := 0; i < n && done < ignored+counted; i++ {
			r.b.load(i, r.n)
			runtime.ReadMemStats(&before)
			err := r.consume(r.b.md)
			runtime.ReadMemStats(&after)
			if err != nil {
				return 0, err
			}
			if done++; done > ignored {
				mallocs += after.Mallocs - before.Mallocs
			}
		}
	}
	return float64(mallocs) / (counted * pointsPerBatch), nil
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

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	if len(s)%2 == 1 {
		return s[len(s)/2]
	}
	return (s[len(s)/2-1] + s[len(s)/2]) / 2
}
