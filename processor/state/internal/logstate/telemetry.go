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
	"github.com/deltaring/deltaring/d2c/store/log"
)

// Instruments are what an extension counts with, of its generated metadata. All have the attributes extension and processor.
type Instruments struct {
	// Duration is how long it took to swap the records of a commit.
	Duration metric.Float64Histogram
	// Records are records by what became of them: attribute outcome is swapped, confirmed or conflict.
	Records metric.Int64Counter
	// Errors are calls of the driver that failed, by method and reason.
	Errors metric.Int64Counter
	// Conflicts are appends that were not done because another had appended to the log.
	Conflicts metric.Int64Counter
	// Bytes are bytes of entries and snapshots, by method: read, append or compact.
	Bytes metric.Int64Counter
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

// observer is the part of telemetry for a processor, with attribute sets made beforehand.
type observer struct {
	*telemetry
	processor                    attribute.KeyValue
	plain                        metric.MeasurementOption
	swaps, confirmed, conflicted metric.MeasurementOption
	methods                      [log.MethodCompact + 1]metric.MeasurementOption
	reasonOf                     func(error) string
	failing                      chan<- struct{} // has room for one

	mu      sync.Mutex
	reasons map[failure]metric.MeasurementOption
}

type failure struct {
	method log.Method
	reason string
}

var _ log.Observer = (*observer)(nil)

func (t *telemetry) observer(processor component.ID, reasonOf func(error) string, failing chan<- struct{}) *observer {
	o := &observer{
		telemetry: t, processor: attribute.String("processor", processor.String()), reasonOf: reasonOf, failing: failing,
		reasons: map[failure]metric.MeasurementOption{},
	}
	o.plain = o.with()
	o.swaps = o.with(attribute.String("outcome", "swapped"))
	o.confirmed = o.with(attribute.String("outcome", "confirmed"))
	o.conflicted = o.with(attribute.String("outcome", "conflict"))
	for m := range o.methods {
		o.methods[m] = o.with(attribute.String("method", log.Method(m).String()))
	}
	return o
}

func (o *observer) with(more ...attribute.KeyValue) metric.MeasurementOption {
	more = append(more, o.extension, o.processor)
	return metric.WithAttributeSet(attribute.NewSet(more...))
}

// Swapped implements log.Observer.
func (o *observer) Swapped(ctx context.Context, swaps []store.Swap, results []store.Result, took time.Duration, _ int, err error) {
	o.Duration.Record(ctx, took.Seconds(), o.plain)
	if err != nil {
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
	add(ctx, o.Records, swapped, o.swaps)
	add(ctx, o.Records, confirmed, o.confirmed)
	add(ctx, o.Records, conflicted, o.conflicted)
}

// SetAside implements log.Observer.
func (o *observer) SetAside(ctx context.Context, moved bool, err error) {
	switch {
	case err != nil:
		o.failed()
	case moved:
		o.Aside.Add(ctx, 1, o.plain)
	}
}

// Called implements log.Observer.
func (o *observer) Called(ctx context.Context, call log.Call) {
	add(ctx, o.Bytes, int64(call.Bytes), o.methods[call.Method])
	add(ctx, o.Conflicts, int64(call.Refused), o.plain)
	if call.Err != nil {
		o.Errors.Add(ctx, 1, o.failure(failure{call.Method, o.reasonOf(call.Err)}))
		o.failed()
	}
}

func (o *observer) failure(f failure) metric.MeasurementOption {
	o.mu.Lock()
	defer o.mu.Unlock()
	option := o.reasons[f]
	if option == nil {
		option = o.with(attribute.String("method", f.method.String()), attribute.String("reason", f.reason))
		o.reasons[f] = option
	}
	return option
}

func add(ctx context.Context, counter metric.Int64Counter, n int64, attributes metric.MeasurementOption) {
	if n > 0 {
		counter.Add(ctx, n, attributes)
	}
}

// failed has watch look.
func (o *observer) failed() {
	select {
	case o.failing <- struct{}{}:
	default:
	}
}
