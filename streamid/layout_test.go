// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !purego

package streamid

import (
	"reflect"
	"strings"
	"testing"
	"unsafe"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// TestLayoutIsKnown fails when pdata changes. Then splits are still right, but several times slower, until layout.go
// follows; TestSplitsAgreeWithTheModel tells whether it does.
func TestLayoutIsKnown(t *testing.T) {
	if _, err := readLayout(); err != nil {
		t.Fatal(err)
	}
	if !SplitsInPlace() {
		t.Error("SplitsInPlace is false")
	}
	defer ForgetLayout()()
	if SplitsInPlace() {
		t.Error("SplitsInPlace is true without a layout")
	}
}

// What pdata could be.
type (
	anItem struct{}
	aPair  struct{ Key string }

	aScope struct {
		Attributes             []aPair
		DroppedAttributesCount uint32
		Name                   string
		Version                string
	}
	scopeInAnotherOrder struct {
		SchemaUrl  string
		LogRecords []*anItem
		Scope      aScope
	}
)

func TestFieldsAreFoundInAnyOrder(t *testing.T) {
	var l scopeLayout
	var r layoutReader
	r.fit(&l, reflect.TypeFor[scopeInAnotherOrder]())
	if r.err != nil {
		t.Fatal(r.err)
	}
	scope := scopeInAnotherOrder{
		SchemaUrl: "schema", LogRecords: []*anItem{{}},
		Scope: aScope{[]aPair{{"key"}, {}}, 5, "name", "version"},
	}
	at := unsafe.Pointer(&scope)
	if *l.SchemaUrl.in(at) != "schema" || (*l.Items.in(at))[0] != unsafe.Pointer(scope.LogRecords[0]) ||
		l.Scope.in(at) != unsafe.Pointer(&scope.Scope) || *l.Scope.Name.in(at) != "name" ||
		*l.Scope.Version.in(at) != "version" || *l.Scope.DroppedAttributesCount.in(at) != 5 ||
		*l.Scope.Attributes.in(at) != (pairs{unsafe.Pointer(&scope.Scope.Attributes[0]), 2, 2}) ||
		l.size != unsafe.Sizeof(scope) {
		t.Errorf("fields are looked up in other places: %+v", l)
	}
}

func TestOtherLayoutsAreRefused(t *testing.T) {
	type stringer interface{ String() string }
	type Sum struct {
		DataPoints  []*int
		IsMonotonic bool
	}
	type Gauge struct {
		DataPoints  []*int
		IsMonotonic bool
	}
	type Summary struct{ DataPoints [][]*int }
	type Histogram struct {
		DataPoints             []*int
		AggregationTemporality int64
	}
	tests := []struct {
		name   string
		layout blockReader
		actual reflect.Type
		want   string
	}{
		{"nothing", new(scopeLayout), nil, "is not a struct"},
		{"another kind", new(scopeLayout), reflect.TypeFor[int](), "is not a struct"},
		{"methods", new(valueLayout), reflect.TypeFor[struct{ Value stringer }](), "has methods"},
		{"a value for a pointer", new(dataLayout), reflect.TypeFor[struct{ Sum Sum }](), "is not a pointer"},
		{"two of the names", new(dataLayout), reflect.TypeFor[struct{ Sum, Gauge *Sum }](), "has 2 fields"},
		{"one field more", new(textLayout), reflect.TypeFor[struct {
			StringValue string
			More        struct{}
		}](), "has 2 fields, not 1"},
		{"another name", new(textLayout), reflect.TypeFor[struct{ Text string }](), "has 0 fields [StringValue]"},
		{"a field less", new(pointsLayout), reflect.TypeFor[Sum](), "has 0 fields [AggregationTemporality]"},
		{"a field of another kind of metric", new(pointsLayout), reflect.TypeFor[Gauge](), "has 2 fields, not 1"},
		{"another type", new(pointsLayout), reflect.TypeFor[Summary](), "is not a pointer"},
		{"another size", new(pointsLayout), reflect.TypeFor[Histogram](), "int64 is not a int32"},
		{"another depth", new(sliceLayout), reflect.TypeFor[struct {
			orig  *[]int
			state *int
		}](), "is not a pointer"},
		{"attributes of several types", new(resourceLayout), reflect.TypeFor[struct {
			Resource struct {
				Attributes             []aPair
				EntityRefs             []*anItem
				DroppedAttributesCount uint32
			}
			ScopeMetrics           []*aScope
			SchemaUrl              string
			DeprecatedScopeMetrics []*aScope
		}](), "aPair is not []"},
		{"attributes that are no list", new(mapLayout), reflect.TypeFor[struct {
			orig  *aPair
			state *int
		}](), "is not a slice"},
		{"another struct", new(metricLayout), reflect.TypeFor[aScope](), "has 0 fields [Description]"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := layoutReader{pairs: reflect.TypeFor[[]anItem]()}
			r.fit(test.layout, test.actual)
			if r.err == nil || !strings.Contains(r.err.Error(), test.want) {
				t.Errorf("got %v, want an error with %q", r.err, test.want)
			}
		})
	}
}

