// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/client"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/exporter/exporterhelper"
	"go.opentelemetry.io/collector/extension/xextension/storage"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"google.golang.org/grpc/metadata"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/internal/aggregate"
	"github.com/deltaring/deltaring/internal/tenant"
	"github.com/deltaring/deltaring/streamid"
)

// tenants are told apart by all that there is to it. The first is nobody in particular.
var tenants = []map[string][]string{
	{},
	{"x-tenant": {"acme"}},
	{"x-tenant": {"globex"}},
	{"x-tenant": {""}},
	{"x-tenant": {"acme", "globex"}},
	{"x-tenant": {"globex", "acme"}},
	{"x-team-bin": {"acme"}},
	{"x-team-bin": {" \xff\x00größe"}},
	{"x-tenant": {"acme"}, "x-team-bin": {""}},
}

var tenantKeys = []string{"X-Tenant", "x-team-bin"}

// of is the context of a request of that tenant, with metadata that is not to be passed on beside it.
func of(ctx context.Context, i int) context.Context {
	md := map[string][]string{"x-request": {"1"}}
	for key, values := range tenants[i] {
		md[key] = values
	}
	return client.NewContext(ctx, client.Info{Metadata: client.NewMetadata(md)})
}

// tenantOf returns which one sent the metadata.
func tenantOf(t *testing.T, md metadata.MD) int {
	t.Helper()
	got := map[string][]string{}
	for _, key := range []string{"x-tenant", "x-team-bin", "x-request"} {
		if values := md.Get(key); len(values) > 0 {
			got[key] = values
		}
	}
	i := slices.IndexFunc(tenants, func(want map[string][]string) bool { return assert.ObjectsAreEqual(want, got) })
	require.GreaterOrEqual(t, i, 0, "nobody has sent %v", got)
	return i
}

func batching() configoptional.Optional[exporterhelper.BatchConfig] {
	return configoptional.Some(exporterhelper.BatchConfig{
		Partition:    exporterhelper.NewDefaultPartitionConfig(),
		FlushTimeout: 100 * time.Millisecond, Sizer: exporterhelper.RequestSizerTypeItems, MinSize: 1000,
	})
}

// TestTenantsAreSentOn through all kinds of queues, and nothing of one is in a request of another.
func TestTenantsAreSentOn(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"queues":            func(*Config) {},
		"queues that batch": func(cfg *Config) { cfg.Protocol.OTLP.QueueConfig.Get().Batch = batching() },
		"no queue":          func(cfg *Config) { withoutQueues(cfg) },
		"one queue that batches": func(cfg *Config) {
			queue := exporterhelper.NewDefaultQueueConfig()
			queue.NumConsumers, queue.Batch = 1, batching()
			withoutQueues(cfg).QueueConfig = configoptional.Some(queue)
		},
		"one queue on disk, which batches, and queues that do": func(cfg *Config) {
			queue, id := exporterhelper.NewDefaultQueueConfig(), component.MustNewID("shelf")
			queue.NumConsumers, queue.StorageID, queue.Batch = 1, &id, batching()
			cfg.QueueConfig = configoptional.Some(queue)
			cfg.Protocol.OTLP.QueueConfig.Get().Batch = batching()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Run("metrics", func(t *testing.T) { testTenantsAreSentOn(t, change, &metrics, metricBatch) })
			if name != "queues that batch" {
				return // what differs between signals has nothing to do with queues
			}
			t.Run("traces", func(t *testing.T) { testTenantsAreSentOn(t, change, &traces, traceBatch) })
			t.Run("logs", func(t *testing.T) { testTenantsAreSentOn(t, change, &logs, logBatch) })
		})
	}
}

func testTenantsAreSentOn[B batch](t *testing.T, change func(*Config), sig *signal[B], make func(int64, ...string) B) {
	workers := startWorkers(t, "a", "b")
	cfg := staticConfig(t, workers)
	cfg.RoutingKey, cfg.MetadataKeys = "", tenantKeys
	change(cfg)
	require.NoError(t, cfg.Validate())
	g := startGatewayIn(t, newShelf(), cfg, sig)
	streams := streamNames(10)
	const rounds = 3
	for range rounds {
		for i := range tenants {
			require.NoError(t, g.consume(of(t.Context(), i), make(int64(i), streams...)))
		}
	}
	want := rounds * len(tenants) * len(streams)
	times := awaitAll(t, workers, want)
	require.NoError(t, g.stop())
	assert.Len(t, times, len(tenants)*len(streams))
	requests := 0
	for _, w := range workers {
		for _, r := range w.gotRequests() {
			requests++
			from := tenantOf(t, r.metadata)
			for _, i := range r.items {
				require.EqualValues(t, from, i.n, "an item of tenant %v was sent as one of %v", tenants[i.n], tenants[from])
			}
		}
	}
	if q := cfg.QueueConfig; q.HasValue() {
		assert.Less(t, requests, rounds*len(tenants)*len(workers), "no batches were merged")
	}
}

