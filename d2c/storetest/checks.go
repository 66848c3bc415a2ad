// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/streamid"
)

// client is a store and the lives it was told.
type client struct {
	t     tester
	st    store.Shared
	lives []store.Life
}

// open returns a client that knows the lives.
func (f Fixture) open(t tester) *client {
	t.Helper()
	c := &client{t: t, st: f.Open()}
	c.lives = c.ask(newLife())
	return c
}

func newLife() store.Life { return store.Life{ID: newTag(), From: -rand.Int64(), Floor: rand.Int64()} }

// newTag is never zero.
func newTag() uint64 { return rand.Uint64() | 1 }

func newID() streamid.ID { return streamid.ID{Hi: rand.Uint64(), Lo: rand.Uint64()} }

// sameGroup returns n streams of one group, however many groups there are.
func sameGroup(n int) []streamid.ID {
	ids := make([]streamid.ID, n)
	hi := rand.Uint64() &^ (1<<32 - 1)
	for i := range ids {
		ids[i] = streamid.ID{Hi: hi | uint64(rand.Uint32()), Lo: rand.Uint64()}
	}
	return ids
}

func (c *client) ask(proposed store.Life) []store.Life {
	c.t.Helper()
	lives, err := c.st.Lives(context.Background(), proposed)
	if err != nil {
		c.t.Fatalf("Lives: %v", err)
	}
	if len(lives) == 0 {
		c.t.Fatalf("Lives returns none")
	}
	return slices.Clone(lives)
}

func (c *client) lifeOf(id streamid.ID) uint64 { return c.lives[store.Group(id, len(c.lives))].ID }

// on makes swaps of the lives that the client knows.
func (c *client) on(swaps ...store.Swap) []store.Swap {
	for i := range swaps {
		swaps[i].Life = c.lifeOf(swaps[i].ID)
	}
	return swaps
}

// raw is Swap that must not fail.
func (c *client) raw(swaps ...store.Swap) []store.Result {
	c.t.Helper()
	results, err := c.st.Swap(context.Background(), swaps)
	if err != nil {
		c.t.Fatalf("Swap: %v", err)
	}
	if len(results) != len(swaps) {
		c.t.Fatalf("%d swaps have %d results", len(swaps), len(results))
	}
	return results
}

func (c *client) swap(swaps ...store.Swap) []store.Result {
	c.t.Helper()
	return c.raw(c.on(swaps...)...)
}

// must fails unless all swaps are done.
func (c *client) must(swaps ...store.Swap) {
	c.t.Helper()
	for i, r := range c.swap(swaps...) {
		if r.Status != store.Swapped {
			c.t.Fatalf("swap %d of %d: %s, want that it is done", i, len(swaps), show(r))
		}
	}
}

// unknown is a tag that no record has.
const unknown = 0x7fff_ffff_ffff_fff0

// there returns what is stored: a comparison with what nobody has written tells.
func (c *client) there(id streamid.ID) store.Result {
	c.t.Helper()
	r := c.swap(store.Swap{ID: id, Base: unknown})[0]
	if r.Status != store.Changed {
		c.t.Fatalf("compared with a record that nobody has written: %s, want Changed", show(r))
	}
	return r
}

// has fails unless the record is there; nil is for none.
func (c *client) has(what string, id streamid.ID, tag uint64, record []byte) {
	c.t.Helper()
	c.changed(what, c.there(id), tag, record)
}

// changed fails unless the result is Changed, and says that the record is there.
func (c *client) changed(what string, got store.Result, tag uint64, record []byte) {
	c.t.Helper()
	want := store.Result{Status: store.Changed, Tag: tag, Record: record}
	if !equal(got, want) {
		c.t.Fatalf("%s: got %s, want %s", what, show(got), show(want))
	}
}

func equal(a, b store.Result) bool {
	return a.Status == b.Status && a.Tag == b.Tag && (a.Record == nil) == (b.Record == nil) && bytes.Equal(a.Record, b.Record)
}

func show(r store.Result) string {
	name := fmt.Sprintf("Status(%d)", r.Status)
	if names := []string{"Swapped", "Changed", "OtherLife", "Withheld"}; int(r.Status) < len(names) {
		name = names[r.Status]
	}
	switch {
	case r.Record == nil:
		return fmt.Sprintf("%s with tag %#x and nothing", name, r.Tag)
	case len(r.Record) > 40:
		return fmt.Sprintf("%s with tag %#x and %d bytes %q...", name, r.Tag, len(r.Record), r.Record[:40])
	}
	return fmt.Sprintf("%s with tag %#x and %q", name, r.Tag, r.Record)
}

