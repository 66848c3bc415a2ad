// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/d2c/store/log"
	"github.com/deltaring/deltaring/d2c/store/redis/redistest"
	"github.com/deltaring/deltaring/streamid"
)

// fake is a server that answers whatever it is told to. It plays a Sentinel and a node of a Cluster too.
type fake struct {
	addr string
	// answer is for scripts, meta for what the client asks a Sentinel or a node of a Cluster; empty is the right one.
	answer, meta string
}

func startFake(t testing.TB, answer, meta string) *fake {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{addr: l.Addr().String(), answer: answer, meta: meta}
	var mu sync.Mutex
	var conns []net.Conn
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			serving.Go(func() { f.serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		serving.Wait()
	})
	return f
}

const closeConnection = "close"

func (f *fake) serve(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	for {
		words, err := readCommand(r)
		if err != nil {
			return
		}
		answer := f.reply(words)
		if answer == closeConnection {
			return
		}
		if _, err := io.WriteString(conn, strings.ReplaceAll(answer, "ADDR", f.addr)); err != nil {
			return
		}
	}
}

func (f *fake) reply(words []string) string {
	host, port, _ := net.SplitHostPort(f.addr)
	if f.meta != "" {
		switch strings.ToLower(words[0]) {
		case "cluster", "sentinel", "command", "subscribe", "psubscribe":
			return f.meta
		}
	}
	switch strings.ToLower(words[0]) {
	case "evalsha", "eval", "get", "hmget":
		return f.answer
	case "hello":
		return "-ERR unknown command 'hello'\r\n"
	case "ping":
		return "+PONG\r\n"
	case "cluster":
		return fmt.Sprintf("*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n$%d\r\n%s\r\n:%s\r\n$2\r\nid\r\n", len(host), host, port)
	case "sentinel":
		if len(words) > 1 && strings.EqualFold(words[1], "get-master-addr-by-name") {
			return fmt.Sprintf("*2\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", len(host), host, len(port), port)
		}
		return "*0\r\n"
	case "subscribe", "psubscribe":
		return fmt.Sprintf("*3\r\n$9\r\nsubscribe\r\n$%d\r\n%s\r\n:1\r\n", len(words[1]), words[1])
	case "wait":
		return f.answer
	}
	return "+OK\r\n"
}

func readCommand(r *bufio.Reader) ([]string, error) {
	number := func(kind byte) (int, error) {
		line, err := r.ReadString('\n')
		if err != nil {
			return 0, err
		}
		if line[0] != kind {
			return 0, errors.New("not a command")
		}
		return strconv.Atoi(strings.TrimSpace(line[1:]))
	}
	n, err := number('*')
	if err != nil || n < 1 {
		return nil, errors.New("not a command")
	}
	words := make([]string, n)
	for i := range words {
		size, err := number('$')
		if err != nil {
			return nil, err
		}
		b := make([]byte, size+2)
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, err
		}
		words[i] = string(b[:size])
	}
	return words, nil
}

var modes = []string{"standalone", "sentinel", "cluster"}

