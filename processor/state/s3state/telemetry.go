// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package s3state

import (
	"context"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/deltaring/deltaring/d2c/store/s3"
	"github.com/deltaring/deltaring/processor/state/internal/logstate"
	"github.com/deltaring/deltaring/processor/state/s3state/internal/metadata"
)

type telemetry struct {
	builder *metadata.TelemetryBuilder
	id      component.ID
}

func newTelemetry(set extension.Settings) (*telemetry, error) {
	builder, err := metadata.NewTelemetryBuilder(set.TelemetrySettings)
	if err != nil {
		return nil, err
	}
	return &telemetry{builder, set.ID}, nil
}

func (t *telemetry) instruments() logstate.Instruments {
	return logstate.Instruments{
		Duration:  t.builder.S3StateSwapDuration,
		Records:   t.builder.S3StateRecords,
		Errors:    t.builder.S3StateErrors,
		Conflicts: t.builder.S3StateConflicts,
		Bytes:     t.builder.S3StateBytes,
		Aside:     t.builder.S3StateAside,
	}
}

// requests counts the requests of a processor, with attribute sets made beforehand.
type requests struct {
	builder *metadata.TelemetryBuilder
	results map[s3.Operation]map[s3.Reason]metric.MeasurementOption // by what went wrong, empty if nothing
	took    map[s3.Operation]metric.MeasurementOption
}

var _ s3.Observer = (*requests)(nil)

func (t *telemetry) observer(processor string) *requests {
	r := &requests{t.builder, map[s3.Operation]map[s3.Reason]metric.MeasurementOption{}, map[s3.Operation]metric.MeasurementOption{}}
	common := []attribute.KeyValue{attribute.String("extension", t.id.String()), attribute.String("processor", processor)}
	for _, op := range []s3.Operation{s3.Put, s3.Get, s3.List, s3.Delete} {
		of := append(common[:len(common):len(common)], attribute.String("operation", string(op)))
		r.took[op] = metric.WithAttributeSet(attribute.NewSet(of...))
		r.results[op] = map[s3.Reason]metric.MeasurementOption{"": metric.WithAttributeSet(attribute.NewSet(append(of, attribute.String("result", "ok"))...))}
		for _, reason := range s3.Reasons {
			r.results[op][reason] = metric.WithAttributeSet(attribute.NewSet(append(of[:len(of):len(of)], attribute.String("result", string(reason)))...))
		}
	}
	return r
}

// Requested implements s3.Observer.
func (r *requests) Requested(ctx context.Context, op s3.Operation, _ int, took time.Duration, err error) {
	var reason s3.Reason
	if err != nil {
		reason = s3.ReasonOf(err)
	}
	r.builder.S3StateRequests.Add(ctx, 1, r.results[op][reason])
	r.builder.S3StateRequestDuration.Record(ctx, took.Seconds(), r.took[op])
}
