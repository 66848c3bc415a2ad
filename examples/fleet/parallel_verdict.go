// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// result is what became of the samples that clients sent through a set-up.
type result struct {
	setup setup

	totals, gauges tally
	requests       int            // that came to the backend
	rejected       int            // of these, by the backend's own metrics
	excuse         string         // what it said of the first one
	outOfOrder     int            // samples, by the backend's own metrics; it ends a request with the first one
	refused        int            // requests that clients were told not to send again
	retries        int            // of clients
	items          map[string]int // by outcome, as lanes count them
	series, want   int            // series in the backend, and of clients
	increase       float64        // sum(increase()) of the counters, of what clients counted
	example        string         // a sample that is not true, or a stream whose last value is not
}

// tally is of data points; a histogram is one.
type tally struct {
	sent, missing int // points
	untrue        int // samples that nobody sent so
	streams       int
	wrong         int // streams whose last value is missing, or another one
}

// share is how much is missing.
func (t tally) share() string {
	if t.missing == 0 {
		return "0"
	}
	return fmt.Sprintf("%.1f %%", 100*float64(t.missing)/float64(max(1, t.sent)))
}

// point is a stream whatever series the backend makes of it.
func (k seriesKey) point() seriesKey {
	for _, suffix := range []string{"_bucket", "_count", "_sum"} {
		if name, is := strings.CutSuffix(k.name, suffix); is {
			k.name = name
		}
	}
	k.le = ""
	return k
}

// judge compares what the backend has with what was sent. Both have the samples of a series in order.
func (r *result) judge(truths, stored map[seriesKey][]sample) {
	type stream struct {
		sent    int
		missing map[int64]bool
		untrue  int
		wrong   bool
	}
	streams := map[seriesKey]*stream{}
	for key, truth := range truths {
		s := streams[key.point()]
		if s == nil {
			s = &stream{missing: map[int64]bool{}}
			streams[key.point()] = s
		}
		s.sent = len(truth)
		values := map[int64]float64{}
		for _, v := range stored[key] {
			values[v.ms] = v.value
		}
		for _, v := range truth {
			value, has := values[v.ms]
			if !has {
				s.missing[v.ms] = true
			} else if value == v.value {
				delete(values, v.ms)
			}
		}
		for ms, value := range values {
			s.untrue++
			r.example = fmt.Sprintf("%+v is %v at %d ms, which nobody sent", key, value, ms)
		}
		last := truth[len(truth)-1]
		if n := len(stored[key]); n == 0 || stored[key][n-1] != last {
			s.wrong = true
			if r.example == "" {
				r.example = fmt.Sprintf("%+v has not its last value, %v at %d ms", key, last.value, last.ms)
			}
		}
	}
	for key, s := range streams {
		t := &r.totals
		if key.name == gaugeSeries {
			t = &r.gauges
		}
		t.streams++
		t.sent += s.sent
		t.missing += len(s.missing)
		t.untrue += s.untrue
		if s.wrong {
			t.wrong++
		}
	}
	r.want = len(truths)
}

// stamp gives samples that were scraped, of which the scraper says the time, that of the scrape as the target knows it. Values
// tell scrapes apart, as none is there twice. What is not of any scrape, or of one long before or after, stays as it is.
func stamp(truths, stored map[seriesKey][]sample) {
	for key, samples := range stored {
		at := map[float64]int64{}
		for _, v := range truths[key] {
			at[v.value] = v.ms
		}
		for i, v := range samples {
			if ms, known := at[v.value]; known && max(ms-v.ms, v.ms-ms) < 1000 {
				samples[i].ms = ms
			}
		}
	}
}

// flawless reports whether nothing was rejected, and nothing lost but what lanes dropped as late: a total that was overtaken is
// contained in the later one, so every last value has to be there.
func (r *result) flawless() bool {
	counted := r.items["late"]
	if r.setup.forgets {
		counted += r.items["refused"]
	} else if r.rejected > 0 || r.outOfOrder > 0 || r.refused > 0 || r.items["refused"] > 0 {
		return false
	}
	return r.totals.untrue == 0 && r.gauges.untrue == 0 && r.totals.wrong == 0 && r.gauges.wrong == 0 &&
		r.totals.missing+r.gauges.missing <= counted && r.items["failed"] == 0 && r.series == r.want
}

// result reads what there is to judge.
func (p *parallel) result() (*result, error) {
	r := &result{setup: p.setup, items: map[string]int{}}
	truths := map[seriesKey][]sample{}
	if p.clients != nil {
		for _, c := range p.clients.all {
			c.truths(truths)
			r.retries += int(c.retries.Load())
			r.refused += int(c.refused.Load())
		}
	} else {
		for _, s := range p.targets.sources {
			s.truths(truths)
		}
	}
	stored, series, err := p.prom.merged()
	if err != nil {
		return nil, err
	}
	if p.scrape {
		stamp(truths, stored)
	}
	r.series = series
	r.judge(truths, stored)

	var counted float64
	for key, truth := range truths {
		if key.name == counterSeries {
			counted += truth[len(truth)-1].value
		}
	}
	increase, err := p.prom.scalar(fmt.Sprintf(`sum(increase(%s{job="shop"}[10m]))`, counterSeries))
	if err != nil {
		return nil, err
	}
	r.increase = increase / counted

	p.backend.mu.Lock()
	r.requests, r.excuse = p.backend.requests, p.backend.excuse
	p.backend.mu.Unlock()
	if r.outOfOrder, err = p.prom.rejections(); err != nil {
		return nil, err
	}
	if r.rejected, err = p.prom.badRequests(); err != nil {
		return nil, err
	}
	items, err := p.telemetry.outcomes()
	for outcome, n := range items {
		r.items[outcome] = int(n)
	}
	return r, err
}

