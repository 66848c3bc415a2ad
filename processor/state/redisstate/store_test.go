// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redisstate

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/collector/extension/extensiontest"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/processor/state/redisstate/internal/metadata"
	"github.com/deltaring/deltaring/streamid"
)

var testProcessor = component.MustNewID("d2c")

// testConfig is the default with the server's address, and less patience.
func testConfig(endpoints ...string) *Config {
	cfg := createDefaultConfig().(*Config)
	cfg.Endpoints = endpoints
	return cfg
}

// startExtension starts an extension until the end of the test.
func startExtension(t testing.TB, cfg *Config) *redisState {
	t.Helper()
	return startExtensionWith(t, extensiontest.NewNopSettings(metadata.Type), cfg, componenttest.NewNopHost())
}

func startExtensionWith(t testing.TB, set extension.Settings, cfg *Config, host component.Host) *redisState {
	t.Helper()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	ext, err := NewFactory().Create(context.Background(), set, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := ext.Start(context.Background(), host); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ext.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return ext.(*redisState)
}

func sharedStore(t testing.TB, ext *redisState, processor component.ID) d2c.SharedStore {
	t.Helper()
	st, err := ext.SharedStore(context.Background(), processor)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// openStore returns a store on servers at the endpoints.
func openStore(t testing.TB, cfg *Config) d2c.SharedStore {
	t.Helper()
	return sharedStore(t, startExtension(t, cfg), testProcessor)
}

// record makes bytes of which a store needs to know no more than the tag.
func record(tag uint64, more string) []byte {
	b := binary.LittleEndian.AppendUint64([]byte{1}, tag)
	return append(append(b, make([]byte, 16)...), more...)
}

// swap is Swap that must not fail.
func swap(t testing.TB, st d2c.SharedStore, ops ...d2c.SwapOp) []d2c.SwapOp {
	t.Helper()
	if err := st.Swap(context.Background(), ops); err != nil {
		t.Fatal(err)
	}
	return ops
}

// read returns what is stored for the stream.
func read(t testing.TB, st d2c.SharedStore, id streamid.ID) []byte {
	t.Helper()
	return swap(t, st, d2c.SwapOp{ID: id})[0].Current
}

// mustSwap fails unless all ops have been done.
func mustSwap(t testing.TB, st d2c.SharedStore, ops ...d2c.SwapOp) {
	t.Helper()
	for i, op := range swap(t, st, ops...) {
		if !op.Swapped || op.Current != nil {
			t.Fatalf("op %d: swapped %v, current %q", i, op.Swapped, op.Current)
		}
	}
}

func TestContract(t *testing.T) {
	server := startRedis(t)
	plant := func(st d2c.SharedStore) func(streamid.ID, []byte) {
		return func(id streamid.ID, value []byte) { server.do("set", string(st.(*store).appendKey(nil, id)), value) }
	}
	t.Run("redis", func(t *testing.T) {
		st := openStore(t, testConfig(server.addr))
		testContract(t, st, plant(st))
	})
	t.Run("redis that keeps for ever", func(t *testing.T) {
		cfg := testConfig(server.addr)
		cfg.Prefix, cfg.RecordTTL = "ever", 0
		st := openStore(t, cfg)
		testContract(t, st, plant(st))
	})
	t.Run("memory", func(t *testing.T) {
		st := new(d2c.MemoryStore)
		testContract(t, st, func(id streamid.ID, value []byte) { mustSwap(t, st, d2c.SwapOp{ID: id, Record: value}) })
	})
}

// testContract is what any store must do. plant stores what need not be a record.
func testContract(t *testing.T, st d2c.SharedStore, plant func(streamid.ID, []byte)) {
	ctx := context.Background()
	const other = 1 << 40
	long := record(3, string(bytes.Repeat([]byte{0xff, 0}, 5000)))
	for i, c := range []struct {
		name    string
		there   []byte
		op      d2c.SwapOp
		swapped bool
		after   []byte
	}{
		{"new", nil, d2c.SwapOp{Record: record(1, "a")}, true, record(1, "a")},
		{"new where there is one", record(1, "a"), d2c.SwapOp{Record: record(2, "b")}, false, record(1, "a")},
		{"replaces its base", record(1, "a"), d2c.SwapOp{Base: 1, Record: record(2, "b")}, true, record(2, "b")},
		{"base is another", record(1, "a"), d2c.SwapOp{Base: other, Record: record(2, "b")}, false, record(1, "a")},
		{"base is gone", nil, d2c.SwapOp{Base: 1, Record: record(2, "b")}, false, nil},
		{"compares", record(1, "a"), d2c.SwapOp{Base: 1}, true, record(1, "a")},
		{"compares with another", record(1, "a"), d2c.SwapOp{Base: other}, false, record(1, "a")},
		{"compares with what is gone", nil, d2c.SwapOp{Base: 1}, false, nil},
		{"compares with nothing", nil, d2c.SwapOp{}, true, nil},
		{"compares with nothing where there is something", record(1, "a"), d2c.SwapOp{}, false, record(1, "a")},
		{"tags differ in the last bit only", record(1<<63|1, "a"), d2c.SwapOp{Base: 1 << 63, Record: record(2, "b")}, false, record(1<<63|1, "a")},
		{"tags differ in the first bit only", record(1<<63|1, "a"), d2c.SwapOp{Base: 1, Record: record(2, "b")}, false, record(1<<63|1, "a")},
		{"tags differ beyond what a float has", record(1<<53, "a"), d2c.SwapOp{Base: 1<<53 + 1, Record: record(2, "b")}, false, record(1<<53, "a")},
		{"tag of all ones", record(1<<64-1, "a"), d2c.SwapOp{Base: 1<<64 - 1, Record: record(2, "b")}, true, record(2, "b")},
		{"tag with zero bytes", record(0x0100, "a"), d2c.SwapOp{Base: 0x0100, Record: record(0x010000, "b")}, true, record(0x010000, "b")},
		{"tag of line ends", record(0x0d0a0d0a0d0a0d0a, "\r\n$-1\r\n"), d2c.SwapOp{Base: 0x0d0a0d0a0d0a0d0a, Record: record(2, "\r\n")}, true, record(2, "\r\n")},
		{"large", record(1, "a"), d2c.SwapOp{Base: 1, Record: long}, true, long},
		{"base is large", long, d2c.SwapOp{Base: 4, Record: record(5, "")}, false, long},
		{"foreign and short", []byte("x"), d2c.SwapOp{Base: 1, Record: record(2, "b")}, false, []byte("x")},
		{"foreign and empty", []byte{}, d2c.SwapOp{Base: 1, Record: record(2, "b")}, false, []byte{}},
		{"foreign and empty where nothing must be", []byte{}, d2c.SwapOp{Record: record(2, "b")}, false, []byte{}},
		{"the tag, but too short for a record", record(1, "")[:24], d2c.SwapOp{Base: 1, Record: record(2, "b")}, false, record(1, "")[:24]},
		{"as short as a record can be", record(1, ""), d2c.SwapOp{Base: 1, Record: record(2, "")}, true, record(2, "")},
		{"a tag of zero is nothing to be based on", record(0, "a"), d2c.SwapOp{Record: record(2, "b")}, false, record(0, "a")},
	} {
		t.Run(c.name, func(t *testing.T) {
			id := streamid.ID{Hi: rand.Uint64(), Lo: uint64(i)}
			if c.there != nil {
				plant(id, c.there)
			}
			op := c.op
			op.ID = id
			op = swap(t, st, op)[0]
			if op.Swapped != c.swapped {
				t.Errorf("swapped %v, want %v", op.Swapped, c.swapped)
			}
			var current []byte
			if !c.swapped {
				current = c.there
			}
			if !same(op.Current, current) {
				t.Errorf("current %q, want %q", op.Current, current)
			}
			if got := read(t, st, id); !same(got, c.after) {
				t.Errorf("then there is %q, want %q", got, c.after)
			}
		})
	}

	t.Run("each op on its own", func(t *testing.T) {
		for _, n := range []int{1, 2, 64, maxOps - 1, maxOps, maxOps + 1, 2*maxOps + 17} {
			ids := make([]streamid.ID, n)
			var first, second, third []d2c.SwapOp
			for i := range ids {
				ids[i] = streamid.ID{Hi: rand.Uint64(), Lo: rand.Uint64()}
				if i%3 > 0 {
					first = append(first, d2c.SwapOp{ID: ids[i], Record: record(uint64(i)+1, "first")})
				}
				base := uint64(i) + 1
				if i%3 == 1 {
					base += other
				}
				second = append(second, d2c.SwapOp{ID: ids[i], Base: base, Record: record(uint64(i)+2*other, "second")})
			}
			mustSwap(t, st, first...)
			swap(t, st, second...)
			for i, op := range second {
				if op.Swapped != (i%3 == 2) {
					t.Fatalf("%d ops: op %d: swapped %v", n, i, op.Swapped)
				}
				var want []byte
				if i%3 == 1 {
					want = record(uint64(i)+1, "first")
				}
				if !same(op.Current, want) {
					t.Fatalf("%d ops: op %d: current %q, want %q", n, i, op.Current, want)
				}
				third = append(third, d2c.SwapOp{ID: ids[i], Base: 1 << 62})
			}
			for i, op := range swap(t, st, third...) {
				want := [][]byte{nil, record(uint64(i)+1, "first"), record(uint64(i)+2*other, "second")}[i%3]
				if op.Swapped || !same(op.Current, want) {
					t.Fatalf("%d ops: then op %d: %v, %q, want %q", n, i, op.Swapped, op.Current, want)
				}
			}
		}
	})

	t.Run("no ops", func(t *testing.T) { swap(t, st) })

	t.Run("every byte", func(t *testing.T) {
		for b := range 256 {
			id := streamid.ID{Hi: uint64(b) * 0x0101010101010101, Lo: uint64(b) * 0x0101010101010101}
			tag := uint64(b)*0x0101010101010101 | 1<<56
			all := make([]byte, 256)
			for i := range all {
				all[i] = byte(b + i)
			}
			mustSwap(t, st, d2c.SwapOp{ID: id, Record: record(tag, string(all))})
			mustSwap(t, st, d2c.SwapOp{ID: id, Base: tag, Record: record(tag+1, string(all))})
			if got := read(t, st, id); !same(got, record(tag+1, string(all))) {
				t.Fatalf("byte %d: %q", b, got)
			}
		}
	})

	t.Run("set aside", func(t *testing.T) {
		for _, value := range [][]byte{{}, []byte("foreign"), record(1, "\r\n\x00")} {
			id := streamid.ID{Hi: rand.Uint64(), Lo: rand.Uint64()}
			if err := st.SetAside(ctx, id, value); err != nil { // there is nothing
				t.Fatal(err)
			}
			plant(id, value)
			if err := st.SetAside(ctx, id, []byte("another")); err != nil {
				t.Fatal(err)
			}
			if got := read(t, st, id); !same(got, value) {
				t.Fatalf("another value was set aside: %q is there, want %q", got, value)
			}
			for range 2 { // the second time, nothing is there
				if err := st.SetAside(ctx, id, value); err != nil {
					t.Fatal(err)
				}
				if got := read(t, st, id); got != nil {
					t.Fatalf("%q is there, want nothing", got)
				}
			}
			mustSwap(t, st, d2c.SwapOp{ID: id, Record: record(9, "anew")})
		}
	})
}

// same is bytes.Equal that tells nothing from empty.
func same(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }

// Of many that swap on the same base, one does.
func TestOneSwapsOfMany(t *testing.T) {
	ext := startExtension(t, testConfig(startRedis(t).addr))
	const clients, rounds, streams = 6, 40, 20
	id := func(i int) streamid.ID { return streamid.ID{Hi: uint64(i) << 59, Lo: uint64(i)} }
	stores := make([]d2c.SharedStore, clients)
	for c := range stores {
		stores[c] = sharedStore(t, ext, testProcessor)
	}
	bases := make([]uint64, streams)
	for round := range rounds {
		results := make([][]d2c.SwapOp, clients)
		var wg sync.WaitGroup
		for c := range stores {
			for i := range streams {
				tag := uint64(round*clients+c) + 1
				results[c] = append(results[c], d2c.SwapOp{ID: id(i), Base: bases[i], Record: record(tag, fmt.Sprint(c))})
			}
			wg.Go(func() {
				if err := stores[c].Swap(context.Background(), results[c]); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for i := range streams {
			var winner uint64
			for c := range stores {
				if results[c][i].Swapped {
					if winner != 0 {
						t.Fatalf("round %d, stream %d: two have swapped", round, i)
					}
					winner, _ = d2c.RecordTag(results[c][i].Record)
				}
			}
			for c := range stores {
				if op := results[c][i]; !op.Swapped {
					if tag, _ := d2c.RecordTag(op.Current); tag != winner {
						t.Fatalf("round %d, stream %d: %d sees tag %d, the winner has %d", round, i, c, tag, winner)
					}
				}
			}
			bases[i] = winner
		}
	}
}

// The first change in a period, and each that nobody here knows to have been preceded by one, begins the expiry anew.
func TestWhatSwapsLivesOn(t *testing.T) {
	server := startRedis(t)
	cfg := testConfig(server.addr)
	cfg.RecordTTL = time.Hour
	const soon, longest = 1000_000, 3600_000 + 2*3600_000/periods
	ext := startExtension(t, cfg)
	st := sharedStore(t, ext, testProcessor).(*store)
	id := streamid.ID{Hi: 1, Lo: 2}
	key := string(st.appendKey(nil, id))
	ttl := func() int64 { return server.do("pttl", key).(int64) }
	fresh := func(what string) {
		t.Helper()
		if got := ttl(); got < longest-10_000 || got > longest {
			t.Fatalf("%s: %d ms to live, want %d", what, got, longest)
		}
		server.do("pexpire", key, soon)
	}
	kept := func(what string) {
		t.Helper()
		if got := ttl(); got < soon-10_000 || got > soon {
			t.Fatalf("%s: %d ms to live, want %d as before", what, got, soon)
		}
	}
	mustSwap(t, st, d2c.SwapOp{ID: id, Record: record(1, "")})
	fresh("new")
	mustSwap(t, st, d2c.SwapOp{ID: id, Base: 1, Record: record(2, "")})
	kept("replaced")
	mustSwap(t, st, d2c.SwapOp{ID: id, Base: 2, Record: record(3, "longer")})
	kept("replaced by a longer one")
	mustSwap(t, st, d2c.SwapOp{ID: id, Base: 3, Record: record(4, "")})
	kept("replaced by a shorter one")
	if got := read(t, st, id); !same(got, record(4, "")) {
		t.Fatalf("%q is there", got)
	}
	swap(t, st, d2c.SwapOp{ID: id, Base: 1, Record: record(5, "")})
	kept("a conflict")
	mustSwap(t, st, d2c.SwapOp{ID: id, Base: 4})
	fresh("confirmed")
	st.expiry.ends = time.Now()
	mustSwap(t, st, d2c.SwapOp{ID: id, Base: 4, Record: record(5, "")})
	fresh("replaced in the next period")
	mustSwap(t, sharedStore(t, ext, testProcessor), d2c.SwapOp{ID: id, Base: 5, Record: record(6, "")})
	fresh("replaced by another worker")

	server.do("del", key)
	if ops := swap(t, st, d2c.SwapOp{ID: id, Base: 6, Record: record(7, "")}); ops[0].Swapped {
		t.Fatal("swapped with nothing")
	}
	if got := read(t, st, id); got != nil {
		t.Fatalf("%q is there", got)
	}
	mustSwap(t, st, d2c.SwapOp{ID: id, Record: record(1, "")})
	fresh("gone and made anew")

	// What was refused has told the server nothing.
	st.expiry.ends = time.Now()
	server.do("config", "set", "maxmemory", "1")
	ops := []d2c.SwapOp{{ID: id, Base: 1, Record: record(2, "")}}
	if err := st.Swap(context.Background(), ops); err == nil {
		t.Fatal("a full server takes records")
	}
	server.do("config", "set", "maxmemory", "0")
	mustSwap(t, st, ops...)
	fresh("replaced after a refusal")
	st.expiry.ends = time.Now()
	swap(t, st, d2c.SwapOp{ID: id, Base: 1, Record: record(3, "")})
	mustSwap(t, st, d2c.SwapOp{ID: id, Base: 2, Record: record(3, "")})
	fresh("replaced after a conflict")

	server.do("pexpire", key, 1)
	eventually(t, "it is gone", func() error {
		if server.do("exists", key).(int64) != 0 {
			return fmt.Errorf("%s is there", key)
		}
		return nil
	})
	if got := read(t, st, id); got != nil {
		t.Fatalf("%q is there", got)
	}
}

func TestWhatSwapsLivesForEver(t *testing.T) {
	server := startRedis(t)
	cfg := testConfig(server.addr)
	cfg.RecordTTL = 0
	st := openStore(t, cfg).(*store)
	id := streamid.ID{Hi: 1, Lo: 2}
	key := string(st.appendKey(nil, id))
	for i, op := range []d2c.SwapOp{
		{Record: record(1, "")},
		{Base: 1},
		{Base: 1, Record: record(2, "")},
		{Base: 2, Record: record(3, "")},
		{Base: 3, Record: record(4, "longer")},
	} {
		if i < 3 { // as if record_ttl had been something else
			server.do("pexpire", key, 1000_000)
			st.expiry.ends = time.Now()
		}
		op.ID = id
		mustSwap(t, st, op)
		if got := server.do("pttl", key).(int64); got != -1 {
			t.Fatalf("op %d: %d ms to live, want for ever", i, got)
		}
	}
}

func TestScriptIsSentAgainWhereItIsNotKnown(t *testing.T) {
	server := startRedis(t)
	st := openStore(t, testConfig(server.addr))
	id := streamid.ID{Hi: 7}
	mustSwap(t, st, d2c.SwapOp{ID: id, Record: record(1, "")})
	for i := range uint64(3) {
		server.do("script", "flush")
		ops := []d2c.SwapOp{{ID: id, Base: i + 1, Record: record(i+2, "")}}
		for j := range uint64(2 * maxOps) {
			ops = append(ops, d2c.SwapOp{ID: streamid.ID{Hi: i + 1, Lo: j}, Record: record(1, "")})
		}
		mustSwap(t, st, ops...)
	}
	server.do("script", "flush")
	if err := st.SetAside(context.Background(), id, record(4, "")); err != nil {
		t.Fatal(err)
	}
	if got := read(t, st, id); got != nil {
		t.Fatalf("%q is there", got)
	}
	// Known again, so no more than the hash is sent.
	server.do("config", "resetstat")
	mustSwap(t, st, d2c.SwapOp{ID: id, Record: record(1, "")})
	if stats := server.do("info", "commandstats").(string); bytes.Contains([]byte(stats), []byte("cmdstat_eval:")) {
		t.Errorf("the script was sent though it is known:\n%s", stats)
	}
}

// What differs in prefix or processor has no key in common.
func TestNothingIsSharedByAccident(t *testing.T) {
	server := startRedis(t, "--databases", "4")
	id := streamid.ID{Hi: 1, Lo: 1}
	names := []component.ID{
		component.MustNewID("d2c"),
		component.MustNewIDWithName("d2c", "1"),
		component.MustNewIDWithName("d2c", "edge"),
		component.MustNewIDWithName("d2c", "edge:1:"),
		component.MustNewIDWithName("d2c", "{a}"),
	}
	stores := map[string]d2c.SharedStore{}
	for _, prefix := range []string{"d2c", "d2c:", "d2", "d2c:mm:d2c"} {
		for _, database := range []int{0, 3} {
			cfg := testConfig(server.addr)
			cfg.Prefix, cfg.Database = prefix, database
			ext := startExtension(t, cfg)
			for _, name := range names {
				stores[fmt.Sprintf("%d %s %v", database, prefix, name)] = sharedStore(t, ext, name)
			}
		}
	}
	for name, st := range stores {
		mustSwap(t, st, d2c.SwapOp{ID: id, Record: record(1, name)})
	}
	for name, st := range stores {
		if got := read(t, st, id); !same(got, record(1, name)) {
			t.Errorf("%s has %q", name, got)
		}
	}
	for _, foreign := range []string{"d2c:{mm}:d2c:1", "plain"} {
		server.do("set", foreign, "x")
	}
	for name, st := range stores {
		if err := st.SetAside(context.Background(), id, record(1, name)); err != nil {
			t.Fatal(err)
		}
	}
	kept := 0
	for _, db := range []int{0, 3} {
		for _, key := range redisKeys(t, server, db) {
			if bytes.Contains([]byte(key), []byte("}:_damaged:")) {
				kept++
			}
		}
	}
	if kept != len(stores) {
		t.Errorf("%d values are kept, want %d", kept, len(stores))
	}
}

// What an earlier call has left in an op does not remain.
func TestOpsAreUsedAgain(t *testing.T) {
	st := openStore(t, testConfig(startRedis(t).addr))
	id := streamid.ID{Hi: 1}
	ops := []d2c.SwapOp{{ID: id, Record: record(1, "")}}
	mustSwap(t, st, ops...)
	for i, swapped := range []bool{false, true, false} {
		ops[0].Base = []uint64{9, 1, 9}[i]
		if swap(t, st, ops...); ops[0].Swapped != swapped || (ops[0].Current == nil) != swapped {
			t.Fatalf("call %d: swapped %v, current %q", i, ops[0].Swapped, ops[0].Current)
		}
	}
}

// A value of another type is foreign too.
func TestForeignTypes(t *testing.T) {
	server := startRedis(t)
	st := openStore(t, testConfig(server.addr)).(*store)
	for i, make := range [][]any{{"rpush", 0, "x"}, {"hset", 0, "a", "b"}, {"sadd", 0, "a"}, {"xadd", 0, "*", "a", "b"}} {
		id := streamid.ID{Hi: uint64(i) << 60, Lo: 3}
		key := string(st.appendKey(nil, id))
		make[1] = key
		server.do(make...)
		for _, op := range []d2c.SwapOp{{ID: id}, {ID: id, Base: 1}, {ID: id, Record: record(1, "")}, {ID: id, Base: 1, Record: record(2, "")}} {
			if op = swap(t, st, op)[0]; op.Swapped || !same(op.Current, []byte{}) {
				t.Fatalf("%v: swapped %v, current %q", make[0], op.Swapped, op.Current)
			}
		}
		// One call reads all its keys with one command, which takes another type for nothing.
		near := [2]streamid.ID{{Hi: id.Hi, Lo: 100}, {Hi: id.Hi, Lo: 101}}
		mustSwap(t, st, d2c.SwapOp{ID: near[0], Record: record(1, "")})
		ops := swap(t, st,
			d2c.SwapOp{ID: near[0], Base: 1, Record: record(2, "")},
			d2c.SwapOp{ID: id, Record: record(1, "")},
			d2c.SwapOp{ID: near[1], Record: record(1, "")})
		if !ops[0].Swapped || ops[1].Swapped || !same(ops[1].Current, []byte{}) || !ops[2].Swapped {
			t.Fatalf("%v between two others: %+v", make[0], ops)
		}
		if err := st.SetAside(context.Background(), id, []byte{}); err != nil {
			t.Fatal(err)
		}
		mustSwap(t, st, d2c.SwapOp{ID: id, Record: record(1, "")})
	}
	kept := 0
	for _, key := range redisKeys(t, server, 0) {
		if bytes.Contains([]byte(key), []byte("}:_damaged:d2c:1:")) {
			kept++
			if ttl := server.do("pttl", key).(int64); ttl < asideTTL.Milliseconds()-60_000 {
				t.Errorf("%s is kept for %d ms", key, ttl)
			}
		}
	}
	if kept != 4 {
		t.Errorf("%d values are kept, want 4", kept)
	}
}

func redisKeys(t testing.TB, server *redisServer, database int) []string {
	t.Helper()
	conn := server.admin.Conn()
	defer conn.Close()
	if err := conn.Select(context.Background(), database).Err(); err != nil {
		t.Fatal(err)
	}
	keys, err := conn.Keys(context.Background(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// Where a group's slot is decides where all state is, so the tags must never change.
func TestGroupsDivideTheSlotsEvenly(t *testing.T) {
	server := startRedis(t, "--cluster-enabled", "yes")
	const part, off = 16384 / groups, 20
	for g := range groups {
		slot := server.do("cluster", "keyslot", "x{"+groupTag(g)+"}y").(int64)
		if want := int64(g*part + part/2); slot < want-off || slot > want+off {
			t.Errorf("group %d, tag %s: slot %d, want %d or close to it", g, groupTag(g), slot, want)
		}
		id := streamid.ID{Hi: uint64(g)<<58 | 1}
		st := &store{prefix: "p", name: "n"}
		key := string(st.appendKey(nil, id))
		want := "p:{" + groupTag(g) + "}:n:1" + string(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, id.Hi), 0))
		if key != want {
			t.Fatalf("key %q, want %q", key, want)
		}
		if k := st.asideKey(id); server.do("cluster", "keyslot", k).(int64) != slot {
			t.Errorf("%q is in another slot than %q", k, key)
		}
	}
}

// pipelines remembers how many commands the largest pipeline had.
type pipelines struct{ largest, n int }

func (*pipelines) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (*pipelines) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (p *pipelines) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		p.largest, p.n = max(p.largest, len(cmds)), p.n+1
		return next(ctx, cmds)
	}
}

// The timeouts of an attempt are for so much and not for all of a batch, or one that is large could never be stored.
func TestLargeBatchIsSentInParts(t *testing.T) {
	server := startRedis(t)
	cfg := testConfig(server.addr)
	cfg.MaxRetries = 0
	to := connect(cfg, nil, false) // without the probes of an extension
	defer to.close()
	st := newStore(to, nil, cfg, "d2c")
	sent := new(pipelines)
	to.single.AddHook(sent)
	ops := make([]d2c.SwapOp, 3*maxPipeline*maxOps+1)
	for i := range ops {
		ops[i] = d2c.SwapOp{ID: streamid.ID{Lo: uint64(i)}, Record: record(uint64(i)+1, "")}
	}
	mustSwap(t, st, ops...)
	if sent.largest != maxPipeline {
		t.Errorf("%d calls at once, want %d", sent.largest, maxPipeline)
	}
	// Nobody waits for each part to fail.
	server.stop()
	sent.n = 0
	if err := st.Swap(context.Background(), ops); err == nil || reason(err) != "unreachable" {
		t.Errorf("error %v", err)
	}
	if sent.n != 1 {
		t.Errorf("%d pipelines to a server that is not there, want one", sent.n)
	}
}
