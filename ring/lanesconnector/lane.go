// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package lanesconnector

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/deltaring/deltaring/streamid"
)

// lane sends what it is given, in that order, with one request under way. What comes meanwhile waits and is sent together.
type lane[B batch] struct {
	signal   *signal[B]
	shared   *shared
	delivery *delivery[B]
	maxItems int           // of a request made of several batches
	sweeps   time.Duration // between sweeps of the guard

	mu      sync.Mutex
	waiting []*given[B]
	busy    bool          // something is under way
	closed  bool          // run ends when nothing waits
	wake    chan struct{} // has an element if there may be something to do
}

// given is a batch whose giver waits for what becomes of it.
type given[B batch] struct {
	data   B
	items  int
	tenant []streamid.TenantKey
	same   string     // equal if the tenant is
	taken  chan error // has an element when it is clear what became of the batch
	mine   *request   // once it is under way
	over   sync.Once  // its giver does not wait for that any more
}

// tell tells who gave a batch what became of it.
func (g *given[B]) tell(err error) {
	g.taken <- err
	g.over.Do(g.mine.left)
}

// request is what batches have in common that are sent together.
type request struct {
	cancel  context.CancelFunc
	waiting atomic.Int64 // givers that still wait
}

// left ends the request when nobody waits for it any more.
func (r *request) left() {
	if r.waiting.Add(-1) == 0 {
		r.cancel()
	}
}

// give has a batch sent, and await tells what became of it.
func (l *lane[B]) give(of []streamid.TenantKey, data B) *given[B] {
	g := &given[B]{data: data, items: l.signal.items(data), tenant: of, same: tenantText(of), taken: make(chan error, 1)}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		l.shared.unsent(context.Background(), g.items, errStopping)
		g.taken <- errStopping
		return g
	}
	l.waiting = append(l.waiting, g)
	l.shared.waiting.Add(int64(g.items))
	l.rouse()
	return g
}

// await returns when the batch was taken, or it is clear that it will not be. If ctx ends before, it may have been taken; it is
// not sent any more unless it is in a request for which others wait.
func (l *lane[B]) await(ctx context.Context, g *given[B]) error {
	select {
	case err := <-g.taken:
		return err
	case <-ctx.Done():
		return l.leave(ctx, g)
	}
}

// leave ends waiting for g.
func (l *lane[B]) leave(ctx context.Context, g *given[B]) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.waiting, g); i >= 0 {
		l.waiting = slices.Delete(l.waiting, i, i+1)
		l.shared.waiting.Add(-int64(g.items))
		l.shared.unsent(ctx, g.items, context.Cause(ctx))
		return context.Cause(ctx)
	}
	select {
	case err := <-g.taken: // at the last moment
		return err
	default:
	}
	g.over.Do(g.mine.left)
	return context.Cause(ctx)
}

func (l *lane[B]) rouse() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// run sends until close is called and nothing waits any more. It begins when open is closed.
func (l *lane[B]) run(open <-chan struct{}) {
	select {
	case <-open:
	case <-l.shared.closing.Done():
		select {
		case <-open: // both were, and select has no order
		default:
			l.delivery.early = true
		}
	}
	sweep := time.NewTicker(l.sweeps)
	defer sweep.Stop()
	defer l.delivery.end()
	for {
		select {
		case <-sweep.C: // also where there is always something to send
			l.delivery.sweep()
		default:
		}
		batches, ctx := l.next()
		if batches != nil {
			l.delivery.deliver(ctx, batches)
			batches[0].mine.cancel() // frees the context
			continue
		}
		if ctx == nil {
			return
		}
		select {
		case <-l.wake:
		case <-sweep.C:
			l.delivery.sweep()
		}
	}
}

// next takes what is to be sent together: the batch that waits longest, and others of its tenant, in their order. The context is
// for sending them. Without any that wait there are no batches, and without any that will there is no context.
func (l *lane[B]) next() ([]*given[B], context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy = len(l.waiting) > 0
	if !l.busy {
		if l.closed {
			return nil, nil
		}
		return nil, l.shared.aborted
	}
	var batches []*given[B]
	first, items, full := l.waiting[0], 0, false
	l.waiting = slices.DeleteFunc(l.waiting, func(g *given[B]) bool {
		if full || g.same != first.same {
			return false
		}
		if items > 0 && items+g.items > l.maxItems {
			full = true // and nothing overtakes it
			return false
		}
		items += g.items
		batches = append(batches, g)
		return true
	})
	l.shared.waiting.Add(-int64(items))
	r := &request{}
	r.waiting.Store(int64(len(batches)))
	var ctx context.Context
	ctx, r.cancel = context.WithCancel(contextOf(l.shared.aborted, first.tenant))
	for _, g := range batches {
		g.mine = r
	}
	return batches, ctx
}

// idle returns whether nothing waits or is under way.
func (l *lane[B]) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.busy && len(l.waiting) == 0
}

// close has run end when nothing waits any more.
func (l *lane[B]) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.rouse()
}
