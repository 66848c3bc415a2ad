// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/zeebo/xxh3"

	"github.com/deltaring/deltaring/d2c/store/log"
)

func testName(b byte) (n objectName) {
	for i := range n {
		n[i] = b + byte(i)
	}
	return n
}

// goldenHead is a head with all that one can have.
func goldenHead() *head {
	tail := appendEntry(nil, 0x1122334455667788, []byte("entry 6"))
	return &head{
		nonce:    0x0102030405060708,
		snapshot: snapshot{object{testName(0x10), 1000, 0xaabbccdd}, log.Position{Number: 3, ID: 0x33}},
		segments: []segment{
			{object: object{testName(0x30), 300, 0x1234}, n: 3, end: log.Position{Number: 4, ID: 0x44}}, // two of them are in the snapshot
			{object: object{testName(0x50), 301, 0x5678}, n: 1, end: log.Position{Number: 5, ID: 0x55}},
		},
		ids:  []uint64{0x1122334455667788},
		tail: tail,
	}
}

// Heads that were written yesterday are read today.
const golden = "6432632e68656401" + "059e3e020ec1bdc7" + "0807060504030201" +
	"0300000000000000" + "3300000000000000" + "101112131415161718191a1b1c1d1e1f" + "e803000000000000" + "ddccbbaa00000000" +
	"02000000" +
	"03000000" + "0400000000000000" + "4400000000000000" + "303132333435363738393a3b3c3d3e3f" + "2c01000000000000" + "3412000000000000" +
	"01000000" + "0500000000000000" + "5500000000000000" + "505152535455565758595a5b5c5d5e5f" + "2d01000000000000" + "7856000000000000" +
	"01000000" + "8877665544332211" + "07000000" + "656e7472792036"

func TestGoldenHead(t *testing.T) {
	want := goldenHead()
	body, tail := want.encode(0, nil)
	if got := hex.EncodeToString(body); got != golden {
		t.Fatalf("a head is written as\n%s, want\n%s", got, golden)
	}
	if !bytes.Equal(tail, want.tail) {
		t.Errorf("its tail is %x", tail)
	}
	old, err := hex.DecodeString(golden)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeHead(old)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("a head is read as\n%+v, want\n%+v", got, want)
	}
	if end := got.end(); end != (log.Position{Number: 6, ID: 0x1122334455667788}) {
		t.Errorf("it ends at %v", end)
	}
	// An entry is appended by writing it behind the others.
	longer, _ := want.encode(0x99, []byte("entry 7"))
	if got, err = decodeHead(longer); err != nil {
		t.Fatal(err)
	}
	if end := got.end(); end != (log.Position{Number: 7, ID: 0x99}) {
		t.Errorf("with another entry it ends at %v", end)
	}
}

func TestGoldenObjects(t *testing.T) {
	if got := hex.EncodeToString(encodeSegment(appendEntry(nil, 7, []byte("x")))); got != "6432632e73656701"+"0700000000000000"+"01000000"+"78" {
		t.Errorf("a segment is written as %s", got)
	}
	if got := hex.EncodeToString(encodeSnapshot([]byte("y"))); got != "6432632e736e7001"+"79" {
		t.Errorf("a snapshot is written as %s", got)
	}
}

// sealed returns a head with a right checksum after a change.
func sealed(change func(b []byte) []byte) []byte {
	body, _ := goldenHead().encode(0, nil)
	body = change(body)
	sum := xxh3.Hash(body[magicSize+8:])
	for i := range 8 {
		body[magicSize+i] = byte(sum >> (8 * i))
	}
	return body
}

