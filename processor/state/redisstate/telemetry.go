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
		reasons:    map[redis.Reason]metric.MeasurementOption{},
		failing:    failing,
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
	if retries > 0 {
		o.builder.RedisStateRetries.Add(ctx, int64(retries), o.plain)
	}
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
