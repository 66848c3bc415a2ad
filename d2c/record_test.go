// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/zeebo/xxh3"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/streamid"
)

var update = flag.Bool("update", false, "write testdata/state-v1.json, unless there is one")

// goldenFile is a storage as a history has left it. It is never changed: what version 1 has written stays readable.
const goldenFile = "testdata/state-v1.json"

// golden is the content of a golden file.
type golden struct {
	Owner   string            `json:"owner"`
	Streams []string          `json:"streams"` // as goldenStreams lists them
	Storage map[string]string `json:"storage"` // hexadecimal, by key
}

func readGolden(t testing.TB) (g golden, values stored) {
	t.Helper()
	data, err := os.ReadFile(goldenFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &g); err != nil {
		t.Fatalf("%s: %v", goldenFile, err)
	}
	values = stored{}
	for key, digits := range g.Storage {
		if values[key], err = hex.DecodeString(digits); err != nil {
			t.Fatalf("%s: %s: %v", goldenFile, key, err)
		}
	}
	return g, values
}

func writeGolden(t *testing.T, g golden) {
	t.Helper()
	if _, err := os.Stat(goldenFile); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("%s is there already (%v): another format is another version, with a file of its own", goldenFile, err)
	}
	data, err := json.MarshalIndent(g, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(goldenFile, append(data, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

// goldenStreams lists what a Converter knows, by stream.
func goldenStreams(conv *d2c.Converter) (streams []string) {
	for _, s := range conv.States() {
		streams = append(streams, goldenStream(s))
	}
	slices.Sort(streams)
	return streams
}

func goldenStream(s d2c.State) string {
	return fmt.Sprintf("%v %s, last added %06x", s.ID, describeState(
		uint64(s.Start), uint64(s.Last), uint64(s.Emitted), s.Restarted, s.Marked, s.Gaps, s.Point.(dataPoint)), s.Print)
}

const goldenOwner = "golden"

func openGolden(t testing.TB, storage store.Storage, now *time.Time) (*d2c.Converter, d2c.Recovery) {
	t.Helper()
	cfg := d2c.Config{LateWindow: 5 * time.Minute, MaxStale: time.Hour, Now: func() time.Time { return *now }}
	conv, recovery, err := d2c.OpenDurable(context.Background(), cfg, d2c.DurableConfig{Storage: storage, Owner: goldenOwner})
	if err != nil {
		t.Fatal(err)
	}
	conv.StopBackground()
	return conv, recovery
}

// life is the points of a stream, one a batch; nil is none.
type life []point

// goldenLives has one stream of each sort, in one shard.
func goldenLives(shard int) (lives []life) {
	used := map[string]int{}
	add := func(kind string, of func(series) point, life func(s series) life) {
		s := seriesIn(shard, used[kind], of)
		used[kind]++
		lives = append(lives, life(s))
	}
	sum := func(f func(s series) life) { add("sum", func(s series) point { return s.int(0, 1, 1) }, f) }
	updown := func(f func(s series) life) { add("updown", func(s series) point { return s.updown(0, 1, 1) }, f) }
	histogram := func(f func(s series) life) {
		add("histogram", func(s series) point { return s.histogram(0, 1, hist(nil)) }, f)
	}
	exponential := func(f func(s series) life) {
		add("exponential", func(s series) point { return s.exponential(0, 1, expo(0, 0, 0, buckets{}, buckets{})) }, f)
	}
	noNumber := func(dp pmetric.NumberDataPoint) { dp.SetFlags(noRecordedValue) }
	noHistogram := func(dp pmetric.HistogramDataPoint) { dp.SetFlags(noRecordedValue) }

	// plain
	sum(func(s series) life { return life{s.int(10, 20, 1), s.int(20, 30, 1<<40)} })
	updown(func(s series) life { return life{s.updown(10, 20, -7)} })
	sum(func(s series) life { return life{s.double(10, 20, 0.1), s.double(20, 30, 1e300)} })
	// an int that becomes a double
	sum(func(s series) life { return life{s.int(10, 20, 3), s.double(20, 30, 0.5)} })
	// first only
	sum(func(s series) life { return life{s.int(10, 20, 0)} })
	// opened by a point without a start, in the fourth batch
	sum(func(s series) life { return life{nil, nil, nil, s.int(0, 70, 5)} })
	// two gaps, one of which is divided
	sum(func(s series) life {
		return life{s.int(10, 20, 1), s.int(30, 40, 2), s.int(60, 70, 4), s.int(45, 50, 8)}
	})
	// a gap that is filled, so that what was emitted is later than the last point
	sum(func(s series) life { return life{s.int(10, 20, 1), s.int(30, 40, 2), s.int(20, 30, 4)} })
	// before first
	updown(func(s series) life { return life{s.updown(50, 60, 1), s.updown(10, 20, -2)} })
	// more gaps than are remembered
	var gaps life
	sum(func(s series) life {
		for i := range goldenBatches {
			from := float64(20 * (i + 1))
			gaps = append(gaps, s.int(from, from+10, 1<<i))
		}
		return gaps
	})
	// a marker is the latest thing given out
	sum(func(s series) life { return life{s.int(10, 20, 1), s.sum(true, 20, 30, noNumber)} })
	histogram(func(s series) life {
		return life{s.histogram(10, 20, hist([]float64{1}, 1, 2)), s.histogram(20, 30, noHistogram)}
	})
	// a restart
	updown(func(s series) life { return life{s.updown(10, 20, math.MinInt64), s.updown(20, 30, -1)} })

	short, long := []float64{1, 2}, []float64{math.Inf(-1), -0.5, 0, 1e9}
	summary := func(sum, minimum, maximum float64) func(pmetric.HistogramDataPoint) {
		return func(dp pmetric.HistogramDataPoint) {
			dp.SetSum(sum)
			dp.SetMin(minimum)
			dp.SetMax(maximum)
		}
	}
	// narrow and wide counts; bounds that streams share, and others
	histogram(func(s series) life {
		return life{s.histogram(10, 20, all(hist(short, 1, 0, 300), summary(7.5, 0.25, 99)))}
	})
	histogram(func(s series) life {
		return life{
			s.histogram(10, 20, all(hist(short, 1, 2, 3), summary(7.5, 0.25, 99))),
			s.histogram(20, 30, all(hist(short, 0, 1<<32, 3), func(dp pmetric.HistogramDataPoint) { dp.SetSum(1e10) })),
		}
	})
	histogram(func(s series) life { return life{s.histogram(10, 20, hist(long, 0, 1, 0, 2, math.MaxUint32))} })
	// other bounds, which is a restart
	histogram(func(s series) life {
		return life{s.histogram(10, 20, hist(short, 1, 2, 3)), s.histogram(20, 30, hist(long, 5, 4, 3, 2, 1))}
	})
	// one bucket, no bucket
	histogram(func(s series) life { return life{s.histogram(10, 20, hist([]float64{}, 5))} })
	histogram(func(s series) life {
		return life{s.histogram(10, 20, func(dp pmetric.HistogramDataPoint) { dp.SetCount(200); dp.SetSum(-3) })}
	})

	// both signs, a zero bucket
	exponential(func(s series) life {
		return life{s.exponential(10, 20, all(expo(3, 0.25, 150, buckets{2, []uint64{1, 0, 300}}, buckets{-7, []uint64{4, 1}}),
			func(dp pmetric.ExponentialHistogramDataPoint) { dp.SetMin(-0.5); dp.SetMax(1.75) }))}
	})
	// a scale below zero, wide counts
	exponential(func(s series) life {
		return life{
			s.exponential(10, 20, expo(4, 0, 0, buckets{-1000, []uint64{1}}, buckets{})),
			s.exponential(20, 30, expo(-2, 0, 0, buckets{250, []uint64{1 << 32}}, buckets{})),
		}
	})
	// nothing but its time
	exponential(func(s series) life { return life{s.exponential(10, 20, expo(20, 0, 0, buckets{}, buckets{}))} })
	return lives
}

const (
	goldenBatches = 10
	// goldenKnown is the latest entry that is in a checkpoint.
	goldenKnown = 9
)

// goldenHistory returns the storage that a history leaves, and the process that it ends with. Of the shards, 3 is all in its
// checkpoint, 7 all in the journal, and 11 in both; it has also lost a stream to damage, and has a floor. Batches 2, 4 and 7 are
// followed by checkpoints.
func goldenHistory(t *testing.T) (*recorder, *d2c.Converter, *time.Time) {
	t.Helper()
	ctx := context.Background()
	t.Cleanup(d2c.SetChunkSize(400))
	now := time.Unix(1_700_000_000, 0)
	rec := &recorder{values: stored{}}
	convert := func(conv *d2c.Converter, points ...point) {
		t.Helper()
		result, err := conv.Convert(ctx, ofResource(batch(points...)))
		if err != nil || result.Dropped() > 0 {
			t.Fatal(err, describeResult(result))
		}
		now = now.Add(time.Second)
	}
	checkpoint := func(conv *d2c.Converter, shards ...int) {
		t.Helper()
		if err := conv.Checkpoint(ctx, shards...); err != nil {
			t.Fatal(err)
		}
	}

	conv, _ := openGolden(t, rec, &now)
	lost := seriesIn(11, 100, func(s series) point { return s.int(0, 1, 1) })
	convert(conv, lost.int(2, 5, 1))
	checkpoint(conv, 11)
	closeTest(t, conv)
	key := "c/1/0b/0000"
	damaged := bytes.Clone(rec.values[key])
	damaged[len(damaged)-1] ^= 1
	rec.values = rec.values.with([]operation{{key, damaged}})

	conv, recovery := openGolden(t, rec, &now)
	if len(recovery.Damaged) != 1 || recovery.Streams != 0 {
		t.Fatalf("recovery %+v", recovery)
	}
	var lives []life
	for _, shard := range []int{3, 7, 11} {
		lives = append(lives, goldenLives(shard)...)
	}
	for i := range goldenBatches {
		var points []point
		for n, l := range lives {
			// Those of shard 3 end before its last checkpoint.
			if i < len(l) && l[i] != nil && (i < 8 || n >= len(lives)/3) {
				points = append(points, l[i])
			}
		}
		convert(conv, points...)
		switch i {
		case 2:
			checkpoint(conv, 3)
		case 4:
			checkpoint(conv, 11)
		case 7:
			checkpoint(conv, 3)
		}
	}
	return rec, conv, &now
}

// What is written is what has always been written, byte by byte.
func TestGoldenStateIsWritten(t *testing.T) {
	rec, conv, _ := goldenHistory(t)
	defer closeTest(t, conv)
	if *update {
		g := golden{Owner: goldenOwner, Streams: goldenStreams(conv), Storage: map[string]string{}}
		for key, value := range rec.values {
			g.Storage[key] = hex.EncodeToString(value)
		}
		writeGolden(t, g)
	}
	g, values := readGolden(t)
	if got, want := slices.Sorted(maps.Keys(rec.values)), slices.Sorted(maps.Keys(values)); !slices.Equal(got, want) {
		t.Errorf("keys\n got %q\nwant %q", got, want)
	}
	for key, want := range values {
		if got := rec.values[key]; !bytes.Equal(got, want) {
			t.Errorf("%s\n got %x\nwant %x", key, got, want)
		}
	}
	if got := goldenStreams(conv); !slices.Equal(got, g.Streams) {
		t.Errorf("streams\n got %q\nwant %q", got, g.Streams)
	}
}

// What has been written is read for what it was: all of it, as checkpoints written from it are those that the process would
// have written that it came from.
func TestGoldenStateIsRead(t *testing.T) {
	written, writer, now := goldenHistory(t)
	defer closeTest(t, writer)
	g, values := readGolden(t)
	read := &recorder{values: values}
	reader, recovery := openGolden(t, read, now)
	defer closeTest(t, reader)
	if !maps.EqualFunc(read.values, values, bytes.Equal) {
		t.Error("to open it has changed what is stored")
	}
	if len(recovery.Damaged) > 0 || recovery.Forgotten+recovery.Expired > 0 || recovery.Torn || recovery.Streams != len(g.Streams) {
		t.Errorf("recovery %+v of %d streams", recovery, len(g.Streams))
	}
	if got := goldenStreams(reader); !slices.Equal(got, g.Streams) {
		t.Errorf("streams\n got %q\nwant %q", got, g.Streams)
	}
	if got, want := storedBytes(reader), storedBytes(writer); got != want {
		t.Errorf("stored %v bytes, want %v", got, want)
	}
	for _, conv := range []*d2c.Converter{reader, writer} {
		if err := conv.Checkpoint(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	for key, want := range written.values {
		if key == "m/head" { // it counts how often the journal has been opened
			want = bytes.Clone(want)
			want[28]++
			binary.LittleEndian.PutUint64(want[checksumAt:], xxh3.Hash(want[:checksumAt]))
		}
		if got := read.values[key]; !bytes.Equal(got, want) {
			t.Errorf("%s, written after all\n got %x\nwant %x", key, got, want)
		}
	}
	if got, want := len(read.values), len(written.values); got != want {
		t.Errorf("%d values, want %d", got, want)
	}
	// The floor was read, too: the stream that was lost does not begin before what was given out.
	lost := seriesIn(11, 100, func(s series) point { return s.int(0, 1, 1) })
	if result := convert(reader, ofResource(batch(lost.int(2, 5, 1)))); result.Count(d2c.DroppedTooLate) != 1 {
		t.Errorf("before the floor: %s", describeResult(result))
	}
}

func storedBytes(conv *d2c.Converter) [2]int64 {
	journal, checkpoints := conv.Stored()
	return [2]int64{journal, checkpoints}
}

// The golden file has all that there is.
func TestGoldenStateIsComplete(t *testing.T) {
	g, values := readGolden(t)
	count := map[string]int{}
	for key := range values {
		kind, _, _ := bytes.Cut([]byte(key), []byte("/"))
		count[string(kind)]++
	}
	if values["m/head"] == nil || count["m"] != 3 || count["c"] < 6 || count["j"] < 5 || count["damaged"] != 1 {
		t.Errorf("values by kind: %v", count)
	}
	_, conv, _ := goldenHistory(t)
	defer closeTest(t, conv)
	kinds, gaps, restarted, marked := map[string]bool{}, 0, 0, 0
	for _, s := range conv.States() {
		kind := fmt.Sprint(s.Kind, " double ", s.IsDouble)
		kinds[fmt.Sprint(s.Shard, " ", kind)] = true
		gaps = max(gaps, len(s.Gaps))
		if s.Restarted {
			restarted++
		}
		if s.Marked {
			marked++
		}
	}
	if len(kinds) != 12 || gaps != 4 || restarted != 6 || marked != 6 {
		t.Errorf("%v, at most %d gaps, %d restarted, %d marked, of %d streams", kinds, gaps, restarted, marked, len(g.Streams))
	}
}

// The frame of one sum, written from its description alone.
func TestSumByHand(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	rec := &recorder{values: stored{}}
	conv, _ := openGolden(t, rec, &now)
	defer closeTest(t, conv)
	s := seriesIn(0x2a, 0, func(s series) point { return s.int(0, 1, 1) })
	md := ofResource(batch(s.int(10, 20, 1<<40+5)))
	rm := md.ResourceMetrics().At(0)
	sm := rm.ScopeMetrics().At(0)
	id := streamid.Of(rm.Resource(), sm.Scope(), sm.Metrics().At(0), pcommon.NewMap())
	convert(conv, md)
	print := conv.States()[0].Print

	le := binary.LittleEndian
	record := le.AppendUint64(nil, id.Hi)
	record = le.AppendUint64(record, id.Lo)
	record = append(record, 0)                                            // an int sum, nothing else
	record = append(record, byte(print), byte(print>>8), byte(print>>16)) // of the delta
	record = binary.AppendVarint(record, 1_700_000_000)                   // seen
	record = binary.AppendVarint(record, 10e9)                            // start
	record = binary.AppendVarint(record, 20e9)                            // last
	record = binary.AppendVarint(record, 1<<40+5)                         // value
	section := append([]byte{0}, record...)                               // no bounds
	entry := []byte{1, 'j', 0, 0}                                         // version, kind, shard, parity
	entry = le.AppendUint32(entry, uint32(headerSize+12+len(section)+16)) // size
	entry = le.AppendUint64(entry, d2c.IdentityOf(0, "golden"))
	entry = le.AppendUint64(entry, 1)         // seq
	entry = append(entry, make([]byte, 4)...) // index
	entry = le.AppendUint32(entry, 1)         // count, of openings
	entry = append(entry, make([]byte, 8)...) // oldest
	entry = le.AppendUint64(entry, 0)         // of the entry before
	checksum := xxh3.HashSeed(section, 1*64+0x2a) ^ uint64(len(section))
	entry = le.AppendUint64(entry, checksum) // of the content
	entry = le.AppendUint64(entry, 20e9)     // high
	entry = le.AppendUint64(entry, 1<<0x2a)  // shards
	for _, word := range d2c.TestKey {       // where the table has its streams
		entry = le.AppendUint64(entry, word)
	}
	entry = le.AppendUint64(entry, xxh3.Hash(entry)) // of the header
	entry = le.AppendUint32(entry, uint32(len(section)))
	entry = le.AppendUint64(entry, checksum)
	entry = append(entry, section...)
	entry = le.AppendUint64(entry, 20e9) // high
	entry = le.AppendUint64(entry, xxh3.HashSeed(entry[len(entry)-8:], 1))
	if got := rec.values["j/0000000000000001"]; len(rec.values) != 1 || !bytes.Equal(got, entry) {
		t.Errorf("%d values\n got %x\nwant %x", len(rec.values), got, entry)
	}
}

// A sum that has its times from the record before takes 23 bytes, its ID among them, and its value, in an entry as in a chunk;
// and 33 more for what is given out later than its last point or for the first gap: limits of storage are reckoned with this.
func TestBytesPerRecord(t *testing.T) {
	ctx := context.Background()
	now := time.Unix(1_700_000_000, 0)
	of := func(s series) point { return s.int(0, 1, 1) }
	const streams = 10
	entry := "j/0000000000000001"
	write := func(n, gaps int) (inEntry, inChunk int) {
		rec := &recorder{values: stored{}}
		conv, _ := openGolden(t, rec, &now)
		defer closeTest(t, conv)
		var points []point
		for i := range n {
			s := seriesIn(5, i, of)
			for g := range gaps + 1 {
				points = append(points, s.int(float64(20*g+10), float64(20*g+20), 1<<50))
			}
		}
		convert(conv, ofResource(batch(points...)))
		inEntry = len(rec.values[entry])
		if err := conv.Checkpoint(ctx, 5); err != nil {
			t.Fatal(err)
		}
		return inEntry, len(rec.values["c/1/05/0000"])
	}
	for gaps := range 9 {
		want := 16 + 1 + 3 + 3 + 8
		const alone = 4 + 4 + 5 // more for the times of the first record
		if gaps > 0 {
			want += 8 + 8 + 1 + 16*min(gaps, 4)
		}
		oneEntry, oneChunk := write(1, gaps)
		manyEntry, manyChunk := write(streams, gaps)
		if e, c := (manyEntry-oneEntry)/(streams-1), (manyChunk-oneChunk)/(streams-1); e != want || c != want {
			t.Errorf("%d gaps: %d bytes in an entry, %d in a chunk, want %d", gaps, e, c, want)
		}
		if e, c := oneEntry-want, oneChunk-want; e != headerSize+12+1+alone+16 || c != headerSize+12+1+alone {
			t.Errorf("%d gaps: %d bytes in an entry and %d in a chunk besides records", gaps, e, c)
		}
	}
}

// A storage is told from others by this: where it changes, all state is refused.
func TestIdentityIsFrozen(t *testing.T) {
	for _, x := range []struct {
		seed  streamid.Seed
		owner string
		want  uint64
	}{
		{0, "", 0xb610e9ae78a19f32},
		{0, "d2c", 0x6b9526efb36f8b29},
		{1, "d2c", 0xd3af1a349a365698},
		{math.MaxUint64, "processor/deltaring", 0x5e947205a2030c51},
	} {
		if got := d2c.IdentityOf(x.seed, x.owner); got != x.want {
			t.Errorf("identity of seed %d, owner %q: %#x, want %#x", x.seed, x.owner, got, x.want)
		}
	}
}

func TestKeysAreFrozen(t *testing.T) {
	got := []string{
		d2c.KeyHead, d2c.KeyEntry(1), d2c.KeyEntry(math.MaxUint64), d2c.KeyManifest(0), d2c.KeyManifest(63),
		d2c.KeyChunk(63, 0, 0), d2c.KeyChunk(5, 1, 0xabcd), d2c.KeyChunk(5, 1, 0x12345), d2c.KeyAside("m/3f", 12),
	}
	want := []string{
		"m/head", "j/0000000000000001", "j/ffffffffffffffff", "m/00", "m/3f",
		"c/0/3f/0000", "c/1/05/abcd", "c/1/05/12345", "damaged/12/m/3f",
	}
	if !slices.Equal(got, want) {
		t.Errorf("\n got %q\nwant %q", got, want)
	}
	allowed := func(r rune) bool { return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r == '/' }
	for _, key := range got {
		for _, r := range key {
			if !allowed(r) {
				t.Errorf("key %q has %q, which Storage was not promised", key, r)
			}
		}
	}
}
