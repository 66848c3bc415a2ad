// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/zeebo/xxh3"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/streamid"
)

// sim is a history under way.
type sim struct {
	plan     *simPlan
	workers  []*simWorker
	streams  []*simStream
	byID     map[streamid.ID]*simStream
	gateways [2][]*simDelta
	held     []*simDelta
	view     []int     // by stream, who it is sent to
	route    d2c.Route // by which all gateways send, but for the member
	flights  []*simFlight
	now      time.Time

	lives   []store.Life // of the store, by group
	lifeIDs map[uint64]bool
	logs    []simLog // by group, if they are kept in logs
	opened  []*simLogStore
	plain   []*simStore
	late    []func() // requests that were given up
	past    []simPast
	seq     int // of what happens to the store

	quiet bool // at the end nothing goes wrong any more
	ended bool // there are only flights to be ended
	err   error
	stats simStats
	trace func(format string, args ...any)
}

// simWorker is a Converter.
type simWorker struct {
	conv  *d2c.Converter
	logs  *simLogStore
	busy  *simFlight
	lives []store.Life       // as it knows them
	last  map[int]*simSample // by stream, since it has it in its cache
	began uint64
	gone  uint64 // from when on what its cache has forgotten may start
}

// simDelta is one delta, or a "no recorded value" marker, on its way.
type simDelta struct {
	stream      *simStream
	n           int // -1: a marker
	weight      int // how often it is in its batch: of many writers, some send the same
	start, time uint64
	counted     bool // acknowledged as counted, whether or not the gateway has heard of it
	refused     bool // somebody was told that it was dropped
	delivered   bool
}

func newSim(p *simPlan) *sim {
	s := &sim{
		plan: p, now: time.Unix(0, int64(simEpoch)), byID: map[streamid.ID]*simStream{},
		lives: make([]store.Life, p.groups), logs: make([]simLog, p.groups), lifeIDs: map[uint64]bool{},
	}
	for i, template := range p.streams {
		if s.byID[simTemplates[template].id] != nil {
			template = (template + i) % len(simTemplates)
		}
		st := &simStream{index: len(s.streams), template: &simTemplates[template], last: simEpoch, nodes: map[uint64]*simNode{}}
		if s.byID[st.template.id] == nil {
			s.byID[st.template.id] = st
			s.streams = append(s.streams, st)
			s.view = append(s.view, i%p.workers)
		}
	}
	s.turn(s.now.Add(-simUptime))
	for range p.workers {
		s.workers = append(s.workers, nil)
	}
	for w := range s.workers {
		s.start(w, simNone)
	}
	return s
}

// simUptime is how long ago gateways began to use the first ring.
const simUptime = time.Minute

// turn makes the view a ring, at a time. One that was there before has the epoch that it had then. If it is there already, gateways
// have started again.
func (s *sim) turn(now time.Time) {
	was := s.route
	s.route = d2c.Route{Epoch: xxh3.HashString(fmt.Sprint(s.view)), Since: now.Truncate(time.Millisecond)}
	if was.Since.IsZero() {
		return
	}
	if !s.route.Since.After(was.Since) {
		s.route.Since = was.Since.Add(time.Millisecond)
	}
	if s.route.Epoch != was.Epoch {
		s.route.Previous, s.route.PreviousSince = was.Epoch, was.Since
	}
}

// start makes a new worker.
func (s *sim) start(w int, fault simFault) {
	worker := &simWorker{last: map[int]*simSample{}, began: uint64(s.now.Add(s.plan.clocks[w]).UnixNano())}
	cfg := s.plan.config()
	cfg.MaxStale, cfg.Now = simStale, func() time.Time { return s.now.Add(s.plan.clocks[w]) }
	plain := &simStore{sim: s, worker: worker, fault: fault}
	var st store.Shared = plain
	if s.plan.logs {
		worker.logs = s.openLogs(worker, fault)
		st = worker.logs
	} else {
		s.plain = append(s.plain, plain)
		if s.plan.reads {
			st = simReader{plain}
		}
	}
	conv, err := d2c.OpenShared(context.Background(), cfg, d2c.SharedConfig{Store: st, Owner: "sim"})
	if err != nil {
		panic(err)
	}
	worker.conv = conv
	s.workers[w] = worker
}

func (s *sim) fail(format string, args ...any) {
	if s.err == nil {
		s.err = fmt.Errorf(format, args...)
		s.log("FAIL %v", s.err)
	}
}

