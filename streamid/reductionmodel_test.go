// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/deltaring/deltaring/streamid"
)

// This file says what rules do in the plainest way: a stream without the attributes that go is another stream, as plain data.

// selectionSpec, reductionSpec and ruleSpec are Selection, Reduction and Rule as plain data. Their JSON form is that of the golden
// vectors.
type selectionSpec struct {
	Drop []string `json:"drop,omitempty"`
	Keep []string `json:"keep,omitzero"` // may be empty
}

type reductionSpec struct {
	Resource selectionSpec `json:"resource,omitzero"`
	Scope    selectionSpec `json:"scope,omitzero"`
	Point    selectionSpec `json:"attributes,omitzero"`
}

type ruleSpec struct {
	Metrics []string `json:"metrics"`
	reductionSpec
}

func drop(names ...string) selectionSpec { return selectionSpec{Drop: names} }
func keep(names ...string) selectionSpec { return selectionSpec{Keep: append([]string{}, names...)} }

func (s selectionSpec) selection() streamid.Selection { return streamid.Selection(s) }

func (r reductionSpec) reduction() *streamid.Reduction {
	return must(streamid.NewReduction(r.Resource.selection(), r.Scope.selection(), r.Point.selection()))
}

func rulesOf(specs []ruleSpec) *streamid.Rules {
	var list []streamid.Rule
	for _, s := range specs {
		list = append(list, streamid.Rule{
			Metrics: s.Metrics, Resource: s.Resource.selection(), Scope: s.Scope.selection(), Point: s.Point.selection(),
		})
	}
	return must(streamid.NewRules(list))
}

// nothing is true if all attributes stay.
func (s selectionSpec) nothing() bool { return s.Keep == nil && len(s.Drop) == 0 }

func (r reductionSpec) nothing() bool {
	return r.Resource.nothing() && r.Scope.nothing() && r.Point.nothing()
}

func (s selectionSpec) left(as []attribute) []attribute {
	return slices.DeleteFunc(slices.Clone(as), func(a attribute) bool {
		if s.Keep != nil {
			return !slices.Contains(s.Keep, a.Key)
		}
		return slices.Contains(s.Drop, a.Key)
	})
}

// left is what is left of a stream. Its temporality says nothing.
func (r reductionSpec) left(id identity) identity {
	id.Resource = r.Resource.left(id.Resource)
	id.Scope.Attributes = r.Scope.left(id.Scope.Attributes)
	id.Attributes = r.Point.left(id.Attributes)
	id.Metric.Temporality = "unspecified"
	return id
}

// canonical returns equal strings for those that select the same.
func (r reductionSpec) canonical() string {
	text := ""
	for _, s := range []selectionSpec{r.Resource, r.Scope, r.Point} {
		text += fmt.Sprintf("%v %q ", s.Keep != nil, slices.Sorted(slices.Values(slices.Concat(s.Drop, s.Keep))))
	}
	return text
}

// reducedHashes are the results of the steps.
type reducedHashes struct {
	Reduction streamid.ID `json:"reduction"`
	Resource  streamid.ID `json:"resource"`
	Scope     streamid.ID `json:"scope"`
	Metric    streamid.ID `json:"metric"`
	ID        streamid.ID `json:"id"`
	Writer    streamid.ID `json:"writer"`
}

// reduce computes encoding v1 as the package comment has it.
func (r reductionSpec) reduce(whole identity) reducedHashes {
	s, id := whole.Seed, r.left(whole)
	var parts []attribute
	for _, p := range []struct {
		name string
		selectionSpec
	}{{"resource", r.Resource}, {"scope", r.Scope}, {"attributes", r.Point}} {
		if p.nothing() {
			continue
		}
		verb, names := "drop", p.Drop
		if p.Keep != nil {
			verb, names = "keep", p.Keep
		}
		texts := []value{str(verb)}
		for _, name := range slices.Sorted(slices.Values(names)) {
			texts = append(texts, str(name))
		}
		parts = append(parts, attr(p.name, array(texts...)))
	}
	var h reducedHashes
	h.Reduction = h128(refSum(parts, 17*refG()), 17*refG())
	h.Resource = h128(concat(refSum(id.Resource, s), refSum(id.tenant(), s), refID(h.Reduction)), s+18*refG())
	h.Scope = h128(concat(refID(h.Resource), refID(h128([]byte(id.Scope.Name), s)), refID(h128([]byte(id.Scope.Version), s)),
		refSum(id.Scope.Attributes, s)), s+10*refG())
	h.Metric = h128(concat(refID(h.Scope), refID(h128([]byte(id.Metric.Name), s)), refID(h128([]byte(id.Metric.Unit), s)),
		refKind(id.Metric)), s+11*refG())
	h.ID = h128(concat(refID(h.Metric), refSum(id.Attributes, s)), s+12*refG())
	metric := whole.reference().Metric
	metric.Lo ^= h.ID.Lo
	h.Writer = streamid.ID{Hi: h.ID.Hi, Lo: refFold(h128(concat(refID(metric), refSum(whole.Attributes, s)), s+19*refG()))}
	return h
}

