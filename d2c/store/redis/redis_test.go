// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
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

func (te *tester) key(id streamid.ID) string { return string(te.appendKey(nil, id)) }

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
				if err := admin.Del(context.Background(), string(open(t, admin, opts).appendKey(nil, id))).Err(); err != nil {
					t.Fatal(err)
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
		for _, timeout := range []time.Duration{time.Second, 0} { // as if it were: set with each write, and with some
			storetest.TestShared(t, func(t *testing.T) storetest.Fixture {
				if !strings.Contains(t.Name(), "live_on") {
					t.Skip("not about that")
				}
				opts := testOptions()
				opts.TTL = 1500 * time.Millisecond
				f := fixtureOf(client, wipe, opts)(t)
				opened := f.Open
				f.Open = func() store.Shared {
					st := opened().(*Store)
					st.ttl, st.period = expiry(opts.TTL, timeout)
					return st
				}
				f.TTL = opts.TTL
				return f
			})
		}
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

// The first swap in a period sets the expiry; the others leave it.
func TestExpiry(t *testing.T) {
	for _, c := range []struct {
		ttl, period time.Duration
		want        string
	}{
		{0, time.Hour, ""},
		{24 * time.Hour, 90 * time.Minute, "97200000"},
		{80 * time.Second, 5 * time.Second, "90000"},
		{79 * time.Second, 0, "79000"}, // a change that takes as long as it may could outlast it
		{time.Millisecond, 0, "1"},
	} {
		if ms, period := expiry(c.ttl, 5*time.Second); ms != c.want || period != c.period {
			t.Errorf("%v: %q ms in periods of %v, want %q and %v", c.ttl, ms, period, c.want, c.period)
		}
	}

	server := redistest.Start(t)
	for _, unit := range []int32{0, 1} {
		opts := testOptions()
		opts.Name = fmt.Sprint("unit", unit)
		opts.TTL = 16 * time.Hour // periods of one hour
		te := openTester(t, connect(t, "standalone", server.Addr), opts)
		clock := time.Unix(0, 0).Add(1000*time.Hour + 30*time.Minute)
		te.now = func() time.Time { return clock }
		id, beside := streamid.ID{Hi: 1, Lo: 2}, streamid.ID{Hi: 3}
		const soon, longest = 1000_000, 18 * 3600_000
		tag := uint64(0)
		put := func(age time.Duration, record string) {
			t.Helper()
			te.must(store.Swap{ID: id, Base: tag, Tag: tag + 1, Record: []byte(record), Age: age, Unit: unit},
				store.Swap{ID: beside, Base: tag, Tag: tag + 1, Record: []byte(record), Age: age, Unit: unit})
			tag++
		}
		check := func(what string, want int64) {
			t.Helper()
			for _, id := range []streamid.ID{id, beside} {
				if got := server.Do("pttl", te.key(id)).(int64); got < want-10_000 || got > want {
					t.Fatalf("%s: %d ms to live, want %d", what, got, want)
				}
				server.Do("pexpire", te.key(id), soon)
			}
		}
		put(0, "a")
		check("new", longest)
		put(29*time.Minute, "b")
		check("in the same period", soon)
		put(0, "longer")
		check("a longer one", soon)
		put(0, "c")
		check("a shorter one", soon)
		put(31*time.Minute, "d")
		check("in the next period", longest)
		put(100*time.Hour, "e")
		check("long after", longest)
		te.swap(store.Swap{ID: id, Base: 99, Tag: 7, Record: []byte("x"), Age: 5 * time.Hour, Unit: unit},
			store.Swap{ID: beside, Base: 99, Tag: 7, Record: []byte("x"), Age: 5 * time.Hour, Unit: unit})
		check("a conflict", soon)
		te.must(store.Swap{ID: id, Base: tag, Unit: unit}, store.Swap{ID: beside, Base: tag, Unit: unit})
		check("compared", longest)
		if got := server.Do("pttl", te.lifeKey(0)).(int64); got != -1 {
			t.Errorf("the life has %d ms to live", got)
		}
		// Those who keep for ever take away what others have set.
		opts.TTL = 0
		ever := openTester(t, connect(t, "standalone", server.Addr), opts)
		ever.must(store.Swap{ID: id, Base: tag, Tag: 50, Record: []byte("x"), Age: 2 * time.Hour, Unit: unit},
			store.Swap{ID: beside, Base: tag, Unit: unit})
		for _, id := range []streamid.ID{id, beside} {
			if got := server.Do("pttl", te.key(id)).(int64); got != -1 {
				t.Errorf("%d ms to live, want for ever", got)
			}
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
	for i, c := range []struct {
		make []any
		want store.Result
	}{
		{[]any{"set", 0, ""}, store.Result{Status: store.Changed, Record: []byte{}}},
		{[]any{"set", 0, "short"}, store.Result{Status: store.Changed, Record: []byte("short")}},
		{[]any{"set", 0, "\x01\x00\x00\x00\x00\x00\x00\x00"}, store.Result{Status: store.Changed, Record: []byte("\x01\x00\x00\x00\x00\x00\x00\x00")}},
		{[]any{"set", 0, "\x00\x00\x00\x00\x00\x00\x00\x00zero"}, store.Result{Status: store.Changed, Record: []byte("zero")}},
		{[]any{"rpush", 0, "x"}, store.Result{Status: store.Changed, Record: []byte{}}},
		{[]any{"hset", 0, "a", "b"}, store.Result{Status: store.Changed, Record: []byte{}}},
		{[]any{"xadd", 0, "*", "a", "b"}, store.Result{Status: store.Changed, Record: []byte{}}},
	} {
		for unit := range int32(2) {
			id, near := streamid.ID{Hi: uint64(i) << 60, Lo: uint64(unit)}, streamid.ID{Hi: uint64(i) << 60, Lo: 100 + uint64(unit)}
			c.make[1] = te.key(id)
			server.Do(c.make...)
			for _, swap := range []store.Swap{{}, {Base: 1}, {Tag: 2, Record: []byte("a")}, {Base: 1, Tag: 2, Record: []byte("a")}} {
				swap.ID, swap.Unit = id, unit
				results := te.swap(swap, store.Swap{ID: near, Tag: 1, Record: []byte("x"), Unit: unit})
				if r := results[0]; r.Status != c.want.Status || r.Tag != c.want.Tag || r.Record == nil || string(r.Record) != string(c.want.Record) {
					t.Fatalf("%v: %+v, want %+v", c.make, r, c.want)
				}
				// On its own the one beside it is done the first time.
				if r := results[1]; unit == 1 && r.Status != store.Withheld || unit == 0 && r.Status != store.Swapped && r.Tag != 1 {
					t.Fatalf("%v: the one beside it: %+v", c.make, r)
				}
			}
			if err := te.SetAside(context.Background(), id, c.want.Record); err != nil {
				t.Fatal(err)
			}
			te.must(store.Swap{ID: id, Tag: 1, Record: []byte("anew")})
		}
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
		key := string(st.appendKey(nil, id))
		want := "p:{" + groupTag(g) + "}:n:2" + string(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, id.Hi), 0))
		if key != want {
			t.Fatalf("key %q, want %q", key, want)
		}
		for _, k := range []string{st.asideKey(id), st.lifeKey(g), st.probeKey(g)} {
			if node.Do("cluster", "keyslot", k).(int64) != slot {
				t.Errorf("%q is in another slot than %q", k, key)
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
		"text": {cap(te.text), keptBytes}, "values": {cap(te.values), keptBytes}, "keys": {cap(te.keys), keptSwaps}, "blobs": {cap(te.blobs), keptSwaps},
		"order": {cap(te.order), keptSwaps}, "sorted": {cap(te.sorted), 2 * keptSwaps}, "results": {cap(te.results), keptSwaps},
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
	const streams, size, limit = 100_000, 88, 260
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
