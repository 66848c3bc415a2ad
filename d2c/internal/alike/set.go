// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package alike

import "unsafe"

// A set has what was seen, in tables that are each larger than the one before and begun when that is full, so that nothing is ever
// moved and small sets are small. An entry has half of a series' hash and half of its stream's; the rest of the hash says in which
// bucket of a table it is, or, if that was full, in which other one. So whoever finds room in the first need not look into the
// second. A bucket is a cache line. When the last table is full too, new entries take the place of old ones.
//
// Of a million streams two are taken for one series by chance about once in a hundred.
type set struct {
	tables [len(sizes)][]bucket
	used   [len(sizes)]int
	last   int // table that is in use
}

type (
	bucket [8]entry
	entry  struct{ series, stream uint32 }
)

// sizes are the buckets of each table, which three quarters of the entries fill: 0.9 million, 9.6 MB in all.
var sizes = [...]int{1 << 7, 1 << 11, 1 << 14, 1 << 17}

// add notes a stream of a series, and reports whether there is another one.
func (s *set) add(series uint64, stream uint32) (other bool) {
	e := entry{series: uint32(series >> 32), stream: stream}
	if e.series == 0 {
		e.series = 1 // zero is no entry
	}
	for i := range s.last + 1 {
		t := s.tables[i]
		if t == nil {
			break
		}
		for _, at := range places(len(t), series) {
			b := &t[at]
			for _, there := range b {
				if there.series == e.series {
					return there.stream != e.stream
				}
			}
			if b[len(b)-1].series == 0 {
				break
			}
		}
	}
	s.insert(series, e)
	return false
}

func (s *set) insert(series uint64, e entry) {
	if s.tables[s.last] != nil && s.used[s.last] >= sizes[s.last]*6 && s.last < len(sizes)-1 {
		s.last++
	}
	t := s.tables[s.last]
	if t == nil {
		t = make([]bucket, sizes[s.last])
		s.tables[s.last] = t
	}
	at := places(len(t), series)
	for _, at := range at {
		if free := t[at].free(); free >= 0 {
			t[at][free] = e
			s.used[s.last]++
			return
		}
	}
	t[at[0]][e.series%8] = e // any of them: which is the oldest nobody knows
}

// places are the buckets of a table in which a series may be.
func places(buckets int, series uint64) [2]uint32 {
	first := uint32(series)
	second := first ^ uint32(series>>32)*0x9e3779b1
	return [2]uint32{first & uint32(buckets-1), second >> 8 & uint32(buckets-1)}
}

// free returns the first entry that is free, -1 if none is.
func (b *bucket) free() int {
	for i := range b {
		if b[i].series == 0 {
			return i
		}
	}
	return -1
}

func (s *set) memory() (n int64) {
	for _, t := range s.tables {
		n += int64(len(t)) * int64(unsafe.Sizeof(bucket{}))
	}
	return n
}
