// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !purego

package streamid

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// The exported methods of pdata allocate every resource, scope, metric, attribute value and list by itself, and a point
// anew when it moves from one list to another: five allocations per point in a split by stream. By the layout of the types
// behind pdata it is one per part and type.
//
// Nothing here is taken for granted. Once per process layout looks up by name where the types have their fields, for their
// order changes with the version of pdata, and what they hold. Each must have the fields that are named here and no others,
// since a field that is not known would not be copied. Otherwise, or with the build tag purego, batches are split with the
// exported methods, to the same effect.

// SplitsInPlace reports whether a [Splitter] can build the parts of a batch from pdata's memory, as it can with pdata v1.66
// to v1.71. With an incompatible pdata, or with the build tag purego, it makes the same parts with the exported methods of
// pdata, at several times the cost: five allocations per point instead of 0.08. A program that depends on the speed should
// check it in a test, so that an upgrade of pdata does not go unnoticed.
func SplitsInPlace() bool {
	_, err := layout()
	return err == nil
}

// field is where a struct of pdata has a field: the offset in the element that is allocated, even if the field is in a struct
// in that. T has the layout of what it holds, as far as compare can tell. There is no more to it, because a walk over a batch
// looks up several per point, and they should stay in the cache.
type field[T any] uintptr

func (f *field[T]) in(element unsafe.Pointer) *T { return (*T)(unsafe.Add(element, uintptr(*f))) }

// block is a struct of pdata. It begins the structs that have its fields, and those of the structs in it.
type block struct {
	offset uintptr
	size   uintptr
	slice  unsafe.Pointer // type of pointers to slices of such structs, as inside has it
}

func (b *block) in(element unsafe.Pointer) unsafe.Pointer { return unsafe.Add(element, b.offset) }

// list is a slice of pointers to resources, scopes, metrics, points, spans or log records.
type list = []unsafe.Pointer

// pairs is a slice of attributes, whose size only pairLayout knows.
type pairs struct {
	first    unsafe.Pointer
	len, cap int
}

// state is the pointer that says whether a batch is read-only.
type state unsafe.Pointer

// sliceLayout is pmetric.ResourceMetricsSlice, ptrace.ResourceSpansSlice or plog.ResourceLogsSlice.
type sliceLayout struct {
	block
	Orig  field[*list] `pdata:"orig"`
	State field[state] `pdata:"state"`
}

// resourceLayout is an element of these.
type resourceLayout struct {
	block
	Resource   resourceHeaderLayout
	Scopes     field[list] `pdata:"ScopeMetrics ScopeSpans ScopeLogs"`
	SchemaUrl  field[string]
	Deprecated field[list] `pdata:"DeprecatedScopeMetrics DeprecatedScopeSpans DeprecatedScopeLogs"`
}

// resourceHeaderLayout is pcommon.Resource, behind a pointer.
type resourceHeaderLayout struct {
	block
	Attributes             field[pairs]
	DroppedAttributesCount field[uint32]
	EntityRefs             field[list]
}

// scopeLayout is an element of pmetric.ScopeMetricsSlice, ptrace.ScopeSpansSlice or plog.ScopeLogsSlice.
type scopeLayout struct {
	block
	Scope     scopeHeaderLayout
	Items     field[list] `pdata:"Metrics Spans LogRecords"`
	SchemaUrl field[string]
}

type scopeHeaderLayout struct {
	block
	Name                   field[string]
	Version                field[string]
	Attributes             field[pairs]
	DroppedAttributesCount field[uint32]
}

// metricLayout is an element of pmetric.MetricSlice. Data is a pointer to a dataLayout of one of five types, or nil.
type metricLayout struct {
	block
	Name        field[string]
	Description field[string]
	Unit        field[string]
	Data        field[any]
	Metadata    field[pairs]
}

type dataLayout struct {
	block
	Points field[unsafe.Pointer] `pdata:"Gauge Sum Histogram ExponentialHistogram Summary"`
}

type pointsLayout struct {
	block
	DataPoints             field[list]
	AggregationTemporality field[int32] `of:"Sum Histogram ExponentialHistogram"`
	IsMonotonic            field[bool]  `of:"Sum"`
}

// pairLayout is an entry of pcommon.Map. Value is a pointer to a textLayout, or to any other type.
type pairLayout struct {
	block
	Key         field[string]
	Value       valueLayout
	KeyStrindex field[int32]
}

type valueLayout struct {
	block
	Value field[any]
}

type textLayout struct {
	block
	StringValue field[string]
}

// mapLayout is pcommon.Map.
type mapLayout struct {
	block
	Orig  field[*pairs] `pdata:"orig"`
	State field[state]  `pdata:"state"`
}

// behindLayout is a pcommon.Resource or a pmetric.Metric.
type behindLayout struct {
	block
	Orig  field[unsafe.Pointer] `pdata:"orig"`
	State field[state]          `pdata:"state"`
}

// anyLayout is an interface value without methods that holds a pointer.
type anyLayout struct {
	typ     unsafe.Pointer
	pointer unsafe.Pointer
}

