// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"context"
	"errors"
	"sync"
)

// Where state is durable or shared, batches are folded onto copies of their streams, the copies are committed, and only then
// do they take the place of the streams and does a batch go out. Batches that come while a commit is under way make the
// next one together, so that a slow disk is waited for once by all of them. Commits follow each other: what one batch adds
// to is what all before it have left, in storage as in memory.

// maxGroupPoints bounds the points of a commit, though a batch is never divided.
const maxGroupPoints = 1 << 13

// ErrClosed is returned by Convert after Close.
var ErrClosed = errors.New("d2c: converter is closed")

// group is the batches of one commit, and the copies they are folded onto.
type group struct {
	batches []*batch
	// scratch has the copies, those of one shard next to each other and up to ends, in the order of the shards.
	scratch shard
	copies  []copied // by slot of scratch
	ends    [shardCount]int
	opened  int

	// The rest is for shared state.
	shared  bool
	swapped []swapped // by slot of scratch
	lost    bool      // some stream is
	subset  []int32   // scratch space of refold
}

// copied says what a slot of scratch is a copy of. An original that has a copy is marked flagTouched, and its seen is the
// number of the copy, which finds it faster than an index would: the copy is made in 20 ns less.
type copied struct {
	original *slot  // nil where this process does not know the stream
	number   int32  // of original in its shard
	seen     uint32 // of original
}

// swapped says how a copy becomes a record in shared state.
type swapped struct {
	// The copy has tag and takes the place of the record with tag base.
	base, tag uint64
	pending   bool     // until the store has confirmed it
	again     bool     // to be folded again
	rebased   bool     // the copy is not of original any more
	monotonic bool     // of a sum
	known     known    // what a record must follow on
	after     interval // latest start and emitted time that this worker has heard of
	lost      bool     // the stream cannot continue: it begins anew after that
}

// locate finds the copy of the item's stream, or makes one. Until then slot and number are the original's. There is no copy
// if there is no such stream and none may open.
func (g *group) locate(it *item, sh *shard, c *Converter) {
	original, number := it.slot, it.number
	switch {
	case original == nil:
		if it.slot, it.number = g.scratch.seek(it.id); it.slot != nil || sh.n+g.opened >= maxSlots || !c.mayOpen(it, sh, g.shared) {
			return
		}
		it.slot, it.number = g.scratch.add(it.id, it.kind), int32(g.scratch.n-1)
		g.opened++
		g.copies = append(g.copies, copied{})
	case original.meta&flagTouched != 0:
		it.slot, it.number = g.scratch.slot(int(original.seen)), int32(original.seen)
		return
	default:
		it.slot, it.number = g.scratch.append(it.id, it.kind), int32(g.scratch.n-1)
		g.scratch.copyFrom(it.slot, sh, original)
		g.copies = append(g.copies, copied{original, number, original.seen})
		original.meta |= flagTouched
		original.seen = uint32(it.number)
	}
	if g.shared {
		sw := swapped{monotonic: it.monotonic}
		if original != nil {
			sw.base = sh.tags[number]
		}
		g.swapped = append(g.swapped, sw)
	}
}

// fold folds all batches of the group, each in its turn.
func (g *group) fold(c *Converter, now uint32) {
	for i := range c.shards {
		sh := &c.shards[i]
		sh.mu.Lock()
		for _, b := range g.batches {
			if items := b.shardItems(i); len(items) > 0 {
				b.fold(sh, items, c, now, g)
			}
		}
		sh.mu.Unlock()
		g.ends[i] = g.scratch.n
	}
}

// refold folds the items of the streams that are marked again.
func (g *group) refold(c *Converter, now uint32) {
	for i := range c.shards {
		for _, b := range g.batches {
			subset := g.subset[:0]
			for _, n := range b.shardItems(i) {
				it := &b.items[n]
				if it.slot != nil && g.swapped[it.number].again {
					b.undo(it)
					subset = append(subset, n)
				}
			}
			b.foldItems(&g.scratch, subset, c, now, g)
			g.subset = subset
		}
	}
	for i := range g.swapped {
		g.swapped[i].again = false
	}
}

// end takes the marks off the originals, and if the group is committed puts the copies in their place.
func (g *group) end(c *Converter, committed bool) {
	at := 0
	for i := range c.shards {
		sh, end := &c.shards[i], g.ends[i]
		if at == end {
			continue
		}
		sh.mu.Lock()
		for ; at < end; at++ {
			s, dst, number := g.scratch.slot(at), g.copies[at].original, int(g.copies[at].number)
			if dst != nil {
				dst.meta &^= flagTouched
				dst.seen = g.copies[at].seen
			}
			if !committed {
				continue
			}
			switch {
			case s.meta&flagFresh != 0: // shared, and nothing came of it
				if dst == nil {
					c.live.Add(-1)
				}
				continue
			case dst == nil:
				dst, number = sh.add(s.id, s.kind()), sh.n-1
			}
			sh.copyFrom(dst, &g.scratch, s)
			if g.shared {
				sh.tags[number] = g.swapped[at].tag
			}
		}
		sh.mu.Unlock()
	}
}

