// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"bytes"
	"context"
	"sync"

	"github.com/deltaring/deltaring/streamid"
)

// MemoryStore is a SharedStore for Converters of one process, and the shortest example of one. The zero value is empty and
// ready for use, by any number of Converters at the same time.
type MemoryStore struct {
	mu      sync.Mutex
	records map[streamid.ID][]byte
	aside   [][]byte
}

// Swap implements SharedStore. It returns no errors.
func (m *MemoryStore) Swap(_ context.Context, ops []SwapOp) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.records == nil {
		m.records = map[streamid.ID][]byte{}
	}
	for i := range ops {
		op := &ops[i]
		there, found := m.records[op.ID]
		tag, _ := RecordTag(there)
		if !found && op.Base != 0 || found && (tag != op.Base || op.Base == 0) {
			op.Current = bytes.Clone(there)
			continue
		}
		op.Swapped = true
		if op.Record != nil {
			m.records[op.ID] = bytes.Clone(op.Record)
		}
	}
	return nil
}

// SetAside implements SharedStore. It returns no errors.
func (m *MemoryStore) SetAside(_ context.Context, id streamid.ID, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if there, found := m.records[id]; found && bytes.Equal(there, value) {
		m.aside = append(m.aside, there)
		delete(m.records, id)
	}
	return nil
}

// Len returns the number of streams that have a record.
func (m *MemoryStore) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.records)
}
