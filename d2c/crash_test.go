// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/streamid"
)

// The tests of this file play short histories and end the process wherever it could end: before and after every operation
// on storage and, as storage promises nothing about those of one Put, after any part of them. What the next process finds
// must be the state after the last batch that was acknowledged or after the one under way. Then the client sends again what
// was not acknowledged, and the last batch that was, and the history goes on; the oracle says what must come out.

// stored is the content of a storage. Values are never written to.
type stored map[string][]byte

// operation sets a key, or deletes it if value is nil.
type operation struct {
	key   string
	value []byte
}

func (o operation) String() string {
	if o.value == nil {
		return "delete " + o.key
	}
	return fmt.Sprintf("set %s to %d bytes", o.key, len(o.value))
}

// with returns what is stored after some operations.
func (s stored) with(ops []operation) stored {
	s = maps.Clone(s)
	for _, o := range ops {
		if o.value == nil {
			delete(s, o.key)
		} else {
			s[o.key] = o.value
		}
	}
	return s
}

// recorder is a Storage that remembers every Put, operation by operation, and the world it met.
type recorder struct {
	mu     sync.Mutex
	values stored
	puts   []put
	opened int   // of puts, those of Open
	world  world // of the Puts to come
	fail   fault
}

// fault says which operations of the n-th Put happen, and the error if these are not all. Nil lets everything happen.
type fault func(n int, ops []operation) (happen []operation, err error)

// put is a call of Put; its world has what was stored before.
type put struct {
	world world
	ops   []operation
}

func (r *recorder) Get(_ context.Context, keys []string) ([][]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	values := make([][]byte, len(keys))
	for i, key := range keys {
		values[i] = bytes.Clone(r.values[key])
	}
	return values, nil
}

func (r *recorder) Put(_ context.Context, values []store.KeyValue, deletes []string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var ops []operation
	for _, v := range values {
		ops = append(ops, operation{v.Key, append([]byte{}, v.Value...)})
	}
	for _, key := range deletes {
		if r.values[key] != nil { // to delete what is not there is no operation
			ops = append(ops, operation{key, nil})
		}
	}
	p := put{world: r.world, ops: ops}
	p.world.values = r.values
	n := len(r.puts)
	r.puts = append(r.puts, p)
	var err error
	if r.fail != nil {
		ops, err = r.fail(n, ops)
	}
	r.values = r.values.with(ops)
	return err
}

// action is one thing to do: send a batch of points if there are any, or expire, or write the checkpoints of shards.
type action struct {
	wait   time.Duration // before it
	points []point
	expire bool
	shards []int
}

func (a action) String() string {
	switch {
	case a.points != nil:
		return fmt.Sprint("batch ", lines(a.batch()))
	case a.expire:
		return "expire"
	}
	return fmt.Sprint("checkpoint ", a.shards)
}

func (a action) batch() pmetric.Metrics { return ofResource(batch(a.points...)) }

// ofResource gives a batch a resource, which timelines look for.
func ofResource(md pmetric.Metrics) pmetric.Metrics {
	md.ResourceMetrics().At(0).Resource().Attributes().PutStr("resource", "r")
	return md
}

// seriesIn returns the n-th series for which the stream of a point is in a shard.
func seriesIn(shard, n int, of func(series) point) series {
	for i := 0; ; i++ {
		s := series(fmt.Sprint("series ", i))
		rm := ofResource(batch(of(s))).ResourceMetrics().At(0)
		sm := rm.ScopeMetrics().At(0)
		id := streamid.Of(rm.Resource(), sm.Scope(), sm.Metrics().At(0), pcommon.NewMap())
		if d2c.ShardOf(id) != shard {
			continue
		}
		if n--; n < 0 {
			return s
		}
	}
}

// world is all there is between two actions but the process: storage, and what the client and the oracle know. It is never
// written to, only replaced.
type world struct {
	values stored
	now    time.Time
	models []*model  // what storage may have, the latest last; the first is what the client knows of
	given  timelines // what the client was given
	last   []action  // the latest batch that was acknowledged, if any
	todo   []action
}

