// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"math"
	"testing"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
)

func TestRowOverlapInterpolate(t *testing.T) {
	cfg := d2c.DefaultConfig()
	overlapInterpolate(&cfg)
	const s = series("s")
	t.Run("int", func(t *testing.T) {
		play(t, cfg,
			exchange{in: s.int(10, 20, 5), want: d2c.AddedFirst, out: s.int(10, 20, 5)},
			exchange{in: s.int(15, 25, 7), want: d2c.AddedOverlap, out: s.int(10, 25, 8)}, // 7 * 5/10
		)
	})
	t.Run("negative int rounds towards zero", func(t *testing.T) {
		play(t, cfg,
			exchange{in: s.updown(10, 20, 5), want: d2c.AddedFirst, out: s.updown(10, 20, 5)},
			exchange{in: s.updown(15, 25, -7), want: d2c.AddedOverlap, out: s.updown(10, 25, 2)},
		)
	})
	t.Run("huge int", func(t *testing.T) {
		play(t, cfg,
			exchange{in: s.int(10, 20, 0), want: d2c.AddedFirst, out: s.int(10, 20, 0)},
			// (2^63-1) * 1/3: no intermediate may wrap or round
			exchange{in: s.int(10, 25, math.MaxInt64), want: d2c.AddedOverlap, out: s.int(10, 25, 3074457345618258602)},
		)
	})
	t.Run("double", func(t *testing.T) {
		play(t, cfg,
			exchange{in: s.double(10, 20, 5), want: d2c.AddedFirst, out: s.double(10, 20, 5)},
			exchange{in: s.double(15, 25, 7), want: d2c.AddedOverlap, out: s.double(10, 25, 8.5)},
		)
	})
	t.Run("covered gaps count as uncovered time", func(t *testing.T) {
		play(t, cfg,
			exchange{in: s.int(10, 20, 5), want: d2c.AddedFirst, out: s.int(10, 20, 5)},
			exchange{in: s.int(30, 40, 7), want: d2c.AddedGap, out: s.int(10, 40, 12), opened: 10},
			// (25, 45] has 5 s of the gap and 5 s after 40 of its 20 s
			exchange{in: s.int(25, 45, 8), want: d2c.AddedOverlap, out: s.int(10, 45, 16), filled: 5},
			exchange{in: s.int(20, 25, 1), want: d2c.AddedLate, out: s.int(10, 45.001, 17), filled: 5},
		)
	})
	t.Run("overflow is that of the share", func(t *testing.T) {
		play(t, cfg,
			exchange{in: s.int(10, 20, math.MaxInt64-4), want: d2c.AddedFirst, out: s.int(10, 20, math.MaxInt64-4)},
			exchange{in: s.int(15, 25, 8), want: d2c.AddedOverlap, out: s.int(10, 25, math.MaxInt64)},
			exchange{in: s.int(20, 30, 8), want: d2c.RestartedOverflow, out: s.int(25, 30, 8)},
		)
	})
	for _, shape := range shapes[2:] {
		t.Run(shape.name+" is added whole", func(t *testing.T) {
			play(t, cfg, exchanges(shape, []step{
				in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
				in(30, 40, 7).gives(d2c.AddedGap, 10, 40, 12).opens(10),
				in(25, 45, 8).gives(d2c.AddedOverlap, 10, 45, 20).fills(5),
			})...)
		})
	}
}

