// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"reflect"
	"unsafe"

	"go.opentelemetry.io/collector/pdata/pmetric"
)

// pdata keeps a number behind an interface and allocates a new box for every SetIntValue and SetDoubleValue. A data point
// that has a value of the right type already has a box, which we write to instead: one allocation per point less.
// This file is the only one that knows. What it assumes of pdata's layout it looks up and tries out before first use; where
// anything is not as expected, the ordinary setters serve.

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
func setNumber(dp pmetric.NumberDataPoint, n number) {
	if inPlace {
		switch b := boxAt(dp, valueOffset); {
		case n.double && b.typ == doubleBox:
			*(*float64)(b.value) = n.float()
			return
		case !n.double && b.typ == intBox:
			*(*int64)(b.value) = n.int()
			return
		}
	}
	if n.double {
		dp.SetDoubleValue(n.float())
	} else {
		dp.SetIntValue(n.int())
	}
}
