// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/deltaring/deltaring/internal/ports"
)

// servers start what workers keep their state in, in a directory of its own, and return what workers have in their environment.
var servers = map[string]func(ctx context.Context, dir string) (p *process, env []string, err error){
	"redis": func(ctx context.Context, dir string) (*process, []string, error) { return startRedis(ctx, dir) },
	"redis-tuned": func(ctx context.Context, dir string) (*process, []string, error) {
		// As the manifests of examples/otelcol have it, for logs of many series.
		return startRedis(ctx, dir, "--auto-aof-rewrite-percentage", "300", "--rdbcompression", "no")
	},
	"postgres": startPostgres,
	"s3":       startS3,
}

// startRedis starts Redis as examples/otelcol/shared.yaml wants it: what it has acknowledged survives the process.
func startRedis(ctx context.Context, dir string, more ...string) (*process, []string, error) {
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, nil, fmt.Errorf("the Redis server (Debian: apt-get install redis-server): %w", err)
	}
	port, err := ports.Free()
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
	args := append([]string{"--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--dir", dir,
		"--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--maxmemory-policy", "noeviction"}, more...)
	p, err := start(ctx, "redis", filepath.Join(dir, "log"), nil, ready, binary, args...)
	return p, []string{"REDIS=" + loopback(port)}, err
}

// startPostgres starts PostgreSQL as Debian has it, and as it is by default: what it has acknowledged is on disk.
func startPostgres(ctx context.Context, dir string) (*process, []string, error) {
	servers, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(servers) == 0 {
		return nil, nil, errors.New("the PostgreSQL server is not there (Debian: apt-get install postgresql)")
	}
	binary := slices.Max(servers)
	who, err := postgresUser()
	if err != nil {
		return nil, nil, err
	}
	port, err := ports.Free()
	if err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, nil, err
	}
	// Not in dir: what that is in may be for us alone.
	data, err := os.MkdirTemp("", "pipeline-postgres-")
	if err != nil {
		return nil, nil, err
	}
	if who != nil {
		if err := os.Chown(data, int(who.Uid), int(who.Gid)); err != nil {
			return nil, nil, err
		}
	}
	bin := filepath.Dir(binary)
	initdb := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8")
	initdb.Dir, initdb.SysProcAttr = data, &syscall.SysProcAttr{Credential: who}
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, nil, fmt.Errorf("%v: %w\n%s", initdb, err, out)
	}
	ready := func() error {
		out, err := exec.CommandContext(ctx, filepath.Join(bin, "pg_isready"), "-q", "-h", "127.0.0.1", "-p", strconv.Itoa(port)).CombinedOutput()
		if err != nil {
			return fmt.Errorf("pg_isready: %w %s", err, out)
		}
		return nil
	}
	p, err := startAs(ctx, who, "postgres", filepath.Join(dir, "log"), nil, ready, binary, "-D", data, "-h", "127.0.0.1", "-p", strconv.Itoa(port), "-k", "")
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(data))
	}
	p.remove = data
	return p, []string{"POSTGRES=" + loopback(port)}, nil
}

// postgresUser is whom PostgreSQL runs as, which refuses to be root; nil if we are not.
func postgresUser() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("as root, a user for PostgreSQL (Debian: apt-get install postgresql): %w", err)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(err1, err2)
}

// startS3 starts versitygw, an S3 server that keeps objects in files.
func startS3(ctx context.Context, dir string) (*process, []string, error) {
	binary, err := tool("VERSITYGW")
	if err != nil {
		return nil, nil, err
	}
	port, err := ports.Free()
	if err != nil {
		return nil, nil, err
	}
	objects, accounts := filepath.Join(dir, "objects"), filepath.Join(dir, "accounts")
	for _, folder := range []string{filepath.Join(objects, "state"), accounts} { // a folder is a bucket
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return nil, nil, err
		}
	}
	ready := func() error {
		conn, err := net.DialTimeout("tcp", loopback(port), time.Second)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	p, err := start(ctx, "versitygw", filepath.Join(dir, "log"), nil, ready, binary, "--port", loopback(port), "--access", "pipeline",
		"--secret", "pipeline-secret", "--region", "us-east-1", "--iam-dir", accounts, "--quiet", "posix", objects)
	return p, []string{"S3=http://" + loopback(port), "S3_ACCESS_KEY=pipeline", "S3_SECRET_KEY=pipeline-secret"}, err
}

// tool finds what "make tools" builds, by the variable that names it in the Makefile.
func tool(variable string) (string, error) {
	const repository = "../../.."
	makefile, err := os.ReadFile(filepath.Join(repository, "Makefile"))
	if err != nil {
		return "", err
	}
	named := regexp.MustCompile(`(?m)^` + variable + `\s*:=\s*(\S+)$`).FindSubmatch(makefile)
	if named == nil {
		return "", fmt.Errorf("the Makefile has no %s", variable)
	}
	path, err := filepath.Abs(filepath.Join(repository, string(named[1])))
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("run \"make tools\" at the top of the repository; it takes minutes, once: %w", err)
	}
	return path, nil
}
