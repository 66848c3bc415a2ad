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
	// The store is there before any delta.
	cfg.Now = func() time.Time { return time.Unix(-1000, 0) }
	cfg.MissingTime = d2c.MissingTimeDrop
	memory := new(store.Memory)
	for range 1 + f.rand.IntN(3) {
		conv, err := d2c.OpenShared(context.Background(), cfg, d2c.SharedConfig{Store: memory, Owner: "test"})
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
	out atomic.Bool
}

var errOut = errors.New("store is out")

func (s *outableStore) Lives(ctx context.Context, proposed store.Life) ([]store.Life, error) {
	if s.out.Load() {
		return nil, errOut
	}
	return s.Memory.Lives(ctx, proposed)
}

func (s *outableStore) Swap(ctx context.Context, swaps []store.Swap) ([]store.Result, error) {
	if s.out.Load() {
		return nil, errOut
	}
	return s.Memory.Swap(ctx, swaps)
}

// openOutable returns a worker that goes on without the store, at a time that the test sets.
func openOutable(t *testing.T, st *outableStore, clock *atomic.Int64, max int) *d2c.Converter {
	t.Helper()
	cfg := d2c.DefaultConfig()
	cfg.Summaries = []string{"summary"}
	cfg.Now = func() time.Time { return time.Unix(clock.Load(), 0) }
	conv, err := d2c.OpenShared(context.Background(), cfg, d2c.SharedConfig{Store: st, Owner: "test", MaxOutstanding: max})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conv.Close(context.Background()) })
	return conv
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

// sampleOf is what the only point of a batch has.
type sampleOf struct {
	start, time float64
	total       int64
}

// convertOne converts md and returns its only sample, or that there is none.
func convertOne(t *testing.T, conv *d2c.Converter, md pmetric.Metrics) (sampleOf, bool) {
	t.Helper()
	if _, err := conv.Convert(context.Background(), md); err != nil {
		t.Fatal(err)
	}
	if md.DataPointCount() == 0 {
		return sampleOf{}, false
	}
	dp := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints().At(0)
	return sampleOf{float64(dp.StartTimestamp()) / 1e9, float64(dp.Timestamp()) / 1e9, dp.IntValue()}, true
}

func TestOutageIsServedFromTheCacheAndReconciled(t *testing.T) {
	var clock atomic.Int64
	st := new(outableStore)
	one := openOutable(t, st, &clock, 3)
	s := series("s")
	expect := func(md pmetric.Metrics, want int64) {
		t.Helper()
		if got := values(t, one, md); len(got) != 1 || got[0] != want {
			t.Fatalf("totals %v, want %d", got, want)
		}
	}
	expect(batch(s.int(10, 20, 1)), 1)
	st.out.Store(true)
	expect(batch(s.int(20, 30, 2)), 3)
	expect(batch(s.int(20, 30, 2)), 3) // a retry
	if n := one.Stats().Outstanding; n != 2 {
		t.Fatalf("outstanding %d", n)
	}
	if err := one.Reconcile(context.Background()); !errors.Is(err, errOut) {
		t.Fatal(err)
	}
	expect(batch(s.int(40, 50, 8)), 11)
	refused := batch(s.int(50, 60, 1))
	before := marshal(refused)
	if _, err := one.Convert(context.Background(), refused); !errors.Is(err, d2c.ErrOutstanding) || !bytes.Equal(marshal(refused), before) {
		t.Fatalf("%v, want %v and the batch as it was", err, d2c.ErrOutstanding)
	}
	// A batch without deltas is none of its business.
	if _, err := one.Convert(context.Background(), gaugeBatch()); err != nil {
		t.Fatal(err)
	}

	st.out.Store(false)
	if err := one.Reconcile(context.Background()); err != nil {
		t.Fatal(err)
	}
	expect(refused, 1+2+8+1)
	two := openOutable(t, st, &clock, 3)
	if got := values(t, two, batch(s.int(60, 70, 16))); got[0] != 1+2+8+1+16 {
		t.Fatalf("total %v at another worker", got)
	}
	if stats := one.Stats(); stats.Outstanding != 0 || stats.Missed != 0 {
		t.Fatalf("outstanding %d, missed %d", stats.Outstanding, stats.Missed)
	}
}

func gaugeBatch() pmetric.Metrics {
	md := pmetric.NewMetrics()
	m := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetName("gauge")
	m.SetEmptyGauge().DataPoints().AppendEmpty().SetIntValue(1)
	return md
}

