// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"context"
	"errors"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/exporterhelper"
	"go.opentelemetry.io/collector/exporter/otlpexporter"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/deltaring/deltaring/streamid"
)

type batch interface {
	pmetric.Metrics | ptrace.Traces | plog.Logs
}

type consumeFunc[B batch] = func(context.Context, B) error

// running is a component together with its way in.
type running[B batch] struct {
	component.Component
	consume consumeFunc[B]
}

// signal is all that differs between metrics, traces and logs.
type signal[B batch] struct {
	id    streamid.Signal
	split func(s *streamid.Splitter, data B, n int, owner func(uint64) int, dst []streamid.Part[B]) ([]streamid.Part[B], int)
	items func(B) int
	move  func(from, to B) // appends
	// unsent returns an error that has the data that is to be tried again, which rest returns.
	unsent func(error, B) error
	rest   func(error) (B, bool)
	// otlp makes an exporter by the Collector's own factory, queue makes a queue in front of push.
	otlp  func(context.Context, exporter.Settings, *otlpexporter.Config) (running[B], error)
	queue func(context.Context, exporter.Settings, component.Config, consumeFunc[B], ...exporterhelper.Option) (running[B], error)
}

var metrics = signal[pmetric.Metrics]{
	id:     streamid.SignalMetrics,
	split:  (*streamid.Splitter).Metrics,
	items:  pmetric.Metrics.DataPointCount,
	move:   func(from, to pmetric.Metrics) { from.ResourceMetrics().MoveAndAppendTo(to.ResourceMetrics()) },
	unsent: consumererror.NewMetrics,
	rest: func(err error) (data pmetric.Metrics, ok bool) {
		var e consumererror.Metrics
		if ok = errors.As(err, &e); ok {
			data = e.Data()
		}
		return data, ok
	},
	otlp: func(ctx context.Context, set exporter.Settings, cfg *otlpexporter.Config) (running[pmetric.Metrics], error) {
		return runningMetrics(otlpexporter.NewFactory().CreateMetrics(ctx, set, cfg))
	},
	queue: func(
		ctx context.Context, set exporter.Settings, cfg component.Config, push consumeFunc[pmetric.Metrics], opts ...exporterhelper.Option,
	) (running[pmetric.Metrics], error) {
		return runningMetrics(exporterhelper.NewMetrics(ctx, set, cfg, push, opts...))
	},
}

func runningMetrics(e exporter.Metrics, err error) (running[pmetric.Metrics], error) {
	if err != nil {
		return running[pmetric.Metrics]{}, err
	}
	return running[pmetric.Metrics]{e, e.ConsumeMetrics}, nil
}

var traces = signal[ptrace.Traces]{
	id:     streamid.SignalTraces,
	split:  (*streamid.Splitter).Traces,
	items:  ptrace.Traces.SpanCount,
	move:   func(from, to ptrace.Traces) { from.ResourceSpans().MoveAndAppendTo(to.ResourceSpans()) },
	unsent: consumererror.NewTraces,
	rest: func(err error) (data ptrace.Traces, ok bool) {
		var e consumererror.Traces
		if ok = errors.As(err, &e); ok {
			data = e.Data()
		}
		return data, ok
	},
	otlp: func(ctx context.Context, set exporter.Settings, cfg *otlpexporter.Config) (running[ptrace.Traces], error) {
		return runningTraces(otlpexporter.NewFactory().CreateTraces(ctx, set, cfg))
	},
	queue: func(
		ctx context.Context, set exporter.Settings, cfg component.Config, push consumeFunc[ptrace.Traces], opts ...exporterhelper.Option,
	) (running[ptrace.Traces], error) {
		return runningTraces(exporterhelper.NewTraces(ctx, set, cfg, push, opts...))
	},
}

func runningTraces(e exporter.Traces, err error) (running[ptrace.Traces], error) {
	if err != nil {
		return running[ptrace.Traces]{}, err
	}
	return running[ptrace.Traces]{e, e.ConsumeTraces}, nil
}

var logs = signal[plog.Logs]{
	id:     streamid.SignalLogs,
	split:  (*streamid.Splitter).Logs,
	items:  plog.Logs.LogRecordCount,
	move:   func(from, to plog.Logs) { from.ResourceLogs().MoveAndAppendTo(to.ResourceLogs()) },
	unsent: consumererror.NewLogs,
	rest: func(err error) (data plog.Logs, ok bool) {
		var e consumererror.Logs
		if ok = errors.As(err, &e); ok {
			data = e.Data()
		}
		return data, ok
	},
	otlp: func(ctx context.Context, set exporter.Settings, cfg *otlpexporter.Config) (running[plog.Logs], error) {
		return runningLogs(otlpexporter.NewFactory().CreateLogs(ctx, set, cfg))
	},
	queue: func(
		ctx context.Context, set exporter.Settings, cfg component.Config, push consumeFunc[plog.Logs], opts ...exporterhelper.Option,
	) (running[plog.Logs], error) {
		return runningLogs(exporterhelper.NewLogs(ctx, set, cfg, push, opts...))
	},
}

func runningLogs(e exporter.Logs, err error) (running[plog.Logs], error) {
	if err != nil {
		return running[plog.Logs]{}, err
	}
	return running[plog.Logs]{e, e.ConsumeLogs}, nil
}
