// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package log_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/d2c/store/log"
	"github.com/deltaring/deltaring/d2c/storetest"
	"github.com/deltaring/deltaring/streamid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open returns a store that is closed with the test, by a clock that stands still.
func open(t testing.TB, driver log.Driver, opts log.Options) *log.Store {
	t.Helper()
	return openAt(t, driver, opts, log.NewClock())
}

func openAt(t testing.TB, driver log.Driver, opts log.Options, clock *log.Clock) *log.Store {
	t.Helper()
	st, err := log.NewAt(driver, opts, clock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return st
}

func TestShared(t *testing.T) {
	for name, opts := range map[string]log.Options{
		"one group":            {Groups: 1},
		"as by default":        {},
		"many groups":          {Groups: 256},
		"a snapshot each time": {Groups: 4},
	} {
		t.Run(name, func(t *testing.T) {
			storetest.TestShared(t, func(t *testing.T) storetest.Fixture {
				m := new(log.Memory)
				clock := log.NewClock()
				opts := opts
				opts.TTL = time.Hour
				return storetest.Fixture{
					Open: func() store.Shared {
						st := openAt(t, m, opts, clock)
						if opts.Groups == 4 {
							return snapshots{st}
						}
						return st
					},
					Wipe:   m.Wipe,
					Remove: func(id streamid.ID) { remove(t, openAt(t, m, opts, clock), id) },
					TTL:    opts.TTL, Wait: clock.Wait, Now: clock.Now,
				}
			})
		})
	}
}

// remove takes a record away, whatever it is.
func remove(t *testing.T, st store.Shared, id streamid.ID) {
	t.Helper()
	lives, err := st.Lives(context.Background(), store.Life{ID: rand.Uint64() | 1})
	if err != nil {
		t.Fatal(err)
	}
	results, err := st.Swap(context.Background(), []store.Swap{{ID: id, Life: lives[store.Group(id, len(lives))].ID, Base: 1 << 60}})
	if err != nil {
		t.Fatal(err)
	}
	if err := st.SetAside(context.Background(), id, results[0].Record); err != nil {
		t.Fatal(err)
	}
}

// snapshots is a store that makes snapshots of all logs after each call.
type snapshots struct{ *log.Store }

func (s snapshots) Swap(ctx context.Context, swaps []store.Swap) ([]store.Result, error) {
	results, err := s.Store.Swap(ctx, swaps)
	return results, errors.Join(err, s.Compact(context.Background()))
}
