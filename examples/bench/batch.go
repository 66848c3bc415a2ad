// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"runtime"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// The shape of the standard batch, and the time it covers.
const (
	resources      = 10
	perResource    = 10
	perMetric      = 10
	pointsPerBatch = resources * perResource * perMetric
	interval       = 10_000_000_000            // ns between two batches of the same streams
	epoch          = 1_760_000_000_000_000_000 // ns, the start of the first interval
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

// batch is a batch of some size; the standard one has 10 resources with 6 attributes each, 10 metrics with 10 points each,
// 4 attributes per point. One batch serves any number of streams: load gives its resources the identities of others.
//
// A batch is reset in place rather than built anew because real batches arrive warm, from a decoder that has just
// written them; a pool of a million prebuilt points would have every side wait for memory that is not theirs.
type batch struct {
	kind      kind
	resources int
	points    int
	md        pmetric.Metrics
}

// newBatch returns a standard batch with the memory layout of one that came over OTLP.
func newBatch(k kind) (*batch, error) { return newSized(k, pointsPerBatch) }

// newSized returns a batch of so many points: a resource for every 100, or one with a metric for every 10.
func newSized(k kind, points int) (*batch, error) {
	md := pmetric.NewMetrics()
	b := &batch{kind: k, resources: max(1, points/(perResource*perMetric)), md: md}
	for r := range b.resources {
		rm := md.ResourceMetrics().AppendEmpty()
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
		for _, name := range metricNames[:min(perResource, points/perMetric)] {
			m := sm.Metrics().AppendEmpty()
			m.SetName(name)
			m.SetUnit("{request}")
			m.SetDescription("Number of requests by route and status.")
			k.setEmpty(m)
			for p := range perMetric {
				a := k.appendPoint(m)
				a.PutStr("http.request.method", "GET")
				a.PutStr("http.route", routes[p%len(routes)])
				a.PutInt("http.response.status_code", statuses[p/len(routes)])
				a.PutStr("server.address", "shop.example.com")
			}
		}
	}
	if b.points = md.DataPointCount(); b.points != points || points == 0 {
		return nil, fmt.Errorf("batch of %d points: want a multiple of 10 below 100, or of 100", points)
	}
	b.load(0, 0)
	decoded, err := b.decoded()
	if err != nil {
		return nil, err
	}
	b.md = decoded
	return b, nil
}

// load makes the batch the delta of the index-th thousand streams (or as many as it has points) in the given interval,
// whatever a conversion has left in it, and brings all of it into the processor's cache.
func (b *batch) load(index, interval int) {
	b.name(index)
	b.reset(interval)
	b.touch()
}

// name gives the resources the identities of the batch with this index.
func (b *batch) name(index int) {
	for r, rm := range b.md.ResourceMetrics().All() {
		nameResource(rm.Resource(), uint64(index*b.resources+r))
	}
}

// nameResource makes a resource the pod with this number.
func nameResource(r pcommon.Resource, number uint64) {
	// A bijection of 64 bits: distinct resources get distinct, random-looking identities.
	id := mix(number)
	a := r.Attributes()
	a.PutStr("service.instance.id", fmt.Sprintf("production-eu-west.checkout-%016x", id))
	a.PutStr("k8s.pod.name", fmt.Sprintf("checkout-6d4cf56db6-%05x", id>>44))
	a.PutStr("k8s.pod.uid", fmt.Sprintf("%08x-%04x-4000-8000-%012x", id>>32, id>>16&0xffff, id*0x9e3779b97f4a7c15>>16))
}

// reset restores temporality, times and values.
func (b *batch) reset(n int) {
	start := pcommon.Timestamp(epoch + n*interval)
	for _, rm := range b.md.ResourceMetrics().All() {
		for _, sm := range rm.ScopeMetrics().All() {
			for _, m := range sm.Metrics().All() {
				b.kind.reset(m, start, start+interval)
			}
		}
	}
}

// touch reads every attribute.
func (b *batch) touch() {
	n := 0
	count := func(attrs pcommon.Map) {
		for k, v := range attrs.All() {
			n += int(k[0])
			if v.Type() == pcommon.ValueTypeStr {
				n += int(v.Str()[0])
			}
		}
	}
	for _, rm := range b.md.ResourceMetrics().All() {
		count(rm.Resource().Attributes())
		for _, sm := range rm.ScopeMetrics().All() {
			for _, m := range sm.Metrics().All() {
				eachPoint(m, count)
			}
		}
	}
	runtime.KeepAlive(n)
}

// check reports the first point that is not the total of n intervals.
func (b *batch) check(n int) error { return b.checkEach(func(int) int { return n }) }

// checkEach is check where the r-th resource has seen n(r) intervals.
func (b *batch) checkEach(n func(r int) int) error {
	if got := b.md.DataPointCount(); got != b.points {
		return fmt.Errorf("%s: %d points left of %d", b.kind, got, b.points)
	}
	for r, rm := range b.md.ResourceMetrics().All() {
		for _, sm := range rm.ScopeMetrics().All() {
			for _, m := range sm.Metrics().All() {
				if err := b.kind.check(m, n(r)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// encoded returns b as OTLP.
func (b *batch) encoded() ([]byte, error) {
	return new(pmetric.ProtoMarshaler).MarshalMetrics(b.md)
}

// decoded returns a copy that shares no memory with b, as a receiver would have decoded it.
func (b *batch) decoded() (pmetric.Metrics, error) {
	wire, err := b.encoded()
	if err != nil {
		return pmetric.Metrics{}, fmt.Errorf("encode batch: %w", err)
	}
	md, err := new(pmetric.ProtoUnmarshaler).UnmarshalMetrics(wire)
	if err != nil {
		return pmetric.Metrics{}, fmt.Errorf("decode batch: %w", err)
	}
	return md, nil
}

// eachPoint calls f with the attributes of every point of m.
func eachPoint(m pmetric.Metric, f func(pcommon.Map)) {
	switch m.Type() {
	case pmetric.MetricTypeSum:
		for _, p := range m.Sum().DataPoints().All() {
			f(p.Attributes())
		}
	case pmetric.MetricTypeHistogram:
		for _, p := range m.Histogram().DataPoints().All() {
			f(p.Attributes())
		}
	case pmetric.MetricTypeExponentialHistogram:
		for _, p := range m.ExponentialHistogram().DataPoints().All() {
			f(p.Attributes())
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