func TestRowLayoutChange(t *testing.T) {
	const s = series("s")
	a := func(start, end float64, counts ...uint64) point {
		return s.histogram(start, end, hist([]float64{1, 2}, counts...))
	}
	b := func(start, end float64, counts ...uint64) point {
		return s.histogram(start, end, hist([]float64{1, 3}, counts...))
	}
	t.Run("bounds", func(t *testing.T) {
		play(t, d2c.DefaultConfig(),
			exchange{in: a(10, 20, 1, 2, 3), want: d2c.AddedFirst, out: a(10, 20, 1, 2, 3)},
			exchange{in: b(20, 30, 4, 5, 6), want: d2c.RestartedLayout, out: b(20, 30, 4, 5, 6)},
			exchange{in: b(30, 40, 1, 1, 1), want: d2c.AddedAligned, out: b(20, 40, 5, 6, 7)},
			exchange{in: a(40, 50, 1, 2, 3), want: d2c.RestartedLayout, out: a(40, 50, 1, 2, 3)},
		)
	})
	t.Run("number of bounds", func(t *testing.T) {
		c := s.histogram(20, 30, hist([]float64{1}, 4, 5))
		play(t, d2c.DefaultConfig(),
			exchange{in: a(10, 20, 1, 2, 3), want: d2c.AddedFirst, out: a(10, 20, 1, 2, 3)},
			exchange{in: c, want: d2c.RestartedLayout, out: c},
		)
	})
	t.Run("one bucket is not no buckets", func(t *testing.T) {
		none := func(start, end float64, n uint64) point {
			return s.histogram(start, end, all(hist(nil), func(dp pmetric.HistogramDataPoint) { dp.SetCount(n) }))
		}
		one := func(start, end float64, n uint64) point { return s.histogram(start, end, hist(nil, n)) }
		play(t, d2c.DefaultConfig(),
			exchange{in: none(10, 20, 3), want: d2c.AddedFirst, out: none(10, 20, 3)},
			exchange{in: none(20, 30, 4), want: d2c.AddedAligned, out: none(10, 30, 7)},
			exchange{in: one(30, 40, 4), want: d2c.RestartedLayout, out: one(30, 40, 4)},
			exchange{in: one(40, 50, 1), want: d2c.AddedAligned, out: one(30, 50, 5)},
		)
	})
	t.Run("in a gap", func(t *testing.T) {
		play(t, d2c.DefaultConfig(),
			exchange{in: a(10, 20, 1, 2, 3), want: d2c.AddedFirst, out: a(10, 20, 1, 2, 3)},
			exchange{in: b(30, 40, 4, 5, 6), want: d2c.RestartedLayout, out: b(30, 40, 4, 5, 6)},
			exchange{in: b(20, 30, 4, 5, 6), want: d2c.DroppedTooLate},
		)
	})
	t.Run("without start or overlapping begins at the latest emitted time", func(t *testing.T) {
		play(t, d2c.DefaultConfig(),
			exchange{in: a(10, 20, 1, 2, 3), want: d2c.AddedFirst, out: a(10, 20, 1, 2, 3)},
			exchange{in: b(0, 30, 4, 5, 6), want: d2c.RestartedLayout, out: b(20, 30, 4, 5, 6)},
			exchange{in: a(25, 35, 1, 2, 3), want: d2c.RestartedLayout, out: a(30, 35, 1, 2, 3)},
		)
	})
	t.Run("of late and before-first points is too late", func(t *testing.T) {
		play(t, d2c.DefaultConfig(),
			exchange{in: a(10, 20, 1, 2, 3), want: d2c.AddedFirst, out: a(10, 20, 1, 2, 3)},
			exchange{in: a(30, 40, 1, 1, 1), want: d2c.AddedGap, out: a(10, 40, 2, 3, 4), opened: 10},
			exchange{in: b(20, 30, 1, 1, 1), want: d2c.DroppedTooLate},
			exchange{in: b(5, 10, 1, 1, 1), want: d2c.DroppedTooLate},
			exchange{in: a(20, 30, 1, 1, 1), want: d2c.AddedLate, out: a(10, 40.001, 3, 4, 5), filled: 10},
			exchange{in: a(5, 10, 1, 1, 1), want: d2c.AddedBeforeFirst, out: a(5, 40.002, 4, 5, 6)},
		)
	})
	t.Run("of covered time shows the stream's layout", func(t *testing.T) {
		play(t, d2c.DefaultConfig(),
			exchange{in: a(10, 20, 1, 2, 3), want: d2c.AddedFirst, out: a(10, 20, 1, 2, 3)},
			exchange{in: b(10, 20, 4, 5, 6), want: d2c.Covered, out: a(10, 20, 1, 2, 3)},
			exchange{in: s.histogram(12, 18, hist([]float64{1}, 4, 5)), want: d2c.Covered, out: a(10, 20, 1, 2, 3)},
		)
	})
	t.Run("under the policies that come first", func(t *testing.T) {
		cfg := d2c.DefaultConfig()
		gapRestart(&cfg)
		overlapDrop(&cfg)
		play(t, cfg,
			exchange{in: a(10, 20, 1, 2, 3), want: d2c.AddedFirst, out: a(10, 20, 1, 2, 3)},
			exchange{in: b(15, 25, 4, 5, 6), want: d2c.DroppedOverlap},
			exchange{in: b(5, 25, 4, 5, 6), want: d2c.DroppedOlderStart},
			exchange{in: b(30, 40, 4, 5, 6), want: d2c.RestartedGap, out: b(30, 40, 4, 5, 6)},
		)
	})
}

