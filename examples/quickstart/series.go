// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// label names a series for people.
type label struct {
	producer string // service.name/service.instance.id
	metric   string
	attrs    string // "payment=card", sorted
}

func (l label) series() string {
	if l.attrs == "" {
		return l.metric
	}
	return l.metric + "{" + l.attrs + "}"
}

type kind uint8

const (
	kindSum kind = iota
	kindHistogram
	kindExponential
	kindGauge
	kindSummary
)

// sample is one point of a series of any kind, in a form that can be compared and outlives the batch it came in.
type sample struct {
	kind      kind
	delta     bool // of delta temporality, that is, nobody converted it
	monotonic bool
	isInt     bool
	noValue   bool
	start, at pcommon.Timestamp

	integer int64   // of an int sum or gauge
	number  float64 // of a double one

	count    uint64 // of histograms, as is all that follows
	sum      float64
	min, max float64

	bounds  []float64
	buckets []uint64

	scale              int32
	zeros              uint64
	positive, negative map[int32]uint64 // populated buckets only
}

// typeName says what the series is.
func (s sample) typeName() string {
	number := "double"
	if s.isInt {
		number = "int"
	}
	name := ""
	switch {
	case s.kind == kindSum && s.monotonic:
		name = number + " counter"
	case s.kind == kindSum:
		name = number + " up-down"
	case s.kind == kindHistogram:
		name = fmt.Sprintf("histogram, %d buckets", len(s.buckets))
	case s.kind == kindExponential:
		name = fmt.Sprintf("exponential, scale %d", s.scale)
	case s.kind == kindGauge:
		name = number + " gauge"
	default:
		name = "summary"
	}
	if s.delta {
		name += ", DELTA"
	}
	return name
}

// shortTypeName is typeName without details.
func (s sample) shortTypeName() string {
	name := map[kind]string{kindHistogram: "histogram", kindExponential: "exponential", kindGauge: "gauge", kindSummary: "summary"}[s.kind]
	switch {
	case s.kind == kindSum && s.monotonic:
		name = "counter"
	case s.kind == kindSum:
		name = "up-down"
	}
	if s.delta {
		name += ", DELTA"
	}
	return name
}

// value says how much.
func (s sample) value() string {
	switch {
	case s.noValue:
		return "no recorded value"
	case s.kind == kindHistogram || s.kind == kindExponential || s.kind == kindSummary:
		return fmt.Sprintf("n %d sum %s", s.count, decimal(s.sum))
	case s.isInt:
		return fmt.Sprint(s.integer)
	default:
		return decimal(s.number)
	}
}

// amount is the number by which two samples of a series compare: a histogram's is its count.
func (s sample) amount() float64 {
	switch {
	case s.kind == kindHistogram || s.kind == kindExponential || s.kind == kindSummary:
		return float64(s.count)
	case s.isInt:
		return float64(s.integer)
	default:
		return s.number
	}
}

// brief is value without the sum of a histogram.
func (s sample) brief() string {
	if s.noValue {
		return s.value()
	}
	text := decimal(s.amount())
	if s.kind == kindHistogram || s.kind == kindExponential || s.kind == kindSummary {
		text = "n " + text
	}
	return text
}

func decimal(x float64) string {
	text := fmt.Sprintf("%.3f", x)
	return strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
}

// field is one thing in which two samples can differ.
type field struct {
	name  string
	value any
}

func (s sample) fields() []field {
	f := []field{
		{"type", s.typeName()},
		{"start", instant(s.start)},
		{"time", instant(s.at)},
		{"without a value", s.noValue},
	}
	switch s.kind {
	case kindSum, kindGauge:
		f = append(f, field{"int value", s.integer}, field{"double value", s.number})
	default:
		f = append(f, field{"count", s.count}, field{"sum", s.sum}, field{"min", s.min}, field{"max", s.max},
			field{"bounds", s.bounds}, field{"buckets", s.buckets}, field{"zero count", s.zeros},
			field{"positive buckets", s.positive}, field{"negative buckets", s.negative})
	}
	return f
}

// instant prints a timestamp so that two that differ by a nanosecond look different.
func instant(t pcommon.Timestamp) string { return t.AsTime().Format("15:04:05.000000000") }

// diff says how s departs from want, or "" if it does not, to the last bit and nanosecond.
func (s sample) diff(want sample) string {
	got, wanted := s.fields(), want.fields()
	if s.kind != want.kind {
		got, wanted = got[:1], wanted[:1]
	}
	var out []string
	for i := range wanted {
		if !reflect.DeepEqual(got[i].value, wanted[i].value) {
			out = append(out, fmt.Sprintf("%s is %v, want %v", got[i].name, got[i].value, wanted[i].value))
		}
	}
	return strings.Join(out, "; ")
}

// fellFrom says what of a monotonic series is less than it was before, or "".
func (s sample) fellFrom(before sample) string {
	if s.noValue || before.noValue || s.kind != before.kind {
		return ""
	}
	switch s.kind {
	case kindSum:
		if s.monotonic && (s.integer < before.integer || s.number < before.number) {
			return fmt.Sprintf("value fell from %s to %s", before.value(), s.value())
		}
	case kindHistogram, kindExponential:
		if s.count < before.count || s.zeros < before.zeros {
			return fmt.Sprintf("count fell from %d to %d", before.count, s.count)
		}
		for i := range min(len(s.buckets), len(before.buckets)) {
			if s.buckets[i] < before.buckets[i] {
				return fmt.Sprintf("bucket %d fell from %d to %d", i, before.buckets[i], s.buckets[i])
			}
		}
	}
	return ""
}

