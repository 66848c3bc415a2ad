// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid_test

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/streamid"
)

// identity is everything that identifies a stream, as plain data; its JSON form is that of the golden vectors.
type identity struct {
	Seed       uint64      `json:"seed,string"`
	Resource   []attribute `json:"resource,omitempty"`
	Scope      scope       `json:"scope"`
	Metric     metric      `json:"metric"`
	Attributes []attribute `json:"attributes,omitempty"`
	Tenant     []attribute `json:"tenant,omitempty"` // slices of strings
}

type scope struct {
	Name       string      `json:"name"`
	Version    string      `json:"version"`
	Attributes []attribute `json:"attributes,omitempty"`
}

type metric struct {
	Name        string `json:"name"`
	Unit        string `json:"unit"`
	Type        string `json:"type"` // one of metricTypes
	Monotonic   bool   `json:"monotonic"`
	Temporality string `json:"temporality"` // one of temporalities
}

type attribute struct {
	Key   string `json:"key"`
	Value value  `json:"value"`
}

// value is an attribute value. Text is the text of a str; the decimal number of an int; the IEEE 754 bits of a double, in
// hexadecimal; true or false. Hex are the bytes of a bytes, or of a str that is not UTF-8. Times is how many times over.
type value struct {
	Type  string      `json:"type"` // str bool int double map slice bytes empty
	Text  string      `json:"text,omitempty"`
	Hex   string      `json:"hex,omitempty"`
	Times int         `json:"times,omitempty"`
	Map   []attribute `json:"map,omitempty"`
	Slice []value     `json:"slice,omitempty"`
}

var (
	metricTypes   = []string{"none", "gauge", "sum", "histogram", "exponential_histogram", "summary"}
	temporalities = []string{"unspecified", "delta", "cumulative", "unknown"}
)

func empty() value                     { return value{Type: "empty"} }
func str(s string) value               { return value{Type: "str", Text: s} }
func blob(b string) value              { return value{Type: "bytes", Hex: hex.EncodeToString([]byte(b))} }
func boolean(b bool) value             { return value{Type: "bool", Text: strconv.FormatBool(b)} }
func integer(i int64) value            { return value{Type: "int", Text: strconv.FormatInt(i, 10)} }
func double(f float64) value           { return doubleBits(math.Float64bits(f)) }
func doubleBits(bits uint64) value     { return value{Type: "double", Text: fmt.Sprintf("%016x", bits)} }
func kvlist(as ...attribute) value     { return value{Type: "map", Map: as} }
func array(vs ...value) value          { return value{Type: "slice", Slice: vs} }
func attr(k string, v value) attribute { return attribute{Key: k, Value: v} }

func (v value) bytes() []byte {
	content := []byte(v.Text)
	if v.Hex != "" {
		content = must(hex.DecodeString(v.Hex))
	}
	return slices.Repeat(content, max(1, v.Times))
}

func (v value) bool() bool   { return must(strconv.ParseBool(v.Text)) }
func (v value) int() int64   { return must(strconv.ParseInt(v.Text, 10, 64)) }
func (v value) bits() uint64 { return must(strconv.ParseUint(v.Text, 16, 64)) }

// canonical returns equal strings for exactly those identities that are the same stream under the same seed.
func (id identity) canonical() string {
	monotonic, temporality := false, ""
	switch id.Metric.Type {
	case "sum":
		monotonic, temporality = id.Metric.Monotonic, id.Metric.Temporality
	case "histogram", "exponential_histogram":
		temporality = id.Metric.Temporality
	}
	return fmt.Sprintf("%d %s %s %q %q %s %q %q %s %v %s %s", id.Seed, canonicalAttributes(id.tenant()), canonicalAttributes(id.Resource),
		id.Scope.Name, id.Scope.Version, canonicalAttributes(id.Scope.Attributes),
		id.Metric.Name, id.Metric.Unit, id.Metric.Type, monotonic, temporality, canonicalAttributes(id.Attributes))
}

