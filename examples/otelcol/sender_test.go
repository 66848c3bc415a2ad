// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// sender is a producer that sends every batch of deltas until it is acknowledged, and knows what the backend must have
// then: of each stream the sum of all deltas, at a time that follows from the rules of package d2c. Now and then it sends
// a batch late, or once more. Not safe for concurrent use, unless it has several lanes.
type sender struct {
	name    string
	witness *witness
	random  *rand.Rand
	begin   time.Time
	maxSets int
	// parts says in how many batches, one after the other, an interval of all streams is sent.
	parts int
	// queued says that the acknowledgement of a batch does not mean that the backend has it.
	queued bool
	// lanes send on a connection each. One batch is under way at a time, but for the lanes of a concurrent sender, each
	// of which has one.
	lanes      []pmetricotlp.GRPCClient
	concurrent bool

	acknowledged atomic.Int64
	refused      atomic.Int64 // answers other than an acknowledgement

	mu       sync.Mutex // guards what follows
	batch    int        // number of the next
	sets     int        // of streams, see pack
	expected map[string]*stream
	recent   []*parcel
}

// stream is what is known of a stream whose deltas are all acknowledged.
type stream struct {
	cumulative
	last int64 // end of the latest interval; time is when the backend got it, which is later after late ones
}

// parcel is one batch of deltas.
type parcel struct {
	request    pmetricotlp.ExportRequest
	start, end time.Time
	deltas     map[string]total // by key of the series
}

const step = 100 * time.Millisecond // length of an interval

// newSender returns a sender that begins with half of maxSets sets of streams.
func newSender(t *testing.T, n *node, name string, lanes, maxSets int) *sender {
	t.Helper()
	s := &sender{
		name:     name,
		witness:  n.witness,
		random:   rand.New(rand.NewPCG(uint64(name[len(name)-1]), 0)),
		begin:    time.Now().Add(-24 * time.Hour).Truncate(time.Millisecond).Add(456 * time.Microsecond),
		maxSets:  maxSets,
		parts:    1,
		sets:     max(1, maxSets/2),
		expected: map[string]*stream{},
	}
	for range lanes {
		s.lanes = append(s.lanes, n.client(t))
	}
	return s
}

// pack makes a batch: for each set of streams an integer and a double counter, an up-down counter and two histograms.
func (s *sender) pack(batch int) *parcel {
	interval, part := batch/s.parts, batch%s.parts
	p := &parcel{
		start:  s.begin.Add(time.Duration(interval) * step),
		end:    s.begin.Add(time.Duration(interval+1) * step),
		deltas: map[string]total{},
	}
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	rm.Resource().Attributes().PutStr("producer", s.name)
	metrics := rm.ScopeMetrics().AppendEmpty().Metrics()
	sum := func(name string, monotonic bool) pmetric.NumberDataPointSlice {
		m := newMetric(metrics, name, "").SetEmptySum()
		m.SetIsMonotonic(monotonic)
		m.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		return m.DataPoints()
	}
	orders, traffic, baskets := sum("orders", true), sum("traffic", true), sum("baskets", false)
	histogram := newMetric(metrics, "latency", "").SetEmptyHistogram()
	histogram.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	size := newMetric(metrics, "size", "").SetEmptyExponentialHistogram()
	size.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	exponentials := producer{random: s.random, scale: max(4-int32(interval/100), 1)}

	for set := part; set < s.sets; set += s.parts {
		stream := fmt.Sprint(set)
		put := func(metric string, pt interface {
			Attributes() pcommon.Map
			SetStartTimestamp(pcommon.Timestamp)
			SetTimestamp(pcommon.Timestamp)
		}, delta total) {
			pt.Attributes().PutStr("stream", stream)
			pt.SetStartTimestamp(pcommon.NewTimestampFromTime(p.start))
			pt.SetTimestamp(pcommon.NewTimestampFromTime(p.end))
			p.deltas[seriesOf(s.name, metric, stream)] = delta
		}
		number := func(metric string, points pmetric.NumberDataPointSlice, delta total) {
			pt := points.AppendEmpty()
			if delta.double {
				pt.SetDoubleValue(delta.value)
			} else {
				pt.SetIntValue(int64(delta.value))
			}
			put(metric, pt, delta)
		}
		number("orders", orders, total{monotonic: true, value: float64(s.random.IntN(1000))})
		number("traffic", traffic, total{monotonic: true, double: true, value: float64(s.random.IntN(1<<20)) / 64})
		number("baskets", baskets, total{value: float64(s.random.IntN(200) - 100)})

		latency := total{
			monotonic: true,
			value:     float64(s.random.IntN(1<<12)) / 64,
			min:       float64(1+s.random.IntN(100)) / 64,
			max:       float64(200+s.random.IntN(1000)) / 64,
			buckets:   make([]uint64, len(latencyBounds)+1),
		}
		for i := range latency.buckets {
			latency.buckets[i] = s.random.Uint64N(20)
			latency.count += latency.buckets[i]
		}
		latency.buckets[0]++ // min and max are of something
		latency.count++
		lp := histogram.DataPoints().AppendEmpty()
		lp.ExplicitBounds().FromRaw(latencyBounds)
		lp.BucketCounts().FromRaw(latency.buckets)
		lp.SetCount(latency.count)
		lp.SetSum(latency.value)
		lp.SetMin(latency.min)
		lp.SetMax(latency.max)
		put("latency", lp, latency)

		e := exponentials.randomExponential()
		ep := size.DataPoints().AppendEmpty()
		e.write(ep)
		put("size", ep, total{monotonic: true, value: e.sum, count: e.count(), exponential: e})
	}
	p.request = pmetricotlp.NewExportRequestFromMetrics(md)
	return p
}

