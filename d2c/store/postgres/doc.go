// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package postgres keeps the logs of package log, and so the state that Converters share, on PostgreSQL 12 or later.
//
//	cfg, err := pgxpool.ParseConfig("postgres://d2c@db/d2c")
//	...
//	postgres.Tune(cfg)
//	pool, err := pgxpool.NewWithConfig(ctx, cfg)
//	...
//	driver, err := postgres.New(pool, postgres.Options{Name: "d2c"})
//	...
//	logs, err := log.New(driver, log.Options{})
//
// The Collector's extension postgres_state makes this package available by configuration.
//
// # How it works
//
// A [Driver] is a log.Driver on a pool of connections. A commit, which appends entries to any number of logs, is one
// statement: it checks whether each log ends where it should, and inserts a row for each that does. The number of an entry
// is part of a primary key, and that keeps two owners apart. The statement is its own transaction; READ COMMITTED isolation
// is enough, and there are no leases and no clocks.
//
// # Tables
//
// The tables have a schema of their own. The Driver creates it if the user has the permission; otherwise somebody else runs
// the output of [SQL].
//
//	version  version
//	logs     name, log -> number, id, snapshot    what a log has up to a position
//	entries  name, log, number -> id, entry       what comes after it
//
// An entry is a row: its bytes and about 100 more in the table, the index, and the server's log. A snapshot replaces entries
// in one statement. Nothing is compressed.
//
// # Durability
//
// A server with fsync and synchronous_commit keeps everything it acknowledged through a crash. Both are on by default, and
// this package does not change them. With synchronous_commit off, a crash loses the last commits.
//
// A standby follows with a delay, unless synchronous_standby_names says otherwise. When it is promoted, the last commits may
// be missing: logs end before the position that their owner knows, or continue with other entries. Positions have random
// IDs, so the owner notices either at its next append, forgets what it had and reads the log again. Lost deltas are not
// counted. With a synchronous standby nothing is lost.
//
// Make sure that an old primary that still runs takes no more writes: workers still connected to it would go on writing
// there.
//
// # The server
//
// Give this package a database of its own. A transaction that stays open for a long time, such as a dump by another
// application, keeps the server from reusing the space of deleted rows in all tables of the database.
//
// Statements are prepared and settings apply to the connection, so a pooler must give each client one connection for as long
// as the client stays: PgBouncer's pool_mode = session.
package postgres