const (
	crashMaxStale = 10 * time.Minute
	// downtime is how long there is no process between two.
	downtime = time.Second
)

func newWorld(todo []action) world {
	cfg := d2c.Config{LateWindow: 5 * time.Minute, MaxStale: crashMaxStale}
	return world{values: stored{}, now: time.Unix(1_700_000_000, 0), models: []*model{newModel(cfg)}, given: newTimelines(), todo: todo}
}

// newManyWorld has manyHistory.
func newManyWorld() world {
	w := newWorld(manyHistory())
	cfg := w.models[0].cfg
	cfg.Writers = d2c.WritersMany
	w.models = []*model{newModel(cfg)}
	return w
}

// clone returns a model that can be changed.
func (m *model) clone(now func() time.Time) *model {
	c := newModel(m.cfg)
	c.cfg.Now = now
	c.began, c.gone, c.ever = m.began, m.gone, m.ever
	for key, s := range m.streams {
		s := *s
		s.gaps = slices.Clone(s.gaps)
		s.memory = maps.Clone(s.memory)
		c.streams[key] = &s
	}
	return c
}

// reopened returns what a process finds that begins now: time that nobody was there to see makes no stream older.
func (m *model) reopened(now func() time.Time) *model {
	c := m.clone(now)
	c.began, c.gone = c.nanos(), 0
	newest := int64(0)
	for _, s := range c.streams {
		newest = max(newest, s.seen)
	}
	for _, s := range c.streams {
		s.seen += now().Unix() - newest
	}
	c.expire()
	return c
}

// states lists all that the model knows of its streams, sorted.
func (m *model) states() []string { return slices.Sorted(maps.Values(m.stateByKey())) }

func (m *model) stateByKey() map[string]string {
	states := map[string]string{}
	for key, s := range m.streams {
		var dp dataPoint
		switch s.kind {
		case d2c.KindSum:
			dp = pmetric.NewNumberDataPoint()
		case d2c.KindHistogram:
			dp = pmetric.NewHistogramDataPoint()
		case d2c.KindExponentialHistogram:
			dp = pmetric.NewExponentialHistogramDataPoint()
		}
		s.total.write(dp)
		var gaps [][2]uint64
		for _, gap := range s.gaps {
			gaps = append(gaps, [2]uint64{gap.start, gap.end})
		}
		states[key] = describeState(s.start, s.last, s.emitted, !s.fresh, s.marker, gaps, dp)
	}
	return states
}

// statesOf is states of the real thing.
func statesOf(conv *d2c.Converter) (states []string) {
	for _, s := range conv.States() {
		states = append(states, describeState(
			uint64(s.Start), uint64(s.Last), uint64(s.Emitted), s.Restarted, s.Marked, s.Gaps, s.Point.(dataPoint)))
	}
	slices.Sort(states)
	return states
}

func describeState(start, last, emitted uint64, restarted, marked bool, gaps [][2]uint64, dp dataPoint) string {
	return fmt.Sprintf("(%d, %d] emitted %d restarted %v marked %v gaps %v: %s",
		start, last, emitted, restarted, marked, gaps, describe(dp))
}

// totals lists start, last and total by stream.
func (m *model) totals() map[string]string {
	plain := m.clone(nil)
	for _, s := range plain.streams {
		s.emitted, s.marker = 0, false
	}
	return plain.stateByKey()
}

// policy is what the client does about an error.
type policy int

const (
	again     policy = iota // the same again at once
	meanwhile               // something else first; checkpoints are left to the next one
)

