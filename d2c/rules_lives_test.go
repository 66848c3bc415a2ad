// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"context"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/deltaring/deltaring/d2c"
)

// TestRowLives: a stream that is opened by a point which reaches back into what may have been given out of it begins at the
// point's end. What is missing from before is late, and moves no start.
func TestRowLives(t *testing.T) {
	// The process began at 100 s.
	for _, row := range []row{
		{"ends before the process began: from before, sent again", nil, []step{
			in(80, 90, 1).gives(d2c.AddedFirst, 80, 90, 1),
			in(90, 110, 2).gives(d2c.AddedAligned, 80, 110, 3),
			in(70, 80, 4).gives(d2c.AddedBeforeFirst, 70, 110.001, 7),
		}},
		{"ends when the process began", nil, []step{
			in(80, 100, 1).gives(d2c.AddedFirst, 80, 100, 1),
		}},
		{"begins when the process did", nil, []step{
			in(100, 110, 1).gives(d2c.AddedFirst, 100, 110, 1),
		}},
		{"reaches back before the process began", nil, []step{
			in(99.999, 110, 1).gives(d2c.AddedFirst, 110, 110, 1),
			in(110, 120, 2).gives(d2c.AddedAligned, 110, 120, 3),
		}},
		{"without a start", nil, []step{
			in(0, 110, 1).gives(d2c.AddedFirst, 110, 110, 1),
			in(90, 110, 2).gives(d2c.Covered, 110, 110, 1),
			in(0, 105, 2).gives(d2c.AddedBeforeFirst, 105, 110.001, 3),
		}},
		{"a start that never moves", nil, []step{
			in(10, 110, 1).gives(d2c.AddedFirst, 110, 110, 1),
			in(10, 110, 1).gives(d2c.Repeat, 110, 110, 1),
			in(10, 120, 2).gives(d2c.AddedOverlap, 110, 120, 3),
			in(10, 130, 4).gives(d2c.AddedOverlap, 110, 130, 7),
			in(10, 120, 2).drops(d2c.DroppedTooLate),
			in(10, 130, 4).gives(d2c.Repeat, 110, 130, 7),
		}},
		{"a start that never moves, overlaps dropped", overlapDrop, []step{
			in(10, 110, 1).gives(d2c.AddedFirst, 110, 110, 1),
			in(10, 120, 2).drops(d2c.DroppedOverlap),
			in(110, 120, 2).gives(d2c.AddedAligned, 110, 120, 3),
		}},
		{"what is missing from before is late", nil, []step{
			in(90, 110, 1).gives(d2c.AddedFirst, 110, 110, 1),
			in(80, 90, 2).gives(d2c.AddedLate, 110, 110.001, 3).fills(10),
			in(80, 90, 2).gives(d2c.Repeat, 110, 110.001, 3),
			in(80, 90, 3).drops(d2c.DroppedTooLate), // before its start it says nothing of what it covers
			in(60, 70, 4).gives(d2c.AddedLate, 110, 110.002, 7).fills(10),
			in(85, 95, 8).drops(d2c.DroppedTooLate),
			in(95, 105, 8).drops(d2c.DroppedTooLate), // not missing: it is in the first
			in(0, 75, 8).drops(d2c.DroppedTooLate),
			in(110, 120, 8).gives(d2c.AddedAligned, 110, 120, 15),
			in(70, 80, 16).gives(d2c.AddedLate, 110, 120.001, 31).fills(10),
		}},
		{"what is missing from before the late window is too late", lateWindow(30), []step{
			in(90, 110, 1).gives(d2c.AddedFirst, 110, 110, 1),
			in(79.999, 85, 2).drops(d2c.DroppedTooLate),
			in(80, 85, 2).gives(d2c.AddedLate, 110, 110.001, 3).fills(5),
		}},
		{"no late window", lateWindow(0), []step{
			in(90, 110, 1).gives(d2c.AddedFirst, 110, 110, 1),
			in(80, 90, 2).drops(d2c.DroppedTooLate),
			in(90, 120, 2).gives(d2c.AddedOverlap, 110, 120, 3),
		}},
		{"an overlap covers what is missing", nil, []step{
			in(90, 110, 1).gives(d2c.AddedFirst, 110, 110, 1),
			in(80, 120, 2).gives(d2c.AddedOverlap, 110, 120, 3).fills(10),
			in(80, 90, 4).drops(d2c.DroppedTooLate),
			in(70, 80, 4).gives(d2c.AddedLate, 110, 120.001, 7).fills(10),
		}},
		{"first reaches back when an earlier one comes", nil, []step{
			in(105, 110, 1).gives(d2c.AddedFirst, 105, 110, 1),
			in(90, 102, 2).gives(d2c.AddedBeforeFirst, 105, 110.001, 3).opens(3),
			in(102, 105, 4).gives(d2c.AddedLate, 105, 110.002, 7).fills(3),
			in(80, 90, 8).gives(d2c.AddedLate, 105, 110.003, 15).fills(10),
			in(0, 101, 16).drops(d2c.DroppedTooLate), // it is not new any more
		}},
		{"a gap is no restart for reaching back", gapRestart, []step{
			in(90, 110, 1).gives(d2c.AddedFirst, 110, 110, 1),
			in(120, 130, 2).gives(d2c.RestartedGap, 120, 130, 2),
			in(80, 90, 4).drops(d2c.DroppedTooLate), // of a life that has ended
			in(90, 140, 8).gives(d2c.AddedOverlap, 120, 140, 10),
		}},
		{"a start that never moves, after a restart", gapRestart, []step{
			in(100, 110, 1).gives(d2c.AddedFirst, 100, 110, 1),
			in(115, 120, 2).gives(d2c.RestartedGap, 115, 120, 2),
			in(100, 130, 4).gives(d2c.AddedOverlap, 115, 130, 6),
		}},
	} {
		for _, shape := range shapes {
			t.Run(shape.name+"/"+row.name, func(t *testing.T) {
				cfg := clockAt(d2c.DefaultConfig(), 100)
				if row.with != nil {
					row.with(&cfg)
				}
				for _, mode := range modes[:2] { // shared state has a floor when it begins
					t.Run(mode.name, func(t *testing.T) {
						next := mode.open(t, cfg)
						for i, x := range exchanges(shape, row.steps) {
							exchangeOne(t, next(), fmt.Sprintf("point %d", i+1), x)
						}
					})
				}
			})
		}
	}
}

