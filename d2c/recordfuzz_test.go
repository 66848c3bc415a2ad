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
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/streamid"
)

// The places of a frame, as frame.go describes them.
const (
	headerSize  = 96
	checksumAt  = 88 // of the header
	sectionSize = 12 // before what is in it
	trailerSize = 16
)

// forEachSection calls f with each section of a frame and its shard, as far as their sizes can be believed.
func forEachSection(key string, frame []byte, f func(shard int, section []byte)) {
	if len(frame) < headerSize {
		return
	}
	shards, rest := binary.LittleEndian.Uint64(frame[64:]), frame[headerSize:]
	switch {
	case strings.HasPrefix(key, "c/"):
		shards = 1 << (frame[2] % d2c.Shards)
	case strings.HasPrefix(key, "m/"):
		return
	}
	for shard := range d2c.Shards {
		if shards>>shard&1 == 0 {
			continue
		}
		if len(rest) < sectionSize {
			return
		}
		size := sectionSize + uint64(binary.LittleEndian.Uint32(rest))
		if size > uint64(len(rest)) {
			return
		}
		f(shard, rest[:size])
		rest = rest[size:]
	}
}

// tame makes numbers of entries and chunks small: who forges large ones, with the right checksum, makes Open look for as many.
func tame(frame []byte) {
	if len(frame) < headerSize {
		return
	}
	clear(frame[17:24])
	clear(frame[25:28])
	clear(frame[29:32])
	if kind := frame[1]; kind == 'h' || kind == 'm' {
		clear(frame[33:40])
		clear(frame[41:48])
	}
}

// seal makes all checksums of a frame right.
func seal(key string, frame []byte) {
	if len(frame) < headerSize {
		return
	}
	seq := binary.LittleEndian.Uint64(frame[16:])
	forEachSection(key, frame, func(shard int, section []byte) {
		sum := xxh3.HashSeed(section[sectionSize:], seq*d2c.Shards+uint64(shard)) ^ uint64(binary.LittleEndian.Uint32(section))
		binary.LittleEndian.PutUint64(section[4:], sum)
	})
	if strings.HasPrefix(key, "j/") && len(frame) >= headerSize+trailerSize {
		t := frame[len(frame)-trailerSize:]
		binary.LittleEndian.PutUint64(t[8:], xxh3.HashSeed(t[:8], seq))
	}
	binary.LittleEndian.PutUint64(frame[checksumAt:], xxh3.Hash(frame[:checksumAt]))
}

// FuzzSection reads any bytes as a section. What is read is put into a table, and what is written from there reads the same.
func FuzzSection(f *testing.F) {
	_, values := readGolden(f)
	f.Add([]byte{})
	f.Add([]byte{0})
	f.Add(bytes.Repeat([]byte{0xff}, 100))
	f.Add(append([]byte{100}, make([]byte, 100)...)) // many bounds, all empty
	for _, key := range slices.Sorted(maps.Keys(values)) {
		forEachSection(key, values[key], func(_ int, section []byte) { f.Add(section[sectionSize:]) })
	}
	rec, _, err := newManyWorld().run(nil, again)
	if err != nil {
		f.Fatal(err)
	}
	for _, key := range slices.Sorted(maps.Keys(rec.values)) {
		forEachSection(key, rec.values[key], func(_ int, section []byte) { f.Add(section[sectionSize:]) })
	}
	for name, value := range readAggregateGolden(f, aggregateGolden) {
		if _, key, ok := strings.Cut(name, "storage "); ok {
			forEachSection(key, value, func(_ int, section []byte) { f.Add(section[sectionSize:]) })
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<16 {
			return
		}
		records, err := 0, error(nil)
		// A byte of input is a count of 8 bytes, for which room is made ahead, or a list of bounds.
		n, most := uint64(math.MaxUint64), 32*uint64(len(data))+4096
		for try := 0; try < 3 && n > most; try++ { // others may allocate meanwhile
			n = allocated(func() { records, err = d2c.ReadSection(data) })
		}
		if n > most {
			t.Errorf("%d bytes allocated, of %d bytes of input and %d records", n, len(data), records)
		}
		for _, writers := range []d2c.Writers{d2c.WritersOne, d2c.WritersMany} {
			read, written, readErr := d2c.Section(data, writers)
			if !errors.Is(readErr, err) || len(read) > records {
				t.Fatalf("error %v, %d streams, but before %v and %d", readErr, len(read), err, records)
			}
			again, _, err := d2c.Section(written, writers)
			if err != nil {
				t.Fatalf("what was written cannot be read: %v\n%x", err, written)
			}
			if !maps.Equal(again, read) {
				for id, want := range read {
					if got := again[id]; got != want {
						t.Errorf("%v\n got %s\nwant %s", id, got, want)
					}
				}
				t.Fatalf("%d streams were written as %d", len(read), len(again))
			}
		}
	})
}

