// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redisstate

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/deltaring/deltaring/streamid"
)

func randomIDs(n int) []streamid.ID {
	ids := make([]streamid.ID, n)
	for i := range ids {
		ids[i] = streamid.ID{Hi: rand.Uint64(), Lo: rand.Uint64()}
	}
	return ids
}

func TestNewExpiry(t *testing.T) {
	const timeout = 5 * time.Second
	for _, c := range []struct {
		ttl, period time.Duration
		want        string
	}{
		{0, time.Hour, ""},
		{24 * time.Hour, 90 * time.Minute, "97200000"},
		{80 * time.Second, timeout, "90000"},
		{79 * time.Second, 0, "79000"}, // a change that takes as long as it may could outlast it
		{time.Millisecond, 0, "1"},
	} {
		if e := newExpiry(c.ttl, timeout); e.period != c.period || e.ttl != c.want {
			t.Errorf("%v: %q ms in periods of %v, want %q and %v", c.ttl, e.ttl, e.period, c.want, c.period)
		}
	}
}

// However many streams there are, it has nearly all that were added since it was last full, and none of before the period.
func TestExpiryRemembersForAPeriod(t *testing.T) {
	e := newExpiry(time.Hour, time.Second)
	now := time.Now()
	e.begin(now)
	full := wordStreams * fewestWords
	ids := randomIDs(4 * full)
	for _, id := range ids[:full] {
		e.add(id)
	}
	e.begin(now.Add(e.period - 1))
	for i, id := range ids[:full] {
		if !e.has(id) {
			t.Fatalf("stream %d is forgotten within the period", i)
		}
	}
	for range 3 { // at first it has not room enough, and what it has takes none
		for _, id := range ids {
			e.add(id)
		}
	}
	for i, id := range ids {
		if !e.has(id) {
			t.Fatalf("stream %d is forgotten, though there is room for %d", i, wordStreams*len(e.words))
		}
	}
	if got := len(e.words); got > 2*4*fewestWords {
		t.Errorf("%d words for %d streams", got, len(ids))
	}
	room := len(e.words)
	e.begin(now.Add(e.period))
	for i, id := range ids {
		if e.has(id) {
			t.Fatalf("stream %d is remembered in the next period", i)
		}
	}
	if len(e.words) != room {
		t.Errorf("the next period begins with %d words, want %d", len(e.words), room)
	}
}

// What seems to have been added and was not loses a period, so these must be few, and not the same ones again. That holds for
// identities that differ little as well.
func TestExpiryErrsSeldom(t *testing.T) {
	const n = wordStreams * fewestWords
	added, others := randomIDs(n), randomIDs(20*n)
	for i := range others[n:] {
		others[n+i] = streamid.ID{Hi: 1, Lo: uint64(i)}
	}
	var e expiry
	e.period = time.Hour
	wrong := make([]int, len(others))
	total, again := 0, 0
	for period := range 4 {
		e.begin(time.Now().Add(time.Duration(period) * e.period))
		for _, id := range added {
			e.add(id)
		}
		for i, id := range others {
			if e.has(id) {
				total++
				if wrong[i]++; wrong[i] == 3 {
					again++
				}
			}
		}
	}
	if limit := 4 * len(others) / 100; total > limit || total == 0 {
		t.Errorf("%d streams of %d taken for others, want less than %d", total, 4*len(others), limit)
	}
	if limit := len(others) / 10_000; again > limit {
		t.Errorf("%d streams of %d taken for others three times of four, want at most %d", again, len(others), limit)
	}
	t.Logf("%.2f%% taken for others", float64(total)/float64(4*len(others))*100)
}

// However many streams there are, it takes no more than 32 MiB.
func TestExpiryIsBounded(t *testing.T) {
	e := expiry{period: time.Hour, words: make([]uint64, mostWords)}
	e.begin(time.Now())
	e.n = wordStreams * mostWords
	id := streamid.ID{Hi: 1}
	for range 2 { // the second time takes no room
		if e.add(id); len(e.words) != mostWords || e.n != 1 || !e.has(id) {
			t.Errorf("%d words, %d streams", len(e.words), e.n)
		}
	}
}
