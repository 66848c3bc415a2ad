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
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/zeebo/xxh3"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/d2c/store"
)

// The tests of this file damage what is stored, one key after the other, and begin a process on it. Streams whose state can
// be told go on as if nothing had happened; all others begin anew where nothing that was given out, and no delta that was
// counted, comes again.

// ledger is a world after a history, and what that was.
type ledger struct {
	world
	sent    []action // the batches
	before  *model   // the oracle before the last one
	streams []stream
	end     float64 // of the latest interval, in seconds
}

type stream struct {
	key   string
	shard int
	delta func(start, end float64, n int) point
}

// newLedger has four streams in each of three shards, a few batches, and checkpoints: either of all shards, so that the
// journal has been cut, or of some of them.
func newLedger(t *testing.T, all bool) *ledger {
	t.Helper()
	l := &ledger{end: 10}
	kinds := []func(s series, start, end float64, n int) point{
		func(s series, start, end float64, n int) point { return s.int(start, end, int64(n)) },
		func(s series, start, end float64, n int) point { return s.double(start, end, float64(n)/4) },
		func(s series, start, end float64, n int) point {
			return s.histogram(start, end, hist([]float64{1, 2}, uint64(n), 0, 1))
		},
		func(s series, start, end float64, n int) point {
			return s.exponential(start, end, expo(2, 0, 1, buckets{-3, []uint64{uint64(n)}}, buckets{}))
		},
	}
	for _, shard := range []int{3, 7, 11} {
		for k, kind := range kinds {
			name := seriesIn(shard, k, func(s series) point { return kind(s, 0, 1, 1) })
			s := stream{shard: shard}
			s.delta = func(start, end float64, n int) point { return kind(name, start, end, n) }
			s.key = lines(ofResource(batch(s.delta(0, 1, 1))))[0].key
			l.streams = append(l.streams, s)
		}
	}
	send := func(which ...int) action {
		a := action{}
		for i, s := range l.streams {
			if len(which) == 0 || slices.Contains(which, i) {
				a.points = append(a.points, s.delta(l.end, l.end+10, 1000*(i+1)+1<<len(l.sent)))
			}
		}
		l.end += 10
		l.sent = append(l.sent, a)
		return a
	}
	some := []action{
		send(), send(0, 4, 8), {shards: []int{3}}, send(1, 5, 9), {shards: []int{7}}, send(0, 1, 4, 8), send(5, 6), send(0, 2, 9),
	}
	if all {
		l.end, l.sent = 10, nil
		some = []action{
			send(), send(1, 5, 9), {shards: []int{3, 7, 11}}, send(0, 1, 4, 8), send(2, 3, 4, 5), {shards: []int{3}},
			send(0, 6, 10), send(1, 2, 7, 11),
		}
	}
	most := len(some) - 1
	_, before, err := newWorld(some[:most]).run(nil, again)
	if err != nil {
		t.Fatal(err)
	}
	l.before = before.models[0]
	before.todo = some[most:]
	if _, l.world, err = before.run(nil, again); err != nil {
		t.Fatal(err)
	}
	return l
}

// shardStreams returns the keys of the streams in some shards.
func (l *ledger) shardStreams(shards ...int) (keys []string) {
	for _, s := range l.streams {
		if slices.Contains(shards, s.shard) {
			keys = append(keys, s.key)
		}
	}
	return keys
}

func (l *ledger) local(storage store.Storage) d2c.DurableConfig {
	return d2c.DurableConfig{Storage: storage, Owner: "test"}
}

// harm is one damage to what is stored.
type harm struct {
	name   string
	values stored
	// mayLose has the keys of streams that may be lost by it.
	mayLose []string
	// told is set if an earlier recovery has seen the damage.
	told bool
}

// aftermath is what a process does that begins after a harm.
type aftermath struct {
	*ledger
	harm
	rec   *recorder
	now   time.Time
	conv  *d2c.Converter
	m     *model          // of the streams that are not lost
	lost  map[string]bool // until they have begun anew
	given timelines
}

