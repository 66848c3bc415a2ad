// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"context"
	"fmt"
	"sync"

	"go.opentelemetry.io/collector/client"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.uber.org/zap"
)

// outbox sends what comes out of a member's queue, in that order and with one request under way. What comes meanwhile is sent
// together in the next request. exporterhelper's batching would not do: batches of two views may overtake each other there, and one
// that has to wait for the other would keep that from being sent.
type outbox[B batch] struct {
	m     *member[B]
	limit int // bytes of a request made of several batches

	mu      sync.Mutex
	changed sync.Cond
	next    *bundle[B] // nil if nothing waits
	closed  bool
	running sync.WaitGroup
}

// bundle becomes a request: batches with the same metadata, and so of the same ring, that wait for the same.
type bundle[B batch] struct {
	ctx     context.Context // of all of them
	data    B
	size    int
	same    string // equal if the metadata is
	tickets []*ticket
}

func newOutbox[B batch](m *member[B], limit int) *outbox[B] {
	o := &outbox[B]{m: m, limit: limit}
	o.changed.L = &o.mu
	return o
}

func (o *outbox[B]) start() { o.running.Go(o.run) }

// put takes data over. It waits while what is already there cannot be sent together with it.
func (o *outbox[B]) put(ctx context.Context, data B) error {
	b := o.wrap(ctx, data)
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.next != nil && !o.fits(b) {
		o.changed.Wait()
	}
	if o.next == nil {
		o.next = b
	} else {
		o.m.signal.move(b.data, o.next.data)
		o.next.size += b.size
		o.next.tickets = append(o.next.tickets, b.tickets...)
	}
	o.changed.Broadcast()
	return nil
}

// wrap makes a bundle of one batch. Of its metadata it has only what requests are told apart by, as a queue with batch has.
func (o *outbox[B]) wrap(ctx context.Context, data B) *bundle[B] {
	keep := map[string][]string{}
	md := client.FromContext(ctx).Metadata
	for _, key := range termKeys {
		if values := md.Get(key); len(values) > 0 {
			keep[key] = values
		}
	}
	for _, key := range o.m.shared.tenants.Of(ctx) {
		keep[key.Name] = key.Values
	}
	b := &bundle[B]{
		ctx:     client.NewContext(context.Background(), client.Info{Metadata: client.NewMetadata(keep)}),
		data:    o.m.signal.empty(),
		size:    o.m.signal.size(data),
		same:    fmt.Sprintf("%q", keep), // in the order of keys
		tickets: []*ticket{ticketOf(ctx)},
	}
	o.m.signal.move(data, b.data) // the Collector may use the memory of data again
	return b
}

// fits reports whether b may be sent together with what waits.
func (o *outbox[B]) fits(b *bundle[B]) bool {
	return o.next.size+b.size <= o.limit && o.next.same == b.same
}

// run sends until close is called and nothing waits any more.
func (o *outbox[B]) run() {
	for b := o.take(); b != nil; b = o.take() {
		items := o.m.signal.items(b.data)
		o.m.hold(b.tickets[0])
		if err := o.m.deliver(b.ctx, b.data); err != nil && !consumererror.IsPermanent(err) { // that is logged
			o.m.shared.logger.Error("data for a member is dropped", zap.String("member", o.m.Name), zap.Int("items", items), zap.Error(err))
		}
		for _, t := range b.tickets {
			t.end()
		}
	}
}

// take waits for the next bundle, and returns nil if there will be none.
func (o *outbox[B]) take() *bundle[B] {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.next == nil && !o.closed {
		o.changed.Wait()
	}
	b := o.next
	o.next = nil
	o.changed.Broadcast()
	return b
}

// close returns when all that was put is sent or given up. Nothing may be put from then on.
func (o *outbox[B]) close() {
	o.mu.Lock()
	o.closed = true
	o.changed.Broadcast()
	o.mu.Unlock()
	o.running.Wait()
}
