// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math/rand/v2"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// The sizes of the built-in population; README.md repeats them. What is not listed here is drawn from the seed.
const (
	services    = 40 // whose numbers of tasks fall as 1, 1/2, 1/3, ...
	tasks       = 600
	zones       = 3
	minRoutes   = 4 // of a service, and so on
	maxRoutes   = 24
	maxPeers    = 8
	maxDBCalls  = 12
	maxCounters = 10 // of its own
	maxOutcomes = 12 // of each of these
	exports     = 6  // in the minute that is looked at
)

// addSynthetic adds one minute of 40 services in 600 containers of ECS that export every 10 s. The same seed is the same
// population for good.
func addSynthetic(p *population, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 0))
	var harmonic float64
	for i := range services {
		harmonic += 1 / float64(i+1)
	}
	left := tasks
	for i := range services {
		n := max(1, int(float64(tasks)/harmonic/float64(i+1)))
		if i == services-1 || n > left-(services-1-i) {
			n = max(1, left-(services-1-i))
		}
		if left -= n; i == services-1 {
			n += left
		}
		s := newService(rng, i)
		for range n {
			p.add(s.task(rng))
		}
	}
}

// service is what all tasks of a service have in common.
type service struct {
	name     string
	version  string
	routes   []string
	peers    int
	dbCalls  int
	counters []int // number of outcomes of each
}

func newService(rng *rand.Rand, number int) service {
	s := service{
		name:    fmt.Sprintf("service-%02d", number),
		version: fmt.Sprintf("1.%d.%d", rng.IntN(40), rng.IntN(10)),
		peers:   1 + rng.IntN(maxPeers),
		dbCalls: rng.IntN(maxDBCalls + 1),
	}
	for i := range minRoutes + rng.IntN(maxRoutes-minRoutes+1) {
		s.routes = append(s.routes, fmt.Sprintf("/v1/resource-%d/{id}", i))
	}
	for range 1 + rng.IntN(maxCounters) {
		s.counters = append(s.counters, 1+rng.IntN(maxOutcomes))
	}
	return s
}

// runtimeMetrics are gauges that every task exports every time: name, and how many of them.
var runtimeMetrics = []struct {
	name    string
	streams int
}{
	{"process.cpu.time", 2}, {"process.memory.usage", 1}, {"process.open_file_descriptor.count", 1},
	{"go.memory.used", 2}, {"go.memory.limit", 1}, {"go.memory.allocated", 1}, {"go.memory.allocations", 1},
	{"go.goroutine.count", 1}, {"go.processor.limit", 1}, {"go.config.gogc", 1},
	{"system.network.io", 4}, {"system.disk.io", 4},
}

// task returns what a new task exports in a minute.
func (s service) task(rng *rand.Rand) pmetric.Metrics {
	batch := pmetric.NewMetrics()
	rm := batch.ResourceMetrics().AppendEmpty()
	id := fmt.Sprintf("%016x%016x", rng.Uint64(), rng.Uint64())
	attrs := rm.Resource().Attributes()
	attrs.PutStr("service.name", s.name)
	attrs.PutStr("service.version", s.version)
	attrs.PutStr("service.instance.id", id)
	attrs.PutStr("cloud.provider", "aws")
	attrs.PutStr("cloud.platform", "aws_ecs")
	attrs.PutStr("cloud.availability_zone", fmt.Sprintf("eu-central-1%c", 'a'+rng.IntN(zones)))
	attrs.PutStr("aws.ecs.cluster.arn", "arn:aws:ecs:eu-central-1:123456789012:cluster/main")
	attrs.PutStr("aws.ecs.task.family", s.name)
	attrs.PutStr("aws.ecs.task.id", id)

	traffic := rng.Float64() // of the task, quiet to busy
	sm := rm.ScopeMetrics().AppendEmpty()
	sm.Scope().SetName("runtime")
	for _, m := range runtimeMetrics {
		points := gauge(sm, m.name)
		for i := range m.streams {
			repeat(points.AppendEmpty, exports, func(a pcommon.Map) { a.PutInt("part", int64(i)) })
		}
	}
	sm = rm.ScopeMetrics().AppendEmpty()
	sm.Scope().SetName("http")
	server := histogram(sm, "http.server.request.duration")
	for i, route := range s.routes {
		for j, status := range []int64{200, 404, 500} {
			// Deltas: a stream is exported only if something happened, which is rarer for late routes and for errors.
			repeat(server.AppendEmpty, active(rng, traffic/float64(1+i/4)/float64(1+3*j)), func(a pcommon.Map) {
				a.PutStr("http.request.method", []string{"GET", "POST"}[i%2])
				a.PutStr("http.route", route)
				a.PutInt("http.response.status_code", status)
			})
		}
	}
	client := histogram(sm, "http.client.request.duration")
	for i := range s.peers {
		repeat(client.AppendEmpty, active(rng, traffic), func(a pcommon.Map) {
			a.PutStr("http.request.method", "GET")
			a.PutStr("server.address", fmt.Sprintf("peer-%d.internal", i))
			a.PutInt("http.response.status_code", 200)
		})
	}
	sm = rm.ScopeMetrics().AppendEmpty()
	sm.Scope().SetName("db")
	db := histogram(sm, "db.client.operation.duration")
	for i := range s.dbCalls {
		repeat(db.AppendEmpty, active(rng, traffic), func(a pcommon.Map) {
			a.PutStr("db.system.name", "postgresql")
			a.PutStr("db.operation.name", []string{"SELECT", "INSERT", "UPDATE"}[i%3])
			a.PutStr("db.collection.name", fmt.Sprintf("table_%d", i/3))
		})
	}
	sm = rm.ScopeMetrics().AppendEmpty()
	sm.Scope().SetName(s.name)
	for c, outcomes := range s.counters {
		points := counter(sm, fmt.Sprintf("%s.counter_%d", s.name, c))
		for i := range outcomes {
			repeat(points.AppendEmpty, active(rng, traffic), func(a pcommon.Map) {
				a.PutStr("outcome", fmt.Sprintf("outcome-%d", i))
			})
		}
	}
	return batch
}

// active returns in how many exports of the minute a stream appears, at least in one.
func active(rng *rand.Rand, probability float64) int {
	n := 0
	for range exports {
		if rng.Float64() < probability {
			n++
		}
	}
	return max(n, 1)
}

func repeat[P interface{ Attributes() pcommon.Map }](appendPoint func() P, n int, fill func(pcommon.Map)) {
	for range n {
		fill(appendPoint().Attributes())
	}
}

func gauge(sm pmetric.ScopeMetrics, name string) pmetric.NumberDataPointSlice {
	m := sm.Metrics().AppendEmpty()
	m.SetName(name)
	return m.SetEmptyGauge().DataPoints()
}

func counter(sm pmetric.ScopeMetrics, name string) pmetric.NumberDataPointSlice {
	m := sm.Metrics().AppendEmpty()
	m.SetName(name)
	sum := m.SetEmptySum()
	sum.SetIsMonotonic(true)
	sum.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	return sum.DataPoints()
}

func histogram(sm pmetric.ScopeMetrics, name string) pmetric.HistogramDataPointSlice {
	m := sm.Metrics().AppendEmpty()
	m.SetName(name)
	m.SetUnit("s")
	h := m.SetEmptyHistogram()
	h.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	return h.DataPoints()
}
