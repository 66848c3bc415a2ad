// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"iter"
	"time"

	"github.com/deltaring/deltaring/d2c/internal/fold"
	"github.com/deltaring/deltaring/d2c/internal/points"
)

// Result says what one Convert did. The zero value is an empty result.
type Result struct {
	// GapOpened is the time newly known to be covered by no accepted delta, summed over streams.
	GapOpened time.Duration
	// GapFilled is how much of such time was covered after all by late or overlapping deltas.
	GapFilled time.Duration
	// Unspecified is the number of points of metrics that do not say whether these are deltas. They are among those that Passed.
	Unspecified uint64
	// Duplicates is the number of streams that were opened though the backend takes each for one with another: see
	// Config.Duplicates.
	Duplicates uint64
	// Stored is set if the store has confirmed what became of the batch's deltas. It is not set in memory, nor where the batch
	// had no deltas: such a batch says nothing of the store.
	Stored bool
	// Outstanding is set if the batch was given out though the store does not have it: see SharedConfig.MaxOutstanding.
	Outstanding bool

	// Zeros is the number of samples that lives began with, besides those of the batch's points: see Config.EmitZero.
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

// Counts iterates over the outcomes that any point had, with the number of points. The sum is the number of points that
// came in.
func (r *Result) Counts() iter.Seq2[Outcome, uint64] {
	return func(yield func(Outcome, uint64) bool) {
		for o, n := range r.counts {
			if n > 0 && !yield(Outcome(o), n) {
				return
			}
		}
	}
}

// Repaired returns the number of points that were repaired in any of some ways and not dropped. A point that was repaired in
// several counts for each.
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
