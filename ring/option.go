// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"fmt"
	"math"
	"math/bits"
)

const (
	minBits     = 4
	defaultBits = 18
	maxBits     = 22

	million        = 1_000_000
	defaultBalance = 10_000
)

// config is what decides over a table besides the members.
type config struct {
	bits    uint8  // log2 of the number of slots
	balance uint32 // millionths of the fair share by which a member may exceed it
}

// slots returns the number of slots.
func (c config) slots() int { return 1 << c.bits }

// Option changes how New builds a ring. All processes that route the same keys must use the same options.
type Option func(*config) error

// WithSlots sets the number of slots: a power of two from 16 to 4194304; the default is 262144. More slots give a finer
// balance and fewer moves beyond the minimum, and cost 2 bytes each. Rings with different slot counts have nothing in
// common, so choose it once for the largest fleet you expect, and do not change it with the number of members.
//
// Use few slots for data that is itself divided into that many parts, each of which must have one owner. A member owns whole
// slots, and there may be no more members with a weight than slots: see the package comment for the cost.
func WithSlots(n int) Option {
	return func(c *config) error {
		if n < 1<<minBits || n > 1<<maxBits || n&(n-1) != 0 {
			return fmt.Errorf("ring: slots: %d is not a power of two from %d to %d", n, 1<<minBits, 1<<maxBits)
		}
		c.bits = uint8(bits.TrailingZeros(uint(n)))
		return nil
	}
}

// WithBalance sets the fraction by which a member may exceed its fair share: 0 to 1 in steps of a millionth; the default is
// 0.01. A smaller value is fairer, a larger one moves less when members come and go.
func WithBalance(epsilon float64) Option {
	return func(c *config) error {
		if !(epsilon >= 0 && epsilon <= 1) {
			return fmt.Errorf("ring: balance: %v is not between 0 and 1", epsilon)
		}
		c.balance = uint32(math.Round(epsilon * million))
		return nil
	}
}
