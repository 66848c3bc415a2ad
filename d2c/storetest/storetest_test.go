// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/streamid"
)

func TestMemory(t *testing.T) {
	TestShared(t, func(*testing.T) Fixture {
		m := new(store.Memory)
		return Fixture{Open: func() store.Shared { return m }, Wipe: m.Wipe}
	})
}

// What the faults are put into has none.
func TestStoreWithoutFault(t *testing.T) {
	TestShared(t, func(*testing.T) Fixture { return newBackend("").fixture() })
}

// recorder is a tester that remembers. Its Fatalf ends the goroutine, like that of testing.T.
type recorder struct {
	mu     sync.Mutex
	failed []string
}

func (*recorder) Helper()             {}
func (*recorder) Logf(string, ...any) {}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = append(r.failed, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

// failures runs the checks and returns what each that failed said first.
func failures(fixture func() Fixture) map[string]string {
	failed := map[string]string{}
	for _, c := range checks {
		r := new(recorder)
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.run(r, fixture().withDefaults())
		}()
		<-done
		r.mu.Lock()
		if len(r.failed) > 0 {
			failed[c.name] = r.failed[0]
		}
		r.mu.Unlock()
	}
	return failed
}

// Each fault of a store is found, and by the check that is there for it.
func TestFaultsAreFound(t *testing.T) {
	for fault, by := range map[string]string{
		"tag is ignored":                              "a swap looks at what is there",
		"what must not be there is overwritten":       "a swap looks at what is there",
		"tag has 53 bits":                             "tags differ in any bit",
		"tag has 32 bits":                             "tags differ in any bit",
		"tag is not told":                             "a swap looks at what is there",
		"compare writes":                              "a swap looks at what is there",
		"compare begins a record":                     "a swap looks at what is there",
		"results are reversed":                        "results are in order",
		"unit is done in part":                        "units are done all or none",
		"unit fails and ends the call":                "units are done all or none",
		"withheld is told as done":                    "units are done all or none",
		"large unit is cut":                           "units of any size",
		"what is there is told as done":               "units that are sent twice",
		"write is lost and acknowledged":              "large batches",
		"large batch is cut":                          "large batches",
		"large record is cut":                         "large records",
		"record ends at a zero":                       "every byte",
		"record is kept by reference":                 "records are copied",
		"result is what is stored":                    "results are the caller's",
		"read is of a cache":                          "clients see each other",
		"two win":                                     "one of many wins",
		"units mix":                                   "units of many do not mix",
		"life is ignored":                             "other lives are refused",
		"life is ignored by those who compare":        "other lives are refused",
		"life that is not there is any":               "other lives are refused",
		"swap under another life is done":             "other lives are refused",
		"life changes by itself":                      "lives are set if absent and the same for all",
		"lives differ between clients":                "lives are set if absent and the same for all",
		"floor is not kept":                           "lives are set if absent and the same for all",
		"three groups":                                "lives are for a power of two of groups",
		"number of groups grows":                      "lives are for a power of two of groups",
		"life outlives a wipe":                        "a wipe ends lives",
		"life that ended is remembered by its client": "a wipe ends lives",
		"removal is remembered":                       "a removed record is gone",
		"set aside takes another record":              "set aside",
		"set aside leaves it":                         "set aside",
		"set aside leaves a tombstone":                "set aside",
		"reads are of a cache":                        "reads tell what is there",
		"reads are reversed":                          "reads tell what is there",
		"reads leave out what is not there":           "reads tell what is there",
		"read hands out what is stored":               "reads tell what is there",
		"breaks when a context is over":               "a context that is over",
		"does part when a context is over":            "a context that is over",
		"expires from its first write":                "records live on while they are written",
		"expiry is set by every other write":          "records live on while they are written",
		"unit does not set expiry":                    "records live on while they are written",
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			failed := failures(func() Fixture { return newBackend(fault).fixture() })
			if failed[by] == "" {
				t.Errorf("not found by %q; found by %v", by, failed)
			}
			if strings.Contains(failed[by], "%!") {
				t.Errorf("said badly: %s", failed[by])
			}
			t.Logf("%s", failed[by])
		})
	}
}

// backend is a store with a fault, and with a clock.
type backend struct {
	fault string

	mu      sync.Mutex
	now     time.Time
	lives   []store.Life
	records map[streamid.ID]kept
	buried  map[streamid.ID]bool
	writes  int
	asked   int
}