// run begins a process, has it do all there is to do, and ends it.
func (w world) run(fail fault, p policy) (*recorder, world, error) {
	ctx := context.Background()
	w.now = w.now.Add(downtime)
	now := func() time.Time { return w.now }
	rec := &recorder{values: w.values, world: w, fail: fail}
	cfg := w.models[0].cfg
	cfg.Now = now
	conv, recovery, err := d2c.OpenDurable(ctx, cfg, d2c.DurableConfig{Storage: rec, Owner: "test"})
	if err != nil {
		return rec, w, err
	}
	rec.opened = len(rec.puts)
	conv.StopBackground()
	defer conv.Close(ctx)
	if len(recovery.Damaged) > 0 || recovery.Forgotten > 0 {
		return rec, w, fmt.Errorf("nothing was damaged, but recovery is %+v", recovery)
	}
	found := statesOf(conv)
	i := slices.IndexFunc(w.models, func(m *model) bool { return slices.Equal(m.reopened(now).states(), found) })
	if i < 0 {
		err := fmt.Errorf("found %q", found)
		for _, m := range w.models {
			err = fmt.Errorf("%w\nwant  %q", err, m.reopened(now).states())
		}
		return rec, w, err
	}
	m := w.models[i].reopened(now)
	w.models = []*model{m}
	// Of the streams that had expired before, storage may have some yet, which expire again.
	gone := uint64(conv.Gone())
	if gone < m.gone || gone > m.ever {
		return rec, w, fmt.Errorf("knows of expired streams up to %d, want %d to %d", gone, m.gone, m.ever)
	}
	m.gone = gone
	w.forget()

	checkpointed := false
	for len(w.todo) > 0 {
		a := w.todo[0]
		w.now = w.now.Add(a.wait)
		a.wait = 0
		w.todo = append([]action{a}, w.todo[1:]...)
		rec.world = w
		switch {
		case a.points != nil:
			err = w.send(ctx, conv, rec, a)
		case a.expire:
			if err := w.expire(conv, now); err != nil {
				return rec, w, err
			}
		default:
			err = conv.Checkpoint(ctx, a.shards...)
		}
		if err == nil {
			checkpointed = len(a.shards) > 0
			w.todo = w.todo[1:]
			continue
		}
		if !errors.Is(err, errStorage) {
			return rec, w, fmt.Errorf("%v: %w", a, err)
		}
		if rest := w.todo[1:]; p == meanwhile && len(rest) > 0 {
			w.todo = slices.Clone(rest)
			if a.points != nil {
				w.todo = slices.Insert(w.todo, len(rest)-1, a)
			}
		}
	}
	w.values = rec.values
	return rec, w, w.check(conv, checkpointed)
}

// forget lets go of what was given out for streams that have expired.
func (w *world) forget() {
	w.given = maps.Clone(w.given)
	w.given.forget(func(key string) bool { return w.models[0].streams[key] == nil })
}

// send converts a batch, and compares with the oracle. Its error is errStorage if the batch was refused.
func (w *world) send(ctx context.Context, conv *d2c.Converter, rec *recorder, a action) error {
	in, got := a.batch(), a.batch()
	m := w.models[0].clone(func() time.Time { return w.now })
	want, wantResult := m.convert(in)
	rec.world.models = append(slices.Clone(w.models), m)
	puts := len(rec.puts)
	result, err := conv.Convert(ctx, got)
	if err != nil {
		if !bytes.Equal(marshal(got), marshal(in)) || result.Points() != (d2c.Result{}) {
			return errors.New("was refused, but not left alone")
		}
		w.models = rec.world.models // it may have been stored nevertheless
		return err
	}
	if !sameMetrics(got, want) || result.Points() != wantResult {
		return fmt.Errorf("\n got %v %s\nwant %v %s", lines(got), describeResult(result), lines(want), describeResult(wantResult))
	}
	w.given = maps.Clone(w.given)
	if err := w.given.follow(got); err != nil {
		return err
	}
	w.models = append([]*model{m}, w.models[1:]...)
	if len(rec.puts) > puts { // and so put in the place of what was refused
		w.models = w.models[:1]
	}
	w.last = []action{a}
	return nil
}

func (w *world) expire(conv *d2c.Converter, now func() time.Time) error {
	models := w.models
	w.models = nil
	for i, m := range models {
		m = m.clone(now)
		if want := m.expire(); i == 0 {
			if got := conv.Expire(); got != want {
				return fmt.Errorf("Expire() = %d, want %d", got, want)
			}
		}
		w.models = append(w.models, m)
	}
	w.forget()
	return nil
}

