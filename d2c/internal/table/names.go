// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package table

import (
	"encoding/binary"
	"math"
	"sync"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/streamid"
)

// A table that names its streams can make points of them without a delta at hand. What the streams of a metric have in common
// (its Family) is kept once; of a stream there are the values of its attributes, in a block without pointers, and where that is.

// Family is what streams of one metric have in common.
type Family struct {
	// Metrics has one resource, one scope and one metric without points.
	Metrics pmetric.Metrics
	// Tenant is whose the streams are, nil if nobody's in particular.
	Tenant []streamid.TenantKey
	// Keys are those of the attributes of points, in their order.
	Keys []string
	// Monotonic is set for sums that must not fall.
	Monotonic bool
	// Owner is equal for families of equal tenants.
	Owner string

	text  string // what makes it another than others
	users int
	bytes int64
}

// Families keeps each family once, with the number of streams that use it. It is locked after a shard, never before one.
type Families struct {
	mu     sync.Mutex
	all    []*Family
	free   []uint32
	byText map[string]uint32
	bytes  int64
}

// familyOverhead is the estimated cost of a family beside its texts: what pdata takes, and the entries in all and byText.
const familyOverhead = 1024

// intern returns the number of a family, with one more user.
func (f *Families) intern(text []byte, make func() *Family) uint32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n, ok := f.byText[string(text)]; ok {
		f.all[n].users++
		return n
	}
	family := make()
	family.text, family.users = string(text), 1
	family.bytes = familyOverhead + 3*int64(len(text)) // the text, and as much again in Metrics and Keys
	f.bytes += family.bytes
	var n uint32
	if last := len(f.free) - 1; last >= 0 {
		n, f.free = f.free[last], f.free[:last]
		f.all[n] = family
	} else {
		n = uint32(len(f.all))
		f.all = append(f.all, family)
	}
	if f.byText == nil {
		f.byText = map[string]uint32{}
	}
	f.byText[family.text] = n
	return n
}

// release counts one user less; without users a family is forgotten.
func (f *Families) release(n uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	family := f.all[n]
	if family.users--; family.users > 0 {
		return
	}
	f.bytes -= family.bytes
	delete(f.byText, family.text)
	f.all[n] = nil
	f.free = append(f.free, n)
}

func (f *Families) at(n uint32) *Family {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.all[n]
}

func (f *Families) memory() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.bytes
}

// name says who a stream is: the number of its family, +1, or zero if that is not known, and the block with its values.
type name struct{ family, class, place uint32 }

func (n *name) ref() blockRef { return blockRef(n.class)<<32 | blockRef(n.place) }

// Naming is what is needed to name the streams of one batch. Its memory is used again.
type Naming struct {
	text   []byte
	values []byte
}

// Source is where a point is from.
type Source struct {
	Resource pmetric.ResourceMetrics
	Scope    pmetric.ScopeMetrics
	Metric   pmetric.Metric
	Tenant   []streamid.TenantKey
}

// Name is who a stream is, outside of a shard: it counts as a user of the family.
type Name struct {
	family uint32 // +1
	values []byte
}

// NameStreams has the table keep names.
func (t *Table) NameStreams() {
	families := new(Families)
	for i := range t.Shards {
		t.Shards[i].families = families
	}
	t.families = families
}

