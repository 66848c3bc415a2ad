// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package logtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/deltaring/deltaring/d2c/store/log"
)

// client is a driver of which nothing may fail.
type client struct {
	t tester
	d log.Driver
}

func (f Fixture) open(t tester) client { return client{t, f.Open()} }

// newID is never zero.
func newID() uint64 { return rand.Uint64() | 1 }

func (c client) read(n int, after log.Position) log.Tail {
	c.t.Helper()
	tail, err := c.d.Read(context.Background(), n, after)
	if err != nil {
		c.t.Fatalf("Read of log %d after %v: %v", n, after, err)
	}
	return tail
}

func (c client) call(appends ...log.Append) []bool {
	c.t.Helper()
	done, err := c.d.Append(context.Background(), appends)
	if err != nil {
		c.t.Fatalf("Append: %v", err)
	}
	if len(done) != len(appends) {
		c.t.Fatalf("Append returns %d results for %d appends", len(done), len(appends))
	}
	return done
}

// try appends to a log, and returns where that ends then.
func (c client) try(n int, after log.Position, data []byte) (log.Position, bool) {
	c.t.Helper()
	a := log.Append{Log: n, After: after, ID: newID(), Entry: data}
	return log.Position{Number: after.Number + 1, ID: a.ID}, c.call(a)[0]
}

// must fails unless the entry is appended.
func (c client) must(n int, after log.Position, data string) log.Position {
	c.t.Helper()
	end, done := c.try(n, after, []byte(data))
	if !done {
		c.t.Fatalf("log %d ends at %v, but an append of %q there is refused", n, after, short([]byte(data)))
	}
	return end
}

// refused fails if the entry is appended.
func (c client) refused(what string, n int, after log.Position) {
	c.t.Helper()
	if _, done := c.try(n, after, []byte("wrong")); done {
		c.t.Fatalf("%s: an append to log %d after %v is done, want that it is refused", what, n, after)
	}
	if c.call(log.Append{Log: n, After: after})[0] {
		c.t.Fatalf("%s: a check says that log %d ends at %v", what, n, after)
	}
}

func (c client) compact(n int, at log.Position, snapshot []byte) {
	c.t.Helper()
	if err := c.d.Compact(context.Background(), n, at, snapshot); err != nil {
		c.t.Fatalf("Compact of log %d at %v: %v", n, at, err)
	}
}

// written is what a log should be.
type written struct {
	from     log.Position
	snapshot []byte
	entries  []log.Entry
}

// end is where it ends.
func (w *written) end() log.Position {
	t := log.Tail{From: w.from, Entries: w.entries}
	return t.End()
}

// at is where it ends but for the last n entries.
func (w *written) at(before int) log.Position {
	t := log.Tail{From: w.from, Entries: w.entries[:len(w.entries)-before]}
	return t.End()
}

// write appends entries.
func (c client) write(n int, w *written, entries ...string) {
	c.t.Helper()
	for _, e := range entries {
		end := c.must(n, w.end(), e)
		w.entries = append(w.entries, log.Entry{ID: end.ID, Data: []byte(e)})
	}
}

// begin returns a log with entries.
func (c client) begin(n int, entries ...string) *written {
	c.t.Helper()
	w := new(written)
	c.write(n, w, entries...)
	return w
}

// whole fails unless a log, read from its begin and after the position of each entry, is what it should be.
func (c client) whole(what string, n int, w *written) {
	c.t.Helper()
	c.tail(what, n, log.Position{}, w.from, w.snapshot, w.entries)
	for i := range w.entries {
		c.tail(what, n, w.at(i), w.at(i), nil, w.entries[len(w.entries)-i:])
	}
}