// check is for the end: after a checkpoint of all streams nothing is left in storage but that.
func (w *world) check(conv *d2c.Converter, checkpointed bool) error {
	if got, want := statesOf(conv), w.models[0].states(); !slices.Equal(got, want) {
		return fmt.Errorf("streams at the end:\n got %q\nwant %q", got, want)
	}
	if !checkpointed {
		return nil
	}
	chunks := map[string]int{} // by shard and parity
	for key := range w.values {
		switch part := strings.Split(key, "/"); {
		case key == "m/head", part[0] == "m":
		case part[0] == "c":
			chunks["c/"+part[1]+"/"+part[2]]++
		default:
			return fmt.Errorf("%s is left", key)
		}
	}
	for prefix, n := range chunks {
		other := prefix[:len(prefix)-1] + string(prefix[len(prefix)-1]^1)
		for i := range n {
			if key := fmt.Sprintf("%s/%04x", prefix, i); w.values[key] == nil {
				return fmt.Errorf("chunks of %s are left, for %s is not there", prefix, key)
			}
		}
		if chunks[other] > 0 {
			return fmt.Errorf("chunks of both %s and %s are left", prefix, other)
		}
	}
	return nil
}

// cuts returns what may have happened when a process ends in a Put of ops: any part of them. If they are many, it is
// those up to each, those from each on, each alone, and all but each. Of a journal entry it may be a part, which is
// more than storage is allowed.
func cuts(ops []operation) (parts [][]operation) {
	n := len(ops)
	switch {
	case n == 1 && strings.HasPrefix(ops[0].key, "j/") && ops[0].value != nil:
		key, value := ops[0].key, ops[0].value
		for _, size := range []int{0, 1, headerSize - 1, headerSize, headerSize + 1, len(value) / 2, len(value) - 1} {
			parts = append(parts, []operation{{key, value[:size:size]}})
		}
		fallthrough
	case n <= 5:
		for set := range 1 << n {
			var part []operation
			for i, o := range ops {
				if set>>i&1 != 0 {
					part = append(part, o)
				}
			}
			parts = append(parts, part)
		}
	default:
		parts = append(parts, nil, ops)
		for i := range ops {
			parts = append(parts, ops[i:i+1], slices.Concat(ops[:i], ops[i+1:]))
			if i > 1 {
				parts = append(parts, ops[:i])
			}
			if i > 0 && i < n-1 {
				parts = append(parts, ops[i:])
			}
		}
	}
	return parts
}

// crashed returns the world after a process has ended in a Put of which a part happened.
func (p put) crashed(part []operation) world {
	w := p.world
	w.values = w.values.with(part)
	// The batch under way is counted if its entry is there, and it alone, and not otherwise.
	if len(p.ops) > 0 && strings.HasPrefix(p.ops[0].key, "j/") && p.ops[0].value != nil {
		switch n := len(w.models); {
		case len(part) == 0:
			w.models = w.models[:n-1]
		case len(part[0].value) < len(p.ops[0].value):
			w.models = w.models[:1]
		default:
			w.models = w.models[n-1:]
		}
	}
	w.todo = slices.Concat(w.last, w.todo)
	return w
}

// only lets a fault happen in one Put.
func only(n int, part []operation) fault {
	return func(i int, ops []operation) ([]operation, error) {
		if i == n {
			return part, errStorage
		}
		return ops, nil
	}
}

