// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package store defines what a Converter needs from the place where its state is kept: [Storage] serves one process,
// [Shared] any number of them. Package d2c/storetest checks an implementation; [Memory] is the shortest one.
package store

import (
	"context"
	"time"

	"github.com/deltaring/deltaring/streamid"
)

// Storage keeps values by key for one Converter; nobody else writes them. Any key-value store will do, for instance the
// Collector's storage extensions. Both methods are called concurrently.
type Storage interface {
	// Get returns the values of keys in the same order, nil for a key without a value.
	Get(ctx context.Context, keys []string) ([][]byte, error)
	// Put sets values and deletes keys; no key is in both, and a key to delete need not exist. When it returns nil, all
	// changes are durable. After an error or a crash, each key holds either its old value or the one it was to get. Put does
	// not keep the values after it returns.
	Put(ctx context.Context, values []KeyValue, deletes []string) error
}

// KeyValue is a value for Storage. Keys are short and consist only of [0-9a-z/].
type KeyValue struct {
	Key   string
	Value []byte
}

// Shared keeps one record per stream for any number of Converters, on any number of machines. It offers one primitive:
// replace a record if the stored one is still the one that the change is based on. Any store with a conditional write can do
// that. Its methods are called by one goroutine at a time.
//
// A store must keep what it acknowledges. If it cannot (it was wiped, or failed over to a copy that was behind), the life of
// the lost records must end with them: see [Life].
type Shared interface {
	// Lives returns the life of each group of streams, in order of groups. A group is a part of the store that can be lost
	// separately. Their number is a power of two, 1 to 256, and never changes. A group without a life gets the proposed one,
	// atomically, so all callers get the same answer.
	Lives(ctx context.Context, proposed Life) ([]Life, error)
	// Swap performs swaps and returns a result for each, in the same order. No two are for the same stream. Each is atomic
	// and independent of the others, except for swaps of the same Unit. After an error any of them may have been performed.
	// The results are valid until the next Swap. Swap does not keep references to records after it returns.
	Swap(ctx context.Context, swaps []Swap) ([]Result, error)
	// SetAside removes the record of a stream, if it still equals record, and keeps it elsewhere for inspection.
	SetAside(ctx context.Context, id streamid.ID, record []byte) error
}

// Life is the time during which a group of streams has not been lost as a whole. A store keeps it together with the records
// of the group, and loses it exactly when it loses them.
type Life struct {
	// ID is random and not zero.
	ID uint64
	// From and Floor are times in Unix nanoseconds. Anything given out before this life began that may arrive again lies
	// after From and not after Floor.
	From, Floor int64
}

// Group returns the group of a stream, out of the given number of groups.
func Group(id streamid.ID, groups int) int {
	return int(id.Hi >> 32 * uint64(groups) >> 32)
}

// Swap replaces one record by another.
type Swap struct {
	ID streamid.ID
	// Life is the ID that the life of the stream's group must have.
	Life uint64
	// Base is the tag that the stored record must have, zero if there must be no record.
	Base uint64
	// Tag is the tag of Record, never zero; the store keeps it beside the record. No two records have the same tag.
	Tag uint64
	// Record replaces the stored record. It is never empty; nil leaves the stored record unchanged and only compares tags.
	Record []byte
	// Unit groups swaps that are performed all or none: those with the same number. They are adjacent and belong to one
	// group of streams. A swap with zero is a unit by itself.
	Unit int32
}

// Status says what happened to a swap.
type Status uint8

const (
	// Swapped means that the stored record was the expected one and Record has replaced it.
	Swapped Status = iota
	// Changed means that there was another record or none; the result contains it.
	Changed
	// OtherLife means that the group has another life or none. Nothing is known about the record.
	OtherLife
	// Withheld means that another swap of the unit failed, although this one could have been performed.
	Withheld
)

// Result is the result of a swap.
type Result struct {
	Status Status
	// Tag and Record describe the stored record if Status is Changed: zero and nil if there is none. Record belongs to the
	// caller. Tag may be the swap's own if the store sent the swap twice, and the swap was then performed. If Tag is zero
	// and Record is not nil, the stored value was not written by a Converter; SetAside removes that, too.
	Tag    uint64
	Record []byte
}

// Reader is a Shared store that reads a record for much less than a swap costs. A Converter uses it while others change most
// of its streams between two of its batches, as they do where any worker gets any delta: it reads what they have written, and
// then swaps once, instead of learning from a swap that fails.
type Reader interface {
	Shared
	// Read returns a result for each stream, in the same order: Status is Changed, with the stored record if there is one. It
	// may be out of date, because only a swap decides. An error refuses the batch, as that of Swap does. The results are valid
	// until the next Read or Swap.
	Read(ctx context.Context, ids []streamid.ID) ([]Result, error)
}

// Paced is a Shared store that charges per call and therefore prefers few, large commits.
type Paced interface {
	Shared
	// Pace returns the time to wait between the starts of two commits, unless enough points for a full commit have arrived,
	// and the maximum number of points in one. A store without such a preference returns zero. The result never changes.
	Pace() (interval time.Duration, points int)
}
