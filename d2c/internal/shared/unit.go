// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package shared

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/deltaring/deltaring/d2c/internal/commit"
	"github.com/deltaring/deltaring/d2c/internal/fold"
	"github.com/deltaring/deltaring/d2c/internal/table"
	"github.com/deltaring/deltaring/d2c/store"
)

// A total and those of its writers that a transaction touches are a unit: their swaps are done all or none, so that the total contains exactly
// what its writers have had added. If the store has changed one of them, all are replaced by what the store has, and the batches' points of
// them are folded again.

// prepareUnits makes the swaps of k.members: those of a unit next to each other, the total first.
func (k *Keeper) prepareUnits(tx *commit.Tx, epoch int64) {
	slices.SortFunc(k.members, func(a, b int32) int {
		return cmp.Or(cmp.Compare(tx.Total(int(a)), tx.Total(int(b))), cmp.Compare(a, b))
	})
	for _, n := range k.members {
		k.prepareOne(tx, int(n), int32(tx.Total(int(n)))+1, epoch)
	}
}

// unitEnd is where the swaps end of a unit that begins with one.
func (k *Keeper) unitEnd(from int) int {
	to := from + 1
	for to < len(k.swaps) && k.swaps[to].Unit == k.swaps[from].Unit {
		to++
	}
	return to
}

// unit handles the results of a unit's swaps and reports whether its group has another life.
func (k *Keeper) unit(ctx context.Context, tx *commit.Tx, from, to int, results []store.Result) (ended bool, err error) {
	done, twice := true, true
	for i := from; i < to; i++ {
		r, swap := &results[i], &k.swaps[i]
		done = done && r.Status == store.Swapped
		// If the store did it twice, the record is there, and the second attempt found its base changed by the first.
		twice = twice && (r.Status == store.Changed && r.Record != nil && swap.Record != nil && r.Tag == swap.Tag ||
			r.Status == store.Withheld && swap.Record == nil)
		ended = ended || r.Status == store.OtherLife
	}
	if done || twice {
		for i := from; i < to; i++ {
			k.confirmed(tx, int(k.targets[i]))
		}
		return false, nil
	}
	for i := from; i < to; i++ {
		n := int(k.targets[i])
		if results[i].Status != store.Changed {
			k.restore(tx, n)
			continue
		}
		err := k.renewMember(ctx, tx, n, &k.swaps[i], &results[i])
		if errors.Is(err, ErrVersion) {
			k.failUnit(tx, from, to, err)
			return ended, nil
		}
		if err != nil {
			return ended, err
		}
	}
	return ended, nil
}

// failUnit refuses the batches with points of a unit.
func (k *Keeper) failUnit(tx *commit.Tx, from, to int, err error) {
	for i := from; i < to; i++ {
		k.fail(tx, int(k.targets[i]), err)
	}
}

// renewMember replaces a copy by what the store has. A lost total begins anew, as any stream does. A lost writer of deltas is put back as this
// worker knows it: nothing is given out of it, and deltas that others have counted since are from before the floor. A lost cumulative writer
// must not be put back: others may have counted what it holds beyond what this worker knows, and all of that would be added again.
func (k *Keeper) renewMember(ctx context.Context, tx *commit.Tx, n int, swap *store.Swap, result *store.Result) error {
	s := &k.states[n]
	tag, there, err := k.read(ctx, tx, n, swap, result)
	if err != nil {
		return err
	}
	s.base, s.renewed = tag, true
	var r lineage
	if there {
		r = lineageOf(&k.record)
	}
	if tx.Copy(n).Role.Writes() {
		switch {
		case there:
			k.save(n, &k.record)
		case tx.Copy(n).Role == table.RoleCumulative:
			k.ask(tx, n)
			// If everything is lost, the floor is after what was counted; otherwise nobody knows.
			if damaged := result.Record != nil; damaged || s.known.known && s.known.emitted > k.floors[s.group].Time {
				s.lost, s.after = true, fold.Interval{Time: fold.MaxTime}
			}
			k.save(n, nil)
		case tx.Known(n) && tx.Original(n, &k.mine):
			k.save(n, &k.mine)
		default:
			k.save(n, nil)
		}
		k.restore(tx, n)
		return nil
	}
	k.ask(tx, n)
	// No point moves the start of a total back.
	lost := s.known.known && (!there || r.start < s.known.start || !r.continues(&s.known, k.record.Kind != table.KindSum || tx.Monotonic(n)))
	if r.known {
		s.after = fold.Interval{Start: max(s.after.Start, r.start), Time: max(s.after.Time, r.emitted)}
		if !lost {
			s.known = r
		}
	}
	s.lost = lost
	if there && !lost {
		k.save(n, &k.record)
	} else {
		k.save(n, nil)
	}
	k.restore(tx, n)
	return nil
}

// save remembers what a copy begins with, nil if nothing is known.
func (k *Keeper) save(n int, rec *table.Record) {
	if k.saved == nil {
		k.saved = map[int]*table.Record{}
	}
	if rec != nil {
		rec = rec.Clone()
	}
	k.saved[n] = rec
}

// restore resets a copy to what it was before anything was folded onto it.
func (k *Keeper) restore(tx *commit.Tx, n int) {
	s := &k.states[n]
	rec, known := k.saved[n]
	switch {
	case known && rec == nil && s.lost:
		tx.Renew(n, nil, s.after)
	case known:
		tx.Renew(n, rec, fold.Interval{})
	case !tx.Known(n):
		tx.Renew(n, nil, fold.Interval{})
	case tx.Original(n, &k.mine):
		tx.Renew(n, &k.mine, fold.Interval{})
	default:
		// It has expired here meanwhile. No record has this tag, so the store will answer with what it has.
		s.base = 2
		tx.Renew(n, nil, fold.Interval{})
	}
}
