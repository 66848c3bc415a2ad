// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
)

// repairRow is a point that says what it means though it is malformed, or other than that of its stream before.
type repairRow struct {
	name   string
	repair d2c.Repairs
	first  point // of the stream, at (10, 20]
	in     point // at (20, 30]
	out    point // at (10, 30], where it is repaired
	// without says what becomes of it where it is not, and what comes out.
	without    d2c.Outcome
	withoutOut point
	other      d2c.Repairs // that takes it for something else
}

func repairRows() (rows []repairRow) {
	const s = series("s")
	inf := math.Inf(1)
	histogram := func(start, end float64, count uint64, bounds []float64, counts ...uint64) point {
		return s.histogram(start, end, all(hist(bounds, counts...), func(dp pmetric.HistogramDataPoint) { dp.SetCount(count) }))
	}
	exponential := func(start, end float64, count uint64, zeros uint64, counts ...uint64) point {
		return s.exponential(start, end, all(expo(0, 0, zeros, buckets{1, counts}, buckets{}),
			func(dp pmetric.ExponentialHistogramDataPoint) { dp.SetCount(count) }))
	}
	ab := []float64{1, 2}
	first := histogram(10, 20, 6, ab, 1, 2, 3)
	add := func(name string, repair d2c.Repairs, in, out point) {
		rows = append(rows, repairRow{name, repair, first, in, out, d2c.DroppedBuckets, nil, 0})
	}
	rows = append(rows,
		repairRow{
			"a bound of infinity, with a bucket above", d2c.RepairInfiniteBound, first,
			histogram(20, 30, 3, []float64{1, 2, inf}, 1, 1, 1, 0), histogram(10, 30, 9, ab, 2, 3, 4),
			d2c.RestartedLayout, histogram(20, 30, 3, []float64{1, 2, inf}, 1, 1, 1, 0), 0,
		},
		repairRow{
			"a bound of infinity, and no other", d2c.RepairInfiniteBound, histogram(10, 20, 2, nil, 2),
			histogram(20, 30, 3, []float64{inf}, 3, 0), histogram(10, 30, 5, nil, 5),
			d2c.RestartedLayout, histogram(20, 30, 3, []float64{inf}, 3, 0), 0,
		},
		repairRow{
			"bounds that were written and read", d2c.RepairRoundedBounds, histogram(10, 20, 6, []float64{0.30000000000000004}, 1, 5),
			histogram(20, 30, 2, []float64{0.3}, 1, 1), histogram(10, 30, 8, []float64{0.30000000000000004}, 2, 6),
			d2c.RestartedLayout, histogram(20, 30, 2, []float64{0.3}, 1, 1), 0,
		},
	)
	add("a bound of infinity, and no bucket above", d2c.RepairInfiniteBound,
		histogram(20, 30, 3, []float64{1, 2, inf}, 1, 1, 1), histogram(10, 30, 9, ab, 2, 3, 4))
	rows[len(rows)-1].other = d2c.RepairTrailingBuckets // to which a bucket is missing
	add("the last bucket is missing", d2c.RepairOverflowBucket,
		histogram(20, 30, 5, ab, 1, 1), histogram(10, 30, 11, ab, 2, 3, 6))
	add("last buckets are missing, and empty", d2c.RepairTrailingBuckets,
		histogram(20, 30, 4, ab, 4), histogram(10, 30, 10, ab, 5, 2, 3))
	add("the last bucket is missing, and empty", d2c.RepairTrailingBuckets,
		histogram(20, 30, 4, ab, 2, 2), histogram(10, 30, 10, ab, 3, 4, 3))
	rows = append(rows,
		repairRow{
			"no count", d2c.RepairMissingCount, first,
			histogram(20, 30, 0, ab, 1, 1, 1), histogram(10, 30, 9, ab, 2, 3, 4),
			d2c.AddedAligned, histogram(10, 30, 6, ab, 2, 3, 4), 0,
		},
		repairRow{
			"no count of an exponential histogram", d2c.RepairMissingCount, exponential(10, 20, 4, 1, 1, 2),
			exponential(20, 30, 0, 2, 1, 1), exponential(10, 30, 8, 3, 2, 3),
			d2c.AddedAligned, exponential(10, 30, 4, 3, 2, 3), 0,
		},
	)
	for _, shape := range shapes {
		rows = append(rows, repairRow{
			"start after time, " + shape.name, d2c.RepairStartAfterTime, shape.point(10, 20, 1),
			shape.point(31, 30, 2), shape.point(10, 30, 3), d2c.DroppedTime, nil, 0,
		})
	}
	return rows
}

