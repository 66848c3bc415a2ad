// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"

	"github.com/deltaring/deltaring/streamid"
)

// The state of streams outside the table, version 1. Numbers are little-endian or, where named so, varints; those that are
// signed are so in zigzag.
//
//	record   id 16, flags 1, seen (Unix seconds), start and last, [aside], value
//	         (all three signed varints: by how much more than that of the record before in the section, or than zero)
//	aside    emitted 8, horizon 8, number of gaps 1, gaps of 16 each (start, end)
//	sum      an int64 as a signed varint, or a float64 8
//	histogram    distribution, bounds varint (number in the section's list), n varint, n counts varint
//	exponential  distribution, scale 1, zero count varint, zero threshold 8, 2 offsets of 4, 2 n varint, counts varint
//	distribution presence 1, count varint, then sum, min, max of 8 each if present
//	section  number of bounds varint, each n varint and n float64; then records to the end
//
// A record is the state after a commit, not the change: applying it twice, or after a newer fold, does no harm, and
// reading it needs none of the rules that made it. Streams of one producer share their times, so that records of sums tend to
// have 21 to 30 bytes; a quarter of what a commit costs is for its bytes.

// The flags of a record. The low bits are a Kind.
const (
	recordDouble    = 1 << 2
	recordRestarted = 1 << 3
	recordMarked    = 1 << 4
	recordAside     = 1 << 5
	recordKnown     = 1<<6 - 1
)

// recordHeader is the size of what all records begin with, maxRecordSum more than that of any sum without an aside.
const (
	recordHeader = 16 + 1
	maxRecordSum = recordHeader + 4*binary.MaxVarintLen64
)

var errRecord = errors.New("malformed record")

// recordWriter writes the records of one section.
type recordWriter struct {
	records []byte
	// bounds of histograms are written once per section.
	bounds [][]float64
	// Those of the record before.
	seen, start, last int64
}

func (w *recordWriter) reset() {
	w.records = w.records[:0]
	clear(w.bounds)
	w.bounds = w.bounds[:0]
	w.seen, w.start, w.last = 0, 0, 0
}

// add writes the stream in slot s of sh; epoch is the Unix time of the clock that s.seen counts from.
func (w *recordWriter) add(sh *shard, s *slot, epoch int64) {
	flags := byte(s.kind())
	if s.meta&flagDouble != 0 {
		flags |= recordDouble
	}
	if s.meta&flagRestarted != 0 {
		flags |= recordRestarted
	}
	if s.meta&flagMarked != 0 {
		flags |= recordMarked
	}
	if s.meta>>asideShift != 0 {
		flags |= recordAside
	}
	seen := max(epoch+int64(s.seen), 0)
	n := len(w.records)
	b := slices.Grow(w.records, maxRecordSum)[:n+maxRecordSum]
	binary.LittleEndian.PutUint64(b[n:], s.id.Hi)
	binary.LittleEndian.PutUint64(b[n+8:], s.id.Lo)
	b[n+16] = flags
	n += recordHeader
	n += putVarint(b[n:], seen-w.seen)
	n += putVarint(b[n:], s.start-w.start)
	n += putVarint(b[n:], s.last-w.last)
	w.seen, w.start, w.last = seen, s.start, s.last
	if flags&(flagKind|recordAside|recordDouble) == 0 { // nearly all records
		n += putVarint(b[n:], int64(s.value))
		w.records = b[:n]
		return
	}
	b = b[:n]
	if flags&recordAside != 0 {
		a := &sh.asides[s.meta>>asideShift-1]
		b = binary.LittleEndian.AppendUint64(b, uint64(a.emitted))
		b = binary.LittleEndian.AppendUint64(b, uint64(a.gaps.horizon))
		b = append(b, byte(a.gaps.n))
		for _, gap := range a.gaps.gaps[:a.gaps.n] {
			b = binary.LittleEndian.AppendUint64(b, uint64(gap.start))
			b = binary.LittleEndian.AppendUint64(b, uint64(gap.time))
		}
	}
	switch s.kind() {
	case KindSum:
		if flags&recordDouble != 0 {
			b = binary.LittleEndian.AppendUint64(b, s.value)
		} else {
			b = binary.AppendVarint(b, int64(s.value))
		}
	case KindHistogram:
		block := sh.blocks.block(blockRef(s.value))
		buckets, width := layout(block)
		b = appendDistribution(b, block)
		b = binary.AppendUvarint(b, w.boundsNumber(sh.bounds.at(block[wordBounds])))
		b = binary.AppendUvarint(b, uint64(buckets))
		b = appendCounts(b, block[headerHistogram:], buckets, width)
	case KindExponentialHistogram:
		block := sh.blocks.block(blockRef(s.value))
		positive, width := layout(block)
		negative := int(block[wordScale] >> countShift)
		b = appendDistribution(b, block)
		b = append(b, byte(block[wordScale]))
		b = binary.AppendUvarint(b, get64(block[wordZeroCount:]))
		b = binary.LittleEndian.AppendUint64(b, get64(block[wordZeroThreshold:]))
		b = binary.LittleEndian.AppendUint32(b, block[wordOffsets])
		b = binary.LittleEndian.AppendUint32(b, block[wordOffsets+1])
		b = binary.AppendUvarint(b, uint64(positive))
		b = binary.AppendUvarint(b, uint64(negative))
		b = appendCounts(b, block[headerExponential:], positive+negative, width)
	}
	w.records = b
}

