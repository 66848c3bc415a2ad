// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package log

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/streamid"
)

var update = flag.Bool("update", false, "write the golden vectors")

// A log of all kinds of items, as it must be read for ever.
func goldenLog() (entries [][]byte, snapshot []byte, ids []uint64) {
	ids = []uint64{0x1122334455667788, 3, 1<<64 - 1}
	const now = 1_700_000_000
	e := appendHeader(nil, flavourEntry, now, 1)
	e = appendLife(e, store.Life{ID: 0xabcdef0123456789, From: -5, Floor: now * 1e9}, 4)
	entries = append(entries, appendChecksum(e, 0, ids[0]))

	e = appendHeader(nil, flavourEntry, now+1, 2)
	e = appendPut(e, streamid.ID{Hi: 1, Lo: 2}, 3, []byte("a record"))
	e = appendPut(e, streamid.ID{Hi: 1 << 63, Lo: 1<<64 - 1}, 1<<64-1, bytes.Repeat([]byte{0xfe}, 100))
	e = appendPut(e, streamid.ID{Hi: 5, Lo: 6}, 7, []byte("aside"))
	entries = append(entries, appendChecksum(e, 0, ids[1]))

	e = appendHeader(nil, flavourEntry, now+2, 3)
	e = appendKept(e, itemAside, now+2, streamid.ID{Hi: 5, Lo: 6}, 7, []byte("aside"))
	e = appendPut(e, streamid.ID{Hi: 1, Lo: 2}, 9, []byte("the next one"))
	entries = append(entries, appendChecksum(e, 0, ids[2]))

	s := appendHeader(nil, flavourState, now+3, 3)
	s = appendLife(s, store.Life{ID: 0xabcdef0123456789, From: -5, Floor: now * 1e9}, 4)
	s = appendKept(s, itemKept, now+2, streamid.ID{Hi: 1, Lo: 2}, 9, []byte("the next one"))
	s = appendKept(s, itemKept, now+1, streamid.ID{Hi: 1 << 63, Lo: 1<<64 - 1}, 1<<64-1, bytes.Repeat([]byte{0xfe}, 100))
	s = appendKept(s, itemAside, now+2, streamid.ID{Hi: 5, Lo: 6}, 7, []byte("aside"))
	return entries, appendChecksum(s, 0, ids[2]), ids
}

// describe is what a replica knows.
func describe(l *replica) string {
	var lines []string
	for _, it := range l.records.all() {
		lines = append(lines, fmt.Sprintf("%v tag %x written %d: %q", it.id(), it.tag(), it.written(), it.record()))
	}
	slices.Sort(lines)
	for _, a := range l.aside {
		lines = append(lines, fmt.Sprintf("aside at %d: %v tag %x: %q", a.At.Unix(), a.ID, a.Tag, a.Record))
	}
	return fmt.Sprintf("%v to %d\n%s", l.life, l.end.Number, strings.Join(lines, "\n"))
}

func golden(t *testing.T, name string, got []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		var b strings.Builder
		for line := range slices.Chunk(got, 32) {
			fmt.Fprintf(&b, "%x\n", line)
		}
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want, err := hex.DecodeString(strings.ReplaceAll(string(text), "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is written as\n%x", name, got)
	}
	return want
}

const goldenState = `{12379813738877118345 -5 1700000000000000000} to 3
00000000000000010000000000000002 tag 9 written 1700000002: "the next one"
8000000000000000ffffffffffffffff tag ffffffffffffffff written 1700000001: "` // and 100 bytes

// What version 1 has written is read, and written again, byte by byte.
func TestGolden(t *testing.T) {
	entries, snapshot, ids := goldenLog()
	var tail Tail
	for i := range entries {
		tail.Entries = append(tail.Entries, Entry{ids[i], golden(t, fmt.Sprintf("entry-v1-%d.hex", i+1), entries[i])})
	}
	state := golden(t, "snapshot-v1.hex", snapshot)
	for name, tail := range map[string]Tail{"entries": tail, "snapshot": {From: Position{3, ids[2]}, Snapshot: state}} {
		l := &replica{groups: 4}
		if err := l.follow(&tail); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := describe(l); !strings.HasPrefix(got, goldenState) || !strings.HasSuffix(got, "\naside at 1700000002: 00000000000000050000000000000006 tag 7: \"aside\"") {
			t.Errorf("%s are read as %s", name, got)
		}
		again := &replica{groups: 4}
		if err := again.follow(&Tail{From: l.end, Snapshot: appendChecksum(l.state(1_700_000_003, 0), 0, l.end.ID)}); err != nil || describe(again) != describe(l) {
			t.Errorf("%s: written again and read as %s, error %v", name, describe(again), err)
		}
	}
}

