// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"context"
	"errors"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/exporterhelper"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"google.golang.org/grpc"

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

// Capabilities says that splitting moves the data.
func (running[B]) Capabilities() consumer.Capabilities {
	return consumer.Capabilities{MutatesData: true}
}

// signal is all that differs between metrics, traces and logs.
type signal[B batch] struct {
	id streamid.Signal
	// handsOver has a member that gains streams wait for what others still hold of them. Spans and log records are no totals, which
	// a backend wants in order.
	handsOver bool
	split     func(s *streamid.Splitter, tenant []streamid.TenantKey, data B, n int, owner func(uint64) int, dst []streamid.Part[B]) ([]streamid.Part[B], int)
	items     func(B) int
	size      func(B) int // in bytes, as it is sent; of two appended it is the sum
	empty     func() B
	move      func(from, to B) // appends
	// unsent returns an error that has the data that is to be tried again, which rest returns.
	unsent func(error, B) error
	rest   func(error) (B, bool)
	// export makes a way to send over a connection, queue makes a queue in front of push.
	export func(*grpc.ClientConn) exportFunc[B]
	queue  func(context.Context, exporter.Settings, component.Config, consumeFunc[B], ...exporterhelper.Option) (running[B], error)
}

var metrics = signal[pmetric.Metrics]{
	id:        streamid.SignalMetrics,
	handsOver: true,
	split:     (*streamid.Splitter).MetricsOf,
	items:     pmetric.Metrics.DataPointCount,
	size:      (&pmetric.ProtoMarshaler{}).MetricsSize,
	empty:     pmetric.NewMetrics,
	move:      func(from, to pmetric.Metrics) { from.ResourceMetrics().MoveAndAppendTo(to.ResourceMetrics()) },
	unsent:    consumererror.NewMetrics,
	rest: func(err error) (data pmetric.Metrics, ok bool) {
		var e consumererror.Metrics
		if ok = errors.As(err, &e); ok {
			data = e.Data()
		}
		return data, ok
	},
	export: func(conn *grpc.ClientConn) exportFunc[pmetric.Metrics] {
		c := pmetricotlp.NewGRPCClient(conn)
		return func(ctx context.Context, data pmetric.Metrics, opts ...grpc.CallOption) (partialSuccess, error) {
			r, err := c.Export(ctx, pmetricotlp.NewExportRequestFromMetrics(data), opts...)
			if err != nil {
				return partialSuccess{}, err
			}
			return partialSuccess{r.PartialSuccess().RejectedDataPoints(), r.PartialSuccess().ErrorMessage()}, nil
		}
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
	id: streamid.SignalTraces,
	split: func(s *streamid.Splitter, _ []streamid.TenantKey, td ptrace.Traces, n int, owner func(uint64) int, dst []streamid.Part[ptrace.Traces]) ([]streamid.Part[ptrace.Traces], int) {
		return s.Traces(td, n, owner, dst) // no key of traces has a tenant
	},
	items:  ptrace.Traces.SpanCount,
	size:   (&ptrace.ProtoMarshaler{}).TracesSize,
	empty:  ptrace.NewTraces,
	move:   func(from, to ptrace.Traces) { from.ResourceSpans().MoveAndAppendTo(to.ResourceSpans()) },
	unsent: consumererror.NewTraces,
	rest: func(err error) (data ptrace.Traces, ok bool) {
		var e consumererror.Traces
		if ok = errors.As(err, &e); ok {
			data = e.Data()
		}
		return data, ok
	},
	export: func(conn *grpc.ClientConn) exportFunc[ptrace.Traces] {
		c := ptraceotlp.NewGRPCClient(conn)
		return func(ctx context.Context, data ptrace.Traces, opts ...grpc.CallOption) (partialSuccess, error) {
			r, err := c.Export(ctx, ptraceotlp.NewExportRequestFromTraces(data), opts...)
			if err != nil {
				return partialSuccess{}, err
			}
			return partialSuccess{r.PartialSuccess().RejectedSpans(), r.PartialSuccess().ErrorMessage()}, nil
		}
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
	id: streamid.SignalLogs,
	split: func(s *streamid.Splitter, _ []streamid.TenantKey, ld plog.Logs, n int, owner func(uint64) int, dst []streamid.Part[plog.Logs]) ([]streamid.Part[plog.Logs], int) {
		return s.Logs(ld, n, owner, dst) // nor of logs
	},
	items:  plog.Logs.LogRecordCount,
	size:   (&plog.ProtoMarshaler{}).LogsSize,
	empty:  plog.NewLogs,
	move:   func(from, to plog.Logs) { from.ResourceLogs().MoveAndAppendTo(to.ResourceLogs()) },
	unsent: consumererror.NewLogs,
	rest: func(err error) (data plog.Logs, ok bool) {
		var e consumererror.Logs
		if ok = errors.As(err, &e); ok {
			data = e.Data()
		}
		return data, ok
	},
	export: func(conn *grpc.ClientConn) exportFunc[plog.Logs] {
		c := plogotlp.NewGRPCClient(conn)
		return func(ctx context.Context, data plog.Logs, opts ...grpc.CallOption) (partialSuccess, error) {
			r, err := c.Export(ctx, plogotlp.NewExportRequestFromLogs(data), opts...)
			if err != nil {
				return partialSuccess{}, err
			}
			return partialSuccess{r.PartialSuccess().RejectedLogRecords(), r.PartialSuccess().ErrorMessage()}, nil
		}
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
