// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/d2c/store/log"
	"github.com/deltaring/deltaring/streamid"
)

// The simulation of aggregation plays histories of some totals and their writers: a list of steps that mean something in any state,
// so that one that fails can be shrunk. Where nothing that was acknowledged is lost, the oracle of aggmodel_test.go says what
// must come of each batch, to the outcome and the nanosecond, whoever takes it. A batch that was refused may have been taken, by each
// of its totals for itself: then there are several worlds, until what comes next shows in which we are.
//
// Where a store loses all, or streams move between workers that share nothing, no oracle can know what a worker knows. Then it is
// asked that under one start times rise and values do not fall, and that in the end each increment is in one life at most, and
// those of deltas that were acknowledged in one.

type aggMode uint8

const (
	aggMemory  aggMode = iota
	aggDurable         // one worker, and storage
	aggShared          // several workers, and a store that keeps what it acknowledges
	aggWiped           // and one that does not
	aggMoved           // several workers that share nothing
	aggModes
)

var aggModeNames = [aggModes]string{"memory", "durable", "shared", "wiped", "moved"}

type aggOp uint8

const (
	aggProduce  aggOp = iota // writer b of total a counts; c: what becomes of it
	aggSend                  // c of what waits is sent to worker b
	aggAgain                 // an earlier batch comes again, to worker b
	aggRelease               // what was held up waits again
	aggBegin                 // writer b of total a begins anew
	aggTime                  // time goes by
	aggExpire                // worker a forgets what is old
	aggCrash                 // worker a is replaced
	aggView                  // from now on total a is sent to worker b
	aggWipe                  // the store loses everything
	aggEmit                  // worker a gives out totals that batches do not
	aggLate                  // a request that was given up reaches the store
	aggSnapshot              // worker a makes snapshots of its logs
	aggOps
)

var aggOpNames = [aggOps]string{"produce", "send", "again", "release", "begin", "time", "expire", "crash", "view", "wipe", "emit", "late", "snapshot"}

type aggStep struct {
	op         aggOp
	a, b, c, d uint8
	faults     [3]aggFault
}

type aggFault uint8

const (
	aggNone        aggFault = iota
	aggLostRequest          // an error, nothing done
	aggLostReply            // an error, everything done
	aggPartly               // an error; of storage some operations, of a store some units
	aggGivenUp              // an error; done later, or never
	aggTwice                // done twice; the second answer arrives
	aggMeanwhile            // another worker takes a batch first
	aggFaults
)

var aggFaultNames = [aggFaults]string{"", "lost request", "lost reply", "partly", "given up", "twice", "meanwhile"}

func (s aggStep) String() string {
	text := fmt.Sprintf("%s a=%d b=%d c=%d d=%d", aggOpNames[s.op], s.a, s.b, s.c, s.d)
	for _, f := range s.faults {
		if f != aggNone {
			text += ", " + aggFaultNames[f]
		}
	}
	return text
}

// aggPlan is a whole history.
type aggPlan struct {
	seed       uint64
	mode       aggMode
	workers    int
	totals     int
	writers    int
	kinds      uint64 // bits: which writers are cumulative
	falls      uint64 // and which of them do not tell when they begin anew
	many       bool
	gauges     bool
	keepInput  bool
	maxWriters int
	maxStreams int  // of one total
	zeros      bool // lives begin with a zero
	held       bool // samples are given out by the clock
	logs       bool // the store keeps its records in logs
	damages    bool // the store loses single records: then only what one worker gives out is looked at
	window     time.Duration
	stale      time.Duration
	steps      []aggStep
}

func (p *aggPlan) String() string {
	return fmt.Sprintf("seed %d: %s, %d workers, %d totals of %d writers, cumulative %b (falls %b), many %v, keep %v, max writers %d, max streams %d, zeros %v, held %v, damages %v, window %v, stale %v, gauges %v, logs %v",
		p.seed, aggModeNames[p.mode], p.workers, p.totals, p.writers, p.kinds, p.falls, p.many, p.keepInput, p.maxWriters, p.maxStreams, p.zeros, p.held, p.damages, p.window, p.stale, p.gauges, p.logs)
}

func (p *aggPlan) cumulative(total, writer int) bool { return p.kinds>>((total*8+writer)%64)&1 != 0 }

func (p *aggPlan) fallen(total, writer int) bool {
	t := aggTemplates[total]
	return p.falls>>((total*8+writer)%64)&1 != 0 && (t.kind != d2c.KindSum || t.monotonic)
}

func (p *aggPlan) config() d2c.Config {
	cfg := d2c.Config{LateWindow: p.window, MaxStale: p.stale, Aggregate: []d2c.AggregateRule{{
		Metrics: []string{"no such", "*"}, Resource: streamid.Selection{Drop: []string{"pod"}}, Attributes: streamid.Selection{Drop: []string{"part"}},
		KeepInput: p.keepInput, MaxWriters: p.maxWriters,
	}}}
	cfg.MaxStreams, cfg.EmitZero = p.maxStreams, p.zeros
	if p.held {
		cfg.Aggregate[0].Interval = time.Second
	}
	if p.many {
		cfg.Writers = d2c.WritersMany
	}
	if p.mode == aggMoved {
		cfg.Gap = d2c.GapRestartIfMoved
	}
	return cfg
}

// exact says that the oracle knows all that is known.
func (p *aggPlan) exact() bool { return p.mode <= aggShared }

