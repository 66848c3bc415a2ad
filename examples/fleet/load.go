// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

const (
	interval = time.Second // between deltas
	agents   = 8
	// requestTimeout is how long a client waits before it tries again.
	requestTimeout = 5 * time.Second
)

// bounds are those of all histograms; observations are whole numbers up to 9, so that sums of doubles are exact.
var bounds = []float64{1, 2, 4, 8}

// load is a number of agents, each a producer of its own that sends a batch of deltas every interval.
type load struct {
	agents  []*agent
	targets *targets
	running sync.WaitGroup
	stop    chan struct{}
	failed  chan error // of the first agent that gave up
}

// newLoad returns agents that send counters and histograms, as many altogether.
func newLoad(counters, histograms int, targets *targets) *load {
	l := &load{targets: targets, stop: make(chan struct{}), failed: make(chan error, 1)}
	for i := range agents {
		l.agents = append(l.agents, &agent{
			number:     i,
			name:       fmt.Sprintf("agent-%d", i),
			counters:   counters / agents,
			histograms: histograms / agents,
			targets:    targets,
			conns:      map[string]*grpc.ClientConn{},
		})
	}
	return l
}

// start begins to send, each agent at another time of the interval.
func (l *load) start(ctx context.Context) {
	now := time.Now().Truncate(time.Millisecond)
	for i, a := range l.agents {
		a.begin = now.Add(time.Duration(i) * interval / agents)
		l.running.Go(func() {
			for {
				select {
				case <-l.stop:
					return
				default:
				}
				if err := a.step(ctx); err != nil {
					select {
					case l.failed <- err:
					default:
					}
					return
				}
			}
		})
	}
}

// finish waits until all that has been sent is settled, and then sends one last delta of each stream.
func (l *load) finish(ctx context.Context) error {
	close(l.stop)
	l.running.Wait()
	for _, a := range l.agents {
		l.running.Go(func() {
			if err := a.step(ctx); err != nil {
				select {
				case l.failed <- err:
				default:
				}
			}
		})
	}
	l.running.Wait()
	select {
	case err := <-l.failed:
		return err
	default:
		return nil
	}
}

func (l *load) close() {
	for _, a := range l.agents {
		for _, conn := range a.conns {
			_ = conn.Close()
		}
	}
}

// retries is how many requests had to be sent again.
func (l *load) retries() int {
	n := 0
	for _, a := range l.agents {
		n += int(a.retries.Load())
	}
	return n
}

// refused is how many requests were refused for good.
func (l *load) refused() int {
	n := 0
	for _, a := range l.agents {
		n += int(a.refused.Load())
	}
	return n
}

// behind is for how long the agent that is most behind has waited for an answer.
func (l *load) behind() time.Duration {
	var most time.Duration
	for _, a := range l.agents {
		most = max(most, time.Since(a.end(int(a.done.Load()))))
	}
	return most
}

// targets are the addresses that clients know. They may change at any time.
type targets struct {
	mu        sync.Mutex
	addresses []string
	// spread has each request go to the next address, as behind a load balancer that knows nothing of streams. Otherwise
	// a client stays where it is until a request fails.
	spread bool
}

func (t *targets) set(addresses []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.addresses = addresses
}

// agent is an OTLP client with a few hundred streams. It sends an interval only after the one before was acknowledged, or
// refused with a status of which OTLP says that it must not be retried.
type agent struct {
	number               int
	name                 string
	counters, histograms int
	begin                time.Time
	targets              *targets
	more                 func(a *agent, rm pmetric.ResourceMetrics, i int) // what else it sends, nil for nothing
	turn                 int                                               // chooses the address
	conns                map[string]*grpc.ClientConn

	done    atomic.Int64 // intervals acknowledged or refused
	refused atomic.Int64
	retries atomic.Int64
}

// end is when an interval ends.
func (a *agent) end(i int) time.Time { return a.begin.Add(time.Duration(i+1) * interval) }

