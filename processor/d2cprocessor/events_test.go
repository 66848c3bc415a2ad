// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2cprocessor

import (
	"errors"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/deltaring/deltaring/streamid"
)

func TestStartLogsTheEffectivePolicy(t *testing.T) {
	set, logs := observed(zapcore.InfoLevel)
	cfg := defaults()
	cfg.MetadataKeys = []string{"X-Tenant"}
	create(t, set, cfg, consumertest.NewNop())
	require.Equal(t, 1, logs.Len())
	assert.Equal(t, map[string]any{
		"state": "memory", "gap": "continue", "overlap": "add", "late_window": "5m0s",
		"max_streams": int64(10_000_000), "max_stale": "1h0m0s", "metadata_keys": []any{"x-tenant"},
	}, logs.All()[0].ContextMap())
}

func TestFullWarnsUntilThereIsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set, logs := observed(zapcore.InfoLevel)
		cfg := defaults()
		cfg.MaxStreams = 2
		cfg.MaxStale = 10 * time.Minute
		p := create(t, set, cfg, consumertest.NewNop())
		logs.TakeAll()
		consume := func(streams ...string) {
			var deltas []delta
			for _, stream := range streams {
				deltas = append(deltas, delta{stream, 0, 10, 1})
			}
			require.NoError(t, p.ConsumeMetrics(t.Context(), batch(deltas...)))
		}

		consume("a", "b")
		assert.Zero(t, logs.Len(), "full, but nothing was refused")
		consume("a", "b", "c", "d", "e")
		consume("c", "d")
		got := logs.TakeAll()
		require.Len(t, got, 1)
		assert.Equal(t, zapcore.WarnLevel, got[0].Level)
		assert.Contains(t, got[0].Message, "Raise max_streams, set a shorter max_stale")
		context := got[0].ContextMap()
		assert.Equal(t, int64(2), context["max_streams"])
		assert.Equal(t, int64(2), context["streams"])
		assert.Equal(t, uint64(3), context["points"])

		time.Sleep(5 * time.Minute) // several sweeps that find nothing
		consume("c")
		got = logs.TakeAll()
		require.Len(t, got, 1, "still full")
		assert.Equal(t, uint64(3), got[0].ContextMap()["points"])

		time.Sleep(10 * time.Minute)
		synctest.Wait()
		got = logs.TakeAll()
		require.Len(t, got, 1)
		assert.Equal(t, zapcore.InfoLevel, got[0].Level)
		assert.Contains(t, got[0].Message, "room")
		assert.Equal(t, map[string]any{"max_streams": int64(2), "streams": int64(0)}, got[0].ContextMap())

		consume("c", "d")
		assert.Zero(t, logs.Len())
		consume("e")
		got = logs.TakeAll()
		require.Len(t, got, 1, "the warning is armed again")
		assert.Equal(t, zapcore.WarnLevel, got[0].Level)
	})
}

func TestDropsAndRestartsAreLoggedPerBatchAtDebug(t *testing.T) {
	for _, level := range []zapcore.Level{zapcore.DebugLevel, zapcore.InfoLevel} {
		t.Run(fmt.Sprint(level), func(t *testing.T) {
			set, logs := observed(level)
			p := create(t, set, defaults(), consumertest.NewNop())
			logs.TakeAll()
			require.NoError(t, p.ConsumeMetrics(t.Context(), batch(
				delta{"a", 0, 10, math.MaxInt64}, delta{"b", 0, 10, 1}, delta{"c", 0, 10, -1}, delta{"d", 0, 10, -1},
			)))
			require.NoError(t, p.ConsumeMetrics(t.Context(), batch(delta{"b", 10, 20, 1}))) // nothing of note
			require.NoError(t, p.ConsumeMetrics(t.Context(), batch(delta{"a", 10, 20, 1}, delta{"b", 20, 30, 1})))
			got := logs.FilterMessage("points were dropped or streams restarted").All()
			if level > zapcore.DebugLevel {
				assert.Empty(t, got)
				return
			}
			require.Len(t, got, 2)
			assert.Equal(t, zapcore.DebugLevel, got[0].Level)
			assert.Equal(t, map[string]any{"dropped_negative": uint64(2)}, got[0].ContextMap())
			assert.Equal(t, map[string]any{"restart_overflow": uint64(1)}, got[1].ContextMap())
		})
	}
}

// Whoever has written into all of shared state must not fill the disk of the log, too.
func TestDamagedRecordsAreToldTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.InfoLevel)
		e := &events{logger: zap.New(core)}
		told := func() (records []int64) {
			for _, entry := range logs.TakeAll() {
				assert.Equal(t, zapcore.ErrorLevel, entry.Level)
				records = append(records, entry.ContextMap()["records"].(int64))
			}
			return records
		}
		for n := range 1000 {
			e.damaged(streamid.ID{Lo: uint64(n)}, errors.New("damaged"))
		}
		assert.Equal(t, []int64{1}, told())
		time.Sleep(damageInterval)
		e.damaged(streamid.ID{}, errors.New("damaged"))
		assert.Equal(t, []int64{1000}, told())
	})
}
