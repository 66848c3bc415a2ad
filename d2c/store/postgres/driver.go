// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync/atomic"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/deltaring/deltaring/d2c/store/log"
)

// Options say where logs are kept. Name is required.
type Options struct {
	// Name identifies the owner of the logs. Drivers with the same Schema and Name in the same database share them. Text
	// without zero bytes, at most 1 KiB.
	Name string
	// Schema contains the tables; see ValidateSchema. Default d2c.
	Schema string

	// prevent unkeyed literal initialization
	_ struct{}
}

const (
	defaultSchema = "d2c"
	maxName       = 1024

	// conflictsLast is for how many commits others are expected to append to the same logs, after one that did. A conflict that was not
	// expected costs a statement, and a line in the server's log.
	conflictsLast = 100

	// keptBytes bounds the working memory that is kept for the next call.
	keptBytes = 4 << 20
)

// Driver is a log.Driver. Any number of them can share a pool.
type Driver struct {
	pool   *pgxpool.Pool
	opts   Options
	schema string // quoted
	sql    statements
	tables atomic.Bool // they are there, as far as is known

	// careful is for how many commits a conflict is to be expected, as there was one.
	careful int

	// Working memory of Append.
	order []int32
	batch batch
}

var _ log.Driver = (*Driver)(nil)

// New returns a Driver on a pool whose configuration was prepared by Tune. It does not contact the server, and the Driver
// does not close the pool.
func New(pool *pgxpool.Pool, opts Options) (*Driver, error) {
	if opts.Schema == "" {
		opts.Schema = defaultSchema
	}
	if opts.Name == "" || len(opts.Name) > maxName || !utf8.ValidString(opts.Name) || slices.Contains([]byte(opts.Name), 0) {
		return nil, fmt.Errorf("postgres: name: must be text of 1 to %d bytes without zeros, got %q", maxName, opts.Name)
	}
	if err := ValidateSchema(opts.Schema); err != nil {
		return nil, fmt.Errorf("postgres: schema: %w", err)
	}
	return &Driver{
		pool: pool, opts: opts, schema: pgx.Identifier{opts.Schema}.Sanitize(), sql: statementsOf(opts.Schema), batch: newBatch(opts.Name),
	}, nil
}

// Probe returns an error if appends would fail now, because the server cannot be reached, is a standby, refuses the
// credentials, or lacks the tables. It does not detect a full disk.
func (d *Driver) Probe(ctx context.Context) error {
	none := newBatch(d.opts.Name)
	none.add(log.Append{Log: -1})
	none.end()
	_, err := d.append(ctx, d.sql.appendSome, &none, make([]bool, 1), []int32{0}, []log.Append{{Log: -1}})
	return err
}

// Append implements log.Driver. It is one statement, and one more if another owner is faster or if it is the first on its
// connection.
func (d *Driver) Append(ctx context.Context, appends []log.Append) ([]bool, error) {
	done := make([]bool, len(appends))
	if len(appends) == 0 {
		return done, nil
	}
	d.order = d.order[:0]
	for i := range appends {
		d.order = append(d.order, int32(i))
	}
	slices.SortFunc(d.order, func(a, b int32) int { return cmp.Compare(appends[a].Log, appends[b].Log) })
	st := d.sql.appendAll
	if d.careful > 0 {
		d.careful--
		st = d.sql.appendSome
	}
	d.batch.begin()
	for _, i := range d.order {
		d.batch.add(appends[i])
		if appends[i].Entry == nil || appends[i].After == (log.Position{}) {
			st = d.sql.appendSome
		}
	}
	d.batch.end()
	defer d.batch.trim()
	another, err := d.append(ctx, st, &d.batch, done, d.order, appends)
	if another {
		// Nothing was done, which is certain, so it may be tried again.
		clear(done)
		d.careful = conflictsLast
		_, err = d.append(ctx, d.sql.appendSome, &d.batch, done, d.order, appends)
	}
	if err != nil {
		return nil, err
	}
	if slices.Contains(done, false) {
		d.careful = conflictsLast
	}
	return done, nil
}