func TestRowOverflow(t *testing.T) {
	const s = series("s")
	t.Run("int64", func(t *testing.T) {
		play(t, d2c.DefaultConfig(),
			exchange{in: s.int(10, 20, math.MaxInt64-5), want: d2c.AddedFirst, out: s.int(10, 20, math.MaxInt64-5)},
			exchange{in: s.int(20, 30, 5), want: d2c.AddedAligned, out: s.int(10, 30, math.MaxInt64)},
			exchange{in: s.int(30, 40, 1), want: d2c.RestartedOverflow, out: s.int(30, 40, 1)},
			exchange{in: s.int(20, 30, 5), want: d2c.DroppedTooLate},
		)
	})
	t.Run("int64 below", func(t *testing.T) {
		play(t, d2c.DefaultConfig(),
			exchange{in: s.updown(10, 20, math.MinInt64), want: d2c.AddedFirst, out: s.updown(10, 20, math.MinInt64)},
			exchange{in: s.updown(20, 30, -1), want: d2c.RestartedOverflow, out: s.updown(20, 30, -1)},
		)
	})
	t.Run("float64", func(t *testing.T) {
		play(t, d2c.DefaultConfig(),
			exchange{in: s.double(10, 20, 1e308), want: d2c.AddedFirst, out: s.double(10, 20, 1e308)},
			exchange{in: s.double(30, 40, 1e308), want: d2c.RestartedOverflow, out: s.double(30, 40, 1e308)},
		)
	})
	t.Run("uint64 count", func(t *testing.T) {
		h := func(start, end float64, count uint64) point {
			return s.histogram(start, end, all(hist(nil), func(dp pmetric.HistogramDataPoint) { dp.SetCount(count) }))
		}
		play(t, d2c.DefaultConfig(),
			exchange{in: h(10, 20, math.MaxUint64), want: d2c.AddedFirst, out: h(10, 20, math.MaxUint64)},
			exchange{in: h(20, 30, 1), want: d2c.RestartedOverflow, out: h(20, 30, 1)},
		)
	})
	t.Run("uint64 bucket", func(t *testing.T) {
		h := func(start, end float64, counts ...uint64) point {
			return s.histogram(start, end, all(hist([]float64{1}, counts...),
				func(dp pmetric.HistogramDataPoint) { dp.SetCount(7) }))
		}
		play(t, d2c.DefaultConfig(),
			exchange{in: h(10, 20, 3, math.MaxUint64), want: d2c.AddedFirst, out: h(10, 20, 3, math.MaxUint64)},
			exchange{in: h(20, 30, 1, 1), want: d2c.RestartedOverflow, out: h(20, 30, 1, 1)},
		)
	})
	t.Run("histogram sum", func(t *testing.T) {
		h := func(start, end, sum float64) point {
			return s.histogram(start, end, all(hist(nil, 1), func(dp pmetric.HistogramDataPoint) { dp.SetSum(sum) }))
		}
		play(t, d2c.DefaultConfig(),
			exchange{in: h(10, 20, -1e308), want: d2c.AddedFirst, out: h(10, 20, -1e308)},
			exchange{in: h(20, 30, -1e308), want: d2c.RestartedOverflow, out: h(20, 30, -1e308)},
		)
	})
	t.Run("exponential count, bucket, zero count", func(t *testing.T) {
		const most = math.MaxUint64
		count := func(n uint64) func(pmetric.ExponentialHistogramDataPoint) {
			return func(dp pmetric.ExponentialHistogramDataPoint) { dp.SetCount(n) }
		}
		for name, set := range map[string]func(n uint64) func(pmetric.ExponentialHistogramDataPoint){
			"count": func(n uint64) func(pmetric.ExponentialHistogramDataPoint) {
				return all(expo(0, 0, 0, buckets{}, buckets{}), count(n))
			},
			"zero count": func(n uint64) func(pmetric.ExponentialHistogramDataPoint) {
				return all(expo(0, 0, n, buckets{}, buckets{}), count(1))
			},
			"positive bucket": func(n uint64) func(pmetric.ExponentialHistogramDataPoint) {
				return all(expo(0, 0, 0, buckets{3, []uint64{0, n}}, buckets{}), count(1))
			},
			"negative bucket": func(n uint64) func(pmetric.ExponentialHistogramDataPoint) {
				return all(expo(0, 0, 0, buckets{}, buckets{-3, []uint64{0, n}}), count(1))
			},
		} {
			t.Run(name, func(t *testing.T) {
				play(t, d2c.DefaultConfig(),
					exchange{in: s.exponential(10, 20, set(most)), want: d2c.AddedFirst, out: s.exponential(10, 20, set(most))},
					exchange{in: s.exponential(20, 30, set(1)), want: d2c.RestartedOverflow, out: s.exponential(20, 30, set(1))},
				)
			})
		}
	})
	t.Run("of late and before-first points is too late", func(t *testing.T) {
		play(t, d2c.DefaultConfig(),
			exchange{in: s.int(10, 20, 5), want: d2c.AddedFirst, out: s.int(10, 20, 5)},
			exchange{in: s.int(30, 40, 7), want: d2c.AddedGap, out: s.int(10, 40, 12), opened: 10},
			exchange{in: s.int(20, 30, math.MaxInt64), want: d2c.DroppedTooLate},
			exchange{in: s.int(5, 10, math.MaxInt64), want: d2c.DroppedTooLate},
			exchange{in: s.int(20, 30, 1), want: d2c.AddedLate, out: s.int(10, 40.001, 13), filled: 10},
		)
	})
}

