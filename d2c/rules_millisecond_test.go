// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"math"
	"testing"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
)

// micros is a point whose times are so many microseconds after 20 s.
func micros[N int | int64](p func(start, end float64, n N) point, start, end int, n N) point {
	at := func(us int) pcommon.Timestamp { return sec(20) + pcommon.Timestamp(1000*int64(us)) }
	return func(md pmetric.Metrics) {
		p(0, 0, n)(md)
		last := lastPoint(md)
		last.SetStartTimestamp(at(start))
		last.SetTimestamp(at(end))
	}
}

// TestRowOneSample: of what a stream gives out in one batch in one millisecond there is the last, at its own time where that is
// in this millisecond.
func TestRowOneSample(t *testing.T) {
	type counts = map[d2c.Outcome]uint64
	for _, shape := range shapes {
		p := shape.point
		us := func(start, end, n int) point { return micros(p, start, end, n) }
		for name, history := range map[string][]batchStep{
			"late points": {
				{in: []point{p(10, 20, 1)}, out: []point{p(10, 20, 1)}, want: counts{d2c.AddedFirst: 1}},
				{in: []point{p(50, 60, 2)}, out: []point{p(10, 60, 3)}, want: counts{d2c.AddedGap: 1}},
				{
					in:   []point{p(30, 40, 4), p(40, 45, 8), p(20, 30, 16)},
					out:  []point{p(10, 60.001, 31)}, // in the place of (40, 45]
					want: counts{d2c.AddedLate: 3},
				},
				{in: []point{p(45, 50, 32)}, out: []point{p(10, 60.002, 63)}, want: counts{d2c.AddedLate: 1}},
				{in: []point{p(45, 50, 32), p(45, 50, 32)}, out: []point{p(10, 60.002, 63)}, want: counts{d2c.Repeat: 2}},
			},
			"late points before points that are not": {
				{in: []point{p(10, 20, 1), p(50, 60, 2)}, out: []point{p(10, 20, 1), p(10, 60, 3)}, want: counts{d2c.AddedFirst: 1, d2c.AddedGap: 1}},
				{
					in:   []point{p(60, 70, 4), p(30, 40, 8), p(20, 30, 16), p(70, 80, 32)},
					out:  []point{p(10, 70, 31), p(10, 60.001, 27), p(10, 80, 63)},
					want: counts{d2c.AddedLate: 2, d2c.AddedAligned: 2},
				},
				{ // before the first, and late after that
					in:   []point{p(5, 10, 64), p(2, 5, 128), p(80, 90, 256)},
					out:  []point{p(2, 80.001, 255), p(2, 90, 511)},
					want: counts{d2c.AddedBeforeFirst: 1, d2c.AddedLate: 1, d2c.AddedAligned: 1},
				},
			},
			"several a millisecond": {
				{in: []point{us(0, 300, 1), us(300, 900, 2)}, out: []point{us(0, 900, 3)}, want: counts{d2c.AddedFirst: 1, d2c.AddedAligned: 1}},
				{ // one in the next millisecond, as this one has had its sample, and what is of that takes its place
					in:   []point{us(900, 950, 4), us(950, 999, 8), us(999, 1001, 16), us(1001, 1100, 32), us(1100, 2000, 64)},
					out:  []point{us(0, 1900, 63), us(0, 2000, 127)},
					want: counts{d2c.AddedAligned: 5},
				},
				{ // the later takes its own time where it can
					in:   []point{us(2000, 4100, 128), us(4100, 4900, 256), us(4900, 4950, 512)},
					out:  []point{us(0, 4950, 1023)},
					want: counts{d2c.AddedAligned: 3},
				},
			},
			"a marker takes the place of the value, and a value that of the marker": {
				{
					in:   []point{p(10, 20, 1), us(0, 300, marker)},
					out:  []point{micros(p, -10e6, 300, marker)},
					want: counts{d2c.AddedFirst: 1, d2c.NoRecordedValue: 1},
				},
				{
					in:   []point{us(300, 5000, marker), us(0, 5100, 2)},
					out:  []point{micros(p, -10e6, 5100, 3)},
					want: counts{d2c.AddedAligned: 1, d2c.NoRecordedValue: 1},
				},
				{ // the marker, and then the value once more, a repeat of which follows
					in:   []point{us(300, 9000, marker), us(0, 5100, 2)},
					out:  []point{micros(p, -10e6, 9000, marker), micros(p, -10e6, 5100, 3)},
					want: counts{d2c.Repeat: 1, d2c.NoRecordedValue: 1},
				},
				{
					in:   []point{us(0, 5100, 2)},
					out:  []point{micros(p, -10e6, 10000, 3)},
					want: counts{d2c.Repeat: 1},
				},
			},
		} {
			t.Run(shape.name+"/"+name, func(t *testing.T) {
				batchesInModes(t, d2c.DefaultConfig(), history...)
			})
		}
	}
}

// TestRowOneSampleRestarts: what was given out under the start of before stays, also where the restart is in the same
// millisecond.
func TestRowOneSampleRestarts(t *testing.T) {
	const s = series("s")
	sum := s.int
	bounds := []float64{1, 2}
	histogram := func(start, end float64, n int) point {
		b := bounds[:2-n%2] // odd ones have other bounds
		return s.histogram(start, end, hist(b, append(make([]uint64, len(b)), uint64(n))...))
	}
	type counts = map[d2c.Outcome]uint64
	t.Run("overflow", func(t *testing.T) {
		batchesInModes(t, d2c.DefaultConfig(), batchStep{
			in:   []point{micros(sum, 0, 300, math.MaxInt64-1), micros(sum, 300, 400, 1), micros(sum, 400, 500, 2), micros(sum, 500, 600, 3)},
			out:  []point{micros(sum, 0, 400, math.MaxInt64), micros(sum, 400, 1400, 5)},
			want: counts{d2c.AddedFirst: 1, d2c.AddedAligned: 2, d2c.RestartedOverflow: 1},
		})
	})
	t.Run("layout", func(t *testing.T) {
		batchesInModes(t, d2c.DefaultConfig(), batchStep{
			in: []point{micros(histogram, 0, 300, 2), micros(histogram, 300, 400, 4), micros(histogram, 400, 500, 5), micros(histogram, 500, 600, 8)},
			out: []point{
				micros(histogram, 0, 400, 6), micros(histogram, 400, 1400, 5), micros(histogram, 1400, 2400, 8),
			},
			want: counts{d2c.AddedFirst: 1, d2c.AddedAligned: 1, d2c.RestartedLayout: 2},
		})
	})
	t.Run("gap", func(t *testing.T) {
		cfg := d2c.DefaultConfig()
		gapRestart(&cfg)
		for _, shape := range shapes {
			t.Run(shape.name, func(t *testing.T) {
				p := shape.point
				batchesInModes(t, cfg, batchStep{
					in:   []point{micros(p, 0, 300, 2), micros(p, 300, 400, 4), micros(p, 450, 500, 1), micros(p, 500, 600, 3)},
					out:  []point{micros(p, 0, 400, 6), micros(p, 450, 1400, 4)},
					want: counts{d2c.AddedFirst: 1, d2c.AddedAligned: 2, d2c.RestartedGap: 1},
				})
			})
		}
	})
}