func newAggPlan(seed uint64) *aggPlan {
	r := rand.New(rand.NewPCG(seed, 0xa66))
	p := &aggPlan{
		seed: seed, mode: aggMode(r.IntN(int(aggModes))), workers: 1, totals: 1 + min(r.IntN(3), r.IntN(3)), writers: 1 + r.IntN(5), gauges: r.IntN(3) == 0,
	}
	switch r.IntN(3) {
	case 0:
		p.kinds = r.Uint64() & r.Uint64()
	case 1:
		p.kinds = r.Uint64()
	}
	p.falls = r.Uint64() & r.Uint64()
	p.window = []time.Duration{0, 2 * time.Second, 5 * time.Second, 5 * time.Minute}[r.IntN(4)]
	if p.mode >= aggShared {
		p.workers = 1 + r.IntN(3)
	}
	if p.mode == aggMoved {
		p.workers = 2 + r.IntN(2)
	} else if r.IntN(4) == 0 {
		p.many, p.window = true, 1000*time.Hour
	}
	faults := 0
	weights := [aggOps]int{aggProduce: 40, aggSend: 40, aggAgain: r.IntN(12), aggBegin: r.IntN(4), aggTime: r.IntN(6)}
	if r.IntN(3) != 0 && p.mode != aggMoved {
		weights[aggRelease] = 5
	}
	if r.IntN(3) == 0 && p.mode <= aggDurable {
		p.maxWriters = 1 + r.IntN(3)
	}
	p.keepInput = r.IntN(6) == 0
	if r.IntN(4) == 0 && p.mode <= aggDurable && p.totals == 1 && !p.keepInput {
		p.maxStreams = 1 + r.IntN(4)
	}
	p.zeros = !p.exact() && r.IntN(3) == 0 && !p.keepInput // the oracle has none
	if p.held = r.IntN(5) == 0; p.held {
		weights[aggEmit] = 15
	}
	switch p.mode {
	case aggMemory:
		if r.IntN(2) == 0 {
			p.stale, weights[aggExpire], weights[aggTime] = 5*time.Second, 6, 8
		}
	case aggDurable:
		weights[aggCrash] = r.IntN(5)
		if faults = r.IntN(40); faults == 0 || r.IntN(2) == 0 {
			faults = 0
			p.stale, weights[aggExpire], weights[aggTime] = 5*time.Second, 6, 8
			weights[aggCrash] = 0
		}
	case aggShared, aggWiped:
		weights[aggCrash] = r.IntN(4)
		faults = max(r.IntN(60)-15, 0)
		if r.IntN(2) == 0 {
			p.stale, weights[aggExpire], weights[aggTime] = 60*time.Second, 3, 8
		}
		weights[aggLate] = 3
		if p.mode == aggWiped {
			weights[aggWipe] = 1 + r.IntN(4)
			p.damages = r.IntN(3) == 0
		}
	case aggMoved:
		weights[aggAgain] = 0
		weights[aggView] = 8
	}
	total := 0
	for _, w := range weights {
		total += w
	}
	for range 10 + r.IntN(40) {
		n, op := r.IntN(total), aggOp(0)
		for n >= weights[op] {
			n -= weights[op]
			op++
		}
		step := aggStep{op: op, a: uint8(r.Uint32()), b: uint8(r.Uint32()), c: uint8(r.Uint32()), d: uint8(r.Uint32())}
		if op == aggSend || op == aggAgain {
			for i := range step.faults {
				if r.IntN(100) < faults {
					step.faults[i] = aggFault(1 + r.IntN(int(aggFaults)-1))
				}
			}
		}
		p.steps = append(p.steps, step)
	}
	return p
}

// aggSim is a history under way.
type aggSim struct {
	plan    *aggPlan
	now     time.Time
	workers []*aggWorker
	totals  []*aggTruth
	waiting []aggPoint
	heldUp  []aggPoint
	sent    [][]aggPoint
	store   aggRecords
	driver  *log.Memory // of logs, if the store keeps them
	other   *log.Store  // whoever sends what is late
	opened  []*log.Store
	life    store.Life
	files   *recorder
	view    []int
	route   d2c.Route
	late    []aggRequest
	busy    int
	err     error
	trace   func(string, ...any)
	stats   aggStats
}

type aggStats struct {
	histories, batches, refused, worlds, zeros int
	outcomes                                   [d2c.NumOutcomes]uint64
	modes                                      [aggModes]int
}

type aggWorker struct {
	conv   *d2c.Converter
	logs   *log.Store
	lose   bool // the answer to the next append
	began  uint64
	faults []aggFault
	step   aggStep
}

// aggTruth is what is true of a total.
type aggTruth struct {
	index    int
	template *simTemplate
	worlds   []*aggTotal
	n        int // increments
	writers  []aggProducer
	stored   []*aggTotal // what storage may have instead
	given    []aggSample
	givenBy  map[int]aggSample // by worker
	anew     bool              // it may have expired
	counted  [aggDeltas]bool   // acknowledged
}

// aggProducer is a writer as it is.
type aggProducer struct {
	start uint64 // of its process
	last  uint64
	holds []int
	value digits
}

func newAggSim(p *aggPlan, trace func(string, ...any)) *aggSim {
	s := &aggSim{plan: p, now: time.Unix(0, int64(simEpoch)), trace: trace, files: &recorder{values: stored{}}}
	for i := range p.totals {
		n := (int(p.seed) + i*2) % len(aggTemplates)
		t := &aggTruth{givenBy: map[int]aggSample{}, index: n, template: aggTemplates[n], worlds: []*aggTotal{newAggTotal()}}
		for range p.writers {
			t.writers = append(t.writers, aggProducer{start: simEpoch + 100e9, last: simEpoch + 100e9})
		}
		s.totals = append(s.totals, t)
		s.view = append(s.view, i%p.workers)
	}
	s.store.sim = s
	if p.logs {
		s.driver = new(log.Memory)
		s.other = s.openLogs(s.driver)
	}
	s.route = d2c.Route{Epoch: 1, Since: s.now.Add(-time.Minute)}
	for w := range p.workers {
		s.workers = append(s.workers, &aggWorker{})
		s.open(w)
	}
	s.now = s.now.Add(100 * time.Second) // later than what a new store takes for repeats
	return s
}

func (s *aggSim) log(format string, args ...any) {
	if s.trace != nil {
		s.trace(format, args...)
	}
}

func (s *aggSim) fail(format string, args ...any) {
	if s.err == nil {
		s.err = fmt.Errorf(format, args...)
		s.log("FAIL %v", s.err)
	}
}

