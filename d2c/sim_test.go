// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/deltaring/deltaring/d2c"
)

// The simulation is a fleet at one time: gateways with queues, workers that share a store, and everything that can happen to
// the requests between them, in an order that a seed decides. A history is a list of steps that mean something in any state, so
// that one that fails can be shrunk by leaving steps out. Steps and runs are here, the store and its faults in
// simstore_test.go, a call of Convert in simflight_test.go, and what is checked in simmodel_test.go.
//
// What is checked does not depend on how the Converter works inside. A stream's n-th delta is 8^n (negative now and then
// where it may be), so a total says by its digits which deltas are in it, and how often. And all that the store was ever
// asked to keep is a tree: each record is made from one before it. The checks:
//
//   - every record that gets into the store, and every answer, is what the oracle of oracle_test.go makes of the record
//     that was there, or of nothing, after whatever the worker knows and the floor of the store's life; or of what the
//     worker remembers, if gateways route the stream to it and nobody else has had it since (a ring that comes back has the
//     epoch that it had before, and gateways say since when they use it);
//   - the floor of a life is not before whatever was given out in an earlier one;
//   - by the order of the store's swaps, whoever made them, and by that of answers at each worker: times rise, no time has two
//     values, and monotonic values do not fall under one start;
//   - what is given out under one start is a line: each descends from the one before;
//   - in the end each delta that was acknowledged as counted is in exactly one life of its stream, once, and of each other
//     somebody was told that it was dropped;
//   - outcomes add up to the points of the batch, and an error leaves it as it was.
//
// There is no excuse where a store loses all at once (it is wiped). Where it loses single records or goes back, which it
// must not, there is one: workers that never knew what is lost cannot tell. At a worker that does know all of it holds.

// simStep is a thing that happens. What a, b, c and d say depends on op, and on the state when it happens.
type simStep struct {
	op         simOp
	a, b, c, d uint8
	faults     [3]simFault // send: what happens to the batch's calls of the store; crash: to the first of the new worker
}

type simOp uint8

const (
	simProduce  simOp = iota // stream a makes its next delta; c says what becomes of it
	simSend                  // gateway a hands c of its deltas to worker b; d: the acknowledgement is lost
	simRelease               // a delta that was held up comes to gateway b
	simCopy                  // gateway b gets a delta of gateway a too
	simView                  // from now on gateways send stream a to worker b; if they did, they have started again
	simResume                // call a that hangs goes on, for one step of the network
	simLate                  // a request that was given up reaches the store
	simTime                  // time goes by
	simCrash                 // worker a is replaced by a new one
	simEvict                 // worker a's cache expires
	simWipe                  // the store loses everything, or one of its groups
	simRollback              // the store goes back to an earlier state, c steps
	simRemove                // the store loses stream a
	simDamage                // the record of stream a is damaged, or somebody else's
	simNewer                 // a newer version writes the record of stream a
	simOlder                 // and takes that back
	simSnapshot              // worker a makes snapshots of its logs
	simOps
)

var simOpNames = [simOps]string{
	"produce", "send", "release", "copy", "view", "resume", "late", "time", "crash", "evict", "wipe", "rollback", "remove", "damage",
	"newer", "older", "snapshot",
}

type simFault uint8

const (
	simNone        simFault = iota
	simLostRequest          // an error, nothing done
	simLostReply            // an error, everything done
	simPartly               // an error, every other swap done
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

// simLoss says what a store may lose.
type simLoss uint8

const (
	simSound   simLoss = iota // nothing
	simWipes                  // all, or a group, with its life
	simRecords                // anything
)

// simPlan is a whole history.
type simPlan struct {
	seed    uint64
	workers int
	groups  int // of the store
	streams []int
	window  time.Duration
	tick    time.Duration
	noStart bool // deltas of stream 0 have no start: if only some had, what fell between them would be a repeat
	ring    bool // gateways send a stream to the worker that the view says, and say so; otherwise to any
	// steady: the store is wiped, deltas come in order, and only to the stream's one worker: no restart may happen.
	steady bool
	loss   simLoss
	logs   bool // the store keeps logs
	reads  bool // the store can be read without a swap
	// many: streams have several writers, whose intervals overlap, and whose starts need not move.
	many   bool
	clocks [4]time.Duration // by how much those of the workers are wrong
	steps  []simStep
}

// config is that of the workers, but for their clocks.
func (p *simPlan) config() d2c.Config {
	if p.many {
		return d2c.Config{LateWindow: 1000 * time.Hour, Writers: d2c.WritersMany}
	}
	return d2c.Config{LateWindow: p.window}
}

func (p *simPlan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d workers (clocks %v), %d groups, window %v, tick %v, ring %v, steady %v, many %v, logs %v, loss %v, streams",
		p.seed, p.workers, p.clocks[:p.workers], p.groups, p.window, p.tick, p.ring, p.steady, p.many, p.logs, [...]string{"none", "wipes", "any"}[p.loss])
	for i, template := range p.streams {
		fmt.Fprintf(&b, " %d:%s", i, simTemplates[template].name)
	}
	return b.String()
}