func inside(v *any) *anyLayout { return (*anyLayout)(unsafe.Pointer(v)) }

// pdataLayout is the layout of pdata in this process. It is filled in once and not changed thereafter.
type pdataLayout struct {
	signals [SignalLogs + 1]signalLayout

	attributes mapLayout
	pair       pairLayout
	text       textLayout
	textType   unsafe.Pointer // of pointers to it, as inside has them

	header behindLayout
	metric metricLayout
	kinds  [5]kindLayout
}

type signalLayout struct {
	slice    sliceLayout
	resource resourceLayout
	scope    scopeLayout
}

// kindLayout is one of the types of a metric.
type kindLayout struct {
	typ            unsafe.Pointer // of what is in the metric, as inside has it
	data           dataLayout
	points         pointsLayout
	hasTemporality bool
	hasMonotonic   bool

	// copy is a struct of a metric, its data and its points. The metric comes first.
	copy             block
	dataAt, pointsAt uintptr
}

// layout returns the layout of the pdata in this process, or an error that tells how it differs from that of this file.
var layout = sync.OnceValues(readLayout)

func readLayout() (*pdataLayout, error) {
	return new(layoutReader).read()
}

func (r *layoutReader) read() (*pdataLayout, error) {
	l := new(pdataLayout)
	var metric behindLayout
	r.fit(&l.attributes, reflect.TypeFor[pcommon.Map]())
	r.fit(&l.header, reflect.TypeFor[pcommon.Resource]())
	r.fit(&metric, reflect.TypeFor[pmetric.Metric]())
	r.fit(&l.pair, r.elem(&l.attributes.Orig, 2))
	r.fit(&l.metric, r.elem(&metric.Orig, 1))
	for signal, slice := range [...]reflect.Type{
		SignalMetrics: reflect.TypeFor[pmetric.ResourceMetricsSlice](),
		SignalTraces:  reflect.TypeFor[ptrace.ResourceSpansSlice](),
		SignalLogs:    reflect.TypeFor[plog.ResourceLogsSlice](),
	} {
		if slice == nil {
			continue
		}
		s := &l.signals[signal]
		r.fit(&s.slice, slice)
		r.fit(&s.resource, r.elem(&s.slice.Orig, 3)) // from *[]*
		r.fit(&s.scope, r.elem(&s.resource.Scopes, 2))
		r.same(r.elem(&s.resource.Resource, 0), r.elem(&l.header.Orig, 1))
	}
	r.same(r.elem(&l.signals[SignalMetrics].scope.Items, 2), r.elem(&l.metric, 0))
	if r.err != nil {
		return nil, r.err
	}

	m := pmetric.NewMetric()
	for i, set := range []func(){
		func() { m.SetEmptyGauge() },
		func() { m.SetEmptySum() },
		func() { m.SetEmptyHistogram() },
		func() { m.SetEmptyExponentialHistogram() },
		func() { m.SetEmptySummary() },
	} {
		set()
		r.kind(&l.kinds[i], r.elem(&l.metric, 0), l.metric.Data.in(*metric.Orig.in(unsafe.Pointer(&m))))
		if r.err != nil {
			return nil, r.err
		}
	}
	attrs := pcommon.NewMap()
	attrs.PutStr("", "")
	text := l.pair.Value.Value.in((*l.attributes.Orig.in(unsafe.Pointer(&attrs))).first)
	r.pointer(&l.text, *text)
	l.textType = inside(text).typ
	return l, r.err
}

// layoutReader reads layouts, until one does not fit.
type layoutReader struct {
	err   error
	types map[any]reflect.Type // of what has been read, by the pointer to its layout
	pairs reflect.Type         // all pairs are of this type
	state reflect.Type         // and all states of this one
}

// elem returns what the type of a field points to, or what it is a slice of, or nil if that has not been read.
func (r *layoutReader) elem(layout any, depth int) reflect.Type {
	if r.err != nil {
		return nil
	}
	typ := r.types[layout]
	for range depth {
		typ = typ.Elem()
	}
	return typ
}

func (r *layoutReader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}

func (r *layoutReader) same(actual, known reflect.Type) {
	if actual != known {
		r.fail("%v is not %v", actual, known)
	}
}

// pointer fits a layout to what v points to.
func (r *layoutReader) pointer(layout blockReader, v any) {
	typ := reflect.TypeOf(v)
	if typ == nil || typ.Kind() != reflect.Pointer {
		r.fail("%v is not a pointer", typ)
		return
	}
	r.fit(layout, typ.Elem())
}

// kind reads the layout of what is in a metric.
func (r *layoutReader) kind(k *kindLayout, metric reflect.Type, v *any) {
	r.pointer(&k.data, *v)
	if r.err != nil {
		return
	}
	k.typ = inside(v).typ
	r.fit(&k.points, r.elem(&k.data.Points, 1))
	if r.err != nil {
		return
	}
	_, k.hasTemporality = r.types[&k.points.AggregationTemporality]
	_, k.hasMonotonic = r.types[&k.points.IsMonotonic]
	together := reflect.StructOf([]reflect.StructField{
		{Name: "Metric", Type: metric}, {Name: "Data", Type: r.elem(&k.data, 0)}, {Name: "Points", Type: r.elem(&k.points, 0)},
	})
	k.copy.place(together, 0)
	k.dataAt, k.pointsAt = together.Field(1).Offset, together.Field(2).Offset
}

