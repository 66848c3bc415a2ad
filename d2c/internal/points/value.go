// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !purego

package points

import (
	"reflect"
	"slices"
	"unsafe"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c/internal/fold"
)

// pdata keeps a number behind an interface and allocates a new box for every SetIntValue and SetDoubleValue. A data point
// that has a value of the right type already has a box, which we write to instead: one allocation per point less.
// Likewise, pdata gives out counts and bounds one by one, each behind two pointers and two checks, or as a copy of them all. We look at
// the slice itself, which takes 12 % off the time of an exponential histogram's point with 30 buckets.
// This file is the only one that knows. What it assumes of pdata's layout it looks up and tries out before first use; where
// anything is not as expected, the ordinary accessors serve.

// boxed mirrors pmetric.NumberDataPoint.
type boxed struct{ orig, state unsafe.Pointer }

// box mirrors an interface value that holds a pointer.
type box struct{ typ, value unsafe.Pointer }

var valueOffset, intBox, doubleBox, inPlace = inspect()

func inspect() (offset uintptr, intType, doubleType unsafe.Pointer, ok bool) {
	t := reflect.TypeFor[pmetric.NumberDataPoint]()
	if t.Size() != unsafe.Sizeof(boxed{}) || t.Field(0).Type.Kind() != reflect.Pointer {
		return
	}
	field, found := t.Field(0).Type.Elem().FieldByName("Value")
	if !found || field.Type.Kind() != reflect.Interface {
		return
	}
	offset = field.Offset
	i, d := pmetric.NewNumberDataPoint(), pmetric.NewNumberDataPoint()
	i.SetIntValue(1)
	d.SetDoubleValue(1)
	iBox, dBox := boxAt(i, offset), boxAt(d, offset)
	*(*int64)(iBox.value) = -2
	*(*float64)(dBox.value) = -2.5
	return offset, iBox.typ, dBox.typ, i.IntValue() == -2 && d.DoubleValue() == -2.5 && iBox.typ != dBox.typ
}

func boxAt(dp pmetric.NumberDataPoint, offset uintptr) *box {
	return (*box)(unsafe.Add((*boxed)(unsafe.Pointer(&dp)).orig, offset))
}

// setNumber gives dp the value.
func setNumber(dp pmetric.NumberDataPoint, n fold.Number) {
	if inPlace {
		switch b := boxAt(dp, valueOffset); {
		case n.Double && b.typ == doubleBox:
			*(*float64)(b.value) = n.Float()
			return
		case !n.Double && b.typ == intBox:
			*(*int64)(b.value) = n.Int()
			return
		}
	}
	if n.Double {
		dp.SetDoubleValue(n.Float())
	} else {
		dp.SetIntValue(n.Int())
	}
}

// countSlice mirrors pcommon.UInt64Slice.
type countSlice struct {
	orig  *[]uint64
	state unsafe.Pointer
}

var countsInPlace = inspectCounts()

func inspectCounts() bool {
	t := reflect.TypeFor[pcommon.UInt64Slice]()
	if t.Kind() != reflect.Struct || t.Size() != unsafe.Sizeof(countSlice{}) || t.Field(0).Type != reflect.TypeFor[*[]uint64]() {
		return false
	}
	s := pcommon.NewUInt64Slice()
	s.FromRaw([]uint64{1, 2})
	return slices.Equal(*(*countSlice)(unsafe.Pointer(&s)).orig, []uint64{1, 2})
}

// countsOf returns the elements of s, to be read only, and only until s changes.
func countsOf(s pcommon.UInt64Slice) []uint64 {
	if countsInPlace {
		return *(*countSlice)(unsafe.Pointer(&s)).orig
	}
	return s.AsRaw()
}

// boundSlice mirrors pcommon.Float64Slice.
type boundSlice struct {
	orig  *[]float64
	state unsafe.Pointer
}

var boundsInPlace = inspectBounds()

func inspectBounds() bool {
	t := reflect.TypeFor[pcommon.Float64Slice]()
	if t.Kind() != reflect.Struct || t.Size() != unsafe.Sizeof(boundSlice{}) || t.Field(0).Type != reflect.TypeFor[*[]float64]() {
		return false
	}
	s := pcommon.NewFloat64Slice()
	s.FromRaw([]float64{1, 2})
	return slices.Equal(*(*boundSlice)(unsafe.Pointer(&s)).orig, []float64{1, 2})
}

// boundsOf returns the elements of s, to be read only, and only until s changes.
func boundsOf(s pcommon.Float64Slice) []float64 {
	if boundsInPlace {
		return *(*boundSlice)(unsafe.Pointer(&s)).orig
	}
	return s.AsRaw()
}
