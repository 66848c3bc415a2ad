// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package log

import (
	"bytes"
	"context"
	"slices"
	"sync"
)

// Memory is a Driver for the Stores of one process, and the shortest example of one. The zero value is empty and ready to
// use, by any number of Stores at the same time. Its methods return no errors.
type Memory struct {
	mu   sync.Mutex
	logs map[int]*memoryLog
}

type memoryLog struct {
	from     Position // where entries begin
	snapshot []byte
	entries  []Entry
}

var _ Driver = (*Memory)(nil)

// log returns a log, which is empty if there was none.
func (m *Memory) log(n int) *memoryLog {
	l := m.logs[n]
	if l == nil {
		l = new(memoryLog)
		if m.logs == nil {
			m.logs = map[int]*memoryLog{}
		}
		m.logs[n] = l
	}
	return l
}

// find returns how many entries are up to a position, or -1 if the log does not have it.
func (l *memoryLog) find(p Position) int {
	n := p.Number - l.from.Number
	switch {
	case p == l.from:
		return 0
	case p.Number < l.from.Number || n == 0 || n > uint64(len(l.entries)) || l.entries[n-1].ID != p.ID:
		return -1
	}
	return int(n)
}

// Read implements Driver.
func (m *Memory) Read(_ context.Context, log int, after Position) (Tail, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.log(log)
	t := Tail{From: after}
	n := l.find(after)
	if n < 0 {
		t.From, t.Snapshot, n = l.from, bytes.Clone(l.snapshot), 0
	}
	for _, e := range l.entries[n:] {
		t.Entries = append(t.Entries, Entry{e.ID, bytes.Clone(e.Data)})
	}
	return t, nil
}

// Append implements Driver.
func (m *Memory) Append(_ context.Context, appends []Append) ([]bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	done := make([]bool, len(appends))
	for i, a := range appends {
		l := m.log(a.Log)
		if done[i] = l.find(a.After) == len(l.entries); done[i] && a.Entry != nil {
			l.entries = append(l.entries, Entry{a.ID, bytes.Clone(a.Entry)})
		}
	}
	return done, nil
}

// Compact implements Driver.
func (m *Memory) Compact(_ context.Context, log int, at Position, snapshot []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.log(log)
	if n := l.find(at); n >= 0 {
		l.from, l.snapshot, l.entries = at, bytes.Clone(snapshot), slices.Clone(l.entries[n:])
	}
	return nil
}

// Wipe loses everything, as a server without persistence does when it restarts.
func (m *Memory) Wipe() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.logs = nil
}
