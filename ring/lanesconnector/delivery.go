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
	mutates bool       // next changes what it gets, which may have to be sent again
	retries running[B] // around attempt

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
	if len(batches) == 1 {
		batches[0].taken <- d.send(ctx, batches[0].tenant, batches[0].data)
		return
	}
	all, resources := d.signal.empty(), make([]int, len(batches))
	for i, g := range batches {
		d.filter(ctx, g.tenant, g.data)
		resources[i] = d.signal.resources(g.data)
		d.signal.append(g.data, all)
	}
	err := d.try(ctx, all)
	if !consumererror.IsPermanent(err) {
		if err != nil {
			d.shared.unsent(ctx, d.signal.items(all), err)
		}
		for _, g := range batches {
			g.taken <- err
		}
		return
	}
	// One of them is to blame; the others must not suffer for it.
	for i, data := range d.apart(all, resources) {
		batches[i].taken <- d.send(ctx, batches[i].tenant, data)
	}
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

// send sends one batch.
func (d *delivery[B]) send(ctx context.Context, of []streamid.TenantKey, data B) error {
	d.filter(ctx, of, data)
	items := d.signal.items(data)
	halvings := bits.Len(uint(items))
	// An item is found with two requests for each halving. With four times as many, several are.
	s := search{requests: 8 * halvings, patience: halvings + 4}
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

// isolate sends data that is filtered. If it is refused for good, the halves are sent, and so on until what is refused is found. It
// does not try that where it has not helped the last time: the backend may refuse whatever comes. The error is permanent if
// anything was refused and all else taken.
func (d *delivery[B]) isolate(ctx context.Context, of []streamid.TenantKey, data B, s *search) error {
	items := d.signal.items(data)
	err := d.try(ctx, data)
	switch {
	case err == nil:
		s.refused, s.taken = 0, s.taken || items > 0
		return nil
	case !consumererror.IsPermanent(err):
		d.shared.unsent(ctx, items, err)
		return err
	}
	if s.refused++; items <= 1 || s.requests < 2 || s.refused > s.patience || d.barren {
		d.shared.refused(ctx, items, err)
		return err
	}
	s.requests -= 2
	later := d.signal.halve(data)
	d.filter(ctx, of, data)
	err = d.isolate(ctx, of, data, s)
	if err != nil && !consumererror.IsPermanent(err) {
		d.shared.unsent(ctx, d.signal.items(later), err) // it must not overtake
		return err
	}
	d.filter(ctx, of, later)
	if errLater := d.isolate(ctx, of, later, s); errLater != nil {
		err = errLater
	}
	return err
}

// filter drops what is late, and counts it.
func (d *delivery[B]) filter(ctx context.Context, of []streamid.TenantKey, data B) {
	if d.guard != nil {
		d.shared.dropped(ctx, d.signal.guard(d.guard, of, data))
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
	if d.givenUp == nil && (d.early || err != nil && !consumererror.IsPermanent(err) && d.shared.stopping()) {
		// No other attempts, or each batch would wait for its own timeout.
		if d.givenUp = err; d.shared.onDisk {
			// A queue on disk keeps only what the retries themselves say was interrupted.
			d.early = true
			d.givenUp = d.retries.consume(context.Background(), data)
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
	if d.early {
		return errStopping
	}
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

// known returns of how many streams the guard knows anything.
func (d *delivery[B]) known() int {
	if d.guard == nil {
		return 0
	}
	return d.guard.sent.streams
}
