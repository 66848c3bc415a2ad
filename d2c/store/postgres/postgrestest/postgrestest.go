// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package postgrestest starts real servers for tests: one, with a standby, and with somebody in front who loses answers.
package postgrestest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/deltaring/deltaring/internal/ports"
)

// Superuser is who may do everything, and Database where tests work. Whoever comes from this machine is who he says he is, until a
// test writes another pg_hba.conf.
const (
	Superuser = "postgres"
	Database  = "postgres"
)

// Server is a server of the test that started it.
type Server struct {
	// Addr is its address, Dir where it keeps its data.
	Addr, Dir string

	t    testing.TB
	who  *syscall.Credential
	cmd  *exec.Cmd
	out  output
	conn *pgx.Conn
}

// Start makes a server with these settings, as "max_connections=10", starts it, and waits until it answers.
func Start(t testing.TB, settings ...string) *Server {
	t.Helper()
	s := create(t)
	s.run("initdb", "-D", s.Dir, "-U", Superuser, "-A", "trust", "--no-sync", "--locale=C.UTF-8", "-E", "UTF8")
	s.Set(settings...)
	s.Start()
	return s
}

func create(t testing.TB) *Server {
	t.Helper()
	dir := t.TempDir()
	s := &Server{Addr: freeAddress(t), Dir: filepath.Join(dir, "data"), t: t, who: notRoot(t)}
	if err := os.Mkdir(s.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if s.who != nil {
		// What the test's directories are in is for us alone, and another must get through.
		if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o711), os.Chmod(dir, 0o711)); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(s.Dir, int(s.who.Uid), int(s.who.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		s.Kill()
		if t.Failed() {
			t.Logf("postgres at %s:\n%s", s.Addr, s.out.tail())
		}
	})
	return s
}

// notRoot returns whom a server runs as: PostgreSQL refuses to be root. Nil if we are not.
func notRoot(t testing.TB) *syscall.Credential {
	t.Helper()
	if os.Getuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Fatalf("as root these tests need a user for the server: apt-get install postgresql: %v", err)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// command is a program of PostgreSQL. Debian has them on no path, by version.
func (s *Server) command(program string, args ...string) *exec.Cmd {
	s.t.Helper()
	path, err := exec.LookPath(program)
	if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + program); len(found) > 0 {
		path, err = slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) }), nil
	}
	if err != nil {
		s.t.Fatal("these tests need a real server: apt-get install postgresql")
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = filepath.Dir(s.Dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.who}
	return cmd
}

func version(path string) int {
	n, _ := strconv.Atoi(strings.Split(path, "/")[4])
	return n
}

func (s *Server) run(program string, args ...string) {
	s.t.Helper()
	if out, err := s.command(program, args...).CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %v\n%s", program, err, out)
	}
}

// Set sets settings for the next Start.
func (s *Server) Set(settings ...string) {
	s.t.Helper()
	s.append("postgresql.conf", settings...)
}

// Admit replaces the rules of who may connect, and how. Start or Reload has them read.
func (s *Server) Admit(rules ...string) {
	s.t.Helper()
	s.write("pg_hba.conf", []byte(strings.Join(rules, "\n")+"\n"))
}

// Write writes a file where the server finds it, readable for nobody else.
func (s *Server) Write(name string, content []byte) {
	s.t.Helper()
	s.write(name, content)
}

