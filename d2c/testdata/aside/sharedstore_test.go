// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zeebo/xxh3"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/streamid"
)

// Each test here is one sentence of DESIGN.md, section 6, as a script: who gets which delta, what happens to the store, and
// what is given out. Times are seconds.

// scriptStore is a MemoryStore to which things happen.
type scriptStore struct {
	store.Memory
	// on, if not nil, is asked to do each Swap.
	on func(swap func() error) error
	// swaps counts calls.
	swaps   int
	trouble []error
}

func (s *scriptStore) Swap(ctx context.Context, ops []store.Swap) error {
	s.swaps++
	swap := func() error {
		for i := range ops {
			ops[i].Swapped, ops[i].Current = false, nil
		}
		return s.Memory.Swap(ctx, ops)
	}
	if s.on == nil {
		return swap()
	}
	return s.on(swap)
}

// once makes the next Swap, and only that, happen in another way.
func (s *scriptStore) once(on func(swap func() error) error) {
	s.on = func(swap func() error) error {
		s.on = nil
		return on(swap)
	}
}

func (s *scriptStore) wipe() { clear(s.Records()) }

// backup returns a function that takes the store back to what it is now.
func (s *scriptStore) backup() (restore func()) {
	was := maps.Clone(s.Records())
	return func() {
		s.wipe()
		maps.Copy(s.Records(), was)
	}
}

// each changes all records.
func (s *scriptStore) each(change func(record []byte) []byte) {
	for id, record := range s.Records() {
		s.Records()[id] = change(bytes.Clone(record))
	}
}

type scriptWorker struct {
	t     *testing.T
	conv  *d2c.Converter
	store *scriptStore
	now   time.Time
}