// open makes a worker.
func (s *aggSim) open(w int) {
	cfg := s.plan.config()
	cfg.Now = func() time.Time { return s.now }
	worker := s.workers[w]
	worker.began = uint64(s.now.UnixNano())
	s.forgets(w)
	var err error
	switch s.plan.mode {
	case aggMemory, aggMoved:
		worker.conv, err = d2c.New(cfg)
	case aggDurable:
		worker.conv, _, err = d2c.OpenDurable(context.Background(), cfg, d2c.DurableConfig{Storage: s.files, Owner: "sim", JournalSize: 1 << 12})
		if err == nil {
			worker.conv.StopBackground()
		}
	default:
		if s.plan.logs {
			worker.logs = s.openLogs(&aggDriver{s.driver, worker})
		}
		worker.conv, err = d2c.OpenShared(context.Background(), cfg, d2c.SharedConfig{Store: &aggStore{sim: s, w: w}, Owner: "sim", OnDamaged: func(id streamid.ID, err error) {
			if !s.plan.damages {
				s.fail("worker %d: %v is damaged: %v", w, id, err)
			}
		}})
	}
	if err != nil {
		s.fail("worker %d: %v", w, err)
	}
}

func (s *aggSim) do(step aggStep) {
	t := s.totals[int(step.a)%len(s.totals)]
	switch step.op {
	case aggProduce:
		s.produce(t, step)
	case aggSend:
		if n := min(1+int(step.c)%6, len(s.waiting)); n > 0 {
			points := s.take(n)
			s.send(int(step.b)%len(s.workers), points, step)
		}
	case aggAgain:
		if n := len(s.sent); n > 0 {
			s.send(int(step.b)%len(s.workers), s.sent[n-1-int(step.c)%min(n, 8)], step)
		}
	case aggRelease:
		s.waiting, s.heldUp = append(s.waiting, s.heldUp...), nil
	case aggBegin:
		n := int(step.b) % len(t.writers)
		w := &t.writers[n]
		s.now = s.now.Add(time.Second)
		if w.last = max(w.last, uint64(s.now.UnixNano())-uint64(step.c)*1e6); !s.plan.cumulative(t.index, n) || !s.plan.fallen(t.index, n) {
			w.start = w.last
		}
		w.holds, w.value = nil, 0
	case aggTime:
		s.now = s.now.Add(time.Duration(1+step.a%8) * time.Second)
		if step.b%8 == 0 {
			s.now = s.now.Add(time.Minute + time.Second)
		}
		s.forget()
	case aggExpire:
		s.expire(int(step.a) % len(s.workers))
	case aggCrash:
		w := int(step.a) % len(s.workers)
		if s.plan.mode == aggDurable && step.b%2 == 0 {
			if err := s.workers[w].conv.Close(context.Background()); err != nil {
				s.fail("close: %v", err)
			}
		}
		s.log("   worker %d is another", w)
		for _, t := range s.totals {
			t.worlds, t.stored = append(t.worlds, t.stored...), nil
			t.distinct()
		}
		s.open(w)
		s.stays()
	case aggView:
		n := int(step.a) % len(s.totals)
		s.view[n] = int(step.b) % len(s.workers)
		s.now = s.now.Add(time.Minute)
		was := s.route
		s.route = d2c.Route{Epoch: was.Epoch%3 + 1, Since: s.now, Previous: was.Epoch, PreviousSince: was.Since}
		s.now = s.now.Add(time.Minute)
		for w := range s.workers { // each gets some batch by the new ring
			route := s.route
			route.Member = fmt.Sprint(w)
			if _, err := s.workers[w].conv.Convert(d2c.WithRoute(context.Background(), route), pmetric.NewMetrics()); err != nil {
				s.fail("%v", err)
			}
		}
	case aggEmit:
		s.emit(int(step.a) % len(s.workers))
	case aggSnapshot:
		if logs := s.workers[int(step.a)%len(s.workers)].logs; logs != nil {
			if err := logs.Compact(context.Background()); err != nil {
				s.fail("%v", err)
			}
		}
	case aggWipe:
		if s.plan.damages {
			s.store.damage(int(step.a), int(step.b))
			break
		}
		s.store.Wipe()
		if s.driver != nil {
			s.driver.Wipe()
		}
		s.life = store.Life{}
		s.now = s.now.Add(time.Duration(step.a%4) * time.Second)
	case aggLate:
		if n := len(s.late); n > 0 {
			i := int(step.a) % n
			r := s.late[i]
			s.late = slices.Delete(s.late, i, i+1)
			s.log("   a late request of %v", r.points)
			s.swapLate(r.swaps)
			r.where.now = s.now.Unix()
			s.perhaps(r.where, r.points)
		}
	}
}

// take takes points that wait. Where workers share nothing, those of one worker.
func (s *aggSim) take(n int) (points []aggPoint) {
	var rest []aggPoint
	for _, p := range s.waiting {
		// Of many writers, identical points of one batch are several.
		twice := s.plan.many && slices.ContainsFunc(points, func(o aggPoint) bool { return o.total == p.total && o.writer == p.writer && o.time == p.time })
		if len(points) < n && !twice && (len(points) == 0 || s.plan.mode != aggMoved || s.worker(p) == s.worker(points[0])) {
			points = append(points, p)
		} else {
			rest = append(rest, p)
		}
	}
	s.waiting = rest
	return points
}

func (s *aggSim) worker(p aggPoint) int {
	return s.view[slices.IndexFunc(s.totals, func(t *aggTruth) bool { return t.index == p.total })]
}

