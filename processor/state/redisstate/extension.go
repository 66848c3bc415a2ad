// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redisstate

import (
	"context"
	"errors"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/extension"
	"go.uber.org/zap"

	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/d2c/store/log"
	"github.com/deltaring/deltaring/d2c/store/redis"
	"github.com/deltaring/deltaring/processor/state/internal/storewatch"
)

var (
	errClosed     = errors.New("redis_state: the extension has been shut down")
	errNotStarted = errors.New("redis_state: the extension has not been started")
)

// redisState is the extension.
type redisState struct {
	cfg    *Config
	logger *zap.Logger
	tel    *telemetry

	mu     sync.Mutex
	client goredis.UniversalClient // while it is started
	stores []*log.Store            // that were given out
	closed bool

	cancel   context.CancelFunc
	watching sync.WaitGroup
	failing  chan struct{} // tells watch of a batch that was refused
}

var _ extension.Extension = (*redisState)(nil)

func newExtension(set extension.Settings, cfg *Config) (*redisState, error) {
	tel, err := newTelemetry(set)
	if err != nil {
		return nil, err
	}
	return &redisState{cfg: cfg, logger: set.Logger, tel: tel, failing: make(chan struct{}, 1)}, nil
}

// Start does not wait for the server: until it is reached, batches are refused and the component's status says so.
func (e *redisState) Start(ctx context.Context, host component.Host) error {
	tlsConfig, plain, err := e.cfg.transport(ctx)
	if err != nil {
		return err
	}
	if plain {
		e.logger.Warn("connections are not encrypted: whoever is on the way reads the counters and the password")
	}
	client := connect(e.cfg, tlsConfig, plain)
	probe, err := e.prober(client)
	if err != nil {
		_ = client.Close()
		return err
	}
	e.mu.Lock()
	e.client = client
	e.mu.Unlock()
	ctx, e.cancel = context.WithCancel(context.WithoutCancel(ctx))
	w := storewatch.Watch{
		Store: probe, Logger: e.logger, Where: zap.Strings("endpoints", e.cfg.endpoints()), Interval: probeInterval, Timeout: e.cfg.Timeout,
		Failing: e.failing,
	}
	e.watching.Go(func() { w.Run(ctx, host) })
	return nil
}

// probed is the servers as they are watched: by what a store does.
type probed struct {
	store interface {
		Probe(ctx context.Context) error
	}
}

func (p probed) Probe(ctx context.Context) error { return p.store.Probe(ctx) }

func (probed) Reason(err error) string { return string(redis.ReasonOf(err)) }

// Mistake is that of credentials. Everything else may pass.
func (probed) Mistake(err error) bool { return redis.ReasonOf(err) == redis.Credentials }

func (e *redisState) prober(client goredis.UniversalClient) (p probed, err error) {
	if e.cfg.Layout == LayoutLog {
		p.store, err = redis.NewLog(client, e.cfg.logOptions("probe"))
	} else {
		p.store, err = redis.New(client, e.cfg.options("probe"))
	}
	return p, err
}

// Shutdown makes whatever is under way fail.
func (e *redisState) Shutdown(ctx context.Context) error {
	e.mu.Lock()
	client, stores := e.client, e.stores
	e.client, e.stores, e.closed = nil, nil, true
	e.mu.Unlock()
	if client != nil {
		e.cancel()
		if err := client.Close(); err != nil {
			// A server that has closed a connection before us, most of all one with TLS, makes an error of taking leave of it.
			e.logger.Debug("connections were not closed as they should be", zap.Error(err))
		}
		e.watching.Wait()
	}
	var errs []error
	for _, st := range stores {
		errs = append(errs, st.Close(ctx))
	}
	e.tel.shutdown()
	return errors.Join(errs...)
}

// RecordTTL is how long records are kept that are not written, for processors to compare with what they remember.
func (e *redisState) RecordTTL() time.Duration { return e.cfg.RecordTTL }

// SharedStore returns the store of the processor: all processors of that ID that use the same servers and the same prefix
// share their state, in this Collector and in others. Each caller has a store of its own, for one goroutine at a time.
func (e *redisState) SharedStore(_ context.Context, processor component.ID) (store.Shared, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closed:
		return nil, errClosed
	case e.client == nil:
		return nil, errNotStarted
	}
	tel := e.tel.observer(processor, e.failing)
	if e.cfg.Layout == LayoutLog {
		st, err := e.logStore(processor, tel)
		if err != nil {
			return nil, err
		}
		e.stores = append(e.stores, st)
		return st, nil
	}
	opts := e.cfg.options(processor.String())
	opts.Observer = tel
	return redis.New(e.client, opts)
}

func (e *redisState) logStore(processor component.ID, tel *processorTelemetry) (*log.Store, error) {
	opts := e.cfg.logOptions(processor.String())
	opts.OnRetry = tel.retried
	driver, err := redis.NewLog(e.client, opts)
	if err != nil {
		return nil, err
	}
	st, err := log.New(driver, log.Options{
		Groups:         e.cfg.groups(),
		TTL:            e.cfg.RecordTTL,
		Timeout:        2 * e.cfg.Timeout, // the driver's own is shorter, and says more
		CommitInterval: e.cfg.CommitInterval,
		Observer: &logTelemetry{
			processorTelemetry: tel,
			conflicts:          conflicts{logger: e.logger, groups: e.cfg.groups(), now: time.Now},
		},
	})
	if err != nil {
		return nil, err
	}
	if err := tel.follow(st); err != nil {
		return nil, errors.Join(err, st.Close(context.Background()))
	}
	return st, nil
}

// probeInterval is between probes of a server that answers.
const probeInterval = 5 * time.Second
