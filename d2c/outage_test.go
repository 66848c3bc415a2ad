// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.uber.org/goleak"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/streamid"
)

// troubledStore is asked before, and told after, whatever it does.
type troubledStore struct {
	mu    sync.Mutex
	inner scriptStore
	// before and after, if not nil, may fail, wait or panic.
	before, after func() error
	calls         int
}

func (s *troubledStore) set(before, after func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before, s.after = before, after
}

// away makes everything fail.
func (s *troubledStore) away() { s.set(func() error { return errOut }, nil) }

func (s *troubledStore) back() { s.set(nil, nil) }

func (s *troubledStore) do(f func() error) error {
	s.mu.Lock()
	before, after := s.before, s.after
	s.calls++
	s.mu.Unlock()
	if before != nil {
		if err := before(); err != nil {
			return err
		}
	}
	s.mu.Lock()
	err := f()
	s.mu.Unlock()
	if err == nil && after != nil {
		err = after()
	}
	return err
}

func (s *troubledStore) Lives(ctx context.Context, proposed store.Life) (lives []store.Life, err error) {
	err = s.do(func() (err error) { lives, err = s.inner.Lives(ctx, proposed); return err })
	return lives, err
}

func (s *troubledStore) Swap(ctx context.Context, swaps []store.Swap) (results []store.Result, err error) {
	err = s.do(func() (err error) { results, err = s.inner.Swap(ctx, swaps); return err })
	return results, err
}

func (s *troubledStore) SetAside(ctx context.Context, id streamid.ID, record []byte) error {
	return s.do(func() error { return s.inner.SetAside(ctx, id, record) })
}

// openTroubled returns a worker whose clock the caller moves.
func openTroubled(t *testing.T, st *troubledStore, max int, options ...func(*d2c.Config)) *scriptWorker {
	t.Helper()
	w := &scriptWorker{t: t, now: time.Unix(scriptEpoch-1, 0)}
	cfg := d2c.DefaultConfig()
	cfg.Now = func() time.Time { return w.now }
	for _, option := range options {
		option(&cfg)
	}
	conv, err := d2c.OpenShared(context.Background(), cfg, d2c.SharedConfig{Store: st, Owner: "script", MaxOutstanding: max})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conv.Close(context.Background()) })
	w.conv, w.now = conv, time.Unix(scriptEpoch, 0)
	return w
}

// at sets the clock.
func (w *scriptWorker) at(seconds float64) *scriptWorker {
	w.now = scriptTime(seconds).AsTime()
	return w
}

func (w *scriptWorker) reconcile() {
	w.t.Helper()
	if err := w.conv.Reconcile(context.Background()); err != nil {
		w.t.Fatal(err)
	}
}

// figures says what is outstanding and missed.
func (w *scriptWorker) figures() string {
	s := w.conv.Stats()
	return fmt.Sprintf("outstanding %d, missed %d", s.Outstanding, s.Missed)
}

// hangingStorage is a Storage whose Put hangs.
type hangingStorage struct {
	*memory
	mu   sync.Mutex
	hang chan struct{}
}

func (s *hangingStorage) Put(ctx context.Context, values []store.KeyValue, deletes []string) error {
	s.mu.Lock()
	hang := s.hang
	s.mu.Unlock()
	if hang != nil {
		<-hang
	}
	return s.memory.Put(ctx, values, deletes)
}

