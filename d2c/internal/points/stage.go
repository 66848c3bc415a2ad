// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package points

import (
	"slices"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c/internal/fold"
	"github.com/deltaring/deltaring/d2c/internal/table"
)

// maxScratch is the number of bucket counts that scratch space may hold on to between batches.
const maxScratch = 1 << 16

// stage holds what the points of a batch get once it is committed.
type stage struct {
	samples      []fold.Interval  // start and time, by position; a zero time leaves the point as it is
	numbers      []fold.Number    // by point, as are the next two
	histograms   []fold.Histogram // their counts, and those of exponentials, are in counts
	others       []bool           // by histogram: the sample has other bounds, or quantiles, than the point
	exponentials []fold.Exponential
	counts       []uint64

	gaps [][2]time.Duration // opened and filled, by position
}

// Prepare stages what the points get until Emit.
func (b *Batch) Prepare() {
	s := &b.staged
	b.direct = false
	s.samples = slices.Grow(s.samples[:0], len(b.outcomes))[:len(b.outcomes)]
	clear(s.samples)
	s.numbers = slices.Grow(s.numbers[:0], len(b.numbers))[:len(b.numbers)]
	s.histograms = slices.Grow(s.histograms[:0], len(b.histograms))[:len(b.histograms)]
	s.others = slices.Grow(s.others[:0], len(b.histograms))[:len(b.histograms)]
	s.exponentials = slices.Grow(s.exponentials[:0], len(b.exponentials))[:len(b.exponentials)]
	s.gaps = slices.Grow(s.gaps[:0], len(b.outcomes))[:len(b.outcomes)]
	s.counts = s.counts[:0]
}

// NoteGaps says what an item did to gaps, for Undo.
func (b *Batch) NoteGaps(it *Item, opened, filled time.Duration) {
	b.staged.gaps[it.position] = [2]time.Duration{opened, filled}
}

// Undo takes back what folding the item has left in the batch.
func (b *Batch) Undo(it *Item) {
	gaps := &b.staged.gaps[it.position]
	o := b.Outcome(it)
	b.Counts[o]--
	if it.flags&flagRepaired != 0 {
		if !o.Dropped() {
			b.countRepairs(it, ^uint64(0))
		}
		b.repairs[it.position] &^= fold.RepairRoundedBounds
	}
	b.Gaps.Opened -= gaps[0]
	b.Gaps.Filled -= gaps[1]
	it.flags &^= flagWithheld
	b.DropZero(it)
	b.staged.samples[it.position] = fold.Interval{}
}

// Restart takes back what folding any item has left in the batch.
func (b *Batch) Restart() {
	for i := range b.Items {
		it := &b.Items[i]
		if b.outcomes[it.position] != 0 {
			b.Undo(it)
			b.outcomes[it.position] = 0
		}
		it.Slot, it.flags = nil, it.flags&(flagMonotonic|flagArrived|flagRelaid|flagRepaired|flagSummary|flagAgain)
	}
}

// Keep makes kept what is needed to fold the batch's items again, with what became of them: it shares nothing with the batch.
func (b *Batch) Keep(kept *Batch) {
	kept.Items = slices.Clone(b.Items)
	kept.order, kept.ends = slices.Clone(b.order), b.ends
	kept.outcomes, kept.given = slices.Clone(b.outcomes), slices.Clone(b.outcomes)
	kept.Route, kept.Counts = b.Route, b.Counts
	kept.repairs, kept.prints = slices.Clone(b.repairs), slices.Clone(b.prints)
	kept.numbers = make([]pmetric.NumberDataPoint, 0)
	for i := range b.histograms {
		d := b.histograms[i].value
		d.Bounds, d.Counts = slices.Clone(d.Bounds), slices.Clone(d.Counts)
		kept.histograms = append(kept.histograms, histogramPoint{value: d})
	}
	for i := range b.exponentials {
		d := b.exponentials[i].value
		for r := range d.Ranges {
			d.Ranges[r].Counts = slices.Clone(d.Ranges[r].Counts)
		}
		kept.exponentials = append(kept.exponentials, exponentialPoint{value: d})
	}
	numbers := len(b.numbers)
	kept.Prepare()
	kept.staged.numbers = make([]fold.Number, numbers)
	copy(kept.staged.gaps, b.staged.gaps)
}

// Given returns what was noted of an item when it was kept.
func (b *Batch) Given(it *Item) fold.Outcome { return b.given[it.position] &^ withheld }

// reset releases the batch's data.
func (s *stage) reset() {
	clear(s.histograms)
	clear(s.exponentials)
	if cap(s.counts) > maxScratch {
		s.counts = nil
	}
}

// histogram keeps a total for a point. Bounds are never written to and need no copy.
func (s *stage) histogram(point int32, h *fold.Histogram, others bool) {
	s.others[point] = others
	kept := *h
	kept.Counts = s.keep(h.Counts)
	s.histograms[point] = kept
}

func (s *stage) exponential(point int32, e *fold.Exponential) {
	kept := *e
	for i := range kept.Ranges {
		kept.Ranges[i].Counts = s.keep(e.Ranges[i].Counts)
	}
	s.exponentials[point] = kept
}

// keep copies counts. Where s.counts has to grow, what was kept before stays where it was.
func (s *stage) keep(counts []uint64) []uint64 {
	from := len(s.counts)
	s.counts = append(s.counts, counts...)
	return s.counts[from:len(s.counts):len(s.counts)]
}

// unstage writes what was staged to the points of the batch.
func (b *Batch) unstage() {
	s := &b.staged
	for i := range b.Items {
		it := &b.Items[i]
		sample := s.samples[it.position]
		if sample.Time == 0 {
			continue
		}
		b.setTimes(it, sample)
		switch {
		case it.Marker:
		case it.Kind == table.KindSum:
			setNumber(b.numbers[it.point], s.numbers[it.point])
		case it.Kind == table.KindHistogram:
			b.writeHistogram(it, &s.histograms[it.point], s.others[it.point])
		default:
			b.exponentials[it.point].write(&s.exponentials[it.point])
		}
	}
}
