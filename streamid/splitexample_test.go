// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid_test

import (
	"fmt"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/streamid"
)

// A gateway sends each stream to the worker that has it. Here each worker has a range of keys; a ring has the worker of
// each of a few hundred thousand small ranges.
func ExampleSplitter() {
	workers := []string{"worker-0", "worker-1", "worker-2"}
	owner := func(key uint64) int { return int(key >> 32 * uint64(len(workers)) >> 32) }

	key, err := streamid.ParseKey("streamID", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	gateway := &streamid.Splitter{Key: key}

	batch := pmetric.NewMetrics()
	rm := batch.ResourceMetrics().AppendEmpty()
	rm.Resource().Attributes().PutStr("service.name", "checkout")
	orders := rm.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	orders.SetName("orders")
	points := orders.SetEmptySum().DataPoints()
	for _, country := range []string{"NZ", "AU", "FJ", "WS", "TO", "NZ"} {
		points.AppendEmpty().Attributes().PutStr("country", country)
	}

	parts, _ := gateway.Metrics(batch, len(workers), owner, nil)
	for _, part := range parts {
		rm := part.Batch.ResourceMetrics().At(0)
		service, _ := rm.Resource().Attributes().Get("service.name")
		m := rm.ScopeMetrics().At(0).Metrics().At(0)
		fmt.Printf("%s: %s %s:", workers[part.Owner], service.Str(), m.Name())
		for _, point := range m.Sum().DataPoints().All() {
			country, _ := point.Attributes().Get("country")
			fmt.Print(" ", country.Str())
		}
		fmt.Println()
	}
	// Output:
	// worker-1: checkout orders: NZ AU TO NZ
	// worker-0: checkout orders: FJ
	// worker-2: checkout orders: WS
}

// What has none of the attributes is routed by its resource, and counted.
func ExampleParseKey() {
	key, err := streamid.ParseKey("attributes", []string{"tenant"})
	fmt.Println(key, err, key.Check(streamid.SignalMetrics))
	byTenant := &streamid.Splitter{Key: key}

	batch := pmetric.NewMetrics()
	m := batch.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	points := m.SetEmptyGauge().DataPoints()
	points.AppendEmpty().Attributes().PutStr("tenant", "acme")
	points.AppendEmpty()
	_, missing := byTenant.Metrics(batch, 1, func(uint64) int { return 0 }, nil)
	fmt.Println(missing, "point without a tenant")

	_, err = streamid.ParseKey("attributes", nil)
	fmt.Println(err)
	_, err = streamid.ParseKey("pod", nil)
	fmt.Println(err)
	key, _ = streamid.ParseKey("traceID", nil)
	fmt.Println(key.Check(streamid.SignalMetrics))
	// Output:
	// attributes ["tenant"] <nil> <nil>
	// 1 point without a tenant
	// routing key "attributes" needs at least one attribute
	// unknown routing key "pod", want one of streamID, metric, resource, service, traceID, attributes, aggregate
	// routing key "traceID" does not go with metrics
}
