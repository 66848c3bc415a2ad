// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// session is what a connection is told first. All rows are found by a primary key: the planner must not take it for cheaper to read all
// of a table that it knows when it is empty, and plans are kept.
const session = `SET enable_seqscan = off; SET jit = off; SET max_parallel_workers_per_gather = 0; SHOW transaction_read_only`

var errStandby = errors.New("the server takes no writes: it is a standby, or read-only")

// Tune sets the options that a Driver works best with, and selects, out of several hosts, the first that accepts writes.
// Addresses, credentials, sizes and timeouts stay as they are.
func Tune(cfg *pgxpool.Config) {
	cfg.ConnConfig.ValidateConnect = validate
}

func validate(ctx context.Context, conn *pgconn.PgConn) error {
	results, err := conn.Exec(ctx, session).ReadAll()
	if err != nil {
		return err
	}
	if last := results[len(results)-1].Rows; len(last) != 1 || len(last[0]) != 1 {
		return errAnswer
	} else if string(last[0][0]) != "off" {
		return errStandby
	}
	return nil
}
