// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/deltaring/deltaring/d2c/store/log"
	"github.com/deltaring/deltaring/d2c/store/redis/redistest"
)

// owner appends to a log, and knows what it has appended.
type owner struct {
	*Log
	t    testing.TB
	log  int
	end  log.Position
	last uint64
}

func newOwner(t testing.TB, l *Log, n int) *owner { return &owner{Log: l, t: t, log: n} }

func (o *owner) try(data string) (bool, error) {
	o.last++
	a := log.Append{Log: o.log, After: o.end, ID: o.last<<32 | uint64(rand.Uint32()), Entry: []byte(data)}
	done, err := o.Append(context.Background(), []log.Append{a})
	if err != nil {
		return false, err
	}
	if done[0] {
		o.end = log.Position{Number: o.end.Number + 1, ID: a.ID}
	}
	return done[0], nil
}

func (o *owner) must(entries ...string) {
	o.t.Helper()
	for _, data := range entries {
		if done, err := o.try(data); err != nil || !done {
			o.t.Fatalf("append of %q: %v, error %v", data, done, err)
		}
	}
}

// read returns what the log has, as text, and leaves the owner at its end.
func (o *owner) read() string {
	o.t.Helper()
	tail, err := o.Read(context.Background(), o.log, log.Position{})
	if err != nil {
		o.t.Fatal(err)
	}
	o.end = tail.End()
	text := "[" + string(tail.Snapshot) + "]"
	for _, e := range tail.Entries {
		text += " " + string(e.Data)
	}
	return text
}

// losing is a client that loses answers: where lose says so, what was sent arrives, and the connection breaks before the answer.
func losing(t testing.TB, addr string, lose func() bool) goredis.UniversalClient {
	t.Helper()
	opt := goredis.UniversalOptions{Addrs: []string{addr}, Dialer: func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		return &losingConn{Conn: conn, lose: lose}, err
	}}
	Tune(&opt)
	client := goredis.NewClient(opt.Simple())
	t.Cleanup(func() { _ = client.Close() })
	return client
}

type losingConn struct {
	net.Conn
	script bool
	lose   func() bool
}

func (c *losingConn) Write(b []byte) (int, error) {
	c.script = strings.Contains(string(b[:min(len(b), 100)]), "eval")
	return c.Conn.Write(b)
}

