// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/d2c/store/log"
	"github.com/deltaring/deltaring/d2c/store/log/logtest"
	"github.com/deltaring/deltaring/d2c/store/redis/redistest"
	"github.com/deltaring/deltaring/d2c/storetest"
	"github.com/deltaring/deltaring/streamid"
)

func openLog(t testing.TB, client goredis.UniversalClient, opts Options) *Log {
	t.Helper()
	opts.TTL = 0
	l, err := NewLog(client, opts)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// logFixtureOf gives each check a name of its own on the servers.
func logFixtureOf(client func(t testing.TB) goredis.UniversalClient, opts Options) func(*testing.T) logtest.Fixture {
	return func(t *testing.T) logtest.Fixture {
		opts := opts
		opts.Name = fmt.Sprint("check", fixtures.Add(1))
		return logtest.Fixture{Open: func() log.Driver { return openLog(t, client(t), opts) }}
	}
}

func TestLog(t *testing.T) {
	server := redistest.Start(t)
	t.Run("one server", func(t *testing.T) {
		logtest.Run(t, logFixtureOf(func(t testing.TB) goredis.UniversalClient { return connect(t, "standalone", server.Addr) }, testOptions()))
	})
	t.Run("RESP 3 and a client as it comes", func(t *testing.T) {
		logtest.Run(t, logFixtureOf(func(t testing.TB) goredis.UniversalClient {
			c := goredis.NewClient(&goredis.Options{Addr: server.Addr})
			t.Cleanup(func() { _ = c.Close() })
			return c
		}, testOptions()))
	})
}

func TestLogOnCluster(t *testing.T) {
	nodes := redistest.StartCluster(t, 3)
	logtest.Run(t, logFixtureOf(func(t testing.TB) goredis.UniversalClient { return connect(t, "cluster", nodes[0].Addr) }, testOptions()))
}

func TestLogBehindSentinel(t *testing.T) {
	master := redistest.Start(t)
	sentinel := redistest.StartSentinel(t, master)
	logtest.Run(t, logFixtureOf(func(t testing.TB) goredis.UniversalClient { return connect(t, "sentinel", sentinel.Addr) }, testOptions()))
}

// As many logs as a power of two are divided evenly among the slots, and so among the nodes.
func TestLogsDivideTheSlotsEvenly(t *testing.T) {
	node := redistest.Start(t, "--cluster-enabled", "yes")
	l := &Log{prefix: "p", name: "n"}
	for logs := 4; logs <= 256; logs *= 2 {
		parts := make([]int, min(logs, slotGroups))
		for n := range logs {
			slot := int(node.Do("cluster", "keyslot", l.key(n)).(int64))
			parts[slot*len(parts)/16384]++
		}
		for i, got := range parts {
			if want := logs / len(parts); got != want {
				t.Errorf("%d logs: %d of them are in part %d of the slots, want %d", logs, got, i, want)
			}
		}
	}
	if got, want := l.key(1), "p:{"+groupTag(slotGroups/2)+"}:_log:n:1:1"; got != want {
		t.Errorf("key %q, want %q", got, want)
	}
}

// What differs in prefix, name or number has no key in common, nor with records. No log expires.
func TestLogsShareNothingByAccident(t *testing.T) {
	server := redistest.Start(t)
	client := connect(t, "standalone", server.Addr)
	var owners []*owner
	for _, prefix := range []string{"d2c", "d2c:", "d2", "d2c:_log"} {
		for _, name := range []string{"d2c", "d2c:1", "d2c:1:1", "d2c:_log:d2c:1"} {
			opts := testOptions()
			opts.Prefix, opts.Name = prefix, name
			for _, n := range []int{0, 1, 11, 64} {
				o := newOwner(t, openLog(t, client, opts), n)
				o.must(fmt.Sprint(prefix, " ", name, " ", n))
				owners = append(owners, o)
			}
			openTester(t, client, opts).must(store.Swap{ID: streamid.ID{Hi: 1}, Tag: 1, Record: []byte("record")})
		}
	}
	for _, o := range owners {
		if got, want := o.read(), fmt.Sprintf("[] %s %s %d", o.prefix, o.name, o.log); got != want {
			t.Errorf("log %d of %s %s has %s", o.log, o.prefix, o.name, got)
		}
		o.must("more")
		if err := o.Compact(context.Background(), o.log, o.end, []byte("all")); err != nil {
			t.Fatal(err)
		}
		if ttl := server.Do("pttl", o.key(o.log)).(int64); ttl != -1 {
			t.Errorf("%s has %d ms to live", o.key(o.log), ttl)
		}
	}
}

func TestLogScriptIsSentAgainWhereItIsNotKnown(t *testing.T) {
	server := redistest.Start(t)
	opts := testOptions()
	opts.MaxRetries = 0
	o := newOwner(t, openLog(t, connect(t, "standalone", server.Addr), opts), 0)
	for range 3 {
		server.Do("script", "flush")
		o.must("a")
		server.Do("script", "flush")
		o.read()
	}
	o.must("b")
	o.read()
	server.Do("config", "resetstat")
	o.must("c")
	o.read()
	if stats := server.Do("info", "commandstats").(string); strings.Contains(stats, "cmdstat_eval:") {
		t.Errorf("the script was sent though it is known:\n%s", stats)
	}
}

// A commit is one call to one server, whatever the number of logs, and a pipeline for each node of a Cluster.
func TestAppendsGoOutTogether(t *testing.T) {
	server, nodes := redistest.Start(t), redistest.StartCluster(t, 3)
	for mode, addr := range map[string]string{"standalone": server.Addr, "cluster": nodes[0].Addr} {
		client := connect(t, mode, addr)
		opts := testOptions()
		l := openLog(t, client, opts)
		commit := func(number uint64, size int) {
			var appends []log.Append
			for n := range 256 {
				after := log.Position{Number: number, ID: number}
				appends = append(appends, log.Append{Log: n, After: after, ID: number + 1, Entry: make([]byte, size)})
			}
			done, err := l.Append(context.Background(), appends)
			if err != nil {
				t.Fatal(err)
			}
			for n, ok := range done {
				if !ok {
					t.Fatalf("%s: log %d", mode, n)
				}
			}
		}
		commit(0, 100) // learns where things are, and the script
		sent := new(pipelines)
		if cluster, ok := client.(*goredis.ClusterClient); ok {
			if err := cluster.ForEachMaster(context.Background(), func(_ context.Context, c *goredis.Client) error { c.AddHook(sent); return nil }); err != nil {
				t.Fatal(err)
			}
		} else {
			client.AddHook(sent)
		}
		commit(1, 100)
		if mode == "standalone" && (sent.n != 1 || sent.largest != 1) {
			t.Errorf("%d pipelines of at most %d calls, want one of one", sent.n, sent.largest)
		}
		if mode == "cluster" && sent.n != 3 {
			t.Errorf("%d pipelines to three nodes", sent.n)
		}
		if mode == "cluster" {
			continue
		}
		sent.n = 0
		commit(2, 10_000) // 2.5 MB
		if sent.n != 1 || sent.largest != 3 {
			t.Errorf("%d pipelines of at most %d calls, want one of three", sent.n, sent.largest)
		}
	}
}

func TestLogOptions(t *testing.T) {
	client := connect(t, "standalone", "127.0.0.1:1")
	for want, change := range map[string]func(*Options){
		"redis: TTL: a log does not expire": func(o *Options) { o.TTL = time.Hour },
		"redis: observer: a log has none":   func(o *Options) { o.Observer = nobody{} },
		"redis: name: ":                     func(o *Options) { o.Name = "_a" },
		"redis: prefix: must not contain":   func(o *Options) { o.Prefix = "{" },
		"redis: max retries: ":              func(o *Options) { o.MaxRetries = -1 },
	} {
		opts := Options{Name: "d2c"}
		change(&opts)
		if l, err := NewLog(client, opts); err == nil || l != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, %v, want %s", l, err, want)
		}
	}
	l := openLog(t, client, Options{Name: "d2c"})
	for _, n := range []int{-1, maxLogs} {
		if _, err := l.Append(context.Background(), []log.Append{{Log: n}}); err == nil || !strings.Contains(err.Error(), "from 0 to 65535") {
			t.Errorf("log %d: error %v", n, err)
		}
	}
}