type kept struct {
	tag     uint64
	record  []byte
	expires time.Time
}

const backendTTL = time.Hour

func newBackend(fault string) *backend {
	return &backend{fault: fault, now: time.Unix(1_700_000_000, 0), records: map[streamid.ID]kept{}, buried: map[streamid.ID]bool{}}
}

func (b *backend) fixture() Fixture {
	return Fixture{
		Open: func() store.Shared { return &faulty{backend: b, cache: map[streamid.ID]kept{}} },
		Wipe: func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			clear(b.records)
			if b.fault != "life outlives a wipe" {
				b.lives = nil
			}
		},
		Remove: func(id streamid.ID) {
			b.mu.Lock()
			defer b.mu.Unlock()
			delete(b.records, id)
			b.buried[id] = b.fault == "removal is remembered"
		},
		TTL: backendTTL,
		Wait: func(d time.Duration) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.now = b.now.Add(d)
		},
		Now: func() time.Time {
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.now
		},
	}
}

// faulty is a client of it.
type faulty struct {
	*backend
	own    []store.Life
	cache  map[streamid.ID]kept
	broken bool
	raced  int
	last   []store.Result
}

func (s *faulty) is(fault string) bool { return s.fault == fault }

func (s *faulty) Lives(ctx context.Context, proposed store.Life) ([]store.Life, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	groups := 4
	switch s.asked++; {
	case s.is("three groups"):
		groups = 3
	case s.is("number of groups grows") && s.asked > 2:
		groups = 8
	}
	if s.is("floor is not kept") {
		proposed.Floor = 0
	}
	if s.is("lives differ between clients") {
		if s.own == nil {
			s.own = slices.Repeat([]store.Life{proposed}, groups)
		}
		s.lives = s.own
		return s.own, nil
	}
	if s.lives == nil || s.is("life changes by itself") {
		s.lives = slices.Repeat([]store.Life{proposed}, groups)
	}
	for len(s.lives) < groups {
		s.lives = append(s.lives, proposed)
	}
	s.own = s.lives
	return slices.Clone(s.lives), nil
}

func (s *faulty) Swap(ctx context.Context, swaps []store.Swap) ([]store.Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil {
		switch {
		case s.is("breaks when a context is over"):
			s.broken = true
		case s.is("does part when a context is over"):
			s.records[swaps[0].ID] = kept{swaps[0].Tag, nil, s.now.Add(backendTTL)}
		}
		return nil, ctx.Err()
	}
	if s.broken {
		return nil, context.Canceled
	}
	for i := range s.last { // which are valid until now
		s.last[i] = store.Result{Status: 99, Tag: 99}
	}
	results := make([]store.Result, len(swaps))
	s.last = results
	for from := 0; from < len(swaps); {
		to := from + 1
		for to < len(swaps) && swaps[from].Unit != 0 && swaps[to].Unit == swaps[from].Unit &&
			(!s.is("large unit is cut") || to-from < 250) {
			to++
		}
		if s.is("large batch is cut") && from > 4000 {
			break
		}
		all := s.unit(swaps[from:to], results[from:to])
		from = to
		if !all && s.is("unit fails and ends the call") {
			break
		}
	}
	if s.is("results are reversed") {
		slices.Reverse(results)
	}
	return results, nil
}

func (s *faulty) Read(ctx context.Context, ids []streamid.ID) ([]store.Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	for i := range s.last {
		s.last[i] = store.Result{Status: 99, Tag: 99}
	}
	var results []store.Result
	for _, id := range ids {
		there, found := s.look(&store.Swap{ID: id})
		if was, known := s.cache[id]; s.is("reads are of a cache") {
			if known {
				there = was
			}
			s.cache[id] = there
		}
		if !found && s.is("reads leave out what is not there") {
			continue
		}
		if !s.is("read hands out what is stored") {
			there.record = bytes.Clone(there.record)
		}
		results = append(results, store.Result{Status: store.Changed, Tag: there.tag, Record: there.record})
	}
	if s.is("reads are reversed") {
		slices.Reverse(results)
	}
	s.last = results
	return results, nil
}