// open begins a process, and finds out what it knows.
func (l *ledger) open(h harm, m *model) (*aftermath, d2c.Recovery, error) {
	a := &aftermath{ledger: l, harm: h, rec: &recorder{values: h.values}, now: l.now.Add(downtime), given: maps.Clone(l.given)}
	now := func() time.Time { return a.now }
	cfg := m.cfg
	cfg.Now = now
	conv, recovery, err := d2c.OpenDurable(context.Background(), cfg, l.local(a.rec))
	a.rec.opened = len(a.rec.puts)
	if err != nil {
		return a, recovery, err
	}
	conv.StopBackground()
	a.conv, a.m, a.lost = conv, m.reopened(now), map[string]bool{}
	found := statesOf(conv)
	for key, state := range a.m.stateByKey() {
		if i, ok := slices.BinarySearch(found, state); ok {
			found = slices.Delete(found, i, i+1)
			continue
		}
		a.lost[key] = true
		delete(a.m.streams, key)
	}
	if len(found) > 0 {
		return a, recovery, fmt.Errorf("found states that are not the latest of any stream: %q, want %q", found, m.states())
	}
	return a, recovery, nil
}

// convert sends points, and compares with the oracle. Streams that are lost either give nothing, which counts as too late, or
// begin anew.
func (a *aftermath) convert(points []point, tooLate bool) error {
	in := ofResource(batch(points...))
	got := ofResource(batch(points...))
	result, err := a.conv.Convert(context.Background(), got)
	if err != nil {
		return err
	}
	if err := a.given.follow(got); err != nil {
		return fmt.Errorf("%v: %w", lines(in), err)
	}
	// What the oracle does not know is not for it.
	known, late := pmetric.NewMetrics(), uint64(0)
	for _, p := range points {
		one := ofResource(batch(p))
		if tooLate && a.lost[lines(one)[0].key] {
			late++
			continue
		}
		if known.ResourceMetrics().Len() == 0 {
			one.CopyTo(known)
		} else {
			p(known)
		}
	}
	want, wantResult := a.m.convert(known)
	wantResult.Note(d2c.DroppedTooLate, late)
	gots, wants := allPoints(got), allPoints(want)
	if len(gots) != len(wants) || result.Points() != wantResult {
		return fmt.Errorf("%v:\n got %v %s\nwant %v %s",
			lines(in), lines(got), describeResult(result), lines(want), describeResult(wantResult))
	}
	for i, p := range gots {
		w := wants[i]
		if p.key != w.key || p.time != w.time || describe(p.dp) != describe(w.dp) {
			return fmt.Errorf("%v:\n got %v\nwant %v", lines(in), lines(got), lines(want))
		}
		old, ok := a.world.given[p.key]
		switch {
		case !a.lost[p.key]:
			if p.start != w.start {
				return fmt.Errorf("%s: start %d, want %d", p.key, p.start, w.start)
			}
		case ok && (p.start <= old.start || p.start < old.time):
			return fmt.Errorf("%s: begins anew at %d, but had given out (%d, %d]", p.key, p.start, old.start, old.time)
		case p.start != w.start: // it was lost, and takes nothing from before
			a.m.streams[p.key].start, a.m.streams[p.key].fresh = p.start, false
		}
	}
	return nil
}

// allPoints lists the points of a batch, which may be cumulative.
func allPoints(md pmetric.Metrics) (points []*modelPoint) {
	forEachMetric(md, func(rm pmetric.ResourceMetrics, sm pmetric.ScopeMetrics, m pmetric.Metric) {
		for _, p := range deltaPoints(m) {
			p.key = metricKey(rm.Resource(), sm.Scope(), m) + attributesKey(p.dp.Attributes())
			points = append(points, p)
		}
	})
	return points
}

