// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v7"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/config/configretry"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/exporterhelper"
	"go.opentelemetry.io/collector/exporter/otlpexporter"
	"go.opentelemetry.io/otel/metric/noop"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"
)

// member is one of those who share the data: an OTLP exporter and, unless configured away, a queue in front of it. The
// queue is exporterhelper's, but retrying is done here, because a retry must end when the member leaves, and not lose
// what it was about to send.
type member[B batch] struct {
	endpoint
	signal *signal[B]
	shared *shared[B]
	otlp   running[B]
	queue  running[B] // zero if there is none
	retry  configretry.BackOffConfig
	count  memberTelemetry

	left     chan struct{} // closed when the member is in the current view no more
	given    atomic.Bool   // up: the member left, or the Collector stops, and it did not answer since
	troubled atomic.Bool   // the last attempt failed
}

// shared is what members need of their exporter.
type shared[B batch] struct {
	closing chan struct{} // closed when the exporter is to stop: no more waiting
	reroute func(context.Context, B) error
	health  *health
	logger  *zap.Logger
}

// startMember starts the exporter of a member. cfg is that of all members.
func startMember[B batch](
	ctx context.Context, host component.Host, set exporter.Settings, cfg otlpexporter.Config, e endpoint,
	sig *signal[B], sh *shared[B], tel *telemetry,
) (*member[B], error) {
	m := &member[B]{
		endpoint: e, signal: sig, shared: sh, retry: cfg.RetryConfig,
		count: tel.member(e.Name), left: make(chan struct{}),
	}
	queue := cfg.QueueConfig
	cfg.ClientConfig.Endpoint = e.address
	cfg.QueueConfig = configoptional.None[exporterhelper.QueueBatchConfig]()
	cfg.RetryConfig.Enabled = false

	set.Logger = set.Logger.With(zap.String("member", e.Name))
	// No two components may have one ID: it labels the telemetry of queues.
	name := set.ID.Name() + "/" + e.Name
	own := set
	own.ID = component.NewIDWithName(set.ID.Type(), name)
	own.TelemetrySettings.Logger = set.Logger
	inner := own
	inner.ID = component.NewIDWithName(otlpexporter.NewFactory().Type(), set.ID.String()+"/"+e.Name)
	inner.Logger = set.Logger.WithOptions(zap.WrapCore(func(c zapcore.Core) zapcore.Core { return reportedCore{c} }))
	inner.MeterProvider = noop.NewMeterProvider() // would count everything once more

	var err error
	if m.otlp, err = sig.otlp(ctx, inner, &cfg); err != nil {
		return nil, fmt.Errorf("member %q: %w", e.Name, err)
	}
	if err = m.otlp.Start(ctx, host); err != nil {
		return nil, errors.Join(fmt.Errorf("member %q: %w", e.Name, err), m.otlp.Shutdown(ctx))
	}
	if !queue.HasValue() {
		return m, nil
	}
	m.queue, err = sig.queue(ctx, own, &cfg, m.deliver,
		exporterhelper.WithTimeout(exporterhelper.TimeoutConfig{}), // the OTLP exporter's is for each attempt
		exporterhelper.WithQueue(queue))
	if err == nil {
		err = m.queue.Start(ctx, host)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("member %q: %w", e.Name, err), m.otlp.Shutdown(ctx))
	}
	return m, nil
}

// consume takes data over, or sends it at once if there is no queue.
func (m *member[B]) consume(ctx context.Context, data B) error {
	if m.queue.Component != nil {
		return m.queue.consume(ctx, data)
	}
	items := m.signal.items(data)
	err := m.attempt(ctx, data)
	switch {
	case err == nil:
		m.count.sent(ctx, items)
	case consumererror.IsPermanent(err):
		m.refused(ctx, items, err)
	default:
		m.count.failed(ctx, items)
	}
	return err
}

