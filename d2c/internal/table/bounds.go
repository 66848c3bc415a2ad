// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package table

import (
	"hash/maphash"
	"slices"
	"unsafe"
)

// boundsTable keeps each set of histogram bounds once, with the number of streams that use it.
type boundsTable struct {
	sets   []boundsSet
	free   []uint32
	byHash map[uint64][]uint32
	latest uint32 // interned
	bytes  int64
}

type boundsSet struct {
	bounds []float64
	users  int
	hash   uint64
}

// boundsOverhead is the estimated cost of a set beside its bounds: the entries in sets and byHash.
const boundsOverhead = 96

var boundsSeed = maphash.MakeSeed()

// memoryOf returns the bytes of bounds, to be read only.
func memoryOf(bounds []float64) string {
	return unsafe.String((*byte)(unsafe.Pointer(unsafe.SliceData(bounds))), 8*len(bounds))
}

func (t *boundsTable) at(i uint32) []float64 { return t.sets[i].bounds }

// intern returns the reference of an equal set, one more user of it counted. It keeps no reference to bounds.
func (t *boundsTable) intern(bounds []float64) uint32 { return t.add(bounds, slices.Clone[[]float64]) }

// share is intern for bounds that another table has and nobody writes to.
func (t *boundsTable) share(bounds []float64) uint32 {
	if int(t.latest) < len(t.sets) {
		if set := &t.sets[t.latest]; set.users > 0 && sameSlice(set.bounds, bounds) {
			set.users++
			return t.latest
		}
	}
	return t.add(bounds, func(b []float64) []float64 { return b })
}

func (t *boundsTable) add(bounds []float64, keep func([]float64) []float64) uint32 {
	hash := maphash.String(boundsSeed, memoryOf(bounds))
	for _, i := range t.byHash[hash] {
		if slices.Equal(t.sets[i].bounds, bounds) {
			t.sets[i].users++
			t.latest = i
			return i
		}
	}
	set := boundsSet{bounds: keep(bounds), users: 1, hash: hash}
	t.bytes += 8*int64(len(bounds)) + boundsOverhead
	var i uint32
	if n := len(t.free); n > 0 {
		i = t.free[n-1]
		t.free = t.free[:n-1]
		t.sets[i] = set
	} else {
		i = uint32(len(t.sets))
		t.sets = append(t.sets, set)
	}
	if t.byHash == nil {
		t.byHash = map[uint64][]uint32{}
	}
	t.byHash[hash] = append(t.byHash[hash], i)
	t.latest = i
	return i
}

// release counts one user less; without users the set is forgotten.
func (t *boundsTable) release(i uint32) {
	set := &t.sets[i]
	if set.users--; set.users > 0 {
		return
	}
	t.bytes -= 8*int64(len(set.bounds)) + boundsOverhead
	same := slices.DeleteFunc(t.byHash[set.hash], func(j uint32) bool { return j == i })
	if len(same) == 0 {
		delete(t.byHash, set.hash)
	} else {
		t.byHash[set.hash] = same
	}
	*set = boundsSet{}
	t.free = append(t.free, i)
}
