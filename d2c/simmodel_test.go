// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/streamid"
)

const simEpoch = uint64(1_700_000_000_000_000_000)

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

// simStream is a stream: what was made of it, what the store has, and what was given out.
type simStream struct {
	index    int
	template *simTemplate
	deltas   []*simDelta
	last     uint64    // end of the latest interval
	writers  [3]uint64 // of many, where the next delta of each starts
	stored   simStored
	nodes    map[uint64]*simNode
	given    []*simSample // in the order of seq
	latest   *simNode     // of what was given out
	asked    int          // seq of the swap that latest was last confirmed by
	lost     int          // seq of the latest time the store lost something of it
	lossy    bool         // it has lost single records, or went back
	excused  bool         // and nobody who was asked knew: promises across workers are void
}

// simNode is a record that was in the store at some time.
type simNode struct {
	tag    uint64
	state  *modelStream
	parent *simNode // whose state it was made from, or was restarted after
	how    simHow
	seq    int // of the swap
	life   uint64
	fold   *simFold
	known  bool // it, or something that goes on from it, was given out
	depth  int
}

// simHow says what a record was made from.
type simHow uint8

const (
	simFirst     simHow = iota // nothing: nobody who was asked knew the stream
	simContinued               // what was in the store
	simPutBack                 // what the worker remembers, as the store has lost that
	simRestarted               // nothing, as what the worker remembers may be stale
	simHows
)

var simHowNames = [simHows]string{"first", "continued", "put back", "restarted"}

func (n *simNode) descends(from *simNode) bool {
	for n != nil && n.depth > from.depth {
		n = n.parent
	}
	return n == from
}