func livesAreAgreed(t tester, f Fixture) {
	a, b := f.Open(), f.Open()
	ca, cb := &client{t: t, st: a}, &client{t: t, st: b}
	first, second := store.Life{ID: 1<<63 | 5, From: -99999, Floor: -12345}, store.Life{ID: 9, From: 1, Floor: 1 << 62}
	got := ca.ask(first)
	for g, life := range got {
		if life != first {
			t.Fatalf("group %d of an empty store has life %v, want the one proposed, %v", g, life, first)
		}
	}
	for _, c := range []*client{cb, ca, cb, {t: t, st: f.Open()}} {
		for g, life := range c.ask(second) {
			if g >= len(got) || life != got[g] {
				t.Fatalf("group %d has life %v when asked again, want %v", g, life, first)
			}
		}
	}
	// Many that ask an empty store at once.
	if f.Wipe == nil {
		return
	}
	for round := range 10 {
		f.Wipe()
		const clients = 6
		all := make([][]store.Life, clients)
		var wg sync.WaitGroup
		for i := range all {
			st := f.Open()
			wg.Go(func() {
				lives, err := st.Lives(context.Background(), store.Life{ID: uint64(100*round + i + 1), Floor: int64(i)})
				if err != nil {
					t.Errorf("Lives: %v", err)
				}
				all[i] = lives
			})
		}
		wg.Wait()
		for i := range all {
			for g := range all[i] {
				if len(all[i]) != len(all[0]) || all[i][g] != all[0][g] {
					t.Fatalf("two that ask at the same time are told different lives of group %d: %v and %v", g, all[0], all[i])
				}
			}
		}
	}
}

func livesAreForGroups(t tester, f Fixture) {
	c := f.open(t)
	n := len(c.lives)
	if n < 1 || n > 256 || n&(n-1) != 0 {
		t.Fatalf("there are %d groups, want a power of two from 1 to 256", n)
	}
	for g, life := range c.lives {
		if life.ID == 0 {
			t.Fatalf("the life of group %d has no ID", g)
		}
	}
	var swaps []store.Swap
	for g := range 256 {
		swaps = append(swaps, store.Swap{ID: streamid.ID{Hi: uint64(g)<<56 | 77, Lo: rand.Uint64()}, Tag: newTag(), Record: []byte("x")})
	}
	c.must(swaps...)
	for range 3 {
		if again := len(c.ask(newLife())); again != n {
			t.Fatalf("there are %d groups, and before there were %d", again, n)
		}
	}
	if other := f.open(t); len(other.lives) != n {
		t.Fatalf("another client is told of %d groups, want %d", len(other.lives), n)
	}
}

func swapsCompare(t tester, f Fixture) {
	c := f.open(t)
	const tag, other = 0x1122334455667788, 0x99
	a, b := []byte("a"), []byte("record b")
	for _, row := range []struct {
		name string
		// there is the record that is stored, nil for none.
		there []byte
		base  uint64
		put   []byte
		done  bool
	}{
		{"new", nil, 0, b, true},
		{"new where there is one", a, 0, b, false},
		{"replaces its base", a, tag, b, true},
		{"base is another", a, other, b, false},
		{"base is gone", nil, tag, b, false},
		{"compares", a, tag, nil, true},
		{"compares with another", a, other, nil, false},
		{"compares with what is gone", nil, tag, nil, false},
		{"compares with nothing", nil, 0, nil, true},
		{"compares with nothing where there is something", a, 0, nil, false},
		{"replaced by one as long", a, tag, []byte("b"), true},
		{"replaced by a shorter one", b, tag, a, true},
	} {
		id := newID()
		var before uint64
		if row.there != nil {
			before = tag
			c.must(store.Swap{ID: id, Tag: tag, Record: row.there})
		}
		swap := store.Swap{ID: id, Base: row.base, Record: row.put}
		if row.put != nil {
			swap.Tag = 0xabcdef
		}
		r := c.swap(swap)[0]
		if !row.done {
			c.changed(row.name, r, before, row.there)
			c.has(row.name+": then", id, before, row.there)
			continue
		}
		if r.Status != store.Swapped {
			t.Fatalf("%s: %s, want Swapped", row.name, show(r))
		}
		if row.put == nil {
			c.has(row.name+": then", id, before, row.there)
		} else {
			c.has(row.name+": then", id, 0xabcdef, row.put)
		}
	}
}

func swapsFollow(t tester, f Fixture) {
	c := f.open(t)
	ids := make([]streamid.ID, 50)
	bases := make([]uint64, len(ids))
	for i := range ids {
		ids[i] = newID()
	}
	for round := range 20 {
		var swaps []store.Swap
		for i, id := range ids {
			tag := newTag()
			swaps = append(swaps, store.Swap{ID: id, Base: bases[i], Tag: tag, Record: fmt.Appendf(nil, "%d of round %d", i, round)})
			bases[i] = tag
		}
		c.must(swaps...)
		for i, id := range ids {
			c.has("after a swap", id, bases[i], swaps[i].Record)
		}
	}
}