// Name makes the name of a stream with a point from src.
func (t *Table) Name(w *Naming, src *Source, attributes pcommon.Map) Name {
	w.text = w.text[:0]
	for _, k := range src.Tenant {
		w.text = appendText(w.text, k.Name)
		w.text = binary.AppendUvarint(w.text, uint64(len(k.Values)))
		for _, v := range k.Values {
			w.text = appendText(w.text, v)
		}
	}
	owner := len(w.text)
	w.text = append(w.text, 0xff)
	w.text = appendText(w.text, src.Resource.SchemaUrl())
	w.text = appendMap(w.text, src.Resource.Resource().Attributes())
	w.text = appendText(w.text, src.Scope.SchemaUrl())
	w.text = appendText(w.text, src.Scope.Scope().Name())
	w.text = appendText(w.text, src.Scope.Scope().Version())
	w.text = appendMap(w.text, src.Scope.Scope().Attributes())
	w.text = appendText(w.text, src.Metric.Name())
	w.text = appendText(w.text, src.Metric.Unit())
	w.text = appendText(w.text, src.Metric.Description())
	w.text = append(w.text, byte(src.Metric.Type()))
	if src.Metric.Type() == pmetric.MetricTypeSum && src.Metric.Sum().IsMonotonic() {
		w.text = append(w.text, 1)
	}
	w.values = w.values[:0]
	for k, v := range attributes.All() {
		w.text = appendText(w.text, k)
		w.values = appendValue(w.values, v)
	}
	n := t.families.intern(w.text, func() *Family {
		f := newFamily(src, attributes)
		f.Owner = string(w.text[:owner])
		return f
	})
	return Name{n + 1, append([]byte(nil), w.values...)}
}

func newFamily(src *Source, attributes pcommon.Map) *Family {
	f := &Family{Metrics: pmetric.NewMetrics()}
	for _, k := range src.Tenant {
		f.Tenant = append(f.Tenant, streamid.TenantKey{Name: k.Name, Values: append([]string(nil), k.Values...)})
	}
	rm := f.Metrics.ResourceMetrics().AppendEmpty()
	rm.SetSchemaUrl(src.Resource.SchemaUrl())
	src.Resource.Resource().CopyTo(rm.Resource())
	sm := rm.ScopeMetrics().AppendEmpty()
	sm.SetSchemaUrl(src.Scope.SchemaUrl())
	src.Scope.Scope().CopyTo(sm.Scope())
	m := sm.Metrics().AppendEmpty()
	m.SetName(src.Metric.Name())
	m.SetUnit(src.Metric.Unit())
	m.SetDescription(src.Metric.Description())
	const cumulative = pmetric.AggregationTemporalityCumulative
	switch src.Metric.Type() {
	case pmetric.MetricTypeSum:
		m.SetEmptySum().SetAggregationTemporality(cumulative)
		f.Monotonic = src.Metric.Sum().IsMonotonic()
		m.Sum().SetIsMonotonic(f.Monotonic)
	case pmetric.MetricTypeHistogram:
		m.SetEmptyHistogram().SetAggregationTemporality(cumulative)
	case pmetric.MetricTypeExponentialHistogram:
		m.SetEmptyExponentialHistogram().SetAggregationTemporality(cumulative)
	}
	for k := range attributes.All() {
		f.Keys = append(f.Keys, k)
	}
	return f
}

// Drop gives a name back that no shard has got.
func (t *Table) Drop(n Name) { t.families.release(n.family - 1) }

// Names reports whether the shard keeps names.
func (sh *Shard) Names() bool { return sh.families != nil }

func (sh *Shard) nameAt(i int) *name {
	chunk, at, _ := chunkOf(i)
	return &sh.names[chunk][at]
}

// Named reports whether the name of the stream with a number is known.
func (sh *Shard) Named(number int) bool { return sh.nameAt(number).family != 0 }

// SetName names the stream with a number, and takes over the name.
func (sh *Shard) SetName(number int, n Name) {
	sh.Unname(number)
	words := (len(n.values) + 3) / 4
	ref := sh.blocks.alloc(words + 1)
	w := sh.blocks.block(ref)
	w[0] = uint32(len(n.values))
	for i := range words {
		var b [4]byte
		copy(b[:], n.values[4*i:])
		w[1+i] = binary.LittleEndian.Uint32(b[:])
	}
	*sh.nameAt(number) = name{n.family, uint32(ref >> 32), uint32(ref)}
}

// Unname forgets who the stream with a number is.
func (sh *Shard) Unname(number int) {
	if n := sh.nameAt(number); n.family != 0 {
		sh.blocks.release(n.ref())
		sh.families.release(n.family - 1)
		*n = name{}
	}
}

