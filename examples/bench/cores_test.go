// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/streamid"
)

// Cores must get the streams that a sharing promises: others than each other, others than before, or the same.
func TestSharings(t *testing.T) {
	t.Parallel()
	const streams, workers = 3_000, 3
	for _, how := range sharings {
		t.Run(how.name, func(t *testing.T) {
			var mu sync.Mutex
			seen := make(map[streamid.ID]int)
			count := side{name: nameHash, open: func() (consume, error) {
				return func(md pmetric.Metrics) error {
					mu.Lock()
					defer mu.Unlock()
					identify(md, func(id streamid.ID) { seen[id]++ })
					return nil
				}, nil
			}}
			c, err := newCrew(count, how, streams, workers)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				clear(seen)
				before := c.n
				if _, err := c.pass(workers); err != nil {
					t.Fatal(err)
				}
				if len(seen) != streams {
					t.Errorf("%d streams, want %d", len(seen), streams)
				}
				for id, times := range seen {
					if times != c.n-before {
						t.Fatalf("stream %v: %d points in %d intervals", id, times, c.n-before)
					}
				}
			}

			// The first batch of the first core in two passes, and of the second core.
			first, _, interval := how.part(0, workers, 20, 0)
			next, _, _ := how.part(0, workers, 20, 1)
			other, _, later := how.part(1, workers, 20, 0)
			want := map[string][3]bool{nameDisjoint: {true, false, true}, nameInTurn: {false, false, true}, nameAtOnce: {true, true, false}}
			if got := [3]bool{first == next, first == other, interval == later}; got != want[how.name] {
				t.Errorf("same streams next time, as the other, same interval: %v, want %v", got, want[how.name])
			}
		})
	}
}

// Whatever cores do to each other, ours must have every delta in its totals in the end, and contrib where it can.
func TestCoresKeepTotals(t *testing.T) {
	for _, how := range sharings {
		row, err := cores(coreSides(how), how, 2000, 2, effort{1, 1})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{nameOurs, nameHash, nameContrib} {
			positive(t, how.name+" "+name, row.NsOne[name], row.NsAll[name], row.Speedup[name])
		}
		if row.Lost[nameOurs] != 0 {
			t.Errorf("%s: a share of %g is lost", how.name, row.Lost[nameOurs])
		}
	}
}

// Points that overtake each other must really be gaps and late, and be added all the same: the later interval goes first.
func TestOvertakenPointsAreAdded(t *testing.T) {
	t.Parallel()
	conv, err := newConverter()
	if err != nil {
		t.Fatal(err)
	}
	b, err := newBatch(kindSum)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		interval int
		outcome  d2c.Outcome
	}{{0, d2c.AddedFirst}, {2, d2c.AddedGap}, {1, d2c.AddedLate}, {3, d2c.AddedAligned}} {
		b.load(0, step.interval)
		if err := convertTo(conv, b.md, []d2c.Outcome{step.outcome}); err != nil {
			t.Errorf("interval %d: %v", step.interval, err)
		}
	}
	if err := b.check(4); err != nil {
		t.Error(err)
	}
	b.load(0, 3)
	if err := convert(conv, b.md); err == nil {
		t.Error("repeats pass for aligned points")
	}
}

// A side that loses deltas must not be measured as ours; and the next measurement must not run on what is left of a batch.
func TestCoresNoticeLoss(t *testing.T) {
	calls := 0
	var mu sync.Mutex
	var sizes []int
	lossy := side{name: nameOurs, converts: true, open: func() (consume, error) {
		conv, err := newConverter()
		return func(md pmetric.Metrics) error {
			mu.Lock()
			defer mu.Unlock()
			sizes = append(sizes, md.DataPointCount())
			if calls++; calls%5 == 4 {
				md.ResourceMetrics().RemoveIf(func(pmetric.ResourceMetrics) bool { return true })
				return nil
			}
			return convertTo(conv, md, []d2c.Outcome{d2c.AddedFirst, d2c.AddedAligned, d2c.AddedGap, d2c.AddedLate})
		}, err
	}}
	_, err := cores([]side{lossy}, sharings[2], 4000, 2, effort{1, 8})
	if err == nil || !strings.Contains(err.Error(), "not in the totals") {
		t.Errorf("got %v, want lost deltas", err)
	}
	if slices.Min(sizes) != pointsPerBatch || slices.Max(sizes) != pointsPerBatch {
		t.Errorf("batches of %d to %d points, want %d", slices.Min(sizes), slices.Max(sizes), pointsPerBatch)
	}
}
