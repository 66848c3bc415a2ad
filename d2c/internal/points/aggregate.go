// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package points

import (
	"slices"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c/internal/fold"
	"github.com/deltaring/deltaring/d2c/internal/table"
	"github.com/deltaring/deltaring/streamid"
)

// Aggregates says which metrics are aggregated: a point of such a metric is of two streams, its writer, which it is as it came, and
// the total that is left when attributes are taken away. A batch gives out one sample of each total that it touches, in the place
// of the point that was the last to be added. So nothing is written anew: of points, resources and scopes it is taken away
// what does not stay, and only where a resource has other metrics as well these are taken apart.
type Aggregates struct {
	Rules []*streamid.Reduction
	// Find returns the rule for a metric's name, or -1.
	Find func(name string) int
	// KeepInput, by rule, has metrics stay as they are beside the total; Held has samples given out by the clock, and not with
	// batches; MaxWriters bounds the writers of a total, where it is not zero.
	KeepInput, Held []bool
	MaxWriters      []int
}

// rule returns the rule for a metric, or -1.
func (a *Aggregates) rule(m pmetric.Metric) int {
	if _, ok := temporality(m); !ok {
		return -1
	}
	return a.Find(m.Name())
}

// temporality reports whether the points of a metric can be added up, and are cumulative.
func temporality(m pmetric.Metric) (cumulative, ok bool) {
	t := pmetric.AggregationTemporalityUnspecified
	switch m.Type() {
	case pmetric.MetricTypeSum:
		t = m.Sum().AggregationTemporality()
	case pmetric.MetricTypeHistogram:
		t = m.Histogram().AggregationTemporality()
	case pmetric.MetricTypeExponentialHistogram:
		t = m.ExponentialHistogram().AggregationTemporality()
	}
	return t == pmetric.AggregationTemporalityCumulative,
		t == pmetric.AggregationTemporalityCumulative || t == pmetric.AggregationTemporalityDelta
}

// Writer is what an item has besides that is to be aggregated: its ID and slot are those of the total.
type Writer struct {
	ID     streamid.ID
	Slot   *table.Slot
	Number int32        // of Slot
	Rule   int16        // zero is none, the first is 1
	Denied fold.Outcome // why there is no slot
	// Cumulative says what the points of the writer are.
	Cumulative bool
}

// identity is what is needed to identify the points of a metric.
type identity struct {
	metric     streamid.Metric
	rule       int16 // or -1
	left       streamid.Metric
	reduction  *streamid.Reduction
	cumulative bool
}

// left is what a rule leaves of the resource and the scope at hand.
type left struct {
	at       [3]int // number of the resource, the scope and the part of the batch, +1
	resource streamid.Resource
	scope    streamid.Scope
}

// part numbers the parts of a batch.
func part(copies bool) int {
	if copies {
		return 1
	}
	return 0
}

// reduce finds what is left of a metric.
func (b *Batch) reduce(who *identity, tenant streamid.Tenant, rm pmetric.ResourceMetrics, sm pmetric.ScopeMetrics, m pmetric.Metric, at [3]int) {
	a := b.aggregates
	if len(b.left) < len(a.Rules) {
		b.left = make([]left, len(a.Rules))
	}
	who.reduction = a.Rules[who.rule]
	who.cumulative, _ = temporality(m)
	l := &b.left[who.rule]
	for i := range at {
		at[i]++
	}
	if l.at != at {
		if l.at[0] != at[0] || l.at[2] != at[2] {
			l.resource = who.reduction.Resource(tenant, rm.Resource())
		}
		l.scope = who.reduction.Scope(l.resource, sm.Scope())
		l.at = at
	}
	who.left = who.reduction.Metric(l.scope, m)
}

func (b *Batch) identifiedWriter(it *Item, who *identity, attributes pcommon.Map) {
	b.writers = slices.Grow(b.writers, int(it.position)+1-len(b.writers))
	for len(b.writers) <= int(it.position) {
		b.writers = append(b.writers, Writer{})
	}
	w := &b.writers[it.position]
	it.ID, w.ID = who.reduction.Points(who.metric, who.left, attributes)
	w.Rule, w.Cumulative = who.rule+1, who.cumulative
}