// live goes through what may come after damage: all of the past again, the future, and the past once more.
func (a *aftermath) live() error {
	past := func() error {
		for _, old := range a.sent {
			if err := a.convert(old.points, true); err != nil {
				return fmt.Errorf("the past again: %w", err)
			}
		}
		return nil
	}
	if err := past(); err != nil {
		return err
	}
	// Deltas that begin where the streams had ended, before the floor.
	var points []point
	for i, s := range a.streams {
		last := float64(a.models[0].streams[s.key].last) / 1e9
		points = append(points, s.delta(last, a.end+5, 7+i))
	}
	if err := a.convert(points, false); err != nil {
		return fmt.Errorf("what is next: %w", err)
	}
	if err := past(); err != nil {
		return err
	}
	points = nil
	for i, s := range a.streams {
		points = append(points, s.delta(a.end+5, a.end+10, 70+i))
	}
	if err := a.convert(points, false); err != nil {
		return fmt.Errorf("what comes after: %w", err)
	}
	return nil
}

// suffer plays what must be true of any damage. It returns what the recovery has stored, and how many streams were lost.
func (l *ledger) suffer(h harm) (*recorder, int, error) {
	ctx := context.Background()
	a, recovery, err := l.open(h, l.models[0])
	if err != nil {
		return a.rec, 0, err
	}
	defer a.conv.Close(ctx)
	opened, recovered := a.m.clone(nil), a.rec.values
	if err := a.told(recovery); err != nil {
		return a.rec, len(a.lost), fmt.Errorf("%w; recovery is %+v", err, recovery)
	}
	if err := a.live(); err != nil {
		return a.rec, len(a.lost), err
	}
	// The next time all is well, whether it comes at once or later.
	for _, next := range []struct {
		values stored
		m      *model
	}{{recovered, opened}, {a.rec.values, a.m}} {
		b, second, err := l.open(harm{values: next.values}, next.m)
		if err != nil {
			return a.rec, len(a.lost), fmt.Errorf("next time: %w", err)
		}
		defer b.conv.Close(ctx)
		if len(b.lost) > 0 || len(second.Damaged) > 0 || second.Forgotten > 0 || second.Torn {
			return a.rec, len(a.lost), fmt.Errorf("next time %d streams are lost: %+v", len(b.lost), second)
		}
	}
	return a.rec, len(a.lost), nil
}

// told checks what a recovery tells of the damage.
func (a *aftermath) told(recovery d2c.Recovery) error {
	if recovery.Streams != len(a.m.streams) {
		return fmt.Errorf("there are %d streams", len(a.m.streams))
	}
	if len(a.lost) > 0 && len(recovery.Damaged) == 0 && !a.harm.told || recovery.Forgotten > len(a.lost) {
		return fmt.Errorf("%d streams are lost", len(a.lost))
	}
	for key := range a.lost {
		if !slices.Contains(a.harm.mayLose, key) {
			return fmt.Errorf("%s is lost, and need not be", key)
		}
	}
	for _, d := range recovery.Damaged {
		value := a.harm.values[d.Key]
		switch {
		case d.Err == nil:
			return fmt.Errorf("no error for %s", d.Key)
		case value == nil && d.Aside != "":
			return fmt.Errorf("%s was not there, and is kept as %s", d.Key, d.Aside)
		case value != nil && (!strings.HasPrefix(d.Aside, "damaged/") || !bytes.Equal(a.rec.values[d.Aside], value)):
			return fmt.Errorf("%s has not the value of %s", d.Aside, d.Key)
		}
	}
	for key, value := range a.harm.values {
		if strings.HasPrefix(key, "damaged/") && !bytes.Equal(a.rec.values[key], value) {
			return fmt.Errorf("%s is overwritten", key)
		}
	}
	return nil
}

// mayLose returns the streams that damage to the value of a key, at a position, can concern: those of a shard, or all.
func (l *ledger) mayLose(key string, at int) []string {
	switch parts := strings.Split(key, "/"); {
	case key == "m/head":
		return nil
	case parts[0] == "s":
		shard, _ := strconv.ParseUint(parts[1], 16, 8)
		return l.shardStreams(int(shard))
	case at < headerSize:
		return l.shardStreams(3, 7, 11)
	default:
		shards := binary.LittleEndian.Uint64(l.values[key][64:])
		var in []int
		for i := range d2c.Shards {
			if shards>>i&1 != 0 {
				in = append(in, i)
			}
		}
		return l.shardStreams(in...)
	}
}

