// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package shared

import (
	"github.com/deltaring/deltaring/d2c/internal/fold"
	"github.com/deltaring/deltaring/d2c/internal/table"
)

// lineage is what this worker knows of a stream, from its cache or from what it has read for the transaction at hand: whatever is
// stored of the stream must come after it.
type lineage struct {
	known          bool
	start, emitted int64
	restarted      bool
	total          fold.Number // of a sum, or the count of a histogram
	fingerprint    uint64      // of start and value
}

func lineageOf(r *table.Record) lineage {
	l := lineage{
		known: true, start: r.Timeline.Start, emitted: r.Timeline.Emitted, restarted: r.Timeline.Restarted, fingerprint: r.Fingerprint(),
	}
	switch r.Kind {
	case table.KindSum:
		l.total = r.Number
	case table.KindHistogram:
		l.total = fold.Number{Bits: r.Histogram.Count}
	default:
		l.total = fold.Number{Bits: r.Exponential.Count}
	}
	return l
}

// below reports whether the total is lower, where totals do not fall.
func (l *lineage) below(o *lineage) bool {
	if l.total.Double || o.total.Double {
		return l.total.Float() < o.total.Float()
	}
	return l.total.Bits < o.total.Bits // no monotonic sum is negative
}

// continues reports whether a record can be what came after o. Each change of a stream gives out a later time, and only a point
// before the first moves a start back.
func (l *lineage) continues(o *lineage, monotonic bool) bool {
	falls := monotonic && l.below(o)
	switch {
	case l.emitted < o.emitted:
		return false
	case l.emitted == o.emitted:
		return l.fingerprint == o.fingerprint
	case l.start > o.start:
		return l.start >= o.emitted // if not, it was begun by somebody who did not know what was given out
	case l.start < o.start: // a life before, or start has moved back for a point before the first
		return !l.restarted && !o.restarted && !falls
	}
	return !falls
}
