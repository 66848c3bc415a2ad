// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/d2c/store"
)

// size returns the bytes of all values.
func (m *memory) size() (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, v := range m.values {
		n += len(v)
	}
	return n
}

// sumBatch has a thousand sums of their own, each with the delta of an interval.
func sumBatch(index, interval int) pmetric.Metrics {
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	rm.Resource().Attributes().PutInt("resource", int64(index))
	m := rm.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetEmptySum().SetIsMonotonic(true)
	m.Sum().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	for i := range batchPoints {
		dp := m.Sum().DataPoints().AppendEmpty()
		dp.Attributes().PutInt("point", int64(i))
		dp.SetStartTimestamp(sec(float64(1000 + interval)))
		dp.SetTimestamp(sec(float64(1001 + interval)))
		dp.SetIntValue(7)
	}
	return md
}

const batchPoints = 1000

// The first batch of a process has many streams that are known from before, and some that are not.
func TestNewStreamsAmongKnown(t *testing.T) {
	storage := newMemory()
	for life := range 6 {
		conv, _ := openTest(t, d2c.DefaultConfig(), storage)
		md := pmetric.NewMetrics()
		for i := range life + 1 {
			sumBatch(i, life).ResourceMetrics().MoveAndAppendTo(md.ResourceMetrics())
		}
		result, err := conv.Convert(context.Background(), md)
		if err != nil {
			t.Fatal(err)
		}
		if result.Count(d2c.AddedFirst) != batchPoints || result.Count(d2c.AddedAligned) != uint64(life*batchPoints) {
			t.Fatalf("life %d: %s", life, describeResult(result))
		}
		closeTest(t, conv)
	}
}

// recordBytes is what the record of a sum of sumBatch takes, most of the time.
const recordBytes = 16 + 1 + 3 + 2

// The journal is cut as often as it takes for storage to hold no more than three times the live records.
func TestStorageIsBounded(t *testing.T) {
	storage := newMemory()
	conv, _ := openTest(t, d2c.DefaultConfig(), storage)
	thousands, rounds := 20, 30
	if quick() {
		thousands, rounds = 5, 10
	}
	live := thousands * batchPoints * recordBytes
	most, mostJournal := 0, int64(0)
	for round := range rounds {
		for i := range thousands {
			if _, err := conv.Convert(context.Background(), sumBatch(i, round)); err != nil {
				t.Fatal(err)
			}
			journal, _ := conv.Stored()
			mostJournal = max(mostJournal, journal)
			if round > 0 {
				most = max(most, storage.size())
			}
		}
	}
	settled(t, conv)
	journal, checkpoints := conv.Stored()
	eventually(t, func() bool { return storage.size() <= int(journal+checkpoints)+headerSize*(1+d2c.Shards) })
	size := storage.size()
	t.Logf("%.2f times the live records, at most %.2f; journal at most %.2f", float64(size)/float64(live),
		float64(most)/float64(live), float64(mostJournal)/float64(live))
	if size > 3*live {
		t.Errorf("%d bytes in storage, want at most 3 * %d", size, live)
	}
	if size < int(journal+checkpoints) {
		t.Errorf("%d bytes in storage, Stored says %d and %d", size, journal, checkpoints)
	}
	closeTest(t, conv)
	reopened, recovery := openTest(t, d2c.DefaultConfig(), storage)
	if recovery.Streams != thousands*batchPoints || recovery.Expired+recovery.Forgotten+len(recovery.Damaged) > 0 {
		t.Errorf("recovery %+v", recovery)
	}
	if j, c := reopened.Stored(); j != journal || c != checkpoints {
		t.Errorf("Stored says %d and %d, before it was %d and %d", j, c, journal, checkpoints)
	}
	closeTest(t, reopened)
}

// Streams come and go; storage has those that live.
func TestChurn(t *testing.T) {
	storage := newMemory()
	now := time.Unix(1_700_000_000, 0)
	var mu sync.Mutex
	cfg := d2c.Config{MaxStale: time.Minute, Now: func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}}
	pass := func(d time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(d)
	}
	conv, _ := openTest(t, cfg, storage)
	generations := 40
	if quick() {
		generations = 8
	}
	most := 0
	for g := range generations {
		for round := range 3 {
			for i := range 4 {
				if _, err := conv.Convert(context.Background(), sumBatch(4*g+i, round)); err != nil {
					t.Fatal(err)
				}
			}
		}
		pass(40 * time.Second)
		conv.Expire()
		settled(t, conv)
		most = max(most, storage.size())
		if g%10 == 9 {
			closeTest(t, conv)
			conv, _ = openTest(t, cfg, storage)
		}
	}
	if n := conv.Len(); n > 2*4*batchPoints {
		t.Errorf("%d streams live, want two generations at most", n)
	}
	live := 2 * 4 * batchPoints * recordBytes
	t.Logf("at most %.2f times the records of two generations", float64(most)/float64(live))
	if most > 3*live {
		t.Errorf("%d bytes in storage, want at most 3 * %d", most, live)
	}
	pass(time.Hour)
	conv.Expire()
	if conv.Len() != 0 {
		t.Errorf("%d streams live", conv.Len())
	}
	eventually(t, func() bool { return storage.size() <= 1<<14+headerSize*(1+d2c.Shards) })
	closeTest(t, conv)
}

