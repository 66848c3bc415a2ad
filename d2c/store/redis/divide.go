// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"

	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/streamid"
)

var errUnit = errors.New("a unit has streams of several groups")

// divide makes calls of the swaps.
func (st *Store) divide(swaps []store.Swap) (calls []*call, err error) {
	st.arrange(len(swaps), func(i int) streamid.ID { return swaps[i].ID })
	st.makeValues(swaps)
	st.recall(swaps)
	for i := 1; i < len(swaps); i++ {
		if swaps[i].Unit != 0 && swaps[i].Unit == swaps[i-1].Unit && st.groups[i] != st.groups[i-1] {
			return nil, errUnit
		}
	}
	calls = make([]*call, 0, len(swaps)/maxSwaps+1)
	st.eachGroup(st.order, func(group int, order []int32) { calls = st.chop(swaps, calls, group, order) })
	return calls, nil
}

// arrange fills st.groups and st.fields with the groups of n streams and with what their records are called in there, and st.order with
// their numbers, those of a group together and otherwise as they were.
func (st *Store) arrange(n int, id func(i int) streamid.ID) {
	st.args = st.args[:0]
	st.text, st.fields, st.groups, st.order = st.text[:0], grown(st.fields, n), grown(st.groups, n), grown(st.order, n)
	groups := st.server.groups()
	var ends [slotGroups]int
	for i := range n {
		st.text, _ = id(i).AppendBinary(st.text)
		g := store.Group(id(i), groups)
		st.groups[i] = uint8(g)
		ends[g]++
	}
	text, size := string(st.text), len(st.text)/n
	at := 0
	for g, n := range ends {
		ends[g] = at
		at += n
	}
	for i := range n {
		st.fields[i] = text[i*size : (i+1)*size]
		g := st.groups[i]
		st.order[ends[g]] = int32(i)
		ends[g]++
	}
}

// eachGroup calls f for the numbers of the streams in order that are of one group, which is what can be lost as a whole.
func (st *Store) eachGroup(order []int32, f func(group int, order []int32)) {
	for from := 0; from < len(order); {
		to := from + 1
		for to < len(order) && st.groups[order[to]] == st.groups[order[from]] {
			to++
		}
		f(int(st.groups[order[from]]), order[from:to])
		from = to
	}
}

// makeValues fills st.blobs with what is to be stored.
func (st *Store) makeValues(swaps []store.Swap) {
	st.values, st.blobs = st.values[:0], grown(st.blobs, len(swaps))
	for i := range swaps {
		if swaps[i].Record != nil {
			st.values = binary.LittleEndian.AppendUint64(st.values, swaps[i].Tag)
			st.values = append(st.values, swaps[i].Record...)
		}
	}
	values := st.values
	for i := range swaps {
		if swaps[i].Record != nil {
			length := tagSize + len(swaps[i].Record)
			st.blobs[i], values = values[:length:length], values[length:]
		}
	}
}

// chop appends calls for the swaps in order, which are of one group. A call knows one life and does not cut a unit.
func (st *Store) chop(swaps []store.Swap, calls []*call, group int, order []int32) []*call {
	for from := 0; from < len(order); {
		to := from
		for to < len(order) {
			end := to + 1
			for unit := swaps[order[to]].Unit; unit != 0 && end < len(order) && swaps[order[end]].Unit == unit; {
				end++
			}
			if to > from && (end-from > maxSwaps || swaps[order[to]].Life != swaps[order[from]].Life) {
				break
			}
			if !oneLife(swaps, order[to:end]) {
				// One of the lives is wrong, so the unit will not be done, and each needs no more than to be compared.
				for ; to < end; to++ {
					if to > from {
						calls = append(calls, st.call(swaps, group, order[from:to], false))
					}
					calls = append(calls, st.call(swaps, group, order[to:to+1], true))
					from = to + 1
				}
				continue
			}
			to = end
		}
		if to > from {
			calls = append(calls, st.call(swaps, group, order[from:to], false))
		}
		from = to
	}
	return calls
}

