// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package log

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/streamid"
)

// replica is what a Store knows of a log: all records up to a position, or only its life.
type replica struct {
	number int
	groups int // of the Store

	// mu is held by calls of the Store that use the log, from beginning to end, and while a snapshot is encoded.
	mu sync.Mutex

	end  Position
	life store.Life // ID is zero if the log was empty
	// records is nil unless everything up to end is in memory.
	records *table
	aside   []Aside
	// uncertain: an append had no answer, so the log may have moved.
	uncertain bool
	sent      uint64 // the ID of the entry that was sent last,
	landed    bool   // and whether reading on has found it

	// The bytes of the entries since the last snapshot, and of that snapshot.
	tail, snapshot int
	made           int64     // number of snapshots put or read
	due            bool      // a snapshot is due or being made
	failed         int       // failed attempts in a row,
	notBefore      time.Time // and the time of the next
	looked         time.Time // when expired records were last looked for
	touched        time.Time
	// vacant is when all records will have expired unless somebody else appends; zero if nobody has to look then.
	vacant time.Time

	// Figures for readers that do not wait for mu.
	streams, memory atomic.Int64
}

// Aside is a record that was set aside.
type Aside struct {
	ID     streamid.ID
	Tag    uint64
	Record []byte
	At     time.Time
}

const (
	// maxAside and maxAsideBytes bound the records set aside that a log keeps: the latest.
	maxAside      = 16
	maxAsideBytes = 64 << 10
	asideTTL      = 30 * 24 * time.Hour

	// minTail is the size of entries below which a snapshot is not worth its price.
	minTail = 1 << 20
)

// clear makes it the replica of an empty log.
func (l *replica) clear() {
	l.end, l.life, l.aside, l.tail, l.snapshot = Position{}, store.Life{}, nil, 0, 0
	l.records = &table{key: [2]uint64{rand.Uint64(), rand.Uint64()}}
	l.made++
	l.count()
}

// drop removes the records from memory.
func (l *replica) drop() {
	l.records, l.aside = nil, nil
	l.count()
}

func (l *replica) count() {
	streams, memory := 0, 0
	if l.records != nil {
		streams, memory = l.records.n, l.records.memory()
	}
	l.streams.Store(int64(streams))
	l.memory.Store(int64(memory))
}

// follow applies what was read. After an error nothing is known about the log.
func (l *replica) follow(t *Tail) (err error) {
	defer func() {
		if err != nil {
			l.drop()
			l.end, l.life = Position{}, store.Life{}
		}
	}()
	if l.records == nil || t.From != l.end {
		l.clear()
		if err := l.load(t); err != nil {
			return err
		}
	}
	l.landed = false
	for i := range t.Entries {
		e := &t.Entries[i]
		at := Position{l.end.Number + 1, e.ID}
		if err := l.apply(e.Data, at); err != nil {
			return fmt.Errorf("log %d, entry %d: %w", l.number, at.Number, err)
		}
		l.end = at
		l.tail += len(e.Data)
		l.landed = l.landed || e.ID == l.sent
	}
	l.uncertain = false
	l.count()
	return nil
}

// load replaces the records by a snapshot.
func (l *replica) load(t *Tail) error {
	if t.Snapshot == nil {
		if t.From != (Position{}) {
			return fmt.Errorf("log %d, entries up to %d: %w", l.number, t.From.Number, errNoSnapshot)
		}
		return nil
	}
	r, err := read(t.Snapshot, flavourState, t.From)
	if err != nil {
		return fmt.Errorf("log %d, snapshot at %d: %w", l.number, t.From.Number, err)
	}
	// Records are of about the same length, so the first one tells how many there are.
	first := r
	first.next() // the life
	if first.next() {
		l.records.grow(min(len(first.rest)/(len(first.record)+16)+1, maxRecords))
	}
	for r.next() {
		switch r.what {
		case itemLife:
			err = l.begin(&r)
		case itemKept:
			if l.records.n == maxRecords {
				return errFull
			}
			l.records.put(r.id, r.tag, r.written, r.record)
		case itemAside:
			l.keepAside(&r)
		default:
			err = fmt.Errorf("%w: an item %d", ErrDamaged, r.what)
		}
		if err != nil {
			break
		}
	}
	if err == nil && r.err == nil && l.life.ID == 0 {
		err = fmt.Errorf("%w: it has no life", ErrDamaged)
	}
	if err == nil {
		err = r.err
	}
	if err != nil {
		return fmt.Errorf("log %d, snapshot at %d: %w", l.number, t.From.Number, err)
	}
	l.end, l.snapshot = t.From, len(t.Snapshot)
	return nil
}

