// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"context"
	"fmt"
	"math"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
)

func manyWriters(cfg d2c.Config) d2c.Config {
	cfg.Writers = d2c.WritersMany
	return cfg
}

// manyRows are histories of streams of many writers: every delta is new that is not identical to one before.
var manyRows = []row{
	{"intervals order nothing", nil, []step{
		in(10, 20, 1).gives(d2c.AddedFirst, 10, 20, 1),
		in(20, 30, 2).gives(d2c.AddedUnordered, 10, 30, 3),
		in(25, 35, 4).gives(d2c.AddedUnordered, 10, 35, 7),
		in(5, 40, 8).gives(d2c.AddedUnordered, 10, 40, 15),
		in(50, 60, 16).gives(d2c.AddedUnordered, 10, 60, 31),
		in(0, 70, 32).gives(d2c.AddedUnordered, 10, 70, 63),
		in(30, 55, 64).gives(d2c.AddedUnordered, 10, 70.001, 127),
		in(2, 4, 128).gives(d2c.AddedUnordered, 10, 70.002, 255),
		in(0, 3, 256).gives(d2c.AddedUnordered, 10, 70.003, 511),
		in(70, 80, 512).gives(d2c.AddedUnordered, 10, 80, 1023),
	}},
	{"one interval, other contents", nil, []step{
		in(10, 20, 1).gives(d2c.AddedFirst, 10, 20, 1),
		in(10, 20, 2).gives(d2c.AddedUnordered, 10, 20.001, 3),
		in(10, 20, 4).gives(d2c.AddedUnordered, 10, 20.002, 7),
		in(0, 20, 4).gives(d2c.AddedUnordered, 10, 20.003, 11),
		in(15, 20, 4).gives(d2c.AddedUnordered, 10, 20.004, 15),
	}},
	{"identical is a repeat, however long ago it was added last", nil, []step{
		in(10, 20, 1).gives(d2c.AddedFirst, 10, 20, 1),
		in(10, 20, 1).gives(d2c.Repeat, 10, 20, 1),
		in(10, 20, 2).gives(d2c.AddedUnordered, 10, 20.001, 3),
		in(5, 10, 4).gives(d2c.AddedUnordered, 10, 20.002, 7),
		in(1000, 2000, 8).gives(d2c.AddedUnordered, 10, 2000, 15),
		in(10, 20, 1).gives(d2c.Repeat, 10, 2000, 15),
		in(10, 20, 2).gives(d2c.Repeat, 10, 2000, 15),
		in(5, 10, 4).gives(d2c.Repeat, 10, 2000, 15),
		in(1000, 2000, 8).gives(d2c.Repeat, 10, 2000, 15),
	}},
	{"identical without a start", nil, []step{
		in(0, 20, 1).gives(d2c.AddedFirst, 20, 20, 1),
		in(0, 20, 1).gives(d2c.Repeat, 20, 20, 1),
		in(20, 20, 1).gives(d2c.Repeat, 20, 20, 1),
		in(0, 10, 1).gives(d2c.AddedUnordered, 20, 20.001, 2),
		in(0, 10, 1).gives(d2c.Repeat, 20, 20.001, 2),
	}},
	{"identical is another", identicalAdd, []step{
		in(10, 20, 1).gives(d2c.AddedFirst, 10, 20, 1),
		in(10, 20, 1).gives(d2c.AddedUnordered, 10, 20.001, 2),
		in(10, 20, 1).gives(d2c.AddedUnordered, 10, 20.002, 3),
		in(20, 30, 1).gives(d2c.AddedUnordered, 10, 30, 4),
		in(10, 20, 1).gives(d2c.AddedUnordered, 10, 30.001, 5),
	}},
	{"markers", nil, []step{
		in(10, 20, marker).gives(d2c.NoRecordedValue, 10, 20, marker),
		in(10, 20, 1).gives(d2c.AddedFirst, 10, 20, 1),
		in(0, 30, marker).gives(d2c.NoRecordedValue, 10, 30, marker),
		in(0, 20, marker).drops(d2c.DroppedTooLate),
		in(10, 20, 1).gives(d2c.Repeat, 10, 30.001, 1),
		in(10, 15, 2).gives(d2c.AddedUnordered, 10, 30.002, 3),
	}},
	{"reaches back before the process began", clock(100), []step{
		in(90, 110, 1).gives(d2c.AddedFirst, 110, 110, 1),
		in(90, 105, 2).gives(d2c.AddedUnordered, 110, 110.001, 3),
		in(90, 120, 4).gives(d2c.AddedUnordered, 110, 120, 7),
		in(80, 90, 8).gives(d2c.AddedUnordered, 110, 120.001, 15),
		in(90, 110, 1).gives(d2c.Repeat, 110, 120.001, 15),
	}},
}

