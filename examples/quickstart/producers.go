// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"
)

const serviceName = "shop"

// deltaForAll asks for deltas from every kind of instrument. It goes further than the standard preference "delta" (in
// Go sdkmetric.DeltaTemporalitySelector, in the environment OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=delta),
// which leaves up-down counters cumulative because their present value is what people look at.
func deltaForAll(sdkmetric.InstrumentKind) metricdata.Temporality { return metricdata.DeltaTemporality }

// producer is an application with the OpenTelemetry Go SDK in it. It keeps totals of its own beside the SDK's, with
// nothing but additions, and they are what the verdict compares with.
type producer struct {
	instance    string // its service.instance.id
	how         string // for people: what is special about it
	temporality sdkmetric.TemporalitySelector
	connect     func(context.Context, sdkmetric.TemporalitySelector) (sdkmetric.Exporter, error)
	restarts    bool // halfway, as a new SDK with the same identity
	load        load
	note        func(format string, args ...any) // tells the person in front of the screen

	random  *rand.Rand
	step    int
	tallies map[label]*tally

	mu     sync.Mutex // guards what the witness writes
	sent   map[label]*sending
	points int     // data points in acknowledged requests
	failed []error // requests that were not acknowledged in the end
}

// load is how much a producer does and how fast.
type load struct {
	steps    int           // rounds of measurements in all
	pace     time.Duration // between two rounds
	interval time.Duration // between two exports
	pause    time.Duration // between the two lives of a producer that restarts
}

// tally is what a producer itself knows of one series.
type tally struct {
	total  sample             // without start and time, and for exponential histograms without scale and buckets
	values map[float64]uint64 // every value that went into an exponential histogram
}

// sending is what was seen of one series on its way out: not values, only what the SDK alone decides.
type sending struct {
	start      time.Time // of the first interval
	end        time.Time // of the latest
	scale      int32     // the lowest of any interval
	cumulative bool      // the SDK sent totals already
}

func newProducer(instance, how string, seed uint64, l load, note func(string, ...any)) *producer {
	return &producer{
		instance: instance, how: how, load: l, note: note, temporality: deltaForAll,
		random:  rand.New(rand.NewPCG(seed, 0)), // the same load in every run
		tallies: map[label]*tally{},
		sent:    map[label]*sending{},
	}
}

func (p *producer) name() string { return serviceName + "/" + p.instance }

// run lives the producer's one or two lives and returns when everything it measured has been acknowledged, or ctx ends.
func (p *producer) run(ctx context.Context) error {
	// Not where a timed export is due: one of the two would have nothing to send and the next one a gap before it.
	half := min(p.load.steps, p.load.steps/2+int(p.load.interval/p.load.pace/2))
	if !p.restarts {
		return p.life(ctx, half, p.load.steps-half)
	}
	if err := p.life(ctx, half); err != nil {
		return err
	}
	p.note("%s stopped; in %v it starts again, a new SDK under the same identity", p.name(), p.load.pause)
	select {
	case <-time.After(p.load.pause):
	case <-ctx.Done():
		return ctx.Err()
	}
	return p.life(ctx, p.load.steps-half)
}

