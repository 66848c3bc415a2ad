// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/streamid"
)

// TestSplitByTheStreamsOfATenant: the key is that of the stream's ID, of each stream in a batch.
func TestSplitByTheStreamsOfATenant(t *testing.T) {
	r := rand.New(rand.NewPCG(31, 1))
	for range 100 {
		md, seed := randomMetrics(r), uint64(r.IntN(2))
		tenant := identity{Tenant: randomTenant(r)}.tenantKeys()
		var want []uint64
		eachPoint(md, func(rm pmetric.ResourceMetrics, sm pmetric.ScopeMetrics, m pmetric.Metric) {
			id := streamid.Seed(seed).Tenant(tenant...).Resource(rm.Resource()).Scope(sm.Scope()).Metric(m)
			for _, attrs := range pointAttributes(m) {
				want = append(want, refFold(id.Point(attrs)))
			}
		})
		got, _ := keysOf(metricsBatchOf(tenant), keySpec{Name: "streamID"}, seed, md)
		if len(want) == 0 {
			want = []uint64{0} // of a batch without points
		}
		if !slices.Equal(got, want) {
			t.Fatalf("got keys %x, want %x", got, want)
		}
	}
}

func eachPoint(md pmetric.Metrics, f func(pmetric.ResourceMetrics, pmetric.ScopeMetrics, pmetric.Metric)) {
	for _, rm := range md.ResourceMetrics().All() {
		for _, sm := range rm.ScopeMetrics().All() {
			for _, m := range sm.Metrics().All() {
				f(rm, sm, m)
			}
		}
	}
}

// TestTenantsDoNotAllocate, neither those who are nobody nor others.
func TestTenantsDoNotAllocate(t *testing.T) {
	s := goldenIdentities()[1].pdata(t)
	keys := []streamid.TenantKey{{Name: "x-tenant", Values: []string{"acme"}}, {Name: "x-team", Values: []string{"a", "b"}}}
	for _, n := range []int{0, len(keys)} {
		s.tenant = keys[:n]
		if got := testing.AllocsPerRun(10, func() { sink = s.batch(0) }); got != 0 {
			t.Errorf("%d keys: %v allocations", n, got)
		}
	}
}

// Two tenants who send the same have two streams.
func ExampleSeed_Tenant() {
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	sm := rm.ScopeMetrics().AppendEmpty()
	m := sm.Metrics().AppendEmpty()
	m.SetName("requests")
	dp := m.SetEmptySum().DataPoints().AppendEmpty()
	for _, name := range []string{"acme", "globex"} {
		tenant := streamid.Seed(0).Tenant(streamid.TenantKey{Name: "x-tenant", Values: []string{name}})
		fmt.Println(tenant.Resource(rm.Resource()).Scope(sm.Scope()).Metric(m).Point(dp.Attributes()))
	}
	// Output:
	// 8739b3091bb09a904a6804d34275d742
	// 5f078c227eaefe17d637013521b7e2db
}
