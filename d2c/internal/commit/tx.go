// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package commit

import (
	"time"

	"github.com/deltaring/deltaring/d2c/internal/fold"
	"github.com/deltaring/deltaring/d2c/internal/points"
	"github.com/deltaring/deltaring/d2c/internal/table"
	"github.com/deltaring/deltaring/d2c/store"
)

// Tx is one transaction: some batches, and copies of the streams that they touch. A copy is known by its number.
type Tx struct {
	// Stored is set by the Keeper once the store has confirmed anything of what the batches were folded to.
	Stored bool
	// Outstanding is set by the Keeper if batches are given out before the store has them.
	Outstanding bool

	p       *Pipeline
	now     uint32
	batches []*Batch

	// copies holds the copies, in the order in which they were made; of says what each is a copy of.
	copies table.Shard
	of     []origin
	opened int // copies of streams that are not in the table

	// copyAt has the copy of a stream by its number in the shard that is being folded, +1.
	copyAt []int32
	moves  [table.ShardCount]uint64     // of each shard when it was folded
	lives  [table.ShardCount]fold.Lives // and what may have been given out of streams that it did not have

	// What follows is for a Keeper that folds again.
	conditional bool
	floors      []fold.Interval // by group of streams
	fates       []fate          // by copy
	refold      bool            // some copy is to be folded again
	subset      []int32

	names map[int32]table.Name // of copies whose originals have none

	// held transactions outlive their batches: see Hold.
	held  bool
	began int64
}

// origin says what a copy is a copy of.
type origin struct {
	number    int32 // of the stream in its shard, or -1
	shard     uint8
	refused   bool // what the copy says is not to become true
	monotonic bool
	tag       uint64 // of the stream's record in shared state
	seen      uint32 // when the stream was last counted
	left      bool   // to others, who have changed it since this worker last did
	total     int32  // the copy of the total, +1, of a total itself as of its writers; zero of others
}

// fate says how a copy continues.
type fate struct {
	after   fold.Interval // the stream is lost and begins anew after that
	again   bool          // it is to be folded again
	renewed bool          // it is what the store has
}

// begin makes tx a transaction of batches.
func (tx *Tx) begin(p *Pipeline, batches []*Batch) {
	tx.p, tx.now, tx.batches = p, p.Clock(), append(tx.batches, batches...)
	tx.copies.SetLike(p.Table) // copies of new streams are found by their identities, too
}

// Batches returns the batches of the transaction.
func (tx *Tx) Batches() []*Batch { return tx.batches }

// Table is where the originals are.
func (tx *Tx) Table() *table.Table { return tx.p.Table }

// Now returns the time of the transaction, in seconds of the table's clock.
func (tx *Tx) Now() uint32 { return tx.now }

// Len returns the number of copies.
func (tx *Tx) Len() int { return tx.copies.N }

// Copies is where the copies are, by their numbers.
func (tx *Tx) Copies() *table.Shard { return &tx.copies }

// Copy returns the copy with a number.
func (tx *Tx) Copy(n int) *table.Slot { return tx.copies.Slot(n) }

// Shard returns the shard that the original of a copy is in, or would be.
func (tx *Tx) Shard(n int) int { return int(tx.of[n].shard) }

// Known reports whether the table has the original of a copy.
func (tx *Tx) Known(n int) bool { return tx.of[n].number >= 0 }

// Changed reports whether a copy differs from its original.
func (tx *Tx) Changed(n int) bool { return tx.copies.Slot(n).Meta&table.FlagChanged != 0 }

// Tag returns the tag of the record in shared state that a copy is of, or will be published with.
func (tx *Tx) Tag(n int) uint64 { return tx.of[n].tag }

// SetTag says which record in shared state a copy is of.
func (tx *Tx) SetTag(n int, tag uint64) { tx.of[n].tag = tag }

// Seen returns when the original of a copy was last counted, in seconds of the table's clock.
func (tx *Tx) Seen(n int) uint32 { return tx.of[n].seen }

// Floors makes the transaction one that can be folded again. floors has the time, by group of streams, in which streams may
// have been given out that are lost: none opens in it.
func (tx *Tx) Floors(floors []fold.Interval) { tx.conditional, tx.floors = true, floors }

