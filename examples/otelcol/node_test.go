// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
)

// node is a Collector on one storage directory, through the lives of its processes. Each life has ports of its own and
// finds the witness at an address of its own, so that nothing of one life is taken for something of the next.
type node struct {
	collector
	directory string
	args      []string
	wrap      []string // command that runs the Collector, if not empty
	witness   *witness
	backend   http.Handler // the witness, or what hands requests to it
	server    *httptest.Server
	health    string
	lives     int
	dead      string // how the log of the life before ended

	endpoint atomic.Pointer[string] // of the OTLP receiver; nil while there is no process
}

// newNode returns a node without a process. What it had running ends with the test.
func newNode(t *testing.T, w *witness, directory string, args ...string) *node {
	t.Helper()
	n := &node{directory: directory, witness: w, backend: w, args: args}
	t.Cleanup(func() {
		n.kill()
		if t.Failed() && n.child != nil {
			t.Logf("the last of %d lives:\n%s\n\nthe end of the one before:\n%s", n.lives, n.child.log.String(), n.dead)
		}
	})
	return n
}

// launch starts a process and does not wait for anything.
func (n *node) launch(t *testing.T) {
	t.Helper()
	name := binary(t)
	ports := freePorts(t, 4)
	n.server = httptest.NewServer(n.backend)
	n.grpcEndpoint, n.httpEndpoint = loopback(ports[0]), loopback(ports[1])
	n.telemetryURL = fmt.Sprintf("http://%s/metrics", loopback(ports[2]))
	n.health = "http://" + loopback(ports[3])
	env := []string{
		"STATE_DIRECTORY=" + n.directory,
		"OTLP_BACKEND=" + n.server.URL,
		"OTLP_GRPC_ENDPOINT=" + n.grpcEndpoint,
		"OTLP_HTTP_ENDPOINT=" + loopback(ports[1]),
		"TELEMETRY_HOST=127.0.0.1",
		fmt.Sprintf("TELEMETRY_PORT=%d", ports[2]),
		"HEALTH_ENDPOINT=" + loopback(ports[3]),
	}
	command := append(slices.Clone(n.wrap), name)
	if n.child != nil {
		log := n.child.log.String()
		n.dead = log[max(0, len(log)-4000):]
	}
	child, err := launch(env, command[0], append(command[1:], n.args...)...)
	if err != nil {
		n.server.Close()
		t.Fatal(err)
	}
	n.child = child
	n.lives++
	endpoint := n.grpcEndpoint
	n.endpoint.Store(&endpoint)
}

// start starts a process and waits until it takes data.
func (n *node) start(t *testing.T) {
	t.Helper()
	for range 3 {
		n.launch(t)
		err := n.awaitReady(0)
		if err == nil {
			return
		}
		n.kill()
		if !n.lostPort() {
			t.Fatal(err)
		}
	}
	t.Fatal("no free ports")
}

// awaitReady waits until the process says that it takes data, for the first time or after so many reloads. That is in its
// log: at the address for health checks, another process may answer if this one could not have it.
func (n *node) awaitReady(reloads int) error {
	return poll(func() error {
		select {
		case <-n.exited:
			return fatal{fmt.Errorf("exited: %v\n%s", n.cmd.ProcessState, n.log.String())}
		default:
		}
		if strings.Count(n.log.String(), "Everything is ready.") <= reloads {
			return errors.New("not ready")
		}
		_, err := get(n.health)
		return err
	})
}

// refuse starts a process that must end by itself with an error, and returns its log.
func (n *node) refuse(t *testing.T) string {
	t.Helper()
	n.launch(t)
	if err := n.awaitReady(0); err == nil {
		t.Fatalf("the Collector started. Its log:\n%s", n.log.String())
	}
	n.kill()
	if code := n.cmd.ProcessState.ExitCode(); code <= 0 {
		t.Fatalf("the Collector has not ended by itself: %v", n.cmd.ProcessState)
	}
	return n.log.String()
}

// lostPort reports whether the process has ended because another one took a port that was free before.
func (n *node) lostPort() bool { return strings.Contains(n.log.String(), "address already in use") }

// kill ends the process at once, if there is one, as kill -9 does. What it had handed to the kernel for the witness
// before has arrived when kill returns, or never will.
func (n *node) kill() {
	if n.endpoint.Swap(nil) == nil {
		return
	}
	n.child.kill()
	n.server.Close()
}

// killRunning is kill, and an error if the process had ended by itself.
func (n *node) killRunning() error {
	select {
	case <-n.exited:
		if !n.lostPort() {
			return fmt.Errorf("life %d ended by itself: %v\n%s", n.lives, n.cmd.ProcessState, n.log.String())
		}
	default:
	}
	n.kill()
	return nil
}

// stop ends the process as a rolling update does.
func (n *node) stop(t *testing.T) {
	t.Helper()
	n.child.stop(t)
	n.endpoint.Store(nil)
	n.server.Close()
}

// reload has the process read its configuration again and waits until it has.
func (n *node) reload(t *testing.T) {
	t.Helper()
	reloads := strings.Count(n.log.String(), "Everything is ready.")
	if err := n.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if err := n.awaitReady(reloads); err != nil {
		t.Fatal(err)
	}
}

// client returns an OTLP client with a connection of its own, to whatever process the node has.
func (n *node) client(t *testing.T) pmetricotlp.GRPCClient {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///node",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			endpoint := n.endpoint.Load()
			if endpoint == nil {
				return nil, errors.New("no process")
			}
			return new(net.Dialer).DialContext(ctx, "tcp", *endpoint)
		}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 5 * time.Millisecond, Multiplier: 1.5, Jitter: 0.2, MaxDelay: 50 * time.Millisecond},
			MinConnectTimeout: time.Second,
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return pmetricotlp.NewGRPCClient(conn)
}