// A store that hangs, and does not look at its context, keeps nobody. When it is back everything goes on.
func TestHangingStore(t *testing.T) {
	soon := func() (context.Context, context.CancelFunc) {
		return context.WithTimeout(context.Background(), 20*time.Millisecond)
	}
	for _, mode := range []string{"durable", "shared", "outstanding"} {
		for _, end := range []string{"comes back", "hangs at Close"} {
			t.Run(mode+" "+end, func(t *testing.T) {
				defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
				cfg := d2c.DefaultConfig()
				cfg.Now = func() time.Time { return time.Unix(scriptEpoch-1, 0) }
				hang := make(chan struct{})
				w := &scriptWorker{t: t}
				var begin func()
				if mode == "durable" {
					storage := &hangingStorage{memory: newMemory()}
					w.conv, _ = openTest(t, cfg, storage)
					begin = func() { storage.mu.Lock(); storage.hang = hang; storage.mu.Unlock() }
				} else {
					st, sc := new(troubledStore), d2c.SharedConfig{Owner: "script"}
					sc.Store = st
					if mode == "outstanding" {
						sc.MaxOutstanding = 100
					}
					var err error
					if w.conv, err = d2c.OpenShared(context.Background(), cfg, sc); err != nil {
						t.Fatal(err)
					}
					begin = func() { st.set(func() error { <-hang; return nil }, nil) }
				}
				expect(t, w.add(0, 1, 1), "first (0, 1] 1")
				begin()
				within(t, "Convert", func() {
					for range 2 {
						ctx, cancel := soon()
						md := deltas(delta{"requests", 1, 2, 10, false})
						before := marshal(md)
						if _, err := w.conv.Convert(ctx, md); !errors.Is(err, context.DeadlineExceeded) || !bytes.Equal(marshal(md), before) {
							t.Errorf("%v, want the end of the context and the batch as it was", err)
						}
						cancel()
					}
				})
				within(t, "Stats", func() { w.conv.Stats() })
				within(t, "Streams", func() {
					for range w.conv.Streams() {
					}
				})
				within(t, "Expire", func() { w.conv.Expire() })
				within(t, "Reconcile", func() {
					ctx, cancel := soon()
					defer cancel()
					_ = w.conv.Reconcile(ctx)
				})
				within(t, "a batch without deltas", func() {
					if result, err := w.conv.Convert(context.Background(), gaugeBatch()); err != nil || result.Stored {
						t.Errorf("%v, stored %v", err, result.Stored)
					}
				})
				if end == "hangs at Close" {
					within(t, "Close", func() {
						ctx, cancel := soon()
						defer cancel()
						if err := w.conv.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
							t.Errorf("Close: %v", err)
						}
					})
				}
				close(hang)
				if end == "comes back" {
					within(t, "what comes next", func() {
						expect(t, w.add(1, 2, 10), "repeat (0, 2] 11")
						expect(t, w.add(2, 3, 100), "aligned (0, 3] 111")
					})
				}
				within(t, "Close", func() {
					if err := w.conv.Close(context.Background()); err != nil {
						t.Error(err)
					}
				})
			})
		}
	}
}

// The goroutine that tries the store may hang in it as well.
func TestHangingStoreInAnOutage(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	st := new(troubledStore)
	w := openTroubled(t, st, 100)
	expect(t, w.add(0, 1, 1), "first (0, 1] 1")
	st.away()
	expect(t, w.add(1, 2, 10), "aligned (0, 2] 11")
	hang, arrived := make(chan struct{}), make(chan struct{}, 100)
	st.set(func() error { arrived <- struct{}{}; <-hang; return errOut }, nil)
	<-arrived // the probe
	within(t, "Convert", func() { expect(t, w.add(2, 3, 100), "aligned (0, 3] 111") })
	expect(t, w.figures(), "outstanding 2, missed 0")
	within(t, "Expire", func() { w.conv.Expire() })
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	within(t, "Reconcile", func() {
		if err := w.conv.Reconcile(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Reconcile: %v", err)
		}
	})
	within(t, "Close", func() {
		if err := w.conv.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close: %v", err)
		}
	})
	close(hang)
	within(t, "Close", func() {
		if err := w.conv.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// within fails if f has not returned after some time.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatalf("%s does not return", what)
	}
}

// A batch without deltas says nothing of the store, and asks it nothing.
func TestOutageIsNoBusinessOfOthers(t *testing.T) {
	st := new(troubledStore)
	w := openTroubled(t, st, 1)
	calls := st.calls
	for _, away := range []bool{false, true} {
		if away {
			st.away()
		}
		result, err := w.conv.Convert(context.Background(), gaugeBatch())
		if err != nil || result.Stored || result.Outstanding || st.calls != calls {
			t.Errorf("away %v: %v, stored %v, outstanding %v, %d calls", away, err, result.Stored, result.Outstanding, st.calls-calls)
		}
	}
	st.back()
	md := deltas(delta{"requests", 0, 1, 1, false})
	if result, err := w.conv.Convert(context.Background(), md); err != nil || !result.Stored || result.Outstanding {
		t.Errorf("%v, stored %v, outstanding %v", err, result.Stored, result.Outstanding)
	}
	st.away()
	md = deltas(delta{"requests", 1, 2, 1, false})
	if result, err := w.conv.Convert(context.Background(), md); err != nil || result.Stored || !result.Outstanding {
		t.Errorf("%v, stored %v, outstanding %v", err, result.Stored, result.Outstanding)
	}
}