// What FuzzOpen does to what is stored, by the first byte of six; the others are numbers to do it with.
const (
	flipByte = iota
	setByte
	cut
	extend
	remove
	swap
	copyTo
	forgeSection // and those from here on make all checksums right
	forgeHeader
	mutations
)

// entriesSeen is up to which entry of the golden storage mutate puts values. Open looks farther ahead than that if there is neither
// a head nor a manifest.
const entriesSeen = 17

// mutate does to values what program says, and reports whether anything was forged.
func mutate(values stored, program []byte) (forged bool) {
	for ; len(program) >= 6; program = program[6:] {
		keys := slices.Sorted(maps.Keys(values))
		if len(keys) == 0 {
			return forged
		}
		key := keys[int(program[1])%len(keys)]
		value := bytes.Clone(values[key])
		at, by, n := int(binary.LittleEndian.Uint16(program[2:])), program[4], program[5]
		if len(value) == 0 && program[0]%mutations < extend {
			continue
		}
		switch program[0] % mutations {
		case flipByte:
			value[at%len(value)] ^= by
		case setByte:
			value[at%len(value)] = by
		case cut:
			value = value[:at%len(value)]
		case extend:
			value = append(value, bytes.Repeat([]byte{by}, int(n))...)
		case remove:
			delete(values, key)
			continue
		case swap:
			other := keys[int(by)%len(keys)]
			value, values[other] = values[other], value
		case copyTo:
			key = []string{
				d2c.KeyHead, d2c.KeyEntry(1 + uint64(n)%entriesSeen), d2c.KeyManifest(int(n) % d2c.Shards),
				d2c.KeyChunk(int(n)%d2c.Shards, by>>7, uint32(by>>2&31)),
			}[by%4]
		case forgeSection:
			if len(value) <= headerSize {
				continue
			}
			value[headerSize+at%(len(value)-headerSize)] = by
			tame(value)
			seal(key, value)
			forged = true
		case forgeHeader:
			if len(value) < headerSize {
				continue
			}
			value[at%checksumAt] = by
			tame(value)
			seal(key, value)
			forged = true
		}
		values[key] = value
	}
	if forged {
		chain(values)
	}
	return forged
}

// chain makes each entry the continuation of the one before.
func chain(values stored) {
	var before []byte
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if entry := values[key]; strings.HasPrefix(key, "j/") && len(entry) >= headerSize {
			if before != nil {
				copy(entry[40:48], before[checksumAt:])
				tame(entry)
				seal(key, entry)
			}
			before = entry
		}
	}
}

