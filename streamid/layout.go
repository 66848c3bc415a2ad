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

// The types in this file have the layout of those behind pdata. The exported methods of pdata allocate every resource,
// scope, metric, attribute value and list by itself, and a point anew when it moves from one list to another: five
// allocations per point in a split by stream. With these types it is one per part and type.
//
// Nothing here is taken for granted: layout compares the types to the real ones, once per process, and unless all is
// as it was in pdata v1.66, or with the build tag purego, batches are split with the exported methods, to the same effect.

// list is a slice of pointers to resources, scopes, metrics, points, spans or log records.
type list = []unsafe.Pointer

// sliceLayout is pmetric.ResourceMetricsSlice, ptrace.ResourceSpansSlice and plog.ResourceLogsSlice. orig are
// *resourceLayout.
type sliceLayout struct {
	orig  *list
	state unsafe.Pointer
}

// resourceLayout is an element of these. Scopes are *scopeLayout.
type resourceLayout struct {
	Resource   resourceHeaderLayout
	Scopes     list `pdata:"ScopeMetrics ScopeSpans ScopeLogs"`
	SchemaUrl  string
	Deprecated list `pdata:"DeprecatedScopeMetrics DeprecatedScopeSpans DeprecatedScopeLogs"`
}

// resourceHeaderLayout is pcommon.Resource, behind a pointer.
type resourceHeaderLayout struct {
	Attributes             []pairLayout
	DroppedAttributesCount uint32
	EntityRefs             list
}

// scopeLayout is an element of pmetric.ScopeMetricsSlice, ptrace.ScopeSpansSlice and plog.ScopeLogsSlice.
type scopeLayout struct {
	Scope     scopeHeaderLayout
	Items     list `pdata:"Metrics Spans LogRecords"`
	SchemaUrl string
}

type scopeHeaderLayout struct {
	Name                   string
	Version                string
	Attributes             []pairLayout
	DroppedAttributesCount uint32
}

// metricLayout is an element of pmetric.MetricSlice. Data is a *dataLayout by the name of one of five types, or nil.
type metricLayout struct {
	Name        string
	Description string
	Unit        string
	Data        any
	Metadata    []pairLayout
}

type dataLayout = dataOf[sumLayout]

type dataOf[T any] struct {
	Points *T `pdata:"Gauge Sum Histogram ExponentialHistogram Summary"`
}

// sumLayout is a sum. The others are like it, as far as they go.
type sumLayout struct {
	DataPoints             list
	AggregationTemporality int32
	IsMonotonic            bool
}

// histogramLayout is a histogram or an exponential histogram.
type histogramLayout struct {
	DataPoints             list
	AggregationTemporality int32
}

// gaugeLayout is a gauge or a summary.
type gaugeLayout struct {
	DataPoints list
}

func pointsOf(m *metricLayout) *sumLayout { return (*dataLayout)(inside(&m.Data).pointer).Points }

// pairLayout is an entry of pcommon.Map. Value is a *stringLayout by the name of its type, or any other.
type pairLayout struct {
	Key   string
	Value struct {
		Value any
	}
	KeyStrindex int32
}

type stringLayout struct {
	StringValue string
}

// behind is a pcommon.Resource, a pcommon.Map or a pmetric.Metric.
type behind[T any] struct {
	orig  *T
	state unsafe.Pointer
}

// anyLayout is an interface value without methods that holds a pointer.
type anyLayout struct {
	typ     unsafe.Pointer
	pointer unsafe.Pointer
}

func inside(v *any) *anyLayout { return (*anyLayout)(unsafe.Pointer(v)) }

// pdataTypes tells what the interfaces of pdata hold. Pointers are those of inside.
type pdataTypes struct {
	text       unsafe.Pointer    // string values
	sum        unsafe.Pointer    // data of a metric
	histograms [2]unsafe.Pointer // data of a metric, explicit and exponential
}

// layout returns the types of the pdata in this process, or an error that tells how it differs from that of this file.
var layout = sync.OnceValues(readLayout)

