// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid_test

import (
	"encoding/hex"
	"math"
	"math/bits"
	"slices"
	"strconv"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/deltaring/deltaring/streamid"
)

// This file says what a split is to do, in the plainest way: which key everything has, which owner gets it, and that an
// owner's part is the batch without what others own.

// routed is what the routing key of a point, span or log record is made of. Its JSON form is that of the golden vectors.
type routed struct {
	Seed       uint64      `json:"seed,string"`
	Resource   []attribute `json:"resource,omitempty"`
	Scope      scope       `json:"scope"`
	Metric     *metric     `json:"metric,omitempty"`
	Attributes []attribute `json:"attributes,omitempty"`
	Fields     []attribute `json:"fields,omitempty"` // those that can be named like attributes
	TraceID    string      `json:"trace_id,omitempty"`
	Tenant     []attribute `json:"tenant,omitempty"`
}

// identity is that of the stream of a point.
func (r routed) identity() identity {
	return identity{r.Seed, r.Resource, r.Scope, *r.Metric, r.Attributes, r.Tenant}
}

// keySpec is a routing key as it is configured.
type keySpec struct {
	Name       string     `json:"routing_key"`
	Attributes []string   `json:"routing_attributes,omitempty"`
	Rules      []ruleSpec `json:"aggregate,omitempty"`
	Grouped    bool       `json:"grouped,omitempty"`
}

func (k keySpec) key() streamid.Key {
	if k.Grouped {
		k.Grouped = false
		return must(k.key().Grouped())
	}
	if k.Name == "aggregate" {
		return rulesOf(k.Rules).Key()
	}
	return must(streamid.ParseKey(k.Name, k.Attributes))
}

// reference computes a routing key as the package comment has it. It is lacking if the data has not all of the key.
func (k keySpec) reference(r routed) (key uint64, lacking bool) {
	byResource := refFold(identity{Seed: r.Seed, Resource: r.Resource}.reference().Resource)
	switch k.Name {
	case "streamID":
		return k.refStream(r.identity().reference().ID), false
	case "aggregate":
		if i := refFind(k.Rules, r.Metric.Name); i >= 0 {
			return k.refStream(k.Rules[i].reduce(r.identity()).ID), false
		}
		return k.refStream(r.identity().reference().ID), false
	case "metric":
		return refFold(h128([]byte(r.Metric.Name), r.Seed+13*refG())), false
	case "resource":
		return byResource, false
	case "traceID":
		id := must(hex.DecodeString(r.TraceID))
		if !slices.ContainsFunc(id, func(b byte) bool { return b != 0 }) {
			return byResource, true
		}
		return refFold(h128(id, r.Seed+14*refG())), false
	}
	names, places := k.Attributes, [][]attribute{r.Resource, r.Scope.Attributes, r.Fields, r.Attributes}
	if k.Name == "service" {
		names, places = []string{"service.name"}, [][]attribute{r.Resource}
	}
	var found []attribute
	for _, name := range names {
		if a, ok := refLookUp(name, places); ok {
			found = append(found, a)
		} else {
			lacking = true
		}
	}
	if len(found) == 0 {
		return byResource, lacking
	}
	return refFold(h128(refSum(found, r.Seed), r.Seed+15*refG())), lacking
}

func (k keySpec) refStream(id streamid.ID) uint64 {
	if k.Grouped {
		return id.Hi
	}
	return refFold(id)
}

// refLookUp returns the first attribute of that name in the first place that has it, unless that is empty.
func refLookUp(name string, places [][]attribute) (attribute, bool) {
	for _, place := range places {
		i := slices.IndexFunc(place, func(a attribute) bool { return a.Key == name })
		if i < 0 {
			continue
		}
		if v := place[i].Value; v.Type == "empty" || v.Type == "str" && len(v.bytes()) == 0 {
			continue
		}
		return place[i], true
	}
	return attribute{}, false
}

func refFold(id streamid.ID) uint64 { return id.Hi ^ bits.RotateLeft64(id.Lo, 32) }

// element is a batch, or anything in it. A leaf is a point, a span or a log record.
type element struct {
	leaf     bool
	owner    int // of everything in it, or one of these
	children []*element
}

