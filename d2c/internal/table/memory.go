// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package table

import "encoding/binary"

// A stream of many writers remembers the fingerprints of its latest deltas, with the time at which each was counted, in a block
// of its own: two hash tables of one size. New ones go to the first; when that is older than the late window, or full, it
// becomes the second, and what the second had is forgotten.
//
//	since (Unix seconds), slots of a table, used of the first, used of the second; then slots of 3 words: fingerprint, seconds
const (
	memorySince = iota
	memorySlots
	memoryUsed
	memoryBefore

	headerMemory = 4
	wordsPerSlot = 3

	minMemory = 4 // slots of a table
	// MaxMemory is the number of slots of a table at most; three in four are used. So the latest 768 to 1536 deltas of a stream are
	// remembered, in 26 KiB, where the late window has as many.
	MaxMemory = 1024
)

// Remembered is a delta that was counted.
type Remembered struct {
	Print uint64
	At    uint32 // Unix seconds
}

// Remembers reports whether a delta with this fingerprint was counted no more than age seconds before now.
func (sh *Shard) Remembers(s *Slot, print uint64, now, age uint32) bool {
	ref := sh.memory(s)
	if ref == 0 {
		return false
	}
	for _, table := range tablesOf(sh.blocks.block(ref - 1)) {
		if at, found := seek(table, print); found && within(table[at+2], now, age) {
			return true
		}
	}
	return false
}

// Remember notes that a delta was counted now, and reports whether one with this fingerprint was, no more than age seconds before:
// then it notes nothing. What was counted longer ago may be forgotten.
func (sh *Shard) Remember(s *Slot, print uint64, now, age uint32) (known bool) {
	ref := sh.memory(s)
	if ref == 0 {
		ref = sh.allocMemory(minMemory, now)
		sh.setMemory(s, ref)
	}
	w := sh.blocks.block(ref - 1)
	if now > w[memorySince] && now-w[memorySince] > age {
		turn(w, now)
	}
	tables := tablesOf(w)
	first, second := tables[0], tables[1]
	at, found := seek(first, print)
	if found && within(first[at+2], now, age) {
		return true
	}
	if w[memoryBefore] > 0 {
		if at, found := seek(second, print); found && within(second[at+2], now, age) {
			return true
		}
	}
	if !found {
		if (w[memoryUsed]+1)*4 > w[memorySlots]*3 {
			if w[memorySlots] < MaxMemory {
				w = sh.growMemory(s, ref, now, age)
			} else {
				turn(w, now)
			}
			first = tablesOf(w)[0]
			at, _ = seek(first, print)
		}
		put64(first[at:], print)
		w[memoryUsed]++
	}
	first[at+2] = now
	return false
}

// renew sets when a delta was counted that is remembered.
func (sh *Shard) renew(s *Slot, print uint64, at uint32) {
	for _, table := range tablesOf(sh.blocks.block(sh.memory(s) - 1)) {
		if i, found := seek(table, print); found {
			table[i+2] = max(table[i+2], at)
		}
	}
}

// tablesOf returns the tables of a block, the newer one first.
func tablesOf(w []uint32) [2][]uint32 {
	n := w[memorySlots] * wordsPerSlot
	return [2][]uint32{w[headerMemory:][:n], w[headerMemory+n:][:n]}
}

func within(then, now, age uint32) bool { return now <= then || now-then <= age }

// seek returns where in a table a fingerprint is, or would be. A table is never full.
func seek(table []uint32, print uint64) (at int, found bool) {
	last := uint64(len(table)/wordsPerSlot - 1) // slots are a power of two
	for i := print & last; ; i = (i + 1) & last {
		at := int(i) * wordsPerSlot
		switch get64(table[at:]) {
		case print:
			return at, true
		case 0:
			return at, false
		}
	}
}

// turn forgets the second table and makes the first the second.
func turn(w []uint32, now uint32) {
	tables := tablesOf(w)
	copy(tables[1], tables[0])
	clear(tables[0])
	w[memoryBefore], w[memoryUsed], w[memorySince] = w[memoryUsed], 0, now
}

