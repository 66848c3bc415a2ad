// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
)

// badPoint is a malformed point of the stream of one shape. With a repair it is well-formed; if that is zero it never is.
type badPoint struct {
	name   string
	shape  shape
	point  point
	want   d2c.Outcome
	repair d2c.Repairs
}

func badPoints() (bad []badPoint) {
	const s = series("s") // the stream of every shape
	number := func(name string, want d2c.Outcome, set func(pmetric.NumberDataPoint)) {
		bad = append(bad, badPoint{name, shapes[0], s.sum(true, 20, 30, set), want, 0})
	}
	updown := func(name string, want d2c.Outcome, set func(pmetric.NumberDataPoint)) {
		bad = append(bad, badPoint{name, shapes[1], s.sum(false, 20, 30, set), want, 0})
	}
	histogram := func(name string, want d2c.Outcome, set ...func(pmetric.HistogramDataPoint)) {
		bad = append(bad, badPoint{name, shapes[2], s.histogram(20, 30, all(set...)), want, 0})
	}
	exponential := func(name string, want d2c.Outcome, set ...func(pmetric.ExponentialHistogramDataPoint)) {
		bad = append(bad, badPoint{name, shapes[3], s.exponential(20, 30, all(set...)), want, 0})
	}

	number("no value", d2c.DroppedNoValue, func(pmetric.NumberDataPoint) {})
	number("negative int", d2c.DroppedNegative, func(dp pmetric.NumberDataPoint) { dp.SetIntValue(-1) })
	number("negative double", d2c.DroppedNegative, func(dp pmetric.NumberDataPoint) { dp.SetDoubleValue(-1e-300) })

	hundred := ascending(100)
	counting := func(n uint64) func(pmetric.HistogramDataPoint) {
		return func(dp pmetric.HistogramDataPoint) { dp.SetCount(n) }
	}
	repairable := func(repair d2c.Repairs) { bad[len(bad)-1].repair = repair }
	histogram("too few buckets", d2c.DroppedBuckets, hist([]float64{1, 2}, 1, 2))
	repairable(d2c.RepairTrailingBuckets)
	histogram("too few buckets, fewer counted", d2c.DroppedBuckets, hist([]float64{1, 2}, 1, 2), counting(2))
	histogram("one bucket too few, more counted", d2c.DroppedBuckets, hist([]float64{1, 2}, 1, 2), counting(4))
	repairable(d2c.RepairOverflowBucket)
	histogram("two buckets too few, more counted", d2c.DroppedBuckets, hist([]float64{1, 2, 3}, 1, 2), counting(4))
	histogram("too few buckets, whose sum passes a uint64", d2c.DroppedBuckets,
		hist([]float64{1, 2, 3}, math.MaxUint64, 2), counting(1))
	histogram("too many buckets", d2c.DroppedBuckets, hist([]float64{1, 2}, 1, 2, 3, 4))
	histogram("bounds without buckets", d2c.DroppedBuckets, hist([]float64{1, 2}), counting(3))
	histogram("buckets without bounds", d2c.DroppedBuckets, hist(nil, 1, 2))
	histogram("a hundred bounds, one bucket", d2c.DroppedBuckets, hist(hundred, 1))
	repairable(d2c.RepairTrailingBuckets)
	histogram("a hundred bounds, one bucket, more counted", d2c.DroppedBuckets, hist(hundred, 1), counting(2))
	histogram("falling bounds", d2c.DroppedBuckets, hist([]float64{2, 1}, 1, 2, 3))
	histogram("equal bounds", d2c.DroppedBuckets, hist([]float64{1, 1}, 1, 2, 3))
	histogram("equal infinite bounds", d2c.DroppedBuckets, hist([]float64{math.Inf(1), math.Inf(1)}, 1, 2, 3))
	for i := range 3 {
		bounds := []float64{1, 2, 3}
		bounds[i] = math.NaN()
		histogram(fmt.Sprintf("bound %d is NaN", i), d2c.DroppedBuckets, hist(bounds, 1, 2, 3, 4))
	}
	histogram("the only bound is NaN", d2c.DroppedBuckets, hist([]float64{math.NaN()}, 1, 2))

	one := func(scale, offset int32) func(pmetric.ExponentialHistogramDataPoint) {
		return expo(scale, 0, 0, buckets{offset, []uint64{1}}, buckets{})
	}
	negative := func(scale, offset int32) func(pmetric.ExponentialHistogramDataPoint) {
		return expo(scale, 0, 0, buckets{}, buckets{offset, []uint64{0, 1, 0}})
	}
	for _, scale := range []int32{-11, 21, math.MinInt32, math.MaxInt32} {
		exponential(fmt.Sprintf("scale %d", scale), d2c.DroppedScale, one(scale, 0))
	}
	exponential("bucket above the largest float64", d2c.DroppedScale, one(0, 1024))
	exponential("bucket below the smallest float64", d2c.DroppedScale, one(0, -1076))
	exponential("bucket above, finest scale", d2c.DroppedScale, one(20, 1024<<20))
	exponential("bucket below, finest scale", d2c.DroppedScale, one(20, -1075<<20-1))
	exponential("bucket above, coarsest scale", d2c.DroppedScale, one(-10, 1))
	exponential("bucket below, coarsest scale", d2c.DroppedScale, one(-10, -3))
	exponential("bucket below, scale -1", d2c.DroppedScale, one(-1, -539))
	exponential("negative bucket above", d2c.DroppedScale, negative(0, 1023))
	exponential("negative bucket below", d2c.DroppedScale, negative(0, -1077))
	exponential("largest offset", d2c.DroppedScale, one(3, math.MaxInt32))
	exponential("smallest offset", d2c.DroppedScale, one(3, math.MinInt32))
	exponential("offset plus index passes an int32", d2c.DroppedScale, negative(20, math.MaxInt32))
	zeros := func(dp pmetric.ExponentialHistogramDataPoint) {
		dp.SetZeroCount(1)
		dp.SetCount(dp.Count() + 1)
	}
	exponential("negative zero threshold", d2c.DroppedScale, one(0, 0), zeros,
		func(dp pmetric.ExponentialHistogramDataPoint) { dp.SetZeroThreshold(-1e-300) })
	exponential("bucket counts pass a uint64", d2c.DroppedBuckets,
		expo(0, 0, 0, buckets{0, []uint64{math.MaxUint64, 1}}, buckets{}))
	exponential("bucket counts of both signs pass a uint64", d2c.DroppedBuckets,
		expo(0, 0, 0, buckets{0, []uint64{1 << 63}}, buckets{0, []uint64{1 << 63}}))

	for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		number(fmt.Sprintf("%v", v), d2c.DroppedNotFinite, func(dp pmetric.NumberDataPoint) { dp.SetDoubleValue(v) })
		updown(fmt.Sprintf("%v", v), d2c.DroppedNotFinite, func(dp pmetric.NumberDataPoint) { dp.SetDoubleValue(v) })
		for field, set := range map[string]func(statsPoint){
			"sum": func(dp statsPoint) { dp.SetSum(v) },
			"min": func(dp statsPoint) { dp.SetMin(v) },
			"max": func(dp statsPoint) { dp.SetMax(v) },
		} {
			name := fmt.Sprintf("%s %v", field, v)
			histogram(name, d2c.DroppedNotFinite, hist([]float64{1, 2}, 1, 2, 3),
				func(dp pmetric.HistogramDataPoint) { set(dp) })
			exponential(name, d2c.DroppedNotFinite, one(0, 0),
				func(dp pmetric.ExponentialHistogramDataPoint) { set(dp) })
		}
		want := d2c.DroppedNotFinite
		if v < 0 {
			want = d2c.DroppedScale
		}
		exponential(fmt.Sprintf("zero threshold %v", v), want, one(0, 0), zeros,
			func(dp pmetric.ExponentialHistogramDataPoint) { dp.SetZeroThreshold(v) })
	}

	for _, shape := range shapes {
		good := shape.point(20, 30, 1)
		timed := func(name string, start, end pcommon.Timestamp) {
			bad = append(bad, badPoint{name, shape, func(md pmetric.Metrics) {
				good(md)
				last := lastPoint(md)
				last.SetStartTimestamp(start)
				last.SetTimestamp(end)
			}, d2c.DroppedTime, 0})
		}
		timed("no time", sec(20), 0)
		timed("no times", 0, 0)
		timed("start after time", sec(31), sec(30))
		repairable(d2c.RepairStartAfterTime)
		timed("start in the far future", math.MaxUint64, sec(30))
		repairable(d2c.RepairStartAfterTime)
		timed("time past 2262", sec(20), 1<<63)
		timed("time at the end of time", sec(20), math.MaxUint64)
		timed("start and time at the end of time", math.MaxUint64-1, math.MaxUint64)
	}
	return bad
}