func (l *ledger) harmed(key, what string, value []byte, at int) harm {
	return harm{name: key + " " + what, values: l.values.with([]operation{{key, value}}), mayLose: l.mayLose(key, at)}
}

func (l *ledger) keys() []string { return slices.Sorted(maps.Keys(l.values)) }

// lastEntry is the key of the last journal entry.
func (l *ledger) lastEntry() (last string) {
	for _, key := range l.keys() {
		if strings.HasPrefix(key, "j/") {
			last = key
		}
	}
	return last
}

// harms lists damages of one key each that can be told, and do not look like a newer version.
func (l *ledger) harms() (hs []harm) {
	random := rand.New(rand.NewPCG(5, 8))
	step := 9 // prime to the sizes of fields, so that keys have other bytes flipped
	if quick() {
		step = 64
	}
	for i, key := range l.keys() {
		value := l.values[key]
		for at := i % step; at < len(value); at += step {
			bit := byte(1) << random.IntN(8)
			if at == 0 {
				bit = 1 // no other makes it an older version
			}
			flipped := bytes.Clone(value)
			flipped[at] ^= bit
			hs = append(hs, l.harmed(key, fmt.Sprintf("with %08b flipped at %d", bit, at), flipped, at))
		}
		for _, size := range []int{0, 1, 16, headerSize - 1, headerSize, len(value) - 1} {
			if size < len(value) && key != l.lastEntry() {
				hs = append(hs, l.harmed(key, fmt.Sprintf("cut to %d", size), append([]byte{}, value[:size]...), 0))
			}
		}
		hs = append(hs, l.harmed(key, "with a byte more", append(bytes.Clone(value), 0), 0))
		noise := make([]byte, len(value))
		for i := range noise {
			noise[i] = byte(random.Uint32())
		}
		for version := range byte(2) {
			noise[0] = version
			hs = append(hs, l.harmed(key, fmt.Sprint("replaced by noise of version ", version), bytes.Clone(noise), 0))
		}
		hs = append(hs, l.harmed(key, "replaced by zeros", make([]byte, len(value)), 0))
		switch {
		case key == "m/head", isManifest(key), key == l.lastEntry():
		default:
			hs = append(hs, l.harmed(key, "removed", nil, 0))
		}
	}
	return hs
}

// suffering plays harms, and shows the first of each key that goes wrong.
func (l *ledger) suffering(t *testing.T, hs []harm) (lost int) {
	t.Helper()
	if e := (explorer{}); len(hs) > 100 {
		hs = sampled(&e, 3, hs)
	}
	failed := map[string]int{}
	for _, h := range hs {
		_, n, err := l.suffer(h)
		if err != nil {
			key, _, _ := strings.Cut(h.name, " ")
			if failed[key]++; failed[key] == 1 {
				t.Errorf("%s: %v", h.name, err)
			}
		}
		lost += n
	}
	for key, n := range failed {
		t.Logf("%s: %d failures", key, n)
	}
	t.Logf("%d times damaged, %d of %d streams lost", len(hs), lost, len(hs)*len(l.streams))
	return lost
}

func ledgers(t *testing.T, f func(t *testing.T, l *ledger)) {
	smallChunks(t)
	for _, all := range []bool{false, true} {
		t.Run(fmt.Sprintf("all shards checkpointed %v", all), func(t *testing.T) { f(t, newLedger(t, all)) })
	}
}

// harmsOf returns the harms of the keys for which is is true.
func (l *ledger) harmsOf(is func(key string) bool) (hs []harm) {
	for _, h := range l.harms() {
		if key, _, _ := strings.Cut(h.name, " "); is(key) {
			hs = append(hs, h)
		}
	}
	return hs
}

func TestDamagedCheckpoint(t *testing.T) {
	ledgers(t, func(t *testing.T, l *ledger) {
		hs := l.harmsOf(func(key string) bool { return isCheckpoint(key) })
		lost := l.suffering(t, hs)
		// Of a shard with four streams in four chunks, damage to one chunk loses one or, if the journal has it too, none.
		if lost > len(hs)/2 {
			t.Errorf("%d streams lost of %d damages", lost, len(hs))
		}
	})
}