func tagsAreExact(t tester, f Fixture) {
	c := f.open(t)
	tags := []uint64{1, 1<<64 - 1, 1 << 63, 1 << 53, 0x0d0a0d0a0d0a0d0a, 0x0100, 0x20, 0x3030303030303030}
	for range 8 {
		tags = append(tags, newTag())
	}
	for _, tag := range tags {
		id := newID()
		record := []byte("record")
		c.must(store.Swap{ID: id, Tag: tag, Record: record})
		for bit := range 64 {
			base := tag ^ 1<<bit
			if base == 0 {
				continue
			}
			r := c.swap(store.Swap{ID: id, Base: base, Tag: 5, Record: []byte("wrong")})[0]
			c.changed(fmt.Sprintf("a base that differs in bit %d", bit), r, tag, record)
		}
		c.must(store.Swap{ID: id, Base: tag, Tag: tag + 2, Record: []byte("right")})
		c.has("after that", id, tag+2, []byte("right"))
	}
}

// mixed makes n swaps of which one in three are right, wrong because another record is there, and wrong because none is.
func mixed(c *client, n int) (swaps []store.Swap, want []store.Result) {
	c.t.Helper()
	var first []store.Swap
	for i := range n {
		id, tag := newID(), newTag()
		record := fmt.Appendf(nil, "first %d", i)
		swap := store.Swap{ID: id, Base: tag, Tag: newTag(), Record: fmt.Appendf(nil, "second %d", i)}
		var result store.Result
		switch i % 3 {
		case 0:
			first = append(first, store.Swap{ID: id, Tag: tag, Record: record})
		case 1:
			first = append(first, store.Swap{ID: id, Tag: tag, Record: record})
			swap.Base++
			result = store.Result{Status: store.Changed, Tag: tag, Record: record}
		default:
			result = store.Result{Status: store.Changed}
		}
		swaps, want = append(swaps, swap), append(want, result)
	}
	if len(first) > 0 {
		c.must(first...)
	}
	return swaps, want
}

func (c *client) doMixed(n int) {
	c.t.Helper()
	swaps, want := mixed(c, n)
	for i, r := range c.swap(swaps...) {
		if !equal(r, want[i]) {
			c.t.Fatalf("swap %d of %d: %s, want %s", i, n, show(r), show(want[i]))
		}
	}
	var look []store.Swap
	for i := range swaps {
		look = append(look, store.Swap{ID: swaps[i].ID, Base: unknown})
		if want[i].Status == store.Swapped {
			want[i] = store.Result{Status: store.Changed, Tag: swaps[i].Tag, Record: swaps[i].Record}
		}
	}
	for i, r := range c.swap(look...) {
		if !equal(r, want[i]) {
			c.t.Fatalf("then stream %d of %d: %s, want %s", i, n, show(r), show(want[i]))
		}
	}
}

func resultsAreInOrder(t tester, f Fixture) {
	c := f.open(t)
	for _, n := range []int{1, 2, 3, 7, 64, 249, 250, 251, 1000} {
		c.doMixed(n)
	}
}

func noSwaps(t tester, f Fixture) { f.open(t).raw() }

func recordsAreCopied(t tester, f Fixture) {
	c := f.open(t)
	id, record := newID(), []byte("as it was")
	swaps := c.on(store.Swap{ID: id, Tag: 7, Record: record})
	if r := c.raw(swaps...)[0]; r.Status != store.Swapped {
		t.Fatalf("new: %s", show(r))
	}
	copy(record, "XXXXXXXXX")
	swaps[0] = store.Swap{}
	c.has("the caller's record has changed since", id, 7, []byte("as it was"))
}

func resultsAreTheCallers(t tester, f Fixture) {
	c := f.open(t)
	id := newID()
	c.must(store.Swap{ID: id, Tag: 7, Record: []byte("as it was")})
	kept := c.there(id).Record
	c.must(store.Swap{ID: id, Base: 7, Tag: 8, Record: []byte("later one")})
	c.there(id)
	if string(kept) != "as it was" {
		t.Fatalf("a record that was returned has changed to %q", kept)
	}
	copy(c.there(id).Record, "XXXXXXXXX")
	c.has("a record that was returned was written to", id, 8, []byte("later one"))
}

func everyByte(t tester, f Fixture) {
	c := f.open(t)
	for b := range 256 {
		id := streamid.ID{Hi: uint64(b) * 0x0101010101010101, Lo: uint64(b) * 0x0101010101010101}
		record := make([]byte, 256)
		for i := range record {
			record[i] = byte(b + i)
		}
		tag := uint64(b)*0x0101010101010101 | 1<<60
		c.must(store.Swap{ID: id, Tag: tag, Record: record[:1+b]})
		c.must(store.Swap{ID: id, Base: tag, Tag: tag ^ 1, Record: record})
		c.has(fmt.Sprintf("byte %d", b), id, tag^1, record)
	}
}

