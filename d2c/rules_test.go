// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
)

// shape makes points of one kind that carry the amount n and nothing that does not add up.
type shape struct {
	name  string
	point func(start, end float64, n int) point
}

// marker as an amount stands for a "no recorded value" point.
const marker = -1

var noRecordedValue = pmetric.DefaultDataPointFlags.WithNoRecordedValue(true)

var shapes = []shape{
	{"int sum", func(start, end float64, n int) point {
		return series("s").sum(true, start, end, func(dp pmetric.NumberDataPoint) {
			if n == marker {
				dp.SetFlags(noRecordedValue)
			} else {
				dp.SetIntValue(int64(n))
			}
		})
	}},
	{"double sum that is not monotonic", func(start, end float64, n int) point {
		return series("s").sum(false, start, end, func(dp pmetric.NumberDataPoint) {
			if n == marker {
				dp.SetFlags(noRecordedValue)
			} else {
				dp.SetDoubleValue(float64(n))
			}
		})
	}},
	{"histogram", func(start, end float64, n int) point {
		return series("s").histogram(start, end, func(dp pmetric.HistogramDataPoint) {
			if n == marker {
				dp.SetFlags(noRecordedValue)
			} else {
				hist([]float64{1, 2}, 0, uint64(n), 0)(dp)
				dp.SetSum(1.5 * float64(n))
			}
		})
	}},
	{"exponential histogram", func(start, end float64, n int) point {
		return series("s").exponential(start, end, func(dp pmetric.ExponentialHistogramDataPoint) {
			if n == marker {
				dp.SetFlags(noRecordedValue)
			} else {
				expo(3, 0, 0, buckets{2, []uint64{uint64(n)}}, buckets{-4, []uint64{uint64(n)}})(dp)
				dp.SetSum(1.5 * float64(n))
			}
		})
	}},
}

// step is one point of a row and what must come back, for every shape.
type step struct {
	start, end     float64
	n              int
	want           d2c.Outcome
	from, at       float64
	total          int
	opened, filled float64
}

func in(start, end float64, n int) step { return step{start: start, end: end, n: n} }

// gives expects the total at a time under a start.
func (s step) gives(o d2c.Outcome, from, at float64, total int) step {
	s.want, s.from, s.at, s.total = o, from, at, total
	return s
}

// drops expects nothing.
func (s step) drops(o d2c.Outcome) step {
	s.want = o
	return s
}

// opens expects so many seconds of gap to be reported as opened.
func (s step) opens(seconds float64) step {
	s.opened = seconds
	return s
}

// fills expects so many seconds of gap to be reported as filled.
func (s step) fills(seconds float64) step {
	s.filled = seconds
	return s
}

type row struct {
	name  string
	with  func(*d2c.Config) // changes to the default configuration, if any
	steps []step
}

func gapRestart(c *d2c.Config)         { c.Gap = d2c.GapRestart }
func overlapDrop(c *d2c.Config)        { c.Overlap = d2c.OverlapDrop }
func overlapInterpolate(c *d2c.Config) { c.Overlap = d2c.OverlapInterpolate }
func lateWindow(seconds float64) func(*d2c.Config) {
	return func(c *d2c.Config) { c.LateWindow = time.Duration(sec(seconds)) }
}