// produce makes a point that ends about now.
func (s *aggSim) produce(t *aggTruth, step aggStep) {
	n := int(step.b) % len(t.writers)
	w := &t.writers[n]
	if t.n >= aggDeltas {
		return
	}
	s.now = s.now.Add(time.Second)
	at := uint64(s.now.UnixNano()) - uint64(step.d%16)*50e6
	if at <= w.last {
		return
	}
	p := aggPoint{total: t.index, writer: n, start: w.last, time: at}
	increment := t.n
	t.n++
	weight := t.template.aggWeight(increment)
	w.last = at
	if s.plan.cumulative(t.index, n) {
		w.holds = append(slices.Clone(w.holds), increment)
		w.value += weight
		p.holds, p.value, p.start = w.holds, w.value, w.start
		if s.plan.fallen(t.index, n) && step.d/64 == 0 {
			p.start = 0
		}
	} else {
		p.holds, p.value = []int{increment}, weight
		if step.c%16 == 15 && s.plan.mode != aggMoved {
			p.start = 0
		}
		if step.c%16 == 14 { // it overlaps
			p.start = max(p.start-200e6, w.start)
		}
	}
	switch step.c % 16 {
	case 0, 1: // never sent
	case 2, 3, 4:
		if s.plan.mode != aggMoved {
			s.heldUp = append(s.heldUp, p)
			break
		}
		fallthrough
	default:
		s.waiting = append(s.waiting, p)
	}
	s.log("   %v", p)
}

func (s *aggSim) where(began, gone uint64) *aggWhere {
	stale := uint64(0)
	if s.plan.mode == aggShared && s.plan.stale > 0 {
		stale = uint64(s.now.Add(-s.plan.stale).Unix()) * 1e9
		gone = max(gone, stale)
	}
	return &aggWhere{plan: s.plan, began: began, gone: gone, now: s.now.Unix(), life: s.life, stale: stale}
}

// perhaps is for a batch of which nobody knows whether it was taken.
func (s *aggSim) perhaps(where *aggWhere, points []aggPoint) {
	for _, t := range s.totals {
		of := t.of(points)
		if len(of) == 0 {
			continue
		}
		for _, world := range slices.Clone(t.worlds) {
			after, _, _ := world.apply(where, t.template, of)
			if s.plan.mode == aggDurable {
				t.stored = append(t.stored, after) // as only the next process finds out
			} else {
				t.worlds = append(t.worlds, after)
			}
		}
		t.distinct()
	}
}

// distinct leaves one of worlds that are the same.
func (t *aggTruth) distinct() {
	seen := map[string]bool{}
	t.worlds = slices.DeleteFunc(t.worlds, func(w *aggTotal) bool {
		key := w.key()
		was := seen[key]
		seen[key] = true
		return was
	})
}

// key is all that a world says.
func (t *aggTotal) key() string {
	text := fmt.Sprint(t.String(), t.seen)
	for n := range 8 {
		if w := t.writers[n]; w != nil {
			text += fmt.Sprint(n, w.seen, w.start, w.last, w.value)
			if w.deltas != nil {
				st := w.deltas.streams[""]
				text += fmt.Sprint(st.start, st.last, st.fresh, st.closed, st.gaps, st.horizon, st.print, len(st.memory))
			}
		}
	}
	return text
}

func (t *aggTruth) of(points []aggPoint) (of []aggPoint) {
	for _, p := range points {
		if p.total == t.index {
			of = append(of, p)
		}
	}
	return of
}

// send has a worker convert a batch.
func (s *aggSim) send(w int, points []aggPoint, step aggStep) {
	if s.plan.mode == aggMoved {
		w = s.worker(points[0])
	}
	worker := s.workers[w]
	md := aggBatch(s.plan, points)
	before := aggBytes(md)
	ctx := context.Background()
	if s.plan.mode == aggMoved {
		route := s.route
		route.Member = fmt.Sprint(w)
		ctx = d2c.WithRoute(ctx, route)
	}
	worker.faults, worker.step = slices.Clone(step.faults[:]), step
	if s.plan.mode == aggDurable {
		s.files.fail = s.storage(worker)
	}
	late, puts := len(s.late), len(s.files.puts)
	gone := uint64(worker.conv.Gone())
	s.stats.batches++
	s.busy++
	result, err := worker.conv.Convert(ctx, md)
	s.busy--
	s.files.fail = nil
	where := s.where(worker.began, gone)
	where.life = s.life
	for i := late; i < len(s.late); i++ {
		sent := *where
		s.late[i].points, s.late[i].where = points, &sent
	}
	if err != nil {
		s.stats.refused++
		s.log("   worker %d refuses %v: %v", w, points, err)
		if !bytes.Equal(before, aggBytes(md)) || result != (d2c.Result{}) {
			s.fail("worker %d refuses a batch, and changes it", w)
		}
		if !errors.Is(err, errSimFault) && !errors.Is(err, errStorage) {
			s.fail("worker %d: %v", w, err)
		}
		s.perhaps(where, points)
		if len(s.waiting) < 50 && step.d%4 != 0 {
			s.waiting = append(slices.Clone(points), s.waiting...)
		}
		return
	}
	s.sent = append(s.sent, points)
	if len(s.files.puts) > puts { // in the place of what was refused
		for _, t := range s.totals {
			t.stored = nil
		}
	}
	for o := range d2c.NumOutcomes {
		s.stats.outcomes[o] += result.Count(o)
	}
	samples, err := aggRead(s.plan, md, points)
	s.log("   worker %d takes %v: %v %s", w, points, samples, describeResult(result))
	if err != nil {
		s.fail("worker %d: %w", w, err)
		return
	}
	if s.plan.exact() {
		s.compare(w, where, points, samples, result)
	} else {
		s.note(points, result)
	}
	for _, t := range s.totals {
		if zero, ok := samples[aggZero(t.index)]; ok {
			s.stats.zeros++
			if n := len(t.given); n > 0 && (zero.start < t.given[n-1].time || zero.time/nudge <= t.given[n-1].time/nudge) && !s.plan.damages {
				s.fail("worker %d, total %d: zero %v after %v", w, t.index, zero, t.given[n-1])
			}
		}
		if sample, ok := samples[t.index]; ok {
			s.given(t, w, sample)
		}
	}
}

func aggBytes(md pmetric.Metrics) []byte {
	b, err := (&pmetric.ProtoMarshaler{}).MarshalMetrics(md)
	if err != nil {
		panic(err)
	}
	return b
}

