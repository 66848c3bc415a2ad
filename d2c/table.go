// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"math"
	"math/bits"
	"slices"
	"sync"
	"unsafe"

	"github.com/deltaring/deltaring/streamid"
)

const (
	// shardCount spreads locks and growth: while one shard's index doubles, the others go on.
	shardCount = 64
	shardShift = 64 - 6

	// The first chunksPerSize chunks of a shard have chunkSlots slots, the next as many twice that, and so on: the last,
	// partly empty one is a small part of the shard, and the garbage collector has few chunks to mark. All of the sizes,
	// 12 KiB times a power of two, are such that the Go allocator rounds nothing up.
	chunkShift    = 8
	chunkSlots    = 1 << chunkShift
	chunksPerSize = 16

	// An index entry has the number of a slot, +1, below a tag of hash bits that saves most looks at the wrong slot.
	tagShift = 24
	maxSlots = 1<<tagShift - 1

	minIndex = 16
)

// slot is what a stream costs: 48 bytes without pointers, plus its share of the index.
type slot struct {
	id    streamid.ID
	start int64
	last  int64
	// value has the bits of a sum, or the blockRef of a histogram.
	value uint64
	// seen is when a point was last counted, in seconds of the Converter's clock.
	seen uint32
	// meta has the flags in its low byte and above them the number of the aside, +1.
	meta uint32
}

// The flags of a slot.
const (
	flagKind      = 0b11 // a Kind
	flagDouble    = 1 << 2
	flagRestarted = 1 << 3
	flagMarked    = 1 << 4
	flagFresh     = 1 << 5 // allotted in this batch, nothing added yet
	flagTouched   = 1 << 6 // met in this batch
	flagChanged   = 1 << 7 // changed by this group of batches; of no meaning in memory

	asideShift = 8
)

// aside is what few streams need: those with gaps, or that gave out a time after their last.
type aside struct {
	emitted int64
	gaps    gapSet
}

// shard is a part of the table under one lock.
type shard struct {
	mu     sync.Mutex
	index  []uint32 // open addressing, linear probing, at most 3/4 full; rebuilt rather than deleted from
	n      int
	chunks [][]slot // n slots in use, dense
	room   int      // slots in all chunks
	asides []aside
	free   []uint32 // asides not in use
	blocks slab
	bounds boundsTable
	// tags has those of shared records, by slot; empty unless tagged.
	tags   []uint64
	tagged bool
	// floor is the time up to which streams of this shard may have been lost: none opens at or before it.
	floor int64

	_ [64]byte // keeps the neighbours' locks off this one's cache line
}

// chunkOf returns the number of the chunk that has a slot, the slot's place there, and the chunk's size.
func chunkOf(slot int) (chunk, at, size int) {
	const first = chunkSlots * chunksPerSize // slots in all chunks of the first size
	doubling := bits.Len(uint(slot)/first+1) - 1
	slot -= (1<<doubling - 1) * first
	shift := chunkShift + doubling
	return doubling*chunksPerSize + slot>>shift, slot & (1<<shift - 1), 1 << shift
}

func (sh *shard) slot(i int) *slot {
	chunk, at, _ := chunkOf(i)
	return &sh.chunks[chunk][at]
}

func tagOf(id streamid.ID) uint32 { return uint32(id.Lo>>56) << tagShift }

// find returns the stream's slot, or nil.
func (sh *shard) find(id streamid.ID) *slot {
	s, _ := sh.seek(id)
	return s
}

// seek returns the stream's slot and its number, or nil.
func (sh *shard) seek(id streamid.ID) (*slot, int32) {
	if len(sh.index) == 0 {
		return nil, 0
	}
	tag, mask := tagOf(id), uint64(len(sh.index)-1)
	for i := id.Lo & mask; ; i = (i + 1) & mask {
		entry := sh.index[i]
		if entry == 0 {
			return nil, 0
		}
		if entry>>tagShift == tag>>tagShift {
			if s := sh.slot(int(entry&maxSlots) - 1); s.id == id {
				return s, int32(entry&maxSlots) - 1
			}
		}
	}
}