func readLayout() (types pdataTypes, err error) {
	for _, batch := range []reflect.Type{
		reflect.TypeFor[pmetric.ResourceMetricsSlice](),
		reflect.TypeFor[ptrace.ResourceSpansSlice](),
		reflect.TypeFor[plog.ResourceLogsSlice](),
	} {
		if err := compareBatch(batch); err != nil {
			return types, err
		}
	}
	for _, err := range []error{
		compare(reflect.TypeFor[behind[resourceHeaderLayout]](), reflect.TypeFor[pcommon.Resource]()),
		compare(reflect.TypeFor[behind[[]pairLayout]](), reflect.TypeFor[pcommon.Map]()),
		compare(reflect.TypeFor[behind[metricLayout]](), reflect.TypeFor[pmetric.Metric]()),
	} {
		if err != nil {
			return types, err
		}
	}

	attrs := pcommon.NewMap()
	attrs.PutStr("", "")
	value := &(**(**[]pairLayout)(unsafe.Pointer(&attrs)))[0].Value.Value
	if types.text, err = typeIn(value, reflect.TypeFor[*stringLayout]()); err != nil {
		return types, err
	}
	metric := pmetric.NewMetric()
	data := &(*(**metricLayout)(unsafe.Pointer(&metric))).Data
	var gauge, summary unsafe.Pointer // no different from one another
	for _, m := range []struct {
		set    func()
		mirror reflect.Type
		typ    *unsafe.Pointer
	}{
		{func() { metric.SetEmptyGauge() }, reflect.TypeFor[*dataOf[gaugeLayout]](), &gauge},
		{func() { metric.SetEmptySummary() }, reflect.TypeFor[*dataOf[gaugeLayout]](), &summary},
		{func() { metric.SetEmptySum() }, reflect.TypeFor[*dataOf[sumLayout]](), &types.sum},
		{func() { metric.SetEmptyHistogram() }, reflect.TypeFor[*dataOf[histogramLayout]](), &types.histograms[0]},
		{func() { metric.SetEmptyExponentialHistogram() }, reflect.TypeFor[*dataOf[histogramLayout]](), &types.histograms[1]},
	} {
		m.set()
		if *m.typ, err = typeIn(data, m.mirror); err != nil {
			return types, err
		}
	}
	return types, nil
}

// compareBatch compares a slice of resources, and what is in them down to the items.
func compareBatch(slice reflect.Type) error {
	if err := compare(reflect.TypeFor[sliceLayout](), slice); err != nil {
		return err
	}
	resource := slice.Field(0).Type.Elem().Elem().Elem() // from *[]*
	if err := compare(reflect.TypeFor[resourceLayout](), resource); err != nil {
		return err
	}
	scope := resource.Field(1).Type.Elem().Elem()
	return compare(reflect.TypeFor[scopeLayout](), scope)
}

// typeIn compares what v holds and returns its type as inside does.
func typeIn(v *any, mirror reflect.Type) (unsafe.Pointer, error) {
	if err := compare(mirror, reflect.TypeOf(*v)); err != nil {
		return nil, err
	}
	return inside(v).typ, nil
}

// compare returns an error unless actual, a type of pdata, has the same fields as mirror: as many, of the same names and of
// the same kinds all the way down, in the same order. Then they are in the same places.
func compare(mirror, actual reflect.Type) error {
	if actual == nil {
		return fmt.Errorf("nothing is not a %v", mirror.Kind())
	}
	if mirror.Kind() == reflect.UnsafePointer && actual.Kind() == reflect.Pointer {
		return nil
	}
	if mirror.Kind() != actual.Kind() {
		return fmt.Errorf("%v is not a %v", actual, mirror.Kind())
	}
	switch mirror.Kind() {
	case reflect.Pointer, reflect.Slice:
		return compare(mirror.Elem(), actual.Elem())
	case reflect.Interface:
		if actual.NumMethod() != 0 {
			return fmt.Errorf("%v has methods", actual)
		}
	case reflect.Struct:
		if mirror.NumField() != actual.NumField() {
			return fmt.Errorf("%v has %d fields, not %d", actual, actual.NumField(), mirror.NumField())
		}
		for i := range mirror.NumField() {
			m, r := mirror.Field(i), actual.Field(i)
			names := strings.Fields(m.Tag.Get("pdata"))
			if len(names) == 0 {
				names = []string{m.Name}
			}
			if !slices.Contains(names, r.Name) {
				return fmt.Errorf("%v has %s, not %s", actual, r.Name, names)
			}
			if err := compare(m.Type, r.Type); err != nil {
				return fmt.Errorf("%v: %w", actual, err)
			}
		}
	}
	return nil
}

// copyMap and copyResource copy what is behind by pdata's own means. state is any that allows changes.
func copyMap(state unsafe.Pointer, to, from *[]pairLayout) {
	f, t := behind[[]pairLayout]{from, state}, behind[[]pairLayout]{to, state}
	(*(*pcommon.Map)(unsafe.Pointer(&f))).CopyTo(*(*pcommon.Map)(unsafe.Pointer(&t)))
}

func copyResource(state unsafe.Pointer, to, from *resourceHeaderLayout) {
	f, t := behind[resourceHeaderLayout]{from, state}, behind[resourceHeaderLayout]{to, state}
	(*(*pcommon.Resource)(unsafe.Pointer(&f))).CopyTo(*(*pcommon.Resource)(unsafe.Pointer(&t)))
}
