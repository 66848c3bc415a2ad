// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/streamid"
)

// simStored is what the store has of a stream.
type simStored struct {
	tag  uint64
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

func (r *simStored) String() string {
	junk := [...]string{"", " damaged", " foreign", " newer"}[r.junk]
	if r.node == nil {
		return fmt.Sprintf("%d bytes%s", len(r.raw), junk)
	}
	return fmt.Sprintf("%v%s", r.node, junk)
}

// beneath returns the record that will be there once newer versions are gone.
func (r *simStored) beneath() *simNode {
	for r.junk == simFuture {
		r = r.under
	}
	return r.node
}

// simPast is a state that the store was in.
type simPast struct {
	lives  []store.Life
	logs   []simLog
	stored []simStored
}

// remember takes a snapshot. Steps that change nothing can be left out of a history without changing what the others mean.
func (s *sim) remember() {
	if s.plan.loss != simRecords {
		return
	}
	now := simPast{lives: slices.Clone(s.lives), logs: slices.Clone(s.logs)}
	for _, st := range s.streams {
		now.stored = append(now.stored, st.stored)
	}
	if n := len(s.past); n > 0 && slices.Equal(now.lives, s.past[n-1].lives) &&
		slices.EqualFunc(now.stored, s.past[n-1].stored, func(a, b simStored) bool { return a.tag == b.tag && bytes.Equal(a.raw, b.raw) }) {
		return
	}
	s.past = append(s.past, now)
}

func (s *sim) rollback(then simPast) {
	again := !slices.Equal(s.lives, then.lives) // a life that has ended
	copy(s.lives, then.lives)
	copy(s.logs, then.logs)
	for i, st := range s.streams {
		s.put(st, then.stored[i])
		st.lossy = st.lossy || again
	}
}

// wipe loses everything, or one group.
func (s *sim) wipe(which int) {
	group := which%(2*s.plan.groups) - s.plan.groups
	for g := range s.lives {
		if group < 0 || group == g {
			s.lives[g], s.logs[g] = store.Life{}, simLog{}
		}
	}
	for _, st := range s.streams {
		if group < 0 || group == s.group(st.template.id) {
			s.seq++
			st.lost, st.stored = s.seq, simStored{}
		}
	}
}

func (s *sim) group(id streamid.ID) int { return store.Group(id, s.plan.groups) }

// put makes the store have something of a stream, as it must not. To go back to what is there already is no loss, nor is it to
// wait for an older version.
func (s *sim) put(st *simStream, r simStored) {
	was := st.stored
	st.stored = r
	if r.beneath() != was.beneath() || r.junk == simDamaged || r.junk == simForeign {
		s.seq++
		st.lost, st.lossy = s.seq, true
	}
	s.log("   the store has %v of stream %d", &st.stored, st.index)
}

// damaged returns what is left of the record of a stream.
func (s *sim) damaged(st *simStream, how, where int) simStored {
	r := &st.stored
	left := simStored{tag: r.tag, raw: bytes.Clone(r.raw), node: r.node, junk: simDamaged}
	switch how % 4 {
	case 0:
		left.raw[where%len(left.raw)] ^= 1 << (where % 8)
	case 1:
		left.tag ^= 1 << (where % 8 * 8) // a record under the tag of another
		left.node = nil
		if left.tag == 0 {
			left.tag = 2
		}
	case 2:
		left.raw = left.raw[:where%len(left.raw)]
		if len(left.raw) == 0 {
			left.raw = []byte{0}
		}
	case 3:
		left.junk, left.node, left.tag = simForeign, nil, s.strangeTag()
		left.raw[2] ^= 0x10
		left.raw = sealShared(left.raw, st.template.id, left.tag)
	}
	return left
}

// newer returns the record that a newer version puts over that of a stream.
func (s *sim) newer(st *simStream, r simStored) simStored {
	over := simStored{tag: s.strangeTag(), raw: bytes.Clone(r.raw), junk: simFuture, under: &r}
	over.raw[0] = 3
	over.raw[3] ^= 0x55
	over.raw = sealShared(over.raw, st.template.id, over.tag)
	return over
}

// strangeTag is one that somebody else has made: no test depends on which.
func (s *sim) strangeTag() uint64 { return rand.Uint64() | 1 }

var (
	errSimFault   = errors.New("the network")
	errSimStopped = errors.New("the history is over")
)

// simStore is the store as one worker sees it.
type simStore struct {
	sim    *sim
	worker *simWorker
	fault  simFault       // of the call of Lives when the worker begins
	told   []store.Result // by the call before
}

var _ store.Shared = (*simStore)(nil)

// call begins a call of the store: it says in whose flight, if any, and what happens to it.
func (x *simStore) call() (f *simFlight, fault simFault) {
	if f = x.worker.busy; f == nil {
		fault, x.fault = x.fault, simNone
		return nil, fault
	}
	if len(f.faults) > 0 && !x.sim.quiet {
		fault, f.faults = f.faults[0], f.faults[1:]
	}
	f.faulted = f.faulted || fault != simNone && fault != simTwice
	return f, fault
}

func (x *simStore) Lives(_ context.Context, proposed store.Life) ([]store.Life, error) {
	f, fault := x.call()
	s := x.sim
	if s.ended {
		return nil, errSimStopped
	}
	switch fault {
	case simLostRequest, simPartly:
		return nil, errSimFault
	case simLostReply, simGivenUp:
		s.proposed(x.worker, proposed)
		return nil, errSimFault
	case simHangBefore, simHangBetween:
		sent := s.now
		if f != nil && !f.hang() {
			return nil, errSimStopped
		}
		if s.now.Sub(sent) > simTransit {
			return nil, errSimFault
		}
	}
	s.proposed(x.worker, proposed)
	lives := slices.Clone(s.lives)
	if fault == simHangAfter && f != nil && !f.hang() || f != nil && f.dead {
		return nil, errSimStopped
	}
	x.worker.lives = lives
	if f != nil {
		f.lives = append(f.lives, lives)
	}
	return slices.Clone(lives), nil
}

// proposed gives a life to each group without one.
func (s *sim) proposed(w *simWorker, proposed store.Life) {
	if proposed.ID == 0 || s.lifeIDs[proposed.ID] {
		s.fail("life %d is proposed", proposed.ID)
	}
	s.lifeIDs[proposed.ID] = true
	for g := range s.lives {
		if s.lives[g].ID == 0 {
			s.propose(w, proposed, g)
		}
	}
}

// propose gives a life to a group. Whatever was given out before must not be later than its floor.
func (s *sim) propose(w *simWorker, proposed store.Life, g int) {
	s.lives[g] = proposed
	s.stats.lives++
	s.log("   group %d has a life after %d, up to which all after %d is too late", g, proposed.Floor-int64(simEpoch), proposed.From-int64(simEpoch))
	for _, st := range s.streams {
		if s.group(st.template.id) != g {
			continue
		}
		for _, n := range st.nodes {
			if n.state != nil && n.state.emitted > uint64(proposed.Floor) && uint64(proposed.From) < n.state.emitted {
				s.fail("a life has the floor %d, and stream %d was given out at %d", proposed.Floor-int64(simEpoch), st.index,
					n.state.emitted-simEpoch)
				return
			}
		}
	}
}

func (x *simStore) Swap(_ context.Context, swaps []store.Swap) ([]store.Result, error) {
	f, fault := x.call()
	s := x.sim
	if s.ended || !x.asks(f, swaps) {
		return nil, errSimStopped
	}
	request := simRequest{f, swaps}
	var results []store.Result
	switch fault {
	case simLostRequest:
		return nil, errSimFault
	case simLostReply:
		request.exec()
		return nil, errSimFault
	case simPartly:
		for i := range swaps {
			if (i+s.seq)%2 == 0 {
				s.exec(f, &swaps[i])
			}
		}
		return nil, errSimFault
	case simGivenUp:
		kept := slices.Clone(swaps)
		for i := range kept {
			kept[i].Record = bytes.Clone(kept[i].Record)
		}
		late := simRequest{f, kept}
		s.late = append(s.late, func() { late.exec() })
		return nil, errSimFault
	case simTwice, simHangBetween:
		// Nobody hears the first answer.
		unheard := make([]simKnows, len(swaps))
		for i := range swaps {
			unheard[i] = *f.view(s.byID[swaps[i].ID])
		}
		request.exec()
		for i := range swaps {
			view := f.view(s.byID[swaps[i].ID])
			view.known, view.read = unheard[i].known, unheard[i].read
			view.latest, view.start = unheard[i].latest, unheard[i].start
		}
		if fault == simHangBetween && !f.hang() {
			return nil, errSimStopped
		}
		results = request.exec()
	case simHangBefore:
		if !f.hang() {
			return nil, errSimStopped
		}
		results = request.exec()
	case simHangAfter:
		results = request.exec()
		if !f.hang() {
			return nil, errSimStopped
		}
	default:
		results = request.exec()
	}
	if f.dead {
		return nil, errSimStopped
	}
	x.told = results
	return results, nil
}

// simReader is a simStore that can be read.
type simReader struct{ *simStore }

var _ store.Reader = simReader{}

// Read tells what is so at some time of the call. That a worker finds what it knows says nothing to it.
func (x simReader) Read(_ context.Context, ids []streamid.ID) ([]store.Result, error) {
	f, fault := x.call()
	s := x.sim
	if s.ended || !x.asks(f, nil) {
		return nil, errSimStopped
	}
	switch fault {
	case simNone, simTwice, simHangAfter:
	case simHangBefore, simHangBetween:
		if !f.hang() {
			return nil, errSimStopped
		}
	default:
		return nil, errSimFault
	}
	results := make([]store.Result, len(ids))
	for i, id := range ids {
		st := s.byID[id]
		view, there := f.view(st), &st.stored
		s.stats.reads++
		s.seq++
		if view.known == nil || there.tag != view.known.tag {
			s.conflict(f, st, view, &store.Swap{ID: id})
		}
		results[i] = store.Result{Status: store.Changed, Tag: there.tag, Record: bytes.Clone(there.raw)}
	}
	if fault == simHangAfter && !f.hang() || f.dead {
		return nil, errSimStopped
	}
	x.told = results
	return results, nil
}

// asks reports whether a worker may ask for swaps.
func (x *simStore) asks(f *simFlight, swaps []store.Swap) bool {
	s := x.sim
	if f == nil {
		s.fail("a swap out of nowhere")
		return false
	}
	if f.swaps++; f.swaps > 64 {
		s.fail("a call does not end")
		return false
	}
	for i := range x.told { // results are valid until the next call
		clear(x.told[i].Record)
		x.told[i] = store.Result{Status: 0xee, Tag: 0xeeee}
	}
	x.told = nil
	for i := range swaps {
		f.view(s.byID[swaps[i].ID]).open = true
		if swaps[i].Unit != 0 || (swaps[i].Record == nil) != (swaps[i].Tag == 0) {
			s.fail("worker %d asks for %+v", f.w, swaps[i])
		}
	}
	return true
}

func (x *simStore) SetAside(_ context.Context, id streamid.ID, record []byte) error {
	s, st := x.sim, x.sim.byID[id]
	if st.stored.raw == nil || !bytes.Equal(st.stored.raw, record) {
		return nil
	}
	switch {
	case st.stored.junk == simIntact && !st.lossy: // the store may go back meanwhile to the same bytes, under their own tag
		s.fail("a sound record is set aside: %v", st.stored.node)
	case st.stored.junk == simFuture:
		s.fail("the record of a newer version is set aside")
	}
	st.stored = simStored{}
	s.log("   set aside")
	return nil
}

// simRequest is what was sent to the store.
type simRequest struct {
	f     *simFlight
	swaps []store.Swap
}

func (r simRequest) exec() []store.Result {
	results := make([]store.Result, len(r.swaps))
	for i := range r.swaps {
		results[i] = r.f.sim.exec(r.f, &r.swaps[i])
	}
	return results
}

// exec does one swap, and compares what gets into the store with what may.
func (s *sim) exec(f *simFlight, swap *store.Swap) (result store.Result) {
	st := s.byID[swap.ID]
	view := f.view(st)
	before := st.stored
	s.seq++
	s.stats.swaps++
	life := &s.lives[s.group(swap.ID)]
	if swap.Life == 0 {
		s.fail("worker %d swaps stream %d in no life", f.w, st.index)
	}
	if swap.Life != life.ID {
		s.stats.otherLife++
		s.log("   worker %d's %s of stream %d is for another life", f.w, swapName(swap), st.index)
		return store.Result{Status: store.OtherLife}
	}
	if swap.Base != before.tag {
		s.conflict(f, st, view, swap)
		return store.Result{Status: store.Changed, Tag: before.tag, Record: bytes.Clone(before.raw)}
	}
	if before.junk == simFuture {
		s.fail("the record of a newer version is overwritten")
		return result
	}
	there := before.node
	fold, err := s.explain(f, st, view, there, swap, life)
	switch {
	case err != nil:
		s.fail("%w", err)
		return result
	case swap.Record == nil:
		fold.node = there
		s.log("   worker %d confirms stream %d: %v", f.w, st.index, there)
	case fold.node != nil: // done twice, and what the first time had put there is lost meanwhile
		if !st.lossy {
			s.fail("worker %d stores stream %d twice, in one life", f.w, st.index)
		}
		st.excused = true
		st.stored = simStored{tag: swap.Tag, raw: bytes.Clone(swap.Record), node: fold.node}
		s.log("   worker %d's swap of stream %d once more: %v", f.w, st.index, fold.node)
	default:
		n := &simNode{tag: swap.Tag, state: fold.state, parent: fold.parent, how: fold.how, seq: s.seq, life: life.ID, fold: fold}
		if n.parent != nil {
			n.depth = n.parent.depth + 1
		}
		st.nodes[n.tag] = n
		st.stored = simStored{tag: swap.Tag, raw: bytes.Clone(swap.Record), node: n}
		fold.node = n
		s.stats.how[fold.how]++
		s.log("   worker %d swaps stream %d over %v, %s: %v", f.w, st.index, there, simHowNames[fold.how], n)
		for i, times := range st.template.counted(fold.state.total.(digits)) {
			if times != 0 && times != st.deltas[min(i, len(st.deltas)-1)].weight {
				s.fail("stream %d: delta %d is in the total %d times: %v", st.index, i, times, n)
			}
		}
	}
	view.open = false
	view.fold = fold
	view.seq = s.seq
	return store.Result{Status: store.Swapped}
}

// conflict notes what a worker reads instead of what it had.
func (s *sim) conflict(f *simFlight, st *simStream, view *simKnows, swap *store.Swap) {
	there := &st.stored
	s.stats.conflicts++
	s.log("   worker %d's %s of stream %d meets %v", f.w, swapName(swap), st.index, there)
	f.newer = f.newer || there.junk == simFuture
	n := there.node
	if n == nil || there.junk != simIntact || swap.Record != nil && n.tag == swap.Tag {
		return
	}
	if view.read == nil {
		view.readSeq = s.seq
	}
	view.read = n
	if view.known == nil || !cannotFollow(st, view.known.state, n.state) {
		view.known = n
	}
	view.latest = max(view.latest, n.state.emitted)
	view.start = max(view.start, n.state.start)
}

func swapName(swap *store.Swap) string {
	if swap.Record == nil {
		return "question"
	}
	return "swap"
}

// explain finds out what a swap that takes place is made from.
func (s *sim) explain(f *simFlight, st *simStream, view *simKnows, there *simNode, swap *store.Swap, life *store.Life) (*simFold, error) {
	var got d2c.SharedState
	if swap.Record != nil {
		var err error
		if got, err = f.worker.conv.ReadShared(swap.Record, swap.Tag, swap.ID); err != nil {
			return nil, fmt.Errorf("a record that cannot be read: %w", err)
		}
		for _, other := range s.streams {
			switch n := other.nodes[swap.Tag]; {
			case n == nil:
			case other == st && n.fold.flight == f && n.seq < st.lost:
				return n.fold, nil
			default:
				return nil, fmt.Errorf("worker %d uses a tag of stream %d again: #%d has it", f.w, other.index, n.seq)
			}
		}
	}
	problem := fmt.Errorf("worker %d must not change stream %d over %v", f.w, st.index, there)
	for _, fold := range s.allowed(f, st, view, there, life) {
		switch {
		case swap.Record == nil && fold.how == simPutBack:
			problem = fmt.Errorf("worker %d puts stream %d back and does not store it", f.w, st.index)
		case swap.Record == nil && fold.changed:
			problem = fmt.Errorf("worker %d changes stream %d and does not store it: %v from %v, which the store confirmed as %v",
				f.w, st.index, describeShared(fold.state), fold.parent, there)
		case swap.Record == nil:
			return fold, nil
		case fold.state == nil:
			problem = fmt.Errorf("worker %d stores %+v of stream %d where nothing is to be stored", f.w, got, st.index)
		default:
			err := sameState(fold.state, got, s.plan.many)
			if err == nil {
				return fold, nil
			}
			problem = fmt.Errorf("worker %d stores stream %d over %v, %s from %v: %w", f.w, st.index, there, simHowNames[fold.how], fold.parent, err)
		}
	}
	return nil, problem
}

// simTransit is how long a proposal may take to the store: its floor allows for no more.
const simTransit = 400 * time.Millisecond

// simStale is after what time caches expire.
const simStale = time.Minute
