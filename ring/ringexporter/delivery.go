// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/exporter/exporterhelper"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/deltaring/deltaring/internal/told"
)

// build returns the exporter: exporterhelper's queue, if it is configured, and its retries, in front of attempt. They are two
// of its exporters, because only between them can be seen what became of a batch in the end.
func (e *ringExporter[B]) build(ctx context.Context) (running[B], error) {
	inner := e.set // quiet: the outer one counts, traces and logs the same
	inner.Logger = inner.Logger.WithOptions(zap.WrapCore(func(c zapcore.Core) zapcore.Core { return reportedCore{c} }))
	inner.MeterProvider, inner.TracerProvider = metricnoop.NewMeterProvider(), tracenoop.NewTracerProvider()
	var err error
	e.retries, err = e.signal.queue(ctx, inner, e.cfg, e.attempt,
		exporterhelper.WithTimeout(e.cfg.TimeoutConfig),
		exporterhelper.WithRetry(e.cfg.RetryConfig)) // it tries again only the data that an error of attempt carries
	if err != nil {
		return running[B]{}, err
	}
	outer, err := e.signal.queue(ctx, e.set, e.cfg, e.deliver,
		exporterhelper.WithCapabilities(consumer.Capabilities{MutatesData: true}), // splitting moves it
		exporterhelper.WithTimeout(exporterhelper.TimeoutConfig{}),
		exporterhelper.WithQueue(apartBy(e.shared.tenants, e.cfg.QueueConfig)),
		exporterhelper.WithStart(e.start),
		exporterhelper.WithShutdown(e.shutdown))
	if err != nil {
		return running[B]{}, err
	}
	return running[B]{stoppable{outer.Component, func(ctx context.Context) error { return e.stop(ctx, outer) }}, func(ctx context.Context, data B) error {
		return toSender(outer.consume(ctx, data))
	}}, nil
}

// toSender is an error of members without their names, addresses and words, which are in the log: a receiver passes it to whoever sent the data.
func toSender(err error) error {
	switch {
	case err == nil, errors.As(err, new(unsendable)):
		return err
	case errors.Is(err, errNoMembers):
		return told.Sender(err, "ring: no workers are known yet; send the data again")
	case consumererror.IsPermanent(err):
		return told.Sender(err, "ring: a worker refused data for good")
	}
	return told.Sender(err, "ring: workers did not take all of the data; send it again")
}

// stoppable is a component that is shut down differently.
type stoppable struct {
	component.Component
	stop func(context.Context) error
}

func (s stoppable) Shutdown(ctx context.Context) error { return s.stop(ctx) }

// tally is what became of a batch over all attempts to deliver it.
type tally[B batch] struct {
	refused  []error            // permanent
	unsent   map[*member[B]]int // items, after the last attempt
	homeless int                // items for which no members were known, after the last attempt
}

type tallyKey struct{}

// deliver hands a batch over and returns when it is clear what became of it.
func (e *ringExporter[B]) deliver(ctx context.Context, data B) error {
	t := &tally[B]{}
	err := e.retries.consume(context.WithValue(ctx, tallyKey{}, t), data)
	refused := errors.Join(t.refused...)
	if err == nil || consumererror.IsPermanent(err) {
		if refused == nil {
			return err
		}
		return refused
	}
	queue := e.cfg.QueueConfig
	switch {
	case queue.HasValue() && queue.Get().StorageID != nil && interrupted(err):
		// Stays in the queue, on disk.
	case queue.HasValue() && !queue.Get().WaitForResult:
		for m, items := range t.unsent {
			m.failed(ctx, items)
		}
		e.nobody.failed(ctx, t.homeless)
		e.shared.losses.add("", t.homeless)
	default:
		for m, items := range t.unsent {
			m.count.returned(ctx, items)
		}
		e.nobody.returned(ctx, t.homeless)
	}
	if refused != nil {
		err = fmt.Errorf("%w; and for good: %v", err, refused) // not wrapped, or the rest would not be tried again
	}
	return err
}

// interrupted reports whether retries ended because of the shutdown. Queues on disk keep such data; exporterhelper has no
// exported way to ask. What a member says comes after other words: it may be a Collector that stops.
func interrupted(err error) bool {
	return strings.HasPrefix(err.Error(), "interrupted due to shutdown")
}

// attempt is consume for deliver.
func (e *ringExporter[B]) attempt(ctx context.Context, data B) error {
	return e.hand(ctx, data, ctx.Value(tallyKey{}).(*tally[B]), false)
}

// losses counts the items that are lost while the exporter stops, by member.
type losses struct {
	mu       sync.Mutex
	stopping bool
	items    map[string]int
}

func (l *losses) add(member string, items int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopping && items > 0 {
		l.items[member] += items
	}
}

func (l *losses) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopping, l.items = true, map[string]int{}
}

// total returns the number of items lost since begin, and describes them.
func (l *losses) total() (int, string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	total := 0
	var all []string
	for _, member := range slices.Sorted(maps.Keys(l.items)) {
		total += l.items[member]
		all = append(all, fmt.Sprintf("%q: %d", member, l.items[member]))
	}
	return total, strings.Join(all, ", ")
}

// stop sends what is in the queues, each batch once, and stops everything. When ctx ends, it gives up what is not sent by
// then. What is lost is counted, logged, and in the error if ctx is to blame.
func (e *ringExporter[B]) stop(ctx context.Context, outer component.Component) error {
	e.shared.losses.begin()
	// Now: what is in the queue before splitting may wait for that of a member.
	close(e.shared.closing)
	defer context.AfterFunc(ctx, e.shared.abort)()
	// In this order, or a batch in the queue would be tried again and again.
	err := errors.Join(e.retries.Shutdown(ctx), outer.Shutdown(ctx))
	total, by := e.shared.losses.total()
	if total > 0 {
		e.set.Logger.Error("data was lost at shutdown", zap.Int("items", total), zap.String("by_member", by))
	}
	if ctx.Err() != nil {
		err = errors.Join(fmt.Errorf("shutting down: %w: lost %d items (%s)", context.Cause(ctx), total, by), err)
	}
	return err
}

// reportedCore keeps exporterhelper from logging an error that the one in front of it logs as well.
type reportedCore struct{ zapcore.Core }

func (c reportedCore) With(fields []zapcore.Field) zapcore.Core {
	return reportedCore{c.Core.With(fields)}
}

func (c reportedCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if e.Level == zapcore.ErrorLevel {
		return ce
	}
	return c.Core.Check(e, ce)
}
