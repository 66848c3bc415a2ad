// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package logstate

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/extension"
	"go.uber.org/zap"

	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/d2c/store/log"
	"github.com/deltaring/deltaring/processor/state/internal/storewatch"
)

// Backend is a store of one kind, to which an extension has connected. Its methods are called by several goroutines at a time.
type Backend interface {
	// Driver returns a driver of the logs of a name. Drivers of one name have the same logs.
	Driver(name string) (log.Driver, error)
	storewatch.Store // Reason is also that of a driver's error
	// Close is called when nothing is under way.
	Close() error
}

// Extension is what is common to extensions. Its methods SharedStore and RecordTTL are what the processor looks for.
type Extension struct {
	cfg    Config
	name   string // of its type, for errors
	place  string // the store, for the log
	logger *zap.Logger
	tel    *telemetry

	mu      sync.Mutex
	backend Backend // while it is started
	stores  []*log.Store
	closed  bool

	cancel   context.CancelFunc
	watching sync.WaitGroup
	failing  chan struct{} // tells watch of a commit that failed; has room for one
}

// New returns an Extension. place is what the log calls the store, and has no secret.
func New(set extension.Settings, cfg Config, place string, instruments Instruments) *Extension {
	return &Extension{
		cfg: cfg, name: set.ID.Type().String(), place: place, logger: set.Logger, tel: newTelemetry(set.ID, instruments),
		failing: make(chan struct{}, 1),
	}
}

// Run watches the store from now on; it does not wait for it: until it answers, batches are refused and the component's status says so.
// A store that answers is probed once in every interval, and after each commit that fails.
func (e *Extension) Run(ctx context.Context, host component.Host, b Backend, interval time.Duration) {
	e.mu.Lock()
	e.backend = b
	e.mu.Unlock()
	ctx, e.cancel = context.WithCancel(context.WithoutCancel(ctx))
	w := storewatch.Watch{
		Store: b, Logger: e.logger, Where: zap.String("store", e.place), Interval: interval, Timeout: e.cfg.Timeout, Failing: e.failing,
	}
	e.watching.Go(func() { w.Run(ctx, host) })
}

// Stop ends what is under way beside commits: the processors come to their end before extensions do, and have none any more.
func (e *Extension) Stop(ctx context.Context) error {
	e.mu.Lock()
	b, stores := e.backend, e.stores
	e.backend, e.stores, e.closed = nil, nil, true
	e.mu.Unlock()
	if b == nil {
		return nil
	}
	e.cancel()
	var errs []error
	for _, st := range stores {
		errs = append(errs, st.Close(ctx))
	}
	e.watching.Wait()
	return errors.Join(append(errs, b.Close())...)
}

// RecordTTL is how long records are kept that are not written, for processors to compare with what they remember.
func (e *Extension) RecordTTL() time.Duration { return e.cfg.RecordTTL }

// SharedStore returns the store of the processor: all processors of that ID that use the same logs share their state, in this
// Collector and in others. Each caller has a store of its own, for one goroutine at a time.
func (e *Extension) SharedStore(_ context.Context, processor component.ID) (store.Shared, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closed:
		return nil, fmt.Errorf("%s: the extension has been shut down", e.name)
	case e.backend == nil:
		return nil, fmt.Errorf("%s: the extension has not been started", e.name)
	}
	driver, err := e.backend.Driver(processor.String())
	if err != nil {
		return nil, err
	}
	st, err := log.New(driver, log.Options{
		Groups: e.cfg.Groups, TTL: e.cfg.RecordTTL, Timeout: e.cfg.Timeout, CommitInterval: e.cfg.CommitInterval,
		CommitPoints: commitPoints, Observer: e.tel.observer(processor, e.backend.Reason, e.failing),
	})
	if err != nil {
		return nil, err
	}
	e.stores = append(e.stores, st)
	return st, nil
}

// commitPoints is how many points a commit may have where there is a CommitInterval: so many that 100 000 points a second do not shorten it.
const commitPoints = 1 << 18
