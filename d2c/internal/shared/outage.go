// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package shared

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/deltaring/deltaring/d2c/internal/commit"
	"github.com/deltaring/deltaring/d2c/internal/fold"
	"github.com/deltaring/deltaring/d2c/internal/table"
	"github.com/deltaring/deltaring/streamid"
)

// ErrOutstanding is the error of batches that come while the store fails and no more points can be kept for it.
var ErrOutstanding = errors.New("d2c: shared state fails and no more points can be kept back for it")

// errWait is the error of batches that ask for samples of quiet streams while the store fails: nobody knows who else gives them out.
var errWait = commit.StoreError{Err: errors.New("d2c: shared state fails: quiet streams wait")}

// probeInterval is how often a store that failed is tried again.
const probeInterval = time.Second

// Outage is a Keeper that goes on while the store of another fails: it folds batches onto copies of its own (a transaction that is
// held open), has them given out, and keeps their delta points. A goroutine, which lives as long as the outage, tries the store;
// when that answers, the copies are brought there as those of any transaction, and published.
//
// A stream that the table does not have when the outage begins may still be in the store. It is a life of its own: it
// begins no earlier than the outage, and is adopted as a restart. What comes of it from before that may have been counted already:
// it is kept, and not given out.
type Outage struct {
	next *Keeper
	max  int
	// told, if not nil, is told that an outage begins, and with nil that it is over.
	told func(error)

	held *held // nil while there is no outage; changed between transactions only

	outstanding, missed atomic.Int64
	holding             atomic.Bool   // held is not nil
	calling             chan struct{} // has an element while somebody calls the store

	mu     sync.Mutex
	stop   context.CancelFunc // of the probe
	probes sync.WaitGroup
	closed bool
}

// held is what an outage has given out.
type held struct {
	tx   *commit.Tx
	sent map[streamid.ID]uint64 // tags of records that the store may have of the batches with which it began
	lost map[int]*table.Record  // what was given out of streams that the store has lost
}

// NewOutage returns a Keeper that holds up to max points while the store of next fails.
func NewOutage(next *Keeper, max int, told func(error)) *Outage {
	return &Outage{next: next, max: max, told: told, calling: make(chan struct{}, 1)}
}

// Outstanding is the number of points that have been given out, or kept, and are not in the store.
func (o *Outage) Outstanding() int { return int(o.outstanding.Load()) }

// Missed is the number of points that came while the store failed and could not be added when it was back.
func (o *Outage) Missed() uint64 { return uint64(o.missed.Load()) }

// Keep implements commit.Keeper.
func (o *Outage) Keep(ctx context.Context, tx *commit.Tx) error {
	if o.held == nil {
		err := o.next.Keep(ctx, tx)
		if !errors.As(err, new(commit.StoreError)) {
			return err
		}
		if !o.begin(tx, err) {
			return err
		}
	}
	for _, b := range tx.Batches() {
		n := len(b.Items)
		if b.Asks() {
			tx.RefuseBatch(b, errWait)
			continue
		}
		if int(o.outstanding.Load())+n > o.max {
			tx.RefuseBatch(b, ErrOutstanding)
			continue
		}
		if o.held.tx.Take(b) {
			o.outstanding.Add(int64(n))
		}
	}
	tx.Outstanding = true
	return nil
}

// begin starts an outage, in which tx could not be stored.
func (o *Outage) begin(tx *commit.Tx, err error) bool {
	ctx, stop := context.WithCancel(context.Background())
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		stop()
		return false
	}
	o.stop = stop
	o.probes.Go(func() { o.probe(ctx) })
	o.mu.Unlock()
	floors := o.next.floors
	if len(floors) == 0 {
		floors = make([]fold.Interval, 1)
	}
	// What swaps without an answer may have left is what the held copies begin with.
	h := &held{tx: tx.Hold(floors), sent: map[streamid.ID]uint64{}, lost: map[int]*table.Record{}}
	for n := range min(len(o.next.states), tx.Len()) {
		if s := &o.next.states[n]; s.unheard > 0 {
			h.sent[tx.Copy(n).ID] = s.sent
		}
	}
	tx.Unfold()
	o.held = h
	o.holding.Store(true)
	o.next.states = o.next.states[:0]
	if o.told != nil {
		o.told(err)
	}
	return true
}

