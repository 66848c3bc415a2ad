// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.uber.org/goleak"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/d2c/store"
)

// gated is a memory whose Puts of journal entries wait until they are told how to end.
type gated struct {
	*memory
	arrived chan string // the key
	end     chan error
	puts    atomic.Int32
}

func newGated() *gated {
	return &gated{memory: newMemory(), arrived: make(chan string), end: make(chan error)}
}

func (g *gated) Put(ctx context.Context, values []store.KeyValue, deletes []string) error {
	if len(values) == 1 && strings.HasPrefix(values[0].Key, "j/") {
		g.puts.Add(1)
		g.arrived <- values[0].Key
		if err := <-g.end; err != nil {
			return err
		}
		if ctx.Err() != nil {
			return errors.New("a commit under way was cancelled")
		}
	}
	return g.memory.Put(ctx, values, deletes)
}

// let ends the Put that waits, or the next one.
func (g *gated) let(err error) string {
	key := <-g.arrived
	g.end <- err
	return key
}

func openTest(t testing.TB, cfg d2c.Config, storage store.Storage) (*d2c.Converter, d2c.Recovery) {
	t.Helper()
	conv, recovery, err := d2c.OpenDurable(context.Background(), cfg, d2c.DurableConfig{Storage: storage, Owner: "test", JournalSize: 1 << 14})
	if err != nil {
		t.Fatal(err)
	}
	return conv, recovery
}

func closeTest(t testing.TB, conv *d2c.Converter) {
	t.Helper()
	if err := conv.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// call is a Convert under way.
type call struct {
	md, before pmetric.Metrics
	result     d2c.Result
	err        error
	done       chan struct{}
}

func start(ctx context.Context, conv *d2c.Converter, points ...point) *call {
	return startBatch(ctx, conv, ofResource(batch(points...)))
}

func startBatch(ctx context.Context, conv *d2c.Converter, md pmetric.Metrics) *call {
	c := &call{md: md, before: pmetric.NewMetrics(), done: make(chan struct{})}
	md.CopyTo(c.before)
	go func() {
		defer close(c.done)
		c.result, c.err = conv.Convert(ctx, c.md)
	}()
	return c
}

// refused checks that a call has ended with an error and changed nothing.
func (c *call) refused(t *testing.T, want error) {
	t.Helper()
	<-c.done
	if !errors.Is(c.err, want) {
		t.Errorf("error %v, want %v", c.err, want)
	}
	if !bytes.Equal(marshal(c.md), marshal(c.before)) || c.result != (d2c.Result{}) {
		t.Errorf("refused, but came back as %v, %s", lines(c.md), describeResult(c.result))
	}
}

// gives checks that a call has ended well, with such a value.
func (c *call) gives(t *testing.T, o d2c.Outcome, want int64) {
	t.Helper()
	<-c.done
	if c.err != nil {
		t.Error(c.err)
	} else if c.result.Count(o) != 1 || onlyInt(c.md) != want {
		t.Errorf("%v, %s, want %d, %v", lines(c.md), describeResult(c.result), want, o)
	}
}

// Batches that come during a Put share the next one.
func TestGroupCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newGated()
		conv, _ := openTest(t, d2c.DefaultConfig(), storage)
		ctx := context.Background()
		const shared = series("shared")
		first := start(ctx, conv, shared.int(0, 10, 1))
		synctest.Wait()
		// With no more gaps between than are remembered, whatever their order.
		var calls []*call
		for i := range 8 {
			from := float64(10 + 10*i)
			own := series(fmt.Sprint("own ", i))
			calls = append(calls, start(ctx, conv, shared.int(from, from+10, 2<<i), own.int(from, from+10, 5), own.int(from+10, from+20, 6)))
		}
		synctest.Wait()
		if n := conv.Waiting(); n != 8 {
			t.Errorf("%d batches wait, want 8", n)
		}
		for s := range conv.Streams() {
			t.Errorf("%v is to be seen before any commit has ended", s)
		}
		storage.let(nil)
		first.gives(t, d2c.AddedFirst, 1)
		storage.let(nil)
		for _, c := range calls {
			<-c.done
			if c.err != nil || c.result.Dropped() > 0 || c.result.Count(d2c.Repeat) > 0 {
				t.Errorf("%v: %s", c.err, describeResult(c.result))
			}
		}
		if n := storage.puts.Load(); n != 2 {
			t.Errorf("%d Puts of 9 batches, want 2", n)
		}
		other := start(ctx, conv, shared.int(80, 90, 3))
		other.gives(t, d2c.Covered, 511)
		again := start(ctx, conv, series("own 7").int(90, 100, 6))
		again.gives(t, d2c.Repeat, 11)
		if n := storage.puts.Load(); n != 2 {
			t.Errorf("what was not added was stored")
		}
		closeTest(t, conv)
		reopened, _ := openTest(t, d2c.DefaultConfig(), storage.memory)
		if got, want := statesOf(reopened), statesOf(conv); !slices.Equal(got, want) {
			t.Errorf("reopened:\n got %q\nwant %q", got, want)
		}
		closeTest(t, reopened)
	})
}

func TestCancelWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newGated()
		conv, _ := openTest(t, d2c.DefaultConfig(), storage)
		ctx, cancel := context.WithCancel(context.Background())
		const s = series("s")
		first := start(context.Background(), conv, s.int(0, 10, 1))
		synctest.Wait()
		second := start(ctx, conv, s.int(10, 20, 2))
		synctest.Wait()
		third := start(context.Background(), conv, s.int(20, 30, 4))
		synctest.Wait()
		cancel()
		second.refused(t, context.Canceled)
		storage.let(nil)
		first.gives(t, d2c.AddedFirst, 1)
		storage.let(nil)
		third.gives(t, d2c.AddedGap, 5)
		retry := start(context.Background(), conv, s.int(10, 20, 2))
		storage.let(nil)
		retry.gives(t, d2c.AddedLate, 7)
		// All that wait give up.
		first = start(context.Background(), conv, s.int(30, 40, 8))
		synctest.Wait()
		ctx, cancel = context.WithCancel(context.Background())
		calls := []*call{start(ctx, conv, s.int(40, 50, 1)), start(ctx, conv, s.int(40, 50, 1)), start(ctx, conv, s.int(40, 50, 1))}
		synctest.Wait()
		cancel()
		for _, c := range calls {
			c.refused(t, context.Canceled)
		}
		storage.let(nil)
		first.gives(t, d2c.AddedAligned, 15)
		last := start(context.Background(), conv, s.int(40, 50, 16))
		storage.let(nil)
		last.gives(t, d2c.AddedAligned, 31)
		closeTest(t, conv)
	})
}

// A caller that leaves while its batch is being stored gets it back as it was. The commit ends as it does, and a retry finds out.
func TestCancelWhileCommitting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newGated()
		conv, _ := openTest(t, d2c.DefaultConfig(), storage)
		ctx, cancel := context.WithCancel(context.Background())
		const s = series("s")
		first := start(ctx, conv, s.int(0, 10, 1))
		synctest.Wait()
		second, third := start(ctx, conv, series("x").int(0, 10, 2)), start(ctx, conv, series("y").int(0, 10, 4))
		synctest.Wait()
		storage.let(nil)
		first.gives(t, d2c.AddedFirst, 1)
		synctest.Wait() // second and third are being stored
		cancel()
		second.refused(t, context.Canceled)
		third.refused(t, context.Canceled)
		storage.let(nil)
		synctest.Wait()
		again := startBatch(context.Background(), conv, second.before)
		again.gives(t, d2c.Repeat, 2)
		closeTest(t, conv)
	})
}

// An error of Put is that of the batches in it, and of no others.
func TestErrorOfGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newGated()
		cfg := d2c.DefaultConfig()
		cfg.MaxStreams = 5
		conv, _ := openTest(t, cfg, storage)
		ctx := context.Background()
		const s = series("s")
		first := start(ctx, conv, s.int(0, 10, 1))
		synctest.Wait()
		second := start(ctx, conv, s.int(10, 20, 2), series("a").int(10, 20, 2), series("b").int(10, 20, 2))
		synctest.Wait()
		third := start(ctx, conv, s.int(20, 30, 4), series("c").int(10, 20, 2), series("d").int(10, 20, 2))
		synctest.Wait()
		storage.let(nil)
		first.gives(t, d2c.AddedFirst, 1)
		synctest.Wait()
		fourth := start(ctx, conv, s.int(30, 40, 8))
		synctest.Wait()
		failed := storage.let(errStorage)
		second.refused(t, errStorage)
		third.refused(t, errStorage)
		if next := storage.let(nil); next != failed {
			t.Errorf("entry %s after %s, which has failed: want the same number", next, failed)
		}
		fourth.gives(t, d2c.AddedGap, 9)
		if conv.Len() != 1 {
			t.Errorf("%d streams, want 1", conv.Len())
		}
		// What was refused takes no room and can come again.
		for _, c := range []*call{second, third} {
			again := startBatch(ctx, conv, c.before)
			storage.let(nil)
			<-again.done
			if again.err != nil || again.result.Count(d2c.AddedFirst) != 2 || again.result.Count(d2c.AddedLate) != 1 {
				t.Errorf("again: %v, %s", again.err, describeResult(again.result))
			}
		}
		closeTest(t, conv)
	})
}