// someHistory has all that can happen to streams, in two shards, with checkpoints in between.
func someHistory() []action {
	sum := func(s series) point { return s.int(0, 1, 1) }
	double := func(s series) point { return s.double(0, 1, 1) }
	histogram := func(s series) point { return s.histogram(0, 1, hist(nil)) }
	exponential := func(s series) point { return s.exponential(0, 1, expo(0, 0, 0, buckets{}, buckets{})) }
	a, b, c := seriesIn(3, 0, sum), seriesIn(3, 1, sum), seriesIn(3, 2, sum)
	h, e := seriesIn(3, 0, histogram), seriesIn(7, 0, exponential)
	d, x := seriesIn(7, 0, double), seriesIn(7, 1, sum)
	h1 := hist([]float64{1, 2}, 1, 2, 3)
	h2 := hist([]float64{1, 2, 3}, 1, 0, 5e9, 1)
	e1 := expo(3, 0, 1, buckets{2, []uint64{1, 2}}, buckets{})
	e2 := expo(2, 0, 0, buckets{-4, []uint64{1}}, buckets{-7, []uint64{3}})
	noNumber := func(dp pmetric.NumberDataPoint) { dp.SetFlags(noRecordedValue) }
	noHistogram := func(dp pmetric.ExponentialHistogramDataPoint) { dp.SetFlags(noRecordedValue) }
	return []action{
		{points: []point{
			a.int(10, 20, 1), b.int(10, 20, 2), h.histogram(10, 20, h1), e.exponential(10, 20, e1), d.double(10, 20, 0.5), x.int(4, 14, 9),
		}},
		{points: []point{
			a.int(20, 30, 4), b.int(20, 30, 8), h.histogram(20, 30, h1), e.exponential(30, 40, e2), d.sum(true, 20, 30, noNumber),
		}},
		{shards: []int{3}},
		{points: []point{e.exponential(20, 30, e1), h.histogram(30, 40, h1), a.int(20, 30, 4), c.int(25, 35, 16)}},
		{shards: []int{7}},
		{points: []point{h.histogram(40, 50, h2), a.int(30, 40, 32), b.int(40, 50, 64), d.double(20, 40, 0.25)}},
		{shards: []int{3, 7}},
		{wait: crashMaxStale + time.Minute, points: []point{
			a.int(40, 50, 128), b.int(50, 60, 1), c.int(35, 45, 2), h.histogram(50, 60, h2), e.exponential(40, 50, e1), d.double(40, 50, 8),
		}},
		{expire: true},
		{points: []point{x.int(12, 110, 5), e.exponential(50, 60, noHistogram)}},
		{shards: []int{7}},
		{points: []point{c.int(15, 25, 256), a.int(60, 70, 512)}},
		{shards: []int{3}},
		{points: []point{a.int(50, 60, 1024), x.int(110, 120, 7), h.histogram(60, 70, h2), e.exponential(50, 70, e2)}},
		{shards: []int{3, 7}},
	}
}

// expiring is the stream of someHistory that expires, unless a process ends before and time stands still.
func expiring() string {
	x := seriesIn(7, 1, func(s series) point { return s.int(0, 1, 1) })
	return lines(ofResource(batch(x.int(0, 1, 1))))[0].key
}

// manyHistory has streams of many writers, in two shards: what overlaps, what is twice in its request, and what is sent again.
func manyHistory() []action {
	sum := func(s series) point { return s.int(0, 1, 1) }
	histogram := func(s series) point { return s.histogram(0, 1, hist(nil)) }
	a, b, h := seriesIn(3, 0, sum), seriesIn(7, 1, sum), seriesIn(7, 0, histogram)
	h1, h2 := hist([]float64{1, 2}, 1, 2, 3), hist([]float64{1, 2}, 0, 0, 5)
	return []action{
		{points: []point{a.int(10, 20, 1), a.int(10, 20, 1), a.int(10, 20, 2), b.int(10, 20, 4), h.histogram(10, 20, h1)}},
		{points: []point{a.int(10, 30, 8), h.histogram(10, 20, h2), h.histogram(10, 20, h2)}},
		{shards: []int{3}},
		{points: []point{a.int(5, 15, 16), a.int(10, 20, 1), a.int(10, 20, 1), a.int(10, 20, 1), b.int(15, 25, 32)}},
		{shards: []int{7}},
		{points: []point{b.int(15, 25, 64), h.histogram(10, 30, h1), h.histogram(10, 20, h1)}},
		{wait: 30 * time.Second, points: []point{a.int(10, 30, 8), a.int(10, 30, 8), b.int(15, 25, 32)}},
		{shards: []int{3, 7}},
		{points: []point{a.int(10, 30, 8), a.int(10, 30, 8), a.int(10, 40, 128), h.histogram(10, 20, h2)}},
	}
}

