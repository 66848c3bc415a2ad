// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2cprocessor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/client"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.uber.org/zap/zapcore"
)

// arrivals notes what comes, and may have it wait or refuse it.
type arrivals struct {
	mu   sync.Mutex
	got  []string
	gate func(md pmetric.Metrics) error
}

func (a *arrivals) consumer(t *testing.T) consumer.Metrics {
	next, err := consumer.NewMetrics(func(ctx context.Context, md pmetric.Metrics) error {
		if a.gate != nil {
			if err := a.gate(md); err != nil {
				return err
			}
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, s := range samples(t, md) {
			who := ""
			if tenant := client.FromContext(ctx).Metadata.Get("x-tenant"); len(tenant) > 0 {
				who = tenant[0] + " "
			}
			a.got = append(a.got, fmt.Sprintf("%s%s %d at %v", who, s.stream, s.value, time.Duration(s.end)-time.Duration(epoch())))
		}
		return nil
	})
	require.NoError(t, err)
	return next
}

// take returns what has come since the last call.
func (a *arrivals) take() (got []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	got, a.got = a.got, nil
	return got
}

// epoch is when the clock of a bubble begins.
func epoch() int64 { return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano() }

// counted is a delta that ends now, of a second.
func counted(stream string, value int64) pmetric.Metrics {
	md := batch(delta{stream, 0, 1, value})
	dp := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints().At(0)
	dp.SetTimestamp(pcommon.NewTimestampFromTime(time.Now()))
	dp.SetStartTimestamp(pcommon.NewTimestampFromTime(time.Now().Add(-time.Second)))
	return md
}

func reemitting() *Config {
	cfg := defaults()
	cfg.ReemitInterval = 10 * time.Second
	return cfg
}

func TestQuietStreamsAreGivenOutAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := new(arrivals)
		cfg := reemitting()
		cfg.EmitZero = true
		p := create(t, nop(), cfg, a.consumer(t))
		time.Sleep(5 * time.Second)
		require.NoError(t, p.ConsumeMetrics(t.Context(), counted("a", 5)))
		assert.Equal(t, []string{"a 0 at 4s", "a 5 at 5s"}, a.take())
		time.Sleep(24 * time.Second)
		assert.Equal(t, []string{"a 5 at 15s", "a 5 at 25s"}, a.take())
		require.NoError(t, p.ConsumeMetrics(t.Context(), counted("a", 5)))
		assert.Equal(t, []string{"a 10 at 29s"}, a.take())
		time.Sleep(time.Second)
		assert.Empty(t, a.take())
	})
}

// A batch that hangs on its way to the next component keeps its streams from being given out again, and no others.
func TestReemissionDoesNotPassBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		a := &arrivals{}
		a.gate = func(md pmetric.Metrics) error {
			if s := samples(t, md); s[0].stream == "slow" && s[0].end == s[0].start+1e9 {
				<-release
			}
			return nil
		}
		p := create(t, nop(), reemitting(), a.consumer(t))
		time.Sleep(time.Second)
		require.NoError(t, p.ConsumeMetrics(t.Context(), counted("quiet", 5)))
		time.Sleep(5 * time.Second)
		done := make(chan error)
		go func() { done <- p.ConsumeMetrics(t.Context(), counted("slow", 7)) }()
		time.Sleep(24*time.Second + 100*time.Millisecond)                      // not when it is looked for what to give out again
		require.NoError(t, p.ConsumeMetrics(t.Context(), counted("other", 1))) // is not held up
		assert.Equal(t, []string{"quiet 5 at 1s", "quiet 5 at 12.5s", "quiet 5 at 22.5s", "other 1 at 30.1s"}, a.take())
		close(release)
		require.NoError(t, <-done)
		time.Sleep(3 * time.Second)
		assert.ElementsMatch(t, []string{"slow 7 at 6s", "slow 7 at 32.5s", "quiet 5 at 32.5s"}, a.take())
	})
}

// While something is given out again, nothing that is converted later passes it. (Not in a bubble, in which nobody waits for a mutex.)
func TestBatchesDoNotPassReemission(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	a := &arrivals{}
	a.gate = func(md pmetric.Metrics) error {
		if s := samples(t, md); s[0].end > s[0].start+1e9 && s[0].value == 5 {
			close(arrived)
			<-release
		}
		return nil
	}
	cfg := reemitting()
	cfg.ReemitInterval = 2 * time.Second
	p := create(t, nop(), cfg, a.consumer(t))
	require.NoError(t, p.ConsumeMetrics(t.Context(), counted("a", 5)))
	<-arrived
	done := make(chan error)
	go func() { done <- p.ConsumeMetrics(t.Context(), counted("a", 1)) }()
	time.Sleep(50 * time.Millisecond)
	assert.Len(t, a.take(), 1)
	close(release)
	require.NoError(t, <-done)
	got := a.take()
	require.Len(t, got, 2)
	assert.Contains(t, got[0], "a 5 at ")
	assert.Contains(t, got[1], "a 6 at ")
}

