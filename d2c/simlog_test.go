// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/d2c/store/log"
	"github.com/deltaring/deltaring/streamid"
)

// The simulation, with a store that keeps its records in logs. Each worker has a log.Store of its own, which remembers what it has read; all
// have the logs in common. Faults happen to the calls of the driver: two owners of a log append at once, one that was hung up wakes up when another has gone on and has
// made a snapshot, requests and answers are lost, some logs of a call get their entry and others do not, entries and snapshots arrive when nobody
// counts on them any more, logs are lost, or go back to what they were.
//
// The model executes the swaps of a log at the moment when an entry, or a check, gets there, and nothing else may come of them than what the Store
// tells its worker.

// simLog is a log. What is in it does not change, so that a copy of it is what it was.
type simLog struct {
	from     log.Position
	snapshot []byte
	entries  []log.Entry
}

func (l *simLog) end() log.Position {
	t := log.Tail{From: l.from, Entries: l.entries}
	return t.End()
}

// find returns how many entries are up to a position, or -1 if the log does not have it.
func (l *simLog) find(p log.Position) int {
	for i := range len(l.entries) + 1 {
		t := log.Tail{From: l.from, Entries: l.entries[:i]}
		if t.End() == p {
			return i
		}
	}
	return -1
}

func (l *simLog) append(a *log.Append) {
	l.entries = append(slices.Clip(l.entries), log.Entry{ID: a.ID, Data: bytes.Clone(a.Entry)})
}

// simLogStore is the store as one worker sees it, above its log.Store and below.
type simLogStore struct {
	simStore
	logs *log.Store

	// The call under way.
	swaps    []store.Swap
	results  []store.Result // as the model says
	proposed *store.Life
	asked    time.Time

	// unheard is of entries whose answer is lost, by log: the worker learns of it by reading on, or not at all.
	unheard map[int]simUnheard

	compact simFault // what happens to snapshots
}

// simUnheard is what the worker knew before.
type simUnheard struct {
	id    uint64
	views map[*simKnows]simKnows
}

var (
	_ store.Shared = (*simLogStore)(nil)
	_ log.Driver   = (*simLogStore)(nil)
)

// openLogs makes the store of a worker.
func (s *sim) openLogs(worker *simWorker, fault simFault) *simLogStore {
	x := &simLogStore{simStore: simStore{sim: s, worker: worker, fault: fault}}
	var err error
	if x.logs, err = log.New(x, log.Options{Groups: s.plan.groups, Readers: 1}); err != nil {
		panic(err)
	}
	s.opened = append(s.opened, x)
	return x
}

func (x *simLogStore) Lives(ctx context.Context, proposed store.Life) ([]store.Life, error) {
	s, f := x.sim, x.worker.busy
	x.proposed, x.asked = &proposed, s.now
	if proposed.ID == 0 || s.lifeIDs[proposed.ID] {
		s.fail("life %d is proposed", proposed.ID)
	}
	s.lifeIDs[proposed.ID] = true
	lives, err := x.logs.Lives(ctx, proposed)
	x.proposed = nil
	if s.ended || f != nil && f.dead {
		return nil, errSimStopped
	}
	if err != nil {
		return nil, err
	}
	x.worker.lives = slices.Clone(lives)
	if f != nil {
		f.lives = append(f.lives, x.worker.lives)
	}
	return lives, nil
}

func (x *simLogStore) Swap(ctx context.Context, swaps []store.Swap) ([]store.Result, error) {
	s, f := x.sim, x.worker.busy
	if s.ended {
		return nil, errSimStopped
	}
	if !x.asks(f, swaps) {
		return nil, errSimStopped
	}
	x.swaps, x.results, x.unheard = swaps, make([]store.Result, len(swaps)), nil
	results, err := x.logs.Swap(ctx, swaps)
	x.swaps = nil
	if s.ended || f.dead {
		return nil, errSimStopped
	}
	if err != nil {
		return nil, err
	}
	for i := range results {
		if got, want := &results[i], &x.results[i]; got.Status != want.Status || got.Tag != want.Tag || !bytes.Equal(got.Record, want.Record) {
			s.fail("worker %d is told %v of stream %d, and it is %v", f.w, got, s.byID[swaps[i].ID].index, want)
			return nil, errSimStopped
		}
	}
	x.told = results
	return results, nil
}

func (x *simLogStore) SetAside(context.Context, streamid.ID, []byte) error {
	x.sim.fail("a record is set aside")
	return errSimStopped
}