func newScriptWorker(t *testing.T, store *scriptStore, options ...func(*d2c.Config)) *scriptWorker {
	t.Helper()
	w := &scriptWorker{t: t, store: store, now: time.Unix(scriptEpoch, 0)}
	cfg := d2c.Config{MaxStale: time.Hour, Now: func() time.Time { return w.now }}
	for _, option := range options {
		option(&cfg)
	}
	conv, err := d2c.OpenShared(context.Background(), cfg, d2c.SharedConfig{
		Store: store, Owner: "script", Trouble: func(_ streamid.ID, err error) { store.trouble = append(store.trouble, err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	w.conv = conv
	return w
}

// window is in seconds. Without it a worker remembers no gaps, and a stream is not new for any time.
func window(seconds int) func(*d2c.Config) {
	return func(cfg *d2c.Config) { cfg.LateWindow = time.Duration(seconds) * time.Second }
}

const scriptEpoch = 1_700_000_000

func scriptTime(seconds float64) pcommon.Timestamp {
	return pcommon.Timestamp(scriptEpoch*1_000_000_000 + int64(math.Round(seconds*1e9)))
}

// delta is a point of a stream.
type delta struct {
	stream     string
	start, end float64
	value      int64
	marker     bool
}

func (d delta) put(ms pmetric.MetricSlice) {
	m := ms.AppendEmpty()
	m.SetName(d.stream)
	s := m.SetEmptySum()
	s.SetIsMonotonic(!strings.HasPrefix(d.stream, "updown"))
	s.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	dp := s.DataPoints().AppendEmpty()
	dp.SetStartTimestamp(scriptTime(d.start))
	dp.SetTimestamp(scriptTime(d.end))
	if d.marker {
		dp.SetFlags(noRecordedValue)
		return
	}
	dp.SetIntValue(d.value)
}

func deltas(ds ...delta) pmetric.Metrics {
	md := pmetric.NewMetrics()
	ms := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics()
	for _, d := range ds {
		d.put(ms)
	}
	return md
}

// add converts one delta of one stream. It returns what became of it as text: the outcome and the sample given out.
func (w *scriptWorker) add(start, end float64, value int64) string {
	w.t.Helper()
	return w.convert(delta{"requests", start, end, value, false})
}

// convert returns the outcomes, in the order of their declaration, and the samples.
func (w *scriptWorker) convert(ds ...delta) string {
	w.t.Helper()
	md := deltas(ds...)
	result, err := w.conv.Convert(context.Background(), md)
	return describeAnswer(md, result, err)
}

func describeAnswer(md pmetric.Metrics, result d2c.Result, err error) string {
	if err != nil {
		return "refused: " + err.Error()
	}
	var parts []string
	for o, n := range result.Counts() {
		switch {
		case n == 1:
			parts = append(parts, d2c.Outcome(o).String())
		case n > 1:
			parts = append(parts, fmt.Sprintf("%d %v", n, d2c.Outcome(o)))
		}
	}
	seconds := func(t pcommon.Timestamp) float64 { return float64(int64(t)-scriptEpoch*1_000_000_000) / 1e9 }
	forEachMetric(md, func(_ pmetric.ResourceMetrics, _ pmetric.ScopeMetrics, m pmetric.Metric) {
		for _, dp := range m.Sum().DataPoints().All() {
			value := fmt.Sprint(dp.IntValue())
			if dp.Flags().NoRecordedValue() {
				value = "no value"
			}
			parts = append(parts, fmt.Sprintf("(%v, %v] %s", seconds(dp.StartTimestamp()), seconds(dp.Timestamp()), value))
		}
	})
	return strings.Join(parts, " ")
}

func expect(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
}

func TestSharedAnyWorkerTakesAnyDelta(t *testing.T) {
	store := new(scriptStore)
	a, b, c := newScriptWorker(t, store), newScriptWorker(t, store), newScriptWorker(t, store)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	expect(t, b.add(1, 2, 10), "aligned (0, 2] 11")
	expect(t, c.add(2, 3, 100), "aligned (0, 3] 111")
	expect(t, a.add(3, 4, 1000), "aligned (0, 4] 1111")
	expect(t, c.add(4, 5, 10000), "aligned (0, 5] 11111")
	if store.Len() != 1 {
		t.Errorf("%d records, want 1", store.Len())
	}
}

func TestSharedRetryOnAnotherWorkerIsARepeat(t *testing.T) {
	store := new(scriptStore)
	a, b := newScriptWorker(t, store), newScriptWorker(t, store)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	expect(t, a.add(1, 2, 10), "aligned (0, 2] 11")
	// The client has not heard of it.
	expect(t, b.add(1, 2, 10), "repeat (0, 2] 11")
	expect(t, b.add(2, 3, 100), "aligned (0, 3] 111")
}

func TestSharedLostReplyIsARepeat(t *testing.T) {
	for _, elsewhere := range []bool{false, true} {
		store := new(scriptStore)
		a, b := newScriptWorker(t, store), newScriptWorker(t, store)
		expect(t, a.add(0, 1, 1), "first (0, 1] 1")
		store.once(func(swap func() error) error { return errors.Join(swap(), errStorage) })
		expect(t, a.add(1, 2, 10), "refused: d2c: shared state: storage is out")
		if elsewhere {
			expect(t, b.add(1, 2, 10), "repeat (0, 2] 11")
		}
		expect(t, a.add(1, 2, 10), "repeat (0, 2] 11")
		expect(t, a.add(2, 3, 100), "aligned (0, 3] 111")
	}
}

func TestSharedLostRequestChangesNothing(t *testing.T) {
	store := new(scriptStore)
	a, b := newScriptWorker(t, store), newScriptWorker(t, store)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	store.once(func(func() error) error { return errStorage })
	expect(t, a.add(1, 2, 10), "refused: d2c: shared state: storage is out")
	expect(t, b.add(1, 2, 10), "aligned (0, 2] 11")
	expect(t, a.add(2, 3, 100), "aligned (0, 3] 111")
}

// The network may do a request twice, and deliver the answer to the second one.
func TestSharedRequestDoneTwiceCountsOnce(t *testing.T) {
	store := new(scriptStore)
	a, b := newScriptWorker(t, store, window(60)), newScriptWorker(t, store, window(60))
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	store.once(func(swap func() error) error { return errors.Join(swap(), swap()) })
	expect(t, a.add(1, 2, 10), "aligned (0, 2] 11")
	// And another worker may have been there in between: what was counted is a repeat then.
	store.once(func(swap func() error) error {
		err := swap()
		expect(t, b.add(3, 4, 1000), "aligned (0, 4] 1111")
		return errors.Join(err, swap())
	})
	expect(t, a.add(2, 3, 100), "repeat (0, 4] 1111")
}

func TestSharedStaleWorkerReturns(t *testing.T) {
	store := new(scriptStore)
	minute := window(60)
	a, b := newScriptWorker(t, store, minute), newScriptWorker(t, store, minute)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	expect(t, b.add(1, 2, 10), "aligned (0, 2] 11")
	expect(t, b.add(2, 3, 100), "aligned (0, 3] 111")
	expect(t, a.add(3, 4, 1000), "aligned (0, 4] 1111")

	// What was aligned when it had left is not any more, and is not counted again.
	expect(t, b.add(4, 5, 10000), "aligned (0, 5] 11111")
	expect(t, a.add(4, 5, 10000), "repeat (0, 5] 11111")
	// A stale cache does not speak: not of what is a repeat to it either.
	expect(t, b.add(5, 6, 100000), "aligned (0, 6] 111111")
	expect(t, a.add(3, 4, 1000), "repeat (0, 6] 111111")
}

func TestSharedLateAndBeforeFirstAcrossWorkers(t *testing.T) {
	store := new(scriptStore)
	minute := window(60)
	a, b, c := newScriptWorker(t, store, minute), newScriptWorker(t, store, minute), newScriptWorker(t, store, minute)
	expect(t, a.add(2, 3, 1), "first (2, 3] 1")
	expect(t, b.add(4, 5, 10), "gap (2, 5] 11")
	expect(t, c.add(0, 1, 100), "before_first (0, 5.001] 111")
	expect(t, a.add(3, 4, 1000), "late (0, 5.002] 1111")
	expect(t, b.add(1, 2, 10000), "late (0, 5.003] 11111")
	expect(t, c.add(3, 4, 1000), "repeat (0, 5.003] 11111")
	expect(t, c.add(5, 6, 100000), "aligned (0, 6] 111111")
}

func TestSharedWipedStoreIsSeededAgain(t *testing.T) {
	store := new(scriptStore)
	a, b := newScriptWorker(t, store), newScriptWorker(t, store)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	expect(t, a.add(1, 2, 10), "aligned (0, 2] 11")
	store.wipe()
	expect(t, a.add(2, 3, 100), "aligned (0, 3] 111")
	expect(t, b.add(3, 4, 1000), "aligned (0, 4] 1111")
}

func TestSharedWipedStoreWithinTheLateWindowRestarts(t *testing.T) {
	store := new(scriptStore)
	a := newScriptWorker(t, store, window(2))
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	store.wipe()
	expect(t, a.add(1, 2, 10), "restart_lost (1, 2] 10")
	expect(t, a.add(2, 3, 100), "aligned (1, 3] 110")
	store.wipe() // which it survives now, as nothing comes before a restart
	expect(t, a.add(3, 4, 1000), "aligned (1, 4] 1110")
}

func TestSharedWipedStoreWithAGapRestarts(t *testing.T) {
	store := new(scriptStore)
	a, b := newScriptWorker(t, store), newScriptWorker(t, store)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	expect(t, a.add(1, 2, 10), "aligned (0, 2] 11")
	store.wipe()
	expect(t, a.add(3, 4, 1000), "restart_lost (3, 4] 1000")
	expect(t, a.add(2, 3, 100), "dropped_too_late") // of the old life
	expect(t, b.add(1, 2, 10), "dropped_too_late")
	expect(t, b.add(4, 5, 10000), "aligned (3, 5] 11000")
	expect(t, a.add(5, 6, 100000), "aligned (3, 6] 111000")
}

// An open gap may have been filled by somebody else.
func TestSharedWipedStoreWithAnOpenGapRestarts(t *testing.T) {
	store := new(scriptStore)
	a := newScriptWorker(t, store, window(3))
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	expect(t, a.add(1, 5, 1), "aligned (0, 5] 2")
	expect(t, a.add(6, 7, 10), "gap (0, 7] 12")
	expect(t, a.add(5, 5.5, 100), "late (0, 7.001] 112")
	store.wipe()
	// Not before the latest time given out, which is after the delta's start.
	expect(t, a.add(7, 8, 1000), "restart_lost (7.001, 8] 1000")
}

func TestSharedWipedStoreAndARepeat(t *testing.T) {
	store := new(scriptStore)
	a := newScriptWorker(t, store)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	expect(t, a.add(1, 2, 10), "aligned (0, 2] 11")
	store.wipe()
	// It may be the store that is right: what is known is not confirmed, and so not given out.
	expect(t, a.add(1, 2, 10), "dropped_too_late")
	expect(t, a.add(2, 3, 100), "aligned (0, 3] 111")
}

func TestSharedRollbackIsUndone(t *testing.T) {
	store := new(scriptStore)
	a, b := newScriptWorker(t, store), newScriptWorker(t, store)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	restore := store.backup()
	expect(t, a.add(1, 2, 10), "aligned (0, 2] 11")
	expect(t, a.add(2, 3, 100), "aligned (0, 3] 111")
	restore()
	expect(t, a.add(3, 4, 1000), "aligned (0, 4] 1111")
	expect(t, b.add(4, 5, 10000), "aligned (0, 5] 11111")
}

func TestSharedRollbackWithAGapRestarts(t *testing.T) {
	store := new(scriptStore)
	a, b := newScriptWorker(t, store), newScriptWorker(t, store)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	restore := store.backup()
	expect(t, a.add(1, 2, 10), "aligned (0, 2] 11")
	restore()
	expect(t, a.add(3, 4, 1000), "restart_lost (3, 4] 1000")
	expect(t, b.add(4, 5, 10000), "aligned (3, 5] 11000")
}

// A rollback that coincides with a move cannot be told from a gap by who comes next; but it can by who was there before.
func TestSharedValueBelowWhatWasGivenOutRestarts(t *testing.T) {
	store := new(scriptStore)
	a, b := newScriptWorker(t, store), newScriptWorker(t, store)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	restore := store.backup()
	expect(t, a.add(1, 2, 1000), "aligned (0, 2] 1001")
	restore()
	expect(t, b.add(2, 3, 10), "gap (0, 3] 11")
	expect(t, a.add(3, 4, 100), "restart_lost (3, 4] 100")
	expect(t, b.add(4, 5, 1), "aligned (3, 5] 101")
}

func TestSharedTimeBelowWhatWasGivenOutRestarts(t *testing.T) {
	store := new(scriptStore)
	a, b := newScriptWorker(t, store, window(60)), newScriptWorker(t, store, window(60))
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	restore := store.backup()
	expect(t, a.add(5, 6, 1), "gap (0, 6] 2")
	restore()
	expect(t, b.add(1, 2, 1000), "aligned (0, 2] 1001")
	expect(t, a.add(6, 7, 10), "restart_lost (6, 7] 10")
	expect(t, b.add(2, 3, 1), "dropped_too_late")
	expect(t, b.add(7, 8, 100), "aligned (6, 8] 110")
}

// An older value never resumes under an old start, even if the store has it.
func TestSharedOldLifeDoesNotResume(t *testing.T) {
	store := new(scriptStore)
	a := newScriptWorker(t, store)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	restore := store.backup()
	store.wipe()
	expect(t, a.add(2, 3, 10), "restart_lost (2, 3] 10")
	restore()
	expect(t, a.add(3, 4, 100), "restart_lost (3, 4] 100")
}

func TestSharedDamagedRecordIsSetAside(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"empty":    func([]byte) []byte { return []byte{} },
		"short":    func(b []byte) []byte { return b[:20] },
		"cut":      func(b []byte) []byte { return b[:len(b)-1] },
		"long":     func(b []byte) []byte { return append(b, 0) },
		"zeros":    func(b []byte) []byte { return make([]byte, len(b)) },
		"checksum": func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		"value":    func(b []byte) []byte { b[len(b)-9] ^= 1; return b },
		"version":  func(b []byte) []byte { b[0] = 0; return b },
	} {
		t.Run(name, func(t *testing.T) {
			store := new(scriptStore)
			a, b := newScriptWorker(t, store), newScriptWorker(t, store)
			expect(t, a.add(0, 1, 1), "first (0, 1] 1")
			expect(t, a.add(1, 2, 10), "aligned (0, 2] 11")
			store.each(damage)
			expect(t, b.add(2, 3, 100), "first (2, 3] 100")
			if len(store.trouble) != 1 || store.Aside() != 1 {
				t.Errorf("told of %v, %d set aside", store.trouble, store.Aside())
			}
			expect(t, b.add(3, 4, 1000), "aligned (2, 4] 1100")
		})
	}
}

func TestSharedDamagedRecordIsPutBack(t *testing.T) {
	store := new(scriptStore)
	a, b := newScriptWorker(t, store), newScriptWorker(t, store)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	expect(t, b.add(1, 2, 10), "aligned (0, 2] 11")
	store.each(func(b []byte) []byte { return b[:20] })
	expect(t, b.add(2, 3, 100), "aligned (0, 3] 111")
	expect(t, a.add(3, 4, 1000), "aligned (0, 4] 1111")
	store.each(func(b []byte) []byte { return b[:20] })
	expect(t, a.add(5, 6, 1), "restart_lost (5, 6] 1")
	if len(store.trouble) != 2 || store.Aside() != 2 {
		t.Errorf("told of %v, %d set aside", store.trouble, store.Aside())
	}
}

func TestSharedForeignRecordIsSetAside(t *testing.T) {
	for name, share := range map[string]func(*d2c.Config, *d2c.Shared){
		"owner": func(_ *d2c.Config, s *d2c.Shared) { s.Owner = "somebody else" },
		"seed":  func(c *d2c.Config, _ *d2c.Shared) { c.Seed = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			store := new(scriptStore)
			a := newScriptWorker(t, store)
			var cfg d2c.Config
			shared := d2c.SharedConfig{Store: new(store.Memory), Owner: "script"}
			share(&cfg, &shared)
			foreigner, err := d2c.OpenShared(context.Background(), cfg, shared)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := foreigner.Convert(context.Background(), deltas(delta{"requests", 0, 1, 500, false})); err != nil {
				t.Fatal(err)
			}
			expect(t, a.add(0, 1, 1), "first (0, 1] 1")
			id := onlyShared(store.Records())
			theirs := shared.Store.(*store.Memory).Records()
			store.Records()[id] = theirs[onlyShared(theirs)]

			b := newScriptWorker(t, store)
			expect(t, b.add(1, 2, 10), "first (1, 2] 10")
			if len(store.trouble) != 1 || !errors.Is(store.trouble[0], d2c.ErrOwner) || store.Aside() != 1 {
				t.Errorf("told of %v, %d set aside", store.trouble, store.Aside())
			}
		})
	}
}

// The record of another stream, sound as it is, is not this one's.
func TestSharedRecordOfAnotherStreamIsSetAside(t *testing.T) {
	store := new(scriptStore)
	a := newScriptWorker(t, store)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	id := onlyShared(store.Records())
	expect(t, a.convert(delta{"other", 0, 1, 500, false}), "first (0, 1] 500")
	for other, record := range store.Records() {
		if other != id {
			store.Records()[id] = record
		}
	}
	expect(t, newScriptWorker(t, store).add(1, 2, 10), "first (1, 2] 10")
	if len(store.trouble) != 1 || store.Aside() != 1 {
		t.Errorf("told of %v, %d set aside", store.trouble, store.Aside())
	}
}

func onlyShared[V any](m map[streamid.ID]V) streamid.ID {
	for id := range m {
		return id
	}
	panic("empty")
}

func TestSharedNewerVersionRefusesUntilItIsGone(t *testing.T) {
	store := new(scriptStore)
	a, b := newScriptWorker(t, store), newScriptWorker(t, store)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	expect(t, b.add(1, 2, 10), "aligned (0, 2] 11")
	restore := store.backup()
	store.each(func(b []byte) []byte {
		b[0] = 2
		b[5] ^= 0xff
		binary.LittleEndian.PutUint64(b[len(b)-8:], xxh3.Hash(b[:len(b)-8])) // which every version ends with
		return b
	})
	for _, w := range []*scriptWorker{a, b, newScriptWorker(t, store)} {
		_, err := w.conv.Convert(context.Background(), deltas(delta{"requests", 2, 3, 100, false}, delta{"other", 2, 3, 100, false}))
		if !errors.Is(err, d2c.ErrVersion) {
			t.Fatalf("got %v, want ErrVersion", err)
		}
	}
	if store.Aside() != 0 || len(store.trouble) != 0 {
		t.Errorf("told of %v, %d set aside", store.trouble, store.Aside())
	}
	restore()
	expect(t, a.add(2, 3, 100), "aligned (0, 3] 111")
	expect(t, b.add(3, 4, 1000), "aligned (0, 4] 1111")
}

func TestSharedContendedStreamIsRefused(t *testing.T) {
	store := new(scriptStore)
	a, b := newScriptWorker(t, store), newScriptWorker(t, store)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	at, others := 1.0, 0
	contend := func(swap func() error) error {
		on := store.on
		store.on = nil
		b.add(at, at+1, 1)
		others++
		at++
		store.on = on
		return swap()
	}
	store.on = contend
	batch := deltas(delta{"requests", 100, 101, 1, false})
	before, err := (&pmetric.ProtoMarshaler{}).MarshalMetrics(batch)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.conv.Convert(context.Background(), batch); !errors.Is(err, d2c.ErrContended) {
		t.Fatalf("got %v, want ErrContended", err)
	}
	after, err := (&pmetric.ProtoMarshaler{}).MarshalMetrics(batch)
	if err != nil || !bytes.Equal(before, after) {
		t.Error("a refused batch has changed")
	}
	if others != 16 {
		t.Errorf("%d tries, want 16", others)
	}
	store.on = nil
	expect(t, a.add(100, 101, 1), "gap (0, 101] 18")
}

func TestSharedConflictOfOneStreamOfTwo(t *testing.T) {
	store := new(scriptStore)
	a, b := newScriptWorker(t, store), newScriptWorker(t, store)
	expect(t, a.convert(delta{"x", 0, 1, 1, false}, delta{"y", 0, 1, 5, false}), "2 first (0, 1] 1 (0, 1] 5")
	expect(t, b.convert(delta{"y", 1, 2, 50, false}), "aligned (0, 2] 55")
	store.swaps = 0
	expect(t, a.convert(delta{"x", 1, 2, 10, false}, delta{"y", 2, 3, 500, false}), "2 aligned (0, 2] 11 (0, 3] 555")
	if store.swaps != 2 {
		t.Errorf("%d swaps, want 2", store.swaps)
	}
	expect(t, b.convert(delta{"x", 2, 3, 100, false}, delta{"y", 3, 4, 5000, false}), "2 aligned (0, 3] 111 (0, 4] 5555")
}

func TestSharedRefoldCountsOnce(t *testing.T) {
	store := new(scriptStore)
	a, b := newScriptWorker(t, store, window(60)), newScriptWorker(t, store, window(60))
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	expect(t, b.add(1, 4, 10), "aligned (0, 4] 11")
	// To a's cache there is a gap of 4 s, in truth it is 1 s; one point is a gap to one and late to the other.
	md := deltas(delta{"requests", 5, 6, 100, false}, delta{"requests", 4, 4.5, 1000, false}, delta{"fresh", 5, 6, 7, false})
	result, err := a.conv.Convert(context.Background(), md)
	expect(t, describeAnswer(md, result, err), "first aligned gap (0, 6] 1111 (0, 4.5] 1011 (5, 6] 7")
	if result.GapOpened != 500*time.Millisecond || result.GapFilled != 0 {
		t.Errorf("gaps %v opened, %v filled, want 500ms, 0s", result.GapOpened, result.GapFilled)
	}
	md = deltas(delta{"requests", 4.5, 5, 10000, false})
	result, err = b.conv.Convert(context.Background(), md)
	expect(t, describeAnswer(md, result, err), "late (0, 6.001] 11111")
	if result.GapOpened != 0 || result.GapFilled != 500*time.Millisecond {
		t.Errorf("gaps %v opened, %v filled, want 0s, 500ms", result.GapOpened, result.GapFilled)
	}
}

func TestSharedMaxStaleEvictsTheCacheOnly(t *testing.T) {
	store := new(scriptStore)
	a := newScriptWorker(t, store)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	a.now = a.now.Add(2 * time.Hour)
	if n := a.conv.Expire(); n != 1 || a.conv.Len() != 0 || store.Len() != 1 {
		t.Fatalf("%d expired, %d left, %d in the store", n, a.conv.Len(), store.Len())
	}
	expect(t, a.add(1, 2, 10), "aligned (0, 2] 11")
	if a.conv.Len() != 1 {
		t.Errorf("%d streams, want 1", a.conv.Len())
	}
}

// A worker that comes up with nothing goes on from the store.
func TestSharedNewWorkerContinues(t *testing.T) {
	store := new(scriptStore)
	for i := range 5 {
		w := newScriptWorker(t, store)
		want := fmt.Sprintf("aligned (0, %d] %d", i+1, i+1)
		if i == 0 {
			want = "first (0, 1] 1"
		}
		expect(t, w.add(float64(i), float64(i+1), 1), want)
	}
}

func TestSharedMarkers(t *testing.T) {
	store := new(scriptStore)
	a, b := newScriptWorker(t, store), newScriptWorker(t, store)
	marker := func(at float64) delta { return delta{stream: "requests", end: at, start: at, marker: true} }
	expect(t, a.convert(marker(1)), "no_recorded_value (1, 1] no value") // of a stream that nobody knows
	if a.conv.Len() != 0 || store.Len() != 0 {
		t.Errorf("%d streams, %d records", a.conv.Len(), store.Len())
	}
	expect(t, a.add(1, 2, 1), "first (1, 2] 1")
	expect(t, b.convert(marker(3)), "no_recorded_value (1, 3] no value")
	expect(t, a.add(1, 2, 1), "repeat (1, 3.001] 1")
	expect(t, b.add(1, 2, 1), "repeat (1, 3.001] 1")
	expect(t, a.convert(marker(2)), "dropped_too_late")
}

// Batches that come while a commit is under way make the next one together, each with its own answer.
func TestSharedGroupOfBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := new(scriptStore)
		a, b := newScriptWorker(t, store), newScriptWorker(t, store)
		expect(t, a.add(0, 1, 1), "first (0, 1] 1")
		expect(t, b.add(1, 2, 10), "aligned (0, 2] 11") // a's cache is stale now

		release := make(chan struct{})
		store.once(func(swap func() error) error {
			<-release
			return swap()
		})
		var wg sync.WaitGroup
		answers := make([]string, 5)
		for i := range answers {
			wg.Go(func() {
				answers[i] = a.convert(delta{"requests", float64(2 + i), float64(3 + i), 100, false}, delta{fmt.Sprint(i), 0, 1, 5, false})
			})
			synctest.Wait()
		}
		close(release)
		wg.Wait()
		for i, got := range answers {
			expect(t, got, fmt.Sprintf("first aligned (0, %d] %d (0, 1] 5", 3+i, 111+100*i))
		}
		if store.swaps != 3+2+1 { // before; the first of these, and again after the conflict; the other four together
			t.Errorf("%d swaps, want 6", store.swaps)
		}
		if a.conv.Len() != 6 || store.Len() != 6 {
			t.Errorf("%d streams, %d records, want 6", a.conv.Len(), store.Len())
		}
	})
}