func largeRecords(t tester, f Fixture) {
	c := f.open(t)
	id, base := newID(), uint64(0)
	for _, size := range []int{1 << 10, 1 << 16, 1<<16 + 1, 1 << 20, 4 << 20, 10} {
		record := make([]byte, size)
		for i := range record {
			record[i] = byte(rand.Uint32())
		}
		tag := newTag()
		c.must(store.Swap{ID: id, Base: base, Tag: tag, Record: record})
		c.has(fmt.Sprintf("a record of %d bytes", size), id, tag, record)
		base = tag
	}
}

func largeBatches(t tester, f Fixture) {
	c := f.open(t)
	c.doMixed(10_000)
	c.doMixed(10) // with what the large one has left
}

func clientsSeeEachOther(t tester, f Fixture) {
	a, b := f.open(t), f.open(t)
	id, base := newID(), uint64(0)
	for i := range 10 {
		tag, record := newTag(), fmt.Appendf(nil, "turn %d", i)
		a.must(store.Swap{ID: id, Base: base, Tag: tag, Record: record})
		b.has("what another has written", id, tag, record)
		r := b.swap(store.Swap{ID: id, Base: base, Tag: newTag(), Record: []byte("late")})[0]
		b.changed("the base was replaced by another", r, tag, record)
		a, b, base = b, a, tag
	}
}

func unitsAreWhole(t tester, f Fixture) {
	c := f.open(t)
	for size := 2; size <= 5; size++ {
		for wrong := -1; wrong < size; wrong++ {
			ids := sameGroup(size)
			tags, records := make([]uint64, size), make([][]byte, size)
			var first []store.Swap
			for i, id := range ids {
				if i%2 == 0 { // the others are new
					tags[i], records[i] = newTag(), fmt.Appendf(nil, "first %d", i)
					first = append(first, store.Swap{ID: id, Tag: tags[i], Record: records[i]})
				}
			}
			c.must(first...)
			// The unit has a single one before and behind it, and other units that are done.
			before, behind := newID(), newID()
			left, right := sameGroup(2), sameGroup(3)
			swaps := []store.Swap{{ID: before, Tag: newTag(), Record: []byte("before")}}
			for _, id := range left {
				swaps = append(swaps, store.Swap{ID: id, Tag: newTag(), Record: []byte("left"), Unit: 7})
			}
			from := len(swaps)
			for i, id := range ids {
				swap := store.Swap{ID: id, Base: tags[i], Tag: newTag(), Record: fmt.Appendf(nil, "second %d", i), Unit: 3}
				if i == wrong {
					swap.Base = unknown
				}
				swaps = append(swaps, swap)
			}
			for _, id := range right {
				swaps = append(swaps, store.Swap{ID: id, Tag: newTag(), Record: []byte("right"), Unit: -2})
			}
			swaps = append(swaps, store.Swap{ID: behind, Tag: newTag(), Record: []byte("behind")})
			what := fmt.Sprintf("unit of %d, of which %d is wrong", size, wrong)
			for i, r := range c.swap(swaps...) {
				want := store.Result{}
				switch in := i - from; {
				case wrong < 0 || in < 0 || in >= size:
				case in == wrong:
					want = store.Result{Status: store.Changed, Tag: tags[in], Record: records[in]}
				default:
					want.Status = store.Withheld
				}
				if !equal(r, want) {
					t.Fatalf("%s: swap %d: %s, want %s", what, i-from, show(r), show(want))
				}
			}
			for i := range swaps {
				tag, record := swaps[i].Tag, swaps[i].Record
				if in := i - from; wrong >= 0 && in >= 0 && in < size {
					tag, record = tags[in], records[in]
				}
				c.has(what+": then", swaps[i].ID, tag, record)
			}
		}
	}
	// What a unit compares counts as well, and two that fail both say so.
	ids := sameGroup(4)
	c.must(store.Swap{ID: ids[0], Tag: 5, Record: []byte("a")}, store.Swap{ID: ids[1], Tag: 6, Record: []byte("b")})
	results := c.swap(
		store.Swap{ID: ids[0], Base: 5, Tag: 15, Record: []byte("aa"), Unit: 1},
		store.Swap{ID: ids[1], Base: 9, Unit: 1},
		store.Swap{ID: ids[2], Unit: 1},
		store.Swap{ID: ids[3], Base: 8, Tag: 18, Record: []byte("dd"), Unit: 1},
	)
	if results[0].Status != store.Withheld || results[2].Status != store.Withheld {
		t.Fatalf("a unit with a wrong comparison: %s, %s, want Withheld", show(results[0]), show(results[2]))
	}
	c.changed("a wrong comparison in a unit", results[1], 6, []byte("b"))
	c.changed("a wrong base in a unit", results[3], 0, nil)
	c.has("then", ids[0], 5, []byte("a"))
	c.must(
		store.Swap{ID: ids[0], Base: 5, Tag: 15, Record: []byte("aa"), Unit: 1},
		store.Swap{ID: ids[1], Base: 6, Unit: 1},
		store.Swap{ID: ids[2], Unit: 1},
	)
	c.has("then", ids[0], 15, []byte("aa"))
	c.has("then", ids[1], 6, []byte("b"))
	c.has("then", ids[2], 0, nil)
	// The number of a unit means nothing in the next call, and zero is a unit of its own.
	results = c.swap(store.Swap{ID: ids[0], Base: 1, Tag: 25, Record: []byte("x")}, store.Swap{ID: ids[1], Base: 6, Tag: 26, Record: []byte("y")})
	if results[0].Status != store.Changed || results[1].Status != store.Swapped {
		t.Fatalf("two that are of no unit: %s, %s, want Changed and Swapped", show(results[0]), show(results[1]))
	}
}

