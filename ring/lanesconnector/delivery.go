// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package lanesconnector

import (
	"context"
	"math/bits"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/collector/consumer/consumererror"

	"github.com/deltaring/deltaring/streamid"
)

// delivery brings the data of a lane to whatever is behind it, with retries. It is for one goroutine at a time.
type delivery[B batch] struct {
	signal  *signal[B]
	shared  *shared
	next    consumeFunc[B]
	mutates bool       // next changes or frees what it gets, which may have to be sent again
	retries running[B] // around attempt
	keep    running[B] // returns an error that has a queue on disk keep the data

	guard   *guard       // nil if nothing is dropped
	streams atomic.Int64 // that the guard knows
	stuck   bool         // the last attempt failed
	barren  bool         // see isolate
	early   bool         // the connector stops before anything may be sent
	givenUp error        // of the last attempt before the connector stops
}

// deliver sends batches of one tenant as one request and tells those who gave them.
func (d *delivery[B]) deliver(ctx context.Context, batches []*given[B]) {
	defer func() { d.streams.Store(int64(d.known())) }()
	budget := budgetFor(len(batches))
	d.together(ctx, batches, &budget)
}

// budgetFor returns how many further requests may be made to find what is refused of so many. One is found with two for each
// halving; with four times as many, several are.
func budgetFor(n int) int { return 8 * bits.Len(uint(n)) }

// together sends batches as one request. If that is refused for good, one of them is to blame, and the others must not suffer for
// it: the halves are sent, and so on, as long as the budget lasts. Then each is sent alone.
func (d *delivery[B]) together(ctx context.Context, batches []*given[B], budget *int) {
	if len(batches) == 1 || *budget < 1 {
		for _, g := range batches {
			g.tell(d.send(ctx, g.tenant, g.data))
		}
		return
	}
	*budget--
	all, resources, helds := d.signal.empty(), make([]int, len(batches)), make([]held[B], len(batches))
	for i, g := range batches {
		helds[i] = d.filter(ctx, g.tenant, g.data)
		resources[i] = d.signal.resources(g.data)
		d.signal.append(g.data, all)
	}
	err := d.try(ctx, all)
	if !consumererror.IsPermanent(err) {
		if err != nil {
			d.shared.unsent(ctx, d.signal.items(all), err)
		}
		for i, g := range batches {
			d.overtaken(ctx, helds[i], err)
			g.tell(err)
		}
		return
	}
	for i, data := range d.apart(d.writable(all), resources) {
		d.signal.append(helds[i].data, data)
		batches[i].data = data
	}
	half := len(batches) / 2
	d.together(ctx, batches[:half], budget)
	d.together(ctx, batches[half:], budget)
}

// apart undoes that batches with so many resources were appended.
func (d *delivery[B]) apart(all B, resources []int) []B {
	parts := make([]B, len(resources))
	for i := range parts {
		parts[i] = d.signal.empty()
		d.signal.take(all, func(place int) bool { return place < resources[i] }, parts[i])
	}
	return parts
}

// writable returns data, or a copy: several exporters behind the lanes share what they get, and nobody may change it thereafter.
func (d *delivery[B]) writable(data B) B {
	if data.IsReadOnly() {
		return d.signal.copy(data)
	}
	return data
}

// send sends one batch.
func (d *delivery[B]) send(ctx context.Context, of []streamid.TenantKey, data B) error {
	items := d.signal.items(data)
	s := search{requests: budgetFor(items), patience: bits.Len(uint(items)) + 4}
	err := d.isolate(ctx, of, data, &s)
	if consumererror.IsPermanent(err) && items > 1 {
		d.barren = !s.taken
	}
	return err
}

// search is for what is refused of a batch.
type search struct {
	requests int  // that may still be made
	patience int  // how many may be refused in a row, or else it is not what is in them
	refused  int  // in a row
	taken    bool // was anything
}