// query asks for an instant, a little after now, so that nothing is too new.
func (p *prometheus) query(query string, result any) error {
	body, err := get(p.url + "/api/v1/query?" + url.Values{
		"query": {query},
		"time":  {strconv.FormatInt(time.Now().Unix()+1, 10)},
	}.Encode())
	if err != nil {
		return err
	}
	reply := struct{ Data struct{ Result any } }{}
	reply.Data.Result = result
	if err := json.Unmarshal(body, &reply); err != nil {
		return fmt.Errorf("prometheus: %s: %w", query, err)
	}
	return nil
}

// merged reads all samples of the clients' series, and how many series there are. Series that differ by what is no label of the
// clients' are put together, as their samples are all of one stream.
func (p *prometheus) merged() (all map[seriesKey][]sample, series int, err error) {
	var result []struct {
		Metric map[string]string
		Values [][2]number // Unix seconds, value
	}
	if err := p.query(`{job="shop",__name__=~"shop_.+"}[1h]`, &result); err != nil {
		return nil, 0, err
	}
	all = map[seriesKey][]sample{}
	for _, r := range result {
		le := r.Metric["le"]
		if f, err := strconv.ParseFloat(le, 64); err == nil {
			le = strconv.FormatFloat(f, 'g', -1, 64)
		}
		key := seriesKey{r.Metric["__name__"], r.Metric["instance"], r.Metric["stream"], le}
		for _, v := range r.Values {
			all[key] = append(all[key], sample{int64(math.Round(float64(v[0]) * 1000)), float64(v[1])})
		}
	}
	for _, samples := range all {
		slices.SortStableFunc(samples, func(a, b sample) int { return int(a.ms - b.ms) })
	}
	return all, len(result), nil
}

// scalar asks for one number; it is 0 if there is none.
func (p *prometheus) scalar(query string) (float64, error) {
	var result []struct{ Value [2]number }
	if err := p.query(query, &result); err != nil || len(result) == 0 {
		return 0, err
	}
	return float64(result[0].Value[1]), nil
}

// badRequests is how many requests with samples Prometheus says that it has refused for good.
func (p *prometheus) badRequests() (int, error) {
	body, err := get(p.url + "/metrics")
	if err != nil {
		return 0, err
	}
	sum, found := 0, false
	for line := range strings.Lines(string(body)) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if !strings.HasPrefix(series, "prometheus_http_requests_total{") ||
			!strings.Contains(series, `handler="/api/v1/write"`) && !strings.Contains(series, `handler="/api/v1/otlp/v1/metrics"`) {
			continue
		}
		found = true
		if n, err := strconv.Atoi(value); err == nil && strings.Contains(series, `code="4`) {
			sum += n
		}
	}
	if !found {
		return 0, fmt.Errorf("this Prometheus does not count its requests")
	}
	return sum, nil
}

func writeResults(out io.Writer, results []*result) {
	fmt.Fprintln(out, "| set-up | backend takes | points sent | requests rejected | missing: counters, histograms | missing: gauges | of these dropped as late | last values wrong | series | `sum(increase())` |")
	fmt.Fprintln(out, "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|")
	for _, r := range results {
		title, late := r.setup.title, ""
		if r.setup.ours {
			title = "**" + title + "**"
			late = r.late()
		}
		fmt.Fprintf(out, "| %s | %s | %d | %d of %d | %s | %s | %s | %d of %d | %d | %.2f |\n",
			title, r.setup.latency, r.totals.sent+r.gauges.sent, r.rejected, r.requests, r.totals.share(), r.gauges.share(), late,
			r.totals.wrong+r.gauges.wrong, r.totals.streams+r.gauges.streams, r.series, r.increase)
	}
}

// late is how much of what is missing lanes dropped as late, and counted. What they had refused is none of that; a request that is
// sent again is counted again.
func (r *result) late() string {
	switch missing, late := r.totals.missing+r.gauges.missing, r.items["late"]; {
	case missing == 0:
		return ""
	case r.items["refused"] > 0:
		return fmt.Sprintf("all but %d", max(missing-late, r.items["refused"]))
	case missing <= late:
		return "all"
	default:
		return fmt.Sprintf("all but %d", missing-late)
	}
}

// line tells it all, for a reader who waits.
func (r *result) line() string {
	s := fmt.Sprintf("%s: %d points sent; %d of %d requests and %d samples rejected; counters and histograms: %d of %d missing, %d untrue, %d of %d wrong at the end; "+
		"gauges: %d of %d missing, %d untrue, %d wrong at the end; lanes %v; %d series of %d, increase %.3f; %d retries, %d refused",
		r.setup.name, r.totals.sent+r.gauges.sent, r.rejected, r.requests, r.outOfOrder, r.totals.missing, r.totals.sent, r.totals.untrue, r.totals.wrong, r.totals.streams,
		r.gauges.missing, r.gauges.sent, r.gauges.untrue, r.gauges.wrong, r.items, r.series, r.want, r.increase, r.retries, r.refused)
	if r.example != "" {
		s += "; " + r.example
	}
	if r.excuse != "" {
		s += "; " + strings.TrimSpace(r.excuse)
	}
	return s
}
