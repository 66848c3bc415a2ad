// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package lanesconnector

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strings"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/config/configretry"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/exporterhelper"
	"go.opentelemetry.io/collector/featuregate"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/zap"

	"github.com/deltaring/deltaring/streamid"
)

// road is lanes next to each other, and the queues in front of them if there are any.
type road[B batch] struct {
	layout   layout
	signal   *signal[B]
	splitter streamid.Splitter
	lanes    []*lane[B]
	queues   []running[B]
	failed   []atomic.Bool // of a queue: it could not write
	loops    sync.WaitGroup
	mark     string          // that drain puts at the end of all queues; see unmark
	marks    []chan struct{} // of a lane in which it has come out again, has an element
	closed   sync.Once
	err      error // of closing
}

// newRoad starts a road. Its lanes send nothing before open is closed. An old one has what an earlier run has left.
func (c *lanesConnector[B]) newRoad(ctx context.Context, host component.Host, of layout, open <-chan struct{}, old bool) (*road[B], error) {
	r := &road[B]{layout: of, signal: c.signal, mark: of.marks() + rand.Text()}
	r.splitter.Key, r.splitter.Seed = c.key, streamid.Seed(of.Seed)
	for i := range of.Lanes {
		l, err := c.newLane(ctx, r, fmt.Sprintf("%s%d", of.prefix(), i))
		if err != nil {
			return r, err
		}
		r.lanes = append(r.lanes, l)
		r.loops.Go(func() { l.run(open) })
	}
	if !c.cfg.QueueConfig.HasValue() {
		return r, nil
	}
	r.failed = make([]atomic.Bool, of.Lanes)
	for range r.lanes {
		r.marks = append(r.marks, make(chan struct{}, 1))
	}
	for i := range r.lanes {
		q, err := c.newQueue(ctx, host, fmt.Sprintf("%s%d", of.prefix(), i), r, i, old)
		if err != nil {
			return r, err
		}
		r.queues = append(r.queues, q)
	}
	return r, nil
}

// settings are those of an exporter within the connector. No two components may have one, as it labels their telemetry and names their files.
func (c *lanesConnector[B]) settings(name string) exporter.Settings {
	id := component.NewIDWithName(c.set.ID.Type(), strings.TrimPrefix(c.set.ID.Name()+"/"+name, "/"))
	return exporter.Settings{ID: id, TelemetrySettings: c.set.TelemetrySettings, BuildInfo: c.set.BuildInfo}
}

func (c *lanesConnector[B]) newLane(ctx context.Context, r *road[B], name string) (*lane[B], error) {
	d := &delivery[B]{signal: c.signal, shared: c.shared, next: c.next, mutates: c.behind.Capabilities().MutatesData || pooled()}
	if c.signal.guard != nil && c.cfg.Late == lateDrop {
		d.guard = &guard{seed: r.splitter.Seed, limit: max(1, c.cfg.MaxStreams/r.layout.Lanes)}
	}
	set := c.settings(name)
	// What it says is said by the delivery.
	set.Logger, set.MeterProvider, set.TracerProvider = zap.NewNop(), metricnoop.NewMeterProvider(), tracenoop.NewTracerProvider()
	var err error
	d.retries, err = c.signal.queue(ctx, set, c.cfg, d.attempt,
		exporterhelper.WithTimeout(exporterhelper.TimeoutConfig{}), // exporters have their own
		exporterhelper.WithRetry(c.cfg.RetryConfig))
	if err != nil {
		return nil, err
	}
	if c.onDisk() {
		// A queue keeps only what retries were interrupted of, and exporterhelper has no exported error for that. These always are.
		d.keep, err = c.signal.queue(ctx, set, c.cfg, func(context.Context, B) error { return errStopping },
			exporterhelper.WithRetry(configretry.NewDefaultBackOffConfig()))
		if err != nil {
			return nil, err
		}
		if err := d.keep.Shutdown(ctx); err != nil {
			return nil, err
		}
	}
	return &lane[B]{
		signal: c.signal, shared: c.shared, delivery: d, maxItems: c.cfg.MaxRequestItems, sweeps: c.cfg.MaxStale / keepRounds,
		wake: make(chan struct{}, 1),
	}, nil
}

