// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2cprocessor

import (
	"sync/atomic"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/deltaring/deltaring/d2c"
)

// events logs what happens to streams: once where a state changes, per batch at debug level, never per point.
type events struct {
	logger *zap.Logger
	limit  int         // max_streams
	full   atomic.Bool // points have been refused since there last was room for a new stream
}

// converted logs what stands out in the result of one batch.
func (e *events) converted(result *d2c.Result, conv *d2c.Converter) {
	if refused := result.Points[d2c.DroppedLimit]; refused > 0 && e.full.CompareAndSwap(false, true) {
		e.logger.Warn("max_streams is reached, points of new streams are dropped and counted from here on: "+
			"raise max_streams, set a shorter max_stale, or look for an attribute that has too many values",
			zap.Int("max_streams", e.limit),
			zap.Int("streams", conv.Len()),
			zap.Uint64("dropped", refused),
		)
	}
	if e.logger.Core().Enabled(zapcore.DebugLevel) {
		if fields := notable(result); len(fields) > 0 {
			e.logger.Debug("points were dropped or streams restarted", fields...)
		}
	}
}

// swept logs that streams have expired, and re-arms the warning about max_streams if that made room.
func (e *events) swept(expired, streams int) {
	if expired > 0 {
		e.logger.Debug("idle streams expired", zap.Int("expired", expired), zap.Int("streams", streams))
	}
	if streams < e.limit && e.full.CompareAndSwap(true, false) {
		e.logger.Info("there is room for new streams again",
			zap.Int("max_streams", e.limit),
			zap.Int("streams", streams),
		)
	}
}

// notable returns how many points had which outcome, for the outcomes an operator may want to know about.
func notable(result *d2c.Result) []zap.Field {
	var fields []zap.Field
	for o, n := range result.Points {
		if outcome := d2c.Outcome(o); n > 0 && (outcome.Dropped() || outcome.Restarted()) {
			fields = append(fields, zap.Uint64(outcome.String(), n))
		}
	}
	return fields
}