func (s *sim) log(format string, args ...any) {
	if s.trace != nil {
		s.trace(format, args...)
	}
}

// simFlight is one call of Convert.
type simFlight struct {
	sim     *sim
	worker  *simWorker
	w       int
	gateway *[]*simDelta
	deltas  []*simDelta
	streams []*simStream
	views   []*simKnows // of streams
	md      pmetric.Metrics
	faults  []simFault
	ackLost bool
	dead    bool           // the worker is
	lives   [][]store.Life // that the worker has known meanwhile
	gone    uint64         // of the worker, when it began

	faulted bool // an error may come of it
	newer   bool // a record of a newer version was met
	swaps   int

	result d2c.Result
	err    error

	// A flight that may hang has a goroutine of its own, which runs while nothing else does.
	hung, resumed chan struct{}
	landed        bool
}

// simKnows is what a worker knows of a stream during a call.
type simKnows struct {
	cached  *simNode
	known   *simNode // what it last read, if it believed that
	latest  uint64   // the latest time given out that it has heard of
	start   uint64
	read    *simNode // what it last read
	readSeq int      // of the first time
	open    bool     // asked the store, and has not been told that it was as it had to be
	fold    *simFold // what the store has confirmed
	seq     int
}

// flight prepares to hand up to n of a gateway's deltas to a worker, or to that which the ring says.
func (s *sim) flight(g *[]*simDelta, w, n int) *simFlight {
	if s.plan.ring {
		w = s.view[(*g)[0].stream.index]
	}
	f := &simFlight{sim: s, worker: s.workers[w], w: w, gateway: g}
	for _, d := range *g {
		if len(f.deltas) < n && (!s.plan.ring || s.view[d.stream.index] == w) {
			// Of many writers what comes twice in one request is two: a gateway sends nothing twice in one.
			if s.plan.many && d.n >= 0 && slices.Contains(f.deltas, d) {
				continue
			}
			for range max(d.weight, 1) {
				f.deltas = append(f.deltas, d)
			}
		}
	}
	return f
}

func (s *sim) launch(f *simFlight) {
	s.stats.converts++
	f.lives, f.gone = [][]store.Life{f.worker.lives}, f.worker.gone
	for i, d := range f.deltas {
		d.delivered = true
		s.log("   point %d: stream %d delta %d (%d, %d] to worker %d", i, d.stream.index, d.n, int64(d.start-simEpoch), d.time-simEpoch, f.w)
		if !slices.Contains(f.streams, d.stream) {
			f.streams = append(f.streams, d.stream)
		}
	}
	f.build()
	for _, st := range f.streams {
		view := &simKnows{}
		if cached, ok := f.worker.conv.Cached(st.template.id); ok {
			view.known = st.nodes[cached.Tag]
			if view.known == nil {
				s.fail("worker %d has a tag in its cache that the store never had: %+v", f.w, cached)
				return
			}
			if err := sameState(view.known.state, cached, s.plan.many); err != nil {
				s.fail("worker %d: what is in the cache is not what the store had under its tag: %v", f.w, err)
				return
			}
			view.latest = uint64(cached.Emitted)
			view.start = uint64(cached.Start)
			s.log("   worker %d remembers %v", f.w, view.known)
		}
		view.cached = view.known
		f.views = append(f.views, view)
	}
	f.worker.busy = f
	if !slices.ContainsFunc(f.faults, func(fault simFault) bool { return fault >= simHangBefore }) {
		f.convert()
		f.landed = true
		f.worker.busy = nil
		s.land(f)
		return
	}
	f.hung, f.resumed = make(chan struct{}), make(chan struct{})
	go func() {
		<-f.resumed
		f.convert()
		f.landed = true
		f.hung <- struct{}{}
	}()
	s.flights = append(s.flights, f)
	s.resume(len(s.flights) - 1)
}

// alive reports whether the flight's goroutine has something left to do.
func (f *simFlight) alive() bool { return f.hung != nil && !f.landed }

// next lets a flight go on until it hangs or lands.
func (f *simFlight) next() {
	f.resumed <- struct{}{}
	<-f.hung
}

// hang lets other things happen, and reports whether the call goes on.
func (f *simFlight) hang() bool {
	if f.hung == nil || f.sim.quiet {
		return true
	}
	f.hung <- struct{}{}
	<-f.resumed
	return !f.sim.ended
}