// tenant returns what of Tenant counts: what has a value.
func (id identity) tenant() []attribute {
	return slices.DeleteFunc(slices.Clone(id.Tenant), func(a attribute) bool { return len(a.Value.Slice) == 0 })
}

// tenantKeys returns all of Tenant as callers have it.
func (id identity) tenantKeys() []streamid.TenantKey {
	var keys []streamid.TenantKey
	for _, a := range id.Tenant {
		k := streamid.TenantKey{Name: a.Key}
		for _, v := range a.Value.Slice {
			k.Values = append(k.Values, string(v.bytes()))
		}
		keys = append(keys, k)
	}
	return keys
}

func canonicalAttributes(as []attribute) string {
	pairs := make([]string, len(as))
	for i, a := range as {
		pairs[i] = fmt.Sprintf("%q:%s", a.Key, a.Value.canonical())
	}
	slices.Sort(pairs)
	return "{" + strings.Join(pairs, ",") + "}"
}

func (v value) canonical() string {
	switch v.Type {
	case "str", "bytes":
		return fmt.Sprintf("%s %q", v.Type, v.bytes())
	case "double":
		if math.IsNaN(math.Float64frombits(v.bits())) {
			return "double NaN"
		}
		return fmt.Sprintf("double %x", v.bits())
	case "map":
		return "map " + canonicalAttributes(v.Map)
	case "slice":
		elements := make([]string, len(v.Slice))
		for i, e := range v.Slice {
			elements[i] = e.canonical()
		}
		return "slice [" + strings.Join(elements, ",") + "]"
	}
	return v.Type + " " + v.Text
}

// shuffled returns the same stream with the attributes at every depth in another order.
func (id identity) shuffled(r *rand.Rand) identity {
	id.Resource = shuffled(r, id.Resource)
	id.Scope.Attributes = shuffled(r, id.Scope.Attributes)
	id.Attributes = shuffled(r, id.Attributes)
	id.Tenant = shuffled(r, id.Tenant)
	return id
}

func shuffled(r *rand.Rand, as []attribute) []attribute {
	out := make([]attribute, len(as))
	for i, from := range r.Perm(len(as)) {
		out[i] = attr(as[from].Key, shuffledValue(r, as[from].Value))
	}
	return out
}

func shuffledValue(r *rand.Rand, v value) value {
	v.Map = shuffled(r, v.Map)
	elements := make([]value, len(v.Slice))
	for i, e := range v.Slice {
		elements[i] = shuffledValue(r, e)
	}
	v.Slice = elements
	return v
}

// stream is an identity as pdata.
type stream struct {
	resource   pcommon.Resource
	scope      pcommon.InstrumentationScope
	metric     pmetric.Metric
	attributes pcommon.Map
	tenant     []streamid.TenantKey
}

// batch is the batch form.
func (s stream) batch(seed uint64) streamid.ID {
	return streamid.Seed(seed).Tenant(s.tenant...).Resource(s.resource).Scope(s.scope).Metric(s.metric).Point(s.attributes)
}

// pdata builds id with attributes decoded from the wire, as a receiver does; only so can a key occur twice.
func (id identity) pdata(t testing.TB) stream {
	return id.build(func(as []attribute, dst pcommon.Map) { decode(t, as).MoveTo(dst) })
}

// pdataByAPI builds id with the setters of pdata, as an application does. It is false if a key occurs twice.
func (id identity) pdataByAPI() (stream, bool) {
	unique := true
	s := id.build(func(as []attribute, dst pcommon.Map) { unique = fillMap(dst, as) && unique })
	return s, unique
}

