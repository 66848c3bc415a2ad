// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package lanesconnector

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"go.opentelemetry.io/collector/client"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/connector"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/extension/xextension/storage"
	"go.uber.org/zap"

	"github.com/deltaring/deltaring/internal/aggregate"
	"github.com/deltaring/deltaring/internal/tenant"
	"github.com/deltaring/deltaring/streamid"
)

// lanesConnector splits batches of one signal among lanes.
type lanesConnector[B batch] struct {
	signal  *signal[B]
	cfg     *Config
	set     connector.Settings
	next    consumeFunc[B]
	behind  behind // next, to look at
	tenants tenant.Keys
	key     streamid.Key
	shared  *shared

	roads    []*road[B]     // nil until start; data goes to the last
	stopped  sync.Once      // the Collector shuts down also what could not start
	draining sync.WaitGroup // of those before the last
	disk     storage.Client // nil without queues on disk
}

func newConnector[B batch](set connector.Settings, cfg *Config, sig *signal[B], next consumeFunc[B], b behind) (*lanesConnector[B], error) {
	name := cfg.RoutingKey
	if name == "" {
		name = sig.key
	}
	key, err := aggregate.Key(name, cfg.RoutingAttributes, cfg.Aggregate)
	if err != nil {
		return nil, err
	}
	if err := key.Check(sig.id); err != nil {
		return nil, fmt.Errorf("routing_key: %w", err)
	}
	tenants, err := tenant.ParseKeys(cfg.MetadataKeys)
	if err != nil {
		return nil, fmt.Errorf("metadata_keys::%w", err)
	}
	tel, err := newTelemetry(set, sig.id)
	if err != nil {
		return nil, err
	}
	return &lanesConnector[B]{
		signal: sig, cfg: cfg, set: set, next: next, behind: b, tenants: tenants, key: key,
		shared: newShared(tel, set.Logger, cfg.QueueConfig),
	}, nil
}

func (c *lanesConnector[B]) running() running[B] { return running[B]{c, c.consume} }

// Start implements component.Component.
func (c *lanesConnector[B]) Start(ctx context.Context, host component.Host) error {
	warnOfQueues(c.set.Logger, c.behind)
	var err error
	if c.roads, err = c.lay(ctx, host); err != nil {
		return errors.Join(err, c.Shutdown(ctx))
	}
	return c.shared.tel.observe(
		c.shared.waiting.Load,
		func() int64 { return c.sum(func(l *lane[B]) int64 { return l.delivery.streams.Load() }) },
		c.shared.stuck.Load)
}

func (c *lanesConnector[B]) sum(of func(*lane[B]) int64) (n int64) {
	for _, r := range c.roads {
		for _, l := range r.lanes {
			n += of(l)
		}
	}
	return n
}

var (
	errStopping = errors.New("the Collector stops")
	errFull     = errors.New("too much waits in the lanes, see max_waiting_items: try again later")
)

// consume returns when all of a batch was taken over, or it is clear that some of it will not be: by whatever is behind the lanes
// or, where there are queues, by these. The error is permanent if what was not taken is dropped.
func (c *lanesConnector[B]) consume(ctx context.Context, data B) error {
	c.shared.giving.RLock()
	handed := sync.OnceFunc(c.shared.giving.RUnlock)
	defer handed()
	switch {
	case c.shared.stopping():
		return c.hand(ctx, data, errStopping)
	case c.shared.waiting.Load() >= int64(c.cfg.MaxWaitingItems):
		return c.hand(ctx, data, errFull)
	}
	road := c.roads[len(c.roads)-1]
	of := c.tenants.Of(ctx)
	mine := c.signal.empty() // the Collector may free data when this returns, also where nobody waits for the lanes
	c.signal.append(data, mine)
	parts := road.split(of, mine)
	if road.queues == nil {
		waiting := make([]*given[B], len(parts))
		for i, p := range parts {
			waiting[i] = road.lanes[p.Owner].give(of, p.Batch)
		}
		handed()
		errs := make([]error, len(parts))
		for i, p := range parts {
			errs[i] = road.lanes[p.Owner].await(ctx, waiting[i])
		}
		return join(errs)
	}
	errs := make([]error, len(parts))
	into, cancel := c.shared.untilClosing(ctx) // queues do not end waiting for room by themselves
	defer cancel()
	var wg sync.WaitGroup
	for i, p := range parts {
		// At the same time, as one that is full must not hold up the others.
		wg.Go(func() {
			items := c.signal.items(p.Batch)
			errs[i] = c.enqueue(into, road, p.Owner, p.Batch)
			if errs[i] == nil {
				return
			}
			if into.Err() != nil {
				errs[i] = context.Cause(into)
			}
			c.shared.tel.items(ctx, items, c.shared.tel.returned) // it is not in the queue
		})
	}
	wg.Wait()
	return join(errs)
}

