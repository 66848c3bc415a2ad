// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package log keeps the state that Converters share in logs. A store of records pays for each point; where a ring gives each stream one
// worker, that is waste. A [Store] pays for each commit: it is a store.Shared that has a log for each group of streams on a small
// [Driver], and whoever owns the group appends to it.
//
// It is for workers that own whole groups: gateways that route by a grouped key, or one worker alone. Where any worker takes any stream
// it is right, too, but then each commit conflicts with those of the others, and each worker has all streams in memory.
//
// # How it works
//
// A log is a snapshot and entries. An entry is what a commit has changed of a group: ID, tag and record of each stream. It is appended
// at a position, which is the number of entries so far and the ID of the last one. Whoever appends first at a position wins, and nothing
// else keeps two owners apart: there are no leases, no clocks and no elections.
//
//	Swap:
//	    read on where a log is not in memory, or may have got what nobody has acknowledged
//	    compare the swaps with the records in memory, each unit as a whole
//	    append one entry for each log, with what is to be put, and for a log with nothing to be put
//	        check that it still ends there: one call of the driver for all
//	    done       the entry is what memory has, too
//	    refused    another has appended: read on, compare again, append again, up to 16 times
//	    error      it may be done, now or later: the log is read on before it is used again
//
// A result is of a moment at which the log was where memory has it, so it is never that of a stale cache. An owner that was hung up and
// wakes up has its append refused, whatever happened meanwhile.
//
// The first entry of a log is its life (see store.Life). Lives appends the one proposed where a log is empty: of several at once the first
// wins. A log that is lost is empty, and its streams get a new life; one that went back to what it was, as a copy that was behind, ends at another
// position than its owner knows. The owner reads all of it again, and the Converter, which is told what is there now, sees what is missing.
//
// # Snapshots, memory and expiry
//
// Once the entries since the last snapshot have more bytes than that, and a MiB at least, the owner puts a new one in their place: so
// a log takes about twice what its records do, and what is written for snapshots is no more than what is written for entries. That happens
// beside the commits, which wait for no more than a copy in memory. What fails is tried again, at last each minute.
//
// A Store keeps the records of the logs that it swaps in, and drops those of a log without swaps for Options.Idle: another owns it by
// then. A stream takes its record and about 42 bytes. What nobody has written for Options.TTL is left out of the next snapshot; one is made
// once a quarter of a log has expired, by the owner, or by who owned it last if nobody has used the log since.
//
// # Cost
//
// A commit is one call of Append, with one entry for each group that it touches: 26 bytes more than the records for each stream, and
// 22 for the entry. There is one call more when a log is taken over, and a snapshot and its tail are read then: with a million streams of
// 88 bytes in 64 logs that is 120 MB, and below a second without the network. Lives costs as much once, when a worker begins.
//
// Where each log of a call is a request that is paid for, Options.CommitInterval makes commits fewer, and Options.Groups their requests: a
// worker makes groups / workers requests an interval.
//
// # What a driver's store must keep
//
// What was acknowledged. If it loses a log as a whole the life of its streams ends with it, and workers know. If it goes back, a worker that
// has the streams in memory knows; one that does not cannot tell, and counts what comes again a second time. A log with entries
// missing, or bytes that are others, is an error, which names it: nothing is written there, and batches are refused, until somebody
// puts back what was there, or deletes the log, which begins a new life (ErrDamaged). The same is so for what a newer version has
// written (ErrVersion), and for logs that were begun with another number of groups.
//
// # Drivers
//
// [Memory] is the shortest driver. Package logtest checks one.
package log
