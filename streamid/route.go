// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid

import (
	"math/bits"
	"slices"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// The numbers in this block are part of encoding v1, as those of attributes.go are.
const (
	tagRouteMetric     = 13 * tagStep & mod64
	tagRouteTraceID    = 14 * tagStep & mod64
	tagRouteAttributes = 15 * tagStep & mod64
)

// serviceAttribute is what the key "service" looks up.
var serviceAttribute = []string{"service.name"}

// Top-level fields that the key "attributes" takes for attributes, as contrib's load_balancing exporter does.
const (
	fieldSpanName    = "span.name"
	fieldSpanKind    = "span.kind"
	fieldLogSeverity = "log.severity"
	fieldLogBody     = "log.body"
)

// fold makes a routing key of a hash. It uses both halves crosswise: tables elsewhere are indexed by the high bits of Hi
// or the low bits of Lo, and a worker that has only the streams of some routing keys must still see all values of those.
func fold(h ID) uint64 { return h.Hi ^ bits.RotateLeft64(h.Lo, 32) }

// route computes the routing keys of a batch, from the outside in: resource, scope, metric, and then data point, span or
// log record. Each step but the last says whether all that is inside has one key.
type route struct {
	kind  keyKind
	seed  uint64
	names []string // of attributes
	rules *Rules   // of the keys "streamID", which has none, and "aggregate", which is the same but for them

	grouped bool // see Key.Grouped

	// found is the sum over the attributes found in the resource, and then those in the scope too; notInResource and
	// notInScope are the names left over.
	found         pairSum
	foundInScope  pairSum
	notInResource []string
	notInScope    []string

	resource   pcommon.Resource
	resourceID ID // of resource, once it is hashed
	hashed     bool

	// streams are the identities of the resource and the scope, as they are and then as each rule leaves them. They are hashed when
	// a metric asks for them, and good for one resource and scope, which are told by their number in the batch.
	streams                     []scopeStreams
	resourceNumber, scopeNumber int

	lacking bool // the latest key stands in for one that the data lacks
}

func (r *route) begin(kind keyKind, key *Key, seed Seed) {
	r.kind, r.names, r.seed, r.grouped = kind, key.names, uint64(seed), key.grouped
	switch kind {
	case keyService:
		r.names = serviceAttribute
	case keyStreamID:
		r.beginStreams(&noRules)
	case keyAggregate:
		r.kind = keyStreamID
		r.beginStreams(key.rules)
	}
}

var noRules Rules

func (r *route) beginStreams(rules *Rules) {
	r.rules, r.resourceNumber, r.scopeNumber = rules, 0, 0
	r.streams = slices.Grow(r.streams[:0], 1+rules.Len())[:1+rules.Len()]
	clear(r.streams)
}

// scopeStreams is what the identities of the streams in a scope begin with.
type scopeStreams struct {
	resource                    Resource
	scope                       Scope
	resourceNumber, scopeNumber int
}

// enterResource begins a resource. It is true if everything in it has this key.
func (r *route) enterResource(res pcommon.Resource) (key uint64, all bool) {
	r.resource, r.hashed, r.lacking = res, false, false
	r.resourceNumber++
	switch r.kind {
	case keyResource:
		return r.resourceKey(), true
	case keyService, keyAttributes:
		r.notInResource = r.lookUp(&r.found, pairSum{}, res.Attributes(), r.names, r.notInResource[:0])
		if len(r.notInResource) > 0 && r.kind == keyAttributes {
			return 0, false
		}
		return r.attributesKey(r.found, len(r.notInResource)), true
	}
	return 0, false
}

// resourceKey is also the key of what lacks its own.
func (r *route) resourceKey() uint64 {
	if !r.hashed {
		r.resourceID, r.hashed = Seed(r.seed).Resource(r.resource).hash, true
	}
	return fold(r.resourceID)
}

// enterScope begins a scope of the resource. It is true if everything in it has this key.
func (r *route) enterScope(scope pcommon.InstrumentationScope) (key uint64, all bool) {
	r.scopeNumber++
	if r.kind != keyAttributes {
		return 0, false
	}
	r.notInScope = r.lookUp(&r.foundInScope, r.found, scope.Attributes(), r.notInResource, r.notInScope[:0])
	if len(r.notInScope) > 0 {
		return 0, false
	}
	return r.attributesKey(r.foundInScope, 0), true
}

// metric is the key of all points of a metric, for the key "metric".
func (r *route) metric(m pmetric.Metric) uint64 {
	return fold(hashString(m.Name(), r.seed+tagRouteMetric))
}

// stream returns the identity of a metric in the latest scope, for the keys "streamID" and "aggregate". Where a rule matches it is
// that of what the Reduction leaves, which is nil otherwise.
func (r *route) stream(t Tenant, scope pcommon.InstrumentationScope, m pmetric.Metric) (Metric, *Reduction) {
	rule := r.rules.Find(m.Name())
	s := &r.streams[rule+1]
	if rule < 0 {
		if s.resourceNumber != r.resourceNumber {
			s.resource, s.resourceNumber = t.Resource(r.resource), r.resourceNumber
		}
		if s.scopeNumber != r.scopeNumber {
			s.scope, s.scopeNumber = s.resource.Scope(scope), r.scopeNumber
		}
		return s.scope.Metric(m), nil
	}
	reduction := r.rules.At(rule)
	if s.resourceNumber != r.resourceNumber {
		s.resource, s.resourceNumber = reduction.Resource(t, r.resource), r.resourceNumber
	}
	if s.scopeNumber != r.scopeNumber {
		s.scope, s.scopeNumber = reduction.Scope(s.resource, scope), r.scopeNumber
	}
	return reduction.Metric(s.scope, m), reduction
}

// streamKey is the key of a stream, for the keys "streamID" and "aggregate".
func (r *route) streamKey(id ID) uint64 {
	if r.grouped {
		return id.Hi
	}
	return fold(id)
}

// traceID is the key of a span or a log record, for the key "traceID".
func (r *route) traceID(id pcommon.TraceID) uint64 {
	if r.lacking = id.IsEmpty(); r.lacking {
		return r.resourceKey()
	}
	return fold(hashBytes(id[:], r.seed+tagRouteTraceID))
}

// point is the key of a data point, for the key "attributes".
func (r *route) point(attrs pcommon.Map) uint64 {
	found, missing := r.foundInScope, 0
	for _, name := range r.notInScope {
		v, ok := attrs.Get(name)
		if !ok || !found.addValue(name, v, r.seed) {
			missing++
		}
	}
	return r.attributesKey(found, missing)
}

// span is the key of a span, for the key "attributes".
func (r *route) span(span ptrace.Span) uint64 {
	found, missing := r.foundInScope, 0
	for _, name := range r.notInScope {
		ok := false
		switch name {
		case fieldSpanName:
			ok = found.addString(name, span.Name(), r.seed)
		case fieldSpanKind:
			ok = found.addString(name, span.Kind().String(), r.seed)
		default:
			var v pcommon.Value
			if v, ok = span.Attributes().Get(name); ok {
				ok = found.addValue(name, v, r.seed)
			}
		}
		if !ok {
			missing++
		}
	}
	return r.attributesKey(found, missing)
}

// record is the key of a log record, for the key "attributes".
func (r *route) record(record plog.LogRecord) uint64 {
	found, missing := r.foundInScope, 0
	for _, name := range r.notInScope {
		ok := false
		switch name {
		case fieldLogSeverity:
			ok = found.addString(name, record.SeverityText(), r.seed)
		case fieldLogBody:
			ok = found.addValue(name, record.Body(), r.seed)
		default:
			var v pcommon.Value
			if v, ok = record.Attributes().Get(name); ok {
				ok = found.addValue(name, v, r.seed)
			}
		}
		if !ok {
			missing++
		}
	}
	return r.attributesKey(found, missing)
}

// attributesKey is the key of found attributes; if none is found, that of the resource.
func (r *route) attributesKey(found pairSum, missing int) uint64 {
	r.lacking = missing > 0
	if found.count == 0 {
		return r.resourceKey()
	}
	var buf [24]byte
	found.put(buf[:])
	return fold(hashBytes(buf[:], r.seed+tagRouteAttributes))
}

// lookUp sets sum to base and what attrs has of names, and appends to rest the names that it does not have.
func (r *route) lookUp(sum *pairSum, base pairSum, attrs pcommon.Map, names, rest []string) []string {
	*sum = base
	for _, name := range names {
		v, ok := attrs.Get(name)
		if !ok || !sum.addValue(name, v, r.seed) {
			rest = append(rest, name)
		}
	}
	return rest
}

// addValue adds a pair as sumPairs does, unless the value is empty: it is false if that is so. Empty is missing here, as
// it is in the keys of load_balancing.
func (s *pairSum) addValue(name string, v pcommon.Value, seed uint64) bool {
	switch v.Type() {
	case pcommon.ValueTypeEmpty:
		return false
	case pcommon.ValueTypeStr:
		return s.addString(name, v.Str(), seed)
	}
	key := hashString(name, seed)
	s.add(key, hashValue(v, key.Lo))
	return true
}

// addString is addValue for a string.
func (s *pairSum) addString(name, text string, seed uint64) bool {
	if text == "" {
		return false
	}
	key := hashString(name, seed)
	s.add(key, feedForward(hashString(text, key.Lo+tagStr), key.Lo+tagStr))
	return true
}

// add adds the pair of a key and a value with these hashes.
func (s *pairSum) add(key, value ID) {
	var carry uint64
	s.lo, carry = bits.Add64(s.lo, value.Lo, 0)
	s.hi, _ = bits.Add64(s.hi, value.Hi^key.Hi, carry)
	s.count++
}
