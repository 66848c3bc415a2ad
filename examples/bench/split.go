// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math/bits"
	"runtime"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/ring"
	"github.com/deltaring/deltaring/streamid"
)

// splitOwners is among how many owners a batch is split.
const splitOwners = 10

// splitKeys are the routing keys measured.
var splitKeys = []string{"streamID", "resource", "service"}

// The two ways of splitting in tables and JSON.
const (
	nameSplit = "split"
	nameClone = "clone"
)

// splitRow is the cost of splitting the standard batch by owner.
type splitRow struct {
	Key         string             `json:"key"`
	Owners      int                `json:"owners"`
	Parts       int                `json:"parts"`        // owners that have something in the batch
	NsPoint     map[string]float64 `json:"ns_per_point"` // median of the rounds' means
	Ratio       float64            `json:"ratio"`        // clone over split, the median of the rounds' ratios
	AllocsPoint map[string]float64 `json:"allocs_per_point"`
}

// splitFunc splits a batch, which it may use up, and returns the number of parts and of the points in them.
type splitFunc func(md pmetric.Metrics) (parts func() (parts, points int))

// splitAt measures both ways in turns. Each call gets a batch that was just decoded; the clock is on in the call only.
func splitAt(key string, e effort) (splitRow, error) {
	row := splitRow{Key: key, Owners: splitOwners, NsPoint: map[string]float64{}, AllocsPoint: map[string]float64{}}
	b, err := newBatch(kindSum)
	if err != nil {
		return row, err
	}
	wire, err := b.encoded()
	if err != nil {
		return row, err
	}
	r, err := ring.New(ring.Equal(fleetNames(0, splitOwners)...))
	if err != nil {
		return row, err
	}
	ours, err := splitOurs(key, r.Owner)
	if err != nil {
		return row, err
	}
	ways := []struct {
		name  string
		split splitFunc
		calls int
	}{{nameSplit, ours, e.calls}, {nameClone, splitClone(key, r.Owner), max(1, e.calls/4)}}

	// The collector runs as often as the heap doubles; with little more than a batch on it, that would be all it does.
	heap := make([]byte, 64<<20)
	means := make(map[string][]float64)
	for range e.rounds {
		runtime.GC()
		for _, way := range ways {
			mean, parts, err := splitTurn(wire, way.split, way.calls)
			if err != nil {
				return row, fmt.Errorf("%s by %s: %w", way.name, key, err)
			}
			means[way.name] = append(means[way.name], mean)
			if way.name == nameSplit {
				row.Parts = parts
			}
		}
	}
	for _, way := range ways {
		row.NsPoint[way.name] = median(means[way.name])
		if row.AllocsPoint[way.name], err = splitAllocs(wire, way.split, e); err != nil {
			return row, err
		}
	}
	runtime.KeepAlive(heap)
	row.Ratio = ratio(means[nameClone], means[nameSplit])
	return row, nil
}

// splitTurn returns the mean ns per point of so many calls. It is an error if points are lost or doubled.
func splitTurn(wire []byte, split splitFunc, calls int) (mean float64, parts int, err error) {
	var spent time.Duration
	for range calls {
		md, err := new(pmetric.ProtoUnmarshaler).UnmarshalMetrics(wire)
		if err != nil {
			return 0, 0, err
		}
		begin := time.Now()
		result := split(md)
		spent += time.Since(begin)
		var points int
		if parts, points = result(); points != pointsPerBatch {
			return 0, 0, fmt.Errorf("%d points in parts, want %d", points, pointsPerBatch)
		}
	}
	return float64(spent.Nanoseconds()) / float64(calls*pointsPerBatch), parts, nil
}

// splitAllocs returns the allocations per point, the mean of 20 batches at most; the first few may have to make working
// memory.
func splitAllocs(wire []byte, split splitFunc, e effort) (float64, error) {
	const ignored = 3
	counted := min(20, e.calls)
	var before, after runtime.MemStats
	var mallocs uint64
	for i := range ignored + counted {
		md, err := new(pmetric.ProtoUnmarshaler).UnmarshalMetrics(wire)
		if err != nil {
			return 0, err
		}
		runtime.ReadMemStats(&before)
		split(md)
		runtime.ReadMemStats(&after)
		if i >= ignored {
			mallocs += after.Mallocs - before.Mallocs
		}
	}
	return float64(mallocs) / float64(counted*pointsPerBatch), nil
}

