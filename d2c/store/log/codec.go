// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package log

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/zeebo/xxh3"

	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/streamid"
)

// The format of entries and snapshots, version 1; all numbers are little endian:
//
//	1 version   1 flavour   4 time   8 number   items   8 checksum
//
// Time is when it was made, in Unix seconds. Number is that of the position where it ends. The checksum is the XXH3 of everything before it,
// seeded with the position's ID. Later versions keep version and checksum in the same places, so that they can be told from damage. Items
// begin with a uvarint: four times the length of the record, plus the kind of the item:
//
//	put      16 stream   8 tag   record of the length
//	life     8 ID   8 from   8 floor   2 groups
//	kept     4 time   and as put: a record of a snapshot, and when it was written
//	aside    as kept: a record that was set aside; in an entry it also removes the record of the stream
//
// The first item of a log, and of a snapshot, is its only life.
const (
	version        = 1
	flavourEntry   = 'e'
	flavourState   = 's'
	headerSize     = 1 + 1 + 4 + 8
	checksumSize   = 8
	lifeSize       = 8 + 8 + 8 + 2
	itemPut        = 0
	itemLife       = 1
	itemKept       = 2
	itemAside      = 3
	maxRecordBytes = math.MaxInt32 / 8
)

// ErrVersion is the error for logs that a newer version has written to. They are left as they are.
var ErrVersion = errors.New("written by a newer version")

// ErrDamaged is the error for logs with bytes that no Store has written. They are left as they are: what comes after the damage can still
// be inspected. Deleting the log begins a new life of its streams, which restart.
var ErrDamaged = errors.New("damaged")

// appendHeader begins an entry or a snapshot.
func appendHeader(b []byte, flavour byte, now uint32, number uint64) []byte {
	b = append(b, version, flavour)
	b = binary.LittleEndian.AppendUint32(b, now)
	return binary.LittleEndian.AppendUint64(b, number)
}

// appendChecksum ends the entry or snapshot that began at from.
func appendChecksum(b []byte, from int, id uint64) []byte {
	return binary.LittleEndian.AppendUint64(b, xxh3.HashSeed(b[from:], id))
}

func appendLife(b []byte, life store.Life, groups int) []byte {
	b = append(b, itemLife)
	b = binary.LittleEndian.AppendUint64(b, life.ID)
	b = binary.LittleEndian.AppendUint64(b, uint64(life.From))
	b = binary.LittleEndian.AppendUint64(b, uint64(life.Floor))
	return binary.LittleEndian.AppendUint16(b, uint16(groups))
}

func appendPut(b []byte, id streamid.ID, tag uint64, record []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(record))<<2|itemPut)
	return appendRecord(b, id, tag, record)
}

// appendKept appends a record with its time, in use or set aside.
func appendKept(b []byte, what uint64, written uint32, id streamid.ID, tag uint64, record []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(record))<<2|what)
	b = binary.LittleEndian.AppendUint32(b, written)
	return appendRecord(b, id, tag, record)
}

func appendRecord(b []byte, id streamid.ID, tag uint64, record []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, id.Hi)
	b = binary.LittleEndian.AppendUint64(b, id.Lo)
	b = binary.LittleEndian.AppendUint64(b, tag)
	return append(b, record...)
}

// reader reads items.
type reader struct {
	rest []byte
	time uint32
	err  error

	// The item that next has read. The record is a part of the input.
	what    uint64
	written uint32
	id      streamid.ID
	tag     uint64
	record  []byte
	life    store.Life
	groups  int
}

// read begins to read the entry or snapshot that ends at a position.
func read(b []byte, flavour byte, at Position) (r reader, err error) {
	if len(b) < headerSize+checksumSize {
		return r, fmt.Errorf("%w: %d bytes", ErrDamaged, len(b))
	}
	body := b[:len(b)-checksumSize]
	if binary.LittleEndian.Uint64(b[len(body):]) != xxh3.HashSeed(body, at.ID) {
		return r, fmt.Errorf("%w: the checksum is another", ErrDamaged)
	}
	switch {
	case b[0] > version:
		return r, fmt.Errorf("%w: format %d, known is %d", ErrVersion, b[0], version)
	case b[0] != version || b[1] != flavour:
		return r, fmt.Errorf("%w: format %d %q", ErrDamaged, b[0], b[1])
	}
	if number := binary.LittleEndian.Uint64(b[6:]); number != at.Number {
		return r, fmt.Errorf("%w: it is number %d", ErrDamaged, number)
	}
	return reader{rest: body[headerSize:], time: binary.LittleEndian.Uint32(b[2:])}, nil
}

// next reads an item and reports whether there was one.
func (r *reader) next() bool {
	if len(r.rest) == 0 || r.err != nil {
		return false
	}
	head, n := binary.Uvarint(r.rest)
	if n <= 0 || head > maxRecordBytes<<2 {
		return r.damaged("length")
	}
	b, length := r.rest[n:], int(head>>2)
	r.what, r.written = head&3, r.time
	switch {
	case r.what == itemLife:
		if length != 0 || len(b) < lifeSize {
			return r.damaged("life")
		}
		r.life = store.Life{
			ID:    binary.LittleEndian.Uint64(b),
			From:  int64(binary.LittleEndian.Uint64(b[8:])),
			Floor: int64(binary.LittleEndian.Uint64(b[16:])),
		}
		r.groups = int(binary.LittleEndian.Uint16(b[24:]))
		if r.life.ID == 0 {
			return r.damaged("life")
		}
		r.rest = b[lifeSize:]
		return true
	case r.what >= itemKept:
		if len(b) < 4 {
			return r.damaged("time")
		}
		r.written, b = binary.LittleEndian.Uint32(b), b[4:]
	}
	if len(b) < 16+8+length || length == 0 {
		return r.damaged("record")
	}
	r.id = streamid.ID{Hi: binary.LittleEndian.Uint64(b), Lo: binary.LittleEndian.Uint64(b[8:])}
	r.tag = binary.LittleEndian.Uint64(b[16:])
	r.record = b[24 : 24+length : 24+length]
	if r.tag == 0 {
		return r.damaged("tag")
	}
	r.rest = b[24+length:]
	return true
}

func (r *reader) damaged(what string) bool {
	r.err = fmt.Errorf("%w: an item's %s", ErrDamaged, what)
	return false
}
