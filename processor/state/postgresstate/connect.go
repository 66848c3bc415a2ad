// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package postgresstate

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/deltaring/deltaring/d2c/store/postgres"
)

// connect does not wait for a connection. plain says that there is no TLS.
func connect(ctx context.Context, cfg *Config) (pool *pgxpool.Pool, plain bool, err error) {
	var transport *tls.Config
	if cfg.TLS.HasValue() {
		if transport, err = cfg.TLS.Get().LoadTLSConfig(ctx); err != nil {
			return nil, false, fmt.Errorf("tls: %w", err)
		}
	}
	// The client wants its own parser to have seen a configuration, and that looks at the environment and at files in the home directory:
	// none of that is left.
	pc, err := pgxpool.ParseConfig("host=127.0.0.1 port=1 user=none dbname=none sslmode=disable passfile=/dev/null target_session_attrs=any")
	if err != nil {
		return nil, false, fmt.Errorf("environment: %w", err)
	}
	conn := pc.ConnConfig
	conn.User, conn.Password, conn.Database = cfg.Username, string(cfg.Password), cfg.Database
	conn.RuntimeParams = map[string]string{"application_name": "deltaring"}
	conn.ChannelBinding, conn.RequireAuth, conn.SSLNegotiation = "prefer", "", ""
	conn.Fallbacks = nil
	endpoints := cfg.endpoints()
	for i, endpoint := range endpoints {
		host, port, err := split(endpoint)
		if err != nil {
			return nil, false, err
		}
		var own *tls.Config
		if transport != nil {
			own = transport.Clone()
			if own.ServerName == "" {
				own.ServerName = host
			}
		}
		if i == 0 {
			conn.Host, conn.Port, conn.TLSConfig = host, port, own
		} else {
			conn.Fallbacks = append(conn.Fallbacks, &pgconn.FallbackConfig{Host: host, Port: port, TLSConfig: own})
		}
	}
	// One that does not answer leaves time for the others.
	conn.ConnectTimeout = max(cfg.Timeout/time.Duration(len(endpoints)+1), time.Millisecond)
	pc.MaxConns = int32(cfg.PoolSize)
	postgres.Tune(pc)
	pool, err = pgxpool.NewWithConfig(context.WithoutCancel(ctx), pc)
	return pool, transport == nil, err
}
