// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/d2c/store"
)

// fleet is several Converters that share their state. Each batch goes to any of them.
type fleet struct {
	workers []*d2c.Converter
	rand    *rand.Rand
}

var errSkip = errors.New("a history that does not suit")

func newFleet(cfg d2c.Config, seed uint64) (*fleet, error) {
	if cfg.MaxStreams > 0 || cfg.MaxStale > 0 {
		return nil, errSkip // both are about what one worker has in memory
	}
	f := &fleet{rand: rand.New(rand.NewPCG(seed, 0xf1ee7))}
	store := new(store.Memory)
	for range 1 + f.rand.IntN(3) {
		conv, err := d2c.OpenShared(context.Background(), cfg, d2c.SharedConfig{Store: store, Owner: "test"})
		if err != nil {
			return nil, err
		}
		f.workers = append(f.workers, conv)
	}
	return f, nil
}

func (f *fleet) next() (*d2c.Converter, error) { return f.workers[f.rand.IntN(len(f.workers))], nil }

func (f *fleet) convert(conv *d2c.Converter, md pmetric.Metrics) (d2c.Result, error) {
	return conv.Convert(context.Background(), md)
}

// TestSharedHistories is TestHistories with a fleet: whichever worker a batch goes to, what comes out is what one that had
// seen all of them would have given out.
func TestSharedHistories(t *testing.T) {
	played := 0
	for _, seed := range seeds(t, 6000) {
		_, err := playHistory(newRandomSource(seed, 30), func(cfg d2c.Config) (subject, error) { return newFleet(cfg, seed) })
		if errors.Is(err, errSkip) {
			continue
		}
		if err != nil {
			t.Fatalf("seed %d (run it alone with D2C_SEED=%d): %v", seed, seed, err)
		}
		played++
	}
	t.Logf("%d histories", played)
}

// outableStore fails when told to.
type outableStore struct {
	store.Memory
	out bool
}

var errOut = errors.New("store is out")

func (s *outableStore) Swap(ctx context.Context, ops []store.Swap) error {
	if s.out {
		return errOut
	}
	return s.Memory.Swap(ctx, ops)
}

// values converts md, which must have one point per stream, and returns the totals in its order.
func values(t *testing.T, conv *d2c.Converter, md pmetric.Metrics) (ints []int64) {
	t.Helper()
	if _, err := conv.Convert(context.Background(), md); err != nil {
		t.Fatal(err)
	}
	for _, rm := range md.ResourceMetrics().All() {
		for _, dp := range rm.ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints().All() {
			ints = append(ints, dp.IntValue())
		}
	}
	return ints
}

func TestOutageIsServedFromTheCacheAndReconciled(t *testing.T) {
	clock := time.Unix(1_700_000_000, 0)
	store := new(outableStore)
	cfg := d2c.DefaultConfig()
	cfg.Now = func() time.Time { return clock }
	share := func() *d2c.Converter {
		conv, err := d2c.OpenShared(context.Background(), cfg, d2c.SharedConfig{Store: store, Owner: "test", MaxOutstanding: 3})
		if err != nil {
			t.Fatal(err)
		}
		return conv
	}
	one, two := share(), share()
	s := series("s")
	expect := func(conv *d2c.Converter, md pmetric.Metrics, want int64) {
		t.Helper()
		if got := values(t, conv, md); len(got) != 1 || got[0] != want {
			t.Fatalf("totals %v, want %d", got, want)
		}
	}
	expect(one, batch(s.int(10, 20, 1)), 1)
	store.out = true
	expect(one, batch(s.int(20, 30, 2)), 3)
	expect(one, batch(s.int(20, 30, 2)), 3) // a retry
	expect(two, batch(s.int(30, 40, 4)), 4) // does not know the stream
	if one.Stats().Outstanding != 2 || two.Stats().Outstanding != 1 {
		t.Fatalf("outstanding %d and %d", one.Stats().Outstanding, two.Stats().Outstanding)
	}
	if err := one.Reconcile(context.Background()); !errors.Is(err, errOut) {
		t.Fatal(err)
	}
	expect(one, batch(s.int(40, 50, 8)), 11)
	refused := batch(s.int(50, 60, 1))
	before := marshal(refused)
	if _, err := one.Convert(context.Background(), refused); !errors.Is(err, d2c.ErrOutstanding) || !bytes.Equal(marshal(refused), before) {
		t.Fatalf("%v, want %v and the batch as it was", err, d2c.ErrOutstanding)
	}

	store.out = false
	if err := two.Reconcile(context.Background()); err != nil {
		t.Fatal(err)
	}
	clock = clock.Add(time.Second)
	expect(one, refused, 1+2+4+8+1)
	expect(two, batch(s.int(60, 70, 16)), 1+2+4+8+1+16)
	if one.Stats().Outstanding != 0 || two.Stats().Outstanding != 0 {
		t.Fatalf("outstanding %d and %d", one.Stats().Outstanding, two.Stats().Outstanding)
	}
}

