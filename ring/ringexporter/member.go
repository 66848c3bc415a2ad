// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v7"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/configretry"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/exporterhelper"
	"go.opentelemetry.io/collector/exporter/otlpexporter"
	"go.uber.org/zap"

	"github.com/deltaring/deltaring/internal/tenant"
)

// member is one of those that share the data: an OTLP connection and, unless it is disabled, a queue in front of it. The
// queue is exporterhelper's, but retries are made here, because a retry must end when the member leaves, without losing
// what it was about to send.
type member[B batch] struct {
	endpoint
	signal *signal[B]
	shared *shared[B]
	conn   *connection[B]
	queue  running[B] // zero if there is none
	outbox *outbox[B] // behind it, nil if each batch is a request
	retry  configretry.BackOffConfig
	count  memberTelemetry

	waits    bool          // for the result: what is in the queue is handed back if it cannot be sent
	left     chan struct{} // closed when the member is in the current view no more
	given    atomic.Bool   // up: the member left, or the Collector stops, and it did not answer since
	troubled atomic.Bool   // the last attempt failed
	spared   atomic.Bool   // it has failed for long enough, but is not to be ejected

	// The attempts since it answered last.
	trouble  sync.Mutex
	failures int
	since    time.Time // when the first of them began
	last     error
}

// shared is what members need of their exporter.
type shared[B batch] struct {
	closing chan struct{}                  // closed when the exporter is to stop: no more waiting
	reroute func(context.Context, B) error // past queues
	ejector *ejector[B]
	// requestBytes is the size up to which batches from a queue are sent together; zero if they are not.
	requestBytes int
	tenants      tenant.Keys // to be sent
	health       *health
	logger       *zap.Logger
	losses       *losses

	aborted context.Context // done when the exporter has no more time to stop
	abort   context.CancelFunc
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
	set.Logger = set.Logger.With(zap.String("member", e.Name))
	var err error
	if m.conn, err = dial(ctx, host, set, cfg, e, sh.tenants, sig); err != nil {
		return nil, fmt.Errorf("member %q: %w", e.Name, err)
	}
	queue := apartBy(append(slices.Clone(termKeys), sh.tenants...), cfg.QueueConfig)
	if !queue.HasValue() {
		return m, nil
	}
	m.waits = queue.Get().WaitForResult
	// No two components may have one ID: it labels the telemetry of queues.
	set.ID = component.NewIDWithName(set.ID.Type(), set.ID.Name()+"/"+e.Name)
	push := m.push
	if sh.requestBytes > 0 {
		m.outbox = newOutbox(m, sh.requestBytes)
		push = m.outbox.put
	}
	m.queue, err = sig.queue(ctx, set, &cfg, push,
		exporterhelper.WithTimeout(exporterhelper.TimeoutConfig{}), // that of the connection is for each attempt
		exporterhelper.WithQueue(queue))
	if err == nil {
		err = m.queue.Start(ctx, host)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("member %q: %w", e.Name, err), m.conn.close())
	}
	if m.outbox != nil {
		m.outbox.start()
	}
	return m, nil
}

// consume takes data over, or sends it at once if there is no queue.
func (m *member[B]) consume(ctx context.Context, data B) error {
	if m.queue.Component != nil {
		return m.queue.consume(ctx, data)
	}
	return m.send(ctx, data)
}

// send sends data once, past the queue.
func (m *member[B]) send(ctx context.Context, data B) error {
	if m.stopping() && m.given.Load() {
		return errGivenUp
	}
	items := m.signal.items(data)
	err := m.attempt(ctx, data, items)
	switch {
	case err == nil:
	case consumererror.IsPermanent(err):
		m.refused(ctx, items, err)
	case m.stopping():
		m.given.Store(true) // or all that is to go here would wait for its own timeout
	}
	return err // what is to be tried again is counted by deliver of the exporter
}

// push takes data from the queue until it is delivered or given up.
func (m *member[B]) push(ctx context.Context, data B) error {
	t := ticketOf(ctx)
	defer t.end()
	m.hold(t)
	return m.deliver(ctx, data)
}

// hold waits until a batch may go out.
func (m *member[B]) hold(t *ticket) {
	if t == nil || t.hold == nil {
		return
	}
	select {
	case <-t.hold:
	case <-m.shared.aborted.Done():
	}
}