// tail fails unless reading after a position gives that.
func (c client) tail(what string, n int, after, from log.Position, snapshot []byte, entries []log.Entry) {
	c.t.Helper()
	got := c.read(n, after)
	if got.From != from {
		c.t.Fatalf("%s: log %d, read after %v, is told from %v, want %v", what, n, after, got.From, from)
	}
	if !bytes.Equal(got.Snapshot, snapshot) || (got.Snapshot == nil) != (snapshot == nil) {
		c.t.Fatalf("%s: log %d, read after %v: the snapshot is %s, want %s", what, n, after, show(got.Snapshot), show(snapshot))
	}
	if len(got.Entries) != len(entries) {
		c.t.Fatalf("%s: log %d, read after %v, has %d entries, want %d", what, n, after, len(got.Entries), len(entries))
	}
	for i, e := range got.Entries {
		if e.ID != entries[i].ID || !bytes.Equal(e.Data, entries[i].Data) {
			c.t.Fatalf("%s: log %d, read after %v: entry %d is %x, %s, want %x, %s", what, n, after, i, e.ID, show(e.Data), entries[i].ID, show(entries[i].Data))
		}
	}
}

func show(b []byte) string {
	if b == nil {
		return "nil"
	}
	return fmt.Sprintf("%d bytes %q", len(b), short(b))
}

func short(b []byte) []byte { return b[:min(len(b), 40)] }

func emptyAtFirst(t tester, f Fixture) {
	c := f.open(t)
	none := new(written)
	for _, n := range []int{0, 1, 63, 255} {
		c.whole("nothing was appended", n, none)
		for _, after := range []log.Position{{Number: 1, ID: 5}, {Number: 1 << 40, ID: 1 << 63}, {ID: 7}} {
			c.tail("nothing was appended", n, after, log.Position{}, nil, nil)
			c.refused("nothing was appended", n, after)
		}
		if !c.call(log.Append{Log: n})[0] {
			t.Fatalf("a check says that log %d, which is empty, does not end at zero", n)
		}
	}
}

func entriesComeBack(t tester, f Fixture) {
	c := f.open(t)
	w := new(written)
	for i := range 12 {
		c.write(3, w, fmt.Sprintf("entry %d", i))
		c.whole("after an append", 3, w)
	}
	f.open(t).whole("another driver", 3, w)
}

func firstWins(t tester, f Fixture) {
	a, b := f.open(t), f.open(t)
	w := new(written)
	for i := range 10 {
		known := w.end()
		a.write(0, w, fmt.Sprintf("first %d", i))
		b.refused("another was first", 0, known)
		b.tail("reading on", 0, known, known, nil, w.entries[len(w.entries)-1:])
		if i%3 == 0 {
			a, b = b, a
		}
	}
	a.whole("then", 0, w)
	b.whole("then", 0, w)
}

func appendsAtTheEnd(t tester, f Fixture) {
	c := f.open(t)
	w := c.begin(9, "a", "b", "c", "d")
	end := w.end()
	for what, after := range map[string]log.Position{
		"the log is not empty":           {},
		"an entry before the last":       w.at(1),
		"the first entry":                w.at(3),
		"beyond the end":                 {Number: end.Number + 1, ID: end.ID},
		"far beyond the end":             {Number: end.Number + 1000, ID: newID()},
		"the end of another history":     {Number: end.Number, ID: newID()},
		"the last ID, the number before": {Number: end.Number - 1, ID: end.ID},
		"no ID":                          {Number: end.Number},
		"no number":                      {ID: end.ID},
	} {
		c.refused(what, 9, after)
	}
	c.write(9, w, "e")
	c.whole("then", 9, w)
}

func positionsAreExact(t tester, f Fixture) {
	c := f.open(t)
	ids := []uint64{1, 1<<64 - 1, 1 << 63, 1<<63 - 1, 1 << 53, 0x0d0a0d0a0d0a0d0a, 0x3030303030303030, newID()}
	var end log.Position
	for i, id := range ids {
		if !c.call(log.Append{Log: 1, After: end, ID: id, Entry: []byte("x")})[0] {
			t.Fatalf("an entry with ID %#x is refused", id)
		}
		end = log.Position{Number: uint64(i + 1), ID: id}
		if got := c.read(1, log.Position{}); got.End() != end {
			t.Fatalf("the log ends at %v, want %v", got.End(), end)
		}
		for bit := range 64 {
			p := log.Position{Number: end.Number, ID: id ^ 1<<bit}
			if p.ID != 0 && c.call(log.Append{Log: 1, After: p})[0] {
				t.Fatalf("the log ends at %v, and a check says that it ends at %v", end, p)
			}
		}
	}
	for bit := range 63 {
		p := log.Position{Number: end.Number ^ 1<<bit, ID: end.ID}
		if c.call(log.Append{Log: 1, After: p})[0] {
			t.Fatalf("the log ends at %v, and a check says that it ends at %v", end, p)
		}
	}
}

