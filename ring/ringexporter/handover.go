// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/deltaring/deltaring/ring"
)

// routed counts what was routed by a view and is in queues of members, and one more until the view is drained. At zero, all of it
// has ended, because it was delivered, refused or given up, and over is closed.
type routed struct {
	n    atomic.Int64
	over chan struct{}
}

func newRouted() *routed {
	r := &routed{over: make(chan struct{})}
	r.n.Store(1)
	return r
}

func (r *routed) end() {
	if r.n.Add(-1) == 0 {
		close(r.over)
	}
}

// ticket goes with a batch through the queue of a member. It is nil if nobody waits for the batch.
type ticket struct {
	of    *routed
	hold  <-chan struct{} // closed when the batch may go out; nil if it may at once
	ended sync.Once
}

// end says that the batch has ended. It may be said again.
func (t *ticket) end() {
	if t != nil {
		t.ended.Do(t.of.end)
	}
}

type ticketKey struct{}

// ticketOf returns the ticket of a batch that comes out of a queue, or nil.
func ticketOf(ctx context.Context) *ticket {
	t, _ := ctx.Value(ticketKey{}).(*ticket)
	return t
}

// consume hands data to the queue of the member with this number.
func (v *view[B]) consume(ctx context.Context, number int, data B) error {
	m := v.members[number]
	if m.signal.items(data) == 0 { // queues may take that and do nothing more with it
		return m.consume(ctx, data)
	}
	t := &ticket{of: v.routed, hold: v.holds[number]}
	v.routed.n.Add(1) // the view is in use, so that is not over
	err := m.consume(context.WithValue(ctx, ticketKey{}, t), data)
	if err != nil {
		t.end() // it was not taken over
	}
	return err
}

// await returns when no batch is on its way into a queue by a view before this one: what waits there for what those have routed must
// not be in front of it.
func (v *view[B]) await(ctx context.Context, closing <-chan struct{}) {
	select {
	case <-v.settled:
		return
	default:
	}
	select {
	case <-v.settled:
	case <-ctx.Done():
	case <-closing:
	}
}

// handOver makes the members that gain by next wait until everything that earlier views have routed is over, or time is up. Backends
// that take samples in order would refuse what comes of a stream after the first samples that its new owner makes.
//
// What waits is the head of a member's queue, and all behind it. Nothing that was routed by a view waits for what that view or a later
// one has routed, because batches leave queues in the order of views (see await), and what a member that left hands to others passes
// by their queues. So something always moves, unless members do not answer, and then waiting ends when time is up.
func (e *ringExporter[B]) handOver(old, next *view[B], plan *ring.Plan) {
	gains := map[string]bool{}
	for _, move := range plan.Moves {
		gains[move.To] = true
	}
	ready := make(chan struct{})
	for i, m := range next.members {
		for j, was := range old.members {
			if was == m {
				next.holds[i] = old.holds[j] // may have gained shortly before
			}
		}
		if gains[m.Name] || old.byName(m.Name) != m { // one at a new address is sent what was in the queue for the old one
			next.holds[i] = ready
		}
	}
	past, over := old.past, old.routed.over // not the view, which is large
	e.retiring.Go(func() {
		<-past
		<-over
		close(next.past)
	})
	e.retiring.Go(func() {
		defer close(ready)
		timer := time.NewTimer(e.handover)
		defer timer.Stop()
		select {
		case <-next.past:
		case <-timer.C:
			e.set.Logger.Warn("members that gained streams wait no longer for what others still hold of these, which may come out of order; "+
				"see handover_timeout", zap.Stringer("waited", e.handover))
		case <-e.shared.aborted.Done():
		}
	})
}
