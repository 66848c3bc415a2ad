// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package redis keeps the state that Converters share on Redis 6.2 or later, or on Valkey: one server, Sentinel, or Cluster.
//
//	options := &goredis.UniversalOptions{Addrs: []string{"localhost:6379"}}
//	redis.Tune(options)
//	records, err := redis.New(goredis.NewUniversalClient(options), redis.Options{Name: "d2c"})
//	...
//	conv, err := d2c.OpenShared(ctx, cfg, d2c.SharedConfig{Store: records, Owner: "d2c"})
//
// The caller owns the client and chooses its timeouts; [Tune] sets the options that this package works best with. A [Store]
// has one record per stream, and any worker can take any stream. A [Log] costs less if each group of streams has one owner.
// The Collector's extension redis_state makes this package available by configuration.
//
// # How it works
//
// A [Store] sends a batch as script calls of at most 500 swaps each; in a Cluster each call is for one slot group. All calls
// for one server are sent together, so a batch costs one round trip, and another one if other workers have changed its
// streams. Where they do so by turns, the Converter reads the records first, with HMGET: that takes the server less time than
// swaps that fail. If a server rejects a call for a temporary reason, the call is sent again, up to a limit. Any other failure
// is an error, and the batch is refused.
//
// # Keys and layout
//
// A record is a field of a hash: the field is the stream's identity, 16 bytes, and the value an 8-byte tag, followed by the record
// itself. A Cluster has 64 groups of streams, one for each of its slot groups, and a single server has one: changing from one to the other starts with empty state. The keys of a
// group are
//
//	<prefix>:{<slot group>}:<name>:3n      the newer records
//	<prefix>:{<slot group>}:<name>:3o      the older records
//	<prefix>:{<slot group>}:_life:<name>:3
//
// Records expire in two steps, by the server's clock. All writes go to the newer hash, which is to live for twice the TTL. When half
// of that is over, it becomes the older one, and each record in it moves to a new hash when it is written next. What is never written
// again expires with the older hash, between one and two TTLs after it was last written. Lives are strings of 24 bytes that never
// expire.
//
// The user needs permission for these commands on keys with the prefix: eval, evalsha, get, mget, set, hmget, hset, hdel, pttl,
// persist, pexpire, renamenx.
//
// # Logs
//
// A [Log] is a log.Driver. Used with a log.Store, it keeps each group of streams in a log, to which the group's owner
// appends one entry per commit. If each group has one owner, that costs a third of what records cost, worker and server
// together. A log is a list whose elements are 16-byte positions, each followed by the snapshot or an entry. Its key is
//
//	<prefix>:{<slot group>}:_log:<name>:1:<number of the log>
//
// A log has only one key, so a snapshot replaces entries in one step, and a Cluster moves a log as a whole. A commit is one
// call to a single server. In a Cluster it is one call for each log, and the calls for one server are sent together. Logs
// and records are independent: changing from one to the other starts with empty state.
//
// A log does not expire. A log.Store with a TTL leaves older records out of the next snapshot. A log that is no longer used
// stays until somebody deletes its key.
//
// The user needs permission for these commands: eval, evalsha, lindex, llen, lrange, lset, ltrim, rpush, persist, and for
// Probe pexpire.
//
// # Cost
//
// The record of a sum, 42 bytes, takes about 140 bytes on the server and 1.3 µs of server time per swap: one HMGET reads everything
// for a call, and one HSET writes it. The HMGET is left out for records that a Read has just found, if nobody has written to the group
// since: a field of the hash has a version, which is another one after each change. A swap of a stream that is new, or that was last written to the older hash, takes two calls.
//
// # Durability
//
// Redis can lose data that it has acknowledged. If it loses everything, the life is lost as well, and Converters notice. A
// partial loss does not show in the life:
//
//   - A restart without persistence loses everything, and a new life begins.
//   - A restart with appendonly and appendfsync everysec can lose the last second; with RDB snapshots it loses everything
//     since the last one. The life survives. Use appendonly, and appendfsync always if not even a second may be lost.
//   - A failover to a replica that is behind loses what that replica had not received, and the life survives. Set
//     WaitReplicas to prevent that: Swap then returns once that many replicas have the write.
//   - Eviction loses all newer or all older records of a group, and its life or not. Set maxmemory-policy noeviction.
//
// A Converter that still has the stream in memory notices that the record is older than its own. Any other Converter cannot.
package redis
