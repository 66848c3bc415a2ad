// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zeebo/xxh3"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/streamid"
)

// The simulation is a fleet in one goroutine: gateways with queues, workers that share a store, and everything that can
// happen to the requests between them, in an order that a seed decides. A history is a list of steps that mean something
// in any state, so that one that fails can be shrunk by leaving steps out.
//
// What is checked does not depend on how the Converter works inside. A stream's n-th delta is 8^n (negative now and then
// where it may be), so a total says by its digits which deltas are in it, and how often. And all that the store was ever
// asked to keep is a tree: each record is made from one before it. The checks:
//
//   - every record that gets into the store, and every answer, is what the oracle of oracle_test.go makes of the record
//     that was there, or, where the store has lost it and the rules of DESIGN.md allow it, of what the worker remembers;
//   - what is given out descends from what was given out before (across all workers, in the order of the store's swaps),
//     unless the store lost that and nobody who was asked knew;
//   - in the same order, time and monotonic values do not fall, and no time has two values; at one worker never, whatever
//     the store does;
//   - in the end each delta that was acknowledged as counted is in exactly one life of its stream, once;
//   - outcomes add up to the points of the batch, and an error leaves it as it was.

// simStep is a thing that happens. What a, b, c and d say depends on op, and on the state when it happens.
type simStep struct {
	op         simOp
	a, b, c, d uint8
	faults     [3]simFault // send: what happens to the batch's calls of Swap
}

type simOp uint8

const (
	simProduce  simOp = iota // stream a makes its next delta; c says what becomes of it
	simSend                  // gateway a hands c of its deltas to worker b; d: the acknowledgement is lost
	simRelease               // a delta that was held up comes to gateway b
	simCopy                  // gateway b gets a delta of gateway a too
	simView                  // from now on gateways send stream a to worker b
	simResume                // call a that hangs goes on, for one step of the network
	simLate                  // a request that was given up reaches the store
	simCrash                 // worker a is replaced by a new one
	simEvict                 // worker a's cache expires
	simWipe                  // the store loses everything
	simRollback              // the store goes back to an earlier state, c steps
	simRemove                // the store loses stream a
	simDamage                // the record of stream a is damaged, or somebody else's
	simNewer                 // a newer version writes the record of stream a
	simOlder                 // and takes that back
	simOps
)

var simOpNames = [simOps]string{
	"produce", "send", "release", "copy", "view", "resume", "late", "crash", "evict", "wipe", "rollback", "remove", "damage",
	"newer", "older",
}

type simFault uint8

const (
	simNone        simFault = iota
	simLostRequest          // an error, nothing done
	simLostReply            // an error, everything done
	simPartly               // an error, every other op done
	simGivenUp              // an error; done later, or never
	simTwice                // done twice, and the second answer is the one that arrives
	simHangBefore           // takes a while, and then does it
	simHangAfter            // does it, and then takes a while
	simHangBetween          // done twice, after a while
	simFaults
)

var simFaultNames = [simFaults]string{
	"", "lost request", "lost reply", "partly", "given up", "twice", "hang before", "hang after", "hang between",
}

func (s simStep) String() string {
	text := fmt.Sprintf("%s a=%d b=%d c=%d d=%d", simOpNames[s.op], s.a, s.b, s.c, s.d)
	for _, f := range s.faults {
		if f != simNone {
			text += ", " + simFaultNames[f]
		}
	}
	return text
}

// simPlan is a whole history.
type simPlan struct {
	seed    uint64
	workers int
	streams []int // templates
	window  time.Duration
	tick    uint64
	ring    bool // gateways send a stream to the worker that the view says; otherwise to any
	// steady: only wipes, deltas come in order, and only to the stream's one worker: no restart may happen.
	steady bool
	// sound: the store loses nothing.
	sound bool
	steps []simStep
}

func (p *simPlan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d workers, window %v, tick %v, ring %v, steady %v, sound %v, streams", p.seed, p.workers, p.window,
		time.Duration(p.tick), p.ring, p.steady, p.sound)
	for i, template := range p.streams {
		fmt.Fprintf(&b, " %d:%s", i, simTemplates[template].name)
	}
	return b.String()
}

// newSimPlan makes the history of a seed.
func newSimPlan(seed uint64) *simPlan {
	r := rand.New(rand.NewPCG(seed, 0x51b))
	p := &simPlan{seed: seed, workers: 1 + r.IntN(4), ring: r.IntN(2) == 0, tick: uint64(time.Second)}
	if r.IntN(4) == 0 {
		p.tick = uint64(2 * time.Millisecond)
	}
	for range 1 + min(r.IntN(4), r.IntN(4)) {
		p.streams = append(p.streams, r.IntN(len(simTemplates)))
	}
	p.window = time.Duration(p.tick) * time.Duration([]uint64{0, 0, 1, 2, 3, 5, 100}[r.IntN(7)])

	weights := [simOps]int{simProduce: 30, simSend: 40, simView: 4}
	reorder := r.IntN(3) != 0
	faults := 0 // of 100 calls
	switch profile := r.IntN(10); {
	case profile == 0:
		p.steady, p.ring, reorder = true, true, false
		weights[simView] = 0
		weights[simWipe] = 10
	case profile < 5:
		p.sound = true
	default:
		for op := simWipe; op < simOps; op++ {
			if r.IntN(2) == 0 {
				weights[op] = 1 + r.IntN(4)
			}
		}
		weights[simOlder] = 2 * weights[simNewer]
	}
	if r.IntN(4) != 0 {
		faults = 5 + r.IntN(60)
		weights[simLate] = 3
		weights[simResume] = 12
	}
	if !p.steady {
		weights[simCrash] = r.IntN(4)
		weights[simEvict] = r.IntN(4)
		if reorder {
			weights[simCopy] = 3
			weights[simRelease] = 6
		}
	}
	total := 0
	for _, w := range weights {
		total += w
	}
	for range 16 + r.IntN(48) {
		n := r.IntN(total)
		op := simOp(0)
		for n >= weights[op] {
			n -= weights[op]
			op++
		}
		step := simStep{op: op, a: uint8(r.Uint32()), b: uint8(r.Uint32()), c: uint8(r.Uint32()), d: uint8(r.Uint32())}
		switch op {
		case simProduce:
			step.c = 0
			if reorder {
				step.c = uint8(max(r.IntN(16)-8, 0))
			}
		case simSend:
			for i := range step.faults {
				if r.IntN(100) < faults {
					step.faults[i] = simFault(1 + r.IntN(int(simFaults)-1))
				}
			}
			if p.steady { // a call that hangs while the stream's store is wiped is not what steady is about
				for i, f := range step.faults {
					if f >= simHangBefore || f == simGivenUp {
						step.faults[i] = simNone
					}
				}
			}
		}
		p.steps = append(p.steps, step)
	}
	return p
}

