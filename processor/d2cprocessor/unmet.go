// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2cprocessor

import (
	"context"
	"time"

	"go.uber.org/zap"
)

// unmet warns once of patterns of rules that no metric has matched: it may be that their writer meant another name.
type unmet struct{ ticker *sweeper }

// unmetAfter is how long metrics may take to come.
const unmetAfter = 10 * time.Minute

func (u *unmet) start(p *d2cProcessor) {
	told := false
	u.ticker = startSweeper(unmetAfter, func() {
		if patterns := p.conv.UnmetPatterns(); len(patterns) > 0 && !told {
			told = true
			p.logger.Warn("patterns in aggregate::metrics have matched no metric so far; names are as the producer sends them, with dots",
				zap.Strings("patterns", patterns), zap.Stringer("after", unmetAfter))
		}
	})
}

func (u *unmet) shutdown(ctx context.Context) error {
	if u.ticker == nil {
		return nil
	}
	return u.ticker.shutdown(ctx)
}