// simAhead is how far ahead of the clock a delta may end, and simWrong how wrong a worker's clock may be.
const (
	simAhead = 300 * time.Millisecond
	simWrong = 200 * time.Millisecond
)

// newSimPlan makes the history of a seed.
func newSimPlan(seed uint64, many bool) *simPlan {
	r := rand.New(rand.NewPCG(seed, 0x51b))
	p := &simPlan{seed: seed, many: many, workers: 1 + r.IntN(4), groups: 1 << r.IntN(3), ring: r.IntN(2) == 0, tick: time.Second,
		reads: seed%2 == 1}
	if r.IntN(4) == 0 {
		p.tick = 2 * time.Millisecond
	}
	p.noStart = r.IntN(6) == 0
	for i := range p.clocks {
		if r.IntN(2) == 0 {
			p.clocks[i] = time.Duration(r.Int64N(int64(2*simWrong))) - simWrong
		}
	}
	for range 1 + min(r.IntN(4), r.IntN(4)) {
		p.streams = append(p.streams, r.IntN(len(simTemplates)))
	}
	p.window = p.tick * []time.Duration{0, 0, 1, 2, 3, 5, 100}[r.IntN(7)]

	weights := [simOps]int{simProduce: 30, simSend: 40, simView: 4, simTime: 4}
	reorder := r.IntN(3) != 0
	faults := 0 // of 100 calls
	switch profile := r.IntN(12); {
	case profile == 0 && !many: // whose deltas begin where they like
		p.steady, p.ring, reorder, p.noStart, p.loss = true, true, false, false, simWipes
		weights[simView] = 0
		weights[simWipe] = 10
	case profile < 3:
		p.loss = simSound
	case profile < 9:
		p.loss = simWipes
		weights[simWipe] = 1 + r.IntN(8)
		weights[simTime] = r.IntN(20)
	default:
		p.loss = simRecords
		for op := simWipe; op <= simOlder; op++ {
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
		case simSend, simCrash:
			for i := range step.faults {
				if r.IntN(100) < faults {
					step.faults[i] = simFault(1 + r.IntN(int(simFaults)-1))
				}
			}
		}
		p.steps = append(p.steps, step)
	}
	return p
}

type simStats struct {
	histories, converts, refused, contended, swaps, reads, conflicts, lives, otherLife int
	how                                                                                [simHows]int
	outcomes                                                                           [d2c.NumOutcomes]uint64
	snapshots                                                                          int
	acrossLives                                                                        int // streams that were given out in several
	steady                                                                             int // histories
	excused, voided                                                                    int // streams, and checks that failed on them
}

func (s *simStats) add(o *simStats) {
	s.histories += o.histories
	s.converts += o.converts
	s.refused += o.refused
	s.contended += o.contended
	s.swaps += o.swaps
	s.reads += o.reads
	s.conflicts += o.conflicts
	s.lives += o.lives
	s.otherLife += o.otherLife
	s.acrossLives += o.acrossLives
	s.snapshots += o.snapshots
	s.steady += o.steady
	s.excused += o.excused
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
	fmt.Fprintf(&b, "%d histories (%d steady): %d batches (%d refused, %d of them as contended), %d swaps, %d reads, %d conflicts, %d of another life\n",
		s.histories, s.steady, s.converts, s.refused, s.contended, s.swaps, s.reads, s.conflicts, s.otherLife)
	fmt.Fprintf(&b, "%d lives of stores, %d streams that were given out in several, %d snapshots\nrecords:", s.lives, s.acrossLives, s.snapshots)
	for how, n := range s.how {
		fmt.Fprintf(&b, " %d %s", n, simHowNames[how])
	}
	fmt.Fprintf(&b, "\n%d streams of which the store lost a record, or went back, and nobody who was asked knew (%d checks void)\noutcomes:",
		s.excused, s.voided)
	for o, n := range s.outcomes {
		if n > 0 {
			fmt.Fprintf(&b, " %d %v", n, d2c.Outcome(o))
		}
	}
	return b.String()
}