// Writer returns what an item has besides that is to be aggregated, nil of another.
func (b *Batch) Writer(it *Item) *Writer {
	if int(it.position) >= len(b.writers) || b.writers[it.position].Rule == 0 {
		return nil
	}
	return &b.writers[it.position]
}

// Aggregated reports whether some metric of the batch is to be aggregated.
func (b *Batch) Aggregated() bool { return b.aggregates != nil }

// Held reports whether samples of a writer's total are given out by the clock.
func (b *Batch) Held(w *Writer) bool { return b.aggregates.Held[w.Rule-1] }

// MaxWriters returns how many writers the total of a writer may have, zero for any number.
func (b *Batch) MaxWriters(w *Writer) int { return b.aggregates.MaxWriters[w.Rule-1] }

// NumberValue returns the value of a sum's item.
func (it *Item) NumberValue() fold.Number { return fold.Number{Bits: it.Value, Double: it.Double} }

// copied returns the place of the latest copy in extra.
type copied struct {
	any      bool
	i, j     int // of its resource and scope in the batch
	resource pmetric.ResourceMetrics
	scope    pmetric.ScopeMetrics
}

// copy copies a metric that is to stay, for its total.
func (b *Batch) copy(rm pmetric.ResourceMetrics, sm pmetric.ScopeMetrics, m pmetric.Metric, i, j int) {
	c := &b.copied
	if !c.any {
		b.extra = pmetric.NewMetrics()
	}
	if !c.any || c.i != i {
		c.resource = b.extra.ResourceMetrics().AppendEmpty()
		c.resource.SetSchemaUrl(rm.SchemaUrl())
		rm.Resource().CopyTo(c.resource.Resource())
	}
	if !c.any || c.i != i || c.j != j {
		c.scope = c.resource.ScopeMetrics().AppendEmpty()
		c.scope.SetSchemaUrl(sm.SchemaUrl())
		sm.Scope().CopyTo(c.scope.Scope())
	}
	c.any, c.i, c.j = true, i, j
	m.CopyTo(c.scope.Metrics().AppendEmpty())
}

func (b *Batch) resetAggregates() {
	clear(b.writers)
	clear(b.left)
	b.writers, b.rules = b.writers[:0], b.rules[:0]
	b.aggregates, b.extra, b.copied = nil, pmetric.Metrics{}, copied{}
}

// strip takes from points of aggregates the attributes that do not stay.
func (b *Batch) strip() {
	for i, m := range b.metrics {
		if i >= len(b.rules) || b.rules[i] < 0 {
			continue
		}
		r := b.aggregates.Rules[b.rules[i]]
		if !r.StripsPoints() {
			continue
		}
		switch m.Type() {
		case pmetric.MetricTypeSum:
			for _, dp := range m.Sum().DataPoints().All() {
				r.StripPoint(dp.Attributes())
			}
		case pmetric.MetricTypeHistogram:
			for _, dp := range m.Histogram().DataPoints().All() {
				r.StripPoint(dp.Attributes())
			}
		case pmetric.MetricTypeExponentialHistogram:
			for _, dp := range m.ExponentialHistogram().DataPoints().All() {
				r.StripPoint(dp.Attributes())
			}
		}
	}
}

// regroup gives metrics of aggregates the resource and the scope that are left.
func (b *Batch) regroup(md pmetric.Metrics) {
	b.regroupPart(md, false)
	if b.copied.any {
		b.regroupPart(b.extra, true)
		b.extra.ResourceMetrics().MoveAndAppendTo(md.ResourceMetrics())
	}
}

