// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package log

import (
	"bytes"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/streamid"
)

func TestClasses(t *testing.T) {
	last := 0
	for size := itemHeader; size <= largeItem; size++ {
		c := classOf(size)
		if c < last || c >= largeClass || sizeOf(c) < size {
			t.Fatalf("items of %d bytes are of class %d, of %d bytes", size, c, sizeOf(c))
		}
		if c > 1 && sizeOf(c-1) >= size {
			t.Fatalf("items of %d bytes are of class %d, but %d has %d bytes", size, c, c-1, sizeOf(c-1))
		}
		last = c
	}
	if classOf(largeItem+1) != largeClass || maxClasses > 64 {
		t.Fatalf("class %d of %d is for what is larger", classOf(largeItem+1), maxClasses)
	}
}

// The table does what a map does.
func TestTableIsAMap(t *testing.T) {
	type entry struct {
		tag     uint64
		written uint32
		record  []byte
	}
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 7))
		tab, model := new(table), map[streamid.ID]entry{}
		tab.key = [2]uint64{r.Uint64(), r.Uint64()}
		streams := 1 + r.IntN(2000)
		for range 20_000 {
			// Few bits differ, so that many collide.
			id := streamid.ID{Hi: uint64(r.IntN(streams)), Lo: uint64(r.IntN(2)) << 63}
			if r.IntN(3) == 0 {
				tab.remove(id)
				delete(model, id)
			} else {
				e := entry{r.Uint64() | 1, r.Uint32(), bytes.Repeat([]byte{byte(r.Uint32())}, []int{1, 1 + r.IntN(300), 1 + r.IntN(6000)}[min(r.IntN(30), 28)/14])}
				tab.put(id, e.tag, e.written, e.record)
				model[id] = e
			}
			told := tab.memory()
			tab.resized = true
			if now := tab.memory(); now != told {
				t.Fatalf("seed %d: the table takes %d bytes, %d are told", seed, now, told)
			}
		}
		size := 0
		for id, want := range model {
			it, _ := tab.find(id)
			if it == nil || it.id() != id || it.tag() != want.tag || it.written() != want.written || !bytes.Equal(it.record(), want.record) {
				t.Fatalf("seed %d: stream %v is another than was put", seed, id)
			}
			size += len(want.record)
		}
		n := 0
		for _, it := range tab.all() {
			if _, found := model[it.id()]; !found {
				t.Fatalf("seed %d: stream %v was removed", seed, it.id())
			}
			n++
		}
		if n != len(model) || tab.n != n || tab.bytes != size {
			t.Fatalf("seed %d: %d streams with %d bytes, says %d with %d, want %d with %d", seed, n, size, tab.n, tab.bytes, len(model), size)
		}
		for i := range streams {
			id := streamid.ID{Hi: uint64(i), Lo: 0}
			if _, found := model[id]; !found {
				if it, _ := tab.find(id); it != nil {
					t.Fatalf("seed %d: stream %v is there", seed, id)
				}
			}
		}
	}
}

// A record costs 48 bytes at most beside itself, 46 in the mean, at the number where the index has just grown, too, and what is told of it is so.
func TestTableBytes(t *testing.T) {
	const length, logs = 88, 64
	for _, n := range []int{300_000, 360_000, 420_000} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		tables := make([]table, logs)
		record := make([]byte, length)
		r := rand.New(rand.NewPCG(1, 1))
		for i := range n {
			// Sums have records of about this length.
			tables[i%logs].put(streamid.ID{Hi: r.Uint64(), Lo: r.Uint64()}, 1, 2, record[:length-i%4])
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		told, size := 0, 0
		for i := range tables {
			told += tables[i].memory()
			size += tables[i].bytes
		}
		beside := float64(int(after.HeapAlloc-before.HeapAlloc)-size) / float64(n)
		t.Logf("%d streams: %.1f bytes each beside the record, %.1f told", n, beside, float64(told-size)/float64(n))
		if beside > 48 {
			t.Errorf("%d streams take %.1f bytes each beside the record", n, beside)
		}
		if float64(told-size)/float64(n) < beside-4 {
			t.Errorf("of %.1f bytes beside a record %.1f are told", beside, float64(told-size)/float64(n))
		}
		runtime.KeepAlive(tables)
	}
}

// seek finds what find does, for streams that are there and that are not, also where half of a hash is another stream's.
func TestSeek(t *testing.T) {
	tab := new(table) // whose key is zero: the hash of {1, n} is n
	r := rand.New(rand.NewPCG(3, 3))
	var swaps []store.Swap
	var order []int32
	for i := range uint64(3000) {
		id := streamid.ID{Hi: r.Uint64(), Lo: r.Uint64()}
		if i%3 == 0 {
			id = streamid.ID{Hi: 1, Lo: i<<32 | 7} // close to each other, and alike in the lower half
		}
		if i%2 == 0 {
			tab.put(id, i+1, 1, make([]byte, 1+r.IntN(5000)))
		}
		swaps, order = append(swaps, store.Swap{ID: id}), append(order, int32(i))
	}
	r.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	handles := make([]uint32, len(order))
	tab.seek(handles, swaps, order)
	for k, i := range order {
		it, p := tab.find(swaps[i].ID)
		if want := tab.index[p]; handles[k] != uint32(want) || (it != nil) != (i%2 == 0) || it != nil && it.tag() != uint64(i)+1 {
			t.Fatalf("stream %d: handle %#x, want %#x", i, handles[k], uint32(want))
		}
	}
}
