// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"context"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/deltaring/deltaring/ring/ringexporter/internal/metadata"
)

// NewFactory returns the factory of exporter "ring", for metrics, traces and logs; its configuration is a *Config.
func NewFactory() exporter.Factory {
	return exporter.NewFactory(
		metadata.Type,
		createDefaultConfig,
		exporter.WithMetrics(createMetrics, metadata.MetricsStability),
		exporter.WithTraces(createTraces, metadata.TracesStability),
		exporter.WithLogs(createLogs, metadata.LogsStability),
	)
}

func createMetrics(ctx context.Context, set exporter.Settings, cfg component.Config) (exporter.Metrics, error) {
	e, err := newExporter(set, cfg.(*Config), &metrics)
	if err != nil {
		return nil, err
	}
	r, err := e.build(ctx)
	return metricsExporter{r}, err
}

func createTraces(ctx context.Context, set exporter.Settings, cfg component.Config) (exporter.Traces, error) {
	e, err := newExporter(set, cfg.(*Config), &traces)
	if err != nil {
		return nil, err
	}
	r, err := e.build(ctx)
	return tracesExporter{r}, err
}

func createLogs(ctx context.Context, set exporter.Settings, cfg component.Config) (exporter.Logs, error) {
	e, err := newExporter(set, cfg.(*Config), &logs)
	if err != nil {
		return nil, err
	}
	r, err := e.build(ctx)
	return logsExporter{r}, err
}

type metricsExporter struct{ running[pmetric.Metrics] }

func (e metricsExporter) ConsumeMetrics(ctx context.Context, data pmetric.Metrics) error {
	return e.consume(ctx, data)
}

type tracesExporter struct{ running[ptrace.Traces] }

func (e tracesExporter) ConsumeTraces(ctx context.Context, data ptrace.Traces) error {
	return e.consume(ctx, data)
}

type logsExporter struct{ running[plog.Logs] }

func (e logsExporter) ConsumeLogs(ctx context.Context, data plog.Logs) error {
	return e.consume(ctx, data)
}
