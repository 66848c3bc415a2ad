// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package table

import (
	"github.com/zeebo/xxh3"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/streamid"
)

// IdentityOf returns what tells one owner's state from another's. The encoding of identities takes part by way of the
// identity of a stream that has a bit of everything. It has no tenant: what tells tenants apart is in each identity by name, so
// records of one setting are never taken for those of another, and a setting that changes need not cost the state of streams
// that it does not concern.
func IdentityOf(seed streamid.Seed, owner string) uint64 {
	m := pmetric.NewMetric()
	m.SetName("name")
	m.SetUnit("By")
	m.SetEmptySum().SetIsMonotonic(true)
	m.Sum().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	res, scope, attrs := pcommon.NewResource(), pcommon.NewInstrumentationScope(), pcommon.NewMap()
	res.Attributes().PutStr("string", "value")
	scope.SetName("scope")
	scope.SetVersion("1")
	scope.Attributes().PutBool("bool", true)
	attrs.PutInt("int", 1)
	attrs.PutDouble("double", 0.5)
	attrs.PutEmptyBytes("bytes").Append(1, 2)
	attrs.PutEmptySlice("slice").AppendEmpty().SetStr("element")
	attrs.PutEmptyMap("map").PutStr("key", "value")
	id := seed.Resource(res).Scope(scope).Metric(m).Point(attrs)
	return xxh3.HashStringSeed(owner, id.Hi^id.Lo)
}