// TestTenantsAreRoutedByTheIdentityOfTheirStreams, whatever the queues; and by a seed.
func TestTenantsAreRoutedByTheIdentityOfTheirStreams(t *testing.T) {
	workers := startWorkers(t, "a", "b", "c")
	streams := streamNames(30)
	owners := map[string]bool{} // all of a stream, by tenant and seed
	for _, seed := range []uint64{0, 1} {
		cfg := staticConfig(t, workers)
		cfg.MetadataKeys, cfg.Seed = tenantKeys, seed
		g := startGateway(t, cfg)
		v := g.ring.current.Load()
		seen := map[string]int{}
		for name, w := range workers {
			seen[name] = len(w.gotRequests())
		}
		for i := range tenants {
			require.NoError(t, g.consume(of(t.Context(), i), metricBatch(int64(i), streams...)))
		}
		require.NoError(t, g.stop())
		keys, err := tenant.ParseKeys(tenantKeys)
		require.NoError(t, err)
		got := 0
		for name, w := range workers {
			for _, r := range w.gotRequests()[seen[name]:] {
				for _, item := range r.items {
					got++
					rm := metricBatch(0, item.stream).ResourceMetrics().At(0)
					m := rm.ScopeMetrics().At(0).Metrics().At(0)
					id := streamid.Seed(seed).Tenant(keys.Of(of(t.Context(), int(item.n)))...).
						Resource(rm.Resource()).Scope(rm.ScopeMetrics().At(0).Scope()).Metric(m).Point(m.Sum().DataPoints().At(0).Attributes())
					want := v.members[v.ring.Owner(id.Hi^(id.Lo<<32|id.Lo>>32))].Name
					require.Equal(t, want, name)
					if item.stream == streams[0] {
						owners[fmt.Sprint(seed, item.n, name)] = true
					}
				}
			}
		}
		assert.Equal(t, len(tenants)*len(streams), got)
	}
	assert.Len(t, owners, 2*len(tenants))
	first := map[string]bool{}
	for at := range owners {
		first[at[len(at)-1:]] = true
	}
	assert.Greater(t, len(first), 1, "all tenants' streams of that name are at one member")
}

// TestEpochsTellHowDataIsRouted: gateways that route differently have different ones, whatever the order and case of keys and the
// order of names in rules.
func TestEpochsTellHowDataIsRouted(t *testing.T) {
	workers := startWorkers(t, "a", "b")
	plain := epochAmong(t, "a", "b")
	seen := map[string]string{}
	dropping := func(names ...string) []aggregate.RoutingRuleConfig {
		var list []aggregate.RoutingRuleConfig
		for _, metrics := range [][]string{{"requests", "responses"}, {"*"}} {
			list = append(list, aggregate.RoutingRuleConfig{RuleConfig: aggregate.RuleConfig{
				Metrics: metrics, Drop: &aggregate.AttributesConfig{Resource: names},
			}})
		}
		return list
	}
	other := dropping("pod", "host")
	other[0].Metrics, other[1].MaxWriters = []string{"responses", "requests"}, 5
	for _, c := range []struct {
		name  string
		seed  uint64
		keys  []string
		rules []aggregate.RoutingRuleConfig
	}{
		{"plain", 0, nil, nil}, {"seed", 1, nil, nil}, {"keys", 0, tenantKeys, nil}, {"keys", 0, []string{"X-Team-Bin", "x-tenant"}, nil},
		{"one key", 0, tenantKeys[:1], nil}, {"both", 1, tenantKeys, nil},
		{"rules", 0, nil, dropping("host", "pod")}, {"rules", 0, nil, other}, {"other rules", 0, nil, dropping("host")},
		{"fewer rules", 0, nil, dropping("host", "pod")[:1]}, {"all", 1, tenantKeys, dropping("host", "pod")},
	} {
		cfg := staticConfig(t, workers)
		cfg.Seed, cfg.MetadataKeys = c.seed, c.keys
		if cfg.Aggregate = c.rules; c.rules != nil {
			cfg.RoutingKey = "aggregate"
		}
		g := startGateway(t, cfg)
		before := len(workers["a"].gotRequests())
		require.NoError(t, g.consume(t.Context(), metricBatch(0, streamNames(40)...)))
		m, err := g.tel.GetMetric("otelcol_ring_epoch")
		require.NoError(t, err)
		require.NoError(t, g.stop())
		got := workers["a"].gotRequests()[before].metadata.Get(tenant.EpochKey)[0]
		n, err := strconv.ParseUint(got, 16, 64)
		require.NoError(t, err)
		assert.EqualValues(t, n>>11, m.Data.(metricdata.Gauge[int64]).DataPoints[0].Value)
		if c.name == "plain" {
			assert.Equal(t, plain, got)
		}
		if was, ok := seen[c.name]; ok {
			assert.Equal(t, was, got)
		}
		seen[c.name] = got
	}
	assert.Len(t, slices.Compact(slices.Sorted(maps.Values(seen))), 9)
}

