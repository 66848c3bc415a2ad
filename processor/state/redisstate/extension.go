// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redisstate

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/extension"
	"go.uber.org/zap"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/streamid"
)

// redisState is the extension.
type redisState struct {
	cfg    *Config
	logger *zap.Logger
	tel    *telemetry

	mu     sync.Mutex
	server *server // while it is started
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

// clientLog has what go-redis has to say, of which the component's status and its errors say the part that matters, go to a
// logger instead of the process's standard error. The client has one logger for all its users: the first extension's.
type clientLog struct{ logger *zap.SugaredLogger }

func (l clientLog) Printf(_ context.Context, format string, v ...any) { l.logger.Debugf(format, v...) }

var setClientLog sync.Once

// Start does not wait for the server: until it is reached, batches are refused and the component's status says so.
func (e *redisState) Start(ctx context.Context, host component.Host) error {
	tlsConfig, plain, err := e.cfg.transport(ctx)
	if err != nil {
		return err
	}
	setClientLog.Do(func() { redis.SetLogger(clientLog{e.logger.Named("go-redis").Sugar()}) })
	if plain {
		e.logger.Warn("connections are not encrypted: whoever is on the way reads the counters and the password")
	}
	s := connect(e.cfg, tlsConfig, plain)
	e.mu.Lock()
	e.server = s
	e.mu.Unlock()
	ctx, e.cancel = context.WithCancel(context.WithoutCancel(ctx))
	e.watching.Go(func() { e.watch(ctx, s, host) })
	return nil
}

// Shutdown makes whatever is under way fail.
func (e *redisState) Shutdown(context.Context) error {
	e.mu.Lock()
	s := e.server
	e.server, e.closed = nil, true
	e.mu.Unlock()
	if s != nil {
		e.cancel()
		if err := s.close(); err != nil {
			// A server that has closed a connection before us, most of all one with TLS, makes an error of taking leave of it.
			e.logger.Debug("connections were not closed as they should be", zap.Error(err))
		}
		e.watching.Wait()
	}
	e.tel.shutdown()
	return nil
}

// SharedStore returns the store of the processor: all processors of that ID that use the same servers and the same prefix
// share their state, in this Collector and in others. Each caller has a store of its own, for one goroutine at a time.
func (e *redisState) SharedStore(_ context.Context, processor component.ID) (d2c.SharedStore, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closed:
		return nil, errClosed
	case e.server == nil:
		return nil, errNotStarted
	}
	st := newStore(e.server, e.tel.store(processor), e.cfg, processor.String())
	st.failing = e.failing
	return st, nil
}

// How often watch looks: a server that answers, and one that does not, at first and at most.
const (
	probeInterval   = 5 * time.Second
	shortestBackoff = 100 * time.Millisecond
	longestBackoff  = 5 * time.Second
)

// watch keeps the component's status. It goes by probes alone: a batch that is refused makes it look.
func (e *redisState) watch(ctx context.Context, s *server, host component.Host) {
	p := newProbe(s, e.cfg)
	served, wrong, backoff := false, "", shortestBackoff
	for {
		err := p.run(ctx)
		if ctx.Err() != nil {
			return
		}
		wait, told := probeInterval, e.failing
		if err == nil {
			if !served || wrong != "" {
				e.logger.Info("shared state can be reached", zap.String("endpoint", s.name))
			}
			if wrong != "" {
				componentstatus.ReportStatus(host, componentstatus.NewEvent(componentstatus.StatusOK))
			}
			served, wrong, backoff = true, "", shortestBackoff
		} else {
			if why := reason(err); why != wrong {
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
	if credentials(err) {
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

// probe does what a batch does, with keys of its own: it writes, and in a Cluster it does so in every slot group.
type probe struct {
	store *store
	ops   []d2c.SwapOp
}

const (
	probeName = "_probe"
	probeTTL  = time.Minute
)

// probeRecord is not a record, but long enough to have a tag.
var probeRecord = []byte("-deltaring writes this to see whether it can")

func newProbe(s *server, cfg *Config) *probe {
	p := &probe{store: newStore(s, nil, cfg, probeName)}
	p.store.expiry = expiry{ttl: strconv.FormatInt(probeTTL.Milliseconds(), 10)}
	n := 1
	if s.cluster != nil {
		n = groups
	}
	p.ops = make([]d2c.SwapOp, n)
	return p
}

func (p *probe) run(ctx context.Context) error {
	tag, _ := d2c.RecordTag(probeRecord)
	for g := range p.ops {
		p.ops[g] = d2c.SwapOp{ID: streamid.ID{Hi: uint64(g) << (64 - groupBits)}, Base: tag, Record: probeRecord}
	}
	// There may be none, and others may be making one.
	for range 2 {
		if err := p.store.Swap(ctx, p.ops); err != nil {
			return err
		}
		for g := range p.ops {
			if op := &p.ops[g]; !op.Swapped {
				op.Base, _ = d2c.RecordTag(op.Current)
			}
		}
	}
	return nil
}
