// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/streamid"
)

// randomSelection names some of the attributes and some others, at times very many.
func randomSelection(r *rand.Rand, as []attribute) selectionSpec {
	var names []string
	add := func(name string) {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, a := range as {
		if r.IntN(2) == 0 {
			add(a.Key)
		}
	}
	for range []int{0, 0, 1, 12}[r.IntN(4)] {
		add(randomString(r))
	}
	r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	switch r.IntN(3) {
	case 0:
		return selectionSpec{}
	case 1:
		return keep(names...)
	}
	return drop(names...)
}

func randomReduction(r *rand.Rand, id identity) reductionSpec {
	for {
		spec := reductionSpec{
			randomSelection(r, id.Resource), randomSelection(r, id.Scope.Attributes), randomSelection(r, id.Attributes),
		}
		if !spec.nothing() {
			return spec
		}
	}
}

// reshuffled returns the same with names in another order.
func (r reductionSpec) reshuffled(random *rand.Rand) reductionSpec {
	for _, s := range []*selectionSpec{&r.Resource, &r.Scope, &r.Point} {
		for _, names := range []*[]string{&s.Drop, &s.Keep} {
			if *names != nil {
				*names = slices.Clone(*names)
				random.Shuffle(len(*names), func(i, j int) { (*names)[i], (*names)[j] = (*names)[j], (*names)[i] })
			}
		}
	}
	return r
}

// neighbours returns all that differ from r in one part.
func (r reductionSpec) neighbours() (all []reductionSpec) {
	for _, part := range []func(*reductionSpec) *selectionSpec{
		func(r *reductionSpec) *selectionSpec { return &r.Resource },
		func(r *reductionSpec) *selectionSpec { return &r.Scope },
		func(r *reductionSpec) *selectionSpec { return &r.Point },
	} {
		s := *part(&r)
		names := slices.Concat(s.Drop, s.Keep)
		for _, other := range []selectionSpec{{}, drop(names...), keep(names...), keep(), drop("not there"), keep("not there"), drop("drop"), drop("keep")} {
			changed := r
			*part(&changed) = other
			if !changed.nothing() {
				all = append(all, changed)
			}
		}
	}
	return all
}

// TestOneStreamIsLeftOfThoseThatDifferInWhatGoes, and of no others: identities are equal exactly where what is left is, and what
// selects it, whatever the order of attributes and names and the temporality. Those of writers are where the whole is equal.
func TestOneStreamIsLeftOfThoseThatDifferInWhatGoes(t *testing.T) {
	rounds := 25
	if testing.Short() {
		rounds = 5
	}
	r := rand.New(rand.NewPCG(41, 1))
	streams, writers := newBijection(t), newBijection(t)
	for range rounds {
		id := randomIdentity(r)
		spec := randomReduction(r, id)
		add := func(id identity, spec reductionSpec) {
			of, writer := checkReduced(t, id, spec)
			streams.addText(spec.canonical()+spec.left(id).canonical(), of)
			writers.addText(spec.canonical()+id.canonical(), writer)
			if writer.Hi != of.Hi {
				t.Fatalf("writer %v of stream %v", writer, of)
			}
			streams.addText("whole "+id.canonical(), check(t, id))
		}
		add(id, spec)
		add(id.shuffled(r), spec.reshuffled(r))
		for _, other := range spec.neighbours() {
			add(id, other)
		}
		for _, other := range id.changes() {
			add(other, spec)
		}
	}
}

// TestKeepNothingIsNotLeaveAll.
func TestKeepNothingIsNotLeaveAll(t *testing.T) {
	id := goldenIdentities()[1].identity
	seen := map[streamid.ID]bool{}
	for _, point := range []selectionSpec{{}, keep(), drop("http.route"), keep("http.request.method", "http.response.status_code", "server.address")} {
		of, _ := checkReduced(t, id, reductionSpec{Resource: drop("host"), Point: point})
		seen[of] = true
	}
	if len(seen) != 4 {
		t.Errorf("%d streams, want 4", len(seen))
	}
}

func TestNewReductionNamesWhatIsWrong(t *testing.T) {
	type s = streamid.Selection
	for _, test := range []struct {
		resource, scope, point s
		want                   string
	}{
		{s{}, s{}, s{}, "streamid: nothing is left out: name attributes of the resource, the scope or the points"},
		{s{Drop: []string{}}, s{}, s{}, "streamid: nothing is left out: name attributes of the resource, the scope or the points"},
		{s{Drop: []string{"a", ""}}, s{}, s{}, "streamid: resource: drop: an attribute has no name"},
		{s{}, s{Keep: []string{"a", "b", "a"}}, s{}, `streamid: scope: keep: attribute "a" is listed twice`},
		{s{}, s{}, s{Drop: []string{"a"}, Keep: []string{}}, "streamid: attributes: drop and keep exclude each other: what is not kept is dropped"},
		{s{}, s{}, s{Drop: slices.Repeat([]string{strings.Repeat("x", 100)}, 2)}, `streamid: attributes: drop: attribute "` + strings.Repeat("x", 40) + `" is listed twice`},
	} {
		if r, err := streamid.NewReduction(test.resource, test.scope, test.point); err == nil || err.Error() != test.want {
			t.Errorf("got %v, %v, want %s", r, err, test.want)
		}
	}
}

func TestReductionString(t *testing.T) {
	spec := reductionSpec{Resource: drop("pod", "a b"), Point: keep()}
	if got, want := spec.reduction().String(), `drop resource ["a b" "pod"], keep attributes []`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestReductionDoesNotChange although the caller's list does.
func TestReductionDoesNotChange(t *testing.T) {
	names := []string{"pod"}
	rules := must(streamid.NewRules([]streamid.Rule{{Metrics: names, Point: streamid.Selection{Drop: names}}}))
	names[0] = "host"
	if got, want := rules.String(), `[{["pod"] drop attributes ["pod"]}]`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestReductionsDoNotAllocate(t *testing.T) {
	many := make([]string, 20)
	for i := range many {
		many[i] = fmt.Sprintf("name-%d", i)
	}
	s := goldenIdentities()[1].pdata(t)
	keys := []streamid.TenantKey{{Name: "x-tenant", Values: []string{"acme"}}}
	for _, spec := range []reductionSpec{
		{Resource: drop("process.pid")}, {Resource: keep(), Scope: keep()}, {Point: drop("http.route")}, {Point: keep(many...)}, {Point: drop(many...)},
	} {
		rules := rulesOf([]ruleSpec{{[]string{"grpc.*"}, spec}, {[]string{"http.*.duration"}, spec}})
		if got := testing.AllocsPerRun(10, func() {
			r := rules.At(rules.Find(s.metric.Name()))
			tenant := streamid.Seed(0).Tenant(keys...)
			whole := tenant.Resource(s.resource).Scope(s.scope).Metric(s.metric)
			left := r.Metric(r.Scope(r.Resource(tenant, s.resource), s.scope), s.metric)
			sink, _ = r.Points(whole, left, s.attributes)
			sink = r.Point(left, s.attributes)
			r.Strips(s.resource.Attributes(), s.scope.Attributes())
		}); got != 0 {
			t.Errorf("%v: %v allocations", spec, got)
		}
	}
}

// BenchmarkReducedPoint is the cost per point with 4 attributes of the stream and its writer, beside that of the stream alone where
// there is no Reduction.
func BenchmarkReducedPoint(b *testing.B) {
	res, scope, m := benchmarkHeaders()
	whole := streamid.Seed(0).Resource(res).Scope(scope).Metric(m)
	attrs := benchmarkAttributes(4)
	b.Run("whole", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			sink = whole.Point(attrs)
		}
	})
	for _, bench := range []struct {
		name string
		spec reductionSpec
	}{
		{"resource", reductionSpec{Resource: drop("service.instance.id")}},
		{"drop=1", reductionSpec{Point: drop("server.address")}},
		{"keep=3", reductionSpec{Point: keep("http.request.method", "http.route", "http.response.status_code")}},
		{"keep=0", reductionSpec{Point: keep()}},
	} {
		r := bench.spec.reduction()
		left := r.Metric(r.Scope(r.Resource(streamid.Seed(0).Tenant(), res), scope), m)
		b.Run(bench.name+"/writer", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, sink = r.Points(whole, left, attrs)
			}
		})
		b.Run(bench.name+"/stream", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				sink = r.Point(left, attrs)
			}
		})
	}
}