// TestBadPoint: a malformed point is dropped, is counted for its reason, and changes neither its own stream nor another
// one in the same batch.
func TestBadPoint(t *testing.T) {
	for _, bad := range badPoints() {
		t.Run(bad.shape.name+"/"+bad.name, func(t *testing.T) {
			const bystander = series("bystander")
			cfg := d2c.DefaultConfig()
			cfg.Repair &^= bad.repair
			conv := newConverter(t, cfg)
			send := func(in, out pmetric.Metrics, want ...d2c.Outcome) {
				t.Helper()
				result := convert(conv, in)
				var wantResult d2c.Result
				for _, o := range want {
					wantResult.Note(o, 1)
				}
				if result.Points() != wantResult {
					t.Errorf("got %s, want %s", describeResult(result), describeResult(wantResult))
				}
				if !sameMetrics(in, out) {
					t.Errorf("\n got %v\nwant %v", lines(in), lines(out))
				}
			}
			// A bad point opens no stream.
			send(batch(bystander.int(0, 10, 1), bad.point), cumulative(bystander.int(10, 10, 1)),
				d2c.AddedFirst, bad.want)
			if n := conv.Len(); n != 1 {
				t.Errorf("%d streams, want 1", n)
			}
			send(batch(bad.shape.point(10, 20, 5), bystander.int(10, 20, 1)),
				cumulative(bad.shape.point(10, 20, 5), bystander.int(10, 20, 2)), d2c.AddedFirst, d2c.AddedAligned)
			send(batch(bad.point, bystander.int(20, 30, 1), bad.point),
				cumulative(bystander.int(10, 30, 3)), bad.want, d2c.AddedAligned, bad.want)
			send(batch(bystander.int(30, 40, 1), bad.point, bad.shape.point(20, 30, 1)),
				cumulative(bystander.int(10, 40, 4), bad.shape.point(10, 30, 6)),
				d2c.AddedAligned, d2c.AddedAligned, bad.want)
		})
	}
}

