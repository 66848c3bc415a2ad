// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package log

import "context"

// Driver keeps logs for one name, numbered from zero. A log consists of a snapshot, which may be missing, and the entries
// after it, each at a position. The first append at a position wins; nothing else keeps two owners of a log apart.
//
// A Driver must keep what it has acknowledged. After an error, any part of the request may have been performed or may still
// be; the same append is never requested twice. Its methods are called concurrently, but Append only by one goroutine at a
// time. A Driver must not keep the bytes passed to it; the bytes it returns belong to the caller.
type Driver interface {
	// Read returns the part of a log after a position: see Tail.
	Read(ctx context.Context, log int, after Position) (Tail, error)
	// Append adds entries to the ends of logs, each only if its log ends at the given position, and returns for each append
	// whether it was performed, in the same order. Each append is for a different log and independent of the others.
	Append(ctx context.Context, appends []Append) ([]bool, error)
	// Compact replaces the part of a log up to a position by a snapshot and keeps everything after that position. It does
	// nothing if the log no longer has the position, because another owner was faster.
	Compact(ctx context.Context, log int, at Position, snapshot []byte) error
}

// Position says where in a log an entry ends: how many entries there are up to it, and its ID. The zero Position is the end
// of an empty log. A different ID at the same number means a different history: the log was lost, or the store failed over
// to a copy that was behind.
type Position struct {
	Number uint64 // of entries up to here, those in the snapshot with them
	ID     uint64
}

// Append is an entry to be added to the end of a log.
type Append struct {
	Log   int
	After Position // where the log must end
	// ID identifies the entry; it is random and never zero. After the append the log ends at Position{After.Number + 1, ID}.
	ID uint64
	// Entry is never empty. Nil only checks whether the log ends at After.
	Entry []byte
}

// Tail is the end of a log.
type Tail struct {
	// From is where Entries begin. If it differs from the requested position, the log no longer has that position, and
	// Snapshot holds the log up to From: nil if From is zero.
	From     Position
	Snapshot []byte
	Entries  []Entry
}

// Entry is an entry of a log.
type Entry struct {
	ID   uint64
	Data []byte
}

// End returns where the log ends.
func (t *Tail) End() Position {
	if n := len(t.Entries); n > 0 {
		return Position{t.From.Number + uint64(n), t.Entries[n-1].ID}
	}
	return t.From
}