func TestRowIntMeetsDouble(t *testing.T) {
	const s = series("s")
	t.Run("int then double", func(t *testing.T) {
		play(t, d2c.DefaultConfig(),
			exchange{in: s.int(10, 20, 5), want: d2c.AddedFirst, out: s.int(10, 20, 5)},
			exchange{in: s.double(20, 30, 0.5), want: d2c.AddedAligned, out: s.double(10, 30, 5.5)},
			exchange{in: s.int(30, 40, 2), want: d2c.AddedAligned, out: s.double(10, 40, 7.5)},
			exchange{in: s.int(30, 40, 2), want: d2c.Repeat, out: s.double(10, 40, 7.5)},
		)
	})
	t.Run("double then int", func(t *testing.T) {
		play(t, d2c.DefaultConfig(),
			exchange{in: s.double(10, 20, 0.5), want: d2c.AddedFirst, out: s.double(10, 20, 0.5)},
			exchange{in: s.int(20, 30, 5), want: d2c.AddedAligned, out: s.double(10, 30, 5.5)},
		)
	})
	t.Run("a dropped double does not count", func(t *testing.T) {
		play(t, d2c.DefaultConfig(),
			exchange{in: s.int(10, 20, 5), want: d2c.AddedFirst, out: s.int(10, 20, 5)},
			exchange{in: s.double(10, 20, 5), want: d2c.Covered, out: s.int(10, 20, 5)},
			exchange{in: s.double(5, 15, 5), want: d2c.DroppedTooLate},
			exchange{in: s.int(20, 30, 5), want: d2c.AddedAligned, out: s.int(10, 30, 10)},
		)
	})
	t.Run("until it restarts", func(t *testing.T) {
		cfg := d2c.DefaultConfig()
		gapRestart(&cfg)
		play(t, cfg,
			exchange{in: s.double(10, 20, 0.5), want: d2c.AddedFirst, out: s.double(10, 20, 0.5)},
			exchange{in: s.int(30, 40, 5), want: d2c.RestartedGap, out: s.int(30, 40, 5)},
		)
	})
	t.Run("no int64 overflow in a double", func(t *testing.T) {
		play(t, d2c.DefaultConfig(),
			exchange{in: s.int(10, 20, math.MaxInt64), want: d2c.AddedFirst, out: s.int(10, 20, math.MaxInt64)},
			exchange{in: s.double(20, 30, 1), want: d2c.AddedAligned, out: s.double(10, 30, 1<<63)},
			exchange{in: s.int(30, 40, math.MaxInt64), want: d2c.AddedAligned, out: s.double(10, 40, 1<<64)},
		)
	})
}

