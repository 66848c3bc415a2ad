// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/streamid"
)

// Where workers take turns, each batch costs a read and a swap, and none that fails. Where they no longer do, it is a swap.
func TestReadWhereWorkersTakeTurns(t *testing.T) {
	st := new(scriptStore)
	st.told = func(id streamid.ID) (store.Result, error) { return st.there(id), nil }
	a, b := newScriptWorker(t, st), newScriptWorker(t, st)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	total := int64(1)
	next := func(w *scriptWorker, i int) {
		t.Helper()
		total += int64(i)
		expect(t, w.add(float64(i-1), float64(i), int64(i)), fmt.Sprintf("aligned (0, %d] %d", i, total))
	}
	for i := 2; i < 20; i++ {
		next([]*scriptWorker{a, b}[i%2], i)
	}
	st.swaps, st.reads = 0, 0
	for i := 20; i < 30; i++ {
		next([]*scriptWorker{a, b}[i%2], i)
	}
	if st.swaps != 10 || st.reads != 10 {
		t.Errorf("10 batches by turns take %d swaps and %d reads, want 10 and 10", st.swaps, st.reads)
	}
	for i := 30; i < 130; i++ {
		next(a, i)
	}
	st.swaps, st.reads = 0, 0
	for i := 130; i < 140; i++ {
		next(a, i)
	}
	if st.swaps != 10 || st.reads != 0 {
		t.Errorf("10 batches of one worker take %d swaps and %d reads, want 10 and 0", st.swaps, st.reads)
	}
}

// A store that has everything may say anything: the swap decides. What it says may be old, as that of a server which is no longer the
// primary, or of a copy that is behind.
func TestReadThatIsWrong(t *testing.T) {
	other := streamid.ID{Hi: 1, Lo: 2}
	for name, lie := range map[string]func(st *scriptStore, first, id streamid.ID) store.Result{
		"nothing":          func(*scriptStore, streamid.ID, streamid.ID) store.Result { return store.Result{Status: store.Changed} },
		"the first record": func(st *scriptStore, first, _ streamid.ID) store.Result { return st.there(first) },
		"another stream's": func(st *scriptStore, _, id streamid.ID) store.Result {
			for at, r := range st.records {
				if at != id && at != other {
					return store.Result{Status: store.Changed, Tag: r.tag, Record: r.record}
				}
			}
			return st.there(id)
		},
		"another tag": func(st *scriptStore, _, id streamid.ID) store.Result { r := st.there(id); r.Tag += 2; return r },
		"no tag":      func(st *scriptStore, _, id streamid.ID) store.Result { r := st.there(id); r.Tag = 0; return r },
		"a tag alone": func(st *scriptStore, _, id streamid.ID) store.Result { r := st.there(id); r.Record = nil; return r },
		"what is no record": func(st *scriptStore, _, id streamid.ID) store.Result {
			return store.Result{Status: store.Changed, Tag: 77, Record: []byte("no record")}
		},
	} {
		for _, route := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/routed=%t", name, route), func(t *testing.T) {
				st := new(scriptStore)
				st.told = func(id streamid.ID) (store.Result, error) { return lie(st, other, id), nil }
				a, b := newScriptWorker(t, st), newScriptWorker(t, st)
				if route {
					routed(a, b)
				}
				want := int64(0)
				for i := range 20 {
					value := int64(1) << i
					want += value
					w := []*scriptWorker{a, b}[i%2]
					got := w.convert(delta{"x", float64(i), float64(i + 1), value, false}, delta{"y", float64(i), float64(i + 1), value, false})
					how := "aligned"
					if i == 0 {
						how = "first"
						for _, r := range maps.Clone(st.records) {
							st.records[other] = r // the first record, of whichever stream
						}
					}
					expect(t, got, fmt.Sprintf("2 %[1]s (0, %[2]d] %[3]d (0, %[2]d] %[3]d", how, i+1, want))
				}
				if st.reads == 0 {
					t.Error("it was not read")
				}
				if st.aside != 0 {
					t.Errorf("%d sound records were set aside", st.aside)
				}
			})
		}
	}
}

// A store that cannot be read refuses the batch, and has been sent nothing.
func TestReadThatFails(t *testing.T) {
	st := new(scriptStore)
	failing := errors.New("cannot be read")
	fail := false
	st.told = func(id streamid.ID) (store.Result, error) {
		if fail {
			return store.Result{}, failing
		}
		return st.there(id), nil
	}
	a, b := newScriptWorker(t, st), newScriptWorker(t, st)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	expect(t, b.add(1, 2, 10), "aligned (0, 2] 11")
	expect(t, a.add(2, 3, 100), "aligned (0, 3] 111")
	expect(t, b.add(3, 4, 1000), "aligned (0, 4] 1111")
	fail, st.swaps = true, 0
	if got := a.add(4, 5, 10000); !strings.Contains(got, failing.Error()) {
		t.Errorf("got %q", got)
	}
	if st.swaps != 0 {
		t.Errorf("%d swaps", st.swaps)
	}
	fail = false
	expect(t, a.add(4, 5, 10000), "aligned (0, 5] 11111")
}

// A store that fails while it is read begins an outage like one that fails in a swap, and all ends up in the totals.
func TestOutageBeginsWithARead(t *testing.T) {
	st := new(scriptStore)
	failing := false
	st.told = func(id streamid.ID) (store.Result, error) {
		if failing {
			return store.Result{}, errStorage
		}
		return st.there(id), nil
	}
	b := newScriptWorker(t, st)
	now := time.Unix(scriptEpoch, 0)
	conv, err := d2c.OpenShared(context.Background(), d2c.Config{MaxStale: time.Hour, Now: func() time.Time { return now }},
		d2c.SharedConfig{Store: readStore{st}, Owner: "script", MaxOutstanding: 100})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conv.Close(context.Background()) })
	a := &scriptWorker{t: t, conv: conv, st: st}
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	expect(t, b.add(1, 2, 10), "aligned (0, 2] 11")
	expect(t, a.add(2, 3, 100), "aligned (0, 3] 111")
	failing = true
	st.swaps = 0
	expect(t, a.add(3, 4, 1000), "aligned (0, 4] 1111")
	if got := conv.Stats().Outstanding; got != 1 || st.swaps != 0 {
		t.Errorf("%d points outstanding after %d swaps, want 1 after none", got, st.swaps)
	}
	failing = false
	if err := conv.Reconcile(context.Background()); err != nil {
		t.Fatal(err)
	}
	expect(t, b.add(4, 5, 10000), "aligned (0, 5] 11111")
}
