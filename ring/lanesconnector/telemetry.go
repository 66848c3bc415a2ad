// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package lanesconnector

import (
	"context"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/collector/connector"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/deltaring/deltaring/ring/lanesconnector/internal/metadata"
	"github.com/deltaring/deltaring/streamid"
)

// telemetry counts with attribute sets made beforehand.
type telemetry struct {
	builder *metadata.TelemetryBuilder
	base    []attribute.KeyValue // connector, signal

	instance metric.MeasurementOption
	// Of items.
	sent, late, duplicate, refused, failed, returned metric.MeasurementOption
	// Of attempts.
	attemptSent, attemptRefused, attemptFailed metric.MeasurementOption

	mu      sync.Mutex
	reasons map[string]metric.MeasurementOption
}

func newTelemetry(set connector.Settings, signal streamid.Signal) (*telemetry, error) {
	builder, err := metadata.NewTelemetryBuilder(set.TelemetrySettings)
	if err != nil {
		return nil, err
	}
	t := &telemetry{builder: builder, reasons: map[string]metric.MeasurementOption{}, base: []attribute.KeyValue{
		attribute.String("connector", set.ID.String()), attribute.String("signal", signal.String()),
	}}
	t.instance = t.with()
	outcome := func(name string) metric.MeasurementOption { return t.with(attribute.String("outcome", name)) }
	t.sent, t.late, t.duplicate = outcome("sent"), outcome("late"), outcome("duplicate")
	t.refused, t.failed, t.returned = outcome("refused"), outcome("failed"), outcome("returned")
	t.attemptSent, t.attemptRefused, t.attemptFailed = t.sent, t.refused, t.failed
	return t, nil
}

func (t *telemetry) with(more ...attribute.KeyValue) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(append(more, t.base...)...))
}

// observe reports what the functions return, until shutdown.
func (t *telemetry) observe(waiting, streams, stuck func() int64) error {
	report := func(get func() int64) metric.Int64Callback {
		return func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(get(), t.instance)
			return nil
		}
	}
	if err := t.builder.RegisterLanesWaitingCallback(report(waiting)); err != nil {
		return err
	}
	if err := t.builder.RegisterLanesStreamsCallback(report(streams)); err != nil {
		return err
	}
	return t.builder.RegisterLanesStuckCallback(report(stuck))
}

func (t *telemetry) shutdown() { t.builder.Shutdown() }

func (t *telemetry) items(ctx context.Context, n int, outcome metric.MeasurementOption) {
	if n > 0 {
		t.builder.LanesItems.Add(ctx, int64(n), outcome)
	}
}

func (t *telemetry) unguarded(ctx context.Context, n int) {
	if n > 0 {
		t.builder.LanesUnguarded.Add(ctx, int64(n), t.instance)
	}
}

func (t *telemetry) request(ctx context.Context, items int) {
	t.builder.LanesRequestItems.Record(ctx, int64(items), t.instance)
}

func (t *telemetry) attempt(ctx context.Context, took time.Duration, err error) {
	o := t.attemptSent
	switch {
	case consumererror.IsPermanent(err):
		o = t.attemptRefused
	case err != nil:
		o = t.attemptFailed
	}
	t.builder.LanesAttemptDuration.Record(ctx, took.Seconds(), o)
}

// Backends word reasons as they like, so their number is bounded: it is that of series.
const (
	maxReasons      = 16
	maxReasonLength = 160
	otherReason     = "other"
)

// reason counts items that were refused for good.
func (t *telemetry) reason(ctx context.Context, items int, err error) {
	reason := strings.Join(strings.Fields(err.Error()), " ")
	reason = strings.TrimPrefix(reason, "not retryable error: ")
	reason = strings.TrimPrefix(reason, "Permanent error: ")
	if len(reason) > maxReasonLength {
		reason = reason[:maxReasonLength]
	}
	reason = strings.ToValidUTF8(reason, "") // it may have been cut within a character
	t.builder.LanesRefused.Add(ctx, int64(items), t.ofReason(reason))
}

func (t *telemetry) ofReason(reason string) metric.MeasurementOption {
	t.mu.Lock()
	defer t.mu.Unlock()
	if o, ok := t.reasons[reason]; ok {
		return o
	}
	if len(t.reasons) >= maxReasons {
		reason = otherReason
	}
	o := t.with(attribute.String("reason", reason))
	t.reasons[reason] = o
	return o
}
