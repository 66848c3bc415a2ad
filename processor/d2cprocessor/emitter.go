// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2cprocessor

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.uber.org/zap"
)

// emitter gives out totals whose rules have an interval. Of each interval one goroutine does, so that samples of a total are in order.
type emitter struct {
	p         *d2cProcessor
	next      consumer.Metrics
	intervals []time.Duration // each once
	tickers   []*sweeper      // none until started
	cancel    context.CancelFunc

	mu   sync.Mutex
	told time.Time // when an error was last logged
}

// newEmitter returns an emitter, or nil if no rule has an interval.
func newEmitter(p *d2cProcessor, next consumer.Metrics) *emitter {
	e := &emitter{p: p, next: next}
	for i := range p.cfg.Aggregate {
		if interval := p.cfg.Aggregate[i].Interval; interval > 0 && !slices.Contains(e.intervals, interval) {
			e.intervals = append(e.intervals, interval)
		}
	}
	if len(e.intervals) == 0 {
		return nil
	}
	return e
}

func (e *emitter) start() {
	var ctx context.Context
	ctx, e.cancel = context.WithCancel(context.Background())
	for _, interval := range e.intervals {
		e.tickers = append(e.tickers, startSweeper(interval, func() { e.tell(ctx, e.emit(ctx, interval)) }))
	}
}

// shutdown gives out everything once more: what was counted since the last time would else not be known to anybody.
func (e *emitter) shutdown(ctx context.Context) error {
	if len(e.tickers) == 0 {
		return nil
	}
	var errs []error
	e.cancel()
	for _, t := range e.tickers {
		errs = append(errs, t.shutdown(ctx))
	}
	if err := errors.Join(errs...); err != nil {
		return err // one of them is still at it
	}
	e.tickers = nil
	for _, interval := range e.intervals {
		if err := e.emit(ctx, interval); err != nil {
			e.p.logger.Error("totals could not be given out at shutdown: what was counted since they last were is missing from what comes next",
				zap.Stringer("interval", interval), zap.Error(err))
		}
	}
	return nil
}

func (e *emitter) emit(ctx context.Context, interval time.Duration) error {
	timeout := max(interval, maxHandover)
	_, err := e.p.conv.EmitTotals(ctx, interval, func(ctx context.Context, md pmetric.Metrics) error {
		ctx, cancel := context.WithTimeout(ofTenant(ctx), timeout)
		defer cancel()
		return e.next.ConsumeMetrics(ctx, md)
	})
	return err
}

// tell logs an error, now and then.
func (e *emitter) tell(ctx context.Context, err error) {
	if err == nil || ctx.Err() != nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if time.Since(e.told) >= reemitErrors {
		e.told = time.Now()
		e.p.logger.Warn("totals could not be given out; what they count is in their next samples", zap.Error(err))
	}
}