// TestOddPoint: what looks strange but is well-formed is added.
func TestOddPoint(t *testing.T) {
	const s = series("s")
	cases := map[string]point{
		"first nanosecond": s.sum(true, 0, 0, func(dp pmetric.NumberDataPoint) {
			dp.SetTimestamp(1)
			dp.SetIntValue(1)
		}),
		"latest time": s.sum(true, 0, 0, func(dp pmetric.NumberDataPoint) {
			dp.SetStartTimestamp(latestTime - 1)
			dp.SetTimestamp(latestTime)
			dp.SetIntValue(1)
		}),
		"no name":                        series("").int(10, 20, 1),
		"largest int":                    s.int(10, 20, math.MaxInt64),
		"negative zero":                  s.double(10, 20, math.Copysign(0, -1)),
		"lowest bound":                   s.histogram(10, 20, hist([]float64{math.Inf(-1), 1}, 1, 2, 3)),
		"no buckets":                     s.histogram(10, 20, hist(nil)),
		"one bucket":                     s.histogram(10, 20, hist(nil, 3)),
		"counts do not add up":           s.histogram(10, 20, all(hist([]float64{1}, 3, 4), func(dp pmetric.HistogramDataPoint) { dp.SetCount(1) })),
		"far empty buckets":              s.exponential(10, 20, expo(20, 0, 1, buckets{math.MaxInt32, make([]uint64, 9)}, buckets{math.MinInt32, make([]uint64, 9)})),
		"smallest float64":               s.exponential(10, 20, expo(0, 0, 0, buckets{-1075, []uint64{1}}, buckets{})),
		"smallest, scale -1":             s.exponential(10, 20, expo(-1, 0, 0, buckets{-538, []uint64{1}}, buckets{})),
		"smallest, scale -4":             s.exponential(10, 20, expo(-4, 0, 0, buckets{-68, []uint64{1}}, buckets{})),
		"smallest, scale -10":            s.exponential(10, 20, expo(-10, 0, 0, buckets{-2, []uint64{1}}, buckets{})),
		"largest float64":                s.exponential(10, 20, expo(-10, 0, 0, buckets{0, []uint64{1}}, buckets{})),
		"negative threshold of no zeros": s.exponential(10, 20, expo(0, -1, 0, buckets{0, []uint64{1}}, buckets{})),
		"NaN threshold of no zeros":      s.exponential(10, 20, expo(0, math.NaN(), 0, buckets{0, []uint64{1}}, buckets{})),
		"bounds of nothing":              s.histogram(10, 20, hist([]float64{1, 2})),
		"falling bounds of nothing":      s.histogram(10, 20, hist([]float64{2, 1}, 0, 0, 0)),
		"buckets of nothing":             s.histogram(10, 20, hist([]float64{2}, 0, 0, 0, 0)),
	}
	for _, scale := range []int32{-11, 21, math.MinInt32, math.MaxInt32} {
		cases[fmt.Sprintf("scale %d of nothing", scale)] = s.exponential(10, 20, expo(scale, 0, 0, buckets{}, buckets{}))
		cases[fmt.Sprintf("scale %d of zeros", scale)] = s.exponential(10, 20, expo(scale, 0, 3, buckets{}, buckets{7, []uint64{0}}))
	}
	for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		set := func(dp statsPoint) { dp.SetSum(v); dp.SetMin(v); dp.SetMax(-v) }
		cases[fmt.Sprintf("least and most of nothing %v", v)] =
			s.histogram(10, 20, all(hist([]float64{1}, 0, 0), func(dp pmetric.HistogramDataPoint) { set(dp) }))
		cases[fmt.Sprintf("least and most of nothing %v, exponential", v)] =
			s.exponential(10, 20, all(expo(0, 0, 0, buckets{}, buckets{}), func(dp pmetric.ExponentialHistogramDataPoint) { set(dp) }))
	}
	for name, p := range cases {
		t.Run(name, func(t *testing.T) {
			conv := newConverter(t, d2c.DefaultConfig())
			m := newModel(d2c.DefaultConfig())
			for _, want := range []d2c.Outcome{d2c.AddedFirst, d2c.Repeat} {
				in := batch(p)
				out, wantResult := m.convert(in)
				result := convert(conv, in)
				if result.Points() != wantResult || result.Count(want) != 1 {
					t.Errorf("got %s, want %v", describeResult(result), want)
				}
				if !sameMetrics(in, out) {
					t.Errorf("\n got %v\nwant %v", lines(in), lines(out))
				}
			}
		})
	}
}

