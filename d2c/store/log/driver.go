// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package log

import "context"

// Driver keeps logs for one name, numbered from zero. A log is a snapshot, or nothing, and the entries after it, each at a position.
// Whoever appends first at a position wins; that is all that keeps two owners of a log apart.
//
// A Driver keeps what it acknowledged. After an error anything that was asked for may have been done, now or later; nobody asks for
// the same append twice. Its methods are called concurrently, Append by one goroutine at a time. Whatever bytes a method is given are
// not to be kept, those it returns are the caller's.
type Driver interface {
	// Read returns what a log has after a position: see Tail.
	Read(ctx context.Context, log int, after Position) (Tail, error)
	// Append puts entries at the ends of logs, each if its log ends where it is said to, and returns for each append whether it was
	// done, in their order. Each is of another log, and done or not apart from the others.
	Append(ctx context.Context, appends []Append) ([]bool, error)
	// Compact puts a snapshot in the place of what a log has up to a position, and leaves what comes after that. It does nothing if
	// the log does not have that position any more: another one was faster.
	Compact(ctx context.Context, log int, at Position, snapshot []byte) error
}

// Position says where in a log an entry ends: it is the latest of so many, and has this ID. The zero Position is where an empty log ends.
// A position with another ID is of another history, as a store has it that was lost, or failed over to a copy that was behind.
type Position struct {
	Number uint64 // of entries up to here, those in the snapshot with them
	ID     uint64
}

// Append is an entry to be put at the end of a log.
type Append struct {
	Log   int
	After Position // where the log must end
	// ID is that of the entry, random and never zero: the log ends at Position{After.Number + 1, ID} then.
	ID uint64
	// Entry is never empty, but nil to find out only whether the log ends at After.
	Entry []byte
}

// Tail is the end of a log.
type Tail struct {
	// From is where Entries begin. If it is not the position asked for, the log does not have that any more, and Snapshot is what the
	// log has up to From: nil if From is zero.
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