func (sh *Shard) allocMemory(slots, since uint32) blockRef {
	n := headerMemory + 2*slots*wordsPerSlot
	ref := sh.blocks.alloc(int(n))
	w := sh.blocks.block(ref)
	clear(w)
	w[memorySince], w[memorySlots] = since, slots
	return ref + 1
}

// growMemory doubles the tables, and forgets what is out of the window.
func (sh *Shard) growMemory(s *Slot, ref blockRef, now, age uint32) []uint32 {
	old := sh.blocks.block(ref - 1)
	bigger := sh.allocMemory(2*old[memorySlots], old[memorySince])
	old, w := sh.blocks.block(ref-1), sh.blocks.block(bigger-1)
	tables := tablesOf(w)
	for i, from := range tablesOf(old) {
		to := tables[i]
		for at := 0; at < len(from); at += wordsPerSlot {
			if print, then := get64(from[at:]), from[at+2]; print != 0 && within(then, now, age) {
				free, _ := seek(to, print)
				put64(to[free:], print)
				to[free+2] = then
				w[memoryUsed+i]++
			}
		}
	}
	sh.blocks.release(ref - 1)
	sh.setMemory(s, bigger)
	if sh.blocks.outgrown() {
		sh.compactBlocks()
		w = sh.blocks.block(sh.memory(s) - 1)
	}
	return w
}

// memory returns the stream's block, +1, or zero.
func (sh *Shard) memory(s *Slot) blockRef {
	if i := s.Meta >> asideShift; i != 0 && sh.asides.form == memoryAside {
		return blockRef(binary.LittleEndian.Uint64(sh.asides.at(i - 1)[8:]))
	}
	return 0
}

// setMemory gives the stream an aside with a block.
func (sh *Shard) setMemory(s *Slot, ref blockRef) {
	if s.Meta>>asideShift == 0 {
		s.Meta |= (sh.asides.add() + 1) << asideShift
		binary.LittleEndian.PutUint64(sh.asides.at(s.Meta>>asideShift-1), uint64(s.last))
	}
	binary.LittleEndian.PutUint64(sh.asides.at(s.Meta>>asideShift - 1)[8:], uint64(ref))
}

// copyMemory has dst remember what s, of src, does.
func (sh *Shard) copyMemory(dst *Slot, src *Shard, s *Slot) {
	from, to := src.memory(s), sh.memory(dst)
	if from == 0 && to == 0 {
		return
	}
	if to != 0 {
		sh.blocks.release(to - 1)
		to = 0
	}
	if from != 0 {
		w := src.blocks.block(from - 1)
		to = sh.allocMemory(w[memorySlots], 0)
		copy(sh.blocks.block(to-1), w)
	}
	sh.setMemory(dst, to)
}

// appendMemory appends what the stream remembers.
func (sh *Shard) appendMemory(dst []Remembered, s *Slot) []Remembered {
	ref := sh.memory(s)
	if ref == 0 {
		return dst
	}
	tables := tablesOf(sh.blocks.block(ref - 1))
	// The older ones first, so that they are the older ones where they are remembered again.
	for _, table := range [2][]uint32{tables[1], tables[0]} {
		for at := 0; at < len(table); at += wordsPerSlot {
			if print := get64(table[at:]); print != 0 {
				dst = append(dst, Remembered{print, table[at+2]})
			}
		}
	}
	return dst
}

// recall has the stream remember no more than what was.
func (sh *Shard) recall(s *Slot, all []Remembered) {
	if ref := sh.memory(s); ref != 0 {
		sh.blocks.release(ref - 1)
		sh.setMemory(s, 0)
	}
	const ever = 1<<32 - 1
	for _, r := range all { // the later of two last
		if sh.Remember(s, r.Print, r.At, ever) {
			sh.renew(s, r.Print, r.At)
		}
	}
}
