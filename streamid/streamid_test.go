// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid_test

import (
	"sync"
	"testing"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/streamid"
)

func TestNothingAllocates(t *testing.T) {
	for _, g := range goldenIdentities() {
		allowed := 0.0
		for _, a := range g.Attributes {
			if a.Value.Type == "bytes" && len(a.Value.bytes()) > 1024 {
				allowed = 1
			}
		}
		s := g.pdata(t)
		if got := testing.AllocsPerRun(10, func() { sink = s.batch(g.Seed) }); got > allowed {
			t.Errorf("%s, batch form: %v allocations, want at most %v", g.description, got, allowed)
		}
		if got := testing.AllocsPerRun(10, func() { sink = streamid.Of(s.resource, s.scope, s.metric, s.attributes) }); got > allowed {
			t.Errorf("%s, Of: %v allocations, want at most %v", g.description, got, allowed)
		}
	}
}

func TestAppendBinaryDoesNotAllocateGivenRoom(t *testing.T) {
	buf := make([]byte, 0, 16)
	if got := testing.AllocsPerRun(10, func() { _, _ = sink.AppendBinary(buf) }); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

// TestStepsAreValues: one resource, scope or metric serves any number of branches, in any order.
func TestStepsAreValues(t *testing.T) {
	a, b := goldenIdentities()[1].identity, goldenIdentities()[1].identity
	b.Metric.Name = "another"
	b.Attributes = nil
	sa, sb := a.pdata(t), b.pdata(t)
	scope := streamid.Seed(0).Resource(sa.resource).Scope(sa.scope)
	ma, mb := scope.Metric(sa.metric), scope.Metric(sb.metric)
	for range 2 {
		if got, want := mb.Point(sb.attributes), check(t, b); got != want {
			t.Errorf("got %v, want %v", got, want)
		}
		if got, want := ma.Point(sa.attributes), check(t, a); got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}

// TestDeepNesting follows 100000 levels. The reference would do the same at the expense of gigabytes of wire format, so
// the expectation is only that nothing breaks and the innermost value counts.
func TestDeepNesting(t *testing.T) {
	const depth = 100_000
	nest := func(innermost string) pcommon.Map {
		attrs := pcommon.NewMap()
		v := attrs.PutEmpty("key")
		for i := range depth {
			if i%2 == 0 {
				v = v.SetEmptySlice().AppendEmpty()
			} else {
				v = v.SetEmptyMap().PutEmpty("key")
			}
		}
		v.SetStr(innermost)
		return attrs
	}
	var nothing streamid.Metric
	a, again, b := nothing.Point(nest("a")), nothing.Point(nest("a")), nothing.Point(nest("b"))
	if a != again {
		t.Errorf("two IDs, %v and %v", a, again)
	}
	if a == b {
		t.Errorf("the innermost value does not count: %v", a)
	}
}

// TestManyAttributes: the cost is linear, and so 100000 attributes are no way to stop a collector.
func TestManyAttributes(t *testing.T) {
	as := make([]attribute, 100_000)
	for i := range as {
		as[i] = attr(string(refWord(uint64(i))), integer(int64(i)))
	}
	id := identity{Attributes: as}
	want := id.reference().ID
	if got := id.pdata(t).batch(0); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestConcurrentReaders is for the race detector, on data that pdata itself guards against writes.
func TestConcurrentReaders(t *testing.T) {
	id := goldenIdentities()[1].identity
	want := check(t, id)
	s := id.pdata(t)
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	s.resource.MoveTo(rm.Resource())
	sm := rm.ScopeMetrics().AppendEmpty()
	s.scope.MoveTo(sm.Scope())
	m := sm.Metrics().AppendEmpty()
	s.metric.MoveTo(m)
	attrs := m.Histogram().DataPoints().AppendEmpty().Attributes()
	s.attributes.MoveTo(attrs)
	md.MarkReadOnly()

	scope := streamid.Seed(0).Resource(rm.Resource()).Scope(sm.Scope())
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for range 100 {
				if got := scope.Metric(m).Point(attrs); got != want {
					t.Errorf("got %v, want %v", got, want)
				}
			}
		})
	}
	readers.Wait()
}
