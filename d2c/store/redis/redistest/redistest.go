// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package redistest starts real servers for tests: one, with replicas and a Sentinel, or a Cluster.
package redistest

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

	"github.com/deltaring/deltaring/internal/ports"
)

// Server is a process of redis-server, of the test that started it.
type Server struct {
	// Addr is its address, Dir where it keeps what it saves.
	Addr, Dir string
	// Args are more arguments for the next Start.
	Args []string
	// Cmd is the process, if there is one.
	Cmd *exec.Cmd
	// Admin talks to it as somebody who may do everything.
	Admin *redis.Client

	t   testing.TB
	out bytes.Buffer
}

func binary(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatal("these tests need a real server: apt-get install redis-server")
	}
	return path
}

// Start starts a server with more arguments than the usual ones, and waits until it answers.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	s := New(t, args...)
	s.Start()
	return s
}

// New has an address for a server that is not started yet.
func New(t testing.TB, args ...string) *Server {
	t.Helper()
	s := &Server{t: t, Addr: FreeAddress(t), Dir: t.TempDir(), Args: args}
	s.Admin = redis.NewClient(&redis.Options{Addr: s.Addr, MaxRetries: -1, DialerRetries: 1})
	t.Cleanup(func() {
		_ = s.Admin.Close()
		s.Stop()
		if t.Failed() {
			t.Logf("redis-server at %s:\n%s", s.Addr, s.out.String())
		}
	})
	return s
}

// FreeAddress returns an address whose port, and the one that a Cluster would add, are free.
func FreeAddress(t testing.TB) string {
	t.Helper()
	const busOffset = 10000
	for range 100 {
		port, err := ports.Free()
		if err != nil {
			t.Fatal(err)
		}
		if free(port + busOffset) {
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

// Port is that of its address.
func (s *Server) Port() string {
	_, port, _ := net.SplitHostPort(s.Addr)
	return port
}

// Start starts the process and waits until it takes connections.
func (s *Server) Start() {
	s.t.Helper()
	s.Run(append([]string{"--port", s.Port(), "--bind", "127.0.0.1", "--save", "", "--dir", s.Dir}, s.Args...)...)
	s.Answers()
}

// Answers waits until the process takes connections, even if not ours.
func (s *Server) Answers() {
	s.t.Helper()
	Eventually(s.t, "redis-server answers", func() error {
		err := s.Admin.Ping(context.Background()).Err()
		var answer redis.Error
		if errors.As(err, &answer) && !strings.HasPrefix(err.Error(), "LOADING") {
			return nil
		}
		return err
	})
}

// Run starts the process with these arguments alone.
func (s *Server) Run(args ...string) {
	s.t.Helper()
	s.Cmd = exec.Command(binary(s.t), args...)
	s.Cmd.Stdout, s.Cmd.Stderr = &s.out, &s.out
	if err := s.Cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
}

// Stop kills the process, if there is one.
func (s *Server) Stop() {
	if s.Cmd != nil {
		_ = s.Cmd.Process.Kill()
		_ = s.Cmd.Wait()
		s.Cmd = nil
	}
}

// Do runs a command as somebody who may.
func (s *Server) Do(args ...any) any {
	s.t.Helper()
	v, err := s.Admin.Do(context.Background(), args...).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		s.t.Fatalf("%v: %v", args, err)
	}
	return v
}

// Info returns a field of INFO.
func (s *Server) Info(section, field string) string {
	s.t.Helper()
	for line := range strings.Lines(s.Do("info", section).(string)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), field+":"); ok {
			return v
		}
	}
	s.t.Fatalf("INFO %s has no %s", section, field)
	return ""
}

// StartSentinel starts a Sentinel that follows the server under the name "counters". One is a quorum.
func StartSentinel(t testing.TB, master *Server, more ...string) *Server {
	t.Helper()
	s := New(t)
	host, port, _ := net.SplitHostPort(master.Addr)
	lines := append([]string{
		"port " + s.Port(),
		"bind 127.0.0.1",
		"dir " + s.Dir,
		fmt.Sprintf("sentinel monitor counters %s %s 1", host, port),
		"sentinel down-after-milliseconds counters 1000",
		"sentinel failover-timeout counters 3000",
	}, more...)
	conf := filepath.Join(s.Dir, "sentinel.conf")
	if err := os.WriteFile(conf, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Run(conf, "--sentinel")
	s.Answers()
	return s
}

// StartCluster starts a Cluster of as many primaries.
func StartCluster(t testing.TB, n int) []*Server {
	t.Helper()
	nodes := make([]*Server, n)
	args := []string{"--cluster", "create"}
	for i := range nodes {
		nodes[i] = Start(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
		args = append(args, nodes[i].Addr)
	}
	CLI(t, append(args, "--cluster-replicas", "0", "--cluster-yes")...)
	for _, node := range nodes {
		Eventually(t, "the Cluster is up", func() error {
			if state := node.Info("cluster", "cluster_enabled"); state != "1" {
				return fmt.Errorf("cluster_enabled is %s", state)
			}
			if state := fmt.Sprint(node.Do("cluster", "info")); !strings.Contains(state, "cluster_state:ok") {
				return errors.New(state)
			}
			return nil
		})
	}
	return nodes
}

func CLI(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command("redis-cli", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("redis-cli %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Eventually returns when f does not fail any more.
func Eventually(t testing.TB, what string, f func() error) {
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
