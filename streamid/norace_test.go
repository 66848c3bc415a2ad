// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !race

package streamid_test

const raceEnabled = false