// TestFarFuture: a stream that jumps centuries ahead stays there, alone. What is missing of it is too long ago, all but the
// latest part.
func TestFarFuture(t *testing.T) {
	const a, b, s = series("a"), series("b"), series("sane")
	far := float64(9_000_000_000) // seconds: the year 2255
	conv := newConverter(t, d2c.DefaultConfig())
	convert(conv, batch(a.int(10, 20, 1), b.int(10, 20, 1), s.int(10, 20, 1)))
	md := batch(a.int(far, far+10, 1), b.int(far, far+10, 1), s.int(20, 30, 1))
	result := convert(conv, md)
	if want := cumulative(a.int(10, far+10, 2), b.int(10, far+10, 2), s.int(10, 30, 2)); !sameMetrics(md, want) {
		t.Errorf("\n got %v\nwant %v", lines(md), lines(want))
	}
	if result.GapOpened < 0 {
		t.Errorf("the sum of the gaps wrapped: %v", result.GapOpened)
	}
	md = batch(a.int(30, 40, 1), a.int(far-10, far, 1), s.int(30, 40, 1))
	result = convert(conv, md)
	if want := cumulative(a.int(10, far+10.001, 3), s.int(10, 40, 3)); !sameMetrics(md, want) || result.Count(d2c.DroppedTooLate) != 1 {
		t.Errorf("\n got %v %s\nwant %v", lines(md), describeResult(result), lines(want))
	}
}

