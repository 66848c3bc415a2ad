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
	"time"
)

// servers start what workers keep their state in, in a directory of its own, and return what workers have in their environment.
var servers = map[string]func(ctx context.Context, dir string) (p *process, env []string, err error){
	"redis": startRedis,
}

// startRedis starts Redis as examples/otelcol/shared.yaml wants it: what it has acknowledged survives the process.
func startRedis(ctx context.Context, dir string) (*process, []string, error) {
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, nil, fmt.Errorf("the Redis server (Debian: apt-get install redis-server): %w", err)
	}
	port, err := freePort()
	if err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, nil, err
	}
	ready := func() error {
		conn, err := net.DialTimeout("tcp", loopback(port), time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
			return err
		}
		if _, err := fmt.Fprint(conn, "PING\r\n"); err != nil {
			return err
		}
		reply, err := bufio.NewReader(conn).ReadString('\n')
		if err == nil && !strings.HasPrefix(reply, "+PONG") {
			err = fmt.Errorf("PING: %s", strings.TrimSpace(reply))
		}
		return err
	}
	p, err := start(ctx, "redis", filepath.Join(dir, "log"), nil, ready, binary, "--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--dir", dir,
		"--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--maxmemory-policy", "noeviction")
	return p, []string{"REDIS=" + loopback(port)}, err
}
