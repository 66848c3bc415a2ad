// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/zeebo/xxh3"

	"github.com/deltaring/deltaring/streamid"
)

// SharedStore keeps one record per stream for any number of Converters, on any number of machines. What it offers is one
// primitive: to put a record where the stored one is still the one it is based on. Any store with a conditional write can
// do that. It is called by one goroutine at a time.
type SharedStore interface {
	// Swap does each of ops on its own, in any order; no two are of the same stream. When it returns an error any of them may
	// have been done. It keeps no reference to a record after it has returned.
	Swap(ctx context.Context, ops []SwapOp) error
	// SetAside takes what is stored for a stream away, and keeps it elsewhere, if it still is value.
	SetAside(ctx context.Context, id streamid.ID, value []byte) error
}

// SwapOp puts a record in the place of another. A store that tries again by itself has to set Swapped and Current anew.
type SwapOp struct {
	ID streamid.ID
	// Base is the tag of the record that must be there, zero if there must be none. See RecordTag.
	Base uint64
	// Record is to take its place; nil leaves what is there and only compares. It is never empty otherwise.
	Record []byte

	// Swapped is set by Swap: what was there was as it must be, and Record is there now.
	Swapped bool
	// Current is set by Swap if that was not so: what is there, or nil if there is nothing.
	Current []byte
}

// Shared says how a Converter shares its state with others.
type Shared struct {
	Store SharedStore
	// Owner is the name under which the state is kept; the Converters that share it have the same. Its identity, with
	// Config.Seed and the encoding of identities, is part of every record: a record of another owner is set aside.
	Owner string
	// MaxOutstanding says what to do while Store fails. Zero is to refuse batches: nothing is lost, and nothing given out.
	// Otherwise batches are folded onto what this Converter knows and given out, and this many points at most are kept to be
	// committed when Store is back: totals end exact, but what is outstanding is lost if the process ends. It is for streams of
	// which one Converter sees all. Where several see a stream, values under one start may fall while it lasts, and they lose
	// deltas that came by turns: to whoever commits first each turn of another is a gap, of which a stream keeps eight. Missed
	// counts these.
	MaxOutstanding int
	// Trouble, if not nil, is told of a record that could not be read and was set aside.
	Trouble func(id streamid.ID, err error)
}

// A record as it is stored for others, version 1: the version, a random tag of 8 bytes, 8 that say who it belongs to, a
// section with one record, and the XXH3 checksum of all that, 8. Later versions have version, tag and checksum in the same
// places, so that they can be told from damage.
const (
	sharedVersion  = 1
	sharedHeader   = 1 + 8 + 8
	sharedChecksum = 8
)

// RecordTag returns the tag of a record: bytes 1 to 8, little-endian, never zero. It is random, and every change of the
// stream has another; so a store need look no further to tell whether a record is the one that another is based on. ok is
// false if data is too short to be a record.
func RecordTag(data []byte) (tag uint64, ok bool) {
	if len(data) < sharedHeader+sharedChecksum {
		return 0, false
	}
	return binary.LittleEndian.Uint64(data[1:]), true
}

// ErrContended is returned by Convert where others have changed a stream each time the batch was about to. It may be handed
// in again.
var ErrContended = errors.New("d2c: other workers keep changing a stream of the batch")

// maxTries bounds how often a batch is folded onto what others have left.
const maxTries = 16

// sharing makes commits to a SharedStore.
type sharing struct {
	Shared
	identity uint64
	ops      []SwapOp
	targets  []int32 // slots of the group's scratch, by op
	buffer   []byte
	writer   recordWriter
	record   record // what was read
	mine     record // what this worker has
}

// Share returns a Converter that shares its state with all others that share store. What it keeps in memory is a cache:
// Config.MaxStale says when to drop from it, and how long the store keeps a record is the store's own business. Convert
// returns when the store has whatever the result counts as added. Any Converter can take any delta of any stream; totals
// and starts continue wherever the next delta comes in, and a retry that comes in elsewhere is recognised.
//
// Where the store has lost a stream, or has gone back to an older record of it, the Converter puts its own record there if
// nobody else can have changed the stream: the delta at hand begins where its record ends, that has no gaps and has been
// alive for longer than LateWindow. If not, the stream begins anew (RestartedLost), under a start that is not before the
// latest time this Converter knows to have been given out.
func Share(cfg Config, shared Shared) (*Converter, error) {
	if shared.Store == nil {
		return nil, errors.New("d2c: Shared.Store: must not be nil")
	}
	if shared.MaxOutstanding < 0 {
		return nil, fmt.Errorf("d2c: Shared.MaxOutstanding: must not be negative, got %d", shared.MaxOutstanding)
	}
	c, err := New(cfg)
	if err != nil {
		return nil, err
	}
	for i := range c.shards {
		c.shards[i].tagged = true
	}
	c.commits = &committer{sharing: &sharing{Shared: shared, identity: identityOf(c.seed, shared.Owner)}}
	c.commits.group.shared = true
	if shared.MaxOutstanding > 0 {
		c.outage = new(outage)
	}
	return c, nil
}