// shortHistory is two streams of two shards, and checkpoints that alternate between both sets of chunks.
func shortHistory() []action {
	sum := func(s series) point { return s.int(0, 1, 1) }
	a, b, c := seriesIn(3, 0, sum), seriesIn(3, 1, sum), seriesIn(7, 1, sum)
	return []action{
		{points: []point{a.int(10, 20, 1), b.int(10, 20, 2), c.int(10, 20, 4)}},
		{shards: []int{3, 7}},
		{points: []point{a.int(20, 30, 8), c.int(30, 40, 16)}},
		{shards: []int{3}},
		{points: []point{c.int(20, 30, 32)}},
		{shards: []int{3, 7}},
	}
}

// quick is for where all takes too long: a sample must do.
func quick() bool { return testing.Short() || raceEnabled() }

func raceEnabled() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// sampled returns one in n of parts, all of them in time, or all if there is time.
func sampled[T any](e *explorer, n int, parts []T) (some []T) {
	if !quick() {
		return parts
	}
	for i := e.worlds % n; i < len(parts); i += n {
		some = append(some, parts[i])
	}
	return some
}

// explorer plays many worlds, and gives up when some have gone wrong.
type explorer struct {
	t      *testing.T
	want   map[string]string // totals; nil if they depend
	worlds int
	failed int
}

func (e *explorer) play(w world, fail fault, p policy, describe func() string) *recorder {
	e.t.Helper()
	e.worlds++
	rec, end, err := w.run(fail, p)
	if err == nil && e.want != nil {
		for key, got := range end.models[0].totals() {
			if want := e.want[key]; got != want && key != expiring() {
				err = fmt.Errorf("%s ends as\n     %s\nwant %s", key, got, want)
			}
		}
	}
	if err != nil {
		e.t.Errorf("%s: %v", describe(), err)
		if e.failed++; e.failed == 3 {
			e.t.FailNow()
		}
	}
	return rec
}

// begin plays a history without disturbance.
func begin(t *testing.T, history []action) (*explorer, []put) {
	t.Helper()
	e := &explorer{t: t}
	rec, end, err := newWorld(history).run(nil, again)
	if err != nil {
		t.Fatal(err)
	}
	e.want = end.models[0].totals()
	return e, rec.puts
}

func smallChunks(t *testing.T) { t.Cleanup(d2c.SetChunkSize(40)) }

// A process ends anywhere, and so does the next one in its recovery.
func TestCrashAnywhere(t *testing.T) {
	smallChunks(t)
	e, puts := begin(t, someHistory())
	for n, p := range puts {
		for _, part := range sampled(e, 3, cuts(p.ops)) {
			first := func() string { return fmt.Sprintf("crash in Put %d, of %v only %v", n, p.ops, part) }
			rec := e.play(p.crashed(part), nil, again, first)
			for _, p := range rec.puts[:rec.opened] {
				for _, part := range sampled(e, 7, cuts(p.ops)) {
					e.play(p.crashed(part), nil, again, func() string {
						return fmt.Sprintf("%s, then in recovery, of %v only %v", first(), p.ops, part)
					})
				}
			}
		}
	}
	e.expect(1000)
}

// Two processes end, each anywhere.
func TestCrashTwice(t *testing.T) {
	smallChunks(t)
	e, puts := begin(t, shortHistory())
	for n, p := range puts {
		for _, part := range sampled(e, 3, cuts(p.ops)) {
			first := func() string { return fmt.Sprintf("crash in Put %d, of %v only %v", n, p.ops, part) }
			rec := e.play(p.crashed(part), nil, again, first)
			for m, p := range rec.puts {
				for _, part := range sampled(e, 7, cuts(p.ops)) {
					e.play(p.crashed(part), nil, again, func() string {
						return fmt.Sprintf("%s, then in Put %d, of %v only %v", first(), m, p.ops, part)
					})
				}
			}
		}
	}
	e.expect(3000)
}

