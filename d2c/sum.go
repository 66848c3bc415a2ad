// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"math"
	"math/bits"
)

// number is an int64 or a float64, by its bits.
type number struct {
	bits   uint64
	double bool
}

func intNumber(v int64) number      { return number{bits: uint64(v)} }
func doubleNumber(v float64) number { return number{bits: math.Float64bits(v), double: true} }

func (n number) int() int64 { return int64(n.bits) }

// float returns the value as a float64; exact for integers below 2^53.
func (n number) float() float64 {
	if n.double {
		return math.Float64frombits(n.bits)
	}
	return float64(int64(n.bits))
}

// sumTotal is the total of a sum and the delta to add.
type sumTotal struct {
	number
	delta number
	// reduced is the delta after share: a restart takes the whole delta, not the reduced one.
	reduced number
}

func (s *sumTotal) add() (Outcome, bool) {
	if !s.double && !s.reduced.double {
		a, b := s.int(), s.reduced.int()
		sum := a + b
		// Overflow is when both have the sign that the sum has not.
		if (a^sum)&(b^sum) < 0 {
			return RestartedOverflow, false
		}
		s.number = intNumber(sum)
		return 0, true
	}
	sum := s.float() + s.reduced.float()
	if math.IsInf(sum, 0) {
		return RestartedOverflow, false
	}
	s.number = doubleNumber(sum)
	return 0, true
}

func (s *sumTotal) share(part, whole int64) {
	if s.delta.double {
		s.reduced = doubleNumber(s.delta.float() * (float64(part) / float64(whole)))
		return
	}
	v := s.delta.int()
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
	s.reduced = intNumber(int64(quotient))
}

func (s *sumTotal) restart() { s.number = s.delta }

func (s *sumTotal) complete() {}