// TestRowPresence: histogram sum, min and max are kept while every delta that counts anything has them.
func TestRowPresence(t *testing.T) {
	const s = series("s")
	const absent = math.MaxFloat64
	// h is a histogram of n observations, with those of sum, min and max that are not absent.
	explicitly := func(start, end float64, n uint64, sum, lo, hi float64) point {
		return s.histogram(start, end, all(hist([]float64{5}, n, 0), func(dp pmetric.HistogramDataPoint) {
			if sum != absent {
				dp.SetSum(sum)
			}
			if lo != absent {
				dp.SetMin(lo)
			}
			if hi != absent {
				dp.SetMax(hi)
			}
		}))
	}
	exponentially := func(start, end float64, n uint64, sum, lo, hi float64) point {
		return s.exponential(start, end, all(expo(0, 0, n, buckets{}, buckets{}),
			func(dp pmetric.ExponentialHistogramDataPoint) {
				if sum != absent {
					dp.SetSum(sum)
				}
				if lo != absent {
					dp.SetMin(lo)
				}
				if hi != absent {
					dp.SetMax(hi)
				}
			}))
	}
	for name, h := range map[string]func(start, end float64, n uint64, sum, lo, hi float64) point{
		"histogram": explicitly, "exponential histogram": exponentially,
	} {
		t.Run(name, func(t *testing.T) {
			t.Run("kept", func(t *testing.T) {
				play(t, d2c.DefaultConfig(),
					exchange{in: h(10, 20, 2, 5, 1, 4), want: d2c.AddedFirst, out: h(10, 20, 2, 5, 1, 4)},
					exchange{in: h(20, 30, 2, 5, 2, 3), want: d2c.AddedAligned, out: h(10, 30, 4, 10, 1, 4)},
					exchange{in: h(30, 40, 2, -5, -8, 9), want: d2c.AddedAligned, out: h(10, 40, 6, 5, -8, 9)},
				)
			})
			t.Run("lost for good when one delta lacks it", func(t *testing.T) {
				play(t, d2c.DefaultConfig(),
					exchange{in: h(10, 20, 2, 5, 1, 4), want: d2c.AddedFirst, out: h(10, 20, 2, 5, 1, 4)},
					exchange{in: h(20, 30, 2, 5, absent, 6), want: d2c.AddedAligned, out: h(10, 30, 4, 10, absent, 6)},
					exchange{in: h(30, 40, 2, absent, 1, 4), want: d2c.AddedAligned, out: h(10, 40, 6, absent, absent, 6)},
					exchange{in: h(40, 50, 2, 5, 1, absent), want: d2c.AddedAligned, out: h(10, 50, 8, absent, absent, absent)},
					exchange{in: h(50, 60, 2, 5, 1, 4), want: d2c.AddedAligned, out: h(10, 60, 10, absent, absent, absent)},
				)
			})
			t.Run("a delta that counts nothing says nothing", func(t *testing.T) {
				play(t, d2c.DefaultConfig(),
					exchange{in: h(10, 20, 2, 5, 1, 4), want: d2c.AddedFirst, out: h(10, 20, 2, 5, 1, 4)},
					exchange{in: h(20, 30, 0, absent, absent, absent), want: d2c.AddedAligned, out: h(10, 30, 2, 5, 1, 4)},
					exchange{in: h(30, 40, 0, 0, 0, 0), want: d2c.AddedAligned, out: h(10, 40, 2, 5, 1, 4)},
				)
			})
			t.Run("a delta that counts nothing does not bring it back", func(t *testing.T) {
				play(t, d2c.DefaultConfig(),
					exchange{in: h(10, 20, 2, absent, absent, absent), want: d2c.AddedFirst, out: h(10, 20, 2, absent, absent, absent)},
					exchange{in: h(20, 30, 0, 0, 0, 0), want: d2c.AddedAligned, out: h(10, 30, 2, absent, absent, absent)},
				)
			})
			t.Run("the first that counts decides", func(t *testing.T) {
				play(t, d2c.DefaultConfig(),
					exchange{in: h(10, 20, 0, absent, absent, absent), want: d2c.AddedFirst, out: h(10, 20, 0, absent, absent, absent)},
					exchange{in: h(20, 30, 2, 5, 1, 4), want: d2c.AddedAligned, out: h(10, 30, 2, 5, 1, 4)},
				)
				play(t, d2c.DefaultConfig(),
					exchange{in: h(10, 20, 0, 0, 0, 0), want: d2c.AddedFirst, out: h(10, 20, 0, 0, 0, 0)},
					exchange{in: h(20, 30, 0, absent, absent, absent), want: d2c.AddedAligned, out: h(10, 30, 0, 0, 0, 0)},
					exchange{in: h(30, 40, 2, 5, 1, 4), want: d2c.AddedAligned, out: h(10, 40, 2, 5, 1, 4)},
				)
			})
			t.Run("starts over with a restart", func(t *testing.T) {
				cfg := d2c.DefaultConfig()
				gapRestart(&cfg)
				play(t, cfg,
					exchange{in: h(10, 20, 2, absent, absent, absent), want: d2c.AddedFirst, out: h(10, 20, 2, absent, absent, absent)},
					exchange{in: h(30, 40, 2, 5, 1, 4), want: d2c.RestartedGap, out: h(30, 40, 2, 5, 1, 4)},
				)
			})
		})
	}
}

