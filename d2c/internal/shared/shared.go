// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package shared keeps state in a store that any number of workers share.
//
// # The protocol
//
// The table of a worker is a cache, and so are the copies onto which a transaction folds its batches. For each copy, the store is asked to
// replace the record that the cache knows by the new one (a swap):
//
//	learn the lives of the store, if they are not known
//	fold the batches onto copies
//	if others have lately changed most streams, and the store can be read for less than a swap: read, and renew what has changed
//	up to maxTries times, until no copy is pending:
//	    swap every pending copy; an unchanged copy is only compared
//	    swapped    the store now has the copy
//	    changed    somebody else was faster, or the cache is stale: renew the copy from the store, fold again
//	    other life the store was wiped: learn the new life
//	publish the copies
//
// So a stale cache never decides anything: before a point is given out or dropped as a repeat, as late or as a marker, the cache is compared
// with the store.
//
// # What a store loses
//
// A stream is lost if its record is gone, or does not continue what this worker knows about it (see lineage). A lost stream begins anew
// after the latest start and time that the worker knows to have been given out, or after the floor of the store's life if it knows none.
// The floor is the time at which somebody first found the store without a life. Everything given out in an earlier life is before it, so
// nothing from then can count a second time.
//
// There is one exception. If a ring routes each stream to one worker, the routing has not changed since the stream was last counted here,
// and a point begins where the cache ends, then nobody else can have changed the stream: the cache's copy is stored. A ring that changed
// and changed back has the same epoch, but gateways say since when they use it (see follow). If a gateway does not say so, only a batch
// that came by the ring in between tells.
package shared

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/deltaring/deltaring/d2c/internal/commit"
	"github.com/deltaring/deltaring/d2c/internal/fold"
	"github.com/deltaring/deltaring/d2c/internal/table"
	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/streamid"
)

// ErrContended is the error of a batch with a stream that other workers changed before each attempt.
var ErrContended = errors.New("d2c: other workers keep changing a stream of the batch")

const (
	// maxTries bounds how often a batch is folded again because others have changed its streams.
	maxTries = 16

	// floorMargin is how far other workers' clocks may be ahead of this one's: the floor of a new life is that much later.
	floorMargin = time.Second
	// routeMargin is how far apart the clocks of gateways and of this worker may be. What was counted within this time after a ring began
	// is not put back.
	routeMargin = 2 * time.Second
)

// Keeper keeps transactions in a shared store.
type Keeper struct {
	Store store.Shared
	// Damaged, if not nil, is called for each record that could not be read and was set aside.
	Damaged func(id streamid.ID, err error)

	codec   codec
	p       *commit.Pipeline
	lives   []store.Life // by group; empty until they are known
	learned atomic.Bool  // lives are known; for readers outside of transactions
	floors  []fold.Interval

	// The route by which batches come, zero if unknown, and since when, in seconds of the table's clock.
	route      uint64
	routeSince uint32
	// ringSince is the latest time at which a gateway says to have begun to use the ring of route, in Unix milliseconds.
	ringSince int64

	// high is the latest time given out.
	high atomic.Int64

	// held is the outstanding transaction while it is brought to the store.
	held *held

	reader store.Reader // nil if the store is none
	stale  stale

	// Working memory of a transaction.
	states  []state
	swaps   []store.Swap
	ids     []streamid.ID
	targets []int32 // copies, by swap or ID
	members []int32 // of units: see unit.go
	saved   map[int]*table.Record
	buffer  []byte
	record  table.Record // read from the store
	mine    table.Record // read from this worker's table
}

// state says how a copy becomes a record.
type state struct {
	base    uint64        // the tag that must be there
	tag     uint64        // of the record that was last sent
	sent    uint64        // the first tag of earlier swaps without an answer, which the store may have; each is 2 above the last
	unheard uint32        // number of those swaps
	pending bool          // until the store has confirmed it
	failed  bool          // it cannot be stored
	asked   bool          // the table was asked for the stream: see known
	renewed bool          // the copy is no longer made of the table's stream
	anew    bool          // nor of anything else: the stream is yet to be opened
	lost    bool          // of a total: it begins anew
	known   lineage       // what a record must continue
	after   fold.Interval // latest start and time that this worker knows of
	given   fold.Interval // start and latest time given out while the store failed, see Outage
	own     bool          // given was given out in a life that began meanwhile
	group   uint8
}