// TestArenasAreOfPdataTypes, or the garbage collector would look for pointers in other places than pdata has them in.
func TestArenasAreOfPdataTypes(t *testing.T) {
	var r layoutReader
	l, err := r.read()
	if err != nil {
		t.Fatal(err)
	}
	elements := func(b *block) reflect.Type {
		var slice any
		*inside(&slice) = anyLayout{b.slice, unsafe.Pointer(new(pairs))}
		return reflect.TypeOf(slice).Elem().Elem()
	}
	for i := range l.signals[SignalMetrics:] {
		s := &l.signals[SignalMetrics:][i]
		if elements(&s.resource.block) != r.elem(&s.slice.Orig, 3) {
			t.Errorf("resources are %v", elements(&s.resource.block))
		}
		if elements(&s.scope.block) != r.elem(&s.resource.Scopes, 2) {
			t.Errorf("scopes are %v", elements(&s.scope.block))
		}
	}
	if elements(&l.pair.block) != r.elem(&l.attributes.Orig, 2) {
		t.Errorf("pairs are %v", elements(&l.pair.block))
	}
	for i := range l.kinds {
		k := &l.kinds[i]
		metric := elements(&k.copy)
		if metric.Field(0).Type != r.elem(&l.metric, 0) || metric.Field(1).Type != r.elem(&k.data, 0) ||
			metric.Field(2).Type != r.elem(&k.data.Points, 1) {
			t.Errorf("metrics are %v", metric)
		}
	}
}

// TestPartsHaveTheirOwnValues looks at what the exported methods of pdata cannot tell apart, but its memory pools can.
func TestPartsHaveTheirOwnValues(t *testing.T) {
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	rm.Resource().Attributes().PutStr("resource", "value")
	sm := rm.ScopeMetrics().AppendEmpty()
	sm.Scope().Attributes().PutStr("scope", "value")
	m := sm.Metrics().AppendEmpty()
	m.Metadata().PutStr("metadata", "value")
	points := m.SetEmptyGauge().DataPoints()
	for i := range int64(100) {
		points.AppendEmpty().Attributes().PutInt("point", i)
	}
	key, err := ParseKey("streamID", nil)
	if err != nil {
		t.Fatal(err)
	}
	next := 0
	parts, _ := (&Splitter{Key: key}).Metrics(md, 3, func(uint64) int { next++; return next % 3 }, nil)
	l, err := layout()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[unsafe.Pointer]bool{}
	for _, part := range parts {
		rm := part.Batch.ResourceMetrics().At(0)
		sm := rm.ScopeMetrics().At(0)
		for _, attrs := range []pcommon.Map{
			rm.Resource().Attributes(), sm.Scope().Attributes(), sm.Metrics().At(0).Metadata(),
		} {
			value := inside(l.pair.Value.Value.in((*l.attributes.Orig.in(unsafe.Pointer(&attrs))).first)).pointer
			if seen[value] {
				t.Errorf("%v is in two parts", attrs.AsRaw())
			}
			seen[value] = true
		}
	}
	if len(seen) != 9 {
		t.Errorf("%d values, want 9", len(seen))
	}
}
