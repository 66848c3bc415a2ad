// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/deltaring/deltaring/d2c"
)

// What a store loses, and who notices: scripts as in shared_script_test.go.

// The record of a stream is gone. Only where a ring says that nobody else can have changed the stream does it go on.
func TestSharedEvictedRecordIsPutBackByRouteOnly(t *testing.T) {
	for name, tc := range map[string]struct {
		before, after uint64 // the epochs of routes, zero if there is none
		want, next    string
	}{
		"one route":          {1, 1, "aligned (0, 3] 111", "aligned (0, 4] 1111"},
		"no route":           {0, 0, "restart_lost (2, 3] 100", "aligned (2, 4] 1100"}, // alignment alone proves nothing
		"no route any more":  {1, 0, "restart_lost (2, 3] 100", "aligned (2, 4] 1100"},
		"no route until now": {0, 1, "restart_lost (2, 3] 100", "aligned (2, 4] 1100"},
		"another ring":       {1, 2, "restart_lost (2, 3] 100", "aligned (2, 4] 1100"},
	} {
		t.Run(name, func(t *testing.T) {
			st := new(scriptStore)
			a, b := newScriptWorker(t, st), newScriptWorker(t, st)
			route := func(epoch uint64) {
				if a.route = (d2c.Route{}); epoch > 0 {
					a.route = d2c.Route{Epoch: epoch, Member: "a"}
				}
			}
			route(tc.before)
			expect(t, a.add(0, 1, 1), "first (0, 1] 1")
			expect(t, a.add(1, 2, 10), "aligned (0, 2] 11")
			st.evict()
			route(tc.after)
			expect(t, a.add(2, 3, 100), tc.want)
			expect(t, b.add(3, 4, 1000), tc.next)
		})
	}
}

// A route that changed and is back to what it was is another one: somebody else had the stream meanwhile.
func TestSharedRouteThatIsBackIsNotUnbroken(t *testing.T) {
	st := new(scriptStore)
	a := newScriptWorker(t, st)
	routed(a)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	a.route.Epoch++
	expect(t, a.convert(delta{"other", 0, 1, 1, false}), "first (0, 1] 1")
	a.route.Epoch--
	expect(t, a.convert(delta{"other", 1, 2, 1, false}), "aligned (0, 2] 2")
	st.evict()
	expect(t, a.add(1, 2, 10), "restart_lost (1, 2] 10")
}

// A ring that went and came back, of which the worker got no batch in between: gateways say since when they use it. The stream is
// counted at 0 s, and its record is gone.
func TestSharedRouteIsUnbrokenSinceItsRingBegan(t *testing.T) {
	const unknown = math.MaxInt32
	for name, tc := range map[string]struct {
		before, after float64 // since when the ring is used, in seconds
		goesOn        bool
	}{
		"no change":                         {-60, -60, true},
		"it came back":                      {-60, 3, false},
		"or did so before the margin":       {-60, 7, false},
		"a gateway that is older":           {-60, -3600, true},
		"one that began later is news":      {-60, -30, false},
		"counted within the margin":         {-1.9, -1.9, false},
		"and after it":                      {-2.1, -2.1, true},
		"a gateway with a clock far ahead":  {3600, 3600, false},
		"nobody says":                       {unknown, unknown, true},
		"one says, and one does not":        {-60, unknown, true},
		"one does not say, and another one": {unknown, -60, false},
	} {
		t.Run(name, func(t *testing.T) {
			st := new(scriptStore)
			a := newScriptWorker(t, st)
			route := func(since float64) {
				a.route = d2c.Route{Epoch: 1, Member: "a"}
				if since != unknown {
					a.route.Since = scriptTime(since).AsTime()
				}
			}
			route(tc.before)
			expect(t, a.add(0, 1, 1), "first (0, 1] 1")
			st.evict()
			a.now = a.now.Add(10 * time.Second)
			route(tc.after)
			if tc.goesOn {
				expect(t, a.add(1, 2, 10), "aligned (0, 2] 11")
			} else {
				expect(t, a.add(1, 2, 10), "restart_lost (1, 2] 10")
			}
			// Either way it is counted now.
			a.now = a.now.Add(3 * time.Hour)
			expect(t, a.add(2, 3, 100), map[bool]string{true: "aligned (0, 3] 111", false: "aligned (1, 3] 110"}[tc.goesOn])
			a.now = a.now.Add(time.Second)
			st.evict()
			expect(t, a.add(3, 4, 1000), map[bool]string{true: "aligned (0, 4] 1111", false: "aligned (1, 4] 1110"}[tc.goesOn])
		})
	}
}

