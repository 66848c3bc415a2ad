// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package table

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/deltaring/deltaring/d2c/internal/fold"
	"github.com/deltaring/deltaring/streamid"
)

// The state of streams outside the table, version 1. Numbers are little-endian or, where named so, varints; those that are
// signed are so in zigzag.
//
//	record   id 16, flags 1, fingerprint of the latest delta 3, seen (Unix seconds), start and last, [aside], [memory], value
//	         (the three times signed varints: by how much more than that of the record before in the section, or than zero)
//	aside    emitted 8, horizon 8, number of gaps 1, gaps of 16 each (start, end)
//	memory   n varint, n times the fingerprint of a delta 8, when it was counted 4 (Unix seconds)
//	sum      an int64 as a signed varint, or a float64 8
//	histogram    distribution, bounds varint (number in the section's list), n varint, n counts varint
//	exponential  distribution, scale 1, zero count varint, zero threshold 8, 2 offsets of 4, 2 n varint, counts varint
//	distribution presence 1, count varint, then sum, min, max of 8 each if present
//	section  number of bounds varint, each n varint and n float64; then records to the end
//	single   seen (Unix seconds) 4, bounds as in a section, then one record without its id, whose three times are relative to seen
//
// A record is the state after a commit, not the change: applying it twice, or after a newer fold, does no harm, and
// reading it needs none of the rules that made it. Streams of one producer share their times, so that records of sums tend to
// have 24 to 33 bytes; a quarter of what a commit costs is for its bytes.

// The flags of a record. The low bits are a Kind.
const (
	recordDouble    = 1 << 2
	recordRestarted = 1 << 3
	recordMarked    = 1 << 4
	recordAside     = 1 << 5
	recordMemory    = 1 << 6
	recordRole      = 1 << 7
)

// recordHeader is the size of what all records begin with, maxRecordSum more than that of any sum without an aside.
const (
	recordHeader = 16 + 1 + 3
	maxRecordSum = recordHeader + 4*binary.MaxVarintLen64
)

// second is that of timestamps.
const second = int64(time.Second)

var errRecord = errors.New("malformed record")

// RecordWriter writes the records of one section.
type RecordWriter struct {
	// Records has those written since the last Reset.
	Records []byte
	// bounds of histograms are written once per section.
	bounds [][]float64
	memory []Remembered // scratch
	// Those of the record before.
	seen, start, last int64
}

// Reset begins another section.
func (w *RecordWriter) Reset() {
	w.Records = w.Records[:0]
	clear(w.bounds)
	w.bounds = w.bounds[:0]
	w.seen, w.start, w.last = 0, 0, 0
}

