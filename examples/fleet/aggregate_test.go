// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"time"
)

// TestAggregate has pods counted as one by the two forms of ours that keep their state, through everything at once; all ways and events
// run with go run . -aggregate.
func TestAggregate(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs Collectors")
	}
	binary, err := shippedBinary(t.Context())
	if err != nil {
		t.Fatalf("no Collector to test: %v", err)
	}
	for _, name := range []string{"durable/all", "shared-ring/all", "shared-interval/pods"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			chosen, err := chooseTotals(name)
			if err != nil {
				t.Fatal(err)
			}
			s, err := short.addUp(t.Context(), chosen[0].way, chosen[0].mishap, binary)
			if err != nil {
				t.Fatal(err)
			}
			t.Log(s.line())
			if !s.flawless() {
				t.Error("not exact")
			}
		})
	}
}

func TestChooseTotals(t *testing.T) {
	if all, err := chooseTotals(""); err != nil || len(all) != len(ways)*len(mishaps) {
		t.Errorf("%d, %v", len(all), err)
	}
	if some, err := chooseTotals("drop,durable/kill"); err != nil || len(some) != len(mishaps)+1 || some[0].way.name != "durable" || some[0].mishap.name != "kill" {
		t.Errorf("%v, %v", some, err)
	}
	if _, err := chooseTotals("durable/quake"); err == nil {
		t.Error("an unknown event is no error")
	}
}

// TestCollect has what a pod sends agree with what it says that it adds.
func TestCollect(t *testing.T) {
	d := newDeployment(&targets{})
	ctx := t.Context()
	d.scale(ctx, 1)
	p := d.pods[0]
	d.remove(1, true)
	d.running.Wait()
	md, counted := p.collect(time.Unix(1, 0), time.Unix(2, 0))
	metrics := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics()
	if got, want := metrics.At(0).Sum().DataPoints().At(3).IntValue(), counted[seriesKey{counterSeries, "", "0003", ""}]; got != want || got == 0 {
		t.Errorf("counter %v, want %v", got, want)
	}
	h := metrics.At(1).Histogram().DataPoints().At(1)
	if got, want := h.Count(), counted[seriesKey{histogramSeries + "_bucket", "", "0001", "+Inf"}]; int64(got) != want || got == 0 {
		t.Errorf("histogram %v, want %v", got, want)
	}
	if want := podCounters + podHistograms*(len(bounds)+1+2); len(counted) != want {
		t.Errorf("%d series, want %d", len(counted), want)
	}
}

func TestJudgeSum(t *testing.T) {
	a, b := seriesKey{counterSeries, "", "0000", ""}, seriesKey{histogramSeries + "_count", "", "0000", ""}
	expected := map[seriesKey]int64{a: 10, b: 7}
	for name, tc := range map[string]struct {
		stored map[seriesKey][]sample
		want   sum
	}{
		"exact":       {map[seriesKey][]sample{a: {{1, 0}, {2, 4}, {3, 10}}, b: {{3, 7}}}, sum{counted: 10, series: 2}},
		"no zero":     {map[seriesKey][]sample{a: {{2, 4}, {3, 10}}, b: {{3, 7}}}, sum{counted: 10, unseen: 4, series: 2}},
		"began anew":  {map[seriesKey][]sample{a: {{2, 4}, {3, 3}, {4, 6}}, b: {{3, 7}}}, sum{counted: 10, unseen: 4, resets: 1, series: 2}},
		"too much":    {map[seriesKey][]sample{a: {{2, 0}, {3, 11}}, b: {{3, 7}}}, sum{counted: 11, wrong: 1, series: 2}},
		"not there":   {map[seriesKey][]sample{a: {{2, 0}, {3, 10}}}, sum{counted: 10, wrong: 1, series: 1}},
		"not one":     {map[seriesKey][]sample{a: {{2, 0}, {3, 10}}, b: {{3, 7}}, {counterSeries, "shop-1", "0000", ""}: {{3, 0}}}, sum{counted: 10, wrong: 1, series: 3}},
		"all is lost": {nil, sum{wrong: 2}},
	} {
		s := &sum{}
		s.judge(expected, tc.stored)
		tc.want.expected, tc.want.want, s.example = 10, 2, ""
		if s.counted != tc.want.counted || s.unseen != tc.want.unseen || s.resets != tc.want.resets || s.wrong != tc.want.wrong ||
			s.series != tc.want.series || s.expected != 10 || s.want != 2 {
			t.Errorf("%s: %+v, want %+v", name, *s, tc.want)
		}
		s.increase = s.expected - s.unseen
		if got, want := s.flawless(), name == "exact" || name == "no zero"; got != want {
			t.Errorf("%s: flawless is %v", name, got)
		}
	}
}

func TestFlawlessSum(t *testing.T) {
	of := func(change func(*sum)) bool {
		s := &sum{expected: 10, counted: 10, increase: 10, series: 2, want: 2}
		change(s)
		return s.flawless()
	}
	if !of(func(*sum) {}) {
		t.Error("nothing is wrong, and it is a flaw")
	}
	for name, change := range map[string]func(*sum){
		"resets":   func(s *sum) { s.resets = 1 },
		"wrong":    func(s *sum) { s.wrong = 1 },
		"rejected": func(s *sum) { s.rejected = 1 },
		"refused":  func(s *sum) { s.refused = 1 },
		"series":   func(s *sum) { s.series = 3 },
		"increase": func(s *sum) { s.increase = 9 },
	} {
		if of(change) {
			t.Errorf("%s is no flaw", name)
		}
	}
}

func TestWriteSums(t *testing.T) {
	var out strings.Builder
	writeSums(&out, []*sum{
		{way: way{title: "one", ours: true}, mishap: nothing, expected: 200, counted: 200, increase: 199, series: 2, want: 2},
		{way: way{title: "two"}, mishap: nothing, expected: 200, counted: 211, increase: 205, resets: 3, wrong: 1, series: 2, want: 2, rejected: 4},
	})
	want := "| **one** | nothing | 100, exact | 99.50 | 0 | 0 of 2 | 2 | 0 |\n| two | nothing | 105.50 | 102.50 | 3 | 1 of 2 | 2 | 4 |\n"
	if !strings.HasSuffix(out.String(), want) {
		t.Errorf("got\n%s, want\n%s", out.String(), want)
	}
}
