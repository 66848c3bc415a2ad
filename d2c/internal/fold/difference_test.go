// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package fold

import (
	"math"
	"reflect"
	"slices"
	"testing"
)

func TestNumberMinus(t *testing.T) {
	for _, x := range []struct {
		now, last Number
		monotonic bool
		want      Number
		fell      bool
	}{
		{IntNumber(7), IntNumber(4), true, IntNumber(3), false},
		{IntNumber(4), IntNumber(4), true, IntNumber(0), false},
		{IntNumber(3), IntNumber(4), true, Number{}, true},
		{IntNumber(3), IntNumber(4), false, IntNumber(-1), false},
		{IntNumber(1<<53 + 1), IntNumber(1 << 53), true, IntNumber(1), false},
		{IntNumber(math.MaxInt64), IntNumber(0), true, IntNumber(math.MaxInt64), false},
		{IntNumber(math.MaxInt64), IntNumber(-1), false, Number{}, true},
		{IntNumber(math.MaxInt64), IntNumber(-1), true, Number{}, true},
		{IntNumber(math.MinInt64), IntNumber(1), false, Number{}, true},
		{IntNumber(-1), IntNumber(math.MaxInt64), false, IntNumber(math.MinInt64), false},
		{IntNumber(0), IntNumber(math.MinInt64), false, Number{}, true},
		{IntNumber(-1), IntNumber(math.MinInt64), false, IntNumber(math.MaxInt64), false},
		{DoubleNumber(7.5), DoubleNumber(4), true, DoubleNumber(3.5), false},
		{DoubleNumber(4), DoubleNumber(4), true, DoubleNumber(0), false},
		{DoubleNumber(3.5), DoubleNumber(4), true, Number{}, true},
		{DoubleNumber(3.5), DoubleNumber(4), false, DoubleNumber(-.5), false},
		{DoubleNumber(1e308), DoubleNumber(-1e308), false, Number{}, true},
		{DoubleNumber(-1e308), DoubleNumber(1e308), false, Number{}, true},
		{DoubleNumber(7.5), IntNumber(4), true, DoubleNumber(3.5), false},
		{IntNumber(7), DoubleNumber(3.5), true, DoubleNumber(3.5), false},
		{IntNumber(3), DoubleNumber(3.5), true, Number{}, true},
		{IntNumber(3), DoubleNumber(3.5), false, DoubleNumber(-.5), false},
	} {
		if got, fell := x.now.Minus(x.last, x.monotonic); got != x.want || fell != x.fell {
			t.Errorf("%v minus %v, monotonic %t: %v, %t; want %v, %t", x.now, x.last, x.monotonic, got, fell, x.want, x.fell)
		}
	}
}

const hasAll = HasSum | HasMin | HasMax

// stats returns a distribution with all that there may be.
func stats(count uint64, sum, lowest, highest float64) Distribution {
	return Distribution{Count: count, Sum: sum, Min: lowest, Max: highest, Has: hasAll}
}

// summed returns a distribution with a sum only.
func summed(count uint64, sum float64) Distribution {
	return Distribution{Count: count, Sum: sum, Has: HasSum}
}

