// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redisstate

import (
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	conflictWindow = time.Minute
	// conflictShare is how many appends there are to a conflict, at most, where conflicts are frequent. A worker that takes groups over has
	// one for each, and at once.
	conflictShare  = 20
	conflictSilent = 10 * time.Minute
)

// conflicts warns where conflicts are frequent for two windows in a row: then it is no move of groups from one worker to another, but
// several write the same ones.
type conflicts struct {
	logger *zap.Logger
	groups int
	now    func() time.Time

	mu                sync.Mutex
	began             time.Time // the window
	appended, refused int       // in it
	before            bool      // they were frequent in the one before
	warned            time.Time
}

// add counts appends, and those of them that were refused because another was faster.
func (c *conflicts) add(appends, refused int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if c.began.IsZero() {
		c.began = now
	}
	if now.Sub(c.began) >= conflictWindow {
		frequent := c.refused > 0 && c.refused*conflictShare >= c.appended
		if frequent && c.before && (c.warned.IsZero() || now.Sub(c.warned) >= conflictSilent) {
			c.warned = now
			c.logger.Warn("several workers append to one log, which is right but slow: have gateways route each group of streams to one worker, "+
				"with routing_key streamID or aggregate and this number of groups in their exporter ring, and the seed and metadata_keys of the processor",
				zap.Int("groups", c.groups), zap.Int("appends", c.appended), zap.Int("conflicts", c.refused))
		}
		c.began, c.appended, c.refused, c.before = now, 0, 0, frequent
	}
	c.appended += appends
	c.refused += refused
}
