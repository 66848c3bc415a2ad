// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"

	goredis "github.com/redis/go-redis/v9"

	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/streamid"
)

var errUnit = errors.New("a unit has streams of several groups")

// divide makes calls of the swaps.
func (st *Store) divide(swaps []store.Swap) ([]*call, error) {
	n := len(swaps)
	id := func(i int) streamid.ID { return swaps[i].ID }
	st.makeKeys(n, id)
	st.values, st.sorted = st.values[:0], st.sorted[:0]
	st.blobs, st.order = grown(st.blobs, n), grown(st.order, n)
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
	if st.server.groups() > 1 {
		for i := 1; i < n; i++ {
			if swaps[i].Unit != 0 && swaps[i].Unit == swaps[i-1].Unit && slotGroup(swaps[i].ID) != slotGroup(swaps[i-1].ID) {
				return nil, errUnit
			}
		}
	}
	calls := make([]*call, 0, n/maxSwaps+1)
	st.arrange(id, func(group int, order []int32) {
		calls = st.chop(swaps, calls, group, order)
	})
	return calls, nil
}

// makeKeys fills st.keys with the keys of n streams.
func (st *Store) makeKeys(n int, id func(i int) streamid.ID) {
	st.text, st.keys = st.text[:0], grown(st.keys, n)
	for i := range n {
		st.text = st.appendKey(st.text, id(i))
	}
	text, size := string(st.text), len(st.text)/n
	for i := range n {
		st.keys[i] = text[i*size : (i+1)*size]
	}
}

// arrange fills st.order with the numbers of streams, those of a group together and otherwise as they were, and calls each for the numbers
// of one group, which is what can be lost as a whole.
func (st *Store) arrange(id func(i int) streamid.ID, each func(group int, order []int32)) {
	if st.server.groups() == 1 {
		for i := range st.order {
			st.order[i] = int32(i)
		}
		each(0, st.order)
		return
	}
	var ends [slotGroups]int
	for i := range st.order {
		ends[slotGroup(id(i))]++
	}
	at := 0
	for g, n := range ends {
		ends[g] = at
		at += n
	}
	for i := range st.order {
		g := slotGroup(id(i))
		st.order[ends[g]] = int32(i)
		ends[g]++
	}
	from := 0
	for g, end := range ends {
		if from < end {
			each(g, st.order[from:end])
		}
		from = end
	}
}

// gets makes calls that read the records of streams.
func (st *Store) gets(ids []streamid.ID) (calls []*call) {
	id := func(i int) streamid.ID { return ids[i] }
	st.makeKeys(len(ids), id)
	st.order = grown(st.order, len(ids))
	st.arrange(id, func(_ int, order []int32) {
		for some := range slices.Chunk(order, maxGets) {
			calls = append(calls, st.get(some))
		}
	})
	return calls
}

// get makes one call that reads the records of the streams in order.
func (st *Store) get(order []int32) *call {
	c := &call{key: st.keys[order[0]], swaps: order, args: append(make([]any, 0, 1+len(order)), "mget")}
	for _, i := range order {
		c.args = append(c.args, &st.keys[i])
	}
	c.args[1] = c.key // where the client looks for the slot
	return c
}

