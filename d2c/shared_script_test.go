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
	"math/bits"
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

// Each test here is one sentence of "Shared state" in the package comment, as a script: who gets which delta, what happens to the store, and
// what is given out. Times are seconds.

// rawStore is a store.Shared with its records in reach. It has one group, and knows no units.
type rawStore struct {
	life    store.Life
	records map[streamid.ID]rawRecord
	aside   int // how many were set aside; negative: none can be
}

// rawRecord is a record and its tag.
type rawRecord struct {
	tag    uint64
	record []byte
}

func (s *rawStore) Lives(_ context.Context, proposed store.Life) ([]store.Life, error) {
	if s.life.ID == 0 {
		s.life = proposed
	}
	return []store.Life{s.life}, nil
}

func (s *rawStore) Swap(_ context.Context, swaps []store.Swap) ([]store.Result, error) {
	results := make([]store.Result, len(swaps))
	for i := range swaps {
		swap, there := &swaps[i], s.records[swaps[i].ID]
		switch {
		case s.life.ID == 0 || s.life.ID != swap.Life:
			results[i].Status = store.OtherLife
		case there.tag != swap.Base:
			results[i] = store.Result{Status: store.Changed, Tag: there.tag, Record: bytes.Clone(there.record)}
		case swap.Record != nil:
			s.put(swap.ID, rawRecord{swap.Tag, bytes.Clone(swap.Record)})
		}
	}
	return results, nil
}

func (s *rawStore) SetAside(_ context.Context, id streamid.ID, record []byte) error {
	if s.aside < 0 {
		return errStorage
	}
	if there, ok := s.records[id]; ok && bytes.Equal(there.record, record) {
		delete(s.records, id)
		s.aside++
	}
	return nil
}

func (s *rawStore) put(id streamid.ID, r rawRecord) {
	if s.records == nil {
		s.records = map[streamid.ID]rawRecord{}
	}
	s.records[id] = r
}

// scriptStore is a store to which things happen.
type scriptStore struct {
	rawStore
	// on, if not nil, is asked to do each Swap.
	on func(swap func() error) error
	// swaps counts calls.
	swaps   int
	damaged []error
	// told, if not nil, makes it a store.Reader, and is asked what to say of a stream.
	told  func(id streamid.ID) (store.Result, error)
	reads int
}

// readStore is a scriptStore that can be read.
type readStore struct{ *scriptStore }

func (s readStore) Read(_ context.Context, ids []streamid.ID) (results []store.Result, err error) {
	s.reads++
	for _, id := range ids {
		r, err := s.told(id)
		if err != nil {
			return nil, err
		}
		results = append(results, r)
	}
	return results, nil
}

// there is what a store says that tells the truth.
func (s *scriptStore) there(id streamid.ID) store.Result {
	r := s.records[id]
	return store.Result{Status: store.Changed, Tag: r.tag, Record: bytes.Clone(r.record)}
}

func (s *scriptStore) Swap(ctx context.Context, swaps []store.Swap) (results []store.Result, err error) {
	s.swaps++
	swap := func() error {
		results, err = s.rawStore.Swap(ctx, swaps)
		return err
	}
	if s.on == nil {
		return results, swap()
	}
	err = s.on(swap)
	return results, err
}

// once makes the next Swap, and only that, happen in another way.
func (s *scriptStore) once(on func(swap func() error) error) {
	s.on = func(swap func() error) error {
		s.on = nil
		return on(swap)
	}
}

// wipe ends the life of the store.
func (s *scriptStore) wipe() { s.life, s.records = store.Life{}, nil }

// evict loses the records, and nothing says so.
func (s *scriptStore) evict() { s.records = nil }

// backup returns a function that takes the records back to what they are now, and nothing says so.
func (s *scriptStore) backup() (restore func()) {
	was := maps.Clone(s.records)
	return func() { s.records = maps.Clone(was) }
}

// each changes all records.
func (s *scriptStore) each(change func(record []byte) []byte) {
	for id, r := range s.records {
		s.records[id] = rawRecord{r.tag, change(bytes.Clone(r.record))}
	}
}

// newer makes the record of a stream one of format version 3: the checksum is in the same place in all of them.
func newer(id streamid.ID, r rawRecord) rawRecord {
	record, tag := bytes.Clone(r.record), r.tag+2
	record[0] = 3
	return rawRecord{tag, sealShared(record, id, tag)}
}

