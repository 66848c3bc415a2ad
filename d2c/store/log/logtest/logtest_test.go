// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package logtest

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/deltaring/deltaring/d2c/store/log"
)

func TestMemory(t *testing.T) {
	Run(t, func(*testing.T) Fixture {
		m := new(log.Memory)
		return Fixture{Open: func() log.Driver { return m }}
	})
}

// Each fault is found by a check.
func TestFaultsAreFound(t *testing.T) {
	for _, fault := range []string{
		"append anywhere", "id is ignored", "number is ignored", "id has 53 bits", "id has 32 bits", "check appends", "check is always right",
		"check with a right number is right", "one refused refuses all", "results are reversed", "logs are one", "logs have 6 bits",
		"read begins anew each time", "another history is read on", "beyond the end is the end", "snapshot leaves out what comes after",
		"snapshot comes with a position that is there", "late snapshot is put", "snapshot of another history is put", "snapshot beyond the end is put",
		"snapshot ends the log at zero", "snapshot keeps what it has", "entries are kept by reference", "snapshot is kept by reference",
		"result is what is stored", "entry is cut", "snapshot is cut", "entry ends at a zero", "old snapshot is put", "two begin a log",
		"context that is over breaks it", "context that is over acknowledges", "empty log has a snapshot", "only the last hundred entries",
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			failed := failures(func() Fixture {
				b := &backend{fault: fault}
				return Fixture{Open: func() log.Driver { return b }, MaxEntry: 1 << 21, MaxSnapshot: 1 << 22}
			})
			if len(failed) == 0 {
				t.Error("nothing is found")
			}
			for name, said := range failed {
				t.Logf("%s: %s", name, said)
			}
		})
	}
}

// recorder is a tester that remembers. Its Fatalf ends the goroutine, like that of testing.T.
type recorder struct {
	mu     sync.Mutex
	failed []string
}

func (*recorder) Helper() {}

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
		if c.name == "owners, readers and snapshots at once" {
			continue // a driver with a fault need not let it end
		}
		r := new(recorder)
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.run(r, fixture().withDefaults())
		}()
		<-done
		if len(r.failed) > 0 {
			failed[c.name] = r.failed[0]
		}
	}
	return failed
}

// backend is a driver with a fault.
type backend struct {
	fault string
	mu    sync.Mutex
	logs  map[int]*kept
	began int
	over  bool
}

type kept struct {
	from     log.Position
	snapshot []byte
	entries  []log.Entry
}

func (b *backend) is(fault string) bool { return b.fault == fault }

func (b *backend) log(n int) *kept {
	switch {
	case b.is("logs are one"):
		n = 0
	case b.is("logs have 6 bits"):
		n %= 64
	}
	if b.logs == nil {
		b.logs = map[int]*kept{}
	}
	if b.logs[n] == nil {
		b.logs[n] = new(kept)
	}
	return b.logs[n]
}

func (b *backend) same(x, y log.Position) bool {
	switch {
	case b.is("id is ignored"):
		return x.Number == y.Number
	case b.is("number is ignored"):
		return x.ID == y.ID
	case b.is("id has 53 bits"):
		return x.Number == y.Number && float64(x.ID) == float64(y.ID)
	case b.is("id has 32 bits"):
		return x.Number == y.Number && uint32(x.ID) == uint32(y.ID)
	}
	return x == y
}

func (b *backend) find(l *kept, p log.Position) int {
	if b.same(p, l.from) {
		return 0
	}
	for i, e := range l.entries {
		if b.same(p, log.Position{Number: l.from.Number + uint64(i) + 1, ID: e.ID}) {
			return i + 1
		}
	}
	n := int64(p.Number) - int64(l.from.Number)
	switch {
	case b.is("another history is read on") && n >= 0 && n <= int64(len(l.entries)):
		return int(n)
	case b.is("beyond the end is the end") && n > int64(len(l.entries)):
		return len(l.entries)
	}
	return -1
}

