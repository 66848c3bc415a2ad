// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

//go:build purego

package streamid

// transplant is in transplant.go. Without it, batches are split by the exported methods of pdata.
type transplant struct{}

func (*transplant) begin(Signal) bool { return false }

func addPart[S resourceSlice](*transplant, S)        {}
func moveAll[S resourceSlice](*transplant, S, *plan) {}

// SplitsInPlace is in layout.go.
func SplitsInPlace() bool { return false }