// HISTORIES F2a: what a worker that does not have the stream gives out meanwhile is a life that goes on; the old start is not seen
// again.
func TestOutageAndAWorkerThatRestarts(t *testing.T) {
	st := new(troubledStore)
	a := openTroubled(t, st, 10)
	expect(t, a.at(2000).add(1000, 2000, 1_000_000), "first (1000, 2000] 1000000")
	st.away()
	again := openTroubled(t, st, 10)
	again.at(2000)
	expect(t, again.add(2000, 2010, 5), "first (2000, 2010] 5")
	expect(t, again.at(2020).add(2010, 2020, 5), "aligned (2000, 2020] 10")
	expect(t, again.add(1000, 2000, 1_000_000), "kept") // a retry, which is in the store
	st.back()
	again.reconcile()
	expect(t, again.figures(), "outstanding 0, missed 0")
	expect(t, again.at(2030).add(2020, 2030, 5), "aligned (2000, 2030] 15")
	expect(t, openTroubled(t, st, 10).at(2040).add(2030, 2040, 5), "aligned (2000, 2040] 20")
}

// HISTORIES F2b: an error of the store after an outage begins the next one, and a lost reply makes no two values of one time.
func TestOutageAfterAnOutage(t *testing.T) {
	st := new(troubledStore)
	a := openTroubled(t, st, 100)
	expect(t, a.at(2000).add(1000, 2000, 1), "first (1000, 2000] 1")
	st.away()
	expect(t, a.at(2010).add(2000, 2010, 10), "aligned (1000, 2010] 11")
	st.back()
	a.reconcile()
	st.set(nil, func() error { return errOut }) // done, and the reply is lost
	expect(t, a.at(2020).add(2010, 2020, 100), "aligned (1000, 2020] 111")
	st.away()
	expect(t, a.at(2030).add(2020, 2030, 1000), "aligned (1000, 2030] 1111")
	expect(t, a.add(2010, 2020, 100), "covered (1000, 2030] 1111")
	expect(t, a.add(2020, 2030, 1000), "repeat (1000, 2030] 1111")
	st.back()
	a.reconcile()
	expect(t, a.figures(), "outstanding 0, missed 0")
	expect(t, a.at(2040).add(2030, 2040, 1), "aligned (1000, 2040] 1112")
}

// HISTORIES F2c: a point that is in the total is not missed, whichever of the calls of the store had no answer.
func TestOutageMissesNothingThatIsInTheTotal(t *testing.T) {
	lost := func(calls int) (before, after func() error) {
		return nil, func() error {
			if calls--; calls < 0 { // not Lives
				return errOut
			}
			return nil
		}
	}
	for name, tries := range map[string]string{"reply": "r", "reply, then request": "rq", "replies and requests": "rqrq", "request, then reply": "qr"} {
		t.Run(name, func(t *testing.T) {
			st := new(troubledStore)
			a := openTroubled(t, st, 100)
			expect(t, a.at(2000).add(1000, 2000, 1), "first (1000, 2000] 1")
			st.away()
			expect(t, a.at(2020).convert(delta{"requests", 2010, 2010, 10, false}, delta{"requests", 2020, 2020, 10, false}),
				"2 no_start (1000, 2010] 11 (1000, 2020] 21")
			for _, try := range tries {
				if try == 'r' {
					st.set(lost(1))
				} else {
					n := 1
					st.set(func() error {
						if n--; n < 0 {
							return errOut
						}
						return nil
					}, nil)
				}
				if err := a.conv.Reconcile(context.Background()); !errors.Is(err, errOut) {
					t.Fatal(err)
				}
			}
			st.back()
			a.reconcile()
			expect(t, a.figures(), "outstanding 0, missed 0")
			expect(t, a.at(2030).add(2020, 2030, 1000), "aligned (1000, 2030] 1021")
		})
	}
}

// TestOutageMissedIsExact plays random histories of one owner, with requests and replies that are lost, deltas that come out of turn
// and retries. Whatever was given out is in the total in the end, or missed.
func TestOutageMissedIsExact(t *testing.T) {
	for _, seed := range seeds(t, 2000) {
		if err := playOutage(t, seed); err != nil {
			t.Fatalf("seed %d (run it alone with D2C_SEED=%d): %v", seed, seed, err)
		}
	}
}