// TestRowRepair: what is malformed in one of some ways is repaired, and counted for that, where the way is switched on; and not
// if any other is. Repeats of it are known.
func TestRowRepair(t *testing.T) {
	for _, row := range repairRows() {
		t.Run(row.name, func(t *testing.T) {
			for _, x := range []struct {
				repair d2c.Repairs
				on     bool
			}{{d2c.RepairAll, true}, {row.repair, true}, {d2c.RepairAll &^ (row.repair | row.other), false}, {0, false}} {
				t.Run(fmt.Sprint(x.repair), func(t *testing.T) {
					for _, mode := range modes {
						cfg := d2c.DefaultConfig()
						cfg.Repair = x.repair
						next := mode.open(t, cfg)
						send := func(in point, o d2c.Outcome, out point, repaired d2c.Repairs) {
							t.Helper()
							step := batchStep{in: []point{in}, want: map[d2c.Outcome]uint64{o: 1}, repaired: repaired}
							if out != nil {
								step.out = []point{out}
							}
							sendBatch(t, next(), mode.name, step)
						}
						send(row.first, d2c.AddedFirst, row.first, 0)
						if !x.on {
							send(row.in, row.without, row.withoutOut, 0)
							continue
						}
						o := d2c.AddedAligned
						if row.repair == d2c.RepairStartAfterTime {
							o = d2c.AddedNoStart
						}
						send(row.in, o, row.out, row.repair)
						// A repeat is known by its fingerprint: nobody looks at its bounds.
						send(row.in, d2c.Repeat, row.out, row.repair&^d2c.RepairRoundedBounds)
					}
				})
			}
		})
	}
}

// TestRowRepairOpens: what opens a stream is repaired, too.
func TestRowRepairOpens(t *testing.T) {
	const s = series("s")
	inf := math.Inf(1)
	count := func(n uint64) func(pmetric.HistogramDataPoint) {
		return func(dp pmetric.HistogramDataPoint) { dp.SetCount(n) }
	}
	for name, x := range map[string]struct {
		in, out  point
		repaired d2c.Repairs
	}{
		"infinite bound":  {s.histogram(10, 20, hist([]float64{1, inf}, 1, 2)), s.histogram(10, 20, hist([]float64{1}, 1, 2)), d2c.RepairInfiniteBound},
		"only infinite":   {s.histogram(10, 20, hist([]float64{inf}, 5)), s.histogram(10, 20, hist([]float64{}, 5)), d2c.RepairInfiniteBound},
		"overflow bucket": {s.histogram(10, 20, all(hist([]float64{1}, 1), count(4))), s.histogram(10, 20, hist([]float64{1}, 1, 3)), d2c.RepairOverflowBucket},
		"trailing":        {s.histogram(10, 20, hist([]float64{1, 2, 3}, 1, 1)), s.histogram(10, 20, hist([]float64{1, 2, 3}, 1, 1, 0, 0)), d2c.RepairTrailingBuckets},
		"count":           {s.histogram(10, 20, all(hist([]float64{1}, 1, 2), count(0))), s.histogram(10, 20, hist([]float64{1}, 1, 2)), d2c.RepairMissingCount},
		"count and trailing": {s.histogram(10, 20, all(hist([]float64{1, 2}, 1, 2), count(0))),
			s.histogram(10, 20, hist([]float64{1, 2}, 1, 2, 0)), d2c.RepairMissingCount | d2c.RepairTrailingBuckets},
		"infinite bound and overflow bucket": {s.histogram(10, 20, all(hist([]float64{1, inf}, 1), count(3))),
			s.histogram(10, 20, hist([]float64{1}, 1, 2)), d2c.RepairInfiniteBound | d2c.RepairOverflowBucket},
		"start after time": {s.int(21, 20, 1), s.int(20, 20, 1), d2c.RepairStartAfterTime},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, d2c.DefaultConfig(),
				exchange{in: x.in, want: d2c.AddedFirst, out: x.out, repaired: x.repaired},
				exchange{in: x.in, want: d2c.Repeat, out: x.out, repaired: x.repaired},
			)
		})
	}
}

