// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/d2c/store"
)

// pacedStore notes when commits begin and how many swaps they have.
type pacedStore struct {
	store.Memory
	interval, takes time.Duration
	points          int
	mu              sync.Mutex
	commits         []string
	began           time.Time
}

func (s *pacedStore) Pace() (time.Duration, int) { return s.interval, s.points }

func (s *pacedStore) Swap(ctx context.Context, swaps []store.Swap) ([]store.Result, error) {
	s.mu.Lock()
	s.commits = append(s.commits, fmt.Sprintf("%v: %d", time.Since(s.began), len(swaps)))
	s.mu.Unlock()
	time.Sleep(s.takes)
	return s.Memory.Swap(ctx, swaps)
}

// told returns the commits since it was last called.
func (s *pacedStore) told() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := fmt.Sprint(s.commits)
	s.commits = nil
	return text
}

func openPaced(t *testing.T, st *pacedStore) *d2c.Converter {
	t.Helper()
	conv, err := d2c.OpenShared(context.Background(), d2c.DefaultConfig(), d2c.SharedConfig{Store: st, Owner: "test"})
	if err != nil {
		t.Fatal(err)
	}
	st.began = time.Now()
	return conv
}

// A store that asks for it gets commits an interval apart, and larger ones; one that does not asks for nothing.
func TestPace(t *testing.T) {
	points := func(n, stream int) (all []point) {
		for i := range n {
			all = append(all, series(fmt.Sprint("stream ", stream, i)).int(100, 110, 1))
		}
		return all
	}
	for _, row := range []struct {
		name string
		st   *pacedStore
		want string // a lone batch, 20 at once, another one at once, and one that comes late
	}{
		{"none", &pacedStore{takes: time.Millisecond}, "[0s: 1] [1s: 1 1.001s: 19] [2s: 1] [10s: 1]"},
		{"an interval", &pacedStore{takes: time.Millisecond, interval: 5 * time.Second}, "[0s: 1] [5s: 20] [10s: 1] [15s: 1]"},
		{"shorter than a commit", &pacedStore{takes: 300 * time.Millisecond, interval: 100 * time.Millisecond}, "[0s: 1] [1s: 1 1.3s: 19] [2s: 1] [10s: 1]"},
		{"points for a whole one", &pacedStore{takes: time.Millisecond, interval: 5 * time.Second, points: 8}, "[0s: 1] [1s: 8 1.001s: 8 6.001s: 4] [11.001s: 1] [16.001s: 1]"},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := row.st
				conv := openPaced(t, st)
				defer closeTest(t, conv)
				ctx := context.Background()
				at := func(d time.Duration) { time.Sleep(d - time.Since(st.began)) }
				wait := func(calls ...*call) string {
					for _, c := range calls {
						<-c.done
						if c.err != nil {
							t.Error(c.err)
						}
					}
					return st.told()
				}
				got := wait(start(ctx, conv, points(1, 1)...))
				at(time.Second)
				var calls []*call
				for i := range 20 {
					calls = append(calls, start(ctx, conv, points(1, 100+i)...))
					if i == 0 {
						synctest.Wait() // the first comes alone
					}
				}
				got += " " + wait(calls...)
				at(2 * time.Second)
				got += " " + wait(start(ctx, conv, points(1, 2)...))
				at(10 * time.Second)
				got += " " + wait(start(ctx, conv, points(1, 3)...))
				if got != row.want {
					t.Errorf("commits %s, want %s", got, row.want)
				}
			})
		})
	}
}

// A commit of a store that asks for large ones has more points than one of another, and a batch is never divided.
func TestPaceLargeCommits(t *testing.T) {
	for points, want := range map[int]string{0: "[1s: 5000 2s: 5000 3s: 5000]", 7000: "[1s: 5000 2s: 5000 3s: 5000]", 1 << 17: "[1s: 15000]"} {
		synctest.Test(t, func(t *testing.T) {
			st := &pacedStore{takes: time.Second, points: points}
			conv := openPaced(t, st)
			defer closeTest(t, conv)
			calls := []*call{start(context.Background(), conv, series("first").int(100, 110, 1))}
			synctest.Wait()
			st.told()
			for i := range 3 {
				var all []point
				for j := range 5000 {
					all = append(all, series(fmt.Sprint("stream ", i, " ", j)).int(100, 110, 1))
				}
				calls = append(calls, start(context.Background(), conv, all...))
			}
			for _, c := range calls {
				if <-c.done; c.err != nil {
					t.Error(c.err)
				}
			}
			if got := st.told(); got != want {
				t.Errorf("with %d points a commit: %s, want %s", points, got, want)
			}
		})
	}
}

// Nobody waits out the interval: neither Close, nor who has lost patience.
func TestPaceDoesNotHoldUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &pacedStore{interval: time.Hour}
		conv := openPaced(t, st)
		first := start(context.Background(), conv, series("a").int(100, 110, 1))
		first.gives(t, d2c.AddedFirst, 1)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		impatient := start(ctx, conv, series("b").int(100, 110, 1))
		impatient.refused(t, context.DeadlineExceeded)
		waiting := start(context.Background(), conv, series("c").int(100, 110, 1))
		synctest.Wait()
		closeTest(t, conv)
		waiting.refused(t, d2c.ErrClosed)
		if took := time.Since(st.began); took != time.Second {
			t.Errorf("it took %v", took)
		}
	})
}
