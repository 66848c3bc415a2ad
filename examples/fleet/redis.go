// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/deltaring/deltaring/internal/ports"
)

// redis is one server, or the nodes of a Redis Cluster. It finds its data again when it is stopped and started.
type redis struct {
	binary string
	nodes  []*redisNode
}

type redisNode struct {
	*process
	dir  string
	port int
	args []string
}

func startRedis(ctx context.Context, dir string, nodes int) (*redis, error) {
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, fmt.Errorf("the Redis server (Debian: apt-get install redis-server): %w", err)
	}
	r := &redis{binary: binary}
	for i := range nodes {
		n := &redisNode{dir: filepath.Join(dir, fmt.Sprintf("redis-%d", i))}
		if err := os.Mkdir(n.dir, 0o755); err != nil {
			return r, err
		}
		if n.port, err = ports.Free(); err != nil {
			return r, err
		}
		n.args = []string{"--bind", "127.0.0.1", "--port", strconv.Itoa(n.port), "--dir", n.dir,
			"--appendonly", "yes", "--appendfsync", "everysec", "--save", ""}
		if nodes > 1 {
			bus, err := ports.Free()
			if err != nil {
				return r, err
			}
			n.args = append(n.args, "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(bus))
		}
		r.nodes = append(r.nodes, n)
	}
	if err := r.launch(ctx); err != nil || nodes == 1 {
		return r, err
	}
	return r, r.cluster(ctx)
}

// cluster divides the slots among the nodes.
func (r *redis) cluster(ctx context.Context) error {
	args := []string{"--cluster", "create"}
	for _, n := range r.nodes {
		args = append(args, loopback(n.port))
	}
	out, err := exec.CommandContext(ctx, "redis-cli", append(args, "--cluster-yes")...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("redis-cli %v: %w\n%s", args, err, out)
	}
	return poll(ctx, func() error {
		for _, n := range r.nodes {
			// Nobody owns the slots for a moment.
			if err := n.do("SET fleet ready", "+OK", "-MOVED"); err != nil {
				return err
			}
		}
		return nil
	})
}

// startRedisStore starts Redis for a fleet.
func startRedisStore(ctx context.Context, dir string, servers int) (store, error) {
	r, err := startRedis(ctx, dir, servers)
	if r == nil {
		return nil, err
	}
	return r, err
}

// environment is what redis.yaml and redis-log.yaml need.
func (r *redis) environment() []string {
	mode, addresses := "standalone", []string{}
	if len(r.nodes) > 1 {
		mode = "cluster"
	}
	for _, n := range r.nodes {
		addresses = append(addresses, loopback(n.port))
	}
	return []string{"STATE_GROUPS=64", "REDIS_MODE=" + mode, "REDIS_ENDPOINTS=[" + strings.Join(addresses, ", ") + "]"}
}

// launch starts all nodes, with the data that are there.
func (r *redis) launch(ctx context.Context) (err error) {
	for _, n := range r.nodes {
		ready := func() error { return n.do("PING", "+PONG") }
		if n.process, err = start(ctx, filepath.Join(n.dir, "log"), nil, ready, r.binary, n.args...); err != nil {
			return err
		}
	}
	return nil
}

func (r *redis) stop() error {
	return r.each(func(n *redisNode) error { return n.stop() })
}

func (r *redis) signal(s syscall.Signal) error {
	return r.each(func(n *redisNode) error { return n.signal(s) })
}

func (r *redis) wipe(context.Context) error {
	return r.each(func(n *redisNode) error { return n.do("FLUSHALL", "+OK") })
}

func (r *redis) each(f func(*redisNode) error) error {
	for _, n := range r.nodes {
		if err := f(n); err != nil {
			return err
		}
	}
	return nil
}

func (r *redis) kill() {
	for _, n := range r.nodes {
		if n.process != nil {
			n.kill()
		}
	}
}

// do runs a command, which must be answered with one of these.
func (n *redisNode) do(command string, answers ...string) error {
	conn, err := net.DialTimeout("tcp", loopback(n.port), time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(conn, "%s\r\n", command); err != nil {
		return err
	}
	reply, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	for _, answer := range answers {
		if strings.HasPrefix(reply, answer) {
			return nil
		}
	}
	return fmt.Errorf("redis: %s: %s", command, strings.TrimSpace(reply))
}