// append runs a statement, and reports whether nothing was done because another owner was faster.
func (d *Driver) append(
	ctx context.Context, st string, b *batch, done []bool, order []int32, appends []log.Append,
) (another bool, err error) {
	err = d.run(ctx, "appending", st, b.values[:], b.formats[:], func(rows *pgconn.ResultReader) error {
		for rows.NextRow() {
			v := rows.Values()
			if len(v) != 1 || len(v[0]) != 4 {
				return errAnswer
			}
			n := int(int32(binary.BigEndian.Uint32(v[0])))
			i, found := slices.BinarySearchFunc(order, n, func(i int32, n int) int { return cmp.Compare(appends[i].Log, n) })
			if !found {
				return errAnswer
			}
			done[order[i]] = true
		}
		return nil
	})
	return st == d.sql.appendAll && says(err, "23505"), err
}

// Read implements log.Driver.
func (d *Driver) Read(ctx context.Context, n int, after log.Position) (log.Tail, error) {
	var tail log.Tail
	err := d.run(ctx, "reading", d.sql.read, [][]byte{
		[]byte(d.opts.Name), int4(n), int8(after.Number), int8(after.ID),
	}, []int16{pgtype.TextFormatCode, pgtype.BinaryFormatCode, pgtype.BinaryFormatCode, pgtype.BinaryFormatCode},
		func(rows *pgconn.ResultReader) error {
			if !rows.NextRow() {
				return nil // with an error
			}
			if err := position(rows.Values(), &tail.From); err != nil {
				return err
			}
			if v := rows.Values()[2]; v != nil {
				tail.Snapshot = append([]byte{}, v...)
			}
			end := tail.From
			for rows.NextRow() {
				want := end.Number + 1
				if err := position(rows.Values(), &end); err != nil {
					return err
				}
				if end.Number != want {
					return damagedError{n, end.Number, want}
				}
				tail.Entries = append(tail.Entries, log.Entry{ID: end.ID, Data: append([]byte{}, rows.Values()[2]...)})
			}
			return nil
		})
	if err != nil {
		return log.Tail{}, err
	}
	return tail, nil
}

// position reads where in a log a row is.
func position(row [][]byte, p *log.Position) error {
	if len(row) != 3 || len(row[0]) != 8 || len(row[1]) != 8 {
		return errAnswer
	}
	*p = log.Position{Number: binary.BigEndian.Uint64(row[0]), ID: binary.BigEndian.Uint64(row[1])}
	return nil
}

// Compact implements log.Driver.
func (d *Driver) Compact(ctx context.Context, n int, at log.Position, snapshot []byte) error {
	return d.run(ctx, "making a snapshot", d.sql.compact, [][]byte{
		[]byte(d.opts.Name), int4(n), int8(at.Number), int8(at.ID), snapshot,
	}, []int16{
		pgtype.TextFormatCode, pgtype.BinaryFormatCode, pgtype.BinaryFormatCode, pgtype.BinaryFormatCode, pgtype.BinaryFormatCode,
	}, func(*pgconn.ResultReader) error { return nil })
}

func int4(v int) []byte    { return binary.BigEndian.AppendUint32(nil, uint32(v)) }
func int8(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

var binaryResults = []int16{pgtype.BinaryFormatCode}

// run runs a statement and has read read its rows.
func (d *Driver) run(
	ctx context.Context, doing string, st string, values [][]byte, formats []int16, read func(*pgconn.ResultReader) error,
) error {
	if err := d.ready(ctx); err != nil {
		return err
	}
	err := d.use(ctx, func(conn *pgx.Conn) error {
		prepared, err := conn.Prepare(ctx, st, st) // named by what it is
		if err != nil {
			return err
		}
		rows := conn.PgConn().ExecPrepared(ctx, prepared.Name, values, formats, binaryResults)
		err = read(rows)
		if _, failed := rows.Close(); failed != nil {
			return failed
		}
		return err
	})
	if missing(err) {
		d.tables.Store(false) // somebody has taken them away
	}
	return d.explain(doing, err)
}

// use lends a connection. One that has met what only another one can serve is not used again.
func (d *Driver) use(ctx context.Context, f func(conn *pgx.Conn) error) error {
	conn, err := d.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	if err = f(conn.Conn()); says(err, "25006") || says(err, "26000") {
		_ = conn.Conn().Close(ctx)
	}
	return err
}
