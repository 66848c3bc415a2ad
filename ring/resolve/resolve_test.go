// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deltaring/deltaring/ring"
)

// members have these names, in order, and addresses like them.
func members(names ...string) []Member {
	var all []Member
	for _, m := range ring.Equal(names...) {
		all = append(all, Member{Member: m, Address: m.Name + ":1"})
	}
	return all
}

// source answers what it is told to.
type source struct {
	mu    sync.Mutex
	list  List
	err   error
	finds int
}

func (s *source) set(err error, names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list, s.err = List{Members: members(names...)}, err
}

func (s *source) Find(context.Context) (List, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finds++
	list := s.list
	list.Members = slices.Clone(list.Members)
	return list, s.err
}

func (s *source) found() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.finds
}

// watched is a source that says when to look.
type watched struct {
	source
	tell chan struct{}
}

func (w *watched) Watch(ctx context.Context, changed func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.tell:
			changed()
		}
	}
}

// followed is a Resolver at work, for use in a synctest bubble.
type followed struct {
	t     *testing.T
	start time.Time

	mu      sync.Mutex
	applied []string // "5s a b"
	refuse  error
	reports []Report
}

// follow follows until the test ends.
func follow(t *testing.T, r Resolver) *followed {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	f := &followed{t: t, start: time.Now()}
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Follow(ctx, f.apply, func(r Report) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.reports = append(f.reports, r)
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	synctest.Wait()
	return f
}

func (f *followed) apply(list []Member) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuse != nil {
		return f.refuse
	}
	at := fmt.Sprint(time.Since(f.start))
	for _, m := range list {
		at += " " + m.Name
	}
	f.applied = append(f.applied, at)
	return nil
}

// after lets time go by and wants these lists to have been applied since.
func (f *followed) after(d time.Duration, want ...string) {
	f.t.Helper()
	time.Sleep(d)
	synctest.Wait()
	if got := f.take(); !slices.Equal(got, want) {
		f.t.Errorf("%v: applied %q, want %q", time.Since(f.start), got, want)
	}
}

// take returns what has been applied since it was called last.
func (f *followed) take() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.applied
	f.applied = nil
	return all
}

func (f *followed) setRefuse(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refuse = err
}

// report returns that of the n-th lookup, or of the last one if n is negative.
func (f *followed) report(n int) Report {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n < 0 {
		n += len(f.reports)
	}
	return f.reports[n]
}

func TestLookupsAtIntervals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s source
		s.set(nil, "b", "a", "b")
		f := follow(t, Resolver{Source: &s, Interval: 30 * time.Second, Debounce: 5 * time.Second, MaxMembers: 10})
		f.after(0, "0s a b")
		s.set(nil, "a", "c")
		f.after(34 * time.Second)
		f.after(2*time.Second, "35s a c") // seen at 30s; looked at once more before it counts
		if n := s.found(); n != 3 {
			t.Errorf("%d lookups, want 3", n)
		}
	})
}

func TestTheLastGoodListIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s source
		away := errors.New("away")
		s.set(away)
		f := follow(t, Resolver{Source: &s, Interval: 5 * time.Second, MaxMembers: 2})
		if r := f.report(-1); !r.Unknown || r.Outcome != Failed {
			t.Errorf("first lookup: %+v", r)
		}
		f.after(12 * time.Second)
		if n := s.found(); n != 8 { // 0s, 100ms, ... doubling up to 5s: nobody waits long for the first members
			t.Errorf("%d lookups, want 8", n)
		}
		began := f.start
		s.set(nil, "a")
		f.after(5*time.Second, "16.3s a")
		if r := f.report(-1); r.Unknown || r.Err != nil || !r.Since.IsZero() || r.Outcome != Found {
			t.Errorf("found: %+v", r)
		}
		if since := f.report(3).Since; !since.Equal(began) {
			t.Errorf("away since %v, want %v", since, began)
		}
		for _, tc := range []struct {
			err   error
			names string
			want  Outcome
		}{
			{away, "", Failed},
			{nil, "", Empty},
			{fmt.Errorf("%w: %w", ErrNone, away), "", Empty},
			{fmt.Errorf("%w: %w", ErrDenied, away), "", Denied},
			{nil, "a b c", Failed},
		} {
			s.set(tc.err, strings.Fields(tc.names)...)
			f.after(5 * time.Second)
			if r := f.report(-1); r.Outcome != tc.want || r.Err == nil || r.Unknown {
				t.Errorf("%v, %q: %+v", tc.err, tc.names, r)
			}
		}
		if got := f.report(-1).Err.Error(); got != "the answer has 3 members, more than max_members, 2" {
			t.Error(got)
		}
	})
}

func TestRefusedListsAreOfferedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watched{tell: make(chan struct{})}
		w.set(nil, "a")
		f := follow(t, Resolver{Source: &w, MaxMembers: 2})
		f.after(time.Second, "0s a")
		refusal := errors.New("no such file")
		f.setRefuse(refusal)
		w.set(nil, "b")
		w.tell <- struct{}{}
		f.after(2 * time.Second)
		if r := f.report(-1); r.Outcome != Refused || r.Err != refusal {
			t.Errorf("%+v", r)
		}
		f.setRefuse(nil)
		f.after(4*time.Second, "6s b")
	})
}

func TestMembersWithoutNameOrAddressAreLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, Resolver{Source: Static{
			{Member: ring.Member{Name: "a", Weight: 1}, Address: "x:1"}, {Member: ring.Member{Name: "b", Weight: 1}}, {Address: "y:1"},
		}, Interval: time.Hour, MaxMembers: 5})
		f.after(0, "0s a")
		if n := len(f.report(-1).Problems); n != 2 {
			t.Errorf("%d problems, want 2", n)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, Resolver{Source: Static{{Address: "y:1"}}, Interval: time.Hour, MaxMembers: 5})
		if r := f.report(-1); r.Outcome != Empty || !strings.Contains(r.Err.Error(), "y:1") {
			t.Errorf("%+v", r)
		}
	})
}

// TestStormOfChanges has 1000 members of which some change ten times a second, for a minute.
func TestStormOfChanges(t *testing.T) {
	const change, seconds = 100 * time.Millisecond, 60
	names := make([]string, 1000)
	for i := range names {
		names[i] = fmt.Sprint("m", i)
	}
	synctest.Test(t, func(t *testing.T) {
		w := watched{tell: make(chan struct{})}
		w.set(nil, names...)
		f := follow(t, Resolver{Source: &w, Debounce: 5 * time.Second, MaxMembers: 1000})
		for i := range seconds * int(time.Second/change) {
			w.set(nil, append(slices.Clone(names[:999]), fmt.Sprint("x", i))...)
			for range 10 { // as many events for each
				w.tell <- struct{}{}
			}
			time.Sleep(change)
		}
		// The first, and one after ten debounces, as they never stop.
		if n := len(f.take()); n != 2 {
			t.Errorf("applied %d lists, want 2", n)
		}
		if n := w.found(); n > seconds*10+2 {
			t.Errorf("%d lookups", n)
		}
		// Then it is calm, and the last one is applied when it has lasted.
		time.Sleep(5*time.Second + 2*calm)
		synctest.Wait()
		if got := f.take(); len(got) != 1 || !strings.Contains(got[0], " x599") {
			t.Errorf("%d lists after the storm", len(got))
		}
	})
}

func TestChangesOfAWatcherAreAppliedInTime(t *testing.T) {
	for _, debounce := range []time.Duration{0, time.Second, 5 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			w := watched{tell: make(chan struct{})}
			w.set(nil, "a")
			f := follow(t, Resolver{Source: &w, Debounce: debounce, MaxMembers: 5})
			f.after(0, "0s a")
			w.set(nil, "b")
			w.tell <- struct{}{} // at once after a lookup, so it has to wait
			f.after(debounce+time.Second, fmt.Sprint(debounce+calm, " b"))
		})
	}
}

func TestAddresses(t *testing.T) {
	for in, want := range map[string]string{
		"w": "w:4317", "w:1": "w:1", "::1": "[::1]:4317", "[::1]": "[::1]:4317", "[::1]:5": "[::1]:5", "10.0.0.1": "10.0.0.1:4317",
		"dns:///w": "dns:///w", "unix:/x": "unix:/x",
		"": "error", ":1": "error", "w:0": "error", "w:x": "error", "w:65536": "error", "a:b:c": "error",
	} {
		got, err := WithPort(in)
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
}
