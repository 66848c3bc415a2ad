// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !purego

package streamid

import "errors"

// ForgetLayout makes Splitters use the exported methods of pdata only, until the function that it returns is called.
func ForgetLayout() (restore func()) {
	known := layout
	layout = func() (*pdataLayout, error) { return nil, errors.New("forgotten") }
	return func() { layout = known }
}

// LayoutUsed is whether Splitters use the layout of pdata.
const LayoutUsed = true