// commit brings the group's copies and the store together: a copy that is based on what is not there any more is made anew
// from what is.
func (s *sharing) commit(ctx context.Context, g *group, c *Converter, now uint32) error {
	for i := range g.swapped {
		g.swapped[i].pending = true
	}
	for range maxTries {
		s.prepare(g, c)
		if len(s.ops) == 0 {
			return nil
		}
		if err := s.Store.Swap(ctx, s.ops); err != nil {
			return storeError{fmt.Errorf("d2c: shared state: %w", err)}
		}
		again := false
		for n := range s.ops {
			if s.ops[n].Swapped {
				g.swapped[s.targets[n]].pending = false
				continue
			}
			again = true
			if err := s.rebase(ctx, g, c, int(s.targets[n]), &s.ops[n]); err != nil {
				return err
			}
		}
		clear(s.ops)
		if !again {
			return nil
		}
		g.refold(c, now)
	}
	return ErrContended
}

// prepare makes an op for each copy that the store has not confirmed yet.
func (s *sharing) prepare(g *group, c *Converter) {
	s.ops, s.targets, s.buffer = s.ops[:0], s.targets[:0], s.buffer[:0]
	for i := range g.swapped {
		sw, slot := &g.swapped[i], g.scratch.slot(i)
		if !sw.pending {
			continue
		}
		op := SwapOp{ID: slot.id, Base: sw.base}
		if slot.meta&flagChanged != 0 {
			sw.tag = rand.Uint64() | 1 // not zero
			from := len(s.buffer)
			s.buffer = s.append(s.buffer, &g.scratch, slot, sw.tag, c.epoch.Unix())
			op.Record = s.buffer[from:len(s.buffer):len(s.buffer)]
		} else {
			// A repeat is given out again, and a point too late dropped, because of what we believe of the stream: ask
			// whether it still is so.
			sw.tag = sw.base
		}
		s.ops = append(s.ops, op)
		s.targets = append(s.targets, int32(i))
	}
}

// append writes a record for the store.
func (s *sharing) append(b []byte, sh *shard, slot *slot, tag uint64, epoch int64) []byte {
	from := len(b)
	b = append(b, sharedVersion)
	b = binary.LittleEndian.AppendUint64(b, tag)
	b = binary.LittleEndian.AppendUint64(b, s.identity)
	s.writer.reset()
	s.writer.add(sh, slot, epoch)
	b = s.writer.append(b)
	return binary.LittleEndian.AppendUint64(b, xxh3.Hash(b[from:]))
}

// read reads a record from the store.
func (s *sharing) read(b []byte, id streamid.ID) (tag uint64, err error) {
	tag, ok := RecordTag(b)
	if !ok {
		return 0, errDamaged
	}
	body := b[:len(b)-sharedChecksum]
	if binary.LittleEndian.Uint64(b[len(body):]) != xxh3.Hash(body) {
		return 0, errDamaged
	}
	switch {
	case b[0] > sharedVersion:
		return 0, fmt.Errorf("%w: format version %d, known is %d", ErrVersion, b[0], sharedVersion)
	case b[0] != sharedVersion || tag == 0:
		return 0, errDamaged
	}
	if binary.LittleEndian.Uint64(b[9:]) != s.identity {
		return 0, ErrOwner
	}
	r := readSection(body[sharedHeader:])
	if !r.next(&s.record) || len(r.rest) > 0 || s.record.id != id {
		return 0, errDamaged
	}
	return tag, nil
}

// rebase makes a copy of the group what the store has, or says how the stream is to go on if the store has lost it.
func (s *sharing) rebase(ctx context.Context, g *group, c *Converter, n int, op *SwapOp) error {
	sw, slot, original := &g.swapped[n], g.scratch.slot(n), g.copies[n].original
	there := op.Current != nil
	var tag uint64
	if there {
		var err error
		if tag, err = s.read(op.Current, op.ID); err == nil && s.record.kind != slot.kind() {
			err = errDamaged
		}
		if errors.Is(err, ErrVersion) {
			return fmt.Errorf("d2c: stream %v in shared state: %w", op.ID, err)
		}
		if err != nil {
			if err := s.Store.SetAside(ctx, op.ID, op.Current); err != nil {
				return storeError{fmt.Errorf("d2c: stream %v in shared state, setting aside: %w", op.ID, err)}
			}
			if s.Trouble != nil {
				s.Trouble(op.ID, err)
			}
			there, tag = false, 0
		}
	}
	if there && op.Record != nil && tag == sw.tag {
		sw.pending = false // ours: the answer to an earlier try was lost
		return nil
	}
	sw.base = tag
	if original != nil && !sw.rebased && sw.known.emitted == 0 {
		c.shards[op.ID.Hi>>shardShift].read(original, &s.mine)
		sw.known = s.mine.known()
		sw.after = interval{sw.known.start, sw.known.emitted}
	}
	var r known
	if there {
		r = s.record.known()
	}
	lost := sw.known.emitted != 0 && (!there || r.cannotFollow(&sw.known, s.record.kind != KindSum || sw.monotonic))
	if lost && !sw.rebased && (!there || r.start == sw.known.start && r.emitted < sw.known.emitted) && g.provesFresh(c, n) {
		return nil // the copy stands, on another base
	}
	if there {
		sw.after = interval{max(sw.after.start, r.start), max(sw.after.time, r.emitted)}
		if !lost {
			sw.known = r
		}
	}
	if lost {
		given := c.outage.lose(op.ID)
		sw.after = interval{max(sw.after.start, given.start), max(sw.after.time, given.time)}
	}
	sw.again, sw.rebased, sw.lost = true, true, lost
	g.lost = g.lost || lost
	g.scratch.empty(slot)
	if there && !lost {
		g.scratch.set(slot, &s.record)
		slot.seen = c.clock()
	}
	return nil
}

