// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"time"

	"github.com/open-telemetry/opentelemetry-collector-contrib/processor/deltatocumulativeprocessor"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/processor"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/streamid"
)

// maxStreams is above every number of streams measured here, for both sides.
const maxStreams = 100_000_000

// side is one of the things compared.
type side struct {
	name string
	// converts is set where deltas become cumulative, in place: the output is checked, and the input is decoded anew
	// while streams open, so that strings a side keeps are its own.
	converts bool
	open     func() (consume, error)
}

// consume takes a batch of deltas. The state of a side lives as long as its consume does.
type consume func(md pmetric.Metrics) error

// sides in the order of their turns. What makes garbage comes last.
var sides = []side{
	{name: nameOurs, converts: true, open: openOurs},
	{name: nameHash, open: openHash},
	{name: nameMap, open: openMap},
	{name: nameContrib, converts: true, open: openContrib},
}

// The sides' names in tables and JSON.
const (
	nameOurs    = "d2c"
	nameContrib = "contrib"
	nameHash    = "hash"
	nameMap     = "hash+map"
)

// openOurs returns the library under test.
func openOurs() (consume, error) {
	conv, err := newConverter()
	if err != nil {
		return nil, err
	}
	return func(md pmetric.Metrics) error { return convert(conv, md) }, nil
}

func newConverter() (*d2c.Converter, error) {
	cfg := d2c.DefaultConfig()
	cfg.MaxStreams = maxStreams
	return d2c.New(cfg)
}

// convert fails unless every point was added as a first or aligned one: no other outcome is measured, but where it says so.
func convert(conv *d2c.Converter, md pmetric.Metrics) error {
	return convertTo(conv, md, inOrder)
}

// inOrder are the outcomes of deltas that come one after the other.
var inOrder = []d2c.Outcome{d2c.AddedFirst, d2c.AddedAligned}

// convertTo fails unless every point has one of these outcomes.
func convertTo(conv *d2c.Converter, md pmetric.Metrics, allowed []d2c.Outcome) error {
	r, err := conv.Convert(context.Background(), md)
	if err != nil {
		return err
	}
	var others uint64
	for _, n := range r.Counts() {
		others += n
	}
	for _, o := range allowed {
		others -= r.Count(o)
	}
	if others != 0 {
		return fmt.Errorf("outcomes are %v, want none but %v", maps.Collect(r.Counts()), allowed)
	}
	return nil
}

// openContrib returns contrib's deltatocumulative processor. It gets the benefit of the doubt: telemetry is a no-op, the
// next consumer does nothing, and it is not started, so that no sweep runs.
func openContrib() (consume, error) {
	proc, err := newContrib(componenttest.NewNopTelemetrySettings(), 0)
	if err != nil {
		return nil, err
	}
	return func(md pmetric.Metrics) error { return proc.ConsumeMetrics(context.Background(), md) }, nil
}

// newContrib has contrib's own factory make its processor. Once started, it forgets streams idle for longer than maxStale;
// zero is its default.
func newContrib(telemetry component.TelemetrySettings, maxStale time.Duration) (processor.Metrics, error) {
	factory := deltatocumulativeprocessor.NewFactory()
	cfg := factory.CreateDefaultConfig().(*deltatocumulativeprocessor.Config)
	cfg.MaxStreams = maxStreams
	if maxStale > 0 {
		cfg.MaxStale = maxStale
	}
	next, err := consumer.NewMetrics(func(context.Context, pmetric.Metrics) error { return nil })
	if err != nil {
		return nil, err
	}
	return factory.CreateMetrics(context.Background(), processor.Settings{
		ID:                component.NewID(factory.Type()),
		TelemetrySettings: telemetry,
	}, cfg, next)
}

// openHash returns what any converter must do at the least: walk the batch and identify every stream.
func openHash() (consume, error) {
	return func(md pmetric.Metrics) error {
		var n uint64
		identify(md, func(id streamid.ID) { n += id.Lo })
		runtime.KeepAlive(n)
		return nil
	}, nil
}

// openMap returns the same plus one access to a Go map of all streams.
func openMap() (consume, error) {
	streams := make(map[streamid.ID]uint64)
	return func(md pmetric.Metrics) error {
		identify(md, func(id streamid.ID) { streams[id]++ })
		return nil
	}, nil
}

func identify(md pmetric.Metrics, f func(streamid.ID)) {
	for _, rm := range md.ResourceMetrics().All() {
		resource := streamid.Seed(0).Resource(rm.Resource())
		for _, sm := range rm.ScopeMetrics().All() {
			scope := resource.Scope(sm.Scope())
			for _, m := range sm.Metrics().All() {
				metric := scope.Metric(m)
				eachPoint(m, func(attrs pcommon.Map) { f(metric.Point(attrs)) })
			}
		}
	}
}
