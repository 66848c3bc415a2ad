// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package redis keeps the state that Converters share, on Redis 6.2 or later or on Valkey: one server, Sentinel, or Cluster. The
// Collector's extension redis_state is this package with a configuration.
//
// # How it works
//
// A [Store] is a store.Shared of one record per stream, for any worker. A batch becomes calls of a script of at most 250 swaps each, in a Cluster by slot group; the calls
// for one server go out together, so a batch costs one round trip. What a server does not take for a reason that may pass is sent
// again, up to a bound. Everything else is an error, and the batch is refused.
//
// # Keys and layout
//
// A record is a string: its tag, 8 bytes, and itself. Its key is
//
//	<prefix>:{<slot group>}:<name>:2<identity, 16 bytes>
//
// The lives are strings of 24 bytes that never expire, one for each of 64 slot groups of a Cluster, one in all for one server:
//
//	<prefix>:{<slot group>}:_life:<name>:2
//
// A user needs these commands on the keys that begin with the prefix: eval, evalsha, get, mget, set, setrange, psetex, persist,
// pexpire, renamenx.
//
// # Logs
//
// A [Log] is a log.Driver: with a log.Store on it, the state of a group of streams is a log to which its owner appends an entry per commit.
// That costs a third of what records cost, worker and server together, where each group has one owner. A log is a list, of which the elements are pairs of a
// position, 16 bytes, and the snapshot or an entry; its key is
//
//	<prefix>:{<slot group>}:_log:<name>:1:<number of the log>
//
// All of a log is under one key, so a snapshot takes the place of entries in one step, and a Cluster moves a log as a whole. A commit is
// one call to one server, and in a Cluster one for each log, those for one server together. Logs have nothing to do with records:
// who changes from one to the other begins anew.
//
// A log has no expiry. A log.Store with a TTL leaves the records out that are older, at the next snapshot; a log that nobody uses any
// more stays as it is until somebody deletes its key.
//
// A user needs these commands: eval, evalsha, lindex, llen, lrange, lset, ltrim, rpush, persist, and for Probe pexpire.
//
// # Cost
//
// A record of 88 bytes takes about 245 bytes of the server, key and expiry included, and the server about 2 µs each time it is
// swapped: reading is one MGET for all of a call, and a record of the same length is written in place. Once in a sixteenth of the time to live a swap also
// sets the expiry, which is 1 µs more; Swap.Age says when.
//
// # Durability
//
// What Redis acknowledges it can lose. What it loses as a whole, the life goes with, and Converters know. What it loses in part, the
// life does not tell:
//
//   - A restart without persistence loses all: a new life.
//   - A restart with appendonly and appendfsync everysec can lose the last second, with RDB snapshots what came after the last one. The
//     life is still there. Use appendonly, with appendfsync always if no second may be lost.
//   - A failover to a replica that is behind loses what the replica had not got, and the life is still there. WaitReplicas is for
//     that: Swap returns when so many replicas have what was written.
//   - Eviction loses single records: set maxmemory-policy noeviction. What lives on with the records has no expiry, so volatile-*
//     policies never evict a life, but allkeys-* do.
//
// A Converter that still has the stream in memory notices that the record is older than its own. One that has not cannot.
//
// # The client
//
// The client is the caller's, and so are its timeouts. [Tune] sets what this package works best with.
package redis