// add gives the stream, which must not have one, a slot marked fresh; nil if the shard is full.
func (sh *shard) add(id streamid.ID, kind Kind) *slot {
	if sh.n >= maxSlots {
		return nil
	}
	if size := max(len(sh.index), minIndex); (sh.n+1)*4 > len(sh.index)*3 {
		for (sh.n+1)*4 > size*3 { // many may have been appended
			size *= 2
		}
		sh.reindex(size)
	}
	s := sh.append(id, kind)
	sh.enter(id, sh.n)
	return s
}

// append is add for a stream that nobody looks for by its ID.
func (sh *shard) append(id streamid.ID, kind Kind) *slot {
	if sh.n == sh.room {
		_, _, size := chunkOf(sh.n)
		sh.chunks = append(sh.chunks, make([]slot, size))
		sh.room += size
	}
	s := sh.slot(sh.n)
	sh.n++
	*s = slot{id: id, meta: uint32(kind) | flagFresh}
	if sh.tagged {
		sh.tags = append(sh.tags, 0)
	}
	return s
}

func (sh *shard) enter(id streamid.ID, number int) {
	mask := uint64(len(sh.index) - 1)
	i := id.Lo & mask
	for sh.index[i] != 0 {
		i = (i + 1) & mask
	}
	sh.index[i] = tagOf(id) | uint32(number)
}

// reindex makes an index of the given size, a power of two. It reads the slots in order, so it runs at memory bandwidth.
func (sh *shard) reindex(size int) {
	sh.index = make([]uint32, size)
	for i := range sh.n {
		sh.enter(sh.slot(i).id, i+1)
	}
}

// expire forgets the streams last seen more than age before now.
func (sh *shard) expire(now, age uint32) (expired int) {
	return sh.remove(func(s *slot) bool { return now > s.seen && now-s.seen > age })
}

// remove forgets the streams that gone is true for, and gives back the memory that this frees.
func (sh *shard) remove(gone func(*slot) bool) (removed int) {
	for i := 0; i < sh.n; {
		s := sh.slot(i)
		if !gone(s) {
			i++
			continue
		}
		sh.dropValue(s)
		sh.dropAside(s)
		sh.n--
		*s = *sh.slot(sh.n)
		if sh.tagged {
			sh.tags[i] = sh.tags[sh.n]
			sh.tags = sh.tags[:sh.n]
		}
		removed++
	}
	if removed == 0 {
		return 0
	}
	for len(sh.chunks) > 0 {
		last := len(sh.chunks) - 1
		if rest := sh.room - len(sh.chunks[last]); sh.n > rest {
			break
		} else {
			sh.chunks[last] = nil
			sh.chunks, sh.room = sh.chunks[:last], rest
		}
	}
	size := len(sh.index)
	for size > minIndex && sh.n*8 < size*3 { // half of what would make it grow
		size /= 2
	}
	sh.reindex(size)
	sh.compact()
	return removed
}

// compact copies asides and blocks together where most of them are free.
func (sh *shard) compact() {
	if len(sh.free) > len(sh.asides)/2 {
		kept := make([]aside, 0, len(sh.asides)-len(sh.free))
		for i := range sh.n {
			if s := sh.slot(i); s.meta>>asideShift != 0 {
				kept = append(kept, sh.asides[s.meta>>asideShift-1])
				s.meta = s.meta&(1<<asideShift-1) | uint32(len(kept))<<asideShift
			}
		}
		sh.asides, sh.free = kept, nil
	}
	if sh.blocks.sparse() {
		var blocks slab
		for i := range sh.n {
			if s := sh.slot(i); s.kind() != KindSum {
				from := sh.blocks.block(blockRef(s.value))
				ref := blocks.alloc(len(from))
				copy(blocks.block(ref), from)
				s.value = uint64(ref)
			}
		}
		sh.blocks = blocks
	}
}

// clear forgets all streams and keeps the memory, unless that is a lot.
func (sh *shard) clear() {
	const maxKept = 1 << 15 // streams
	if sh.room > maxKept || sh.blocks.bytes > 1<<24 || len(sh.bounds.sets) > 1<<10 {
		*sh = shard{}
		return
	}
	clear(sh.index)
	sh.n = 0
	sh.asides, sh.free = sh.asides[:0], sh.free[:0]
	sh.blocks.clear()
}