// putVarint is binary.PutVarint, faster for what is close to zero.
func putVarint(b []byte, v int64) int {
	if u := uint64(v)<<1 ^ uint64(v>>63); u < 0x80 {
		b[0] = byte(u)
		return 1
	}
	return binary.PutVarint(b, v)
}

// boundsNumber returns the place of bounds in the section's list. Streams of one producer tend to share theirs.
func (w *recordWriter) boundsNumber(bounds []float64) uint64 {
	for i := len(w.bounds) - 1; i >= 0; i-- {
		if sameSlice(w.bounds[i], bounds) {
			return uint64(i)
		}
	}
	w.bounds = append(w.bounds, bounds)
	return uint64(len(w.bounds) - 1)
}

// sameSlice reports whether a and b are the same memory.
func sameSlice(a, b []float64) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// append writes the section.
func (w *recordWriter) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(w.bounds)))
	for _, bounds := range w.bounds {
		b = binary.AppendUvarint(b, uint64(len(bounds)))
		for _, v := range bounds {
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
		}
	}
	return append(b, w.records...)
}

func appendDistribution(b []byte, block []uint32) []byte {
	var d distribution
	d.unpack(block)
	return d.append(b)
}

func (d *distribution) append(b []byte) []byte {
	b = append(b, byte(d.has))
	b = binary.AppendUvarint(b, d.count)
	for i, v := range [...]float64{d.sum, d.min, d.max} {
		if d.has&(1<<i) != 0 {
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
		}
	}
	return b
}

func appendCounts(b []byte, words []uint32, n, width int) []byte {
	if width == 2 {
		for i := range n {
			b = binary.AppendUvarint(b, get64(words[2*i:]))
		}
		return b
	}
	for _, v := range words[:n] {
		b = binary.AppendUvarint(b, uint64(v))
	}
	return b
}

// record is one stream as read from a section.
type record struct {
	id       streamid.ID
	kind     Kind
	seen     uint32 // Unix seconds
	timeline timeline

	number      number
	histogram   histogram
	exponential exponential
}

// recordReader reads the records of one section. It takes any bytes: what it returns is what a Converter could have
// written, or errRecord, and it allocates no more than a small multiple of what it reads.
type recordReader struct {
	rest   []byte
	bounds [][]float64
	err    error
	// Those of the record before.
	seen, start, last int64
}

func readSection(b []byte) recordReader {
	r := recordReader{rest: b}
	n := r.count(1)
	r.bounds = make([][]float64, 0, n)
	for range n {
		bounds := make([]float64, r.count(8))
		previous := math.Inf(-1)
		for i := range bounds {
			bounds[i] = math.Float64frombits(r.uint64())
			if !(bounds[i] > previous) && (i > 0 || !math.IsInf(bounds[i], -1)) {
				r.fail()
			}
			previous = bounds[i]
		}
		r.bounds = append(r.bounds, bounds)
	}
	return r
}