// deliver sends a batch until it is acknowledged or ctx ends.
func (s *sender) deliver(ctx context.Context, lane int, p *parcel) error {
	for {
		switch err := s.attempt(ctx, lane, p); {
		case err == nil:
			return nil
		case status.Code(err) != codes.Unavailable || ctx.Err() != nil:
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
}

// attempt sends a batch once.
func (s *sender) attempt(ctx context.Context, lane int, p *parcel) error {
	reply, err := s.lanes[lane].Export(ctx, p.request, grpc.WaitForReady(true))
	if err != nil {
		s.refused.Add(1)
		return err
	}
	if rejected := reply.PartialSuccess(); rejected.RejectedDataPoints() != 0 {
		return fmt.Errorf("%d points rejected: %s", rejected.RejectedDataPoints(), rejected.ErrorMessage())
	}
	s.acknowledged.Add(1)
	return nil
}

// count adds a batch that was acknowledged for the first time.
func (s *sender) count(p *parcel) {
	start, end := p.start.UnixNano(), p.end.UnixNano()
	for key, delta := range p.deltas {
		known, ok := s.expected[key]
		if !ok {
			known = &stream{cumulative: cumulative{start: start}}
			s.expected[key] = known
		}
		known.add(delta)
		if end > known.last && end/1e6 > known.time/1e6 {
			known.time = end
		} else {
			known.time += 1e6
		}
		known.last = max(known.last, end)
	}
	const kept = 8
	s.recent = append(s.recent, p)
	s.recent = s.recent[max(0, len(s.recent)-kept):]
}

// checkArrived reports the streams of a batch whose latest sample at the backend is not what it must be.
func (s *sender) checkArrived(p *parcel) error {
	for key := range p.deltas {
		want, got := s.expected[key].cumulative, s.witness.of(key)
		if s.concurrent {
			got.time = want.time // depends on the order in which they arrived
		}
		if !got.equal(want) {
			return fmt.Errorf("%s: acknowledged, and the backend has\n  %v, want\n  %v", key, got, want)
		}
	}
	return nil
}

// send delivers a batch for the first time, or once more.
func (s *sender) send(ctx context.Context, lane int, p *parcel, again bool) error {
	if err := s.deliver(ctx, lane, p); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !again {
		s.count(p)
	}
	if s.queued || s.concurrent {
		return nil
	}
	return s.checkArrived(p)
}

// run sends until stop is closed. Nothing is under way when it returns without an error.
func (s *sender) run(ctx context.Context, stop <-chan struct{}) error {
	// All streams but those that are new later are in the first batch.
	if s.concurrent || s.parts > 1 {
		s.sets = s.maxSets
	}
	p := s.pack(s.batch)
	s.batch++
	if err := s.send(ctx, 0, p, false); err != nil {
		return err
	}
	var wg sync.WaitGroup
	errs := make([]error, 1)
	if s.concurrent {
		errs = make([]error, len(s.lanes))
	}
	for lane := range errs {
		wg.Go(func() {
			for errs[lane] == nil {
				select {
				case <-stop:
					return
				default:
					errs[lane] = s.next(ctx, lane)
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// next sends what comes next.
func (s *sender) next(ctx context.Context, lane int) error {
	s.mu.Lock()
	if !s.concurrent {
		lane = s.random.IntN(len(s.lanes))
	}
	dice := s.random.IntN(10)
	if s.batch == 0 {
		dice = 9 // nothing to repeat or to overtake
	}
	if dice == 0 {
		old := s.recent[s.random.IntN(len(s.recent))]
		s.mu.Unlock()
		return s.send(ctx, lane, old, true)
	}
	// A stream is new in a batch that overtakes none and is not overtaken, lest its start move back.
	if dice == 1 && !s.concurrent {
		s.sets = min(s.sets+1, s.maxSets)
	}
	parcels := []*parcel{s.pack(s.batch)}
	s.batch++
	if dice == 2 {
		parcels = []*parcel{s.pack(s.batch), parcels[0]}
		s.batch++
	}
	s.mu.Unlock()
	for _, p := range parcels {
		if err := s.send(ctx, lane, p, false); err != nil {
			return err
		}
	}
	return nil
}

// finish sends one more delta of each stream, so that whatever became of the samples before, the backend gets the total
// of each, and waits until it has.
func (s *sender) finish(ctx context.Context) error {
	for range s.parts {
		p := s.pack(s.batch)
		s.batch++
		if err := s.deliver(ctx, 0, p); err != nil {
			return err
		}
		s.count(p)
		arrived := s.checkArrived(p)
		if s.queued {
			arrived = poll(func() error { return s.checkArrived(p) })
		}
		if arrived != nil {
			return arrived
		}
	}
	return nil
}
