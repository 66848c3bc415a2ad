// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/zeebo/xxh3"

	"github.com/deltaring/deltaring/d2c/store/log"
)

// Objects begin with what they are, in seven bytes, and the version of how they are written. Numbers are little endian.
//
// A head:
//
//	magic, version        8
//	checksum              8  XXH3 of all that follows
//	nonce                 8  random, so that no two heads have an ETag in common
//	snapshot             48  position (number, ID), name, size, checksum; all zero if there is none
//	segments              4  how many, and for each, oldest first:
//	                    52   number of entries, position of the last one, name, size, checksum
//	entries               4  how many the head has itself, and each as in a segment
//
// A segment is magic, version, and entries: ID (8), length (4), data. A snapshot is magic, version, and itself. The head has the sizes
// and checksums of both, magic included.
//
// A segment may begin before the position of the snapshot: what is in the snapshot is passed over.
const (
	headMagic     = "d2c.hed"
	segmentMagic  = "d2c.seg"
	snapshotMagic = "d2c.snp"
	version       = 1

	magicSize    = 8
	headerSize   = magicSize + 8 + 8
	objectSize   = 16 + 8 + 8
	snapshotSize = 16 + objectSize
	segmentSize  = 4 + 16 + objectSize
	entryHeader  = 8 + 4
)

var (
	errDamaged = errors.New("it is damaged")
	errNewer   = errors.New("it was written by a newer version of this software: update this one")
)

// objectName is the random name of a segment or a snapshot. The zero name is of none.
type objectName [16]byte

// object is another object as the head has it.
type object struct {
	name objectName
	size uint64 // of the whole object
	sum  uint64 // likewise
}

// snapshot is what the log has up to a position.
type snapshot struct {
	object
	at log.Position
}

// segment is entries that the head has no room for.
type segment struct {
	object
	n   uint32
	end log.Position
	ids []uint64 // of its entries, if they are known
}

// What ends the keys of objects.
const (
	headKey        = "head"
	segmentSuffix  = ".segment"
	snapshotSuffix = ".snapshot"
)

func (s *snapshot) key() string { return hex.EncodeToString(s.name[:]) + snapshotSuffix }
func (s *segment) key() string  { return hex.EncodeToString(s.name[:]) + segmentSuffix }

// start returns the number of the entry before the first.
func (s *segment) start() uint64 { return s.end.Number - uint64(s.n) }

// head is what the head object of a log says. It does not change.
type head struct {
	nonce    uint64
	snapshot snapshot
	segments []segment
	ids      []uint64 // of the entries in tail
	tail     []byte   // entries, as they are written
}

// tailStart returns the position before the entries that the head has itself.
func (h *head) tailStart() log.Position {
	if n := len(h.segments); n > 0 && h.segments[n-1].end.Number > h.snapshot.at.Number {
		return h.segments[n-1].end
	}
	return h.snapshot.at
}

func (h *head) end() log.Position {
	at := h.tailStart()
	if n := len(h.ids); n > 0 {
		at = log.Position{Number: at.Number + uint64(n), ID: h.ids[n-1]}
	}
	return at
}

// encode returns the head as an object, with an entry at its end if data is not nil, and the part of it that is the tail.
func (h *head) encode(id uint64, data []byte) (body, tail []byte) {
	size := headerSize + snapshotSize + 4 + segmentSize*len(h.segments) + 4 + len(h.tail)
	n := len(h.ids)
	if data != nil {
		size += entryHeader + len(data)
		n++
	}
	b := make([]byte, 0, size)
	b = append(b, headMagic...)
	b = append(b, version)
	b = binary.LittleEndian.AppendUint64(b, 0)
	b = binary.LittleEndian.AppendUint64(b, h.nonce)
	b = appendPosition(b, h.snapshot.at)
	b = appendObject(b, &h.snapshot.object)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(h.segments)))
	for i := range h.segments {
		s := &h.segments[i]
		b = binary.LittleEndian.AppendUint32(b, s.n)
		b = appendPosition(b, s.end)
		b = appendObject(b, &s.object)
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(n))
	start := len(b)
	b = append(b, h.tail...)
	if data != nil {
		b = appendEntry(b, id, data)
	}
	binary.LittleEndian.PutUint64(b[magicSize:], xxh3.Hash(b[magicSize+8:]))
	return b, b[start:]
}