// next reads a record into rec, whose slices it reuses, and reports whether there was one; r.err says if all is well.
func (r *recordReader) next(rec *record) bool {
	if len(r.rest) == 0 || r.err != nil {
		return false
	}
	rec.id = streamid.ID{Hi: r.uint64(), Lo: r.uint64()}
	flags := r.byte()
	r.seen += r.varint()
	r.start += r.varint()
	r.last += r.varint()
	if r.seen < 0 || r.seen > math.MaxUint32 {
		r.fail()
	}
	rec.seen = uint32(r.seen)
	t := &rec.timeline
	*t = timeline{
		start: r.start, last: r.last, emitted: r.last, restarted: flags&recordRestarted != 0, marked: flags&recordMarked != 0,
	}
	if flags&recordAside != 0 {
		r.aside(t)
	}
	// The start of a restart may be after last: it is not before what was emitted.
	if flags&^recordKnown != 0 || t.start < 0 || t.start > t.last && !t.restarted || t.last <= 0 || t.last > maxTime || t.emitted < t.last {
		r.fail()
	}
	rec.kind = Kind(flags & flagKind)
	switch rec.kind {
	case KindSum:
		rec.number.double = flags&recordDouble != 0
		if !rec.number.double {
			rec.number.bits = uint64(r.varint())
			break
		}
		rec.number.bits = r.uint64()
		if !finite(rec.number.float()) {
			r.fail()
		}
	case KindHistogram:
		h := &rec.histogram
		r.distribution(&h.distribution)
		h.bounds = nil
		if i := r.uvarint(); i < uint64(len(r.bounds)) {
			h.bounds = r.bounds[i]
		} else {
			r.fail()
		}
		n := r.count(1)
		if n > maxHistogramBuckets || n != len(h.bounds)+1 && (n != 0 || len(h.bounds) != 0) {
			r.fail()
		}
		h.counts = r.counts(h.counts, n)
	case KindExponentialHistogram:
		e := &rec.exponential
		r.distribution(&e.distribution)
		e.scale = int(int8(r.byte()))
		e.zeroCount = r.uvarint()
		e.zeroThreshold = math.Float64frombits(r.uint64())
		e.ranges[0].offset = int64(int32(r.uint(4)))
		e.ranges[1].offset = int64(int32(r.uint(4)))
		positive, negative := r.count(1), r.count(1)
		if positive > maxBuckets || negative > maxBuckets ||
			e.scale < minScale || e.scale > maxScale || !finite(e.zeroThreshold) || e.zeroThreshold < 0 {
			r.fail()
		}
		e.ranges[0].counts = r.counts(e.ranges[0].counts, positive)
		e.ranges[1].counts = r.counts(e.ranges[1].counts, negative)
		if r.err == nil && !(e.ranges[0].useful(e.scale) && e.ranges[1].useful(e.scale)) {
			r.fail() // no scale may take them and a delta
		}
	default:
		r.fail()
	}
	return r.err == nil
}

func (r *recordReader) aside(t *timeline) {
	t.emitted = int64(r.uint64())
	t.gaps.horizon = int64(r.uint64())
	t.gaps.n = int(r.byte())
	if t.gaps.n > maxGaps || t.gaps.horizon < 0 || t.gaps.horizon > t.last {
		t.gaps.n = 0
		r.fail()
		return
	}
	end := int64(0)
	for i := range t.gaps.n {
		gap := interval{int64(r.uint64()), int64(r.uint64())}
		if gap.start < end || gap.time <= gap.start || gap.time > t.last {
			r.fail()
		}
		t.gaps.gaps[i] = gap
		end = gap.time
	}
}

func (r *recordReader) distribution(d *distribution) {
	d.has = presence(r.byte())
	d.count = r.uvarint()
	if d.has > hasSum|hasMin|hasMax {
		r.fail()
	}
	for i, v := range [...]*float64{&d.sum, &d.min, &d.max} {
		*v = 0
		if d.has&(1<<i) != 0 {
			*v = math.Float64frombits(r.uint64())
		}
	}
	if !d.finite() {
		r.fail()
	}
}

func (r *recordReader) counts(dst []uint64, n int) []uint64 {
	if r.err != nil {
		n = 0
	}
	dst = slices.Grow(dst[:0], n)[:n]
	for i := range dst {
		dst[i] = r.uvarint()
	}
	return dst
}

func (r *recordReader) fail() { r.err, r.rest = errRecord, nil }

func (r *recordReader) uint(size int) uint64 {
	if len(r.rest) < size {
		r.fail()
		return 0
	}
	var v [8]byte
	copy(v[:], r.rest[:size])
	r.rest = r.rest[size:]
	return binary.LittleEndian.Uint64(v[:])
}

func (r *recordReader) byte() byte { return byte(r.uint(1)) }

func (r *recordReader) uint64() uint64 {
	if len(r.rest) < 8 {
		r.fail()
		return 0
	}
	v := binary.LittleEndian.Uint64(r.rest)
	r.rest = r.rest[8:]
	return v
}

func (r *recordReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *recordReader) varint() int64 {
	u := r.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

// count reads the number of things that follow, each of at least the given size: more than there is room for are an error
// before anything is allocated for them.
func (r *recordReader) count(size int) int {
	n := r.uvarint()
	if n > uint64(len(r.rest)/size) {
		r.fail()
		return 0
	}
	return int(n)
}

// put gives the record a slot, its own or a new one, unless the shard is full.
func (sh *shard) put(rec *record) {
	s := sh.find(rec.id)
	if s == nil {
		if s = sh.add(rec.id, rec.kind); s == nil {
			return
		}
	}
	sh.set(s, rec)
}

// set makes the stream in slot s what the record says.
func (sh *shard) set(s *slot, rec *record) {
	if s.kind() != rec.kind {
		// Cannot be, as the kind is part of the identity; but a file may say anything.
		sh.empty(s)
		s.meta = uint32(rec.kind) | flagFresh
	}
	switch rec.kind {
	case KindSum:
		s.setNumber(rec.number)
	case KindHistogram:
		sh.setHistogram(s, &rec.histogram, true)
	case KindExponentialHistogram:
		sh.setExponential(s, &rec.exponential)
	}
	s.meta &^= flagFresh | flagTouched
	s.seen = rec.seen
	sh.setTimeline(s, &rec.timeline)
}