// life is one MeterProvider from start to shutdown. It measures in stretches of so many steps and flushes after each.
func (p *producer) life(ctx context.Context, stretches ...int) (err error) {
	exporter, err := p.connect(ctx, p.temporality)
	if err != nil {
		return fmt.Errorf("%s: %w", p.name(), err)
	}
	watched := &witness{Exporter: exporter, p: p}
	provider := sdkmetric.NewMeterProvider(
		sdkmetric.WithResource(resource.NewSchemaless(
			attribute.String("service.name", serviceName), attribute.String("service.instance.id", p.instance))),
		sdkmetric.WithReader(sdkmetric.NewPeriodicReader(watched, sdkmetric.WithInterval(p.load.interval))),
		sdkmetric.WithView(sdkmetric.NewView(
			sdkmetric.Instrument{Name: "basket.size"},
			sdkmetric.Stream{Aggregation: sdkmetric.AggregationBase2ExponentialHistogram{MaxSize: 160, MaxScale: 20}})),
	)
	defer func() {
		// Shutdown cancels an export that is under way and with it loses that interval. So flush before, with
		// nothing being measured any more, and let the witness see to it that no timer starts another one.
		watched.close()
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		err = errors.Join(err, provider.Shutdown(late))
	}()

	till, err := p.newTill(provider.Meter("quickstart"))
	if err != nil {
		return err
	}
	tick := time.NewTicker(p.load.pace)
	defer tick.Stop()
	for _, steps := range stretches {
		for range steps {
			select {
			case <-tick.C:
				till.serve(ctx)
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := provider.ForceFlush(ctx); err != nil {
			return fmt.Errorf("%s: %w", p.name(), err)
		}
	}
	return nil
}

// till has the instruments of one life.
type till struct {
	p        *producer
	orders   metric.Int64Counter
	revenue  metric.Float64Counter
	queue    metric.Int64UpDownCounter
	drawer   metric.Float64UpDownCounter
	duration metric.Float64Histogram
	basket   metric.Float64Histogram
}

// durationBounds are the upper bounds, in seconds, of the histogram till.duration.
var durationBounds = []float64{0.125, 0.25, 0.5, 1, 2, 3, 5, 8}

func (p *producer) newTill(m metric.Meter) (*till, error) {
	t := &till{p: p}
	var errs [6]error
	t.orders, errs[0] = m.Int64Counter("orders", metric.WithUnit("{order}"))
	t.revenue, errs[1] = m.Float64Counter("revenue", metric.WithUnit("EUR"))
	t.queue, errs[2] = m.Int64UpDownCounter("queue.length", metric.WithUnit("{customer}"))
	t.drawer, errs[3] = m.Float64UpDownCounter("drawer.cash", metric.WithUnit("EUR"))
	t.duration, errs[4] = m.Float64Histogram("till.duration", metric.WithUnit("s"),
		metric.WithExplicitBucketBoundaries(durationBounds...))
	t.basket, errs[5] = m.Float64Histogram("basket.size", metric.WithUnit("g")) // exponential by the view
	return t, errors.Join(errs[:]...)
}

var (
	byCard = attribute.NewSet(attribute.String("payment", "card"))
	byCash = attribute.NewSet(attribute.String("payment", "cash"))
)

// serve measures a round of customers. All fractions are multiples of 1/64, which doubles add without rounding in
// whatever order: so "exact" can mean "equal".
func (t *till) serve(ctx context.Context) {
	r := t.p.random
	t.p.step++
	t.count(ctx, byCard, 1+r.Int64N(5))
	t.count(ctx, byCash, 1+r.Int64N(3))

	euros := float64(r.IntN(6400)) / 64
	t.revenue.Add(ctx, euros)
	t.p.of("revenue", attribute.Set{}, sample{kind: kindSum, monotonic: true}).number += euros

	customers := r.Int64N(7) - 3
	t.queue.Add(ctx, customers)
	t.p.of("queue.length", attribute.Set{}, sample{kind: kindSum, isInt: true}).integer += customers

	cash := float64(r.IntN(6400))/64 - 48
	t.drawer.Add(ctx, cash)
	t.p.of("drawer.cash", attribute.Set{}, sample{kind: kindSum}).number += cash

	seconds := float64(r.IntN(640)) / 64
	t.duration.Record(ctx, seconds)
	t.p.observeDuration(seconds)

	// The range of basket sizes widens as the run goes on, so that the SDK, and the processor with it, must lower the
	// scale of the exponential histogram again and again. Some baskets are empty.
	grams := 0.0
	if r.IntN(20) > 0 {
		octaves := 2 + 14*float64(t.p.step)/float64(t.p.load.steps)
		grams = math.Floor(64*math.Exp2(octaves*r.Float64())) / 64
	}
	t.basket.Record(ctx, grams)
	t.p.observeBasket(grams)
}

func (t *till) count(ctx context.Context, payment attribute.Set, n int64) {
	t.orders.Add(ctx, n, metric.WithAttributeSet(payment))
	t.p.of("orders", payment, sample{kind: kindSum, monotonic: true, isInt: true}).integer += n
}

func (p *producer) observeDuration(v float64) {
	total := p.of("till.duration", attribute.Set{}, sample{
		kind: kindHistogram, bounds: durationBounds, buckets: make([]uint64, len(durationBounds)+1)})
	total.observe(v)
	i := 0
	for i < len(durationBounds) && v > durationBounds[i] {
		i++
	}
	total.buckets[i]++
}

func (p *producer) observeBasket(v float64) {
	p.of("basket.size", attribute.Set{}, sample{kind: kindExponential}).observe(v)
	values := p.tallies[p.label("basket.size", attribute.Set{})].values
	values[v]++
}

func (s *sample) observe(v float64) {
	if s.count++; s.count == 1 {
		s.min, s.max = v, v
	}
	s.sum, s.min, s.max = s.sum+v, min(s.min, v), max(s.max, v)
}

// of returns the producer's own total of a series, which begins as zero.
func (p *producer) of(metric string, attrs attribute.Set, zero sample) *sample {
	l := p.label(metric, attrs)
	if p.tallies[l] == nil {
		p.tallies[l] = &tally{total: zero, values: map[float64]uint64{}}
	}
	return &p.tallies[l].total
}

func (p *producer) label(metric string, attrs attribute.Set) label {
	return label{producer: p.name(), metric: metric, attrs: attrs.Encoded(attribute.DefaultEncoder())}
}

// witness stands between the SDK and its OTLP exporter and notes what was acknowledged.
type witness struct {
	sdkmetric.Exporter
	p *producer

	mu     sync.Mutex // held during an export
	closed bool
}

// close waits for an export under way and lets no other begin.
func (w *witness) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
}

// Export implements sdkmetric.Exporter. It returns when the Collector has acknowledged the data, retries included.
func (w *witness) Export(ctx context.Context, rm *metricdata.ResourceMetrics) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	err := w.Exporter.Export(ctx, rm)
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	if err != nil {
		w.p.failed = append(w.p.failed, err)
		return err
	}
	for _, scope := range rm.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, dp := range data.DataPoints {
					w.p.saw(m.Name, dp.Attributes, dp.StartTime, dp.Time, data.Temporality)
				}
			case metricdata.Sum[float64]:
				for _, dp := range data.DataPoints {
					w.p.saw(m.Name, dp.Attributes, dp.StartTime, dp.Time, data.Temporality)
				}
			case metricdata.Histogram[float64]:
				for _, dp := range data.DataPoints {
					w.p.saw(m.Name, dp.Attributes, dp.StartTime, dp.Time, data.Temporality)
				}
			case metricdata.ExponentialHistogram[float64]:
				for _, dp := range data.DataPoints {
					s := w.p.saw(m.Name, dp.Attributes, dp.StartTime, dp.Time, data.Temporality)
					s.scale = min(s.scale, dp.Scale)
				}
			}
		}
	}
	return nil
}