// Close while one batch is being stored and others wait.
func TestCloseWhileWaiting(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	storage := newGated()
	conv, _ := openTest(t, d2c.DefaultConfig(), storage)
	ctx := context.Background()
	first := start(ctx, conv, series("a").int(0, 10, 1))
	key := <-storage.arrived
	calls := []*call{start(ctx, conv, series("b").int(0, 10, 1)), start(ctx, conv, series("c").int(0, 10, 1))}
	eventually(t, func() bool { return conv.Waiting() == 2 })

	ended, end := context.WithCancel(ctx)
	end()
	if err := conv.Close(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("Close while %s is being stored: %v", key, err)
	}
	start(ctx, conv, series("d").int(0, 10, 1)).refused(t, d2c.ErrClosed)
	closed := make(chan error)
	go func() { closed <- conv.Close(ctx) }()
	storage.end <- nil
	first.gives(t, d2c.AddedFirst, 1)
	for waiting := true; waiting; {
		select {
		case <-storage.arrived:
			storage.end <- nil
		case err := <-closed:
			if err != nil {
				t.Error(err)
			}
			waiting = false
		}
	}
	stop := make(chan struct{})
	go func() { // whatever comes after Close is told below
		for {
			select {
			case <-storage.arrived:
				storage.end <- nil
			case <-stop:
				return
			}
		}
	}()
	counted := 1
	for _, c := range calls {
		<-c.done
		switch {
		case c.err == nil:
			counted++
		case !errors.Is(c.err, d2c.ErrClosed):
			t.Error(c.err)
		}
	}
	close(stop)
	closeTest(t, conv)
	if n := conv.Expire(); n != 0 {
		t.Errorf("Expire() = %d", n)
	}
	reopened, recovery := openTest(t, d2c.DefaultConfig(), storage.memory)
	if recovery.Streams != counted {
		t.Errorf("%d streams, want %d", recovery.Streams, counted)
	}
	closeTest(t, reopened)
}

// eventually polls, for what nothing tells of.
func eventually(t testing.TB, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
	}
}

// settled waits until the journal has been cut, so that storage holds what it holds while nothing happens.
func settled(t testing.TB, conv *d2c.Converter) {
	t.Helper()
	eventually(t, func() bool { return !conv.Due() })
}

// Everything at once: many batches over shared streams and streams of their own, checkpoints in the background and on
// demand, and all that only looks.
func TestConcurrentlyDurable(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	for _, background := range []bool{true, false} {
		t.Run(fmt.Sprint("background ", background), func(t *testing.T) {
			const workers, shared = 8, 20
			rounds := 30
			if quick() {
				rounds = 5
			}
			storage := newMemory()
			ctx := context.Background()
			conv, _, err := d2c.OpenDurable(ctx, d2c.DefaultConfig(), d2c.DurableConfig{Storage: storage, Owner: "test", JournalSize: 1})
			if err != nil {
				t.Fatal(err)
			}
			stop := make(chan struct{})
			var lookers sync.WaitGroup
			look := func(f func()) {
				lookers.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
							f()
						}
					}
				})
			}
			if !background {
				conv.StopBackground()
				look(func() {
					if err := conv.Checkpoint(ctx); err != nil {
						t.Error(err)
					}
				})
			}
			look(func() {
				conv.Expire()
				for s := range conv.Streams() {
					if s.Start == 0 {
						t.Error("stream without a start")
					}
				}
				_ = conv.Stats()
				conv.Stored()
				conv.Len()
			})
			value := func(second int) int { return 1 + second%7 }
			deliver := func(second int, own bool) {
				var points []point
				for i := range shared {
					name := series(fmt.Sprint("stream ", i))
					if own {
						name = series(fmt.Sprintf("stream %d of second %d", i, second))
					}
					from, n := float64(1000+second), value(second)
					switch i % 3 {
					case 0:
						points = append(points, name.int(from, from+1, int64(n)))
					case 1:
						points = append(points, name.histogram(from, from+1, hist([]float64{1, 2}, 0, uint64(n), 0)))
					case 2:
						points = append(points, name.exponential(from, from+1, expo(3, 0, 0, buckets{2, []uint64{uint64(n)}}, buckets{})))
					}
				}
				if result, err := conv.Convert(ctx, ofResource(batch(points...))); err != nil || result.Dropped() > 0 {
					t.Error(err, describeResult(result))
				}
			}
			total := 0
			for r := range rounds {
				var wg sync.WaitGroup
				for w := range workers {
					total += value(r*workers + w)
					wg.Go(func() {
						deliver(r*workers+w, false)
						if w%2 == 0 {
							deliver(r*workers+w, false) // a retry
						}
						if w%4 == 0 {
							deliver(r*workers+w, true)
						}
					})
				}
				wg.Wait()
			}
			close(stop)
			lookers.Wait()
			closeTest(t, conv)
			if want := shared + rounds*workers/4*shared; conv.Len() != want {
				t.Errorf("%d streams, want %d", conv.Len(), want)
			}
			exact := 0
			for s := range conv.Streams() {
				if s.Start == sec(1000) && (s.Int == int64(total) || s.Count == uint64(total)) {
					exact++
				}
			}
			if exact != shared {
				t.Errorf("%d streams have the total %d, want %d", exact, total, shared)
			}
			reopened, recovery := openTest(t, d2c.DefaultConfig(), storage)
			if got, want := statesOf(reopened), statesOf(conv); !slices.Equal(got, want) {
				t.Errorf("reopened: %d streams are not as %d were; %+v", len(got), len(want), recovery)
			}
			closeTest(t, reopened)
		})
	}
}