// A group that fails leaves all of its batches and streams as they were.
func TestSharedGroupThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := new(scriptStore)
		a := newScriptWorker(t, store)
		expect(t, a.add(0, 1, 1), "first (0, 1] 1")
		release := make(chan struct{})
		n := 0
		store.on = func(swap func() error) error {
			if n++; n == 1 {
				<-release
				return swap()
			}
			return errStorage
		}
		var wg sync.WaitGroup
		answers := make([]string, 3)
		for i := range answers {
			wg.Go(func() { answers[i] = a.add(float64(1+i), float64(2+i), 10) })
			synctest.Wait()
		}
		close(release)
		wg.Wait()
		expect(t, answers[0], "aligned (0, 2] 11")
		for _, got := range answers[1:] {
			expect(t, got, "refused: d2c: shared state: storage is out")
		}
		store.on = nil
		expect(t, a.add(2, 3, 10), "aligned (0, 3] 21")
		expect(t, a.add(3, 4, 10), "aligned (0, 4] 31")
	})
}

func TestSharedSetAsideMayFail(t *testing.T) {
	store := &refusingStore{}
	conv, err := d2c.OpenShared(context.Background(), d2c.Config{}, d2c.SharedConfig{Store: store, Owner: "script"})
	if err != nil {
		t.Fatal(err)
	}
	convert := func() string {
		md := deltas(delta{"requests", 0, 1, 1, false})
		result, err := conv.Convert(context.Background(), md)
		return describeAnswer(md, result, err)
	}
	expect(t, convert(), "first (0, 1] 1")
	for id := range store.Records() {
		store.Records()[id] = []byte("\x01")
	}
	other, err := d2c.OpenShared(context.Background(), d2c.Config{}, d2c.SharedConfig{Store: store, Owner: "script"})
	if err != nil {
		t.Fatal(err)
	}
	conv = other
	if got := convert(); !strings.HasPrefix(got, "refused: ") || !strings.Contains(got, errStorage.Error()) {
		t.Errorf("got %s", got)
	}
	if conv.Len() != 0 {
		t.Errorf("%d streams", conv.Len())
	}
}

