// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package lanesconnector

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/streamid"
)

// kindsOf returns a batch of one point of each kind that the guard tells apart, at such a time and with such a value.
func kindsOf(ms uint64, value uint64) map[string]pmetric.Metrics {
	all := map[string]pmetric.Metrics{}
	add := func(name string, fill func(pmetric.Metric)) {
		md := pmetric.NewMetrics()
		m := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
		m.SetName(name)
		fill(m)
		all[name] = md
	}
	at := pcommon.Timestamp(ms * 1e6)
	const cumulative = pmetric.AggregationTemporalityCumulative
	number := func(dp pmetric.NumberDataPoint) { dp.SetTimestamp(at); dp.SetIntValue(int64(value)) }
	histogram := func(h pmetric.Histogram) {
		dp := h.DataPoints().AppendEmpty()
		dp.SetTimestamp(at)
		dp.SetCount(value)
		dp.BucketCounts().FromRaw([]uint64{value, 0})
		dp.ExplicitBounds().FromRaw([]float64{1})
	}
	exponential := func(h pmetric.ExponentialHistogram) {
		dp := h.DataPoints().AppendEmpty()
		dp.SetTimestamp(at)
		dp.SetCount(value)
		dp.Positive().BucketCounts().FromRaw([]uint64{value})
	}
	add("gauge", func(m pmetric.Metric) { number(m.SetEmptyGauge().DataPoints().AppendEmpty()) })
	add("sum", func(m pmetric.Metric) {
		m.SetEmptySum().SetAggregationTemporality(cumulative)
		number(m.Sum().DataPoints().AppendEmpty())
	})
	add("double", func(m pmetric.Metric) {
		m.SetEmptySum().SetAggregationTemporality(cumulative)
		dp := m.Sum().DataPoints().AppendEmpty()
		dp.SetTimestamp(at)
		dp.SetDoubleValue(float64(value))
	})
	add("histogram", func(m pmetric.Metric) {
		m.SetEmptyHistogram().SetAggregationTemporality(cumulative)
		histogram(m.Histogram())
	})
	add("exponential", func(m pmetric.Metric) {
		m.SetEmptyExponentialHistogram().SetAggregationTemporality(cumulative)
		exponential(m.ExponentialHistogram())
	})
	add("summary", func(m pmetric.Metric) {
		dp := m.SetEmptySummary().DataPoints().AppendEmpty()
		dp.SetTimestamp(at)
		dp.SetCount(value)
	})
	add("delta sum", func(m pmetric.Metric) {
		m.SetEmptySum().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		number(m.Sum().DataPoints().AppendEmpty())
	})
	add("delta histogram", func(m pmetric.Metric) {
		m.SetEmptyHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		histogram(m.Histogram())
	})
	add("delta exponential", func(m pmetric.Metric) {
		m.SetEmptyExponentialHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		exponential(m.ExponentialHistogram())
	})
	return all
}

func TestGuard(t *testing.T) {
	for _, kind := range slices.Sorted(maps.Keys(kindsOf(1, 1))) {
		t.Run(kind, func(t *testing.T) {
			g := &guard{limit: 10}
			delta := len(kind) > 5 && kind[:5] == "delta"
			expect := func(ms, value uint64, want verdicts) {
				t.Helper()
				md := kindsOf(ms, value)[kind]
				if delta {
					want = verdicts{}
				}
				assert.Equal(t, want, g.all(nil, md))
				assert.Equal(t, 1-want.late-want.duplicate, md.DataPointCount())
				assert.Equal(t, md.DataPointCount() > 0, md.ResourceMetrics().Len() > 0, "what is empty goes")
			}
			expect(10, 1, verdicts{})
			g.done()
			expect(10, 1, verdicts{duplicate: 1})
			expect(10, 2, verdicts{late: 1})
			expect(9, 1, verdicts{late: 1})
			expect(11, 1, verdicts{})
			expect(11, 1, verdicts{duplicate: 1})
			g.undo()
			expect(11, 1, verdicts{})
			g.undo()
			expect(10, 1, verdicts{duplicate: 1})
			expect(0, 1, verdicts{}) // no time
			expect(0, 1, verdicts{})
		})
	}
}

