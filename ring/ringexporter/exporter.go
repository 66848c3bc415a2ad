// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/exporter"
	"go.uber.org/zap"

	"github.com/deltaring/deltaring/ring"
	"github.com/deltaring/deltaring/ring/resolve"
	"github.com/deltaring/deltaring/streamid"
)

// ringExporter splits batches of one signal among members.
type ringExporter[B batch] struct {
	signal   *signal[B]
	cfg      *Config
	set      exporter.Settings
	splitter streamid.Splitter
	tel      *telemetry
	host     component.Host
	shared   shared[B]
	retries  running[B]      // around attempt
	nobody   memberTelemetry // for items that no member is known for
	routing  uint64          // see routingOf

	// parallel hands the parts of a batch over at the same time, because each takes as long as its member does. No stream is
	// in two parts, so this changes no order. Queues take over at once and need no goroutines.
	parallel bool

	// handover bounds waiting for streams that move; zero if nothing waits. See handOver.
	handover time.Duration

	current    atomic.Pointer[view[B]] // nil before the first members are known
	tenantless atomic.Bool             // a batch had none of metadata_keys

	// Only one goroutine changes current at a time: the one that holds ejector.mu, and shutdown once following is over.
	ejector   *ejector[B]
	following sync.WaitGroup
	cancel    context.CancelFunc
	retiring  sync.WaitGroup
}

var errNoMembers = errors.New("no members are known yet")

func newExporter[B batch](set exporter.Settings, cfg *Config, sig *signal[B]) (*ringExporter[B], error) {
	key, err := cfg.key()
	if err != nil {
		return nil, err
	}
	if err := key.Check(sig.id); err != nil {
		return nil, fmt.Errorf("routing_key: %w", err)
	}
	tenants, err := metadataKeys(cfg.MetadataKeys)
	if err != nil {
		return nil, err
	}
	tel, err := newTelemetry(set, sig.id)
	if err != nil {
		return nil, err
	}
	e := &ringExporter[B]{signal: sig, cfg: cfg, set: set, tel: tel, parallel: true}
	e.splitter.Key, e.splitter.Seed = key, streamid.Seed(cfg.Seed)
	e.nobody, e.routing = tel.member(""), routingOf(cfg, key, tenants)
	e.shared = shared[B]{closing: make(chan struct{}), reroute: e.reroute, requestBytes: cfg.MaxRequestBytes, tenants: tenants, logger: set.Logger, losses: &losses{}}
	e.ejector = newEjector(e)
	e.shared.ejector = e.ejector
	e.shared.aborted, e.shared.abort = context.WithCancel(context.Background())
	if q := cfg.Protocol.OTLP.QueueConfig; q.HasValue() {
		e.parallel = q.Get().WaitForResult || q.Get().BlockOnOverflow
		if sig.handsOver && inOrder(q.Get()) {
			e.handover = cfg.HandoverTimeout
		}
	}
	return e, nil
}

func (e *ringExporter[B]) start(ctx context.Context, host component.Host) error {
	e.host = host
	e.shared.health = newHealth(host)
	e.warnOfDisorder()
	e.warnOfIgnored()
	if err := e.tel.observe(e.ring, e.epoch, e.ejector.ejected.Load); err != nil {
		return err
	}
	var r resolve.Resolver
	if static := e.cfg.Resolver.Static; static.HasValue() {
		list, err := static.Get().members()
		if err != nil {
			return err
		}
		if err := e.ejector.resolved(ctx, endpointsOf(list)); err != nil {
			return err
		}
	} else {
		var err error
		if r, err = e.cfg.Resolver.resolver(ctx); err != nil {
			return err
		}
	}
	ctx, e.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if r.Source != nil {
		e.following.Go(func() { e.follow(ctx, r) })
	}
	if e.cfg.Eject.HasValue() {
		e.following.Go(func() { e.ejector.watch(ctx) })
	}
	return nil
}

// warnOfDisorder warns of settings that let batches of one stream overtake each other, always or when the stream moves.
func (e *ringExporter[B]) warnOfDisorder() {
	warn := func(key string) {
		e.set.Logger.Warn("more than one consumer takes batches out of a queue, so streams do not stay in order", zap.String("key", key))
	}
	if q := e.cfg.QueueConfig; q.HasValue() && q.Get().NumConsumers > 1 {
		warn("sending_queue::num_consumers")
	}
	if q := e.cfg.Protocol.OTLP.QueueConfig; q.HasValue() && q.Get().NumConsumers > 1 {
		warn("protocol::otlp::sending_queue::num_consumers")
	}
	if q := e.cfg.Protocol.OTLP.QueueConfig; e.signal.handsOver && e.cfg.HandoverTimeout > 0 && q.HasValue() && q.Get().Batch.HasValue() {
		e.set.Logger.Warn("protocol::otlp::sending_queue::batch lets what comes out of a queue overtake what came before, so handover_timeout " +
			"has no effect; set max_request_bytes in its place, or handover_timeout to 0s")
	}
}

