// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

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
	"syscall"
	"time"
)

// patience bounds every wait for a process or for a request; a healthy run needs a fraction of it.
const patience = time.Minute

// process is a child of this one. It dies with its parent, whatever ends that.
type process struct {
	name   string
	cmd    *exec.Cmd
	exited chan struct{} // closed after the process has been waited for
	log    string        // file
	remove string        // a directory of its own, if that is not one of ours
}

// start runs a command, writes what it says to a file, and waits until ready returns nil.
func start(ctx context.Context, name, log string, env []string, ready func() error, binary string, args ...string) (*process, error) {
	return startAs(ctx, nil, name, log, env, ready, binary, args...)
}

// startAs is start as another user, unless that is nil.
func startAs(ctx context.Context, who *syscall.Credential, name, log string, env []string, ready func() error, binary string, args ...string) (*process, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer out.Close() // the child has its own
	p := &process{name: name, cmd: exec.Command(binary, args...), exited: make(chan struct{}), log: log}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Credential: who}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait() // the state is read from cmd.ProcessState
		close(p.exited)
	}()
	if err := p.await(ctx, ready); err != nil {
		p.kill()
		said, _ := os.ReadFile(log)
		return nil, fmt.Errorf("%s is not ready: %w\n%s", name, err, tail(said, 2000))
	}
	return p, nil
}

func (p *process) await(ctx context.Context, ready func() error) error {
	deadline := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.exited:
			return errors.New(p.cmd.ProcessState.String())
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline:
			return fmt.Errorf("not after %v: %w", patience, err)
		}
	}
}

func tail(text []byte, n int) []byte { return text[max(0, len(text)-n):] }

// kill ends the process at once. It may have ended already.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited
	if p.remove != "" {
		_ = os.RemoveAll(p.remove)
	}
}

// stop asks the process to end, and waits for it.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	select {
	case <-p.exited:
	case <-time.After(patience):
		p.kill()
		return fmt.Errorf("%s did not stop within %v, see %s", p.name, patience, p.log)
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("%s: %v, see %s", p.name, p.cmd.ProcessState, p.log)
	}
	return nil
}

// usage is what a process and its children have used so far, and have now.
type usage struct {
	CPU      time.Duration
	Resident int64 // bytes
}

// tick is the unit in which the kernel gives CPU time: USER_HZ, 100 on all architectures that Go has.
const tick = 10 * time.Millisecond

// usage reads it from /proc. Children count too: a server may fork, to save or for every client.
func (p *process) usage() (usage, error) { return usageOf(p.cmd.Process.Pid) }

func usageOf(pid int) (usage, error) {
	var u usage
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return u, err
	}
	// What is before the last parenthesis is the number and the name, which may hold anything.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 22 {
		return u, fmt.Errorf("%s/stat: only %d fields", dir, len(fields))
	}
	number := func(field int) (n int64) {
		if n, err = strconv.ParseInt(fields[field-3], 10, 64); err != nil {
			err = fmt.Errorf("%s/stat: field %d: %w", dir, field, err)
		}
		return n
	}
	for field := 14; field <= 17 && err == nil; field++ { // user, system, and those of children that have ended
		u.CPU += time.Duration(number(field)) * tick
	}
	if err == nil {
		u.Resident = number(24) * int64(os.Getpagesize())
	}
	if err != nil {
		return u, err
	}
	threads, err := filepath.Glob(filepath.Join(dir, "task", "*", "children"))
	if err != nil {
		return u, err
	}
	for _, file := range threads {
		children, _ := os.ReadFile(file) // the thread may have ended
		for _, child := range strings.Fields(string(children)) {
			id, err := strconv.Atoi(child)
			if err != nil {
				return u, fmt.Errorf("%s: %w", file, err)
			}
			if c, err := usageOf(id); err == nil { // or it has ended, and counts above
				u.CPU += c.CPU
				u.Resident += c.Resident
			}
		}
	}
	return u, nil
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
