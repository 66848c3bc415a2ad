// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// How many streams each client has of each kind.
const sourceCounters, sourceHistograms, sourceGauges = 20, 4, 20

// The gauge, and what Prometheus makes of its name; see counterMetric for the others.
const gaugeMetric, gaugeSeries = "shop.load", "shop_load"

// source is what a client measures: totals since it began, and gauges.
type source struct {
	name   string
	begin  time.Time
	random *rand.Rand

	mu    sync.Mutex
	ticks int
	now   reading
	taken []reading // all that was sent or scraped, in order
}

// reading is all values of a source at a time.
type reading struct {
	ms      int64
	orders  []int64
	baskets []basket
	loads   []float64
}

// basket is a histogram.
type basket struct {
	counts []int64 // by bucket
	sum    int64
}

func newSource(i int) *source {
	s := &source{name: fmt.Sprintf("client-%d", i), begin: time.Now(), random: rand.New(rand.NewPCG(uint64(i), 0))}
	s.now = reading{orders: make([]int64, sourceCounters), baskets: make([]basket, sourceHistograms), loads: make([]float64, sourceGauges)}
	for b := range s.now.baskets {
		s.now.baskets[b].counts = make([]int64, len(bounds)+1)
	}
	return s
}

// advance goes on by an interval. Every value becomes one that it has not been before: a sample that is lost shows, and one that is
// stored can be told from all others.
func (s *source) advance() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ticks++
	for i := range s.now.orders {
		s.now.orders[i] += 1 + s.random.Int64N(9)
	}
	for i := range s.now.baskets {
		b := &s.now.baskets[i]
		for n := range 1 + s.random.IntN(5) {
			observation := 1 // the first, so that all buckets rise
			if n > 0 {
				observation += s.random.IntN(9)
			}
			b.counts[bucketOf(observation)]++
			b.sum += int64(observation)
		}
	}
	for i := range s.now.loads {
		s.now.loads[i] = float64((s.ticks*7919 + i) % 10007)
	}
}

// take returns the values of now, which count as sent.
func (s *source) take(ms int64) reading {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := reading{ms: ms, orders: slices.Clone(s.now.orders), baskets: slices.Clone(s.now.baskets), loads: slices.Clone(s.now.loads)}
	for b := range r.baskets {
		r.baskets[b].counts = slices.Clone(r.baskets[b].counts)
	}
	s.taken = append(s.taken, r)
	return r
}

// series calls f for each sample of a reading as the backend has it.
func (r reading) series(instance string, f func(seriesKey, sample)) {
	for i, total := range r.orders {
		f(seriesKey{counterSeries, instance, streamName(i), ""}, sample{r.ms, float64(total)})
	}
	for i, load := range r.loads {
		f(seriesKey{gaugeSeries, instance, streamName(i), ""}, sample{r.ms, load})
	}
	for i, b := range r.baskets {
		var count int64
		for n, c := range b.counts {
			count += c
			f(seriesKey{histogramSeries + "_bucket", instance, streamName(i), boundName(n)}, sample{r.ms, float64(count)})
		}
		f(seriesKey{histogramSeries + "_count", instance, streamName(i), ""}, sample{r.ms, float64(count)})
		f(seriesKey{histogramSeries + "_sum", instance, streamName(i), ""}, sample{r.ms, float64(b.sum)})
	}
}

func boundName(bucket int) string {
	if bucket == len(bounds) {
		return "+Inf"
	}
	return strconv.FormatFloat(bounds[bucket], 'g', -1, 64)
}

// truths are all samples that were sent, by series.
func (s *source) truths(all map[seriesKey][]sample) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.taken {
		r.series(s.name, func(key seriesKey, v sample) { all[key] = append(all[key], v) })
	}
}

