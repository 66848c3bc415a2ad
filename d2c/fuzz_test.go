// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
)

// FuzzConvert reads its input as the decisions of a history, one byte each, and compares the Converter with the oracle
// as TestHistories does.
func FuzzConvert(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, 300)) // one stream, all aligned
	random := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{20, 100, 300, 1000, 3000} {
		for range 4 {
			data := make([]byte, n)
			for i := range data {
				data[i] = byte(random.Uint32())
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<12 {
			return
		}
		src := byteSource(data)
		if _, err := runHistory(&src); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzExponential merges three exponential deltas, a, b and a again, and compares with counting bucket by bucket.
func FuzzExponential(f *testing.F) {
	type delta struct {
		scale     int8
		offset    int32
		counts    []byte
		negative  int32
		negatives []byte
		zeros     uint64
		threshold float64
		sparse    uint16
	}
	wide := make([]byte, 160)
	for i := range wide {
		wide[i] = 1
	}
	plain := delta{scale: 3, offset: -2, counts: []byte{1, 2, 3}, negative: 5, negatives: []byte{4}, zeros: 1}
	edges := []delta{
		plain,
		{},
		{scale: 20, offset: -1075 << 20, counts: []byte{1}},
		{scale: 20, offset: 1024<<20 - 1, counts: []byte{1}},
		{scale: 20, offset: 1024 << 20, counts: []byte{1}},       // one too far
		{scale: 20, offset: -1075<<20 - 1, counts: []byte{1}},    // one too far
		{scale: 20, offset: math.MaxInt32, counts: []byte{0, 0}}, // far, but nothing is there
		{scale: 20, offset: math.MaxInt32, counts: []byte{0, 1}}, // wraps an int32
		{scale: 20, offset: math.MinInt32, counts: []byte{1}},
		{scale: -10, offset: -1, counts: []byte{1, 1}},
		{scale: -10, offset: -2, counts: []byte{1}},
		{scale: -11},
		{scale: 21},
		{scale: 5, offset: -80, counts: wide},
		{scale: 5, offset: -80, counts: append(wide, 1)},
		{scale: 5, negative: -81, negatives: wide},
		{scale: 0, offset: -1075, counts: []byte{1}, negative: 1023, negatives: []byte{1}},
		{scale: 0, offset: -4, counts: []byte{1, 2, 4, 8}, threshold: 0.25},
		{scale: 0, offset: -4, counts: []byte{1, 2, 4, 8}, threshold: 0.26},
		{scale: 0, offset: 1023, counts: []byte{1}, threshold: math.MaxFloat64},
		{scale: 0, offset: 1023, counts: []byte{1}, threshold: math.MaxFloat64 / 1.5},
		{scale: 0, offset: -1075, counts: []byte{1, 1}, threshold: math.SmallestNonzeroFloat64},
		{scale: 4, offset: 0, counts: []byte{1, 2, 3}, zeros: math.MaxUint64},
		{scale: 4, zeros: math.MaxUint64 - 3, offset: 7, counts: []byte{3}},
		{scale: 4, zeros: math.MaxUint64 - 3, offset: 7, counts: []byte{4}},
		{scale: 7, offset: -300, counts: []byte{1, 1}, sparse: 700, threshold: 0.9},
		{scale: 2, threshold: math.Copysign(0, -1)},
		{scale: 2, threshold: -1},
		{scale: 2, threshold: math.NaN()},
		{scale: 2, threshold: math.Inf(1)},
	}
	for _, a := range edges {
		for _, b := range edges {
			f.Add(a.scale, a.offset, a.counts, a.negative, a.negatives, a.zeros, a.threshold, a.sparse,
				b.scale, b.offset, b.counts, b.negative, b.negatives, b.zeros, b.threshold, b.sparse)
		}
	}
	f.Fuzz(func(t *testing.T,
		scaleA int8, offsetA int32, countsA []byte, negativeA int32, negativesA []byte, zerosA uint64, thresholdA float64, sparseA uint16,
		scaleB int8, offsetB int32, countsB []byte, negativeB int32, negativesB []byte, zerosB uint64, thresholdB float64, sparseB uint16,
	) {
		for _, d := range []struct {
			scale     int8
			threshold float64
		}{{scaleA, thresholdA}, {scaleB, thresholdB}} {
			// Boundaries of scales above zero are exact neither here nor there, least of all among the subnormals.
			if max(scaleA, scaleB) > 0 && d.threshold > 0 && d.threshold < 0x1p-1022 {
				return
			}
		}
		a := expo(int32(scaleA), thresholdA, zerosA, spread(offsetA, countsA, sparseA), spread(negativeA, negativesA, 0))
		b := expo(int32(scaleB), thresholdB, zerosB, spread(offsetB, countsB, sparseB), spread(negativeB, negativesB, 0))
		conv := newConverter(t, d2c.DefaultConfig())
		m := newModel(d2c.DefaultConfig())
		const s = series("s")
		for i, set := range []func(pmetric.ExponentialHistogramDataPoint){a, b, a} {
			in := batch(s.exponential(float64(10+i), float64(11+i), set))
			got := pmetric.NewMetrics()
			in.CopyTo(got)
			result := convert(conv, got)
			for _, dp := range exponentialPoints(got) {
				if n := max(dp.Positive().BucketCounts().Len(), dp.Negative().BucketCounts().Len()); n > maxBuckets {
					t.Errorf("%d buckets", n)
				}
			}
			want, wantResult := m.convert(in)
			if result.Points() != wantResult || !sameMetrics(got, want) {
				t.Fatalf("delta %d %v:\n got %v %s\nwant %v %s", i, lines(in),
					lines(got), describeResult(result), lines(want), describeResult(wantResult))
			}
		}
	})
}

// spread makes buckets of bytes, with so many empty ones between the first and the second.
func spread(offset int32, counts []byte, empty uint16) buckets {
	b := buckets{offset: offset}
	for i, n := range counts {
		b.counts = append(b.counts, uint64(n))
		if i == 0 {
			b.counts = append(b.counts, make([]uint64, empty)...)
		}
	}
	return b
}
