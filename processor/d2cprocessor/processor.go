// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2cprocessor

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/collector/client"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/processor"
	"go.opentelemetry.io/collector/processor/processorhelper"
	"go.uber.org/zap"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/internal/tenant"
	"github.com/deltaring/deltaring/internal/told"
)

// d2cProcessor is safe for concurrent calls of process; start and shutdown are called by the Collector, one at a time.
type d2cProcessor struct {
	id        component.ID
	cfg       Config
	external  bool           // state lives in a storage or shared-state extension
	tenants   tenant.Keys    // that tell them apart
	conv      *d2c.Converter // with state in storage, nil until started
	telemetry *telemetry
	events    *events
	notices   *notices
	logger    *zap.Logger
	sweeper   *sweeper // nil until started, and if streams are kept for ever

	reemitter *reemitter // nil unless quiet streams are given out again
	emitter   *emitter   // nil unless totals are given out by the clock
	unmet     unmet

	closeExtension func(context.Context) error // nil unless it is open
	missed         atomic.Uint64               // of Stats, as far as it was told
}

func newProcessor(set processor.Settings, cfg *Config) (*d2cProcessor, error) {
	tenants, err := tenant.ParseKeys(cfg.MetadataKeys)
	if err != nil {
		return nil, fmt.Errorf("metadata_keys::%w", err)
	}
	tel, err := newTelemetry(set)
	if err != nil {
		return nil, err
	}
	p := &d2cProcessor{
		id:        set.ID,
		cfg:       *cfg,
		external:  cfg.State.Storage != nil || cfg.State.Shared != nil,
		tenants:   tenants,
		telemetry: tel,
		events:    &events{logger: set.Logger, limit: cfg.MaxStreams},
		notices:   &notices{logger: set.Logger, limit: cfg.MaxStreams},
		logger:    set.Logger,
	}
	p.notices.streams = func() int { return p.conv.Len() }
	if !p.external {
		p.conv, err = d2c.New(p.converter())
	}
	return p, err
}

// converter is what the configuration says of the converter.
func (p *d2cProcessor) converter() d2c.Config {
	cfg := p.cfg.converter()
	cfg.OnNotice = p.notices.hear
	return cfg
}

// convert has no stream given out again meanwhile.
func (p *d2cProcessor) convert(ctx context.Context, md pmetric.Metrics) (d2c.Result, error) {
	if p.reemitter != nil {
		p.reemitter.converting.RLock()
		defer p.reemitter.converting.RUnlock()
	}
	return p.conv.Convert(ctx, md)
}

// process is the one path a batch takes.
func (p *d2cProcessor) process(ctx context.Context, md pmetric.Metrics) (pmetric.Metrics, error) {
	hadSome := md.ResourceMetrics().Len() > 0
	began := time.Time{}
	if p.external {
		began = time.Now()
	}
	if p.external || p.cfg.Gap == d2c.GapRestartIfMoved {
		ctx = routed(ctx)
	}
	if t := p.tenants.Of(ctx); t != nil {
		ctx = d2c.WithTenant(ctx, t...)
	} else if len(p.tenants) > 0 {
		p.events.nobodys()
	}
	result, err := p.convert(ctx, md)
	if err != nil {
		// Not permanent: whoever sent the batch is to try again. The batch has not changed.
		p.telemetry.recordRefused(ctx, md.DataPointCount())
		p.events.refused(err)
		if d2c.StoreError(err) {
			err = told.Sender(err, fmt.Sprintf("%s: the state of streams cannot be stored; send the data again", p.id))
		}
		return md, err
	}
	if result.Stored {
		// A batch without deltas says nothing of the store, nor one that was kept while the store fails.
		p.telemetry.recordCommit(ctx, time.Since(began))
		p.events.stored()
	}
	p.telemetry.record(ctx, &result)
	p.events.converted(&result)
	if hadSome && md.ResourceMetrics().Len() == 0 {
		// Every point was dropped. The next component is not called and the sender is not told to retry:
		// the same batch would fare no better.
		return md, processorhelper.ErrSkipProcessingData
	}
	return md, nil
}