// TestZeroThresholdStaysFinite: a zero bucket that swallows the last bucket of all must not become infinite, or the next
// Converter would drop what this one gives out.
func TestZeroThresholdStaysFinite(t *testing.T) {
	for scale := int32(-10); scale <= 20; scale++ {
		last := int32(math.Ldexp(1024, int(scale))) - 1
		md := batch(series("s").exponential(10, 20,
			expo(scale, math.MaxFloat64/(1+1e-12), 1, buckets{last, []uint64{2}}, buckets{last, []uint64{3}})))
		result := convert(newConverter(t, d2c.DefaultConfig()), md)
		if result.Count(d2c.AddedFirst) != 1 {
			t.Fatalf("scale %d: %s", scale, describeResult(result))
		}
		dp := exponentialPoints(md)[0]
		if dp.ZeroThreshold() != math.MaxFloat64 || dp.ZeroCount() != 6 {
			t.Errorf("scale %d: %d within %v, want 6 within the largest float64", scale, dp.ZeroCount(), dp.ZeroThreshold())
		}
	}
}

func TestEmptyAtEveryLevel(t *testing.T) {
	md := pmetric.NewMetrics()
	conv := newConverter(t, d2c.DefaultConfig())
	check := func(what string) {
		t.Helper()
		if result := convert(conv, md); result.Points() != (d2c.Result{}) {
			t.Errorf("%s: got %s", what, describeResult(result))
		}
	}
	check("no resource")
	rm := md.ResourceMetrics().AppendEmpty()
	check("no scope")
	sm := rm.ScopeMetrics().AppendEmpty()
	check("no metric")
	sm.Metrics().AppendEmpty()
	check("no data")
	delta := pmetric.AggregationTemporalityDelta
	sm.Metrics().AppendEmpty().SetEmptySum().SetAggregationTemporality(delta)
	sm.Metrics().AppendEmpty().SetEmptyHistogram().SetAggregationTemporality(delta)
	sm.Metrics().AppendEmpty().SetEmptyExponentialHistogram().SetAggregationTemporality(delta)
	sm.Metrics().AppendEmpty().SetEmptyGauge()
	sm.Metrics().AppendEmpty().SetEmptySummary()
	check("no points")
}

func TestDuplicateAttributeKeys(t *testing.T) {
	const request = `{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"s","sum":{"aggregationTemporality":1,
		"isMonotonic":true,"dataPoints":[{"startTimeUnixNano":"%d","timeUnixNano":"%d","asInt":"1","attributes":[
		{"key":"a","value":{"stringValue":"1"}},{"key":"a","value":{"stringValue":"2"}},{"key":"a"}]}]}}]}]}]}`
	conv := newConverter(t, d2c.DefaultConfig())
	for i, want := range []d2c.Outcome{d2c.AddedFirst, d2c.AddedAligned, d2c.AddedAligned} {
		md, err := (&pmetric.JSONUnmarshaler{}).UnmarshalMetrics(fmt.Appendf(nil, request, sec(float64(10+i)), sec(float64(11+i))))
		if err != nil {
			t.Fatal(err)
		}
		if n := lastPoint(md).Attributes().Len(); n != 3 {
			t.Fatalf("%d attributes, want 3", n)
		}
		if result := convert(conv, md); result.Count(want) != 1 {
			t.Errorf("got %s, want %v", describeResult(result), want)
		}
		if got := onlyInt(md); got != int64(i+1) {
			t.Errorf("got %d, want %d", got, i+1)
		}
	}
}

