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
	"github.com/deltaring/deltaring/d2c/store/log"
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
	e.watching.Go(func() { e.watch(ctx, probe, host) })
	return nil
}

// prober is what tells whether a store could do its work.
type prober interface {
	Probe(ctx context.Context) error
}

func (e *redisState) prober(client goredis.UniversalClient) (prober, error) {
	if e.cfg.Layout == LayoutLog {
		return redis.NewLog(client, e.cfg.logOptions("probe"))
	}
	return redis.New(client, e.cfg.options("probe"))
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

// How often watch looks: a server that answers, and one that does not, at first and at most.
const (
	probeInterval   = 5 * time.Second
	shortestBackoff = 100 * time.Millisecond
	longestBackoff  = 5 * time.Second
)

// watch keeps the component's status. It goes by probes alone: a batch that is refused makes it look.
func (e *redisState) watch(ctx context.Context, st prober, host component.Host) {
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
