// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package log

import (
	"encoding/binary"
	"iter"
	"math/bits"

	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/streamid"
)

// table keeps the records of a log in memory: an index with open addressing, and items in chunks by size. A record takes about 46 bytes
// beside itself, and the garbage collector follows only pointers to chunks.
type table struct {
	key [2]uint64 // of the hash, so that nobody can choose streams that collide

	// index holds, by place, the handle of an item in the low half, zero for none, and a part of its hash in the high half, so that only
	// the right item is looked at: what costs time here is to wait for memory.
	index []uint64
	n     int // items in use

	classes [maxClasses]class
	bytes   int // of records

	resized bool // since memory was last asked for
	took    int  // what it answered
}

// class holds the items of one size. A free item has the tag zero.
type class struct {
	chunks [][]byte
	used   uint32 // lower numbers have been in use
	free   []uint32
}

// item holds a record: the stream's ID (16 bytes), the tag (8), when it was written in Unix seconds (4), the number of unused bytes at the
// end (2), and the record.
type item []byte

const itemHeader = 16 + 8 + 4 + 2

func (it item) id() streamid.ID {
	return streamid.ID{Hi: binary.LittleEndian.Uint64(it), Lo: binary.LittleEndian.Uint64(it[8:])}
}
func (it item) tag() uint64     { return binary.LittleEndian.Uint64(it[16:]) }
func (it item) written() uint32 { return binary.LittleEndian.Uint32(it[24:]) }

func (it item) record() []byte {
	return it[itemHeader : len(it)-int(binary.LittleEndian.Uint16(it[28:]))]
}

func (it item) set(id streamid.ID, tag uint64, written uint32, record []byte) {
	binary.LittleEndian.PutUint64(it, id.Hi)
	binary.LittleEndian.PutUint64(it[8:], id.Lo)
	it.update(tag, written, record)
}

func (it item) update(tag uint64, written uint32, record []byte) {
	binary.LittleEndian.PutUint64(it[16:], tag)
	binary.LittleEndian.PutUint32(it[24:], written)
	binary.LittleEndian.PutUint16(it[28:], uint16(len(it)-itemHeader-copy(it[itemHeader:], record)))
}

// Sizes of items are 8 bytes apart up to 256, then an eighth of a power of two, up to 4096. Larger items get a chunk of their exact size.
const (
	smallStep, smallItem = 8, 256
	largeItem            = 4096
	noClasses            = itemHeader / smallStep              // sizes below that of the smallest item
	smallClasses         = smallItem/smallStep - noClasses + 1 // class 0 stays empty, so that no handle is zero
	largeClass           = smallClasses + 4*8
	maxClasses           = largeClass + 1

	chunkSize  = 4096
	numberBits = 26 // of a handle, the rest is the class
	// maxRecords is how many records a log may have.
	maxRecords = 1<<numberBits - 1
)

// classOf returns the class of items of a size.
func classOf(size int) int {
	switch {
	case size <= smallItem:
		return (size+smallStep-1)/smallStep - noClasses
	case size > largeItem:
		return largeClass
	}
	top := bits.Len(uint(size - 1)) // 9 to 12: above 2^(top-1)
	return smallClasses + (top-9)*8 + (size-1)>>(top-4) - 8
}

// sizeOf returns the size of the items of a class.
func sizeOf(c int) int {
	if c < smallClasses {
		return (c + noClasses) * smallStep
	}
	c -= smallClasses
	return (9 + c%8) << (5 + c/8)
}

// perChunk is the number of items in a chunk.
func perChunk(c int) uint32 {
	if c == largeClass {
		return 1
	}
	return uint32(chunkSize / sizeOf(c))
}

func (t *table) at(handle uint32) item {
	c, number := int(handle>>numberBits), handle&(1<<numberBits-1)
	if c == largeClass {
		return t.classes[c].chunks[number]
	}
	size := sizeOf(c)
	per := uint32(chunkSize) / uint32(size)
	chunk := t.classes[c].chunks[number/per]
	from := int(number%per) * size
	return chunk[from : from+size : from+size]
}

// alloc returns an item for a record of a length.
func (t *table) alloc(length int) (uint32, item) {
	size := itemHeader + length
	c := classOf(size)
	class := &t.classes[c]
	var number uint32
	if n := len(class.free); n > 0 {
		number, class.free = class.free[n-1], class.free[:n-1]
		if c == largeClass {
			class.chunks[number] = make([]byte, size)
		}
	} else {
		number = class.used
		class.used++
		switch {
		case c == largeClass:
			class.chunks = append(class.chunks, make([]byte, size))
		case int(number/perChunk(c)) == len(class.chunks):
			class.chunks = append(class.chunks, make([]byte, chunkSize))
		}
	}
	t.resized = true
	handle := uint32(c)<<numberBits | number
	return handle, t.at(handle)
}

func (t *table) release(handle uint32) {
	c, number := int(handle>>numberBits), handle&(1<<numberBits-1)
	binary.LittleEndian.PutUint64(t.at(handle)[16:], 0)
	if c == largeClass {
		t.classes[c].chunks[number] = t.classes[c].chunks[number][:itemHeader:itemHeader]
	}
	t.classes[c].free = append(t.classes[c].free, number)
	t.resized = true
}

func (t *table) hash(id streamid.ID) uint64 {
	hi, lo := bits.Mul64(id.Hi^t.key[0], id.Lo^t.key[1])
	return hi ^ lo
}

// place is where a hash belongs.
func (t *table) place(h uint64) int {
	hi, _ := bits.Mul64(h, uint64(len(t.index)))
	return int(hi)
}

