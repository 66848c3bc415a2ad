// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package storewatch keeps the status of an extension that has a store: by probes of the store alone, for a batch may be refused for
// reasons of its own.
package storewatch

import (
	"context"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.uber.org/zap"
)

// Store is a store that can be asked whether it could do its work. Its methods are called by one goroutine.
type Store interface {
	// Probe does what commits do, so that it fails where they would, and leaves state alone.
	Probe(ctx context.Context) error
	// Reason says why a probe failed, as something to count by.
	Reason(err error) string
	// Mistake reports whether an error is one of the configuration, if there was never a time without it: until it is put right,
	// waiting is of no use.
	Mistake(err error) bool
}

// Watch is how a store is watched.
type Watch struct {
	Store  Store
	Logger *zap.Logger
	Where  zap.Field // what the log says of where the store is, without secrets
	// Interval is the time between probes of a store that answers.
	Interval time.Duration
	// Timeout bounds a probe.
	Timeout time.Duration
	// Failing has an element when a batch was refused: then the store is probed at once.
	Failing <-chan struct{}
}

// How long Run waits after a store did not answer, at first and at most.
const (
	shortestBackoff = 100 * time.Millisecond
	longestBackoff  = 5 * time.Second
)

// Run reports the status of the extension to its host until ctx is done.
func (w *Watch) Run(ctx context.Context, host component.Host) {
	served, wrong, backoff := false, "", shortestBackoff
	for {
		within, cancel := context.WithTimeout(ctx, w.Timeout)
		err := w.Store.Probe(within)
		cancel()
		if ctx.Err() != nil {
			return
		}
		wait, told := w.Interval, w.Failing
		if err == nil {
			if !served || wrong != "" {
				w.Logger.Info("shared state can be reached", w.Where)
			}
			if wrong != "" {
				componentstatus.ReportStatus(host, componentstatus.NewEvent(componentstatus.StatusOK))
			}
			served, wrong, backoff = true, "", shortestBackoff
		} else {
			if why := w.Store.Reason(err); why != wrong {
				wrong = why
				w.report(host, err, served)
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

// report tells of what keeps batches from being stored. What has never been right is taken for a mistake in the configuration, though
// it is tried for as long as the extension runs.
func (w *Watch) report(host component.Host, err error, served bool) {
	if w.Store.Mistake(err) {
		w.Logger.Error("shared state refuses us; batches are refused until that is put right", zap.Error(err))
		if !served {
			componentstatus.ReportStatus(host, componentstatus.NewPermanentErrorEvent(err))
			return
		}
	} else {
		w.Logger.Warn("shared state cannot be reached or written; batches are refused until it can", zap.Error(err))
	}
	componentstatus.ReportStatus(host, componentstatus.NewRecoverableErrorEvent(err))
}