const (
	nobody  = -1 // there is nothing in it to have an owner
	several = -2
)

// settle gives each element its owner.
func (e *element) settle() {
	e.merge()
	first := e.first()
	if first == nobody {
		return
	}
	e.spread(first)
}

// merge sets the owner of each element from those in it.
func (e *element) merge() {
	if e.leaf || len(e.children) == 0 {
		return // it came with an owner, or with nobody
	}
	if e.owner != nobody {
		return // it came with a key of its own
	}
	for _, child := range e.children {
		child.merge()
		switch {
		case child.owner == nobody || child.owner == e.owner:
		case e.owner == nobody:
			e.owner = child.owner
		default:
			e.owner = several
		}
	}
}

// first returns the owner of the first point.
func (e *element) first() int {
	if e.owner != several {
		return e.owner
	}
	for _, child := range e.children {
		if owner := child.first(); owner != nobody {
			return owner
		}
	}
	return nobody
}

// spread gives what has no owner to first.
func (e *element) spread(first int) {
	if e.owner == nobody {
		e.owner = first
	}
	if e.owner == several {
		for _, child := range e.children {
			child.spread(first)
		}
	}
}

// owners returns all owners in e, in order of appearance.
func (e *element) owners() []int {
	if e.owner != several {
		return []int{e.owner}
	}
	var all []int
	for _, child := range e.children {
		for _, o := range child.owners() {
			if !slices.Contains(all, o) {
				all = append(all, o)
			}
		}
	}
	return all
}

// has is true if e or a part of it belongs to owner.
func (e *element) has(owner int) bool { return slices.Contains(e.owners(), owner) }

// only returns a function that is true for each child in turn that is not to stay in the part of owner, having called
// inside for those of which a part is to stay.
func only[C any](e *element, owner int, inside func(child *element, c C)) func(C) bool {
	i := 0
	return func(c C) bool {
		child := e.children[i]
		i++
		if child.owner == several && child.has(owner) {
			inside(child, c)
			return false
		}
		return child.owner != owner
	}
}

// modelOf makes elements with owners.
type modelOf struct {
	spec    keySpec
	seed    uint64
	owner   func(uint64) int
	missing int
}

// leafAt is a leaf, for which r has everything.
func (m *modelOf) leafAt(r routed) *element {
	key, lacking := m.spec.reference(r)
	if lacking {
		m.missing++
	}
	return &element{leaf: true, owner: m.owner(key)}
}

// groupAt is a resource, scope or metric, for which r has as much as there is outside of the points.
func (m *modelOf) groupAt(level string, r routed) *element {
	ownKey := false
	switch m.spec.Name {
	case "resource", "service":
		ownKey = level == "resource"
	case "metric":
		ownKey = level == "metric"
	case "attributes":
		r.Attributes, r.Fields = nil, nil
		if level == "resource" {
			r.Scope = scope{}
		}
		_, lacking := m.spec.reference(r)
		ownKey = !lacking
	}
	if !ownKey {
		return &element{owner: nobody}
	}
	key, _ := m.spec.reference(r)
	return &element{owner: m.owner(key)}
}

func (m *modelOf) metrics(md pmetric.Metrics) *element {
	batch := &element{owner: nobody}
	for _, rm := range md.ResourceMetrics().All() {
		r := routed{Seed: m.seed, Resource: attributesOf(rm.Resource().Attributes())}
		resource := m.groupAt("resource", r)
		batch.children = append(batch.children, resource)
		for _, sm := range rm.ScopeMetrics().All() {
			r.Scope = scope{sm.Scope().Name(), sm.Scope().Version(), attributesOf(sm.Scope().Attributes())}
			inScope := m.groupAt("scope", r)
			resource.children = append(resource.children, inScope)
			for _, pm := range sm.Metrics().All() {
				described := metricOf(pm)
				r.Metric = &described
				inMetric := m.groupAt("metric", r)
				inScope.children = append(inScope.children, inMetric)
				for _, attrs := range pointAttributes(pm) {
					r.Attributes = attributesOf(attrs)
					inMetric.children = append(inMetric.children, m.leafAt(r))
				}
			}
		}
	}
	batch.settle()
	return batch
}

