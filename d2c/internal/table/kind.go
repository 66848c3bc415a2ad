// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package table

// Kind is the kind of a stream.
type Kind uint8

// The kinds of streams.
const (
	// KindSum streams add up numbers.
	KindSum Kind = iota
	// KindHistogram streams have explicit bounds.
	KindHistogram
	// KindExponentialHistogram streams have a scale.
	KindExponentialHistogram
)