func identicalAdd(c *d2c.Config) { c.Identical = d2c.IdenticalAdd }

func clock(second float64) func(*d2c.Config) {
	return func(c *d2c.Config) { *c = clockAt(*c, second) }
}

func TestRowManyWriters(t *testing.T) {
	for _, shape := range shapes {
		for _, row := range manyRows {
			t.Run(shape.name+"/"+row.name, func(t *testing.T) {
				cfg := manyWriters(d2c.DefaultConfig())
				if row.with != nil {
					row.with(&cfg)
				}
				modes := modes
				if cfg.Now != nil {
					modes = modes[:2] // shared state has a floor when it begins
				}
				for _, mode := range modes {
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

// TestRowManyIdenticalInOneRequest: of identical points of a request each is another, and the same ones where it comes again.
func TestRowManyIdenticalInOneRequest(t *testing.T) {
	type counts = map[d2c.Outcome]uint64
	for _, shape := range shapes {
		t.Run(shape.name, func(t *testing.T) {
			p := shape.point
			one := p(10, 20, 1)
			batchesInModes(t, manyWriters(d2c.DefaultConfig()),
				batchStep{in: []point{one, one}, out: []point{p(10, 20, 2)}, want: counts{d2c.AddedFirst: 1, d2c.AddedUnordered: 1}},
				batchStep{in: []point{one, one}, out: []point{p(10, 20, 2)}, want: counts{d2c.Repeat: 2}},
				batchStep{in: []point{one}, out: []point{p(10, 20, 2)}, want: counts{d2c.Repeat: 1}},
				batchStep{ // of three, one is new
					in:   []point{one, p(20, 30, 4), one, one},
					out:  []point{p(10, 20, 2), p(10, 30, 7), p(10, 20.001, 3)}, // the repeats are answered before the third is added
					want: counts{d2c.AddedUnordered: 2, d2c.Repeat: 2},
				},
				batchStep{in: []point{one, one, one, p(20, 30, 4)}, out: []point{p(10, 30, 7)}, want: counts{d2c.Repeat: 4}},
			)
			t.Run("is another", func(t *testing.T) {
				cfg := manyWriters(d2c.DefaultConfig())
				identicalAdd(&cfg)
				batchesInModes(t, cfg,
					batchStep{in: []point{one, one}, out: []point{p(10, 20, 2)}, want: counts{d2c.AddedFirst: 1, d2c.AddedUnordered: 1}},
					batchStep{in: []point{one, one}, out: []point{p(10, 20.001, 4)}, want: counts{d2c.AddedUnordered: 2}},
				)
			})
		})
	}
	t.Run("of another stream", func(t *testing.T) {
		a, b := series("a"), series("b")
		batchesInModes(t, manyWriters(d2c.DefaultConfig()),
			batchStep{
				in: []point{a.int(10, 20, 1), b.int(10, 20, 1)}, out: []point{a.int(10, 20, 1), b.int(10, 20, 1)}, want: counts{d2c.AddedFirst: 2},
			},
			batchStep{
				in: []point{b.int(10, 20, 1), a.int(10, 20, 1)}, out: []point{b.int(10, 20, 1), a.int(10, 20, 1)}, want: counts{d2c.Repeat: 2},
			},
		)
	})
	t.Run("one writer", func(t *testing.T) { // of whom it is a repeat, within a request too
		batchesInModes(t, d2c.DefaultConfig(), batchStep{
			in:   []point{series("s").int(10, 20, 1), series("s").int(10, 20, 1)},
			out:  []point{series("s").int(10, 20, 1)},
			want: counts{d2c.AddedFirst: 1, d2c.Repeat: 1},
		})
	})
}

// TestRowManyWindow: what is identical to a delta is known for the late window, by the clock of whoever counts it.
func TestRowManyWindow(t *testing.T) {
	for _, shape := range shapes {
		for _, mode := range modes {
			t.Run(shape.name+"/"+mode.name, func(t *testing.T) {
				clock := time.Unix(1000, 0)
				cfg := manyWriters(d2c.DefaultConfig())
				cfg.MaxStale = 0
				cfg.LateWindow = time.Minute
				cfg.Now = func() time.Time { return clock }
				next := mode.open(t, cfg)
				at := func(second int64, s step) {
					t.Helper()
					clock = time.Unix(second, 0)
					exchangeOne(t, next(), fmt.Sprint(second), exchanges(shape, []step{s})[0])
				}
				at(2000, in(1500, 1900, 1).gives(d2c.AddedFirst, 1500, 1900, 1))
				at(2020, in(1500, 1910, 2).gives(d2c.AddedUnordered, 1500, 1910, 3))
				at(2060, in(1500, 1900, 1).gives(d2c.Repeat, 1500, 1910, 3))
				at(2061, in(1500, 1900, 1).gives(d2c.AddedUnordered, 1500, 1910.001, 4)) // a repeat has not made it younger
				at(2080, in(1500, 1910, 2).gives(d2c.Repeat, 1500, 1910.001, 4))
				at(2081, in(1500, 1910, 2).gives(d2c.AddedUnordered, 1500, 1910.002, 6))
				at(2121, in(1500, 1900, 1).gives(d2c.Repeat, 1500, 1910.002, 6))
				at(2122, in(1500, 1900, 1).gives(d2c.AddedUnordered, 1500, 1910.003, 7))
				at(2100, in(1500, 1900, 1).gives(d2c.Repeat, 1500, 1910.003, 7)) // a clock that is set back
				at(9000, in(1500, 1900, 4).gives(d2c.AddedUnordered, 1500, 1910.004, 11))
				at(9000, in(1500, 1900, 1).gives(d2c.AddedUnordered, 1500, 1910.005, 12))
			})
		}
	}
}

// TestRowManyRestarts: a total that cannot go on begins anew, and takes nothing from before; what was counted is known.
func TestRowManyRestarts(t *testing.T) {
	const s = series("s")
	cfg := manyWriters(d2c.DefaultConfig())
	t.Run("overflow", func(t *testing.T) {
		inModes(t, cfg,
			exchange{in: s.int(10, 20, math.MaxInt64-1), want: d2c.AddedFirst, out: s.int(10, 20, math.MaxInt64-1)},
			exchange{in: s.int(10, 30, 1), want: d2c.AddedUnordered, out: s.int(10, 30, math.MaxInt64)},
			exchange{in: s.int(15, 25, 2), want: d2c.RestartedOverflow, out: s.int(30, 30.001, 2)},
			exchange{in: s.int(15, 25, 2), want: d2c.Repeat, out: s.int(30, 30.001, 2)},
			exchange{in: s.int(10, 30, 1), want: d2c.Repeat, out: s.int(30, 30.001, 2)},
			exchange{in: s.int(10, 40, 4), want: d2c.AddedUnordered, out: s.int(30, 40, 6)},
			exchange{in: s.int(20, 35, 8), want: d2c.AddedUnordered, out: s.int(30, 40.001, 14)},
		)
	})
	t.Run("layout", func(t *testing.T) {
		h := func(start, end float64, bounds []float64, n uint64) point {
			return s.histogram(start, end, hist(bounds, append(make([]uint64, len(bounds)), n)...))
		}
		a, b := []float64{1}, []float64{1, 2}
		inModes(t, cfg,
			exchange{in: h(10, 20, a, 1), want: d2c.AddedFirst, out: h(10, 20, a, 1)},
			exchange{in: h(10, 30, b, 2), want: d2c.RestartedLayout, out: h(20, 30, b, 2)},
			exchange{in: h(10, 20, a, 1), want: d2c.Repeat, out: h(20, 30, b, 2)},
			exchange{in: h(15, 30, a, 4), want: d2c.RestartedLayout, out: h(30, 30.001, a, 4)},
			exchange{in: h(15, 30, a, 0), want: d2c.AddedUnordered, out: h(30, 30.002, a, 4)},
		)
	})
}

// TestRowManyNothing: what counts nothing changes nothing of many writers either.
func TestRowManyNothing(t *testing.T) {
	const s = series("s")
	a, b := []float64{1}, []float64{1, 2}
	h := func(start, end float64, bounds []float64, n uint64) point {
		return s.histogram(start, end, hist(bounds, append(make([]uint64, len(bounds)), n)...))
	}
	inModes(t, manyWriters(d2c.DefaultConfig()),
		exchange{in: h(10, 20, a, 1), want: d2c.AddedFirst, out: h(10, 20, a, 1)},
		exchange{in: h(15, 25, b, 0), want: d2c.AddedUnordered, out: h(10, 25, a, 1)},
		exchange{in: h(15, 25, b, 0), want: d2c.Repeat, out: h(10, 25, a, 1)},
	)
}

// TestRowManyBound: of so many deltas as no stream has room for the latest are known, whoever asks.
func TestRowManyBound(t *testing.T) {
	const n, known = 2000, 768
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			next := mode.open(t, manyWriters(d2c.DefaultConfig()))
			s := series("s")
			// Ten a request, so that modes in which each is a process of its own have an end.
			request := func(from int) pmetric.Metrics {
				var points []point
				for i := from; i < from+10; i++ {
					points = append(points, s.int(float64(10+i%7), float64(20+i), 1))
				}
				return ofResource(batch(points...))
			}
			for i := 0; i < n; i += 10 {
				if r := convert(next(), request(i)); r.Dropped() > 0 || r.Count(d2c.Repeat) > 0 {
					t.Fatal(describeResult(r))
				}
			}
			conv := next()
			for i := n - 10; i >= n-known+8; i -= 10 {
				md := request(i)
				if r := convert(conv, md); r.Count(d2c.Repeat) != 10 {
					t.Fatalf("request %d again: %s", i, describeResult(r))
				}
			}
			if r := convert(conv, request(0)); r.Count(d2c.AddedUnordered) != 10 {
				t.Errorf("the first again, which no stream has room for: %s", describeResult(r))
			}
			for st := range conv.Streams() {
				if st.Int != n+10 {
					t.Errorf("the total is %d, want %d", st.Int, n+10)
				}
			}
			if mode.name != "memory" {
				return
			}
			most := conv.Stats().MemoryBytes
			for i := n; i < 5*n; i += 10 {
				convert(conv, request(i))
			}
			if m := conv.Stats().MemoryBytes; m != most {
				t.Errorf("%d bytes of memory became %d", most, m)
			}
		})
	}
}

// TestRowManyUpToTheBound: no delta is forgotten while there is room, whatever their fingerprints and the order of their times.
func TestRowManyUpToTheBound(t *testing.T) {
	conv := newConverter(t, manyWriters(d2c.DefaultConfig()))
	s := series("s")
	for n := range 768 {
		for _, want := range []d2c.Outcome{d2c.AddedUnordered, d2c.Repeat} {
			if r := convert(conv, batch(s.int(10, float64(20+n*37%768), 1))); r.Count(want) != 1 && n > 0 {
				t.Fatalf("delta %d: %s, want %v", n, describeResult(r), want)
			}
		}
	}
	for n := range 768 {
		if r := convert(conv, batch(s.int(10, float64(20+n), 1))); r.Count(d2c.Repeat) != 1 {
			t.Fatalf("delta at %d: %s", n, describeResult(r))
		}
	}
}

// TestRowManyExpires: a stream that expires takes what it remembers with it, and its memory is given back.
func TestRowManyExpires(t *testing.T) {
	clock := time.Unix(1000, 0)
	cfg := manyWriters(d2c.DefaultConfig())
	cfg.MaxStale = time.Minute
	cfg.Now = func() time.Time { return clock }
	conv := newConverter(t, cfg)
	var memory int64
	for round := range 20 {
		for i := range 100 {
			for n := range 50 {
				from := 1000 + 1000*round
				convert(conv, batch(series(fmt.Sprint(i)).int(float64(from), float64(from+n+1), 1)))
			}
		}
		if round == 0 {
			memory = conv.Stats().MemoryBytes
		} else if m := conv.Stats().MemoryBytes; m > memory*5/4 {
			t.Fatalf("round %d: %d bytes, %d at first", round, m, memory)
		}
		clock = clock.Add(time.Hour)
		if n := conv.Expire(); n != 100 {
			t.Fatalf("%d have expired", n)
		}
	}
}

// TestRowWritersChange: state of one writer goes on with many, and the other way round; what one kind knows the other does not
// need.
func TestRowWritersChange(t *testing.T) {
	for _, shape := range shapes {
		t.Run(shape.name, func(t *testing.T) {
			storage := newMemory()
			one, many := d2c.DefaultConfig(), manyWriters(d2c.DefaultConfig())
			p := shape.point
			open := func(cfg d2c.Config, checkpoint bool, history ...exchange) {
				t.Helper()
				conv, _ := openTest(t, cfg, storage)
				conv.StopBackground()
				for i, x := range history {
					exchangeOne(t, conv, fmt.Sprint("point ", i), x)
				}
				if checkpoint {
					if err := conv.Checkpoint(context.Background()); err != nil {
						t.Fatal(err)
					}
				}
				closeTest(t, conv)
			}
			for _, checkpoint := range []bool{false, true} {
				at := map[bool]float64{true: 1000}[checkpoint]
				n := map[bool]int{true: 63}[checkpoint]
				from := 10.0
				first := d2c.AddedFirst
				if checkpoint {
					first = d2c.AddedGap
				}
				x := exchange{in: p(at+10, at+20, 1), want: first, out: p(from, at+20, n+1)}
				if checkpoint {
					x.opened = at + 10 - 60
				}
				open(one, checkpoint, x, exchange{in: p(at+30, at+40, 2), want: d2c.AddedGap, out: p(from, at+40, n+3), opened: 10})
				open(many, checkpoint,
					exchange{in: p(at+20, at+30, 4), want: d2c.AddedUnordered, out: p(from, at+40.001, n+7)},
					exchange{in: p(at+5, at+15, 8), want: d2c.AddedUnordered, out: p(from, at+40.002, n+15)},
					exchange{in: p(at+5, at+15, 8), want: d2c.Repeat, out: p(from, at+40.002, n+15)},
				)
				open(many, checkpoint,
					exchange{in: p(at+20, at+30, 4), want: d2c.Repeat, out: p(from, at+40.002, n+15)},
					exchange{in: p(at+10, at+50, 16), want: d2c.AddedUnordered, out: p(from, at+50, n+31)},
				)
				open(one, checkpoint,
					exchange{in: p(at+10, at+50, 16), want: d2c.Repeat, out: p(from, at+50, n+31)},
					exchange{in: p(at+50, at+60, 32), want: d2c.AddedAligned, out: p(from, at+60, n+63)},
				)
			}
		})
	}
}

// TestManyWritersByHand: what is remembered is in the record as its description says.
func TestManyWritersByHand(t *testing.T) {
	clock := time.Unix(1_700_000_000, 0)
	cfg := manyWriters(d2c.DefaultConfig())
	cfg.Now = func() time.Time { return clock }
	storage := newMemory()
	conv, _ := openTest(t, cfg, storage)
	s := series("s")
	for i := range 5 {
		clock = clock.Add(time.Second)
		convert(conv, ofResource(batch(s.int(float64(10+i), 20, 1))))
	}
	states := conv.States()
	if len(states) != 1 || len(states[0].Memory) != 5 {
		t.Fatalf("%+v", states)
	}
	for i, r := range states[0].Memory {
		if r.At != uint32(1_700_000_001+i) || r.Print == 0 || i == 4 && states[0].Print != uint32(r.Print)&(1<<24-1) {
			t.Errorf("%d: %+v, the latest is %x", i, r, states[0].Print)
		}
	}
	closeTest(t, conv)
	conv, _ = openTest(t, cfg, storage)
	defer closeTest(t, conv)
	if got, want := fmt.Sprint(conv.States()[0].Memory), fmt.Sprint(states[0].Memory); got != want {
		t.Errorf("read\n     %s\nwant %s", got, want)
	}
}

// TestRowManyGrowWhileOthersOpen: what streams have outgrown is given back in the middle of batches that open others, whose totals
// are nowhere yet.
func TestRowManyGrowWhileOthersOpen(t *testing.T) {
	const old, opened, deltas = 2000, 20, 50
	conv := newConverter(t, manyWriters(d2c.DefaultConfig()))
	for n := range deltas {
		// Of each stream a delta; the last ones are new.
		var in, out []point
		for i := range old + n*opened {
			s, end := series(fmt.Sprint(i)), float64(20+n)
			since := max(i-old+opened, 0) / opened // the batch that opened it
			k := uint64(n + 1 - since)
			start := float64(10 + since)
			if i%2 == 0 {
				bounds := []float64{1, 2}
				in = append(in, s.histogram(start, end, hist(bounds, 1, 0, 2)))
				out = append(out, s.histogram(start, end, hist(bounds, k, 0, 2*k)))
			} else {
				in = append(in, s.exponential(start, end, expo(0, 0, 0, buckets{3, []uint64{1, 2}}, buckets{})))
				out = append(out, s.exponential(start, end, expo(0, 0, 0, buckets{3, []uint64{k, 2 * k}}, buckets{})))
			}
		}
		md := batch(in...)
		r := convert(conv, md)
		first := opened
		if n == 0 {
			first = old
		}
		if r.Count(d2c.AddedFirst) != uint64(first) || r.Count(d2c.AddedUnordered) != uint64(len(in)-first) {
			t.Fatalf("batch %d: %s", n, describeResult(r))
		}
		if !sameMetrics(md, cumulative(out...)) {
			t.Fatalf("batch %d: other totals than the sums of what was sent", n)
		}
	}
}
