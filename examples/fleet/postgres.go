// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/deltaring/deltaring/internal/ports"
)

// postgres is a server of Debian's. It finds its data again when it is stopped and started.
type postgres struct {
	*process
	programs  string              // directory
	who       *syscall.Credential // whom the server runs as: it refuses to be root. Nil if we are not
	dir, data string
	port      int
}

func startPostgres(ctx context.Context, dir string, _ int) (_ store, err error) {
	p := &postgres{dir: dir}
	if p.programs, err = postgresPrograms(); err != nil {
		return nil, err
	}
	if p.who, err = postgresUser(); err != nil {
		return nil, err
	}
	if p.port, err = ports.Free(); err != nil {
		return nil, err
	}
	// Not in dir: what that is in may be for us alone.
	if p.data, err = os.MkdirTemp("", "fleet-postgres-"); err != nil {
		return nil, err
	}
	if p.who != nil {
		if err := os.Chown(p.data, int(p.who.Uid), int(p.who.Gid)); err != nil {
			return p, err
		}
	}
	cmd := exec.CommandContext(ctx, filepath.Join(p.programs, "initdb"), "-D", p.data, "-U", "postgres", "-A", "trust", "--no-sync",
		"--locale=C.UTF-8", "-E", "UTF8")
	cmd.Dir, cmd.SysProcAttr = p.data, &syscall.SysProcAttr{Credential: p.who}
	if out, err := cmd.CombinedOutput(); err != nil {
		return p, fmt.Errorf("%v: %w\n%s", cmd, err, out)
	}
	return p, p.launch(ctx)
}

// postgresPrograms is the directory of the newest version that is installed. Debian has them on no path.
func postgresPrograms() (string, error) {
	version := func(path string) int {
		n, _ := strconv.Atoi(strings.Split(path, "/")[4])
		return n
	}
	if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres"); len(found) > 0 {
		return filepath.Dir(slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) })), nil
	}
	path, err := exec.LookPath("postgres")
	if err != nil {
		return "", fmt.Errorf("the PostgreSQL server (Debian: apt-get install postgresql): %w", err)
	}
	return filepath.Dir(path), nil
}

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

// environment is what postgres.yaml needs.
func (p *postgres) environment() []string {
	return []string{"STATE_GROUPS=64", "POSTGRES_ENDPOINT=" + loopback(p.port)}
}

func (p *postgres) launch(ctx context.Context) (err error) {
	p.process, err = startAs(ctx, p.who, filepath.Join(p.dir, "postgres.log"), nil, func() error { return p.do(ctx, "SELECT 1") },
		filepath.Join(p.programs, "postgres"), "-D", p.data, "-h", "127.0.0.1", "-p", strconv.Itoa(p.port), "-k", "", "-c", "logging_collector=off")
	return err
}

// stop is what PostgreSQL calls fast: SIGTERM would wait until workers hang up, which they do not.
func (p *postgres) stop() error { return p.end(syscall.SIGINT) }

// signal signals every process: one of them takes connections, and each of those has one of its own. The first of them must not
// be left to make more while the others are stopped.
func (p *postgres) signal(s syscall.Signal) error {
	if err := p.process.signal(s); err != nil {
		return err
	}
	for _, pid := range p.children() {
		if err := syscall.Kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("a process of postgres: %v: %w", s, err)
		}
	}
	return nil
}

func (p *postgres) children() (pids []int) {
	pid := strconv.Itoa(p.cmd.Process.Pid)
	text, _ := os.ReadFile(filepath.Join("/proc", pid, "task", pid, "children"))
	for field := range strings.FieldsSeq(string(text)) {
		if n, err := strconv.Atoi(field); err == nil {
			pids = append(pids, n)
		}
	}
	return pids
}

func (p *postgres) wipe(ctx context.Context) error {
	return p.do(ctx, "TRUNCATE d2c.entries, d2c.logs")
}

// do runs SQL.
func (p *postgres) do(ctx context.Context, sql string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(p.programs, "psql"), "-X", "-q", "-h", "127.0.0.1", "-p", strconv.Itoa(p.port),
		"-U", "postgres", "-d", "postgres", "-v", "ON_ERROR_STOP=1", "-c", sql)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("psql: %s: %w: %s", sql, err, strings.TrimSpace(string(out)))
	}
	return nil
}

func (p *postgres) kill() {
	if p.process != nil {
		children := p.children() // which may be stopped
		p.process.kill()
		for _, pid := range children {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	_ = os.RemoveAll(p.data)
}
