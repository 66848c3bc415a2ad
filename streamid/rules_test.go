// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/streamid"
)

func TestPatterns(t *testing.T) {
	for pattern, names := range map[string][2][]string{ // that it matches, and that it does not
		"requests":   {{"requests"}, {"", "request", "requests.total", "Requests"}},
		"*":          {{"", "a", "*", "größe"}, nil},
		"?":          {{"a", "?", "*"}, {"", "ab", "ö"}},
		"??":         {{"ö"}, {"o"}},
		"http.*":     {{"http.", "http.server.duration"}, {"http", "xhttp.server"}},
		"*.duration": {{".duration", "a.duration", "a.duration.duration"}, {"duration", "a.durations"}},
		"a*b*c":      {{"abc", "abbcbc", "a*b*c"}, {"ab", "abcd", "acb"}},
		"a**":        {{"a", "ab"}, {"", "ba"}},
	} {
		for i, list := range names {
			for _, name := range list {
				if got, want := streamid.MatchAny([]string{"no", pattern}, name), i == 0; got != want || refMatch(pattern, name) != want {
					t.Errorf("%q, %q: got %v, want %v", pattern, name, got, want)
				}
			}
		}
	}
	if streamid.MatchAny(nil, "") {
		t.Error("no pattern matches something")
	}
}

// TestPatternsTakeNoTime, whoever writes the names.
func TestPatternsTakeNoTime(t *testing.T) {
	if streamid.MatchAny([]string{strings.Repeat("*a", 20) + "b"}, strings.Repeat("a", 10_000)) {
		t.Error("matches")
	}
}

func TestFirstRuleThatMatchesCounts(t *testing.T) {
	r := reductionSpec{Point: keep()}
	rules := rulesOf([]ruleSpec{{[]string{"http.server.*", "rpc"}, r}, {[]string{"http.*"}, r}, {[]string{"?*"}, r}})
	for name, want := range map[string]int{"http.server.duration": 0, "rpc": 0, "http.client": 1, "x": 2, "": -1} {
		if got := rules.Find(name); got != want {
			t.Errorf("%q: got %d, want %d", name, got, want)
		}
	}
	var none streamid.Rules
	if rules.Len() != 3 || none.Len() != 0 || none.Find("x") != -1 {
		t.Errorf("%d rules, none %d", rules.Len(), none.Len())
	}
}

func TestNewRulesNamesWhatIsWrong(t *testing.T) {
	point := streamid.Selection{Drop: []string{"pod"}}
	rule := func(patterns ...string) streamid.Rule { return streamid.Rule{Metrics: patterns, Point: point} }
	for _, test := range []struct {
		want string
		list []streamid.Rule
	}{
		{`streamid: rule 1: metrics: name at least one, "*" is all`, []streamid.Rule{rule("a"), rule()}},
		{"streamid: rule 0: metrics: no metric has an empty name", []streamid.Rule{rule("a", "")}},
		{"streamid: rule 0: nothing is left out: name attributes of the resource, the scope or the points", []streamid.Rule{{Metrics: []string{"*"}}}},
		{"streamid: rule 0: scope: keep: an attribute has no name", []streamid.Rule{{Metrics: []string{"*"}, Scope: streamid.Selection{Keep: []string{""}}}}},
		{`streamid: rule 2: metrics: "http.server.*" is never reached, rule 1 takes all that it matches`, []streamid.Rule{rule("a"), rule("b", "http.*"), rule("x", "http.server.*")}},
		{`streamid: rule 1: metrics: "a" is never reached, rule 0 takes all that it matches`, []streamid.Rule{rule("a"), rule("a")}},
	} {
		if rules, err := streamid.NewRules(test.list); err == nil || err.Error() != test.want {
			t.Errorf("got %v, %v, want %s", rules, err, test.want)
		}
	}
}

