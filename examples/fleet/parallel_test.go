// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"
)

// TestParallel runs some of the set-ups, for a few seconds each and at the same time; all of them run with go run . -parallel.
func TestParallel(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs Collectors")
	}
	binary, err := buildParallel.run(t.Context())
	if err != nil {
		t.Fatalf("no Collector to test: %v", err)
	}
	flawless := func(t *testing.T, r *result) {
		if !r.flawless() {
			t.Error("something is rejected, or lost")
		}
	}
	for name, check := range map[string]func(t *testing.T, r *result){
		// The same verdict, for a set-up that loses.
		"queue": func(t *testing.T, r *result) {
			if r.rejected == 0 || r.totals.missing == 0 || r.gauges.missing == 0 || r.flawless() {
				t.Error("queues that drift apart have nothing rejected")
			}
		},
		"lanes": flawless, "lanes-overtake": flawless, "lanes-scrape": flawless,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			chosen, err := chooseSetups(name)
			if err != nil {
				t.Fatal(err)
			}
			r, err := short.inParallel(t.Context(), chosen[0], binary)
			if err != nil {
				t.Fatal(err)
			}
			t.Log(r.line())
			check(t, r)
		})
	}
}

func TestChooseSetups(t *testing.T) {
	if all, err := chooseSetups(""); err != nil || len(all) != len(setups) {
		t.Errorf("%d set-ups, %v", len(all), err)
	}
	if some, err := chooseSetups("pod,lanes"); err != nil || len(some) != 2 || some[1].name != "lanes" {
		t.Errorf("%v, %v", some, err)
	}
	if _, err := chooseSetups("lanes,nothing"); err == nil {
		t.Error("an unknown set-up is no error")
	}
}

// TestTruthsMatchMetrics has the three forms of a reading agree: samples, OTLP and text.
func TestTruthsMatchMetrics(t *testing.T) {
	s := newSource(3)
	s.advance()
	s.take(1000)
	s.advance()
	r := s.take(2000)

	truths := map[seriesKey][]sample{}
	s.truths(truths)
	for key, samples := range truths {
		if len(samples) != 2 || samples[0].ms != 1000 || samples[1].ms != 2000 || samples[0].value == samples[1].value {
			t.Errorf("%v is %v", key, samples)
		}
	}
	md := r.metrics(s.name, s.begin)
	if points := sourceCounters + sourceHistograms + sourceGauges; md.DataPointCount() != points {
		t.Errorf("%d points, want %d", md.DataPointCount(), points)
	}
	metrics := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics()
	if got, want := metrics.At(0).Sum().DataPoints().At(5).IntValue(), truths[seriesKey{counterSeries, "client-3", "0005", ""}][1].value; float64(got) != want {
		t.Errorf("counter %v, want %v", got, want)
	}
	if got, want := metrics.At(1).Gauge().DataPoints().At(5).DoubleValue(), truths[seriesKey{gaugeSeries, "client-3", "0005", ""}][1].value; got != want {
		t.Errorf("gauge %v, want %v", got, want)
	}
	h := metrics.At(2).Histogram().DataPoints().At(1)
	if got, want := h.Count(), truths[seriesKey{histogramSeries + "_bucket", "client-3", "0001", "+Inf"}][1].value; float64(got) != want {
		t.Errorf("histogram %v, want %v", got, want)
	}
	text := r.exposition()
	if lines, want := strings.Count(text, "\n"), len(truths)+3; lines != want {
		t.Errorf("%d lines, want %d", lines, want)
	}
	if want := `shop_basket_bucket{stream="0000",le="+Inf"} `; !strings.Contains(text, want) {
		t.Errorf("no %s in\n%s", want, text)
	}
}