func oneLife(swaps []store.Swap, order []int32) bool {
	for _, i := range order[1:] {
		if swaps[i].Life != swaps[order[0]].Life {
			return false
		}
	}
	return true
}

// call makes one call for the swaps in order. compare leaves out the records.
func (st *Store) call(swaps []store.Swap, group int, order []int32, compare bool) *call {
	n := len(order)
	bases, life, continues := make(blob, 0, tagSize*n), make(blob, 0, tagSize), make(blob, n)
	begins, larger := false, false
	for at, i := range order {
		bases = binary.LittleEndian.AppendUint64(bases, swaps[i].Base)
		begins = begins || swaps[i].Base == 0
		if at > 0 && swaps[i].Unit != 0 && swaps[i].Unit == swaps[order[at-1]].Unit {
			continues[at], larger = 1, true
		}
	}
	if !larger {
		continues = nil
	}
	life = binary.LittleEndian.AppendUint64(life, swaps[order[0]].Life)
	c := &call{script: swapScript, key: st.keys[group].records, group: group, swaps: order}
	// Where the client looks for the slot there must be a string. The rest are pointers, because a string in an interface is an
	// allocation.
	c.args = append(st.room(13+2*n), nil, nil, 2, c.key, &st.keys[group].life, &st.ttl, &life, &bases, &continues)
	c.args = st.appendVersions(c.args, swaps, group, order, compare)
	for _, i := range order {
		if compare {
			c.args = append(c.args, &st.fields[i], "")
		} else {
			c.args = append(c.args, &st.fields[i], &st.blobs[i])
		}
	}
	if begins {
		st.lookBehind(c)
	}
	return c
}

// appendVersions appends the version at which the last Read has found what all these swaps are based on, and the next version of the
// group. The call that comes after this one finds that, if nobody comes between them.
func (st *Store) appendVersions(args []any, swaps []store.Swap, group int, order []int32, compare bool) []any {
	const tooMany = 3000 // for one command of a script
	known := st.versions[group]
	for _, i := range order {
		if compare || len(order) > tooMany || !st.sure[i] || swaps[i].Record == nil {
			known = ""
			break
		}
	}
	next := string(binary.LittleEndian.AppendUint64(nil, rand.Uint64()))
	if st.versions[group] = known; known != "" {
		st.versions[group] = next
	}
	return append(args, known, next)
}

// recall fills st.sure with what swaps are based on what the last Read has told, which had their streams in the same order.
func (st *Store) recall(swaps []store.Swap) {
	clear(st.sure)
	st.sure = grown(st.sure, len(swaps))
	told := st.told
	for i := range swaps {
		for len(told) > 0 && told[0].id != swaps[i].ID {
			told = told[1:]
		}
		st.sure[i] = len(told) > 0 && told[0].tag == swaps[i].Base && swaps[i].Base != 0
	}
	st.told = st.told[:0]
}

// room returns room for n arguments of a call.
func (st *Store) room(n int) []any {
	if cap(st.args)-len(st.args) < n {
		st.args = make([]any, 0, max(n, 2*cap(st.args)))
	}
	from := len(st.args)
	st.args = st.args[:from+n]
	return st.args[from:from:len(st.args)]
}

// lookBehind gives a call the key of older records as well.
func (st *Store) lookBehind(c *call) {
	c.behind = true
	c.args[2] = 3
	c.args = slices.Insert(c.args, 5, any(&st.keys[c.group].older))
}

// gets makes calls that read the records of the streams in order, newer or older ones.
func (st *Store) gets(order []int32, older bool) (calls []*call) {
	st.eachGroup(order, func(group int, order []int32) {
		key := st.keys[group].records
		if older {
			key = st.keys[group].older
		}
		for some := range slices.Chunk(order, maxGets) {
			c := &call{key: key, group: group, swaps: some, args: append(st.room(3+len(some)), "hmget", key)}
			for _, i := range some {
				c.args = append(c.args, &st.fields[i])
			}
			c.args = append(c.args, "version")
			calls = append(calls, c)
		}
	})
	return calls
}