// New returns the Keeper of an owner's state.
func New(p *commit.Pipeline, s store.Shared, identity uint64, damaged func(streamid.ID, error)) *Keeper {
	k := &Keeper{Store: s, Damaged: damaged, codec: codec{identity: identity}, p: p}
	k.reader, _ = s.(store.Reader)
	return k
}

// Learn asks for the lives of the store, unless they are known. A worker does so before it takes any batch, because points older than the
// floor of a life that it begins are dropped.
func (k *Keeper) Learn(ctx context.Context) error {
	if len(k.lives) > 0 {
		return nil
	}
	return k.learn(ctx)
}

// proposal is the life for a store that has none. A worker that has known another life is sure that there was one before.
func (k *Keeper) proposal() store.Life {
	now := k.p.Time()
	life := store.Life{ID: rand.Uint64() | 1, Floor: k.floor(now)}
	if !k.learned.Load() {
		// The store is new, or was wiped while no worker was there.
		life.From = now.Add(-commit.RetryHorizon).UnixNano()
	}
	return life
}

func (k *Keeper) learn(ctx context.Context) error {
	lives, err := k.Store.Lives(ctx, k.proposal())
	if err != nil {
		return commit.StoreError{Err: fmt.Errorf("d2c: shared state: %w", err)}
	}
	if n := len(lives); n == 0 || n > 256 || n&(n-1) != 0 || len(k.lives) > 0 && n != len(k.lives) {
		return commit.StoreError{Err: fmt.Errorf("d2c: shared state: the store has %d groups", n)}
	}
	k.learned.Store(true)
	k.lives = append(k.lives[:0], lives...)
	k.floors = k.floors[:0]
	for _, life := range lives {
		k.floors = append(k.floors, fold.Interval{Start: life.From, Time: life.Floor})
	}
	return nil
}

// floor is a time at or after everything that any worker has given out up to now.
func (k *Keeper) floor(now time.Time) int64 {
	return max(now.UnixNano(), min(k.high.Load(), now.Add(commit.MaxAhead).UnixNano())) + int64(floorMargin)
}

// Keep implements commit.Keeper.
func (k *Keeper) Keep(ctx context.Context, tx *commit.Tx) error {
	if err := k.Learn(ctx); err != nil {
		return err
	}
	k.follow(tx)
	tx.Floors(k.floors)
	tx.Fold()
	k.begin(tx)
	look := k.reader != nil && k.stale.mostly()
	if look {
		if err := k.look(ctx, tx); err != nil {
			return err
		}
	}
	return k.bring(ctx, tx, !look)
}

// follow notes the route by which the batches came. The route is another one if the ring or the member is, or if a gateway began to use the
// ring later than all gateways heard before: in between it may have used another ring, by which this worker got no batch. (If the gateway
// has just started, this caution is unnecessary.)
func (k *Keeper) follow(tx *commit.Tx) {
	for _, b := range tx.Batches() {
		r := &b.Route
		switch {
		case r.ID == k.route && r.Since <= k.ringSince:
			continue
		case k.route == 0 && k.p.Live.Load() == 0:
			k.routeSince = 0
		default:
			k.routeSince = tx.Now() + 1
		}
		k.route, k.ringSince = r.ID, r.Since
	}
}

// begin makes the state of each copy.
func (k *Keeper) begin(tx *commit.Tx) {
	clear(k.saved)
	k.states = k.states[:0]
	for n := range tx.Len() {
		k.states = append(k.states, k.fresh(tx, n))
	}
	const maxKept = 1 << 16
	if cap(k.swaps) > maxKept {
		k.swaps, k.ids, k.targets, k.buffer = nil, nil, nil, nil
	}
}

func (k *Keeper) fresh(tx *commit.Tx, n int) state {
	return state{
		base: tx.Tag(n), pending: true,
		group: uint8(store.Group(tx.Copy(n).ID, len(k.lives))),
	}
}