// blockReader is what begins with a block, and fieldReader is a field.
type blockReader interface {
	place(actual reflect.Type, offset uintptr)
}

type fieldReader interface {
	find(r *layoutReader, actual reflect.Type, offset uintptr)
}

func (b *block) place(actual reflect.Type, offset uintptr) {
	slice := reflect.New(reflect.SliceOf(actual)).Interface()
	*b = block{offset: offset, size: actual.Size(), slice: inside(&slice).typ}
}

func (f *field[T]) find(r *layoutReader, actual reflect.Type, offset uintptr) {
	*f = field[T](offset)
	r.note(f, actual)
	r.compare(reflect.TypeFor[T](), actual)
}

func (r *layoutReader) note(layout any, actual reflect.Type) {
	if r.types == nil {
		r.types = map[any]reflect.Type{}
	}
	r.types[layout] = actual
}

// fit fills in the layout of a type of pdata.
func (r *layoutReader) fit(layout blockReader, actual reflect.Type) { r.fitAt(layout, actual, 0) }

func (r *layoutReader) fitAt(layout blockReader, actual reflect.Type, offset uintptr) {
	if r.err != nil {
		return
	}
	if actual == nil || actual.Kind() != reflect.Struct {
		r.fail("%v is not a struct", actual)
		return
	}
	r.note(layout, actual)
	layout.place(actual, offset)
	l := reflect.ValueOf(layout).Elem()
	known := 0
	for i := 1; i < l.NumField(); i++ { // after the block
		want := l.Type().Field(i)
		if of, ok := want.Tag.Lookup("of"); ok && !slices.Contains(strings.Fields(of), actual.Name()) {
			continue
		}
		names := strings.Fields(want.Tag.Get("pdata"))
		if len(names) == 0 {
			names = []string{want.Name}
		}
		var found []reflect.StructField
		for j := range actual.NumField() {
			if slices.Contains(names, actual.Field(j).Name) {
				found = append(found, actual.Field(j))
			}
		}
		if len(found) != 1 {
			r.fail("%v has %d fields %s", actual, len(found), names)
			return
		}
		known++
		at := offset + found[0].Offset
		switch to := l.Field(i).Addr().Interface().(type) {
		case fieldReader:
			to.find(r, found[0].Type, at)
		case blockReader:
			r.fitAt(to, found[0].Type, at)
		}
		if r.err != nil {
			r.err = fmt.Errorf("%v.%s: %w", actual, found[0].Name, r.err)
			return
		}
	}
	if known != actual.NumField() {
		r.fail("%v has %d fields, not %d", actual, actual.NumField(), known)
	}
}

// compare fails unless actual, a type of pdata, is laid out as mirror.
func (r *layoutReader) compare(mirror, actual reflect.Type) {
	switch {
	case mirror == reflect.TypeFor[pairs]():
		if actual.Kind() != reflect.Slice {
			r.fail("%v is not a slice", actual)
		}
		r.always(&r.pairs, actual)
	case mirror.Kind() == reflect.UnsafePointer:
		if actual.Kind() != reflect.Pointer {
			r.fail("%v is not a pointer", actual)
		}
		if mirror == reflect.TypeFor[state]() {
			r.always(&r.state, actual)
		}
	case mirror.Kind() != actual.Kind():
		r.fail("%v is not a %v", actual, mirror.Kind())
	case mirror.Kind() == reflect.Pointer, mirror.Kind() == reflect.Slice:
		r.compare(mirror.Elem(), actual.Elem())
	case mirror.Kind() == reflect.Interface && actual.NumMethod() != 0:
		r.fail("%v has methods", actual)
	}
}

func (r *layoutReader) always(known *reflect.Type, actual reflect.Type) {
	if *known == nil {
		*known = actual
	}
	r.same(actual, *known)
}

// copyMap and copyResource copy what is behind by pdata's own means. s is any state that allows changes.
func (l *pdataLayout) copyMap(s state, to, from *pairs) {
	l.mapOf(s, from).CopyTo(l.mapOf(s, to))
}

func (l *pdataLayout) mapOf(s state, attrs *pairs) (m pcommon.Map) {
	*l.attributes.Orig.in(unsafe.Pointer(&m)) = attrs
	*l.attributes.State.in(unsafe.Pointer(&m)) = s
	return m
}

func (l *pdataLayout) copyResource(s state, to, from unsafe.Pointer) {
	l.resourceOf(s, from).CopyTo(l.resourceOf(s, to))
}

func (l *pdataLayout) resourceOf(s state, header unsafe.Pointer) (r pcommon.Resource) {
	*l.header.Orig.in(unsafe.Pointer(&r)) = header
	*l.header.State.in(unsafe.Pointer(&r)) = s
	return r
}
