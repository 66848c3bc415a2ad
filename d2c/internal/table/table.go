// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package table

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"sync"
	"unsafe"

	"github.com/deltaring/deltaring/d2c/internal/fold"
	"github.com/deltaring/deltaring/streamid"
)

const (
	// ShardCount spreads locks and growth: while one shard's index doubles, the others go on.
	ShardCount = 64
	shardShift = 64 - 6

	// The first chunksPerSize chunks of a shard have chunkSlots slots, the next as many twice that, and so on: the last,
	// partly empty one is a small part of the shard, and the garbage collector has few chunks to mark. All of the sizes,
	// 14 KiB times a power of two, are such that the Go allocator rounds nothing up.
	chunkShift    = 8
	chunkSlots    = 1 << chunkShift
	chunksPerSize = 32

	// An index entry has the number of a slot, +1, below a tag of hash bits that saves most looks at the wrong slot.
	tagShift = 24
	// MaxSlots is the number of streams that a shard has room for.
	MaxSlots = 1<<tagShift - 1

	minIndex = 16
)

// Table holds all streams.
type Table struct {
	Shards [ShardCount]Shard
	key    Key

	families *Families // nil unless streams have names
}

// Key says where in a table a stream is. It is secret: who chooses the attributes of streams must not choose that two of them
// meet in the index, or that all wait for one lock.
type Key [2]uint64

// NewKey returns a random key.
func NewKey() Key { return Key{rand.Uint64(), rand.Uint64()} }

// hash returns a number whose first bits say the shard, and whose last ones the place in its index. One product would not do: with
// one half the same in all identities it is a straight line, and in one of twenty keys the line comes back to where it was.
func (k *Key) hash(id streamid.ID) uint64 {
	hi, lo := bits.Mul64(id.Lo^k[0], id.Hi^k[1])
	hi, lo = bits.Mul64(hi^lo, 0x9e3779b97f4a7c15)
	return hi ^ lo
}

// New returns an empty table, for streams under some rules.
func New(key Key, rules *fold.Rules) *Table {
	t := &Table{}
	t.Rekey(key)
	form := narrowAside
	switch {
	case rules.Writers == fold.WritersMany:
		form = memoryAside
	case rules.LateWindow >= 1<<40:
		form = wideAside
	}
	for i := range t.Shards {
		t.Shards[i].asides.form = form
	}
	return t
}

// Rekey gives an empty table another key.
func (t *Table) Rekey(key Key) {
	t.key = key
	for i := range t.Shards {
		t.Shards[i].key = key
	}
}

// Key returns the table's key.
func (t *Table) Key() Key { return t.key }

// ShardOf returns the number of the shard that a stream is in.
func (t *Table) ShardOf(id streamid.ID) int { return int(t.key.hash(id) >> shardShift) }

// Tag has the table keep a tag for each stream.
func (t *Table) Tag() {
	for i := range t.Shards {
		t.Shards[i].Tagged = true
	}
}

// Memory returns the bytes allocated for all streams. It locks one shard at a time.
func (t *Table) Memory() (n int64) {
	for i := range t.Shards {
		sh := &t.Shards[i]
		sh.Lock()
		n += sh.Memory()
		sh.Unlock()
	}
	if t.families != nil {
		n += t.families.memory()
	}
	return n
}

// SetLike makes the shard, which is empty, one for streams that come from t.
func (sh *Shard) SetLike(t *Table) {
	sh.key = t.key
	if sh.aggregates = t.Shards[0].aggregates; sh.aggregates {
		sh.aggregate()
	}
	if form := t.Shards[0].asides.form; sh.asides.form != form {
		sh.asides = asides{form: form}
	}
}

// Key returns the shard's key.
func (sh *Shard) Key() Key { return sh.key }

// Tag returns the tag of the stream with a number, zero where there are none.
func (sh *Shard) Tag(number int) uint64 {
	if !sh.Tagged {
		return 0
	}
	return sh.Tags[number]
}

// SetTag sets the tag of the stream with a number, where there are tags.
func (sh *Shard) SetTag(number int, tag uint64) {
	if sh.Tagged {
		sh.Tags[number] = tag
	}
}