// TestRowRepairOfWhatIsDropped: what is dropped for another reason is not counted as repaired.
func TestRowRepairOfWhatIsDropped(t *testing.T) {
	const s = series("s")
	h := func(start, end float64, counts ...uint64) point {
		return s.histogram(start, end, hist([]float64{1, 2}, counts...))
	}
	cfg := d2c.DefaultConfig()
	cfg.LateWindow, cfg.MaxStreams = 0, 1
	inModes(t, cfg,
		exchange{in: h(10, 20, 1), want: d2c.AddedFirst, out: h(10, 20, 1, 0, 0), repaired: d2c.RepairTrailingBuckets},
		exchange{in: h(5, 10, 1), want: d2c.DroppedTooLate},
		exchange{in: h(10, 20, 2), want: d2c.Covered, out: h(10, 20, 1, 0, 0), repaired: d2c.RepairTrailingBuckets},
		exchange{in: series("other").int(21, 20, 1), want: d2c.DroppedLimit},
	)
}

// TestRowRepairLeavesTheRest: what may mean one thing or another is dropped, whatever is repaired; and what is well-formed is
// no other for that.
func TestRowRepairLeavesTheRest(t *testing.T) {
	const s = series("s")
	inf := math.Inf(1)
	count := func(n uint64) func(pmetric.HistogramDataPoint) {
		return func(dp pmetric.HistogramDataPoint) { dp.SetCount(n) }
	}
	for name, in := range map[string]point{
		"something above infinity":             s.histogram(10, 20, hist([]float64{1, inf}, 1, 1, 1)),
		"infinity twice, nothing above":        s.histogram(10, 20, hist([]float64{1, inf, inf}, 1, 1, 1, 0)),
		"nothing but infinity, twice":          s.histogram(10, 20, hist([]float64{inf, inf}, 1, 0, 0)),
		"infinity twice":                       s.histogram(10, 20, hist([]float64{1, inf, inf}, 1, 1, 1)),
		"infinity in the midst":                s.histogram(10, 20, hist([]float64{1, inf, 5}, 1, 1, 1, 0)),
		"two buckets missing, which count":     s.histogram(10, 20, all(hist([]float64{1, 2}, 1), count(2))),
		"more in buckets than counted":         s.histogram(10, 20, all(hist([]float64{1, 2}, 1, 5), count(2))),
		"a bucket too many":                    s.histogram(10, 20, hist([]float64{1}, 1, 1, 0)),
		"bounds and a count":                   s.histogram(10, 20, all(hist([]float64{1}), count(2))),
		"falling bounds":                       s.histogram(10, 20, hist([]float64{2, 1}, 1, 1, 1)),
		"no count, and more than a uint64 has": s.histogram(10, 20, all(hist([]float64{1}, math.MaxUint64, 1), count(0))),
		"missing, and more than a uint64 has":  s.histogram(10, 20, all(hist([]float64{1, 2}, math.MaxUint64, 1), count(0))),
	} {
		t.Run(name, func(t *testing.T) {
			conv := newConverter(t, d2c.DefaultConfig())
			md := batch(in)
			if r := convert(conv, md); r.Count(d2c.DroppedBuckets) != 1 || r.Repaired(d2c.RepairAll) != 0 || md.DataPointCount() != 0 {
				t.Errorf("%s, %v", describeResult(r), lines(md))
			}
		})
	}
	t.Run("bounds that differ by more than rounding", func(t *testing.T) {
		for bound, same := range map[float64]bool{
			1: true, 1 + 0x1p-52: true, 1 + 0.9e-12: true, 1 - 0.9e-12: true, 1 + 1.1e-12: false, 1 - 1.1e-12: false, -1: false, 0: false,
			inf: false, -inf: false,
		} {
			conv := newConverter(t, d2c.Config{Repair: d2c.RepairRoundedBounds})
			convert(conv, batch(s.histogram(10, 20, hist([]float64{1}, 1, 1))))
			md := batch(s.histogram(20, 30, hist([]float64{bound}, 1, 0)))
			r := convert(conv, md)
			got := lastPoint(md).(pmetric.HistogramDataPoint).ExplicitBounds().AsRaw()
			if same && (r.Count(d2c.AddedAligned) != 1 || !slices.Equal(got, []float64{1}) || (r.Repaired(d2c.RepairAll) == 1) != (bound != 1)) ||
				!same && (r.Count(d2c.RestartedLayout) != 1 || got[0] != bound || r.Repaired(d2c.RepairAll) != 0) {
				t.Errorf("bound %v: %s, %d repaired, bounds %v", bound, describeResult(r), r.Repaired(d2c.RepairAll), got)
			}
		}
	})
	t.Run("around zero", func(t *testing.T) {
		conv := newConverter(t, d2c.DefaultConfig())
		convert(conv, batch(s.histogram(10, 20, hist([]float64{0}, 1, 1))))
		if r := convert(conv, batch(s.histogram(20, 30, hist([]float64{math.Copysign(0, -1)}, 1, 0)))); r.Count(d2c.AddedAligned) != 1 {
			t.Errorf("-0: %s", describeResult(r))
		}
		if r := convert(conv, batch(s.histogram(30, 40, hist([]float64{1e-300}, 1, 0)))); r.Count(d2c.RestartedLayout) != 1 {
			t.Errorf("1e-300: %s", describeResult(r))
		}
	})
	t.Run("rounding does not add up", func(t *testing.T) {
		h := func(start, end, bound float64, n uint64) point {
			return s.histogram(start, end, hist([]float64{bound}, n, 0))
		}
		inModes(t, d2c.DefaultConfig(),
			exchange{in: h(10, 20, 1, 1), want: d2c.AddedFirst, out: h(10, 20, 1, 1)},
			exchange{in: h(20, 30, 1+0.9e-12, 1), want: d2c.AddedAligned, out: h(10, 30, 1, 2), repaired: d2c.RepairRoundedBounds},
			exchange{in: h(30, 40, 1+1.8e-12, 1), want: d2c.RestartedLayout, out: h(30, 40, 1+1.8e-12, 1)},
		)
	})
	t.Run("the point stays as it was where its batch is refused", func(t *testing.T) {
		storage := newMemory()
		conv, _ := openTest(t, d2c.DefaultConfig(), storage)
		defer closeTest(t, conv)
		storage.fail = func() (part, error) { return nothing, errStorage }
		md := ofResource(batch(s.histogram(30, 20, hist([]float64{1, 2, inf}, 2))))
		before := marshal(md)
		if _, err := conv.Convert(context.Background(), md); err == nil || string(marshal(md)) != string(before) {
			t.Errorf("%v, %v", err, lines(md))
		}
	})
}

