// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"github.com/deltaring/deltaring/d2c/internal/fold"
	"github.com/deltaring/deltaring/d2c/internal/table"
)

// Outcome says what happened to one data point. Every point of a batch has exactly one. String returns a short name that
// fits a metric attribute, for instance "aligned" or "dropped_too_late". Added reports whether the point's value is now part
// of a total, restarts included; Restarted whether the point restarted its stream under a new start timestamp; Dropped
// whether the point was removed because it could not be added.
type Outcome = fold.Outcome

// The outcomes. See the classification table in the package comment.
const (
	// Passed points belong to gauges, to summaries not named in Config.Summaries, and to metrics that are not delta. They
	// are left unchanged.
	Passed = fold.Passed

	// AddedFirst opened a stream.
	AddedFirst = fold.AddedFirst
	// AddedAligned started exactly where the stream had ended.
	AddedAligned = fold.AddedAligned
	// AddedNoStart has no usable start (zero, or equal to its time) and ended after the stream.
	AddedNoStart = fold.AddedNoStart
	// AddedGap started after the stream had ended; Result.GapOpened includes the time between.
	AddedGap = fold.AddedGap
	// AddedOverlap started before the stream had ended.
	AddedOverlap = fold.AddedOverlap
	// AddedLate filled (part of) a remembered gap.
	AddedLate = fold.AddedLate
	// AddedBeforeFirst ended at or before the start of a stream that is still new; the start moved back.
	AddedBeforeFirst = fold.AddedBeforeFirst

	// RestartedGap restarted the stream at a gap, because of GapRestart or GapRestartIfMoved.
	RestartedGap = fold.RestartedGap
	// RestartedLayout restarted the stream because the histogram's bounds changed.
	RestartedLayout = fold.RestartedLayout
	// RestartedOverflow restarted the stream because the total would not fit its type.
	RestartedOverflow = fold.RestartedOverflow
	// RestartedLost restarted the stream because shared state had lost it or returned an older record.
	RestartedLost = fold.RestartedLost

	// Repeat is the delta counted last, sent again; the stream's latest sample was emitted in its place.
	Repeat = fold.Repeat
	// NoRecordedValue is a "no recorded value" marker, passed on as cumulative.
	NoRecordedValue = fold.NoRecordedValue

	// DroppedOverlap overlapped under OverlapDrop.
	DroppedOverlap = fold.DroppedOverlap
	// DroppedOlderStart started before the stream did and ended after the stream's last accepted time.
	DroppedOlderStart = fold.DroppedOlderStart
	// DroppedTooLate ended before the stream's last accepted time, and nothing shows that it is missing from the total.
	DroppedTooLate = fold.DroppedTooLate
	// DroppedLimit would have opened a stream beyond Config.MaxStreams.
	DroppedLimit = fold.DroppedLimit
	// DroppedTime has no time, a time of 2^63-2^53 ns (December 2261) or later, or a start after its time.
	DroppedTime = fold.DroppedTime
	// DroppedNoValue has neither a value nor the "no recorded value" flag.
	DroppedNoValue = fold.DroppedNoValue
	// DroppedNotFinite carries a NaN or an infinity.
	DroppedNotFinite = fold.DroppedNotFinite
	// DroppedNegative is a negative delta of a monotonic sum.
	DroppedNegative = fold.DroppedNegative
	// DroppedBuckets has a number of bucket counts that does not fit its bounds or exceeds Config.MaxBuckets, bounds that
	// are not strictly increasing, or exponential bucket counts whose sum exceeds a uint64.
	DroppedBuckets = fold.DroppedBuckets
	// DroppedScale has an exponential scale outside -10..20, a populated bucket that contains no float64, or a negative zero
	// threshold.
	DroppedScale = fold.DroppedScale

	// Kept is not given out, because the shared store fails and the point may have been counted before it failed. It is
	// added, if possible, when the store is back: see SharedConfig.MaxOutstanding.
	Kept = fold.Kept

	// Covered was not added, because counted deltas already cover its time and nothing shows that it is one of them: two
	// producers share an identity, or a retry is older than what is remembered. The stream's latest sample was emitted in
	// its place.
	Covered = fold.Covered
	// AddedUnordered was added regardless of its interval: see WritersMany.
	AddedUnordered = fold.AddedUnordered

	// AddedReset is the first cumulative point after its producer restarted: all of it was added. It occurs only with
	// Config.Aggregate, as do the next three.
	AddedReset = fold.AddedReset
	// Baseline is the first cumulative point of a producer that may have been counted before: nothing of it was added, and
	// later points add their increase over it.
	Baseline = fold.Baseline
	// WriterNoRecordedValue is a "no recorded value" marker of one writer of an aggregate. It is removed, because the other
	// writers continue.
	WriterNoRecordedValue = fold.WriterNoRecordedValue
	// DroppedWriters came from a writer beyond AggregateRule.MaxWriters.
	DroppedWriters = fold.DroppedWriters

	// NumOutcomes is the number of outcomes. Outcomes added later get the next numbers, whatever their class.
	NumOutcomes = fold.NumOutcomes
)

// Kind is the kind of a stream.
type Kind = table.Kind

// The kinds of streams.
const (
	KindSum                  = table.KindSum
	KindHistogram            = table.KindHistogram
	KindExponentialHistogram = table.KindExponentialHistogram
)

// Stream describes one stream at the moment it was read: its ID and Kind; Start, the cumulative start timestamp; Last, the
// end of the latest accepted interval; Emitted, the latest time given out (Last, or later after late points); for a sum the
// total as Int, or as Double if IsDouble; for a histogram its Count and Sum.
type Stream = table.Stream
