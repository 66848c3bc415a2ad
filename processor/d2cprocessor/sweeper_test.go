// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2cprocessor

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestSweeperSweepsAtItsInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var sweeps []time.Duration
		s := startSweeper(time.Minute, func() { sweeps = append(sweeps, time.Since(begin)) })
		time.Sleep(150 * time.Second)
		assert.NoError(t, s.shutdown(t.Context()))
		time.Sleep(time.Hour)
		assert.Equal(t, []time.Duration{time.Minute, 2 * time.Minute}, sweeps)
	})
}

func TestSweeperShutdownWaitsForTheSweepUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := startSweeper(time.Minute, func() { <-release })
		time.Sleep(time.Minute)
		synctest.Wait() // the sweep is under way

		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		begin := time.Now()
		assert.ErrorIs(t, s.shutdown(ctx), context.DeadlineExceeded)
		assert.Equal(t, 5*time.Second, time.Since(begin))

		joined := make(chan error)
		go func() { joined <- s.shutdown(t.Context()) }()
		synctest.Wait()
		select {
		case <-joined:
			t.Error("shutdown returned before the sweep had ended")
		default:
		}
		close(release)
		assert.NoError(t, <-joined)
	})
}
