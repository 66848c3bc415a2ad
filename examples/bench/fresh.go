// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"runtime"
	"time"
)

// freshRow is the cost of points that all open a stream, by side.
type freshRow struct {
	Kind    kind               `json:"kind"`
	Streams int                `json:"streams"`      // opened by a side that had none
	NsPoint map[string]float64 `json:"ns_per_point"` // median of the rounds' means
	Ratio   float64            `json:"ratio"`        // contrib over d2c, the median of the rounds' ratios
	Floor   float64            `json:"over_floor"`   // d2c over hash and map, likewise
}

// fresh opens so many streams on sides that have none, calls of 1000 new streams each: what tables cost as they grow is in
// it. Sides take turns as in steady.
func fresh(sides []side, k kind, streams int, e effort) (freshRow, error) {
	row := freshRow{Kind: k, Streams: streams, NsPoint: map[string]float64{}}
	b, err := newBatch(k)
	if err != nil {
		return row, err
	}
	means := make(map[string][]float64)
	for range e.rounds {
		runtime.GC()
		for _, s := range sides {
			mean, err := freshTurn(s, b, streams, e)
			if err != nil {
				return row, fmt.Errorf("%s opening %d streams: %w", s.name, streams, err)
			}
			means[s.name] = append(means[s.name], mean)
		}
	}
	for _, s := range sides {
		row.NsPoint[s.name] = median(means[s.name])
	}
	row.Ratio = ratio(means[nameContrib], means[nameOurs])
	row.Floor = ratio(means[nameOurs], means[nameMap])
	return row, nil
}

// freshTurn opens all streams, as often as it takes for enough calls, each time on a side without any, and returns the mean
// ns per point. It is an error if a point comes out as more than its own delta: its stream was there already.
func freshTurn(s side, b *batch, streams int, e effort) (float64, error) {
	n := batches(streams)
	passes := e.passes(n)
	var spent time.Duration
	for range passes {
		consume, err := s.open()
		if err != nil {
			return 0, err
		}
		for i := range n {
			b.load(i, 0)
			begin := time.Now()
			err := consume(b.md)
			spent += time.Since(begin)
			if err != nil {
				return 0, err
			}
			if s.converts {
				if err := b.check(1); err != nil {
					return 0, err
				}
			}
		}
	}
	return float64(spent.Nanoseconds()) / float64(passes*n*pointsPerBatch), nil
}