// Values that come under each other's key are not taken for what they are not.
func TestSwapped(t *testing.T) {
	ledgers(t, func(t *testing.T, l *ledger) {
		keys := l.keys()
		var hs []harm
		for i, a := range keys {
			for _, b := range keys[:i] {
				if isCheckpoint(a) && isCheckpoint(b) {
					h := harm{name: a + " swapped with " + b}
					h.values = l.values.with([]operation{{a, l.values[b]}, {b, l.values[a]}})
					h.mayLose = slices.Concat(l.mayLose(a, 0), l.mayLose(b, 0))
					hs = append(hs, h)
				}
			}
		}
		l.suffering(t, hs)
	})
}

// What is damaged again is kept again, beside what was kept before.
func TestDamagedTwice(t *testing.T) {
	ledgers(t, func(t *testing.T, l *ledger) {
		for _, key := range l.keys() {
			if !isCheckpoint(key) {
				continue
			}
			values := l.values
			for round := range 3 {
				value := append([]byte{1}, fmt.Sprintf("damaged %d", round)...)
				h := harm{values: values.with([]operation{{key, value}}), mayLose: l.shardStreams(3, 7, 11)}
				a, recovery, err := l.open(h, l.models[0])
				if err != nil {
					t.Fatal(err)
				}
				a.conv.Close(context.Background())
				if err := a.told(recovery); err != nil {
					t.Fatalf("%s, round %d: %v", key, round, err)
				}
				if round == 0 && len(recovery.Damaged) != 1 {
					t.Fatalf("%s: %+v", key, recovery)
				}
				values = a.rec.values
				if len(key) > 4 {
					break // there is no such chunk any more
				}
			}
			kept := 0
			for k := range values {
				if strings.HasPrefix(k, "damaged/") {
					kept++
				}
			}
			if want := map[bool]int{true: 3, false: 1}[isManifest(key)]; kept != want {
				t.Errorf("%s: %d values kept, want %d", key, kept, want)
			}
		}
	})
}

// A process ends anywhere in the recovery from a damage, and the next one begins.
func TestDamageAndCrash(t *testing.T) {
	ledgers(t, func(t *testing.T, l *ledger) {
		var hs []harm
		for _, h := range l.harmsOf(func(key string) bool { return isCheckpoint(key) }) {
			if !strings.HasSuffix(h.name, fmt.Sprint("cut to ", headerSize)) && !strings.HasSuffix(h.name, "zeros") {
				continue
			}
			rec, _, err := l.suffer(h)
			if err != nil {
				t.Fatal(err)
			}
			for n, p := range rec.puts[:rec.opened] {
				for _, part := range cuts(p.ops) {
					h := h
					h.name += fmt.Sprintf(", then a crash in Put %d, of %v only %v", n, p.ops, part)
					h.values, h.told = p.world.values.with(part), true
					hs = append(hs, h)
				}
			}
		}
		l.suffering(t, hs)
	})
}

// Whenever a process ends in the recovery from a damage, what could not be read is still there, under its key or another.
func TestDamagedIsKept(t *testing.T) {
	ledgers(t, func(t *testing.T, l *ledger) {
		for _, key := range l.keys() {
			h := l.harmed(key, "replaced", append([]byte{1}, "what could not be read"...), 0)
			if key == l.lastEntry() {
				h.values[key] = append(h.values[key], make([]byte, len(l.values[key]))...) // or it is only torn
			}
			value := h.values[key]
			a, recovery, err := l.open(h, l.models[0])
			if err != nil {
				t.Fatalf("%s: %v", h.name, err)
			}
			a.conv.Close(context.Background())
			if len(recovery.Damaged) != 1 || !bytes.Equal(a.rec.values[recovery.Damaged[0].Aside], value) {
				t.Errorf("%s: %+v", h.name, recovery)
			}
			for n, p := range a.rec.puts[:a.rec.opened] {
				for _, part := range cuts(p.ops) {
					kept := false
					for k, v := range p.world.values.with(part) {
						kept = kept || bytes.Equal(v, value) && (k == key || strings.HasPrefix(k, "damaged/"))
					}
					if !kept {
						t.Errorf("%s: gone after a crash in Put %d, of %v only %v", h.name, n, p.ops, part)
					}
				}
			}
		}
	})
}