// isolate filters and sends data. If it is refused for good, the halves are sent, and so on until what is refused is found. It does
// not try that where it has not helped the last time: the backend may refuse whatever comes. The error is permanent if anything was
// refused and all else taken.
func (d *delivery[B]) isolate(ctx context.Context, of []streamid.TenantKey, data B, s *search) error {
	held := d.filter(ctx, of, data)
	items, heldItems := d.signal.items(data), d.signal.items(held.data)
	err := d.try(ctx, data)
	switch {
	case err == nil:
		s.refused, s.taken = 0, s.taken || items > 0
		d.overtaken(ctx, held, nil)
		return nil
	case !consumererror.IsPermanent(err):
		d.shared.unsent(ctx, items, err)
		d.overtaken(ctx, held, err)
		return err
	}
	if s.refused++; items+heldItems == 1 || s.requests < 2 || s.refused > s.patience || d.barren {
		d.shared.refused(ctx, items+heldItems, err)
		return err
	}
	s.requests -= 2
	later := d.signal.empty()
	if items > 1 {
		data = d.writable(data)
		later = d.signal.halve(data)
		err = d.isolate(ctx, of, data, s)
	} else {
		d.shared.refused(ctx, items, err)
	}
	d.signal.append(held.data, later)
	if err != nil && !consumererror.IsPermanent(err) {
		d.shared.unsent(ctx, d.signal.items(later), err) // it must not overtake
		return err
	}
	if errLater := d.isolate(ctx, of, later, s); errLater != nil {
		err = errLater
	}
	return err
}

// held is what the guard holds of a batch: late if the rest is taken.
type held[B batch] struct {
	data B
	as   verdicts
}

// filter drops what is late, and counts it.
func (d *delivery[B]) filter(ctx context.Context, of []streamid.TenantKey, data B) held[B] {
	if d.guard == nil {
		return held[B]{data: d.signal.empty()}
	}
	dropped, data, as := d.signal.guard(d.guard, of, data)
	d.shared.dropped(ctx, dropped)
	return held[B]{data, as}
}

// overtaken counts what was held of a batch, after a request for the rest that was not refused for good.
func (d *delivery[B]) overtaken(ctx context.Context, h held[B], err error) {
	if err == nil {
		d.shared.dropped(ctx, h.as)
		return
	}
	if n := d.signal.items(h.data); n > 0 {
		d.shared.unsent(ctx, n, err)
	}
}

// try sends filtered data, again and again until it is taken, refused for good or not worth another attempt.
func (d *delivery[B]) try(ctx context.Context, data B) error {
	items := d.signal.items(data)
	if items == 0 {
		return nil
	}
	err := d.givenUp
	if err == nil && !d.early {
		err = d.retries.consume(ctx, data)
	}
	left := ctx.Err() != nil && d.shared.aborted.Err() == nil // nobody waits for it any more
	if d.givenUp == nil && (d.early || err != nil && !consumererror.IsPermanent(err) && !left && d.shared.stopping()) {
		// No other attempts, or each batch would wait for its own timeout.
		if d.givenUp = err; d.shared.onDisk {
			d.givenUp = d.keep.consume(context.Background(), d.signal.empty())
		}
		err = d.givenUp
	}
	if err == nil {
		d.shared.sent(ctx, items)
		d.barren = false
		if d.guard != nil {
			d.guard.done()
		}
		return nil
	}
	if d.guard != nil {
		d.guard.undo()
	}
	return err
}

// attempt sends data once.
func (d *delivery[B]) attempt(ctx context.Context, data B) error {
	d.shared.tel.request(ctx, d.signal.items(data))
	if d.mutates {
		data = d.signal.copy(data)
	}
	began := time.Now()
	err := d.next(ctx, data)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx) // some exporters call that permanent
	}
	d.shared.tel.attempt(ctx, time.Since(began), err)
	if trouble := err != nil && !consumererror.IsPermanent(err); trouble != d.stuck {
		d.stuck = trouble
		d.shared.trouble(trouble, err)
	}
	return err
}

func (d *delivery[B]) sweep() {
	if d.guard != nil {
		d.guard.sent.sweep()
		d.streams.Store(int64(d.known()))
	}
}

// end forgets all: lanes of an earlier run end long before the connector.
func (d *delivery[B]) end() {
	if d.stuck {
		d.shared.stuck.Add(-1)
	}
	d.guard = nil
	d.streams.Store(0)
}

// known returns of how many streams the guard knows anything.
func (d *delivery[B]) known() int {
	if d.guard == nil {
		return 0
	}
	return d.guard.sent.streams
}
