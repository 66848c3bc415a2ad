// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// plainSeries is a series as a plain adder has it: the sum of every delta that arrived, however often it did, and the latest of
// what is no delta. It is also what tells whether the producer sent deltas at all.
type plainSeries struct {
	label
	total sample
}

// plainExporter ends a pipeline of its own beside d2c, which gets the same batches.
type plainExporter struct {
	component.StartFunc
	component.ShutdownFunc
	board *board
}

func (plainExporter) Capabilities() consumer.Capabilities { return consumer.Capabilities{} }

func (e plainExporter) ConsumeMetrics(_ context.Context, md pmetric.Metrics) error {
	e.board.addPlainly(md)
	return nil
}

// addPlainly adds a batch as it arrived; it is safe for concurrent use.
func (b *board) addPlainly(md pmetric.Metrics) {
	b.mu.Lock()
	defer b.mu.Unlock()
	eachSample(md, func(identity string, l label, s sample) {
		known := b.plain[identity]
		if known == nil || !s.delta {
			b.plain[identity] = &plainSeries{l, s}
			if known == nil && s.shouldBeDelta() && !b.advised[l.producer] {
				b.advised[l.producer] = true
				b.noteLocked("%s sends totals (%s), not deltas: they pass as they are. To see them added up here, start it with "+
					temporalityPreference+"=delta", l.producer, l.series())
			}
			return
		}
		t := &known.total
		t.integer, t.number = t.integer+s.integer, t.number+s.number
		t.count, t.sum = t.count+s.count, t.sum+s.sum
	})
}

// temporalityPreference is the standard variable by which an SDK is told to send deltas.
const temporalityPreference = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"

// shouldBeDelta reports whether an SDK that prefers deltas would have sent this as one. Up-down counters stay cumulative.
func (s sample) shouldBeDelta() bool {
	return !s.delta && (s.kind == kindSum && s.monotonic || s.kind == kindHistogram || s.kind == kindExponential)
}

// passed reports whether the processor leaves the series alone though it could be one of deltas.
func (p *plainSeries) passed() bool {
	return p != nil && !p.total.delta && (p.total.kind == kindSum || p.total.kind == kindHistogram || p.total.kind == kindExponential)
}

// plainTotals returns what a plain adder has, by label.
func (b *board) plainTotals() map[label]sample {
	b.mu.Lock()
	defer b.mu.Unlock()
	totals := make(map[label]sample, len(b.plain))
	for _, p := range b.plain {
		totals[p.label] = p.total
	}
	return totals
}