func TestJudge(t *testing.T) {
	counter, gauge := seriesKey{counterSeries, "client-0", "0000", ""}, seriesKey{gaugeSeries, "client-0", "0000", ""}
	count, sum := seriesKey{histogramSeries + "_count", "client-0", "0000", ""}, seriesKey{histogramSeries + "_sum", "client-0", "0000", ""}
	sent := []sample{{1, 10}, {2, 20}, {3, 30}}
	truths := map[seriesKey][]sample{counter: sent, gauge: sent, count: sent, sum: sent}
	for name, c := range map[string]struct {
		stored         map[seriesKey][]sample
		totals, gauges tally
	}{
		"all": {map[seriesKey][]sample{counter: sent, gauge: sent, count: sent, sum: sent}, tally{}, tally{}},
		"overtaken": {map[seriesKey][]sample{counter: {{1, 10}, {3, 30}}, gauge: {{3, 30}}, count: sent, sum: sent},
			tally{missing: 1}, tally{missing: 2}},
		"last": {map[seriesKey][]sample{counter: sent[:2], gauge: sent, count: sent, sum: sent}, tally{missing: 1, wrong: 1}, tally{}},
		"a histogram is one point": {map[seriesKey][]sample{counter: sent, gauge: sent, count: {{1, 10}, {3, 30}}, sum: {{1, 10}, {3, 30}}},
			tally{missing: 1}, tally{}},
		"half a histogram": {map[seriesKey][]sample{counter: sent, gauge: sent, count: {{1, 10}, {3, 30}}, sum: {{2, 20}, {3, 30}}},
			tally{missing: 2}, tally{}},
		"untrue": {map[seriesKey][]sample{counter: {{1, 10}, {2, 20}, {3, 31}}, gauge: append([]sample{{0, 1}}, sent...), count: sent, sum: sent},
			tally{untrue: 1, wrong: 1}, tally{untrue: 1}},
		"nothing": {nil, tally{missing: 6, wrong: 2}, tally{missing: 3, wrong: 1}},
	} {
		c.totals.sent, c.totals.streams, c.gauges.sent, c.gauges.streams = 6, 2, 3, 1
		r := &result{}
		r.judge(truths, c.stored)
		if r.totals != c.totals || r.gauges != c.gauges {
			t.Errorf("%s: totals %+v, gauges %+v, want %+v, %+v", name, r.totals, r.gauges, c.totals, c.gauges)
		}
	}
}

func TestFlawlessInParallel(t *testing.T) {
	of := func(change func(r *result)) *result {
		r := &result{items: map[string]int{"sent": 90, "late": 10}, series: 7, want: 7}
		r.totals, r.gauges = tally{sent: 50, missing: 6, streams: 5}, tally{sent: 50, missing: 4, streams: 5}
		change(r)
		return r
	}
	if !of(func(*result) {}).flawless() {
		t.Error("what is late, and counted, is a flaw")
	}
	for name, change := range map[string]func(r *result){
		"rejected":        func(r *result) { r.rejected = 1 },
		"out of order":    func(r *result) { r.outOfOrder = 1 },
		"not counted":     func(r *result) { r.gauges.missing++ },
		"wrong total":     func(r *result) { r.totals.wrong = 1 },
		"wrong gauge":     func(r *result) { r.gauges.wrong = 1 },
		"untrue total":    func(r *result) { r.totals.untrue = 1 },
		"untrue gauge":    func(r *result) { r.gauges.untrue = 1 },
		"client refused":  func(r *result) { r.refused = 1 },
		"refused":         func(r *result) { r.items["refused"] = 1 },
		"failed":          func(r *result) { r.items["failed"] = 1 },
		"too many series": func(r *result) { r.series++ },
	} {
		if of(change).flawless() {
			t.Errorf("%s is no flaw", name)
		}
	}
	late := func(r *result) {
		r.setup.forgets = true
		r.rejected, r.outOfOrder, r.refused, r.items["refused"], r.gauges.missing = 3, 3, 1, 2, r.gauges.missing+2
	}
	if !of(late).flawless() {
		t.Error("late samples of before a roll are a flaw")
	}
	if of(func(r *result) { late(r); r.totals.missing++ }).flawless() {
		t.Error("what was rejected along with them is no flaw")
	}
}