// TestRowLivesExpire: the same after streams have expired, whatever stream it is: it is the latest time given out of any that
// is known.
func TestRowLivesExpire(t *testing.T) {
	for _, shape := range shapes {
		t.Run(shape.name, func(t *testing.T) {
			clock := time.Unix(1, 0)
			cfg := d2c.DefaultConfig()
			cfg.MaxStale = time.Minute
			cfg.Now = func() time.Time { return clock }
			conv := newConverter(t, cfg)
			expire := func() {
				t.Helper()
				clock = clock.Add(time.Hour)
				if n := conv.Expire(); n != 1 {
					t.Fatalf("%d have expired", n)
				}
			}
			send := func(s step) {
				t.Helper()
				exchangeOne(t, conv, fmt.Sprint(s.start, s.end), exchanges(shape, []step{s})[0])
			}
			// A producer whose start never moves.
			send(in(10, 20, 1).gives(d2c.AddedFirst, 10, 20, 1))
			send(in(10, 30, 2).gives(d2c.AddedOverlap, 10, 30, 3))
			expire()
			send(in(10, 40, 4).gives(d2c.AddedFirst, 40, 40, 4))
			send(in(10, 50, 8).gives(d2c.AddedOverlap, 40, 50, 12))
			expire()
			// And one whose starts follow its times.
			send(in(50, 60, 1).gives(d2c.AddedFirst, 50, 60, 1))
			send(in(60, 70, 2).gives(d2c.AddedAligned, 50, 70, 3))
			expire()
			send(in(70.002, 80, 1).gives(d2c.AddedFirst, 70.002, 80, 1))
			send(in(0, 69.999, 2).drops(d2c.DroppedTooLate)) // before what was given out
			send(in(0, 70.001, 2).gives(d2c.AddedBeforeFirst, 70.001, 80.001, 3))
			expire()
			send(in(90, 100, 1).gives(d2c.AddedFirst, 90, 100, 1))
			send(in(80.002, 85, 2).gives(d2c.AddedBeforeFirst, 80.002, 100.001, 3).opens(5))
			send(in(60, 75, 4).gives(d2c.AddedBeforeFirst, 80.002, 100.002, 7).opens(5.002))
			send(in(0, 72, 8).drops(d2c.DroppedTooLate))
			// A point in a time long ago is another stream's past, too.
			send(in(10, 20, 1).gives(d2c.AddedLate, 80.002, 100.003, 8).fills(10))
		})
	}
}

// TestRowLivesOfAProcess: a durable stream goes on in the next process; one that is opened there begins after what the one
// before may have given out.
func TestRowLivesOfAProcess(t *testing.T) {
	for _, shape := range shapes {
		t.Run(shape.name, func(t *testing.T) {
			clock := time.Unix(100, 0)
			cfg := d2c.DefaultConfig()
			cfg.MaxStale = time.Hour
			cfg.Now = func() time.Time { return clock }
			storage := newMemory()
			conv, _ := openTest(t, cfg, storage)
			exchangeOne(t, conv, "first", exchanges(shape, []step{in(100, 110, 1).gives(d2c.AddedFirst, 100, 110, 1)})[0])
			clock = time.Unix(115, 0)
			closeTest(t, conv)
			conv, _ = openTest(t, cfg, storage)
			exchangeOne(t, conv, "next", exchanges(shape, []step{in(100, 120, 2).gives(d2c.AddedOverlap, 100, 120, 3)})[0])

			// It expires, and there is nothing in storage that knows of it. A point of the time of this process begins where it says.
			clock = clock.Add(2 * time.Hour)
			conv.Expire()
			if err := conv.Checkpoint(context.Background()); err != nil {
				t.Fatal(err)
			}
			closeTest(t, conv)
			conv, _ = openTest(t, cfg, storage)
			defer closeTest(t, conv)
			if conv.Len() != 0 || conv.Gone() != 0 {
				t.Fatalf("%d streams, up to %d", conv.Len(), conv.Gone())
			}
			now := 100 + 15 + 2*3600.0
			exchangeOne(t, conv, "after all", exchanges(shape, []step{in(100, now+5, 1).gives(d2c.AddedFirst, now+5, now+5, 1)})[0])
			exchangeOne(t, conv, "and on", exchanges(shape, []step{in(100, now+9, 2).gives(d2c.AddedOverlap, now+5, now+9, 3)})[0])
		})
	}
}