func appendPosition(b []byte, p log.Position) []byte {
	b = binary.LittleEndian.AppendUint64(b, p.Number)
	return binary.LittleEndian.AppendUint64(b, p.ID)
}

func appendObject(b []byte, o *object) []byte {
	b = append(b, o.name[:]...)
	b = binary.LittleEndian.AppendUint64(b, o.size)
	return binary.LittleEndian.AppendUint64(b, o.sum)
}

func appendEntry(b []byte, id uint64, data []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, id)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

// decodeHead reads a head. It keeps b.
func decodeHead(b []byte) (*head, error) {
	b, err := checkMagic(b, headMagic)
	if err != nil {
		return nil, err
	}
	r := reader{b}
	if sum := r.uint64(); sum != xxh3.Hash(r.b) {
		return nil, fmt.Errorf("%w: its checksum is wrong", errDamaged)
	}
	h := &head{nonce: r.uint64()}
	h.snapshot.at = r.position()
	h.snapshot.object = r.object()
	if s := &h.snapshot; *s != (snapshot{}) &&
		(s.name == (objectName{}) || s.at.Number == 0 || s.at.ID == 0 || s.size < magicSize) {
		return nil, fmt.Errorf("%w: its snapshot is none", errDamaged)
	}
	n := r.uint32()
	if uint64(n) > uint64(len(r.b)/segmentSize) {
		return nil, fmt.Errorf("%w: it is too short for %d segments", errDamaged, n)
	}
	h.segments = make([]segment, n)
	at := h.snapshot.at.Number
	for i := range h.segments {
		s := &h.segments[i]
		s.n, s.end, s.object = r.uint32(), r.position(), r.object()
		// All follow each other, but the first may begin within the snapshot.
		follows := s.n > 0 && s.end.Number >= uint64(s.n) && s.end.ID != 0 && s.end.Number > at
		if follows && i == 0 {
			follows = s.start() <= at
		} else if follows {
			follows = s.start() == at
		}
		if !follows || s.name == (objectName{}) || s.size < magicSize {
			return nil, fmt.Errorf("%w: segment %d does not follow", errDamaged, i)
		}
		at = s.end.Number
	}
	n = r.uint32()
	if r.failed() {
		return nil, fmt.Errorf("%w: it ends too early", errDamaged)
	}
	h.tail = r.b
	ids, _, err := decodeEntries(h.tail, n)
	if err != nil {
		return nil, err
	}
	if at+uint64(n) < at {
		return nil, fmt.Errorf("%w: no log is that long", errDamaged)
	}
	h.ids = ids
	return h, nil
}

// checkMagic returns what follows.
func checkMagic(b []byte, magic string) ([]byte, error) {
	switch {
	case len(b) < magicSize || string(b[:len(magic)]) != magic:
		return nil, fmt.Errorf("%w, or is something else", errDamaged)
	case b[len(magic)] > version:
		return nil, fmt.Errorf("%w (format %d, this one knows %d)", errNewer, b[len(magic)], version)
	case b[len(magic)] != version:
		return nil, fmt.Errorf("%w: there is no format %d", errDamaged, b[len(magic)])
	}
	return b[magicSize:], nil
}

// decodeEntries reads n entries, which are all that b has. Data is of b.
func decodeEntries(b []byte, n uint32) (ids []uint64, entries []log.Entry, err error) {
	if uint64(n) > uint64(len(b)/entryHeader) {
		return nil, nil, fmt.Errorf("%w: it is too short for %d entries", errDamaged, n)
	}
	ids, entries = make([]uint64, n), make([]log.Entry, n)
	r := reader{b}
	for i := range ids {
		ids[i] = r.uint64()
		entries[i] = log.Entry{ID: ids[i], Data: r.bytes(uint64(r.uint32()))}
		if r.failed() || ids[i] == 0 || len(entries[i].Data) == 0 {
			return nil, nil, fmt.Errorf("%w: entry %d", errDamaged, i)
		}
	}
	if len(r.b) > 0 {
		return nil, nil, fmt.Errorf("%w: %d bytes follow the last entry", errDamaged, len(r.b))
	}
	return ids, entries, nil
}

