// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
)

// TestHistories compares the Converter with the oracle, batch by batch, over random histories. D2C_HISTORIES says how
// many; D2C_SEED=n runs history n alone.
func TestHistories(t *testing.T) {
	var seen d2c.Result
	for _, seed := range seeds(t, 2000) {
		result, err := runHistory(newRandomSource(seed, 30))
		if err != nil {
			t.Fatalf("seed %d (run it alone with D2C_SEED=%d): %v", seed, seed, err)
		}
		for o, n := range result.Counts() {
			seen.Note(o, n)
		}
	}
	t.Log(describeResult(seen))
	if os.Getenv("D2C_SEED") != "" || testing.Short() {
		return
	}
	// Histories that do not reach an outcome prove nothing about it.
	for o, n := range seen.Counts() {
		if n < 100 && d2c.Outcome(o) != d2c.RestartedLost { // which is for shared state
			t.Errorf("only %d points were %v", n, d2c.Outcome(o))
		}
	}
}

func seeds(t *testing.T, n uint64) (seeds []uint64) {
	t.Helper()
	number := func(name string) (uint64, bool) {
		s := os.Getenv(name)
		if s == "" {
			return 0, false
		}
		v, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return v, true
	}
	if seed, ok := number("D2C_SEED"); ok {
		return []uint64{seed}
	}
	switch {
	case testing.Short():
		n /= 10
	case raceEnabled(): // which takes several times as long, and they run without it too
		n /= 4
	}
	if many, ok := number("D2C_HISTORIES"); ok {
		n = many
	}
	for seed := range n {
		seeds = append(seeds, seed+1)
	}
	return seeds
}

// source makes the decisions of a history: a seeded generator, or the bytes of a fuzzer.
type source interface {
	// n returns a number below limit, which is at most 256.
	n(limit int) int
	// more reports whether the history goes on for another batch.
	more() bool
}

type randomSource struct {
	*rand.Rand
	batches int
}

func newRandomSource(seed uint64, batches int) *randomSource {
	return &randomSource{rand.New(rand.NewPCG(seed, 0xd2c)), batches}
}

func (s *randomSource) n(limit int) int { return s.IntN(limit) }

func (s *randomSource) more() bool {
	s.batches--
	return s.batches >= 0
}

type byteSource []byte

func (s *byteSource) n(limit int) int {
	if len(*s) == 0 {
		return 0
	}
	b := (*s)[0]
	*s = (*s)[1:]
	return int(b) % limit
}

func (s *byteSource) more() bool { return len(*s) > 0 }

// one reports true once in n times.
func one(src source, n int) bool { return src.n(n) == 1 }

func pick[T any](src source, from ...T) T { return from[src.n(len(from))] }

// runHistory plays what src decides to a Converter in memory and to the oracle until they differ or src ends.
func runHistory(src source) (total d2c.Result, err error) {
	return playHistory(src, func(cfg d2c.Config) (subject, error) {
		conv, err := d2c.New(cfg)
		return inMemory{conv}, err
	})
}

// subject is a Converter under test.
type subject interface {
	// next is called before each batch and returns the Converter to use from then on.
	next() (*d2c.Converter, error)
	convert(conv *d2c.Converter, md pmetric.Metrics) (d2c.Result, error)
}

type inMemory struct{ conv *d2c.Converter }

func (m inMemory) next() (*d2c.Converter, error) { return m.conv, nil }
func (inMemory) convert(conv *d2c.Converter, md pmetric.Metrics) (d2c.Result, error) {
	return convert(conv, md), nil
}

func playHistory(src source, open func(d2c.Config) (subject, error)) (total d2c.Result, err error) {
	g := newHistory(src)
	told := listen(&g.cfg)
	s, err := open(g.cfg)
	if err != nil {
		return total, err
	}
	var conv *d2c.Converter
	_, isShared := s.(*fleet)
	if isShared { // whose clock stands, long before
		g.cfg.MissingTime = d2c.MissingTimeDrop
		g.cfg.Now = func() time.Time { return time.Unix(-1000, 0) }
	}
	m := newModel(g.cfg)
	if isShared {
		m.began, m.shared = 0, true
	}
	p2 := newTimelines()
	var inputs []pmetric.Metrics
	var earlier pmetric.Metrics // what the previous Convert gave out
	var earlierBytes []byte

	for src.more() {
		before := conv
		if conv, err = s.next(); err != nil {
			return total, err
		}
		if _, again := s.(*restarting); again && conv != before {
			m.began, m.gone = m.nanos(), 0
			for _, s := range m.streams {
				s.named = false
			}
		}
		in := g.batch(m)
		inputs = append(inputs, in)
		got := pmetric.NewMetrics()
		in.CopyTo(got)
		result, err := s.convert(conv, got)
		if err != nil {
			return total, err
		}
		want, wantResult := m.convert(in)
		if !sameMetrics(got, want) || result.Points() != wantResult {
			return total, g.explain(inputs, got, want, result, wantResult)
		}
		if err := told.check(in, result, m); err != nil {
			return total, fmt.Errorf("%w\n%v", err, g.explain(inputs, got, want, result, wantResult))
		}
		if !isShared && conv.Len() != len(m.streams) {
			return total, fmt.Errorf("%d streams, want %d", conv.Len(), len(m.streams))
		}
		if err := p2.follow(got); err != nil {
			return total, fmt.Errorf("%w\n%v", err, g.explain(inputs, got, want, result, wantResult))
		}
		for o, n := range result.Counts() {
			total.Note(o, n)
		}

		// What was given out is the receiver's: later batches must not change it, nor be changed through it.
		if earlierBytes != nil && !bytes.Equal(earlierBytes, marshal(earlier)) {
			return total, errors.New("a batch changed what an earlier one had given out")
		}
		if one(src, 2) {
			scramble(got)
		}
		earlier, earlierBytes = got, marshal(got)

		if g.cfg.ReemitInterval > 0 && !isShared && one(src, 6) {
			if err := g.again(conv, m, p2); err != nil {
				return total, fmt.Errorf("%w\n%v", err, g.explain(inputs, got, want, result, wantResult))
			}
		}

		if one(src, 4) {
			*g.clock = g.clock.Add(time.Duration(src.n(4)) * time.Second)
			if got, want := conv.Expire(), m.expire(); got != want {
				return total, fmt.Errorf("Expire() = %d, want %d", got, want)
			}
			p2.forget(func(key string) bool { return m.streams[key] == nil })
		}
	}
	if conv, err = s.next(); err != nil {
		return total, err
	}
	if _, shared := s.(*fleet); shared {
		return total, nil // no Converter has seen all streams
	}
	if got, want := converterViews(conv), m.views(); !slices.Equal(got, want) {
		return total, fmt.Errorf("streams:\n got %v\nwant %v", got, want)
	}
	return total, nil
}
