// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/deltaring/deltaring/ring"
)

// fleetsOf returns the members that run after each phase. Old members stop and new ones start in the order of the list; each
// new member has the weight and the zone of the old one it replaces. What differs is its name:
//
// If names are kept, a new member takes the name that has been free for longest. With a surge none may be free; then it
// takes a spare one, and the names of the fleet are not the same in the end. If names are changed, as the pods of a
// Deployment and the tasks of ECS change theirs, every new member has a new one.
func fleetsOf(members []ring.Member, course []phase, keepNames bool) [][]ring.Member {
	taken := make(map[string]bool)
	for _, m := range members {
		taken[m.Name] = true
	}
	var free []string
	var renewed []ring.Member
	fleets := make([][]ring.Member, len(course))
	for i, p := range course {
		stopped := len(members) - p.Old
		for _, m := range members[stopped-p.Stopped : stopped] {
			free = append(free, m.Name)
		}
		for range p.Started {
			m := members[len(renewed)]
			switch {
			case !keepNames:
				m.Name = unused(m.Name+".new", taken)
			case len(free) > 0:
				m.Name, free = free[0], free[1:]
			default:
				m.Name = unused("spare", taken)
			}
			renewed = append(renewed, m)
		}
		fleets[i] = append(append(fleets[i], members[stopped:]...), renewed...)
	}
	return fleets
}

// unused returns name, with a number if it is taken, and takes it.
func unused(name string, taken map[string]bool) string {
	free := name
	for i := 2; taken[free]; i++ {
		free = fmt.Sprintf("%s-%d", name, i)
	}
	taken[free] = true
	return free
}