func (m *modelOf) traces(td ptrace.Traces) *element {
	batch := &element{owner: nobody}
	for _, rs := range td.ResourceSpans().All() {
		r := routed{Seed: m.seed, Resource: attributesOf(rs.Resource().Attributes())}
		resource := m.groupAt("resource", r)
		batch.children = append(batch.children, resource)
		for _, ss := range rs.ScopeSpans().All() {
			r.Scope = scope{ss.Scope().Name(), ss.Scope().Version(), attributesOf(ss.Scope().Attributes())}
			inScope := m.groupAt("scope", r)
			resource.children = append(resource.children, inScope)
			for _, span := range ss.Spans().All() {
				id := span.TraceID()
				r.TraceID = hex.EncodeToString(id[:])
				r.Fields = []attribute{attr("span.name", str(span.Name())), attr("span.kind", str(span.Kind().String()))}
				r.Attributes = withoutFields(attributesOf(span.Attributes()), r.Fields)
				inScope.children = append(inScope.children, m.leafAt(r))
			}
		}
	}
	batch.settle()
	return batch
}

func (m *modelOf) logs(ld plog.Logs) *element {
	batch := &element{owner: nobody}
	for _, rl := range ld.ResourceLogs().All() {
		r := routed{Seed: m.seed, Resource: attributesOf(rl.Resource().Attributes())}
		resource := m.groupAt("resource", r)
		batch.children = append(batch.children, resource)
		for _, sl := range rl.ScopeLogs().All() {
			r.Scope = scope{sl.Scope().Name(), sl.Scope().Version(), attributesOf(sl.Scope().Attributes())}
			inScope := m.groupAt("scope", r)
			resource.children = append(resource.children, inScope)
			for _, record := range sl.LogRecords().All() {
				id := record.TraceID()
				r.TraceID = hex.EncodeToString(id[:])
				r.Fields = []attribute{attr("log.severity", str(record.SeverityText())), attr("log.body", valueOf(record.Body()))}
				r.Attributes = withoutFields(attributesOf(record.Attributes()), r.Fields)
				inScope.children = append(inScope.children, m.leafAt(r))
			}
		}
	}
	batch.settle()
	return batch
}

// withoutFields drops what is hidden by a field: an empty field is still the one that is meant.
func withoutFields(as, fields []attribute) []attribute {
	return slices.DeleteFunc(as, func(a attribute) bool {
		return slices.ContainsFunc(fields, func(f attribute) bool { return f.Key == a.Key })
	})
}

// onlyMetrics returns a copy of md without what belongs to others than owner.
func onlyMetrics(md pmetric.Metrics, batch *element, owner int) pmetric.Metrics {
	part := pmetric.NewMetrics()
	md.CopyTo(part)
	if batch.owner != several {
		return part
	}
	part.ResourceMetrics().RemoveIf(only(batch, owner, func(resource *element, rm pmetric.ResourceMetrics) {
		rm.ScopeMetrics().RemoveIf(only(resource, owner, func(scope *element, sm pmetric.ScopeMetrics) {
			sm.Metrics().RemoveIf(only(scope, owner, func(metric *element, m pmetric.Metric) {
				switch m.Type() {
				case pmetric.MetricTypeGauge:
					m.Gauge().DataPoints().RemoveIf(only[pmetric.NumberDataPoint](metric, owner, nil))
				case pmetric.MetricTypeSum:
					m.Sum().DataPoints().RemoveIf(only[pmetric.NumberDataPoint](metric, owner, nil))
				case pmetric.MetricTypeHistogram:
					m.Histogram().DataPoints().RemoveIf(only[pmetric.HistogramDataPoint](metric, owner, nil))
				case pmetric.MetricTypeExponentialHistogram:
					m.ExponentialHistogram().DataPoints().RemoveIf(only[pmetric.ExponentialHistogramDataPoint](metric, owner, nil))
				case pmetric.MetricTypeSummary:
					m.Summary().DataPoints().RemoveIf(only[pmetric.SummaryDataPoint](metric, owner, nil))
				}
			}))
		}))
	}))
	return part
}

