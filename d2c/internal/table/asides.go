// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package table

import (
	"encoding/binary"

	"github.com/deltaring/deltaring/d2c/internal/fold"
)

// asides keeps what not all streams need, in records of one size: the latest time given out, where that is not last, and
// gaps. A counter that is quiet now and then has such a record, and there are many of those; so it is as small as can be. Times of
// gaps are kept as distances from last, which is no further away than the late window.
//
//	emitted 8, horizon W, 4 gaps of 2 W each (start, end); a distance of zero is none
//
// W is 5 bytes for late windows of up to 2^40 ns (18 minutes), 8 for longer ones. Streams of many writers have no gaps, and a block
// with what they remember:
//
//	emitted 8, reference 8
type asides struct {
	form   asideForm
	chunks [][]byte
	used   uint32 // records ever handed out
	free   []uint32
}

// asideForm is the form of all records.
type asideForm uint8

const (
	narrowAside asideForm = iota // of 5 bytes a distance
	wideAside                    // of 8
	memoryAside
)

const asideChunk = 256 // records; of 53 bytes they are a size class of the Go allocator

// width is W.
func (a *asides) width() int {
	if a.form == narrowAside {
		return 5
	}
	return 8
}

func (a *asides) size() int {
	if a.form == memoryAside {
		return 16
	}
	return 8 + a.width()*(1+2*fold.MaxGaps)
}

func (a *asides) at(i uint32) []byte {
	size := a.size()
	at := int(i%asideChunk) * size
	return a.chunks[i/asideChunk][at : at+size : at+size]
}

// add returns the number of an empty record.
func (a *asides) add() uint32 {
	if n := len(a.free); n > 0 {
		i := a.free[n-1]
		a.free = a.free[:n-1]
		clear(a.at(i))
		return i
	}
	if int(a.used) == asideChunk*len(a.chunks) {
		a.chunks = append(a.chunks, make([]byte, asideChunk*a.size()))
	}
	a.used++
	clear(a.at(a.used - 1))
	return a.used - 1
}

func (a *asides) clear() { a.used, a.free = 0, a.free[:0] }

func (a *asides) memory() int64 {
	return int64(asideChunk*a.size()+24)*int64(len(a.chunks)) + 4*int64(cap(a.free))
}

// sparse reports whether most records are free.
func (a *asides) sparse() bool { return len(a.free) > int(a.used)/2 }

// distances reads and writes numbers of W bytes.

func (a *asides) get(b []byte) int64 {
	if a.form == narrowAside {
		return int64(binary.LittleEndian.Uint32(b)) | int64(b[4])<<32
	}
	return int64(binary.LittleEndian.Uint64(b))
}

func (a *asides) put(b []byte, v int64) {
	if a.form == narrowAside {
		binary.LittleEndian.PutUint32(b, uint32(v))
		b[4] = byte(v >> 32)
		return
	}
	binary.LittleEndian.PutUint64(b, uint64(v))
}

// reach is the largest distance that there is room for.
func (a *asides) reach() int64 {
	if a.form == narrowAside {
		return 1<<40 - 1
	}
	return 1<<63 - 1
}

// read fills t, whose last is known, from a record.
func (a *asides) read(b []byte, t *fold.Timeline) {
	t.Emitted = int64(binary.LittleEndian.Uint64(b))
	b = b[8:]
	g := &t.Gaps
	g.Horizon, g.N = 0, 0
	if a.form == memoryAside {
		return
	}
	if d := a.get(b); d != 0 {
		g.Horizon = t.Last - d
	}
	for g.N < fold.MaxGaps {
		b = b[a.width():]
		start := a.get(b)
		if start == 0 {
			return
		}
		b = b[a.width():]
		g.Gaps[g.N] = fold.Interval{Start: t.Last - start, Time: t.Last - a.get(b)}
		g.N++
	}
}

// write makes a record of t. What of a gap is out of reach is out of any late window, too.
func (a *asides) write(b []byte, t *fold.Timeline) {
	binary.LittleEndian.PutUint64(b, uint64(t.Emitted))
	if a.form == memoryAside {
		return
	}
	b = b[8:]
	clear(b)
	if d := t.Last - t.Gaps.Horizon; t.Gaps.Horizon != 0 && d <= a.reach() {
		a.put(b, d)
	}
	b = b[a.width():]
	for _, gap := range t.Gaps.Gaps[:t.Gaps.N] {
		end := t.Last - gap.Time
		if end >= a.reach() {
			continue
		}
		a.put(b, min(t.Last-gap.Start, a.reach()))
		a.put(b[a.width():], end)
		b = b[2*a.width():]
	}
}
