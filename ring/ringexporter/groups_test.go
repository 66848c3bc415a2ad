// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/client"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"google.golang.org/grpc/metadata"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/internal/aggregate"
	"github.com/deltaring/deltaring/internal/tenant"
	"github.com/deltaring/deltaring/streamid"
)

// groupStore is a store that several workers have in common. It notes which of them writes which group of streams.
type groupStore struct {
	store.Memory
	mu      sync.Mutex
	groups  int
	writers []map[string]bool // by group
}

// of is the store as a worker has it.
func (s *groupStore) of(worker string) store.Shared { return &writer{groupStore: s, name: worker} }

type writer struct {
	*groupStore
	name string
}

func (w *writer) Swap(ctx context.Context, swaps []store.Swap) ([]store.Result, error) {
	w.mu.Lock()
	for _, s := range swaps {
		of := &w.writers[store.Group(s.ID, w.groups)]
		if *of == nil {
			*of = map[string]bool{}
		}
		(*of)[w.name] = true
	}
	w.mu.Unlock()
	return w.Memory.Swap(ctx, swaps)
}

// deltaBatch has deltas of routes, each of several pods.
func deltaBatch(round int) pmetric.Metrics {
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	rm.Resource().Attributes().PutStr("service.name", "test")
	for _, name := range []string{"http.requests", "rpc.requests"} {
		m := rm.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
		m.SetName(name)
		sum := m.SetEmptySum()
		sum.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		sum.SetIsMonotonic(true)
		for i := range int64(400) {
			p := sum.DataPoints().AppendEmpty()
			p.Attributes().PutInt("route", i/4)
			p.Attributes().PutInt("pod", i%4)
			p.SetIntValue(1)
			p.SetStartTimestamp(pcommon.NewTimestampFromTime(time.Unix(int64(1000+10*round), 0)))
			p.SetTimestamp(pcommon.NewTimestampFromTime(time.Unix(int64(1010+10*round), 0)))
		}
	}
	return md
}

// TestGroupsHaveOneMember: whatever real processors keep of a group of streams, of all tenants, totals and their writers, is kept by one
// of them; and without groups it is not.
func TestGroupsHaveOneMember(t *testing.T) {
	const seed = 0x9E3779B97F4A7C15
	rules := []aggregate.RoutingRuleConfig{{RuleConfig: aggregate.RuleConfig{
		Metrics: []string{"http.*"}, Drop: &aggregate.AttributesConfig{Attributes: []string{"pod"}},
	}}}
	for _, groups := range []int{0, 16, 64, 256} {
		for _, key := range []string{"streamID", "aggregate"} {
			t.Run(fmt.Sprint(key, " ", groups), func(t *testing.T) {
				workers := startWorkers(t, "a", "b", "c")
				counted := max(groups, 64)
				state := &groupStore{groups: counted, writers: make([]map[string]bool, counted)}
				cfg := staticConfig(t, workers)
				cfg.RoutingKey, cfg.Groups, cfg.Seed, cfg.MetadataKeys = key, groups, seed, []string{"x-tenant"}
				withoutQueues(cfg)
				dc := d2c.Config{Seed: seed, Now: func() time.Time { return time.Unix(0, 0) }}
				if key == "aggregate" {
					cfg.Aggregate = rules
					dc.Aggregate = []d2c.AggregateRule{{Metrics: []string{"http.*"}, Attributes: streamid.Selection{Drop: []string{"pod"}}}}
				}
				require.NoError(t, cfg.Validate())
				tenants, err := tenant.ParseKeys(cfg.MetadataKeys)
				require.NoError(t, err)
				for name, w := range workers {
					conv, err := d2c.OpenShared(t.Context(), dc, d2c.SharedConfig{Store: state.of(name), Owner: "test"})
					require.NoError(t, err)
					w.change(func() {
						w.exported = func(ctx context.Context, md pmetric.Metrics) {
							came, _ := metadata.FromIncomingContext(ctx)
							ctx = client.NewContext(ctx, client.Info{Metadata: client.NewMetadata(came.Copy())})
							result, err := conv.Convert(d2c.WithTenant(ctx, tenants.Of(ctx)...), md)
							assert.NoError(t, err)
							assert.Zero(t, result.Dropped())
						}
					})
				}
				g := startGateway(t, cfg)
				for round := range 2 {
					for _, of := range []string{"acme", "globex"} {
						ctx := client.NewContext(t.Context(), client.Info{Metadata: client.NewMetadata(map[string][]string{"x-tenant": {of}})})
						require.NoError(t, g.consume(ctx, deltaBatch(round)))
					}
				}
				require.NoError(t, g.stop())
				shared, writers := 0, map[string]int{}
				for _, by := range state.writers {
					if len(by) > 1 {
						shared++
					}
					for name := range by {
						writers[name]++
					}
				}
				if groups == 0 {
					assert.NotZero(t, shared, "streams are routed each by itself")
					return
				}
				assert.Zero(t, shared, "groups with several writers")
				assert.Len(t, writers, len(workers), "all have groups")
			})
		}
	}
}

// TestGroupsAreAnotherRing than one without, and than one with others: a worker must not take them for one.
func TestGroupsAreAnotherRing(t *testing.T) {
	workers := startWorkers(t, "a", "b")
	seen := map[uint64]int{}
	for _, groups := range []int{0, 16, 32, 64, 128, 256} {
		cfg := staticConfig(t, workers)
		cfg.Groups = groups
		g := startGateway(t, cfg)
		epoch := g.ring.epoch(g.ring.ring())
		other, ok := seen[epoch]
		assert.False(t, ok, "%d groups have the epoch of %d", groups, other)
		seen[epoch] = groups
		require.NoError(t, g.stop())
	}
}

// TestKeptDeltasAreWarnedOf, as they go with their total, whatever their group.
func TestKeptDeltasAreWarnedOf(t *testing.T) {
	workers := startWorkers(t, "a")
	for _, groups := range []int{0, 64} {
		cfg := config(t, `{routing_key: aggregate, resolver: {static: {hostnames: [overwritten]}},
			aggregate: [{metrics: [a], drop: {resource: [pod]}}, {metrics: [b], drop: {resource: [pod]}, keep_input: true}]}`)
		cfg.Resolver.Static, cfg.Groups = configoptional.Some(static(workers)), groups
		g := startGateway(t, cfg)
		var keys []string
		for _, l := range g.logs.All() {
			if strings.Contains(l.Message, "keep_input") {
				keys = append(keys, fmt.Sprint(l.ContextMap()["key"]))
			}
		}
		if groups == 0 {
			assert.Empty(t, keys)
		} else {
			assert.Equal(t, []string{"aggregate::1::keep_input"}, keys)
		}
		require.NoError(t, g.stop())
	}
}