// compare leaves the worlds in which what was given out is right.
func (s *aggSim) compare(w int, where *aggWhere, points []aggPoint, samples map[int]aggSample, result d2c.Result) {
	type end struct {
		after    *aggTotal
		outcomes [d2c.NumOutcomes]uint64
	}
	ends := make([][]end, len(s.totals))
	for i, t := range s.totals {
		of := t.of(points)
		var wanted []string
		for _, world := range t.worlds {
			after, want, outcomes := world, (*aggSample)(nil), []d2c.Outcome(nil)
			if len(of) > 0 {
				after, want, outcomes = world.apply(where, t.template, of)
			}
			got, given := samples[t.index]
			if given != (want != nil) || given && got != *want {
				wanted = append(wanted, fmt.Sprint(want, " ", outcomes, " of ", world))
				continue
			}
			e := end{after: after}
			for _, o := range outcomes {
				e.outcomes[o]++
			}
			ends[i] = append(ends[i], e)
		}
		if len(ends[i]) == 0 {
			s.fail("worker %d, total %d: got %v, want one of %v", w, t.index, samples[t.index], wanted)
			return
		}
	}
	var got [d2c.NumOutcomes]uint64
	for o := range d2c.NumOutcomes {
		if o != d2c.Passed && !s.plan.keepInput {
			got[o] = result.Count(o)
		}
	}
	// The outcomes are those of some world of each total: which, is not known if several have the same.
	possible := make([]map[int]bool, len(ends))
	for i := range possible {
		possible[i] = map[int]bool{}
	}
	var pick func(i int, left [d2c.NumOutcomes]uint64, picked []int)
	pick = func(i int, left [d2c.NumOutcomes]uint64, picked []int) {
		if i == len(ends) {
			if left == [d2c.NumOutcomes]uint64{} {
				for i, n := range picked {
					possible[i][n] = true
				}
			}
			return
		}
		for n := range ends[i] {
			rest := left
			for o := range rest {
				if !s.plan.keepInput {
					rest[o] -= ends[i][n].outcomes[o]
				}
			}
			pick(i+1, rest, append(picked, n))
		}
	}
	pick(0, got, nil)
	for i, t := range s.totals {
		var worlds []*aggTotal
		for n, e := range ends[i] {
			if possible[i][n] {
				worlds = append(worlds, e.after)
			}
		}
		if len(worlds) == 0 {
			s.fail("worker %d: outcomes %s, want e.g. those of %v", w, describeResult(result), ends)
			return
		}
		t.worlds = worlds
		t.distinct()
		s.stats.worlds = max(s.stats.worlds, len(worlds))
	}
	s.stays()
}

// stays checks figures against the oracle, where there is one world.
func (s *aggSim) stays() {
	if s.plan.mode > aggDurable || s.plan.keepInput {
		return
	}
	totals, writers := 0, 0
	for _, t := range s.totals {
		if len(t.worlds) != 1 {
			return
		}
		if t.worlds[0].open {
			totals++
		}
		writers += len(t.worlds[0].writers)
	}
	if got := s.workers[0].conv.Stats(); got.Streams != totals || got.Writers != writers || s.workers[0].conv.Live() != totals+writers {
		s.fail("%d totals, %d writers, %d live, want %d, %d", got.Streams, got.Writers, s.workers[0].conv.Live(), totals, writers)
	}
}

func (s *aggSim) expire(w int) {
	n := s.workers[w].conv.Expire()
	s.forgets(w)
	s.log("   %d totals expire at worker %d", n, w)
	if s.plan.mode > aggDurable {
		return
	}
	for _, t := range s.totals {
		for i, world := range t.worlds {
			if t.worlds[i] = world.expire(s.now.Unix(), int64(s.plan.stale/time.Second)); world.open && !t.worlds[i].open {
				t.given = nil // what comes next begins after that
			}
		}
	}
	s.stays()
}

// forget has a shared store forget what is old, and caches, lest these know what that does not.
func (s *aggSim) forget() {
	if s.plan.mode != aggShared && s.plan.mode != aggWiped || s.plan.stale == 0 {
		return
	}
	s.late = nil // no request is that late
	for w, worker := range s.workers {
		worker.conv.Expire()
		s.forgets(w)
	}
	for _, t := range s.totals {
		for i, world := range t.worlds {
			world = world.expire(s.now.Unix(), int64(s.plan.stale/time.Second))
			world.horizon = 0
			t.anew = t.anew || t.worlds[i].open && !world.open
			t.worlds[i] = world
		}
	}
}

// forgets is for a worker that may not know any more what it has given out.
func (s *aggSim) forgets(w int) {
	for _, t := range s.totals {
		delete(t.givenBy, w)
	}
}

// note notes what was acknowledged where no oracle knows more.
func (s *aggSim) note(points []aggPoint, result d2c.Result) {
	if s.plan.keepInput || s.plan.held {
		return
	}
	all := uint64(0)
	for o := range d2c.NumOutcomes {
		if o.Added() || o == d2c.Repeat {
			all += result.Count(o)
		}
	}
	if all != uint64(len(points)) {
		return
	}
	for _, p := range points {
		if t := s.totals[slices.IndexFunc(s.totals, func(t *aggTruth) bool { return t.index == p.total })]; !s.plan.cumulative(p.total, p.writer) {
			t.counted[p.holds[0]] = true
		}
	}
}