// Two pods are the writers of one stream.
func ExampleReduction() {
	rules, err := streamid.NewRules([]streamid.Rule{{
		Metrics: []string{"http.*"}, Resource: streamid.Selection{Drop: []string{"k8s.pod.name"}},
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	md := pmetric.NewMetrics()
	for _, pod := range []string{"checkout-0", "checkout-1"} {
		rm := md.ResourceMetrics().AppendEmpty()
		rm.Resource().Attributes().PutStr("service.name", "checkout")
		rm.Resource().Attributes().PutStr("k8s.pod.name", pod)
		m := rm.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
		m.SetName("http.requests")
		m.SetEmptySum().DataPoints().AppendEmpty()
	}
	tenant := streamid.Seed(0).Tenant()
	for _, rm := range md.ResourceMetrics().All() {
		sm := rm.ScopeMetrics().At(0)
		m := sm.Metrics().At(0)
		r := rules.At(rules.Find(m.Name()))
		whole := tenant.Resource(rm.Resource()).Scope(sm.Scope()).Metric(m)
		left := r.Metric(r.Scope(r.Resource(tenant, rm.Resource()), sm.Scope()), m)
		stream, writer := r.Points(whole, left, m.Sum().DataPoints().At(0).Attributes())
		fmt.Println(stream, writer)
	}
	// Output:
	// 4e9528ebacbd86da20622466f3b622ac 4e9528ebacbd86dafde036647db53893
	// 4e9528ebacbd86da20622466f3b622ac 4e9528ebacbd86daf0d951a08c0461d3
}