// answers are what a server can say that is not what a script of ours says.
var answers = []string{
	"-MOVED 866 ADDR\r\n", "-MOVED 866 127.0.0.1:1\r\n", "-MOVED 866 :0\r\n", "-MOVED\r\n", "-MOVED \r\n", "-MOVED x y z\r\n", "-MOVED 99999999999999999999 ADDR\r\n",
	"-ASK 866 ADDR\r\n", "-ASK 866 127.0.0.1:1\r\n", "-ASK\r\n", "-ASK \r\n", "-TRYAGAIN Multiple keys request during rehashing of slot\r\n",
	"-CLUSTERDOWN The cluster is down\r\n", "-CLUSTERDOWN Hash slot not served\r\n", "-CROSSSLOT Keys in request don't hash to the same slot\r\n",
	"-READONLY You can't write against a read only replica.\r\n", "-LOADING Redis is loading the dataset in memory\r\n",
	"-BUSY Redis is busy running a script.\r\n", "-MASTERDOWN Link with MASTER is down\r\n", "-NOREPLICAS Not enough good replicas to write.\r\n",
	"-NOPERM this user has no permissions\r\n", "-NOAUTH Authentication required.\r\n", "-WRONGPASS invalid username-password pair\r\n",
	"-OOM command not allowed when used memory > 'maxmemory'.\r\n", "-MISCONF Redis is configured to save RDB snapshots\r\n",
	"-NOSCRIPT No matching script.\r\n", "-WRONGTYPE Operation against a key\r\n", "-ERR unknown command 'evalsha', with args beginning with:\r\n",
	"-ERR This instance has cluster support disabled\r\n", "-ERR max number of clients reached\r\n", "-ERR something else\r\n",
	"-NOBODY knows this\r\n", "-\r\n", "- \r\n", "-EXECABORT\r\n",
	"+OK\r\n", "+\r\n", "+QUEUED\r\n", ":0\r\n", ":1\r\n", ":-1\r\n", ":9223372036854775807\r\n", ":x\r\n", "$-1\r\n", "$0\r\n\r\n", "$3\r\nabc\r\n",
	"$16\r\n\x00\x00\x00\x00\x00\x00\x00\x00abcdefgh\r\n", "*-1\r\n", "*0\r\n", "*1\r\n:1\r\n", "*2\r\n:1\r\n:1\r\n", "*2\r\n:0\r\n$-1\r\n", "*2\r\n:-1\r\n$-1\r\n",
	"*2\r\n:9999\r\n$1\r\na\r\n", "*2\r\n$1\r\n1\r\n$1\r\na\r\n", "*2\r\n:1\r\n*1\r\n:1\r\n", "*2\r\n-ERR x\r\n$1\r\na\r\n", "*2\r\n:1\r\n-ERR x\r\n", "*2\r\n*-1\r\n$-1\r\n", "*1\r\n*1\r\n*0\r\n",
	"_\r\n", "#t\r\n", ",1.5\r\n", "%1\r\n+a\r\n:1\r\n", "~1\r\n:1\r\n", "(12345678901234567890123\r\n", "=7\r\ntxt:abc\r\n", ">1\r\n+message\r\n", "|1\r\n+a\r\n+b\r\n:1\r\n",
	"HTTP/1.1 400 Bad Request\r\n\r\n", "\r\n", "\x00\x01\x02\r\n", "SSH-2.0-OpenSSH_9.2\r\n", "$-2\r\n", "*-2\r\n", "$5\r\nab", closeConnection,
}

// Whatever a server answers, in whatever mode: every method returns, with an error or with something that fits what was asked.
func TestNoAnswerIsFatal(t *testing.T) {
	for _, mode := range modes {
		for i, answer := range answers {
			for _, where := range []string{"scripts", "discovery", "both", "replicas"} {
				if where == "discovery" && mode == "standalone" || where == "both" && i%4 != 0 || where == "replicas" && i%3 != 0 {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s/%.30q", mode, where, answer), func(t *testing.T) {
					t.Parallel()
					f := startFake(t, answer, answer)
					if where == "scripts" || where == "replicas" {
						f.meta = ""
					}
					if where == "discovery" {
						f.answer = "*0\r\n"
					}
					opts := Options{Name: "d2c", Timeout: 150 * time.Millisecond, MaxRetries: 1}
					opts.WaitTimeout = time.Millisecond
					if where == "replicas" {
						opts.WaitReplicas = 1
					}
					tryAll(t, mode, f.addr, opts)
				})
			}
		}
	}
}

func tryAll(t *testing.T, mode, addr string, opts Options) (errs []error) {
	t.Helper()
	tune := goredis.UniversalOptions{Addrs: []string{addr}, DialTimeout: 100 * time.Millisecond, ReadTimeout: 100 * time.Millisecond, MasterName: "counters"}
	Tune(&tune)
	var client goredis.UniversalClient
	switch mode {
	case "cluster":
		client = goredis.NewClusterClient(tune.Cluster())
	case "sentinel":
		client = goredis.NewFailoverClient(tune.Failover())
	default:
		client = goredis.NewClient(tune.Simple())
	}
	defer client.Close()
	st := open(t, client, opts)
	ctx := context.Background()
	swaps := []store.Swap{
		{ID: streamid.ID{Hi: 1}, Life: 1, Tag: 1, Record: []byte("a")},
		{ID: streamid.ID{Hi: 1 << 63}, Life: 1, Tag: 1, Record: []byte("a")},
		{ID: streamid.ID{Hi: 1, Lo: 1}, Life: 1, Tag: 1, Record: []byte("a"), Unit: 1},
		{ID: streamid.ID{Hi: 1, Lo: 2}, Life: 2, Tag: 1, Record: []byte("a"), Unit: 1},
	}
	results, err := st.Swap(ctx, swaps)
	if err == nil && len(results) != len(swaps) {
		t.Errorf("%d results", len(results))
	}
	errs = append(errs, err)
	told, err := st.Read(ctx, []streamid.ID{swaps[0].ID, swaps[1].ID, swaps[2].ID})
	if err == nil && len(told) != 3 {
		t.Errorf("3 reads, %d results", len(told))
	}
	for _, r := range told {
		if r.Status != store.Changed {
			t.Errorf("read %+v", r)
		}
	}
	errs = append(errs, err)
	lives, err := st.Lives(ctx, store.Life{ID: 1})
	for _, life := range lives {
		if life.ID == 0 {
			t.Error("a life without an ID")
		}
	}
	errs = append(errs, err, st.SetAside(ctx, streamid.ID{}, []byte("a")), st.Probe(ctx))
	l := openLog(t, client, opts)
	var appends []log.Append
	for n := range 8 { // at all nodes
		appends = append(appends, log.Append{Log: n, ID: 1, Entry: []byte("a")})
	}
	done, err := l.Append(ctx, appends)
	if err == nil && len(done) != len(appends) {
		t.Errorf("%d appends, %d results", len(appends), len(done))
	}
	_, errRead := l.Read(ctx, 1, log.Position{Number: 1, ID: 1})
	errs = append(errs, err, errRead, l.Compact(ctx, 1, log.Position{Number: 1, ID: 1}, []byte("a")), l.Probe(ctx))
	for _, err := range errs {
		if err != nil {
			_ = ReasonOf(err)
			if !strings.HasPrefix(err.Error(), "redis at ") {
				t.Errorf("error %v", err)
			}
		}
	}
	return errs
}