// sealShared returns a record with the checksum that it must have as that of a stream under a tag.
func sealShared(record []byte, id streamid.ID, tag uint64) []byte {
	record = bytes.Clone(record)
	body, seed := record[:len(record)-8], tag
	if record[0] != 1 {
		seed ^= id.Hi ^ bits.RotateLeft64(id.Lo, 32)
	}
	binary.LittleEndian.PutUint64(record[len(body):], xxh3.HashSeed(body, seed))
	return record
}

type scriptWorker struct {
	t     *testing.T
	conv  *d2c.Converter
	st    *scriptStore
	now   time.Time
	route d2c.Route // by which all batches come, if not zero
}

func newScriptWorker(t *testing.T, st *scriptStore, options ...func(*d2c.Config)) *scriptWorker {
	t.Helper()
	w := scriptWorkerAt(t, st, -1, options...) // so that the floor of a new store is at 0
	w.now = time.Unix(scriptEpoch, 0)
	return w
}

// scriptWorkerAt is a worker that begins at some second.
func scriptWorkerAt(t *testing.T, st *scriptStore, second int64, options ...func(*d2c.Config)) *scriptWorker {
	t.Helper()
	w := &scriptWorker{t: t, st: st, now: time.Unix(scriptEpoch+second, 0)}
	cfg := d2c.Config{MaxStale: time.Hour, Now: func() time.Time { return w.now }}
	for _, option := range options {
		option(&cfg)
	}
	var shared store.Shared = st
	if st.told != nil {
		shared = readStore{st}
	}
	conv, err := d2c.OpenShared(context.Background(), cfg, d2c.SharedConfig{
		Store: shared, Owner: "script", OnDamaged: func(_ streamid.ID, err error) { st.damaged = append(st.damaged, err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	w.conv = conv
	return w
}

// routed makes all batches of the workers come by one route.
func routed(workers ...*scriptWorker) {
	for i, w := range workers {
		w.route = d2c.Route{Epoch: 1, Member: fmt.Sprint("worker ", i)}
	}
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
	ctx := context.Background()
	if w.route.Member != "" {
		ctx = d2c.WithRoute(ctx, w.route)
	}
	result, err := w.conv.Convert(ctx, md)
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
	st := new(scriptStore)
	a, b, c := newScriptWorker(t, st), newScriptWorker(t, st), newScriptWorker(t, st)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	expect(t, b.add(1, 2, 10), "aligned (0, 2] 11")
	expect(t, c.add(2, 3, 100), "aligned (0, 3] 111")
	expect(t, a.add(3, 4, 1000), "aligned (0, 4] 1111")
	expect(t, c.add(4, 5, 10000), "aligned (0, 5] 11111")
	if len(st.records) != 1 {
		t.Errorf("%d records, want 1", len(st.records))
	}
}

func TestSharedRetryOnAnotherWorkerIsARepeat(t *testing.T) {
	st := new(scriptStore)
	a, b := newScriptWorker(t, st), newScriptWorker(t, st)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	expect(t, a.add(1, 2, 10), "aligned (0, 2] 11")
	// The client has not heard of it.
	expect(t, b.add(1, 2, 10), "repeat (0, 2] 11")
	expect(t, b.add(2, 3, 100), "aligned (0, 3] 111")
}

func TestSharedLostReplyIsARepeat(t *testing.T) {
	for _, elsewhere := range []bool{false, true} {
		st := new(scriptStore)
		a, b := newScriptWorker(t, st), newScriptWorker(t, st)
		expect(t, a.add(0, 1, 1), "first (0, 1] 1")
		st.once(func(swap func() error) error { return errors.Join(swap(), errStorage) })
		expect(t, a.add(1, 2, 10), "refused: d2c: shared state: storage is out")
		if elsewhere {
			expect(t, b.add(1, 2, 10), "repeat (0, 2] 11")
		}
		expect(t, a.add(1, 2, 10), "repeat (0, 2] 11")
		expect(t, a.add(2, 3, 100), "aligned (0, 3] 111")
	}
}

func TestSharedLostRequestChangesNothing(t *testing.T) {
	st := new(scriptStore)
	a, b := newScriptWorker(t, st), newScriptWorker(t, st)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	st.once(func(func() error) error { return errStorage })
	expect(t, a.add(1, 2, 10), "refused: d2c: shared state: storage is out")
	expect(t, b.add(1, 2, 10), "aligned (0, 2] 11")
	expect(t, a.add(2, 3, 100), "aligned (0, 3] 111")
}

// The network may do a request twice, and deliver the answer to the second one.
func TestSharedRequestDoneTwiceCountsOnce(t *testing.T) {
	st := new(scriptStore)
	a, b := newScriptWorker(t, st, window(60)), newScriptWorker(t, st, window(60))
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	st.once(func(swap func() error) error { return errors.Join(swap(), swap()) })
	expect(t, a.add(1, 2, 10), "aligned (0, 2] 11")
	// And another worker may have been there in between: what was counted is covered then.
	st.once(func(swap func() error) error {
		err := swap()
		expect(t, b.add(3, 4, 1000), "aligned (0, 4] 1111")
		return errors.Join(err, swap())
	})
	expect(t, a.add(2, 3, 100), "covered (0, 4] 1111")
}

func TestSharedStaleWorkerReturns(t *testing.T) {
	st := new(scriptStore)
	minute := window(60)
	a, b := newScriptWorker(t, st, minute), newScriptWorker(t, st, minute)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	expect(t, b.add(1, 2, 10), "aligned (0, 2] 11")
	expect(t, b.add(2, 3, 100), "aligned (0, 3] 111")
	expect(t, a.add(3, 4, 1000), "aligned (0, 4] 1111")

	// What was aligned when it had left is not any more, and is not counted again.
	expect(t, b.add(4, 5, 10000), "aligned (0, 5] 11111")
	expect(t, a.add(4, 5, 10000), "repeat (0, 5] 11111")
	// A stale cache does not speak: not of what is a repeat to it either.
	expect(t, b.add(5, 6, 100000), "aligned (0, 6] 111111")
	expect(t, a.add(3, 4, 1000), "covered (0, 6] 111111")
	expect(t, a.add(5, 6, 100000), "repeat (0, 6] 111111")
}

func TestSharedLateAndBeforeFirstAcrossWorkers(t *testing.T) {
	st := new(scriptStore)
	minute := window(60)
	a, b, c := newScriptWorker(t, st, minute), newScriptWorker(t, st, minute), newScriptWorker(t, st, minute)
	expect(t, a.add(2, 3, 1), "first (2, 3] 1")
	expect(t, b.add(4, 5, 10), "gap (2, 5] 11")
	expect(t, c.add(0, 1, 100), "before_first (0, 5.001] 111")
	expect(t, a.add(3, 4, 1000), "late (0, 5.002] 1111")
	expect(t, b.add(1, 2, 10000), "late (0, 5.003] 11111")
	expect(t, c.add(1, 2, 10000), "repeat (0, 5.003] 11111")
	expect(t, c.add(3, 4, 1000), "covered (0, 5.003] 11111")
	expect(t, c.add(5, 6, 100000), "aligned (0, 6] 111111")
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
			st := new(scriptStore)
			a, b := newScriptWorker(t, st), newScriptWorker(t, st)
			expect(t, a.add(0, 1, 1), "first (0, 1] 1")
			expect(t, a.add(1, 2, 10), "aligned (0, 2] 11")
			st.each(damage)
			expect(t, b.add(2, 3, 100), "first (2, 3] 100")
			if len(st.damaged) != 1 || st.aside != 1 {
				t.Errorf("told of %v, %d set aside", st.damaged, st.aside)
			}
			expect(t, b.add(3, 4, 1000), "aligned (2, 4] 1100")
		})
	}
}

// The tag is beside the record: who has the record of that tag in its cache does not read what is there, and so mends it. Others had
// to set it aside.
func TestSharedDamagedRecordIsPutBack(t *testing.T) {
	st := new(scriptStore)
	a, b := newScriptWorker(t, st), newScriptWorker(t, st)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	expect(t, b.add(1, 2, 10), "aligned (0, 2] 11")
	st.each(func(b []byte) []byte { return b[:20] })
	expect(t, b.add(2, 3, 100), "aligned (0, 3] 111")
	expect(t, a.add(3, 4, 1000), "aligned (0, 4] 1111")
	if len(st.damaged) != 0 || st.aside != 0 {
		t.Errorf("told of %v, %d set aside", st.damaged, st.aside)
	}
	// To a worker with a stale cache it is lost.
	st.each(func(b []byte) []byte { return b[:20] })
	expect(t, b.add(4, 5, 1), "restart_lost (4, 5] 1")
	expect(t, a.add(5, 6, 10), "aligned (4, 6] 11")
	if len(st.damaged) != 1 || st.aside != 1 {
		t.Errorf("told of %v, %d set aside", st.damaged, st.aside)
	}
}

func TestSharedForeignRecordIsSetAside(t *testing.T) {
	for name, share := range map[string]func(*d2c.Config, *d2c.SharedConfig){
		"owner": func(_ *d2c.Config, s *d2c.SharedConfig) { s.Owner = "somebody else" },
		"seed":  func(c *d2c.Config, _ *d2c.SharedConfig) { c.Seed = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			st := new(scriptStore)
			a := newScriptWorker(t, st)
			theirs := new(scriptStore)
			foreigner := newScriptWorker(t, theirs)
			cfg := d2c.Config{Now: func() time.Time { return foreigner.now }}
			sc := d2c.SharedConfig{Store: theirs, Owner: "script"}
			share(&cfg, &sc)
			var err error
			if foreigner.conv, err = d2c.OpenShared(context.Background(), cfg, sc); err != nil {
				t.Fatal(err)
			}
			expect(t, foreigner.add(0, 1, 500), "first (0, 1] 500")
			expect(t, a.add(0, 1, 1), "first (0, 1] 1")
			id, r := onlyShared(st.records), theirs.records[onlyShared(theirs.records)]
			st.records[id] = rawRecord{r.tag, sealShared(r.record, id, r.tag)} // with another seed it is another stream's

			b := newScriptWorker(t, st)
			expect(t, b.add(1, 2, 10), "first (1, 2] 10")
			if len(st.damaged) != 1 || !errors.Is(st.damaged[0], d2c.ErrOwner) || st.aside != 1 {
				t.Errorf("told of %v, %d set aside", st.damaged, st.aside)
			}
		})
	}
}

