// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package fold

import (
	"math"
	"math/bits"
)

// Number is an int64 or a float64, by its bits.
type Number struct {
	Bits   uint64
	Double bool
}

// IntNumber returns v as a number.
func IntNumber(v int64) Number { return Number{Bits: uint64(v)} }

// DoubleNumber returns v as a number.
func DoubleNumber(v float64) Number { return Number{Bits: math.Float64bits(v), Double: true} }

// Int returns the value of a number that is no double.
func (n Number) Int() int64 { return int64(n.Bits) }

// Float returns the value as a float64; exact for integers below 2^53.
func (n Number) Float() float64 {
	if n.Double {
		return math.Float64frombits(n.Bits)
	}
	return float64(int64(n.Bits))
}

// SumTotal is the total of a sum and the delta to add.
type SumTotal struct {
	Number
	Delta Number
	// Reduced is the delta after share: a restart takes the whole delta, not the reduced one.
	Reduced Number
}

func (s *SumTotal) add(*Rules) (Outcome, bool) {
	if !s.Double && !s.Reduced.Double {
		a, b := s.Int(), s.Reduced.Int()
		sum := a + b
		// Overflow is when both have the sign that the sum has not.
		if (a^sum)&(b^sum) < 0 {
			return RestartedOverflow, false
		}
		s.Number = IntNumber(sum)
		return 0, true
	}
	sum := s.Float() + s.Reduced.Float()
	if math.IsInf(sum, 0) {
		return RestartedOverflow, false
	}
	s.Number = DoubleNumber(sum)
	return 0, true
}

func (s *SumTotal) share(part, whole int64) {
	if s.Delta.Double {
		s.Reduced = DoubleNumber(s.Delta.Float() * (float64(part) / float64(whole)))
		return
	}
	v := s.Delta.Int()
	magnitude := uint64(v)
	if v < 0 {
		magnitude = -magnitude
	}
	// The quotient is at most the magnitude because part <= whole, so Div64 cannot overflow.
	hi, lo := bits.Mul64(magnitude, uint64(part))
	quotient, _ := bits.Div64(hi, lo, uint64(whole))
	if v < 0 {
		quotient = -quotient
	}
	s.Reduced = IntNumber(int64(quotient))
}

// Restart makes the delta the total.
func (s *SumTotal) Restart() { s.Number = s.Delta }

// Complete does nothing: a sum is read whole.
func (s *SumTotal) Complete() {}