func playOutage(t *testing.T, seed uint64) error {
	r := rand.New(rand.NewPCG(seed, 0x0074a6e))
	st := new(troubledStore)
	w := openTroubled(t, st, 1000)
	defer func() { _ = w.conv.Close(context.Background()) }()
	streams := []string{"a", "b", "c"}
	given := map[delta]bool{}
	next := map[string]float64{}
	var queue, old []delta
	var log strings.Builder
	trouble := 0
	lose := func() error {
		if r.IntN(4) < trouble {
			return errOut
		}
		return nil
	}
	st.set(lose, lose)
	for step := range 40 {
		trouble = r.IntN(4)
		w.at(float64(step * 10))
		for _, s := range streams {
			if r.IntN(3) > 0 {
				d := delta{s, next[s], float64(step*10 + 5), 1, false}
				if next[s] == 0 && step == 0 || r.IntN(8) == 0 {
					d.start = d.end // unknown
				}
				next[s] = d.end
				if d.start != d.end || r.IntN(2) == 0 {
					queue = append(queue, d)
				}
			}
		}
		if r.IntN(6) == 0 && len(old) > 0 {
			queue = append(queue, old[r.IntN(len(old))])
		}
		// Those with an unknown start come in turn: nothing else tells them from retries.
		var ds []delta
		for len(queue) > 0 && (len(ds) == 0 || r.IntN(3) > 0) {
			i := 0
			if len(queue) > 1 && r.IntN(4) == 0 && queue[0].start != queue[0].end && queue[1].start != queue[1].end {
				i = 1
			}
			ds = append(ds, queue[i])
			queue = append(queue[:i:i], queue[i+1:]...)
		}
		if len(ds) > 0 {
			md, metrics := deltas(ds...), 0
			forEachMetric(md, func(_ pmetric.ResourceMetrics, _ pmetric.ScopeMetrics, m pmetric.Metric) {
				m.SetDescription(fmt.Sprint(metrics))
				metrics++
			})
			result, err := w.conv.Convert(context.Background(), md)
			fmt.Fprintf(&log, "%v: %s; %s\n", ds, describeAnswer(md, result, err), w.figures())
			if err != nil {
				return fmt.Errorf("%w\n%s", err, log.String())
			}
			there := map[string]bool{}
			forEachMetric(md, func(_ pmetric.ResourceMetrics, _ pmetric.ScopeMetrics, m pmetric.Metric) {
				there[m.Description()] = true
			})
			for i, d := range ds {
				if result.Dropped() == 0 || there[fmt.Sprint(i)] || given[d] {
					given[d] = true
				} else if result.Count(d2c.Kept) > 0 {
					return nil // which of them was dropped cannot be told
				}
			}
			if result.Count(d2c.Kept) == 0 {
				old = append(old, ds...) // what was kept may be missed, and then added when it comes again
			}
		}
		if r.IntN(4) == 0 {
			fmt.Fprintf(&log, "reconcile: %v", w.conv.Reconcile(context.Background()))
			fmt.Fprintf(&log, "; %s\n", w.figures())
		}
	}
	st.back()
	if err := w.conv.Reconcile(context.Background()); err != nil {
		return err
	}
	var total int64
	for id := range st.inner.records {
		rec := st.inner.records[id]
		s, err := w.conv.ReadShared(rec.record, rec.tag, id)
		if err != nil {
			return err
		}
		total += s.Total
		if cached, _ := w.conv.Cached(id); cached.Total != s.Total {
			return fmt.Errorf("total %d, and %d in the store\n%s", cached.Total, s.Total, log.String())
		}
	}
	if missed := int64(w.conv.Stats().Missed); total+missed != int64(len(given)) {
		return fmt.Errorf("total %d, missed %d, of %d\n%s", total, missed, len(given), log.String())
	}
	return nil
}

// One stream that this version cannot read refuses the batches that have it, and no others: neither those of its transaction nor all
// of them while an outage ends.
func TestOutageAndARecordOfANewerVersion(t *testing.T) {
	st := new(troubledStore)
	a := openTroubled(t, st, 100)
	x := func(end float64) delta { return delta{"x", end - 1, end, 1, false} }
	y := func(end float64) delta { return delta{"y", end - 1, end, 1, false} }
	expect(t, a.convert(x(1), y(1)), "2 first (0, 1] 1 (0, 1] 1")
	st.away()
	expect(t, a.convert(x(2), y(2)), "2 aligned (0, 2] 2 (0, 2] 2")
	expect(t, a.convert(x(3)), "aligned (0, 3] 3")
	expect(t, a.convert(y(3)), "aligned (0, 3] 3")
	b := newScriptWorker(t, &st.inner)
	b.convert(delta{stream: "x", start: 1, end: 1, value: 1}) // so that we know which record is x's
	for id, r := range st.inner.records {
		if _, ok := b.conv.Cached(id); ok {
			st.inner.records[id] = newer(id, r)
		}
	}
	st.back()
	a.reconcile()
	expect(t, a.figures(), "outstanding 0, missed 2")
	if got := a.convert(x(4), y(4)); !strings.Contains(got, d2c.ErrVersion.Error()) {
		t.Errorf("got %s", got)
	}
	expect(t, a.convert(y(4)), "repeat (0, 4] 4") // the other stream's batch was refused, and its own swap done
	expect(t, a.convert(y(5)), "aligned (0, 5] 5")
	if _, err := a.conv.Convert(context.Background(), gaugeBatch()); err != nil {
		t.Error(err)
	}
	refusesOnly(t, a, d2c.ErrVersion, st, x(5), y(6), "aligned (0, 6] 6")
}

