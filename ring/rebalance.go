// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ring

// Rebalance returns the ring to use after prev: every member owns exactly its quota (Sainte-Laguë), and no more slots move
// than that requires. It is for a coordinator that hands out tables: the result depends on prev, and so on the whole
// history, and two routers with different histories disagree. Routers without a coordinator should use New. Slots and
// balance are those of prev. Invalid members are reported as by New.
//
// New is less exact than Rebalance, so Rebalance moves slots even if the members are the same but prev was made by New. A
// coordinator begins with New, calls Rebalance with the same members, and goes on from there.
func Rebalance(prev *Ring, members []Member) (*Ring, error) {
	members, err := sorted(members, prev.slots())
	if err != nil {
		return nil, err
	}
	r := prepare(prev.config, members)
	r.owners = make([]uint16, len(prev.owners))

	// A slot may change hands if its owner is gone or has more than its quota. There are exactly as many slots too many
	// as there are missing elsewhere, and no slot moves but from the former to the latter.
	missing := quotas(members, r.slots())
	vacant := make([]bool, len(prev.owners))
	inNew := match(prev.members, members)
	for slot, o := range prev.owners {
		i := inNew[o]
		if i < 0 {
			vacant[slot] = true
			continue
		}
		r.owners[slot] = uint16(i)
		missing[i]--
	}
	// Takers look at the slots in the order in which they rank them, in turns, and take what they can. At first they
	// leave out slots that prefer the owner they have, and so take what New would give them, as far as that can be had.
	// One that has looked at all slots has what it misses: a slot that is to be had now could be had when it looked.
	const fond = 8 * budgetUnit // all but 2^-8 of the slots have a member that fond of them
	total := totalWeight(members)
	limits := make([]uint32, len(members))
	for i, m := range members {
		limits[i] = min(r.within(fond, total, m.Weight), uint32(r.slots()-1))
	}
	for _, choosy := range []bool{true, false} {
		var takers []int
		for i, n := range missing {
			if n > 0 {
				takers = append(takers, i)
			}
		}
		for rank := uint32(0); len(takers) > 0; rank++ {
			left := takers[:0]
			for _, i := range takers {
				slot := r.rankings[i].slot(rank, r.bits)
				owner := r.owners[slot]
				o := offer{rank, uint32(i)}
				if vacant[slot] || missing[owner] < 0 && (!choosy || r.cheaper(slot, o, r.offer(slot, int(owner)))) {
					if !vacant[slot] {
						missing[owner]++
					}
					vacant[slot] = false
					r.owners[slot] = uint16(i)
					missing[i]--
				}
				if missing[i] > 0 && !(choosy && rank >= limits[i]) {
					left = append(left, i)
				}
			}
			takers = left
		}
	}
	r.seal()
	return r, nil
}

// match returns for each of the members from the index of the member of the same name in to, or -1. Both are in order of
// names.
func match(from, to []Member) []int {
	index := make([]int, len(from))
	j := 0
	for i, m := range from {
		for j < len(to) && to[j].Name < m.Name {
			j++
		}
		index[i] = -1
		if j < len(to) && to[j].Name == m.Name {
			index[i] = j
		}
	}
	return index
}