// TestOneStreamManyTimes: a batch of nothing but one stream, out of order.
func TestOneStreamManyTimes(t *testing.T) {
	const n = 10_000
	for _, shape := range shapes {
		t.Run(shape.name, func(t *testing.T) {
			md := pmetric.NewMetrics()
			order := rand.New(rand.NewPCG(3, 4)).Perm(n)
			for _, i := range order {
				shape.point(float64(10+i), float64(11+i), 1)(md)
			}
			result := convert(newConverter(t, d2c.DefaultConfig()), md)
			var want d2c.Result
			want.Note(d2c.AddedFirst, 1)
			want.Note(d2c.AddedAligned, n-1)
			if result.Points() != want {
				t.Fatalf("got %s, want %s", describeResult(result), describeResult(want))
			}
			wants := pmetric.NewMetrics()
			for _, i := range order {
				shape.point(10, float64(11+i), i+1)(wants)
			}
			forEachMetric(wants, func(_ pmetric.ResourceMetrics, _ pmetric.ScopeMetrics, m pmetric.Metric) { makeCumulative(m) })
			if !sameMetrics(md, wants) {
				t.Error("a total is wrong")
			}
		})
	}
}

// TestNoAllocationOutOfProportion: what an attacker can write in a few bytes, or in many that mean nothing, must not make
// the Converter allocate.
func TestNoAllocationOutOfProportion(t *testing.T) {
	const million = 1_000_000
	const s = series("victim")
	far := make([]uint64, million)
	// sparse is one delta, a million buckets wide with only the ends populated: 8 MB of input.
	sparse := make([]uint64, million)
	sparse[0], sparse[million-1] = 1, 1
	attributes := func(n int) point {
		return s.sum(true, 10, 20, func(dp pmetric.NumberDataPoint) {
			dp.SetIntValue(1)
			raw := map[string]any{}
			for i := range n {
				raw[fmt.Sprint("key ", i)] = "value"
			}
			if err := dp.Attributes().FromRaw(raw); err != nil { // PutStr looks at all keys each time
				panic(err)
			}
		})
	}
	tests := []struct {
		name  string
		bytes uint64
		state point // sent before, if any
		point point
		want  d2c.Outcome
	}{
		{"a million empty buckets", 32 << 10, nil,
			s.exponential(10, 20, expo(20, 0, 1, buckets{0, far}, buckets{math.MinInt32, far})), d2c.AddedFirst},
		{"a million empty buckets, one populated", 32 << 10, nil,
			s.exponential(10, 20, expo(20, 0, 1, buckets{0, append(slices.Clone(far), 1)}, buckets{5, append([]uint64{1}, far...)})),
			d2c.AddedFirst},
		{"from the smallest float64 to the largest", 32 << 10,
			s.exponential(10, 20, expo(20, 0, 0, buckets{-1075 << 20, []uint64{1}}, buckets{-1075 << 20, []uint64{1}})),
			s.exponential(20, 30, expo(20, 0, 0, buckets{1024<<20 - 1, []uint64{1}}, buckets{1024<<20 - 1, []uint64{1}})),
			d2c.AddedAligned},
		{"offsets outside of everything", 32 << 10, nil,
			s.exponential(10, 20, expo(20, 0, 0, buckets{math.MinInt32, []uint64{1}}, buckets{math.MaxInt32, []uint64{0, 1}})),
			d2c.DroppedScale},
		{"a million buckets, two populated", 1 << 20, nil,
			s.exponential(10, 20, expo(20, 0, 0, buckets{0, sparse}, buckets{})), d2c.AddedFirst},
		{"a hundred thousand attributes", 64 << 10, nil, attributes(100_000), d2c.AddedFirst},
		{"a name of a megabyte", 64 << 10, nil, series(strings.Repeat("n", 1<<20)).int(10, 20, 1), d2c.AddedFirst},
		{"a hundred thousand bounds that do not fit", 32 << 10, nil,
			s.histogram(10, 20, hist(make([]float64, 100_000), 1)), d2c.DroppedBuckets},
		{"a hundred thousand buckets that do not fit", 32 << 10, nil,
			s.histogram(10, 20, hist([]float64{1}, slices.Repeat([]uint64{1}, 100_000)...)), d2c.DroppedBuckets},
		{"a hundred thousand buckets of nothing", 32 << 10, nil,
			s.histogram(10, 20, hist([]float64{1}, make([]uint64, 100_000)...)), d2c.AddedFirst},
		{"four thousand buckets that are missing", 320 << 10, nil,
			s.histogram(10, 20, hist(ascending(4095), 1)), d2c.AddedFirst},
		{"a hundred thousand buckets that are missing", 32 << 10, nil,
			s.histogram(10, 20, hist(ascending(100_000), 1)), d2c.DroppedBuckets},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			conv := newConverter(t, d2c.DefaultConfig())
			for _, shape := range shapes { // scratch space and first slots
				for i := range 3 {
					convert(conv, batch(shape.point(float64(i), float64(i+1), 1)))
				}
			}
			for i := range 2000 { // some of them in every shard, so that none is new
				convert(conv, batch(series(fmt.Sprint(i)).int(10, 20, 1),
					series(fmt.Sprint(i)).exponential(10, 20, expo(3, 0, 0, buckets{1, make([]uint64, 160)}, buckets{}))))
			}
			if test.state != nil {
				convert(conv, batch(test.state))
			}
			md := batch(test.point)
			var result d2c.Result
			if n := allocated(func() { result = convert(conv, md) }); n > test.bytes {
				t.Errorf("allocated %d bytes, want at most %d", n, test.bytes)
			}
			if result.Count(test.want) != 1 {
				t.Errorf("got %s, want %v", describeResult(result), test.want)
			}
			for _, dp := range exponentialPoints(md) {
				if n := max(dp.Positive().BucketCounts().Len(), dp.Negative().BucketCounts().Len()); n > maxBuckets {
					t.Errorf("gave out %d buckets", n)
				}
			}
		})
	}
}