// NameOf returns the family of the stream with a number, and appends its values, if its name is known.
func (sh *Shard) NameOf(number int, values []byte) (*Family, []byte) {
	n := sh.nameAt(number)
	if n.family == 0 {
		return nil, values
	}
	w := sh.blocks.block(n.ref())
	for i, from := 0, len(values); len(values) < from+int(w[0]); i++ {
		values = binary.LittleEndian.AppendUint32(values, w[1+i])
		values = values[:min(len(values), from+int(w[0]))]
	}
	return sh.families.at(n.family - 1), values
}

// Attributes puts the attributes of a stream into m, and returns what follows its values.
func (f *Family) Attributes(values []byte, m pcommon.Map) (rest []byte) {
	m.EnsureCapacity(len(f.Keys))
	for _, k := range f.Keys {
		values = readValue(values, m.PutEmpty(k))
	}
	return values
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func readText(b []byte) (s string, rest []byte) {
	n, size := binary.Uvarint(b)
	return string(b[size : size+int(n)]), b[size+int(n):]
}

func appendMap(b []byte, m pcommon.Map) []byte {
	b = binary.AppendUvarint(b, uint64(m.Len()))
	for k, v := range m.All() {
		b = appendText(b, k)
		b = appendValue(b, v)
	}
	return b
}

// A value begins with its type; that of a string, which most are, is one of few with its length.
func appendValue(b []byte, v pcommon.Value) []byte {
	const short = 256 - 32
	if v.Type() == pcommon.ValueTypeStr {
		if s := v.Str(); len(s) < short {
			return append(append(b, byte(32+len(s))), s...)
		}
	}
	b = append(b, byte(v.Type()))
	switch v.Type() {
	case pcommon.ValueTypeStr:
		b = appendText(b, v.Str())
	case pcommon.ValueTypeBool:
		if v.Bool() {
			return append(b, 1)
		}
		return append(b, 0)
	case pcommon.ValueTypeInt:
		b = binary.AppendVarint(b, v.Int())
	case pcommon.ValueTypeDouble:
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v.Double()))
	case pcommon.ValueTypeBytes:
		b = appendText(b, string(v.Bytes().AsRaw()))
	case pcommon.ValueTypeMap:
		b = appendMap(b, v.Map())
	case pcommon.ValueTypeSlice:
		b = binary.AppendUvarint(b, uint64(v.Slice().Len()))
		for _, e := range v.Slice().All() {
			b = appendValue(b, e)
		}
	}
	return b
}

func readValue(b []byte, v pcommon.Value) (rest []byte) {
	kind := b[0]
	b = b[1:]
	if kind >= 32 {
		n := int(kind - 32)
		v.SetStr(string(b[:n]))
		return b[n:]
	}
	switch pcommon.ValueType(kind) {
	case pcommon.ValueTypeStr:
		s, rest := readText(b)
		v.SetStr(s)
		return rest
	case pcommon.ValueTypeBool:
		v.SetBool(b[0] == 1)
		return b[1:]
	case pcommon.ValueTypeInt:
		i, size := binary.Varint(b)
		v.SetInt(i)
		return b[size:]
	case pcommon.ValueTypeDouble:
		v.SetDouble(math.Float64frombits(binary.LittleEndian.Uint64(b)))
		return b[8:]
	case pcommon.ValueTypeBytes:
		s, rest := readText(b)
		v.SetEmptyBytes().FromRaw([]byte(s))
		return rest
	case pcommon.ValueTypeMap:
		n, size := binary.Uvarint(b)
		b = b[size:]
		m := v.SetEmptyMap()
		for range n {
			var k string
			k, b = readText(b)
			b = readValue(b, m.PutEmpty(k))
		}
	case pcommon.ValueTypeSlice:
		n, size := binary.Uvarint(b)
		b = b[size:]
		s := v.SetEmptySlice()
		for range n {
			b = readValue(b, s.AppendEmpty())
		}
	}
	return b
}