// simAppends does appends when they arrive.
type simAppends struct {
	x        *simLogStore
	f        *simFlight
	swaps    []store.Swap
	proposed *store.Life
	appends  []log.Append
}

func (r *simAppends) clone() *simAppends {
	kept := *r
	kept.swaps, kept.appends = slices.Clone(r.swaps), slices.Clone(r.appends)
	for i := range kept.swaps {
		kept.swaps[i].Record = bytes.Clone(kept.swaps[i].Record)
	}
	for i := range kept.appends {
		kept.appends[i].Entry = bytes.Clone(kept.appends[i].Entry)
	}
	return &kept
}

// exec does those of the appends that may be.
func (r *simAppends) exec(results []store.Result, which func(int) bool) []bool {
	done := make([]bool, len(r.appends))
	for i := range r.appends {
		done[i] = which(i) && r.one(results, &r.appends[i])
	}
	return done
}

func every(int) bool { return true }

func (r *simAppends) one(results []store.Result, a *log.Append) bool {
	s := r.x.sim
	l := &s.logs[a.Log]
	if l.end() != a.After {
		return false
	}
	if r.proposed != nil {
		if a.Entry != nil {
			s.propose(r.x.worker, *r.proposed, a.Log)
			l.append(a)
		}
		return true
	}
	written := 0
	for i := range r.swaps {
		if swap := &r.swaps[i]; s.group(swap.ID) == a.Log {
			result := s.exec(r.f, swap)
			if result.Status == store.Swapped && swap.Record != nil {
				written++
			}
			if results != nil {
				results[i] = result
			}
		}
	}
	if (written > 0) != (a.Entry != nil) {
		s.fail("worker %d's entry has %d bytes, and %d swaps are done", r.f.w, len(a.Entry), written)
	}
	if a.Entry != nil {
		l.append(a)
	}
	return true
}

// Append implements log.Driver.
func (x *simLogStore) Append(_ context.Context, appends []log.Append) ([]bool, error) {
	f, fault := x.call()
	s := x.sim
	if s.ended {
		return nil, errSimStopped
	}
	r := &simAppends{x, f, x.swaps, x.proposed, appends}
	switch fault {
	case simLostRequest:
		return nil, errSimFault
	case simLostReply:
		r.exec(nil, every)
		return nil, errSimFault
	case simPartly:
		odd := s.seq % 2
		r.exec(nil, func(i int) bool { return i%2 == odd })
		return nil, errSimFault
	case simGivenUp:
		if r.proposed != nil {
			r.exec(nil, every) // a floor is of when it was proposed
		} else {
			late := r.clone()
			s.late = append(s.late, func() { late.exec(nil, every) })
		}
		return nil, errSimFault
	case simHangBefore:
		if f != nil && !f.hang() {
			return nil, errSimStopped
		}
	case simTwice, simHangBetween:
		// A check that nobody hears the answer of is none.
		x.unheard = map[int]simUnheard{}
		for i := range appends {
			u := simUnheard{appends[i].ID, map[*simKnows]simKnows{}}
			for j := range x.swaps {
				if id := x.swaps[j].ID; s.group(id) == appends[i].Log {
					view := f.view(s.byID[id])
					u.views[view] = *view
				}
			}
			x.unheard[appends[i].Log] = u
		}
		first := r.exec(x.results, func(i int) bool { return appends[i].Entry != nil })
		if fault == simHangBetween && f != nil && !f.hang() {
			return nil, errSimStopped
		}
		if x.proposed != nil && s.now.Sub(x.asked) > simTransit {
			return nil, errSimFault
		}
		second := r.exec(x.results, func(i int) bool { return !first[i] })
		return second, nil
	}
	if x.proposed != nil && s.now.Sub(x.asked) > simTransit {
		return nil, errSimFault
	}
	done := r.exec(x.results, every)
	if fault == simHangAfter && f != nil && !f.hang() {
		return nil, errSimStopped
	}
	return done, nil
}

// Read implements log.Driver.
func (x *simLogStore) Read(_ context.Context, n int, after log.Position) (log.Tail, error) {
	f, fault := x.call()
	s := x.sim
	if s.ended {
		return log.Tail{}, errSimStopped
	}
	switch fault {
	case simLostRequest, simLostReply, simPartly, simGivenUp:
		return log.Tail{}, errSimFault
	case simHangBefore, simHangBetween:
		if f != nil && !f.hang() {
			return log.Tail{}, errSimStopped
		}
	}
	tail := s.logs[n].read(after)
	if u, ok := x.unheard[n]; ok {
		if !slices.ContainsFunc(tail.Entries, func(e log.Entry) bool { return e.ID == u.id }) {
			for view, was := range u.views {
				view.known, view.read, view.latest, view.start = was.known, was.read, was.latest, was.start
			}
		}
		delete(x.unheard, n)
	}
	if fault == simHangAfter && f != nil && !f.hang() {
		return log.Tail{}, errSimStopped
	}
	return tail, nil
}

