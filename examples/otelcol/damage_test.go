// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"bytes"
	"context"
	stdbinary "encoding/binary"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zeebo/xxh3"
	"go.etcd.io/bbolt"
)

// TestDamage damages what durable.yaml has stored, one value at a time. It must start again and say what it could not
// read, and keep that; each stream must go on under its start with its exact total, or begin anew under a later start.
func TestDamage(t *testing.T) {
	t.Parallel()
	original := newSoundState(t)
	entries := keysOf(original.content, journalEntry)
	if len(entries) < 5 {
		t.Fatalf("%d journal entries in %v", len(entries), slices.Sorted(maps.Keys(original.content)))
	}
	fromEnd := func(n int) string { return entries[len(entries)-n] }
	aChunk, aCheckpoint, theHead := keysOf(original.content, chunk)[0], keysOf(original.content, checkpoint)[0], keysOf(original.content, head)[0]
	for _, tc := range []struct {
		name, key string
		damage    func([]byte) []byte
		restarted []string // producers that have streams which must begin anew
		goOn      []string // producers that have streams which must go on
		allGoOn   bool
	}{
		{name: "a chunk of a checkpoint", key: aChunk, damage: flipped(-10),
			restarted: []string{"early"}, goOn: []string{"early", "late", "last"}},
		{name: "a chunk that is gone", key: aChunk, damage: removed,
			restarted: []string{"early"}, goOn: []string{"early", "late", "last"}},
		{name: "what chunks there are", key: aCheckpoint, damage: flipped(20),
			restarted: []string{"early"}, goOn: []string{"early", "late", "last"}},
		// Streams of the last entry are known from there; whether others have changed is not known.
		{name: "the latest entry of some streams", key: fromEnd(2), damage: flipped(20), restarted: []string{"early", "late"}, goOn: []string{"last"}},
		{name: "a part of that entry", key: fromEnd(2), damage: flipped(-30), restarted: []string{"late"}, goOn: []string{"early", "late", "last"}},
		{name: "that entry cut short", key: fromEnd(2), damage: half, restarted: []string{"early", "late"}, goOn: []string{"last"}},
		{name: "that entry gone", key: fromEnd(2), damage: removed, restarted: []string{"early", "late"}, goOn: []string{"last"}},
		// That one has the latest times given out, and it is the only one that has.
		{name: "the very latest entry", key: fromEnd(1), damage: flipped(20), restarted: []string{"early", "late", "last"}},
		{name: "the head", key: theHead, damage: flipped(20), allGoOn: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := original.copy(t)
			damaged := s.change(t, tc.key, tc.damage)
			s.node.start(t)
			log := s.node.log.String()
			if !strings.Contains(log, tc.key) {
				t.Errorf("the log does not mention %s:\n%s", tc.key, log)
			}
			awaitTelemetry(t, &s.node.collector, 1, "otelcol_d2c_storage_damaged")
			outcome := s.goOn(t)
			awaitTelemetry(t, &s.node.collector, 0, "otelcol_d2c_storage_damaged") // after another start
			for producer, streams := range outcome {
				if tc.allGoOn && streams.restarted > 0 {
					t.Errorf("%s: %d streams restarted", producer, streams.restarted)
				}
			}
			for _, producer := range tc.restarted {
				if outcome[producer].restarted == 0 {
					t.Errorf("%s: no stream restarted, and the damage must have cost some", producer)
				}
			}
			for _, producer := range tc.goOn {
				if outcome[producer].wentOn == 0 {
					t.Errorf("%s: no stream goes on, and the damage is not theirs", producer)
				}
			}
			if damaged == nil {
				return
			}
			s.node.kill()
			if !slices.ContainsFunc(slices.Collect(maps.Values(readStorage(t, s.file))), func(v []byte) bool { return bytes.Equal(v, damaged) }) {
				t.Error("the damaged value is gone")
			}
		})
	}

	t.Run("written by a newer version", func(t *testing.T) {
		for _, key := range []string{fromEnd(1), fromEnd(3), theHead, aCheckpoint, aChunk} {
			s := original.copy(t)
			s.change(t, key, func(value []byte) []byte {
				value[0]++
				stdbinary.LittleEndian.PutUint64(value[88:], xxh3.Hash(value[:88])) // which every version has there
				return value
			})
			before := readStorage(t, s.file)
			log := errorLines(s.node.refuse(t))
			for _, mention := range []string{key, "newer version"} {
				if !strings.Contains(log, mention) {
					t.Errorf("%s: refused without mentioning %q:\n%s", key, mention, log)
				}
			}
			if !maps.EqualFunc(before, readStorage(t, s.file), bytes.Equal) {
				t.Errorf("%s: refused, and something is different in the storage", key)
			}
		}
	})
	t.Run("of another processor", func(t *testing.T) {
		s := original.copy(t)
		if err := os.Rename(s.file, s.file+"other"); err != nil {
			t.Fatal(err)
		}
		s.node.args = append(slices.Clone(s.node.args), "--config",
			"yaml:{processors: {d2c/other: {state: {storage: file_storage}}}, service: {pipelines: {metrics: {processors: [d2c/other]}}}}")
		if log := errorLines(s.node.refuse(t)); !strings.Contains(log, "another owner") {
			t.Errorf("refused without saying why:\n%s", log)
		}
	})
	t.Run("an entry that was not written to its end", func(t *testing.T) {
		s := original.copy(t)
		s.node.start(t)
		// The batch is committed, but nobody gets to know of it.
		s.node.witness.set(true, false)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		last := s.senders[len(s.senders)-1]
		p := last.pack(last.batch)
		if err := last.attempt(ctx, 0, p); err == nil {
			t.Fatal("acknowledged, and the backend was away")
		}
		s.node.witness.set(false, false)
		now := keysOf(s.stop(t).content, journalEntry)
		s.change(t, now[len(now)-1], half)
		s.node.start(t)
		if log := s.node.log.String(); !strings.Contains(log, "torn") && !strings.Contains(log, "cut") {
			t.Errorf("nothing is said of it:\n%s", log)
		}
		if err := last.send(ctx, 0, p, false); err != nil {
			t.Error(err)
		}
		last.batch++
		for producer, streams := range s.goOn(t) {
			if streams.restarted > 0 {
				t.Errorf("%s: %d streams restarted", producer, streams.restarted)
			}
		}
	})
}