func unitsOfAnySize(t tester, f Fixture) {
	c := f.open(t)
	for _, size := range []int{100, 251, 1000} {
		ids := sameGroup(size)
		unit := func(base, tag uint64, record string) (swaps []store.Swap) {
			for _, id := range ids {
				swaps = append(swaps, store.Swap{ID: id, Base: base, Tag: tag, Record: []byte(record), Unit: 5})
			}
			return swaps
		}
		c.must(unit(0, 3, "first")...)
		second := unit(3, 4, "second")
		second[size-1].Base = unknown
		for i, r := range c.swap(second...) {
			if want := store.Withheld; i < size-1 && r.Status != want {
				t.Fatalf("unit of %d of which the last is wrong: swap %d: %s, want Withheld", size, i, show(r))
			}
		}
		c.has("the first", ids[0], 3, []byte("first"))
		c.has("the last", ids[size-1], 3, []byte("first"))
		c.must(unit(3, 4, "second")...)
		c.has("the first", ids[0], 4, []byte("second"))
	}
}

// A unit of a total and many writers, some of which are only compared, comes twice: where that is not told as done, each record that was
// put says that it is there, and nothing else is told as done. So whoever has heard the second answer alone knows.
func unitsSentTwice(t tester, f Fixture) {
	c := f.open(t)
	const writers = 40
	ids := sameGroup(1 + writers)
	var first, second []store.Swap
	for i, id := range ids {
		tag := newTag()
		if i%4 != 3 { // others are new
			first = append(first, store.Swap{ID: id, Tag: tag, Record: fmt.Appendf(nil, "first %d", i), Unit: 1})
		} else {
			tag = 0
		}
		swap := store.Swap{ID: id, Base: tag, Unit: 9}
		if i%3 == 0 { // others are only compared
			swap.Tag, swap.Record = newTag(), fmt.Appendf(nil, "second %d", i)
		}
		second = append(second, swap)
	}
	c.must(first...)
	c.must(second...)
	results := c.swap(second...)
	done := 0
	for _, r := range results {
		if r.Status == store.Swapped {
			done++
		}
	}
	for i, r := range results {
		switch swap := &second[i]; {
		case done == len(results):
		case swap.Record != nil:
			c.changed(fmt.Sprintf("swap %d of a unit that is sent twice", i), r, swap.Tag, swap.Record)
		case r.Status != store.Withheld:
			t.Fatalf("comparison %d of a unit that is sent twice: %s, want Withheld", i, show(r))
		}
	}
	for i, swap := range second {
		if swap.Record != nil {
			c.has(fmt.Sprintf("record %d of a unit that was sent twice", i), swap.ID, swap.Tag, swap.Record)
		}
	}
}