// Slot is what a stream costs: 56 bytes without pointers, plus its share of the index.
type Slot struct {
	ID    streamid.ID
	start int64
	last  int64
	// value has the bits of a sum, or the blockRef of a histogram.
	value uint64
	// Seen is when a point was last counted, in seconds of the Converter's clock.
	Seen uint32
	// Meta has the flags in its low byte and above them the number of the aside, +1.
	Meta uint32
	// print is the fingerprint of the delta that was counted last.
	print uint32
	// Period is that of the route by which the stream was counted last, zero if unknown.
	Period uint8
	// Role says what the slot is for, where streams are made of others.
	Role Role
	// Rule is the rule that makes a total, +1, once a point has come by it.
	Rule uint8
	// Due says of a total that it has what was not given out, where that is not done with batches.
	Due bool
}

// The flags of a slot.
const (
	flagKind      = 0b11 // a Kind
	flagDouble    = 1 << 2
	FlagRestarted = 1 << 3 // takes nothing from before its start
	flagMarked    = 1 << 4 // what was given out last is a "no recorded value" point
	FlagFresh     = 1 << 5 // allotted in this batch, nothing added yet
	FlagTouched   = 1 << 6 // met in this batch
	FlagChanged   = 1 << 7 // changed by this group of batches; of no meaning in memory

	asideShift = 8
)