// root is the record with which the stream's start began.
func (n *simNode) root() *simNode {
	for n.how != simFirst && n.how != simRestarted {
		n = n.parent
	}
	return n
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

// sameState compares what the oracle has with a record.
func sameState(want *modelStream, got d2c.SharedState, many bool) error {
	total, _ := want.total.(digits)
	same := int64(want.start) == got.Start && int64(want.last) == got.Last && int64(want.emitted) == got.Emitted &&
		want.fresh == !got.Restarted && want.marker == got.Marked && int64(total) == got.Total && len(want.gaps) == len(got.Gaps)
	if same {
		for i, gap := range want.gaps {
			same = same && int64(gap.start) == got.Gaps[i][0] && int64(gap.end) == got.Gaps[i][1]
		}
	}
	if same && many && len(want.memory) != len(got.Memory) {
		return fmt.Errorf("got a record that remembers %d deltas, want %d: %s", len(got.Memory), len(want.memory), describeShared(want))
	}
	if !same {
		return fmt.Errorf("got (%d, %d] emitted %d total %o fresh %v marked %v gaps %v, want %s", got.Start-int64(simEpoch), got.Last-int64(simEpoch),
			got.Emitted-int64(simEpoch), got.Total, !got.Restarted, got.Marked, got.Gaps, describeShared(want))
	}
	return nil
}

func (s *modelStream) clone() *modelStream {
	c := *s
	c.gaps = slices.Clone(s.gaps)
	c.memory = maps.Clone(s.memory)
	return &c
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
	point    int // in the batch
	outcome  d2c.Outcome
	withheld bool // another sample of the batch says as much
	closed   bool // it has deltas from before its start
	after    simPoint
}

// cannotFollow says that what is there is not what comes after known. In one history the latest time given out rises with
// every change, a life's start goes back only by what came before the first, and the next life begins at the latest time
// or after it.
func cannotFollow(st *simStream, known, there *modelStream) bool {
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

// allowed is what the package comment allows a worker to do: to go on from what is there, or, where the store has lost
// what it knows of, to restart; or to put that back, if it is the only one to have had the stream since.
func (s *sim) allowed(f *simFlight, st *simStream, view *simKnows, there *simNode, life *store.Life) (folds []*simFold) {
	known := view.known
	switch {
	case known == nil && there == nil:
		return []*simFold{s.fold(f, st, simFirst, nil, view, *life)}
	case there != nil && (known == nil || known == there || !cannotFollow(st, known.state, there.state)):
		folds = append(folds, s.fold(f, st, simContinued, there, view, *life))
		if s.plan.many && st.lossy { // a floor that was, in a life to which the store has gone back from another
			for _, lives := range f.lives {
				if len(lives) > 0 {
					folds = append(folds, s.fold(f, st, simContinued, there, view, lives[s.group(st.template.id)]))
				}
			}
		}
		if view.read == nil || st.lost <= view.readSeq {
			return folds
		}
	case s.owns(f, st, view.cached):
		// It was made from what the worker had when the call began, by the lives that it knew.
		for i := len(f.lives) - 1; i >= 0; i-- {
			if lives := f.lives[i]; len(lives) > 0 {
				folds = append(folds, s.fold(f, st, simPutBack, view.cached, view, lives[s.group(st.template.id)]))
			}
		}
	}
	// Where the store lost something in the midst of the call, caution is no mistake.
	return append(folds, s.fold(f, st, simRestarted, known, view, *life))
}

// owns reports whether a worker may put back what it has of a stream: gateways say that nobody else gets it, nobody else has
// given out more of it, and a point begins where it ends.
func (s *sim) owns(f *simFlight, st *simStream, cached *simNode) bool {
	if !s.plan.ring || cached == nil {
		return false
	}
	for _, n := range st.nodes {
		if n.known && n.seq > cached.seq && n.fold.flight.w != f.w {
			return false
		}
	}
	return slices.ContainsFunc(f.deltas, func(d *simDelta) bool {
		return d.stream == st && d.n >= 0 && d.start == cached.state.last && d.time > d.start
	})
}

// fold asks the oracle.
func (s *sim) fold(f *simFlight, st *simStream, how simHow, parent *simNode, view *simKnows, life store.Life) *simFold {
	fold := &simFold{flight: f, how: how, parent: parent}
	m := newModel(s.plan.config())
	m.began, m.gone = f.worker.began, f.gone
	if parent != nil && how != simRestarted {
		state := parent.state.clone()
		state.sample, state.claimed = nil, false
		m.streams[""] = state
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
	points := make([]modelPoint, len(fold.points))
	twins := map[int]int{}
	for i := range fold.points {
		a := &fold.points[i]
		n := f.deltas[a.point].n
		twins[n]++
		state := m.streams[""]
		marked := state != nil && state.marker
		a.outcome = m.foldAbove(&points[i], &a.after, f.deltas[a.point], twins[n], how == simRestarted, view, life)
		m.result.Note(a.outcome, 1)
		answered := a.outcome == d2c.Repeat || a.outcome == d2c.Covered
		fold.changed = fold.changed || a.outcome.Added() || a.outcome == d2c.NoRecordedValue && state != nil || answered && marked
		if state := m.streams[""]; state != nil {
			a.closed = state.closed
			if a.outcome.Added() {
				state.print = points[i].print
				if state.memory == nil {
					state.memory = map[string]int64{}
				}
				state.memory[state.print] = 0
			}
		}
	}
	for i := range fold.points {
		fold.points[i].withheld = points[i].silent
	}
	fold.state = m.streams[""]
	fold.result = m.result
	return fold
}

// foldAbove is model.fold where what ends up to a floor may have been given out: nothing begins before it.
func (m *model) foldAbove(p *modelPoint, after *simPoint, d *simDelta, twin int, lost bool, view *simKnows, life store.Life) d2c.Outcome {
	*p = modelPoint{dp: after, start: d.start, time: d.time, kind: d.stream.template.kind}
	if d.n >= 0 {
		p.delta = d.stream.template.delta(d.n)
		p.print = p.text()
		if twin > 1 && m.cfg.Writers == d2c.WritersMany {
			p.print += fmt.Sprint(" number ", twin)
		}
	}
	floor := uint64(0)
	if int64(d.time) > life.From {
		floor = uint64(life.Floor)
	}
	state := m.streams[""]
	switch {
	case state == nil && (d.time <= floor || lost && d.time <= view.latest):
		return d2c.DroppedTooLate
	case state == nil && d.n >= 0 && lost:
		state = &modelStream{kind: p.kind, start: view.start, emitted: max(view.latest, floor)}
		m.streams[""] = state
		return m.restart(state, p, d2c.RestartedLost)
	case state == nil:
		o := m.fold(p)
		if state = m.streams[""]; state != nil && state.start < floor {
			state.start, state.fresh = floor, false
			after.start = pcommon.Timestamp(floor)
		}
		state.above(floor)
		return o
	case m.cfg.Writers == d2c.WritersMany:
		if _, known := state.memory[p.print]; d.n >= 0 && !known && (d.time <= floor || !state.fresh && d.time <= state.start) {
			return d2c.DroppedTooLate
		}
	case d.n >= 0 && d.time < state.last && floor > 0 && state.fresh:
		was, before, sample := *after, state.clone(), state.sample
		silent := sample != nil && sample.silent
		result := m.result
		o := m.fold(p)
		if o == d2c.AddedBeforeFirst && (d.time <= floor || !p.unknownStart() && d.start < floor) {
			*after, m.result = was, result
			m.streams[""] = before
			if sample != nil {
				sample.silent = silent
			}
			return d2c.DroppedTooLate
		}
		if o == d2c.AddedBeforeFirst {
			state.above(floor)
		}
		return o
	}
	return m.fold(p)
}

// above has a stream, if it is one, miss nothing that ends up to a floor.
func (s *modelStream) above(floor uint64) {
	if s != nil {
		s.gaps = slices.DeleteFunc(s.gaps, func(gap interval) bool { return gap.end <= floor })
		if len(s.gaps) > 0 {
			s.gaps[0].start = max(s.gaps[0].start, floor)
		}
	}
}

// simSample is what was given out for one point.
type simSample struct {
	seq         int
	worker      int
	start, time uint64
	total       digits
	marker      bool
	closed      bool
}

func (s *simSample) String() string {
	return fmt.Sprintf("%s(%d, %d] %o", map[bool]string{true: "marker "}[s.marker], s.start-simEpoch, s.time-simEpoch, int64(s.total))
}

// given checks a sample against the others of its stream, as a backend sees them.
func (s *sim) given(f *simFlight, st *simStream, e *simSample) {
	s.log("   worker %d gives out %v of stream %d", f.w, e, st.index)
	if !e.marker {
		for n, times := range st.template.counted(e.total) {
			if times == 0 {
				continue
			}
			d := st.deltas[n]
			before := d.time <= e.start && !e.closed && (d.start != 0 || d.time < e.start) && !s.plan.many
			if d.time > e.time || before {
				s.fail("stream %d: %v has delta %d, which ends at %d", st.index, e, n, d.time-simEpoch)
			}
		}
	}
	if last := f.worker.last[st.index]; last != nil {
		if err := st.template.follows(last, e); err != nil && !(st.excused && (s.plan.many || errors.Is(err, errSimOverlap))) {
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
			st.doubts(s, fmt.Errorf("stream %d, workers %d and %d: %w", st.index, st.given[pair[0]].worker, st.given[pair[1]].worker, err))
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

// errSimOverlap is of no concern where a worker that could not know has begun a life after the store lost one.
var errSimOverlap = errors.New("restarts before or at the latest time")

// follows says what is wrong with two samples of which b was given out later.
func (t *simTemplate) follows(a, b *simSample) error {
	falls := t.monotonic && !a.marker && !b.marker && b.total < a.total
	switch {
	case b.time < a.time:
		return fmt.Errorf("time falls: %v after %v", b, a)
	case b.time/nudge == a.time/nudge && b.start > a.start && b.start >= a.time:
		return fmt.Errorf("%w in one millisecond: %v after %v", errSimOverlap, b, a)
	case b.time/nudge == a.time/nudge && (b.start != a.start || b.total != a.total || b.marker != a.marker):
		return fmt.Errorf("two values at one time: %v after %v", b, a)
	case b.start <= a.start && falls:
		return fmt.Errorf("value falls: %v after %v", b, a)
	case b.start > a.start && b.start < a.time:
		return fmt.Errorf("%w: %v after %v", errSimOverlap, b, a)
	}
	return nil
}

// confirmed checks that what is given out descends from what was given out before, or begins anew in another life.
func (s *sim) confirmed(f *simFlight, st *simStream, view *simKnows) {
	n := view.fold.node
	for m := n; m != nil && !m.known; m = m.parent {
		if m.known = true; m == m.root() {
			break
		}
	}
	was := st.latest
	if was == nil {
		st.latest, st.asked = n, view.seq
		return
	}
	switch {
	case n == was, n.descends(was) && view.seq > st.asked, was.descends(n) && view.seq < st.asked:
	case st.lossy:
		if !st.excused {
			st.excused = true
			s.stats.excused++
		}
		s.log("   stream %d: %v does not descend from %v", st.index, n, was)
	case n.life == was.life || n.root() == was.root() || st.lost == 0:
		s.fail("worker %d: stream %d goes on from %v, not from %v", f.w, st.index, n, was)
	}
	if view.seq > st.asked {
		st.latest, st.asked = n, view.seq
	}
}

// account sees to it that each delta that was acknowledged as counted is in exactly one life, and that of the others
// somebody was told.
func (s *sim) account(st *simStream) {
	lives := map[*simNode]*simNode{} // the last of each that was given out
	for _, n := range st.nodes {
		if n.known {
			if last := lives[n.root()]; last == nil || last.depth < n.depth {
				lives[n.root()] = n
			}
		}
	}
	var times [simDeltas]int
	for _, last := range lives {
		for i, k := range st.template.counted(last.state.total.(digits)) {
			times[i] += k
		}
	}
	for _, n := range st.nodes {
		if n.known && !lives[n.root()].descends(n) {
			st.doubts(s, fmt.Errorf("stream %d: both %v and %v were given out under one start", st.index, lives[n.root()], n))
		}
	}
	if len(lives) > 1 {
		s.stats.acrossLives++
		if s.plan.steady || s.plan.loss == simSound {
			s.fail("stream %d has begun %d times", st.index, len(lives))
		}
	}
	for i, d := range st.deltas {
		switch {
		case d.counted && times[i] != d.weight:
			st.doubts(s, fmt.Errorf("stream %d: delta %d was acknowledged and is counted %d times", st.index, i, times[i]))
		case !d.counted && times[i] != 0 && times[i] != d.weight, !d.delivered && times[i] != 0:
			st.doubts(s, fmt.Errorf("stream %d: delta %d is counted %d times", st.index, i, times[i]))
		case d.delivered && times[i] == 0 && !d.refused:
			st.doubts(s, fmt.Errorf("stream %d: nobody was told that delta %d is lost", st.index, i))
		}
	}
}
