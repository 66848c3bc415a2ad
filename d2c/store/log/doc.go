// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package log keeps the state that Converters share in logs: one log for each group of streams. Commits then cost less than
// with a store of records, which pays for each point; a [Store] pays for each commit. It is a store.Shared on top of a small
// [Driver], of which there are several (packages redis, postgres and s3):
//
//	logs, err := log.New(driver, log.Options{})
//	...
//	conv, err := d2c.OpenShared(ctx, cfg, d2c.SharedConfig{Store: logs, Owner: "d2c"})
//
// Use it if each worker owns whole groups: behind gateways that route by a grouped key, or with a single worker. It is also
// correct if any worker may take any stream, but then the commits of different workers conflict, and each worker holds all
// streams in memory.
//
// # How it works
//
// A log consists of a snapshot and entries. An entry contains what a commit has changed in a group: ID, tag and record of
// each stream. It is appended at a position: the number of entries so far and the ID of the last one. The first append at a
// position wins, and nothing else keeps two owners apart: there are no leases, no clocks and no elections.
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
// A result always describes a moment at which memory matched the log, so it never comes from a stale cache. An owner that
// hung and resumes has its append refused, whatever happened in between.
//
// The first entry of a log is its life (see store.Life). Lives appends the proposed one to each empty log; if several do so
// at once, the first wins. A lost log is empty, and its streams get a new life. A log that went back to an earlier state,
// because a copy was behind, ends at a different position than its owner expects. The owner then reads the whole log again
// and reports the stored records to the Converter, which sees what is missing.
//
// # Snapshots, memory and expiry
//
// Once the entries since the last snapshot are larger than it, and at least 1 MiB, the owner replaces both by a new
// snapshot. A log therefore takes about twice the size of its records, and no more is written for snapshots than for
// entries. Snapshots are written in parallel to commits, which wait only for a copy in memory. Failures are retried,
// eventually once a minute.
//
// A Store keeps in memory the records of the logs it swaps in. It drops those of a log without swaps for Options.Idle,
// because by then another worker owns it. A stream takes its record and about 46 bytes. Records not written for Options.TTL
// are left out of the next snapshot. Once a quarter of a log has expired, its owner makes a snapshot, or its last owner if
// nobody has used the log since.
//
// # Cost
//
// A commit is one call of Append, with one entry for each group it touches: 22 bytes for the entry, and for each stream its
// record and 26 bytes. Taking over a log costs one more call, which reads a snapshot and its tail: for a million streams of
// 88 bytes in 64 logs that is 120 MB (a sum takes 42 bytes), and less than a second without the network. Lives costs as much once, when a worker
// starts.
//
// If the store charges for each log in a call, Options.CommitInterval reduces the number of commits, and Options.Groups the
// requests of each: a worker makes groups / workers requests per interval.
//
// # What a driver's store must keep
//
// Everything it acknowledged. If it loses a whole log, the life of its streams ends with it, and workers notice. If a log
// goes back to an earlier state, a worker that has the streams in memory notices; any other worker cannot tell, and counts
// repeated deltas a second time. Missing entries or changed bytes are an error that names the log (ErrDamaged): nothing is
// written to it, and batches are refused, until somebody restores its contents or deletes it, which begins a new life. The
// same applies to data written by a newer version (ErrVersion), and to logs created with a different number of groups.
//
// # Drivers
//
// [Memory] is the shortest driver. Package logtest checks one.
package log
