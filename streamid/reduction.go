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

// Selection says which attributes of a map to keep. The zero Selection keeps all.
type Selection struct {
	// Drop names the attributes to remove.
	Drop []string
	// Keep, if not nil, names the attributes to keep; all others are removed. Names that a map lacks are ignored. It cannot
	// be combined with Drop.
	Keep []string
}

// Reduction merges streams by removing some of the attributes in which they differ. It is made by NewReduction and does not
// change. The original streams are the writers of the remaining stream.
//
// The remaining stream has its own identity, different from that of any stream that has just these attributes: the identity
// includes the Reduction, so the results of one never continue those of another. Of the metric it includes name, unit, type
// and monotonic flag, but not the temporality.
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

// NewReduction returns the Reduction that applies the selections to the attributes of resources, scopes and points.
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

// Resource is Tenant.Resource for the remaining attributes of a resource.
func (r *Reduction) Resource(t Tenant, res pcommon.Resource) Resource {
	var buf [64]byte
	r.resource.left(res.Attributes(), t.seed).put(buf[:24])
	t.sum.put(buf[24:48])
	r.print.put(buf[48:])
	return Resource{seed: t.seed, hash: hashBytes(buf[:], t.seed+tagReduced)}
}

// Scope is Resource.Scope for the remaining attributes of a scope.
func (r *Reduction) Scope(in Resource, scope pcommon.InstrumentationScope) Scope {
	return in.scope(scope, r.scope.left(scope.Attributes(), in.seed))
}

// Metric is Scope.Metric, regardless of the temporality.
func (r *Reduction) Metric(in Scope, m pmetric.Metric) Metric {
	kind, monotonic, _ := kindOf(m)
	return in.metric(m, kind, monotonic, temporalityUnspecified)
}

// Point returns the identity of the remaining stream, for a point in the remaining metric.
func (r *Reduction) Point(left Metric, attrs pcommon.Map) ID {
	return left.point(r.point.left(attrs, left.seed))
}

// Points returns the identities of the remaining stream and of its writer, the original stream, whose metric is whole. A
// writer shares the first half of the stream's ID, which no two streams have in common except by chance. Writers of one
// stream are therefore told apart by 64 bits: among a million of them the odds of a collision are 1 in 30 million.
func (r *Reduction) Points(whole, left Metric, attrs pcommon.Map) (stream, writer ID) {
	all, some := r.point.sums(attrs, left.seed)
	stream = left.point(some)
	w := hashWords(whole.hash.Hi, whole.hash.Lo^stream.Lo, all.hi, all.lo, all.count, left.seed+tagWriter)
	return stream, ID{Hi: stream.Hi, Lo: fold(w)}
}

// StripResource removes the attributes of a resource that the Reduction does not keep.
func (r *Reduction) StripResource(m pcommon.Map) { r.resource.strip(m) }

// StripScope removes the attributes of a scope that the Reduction does not keep.
func (r *Reduction) StripScope(m pcommon.Map) { r.scope.strip(m) }

// StripPoint removes the attributes of a point that the Reduction does not keep.
func (r *Reduction) StripPoint(m pcommon.Map) { r.point.strip(m) }

// StripsPoints reports whether the Reduction can remove attributes of points.
func (r *Reduction) StripsPoints() bool { return !r.point.all() }

// Strips reports whether the Reduction removes any attribute of this resource or scope.
func (r *Reduction) Strips(resource, scope pcommon.Map) bool {
	return r.resource.differs(resource) || r.scope.differs(scope)
}