// refFind returns the place of the first rule that matches, or -1.
func refFind(rules []ruleSpec, name string) int {
	return slices.IndexFunc(rules, func(r ruleSpec) bool {
		return slices.ContainsFunc(r.Metrics, func(pattern string) bool { return refMatch(pattern, name) })
	})
}

// refMatch goes through the pattern with all the places in the name where it may be.
func refMatch(pattern, name string) bool {
	at := map[int]bool{0: true}
	for i := range len(pattern) {
		next := map[int]bool{}
		for n := range at {
			switch {
			case pattern[i] == '*':
				for ; n <= len(name); n++ {
					next[n] = true
				}
			case n < len(name) && (pattern[i] == '?' || pattern[i] == name[n]):
				next[n+1] = true
			}
		}
		at = next
	}
	return at[len(name)]
}

// checkReduced demands that all ways to hash what is left agree with the reference, and returns the identities of the stream and
// the writer.
func checkReduced(t testing.TB, id identity, spec reductionSpec) (of, writer streamid.ID) {
	t.Helper()
	want := spec.reduce(id)
	r := spec.reduction()
	s := id.pdata(t)
	tenant := streamid.Seed(id.Seed).Tenant(s.tenant...)
	scope := tenant.Resource(s.resource).Scope(s.scope)
	left := r.Metric(r.Scope(r.Resource(tenant, s.resource), s.scope), s.metric)
	of, writer = r.Points(scope.Metric(s.metric), left, s.attributes)
	if of != want.ID || writer != want.Writer {
		t.Fatalf("got stream %v and writer %v, want %v and %v, for %s of %s", of, writer, want.ID, want.Writer, r, id.canonical())
	}
	if got := r.Point(left, s.attributes); got != of {
		t.Fatalf("without the writer %v, with it %v, for %s of %s", got, of, r, id.canonical())
	}

	// What is taken away in earnest is what counts for nothing.
	model := spec.left(id)
	strips := len(model.Resource) < len(id.Resource) || len(model.Scope.Attributes) < len(id.Scope.Attributes)
	if got := r.Strips(s.resource.Attributes(), s.scope.Attributes()); got != strips {
		t.Fatalf("strips: got %v, want %v, for %s of %s", got, strips, r, id.canonical())
	}
	r.StripResource(s.resource.Attributes())
	r.StripScope(s.scope.Attributes())
	r.StripPoint(s.attributes)
	stripped := []string{
		canonicalAttributes(attributesOf(s.resource.Attributes())), canonicalAttributes(attributesOf(s.scope.Attributes())),
		canonicalAttributes(attributesOf(s.attributes)),
	}
	wanted := []string{canonicalAttributes(model.Resource), canonicalAttributes(model.Scope.Attributes), canonicalAttributes(model.Attributes)}
	if !slices.Equal(stripped, wanted) {
		t.Fatalf("stripped: got %s, want %s", strings.Join(stripped, " "), strings.Join(wanted, " "))
	}
	if r.Strips(s.resource.Attributes(), s.scope.Attributes()) {
		t.Fatalf("%s takes something of what it has left: %s", r, strings.Join(stripped, " "))
	}
	again := r.Point(r.Metric(r.Scope(r.Resource(tenant, s.resource), s.scope), s.metric), s.attributes)
	if again != of {
		t.Fatalf("once stripped %v, before %v, for %s of %s", again, of, r, id.canonical())
	}
	return of, writer
}