func TestDistributionDifference(t *testing.T) {
	rest := stats(7, 9, 1, 3)
	rest.Rest, rest.Wide = 5, true
	restOnly := summed(3, 2)
	restOnly.Rest = 5
	first := rest
	first.Wide = false
	for name, x := range map[string]struct {
		now, last, want Distribution
		fell            bool
	}{
		"min and max may be of before": {now: stats(7, 9, 1, 3), last: stats(4, 7, 1, 3), want: summed(3, 2)},
		"nothing new":                  {now: stats(4, 7, 1, 3), last: stats(4, 7, 1, 3), want: summed(0, 0)},
		"last is of nothing":           {now: stats(7, 9, 1, 3), want: stats(7, 9, 1, 3)},
		"both are of nothing":          {},
		"a lower count":                {now: stats(3, 9, 1, 3), last: stats(4, 7, 1, 3), fell: true},
		"a lower sum":                  {now: stats(7, -9, -3, 3), last: stats(4, 7, 1, 3), want: summed(3, -16)},
		"a sum that overflows":         {now: stats(7, -1e308, -3, 3), last: stats(4, 1e308, 1, 3), fell: true},
		"no sum now":                   {now: Distribution{Count: 7}, last: stats(4, 7, 1, 3), want: Distribution{Count: 3}},
		"no sum before":                {now: stats(7, 9, 1, 3), last: Distribution{Count: 4}, want: Distribution{Count: 3}},
		"a large count":                {now: summed(math.MaxUint64, 9), last: summed(1, 7), want: summed(math.MaxUint64-1, 2)},
		"a count that would wrap":      {now: summed(0, 9), last: summed(math.MaxUint64, 7), fell: true},
		"what the point says besides":  {now: rest, last: summed(4, 7), want: restOnly},
		"and of nothing before":        {now: rest, want: first},
	} {
		var got Distribution
		if fell := got.difference(&x.now, &x.last); fell != x.fell || !fell && got != x.want {
			t.Errorf("%s: %+v, %t; want %+v, %t", name, got, fell, x.want, x.fell)
		}
	}
}