// covers is the time between start and the sample, or 0 if that means nothing.
func (s sample) covers() time.Duration {
	if s.start == 0 || s.start > s.at || s.kind == kindGauge {
		return 0
	}
	return time.Duration(s.at - s.start)
}

// eachSample calls visit for every point of md. The identity tells apart what OTLP tells apart: resource, scope,
// metric name and unit, and the point's attributes.
func eachSample(md pmetric.Metrics, visit func(identity string, l label, s sample)) {
	for _, rm := range md.ResourceMetrics().All() {
		producer := producerName(rm.Resource().Attributes())
		for _, sm := range rm.ScopeMetrics().All() {
			group := fmt.Sprintf("%#v %q %q", rm.Resource().Attributes().AsRaw(), sm.Scope().Name(), sm.Scope().Version())
			for _, m := range sm.Metrics().All() {
				metric := fmt.Sprintf("%s %q %q", group, m.Name(), m.Unit())
				emit := func(attrs pcommon.Map, s sample) {
					l := label{producer: producer, metric: printable(m.Name()), attrs: attributeText(attrs)}
					visit(fmt.Sprintf("%s %#v", metric, attrs.AsRaw()), l, s)
				}
				samplesOf(m, emit)
			}
		}
	}
}

func samplesOf(m pmetric.Metric, emit func(pcommon.Map, sample)) {
	switch m.Type() {
	case pmetric.MetricTypeSum:
		for _, dp := range m.Sum().DataPoints().All() {
			s := numberSample(dp, kindSum)
			s.delta = m.Sum().AggregationTemporality() == pmetric.AggregationTemporalityDelta
			s.monotonic = m.Sum().IsMonotonic()
			emit(dp.Attributes(), s)
		}
	case pmetric.MetricTypeGauge:
		for _, dp := range m.Gauge().DataPoints().All() {
			emit(dp.Attributes(), numberSample(dp, kindGauge))
		}
	case pmetric.MetricTypeHistogram:
		for _, dp := range m.Histogram().DataPoints().All() {
			emit(dp.Attributes(), sample{
				kind:  kindHistogram,
				delta: m.Histogram().AggregationTemporality() == pmetric.AggregationTemporalityDelta,
				start: dp.StartTimestamp(), at: dp.Timestamp(), noValue: dp.Flags().NoRecordedValue(),
				count: dp.Count(), sum: dp.Sum(), min: dp.Min(), max: dp.Max(),
				bounds: dp.ExplicitBounds().AsRaw(), buckets: dp.BucketCounts().AsRaw(),
			})
		}
	case pmetric.MetricTypeExponentialHistogram:
		for _, dp := range m.ExponentialHistogram().DataPoints().All() {
			emit(dp.Attributes(), sample{
				kind:  kindExponential,
				delta: m.ExponentialHistogram().AggregationTemporality() == pmetric.AggregationTemporalityDelta,
				start: dp.StartTimestamp(), at: dp.Timestamp(), noValue: dp.Flags().NoRecordedValue(),
				count: dp.Count(), sum: dp.Sum(), min: dp.Min(), max: dp.Max(),
				scale: dp.Scale(), zeros: dp.ZeroCount(),
				positive: populated(dp.Positive()), negative: populated(dp.Negative()),
			})
		}
	case pmetric.MetricTypeSummary:
		for _, dp := range m.Summary().DataPoints().All() {
			emit(dp.Attributes(), sample{
				kind: kindSummary, start: dp.StartTimestamp(), at: dp.Timestamp(), noValue: dp.Flags().NoRecordedValue(),
				count: dp.Count(), sum: dp.Sum(),
			})
		}
	}
}

func numberSample(dp pmetric.NumberDataPoint, k kind) sample {
	s := sample{kind: k, start: dp.StartTimestamp(), at: dp.Timestamp(), noValue: dp.Flags().NoRecordedValue()}
	if s.isInt = dp.ValueType() == pmetric.NumberDataPointValueTypeInt; s.isInt {
		s.integer = dp.IntValue()
	} else {
		s.number = dp.DoubleValue()
	}
	return s
}

func populated(b pmetric.ExponentialHistogramDataPointBuckets) map[int32]uint64 {
	out := map[int32]uint64{}
	for i, n := range b.BucketCounts().All() {
		if n > 0 {
			out[b.Offset()+int32(i)] = n
		}
	}
	return out
}

func producerName(resource pcommon.Map) string {
	return producerOf(func(key string) (string, bool) {
		v, ok := resource.Get(key)
		if !ok {
			return "", false
		}
		return v.AsString(), true
	})
}

// producerOf names a producer by the attributes of its resource that get returns.
func producerOf(get func(key string) (string, bool)) string {
	var parts []string
	for _, key := range []string{"service.name", "service.instance.id"} {
		if v, ok := get(key); ok {
			parts = append(parts, v)
		}
	}
	if parts == nil {
		return "(no service.name)"
	}
	return printable(strings.Join(parts, "/"))
}

// printable replaces what would move the cursor of a terminal: names are a stranger's.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

func attributeText(attrs pcommon.Map) string {
	var parts []string
	for k, v := range attrs.All() {
		parts = append(parts, k+"="+v.AsString())
	}
	slices.Sort(parts)
	return printable(strings.Join(parts, ","))
}
