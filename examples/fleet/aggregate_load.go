// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

const (
	podCount = 50
	// A pod collects podInterval after it did so before, and up to podJitter earlier or later.
	podInterval = time.Second
	podJitter   = 500 * time.Millisecond
	// repeated is the share of requests that are sent once more although they were answered.
	repeated = 0.02

	podCounters, podHistograms = 10, 2
)

// deployment is a number of pods that count the same things, each with a name of its own. Its totals are those of what was
// acknowledged, by series.
type deployment struct {
	targets *targets
	running sync.WaitGroup // pods, and requests that are sent once more
	failed  chan error     // of the first pod that gave up

	mu                                  sync.Mutex
	pods                                []*pod
	created                             int
	totals                              map[seriesKey]int64
	requests, retries, repeats, refused int
	conns                               map[string]*grpc.ClientConn
	turn                                int
}

// pod sends what it has counted, again and again until that is acknowledged, and collects only then.
type pod struct {
	*deployment
	name   string
	number int
	random *rand.Rand
	last   time.Time // of collecting
	retire chan struct{}
	die    chan struct{}
}

func newDeployment(t *targets) *deployment {
	return &deployment{targets: t, failed: make(chan error, 1), totals: map[seriesKey]int64{}, conns: map[string]*grpc.ClientConn{}}
}

// scale starts pods until there are as many.
func (d *deployment) scale(ctx context.Context, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.pods) < n {
		i := d.created
		d.created++
		p := &pod{
			deployment: d, number: i, name: fmt.Sprintf("shop-%04x", i*40503%65536), random: rand.New(rand.NewPCG(uint64(i), 7)),
			last: time.Now(), retire: make(chan struct{}), die: make(chan struct{}),
		}
		d.pods = append(d.pods, p)
		d.running.Go(func() { p.run(ctx) })
	}
}

// remove takes the n oldest pods off. Those that retire send what they have counted last; those that die do not.
func (d *deployment) remove(n int, die bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.pods[:n] {
		if die {
			close(p.die)
		} else {
			close(p.retire)
		}
	}
	d.pods = d.pods[n:]
}

// finish retires all pods and waits until all is settled.
func (d *deployment) finish() error {
	d.remove(len(d.pods), false)
	d.running.Wait()
	select {
	case err := <-d.failed:
		return err
	default:
		return nil
	}
}

func (d *deployment) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, conn := range d.conns {
		_ = conn.Close()
	}
}

func (p *pod) run(ctx context.Context) {
	for {
		wait := podInterval - podJitter + rand.N(2*podJitter)
		retired := false
		select {
		case <-time.After(wait):
		case <-p.retire:
			retired = true
		case <-p.die:
			return
		case <-ctx.Done():
			return
		}
		if err := p.report(ctx); err != nil {
			select {
			case p.failed <- err:
			default:
			}
			return
		}
		if retired {
			return
		}
	}
}

// report collects, and sends it until it is settled.
func (p *pod) report(ctx context.Context) error {
	now := time.Now()
	md, counted := p.collect(p.last, now)
	p.last = now
	request := pmetricotlp.NewExportRequestFromMetrics(md)
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := p.send(ctx, request)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s: a request was never acknowledged: %w", p.name, err)
		}
		if !retryable(status.Code(err)) {
			p.note(func() { p.refused++ })
			return nil
		}
		p.note(func() { p.retries++ })
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
	p.note(func() {
		p.requests++
		for key, n := range counted {
			p.totals[key] += n
		}
	})
	if rand.Float64() < repeated {
		p.note(func() { p.repeats++ })
		after := rand.N(2 * podInterval)
		p.running.Go(func() {
			if pause(ctx, after) == nil {
				_ = p.send(ctx, request) // whatever is said of it: it was acknowledged
			}
		})
	}
	return nil
}

func (d *deployment) note(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

// send sends a request to the next Collector.
func (d *deployment) send(ctx context.Context, request pmetricotlp.ExportRequest) error {
	conn, err := d.conn()
	if err != nil {
		return err
	}
	return export(ctx, conn, request)
}

func (d *deployment) conn() (*grpc.ClientConn, error) {
	d.targets.mu.Lock()
	addresses := d.targets.addresses
	d.targets.mu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.turn++
	address := addresses[d.turn%len(addresses)]
	if conn := d.conns[address]; conn != nil {
		return conn, nil
	}
	conn, err := dial(address)
	if err == nil {
		d.conns[address] = conn
	}
	return conn, err
}

// collect is what a pod has counted in an interval, and what that adds to the series of all.
func (p *pod) collect(from, to time.Time) (pmetric.Metrics, map[seriesKey]int64) {
	counted := map[seriesKey]int64{}
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	rm.Resource().Attributes().PutStr("service.name", "shop")
	rm.Resource().Attributes().PutStr("service.instance.id", p.name)
	rm.Resource().Attributes().PutStr("k8s.pod.name", p.name)
	rm.Resource().Attributes().PutStr("host.name", fmt.Sprintf("node-%d", p.number%7))
	sm := rm.ScopeMetrics().AppendEmpty()
	sm.Scope().SetName("shop/meter")
	metrics := sm.Metrics()
	start, end := pcommon.NewTimestampFromTime(from), pcommon.NewTimestampFromTime(to)

	m := metrics.AppendEmpty()
	m.SetName(counterMetric)
	sum := m.SetEmptySum()
	sum.SetIsMonotonic(true)
	sum.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	for stream := range podCounters {
		n := 1 + p.random.Int64N(9)
		pt := sum.DataPoints().AppendEmpty()
		pt.Attributes().PutStr("stream", streamName(stream))
		pt.SetStartTimestamp(start)
		pt.SetTimestamp(end)
		pt.SetIntValue(n)
		counted[seriesKey{counterSeries, "", streamName(stream), ""}] = n
	}

	m = metrics.AppendEmpty()
	m.SetName(histogramMetric)
	histogram := m.SetEmptyHistogram()
	histogram.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	for stream := range podHistograms {
		pt := histogram.DataPoints().AppendEmpty()
		pt.Attributes().PutStr("stream", streamName(stream))
		pt.SetStartTimestamp(start)
		pt.SetTimestamp(end)
		pt.ExplicitBounds().FromRaw(bounds)
		counts := make([]uint64, len(bounds)+1)
		var observations, total int64
		for range 1 + p.random.IntN(5) {
			n := 1 + p.random.IntN(9)
			counts[bucketOf(n)]++
			observations++
			total += int64(n)
		}
		pt.BucketCounts().FromRaw(counts)
		pt.SetCount(uint64(observations))
		pt.SetSum(float64(total))
		var upTo int64
		for b, n := range counts {
			upTo += int64(n)
			counted[seriesKey{histogramSeries + "_bucket", "", streamName(stream), boundName(b)}] = upTo
		}
		counted[seriesKey{histogramSeries + "_count", "", streamName(stream), ""}] = observations
		counted[seriesKey{histogramSeries + "_sum", "", streamName(stream), ""}] = total
	}
	return md, counted
}

// expected is what each series has to come to.
func (d *deployment) expected() map[seriesKey]int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.totals)
}