// The journal has been cut, and only the head or a manifest is left to tell what was given out.
func TestFloorWithoutEntries(t *testing.T) {
	smallChunks(t)
	ctx := context.Background()
	s := seriesIn(3, 0, func(s series) point { return s.int(0, 1, 1) })
	rec, w, err := newWorld([]action{
		{points: []point{s.int(10, 20, 1)}}, {points: []point{s.int(20, 30, 2)}}, {shards: []int{3}},
	}).run(nil, again)
	if err != nil {
		t.Fatal(err)
	}
	for _, lost := range [][]operation{
		{{"m/head", nil}, {"c/1/03/0000", nil}},
		{{"m/head", []byte{1}}, {"c/1/03/0000", []byte{1}}},
		{{"m/03", nil}},
		{{"m/03", []byte{1}}},
	} {
		rec := &recorder{values: rec.values.with(lost)}
		conv, recovery, err := d2c.OpenDurable(ctx, w.models[0].cfg, d2c.DurableConfig{Storage: rec, Owner: "test"})
		if err != nil || conv.Len() != 0 || len(recovery.Damaged) == 0 { // a head may not have come to be yet
			t.Fatalf("%v: %v %+v", lost, err, recovery)
		}
		if r := convert(conv, ofResource(batch(s.int(20, 30, 2)))); r.Count(d2c.DroppedTooLate) != 1 {
			t.Errorf("%v: what was added is %s", lost, describeResult(r))
		}
		md := ofResource(batch(s.int(25, 40, 4)))
		convert(conv, md)
		if dp := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints().At(0); dp.StartTimestamp() != sec(30) {
			t.Errorf("%v: begins anew at %v, want 30 s", lost, dp.StartTimestamp())
		}
		closeTest(t, conv)
	}
}

// ofVersion returns value as another version may have written it: with a header checksum of its own.
func ofVersion(value []byte, version byte) []byte {
	value = bytes.Clone(value)
	value[0] = version
	binary.LittleEndian.PutUint64(value[checksumAt:], xxh3.Hash(value[:checksumAt]))
	return value
}

// What is someone else's, or from a newer version, is left alone.
func TestNotOurs(t *testing.T) {
	ctx := context.Background()
	ledgers(t, func(t *testing.T, l *ledger) {
		refused := func(name string, values stored, cfg d2c.Config, owner string, want error) {
			t.Helper()
			rec := &recorder{values: values}
			conv, recovery, err := d2c.OpenDurable(ctx, cfg, d2c.DurableConfig{Storage: rec, Owner: owner})
			if !errors.Is(err, want) || conv != nil {
				t.Errorf("%s: error %v, want %v; %+v", name, err, want, recovery)
			}
			if len(rec.puts) > 0 {
				t.Errorf("%s: storage was written to", name)
			}
		}
		cfg := l.models[0].cfg
		for _, key := range l.keys() {
			for _, version := range []byte{2, 3, 128, 255} {
				newer := ofVersion(l.values[key], version)
				refused(fmt.Sprint(key, " of version ", version), l.values.with([]operation{{key, newer}}), cfg, "test", d2c.ErrVersion)
			}
		}
		seeded := cfg
		seeded.Seed = 1
		refused("another seed", l.values, seeded, "test", d2c.ErrOwner)
		refused("another owner", l.values, cfg, "other", d2c.ErrOwner)
		refused("no owner", l.values, cfg, "", d2c.ErrOwner)
	})
}

func TestDamagedHead(t *testing.T) {
	ledgers(t, func(t *testing.T, l *ledger) {
		l.suffering(t, l.harmsOf(func(key string) bool { return key == "m/head" }))
	})
}

func TestDamagedEntry(t *testing.T) {
	ledgers(t, func(t *testing.T, l *ledger) {
		l.suffering(t, l.harmsOf(func(key string) bool { return strings.HasPrefix(key, "j/") && key != l.lastEntry() }))
	})
}