func TestHistogramDifference(t *testing.T) {
	bounds := []float64{1, 2, 5}
	rounded := []float64{1, 2 * (1 + 1e-14), 5}
	for name, x := range map[string]struct {
		now, last, want Histogram
		fell            bool
	}{
		"more": {
			now:  Histogram{stats(9, 20, 0, 7), bounds, []uint64{1, 3, 0, 5}},
			last: Histogram{stats(4, 9, 0, 7), bounds, []uint64{1, 1, 0, 2}},
			want: Histogram{summed(5, 11), bounds, []uint64{0, 2, 0, 3}},
		},
		"rounded bounds": {
			now:  Histogram{summed(9, 20), rounded, []uint64{1, 3, 0, 5}},
			last: Histogram{summed(4, 9), bounds, []uint64{1, 1, 0, 2}},
			want: Histogram{summed(5, 11), rounded, []uint64{0, 2, 0, 3}},
		},
		"other bounds": {
			now:  Histogram{summed(9, 20), []float64{1, 2, 6}, []uint64{1, 3, 0, 5}},
			last: Histogram{summed(4, 9), bounds, []uint64{1, 1, 0, 2}},
			fell: true,
		},
		"more buckets": {
			now:  Histogram{summed(9, 20), []float64{1, 2, 5, 8}, []uint64{1, 3, 0, 5, 0}},
			last: Histogram{summed(4, 9), bounds, []uint64{1, 1, 0, 2}},
			fell: true,
		},
		"no buckets any more": {
			now:  Histogram{Distribution: summed(9, 20)},
			last: Histogram{summed(4, 9), bounds, []uint64{1, 1, 0, 2}},
			fell: true,
		},
		"other bounds, of nothing before": {
			now:  Histogram{stats(9, 20, 0, 7), bounds, []uint64{1, 3, 0, 5}},
			last: Histogram{Bounds: []float64{3}, Counts: []uint64{0, 0}},
			want: Histogram{stats(9, 20, 0, 7), bounds, []uint64{1, 3, 0, 5}},
		},
		"no bounds, of nothing before": {
			now:  Histogram{stats(9, 20, 0, 7), bounds, []uint64{1, 3, 0, 5}},
			want: Histogram{stats(9, 20, 0, 7), bounds, []uint64{1, 3, 0, 5}},
		},
		"other bounds, and buckets without a count": {
			now:  Histogram{summed(9, 20), bounds, []uint64{1, 3, 0, 5}},
			last: Histogram{Bounds: []float64{3}, Counts: []uint64{0, 1}},
			fell: true,
		},
		"nothing any more": {
			now:  Histogram{Bounds: bounds, Counts: []uint64{0, 0, 0, 0}},
			last: Histogram{summed(4, 9), bounds, []uint64{1, 1, 0, 2}},
			fell: true,
		},
		"a lower bucket": {
			now:  Histogram{summed(9, 20), bounds, []uint64{1, 0, 3, 5}},
			last: Histogram{summed(4, 9), bounds, []uint64{1, 1, 0, 2}},
			fell: true,
		},
		"a lower count": {
			now:  Histogram{summed(3, 20), bounds, []uint64{1, 3, 0, 5}},
			last: Histogram{summed(4, 9), bounds, []uint64{1, 1, 0, 2}},
			fell: true,
		},
		"no buckets": {
			now:  Histogram{Distribution: stats(9, 20, 0, 7)},
			last: Histogram{Distribution: stats(4, 9, 0, 7)},
			want: Histogram{Distribution: summed(5, 11)},
		},
		"one bucket": {
			now:  Histogram{Distribution: summed(9, 20), Counts: []uint64{9}},
			last: Histogram{Distribution: summed(4, 9), Counts: []uint64{4}},
			want: Histogram{Distribution: summed(5, 11), Counts: []uint64{5}},
		},
		"a bucket where there was none": {
			now:  Histogram{Distribution: summed(9, 20), Counts: []uint64{9}},
			last: Histogram{Distribution: summed(4, 9)},
			fell: true,
		},
		"large counts": {
			now:  Histogram{summed(math.MaxUint64, 20), bounds, []uint64{math.MaxUint64, 1 << 63, 0, 1}},
			last: Histogram{summed(math.MaxUint64-1, 9), bounds, []uint64{1, 1<<63 - 1, 0, 1}},
			want: Histogram{summed(1, 11), bounds, []uint64{math.MaxUint64 - 1, 1, 0, 0}},
		},
		"a large count that would wrap": {
			now:  Histogram{summed(math.MaxUint64, 20), bounds, []uint64{0, 1 << 63, 0, 1}},
			last: Histogram{summed(1, 9), bounds, []uint64{math.MaxUint64, 1 << 63, 0, 0}},
			fell: true,
		},
	} {
		got := Histogram{Counts: []uint64{9, 9, 9, 9, 9, 9}} // of a difference before
		now, last := copyHistogram(&x.now), copyHistogram(&x.last)
		fell := got.Difference(&x.now, &x.last)
		if fell != x.fell || !fell && !sameHistogram(&got, &x.want) {
			t.Errorf("%s: %+v, %t; want %+v, %t", name, got, fell, x.want, x.fell)
		}
		if !sameHistogram(&now, &x.now) || !sameHistogram(&last, &x.last) {
			t.Errorf("%s: written to what was compared", name)
		}
	}
}

func copyHistogram(h *Histogram) Histogram {
	return Histogram{h.Distribution, slices.Clone(h.Bounds), slices.Clone(h.Counts)}
}

func sameHistogram(a, b *Histogram) bool {
	return a.Distribution == b.Distribution && slices.Equal(a.Bounds, b.Bounds) && slices.Equal(a.Counts, b.Counts)
}

// exponential returns a histogram of positive and negative buckets that counts what it holds.
func exponential(scale int, zero uint64, threshold float64, positive, negative Buckets) Exponential {
	e := Exponential{exponentialHeader{ZeroCount: zero, ZeroThreshold: threshold, Scale: scale}, [2]Buckets{positive, negative}}
	e.Count = zero
	for _, b := range e.Ranges {
		for _, v := range b.Counts {
			e.Count += v
		}
	}
	return e
}

func at(offset int64, counts ...uint64) Buckets { return Buckets{offset, counts} }