// hasRead reports whether the call goes on from what it has read, rather than from what its worker had.
func (f *simFlight) hasRead() bool {
	return slices.ContainsFunc(f.views, func(v *simKnows) bool { return v.read != nil })
}

func (s *sim) resume(i int) {
	f := s.flights[i]
	if f.next(); !f.landed {
		s.log("   worker %d's call hangs", f.w)
		return
	}
	s.flights = slices.Delete(s.flights, i, i+1)
	f.worker.busy = nil
	s.land(f)
}

func (f *simFlight) convert() {
	ctx := context.Background()
	if f.sim.plan.ring {
		route := f.sim.route
		route.Member = simNumbers[f.w]
		ctx = d2c.WithRoute(ctx, route)
	}
	f.result, f.err = f.worker.conv.Convert(ctx, f.md)
}

func (f *simFlight) view(st *simStream) *simKnows {
	for i, other := range f.streams {
		if other == st {
			return f.views[i]
		}
	}
	f.sim.fail("worker %d asks for a stream which is not in its batch", f.w)
	return &simKnows{}
}

var simNumbers = func() (s []string) {
	for i := range 256 {
		s = append(s, strconv.Itoa(i))
	}
	return s
}()

// build makes the batch; a metric's description, which is not part of its identity, says which delta it is.
func (f *simFlight) build() {
	f.md = pmetric.NewMetrics()
	ms := f.md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics()
	ms.EnsureCapacity(len(f.deltas))
	for i, d := range f.deltas {
		m := ms.AppendEmpty()
		t := d.stream.template
		t.newMetric(m)
		m.SetDescription(simNumbers[i])
		switch t.kind {
		case d2c.KindSum:
			dp := m.Sum().DataPoints().AppendEmpty()
			d.times(dp)
			if d.n < 0 {
				dp.SetFlags(noRecordedValue)
			} else if t.doubles && d.n%2 == 1 {
				dp.SetDoubleValue(float64(t.delta(d.n)))
			} else {
				dp.SetIntValue(int64(t.delta(d.n)))
			}
		case d2c.KindHistogram:
			dp := m.Histogram().DataPoints().AppendEmpty()
			d.times(dp)
			if d.n < 0 {
				dp.SetFlags(noRecordedValue)
				continue
			}
			dp.ExplicitBounds().FromRaw([]float64{1, 2})
			counts := make([]uint64, 3)
			counts[d.n%3] = uint64(t.delta(d.n))
			dp.BucketCounts().FromRaw(counts)
			dp.SetCount(uint64(t.delta(d.n)))
			dp.SetSum(float64(t.delta(d.n)))
		default:
			dp := m.ExponentialHistogram().DataPoints().AppendEmpty()
			d.times(dp)
			if d.n < 0 {
				dp.SetFlags(noRecordedValue)
				continue
			}
			counts := make([]uint64, d.n%3+1)
			counts[d.n%3] = uint64(t.delta(d.n))
			dp.Positive().BucketCounts().FromRaw(counts)
			dp.SetCount(uint64(t.delta(d.n)))
			dp.SetSum(float64(t.delta(d.n)))
		}
	}
}

func (d *simDelta) times(dp dataPoint) {
	dp.SetStartTimestamp(pcommon.Timestamp(d.start))
	dp.SetTimestamp(pcommon.Timestamp(d.time))
}