// rows are those of the classification table that hold for every kind.
var rows = []row{
	{"first", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
	}},
	{"first without start", nil, []step{
		in(0, 20, 5).gives(d2c.AddedFirst, 20, 20, 5),
		in(20, 30, 7).gives(d2c.AddedAligned, 20, 30, 12),
	}},
	{"first with start equal to time", nil, []step{
		in(20, 20, 5).gives(d2c.AddedFirst, 20, 20, 5),
		in(20, 30, 7).gives(d2c.AddedAligned, 20, 30, 12),
	}},
	{"aligned", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(20, 30, 7).gives(d2c.AddedAligned, 10, 30, 12),
		in(30, 31, 1).gives(d2c.AddedAligned, 10, 31, 13),
	}},
	{"no start", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(0, 30, 7).gives(d2c.AddedNoStart, 10, 30, 12),
		in(40, 40, 1).gives(d2c.AddedNoStart, 10, 40, 13),
		in(40, 50, 1).gives(d2c.AddedAligned, 10, 50, 14),
	}},
	{"no start opens and fills no gap", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(30, 40, 7).gives(d2c.AddedGap, 10, 40, 12).opens(10),
		in(0, 60, 1).gives(d2c.AddedNoStart, 10, 60, 13),
		in(45, 55, 9).gives(d2c.Covered, 10, 60, 13),
		in(20, 30, 1).gives(d2c.AddedLate, 10, 60.001, 14).fills(10),
	}},
	{"gap continue", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(30, 40, 7).gives(d2c.AddedGap, 10, 40, 12).opens(10),
		in(40, 50, 1).gives(d2c.AddedAligned, 10, 50, 13),
	}},
	{"gap restart", gapRestart, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(30, 40, 7).gives(d2c.RestartedGap, 30, 40, 7),
		in(40, 50, 1).gives(d2c.AddedAligned, 30, 50, 8),
		in(20, 30, 1).drops(d2c.DroppedTooLate),
	}},
	{"gap restart begins no earlier than the latest emitted time", gapRestart, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(8, 10, 1).gives(d2c.AddedBeforeFirst, 8, 20.001, 6),
		in(6, 8, 1).gives(d2c.AddedBeforeFirst, 6, 20.002, 7),
		in(4, 6, 1).gives(d2c.AddedBeforeFirst, 4, 20.003, 8),
		in(20.001, 20.002, 2).gives(d2c.RestartedGap, 20.003, 20.004, 2),
		in(20.002, 30, 2).gives(d2c.AddedAligned, 20.003, 30, 4),
	}},
	{"overlap add", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(15, 25, 7).gives(d2c.AddedOverlap, 10, 25, 12),
		in(10, 30, 1).gives(d2c.AddedOverlap, 10, 30, 13),
	}},
	{"overlap add closes the gaps it covers", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(30, 40, 7).gives(d2c.AddedGap, 10, 40, 12).opens(10),
		in(50, 60, 1).gives(d2c.AddedGap, 10, 60, 13).opens(10),
		in(26, 70, 1).gives(d2c.AddedOverlap, 10, 70, 14).fills(14),
		in(40, 50, 9).gives(d2c.Covered, 10, 70, 14),
		in(26, 30, 9).gives(d2c.Covered, 10, 70, 14),
		in(20, 26, 1).gives(d2c.AddedLate, 10, 70.001, 15).fills(6),
	}},
	{"overlap drop", overlapDrop, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(15, 25, 7).drops(d2c.DroppedOverlap),
		in(20, 25, 1).gives(d2c.AddedAligned, 10, 25, 6),
	}},
	{"older start", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(9.999, 25, 7).drops(d2c.DroppedOlderStart),
		in(20, 30, 1).gives(d2c.AddedAligned, 10, 30, 6),
	}},
	{"repeat exact", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(10, 20, 5).gives(d2c.Repeat, 10, 20, 5),
		in(20, 30, 7).gives(d2c.AddedAligned, 10, 30, 12),
		in(20, 30, 7).gives(d2c.Repeat, 10, 30, 12),
	}},
	{"covered with the same time and any start", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(15, 20, 9).gives(d2c.Covered, 10, 20, 5),
		in(5, 20, 9).gives(d2c.Covered, 10, 20, 5),
		in(0, 20, 9).gives(d2c.Covered, 10, 20, 5),
		in(20, 20, 9).gives(d2c.Covered, 10, 20, 5),
	}},
	{"covered but for its contents or its start a repeat", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(10, 20, 6).gives(d2c.Covered, 10, 20, 5),
		in(10.001, 20, 5).gives(d2c.Covered, 10, 20, 5),
		in(0, 20, 5).gives(d2c.Covered, 10, 20, 5),
		in(10, 20, 5).gives(d2c.Repeat, 10, 20, 5),
	}},
	{"repeat of an unknown start however that is said", nil, []step{
		in(0, 20, 5).gives(d2c.AddedFirst, 20, 20, 5),
		in(20, 20, 5).gives(d2c.Repeat, 20, 20, 5),
		in(0, 20, 5).gives(d2c.Repeat, 20, 20, 5),
		in(0, 20, 6).gives(d2c.Covered, 20, 20, 5),
	}},
	{"repeat is of the delta that was added last", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(20, 30, 7).gives(d2c.AddedAligned, 10, 30, 12),
		in(10, 20, 5).gives(d2c.Covered, 10, 30, 12),
		in(20, 30, 7).gives(d2c.Repeat, 10, 30, 12),
		in(12, 28, 9).gives(d2c.Covered, 10, 30, 12),
	}},
	{"repeat of a late delta, whatever its age", lateWindow(15), []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(30, 34, 7).gives(d2c.AddedGap, 10, 34, 12).opens(10),
		in(20, 30, 1).gives(d2c.AddedLate, 10, 34.001, 13).fills(10),
		in(20, 30, 1).gives(d2c.Repeat, 10, 34.001, 13),
		in(20, 30, 2).gives(d2c.Covered, 10, 34.001, 13),
		in(30, 34, 7).gives(d2c.Covered, 10, 34.001, 13),
		in(34, 100, marker).gives(d2c.NoRecordedValue, 10, 100, marker),
		in(20, 30, 1).gives(d2c.Repeat, 10, 100.001, 13),
	}},
	{"covered only within the late window", lateWindow(15), []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(20, 30, 7).gives(d2c.AddedAligned, 10, 30, 12),
		in(30, 40, 1).gives(d2c.AddedAligned, 10, 40, 13),
		in(25, 30, 9).gives(d2c.Covered, 10, 40, 13),
		in(24.999, 30, 9).drops(d2c.DroppedTooLate),
	}},
	{"late", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(30, 40, 7).gives(d2c.AddedGap, 10, 40, 12).opens(10),
		in(20, 30, 1).gives(d2c.AddedLate, 10, 40.001, 13).fills(10),
		in(20, 30, 1).gives(d2c.Repeat, 10, 40.001, 13),
		in(30, 40, 7).gives(d2c.Covered, 10, 40.001, 13),
		in(40, 50, 1).gives(d2c.AddedAligned, 10, 50, 14),
	}},
	{"late pushes on a point whose time has been used", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(30, 40, 7).gives(d2c.AddedGap, 10, 40, 12).opens(10),
		in(20, 30, 1).gives(d2c.AddedLate, 10, 40.001, 13).fills(10),
		in(40, 40.001, 1).gives(d2c.AddedAligned, 10, 40.002, 14),
		in(40.001, 40.003, 1).gives(d2c.AddedAligned, 10, 40.003, 15),
	}},
	{"late splits a gap", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(50, 60, 7).gives(d2c.AddedGap, 10, 60, 12).opens(30),
		in(30, 40, 1).gives(d2c.AddedLate, 10, 60.001, 13).fills(10),
		in(25, 35, 9).drops(d2c.DroppedTooLate),
		in(30, 40, 9).gives(d2c.Covered, 10, 60.001, 13),
		in(40, 50, 1).gives(d2c.AddedLate, 10, 60.002, 14).fills(10),
		in(20, 30, 1).gives(d2c.AddedLate, 10, 60.003, 15).fills(10),
		in(20, 50, 9).gives(d2c.Covered, 10, 60.003, 15),
	}},
	{"late only while the gap is remembered", lateWindow(15), []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(30, 34, 7).gives(d2c.AddedGap, 10, 34, 12).opens(10),
		in(20, 21, 1).gives(d2c.AddedLate, 10, 34.001, 13).fills(1),
		in(34, 44.999, 1).gives(d2c.AddedAligned, 10, 44.999, 14),
		in(29.999, 30, 1).gives(d2c.AddedLate, 10, 45, 15).fills(0.001),
		in(44.999, 45, 1).gives(d2c.AddedAligned, 10, 45.001, 16),
		in(29, 30, 1).drops(d2c.DroppedTooLate),
	}},
	{"a gap is remembered as far as the late window reaches", lateWindow(15), []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(60, 61, 7).gives(d2c.AddedGap, 10, 61, 12).opens(40), // and from 46 on it is remembered
		in(45.999, 50, 1).drops(d2c.DroppedTooLate),
		in(46, 50, 1).gives(d2c.AddedLate, 10, 61.001, 13).fills(4),
		in(61, 70, 1).gives(d2c.AddedAligned, 10, 70, 14), // from 55 on
		in(54.999, 56, 1).drops(d2c.DroppedTooLate),
		in(40, 71, 1).gives(d2c.AddedOverlap, 10, 71, 15).fills(5),
	}},
	{"what late leaves of a gap is forgotten by its own age", lateWindow(5), []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(60, 61, 7).gives(d2c.AddedGap, 10, 61, 12).opens(40),
		in(57, 58, 1).gives(d2c.AddedLate, 10, 61.001, 13).fills(1),
		in(61, 62, 1).gives(d2c.AddedAligned, 10, 62, 14),
		in(56, 57, 1).drops(d2c.DroppedTooLate),
		in(50, 63, 1).gives(d2c.AddedOverlap, 10, 63, 15).fills(2),
	}},
	{"a gap before the late window is not remembered", lateWindow(5), []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(30, 36, 7).gives(d2c.AddedGap, 10, 36, 12).opens(10),
		in(29, 30, 1).drops(d2c.DroppedTooLate),
		in(20, 37, 1).gives(d2c.AddedOverlap, 10, 37, 13),
	}},
	{"late window 0", lateWindow(0), []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(30, 40, 7).gives(d2c.AddedGap, 10, 40, 12).opens(10),
		in(20, 30, 1).drops(d2c.DroppedTooLate),
		in(10, 20, 5).drops(d2c.DroppedTooLate),
		in(5, 10, 1).drops(d2c.DroppedTooLate),
		in(30, 40, 7).gives(d2c.Repeat, 10, 40, 12),
		in(40, 50, 1).gives(d2c.AddedAligned, 10, 50, 13),
	}},
	{"before first", nil, []step{
		in(20, 30, 5).gives(d2c.AddedFirst, 20, 30, 5),
		in(10, 20, 1).gives(d2c.AddedBeforeFirst, 10, 30.001, 6),
		in(10, 20, 1).gives(d2c.Repeat, 10, 30.001, 6),
		in(30, 40, 1).gives(d2c.AddedAligned, 10, 40, 7),
		in(5, 10, 1).gives(d2c.AddedBeforeFirst, 5, 40.001, 8),
	}},
	{"before first with hole", nil, []step{
		in(20, 30, 5).gives(d2c.AddedFirst, 20, 30, 5),
		in(5, 10, 1).gives(d2c.AddedBeforeFirst, 5, 30.001, 6).opens(10),
		in(8, 12, 9).drops(d2c.DroppedTooLate),
		in(10, 20, 1).gives(d2c.AddedLate, 5, 30.002, 7).fills(10),
	}},
	{"before first without start", nil, []step{
		in(20, 30, 5).gives(d2c.AddedFirst, 20, 30, 5),
		in(0, 20, 1).drops(d2c.DroppedTooLate),
		in(0, 15, 1).gives(d2c.AddedBeforeFirst, 15, 30.001, 6),
		in(10, 10, 1).gives(d2c.AddedBeforeFirst, 10, 30.002, 7),
		in(12, 14, 9).gives(d2c.Covered, 10, 30.002, 7),
	}},
	{"before first across the old start is too late", nil, []step{
		in(20, 30, 5).gives(d2c.AddedFirst, 20, 30, 5),
		in(15, 20.001, 1).drops(d2c.DroppedTooLate),
	}},
	{"before first only within the late window", lateWindow(15), []step{
		in(20, 30, 5).gives(d2c.AddedFirst, 20, 30, 5),
		in(10, 14.999, 1).drops(d2c.DroppedTooLate),
		in(10, 15, 1).gives(d2c.AddedBeforeFirst, 10, 30.001, 6).opens(5),
	}},
	{"not before first after restart", gapRestart, []step{
		in(20, 30, 5).gives(d2c.AddedFirst, 20, 30, 5),
		in(10, 20, 1).gives(d2c.AddedBeforeFirst, 10, 30.001, 6),
		in(40, 50, 7).gives(d2c.RestartedGap, 40, 50, 7),
		in(30, 40, 1).drops(d2c.DroppedTooLate),
		in(0, 35, 1).drops(d2c.DroppedTooLate),
	}},
	{"too late", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(20, 30, 7).gives(d2c.AddedAligned, 10, 30, 12),
		in(0, 25, 1).drops(d2c.DroppedTooLate),
		in(5, 15, 1).drops(d2c.DroppedTooLate),
		in(30, 40, 1).gives(d2c.AddedAligned, 10, 40, 13),
	}},
	{"too late partly in a gap", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(30, 40, 7).gives(d2c.AddedGap, 10, 40, 12).opens(10),
		in(15, 25, 1).drops(d2c.DroppedTooLate),
		in(25, 35, 1).drops(d2c.DroppedTooLate),
		in(15, 35, 1).drops(d2c.DroppedTooLate),
		in(20, 30, 1).gives(d2c.AddedLate, 10, 40.001, 13).fills(10),
	}},
	{"fifth gap forgets the oldest", nil, []step{
		in(10, 11, 1).gives(d2c.AddedFirst, 10, 11, 1),
		in(12, 13, 1).gives(d2c.AddedGap, 10, 13, 2).opens(1),
		in(14, 15, 1).gives(d2c.AddedGap, 10, 15, 3).opens(1),
		in(16, 17, 1).gives(d2c.AddedGap, 10, 17, 4).opens(1),
		in(18, 19, 1).gives(d2c.AddedGap, 10, 19, 5).opens(1),
		in(10, 11, 1).gives(d2c.Covered, 10, 19, 5),
		in(20, 21, 1).gives(d2c.AddedGap, 10, 21, 6).opens(1),
		in(11, 12, 1).drops(d2c.DroppedTooLate), // the forgotten gap, no longer known to be missing
		in(10, 11, 1).drops(d2c.DroppedTooLate), // before the horizon, no longer known to be covered
		in(12, 13, 1).gives(d2c.Covered, 10, 21, 6),
		in(13, 14, 1).gives(d2c.AddedLate, 10, 21.001, 7).fills(1),
	}},
	{"splitting the fourth gap forgets the oldest", nil, []step{
		in(10, 11, 1).gives(d2c.AddedFirst, 10, 11, 1),
		in(12, 13, 1).gives(d2c.AddedGap, 10, 13, 2).opens(1),
		in(14, 15, 1).gives(d2c.AddedGap, 10, 15, 3).opens(1),
		in(16, 17, 1).gives(d2c.AddedGap, 10, 17, 4).opens(1),
		in(20, 21, 1).gives(d2c.AddedGap, 10, 21, 5).opens(3),
		in(18, 19, 1).gives(d2c.AddedLate, 10, 21.001, 6).fills(1),
		in(11, 12, 1).drops(d2c.DroppedTooLate),
		in(17, 18, 1).gives(d2c.AddedLate, 10, 21.002, 7).fills(1),
		in(19, 20, 1).gives(d2c.AddedLate, 10, 21.003, 8).fills(1),
		in(13, 14, 1).gives(d2c.AddedLate, 10, 21.004, 9).fills(1),
		in(15, 16, 1).gives(d2c.AddedLate, 10, 21.005, 10).fills(1),
	}},
	{"splitting the oldest of four gaps forgets its first part", nil, []step{
		in(10, 11, 1).gives(d2c.AddedFirst, 10, 11, 1),
		in(14, 15, 1).gives(d2c.AddedGap, 10, 15, 2).opens(3),
		in(16, 17, 1).gives(d2c.AddedGap, 10, 17, 3).opens(1),
		in(18, 19, 1).gives(d2c.AddedGap, 10, 19, 4).opens(1),
		in(20, 21, 1).gives(d2c.AddedGap, 10, 21, 5).opens(1),
		in(12, 13, 1).gives(d2c.AddedLate, 10, 21.001, 6).fills(1),
		in(11, 12, 1).drops(d2c.DroppedTooLate),
		in(12, 13, 2).gives(d2c.Covered, 10, 21.001, 6),
		in(13, 14, 1).gives(d2c.AddedLate, 10, 21.002, 7).fills(1),
	}},
	{"a forgotten gap is no more than unknown, once the late window is past it", lateWindow(15), []step{
		in(10, 11, 1).gives(d2c.AddedFirst, 10, 11, 1),
		in(12, 13, 1).gives(d2c.AddedGap, 10, 13, 2).opens(1),
		in(14, 15, 1).gives(d2c.AddedGap, 10, 15, 3).opens(1),
		in(16, 17, 1).gives(d2c.AddedGap, 10, 17, 4).opens(1),
		in(18, 19, 1).gives(d2c.AddedGap, 10, 19, 5).opens(1),
		in(20, 21, 1).gives(d2c.AddedGap, 10, 21, 6).opens(1),
		in(21, 27, 1).gives(d2c.AddedAligned, 10, 27, 7),
		in(12, 13, 2).gives(d2c.Covered, 10, 27, 7),
		in(11.5, 12.5, 2).drops(d2c.DroppedTooLate),
	}},
	{"no recorded value with state", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(20, 30, marker).gives(d2c.NoRecordedValue, 10, 30, marker),
		in(30, 40, 7).gives(d2c.AddedGap, 10, 40, 12).opens(10),
		in(0, 50, marker).gives(d2c.NoRecordedValue, 10, 50, marker),
		in(40, 45, 1).gives(d2c.AddedAligned, 10, 50.001, 13),
	}},
	{"no recorded value without state", nil, []step{
		in(10, 20, marker).gives(d2c.NoRecordedValue, 10, 20, marker),
		in(15, 25, 5).gives(d2c.AddedFirst, 15, 25, 5),
	}},
	{"no recorded value too late", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(10, 20, marker).drops(d2c.DroppedTooLate),
		in(10, 15, marker).drops(d2c.DroppedTooLate),
	}},
	{"no recorded value after a late point", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(5, 10, 1).gives(d2c.AddedBeforeFirst, 5, 20.001, 6),
		in(20, 20.001, marker).gives(d2c.NoRecordedValue, 5, 20.002, marker),
	}},
	{"marker then repeat", nil, []step{
		in(10, 20, 5).gives(d2c.AddedFirst, 10, 20, 5),
		in(20, 30, marker).gives(d2c.NoRecordedValue, 10, 30, marker),
		in(10, 20, 5).gives(d2c.Repeat, 10, 30.001, 5),
		in(10, 20, 5).gives(d2c.Repeat, 10, 30.001, 5),
		in(20, 40, 1).gives(d2c.AddedAligned, 10, 40, 6),
	}},
}

func TestRows(t *testing.T) {
	for _, shape := range shapes {
		t.Run(shape.name, func(t *testing.T) {
			for _, row := range rows {
				t.Run(row.name, func(t *testing.T) {
					cfg := d2c.DefaultConfig()
					if row.with != nil {
						row.with(&cfg)
					}
					play(t, cfg, exchanges(shape, row.steps)...)
				})
			}
		})
	}
}

func exchanges(shape shape, steps []step) (history []exchange) {
	for _, s := range steps {
		x := exchange{in: shape.point(s.start, s.end, s.n), want: s.want, opened: s.opened, filled: s.filled}
		if !s.want.Dropped() {
			x.out = shape.point(s.from, s.at, s.total)
		}
		history = append(history, x)
	}
	return history
}