// Whatever is wrong with a log, it is told as what it is, and nothing is written to the log.
func TestLogsThatCannotBeRead(t *testing.T) {
	ctx := context.Background()
	entries, snapshot, ids := goldenLog()
	m := new(Memory)
	reset := func() {
		m.logs = map[int]*memoryLog{0: {entries: []Entry{{ids[0], entries[0]}, {ids[1], entries[1]}, {ids[2], entries[2]}}}}
	}
	inSnapshot := func() { m.logs = map[int]*memoryLog{0: {from: Position{3, ids[2]}, snapshot: snapshot}} }
	sealed := func(b []byte, id uint64) []byte {
		return appendChecksum(b[:len(b)-checksumSize:len(b)-checksumSize], 0, id)
	}
	newer := func(b []byte, id uint64) []byte {
		b = bytes.Clone(b)
		b[0] = 2
		return sealed(b, id)
	}
	for _, row := range []struct {
		name  string
		spoil func(l *memoryLog)
		want  error
	}{
		{"sound", func(*memoryLog) {}, nil},
		{"newer entry", func(l *memoryLog) { l.entries[1].Data = newer(entries[1], ids[1]) }, ErrVersion},
		{"newer first entry", func(l *memoryLog) { l.entries[0].Data = newer(entries[0], ids[0]) }, ErrVersion},
		{"newer snapshot", func(l *memoryLog) { inSnapshot(); m.logs[0].snapshot = newer(snapshot, ids[2]) }, ErrVersion},
		{"sound snapshot", func(l *memoryLog) { inSnapshot() }, nil},
		{"a bit of an entry", func(l *memoryLog) { l.entries[1].Data = bytes.Clone(entries[1]); l.entries[1].Data[40] ^= 4 }, ErrDamaged},
		{"an entry under another ID", func(l *memoryLog) { l.entries[1].ID++ }, ErrDamaged},
		{"an entry is gone", func(l *memoryLog) { l.entries = slices.Delete(l.entries, 1, 2) }, ErrDamaged},
		{"an entry is there twice", func(l *memoryLog) { l.entries = slices.Insert(l.entries, 1, l.entries[1]) }, ErrDamaged},
		{"the life is gone", func(l *memoryLog) { l.entries = l.entries[1:] }, ErrDamaged},
		{"an entry of nothing", func(l *memoryLog) { l.entries[2].Data = []byte{} }, ErrDamaged},
		{"a snapshot that is cut", func(l *memoryLog) { inSnapshot(); m.logs[0].snapshot = snapshot[:60] }, ErrDamaged},
		{"a snapshot of another position", func(l *memoryLog) { inSnapshot(); m.logs[0].from.Number++ }, ErrDamaged},
		{"a snapshot that is none", func(l *memoryLog) { inSnapshot(); m.logs[0].snapshot = nil }, errNoSnapshot},
		{"an entry for a snapshot", func(l *memoryLog) { inSnapshot(); m.logs[0].snapshot = entries[2] }, ErrDamaged},
		{"two lives", func(l *memoryLog) {
			b := appendLife(bytes.Clone(entries[1][:len(entries[1])-checksumSize]), store.Life{ID: 1}, 4)
			l.entries[1].Data = appendChecksum(b, 0, ids[1])
		}, ErrDamaged},
		{"a record of no bytes", func(l *memoryLog) {
			b := appendPut(bytes.Clone(entries[1][:len(entries[1])-checksumSize]), streamid.ID{}, 1, nil)
			l.entries[1].Data = appendChecksum(b, 0, ids[1])
		}, ErrDamaged},
		{"other groups", func(l *memoryLog) {
			b := appendLife(appendHeader(nil, flavourEntry, 5, 1), store.Life{ID: 1}, 16)
			l.entries = []Entry{{ids[0], appendChecksum(b, 0, ids[0])}}
		}, errGroups},
	} {
		t.Run(row.name, func(t *testing.T) {
			reset()
			row.spoil(m.logs[0])
			before := fmt.Sprint(m.logs[0])
			s, err := New(m, Options{Groups: 4})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close(ctx)
			id := streamid.ID{Hi: 1, Lo: 2}
			for range 2 {
				_, err := s.Swap(ctx, []store.Swap{{ID: id, Life: 0xabcdef0123456789, Base: 9}})
				if !errors.Is(err, row.want) {
					t.Errorf("Swap: error %v, want %v", err, row.want)
				}
				if err != nil && !strings.Contains(err.Error(), "log 0") {
					t.Errorf("Swap: error %q does not name the log", err)
				}
				err = s.SetAside(ctx, id, []byte("the next one, which it is not"))
				if !errors.Is(err, row.want) {
					t.Errorf("SetAside: error %v, want %v", err, row.want)
				}
				if lives, err := s.Lives(ctx, store.Life{ID: 77}); err == nil && lives[0].ID == 77 {
					t.Error("a log that cannot be read has a new life")
				} else if row.want == nil && err != nil {
					t.Errorf("Lives: %v", err)
				}
				if err := s.Compact(ctx); err != nil {
					t.Error(err)
				}
			}
			if row.want != nil && fmt.Sprint(m.logs[0]) != before {
				t.Error("it was written to")
			}
			// Who puts back what was there, goes on.
			reset()
			if results, err := s.Swap(ctx, []store.Swap{{ID: id, Life: 0xabcdef0123456789, Base: 9}}); err != nil || results[0].Status != store.Swapped {
				t.Errorf("when it is sound again: %v, error %v", results, err)
			}
		})
	}
}