func otherLivesAreRefused(t tester, f Fixture) {
	// Without a life nothing is swapped.
	c := &client{t: t, st: f.Open()}
	if r := c.raw(store.Swap{ID: newID(), Life: 5, Tag: 7, Record: []byte("x")})[0]; r.Status != store.OtherLife {
		t.Fatalf("a swap where there is no life yet: %s, want OtherLife", show(r))
	}
	c.lives = c.ask(newLife())
	id, fresh := newID(), newID()
	c.must(store.Swap{ID: id, Tag: 7, Record: []byte("a")})
	right := c.lifeOf(id)
	for _, life := range []uint64{0, right + 1, right ^ 1<<63, ^right} {
		for _, swap := range []store.Swap{
			{ID: id, Base: 7, Tag: 8, Record: []byte("b")},
			{ID: id, Base: 9, Tag: 8, Record: []byte("b")},
			{ID: id, Base: 7},
			{ID: fresh, Tag: 8, Record: []byte("b")},
			{ID: fresh},
		} {
			swap.Life = life
			// One in a right life beside it is done.
			beside := c.on(store.Swap{ID: newID(), Tag: 7, Record: []byte("beside")})[0]
			results := c.raw(beside, swap)
			if !equal(results[1], store.Result{Status: store.OtherLife}) {
				t.Fatalf("a swap under another life: %s, want OtherLife", show(results[1]))
			}
			if results[0].Status != store.Swapped {
				t.Fatalf("a swap beside one under another life: %s, want Swapped", show(results[0]))
			}
			c.has("after a swap under another life", id, 7, []byte("a"))
			c.has("after a swap under another life", fresh, 0, nil)
		}
	}
	// In a unit.
	ids := sameGroup(3)
	unit := c.on(
		store.Swap{ID: ids[0], Tag: 7, Record: []byte("x"), Unit: 1},
		store.Swap{ID: ids[1], Tag: 7, Record: []byte("x"), Unit: 1},
		store.Swap{ID: ids[2], Tag: 7, Record: []byte("x"), Unit: 1},
	)
	unit[1].Life++
	for i, r := range c.raw(unit...) {
		if want := [...]store.Status{store.Withheld, store.OtherLife, store.Withheld}[i]; r.Status != want {
			t.Fatalf("a unit with a swap under another life: swap %d: %s", i, show(r))
		}
	}
	for i := range unit {
		unit[i].Life = c.lifeOf(unit[i].ID) + 1
	}
	for i, r := range c.raw(unit...) {
		if r.Status != store.OtherLife {
			t.Fatalf("a unit under another life: swap %d: %s", i, show(r))
		}
	}
	for _, id := range ids {
		c.has("after a unit under another life", id, 0, nil)
	}
}

func wipesEndLives(t tester, f Fixture) {
	if f.Wipe == nil {
		t.Logf("there is no Wipe")
		return
	}
	c, other := f.open(t), f.open(t)
	id := newID()
	c.must(store.Swap{ID: id, Tag: 7, Record: []byte("a")})
	f.Wipe()
	for range 2 { // also when there is another life
		for _, swap := range []store.Swap{{ID: id, Base: 7, Tag: 8, Record: []byte("b")}, {ID: id, Tag: 8, Record: []byte("b")}, {ID: id}} {
			if r := c.swap(swap)[0]; !equal(r, store.Result{Status: store.OtherLife}) {
				t.Fatalf("a swap of a life that ended: %s, want OtherLife", show(r))
			}
		}
		proposed := newLife()
		lives := other.ask(proposed)
		if len(lives) != len(c.lives) {
			t.Fatalf("there are %d groups after a wipe, and %d before", len(lives), len(c.lives))
		}
		if lives[0] == c.lives[0] {
			t.Fatalf("the life is the same after a wipe")
		}
		other.lives = lives
	}
	other.has("after a wipe", id, 0, nil)
	other.must(store.Swap{ID: id, Tag: 9, Record: []byte("c")})
	c.lives = c.ask(newLife())
	c.has("what another has begun in the new life", id, 9, []byte("c"))
	f.Wipe()
	proposed := newLife()
	for g, life := range c.ask(proposed) {
		if life != proposed {
			t.Fatalf("after a wipe group %d has life %v, want the one proposed, %v", g, life, proposed)
		}
	}
}

func removedIsGone(t tester, f Fixture) {
	if f.Remove == nil {
		t.Logf("there is no Remove")
		return
	}
	c := f.open(t)
	id, beside := newID(), newID()
	c.must(store.Swap{ID: id, Tag: 7, Record: []byte("a")}, store.Swap{ID: beside, Tag: 7, Record: []byte("b")})
	f.Remove(id)
	c.changed("its base was removed", c.swap(store.Swap{ID: id, Base: 7, Tag: 8, Record: []byte("b")})[0], 0, nil)
	c.has("removed", id, 0, nil)
	c.has("the one beside it", beside, 7, []byte("b"))
	if lives := c.ask(newLife()); !slices.Equal(lives, c.lives) {
		t.Fatalf("one record is gone, and the lives are %v, want %v as before", lives, c.lives)
	}
	c.must(store.Swap{ID: id, Tag: 9, Record: []byte("anew")})
	c.has("begun anew", id, 9, []byte("anew"))
}

func setAside(t tester, f Fixture) {
	ctx := context.Background()
	c, other := f.open(t), f.open(t)
	for _, record := range [][]byte{[]byte("x"), []byte("a record\r\n\x00"), bytes.Repeat([]byte{0xfe}, 1000)} {
		id, beside := newID(), newID()
		aside := func(record []byte) {
			t.Helper()
			if err := c.st.SetAside(ctx, id, record); err != nil {
				t.Fatalf("SetAside: %v", err)
			}
		}
		aside(record) // there is nothing
		c.has("nothing was set aside", id, 0, nil)
		c.must(store.Swap{ID: id, Tag: 7, Record: record}, store.Swap{ID: beside, Tag: 7, Record: record})
		for _, another := range [][]byte{[]byte("another"), append(bytes.Clone(record), 0), record[:len(record)-1]} {
			aside(another)
			c.has("another record was set aside", id, 7, record)
		}
		aside(record)
		other.has("set aside", id, 0, nil)
		other.has("the one beside it", beside, 7, record)
		aside(record)
		c.changed("its base was set aside", c.swap(store.Swap{ID: id, Base: 7, Tag: 8, Record: record})[0], 0, nil)
		c.must(store.Swap{ID: id, Tag: 9, Record: []byte("anew")})
		aside(record)
		c.has("begun anew", id, 9, []byte("anew"))
	}
}