func TestDamagedHeads(t *testing.T) {
	body, _ := goldenHead().encode(0, nil)
	for i := range body {
		for _, bit := range []byte{1, 0x80} {
			b := bytes.Clone(body)
			b[i] ^= bit
			if _, err := decodeHead(b); err == nil {
				t.Fatalf("byte %d is another, and nobody notices", i)
			}
		}
		if _, err := decodeHead(body[:i:i]); !errors.Is(err, errDamaged) {
			t.Fatalf("only %d bytes are there, error %v", i, err)
		}
	}
	newer := bytes.Clone(body)
	newer[len(headMagic)]++
	if _, err := decodeHead(newer); !errors.Is(err, errNewer) || !strings.Contains(err.Error(), "newer version") {
		t.Errorf("a newer format, error %v", err)
	}
	const segments = headerSize + snapshotSize + 4
	for what, change := range map[string]func([]byte) []byte{
		"bytes at the end":                  func(b []byte) []byte { return append(b, 0) },
		"a segment less":                    func(b []byte) []byte { b[segments-4]--; return b },
		"very many segments":                func(b []byte) []byte { b[segments-1] = 0xff; return b },
		"very many entries":                 func(b []byte) []byte { b[segments+2*segmentSize+3] = 0xff; return b },
		"no entries in a segment":           func(b []byte) []byte { b[segments] = 0; return b },
		"a hole before a segment":           func(b []byte) []byte { b[segments+segmentSize+4]++; return b },
		"a segment again":                   func(b []byte) []byte { b[segments+segmentSize+4]--; return b },
		"a hole after the snapshot":         func(b []byte) []byte { b[headerSize]--; b[segments] = 1; return b },
		"a snapshot at zero":                func(b []byte) []byte { b[headerSize] = 0; return b },
		"an entry longer than what is left": func(b []byte) []byte { b[segments+2*segmentSize+4+8]++; return b },
		"an entry without an ID": func(b []byte) []byte {
			clear(b[segments+2*segmentSize+4 : segments+2*segmentSize+12])
			return b
		},
	} {
		if _, err := decodeHead(sealed(change)); !errors.Is(err, errDamaged) {
			t.Errorf("%s: error %v", what, err)
		}
	}
	if _, err := decodeHead(sealed(func(b []byte) []byte { return b })); err != nil {
		t.Errorf("nothing is changed: %v", err)
	}
}

// Heads after any appends, moves and snapshots are read as they were written.
func TestHeadsComeBack(t *testing.T) {
	for range 200 {
		h := new(head)
		for range rand.IntN(40) {
			switch rand.IntN(6) {
			case 0:
				if len(h.ids) > 0 {
					h = h.moved(describe(newObjectName(), encodeSegment(h.tail)))
				}
			case 1:
				if end := h.end(); end != (log.Position{}) && end != h.snapshot.at {
					h, _ = h.compacted(snapshot{describe(newObjectName(), encodeSnapshot(nil)), end})
				}
			case 2:
				// A snapshot of all but the last entries.
				if n := len(h.ids); n > 1 {
					at := log.Position{Number: h.end().Number - 1, ID: h.ids[n-2]}
					h, _ = h.compacted(snapshot{describe(newObjectName(), encodeSnapshot([]byte("x"))), at})
				}
			default:
				id := rand.Uint64() | 1
				body, tail := h.encode(id, []byte{1})
				next := *h
				next.tail, next.ids = tail, append(append([]uint64(nil), h.ids...), id)
				h = &next
				if got, err := decodeHead(body); err != nil || got.end() != h.end() {
					t.Fatalf("it ends at %v, want %v, error %v", got.end(), h.end(), err)
				}
			}
			body, _ := h.encode(0, nil)
			got, err := decodeHead(body)
			if err != nil {
				t.Fatal(err)
			}
			if again, _ := got.encode(0, nil); !bytes.Equal(again, body) || got.end() != h.end() {
				t.Fatalf("a head comes back as another")
			}
		}
	}
}

func TestEscape(t *testing.T) {
	for name, want := range map[string]string{
		"d2c": "d2c", "d2c/a": "d2c!2Fa", "d2c/A_b-c.d": "d2c!2FA_b-c.d", "_probe": "!5Fprobe", "..": "!2E.", ".": "!2E", "a!2F": "a!212F", "ä": "!C3!A4",
	} {
		if got := escape(name); got != want {
			t.Errorf("%q is %q in a key, want %q", name, got, want)
		}
	}
}

func FuzzHead(f *testing.F) {
	body, _ := goldenHead().encode(0, nil)
	f.Add(body)
	empty, _ := new(head).encode(0, nil)
	f.Add(empty)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > headerSize {
			// With a right checksum, or nothing beyond it is tried.
			b = bytes.Clone(b)
			sum := xxh3.Hash(b[magicSize+8:])
			for i := range 8 {
				b[magicSize+i] = byte(sum >> (8 * i))
			}
		}
		h, err := decodeHead(b)
		if err != nil {
			return
		}
		h.end()
		h.own(h.tailStart().Number)
		if again, _ := h.encode(0, nil); !bytes.Equal(again, b) {
			t.Errorf("a head comes back as another: %x, want %x", again, b)
		}
	})
}

func FuzzSegment(f *testing.F) {
	f.Add(encodeSegment(appendEntry(appendEntry(nil, 7, []byte("x")), 8, []byte("yy"))), uint32(2), uint64(8))
	f.Fuzz(func(t *testing.T, b []byte, n uint32, end uint64) {
		s := segment{object: describe(testName(1), b), n: n, end: log.Position{Number: uint64(n), ID: end}}
		ids, entries, err := s.decode(b)
		if err == nil && (len(ids) != int(n) || len(entries) != int(n) || n == 0) {
			t.Errorf("%d entries of %d", len(entries), n)
		}
	})
}