// simTemplates are the streams there are to choose from.
var simTemplates = func() []simTemplate {
	templates := []simTemplate{
		{name: "int", kind: d2c.KindSum, monotonic: true},
		{name: "requests", kind: d2c.KindSum, monotonic: true},
		{name: "mixed", kind: d2c.KindSum, monotonic: true, doubles: true},
		{name: "updown", kind: d2c.KindSum},
		{name: "histogram", kind: d2c.KindHistogram, monotonic: true},
		{name: "exponential", kind: d2c.KindExponentialHistogram, monotonic: true},
	}
	for i := range templates {
		t := &templates[i]
		m := pmetric.NewMetric()
		t.newMetric(m)
		t.id = streamid.Of(pcommon.NewResource(), pcommon.NewInstrumentationScope(), m, pcommon.NewMap())
	}
	return templates
}()

type simTemplate struct {
	name      string
	kind      d2c.Kind
	monotonic bool
	doubles   bool
	id        streamid.ID
}

func (t *simTemplate) newMetric(m pmetric.Metric) {
	m.SetName(t.name)
	switch t.kind {
	case d2c.KindSum:
		m.SetEmptySum().SetIsMonotonic(t.monotonic)
		m.Sum().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	case d2c.KindHistogram:
		m.SetEmptyHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	default:
		m.SetEmptyExponentialHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	}
}

// simDeltas is how many deltas of a stream there may be: a double has room for 17 digits of base 8.
const simDeltas = 17

// digits is an amount: the sum of the deltas that are in it.
type digits int64

func (d digits) opening() amount { return d }

func (d digits) plus(delta amount) (amount, d2c.Outcome) { return d + delta.(digits), d2c.Passed }

func (d digits) share(uint64, uint64) amount { panic("d2c_test: not needed") }

func (d digits) write(dp dataPoint) {
	p := dp.(*simPoint)
	p.total, p.valued = d, true
}

func (t *simTemplate) delta(n int) digits {
	d := digits(1) << (3 * n)
	if !t.monotonic && n%3 == 2 {
		d = -d
	}
	return d
}

// counted returns how often the n-th delta is in each digit of d.
func (t *simTemplate) counted(d digits) (times [simDeltas]int) {
	for n := range times {
		digit := int(d & 7)
		if digit > 4 {
			digit -= 8
		}
		d = (d - digits(digit)) >> 3
		times[n] = digit
		if t.delta(n) < 0 {
			times[n] = -digit
		}
	}
	return times
}

// simPoint is a point in the hands of the oracle, and what it makes of it.
type simPoint struct {
	start, time pcommon.Timestamp
	flags       pmetric.DataPointFlags
	total       digits
	valued      bool
	stamped     bool
}

func (p *simPoint) Attributes() pcommon.Map           { return pcommon.Map{} }
func (p *simPoint) Flags() pmetric.DataPointFlags     { return p.flags }
func (p *simPoint) StartTimestamp() pcommon.Timestamp { return p.start }
func (p *simPoint) Timestamp() pcommon.Timestamp      { return p.time }
func (p *simPoint) SetStartTimestamp(t pcommon.Timestamp) {
	p.start, p.stamped = t, true
}
func (p *simPoint) SetTimestamp(t pcommon.Timestamp) { p.time = t }

// simDelta is one delta, or a "no recorded value" marker, on its way.
type simDelta struct {
	stream      *simStream
	n           int // -1: a marker
	start, time uint64
	counted     bool // acknowledged as counted, whether or not the gateway has heard of it
	delivered   bool
}

// simNode is a record that was in the store at some time.
type simNode struct {
	tag    uint64
	state  *modelStream
	parent *simNode // whose state it was made from
	how    simHow
	seq    int // of the swap
	worker int
	fold   *simFold
	known  bool // it, or something made from it, was given out
	depth  int
}

// simHow says what a record was made from.
type simHow uint8

const (
	simFirst     simHow = iota // nothing: nobody who was asked knew the stream
	simContinued               // what was in the store
	simReseeded                // what the worker remembers, as the store has nothing
	simReplaced                // what the worker remembers, as the store has something older
	simRestarted               // nothing, as what the worker remembers may be stale
	simHows
)

var simHowNames = [simHows]string{"first", "continued", "reseeded", "replaced", "restarted"}

func (n *simNode) descends(from *simNode) bool {
	for n != nil && n.depth > from.depth {
		n = n.parent
	}
	return n == from
}

// simStored is what the store has of a stream.
type simStored struct {
	raw  []byte
	node *simNode // of which it is the record, or was before it was damaged
	junk simJunk
	// under is what a newer version has put its record over.
	under *simStored
}

type simJunk uint8

const (
	simIntact simJunk = iota
	simDamaged
	simForeign
	simFuture
)

type simStream struct {
	index    int
	template *simTemplate
	deltas   []*simDelta
	last     uint64 // end of the latest interval
	stored   simStored
	nodes    map[uint64]*simNode
	given    []*simSample // in the order of seq
	latest   *simNode     // of what was given out
	asked    int          // seq of the swap that latest was last confirmed by
	lost     int          // seq of the latest time the store lost something of it
	excused  bool         // nobody who was asked knew what the store had lost: promises across workers are void
}

// simSample is what was given out for one point.
type simSample struct {
	seq         int
	worker      int
	start, time uint64
	total       digits
	marker      bool
}

func (s *simSample) String() string {
	return fmt.Sprintf("%s(%d, %d] %o", map[bool]string{true: "marker "}[s.marker], s.start, s.time, int64(s.total))
}