// Original reads what the table has of the original of a copy, and reports whether there is anything.
func (tx *Tx) Original(n int, rec *table.Record) bool {
	sh := &tx.p.Table.Shards[tx.of[n].shard]
	sh.Lock()
	defer sh.Unlock()
	var s *table.Slot
	id, number := tx.copies.Slot(n).ID, int(tx.of[n].number)
	if number >= 0 && number < sh.N {
		s = sh.Slot(number)
	}
	if s == nil || s.ID != id { // it has moved
		s = sh.Find(id)
	}
	if s != nil {
		sh.Read(s, rec)
	}
	return s != nil
}

// Fold folds all batches onto copies, one after the other.
func (tx *Tx) Fold() {
	for i := range table.ShardCount {
		tx.foldShard(i)
	}
}

func (tx *Tx) foldShard(i int) {
	busy := false
	for _, b := range tx.batches {
		busy = busy || len(b.Shard(i)) > 0
	}
	if !busy {
		return
	}
	sh := &tx.p.Table.Shards[i]
	sh.Lock()
	defer sh.Unlock()
	tx.moves[i] = sh.Moves
	for len(tx.copyAt) < sh.N {
		tx.copyAt = append(tx.copyAt[:cap(tx.copyAt)], 0)
	}
	from := len(tx.of)
	for _, b := range tx.batches {
		if items := b.Shard(i); len(items) > 0 {
			b.ticket.held(func() { tx.foldBatch(b, sh, i, items) })
		}
	}
	for n := from; n < len(tx.of); n++ {
		if number := tx.of[n].number; number >= 0 {
			tx.copyAt[number] = 0
		}
	}
}

// foldBatch folds one shard's items of a batch. The shard is locked.
func (tx *Tx) foldBatch(b *Batch, sh *table.Shard, shard int, items []int32) {
	// Before any copy is made, lest that comes between the cache misses: a fifth of a fold onto copies of 1 M streams.
	for _, i := range items {
		it := &b.Items[i]
		it.Slot, it.Number = sh.Seek(it.ID)
		if w := b.Writer(it); w != nil {
			w.Slot, w.Number = sh.Seek(w.ID)
		}
	}
	repeated, markers := false, false
	for _, i := range items {
		it := &b.Items[i]
		if w := b.Writer(it); w != nil {
			tx.locateWriter(b, it, w, sh, shard)
			repeated = touch(it) || repeated
			continue
		}
		if it.Marker {
			markers = true // may follow the point that opens its stream
			continue
		}
		tx.locate(it, sh, shard)
		repeated = touch(it) || repeated
	}
	if markers {
		for _, i := range items {
			if it := &b.Items[i]; it.Marker && b.Writer(it) == nil {
				tx.locate(it, sh, shard)
				repeated = touch(it) || repeated
			}
		}
	}
	if repeated {
		sort(b, items)
	}
	tx.lives[shard] = tx.p.lives()
	tx.foldItems(b, items, shard, sh.Floor)
	if sh.Names() {
		tx.nameCopies(b, sh, items)
	}
}

// locate finds the copy of the item's stream, or makes one. Until then slot and number are the original's. There is no copy if
// there is no such stream and none may open.
func (tx *Tx) locate(it *points.Item, sh *table.Shard, shard int) {
	original, number := it.Slot, it.Number
	if tx.held || original == nil {
		if it.Slot, it.Number = tx.copies.Seek(it.ID); it.Slot != nil {
			return
		}
	}
	from := origin{number: -1, shard: uint8(shard), monotonic: it.Monotonic()}
	switch {
	case original == nil:
		if sh.N+tx.opened >= table.MaxSlots || !tx.mayOpen(it, sh) || !tx.p.reserve() {
			return
		}
		it.Slot = tx.copies.Add(it.ID, it.Kind)
		tx.opened++
	case !tx.held && tx.copyAt[number] != 0:
		it.Number = tx.copyAt[number] - 1
		it.Slot = tx.copies.Slot(int(it.Number))
		return
	default:
		if tx.held {
			it.Slot = tx.copies.Add(it.ID, original.Kind())
		} else {
			it.Slot = tx.copies.Append(it.ID, original.Kind())
			tx.copyAt[number] = int32(tx.copies.N)
		}
		tx.copies.CopyFrom(it.Slot, sh, original)
		from.number, from.tag, from.seen = number, sh.Tag(int(number)), original.Seen
	}
	it.Number = int32(tx.copies.N - 1)
	tx.of = append(tx.of, from)
	if tx.conditional {
		tx.fates = append(tx.fates, fate{})
	}
}