// memory returns the bytes that the shard has allocated.
func (sh *shard) memory() int64 {
	return 4*int64(cap(sh.index)) +
		int64(unsafe.Sizeof(slot{}))*int64(sh.room) + int64(unsafe.Sizeof([]slot{}))*int64(cap(sh.chunks)) +
		int64(unsafe.Sizeof(aside{}))*int64(cap(sh.asides)) + 4*int64(cap(sh.free)) +
		8*int64(cap(sh.tags)) + sh.blocks.bytes + sh.bounds.bytes
}

func (s *slot) kind() Kind { return Kind(s.meta & flagKind) }

// timeline unpacks what classification needs.
func (sh *shard) timeline(s *slot, t *timeline) {
	t.start, t.last, t.emitted = s.start, s.last, s.last
	t.restarted = s.meta&flagRestarted != 0
	t.marked = s.meta&flagMarked != 0
	if i := s.meta >> asideShift; i != 0 {
		a := &sh.asides[i-1]
		t.emitted, t.gaps = a.emitted, a.gaps
		return
	}
	t.gaps.n, t.gaps.horizon = 0, 0
}

// emitted returns the latest time given out.
func (sh *shard) emitted(s *slot) int64 {
	if i := s.meta >> asideShift; i != 0 {
		return sh.asides[i-1].emitted
	}
	return s.last
}

// setTimeline packs it again.
func (sh *shard) setTimeline(s *slot, t *timeline) {
	s.start, s.last = t.start, t.last
	s.meta &^= flagRestarted | flagMarked
	if t.restarted {
		s.meta |= flagRestarted
	}
	if t.marked {
		s.meta |= flagMarked
	}
	if t.emitted == t.last && t.gaps.n == 0 && t.gaps.horizon == 0 {
		sh.dropAside(s)
		return
	}
	if s.meta>>asideShift == 0 {
		if n := len(sh.free); n > 0 {
			s.meta |= (sh.free[n-1] + 1) << asideShift
			sh.free = sh.free[:n-1]
		} else {
			sh.asides = append(sh.asides, aside{})
			s.meta |= uint32(len(sh.asides)) << asideShift
		}
	}
	sh.asides[s.meta>>asideShift-1] = aside{t.emitted, t.gaps}
}

func (sh *shard) dropAside(s *slot) {
	if i := s.meta >> asideShift; i != 0 {
		sh.free = append(sh.free, i-1)
		s.meta &= 1<<asideShift - 1
	}
}

func (s *slot) number() number { return number{s.value, s.meta&flagDouble != 0} }

func (s *slot) setNumber(n number) {
	s.value = n.bits
	s.meta &^= flagDouble
	if n.double {
		s.meta |= flagDouble
	}
}

// A histogram's block: a header, then the bucket counts in one word each, or in two if one of them needs it.
const (
	wordCount  = 0
	wordSum    = 2
	wordMin    = 4
	wordMax    = 6
	wordLayout = 8 // presence in the low byte, flagWide, the number of buckets (positive ones) above
	wordBounds = 9 // explicit: reference into the shard's bounds

	headerHistogram = 10

	wordZeroCount     = 9
	wordZeroThreshold = 11
	wordScale         = 13 // scale in the low byte, the number of negative buckets above
	wordOffsets       = 14 // of both ranges

	headerExponential = 16

	flagWide   = 1 << 7
	countShift = 8
)

// Explicit histograms keep as many buckets as their producers send, within what the layout word has bits for.
const maxHistogramBuckets = 1<<(32-countShift) - 1

func widthOf(counts []uint64) int {
	var all uint64
	for _, v := range counts {
		all |= v
	}
	if all > math.MaxUint32 {
		return 2
	}
	return 1
}

// packCounts writes counts, or returns false if one of them needs more words than width; what it has written is of no use
// then. To find the width on the way, and not before, takes 4 % off a histogram point's time.
func packCounts(w []uint32, counts []uint64, width int) bool {
	if width == 2 {
		for i, v := range counts {
			put64(w[2*i:], v)
		}
		return true
	}
	w = w[:len(counts)]
	var all uint64
	for i, v := range counts {
		all |= v
		w[i] = uint32(v)
	}
	return all <= math.MaxUint32
}

