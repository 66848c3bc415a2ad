// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redisstate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
)

// Until an extension gives it a better place, go-redis tells the test's output of every connection refused.
func init() { redis.SetLogger(clientLog{zap.NewNop().Sugar()}) }

// redisServer is a process of redis-server, of the test that started it.
type redisServer struct {
	t    testing.TB
	addr string
	dir  string
	args []string
	cmd  *exec.Cmd
	out  bytes.Buffer
	// admin talks to it as somebody who may do everything.
	admin *redis.Client
}

func redisBinary(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatal("these tests need a real server: apt-get install redis-server")
	}
	return path
}

// startRedis starts a server with more arguments than the usual ones, and waits until it answers.
func startRedis(t testing.TB, args ...string) *redisServer {
	t.Helper()
	s := newRedis(t, args...)
	s.start()
	return s
}

// newRedis has an address for a server that is not started yet.
func newRedis(t testing.TB, args ...string) *redisServer {
	t.Helper()
	s := &redisServer{t: t, addr: freeAddress(t), dir: t.TempDir(), args: args}
	s.admin = redis.NewClient(&redis.Options{Addr: s.addr, MaxRetries: -1, DialerRetries: 1})
	t.Cleanup(func() {
		_ = s.admin.Close()
		s.stop()
		if t.Failed() {
			t.Logf("redis-server at %s:\n%s", s.addr, s.out.String())
		}
	})
	return s
}

// freeAddress returns an address whose port, and the one that a Cluster would add, are free.
func freeAddress(t testing.TB) string {
	t.Helper()
	const busOffset = 10000
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		_ = l.Close()
		if port+busOffset > 65535 {
			port -= busOffset
		}
		if free(port) && free(port+busOffset) {
			return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		}
	}
	t.Fatal("no free port")
	return ""
}

func free(port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	return l.Close() == nil
}

func (s *redisServer) port() string {
	_, port, _ := net.SplitHostPort(s.addr)
	return port
}

// start starts the process and waits until it takes connections.
func (s *redisServer) start() {
	s.t.Helper()
	s.run(append([]string{"--port", s.port(), "--bind", "127.0.0.1", "--save", "", "--dir", s.dir}, s.args...)...)
	s.answers()
}

// answers waits until the process takes connections, even if not ours.
func (s *redisServer) answers() {
	s.t.Helper()
	eventually(s.t, "redis-server answers", func() error {
		err := s.admin.Ping(context.Background()).Err()
		if err != nil && fromServer(err) && !says(err, "LOADING") {
			return nil
		}
		return err
	})
}

func (s *redisServer) run(args ...string) {
	s.t.Helper()
	s.cmd = exec.Command(redisBinary(s.t), args...)
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
}

// stop kills the process, if there is one.
func (s *redisServer) stop() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// do runs a command as somebody who may.
func (s *redisServer) do(args ...any) any {
	s.t.Helper()
	v, err := s.admin.Do(context.Background(), args...).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		s.t.Fatalf("%v: %v", args, err)
	}
	return v
}

// allow makes a user "worker" who may do no more than the README says, and more.
func (s *redisServer) allow(more ...any) {
	s.t.Helper()
	s.do(append(append([]any{"acl", "setuser", "worker", "on", ">" + secret}, words(acl)...), more...)...)
}

// info returns a field of INFO.
func (s *redisServer) info(section, field string) string {
	s.t.Helper()
	for line := range strings.Lines(s.do("info", section).(string)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), field+":"); ok {
			return v
		}
	}
	s.t.Fatalf("INFO %s has no %s", section, field)
	return ""
}

// startSentinel starts a Sentinel that follows the server under the name "counters". One is a quorum.
func startSentinel(t testing.TB, master *redisServer, more ...string) *redisServer {
	t.Helper()
	s := newRedis(t)
	host, port, _ := net.SplitHostPort(master.addr)
	lines := append([]string{
		"port " + s.port(),
		"bind 127.0.0.1",
		"dir " + s.dir,
		fmt.Sprintf("sentinel monitor counters %s %s 1", host, port),
		"sentinel down-after-milliseconds counters 1000",
		"sentinel failover-timeout counters 3000",
	}, more...)
	conf := filepath.Join(s.dir, "sentinel.conf")
	if err := os.WriteFile(conf, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.run(conf, "--sentinel")
	s.answers()
	return s
}

// startCluster starts a Cluster of as many primaries.
func startCluster(t testing.TB, n int) []*redisServer {
	t.Helper()
	nodes := make([]*redisServer, n)
	args := []string{"--cluster", "create"}
	for i := range nodes {
		nodes[i] = startRedis(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
		args = append(args, nodes[i].addr)
	}
	redisCLI(t, append(args, "--cluster-replicas", "0", "--cluster-yes")...)
	for _, node := range nodes {
		eventually(t, "the Cluster is up", func() error {
			if state := node.info("cluster", "cluster_enabled"); state != "1" {
				return fmt.Errorf("cluster_enabled is %s", state)
			}
			if state := fmt.Sprint(node.do("cluster", "info")); !strings.Contains(state, "cluster_state:ok") {
				return errors.New(state)
			}
			return nil
		})
	}
	return nodes
}

func redisCLI(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command("redis-cli", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("redis-cli %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// eventually returns when f does not fail any more.
func eventually(t testing.TB, what string, f func() error) {
	t.Helper()
	const patience, interval = 20 * time.Second, 5 * time.Millisecond
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(interval) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("after %v it still is not so that %s: %v", patience, what, err)
}