// TestReroutedDataStaysThatOfItsTenant has a member leave with data of all tenants in its queue.
func TestReroutedDataStaysThatOfItsTenant(t *testing.T) {
	for _, batches := range []bool{false, true} {
		t.Run(fmt.Sprintf("batching=%v", batches), func(t *testing.T) {
			workers := startWorkers(t, "a", "b")
			s := startNameServer(t)
			s.serve(workers)
			cfg := dnsConfig(t, s)
			cfg.MetadataKeys = tenantKeys
			if batches {
				cfg.Protocol.OTLP.QueueConfig.Get().Batch = batching()
			}
			g := startGateway(t, cfg)
			g.awaitMembers("a.workers.test", "b.workers.test")
			workers["b"].kill()
			streams := streamNames(20)
			for i := range tenants {
				require.NoError(t, g.consume(of(t.Context(), i), metricBatch(int64(i), streams...)))
			}
			s.serve(only(workers, "a"))
			g.awaitMembers("a.workers.test")
			workers["a"].awaitItems(t, len(tenants)*len(streams))
			require.NoError(t, g.stop())
			got := map[item]bool{}
			for _, r := range workers["a"].gotRequests() {
				from := tenantOf(t, r.metadata)
				for _, i := range r.items {
					got[i] = true
					require.EqualValues(t, from, i.n)
				}
			}
			assert.Len(t, got, len(tenants)*len(streams))
		})
	}
}

// TestBatchesWithoutATenantAreToldOf once, as nothing else tells of a receiver that does not hand on metadata.
func TestBatchesWithoutATenantAreToldOf(t *testing.T) {
	workers := startWorkers(t, "a")
	for _, keys := range [][]string{nil, tenantKeys} {
		cfg := staticConfig(t, workers)
		cfg.MetadataKeys = keys
		g := startGateway(t, cfg)
		told := func() int { return g.logs.FilterMessageSnippet("include_metadata").Len() }
		require.NoError(t, g.consume(of(t.Context(), 3), metricBatch(0, "s")))
		assert.Zero(t, told())
		for range 3 {
			require.NoError(t, g.consume(of(t.Context(), 0), metricBatch(0, "s")))
		}
		assert.Equal(t, min(len(keys), 1), told())
		require.NoError(t, g.stop())
	}
}

// TestValuesThatCannotBeSentAreRefused at once and for good, and say why. gRPC would fail the request, or another tenant arrive.
func TestValuesThatCannotBeSentAreRefused(t *testing.T) {
	workers := startWorkers(t, "a")
	for _, queues := range []bool{true, false} {
		cfg := staticConfig(t, workers)
		cfg.MetadataKeys = tenantKeys
		if !queues {
			withoutQueues(cfg)
		}
		g := startGateway(t, cfg)
		for _, value := range []string{"größe", "a\x00", "a\nb", "a\x7f", " a", "a ", " "} {
			ctx := client.NewContext(t.Context(), client.Info{Metadata: client.NewMetadata(map[string][]string{"x-tenant": {"ok", value}})})
			err := g.consume(ctx, metricBatch(0, "s", "t"))
			require.Error(t, err, "%q", value)
			assert.True(t, consumererror.IsPermanent(err))
			assert.ErrorContains(t, err, `metadata_keys: the request has a value of "x-tenant" that gRPC cannot send`)
		}
		assert.EqualValues(t, 14, sum(t, g, "otelcol_ring_items", "outcome", "refused", "member", ""))
		require.NoError(t, g.consume(of(t.Context(), 1), metricBatch(1, "s")), "others go on")
		require.NoError(t, g.stop())
	}
	assert.Equal(t, []item{{"s", 1}, {"s", 1}}, workers["a"].got())
}

