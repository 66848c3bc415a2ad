// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"testing"
	"time"

	"github.com/deltaring/deltaring/d2c"
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

// A stream that is opened under a floor begins there, whatever its points say, and a producer whose start never moves goes on.
func TestFloorAndAStartThatNeverMoves(t *testing.T) {
	for _, s := range floorStreams() {
		t.Run(s.name, func(t *testing.T) {
			conv := openForgotten(t, forgotten(t, s))
			defer closeTest(t, conv)
			for _, x := range []struct {
				start, end float64
				want       d2c.Outcome
			}{
				{1000, 1030, d2c.DroppedTooLate},
				{1000, 1040, d2c.AddedFirst},
				{1000, 1050, d2c.AddedOverlap},
				{1000, 1060, d2c.AddedOverlap},
				{1029, 1035, d2c.DroppedTooLate},
				{0, 1029, d2c.DroppedTooLate},
			} {
				md := ofResource(batch(s.delta(x.start, x.end, 1)))
				if r := convert(conv, md); r.Count(x.want) != 1 {
					t.Errorf("(%v, %v]: %s, want %v", x.start, x.end, describeResult(r), x.want)
				} else if !x.want.Dropped() && lastPoint(md).StartTimestamp() != sec(1030) {
					t.Errorf("(%v, %v]: %v", x.start, x.end, lines(md))
				}
			}
		})
	}
}
