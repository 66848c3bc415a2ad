// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"
)

// version is that of the tables.
const version = 1

const maxSchema = 63 // bytes: PostgreSQL cuts off what is longer

var schemaNames = regexp.MustCompile(`^[a-z_][a-z0-9_]*$`)

// ValidateSchema returns an error if a schema cannot have this name.
func ValidateSchema(name string) error {
	switch {
	case len(name) > maxSchema:
		return fmt.Errorf("must have at most %d bytes, got %d", maxSchema, len(name))
	case !schemaNames.MatchString(name):
		return fmt.Errorf("want small letters, digits and underscores, no digit first, got %q", name)
	case strings.HasPrefix(name, "pg_"):
		return fmt.Errorf("what begins with pg_ is PostgreSQL's own, got %q", name)
	}
	return nil
}

// ready makes the tables, unless they are known to be there, and checks their version.
func (d *Driver) ready(ctx context.Context) error {
	if d.tables.Load() {
		return nil
	}
	err := d.use(ctx, func(conn *pgx.Conn) error {
		v, err := d.version(ctx, conn)
		if missing(err) {
			if err = d.create(ctx, conn); err == nil {
				v, err = d.version(ctx, conn)
			}
		}
		if err == nil && v != version {
			err = versionError{v}
		}
		return err
	})
	if err != nil {
		return d.explain("looking at the tables", err)
	}
	d.tables.Store(true)
	return nil
}

func (d *Driver) version(ctx context.Context, conn *pgx.Conn) (v int, err error) {
	err = conn.QueryRow(ctx, "SELECT max(version) FROM "+d.schema+".version HAVING count(*) > 0").Scan(&v)
	return v, err
}

// create makes the tables. Those who come at the same time wait for each other: IF NOT EXISTS alone fails if both find none.
func (d *Driver) create(ctx context.Context, conn *pgx.Conn) error {
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		const ours = 0xde17a // any number, the same for all of us
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1, hashtext($2))", ours, d.opts.Schema); err != nil {
			return err
		}
		// Asked of the catalogue itself, which is as others have left it: what a connection remembers of names may be from before.
		var schemas, relations int
		if err := tx.QueryRow(ctx, `SELECT count(DISTINCT n.oid), count(c.oid) FROM pg_catalog.pg_namespace n
			LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname IN ('version', 'logs', 'entries')
			WHERE n.nspname = $1`, d.opts.Schema).Scan(&schemas, &relations); err != nil {
			return err
		}
		if relations == 3 {
			return nil // another was faster
		}
		sql := tablesIn(d.opts.Schema)
		if schemas == 0 { // who may not create one gets an error even if it is there
			sql = "CREATE SCHEMA " + d.schema + ";\n" + sql
		}
		_, err := tx.Conn().PgConn().Exec(ctx, sql).ReadAll()
		return err
	})
	if says(err, "42501") {
		return createError{SQL(d.opts.Schema, conn.Config().User), err}
	}
	return err
}