func copyExponential(e *Exponential) Exponential {
	c := *e
	for i := range c.Ranges {
		c.Ranges[i].Counts = slices.Clone(c.Ranges[i].Counts)
	}
	return c
}

func sameExponential(a, b *Exponential) bool {
	same := a.exponentialHeader == b.exponentialHeader
	for i := range a.Ranges {
		same = same && a.Ranges[i].Offset == b.Ranges[i].Offset && slices.Equal(a.Ranges[i].Counts, b.Ranges[i].Counts)
	}
	return same
}

func TestExponentialDifference(t *testing.T) {
	none := Buckets{}
	const top = 1<<30 - 1 // the last bucket of scale 20
	for name, x := range map[string]struct {
		now, last, want Exponential
		fell            bool
	}{
		"more": {
			now:  exponential(3, 4, .001, at(10, 1, 2, 3, 4), at(-5, 6, 7)),
			last: exponential(3, 2, .001, at(11, 1, 3), at(-5, 6, 2)),
			want: exponential(3, 2, .001, at(10, 1, 1, 0, 4), at(-4, 5)),
		},
		"nothing new": {
			now:  exponential(3, 4, .001, at(10, 1, 2, 3, 4), at(-5, 6, 7)),
			last: exponential(3, 4, .001, at(10, 1, 2, 3, 4), at(-5, 6, 7)),
			want: exponential(3, 0, 0, none, none),
		},
		"of nothing before": {
			now:  exponential(3, 4, .001, at(10, 1, 2), at(-5, 6, 7)),
			want: exponential(3, 4, .001, at(10, 1, 2), at(-5, 6, 7)),
		},
		"of nothing before, coarser": {
			now:  exponential(3, 4, .001, at(10, 1, 2), at(-5, 6, 7)),
			last: exponential(-10, 0, 5, none, none),
			want: exponential(3, 4, .001, at(10, 1, 2), at(-5, 6, 7)),
		},
		"nothing at all": {},
		"empty buckets outside": {
			now:  exponential(3, 0, 0, at(10, 0, 2, 3, 0), none),
			last: exponential(3, 0, 0, at(8, 0, 0, 0, 1, 3, 0, 0, 0), at(7, 0)),
			want: exponential(3, 0, 0, at(11, 1), none),
		},
		"a lower scale": {
			now:  exponential(1, 0, 0, at(-2, 5, 7, 9), none),
			last: exponential(3, 0, 0, at(-5, 1, 1, 1, 1, 1, 1, 1), none),
			want: exponential(1, 0, 0, at(-2, 4, 3, 7), none),
		},
		"a lower scale, negative too": {
			now:  exponential(-1, 0, 0, at(-1, 5), at(0, 7)),
			last: exponential(0, 0, 0, at(-2, 1, 1), at(0, 1, 1)),
			want: exponential(-1, 0, 0, at(-1, 3), at(0, 5)),
		},
		"the lowest scale of the highest": {
			now:  exponential(MinScale, 0, 0, at(-1, 2, 3), at(-1, 1, 1)),
			last: exponential(MaxScale, 0, 0, at(top, 1), at(-1<<30, 1)),
			want: exponential(MinScale, 0, 0, at(-1, 2, 2), at(0, 1)),
		},
		"the highest scale": {
			now:  exponential(MaxScale, 0, 0, at(top, 3), at(-1075<<20, 4)),
			last: exponential(MaxScale, 0, 0, at(top, 1), at(-1075<<20, 1)),
			want: exponential(MaxScale, 0, 0, at(top, 2), at(-1075<<20, 3)),
		},
		"far apart": {
			now:  exponential(MaxScale, 0, 0, at(top, 3), none),
			last: exponential(MaxScale, 0, 0, at(-1075<<20, 1), none),
			fell: true,
		},
		"a higher scale": {
			now:  exponential(4, 0, 0, at(0, 9, 9), none),
			last: exponential(3, 0, 0, at(0, 1), none),
			fell: true,
		},
		"a higher scale, and negative buckets before": {
			now:  exponential(4, 0, 0, at(0, 9, 9), none),
			last: exponential(3, 0, 0, none, at(0, 1)),
			fell: true,
		},
		"a higher scale, and only zero before": {
			now:  exponential(4, 3, 0, at(0, 9, 9), none),
			last: exponential(3, 2, 0, none, none),
			want: exponential(4, 1, 0, at(0, 9, 9), none),
		},
		"a lower bucket": {
			now:  exponential(3, 4, 0, at(10, 1, 2, 9), none),
			last: exponential(3, 2, 0, at(11, 3), none),
			fell: true,
		},
		"a lower negative bucket": {
			now:  exponential(3, 4, 0, at(3, 9), at(10, 1, 2)),
			last: exponential(3, 2, 0, none, at(11, 3)),
			fell: true,
		},
		"a lower bucket of a lower scale": {
			now:  exponential(2, 4, 0, at(5, 9, 5), none),
			last: exponential(3, 2, 0, at(11, 3, 3, 3), none),
			fell: true,
		},
		"buckets below": {
			now:  exponential(3, 4, 0, at(10, 1, 2, 9), none),
			last: exponential(3, 2, 0, at(9, 1), none),
			fell: true,
		},
		"buckets above": {
			now:  exponential(3, 4, 0, at(10, 1, 2, 9), none),
			last: exponential(3, 2, 0, at(12, 1, 1), none),
			fell: true,
		},
		"buckets in one range only": {
			now:  exponential(3, 4, 0, at(10, 1, 2, 9), none),
			last: exponential(3, 2, 0, none, at(12, 1)),
			fell: true,
		},
		"no buckets any more": {
			now:  exponential(3, 9, 0, none, none),
			last: exponential(3, 2, 0, at(12, 1), none),
			fell: true,
		},
		"a lower zero count": {
			now:  exponential(3, 1, 0, at(10, 9), none),
			last: exponential(3, 2, 0, at(10, 1), none),
			fell: true,
		},
		"no zero count any more": {
			now:  exponential(3, 0, 0, at(10, 9), none),
			last: exponential(3, 2, .5, at(10, 1), none),
			fell: true,
		},
		"a narrower zero bucket": {
			now:  exponential(3, 3, .25, at(10, 9), none),
			last: exponential(3, 2, .5, at(10, 1), none),
			fell: true,
		},
		"a narrower zero bucket of nothing before": {
			now:  exponential(3, 3, .25, at(10, 9), none),
			last: exponential(3, 0, .5, at(10, 1), none),
			want: exponential(3, 3, .25, at(10, 8), none),
		},
		"a zero bucket of nothing any more": {
			now:  exponential(3, 0, 0, at(10, 9), none),
			last: exponential(3, 0, .5, at(10, 1), none),
			want: exponential(3, 0, 0, at(10, 8), none),
		},
		"a wider zero bucket": { // up to 2, the lower bound of bucket 8
			now:  exponential(3, 9, 2, at(8, 5, 5), none),
			last: exponential(3, 2, .5, at(6, 1, 1, 1), at(5, 1)),
			want: exponential(3, 4, 2, at(8, 4, 5), none),
		},
		"a wider zero bucket and a lower scale": { // up to 2, the lower bound of bucket 2
			now:  exponential(1, 9, 2, at(2, 5, 5), none),
			last: exponential(3, 2, .5, at(6, 1, 1, 1, 0, 0, 1), none),
			want: exponential(1, 5, 2, at(2, 3, 5), none),
		},
		"a wider zero bucket of buckets that stayed": {
			now:  exponential(3, 3, 2, at(6, 1, 2, 1), none),
			last: exponential(3, 2, .5, at(6, 1, 1, 1), none),
			want: exponential(3, 2, 2, none, none),
		},
		"a wider zero bucket of all": {
			now:  exponential(20, 9, 2, none, none),
			last: exponential(3, 2, .5, at(6, 1, 1), at(5, 1)),
			want: exponential(3, 4, 2, none, none),
		},
		"a wider zero bucket of more than there is": {
			now:  exponential(3, 4, 2, at(8, 9), none),
			last: exponential(3, 2, .5, at(6, 1, 1), at(5, 1)),
			fell: true,
		},
		"a zero bucket that cuts a bucket": { // whose upper bound is 2
			now:  exponential(0, 9, 1.5, at(0, 1, 7), none),
			last: exponential(0, 2, .5, at(0, 3, 5), none),
			want: exponential(0, 5, 2, at(1, 2), none),
		},
		"a zero bucket that cuts a bucket that is new": {
			now:  exponential(0, 9, 1.5, at(0, 1, 7), none),
			last: exponential(0, 2, .5, at(1, 5), none),
			want: exponential(0, 7, 1.5, at(0, 1, 2), none),
		},
		"a zero bucket that cut a bucket before": {
			now:  exponential(0, 9, 1.5, at(0, 4, 7), none),
			last: exponential(0, 2, 1.5, at(0, 3, 5), none),
			want: exponential(0, 7, 1.5, at(0, 1, 2), none),
		},
		"a zero bucket of everything": {
			now:  exponential(0, 9, math.MaxFloat64, none, none),
			last: exponential(0, 2, .5, at(1023, 5), none),
			want: exponential(0, 2, math.MaxFloat64, none, none),
		},
		"large counts": {
			now:  exponential(3, math.MaxUint64-10, 0, at(10, 4, 6), none),
			last: exponential(3, 1, 0, at(10, 3), none),
			want: exponential(3, math.MaxUint64-11, 0, at(10, 1, 6), none),
		},
		"large buckets": {
			now:  exponential(3, 0, 0, at(10, math.MaxUint64), none),
			last: exponential(3, 0, 0, at(10, math.MaxUint64-1), none),
			want: exponential(3, 0, 0, at(10, 1), none),
		},
		"large buckets of a lower scale": { // which would wrap if they were added up first
			now:  Exponential{exponentialHeader{Distribution: Distribution{Count: 9}}, [2]Buckets{at(0, math.MaxUint64)}},
			last: Exponential{exponentialHeader{Distribution: Distribution{Count: 8}, Scale: 1}, [2]Buckets{at(0, 1<<63, 1<<63)}},
			fell: true,
		},
		"a zero count that wraps now": {
			now: Exponential{
				exponentialHeader{Distribution: Distribution{Count: 9}, ZeroCount: math.MaxUint64, ZeroThreshold: 4}, [2]Buckets{at(0, 1)},
			},
			last: exponential(0, 1, .5, at(0, 1), none),
			fell: true,
		},
		"a zero count that wraps before": {
			now: exponential(0, 9, 4, none, none),
			last: Exponential{
				exponentialHeader{Distribution: Distribution{Count: 8}, ZeroCount: math.MaxUint64, ZeroThreshold: .5}, [2]Buckets{at(0, 1)},
			},
			fell: true,
		},
	} {
		got := exponential(9, 9, 9, at(9, 9, 9, 9, 9, 9), at(9, 9)) // of a difference before
		now, last := copyExponential(&x.now), copyExponential(&x.last)
		fell := got.Difference(&x.now, &x.last)
		if fell != x.fell || !fell && !sameExponential(&got, &x.want) {
			t.Errorf("%s: %+v, %t; want %+v, %t", name, got, fell, x.want, x.fell)
		}
		if !reflect.DeepEqual(now, x.now) || !reflect.DeepEqual(last, x.last) {
			t.Errorf("%s: written to what was compared", name)
		}
	}
}