// The record of another stream, sound as it is, is not this one's.
func TestSharedRecordOfAnotherStreamIsSetAside(t *testing.T) {
	st := new(scriptStore)
	a := newScriptWorker(t, st)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	id := onlyShared(st.records)
	expect(t, a.convert(delta{"other", 0, 1, 500, false}), "first (0, 1] 500")
	for other, record := range st.records {
		if other != id {
			st.records[id] = record
		}
	}
	expect(t, newScriptWorker(t, st).add(1, 2, 10), "first (1, 2] 10")
	if len(st.damaged) != 1 || st.aside != 1 {
		t.Errorf("told of %v, %d set aside", st.damaged, st.aside)
	}
}

func onlyShared[V any](m map[streamid.ID]V) streamid.ID {
	for id := range m {
		return id
	}
	panic("empty")
}

func TestSharedNewerVersionRefusesUntilItIsGone(t *testing.T) {
	st := new(scriptStore)
	a, b := newScriptWorker(t, st), newScriptWorker(t, st)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	expect(t, b.add(1, 2, 10), "aligned (0, 2] 11")
	restore := st.backup()
	for id, r := range st.records {
		st.records[id] = newer(id, r)
	}
	for _, w := range []*scriptWorker{a, b, newScriptWorker(t, st)} {
		_, err := w.conv.Convert(context.Background(), deltas(delta{"requests", 2, 3, 100, false}, delta{"other", 2, 3, 100, false}))
		if !errors.Is(err, d2c.ErrVersion) {
			t.Fatalf("got %v, want ErrVersion", err)
		}
	}
	if st.aside != 0 || len(st.damaged) != 0 {
		t.Errorf("told of %v, %d set aside", st.damaged, st.aside)
	}
	restore()
	expect(t, a.add(2, 3, 100), "aligned (0, 3] 111")
	expect(t, b.add(3, 4, 1000), "aligned (0, 4] 1111")
}