// TestTwoTiersKeepTenantsApart: each tenant's total is theirs, through gateways, restarts of the ring and whatever state the
// workers have. The workers do with the metadata what a receiver with include_metadata and the processor d2c do.
func TestTwoTiersKeepTenantsApart(t *testing.T) {
	for _, state := range []string{"memory", "shared"} {
		t.Run(state, func(t *testing.T) {
			workers := startWorkers(t, "a", "b", "c")
			memory := new(store.Memory)
			tier := &secondTier{t: t, totals: map[string]int64{}, owners: map[string]map[string]bool{}}
			for name, w := range workers {
				var conv *d2c.Converter
				var err error
				if state == "shared" {
					now := func() time.Time { return time.Unix(0, 0) } // the store is there before any delta
					conv, err = d2c.OpenShared(t.Context(), d2c.Config{Now: now}, d2c.SharedConfig{Store: memory, Owner: "test"})
				} else {
					conv, err = d2c.New(d2c.DefaultConfig())
				}
				require.NoError(t, err)
				w.change(func() {
					w.exported = func(ctx context.Context, md pmetric.Metrics) { tier.convert(ctx, name, conv, md) }
				})
			}
			streams := streamNames(20)
			const rounds = 4
			for gateway := range 2 { // by turns; they route alike
				cfg := staticConfig(t, workers)
				cfg.MetadataKeys = tenantKeys
				g := startGateway(t, cfg)
				for r := range rounds / 2 {
					round := gateway*rounds/2 + r
					for i := range tenants {
						md := metricBatch(1<<i, streams...)
						sum := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum()
						sum.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
						sum.SetIsMonotonic(true)
						for _, p := range sum.DataPoints().All() {
							p.SetStartTimestamp(pcommon.NewTimestampFromTime(time.Unix(int64(1000+10*round), 0)))
							p.SetTimestamp(pcommon.NewTimestampFromTime(time.Unix(int64(1010+10*round), 0)))
						}
						require.NoError(t, g.consume(of(t.Context(), i), md))
					}
				}
				require.NoError(t, g.stop())
			}
			want := map[string]int64{}
			for i := range tenants {
				for _, s := range streams {
					of := fmt.Sprint(i, s)
					want[of] = rounds << i
					assert.Len(t, tier.owners[of], 1, of)
				}
			}
			assert.Equal(t, want, tier.totals)
		})
	}
}

// secondTier is what the workers give out.
type secondTier struct {
	t      *testing.T
	mu     sync.Mutex
	totals map[string]int64           // by tenant and stream
	owners map[string]map[string]bool // likewise
}

func (s *secondTier) convert(ctx context.Context, worker string, conv *d2c.Converter, md pmetric.Metrics) {
	s.mu.Lock()
	defer s.mu.Unlock()
	came, _ := metadata.FromIncomingContext(ctx)
	ctx = client.NewContext(ctx, client.Info{Metadata: client.NewMetadata(came.Copy())})
	keys, err := tenant.ParseKeys(tenantKeys)
	assert.NoError(s.t, err)
	result, err := conv.Convert(d2c.WithTenant(ctx, keys.Of(ctx)...), md)
	assert.NoError(s.t, err)
	assert.Zero(s.t, result.Dropped())
	for _, i := range metricItems(md) {
		of := fmt.Sprint(tenantOf(s.t, came), i.stream)
		s.totals[of] = i.n
		if s.owners[of] == nil {
			s.owners[of] = map[string]bool{}
		}
		s.owners[of][worker] = true
	}
}

// shelf is a host with a storage extension of that name.
type shelf struct {
	component.StartFunc
	component.ShutdownFunc
	mu     sync.Mutex
	values map[string][]byte
}

func newShelf() *shelf { return &shelf{values: map[string][]byte{}} }

func (s *shelf) GetExtensions() map[component.ID]component.Component {
	return map[component.ID]component.Component{component.MustNewID("shelf"): s}
}

func (s *shelf) GetClient(context.Context, component.Kind, component.ID, string) (storage.Client, error) {
	return s, nil
}

func (s *shelf) Get(ctx context.Context, key string) ([]byte, error) {
	op := storage.GetOperation(key)
	err := s.Batch(ctx, op)
	return op.Value, err
}

func (s *shelf) Set(ctx context.Context, key string, value []byte) error {
	return s.Batch(ctx, storage.SetOperation(key, value))
}

func (s *shelf) Delete(ctx context.Context, key string) error {
	return s.Batch(ctx, storage.DeleteOperation(key))
}

func (s *shelf) Batch(_ context.Context, ops ...*storage.Operation) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, op := range ops {
		switch op.Type {
		case storage.Get:
			op.Value = bytes.Clone(s.values[op.Key])
		case storage.Set:
			s.values[op.Key] = bytes.Clone(op.Value)
		case storage.Delete:
			delete(s.values, op.Key)
		}
	}
	return nil
}

func (s *shelf) Close(context.Context) error { return nil }