// refusingStore cannot set anything aside.
type refusingStore struct{ store.Memory }

func (*refusingStore) SetAside(context.Context, streamid.ID, []byte) error { return errStorage }

func TestShareRefuses(t *testing.T) {
	if _, err := d2c.OpenShared(context.Background(), d2c.Config{}, d2c.SharedConfig{}); err == nil || !strings.Contains(err.Error(), "Shared.Store") {
		t.Errorf("without a store: %v", err)
	}
	if _, err := d2c.OpenShared(context.Background(), d2c.Config{LateWindow: -1}, d2c.SharedConfig{Store: new(store.Memory)}); err == nil || !strings.Contains(err.Error(), "LateWindow") {
		t.Errorf("with a negative window: %v", err)
	}
}

func TestSharedClose(t *testing.T) {
	a := newScriptWorker(t, new(scriptStore))
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	if err := a.conv.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	expect(t, a.add(1, 2, 1), "refused: "+d2c.ErrClosed.Error())
}

// What follows fails. Where the store loses a record between two of the swaps of one call, the worker forgets what it had
// just read: it decides by its cache alone, or as if it knew nothing.

// loseBetween makes the store lose everything after a call has read from it and before it swaps again.
func (s *scriptStore) loseBetween() {
	s.once(func(swap func() error) error {
		err := swap()
		s.wipe()
		return err
	})
}

