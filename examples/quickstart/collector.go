// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/provider/yamlprovider"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/otelcol"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/processor"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.opentelemetry.io/collector/service/telemetry"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/zap"

	d2cprocessor "github.com/deltaring/deltaring/processor/d2cprocessor"
)

//go:embed collector.yaml
var collectorYAML string

// collector is a real OpenTelemetry Collector in this process.
type collector struct {
	grpc, http string // where it listens, as host:port

	col    *otelcol.Collector
	exited chan error // closed after the one result of Run
	// self reads the Collector's telemetry about itself.
	self *sdkmetric.ManualReader
}

// startCollector starts a Collector that listens on the two addresses (port 0 means any free one), hands every batch
// that leaves its pipeline to b and notes its warnings there. More configuration URIs override collector.yaml.
func startCollector(ctx context.Context, grpcAddr, httpAddr string, b *board, uris ...string) (*collector, error) {
	for attempt := 1; ; attempt++ {
		c, err := tryCollector(ctx, grpcAddr, httpAddr, b, uris)
		var listen *net.OpError
		if !errors.Is(err, syscall.EADDRINUSE) || !errors.As(err, &listen) {
			return c, err
		}
		if addr := listen.Addr.String(); addr == grpcAddr || addr == httpAddr || attempt == 5 {
			return nil, fmt.Errorf("%w\nanother program has that port; choose others with -grpc and -http", err)
		}
		// Somebody else took a port between our finding it free and listening on it.
	}
}

func tryCollector(ctx context.Context, grpcAddr, httpAddr string, b *board, uris []string) (*collector, error) {
	c := &collector{exited: make(chan error, 1), self: sdkmetric.NewManualReader()}
	// What goes wrong while it starts is an error of ours; after that, its warnings are for the person watching.
	logLevel := zap.NewAtomicLevelAt(zap.FatalLevel)
	var err error
	if c.grpc, err = freePort(grpcAddr); err != nil {
		return nil, fmt.Errorf("-grpc: %w", err)
	}
	if c.http, err = freePort(httpAddr); err != nil {
		return nil, fmt.Errorf("-http: %w", err)
	}
	c.col, err = otelcol.NewCollector(otelcol.CollectorSettings{
		BuildInfo: component.BuildInfo{Command: "quickstart", Description: "deltaring quickstart", Version: "latest"},
		Factories: func() (otelcol.Factories, error) { return factories(b, c.self, logLevel), nil },
		ConfigProviderSettings: otelcol.ConfigProviderSettings{ResolverSettings: confmap.ResolverSettings{
			URIs: append([]string{
				"yaml:" + collectorYAML,
				fmt.Sprintf("yaml:receivers::otlp::protocols::grpc::endpoint: %q", c.grpc),
				fmt.Sprintf("yaml:receivers::otlp::protocols::http::endpoint: %q", c.http),
			}, uris...),
			ProviderFactories: []confmap.ProviderFactory{yamlprovider.NewFactory()},
		}},
		DisableGracefulShutdown: true, // signals are main's business
		SkipSettingGRPCLogger:   true,
	})
	if err != nil {
		return nil, fmt.Errorf("collector: %w", err)
	}
	go func() {
		// Not ctx: an interrupt must first stop the producers, or they would talk to a closed port.
		c.exited <- c.col.Run(context.WithoutCancel(ctx))
		close(c.exited)
	}()

	// The Collector announces its state in no other way.
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for c.col.GetState() != otelcol.StateRunning {
		select {
		case err := <-c.exited:
			return nil, fmt.Errorf("collector: %w", err)
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), c.stop())
		case <-poll.C:
		}
	}
	logLevel.SetLevel(zap.WarnLevel)
	return c, nil
}

// stop shuts the Collector down and waits until all of it has ended.
func (c *collector) stop() error {
	c.col.Shutdown()
	return <-c.exited
}