// apply applies an entry.
func (l *replica) apply(data []byte, at Position) error {
	r, err := read(data, flavourEntry, at)
	if err != nil {
		return err
	}
	for r.next() {
		switch r.what {
		case itemLife:
			if err := l.begin(&r); err != nil {
				return err
			}
		case itemPut:
			if l.records.n == maxRecords {
				return errFull
			}
			l.records.put(r.id, r.tag, r.time, r.record)
		case itemAside:
			l.records.remove(r.id)
			l.keepAside(&r)
		default:
			return fmt.Errorf("%w: an item %d", ErrDamaged, r.what)
		}
	}
	if r.err == nil && l.life.ID == 0 {
		return fmt.Errorf("%w: there is no life", ErrDamaged)
	}
	return r.err
}

// begin sets the life.
func (l *replica) begin(r *reader) error {
	if l.life.ID != 0 {
		return fmt.Errorf("%w: a second life", ErrDamaged)
	}
	if r.groups != l.groups {
		return fmt.Errorf("%w: set groups to %d, got %d, or take another prefix or name", errGroups, r.groups, l.groups)
	}
	l.life = r.life
	return nil
}

func (l *replica) keepAside(r *reader) {
	l.aside = append(l.aside, Aside{ID: r.id, Tag: r.tag, Record: slices.Clone(r.record), At: time.Unix(int64(r.written), 0)})
	size := 0
	for i := len(l.aside) - 1; i >= 0; i-- {
		if size += len(l.aside[i].Record); size > maxAsideBytes || len(l.aside)-i > maxAside {
			l.aside = slices.Delete(l.aside, 0, i+1)
			break
		}
	}
}

// grown reports whether a snapshot is worth its price now.
func (l *replica) grown() bool { return l.tail > max(minTail, l.snapshot) }

// state returns a snapshot without its checksum. Records last written before oldest are left out and forgotten.
func (l *replica) state(now, oldest uint32) []byte {
	size := headerSize + 1 + lifeSize + checksumSize + l.records.bytes + l.records.n*(4+4+16+8)
	for i := range l.aside {
		size += len(l.aside[i].Record) + 5 + 4 + 16 + 8
	}
	b := appendHeader(make([]byte, 0, size), flavourState, now, l.end.Number)
	b = appendLife(b, l.life, l.groups)
	var expired []streamid.ID
	for _, it := range l.records.all() {
		if it.written() < oldest {
			expired = append(expired, it.id())
			continue
		}
		b = appendKept(b, itemKept, it.written(), it.id(), it.tag(), it.record())
	}
	for _, id := range expired {
		l.records.remove(id)
	}
	for i := range l.aside {
		if a := &l.aside[i]; a.At.Add(asideTTL).Unix() > int64(now) {
			b = appendKept(b, itemAside, uint32(a.At.Unix()), a.ID, a.Tag, a.Record)
		}
	}
	l.count()
	return b
}

// expired returns how many records were last written before oldest.
func (l *replica) expired(oldest uint32) (n int) {
	for _, it := range l.records.all() {
		if it.written() < oldest {
			n++
		}
	}
	return n
}
