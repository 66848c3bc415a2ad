// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2cprocessor

import (
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/streamid"
)

// events logs what happens to streams: once where a state changes, per batch at debug level, never per point. What drops points is
// told by notices.
type events struct {
	logger *zap.Logger
	limit  int         // max_streams
	full   atomic.Bool // points have been refused since there last was room for a new stream
	nobody atomic.Bool // a batch had none of metadata_keys

	damage struct {
		sync.Mutex
		untold int       // records set aside since
		told   time.Time // that there were some
	}

	host    component.Host // whom to tell that state cannot be stored
	mu      sync.Mutex
	failing atomic.Bool // the latest batch could not be stored
	// What has been logged of that.
	refusing, keeping bool
}

// refused logs and reports that a batch could not be stored, once until one can be again. What is about the one batch is not
// told: its caller's patience, a stream of it that cannot be stored, or the end.
func (e *events) refused(err error) {
	if d2c.StoreError(err) {
		e.notStored(&e.refusing, "state cannot be stored, batches are refused and may be sent again", err)
	}
}

// outage logs and reports that batches are given out though they cannot be stored, and with nil that they are stored now.
func (e *events) outage(err error) {
	if err == nil {
		e.stored()
		return
	}
	e.notStored(&e.keeping, "state cannot be stored, batches are given out and kept back for it", err)
}

func (e *events) notStored(told *bool, message string, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if *told {
		return
	}
	*told = true
	e.logger.Error(message, zap.Error(err))
	if !e.failing.Swap(true) {
		componentstatus.ReportStatus(e.host, componentstatus.NewRecoverableErrorEvent(err))
	}
}

// stored logs and reports that batches can be stored again.
func (e *events) stored() {
	if !e.failing.Load() {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.failing.Swap(false) {
		e.refusing, e.keeping = false, false
		e.logger.Info("state can be stored again")
		componentstatus.ReportStatus(e.host, componentstatus.NewEvent(componentstatus.StatusOK))
	}
}

// damageInterval is how often damaged records are told of: somebody who writes into shared state may do so to all of them.
const damageInterval = 10 * time.Second

// damaged logs that the record of a stream in shared state could not be read: one for all within an interval.
func (e *events) damaged(id streamid.ID, err error) {
	d := &e.damage
	d.Lock()
	defer d.Unlock()
	d.untold++
	if time.Since(d.told) < damageInterval {
		return
	}
	e.logger.Error("records in shared state could not be read and are set aside; their streams go on from what this worker knows, or begin anew",
		zap.Int("records", d.untold), zap.Stringer("stream", id), zap.Error(err))
	d.untold, d.told = 0, time.Now()
}

// checkpoints logs that checkpoints fail, or with nil that they work again.
func (e *events) checkpoints(err error) {
	if err != nil {
		e.logger.Warn("checkpoints cannot be stored, the journal grows meanwhile", zap.Error(err))
	} else {
		e.logger.Info("checkpoints can be stored again")
	}
}

// converted logs what stands out in the result of one batch.
func (e *events) converted(result *d2c.Result) {
	if result.Count(d2c.DroppedLimit) > 0 {
		e.full.Store(true)
	}
	if e.logger.Core().Enabled(zapcore.DebugLevel) {
		if fields := notable(result); len(fields) > 0 {
			e.logger.Debug("points were dropped or streams restarted", fields...)
		}
	}
}

// nobodys logs that a batch had none of metadata_keys, once: where receivers do not hand them on, all tenants are added up together,
// and nothing else would tell.
func (e *events) nobodys() {
	if !e.nobody.Load() && !e.nobody.Swap(true) {
		e.logger.Warn("a batch has none of metadata_keys, so its streams are those of nobody in particular, with all others of that kind: " +
			"if it has a tenant, set include_metadata in the receiver, and metadata_keys in whatever collects batches on the way")
	}
}

// swept logs that streams have expired, and that there is room again if there was none.
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
	for outcome, n := range result.Counts() {
		if outcome.Dropped() || outcome.Restarted() {
			fields = append(fields, zap.Uint64(outcome.String(), n))
		}
	}
	return fields
}