func TestSharedReadRecordIsLostBeforeTheNextSwap(t *testing.T) {
	store := new(scriptStore)
	a, b := newScriptWorker(t, store, window(60)), newScriptWorker(t, store, window(60))
	expect(t, a.add(0, 5, 1), "first (0, 5] 1")
	store.loseBetween()
	// b has just read that (0, 5] was given out.
	expect(t, b.add(2, 3, 10), "dropped_too_late")
}

func TestSharedReadRecordBoundsTheRestart(t *testing.T) {
	store := new(scriptStore)
	a, b := newScriptWorker(t, store, window(60)), newScriptWorker(t, store, window(60))
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	expect(t, b.add(2, 3, 10), "gap (0, 3] 11")
	expect(t, b.add(1, 2, 100), "late (0, 3.001] 111")
	store.loseBetween()
	// a has just read that 3.001 was given out.
	expect(t, a.add(3, 4, 1000), "restart_lost (3.001, 4] 1000")
}

// An answer is given that the store has not confirmed, and what is cached has the tag of no record: it needs no proof to be
// put into an empty store.
func TestSharedNothingStandsOnNothing(t *testing.T) {
	store := new(scriptStore)
	a, b := newScriptWorker(t, store, window(5)), newScriptWorker(t, store, window(5))
	expect(t, a.add(0, 10, 1), "first (0, 10] 1")
	expect(t, b.add(10, 11, 10), "aligned (0, 11] 11")
	expect(t, b.add(11, 12, 100), "aligned (0, 12] 111")
	store.loseBetween()
	// A retry that is aligned with a's cache: proof of nothing, as a has just read better.
	if got := a.add(10, 11, 10); store.Len() == 0 && strings.HasPrefix(got, "repeat") {
		t.Errorf("got %s of an empty store", got)
	}
	expect(t, b.add(12, 13, 1000), "aligned (0, 13] 1111")
	store.wipe()
	if got := a.add(13, 14, 1); !strings.HasPrefix(got, "restart_lost") {
		t.Errorf("got %s, though b gave out (0, 13] 1111; want a restart", got)
	}
}

