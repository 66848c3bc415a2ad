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

	"github.com/deltaring/deltaring/d2c"
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

// storeTelemetry is the part of telemetry for a processor.
type storeTelemetry struct {
	builder                      *metadata.TelemetryBuilder
	plain                        metric.MeasurementOption
	swaps, confirmed, conflicted metric.MeasurementOption
	reasons                      map[string]metric.MeasurementOption
}

func (t *telemetry) store(processor component.ID) *storeTelemetry {
	with := func(more ...attribute.KeyValue) metric.MeasurementOption {
		more = append(more, t.extension, attribute.String("processor", processor.String()))
		return metric.WithAttributeSet(attribute.NewSet(more...))
	}
	st := &storeTelemetry{
		builder:    t.builder,
		plain:      with(),
		swaps:      with(attribute.String("outcome", "swapped")),
		confirmed:  with(attribute.String("outcome", "confirmed")),
		conflicted: with(attribute.String("outcome", "conflict")),
		reasons:    map[string]metric.MeasurementOption{},
	}
	for _, r := range reasons {
		st.reasons[r] = with(attribute.String("reason", r))
	}
	return st
}

func (t *storeTelemetry) swapped(ctx context.Context, ops []d2c.SwapOp, took time.Duration, retries int, err error) {
	t.builder.RedisStateSwapDuration.Record(ctx, took.Seconds(), t.plain)
	if retries > 0 {
		t.builder.RedisStateRetries.Add(ctx, int64(retries), t.plain)
	}
	if err != nil {
		t.builder.RedisStateErrors.Add(ctx, 1, t.reasons[reason(err)])
		return
	}
	var swaps, confirmed, conflicted int64
	for i := range ops {
		switch {
		case !ops[i].Swapped:
			conflicted++
		case ops[i].Record != nil:
			swaps++
		default:
			confirmed++
		}
	}
	t.add(ctx, swaps, t.swaps)
	t.add(ctx, confirmed, t.confirmed)
	t.add(ctx, conflicted, t.conflicted)
}

func (t *storeTelemetry) add(ctx context.Context, n int64, outcome metric.MeasurementOption) {
	if n > 0 {
		t.builder.RedisStateRecords.Add(ctx, n, outcome)
	}
}

func (t *storeTelemetry) setAside(ctx context.Context) {
	t.builder.RedisStateAside.Add(ctx, 1, t.plain)
}