// manyHistogram returns a histogram with counts of n, and one that holds a few more.
func manyHistogram(n uint64) (last, now Histogram) {
	for i := range 15 {
		last.Bounds = append(last.Bounds, float64(i))
	}
	for range 16 {
		last.Counts = append(last.Counts, n)
	}
	last.Distribution = stats(16*n, 3, 0, 20)
	now = copyHistogram(&last)
	now.Counts[3]++
	now.Count++
	return last, now
}

// manyExponential returns an exponential histogram with counts of n, and one that holds a few more.
func manyExponential(n uint64) (last, now Exponential) {
	counts := make([]uint64, MaxBuckets)
	for i := range counts {
		counts[i] = n
	}
	last = exponential(5, n, .001, at(-7, counts...), at(3, counts[:20]...))
	last = copyExponential(&last)
	now = copyExponential(&last)
	now.Ranges[0].Counts[40]++
	now.Ranges[1].Counts[4]++
	now.Count += 2
	return last, now
}

// coarser returns e at a lower scale and with a wider zero bucket, with which there is something new in each bucket.
func coarser(e *Exponential) Exponential {
	c := copyExponential(e)
	c.Scale, c.ZeroThreshold = e.Scale-1, .5
	c.Ranges[0], c.Ranges[1] = at(-16, make([]uint64, 110)...), at(0, make([]uint64, 30)...)
	for i := range c.Ranges {
		for j := range c.Ranges[i].Counts {
			c.Ranges[i].Counts[j] = 1 << 40
		}
	}
	c.Count = 1 << 50
	return c
}