// run plays the plan and returns what was wrong.
func (p *simPlan) run(trace func(string, ...any)) (*simStats, error) {
	s := newSim(p)
	s.trace = trace
	defer func() {
		s.ended = true
		for _, f := range s.flights {
			for f.alive() {
				f.next()
			}
		}
		s.closeStores()
	}()
	for i, step := range p.steps {
		s.log("%d. %v", i, step)
		s.do(step)
		if s.err != nil {
			return &s.stats, s.err
		}
		s.remember()
	}
	s.finish()
	s.stats.histories = 1
	if p.steady {
		s.stats.steady = 1
	}
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
		// Where a ring is relied upon, what was sent by one has ended when the next begins.
		if w := int(step.b) % len(s.workers); !s.plan.ring || len(s.flights) == 0 {
			s.view[st.index] = w
			s.turn(s.now)
		}
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
			request()
		}
	case simTime:
		s.now = s.now.Add(time.Duration(step.a) * 10 * time.Millisecond)
	case simCrash:
		w := int(step.a) % len(s.workers)
		if f := s.workers[w].busy; f != nil {
			f.dead = true
		}
		s.start(w, step.faults[0])
	case simEvict:
		if w := s.workers[int(step.a)%len(s.workers)]; w.busy == nil {
			for _, st := range s.streams {
				if cached, ok := w.conv.Cached(st.template.id); ok {
					w.gone = max(w.gone, uint64(cached.Emitted), uint64(cached.Start)+1)
				}
			}
			s.now = s.now.Add(2 * simStale)
			w.conv.Expire()
			clear(w.last)
		}
	case simWipe:
		// What a call has read and not given out yet is all that a steady worker may lose.
		if !s.plan.steady || !slices.ContainsFunc(s.flights, (*simFlight).hasRead) {
			s.wipe(int(step.b))
		}
	case simRollback:
		if n := len(s.past); n > 0 {
			s.rollback(s.past[n-1-int(step.c)%min(n, 16)])
		}
	case simRemove:
		s.put(st, simStored{})
	case simDamage:
		if st.stored.raw != nil && st.stored.junk == simIntact {
			s.put(st, s.damaged(st, int(step.b), int(step.c)))
		}
	case simNewer:
		if st.stored.raw != nil && st.stored.junk == simIntact {
			s.put(st, s.newer(st, st.stored))
		}
	case simOlder:
		if st.stored.junk == simFuture {
			s.put(st, *st.stored.under)
		}
	case simSnapshot:
		s.snapshot(step)
	}
}

// produce makes a delta that ends about now.
func (s *sim) produce(st *simStream, step simStep) {
	if len(st.deltas) >= simDeltas {
		return
	}
	s.now = s.now.Add(s.plan.tick)
	at := s.now.Add([]time.Duration{0, 0, -s.plan.tick / 2, -3 * s.plan.tick, simAhead / 2, simAhead}[int(step.d/16)%6])
	d := &simDelta{stream: st, n: len(st.deltas), weight: 1, start: st.last, time: max(st.last+uint64(s.plan.tick/2), uint64(at.UnixNano()))}
	if s.plan.many {
		writer := int(step.b) % len(st.writers)
		d.start = simEpoch + st.writers[writer]
		d.time = max(d.start+uint64(s.plan.tick/4), uint64(at.UnixNano()))
		if writer > 0 { // the start of the first never moves
			st.writers[writer] = d.time - simEpoch
		}
		d.weight += int(step.d / 4 % 2)
	}
	if ahead := time.Unix(0, int64(d.time)).Sub(s.now) - simAhead; ahead > 0 {
		s.now = s.now.Add(ahead)
	}
	st.last = max(st.last, d.time)
	switch {
	case step.d%16 == 1 && !s.plan.steady:
		d.n, d.start, d.weight = -1, 0, 0
	default:
		if s.plan.noStart && st.index == 0 {
			d.start = 0
		}
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
	f := s.flight(g, int(step.b)%len(s.workers), 1+int(step.c)%4)
	if f.worker.busy != nil {
		return
	}
	f.ackLost = step.d%4 == 0
	f.faults = step.faults[:]
	s.launch(f)
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
		if round > 1000 {
			s.fail("the history does not end: %d deltas are sent again and again", len(s.gateways[0])+len(s.gateways[1]))
			break
		}
		g := &s.gateways[round%2]
		if len(*g) == 0 {
			continue
		}
		f := s.flight(g, round/2%len(s.workers), 6)
		s.launch(f)
		if s.err == nil && f.err != nil {
			s.fail("worker %d refuses though all is well: %v", f.w, f.err)
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
	if s.plan.logs && s.err == nil {
		s.sameLogs()
	}
	if (s.plan.steady || s.plan.loss == simSound) && s.stats.how[simRestarted] > 0 {
		s.fail("%d restarts", s.stats.how[simRestarted])
	}
}

// shrink leaves steps out for as long as something is still wrong.
func (p *simPlan) shrink() *simPlan {
	try := func(q *simPlan) bool {
		_, err := q.run(nil)
		return err != nil
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
	simulate(t, seeds(t, 30_000), func(seed uint64) *simPlan { return newSimPlan(seed, false) })
}

// TestSimulationManyWriters is TestSimulation with several writers for each stream. No two deltas are identical but those that
// are in one request, so that totals are exact.
func TestSimulationManyWriters(t *testing.T) {
	simulate(t, seeds(t, 30_000), func(seed uint64) *simPlan { return newSimPlan(seed, true) })
}

func simulate(t *testing.T, all []uint64, newPlan func(seed uint64) *simPlan) {
	t.Helper()
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
				stats, err := newPlan(all[i]).run(nil)
				own.add(stats)
				if err != nil {
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
	plan := newPlan(failed).shrink()
	var b strings.Builder
	_, err := plan.run(func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) })
	t.Fatalf("%v\n%s%v\nrun it alone with D2C_SEED=%d", plan, b.String(), err, failed)
}
