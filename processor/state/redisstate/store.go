// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redisstate

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/streamid"
)

// A record is a string under the key
//
//	<prefix>:{<tag of the slot group>}:<processor>:<version><identity, 16 bytes>
//
// A prefix has no brace, and what follows the processor has a fixed length, so no two prefixes and no two processors have a
// key in common. The version is that of this layout and of the encoding of identities, not that of records: workers of two
// releases must see each other's. Each byte is paid for with each stream, most of all the first above 30, which is what a
// key has if neither prefix nor processor has a name of its own: servers allocate in steps of 16.
//
// All other keys have an underscore where a processor's name has a letter:
//
//	<prefix>:{<tag>}:_damaged:<processor>:<version>:<identity in hexadecimal>:<random>
//	<prefix>:{<tag>}:_probe:<version><identity>
const layoutVersion = "1"

// The slot groups. Streams are divided by their first bits among as many hash slots as this, and what goes to one slot goes in
// one call: more would make more and smaller calls of a batch, fewer would divide badly among the nodes of a Cluster. Group
// i lies within 20 of the middle of the i-th part of all slots, so that nodes with as many slots have as many streams.
const (
	groupBits = 6
	groups    = 1 << groupBits
	groupTags = "mm6q9ie82921apax0jkvdndf3go6gcxw8gd6lc02g34con4r99911dm5fmyy2iiu" +
		"7ak0ce8y4lopx9x1jf1zzjb3ik2wygfsbk9w6omsafan5bi3c5dpkh0txixahe44"
)

func groupTag(group int) string { return groupTags[2*group : 2*group+2] }

func groupOf(id streamid.ID) int { return int(id.Hi >> (64 - groupBits)) }

const (
	// maxOps bounds the ops of a call, during which the server does nothing else: a millisecond at most. The server also
	// begins with the first call of a batch while the others are on their way.
	maxOps = 250
	// asideTTL is how long a value that was set aside is kept.
	asideTTL = 30 * 24 * time.Hour
	tagSize  = 8
)

// store keeps the records of one processor. It is for one goroutine at a time.
type store struct {
	server *server
	tel    *storeTelemetry // nil for probes
	name   string          // of the processor
	prefix string
	expiry expiry
	// failing is told of errors, if not nil. It has room for one.
	failing chan<- struct{}

	// Working memory of Swap.
	text  []byte
	keys  []string
	order []int32
}

// blob is bytes as an argument, without the allocation that bytes in an interface cost.
type blob []byte

// MarshalBinary implements encoding.BinaryMarshaler.
func (b *blob) MarshalBinary() ([]byte, error) { return *b, nil }

func newStore(s *server, tel *storeTelemetry, cfg *Config, name string) *store {
	return &store{server: s, tel: tel, name: name, prefix: cfg.Prefix, expiry: newExpiry(cfg.RecordTTL, cfg.Timeout)}
}

func (st *store) appendKey(b []byte, id streamid.ID) []byte {
	b = append(b, st.prefix...)
	b = append(b, ":{"...)
	b = append(b, groupTag(groupOf(id))...)
	b = append(b, "}:"...)
	b = append(b, st.name...)
	b = append(b, ":"+layoutVersion...)
	b, _ = id.AppendBinary(b)
	return b
}

func (st *store) asideKey(id streamid.ID) string {
	return fmt.Sprintf("%s:{%s}:_damaged:%s:%s:%v:%016x",
		st.prefix, groupTag(groupOf(id)), st.name, layoutVersion, id, rand.Uint64())
}

// Swap implements d2c.SharedStore. What it sends may arrive twice: the second time it finds its own record there and
// answers with it, by the tag of which d2c knows that it was done.
func (st *store) Swap(ctx context.Context, ops []d2c.SwapOp) error {
	if len(ops) == 0 {
		return nil
	}
	started := time.Now()
	st.expiry.begin(started)
	for i := range ops {
		ops[i].Swapped, ops[i].Current = false, nil
	}
	calls := st.divide(ops)
	done, retries, err := st.server.run(ctx, calls, func(c *call) []*call { return st.split(ops, c) })
	for _, c := range done {
		if err == nil {
			err = st.swapped(ops, c)
		}
	}
	for _, c := range calls {
		clear(c.args) // they have records
	}
	if err != nil {
		err = st.failed("swap", err)
	}
	if st.tel != nil {
		st.tel.swapped(ctx, ops, time.Since(started), retries, err)
	}
	return err
}

