// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid_test

import (
	"math"
	"math/rand/v2"
)

// randomIdentity makes streams from few and short parts: they resemble one another.
func randomIdentity(r *rand.Rand) identity {
	id := identity{
		Seed:     []uint64{0, 0, 1, r.Uint64()}[r.IntN(4)],
		Resource: randomAttributes(r, 2),
		Scope:    scope{Name: randomString(r), Version: randomString(r), Attributes: randomAttributes(r, 1)},
		Metric: metric{
			Name:        randomString(r),
			Unit:        randomString(r),
			Type:        metricTypes[r.IntN(len(metricTypes))],
			Monotonic:   r.IntN(2) == 0,
			Temporality: temporalities[r.IntN(len(temporalities))],
		},
		Attributes: randomAttributes(r, 3),
	}
	if r.IntN(2) == 0 { // last, so that what fuzzers have found stays what it is
		id.Tenant = randomTenant(r)
	}
	return id
}

func randomTenant(r *rand.Rand) []attribute {
	as := make([]attribute, r.IntN(3))
	for i := range as {
		values := make([]value, r.IntN(3))
		for j := range values {
			values[j] = str(randomString(r))
		}
		as[i] = attr(randomString(r), array(values...))
	}
	return as
}

func randomAttributes(r *rand.Rand, depth int) []attribute {
	as := make([]attribute, r.IntN(4))
	for i := range as {
		as[i] = attr(randomString(r), randomValue(r, depth))
	}
	return as
}

func randomValue(r *rand.Rand, depth int) value {
	kinds := 8
	if depth == 0 {
		kinds = 6 // neither maps nor slices
	}
	switch r.IntN(kinds) {
	case 0:
		return empty()
	case 1:
		return str(randomString(r))
	case 2:
		return blob(randomString(r))
	case 3:
		return boolean(r.IntN(2) == 0)
	case 4:
		return integer([]int64{0, 1, -1, math.MinInt64, math.MaxInt64, int64(r.Uint64())}[r.IntN(6)])
	case 5:
		return double([]float64{0, math.Copysign(0, -1), 1, math.NaN(), math.Inf(-1), r.NormFloat64()}[r.IntN(6)])
	case 6:
		return kvlist(randomAttributes(r, depth-1)...)
	}
	elements := make([]value, r.IntN(4))
	for i := range elements {
		elements[i] = randomValue(r, depth-1)
	}
	return array(elements...)
}

func randomString(r *rand.Rand) string {
	s := make([]byte, []int{0, 1, 1, 2, 3, 5, 8, 12, 17, 33, 130, 250}[r.IntN(12)])
	for i := range s {
		s[i] = "ab\x00\xff"[r.IntN(4)]
	}
	return string(s)
}

// steered is a source of randomness that begins with the bytes of a fuzzer.
type steered struct {
	data []byte
	then *rand.PCG
}

func newSteered(data []byte) *rand.Rand { return rand.New(&steered{data, rand.NewPCG(7, 8)}) }

func (s *steered) Uint64() uint64 {
	if len(s.data) == 0 {
		return s.then.Uint64()
	}
	b := s.data[0]
	s.data = s.data[1:]
	// The byte in all places: rand.Rand looks at the high bits for some purposes and at the low ones for others.
	return uint64(b) * 0x0101010101010101
}