// Shard is a part of the table under one lock.
type Shard struct {
	sync.Mutex
	key    Key
	index  []uint32 // open addressing, linear probing, at most 3/4 full; rebuilt rather than deleted from
	N      int      // streams
	chunks [][]Slot // N slots in use, dense
	room   int      // slots in all chunks
	asides asides
	blocks slab
	bounds boundsTable
	// Tags has those of shared records, by slot; empty unless tagged.
	Tags   []uint64
	Tagged bool // state is shared
	// owners has what slots of totals and writers have besides, by slot and chunk: see Role. Empty unless there may be such.
	owners     [][]uint64
	aggregates bool
	// Names of streams, by slot and chunk; empty unless streams have names.
	names    [][]name
	families *Families
	// Floor is the time up to which streams of this shard may have been lost: none opens at or before it.
	Floor int64
	// Moves counts the removals that gave streams other numbers.
	Moves uint64

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

// Slot returns the slot with that number, which is below N.
func (sh *Shard) Slot(i int) *Slot {
	chunk, at, _ := chunkOf(i)
	return &sh.chunks[chunk][at]
}

func tagOf(hash uint64) uint32 { return uint32(hash>>48) << tagShift }

// Find returns the stream's slot, or nil.
func (sh *Shard) Find(id streamid.ID) *Slot {
	s, _ := sh.Seek(id)
	return s
}

// Seek returns the stream's slot and its number, or nil.
func (sh *Shard) Seek(id streamid.ID) (*Slot, int32) {
	if len(sh.index) == 0 {
		return nil, 0
	}
	hash := sh.key.hash(id)
	tag := tagOf(hash)
	for i := placeIn(len(sh.index), hash); ; i++ {
		if i == len(sh.index) {
			i = 0
		}
		entry := sh.index[i]
		if entry == 0 {
			return nil, 0
		}
		if entry>>tagShift == tag>>tagShift {
			if s := sh.Slot(int(entry&MaxSlots) - 1); s.ID == id {
				return s, int32(entry&MaxSlots) - 1
			}
		}
	}
}

// placeIn is where in an index of some size the look for a stream begins. Places rise with the hash, so that an index is read
// and written in order when it grows. It grows by a quarter and not by all of its size: a seventh of the memory of a sum.
func placeIn(size int, hash uint64) int { return int(uint64(uint32(hash)) * uint64(size) >> 32) }

// indexFor returns the size of an index for n streams, if the one there is has some size: a multiple of minIndex.
func indexFor(n, size int) int {
	for size = max(size, minIndex); n*4 > size*3; { // many may have been appended
		size += max(size/4/minIndex, 1) * minIndex
	}
	return size
}

// Add gives the stream, which must not have one, a slot marked fresh; nil if the shard is full.
func (sh *Shard) Add(id streamid.ID, kind Kind) *Slot {
	if sh.N >= MaxSlots {
		return nil
	}
	if size := indexFor(sh.N+1, len(sh.index)); size != len(sh.index) {
		sh.reindex(size)
	}
	s := sh.Append(id, kind)
	sh.enter(id, sh.N)
	return s
}

// Append is add for a stream that nobody looks for by its ID.
func (sh *Shard) Append(id streamid.ID, kind Kind) *Slot {
	if sh.N == sh.room {
		_, _, size := chunkOf(sh.N)
		sh.chunks = append(sh.chunks, make([]Slot, size))
		sh.room += size
		if sh.families != nil {
			sh.names = append(sh.names, make([]name, size))
		}
		if sh.aggregates {
			sh.owners = append(sh.owners, make([]uint64, size))
		}
	}
	s := sh.Slot(sh.N)
	sh.N++
	*s = Slot{ID: id, Meta: uint32(kind) | FlagFresh}
	if sh.Tagged {
		sh.Tags = append(sh.Tags, 0)
	}
	sh.SetOwner(sh.N-1, 0)
	return s
}

func (sh *Shard) enter(id streamid.ID, number int) {
	hash := sh.key.hash(id)
	i := placeIn(len(sh.index), hash)
	for sh.index[i] != 0 {
		if i++; i == len(sh.index) {
			i = 0
		}
	}
	sh.index[i] = tagOf(hash) | uint32(number)
}

// reindex makes an index of the given size. It reads the slots in order, so it runs at memory bandwidth.
func (sh *Shard) reindex(size int) {
	sh.index = make([]uint32, size)
	for i := range sh.N {
		sh.enter(sh.Slot(i).ID, i+1)
	}
}

// Expire forgets the streams last seen more than age before now. It returns how many these are, and from when on a stream may
// start that may be one of them: see fold.Lives. at is the time of now, in Unix nanoseconds.
func (sh *Shard) Expire(now, age uint32, at int64) (expired, writers int, free int64) {
	forgotten := sh.forgotten()
	expired = sh.Remove(func(number int, s *Slot) bool {
		if now <= s.Seen || now-s.Seen <= age {
			return false
		}
		if s.Role.Writes() {
			forgotten.add(sh, number, s)
			writers++
			return true
		}
		free = max(free, sh.Emitted(s), s.start+1)
		return true
	})
	forgotten.tell(sh, at)
	return expired - writers, writers, free
}

// ForgetPeriods makes those periods unknown that are stale. It locks the shard.
func (sh *Shard) ForgetPeriods(stale *[256]bool) {
	sh.Lock()
	defer sh.Unlock()
	for i := range sh.N {
		if s := sh.Slot(i); stale[s.Period] {
			s.Period = 0
		}
	}
}

// Remove forgets the streams that gone is true for, and gives back the memory that this frees. It goes from the last slot to
// the first: what takes the place of a stream that goes has been asked about, and gone is given the number that each slot
// had before.
func (sh *Shard) Remove(gone func(number int, s *Slot) bool) (removed int) {
	for i := sh.N - 1; i >= 0; i-- {
		s := sh.Slot(i)
		if !gone(i, s) {
			continue
		}
		if s.Meta&FlagFresh == 0 {
			sh.dropValue(s)
		}
		sh.dropAside(s)
		if sh.families != nil {
			sh.Unname(i)
		}
		sh.N--
		if sh.families != nil {
			*sh.nameAt(i) = *sh.nameAt(sh.N)
			*sh.nameAt(sh.N) = name{}
		}
		*s = *sh.Slot(sh.N)
		if sh.Tagged {
			sh.Tags[i] = sh.Tags[sh.N]
			sh.Tags = sh.Tags[:sh.N]
		}
		sh.SetOwner(i, sh.Owner(sh.N))
		removed++
	}
	if removed == 0 {
		return 0
	}
	sh.Moves++
	for len(sh.chunks) > 0 {
		last := len(sh.chunks) - 1
		if rest := sh.room - len(sh.chunks[last]); sh.N > rest {
			break
		} else {
			sh.chunks[last] = nil
			if sh.families != nil {
				sh.names[last] = nil
				sh.names = sh.names[:last]
			}
			if sh.aggregates {
				sh.owners[last] = nil
				sh.owners = sh.owners[:last]
			}
			sh.chunks, sh.room = sh.chunks[:last], rest
		}
	}
	size := len(sh.index)
	if sh.N*8 < size*3 { // half of what would make it grow
		size = indexFor(sh.N+sh.N/8, 0)
	}
	sh.reindex(size)
	sh.compact()
	return removed
}

// compact copies asides and blocks together where most of them are free.
func (sh *Shard) compact() {
	if sh.asides.sparse() {
		kept := asides{form: sh.asides.form}
		for i := range sh.N {
			if s := sh.Slot(i); s.Meta>>asideShift != 0 {
				n := kept.add()
				copy(kept.at(n), sh.asides.at(s.Meta>>asideShift-1))
				s.Meta = s.Meta&(1<<asideShift-1) | (n+1)<<asideShift
			}
		}
		sh.asides = kept
	}
	if sh.blocks.sparse() {
		sh.compactBlocks()
	}
}

// compactBlocks copies blocks together. Those that were looked at keep their contents, and are not the streams' any more.
func (sh *Shard) compactBlocks() {
	var blocks slab
	move := func(ref blockRef) blockRef {
		from := sh.blocks.block(ref)
		ref = blocks.alloc(len(from))
		copy(blocks.block(ref), from)
		return ref
	}
	for i := range sh.N {
		s := sh.Slot(i)
		if s.Kind() != KindSum && s.Meta&FlagFresh == 0 {
			s.value = uint64(move(blockRef(s.value)))
		}
		if ref := sh.memory(s); ref != 0 {
			sh.setMemory(s, move(ref-1)+1)
		}
		if sh.families != nil && sh.Named(i) {
			n := sh.nameAt(i)
			ref := move(n.ref())
			n.class, n.place = uint32(ref>>32), uint32(ref)
		}
	}
	sh.blocks = blocks
}

// Clear forgets all streams and keeps the memory, unless that is a lot.
func (sh *Shard) Clear() {
	const maxKept = 1 << 15 // streams
	if sh.room > maxKept || sh.blocks.bytes > 1<<24 || len(sh.bounds.sets) > 1<<10 {
		sh.index, sh.N, sh.chunks, sh.room, sh.owners = nil, 0, nil, 0, nil
		sh.asides, sh.blocks, sh.bounds = asides{form: sh.asides.form}, slab{}, boundsTable{}
		return
	}
	clear(sh.index)
	sh.N = 0
	sh.asides.clear()
	sh.blocks.clear()
}

// Memory returns the bytes that the shard has allocated.
func (sh *Shard) Memory() int64 {
	return 4*int64(cap(sh.index)) +
		int64(unsafe.Sizeof(Slot{}))*int64(sh.room) + int64(unsafe.Sizeof([]Slot{}))*int64(cap(sh.chunks)) +
		int64(unsafe.Sizeof(name{}))*int64(sh.room)*sh.naming() + sh.asides.memory() + 8*int64(cap(sh.Tags)) + sh.ownerBytes() + sh.blocks.bytes + sh.bounds.bytes
}

// naming is one if streams have names, else zero.
func (sh *Shard) naming() int64 {
	if sh.families != nil {
		return 1
	}
	return 0
}

// Kind returns the kind of the stream.
func (s *Slot) Kind() Kind { return Kind(s.Meta & flagKind) }

// Opens reports whether the slot is not that of an open stream of a kind.
func (s *Slot) Opens(kind Kind) bool { return s.Meta&(flagKind|FlagFresh) != uint32(kind) }

// Timeline unpacks what classification needs.
func (sh *Shard) Timeline(s *Slot, t *fold.Timeline) {
	t.Start, t.Last, t.Emitted, t.Print = s.start, s.last, s.last, s.print
	t.Restarted = s.Meta&FlagRestarted != 0
	t.Marked = s.Meta&flagMarked != 0
	t.Gaps.N, t.Gaps.Horizon = 0, 0
	if s.Meta>>asideShift != 0 {
		sh.readAside(s, t)
	}
}

func (sh *Shard) readAside(s *Slot, t *fold.Timeline) {
	sh.asides.read(sh.asides.at(s.Meta>>asideShift-1), t)
}

// Emitted returns the latest time given out.
func (sh *Shard) Emitted(s *Slot) int64 {
	if i := s.Meta >> asideShift; i != 0 {
		return int64(binary.LittleEndian.Uint64(sh.asides.at(i - 1)))
	}
	return s.last
}

// SetTimeline packs it again.
func (sh *Shard) SetTimeline(s *Slot, t *fold.Timeline) {
	s.start, s.last, s.print = t.Start, t.Last, t.Print
	s.Meta &^= FlagRestarted | flagMarked
	if t.Restarted {
		s.Meta |= FlagRestarted
	}
	if t.Marked {
		s.Meta |= flagMarked
	}
	if s.Meta>>asideShift != 0 || t.Emitted != t.Last || t.Gaps.N != 0 || t.Gaps.Horizon != 0 {
		sh.setAside(s, t)
	}
}

func (sh *Shard) setAside(s *Slot, t *fold.Timeline) {
	if t.Emitted == t.Last && t.Gaps.N == 0 && t.Gaps.Horizon == 0 && sh.memory(s) == 0 {
		sh.dropAside(s)
		return
	}
	if s.Meta>>asideShift == 0 {
		s.Meta |= (sh.asides.add() + 1) << asideShift
	}
	sh.asides.write(sh.asides.at(s.Meta>>asideShift-1), t)
}

func (sh *Shard) dropAside(s *Slot) {
	if i := s.Meta >> asideShift; i != 0 {
		if ref := sh.memory(s); ref != 0 {
			sh.blocks.release(ref - 1)
		}
		sh.asides.free = append(sh.asides.free, i-1)
		s.Meta &= 1<<asideShift - 1
	}
}

// Number returns the total of a sum.
func (s *Slot) Number() fold.Number {
	return fold.Number{Bits: s.value, Double: s.Meta&flagDouble != 0}
}

// SetNumber sets the total of a sum.
func (s *Slot) SetNumber(n fold.Number) {
	s.value = n.Bits
	s.Meta &^= flagDouble
	if n.Double {
		s.Meta |= flagDouble
	}
}

// CopyFrom makes dst, a slot of sh, what s is in src.
func (sh *Shard) CopyFrom(dst *Slot, src *Shard, s *Slot) {
	if both := dst.Meta | s.Meta; both&flagKind == 0 && both>>asideShift == 0 { // nearly all streams
		*dst = *s
		dst.Meta &^= FlagFresh | FlagTouched | FlagChanged
		return
	}
	if (dst.Meta|s.Meta)>>asideShift != 0 {
		var t fold.Timeline
		src.Timeline(s, &t)
		sh.SetTimeline(dst, &t)
		sh.copyMemory(dst, src, s)
	} else {
		const flags = FlagRestarted | flagMarked
		dst.start, dst.last, dst.print = s.start, s.last, s.print
		dst.Meta = dst.Meta&^flags | s.Meta&flags
	}
	dst.Seen, dst.Period, dst.Role, dst.Rule, dst.Due = s.Seen, s.Period, s.Role, s.Rule, s.Due
	if s.Kind() == KindSum {
		dst.SetNumber(s.Number())
	} else {
		sh.copyBlock(dst, src, s)
	}
	dst.Meta &^= FlagFresh
}

// Empty makes the slot what add left it.
func (sh *Shard) Empty(s *Slot) {
	if s.Meta&FlagFresh == 0 {
		sh.dropValue(s)
		sh.dropAside(s)
	}
	*s = Slot{ID: s.ID, Seen: s.Seen, Meta: uint32(s.Kind()) | FlagFresh, Role: s.Role, Rule: s.Rule, Due: s.Due}
}

// Break makes the value of a histogram's stream one that is nowhere, for tests: to read it panics.
func (s *Slot) Break() {
	s.Meta &^= FlagFresh
	s.start, s.last, s.value = 1, 2, 1<<40
}