// given checks a sample against all others.
func (s *aggSim) given(t *aggTruth, w int, sample aggSample) {
	if s.plan.damages {
		last, known := t.givenBy[w]
		if err := t.follows(&last, &sample); known && err != nil {
			s.fail("worker %d, total %d: %w", w, t.index, err)
		}
		t.givenBy[w] = sample
		return
	}
	for i, times := range t.template.counted(sample.value) {
		if times != 0 && times != 1 || times != 0 && aggDeltas-1-i >= t.n {
			s.fail("total %d: increment %d is %d times in %v", t.index, aggDeltas-1-i, times, sample)
		}
	}
	if n := len(t.given); n > 0 {
		last := t.given[n-1]
		if s.plan.held && s.plan.mode == aggMoved && sample.start < last.start {
			// The last of a life before, at its own time.
			next := slices.IndexFunc(t.given, func(o aggSample) bool { return o.start > sample.start })
			if next > 0 && t.given[next-1].start == sample.start && t.follows(&t.given[next-1], &sample) != nil || sample.time > t.given[next].start {
				s.fail("worker %d, total %d: %v after %v", w, t.index, sample, t.given)
			}
			t.given = slices.Insert(t.given, next, sample)
			return
		}
		falls := t.template.monotonic && sample.value < last.value
		switch {
		case sample == last:
			return
		case sample.start == last.start && (sample.time < last.time || sample.time/nudge == last.time/nudge || falls):
			s.fail("worker %d, total %d: %v after %v", w, t.index, sample, last)
		case sample.start < last.start:
			s.fail("worker %d, total %d: the start goes back: %v after %v", w, t.index, sample, last)
		case sample.start > last.start && s.plan.exact() && !t.anew:
			s.fail("worker %d, total %d begins anew: %v after %v", w, t.index, sample, last)
		case sample.start > last.start && sample.start < last.time:
			s.fail("worker %d, total %d: begins anew before what was given out: %v after %v", w, t.index, sample, last)
		}
	}
	t.given, t.anew = append(t.given, sample), false
}

// follows says what is wrong with two samples that one worker has given out.
func (t *aggTruth) follows(a, b *aggSample) error {
	falls := t.template.monotonic && b.value < a.value
	switch {
	case *a == *b:
		return nil
	case b.time < a.time, b.start < a.start, b.start > a.start && b.start < a.time, b.start == a.start && (falls || b.time/nudge == a.time/nudge):
		return fmt.Errorf("%v after %v", b, a)
	}
	return nil
}

// emit has a worker give out totals.
func (s *aggSim) emit(w int) {
	if !s.plan.held {
		return
	}
	worker := s.workers[w]
	worker.faults = nil
	s.now = s.now.Add(time.Second)
	puts, all := len(s.files.puts), map[int]aggSample{}
	n, err := worker.conv.EmitTotals(context.Background(), time.Second, func(_ context.Context, md pmetric.Metrics) error {
		samples, err := aggRead(&aggPlan{}, md, nil)
		for i, sample := range samples {
			if _, twice := all[i]; twice {
				err = errors.New("given twice")
			}
			all[i] = sample
		}
		return err
	})
	s.log("   worker %d gives out %v", w, all)
	if err != nil || n != len(all) {
		s.fail("worker %d gives out %d: %v", w, n, err)
		return
	}
	for _, t := range s.totals {
		sample, given := all[t.index]
		if s.plan.exact() {
			var worlds []*aggTotal
			for _, world := range t.worlds {
				after := world.clone()
				if given && after.open {
					if after.emitted = max(after.emitted+nudge, uint64(s.now.UnixNano())); uint64(s.now.UnixNano())/nudge > world.emitted/nudge {
						after.emitted = uint64(s.now.UnixNano())
					}
					if s.plan.mode == aggShared {
						after.seen = s.now.Unix()
					}
				}
				if given && after.open && sample == (aggSample{after.start, after.emitted, after.value}) || !given && (s.plan.mode != aggMemory || !after.open) {
					worlds = append(worlds, after)
				}
			}
			if len(worlds) == 0 {
				s.fail("worker %d gives out %v of total %d, want what is %v", w, all, t.index, t.worlds)
				return
			}
			t.worlds = worlds
		}
		if len(s.files.puts) > puts {
			t.stored = nil
		}
		if given {
			s.given(t, w, sample)
		}
	}
}

// finish sends what is left, and checks the accounts.
func (s *aggSim) finish() {
	s.waiting, s.heldUp = append(s.waiting, s.heldUp...), nil
	for s.err == nil && len(s.waiting) > 0 {
		s.send(0, s.take(min(6, len(s.waiting))), aggStep{})
	}
	if s.err != nil {
		return
	}
	if s.plan.held && s.plan.mode != aggMoved {
		for w := range s.workers {
			s.emit(w)
		}
	}
	if !s.plan.exact() && !s.plan.damages && !s.plan.held {
		for _, t := range s.totals {
			s.account(t)
		}
	}
	if s.plan.stale > 0 {
		s.now = s.now.Add(2 * s.plan.stale)
		for w, worker := range s.workers {
			worker.conv.Expire()
			if got := worker.conv.Stats(); got.Streams != 0 || got.Writers != 0 || worker.conv.Live() != 0 {
				s.fail("worker %d: %d totals, %d writers, %d live when all have expired", w, got.Streams, got.Writers, worker.conv.Live())
			}
		}
	}
}

// account sees to it that each increment is in one life at most, and what was acknowledged in one.
func (s *aggSim) account(t *aggTruth) {
	ends := map[uint64]aggSample{}
	for _, sample := range t.given {
		ends[sample.start] = sample
	}
	var times [aggDeltas]int
	for _, end := range ends {
		for i, k := range t.template.counted(end.value) {
			times[aggDeltas-1-i] += k
		}
	}
	for n, k := range times {
		if k > 1 || k < 0 || t.counted[n] && k == 0 {
			s.fail("total %d: increment %d, acknowledged %v, is %d times in %v", t.index, n, t.counted[n], k, ends)
		}
	}
}

// storage has storage fail.
func (s *aggSim) storage(worker *aggWorker) fault {
	return func(_ int, ops []operation) ([]operation, error) {
		f := aggNone
		if len(worker.faults) > 0 {
			f, worker.faults = worker.faults[0], worker.faults[1:]
		}
		switch f {
		case aggLostRequest, aggGivenUp:
			return nil, errStorage
		case aggLostReply:
			return ops, errStorage
		case aggPartly:
			return ops[:int(worker.step.c)%(len(ops)+1)], errStorage
		}
		return ops, nil
	}
}

// aggRequest is what was sent to a shared store and given up.
type aggRequest struct {
	swaps  []store.Swap
	points []aggPoint
	where  *aggWhere
}

// aggRecords are the records of a store that lets them expire when nobody has looked at them for a while.
type aggRecords struct {
	sim     *aggSim
	life    store.Life
	records map[streamid.ID]aggRecord
}

