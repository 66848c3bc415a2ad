// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"errors"
	"testing"
	"time"

	"github.com/deltaring/deltaring/d2c"
)

func writersMany(cfg *d2c.Config) { cfg.Writers = d2c.WritersMany }

// What a worker remembers it puts back with a point that is added, or not at all: what it has confirmed of nothing would be put
// back later, when it may be stale.
func TestSharedManyWritersPutBackOnlyWhatIsAdded(t *testing.T) {
	st := new(scriptStore)
	a, b := newScriptWorker(t, st, window(60), writersMany), newScriptWorker(t, st, window(60), writersMany)
	at := func(seconds int64) {
		a.now, b.now = time.Unix(scriptEpoch+seconds, 0), time.Unix(scriptEpoch+seconds, 0)
	}
	routed(a, b)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	at(5)
	st.wipe()
	expect(t, a.convert(delta{"other", 5, 7, 1, false}), "first (6, 7] 1")
	expect(t, a.add(1, 2, 10), "dropped_too_late") // begins where the stream ends, but the floor is at 6
	b.route.Epoch = 2
	expect(t, b.add(7, 8, 100), "first (7, 8] 100")
	at(15)
	st.wipe()
	a.route.Epoch = 3
	expect(t, a.add(17, 18, 1000), "restart_lost (17, 18] 1000")
}

// What many writers send while the store fails is counted once, by a worker that knows the stream and by one that does not; of
// what may have been counted before, the store says in the end whether it was.
func TestSharedManyWritersInAnOutage(t *testing.T) {
	st := new(troubledStore)
	a := openTroubled(t, st, 100, writersMany)
	expect(t, a.at(2000).add(1000, 2000, 1), "first (1000, 2000] 1")
	st.away()
	expect(t, a.add(1500, 2001, 10), "unordered (1000, 2001] 11")
	expect(t, a.add(1500, 2001, 10), "repeat (1000, 2001] 11")
	expect(t, a.add(1000, 2000, 1), "repeat (1000, 2001] 11")
	expect(t, a.add(1900, 1990, 100), "unordered (1000, 2001.001] 111")
	st.back()
	a.reconcile()
	expect(t, a.figures(), "outstanding 0, missed 0")
	expect(t, a.add(1500, 2001, 10), "repeat (1000, 2001.001] 111")

	st.away()
	b := openTroubled(t, st, 100, writersMany).at(2005)
	expect(t, b.add(2006, 2010, 1000), "first (2006, 2010] 1000")
	expect(t, b.add(2000, 2020, 10000), "unordered (2006, 2020] 11000")
	expect(t, b.add(2006, 2010, 1000), "repeat (2006, 2020] 11000")
	expect(t, b.add(1500, 2001, 10), "kept")     // which was counted
	expect(t, b.add(1600, 2002, 100000), "kept") // and which was not
	st.back()
	b.reconcile()
	expect(t, b.figures(), "outstanding 0, missed 1")
	expect(t, a.at(2030).add(2010, 2030, 5), "unordered (2006, 2030] 11005")
	expect(t, a.add(2000, 2020, 10000), "repeat (2006, 2030] 11005")
	expect(t, a.add(1500, 2001, 10), "dropped_too_late")
	expect(t, b.add(1000, 2000, 1), "dropped_too_late")
}

// A reply that was lost is no second delta, wherever it is sent again, and what is twice in its request stays so.
func TestSharedManyWritersLostReply(t *testing.T) {
	st := new(scriptStore)
	a, b := newScriptWorker(t, st, window(60), writersMany), newScriptWorker(t, st, window(60), writersMany)
	twice := []delta{{"requests", 0, 5, 1, false}, {"requests", 0, 5, 1, false}, {"requests", 2, 5, 10, false}}
	st.once(func(swap func() error) error { return errors.Join(swap(), errStorage) })
	expect(t, a.convert(twice...), "refused: d2c: shared state: storage is out")
	expect(t, b.convert(twice...), "3 repeat (0, 5] 12")
	expect(t, a.convert(twice...), "3 repeat (0, 5] 12")
	st.once(func(func() error) error { return errStorage })
	expect(t, b.add(1, 6, 100), "refused: d2c: shared state: storage is out")
	expect(t, a.add(1, 6, 100), "unordered (0, 6] 112")
	expect(t, b.add(1, 6, 100), "repeat (0, 6] 112")
	// Another worker may have been there in between.
	st.once(func(swap func() error) error {
		err := swap()
		expect(t, b.add(3, 4, 1000), "unordered (0, 6.002] 1122") // after the one under way, of which nobody has heard
		return errors.Join(err, swap())
	})
	expect(t, a.add(4, 5, 10), "repeat (0, 6.002] 1122")
}
