// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"math"
	"sort"
)

// budgetUnit is what it takes that members, if none is full, rank half of the slots that none has ranked before: costs
// are binary logarithms.
const budgetUnit = 1 << costBits

// offer is what a slot costs a member.
type offer struct{ rank, member uint32 }

// market is the assignment in the making: members propose to the slots in the order in which they rank them, a slot takes
// the cheapest offer it gets, and whoever loses a slot goes on proposing. This is deferred acceptance (Gale and Shapley)
// with members that take several slots. Both sides judge by the same costs, so there is only one stable outcome, and it
// does not matter who proposes, nor in which order.
type market struct {
	*Ring
	total   uint64 // weight
	budget  uint64 // what members may spend on a slot at present; see within
	caps    []int
	loads   []int    // slots held
	next    []uint32 // rank of the next slot to propose to
	best    []offer  // by slot: the cheapest offer so far
	since   []uint8  // by slot: the round of that offer
	round   uint8    // the budget rises with every round
	vacant  int      // slots without an offer
	waiting []int    // members that may go on proposing
}

// assign fills in r.owners.
func (r *Ring) assign() {
	m := market{
		Ring:   r,
		total:  totalWeight(r.members),
		caps:   capacities(r.members, r.slots(), r.balance),
		loads:  make([]int, len(r.members)),
		next:   make([]uint32, len(r.members)),
		best:   make([]offer, r.slots()),
		since:  make([]uint8, r.slots()),
		vacant: r.slots(),
	}
	// Raise the budget until all slots are taken. Once they are, any proposal not made yet costs more than the budget and
	// any offer accepted costs at most that: nothing can change any more. Most slots go early, so some 15 proposals per
	// slot are all that is made, whatever the number of members.
	for m.budget = budgetUnit / 4; m.vacant > 0; m.budget += min(m.budget/4, math.MaxUint64-m.budget) {
		m.round++ // some 60 rounds exhaust any budget
		for i := range m.members {
			m.waiting = append(m.waiting, i)
		}
		for len(m.waiting) > 0 {
			last := len(m.waiting) - 1
			i := m.waiting[last]
			m.waiting = m.waiting[:last]
			m.propose(i)
		}
	}
	r.owners = make([]uint16, r.slots())
	for i, o := range m.best {
		r.owners[i] = uint16(o.member)
	}
}

// propose lets a member propose to slots until it has as many as it may or none it can afford is left.
func (m *market) propose(member int) {
	if m.loads[member] >= m.caps[member] {
		return
	}
	ranking := &m.rankings[member]
	limit := m.within(m.budget, m.total, m.members[member].Weight)
	for m.next[member] < limit && m.loads[member] < m.caps[member] {
		o := offer{m.next[member], uint32(member)}
		m.next[member]++
		slot := ranking.slot(o.rank, m.bits)
		// An offer of an earlier round was within the budget of that round, and this one is not: who stopped short of the
		// budget because it was full has lost no slot since, as only offers of the same round are outbid.
		switch m.since[slot] {
		case 0:
			m.vacant--
		case m.round:
			held := m.best[slot]
			if !m.cheaper(slot, o, held) {
				continue
			}
			if m.loads[held.member] == m.caps[held.member] {
				m.waiting = append(m.waiting, int(held.member))
			}
			m.loads[held.member]--
		default:
			continue
		}
		m.best[slot], m.since[slot] = o, m.round
		m.loads[member]++
	}
}

// within returns how many slots a member can afford: of its ranks, those with cost * total <= budget * weight, total being
// the weight of all members. See budgetUnit.
func (r *Ring) within(budget, total uint64, weight uint32) uint32 {
	if budget == math.MaxUint64 {
		return uint32(r.slots())
	}
	return uint32(sort.Search(r.slots(), func(rank int) bool {
		return compareProducts(r.costs.at(uint32(rank), r.bits), total, budget, uint64(weight)) > 0
	}))
}

// offer returns what a slot costs a member.
func (r *Ring) offer(slot uint32, member int) offer {
	return offer{r.rankings[member].rank(slot, r.bits), uint32(member)}
}

// cheaper reports whether a slot prefers offer a to offer b of another member.
func (r *Ring) cheaper(slot uint32, a, b offer) bool {
	weightA, weightB := r.members[a.member].Weight, r.members[b.member].Weight
	if weightA == weightB {
		if a.rank != b.rank {
			return a.rank < b.rank
		}
	} else {
		costA, costB := r.costs.at(a.rank, r.bits), r.costs.at(b.rank, r.bits)
		if c := compareProducts(costA, uint64(weightB), costB, uint64(weightA)); c != 0 {
			return c < 0
		}
	}
	tieA, tieB := r.rankings[a.member].tie(slot), r.rankings[b.member].tie(slot)
	return tieA < tieB || tieA == tieB && a.member < b.member
}
