// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/deltaring/deltaring/d2c"
)

// The tests of this file take entries out of a long journal, of which each adds to one stream: what is missing is noticed
// wherever it is, and no total falls under a start that was given out.

// holed is a journal of many entries, from first to last, and what was given out for its stream.
type holed struct {
	values      stored
	first, last int
	given       timelines
	stream      series
}

// newHoled has a journal of n entries, which so many openings have written. If it is cut, a checkpoint was written before, so
// that there is a head.
func newHoled(t *testing.T, n, openings int, cut bool) *holed {
	t.Helper()
	ctx := context.Background()
	h := &holed{given: newTimelines(), first: 1}
	h.stream = seriesIn(3, 0, func(s series) point { return s.int(0, 1, 1) })
	other := seriesIn(7, 0, func(s series) point { return s.int(0, 1, 1) })
	rec := &recorder{values: stored{}}
	send := func(conv *d2c.Converter, p point) {
		md := ofResource(batch(p))
		if _, err := conv.Convert(ctx, md); err != nil {
			t.Fatal(err)
		}
		if err := h.given.follow(md); err != nil {
			t.Fatal(err)
		}
	}
	if cut {
		conv := h.open(t, rec)
		send(conv, other.int(10, 20, 1))
		send(conv, other.int(20, 30, 1))
		if err := conv.Checkpoint(ctx); err != nil {
			t.Fatal(err)
		}
		closeTest(t, conv)
		h.first = 3
	}
	h.last = h.first - 1
	for h.last < h.first+n-1 {
		conv := h.open(t, rec)
		for range min((n+openings-1)/openings, h.first+n-1-h.last) {
			h.last++
			send(conv, h.delta(h.last))
		}
		closeTest(t, conv)
	}
	h.values = rec.values
	if h.values[entryOf(h.first)] == nil || h.values[entryOf(h.last)] == nil || h.values[entryOf(h.last+1)] != nil {
		t.Fatal("the journal is not as it is meant to be")
	}
	return h
}

// delta is what the entry seq has added.
func (h *holed) delta(seq int) point {
	return h.stream.int(100+10*float64(seq), 110+10*float64(seq), int64(seq))
}

func (h *holed) open(t *testing.T, rec *recorder) *d2c.Converter {
	conv, _ := h.recover(t, rec)
	return conv
}

func (h *holed) recover(t *testing.T, rec *recorder) (*d2c.Converter, d2c.Recovery) {
	t.Helper()
	cfg := d2c.Config{LateWindow: 5 * time.Minute, Now: func() time.Time { return time.Unix(1_700_000_000, 0) }}
	conv, recovery, err := d2c.OpenDurable(context.Background(), cfg, d2c.DurableConfig{Storage: rec, Owner: "test"})
	if err != nil {
		t.Fatal(err)
	}
	conv.StopBackground()
	return conv, recovery
}

// suffer takes the entries from from to to out, with whatever else is done to what is stored, and plays what must be true.
func (h *holed) suffer(t *testing.T, from, to int, others ...operation) {
	t.Helper()
	name := fmt.Sprintf("%d to %d of %d to %d missing, %v", from, to, h.first, h.last, others)
	rec := &recorder{values: h.values.with(others)}
	for seq := from; seq <= to; seq++ {
		delete(rec.values, entryOf(seq))
	}
	conv, recovery := h.recover(t, rec)
	told := map[string]bool{}
	for _, d := range recovery.Damaged {
		told[d.Key] = true
	}
	for seq := from; seq <= to; seq++ {
		if !told[entryOf(seq)] {
			t.Fatalf("%s: %s is not told, %d are", name, entryOf(seq), len(told))
		}
	}
	// The last entry is there, and says what has become of its stream: its total goes on.
	given := maps.Clone(h.given)
	md := ofResource(batch(h.delta(h.last + 1)))
	convert(conv, md)
	if err := given.follow(md); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if to < h.last {
		if p := allPoints(md)[0]; p.start != uint64(sec(float64(100+10*h.first))) {
			t.Fatalf("%s: stream begins anew at %d, though its last entry is there", name, p.start)
		}
	}
	// One that may have been in what is missing does not begin before what was given out.
	lost := seriesIn(3, 5, func(s series) point { return s.int(0, 1, 1) })
	end := float64(110 + 10*h.last)
	md = ofResource(batch(lost.int(end-10, end, 1)))
	if r := convert(conv, md); r.Count(d2c.DroppedTooLate) != 1 {
		t.Fatalf("%s: a stream that may be lost begins up to the floor: %s", name, describeResult(r))
	}
	closeTest(t, conv)
	// Next time all is well.
	want := statesOf(conv)
	conv, recovery = h.recover(t, rec)
	defer closeTest(t, conv)
	if got := statesOf(conv); fmt.Sprint(got) != fmt.Sprint(want) || len(recovery.Damaged) > 0 || recovery.Torn {
		t.Fatalf("%s: next time %+v\n got %q\nwant %q", name, recovery, got, want)
	}
}