func TestDamagedLastEntry(t *testing.T) {
	ledgers(t, func(t *testing.T, l *ledger) {
		harms := l.harmsOf(func(key string) bool { return key == l.lastEntry() })
		all := len(harms)
		harms = slices.DeleteFunc(harms, func(h harm) bool { return strings.Contains(h.name, "replaced by") })
		if all-len(harms) != 3 {
			t.Fatalf("%d of %d left", len(harms), all)
		}
		l.suffering(t, harms)
	})
}

// Nothing tells of the times that the last entry has given out, so what may be lost begins anew after the time of recovery. That is
// when the process begins, too: with what reaches back before it a stream begins at its end.
func TestLastEntryReplaced(t *testing.T) {
	ledgers(t, func(t *testing.T, l *ledger) {
		ctx := context.Background()
		values := l.values.with([]operation{{l.lastEntry(), make([]byte, len(l.values[l.lastEntry()]))}})
		cfg := l.models[0].cfg
		now := time.Unix(0, 0).Add(time.Hour)
		cfg.Now = func() time.Time { return now }
		conv, recovery, err := d2c.OpenDurable(ctx, cfg, l.local(&recorder{values: values}))
		if err != nil || recovery.Forgotten == 0 {
			t.Fatalf("%v %+v", err, recovery)
		}
		defer conv.Close(ctx)
		s := seriesIn(3, 1000, func(s series) point { return s.int(0, 1, 1) })
		before, after := batch(s.int(3590, 3600, 1)), batch(s.int(3600, 3610, 1))
		if r := convert(conv, ofResource(before)); r.Count(d2c.DroppedTooLate) != 1 {
			t.Errorf("up to the time of recovery: %s", describeResult(r))
		}
		md := ofResource(after)
		if r := convert(conv, md); r.Count(d2c.AddedFirst) != 1 {
			t.Errorf("after it: %s", describeResult(r))
		}
		dp := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints().At(0)
		if !dp.StartTimestamp().AsTime().Equal(now) {
			t.Errorf("begins at %v, want %v", dp.StartTimestamp().AsTime(), now)
		}
		s = seriesIn(3, 1001, func(s series) point { return s.int(0, 1, 1) })
		md = ofResource(batch(s.int(3590, 3610, 1)))
		if r := convert(conv, md); r.Count(d2c.AddedFirst) != 1 {
			t.Errorf("across it: %s", describeResult(r))
		}
		if start := lastPoint(md).StartTimestamp(); start != sec(3610) {
			t.Errorf("begins at %v, want its end", start)
		}
	})
}

// The first key that is read is damaged, the last one is from a newer version: nothing may be written before that is known.
func TestDamageAndNewerVersion(t *testing.T) {
	ledgers(t, func(t *testing.T, l *ledger) {
		for _, first := range []string{"m/head", "m/03", l.lastEntry()[:len(l.lastEntry())-1] + "3"} {
			newer := ofVersion(l.values[l.lastEntry()], 2)
			rec := &recorder{values: l.values.with([]operation{{first, []byte{1}}, {l.lastEntry(), newer}})}
			_, _, err := d2c.OpenDurable(context.Background(), l.models[0].cfg, l.local(rec))
			if !errors.Is(err, d2c.ErrVersion) {
				t.Errorf("%s damaged: error %v", first, err)
			}
			if len(rec.puts) > 0 {
				t.Errorf("%s damaged: storage was written to: %v", first, rec.puts[0].ops)
			}
		}
	})
}

// A manifest, the head, or the entries between are gone.
func TestRemoved(t *testing.T) {
	ledgers(t, func(t *testing.T, l *ledger) {
		var hs []harm
		for _, key := range l.keys() {
			if key == "m/head" || isManifest(key) {
				hs = append(hs, l.harmed(key, "removed", nil, 0))
			}
		}
		l.suffering(t, hs)
	})
}