// look renews the copies that others have changed meanwhile by what the store has. Whatever it is told, the swaps decide: what is out of
// date there costs another attempt, and what cannot be used is left to them. So are the members of units, which are renewed as a whole.
func (k *Keeper) look(ctx context.Context, tx *commit.Tx) error {
	k.ids, k.targets = k.ids[:0], k.targets[:0]
	for n := range k.states {
		if tx.Total(n) < 0 {
			k.ids, k.targets = append(k.ids, tx.Copy(n).ID), append(k.targets, int32(n))
		}
	}
	if len(k.ids) == 0 {
		return nil
	}
	results, err := k.reader.Read(ctx, k.ids)
	if err == nil && len(results) != len(k.ids) {
		err = fmt.Errorf("the store returned %d results for %d streams", len(results), len(k.ids))
	}
	if err != nil {
		return commit.StoreError{Err: fmt.Errorf("d2c: shared state: %w", err)}
	}
	changed := 0
	for i, n := range k.targets {
		r := &results[i]
		if r.Tag == k.states[n].base {
			continue
		}
		changed++
		if err := k.renew(ctx, tx, int(n), nil, r); err != nil && !errors.Is(err, errUnusable) {
			return err
		}
	}
	k.stale.note(len(results), changed)
	tx.Refold()
	return nil
}

// stale is how many streams of late this worker knew something else of than the store.
type stale struct {
	asked, changed int
}

// To read a record costs a Redis server about a fifth of a swap that fails. So it pays where others change more than one stream in staleShare,
// over about the last staleStreams.
const staleShare, staleStreams = 3, 4096

func (s *stale) mostly() bool { return s.changed*staleShare > s.asked }

func (s *stale) note(asked, changed int) {
	s.asked, s.changed = s.asked+asked, s.changed+changed
	for s.asked > staleStreams {
		s.asked, s.changed = s.asked/2, s.changed/2
	}
}

// bring stores the copies. A copy whose base is no longer in the store is made anew from what the store has. first says that nothing has been
// asked yet, so that the results tell how stale the cache is.
func (k *Keeper) bring(ctx context.Context, tx *commit.Tx, first bool) error {
	for range maxTries {
		k.prepare(tx)
		if len(k.swaps) == 0 {
			return nil
		}
		results, err := k.Store.Swap(ctx, k.swaps)
		if err == nil && len(results) != len(k.swaps) {
			err = fmt.Errorf("the store returned %d results for %d swaps", len(results), len(k.swaps))
		}
		if err != nil {
			for i, n := range k.targets {
				if k.swaps[i].Record != nil {
					k.states[n].unanswered()
				}
			}
			clear(k.swaps)
			return commit.StoreError{Err: fmt.Errorf("d2c: shared state: %w", err)}
		}
		ended, asked, changed := false, 0, 0
		for i := 0; i < len(results); i++ {
			if k.swaps[i].Unit != 0 {
				other, err := k.unit(ctx, tx, i, k.unitEnd(i), results)
				if err != nil {
					clear(k.swaps)
					return err
				}
				ended = ended || other
				i = k.unitEnd(i) - 1
				continue
			}
			n := int(k.targets[i])
			asked++
			switch results[i].Status {
			case store.Swapped:
				k.confirmed(tx, n)
			case store.OtherLife:
				ended = true
			default:
				changed++
				if err := k.renew(ctx, tx, n, &k.swaps[i], &results[i]); err != nil {
					clear(k.swaps)
					return err
				}
			}
		}
		if first {
			k.stale.note(asked, changed)
			first = false
		}
		if ended {
			if err := k.otherLife(ctx, tx, results); err != nil {
				clear(k.swaps)
				return err
			}
		}
		clear(k.swaps)
		tx.Refold()
	}
	if k.held != nil {
		return commit.StoreError{Err: ErrContended} // it will be tried again
	}
	for n := range k.states {
		if k.states[n].pending {
			k.fail(tx, n, ErrContended)
		}
	}
	return nil
}

// unanswered notes that the store may have what was last sent, or may still get it.
func (s *state) unanswered() {
	if s.unheard == 0 {
		s.sent = s.tag
	}
	s.unheard++
}