// chop appends calls for the swaps in order, which are of one group. A call knows one life and does not cut a unit.
func (st *Store) chop(swaps []store.Swap, calls []*call, group int, order []int32) []*call {
	life := st.lifeKey(group)
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
						calls = append(calls, st.call(swaps, order[from:to], life, false))
					}
					calls = append(calls, st.call(swaps, order[to:to+1], life, true))
					from = to + 1
				}
				continue
			}
			to = end
		}
		if to > from {
			calls = append(calls, st.call(swaps, order[from:to], life, false))
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

// What a byte says of a swap of a larger unit, see swapScript.
const (
	unitBegins    = 1
	expiresInUnit = 2
)

// call makes one call for the swaps in order. If lifeKey is empty it does not look at their life. compare leaves out the
// records.
func (st *Store) call(swaps []store.Swap, order []int32, lifeKey string, compare bool) *call {
	since := st.sincePeriod()
	single := func(at int) bool {
		unit := swaps[order[at]].Unit
		return unit == 0 || compare || (at == 0 || swaps[order[at-1]].Unit != unit) &&
			(at == len(order)-1 || swaps[order[at+1]].Unit != unit)
	}
	// First what begins anew, then other swaps of their own, then units. This is a new list: the swaps of a call that is split
	// are used again.
	begin := len(st.sorted)
	st.sorted = slices.Grow(st.sorted, len(order))
	anew := 0
	for at, i := range order {
		if single(at) && expiresAnew(&swaps[i], since) {
			st.sorted = append(st.sorted, i)
			anew++
		}
	}
	for at, i := range order {
		if single(at) && !expiresAnew(&swaps[i], since) {
			st.sorted = append(st.sorted, i)
		}
	}
	alone := len(st.sorted) - begin
	var units []byte
	for at, i := range order {
		if single(at) {
			continue
		}
		flags := byte(0)
		if len(units) == 0 || swaps[order[at-1]].Unit != swaps[i].Unit {
			flags = unitBegins
		}
		if expiresAnew(&swaps[i], since) {
			flags |= expiresInUnit
		}
		units = append(units, flags)
		st.sorted = append(st.sorted, i)
	}
	sorted := st.sorted[begin:len(st.sorted):len(st.sorted)]

	c := &call{script: swapScript, key: st.keys[sorted[0]], swaps: sorted, alone: alone, life: swaps[sorted[0]].Life}
	keys := len(sorted)
	c.args = append(make([]any, 0, 10+2*keys), nil, nil, nil)
	bases := make(blob, 0, tagSize*(keys+1))
	for _, i := range sorted {
		c.args = append(c.args, &st.keys[i]) // a pointer, because a string in an interface is an allocation
		bases = binary.LittleEndian.AppendUint64(bases, swaps[i].Base)
	}
	life := blob{}
	if lifeKey != "" {
		c.args = append(c.args, lifeKey)
		life = binary.LittleEndian.AppendUint64(life, c.life)
		keys++
	}
	c.args[2] = keys
	c.args[3] = c.key // where the client looks for the slot
	c.args = append(c.args, &st.ttl, anew, alone, &life, &bases, units)
	for _, i := range sorted {
		if compare {
			c.args = append(c.args, "")
			continue
		}
		c.args = append(c.args, &st.blobs[i])
	}
	return c
}

// split makes calls of one whose slot is being moved: to each key its own, because a server that has not all keys of a call does not
// do it. That leaves no place for the life, of which another key says what it is. So it is looked at before and, in swap, after: were
// the group to be lost in between, then what began a stream stays there, but the batch is refused.
//
// A unit cannot be divided. It waits for its keys to be on one side.
func (st *Store) split(ctx context.Context, swaps []store.Swap, c *call) ([]*call, error) {
	group := slotGroup(swaps[c.swaps[0]].ID)
	switch life, err := st.lifeOf(ctx, group); {
	case err != nil:
		return nil, err
	case life != c.life:
		c.answer, c.err = int64(0), nil
		return nil, st.swapped(c)
	}
	var calls []*call
	for at := 0; at < c.alone; at++ {
		calls = append(calls, st.call(swaps, c.swaps[at:at+1], "", c.compares()))
	}
	if len(calls) > 0 {
		if st.lost == nil {
			st.lost = map[int]uint64{}
		}
		st.lost[group] = c.life
	}
	for at := c.alone; at < len(c.swaps); {
		end := at + 1
		for end < len(c.swaps) && swaps[c.swaps[end]].Unit == swaps[c.swaps[at]].Unit {
			end++
		}
		calls = append(calls, st.call(swaps, c.swaps[at:end], st.lifeKey(group), false))
		at = end
	}
	for _, part := range calls {
		part.apart, part.whole = true, c.whole
	}
	return calls, nil
}

// compares reports whether the call was made without records, though swaps have one.
func (c *call) compares() bool {
	_, without := c.args[len(c.args)-1].(string)
	return without
}

// lifeOf returns the ID of the group's life, wherever that is at this moment; zero if it has none.
func (st *Store) lifeOf(ctx context.Context, group int) (uint64, error) {
	cmd := goredis.NewCmd(ctx, "get", st.lifeKey(group))
	if err := guarded(func() error { st.server.follow(ctx, cmd); return nil }); err != nil {
		return 0, err
	}
	answer, err := cmd.Result()
	if errors.Is(err, goredis.Nil) {
		return 0, nil
	}
	life, ok := parseLife(answer)
	if err == nil && !ok {
		err = errAnswer
	}
	return life.ID, err
}
