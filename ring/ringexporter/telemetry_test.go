// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

type (
	question = dns.Question
	rr       = dns.RR
)

// answersWithoutMembers are all the ways of DNS to have none.
var answersWithoutMembers = []func(question) (int, []rr){
	func(question) (int, []rr) { return dns.RcodeServerFailure, nil },
	func(question) (int, []rr) { return dns.RcodeNameError, nil },
	func(question) (int, []rr) { return dns.RcodeSuccess, nil },
	func(question) (int, []rr) { return dns.RcodeRefused, nil },
}

// collect calls each for the data points of a metric that have all of the attributes.
func collect[B batch](t testing.TB, g *gateway[B], name string, each func(metricdata.Aggregation, func(attribute.Set) bool), attrs ...string) {
	t.Helper()
	m, err := g.tel.GetMetric(name)
	if err != nil {
		require.ErrorContains(t, err, "not found")
		return
	}
	each(m.Data, func(set attribute.Set) bool {
		for pair := range slices.Chunk(attrs, 2) {
			if v, ok := set.Value(attribute.Key(pair[0])); !ok || v.AsString() != pair[1] {
				return false
			}
		}
		return true
	})
}

func sum[B batch](t testing.TB, g *gateway[B], name string, attrs ...string) (total int64) {
	t.Helper()
	require.True(t, strings.HasPrefix(name, "otelcol_"))
	collect(t, g, name, func(data metricdata.Aggregation, match func(attribute.Set) bool) {
		for _, p := range data.(metricdata.Sum[int64]).DataPoints {
			if match(p.Attributes) {
				total += p.Value
			}
		}
	}, attrs...)
	return total
}

func sumFloat[B batch](t testing.TB, g *gateway[B], name string) (total float64) {
	t.Helper()
	collect(t, g, name, func(data metricdata.Aggregation, _ func(attribute.Set) bool) {
		for _, p := range data.(metricdata.Sum[float64]).DataPoints {
			total += p.Value
		}
	})
	return total
}

func histogramCount[B batch](t testing.TB, g *gateway[B], name string, attrs ...string) (total uint64) {
	t.Helper()
	collect(t, g, name, func(data metricdata.Aggregation, match func(attribute.Set) bool) {
		for _, p := range data.(metricdata.Histogram[float64]).DataPoints {
			if match(p.Attributes) {
				total += p.Count
			}
		}
	}, attrs...)
	return total
}

// ownedAfterStop returns how many streams each worker has seen.
func (g *gateway[B]) ownedAfterStop(workers map[string]*worker) map[string]int {
	all := map[string]int{}
	for name, w := range workers {
		all[name] = len(w.streams())
	}
	return all
}
