// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"context"
	"errors"
	"fmt"

	"github.com/deltaring/deltaring/d2c/internal/journal"
	"github.com/deltaring/deltaring/d2c/internal/table"
	"github.com/deltaring/deltaring/d2c/store"
)

// DurableConfig says where a Converter keeps its state so that it outlives the process.
type DurableConfig struct {
	// Storage holds the state of this Converter and nothing else. Only one Converter at a time may use it.
	Storage store.Storage
	// Owner is the name under which the state is kept. Storage that holds the state of another owner is refused.
	Owner string
	// JournalSize is the minimum journal length in bytes before checkpoints run. Above it, checkpoints run once the journal
	// exceeds 1.5 times the size of all checkpoints. Zero means 1 MiB.
	JournalSize int64
	// Progress, if not nil, is called by OpenDurable from time to time with what it has restored so far.
	Progress func(Recovery)
	// OnCheckpoints, if not nil, is called with the error when checkpoints start to fail, and with nil when they work again.
	// Meanwhile the journal grows; once it is far too long, batches are refused.
	OnCheckpoints func(error)
}

// Recovery says what OpenDurable found: the Streams restored, the journal Entries replayed and Bytes read, whether the last
// entry was Torn (its commit had not finished, so no caller was told that it had), what was Damaged, how many streams were
// Forgotten because of damage, and how many had Expired.
type Recovery = journal.Recovery

// Damage describes a value that could not be read: its Key, the key Aside under which it is now kept, and Err.
type Damage = journal.Damage

// OpenDurable returns a Converter that keeps its state in storage: it starts with the state found there, and Convert returns
// once everything it added is stored. A batch costs one Put, shared with all batches that arrive during the previous one. A
// goroutine writes checkpoints until Close.
//
// A restart or a crash loses nothing that was stored, and samples already given out remain valid: streams continue under
// their start, with values no lower than those given out. Damaged values are reported in Recovery, and kept. ErrOwner and
// ErrVersion mean that the state belongs to another owner or was written by a newer version of this package; storage is then
// left unchanged. Any other error comes from cfg, dc, ctx or Storage.
func OpenDurable(ctx context.Context, cfg Config, dc DurableConfig) (*Converter, Recovery, error) {
	c, err := New(cfg)
	if err != nil {
		return nil, Recovery{}, err
	}
	switch {
	case dc.Storage == nil:
		return nil, Recovery{}, errors.New("d2c: DurableConfig.Storage: must not be nil")
	case dc.JournalSize < 0:
		return nil, Recovery{}, fmt.Errorf("d2c: DurableConfig.JournalSize: must not be negative, got %d", dc.JournalSize)
	case dc.JournalSize == 0:
		dc.JournalSize = 1 << 20
	}
	p := &c.pipeline
	p.Epoch = p.Epoch.AddDate(-10, 0, 0) // what is found was last seen before now
	j, found, err := journal.Open(ctx, p, journal.Config{
		Storage: dc.Storage, Identity: table.IdentityOf(p.Reading.Seed, dc.Owner), Size: dc.JournalSize, Progress: dc.Progress, Trouble: dc.OnCheckpoints,
	})
	if err != nil {
		return nil, Recovery{}, err
	}
	c.journal = j
	p.Keep(j, j.Expired)
	return c, found, nil
}