// Each bit matters.
func TestEveryBit(t *testing.T) {
	entries, snapshot, ids := goldenLog()
	for _, row := range []struct {
		b       []byte
		flavour byte
		at      Position
	}{{entries[1], flavourEntry, Position{2, ids[1]}}, {snapshot, flavourState, Position{3, ids[2]}}} {
		if _, err := read(row.b, row.flavour, row.at); err != nil {
			t.Fatal(err)
		}
		for bit := range len(row.b) * 8 {
			b := bytes.Clone(row.b)
			b[bit/8] ^= 1 << (bit % 8)
			if _, err := read(b, row.flavour, row.at); !errors.Is(err, ErrDamaged) {
				t.Fatalf("bit %d: error %v", bit, err)
			}
		}
		for n := range row.b {
			if _, err := read(row.b[:n], row.flavour, row.at); !errors.Is(err, ErrDamaged) {
				t.Fatalf("%d bytes: error %v", n, err)
			}
		}
	}
}

// FuzzLog forges a log with right checksums. What can be read is written in a snapshot as it is.
func FuzzLog(f *testing.F) {
	entries, snapshot, _ := goldenLog()
	body := func(b []byte) []byte { return b[headerSize : len(b)-checksumSize] }
	f.Add(body(snapshot), body(entries[1]), body(entries[2]))
	f.Add(body(entries[0]), body(entries[1]), body(entries[2]))
	f.Add([]byte{}, []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, first, second, third []byte) {
		for _, inSnapshot := range []bool{false, true} {
			var tail Tail
			number := uint64(0)
			for i, b := range [][]byte{first, second, third} {
				number++
				flavour := byte(flavourEntry)
				if inSnapshot && i == 0 {
					flavour = flavourState
				}
				b = append(appendHeader(nil, flavour, 1_700_000_000, number), b...)
				b = appendChecksum(b, 0, number)
				if inSnapshot && i == 0 {
					tail.From, tail.Snapshot = Position{number, number}, b
				} else {
					tail.Entries = append(tail.Entries, Entry{number, b})
				}
			}
			l := &replica{groups: 4}
			if err := l.follow(&tail); err != nil {
				if l.records != nil || l.life.ID != 0 || l.end != (Position{}) {
					t.Fatal("what cannot be read is known")
				}
				continue
			}
			again := &replica{groups: 4}
			l.aside = slices.DeleteFunc(l.aside, func(a Aside) bool { return a.At.Add(asideTTL).Unix() <= 1_700_000_000 })
			want := describe(l)
			if err := again.follow(&Tail{From: l.end, Snapshot: appendChecksum(l.state(1_700_000_000, 0), 0, l.end.ID)}); err != nil || describe(again) != want {
				t.Fatalf("written again and read as\n%s\nerror %v, want\n%s", describe(again), err, want)
			}
		}
	})
}

// What was set aside is kept for a month, and not without bound.
func TestAsideIsBounded(t *testing.T) {
	l := &replica{groups: 1, life: store.Life{ID: 1}}
	l.clear()
	l.life = store.Life{ID: 1}
	for i := range 40 {
		l.keepAside(&reader{id: streamid.ID{Lo: uint64(i)}, tag: 1, record: []byte("x"), written: 1000})
	}
	if len(l.aside) != maxAside || l.aside[0].ID.Lo != 40-maxAside {
		t.Errorf("of 40 there are %d, the first is %v", len(l.aside), l.aside[0].ID)
	}
	l.keepAside(&reader{tag: 1, record: make([]byte, maxAsideBytes), written: 2000})
	if len(l.aside) != 1 {
		t.Errorf("besides a large one there are %d", len(l.aside))
	}
	l.keepAside(&reader{tag: 1, record: make([]byte, maxAsideBytes+1), written: 2000})
	if len(l.aside) != 0 {
		t.Errorf("one that is too large is kept, and %d in all", len(l.aside))
	}
	l.keepAside(&reader{tag: 1, record: []byte("x"), written: 2000})
	for now, want := range map[uint32]int{2000: 1, 2000 + uint32(asideTTL/time.Second) - 1: 1, 2000 + uint32(asideTTL/time.Second): 0} {
		again := &replica{groups: 1}
		if err := again.follow(&Tail{From: l.end, Snapshot: appendChecksum(l.state(now, 0), 0, l.end.ID)}); err != nil || len(again.aside) != want {
			t.Errorf("at %d there are %d, error %v, want %d", now, len(again.aside), err, want)
		}
	}
}