func TestSharedContendedStreamIsRefused(t *testing.T) {
	st := new(scriptStore)
	a, b := newScriptWorker(t, st), newScriptWorker(t, st)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	at, others := 1.0, 0
	contend := func(swap func() error) error {
		on := st.on
		st.on = nil
		b.add(at, at+1, 1)
		others++
		at++
		st.on = on
		return swap()
	}
	st.on = contend
	batch := deltas(delta{"requests", 100, 101, 1, false})
	before := marshal(batch)
	if _, err := a.conv.Convert(context.Background(), batch); !errors.Is(err, d2c.ErrContended) {
		t.Fatalf("got %v, want ErrContended", err)
	}
	if !bytes.Equal(marshal(batch), before) {
		t.Error("a refused batch has changed")
	}
	if others != 16 {
		t.Errorf("%d tries, want 16", others)
	}
	st.on = nil
	expect(t, a.add(100, 101, 1), "gap (0, 101] 18")
}

func TestSharedConflictOfOneStreamOfTwo(t *testing.T) {
	st := new(scriptStore)
	a, b := newScriptWorker(t, st), newScriptWorker(t, st)
	expect(t, a.convert(delta{"x", 0, 1, 1, false}, delta{"y", 0, 1, 5, false}), "2 first (0, 1] 1 (0, 1] 5")
	expect(t, b.convert(delta{"y", 1, 2, 50, false}), "aligned (0, 2] 55")
	st.swaps = 0
	expect(t, a.convert(delta{"x", 1, 2, 10, false}, delta{"y", 2, 3, 500, false}), "2 aligned (0, 2] 11 (0, 3] 555")
	if st.swaps != 2 {
		t.Errorf("%d swaps, want 2", st.swaps)
	}
	expect(t, b.convert(delta{"x", 2, 3, 100, false}, delta{"y", 3, 4, 5000, false}), "2 aligned (0, 3] 111 (0, 4] 5555")
}