// divide makes calls of the ops.
func (st *store) divide(ops []d2c.SwapOp) []*call {
	st.text, st.keys, st.order = st.text[:0], st.keys[:0], st.order[:0]
	for i := range ops {
		st.text = st.appendKey(st.text, ops[i].ID)
	}
	text, size := string(st.text), len(st.text)/len(ops)
	for i := range ops {
		st.keys = append(st.keys, text[i*size:(i+1)*size])
	}
	var calls []*call
	if st.server.cluster == nil {
		for i := range ops {
			st.order = append(st.order, int32(i))
		}
		calls = make([]*call, 0, (len(ops)+maxOps-1)/maxOps)
		return st.chop(ops, calls, st.order)
	}
	var ends [groups]int
	for i := range ops {
		ends[groupOf(ops[i].ID)]++
	}
	at := 0
	for g, n := range ends {
		ends[g] = at
		at += n
	}
	st.order = append(st.order, make([]int32, len(ops))...)
	for i := range ops {
		g := groupOf(ops[i].ID)
		st.order[ends[g]] = int32(i)
		ends[g]++
	}
	from := 0
	for _, end := range ends {
		calls = st.chop(ops, calls, st.order[from:end])
		from = end
	}
	return calls
}

// chop appends calls for the ops in order, which can be in one.
func (st *store) chop(ops []d2c.SwapOp, calls []*call, order []int32) []*call {
	for len(order) > 0 {
		n := min(len(order), maxOps)
		calls = append(calls, st.call(ops, order[:n:n]))
		order = order[n:]
	}
	return calls
}

// call makes one call for the ops in order, which it puts in another: first those whose expiry begins anew. A record that is
// not known to be there has none to keep.
func (st *store) call(ops []d2c.SwapOp, order []int32) *call {
	anew := 0
	for at, i := range order {
		if op := &ops[i]; op.Base == 0 || op.Record == nil || !st.expiry.has(op.ID) {
			order[at], order[anew] = order[anew], i
			anew++
		}
	}
	c := &call{script: swapScript, key: st.keys[order[0]], ops: order, anew: anew}
	c.args = append(make([]any, 0, 6+2*len(order)), nil, nil, len(order))
	bases := make(blob, 0, tagSize*len(order))
	for _, i := range order {
		c.args = append(c.args, &st.keys[i]) // a pointer, because a string in an interface is an allocation
		bases = binary.LittleEndian.AppendUint64(bases, ops[i].Base)
	}
	c.args[3] = c.key // where the client looks for the slot
	c.args = append(c.args, &st.expiry.ttl, anew, &bases)
	for _, i := range order {
		c.args = append(c.args, (*blob)(&ops[i].Record))
	}
	return c
}

// split makes a call for each op of c.
func (st *store) split(ops []d2c.SwapOp, c *call) []*call {
	calls := make([]*call, len(c.ops))
	for i := range c.ops {
		single := st.call(ops, c.ops[i:i+1])
		single.apart, single.whole = true, c.whole
		calls[i] = single
	}
	return calls
}

var errAnswer = errors.New("the script's answer makes no sense; is this Redis?")

// swapped makes of the answer what it means for the ops.
func (st *store) swapped(ops []d2c.SwapOp, c *call) error {
	pairs, ok := c.answer.([]any)
	if !ok || len(pairs)%2 != 0 {
		return errAnswer
	}
	for _, i := range c.ops {
		ops[i].Swapped = true
	}
	for ; len(pairs) > 0; pairs = pairs[2:] {
		n, ok := pairs[0].(int64)
		if !ok || n < 1 || n > int64(len(c.ops)) {
			return errAnswer
		}
		op := &ops[c.ops[n-1]]
		op.Swapped = false
		switch current := pairs[1].(type) {
		case nil:
		case string:
			op.Current = []byte(current)
		default:
			return errAnswer
		}
	}
	for _, i := range c.ops[:c.anew] {
		if op := &ops[i]; op.Swapped && (op.Record != nil || op.Base != 0) {
			st.expiry.add(op.ID)
		}
	}
	return nil
}

// SetAside implements d2c.SharedStore: the value is kept under another key for 30 days.
func (st *store) SetAside(ctx context.Context, id streamid.ID, value []byte) error {
	key := string(st.appendKey(nil, id))
	for {
		ttl := asideTTL.Milliseconds()
		c := &call{script: asideScript, key: key, args: []any{nil, nil, 2, key, st.asideKey(id), value, ttl}}
		_, _, err := st.server.run(ctx, []*call{c}, nil)
		if err != nil {
			return st.failed("set aside", err)
		}
		switch c.answer {
		case int64(1):
			if st.tel != nil {
				st.tel.setAside(ctx)
			}
			return nil
		case int64(0):
			return nil
		case int64(-1): // there is such a key
		default:
			return st.failed("set aside", errAnswer)
		}
	}
}

// failed returns the error to return, and has somebody look.
func (st *store) failed(doing string, err error) error {
	select {
	case st.failing <- struct{}{}:
	default:
	}
	return st.server.explain(doing, err)
}