// TestGuardIsTold says what the guard takes for one stream, and for one time.
func TestGuardIsTold(t *testing.T) {
	g := &guard{limit: 10}
	alice, bob := []streamid.TenantKey{{Name: "x-tenant", Values: []string{"alice"}}}, []streamid.TenantKey{{Name: "x-tenant", Values: []string{"bob"}}}
	require.Equal(t, verdicts{}, g.all(alice, batchOf(1, 1, 0, 10, one)))
	assert.Equal(t, verdicts{}, g.all(bob, batchOf(1, 1, 0, 10, one)), "tenants do not share streams")
	assert.Equal(t, verdicts{}, g.all(nil, batchOf(1, 1, 0, 10, one)))
	assert.Equal(t, verdicts{late: 1}, g.all(alice, batchOf(1, 1, 0, 9, one)))
	assert.Equal(t, verdicts{}, g.all(alice, batchOf(2, 1, 0, 9, one)), "nor do resources")

	later := batchOf(1, 1, 0, 10, two)
	later.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints().At(0).SetTimestamp(10_900_000)
	assert.Equal(t, verdicts{late: 1}, g.all(alice, later), "the same millisecond")

	start := batchOf(1, 1, 0, 10, one)
	start.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints().At(0).SetStartTimestamp(5)
	assert.Equal(t, verdicts{duplicate: 1}, g.all(alice, start), "the start is not the value")

	stale := batchOf(1, 1, 0, 10, one)
	dp := stale.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints().At(0)
	dp.SetFlags(dp.Flags().WithNoRecordedValue(true))
	assert.Equal(t, verdicts{late: 1}, g.all(alice, stale), "a staleness marker is another value")
}

// all filters, and counts what is held for late.
func (g *guard) all(of []streamid.TenantKey, md pmetric.Metrics) verdicts {
	v, _, held := g.filter(of, md)
	v.late += held.late
	v.duplicate += held.duplicate
	return v
}

func one(int) float64 { return 1 }
func two(int) float64 { return 2 }

func TestGuardIsLimited(t *testing.T) {
	g := &guard{limit: 10}
	assert.Equal(t, verdicts{unguarded: 15}, g.all(nil, batchOf(1, 25, 0, 10, one)))
	assert.Equal(t, verdicts{duplicate: 10, unguarded: 15}, g.all(nil, batchOf(1, 25, 0, 10, one)))
}

// TestGuardAgainstModel compares it with a map, through requests that are taken and such that are not.
func TestGuardAgainstModel(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 2))
		g := &guard{limit: 1 << 20}
		model := map[int]stored{}
		for range 400 {
			var want verdicts
			after := maps.Clone(model)
			for range 1 + random.IntN(4) {
				producer, ms := random.IntN(40), uint64(1+random.IntN(100))
				value := float64(random.IntN(3))
				before, known := after[producer]
				switch {
				case known && before == stored{ms, value}:
					want.duplicate++
				case known && before.ms >= ms:
					want.late++
				default:
					after[producer] = stored{ms, value}
				}
				got := g.all(nil, batchOf(producer, 1, 0, ms, func(int) float64 { return value }))
				want.late, want.duplicate = want.late-got.late, want.duplicate-got.duplicate
			}
			require.Equal(t, verdicts{}, want, "seed %d", seed)
			if random.IntN(3) == 0 {
				g.undo()
				continue
			}
			g.done()
			model = after
		}
	}
}