func (s *Server) write(name string, content []byte) {
	s.t.Helper()
	path := filepath.Join(s.Dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		s.t.Fatal(err)
	}
	if s.who != nil {
		if err := os.Chown(path, int(s.who.Uid), int(s.who.Gid)); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *Server) append(name string, lines ...string) {
	s.t.Helper()
	old, err := os.ReadFile(filepath.Join(s.Dir, name))
	if err != nil {
		s.t.Fatal(err)
	}
	s.write(name, append(old, strings.Join(lines, "\n")+"\n"...))
}

// Start starts the server and waits until it takes connections.
func (s *Server) Start() {
	s.t.Helper()
	host, port, _ := net.SplitHostPort(s.Addr)
	// A server that was killed leaves others of its kind behind for a moment, and the next does not start beside them.
	Eventually(s.t, "postgres answers", func() error {
		if s.cmd == nil {
			s.cmd = s.command("postgres", "-D", s.Dir, "-h", host, "-p", port, "-k", "", "-c", "logging_collector=off",
				"-c", "log_min_error_statement=panic")
			s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
			if err := s.cmd.Start(); err != nil {
				s.t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		conn, err := s.connect(ctx)
		if err != nil {
			var answer *pgconn.PgError
			if !errors.As(err, &answer) && s.exited() {
				s.Kill()
			}
			return err
		}
		s.conn = conn
		return nil
	})
}

func (s *Server) exited() bool {
	var status syscall.WaitStatus
	pid, err := syscall.Wait4(s.cmd.Process.Pid, &status, syscall.WNOHANG, nil)
	return err != nil || pid != 0
}

func (s *Server) connect(ctx context.Context) (*pgx.Conn, error) {
	return pgx.Connect(ctx, fmt.Sprintf("postgres://%s@%s/%s?sslmode=prefer", Superuser, s.Addr, Database))
}

// Kill ends the server as a loss of power does, if it runs.
func (s *Server) Kill() { s.end(syscall.SIGKILL) }

// Crash kills the server as Kill does, from another goroutine than that of the test, which then calls Kill.
func (s *Server) Crash() { _ = s.cmd.Process.Kill() }

// Stop ends the server in order: whoever is connected is told.
func (s *Server) Stop() { s.end(syscall.SIGINT) }

func (s *Server) end(sig syscall.Signal) {
	if s.conn != nil {
		_ = s.conn.Close(context.Background())
		s.conn = nil
	}
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(sig)
	_ = s.cmd.Wait()
	s.cmd = nil
}

// Reload has the server read its settings and rules again.
func (s *Server) Reload() {
	s.t.Helper()
	s.Exec("SELECT pg_reload_conf()")
}

// Exec runs SQL, several statements too, as somebody who may.
func (s *Server) Exec(sql string) {
	s.t.Helper()
	if _, err := s.conn.PgConn().Exec(context.Background(), sql).ReadAll(); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
}

// Number returns the one number that a query has for an answer.
func (s *Server) Number(sql string, args ...any) int64 {
	s.t.Helper()
	var n int64
	if err := s.conn.QueryRow(context.Background(), sql, args...).Scan(&n); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
	return n
}

// Standby starts a server that follows this one, with these settings besides.
func (s *Server) Standby(settings ...string) *Server {
	s.t.Helper()
	standby := create(s.t)
	host, port, _ := net.SplitHostPort(s.Addr)
	s.run("pg_basebackup", "-D", standby.Dir, "-h", host, "-p", port, "-U", Superuser, "-R", "-X", "stream", "-c", "fast", "--no-sync")
	standby.Set(settings...)
	standby.Start()
	return standby
}

// Follows waits until a standby has all that the primary has now.
func (s *Server) Follows(primary *Server) {
	s.t.Helper()
	var at string
	if err := primary.conn.QueryRow(context.Background(), "SELECT pg_current_wal_insert_lsn()::text").Scan(&at); err != nil {
		s.t.Fatal(err)
	}
	Eventually(s.t, "the standby follows", func() error {
		if behind := s.Number("SELECT coalesce(pg_wal_lsn_diff($1::pg_lsn, pg_last_wal_replay_lsn()), 1)::bigint", at); behind > 0 {
			return fmt.Errorf("it is %d bytes behind", behind)
		}
		return nil
	})
}

// Promote makes a standby the server that takes writes.
func (s *Server) Promote() {
	s.t.Helper()
	s.Exec("SELECT pg_promote()")
}

// Process is what the server runs as, nil if it does not.
func (s *Server) Process() *os.Process {
	if s.cmd == nil {
		return nil
	}
	return s.cmd.Process
}

// ProcessorTime is what the server has used so far, with its processes that have ended.
func (s *Server) ProcessorTime() time.Duration {
	s.t.Helper()
	ticks := 0
	add := func(pid string, fields ...int) {
		stat, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
		if err != nil {
			return // ended meanwhile
		}
		values := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+2:]))
		for _, f := range fields {
			n, err := strconv.Atoi(values[f])
			if err != nil {
				s.t.Fatal(err)
			}
			ticks += n
		}
	}
	const user, system, childrenUser, childrenSystem = 11, 12, 13, 14
	pid := strconv.Itoa(s.cmd.Process.Pid)
	add(pid, user, system, childrenUser, childrenSystem)
	children, err := os.ReadFile(filepath.Join("/proc", pid, "task", pid, "children"))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, child := range strings.Fields(string(children)) {
		add(child, user, system)
	}
	return time.Duration(ticks) * time.Second / 100
}

func freeAddress(t testing.TB) string {
	t.Helper()
	port, err := ports.Free()
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

// Eventually returns when f does not fail any more.
func Eventually(t testing.TB, what string, f func() error) {
	t.Helper()
	const patience, interval = 60 * time.Second, 20 * time.Millisecond
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(interval) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("after %v it still is not so that %s: %v", patience, what, err)
}

// output is what a server says.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func (o *output) tail() string {
	const most = 8 << 10
	s := o.String()
	return s[max(0, len(s)-most):]
}

// Log is what the server has said so far.
func (s *Server) Log() string { return s.out.String() }
