// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"github.com/deltaring/deltaring/internal/ports"
)

// patience bounds every wait for a process or for a condition; a healthy run needs a fraction of it.
const patience = 45 * time.Second

// process is a child of this one. It dies with its parent, whatever ends that.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed after the process has been waited for
	log    string        // file
}

// start runs a command, appends what it writes to a file, and waits until ready returns nil.
func start(ctx context.Context, log string, env []string, ready func() error, name string, args ...string) (*process, error) {
	return startAs(ctx, nil, log, env, ready, name, args...)
}

// startAs is start as somebody else, unless who is nil.
func startAs(ctx context.Context, who *syscall.Credential, log string, env []string, ready func() error, name string, args ...string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close() // the child has its own
	p := &process{cmd: exec.Command(name, args...), exited: make(chan struct{}), log: log}
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
	err = poll(ctx, func() error {
		select {
		case <-p.exited:
			return fatal{fmt.Errorf("%s, see %s", p.cmd.ProcessState, log)}
		default:
			return ready()
		}
	})
	if err != nil {
		p.kill()
		return nil, fmt.Errorf("%s is not ready: %w", name, err)
	}
	return p, nil
}

func (p *process) signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("%s: %v: %w", p.cmd.Args[0], s, err)
	}
	return nil
}

// stop asks the process to end and waits for it.
func (p *process) stop() error { return p.end(syscall.SIGTERM) }

// end is stop with another signal.
func (p *process) end(s syscall.Signal) error {
	if err := p.signal(s); err != nil {
		return err
	}
	select {
	case <-p.exited:
	case <-time.After(patience):
		return fmt.Errorf("%s did not stop within %v, see %s", p.cmd.Args[0], patience, p.log)
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("%s: %v, see %s", p.cmd.Args[0], p.cmd.ProcessState, p.log)
	}
	return nil
}

// kill ends the process at once, as kill -9 does. It may have ended already, or be stopped.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// freePorts returns free loopback ports.
func freePorts(n int) ([]int, error) {
	free := make([]int, n)
	for i := range free {
		var err error
		if free[i], err = ports.Free(); err != nil {
			return nil, err
		}
	}
	return free, nil
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// fatal is an error that no amount of waiting cures.
type fatal struct{ error }

// poll calls condition until it returns nil, and gives its last error when patience runs out.
func poll(ctx context.Context, condition func() error) error {
	deadline := time.After(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := condition()
		if err == nil {
			return nil
		}
		if f, ok := err.(fatal); ok {
			return f.error
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline:
			return fmt.Errorf("not after %v: %w", patience, err)
		}
	}
}

// pause waits, for that is what the scripts of the events are made of.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

var httpClient = &http.Client{Timeout: 30 * time.Second}

func get(url string) ([]byte, error) {
	resp, err := httpClient.Get(url)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %s", url, resp.Status, body)
	}
	return body, err
}

// answers returns a condition: a GET of url is answered with 200.
func answers(url string) func() error {
	return func() error {
		_, err := get(url)
		return err
	}
}