// Of many that swap on the same base, one does, and the others are told of it.
func oneOfManyWins(t tester, f Fixture) {
	const clients, rounds, streams = 6, 30, 10
	all := make([]*client, clients)
	for i := range all {
		all[i] = f.open(t)
	}
	ids, bases := make([]streamid.ID, streams), make([]uint64, streams)
	for i := range ids {
		ids[i] = newID()
	}
	for round := range rounds {
		swaps, results := make([][]store.Swap, clients), make([][]store.Result, clients)
		var wg sync.WaitGroup
		for c := range all {
			for i, id := range ids {
				tag := newTag()
				swaps[c] = append(swaps[c], store.Swap{ID: id, Base: bases[i], Tag: tag, Record: fmt.Append(nil, "tag ", tag)})
			}
			all[c].on(swaps[c]...)
			wg.Go(func() {
				var err error
				if results[c], err = all[c].st.Swap(context.Background(), swaps[c]); err != nil || len(results[c]) != streams {
					t.Errorf("Swap: %d results, error %v", len(results[c]), err)
					results[c] = make([]store.Result, streams)
				}
				results[c] = slices.Clone(results[c]) // valid until the next call
			})
		}
		wg.Wait()
		for i := range ids {
			winners, winner := 0, uint64(0)
			for c := range all {
				if results[c][i].Status == store.Swapped {
					winner = swaps[c][i].Tag
					winners++
				}
			}
			if winners != 1 {
				t.Fatalf("round %d, stream %d: %d have swapped on one base, want one", round, i, winners)
			}
			for c := range all {
				if r := results[c][i]; r.Status != store.Swapped {
					all[c].changed("who has not won", r, winner, fmt.Append(nil, "tag ", winner))
				}
			}
			all[0].has("after the round", ids[i], winner, fmt.Append(nil, "tag ", winner))
			bases[i] = winner
		}
	}
}

// Units of several clients are of the same streams, in other orders. Each that is done leaves all of its records.
func unitsDoNotMix(t tester, f Fixture) {
	const clients, rounds, streams = 4, 30, 5
	all := make([]*client, clients)
	for i := range all {
		all[i] = f.open(t)
	}
	ids := sameGroup(streams)
	base := uint64(0)
	for round := range rounds {
		tags := make([]uint64, clients)
		done := make([]bool, clients)
		var wg sync.WaitGroup
		for c := range all {
			tags[c] = newTag()
			var swaps []store.Swap
			for i := range ids {
				id := ids[(i+c)%streams]
				swaps = append(swaps, store.Swap{ID: id, Base: base, Tag: tags[c], Record: fmt.Append(nil, "tag ", tags[c]), Unit: 1})
			}
			all[c].on(swaps...)
			wg.Go(func() {
				results, err := all[c].st.Swap(context.Background(), swaps)
				if err != nil {
					t.Errorf("Swap: %v", err)
				}
				for _, r := range results {
					done[c] = r.Status == store.Swapped
				}
			})
		}
		wg.Wait()
		winners := 0
		for c := range all {
			if done[c] {
				winners++
				base = tags[c]
			}
		}
		if winners != 1 {
			t.Fatalf("round %d: %d units were done on one base, want one", round, winners)
		}
		for _, id := range ids {
			all[0].has("after the round", id, base, fmt.Append(nil, "tag ", base))
		}
	}
}