func TestWriteResults(t *testing.T) {
	r := &result{setup: setup{title: "lanes", ours: true, latency: near}, items: map[string]int{"late": 5}, series: 7, requests: 9, increase: 1}
	r.totals, r.gauges = tally{sent: 60, missing: 3, streams: 5}, tally{sent: 40, streams: 4}
	for want, items := range map[string]map[string]int{
		"| all |":       {"late": 5},
		"| all but 1 |": {"late": 2},
		"| all but 2 |": {"late": 9, "refused": 2}, // some of which were sent, and counted, again
	} {
		r.items = items
		var out strings.Builder
		writeResults(&out, []*result{r})
		if want := "\n| **lanes** | 20 to 600 ms | 100 | 0 of 9 | 5.0 % | 0 " + want + " 0 of 9 | 7 | 1.00 |\n"; !strings.HasSuffix(out.String(), want) {
			t.Errorf("%v: %s, want %s", items, out.String(), want)
		}
	}
}

func TestStamp(t *testing.T) {
	key := seriesKey{counterSeries, "client-0", "0000", ""}
	truths := map[seriesKey][]sample{key: {{1003, 10}, {2004, 20}, {3002, 30}}}
	stored := map[seriesKey][]sample{key: {{1000, 10}, {2000, 21}, {5000, 30}}}
	stamp(truths, stored)
	for i, want := range []sample{{1003, 10}, {2000, 21}, {5000, 30}} {
		if stored[key][i] != want {
			t.Errorf("%v, want %v", stored[key][i], want)
		}
	}
}

// TestOutcomes has Collectors push totals again and again, one of them from two starts.
func TestOutcomes(t *testing.T) {
	push := func(instance string, late ...int64) pmetric.Metrics {
		md := pmetric.NewMetrics()
		rm := md.ResourceMetrics().AppendEmpty()
		rm.Resource().Attributes().PutStr("service.instance.id", instance)
		m := rm.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
		m.SetName("otelcol_lanes_items")
		sum := m.SetEmptySum()
		for i, n := range late {
			dp := sum.DataPoints().AppendEmpty()
			dp.Attributes().PutStr("outcome", "late")
			dp.Attributes().PutInt("lanes", int64(i))
			dp.SetIntValue(n)
		}
		return md
	}
	tel := &telemetry{items: map[string]map[string]int64{}}
	tel.take(push("a", 1))
	tel.take(push("b", 5))
	tel.take(push("a", 2, 3))
	outcomes, err := tel.outcomes()
	if err != nil || outcomes["late"] != 10 {
		t.Errorf("%v, %v", outcomes, err)
	}
}

func TestBadRequests(t *testing.T) {
	body := ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }))
	defer server.Close()
	p := &prometheus{&database{url: server.URL}}
	if _, err := p.badRequests(); err == nil {
		t.Error("a backend that counts nothing is no error")
	}
	body = `# TYPE prometheus_http_requests_total counter
prometheus_http_requests_total{code="204",handler="/api/v1/write"} 7
prometheus_http_requests_total{code="400",handler="/api/v1/write"} 2
prometheus_http_requests_total{code="400",handler="/api/v1/otlp/v1/metrics"} 3
prometheus_http_requests_total{code="400",handler="/api/v1/query"} 100
prometheus_http_requests_total{code="503",handler="/api/v1/write"} 1000
`
	if n, err := p.badRequests(); err != nil || n != 5 {
		t.Errorf("%d, %v", n, err)
	}
}

func TestSettled(t *testing.T) {
	s := &slowBackend{last: time.Now().Add(-time.Minute)}
	if err := s.settled(); err != nil {
		t.Error(err)
	}
	s.count(1, "")
	s.last = time.Now().Add(-time.Minute)
	if s.settled() == nil {
		t.Error("settled while a request is under way")
	}
	s.count(-1, "")
	if s.settled() == nil {
		t.Error("settled at once")
	}
}
