// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package fold

// Outcome says what became of one data point. Every point of a batch has exactly one.
type Outcome uint8

// The outcomes, in the order of the classification table in the package comment of d2c.
const (
	// Passed points belong to gauges, to summaries that are not named, and to metrics that are not delta; they are not touched.
	Passed Outcome = iota

	// AddedFirst opened a stream.
	AddedFirst
	// AddedAligned started exactly where the stream had ended.
	AddedAligned
	// AddedNoStart has no usable start (zero, or equal to its time) and ended after the stream.
	AddedNoStart
	// AddedGap started after the stream had ended; Result.GapOpened has the time between.
	AddedGap
	// AddedOverlap started before the stream had ended.
	AddedOverlap
	// AddedLate filled (part of) a remembered gap.
	AddedLate
	// AddedBeforeFirst ended at or before the start of a stream that is still new; the start moved back.
	AddedBeforeFirst

	// RestartedGap began the stream anew because of GapRestart.
	RestartedGap
	// RestartedLayout began the stream anew because the histogram's bounds changed.
	RestartedLayout
	// RestartedOverflow began the stream anew because the total would not fit its type.
	RestartedOverflow
	// RestartedLost began the stream anew because shared state had lost it, or had gone back to an older record.
	RestartedLost

	// Repeat is the delta that was counted last, once more; the stream's latest sample was emitted in its place.
	Repeat
	// NoRecordedValue is a "no recorded value" marker, passed on as cumulative.
	NoRecordedValue

	// DroppedOverlap overlapped under OverlapDrop.
	DroppedOverlap
	// DroppedOlderStart started before the stream did and ended after the stream's last accepted time.
	DroppedOlderStart
	// DroppedTooLate ended before the stream's last accepted time and cannot be shown to be missing from it.
	DroppedTooLate
	// DroppedLimit would have opened a stream beyond Config.MaxStreams.
	DroppedLimit
	// DroppedTime has no time, a time of 2^63-2^53 ns (December 2261) or later, or a start after its time that was not repaired.
	DroppedTime
	// DroppedNoValue has neither a value nor the "no recorded value" flag.
	DroppedNoValue
	// DroppedNotFinite carries a NaN or an infinity.
	DroppedNotFinite
	// DroppedNegative is a negative delta of a monotonic sum.
	DroppedNegative
	// DroppedBuckets has a number of bucket counts that does not fit its bounds or is 2^24 or more, bounds that are not
	// strictly increasing, or exponential bucket counts whose sum passes a uint64.
	DroppedBuckets
	// DroppedScale has an exponential scale outside -10..20, a populated bucket in which no float64 lies, or a negative
	// zero threshold.
	DroppedScale

	// Kept is not given out: the shared store fails, and the point may have been counted before it did. It is added when the
	// store is back, if it can be.
	Kept

	// Covered was not added, because deltas that were cover its time, and nothing shows that it is one of them: two producers
	// share an identity, or a retry is older than what is remembered. The stream's latest sample was emitted in its place.
	Covered
	// AddedUnordered was added whatever its interval: see WritersMany.
	AddedUnordered

	// AddedReset is the first cumulative point after its producer began anew: all of it was added.
	AddedReset
	// Baseline is the first cumulative point of a producer that may have been counted before: nothing of it was added, and what
	// follows is added as far as it is more.
	Baseline
	// WriterNoRecordedValue is a "no recorded value" marker of one writer of an aggregate. It is removed: the others go on.
	WriterNoRecordedValue
	// DroppedWriters would have been one more writer of its aggregate than there may be.
	DroppedWriters

	// NumOutcomes is the number of outcomes. Later ones are added just before it, whatever their class.
	NumOutcomes
)

var outcomeNames = [NumOutcomes]string{
	Passed:                "passed",
	AddedFirst:            "first",
	AddedAligned:          "aligned",
	AddedNoStart:          "no_start",
	AddedGap:              "gap",
	AddedOverlap:          "overlap",
	AddedLate:             "late",
	AddedBeforeFirst:      "before_first",
	RestartedGap:          "restart_gap",
	RestartedLayout:       "restart_layout",
	RestartedOverflow:     "restart_overflow",
	RestartedLost:         "restart_lost",
	Repeat:                "repeat",
	NoRecordedValue:       "no_recorded_value",
	DroppedOverlap:        "dropped_overlap",
	DroppedOlderStart:     "dropped_older_start",
	DroppedTooLate:        "dropped_too_late",
	DroppedLimit:          "dropped_limit",
	DroppedTime:           "dropped_time",
	DroppedNoValue:        "dropped_no_value",
	DroppedNotFinite:      "dropped_not_finite",
	DroppedNegative:       "dropped_negative",
	DroppedBuckets:        "dropped_buckets",
	DroppedScale:          "dropped_scale",
	Kept:                  "kept",
	Covered:               "covered",
	AddedUnordered:        "unordered",
	AddedReset:            "reset",
	Baseline:              "baseline",
	WriterNoRecordedValue: "writer_no_recorded_value",
	DroppedWriters:        "dropped_writers",
}

// String returns a short name fit for a metric attribute, for instance "aligned" or "dropped_too_late".
func (o Outcome) String() string {
	if o < NumOutcomes {
		return outcomeNames[o]
	}
	return "unknown"
}

// outcomeClass is what the outcomes of one kind have in common.
type outcomeClass uint8

const (
	added outcomeClass = 1 << iota
	restarted
	dropped
	answered
)

// classes has the classes of every outcome.
var classes = [NumOutcomes]outcomeClass{
	AddedFirst:        added,
	AddedAligned:      added,
	AddedNoStart:      added,
	AddedGap:          added,
	AddedOverlap:      added,
	AddedLate:         added,
	AddedBeforeFirst:  added,
	RestartedGap:      added | restarted,
	RestartedLayout:   added | restarted,
	RestartedOverflow: added | restarted,
	RestartedLost:     added | restarted,
	AddedUnordered:    added,
	AddedReset:        added,
	Repeat:            answered,
	Covered:           answered,
	DroppedOverlap:    dropped,
	DroppedOlderStart: dropped,
	DroppedTooLate:    dropped,
	DroppedLimit:      dropped,
	DroppedTime:       dropped,
	DroppedNoValue:    dropped,
	DroppedNotFinite:  dropped,
	DroppedNegative:   dropped,
	DroppedBuckets:    dropped,
	DroppedScale:      dropped,
	DroppedWriters:    dropped,
}

func (o Outcome) is(c outcomeClass) bool { return o < NumOutcomes && classes[o]&c != 0 }

// Added reports whether the point's value is now part of a total, restarts included.
func (o Outcome) Added() bool { return o.is(added) }

// Restarted reports whether the point began its stream anew under a new start timestamp.
func (o Outcome) Restarted() bool { return o.is(restarted) }

// Answered reports whether the point was not added and the stream's latest sample was emitted in its place.
func (o Outcome) Answered() bool { return o.is(answered) }

// Dropped reports whether the point was removed from the batch.
func (o Outcome) Dropped() bool { return o.is(dropped) }