// encodeSegment returns entries as an object.
func encodeSegment(entries []byte) []byte {
	b := make([]byte, 0, magicSize+len(entries))
	b = append(b, segmentMagic...)
	b = append(b, version)
	return append(b, entries...)
}

func (s *segment) decode(b []byte) (ids []uint64, entries []log.Entry, err error) {
	if err := s.verify(b); err != nil {
		return nil, nil, err
	}
	if b, err = checkMagic(b, segmentMagic); err != nil {
		return nil, nil, err
	}
	if ids, entries, err = decodeEntries(b, s.n); err != nil {
		return nil, nil, err
	}
	if s.n == 0 || ids[len(ids)-1] != s.end.ID {
		return nil, nil, fmt.Errorf("%w: it ends with another entry", errDamaged)
	}
	return ids, entries, nil
}

// encodeSnapshot returns a snapshot as an object.
func encodeSnapshot(data []byte) []byte {
	b := make([]byte, 0, magicSize+len(data))
	b = append(b, snapshotMagic...)
	b = append(b, version)
	return append(b, data...)
}

func (s *snapshot) decode(b []byte) ([]byte, error) {
	if err := s.verify(b); err != nil {
		return nil, err
	}
	return checkMagic(b, snapshotMagic)
}

// verify reports whether b is the object. A newer version is told from damage by whoever has written the head, which is of ours.
func (o *object) verify(b []byte) error {
	if uint64(len(b)) != o.size || xxh3.Hash(b) != o.sum {
		return fmt.Errorf("%w: it has %d bytes, the head says %d, or another checksum", errDamaged, len(b), o.size)
	}
	return nil
}

// describe returns what the head is to say of an object.
func describe(name objectName, body []byte) object {
	return object{name: name, size: uint64(len(body)), sum: xxh3.Hash(body)}
}

// moved returns the head with its tail in a segment.
func (h *head) moved(o object) *head {
	next := *h
	next.segments = append(slices.Clip(h.segments), segment{object: o, n: uint32(len(h.ids)), end: h.end(), ids: h.ids})
	next.ids, next.tail = nil, nil
	return &next
}

// compacted returns the head with a snapshot in the place of all up to its position, which the log has, and what ends the keys of the
// objects that it does not name any more.
func (h *head) compacted(s snapshot) (next *head, dropped []string) {
	n := *h
	n.snapshot = s
	if h.snapshot.name != (objectName{}) {
		dropped = append(dropped, h.snapshot.key())
	}
	first := 0
	for ; first < len(h.segments) && h.segments[first].end.Number <= s.at.Number; first++ {
		dropped = append(dropped, h.segments[first].key())
	}
	n.segments = h.segments[first:]
	if start := h.tailStart().Number; s.at.Number > start {
		skip := int(s.at.Number - start)
		n.tail, n.ids = skipEntries(h.tail, skip), h.ids[skip:]
	}
	return &n, dropped
}

func skipEntries(b []byte, n int) []byte {
	r := reader{b}
	for range n {
		r.uint64()
		r.bytes(uint64(r.uint32()))
	}
	return r.b
}

// named returns what ends the keys of the objects that the head names.
func (h *head) named() []string {
	keys := make([]string, 0, 1+len(h.segments))
	if h.snapshot.name != (objectName{}) {
		keys = append(keys, h.snapshot.key())
	}
	for i := range h.segments {
		keys = append(keys, h.segments[i].key())
	}
	return keys
}

// reader reads from b. When that is too short b is nil from then on, and what is read is zero.
type reader struct{ b []byte }

func (r *reader) failed() bool { return r.b == nil }

func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.b = nil
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) uint64() uint64 {
	if b := r.bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.bytes(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *reader) position() log.Position { return log.Position{Number: r.uint64(), ID: r.uint64()} }

func (r *reader) object() (o object) {
	copy(o.name[:], r.bytes(uint64(len(o.name))))
	o.size, o.sum = r.uint64(), r.uint64()
	return o
}
