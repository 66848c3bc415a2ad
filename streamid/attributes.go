// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid

import (
	"encoding/binary"
	"math"
	"math/bits"

	"go.opentelemetry.io/collector/pdata/pcommon"
)

// The numbers in this block are part of encoding v1: a change changes every ID.
const (
	mod64 = 1<<64 - 1

	// tagStep is 2^64 divided by the golden ratio: its multiples stay far apart.
	tagStep = 0x9E3779B97F4A7C15

	tagStr    = 1 * tagStep & mod64
	tagBool   = 2 * tagStep & mod64
	tagInt    = 3 * tagStep & mod64
	tagDouble = 4 * tagStep & mod64
	tagMap    = 5 * tagStep & mod64
	tagSlice  = 6 * tagStep & mod64
	tagBytes  = 7 * tagStep & mod64
	tagEmpty  = 8 * tagStep & mod64

	tagResource = 9 * tagStep & mod64
	tagScope    = 10 * tagStep & mod64
	tagMetric   = 11 * tagStep & mod64
	tagPoint    = 12 * tagStep & mod64
	tagTenant   = 16 * tagStep & mod64 // 13 to 15 are of route.go, 17 to 19 of reduction.go

	// canonicalNaN stands for every NaN: which one an application produces is an accident of its hardware.
	canonicalNaN = 0x7FF8000000000001
)

// pairSum is a multiset of attributes: the sum of the pairs' hashes modulo 2^128, and their number. Addition makes order
// irrelevant without sorting; unlike xor it does not cancel equal pairs.
type pairSum struct{ hi, lo, count uint64 }

// sumPairs hashes the attributes of m under seed.
func sumPairs(m pcommon.Map, seed uint64) pairSum {
	sum := pairSum{count: uint64(m.Len())}
	for k, v := range m.All() {
		key := hashString(k, seed)
		var value ID
		// Str returns "" for all that is not a string: the usual case costs one type assertion.
		if s := v.Str(); s != "" {
			value = feedForward(hashString(s, key.Lo+tagStr), key.Lo+tagStr)
		} else {
			value = hashValue(v, key.Lo)
		}
		var carry uint64
		sum.lo, carry = bits.Add64(sum.lo, value.Lo, 0)
		sum.hi, _ = bits.Add64(sum.hi, value.Hi^key.Hi, carry)
	}
	return sum
}

// put writes the sum in the form in which it enters other hashes, 24 bytes.
func (s pairSum) put(dst []byte) {
	_ = dst[23]
	binary.LittleEndian.PutUint64(dst, s.hi)
	binary.LittleEndian.PutUint64(dst[8:], s.lo)
	binary.LittleEndian.PutUint64(dst[16:], s.count)
}

// put writes the hash in the form in which it enters other hashes, 16 bytes.
func (id ID) put(dst []byte) {
	_ = dst[15]
	binary.LittleEndian.PutUint64(dst, id.Hi)
	binary.LittleEndian.PutUint64(dst[8:], id.Lo)
}

// feedForward adds the seed of a hash to its result. XXH3 has a state of only 64 bits for inputs of 4 to 8 bytes: to every
// 8-byte string there is an integer that reaches the same state under the integers' seed, and the result would be the
// same 128 bits. With the seed in it, it is not.
func feedForward(h ID, seed uint64) ID { return ID{Hi: h.Hi ^ seed, Lo: h.Lo} }

// hashValue hashes a value of any type under seed. It calls itself for maps and slices: the stack grows with the depth of
// nesting, by less than what pdata needs to decode the same value.
func hashValue(v pcommon.Value, seed uint64) ID {
	switch v.Type() {
	case pcommon.ValueTypeStr:
		seed += tagStr
		return feedForward(hashString(v.Str(), seed), seed)
	case pcommon.ValueTypeBool:
		seed += tagBool
		return feedForward(hashBool(v.Bool(), seed), seed)
	case pcommon.ValueTypeInt:
		seed += tagInt
		return feedForward(hashWord(uint64(v.Int()), seed), seed)
	case pcommon.ValueTypeDouble:
		seed += tagDouble
		return feedForward(hashWord(doubleBits(v.Double()), seed), seed)
	case pcommon.ValueTypeMap:
		seed += tagMap
		return feedForward(hashMap(v.Map(), seed), seed)
	case pcommon.ValueTypeSlice:
		seed += tagSlice
		return feedForward(hashSlice(v.Slice(), seed), seed)
	case pcommon.ValueTypeBytes:
		seed += tagBytes
		return feedForward(hashByteSlice(v.Bytes(), seed), seed)
	}
	// Empty, and what this version of pdata does not know.
	seed += tagEmpty
	return feedForward(hashString("", seed), seed)
}

func hashBool(b bool, seed uint64) ID {
	if b {
		return hashString("\x01", seed)
	}
	return hashString("\x00", seed)
}

func doubleBits(f float64) uint64 {
	if f != f {
		return canonicalNaN
	}
	return math.Float64bits(f)
}

func hashMap(m pcommon.Map, seed uint64) ID {
	var buf [24]byte
	sumPairs(m, seed).put(buf[:])
	return hashBytes(buf[:], seed)
}

func hashSlice(s pcommon.Slice, seed uint64) ID {
	acc := ID{Lo: uint64(s.Len())}
	for _, v := range s.All() {
		acc = chain(acc, hashValue(v, seed), seed)
	}
	var buf [16]byte
	acc.put(buf[:])
	return hashBytes(buf[:], seed)
}

func chain(acc, element ID, seed uint64) ID {
	var buf [32]byte
	acc.put(buf[:16])
	element.put(buf[16:])
	return hashBytes(buf[:], seed)
}
