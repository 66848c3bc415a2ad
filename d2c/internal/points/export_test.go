// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package points

// CopySlices has counts and bounds copied, as where their layout is not known, until restore is called.
func CopySlices() (restore func()) {
	counts, bounds := countsInPlace, boundsInPlace
	countsInPlace, boundsInPlace = false, false
	return func() { countsInPlace, boundsInPlace = counts, bounds }
}