// deliver sends data from the queue, and tries until it succeeds, the member leaves or retries are used up. What a member
// that left does not take goes to the owner by the current ring.
func (m *member[B]) deliver(ctx context.Context, data B) error {
	wait := backoff.ExponentialBackOff{
		InitialInterval:     m.retry.InitialInterval,
		RandomizationFactor: m.retry.RandomizationFactor,
		Multiplier:          m.retry.Multiplier,
		MaxInterval:         m.retry.MaxInterval,
	}
	began := time.Now()
	err := errGivenUp
	for {
		items := m.signal.items(data)
		if !m.given.Load() {
			err = m.attempt(ctx, data)
			switch {
			case err == nil:
				m.count.sent(ctx, items)
				return nil
			case consumererror.IsPermanent(err):
				m.refused(ctx, items, err)
				return err
			}
		}
		left := m.hasLeft()
		if left || m.stopping() {
			m.given.Store(true) // or each batch in the queue would wait for its own timeout
		}
		if left {
			if err = m.shared.reroute(ctx, data); err == nil {
				m.count.rerouted(ctx, items)
				return nil
			}
			if consumererror.IsPermanent(err) {
				m.count.rerouted(ctx, items) // and refused there
				return err
			}
			if rest, ok := m.signal.rest(err); ok {
				data = rest
				m.count.rerouted(ctx, items-m.signal.items(data))
			}
		}
		pause := max(wait.NextBackOff(), requestedDelay(err))
		if left && m.stopping() {
			// Queues of others are full. They do not stay so: whoever does not answer now gives up what it has.
			pause = min(pause, maxPauseStopping)
		}
		if !m.retry.Enabled || m.stopping() && !left ||
			m.retry.MaxElapsedTime > 0 && time.Since(began)+pause > m.retry.MaxElapsedTime {
			m.count.failed(ctx, m.signal.items(data))
			return err
		}
		if !m.pause(ctx, pause, left) {
			m.count.failed(ctx, m.signal.items(data))
			return context.Cause(ctx)
		}
	}
}

// maxPauseStopping is how long to wait for room in other queues while the Collector stops.
const maxPauseStopping = 50 * time.Millisecond

var errGivenUp = errors.New("the member did not answer when last tried")

// pause waits until d has passed or the situation changes. It returns false if ctx is done.
func (m *member[B]) pause(ctx context.Context, d time.Duration, left bool) bool {
	leaves, closing := m.left, m.shared.closing
	if left {
		leaves = nil // is known
	}
	if m.stopping() {
		closing = nil // is known
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-leaves:
	case <-closing:
	case <-ctx.Done():
		return false
	}
	return true
}

// attempt sends data once.
func (m *member[B]) attempt(ctx context.Context, data B) error {
	began := time.Now()
	err := m.otlp.consume(ctx, data)
	m.count.attempt(ctx, time.Since(began), err)
	// A refusal is an answer.
	if trouble := err != nil && !consumererror.IsPermanent(err); trouble != m.troubled.Load() && m.troubled.CompareAndSwap(!trouble, trouble) {
		if trouble {
			m.shared.logger.Warn("a member does not take its data", zap.String("member", m.Name), zap.Error(err))
			m.shared.health.report(m.Name+" at "+m.address, fmt.Errorf("member %q: %w", m.Name, err))
		} else {
			m.shared.logger.Info("the member takes its data again", zap.String("member", m.Name))
			m.shared.health.report(m.Name+" at "+m.address, nil)
		}
	}
	return err
}

func (m *member[B]) refused(ctx context.Context, items int, err error) {
	m.count.refused(ctx, items)
	m.shared.logger.Error("a member refused data for good, it is dropped",
		zap.String("member", m.Name), zap.Int("items", items), zap.Error(err))
}

// leave says that the member is in the current view no more.
func (m *member[B]) leave() { close(m.left) }

func (m *member[B]) hasLeft() bool { return isClosed(m.left) }

func (m *member[B]) stopping() bool { return isClosed(m.shared.closing) }

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// shutdown returns when the queue is empty and everything has stopped.
func (m *member[B]) shutdown(ctx context.Context) error {
	var err error
	if m.queue.Component != nil {
		err = m.queue.Shutdown(ctx)
	}
	err = errors.Join(err, m.otlp.Shutdown(ctx))
	m.shared.health.report(m.Name+" at "+m.address, nil)
	return err
}

// requestedDelay returns how long the server asked to wait, or zero.
func requestedDelay(err error) time.Duration {
	if s, ok := status.FromError(err); ok {
		for _, detail := range s.Details() {
			if info, ok := detail.(*errdetails.RetryInfo); ok {
				return info.GetRetryDelay().AsDuration()
			}
		}
	}
	return 0
}

// reportedCore keeps exporterhelper from logging each failed attempt with advice that is wrong here: to enable the queue
// and the retries that the member has in front of it.
type reportedCore struct{ zapcore.Core }

func (c reportedCore) With(fields []zapcore.Field) zapcore.Core {
	return reportedCore{c.Core.With(fields)}
}

func (c reportedCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if e.Level == zapcore.ErrorLevel {
		return ce
	}
	return c.Core.Check(e, ce)
}