// mayOpen reports whether the item may open its stream. If state is shared, another worker may have opened it already, and the
// store decides.
func (tx *Tx) mayOpen(it *points.Item, sh *table.Shard) bool {
	return !it.Again() && (tx.conditional || !it.Marker && it.Interval.Time > sh.Floor)
}

// foldItems takes items into their copies.
func (tx *Tx) foldItems(b *Batch, items []int32, shard int, floor int64) {
	to := tx.p.target(tx.now)
	to.streams, to.lives = &tx.copies, tx.lives[shard]
	if !tx.conditional {
		b.foldItems(&to, items, floor)
		return
	}
	if tx.p.MaxStale > 0 {
		to.forgotten = (int64(to.unix) - int64(tx.p.MaxAge())) * int64(time.Second)
	}
	b.begin(&to)
	for _, i := range items {
		it := &b.Items[i]
		opened, filled := b.Gaps.Opened, b.Gaps.Filled
		b.timeline.Floor = 0
		if f := &tx.floors[store.Group(it.ID, len(tx.floors))]; it.Interval.Time > f.Start {
			b.timeline.Floor = f.Time
		}
		if it.Slot != nil {
			b.after = tx.fates[it.Number].after
		}
		if w := b.Writer(it); w != nil && w.Slot != nil {
			b.lost = tx.fates[w.Number].after.Time
		}
		unknown := tx.held && it.Slot != nil && tx.of[it.Number].number < 0 && !tx.fates[it.Number].renewed
		if unknown {
			b.timeline.Floor = max(b.timeline.Floor, tx.began)
		}
		switch {
		case it.Again() && it.Slot != nil && tx.fates[it.Number].renewed && b.EmittedBefore(it) != points.Anyhow:
			tx.leave(b, it)
		case unknown && !it.Marker && it.Interval.Time <= tx.began:
			b.Note(it, fold.Kept)
		default:
			b.foldOne(&to, it)
		}
		b.NoteGaps(it, b.Gaps.Opened-opened, b.Gaps.Filled-filled)
		b.after, b.lost = fold.Interval{}, 0
	}
}

// leave leaves a stream to others: it was to be given out again, but they have given out something of it. So it is learned, and
// not given out again by this worker before it has counted a point of it. That nobody has counted it here makes it no younger.
func (tx *Tx) leave(b *Batch, it *points.Item) {
	of := &tx.of[it.Number]
	if of.left = true; it.Slot.Meta&table.FlagFresh == 0 {
		it.Slot.Seen = of.seen
	}
	b.Note(it, fold.Passed)
}

// Renew makes a copy what a record says, or a stream that is yet to be opened if rec is nil; Refold then folds it again. A lost
// stream begins anew after the given start and time.
func (tx *Tx) Renew(n int, rec *table.Record, after fold.Interval) {
	s := tx.copies.Slot(n)
	tx.copies.Empty(s)
	if rec != nil {
		tx.copies.Set(s, rec)
		s.Seen = tx.now
	}
	tx.fates[n] = fate{after: after, again: true, renewed: true}
	tx.refold = true
}

// Refold folds the items of renewed copies.
func (tx *Tx) Refold() {
	if !tx.refold {
		return
	}
	for _, b := range tx.batches {
		b.ticket.held(func() { tx.refoldBatch(b) })
	}
	for i := range tx.fates {
		tx.fates[i].again = false
	}
	tx.refold = false
}

func (tx *Tx) refoldBatch(b *Batch) {
	for i := range table.ShardCount {
		subset := tx.subset[:0]
		for _, n := range b.Shard(i) {
			it := &b.Items[n]
			if it.Slot != nil && tx.fates[it.Number].again {
				b.Undo(it)
				subset = append(subset, n)
			}
		}
		if len(subset) > 0 {
			tx.foldItems(b, subset, i, 0)
		}
		tx.subset = subset
	}
}