// ring returns the current ring, or nil.
func (e *ringExporter[B]) ring() *ring.Ring {
	if v := e.current.Load(); v != nil {
		return v.ring
	}
	return nil
}

// epoch is equal as long as data is routed in the same way by the same ring.
func (e *ringExporter[B]) epoch(r *ring.Ring) uint64 { return r.Epoch() ^ e.routing }

// acquire returns the current view, to be released, or nil if there is none.
func (e *ringExporter[B]) acquire() *view[B] {
	for {
		v := e.current.Load()
		if v == nil || v.acquire() {
			return v
		}
	}
}

// consume hands each part of a batch to its owner. If some parts could not be handed over, the error holds exactly their data,
// and the rest is taken over; if the error is permanent, that data is dropped.
func (e *ringExporter[B]) consume(ctx context.Context, data B) error {
	return e.hand(ctx, data, nil, false)
}

// reroute is consume for what a member that left has not taken. It passes by the queues of the others, so that it arrives before
// what was routed there since, and needs no room in them.
func (e *ringExporter[B]) reroute(ctx context.Context, data B) error {
	return e.hand(ctx, data, nil, true)
}

// hand is consume that notes in t, if there is one, what was refused for good and what was not taken over; past queues if it is to.
func (e *ringExporter[B]) hand(ctx context.Context, data B, t *tally[B], past bool) error {
	of := e.shared.tenants.Of(ctx)
	if of == nil && len(e.shared.tenants) > 0 && !e.tenantless.Load() && !e.tenantless.Swap(true) {
		e.set.Logger.Warn("a batch has none of metadata_keys, so it is routed and sent on as that of nobody in particular: " +
			"if it has a tenant, set include_metadata in the receiver, and metadata_keys in whatever collects batches on the way")
	}
	if err := sendable(of); err != nil {
		err = consumererror.NewPermanent(err)
		e.nobody.refused(ctx, e.signal.items(data))
		if t != nil {
			t.refused = append(t.refused, err)
			t.unsent, t.homeless = nil, 0
		}
		return err
	}
	v := e.acquire()
	if v == nil {
		if t != nil && len(t.unsent) == 0 { // else the exporter stops, and a member has not taken it
			t.homeless = e.signal.items(data)
		}
		e.tel.unroutable(ctx, e.signal.items(data))
		return e.signal.unsent(errNoMembers, data)
	}
	defer v.release()
	if t != nil {
		t.unsent, t.homeless = map[*member[B]]int{}, 0
	}
	if e.handover > 0 && !past {
		v.await(ctx, e.shared.closing)
	}

	parts, keyless := e.signal.split(&e.splitter, of, data, len(v.members), v.ring.Owner, nil)
	e.tel.keyless(ctx, keyless)
	errs := make([]error, len(parts))
	ctx = withTerm(ctx, v.term)
	give := func(i int) {
		switch owner := parts[i].Owner; {
		case past:
			errs[i] = v.members[owner].send(ctx, parts[i].Batch)
		case e.handover > 0:
			errs[i] = v.consume(ctx, owner, parts[i].Batch)
		default:
			errs[i] = v.members[owner].consume(ctx, parts[i].Batch)
		}
	}
	var wg sync.WaitGroup
	for i := range parts {
		if (e.parallel || past) && i < len(parts)-1 {
			wg.Go(func() { give(i) })
		} else {
			give(i)
		}
	}
	wg.Wait()
	return e.join(v, parts, errs, t)
}

// join makes one error of the errors of all parts.
func (e *ringExporter[B]) join(v *view[B], parts []streamid.Part[B], errs []error, t *tally[B]) error {
	var temporary, permanent []error
	var unsent B
	for i, err := range errs {
		switch {
		case err == nil:
			continue
		case consumererror.IsPermanent(err):
			permanent = append(permanent, err)
			continue
		}
		rest, ok := e.signal.rest(err)
		if !ok {
			rest = parts[i].Batch
		}
		if t != nil {
			t.unsent[v.members[parts[i].Owner]] += e.signal.items(rest)
		}
		if temporary == nil {
			unsent = rest
		} else {
			e.signal.move(rest, unsent)
		}
		temporary = append(temporary, err)
	}
	refused := errors.Join(permanent...)
	if t != nil {
		t.refused = append(t.refused, permanent...)
	}
	if temporary == nil {
		return refused
	}
	err := errors.Join(temporary...)
	if refused != nil && t == nil {
		err = fmt.Errorf("%w; and for good: %v", err, refused) // not wrapped, or the rest would not be tried again
	}
	return e.signal.unsent(err, unsent)
}

