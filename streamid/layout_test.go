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
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// TestLayoutIsKnown fails when pdata changes. Then splits are still right, but several times slower, until layout.go
// follows; TestSplitsAgreeWithTheModel tells whether it does.
func TestLayoutIsKnown(t *testing.T) {
	if _, err := readLayout(); err != nil {
		t.Fatal(err)
	}
}

func TestOtherLayoutsAreRefused(t *testing.T) {
	type stringer interface{ String() string }
	tests := []struct {
		name           string
		mirror, actual reflect.Type
		want           string
	}{
		{"nothing", reflect.TypeFor[scopeLayout](), nil, "is not a struct"},
		{"another kind", reflect.TypeFor[scopeLayout](), reflect.TypeFor[int](), "is not a struct"},
		{"a value for a pointer", reflect.TypeFor[list](), reflect.TypeFor[[]pairLayout](), "is not a unsafe.Pointer"},
		{"another element", reflect.TypeFor[[]pairLayout](), reflect.TypeFor[[]scopeLayout](), "has Scope, not [Key]"},
		{"methods", reflect.TypeFor[any](), reflect.TypeFor[stringer](), "has methods"},
		{"one field more", reflect.TypeFor[stringLayout](), reflect.TypeFor[struct {
			StringValue string
			More        struct{}
		}](), "fields, not"},
		{"another name", reflect.TypeFor[stringLayout](), reflect.TypeFor[struct{ Text string }](), "Text"},
		{"another order", reflect.TypeFor[behind[list]](), reflect.TypeFor[struct {
			State *int
			Orig  *[]*int
		}](), "State"},
		{"another type", reflect.TypeFor[sumLayout](), reflect.TypeFor[struct {
			DataPoints             [][]*int
			AggregationTemporality int32
			IsMonotonic            bool
		}](), "is not a unsafe.Pointer"},
		{"a field less", reflect.TypeFor[dataOf[sumLayout]](), reflect.TypeFor[struct {
			Sum *struct {
				DataPoints             []*int
				AggregationTemporality int32
			}
		}](), "fields, not"},
		{"signals mixed up", reflect.TypeFor[behind[metricLayout]](), reflect.TypeFor[ptrace.Span](), "fields, not"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := compare(test.mirror, test.actual)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
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
	seen := map[unsafe.Pointer]bool{}
	for _, part := range parts {
		rm := part.Batch.ResourceMetrics().At(0)
		sm := rm.ScopeMetrics().At(0)
		for _, attrs := range []pcommon.Map{
			rm.Resource().Attributes(), sm.Scope().Attributes(), sm.Metrics().At(0).Metadata(),
		} {
			value := inside(&(**(**[]pairLayout)(unsafe.Pointer(&attrs)))[0].Value.Value).pointer
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