// The error says what to do.
func TestErrorsSayWhatToDo(t *testing.T) {
	for _, c := range []struct {
		mode, answer, meta, want string
	}{
		{"standalone", "-MOVED 866 ADDR\r\n", "", "this is a node of a Cluster: set mode: cluster"},
		{"sentinel", "-MOVED 866 ADDR\r\n", "", "this is a node of a Cluster: set mode: cluster"},
		{"standalone", "-CROSSSLOT Keys\r\n", "", "this is a node of a Cluster: set mode: cluster"},
		{"standalone", "-CLUSTERDOWN Hash slot not served\r\n", "", "this is a node of a Cluster: set mode: cluster"},
		{"cluster", "-CLUSTERDOWN The cluster is down\r\n", "", "the Cluster is not whole"},
		{"standalone", "-READONLY You can't\r\n", "", "set mode: sentinel"},
		{"standalone", "-MASTERDOWN Link\r\n", "", "a replica without its primary"},
		{"standalone", "-LOADING\r\n", "", "still loading"},
		{"standalone", "-BUSY Redis\r\n", "", "busy with a script"},
		{"standalone", "-NOPERM this\r\n", "", "lacks a permission"},
		{"standalone", "-ERR unknown command 'evalsha', with args\r\n", "", "if it is a Sentinel, set mode: sentinel"},
		{"standalone", "*1\r\n:1\r\n", "", "is this Redis?"},
		{"standalone", "$-1\r\n", "", "is this Redis?"},
		{"cluster", "*0\r\n", "-ERR This instance has cluster support disabled\r\n", "this is no node of a Cluster: set mode: standalone"},
		{"cluster", "*0\r\n", "-ERR unknown command 'CLUSTER'\r\n", "this is no node of a Cluster: set mode: standalone"},
		{"sentinel", "*0\r\n", "-ERR unknown command 'sentinel', with args\r\n", "this is no Sentinel: set mode: standalone"},
	} {
		t.Run(c.mode+" "+c.answer+c.meta, func(t *testing.T) {
			t.Parallel()
			f := startFake(t, c.answer, c.meta)
			for i, err := range tryAll(t, c.mode, f.addr, Options{Name: "d2c", Timeout: time.Second, MaxRetries: 1}) {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("call %d: error %v, want %q", i, err, c.want)
				}
			}
		})
	}
}

// The commonest slips, with real servers.
func TestWrongMode(t *testing.T) {
	single := redistest.Start(t)
	lone := redistest.Start(t, "--cluster-enabled", "yes") // has no slots
	nodes := redistest.StartCluster(t, 3)
	sentinel := redistest.StartSentinel(t, single)
	for _, c := range []struct{ mode, addr, want string }{
		{"standalone", lone.Addr, "set mode: cluster"},
		{"standalone", nodes[0].Addr, "set mode: cluster"},
		{"standalone", sentinel.Addr, "set mode: sentinel"},
		{"cluster", single.Addr, "set mode: standalone"},
		{"cluster", sentinel.Addr, "set mode: standalone or sentinel"},
		{"cluster", lone.Addr, ""},
		{"sentinel", single.Addr, "this is no Sentinel"},
		{"sentinel", nodes[0].Addr, "this is no Sentinel"},
	} {
		for i, err := range tryAll(t, c.mode, c.addr, Options{Name: "d2c", Timeout: 2 * time.Second, MaxRetries: 1}) {
			if i == 3 && err == nil && c.addr == nodes[0].Addr {
				continue // the keys of SetAside may happen to be on this node
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("mode %s at %s, call %d: error %v, want %q", c.mode, c.addr, i, err, c.want)
			}
		}
	}
}