func (p *d2cProcessor) start(ctx context.Context, host component.Host) error {
	if err := p.openState(ctx, host); err != nil {
		return err
	}
	p.warnOfCombinations()
	where := "memory"
	switch {
	case p.cfg.State.Storage != nil:
		where = p.cfg.State.Storage.String()
	case p.cfg.State.Shared != nil:
		where = p.cfg.State.Shared.String()
	}
	if err := p.telemetry.observe(p.conv, p.cfg.MaxStreams, len(p.cfg.Aggregate) > 0); err != nil {
		return err
	}
	if p.reemitter != nil {
		p.reemitter.start()
	}
	if p.emitter != nil {
		p.emitter.start()
	}
	if len(p.cfg.Aggregate) > 0 {
		p.unmet.start(p)
	}
	if p.cfg.MaxStale > 0 {
		p.sweeper = startSweeper(sweepInterval(p.cfg.MaxStale), p.sweep)
	}
	p.logger.Info("converting delta metrics to cumulative",
		zap.String("state", where),
		zap.Stringer("gap", p.cfg.Gap),
		zap.Stringer("overlap", p.cfg.Overlap),
		zap.Stringer("late_window", p.cfg.LateWindow),
		zap.Int("max_streams", p.cfg.MaxStreams),
		zap.Stringer("max_stale", p.cfg.MaxStale),
		zap.Strings("metadata_keys", p.tenants),
	)
	for i := range p.cfg.Aggregate {
		r := &p.cfg.Aggregate[i]
		p.logger.Info("adding up streams", zap.Int("rule", i), zap.Strings("metrics", r.Metrics), zap.Bool("keep_input", r.KeepInput), zap.Stringer("interval", r.Interval))
	}
	return nil
}

// shutdown stops and joins all goroutines. It may be called without start and more than once; ctx bounds the wait. What was
// acknowledged is stored; what is given out by the clock is given out once more.
func (p *d2cProcessor) shutdown(ctx context.Context) error {
	p.telemetry.shutdown()
	var err error
	if p.reemitter != nil {
		err = p.reemitter.shutdown(ctx)
	}
	if p.emitter != nil {
		err = errors.Join(err, p.emitter.shutdown(ctx))
	}
	err = errors.Join(err, p.unmet.shutdown(ctx))
	if p.sweeper != nil {
		err = errors.Join(err, p.sweeper.shutdown(ctx))
	}
	return errors.Join(err, p.closeState(ctx))
}

// sweep forgets idle streams.
func (p *d2cProcessor) sweep() {
	if p.cfg.StaleMarkers {
		p.reemitter.markStale()
	}
	expired := p.conv.Expire()
	p.telemetry.recordExpired(context.Background(), expired)
	p.events.swept(expired, p.conv.Len())
}

// routed returns a context that tells the converter what a gateway has said of the batch's route. What makes no sense was not
// said: no sender can have its batches refused by that.
func routed(ctx context.Context) context.Context {
	md := client.FromContext(ctx).Metadata
	members := md.Get(tenant.MemberKey)
	epoch, ok := parseEpoch(only(md.Get(tenant.EpochKey)))
	if !ok || len(members) != 1 {
		return ctx
	}
	route := d2c.Route{Epoch: epoch, Member: members[0]}
	route.Since, _ = parseSince(only(md.Get(tenant.SinceKey)))
	previous, since, _ := strings.Cut(only(md.Get(tenant.PreviousKey)), "@")
	if epoch, ok := parseEpoch(previous); ok {
		if began, ok := parseSince(since); ok {
			route.Previous, route.PreviousSince = epoch, began
		}
	}
	return d2c.WithRoute(ctx, route)
}

// only returns a value that is alone, and "" otherwise.
func only(values []string) string {
	if len(values) != 1 {
		return ""
	}
	return values[0]
}

func parseEpoch(s string) (epoch uint64, ok bool) {
	epoch, err := strconv.ParseUint(s, 16, 64)
	return epoch, err == nil
}

func parseSince(s string) (began time.Time, ok bool) {
	ms, err := strconv.ParseInt(s, 10, 64)
	if err != nil || ms <= 0 {
		return time.Time{}, false
	}
	return time.UnixMilli(ms), true
}

// sweepInterval is a tenth of maxStale, so that a stream outlives it by no more than that, within bounds: a sweep visits
// every stream, and expiry has a resolution of one second anyway.
func sweepInterval(maxStale time.Duration) time.Duration {
	return min(max(maxStale/10, time.Second), time.Minute)
}