func onlyTraces(td ptrace.Traces, batch *element, owner int) ptrace.Traces {
	part := ptrace.NewTraces()
	td.CopyTo(part)
	if batch.owner != several {
		return part
	}
	part.ResourceSpans().RemoveIf(only(batch, owner, func(resource *element, rs ptrace.ResourceSpans) {
		rs.ScopeSpans().RemoveIf(only(resource, owner, func(scope *element, ss ptrace.ScopeSpans) {
			ss.Spans().RemoveIf(only[ptrace.Span](scope, owner, nil))
		}))
	}))
	return part
}

func onlyLogs(ld plog.Logs, batch *element, owner int) plog.Logs {
	part := plog.NewLogs()
	ld.CopyTo(part)
	if batch.owner != several {
		return part
	}
	part.ResourceLogs().RemoveIf(only(batch, owner, func(resource *element, rl plog.ResourceLogs) {
		rl.ScopeLogs().RemoveIf(only(resource, owner, func(scope *element, sl plog.ScopeLogs) {
			sl.LogRecords().RemoveIf(only[plog.LogRecord](scope, owner, nil))
		}))
	}))
	return part
}

// attributesOf is the inverse of fillMap.
func attributesOf(m pcommon.Map) []attribute {
	var as []attribute
	for k, v := range m.All() {
		as = append(as, attr(k, valueOf(v)))
	}
	return as
}

func valueOf(v pcommon.Value) value {
	switch v.Type() {
	case pcommon.ValueTypeStr:
		return value{Type: "str", Hex: hex.EncodeToString([]byte(v.Str()))}
	case pcommon.ValueTypeBool:
		return boolean(v.Bool())
	case pcommon.ValueTypeInt:
		return value{Type: "int", Text: strconv.FormatInt(v.Int(), 10)}
	case pcommon.ValueTypeDouble:
		return doubleBits(math.Float64bits(v.Double()))
	case pcommon.ValueTypeMap:
		return kvlist(attributesOf(v.Map())...)
	case pcommon.ValueTypeSlice:
		var elements []value
		for _, e := range v.Slice().All() {
			elements = append(elements, valueOf(e))
		}
		return array(elements...)
	case pcommon.ValueTypeBytes:
		return blob(string(v.Bytes().AsRaw()))
	}
	return empty()
}

func metricOf(m pmetric.Metric) metric {
	of := metric{Name: m.Name(), Unit: m.Unit(), Type: "none", Temporality: "unspecified"}
	temporality := func(t pmetric.AggregationTemporality) string {
		if int(t) >= 0 && int(t) <= 2 {
			return temporalities[t]
		}
		return "unknown"
	}
	switch m.Type() {
	case pmetric.MetricTypeGauge:
		of.Type = "gauge"
	case pmetric.MetricTypeSum:
		of.Type, of.Monotonic = "sum", m.Sum().IsMonotonic()
		of.Temporality = temporality(m.Sum().AggregationTemporality())
	case pmetric.MetricTypeHistogram:
		of.Type, of.Temporality = "histogram", temporality(m.Histogram().AggregationTemporality())
	case pmetric.MetricTypeExponentialHistogram:
		of.Type, of.Temporality = "exponential_histogram", temporality(m.ExponentialHistogram().AggregationTemporality())
	case pmetric.MetricTypeSummary:
		of.Type = "summary"
	}
	return of
}

// pointAttributes returns the attributes of each point of m.
func pointAttributes(m pmetric.Metric) (all []pcommon.Map) {
	switch m.Type() {
	case pmetric.MetricTypeGauge:
		for _, p := range m.Gauge().DataPoints().All() {
			all = append(all, p.Attributes())
		}
	case pmetric.MetricTypeSum:
		for _, p := range m.Sum().DataPoints().All() {
			all = append(all, p.Attributes())
		}
	case pmetric.MetricTypeHistogram:
		for _, p := range m.Histogram().DataPoints().All() {
			all = append(all, p.Attributes())
		}
	case pmetric.MetricTypeExponentialHistogram:
		for _, p := range m.ExponentialHistogram().DataPoints().All() {
			all = append(all, p.Attributes())
		}
	case pmetric.MetricTypeSummary:
		for _, p := range m.Summary().DataPoints().All() {
			all = append(all, p.Attributes())
		}
	}
	return all
}