// An error of the next component is logged, seldom, and the sample comes again.
func TestReemissionIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &arrivals{}
		var refuse atomic.Bool
		a.gate = func(pmetric.Metrics) error {
			if refuse.Load() {
				return errors.New("no")
			}
			return nil
		}
		set, logs := observed(zapcore.WarnLevel)
		p := create(t, set, reemitting(), a.consumer(t))
		require.NoError(t, p.ConsumeMetrics(t.Context(), counted("a", 5)))
		refuse.Store(true)
		time.Sleep(45 * time.Second)
		synctest.Wait()
		assert.Equal(t, 1, logs.Len())
		refuse.Store(false)
		a.take()
		time.Sleep(10 * time.Second)
		assert.Equal(t, []string{"a 5 at 50s"}, a.take())
	})
}

// A stream that expires ends with a marker.
func TestStaleMarkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []string
		next, err := consumer.NewMetrics(func(_ context.Context, md pmetric.Metrics) error {
			dp := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints().At(0)
			got = append(got, fmt.Sprint(dp.Flags().NoRecordedValue(), " ", time.Duration(dp.Timestamp())-time.Duration(epoch())))
			return nil
		})
		require.NoError(t, err)
		cfg := reemitting()
		cfg.MaxStale, cfg.StaleMarkers = 15*time.Second, true
		p := create(t, nop(), cfg, next)
		time.Sleep(time.Second)
		require.NoError(t, p.ConsumeMetrics(t.Context(), counted("a", 5)))
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.Equal(t, []string{"false 1s", "false 12.5s", "true 18s"}, got)

		cfg.ReemitInterval = 0
		require.ErrorContains(t, cfg.Validate(), "stale_markers: ")
	})
}

func TestReemissionOfTenants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &arrivals{}
		cfg := reemitting()
		cfg.MetadataKeys = []string{"x-tenant"}
		p := create(t, nop(), cfg, a.consumer(t))
		for i, tenant := range []string{"acme", "zoo"} {
			ctx := client.NewContext(t.Context(), client.Info{Metadata: client.NewMetadata(map[string][]string{"x-tenant": {tenant}})})
			require.NoError(t, p.ConsumeMetrics(ctx, counted("a", int64(1+i))))
		}
		a.take()
		time.Sleep(11 * time.Second)
		synctest.Wait()
		assert.ElementsMatch(t, []string{"acme a 1 at 10s", "zoo a 2 at 10s"}, a.take())
	})
}

func TestReemitIntervalIsChecked(t *testing.T) {
	cfg := reemitting()
	require.NoError(t, cfg.Validate())
	for _, wrong := range []time.Duration{-1, 1, time.Second - 1} {
		cfg.ReemitInterval = wrong
		require.ErrorContains(t, cfg.Validate(), "reemit_interval: ")
	}
}

// Many at once, for the race detector: the samples of each stream reach the next component in the order of their times.
func TestReemissionKeepsOrder(t *testing.T) {
	var mu sync.Mutex
	latest := map[string]pcommon.Timestamp{}
	given := 0
	next, err := consumer.NewMetrics(func(_ context.Context, md pmetric.Metrics) error {
		time.Sleep(time.Duration(time.Now().UnixNano()%7) * 10 * time.Millisecond)
		mu.Lock()
		defer mu.Unlock()
		for _, s := range samples(t, md) {
			given++
			assert.Greater(t, s.end, latest[s.stream], s.stream)
			latest[s.stream] = s.end
		}
		return nil
	})
	require.NoError(t, err)
	cfg := reemitting()
	cfg.ReemitInterval = time.Second
	p := create(t, nop(), cfg, next)
	var wg sync.WaitGroup
	const workers, rounds = 40, 4
	for w := range workers {
		wg.Go(func() {
			for i := range rounds {
				time.Sleep(time.Duration(1000+(i*70+w*130)%1500) * time.Millisecond)
				assert.NoError(t, p.ConsumeMetrics(t.Context(), counted(fmt.Sprint(w), 1)))
			}
		})
	}
	wg.Wait()
	mu.Lock()
	defer mu.Unlock()
	assert.Greater(t, given, workers*rounds, "nothing was given out again")
}
