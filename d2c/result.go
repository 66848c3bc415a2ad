// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"iter"
	"time"

	"github.com/deltaring/deltaring/d2c/internal/fold"
	"github.com/deltaring/deltaring/d2c/internal/points"
)

// Result reports what one call of Convert did. The zero value is an empty result.
type Result struct {
	// GapOpened is the time newly found to be covered by no accepted delta, summed over streams.
	GapOpened time.Duration
	// GapFilled is the part of such time that late or overlapping deltas have since covered.
	GapFilled time.Duration
	// Unspecified is the number of points of metrics with unspecified temporality. They are included in Passed.
	Unspecified uint64
	// Duplicates is the number of streams opened that the backend takes for the same series as another stream: see
	// Config.Duplicates.
	Duplicates uint64
	// Stored is set if the store has confirmed the outcome of the batch's deltas. It is not set with state in memory, nor
	// for a batch without deltas, because such a batch does not reach the store.
	Stored bool
	// Outstanding is set if the batch was given out but is not stored yet: see SharedConfig.MaxOutstanding.
	Outstanding bool

	// Zeros is the number of zero samples that were added at the beginning of lives: see Config.EmitZero.
	Zeros uint64

	counts   [fold.NumOutcomes]uint64
	repaired [fold.NumRepairs]uint64
}

func resultOf(r *points.Result) Result {
	return Result{
		Unspecified: r.Unspecified, Duplicates: r.Duplicates,
		GapOpened: r.Gaps.Opened, GapFilled: r.Gaps.Filled, Stored: r.Stored, Outstanding: r.Outstanding,
		Zeros: r.Zeros, counts: r.Counts, repaired: r.Repaired,
	}
}

// Count returns the number of data points with an outcome.
func (r *Result) Count(o Outcome) uint64 {
	if int(o) >= len(r.counts) {
		return 0
	}
	return r.counts[o]
}

// Counts iterates over the outcomes that occurred, with the number of points of each. The sum is the number of points in the
// batch.
func (r *Result) Counts() iter.Seq2[Outcome, uint64] {
	return func(yield func(Outcome, uint64) bool) {
		for o, n := range r.counts {
			if n > 0 && !yield(Outcome(o), n) {
				return
			}
		}
	}
}

// Repaired returns the number of points that were repaired in any of the given ways and not dropped. A point repaired in
// several ways counts once for each.
func (r *Result) Repaired(ways Repairs) (n uint64) {
	for i, count := range r.repaired {
		if ways&(1<<i) != 0 {
			n += count
		}
	}
	return n
}

// Dropped returns the number of points that were removed from the batch because their values could not be added.
func (r *Result) Dropped() (n uint64) {
	for o, count := range r.Counts() {
		if o.Dropped() {
			n += count
		}
	}
	return n
}