// Add writes the stream in the slot of sh with a number; epoch is the Unix time of the clock that its Seen counts from.
func (w *RecordWriter) Add(sh *Shard, number int, epoch int64) {
	s := sh.Slot(number)
	flags := byte(s.Kind())
	if s.Role != RoleStream {
		flags |= recordRole
	}
	if s.Meta&flagDouble != 0 {
		flags |= recordDouble
	}
	if s.Meta&FlagRestarted != 0 {
		flags |= recordRestarted
	}
	if s.Meta&flagMarked != 0 {
		flags |= recordMarked
	}
	if s.Meta>>asideShift != 0 {
		flags |= recordAside
		if sh.memory(s) != 0 {
			flags |= recordMemory
		}
	}
	seen := max(epoch+int64(s.Seen), 0)
	n := len(w.Records)
	b := slices.Grow(w.Records, maxRecordSum)[:n+maxRecordSum]
	binary.LittleEndian.PutUint64(b[n:], s.ID.Hi)
	binary.LittleEndian.PutUint64(b[n+8:], s.ID.Lo)
	b[n+16], b[n+17], b[n+18], b[n+19] = flags, byte(s.print), byte(s.print>>8), byte(s.print>>16)
	n += recordHeader
	n += putVarint(b[n:], seen-w.seen)
	n += putVarint(b[n:], s.start-w.start)
	n += putVarint(b[n:], s.last-w.last)
	w.seen, w.start, w.last = seen, s.start, s.last
	if flags&(flagKind|recordAside|recordDouble|recordRole) == 0 { // nearly all records
		n += putVarint(b[n:], int64(s.value))
		w.Records = b[:n]
		return
	}
	b = b[:n]
	if flags&recordRole != 0 {
		owner := sh.Owner(number)
		if s.Role == RoleTotal {
			owner &^= writersMask // others know other writers
		}
		b = append(b, byte(s.Role))
		b = binary.LittleEndian.AppendUint64(b, owner)
	}
	if flags&recordAside != 0 {
		var t fold.Timeline
		sh.Timeline(s, &t)
		b = binary.LittleEndian.AppendUint64(b, uint64(t.Emitted))
		b = binary.LittleEndian.AppendUint64(b, uint64(t.Gaps.Horizon))
		b = append(b, byte(t.Gaps.N))
		for _, gap := range t.Gaps.Gaps[:t.Gaps.N] {
			b = binary.LittleEndian.AppendUint64(b, uint64(gap.Start))
			b = binary.LittleEndian.AppendUint64(b, uint64(gap.Time))
		}
	}
	if flags&recordMemory != 0 {
		w.memory = sh.appendMemory(w.memory[:0], s)
		b = binary.AppendUvarint(b, uint64(len(w.memory)))
		for _, r := range w.memory {
			b = binary.LittleEndian.AppendUint64(b, r.Print)
			b = binary.LittleEndian.AppendUint32(b, r.At)
		}
	}
	switch s.Kind() {
	case KindSum:
		if flags&recordDouble != 0 {
			b = binary.LittleEndian.AppendUint64(b, s.value)
		} else {
			b = binary.AppendVarint(b, int64(s.value))
		}
	case KindHistogram:
		block := sh.blocks.block(blockRef(s.value))
		buckets, width := layout(block)
		b = appendPacked(b, block)
		b = binary.AppendUvarint(b, w.boundsNumber(sh.bounds.at(block[wordBounds])))
		b = binary.AppendUvarint(b, uint64(buckets))
		b = appendCounts(b, block[headerHistogram:], buckets, width)
	case KindExponentialHistogram:
		block := sh.blocks.block(blockRef(s.value))
		positive, width := layout(block)
		negative := int(block[wordScale] >> countShift)
		b = appendPacked(b, block)
		b = append(b, byte(block[wordScale]))
		b = binary.AppendUvarint(b, get64(block[wordZeroCount:]))
		b = binary.LittleEndian.AppendUint64(b, get64(block[wordZeroThreshold:]))
		b = binary.LittleEndian.AppendUint32(b, block[wordOffsets])
		b = binary.LittleEndian.AppendUint32(b, block[wordOffsets+1])
		b = binary.AppendUvarint(b, uint64(positive))
		b = binary.AppendUvarint(b, uint64(negative))
		b = appendCounts(b, block[headerExponential:], positive+negative, width)
	}
	w.Records = b
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
func (w *RecordWriter) boundsNumber(bounds []float64) uint64 {
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

// AppendSingle appends a single record, for a store that keeps it under its identity. It is about 25 bytes shorter than a section of one record.
func (w *RecordWriter) AppendSingle(b []byte, sh *Shard, number int, epoch int64) []byte {
	w.Reset()
	seen := uint32(max(epoch+int64(sh.Slot(number).Seen), 0))
	w.seen, w.start, w.last = int64(seen), int64(seen)*second, int64(seen)*second
	w.Add(sh, number, epoch)
	b = binary.LittleEndian.AppendUint32(b, seen)
	b = w.appendBounds(b)
	return append(b, w.Records[16:]...)
}

// Append writes the section.
func (w *RecordWriter) Append(b []byte) []byte { return append(w.appendBounds(b), w.Records...) }

func (w *RecordWriter) appendBounds(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(w.bounds)))
	for _, bounds := range w.bounds {
		b = binary.AppendUvarint(b, uint64(len(bounds)))
		for _, v := range bounds {
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
		}
	}
	return b
}

func appendPacked(b []byte, block []uint32) []byte {
	var d fold.Distribution
	unpackDistribution(&d, (*distributionHeader)(block))
	return AppendDistribution(b, &d)
}

