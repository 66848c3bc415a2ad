// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/d2c/store/redis/redistest"
	"github.com/deltaring/deltaring/d2c/storetest"
	"github.com/deltaring/deltaring/streamid"
)

// quiet is a logger for go-redis, which otherwise tells the test's output of every connection refused.
type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

func init() { goredis.SetLogger(quiet{}) }

// connect returns a client until the end of the test.
func connect(t testing.TB, mode string, addrs ...string) goredis.UniversalClient {
	t.Helper()
	opt := goredis.UniversalOptions{Addrs: addrs, DialTimeout: 2 * time.Second, ReadTimeout: 5 * time.Second, WriteTimeout: time.Second}
	Tune(&opt)
	var client goredis.UniversalClient
	switch mode {
	case "cluster":
		client = goredis.NewClusterClient(opt.Cluster())
	case "sentinel":
		opt.MasterName = "counters"
		client = goredis.NewFailoverClient(opt.Failover())
	default:
		client = goredis.NewClient(opt.Simple())
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func testOptions() Options { return Options{Name: "d2c", TTL: 24 * time.Hour, MaxRetries: 3} }

// open returns a Store that knows no life.
func open(t testing.TB, client goredis.UniversalClient, opts Options) *Store {
	t.Helper()
	st, err := New(client, opts)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// tester is a Store and its lives.
type tester struct {
	*Store
	t     testing.TB
	lives []store.Life
}

func openTester(t testing.TB, client goredis.UniversalClient, opts Options) *tester {
	t.Helper()
	te := &tester{Store: open(t, client, opts), t: t}
	te.ask()
	return te
}

func (te *tester) ask() {
	te.t.Helper()
	var err error
	if te.lives, err = te.Lives(context.Background(), store.Life{ID: 77, Floor: -5}); err != nil {
		te.t.Fatal(err)
	}
}

func (te *tester) on(swaps []store.Swap) []store.Swap {
	for i := range swaps {
		swaps[i].Life = te.lives[store.Group(swaps[i].ID, len(te.lives))].ID
	}
	return swaps
}

func (te *tester) try(swaps ...store.Swap) ([]store.Result, error) {
	return te.Swap(context.Background(), te.on(swaps))
}

func (te *tester) swap(swaps ...store.Swap) []store.Result {
	te.t.Helper()
	results, err := te.try(swaps...)
	if err != nil {
		te.t.Fatal(err)
	}
	return results
}

func (te *tester) must(swaps ...store.Swap) {
	te.t.Helper()
	for i, r := range te.swap(swaps...) {
		if r.Status != store.Swapped {
			te.t.Fatalf("swap %d: %+v", i, r)
		}
	}
}

// where returns the keys that the record of a stream may be in, the newer one first, and its field.
func (st *Store) where(id streamid.ID) (newer, older, field string) {
	b, _ := id.AppendBinary(nil)
	keys := st.keys[store.Group(id, st.server.groups())]
	return keys.records, keys.older, string(b)
}

var fixtures atomic.Int64

// fixtureOf gives each check a name of its own on the servers.
func fixtureOf(client func(t testing.TB) goredis.UniversalClient, wipe func(), opts Options) func(*testing.T) storetest.Fixture {
	return func(t *testing.T) storetest.Fixture {
		opts := opts
		opts.Name = fmt.Sprint("check", fixtures.Add(1))
		admin := client(t)
		return storetest.Fixture{
			Open: func() store.Shared { return open(t, client(t), opts) },
			Wipe: wipe,
			Remove: func(id streamid.ID) {
				newer, older, field := open(t, admin, opts).where(id)
				for _, key := range []string{newer, older} {
					if err := admin.HDel(context.Background(), key, field, "version").Err(); err != nil {
						t.Fatal(err)
					}
				}
			},
		}
	}
}

func TestShared(t *testing.T) {
	server := redistest.Start(t)
	client := func(t testing.TB) goredis.UniversalClient { return connect(t, "standalone", server.Addr) }
	wipe := func() { server.Do("flushall") }
	t.Run("one server", func(t *testing.T) { storetest.TestShared(t, fixtureOf(client, wipe, testOptions())) })
	t.Run("for ever", func(t *testing.T) {
		opts := testOptions()
		opts.TTL = 0
		storetest.TestShared(t, fixtureOf(client, wipe, opts))
	})
	t.Run("short lives", func(t *testing.T) {
		storetest.TestShared(t, func(t *testing.T) storetest.Fixture {
			if !strings.Contains(t.Name(), "live_on") {
				t.Skip("not about that")
			}
			opts := testOptions()
			opts.TTL = 1500 * time.Millisecond
			f := fixtureOf(client, wipe, opts)(t)
			f.TTL = opts.TTL
			return f
		})
	})
	t.Run("RESP 3 and a client as it comes", func(t *testing.T) {
		storetest.TestShared(t, fixtureOf(func(t testing.TB) goredis.UniversalClient {
			c := goredis.NewClient(&goredis.Options{Addr: server.Addr})
			t.Cleanup(func() { _ = c.Close() })
			return c
		}, wipe, testOptions()))
	})
}

func TestSharedOnCluster(t *testing.T) {
	nodes := redistest.StartCluster(t, 3)
	client := func(t testing.TB) goredis.UniversalClient { return connect(t, "cluster", nodes[0].Addr) }
	wipe := func() {
		for _, node := range nodes {
			node.Do("flushall")
		}
	}
	storetest.TestShared(t, fixtureOf(client, wipe, testOptions()))
}

// expiryLab is two streams of one slot group, and what a server has of them.
type expiryLab struct {
	*tester
	server     *redistest.Server
	id, beside streamid.ID
	unit       int32
	tag        uint64
}

func newExpiryLab(t *testing.T, server *redistest.Server, unit int32) *expiryLab {
	opts := testOptions()
	opts.Name, opts.TTL = fmt.Sprint("expiry", fixtures.Add(1)), time.Hour
	te := openTester(t, connect(t, "standalone", server.Addr), opts)
	return &expiryLab{tester: te, server: server, id: streamid.ID{Hi: 1, Lo: 2}, beside: streamid.ID{Hi: 3}, unit: unit}
}

func (e *expiryLab) put(ids ...streamid.ID) {
	e.t.Helper()
	var swaps []store.Swap
	for _, id := range ids {
		swaps = append(swaps, store.Swap{ID: id, Base: e.tag, Tag: e.tag + 1, Record: fmt.Append(nil, e.tag+1), Unit: e.unit})
	}
	e.must(swaps...)
	e.tag++
}

// check says what is in the newer hash and in the older one: how many records, and for how long, in minutes.
func (e *expiryLab) check(what string, records, minutes, olderRecords, olderMinutes int64) {
	e.t.Helper()
	newer, older, _ := e.where(e.id)
	for i, key := range []string{newer, older} {
		wantRecords, wantMinutes := []int64{records, olderRecords}[i], []int64{minutes, olderMinutes}[i]
		n := max(e.server.Do("hlen", key).(int64)-2, 0) // and the version, and what it is about
		left := e.server.Do("pttl", key).(int64)
		if n != wantRecords || wantMinutes <= 0 && left != wantMinutes || wantMinutes > 0 && (left > wantMinutes*60_000 || left < wantMinutes*60_000-30_000) {
			e.t.Errorf("%s: %s has %d records for %d ms, want %d for %d minutes", what, key, n, left, wantRecords, wantMinutes)
		}
	}
}

// age makes as if time had gone by.
func (e *expiryLab) age(minutes int64) {
	newer, older, _ := e.where(e.id)
	for _, key := range []string{newer, older} {
		if left := e.server.Do("pttl", key).(int64); left > 0 {
			e.server.Do("pexpire", key, left-minutes*60_000)
		}
	}
}

// none is what PTTL says of no key, and ever of one that does not expire.
const none, ever = -2, -1

// A record lives for one to two times the TTL after it was written, whatever becomes of the others.
func TestExpiry(t *testing.T) {
	server := redistest.Start(t)
	for _, unit := range []int32{0, 1} {
		e := newExpiryLab(t, server, unit)
		e.put(e.id, e.beside)
		e.check("new", 2, 120, 0, none)
		e.age(59)
		e.put(e.id, e.beside)
		e.check("in the first half", 2, 61, 0, none)
		e.age(2)
		e.swap(store.Swap{ID: e.id, Base: 99, Tag: 7, Record: []byte("x"), Unit: unit}, store.Swap{ID: e.beside, Base: 99, Tag: 7, Record: []byte("x"), Unit: unit})
		e.check("a conflict", 2, 59, 0, none)
		e.put(e.id)
		e.check("one in the second half", 1, 120, 1, 59)
		e.tag--
		e.put(e.beside)
		e.check("the other one", 2, 120, 0, 59)
		e.age(61)
		e.check("what is older is over", 2, 59, 0, none)
		e.must(store.Swap{ID: e.id, Base: e.tag, Unit: unit}, store.Swap{ID: e.beside, Base: e.tag, Unit: unit})
		e.check("compared", 2, 120, 0, 59)
		e.must(store.Swap{ID: e.id, Base: e.tag, Unit: unit}, store.Swap{ID: e.beside, Base: e.tag, Unit: unit})
		e.check("compared again", 2, 120, 0, 59)
		e.age(58)
		e.must(store.Swap{ID: streamid.ID{Hi: 4}, Unit: unit}, store.Swap{ID: streamid.ID{Hi: 5}, Unit: unit})
		e.check("compared with nothing", 2, 62, 0, 1)
		e.age(10)
		e.put(e.id)
		e.tag--
		e.check("before one is left behind", 1, 120, 1, 52)
		e.age(53)
		if r := e.swap(store.Swap{ID: e.beside, Base: e.tag}); r[0].Status != store.Changed || r[0].Record != nil {
			t.Errorf("a stream that was not written for an hour and more: %+v", r)
		}
		if got := server.Do("pttl", e.lifeKey(0)).(int64); got != -1 {
			t.Errorf("the life has %d ms to live", got)
		}
	}
}

// The older records are not lost to newer ones, even if the server's clock has jumped or another worker has set another TTL.
func TestExpiryOfOlderRecordsThatAreStillThere(t *testing.T) {
	server := redistest.Start(t)
	e := newExpiryLab(t, server, 0)
	e.put(e.id, e.beside)
	e.age(61)
	e.put(e.id)
	_, older, _ := e.where(e.id)
	e.age(55)
	server.Do("pexpire", older, 120*60_000)
	e.age(10)
	e.put(e.id)
	e.check("no place for what is older", 1, 120, 1, 110)
	e.tag = 1
	e.put(e.beside)
	e.check("it has moved", 2, 120, 0, 110)
}

// Those who keep for ever take away what others have set, and the other way round.
func TestExpiryIsTakenAway(t *testing.T) {
	server := redistest.Start(t)
	for _, unit := range []int32{0, 1} {
		e := newExpiryLab(t, server, unit)
		e.put(e.id, e.beside)
		e.age(61)
		e.put(e.id)
		e.tag--
		e.ttl = 0
		e.must(store.Swap{ID: e.id, Base: e.tag + 1, Unit: unit}, store.Swap{ID: e.beside, Base: e.tag, Unit: unit})
		e.check("compared for ever", 2, ever, 0, 59)
		e.tag++
		e.beside = e.id
		e.put(e.id)
		e.check("written for ever", 2, ever, 0, 59)
		e.ttl = 3600_000
		e.put(e.id)
		e.check("no more for ever", 2, 120, 0, 59)
	}
}

// Whatever is done in whatever order, by two workers of which one reads before it swaps, a swap sees what is there. A record is there for
// a TTL after it was last written, and gone after two; and in one place only.
func TestAgainstModel(t *testing.T) {
	server := redistest.Start(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	for range 20 {
		e := newExpiryLab(t, server, 0)
		opts := testOptions()
		opts.Name, opts.TTL = e.name, time.Hour
		other := openTester(t, connect(t, "standalone", server.Addr), opts)
		type record struct {
			tag     uint64 // zero if there is none
			written int64  // in minutes
		}
		const streams, ttl = 12, 60
		model := make([]record, streams)
		id := func(i int) streamid.ID { return streamid.ID{Hi: uint64(i) << 59, Lo: 1} }
		now, tag := int64(0), uint64(0)
		// learn checks what the server says of a stream against what must be so.
		learn := func(i int, r store.Result) {
			t.Helper()
			m, age := &model[i], now-model[i].written
			switch {
			case r.Status != store.Changed:
				t.Fatalf("seed %d: stream %d: %+v", seed, i, r)
			case r.Tag != m.tag && (r.Tag != 0 || age < ttl), r.Tag != 0 && age > 2*ttl:
				t.Fatalf("seed %d: stream %d has tag %d, written %d minutes ago, and the server has %+v", seed, i, m.tag, age, r)
			}
			m.tag = r.Tag
		}
		all := make([]streamid.ID, streams)
		for i := range all {
			all[i] = id(i)
		}
		for range 100 {
			known := slices.Clone(model)
			for range random.IntN(3) * random.IntN(2) {
				i := random.IntN(streams)
				tag++
				r := other.swap(store.Swap{ID: id(i), Base: model[i].tag, Tag: tag, Record: []byte("other")})[0]
				if r.Status != store.Swapped {
					learn(i, r)
					continue
				}
				if model[i] = (record{tag, now}); random.IntN(2) > 0 {
					if err := other.SetAside(context.Background(), id(i), []byte("other")); err != nil {
						t.Fatal(err)
					}
					model[i].tag = 0
				}
			}
			var swaps []store.Swap
			var of []int
			compares := random.IntN(2) > 0
			for i := range streams {
				if random.IntN(3) > 0 {
					continue
				}
				swap := store.Swap{ID: id(i), Base: known[i].tag}
				if tag++; !compares || random.IntN(4) > 0 {
					swap.Tag, swap.Record = tag, bytes.Repeat([]byte{1}, 1+random.IntN(50))
				}
				if random.IntN(8) == 0 {
					swap.Base = 1 << 40
				}
				if random.IntN(2) > 0 {
					swap.Unit = int32(1 + i/3)
				}
				swaps, of = append(swaps, swap), append(of, i)
			}
			var results []store.Result
			if len(swaps) > 0 {
				results = e.swap(swaps...)
			}
			for n, r := range results {
				m := &model[of[n]]
				switch {
				case r.Status == store.Withheld:
				case r.Status == store.Changed:
					learn(of[n], r)
				case swaps[n].Base != m.tag && m.tag != 0:
					t.Fatalf("seed %d: stream %d is swapped on tag %d, and had %d", seed, of[n], swaps[n].Base, m.tag)
				case now-m.written > 2*ttl && m.tag != 0:
					t.Fatalf("seed %d: a record that was written %d minutes ago is still there", seed, now-m.written)
				default:
					if swaps[n].Tag != 0 {
						m.tag = swaps[n].Tag
					}
					m.written = now
				}
			}
			results, err := e.Read(context.Background(), all)
			if err != nil {
				t.Fatal(err)
			}
			for i, r := range results {
				learn(i, r)
			}
			newer, older, _ := e.where(id(0))
			fields := map[string]bool{}
			for _, key := range []string{newer, older} {
				for field := range server.Admin.HGetAll(context.Background(), key).Val() {
					if field != "about" && field != "version" && fields[field] {
						t.Fatalf("seed %d: %q is in both", seed, field)
					}
					fields[field] = true
				}
			}
			if minutes := random.Int64N(40) * random.Int64N(2); minutes > 0 {
				e.age(minutes)
				now += minutes
			}
		}
	}
}

// What a Read has found is not compared again, until somebody has written to it: here without the version, as nobody does.
func TestWhatWasReadIsNotComparedAgain(t *testing.T) {
	server := redistest.Start(t)
	te := openTester(t, connect(t, "standalone", server.Addr), testOptions())
	other := openTester(t, connect(t, "standalone", server.Addr), testOptions())
	const streams = 2*maxSwaps + maxSwaps/2 // three calls
	id := func(i int) streamid.ID { return streamid.ID{Hi: uint64(i), Lo: 1} }
	ids, tags := make([]streamid.ID, streams), make([]uint64, streams)
	for i := range ids {
		ids[i] = id(i)
	}
	swaps := func() (swaps []store.Swap) {
		for i := range ids {
			swaps = append(swaps, store.Swap{ID: id(i), Base: tags[i], Tag: tags[i] + 1, Record: []byte("a")})
		}
		return swaps
	}
	for i, r := range te.swap(swaps()...) {
		if r.Status != store.Swapped {
			t.Fatalf("stream %d: %+v", i, r)
		}
		tags[i]++
	}
	newer, _, _ := te.where(id(0))
	n := 0
	foreign := func() {
		n++
		for _, i := range []int{0, maxSwaps, streams - 1} {
			_, _, field := te.where(id(i))
			server.Do("hset", newer, field, fmt.Sprintf("%8d and longer", n))
		}
	}
	// do swaps all, after a Read or not, and returns how many find that they must not.
	do := func(read bool, between func()) (changed int) {
		t.Helper()
		if read {
			results, err := te.Read(context.Background(), ids)
			if err != nil {
				t.Fatal(err)
			}
			for i, r := range results {
				tags[i] = r.Tag
			}
		}
		between()
		for i, r := range te.swap(swaps()...) {
			if r.Status == store.Swapped {
				tags[i]++
			} else {
				tags[i] = r.Tag
				changed++
			}
		}
		return changed
	}
	for _, c := range []struct {
		what    string
		read    bool
		between func()
		want    int
	}{
		{"read", true, foreign, 0},
		{"not read", false, foreign, 3},
		{"read anew", true, func() {}, 0},
		{"read once, swapped twice", true, func() { te.must(swaps()[1]); tags[1]++; foreign() }, 3},
		{"another has written", true, func() {
			other.must(store.Swap{ID: id(streams), Tag: 1, Record: []byte("b")})
			foreign()
		}, 3},
		{"another has written to the last one", true, func() {
			other.must(store.Swap{ID: id(streams - 1), Base: tags[streams-1], Tag: 1 << 40, Record: []byte("b")})
		}, 1},
		{"another has set one aside", true, func() {
			if err := other.SetAside(context.Background(), id(5), []byte("a")); err != nil {
				t.Fatal(err)
			}
		}, 1},
		{"new ones are", true, func() {}, 0},
		{"the older records are another time's", true, func() {
			server.Do("pexpire", newer, testOptions().TTL.Milliseconds()-1)
			other.must(store.Swap{ID: id(7), Base: tags[7], Tag: 1 << 41, Record: []byte("b")})
		}, 1},
		{"after that", true, foreign, 0},
		{"all is lost", true, func() { server.Do("del", newer) }, streams},
	} {
		if got := do(c.read, c.between); got != c.want {
			t.Errorf("%s: %d swaps were refused, want %d", c.what, got, c.want)
		}
	}
}

func TestScriptIsSentAgainWhereItIsNotKnown(t *testing.T) {
	server := redistest.Start(t)
	te := openTester(t, connect(t, "standalone", server.Addr), testOptions())
	id := streamid.ID{Hi: 7}
	te.must(store.Swap{ID: id, Tag: 1, Record: []byte("a")})
	for i := range uint64(3) {
		server.Do("script", "flush")
		swaps := []store.Swap{{ID: id, Base: i + 1, Tag: i + 2, Record: []byte("b")}}
		for j := range uint64(2 * maxSwaps) {
			swaps = append(swaps, store.Swap{ID: streamid.ID{Hi: i + 1, Lo: j}, Tag: 1, Record: []byte("c")})
		}
		te.must(swaps...)
	}
	server.Do("script", "flush")
	if err := te.SetAside(context.Background(), id, []byte("b")); err != nil {
		t.Fatal(err)
	}
	te.must(store.Swap{ID: streamid.ID{Hi: 8}})
	// Known again, so no more than the hash is sent.
	server.Do("config", "resetstat")
	te.must(store.Swap{ID: id, Tag: 1, Record: []byte("d")})
	if stats := server.Do("info", "commandstats").(string); strings.Contains(stats, "cmdstat_eval:") {
		t.Errorf("the script was sent though it is known:\n%s", stats)
	}
}

// What differs in prefix or name has no key in common.
func TestNothingIsSharedByAccident(t *testing.T) {
	server := redistest.Start(t)
	client := connect(t, "standalone", server.Addr)
	id := streamid.ID{Hi: 1, Lo: 1}
	var stores []*tester
	for _, prefix := range []string{"d2c", "d2c:", "d2", "d2c:mm:d2c", "d2c:_life"} {
		for _, name := range []string{"d2c", "d2c/1", "d2c/edge", "d2c/edge:1:", "d2c/{a}", "d2c:2"} {
			opts := testOptions()
			opts.Prefix, opts.Name = prefix, name
			stores = append(stores, openTester(t, client, opts))
		}
	}
	for i, te := range stores {
		te.must(store.Swap{ID: id, Tag: uint64(i + 1), Record: fmt.Append(nil, i)})
	}
	for i, te := range stores {
		if r := te.swap(store.Swap{ID: id, Base: 1 << 40})[0]; r.Tag != uint64(i+1) || string(r.Record) != fmt.Sprint(i) {
			t.Errorf("%s %s has %+v", te.prefix, te.name, r)
		}
		if err := te.SetAside(context.Background(), id, fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	kept, lives := 0, 0
	for _, key := range keysOf(t, server) {
		switch {
		case strings.Contains(key, "}:_damaged:"):
			kept++
			if ttl := server.Do("pttl", key).(int64); ttl < asideTTL.Milliseconds()-60_000 {
				t.Errorf("%s is kept for %d ms", key, ttl)
			}
		case strings.Contains(key, "}:_life:"):
			lives++
		}
	}
	if kept != len(stores) || lives != len(stores) {
		t.Errorf("%d values are kept, and %d lives, want %d", kept, lives, len(stores))
	}
}

func keysOf(t testing.TB, server *redistest.Server) []string {
	t.Helper()
	keys, err := server.Admin.Keys(context.Background(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// What is no record can be told, is never overwritten, and can be set aside.
func TestForeignValues(t *testing.T) {
	server := redistest.Start(t)
	te := openTester(t, connect(t, "standalone", server.Addr), testOptions())
	for i, foreign := range []string{"", "short", "\x01\x00\x00\x00\x00\x00\x00\x00", "\x00\x00\x00\x00\x00\x00\x00\x00zero"} {
		want := strings.TrimPrefix(foreign, "\x00\x00\x00\x00\x00\x00\x00\x00")
		for unit := range int32(2) {
			id, near := streamid.ID{Hi: uint64(i) << 60, Lo: uint64(unit)}, streamid.ID{Hi: uint64(i) << 60, Lo: 100 + uint64(unit)}
			newer, older, field := te.where(id)
			server.Do("hset", []string{newer, older}[(i+int(unit))%2], field, foreign)
			for _, swap := range []store.Swap{{}, {Base: 1}, {Tag: 2, Record: []byte("a")}, {Base: 1, Tag: 2, Record: []byte("a")}} {
				swap.ID, swap.Unit = id, unit
				results := te.swap(swap, store.Swap{ID: near, Tag: 1, Record: []byte("x"), Unit: unit})
				if r := results[0]; r.Status != store.Changed || r.Tag != 0 || r.Record == nil || string(r.Record) != want {
					t.Fatalf("%q: %+v, want %q", foreign, r, want)
				}
				// On its own the one beside it is done the first time.
				if r := results[1]; unit == 1 && r.Status != store.Withheld || unit == 0 && r.Status != store.Swapped && r.Tag != 1 {
					t.Fatalf("%q: the one beside it: %+v", foreign, r)
				}
			}
			if err := te.SetAside(context.Background(), id, []byte(want)); err != nil {
				t.Fatal(err)
			}
			te.must(store.Swap{ID: id, Tag: 1, Record: []byte("anew")})
		}
	}
	// Where no hash is, the error says which key it is, and nothing is done.
	for i, foreign := range [][]any{{"set", 0, "x"}, {"rpush", 0, "x"}, {"xadd", 0, "*", "a", "b"}} {
		opts := testOptions()
		opts.Name = fmt.Sprint("foreign", i)
		te := openTester(t, connect(t, "standalone", server.Addr), opts)
		id := streamid.ID{Hi: 1}
		newer, older, _ := te.where(id)
		for _, key := range []string{newer, older} {
			foreign[1] = key
			server.Do(foreign...)
			for _, call := range []func() error{
				func() error { _, err := te.try(store.Swap{ID: id, Tag: 1, Record: []byte("a")}); return err },
				func() error { _, err := te.Read(context.Background(), []streamid.ID{id}); return err },
			} {
				if err := call(); err == nil || !strings.Contains(err.Error(), "holds something else: delete it") || !strings.Contains(err.Error(), key) {
					t.Errorf("%v: error %v", foreign, err)
				}
			}
			server.Do("del", key)
		}
		te.must(store.Swap{ID: id, Tag: 1, Record: []byte("a")})
	}
	// A life that is none is not taken for one.
	server.Do("set", te.lifeKey(0), "foreign")
	if r := te.swap(store.Swap{ID: streamid.ID{Hi: 5}})[0]; r.Status != store.OtherLife {
		t.Errorf("with a foreign life: %+v", r)
	}
	if _, err := te.Lives(context.Background(), store.Life{ID: 1}); err == nil || !strings.Contains(err.Error(), "no life") {
		t.Errorf("with a foreign life: error %v", err)
	}
}

// Where a group's slot is decides where all state is, so the tags must never change.
func TestGroupsDivideTheSlotsEvenly(t *testing.T) {
	node := redistest.Start(t, "--cluster-enabled", "yes")
	const part, off = 16384 / slotGroups, 20
	st := &Store{prefix: "p", name: "n", server: &server{topology: many{}}}
	for g := range slotGroups {
		slot := node.Do("cluster", "keyslot", "x{"+groupTag(g)+"}y").(int64)
		if want := int64(g*part + part/2); slot < want-off || slot > want+off {
			t.Errorf("group %d, tag %s: slot %d, want %d or close to it", g, groupTag(g), slot, want)
		}
		id := streamid.ID{Hi: uint64(g)<<58 | 1}
		for which, key := range map[string]string{"n": st.recordsKey(g, newerRecords), "o": st.recordsKey(g, olderRecords)} {
			if want := "p:{" + groupTag(g) + "}:n:3" + which; key != want {
				t.Fatalf("key %q, want %q", key, want)
			}
		}
		if got := store.Group(id, slotGroups); got != g {
			t.Errorf("%v is of group %d, want %d", id, got, g)
		}
		for _, k := range []string{st.asideKey(id), st.lifeKey(g), st.probeKey(g)} {
			if node.Do("cluster", "keyslot", k).(int64) != slot {
				t.Errorf("%q is in another slot than the records", k)
			}
		}
	}
}

// pipelines remembers how many commands the largest pipeline had.
type pipelines struct {
	mu         sync.Mutex
	largest, n int
}

func (*pipelines) DialHook(next goredis.DialHook) goredis.DialHook          { return next }
func (*pipelines) ProcessHook(next goredis.ProcessHook) goredis.ProcessHook { return next }
func (p *pipelines) ProcessPipelineHook(next goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []goredis.Cmder) error {
		p.mu.Lock()
		p.largest, p.n = max(p.largest, len(cmds)), p.n+1
		p.mu.Unlock()
		return next(ctx, cmds)
	}
}

// The timeouts of an attempt are for so much and not for all of a batch, or one that is large could never be stored. And what was
// needed for it is given back.
func TestLargeBatch(t *testing.T) {
	server := redistest.Start(t)
	client := connect(t, "standalone", server.Addr)
	opts := testOptions()
	opts.MaxRetries, opts.Timeout = 0, time.Minute
	te := openTester(t, client, opts)
	sent := new(pipelines)
	client.AddHook(sent)
	swaps := make([]store.Swap, 3*maxPipeline*maxSwaps+1)
	for i := range swaps {
		swaps[i] = store.Swap{ID: streamid.ID{Lo: uint64(i)}, Tag: uint64(i) + 1, Record: make([]byte, 200)}
	}
	te.must(swaps...)
	if sent.largest != maxPipeline {
		t.Errorf("%d calls at once, want %d", sent.largest, maxPipeline)
	}
	te.swap(store.Swap{ID: streamid.ID{Lo: 1}})
	for what, size := range map[string][2]int{
		"text": {cap(te.text), keptBytes}, "values": {cap(te.values), keptBytes}, "fields": {cap(te.fields), keptSwaps}, "blobs": {cap(te.blobs), keptSwaps},
		"order": {cap(te.order), keptSwaps}, "results": {cap(te.results), keptSwaps},
	} {
		if size[0] > size[1] {
			t.Errorf("%s is kept for %d", what, size[0])
		}
	}
	// Nobody waits for each part to fail.
	server.Stop()
	sent.n = 0
	if _, err := te.try(swaps...); err == nil || ReasonOf(err) != Unreachable {
		t.Errorf("error %v", err)
	}
	if sent.n != 1 {
		t.Errorf("%d pipelines to a server that is not there, want one", sent.n)
	}
}

func TestOptions(t *testing.T) {
	client := connect(t, "standalone", "127.0.0.1:1")
	for what, change := range map[string]func(*Options){
		"name": func(o *Options) { o.Name = "" }, "underscore": func(o *Options) { o.Name = "_x" },
		"prefix": func(o *Options) { o.Prefix = "a{b" }, "TTL": func(o *Options) { o.TTL = time.Microsecond },
		"timeout": func(o *Options) { o.Timeout = -1 }, "retries": func(o *Options) { o.MaxRetries = -1 },
		"replicas": func(o *Options) { o.WaitReplicas = -1 },
		"wait":     func(o *Options) { o.WaitReplicas, o.WaitTimeout = 1, time.Minute },
	} {
		opts := testOptions()
		change(&opts)
		if _, err := New(client, opts); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	for _, client := range []goredis.UniversalClient{nil, (*goredis.Client)(nil), (*goredis.ClusterClient)(nil), new(goredis.Ring)} {
		if _, err := New(client, testOptions()); err == nil {
			t.Errorf("%T: no error", client)
		}
	}
	cluster := connect(t, "cluster", "127.0.0.1:1")
	st := open(t, cluster, testOptions())
	_, err := st.Swap(context.Background(), []store.Swap{{ID: streamid.ID{Hi: 0}, Unit: 1}, {ID: streamid.ID{Hi: 1 << 63}, Unit: 1}})
	if !errors.Is(err, errUnit) {
		t.Errorf("a unit of two groups: error %v", err)
	}
}

// What a record costs in the server beyond its own bytes, key, expiry and all.
func TestBytesPerRecord(t *testing.T) {
	const streams, size, limit = 100_000, 88, 200
	server := redistest.Start(t)
	te := openTester(t, connect(t, "standalone", server.Addr), testOptions())
	memory := func() (n int) {
		for field, sign := range map[string]int{"used_memory_dataset": 1, "used_memory_overhead": 1, "mem_clients_normal": -1} {
			v, err := strconv.Atoi(server.Info("memory", field))
			if err != nil {
				t.Fatal(err)
			}
			n += sign * v
		}
		return n
	}
	before := memory()
	swaps := make([]store.Swap, 1000)
	for round := range 2 {
		for from := 0; from < streams; from += len(swaps) {
			for i := range swaps {
				swaps[i] = store.Swap{
					ID:   streamid.ID{Hi: uint64(from+i) * 0x9e3779b97f4a7c15, Lo: uint64(from + i)},
					Base: uint64(round), Tag: uint64(round + 1), Record: make([]byte, size),
				}
			}
			te.must(swaps...)
		}
	}
	per := float64(memory()-before) / streams
	t.Logf("%.1f bytes for a record of %d, at most %v", per, size, limit)
	if per > limit {
		t.Errorf("%.1f bytes for a record of %d, want at most %v", per, size, limit)
	}
}