// What one gateway says holds for batches of all, until the ring is another one.
func TestSharedRouteIsBrokenByAnyGateway(t *testing.T) {
	st := new(scriptStore)
	a := newScriptWorker(t, st)
	routed(a)
	a.route.Since = scriptTime(-60).AsTime()
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	a.now = a.now.Add(time.Minute)
	a.route.Since = scriptTime(30).AsTime()
	expect(t, a.convert(delta{"other", 0, 1, 1, false}), "first (0, 1] 1")
	a.route.Since = scriptTime(-60).AsTime()
	st.evict()
	expect(t, a.add(1, 2, 10), "restart_lost (1, 2] 10")
}

// A store that is wiped begins a life, whose floor is not before whatever was given out: here the latest time that the worker
// which found it so had given out, 2 s after the clock, and a second more. What ends by then may have been counted.
func TestSharedWipedStore(t *testing.T) {
	st := new(scriptStore)
	a, b := newScriptWorker(t, st), newScriptWorker(t, st)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	expect(t, b.convert(delta{"other", 1, 2, 5, false}), "first (1, 2] 5")
	expect(t, a.add(1, 2, 10), "aligned (0, 2] 11")
	st.wipe()
	expect(t, a.add(1, 2, 10), "dropped_too_late")                            // a retry
	expect(t, b.add(1, 2, 10), "dropped_too_late")                            // and of one that does not know the stream
	expect(t, a.convert(delta{"other", 2, 3, 50, false}), "dropped_too_late") // up to the floor
	expect(t, a.convert(delta{"other", 2, 4, 50, false}), "first (3, 4] 50")
	expect(t, a.add(2, 2.5, 100), "dropped_too_late") // others may have given out more than this worker knows
	expect(t, a.add(2.5, 4, 1000), "restart_lost (3, 4] 1000")
	expect(t, b.add(4, 5, 1), "aligned (3, 5] 1001")
}

// The life of a new store begins when it is opened: what comes from before, but no further back than a retry may come, is too late.
func TestSharedNewStoreHasAFloor(t *testing.T) {
	st := new(scriptStore)
	a := newScriptWorker(t, st)
	const day = 24 * 3600
	expect(t, a.add(-1, 0, 1), "dropped_too_late")
	expect(t, a.add(-day-1, -day, 1), "first (-86401, -86400] 1")
	expect(t, a.convert(delta{"other", -1, 1, 1, false}), "first (0, 1] 1")
}

// The store's life ends in the midst of a transaction.
func TestSharedWipedWhileCommitting(t *testing.T) {
	st := new(scriptStore)
	a, b := newScriptWorker(t, st), newScriptWorker(t, st)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	st.once(func(swap func() error) error {
		err := swap()
		st.wipe()
		return err
	})
	expect(t, b.add(1, 2, 10), "restart_lost (1, 2] 10") // which it has just read to be after the latest given out
	expect(t, a.add(1, 2, 10), "repeat (1, 2] 10")
}

// Within the late window or after it: it makes no difference any more.
func TestSharedEvictedWithinTheLateWindowRestarts(t *testing.T) {
	st := new(scriptStore)
	a := newScriptWorker(t, st, window(2))
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	st.evict()
	expect(t, a.add(1, 2, 10), "restart_lost (1, 2] 10")
	expect(t, a.add(2, 3, 100), "aligned (1, 3] 110")
	st.evict() // which it does not survive, as nobody says that it had the stream alone
	expect(t, a.add(3, 4, 1000), "restart_lost (3, 4] 1000")
}