// state is what a node without a process has stored, and what it must have.
type state struct {
	node    *node
	file    string
	content map[string][]byte
	senders []*sender
}

// newSoundState returns a state with checkpoints and a journal: the streams of producer "early" are in checkpoints alone,
// those of "late" and "last" in both. The last two entries of the journal are one of these each.
func newSoundState(t *testing.T) *state {
	t.Helper()
	s := &state{file: filepath.Join(t.TempDir(), "processor_d2c_")}
	s.node = newNode(t, newWitness(""), filepath.Dir(s.file), "--config", "durable.yaml")
	s.node.start(t)
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	begin := time.Now().Add(-24 * time.Hour).Truncate(time.Millisecond)
	for _, name := range []string{"early", "late", "last"} {
		sender := newSender(t, s.node, name, 1, 40)
		sender.begin, sender.sets = begin, 40
		s.senders = append(s.senders, sender)
	}
	interval := 0
	send := func(senders ...*sender) {
		t.Helper()
		for _, sender := range senders {
			if err := sender.send(ctx, 0, sender.pack(interval), false); err != nil {
				t.Fatal(err)
			}
		}
		interval++
	}
	for range 3 {
		send(s.senders...)
	}
	// Until the journal has been cut, so that nothing of "early" is in it, and will not be again soon.
	early := keysOf(s.stop(t).content, journalEntry)
	for {
		s.node.start(t)
		for range 20 {
			send(s.senders[1])
		}
		s.stop(t)
		length := 0
		entries := keysOf(s.content, journalEntry)
		for _, key := range entries {
			length += len(s.content[key])
		}
		if !slices.Contains(entries, early[len(early)-1]) && length < 1<<19 {
			break
		}
	}
	s.node.start(t)
	for range 3 {
		send(s.senders[1])
		send(s.senders[2])
	}
	for _, sender := range s.senders {
		sender.batch = interval
	}
	return s.stop(t)
}

// stop kills the process and takes note of what it has stored.
func (s *state) stop(t *testing.T) *state {
	t.Helper()
	s.node.kill()
	s.content = readStorage(t, s.file)
	return s
}