// Refuse ends the batches that have a point of the stream with err, and no others. The store keeps what it has of them by then,
// and recognises it if they come again.
func (tx *Tx) Refuse(n int, err error) {
	tx.of[n].refused = true
	id := tx.copies.Slot(n).ID
	for _, b := range tx.batches {
		if b.ticket.err != nil {
			continue
		}
		for _, i := range b.Shard(int(tx.of[n].shard)) {
			if b.Items[i].ID == id {
				b.ticket.err = err
				break
			}
		}
	}
}

// Aligned reports whether a point of the transaction begins where the stream ended according to rec.
func (tx *Tx) Aligned(n int, last int64) bool {
	id := tx.copies.Slot(n).ID
	for _, b := range tx.batches {
		for _, i := range b.Shard(int(tx.of[n].shard)) {
			if it := &b.Items[i]; it.ID == id && !it.Marker && it.Interval.Start == last && it.Interval.Time > last {
				return true
			}
		}
	}
	return false
}

// publish puts the copies in the place of their originals.
func (tx *Tx) publish() {
	for at := 0; at < len(tx.of); {
		end := at + 1
		for end < len(tx.of) && tx.of[end].shard == tx.of[at].shard {
			end++
		}
		tx.publishShard(at, end)
		at = end
	}
}

// publishShard publishes copies of one shard.
func (tx *Tx) publishShard(from, to int) {
	shard := tx.of[from].shard
	sh := &tx.p.Table.Shards[shard]
	sh.Lock()
	defer sh.Unlock()
	moved := tx.held || sh.Moves != tx.moves[shard] // streams have expired meanwhile: numbers are others
	for n := from; n < to; n++ {
		s, of := tx.copies.Slot(n), &tx.of[n]
		if s.Meta&table.FlagFresh != 0 || of.refused { // nothing came of it
			if of.number < 0 {
				tx.p.Live.Add(-1)
			}
			continue
		}
		dst, number := (*table.Slot)(nil), of.number
		switch {
		case moved:
			dst, number = sh.Seek(s.ID)
		case number >= 0:
			dst = sh.Slot(int(number))
		}
		if dst == nil {
			if dst = sh.Add(s.ID, s.Kind()); dst == nil {
				continue
			}
			number = int32(sh.N - 1)
			if of.number >= 0 {
				tx.p.Live.Add(1)
			}
			if of.total > 0 {
				tx.publishNew(sh, int(number), n)
			}
		}
		sh.CopyFrom(dst, &tx.copies, s)
		sh.SetTag(int(number), of.tag)
		if s.Role == table.RoleTotal {
			// Its writers are counted as they come and go.
			sh.SetOwner(int(number), table.WithHorizon(sh.Owner(int(number)), table.Horizon(tx.copies.Owner(n))))
		}
		if sh.Names() {
			tx.publishName(sh, int(number), n)
		}
	}
}

// cancel forgets what the transaction would have opened.
func (tx *Tx) cancel() { tx.p.Live.Add(-int64(tx.opened)) }

// reset forgets batches and copies, and keeps their memory for the next ones.
func (tx *Tx) reset() {
	clear(tx.batches)
	tx.dropNames()
	tx.batches, tx.of, tx.fates = tx.batches[:0], tx.of[:0], tx.fates[:0]
	tx.opened, tx.conditional, tx.floors, tx.refold = 0, false, nil, false
	tx.Stored, tx.Outstanding = false, false
	const maxKept = 1 << 16
	if cap(tx.of) > maxKept {
		tx.of, tx.fates, tx.subset = nil, nil, nil
	}
	tx.copies.Clear()
}

// Monotonic reports whether the stream of a copy must not fall.
func (tx *Tx) Monotonic(n int) bool { return tx.of[n].monotonic }

// Confirm notes that the store has what a copy says, under a tag.
func (tx *Tx) Confirm(n int, tag uint64) {
	tx.of[n].tag = tag
	tx.copies.Slot(n).Meta &^= table.FlagChanged
}

// Fresh reports whether the stream of a copy is yet to be opened.
func (tx *Tx) Fresh(n int) bool { return tx.copies.Slot(n).Meta&table.FlagFresh != 0 }

// Timeline returns the timeline of a copy.
func (tx *Tx) Timeline(n int) (t fold.Timeline) {
	tx.copies.Timeline(tx.copies.Slot(n), &t)
	return t
}
