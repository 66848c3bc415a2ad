// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package commit

import (
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c/internal/fold"
	"github.com/deltaring/deltaring/d2c/internal/points"
	"github.com/deltaring/deltaring/d2c/internal/table"
	"github.com/deltaring/deltaring/streamid"
)

// Notice is something about a batch that its sender may not know, with one point or metric as a sample.
type Notice struct {
	Kind NoticeKind
	// Outcome is the points' outcome, if Kind is NoticeOutcome.
	Outcome fold.Outcome
	// Points is how many points of the batch it is about; of NoticeDuplicate they are as many streams.
	Points uint64

	// Resource, Scope and Metric are those of the sample, and Attributes those of its point. They may only be read, and only until
	// the function returns. Values of points may be those of totals by now.
	Resource   pcommon.Resource
	Scope      pcommon.InstrumentationScope
	Metric     pmetric.Metric
	Attributes pcommon.Map
	// Start and Time are the interval of the point as it came.
	Start, Time pcommon.Timestamp
	// Stream is the point's stream after the batch. Its ID is zero of a malformed point, its Last if there is no such stream.
	Stream table.Stream
}

// NoticeKind says what a notice is about.
type NoticeKind uint8

const (
	// NoticeOutcome is about points that were dropped, kept or not added because they were covered: one for each such Outcome.
	NoticeOutcome NoticeKind = iota
	// NoticeUnspecified is about a metric that does not say whether its points are deltas: they passed as they came. Attributes,
	// Start, Time and Stream are not set.
	NoticeUnspecified
	// NoticeDuplicate is about streams of a metric that were opened though the backend takes each for one with another.
	NoticeDuplicate
	// NoticeFixedStart is about sums of which OverlapInterpolate has added a part, because they began where their stream did. One
	// such point is an overlap like others. A producer whose start never moves sends nothing else, and most of what it counts is lost.
	NoticeFixedStart
)

// tell reports what stands out in a batch that has been folded and not been emitted.
func (p *Pipeline) tell(md pmetric.Metrics, b *Batch, tenant streamid.Tenant) {
	if p.Duplicates != nil && b.Counts[fold.AddedFirst] > 0 {
		p.duplicates(md, b, tenant)
	}
	if p.OnNotice != nil {
		for o, n := range b.Counts {
			if o := fold.Outcome(o); n > 0 && (o.Dropped() || o == fold.Covered || o == fold.Kept) {
				p.sample(md, b, Notice{Kind: NoticeOutcome, Outcome: o, Points: n}, b.Find(o, 0))
			}
		}
		if b.Counts[fold.AddedOverlap] > 0 && p.Rules.Overlap == fold.OverlapInterpolate {
			if at, n := b.Reaching(); n > 0 {
				p.sample(md, b, Notice{Kind: NoticeFixedStart, Outcome: fold.AddedOverlap, Points: uint64(n)}, at)
			}
		}
		if b.Unspecified > 0 {
			for at := range points.Unclear(md) {
				p.OnNotice(Notice{
					Kind: NoticeUnspecified, Points: uint64(at.N), Resource: at.Resource, Scope: at.Scope, Metric: at.Metric,
					Attributes: noAttributes,
				})
			}
		}
	}
}

// duplicates counts the streams that were opened and are one with another to the backend, and tells of them metric by metric.
func (p *Pipeline) duplicates(md pmetric.Metrics, b *Batch, tenant streamid.Tenant) {
	var of pcommon.Resource
	var resource uint64
	whose := tenant.Resource(noResource).Scope(noScope).Metric(noMetric).Point(noAttributes)
	items := b.Items
	for at := range b.Places(md) {
		first, n, metric := 0, uint64(0), uint64(0)
		for ; len(items) > 0 && items[0].Position() < at.First+at.N; items = items[1:] {
			it := &items[0]
			if b.Outcome(it) != fold.AddedFirst || b.Writer(it) != nil { // writers are told apart by what the backend does not get
				continue
			}
			if at.Resource != of {
				of, resource = at.Resource, p.Duplicates.Resource(&b.hasher, whose, at.Resource)
			}
			if metric == 0 {
				metric = p.Duplicates.Metric(&b.hasher, resource, at.Scope, at.Metric)
			}
			attrs := b.Point(at, it.Position(), it).Attributes
			if p.Duplicates.Opened(p.Duplicates.Point(&b.hasher, metric, attrs), it.ID) {
				if n++; n == 1 {
					first = it.Position()
				}
			}
		}
		if b.Duplicates += n; n > 0 && p.OnNotice != nil {
			p.notice(b, Notice{Kind: NoticeDuplicate, Outcome: fold.AddedFirst, Points: n}, at, first)
		}
	}
}

var (
	noResource = pcommon.NewResource()
	noScope    = pcommon.NewInstrumentationScope()
	noMetric   = pmetric.NewMetric()
)

var noAttributes = pcommon.NewMap()

// sample tells of a point.
func (p *Pipeline) sample(md pmetric.Metrics, b *Batch, n Notice, position int) {
	for at := range b.Places(md) {
		if position < at.First+at.N {
			p.notice(b, n, at, position)
			return
		}
	}
}

// notice tells of a point of a metric.
func (p *Pipeline) notice(b *Batch, n Notice, at points.Place, position int) {
	point := b.Point(at, position, b.ItemAt(position))
	n.Resource, n.Scope, n.Metric, n.Attributes = at.Resource, at.Scope, at.Metric, point.Attributes
	n.Start, n.Time = pcommon.Timestamp(point.Start), pcommon.Timestamp(point.Time)
	if n.Stream.ID = point.ID; point.ID != (streamid.ID{}) {
		p.Table.Look(&n.Stream)
	}
	p.OnNotice(n)
}