// splitOurs is streamid.Splitter.
func splitOurs(key string, owner func(uint64) int) (splitFunc, error) {
	k, err := streamid.ParseKey(key, nil)
	if err != nil {
		return nil, err
	}
	s := &streamid.Splitter{Key: k}
	dst := make([]streamid.Part[pmetric.Metrics], 0, splitOwners)
	var parts []streamid.Part[pmetric.Metrics]
	count := func() (int, int) {
		points := 0
		for _, p := range parts {
			points += p.Batch.DataPointCount()
		}
		return len(parts), points
	}
	return func(md pmetric.Metrics) func() (int, int) {
		parts, _ = s.Metrics(md, splitOwners, owner, dst)
		return count
	}, nil
}

// splitClone is cloneByPoint.
func splitClone(key string, owner func(uint64) int) splitFunc {
	var parts map[int]pmetric.Metrics
	count := func() (int, int) {
		points := 0
		for _, md := range parts {
			points += md.DataPointCount()
		}
		return len(parts), points
	}
	return func(md pmetric.Metrics) func() (int, int) {
		parts = cloneByPoint(md, key, owner)
		return count
	}
}

// cloneByPoint is the naive way: each point becomes a batch of its own, with copies of its resource, scope and metric, and
// the batches of an owner are put together. It gets our hash, taken in steps, so that cloning is all there is between the
// two. Points are sums.
func cloneByPoint(md pmetric.Metrics, key string, owner func(uint64) int) map[int]pmetric.Metrics {
	parts := make(map[int]pmetric.Metrics)
	for _, rm := range md.ResourceMetrics().All() {
		resource := streamid.Seed(0).Resource(rm.Resource())
		routeKey := resourceKey(key, rm.Resource())
		for _, sm := range rm.ScopeMetrics().All() {
			scope := resource.Scope(sm.Scope())
			for _, m := range sm.Metrics().All() {
				metric := scope.Metric(m)
				for _, point := range m.Sum().DataPoints().All() {
					clone := pmetric.NewMetrics()
					toResource := clone.ResourceMetrics().AppendEmpty()
					rm.Resource().CopyTo(toResource.Resource())
					toResource.SetSchemaUrl(rm.SchemaUrl())
					toScope := toResource.ScopeMetrics().AppendEmpty()
					sm.Scope().CopyTo(toScope.Scope())
					toScope.SetSchemaUrl(sm.SchemaUrl())
					toMetric := toScope.Metrics().AppendEmpty()
					toMetric.SetName(m.Name())
					toMetric.SetDescription(m.Description())
					toMetric.SetUnit(m.Unit())
					m.Metadata().CopyTo(toMetric.Metadata())
					sum := toMetric.SetEmptySum()
					sum.SetIsMonotonic(m.Sum().IsMonotonic())
					sum.SetAggregationTemporality(m.Sum().AggregationTemporality())
					point.CopyTo(sum.DataPoints().AppendEmpty())

					if key == "streamID" {
						routeKey = fold(metric.Point(point.Attributes()))
					}
					o := owner(routeKey)
					if part, ok := parts[o]; ok {
						clone.ResourceMetrics().MoveAndAppendTo(part.ResourceMetrics())
					} else {
						parts[o] = clone
					}
				}
			}
		}
	}
	return parts
}

// resourceKey returns a routing key for all points of a resource. It spreads as ours does, but is not the same number.
func resourceKey(key string, r pcommon.Resource) uint64 {
	switch key {
	case "resource":
		return fold(streamid.Of(r, pcommon.NewInstrumentationScope(), pmetric.NewMetric(), pcommon.NewMap()))
	case "service":
		name, _ := r.Attributes().Get("service.name")
		return hashName(name.Str(), 0)
	}
	return 0
}

// fold is the routing key "streamID" of a stream, as the package comment of streamid defines it.
func fold(id streamid.ID) uint64 { return id.Hi ^ bits.RotateLeft64(id.Lo, 32) }
