// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package postgres keeps logs, and with them the state that Converters share, on PostgreSQL 12 or later. The Collector's extension
// postgres_state is this package with a configuration.
//
// # How it works
//
// A [Driver] is a log.Driver on a pool of connections. A commit, entries at the ends of any number of logs, is one statement: it looks
// whether each log ends where it should, and inserts a row for each that does. That the number of an entry is part of a primary key
// is what keeps two owners apart. The statement is its own transaction; there is no other isolation than READ COMMITTED, no lease and
// no clock.
//
// # Tables
//
// They are in a schema of their own, which is made if the user may do that; [SQL] is what somebody else runs otherwise.
//
//	version  version
//	logs     name, log -> number, id, snapshot    what a log has up to a position
//	entries  name, log, number -> id, entry       what comes after it
//
// An entry is a row of its bytes and about 100 more in the table, the index, and the log of the server. A snapshot takes the place of
// entries in one statement. Nothing is compressed.
//
// # Durability
//
// What a server with fsync and synchronous_commit acknowledged, it has after a crash. Both are on unless somebody has turned them off, and
// this package leaves them alone: with synchronous_commit off a crash takes the last commits away.
//
// A standby follows with a delay, unless synchronous_standby_names says otherwise. When it is promoted, the last commits may be missing:
// logs end before the position that their owner knows, or go on with other entries. Positions have random IDs, so an owner notices either
// when it appends next, forgets what it had and reads the log anew. What was lost is not counted. With a synchronous standby
// nothing is lost.
//
// Somebody has to see that an old primary which still runs takes no more writes: whoever is connected to that goes on writing there.
//
// # The server
//
// Give it a database of its own. A transaction that stays open for long, a dump of another application for instance, keeps the server
// from reusing the space of deleted rows in all tables of its database.
//
// Statements are prepared, and settings are for the connection, so a pooler has to give each client a connection for as long as it
// stays: PgBouncer's pool_mode = session.
package postgres