type nobody struct{ Observer }

// A log.Store on a Log is a store as any other.
func TestSharedByLog(t *testing.T) {
	server := redistest.Start(t)
	nodes := redistest.StartCluster(t, 3)
	for name, c := range map[string]struct {
		mode  string
		nodes []*redistest.Server
		opts  log.Options
	}{
		"one server":     {"standalone", []*redistest.Server{server}, log.Options{}},
		"one server, 16": {"standalone", []*redistest.Server{server}, log.Options{Groups: 16}},
		"a Cluster":      {"cluster", nodes, log.Options{}},
	} {
		t.Run(name, func(t *testing.T) {
			storetest.TestShared(t, func(t *testing.T) storetest.Fixture {
				opts := testOptions()
				opts.Name = fmt.Sprint("check", fixtures.Add(1))
				return storetest.Fixture{
					Open: func() store.Shared {
						st, err := log.New(openLog(t, connect(t, c.mode, c.nodes[0].Addr), opts), c.opts)
						if err != nil {
							t.Fatal(err)
						}
						t.Cleanup(func() {
							if err := st.Close(context.Background()); err != nil {
								t.Error(err)
							}
						})
						return st
					},
					Wipe: func() {
						for _, node := range c.nodes {
							node.Do("flushall")
						}
					},
				}
			})
		})
	}
}