func factories(b *board, self *sdkmetric.ManualReader, logLevel zap.AtomicLevel) otelcol.Factories {
	show := exporter.NewFactory(component.MustNewType("show"),
		func() component.Config { return &struct{}{} },
		exporter.WithMetrics(func(context.Context, exporter.Settings, component.Config) (exporter.Metrics, error) {
			return showExporter{board: b}, nil
		}, component.StabilityLevelDevelopment))
	plain := exporter.NewFactory(component.MustNewType("plain"),
		func() component.Config { return &struct{}{} },
		exporter.WithMetrics(func(context.Context, exporter.Settings, component.Config) (exporter.Metrics, error) {
			return plainExporter{board: b}, nil
		}, component.StabilityLevelDevelopment))
	otlp, d2c := otlpreceiver.NewFactory(), d2cprocessor.NewFactory()
	return otelcol.Factories{
		Receivers:  map[component.Type]receiver.Factory{otlp.Type(): otlp},
		Processors: map[component.Type]processor.Factory{d2c.Type(): d2c},
		Exporters:  map[component.Type]exporter.Factory{show.Type(): show, plain.Type(): plain},
		Telemetry: telemetry.NewFactory(
			func() component.Config { return &struct{}{} },
			telemetry.WithCreateLogger(func(context.Context, telemetry.LoggerSettings, component.Config) (*zap.Logger, component.ShutdownFunc, error) {
				return zap.New(boardCore{logLevel, b}), nil, nil
			}),
			telemetry.WithCreateMeterProvider(func(context.Context, telemetry.MeterSettings, component.Config) (telemetry.MeterProvider, error) {
				return sdkmetric.NewMeterProvider(sdkmetric.WithReader(self)), nil
			})),
	}
}

// showExporter ends the pipeline. It has no queue: when a producer has its answer, the board has the data.
type showExporter struct {
	component.StartFunc
	component.ShutdownFunc
	board *board
}

func (e showExporter) Capabilities() consumer.Capabilities {
	return consumer.Capabilities{MutatesData: e.board.tamper != nil}
}

func (e showExporter) ConsumeMetrics(_ context.Context, md pmetric.Metrics) error {
	e.board.take(md)
	return nil
}

// accounts is what the Collector's own telemetry says.
type accounts struct {
	accepted int64            // points the receiver took in
	outcomes map[string]int64 // points by what the processor did with them
	gap      time.Duration    // time that no delta covered, summed over streams
	streams  int64            // streams the processor holds
}

// accounts reads the Collector's own telemetry; it fails once the Collector has stopped.
func (c *collector) accounts(ctx context.Context) (accounts, error) {
	a := accounts{outcomes: map[string]int64{}}
	var rm metricdata.ResourceMetrics
	if err := c.self.Collect(ctx, &rm); err != nil {
		return a, fmt.Errorf("collector: reading its own telemetry: %w", err)
	}
	for _, scope := range rm.ScopeMetrics {
		for _, m := range scope.Metrics {
			name := strings.TrimPrefix(m.Name, "otelcol_")
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, dp := range data.DataPoints {
					switch name {
					case "receiver_accepted_metric_points":
						a.accepted += dp.Value
					case "d2c_points":
						outcome, _ := dp.Attributes.Value("outcome")
						a.outcomes[outcome.AsString()] += dp.Value
					case "d2c_streams":
						a.streams += dp.Value
					}
				}
			case metricdata.Sum[float64]:
				for _, dp := range data.DataPoints {
					if name == "d2c_gap_opened" {
						a.gap += time.Duration(dp.Value * float64(time.Second))
					}
				}
			}
		}
	}
	return a, nil
}

func anyPort(addr string) bool { return strings.HasSuffix(addr, ":0") }

// freePort replaces port 0 in addr by a port that was free a moment ago.
func freePort(addr string) (string, error) {
	if !anyPort(addr) {
		return addr, nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
