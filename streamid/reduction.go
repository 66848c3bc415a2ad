// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid

import (
	"fmt"
	"slices"
	"strings"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// The numbers in this block are part of encoding v1, as those of attributes.go are.
const (
	tagReduction = 17 * tagStep & mod64
	tagReduced   = 18 * tagStep & mod64
	tagWriter    = 19 * tagStep & mod64
)

// Selection says which attributes of a map stay. The zero Selection leaves all.
type Selection struct {
	// Drop are the names of those that go.
	Drop []string
	// Keep, if not nil, are the names of those that stay, all others go. A name that a map lacks is lacking in what is left, too.
	// It does not go together with Drop.
	Keep []string
}

// Reduction makes one stream of several: of the attributes by which they differ some are left out. It comes from NewReduction and
// does not change. The streams as they were are the writers of the stream that is left.
//
// What is left has an identity of its own, other than that of any stream which has just these attributes: it holds the
// Reduction, too, so that what comes of one never continues what came of another. Of the metric there are name, unit, type and
// monotonic flag in it, but not the temporality.
type Reduction struct {
	resource, scope, point selection
	print                  ID
}

// String returns what is selected, of each part of which something is. It is equal for equal Reductions, and for no others.
func (r *Reduction) String() string {
	var b strings.Builder
	for _, part := range [...]struct {
		name string
		*selection
	}{{"resource", &r.resource}, {"scope", &r.scope}, {"attributes", &r.point}} {
		if part.all() {
			continue
		}
		if b.Len() > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s %s %q", part.verb(), part.name, part.names)
	}
	return b.String()
}

// selection is a Selection ready for use.
type selection struct {
	names []string // sorted
	keep  bool     // only these
}

// NewReduction returns the Reduction that selects the attributes of resources, scopes and points.
func NewReduction(resource, scope, point Selection) (*Reduction, error) {
	r, err := newReduction(resource, scope, point)
	if err != nil {
		return nil, fmt.Errorf("streamid: %w", err)
	}
	return r, nil
}

func newReduction(resource, scope, point Selection) (*Reduction, error) {
	r := new(Reduction)
	sum := pairSum{}
	for _, part := range [...]struct {
		name string
		from Selection
		to   *selection
	}{{"resource", resource, &r.resource}, {"scope", scope, &r.scope}, {"attributes", point, &r.point}} {
		var err error
		if *part.to, err = part.from.ready(); err != nil {
			return nil, fmt.Errorf("%s: %w", part.name, err)
		}
		// As attributes: to the name of a part the slice of what is selected of it. Names are sorted, for their order says nothing.
		if !part.to.all() {
			key := hashString(part.name, tagReduction)
			sum.add(key, hashStrings(slices.Concat([]string{part.to.verb()}, part.to.names), key.Lo))
		}
	}
	if sum.count == 0 {
		return nil, fmt.Errorf("nothing is left out: name attributes of the resource, the scope or the points")
	}
	var buf [24]byte
	sum.put(buf[:])
	r.print = hashBytes(buf[:], tagReduction)
	return r, nil
}

func (s Selection) ready() (selection, error) {
	names, what := s.Drop, "drop"
	if s.Keep != nil {
		if len(s.Drop) > 0 {
			return selection{}, fmt.Errorf("drop and keep exclude each other: what is not kept is dropped")
		}
		names, what = s.Keep, "keep"
	}
	names = slices.Sorted(slices.Values(names))
	for i, name := range names {
		if name == "" {
			return selection{}, fmt.Errorf("%s: an attribute has no name", what)
		}
		if i > 0 && names[i-1] == name {
			return selection{}, fmt.Errorf("%s: attribute %.40q is listed twice", what, name)
		}
	}
	return selection{names: names, keep: s.Keep != nil}, nil
}

// verb says what happens to the names.
func (s *selection) verb() string {
	if s.keep {
		return "keep"
	}
	return "drop"
}

// all reports whether all attributes stay.
func (s *selection) all() bool { return !s.keep && len(s.names) == 0 }

// leaves reports whether the attribute stays.
func (s *selection) leaves(name string) bool {
	if len(s.names) > 8 {
		_, found := slices.BinarySearch(s.names, name)
		return found == s.keep
	}
	for i := range s.names {
		if s.names[i] == name {
			return s.keep
		}
	}
	return !s.keep
}

// strip takes from m what does not stay.
func (s *selection) strip(m pcommon.Map) {
	if !s.all() {
		m.RemoveIf(func(name string, _ pcommon.Value) bool { return !s.leaves(name) })
	}
}

// differs reports whether m has attributes that do not stay.
func (s *selection) differs(m pcommon.Map) bool {
	if s.all() {
		return false
	}
	for name := range m.All() {
		if !s.leaves(name) {
			return true
		}
	}
	return false
}

// sums hashes the attributes of m, all of them and those that stay.
func (s *selection) sums(m pcommon.Map, seed uint64) (whole, left pairSum) {
	if s.all() {
		whole = sumPairs(m, seed)
		return whole, whole
	}
	for name, v := range m.All() {
		key, value := hashPair(name, v, seed)
		whole.add(key, value)
		if s.leaves(name) {
			left.add(key, value)
		}
	}
	return whole, left
}

// left is the second result of sums, without the first.
func (s *selection) left(m pcommon.Map, seed uint64) (left pairSum) {
	if s.all() {
		return sumPairs(m, seed)
	}
	for name, v := range m.All() {
		if s.leaves(name) {
			left.add(hashPair(name, v, seed))
		}
	}
	return left
}

// hashPair hashes an attribute as sumPairs does.
func hashPair(name string, v pcommon.Value, seed uint64) (key, value ID) {
	key = hashString(name, seed)
	if text := v.Str(); text != "" {
		return key, feedForward(hashString(text, key.Lo+tagStr), key.Lo+tagStr)
	}
	return key, hashValue(v, key.Lo)
}

// Resource is Tenant.Resource of what is left of a resource.
func (r *Reduction) Resource(t Tenant, res pcommon.Resource) Resource {
	var buf [64]byte
	r.resource.left(res.Attributes(), t.seed).put(buf[:24])
	t.sum.put(buf[24:48])
	r.print.put(buf[48:])
	return Resource{seed: t.seed, hash: hashBytes(buf[:], t.seed+tagReduced)}
}

// Scope is Resource.Scope of what is left of a scope.
func (r *Reduction) Scope(in Resource, scope pcommon.InstrumentationScope) Scope {
	return in.scope(scope, r.scope.left(scope.Attributes(), in.seed))
}

// Metric is Scope.Metric, whatever the temporality.
func (r *Reduction) Metric(in Scope, m pmetric.Metric) Metric {
	kind, monotonic, _ := kindOf(m)
	return in.metric(m, kind, monotonic, temporalityUnspecified)
}

// Point returns the identity of the stream that is left, of a point in what is left of its metric.
func (r *Reduction) Point(left Metric, attrs pcommon.Map) ID {
	return left.point(r.point.left(attrs, left.seed))
}

// Points returns the identities of the stream that is left, and of its writer: that is the stream as it was, whole being its metric. A
// writer has the first half in common with its stream, which no two streams have but for chance. So writers of one stream are
// told apart by 64 bits: among a million of them the odds of a collision are 1 in 30 million.
func (r *Reduction) Points(whole, left Metric, attrs pcommon.Map) (stream, writer ID) {
	all, some := r.point.sums(attrs, left.seed)
	stream = left.point(some)
	w := hashWords(whole.hash.Hi, whole.hash.Lo^stream.Lo, all.hi, all.lo, all.count, left.seed+tagWriter)
	return stream, ID{Hi: stream.Hi, Lo: fold(w)}
}

// StripResource takes from the attributes of a resource what does not stay.
func (r *Reduction) StripResource(m pcommon.Map) { r.resource.strip(m) }

// StripScope takes from the attributes of a scope what does not stay.
func (r *Reduction) StripScope(m pcommon.Map) { r.scope.strip(m) }

// StripPoint takes from the attributes of a point what does not stay.
func (r *Reduction) StripPoint(m pcommon.Map) { r.point.strip(m) }

// StripsPoints reports whether attributes of points may not stay.
func (r *Reduction) StripsPoints() bool { return !r.point.all() }

// Strips reports whether something of the attributes of a resource or a scope does not stay.
func (r *Reduction) Strips(resource, scope pcommon.Map) bool {
	return r.resource.differs(resource) || r.scope.differs(scope)
}
