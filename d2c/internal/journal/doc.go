// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package journal keeps state in a key-value storage: an entry for each transaction, checkpoints from time to time, and the way
// back.
//
// # What is stored
//
// An entry (j/number) has what one transaction changed: for each shard concerned a section with the whole records of the streams.
// A checkpoint of a shard is all of its records, in chunks (c/parity/shard/place), and a manifest (m/shard) that says how many
// chunks there are, under which of two parities, and which entry was the latest when they were copied. The head (m/head) says
// at which entry the journal begins. In steady state transactions append entries; when the journal is too long, a round writes
// checkpoints of some shards, then the head, and then deletes the entries that no shard needs any more.
//
// # Invariants
//
//  1. Entries are numbered without holes from the head's first on. Who was told of a commit has its entry in storage.
//  2. An entry has the header checksum of the one before it, and how often the journal had been opened. Both tell what an
//     earlier journal has left from what continues this one.
//  3. A checkpoint takes effect when its manifest is stored. Until then the old one does: its chunks have the other parity and
//     are not touched.
//  4. Entries are deleted only once a head says that they are not needed, and a head is stored only once the manifests are
//     that make it true. A manifest says what the next head will (first) and what the last one said (oldest).
//  5. A record has all of its stream. So a later entry mends what an earlier one, or a chunk, has lost of it.
//  6. high, the latest time given out, is in the head, in manifests and in entries, and never falls. (Times more than commit.MaxAhead
//     ahead of the clock do not count.) A stream that is forgotten begins anew after it, so that nothing that was given out
//     comes again and no delta is counted twice.
//
// # The order of reads
//
//	head         where the journal begins, which shards must have manifests, up to which entry what opening holds
//	checkpoints  64 manifests at once, then the chunks of one shard after the other
//	entries      from the head's first on, those a shard's checkpoint has already are skipped for that shard
//
// Nothing is written until all of it is read: state of another owner or of a newer version is left as it is, whatever else is
// damaged.
//
// # Where the journal ends
//
// Up to the latest entry that a manifest knows of there must be entries. Behind that the journal ends before an entry that
// is not there, or was cut short, if nothing is found behind it for maxHole entries, or what is found first is of an earlier
// journal: its opened is lower than that of the entries before, or than the head's. It also ends before such an entry itself.
// Whatever else is found behind a hole is of this journal, and the hole is damage. What an earlier journal has left behind
// the end is cleared away, as far as the next recovery may look, lest it be met when the numbers get there.
//
// The one thing that nobody can tell is that the last entries are missing: as if the commits had never been.
//
// # Each kind of damage
//
//	entry missing          Each stream of each shard that has no later checkpoint is suspect, until a later entry has it. Those
//	                       that still are at the end are forgotten. All these shards are wounded.
//	entry damaged          The same. If only sections are, only for their shards. If the header is, high is read from a copy
//	                       at the end of the entry.
//	entry does not follow  It, or the one before, is not what was stored last: the same as an entry damaged.
//	last entry torn        Cut off: its commit had not ended. Told as Torn, not as damage; nothing is forgotten.
//	chunk                  Its streams are lost unless entries have them; those of the other chunks are kept. The shard is
//	                       wounded, and all entries there are replayed for it.
//	manifest               The same for all chunks of the shard: how many there are is not known, and none is read.
//	head                   The journal begins where the latest manifest says that it began (oldest); up to where that says that
//	                       the next head would begin (first), entries may be missing because they were deleted. Shards without
//	                       a manifest are wounded, as they may have had one. The next opening's number is far above any that
//	                       was. That there is no head at all is damage only if a manifest or a hole tells that there was one.
//	high                   If the latest entry is damaged so that its high cannot be read, or the head is lost and there are no
//	                       entries for a shard without a manifest, the time of recovery takes its place.
//
// A wounded shard has its floor raised to high. Streams that are not suspect go on; all others begin anew above the floor.
//
// # What is written, and in which order
//
//  1. Each damaged value is kept under a key of its own (damaged/n/key).
//  2. What is damaged behind the end is deleted, and after that what is not: as long as there is one that can be read, it shows
//     that all of it is of an earlier journal. With the latter goes what a crash may have left: entries before the first,
//     chunks that no manifest knows of.
//  3. Wounded shards get checkpoints (all shards do if the head is lost), in the order of any round: chunks, manifests, head,
//     and then the entries and chunks that are superfluous are deleted. The floors are in the manifests.
//
// A process that ends before 3 leaves the damage where it was, and the next recovery finds the same; one that ends in 3 leaves
// some shards mended, and the rest wounded as before. After 3 the next recovery finds nothing wrong. Only then do commits
// begin.
//
// # Locks
//
// Recovery needs none: nobody else has the Converter yet. Later the order is queue.running (package commit), then a shard's lock, then
// Journal.mu; none of them is taken with a later one held. A commit holds running for as long as it takes, and a shard's lock
// only for a fold or while copies are put in place. To copy shards for a checkpoint takes running (so that they are as
// between two commits) and Journal.mu. No lock but running is held while storage is at work, and running only for an entry,
// never for a checkpoint.
package journal