// copy returns the same state in another place, with senders and a witness of its own.
func (s *state) copy(t *testing.T) *state {
	t.Helper()
	c := &state{file: filepath.Join(t.TempDir(), filepath.Base(s.file)), content: s.content}
	all, err := os.ReadFile(s.file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.file, all, 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWitness("")
	maps.Copy(w.latest, s.node.witness.latest)
	for key, starts := range s.node.witness.starts {
		w.starts[key] = slices.Clone(starts)
	}
	c.node = newNode(t, w, filepath.Dir(c.file), s.node.args...)
	for _, sender := range s.senders {
		clone := newSender(t, c.node, sender.name, 1, sender.maxSets)
		clone.begin, clone.sets, clone.batch, clone.recent = sender.begin, sender.sets, sender.batch, slices.Clone(sender.recent)
		for key, known := range sender.expected {
			clone.expected[key] = known.clone()
		}
		c.senders = append(c.senders, clone)
	}
	return c
}

// clone returns a copy that can be added to.
func (s *stream) clone() *stream {
	c := *s
	c.buckets = slices.Clone(c.buckets)
	return &c
}

// The kinds of stored values, as package d2c marks them in their second byte.
const (
	journalEntry = 'j'
	checkpoint   = 'm' // what says of which chunks it is made
	chunk        = 'c'
	head         = 'h'
)

// keysOf returns the keys of the stored values of a kind, in order.
func keysOf(stored map[string][]byte, kind byte) []string {
	keys := slices.Sorted(maps.Keys(stored))
	return slices.DeleteFunc(keys, func(k string) bool { return len(stored[k]) < 2 || stored[k][1] != kind })
}

// readStorage returns all values in a file of file_storage. It must not be in use.
func readStorage(t *testing.T, file string) map[string][]byte {
	t.Helper()
	content := map[string][]byte{}
	updateStorage(t, file, func(b *bbolt.Bucket) error {
		return b.ForEach(func(k, v []byte) error {
			content[string(k)] = bytes.Clone(v)
			return nil
		})
	})
	return content
}

func updateStorage(t *testing.T, file string, do func(*bbolt.Bucket) error) {
	t.Helper()
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Update(func(tx *bbolt.Tx) error { return do(tx.Bucket([]byte("default"))) }); err != nil {
		t.Fatal(err)
	}
}

// change replaces the value of a key, or removes it if damage returns nil. It returns what is there now.
func (s *state) change(t *testing.T, key string, damage func([]byte) []byte) []byte {
	t.Helper()
	var now []byte
	updateStorage(t, s.file, func(b *bbolt.Bucket) error {
		if now = damage(bytes.Clone(b.Get([]byte(key)))); now == nil {
			return b.Delete([]byte(key))
		}
		return b.Put([]byte(key), now)
	})
	return now
}

// flipped changes a byte, counted from the end if at is negative.
func flipped(at int) func([]byte) []byte {
	return func(value []byte) []byte {
		if at < 0 {
			value[len(value)+at] ^= 0xff
		} else {
			value[at] ^= 0xff
		}
		return value
	}
}

func half(value []byte) []byte { return value[:len(value)/2] }
func removed([]byte) []byte    { return nil }

type outcome struct{ restarted, wentOn int }

// goOn sends the latest batches once more, and then more of every stream, with kills in between. It returns by producer how
// many streams restarted. Those must have a start that is not before any sample the backend had, and the sum since; all
// others their start and whole sum.
func (s *state) goOn(t *testing.T) map[string]outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	// What is new begins now, which is after all that was given out.
	now := int(time.Since(s.senders[0].begin)/step) + 1
	renewed := make([]*sender, len(s.senders))
	for i, sender := range s.senders {
		renewed[i] = newSender(t, s.node, sender.name, 1, sender.maxSets)
		renewed[i].begin, renewed[i].sets, renewed[i].batch = sender.begin, sender.sets, now
		renewed[i].queued = true // what it expects is right of streams that restarted only
	}
	// What comes again now must not be added, neither to what goes on nor to what is lost.
	for _, sender := range s.senders {
		for _, p := range sender.recent {
			if err := sender.deliver(ctx, 0, p); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 2 {
		for range 3 {
			for i := range renewed {
				if err := renewed[i].send(ctx, 0, renewed[i].pack(renewed[i].batch), false); err != nil {
					t.Fatal(err)
				}
				renewed[i].batch++
			}
		}
		if err := s.node.killRunning(); err != nil {
			t.Fatal(err)
		}
		s.node.start(t)
	}
	outcomes, wrong := map[string]outcome{}, 0
	for i, sender := range s.senders {
		o := outcome{}
		for key, since := range renewed[i].expected {
			whole := sender.expected[key].clone()
			whole.add(since.total)
			whole.time = since.time
			switch got := s.node.witness.of(key); {
			case got.equal(whole.cumulative):
				o.wentOn++
			case got.equal(since.cumulative):
				o.restarted++
			case wrong >= 3: // enough to see
			default:
				wrong++
				t.Errorf("%s: got %v, want %v, or %v after a restart", key, got, whole, since)
			}
		}
		outcomes[sender.name] = o
	}
	if err := s.node.witness.check(); err != nil {
		t.Error(err)
	}
	return outcomes
}