// A store may come back without what it had. What was given out meanwhile was given out: the stream goes on from there where
// this worker can be sure of it, and begins anew after it, not in the midst of it, where it cannot.
func TestOutageEndsWithAnEmptyStore(t *testing.T) {
	for name, tc := range map[string]struct {
		window time.Duration
		start  float64
		total  int64
	}{
		"sure":     {0, 10, 1 + 2 + 4 + 8},
		"not sure": {time.Hour, 40, 8},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := d2c.DefaultConfig()
			cfg.LateWindow = tc.window
			store := new(outableStore)
			conv, err := d2c.OpenShared(context.Background(), cfg, d2c.SharedConfig{Store: store, Owner: "test", MaxOutstanding: 10})
			if err != nil {
				t.Fatal(err)
			}
			s := series("s")
			values(t, conv, batch(s.int(10, 20, 1)))
			store.out = true
			values(t, conv, batch(s.int(20, 30, 2)))
			if got := values(t, conv, batch(s.int(30, 40, 4))); got[0] != 7 {
				t.Fatalf("total %d during the outage, want 7", got[0])
			}
			store.out, store.Memory = false, store.Memory{}
			if err := conv.Reconcile(context.Background()); err != nil {
				t.Fatal(err)
			}
			// A retry may bring the total again, but never begin anew with what was given out.
			if got := values(t, conv, batch(s.int(20, 30, 2))); len(got) > 0 && got[0] != 7 {
				t.Errorf("total %d after a retry, want 7 or none", got[0])
			}
			md := batch(s.int(40, 50, 8))
			got := values(t, conv, md)
			start := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints().At(0).StartTimestamp()
			if got[0] != tc.total || start != sec(tc.start) {
				t.Errorf("total %d since %v, want %d since %v s", got[0], start.AsTime(), tc.total, tc.start)
			}
		})
	}
}

// Idle streams are forgotten at any time, also when what the cache has is needed for an outage. The race detector looks.
func TestOutageBeginsWhileStreamsExpire(t *testing.T) {
	cfg := d2c.DefaultConfig()
	cfg.MaxStale = time.Second
	var clock atomic.Int64
	cfg.Now = func() time.Time { return time.Unix(clock.Add(1), 0) }
	store := new(outableStore)
	conv, err := d2c.OpenShared(context.Background(), cfg, d2c.SharedConfig{Store: store, Owner: "test", MaxOutstanding: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		var points []point
		for n := range 20 {
			points = append(points, series(fmt.Sprint(n)).int(float64(i), float64(i+1), 1))
		}
		store.out = false
		if err := conv.Reconcile(context.Background()); err != nil {
			t.Fatal(err)
		}
		values(t, conv, batch(points...))
		store.out = true
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range 10 {
				conv.Expire()
			}
		}()
		values(t, conv, batch(points...))
		<-done
	}
}

// A batch that is kept for a store that fails must be one that can still be committed.
func TestOutageEndsWithClose(t *testing.T) {
	store := &outableStore{out: true}
	conv, err := d2c.OpenShared(context.Background(), d2c.DefaultConfig(), d2c.SharedConfig{Store: store, Owner: "test", MaxOutstanding: 3})
	if err != nil {
		t.Fatal(err)
	}
	s := series("s")
	values(t, conv, batch(s.int(10, 20, 1)))
	if err := conv.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := conv.Convert(context.Background(), batch(s.int(20, 30, 1))); !errors.Is(err, d2c.ErrClosed) {
		t.Errorf("%v, want %v", err, d2c.ErrClosed)
	}
	if n := conv.Stats().Outstanding; n != 1 {
		t.Errorf("%d outstanding, want 1", n)
	}
}

// Two workers take the deltas of one stream by turns while the store fails. What the gaps of a stream are too few for in the end
// is counted, if nothing else.
func TestOutageMissesNothingUncounted(t *testing.T) {
	for _, turns := range []int{1, 8, 9, 100} {
		store := new(outableStore)
		var w [2]*d2c.Converter
		for i := range w {
			w[i], _ = d2c.OpenShared(context.Background(), d2c.DefaultConfig(), d2c.SharedConfig{Store: store, Owner: "test", MaxOutstanding: 1000})
		}
		s := series("s")
		values(t, w[0], batch(s.int(0, 1, 1)))
		values(t, w[1], batch(s.int(0, 1, 1)))
		store.out = true
		for i := 1; i <= 2*turns; i++ {
			values(t, w[i%2], batch(s.int(float64(i), float64(i+1), 1)))
		}
		// It was told of at once, and is no more missed afterwards.
		values(t, w[0], batch(s.int(0, 1, 1)))
		store.out = false
		for i := range w {
			if err := w[i].Reconcile(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		total := values(t, w[0], batch(s.int(float64(2*turns+1), float64(2*turns+2), 1)))[0]
		missed := int64(w[0].Stats().Missed + w[1].Stats().Missed)
		if total+missed != int64(2*turns+2) || missed > 0 != (turns > 8) {
			t.Errorf("%d turns each: total %d and %d missed, of %d", turns, total, missed, 2*turns+2)
		}
	}
}
