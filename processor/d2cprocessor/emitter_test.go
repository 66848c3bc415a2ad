// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2cprocessor

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/client"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.uber.org/zap/zapcore"

	"github.com/deltaring/deltaring/internal/aggregate"
)

// adding is a configuration that adds up what pods count, and gives it out each interval.
func adding(interval time.Duration) *Config {
	cfg := defaults()
	cfg.Aggregate = []AggregateConfig{{
		RuleConfig: aggregate.RuleConfig{Metrics: []string{"*"}, Drop: &aggregate.AttributesConfig{Resource: []string{"pod"}}},
		Interval:   interval,
	}}
	return cfg
}

// ofPod is what a pod has counted in the last second.
func ofPod(pod, stream string, value int64) pmetric.Metrics {
	md := counted(stream, value)
	md.ResourceMetrics().At(0).Resource().Attributes().PutStr("pod", pod)
	return md
}

// Totals with an interval come by the clock, whether or not something was counted, and once more at the end.
func TestTotalsComeByTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := new(arrivals)
		p, err := NewFactory().CreateMetrics(t.Context(), nop(), adding(10*time.Second), a.consumer(t))
		require.NoError(t, err)
		require.NoError(t, p.Start(t.Context(), componenttest.NewNopHost()))
		time.Sleep(5 * time.Second)
		require.NoError(t, p.ConsumeMetrics(t.Context(), ofPod("a", "s", 5)))
		require.NoError(t, p.ConsumeMetrics(t.Context(), ofPod("b", "s", 7)))
		assert.Empty(t, a.take())
		time.Sleep(16 * time.Second)
		assert.Equal(t, []string{"s 12 at 10s", "s 12 at 20s"}, a.take())
		require.NoError(t, p.ConsumeMetrics(t.Context(), ofPod("a", "s", 1)))
		require.NoError(t, p.Shutdown(context.Background()))
		assert.Equal(t, []string{"s 13 at 21.001s"}, a.take())
	})
}

// What the next component refuses is in the next sample; at the end it is told that there is none.
func TestTotalsThatAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set, logs := observed(zapcore.WarnLevel)
		var refuses atomic.Bool
		refuses.Store(true)
		a := &arrivals{gate: func(pmetric.Metrics) error {
			if refuses.Load() {
				return errors.New("full")
			}
			return nil
		}}
		p, err := NewFactory().CreateMetrics(t.Context(), set, adding(10*time.Second), a.consumer(t))
		require.NoError(t, err)
		require.NoError(t, p.Start(t.Context(), componenttest.NewNopHost()))
		time.Sleep(5 * time.Second)
		require.NoError(t, p.ConsumeMetrics(t.Context(), ofPod("a", "s", 5)))
		time.Sleep(6 * time.Second)
		assert.Equal(t, 1, logs.FilterMessageSnippet("totals could not be given out").Len())
		refuses.Store(false)
		time.Sleep(10 * time.Second)
		assert.Equal(t, []string{"s 5 at 20s"}, a.take())
		refuses.Store(true)
		require.NoError(t, p.Shutdown(context.Background()))
		assert.Equal(t, 1, logs.FilterMessageSnippet("at shutdown").Len())
	})
}

// Each tenant's total comes with the metadata by which the tenant is told apart.
func TestTotalsKeepTheirTenants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := new(arrivals)
		cfg := adding(10 * time.Second)
		cfg.MetadataKeys = []string{"x-tenant"}
		p := create(t, nop(), cfg, a.consumer(t))
		time.Sleep(5 * time.Second)
		for tenant, value := range map[string]int64{"acme": 5, "beta": 7} {
			ctx := client.NewContext(t.Context(), client.Info{Metadata: client.NewMetadata(map[string][]string{"x-tenant": {tenant}})})
			require.NoError(t, p.ConsumeMetrics(ctx, ofPod("a", "s", value)))
		}
		time.Sleep(6 * time.Second)
		assert.ElementsMatch(t, []string{"acme s 5 at 10s", "beta s 7 at 10s"}, a.take())
	})
}

// A pattern that matches no metric is told of, once.
func TestPatternsThatMatchNothingAreToldOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set, logs := observed(zapcore.WarnLevel)
		cfg := adding(0)
		cfg.Aggregate[0].Metrics = []string{"c*", "http_server_*"}
		p := create(t, set, cfg, new(arrivals).consumer(t))
		time.Sleep(time.Second)
		require.NoError(t, p.ConsumeMetrics(t.Context(), ofPod("a", "s", 5)))
		time.Sleep(unmetAfter - 2*time.Second)
		assert.Zero(t, logs.Len())
		time.Sleep(2*unmetAfter + 2*time.Second)
		require.Equal(t, 1, logs.Len())
		assert.Contains(t, logs.All()[0].ContextMap()["patterns"], "http_server_*")
	})
}

// What cannot be is refused by its key.
func TestBadAggregates(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"aggregate::0::interval: must be 0 or a second":    func(c *Config) { c.Aggregate[0].Interval = 10 },
		"aggregate::0::interval: must be less than":        func(c *Config) { c.Aggregate[0].Interval = c.MaxStale },
		"aggregate::0::max_writers: must not be negative":  func(c *Config) { c.Aggregate[0].MaxWriters = -1 },
		"aggregate::0::metrics: must name one":             func(c *Config) { c.Aggregate[0].Metrics = nil },
		"aggregate::0: leaves nothing out":                 func(c *Config) { c.Aggregate[0].Drop = nil },
		"aggregate::1::metrics::0: \"*\" is never reached": func(c *Config) { c.Aggregate = append(c.Aggregate, c.Aggregate[0]) },
		"aggregate::0: does not go with state::on_error": func(c *Config) {
			id := nop().ID
			c.State.Shared, c.State.OnError = &id, OnErrorLocal
		},
	} {
		cfg := adding(0)
		require.NoError(t, cfg.Validate())
		change(cfg)
		assert.ErrorContains(t, cfg.Validate(), want)
	}
}