func checksAppendNothing(t tester, f Fixture) {
	a, b := f.open(t), f.open(t)
	w := a.begin(2, "a", "b")
	for range 3 {
		if !b.call(log.Append{Log: 2, After: w.end()})[0] {
			t.Fatalf("a check says that the log does not end where it does")
		}
		a.whole("after a check", 2, w)
	}
	// With an ID, which is of no use.
	if !b.call(log.Append{Log: 2, After: w.end(), ID: newID()})[0] {
		t.Fatalf("a check with an ID says that the log does not end where it does")
	}
	a.write(2, w, "c")
	if b.call(log.Append{Log: 2, After: w.at(1)})[0] {
		t.Fatalf("a check says that the log ends where it ended before another's append")
	}
	a.whole("then", 2, w)
}

func appendsAreApart(t tester, f Fixture) {
	c := f.open(t)
	const logs = 40
	var all [logs]*written
	for n := range all {
		all[n] = new(written)
	}
	for round := range 4 {
		var appends []log.Append
		var want []bool
		for _, n := range rand.Perm(logs) {
			a := log.Append{Log: n, After: all[n].end(), ID: newID(), Entry: fmt.Appendf(nil, "round %d of log %d", round, n)}
			switch kind := (n + round) % 4; kind {
			case 0: // done
				all[n].entries = append(all[n].entries, log.Entry{ID: a.ID, Data: a.Entry})
				want = append(want, true)
			case 1: // refused
				a.After.ID += 2
				want = append(want, false)
			case 2: // a check that is right
				a.ID, a.Entry = 0, nil
				want = append(want, true)
			case 3: // and one that is not
				a.ID, a.Entry = 0, nil
				a.After.Number++
				want = append(want, false)
			}
			appends = append(appends, a)
		}
		for i, done := range c.call(appends...) {
			if done != want[i] {
				t.Fatalf("append %d of %d, to log %d after %v, with %s: done is %v, want %v",
					i, len(appends), appends[i].Log, appends[i].After, show(appends[i].Entry), done, want[i])
			}
		}
		for n, w := range all {
			c.whole("after a call for all", n, w)
		}
	}
}

func noAppends(t tester, f Fixture) { f.open(t).call() }

func logsAreApart(t tester, f Fixture) {
	c := f.open(t)
	var all [256]written
	var appends []log.Append
	for n := range all {
		e := log.Entry{ID: newID(), Data: fmt.Append(nil, "log ", n)}
		all[n].entries = append(all[n].entries, e)
		appends = append(appends, log.Append{Log: n, ID: e.ID, Entry: e.Data})
	}
	for i, done := range c.call(appends...) {
		if !done {
			t.Fatalf("log %d is empty, and its first append is refused", i)
		}
	}
	// IDs of one log are nothing to another.
	c.refused("the end of another log", 7, all[8].end())
	c.tail("the end of another log", 7, all[8].end(), log.Position{}, nil, all[7].entries)
	c.compact(8, all[8].end(), []byte("log 8 in short"))
	all[8] = written{from: all[8].end(), snapshot: []byte("log 8 in short")}
	c.compact(9, all[10].end(), []byte("wrong"))
	other := f.open(t)
	for n := range all {
		other.whole("256 logs", n, &all[n])
	}
}

