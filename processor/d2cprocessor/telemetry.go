// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2cprocessor

import (
	"context"
	"strings"
	"time"

	"go.opentelemetry.io/collector/processor"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/processor/d2cprocessor/internal/metadata"
)

// telemetry counts per batch. All attribute sets are made beforehand, so that a batch costs an addition for each outcome
// it has, whatever the number of its points.
//
// Every measurement carries the processor's ID, as processorhelper's do: the Collector gives all instances one meter.
// For the same reason streams and bytes are sums rather than gauges: the SDK adds up what instances of one ID (the same
// processor in two pipelines) observe, where of a gauge the last one would win.
type telemetry struct {
	builder              *metadata.TelemetryBuilder
	instance             metric.MeasurementOption
	journal, checkpoints metric.MeasurementOption
	plain                []metric.AddOption
	outcome              [][]metric.AddOption
	reason               [][]metric.AddOption // for outcomes that are restarts
	repair               [][]metric.AddOption // by bit
}

func newTelemetry(set processor.Settings) (*telemetry, error) {
	builder, err := metadata.NewTelemetryBuilder(set.TelemetrySettings)
	if err != nil {
		return nil, err
	}
	id := attribute.String("processor", set.ID.String())
	t := &telemetry{builder: builder, instance: metric.WithAttributeSet(attribute.NewSet(id))}
	t.plain = []metric.AddOption{t.instance}
	t.journal = metric.WithAttributeSet(attribute.NewSet(id, attribute.String("part", "journal")))
	t.checkpoints = metric.WithAttributeSet(attribute.NewSet(id, attribute.String("part", "checkpoints")))
	t.outcome, t.reason = make([][]metric.AddOption, d2c.NumOutcomes), make([][]metric.AddOption, d2c.NumOutcomes)
	for o := range d2c.NumOutcomes {
		t.outcome[o] = addOption(id, attribute.String("outcome", o.String()))
		if o.Restarted() {
			t.reason[o] = addOption(id, attribute.String("reason", strings.TrimPrefix(o.String(), "restart_")))
		}
	}
	for kind := d2c.Repairs(1); kind < d2c.RepairAll; kind <<= 1 {
		t.repair = append(t.repair, addOption(id, attribute.String("repair", kind.String())))
	}
	return t, nil
}

func addOption(attrs ...attribute.KeyValue) []metric.AddOption {
	return []metric.AddOption{metric.WithAttributeSet(attribute.NewSet(attrs...))}
}

// record counts one batch.
func (t *telemetry) record(ctx context.Context, result *d2c.Result) {
	for o, n := range result.Counts() {
		t.builder.D2cPoints.Add(ctx, int64(n), t.outcome[o]...)
		if o.Restarted() {
			t.builder.D2cRestarts.Add(ctx, int64(n), t.reason[o]...)
		}
	}
	if result.Repaired(d2c.RepairAll) > 0 {
		for i, add := range t.repair {
			if n := result.Repaired(1 << i); n > 0 {
				t.builder.D2cPointsRepaired.Add(ctx, int64(n), add...)
			}
		}
	}
	if result.Unspecified > 0 {
		t.builder.D2cPointsUnspecified.Add(ctx, int64(result.Unspecified), t.plain...)
	}
	if result.Duplicates > 0 {
		t.builder.D2cStreamsDuplicate.Add(ctx, int64(result.Duplicates), t.plain...)
	}
	if result.GapOpened > 0 {
		t.builder.D2cGapOpened.Add(ctx, result.GapOpened.Seconds(), t.plain...)
	}
	if result.GapFilled > 0 {
		t.builder.D2cGapFilled.Add(ctx, result.GapFilled.Seconds(), t.plain...)
	}
}

// recordCommit measures how long a batch took with its state stored.
func (t *telemetry) recordCommit(ctx context.Context, took time.Duration) {
	t.builder.D2cCommitDuration.Record(ctx, took.Seconds(), t.instance)
}

// recordRefused counts points that were refused because their state could not be stored.
func (t *telemetry) recordRefused(ctx context.Context, points int) {
	t.builder.D2cPointsRefused.Add(ctx, int64(points), t.plain...)
}

// recordDamaged counts values in storage that could not be read.
func (t *telemetry) recordDamaged(ctx context.Context, values int) {
	t.builder.D2cStorageDamaged.Add(ctx, int64(values), t.plain...)
}

// recordExpired counts streams that were forgotten.
func (t *telemetry) recordExpired(ctx context.Context, n int) {
	if n > 0 {
		t.builder.D2cStreamsExpired.Add(ctx, int64(n), t.plain...)
	}
}

// observe begins to report the state of conv, until shutdown.
func (t *telemetry) observe(conv *d2c.Converter, limit int, aggregates bool) error {
	streams := t.observer(func() int64 { return int64(conv.Len()) })
	if err := t.builder.RegisterD2cStreamsCallback(streams); err != nil {
		return err
	}
	if err := t.builder.RegisterD2cStateSizeCallback(t.observer(func() int64 { return conv.Stats().MemoryBytes })); err != nil {
		return err
	}
	if err := t.builder.RegisterD2cStorageSizeCallback(t.storage(conv)); err != nil {
		return err
	}
	if err := t.builder.RegisterD2cPointsMissedCallback(t.observer(func() int64 { return int64(conv.Stats().Missed) })); err != nil {
		return err
	}
	if err := t.builder.RegisterD2cPointsOutstandingCallback(t.observer(func() int64 { return int64(conv.Stats().Outstanding) })); err != nil {
		return err
	}
	if aggregates {
		if err := t.builder.RegisterD2cWritersCallback(t.observer(func() int64 { return int64(conv.Stats().Writers) })); err != nil {
			return err
		}
	}
	if limit == 0 {
		return nil // no limit; a zero would look like one
	}
	return t.builder.RegisterD2cStreamsLimitCallback(t.observer(func() int64 { return int64(limit) }))
}

func (t *telemetry) observer(value func() int64) metric.Int64Callback {
	return func(_ context.Context, o metric.Int64Observer) error {
		o.Observe(value(), t.instance)
		return nil
	}
}

// storage reports the size of what is in storage, by part.
func (t *telemetry) storage(conv *d2c.Converter) metric.Int64Callback {
	return func(_ context.Context, o metric.Int64Observer) error {
		stats := conv.Stats()
		journal, checkpoints := stats.JournalBytes, stats.CheckpointBytes
		if journal+checkpoints > 0 {
			o.Observe(journal, t.journal)
			o.Observe(checkpoints, t.checkpoints)
		}
		return nil
	}
}

// shutdown ends what observe began.
func (t *telemetry) shutdown() { t.builder.Shutdown() }
