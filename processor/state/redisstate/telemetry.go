// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redisstate

import (
	"context"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/d2c/store/log"
	"github.com/deltaring/deltaring/d2c/store/redis"
	"github.com/deltaring/deltaring/processor/state/redisstate/internal/metadata"
)

// telemetry counts per batch, with attribute sets made beforehand.
type telemetry struct {
	builder   *metadata.TelemetryBuilder
	extension attribute.KeyValue
}

func newTelemetry(set extension.Settings) (*telemetry, error) {
	builder, err := metadata.NewTelemetryBuilder(set.TelemetrySettings)
	if err != nil {
		return nil, err
	}
	return &telemetry{builder, attribute.String("extension", set.ID.String())}, nil
}

func (t *telemetry) shutdown() { t.builder.Shutdown() }

// processorTelemetry is the part of telemetry for a processor.
type processorTelemetry struct {
	builder                      *metadata.TelemetryBuilder
	plain                        metric.MeasurementOption
	swaps, confirmed, conflicted metric.MeasurementOption
	read                         metric.MeasurementOption
	appended, refused            metric.MeasurementOption
	readTail, readWhole          metric.MeasurementOption
	methods                      map[log.Method]metric.MeasurementOption
	reasons                      map[redis.Reason]metric.MeasurementOption
	failing                      chan<- struct{} // has room for one
}

var _ redis.Observer = (*processorTelemetry)(nil)

func (t *telemetry) observer(processor component.ID, failing chan<- struct{}) *processorTelemetry {
	with := func(more ...attribute.KeyValue) metric.MeasurementOption {
		more = append(more, t.extension, attribute.String("processor", processor.String()))
		return metric.WithAttributeSet(attribute.NewSet(more...))
	}
	o := &processorTelemetry{
		builder:    t.builder,
		plain:      with(),
		swaps:      with(attribute.String("outcome", "swapped")),
		confirmed:  with(attribute.String("outcome", "confirmed")),
		conflicted: with(attribute.String("outcome", "conflict")),
		read:       with(attribute.String("outcome", "read")),
		appended:   with(attribute.String("outcome", "appended")),
		refused:    with(attribute.String("outcome", "conflict")),
		readTail:   with(attribute.String("kind", "tail")),
		readWhole:  with(attribute.String("kind", "whole")),
		methods:    map[log.Method]metric.MeasurementOption{},
		reasons:    map[redis.Reason]metric.MeasurementOption{},
		failing:    failing,
	}
	for _, m := range []log.Method{log.MethodAppend, log.MethodRead, log.MethodCompact} {
		o.methods[m] = with(attribute.String("method", m.String()))
	}
	for _, r := range redis.Reasons {
		o.reasons[r] = with(attribute.String("reason", string(r)))
	}
	return o
}

// Swapped implements redis.Observer.
func (o *processorTelemetry) Swapped(
	ctx context.Context, swaps []store.Swap, results []store.Result, took time.Duration, retries int, err error,
) {
	o.builder.RedisStateSwapDuration.Record(ctx, took.Seconds(), o.plain)
	o.retried(ctx, retries)
	if err != nil {
		o.builder.RedisStateErrors.Add(ctx, 1, o.reasons[redis.ReasonOf(err)])
		o.failed()
		return
	}
	var swapped, confirmed, conflicted int64
	for i := range results {
		switch {
		case results[i].Status != store.Swapped:
			conflicted++
		case swaps[i].Record != nil:
			swapped++
		default:
			confirmed++
		}
	}
	o.add(ctx, swapped, o.swaps)
	o.add(ctx, confirmed, o.confirmed)
	o.add(ctx, conflicted, o.conflicted)
}

// Read implements redis.Observer.
func (o *processorTelemetry) Read(ctx context.Context, records, retries int, err error) {
	o.retried(ctx, retries)
	if err != nil {
		o.builder.RedisStateErrors.Add(ctx, 1, o.reasons[redis.ReasonOf(err)])
		o.failed()
		return
	}
	o.add(ctx, int64(records), o.read)
}

// retried is told of calls that were sent again.
func (o *processorTelemetry) retried(ctx context.Context, calls int) {
	if calls > 0 {
		o.builder.RedisStateRetries.Add(ctx, int64(calls), o.plain)
	}
}

func (o *processorTelemetry) add(ctx context.Context, n int64, outcome metric.MeasurementOption) {
	if n > 0 {
		o.builder.RedisStateRecords.Add(ctx, n, outcome)
	}
}

// SetAside implements redis.Observer.
func (o *processorTelemetry) SetAside(ctx context.Context, moved bool, err error) {
	switch {
	case err != nil:
		o.failed()
	case moved:
		o.builder.RedisStateAside.Add(ctx, 1, o.plain)
	}
}

// failed has watch look.
func (o *processorTelemetry) failed() {
	select {
	case o.failing <- struct{}{}:
	default:
	}
}

// follow tells what a store by log has in memory, for as long as the extension runs.
func (o *processorTelemetry) follow(st *log.Store) error {
	gauges := []func(cb metric.Int64Callback) error{
		o.builder.RegisterRedisStateLogOwnedCallback, o.builder.RegisterRedisStateLogStreamsCallback, o.builder.RegisterRedisStateLogMemoryCallback,
	}
	for i, register := range gauges {
		err := register(func(_ context.Context, to metric.Int64Observer) error {
			s := st.Stats()
			to.Observe(int64([]int{s.Logs, s.Streams, s.Bytes}[i]), o.plain)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// logTelemetry is what a store by log is observed by.
type logTelemetry struct {
	*processorTelemetry
	conflicts conflicts
}

var _ log.Observer = (*logTelemetry)(nil)

// Swapped implements log.Observer. Conflicts are counted call by call.
func (o *logTelemetry) Swapped(ctx context.Context, swaps []store.Swap, results []store.Result, took time.Duration, _ int, err error) {
	o.processorTelemetry.Swapped(ctx, swaps, results, took, 0, err)
}

// Called implements log.Observer.
func (o *logTelemetry) Called(ctx context.Context, call log.Call) {
	if call.Bytes > 0 {
		o.builder.RedisStateLogBytes.Add(ctx, int64(call.Bytes), o.methods[call.Method])
	}
	if call.Err != nil {
		if call.Method == log.MethodCompact { // others are part of a batch that is refused
			o.builder.RedisStateErrors.Add(ctx, 1, o.reasons[redis.ReasonOf(call.Err)])
		}
		o.failed()
		return
	}
	switch call.Method {
	case log.MethodAppend:
		o.conflicts.add(call.Logs, call.Refused)
		if n := call.Logs - call.Refused; n > 0 {
			o.builder.RedisStateLogAppends.Add(ctx, int64(n), o.appended)
		}
		if call.Refused > 0 {
			o.builder.RedisStateLogAppends.Add(ctx, int64(call.Refused), o.refused)
		}
	case log.MethodRead:
		kind := o.readTail
		if call.Whole {
			kind = o.readWhole
		}
		o.builder.RedisStateLogReads.Add(ctx, 1, kind)
	case log.MethodCompact:
		o.builder.RedisStateLogSnapshots.Add(ctx, 1, o.plain)
	}
}