// FuzzOpen changes what the golden storage has. A process can begin on whatever is left, unless that is someone else's.
func FuzzOpen(f *testing.F) {
	_, values := readGolden(f)
	keys := len(values)
	f.Add([]byte{})
	for key := range keys {
		n := byte(key)
		f.Add([]byte{flipByte, n, 90, 0, 1, 0})
		f.Add([]byte{flipByte, n, 20, 0, 1, 0})
		f.Add([]byte{cut, n, 100, 0, 0, 0})
		f.Add([]byte{remove, n, 0, 0, 0, 0})
		f.Add([]byte{swap, n, 0, 0, n + 1, 0})
		f.Add([]byte{copyTo, n, 0, 0, n, n + 1})
		f.Add([]byte{extend, n, 0, 0, 0, 200, remove, n + 1, 0, 0, 0, 0})
		f.Add([]byte{forgeSection, n, 12 + 16 + 1, 0, 0xff, 0})
		f.Add([]byte{forgeHeader, n, n * 3, 0, n, 0})
	}
	// The last but one is someone else, and the last is torn.
	f.Add([]byte{swap, 17, 0, 0, 0, 0, cut, 18, 100, 0, 0, 0})
	for _, at := range []byte{0, 1, 2, 3, 8, 16, 24, 28, 32, 40, 48, 56, 63, 64, 71} {
		for _, n := range []byte{0, 10, 20, 21} { // a chunk, an entry, a manifest, the head
			f.Add([]byte{forgeHeader, n, at, 0, 3, 0})
		}
	}
	first := seriesIn(3, 0, func(s series) point { return s.int(0, 1, 1) })
	second := seriesIn(7, 50, func(s series) point { return s.int(0, 1, 1) })
	third := seriesIn(11, 0, func(s series) point { return s.histogram(0, 1, hist(nil)) })
	ctx := context.Background()
	now := time.Unix(1_700_000_100, 0)
	open := func(values stored) (*d2c.Converter, *memory, d2c.Recovery, error) {
		storage := &memory{values: values}
		cfg := d2c.Config{LateWindow: 5 * time.Minute, Now: func() time.Time { return now }}
		conv, recovery, err := d2c.OpenDurable(ctx, cfg, d2c.DurableConfig{Storage: storage, Owner: goldenOwner})
		if err == nil {
			conv.StopBackground()
		}
		return conv, storage, recovery, err
	}
	// Nobody can tell that the last entries were never written, or the very last one not to its end. Then streams are as they
	// had been before these.
	const lastEntry = goldenBatches + 1
	golden := map[uint64][]d2c.State{} // by last entry
	journal := maps.Clone(values)
	for last := uint64(lastEntry); last >= goldenKnown; last-- {
		conv, _, recovery, err := open(maps.Clone(journal))
		if err != nil || len(recovery.Damaged) > 0 || recovery.Entries+1 != int(last) {
			f.Fatal(err, recovery)
		}
		golden[last] = conv.States()
		closeTest(f, conv)
		delete(journal, d2c.KeyEntry(last))
	}
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) > 60 {
			return
		}
		start := maps.Clone(values)
		for key, value := range start {
			start[key] = bytes.Clone(value)
		}
		forged := mutate(start, program)
		conv, storage, recovery, err := open(maps.Clone(start))
		if err != nil {
			if !errors.Is(err, d2c.ErrVersion) && !errors.Is(err, d2c.ErrOwner) {
				t.Fatal(err)
			}
			if !forged {
				t.Fatalf("nothing was forged: %v", err)
			}
			if !maps.EqualFunc(storage.values, start, bytes.Equal) {
				t.Fatalf("%v, but it was not left alone", err)
			}
			return
		}
		for _, d := range recovery.Damaged {
			if value := start[d.Key]; (d.Aside == "") != (value == nil) || !bytes.Equal(storage.values[d.Aside], value) {
				t.Fatalf("%s is %x, set aside %x; %+v", d.Key, value, storage.values[d.Aside], recovery)
			}
		}
		for key, value := range start {
			if strings.HasPrefix(key, "damaged/") && !bytes.Equal(storage.values[key], value) {
				t.Fatalf("%s was %x, is %x; %+v", key, value, storage.values[key], recovery)
			}
		}
		last := uint64(lastEntry)
		for last >= goldenKnown && len(start[d2c.KeyEntry(last)]) < len(values[d2c.KeyEntry(last)]) {
			last--
		}
		if states := golden[last]; !forged && states != nil {
			if err := sameOrLost(conv, states, len(recovery.Damaged) > 0); err != nil {
				t.Fatalf("%v; %+v", err, recovery)
			}
		}
		for round := range 2 {
			from := float64(1000 + 10*round)
			md := ofResource(batch(first.int(from, from+10, 1), second.int(from, from+10, 1), third.histogram(from, from+10, hist([]float64{1}, 1, 2))))
			if _, err := conv.Convert(ctx, md); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			if round == 1 {
				if err := conv.Checkpoint(ctx); err != nil {
					t.Fatal(err)
				}
			}
			before, was := conv, goldenStreams(conv)
			closeTest(t, conv)
			if conv, storage, recovery, err = open(storage.values); err != nil {
				t.Fatalf("reopened in round %d: %v", round, err)
			}
			if len(recovery.Damaged) > 0 || recovery.Forgotten > 0 || recovery.Torn {
				t.Fatalf("reopened in round %d: %+v", round, recovery)
			}
			if is := goldenStreams(conv); !slices.Equal(is, was) {
				is, was = slices.DeleteFunc(slices.Clone(is), func(s string) bool { return slices.Contains(was, s) }),
					slices.DeleteFunc(was, func(s string) bool { return slices.Contains(is, s) })
				t.Fatalf("reopened in round %d:\n got %q\nwant %q", round, is, was)
			}
			for shard := range d2c.Shards {
				if is, was := conv.Floor(shard), before.Floor(shard); is < was {
					t.Fatalf("reopened in round %d: floor of shard %d is %d, was %d", round, shard, is, was)
				}
			}
		}
		closeTest(t, conv)
	})
}

// sameOrLost tells streams that are neither what they were nor lost so that they begin anew after what was given out.
func sameOrLost(conv *d2c.Converter, were []d2c.State, told bool) error {
	are := map[streamid.ID]string{}
	for _, s := range conv.States() {
		are[s.ID] = goldenStream(s)
	}
	for _, was := range were {
		is, ok := are[was.ID]
		delete(are, was.ID)
		switch {
		case ok && is != goldenStream(was):
			return fmt.Errorf("\n got %s\nwant %s", is, goldenStream(was))
		case !ok && !told:
			return fmt.Errorf("%s is lost, and nothing is told", goldenStream(was))
		case !ok && conv.Floor(was.Shard) < int64(was.Emitted):
			return fmt.Errorf("%s is lost and may begin anew after %d", goldenStream(was), conv.Floor(was.Shard))
		}
	}
	if len(are) > 0 {
		return fmt.Errorf("from nowhere: %v", are)
	}
	return nil
}