// reset forgets batches and copies, and keeps room for the next.
func (g *group) reset() {
	clear(g.batches)
	clear(g.copies)
	g.batches, g.copies, g.swapped = g.batches[:0], g.copies[:0], g.swapped[:0]
	g.opened, g.lost = 0, false
	g.scratch.clear()
}

// ticket is a batch's place in the queue for a commit.
type ticket struct {
	wake chan struct{} // tells that done or lead has been set
	done bool
	lead bool
	err  error
}

// committer makes commits one after the other. There is no goroutine for it: one of those who wait for a commit leads it.
type committer struct {
	journal *journal // one of these
	sharing *sharing

	// running is held during a commit, and by whoever needs that there is none.
	running sync.Mutex
	group   group

	mu      sync.Mutex
	queue   []*batch
	leading bool
	closed  bool
	ended   chan struct{} // closed once no commit follows
}

// commit returns when the batch is folded and durable, or with an error when it is neither. The wait for a place in a commit
// ends with ctx; a commit under way does not.
func (q *committer) commit(ctx context.Context, c *Converter, b *batch) error {
	if b.ticket.wake == nil {
		b.ticket.wake = make(chan struct{}, 1)
	}
	t := &b.ticket
	t.done, t.lead, t.err = false, false, nil

	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return ErrClosed
	}
	q.queue = append(q.queue, b)
	if q.leading {
		q.mu.Unlock()
		select {
		case <-t.wake:
		case <-ctx.Done():
			if q.leave(b) {
				return ctx.Err()
			}
			<-t.wake
		}
		if t.done {
			return t.err
		}
	} else {
		q.leading = true
		q.mu.Unlock()
	}
	q.lead(context.WithoutCancel(ctx), c, b)
	return t.err
}

// leave takes the batch out of the queue, unless a commit has taken it or it has been told to lead one.
func (q *committer) leave(b *batch) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if b.ticket.lead {
		return false
	}
	for i, other := range q.queue {
		if other == b {
			q.queue = append(q.queue[:i], q.queue[i+1:]...)
			return true
		}
	}
	return false
}

// lead commits the first batches of the queue, of which the caller's is the very first, and hands over to the next.
func (q *committer) lead(ctx context.Context, c *Converter, leader *batch) {
	g := &q.group
	q.running.Lock()
	q.mu.Lock()
	if q.closed {
		q.refuse(leader)
		q.mu.Unlock()
		q.running.Unlock()
		return
	}
	points := 0
	for len(g.batches) < len(q.queue) && (points == 0 || points+len(q.queue[len(g.batches)].items) <= maxGroupPoints) {
		b := q.queue[len(g.batches)]
		points += max(len(b.items), 1)
		g.batches = append(g.batches, b)
	}
	rest := copy(q.queue, q.queue[len(g.batches):])
	clear(q.queue[rest:])
	q.queue = q.queue[:rest]
	q.mu.Unlock()

	now := c.clock()
	g.fold(c, now)
	var err error
	if q.sharing != nil {
		err = q.sharing.commit(ctx, g, c, now)
	} else {
		err = q.journal.append(ctx, g, c)
	}
	g.end(c, err == nil)
	if err != nil {
		c.live.Add(-int64(g.opened))
	}
	for i, b := range g.batches {
		b.ticket.err = err
		if i > 0 {
			b.ticket.done = true
			b.ticket.wake <- struct{}{}
		}
	}
	g.reset()
	q.running.Unlock()

	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		q.refuse(leader)
		return
	}
	if len(q.queue) == 0 {
		q.leading = false
		return
	}
	next := q.queue[0]
	next.ticket.lead = true
	next.ticket.wake <- struct{}{}
}

// refuse ends the queue. It is called with q.mu held, by the leader.
func (q *committer) refuse(leader *batch) {
	for _, b := range q.queue {
		b.ticket.err = ErrClosed
		if b != leader {
			b.ticket.done = true
			b.ticket.wake <- struct{}{}
		}
	}
	clear(q.queue)
	q.queue = q.queue[:0]
	q.leading = false
	close(q.ended)
}

func (q *committer) isClosed() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed
}

// close refuses what comes from now on, and what waits for a commit. It returns a channel that is closed when no commit is
// under way any more.
func (q *committer) close() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		q.closed = true
		q.ended = make(chan struct{})
		if !q.leading {
			close(q.ended)
		}
	}
	return q.ended
}
