// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

//go:build purego

package streamid

// ForgetLayout does nothing: there is no layout to forget.
func ForgetLayout() (restore func()) { return func() {} }

// LayoutUsed is whether Splitters use the layout of pdata.
const LayoutUsed = false
