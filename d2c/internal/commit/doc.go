// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package commit brings batches to streams: one pipeline, wherever the state is kept.
//
// # In memory
//
//	identify all points and sort them by shard     (package points)
//	for each shard that the batch has points of:
//	    lock the shard
//	    look up, or open, the streams of all points
//	    fold each point into its stream            (package fold), and give the point what its stream has now
//	    unlock
//	emit: what came as deltas is cumulative, what was dropped is removed
//
// # Durable and shared
//
// A batch is folded onto copies of its streams, the copies are kept by a [Keeper], and only then do they take the place of the
// streams and does the batch go out:
//
//	caller                                   the goroutine of the queue, one at a time
//	identify, sort, stage
//	enter the queue, and wait            ->  take the first batches that wait, up to maxPoints, and no sooner than Pace says
//	for the end, or for ctx                  begin a transaction (Tx): Keeper.Keep
//	                                             Tx.Fold: for each shard, locked: copy streams, fold all batches in their turn
//	                                             make the copies outlive the process
//	                                             (shared: fold again what others have changed, until the store agrees)
//	                                         publish: for each shard, locked: the copies take the place of their originals
//	emit what is staged                  <-  end: wake the callers
//
// Batches that come while a transaction is under way form the next one together, so that all of them wait for a slow store only
// once. Transactions follow each other: a batch adds to what all batches before it have left, in the store as in memory.
//
// # What holds
//
//   - Nothing is given out before the Keeper has returned without an error, except in an outage (package shared).
//   - A transaction that fails leaves the table as it was. The store may hold any part of it, and recognises what comes
//     again.
//   - If a stream cannot be kept, the batches with a point of it are refused (Tx.Refuse), and no others.
//   - A caller never waits longer than its context. One that leaves while its batch is in a transaction takes its metrics with
//     it: the transaction reads them under the batch's ticket alone, and has what it needs in copies after that.
//   - No lock is held while a store is called, except queue.running; only what writes checkpoints or reconciles waits for that.
//   - A panic in a fold or a store leaves no lock behind: it is the error of the transaction.
//   - Streams may expire during a transaction. Shards count their removals (Shard.Moves), so that publishing knows when to look
//     an original up again because its number may have changed.
//
// # The order of locks
//
//	queue.running  >  ticket.mu and shard  >  the journal's own
//	queue.mu       >  ticket.mu
//
// Only the holder of queue.running locks a ticket and a shard together, in either order. All others lock one of the two.
//
// The alternative was to let one of the callers lead each transaction. It saves a goroutine's wake-up, a few hundred
// nanoseconds for each transaction, and ties the leader to the store: it could not return when its context ended.
package commit
