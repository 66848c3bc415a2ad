// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package lanesconnector

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/exporter/exporterhelper"
	"go.uber.org/zap"
)

// shared is what lanes need of their connector.
type shared struct {
	tel     *telemetry
	logger  *zap.Logger
	waits   bool            // there are no queues: whoever gave data waits for what becomes of it
	onDisk  bool            // queues are
	giving  sync.RWMutex    // held for reading while data is put into lanes or queues
	closing context.Context // done when the connector is to stop
	end     context.CancelFunc
	aborted context.Context // done when it has no more time for that
	abort   context.CancelFunc
	waiting atomic.Int64 // items in lanes
	stuck   atomic.Int64 // lanes
	losses  atomic.Int64 // items, while the connector stops
}

func newShared(tel *telemetry, logger *zap.Logger, queue configoptional.Optional[exporterhelper.QueueBatchConfig]) *shared {
	s := &shared{tel: tel, logger: logger, waits: true}
	s.closing, s.end = context.WithCancel(context.Background())
	s.aborted, s.abort = context.WithCancel(context.Background())
	if queue.HasValue() {
		s.waits, s.onDisk = false, queue.Get().StorageID != nil
	}
	return s
}

func (s *shared) stopping() bool { return s.closing.Err() != nil }

// close returns when no more data comes in: lanes and queues that are shut down would take it, and nobody would send it.
func (s *shared) close() {
	s.end()
	s.giving.Lock()
	defer s.giving.Unlock()
}

// untilClosing returns a context that ends when the connector is to stop.
func (s *shared) untilClosing(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.closing, func() { cancel(errStopping) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

func (s *shared) sent(ctx context.Context, items int) { s.tel.items(ctx, items, s.tel.sent) }

func (s *shared) dropped(ctx context.Context, v verdicts) {
	s.tel.items(ctx, v.late, s.tel.late)
	s.tel.items(ctx, v.duplicate, s.tel.duplicate)
	s.tel.unguarded(ctx, v.unguarded)
}

func (s *shared) refused(ctx context.Context, items int, err error) {
	s.tel.items(ctx, items, s.tel.refused)
	s.tel.reason(ctx, items, err)
	s.logger.Error("data was refused for good, it is dropped", zap.Int("items", items), zap.Error(err))
}

// unsent counts items that were neither taken nor refused.
func (s *shared) unsent(ctx context.Context, items int, err error) {
	switch {
	case s.waits:
		s.tel.items(ctx, items, s.tel.returned)
	case s.onDisk && interrupted(err):
		// Stays in the queue.
	default:
		s.tel.items(ctx, items, s.tel.failed)
		if s.stopping() {
			s.losses.Add(int64(items))
		}
		s.logger.Error("data could not be sent, it is lost", zap.Int("items", items), zap.Error(err))
	}
}

// interrupted returns whether retries ended because of the shutdown. Queues on disk keep such data; exporterhelper has no
// exported way to ask. What the backend says is behind other words: it may be a Collector that stops.
func interrupted(err error) bool {
	return strings.HasPrefix(err.Error(), "interrupted due to shutdown")
}

// trouble takes note that another lane does not get rid of its data, or one less. What is logged is the first and the last.
func (s *shared) trouble(begins bool, err error) {
	if begins {
		if s.stuck.Add(1) == 1 {
			s.logger.Warn("data is not taken, it will be sent again", zap.Error(err))
		}
		return
	}
	if s.stuck.Add(-1) == 0 {
		s.logger.Info("all lanes get rid of their data again")
	}
}