// probe tries the store until the outage is over.
func (o *Outage) probe(ctx context.Context) {
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if o.Reconcile(ctx) == nil {
			return
		}
	}
}

// Reconcile brings what is outstanding to the store. It returns the store's error if that still fails.
func (o *Outage) Reconcile(ctx context.Context) (err error) {
	select {
	case o.calling <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() {
		if r := recover(); r != nil {
			err = commit.StoreError{Err: fmt.Errorf("d2c: shared state: the store panicked: %v", r)}
		}
		<-o.calling
	}()
	if !o.holding.Load() {
		return nil
	}
	// Nobody waits for this call but whoever reconciles.
	if _, err := o.next.Store.Lives(ctx, o.next.proposal()); err != nil {
		return commit.StoreError{Err: err}
	}
	o.next.p.Between(func() { err = o.reconcile(ctx) })
	return err
}

func (o *Outage) reconcile(ctx context.Context) error {
	h, k := o.held, o.next
	if h == nil {
		return nil
	}
	if err := k.Learn(ctx); err != nil {
		return err
	}
	tx := h.tx
	k.follow(tx) // by what came meanwhile
	tx.Floors(k.floors)
	for n := range tx.Len() {
		if n == len(k.states) {
			s := k.fresh(tx, n)
			s.own = !tx.Known(n)
			if s.tag = h.sent[tx.Copy(n).ID]; s.tag != 0 {
				s.unanswered()
			}
			k.states = append(k.states, s)
		}
		s := &k.states[n]
		if s.failed {
			continue
		}
		s.pending = s.pending || tx.Changed(n)
		if tx.Fresh(n) {
			if s.own && !s.renewed {
				// Nothing was given out: it is a stream like any other.
				s.own = false
				tx.Renew(n, nil, fold.Interval{})
			}
			continue
		}
		t := tx.Timeline(n)
		s.given = fold.Interval{Start: t.Start, Time: t.Emitted}
	}
	tx.Refold()
	k.held = h
	defer func() { k.held = nil }()
	if err := k.bring(ctx, tx, false); err != nil {
		return err
	}
	for n, rec := range h.lost {
		if tx.Fresh(n) {
			// Nothing was added to it. The table is to know what was given out, and with a tag that nothing has, so that
			// the next point finds out again.
			tx.Recall(n, rec, rand.Uint64()|1)
		}
	}
	o.missed.Add(int64(tx.Missed()))
	tx.Publish()
	k.states = k.states[:0]
	o.held = nil
	o.holding.Store(false)
	o.outstanding.Store(0)
	o.mu.Lock()
	o.stop()
	o.mu.Unlock()
	if o.told != nil {
		o.told(nil)
	}
	return nil
}

// Close ends the goroutine, if there is one, or returns ctx's error if that ends first: the store may hang. What is outstanding is
// lost.
func (o *Outage) Close(ctx context.Context) error {
	o.mu.Lock()
	o.closed = true
	if o.stop != nil {
		o.stop()
	}
	o.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		o.probes.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("d2c: waiting for the store: %w", ctx.Err())
	}
}

// lose remembers what was given out of a stream that the store has lost.
func (h *held) lose(tx *commit.Tx, n int) {
	if h == nil || tx.Fresh(n) || h.lost[n] != nil {
		return
	}
	rec := new(table.Record)
	tx.Copies().Read(tx.Copy(n), rec)
	h.lost[n] = rec.Clone()
}

// adopt makes the life that a stream began while the store failed its next one, and reports whether that can be: what the
// store has of the stream must have ended before.
func (k *Keeper) adopt(tx *commit.Tx, n int, there bool, r *lineage) bool {
	if there && r.emitted > k.states[n].given.Start {
		return false
	}
	if there {
		tx.Restart(n)
		tx.Judge(n, &k.record)
	}
	return true
}