// step sends the next interval as soon as it has ended, again and again until that is settled.
func (a *agent) step(ctx context.Context) error {
	i := int(a.done.Load())
	if err := pause(ctx, time.Until(a.end(i))); err != nil {
		return err
	}
	request := pmetricotlp.NewExportRequestFromMetrics(a.deltas(i))
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := a.send(ctx, request)
		if err == nil {
			a.done.Add(1)
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s: interval %d was never acknowledged: %w", a.name, i, err)
		}
		if !retryable(status.Code(err)) {
			a.refused.Add(1)
			a.done.Add(1)
			return nil
		}
		a.retries.Add(1)
		a.turn++
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

// retryable is what https://opentelemetry.io/docs/specs/otlp/#failures says.
func retryable(code codes.Code) bool {
	switch code {
	case codes.Canceled, codes.DeadlineExceeded, codes.Aborted, codes.OutOfRange, codes.Unavailable, codes.DataLoss, codes.ResourceExhausted:
		return true
	}
	return false
}

func (a *agent) send(ctx context.Context, request pmetricotlp.ExportRequest) error {
	conn, err := a.conn()
	if err != nil {
		return err
	}
	return export(ctx, conn, request)
}

// export sends a request. That a part of it is rejected is an error.
func export(ctx context.Context, conn *grpc.ClientConn, request pmetricotlp.ExportRequest) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resp, err := pmetricotlp.NewGRPCClient(conn).Export(ctx, request)
	if err == nil && resp.PartialSuccess().RejectedDataPoints() > 0 {
		err = fmt.Errorf("%d points rejected: %s", resp.PartialSuccess().RejectedDataPoints(), resp.PartialSuccess().ErrorMessage())
	}
	return err
}

// conn returns the connection to the address whose turn it is.
func (a *agent) conn() (*grpc.ClientConn, error) {
	a.targets.mu.Lock()
	address := a.targets.addresses[(a.number+a.turn)%len(a.targets.addresses)]
	if a.targets.spread {
		a.turn++
	}
	a.targets.mu.Unlock()
	if conn := a.conns[address]; conn != nil {
		return conn, nil
	}
	conn, err := dial(address)
	if err == nil {
		a.conns[address] = conn
	}
	return conn, err
}

// dial makes a connection that is tried again soon when it is lost.
func dial(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: time.Second,
		}))
}

// Metrics, and what Prometheus makes of their names.
const (
	counterMetric, counterSeries     = "shop.orders", "shop_orders_total"
	histogramMetric, histogramSeries = "shop.basket", "shop_basket"
)

func streamName(i int) string { return fmt.Sprintf("%04d", i) }

// deltas is what the agent sends for an interval.
func (a *agent) deltas(i int) pmetric.Metrics {
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	rm.Resource().Attributes().PutStr("service.name", "shop")
	rm.Resource().Attributes().PutStr("service.instance.id", a.name)
	metrics := rm.ScopeMetrics().AppendEmpty().Metrics()
	start, end := pcommon.NewTimestampFromTime(a.end(i-1)), pcommon.NewTimestampFromTime(a.end(i))

	m := metrics.AppendEmpty()
	m.SetName(counterMetric)
	sum := m.SetEmptySum()
	sum.SetIsMonotonic(true)
	sum.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	for stream := range a.counters {
		pt := sum.DataPoints().AppendEmpty()
		pt.Attributes().PutStr("stream", streamName(stream))
		pt.SetStartTimestamp(start)
		pt.SetTimestamp(end)
		pt.SetIntValue(a.orders(stream, i))
	}

	m = metrics.AppendEmpty()
	m.SetName(histogramMetric)
	histogram := m.SetEmptyHistogram()
	histogram.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	for stream := range a.histograms {
		pt := histogram.DataPoints().AppendEmpty()
		pt.Attributes().PutStr("stream", streamName(stream))
		pt.SetStartTimestamp(start)
		pt.SetTimestamp(end)
		pt.ExplicitBounds().FromRaw(bounds)
		counts := make([]uint64, len(bounds)+1)
		total := 0
		for _, observation := range a.baskets(stream, i) {
			counts[bucketOf(observation)]++
			total += observation
		}
		pt.BucketCounts().FromRaw(counts)
		pt.SetCount(uint64(len(a.baskets(stream, i))))
		pt.SetSum(float64(total))
	}
	if a.more != nil {
		a.more(a, rm, i)
	}
	return md
}

func bucketOf(observation int) int {
	for i, bound := range bounds {
		if float64(observation) <= bound {
			return i
		}
	}
	return len(bounds)
}

// random is the same for the same stream and interval in every run, so that the runs of both sides count the same.
func (a *agent) random(kind, stream, i int) *rand.Rand {
	return rand.New(rand.NewPCG(uint64(a.number)<<32|uint64(kind), uint64(stream)<<32|uint64(i)))
}

// orders is what a counter counts in an interval, never nothing, so that a delta that is lost shows.
func (a *agent) orders(stream, i int) int64 { return 1 + a.random(0, stream, i).Int64N(9) }

// baskets is what a histogram observes in an interval.
func (a *agent) baskets(stream, i int) []int {
	r := a.random(1, stream, i)
	observations := make([]int, 1+r.IntN(5))
	for n := range observations {
		observations[n] = 1 + r.IntN(9)
	}
	return observations
}
