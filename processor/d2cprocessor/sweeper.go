// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2cprocessor

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// sweeper calls a function periodically, on a goroutine of its own, until shut down.
type sweeper struct {
	stopOnce sync.Once
	stop     chan struct{} // closed by shutdown
	done     chan struct{} // closed when the goroutine has ended
}

func startSweeper(interval time.Duration, sweep func()) *sweeper {
	s := &sweeper{stop: make(chan struct{}), done: make(chan struct{})}
	go s.run(interval, sweep)
	return s
}

func (s *sweeper) run(interval time.Duration, sweep func()) {
	defer close(s.done)
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-ticker.C:
			sweep()
		}
	}
}

// shutdown waits until the goroutine has ended, or returns ctx's error if that comes first; it may be called again.
func (s *sweeper) shutdown(ctx context.Context) error {
	s.stopOnce.Do(func() { close(s.stop) })
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for work in the background to end: %w", ctx.Err())
	}
}
