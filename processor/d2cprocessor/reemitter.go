// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2cprocessor

import (
	"context"
	"sync"
	"time"

	"go.opentelemetry.io/collector/client"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/processor"
	"go.uber.org/zap"

	"github.com/deltaring/deltaring/d2c"
)

// reemitter gives quiet streams out again, on a goroutine of its own, and keeps the order with batches on their way. A sample of a
// stream must not pass another of it between the converter and the next component:
//
//   - A batch that has been converted may still be on its way to the next component. Its streams were counted after it came, so what
//     was counted since the oldest batch that has not returned came is left alone. A batch that hangs keeps only these waiting.
//   - What is given out again is handed over while no batch is converted (converting is locked), so that what a batch makes of the
//     same streams comes after it. That wait is bounded by timeout.
type reemitter struct {
	p          *d2cProcessor
	next       consumer.Metrics
	converting sync.RWMutex       // read by batches while they are converted
	ctx        context.Context    // until shutdown, as is
	cancel     context.CancelFunc // nil until started
	ticker     *sweeper           // nil until started
	interval   time.Duration
	timeout    time.Duration

	mu       sync.Mutex
	told     time.Time               // when an error was last logged
	onTheWay map[*time.Time]struct{} // when batches came that have not returned
}

func newReemitter(p *d2cProcessor, next consumer.Metrics) *reemitter {
	i := p.cfg.ReemitInterval
	return &reemitter{p: p, next: next, interval: i, timeout: min(i, maxHandover), onTheWay: map[*time.Time]struct{}{}}
}

const (
	// maxHandover bounds how long batches wait for what is given out again.
	maxHandover = 5 * time.Second
	// reemitErrors is how often it is logged that the next component refuses what is given out again.
	reemitErrors = time.Minute
)

// followed is a processor whose batches are known while they are on their way.
type followed struct {
	processor.Metrics
	r *reemitter
}

func (r *reemitter) following(m processor.Metrics) processor.Metrics { return followed{m, r} }

// ConsumeMetrics implements consumer.Metrics.
func (f followed) ConsumeMetrics(ctx context.Context, md pmetric.Metrics) error {
	came := time.Now()
	f.r.mu.Lock()
	f.r.onTheWay[&came] = struct{}{}
	f.r.mu.Unlock()
	defer func() {
		f.r.mu.Lock()
		delete(f.r.onTheWay, &came)
		f.r.mu.Unlock()
	}()
	return f.Metrics.ConsumeMetrics(ctx, md)
}

// oldest is when the oldest batch came that is on its way; zero if there is none.
func (r *reemitter) oldest() (t time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for came := range r.onTheWay {
		if t.IsZero() || came.Before(t) {
			t = *came
		}
	}
	return t
}

func (r *reemitter) start() {
	r.ctx, r.cancel = context.WithCancel(context.Background())
	// Four times an interval, so that it is kept within a fourth.
	r.ticker = startSweeper(max(r.interval/4, time.Second/4), func() { r.tick(r.ctx) })
}

func (r *reemitter) shutdown(ctx context.Context) error {
	if r.ticker == nil {
		return nil
	}
	r.cancel()
	return r.ticker.shutdown(ctx)
}

// tick gives out what is quiet. What the next component refuses is lost and comes again.
func (r *reemitter) tick(ctx context.Context) {
	_, err := r.p.conv.Reemit(ctx, r.hold, r.give)
	r.tell(ctx, err)
}

// markStale gives out marks of what is about to expire.
func (r *reemitter) markStale() {
	_, err := r.p.conv.MarkStale(r.ctx, r.hold, r.give)
	r.tell(r.ctx, err)
}

// tell logs an error, now and then.
func (r *reemitter) tell(ctx context.Context, err error) {
	if err == nil || ctx.Err() != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.told) >= reemitErrors {
		r.told = time.Now()
		r.p.logger.Warn("quiet streams could not be given out again; they are after the next reemit_interval", zap.Error(err))
	}
}

func (r *reemitter) give(ctx context.Context, md pmetric.Metrics) error {
	ctx, cancel := context.WithTimeout(ofTenant(ctx), r.timeout)
	defer cancel()
	return r.next.ConsumeMetrics(ctx, md)
}

// hold keeps batches waiting for one batch that is given out again.
func (r *reemitter) hold() (since time.Time, release func()) {
	r.converting.Lock()
	return r.oldest(), r.converting.Unlock
}

// ofTenant returns a context with the metadata by which the tenant is told apart, for what comes next to do so too.
func ofTenant(ctx context.Context) context.Context {
	keys := d2c.TenantOf(ctx)
	if keys == nil {
		return ctx
	}
	metadata := map[string][]string{}
	for _, k := range keys {
		metadata[k.Name] = k.Values
	}
	return client.NewContext(ctx, client.Info{Metadata: client.NewMetadata(metadata)})
}