// land takes what a call of Convert has returned.
func (s *sim) land(f *simFlight) {
	if s.err != nil || f.dead {
		return
	}
	if f.err != nil {
		s.stats.refused++
		contended := errors.Is(f.err, d2c.ErrContended)
		if contended {
			s.stats.contended++
		}
		s.log("   worker %d refuses: %v", f.w, f.err)
		if !f.faulted && !(f.newer && errors.Is(f.err, d2c.ErrVersion)) && !(contended && f.swaps >= 16) {
			s.fail("worker %d refuses for no reason: %v", f.w, f.err)
		}
		unchanged := f.md
		f.build()
		if !sameBytes(unchanged, f.md) {
			s.fail("worker %d refuses a batch and changes it", f.w)
		}
		return
	}
	want := d2c.Result{Stored: true}
	gone := make([]bool, len(f.deltas))
	samples := make([]*simSample, len(f.deltas))
	for i, st := range f.streams {
		view := f.views[i]
		if view.open || view.fold == nil {
			s.fail("worker %d answers for stream %d though the store has not confirmed it", f.w, st.index)
			return
		}
		want.GapOpened += view.fold.result.GapOpened
		want.GapFilled += view.fold.result.GapFilled
		for o, n := range view.fold.result.Counts() {
			want.Note(o, n)
		}
		for _, a := range view.fold.points {
			d := f.deltas[a.point]
			gone[a.point] = a.outcome.Dropped() || a.withheld
			// What is covered is counted, too, where one producer counts everything once.
			if a.outcome.Added() || a.outcome == d2c.Repeat || a.outcome == d2c.Covered {
				d.counted = true
			}
			if a.outcome.Dropped() {
				d.refused = true
			}
			samples[a.point] = &simSample{
				seq: view.seq, worker: f.w, start: uint64(a.after.start), time: uint64(a.after.time), total: a.after.total, marker: d.n < 0,
				closed: a.closed,
			}
		}
	}
	if f.result != want {
		s.fail("worker %d counts %s, want %s", f.w, describeResult(f.result), describeResult(want))
		return
	}
	for o, n := range f.result.Counts() {
		s.stats.outcomes[o] += n
	}
	s.compare(f, gone, samples)
	for i, st := range f.streams {
		view := f.views[i]
		if view.fold.node != nil {
			s.confirmed(f, st, view)
		}
		for _, a := range view.fold.points {
			switch {
			case gone[a.point]:
			case f.deltas[a.point].n < 0 && !a.after.stamped: // passed on as it came
			default:
				s.given(f, st, samples[a.point])
			}
		}
	}
	if !f.ackLost {
		*f.gateway = slices.DeleteFunc(*f.gateway, func(d *simDelta) bool { return slices.Contains(f.deltas, d) })
	}
}

// sameBytes compares what Convert changes.
func sameBytes(a, b pmetric.Metrics) bool {
	var m pmetric.ProtoMarshaler
	x, errX := m.MarshalMetrics(a)
	y, errY := m.MarshalMetrics(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// compare looks at what came out of Convert.
func (s *sim) compare(f *simFlight, gone []bool, samples []*simSample) {
	seen := 0
	forEachMetric(f.md, func(_ pmetric.ResourceMetrics, _ pmetric.ScopeMetrics, m pmetric.Metric) {
		i, _ := strconv.Atoi(m.Description())
		seen++
		d, want := f.deltas[i], samples[i]
		if gone[i] {
			s.fail("worker %d gives out stream %d delta %d, which it counts as dropped", f.w, d.stream.index, d.n)
			return
		}
		var dp dataPoint
		var total digits
		var buckets [3]digits
		switch m.Type() {
		case pmetric.MetricTypeSum:
			p := m.Sum().DataPoints().At(0)
			dp, total = p, digits(p.IntValue())
			if p.ValueType() == pmetric.NumberDataPointValueTypeDouble {
				total = digits(p.DoubleValue())
			}
		case pmetric.MetricTypeHistogram:
			p := m.Histogram().DataPoints().At(0)
			dp, total = p, digits(p.Count())
			for i, n := range p.BucketCounts().All() {
				buckets[i] = digits(n)
			}
			if d.n >= 0 && p.Sum() != float64(total) {
				s.fail("worker %d: sum %v, count %v", f.w, p.Sum(), total)
			}
		default:
			p := m.ExponentialHistogram().DataPoints().At(0)
			dp, total = p, digits(p.Count())
			for i, n := range p.Positive().BucketCounts().All() {
				buckets[i+int(p.Positive().Offset())] = digits(n)
			}
			if d.n >= 0 && p.Sum() != float64(total) {
				s.fail("worker %d: sum %v, count %v", f.w, p.Sum(), total)
			}
		}
		got := simSample{start: uint64(dp.StartTimestamp()), time: uint64(dp.Timestamp()), total: total, marker: want.marker}
		if got.start != want.start || got.time != want.time || got.total != want.total && !want.marker {
			s.fail("worker %d gives out %v for stream %d delta %d, want %v", f.w, &got, d.stream.index, d.n, want)
		}
		if d.stream.template.kind != d2c.KindSum && !want.marker {
			var wanted [3]digits
			for n, times := range d.stream.template.counted(total) {
				wanted[n%3] += digits(times) * d.stream.template.delta(n)
			}
			if buckets != wanted {
				s.fail("worker %d: buckets %o of total %o", f.w, buckets, total)
			}
		}
	})
	left := 0
	for _, gone := range gone {
		if !gone {
			left++
		}
	}
	if seen != left {
		s.fail("worker %d: %d points are left, want %d", f.w, seen, left)
	}
}