func readsAfterAny(t tester, f Fixture) {
	c := f.open(t)
	w := c.begin(4, "a", "b", "c", "d", "e", "f")
	old := *w
	for range 2 { // without a snapshot, and with one
		end := w.end()
		for what, after := range map[string]log.Position{
			"beyond the end":     {Number: end.Number + 1, ID: newID()},
			"far beyond the end": {Number: end.Number + 1<<40, ID: newID()},
			"another history":    {Number: end.Number, ID: newID()},
			"another history, and an entry before the last": {Number: end.Number - 1, ID: newID()},
			"the ID of another number":                      {Number: end.Number - 1, ID: end.ID},
			"no number":                                     {ID: newID()},
			"no ID":                                         {Number: end.Number},
		} {
			c.tail(what, 4, after, w.from, w.snapshot, w.entries)
		}
		c.whole("every position", 4, w)
		c.tail("the end", 4, end, end, nil, nil)
		if w.snapshot == nil {
			at := w.at(3)
			c.compact(4, at, []byte("a to c"))
			*w = written{from: at, snapshot: []byte("a to c"), entries: w.entries[3:]}
		}
	}
	for i := 4; i < 6; i++ {
		c.tail("compacted away", 4, old.at(i), w.from, w.snapshot, w.entries)
	}
	c.tail("where the snapshot ends", 4, w.from, w.from, nil, w.entries)
}

func snapshotsReplace(t tester, f Fixture) {
	a, b := f.open(t), f.open(t)
	w := a.begin(5, "a", "b", "c")
	end := w.end()
	a.compact(5, end, []byte("abc"))
	*w = written{from: end, snapshot: []byte("abc")}
	b.whole("all is in the snapshot", 5, w)
	b.tail("the end", 5, end, end, nil, nil)
	b.refused("the log is not empty", 5, log.Position{})
	if !b.call(log.Append{Log: 5, After: end})[0] {
		t.Fatalf("a check says that a log does not end where its snapshot does")
	}
	b.write(5, w, "d", "e")
	a.whole("entries after the snapshot", 5, w)
}

func entriesStay(t tester, f Fixture) {
	a, b := f.open(t), f.open(t)
	w := a.begin(6, "a", "b", "c", "d", "e")
	at := w.at(2)
	b.compact(6, at, []byte("abc"))
	*w = written{from: at, snapshot: []byte("abc"), entries: w.entries[3:]}
	a.whole("two entries are after the snapshot", 6, w)
	a.write(6, w, "f") // at a position from before
	a.whole("and one more", 6, w)
}

func snapshotsTooLate(t tester, f Fixture) {
	c := f.open(t)
	c.compact(7, log.Position{Number: 3, ID: 5}, []byte("of nothing"))
	c.whole("a snapshot of an empty log", 7, new(written))
	w := c.begin(7, "a", "b", "c", "d")
	first, second, end := w.at(3), w.at(2), w.end()
	c.compact(7, second, []byte("ab"))
	*w = written{from: second, snapshot: []byte("ab"), entries: w.entries[2:]}
	for what, at := range map[string]log.Position{
		"another snapshot is of more":              first,
		"another history":                          {Number: end.Number, ID: newID()},
		"another history, and the snapshot's end":  {Number: second.Number, ID: newID()},
		"beyond the end":                           {Number: end.Number + 1, ID: newID()},
		"the ID of the end, and a number before":   {Number: end.Number - 1, ID: end.ID},
		"the ID of the end, and a number after it": {Number: end.Number + 1, ID: end.ID},
	} {
		c.compact(7, at, []byte("wrong"))
		c.whole(what, 7, w)
	}
	c.write(7, w, "e")
	c.whole("then", 7, w)
}

func snapshotsFollow(t tester, f Fixture) {
	c := f.open(t)
	w := new(written)
	for i := range 5 {
		c.write(8, w, fmt.Sprintf("%d first", i), fmt.Sprintf("%d second", i), fmt.Sprintf("%d third", i))
		at := w.at(1)
		snapshot := fmt.Appendf(nil, "up to %d", i)
		c.compact(8, at, snapshot)
		*w = written{from: at, snapshot: snapshot, entries: w.entries[len(w.entries)-1:]}
		c.whole("after a snapshot", 8, w)
	}
	// Two owners that make the same one: whose stays does not matter.
	c.compact(8, w.from, w.snapshot)
	c.whole("the same snapshot again", 8, w)
}

