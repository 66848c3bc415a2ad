// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"testing"
	"time"
)

// What a stream that was opened by a point of a life before remembers as missing does not reach below a floor: what ends there
// may be in a total that was lost.
func TestSharedFloorHoldsForWhatIsMissing(t *testing.T) {
	st := new(scriptStore)
	a := newScriptWorker(t, st, window(60))
	expect(t, a.add(0, 5, 1), "first (0, 5] 1")
	expect(t, a.add(5, 10, 10), "aligned (0, 10] 11")
	st.wipe()
	a.now = a.now.Add(10 * time.Second)
	expect(t, a.add(5, 10, 10), "dropped_too_late") // the floor is 11
	b := scriptWorkerAt(t, st, 12, window(60))
	expect(t, b.add(10, 15, 100), "first (15, 15] 100")
	expect(t, b.add(5, 10, 10), "dropped_too_late")
	expect(t, a.add(0, 10, 10), "dropped_too_late")
}
