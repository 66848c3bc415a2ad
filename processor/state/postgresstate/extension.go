// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package postgresstate

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/extension"
	"go.uber.org/zap"

	"github.com/deltaring/deltaring/d2c/store/log"
	"github.com/deltaring/deltaring/d2c/store/postgres"
	"github.com/deltaring/deltaring/processor/state/internal/logstate"
	"github.com/deltaring/deltaring/processor/state/postgresstate/internal/metadata"
)

const probeInterval = 5 * time.Second

// postgresState is the extension.
type postgresState struct {
	*logstate.Extension
	cfg    *Config
	logger *zap.Logger
	tel    *metadata.TelemetryBuilder
}

var _ extension.Extension = (*postgresState)(nil)

func newExtension(set extension.Settings, cfg *Config) (*postgresState, error) {
	tel, err := metadata.NewTelemetryBuilder(set.TelemetrySettings)
	if err != nil {
		return nil, err
	}
	return &postgresState{Extension: logstate.New(set, cfg.Config, cfg.place(), instruments(tel)), cfg: cfg, logger: set.Logger, tel: tel}, nil
}

// Start does not wait for the server: until it is reached, batches are refused and the component's status says so.
func (e *postgresState) Start(ctx context.Context, host component.Host) error {
	pool, plain, err := connect(ctx, e.cfg)
	if err != nil {
		return fmt.Errorf("postgres_state: %w", err)
	}
	if plain && e.cfg.TLS.HasValue() {
		e.logger.Warn("connections are not encrypted: whoever is on the way reads the counters, and may read the password")
	}
	b := &backend{cfg: e.cfg, pool: pool}
	if b.prober, err = b.driver("probe"); err != nil {
		pool.Close()
		return fmt.Errorf("postgres_state: %w", err)
	}
	e.Run(ctx, host, b, probeInterval)
	return nil
}

// Shutdown ends what is under way.
func (e *postgresState) Shutdown(ctx context.Context) error {
	err := e.Stop(ctx)
	e.tel.Shutdown()
	return err
}

// backend is the server, for logstate.
type backend struct {
	cfg    *Config
	pool   *pgxpool.Pool
	prober *postgres.Driver
}

var _ logstate.Backend = (*backend)(nil)

func (b *backend) driver(name string) (*postgres.Driver, error) {
	return postgres.New(b.pool, postgres.Options{Name: name, Schema: b.cfg.Schema})
}

// Driver implements logstate.Backend.
func (b *backend) Driver(name string) (log.Driver, error) {
	d, err := b.driver(name)
	if err != nil {
		return nil, err // and not a nil *postgres.Driver that is no nil log.Driver
	}
	return d, nil
}

// Probe implements logstate.Backend.
func (b *backend) Probe(ctx context.Context) error { return b.prober.Probe(ctx) }

// Reason implements logstate.Backend.
func (b *backend) Reason(err error) string { return string(postgres.ReasonOf(err)) }

// Mistake implements logstate.Backend.
func (b *backend) Mistake(err error) bool { return !postgres.MayPass(err) }

// Close implements logstate.Backend.
func (b *backend) Close() error {
	b.pool.Close()
	return nil
}
