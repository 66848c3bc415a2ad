// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2cprocessor

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/client"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.uber.org/zap/zapcore"
)

// from is the context of a request with this metadata.
func from(t *testing.T, metadata map[string][]string) context.Context {
	return client.NewContext(t.Context(), client.Info{Metadata: client.NewMetadata(metadata)})
}

// Tenants who send the same streams get their own totals, wherever the state is and through restarts and other workers.
func TestTenantsHaveTheirOwnStreams(t *testing.T) {
	shelf, pool := &shelfHost{shelf: newShelf()}, map[component.ID]*poolStore{}
	for name, state := range map[string]struct {
		cfg    *Config
		host   func() component.Host // of the next process
		rounds int                   // that a process lasts
	}{
		"memory":  {defaults(), componenttest.NewNopHost, 4},
		"storage": {onShelf(), func() component.Host { return shelf }, 1},
		"shared":  {inPool(), func() component.Host { return newWorker(pool) }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			tenants := []map[string][]string{
				{"x-other": {"acme"}},
				{"X-Tenant": {"acme"}},
				{"x-tenant": {"globex"}},
				{"x-tenant": {""}},
				{"x-tenant": {"acme", "globex"}},
				{"x-tenant": {"globex", "acme"}},
				{"x-team": {"acme"}},
				{"x-tenant": {"acme"}, "x-team": {""}},
			}
			state.cfg.MetadataKeys = []string{"X-Tenant", "X-Team"}
			for process := range 4 / state.rounds {
				sink, p := start(t, nop(), state.cfg, state.host())
				for r := range state.rounds {
					round := process*state.rounds + r
					for i, tenant := range tenants {
						d := delta{"a", 10*round + i, 10*round + 10 + i, 1 << (4 * i)}
						require.NoError(t, p.ConsumeMetrics(from(t, tenant), batch(d)))
						all := sink.AllMetrics()
						want := []sample{{"a", at(i), at(d.end), int64(round+1) << (4 * i)}}
						require.Equal(t, want, samples(t, all[len(all)-1]), "round %d, %v", round, tenant)
					}
				}
				require.NoError(t, p.Shutdown(t.Context()))
			}
		})
	}
}

// Without the key, metadata does not count, so that nothing changes for those who do not set it.
func TestMetadataCountsOnlyWhereItIsNamed(t *testing.T) {
	sink, p := start(t, nop(), defaults(), componenttest.NewNopHost())
	require.NoError(t, p.ConsumeMetrics(from(t, map[string][]string{"x-tenant": {"acme"}}), batch(delta{"a", 0, 10, 1})))
	require.NoError(t, p.ConsumeMetrics(from(t, map[string][]string{"x-tenant": {"globex"}}), batch(delta{"a", 10, 20, 2})))
	assert.Equal(t, []sample{{"a", at(0), at(20), 3}}, samples(t, sink.AllMetrics()[1]))
	require.NoError(t, p.Shutdown(t.Context()))
}

// Keys may be added and taken away with the state that there is: only streams that they concern begin anew.
func TestKeysMayChangeUnderStoredState(t *testing.T) {
	host := &shelfHost{shelf: newShelf()}
	acme := map[string][]string{"x-tenant": {"acme"}}
	for i, step := range []struct {
		keys   []string
		tenant map[string][]string
		start  int
		total  int64
	}{
		{nil, acme, 0, 1},                             // nobody's
		{[]string{"x-tenant"}, nil, 0, 2},             // goes on
		{[]string{"x-tenant"}, acme, 20, 1},           // anew
		{[]string{"x-team", "X-Tenant"}, acme, 20, 2}, // goes on
		{nil, acme, 0, 3},                             // nobody's, after a gap
	} {
		cfg := onShelf()
		cfg.MetadataKeys = step.keys
		sink, p := start(t, nop(), cfg, host)
		require.NoError(t, p.ConsumeMetrics(from(t, step.tenant), batch(delta{"a", 10 * i, 10*i + 10, 1})))
		require.NoError(t, p.Shutdown(t.Context()))
		assert.Equal(t, []sample{{"a", at(step.start), at(10*i + 10), step.total}}, samples(t, sink.AllMetrics()[0]), "step %d", i)
	}
}

// A receiver that does not hand on metadata is told of, once, as nothing else would tell.
func TestBatchesWithoutATenantAreToldOf(t *testing.T) {
	set, logs := observed(zapcore.WarnLevel)
	cfg := defaults()
	cfg.MetadataKeys = []string{"x-tenant"}
	p := create(t, set, cfg, new(consumertest.MetricsSink))
	require.NoError(t, p.ConsumeMetrics(from(t, map[string][]string{"x-tenant": {""}}), batch(delta{"a", 0, 10, 1})))
	assert.Zero(t, logs.Len())
	for i := range 3 {
		require.NoError(t, p.ConsumeMetrics(t.Context(), batch(delta{"a", 10 * i, 10*i + 10, 1})))
	}
	require.Equal(t, 1, logs.Len())
	assert.Contains(t, logs.All()[0].Message, "include_metadata")

	set, logs = observed(zapcore.WarnLevel)
	p = create(t, set, defaults(), new(consumertest.MetricsSink))
	require.NoError(t, p.ConsumeMetrics(t.Context(), batch(delta{"a", 0, 10, 1})))
	assert.Zero(t, logs.Len(), "nobody asked for tenants")
}

// The seed reaches the converter: state in storage that was made with another is refused.
func TestSeedIsThatOfTheState(t *testing.T) {
	host := &shelfHost{shelf: newShelf()}
	cfg := onShelf()
	cfg.Seed = 1
	_, p := start(t, nop(), cfg, host)
	require.NoError(t, p.ConsumeMetrics(t.Context(), batch(delta{"a", 0, 10, 5})))
	require.NoError(t, p.Shutdown(t.Context()))

	other := onShelf()
	other.Seed = 2
	p, err := NewFactory().CreateMetrics(t.Context(), nop(), other, nil)
	require.NoError(t, err)
	err = p.Start(t.Context(), host)
	assert.ErrorContains(t, err, "state::storage")
	assert.ErrorContains(t, err, "seed")
	require.NoError(t, p.Shutdown(t.Context()))

	sink, p := start(t, nop(), cfg, host)
	require.NoError(t, p.ConsumeMetrics(t.Context(), batch(delta{"a", 10, 20, 2})))
	assert.Equal(t, []sample{{"a", at(0), at(20), 7}}, samples(t, sink.AllMetrics()[0]))
	require.NoError(t, p.Shutdown(t.Context()))
}