// ours reports whether a tag is that of a swap without an answer.
func (s *state) ours(tag uint64) bool { return tag&1 == 1 && (tag-s.sent)/2 < uint64(s.unheard) }

// confirmed notes that the store has a copy.
func (k *Keeper) confirmed(tx *commit.Tx, n int) {
	s := &k.states[n]
	s.pending, s.base, s.unheard = false, s.tag, 0
	tx.Confirm(n, s.tag)
	tx.Stored = true
	if emitted := tx.Copies().Emitted(tx.Copy(n)); emitted > k.high.Load() {
		k.high.Store(emitted)
	}
}

// fail refuses the batches with points of a stream.
func (k *Keeper) fail(tx *commit.Tx, n int, err error) {
	k.states[n].pending, k.states[n].failed = false, true
	tx.Refuse(n, err)
}

// prepare makes a swap for each copy that the store has not confirmed yet.
func (k *Keeper) prepare(tx *commit.Tx) {
	k.swaps, k.targets, k.buffer, k.members = k.swaps[:0], k.targets[:0], k.buffer[:0], k.members[:0]
	epoch := k.p.Epoch.Unix()
	for n := range k.states {
		switch {
		case !k.states[n].pending:
		case tx.Total(n) >= 0:
			k.members = append(k.members, int32(n))
		default:
			k.prepareOne(tx, n, 0, epoch)
		}
	}
	k.prepareUnits(tx, epoch)
}

// prepareOne makes the swap of a copy, of a unit unless that is zero.
func (k *Keeper) prepareOne(tx *commit.Tx, n int, unit int32, epoch int64) {
	s := &k.states[n]
	swap := store.Swap{
		ID: tx.Copy(n).ID, Life: k.lives[s.group].ID, Base: s.base, Unit: unit,
	}
	if tx.Changed(n) {
		if s.tag = s.sent + 2*uint64(s.unheard); s.unheard == 0 {
			s.tag = rand.Uint64() | 1 // not zero
		}
		from := len(k.buffer)
		k.buffer = k.codec.append(k.buffer, tx.Copies(), n, s.tag, epoch)
		swap.Tag, swap.Record = s.tag, k.buffer[from:len(k.buffer):len(k.buffer)]
	} else {
		// A repeat is given out again, or a late point dropped, because of what the cache says about the stream: ask whether that is still so.
		s.tag = s.base
	}
	k.swaps = append(k.swaps, swap)
	k.targets = append(k.targets, int32(n))
}

// otherLife learns the lives that have begun. Copies of streams that this worker did not know, or that begin anew, were opened above the
// floor of a life that has ended: they are folded again. A copy that was to be put back still is. For the others, the store will answer that
// their records are not there.
func (k *Keeper) otherLife(ctx context.Context, tx *commit.Tx, results []store.Result) error {
	if err := k.learn(ctx); err != nil {
		return err
	}
	tx.Floors(k.floors)
	for i := range results {
		n := int(k.targets[i])
		if s := &k.states[n]; results[i].Status == store.OtherLife && k.swaps[i].Unit == 0 && (s.anew || s.base == 0 && !tx.Known(n)) {
			tx.Renew(n, nil, s.after)
		}
	}
	return nil
}