func TestSharedEvictedWithAGapRestarts(t *testing.T) {
	st := new(scriptStore)
	a, b := newScriptWorker(t, st), newScriptWorker(t, st)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	expect(t, a.add(1, 2, 10), "aligned (0, 2] 11")
	st.evict()
	expect(t, a.add(3, 4, 1000), "restart_lost (3, 4] 1000")
	expect(t, a.add(2, 3, 100), "dropped_too_late") // of the old life
	expect(t, b.add(1, 2, 10), "dropped_too_late")
	expect(t, b.add(4, 5, 10000), "aligned (3, 5] 11000")
	expect(t, a.add(5, 6, 100000), "aligned (3, 6] 111000")
}

// An open gap may have been filled by somebody else, but for an unbroken route.
func TestSharedEvictedWithAnOpenGap(t *testing.T) {
	st := new(scriptStore)
	a := newScriptWorker(t, st, window(3))
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	expect(t, a.add(1, 5, 1), "aligned (0, 5] 2")
	expect(t, a.add(6, 7, 10), "gap (0, 7] 12")
	expect(t, a.add(5, 5.5, 100), "late (0, 7.001] 112")
	st.evict()
	// Not before the latest time given out, which is after the delta's start.
	expect(t, a.add(7, 8, 1000), "restart_lost (7.001, 8] 1000")
	routed(a) // too late for what was counted before
	st.evict()
	expect(t, a.add(8, 9, 1), "restart_lost (8, 9] 1")
	expect(t, a.add(10, 11, 10), "gap (8, 11] 11")
	st.evict()
	expect(t, a.add(11, 12, 100), "restart_lost (11, 12] 100") // it is the same second as before
	a.now = a.now.Add(time.Second)
	expect(t, a.add(13, 14, 1), "gap (11, 14] 101")
	st.evict()
	expect(t, a.add(14, 15, 10), "aligned (11, 15] 111")
	expect(t, a.add(12, 13, 1000), "late (11, 15.001] 1111")
}

func TestSharedEvictedAndARepeat(t *testing.T) {
	st := new(scriptStore)
	a := newScriptWorker(t, st)
	routed(a)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	expect(t, a.add(1, 2, 10), "aligned (0, 2] 11")
	st.evict()
	// It may be the store that is right: what is known is not confirmed, and so not given out.
	expect(t, a.add(1, 2, 10), "dropped_too_late")
	expect(t, a.add(2, 3, 100), "aligned (0, 3] 111")
}

// By an unbroken route it is; without one the delta is proof of nothing.
func TestSharedRollbackIsUndoneByRouteOnly(t *testing.T) {
	for _, route := range []bool{false, true} {
		st := new(scriptStore)
		a, b := newScriptWorker(t, st), newScriptWorker(t, st)
		if route {
			routed(a, b)
		}
		expect(t, a.add(0, 1, 1), "first (0, 1] 1")
		restore := st.backup()
		expect(t, a.add(1, 2, 10), "aligned (0, 2] 11")
		expect(t, a.add(2, 3, 100), "aligned (0, 3] 111")
		restore()
		if route {
			expect(t, a.add(3, 4, 1000), "aligned (0, 4] 1111")
			expect(t, b.add(4, 5, 10000), "aligned (0, 5] 11111")
		} else {
			expect(t, a.add(3, 4, 1000), "restart_lost (3, 4] 1000")
			expect(t, b.add(4, 5, 10000), "aligned (3, 5] 11000")
		}
	}
}

func TestSharedRollbackWithAGapRestarts(t *testing.T) {
	st := new(scriptStore)
	a, b := newScriptWorker(t, st), newScriptWorker(t, st)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	restore := st.backup()
	expect(t, a.add(1, 2, 10), "aligned (0, 2] 11")
	restore()
	expect(t, a.add(3, 4, 1000), "restart_lost (3, 4] 1000")
	expect(t, b.add(4, 5, 10000), "aligned (3, 5] 11000")
}