// TestRowNothing: a delta that counts nothing moves time, and nothing else.
func TestRowNothing(t *testing.T) {
	const s = series("s")
	ab, c := []float64{1, 2}, []float64{3}
	stat := func(dp statsPoint) { dp.SetSum(5); dp.SetMin(1); dp.SetMax(3) }
	h := func(start, end float64, bounds []float64, counts ...uint64) point {
		return s.histogram(start, end, all(hist(bounds, counts...), func(dp pmetric.HistogramDataPoint) {
			if dp.Count() > 0 {
				stat(dp)
			}
		}))
	}
	summed := func(p point, sum float64) point {
		return func(md pmetric.Metrics) {
			p(md)
			lastPoint(md).(statsPoint).SetSum(sum)
		}
	}
	with := func(p point, sum, lo, hi float64) point {
		return func(md pmetric.Metrics) {
			p(md)
			dp := lastPoint(md).(statsPoint)
			dp.SetSum(sum)
			dp.SetMin(lo)
			dp.SetMax(hi)
		}
	}
	first := h(10, 20, ab, 1, 1, 0)
	t.Run("histogram", func(t *testing.T) {
		repaired := map[string]d2c.Repairs{
			"bounds alone": d2c.RepairTrailingBuckets, "other bounds alone": d2c.RepairTrailingBuckets, "an infinite bound": d2c.RepairInfiniteBound,
		}
		for name, nothing := range map[string]func(start, end float64) point{
			"no buckets":              func(a, b float64) point { return h(a, b, nil) },
			"one bucket":              func(a, b float64) point { return h(a, b, nil, 0) },
			"the same bounds":         func(a, b float64) point { return h(a, b, ab, 0, 0, 0) },
			"other bounds":            func(a, b float64) point { return h(a, b, c, 0, 0) },
			"bounds alone":            func(a, b float64) point { return h(a, b, ab) },
			"other bounds alone":      func(a, b float64) point { return h(a, b, c) },
			"bounds that fall":        func(a, b float64) point { return h(a, b, []float64{2, 1}, 0, 0, 0) },
			"bounds that are nothing": func(a, b float64) point { return h(a, b, []float64{math.NaN()}, 0, 0) },
			"buckets without bounds":  func(a, b float64) point { return h(a, b, nil, 0, 0, 0) },
			"an infinite bound":       func(a, b float64) point { return h(a, b, []float64{math.Inf(1)}, 0, 0) },
			"least and most":          func(a, b float64) point { return with(h(a, b, ab, 0, 0, 0), 9, -9, 9) },
			"least of nothing":        func(a, b float64) point { return with(h(a, b, ab, 0, 0, 0), 0, math.Inf(1), math.Inf(-1)) },
			"NaN":                     func(a, b float64) point { return with(h(a, b, c, 0, 0), math.NaN(), math.NaN(), math.NaN()) },
		} {
			t.Run(name, func(t *testing.T) {
				inModes(t, d2c.DefaultConfig(),
					exchange{in: first, want: d2c.AddedFirst, out: first},
					exchange{in: nothing(20, 30), want: d2c.AddedAligned, out: h(10, 30, ab, 1, 1, 0), repaired: repaired[name]},
					exchange{in: nothing(20, 30), want: d2c.Repeat, out: h(10, 30, ab, 1, 1, 0), repaired: repaired[name]},
					exchange{in: nothing(40, 50), want: d2c.AddedGap, out: h(10, 50, ab, 1, 1, 0), opened: 10, repaired: repaired[name]},
					exchange{in: nothing(30, 40), want: d2c.AddedLate, out: h(10, 50.001, ab, 1, 1, 0), filled: 10, repaired: repaired[name]},
					exchange{in: nothing(5, 10), want: d2c.AddedBeforeFirst, out: h(5, 50.002, ab, 1, 1, 0), repaired: repaired[name]},
					exchange{in: h(50, 60, ab, 1, 0, 0), want: d2c.AddedAligned, out: summed(h(5, 60, ab, 2, 1, 0), 10)},
				)
			})
		}
	})
	t.Run("a histogram that has counted nothing takes any bounds", func(t *testing.T) {
		inModes(t, d2c.DefaultConfig(),
			exchange{in: h(10, 20, ab, 0, 0, 0), want: d2c.AddedFirst, out: h(10, 20, ab, 0, 0, 0)},
			exchange{in: h(20, 30, c, 0, 0), want: d2c.AddedAligned, out: h(10, 30, ab, 0, 0, 0)},
			exchange{in: h(40, 50, c, 1, 2), want: d2c.AddedGap, out: h(10, 50, c, 1, 2), opened: 10},
			exchange{in: h(30, 40, ab, 1, 2, 0), want: d2c.DroppedTooLate},
			exchange{in: h(50, 60, ab, 1, 2, 0), want: d2c.RestartedLayout, out: h(50, 60, ab, 1, 2, 0)},
		)
	})
	t.Run("late into one that has counted nothing", func(t *testing.T) {
		inModes(t, d2c.DefaultConfig(),
			exchange{in: h(10, 20, nil), want: d2c.AddedFirst, out: h(10, 20, nil)},
			exchange{in: h(30, 40, nil), want: d2c.AddedGap, out: h(10, 40, nil), opened: 10},
			exchange{in: h(20, 30, c, 1, 2), want: d2c.AddedLate, out: h(10, 40.001, c, 1, 2), filled: 10},
		)
	})

	e := func(start, end float64, scale int32, threshold float64, zeros uint64, pos, neg buckets) point {
		return s.exponential(start, end, all(expo(scale, threshold, zeros, pos, neg), func(dp pmetric.ExponentialHistogramDataPoint) {
			if dp.Count() > 0 {
				stat(dp)
			}
		}))
	}
	none := buckets{}
	t.Run("exponential histogram", func(t *testing.T) {
		total := func(start, end float64) point {
			return e(start, end, 3, 0.001, 1, buckets{2, []uint64{1, 2}}, buckets{-4, []uint64{3}})
		}
		for name, nothing := range map[string]func(start, end float64) point{
			"the same":                func(a, b float64) point { return e(a, b, 3, 0.001, 0, none, none) },
			"a coarser scale":         func(a, b float64) point { return e(a, b, -10, 0, 0, none, none) },
			"a finer scale":           func(a, b float64) point { return e(a, b, 20, 0, 0, none, none) },
			"no scale":                func(a, b float64) point { return e(a, b, math.MinInt32, 0, 0, none, none) },
			"a wide zero":             func(a, b float64) point { return e(a, b, 3, 1e9, 0, none, none) },
			"a negative zero":         func(a, b float64) point { return e(a, b, 3, -1, 0, none, none) },
			"an infinite zero":        func(a, b float64) point { return e(a, b, 3, math.Inf(1), 0, none, none) },
			"empty buckets far away":  func(a, b float64) point { return e(a, b, 20, 0, 0, buckets{math.MaxInt32, make([]uint64, 9)}, none) },
			"least and most":          func(a, b float64) point { return with(e(a, b, 3, 0, 0, none, none), 9, -9, 9) },
			"least and most, nothing": func(a, b float64) point { return with(e(a, b, 3, 0, 0, none, none), 0, math.Inf(1), math.Inf(-1)) },
		} {
			t.Run(name, func(t *testing.T) {
				inModes(t, d2c.DefaultConfig(),
					exchange{in: total(10, 20), want: d2c.AddedFirst, out: total(10, 20)},
					exchange{in: nothing(20, 30), want: d2c.AddedAligned, out: total(10, 30)},
					exchange{in: nothing(40, 50), want: d2c.AddedGap, out: total(10, 50), opened: 10},
					exchange{in: nothing(30, 40), want: d2c.AddedLate, out: total(10, 50.001), filled: 10},
				)
			})
		}
	})
	t.Run("zeros alone have no scale", func(t *testing.T) {
		inModes(t, d2c.DefaultConfig(),
			exchange{in: e(10, 20, 3, 0, 0, buckets{2, []uint64{1}}, none), want: d2c.AddedFirst, out: e(10, 20, 3, 0, 0, buckets{2, []uint64{1}}, none)},
			exchange{in: e(20, 30, -9, 0.125, 4, none, none), want: d2c.AddedAligned,
				out: summed(e(10, 30, 3, 0.125, 4, buckets{2, []uint64{1}}, none), 10)},
			exchange{in: e(30, 40, 3, 5, 0, buckets{3, []uint64{1}}, none), want: d2c.AddedAligned,
				out: summed(e(10, 40, 3, 0.125, 4, buckets{2, []uint64{1, 1}}, none), 15)},
		)
	})
	t.Run("buckets have a scale though there was none", func(t *testing.T) {
		inModes(t, d2c.DefaultConfig(),
			exchange{in: e(10, 20, 0, 0, 2, none, none), want: d2c.AddedFirst, out: e(10, 20, 0, 0, 2, none, none)},
			exchange{in: e(20, 30, 7, 0, 0, buckets{2, []uint64{1}}, none), want: d2c.AddedAligned,
				out: summed(e(10, 30, 7, 0, 2, buckets{2, []uint64{1}}, none), 10)},
		)
	})
}

