// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
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