// hand hands data back.
func (c *lanesConnector[B]) hand(ctx context.Context, data B, err error) error {
	c.shared.tel.items(ctx, c.signal.items(data), c.shared.tel.returned)
	return err
}

// join makes one error of those of all parts. It is permanent if all of them are, or else what is worth another attempt would not
// get it.
func join(errs []error) error {
	var temporary, refused []error
	known := map[string]bool{}
	for _, err := range errs {
		if err == nil || known[err.Error()] {
			continue
		}
		known[err.Error()] = true
		if consumererror.IsPermanent(err) {
			refused = append(refused, err)
		} else {
			temporary = append(temporary, err)
		}
	}
	switch {
	case refused == nil && temporary == nil:
		return nil
	case refused == nil:
		return whole{all(temporary)}
	case temporary == nil:
		return whole{all(refused)}
	}
	return whole{fmt.Errorf("%w; and for good: %v", all(temporary), all(refused))} // not wrapped
}

func all(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}

// whole is an error about all of a batch. What is behind the lanes may return, in its error, the part of a request that it has not
// taken. That is neither all that is left of the batch, which other lanes have parts of, nor only of this batch. Who would send
// just that again would lose the rest.
type whole struct{ error }

// Is makes whole like the error in it.
func (w whole) Is(target error) bool { return errors.Is(w.error, target) }

// As makes whole like the error in it, but for the part.
func (w whole) As(target any) bool {
	switch target.(type) {
	case *consumererror.Metrics, *consumererror.Traces, *consumererror.Logs:
		return false
	}
	return errors.As(w.error, target)
}

// Shutdown implements component.Component. It sends what waits, once, and stops everything. When ctx ends it gives up what is not
// sent by then. What is lost is counted, logged, and in the error if ctx is to blame.
func (c *lanesConnector[B]) Shutdown(ctx context.Context) (err error) {
	c.stopped.Do(func() { err = c.stop(ctx) })
	return err
}

func (c *lanesConnector[B]) stop(ctx context.Context) error {
	defer c.shared.abort() // frees the context
	c.shared.close()
	defer context.AfterFunc(ctx, c.shared.abort)()
	var wg sync.WaitGroup
	errs := make([]error, len(c.roads))
	for i, r := range c.roads {
		wg.Go(func() { errs[i] = r.shutdown(ctx) })
	}
	wg.Wait()
	c.draining.Wait()
	err := errors.Join(errs...)
	if c.disk != nil {
		err = errors.Join(err, c.disk.Close(ctx))
	}
	c.shared.tel.shutdown()
	lost := c.shared.losses.Load()
	if lost > 0 {
		c.set.Logger.Error("data was lost at shutdown", zap.Int64("items", lost))
	}
	if ctx.Err() != nil {
		err = errors.Join(fmt.Errorf("shutting down: %w: lost %d items", context.Cause(ctx), lost), err)
	}
	return err
}

// contextOf returns a context for requests of a tenant, and of nobody else who has sent anything in them.
func contextOf(ctx context.Context, of []streamid.TenantKey) context.Context {
	if of == nil {
		return ctx
	}
	all := make(map[string][]string, len(of))
	for _, key := range of {
		all[key.Name] = key.Values
	}
	return client.NewContext(ctx, client.Info{Metadata: client.NewMetadata(all)})
}

// tenantText is equal for equal tenants.
func tenantText(of []streamid.TenantKey) string {
	if of == nil {
		return ""
	}
	var b strings.Builder
	for _, key := range of {
		fmt.Fprintf(&b, "%q%q", key.Name, key.Values)
	}
	return b.String()
}
