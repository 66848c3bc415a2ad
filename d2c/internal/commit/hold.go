// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package commit

import (
	"github.com/deltaring/deltaring/d2c/internal/fold"
	"github.com/deltaring/deltaring/d2c/internal/points"
	"github.com/deltaring/deltaring/d2c/internal/table"
)

// Hold returns a transaction that takes batches one after the other, and is kept and published in the end. Its batches go
// out at once: it keeps what it needs of them to fold them again. It begins now: of a stream that the table does not have
// it takes nothing from before, see fold.Kept.
func (tx *Tx) Hold(floors []fold.Interval) *Tx {
	h := &Tx{p: tx.p, held: true, conditional: true, floors: floors, began: tx.p.Time().UnixNano()}
	h.copies.SetLike(tx.p.Table)
	return h
}

// Unfold takes back what folding has left in the batches, and forgets all copies.
func (tx *Tx) Unfold() {
	for _, b := range tx.batches {
		b.ticket.held(func() {
			b.Restart()
			b.Prepare()
		})
	}
	tx.cancel()
	tx.dropNames()
	tx.of, tx.fates, tx.opened, tx.refold = tx.of[:0], tx.fates[:0], 0, false
	tx.copies.Clear()
}

// Take folds a batch, and keeps its delta points. It reports false, and does nothing, if the batch's caller has left.
func (tx *Tx) Take(b *Batch) bool {
	return b.ticket.held(func() {
		tx.now = tx.p.Clock()
		for i := range table.ShardCount {
			if items := b.Shard(i); len(items) > 0 {
				tx.takeShard(b, i, items)
			}
		}
		kept := new(Batch)
		b.Keep(&kept.Batch)
		tx.batches = append(tx.batches, kept)
	})
}

func (tx *Tx) takeShard(b *Batch, i int, items []int32) {
	sh := &tx.p.Table.Shards[i]
	sh.Lock()
	defer sh.Unlock()
	tx.foldBatch(b, sh, i, items)
}

// RefuseBatch ends one batch with err.
func (tx *Tx) RefuseBatch(b *Batch, err error) { b.ticket.err = err }

// Restart makes the life of a copy one that takes nothing from before its start.
func (tx *Tx) Restart(n int) { tx.copies.Slot(n).Meta |= table.FlagRestarted | table.FlagChanged }

// Recall makes a copy what a record says, to be published with a tag.
func (tx *Tx) Recall(n int, rec *table.Record, tag uint64) {
	tx.copies.Set(tx.copies.Slot(n), rec)
	tx.copies.Slot(n).Seen = tx.now
	tx.of[n].tag = tag
}

// Judge says of the points of a copy that were kept whether they are in the total of a record.
func (tx *Tx) Judge(n int, rec *table.Record) {
	for _, b := range tx.batches {
		for _, i := range b.Shard(int(tx.of[n].shard)) {
			it := &b.Items[i]
			if it.Slot != tx.copies.Slot(n) || b.Outcome(it) != fold.Kept {
				continue
			}
			if o := tx.judge(b, it, rec); o.Answered() {
				b.Undo(it)
				b.Note(it, o)
			}
		}
	}
}

func (tx *Tx) judge(b *Batch, it *points.Item, rec *table.Record) fold.Outcome {
	if tx.p.Rules.Writers != fold.WritersMany {
		return rec.Timeline.Classify(it.Interval, b.DeltaPrint(it), &tx.p.Rules)
	}
	for _, r := range rec.Memory {
		if r.Print == b.Print(it) {
			return fold.Repeat
		}
	}
	return fold.Kept
}

// Missed returns the number of points that were given out or kept and are in no total.
func (tx *Tx) Missed() (n int) {
	for _, b := range tx.batches {
		for i := range b.Items {
			it := &b.Items[i]
			given, o := b.Given(it), b.Outcome(it)
			if (given.Added() || given == fold.Kept) && (o.Dropped() || o == fold.Kept || it.Slot != nil && tx.of[it.Number].refused) {
				n++
			}
		}
	}
	return n
}

// Publish puts the copies in the place of their originals.
func (tx *Tx) Publish() {
	tx.publish()
	tx.dropNames()
}
