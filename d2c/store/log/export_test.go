// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package log

import (
	"context"
	"sync"
	"time"
)

// Clock is one that tests set.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

func NewClock() *Clock { return &Clock{now: time.Unix(1_700_000_000, 0)} }

func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *Clock) Wait(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// NewAt is New by another clock.
func NewAt(driver Driver, opts Options, c *Clock) (*Store, error) { return open(driver, opts, c.Now) }

// Sweep does what is done now and then, and makes what snapshots are wanted then.
func (s *Store) Sweep(ctx context.Context) {
	s.maker.sweep()
	for {
		select {
		case l := <-s.maker.due:
			_ = s.maker.make(ctx, l)
			continue
		default:
		}
		return
	}
}
