// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package fold

import "math/bits"

// Distribution is what both kinds of histogram have besides buckets.
type Distribution struct {
	Count         uint64  // of observations
	Sum, Min, Max float64 // zero where absent
	Has           Presence
	// Wide is set in a total that is kept with two words per bucket.
	Wide bool
	// Rest is a fingerprint, in a delta, of what its point says besides, and no total has.
	Rest uint32
}

// Presence says which optional fields a distribution has.
type Presence uint8

// The optional fields of a distribution.
const (
	// HasSum says that there is a sum.
	HasSum Presence = 1 << iota
	// HasMin says that there is a minimum.
	HasMin
	// HasMax says that there is a maximum.
	HasMax
)

// plus adds o, or returns false if a count or a sum would overflow; d is of no use then. An optional field is kept while
// every delta that counts anything has it.
func (d *Distribution) plus(o *Distribution) bool {
	switch {
	case o.Count == 0:
		return true
	case d.Count == 0:
		*d = *o
		return true
	}
	var carry uint64
	d.Count, carry = bits.Add64(d.Count, o.Count, 0)
	d.Has &= o.Has
	if d.Has&HasSum != 0 {
		d.Sum += o.Sum
	}
	d.Min = min(d.Min, o.Min)
	d.Max = max(d.Max, o.Max)
	return carry == 0 && Finite(d.Sum)
}

// Finite reports whether no field that is there is a NaN or an infinity.
func (d *Distribution) Finite() bool {
	// Absent fields are zero.
	return Finite(d.Sum) && Finite(d.Min) && Finite(d.Max)
}

// Calm removes the fields that are NaN or an infinity.
func (d *Distribution) Calm() {
	for i, v := range [...]*float64{&d.Sum, &d.Min, &d.Max} {
		if !Finite(*v) {
			*v = 0
			d.Has &^= 1 << i
		}
	}
}

// Finite is false for NaN and for infinities, whose difference from themselves is NaN.
func Finite(v float64) bool { return v-v == 0 }
