// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/deltaring/deltaring/d2c"
)

// floorStream is a stream of any kind; the tests lose it up to 1030 s.
type floorStream struct {
	name  string
	delta func(start, end float64, n int) point
}

func floorStreams() (streams []floorStream) {
	kinds := map[string]func(s series, start, end float64, n int) point{
		"sum":    func(s series, start, end float64, n int) point { return s.int(start, end, int64(n)) },
		"double": func(s series, start, end float64, n int) point { return s.double(start, end, float64(n)) },
		"histogram": func(s series, start, end float64, n int) point {
			return s.histogram(start, end, hist([]float64{1, 2}, uint64(n), 0, 1))
		},
		"exponential": func(s series, start, end float64, n int) point {
			return s.exponential(start, end, expo(2, 0, 1, buckets{-3, []uint64{uint64(n)}}, buckets{}))
		},
	}
	for name, kind := range kinds {
		s := seriesIn(3, 0, func(s series) point { return kind(s, 0, 1, 1) })
		streams = append(streams, floorStream{name, func(start, end float64, n int) point { return kind(s, start, end, n) }})
	}
	slices.SortFunc(streams, func(a, b floorStream) int { return cmp.Compare(a.name, b.name) })
	return streams
}

// forgotten returns what is stored when a stream has given out a total at 1030 s and its checkpoint is lost.
func forgotten(t *testing.T, s floorStream) stored {
	t.Helper()
	rec, _, err := newWorld([]action{
		{points: []point{s.delta(1000, 1020, 1)}}, {points: []point{s.delta(1020, 1030, 100)}}, {shards: []int{3}},
	}).run(nil, again)
	if err != nil {
		t.Fatal(err)
	}
	return rec.values.with([]operation{{"c/1/03/0000", nil}})
}

func openForgotten(t *testing.T, values stored) *d2c.Converter {
	t.Helper()
	cfg := d2c.Config{LateWindow: 5 * time.Minute, Now: func() time.Time { return time.Unix(2000, 0) }}
	conv, recovery, err := d2c.OpenDurable(context.Background(), cfg, d2c.DurableConfig{Storage: &recorder{values: values}, Owner: "test"})
	if err != nil || conv.Len() != 0 || len(recovery.Damaged) == 0 {
		t.Fatalf("%v %+v", err, recovery)
	}
	if floor := conv.Floor(3); floor != int64(sec(1030)) {
		t.Fatalf("floor is %d", floor)
	}
	conv.StopBackground()
	return conv
}

// A delta up to the floor may have been counted. It is not counted again because the batch has a later one.
func TestFloorHoldsForWholeBatch(t *testing.T) {
	for _, s := range floorStreams() {
		t.Run(s.name, func(t *testing.T) {
			conv := openForgotten(t, forgotten(t, s))
			defer closeTest(t, conv)
			r := convert(conv, ofResource(batch(s.delta(1030, 1040, 1000), s.delta(1020, 1030, 100), s.delta(0, 1030, 7))))
			if r.Count(d2c.AddedFirst) != 1 || r.Count(d2c.DroppedTooLate) != 2 {
				t.Errorf("together: %s", describeResult(r))
			}
			if s := conv.States(); len(s) != 1 || s[0].Start != sec(1030) || s[0].Last != sec(1040) {
				t.Errorf("%+v", s)
			}
		})
	}
}

// A batch of several points around the floor does what its points do one by one, in the order of their times.
func TestBatchesAroundFloor(t *testing.T) {
	smallChunks(t)
	ctx := context.Background()
	for _, s := range floorStreams() {
		values := forgotten(t, s)
		for _, seed := range seeds(t, 300) {
			random := rand.New(rand.NewPCG(seed, 0xf100))
			together, alone := openForgotten(t, values), openForgotten(t, values)
			for range 3 {
				type interval struct{ start, end float64 }
				var all []interval
				for range 1 + random.IntN(5) {
					end := float64(1010 + 5*random.IntN(12))
					start := end - float64(5*random.IntN(5)) // as long as nothing is unknown
					if random.IntN(6) == 0 {
						start = 0
					}
					all = append(all, interval{start, end})
				}
				slices.SortStableFunc(all, func(a, b interval) int { return cmp.Compare(a.end, b.end) })
				var want d2c.Result
				var points []point
				late := uint64(0)
				for i, p := range all {
					points = append(points, s.delta(p.start, p.end, 1<<i))
					r, err := alone.Convert(ctx, ofResource(batch(s.delta(p.start, p.end, 1<<i))))
					if err != nil {
						t.Fatal(err)
					}
					for o, n := range r.Counts() {
						want.Note(o, n)
					}
					want.GapOpened += r.GapOpened
					want.GapFilled += r.GapFilled
					if p.end <= 1030 {
						late++
					}
				}
				shuffled := shuffleByTime(random, points, func(i int) float64 { return all[i].end })
				got, err := together.Convert(ctx, ofResource(batch(shuffled...)))
				if err != nil {
					t.Fatal(err)
				}
				if got.Points() != want || got.Count(d2c.DroppedTooLate) < late {
					t.Fatalf("%s, seed %d: %v:\n got %s\nwant %s", s.name, seed, all, describeResult(got), describeResult(want))
				}
				// Alone, each that is late has a sample and a time of its own.
				given := func(conv *d2c.Converter) string { return emitted.ReplaceAllString(fmt.Sprint(statesOf(conv)), "") }
				if got, want := given(together), given(alone); got != want {
					t.Fatalf("%s, seed %d: %v:\n got %s\nwant %s", s.name, seed, all, got, want)
				}
			}
			closeTest(t, together)
			closeTest(t, alone)
		}
	}
}

var emitted = regexp.MustCompile(" emitted [0-9]+")

// shuffleByTime returns points in any order, but those of one time in theirs.
func shuffleByTime(random *rand.Rand, points []point, time func(i int) float64) (shuffled []point) {
	groups := map[float64][]int{}
	for i := range points {
		groups[time(i)] = append(groups[time(i)], i)
	}
	for _, i := range random.Perm(len(points)) {
		at := time(i)
		shuffled = append(shuffled, points[groups[at][0]])
		groups[at] = groups[at][1:]
	}
	return shuffled
}