// A rollback that coincides with a move cannot be told from a gap by who comes next; but it can by who was there before.
func TestSharedValueBelowWhatWasGivenOutRestarts(t *testing.T) {
	st := new(scriptStore)
	a, b := newScriptWorker(t, st), newScriptWorker(t, st)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	restore := st.backup()
	expect(t, a.add(1, 2, 1000), "aligned (0, 2] 1001")
	restore()
	expect(t, b.add(2, 3, 10), "gap (0, 3] 11")
	expect(t, a.add(3, 4, 100), "restart_lost (3, 4] 100")
	expect(t, b.add(4, 5, 1), "aligned (3, 5] 101")
}

func TestSharedTimeBelowWhatWasGivenOutRestarts(t *testing.T) {
	st := new(scriptStore)
	a, b := newScriptWorker(t, st, window(60)), newScriptWorker(t, st, window(60))
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	restore := st.backup()
	expect(t, a.add(5, 6, 1), "gap (0, 6] 2")
	restore()
	expect(t, b.add(1, 2, 1000), "aligned (0, 2] 1001")
	expect(t, a.add(6, 7, 10), "restart_lost (6, 7] 10")
	expect(t, b.add(2, 3, 1), "dropped_too_late")
	expect(t, b.add(7, 8, 100), "aligned (6, 8] 110")
}

// An older value never resumes under an old start, even if the store has it.
func TestSharedOldLifeDoesNotResume(t *testing.T) {
	st := new(scriptStore)
	a := newScriptWorker(t, st)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	restore := st.backup()
	st.evict()
	expect(t, a.add(2, 3, 10), "restart_lost (2, 3] 10")
	restore()
	expect(t, a.add(3, 4, 100), "restart_lost (3, 4] 100")
}

// Where the store loses a record between two of the swaps of one call, the worker still knows what it had
// just read.

// loseBetween makes the store lose everything after a call has read from it and before it swaps again.
func (s *scriptStore) loseBetween() {
	s.once(func(swap func() error) error {
		err := swap()
		s.evict()
		return err
	})
}

func TestSharedReadRecordIsLostBeforeTheNextSwap(t *testing.T) {
	st := new(scriptStore)
	a, b := newScriptWorker(t, st, window(60)), newScriptWorker(t, st, window(60))
	expect(t, a.add(0, 5, 1), "first (0, 5] 1")
	st.loseBetween()
	// b has just read that (0, 5] was given out.
	expect(t, b.add(2, 3, 10), "dropped_too_late")
}

func TestSharedReadRecordBoundsTheRestart(t *testing.T) {
	st := new(scriptStore)
	a, b := newScriptWorker(t, st, window(60)), newScriptWorker(t, st, window(60))
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	expect(t, b.add(2, 3, 10), "gap (0, 3] 11")
	expect(t, b.add(1, 2, 100), "late (0, 3.001] 111")
	st.loseBetween()
	// a has just read that 3.001 was given out.
	expect(t, a.add(3, 4, 1000), "restart_lost (3.001, 4] 1000")
}

// An answer is given that the store has not confirmed, and what is cached has the tag of no record: it needs no proof to be
// put into an empty store.
func TestSharedNothingStandsOnNothing(t *testing.T) {
	st := new(scriptStore)
	a, b := newScriptWorker(t, st, window(5)), newScriptWorker(t, st, window(5))
	expect(t, a.add(0, 10, 1), "first (0, 10] 1")
	expect(t, b.add(10, 11, 10), "aligned (0, 11] 11")
	expect(t, b.add(11, 12, 100), "aligned (0, 12] 111")
	st.loseBetween()
	// A retry that is aligned with a's cache: proof of nothing, as a has just read better.
	if got := a.add(10, 11, 10); len(st.records) == 0 && strings.HasPrefix(got, "repeat") {
		t.Errorf("got %s of an empty store", got)
	}
	expect(t, b.add(12, 13, 1000), "restart_lost (12, 13] 1000") // aligned is no proof without a route
	st.evict()
	if got := a.add(13, 14, 1); !strings.HasPrefix(got, "restart_lost") {
		t.Errorf("got %s, though b gave out (12, 13] 1000; want a restart", got)
	}
}

