// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package store says what a Converter asks of whatever keeps its state: [Storage] for one process, [Shared] for any number.
// Package d2c/storetest checks an implementation; [Memory] is the shortest one.
package store

import (
	"context"
	"time"

	"github.com/deltaring/deltaring/streamid"
)

// Storage keeps values by key for one Converter; nobody else writes them. Any key-value store will do, the Collector's storage
// extensions for instance. Both methods are called concurrently.
type Storage interface {
	// Get returns the values of keys in their order, nil where there is none.
	Get(ctx context.Context, keys []string) ([][]byte, error)
	// Put sets values and deletes keys, which are others; a key to delete need not exist. When it returns nil all of it is
	// durable. After an error, or a crash, any part of it may have happened, key by key: each holds the value it had or the
	// one it was to get. Values are not to be kept after it returns.
	Put(ctx context.Context, values []KeyValue, deletes []string) error
}

// KeyValue is a value for Storage. Keys are short and of [0-9a-z/] only.
type KeyValue struct {
	Key   string
	Value []byte
}

// Shared keeps one record per stream for any number of Converters, on any number of machines. It offers one primitive: to put
// a record where the stored one is still the one it is based on. Any store with a conditional write can do that. Its methods are
// called by one goroutine at a time.
//
// A store must keep what it acknowledges. Where it cannot (it was wiped, or failed over to a copy that was behind), its life
// ends with what it lost: see [Life].
type Shared interface {
	// Lives returns the life of each group of streams, by group. There are as many groups as the store has parts that can be
	// lost apart: a power of two, 1 to 256, and always the same number. A group without a life gets the one proposed; that is
	// atomic, so all who ask are told the same.
	Lives(ctx context.Context, proposed Life) ([]Life, error)
	// Swap does swaps and returns a result for each, in their order. No two are of the same stream. Each is atomic, and done
	// or not apart from the others, except those of one Unit. After an error any of them may have been done. The results
	// are valid until the next Swap. Swap keeps no reference to a record after it has returned.
	Swap(ctx context.Context, swaps []Swap) ([]Result, error)
	// SetAside takes the record of a stream away, if it still is record, and keeps it elsewhere for somebody to look at.
	SetAside(ctx context.Context, id streamid.ID, record []byte) error
}

// Life is the time during which a group of streams has lost nothing as a whole. A store keeps it with the records of the group,
// loses it when it loses them, and never before.
type Life struct {
	// ID is random and not zero.
	ID uint64
	// From and Floor are times in Unix nanoseconds: what was given out before this life began, and can come again, is after
	// From and not after Floor.
	From, Floor int64
}

// Group returns the group of a stream where there are that many.
func Group(id streamid.ID, groups int) int {
	return int(id.Hi >> 32 * uint64(groups) >> 32)
}

// Swap puts a record in the place of another.
type Swap struct {
	ID streamid.ID
	// Life is the ID of the life that the stream's group must have.
	Life uint64
	// Base is the tag of the record that must be there, zero if there must be none.
	Base uint64
	// Tag is that of Record, never zero; a store keeps it beside the record. No two records have the same.
	Tag uint64
	// Record is to take the place of what is there; nil leaves that and only compares. It is never empty otherwise.
	Record []byte
	// Age is how long ago the record at Base was written, as far as is known. A store that lets records expire can tell from
	// it whether this one's expiry has to be set anew.
	Age time.Duration
	// Unit groups swaps that are done all or none, those with the same number. They follow each other and are of one group of
	// streams. Zero is a unit of its own.
	Unit int32
}

// Status says what became of a swap.
type Status uint8

const (
	// Swapped says that what was there was as it had to be, and Record is there now.
	Swapped Status = iota
	// Changed says that another record was there, or none: the result has it.
	Changed
	// OtherLife says that the group has another life, or none. Nothing is known of the record.
	OtherLife
	// Withheld says that another swap of the unit was not done, though this one could have been.
	Withheld
)

// Result is what became of a swap.
type Result struct {
	Status Status
	// Tag and Record are what is there where Status is Changed: zero and nil if there is nothing. Record is the caller's. Tag may be
	// the swap's own, where the store has sent it twice: then it was done. Tag is zero, and Record not nil, where something is there
	// that no Converter has written; SetAside takes that away as well.
	Tag    uint64
	Record []byte
}

// Paced is a Shared store that is paid for by the call, and so wants few and large commits.
type Paced interface {
	Shared
	// Pace returns how long to wait between the beginnings of two commits, unless there are enough points for a whole one, and how many
	// points one may have. Zero is what a store has that asks for nothing. It always returns the same.
	Pace() (interval time.Duration, points int)
}
