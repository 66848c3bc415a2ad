// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid_test

import (
	"math/rand/v2"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// The batches in this file have little of everything, often the same, and often nothing.

// usualNames are attributes that routing keys in tests refer to.
var usualNames = []string{"service.name", "host", "tenant", "span.name", "log.body"}

// usualRules leave the metrics alone that have no name.
var usualRules = []ruleSpec{
	{Metrics: []string{"req*"}, reductionSpec: reductionSpec{Resource: drop("host"), Scope: keep(), Point: drop("tenant", "host")}},
	{Metrics: []string{"nothing", "?*"}, reductionSpec: reductionSpec{Resource: keep("service.name"), Point: keep("tenant")}},
}

// keySpecs are keys for every signal.
func keySpecs(signal string) []keySpec {
	specs := []keySpec{
		{Name: "resource"}, {Name: "service"},
		{Name: "attributes", Attributes: []string{"tenant"}},
		{Name: "attributes", Attributes: []string{"host", "service.name", "tenant"}},
		{Name: "attributes", Attributes: []string{"span.name", "log.body", "span.kind", "log.severity"}},
	}
	if signal == "metrics" {
		return append(specs, keySpec{Name: "streamID"}, keySpec{Name: "streamID"}, keySpec{Name: "metric"},
			keySpec{Name: "aggregate", Rules: usualRules}, keySpec{Name: "aggregate", Rules: usualRules}, keySpec{Name: "aggregate"},
			keySpec{Name: "streamID", Grouped: true}, keySpec{Name: "aggregate", Rules: usualRules, Grouped: true})
	}
	return append(specs, keySpec{Name: "traceID"}, keySpec{Name: "traceID"})
}

func randomMetrics(r *rand.Rand) pmetric.Metrics {
	md := pmetric.NewMetrics()
	serial := int64(0) // makes every point another
	for range r.IntN(4) {
		rm := md.ResourceMetrics().AppendEmpty()
		rm.SetSchemaUrl(randomSchema(r))
		randomResource(r, rm.Resource())
		for range r.IntN(4) {
			sm := rm.ScopeMetrics().AppendEmpty()
			sm.SetSchemaUrl(randomSchema(r))
			randomInstrumentationScope(r, sm.Scope())
			for range r.IntN(4) {
				randomMetric(r, sm.Metrics().AppendEmpty(), &serial)
			}
		}
	}
	return md
}

func randomMetric(r *rand.Rand, m pmetric.Metric, serial *int64) {
	m.SetName([]string{"", "requests", "latency"}[r.IntN(3)])
	m.SetUnit([]string{"", "s"}[r.IntN(2)])
	m.SetDescription([]string{"", "described"}[r.IntN(2)])
	randomMap(r, m.Metadata())
	points := r.IntN(6)
	temporality := pmetric.AggregationTemporality(r.IntN(4))
	stamp := func(p interface {
		Attributes() pcommon.Map
		SetTimestamp(pcommon.Timestamp)
		SetFlags(pmetric.DataPointFlags)
	}) {
		*serial++
		p.SetTimestamp(pcommon.Timestamp(*serial))
		p.SetFlags(pmetric.DataPointFlags(r.IntN(2)))
		randomMap(r, p.Attributes())
	}
	switch r.IntN(6) {
	case 1:
		for ps := m.SetEmptyGauge().DataPoints(); ps.Len() < points; {
			p := ps.AppendEmpty()
			stamp(p)
			p.SetDoubleValue(r.Float64())
		}
	case 2:
		m.SetEmptySum().SetIsMonotonic(r.IntN(2) == 0)
		m.Sum().SetAggregationTemporality(temporality)
		for ps := m.Sum().DataPoints(); ps.Len() < points; {
			p := ps.AppendEmpty()
			stamp(p)
			p.SetIntValue(r.Int64())
			randomMap(r, p.Exemplars().AppendEmpty().FilteredAttributes())
		}
	case 3:
		m.SetEmptyHistogram().SetAggregationTemporality(temporality)
		for ps := m.Histogram().DataPoints(); ps.Len() < points; {
			p := ps.AppendEmpty()
			stamp(p)
			p.BucketCounts().FromRaw([]uint64{1, 2})
			p.ExplicitBounds().FromRaw([]float64{0.5})
			p.SetMax(r.Float64())
		}
	case 4:
		m.SetEmptyExponentialHistogram().SetAggregationTemporality(temporality)
		for ps := m.ExponentialHistogram().DataPoints(); ps.Len() < points; {
			p := ps.AppendEmpty()
			stamp(p)
			p.Positive().BucketCounts().FromRaw([]uint64{3})
		}
	case 5:
		for ps := m.SetEmptySummary().DataPoints(); ps.Len() < points; {
			p := ps.AppendEmpty()
			stamp(p)
			p.QuantileValues().AppendEmpty().SetQuantile(r.Float64())
		}
	}
}

func randomTraces(r *rand.Rand) ptrace.Traces {
	td := ptrace.NewTraces()
	serial := 0
	for range r.IntN(4) {
		rs := td.ResourceSpans().AppendEmpty()
		rs.SetSchemaUrl(randomSchema(r))
		randomResource(r, rs.Resource())
		for range r.IntN(4) {
			ss := rs.ScopeSpans().AppendEmpty()
			ss.SetSchemaUrl(randomSchema(r))
			randomInstrumentationScope(r, ss.Scope())
			for range r.IntN(6) {
				serial++
				span := ss.Spans().AppendEmpty()
				span.SetStartTimestamp(pcommon.Timestamp(serial))
				span.SetTraceID(pcommon.TraceID{0: byte(r.IntN(3)), 15: byte(r.IntN(2))})
				span.SetName([]string{"", "GET", "POST"}[r.IntN(3)])
				span.SetKind(ptrace.SpanKind(r.IntN(8)))
				randomMap(r, span.Attributes())
				randomMap(r, span.Events().AppendEmpty().Attributes())
				randomMap(r, span.Links().AppendEmpty().Attributes())
			}
		}
	}
	return td
}

func randomLogs(r *rand.Rand) plog.Logs {
	ld := plog.NewLogs()
	serial := 0
	for range r.IntN(4) {
		rl := ld.ResourceLogs().AppendEmpty()
		rl.SetSchemaUrl(randomSchema(r))
		randomResource(r, rl.Resource())
		for range r.IntN(4) {
			sl := rl.ScopeLogs().AppendEmpty()
			sl.SetSchemaUrl(randomSchema(r))
			randomInstrumentationScope(r, sl.Scope())
			for range r.IntN(6) {
				serial++
				record := sl.LogRecords().AppendEmpty()
				record.SetTimestamp(pcommon.Timestamp(serial))
				record.SetTraceID(pcommon.TraceID{0: byte(r.IntN(3)), 15: byte(r.IntN(2))})
				record.SetSeverityText([]string{"", "INFO", "ERROR"}[r.IntN(3)])
				fillValue(record.Body(), randomValue(r, 1))
				randomMap(r, record.Attributes())
			}
		}
	}
	return ld
}

func randomResource(r *rand.Rand, res pcommon.Resource) {
	randomMap(r, res.Attributes())
	res.SetDroppedAttributesCount(uint32(r.IntN(2)))
}

func randomInstrumentationScope(r *rand.Rand, scope pcommon.InstrumentationScope) {
	scope.SetName([]string{"", "library"}[r.IntN(2)])
	scope.SetVersion([]string{"", "1.0"}[r.IntN(2)])
	scope.SetDroppedAttributesCount(uint32(r.IntN(2)))
	randomMap(r, scope.Attributes())
}

func randomMap(r *rand.Rand, m pcommon.Map) {
	for range r.IntN(3) {
		v, _ := m.GetOrPutEmpty(usualNames[r.IntN(len(usualNames))])
		if r.IntN(3) == 0 {
			fillValue(v, randomValue(r, 1))
		} else {
			v.SetStr([]string{"", "a", "b"}[r.IntN(3)])
		}
	}
}

func randomSchema(r *rand.Rand) string {
	return []string{"", "https://opentelemetry.io/schemas/1.38.0"}[r.IntN(2)]
}