// A record that cannot follow on what this worker gave out is recognised.

// The store has gone back to a life before the one this worker gave out, and others have added to that.
func TestSharedOldLifeThatMovedOnDoesNotResume(t *testing.T) {
	st := new(scriptStore)
	a, b := newScriptWorker(t, st), newScriptWorker(t, st)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	restore := st.backup()
	st.evict()
	expect(t, a.add(2, 3, 10), "restart_lost (2, 3] 10")
	expect(t, a.add(3, 4, 1), "aligned (2, 4] 11")
	restore()
	expect(t, b.add(5, 6, 500), "gap (0, 6] 501")
	expect(t, a.add(6, 7, 100), "restart_lost (6, 7] 100")
}

// Another worker has begun a life before the latest time that this one gave out.
func TestSharedLifeBeforeWhatWasGivenOutIsNotFollowed(t *testing.T) {
	st := new(scriptStore)
	a, b := newScriptWorker(t, st, window(60)), newScriptWorker(t, st, window(60))
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	expect(t, b.add(1, 2, 10), "aligned (0, 2] 11")
	st.evict()
	expect(t, a.add(1, 2, 10), "restart_lost (1, 2] 10") // which could not know
	if got := b.add(1, 2, 10); strings.HasSuffix(got, ", 2] 10") {
		t.Errorf("got %s from the worker that gave out (0, 2] 11", got)
	}
}

// The store has gone back, and others have given out another value at the time of this worker's latest.
func TestSharedOtherValueAtTheSameTime(t *testing.T) {
	st := new(scriptStore)
	a, b := newScriptWorker(t, st, window(60)), newScriptWorker(t, st, window(60))
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	expect(t, a.add(3, 4, 10), "gap (0, 4] 11")
	restore := st.backup()
	expect(t, a.add(1, 2, 100), "late (0, 4.001] 111")
	restore()
	expect(t, b.add(2, 3, 1000), "late (0, 4.001] 1011")
	if got := a.add(2, 3, 1000); strings.HasSuffix(got, "(0, 4.001] 1011") {
		t.Errorf("got %s from the worker that gave out (0, 4.001] 111", got)
	}
}

// What is true of deltas is true of markers: the batch that has nothing but a marker of a stream looks at its value too.
func TestSharedMarkerDoesNotHideARollback(t *testing.T) {
	st := new(scriptStore)
	a, b := newScriptWorker(t, st), newScriptWorker(t, st)
	marker := func(at float64) delta { return delta{stream: "requests", start: at, end: at, marker: true} }
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	restore := st.backup()
	expect(t, a.add(1, 2, 1000), "aligned (0, 2] 1001")
	restore()
	expect(t, b.convert(marker(3)), "no_recorded_value (0, 3] no value")
	a.convert(marker(4))
	expect(t, a.add(4, 5, 1), "restart_lost (4, 5] 1")
}

// The store has gone back and others have gone on from there, past what this worker knows: its state is not newer, and the
// retry it gets is aligned with it by chance.
func TestSharedWorkerThatIsNotNewerDoesNotPutBack(t *testing.T) {
	st := new(scriptStore)
	a, b := newScriptWorker(t, st), newScriptWorker(t, st)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	restore := st.backup()
	expect(t, a.add(1, 2, 1000), "aligned (0, 2] 1001")
	restore()
	expect(t, b.add(2, 3, 10), "gap (0, 3] 11")
	expect(t, b.add(3, 4, 100), "aligned (0, 4] 111")
	// Not (0, 3] 1011: b gave out (0, 3] 11 and (0, 4] 111, and the latter's delta would be gone.
	expect(t, a.add(2, 3, 10), "dropped_too_late")
	expect(t, a.add(4, 5, 1), "restart_lost (4, 5] 1")
}
