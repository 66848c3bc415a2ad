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
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/extension"
	"go.uber.org/zap"

	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/d2c/store/redis"
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
	probe, err := redis.New(client, e.cfg.options("probe"))
	if err != nil {
		_ = client.Close()
		return err
	}
	e.mu.Lock()
	e.client = client
	e.mu.Unlock()
	ctx, e.cancel = context.WithCancel(context.WithoutCancel(ctx))
	e.watching.Go(func() { e.watch(ctx, probe, host) })
	return nil
}

// Shutdown makes whatever is under way fail.
func (e *redisState) Shutdown(context.Context) error {
	e.mu.Lock()
	client := e.client
	e.client, e.closed = nil, true
	e.mu.Unlock()
	if client != nil {
		e.cancel()
		if err := client.Close(); err != nil {
			// A server that has closed a connection before us, most of all one with TLS, makes an error of taking leave of it.
			e.logger.Debug("connections were not closed as they should be", zap.Error(err))
		}
		e.watching.Wait()
	}
	e.tel.shutdown()
	return nil
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
	opts := e.cfg.options(processor.String())
	opts.Observer = e.tel.observer(processor, e.failing)
	return redis.New(e.client, opts)
}

// How often watch looks: a server that answers, and one that does not, at first and at most.
const (
	probeInterval   = 5 * time.Second
	shortestBackoff = 100 * time.Millisecond
	longestBackoff  = 5 * time.Second
)

// watch keeps the component's status. It goes by probes alone: a batch that is refused makes it look.
func (e *redisState) watch(ctx context.Context, st *redis.Store, host component.Host) {
	served, wrong, backoff := false, redis.Reason(""), shortestBackoff
	for {
		err := st.Probe(ctx)
		if ctx.Err() != nil {
			return
		}
		wait, told := probeInterval, e.failing
		if err == nil {
			if !served || wrong != "" {
				e.logger.Info("shared state can be reached", zap.Strings("endpoints", e.cfg.endpoints()))
			}
			if wrong != "" {
				componentstatus.ReportStatus(host, componentstatus.NewEvent(componentstatus.StatusOK))
			}
			served, wrong, backoff = true, "", shortestBackoff
		} else {
			if why := redis.ReasonOf(err); why != wrong {
				wrong = why
				e.report(host, err, served)
			}
			wait, told = backoff, nil
			backoff = min(2*backoff, longestBackoff)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-told:
		}
		timer.Stop()
	}
}

// report tells of what keeps batches from being stored. Credentials that have never been right are taken for a mistake in
// the configuration, though they are tried for as long as the extension runs.
func (e *redisState) report(host component.Host, err error, served bool) {
	if redis.ReasonOf(err) == redis.Credentials {
		e.logger.Error("shared state refuses us; batches are refused until that is put right", zap.Error(err))
		if !served {
			componentstatus.ReportStatus(host, componentstatus.NewPermanentErrorEvent(err))
			return
		}
	} else {
		e.logger.Warn("shared state cannot be reached or written; batches are refused until it can", zap.Error(err))
	}
	componentstatus.ReportStatus(host, componentstatus.NewRecoverableErrorEvent(err))
}
