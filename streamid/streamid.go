// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid

import (
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// Of returns the identity of the stream to which a point with these attributes belongs, under seed 0. It combines the steps
// that begin with Seed, for callers with a single point. Attributes are only read, and not kept.
func Of(res pcommon.Resource, scope pcommon.InstrumentationScope, m pmetric.Metric, attrs pcommon.Map) ID {
	return Seed(0).Resource(res).Scope(scope).Metric(m).Point(attrs)
}

// Seed keys all hashes. Zero is the default; with any other value all IDs are different.
type Seed uint64

// Resource is the identity of a resource. It is made by Seed.Resource; the zero value identifies nothing.
type Resource struct {
	seed uint64
	hash ID
}

// Scope is the identity of an instrumentation scope within a resource. It is made by Resource.Scope; the zero value
// identifies nothing.
type Scope struct {
	seed uint64
	hash ID
}

// Metric is the identity of a metric within a scope. It is made by Scope.Metric; the zero value identifies nothing.
type Metric struct {
	seed uint64
	hash ID
}

// Resource hashes the attributes of a resource.
func (s Seed) Resource(res pcommon.Resource) Resource {
	seed := uint64(s)
	var buf [24]byte
	sumPairs(res.Attributes(), seed).put(buf[:])
	return Resource{seed: seed, hash: hashBytes(buf[:], seed+tagResource)}
}

// Scope hashes the name, version and attributes of a scope.
func (r Resource) Scope(scope pcommon.InstrumentationScope) Scope {
	return r.scope(scope, sumPairs(scope.Attributes(), r.seed))
}

func (r Resource) scope(scope pcommon.InstrumentationScope, attributes pairSum) Scope {
	var buf [72]byte
	r.hash.put(buf[:16])
	hashString(scope.Name(), r.seed).put(buf[16:32])
	hashString(scope.Version(), r.seed).put(buf[32:48])
	attributes.put(buf[48:])
	return Scope{seed: r.seed, hash: hashBytes(buf[:], r.seed+tagScope)}
}

// Metric hashes the name, unit, type, monotonic flag and aggregation temporality of a metric.
func (s Scope) Metric(m pmetric.Metric) Metric {
	kind, monotonic, temporality := kindOf(m)
	return s.metric(m, kind, monotonic, temporality)
}

func (s Scope) metric(m pmetric.Metric, kind, monotonic, temporality byte) Metric {
	var buf [51]byte
	s.hash.put(buf[:16])
	hashString(m.Name(), s.seed).put(buf[16:32])
	hashString(m.Unit(), s.seed).put(buf[32:48])
	buf[48], buf[49], buf[50] = kind, monotonic, temporality
	return Metric{seed: s.seed, hash: hashBytes(buf[:], s.seed+tagMetric)}
}

// Point returns the identity of the stream whose points have these attributes.
func (m Metric) Point(attrs pcommon.Map) ID { return m.point(sumPairs(attrs, m.seed)) }

func (m Metric) point(sum pairSum) ID {
	return hashWords(m.hash.Hi, m.hash.Lo, sum.hi, sum.lo, sum.count, m.seed+tagPoint)
}