func staleOwners(t tester, f Fixture) {
	stale, owner := f.open(t), f.open(t)
	w := stale.begin(10, "a", "b")
	known := w.end()
	owner.write(10, w, "c", "d")
	at := w.end()
	owner.compact(10, at, []byte("abcd"))
	*w = written{from: at, snapshot: []byte("abcd")}
	stale.refused("its position was compacted away", 10, known)
	stale.tail("its position was compacted away", 10, known, at, []byte("abcd"), nil)
	stale.compact(10, known, []byte("ab"))
	stale.whole("a stale snapshot", 10, w)
	owner.write(10, w, "e", "f")
	stale.refused("another has gone on", 10, known)
	stale.refused("another has gone on", 10, at)
	stale.tail("reading on", 10, known, at, []byte("abcd"), w.entries)
	stale.write(10, w, "g")
	owner.tail("the stale one has gone on", 10, w.at(1), w.at(1), nil, w.entries[2:])
}

func bytesAreNotKept(t tester, f Fixture) {
	c := f.open(t)
	w := new(written)
	for i := range 3 {
		data := fmt.Appendf(nil, "entry %d", i)
		end, done := c.try(11, w.end(), data)
		if !done {
			t.Fatalf("an append is refused")
		}
		w.entries = append(w.entries, log.Entry{ID: end.ID, Data: bytes.Clone(data)})
		clear(data)
	}
	c.whole("the caller's entry has changed since", 11, w)
	snapshot := []byte("snapshot")
	c.compact(11, w.at(1), snapshot)
	clear(snapshot)
	*w = written{from: w.at(1), snapshot: []byte("snapshot"), entries: w.entries[2:]}
	c.whole("the caller's snapshot has changed since", 11, w)
	got := c.read(11, log.Position{})
	clear(got.Snapshot)
	clear(got.Entries[0].Data)
	c.whole("what was returned was written to", 11, w)
}

func everyByte(t tester, f Fixture) {
	c := f.open(t)
	w := new(written)
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	c.write(12, w, string(all))
	for b := range 256 {
		if b%16 == 0 {
			c.write(12, w, string([]byte{byte(b)}), string(bytes.Repeat([]byte{byte(b), byte(b + 1), 0}, 5)))
		}
	}
	c.tail("every byte", 12, log.Position{}, log.Position{}, nil, w.entries)
	end := w.end()
	c.compact(12, end, all)
	c.tail("every byte", 12, log.Position{}, end, all, nil)
}

// noise is of bytes that do not compress.
func noise(size int) []byte {
	b := make([]byte, 0, size+8)
	for len(b) < size {
		b = binary.LittleEndian.AppendUint64(b, rand.Uint64())
	}
	return b[:size]
}

func largeOnes(t tester, f Fixture) {
	c := f.open(t)
	w := new(written)
	for _, size := range []int{1 << 16, 1<<16 + 1, 1 << 20, f.MaxEntry, 10, f.MaxEntry} {
		size = min(size, f.MaxEntry)
		data := noise(size)
		end, done := c.try(13, w.end(), data)
		if !done {
			t.Fatalf("an append of %d bytes is refused", size)
		}
		w.entries = append(w.entries, log.Entry{ID: end.ID, Data: data})
	}
	c.tail("large entries", 13, log.Position{}, log.Position{}, nil, w.entries)
	c.tail("a large entry", 13, w.at(1), w.at(1), nil, w.entries[len(w.entries)-1:])
	snapshot, at := noise(f.MaxSnapshot), w.at(1)
	c.compact(13, at, snapshot)
	c.tail("a large snapshot", 13, log.Position{}, at, snapshot, w.entries[len(w.entries)-1:])
	end := w.end()
	c.compact(13, end, []byte("small"))
	c.tail("a small snapshot after a large one", 13, log.Position{}, end, []byte("small"), nil)
	// Several in one call.
	var appends []log.Append
	for n := range 4 {
		appends = append(appends, log.Append{Log: 20 + n, ID: newID(), Entry: noise(f.MaxEntry / 2)})
	}
	for i, done := range c.call(appends...) {
		if !done {
			t.Fatalf("append %d of several large ones is refused", i)
		}
		c.tail("one of several large ones", 20+i, log.Position{}, log.Position{}, nil, []log.Entry{{ID: appends[i].ID, Data: appends[i].Entry}})
	}
}

