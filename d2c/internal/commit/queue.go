// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package commit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrClosed is the error of batches that come after Close.
var ErrClosed = errors.New("d2c: converter is closed")

// maxPoints bounds the points of a transaction. A batch is never divided, even if it holds more. See also Pace.
const maxPoints = 1 << 13

// ticket is a batch's place in the queue.
type ticket struct {
	// mu is held while a transaction reads the batch's points, because they belong to the caller again once it has left.
	mu    sync.Mutex
	gone  bool // the caller
	ended bool
	done  chan struct{} // has an element once the batch has ended
	err   error
}

// held calls f while the caller cannot leave, or reports that it has left. A panic of f leaves nothing locked.
func (t *ticket) held(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gone {
		return false
	}
	f()
	return true
}

// queue lets batches wait for a transaction.
type queue struct {
	// running is held during a transaction, and by whoever needs that none is under way.
	running sync.Mutex
	tx      Tx
	taken   []*Batch

	mu      sync.Mutex
	waiting []*Batch
	points  int  // of those that wait
	busy    bool // a goroutine makes transactions, until none waits
	closed  bool
	ended   chan struct{} // closed once no transaction follows
	work    func()        // p.work, bound once
	pace    pace
}

// pace says how fast transactions may follow each other.
type pace struct {
	points   int           // of one, at most
	interval time.Duration // between the beginnings of two, unless as many points wait
	began    time.Time     // when the last one did
	wake     chan struct{} // has an element once it is of no use to wait any longer; nil if there is no interval
}

// Pace sets the time between the beginnings of two transactions, which is cut short once enough points wait for a whole one, and the number
// of points that one may hold; zero leaves that number as it is. Call it before there are batches.
func (p *Pipeline) Pace(interval time.Duration, points int) {
	if points > 0 {
		p.queue.pace.points = points
	}
	if interval > 0 {
		p.queue.pace.interval, p.queue.pace.wake = interval, make(chan struct{}, 1)
	}
}

// hurry ends a pause. It is called with q.mu held.
func (q *queue) hurry() {
	select {
	case q.pace.wake <- struct{}{}:
	default: // there is no interval, or one element is enough
	}
}

// pause returns when the next transaction may begin. It is called with q.mu held, and unlocks it meanwhile.
func (q *queue) pause() {
	for !q.closed && q.points < q.pace.points {
		left := q.pace.interval - time.Since(q.pace.began)
		if left <= 0 {
			break
		}
		q.mu.Unlock()
		timer := time.NewTimer(left)
		select {
		case <-timer.C:
		case <-q.pace.wake:
		}
		timer.Stop()
		q.mu.Lock()
	}
	q.pace.began = time.Now()
}

// commit returns when the batch is folded and kept, or with an error if it must not be given out. It waits no longer than ctx
// lasts; mine is false if a transaction continues with the batch without the caller.
func (p *Pipeline) commit(ctx context.Context, b *Batch) (mine bool, err error) {
	q, t := &p.queue, &b.ticket
	if t.done == nil {
		t.done = make(chan struct{}, 1)
	}
	t.gone, t.ended, t.err = false, false, nil

	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return true, ErrClosed
	}
	q.waiting = append(q.waiting, b)
	if q.points += len(b.Items); q.points >= q.pace.points {
		q.hurry()
	}
	if !q.busy {
		q.busy = true
		go q.work()
	}
	q.mu.Unlock()

	select {
	case <-t.done:
		return true, t.err
	case <-ctx.Done():
	}
	t.mu.Lock()
	if t.ended {
		t.mu.Unlock()
		<-t.done
		return true, t.err
	}
	t.gone = true
	t.mu.Unlock()
	return false, ctx.Err()
}

// end wakes the caller of the batch or, if the caller has left, lets the batch be used again.
func (p *Pipeline) end(b *Batch) {
	t := &b.ticket
	t.mu.Lock()
	gone := t.gone
	t.ended = true
	t.mu.Unlock()
	if gone {
		p.put(b)
		return
	}
	t.done <- struct{}{}
}

// work makes transactions as long as batches wait.
func (p *Pipeline) work() {
	q := &p.queue
	for {
		q.mu.Lock()
		if q.pace.interval > 0 && len(q.waiting) > 0 {
			q.pause()
		}
		if q.closed {
			for _, b := range q.waiting {
				b.ticket.err = ErrClosed
				p.end(b)
			}
			clear(q.waiting)
			q.waiting, q.points = q.waiting[:0], 0
			close(q.ended)
		}
		if len(q.waiting) == 0 {
			q.busy = false
			q.mu.Unlock()
			return
		}
		q.take()
		q.mu.Unlock()
		p.transact(q.taken)
	}
}

// take takes the first batches that wait. It is called with q.mu held.
func (q *queue) take() {
	points := 0
	q.taken = q.taken[:0]
	for _, b := range q.waiting {
		if points > 0 && points+len(b.Items) > q.pace.points {
			break
		}
		points += len(b.Items)
		q.taken = append(q.taken, b)
	}
	q.points -= points
	rest := copy(q.waiting, q.waiting[len(q.taken):])
	clear(q.waiting[rest:])
	q.waiting = q.waiting[:rest]
}

// transact makes one transaction.
func (p *Pipeline) transact(batches []*Batch) {
	q := &p.queue
	q.running.Lock()
	defer q.running.Unlock()
	tx := &q.tx
	tx.begin(p, batches)
	err := p.keep(tx)
	for _, b := range batches {
		if b.ticket.err == nil {
			b.ticket.err = err
		}
		b.Stored, b.Outstanding = tx.Stored, tx.Outstanding
		p.end(b)
	}
	clear(batches)
	tx.reset()
}

// keep lets the Keeper keep the transaction, and publishes it. A panic of the store is an error like any other.
func (p *Pipeline) keep(tx *Tx) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("d2c: a commit panicked: %v", r)
		}
		if err != nil {
			tx.cancel()
		}
	}()
	// The transaction has a context of its own, because it serves several callers.
	if err := p.keeper.Keep(context.Background(), tx); err != nil {
		return err
	}
	tx.publish()
	return nil
}

// Between calls f while no transaction is under way.
func (p *Pipeline) Between(f func()) {
	p.queue.running.Lock()
	defer p.queue.running.Unlock()
	f()
}

// Waiting is the number of batches that wait for a transaction.
func (p *Pipeline) Waiting() int {
	p.queue.mu.Lock()
	defer p.queue.mu.Unlock()
	return len(p.queue.waiting)
}

// Close refuses batches that wait and all that come from now on. It returns when no transaction is under way any more, or with
// ctx's error.
func (p *Pipeline) Close(ctx context.Context) error {
	q := &p.queue
	q.mu.Lock()
	if !q.closed {
		q.closed = true
		q.ended = make(chan struct{})
		q.hurry()
		if !q.busy {
			close(q.ended)
		}
	}
	q.mu.Unlock()
	select {
	case <-q.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("d2c: waiting for the store: %w", ctx.Err())
	}
}
