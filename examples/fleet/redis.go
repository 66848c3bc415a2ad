// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// redis is a running Redis that finds its data again when it is stopped and started.
type redis struct {
	*process
	binary, dir string
	port        int
}

func startRedis(ctx context.Context, dir string) (*redis, error) {
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, fmt.Errorf("the Redis server (Debian: apt-get install redis-server): %w", err)
	}
	r := &redis{binary: binary, dir: dir}
	if r.port, err = freePort(); err != nil {
		return nil, err
	}
	return r, r.launch(ctx)
}

func (r *redis) address() string { return loopback(r.port) }

// launch starts Redis, with the data that are there.
func (r *redis) launch(ctx context.Context) (err error) {
	ready := func() error { return r.do("PING") }
	r.process, err = start(ctx, filepath.Join(r.dir, "redis.log"), nil, ready, r.binary,
		"--bind", "127.0.0.1", "--port", strconv.Itoa(r.port), "--dir", r.dir,
		"--appendonly", "yes", "--appendfsync", "everysec", "--save", "")
	return err
}

// do runs a command without arguments.
func (r *redis) do(command string) error {
	conn, err := net.DialTimeout("tcp", r.address(), time.Second)
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
	if err == nil && !strings.HasPrefix(reply, "+") {
		err = fmt.Errorf("redis: %s: %s", command, strings.TrimSpace(reply))
	}
	return err
}