func TestSharedRefoldCountsOnce(t *testing.T) {
	st := new(scriptStore)
	a, b := newScriptWorker(t, st, window(60)), newScriptWorker(t, st, window(60))
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
	st := new(scriptStore)
	a := newScriptWorker(t, st)
	expect(t, a.add(0, 1, 1), "first (0, 1] 1")
	a.now = a.now.Add(2 * time.Hour)
	if n := a.conv.Expire(); n != 1 || a.conv.Len() != 0 || len(st.records) != 1 {
		t.Fatalf("%d expired, %d left, %d in the st", n, a.conv.Len(), len(st.records))
	}
	expect(t, a.add(1, 2, 10), "aligned (0, 2] 11")
	if a.conv.Len() != 1 {
		t.Errorf("%d streams, want 1", a.conv.Len())
	}
}

// A worker that comes up with nothing goes on from the store.
func TestSharedNewWorkerContinues(t *testing.T) {
	st := new(scriptStore)
	for i := range 5 {
		w := newScriptWorker(t, st)
		want := fmt.Sprintf("aligned (0, %d] %d", i+1, i+1)
		if i == 0 {
			want = "first (0, 1] 1"
		}
		expect(t, w.add(float64(i), float64(i+1), 1), want)
	}
}

func TestSharedMarkers(t *testing.T) {
	st := new(scriptStore)
	a, b := newScriptWorker(t, st), newScriptWorker(t, st)
	marker := func(at float64) delta { return delta{stream: "requests", end: at, start: at, marker: true} }
	expect(t, a.convert(marker(1)), "no_recorded_value (1, 1] no value") // of a stream that nobody knows
	if a.conv.Len() != 0 || len(st.records) != 0 {
		t.Errorf("%d streams, %d records", a.conv.Len(), len(st.records))
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
		st := new(scriptStore)
		a, b := newScriptWorker(t, st), newScriptWorker(t, st)
		expect(t, a.add(0, 1, 1), "first (0, 1] 1")
		expect(t, b.add(1, 2, 10), "aligned (0, 2] 11") // a's cache is stale now

		release := make(chan struct{})
		st.once(func(swap func() error) error {
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
		if st.swaps != 3+2+1 { // before; the first of these, and again after the conflict; the other four together
			t.Errorf("%d swaps, want 6", st.swaps)
		}
		if a.conv.Len() != 6 || len(st.records) != 6 {
			t.Errorf("%d streams, %d records, want 6", a.conv.Len(), len(st.records))
		}
	})
}

// A group that fails leaves all of its batches and streams as they were.
func TestSharedGroupThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := new(scriptStore)
		a := newScriptWorker(t, st)
		expect(t, a.add(0, 1, 1), "first (0, 1] 1")
		release := make(chan struct{})
		n := 0
		st.on = func(swap func() error) error {
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
		st.on = nil
		expect(t, a.add(2, 3, 10), "aligned (0, 3] 21")
		expect(t, a.add(3, 4, 10), "aligned (0, 4] 31")
	})
}

func TestSharedSetAsideMayFail(t *testing.T) {
	st := new(scriptStore)
	expect(t, newScriptWorker(t, st).add(0, 1, 1), "first (0, 1] 1")
	st.each(func([]byte) []byte { return []byte("\x01") })
	st.aside = -1
	w := newScriptWorker(t, st)
	if got := w.add(0, 1, 1); !strings.HasPrefix(got, "refused: ") || !strings.Contains(got, errStorage.Error()) {
		t.Errorf("got %s", got)
	}
	if w.conv.Len() != 0 || len(st.damaged) != 0 {
		t.Errorf("%d streams, told of %v", w.conv.Len(), st.damaged)
	}
	st.aside = 0
	expect(t, w.add(0, 1, 1), "first (0, 1] 1")
}

func TestShareRefuses(t *testing.T) {
	if _, err := d2c.OpenShared(context.Background(), d2c.Config{}, d2c.SharedConfig{}); err == nil || !strings.Contains(err.Error(), "SharedConfig.Store") {
		t.Errorf("without a st: %v", err)
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
