// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid_test

import (
	"fmt"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/streamid"
)

// The one-shot form, for a single point.
func ExampleOf() {
	resource := pcommon.NewResource()
	resource.Attributes().PutStr("service.name", "checkout")
	scope := pcommon.NewInstrumentationScope()
	scope.SetName("shop/metrics")
	metric := pmetric.NewMetric()
	metric.SetName("orders")
	metric.SetUnit("{order}")
	metric.SetEmptySum().SetIsMonotonic(true)
	metric.Sum().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	point := metric.Sum().DataPoints().AppendEmpty()
	point.Attributes().PutStr("country", "NZ")
	point.Attributes().PutBool("gift", false)
	point.SetIntValue(3)

	fmt.Println(streamid.Of(resource, scope, metric, point.Attributes()))

	// Another order of attributes is the same stream, another value of one is not.
	point.Attributes().Clear()
	point.Attributes().PutBool("gift", false)
	point.Attributes().PutStr("country", "NZ")
	fmt.Println(streamid.Of(resource, scope, metric, point.Attributes()))
	point.Attributes().PutBool("gift", true)
	fmt.Println(streamid.Of(resource, scope, metric, point.Attributes()))
	// Output:
	// c1647b00b8df7524f2e98d668797a0fc
	// c1647b00b8df7524f2e98d668797a0fc
	// 30f4fa6ec6d36b4af27f4051be1c9edf
}

// The batch form hashes what points share once. Here it counts the streams of a batch.
func ExampleSeed() {
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	rm.Resource().Attributes().PutStr("service.name", "checkout")
	sm := rm.ScopeMetrics().AppendEmpty()
	for _, name := range []string{"orders", "refunds"} {
		m := sm.Metrics().AppendEmpty()
		m.SetName(name)
		points := m.SetEmptySum().DataPoints()
		for _, country := range []string{"NZ", "AU", "NZ"} {
			points.AppendEmpty().Attributes().PutStr("country", country)
		}
	}

	points := 0
	streams := map[streamid.ID]bool{}
	for _, rm := range md.ResourceMetrics().All() {
		resource := streamid.Seed(0).Resource(rm.Resource())
		for _, sm := range rm.ScopeMetrics().All() {
			scope := resource.Scope(sm.Scope())
			for _, m := range sm.Metrics().All() {
				metric := scope.Metric(m)
				for _, p := range m.Sum().DataPoints().All() {
					streams[metric.Point(p.Attributes())] = true
					points++
				}
			}
		}
	}
	fmt.Println(points, "points,", len(streams), "streams")
	// Output: 6 points, 4 streams
}

// A secret seed keeps strangers who choose attributes from preparing collisions at home.
func ExampleSeed_secret() {
	seed := streamid.Seed(0x5eed) // from configuration: the same for the whole fleet

	attrs := pcommon.NewMap()
	attrs.PutStr("user.agent", "chosen by a stranger")
	res, scope, metric := pcommon.NewResource(), pcommon.NewInstrumentationScope(), pmetric.NewMetric()
	secret := seed.Resource(res).Scope(scope).Metric(metric).Point(attrs)
	public := streamid.Of(res, scope, metric, attrs)
	fmt.Println(secret == public)
	// Output: false
}

func ExampleParse() {
	id, err := streamid.Parse("00112233445566778899aabbccddeeff")
	fmt.Println(id, err)
	_, err = streamid.Parse("not an id")
	fmt.Println(err)
	// Output:
	// 00112233445566778899aabbccddeeff <nil>
	// streamid: id: want 32 hexadecimal digits, got 9 bytes
}
