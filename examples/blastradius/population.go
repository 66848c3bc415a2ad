// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/streamid"
)

// population is who may be moved: all streams, in groups that can only move together.
type population struct {
	Source  string // where it comes from, for people
	Streams int
	Points  int
	ByKey   []grouping

	index  map[streamid.ID]int
	groups [][]int // by stream, then by routing key: its group
	single onePoint
	key    uint64 // the one that record was called with last
}

// grouping is the population by one routing key.
type grouping struct {
	Key     routingKey
	Groups  []group
	Lacking int // points that lack the key, or part of it, and go by their resource

	splitter *streamid.Splitter
	index    map[uint64]int
	lacks    []bool // by stream
}

// group is the streams of one value of the routing key. They have one owner.
type group struct {
	Key     uint64
	Streams int
	Points  int
}

func newPopulation(source string, keys []routingKey) *population {
	p := &population{Source: source, index: make(map[streamid.ID]int), single: newOnePoint()}
	for _, k := range keys {
		p.ByKey = append(p.ByKey, grouping{
			Key:      k,
			splitter: &streamid.Splitter{Key: k.Key},
			index:    make(map[uint64]int),
		})
	}
	return p
}

// add counts the streams and points of a batch.
func (p *population) add(md pmetric.Metrics) {
	for _, rm := range md.ResourceMetrics().All() {
		rm.Resource().CopyTo(p.single.resource)
		resource := streamid.Seed(0).Resource(rm.Resource())
		for _, sm := range rm.ScopeMetrics().All() {
			sm.Scope().CopyTo(p.single.scope)
			scope := resource.Scope(sm.Scope())
			for _, m := range sm.Metrics().All() {
				id := scope.Metric(m)
				attributes := p.single.like(m)
				eachPoint(m, func(attrs pcommon.Map) {
					p.addPoint(id.Point(attrs), attrs, attributes)
				})
			}
		}
	}
}

// addPoint counts a point; attributes are those of p.single.
func (p *population) addPoint(id streamid.ID, attrs, attributes pcommon.Map) {
	stream, known := p.index[id]
	if !known {
		stream = len(p.groups)
		p.index[id] = stream
		attrs.CopyTo(attributes)
		groups := make([]int, len(p.ByKey))
		for i := range p.ByKey {
			groups[i] = p.ByKey[i].open(p)
		}
		p.groups = append(p.groups, groups)
		p.Streams++
	}
	p.Points++
	for i := range p.ByKey {
		g := &p.ByKey[i]
		g.Groups[p.groups[stream][i]].Points++
		if g.lacks[stream] {
			g.Lacking++
		}
	}
}

// open adds the stream of p.single to its group, and returns which that is.
func (g *grouping) open(p *population) int {
	// With one owner nothing is moved: the batch is handed through, and all that is left is the key.
	_, missing := g.splitter.Metrics(p.single.batch, 1, p.record, nil)
	g.lacks = append(g.lacks, missing > 0)
	i, known := g.index[p.key]
	if !known {
		i = len(g.Groups)
		g.index[p.key] = i
		g.Groups = append(g.Groups, group{Key: p.key})
	}
	g.Groups[i].Streams++
	return i
}

func (p *population) record(key uint64) int {
	p.key = key
	return 0
}

// onePoint is a batch of one point. A Splitter asks for the owner of whatever it can route as a whole, so only in a batch
// of one point it is certain whose key it asks for.
type onePoint struct {
	batch    pmetric.Metrics
	resource pcommon.Resource
	scope    pcommon.InstrumentationScope
	metric   pmetric.Metric
}

func newOnePoint() onePoint {
	batch := pmetric.NewMetrics()
	rm := batch.ResourceMetrics().AppendEmpty()
	sm := rm.ScopeMetrics().AppendEmpty()
	return onePoint{batch: batch, resource: rm.Resource(), scope: sm.Scope(), metric: sm.Metrics().AppendEmpty()}
}

// like gives the point's metric the identity of m, and returns the point's attributes. A metric without type has no
// points; then nobody asks for them.
func (o *onePoint) like(m pmetric.Metric) pcommon.Map {
	o.metric.SetName(m.Name())
	o.metric.SetUnit(m.Unit())
	switch m.Type() {
	case pmetric.MetricTypeGauge:
		return o.metric.SetEmptyGauge().DataPoints().AppendEmpty().Attributes()
	case pmetric.MetricTypeSum:
		sum := o.metric.SetEmptySum()
		sum.SetIsMonotonic(m.Sum().IsMonotonic())
		sum.SetAggregationTemporality(m.Sum().AggregationTemporality())
		return sum.DataPoints().AppendEmpty().Attributes()
	case pmetric.MetricTypeHistogram:
		histogram := o.metric.SetEmptyHistogram()
		histogram.SetAggregationTemporality(m.Histogram().AggregationTemporality())
		return histogram.DataPoints().AppendEmpty().Attributes()
	case pmetric.MetricTypeExponentialHistogram:
		histogram := o.metric.SetEmptyExponentialHistogram()
		histogram.SetAggregationTemporality(m.ExponentialHistogram().AggregationTemporality())
		return histogram.DataPoints().AppendEmpty().Attributes()
	case pmetric.MetricTypeSummary:
		return o.metric.SetEmptySummary().DataPoints().AppendEmpty().Attributes()
	}
	return pcommon.NewMap()
}

func eachPoint(m pmetric.Metric, do func(pcommon.Map)) {
	switch m.Type() {
	case pmetric.MetricTypeGauge:
		for _, p := range m.Gauge().DataPoints().All() {
			do(p.Attributes())
		}
	case pmetric.MetricTypeSum:
		for _, p := range m.Sum().DataPoints().All() {
			do(p.Attributes())
		}
	case pmetric.MetricTypeHistogram:
		for _, p := range m.Histogram().DataPoints().All() {
			do(p.Attributes())
		}
	case pmetric.MetricTypeExponentialHistogram:
		for _, p := range m.ExponentialHistogram().DataPoints().All() {
			do(p.Attributes())
		}
	case pmetric.MetricTypeSummary:
		for _, p := range m.Summary().DataPoints().All() {
			do(p.Attributes())
		}
	}
}