// Ages survive, and time that nobody was there to see adds nothing to them.
func TestAgesSurvive(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	cfg := d2c.Config{MaxStale: time.Minute, Now: func() time.Time { return now }}
	for _, checkpoint := range []bool{false, true} {
		storage := newMemory()
		conv, _ := openTest(t, cfg, storage)
		send := func(s series, at float64) {
			t.Helper()
			if _, err := conv.Convert(context.Background(), ofResource(batch(s.int(at, at+1, 1)))); err != nil {
				t.Fatal(err)
			}
		}
		expires := func(want int) {
			t.Helper()
			if got := conv.Expire(); got != want {
				t.Errorf("checkpoint %v: %d streams expire, want %d", checkpoint, got, want)
			}
		}
		send("old", 10)
		now = now.Add(30 * time.Second)
		send("middle", 10)
		now = now.Add(20 * time.Second)
		send("new", 10)
		if checkpoint {
			if err := conv.Checkpoint(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		closeTest(t, conv)
		now = now.Add(time.Hour)
		var recovery d2c.Recovery
		conv, recovery = openTest(t, cfg, storage)
		if recovery.Streams != 3 || recovery.Expired != 0 {
			t.Errorf("recovery %+v", recovery)
		}
		expires(0)
		now = now.Add(10 * time.Second)
		expires(0)
		now = now.Add(time.Second)
		expires(1)
		now = now.Add(30 * time.Second)
		expires(1)
		now = now.Add(20 * time.Second)
		expires(1)
		closeTest(t, conv)
	}
}

// The bound on streams holds from the first batch on, and what is refused by storage takes no room.
func TestMaxStreamsSurvives(t *testing.T) {
	ctx := context.Background()
	now := time.Unix(1_700_000_000, 0)
	cfg := d2c.Config{MaxStreams: 3, MaxStale: time.Minute, Now: func() time.Time { return now }}
	storage := newMemory()
	conv, _ := openTest(t, cfg, storage)
	send := func(s series, want d2c.Outcome) {
		t.Helper()
		result, err := conv.Convert(ctx, ofResource(batch(s.int(10, 20, 1))))
		if err != nil || result.Count(want) != 1 {
			t.Errorf("%s: %v %s, want %v", s, err, describeResult(result), want)
		}
	}
	send("a", d2c.AddedFirst)
	send("b", d2c.AddedFirst)
	storage.fail = func() (part, error) { return nothing, errStorage }
	for range 3 {
		if _, err := conv.Convert(ctx, ofResource(batch(series("c").int(10, 20, 1), series("d").int(10, 20, 1)))); !errors.Is(err, errStorage) {
			t.Fatal(err)
		}
	}
	storage.fail = nil
	if conv.Len() != 2 {
		t.Errorf("%d streams, want 2", conv.Len())
	}
	send("c", d2c.AddedFirst)
	send("d", d2c.DroppedLimit)
	closeTest(t, conv)
	conv, _ = openTest(t, cfg, storage)
	send("d", d2c.DroppedLimit)
	send("a", d2c.Repeat)
	now = now.Add(2 * time.Minute)
	if n := conv.Expire(); n != 3 {
		t.Errorf("%d streams expire, want 3", n)
	}
	send("d", d2c.AddedFirst)
	closeTest(t, conv)
	// A lower bound keeps those that live.
	cfg.MaxStreams = 1
	conv, recovery := openTest(t, cfg, storage)
	if recovery.Streams != 1 || recovery.Expired != 3 {
		t.Errorf("recovery %+v", recovery)
	}
	send("d", d2c.Repeat)
	send("e", d2c.DroppedLimit)
	closeTest(t, conv)
}

// failing is a memory of which only journal entries can be stored while it is broken.
type failing struct {
	*memory
	broken atomic.Bool
}

func (f *failing) Put(ctx context.Context, values []store.KeyValue, deletes []string) error {
	if f.broken.Load() && (len(values) == 0 || !strings.HasPrefix(values[0].Key, "j/")) {
		return errStorage
	}
	return f.memory.Put(ctx, values, deletes)
}

// Checkpoints that fail are told of once, and once that they work again. Meanwhile batches are stored, until the journal is
// far too long; then they are refused with what is wrong.
func TestTrouble(t *testing.T) {
	if quick() {
		t.Skip("stores 64 MB")
	}
	synctest.Test(t, func(t *testing.T) {
		storage := &failing{memory: newMemory()}
		var told []error
		local := d2c.DurableConfig{Storage: storage, Owner: "test", JournalSize: 1, OnCheckpoints: func(err error) { told = append(told, err) }}
		ctx := context.Background()
		cfg := d2c.DefaultConfig()
		cfg.MaxBuckets = 5000
		conv, _, err := d2c.OpenDurable(ctx, cfg, local)
		if err != nil {
			t.Fatal(err)
		}
		second := 0.0
		big := func() error {
			// 1.5 MB in 5 bytes a count.
			counts := slices.Repeat([]uint64{1 << 32}, 5000)
			bounds := make([]float64, len(counts)-1)
			for i := range bounds {
				bounds[i] = float64(i)
			}
			var points []point
			for i := range 50 {
				points = append(points, series(fmt.Sprint("s", i)).histogram(second, second+1, hist(bounds, counts...)))
			}
			second++
			_, err := conv.Convert(ctx, ofResource(batch(points...)))
			return err
		}
		if err := big(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(told) > 0 {
			t.Fatal(told)
		}
		storage.broken.Store(true)
		for {
			if err = big(); err != nil {
				break
			}
		}
		if !errors.Is(err, errStorage) || !strings.Contains(err.Error(), "journal is full") {
			t.Errorf("error %v", err)
		}
		if journal, _ := conv.Stored(); journal < 64<<20 || journal > 96<<20 {
			t.Errorf("refused with %d bytes in the journal", journal)
		}
		time.Sleep(10 * time.Minute) // in a bubble, where it takes no time
		synctest.Wait()
		if len(told) != 1 || !errors.Is(told[0], errStorage) {
			t.Errorf("told %v, want one error", told)
		}
		storage.broken.Store(false)
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(told) != 2 || told[1] != nil {
			t.Errorf("told %v, want an error and nil", told)
		}
		if err := big(); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if journal, checkpoints := conv.Stored(); journal > checkpoints {
			t.Errorf("journal of %d bytes, checkpoints of %d", journal, checkpoints)
		}
		closeTest(t, conv)
	})
}

// discard keeps nothing and allocates nothing.
type discard struct{}

func (discard) Get(_ context.Context, keys []string) ([][]byte, error) {
	return make([][]byte, len(keys)), nil
}

func (discard) Put(context.Context, []store.KeyValue, []string) error { return nil }

// In steady state a batch allocates for the key of its entry and the list of one value, and nothing for its points.
func TestDurableSteadyStateAllocations(t *testing.T) {
	if raceEnabled() {
		t.Skip("the race detector makes sync.Pool forget at random, and allocates on its own account")
	}
	const runs = 20
	for _, k := range []struct {
		name  string
		delta func(s series, start, end float64) point
	}{
		{"sum", func(s series, start, end float64) point { return s.int(start, end, 7) }},
		{"histogram", func(s series, start, end float64) point {
			return s.histogram(start, end, hist([]float64{1, 2, 3}, 1, 2, 3, 1<<40))
		}},
		{"exponential histogram", func(s series, start, end float64) point {
			return s.exponential(start, end, expo(2, 0, 1, buckets{-3, []uint64{1, 2, 3}}, buckets{2, []uint64{1 << 40}}))
		}},
	} {
		t.Run(k.name, func(t *testing.T) {
			local := d2c.DurableConfig{Storage: discard{}, Owner: "test", JournalSize: 1 << 40}
			conv, _, err := d2c.OpenDurable(context.Background(), d2c.DefaultConfig(), local)
			if err != nil {
				t.Fatal(err)
			}
			defer closeTest(t, conv)
			var batches []pmetric.Metrics
			for i := range runs + 3 {
				var points []point
				for n := range batchPoints {
					points = append(points, k.delta(series(fmt.Sprint(n)), float64(10+i), float64(11+i)))
				}
				batches = append(batches, batch(points...))
			}
			defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection empties pools
			var result d2c.Result
			one := func() {
				if result, err = conv.Convert(context.Background(), batches[0]); err != nil {
					t.Fatal(err)
				}
				batches = batches[1:]
			}
			one()
			one()
			allocs := testing.AllocsPerRun(runs, one)
			if result.Count(d2c.AddedAligned) != batchPoints {
				t.Fatalf("outcomes %s, want %d aligned", describeResult(result), batchPoints)
			}
			if allocs != 2 {
				t.Errorf("%v allocations per batch of %d points, want 2", allocs, batchPoints)
			}
		})
	}
}

// When Close has returned, storage may be someone else's.
func TestNothingIsStoredAfterClose(t *testing.T) {
	storage := newGated()
	conv, _ := openTest(t, d2c.DefaultConfig(), storage)
	ctx := context.Background()
	first := start(ctx, conv, series("a").int(0, 10, 1))
	<-storage.arrived
	second := start(ctx, conv, series("b").int(0, 10, 1))
	eventually(t, func() bool { return conv.Waiting() == 1 })
	closed := make(chan error)
	go func() { closed <- conv.Close(ctx) }()
	eventually(t, func() bool { // Close has begun
		_, err := conv.Convert(canceled(), ofResource(batch(series("c").int(0, 10, 1))))
		return errors.Is(err, d2c.ErrClosed)
	})
	storage.end <- nil
	first.gives(t, d2c.AddedFirst, 1)
	select {
	case <-storage.arrived:
		select {
		case err := <-closed:
			t.Errorf("Close has returned %v, and an entry is being stored", err)
		case <-time.After(100 * time.Millisecond): // it waits, as it should
		}
		storage.end <- nil
	case <-second.done:
		if !errors.Is(second.err, d2c.ErrClosed) {
			t.Error(second.err)
		}
	}
	<-second.done
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// Streams that Open finds expired leave storage too.
func TestExpiredByOpenLeaveStorage(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	cfg := d2c.Config{MaxStale: time.Minute, Now: func() time.Time { return now }}
	storage := newMemory()
	ctx := context.Background()
	conv, _ := openTest(t, cfg, storage)
	for i := range 4 {
		if _, err := conv.Convert(ctx, sumBatch(i, 0)); err != nil {
			t.Fatal(err)
		}
	}
	conv.StopBackground()
	if err := conv.Checkpoint(ctx); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Hour)
	if _, err := conv.Convert(ctx, ofResource(batch(series("s").int(0, 10, 1)))); err != nil {
		t.Fatal(err)
	}
	closeTest(t, conv)
	conv, recovery := openTest(t, cfg, storage)
	defer closeTest(t, conv)
	if recovery.Expired != 4*batchPoints || conv.Len() != 1 {
		t.Fatalf("recovery %+v", recovery)
	}
	for deadline := time.Now().Add(2 * time.Second); storage.size() > 1<<14; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes in storage, of 1 stream", storage.size())
		}
	}
}

// hookedStorage calls a function once, before the next manifest is stored.
type hookedStorage struct {
	*memory
	before atomic.Pointer[func()]
}

func (s *hookedStorage) Put(ctx context.Context, values []store.KeyValue, deletes []string) error {
	for _, v := range values {
		if strings.HasPrefix(v.Key, "m/") {
			if f := s.before.Swap(nil); f != nil {
				(*f)()
			}
		}
	}
	return s.memory.Put(ctx, values, deletes)
}

// Streams expire while a checkpoint that still has them is on its way to storage: another one follows without them.
func TestExpiryDuringCheckpoint(t *testing.T) {
	storage := &hookedStorage{memory: newMemory()}
	var now atomic.Int64
	now.Store(1_700_000_000)
	cfg := d2c.Config{MaxStale: time.Minute, Now: func() time.Time { return time.Unix(now.Load(), 0) }}
	conv, _ := openTest(t, cfg, storage)
	convert := func(first, last int) {
		for round := range 3 {
			for i := first; i <= last; i++ {
				if _, err := conv.Convert(context.Background(), sumBatch(i, round)); err != nil {
					t.Fatal(err)
				}
			}
		}
		settled(t, conv)
	}
	convert(0, 5)
	now.Add(40)
	convert(6, 7)
	if _, checkpoints := conv.Stored(); checkpoints == 0 {
		t.Fatal("no checkpoints yet")
	}
	hooked := make(chan struct{})
	expire := func() {
		defer close(hooked)
		now.Add(120)
		conv.Expire()
	}
	storage.before.Store(&expire)
	now.Add(30)
	conv.Expire() // of three quarters
	<-hooked
	if conv.Len() != 0 {
		t.Errorf("%d streams live", conv.Len())
	}
	eventually(t, func() bool { return storage.size() <= 1<<14+headerSize*(1+d2c.Shards) })
	closeTest(t, conv)
}