// What is done with every point makes no garbage, even where the delta, whose memory is used again, is small now and then.
func TestDifferenceAllocatesNothing(t *testing.T) {
	last, now := manyHistogram(3)
	elast, enow := manyExponential(3)
	ecoarse := coarser(&enow)
	var h Histogram
	var e Exponential
	one := func() {
		fell := h.Difference(&now, &Histogram{})
		fell = h.Difference(&now, &last) || fell
		fell = e.Difference(&enow, &Exponential{}) || fell
		fell = e.Difference(&enow, &elast) || fell
		fell = e.Difference(&ecoarse, &elast) || fell
		fell = e.Difference(&enow, &enow) || fell
		if fell || !h.Difference(&last, &now) || !e.Difference(&elast, &enow) {
			t.Fatal("fell, or did not")
		}
	}
	step := func() { // the average is rounded down
		for range 100 {
			one()
		}
	}
	step()
	if n := testing.AllocsPerRun(10, step); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkDifference is beside what adding the difference takes.
func BenchmarkDifference(b *testing.B) {
	last, now := manyHistogram(3)
	elast, enow := manyExponential(3)
	ecoarse := coarser(&enow)
	var h Histogram
	var e Exponential
	b.Run("histogram", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			h.Difference(&now, &last)
		}
	})
	b.Run("exponential", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			e.Difference(&enow, &elast)
		}
	})
	b.Run("exponential coarser", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			e.Difference(&ecoarse, &elast)
		}
	})
}

// BenchmarkAdd adds the differences of BenchmarkDifference, and as many buckets as the whole.
func BenchmarkAdd(b *testing.B) {
	rules := &Rules{Repair: RepairAll}
	last, now := manyHistogram(3)
	elast, enow := manyExponential(3)
	var few Exponential
	few.Difference(&enow, &elast)
	b.Run("histogram", func(b *testing.B) {
		b.ReportAllocs()
		var total HistogramTotal
		total.Take(&last)
		total.Restart()
		for b.Loop() {
			total.Take(&now)
			total.add(rules)
		}
	})
	for _, x := range []struct {
		name  string
		delta *Exponential
	}{{"exponential", &elast}, {"exponential difference", &few}} {
		b.Run(x.name, func(b *testing.B) {
			b.ReportAllocs()
			var total ExponentialTotal
			total.Take(&elast)
			total.Restart()
			for b.Loop() {
				total.Take(x.delta)
				total.add(rules)
			}
		})
	}
}
