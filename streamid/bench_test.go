// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid_test

import (
	"fmt"
	"testing"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/streamid"
)

// sink keeps results alive.
var sink streamid.ID

// BenchmarkPoint is the cost per point where resource, scope and metric are already hashed.
func BenchmarkPoint(b *testing.B) {
	for _, n := range []int{1, 4, 16} {
		b.Run(fmt.Sprintf("attributes=%d", n), func(b *testing.B) {
			res, scope, m := benchmarkHeaders()
			metric := streamid.Seed(0).Resource(res).Scope(scope).Metric(m)
			attrs := benchmarkAttributes(n)
			b.ReportAllocs()
			for b.Loop() {
				sink = metric.Point(attrs)
			}
		})
	}
}

// BenchmarkOf is the cost per point where everything is hashed each time: resource with 6 attributes, scope, metric.
func BenchmarkOf(b *testing.B) {
	for _, n := range []int{1, 4, 16} {
		b.Run(fmt.Sprintf("attributes=%d", n), func(b *testing.B) {
			res, scope, m := benchmarkHeaders()
			attrs := benchmarkAttributes(n)
			b.ReportAllocs()
			for b.Loop() {
				sink = streamid.Of(res, scope, m, attrs)
			}
		})
	}
}

// BenchmarkValue is the cost of a point with one attribute of each type.
func BenchmarkValue(b *testing.B) {
	values := map[string]any{
		"empty":  nil,
		"str":    "checkout",
		"bool":   true,
		"int":    int64(200),
		"double": 0.5,
		"bytes":  []byte("checkout"),
		"slice":  []any{"a", "b", "c", "d"},
		"map":    map[string]any{"a": "1", "b": "2", "c": "3", "d": "4"},
	}
	for _, name := range []string{"empty", "str", "bool", "int", "double", "bytes", "slice", "map"} {
		b.Run("type="+name, func(b *testing.B) {
			res, scope, m := benchmarkHeaders()
			metric := streamid.Seed(0).Resource(res).Scope(scope).Metric(m)
			attrs := pcommon.NewMap()
			if err := attrs.FromRaw(map[string]any{"key": values[name]}); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				sink = metric.Point(attrs)
			}
		})
	}
}

func benchmarkHeaders() (pcommon.Resource, pcommon.InstrumentationScope, pmetric.Metric) {
	res := pcommon.NewResource()
	for k, v := range map[string]string{
		"service.name":           "checkout",
		"service.namespace":      "shop",
		"service.instance.id":    "627cc493-f310-47de-96bd-71410b7dec09",
		"k8s.pod.name":           "checkout-6b7d5c9f4-x2x8q",
		"k8s.node.name":          "node-17",
		"deployment.environment": "production",
	} {
		res.Attributes().PutStr(k, v)
	}
	scope := pcommon.NewInstrumentationScope()
	scope.SetName("go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp")
	scope.SetVersion("0.60.0")
	m := pmetric.NewMetric()
	m.SetName("http.server.request.duration")
	m.SetUnit("s")
	m.SetEmptyHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	return res, scope, m
}

func benchmarkAttributes(n int) pcommon.Map {
	attrs := pcommon.NewMap()
	for i := range n {
		switch i {
		case 0:
			attrs.PutStr("http.request.method", "GET")
		case 1:
			attrs.PutStr("http.route", "/api/v1/cart/{id}")
		case 2:
			attrs.PutStr("http.response.status_code", "200")
		case 3:
			attrs.PutStr("server.address", "shop.example.com")
		default:
			attrs.PutStr(fmt.Sprintf("custom.attribute.%02d", i), fmt.Sprintf("value %d", i))
		}
	}
	return attrs
}
