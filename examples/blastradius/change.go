// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/deltaring/deltaring/ring"
)

// change is what a change of the fleet moves.
type change struct {
	From, To []ring.Member
	Least    float64    // the part of everything that must move between fleets in balance
	Slots    *ring.Plan // of deltaring, before any stream is hashed to a slot
	ByKey    [][]moved  // by routing key of the population, then by scheme
}

// moved is what a change moves by one routing key with one scheme, and how even the outcome is.
type moved struct {
	Streams, Points       int
	HotStreams, HotPoints hottest
}

// hottest is the member that has most of what it should have.
type hottest struct {
	Name  string
	Ratio float64 // what it has / its share by weight; with equal weights that is max / mean
}

func newChange(p *population, from, to []ring.Member) (*change, error) {
	c := &change{From: from, To: to, Least: leastMoved(from, to), ByKey: make([][]moved, len(p.ByKey))}
	before, err := ring.New(from)
	if err != nil {
		return nil, err
	}
	after, err := ring.New(to)
	if err != nil {
		return nil, err
	}
	c.Slots = ring.Diff(before, after)
	for i := range c.ByKey {
		c.ByKey[i] = make([]moved, len(schemes))
	}
	for s := range schemes {
		before, err := ownersOf(schemes[s], from)
		if err != nil {
			return nil, err
		}
		after, err := ownersOf(schemes[s], to)
		if err != nil {
			return nil, err
		}
		for k := range c.ByKey {
			c.ByKey[k][s] = compare(p.ByKey[k].Groups, before, after)
		}
	}
	return c, nil
}

// owners says by name who owns a key.
type owners struct {
	members []ring.Member // those that can own something
	owner   func(key uint64) int
}

func ownersOf(s scheme, members []ring.Member) (owners, error) {
	able := routable(members)
	owner, err := s.Build(able)
	if err != nil {
		return owners{}, fmt.Errorf("%s: %w", s.Name, err)
	}
	return owners{able, owner}, nil
}

func (o owners) name(key uint64) string { return o.members[o.owner(key)].Name }

func compare(groups []group, before, after owners) moved {
	var m moved
	streams, points := make([]int, len(after.members)), make([]int, len(after.members))
	for _, g := range groups {
		owner := after.owner(g.Key)
		streams[owner] += g.Streams
		points[owner] += g.Points
		if before.name(g.Key) != after.members[owner].Name {
			m.Streams += g.Streams
			m.Points += g.Points
		}
	}
	m.HotStreams, m.HotPoints = hottestOf(after.members, streams), hottestOf(after.members, points)
	return m
}

// hottestOf returns the first of those that have most of their share.
func hottestOf(members []ring.Member, loads []int) hottest {
	total := 0
	for _, load := range loads {
		total += load
	}
	part := shares(members)
	var hot hottest
	for i, load := range loads {
		if ratio := float64(load) / (float64(total) * part[members[i].Name]); ratio > hot.Ratio {
			hot = hottest{members[i].Name, ratio}
		}
	}
	return hot
}