// Each of 80 entries is missing in turn, and runs of them at each place.
func TestHole(t *testing.T) {
	for _, cut := range []bool{false, true} {
		t.Run(fmt.Sprint("cut ", cut), func(t *testing.T) {
			h := newHoled(t, 80, 3, cut)
			for _, run := range []int{1, 2, 16, 17, 33} {
				for from := h.first; from+run-1 < h.last; from++ {
					if quick() && run > 2 && from%5 != 0 && from+run != h.last {
						continue
					}
					h.suffer(t, from, from+run-1)
				}
			}
		})
	}
}

// Long runs, as long as recovery looks past.
func TestLongHole(t *testing.T) {
	h := newHoled(t, 140, 3, true)
	for from := h.first; from+99 < h.last; from++ {
		h.suffer(t, from, from+99)
	}
	h = newHoled(t, 1030, 3, false)
	for _, from := range []int{1, 2, 16, 17, 29} {
		h.suffer(t, from, from+999)
	}
}

// The head is lost as well.
func TestHoleAndHeadLost(t *testing.T) {
	h := newHoled(t, 80, 3, true)
	for _, head := range [][]byte{nil, {1}} {
		for _, run := range []int{1, 2, 16, 17, 33} {
			for from := h.first; from+run-1 < h.last; from += 3 {
				h.suffer(t, from, from+run-1, operation{"m/head", head})
			}
		}
	}
}

// What is left of an earlier journal behind is not taken for what follows the hole, and is gone afterwards.
func TestHoleAndEarlierJournal(t *testing.T) {
	h := newHoled(t, 120, 1, false)
	earlier := h.values
	// The journal is set back to the 20th entry and goes on to the 80th.
	rec := &recorder{values: maps.Clone(h.values)}
	for seq := 21; seq <= h.last; seq++ {
		delete(rec.values, entryOf(seq))
	}
	// What was given out after the 20th entry is forgotten with it.
	h.given = newTimelines()
	h.last = 20
	conv := h.open(t, rec)
	for h.last < 80 {
		h.last++
		md := ofResource(batch(h.delta(h.last)))
		convert(conv, md)
		if err := h.given.follow(md); err != nil {
			t.Fatal(err)
		}
	}
	closeTest(t, conv)
	h.values = rec.values
	// Something is left, next to the end and behind a hole of its own.
	for _, left := range []int{81, 85, 97, 98, 115} {
		var others []operation
		for seq := left; seq <= 120; seq++ {
			if seq%7 != 3 { // with holes
				others = append(others, operation{entryOf(seq), earlier[entryOf(seq)]})
			}
		}
		for _, run := range []int{1, 2, 16, 17} {
			for from := 21; from+run-1 < h.last; from += 4 {
				h.suffer(t, from, from+run-1, others...)
			}
		}
		// Nothing is missing: then nothing is told, and what is left goes.
		rec := &recorder{values: h.values.with(others)}
		conv, recovery := h.recover(t, rec)
		if len(recovery.Damaged) > 0 || recovery.Entries != h.last {
			t.Fatalf("left from %d on: %+v", left, recovery)
		}
		closeTest(t, conv)
		for key := range rec.values {
			if strings.HasPrefix(key, "j/") && key > entryOf(h.last) {
				t.Fatalf("left from %d on: %s is still there", left, key)
			}
		}
		// The last entry is torn: what is behind it is of an earlier journal and does not make it damaged.
		torn := append(others[:len(others):len(others)], operation{entryOf(h.last), h.values[entryOf(h.last)][:50]})
		conv, recovery = h.recover(t, &recorder{values: h.values.with(torn)})
		if len(recovery.Damaged) > 0 || !recovery.Torn || recovery.Entries != h.last-1 {
			t.Fatalf("left from %d on, torn: %+v", left, recovery)
		}
		closeTest(t, conv)
	}
}
