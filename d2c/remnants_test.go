// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/deltaring/deltaring/d2c"
)

// entryOf returns the key of the entry with that number.
func entryOf(seq int) string { return fmt.Sprintf("j/%016x", seq) }

// takeOut removes entries, and returns a copy of the recorder without them and a function that brings some of them back: what
// a store does that was restored from an old copy and later finds the newer files again, or that hides more entries than
// recovery looks past.
func takeOut(rec *recorder, first, last int) (without *recorder, bringBack func(to *recorder, first, last int)) {
	was := rec.values
	without = &recorder{values: maps.Clone(was)}
	for seq := first; seq <= last; seq++ {
		delete(without.values, entryOf(seq))
	}
	return without, func(to *recorder, first, last int) {
		to.values = maps.Clone(to.values)
		for seq := first; seq <= last; seq++ {
			to.values[entryOf(seq)] = was[entryOf(seq)]
		}
	}
}

// orphaned returns what is stored after a journal of 40 entries was set back to the fourth, a process has gone on from there
// with so many batches, of deltas of so many seconds, and the entries from the 23rd on have come back.
func orphaned(t *testing.T, batches int, seconds float64) (*recorder, *d2c.Converter) {
	t.Helper()
	ctx := context.Background()
	s := seriesIn(3, 0, func(s series) point { return s.int(0, 1, 1) })
	send := func(conv *d2c.Converter, start, end float64, n int64) {
		t.Helper()
		if _, err := conv.Convert(ctx, ofResource(batch(s.int(start, end, n)))); err != nil {
			t.Fatal(err)
		}
	}
	open := func(rec *recorder) *d2c.Converter {
		t.Helper()
		conv, _, err := d2c.OpenDurable(ctx, d2c.DefaultConfig(), d2c.DurableConfig{Storage: rec, Owner: "test"})
		if err != nil {
			t.Fatal(err)
		}
		conv.StopBackground()
		return conv
	}
	rec := &recorder{values: stored{}}
	conv := open(rec)
	for i := 1; i <= 40; i++ {
		send(conv, float64(10*i), float64(10*i+10), 1)
	}
	closeTest(t, conv)
	rec, bringBack := takeOut(rec, 5, 40)
	conv = open(rec)
	for i := range batches {
		send(conv, 50+seconds*float64(i), 50+seconds*float64(i+1), 1000)
	}
	closeTest(t, conv)
	bringBack(rec, 23, 40)
	return rec, conv
}