func (b *backend) Read(ctx context.Context, n int, after log.Position) (log.Tail, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over || ctx.Err() != nil {
		return log.Tail{}, context.Canceled
	}
	l := b.log(n)
	t := log.Tail{From: after}
	i := b.find(l, after)
	if i < 0 || b.is("read begins anew each time") {
		i, t.From, t.Snapshot = 0, l.from, bytes.Clone(l.snapshot)
		if b.is("empty log has a snapshot") && t.Snapshot == nil {
			t.Snapshot = []byte{}
		}
	} else if b.is("snapshot comes with a position that is there") {
		t.Snapshot = bytes.Clone(l.snapshot)
	}
	entries := l.entries[i:]
	if b.is("only the last hundred entries") {
		entries = entries[max(len(entries)-100, 0):]
	}
	for _, e := range entries {
		e.Data = bytes.Clone(e.Data)
		t.Entries = append(t.Entries, e)
	}
	if b.is("result is what is stored") {
		t.Entries = slices.Clone(entries)
		if t.Snapshot != nil {
			t.Snapshot = l.snapshot
		}
	}
	return t, nil
}

func (b *backend) Append(ctx context.Context, appends []log.Append) ([]bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if ctx.Err() != nil {
		switch {
		case b.is("context that is over breaks it"):
			b.over = true
		case b.is("context that is over acknowledges"):
			done := make([]bool, len(appends))
			for i := range done {
				done[i] = true
			}
			return done, nil
		}
	}
	if b.over || ctx.Err() != nil {
		return nil, context.Canceled
	}
	done := make([]bool, len(appends))
	all := true
	for i, a := range appends {
		l := b.log(a.Log)
		end := (&log.Tail{From: l.from, Entries: l.entries}).End()
		done[i] = b.same(a.After, end)
		switch {
		case b.is("append anywhere"), b.is("check is always right") && a.Entry == nil,
			b.is("check with a right number is right") && a.Entry == nil && a.After.Number == end.Number:
			done[i] = true
		case b.is("two begin a log") && a.After == (log.Position{}) && end.Number == 1:
			if b.began++; b.began%50 == 0 {
				done[i] = true
			}
		}
		all = all && done[i]
	}
	for i, a := range appends {
		if b.is("one refused refuses all") {
			done[i] = all
		}
		if l := b.log(a.Log); done[i] && (a.Entry != nil || b.is("check appends")) {
			data := bytes.Clone(a.Entry)
			switch {
			case b.is("entries are kept by reference"):
				data = a.Entry
			case b.is("entry is cut"):
				data = data[:min(len(data), 1<<16)]
			case b.is("entry ends at a zero"):
				data, _, _ = bytes.Cut(data, []byte{0})
			}
			l.entries = append(l.entries, log.Entry{ID: a.ID, Data: data})
		}
	}
	if b.is("results are reversed") {
		slices.Reverse(done)
	}
	return done, nil
}

func (b *backend) Compact(ctx context.Context, n int, at log.Position, snapshot []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over || ctx.Err() != nil {
		return context.Canceled
	}
	l := b.log(n)
	i := b.find(l, at)
	switch {
	case i < 0 && b.is("late snapshot is put") && at.Number < l.from.Number,
		i < 0 && b.is("snapshot of another history is put") && at.Number == l.from.Number:
		l.snapshot = bytes.Clone(snapshot)
		return nil
	case i < 0 && b.is("snapshot beyond the end is put"):
		l.from, l.snapshot, l.entries = at, bytes.Clone(snapshot), nil
		return nil
	case i < 0:
		return nil
	case b.is("old snapshot is put") && l.snapshot != nil:
		l.from, l.entries = at, slices.Clone(l.entries[i:])
		return nil
	}
	l.from, l.snapshot, l.entries = at, bytes.Clone(snapshot), slices.Clone(l.entries[i:])
	switch {
	case b.is("snapshot leaves out what comes after"):
		l.entries = nil
	case b.is("snapshot ends the log at zero"):
		l.from = log.Position{}
	case b.is("snapshot keeps what it has"):
		l.entries = slices.Insert(l.entries, 0, log.Entry{ID: at.ID, Data: []byte("again")})
	case b.is("snapshot is kept by reference"):
		l.snapshot = snapshot
	case b.is("snapshot is cut"):
		l.snapshot = l.snapshot[:min(len(l.snapshot), 1<<20)]
	}
	return nil
}
