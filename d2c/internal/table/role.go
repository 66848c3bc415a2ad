// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package table

import (
	"math"
	"time"
	"unsafe"

	"github.com/deltaring/deltaring/d2c/internal/fold"
	"github.com/deltaring/deltaring/streamid"
)

// Role says what a slot is for.
type Role uint8

// The roles. A total and its writers have the first half of their identities in common, and are in one shard: that of the total. So one
// lock is enough for both, and one group of a shared store has them.
const (
	// RoleStream is a stream that is itself.
	RoleStream Role = iota
	// RoleTotal is one that is made of others. What it has besides: the number of its writers that are known here (MaxSlots at
	// most), and the horizon.
	RoleTotal
	// RoleWriter is one of those, of deltas. It has a timeline and no value; besides, the second half of its total's identity.
	RoleWriter
	// RoleCumulative is one of those, whose points are cumulative. Its value is the latest, as it came.
	RoleCumulative
	numRoles
)

// Writes reports whether the role is that of a writer.
func (r Role) Writes() bool { return r >= RoleWriter }

// Aggregate has the table keep totals and their writers.
func (t *Table) Aggregate() {
	for i := range t.Shards {
		if sh := &t.Shards[i]; !sh.aggregates {
			sh.aggregate()
		}
	}
}

// aggregate makes room for what slots have besides.
func (sh *Shard) aggregate() {
	sh.aggregates = true
	for _, chunk := range sh.chunks[len(sh.owners):] {
		sh.owners = append(sh.owners, make([]uint64, len(chunk)))
	}
}

// ownerBytes is what that takes. It grows as slots do, and not as a slice would, by a quarter.
func (sh *Shard) ownerBytes() int64 {
	if len(sh.owners) == 0 {
		return 0
	}
	return int64(unsafe.Sizeof([]uint64{}))*int64(cap(sh.owners)) + 8*int64(sh.room)
}

// Owner returns what a total or a writer has besides, by its number.
func (sh *Shard) Owner(number int) uint64 {
	if !sh.aggregates {
		return 0
	}
	chunk, at, _ := chunkOf(number)
	return sh.owners[chunk][at]
}

// SetOwner sets what a total or a writer has besides, by its number.
func (sh *Shard) SetOwner(number int, owner uint64) {
	if sh.aggregates {
		chunk, at, _ := chunkOf(number)
		sh.owners[chunk][at] = owner
	}
}

// A total has its number of writers in the low half, and the horizon in the high half, in Unix seconds.
const writersMask = 1<<32 - 1

// Writers returns the number of a total's writers that are known here.
func Writers(owner uint64) int { return int(owner & writersMask) }

// Horizon returns the time up to which writers of a total may have counted that are forgotten, in nanoseconds, zero if there are none.
// A writer that is not known takes nothing from before: it may have been counted.
func Horizon(owner uint64) int64 { return int64(owner>>32) * int64(time.Second) }

// WithWriters returns what a total has besides, with n more writers.
func WithWriters(owner uint64, n int) uint64 {
	return owner&^writersMask | uint64(max(Writers(owner)+n, 0))
}

// WithHorizon returns what a total has besides, with a horizon that is not before a time.
func WithHorizon(owner uint64, at int64) uint64 {
	seconds := uint64(min((max(at, 0)+int64(time.Second)-1)/int64(time.Second), math.MaxUint32))
	return owner&writersMask | max(owner>>32, seconds)<<32
}

// Aligned reports whether p begins where the writer has ended, and nothing else is to be asked of it: nearly all points do.
func (s *Slot) Aligned(p fold.Interval) bool {
	return p.Start == s.last && p.Time > p.Start && s.Meta>>asideShift == 0 && s.Meta&FlagFresh == 0
}

// Align moves a writer on to the end of a point that is aligned.
func (s *Slot) Align(p fold.Interval, print uint64) { s.last, s.print = p.Time, fold.ShortPrint(print) }

// Closed reports whether the slot takes nothing of a time, as that is from before a restart.
func (s *Slot) Closed(at int64) bool {
	return s.Meta&(FlagFresh|FlagRestarted) == FlagRestarted && at <= s.start
}

// Start returns the start of an open stream.
func (s *Slot) Start() int64 { return s.start }

// Last returns the end of the latest interval of an open stream.
func (s *Slot) Last() int64 { return s.last }

// Total returns the identity of a writer's total.
func (s *Slot) Total(owner uint64) streamid.ID { return streamid.ID{Hi: s.ID.Hi, Lo: owner} }

// Home returns the identity by which the record's stream has its shard: its own, or that of its total.
func (r *Record) Home() streamid.ID {
	if r.Role.Writes() {
		return streamid.ID{Hi: r.ID.Hi, Lo: r.Owner}
	}
	return r.ID
}

// forgotten is what is to be told of writers that are forgotten.
type forgotten struct {
	shared bool // the store knows them, and nothing is forgotten
	of     map[streamid.ID]loss
}

type loss struct {
	writers int
	last    int64
}

func (sh *Shard) forgotten() forgotten { return forgotten{shared: sh.Tagged} }

func (f *forgotten) add(sh *Shard, number int, s *Slot) {
	if f.of == nil {
		f.of = map[streamid.ID]loss{}
	}
	id := s.Total(sh.Owner(number))
	l := f.of[id]
	f.of[id] = loss{l.writers + 1, max(l.last, s.last)}
}

// tell tells the totals that are left. Nothing that was counted so long ago is later than now, but of a clock that is wrong: such a
// writer must not keep all others out that are new.
func (f *forgotten) tell(sh *Shard, now int64) {
	for id, l := range f.of {
		s, number := sh.Seek(id)
		if s == nil || s.Role != RoleTotal { // who forges records may say so
			continue
		}
		owner := WithWriters(sh.Owner(int(number)), -l.writers)
		if !f.shared {
			owner = WithHorizon(owner, min(l.last, now))
		}
		sh.SetOwner(int(number), owner)
	}
}

// CountWriters counts the writers of all totals anew.
func (t *Table) CountWriters() (writers int) {
	for i := range t.Shards {
		sh := &t.Shards[i]
		for n := range sh.N {
			if sh.Slot(n).Role == RoleTotal {
				sh.SetOwner(n, sh.Owner(n)&^writersMask)
			}
		}
		for n := range sh.N {
			s := sh.Slot(n)
			if !s.Role.Writes() {
				continue
			}
			writers++
			if total, at := sh.Seek(s.Total(sh.Owner(n))); total != nil && total.Role == RoleTotal {
				sh.SetOwner(int(at), WithWriters(sh.Owner(int(at)), 1))
			}
		}
	}
	return writers
}