// ascending are so many bounds.
func ascending(n int) []float64 {
	bounds := make([]float64, n)
	for i := range bounds {
		bounds[i] = float64(i)
	}
	return bounds
}

func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestNoTimeOutOfProportion: a point costs about the same whatever its zero threshold is. The limit is a thousand times
// what it takes, so that only a search gone wrong can miss it.
func TestNoTimeOutOfProportion(t *testing.T) {
	thresholds := []float64{
		math.SmallestNonzeroFloat64, 3 * math.SmallestNonzeroFloat64, 0x1p-1060, 0x1p-1022, 1e-300, 0.3, 1, 1e300, math.MaxFloat64,
	}
	for _, threshold := range thresholds {
		for _, scale := range []int32{-10, 0, 20} {
			conv := newConverter(t, d2c.DefaultConfig())
			const n = 50
			var batches []pmetric.Metrics
			for i := range n {
				// Without a threshold of its own every other delta has to be brought under that of the stream.
				batches = append(batches, batch(series("s").exponential(float64(10+i), float64(11+i),
					expo(scale, threshold*float64(i%2), 1, buckets{-1, []uint64{1, 1}}, buckets{}))))
			}
			began := time.Now()
			for _, md := range batches {
				convert(conv, md)
			}
			if took := time.Since(began); took > n*time.Millisecond {
				t.Errorf("threshold %v at scale %d: %v a point", threshold, scale, took/n)
			}
		}
	}
}