func manyEntries(t tester, f Fixture) {
	c := f.open(t)
	w := new(written)
	const entries = 300
	for i := range entries {
		c.write(14, w, fmt.Sprintf("entry %d %s", i, bytes.Repeat([]byte{'x'}, i%7*300)))
		if i%120 == 100 {
			at, kept := w.at(37), w.entries[len(w.entries)-37:]
			snapshot := fmt.Appendf(nil, "up to %d", i-37)
			c.compact(14, at, snapshot)
			*w = written{from: at, snapshot: snapshot, entries: append([]log.Entry(nil), kept...)}
		}
	}
	if end := w.end(); end.Number != entries {
		t.Fatalf("the log ends at %v", end)
	}
	f.open(t).whole("many entries", 14, w)
}

// Of many that begin the same logs at once one does, for each log, and all others find what that one has appended.
func oneBegins(t tester, f Fixture) {
	const clients, logs = 6, 16
	var appends [clients][]log.Append
	var done [clients][]bool
	var wg sync.WaitGroup
	for i := range clients {
		c := f.open(t)
		for n := range logs {
			appends[i] = append(appends[i], log.Append{Log: 30 + n, ID: newID(), Entry: fmt.Append(nil, "client ", i)})
		}
		wg.Go(func() {
			var err error
			if done[i], err = c.d.Append(context.Background(), appends[i]); err != nil || len(done[i]) != logs {
				t.Errorf("Append: %d results, error %v", len(done[i]), err)
				done[i] = make([]bool, logs)
			}
		})
	}
	wg.Wait()
	c := f.open(t)
	for n := range logs {
		winners, winner := 0, 0
		for i := range clients {
			if done[i][n] {
				winners, winner = winners+1, i
			}
		}
		if winners != 1 {
			t.Fatalf("%d have begun log %d, want one", winners, 30+n)
		}
		a := &appends[winner][n]
		c.tail("one has begun it", a.Log, log.Position{}, log.Position{}, nil, []log.Entry{{ID: a.ID, Data: a.Entry}})
	}
}

