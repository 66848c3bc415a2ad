// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/deltaring/deltaring/ring"

// roll is what a rolling update moves.
type roll struct {
	Bounds rollout
	Course []phase
	Fleets [][]ring.Member
	Least  []float64 // by phase: the part of everything that must move
	ByKey  [][]rolled
}

// rolled is what a rolling update moves by one routing key with one scheme. Streams are moved when their owner's name
// changes. While there is no member at all they are not moved, but idle; they move if another owner comes after.
type rolled struct {
	Streams, Points []int // moved, by phase
	Once            int   // streams that moved once or more
	Twice           int   // of these, twice or more
	Back            int   // streams with the owner they began with in the end
	Idle            int   // phases without any member
}

// total returns the number of moves: a stream counts each time.
func total(moved []int) (sum int) {
	for _, n := range moved {
		sum += n
	}
	return sum
}

// peak returns the largest of the phases.
func peak(moved []int) (largest int) {
	for _, n := range moved {
		largest = max(largest, n)
	}
	return largest
}

func newRoll(p *population, members []ring.Member, bounds rollout, keepNames bool) (*roll, error) {
	r := &roll{Bounds: bounds, Course: bounds.phases()}
	r.Fleets = fleetsOf(members, r.Course, keepNames)
	last := members
	for _, fleet := range r.Fleets {
		least := 0.0
		if len(routable(fleet)) > 0 {
			least = leastMoved(last, fleet)
			last = fleet
		}
		r.Least = append(r.Least, least)
	}
	r.ByKey = make([][]rolled, len(p.ByKey))
	for k := range r.ByKey {
		r.ByKey[k] = make([]rolled, len(schemes))
	}
	for s := range schemes {
		if err := r.follow(p, s, members); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// follow fills in a scheme. Each fleet's owners are computed once, for all routing keys.
func (r *roll) follow(p *population, s int, members []ring.Member) error {
	first, err := ownersOf(schemes[s], members)
	if err != nil {
		return err
	}
	type journey struct {
		first, last string
		moves       int
	}
	journeys := make([][]journey, len(p.ByKey))
	for k := range journeys {
		journeys[k] = make([]journey, len(p.ByKey[k].Groups))
		for g := range journeys[k] {
			name := first.name(p.ByKey[k].Groups[g].Key)
			journeys[k][g] = journey{first: name, last: name}
		}
	}
	for _, fleet := range r.Fleets {
		idle := len(routable(fleet)) == 0
		var now owners
		if !idle {
			if now, err = ownersOf(schemes[s], fleet); err != nil {
				return err
			}
		}
		for k := range journeys {
			streams, points := 0, 0
			for g := range journeys[k] {
				if idle {
					break
				}
				j, group := &journeys[k][g], &p.ByKey[k].Groups[g]
				if name := now.name(group.Key); name != j.last {
					j.last = name
					j.moves++
					streams += group.Streams
					points += group.Points
				}
			}
			to := &r.ByKey[k][s]
			to.Streams, to.Points = append(to.Streams, streams), append(to.Points, points)
			if idle {
				to.Idle++
			}
		}
	}
	for k := range journeys {
		to := &r.ByKey[k][s]
		for g, j := range journeys[k] {
			n := p.ByKey[k].Groups[g].Streams
			if j.moves > 0 {
				to.Once += n
			}
			if j.moves > 1 {
				to.Twice += n
			}
			if j.first == j.last {
				to.Back += n
			}
		}
	}
	return nil
}
