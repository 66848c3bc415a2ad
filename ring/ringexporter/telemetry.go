// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"cmp"
	"context"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/deltaring/deltaring/ring"
	"github.com/deltaring/deltaring/ring/resolve"
	"github.com/deltaring/deltaring/ring/ringexporter/internal/metadata"
	"github.com/deltaring/deltaring/streamid"
)

// telemetry counts per batch, with attribute sets made beforehand.
type telemetry struct {
	builder  *metadata.TelemetryBuilder
	base     []attribute.KeyValue // exporter, signal
	instance metric.MeasurementOption
	changes  struct{ applied, refused metric.MeasurementOption }
	lookups  struct{ found, empty, failed, denied metric.MeasurementOption }
}

func newTelemetry(set exporter.Settings, signal streamid.Signal) (*telemetry, error) {
	builder, err := metadata.NewTelemetryBuilder(set.TelemetrySettings)
	if err != nil {
		return nil, err
	}
	t := &telemetry{builder: builder, base: []attribute.KeyValue{
		attribute.String("exporter", set.ID.String()), attribute.String("signal", signal.String()),
	}}
	t.instance = t.with()
	t.changes.applied, t.changes.refused = t.outcome("applied"), t.outcome("refused")
	t.lookups.found, t.lookups.empty, t.lookups.failed = t.outcome("found"), t.outcome("empty"), t.outcome("failed")
	t.lookups.denied = t.outcome("denied")
	return t, nil
}

func (t *telemetry) with(more ...attribute.KeyValue) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(append(more, t.base...)...))
}

func (t *telemetry) outcome(outcome string, more ...attribute.KeyValue) metric.MeasurementOption {
	return t.with(append(more, attribute.String("outcome", outcome))...)
}

// observe reports the ring that current returns, which may be nil, its epoch, and how many members are ejected, until shutdown.
// None of these may wait for a change of the members: the meter is locked meanwhile, and members that are started need it.
func (t *telemetry) observe(current func() *ring.Ring, epoch func(*ring.Ring) uint64, ejected func() int64) error {
	err := t.builder.RegisterRingEjectedCallback(func(_ context.Context, o metric.Int64Observer) error {
		o.Observe(ejected(), t.instance)
		return nil
	})
	if err != nil {
		return err
	}
	err = t.builder.RegisterRingMembersCallback(func(_ context.Context, o metric.Int64Observer) error {
		n := 0
		if r := current(); r != nil {
			n = len(r.Members())
		}
		o.Observe(int64(n), t.instance)
		return nil
	})
	if err != nil {
		return err
	}
	return t.builder.RegisterRingEpochCallback(func(_ context.Context, o metric.Int64Observer) error {
		if r := current(); r != nil {
			// 53 bits, so that it survives backends that have floats only.
			o.Observe(int64(epoch(r)>>11), t.instance)
		}
		return nil
	})
}

func (t *telemetry) shutdown() { t.builder.Shutdown() }

func (t *telemetry) changed(ctx context.Context, p *ring.Plan) {
	t.builder.RingChanges.Add(ctx, 1, t.changes.applied)
	if p != nil {
		t.builder.RingMoved.Add(ctx, p.Share(), t.instance)
		t.builder.RingMovedMinimum.Add(ctx, float64(p.Minimum)/float64(p.Slots), t.instance)
	}
}

func (t *telemetry) looked(ctx context.Context, outcome resolve.Outcome) {
	o := t.lookups.found
	switch outcome {
	case resolve.Refused:
		t.builder.RingChanges.Add(ctx, 1, t.changes.refused)
	case resolve.Empty:
		o = t.lookups.empty
	case resolve.Failed:
		o = t.lookups.failed
	case resolve.Denied:
		o = t.lookups.denied
	}
	t.builder.RingLookups.Add(ctx, 1, o)
}

func (t *telemetry) keyless(ctx context.Context, items int) {
	if items > 0 {
		t.builder.RingKeyless.Add(ctx, int64(items), t.instance)
	}
}

func (t *telemetry) unroutable(ctx context.Context, items int) {
	t.builder.RingUnroutable.Add(ctx, int64(items), t.instance)
}