// A process ends anywhere, or any Put fails, and what many writers have sent is counted once nevertheless.
func TestCrashManyWriters(t *testing.T) {
	smallChunks(t)
	world := newManyWorld()
	rec, end, err := world.run(nil, again)
	if err != nil {
		t.Fatal(err)
	}
	e := &explorer{t: t, want: end.models[0].totals()}
	for n, p := range rec.puts {
		for _, part := range sampled(e, 3, cuts(p.ops)) {
			first := func() string { return fmt.Sprintf("crash in Put %d, of %v only %v", n, p.ops, part) }
			next := e.play(p.crashed(part), nil, again, first)
			for m, p := range next.puts {
				for _, part := range sampled(e, 7, cuts(p.ops)) {
					e.play(p.crashed(part), nil, again, func() string {
						return fmt.Sprintf("%s, then in Put %d, of %v only %v", first(), m, p.ops, part)
					})
				}
			}
			for _, then := range []policy{again, meanwhile} {
				e.play(world, only(n, part), then, func() string {
					return fmt.Sprintf("error in Put %d, of %v only %v, policy %d", n, p.ops, part, then)
				})
			}
		}
	}
	e.expect(1000)
}

// Any Put fails, whatever part of it happens, and the process lives on.
func TestStorageFailsAnywhere(t *testing.T) {
	smallChunks(t)
	e, puts := begin(t, someHistory())
	want := e.want
	for n, p := range puts {
		for _, part := range sampled(e, 3, cuts(p.ops)) {
			for _, then := range []policy{again, meanwhile} {
				e.want = want
				if then == meanwhile {
					e.want = nil // what comes too late is dropped
				}
				e.play(newWorld(someHistory()), only(n, part), then, func() string {
					return fmt.Sprintf("error in Put %d, of %v only %v, policy %d", n, p.ops, part, then)
				})
			}
		}
	}
	e.expect(500)
}

// Any Put fails, whatever part of it happens, and later the process ends anywhere.
func TestStorageFailsAndCrash(t *testing.T) {
	smallChunks(t)
	e, puts := begin(t, shortHistory())
	want := e.want
	for n, p := range puts {
		for _, part := range sampled(e, 3, cuts(p.ops)) {
			for _, then := range []policy{again, meanwhile} {
				if then == meanwhile && isManifest(p.ops[0].key) {
					continue
				}
				e.want = want
				if then == meanwhile {
					e.want = nil
				}
				first := func() string {
					return fmt.Sprintf("error in Put %d, of %v only %v, policy %d", n, p.ops, part, then)
				}
				rec := e.play(newWorld(shortHistory()), only(n, part), then, first)
				for m, p := range rec.puts[n+1:] {
					for _, part := range sampled(e, 7, cuts(p.ops)) {
						e.play(p.crashed(part), nil, again, func() string {
							return fmt.Sprintf("%s, then crash in Put %d, of %v only %v", first(), n+1+m, p.ops, part)
						})
					}
				}
			}
		}
	}
	e.expect(3000)
}

// expect fails the test if it has not played many worlds: it proves nothing then.
func (e *explorer) expect(worlds int) {
	e.t.Helper()
	e.t.Log(e.worlds, "worlds")
	if e.worlds < worlds && !quick() {
		e.t.Errorf("only %d worlds, want at least %d", e.worlds, worlds)
	}
}