// refusesOnly converts two batches in one transaction, of which the first is refused.
func refusesOnly(t *testing.T, w *scriptWorker, want error, st *troubledStore, refused, good delta, answer string) {
	t.Helper()
	gate, arrived := make(chan struct{}), make(chan struct{}, 100)
	st.set(func() error { arrived <- struct{}{}; <-gate; return nil }, nil)
	ended := make(chan string, 1)
	go func() { ended <- w.convert(delta{"gate", 0, 1, 1, false}) }()
	<-arrived
	var wg sync.WaitGroup
	var answers [2]string
	for i, d := range []delta{refused, good} {
		wg.Go(func() { answers[i] = w.convert(d) })
		eventually(t, func() bool { return w.conv.Waiting() == i+1 })
	}
	st.back()
	close(gate)
	wg.Wait()
	<-ended
	if !strings.Contains(answers[0], want.Error()) {
		t.Errorf("got %s, want %v", answers[0], want)
	}
	expect(t, answers[1], answer)
}

// A stream that others keep changing refuses its own batches only, and keeps an outage going until it is done with.
func TestOutageAndAContendedStream(t *testing.T) {
	st := new(troubledStore)
	a := openTroubled(t, st, 100)
	x := func(end float64) delta { return delta{"x", end - 1, end, 1, false} }
	y := func(end float64) delta { return delta{"y", end - 1, end, 1, false} }
	expect(t, a.convert(x(1), y(1)), "2 first (0, 1] 1 (0, 1] 1")
	other := newScriptWorker(t, &st.inner)
	at := 1.0
	contend := func(swap func() error) error {
		on := st.inner.on
		st.inner.on = nil
		other.convert(x(at + 1))
		at++
		st.inner.on = on
		return swap()
	}
	st.inner.on = contend
	if got := a.convert(x(100)); !strings.Contains(got, d2c.ErrContended.Error()) {
		t.Errorf("got %s", got)
	}
	refusesOnly(t, a, d2c.ErrContended, st, x(101), y(2), "aligned (0, 2] 2")
	st.away()
	expect(t, a.convert(y(3)), "aligned (0, 3] 3")
	a.convert(x(102))
	st.back()
	if err := a.conv.Reconcile(context.Background()); !errors.Is(err, d2c.ErrContended) {
		t.Errorf("got %v, want %v", err, d2c.ErrContended)
	}
	expect(t, a.convert(y(4)), "aligned (0, 4] 4")
	expect(t, a.figures(), "outstanding 3, missed 0")
	st.inner.on = nil
	a.reconcile()
	expect(t, a.figures(), "outstanding 0, missed 0")
	expect(t, a.convert(y(5)), "aligned (0, 5] 5")
	expect(t, a.convert(x(103)), fmt.Sprintf("aligned (0, 103] %v", at+2))
}

// A store that panics has failed, and leaves no lock behind.
func TestOutageOfAStoreThatPanics(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	for _, max := range []int{0, 100} {
		st := new(troubledStore)
		w := openTroubled(t, st, max)
		expect(t, w.add(0, 1, 1), "first (0, 1] 1")
		broken := func() error { panic("broken") }
		st.set(nil, broken)
		if got := w.add(1, 2, 10); !strings.Contains(got, "broken") {
			t.Errorf("got %s", got)
		}
		st.back()
		within(t, "Convert", func() { expect(t, w.add(1, 2, 10), "repeat (0, 2] 11") })
		if max > 0 {
			st.away()
			expect(t, w.add(2, 3, 100), "aligned (0, 3] 111")
			st.set(nil, broken)
			if err := w.conv.Reconcile(context.Background()); err == nil || !strings.Contains(err.Error(), "broken") {
				t.Errorf("got %v", err)
			}
			st.back()
			w.reconcile()
			expect(t, w.figures(), "outstanding 0, missed 0")
		}
		within(t, "Close", func() {
			if err := w.conv.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
}