// TestRowArrival: a point without a time gets that of its arrival, and no start, where it is to.
func TestRowArrival(t *testing.T) {
	for _, shape := range shapes {
		t.Run(shape.name, func(t *testing.T) {
			clock := time.Unix(100, 0)
			cfg := d2c.DefaultConfig()
			cfg.Now = func() time.Time { return clock }
			p := shape.point
			exchangeOne(t, newConverter(t, cfg), "dropped", exchange{in: p(0, 0, 1), want: d2c.DroppedTime})

			cfg.MissingTime = d2c.MissingTimeArrival
			conv := newConverter(t, cfg)
			exchangeOne(t, conv, "marker, no stream", exchange{in: p(0, 0, marker), want: d2c.NoRecordedValue, out: p(0, 0, marker)})
			exchangeOne(t, conv, "first", exchange{in: p(0, 0, 1), want: d2c.AddedFirst, out: p(100, 100, 1)})
			exchangeOne(t, conv, "the same again is another", exchange{in: p(0, 0, 1), want: d2c.AddedNoStart, out: p(100, 100.001, 2)})
			clock = clock.Add(10 * time.Second)
			exchangeOne(t, conv, "a start without a time", exchange{in: p(7, 0, 2), want: d2c.AddedNoStart, out: p(100, 110, 4)})
			clock = clock.Add(-5 * time.Second)
			exchangeOne(t, conv, "the clock is set back", exchange{in: p(0, 0, 1), want: d2c.AddedNoStart, out: p(100, 110.001, 5)})
			clock = clock.Add(15 * time.Second)
			exchangeOne(t, conv, "marker", exchange{in: p(0, 0, marker), want: d2c.NoRecordedValue, out: p(100, 120, marker)})
			exchangeOne(t, conv, "with a time", exchange{in: p(110, 130, 1), want: d2c.AddedOverlap, out: p(100, 130, 6)})
			exchangeOne(t, conv, "after one of the time to come", exchange{in: p(0, 0, 1), want: d2c.AddedNoStart, out: p(100, 130.001, 7)})
			sendBatch(t, conv, "several at once", batchStep{
				in: []point{p(0, 0, 1), p(0, 0, 2), p(0, 0, 4)}, out: []point{p(100, 130.002, 14)}, want: map[d2c.Outcome]uint64{d2c.AddedNoStart: 3},
			})
		})
	}
	// A time is not added to the batch where it is refused or dropped, and is that of its first arrival where it waits.
	t.Run("durable", func(t *testing.T) {
		cfg := clockAt(d2c.DefaultConfig(), 100)
		cfg.MissingTime = d2c.MissingTimeArrival
		storage := newMemory()
		conv, _ := openTest(t, cfg, storage)
		defer closeTest(t, conv)
		storage.fail = func() (part, error) { return nothing, errStorage }
		md := ofResource(batch(series("s").int(0, 0, 1)))
		before := marshal(md)
		if _, err := conv.Convert(context.Background(), md); err == nil || string(marshal(md)) != string(before) {
			t.Errorf("%v, %v", err, lines(md))
		}
		storage.fail = nil
		if r, err := conv.Convert(context.Background(), md); err != nil || r.Count(d2c.AddedFirst) != 1 || lastPoint(md).Timestamp() != sec(100) {
			t.Errorf("%v %s %v", err, describeResult(r), lines(md))
		}
	})
}
