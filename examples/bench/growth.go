// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/deltaring/deltaring/d2c"
)

// growthRow is what it costs to go from no stream to very many, in Convert calls of 1000 new streams each.
type growthRow struct {
	Streams int           `json:"streams"`
	Total   time.Duration `json:"total_ns"`  // time in Convert, all calls
	Median  time.Duration `json:"median_ns"` // of single calls, as are the next three
	P999    time.Duration `json:"p999_ns"`
	Max     time.Duration `json:"max_ns"`
	// Steadfast is the longest call that is as long in every run. Tables grow at the same calls each time, neighbours
	// on the machine do not strike at the same call twice.
	Steadfast time.Duration `json:"max_of_min_ns"`
	Over20ms  int           `json:"calls_over_20ms"` // all runs
	Runs      int           `json:"runs"`
	HeapBytes int64         `json:"heap_bytes"` // live heap with all streams
	// PeakBytesStream is the highest Bytes()/Len() seen from 100k streams on: tables are emptiest right after growing.
	PeakBytesStream float64 `json:"peak_bytes_per_stream"`
	// NsSteady is the cost of one more pass over all streams, after the last run.
	NsSteady float64 `json:"steady_ns_per_point"`
}

// growth opens sum streams until there are so many. One batch takes the identity of the next 1000 streams each time, so
// the heap holds the converter and little else. The last run's converter is returned with its streams in it.
func growth(streams, runs int) (growthRow, *d2c.Converter, error) {
	row := growthRow{Streams: streams, Runs: runs}
	b, err := newBatch(kindSum)
	if err != nil {
		return row, nil, err
	}
	n := batches(streams)
	calls := make([]time.Duration, n)
	least := slices.Repeat([]time.Duration{1<<63 - 1}, n)
	var conv *d2c.Converter
	for range runs {
		conv = nil // the previous run's is garbage now
		before := liveHeap()
		if conv, err = newConverter(); err != nil {
			return row, nil, err
		}
		for i := range n {
			b.load(i, 0)
			begin := time.Now()
			err := convert(conv, b.md)
			calls[i] = time.Since(begin)
			least[i] = min(least[i], calls[i])
			if err != nil {
				return row, nil, err
			}
			if calls[i] > 20*time.Millisecond {
				row.Over20ms++
			}
			if i >= 100 && i%10 == 0 {
				row.PeakBytesStream = max(row.PeakBytesStream, bytesPerStream(conv))
			}
		}
		row.HeapBytes = liveHeap() - before
		if conv.Len() != n*pointsPerBatch {
			return row, nil, fmt.Errorf("growth: %d streams, want %d", conv.Len(), n*pointsPerBatch)
		}
	}
	var spent time.Duration
	for i := range n {
		b.load(i, 1)
		begin := time.Now()
		err := convert(conv, b.md)
		spent += time.Since(begin)
		if err != nil {
			return row, nil, err
		}
	}
	if err := b.check(2); err != nil {
		return row, nil, fmt.Errorf("growth: %w", err)
	}
	row.NsSteady = float64(spent.Nanoseconds()) / float64(n*pointsPerBatch)
	row.Steadfast = slices.Max(least)
	for _, d := range calls {
		row.Total += d
	}
	slices.Sort(calls)
	row.Median, row.P999, row.Max = calls[n/2], calls[n*999/1000], calls[n-1]
	return row, conv, nil
}

func bytesPerStream(c *d2c.Converter) float64 {
	return float64(c.Stats().MemoryBytes) / float64(c.Len())
}