// TestRowLivesAcrossRestarts: a producer whose start never moves is no older for a restart, whatever was the reason.
func TestRowLivesAcrossRestarts(t *testing.T) {
	const s = series("s")
	t.Run("overflow", func(t *testing.T) {
		inModes(t, d2c.DefaultConfig(),
			exchange{in: s.int(10, 20, math.MaxInt64), want: d2c.AddedFirst, out: s.int(10, 20, math.MaxInt64)},
			exchange{in: s.int(10, 30, 1), want: d2c.RestartedOverflow, out: s.int(20, 30, 1)},
			exchange{in: s.int(10, 30, 1), want: d2c.Repeat, out: s.int(20, 30, 1)},
			exchange{in: s.int(10, 40, 2), want: d2c.AddedOverlap, out: s.int(20, 40, 3)},
			exchange{in: s.int(15, 50, 4), want: d2c.AddedOverlap, out: s.int(20, 50, 7)},
			exchange{in: s.int(10, 30, 1), want: d2c.DroppedTooLate},
		)
	})
	t.Run("layout", func(t *testing.T) {
		h := func(start, end float64, bounds []float64, counts ...uint64) point {
			return s.histogram(start, end, hist(bounds, counts...))
		}
		a, b := []float64{1, 2}, []float64{1, 3}
		inModes(t, d2c.DefaultConfig(),
			exchange{in: h(10, 20, a, 1, 2, 3), want: d2c.AddedFirst, out: h(10, 20, a, 1, 2, 3)},
			exchange{in: h(10, 30, b, 1, 1, 1), want: d2c.RestartedLayout, out: h(20, 30, b, 1, 1, 1)},
			exchange{in: h(10, 40, b, 1, 1, 1), want: d2c.AddedOverlap, out: h(20, 40, b, 2, 2, 2)},
			exchange{in: h(10, 50, a, 1, 0, 0), want: d2c.RestartedLayout, out: h(40, 50, a, 1, 0, 0)},
			exchange{in: h(10, 60, a, 1, 0, 0), want: d2c.AddedOverlap, out: h(40, 60, a, 2, 0, 0)},
		)
	})
	t.Run("not new, and not restarted", func(t *testing.T) { // what is older than its start may be in another's total
		inModes(t, d2c.DefaultConfig(),
			exchange{in: s.int(10, 20, 1), want: d2c.AddedFirst, out: s.int(10, 20, 1)},
			exchange{in: s.int(5, 30, 1), want: d2c.DroppedOlderStart},
		)
	})
}

// TestSharedLives: a worker that begins later knows no more than the store does.
func TestSharedLives(t *testing.T) {
	st := new(scriptStore)
	a := newScriptWorker(t, st, window(60))
	expect(t, a.add(0, 10, 1), "first (0, 10] 1")
	b := scriptWorkerAt(t, st, 15, window(60))
	expect(t, b.add(0, 20, 10), "overlap (0, 20] 11") // there is a record: it goes on
	other := func(start, end float64, value int64) delta { return delta{"other", start, end, value, false} }
	expect(t, b.convert(other(0, 20, 1)), "first (20, 20] 1")
	expect(t, a.convert(other(0, 30, 10)), "overlap (20, 30] 11") // as the record says
	expect(t, a.convert(delta{"a's", 0, 30, 1, false}), "first (0, 30] 1")
	expect(t, b.convert(delta{"a's", 0, 40, 1, false}), "overlap (0, 40] 2")

	// What its cache has forgotten the store has.
	a.now = a.now.Add(2 * time.Hour)
	if n := a.conv.Expire(); n != 3 {
		t.Fatalf("%d have expired", n)
	}
	expect(t, a.add(0, 50, 100), "overlap (0, 50] 111")
	// What the store has not may have been in it.
	expect(t, a.convert(delta{"new", 29, 60, 1, false}), "first (60, 60] 1")
	expect(t, a.convert(delta{"newer", 50.001, 60, 1, false}), "first (50.001, 60] 1")
}
