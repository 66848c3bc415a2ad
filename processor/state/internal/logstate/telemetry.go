// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package logstate

import (
	"context"
	"sync"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/streamid"
)

// Instruments are what an extension counts with, of its generated metadata.
type Instruments struct {
	// Duration is how long it took to swap the records of a commit, by processor.
	Duration metric.Float64Histogram
	// Records are records by what became of them: attribute outcome is swapped, confirmed or conflict.
	Records metric.Int64Counter
	// Errors are commits that failed, by reason.
	Errors metric.Int64Counter
	// Aside are records that were set aside.
	Aside metric.Int64Counter
}

type telemetry struct {
	Instruments
	extension attribute.KeyValue
}

func newTelemetry(id component.ID, instruments Instruments) *telemetry {
	return &telemetry{instruments, attribute.String("extension", id.String())}
}

// Attributes returns those that all measurements of the extension have that are of a processor.
func Attributes(extension component.ID, processor string) []attribute.KeyValue {
	return []attribute.KeyValue{attribute.String("extension", extension.String()), attribute.String("processor", processor)}
}

// processorTelemetry is the part of telemetry for a processor, with attribute sets made beforehand.
type processorTelemetry struct {
	*telemetry
	processor                    attribute.KeyValue
	plain                        metric.MeasurementOption
	swaps, confirmed, conflicted metric.MeasurementOption

	mu      sync.Mutex
	reasons map[string]metric.MeasurementOption
}

func (t *telemetry) of(processor component.ID) *processorTelemetry {
	p := &processorTelemetry{telemetry: t, processor: attribute.String("processor", processor.String()), reasons: map[string]metric.MeasurementOption{}}
	p.plain = p.with()
	p.swaps = p.with(attribute.String("outcome", "swapped"))
	p.confirmed = p.with(attribute.String("outcome", "confirmed"))
	p.conflicted = p.with(attribute.String("outcome", "conflict"))
	return p
}

func (p *processorTelemetry) with(more ...attribute.KeyValue) metric.MeasurementOption {
	more = append(more, p.extension, p.processor)
	return metric.WithAttributeSet(attribute.NewSet(more...))
}

func (p *processorTelemetry) reason(r string) metric.MeasurementOption {
	p.mu.Lock()
	defer p.mu.Unlock()
	option := p.reasons[r]
	if option == nil {
		option = p.with(attribute.String("reason", r))
		p.reasons[r] = option
	}
	return option
}

// observed is a store that counts.
type observed struct {
	store.Shared
	reason  func(error) string
	tel     *processorTelemetry
	failing chan<- struct{} // has room for one
}

// Lives implements store.Shared.
func (o *observed) Lives(ctx context.Context, proposed store.Life) ([]store.Life, error) {
	lives, err := o.Shared.Lives(ctx, proposed)
	if err != nil {
		o.failed()
	}
	return lives, err
}

// Swap implements store.Shared.
func (o *observed) Swap(ctx context.Context, swaps []store.Swap) ([]store.Result, error) {
	started := time.Now()
	results, err := o.Shared.Swap(ctx, swaps)
	o.tel.Duration.Record(ctx, time.Since(started).Seconds(), o.tel.plain)
	if err != nil {
		o.tel.Errors.Add(ctx, 1, o.tel.reason(o.reason(err)))
		o.failed()
		return results, err
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
	o.add(ctx, swapped, o.tel.swaps)
	o.add(ctx, confirmed, o.tel.confirmed)
	o.add(ctx, conflicted, o.tel.conflicted)
	return results, nil
}

func (o *observed) add(ctx context.Context, n int64, outcome metric.MeasurementOption) {
	if n > 0 {
		o.tel.Records.Add(ctx, n, outcome)
	}
}

// SetAside implements store.Shared.
func (o *observed) SetAside(ctx context.Context, id streamid.ID, record []byte) error {
	err := o.Shared.SetAside(ctx, id, record)
	if err != nil {
		o.failed()
	} else {
		o.tel.Aside.Add(ctx, 1, o.tel.plain)
	}
	return err
}

// failed has watch look.
func (o *observed) failed() {
	select {
	case o.failing <- struct{}{}:
	default:
	}
}
