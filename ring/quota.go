// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"container/heap"
	"math/bits"
)

// totalWeight cannot overflow: there are at most 2^16 members of weights below 2^32.
func totalWeight(members []Member) uint64 {
	var sum uint64
	for _, m := range members {
		sum += uint64(m.Weight)
	}
	return sum
}

// capacities returns how many slots each member may own: its fair share of them plus balance millionths, rounded down,
// but at least the fair share rounded up. The latter makes their sum at least slots whatever the weights are.
func capacities(members []Member, slots int, balance uint32) []int {
	total := totalWeight(members)
	caps := make([]int, len(members))
	for i, m := range members {
		share := uint64(slots) * uint64(m.Weight) // below 2^54; the share is this divided by total
		high, low := bits.Mul64(share, million+uint64(balance))
		loose, _ := bits.Div64(high, low, million)
		caps[i] = int(max((share+total-1)/total, loose/total))
	}
	return caps
}

// quotas divides slots among members by the method of Sainte-Laguë (Webster): slot after slot goes to the member with
// the largest weight / (2*quota + 1), the first by name among equals. Unlike methods of largest remainders it is
// monotone: a member's quota never grows because another one joins or becomes heavier.
func quotas(members []Member, slots int) []int {
	total := totalWeight(members)
	q := seats{members: members, quota: make([]int, len(members))}
	sum := 0
	for i, m := range members {
		// Rounding the fair share is right but for a few slots in all.
		q.quota[i] = int((2*uint64(slots)*uint64(m.Weight) + total) / (2 * total))
		sum += q.quota[i]
		if m.Weight > 0 {
			q.order = append(q.order, i)
		}
	}
	step := 1
	if sum > slots {
		step = -1
	}
	q.taking = step < 0
	heap.Init(&q)
	for ; sum != slots; sum += step {
		q.quota[q.order[0]] += step
		heap.Fix(&q, 0)
	}
	return q.quota
}

// seats is a heap of members: first the one that is next to get a slot or, when taking, the one to lose its last one.
type seats struct {
	members []Member
	quota   []int
	order   []int
	taking  bool
}

func (s *seats) Len() int      { return len(s.order) }
func (s *seats) Swap(i, j int) { s.order[i], s.order[j] = s.order[j], s.order[i] }
func (s *seats) Push(any)      { panic("unreachable") }
func (s *seats) Pop() any      { panic("unreachable") }

func (s *seats) Less(i, j int) bool {
	a, b := s.order[i], s.order[j]
	if s.taking {
		// Who has nothing has nothing to lose.
		if s.quota[a] == 0 || s.quota[b] == 0 {
			return s.quota[b] == 0 && s.quota[a] > 0
		}
		return s.claims(b, 2*s.quota[b]-1, a, 2*s.quota[a]-1)
	}
	return s.claims(a, 2*s.quota[a]+1, b, 2*s.quota[b]+1)
}

// claims reports whether weight a / divisorA comes before weight b / divisorB.
func (s *seats) claims(a, divisorA, b, divisorB int) bool {
	left := uint64(s.members[a].Weight) * uint64(divisorB)
	right := uint64(s.members[b].Weight) * uint64(divisorA)
	return left > right || left == right && a < b
}
