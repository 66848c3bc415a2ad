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

// DurableConfig says where the state of a Converter is kept so that it outlives the process.
type DurableConfig struct {
	// Storage holds the state of this Converter and nothing else. Only one Converter at a time may use it.
	Storage store.Storage
	// Owner is the name under which the state is kept. Storage that has the state of another owner is refused.
	Owner string
	// JournalSize is the minimum journal length in bytes before checkpoints run. Above it, checkpoints run once the journal
	// exceeds 1.5 times the size of all checkpoints. Zero means 1 MiB.
	JournalSize int64
	// Progress, if not nil, is called by OpenDurable now and then with what has been restored so far.
	Progress func(Recovery)
	// OnCheckpoints, if not nil, is called when checkpoints begin to fail, and with nil when they work again. Meanwhile the
	// journal grows; when it is far too long batches are refused.
	OnCheckpoints func(error)
}

// Recovery says what OpenDurable has found: Streams restored, journal Entries replayed and Bytes read, whether the last
// entry was Torn (its commit had not ended, so nobody was told of it), what was Damaged, and how many streams were Forgotten
// because of that, or had Expired.
type Recovery = journal.Recovery

// Damage is a value that could not be read: its Key, the key under which it is kept Aside from now on, and Err.
type Damage = journal.Damage

// OpenDurable returns a Converter whose state is kept in storage: it begins with what is there, and Convert returns when
// whatever it has added is there too. A batch costs one Put, shared with all batches that come while the one before is under
// way; checkpoints are written by a goroutine that runs until Close.
//
// A restart or a crash loses nothing of that, and what was given out stays true: streams go on under their start, from a
// value that is not below any given out. What is damaged is told in Recovery, and kept. ErrOwner and ErrVersion say that
// the state is someone else's or from a newer version of this package; then storage is left as it is. Any other error comes
// from cfg, ctx or Storage.
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