// unpackCounts returns dst resized to n counts and filled from w, or the words to fill it from: counts of one word each are
// unpacked on the way to something else.
func unpackCounts(dst []uint64, w []uint32, n int, wide bool) (counts []uint64, narrow []uint32) {
	dst = slices.Grow(dst[:0], n)[:n]
	if !wide {
		return dst, w[:n]
	}
	for i := range dst {
		dst[i] = get64(w[2*i:])
	}
	return dst, nil
}

func (d *distribution) unpack(w []uint32) {
	d.count = get64(w[wordCount:])
	d.sum = math.Float64frombits(get64(w[wordSum:]))
	d.min = math.Float64frombits(get64(w[wordMin:]))
	d.max = math.Float64frombits(get64(w[wordMax:]))
	d.has = presence(w[wordLayout]) & (hasSum | hasMin | hasMax)
	d.wide = w[wordLayout]&flagWide != 0
}

// pack writes the distribution and the layout word.
func (d *distribution) pack(w []uint32, buckets, width int) {
	put64(w[wordCount:], d.count)
	put64(w[wordSum:], math.Float64bits(d.sum))
	put64(w[wordMin:], math.Float64bits(d.min))
	put64(w[wordMax:], math.Float64bits(d.max))
	w[wordLayout] = uint32(d.has) | uint32(buckets)<<countShift
	if width == 2 {
		w[wordLayout] |= flagWide
	}
}

// layout returns the number of buckets and the words each takes.
func layout(w []uint32) (buckets, width int) {
	return int(w[wordLayout] >> countShift), 1 + int(w[wordLayout]&flagWide)/flagWide
}

// histogram unpacks a stream's value into h, but for narrow counts: h.add or h.complete does that.
func (sh *shard) histogram(s *slot, h *histogramTotal) {
	w := sh.blocks.block(blockRef(s.value))
	h.distribution.unpack(w)
	h.counts, h.narrow = unpackCounts(h.counts, w[headerHistogram:], int(w[wordLayout]>>countShift), h.wide)
	h.bounds = sh.bounds.at(w[wordBounds])
}

// setHistogram packs it again. Bounds are looked up only when they may be others.
func (sh *shard) setHistogram(s *slot, h *histogram, newBounds bool) {
	fresh, n, width := s.meta&flagFresh != 0, len(h.counts), 1
	if fresh || h.wide {
		width = widthOf(h.counts)
	}
	w := sh.blockFor(s, headerHistogram+width*n)
	if !packCounts(w[headerHistogram:], h.counts, width) {
		width = 2
		w = sh.blockFor(s, headerHistogram+width*n)
		packCounts(w[headerHistogram:], h.counts, width)
	}
	if newBounds {
		bounds := sh.bounds.intern(h.bounds)
		if !fresh {
			sh.bounds.release(w[wordBounds])
		}
		w[wordBounds] = bounds
	}
	h.pack(w, n, width)
}

// exponential unpacks a stream's value into e, but for narrow counts: e.add or e.complete does that.
func (sh *shard) exponential(s *slot, e *exponentialTotal) {
	w := sh.blocks.block(blockRef(s.value))
	e.distribution.unpack(w)
	e.zeroCount = get64(w[wordZeroCount:])
	e.zeroThreshold = math.Float64frombits(get64(w[wordZeroThreshold:]))
	e.scale = int(int8(w[wordScale]))
	e.ranges[0].offset = int64(int32(w[wordOffsets]))
	e.ranges[1].offset = int64(int32(w[wordOffsets+1]))
	positive, negative := int(w[wordLayout]>>countShift), int(w[wordScale]>>countShift)
	w = w[headerExponential:]
	e.ranges[0].counts, e.narrow[0] = unpackCounts(e.ranges[0].counts, w, positive, e.wide)
	if e.wide {
		positive *= 2
	}
	e.ranges[1].counts, e.narrow[1] = unpackCounts(e.ranges[1].counts, w[positive:], negative, e.wide)
}

