// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
)

const (
	maxMembers = math.MaxUint16 + 1 // the table has two bytes per slot
	maxText    = math.MaxUint16     // bytes of a name or zone; the binary form has two bytes for the length
)

// Member is a member of the fleet, among which the slots are distributed.
type Member struct {
	// Name identifies the member permanently: it decides which slots the member owns. A worker that comes back under its old
	// name gets its old slots back, whatever its address.
	Name string
	// Weight is the member's share of the slots relative to the others'. A member of weight 0 is draining: it is listed, but
	// owns no slots and is no standby. There is no default; see Equal for the usual case.
	Weight uint32
	// Zone is the failure domain across which Owners spreads standbys. Members without a zone share the zone "". Owner
	// ignores it.
	Zone string
}

// Equal returns members with the given names, weight 1 and no zones.
func Equal(names ...string) []Member {
	members := make([]Member, len(names))
	for i, name := range names {
		members[i] = Member{Name: name, Weight: 1}
	}
	return members
}

// sorted returns a copy of members ordered by name, or says what is wrong with them.
func sorted(members []Member, slots int) ([]Member, error) {
	if len(members) == 0 {
		return nil, errors.New("ring: no members")
	}
	if len(members) > maxMembers {
		return nil, fmt.Errorf("ring: %d members, at most %d are possible", len(members), maxMembers)
	}
	for i, m := range members {
		switch {
		case m.Name == "":
			return nil, fmt.Errorf("ring: member %d of %d has no name", i+1, len(members))
		case len(m.Name) > maxText:
			return nil, fmt.Errorf("ring: member %.40q...: name has %d bytes, at most %d are possible", m.Name, len(m.Name), maxText)
		case len(m.Zone) > maxText:
			return nil, fmt.Errorf("ring: member %.40q: zone has %d bytes, at most %d are possible", m.Name, len(m.Zone), maxText)
		}
	}
	members = slices.Clone(members)
	slices.SortFunc(members, func(a, b Member) int { return cmp.Compare(a.Name, b.Name) })
	owners := 0
	for i, m := range members {
		if i > 0 && members[i-1].Name == m.Name {
			return nil, fmt.Errorf("ring: member %.40q is listed twice", m.Name)
		}
		if m.Weight > 0 {
			owners++
		}
	}
	if owners == 0 {
		return nil, fmt.Errorf("ring: total weight is zero: all members are draining, member %.40q first", members[0].Name)
	}
	if owners > slots {
		return nil, fmt.Errorf("ring: %d members for %d slots", owners, slots)
	}
	return members, nil
}
