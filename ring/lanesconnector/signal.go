// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package lanesconnector

import (
	"context"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/exporterhelper"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/deltaring/deltaring/streamid"
)

type batch interface {
	pmetric.Metrics | ptrace.Traces | plog.Logs
	IsReadOnly() bool
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

// signal is all that differs between metrics, traces and logs. A resource is what a batch is a list of: ResourceMetrics,
// ResourceSpans or ResourceLogs.
type signal[B batch] struct {
	id    streamid.Signal
	key   string // the routing key if none is configured
	split func(s *streamid.Splitter, tenant []streamid.TenantKey, data B, n int, owner func(uint64) int, dst []streamid.Part[B]) []streamid.Part[B]
	items func(B) int
	// guard is guard.filter; it is nil for signals that backends take in any order.
	guard func(*guard, []streamid.TenantKey, B) (dropped verdicts, held B, heldAs verdicts)

	empty     func() B
	resources func(B) int
	itemsOf   func(data B, resource int) int
	append    func(from, to B)                        // moves
	take      func(from B, want func(int) bool, to B) // moves resources, by their place
	// halve moves the later half of the items, in their order, to another batch.
	halve func(B) B
	copy  func(B) B
	// mark returns a batch of one item whose resource has an attribute, which marked returns.
	mark   func(mark string) B
	marked func(data B, resource int) (mark string, ok bool)

	// queue makes a queue in front of push.
	queue func(context.Context, exporter.Settings, component.Config, consumeFunc[B], ...exporterhelper.Option) (running[B], error)
}

// markKey is the attribute of mark.
const markKey = "deltaring.lanes.mark"

func putMark(res pcommon.Resource, mark string) { res.Attributes().PutStr(markKey, mark) }

func getMark(res pcommon.Resource) (string, bool) {
	v, ok := res.Attributes().Get(markKey)
	if !ok || v.Type() != pcommon.ValueTypeStr {
		return "", false
	}
	return v.Str(), true
}

var metrics = signal[pmetric.Metrics]{
	id:  streamid.SignalMetrics,
	key: "streamID",
	split: func(s *streamid.Splitter, tenant []streamid.TenantKey, md pmetric.Metrics, n int, owner func(uint64) int, dst []streamid.Part[pmetric.Metrics]) []streamid.Part[pmetric.Metrics] {
		dst, _ = s.MetricsOf(tenant, md, n, owner, dst)
		return dst
	},
	items:     pmetric.Metrics.DataPointCount,
	guard:     (*guard).filter,
	empty:     pmetric.NewMetrics,
	resources: func(md pmetric.Metrics) int { return md.ResourceMetrics().Len() },
	itemsOf:   func(md pmetric.Metrics, i int) int { return pointsOf(md.ResourceMetrics().At(i)) },
	append:    func(from, to pmetric.Metrics) { from.ResourceMetrics().MoveAndAppendTo(to.ResourceMetrics()) },
	take: func(from pmetric.Metrics, want func(int) bool, to pmetric.Metrics) {
		i := -1
		from.ResourceMetrics().RemoveIf(func(rm pmetric.ResourceMetrics) bool {
			if i++; !want(i) {
				return false
			}
			rm.MoveTo(to.ResourceMetrics().AppendEmpty())
			return true
		})
	},
	halve: halveMetrics,
	copy:  copyMetrics,
	mark: func(mark string) pmetric.Metrics {
		md := pmetric.NewMetrics()
		rm := md.ResourceMetrics().AppendEmpty()
		putMark(rm.Resource(), mark)
		rm.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty().SetEmptyGauge().DataPoints().AppendEmpty()
		return md
	},
	marked: func(md pmetric.Metrics, i int) (string, bool) { return getMark(md.ResourceMetrics().At(i).Resource()) },
	queue: func(
		ctx context.Context, set exporter.Settings, cfg component.Config, push consumeFunc[pmetric.Metrics], opts ...exporterhelper.Option,
	) (running[pmetric.Metrics], error) {
		e, err := exporterhelper.NewMetrics(ctx, set, cfg, push, opts...)
		if err != nil {
			return running[pmetric.Metrics]{}, err
		}
		return running[pmetric.Metrics]{e, e.ConsumeMetrics}, nil
	},
}

func pointsOf(rm pmetric.ResourceMetrics) int {
	n := 0
	for _, sm := range rm.ScopeMetrics().All() {
		for _, m := range sm.Metrics().All() {
			switch m.Type() {
			case pmetric.MetricTypeGauge:
				n += m.Gauge().DataPoints().Len()
			case pmetric.MetricTypeSum:
				n += m.Sum().DataPoints().Len()
			case pmetric.MetricTypeHistogram:
				n += m.Histogram().DataPoints().Len()
			case pmetric.MetricTypeExponentialHistogram:
				n += m.ExponentialHistogram().DataPoints().Len()
			case pmetric.MetricTypeSummary:
				n += m.Summary().DataPoints().Len()
			}
		}
	}
	return n
}

func copyMetrics(md pmetric.Metrics) pmetric.Metrics {
	to := pmetric.NewMetrics()
	md.CopyTo(to)
	return to
}

func halveMetrics(md pmetric.Metrics) pmetric.Metrics {
	later := copyMetrics(md)
	half := md.DataPointCount() / 2
	keepPoints(md, func(i int) bool { return i < half })
	keepPoints(later, func(i int) bool { return i >= half })
	return later
}

// keepPoints removes all points but those at the wanted places.
func keepPoints(md pmetric.Metrics, want func(int) bool) {
	i := -1
	removeMetrics(md, func(m pmetric.Metric) bool {
		return removePoints(m, func() bool { i++; return !want(i) })
	})
}

// removeMetrics removes metrics, and what is empty without them.
func removeMetrics(md pmetric.Metrics, remove func(pmetric.Metric) bool) {
	md.ResourceMetrics().RemoveIf(func(rm pmetric.ResourceMetrics) bool {
		rm.ScopeMetrics().RemoveIf(func(sm pmetric.ScopeMetrics) bool {
			sm.Metrics().RemoveIf(remove)
			return sm.Metrics().Len() == 0
		})
		return rm.ScopeMetrics().Len() == 0
	})
}

// removePoints removes points of a metric, asking about one after the other, and returns whether none are left.
func removePoints(m pmetric.Metric, remove func() bool) bool {
	switch m.Type() {
	case pmetric.MetricTypeGauge:
		m.Gauge().DataPoints().RemoveIf(func(pmetric.NumberDataPoint) bool { return remove() })
		return m.Gauge().DataPoints().Len() == 0
	case pmetric.MetricTypeSum:
		m.Sum().DataPoints().RemoveIf(func(pmetric.NumberDataPoint) bool { return remove() })
		return m.Sum().DataPoints().Len() == 0
	case pmetric.MetricTypeHistogram:
		m.Histogram().DataPoints().RemoveIf(func(pmetric.HistogramDataPoint) bool { return remove() })
		return m.Histogram().DataPoints().Len() == 0
	case pmetric.MetricTypeExponentialHistogram:
		m.ExponentialHistogram().DataPoints().RemoveIf(func(pmetric.ExponentialHistogramDataPoint) bool { return remove() })
		return m.ExponentialHistogram().DataPoints().Len() == 0
	case pmetric.MetricTypeSummary:
		m.Summary().DataPoints().RemoveIf(func(pmetric.SummaryDataPoint) bool { return remove() })
		return m.Summary().DataPoints().Len() == 0
	}
	return true
}

var traces = signal[ptrace.Traces]{
	id:  streamid.SignalTraces,
	key: "traceID",
	split: func(s *streamid.Splitter, _ []streamid.TenantKey, td ptrace.Traces, n int, owner func(uint64) int, dst []streamid.Part[ptrace.Traces]) []streamid.Part[ptrace.Traces] {
		dst, _ = s.Traces(td, n, owner, dst) // no key of traces has a tenant
		return dst
	},
	items:     ptrace.Traces.SpanCount,
	empty:     ptrace.NewTraces,
	resources: func(td ptrace.Traces) int { return td.ResourceSpans().Len() },
	itemsOf: func(td ptrace.Traces, i int) int {
		n := 0
		for _, ss := range td.ResourceSpans().At(i).ScopeSpans().All() {
			n += ss.Spans().Len()
		}
		return n
	},
	append: func(from, to ptrace.Traces) { from.ResourceSpans().MoveAndAppendTo(to.ResourceSpans()) },
	take: func(from ptrace.Traces, want func(int) bool, to ptrace.Traces) {
		i := -1
		from.ResourceSpans().RemoveIf(func(rs ptrace.ResourceSpans) bool {
			if i++; !want(i) {
				return false
			}
			rs.MoveTo(to.ResourceSpans().AppendEmpty())
			return true
		})
	},
	halve: func(td ptrace.Traces) ptrace.Traces {
		later := copyTraces(td)
		half := td.SpanCount() / 2
		keepSpans(td, func(i int) bool { return i < half })
		keepSpans(later, func(i int) bool { return i >= half })
		return later
	},
	copy: copyTraces,
	mark: func(mark string) ptrace.Traces {
		td := ptrace.NewTraces()
		rs := td.ResourceSpans().AppendEmpty()
		putMark(rs.Resource(), mark)
		rs.ScopeSpans().AppendEmpty().Spans().AppendEmpty()
		return td
	},
	marked: func(td ptrace.Traces, i int) (string, bool) { return getMark(td.ResourceSpans().At(i).Resource()) },
	queue: func(
		ctx context.Context, set exporter.Settings, cfg component.Config, push consumeFunc[ptrace.Traces], opts ...exporterhelper.Option,
	) (running[ptrace.Traces], error) {
		e, err := exporterhelper.NewTraces(ctx, set, cfg, push, opts...)
		if err != nil {
			return running[ptrace.Traces]{}, err
		}
		return running[ptrace.Traces]{e, e.ConsumeTraces}, nil
	},
}

func copyTraces(td ptrace.Traces) ptrace.Traces {
	to := ptrace.NewTraces()
	td.CopyTo(to)
	return to
}

func keepSpans(td ptrace.Traces, want func(int) bool) {
	i := -1
	td.ResourceSpans().RemoveIf(func(rs ptrace.ResourceSpans) bool {
		rs.ScopeSpans().RemoveIf(func(ss ptrace.ScopeSpans) bool {
			ss.Spans().RemoveIf(func(ptrace.Span) bool { i++; return !want(i) })
			return ss.Spans().Len() == 0
		})
		return rs.ScopeSpans().Len() == 0
	})
}

var logs = signal[plog.Logs]{
	id:  streamid.SignalLogs,
	key: "resource",
	split: func(s *streamid.Splitter, _ []streamid.TenantKey, ld plog.Logs, n int, owner func(uint64) int, dst []streamid.Part[plog.Logs]) []streamid.Part[plog.Logs] {
		dst, _ = s.Logs(ld, n, owner, dst) // nor of logs
		return dst
	},
	items:     plog.Logs.LogRecordCount,
	empty:     plog.NewLogs,
	resources: func(ld plog.Logs) int { return ld.ResourceLogs().Len() },
	itemsOf: func(ld plog.Logs, i int) int {
		n := 0
		for _, sl := range ld.ResourceLogs().At(i).ScopeLogs().All() {
			n += sl.LogRecords().Len()
		}
		return n
	},
	append: func(from, to plog.Logs) { from.ResourceLogs().MoveAndAppendTo(to.ResourceLogs()) },
	take: func(from plog.Logs, want func(int) bool, to plog.Logs) {
		i := -1
		from.ResourceLogs().RemoveIf(func(rl plog.ResourceLogs) bool {
			if i++; !want(i) {
				return false
			}
			rl.MoveTo(to.ResourceLogs().AppendEmpty())
			return true
		})
	},
	halve: func(ld plog.Logs) plog.Logs {
		later := copyLogs(ld)
		half := ld.LogRecordCount() / 2
		keepRecords(ld, func(i int) bool { return i < half })
		keepRecords(later, func(i int) bool { return i >= half })
		return later
	},
	copy: copyLogs,
	mark: func(mark string) plog.Logs {
		ld := plog.NewLogs()
		rl := ld.ResourceLogs().AppendEmpty()
		putMark(rl.Resource(), mark)
		rl.ScopeLogs().AppendEmpty().LogRecords().AppendEmpty()
		return ld
	},
	marked: func(ld plog.Logs, i int) (string, bool) { return getMark(ld.ResourceLogs().At(i).Resource()) },
	queue: func(
		ctx context.Context, set exporter.Settings, cfg component.Config, push consumeFunc[plog.Logs], opts ...exporterhelper.Option,
	) (running[plog.Logs], error) {
		e, err := exporterhelper.NewLogs(ctx, set, cfg, push, opts...)
		if err != nil {
			return running[plog.Logs]{}, err
		}
		return running[plog.Logs]{e, e.ConsumeLogs}, nil
	},
}

func copyLogs(ld plog.Logs) plog.Logs {
	to := plog.NewLogs()
	ld.CopyTo(to)
	return to
}

func keepRecords(ld plog.Logs, want func(int) bool) {
	i := -1
	ld.ResourceLogs().RemoveIf(func(rl plog.ResourceLogs) bool {
		rl.ScopeLogs().RemoveIf(func(sl plog.ScopeLogs) bool {
			sl.LogRecords().RemoveIf(func(plog.LogRecord) bool { i++; return !want(i) })
			return sl.LogRecords().Len() == 0
		})
		return rl.ScopeLogs().Len() == 0
	})
}