func (l *simLog) read(after log.Position) log.Tail {
	t := log.Tail{From: after}
	n := l.find(after)
	if n < 0 {
		t.From, t.Snapshot, n = l.from, bytes.Clone(l.snapshot), 0
	}
	for _, e := range l.entries[n:] {
		t.Entries = append(t.Entries, log.Entry{ID: e.ID, Data: bytes.Clone(e.Data)})
	}
	return t
}

// Compact implements log.Driver.
func (x *simLogStore) Compact(_ context.Context, n int, at log.Position, snapshot []byte) error {
	s := x.sim
	snapshot = bytes.Clone(snapshot)
	put := func() {
		l := &s.logs[n]
		if i := l.find(at); i >= 0 {
			s.log("   log %d has a snapshot up to %d", n, at.Number)
			s.stats.snapshots++
			*l = simLog{at, snapshot, l.entries[i:]}
		}
	}
	switch x.compact {
	case simNone:
		put()
		return nil
	case simLostReply:
		put()
	case simGivenUp:
		s.late = append(s.late, put)
	}
	return errSimFault
}

// snapshot has an idle worker make snapshots.
func (s *sim) snapshot(step simStep) {
	w := s.workers[int(step.a)%len(s.workers)]
	if w.logs == nil || w.busy != nil {
		return
	}
	w.logs.compact = [...]simFault{simNone, simNone, simLostReply, simLostRequest, simGivenUp, simGivenUp}[step.b%6]
	if err := w.logs.logs.Compact(context.Background()); (err != nil) != (w.logs.compact != simNone && errors.Is(err, errSimFault)) {
		s.fail("worker %d makes snapshots: %v", int(step.a)%len(s.workers), err)
	}
}

// sameLogs fails unless each worker, and one that has just come, has the records that the store has.
func (s *sim) sameLogs() {
	all := []*simLogStore{s.openLogs(&simWorker{}, simNone)}
	for _, w := range s.workers {
		all = append(all, w.logs)
	}
	for i, x := range all {
		for _, st := range s.streams {
			swap := store.Swap{ID: st.template.id, Life: s.lives[s.group(st.template.id)].ID, Base: 1}
			want := store.Result{Status: store.Changed, Tag: st.stored.tag, Record: st.stored.raw}
			if swap.Life == 0 {
				want = store.Result{Status: store.OtherLife}
			}
			x.swaps = nil // nothing of the model
			results, err := x.logs.Swap(context.Background(), []store.Swap{swap})
			if err != nil {
				s.fail("in the end stream %d cannot be read by worker %d: %v", st.index, i-1, err)
				return
			}
			if got := results[0]; got.Status != want.Status || got.Tag != want.Tag || !bytes.Equal(got.Record, want.Record) {
				s.fail("in the end stream %d is %v by worker %d, and in truth %v", st.index, got, i-1, want)
				return
			}
		}
	}
}

// closeStores ends what the history has opened. Converters are reachable for one more garbage collection than all else, by their pools: if they
// had the history with them, each collection would find more alive than the last.
func (s *sim) closeStores() {
	for _, x := range s.opened {
		if err := x.logs.Close(context.Background()); err != nil {
			s.fail("%v", err)
		}
		*x = simLogStore{}
	}
	for _, x := range s.plain {
		*x = simStore{}
	}
}

// TestSimulationLogs is TestSimulation with a store that keeps its records in logs.
func TestSimulationLogs(t *testing.T) {
	simulate(t, seeds(t, 12_000), func(seed uint64) *simPlan { return newSimPlan(seed, seed%4 == 0).inLogs() })
}

// inLogs makes the plan one of a store that keeps logs. It does not lose single records.
func (p *simPlan) inLogs() *simPlan {
	p.logs = true
	for i := range p.steps {
		switch step := &p.steps[i]; {
		case step.op == simRemove, step.op == simDamage, step.op == simNewer, step.op == simOlder:
			step.op = simRollback
		case step.op == simTime && step.b%2 == 0, i%7 == 3 && step.op == simProduce && step.d%2 == 0:
			step.op = simSnapshot
		}
	}
	return p
}