func TestRulesString(t *testing.T) {
	for want, rules := range map[string][]ruleSpec{
		"[]": nil,
		`[{["a b" "c"] keep resource [], drop scope ["y" "z"]} {["*"] drop attributes ["pod"]}]`: {
			{[]string{"c", "a b"}, reductionSpec{Resource: keep(), Scope: drop("z", "y")}}, {[]string{"*"}, reductionSpec{Point: drop("pod")}},
		},
	} {
		if got := rulesOf(rules).String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if got, want := rulesOf(rules).Key().String(), "aggregate "+want; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// FuzzRules: a pattern matches what it says, and one is refused as never reached only if nothing would ever reach it.
func FuzzRules(f *testing.F) {
	f.Add("http.*", "http.server.*", "http.server.duration", uint64(0))
	f.Add("?*", "*a", "a", uint64(1))
	f.Add("*?*", "???", "ö", uint64(2))
	f.Add("a*b*?c", "a*?bc", "abbc", uint64(3))
	f.Add("**", "*", "", uint64(4))
	f.Add("a?", "a*", "a*", uint64(5))
	f.Fuzz(func(t *testing.T, first, second, name string, seed uint64) {
		if len(first)+len(second)+len(name) > 1000 {
			return
		}
		checkRules(t, first, second, name)
		r := rand.New(rand.NewPCG(seed, 0))
		for range 4 { // names that the second matches
			var filled strings.Builder
			for i := range len(second) {
				switch second[i] {
				case '?':
					filled.WriteByte("ab*?"[r.IntN(4)])
				case '*':
					filled.WriteString([]string{"", "a", "b", "?", "*", "ab", name}[r.IntN(7)])
				default:
					filled.WriteByte(second[i])
				}
			}
			if !refMatch(second, filled.String()) {
				t.Fatalf("%q does not match %q", second, filled.String())
			}
			checkRules(t, first, second, filled.String())
		}
	})
}

func checkRules(t *testing.T, first, second, name string) {
	t.Helper()
	byFirst, bySecond := refMatch(first, name), refMatch(second, name)
	for pattern, want := range map[string]bool{first: byFirst, second: bySecond} {
		if got := streamid.MatchAny([]string{pattern}, name); got != want {
			t.Fatalf("%q matches %q: got %v, want %v", pattern, name, got, want)
		}
	}
	if first == "" || second == "" {
		return
	}
	all := streamid.Selection{Keep: []string{}}
	rules, err := streamid.NewRules([]streamid.Rule{{Metrics: []string{first}, Point: all}, {Metrics: []string{second}, Point: all}})
	if err != nil {
		if bySecond && !byFirst {
			t.Fatalf("%q is refused after %q, but it would be the first that matches %q: %v", second, first, name, err)
		}
		return
	}
	if first == second {
		t.Fatalf("%q is accepted twice", first)
	}
	want := -1
	if byFirst {
		want = 0
	} else if bySecond {
		want = 1
	}
	if got := rules.Find(name); got != want {
		t.Fatalf("%q then %q: rule for %q: got %d, want %d", first, second, name, got, want)
	}
}

func TestRandomRulesAgreeWithTheModel(t *testing.T) {
	r := rand.New(rand.NewPCG(42, 1))
	random := func(letters string) string {
		s := make([]byte, 1+r.IntN(6))
		for i := range s {
			s[i] = letters[r.IntN(len(letters))]
		}
		return string(s)
	}
	for range 20_000 {
		checkRules(t, random("ab*?"), random("ab*?"), random("ab"))
		// Without wildcards nothing is missed.
		pattern, name := random("ab*?"), random("ab")
		if got, want := streamid.CoversAny([]string{"no", pattern}, name), refMatch(pattern, name); got != want {
			t.Fatalf("%q covers %q: got %v, want %v", pattern, name, got, want)
		}
	}
}

// TestAllWritersHaveOneOwner: all points of which the same stream is left, in whatever batches, by whatever temporality.
func TestAllWritersHaveOneOwner(t *testing.T) {
	const n = 1000
	rules := rulesOf(usualRules)
	inBothWays(t, func() {
		r := rand.New(rand.NewPCG(43, 1))
		owners, writers := map[streamid.ID]int{}, map[streamid.ID]map[streamid.ID]bool{}
		send := func(tenant streamid.TenantKey, md pmetric.Metrics) {
			s := splitterFor(keySpec{Name: "aggregate", Rules: usualRules}, 1)
			parts, missing := s.MetricsOf([]streamid.TenantKey{tenant}, md, n, ranged(n), nil)
			if missing != 0 {
				t.Fatalf("%d missing", missing)
			}
			for _, part := range parts {
				eachPoint(part.Batch, func(rm pmetric.ResourceMetrics, sm pmetric.ScopeMetrics, m pmetric.Metric) {
					of := streamid.Seed(1).Tenant(tenant)
					whole := of.Resource(rm.Resource()).Scope(sm.Scope()).Metric(m)
					rule := rules.Find(m.Name())
					for _, attrs := range pointAttributes(m) {
						id := whole.Point(attrs)
						if rule >= 0 {
							reduction := rules.At(rule)
							left := reduction.Metric(reduction.Scope(reduction.Resource(of, rm.Resource()), sm.Scope()), m)
							var writer streamid.ID
							id, writer = reduction.Points(whole, left, attrs)
							if writers[id] == nil {
								writers[id] = map[streamid.ID]bool{}
							}
							writers[id][writer] = true
						}
						if before, ok := owners[id]; ok && before != part.Owner {
							t.Fatalf("stream %v has the owners %d and %d", id, before, part.Owner)
						}
						owners[id] = part.Owner
					}
				})
			}
		}
		for range 100 {
			tenant := streamid.TenantKey{Name: "x-tenant", Values: []string{fmt.Sprint(r.IntN(2))}}
			md := randomMetrics(r)
			for temporality := range pmetric.AggregationTemporality(3) {
				writing := metricsBatch.clone(md)
				eachPoint(writing, func(rm pmetric.ResourceMetrics, _ pmetric.ScopeMetrics, m pmetric.Metric) {
					rm.Resource().Attributes().PutStr("host", fmt.Sprint("node-", temporality))
					switch m.Type() {
					case pmetric.MetricTypeSum:
						m.Sum().SetAggregationTemporality(temporality)
					case pmetric.MetricTypeHistogram:
						m.Histogram().SetAggregationTemporality(temporality)
					case pmetric.MetricTypeExponentialHistogram:
						m.ExponentialHistogram().SetAggregationTemporality(temporality)
					}
				})
				send(tenant, writing)
			}
		}
		used := map[int]bool{}
		for id, of := range writers {
			used[owners[id]] = true
			if len(of) < 3 {
				t.Errorf("%d writers of %v, want 3 at least", len(of), id)
			}
		}
		if len(writers) < 100 || len(used) < 100 {
			t.Errorf("%d streams, %d owners: too little to tell", len(writers), len(used))
		}
	})
}
