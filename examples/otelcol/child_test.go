// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/deltaring/deltaring/internal/ports"
)

// patience bounds every wait for a condition; a healthy run needs a fraction of it.
const patience = 30 * time.Second

// child is a process of the test. It is gone when the test ends, and its log is shown if the test failed.
type child struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed after the process has been waited for
	log    lockedBuffer
}

// launch runs the command. Whoever launches it sees to its end.
func launch(env []string, name string, args ...string) (*child, error) {
	c := &child{cmd: exec.Command(name, args...), exited: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), env...)
	c.cmd.Stdout, c.cmd.Stderr = &c.log, &c.log
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = c.cmd.Wait() // the state is read from cmd.ProcessState
		close(c.exited)
	}()
	return c, nil
}

// start runs the command and waits until ready answers 200.
func start(t *testing.T, ready string, env []string, name string, args ...string) (*child, error) {
	t.Helper()
	c, err := launch(env, name, args...)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		c.kill()
		if t.Failed() {
			t.Logf("log of %s:\n%s", c.cmd.Args[0], c.log.String())
		}
	})
	if err := c.awaitReady(ready); err != nil {
		c.kill()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

// awaitReady waits until ready answers 200.
func (c *child) awaitReady(ready string) error {
	return poll(func() error {
		select {
		case <-c.exited:
			return fatal{fmt.Errorf("exited before it was ready: %v\n%s", c.cmd.ProcessState, c.log.String())}
		default:
		}
		_, err := get(ready)
		return err
	})
}

// startOnFreePorts calls launch with n free ports, and again with others should one have been taken meanwhile.
func startOnFreePorts(t *testing.T, n int, launch func(ports []int) (*child, error)) *child {
	t.Helper()
	for attempt := 1; ; attempt++ {
		c, err := launch(freePorts(t, n))
		if err == nil {
			return c
		}
		if attempt == 3 || !strings.Contains(err.Error(), "address already in use") {
			t.Fatal(err)
		}
	}
}

// stop asks the process to end and waits for it.
func (c *child) stop(t *testing.T) {
	t.Helper()
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-c.exited:
	case <-time.After(patience):
		t.Fatalf("%s did not stop", c.cmd.Args[0])
	}
	if code := c.cmd.ProcessState.ExitCode(); code != 0 {
		t.Fatalf("%s: exit status %d", c.cmd.Args[0], code)
	}
}

func (c *child) kill() {
	_ = c.cmd.Process.Kill() // fails if it has ended already
	<-c.exited
}

// freePorts returns free loopback ports.
func freePorts(t *testing.T, n int) []int {
	t.Helper()
	free := make([]int, n)
	for i := range free {
		var err error
		if free[i], err = ports.Free(); err != nil {
			t.Fatal(err)
		}
	}
	return free
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// fatal is an error that no amount of waiting cures.
type fatal struct{ error }

// poll calls condition until it returns nil, and gives its last error when patience runs out.
func poll(condition func() error) error {
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
		case <-deadline:
			return fmt.Errorf("not after %v: %w", patience, err)
		}
	}
}

var httpClient = &http.Client{Timeout: 10 * time.Second}

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

// lockedBuffer collects the output of a process while tests read it.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