// metrics is the reading in OTLP.
func (r reading) metrics(name string, begin time.Time) pmetric.Metrics {
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	rm.Resource().Attributes().PutStr("service.name", "shop")
	rm.Resource().Attributes().PutStr("service.instance.id", name)
	metrics := rm.ScopeMetrics().AppendEmpty().Metrics()
	start, now := pcommon.NewTimestampFromTime(begin), pcommon.NewTimestampFromTime(time.UnixMilli(r.ms))

	m := metrics.AppendEmpty()
	m.SetName(counterMetric)
	sum := m.SetEmptySum()
	sum.SetIsMonotonic(true)
	sum.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	for i, total := range r.orders {
		pt := sum.DataPoints().AppendEmpty()
		pt.Attributes().PutStr("stream", streamName(i))
		pt.SetStartTimestamp(start)
		pt.SetTimestamp(now)
		pt.SetIntValue(total)
	}
	m = metrics.AppendEmpty()
	m.SetName(gaugeMetric)
	gauge := m.SetEmptyGauge()
	for i, load := range r.loads {
		pt := gauge.DataPoints().AppendEmpty()
		pt.Attributes().PutStr("stream", streamName(i))
		pt.SetTimestamp(now)
		pt.SetDoubleValue(load)
	}
	m = metrics.AppendEmpty()
	m.SetName(histogramMetric)
	histogram := m.SetEmptyHistogram()
	histogram.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	for i, b := range r.baskets {
		pt := histogram.DataPoints().AppendEmpty()
		pt.Attributes().PutStr("stream", streamName(i))
		pt.SetStartTimestamp(start)
		pt.SetTimestamp(now)
		pt.ExplicitBounds().FromRaw(bounds)
		var count uint64
		for _, c := range b.counts {
			pt.BucketCounts().Append(uint64(c))
			count += uint64(c)
		}
		pt.SetCount(count)
		pt.SetSum(float64(b.sum))
	}
	return md
}

// exposition is the reading in the text format of Prometheus.
func (r reading) exposition() string {
	var b strings.Builder
	kind := ""
	r.series("", func(key seriesKey, v sample) {
		name, of := key.name, "counter"
		switch {
		case name == gaugeSeries:
			of = "gauge"
		case strings.HasPrefix(name, histogramSeries):
			name, of = histogramSeries, "histogram"
		}
		if kind != name {
			fmt.Fprintf(&b, "# TYPE %s %s\n", name, of)
			kind = name
		}
		le := ""
		if key.le != "" {
			le = fmt.Sprintf(",le=%q", key.le)
		}
		fmt.Fprintf(&b, "%s{stream=%q%s} %v\n", key.name, key.stream, le, v.value)
	})
	return b.String()
}

// clients send, each every interval.
type clients struct {
	all     []*client
	running sync.WaitGroup
	stop    chan struct{}
}

// client is an OTLP client like those of the SDKs: if at the end of an interval the request before is still under way, or as many
// as it may have, it sends nothing, and more the next time.
type client struct {
	*source
	number  int
	setup   setup
	conns   []*grpc.ClientConn
	flights chan struct{}

	retries, refused atomic.Int64
	lost             atomic.Int64 // requests that were given up
}

func startClients(ctx context.Context, s setup, addresses []string) (*clients, error) {
	cs := &clients{stop: make(chan struct{})}
	for i := range parallelClients {
		c := &client{source: newSource(i), number: i, setup: s, flights: make(chan struct{}, 1)}
		if s.several {
			c.flights = make(chan struct{}, inFlight)
		}
		cs.all = append(cs.all, c)
		for _, address := range addresses {
			conn, err := grpc.NewClient(address,
				grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithConnectParams(grpc.ConnectParams{
					Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
					MinConnectTimeout: time.Second,
				}))
			if err != nil {
				cs.close()
				return nil, err
			}
			c.conns = append(c.conns, conn)
		}
	}
	for i, c := range cs.all {
		cs.running.Go(func() {
			if pause(ctx, time.Duration(i)*parallelInterval/parallelClients) == nil {
				c.run(ctx, cs.stop)
			}
		})
	}
	return cs, nil
}

