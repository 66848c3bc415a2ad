// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid

import (
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// Metrics splits md by the owner of each data point. See Splitter.
func (s *Splitter) Metrics(md pmetric.Metrics, n int, owner func(key uint64) int, dst []Part[pmetric.Metrics]) (parts []Part[pmetric.Metrics], missing int) {
	return s.MetricsOf(nil, md, n, owner, dst)
}

// MetricsOf is Metrics for a tenant with the keys of Seed.Tenant: with the routing keys "streamID" and "aggregate" each
// tenant's streams have their own owners. With other routing keys, the tenant makes no difference.
func (s *Splitter) MetricsOf(tenant []TenantKey, md pmetric.Metrics, n int, owner func(key uint64) int, dst []Part[pmetric.Metrics]) (parts []Part[pmetric.Metrics], missing int) {
	c := s.begin(SignalMetrics, n, owner)
	defer s.end(c)
	c.planMetrics(md, s.Seed.Tenant(tenant...))
	if c.single() {
		return append(dst, Part[pmetric.Metrics]{Owner: c.owners[0], Batch: md}), c.missing
	}
	mustBeMutable(md.IsReadOnly())
	parts = dst
	for _, o := range c.owners {
		parts = append(parts, Part[pmetric.Metrics]{Owner: o, Batch: pmetric.NewMetrics()})
	}
	if !c.transplant.begin(SignalMetrics) {
		moveMetrics(md, parts[len(dst):], &c.plan)
		return parts, c.missing
	}
	for _, p := range parts[len(dst):] {
		addPart(&c.transplant, p.Batch.ResourceMetrics())
	}
	moveAll(&c.transplant, md.ResourceMetrics(), &c.plan)
	return parts, c.missing
}

func (c *splitting) planMetrics(md pmetric.Metrics, tenant Tenant) {
	for _, rm := range md.ResourceMetrics().All() {
		if key, all := c.enterResource(rm.Resource()); all {
			c.add(theBatch, c.partFor(key))
			if c.lacking {
				c.missing += pointsIn(rm)
			}
			continue
		}
		resource := c.open()
		for _, sm := range rm.ScopeMetrics().All() {
			if key, all := c.enterScope(sm.Scope()); all {
				c.add(resource, c.partFor(key))
				continue
			}
			scope := c.open()
			for _, m := range sm.Metrics().All() {
				switch c.kind {
				case keyMetric:
					c.add(scope, c.partFor(c.metric(m)))
				case keyStreamID:
					id, reduction := c.stream(tenant, sm.Scope(), m)
					c.planMetric(scope, m, id, reduction)
				default:
					c.planMetric(scope, m, Metric{}, nil)
				}
			}
			c.close(resource, scope)
		}
		c.close(theBatch, resource)
	}
}

// planMetric goes by the points of a metric. id and reduction are what stream returns.
func (c *splitting) planMetric(scope int, m pmetric.Metric, id Metric, reduction *Reduction) {
	metric := c.open()
	switch m.Type() {
	case pmetric.MetricTypeGauge:
		planPoints(c, metric, id, reduction, m.Gauge().DataPoints())
	case pmetric.MetricTypeSum:
		planPoints(c, metric, id, reduction, m.Sum().DataPoints())
	case pmetric.MetricTypeHistogram:
		planPoints(c, metric, id, reduction, m.Histogram().DataPoints())
	case pmetric.MetricTypeExponentialHistogram:
		planPoints(c, metric, id, reduction, m.ExponentialHistogram().DataPoints())
	case pmetric.MetricTypeSummary:
		planPoints(c, metric, id, reduction, m.Summary().DataPoints())
	}
	c.close(scope, metric)
}

// point is any kind of data point, and pointSlice a slice of them.
type point[P any] interface {
	Attributes() pcommon.Map
	MoveTo(P)
}

type pointSlice[P any] interface {
	Len() int
	At(int) P
	AppendEmpty() P
}

// Owners come from a table that is not in the processor's caches when a batch comes. Points are looked up several at a time, so that it
// fetches from many places at once: one by one it waits for each, and that takes longer than the hash.
func planPoints[P point[P], S pointSlice[P]](c *splitting, metric int, id Metric, reduction *Reduction, points S) {
	var keys [16]uint64
	for i, n := 0, points.Len(); i < n; {
		some := keys[:min(len(keys), n-i)]
		for j := range some {
			attrs := points.At(i + j).Attributes()
			switch {
			case reduction != nil:
				some[j] = c.streamKey(reduction.Point(id, attrs))
			case c.kind == keyStreamID:
				some[j] = c.streamKey(id.Point(attrs))
			default:
				some[j] = c.point(attrs)
				if c.lacking {
					c.missing++
				}
			}
		}
		for _, key := range some {
			c.add(metric, c.partFor(key))
		}
		i += len(some)
	}
}

// moveMetrics moves what is in md to the parts, by the exported methods of pdata.
func moveMetrics(md pmetric.Metrics, parts []Part[pmetric.Metrics], p *plan) {
	dests := make([]metricsPart, len(parts))
	for i := range dests {
		dests[i] = metricsPart{resources: parts[i].Batch.ResourceMetrics()}
	}
	resourceAt, scopeAt, metricAt := 0, 0, 0
	p.rewind()
	for _, rm := range md.ResourceMetrics().All() {
		if part := p.next(); part != mixed {
			rm.MoveTo(dests[part].resources.AppendEmpty())
			continue
		}
		resourceAt++
		for _, sm := range rm.ScopeMetrics().All() {
			if part := p.next(); part != mixed {
				d := &dests[part]
				d.openResource(rm, resourceAt)
				sm.MoveTo(d.resource.ScopeMetrics().AppendEmpty())
				continue
			}
			scopeAt++
			for _, m := range sm.Metrics().All() {
				if part := p.next(); part != mixed {
					d := &dests[part]
					d.openResource(rm, resourceAt)
					d.openScope(sm, scopeAt)
					m.MoveTo(d.scope.Metrics().AppendEmpty())
					continue
				}
				metricAt++
				moveMetric(m, p, func(part int32) pmetric.Metric {
					d := &dests[part]
					d.openResource(rm, resourceAt)
					d.openScope(sm, scopeAt)
					d.openMetric(m, metricAt)
					return d.metric
				})
			}
		}
	}
	md.ResourceMetrics().RemoveIf(func(pmetric.ResourceMetrics) bool { return true })
}

// moveMetric moves the points of m to what open returns for the part of each.
func moveMetric(m pmetric.Metric, p *plan, open func(part int32) pmetric.Metric) {
	switch m.Type() {
	case pmetric.MetricTypeGauge:
		movePoints(m.Gauge().DataPoints(), p, func(part int32) pmetric.NumberDataPointSlice {
			return open(part).Gauge().DataPoints()
		})
	case pmetric.MetricTypeSum:
		movePoints(m.Sum().DataPoints(), p, func(part int32) pmetric.NumberDataPointSlice {
			return open(part).Sum().DataPoints()
		})
	case pmetric.MetricTypeHistogram:
		movePoints(m.Histogram().DataPoints(), p, func(part int32) pmetric.HistogramDataPointSlice {
			return open(part).Histogram().DataPoints()
		})
	case pmetric.MetricTypeExponentialHistogram:
		movePoints(m.ExponentialHistogram().DataPoints(), p, func(part int32) pmetric.ExponentialHistogramDataPointSlice {
			return open(part).ExponentialHistogram().DataPoints()
		})
	case pmetric.MetricTypeSummary:
		movePoints(m.Summary().DataPoints(), p, func(part int32) pmetric.SummaryDataPointSlice {
			return open(part).Summary().DataPoints()
		})
	}
}

func movePoints[P point[P], S pointSlice[P]](from S, p *plan, to func(part int32) S) {
	for i, part := range p.take(from.Len()) {
		from.At(i).MoveTo(to(part).AppendEmpty())
	}
}

// metricsPart is a part that is being built, with what is open in it and where the walk was then.
type metricsPart struct {
	resources pmetric.ResourceMetricsSlice
	resource  pmetric.ResourceMetrics
	scope     pmetric.ScopeMetrics
	metric    pmetric.Metric

	resourceAt, scopeAt, metricAt int
}

func (d *metricsPart) openResource(from pmetric.ResourceMetrics, at int) {
	if d.resourceAt == at {
		return
	}
	d.resourceAt, d.resource = at, d.resources.AppendEmpty()
	from.Resource().CopyTo(d.resource.Resource())
	d.resource.SetSchemaUrl(from.SchemaUrl())
}

func (d *metricsPart) openScope(from pmetric.ScopeMetrics, at int) {
	if d.scopeAt == at {
		return
	}
	d.scopeAt, d.scope = at, d.resource.ScopeMetrics().AppendEmpty()
	from.Scope().CopyTo(d.scope.Scope())
	d.scope.SetSchemaUrl(from.SchemaUrl())
}

func (d *metricsPart) openMetric(from pmetric.Metric, at int) {
	if d.metricAt == at {
		return
	}
	d.metricAt, d.metric = at, d.scope.Metrics().AppendEmpty()
	d.metric.SetName(from.Name())
	d.metric.SetDescription(from.Description())
	d.metric.SetUnit(from.Unit())
	from.Metadata().CopyTo(d.metric.Metadata())
	switch from.Type() {
	case pmetric.MetricTypeGauge:
		d.metric.SetEmptyGauge()
	case pmetric.MetricTypeSum:
		d.metric.SetEmptySum().SetIsMonotonic(from.Sum().IsMonotonic())
		d.metric.Sum().SetAggregationTemporality(from.Sum().AggregationTemporality())
	case pmetric.MetricTypeHistogram:
		d.metric.SetEmptyHistogram().SetAggregationTemporality(from.Histogram().AggregationTemporality())
	case pmetric.MetricTypeExponentialHistogram:
		d.metric.SetEmptyExponentialHistogram().SetAggregationTemporality(from.ExponentialHistogram().AggregationTemporality())
	case pmetric.MetricTypeSummary:
		d.metric.SetEmptySummary()
	}
}

// pointsIn counts all data points of a resource.
func pointsIn(rm pmetric.ResourceMetrics) (points int) {
	for _, sm := range rm.ScopeMetrics().All() {
		for _, m := range sm.Metrics().All() {
			switch m.Type() {
			case pmetric.MetricTypeGauge:
				points += m.Gauge().DataPoints().Len()
			case pmetric.MetricTypeSum:
				points += m.Sum().DataPoints().Len()
			case pmetric.MetricTypeHistogram:
				points += m.Histogram().DataPoints().Len()
			case pmetric.MetricTypeExponentialHistogram:
				points += m.ExponentialHistogram().DataPoints().Len()
			case pmetric.MetricTypeSummary:
				points += m.Summary().DataPoints().Len()
			}
		}
	}
	return points
}