func (p *producer) saw(metric string, attrs attribute.Set, start, end time.Time, t metricdata.Temporality) *sending {
	l := p.label(metric, attrs)
	s := p.sent[l]
	if s == nil {
		s = &sending{start: start, scale: math.MaxInt32, cumulative: t == metricdata.CumulativeTemporality}
		p.sent[l] = s
	}
	// A flush may overtake an export that the timer has begun.
	if start.Before(s.start) {
		s.start = start
	}
	if end.After(s.end) {
		s.end = end
	}
	p.points++
	return s
}

func overGRPC(addr string) func(context.Context, sdkmetric.TemporalitySelector) (sdkmetric.Exporter, error) {
	return func(ctx context.Context, t sdkmetric.TemporalitySelector) (sdkmetric.Exporter, error) {
		return otlpmetricgrpc.New(ctx, otlpmetricgrpc.WithEndpoint(addr), otlpmetricgrpc.WithInsecure(),
			otlpmetricgrpc.WithTemporalitySelector(t))
	}
}

func overHTTP(addr string) func(context.Context, sdkmetric.TemporalitySelector) (sdkmetric.Exporter, error) {
	return func(ctx context.Context, t sdkmetric.TemporalitySelector) (sdkmetric.Exporter, error) {
		return otlpmetrichttp.New(ctx, otlpmetrichttp.WithEndpoint(addr), otlpmetrichttp.WithInsecure(),
			otlpmetrichttp.WithTemporalitySelector(t), otlpmetrichttp.WithCompression(otlpmetrichttp.NoCompression),
			// The SDK waits five seconds before it tries again; nobody wants to watch that.
			otlpmetrichttp.WithRetry(otlpmetrichttp.RetryConfig{
				Enabled: true, InitialInterval: 50 * time.Millisecond, MaxInterval: time.Second, MaxElapsedTime: 10 * time.Second,
			}))
	}
}
