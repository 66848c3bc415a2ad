// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2cprocessor

import (
	"fmt"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.uber.org/zap"

	"github.com/deltaring/deltaring/d2c"
)

// What is wrong only together with something else, as far as Validate, which sees this configuration alone, cannot tell.

// outlived reports an error if the worker remembers streams for longer than shared state does: each of those would restart, and
// be told as lost.
func (p *d2cProcessor) outlived(ext component.Component) error {
	forgets, ok := ext.(interface{ RecordTTL() time.Duration })
	if !ok || p.cfg.State.Shared == nil {
		return nil
	}
	ttl, stale := forgets.RecordTTL(), p.cfg.MaxStale
	switch {
	case ttl == 0 || stale > 0 && stale <= ttl:
		return nil
	case stale == 0:
		return fmt.Errorf("max_stale: 0 keeps streams for ever, and %q forgets them after record_ttl %v: set max_stale to no more than that", p.cfg.State.Shared, ttl)
	}
	return fmt.Errorf("max_stale: %v is above record_ttl %v of %q: streams that are idle for longer would restart as lost", stale, ttl, p.cfg.State.Shared)
}

// warnOfCombinations logs what works, and not as who wrote it may think.
func (p *d2cProcessor) warnOfCombinations() {
	if p.cfg.MaxStale > 0 && p.cfg.MaxStale < p.cfg.LateWindow {
		p.logger.Warn("max_stale is shorter than late_window: a delta that is sent again after its stream was forgotten counts again; "+
			"set max_stale to late_window at least", zap.Stringer("max_stale", p.cfg.MaxStale), zap.Stringer("late_window", p.cfg.LateWindow))
	}
	if p.cfg.Gap == d2c.GapRestart && p.cfg.State.Shared != nil {
		p.logger.Warn("gap: restart is of no use with state::shared, which knows what other workers have counted, " +
			"and restarts every stream whose producer was quiet for an interval: leave it at continue")
	}
}
