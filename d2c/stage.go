// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"slices"
	"time"
)

// stage has what the points of a batch get once it is committed.
type stage struct {
	samples      []interval  // start and time, by position; a zero time leaves the point as it is
	numbers      []number    // by point, as are the next two
	histograms   []histogram // their counts, and those of exponentials, are in counts
	exponentials []exponential
	counts       []uint64

	gaps [][2]time.Duration // opened and filled, by position
}

// prepare makes room for what the batch's points will get.
func (s *stage) prepare(b *batch) {
	s.samples = slices.Grow(s.samples[:0], len(b.outcomes))[:len(b.outcomes)]
	clear(s.samples)
	s.numbers = slices.Grow(s.numbers[:0], len(b.numbers))[:len(b.numbers)]
	s.histograms = slices.Grow(s.histograms[:0], len(b.histograms))[:len(b.histograms)]
	s.exponentials = slices.Grow(s.exponentials[:0], len(b.exponentials))[:len(b.exponentials)]
	s.gaps = slices.Grow(s.gaps[:0], len(b.outcomes))[:len(b.outcomes)]
	s.counts = s.counts[:0]
}

// reset lets go of the batch's data.
func (s *stage) reset() {
	clear(s.histograms)
	clear(s.exponentials)
	if cap(s.counts) > 16*maxScratch {
		s.counts = nil
	}
}

// histogram keeps a total for a point. Bounds are never written to and need no copy.
func (s *stage) histogram(point int32, h *histogram) {
	kept := *h
	kept.counts = s.keep(h.counts)
	s.histograms[point] = kept
}

func (s *stage) exponential(point int32, e *exponential) {
	kept := *e
	for i := range kept.ranges {
		kept.ranges[i].counts = s.keep(e.ranges[i].counts)
	}
	s.exponentials[point] = kept
}

// keep copies counts. Where s.counts has to grow, what was kept before stays where it was.
func (s *stage) keep(counts []uint64) []uint64 {
	from := len(s.counts)
	s.counts = append(s.counts, counts...)
	return s.counts[from:len(s.counts):len(s.counts)]
}

// unstage writes to the points of the batch what they are to get.
func (b *batch) unstage() {
	s := b.staged
	for i := range b.items {
		it := &b.items[i]
		sample := s.samples[it.position]
		if sample.time == 0 {
			continue
		}
		b.setTimes(it, sample)
		switch {
		case it.marker:
		case it.kind == KindSum:
			setNumber(b.numbers[it.point], s.numbers[it.point])
		case it.kind == KindHistogram:
			s.histograms[it.point].write(&b.histograms[it.point], b.outcomes[it.position])
		default:
			s.exponentials[it.point].write(&b.exponentials[it.point])
		}
	}
}