type simWorker struct {
	conv *d2c.Converter
	busy *simFlight
	last map[int]*simSample // by stream, since it has it in its cache
}

type sim struct {
	plan     *simPlan
	cfg      d2c.Config
	store    store.Memory
	workers  []*simWorker
	streams  []*simStream
	byID     map[streamid.ID]*simStream
	gateways [2][]*simDelta
	held     []*simDelta
	view     []int
	flights  []*simFlight
	late     []simRequest
	past     [][]simStored
	now      time.Time
	seq      int
	quiet    bool // at the end nothing goes wrong any more
	err      error
	stats    simStats
	trace    func(format string, args ...any)
}

type simStats struct {
	histories, converts, refused, contended, swaps, conflicts int
	how                                                       [simHows]int
	outcomes                                                  [d2c.NumOutcomes]uint64
	// forgotten are streams lost in a wipe that nobody who was asked remembered; moved are those where the store's going
	// back coincided with a move; stale those that a worker put back whose own state was not the latest.
	forgotten, moved, stale, staleRestart int
	voided                                int // checks that failed on such streams
}

func (s *simStats) add(o *simStats) {
	s.histories += o.histories
	s.converts += o.converts
	s.refused += o.refused
	s.contended += o.contended
	s.swaps += o.swaps
	s.conflicts += o.conflicts
	s.forgotten += o.forgotten
	s.moved += o.moved
	s.stale += o.stale
	s.staleRestart += o.staleRestart
	s.voided += o.voided
	for i := range s.how {
		s.how[i] += o.how[i]
	}
	for i := range s.outcomes {
		s.outcomes[i] += o.outcomes[i]
	}
}

func (s *simStats) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d histories: %d batches (%d refused, %d of them as contended), %d swaps, %d conflicts\nrecords:", s.histories,
		s.converts, s.refused, s.contended, s.swaps, s.conflicts)
	for how, n := range s.how {
		fmt.Fprintf(&b, " %d %s", n, simHowNames[how])
	}
	fmt.Fprintf(&b, "\nno rule can hide: %d lost and forgotten, %d rolled back and moved, %d put back by a stale worker, "+
		"%d restarted by one (%d checks void)\noutcomes:", s.forgotten, s.moved, s.stale, s.staleRestart, s.voided)
	for o, n := range s.outcomes {
		if n > 0 {
			fmt.Fprintf(&b, " %d %v", n, d2c.Outcome(o))
		}
	}
	return b.String()
}

const simEpoch = uint64(1_700_000_000_000_000_000)

func newSim(p *simPlan) *sim {
	s := &sim{plan: p, now: time.Unix(1_700_000_000, 0), byID: map[streamid.ID]*simStream{}}
	s.cfg = d2c.Config{LateWindow: p.window, MaxStale: time.Hour, Now: func() time.Time { return s.now }}
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
	for range p.workers {
		s.workers = append(s.workers, nil)
	}
	for w := range s.workers {
		s.start(w)
	}
	return s
}