// entryOf is what the index holds of an item.
func entryOf(h uint64, handle uint32) uint64 { return h<<32 | uint64(handle) }

// is reports whether an item is in use, and of a stream.
func (it item) is(id streamid.ID) bool {
	return binary.LittleEndian.Uint64(it) == id.Hi && binary.LittleEndian.Uint64(it[8:]) == id.Lo && it.tag() != 0
}

// find returns the item of a stream, and its place, or nil and the place where it would be.
func (t *table) find(id streamid.ID) (item, int) {
	if len(t.index) == 0 {
		return nil, 0
	}
	h := t.hash(id)
	p := t.place(h)
	for t.index[p] != 0 {
		if e := t.index[p]; uint32(e>>32) == uint32(h) {
			if it := t.at(uint32(e)); it.is(id) {
				return it, p
			}
		}
		if p++; p == len(t.index) {
			p = 0
		}
	}
	return nil, p
}

// seek finds the items for the swaps in order and sets their handles, zero for none. One by one, each lookup would wait for memory two or
// three times; here they wait together.
func (t *table) seek(handles []uint32, swaps []store.Swap, order []int32) {
	if len(t.index) == 0 {
		clear(handles)
		return
	}
	const block = 128
	var hashes [block]uint64
	for len(order) > 0 {
		n := min(block, len(order))
		for k, i := range order[:n] {
			h := t.hash(swaps[i].ID)
			hashes[k] = h
			handles[k] = uint32(t.index[t.place(h)]) // only to load the cache line
		}
		for k, h := range hashes[:n] {
			p := t.place(h)
			for t.index[p] != 0 && uint32(t.index[p]>>32) != uint32(h) {
				if p++; p == len(t.index) {
					p = 0
				}
			}
			handles[k] = uint32(t.index[p])
		}
		for k, i := range order[:n] {
			if handles[k] == 0 || t.at(handles[k]).is(swaps[i].ID) {
				continue
			}
			handles[k] = 0 // another stream's hash has the same half
			if it, p := t.find(swaps[i].ID); it != nil {
				handles[k] = uint32(t.index[p])
			}
		}
		handles, order = handles[n:], order[n:]
	}
}

// put sets the record of a stream.
func (t *table) put(id streamid.ID, tag uint64, written uint32, record []byte) {
	it, p := t.find(id)
	if it != nil {
		if handle := uint32(t.index[p]); !t.replace(handle, tag, written, record) {
			t.bytes += len(record) - len(it.record())
			t.release(handle)
			handle, it = t.alloc(len(record))
			t.index[p] = entryOf(t.hash(id), handle)
			it.set(id, tag, written, record)
		}
		return
	}
	if t.n >= len(t.index)/8*7 {
		t.grow(max(t.n+t.n/4, t.n+16))
		_, p = t.find(id)
	}
	t.bytes += len(record)
	handle, it := t.alloc(len(record))
	t.index[p] = entryOf(t.hash(id), handle)
	it.set(id, tag, written, record)
	t.n++
}

// replace sets the record of the stream that has an item, and reports whether there is room for it.
func (t *table) replace(handle uint32, tag uint64, written uint32, record []byte) bool {
	it, size := t.at(handle), itemHeader+len(record)
	if c := classOf(size); c != int(handle>>numberBits) || c == largeClass && len(it) != size {
		return false
	}
	t.bytes += len(record) - len(it.record())
	it.update(tag, written, record)
	return true
}

// grow makes room for n items in the index.
func (t *table) grow(n int) {
	places := (n/7 + 1) * 8
	if places <= len(t.index) {
		return
	}
	t.resized = true
	t.index = make([]uint64, places)
	for handle, it := range t.all() {
		h := t.hash(it.id())
		p := t.place(h)
		for t.index[p] != 0 {
			if p++; p == places {
				p = 0
			}
		}
		t.index[p] = entryOf(h, handle)
	}
}

// remove forgets a stream.
func (t *table) remove(id streamid.ID) {
	it, p := t.find(id)
	if it == nil {
		return
	}
	t.bytes -= len(it.record())
	t.release(uint32(t.index[p]))
	t.n--
	// Move back whatever would not be found any more behind an empty place.
	for next := p; ; {
		if next++; next == len(t.index) {
			next = 0
		}
		if t.index[next] == 0 {
			break
		}
		home := t.place(t.hash(t.at(uint32(t.index[next])).id()))
		if (next-home+len(t.index))%len(t.index) >= (next-p+len(t.index))%len(t.index) {
			t.index[p] = t.index[next]
			p = next
		}
	}
	t.index[p] = 0
}

// all returns all items with their handles.
func (t *table) all() iter.Seq2[uint32, item] {
	return func(yield func(uint32, item) bool) {
		for c := range t.classes {
			for number := range t.classes[c].used {
				handle := uint32(c)<<numberBits | number
				if it := t.at(handle); it.tag() != 0 && !yield(handle, it) {
					return
				}
			}
		}
	}
}

// memory returns the bytes that the table takes.
func (t *table) memory() int {
	if !t.resized {
		return t.took
	}
	n := len(t.index) * 8
	for c := range t.classes {
		class := &t.classes[c]
		n += cap(class.chunks)*24 + cap(class.free)*4
		if c == largeClass {
			for _, chunk := range class.chunks {
				n += cap(chunk)
			}
		} else {
			n += len(class.chunks) * chunkSize
		}
	}
	t.resized, t.took = false, n
	return n
}