// memberTelemetry is the part of telemetry for a member.
type memberTelemetry struct {
	builder                                    *metadata.TelemetryBuilder
	itemsSent, itemsRerouted                   metric.MeasurementOption
	itemsRefused, itemsFailed, itemsRejected   metric.MeasurementOption
	itemsReturned                              metric.MeasurementOption
	attemptSent, attemptRefused, attemptUnsent metric.MeasurementOption
	ejectionBegun, ejectionEnded               metric.MeasurementOption
	ejectionWithheld                           metric.MeasurementOption
	reasons                                    *reasons
}

// reasons has an option for each reason for which a member rejected items. Members word them as they like, so their
// number is bounded: it is that of series.
type reasons struct {
	option func(reason string) metric.MeasurementOption
	mu     sync.Mutex
	known  map[string]metric.MeasurementOption
}

const (
	maxReasons      = 16
	maxReasonLength = 120
	otherReason     = "other"
	noReason        = "none given"
)

func (r *reasons) of(message string) metric.MeasurementOption {
	reason := cmp.Or(strings.Join(strings.Fields(message), " "), noReason)
	if len(reason) > maxReasonLength {
		reason = reason[:maxReasonLength]
	}
	reason = strings.ToValidUTF8(reason, "") // it may have been cut within a character
	r.mu.Lock()
	defer r.mu.Unlock()
	if o, ok := r.known[reason]; ok {
		return o
	}
	if len(r.known) >= maxReasons {
		reason = otherReason
	}
	o := r.option(reason)
	if reason != otherReason {
		r.known[reason] = o
	}
	return o
}

func (t *telemetry) member(name string) memberTelemetry {
	m := attribute.String("member", name)
	return memberTelemetry{
		builder:   t.builder,
		itemsSent: t.outcome("sent", m), itemsRerouted: t.outcome("rerouted", m),
		itemsRefused: t.outcome("refused", m), itemsFailed: t.outcome("failed", m), itemsRejected: t.outcome("rejected", m), itemsReturned: t.outcome("returned", m),
		attemptSent: t.outcome("sent", m), attemptRefused: t.outcome("refused", m), attemptUnsent: t.outcome("unsent", m),
		ejectionBegun: t.outcome("ejected", m), ejectionEnded: t.outcome("returned", m), ejectionWithheld: t.outcome("withheld", m),
		reasons: &reasons{
			option: func(reason string) metric.MeasurementOption { return t.with(m, attribute.String("reason", reason)) },
			known:  map[string]metric.MeasurementOption{},
		},
	}
}

func (t *memberTelemetry) items(ctx context.Context, n int, outcome metric.MeasurementOption) {
	if n > 0 {
		t.builder.RingItems.Add(ctx, int64(n), outcome)
	}
}

func (t *memberTelemetry) sent(ctx context.Context, n int)     { t.items(ctx, n, t.itemsSent) }
func (t *memberTelemetry) rerouted(ctx context.Context, n int) { t.items(ctx, n, t.itemsRerouted) }
func (t *memberTelemetry) refused(ctx context.Context, n int)  { t.items(ctx, n, t.itemsRefused) }
func (t *memberTelemetry) failed(ctx context.Context, n int)   { t.items(ctx, n, t.itemsFailed) }

func (t *memberTelemetry) returned(ctx context.Context, n int) { t.items(ctx, n, t.itemsReturned) }

// rejected counts what a member rejected of a request that it took.
func (t *memberTelemetry) rejected(ctx context.Context, n int, message string) {
	t.items(ctx, n, t.itemsRejected)
	t.builder.RingRejected.Add(ctx, int64(n), t.reasons.of(message))
}

// ejection counts what came of a member that did not answer, or that did again.
func (t *memberTelemetry) ejection(ctx context.Context, outcome metric.MeasurementOption) {
	t.builder.RingEjections.Add(ctx, 1, outcome)
}

func (t *memberTelemetry) attempt(ctx context.Context, took time.Duration, err error) {
	o := t.attemptSent
	switch {
	case consumererror.IsPermanent(err):
		o = t.attemptRefused
	case err != nil:
		o = t.attemptUnsent
	}
	t.builder.RingSendDuration.Record(ctx, took.Seconds(), o)
}