// What follows fails: a record that cannot follow on what this worker gave out is not recognised.

// The store has gone back to a life before the one this worker gave out, and others have added to that.
func TestSharedOldLifeThatMovedOnDoesNotResume(t *testing.T) {
	store := new(scriptStore)
	a, b := newScriptWorker(t, store), newScriptWorker(t, store)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	restore := store.backup()
	store.wipe()
	expect(t, a.add(2, 3, 10), "restart_lost (2, 3] 10")
	expect(t, a.add(3, 4, 1), "aligned (2, 4] 11")
	restore()
	expect(t, b.add(5, 6, 500), "gap (0, 6] 501")
	expect(t, a.add(6, 7, 100), "restart_lost (6, 7] 100")
}

// Another worker has begun a life before the latest time that this one gave out.
func TestSharedLifeBeforeWhatWasGivenOutIsNotFollowed(t *testing.T) {
	store := new(scriptStore)
	a, b := newScriptWorker(t, store, window(60)), newScriptWorker(t, store, window(60))
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	expect(t, b.add(1, 2, 10), "aligned (0, 2] 11")
	store.wipe()
	expect(t, a.add(1, 2, 10), "restart_lost (1, 2] 10") // which could not know
	if got := b.add(1, 2, 10); strings.HasSuffix(got, ", 2] 10") {
		t.Errorf("got %s from the worker that gave out (0, 2] 11", got)
	}
}