// unit reports whether it was done.
func (s *faulty) unit(swaps []store.Swap, results []store.Result) bool {
	all := true
	for i := range swaps {
		swap := &swaps[i]
		there, found := s.look(swap)
		switch {
		case s.otherLife(swap):
			results[i] = store.Result{Status: store.OtherLife}
			if s.is("swap under another life is done") && swap.Record != nil {
				s.write(swap, there)
			}
		case !s.fits(swap, there, found):
			results[i] = store.Result{Status: store.Changed, Tag: there.tag, Record: bytes.Clone(there.record)}
			if s.is("result is what is stored") {
				results[i].Record = there.record
			}
			if s.is("tag is not told") {
				results[i].Tag = 0
			}
		default:
			if s.is("unit is done in part") && swap.Record != nil {
				s.write(swap, there)
			}
			continue
		}
		all = false
	}
	if s.is("two win") || s.is("units mix") && swaps[0].Unit != 0 {
		s.mu.Unlock() // what was looked at may not be so any more
		if s.raced++; s.raced <= 200 {
			time.Sleep(time.Millisecond)
		}
		s.mu.Lock()
	}
	for i := range swaps {
		swap := &swaps[i]
		there, _ := s.look(swap)
		switch {
		case all && swap.Record != nil, all && s.is("compare writes") && swap.Base != 0, all && s.is("compare begins a record") && swap.Base == 0:
			s.write(swap, there)
		case results[i].Status == store.Changed && s.is("what is there is told as done") && swap.Record != nil && there.tag == swap.Tag:
			results[i] = store.Result{}
		case !all && results[i].Status == store.Swapped && !s.is("withheld is told as done"):
			results[i].Status = store.Withheld
		}
	}
	return all
}

func (s *faulty) look(swap *store.Swap) (kept, bool) {
	if s.is("read is of a cache") {
		if there, found := s.cache[swap.ID]; found {
			return there, true
		}
	}
	there, found := s.records[swap.ID]
	if found && !s.now.Before(there.expires) {
		delete(s.records, swap.ID)
		return kept{}, false
	}
	if s.buried[swap.ID] {
		return kept{tag: 1, record: []byte("removed")}, true
	}
	return there, found
}

func (s *faulty) otherLife(swap *store.Swap) bool {
	lives := s.lives
	switch {
	case s.is("life is ignored"), s.is("life is ignored by those who compare") && swap.Record == nil:
		return false
	case s.is("life that is not there is any") && lives == nil:
		return false
	case s.is("life that ended is remembered by its client"), s.is("lives differ between clients"):
		lives = s.own
	}
	return lives == nil || swap.Life != lives[store.Group(swap.ID, len(lives))].ID
}

func (s *faulty) fits(swap *store.Swap, there kept, found bool) bool {
	if !found || swap.Base == 0 {
		return !found && swap.Base == 0 || s.is("what must not be there is overwritten") && swap.Base == 0
	}
	switch {
	case s.is("tag is ignored"):
		return true
	case s.is("tag has 53 bits"):
		return float64(swap.Base) == float64(there.tag)
	case s.is("tag has 32 bits"):
		return uint32(swap.Base) == uint32(there.tag)
	}
	return swap.Base == there.tag
}

func (s *faulty) write(swap *store.Swap, there kept) {
	s.writes++
	if s.is("write is lost and acknowledged") && s.writes%500 == 0 {
		return
	}
	k := kept{swap.Tag, bytes.Clone(swap.Record), s.now.Add(backendTTL)}
	switch {
	case s.is("record is kept by reference"):
		k.record = swap.Record
	case s.is("large record is cut"):
		k.record = k.record[:min(len(k.record), 1<<16)]
	case s.is("record ends at a zero"):
		k.record, _, _ = bytes.Cut(k.record, []byte{0})
	case s.is("compare begins a record") && swap.Record == nil:
		k.record = []byte("begun")
	case swap.Base == 0:
	case s.is("expires from its first write"),
		s.is("expiry is set by every other write") && s.writes%2 == 0,
		s.is("unit does not set expiry") && swap.Unit != 0:
		k.expires = there.expires
	}
	s.records[swap.ID] = k
	if s.is("read is of a cache") {
		s.cache[swap.ID] = k
	}
}

func (s *faulty) SetAside(_ context.Context, id streamid.ID, record []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	there, found := s.records[id]
	switch {
	case !found || s.is("set aside leaves it"):
	case bytes.Equal(there.record, record) || s.is("set aside takes another record"):
		delete(s.records, id)
		s.buried[id] = s.is("set aside leaves a tombstone")
	}
	return nil
}