// deliver sends data from the queue, and tries again until it succeeds, the member leaves or the retries are used up. What a
// member that left does not take goes to the owner by the current ring.
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
		if m.shared.aborted.Err() != nil {
			m.dropped(ctx, items)
			return errAborted
		}
		if !m.given.Load() {
			err = m.attempt(ctx, data, items)
			switch {
			case err == nil:
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
		if !m.retry.Enabled || m.stopping() ||
			m.retry.MaxElapsedTime > 0 && time.Since(began)+pause > m.retry.MaxElapsedTime {
			m.dropped(ctx, m.signal.items(data))
			return err
		}
		if !m.pause(ctx, pause, left) {
			m.dropped(ctx, m.signal.items(data))
			return context.Cause(ctx)
		}
	}
}

var (
	errGivenUp = errors.New("the member did not answer when last tried")
	errAborted = errors.New("no time is left to send data")
)

// pause waits until d has passed or the situation changes. It returns false if ctx is done.
func (m *member[B]) pause(ctx context.Context, d time.Duration, left bool) bool {
	leaves := m.left
	if left {
		leaves = nil // is known
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-leaves:
	case <-m.shared.closing:
	case <-m.shared.aborted.Done():
	case <-ctx.Done():
		return false
	}
	return true
}

// attempt sends data once, and counts what the member took.
func (m *member[B]) attempt(ctx context.Context, data B, items int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(m.shared.aborted, cancel)()
	began := time.Now()
	partial, err := m.conn.send(ctx, data)
	m.count.attempt(ctx, time.Since(began), err)
	if err == nil {
		m.taken(ctx, items, partial)
	}
	m.note(began, err)
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

// note keeps count of attempts without an answer.
func (m *member[B]) note(began time.Time, err error) {
	m.trouble.Lock()
	if answered(err) {
		m.failures, m.last = 0, nil
		m.trouble.Unlock()
		m.spared.Store(false)
		return
	}
	if m.failures == 0 {
		m.since = began
	}
	m.failures++
	m.last = err
	failures, since := m.failures, m.since
	m.trouble.Unlock()
	m.shared.ejector.failed(m, since, failures)
}

// failing returns how many attempts in a row had no answer, and when the first of them began.
func (m *member[B]) failing() (int, time.Time) {
	m.trouble.Lock()
	defer m.trouble.Unlock()
	return m.failures, m.since
}

func (m *member[B]) lastError() error {
	m.trouble.Lock()
	defer m.trouble.Unlock()
	return m.last
}

// failed counts items that are lost.
func (m *member[B]) failed(ctx context.Context, items int) {
	m.count.failed(ctx, items)
	m.shared.losses.add(m.Name, items)
}

// dropped counts items that the queue drops, unless it hands them back.
func (m *member[B]) dropped(ctx context.Context, items int) {
	if !m.waits {
		m.failed(ctx, items)
	}
}

// taken counts a request that the member took, except for what the member says it rejected. That must not be sent again.
func (m *member[B]) taken(ctx context.Context, items int, partial partialSuccess) {
	rejected := int(min(max(partial.rejected, 0), int64(items)))
	m.count.sent(ctx, items-rejected)
	switch {
	case rejected > 0:
		m.count.rejected(ctx, rejected, partial.message)
		m.shared.logger.Error("a member rejected a part of its data, which is lost",
			zap.String("member", m.Name), zap.Int("items", rejected), zap.String("reason", partial.message))
	case partial.message != "":
		m.shared.logger.Warn("a member took its data with a warning",
			zap.String("member", m.Name), zap.String("warning", partial.message))
	}
}

func (m *member[B]) refused(ctx context.Context, items int, err error) {
	m.count.refused(ctx, items)
	m.shared.logger.Error("a member refused data for good, it is dropped",
		zap.String("member", m.Name), zap.Int("items", items), zap.Error(err))
}

// leave says that the member is no longer in the current view.
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
	if m.outbox != nil {
		m.outbox.close()
	}
	err = errors.Join(err, m.conn.close())
	m.shared.health.report(m.Name+" at "+m.address, nil)
	return err
}

// requestedDelay returns how long the server asked to wait, or zero.
func requestedDelay(err error) time.Duration {
	return retryInfoOf(err).GetRetryDelay().AsDuration()
}