// pooled returns whether the Collector uses the memory of data again that an exporter has returned from, whatever it returned.
func pooled() (enabled bool) {
	featuregate.GlobalRegistry().VisitAll(func(g *featuregate.Gate) {
		enabled = enabled || g.ID() == "pdata.useProtoPooling" && g.IsEnabled()
	})
	return enabled
}

func (c *lanesConnector[B]) newQueue(ctx context.Context, host component.Host, name string, r *road[B], i int, old bool) (running[B], error) {
	q := *c.cfg.QueueConfig.Get()
	switch {
	case !q.Batch.HasValue() || len(c.tenants) == 0:
	case old:
		// The tenants' batches may overtake one another, and the mark, which has no tenant, must come last.
		q.Batch = configoptional.None[exporterhelper.BatchConfig]()
	default:
		parts := *q.Batch.Get()
		parts.Partition.MetadataKeys = c.tenants
		// To make room for another tenant it flushes one, while it has taken the one consumer that there is: it would hang.
		parts.Partition.CacheSize = math.MaxInt32
		q.Batch = configoptional.Some(parts)
	}
	l := r.lanes[i]
	push := func(ctx context.Context, data B) error {
		ended := c.onDisk() && r.unmark(data)
		err := l.await(ctx, l.give(c.tenants.Of(ctx), data))
		if ended && !(err != nil && interrupted(err)) {
			select {
			case r.marks[i] <- struct{}{}:
			default: // there were several
			}
		}
		return err
	}
	set := c.settings(name)
	set.MeterProvider = queueMeters{set.MeterProvider}
	queue, err := c.signal.queue(ctx, set, c.cfg, push,
		exporterhelper.WithTimeout(exporterhelper.TimeoutConfig{}),
		exporterhelper.WithQueue(configoptional.Some(q)))
	if err != nil {
		return running[B]{}, fmt.Errorf("sending_queue: %w", err)
	}
	if err := queue.Start(ctx, host); err != nil {
		return running[B]{}, fmt.Errorf("sending_queue: %w", err)
	}
	return queue, nil
}

// split splits a batch among the lanes.
func (r *road[B]) split(of []streamid.TenantKey, data B) []streamid.Part[B] {
	n := uint64(len(r.lanes))
	lane := func(key uint64) int {
		hi, _ := bits.Mul64(key, n)
		return int(hi)
	}
	return r.signal.split(&r.splitter, of, data, len(r.lanes), lane, nil)
}

// unmark takes marks out of a batch and returns whether the road's own was there. There may be one of an earlier run, which was
// stopped before all was sent. It says nothing: what was under way then comes behind it.
func (r *road[B]) unmark(data B) (own bool) {
	r.signal.take(data, func(place int) bool {
		mark, ok := r.signal.marked(data, place)
		own = own || mark == r.mark
		return ok && strings.HasPrefix(mark, r.layout.marks())
	}, r.signal.empty())
	return own
}

// shutdown sends what is in the queues in memory and what waits, once, and stops.
func (r *road[B]) shutdown(ctx context.Context) error {
	r.closed.Do(func() {
		for _, l := range r.lanes {
			_ = l.delivery.retries.Shutdown(ctx) // from now on there is one attempt
		}
		errs := make([]error, len(r.queues))
		var wg sync.WaitGroup
		for i, q := range r.queues {
			wg.Go(func() { errs[i] = q.Shutdown(ctx) })
		}
		wg.Wait()
		for _, l := range r.lanes {
			l.close()
		}
		r.loops.Wait()
		r.err = errors.Join(errs...)
	})
	return r.err
}