// A call whose context is over returns soon, with an error or with results, and the store goes on.
func contextIsOver(t tester, f Fixture) {
	const patience = 10 * time.Second
	c := f.open(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	id := newID()
	soon := func(what string, call func()) {
		t.Helper()
		done := make(chan struct{})
		go func() { defer close(done); call() }()
		select {
		case <-done:
		case <-time.After(patience):
			t.Fatalf("%s does not return", what)
		}
	}
	var results []store.Result
	var err error
	soon("Swap", func() {
		results, err = c.st.Swap(ctx, c.on(store.Swap{ID: id, Tag: 7, Record: []byte("a")}))
	})
	if err == nil && (len(results) != 1 || results[0].Status != store.Swapped) {
		t.Fatalf("Swap has neither an error nor the result: %v", results)
	}
	acknowledged := err == nil
	soon("Lives", func() { _, _ = c.st.Lives(ctx, newLife()) })
	soon("SetAside", func() { _ = c.st.SetAside(ctx, id, []byte("another")) })
	if lives := c.ask(newLife()); !slices.Equal(lives, c.lives) {
		t.Fatalf("the lives are %v since, want %v as before", lives, c.lives)
	}
	if r := c.there(id); acknowledged || r.Tag != 0 || r.Record != nil {
		c.changed("it may have been done, but only all of it", r, 7, []byte("a"))
	}
	c.must(store.Swap{ID: newID(), Tag: 9, Record: []byte("b")})
}

// A stream that is written, however often, is there for as long as a record lives after that.
func recordsLiveOn(t tester, f Fixture) {
	if f.TTL == 0 {
		t.Logf("there is no TTL")
		return
	}
	c := f.open(t)
	const steps = 15
	step := f.TTL / 5
	started := f.Now()
	// Streams are written every so many steps; half of them in units.
	type stream struct {
		id      streamid.ID
		every   int
		tag     uint64
		written time.Time
		size    int
	}
	var streams []*stream
	for i, id := range sameGroup(24) {
		streams = append(streams, &stream{id: id, every: 1 + i%4, size: 3})
	}
	for at := range steps + 1 {
		var swaps []store.Swap
		for i, s := range streams {
			if at%s.every != 0 {
				continue
			}
			s.size += i % 3
			tag := newTag()
			swap := store.Swap{ID: s.id, Base: s.tag, Tag: tag, Record: bytes.Repeat([]byte{'r'}, s.size)}
			if i < len(streams)/2 {
				swap.Unit = int32(1 + i/4)
			}
			s.tag, s.written = tag, f.Now()
			swaps = append(swaps, swap)
		}
		for _, r := range c.swap(swaps...) {
			if r.Status != store.Swapped {
				t.Fatalf("%v after the start, a stream that is written every %v at the longest: %s, want Swapped (records live for %v)",
					f.Now().Sub(started), 4*step, show(r), f.TTL)
			}
		}
		f.Wait(step)
	}
	// A step has passed since the last were written.
	f.Wait(f.TTL*7/10 - step)
	for _, s := range streams {
		if age := f.Now().Sub(s.written); age < f.TTL*9/10 {
			if r := c.there(s.id); r.Tag != s.tag {
				t.Fatalf("a record that was written %v ago: %s (records live for %v)", age, show(r), f.TTL)
			}
		}
	}
}

// readsTell checks a store.Reader: what nobody is changing meanwhile is told as it is, in order, and as a copy.
func readsTell(t tester, f Fixture) {
	c, other := f.open(t), f.open(t)
	reader, ok := c.st.(store.Reader)
	if !ok {
		return
	}
	read := func(ids ...streamid.ID) []store.Result {
		t.Helper()
		results, err := reader.Read(context.Background(), ids)
		if err != nil {
			t.Fatalf("Read: %v", err)
		}
		if len(results) != len(ids) {
			t.Fatalf("%d streams have %d results", len(ids), len(results))
		}
		return results
	}
	read()
	const n = 3000
	ids, swaps := make([]streamid.ID, n), make([]store.Swap, 0, n)
	for i := range ids {
		ids[i] = newID()
		if i%3 != 0 {
			swaps = append(swaps, store.Swap{ID: ids[i], Tag: newTag(), Record: fmt.Append(nil, "record\x00", i)})
		}
	}
	c.must(swaps...)
	read(ids...)
	for i := range swaps {
		if i%2 == 0 {
			swaps[i].Base, swaps[i].Tag, swaps[i].Record = swaps[i].Tag, newTag(), fmt.Append(nil, "another\x00", i)
		} else {
			swaps[i].Base, swaps[i].Record = swaps[i].Tag, nil
		}
	}
	other.must(swaps...)
	want := map[streamid.ID]store.Result{}
	for i, swap := range swaps {
		r := store.Result{Status: store.Changed, Tag: swap.Tag, Record: swap.Record}
		if r.Record == nil {
			r.Record = fmt.Append(nil, "record\x00", i/2*3+1+i%2)
		}
		want[swap.ID] = r
	}
	for _, some := range [][]streamid.ID{ids, ids[7:8], ids[6:7]} {
		for i, got := range read(some...) {
			c.changed(fmt.Sprintf("stream %d of %d", i, len(some)), got, want[some[i]].Tag, want[some[i]].Record)
			for k := range got.Record {
				got.Record[k] = 'x'
			}
		}
	}
	for i, got := range read(ids...) {
		c.changed(fmt.Sprintf("stream %d once more", i), got, want[ids[i]].Tag, want[ids[i]].Record)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	_, _ = reader.Read(ended, ids)
	c.changed("after a context that is over", read(ids[1])[0], want[ids[1]].Tag, want[ids[1]].Record)
}