// apply makes list the members. If that fails, everything stays as it is.
func (e *ringExporter[B]) apply(ctx context.Context, list []endpoint) error {
	endpoints := make(map[string]endpoint, len(list))
	members := make([]ring.Member, len(list))
	for i, p := range list {
		endpoints[p.Name], members[i] = p, p.Member
	}
	r, err := ring.New(members, e.cfg.ringOptions()...)
	if err != nil {
		return err
	}
	old, next := e.current.Load(), newView[B](r)
	var started []*member[B]
	for i, rm := range r.Members() {
		p := endpoints[rm.Name]
		m := old.byName(p.Name)
		if m == nil || m.address != p.address {
			m, err = startMember(ctx, e.host, e.set, e.cfg.Protocol.OTLP, p, e.signal, &e.shared, e.tel)
			if err != nil {
				return errors.Join(err, shutdownAll(ctx, started))
			}
			started = append(started, m)
		}
		next.members[i] = m
	}
	var before term
	if old != nil {
		before = old.term
	}
	next.term = before.next(e.epoch(r), time.Now().UnixMilli())
	plan := e.announce(ctx, old, next)
	if old != nil && e.handover > 0 {
		e.handOver(old, next, plan)
	}
	e.current.Store(next)
	if old != nil {
		e.retire(old, next)
	} else {
		close(next.settled) // there is none before; see retire
		close(next.past)
	}
	return nil
}

// announce logs and counts a change of the members, and returns what it moves, nil if they are the first.
func (e *ringExporter[B]) announce(ctx context.Context, old, next *view[B]) *ring.Plan {
	epoch := zap.Uint64("epoch", e.epoch(next.ring)>>11) // as in the metric
	if old == nil {
		e.tel.changed(ctx, nil)
		e.set.Logger.Info("members are known", zap.Strings("members", names(next)), epoch)
		return nil
	}
	plan := ring.Diff(old.ring, next.ring)
	e.tel.changed(ctx, plan)
	var moved []string // of address
	for _, m := range next.members {
		if was := old.byName(m.Name); was != nil && was != m {
			moved = append(moved, m.Name)
		}
	}
	e.set.Logger.Info("members changed",
		zap.Strings("joined", lacking(next, old)),
		zap.Strings("left", lacking(old, next)),
		zap.Strings("readdressed", moved),
		zap.Int("members", len(next.members)),
		zap.Float64("moved", plan.Share()),
		zap.Float64("moved_to_minimum", plan.Ratio()),
		epoch)
	return plan
}

func names[B batch](v *view[B]) []string {
	all := make([]string, len(v.members))
	for i, m := range v.members {
		all[i] = m.Name
	}
	return all
}

// lacking returns the names in v that other does not hold.
func lacking[B batch](v, other *view[B]) []string {
	return slices.DeleteFunc(names(v), func(name string) bool { return other.byName(name) != nil })
}

// retire shuts down the members of old that next does not have, when no batch is on its way to them.
func (e *ringExporter[B]) retire(old, next *view[B]) {
	var gone []*member[B]
	for _, m := range old.members {
		if next.byName(m.Name) != m {
			m.leave() // first: a batch may be waiting for room in its queue
			gone = append(gone, m)
		}
	}
	old.release()
	e.retiring.Go(func() {
		<-old.settled
		<-old.drained
		close(next.settled)
		// The context of the change would not do: it may end long before the queues are empty.
		if err := shutdownAll(context.Background(), gone); err != nil {
			e.set.Logger.Error("shutting down members that left", zap.Error(err))
		}
	})
}

func shutdownAll[B batch](ctx context.Context, members []*member[B]) error {
	errs := make([]error, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		wg.Go(func() { errs[i] = m.shutdown(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// shutdown sends what is in the members' queues, each batch once, and stops everything; see stop.
func (e *ringExporter[B]) shutdown(ctx context.Context) error {
	defer e.shared.abort() // frees the context
	if e.host == nil {
		e.tel.shutdown()
		return nil // not started
	}
	if e.cancel != nil {
		e.cancel()
	}
	e.following.Wait()
	e.shared.health.close()
	e.retiring.Wait() // before the members to which they may reroute
	var err error
	if v := e.current.Swap(nil); v != nil {
		v.release()
		<-v.drained
		err = shutdownAll(ctx, v.members)
	}
	e.tel.shutdown()
	return err
}