func (c *losingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b) // the server has done it
	if err == nil && c.script && c.lose() {
		_ = c.Conn.Close()
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

// An append whose answer was lost is done once, and counts as done, whatever others have appended meanwhile.
func TestLostAnswersOfAppends(t *testing.T) {
	server := redistest.Start(t)
	opts := testOptions()
	opts.MaxRetries, opts.Timeout = 20, 20*time.Second
	retries := 0
	opts.OnRetry = func(_ context.Context, calls int) { retries += calls }
	lost := 0
	client := losing(t, server.Addr, func() bool {
		if rand.IntN(3) > 0 {
			return false
		}
		lost++
		return true
	})
	o := newOwner(t, openLog(t, client, opts), 5)
	want := "[]"
	for i := range 60 {
		o.must(fmt.Sprint(i))
		want += fmt.Sprint(" ", i)
	}
	if got := o.read(); got != want {
		t.Errorf("the log has %s, want %s", got, want)
	}
	if lost == 0 || retries == 0 {
		t.Errorf("%d answers were lost, and %d calls sent again", lost, retries)
	}

	// Others go on in between.
	other := newOwner(t, openLog(t, connect(t, "standalone", server.Addr), testOptions()), 5)
	meanwhile := func() {}
	client = losing(t, server.Addr, func() bool {
		if meanwhile == nil {
			return false
		}
		meanwhile()
		meanwhile = nil
		return true
	})
	o.Log = openLog(t, client, opts)
	meanwhile = func() { other.read(); other.must("of another") }
	o.must("mine")
	meanwhile = nil
	if got := o.read(); got != want+" mine of another" {
		t.Errorf("the log has %s, want %s mine of another", got, want)
	}
	meanwhile = func() {
		other.read()
		if err := other.Compact(context.Background(), 5, other.end, []byte("all")); err != nil {
			t.Error(err)
		}
	}
	if done, err := o.try("mine again"); !errors.Is(err, errGone) || ReasonOf(err) != Other {
		t.Errorf("an append that was compacted before it was sent again: %v, error %v", done, err)
	}
	meanwhile = nil
	if got := o.read(); got != "[all]" {
		t.Errorf("the log has %s", got)
	}
	// A snapshot may be put twice.
	o.must("a", "b")
	at := o.end
	o.must("c")
	meanwhile = func() {}
	if err := o.Compact(context.Background(), 5, at, []byte("all and a and b")); err != nil {
		t.Error(err)
	}
	if got := o.read(); got != "[all and a and b] c" {
		t.Errorf("the log has %s", got)
	}
}

// What a replica says is not what is so.
func TestLogOnAReplica(t *testing.T) {
	master, server := redistest.Start(t), redistest.Start(t)
	opts := testOptions()
	opts.MaxRetries = 0
	o := newOwner(t, openLog(t, connect(t, "standalone", master.Addr), opts), 0)
	o.must("a", "b")
	host, port, _ := net.SplitHostPort(master.Addr)
	server.Do("replicaof", host, port)
	awaitReplica(t, server, 1)
	replica := openLog(t, connect(t, "standalone", server.Addr), opts)
	ctx := context.Background()
	for what, call := range map[string]func() error{
		"append": func() error {
			_, err := replica.Append(ctx, []log.Append{{Log: 0, After: o.end, ID: 1, Entry: []byte("c")}})
			return err
		},
		"append elsewhere": func() error {
			_, err := replica.Append(ctx, []log.Append{{Log: 0, ID: 1, Entry: []byte("c")}})
			return err
		},
		"begin": func() error {
			_, err := replica.Append(ctx, []log.Append{{Log: 1, ID: 1, Entry: []byte("c")}})
			return err
		},
		"check":           func() error { _, err := replica.Append(ctx, []log.Append{{Log: 0, After: o.end}}); return err },
		"check elsewhere": func() error { _, err := replica.Append(ctx, []log.Append{{Log: 0}}); return err },
		"check of none":   func() error { _, err := replica.Append(ctx, []log.Append{{Log: 1}}); return err },
		"read":            func() error { _, err := replica.Read(ctx, 0, log.Position{}); return err },
		"read on":         func() error { _, err := replica.Read(ctx, 0, o.end); return err },
		"read of none":    func() error { _, err := replica.Read(ctx, 1, log.Position{}); return err },
		"compact":         func() error { return replica.Compact(ctx, 0, o.end, []byte("ab")) },
		"compact of none": func() error { return replica.Compact(ctx, 1, o.end, []byte("ab")) },
		"probe":           func() error { return replica.Probe(ctx) },
	} {
		if err := call(); err == nil || !says(err, "READONLY") || !strings.Contains(err.Error(), "is a replica") {
			t.Errorf("%s: error %v", what, err)
		}
	}

	// It becomes the primary, and is behind: what it has not got is not there, and who knows better is refused.
	server.Do("replicaof", "no", "one")
	o.must("c")
	o.Log = replica
	if done, err := o.try("d"); err != nil || done {
		t.Fatalf("an append after an entry that is not there: %v, error %v", done, err)
	}
	if got := o.read(); got != "[] a b" {
		t.Errorf("the log has %s", got)
	}
	o.must("e")
	if got := o.read(); got != "[] a b e" {
		t.Errorf("the log has %s", got)
	}
}

func awaitReplica(t testing.TB, server *redistest.Server, keys int64) {
	t.Helper()
	redistest.Eventually(t, "the replica has it", func() error {
		if server.Info("replication", "master_link_status") != "up" || server.Do("dbsize").(int64) < keys {
			return errors.New("not yet")
		}
		return nil
	})
}

// Replicas that must have an entry have it.
func TestLogWaitsForReplicas(t *testing.T) {
	master, server := redistest.Start(t), redistest.Start(t)
	opts := testOptions()
	opts.MaxRetries, opts.WaitReplicas, opts.WaitTimeout = 0, 1, 100*time.Millisecond
	o := newOwner(t, openLog(t, connect(t, "standalone", master.Addr), opts), 0)
	if _, err := o.try("a"); ReasonOf(err) != Replicas {
		t.Errorf("without a replica: error %v", err)
	}
	host, port, _ := net.SplitHostPort(master.Addr)
	server.Do("replicaof", host, port)
	awaitReplica(t, server, 1)
	o.server.waitTimeout = 4 * time.Second
	if got := o.read(); got != "[] a" {
		t.Fatalf("the log has %s", got)
	}
	o.must("b")
	master.Stop()
	server.Do("replicaof", "no", "one")
	opts.WaitReplicas = 0
	o.Log = openLog(t, connect(t, "standalone", server.Addr), opts)
	if got := o.read(); got != "[] a b" {
		t.Errorf("the log has %s", got)
	}
}

// A server at its maxmemory refuses entries, and takes snapshots, which make room.
func TestLogOnAFullServer(t *testing.T) {
	server := redistest.Start(t)
	opts := testOptions()
	opts.MaxRetries = 0
	o := newOwner(t, openLog(t, connect(t, "standalone", server.Addr), opts), 0)
	for range 20 {
		o.must(strings.Repeat("x", 100_000))
	}
	server.Do("config", "set", "maxmemory", "1mb")
	done, err := o.try("y")
	if done || ReasonOf(err) != Memory || !strings.Contains(err.Error(), "out of memory") {
		t.Errorf("append: %v, error %v", done, err)
	}
	if err := o.Probe(context.Background()); ReasonOf(err) != Memory {
		t.Errorf("probe: error %v", err)
	}
	if _, err := o.Read(context.Background(), 0, o.end); err != nil {
		t.Errorf("read: %v", err)
	}
	server.Do("config", "set", "maxmemory", "3mb")
	if err := o.Compact(context.Background(), 0, o.end, []byte("in short")); err != nil {
		t.Fatalf("compact: %v", err)
	}
	o.must("y")
	if got := o.read(); got != "[in short] y" {
		t.Errorf("the log has %s", got)
	}
}

// What is not ours is told, and left alone.
func TestForeignLogs(t *testing.T) {
	server := redistest.Start(t)
	opts := testOptions()
	opts.MaxRetries = 0
	l := openLog(t, connect(t, "standalone", server.Addr), opts)
	for i, put := range [][]any{{"set", "", "x"}, {"sadd", "", "x"}, {"rpush", "", "x"}, {"rpush", "", "x", "y"}, {"rpush", "", "x", "y", "z"},
		{"rpush", "", "0123456789abcdef", "y", "z"}, {"rpush", "", "0123456789abcdef", "y", "0123456789abcdef", "z"}} {
		put[1] = l.key(i)
		server.Do(put...)
		before := server.Do("dump", l.key(i))
		ctx := context.Background()
		_, errRead := l.Read(ctx, i, log.Position{})
		_, errAppend := l.Append(ctx, []log.Append{{Log: i, ID: 1, Entry: []byte("a")}})
		errCompact := l.Compact(ctx, i, log.Position{Number: 1, ID: 1}, []byte("a"))
		if errRead == nil || ReasonOf(errRead) != Other {
			t.Errorf("%v: read, error %v", put, errRead)
		}
		if i < 2 {
			for _, err := range []error{errRead, errAppend, errCompact} {
				if err == nil || !strings.Contains(err.Error(), "delete it") {
					t.Errorf("%v: error %v", put, err)
				}
			}
		}
		if after := server.Do("dump", l.key(i)); after != before {
			t.Errorf("%v was changed", put)
		}
	}
}

// A script that runs without a permission has changed nothing.
func TestLogWithoutAPermission(t *testing.T) {
	server := redistest.Start(t)
	opts := testOptions()
	opts.MaxRetries = 0
	o := newOwner(t, openLog(t, connect(t, "standalone", server.Addr), opts), 0)
	o.must("a", "b")
	at := o.end
	o.must("c")
	for _, command := range []string{"lindex", "rpush", "persist", "llen", "lrange", "lset", "ltrim", "pexpire"} {
		server.Do("acl", "setuser", "default", "-"+command)
		_, errAppend := o.try("d")
		errCompact := o.Compact(context.Background(), 0, at, []byte("ab"))
		errProbe := o.Probe(context.Background())
		server.Do("acl", "setuser", "default", "+"+command)
		if errProbe == nil || ReasonOf(errProbe) != Credentials {
			t.Errorf("without %s: a probe has the error %v", command, errProbe)
		}
		got := o.read()
		want := "[] a b c"
		if errCompact == nil {
			want = "[ab] c"
		}
		if errAppend == nil {
			want += " d"
		}
		if got != want {
			t.Errorf("without %s: the log has %s, want %s (errors %v, %v)", command, got, want, errAppend, errCompact)
		}
		server.Do("del", o.key(0))
		o.end = log.Position{}
		o.must("a", "b")
		at = o.end
		o.must("c")
	}
}

// A slot moves to another node while its logs are appended to: no call is of more than one key, so nothing has to wait.
func TestClusterMovesALog(t *testing.T) {
	nodes := redistest.StartCluster(t, 3)
	opts := testOptions()
	opts.MaxRetries = 0
	l := openLog(t, connect(t, "cluster", nodes[0].Addr), opts)
	// Logs of one slot.
	here, other := newOwner(t, l, 0), newOwner(t, l, 64)
	from, to := nodes[0], nodes[2]
	slot := from.Do("cluster", "keyslot", l.key(0)).(int64)
	fromID, toID := from.Do("cluster", "myid").(string), to.Do("cluster", "myid").(string)
	entries := 0
	step := func(what string) {
		t.Helper()
		var appends []log.Append
		for _, o := range []*owner{here, other} {
			o.last++
			appends = append(appends, log.Append{Log: o.log, After: o.end, ID: o.last, Entry: []byte("x")})
		}
		for n := 1; n < 64; n++ {
			appends = append(appends, log.Append{Log: n})
		}
		done, err := l.Append(context.Background(), appends)
		if err != nil || !done[0] || !done[1] {
			t.Fatalf("%s: %v, error %v", what, done, err)
		}
		here.end, other.end = log.Position{Number: here.last, ID: here.last}, log.Position{Number: here.last, ID: here.last}
		entries++
		for _, o := range []*owner{here, other} {
			if got := len(strings.Fields(o.read())) - 1; got != entries {
				t.Fatalf("%s: log %d has %d entries, want %d", what, o.log, got, entries)
			}
		}
		if err := l.Compact(context.Background(), 1, log.Position{Number: 1, ID: 1}, []byte("x")); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	step("before")
	to.Do("cluster", "setslot", slot, "importing", fromID)
	from.Do("cluster", "setslot", slot, "migrating", toID)
	step("none has moved")
	from.Do("migrate", "127.0.0.1", to.Port(), l.key(0), 0, 5000)
	step("one has moved")
	to.Do("script", "flush")
	step("one has moved, and the script is not known")
	from.Do("migrate", "127.0.0.1", to.Port(), l.key(64), 0, 5000)
	step("both have moved")
	for _, node := range []*redistest.Server{to, from, nodes[1]} {
		node.Do("cluster", "setslot", slot, "node", toID)
	}
	step("the slot has moved")
	step("and after")
}

// A server that is killed and comes back with what it had on disk has all that was acknowledged.
func TestLogSurvivesKills(t *testing.T) {
	server := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	opts := testOptions()
	opts.MaxRetries, opts.Timeout = 3, time.Second
	l := openLog(t, connect(t, "standalone", server.Addr), opts)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	owners := make([]*owner, 4)
	var counts [4]atomic.Int64
	for i := range owners {
		owners[i] = newOwner(t, openLog(t, connect(t, "standalone", server.Addr), opts), i)
		wg.Go(func() {
			o := owners[i]
			acknowledged := uint64(0)
			for {
				select {
				case <-stop:
					return
				default:
				}
				done, err := o.try("x")
				if err == nil && done {
					acknowledged = o.end.Number
					counts[i].Add(1)
					if o.end.Number%50 == 0 {
						_ = o.Compact(context.Background(), i, o.end, []byte("s"))
					}
					continue
				}
				tail, err := o.Read(context.Background(), i, o.end)
				if err != nil {
					continue
				}
				if o.end = tail.End(); o.end.Number < acknowledged {
					t.Errorf("log %d ends at %d, and %d were acknowledged", i, o.end.Number, acknowledged)
					return
				}
			}
		})
	}
	for range 5 {
		server.Stop()
		server.Start()
		redistest.Eventually(t, "the logs go on", func() error {
			_, err := l.Append(context.Background(), []log.Append{{Log: 9}})
			return err
		})
		for i := range counts {
			before := counts[i].Load()
			redistest.Eventually(t, "each owner appends", func() error {
				if counts[i].Load() < before+60 {
					return errors.New("not yet")
				}
				return nil
			})
		}
	}
	close(stop)
	wg.Wait()
}

// What is large has more time than the client has for an attempt, or a log that has grown beyond that could never be read or compacted.
func TestLargeCallsHaveMoreTime(t *testing.T) {
	server := redistest.Start(t)
	const readTimeout, delay = 20 * time.Millisecond, 100 * time.Millisecond
	opt := goredis.UniversalOptions{
		Addrs: []string{server.Addr}, ReadTimeout: readTimeout, WriteTimeout: readTimeout,
		Dialer: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			return &slowConn{conn, delay}, err
		},
	}
	Tune(&opt)
	client := goredis.NewClient(opt.Simple())
	t.Cleanup(func() { _ = client.Close() })
	opts := testOptions()
	opts.MaxRetries = 0
	quick := newOwner(t, openLog(t, connect(t, "standalone", server.Addr), opts), 0)
	quick.must("a", "b") // and the scripts are known
	quick.read()
	if err := quick.Compact(context.Background(), 1, quick.end, nil); err != nil {
		t.Fatal(err)
	}
	slow := newOwner(t, openLog(t, client, opts), 0)
	if got := slow.read(); got != "[] a b" {
		t.Errorf("the log has %s", got)
	}
	if err := slow.Compact(context.Background(), 0, slow.end, []byte("ab")); err != nil {
		t.Error(err)
	}
	slow.must(strings.Repeat("x", maxCallBytes+1))
	if _, err := slow.try("y"); ReasonOf(err) != Unreachable {
		t.Errorf("a small append within %v over a connection that takes %v: error %v", readTimeout, delay, err)
	}
}

// slowConn brings answers late.
type slowConn struct {
	net.Conn
	delay time.Duration
}

func (c *slowConn) Read(b []byte) (int, error) {
	time.Sleep(c.delay)
	return c.Conn.Read(b)
}