type aggRecord struct {
	tag    uint64
	record []byte
	at     time.Time
}

func (r *aggRecords) Wipe() { r.life, r.records = store.Life{}, nil }

func (r *aggRecords) Lives(_ context.Context, proposed store.Life) ([]store.Life, error) {
	if r.life.ID == 0 {
		r.life = proposed
	}
	return []store.Life{r.life}, nil
}

func (r *aggRecords) Swap(_ context.Context, swaps []store.Swap) ([]store.Result, error) {
	results := make([]store.Result, len(swaps))
	for from := 0; from < len(swaps); {
		to := from + 1
		for to < len(swaps) && swaps[from].Unit != 0 && swaps[to].Unit == swaps[from].Unit {
			to++
		}
		r.unit(swaps[from:to], results[from:to])
		from = to
	}
	return results, nil
}

func (r *aggRecords) unit(swaps []store.Swap, results []store.Result) {
	if r.records == nil {
		r.records = map[streamid.ID]aggRecord{}
	}
	all := true
	for i, swap := range swaps {
		there := r.records[swap.ID]
		if stale := r.sim.plan.stale; stale > 0 && r.sim.now.Sub(there.at) > stale {
			delete(r.records, swap.ID)
			there = aggRecord{}
		}
		switch {
		case r.life.ID == 0 || swap.Life != r.life.ID:
			results[i] = store.Result{Status: store.OtherLife}
		case swap.Base != there.tag:
			results[i] = store.Result{Status: store.Changed, Tag: there.tag, Record: bytes.Clone(there.record)}
		default:
			continue
		}
		all = false
	}
	for i, swap := range swaps {
		switch there := r.records[swap.ID]; {
		case all && swap.Record != nil:
			r.records[swap.ID] = aggRecord{swap.Tag, bytes.Clone(swap.Record), r.sim.now}
		case all && there.tag != 0:
			there.at = r.sim.now
			r.records[swap.ID] = there
		case !all && results[i].Status == store.Swapped:
			results[i].Status = store.Withheld
		}
	}
}

// damage loses a record, or a bit of it.
func (r *aggRecords) damage(which, how int) {
	ids := slices.SortedFunc(maps.Keys(r.records), func(a, b streamid.ID) int { return cmp.Or(cmp.Compare(a.Hi, b.Hi), cmp.Compare(a.Lo, b.Lo)) })
	if len(ids) == 0 {
		return
	}
	id := ids[which%len(ids)]
	switch there := r.records[id]; how % 3 {
	case 0:
		delete(r.records, id)
	case 1:
		there.record = bytes.Clone(there.record)
		there.record[how%len(there.record)] ^= 4
		r.records[id] = there
	default:
		there.record = there.record[:how%len(there.record)+1]
		r.records[id] = there
	}
}

func (r *aggRecords) SetAside(_ context.Context, id streamid.ID, record []byte) error {
	if there := r.records[id]; bytes.Equal(there.record, record) {
		delete(r.records, id)
	}
	return nil
}

// aggStore is the shared store as one worker sees it.
type aggStore struct {
	sim *aggSim
	w   int
}

func (x *aggStore) fault() (f aggFault) {
	worker := x.sim.workers[x.w]
	if len(worker.faults) > 0 {
		f, worker.faults = worker.faults[0], worker.faults[1:]
	}
	return f
}

// backend is the store that the worker asks.
func (x *aggStore) backend() store.Shared {
	if logs := x.sim.workers[x.w].logs; logs != nil {
		return logs
	}
	return &x.sim.store
}

// swapLate does swaps, which somebody else sends.
func (s *aggSim) swapLate(swaps []store.Swap) {
	var st store.Shared = &s.store
	if s.other != nil {
		st = s.other
	}
	if _, err := st.Swap(context.Background(), swaps); err != nil {
		s.fail("%v", err)
	}
}

func (x *aggStore) Lives(ctx context.Context, proposed store.Life) ([]store.Life, error) {
	lives, err := x.backend().Lives(ctx, proposed)
	if err != nil {
		x.sim.fail("worker %d: %w", x.w, err)
		return nil, err
	}
	x.sim.life = lives[0]
	return lives, err
}

func (x *aggStore) Swap(ctx context.Context, swaps []store.Swap) ([]store.Result, error) {
	s := x.sim
	if err := aggSorted(swaps); err != nil {
		s.fail("worker %d: %w", x.w, err)
	}
	switch x.fault() {
	case aggLostRequest:
		return nil, errSimFault
	case aggLostReply:
		if s.driver != nil {
			s.workers[x.w].lose = true
			break
		}
		s.store.Swap(ctx, swaps)
		return nil, errSimFault
	case aggPartly:
		for from := 0; from < len(swaps); {
			to := from + 1
			for to < len(swaps) && swaps[from].Unit != 0 && swaps[to].Unit == swaps[from].Unit {
				to++
			}
			if (from+len(s.sent))%2 == 0 {
				s.swapLate(swaps[from:to])
			}
			from = to
		}
		return nil, errSimFault
	case aggGivenUp:
		kept := slices.Clone(swaps)
		for i := range kept {
			kept[i].Record = bytes.Clone(kept[i].Record)
		}
		s.late = append(s.late, aggRequest{swaps: kept})
		return nil, errSimFault
	case aggTwice:
		s.swapLate(swaps)
	case aggMeanwhile:
		// Only what no swap of this batch has come before is certain to come before it.
		if other := (x.w + 1) % len(s.workers); s.busy == 1 && other != x.w && len(s.workers[x.w].faults) == 2 && len(s.waiting) > 0 {
			s.send(other, s.take(min(3, len(s.waiting))), aggStep{})
		}
	}
	return x.backend().Swap(ctx, swaps)
}

// openLogs makes a store that keeps logs.
func (s *aggSim) openLogs(driver log.Driver) *log.Store {
	st, err := log.New(driver, log.Options{Groups: 2, Readers: 1})
	if err != nil {
		panic(err)
	}
	s.opened = append(s.opened, st)
	return st
}