// The numbers of a journal catch up with what is left of an earlier one. That is no continuation: its records are older.
func TestEarlierJournalCameFarther(t *testing.T) {
	rec, was := orphaned(t, 22-5+1, 11)
	if rec.values[entryOf(22)] == nil || rec.values[entryOf(23)] == nil || rec.values[entryOf(40)] == nil {
		t.Fatal("nothing to meet")
	}
	conv, recovery, err := d2c.OpenDurable(context.Background(), d2c.DefaultConfig(), d2c.DurableConfig{Storage: rec, Owner: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer closeTest(t, conv)
	if got, want := statesOf(conv), statesOf(was); !slices.Equal(got, want) || recovery.Entries != 22 || len(recovery.Damaged) > 0 {
		t.Errorf("found %q, want %q; %+v", got, want, recovery)
	}
}

// What is left of it may be damaged, too. That is told once, and says nothing about this journal, wherever the process ends
// that clears it away.
func TestEarlierJournalIsDamaged(t *testing.T) {
	s := seriesIn(3, 0, func(s series) point { return s.int(0, 1, 1) })
	for _, at := range []int{24, 26, 40} {
		for _, damaged := range [][]byte{{}, {1}, make([]byte, 1000)} {
			rec, conv := orphaned(t, 22-5+1, 11)
			rec.values[entryOf(at)] = damaged
			before, want := len(rec.puts), statesOf(conv)
			open := func(rec *recorder) (*d2c.Converter, d2c.Recovery) {
				t.Helper()
				conv, recovery, err := d2c.OpenDurable(context.Background(), d2c.DefaultConfig(), d2c.DurableConfig{Storage: rec, Owner: "test"})
				if err != nil {
					t.Fatal(err)
				}
				conv.StopBackground()
				if got := statesOf(conv); !slices.Equal(got, want) {
					t.Errorf("entry %d is %d bytes: found %q, want %q", at, len(damaged), got, want)
				}
				return conv, recovery
			}
			conv, recovery := open(rec)
			if len(recovery.Damaged) != 1 || !bytes.Equal(rec.values[recovery.Damaged[0].Aside], damaged) {
				t.Errorf("entry %d is %d bytes: %+v", at, len(damaged), recovery)
			}
			for _, p := range rec.puts[before:] {
				for _, part := range cuts(p.ops) {
					conv, _ := open(&recorder{values: p.world.values.with(part)})
					closeTest(t, conv)
				}
			}
			for sent := range 20 {
				from := float64(250 + 10*sent)
				convert(conv, ofResource(batch(s.int(from, from+10, 1))))
				want = statesOf(conv)
				closeTest(t, conv)
				if conv, recovery = open(rec); len(recovery.Damaged) > 0 {
					t.Errorf("entry %d is %d bytes, %d sent: %+v", at, len(damaged), sent+1, recovery)
				}
			}
			closeTest(t, conv)
		}
	}
}

// Nor does it when the head is lost, and with it how often the journal had been opened.
func TestEarlierJournalAndHeadLost(t *testing.T) {
	ctx := context.Background()
	s := seriesIn(3, 0, func(s series) point { return s.int(0, 1, 1) })
	end := 10.0
	rec := &recorder{values: stored{}}
	// begin begins a process that sends n batches.
	begin := func(n int) (*d2c.Converter, d2c.Recovery) {
		t.Helper()
		conv, recovery, err := d2c.OpenDurable(ctx, d2c.DefaultConfig(), d2c.DurableConfig{Storage: rec, Owner: "test"})
		if err != nil {
			t.Fatal(err)
		}
		conv.StopBackground()
		for range n {
			convert(conv, ofResource(batch(s.int(end, end+10, 1))))
			end += 10
		}
		return conv, recovery
	}
	for range 5 {
		conv, _ := begin(1)
		closeTest(t, conv)
	}
	conv, _ := begin(40)
	closeTest(t, conv)
	rec, bringBack := takeOut(rec, 6, 45)
	conv, _ = begin(0)
	if err := conv.Checkpoint(ctx); err != nil {
		t.Fatal(err)
	}
	closeTest(t, conv)
	rec = &recorder{values: rec.values.with([]operation{{"m/head", []byte{1}}})}
	conv, recovery := begin(19)
	bringBack(rec, 26, 45)
	if len(recovery.Damaged) != 1 || rec.values[entryOf(24)] == nil || rec.values[entryOf(25)] != nil || rec.values[entryOf(26)] == nil {
		t.Fatalf("%+v, %d values", recovery, len(rec.values))
	}
	want := statesOf(conv)
	closeTest(t, conv)
	conv, recovery = begin(0)
	defer closeTest(t, conv)
	if got := statesOf(conv); !slices.Equal(got, want) || len(recovery.Damaged) > 0 {
		t.Errorf("found %q, want %q; %+v", got, want, recovery)
	}
}

// An attempt to store an entry that had failed takes effect after the one that has not. The entry that follows knows better.
func TestLateAttempt(t *testing.T) {
	ctx := context.Background()
	s := seriesIn(3, 0, func(s series) point { return s.int(0, 1, 1) })
	open := func(rec *recorder) (*d2c.Converter, d2c.Recovery) {
		t.Helper()
		conv, recovery, err := d2c.OpenDurable(ctx, d2c.DefaultConfig(), d2c.DurableConfig{Storage: rec, Owner: "test"})
		if err != nil {
			t.Fatal(err)
		}
		conv.StopBackground()
		return conv, recovery
	}
	var recs [2]*recorder
	for i, n := range []int64{1, 1000} {
		recs[i] = &recorder{values: stored{}}
		conv, _ := open(recs[i])
		convert(conv, ofResource(batch(s.int(10, 20, 1))))
		convert(conv, ofResource(batch(s.int(20, 30, n))))
		convert(conv, ofResource(batch(s.int(30, 40, 1))))
		closeTest(t, conv)
	}
	recs[1].values[entryOf(2)] = recs[0].values[entryOf(2)]
	conv, recovery := open(recs[1])
	defer closeTest(t, conv)
	if conv.Len() != 0 || recovery.Forgotten != 1 || len(recovery.Damaged) != 1 {
		t.Errorf("%d streams; %+v", conv.Len(), recovery)
	}
	md := ofResource(batch(s.int(35, 50, 1)))
	convert(conv, md)
	if start := allPoints(md)[0].start; start != uint64(sec(40)) {
		t.Errorf("begins anew at %d, want 40 s", start)
	}
}