func (id identity) build(fill func([]attribute, pcommon.Map)) stream {
	s := stream{pcommon.NewResource(), pcommon.NewInstrumentationScope(), pmetric.NewMetric(), pcommon.NewMap(), id.tenantKeys()}
	fill(id.Resource, s.resource.Attributes())
	s.scope.SetName(id.Scope.Name)
	s.scope.SetVersion(id.Scope.Version)
	fill(id.Scope.Attributes, s.scope.Attributes())
	s.metric.SetName(id.Metric.Name)
	s.metric.SetUnit(id.Metric.Unit)
	temporality := map[string]pmetric.AggregationTemporality{
		"unspecified": pmetric.AggregationTemporalityUnspecified,
		"delta":       pmetric.AggregationTemporalityDelta,
		"cumulative":  pmetric.AggregationTemporalityCumulative,
		"unknown":     99,
	}[id.Metric.Temporality]
	switch id.Metric.Type {
	case "gauge":
		s.metric.SetEmptyGauge()
	case "sum":
		s.metric.SetEmptySum().SetIsMonotonic(id.Metric.Monotonic)
		s.metric.Sum().SetAggregationTemporality(temporality)
	case "histogram":
		s.metric.SetEmptyHistogram().SetAggregationTemporality(temporality)
	case "exponential_histogram":
		s.metric.SetEmptyExponentialHistogram().SetAggregationTemporality(temporality)
	case "summary":
		s.metric.SetEmptySummary()
	}
	fill(id.Attributes, s.attributes)
	return s
}

// fillMap is false if a key occurs twice.
func fillMap(dst pcommon.Map, as []attribute) bool {
	unique := true
	for _, a := range as {
		v, exists := dst.GetOrPutEmpty(a.Key)
		unique = !exists && fillValue(v, a.Value) && unique
	}
	return unique
}

func fillValue(dst pcommon.Value, v value) bool {
	unique := true
	switch v.Type {
	case "str":
		dst.SetStr(string(v.bytes()))
	case "bool":
		dst.SetBool(v.bool())
	case "int":
		dst.SetInt(v.int())
	case "double":
		dst.SetDouble(math.Float64frombits(v.bits()))
	case "map":
		return fillMap(dst.SetEmptyMap(), v.Map)
	case "slice":
		s := dst.SetEmptySlice()
		for _, e := range v.Slice {
			unique = fillValue(s.AppendEmpty(), e) && unique
		}
	case "bytes":
		dst.SetEmptyBytes().FromRaw(v.bytes())
	}
	return unique
}

// decode makes a map of the OTLP protobuf encoding of as.
func decode(t testing.TB, as []attribute) pcommon.Map {
	t.Helper()
	// MetricsData.resource_metrics, ResourceMetrics.resource
	wire := appendField(nil, 1, appendField(nil, 1, appendAttributes(nil, as)))
	md, err := new(pmetric.ProtoUnmarshaler).UnmarshalMetrics(wire)
	if err != nil {
		t.Fatalf("decoding attributes: %v", err)
	}
	return md.ResourceMetrics().At(0).Resource().Attributes()
}

// appendAttributes writes field 1 of Resource and of KeyValueList: repeated KeyValue.
func appendAttributes(dst []byte, as []attribute) []byte {
	for _, a := range as {
		pair := appendField(nil, 1, []byte(a.Key))
		pair = appendField(pair, 2, appendAnyValue(nil, a.Value))
		dst = appendField(dst, 1, pair)
	}
	return dst
}

// appendAnyValue writes the fields of AnyValue.
func appendAnyValue(dst []byte, v value) []byte {
	switch v.Type {
	case "str":
		return appendField(dst, 1, v.bytes())
	case "bool":
		bit := byte(0)
		if v.bool() {
			bit = 1
		}
		return append(dst, 2<<3, bit)
	case "int":
		return binary.AppendUvarint(append(dst, 3<<3), uint64(v.int()))
	case "double":
		return binary.LittleEndian.AppendUint64(append(dst, 4<<3|1), v.bits())
	case "slice":
		var elements []byte
		for _, e := range v.Slice {
			elements = appendField(elements, 1, appendAnyValue(nil, e))
		}
		return appendField(dst, 5, elements)
	case "map":
		return appendField(dst, 6, appendAttributes(nil, v.Map))
	case "bytes":
		return appendField(dst, 7, v.bytes())
	}
	return dst
}

// appendField writes a length-delimited field.
func appendField(dst []byte, number byte, content []byte) []byte {
	dst = binary.AppendUvarint(append(dst, number<<3|2), uint64(len(content)))
	return append(dst, content...)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
