// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redisstate

import (
	"math/bits"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/deltaring/deltaring/streamid"
)

// expiry says how long records are kept, and of which the server need not be told again: that is a quarter of what a change
// costs it, and most streams change far more often than it matters. The first change in each period sets the expiry, and so
// late that what changes at the end of the period is still kept for the time to live. Nobody else makes it earlier, as long as
// all have the same time to live.
//
// The streams of the period are in a Bloom filter, 64 bits for each four, in 2 to 4 bytes for each where they are many. Less than
// 1 in 100 seem to be in there and are not: they lose a period of their time, and in the next it is others.
type expiry struct {
	ttl    string        // in milliseconds; nothing is for ever
	period time.Duration // zero if nothing is remembered

	ends  time.Time // of the period
	seed  uint64    // says where in the words a stream is
	n     int       // how many the words have
	words []uint64
}

const (
	periods     = 16        // of a time to live
	foreverTold = time.Hour // the period where there is none: others may have set one

	wordStreams = 4 // that a word has room for
	fewestWords = 1 << 10
	mostWords   = 1 << 22
)

// newExpiry keeps records for ttl at least, zero is for ever. A change reaches a server within timeout.
func newExpiry(ttl, timeout time.Duration) expiry {
	if ttl == 0 {
		return expiry{period: foreverTold}
	}
	e := expiry{period: ttl / periods}
	if e.period < timeout {
		e.period = 0
	}
	e.ttl = strconv.FormatInt((ttl + 2*e.period).Milliseconds(), 10)
	return e
}

// begin is called before has and add: they are about the period in which now is.
func (e *expiry) begin(now time.Time) {
	if e.period > 0 && !now.Before(e.ends) {
		e.ends = now.Add(e.period)
		e.forget(max(len(e.words), fewestWords))
	}
}

// forget makes room for more streams, none of which it has.
func (e *expiry) forget(words int) {
	if words > len(e.words) {
		e.words = make([]uint64, words)
	} else {
		clear(e.words)
	}
	e.n, e.seed = 0, rand.Uint64()
}

// place returns the word of a stream, and which bits of it are the stream's.
func (e *expiry) place(id streamid.ID) (word *uint64, mask uint64) {
	hi, lo := bits.Mul64(id.Hi^e.seed, id.Lo^0x9e3779b97f4a7c15)
	h := hi ^ lo
	return &e.words[h>>32%uint64(len(e.words))], 1<<(h&63) | 1<<(h>>6&63) | 1<<(h>>12&63) | 1<<(h>>18&63)
}

// has reports whether the server was told of the stream in this period.
func (e *expiry) has(id streamid.ID) bool {
	if e.period == 0 {
		return false
	}
	word, mask := e.place(id)
	return *word&mask == mask
}

// add remembers that the server was told of the stream after the last begin.
func (e *expiry) add(id streamid.ID) {
	if e.period == 0 || e.has(id) {
		return
	}
	if e.n == wordStreams*len(e.words) {
		e.forget(min(2*len(e.words), mostWords))
	}
	e.n++
	word, mask := e.place(id)
	*word |= mask
}