// The journal is empty, and lost are the head and the manifest that were stored last: nothing tells what was given out.
func TestLatestManifestAndHeadLost(t *testing.T) {
	smallChunks(t)
	ctx := context.Background()
	sum := func(s series) point { return s.int(0, 1, 1) }
	a, b := seriesIn(3, 0, sum), seriesIn(7, 0, sum)
	rec, w, err := newWorld([]action{
		{points: []point{a.int(10, 20, 1), b.int(10, 20, 1)}}, {shards: []int{3, 7}}, {points: []point{a.int(20, 30, 2)}}, {shards: []int{3}},
	}).run(nil, again)
	if err != nil {
		t.Fatal(err)
	}
	for _, head := range [][]byte{nil, {1}} {
		rec := &recorder{values: rec.values.with([]operation{{"m/head", head}, {"m/03", nil}})}
		conv, recovery, err := d2c.OpenDurable(ctx, w.models[0].cfg, d2c.DurableConfig{Storage: rec, Owner: "test"})
		if err != nil || conv.Len() != 1 || len(recovery.Damaged) != 1 {
			t.Fatalf("%v %+v", err, recovery)
		}
		if r := convert(conv, ofResource(batch(a.int(20, 30, 2)))); r.Count(d2c.DroppedTooLate) != 1 {
			t.Errorf("what was added is %s", describeResult(r))
		}
		if r := convert(conv, ofResource(batch(b.int(20, 30, 2)))); r.Count(d2c.AddedAligned) != 1 {
			t.Errorf("what is next of a stream that is not lost is %s", describeResult(r))
		}
		closeTest(t, conv)
	}
}

// A torn entry is gone once it has been told.
func TestTornIsToldOnce(t *testing.T) {
	ledgers(t, func(t *testing.T, l *ledger) {
		values := l.values.with([]operation{{l.lastEntry(), []byte{1}}})
		for _, want := range []bool{true, false} {
			a, recovery, err := l.open(harm{values: values}, l.before)
			if err != nil {
				t.Fatal(err)
			}
			closeTest(t, a.conv)
			if recovery.Torn != want || len(recovery.Damaged) > 0 || len(a.lost) > 0 {
				t.Errorf("%+v, want torn %v", recovery, want)
			}
			values = a.rec.values
		}
	})
}

// Two values are lost at once: neither hides what the other has to tell.
func TestTwoLost(t *testing.T) {
	ledgers(t, func(t *testing.T, l *ledger) {
		var hs []harm
		keys := l.keys()
		for i, a := range keys {
			for _, b := range keys[:i] {
				if a == l.lastEntry() || b == l.lastEntry() {
					continue // nobody can tell that it was ever written
				}
				for _, lost := range [][2][]byte{{nil, nil}, {{1}, nil}, {nil, {1}}} {
					hs = append(hs, harm{
						name:    fmt.Sprintf("%s and %s are %v", a, b, lost),
						values:  l.values.with([]operation{{a, lost[0]}, {b, lost[1]}}),
						mayLose: slices.Concat(l.mayLose(a, 0), l.mayLose(b, 0)),
					})
				}
			}
		}
		l.suffering(t, hs)
	})
}

// A marker for a stream that was lost must not go out at a time that had a value.
func TestMarkerOfLostStream(t *testing.T) {
	smallChunks(t)
	ctx := context.Background()
	s := seriesIn(3, 0, func(s series) point { return s.int(0, 1, 1) })
	rec, w, err := newWorld([]action{
		{points: []point{s.int(10, 20, 1)}}, {points: []point{s.int(20, 30, 2)}}, {shards: []int{3}},
	}).run(nil, again)
	if err != nil {
		t.Fatal(err)
	}
	rec = &recorder{values: rec.values.with([]operation{{"c/1/03/0000", nil}})}
	conv, recovery, err := d2c.OpenDurable(ctx, w.models[0].cfg, d2c.DurableConfig{Storage: rec, Owner: "test"})
	if err != nil || conv.Len() != 0 || len(recovery.Damaged) != 1 {
		t.Fatal(err, recovery)
	}
	defer conv.Close(ctx)
	late := ofResource(batch(s.sum(true, 10, 20, func(dp pmetric.NumberDataPoint) { dp.SetFlags(noRecordedValue) })))
	result, err := conv.Convert(ctx, late)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.given.follow(late); err != nil {
		t.Errorf("%v, %s", err, describeResult(result))
	}
}