// A checkpoint fails when some of its manifests are stored. Batches go on, and the process ends in a later checkpoint: it
// must not have written over the chunks of a manifest that may be in effect.
func TestManifestErrorAndCrash(t *testing.T) {
	smallChunks(t)
	e, puts := begin(t, shortHistory())
	e.want = nil
	for n, p := range puts {
		if !isManifest(p.ops[0].key) {
			continue
		}
		for _, part := range cuts(p.ops) {
			first := func() string { return fmt.Sprintf("error in Put %d, of %v only %v", n, p.ops, part) }
			rec := e.play(newWorld(shortHistory()), only(n, part), meanwhile, first)
			for m, p := range rec.puts[n+1:] {
				for _, part := range cuts(p.ops) {
					e.play(p.crashed(part), nil, again, func() string {
						return fmt.Sprintf("%s, then crash in Put %d, of %v only %v", first(), n+1+m, p.ops, part)
					})
				}
			}
		}
	}
}

// Time that nobody was there to see does not count as idle, however often there was nobody.
func TestDowntimeIsNotIdle(t *testing.T) {
	sum := func(s series) point { return s.int(0, 1, 1) }
	busy, idle := seriesIn(3, 0, sum), seriesIn(7, 0, sum)
	w := newWorld(nil)
	for _, a := range []action{
		{points: []point{busy.int(10, 20, 1), idle.int(10, 20, 1)}},
		{points: []point{busy.int(20, 30, 2)}},
		{points: []point{busy.int(30, 40, 4)}},
	} {
		w.todo = []action{a}
		w.now = w.now.Add(2 * crashMaxStale)
		var err error
		if _, w, err = w.run(nil, again); err != nil {
			t.Fatal(err)
		}
	}
}

// A shard is quiet while the journal is cut, changes again, and is not in the next round of checkpoints: because it changed
// after the round had been chosen, or because the round was full.
func TestQuietShardComesBack(t *testing.T) {
	sum := func(s series) point { return s.int(0, 1, 1) }
	a, b := seriesIn(3, 0, sum), seriesIn(7, 0, sum)
	_, _, err := newWorld([]action{
		{points: []point{a.int(10, 20, 1), b.int(10, 20, 1)}},
		{shards: []int{3, 7}},
		{points: []point{a.int(20, 30, 1)}},
		{points: []point{a.int(30, 40, 1)}},
		{shards: []int{3}},
		{points: []point{b.int(20, 30, 1)}},
		{shards: []int{3}},
		{shards: []int{7}},
	}).run(nil, again)
	if err != nil {
		t.Fatal(err)
	}
}

// A checkpoint of many chunks is replaced by one of few, and the process ends before the many are deleted: the next one does
// that, however often recovery ends before it.
func TestManyChunksLeft(t *testing.T) {
	smallChunks(t)
	const many = 40
	sum := func(s series) point { return s.int(0, 1, 1) }
	var all []point
	for i := range many {
		all = append(all, seriesIn(3, i, sum).int(10, 20, 1))
	}
	rec, _, err := newWorld([]action{
		{points: all}, {shards: []int{3}},
		{wait: crashMaxStale + time.Minute, points: []point{seriesIn(3, many, sum).int(10, 20, 1)}},
		{expire: true}, {shards: []int{3}},
	}).run(nil, again)
	if err != nil {
		t.Fatal(err)
	}
	last := rec.puts[len(rec.puts)-1]
	if n := len(last.ops); n < many/2 || last.ops[n-1].value != nil {
		t.Fatalf("the last Put is %v", last.ops)
	}
	w := last.crashed(nil)
	w.todo = nil
	for range 3 {
		next, _, err := w.run(nil, again)
		if err != nil {
			t.Fatal(err)
		}
		for key := range next.values {
			if strings.HasPrefix(key, "c/1/") {
				t.Fatalf("%s is left", key)
			}
		}
		// A recovery that ends after a part of that has no less to do.
		p := next.puts[0]
		w.values = p.world.values.with(p.ops[:len(p.ops)/2])
	}
}

// isManifest and isCheckpoint tell the kind of a key.
func isManifest(key string) bool   { return strings.HasPrefix(key, "m/") && key != "m/head" }
func isCheckpoint(key string) bool { return isManifest(key) || strings.HasPrefix(key, "c/") }
