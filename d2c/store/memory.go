// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"context"
	"sync"

	"github.com/deltaring/deltaring/streamid"
)

// Memory is a Shared store for the Converters of one process, and the shortest example of one. The zero value is empty and
// ready to use, by any number of Converters at the same time.
type Memory struct {
	mu      sync.Mutex
	life    Life
	records map[streamid.ID]entry
	aside   uint64
}

// entry is a record and its tag.
type entry struct {
	tag    uint64
	record []byte
}

var _ Reader = (*Memory)(nil)

// Lives implements Shared. There is one group. It returns no errors.
func (m *Memory) Lives(_ context.Context, proposed Life) ([]Life, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.life.ID == 0 {
		m.life = proposed
	}
	return []Life{m.life}, nil
}

// Swap implements Shared. It returns no errors.
func (m *Memory) Swap(_ context.Context, swaps []Swap) ([]Result, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.records == nil {
		m.records = map[streamid.ID]entry{}
	}
	results := make([]Result, len(swaps))
	for from := 0; from < len(swaps); {
		to := from + 1
		for to < len(swaps) && swaps[from].Unit != 0 && swaps[to].Unit == swaps[from].Unit {
			to++
		}
		m.unit(swaps[from:to], results[from:to])
		from = to
	}
	return results, nil
}

// Read implements Reader. It returns no errors.
func (m *Memory) Read(_ context.Context, ids []streamid.ID) ([]Result, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	results := make([]Result, len(ids))
	for i, id := range ids {
		there := m.records[id]
		results[i] = Result{Status: Changed, Tag: there.tag, Record: bytes.Clone(there.record)}
	}
	return results, nil
}

// unit does all of the swaps or none.
func (m *Memory) unit(swaps []Swap, results []Result) {
	all := true
	for i := range swaps {
		swap, there := &swaps[i], m.records[swaps[i].ID]
		switch {
		case m.life.ID == 0 || swap.Life != m.life.ID:
			results[i] = Result{Status: OtherLife}
		case swap.Base != there.tag:
			results[i] = Result{Status: Changed, Tag: there.tag, Record: bytes.Clone(there.record)}
		default:
			continue
		}
		all = false
	}
	for i := range swaps {
		swap := &swaps[i]
		switch {
		case all && swap.Record != nil:
			m.records[swap.ID] = entry{swap.Tag, bytes.Clone(swap.Record)}
		case !all && results[i].Status == Swapped:
			results[i].Status = Withheld
		}
	}
}

// SetAside implements Shared. It returns no errors. It keeps only the number of records that were set aside.
func (m *Memory) SetAside(_ context.Context, id streamid.ID, record []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if there, found := m.records[id]; found && bytes.Equal(there.record, record) {
		m.aside++
		delete(m.records, id)
	}
	return nil
}

// Len returns the number of streams that have a record.
func (m *Memory) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.records)
}

// Aside returns the number of records that were set aside.
func (m *Memory) Aside() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.aside
}

// Wipe loses everything, as a server without persistence does when it restarts.
func (m *Memory) Wipe() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.life, m.records = Life{}, nil
}
