// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package table

import (
	"math/bits"
	"slices"
)

// slab keeps blocks of words of many sizes in few large pointer-free allocations: the garbage collector sees the chunks,
// never the blocks. It is not safe for concurrent use.
type slab struct {
	classes []class
	bytes   int64
}

// blockRef names a block: its class in the upper half, in the lower its chunk and its place there, in the last placeBits. A
// division less for each access takes 3 % off an exponential histogram point's time.
type blockRef uint64

// class holds the blocks of one size.
type class struct {
	words  uint32 // of a block; 0 until used
	per    uint32 // blocks per chunk
	chunks [][]uint32
	used   uint32 // blocks ever handed out from the chunks
	live   uint32
	free   uint32 // head of the list of freed blocks, +1; each holds the next in its first word
}

// chunkWords is the size of a chunk: 16 KiB, exactly a size class of the Go allocator. Larger blocks get one each.
const (
	chunkWords = 4096
	placeBits  = 10 // of the smallest blocks, of four words, there are so many
)

// classOf returns the class of blocks with at least n words: multiples of 4 up to 64, then eight sizes per doubling, so
// that rounding wastes an eighth at most.
func classOf(n int) (index int, words uint32) {
	if n <= 64 {
		index = max(n-1, 0) / 4
		return index, uint32(4 * (index + 1))
	}
	doubling := bits.Len(uint(n-1)) - 7 // 65..128 is 0
	step := 8 << doubling
	eighth := (n - 1 - 64<<doubling) / step
	return 16 + 8*doubling + eighth, uint32(64<<doubling + (eighth+1)*step)
}

// alloc returns a block of at least n words with any content.
func (s *slab) alloc(n int) blockRef {
	i, words := classOf(n)
	if i >= len(s.classes) {
		s.classes = append(s.classes, make([]class, i+1-len(s.classes))...)
	}
	c := &s.classes[i]
	c.live++
	if c.free != 0 {
		block := c.free - 1
		c.free = c.block(block)[0]
		return blockRef(i)<<32 | blockRef(block)
	}
	if c.words == 0 {
		c.words, c.per = words, max(chunkWords/words, 1)
	}
	if c.used == c.per*uint32(len(c.chunks)) {
		var chunk []uint32
		if c.per > 1 {
			chunk = make([]uint32, chunkWords) // whole, though the last words are no block: the allocator would keep them anyway
		} else {
			chunk = slices.Grow([]uint32(nil), int(c.words))[:c.words] // its capacity is all that the allocator keeps
		}
		c.chunks = append(c.chunks, chunk)
		s.bytes += 4 * int64(cap(chunk))
	}
	place := c.used/c.per<<placeBits | c.used%c.per
	c.used++
	return blockRef(i)<<32 | blockRef(place)
}

// release gives a block back.
func (s *slab) release(ref blockRef) {
	c := &s.classes[ref>>32]
	c.block(uint32(ref))[0] = c.free
	c.free = uint32(ref) + 1
	c.live--
}

// clear takes all blocks back and keeps the chunks.
func (s *slab) clear() {
	for i := range s.classes {
		c := &s.classes[i]
		c.used, c.live, c.free = 0, 0, 0
	}
}

// block returns the words of a block; valid until it is released.
func (s *slab) block(ref blockRef) []uint32 {
	return s.classes[ref>>32].block(uint32(ref))
}

// fits reports whether a block has room for n words and is not of a larger class than needed.
func (s *slab) fits(ref blockRef, n int) bool {
	i, _ := classOf(n)
	return i == int(ref>>32)
}

// sparse reports whether so many blocks are free that copying the live ones to a new slab is worth it.
func (s *slab) sparse() bool {
	used, live := s.words()
	return used > chunkWords && live < used/2
}

// outgrown reports whether a third of the words is in free blocks: where all streams need larger ones, nobody needs these.
func (s *slab) outgrown() bool {
	used, live := s.words()
	return used > chunkWords && live < used/3*2
}

// words returns how many there are in blocks, and in those that are not free.
func (s *slab) words() (used, live int64) {
	for i := range s.classes {
		c := &s.classes[i]
		used += int64(c.used) * int64(c.words)
		live += int64(c.live) * int64(c.words)
	}
	return used, live
}

func (c *class) block(i uint32) []uint32 {
	chunk := c.chunks[i>>placeBits]
	at := i & (1<<placeBits - 1) * c.words
	return chunk[at : at+c.words : at+c.words]
}

func put64(w []uint32, v uint64) { w[0], w[1] = uint32(v), uint32(v>>32) }
func get64(w []uint32) uint64    { return uint64(w[0]) | uint64(w[1])<<32 }
