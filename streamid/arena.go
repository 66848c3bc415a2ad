// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !purego

package streamid

import (
	"reflect"
	"unsafe"
)

// arena has room for elements that were counted before. They are of a type of pdata, which only reflect knows: the garbage
// collector must find pointers where that has them.
type arena struct {
	count int   // of elements that need room; then of those that have it
	room  pairs // of elements of any type
}

func (a *arena) allocate(of *block) {
	if a.count > 0 {
		// Unlike reflect.MakeSlice, Grow does not allocate the header of the slice too; and unlike reflect.NewAt, this
		// does not have to look for the type of a pointer to it.
		var room any
		*inside(&room) = anyLayout{of.slice, unsafe.Pointer(&a.room)}
		reflect.ValueOf(room).Elem().Grow(a.count)
		a.count = 0
	}
}

func (a *arena) one(of *block) unsafe.Pointer { return a.some(of, 1) }

// some returns the first of the next n elements. n is not 0.
func (a *arena) some(of *block, n int) unsafe.Pointer {
	if n > a.room.cap-a.count {
		panic("streamid: more elements than were counted")
	}
	first := unsafe.Add(a.room.first, uintptr(a.count)*of.size)
	a.count += n
	return first
}

// listBuilder builds lists one after another: each is complete before the next begins.
type listBuilder struct {
	count int  // of elements that need room
	room  list // not yet used

	open     *list // where the list goes once it is complete
	elements list  // so far
	inPlace  list  // the list that is rewritten where it is, or nil if it is made in room
}

// begin begins the list l. If it is rewritten in place, with some of the elements it has, these are inPlace.
func (b *listBuilder) begin(l *list, inPlace list) {
	b.end()
	b.open, b.inPlace = l, inPlace
	if inPlace != nil {
		b.elements = inPlace[:0]
	} else {
		b.elements = b.room[:0]
	}
}

func (b *listBuilder) push(element unsafe.Pointer) { b.elements = append(b.elements, element) }

// countOne is push before there is room.
func (b *listBuilder) countOne() {
	if b.inPlace == nil {
		b.count++
	}
}

// end gives the list its elements, without room for more: who appends to it later must not write into the next one.
func (b *listBuilder) end() {
	if b.open == nil {
		return
	}
	n := len(b.elements)
	if b.inPlace != nil {
		clear(b.inPlace[n:])
	} else {
		b.room = b.room[n:]
	}
	*b.open = b.elements[:n:n]
}
