// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/d2c/store/redis/redistest"
	"github.com/deltaring/deltaring/streamid"
)

// successions is what has taken the place of each record, by stream and tag; zero for none.
type successions struct {
	mu   sync.Mutex
	next []map[uint64]uint64
	n    int

	withheld map[uint64]bool // tags
}

func (s *successions) note(stream int, base, tag uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if other, taken := s.next[stream][base]; taken && other != tag {
		return fmt.Errorf("stream %d: record %d was replaced by %d and by %d", stream, base, other, tag)
	}
	s.next[stream][base] = tag
	s.n++
	return nil
}

func (s *successions) withhold(tag uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.withheld[tag] = true
}

func (s *successions) seen(stream int, tag uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.withheld[tag] {
		return fmt.Errorf("stream %d: record %d is there, and was withheld", stream, tag)
	}
	return nil
}

// Workers change the same streams, read them before or do not, and lose answers; some calls are done twice, and of some nobody learns whether
// they were done. No record has two that took its place, none that took its place is lost, and no unit is done in part.
func TestAnswersAreLost(t *testing.T) {
	const workers, streams, rounds = 3, 1300, 200 // more streams than a call has
	server := redistest.Start(t)
	done := &successions{next: make([]map[uint64]uint64, streams), withheld: map[uint64]bool{}}
	for i := range done.next {
		done.next[i] = map[uint64]uint64{}
	}
	opts := testOptions()
	opts.MaxRetries = 1
	clean := openTester(t, connect(t, "standalone", server.Addr), opts)
	var failed atomic.Int64
	var working sync.WaitGroup
	for n := range workers {
		w := &forgetful{
			Store: open(t, losing(t, server.Addr, func() bool { return rand.IntN(6) == 0 }), opts), random: rand.New(rand.NewPCG(rand.Uint64(), uint64(n))),
			life: clean.lives[0].ID, done: done, known: make([]uint64, streams), asked: make([]map[uint64]uint64, streams),
		}
		for i := range w.asked {
			w.asked[i] = map[uint64]uint64{}
		}
		working.Go(func() {
			for range rounds {
				if err := w.round(t); err != nil {
					t.Error(err)
					return
				}
			}
			failed.Add(w.failed)
		})
	}
	working.Wait()
	ids := make([]streamid.ID, streams)
	for i := range ids {
		ids[i] = lostID(i)
	}
	results, err := clean.Read(t.Context(), ids)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if next, replaced := done.next[i][r.Tag]; replaced {
			t.Errorf("stream %d has record %d, which was replaced by %d", i, r.Tag, next)
		}
	}
	t.Logf("%d records replaced, %d calls failed", done.n, failed.Load())
	if done.n == 0 || failed.Load() == 0 {
		t.Error("too little has happened")
	}
}

func lostID(i int) streamid.ID { return streamid.ID{Hi: uint64(i), Lo: 1} }

// forgetful is a worker that loses answers.
type forgetful struct {
	*Store
	random *rand.Rand
	life   uint64
	done   *successions
	known  []uint64            // tags, by stream
	asked  []map[uint64]uint64 // the bases of swaps without an answer, by stream and tag
	failed int64
}

// learn notes the record that a stream has, and that it is there by a swap without an answer.
func (w *forgetful) learn(stream int, r store.Result) error {
	w.known[stream] = r.Tag
	if r.Tag != 0 && string(r.Record) != fmt.Sprint(stream, r.Tag) {
		return fmt.Errorf("stream %d: record %d is %q", stream, r.Tag, r.Record)
	}
	err := w.done.seen(stream, r.Tag)
	if base, ok := w.asked[stream][r.Tag]; ok {
		err = errors.Join(err, w.done.note(stream, base, r.Tag))
	}
	return err
}

func (w *forgetful) round(t *testing.T) (err error) {
	first := w.random.IntN(len(w.known))
	n := 1 + w.random.IntN(len(w.known)-first)
	if w.random.IntN(3) > 0 {
		ids := make([]streamid.ID, n)
		for k := range ids {
			ids[k] = lostID(first + k)
		}
		results, _ := w.Read(t.Context(), ids)
		for k, r := range results {
			err = errors.Join(err, w.learn(first+k, r))
		}
	}
	swaps := make([]store.Swap, n)
	for k := range swaps {
		i, tag := first+k, w.random.Uint64()|1
		swaps[k] = store.Swap{ID: lostID(i), Life: w.life, Base: w.known[i], Tag: tag, Record: []byte(fmt.Sprint(i, tag))}
		if i%10 < 4 {
			swaps[k].Unit = int32(1 + i/10)
		}
	}
	results, failed := w.Swap(t.Context(), swaps)
	if failed != nil {
		w.failed++
		for k := range swaps {
			w.asked[first+k][swaps[k].Tag] = swaps[k].Base
		}
		return err
	}
	for k, r := range results {
		s, i := &swaps[k], first+k
		switch {
		case r.Status == store.Swapped:
			w.known[i] = s.Tag
			err = errors.Join(err, w.done.note(i, s.Base, s.Tag))
		case r.Status == store.Changed && r.Tag == s.Tag: // it was sent twice
			err = errors.Join(err, w.done.note(i, s.Base, s.Tag), w.learn(i, r))
		case r.Status == store.Changed:
			err = errors.Join(err, w.learn(i, r))
		case r.Status == store.Withheld:
			w.done.withhold(s.Tag)
		default:
			err = errors.Join(err, fmt.Errorf("stream %d: %+v", i, r))
		}
		if k > 0 && s.Unit != 0 && s.Unit == swaps[k-1].Unit && (r.Status == store.Swapped) != (results[k-1].Status == store.Swapped) {
			err = errors.Join(err, fmt.Errorf("stream %d: its unit is done in part", i))
		}
	}
	return err
}