// Owners append to the same logs, each after reading on, others read, and others make snapshots. A snapshot is the list of the IDs of all
// entries, so whatever is read at whatever time shows the whole history.
func allAtOnce(t tester, f Fixture) {
	const owners, perOwner, logs = 3, 40, 2
	type history struct {
		known log.Position
		ids   []uint64
	}
	// follow reads on, and reports whether that fits what is known.
	follow := func(c client, n int, h *history) bool {
		tail, err := c.d.Read(context.Background(), n, h.known)
		if err != nil {
			t.Errorf("Read: %v", err)
			return false
		}
		was := h.ids
		if tail.From != h.known {
			h.ids = nil
			for b := tail.Snapshot; len(b) >= 8; b = b[8:] {
				h.ids = append(h.ids, binary.LittleEndian.Uint64(b))
			}
		} else if tail.Snapshot != nil {
			t.Errorf("log %d, read after a position that it has, comes with a snapshot", n)
			return false
		}
		if uint64(len(h.ids)) != tail.From.Number || len(h.ids) > 0 && h.ids[len(h.ids)-1] != tail.From.ID {
			t.Errorf("log %d is told from %v, and what is known up to there are %d entries", n, tail.From, len(h.ids))
			return false
		}
		for _, e := range tail.Entries {
			if len(e.Data) != 8 || binary.LittleEndian.Uint64(e.Data) != e.ID {
				t.Errorf("entry %x of log %d has the data %x", e.ID, n, e.Data)
				return false
			}
			h.ids = append(h.ids, e.ID)
		}
		for i, id := range was {
			if i >= len(h.ids) || h.ids[i] != id {
				t.Errorf("log %d had entry %d, and has it no more", n, i+1)
				return false
			}
		}
		h.known = tail.End()
		return true
	}
	var appended [owners][logs][]uint64
	var wg, busy sync.WaitGroup
	stop := make(chan struct{})
	for i := range owners {
		c := f.open(t)
		busy.Go(func() {
			var known [logs]history
			for len(appended[i][0]) < perOwner || len(appended[i][1]) < perOwner {
				var appends []log.Append
				for n := range logs {
					if !follow(c, n, &known[n]) {
						return
					}
					id := newID()
					appends = append(appends, log.Append{Log: n, After: known[n].known, ID: id, Entry: binary.LittleEndian.AppendUint64(nil, id)})
				}
				done, err := c.d.Append(context.Background(), appends)
				if err != nil {
					t.Errorf("Append: %v", err)
					return
				}
				for n := range done {
					if done[n] {
						appended[i][n] = append(appended[i][n], appends[n].ID)
					}
				}
			}
		})
	}
	for i := range 3 { // two make snapshots, one of which is slow; one reads
		c := f.open(t)
		wg.Go(func() {
			var known [logs]history
			for n := 0; ; n = (n + 1) % logs {
				select {
				case <-stop:
					return
				default:
				}
				if !follow(c, n, &known[n]) {
					return
				}
				at, ids := known[n].known, known[n].ids
				switch {
				case i == 2 || at.Number == 0:
					continue
				case i == 1:
					if !follow(c, n, &known[n]) {
						return
					}
				}
				var snapshot []byte
				for _, id := range ids {
					snapshot = binary.LittleEndian.AppendUint64(snapshot, id)
				}
				if err := c.d.Compact(context.Background(), n, at, snapshot); err != nil {
					t.Errorf("Compact: %v", err)
					return
				}
			}
		})
	}
	busy.Wait()
	close(stop)
	wg.Wait()
	c := f.open(t)
	for n := range logs {
		var h history
		if !follow(c, n, &h) {
			return
		}
		place := map[uint64]int{}
		for i, id := range h.ids {
			place[id] = i + 1
		}
		total := 0
		for i := range owners {
			last := 0
			for _, id := range appended[i][n] {
				if place[id] <= last {
					t.Fatalf("log %d: an entry of owner %d that was acknowledged is at place %d, the one before it at %d", n, i, place[id], last)
				}
				last = place[id]
			}
			total += len(appended[i][n])
		}
		if total != len(h.ids) || len(place) != total {
			t.Fatalf("log %d has %d entries, and %d were acknowledged", n, len(h.ids), total)
		}
	}
}

// A call whose context is over returns soon, with an error or with results, and the driver goes on.
func contextIsOver(t tester, f Fixture) {
	const patience = 10 * time.Second
	c := f.open(t)
	w := c.begin(15, "a", "b")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
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
	a := log.Append{Log: 15, After: w.end(), ID: newID(), Entry: []byte("c")}
	var done []bool
	var err error
	soon("Append", func() { done, err = c.d.Append(ctx, []log.Append{a}) })
	if err == nil && (len(done) != 1 || !done[0]) {
		t.Fatalf("Append has neither an error nor the result: %v", done)
	}
	soon("Read", func() { _, _ = c.d.Read(ctx, 15, w.end()) })
	acknowledged := err == nil
	tail := c.read(15, w.end())
	if n := len(tail.Entries); n > 0 || acknowledged {
		if n != 1 || tail.Entries[0].ID != a.ID || !bytes.Equal(tail.Entries[0].Data, a.Entry) {
			t.Fatalf("an append, acknowledged or not (%v), may have been done, but only as it is: %v", acknowledged, tail.Entries)
		}
		w.entries = append(w.entries, tail.Entries[0])
	}
	at := w.end()
	soon("Compact", func() { err = c.d.Compact(ctx, 15, at, []byte("in short")) })
	tail = c.read(15, log.Position{})
	if tail.Snapshot != nil || err == nil {
		*w = written{from: at, snapshot: []byte("in short")}
	}
	c.whole("then", 15, w)
	c.write(15, w, "d")
}
