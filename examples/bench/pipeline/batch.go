// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strconv"
	"strings"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// The shape of a batch, that of the standard batch of examples/bench.
const (
	resources      = 10
	perResource    = 10
	perMetric      = 10
	pointsPerBatch = resources * perResource * perMetric
)

var metricNames = [perResource]string{
	"http.server.requests", "http.server.request.errors", "http.server.request.body.size",
	"http.server.response.body.size", "http.client.requests", "rpc.server.requests", "rpc.client.requests",
	"messaging.client.sent.messages", "messaging.client.consumed.messages", "db.client.operations",
}

var (
	routes   = [5]string{"/api/v1/orders", "/api/v1/orders/{id}", "/api/v1/customers/{id}/invoices", "/healthz", "/api/v2/search"}
	statuses = [2]int64{200, 503}
)

// kind is a kind of metric. Its word is what -kinds takes and the tables show.
type kind string

const (
	kindSum       kind = "sum"       // monotonic, int64
	kindHistogram kind = "histogram" // 16 buckets, 15 bounds, sum, min, max
)

// bounds are the default bounds of the OpenTelemetry SDKs.
var bounds = []float64{0, 5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10000}

// What a series counts in a round is different for neighbours and from one round to the next, and sums of it need no loop: the sink
// knows what any number of rounds add up to.
func constant(series int) int64 { return int64(1 + series%89) }

// cycle is the other part: that of round n is n%5, and this is what rounds before n have.
func cycle(n int) int64 { return int64(n/5*10 + n%5*(n%5-1)/2) }

// total is what a series counts in rounds from, from+1, …, to-1.
func total(series, from, to int) int64 {
	return int64(to-from)*constant(series) + cycle(to) - cycle(from)
}

// bucket is one bucket's count where the total is v, over so many rounds: one more than its number a round, and all of v in one of them.
func bucket(series, i, rounds int, v int64) uint64 {
	n := uint64(rounds * (i + 1))
	if series%(len(bounds)+1) == i {
		n += uint64(v)
	}
	return n
}

// histogram is the count and the sum where the total is v. Sums are exact in doubles.
func histogram(rounds int, v int64) (count uint64, sum float64) {
	buckets := len(bounds) + 1
	return uint64(rounds*buckets*(buckets+1)/2) + uint64(v), 0.25*float64(v) + 100*float64(rounds)
}

// batch is made the deltas of one thousand series after another.
type batch struct {
	kind kind
	md   pmetric.Metrics
}

func newBatch(k kind) *batch {
	b := &batch{k, pmetric.NewMetrics()}
	for r := range resources {
		rm := b.md.ResourceMetrics().AppendEmpty()
		a := rm.Resource().Attributes()
		a.PutStr("service.name", fmt.Sprintf("checkout-%d", r%3))
		a.PutStr("service.instance.id", "")
		a.PutStr("k8s.namespace.name", "production-eu-west")
		a.PutStr("k8s.node.name", fmt.Sprintf("ip-10-%d-31-%d.eu-west-1.compute.internal", r, 17*r))
		a.PutStr("k8s.pod.name", "")
		a.PutStr("k8s.pod.uid", "")
		sm := rm.ScopeMetrics().AppendEmpty()
		sm.Scope().SetName("go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp")
		sm.Scope().SetVersion("0.63.0")
		for _, name := range metricNames {
			m := sm.Metrics().AppendEmpty()
			m.SetName(name)
			m.SetUnit("{request}")
			m.SetDescription("Number of requests by route and status.")
			b.setEmpty(m)
			for p := range perMetric {
				a := b.appendPoint(m)
				a.PutStr("http.request.method", "GET")
				a.PutStr("http.route", routes[p%len(routes)])
				a.PutInt("http.response.status_code", statuses[p/len(routes)])
				a.PutStr("server.address", "shop.example.com")
			}
		}
	}
	return b
}

func (b *batch) setEmpty(m pmetric.Metric) {
	if b.kind == kindHistogram {
		m.SetEmptyHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		return
	}
	sum := m.SetEmptySum()
	sum.SetIsMonotonic(true)
	sum.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
}

func (b *batch) appendPoint(m pmetric.Metric) pcommon.Map {
	if b.kind == kindHistogram {
		p := m.Histogram().DataPoints().AppendEmpty()
		p.ExplicitBounds().FromRaw(bounds)
		p.BucketCounts().FromRaw(make([]uint64, len(bounds)+1))
		return p.Attributes()
	}
	return m.Sum().DataPoints().AppendEmpty().Attributes()
}

const instancePrefix = "production-eu-west.checkout-"

// load makes the batch the deltas of the index-th thousand series in a round.
func (b *batch) load(index, round int, start, end pcommon.Timestamp) {
	series := index * pointsPerBatch
	for r, rm := range b.md.ResourceMetrics().All() {
		number := index*resources + r
		id := mix(uint64(number))
		a := rm.Resource().Attributes()
		a.PutStr("service.instance.id", instancePrefix+strconv.Itoa(number))
		a.PutStr("k8s.pod.name", fmt.Sprintf("checkout-6d4cf56db6-%05x", id>>44))
		a.PutStr("k8s.pod.uid", fmt.Sprintf("%08x-%04x-4000-8000-%012x", id>>32, id>>16&0xffff, id*0x9e3779b97f4a7c15>>16))
		for _, m := range rm.ScopeMetrics().At(0).Metrics().All() {
			if b.kind == kindSum {
				for _, p := range m.Sum().DataPoints().All() {
					p.SetStartTimestamp(start)
					p.SetTimestamp(end)
					p.SetIntValue(total(series, round, round+1))
					series++
				}
				continue
			}
			for _, p := range m.Histogram().DataPoints().All() {
				p.SetStartTimestamp(start)
				p.SetTimestamp(end)
				v := total(series, round, round+1)
				counts := p.BucketCounts()
				for i := range counts.Len() {
					counts.SetAt(i, bucket(series, i, 1, v))
				}
				count, sum := histogram(1, v)
				p.SetCount(count)
				p.SetSum(sum)
				p.SetMin(0.5)
				p.SetMax(9000)
				series++
			}
		}
	}
}

// mix is the finaliser of SplitMix64 (Steele, Lea, Flood 2014), a bijection.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Where in a batch a series is, by what it comes with.
var metricAt, pointAt = func() (map[string]int, map[string]int) {
	metrics, points := map[string]int{}, map[string]int{}
	for i, name := range metricNames {
		metrics[name] = i
	}
	for i, route := range routes {
		points[route] = i
	}
	return metrics, points
}()

// resourceNumber returns which of all resources it is, or -1.
func resourceNumber(attributes pcommon.Map) int {
	id, _ := attributes.Get("service.instance.id")
	digits, ok := strings.CutPrefix(id.AsString(), instancePrefix)
	if !ok {
		return -1
	}
	n, err := strconv.Atoi(digits)
	if err != nil {
		return -1
	}
	return n
}

// pointNumber returns which point of its metric it is, or -1.
func pointNumber(attributes pcommon.Map) int {
	if attributes.Len() != 4 {
		return -1
	}
	route, ok := attributes.Get("http.route")
	if !ok {
		return -1
	}
	at, ok := pointAt[route.Str()]
	if !ok {
		return -1
	}
	status, _ := attributes.Get("http.response.status_code")
	switch status.Int() {
	case statuses[0]:
		return at
	case statuses[1]:
		return at + len(routes)
	}
	return -1
}
