// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2cprocessor

import (
	"context"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/processor"
	"go.opentelemetry.io/collector/processor/processorhelper"

	"github.com/deltaring/deltaring/processor/d2cprocessor/internal/metadata"
)

// NewFactory returns the factory of processor "d2c". It makes metrics processors only; its configuration is a *Config.
func NewFactory() processor.Factory {
	return processor.NewFactory(
		metadata.Type,
		createDefaultConfig,
		processor.WithMetrics(createMetrics, metadata.MetricsStability),
	)
}

// createMetrics wraps the processor in processorhelper: it keeps the path of a batch to one function, adds the
// otelcol_processor_* telemetry that dashboards expect of every processor, and returns the next component's error as it
// is. It counts data points but neither reads nor copies them.
func createMetrics(
	ctx context.Context, set processor.Settings, cfg component.Config, next consumer.Metrics,
) (processor.Metrics, error) {
	p, err := newProcessor(set, cfg.(*Config))
	if err != nil {
		return nil, err
	}
	m, err := processorhelper.NewMetrics(ctx, set, cfg, next, p.process,
		processorhelper.WithCapabilities(consumer.Capabilities{MutatesData: true}),
		processorhelper.WithStart(p.start),
		processorhelper.WithShutdown(p.shutdown),
	)
	p.emitter = newEmitter(p, next)
	if err != nil || p.cfg.ReemitInterval == 0 {
		return m, err
	}
	p.reemitter = newReemitter(p, next)
	return p.reemitter.following(m), nil
}