// renew replaces a copy by what the store has, or decides how the stream goes on if the store has lost it. swap is what the result is of,
// nil if it was read.
func (k *Keeper) renew(ctx context.Context, tx *commit.Tx, n int, swap *store.Swap, result *store.Result) error {
	s := &k.states[n]
	tag, there, err := k.read(ctx, tx, n, swap, result)
	if errors.Is(err, ErrVersion) {
		k.fail(tx, n, err)
		return nil
	}
	if err != nil {
		return err
	}
	if there && swap != nil && swap.Record != nil && tag == s.tag {
		k.confirmed(tx, n) // ours: the store has done it twice
		return nil
	}
	s.base = tag
	if there && s.ours(tag) {
		s.unheard = 0
		return nil // ours, of an earlier attempt without an answer: what has come since is added to it
	}
	k.ask(tx, n)
	var r lineage
	if there {
		r = lineageOf(&k.record)
	}
	if s.own && !s.renewed {
		if k.adopt(tx, n, there, &r) {
			return nil
		}
		// What the store has would have to continue what was given out, and cannot.
		s.known = lineage{known: true, start: s.given.Start, emitted: s.given.Time}
	}
	lost := s.known.known && (!there || !r.continues(&s.known, k.record.Kind != table.KindSum || tx.Monotonic(n)))
	if lost && !s.renewed && (!there || r.start == s.known.start && r.emitted < s.known.emitted) && tx.Changed(n) && k.unbroken(tx, n) {
		return nil // keep the copy, on another base; an unchanged copy would not be stored
	}
	if r.known {
		s.after = fold.Interval{Start: max(s.after.Start, r.start), Time: max(s.after.Time, r.emitted)}
		if there && !lost {
			s.known = r
		}
	}
	s.renewed, s.anew = true, lost || !there
	switch {
	case lost:
		s.after = fold.Interval{Start: max(s.after.Start, s.given.Start), Time: max(s.after.Time, s.given.Time)}
		k.held.lose(tx, n)
		tx.Renew(n, nil, s.after)
	case there:
		tx.Renew(n, &k.record, fold.Interval{})
	default:
		tx.Renew(n, nil, fold.Interval{})
	}
	return nil
}

// errUnusable is the error of what was read and is no record for a copy. It may be out of date, so nothing follows from it.
var errUnusable = errors.New("unusable")

// read reads the store's record for a copy into k.record, and returns its tag and whether there is one. A damaged record is set aside and
// counts as missing, if it is the result of a swap.
func (k *Keeper) read(ctx context.Context, tx *commit.Tx, n int, swap *store.Swap, result *store.Result) (tag uint64, there bool, err error) {
	if result.Record == nil && (swap != nil || result.Tag == 0) {
		return result.Tag, false, nil
	}
	slot := tx.Copy(n)
	err = k.codec.read(result.Record, result.Tag, slot.ID, &k.record)
	if err == nil && (k.record.Kind != slot.Kind() || k.record.Role != slot.Role || slot.Role.Writes() && k.record.Owner != tx.Copies().Owner(n)) {
		err = errDamaged
	}
	switch {
	case err == nil:
		return result.Tag, true, nil
	case swap == nil:
		return 0, false, errUnusable
	case errors.Is(err, ErrVersion):
		return 0, false, fmt.Errorf("d2c: stream %v in shared state: %w", swap.ID, err)
	}
	if err := k.Store.SetAside(ctx, swap.ID, result.Record); err != nil {
		return 0, false, commit.StoreError{Err: fmt.Errorf("d2c: stream %v in shared state, setting aside: %w", swap.ID, err)}
	}
	if k.Damaged != nil {
		k.Damaged(swap.ID, err)
	}
	return 0, false, nil
}

// ask finds out, once, what this worker knows about the stream.
func (k *Keeper) ask(tx *commit.Tx, n int) {
	s := &k.states[n]
	if s.asked {
		return
	}
	s.asked = true
	if tx.Known(n) && tx.Original(n, &k.mine) {
		s.known = lineageOf(&k.mine)
		s.after = fold.Interval{Start: s.known.start, Time: s.known.emitted}
	}
}

// unbroken reports whether nobody but this worker can have changed the stream since it last did: the routing has not changed, as far as
// batches and gateways tell, and a point begins where the stream ends here. It leaves what this worker has in k.mine.
func (k *Keeper) unbroken(tx *commit.Tx, n int) bool {
	return k.route != 0 && tx.Seen(n) >= k.routeSince && k.countedSince(tx.Seen(n)) && tx.Original(n, &k.mine) &&
		tx.Aligned(n, k.mine.Timeline.Last)
}

// countedSince reports whether a stream last counted at seen was counted after all gateways heard so far had begun to use the ring. It covers
// what follow cannot tell: a gateway whose clock is behind began later than it says.
func (k *Keeper) countedSince(seen uint32) bool {
	counted := k.p.Epoch.Add(time.Duration(seen)*time.Second - routeMargin)
	return k.ringSince == 0 || counted.UnixMilli() > k.ringSince
}