func (b *Batch) regroupPart(md pmetric.Metrics, copies bool) {
	rms := md.ResourceMetrics()
	emptied := false
	for i, n := 0, rms.Len(); i < n; i++ {
		rm := rms.At(i)
		rule, all := b.ruleOf(rm, copies)
		switch {
		case rule < 0: // nothing of it is aggregated
		case all:
			r := b.aggregates.Rules[rule]
			r.StripResource(rm.Resource().Attributes())
			for _, sm := range rm.ScopeMetrics().All() {
				r.StripScope(sm.Scope().Attributes())
			}
		default:
			emptied = b.takeApart(rms, rm, copies) || emptied
		}
	}
	if emptied {
		rms.RemoveIf(func(rm pmetric.ResourceMetrics) bool {
			rm.ScopeMetrics().RemoveIf(func(sm pmetric.ScopeMetrics) bool { return sm.Metrics().Len() == 0 })
			return rm.ScopeMetrics().Len() == 0
		})
	}
}

// aggregated returns the rule by which a metric was aggregated, or -1.
func (b *Batch) aggregated(m pmetric.Metric, copies bool) int {
	if pointsOf(m) == 0 {
		return -1 // as it came
	}
	rule := b.aggregates.rule(m)
	if rule >= 0 && b.aggregates.KeepInput[rule] != copies {
		return -1
	}
	return rule
}

// ruleOf returns a rule by which some metric of a resource was aggregated, or -1, and whether all were by that one.
func (b *Batch) ruleOf(rm pmetric.ResourceMetrics, copies bool) (rule int, all bool) {
	rule, all = -1, true
	for _, sm := range rm.ScopeMetrics().All() {
		for _, m := range sm.Metrics().All() {
			r := b.aggregated(m, copies)
			if rule < 0 {
				rule = r
			}
			all = all && r >= 0 && r == rule
		}
	}
	return rule, all
}

// takeApart moves metrics of aggregates out of a resource that has others, to ones that have what is left of it. It reports whether that has left
// something empty.
func (b *Batch) takeApart(rms pmetric.ResourceMetricsSlice, rm pmetric.ResourceMetrics, copies bool) (emptied bool) {
	resources := map[int]pmetric.ResourceMetrics{}
	for _, sm := range rm.ScopeMetrics().All() {
		scopes := map[int]pmetric.ScopeMetrics{}
		before := sm.Metrics().Len()
		sm.Metrics().RemoveIf(func(m pmetric.Metric) bool {
			rule := b.aggregated(m, copies)
			if rule < 0 {
				return false
			}
			r := b.aggregates.Rules[rule]
			if !r.Strips(rm.Resource().Attributes(), sm.Scope().Attributes()) {
				return false
			}
			scope, known := scopes[rule]
			if !known {
				resource, known := resources[rule]
				if !known {
					resource = rms.AppendEmpty()
					resource.SetSchemaUrl(rm.SchemaUrl())
					rm.Resource().CopyTo(resource.Resource())
					r.StripResource(resource.Resource().Attributes())
					resources[rule] = resource
				}
				scope = resource.ScopeMetrics().AppendEmpty()
				scope.SetSchemaUrl(sm.SchemaUrl())
				sm.Scope().CopyTo(scope.Scope())
				r.StripScope(scope.Scope().Attributes())
				scopes[rule] = scope
			}
			m.MoveTo(scope.Metrics().AppendEmpty())
			return true
		})
		emptied = emptied || before > 0 && sm.Metrics().Len() == 0
	}
	return emptied
}

// reduced returns a source as it is when attributes are taken away, and so the attributes of a point.
func (w *Writer) reduced(a *Aggregates, src *table.Source, attributes pcommon.Map) (table.Source, pcommon.Map) {
	r := a.Rules[w.Rule-1]
	to := table.Source{Resource: pmetric.NewResourceMetrics(), Scope: pmetric.NewScopeMetrics(), Metric: src.Metric, Tenant: src.Tenant}
	to.Resource.SetSchemaUrl(src.Resource.SchemaUrl())
	src.Resource.Resource().CopyTo(to.Resource.Resource())
	r.StripResource(to.Resource.Resource().Attributes())
	to.Scope.SetSchemaUrl(src.Scope.SchemaUrl())
	src.Scope.Scope().CopyTo(to.Scope.Scope())
	r.StripScope(to.Scope.Scope().Attributes())
	stripped := pcommon.NewMap()
	attributes.CopyTo(stripped)
	r.StripPoint(stripped)
	return to, stripped
}