// known is what this worker knows of a stream, from its cache or from what it has read for the batch at hand.
type known struct {
	start, emitted int64 // emitted is 0 if it knows nothing
	restarted      bool
	total          uint64 // of a sum by its bits, or the count
	double         bool
	sample         uint64 // fingerprint of start and value
}

func (r *record) known() known {
	k := known{start: r.timeline.start, emitted: r.timeline.emitted, restarted: r.timeline.restarted, sample: r.sample()}
	switch r.kind {
	case KindSum:
		k.total, k.double = r.number.bits, r.number.double
	case KindHistogram:
		k.total = r.histogram.count
	default:
		k.total = r.exponential.count
	}
	return k
}

// below reports whether the total is lower, where totals do not fall.
func (k *known) below(o *known) bool {
	if k.double || o.double {
		return number{k.total, k.double}.float() < number{o.total, o.double}.float()
	}
	return k.total < o.total // no monotonic sum is negative
}

// cannotFollow reports whether a record is not what may come after what is known.
func (k *known) cannotFollow(o *known, monotonic bool) bool {
	falls := monotonic && k.below(o)
	switch {
	case k.emitted < o.emitted:
		return true // each change gives out a later time
	case k.emitted == o.emitted:
		return k.sample != o.sample
	case k.start > o.start:
		return k.start < o.emitted // begun by somebody who did not know what was given out
	case k.start < o.start: // a life before, or start has moved back for a point before the first
		return k.restarted || o.restarted || falls
	}
	return falls
}

// sample returns a fingerprint of the record's start and value.
func (r *record) sample() uint64 {
	b := append(make([]byte, 0, 512), byte(r.kind))
	b = binary.LittleEndian.AppendUint64(b, uint64(r.timeline.start))
	switch r.kind {
	case KindSum:
		b = binary.LittleEndian.AppendUint64(b, r.number.bits)
		if r.number.double {
			b = append(b, 1)
		}
	case KindHistogram:
		b = r.histogram.distribution.append(b)
		b = appendWords(b, r.histogram.counts...)
		for _, bound := range r.histogram.bounds {
			b = appendWords(b, math.Float64bits(bound))
		}
	case KindExponentialHistogram:
		e := &r.exponential
		b = e.distribution.append(b)
		b = appendWords(b, uint64(e.scale), e.zeroCount, math.Float64bits(e.zeroThreshold))
		for i := range e.ranges {
			b = appendWords(b, uint64(e.ranges[i].offset), uint64(len(e.ranges[i].counts)))
			b = appendWords(b, e.ranges[i].counts...)
		}
	}
	return xxh3.Hash(b)
}

func appendWords(b []byte, words ...uint64) []byte {
	for _, v := range words {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

// read makes of what the shard has of a stream what it would be read as.
func (sh *shard) read(s *slot, r *record) {
	r.id, r.kind = s.id, s.kind()
	sh.timeline(s, &r.timeline)
	switch r.kind {
	case KindSum:
		r.number = s.number()
	case KindHistogram:
		h := histogramTotal{histogram: r.histogram}
		sh.histogram(s, &h)
		h.complete()
		r.histogram = h.histogram
	case KindExponentialHistogram:
		e := exponentialTotal{exponential: r.exponential}
		sh.exponential(s, &e)
		e.complete()
		r.exponential = e.exponential
	}
}

// provesFresh reports whether nobody but this worker can have changed the stream since it last did: a point of the group
// begins where the stream ends here, and there is nothing that could have been added before that.
func (g *group) provesFresh(c *Converter, n int) bool {
	known := g.copies[n].original
	shard := int(known.id.Hi >> shardShift)
	var t timeline
	c.shards[shard].timeline(known, &t)
	if t.gaps.n > 0 || t.gaps.horizon > 0 || !t.restarted && t.last-t.start <= int64(c.cfg.LateWindow) {
		return false
	}
	for _, b := range g.batches {
		for _, i := range b.shardItems(shard) {
			if it := &b.items[i]; it.id == known.id && !it.marker && it.interval.start == t.last && it.interval.time > t.last {
				return true
			}
		}
	}
	return false
}