// setExponential packs it again.
func (sh *shard) setExponential(s *slot, e *exponential) {
	positive, negative := e.ranges[0].counts, e.ranges[1].counts
	n, width := len(positive)+len(negative), 1
	if s.meta&flagFresh != 0 || e.wide {
		width = max(widthOf(positive), widthOf(negative))
	}
	w := sh.blockFor(s, headerExponential+width*n)
	if !packCounts(w[headerExponential:], positive, width) || !packCounts(w[headerExponential+width*len(positive):], negative, width) {
		width = 2
		w = sh.blockFor(s, headerExponential+width*n)
		packCounts(w[headerExponential:], positive, width)
		packCounts(w[headerExponential+width*len(positive):], negative, width)
	}
	e.pack(w, len(positive), width)
	put64(w[wordZeroCount:], e.zeroCount)
	put64(w[wordZeroThreshold:], math.Float64bits(e.zeroThreshold))
	w[wordScale] = uint32(uint8(e.scale)) | uint32(len(negative))<<countShift
	w[wordOffsets] = uint32(int32(e.ranges[0].offset))
	w[wordOffsets+1] = uint32(int32(e.ranges[1].offset))
}

// blockFor returns a block of n words for the stream: the one it has if that is of the right size, with its content.
func (sh *shard) blockFor(s *slot, n int) []uint32 {
	if s.meta&flagFresh == 0 {
		if ref := blockRef(s.value); sh.blocks.fits(ref, n) {
			return sh.blocks.block(ref)
		}
	}
	ref := sh.blocks.alloc(n)
	w := sh.blocks.block(ref)
	if s.meta&flagFresh == 0 {
		w[wordBounds] = sh.blocks.block(blockRef(s.value))[wordBounds]
		sh.blocks.release(blockRef(s.value))
	}
	s.value = uint64(ref)
	return w
}

// copyFrom makes dst, a slot of sh, what s is in src.
func (sh *shard) copyFrom(dst *slot, src *shard, s *slot) {
	if both := dst.meta | s.meta; both&flagKind == 0 && both>>asideShift == 0 { // nearly all streams
		*dst = *s
		dst.meta &^= flagFresh | flagTouched | flagChanged
		return
	}
	if (dst.meta|s.meta)>>asideShift != 0 {
		var t timeline
		src.timeline(s, &t)
		sh.setTimeline(dst, &t)
	} else {
		const flags = flagRestarted | flagMarked
		dst.start, dst.last = s.start, s.last
		dst.meta = dst.meta&^flags | s.meta&flags
	}
	dst.seen = s.seen
	if s.kind() == KindSum {
		dst.setNumber(s.number())
	} else {
		sh.copyBlock(dst, src, s)
	}
	dst.meta &^= flagFresh
}

func (sh *shard) copyBlock(dst *slot, src *shard, s *slot) {
	from := src.blocks.block(blockRef(s.value))
	n, width := layout(from)
	if s.kind() == KindExponentialHistogram {
		n += int(from[wordScale] >> countShift)
		from = from[:headerExponential+n*width]
		copy(sh.blockFor(dst, len(from)), from)
		return
	}
	from = from[:headerHistogram+n*width]
	fresh := dst.meta&flagFresh != 0
	w := sh.blockFor(dst, len(from))
	bounds, ref := src.bounds.at(from[wordBounds]), w[wordBounds]
	if fresh || !sameSlice(sh.bounds.at(ref), bounds) {
		old := ref
		ref = sh.bounds.share(bounds)
		if !fresh {
			sh.bounds.release(old)
		}
	}
	copy(w, from)
	w[wordBounds] = ref
}

// empty makes the slot what add left it.
func (sh *shard) empty(s *slot) {
	if s.meta&flagFresh == 0 {
		sh.dropValue(s)
		sh.dropAside(s)
	}
	*s = slot{id: s.id, seen: s.seen, meta: uint32(s.kind()) | flagFresh}
}

// dropValue gives back what a histogram's value takes.
func (sh *shard) dropValue(s *slot) {
	switch s.kind() {
	case KindHistogram:
		sh.bounds.release(sh.blocks.block(blockRef(s.value))[wordBounds])
		fallthrough
	case KindExponentialHistogram:
		sh.blocks.release(blockRef(s.value))
	}
}
