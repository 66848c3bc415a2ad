// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/deltaring/deltaring/d2c/store/log"
	"github.com/deltaring/deltaring/d2c/store/log/logtest"
	"github.com/deltaring/deltaring/d2c/store/postgres/postgrestest"
)

// connect returns a pool for a user of a server, by its address.
func connect(t testing.TB, addr string) *pgxpool.Pool {
	t.Helper()
	return connectWith(t, addr, func(*pgxpool.Config) {})
}

func connectWith(t testing.TB, addr string, change func(*pgxpool.Config)) *pgxpool.Pool {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(fmt.Sprintf("postgres://%s@%s/%s?sslmode=disable", postgrestest.Superuser, addr, postgrestest.Database))
	if err != nil {
		t.Fatal(err)
	}
	cfg.MaxConns = 16
	Tune(cfg)
	change(cfg)
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func connectAs(t testing.TB, addr, user, password string) *pgxpool.Pool {
	t.Helper()
	return connectWith(t, addr, func(cfg *pgxpool.Config) { cfg.ConnConfig.User, cfg.ConnConfig.Password = user, password })
}

func open(t testing.TB, pool *pgxpool.Pool, opts Options) *Driver {
	t.Helper()
	d, err := New(pool, opts)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDriver(t *testing.T) {
	s := postgrestest.Start(t)
	pool := connect(t, s.Addr)
	names := 0
	logtest.Run(t, func(t *testing.T) logtest.Fixture {
		names++
		opts := Options{Name: fmt.Sprint("d2c/", names)}
		return logtest.Fixture{Open: func() log.Driver { return open(t, pool, opts) }}
	})
}