// AppendDistribution appends a distribution as records have it.
func AppendDistribution(b []byte, d *fold.Distribution) []byte {
	b = append(b, byte(d.Has))
	b = binary.AppendUvarint(b, d.Count)
	for i, v := range [...]float64{d.Sum, d.Min, d.Max} {
		if d.Has&(1<<i) != 0 {
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

// Record is one stream as read from a section.
type Record struct {
	ID       streamid.ID
	Kind     Kind
	Seen     uint32 // Unix seconds
	Timeline fold.Timeline
	Memory   []Remembered // of many writers
	Role     Role
	Owner    uint64 // what a total or a writer has besides: see Role

	Number      fold.Number
	Histogram   fold.Histogram
	Exponential fold.Exponential
}

// RecordReader reads the records of one section. It takes any bytes: what it returns is what a Converter could have
// written, or errRecord, and it allocates no more than a small multiple of what it reads.
type RecordReader struct {
	Rest   []byte // not read yet
	bounds [][]float64
	Err    error // what ended it, nil at the end of the section
	// Those of the record before.
	seen, start, last int64
}

// ReadSection begins to read a section.
func ReadSection(b []byte) RecordReader {
	r := RecordReader{Rest: b}
	r.readBounds()
	return r
}

// ReadSingle reads a section of one record, of the stream with an identity, into rec, whose slices it reuses.
func ReadSingle(b []byte, id streamid.ID, rec *Record) error {
	r := RecordReader{Rest: b}
	r.seen = int64(r.uint(4))
	r.start, r.last = r.seen*second, r.seen*second
	r.readBounds()
	if rec.ID = id; r.Err == nil && (!r.record(rec) || len(r.Rest) > 0) {
		r.fail()
	}
	return r.Err
}

func (r *RecordReader) readBounds() {
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
}

// Next reads a record into rec, whose slices it reuses, and reports whether there was one; r.err says if all is well.
func (r *RecordReader) Next(rec *Record) bool {
	if len(r.Rest) == 0 || r.Err != nil {
		return false
	}
	rec.ID = streamid.ID{Hi: r.uint64(), Lo: r.uint64()}
	return r.record(rec)
}

// record reads what comes behind the identity.
func (r *RecordReader) record(rec *Record) bool {
	flags := r.byte()
	print := uint32(r.uint(3))
	r.seen += r.varint()
	r.start += r.varint()
	r.last += r.varint()
	if r.seen < 0 || r.seen > math.MaxUint32 {
		r.fail()
	}
	rec.Seen = uint32(r.seen)
	t := &rec.Timeline
	*t = fold.Timeline{
		Start: r.start, Last: r.last, Emitted: r.last, Print: print, Restarted: flags&recordRestarted != 0, Marked: flags&recordMarked != 0,
	}
	rec.Role, rec.Owner = RoleStream, 0
	if flags&recordRole != 0 {
		rec.Role = Role(r.byte())
		rec.Owner = r.uint64()
		if rec.Role == RoleStream || rec.Role >= numRoles || rec.Role == RoleTotal && rec.Owner&writersMask != 0 {
			r.fail()
		}
	}
	if flags&recordAside != 0 {
		r.aside(t)
	}
	rec.Memory = rec.Memory[:0]
	if flags&recordMemory != 0 {
		n := r.count(12)
		if n > 2*MaxMemory {
			r.fail()
		}
		for range n {
			m := Remembered{r.uint64(), uint32(r.uint(4))}
			if m.Print == 0 {
				r.fail()
			}
			rec.Memory = append(rec.Memory, m)
		}
	}
	// The start of a restart may be after last, but not after what was emitted.
	if t.Start < 0 || t.Start > t.Emitted || t.Last <= 0 || t.Last > fold.MaxTime || t.Emitted < t.Last {
		r.fail()
	}
	rec.Kind = Kind(flags & flagKind)
	switch rec.Kind {
	case KindSum:
		rec.Number.Double = flags&recordDouble != 0
		if !rec.Number.Double {
			rec.Number.Bits = uint64(r.varint())
			break
		}
		rec.Number.Bits = r.uint64()
		if !fold.Finite(rec.Number.Float()) {
			r.fail()
		}
	case KindHistogram:
		h := &rec.Histogram
		r.distribution(&h.Distribution)
		h.Bounds = nil
		if i := r.uvarint(); i < uint64(len(r.bounds)) {
			h.Bounds = r.bounds[i]
		} else {
			r.fail()
		}
		n := r.count(1)
		if n > MaxHistogramBuckets || n != len(h.Bounds)+1 && (n != 0 || len(h.Bounds) != 0) {
			r.fail()
		}
		h.Counts = r.counts(h.Counts, n)
	case KindExponentialHistogram:
		e := &rec.Exponential
		r.distribution(&e.Distribution)
		e.Scale = int(int8(r.byte()))
		e.ZeroCount = r.uvarint()
		e.ZeroThreshold = math.Float64frombits(r.uint64())
		e.Ranges[0].Offset = int64(int32(r.uint(4)))
		e.Ranges[1].Offset = int64(int32(r.uint(4)))
		positive, negative := r.count(1), r.count(1)
		if positive > fold.MaxBuckets || negative > fold.MaxBuckets ||
			e.Scale < fold.MinScale || e.Scale > fold.MaxScale || !fold.Finite(e.ZeroThreshold) || e.ZeroThreshold < 0 {
			r.fail()
		}
		e.Ranges[0].Counts = r.counts(e.Ranges[0].Counts, positive)
		e.Ranges[1].Counts = r.counts(e.Ranges[1].Counts, negative)
		if r.Err == nil && !(e.Ranges[0].Useful(e.Scale) && e.Ranges[1].Useful(e.Scale)) {
			r.fail() // no scale may take them and a delta
		}
	default:
		r.fail()
	}
	return r.Err == nil
}

func (r *RecordReader) aside(t *fold.Timeline) {
	t.Emitted = int64(r.uint64())
	t.Gaps.Horizon = int64(r.uint64())
	t.Gaps.N = int(r.byte())
	if t.Gaps.N > fold.MaxGaps || t.Gaps.Horizon < 0 || t.Gaps.Horizon >= t.Last {
		t.Gaps.N = 0
		r.fail()
		return
	}
	end := int64(0)
	for i := range t.Gaps.N {
		gap := fold.Interval{Start: int64(r.uint64()), Time: int64(r.uint64())}
		if gap.Start < end || gap.Time <= gap.Start || gap.Time > t.Last {
			r.fail()
		}
		t.Gaps.Gaps[i] = gap
		end = gap.Time
	}
}

func (r *RecordReader) distribution(d *fold.Distribution) {
	d.Has = fold.Presence(r.byte())
	d.Count = r.uvarint()
	if d.Has > fold.HasSum|fold.HasMin|fold.HasMax {
		r.fail()
	}
	for i, v := range [...]*float64{&d.Sum, &d.Min, &d.Max} {
		*v = 0
		if d.Has&(1<<i) != 0 {
			*v = math.Float64frombits(r.uint64())
		}
	}
	if !d.Finite() {
		r.fail()
	}
}

func (r *RecordReader) counts(dst []uint64, n int) []uint64 {
	if r.Err != nil {
		n = 0
	}
	dst = slices.Grow(dst[:0], n)[:n]
	for i := range dst {
		dst[i] = r.uvarint()
	}
	return dst
}

func (r *RecordReader) fail() { r.Err, r.Rest = errRecord, nil }

func (r *RecordReader) uint(size int) uint64 {
	if len(r.Rest) < size {
		r.fail()
		return 0
	}
	var v [8]byte
	copy(v[:], r.Rest[:size])
	r.Rest = r.Rest[size:]
	return binary.LittleEndian.Uint64(v[:])
}

func (r *RecordReader) byte() byte { return byte(r.uint(1)) }

func (r *RecordReader) uint64() uint64 {
	if len(r.Rest) < 8 {
		r.fail()
		return 0
	}
	v := binary.LittleEndian.Uint64(r.Rest)
	r.Rest = r.Rest[8:]
	return v
}

func (r *RecordReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.Rest)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.Rest = r.Rest[n:]
	return v
}

func (r *RecordReader) varint() int64 {
	u := r.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

// count reads the number of things that follow, each of at least the given size: more than there is room for are an error
// before anything is allocated for them.
func (r *RecordReader) count(size int) int {
	n := r.uvarint()
	if n > uint64(len(r.Rest)/size) {
		r.fail()
		return 0
	}
	return int(n)
}

// Put gives the record a slot, its own or a new one, and returns its number; -1 if the shard is full.
func (sh *Shard) Put(rec *Record) (number int) {
	s, n := sh.Seek(rec.ID)
	if s == nil {
		if s = sh.Add(rec.ID, rec.Kind); s == nil {
			return -1
		}
		n = int32(sh.N - 1)
	}
	sh.Set(s, rec)
	if sh.aggregates {
		owner := rec.Owner
		if rec.Role == RoleTotal { // an entry may be older than what the checkpoint knows to be forgotten
			owner = WithHorizon(owner, Horizon(sh.Owner(int(n))))
		}
		sh.SetOwner(int(n), owner)
	}
	return int(n)
}

// Set makes the stream in slot s what the record says.
func (sh *Shard) Set(s *Slot, rec *Record) {
	if s.Kind() != rec.Kind {
		// Cannot be, as the kind is part of the identity; but a file may say anything.
		sh.Empty(s)
		s.Meta = uint32(rec.Kind) | FlagFresh
	}
	switch rec.Kind {
	case KindSum:
		s.SetNumber(rec.Number)
	case KindHistogram:
		sh.SetHistogram(s, &rec.Histogram, true)
	case KindExponentialHistogram:
		sh.SetExponential(s, &rec.Exponential)
	}
	s.Meta &^= FlagFresh
	s.Seen, s.Role = rec.Seen, rec.Role
	sh.SetTimeline(s, &rec.Timeline)
	if sh.asides.form == memoryAside {
		sh.recall(s, rec.Memory)
	}
}

// Read makes of what the shard has of a stream what it would be read as.
func (sh *Shard) Read(s *Slot, r *Record) {
	r.ID, r.Kind, r.Role = s.ID, s.Kind(), s.Role
	sh.Timeline(s, &r.Timeline)
	r.Memory = sh.appendMemory(r.Memory[:0], s)
	switch r.Kind {
	case KindSum:
		r.Number = s.Number()
	case KindHistogram:
		h := fold.HistogramTotal{Histogram: r.Histogram}
		sh.Histogram(s, &h)
		h.Complete()
		r.Histogram = h.Histogram
	case KindExponentialHistogram:
		e := fold.ExponentialTotal{Exponential: r.Exponential}
		sh.Exponential(s, &e)
		e.Complete()
		r.Exponential = e.Exponential
	}
}

// Clone returns a copy that shares nothing with r.
func (r *Record) Clone() *Record {
	c := *r
	c.Memory = slices.Clone(r.Memory)
	c.Histogram.Bounds, c.Histogram.Counts = slices.Clone(r.Histogram.Bounds), slices.Clone(r.Histogram.Counts)
	for i := range c.Exponential.Ranges {
		c.Exponential.Ranges[i].Counts = slices.Clone(r.Exponential.Ranges[i].Counts)
	}
	return &c
}

// Fingerprint returns a hash of the record's start and value.
func (r *Record) Fingerprint() uint64 {
	b := append(make([]byte, 0, 512), byte(r.Kind))
	b = binary.LittleEndian.AppendUint64(b, uint64(r.Timeline.Start))
	switch r.Kind {
	case KindSum:
		b = binary.LittleEndian.AppendUint64(b, r.Number.Bits)
		if r.Number.Double {
			b = append(b, 1)
		}
	case KindHistogram:
		b = AppendDistribution(b, &r.Histogram.Distribution)
		b = appendWords(b, r.Histogram.Counts...)
		for _, bound := range r.Histogram.Bounds {
			b = appendWords(b, math.Float64bits(bound))
		}
	case KindExponentialHistogram:
		e := &r.Exponential
		b = AppendDistribution(b, &e.Distribution)
		b = appendWords(b, uint64(e.Scale), e.ZeroCount, math.Float64bits(e.ZeroThreshold))
		for i := range e.Ranges {
			b = appendWords(b, uint64(e.Ranges[i].Offset), uint64(len(e.Ranges[i].Counts)))
			b = appendWords(b, e.Ranges[i].Counts...)
		}
	}
	return xxh3.Hash(b)
}

func appendWords(b []byte, words ...uint64) []byte {
	for _, v := range words {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}