// The store has gone back, and others have given out another value at the time of this worker's latest.
func TestSharedOtherValueAtTheSameTime(t *testing.T) {
	store := new(scriptStore)
	a, b := newScriptWorker(t, store, window(60)), newScriptWorker(t, store, window(60))
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	expect(t, a.add(3, 4, 10), "gap (0, 4] 11")
	restore := store.backup()
	expect(t, a.add(1, 2, 100), "late (0, 4.001] 111")
	restore()
	expect(t, b.add(2, 3, 1000), "late (0, 4.001] 1011")
	if got := a.add(2, 3, 1000); strings.HasSuffix(got, "(0, 4.001] 1011") {
		t.Errorf("got %s from the worker that gave out (0, 4.001] 111", got)
	}
}

// What is true of deltas is true of markers: the batch that has nothing but a marker of a stream looks at its value too.
func TestSharedMarkerDoesNotHideARollback(t *testing.T) {
	store := new(scriptStore)
	a, b := newScriptWorker(t, store), newScriptWorker(t, store)
	marker := func(at float64) delta { return delta{stream: "requests", start: at, end: at, marker: true} }
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	restore := store.backup()
	expect(t, a.add(1, 2, 1000), "aligned (0, 2] 1001")
	restore()
	expect(t, b.convert(marker(3)), "no_recorded_value (0, 3] no value")
	a.convert(marker(4))
	expect(t, a.add(4, 5, 1), "restart_lost (4, 5] 1")
}

// The store has gone back and others have gone on from there, past what this worker knows: its state is not newer, and the
// retry it gets is aligned with it by chance.
func TestSharedWorkerThatIsNotNewerDoesNotPutBack(t *testing.T) {
	store := new(scriptStore)
	a, b := newScriptWorker(t, store), newScriptWorker(t, store)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	restore := store.backup()
	expect(t, a.add(1, 2, 1000), "aligned (0, 2] 1001")
	restore()
	expect(t, b.add(2, 3, 10), "gap (0, 3] 11")
	expect(t, b.add(3, 4, 100), "aligned (0, 4] 111")
	// Not (0, 3] 1011: b gave out (0, 3] 11 and (0, 4] 111, and the latter's delta would be gone.
	expect(t, a.add(2, 3, 10), "dropped_too_late")
	expect(t, a.add(4, 5, 1), "restart_lost (4, 5] 1")
}