// A stream that a worker does not have when an outage begins may be in the store. HISTORIES: what it gives out meanwhile is a life of
// its own, which no older total follows.
func TestOutageOfAStreamThatIsElsewhere(t *testing.T) {
	var clock atomic.Int64
	st := new(outableStore)
	s := series("s")
	clock.Store(1000) // lest the floor of the new store drops what comes
	first := openOutable(t, st, &clock, 10)
	clock.Store(2000)
	values(t, first, batch(s.int(1000, 2000, 1000000)))
	st.out.Store(true)

	restarted := openOutable(t, st, &clock, 10)
	clock.Store(2005)
	got, _ := convertOne(t, restarted, batch(s.int(2000, 2010, 5)))
	if want := (sampleOf{2005, 2010, 5}); got != want {
		t.Fatalf("got %v, want %v", got, want)
	}
	got, _ = convertOne(t, restarted, batch(s.int(2010, 2020, 5)))
	if want := (sampleOf{2005, 2020, 10}); got != want {
		t.Fatalf("got %v, want %v", got, want)
	}
	// From before the outage: it may have been counted.
	if got, ok := convertOne(t, restarted, batch(s.int(1000, 2000, 1000000))); ok {
		t.Fatalf("got %v, want nothing", got)
	}
	st.out.Store(false)
	if err := restarted.Reconcile(context.Background()); err != nil {
		t.Fatal(err)
	}
	got, _ = convertOne(t, restarted, batch(s.int(2020, 2030, 5)))
	if want := (sampleOf{2005, 2030, 15}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if stats := restarted.Stats(); stats.Missed != 0 || stats.Outstanding != 0 {
		t.Errorf("missed %d, outstanding %d", stats.Missed, stats.Outstanding)
	}
	// Every other worker has the same.
	got, _ = convertOne(t, openOutable(t, st, &clock, 10), batch(s.int(2030, 2040, 5)))
	if want := (sampleOf{2005, 2040, 20}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A store may come back without what it had. What was given out meanwhile was given out: the stream begins anew after it, but goes on
// where gateways say that nobody else can have had it.
func TestOutageEndsWithAnEmptyStore(t *testing.T) {
	for name, tc := range map[string]struct {
		epochs [3]uint64 // of the route before, during and after the outage, zero if there is none
		start  float64
		total  int64
	}{
		"routed":               {[3]uint64{1, 1, 1}, 10, 1 + 2 + 4 + 8},
		"any":                  {[3]uint64{}, 41, 8},
		"by another meanwhile": {[3]uint64{1, 2, 1}, 41, 8},
	} {
		t.Run(name, func(t *testing.T) {
			var clock atomic.Int64
			clock.Store(5)
			st := new(outableStore)
			conv := openOutable(t, st, &clock, 10)
			ctx := context.Background()
			route := func(when int) {
				if epoch := tc.epochs[when]; epoch != 0 {
					ctx = d2c.WithRoute(ctx, d2c.Route{Epoch: epoch, Member: "me"})
				}
			}
			convert := func(md pmetric.Metrics) (got sampleOf, ok bool) {
				t.Helper()
				if _, err := conv.Convert(ctx, md); err != nil {
					t.Fatal(err)
				}
				if md.DataPointCount() == 0 {
					return got, false
				}
				dp := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints().At(0)
				return sampleOf{float64(dp.StartTimestamp()) / 1e9, float64(dp.Timestamp()) / 1e9, dp.IntValue()}, true
			}
			s := series("s")
			clock.Store(20)
			route(0)
			convert(batch(s.int(10, 20, 1)))
			st.out.Store(true)
			convert(batch(s.int(20, 30, 2)))
			route(1)
			clock.Store(40)
			if got, _ := convert(batch(s.int(30, 40, 4))); got.total != 7 {
				t.Fatalf("total %d during the outage, want 7", got.total)
			}
			st.out.Store(false)
			st.Wipe()
			if err := conv.Reconcile(ctx); err != nil {
				t.Fatal(err)
			}
			route(2)
			// A retry may bring the total again, but never begin anew with what was given out.
			if got, ok := convert(batch(s.int(20, 30, 2))); ok && got.total != 7 {
				t.Errorf("total %d after a retry, want 7 or none", got.total)
			}
			if got, _ := convert(batch(s.int(40, 50, 8))); got.total != tc.total || got.start != tc.start {
				t.Errorf("got %v, want %d since %v s", got, tc.total, tc.start)
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
	st := new(outableStore)
	conv, err := d2c.OpenShared(context.Background(), cfg, d2c.SharedConfig{Store: st, Owner: "test", MaxOutstanding: 1000})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conv.Close(context.Background()) }()
	for i := range 50 {
		var points []point
		for n := range 20 {
			points = append(points, series(fmt.Sprint(n)).int(float64(i), float64(i+1), 1))
		}
		st.out.Store(false)
		if err := conv.Reconcile(context.Background()); err != nil {
			t.Fatal(err)
		}
		values(t, conv, batch(points...))
		st.out.Store(true)
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
	var clock atomic.Int64
	st := new(outableStore)
	conv := openOutable(t, st, &clock, 3)
	st.out.Store(true)
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
	for _, turns := range []int{1, 4, 5, 100} {
		var clock atomic.Int64
		clock.Store(-1000) // the store has a floor, which is to be before all deltas
		st := new(outableStore)
		w := [2]*d2c.Converter{openOutable(t, st, &clock, 1000), openOutable(t, st, &clock, 1000)}
		s := series("s")
		values(t, w[0], batch(s.int(0, 1, 1)))
		values(t, w[1], batch(s.int(0, 1, 1)))
		st.out.Store(true)
		for i := 1; i <= 2*turns; i++ {
			values(t, w[i%2], batch(s.int(float64(i), float64(i+1), 1)))
		}
		// It was told of at once, and is no more missed afterwards.
		values(t, w[0], batch(s.int(0, 1, 1)))
		st.out.Store(false)
		for i := range w {
			if err := w[i].Reconcile(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		total := values(t, w[0], batch(s.int(float64(2*turns+1), float64(2*turns+2), 1)))[0]
		missed := int64(w[0].Stats().Missed + w[1].Stats().Missed)
		if total+missed != int64(2*turns+2) || missed > 0 != (turns > 4) {
			t.Errorf("%d turns each: total %d and %d missed, of %d", turns, total, missed, 2*turns+2)
		}
	}
}
