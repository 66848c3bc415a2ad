// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package log

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// maker makes snapshots in parallel to the calls of a Store, and drops the records of idle logs.
type maker struct {
	s      *Store
	due    chan *replica // holds each log at most once
	cancel context.CancelFunc
	ended  sync.WaitGroup
}

const (
	makers = 2 // snapshots made at a time
	// After a failure a snapshot is tried again after a second, then after twice as long each time, up to a minute.
	firstPause, lastPause = time.Second, time.Minute
	compactTimeouts       = 6
	// Once one in expiredParts of the records has expired, the log is rewritten without them.
	expiredParts = 4
)

func (m *maker) begin(s *Store) {
	m.s, m.due = s, make(chan *replica, len(s.replicas))
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	for range makers {
		m.ended.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case l := <-m.due:
					_ = m.make(ctx, l) // it is tried again
				}
			}
		})
	}
	m.ended.Go(func() {
		tick := time.NewTicker(min(max(s.opts.Idle/4, time.Second), time.Minute))
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				m.sweep()
			}
		}
	})
}

func (m *maker) stop() { m.cancel() }
func (m *maker) wait() { m.ended.Wait() }

// consider requests a snapshot if it is time. The caller holds the log's mu.
func (m *maker) consider(l *replica) {
	if !l.due && l.grown() && !m.s.now().Before(l.notBefore) {
		m.want(l)
	}
}

func (m *maker) want(l *replica) {
	l.due = true
	m.due <- l // there is room for all
}

// make makes a snapshot and stores it.
func (m *maker) make(ctx context.Context, l *replica) error {
	s := m.s
	l.mu.Lock()
	l.due = false
	dropped := l.records == nil
	if dropped && !m.reload(ctx, l) || l.life.ID == 0 {
		l.mu.Unlock()
		return nil
	}
	at, tail, made := l.end, l.tail, l.made
	state := l.state(s.seconds(), s.oldest())
	l.looked = s.now()
	if dropped {
		l.drop()
	}
	l.due = true // no second one meanwhile
	l.mu.Unlock()

	state = appendChecksum(state, 0, at.ID)
	timed, cancel := context.WithTimeout(ctx, compactTimeouts*s.opts.Timeout)
	defer cancel()
	started := time.Now()
	err := s.driver.Compact(timed, l.number, at, state)
	if ctx.Err() == nil {
		s.observe(ctx, Call{Method: MethodCompact, Logs: 1, Bytes: len(state), Took: time.Since(started), Err: err})
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	l.due = false
	if err != nil {
		l.notBefore = s.now().Add(min(firstPause<<min(l.failed, 10), lastPause))
		l.failed++
		return err
	}
	l.failed = 0
	if made == l.made { // no newer snapshot was read meanwhile
		l.tail -= tail
		l.snapshot = len(state)
		l.made++
	}
	return nil
}

// reload reads the records of a log that was dropped when idle, so that expired ones can be left out, and reports whether nobody else has
// appended. The caller holds the log's mu.
func (m *maker) reload(ctx context.Context, l *replica) bool {
	l.vacant = time.Time{}
	known := l.end
	if err := m.s.readOn(ctx, l); err != nil {
		return false
	}
	if l.end != known {
		l.drop()
		return false
	}
	return true
}

// oldest is the time before which records have expired.
func (s *Store) oldest() uint32 {
	if s.opts.TTL == 0 {
		return 0
	}
	return uint32(max(s.now().Add(-s.opts.TTL).Unix(), 0))
}

// sweep looks after all logs that no call is using.
func (m *maker) sweep() {
	s, now := m.s, m.s.now()
	for _, l := range s.replicas {
		if !l.mu.TryLock() {
			continue
		}
		switch ttl := s.opts.TTL; {
		case l.due:
		case l.records == nil:
			if !l.vacant.IsZero() && now.After(l.vacant) {
				m.want(l)
			}
		case now.Sub(l.touched) >= s.opts.Idle:
			if ttl > 0 && l.records.n > 0 {
				l.vacant = now.Add(ttl + time.Second)
			}
			l.drop()
		case ttl > 0 && now.Sub(l.looked) > ttl/expiredParts && !now.Before(l.notBefore):
			l.looked = now
			if n := l.expired(s.oldest()); n > 0 && n >= l.records.n/expiredParts {
				m.want(l)
			}
		default:
			m.consider(l)
		}
		l.mu.Unlock()
	}
}

// Compact makes a snapshot of each log that is in memory and has entries since its last one, so that the next owner has less
// to read. Call it before shutting down; a Store in use makes snapshots itself. It may be called concurrently with other
// methods.
func (s *Store) Compact(ctx context.Context) error {
	for _, l := range s.replicas {
		l.mu.Lock()
		wanted := l.records != nil && l.tail > 0 && !l.due
		l.mu.Unlock()
		if !wanted {
			continue
		}
		if err := s.maker.make(ctx, l); err != nil {
			return fmt.Errorf("log: compact: log %d: %w", l.number, err)
		}
	}
	return nil
}
