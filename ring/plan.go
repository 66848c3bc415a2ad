// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"iter"
	"math"
)

// Plan describes what a change from one ring to another moves.
type Plan struct {
	// Slots is the number of slots, in the ring that has more of them.
	Slots int
	// Moved is the number of slots whose owner changes.
	Moved int
	// Minimum is the least number of slots that would have to move if both rings were perfectly balanced: the sum of what
	// members gain from the old quotas to the new ones.
	Minimum int
	// Moves says how many slots go from whom to whom, ordered by From and To.
	Moves []Move

	old, new *Ring
	inNew    []int // see match
}

// Move is a number of slots that go from one member to another.
type Move struct {
	From, To string // names
	Slots    int
}

// Transfer is a slot that changes hands.
type Transfer struct {
	Slot     int    // of Plan.Slots; the top bits of the keys it has
	From, To string // names
}

// Diff returns the plan of a change from ring old to ring new. Members are matched by name.
func Diff(old, new *Ring) *Plan {
	p := &Plan{Slots: max(old.Slots(), new.Slots()), old: old, new: new, inNew: match(old.members, new.members)}

	// Group the moves by two counting sorts: one by To, and one by From that keeps the order of the first.
	to, from := make([]int, len(new.members)), make([]int, len(old.members))
	for _, m := range p.moved {
		p.Moved++
		to[m.to]++
		from[m.from]++
	}
	starts(to)
	starts(from)
	byTo, moved := make([]pair, p.Moved), make([]pair, p.Moved)
	for _, m := range p.moved {
		byTo[to[m.to]] = m
		to[m.to]++
	}
	for _, m := range byTo {
		moved[from[m.from]] = m
		from[m.from]++
	}
	groups := 0
	for i, m := range moved {
		if i == 0 || m != moved[i-1] {
			groups++
		}
	}
	p.Moves = make([]Move, 0, groups)
	for i, m := range moved {
		if i == 0 || m != moved[i-1] {
			p.Moves = append(p.Moves, Move{From: old.members[m.from].Name, To: new.members[m.to].Name})
		}
		p.Moves[len(p.Moves)-1].Slots++
	}

	gain := quotas(new.members, p.Slots)
	for i, q := range quotas(old.members, p.Slots) {
		if j := p.inNew[i]; j >= 0 {
			gain[j] -= q
		}
	}
	for _, g := range gain {
		p.Minimum += max(0, g)
	}
	return p
}

// starts turns the sizes of groups into the positions at which they start.
func starts(sizes []int) {
	next := 0
	for i, n := range sizes {
		sizes[i] = next
		next += n
	}
}

// pair is the indexes of an old and a new owner.
type pair struct{ from, to uint16 }

// moved yields the slots that move.
func (p *Plan) moved(yield func(int, pair) bool) {
	oldBits, newBits := p.old.bits, p.new.bits
	oldShift, newShift := max(newBits, oldBits)-oldBits, max(newBits, oldBits)-newBits
	for slot := range p.Slots {
		m := pair{p.old.owners[slot>>oldShift], p.new.owners[slot>>newShift]}
		if p.inNew[m.from] != int(m.to) && !yield(slot, m) {
			return
		}
	}
}

// Transfers yields every slot that moves, in order.
func (p *Plan) Transfers() iter.Seq[Transfer] {
	return func(yield func(Transfer) bool) {
		for slot, m := range p.moved {
			if !yield(Transfer{slot, p.old.members[m.from].Name, p.new.members[m.to].Name}) {
				return
			}
		}
	}
}

// Share returns the fraction of all keys that move, 0 to 1.
func (p *Plan) Share() float64 {
	return float64(p.Moved) / float64(p.Slots)
}

// Ratio returns Moved as a multiple of Minimum. It is 1 if nothing moves, and infinite if slots move but none had to.
func (p *Plan) Ratio() float64 {
	switch {
	case p.Moved == 0:
		return 1
	case p.Minimum == 0:
		return math.Inf(1)
	}
	return float64(p.Moved) / float64(p.Minimum)
}
