// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

//go:build race

package ring

// raceEnabled leaves out tests that compute much and share nothing.
const raceEnabled = true