// TestSentTableAgainstModel compares it with a map, and holds it to its size.
func TestSentTableAgainstModel(t *testing.T) {
	type entry struct {
		s     sample
		round int
	}
	random := rand.New(rand.NewPCG(3, 3))
	var table sentTable
	model := map[uint64]entry{}
	round := 0
	for step := range 300_000 {
		key := random.Uint64N(40_000)*0x9e3779b97f4a7c15 | 1
		slot, was := table.find(key)
		require.Equal(t, model[key].s, was)
		now := newSample(uint64(step), fingerprint(random.Uint64()))
		if was == 0 {
			table.insert(slot, key, now)
		} else {
			table.set(slot, now)
		}
		model[key] = entry{now, round}
		require.Equal(t, len(model), table.streams)
		if n := table.streams; n > firstSlots {
			require.LessOrEqual(t, 17*len(table.slots), 34*n)
		}
		if random.IntN(4_000) == 0 {
			table.sweep()
			round++
			maps.DeleteFunc(model, func(_ uint64, e entry) bool { return round-e.round > keepRounds })
		}
	}
	require.Greater(t, round, 40)
	require.Greater(t, 40_000, len(model), "some have gone")
	for range 300 { // more than a byte counts
		table.sweep()
	}
	assert.Zero(t, table.streams)
}

func TestSampleOrder(t *testing.T) {
	assert.Less(t, newSample(1, ^fingerprint(0)).time(), newSample(2, 0).time())
	assert.Equal(t, newSample(1<<44-1, 0).time(), newSample(1<<60, 0).time(), "the end of time")
	assert.NotZero(t, newSample(0, 0))
}

// TestFingerprintTellsValues counts how many of many values look alike: as many as chance has it.
func TestFingerprintTellsValues(t *testing.T) {
	const n = 4096
	known := map[sample]bool{}
	for i := range n {
		dp := pmetric.NewNumberDataPoint()
		dp.SetIntValue(int64(i))
		known[newSample(1, numberOf(dp))] = true
		dp.SetDoubleValue(float64(i))
		known[newSample(1, numberOf(dp))] = true
	}
	// The lowest bit is always up. Of 2n values in 2^19, n*n/2^18 = 64 are expected to look like another.
	assert.Greater(t, len(known), 2*n-150)
}

func TestGuardDoesNotAllocate(t *testing.T) {
	g := &guard{limit: 1 << 20}
	md := batchOf(1, 1000, 0, 1, one)
	g.all(nil, md)
	g.done()
	ms := uint64(1)
	allocs := testing.AllocsPerRun(100, func() {
		ms++
		for _, dp := range md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints().All() {
			dp.SetTimestamp(pcommon.Timestamp(ms * 1e6))
		}
		if v := g.all(nil, md); v != (verdicts{}) {
			t.Fatal(v)
		}
		g.done()
	})
	assert.Less(t, allocs, 5.0, "for a thousand points")
}

// BenchmarkGuard is what the guard costs a point, where a lane has so many streams. Other points are made of those that were; that
// is in the figure, and alone in that of "none".
func BenchmarkGuard(b *testing.B) {
	for _, streams := range []int{0, 1000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(streams), func(b *testing.B) {
			const points = 1000
			g := &guard{limit: 1 << 30}
			md := batchOf(1, points, 0, 1, one)
			dps := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints()
			n := 0
			next := func() {
				for i := range points {
					v, _ := dps.At(i).Attributes().Get("series")
					v.SetInt(int64((n*points + i) % max(1, streams)))
					dps.At(i).SetTimestamp(pcommon.Timestamp(n/max(1, streams/points)+1) * 1e6)
				}
				n++
				if streams > 0 {
					g.all(nil, md)
					g.done()
				}
			}
			for range streams / points {
				next()
			}
			b.ReportAllocs()
			for b.Loop() {
				next()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*points), "ns/point")
		})
	}
}

// TestLessThanAMillisecond is no time: to the backend it is 0.
func TestLessThanAMillisecond(t *testing.T) {
	g := &guard{limit: 10}
	for range 3 {
		md := batchOf(0, 1, 0, 0, one)
		md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints().At(0).SetTimestamp(999_999)
		assert.Zero(t, g.all(nil, md))
		g.undo()
	}
}