// TestRowExponential: merging scales and zero thresholds, in numbers small enough to check by hand.
func TestRowExponential(t *testing.T) {
	const s = series("s")
	e := func(start, end float64, scale int32, threshold float64, zeros uint64, pos, neg buckets) point {
		return s.exponential(start, end, expo(scale, threshold, zeros, pos, neg))
	}
	none := buckets{}
	run := func(name string, history ...exchange) {
		t.Run(name, func(t *testing.T) { play(t, d2c.DefaultConfig(), history...) })
	}
	first := e(10, 20, 1, 0, 1, buckets{-3, []uint64{1, 2, 3, 4}}, buckets{0, []uint64{5}})
	run("the same scale",
		exchange{in: first, want: d2c.AddedFirst, out: first},
		exchange{in: e(20, 30, 1, 0, 2, buckets{0, []uint64{1, 1}}, buckets{-1, []uint64{1}}), want: d2c.AddedAligned,
			out: e(10, 30, 1, 0, 3, buckets{-3, []uint64{1, 2, 3, 5, 1}}, buckets{-1, []uint64{1, 5}})},
	)
	run("a coarser delta",
		exchange{in: first, want: d2c.AddedFirst, out: first},
		// -3 -> -2; -2, -1 -> -1; 0 -> 0
		exchange{in: e(20, 30, 0, 0, 0, buckets{0, []uint64{1}}, none), want: d2c.AddedAligned,
			out: e(10, 30, 0, 0, 1, buckets{-2, []uint64{1, 5, 5}}, buckets{0, []uint64{5}})},
	)
	run("a finer delta",
		exchange{in: e(10, 20, -1, 0, 0, buckets{-1, []uint64{1, 1}}, none), want: d2c.AddedFirst,
			out: e(10, 20, -1, 0, 0, buckets{-1, []uint64{1, 1}}, none)},
		exchange{in: e(20, 30, 1, 0, 0, buckets{-4, []uint64{1, 0, 0, 1, 2, 0, 0, 4, 8}}, none), want: d2c.AddedAligned,
			out: e(10, 30, -1, 0, 0, buckets{-1, []uint64{3, 7, 8}}, none)},
	)
	run("a threshold swallows the buckets below it",
		exchange{in: e(10, 20, 0, 0, 1, buckets{-3, []uint64{1, 2, 4}}, buckets{-2, []uint64{8, 16}}), want: d2c.AddedFirst,
			out: e(10, 20, 0, 0, 1, buckets{-3, []uint64{1, 2, 4}}, buckets{-2, []uint64{8, 16}})},
		// (1/8, 1/4] and (1/4, 1/2] are within 1/2
		exchange{in: e(20, 30, 0, 0.5, 1, none, none), want: d2c.AddedAligned,
			out: e(10, 30, 0, 0.5, 13, buckets{-1, []uint64{4}}, buckets{-1, []uint64{16}})},
	)
	run("a threshold inside a bucket rises to its end",
		exchange{in: e(10, 20, 0, 0, 1, buckets{-2, []uint64{2, 4}}, none), want: d2c.AddedFirst,
			out: e(10, 20, 0, 0, 1, buckets{-2, []uint64{2, 4}}, none)},
		exchange{in: e(20, 30, 0, 0.3, 1, none, none), want: d2c.AddedAligned,
			out: e(10, 30, 0, 0.5, 4, buckets{-1, []uint64{4}}, none)},
	)
	run("a threshold inside an empty bucket stays",
		exchange{in: e(10, 20, 0, 0, 1, buckets{-3, []uint64{1, 0, 4}}, none), want: d2c.AddedFirst,
			out: e(10, 20, 0, 0, 1, buckets{-3, []uint64{1, 0, 4}}, none)},
		exchange{in: e(20, 30, 0, 0.3, 1, none, none), want: d2c.AddedAligned,
			out: e(10, 30, 0, 0.3, 3, buckets{-1, []uint64{4}}, none)},
	)
	run("the first delta is normalised",
		exchange{in: e(10, 20, 0, 0.3, 1, buckets{-3, []uint64{1, 2, 4}}, none), want: d2c.AddedFirst,
			out: e(10, 20, 0, 0.5, 4, buckets{-1, []uint64{4}}, none)},
	)
	run("160 buckets fit",
		exchange{in: e(10, 20, 5, 0, 0, buckets{1, []uint64{1}}, none), want: d2c.AddedFirst,
			out: e(10, 20, 5, 0, 0, buckets{1, []uint64{1}}, none)},
		exchange{in: e(20, 30, 5, 0, 0, buckets{160, []uint64{1}}, none), want: d2c.AddedAligned,
			out: e(10, 30, 5, 0, 0, buckets{1, append(make([]uint64, 159), 1)}.with(0, 1), none)},
	)
	run("161 buckets do not",
		exchange{in: e(10, 20, 5, 0, 0, buckets{0, []uint64{1}}, none), want: d2c.AddedFirst,
			out: e(10, 20, 5, 0, 0, buckets{0, []uint64{1}}, none)},
		exchange{in: e(20, 30, 5, 0, 0, buckets{160, []uint64{1}}, none), want: d2c.AddedAligned,
			out: e(10, 30, 4, 0, 0, buckets{0, append(make([]uint64, 80), 1)}.with(0, 1), none)},
	)
	run("the negative range counts for itself",
		exchange{in: e(10, 20, 5, 0, 0, buckets{-100, []uint64{1}}, buckets{100, []uint64{1}}), want: d2c.AddedFirst,
			out: e(10, 20, 5, 0, 0, buckets{-100, []uint64{1}}, buckets{100, []uint64{1}})},
		exchange{in: e(20, 30, 5, 0, 0, none, buckets{-61, []uint64{1}}), want: d2c.AddedAligned,
			out: e(10, 30, 4, 0, 0, buckets{-50, []uint64{1}}, buckets{-31, append(make([]uint64, 81), 1)}.with(0, 1))},
	)
	run("swallowed buckets make room",
		exchange{in: e(10, 20, 0, 0, 0, buckets{-200, []uint64{1}}, none), want: d2c.AddedFirst,
			out: e(10, 20, 0, 0, 0, buckets{-200, []uint64{1}}, none)},
		exchange{in: e(20, 30, 0, 0x1p-100, 1, buckets{0, []uint64{1}}, none), want: d2c.AddedAligned,
			out: e(10, 30, 0, 0x1p-100, 2, buckets{0, []uint64{1}}, none)},
	)
	// From the smallest subnormal to the largest finite value there are 2098 powers of two: scale -4 holds them in 132.
	run("the whole range of a float64",
		exchange{in: e(10, 20, 20, 0, 0, buckets{-1075 << 20, []uint64{1}}, none), want: d2c.AddedFirst,
			out: e(10, 20, 20, 0, 0, buckets{-1075 << 20, []uint64{1}}, none)},
		exchange{in: e(20, 30, 20, 0, 0, buckets{1024<<20 - 1, []uint64{1}}, none), want: d2c.AddedAligned,
			out: e(10, 30, -4, 0, 0, buckets{-68, append(make([]uint64, 131), 1)}.with(0, 1), none)},
	)
}

// with returns the buckets with one count changed.
func (b buckets) with(i int, n uint64) buckets {
	b.counts[i] = n
	return b
}