func (c *client) run(ctx context.Context, stop <-chan struct{}) {
	var requests sync.WaitGroup
	defer requests.Wait()
	tick := time.NewTicker(parallelInterval)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		c.advance()
		select {
		case c.flights <- struct{}{}:
		default:
			continue
		}
		r := c.take(time.Now().UnixMilli())
		requests.Go(func() {
			defer func() { <-c.flights }()
			if c.setup.overtake && pause(ctx, rand.N(overtaking)) != nil {
				return
			}
			c.send(ctx, r)
		})
	}
}

// send sends a reading, each time to any front, until it is acknowledged or refused for good.
func (c *client) send(ctx context.Context, r reading) {
	request := pmetricotlp.NewExportRequestFromMetrics(r.metrics(c.name, c.begin))
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := c.try(ctx, request)
		switch {
		case err == nil:
			return
		case ctx.Err() != nil:
			c.lost.Add(1)
			return
		case !retryable(status.Code(err)):
			c.refused.Add(1)
			return
		}
		c.retries.Add(1)
		if pause(ctx, wait) != nil {
			c.lost.Add(1)
			return
		}
	}
}

func (c *client) try(ctx context.Context, request pmetricotlp.ExportRequest) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second) // the SDKs' default
	defer cancel()
	front := rand.IntN(len(c.conns))
	if c.setup.stay {
		front = c.number % len(c.conns)
	}
	resp, err := pmetricotlp.NewGRPCClient(c.conns[front]).Export(ctx, request)
	if err == nil && resp.PartialSuccess().RejectedDataPoints() > 0 {
		err = fmt.Errorf("%d points rejected: %s", resp.PartialSuccess().RejectedDataPoints(), resp.PartialSuccess().ErrorMessage())
	}
	return err
}

// finish waits for all answers, and then sends everything a last time, as SDKs do when they shut down.
func (cs *clients) finish(ctx context.Context) error {
	close(cs.stop)
	cs.running.Wait()
	for _, c := range cs.all {
		cs.running.Go(func() {
			c.advance()
			c.send(ctx, c.take(time.Now().UnixMilli()))
		})
	}
	cs.running.Wait()
	for _, c := range cs.all {
		if c.lost.Load() > 0 {
			return fmt.Errorf("%s: a request was never acknowledged", c.name)
		}
	}
	return nil
}

func (cs *clients) close() {
	for _, c := range cs.all {
		for _, conn := range c.conns {
			_ = conn.Close()
		}
	}
}

// targetServer is what is scraped: a path for each client, whose values advance with each scrape.
type targetServer struct {
	*httpServer
	sources map[string]*source // by path
	stopped atomic.Bool
}

func newTargetServer() (t *targetServer, err error) {
	t = &targetServer{sources: map[string]*source{}}
	for i := range parallelClients {
		s := newSource(i)
		t.sources["/"+s.name] = s
	}
	t.httpServer, err = newHTTPServer(t)
	return t, err
}

func (t *targetServer) http() *httpServer {
	if t == nil {
		return nil
	}
	return t.httpServer
}

// scraped is nil if every path has been scraped.
func (t *targetServer) scraped() error {
	for path, s := range t.sources {
		s.mu.Lock()
		n := len(s.taken)
		s.mu.Unlock()
		if n == 0 {
			return fmt.Errorf("%s has not been scraped", path)
		}
	}
	return nil
}

// stop has further scrapes fail.
func (t *targetServer) stop() { t.stopped.Store(true) }

// ServeHTTP implements http.Handler.
func (t *targetServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s := t.sources[r.URL.Path]
	if s == nil || t.stopped.Load() {
		http.Error(w, "stopped", http.StatusServiceUnavailable)
		return
	}
	s.advance()
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	_, _ = w.Write([]byte(s.take(time.Now().UnixMilli()).exposition()))
}