func (s *sim) start(w int) {
	worker := &simWorker{last: map[int]*simSample{}}
	conv, err := d2c.OpenShared(context.Background(), s.cfg, d2c.SharedConfig{Store: &simStore{sim: s, worker: worker}, Owner: "sim"})
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

// run plays the plan and returns what was wrong.
func (p *simPlan) run(trace func(string, ...any)) (*simStats, error) {
	s := newSim(p)
	s.trace = trace
	defer func() {
		for _, f := range s.flights {
			f.stop()
		}
	}()
	for i, step := range p.steps {
		s.log("%d. %v", i, step)
		s.do(step)
		if s.err != nil {
			return &s.stats, s.err
		}
		snapshot := make([]simStored, len(s.streams))
		for i, st := range s.streams {
			snapshot[i] = st.stored
		}
		// Steps that change nothing can be left out of a history without changing what the others mean.
		if n := len(s.past); n == 0 || !slices.EqualFunc(snapshot, s.past[n-1], func(a, b simStored) bool {
			return a.node == b.node && bytes.Equal(a.raw, b.raw)
		}) {
			s.past = append(s.past, snapshot)
		}
	}
	s.finish()
	s.stats.histories = 1
	return &s.stats, s.err
}

func (s *sim) do(step simStep) {
	st := s.streams[int(step.a)%len(s.streams)]
	switch step.op {
	case simProduce:
		s.produce(st, step)
	case simSend:
		s.send(step)
	case simRelease:
		if n := len(s.held); n > 0 {
			i := int(step.a) % n
			g := step.b % 2
			s.gateways[g] = append(s.gateways[g], s.held[i])
			s.held = slices.Delete(s.held, i, i+1)
		}
	case simCopy:
		if q := s.gateways[step.a%2]; len(q) > 0 {
			g := step.b % 2
			s.gateways[g] = append(s.gateways[g], q[int(step.c)%len(q)])
		}
	case simView:
		s.view[st.index] = int(step.b) % len(s.workers)
	case simResume:
		if n := len(s.flights); n > 0 {
			s.resume(int(step.a) % n)
		}
	case simLate:
		if n := len(s.late); n > 0 {
			i := int(step.a) % n
			request := s.late[i]
			s.late = slices.Delete(s.late, i, i+1)
			s.log("   a late request")
			request.exec()
		}
	case simCrash:
		w := int(step.a) % len(s.workers)
		if f := s.workers[w].busy; f != nil {
			f.dead = true
		}
		s.start(w)
	case simEvict:
		if w := s.workers[int(step.a)%len(s.workers)]; w.busy == nil {
			s.now = s.now.Add(2 * time.Hour)
			w.conv.Expire()
			clear(w.last)
		}
	case simWipe:
		if s.plan.steady && slices.ContainsFunc(s.streams, func(st *simStream) bool {
			return st.latest != nil && st.latest.state.last-st.latest.state.start <= uint64(s.plan.window)
		}) {
			return
		}
		for _, st := range s.streams {
			s.put(st, simStored{})
		}
	case simRollback:
		if n := len(s.past); n > 0 {
			then := s.past[n-1-int(step.c)%min(n, 16)]
			for i, st := range s.streams {
				s.put(st, then[i])
			}
		}
	case simRemove:
		s.put(st, simStored{})
	case simDamage:
		if st.stored.raw != nil && st.stored.junk == simIntact {
			s.put(st, st.stored.damaged(int(step.b), int(step.c)))
		}
	case simNewer:
		if len(st.stored.raw) >= 25 && st.stored.junk != simFuture {
			under := st.stored
			raw := bytes.Clone(under.raw)
			raw[0] = 2
			raw[3] ^= 0x55
			body := raw[:len(raw)-8] // every version ends with its checksum
			binary.LittleEndian.PutUint64(raw[len(body):], xxh3.Hash(body))
			s.put(st, simStored{raw: raw, junk: simFuture, under: &under})
		}
	case simOlder:
		if st.stored.junk == simFuture {
			s.put(st, *st.stored.under)
		}
	}
}

// damaged returns what is left of a record.
func (r simStored) damaged(how, where int) simStored {
	raw := bytes.Clone(r.raw)
	r.junk = simDamaged
	switch how % 5 {
	case 0: // the tag is as it was
		raw[17+where%(len(raw)-17)] ^= 1 << (where % 8)
	case 1:
		raw[1+where%8] ^= 1 << (where % 8)
		r.node = nil
	case 2:
		raw = raw[:where%len(raw)]
		if len(raw) < 25 {
			r.node = nil
		}
	case 3:
		raw = bytes.Repeat([]byte{1, byte(where)}, where/2)
		r.node = nil
	case 4:
		r.junk = simForeign
		raw[2] ^= 0x10
		raw[9] ^= 1
		body := raw[:len(raw)-8]
		binary.LittleEndian.PutUint64(raw[len(body):], xxh3.Hash(body))
		r.node = nil
	}
	if len(raw) > 0 && raw[0] > 1 {
		raw[0] = 0
	}
	r.raw = raw
	return r
}

// put makes the store have something of a stream. To go back to what is there already is no loss, nor is it to wait for an
// older version.
func (s *sim) put(st *simStream, r simStored) {
	was := st.stored
	st.stored = r
	if r.raw == nil {
		delete(s.store.Records(), st.template.id)
	} else {
		s.store.Records()[st.template.id] = r.raw
	}
	if r.beneath() != was.beneath() || r.junk == simDamaged || r.junk == simForeign {
		s.seq++
		st.lost = s.seq
	}
	s.log("   the store has %v of stream %d", &st.stored, st.index)
}

// beneath returns the record that will be there once newer versions are gone.
func (r *simStored) beneath() *simNode {
	for r.junk == simFuture {
		r = r.under
	}
	return r.node
}

func (r *simStored) String() string {
	junk := [...]string{"", " damaged", " foreign", " newer"}[r.junk]
	if r.node == nil {
		return fmt.Sprintf("%d bytes%s", len(r.raw), junk)
	}
	return fmt.Sprintf("%v%s", r.node, junk)
}

func (n *simNode) String() string {
	if n == nil {
		return "nothing"
	}
	return fmt.Sprintf("#%d %v", n.seq, describeShared(n.state))
}

func describeShared(s *modelStream) string {
	if s == nil {
		return "nothing"
	}
	return fmt.Sprintf("(%d, %d] emitted %d total %o fresh %v marked %v gaps %v", s.start-simEpoch, s.last-simEpoch, s.emitted-simEpoch,
		int64(s.total.(digits)), s.fresh, s.marker, s.gaps)
}

func (s *sim) produce(st *simStream, step simStep) {
	if len(st.deltas) >= simDeltas {
		return
	}
	d := &simDelta{stream: st, n: len(st.deltas), start: st.last, time: st.last + s.plan.tick}
	st.last = d.time
	if step.d%16 == 1 && !s.plan.steady {
		d.n = -1
		d.start = 0
	} else {
		st.deltas = append(st.deltas, d)
	}
	g := st.index % 2
	switch step.c {
	case 0:
	case 1, 2, 3: // another way
		g = int(step.b) % 2
	case 4, 5:
		s.held = append(s.held, d)
		return
	default:
		return // never sent
	}
	s.gateways[g] = append(s.gateways[g], d)
}

// send hands the oldest deltas of a gateway to a worker.
func (s *sim) send(step simStep) {
	g := &s.gateways[step.a%2]
	if len(*g) == 0 {
		g = &s.gateways[1-step.a%2]
	}
	if len(*g) == 0 {
		return
	}
	w := int(step.b) % len(s.workers)
	if s.plan.ring {
		w = s.view[(*g)[0].stream.index]
	}
	if s.workers[w].busy != nil {
		return
	}
	f := &simFlight{sim: s, worker: s.workers[w], w: w, gateway: g, ackLost: step.d%4 == 0}
	for _, d := range *g {
		if len(f.deltas) <= int(step.c)%4 && (!s.plan.ring || s.view[d.stream.index] == w) {
			f.deltas = append(f.deltas, d)
		}
	}
	f.faults = step.faults[:]
	s.launch(f)
}

func (s *sim) launch(f *simFlight) {
	s.stats.converts++
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
		cached, ok := f.worker.conv.Cached(st.template.id)
		if ok {
			view.known = st.nodes[cached.Tag]
			if view.known == nil {
				s.fail("worker %d has a tag in its cache that the store never had: %+v", f.w, cached)
				return
			}
			if err := sameState(view.known.state, cached); err != nil {
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
	hangs := slices.ContainsFunc(f.faults, func(fault simFault) bool { return fault >= simHangBefore })
	if !hangs {
		f.convert()
		s.land(f)
		return
	}
	next, stop := iter.Pull(func(yield func(struct{}) bool) {
		f.yield = yield
		f.convert()
	})
	f.next, f.stop = next, stop
	f.worker.busy = f
	s.flights = append(s.flights, f)
	s.resume(len(s.flights) - 1)
}

func (s *sim) resume(i int) {
	f := s.flights[i]
	if _, ok := f.next(); ok {
		s.log("   worker %d's call hangs", f.w)
		return
	}
	s.flights = slices.Delete(s.flights, i, i+1)
	if f.worker.busy == f {
		f.worker.busy = nil
	}
	s.land(f)
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
	dead    bool // the worker is

	faulted bool // an error may come of it
	newer   bool // a record of a newer version was met
	swaps   int

	result d2c.Result
	err    error

	yield func(struct{}) bool
	next  func() (struct{}, bool)
	stop  func()
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

var (
	errSimFault   = errors.New("the network")
	errSimStopped = errors.New("the history is over")
)

func (f *simFlight) convert() {
	f.result, f.err = f.worker.conv.Convert(context.WithValue(context.Background(), simKey{}, f), f.md)
}

// simStore is the store as one worker sees it.
type simStore struct {
	sim    *sim
	worker *simWorker
}

type simKey struct{}

// hang lets other things happen, and reports whether the call goes on.
func (f *simFlight) hang() bool {
	if f.yield == nil || f.sim.quiet {
		return true
	}
	return f.yield(struct{}{})
}

func (x *simStore) Swap(ctx context.Context, ops []store.Swap) error {
	f := ctx.Value(simKey{}).(*simFlight)
	s := x.sim
	if f.swaps++; f.swaps > 64 {
		s.fail("a call does not end")
		return errSimStopped
	}
	for i := range ops {
		f.view(s.byID[ops[i].ID]).open = true
	}
	fault := simNone
	if len(f.faults) > 0 && !s.quiet {
		fault, f.faults = f.faults[0], f.faults[1:]
	}
	f.faulted = f.faulted || fault != simNone && fault != simTwice
	request := simRequest{f, ops}
	switch fault {
	case simLostRequest:
		return errSimFault
	case simLostReply:
		request.exec()
		return errSimFault
	case simPartly:
		for i := range ops {
			if (i+s.seq)%2 == 0 {
				s.exec(f, &ops[i])
			}
		}
		return errSimFault
	case simGivenUp:
		kept := slices.Clone(ops)
		for i := range kept {
			kept[i].Record = bytes.Clone(kept[i].Record)
		}
		s.late = append(s.late, simRequest{f, kept})
		return errSimFault
	case simTwice, simHangBetween:
		// Nobody hears the first answer.
		unheard := make([]simKnows, len(ops))
		for i := range ops {
			unheard[i] = *f.view(s.byID[ops[i].ID])
		}
		request.exec()
		for i := range ops {
			view := f.view(s.byID[ops[i].ID])
			view.known, view.read = unheard[i].known, unheard[i].read
			view.latest, view.start = unheard[i].latest, unheard[i].start
		}
		if fault == simHangBetween && !f.hang() {
			return errSimStopped
		}
		for i := range ops {
			ops[i].Swapped, ops[i].Current = false, nil
		}
		request.exec()
	case simHangBefore:
		if !f.hang() {
			return errSimStopped
		}
		request.exec()
	case simHangAfter:
		request.exec()
		if !f.hang() {
			return errSimStopped
		}
	default:
		request.exec()
	}
	if f.dead {
		return errSimStopped
	}
	return nil
}

func (x *simStore) SetAside(ctx context.Context, id streamid.ID, value []byte) error {
	s, st := x.sim, x.sim.byID[id]
	if st.stored.raw == nil || !bytes.Equal(st.stored.raw, value) {
		return s.store.SetAside(ctx, id, value)
	}
	switch st.stored.junk {
	case simIntact:
		s.fail("a sound record is set aside: %v", st.stored.node)
	case simFuture:
		s.fail("the record of a newer version is set aside")
	}
	err := s.store.SetAside(ctx, id, value)
	if _, found := s.store.Records()[id]; found {
		s.fail("SetAside left the record where it was")
	}
	st.stored = simStored{}
	s.log("   set aside")
	return err
}

func (f *simFlight) view(st *simStream) *simKnows {
	for i, other := range f.streams {
		if other == st {
			return f.views[i]
		}
	}
	f.sim.fail("worker %d asks for stream %d, which is not in its batch", f.w, st.index)
	return &simKnows{}
}

// simRequest is what was sent to the store.
type simRequest struct {
	f   *simFlight
	ops []store.Swap
}

func (r simRequest) exec() {
	for i := range r.ops {
		r.f.sim.exec(r.f, &r.ops[i])
	}
}

// exec does one op, and compares what gets into the store with what may.
func (s *sim) exec(f *simFlight, op *store.Swap) {
	st := s.byID[op.ID]
	view := f.view(st)
	before := st.stored
	one := []store.Swap{*op}
	s.store.Swap(context.Background(), one)
	op.Swapped, op.Current = one[0].Swapped, one[0].Current
	s.seq++
	s.stats.swaps++
	if !op.Swapped {
		s.stats.conflicts++
		s.log("   worker %d's %s of stream %d meets %v", f.w, opName(op), st.index, &before)
		f.newer = f.newer || before.junk == simFuture
		if n := before.node; n != nil && before.junk == simIntact && !(op.Record != nil && n.tag == recordTag(op.Record)) {
			if view.read == nil {
				view.readSeq = s.seq
			}
			view.read = n
			if view.known == nil || !cannotFollow(f, st, view.known.state, n.state) {
				view.known = n
			}
			view.latest = max(view.latest, n.state.emitted)
			view.start = max(view.start, n.state.start)
		}
		return
	}
	if before.junk == simFuture {
		s.fail("the record of a newer version is overwritten")
		return
	}
	there := before.node
	if op.Base == 0 {
		there = nil
	}
	var got d2c.SharedState
	if op.Record != nil {
		var err error
		if got, err = f.worker.conv.ReadShared(op.Record, op.ID); err != nil {
			s.fail("a record that cannot be read: %v", err)
			return
		}
		if n := st.nodes[got.Tag]; n != nil && n.fold.flight == f && n.seq < st.lost {
			// Done twice, and what the first time had put there is lost meanwhile.
			st.stored = simStored{raw: s.store.Records()[op.ID], node: n}
			view.open, view.fold, view.seq = false, n.fold, n.seq
			s.log("   worker %d's swap of stream %d once more: %v", f.w, st.index, n)
			return
		} else if n != nil {
			s.fail("worker %d uses a tag of stream %d again: #%d has it", f.w, st.index, st.nodes[got.Tag].seq)
			return
		}
	}
	var problem error
	var fold *simFold
	for _, fold = range s.allowed(f, st, view, there) {
		switch {
		case op.Record == nil && fold.changed:
			problem = fmt.Errorf("worker %d changes stream %d and does not store it: %v from %v, which the store confirmed as %v",
				f.w, st.index, describeShared(fold.state), fold.parent, there)
		case op.Record != nil && fold.state == nil:
			problem = fmt.Errorf("worker %d stores %+v where nothing is to be stored", f.w, got)
		case op.Record != nil:
			if problem = sameState(fold.state, got); problem != nil {
				problem = fmt.Errorf("worker %d stores stream %d over %v, %s from %v: %w", f.w, st.index, there, simHowNames[fold.how], fold.parent, problem)
			}
		default:
			problem = nil
		}
		if problem == nil {
			break
		}
	}
	if problem != nil {
		s.fail("%v", problem)
		return
	}
	if op.Record != nil {
		if fold.how != simContinued && fold.how != simFirst && st.lost == 0 {
			s.fail("worker %d: stream %d is %s though the store lost nothing", f.w, st.index, simHowNames[fold.how])
			return
		}
		n := &simNode{tag: got.Tag, state: fold.state, parent: fold.parent, how: fold.how, seq: s.seq, worker: f.w, fold: fold}
		if n.parent != nil {
			n.depth = n.parent.depth + 1
		}
		st.nodes[n.tag] = n
		st.stored = simStored{raw: s.store.Records()[op.ID], node: n}
		fold.node = n
		s.stats.how[fold.how]++
		s.log("   worker %d swaps stream %d over %v, %s: %v", f.w, st.index, there, simHowNames[fold.how], n)
		for n, times := range st.template.counted(fold.state.total.(digits)) {
			if times < 0 || times > 1 {
				s.fail("stream %d: delta %d is in the total %d times: %v", st.index, n, times, st.stored.node)
			}
		}
	} else {
		fold.node = there
		s.log("   worker %d confirms stream %d: %v", f.w, st.index, there)
	}
	view.open = false
	view.fold = fold
	view.seq = s.seq
}

func opName(op *store.Swap) string {
	if op.Record == nil {
		return "question"
	}
	return "swap"
}

func recordTag(b []byte) uint64 {
	tag, _ := d2c.RecordTag(b)
	return tag
}

// sameState compares what the oracle has with a record.
func sameState(want *modelStream, got d2c.SharedState) error {
	total, _ := want.total.(digits)
	same := int64(want.start) == got.Start && int64(want.last) == got.Last && int64(want.emitted) == got.Emitted &&
		want.fresh == !got.Restarted && want.marker == got.Marked && int64(total) == got.Total && len(want.gaps) == len(got.Gaps)
	if same {
		for i, gap := range want.gaps {
			same = same && int64(gap.start) == got.Gaps[i][0] && int64(gap.end) == got.Gaps[i][1]
		}
	}
	if !same {
		return fmt.Errorf("got (%d, %d] emitted %d total %o fresh %v marked %v gaps %v, want %s", got.Start-int64(simEpoch), got.Last-int64(simEpoch),
			got.Emitted-int64(simEpoch), got.Total, !got.Restarted, got.Marked, got.Gaps, describeShared(want))
	}
	return nil
}

// simFold is what is to become of a stream's points of a batch.
type simFold struct {
	flight  *simFlight
	how     simHow
	parent  *simNode
	state   *modelStream // nil if there is none
	changed bool
	points  []simAnswer
	result  d2c.Result
	node    *simNode // in the store afterwards
}

type simAnswer struct {
	point   int // in the batch
	outcome d2c.Outcome
	after   simPoint
}

// cannotFollow says that what is there is not what comes after known. In one history the latest time given out rises with
// every change, a life's start goes back only by what came before the first, and the next life begins at the latest time
// or after it.
func cannotFollow(_ *simFlight, st *simStream, known, there *modelStream) bool {
	falls := st.template.monotonic && there.total.(digits) < known.total.(digits)
	switch {
	case there.emitted < known.emitted:
		return true
	case there.emitted == known.emitted:
		return there.start != known.start || there.total != known.total
	case there.start > known.start:
		return there.start < known.emitted
	case there.start < known.start:
		return !known.fresh || !there.fresh || falls
	}
	return falls
}

// allowed is what DESIGN.md, section 6, allows a worker to do: to go on from what is there, or, where the store has lost
// that, from what it remembers if that is newer and a delta proves that nobody can have changed it, or else to restart.
func (s *sim) allowed(f *simFlight, st *simStream, view *simKnows, there *simNode) (folds []*simFold) {
	known := view.known
	switch {
	case known == nil && there == nil:
		return []*simFold{s.fold(f, st, simFirst, nil, view)}
	case there != nil && (known == nil || known == there || !cannotFollow(f, st, known.state, there.state)):
		return []*simFold{s.fold(f, st, simContinued, there, view)}
	case there == nil && s.proves(f, st, known.state):
		folds = append(folds, s.fold(f, st, simReseeded, known, view))
	case there != nil && there.state.start == known.state.start && s.proves(f, st, known.state) &&
		there.state.emitted < known.state.emitted:
		folds = append(folds, s.fold(f, st, simReplaced, known, view))
	}
	if folds == nil || view.read != nil && st.lost > view.readSeq {
		// Where the store lost something in the midst of the call, caution is no mistake.
		folds = append(folds, s.fold(f, st, simRestarted, known, view))
	}
	return folds
}

// proves: "if the incoming point starts exactly where the cached state ends, the cached state has no open gap and its first
// late_window has passed, then nobody else can have added anything since".
func (s *sim) proves(f *simFlight, st *simStream, known *modelStream) bool {
	if len(known.gaps) > 0 || known.horizon > 0 || known.fresh && known.last-known.start <= uint64(s.plan.window) {
		return false
	}
	return slices.ContainsFunc(f.deltas, func(d *simDelta) bool {
		return d.stream == st && d.n >= 0 && d.start == known.last
	})
}

// fold asks the oracle.
func (s *sim) fold(f *simFlight, st *simStream, how simHow, parent *simNode, view *simKnows) *simFold {
	fold := &simFold{flight: f, how: how, parent: parent}
	m := newModel(s.cfg)
	if parent != nil && how != simRestarted {
		m.streams[""] = parent.state.clone()
	}
	for i, d := range f.deltas {
		if d.stream == st {
			p := simPoint{start: pcommon.Timestamp(d.start), time: pcommon.Timestamp(d.time)}
			if d.n < 0 {
				p.flags = noRecordedValue
			}
			fold.points = append(fold.points, simAnswer{point: i, after: p})
		}
	}
	slices.SortStableFunc(fold.points, func(a, b simAnswer) int { return cmp.Compare(a.after.time, b.after.time) })
	for i := range fold.points {
		a := &fold.points[i]
		d := f.deltas[a.point]
		p := modelPoint{dp: &a.after, start: d.start, time: d.time, kind: st.template.kind}
		if d.n >= 0 {
			p.delta = st.template.delta(d.n)
		}
		var state *modelStream
		marked := false
		if state = m.streams[""]; state != nil {
			marked = state.marker
		}
		switch {
		case how == simRestarted && state == nil && d.time <= view.latest:
			a.outcome = d2c.DroppedTooLate
		case how == simRestarted && state == nil && d.n >= 0:
			state = &modelStream{kind: p.kind, start: view.start, emitted: view.latest}
			m.streams[""] = state
			a.outcome = m.restart(state, &p, d2c.RestartedLost)
		default:
			a.outcome = m.fold(&p)
		}
		m.result.Note(a.outcome, 1)
		fold.changed = fold.changed || a.outcome.Added() || a.outcome == d2c.Forwarded && state != nil || a.outcome == d2c.Repeated && marked
	}
	fold.state = m.streams[""]
	fold.result = m.result
	return fold
}

func (s *modelStream) clone() *modelStream {
	c := *s
	c.gaps = slices.Clone(s.gaps)
	return &c
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
		if !f.faulted && !f.newer && !(contended && f.swaps >= 16) {
			s.fail("worker %d refuses for no reason: %v", f.w, f.err)
		}
		unchanged := f.md
		f.build()
		if !sameBytes(unchanged, f.md) {
			s.fail("worker %d refuses a batch and changes it", f.w)
		}
		return
	}
	var want d2c.Result
	dropped := make([]bool, len(f.deltas))
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
			dropped[a.point] = a.outcome.Dropped()
			if a.outcome.Added() || a.outcome == d2c.Repeated {
				d.counted = true
			}
			samples[a.point] = &simSample{
				seq: view.seq, worker: f.w, start: uint64(a.after.start), time: uint64(a.after.time), total: a.after.total, marker: d.n < 0,
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
	s.compare(f, dropped, samples)
	for i, st := range f.streams {
		view := f.views[i]
		if view.fold.node != nil {
			s.confirmed(f, st, view)
		}
		for _, a := range view.fold.points {
			switch {
			case dropped[a.point]:
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
func (s *sim) compare(f *simFlight, dropped []bool, samples []*simSample) {
	seen := 0
	forEachMetric(f.md, func(_ pmetric.ResourceMetrics, _ pmetric.ScopeMetrics, m pmetric.Metric) {
		i, _ := strconv.Atoi(m.Description())
		seen++
		d, want := f.deltas[i], samples[i]
		if dropped[i] {
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
	for _, gone := range dropped {
		if !gone {
			left++
		}
	}
	if seen != left {
		s.fail("worker %d: %d points are left, want %d", f.w, seen, left)
	}
}

// given checks a sample against the others of its stream: P1, P2 and P4 as a backend sees them.
func (s *sim) given(f *simFlight, st *simStream, e *simSample) {
	s.log("   worker %d gives out %s(%d, %d] %o of stream %d", f.w, map[bool]string{true: "marker "}[e.marker], e.start-simEpoch, e.time-simEpoch,
		int64(e.total), st.index)
	if !e.marker {
		for n, times := range st.template.counted(e.total) {
			if times == 1 && (st.deltas[n].time <= e.start || st.deltas[n].time > e.time) {
				s.fail("stream %d: %v has delta %d, which ends at %d", st.index, e, n, st.deltas[n].time)
			}
		}
	}
	if last := f.worker.last[st.index]; last != nil {
		if err := st.template.follows(last, e); err != nil && !(st.excused && errors.Is(err, errSimOverlap)) {
			s.fail("worker %d, stream %d: %w", f.w, st.index, err)
		}
	}
	f.worker.last[st.index] = e

	i := len(st.given)
	for i > 0 && st.given[i-1].seq > e.seq {
		i--
	}
	st.given = slices.Insert(st.given, i, e)
	for _, pair := range [][2]int{{i - 1, i}, {i, i + 1}} {
		if pair[0] < 0 || pair[1] >= len(st.given) {
			continue
		}
		if err := st.template.follows(st.given[pair[0]], st.given[pair[1]]); err != nil {
			err = fmt.Errorf("stream %d, workers %d and %d: %w", st.index, st.given[pair[0]].worker, st.given[pair[1]].worker, err)
			st.doubts(s, err)
		}
	}
}

// doubts takes what is wrong with a stream, unless nobody could have known better.
func (st *simStream) doubts(s *sim, err error) {
	if st.excused {
		s.stats.voided++
		s.log("   void: %v", err)
		return
	}
	s.fail("%w", err)
}

// errSimOverlap is of no concern where another worker, which could not know, has begun the new life.
var errSimOverlap = errors.New("restarts before the latest time")

// follows is P2 and P4 for two samples of which b was given out later.
func (t *simTemplate) follows(a, b *simSample) error {
	falls := t.monotonic && !a.marker && !b.marker && b.total < a.total
	switch {
	case b.time < a.time:
		return fmt.Errorf("time falls: %v after %v", b, a)
	case b.time/nudge == a.time/nudge && (b.start != a.start || b.total != a.total || b.marker != a.marker):
		return fmt.Errorf("two values at one time: %v after %v", b, a)
	case b.start <= a.start && falls:
		return fmt.Errorf("value falls: %v after %v", b, a)
	case b.start > a.start && b.start < a.time:
		return fmt.Errorf("%w: %v after %v", errSimOverlap, b, a)
	}
	return nil
}

// confirmed checks that what is given out descends from what was given out before.
func (s *sim) confirmed(f *simFlight, st *simStream, view *simKnows) {
	n := view.fold.node
	for m := n; m != nil && !m.known; m = m.parent {
		m.known = true
	}
	switch {
	case st.latest == nil:
	case n == st.latest || n.descends(st.latest) && view.seq > st.asked:
	case st.latest.descends(n) && view.seq < st.asked:
		return // an answer that took long
	default:
		if st.lost == 0 {
			s.fail("worker %d: stream %d goes on from %v, not from %v", f.w, st.index, n, st.latest)
			return
		}
		st.excused = true
		// What could have been known, and by whom.
		how := n.how
		for m := n; m != nil && !st.latest.descends(m); m = m.parent {
			how = m.how
		}
		if st.latest.descends(n) || n.descends(st.latest) {
			how = simContinued // an older state was given out after the store had lost a newer one
		}
		switch how {
		case simFirst:
			s.stats.forgotten++
		case simContinued:
			s.stats.moved++
		case simRestarted:
			s.stats.staleRestart++
		default:
			s.stats.stale++
		}
		s.log("   stream %d: %v does not descend from %v: %s", st.index, n, st.latest, simHowNames[how])
		if view.seq < st.asked && !n.descends(st.latest) {
			return
		}
	}
	st.latest, st.asked = n, max(view.seq, st.asked)
}

// finish lets everything come to an end and checks the accounts.
func (s *sim) finish() {
	s.quiet = true
	s.log("the end")
	for _, st := range s.streams {
		if st.stored.junk == simFuture {
			s.put(st, *st.stored.under)
		}
	}
	for len(s.flights) > 0 && s.err == nil {
		s.resume(0)
	}
	if !s.plan.steady {
		s.gateways[0] = append(s.gateways[0], s.held...)
	}
	for round := 0; len(s.gateways[0])+len(s.gateways[1]) > 0 && s.err == nil; round++ {
		g := &s.gateways[round%2]
		if len(*g) == 0 {
			continue
		}
		w := round / 2 % len(s.workers)
		if s.plan.ring {
			w = s.view[(*g)[0].stream.index]
		}
		f := &simFlight{sim: s, worker: s.workers[w], w: w, gateway: g}
		for _, d := range *g {
			if len(f.deltas) < 6 && (!s.plan.ring || s.view[d.stream.index] == w) {
				f.deltas = append(f.deltas, d)
			}
		}
		s.launch(f)
		if s.err == nil && f.err != nil {
			s.fail("worker %d refuses though all is well: %v", w, f.err)
		}
		if s.err != nil {
			return
		}
	}
	if s.err != nil {
		return
	}
	for _, st := range s.streams {
		s.account(st)
	}
	for w, worker := range s.workers {
		live := 0
		for _, st := range s.streams {
			if _, ok := worker.conv.Cached(st.template.id); ok {
				live++
			}
		}
		if worker.conv.Len() != live {
			s.fail("worker %d says it has %d streams, and has %d", w, worker.conv.Len(), live)
		}
	}
	if (s.plan.steady || s.plan.sound) && s.stats.how[simRestarted] > 0 {
		s.fail("%d restarts", s.stats.how[simRestarted])
	}
	if (s.plan.steady || s.plan.sound) && s.stats.forgotten+s.stats.moved+s.stats.stale+s.stats.staleRestart > 0 {
		s.fail("state was lost: %v", &s.stats)
	}
}

// account is P3: each delta that was acknowledged as counted is in exactly one life.
func (s *sim) account(st *simStream) {
	var times [simDeltas]int
	for n, top := st.latest, true; n != nil; n = n.parent {
		if top {
			for i, k := range st.template.counted(n.state.total.(digits)) {
				times[i] += k
			}
		}
		top = n.how == simRestarted
	}
	for i, d := range st.deltas {
		switch {
		case d.counted && times[i] != 1:
			st.doubts(s, fmt.Errorf("stream %d: delta %d was acknowledged and is counted %d times", st.index, i, times[i]))
		case !d.counted && times[i] > 1, !d.delivered && times[i] != 0:
			st.doubts(s, fmt.Errorf("stream %d: delta %d is counted %d times", st.index, i, times[i]))
		}
	}
}

// shrink leaves steps out for as long as something is still wrong.
func (p *simPlan) shrink() *simPlan {
	try := func(q *simPlan) bool {
		_, err := q.run(nil)
		return err != nil && err != errSimStopped
	}
	small := *p
	for again := true; again; {
		again = false
		for size := max(len(small.steps)/2, 1); size > 0; size /= 2 {
			for i := len(small.steps) - size; i >= 0; i-- {
				q := small
				q.steps = slices.Delete(slices.Clone(small.steps), i, i+size)
				if try(&q) {
					small, again = q, true
					i = min(i, len(small.steps)-size+1)
				}
			}
		}
		for i := range small.steps {
			for j := range small.steps[i].faults {
				q := small
				q.steps = slices.Clone(small.steps)
				if q.steps[i].faults[j] != simNone {
					q.steps[i].faults[j] = simNone
					if try(&q) {
						small, again = q, true
					}
				}
			}
		}
	}
	return &small
}

// TestSimulation plays random histories of a fleet. D2C_HISTORIES says how many; D2C_SEED=n runs history n alone.
func TestSimulation(t *testing.T) {
	n := uint64(50_000)
	if testing.Short() {
		n = 20_000 // seeds takes a tenth of that
	}
	if raceDetector() {
		n /= 10
	}
	all := seeds(t, n)
	var next atomic.Int64
	var mu sync.Mutex
	var total simStats
	var failed uint64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			var own simStats
			for {
				i := int(next.Add(1)) - 1
				if i >= len(all) {
					break
				}
				stats, err := newSimPlan(all[i]).run(nil)
				own.add(stats)
				if err != nil && err != errSimStopped {
					next.Store(int64(len(all)))
					mu.Lock()
					if failed == 0 || all[i] < failed {
						failed = all[i]
					}
					mu.Unlock()
				}
			}
			mu.Lock()
			total.add(&own)
			mu.Unlock()
		})
	}
	wg.Wait()
	t.Log(&total)
	if failed == 0 {
		return
	}
	plan := newSimPlan(failed).shrink()
	var b strings.Builder
	_, err := plan.run(func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) })
	t.Fatalf("%v\n%s%v\nrun it alone with D2C_SEED=%d", plan, b.String(), err, failed)
}

func raceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "-race" && s.Value == "true" })
}