// aggDriver is the driver of a worker's logs.
type aggDriver struct {
	*log.Memory
	worker *aggWorker
}

func (d *aggDriver) Append(ctx context.Context, appends []log.Append) ([]bool, error) {
	done, err := d.Memory.Append(ctx, appends)
	if d.worker.lose {
		d.worker.lose = false
		return nil, errSimFault
	}
	return done, err
}

// aggSorted checks that swaps are as they have to be: units together, and of each a total.
func aggSorted(swaps []store.Swap) error {
	ended := map[int32]bool{}
	ids := map[streamid.ID]bool{}
	for i, swap := range swaps {
		if ids[swap.ID] {
			return fmt.Errorf("two swaps of %v", swap.ID)
		}
		ids[swap.ID] = true
		if i > 0 && swaps[i-1].Unit != swap.Unit {
			ended[swaps[i-1].Unit] = true
		}
		if swap.Unit != 0 && (ended[swap.Unit] || i > 0 && swaps[i-1].Unit == swap.Unit && swaps[i-1].ID.Hi != swap.ID.Hi) {
			return fmt.Errorf("swap %d of unit %d is not where its unit is", i, swap.Unit)
		}
	}
	return nil
}

func (x *aggStore) SetAside(ctx context.Context, id streamid.ID, record []byte) error {
	if !x.sim.plan.damages {
		x.sim.fail("worker %d sets %v aside", x.w, id)
	}
	return x.backend().SetAside(ctx, id, record)
}

// run plays the plan.
func (p *aggPlan) run(trace func(string, ...any)) (stats *aggStats, err error) {
	s := newAggSim(p, trace)
	defer func() {
		for _, st := range s.opened {
			err = errors.Join(err, st.Close(context.Background()))
		}
	}()
	for i, step := range p.steps {
		s.log("%d. %v", i, step)
		if s.do(step); s.err != nil {
			return &s.stats, s.err
		}
	}
	s.log("the end")
	s.finish()
	s.stats.histories = 1
	s.stats.modes[p.mode] = 1
	return &s.stats, s.err
}

func (p *aggPlan) shrink() *aggPlan {
	small := *p
	for again := true; again; {
		again = false
		try := func(q aggPlan) bool {
			_, err := q.run(nil)
			if err != nil {
				small, again = q, true
			}
			return err != nil
		}
		for size := max(len(small.steps)/2, 1); size > 0; size /= 2 {
			for i := len(small.steps) - size; i >= 0; i-- {
				q := small
				q.steps = slices.Delete(slices.Clone(small.steps), i, i+size)
				if try(q) {
					i = min(i, len(small.steps)-size+1)
				}
			}
		}
		for i := range small.steps {
			for j := range small.steps[i].faults {
				if small.steps[i].faults[j] != aggNone {
					q := small
					q.steps = slices.Clone(small.steps)
					q.steps[i].faults[j] = aggNone
					try(q)
				}
			}
		}
		q := small
		if q.gauges, q.keepInput = false, false; small.gauges || small.keepInput {
			try(q)
		}
	}
	return &small
}

// TestSimulationAggregate plays random histories of totals and their writers. D2C_HISTORIES says how many; D2C_SEED=n runs history n alone.
func TestSimulationAggregate(t *testing.T) { simulateAggregate(t, 60_000, newAggPlan) }

// TestSimulationAggregateLogs is the same with a store that keeps its records in logs, and so its units in entries.
func TestSimulationAggregateLogs(t *testing.T) {
	simulateAggregate(t, 8_000, func(seed uint64) *aggPlan { return newAggPlan(seed).inLogs() })
}

// inLogs makes the plan one of a store that keeps logs, of which nothing expires.
func (p *aggPlan) inLogs() *aggPlan {
	if p.mode != aggShared && p.mode != aggWiped {
		return &aggPlan{mode: p.mode, seed: p.seed, workers: 1, totals: 1, writers: 1} // as ever
	}
	p.logs, p.stale, p.damages = true, 0, false
	for i := range p.steps {
		if step := &p.steps[i]; step.op == aggTime && step.d%2 == 0 || step.op == aggSend && step.d%16 == 0 {
			step.op = aggSnapshot
		}
	}
	return p
}

func simulateAggregate(t *testing.T, histories uint64, newPlan func(seed uint64) *aggPlan) {
	t.Helper()
	if raceEnabled() {
		histories /= 4 // and by four again: most have nothing that runs at the same time
	}
	all := seeds(t, histories)
	var next atomic.Int64
	var mu sync.Mutex
	var total aggStats
	var failed uint64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(all) {
					return
				}
				stats, err := newPlan(all[i]).run(nil)
				mu.Lock()
				total.add(stats)
				if err != nil && (failed == 0 || all[i] < failed) {
					failed = all[i]
				}
				mu.Unlock()
				if err != nil {
					next.Store(int64(len(all)))
				}
			}
		})
	}
	wg.Wait()
	t.Log(&total)
	if failed == 0 {
		return
	}
	plan := newPlan(failed).shrink()
	var b strings.Builder
	_, err := plan.run(func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) })
	t.Fatalf("%v\n%s%v\nrun it alone with D2C_SEED=%d", plan, b.String(), err, failed)
}

func (s *aggStats) add(o *aggStats) {
	s.histories += o.histories
	s.batches += o.batches
	s.refused += o.refused
	s.zeros += o.zeros
	s.worlds = max(s.worlds, o.worlds)
	for i := range s.modes {
		s.modes[i] += o.modes[i]
	}
	for i := range s.outcomes {
		s.outcomes[i] += o.outcomes[i]
	}
}

func (s *aggStats) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d histories: %d batches (%d refused), %d zeros, up to %d worlds;", s.histories, s.batches, s.refused, s.zeros, s.worlds)
	for i, n := range s.modes {
		fmt.Fprintf(&b, " %d %s", n, aggModeNames[i])
	}
	b.WriteString("\noutcomes:")
	for o, n := range s.outcomes {
		if n > 0 {
			fmt.Fprintf(&b, " %d %v", n, d2c.Outcome(o))
		}
	}
	return b.String()
}
