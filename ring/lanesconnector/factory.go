// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package lanesconnector

import (
	"context"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/connector"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/deltaring/deltaring/ring/lanesconnector/internal/metadata"
)

// NewFactory returns the factory of connector "lanes", for metrics, traces and logs; its configuration is a *Config.
func NewFactory() connector.Factory {
	return connector.NewFactory(
		metadata.Type,
		createDefaultConfig,
		connector.WithMetricsToMetrics(createMetrics, metadata.MetricsToMetricsStability),
		connector.WithTracesToTraces(createTraces, metadata.TracesToTracesStability),
		connector.WithLogsToLogs(createLogs, metadata.LogsToLogsStability),
	)
}

func createMetrics(_ context.Context, set connector.Settings, cfg component.Config, next consumer.Metrics) (connector.Metrics, error) {
	c, err := newConnector(set, cfg.(*Config), &metrics, next.ConsumeMetrics, next)
	if err != nil {
		return nil, err
	}
	return metricsConnector{c.running()}, nil
}

func createTraces(_ context.Context, set connector.Settings, cfg component.Config, next consumer.Traces) (connector.Traces, error) {
	c, err := newConnector(set, cfg.(*Config), &traces, next.ConsumeTraces, next)
	if err != nil {
		return nil, err
	}
	return tracesConnector{c.running()}, nil
}

func createLogs(_ context.Context, set connector.Settings, cfg component.Config, next consumer.Logs) (connector.Logs, error) {
	c, err := newConnector(set, cfg.(*Config), &logs, next.ConsumeLogs, next)
	if err != nil {
		return nil, err
	}
	return logsConnector{c.running()}, nil
}

type metricsConnector struct{ running[pmetric.Metrics] }

func (c metricsConnector) ConsumeMetrics(ctx context.Context, data pmetric.Metrics) error {
	return c.consume(ctx, data)
}

type tracesConnector struct{ running[ptrace.Traces] }

func (c tracesConnector) ConsumeTraces(ctx context.Context, data ptrace.Traces) error {
	return c.consume(ctx, data)
}

type logsConnector struct{ running[plog.Logs] }

func (c logsConnector) ConsumeLogs(ctx context.Context, data plog.Logs) error {
	return c.consume(ctx, data)
}
