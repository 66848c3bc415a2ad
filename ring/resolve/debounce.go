// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"slices"
	"time"
)

// debouncer holds back changes until they last. It is told every answer and says which to act upon.
type debouncer struct {
	wait    time.Duration
	current []Member // acted upon

	candidate []Member  // differs from current
	since     time.Time // when candidate was first seen
	unstable  time.Time // when answers began to differ from current
}

// patienceFactor times wait is how long answers may keep changing until one is acted upon regardless.
const patienceFactor = 10

// offer returns whether to act upon an answer now, and otherwise when to look again at the latest if the answer is to
// be acted upon in time: zero if there is nothing to wait for. Answers are in the order of names.
func (d *debouncer) offer(now time.Time, answer []Member) (act bool, again time.Duration) {
	if slices.Equal(answer, d.current) {
		d.candidate = nil
		return false, 0
	}
	if d.current == nil || d.wait == 0 {
		return true, 0 // nothing to protect
	}
	if d.candidate == nil {
		d.unstable = now
	}
	if !slices.Equal(answer, d.candidate) {
		d.candidate, d.since = answer, now
	}
	left := min(d.wait-now.Sub(d.since), patienceFactor*d.wait-now.Sub(d.unstable))
	return left <= 0, max(left, 0)
}

// acted makes answer the current one.
func (d *debouncer) acted(answer []Member) {
	d.current, d.candidate = answer, nil
}
