// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestOneTier runs two shared.yaml under producers that send each batch to the other one of them than the batch before,
// until it is acknowledged. One is killed and comes back, then the other; Redis is killed and comes back. With every
// acknowledgement the backend must have the exact total at the exact time, and each series has one start over the whole run.
func TestOneTier(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	w := newWitness("")
	one, two := newWorker(t, w, redis), newWorker(t, w, redis)
	one.start(t)
	two.start(t)
	f := startSharedFleet(t, one, two)
	f.awaitRounds(t)
	if err := one.killRunning(); err != nil {
		t.Fatal(err)
	}
	f.awaitRounds(t)
	one.start(t)
	f.awaitRounds(t)
	if err := two.killRunning(); err != nil {
		t.Fatal(err)
	}
	f.awaitRounds(t)
	two.start(t)
	f.awaitRounds(t)
	redis.kill()
	redis.restart(t)
	f.awaitRounds(t)
	f.stop(t)
	f.finish(t)
	t.Log(f.summary())

	for _, n := range []*node{one, two} {
		m, err := scrape(n.telemetryURL)
		if err != nil {
			t.Fatal(err)
		}
		for metric, want := range map[string]bool{
			`otelcol_d2c_restarts`:       false,
			`otelcol_d2c_points_refused`: m.sum("otelcol_redis_state_errors") > 0,
		} {
			if got := m.sum(metric) > 0; got != want {
				t.Errorf("%s is %v", metric, m.sum(metric))
			}
		}
		for outcome, want := range map[string]bool{"aligned": true, "dropped": false, "restart": false} {
			if n := m.sum("otelcol_d2c_points", `outcome="`+outcome); (n > 0) != want {
				t.Errorf("otelcol_d2c_points{outcome=~%q} is %v", outcome+".*", n)
			}
		}
		if m.sum("otelcol_redis_state_records", `outcome="conflict"`) == 0 {
			t.Error("no conflicts: the batches have not alternated")
		}
		n.stop(t)
	}
}

// TestTwoTiersShared runs gateway.yaml with gateway-shared.yaml in front of three shared.yaml, and kills one of them: its
// streams go on elsewhere, under their starts. So they do when the gateway is killed, and the store.
func TestTwoTiersShared(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name            string
		worker, gateway []string // configurations over these
		start           func(t *testing.T) store
	}{
		{"records", nil, nil, func(t *testing.T) store { return startRedis(t) }},
		{"log", []string{"shared-log.yaml"}, []string{"gateway-log.yaml"}, func(t *testing.T) store { return startRedis(t) }},
		{"postgres", []string{"postgres.yaml"}, []string{"gateway-log.yaml"}, startPostgres},
		{"s3", []string{"s3.yaml"}, []string{"gateway-s3.yaml"}, startS3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			runTwoTiersShared(t, tc.start(t), tc.worker, tc.gateway)
		})
	}
}

func runTwoTiersShared(t *testing.T, store store, worker, gatewayToo []string) {
	t.Helper()
	w := newWitness("")
	names := newNameServer(t)
	workers, nodes := map[string]*collector{}, map[string]*node{}
	for _, name := range []string{"worker-0", "worker-1", "worker-2"} {
		nodes[name] = newWorker(t, w, store, worker...)
		nodes[name].start(t)
		workers[name] = &nodes[name].collector
	}
	names.set(workers)
	gateway := newNode(t, w, "", configs("gateway.yaml", append([]string{"gateway-shared.yaml"}, gatewayToo...)...)...)
	gateway.wrap = []string{"env", "WORKERS_SRV=" + workersService, "DNS_SERVER=" + names.address, "DNS_INTERVAL=100ms", "DNS_DEBOUNCE=0s"}
	gateway.start(t)
	awaitTelemetry(t, &gateway.collector, 3, "otelcol_ring_members")

	f := startSharedFleet(t, gateway)
	f.awaitRounds(t)
	const killed = "worker-1"
	if err := nodes[killed].killRunning(); err != nil {
		t.Fatal(err)
	}
	delete(workers, killed)
	names.set(workers)
	f.awaitRounds(t)
	if err := gateway.killRunning(); err != nil {
		t.Fatal(err)
	}
	gateway.start(t)
	f.awaitRounds(t)
	store.kill()
	store.restart(t)
	f.awaitRounds(t)
	f.stop(t)
	f.finish(t)
	t.Log(f.summary())
	awaitTelemetry(t, &gateway.collector, 2, "otelcol_ring_members")
	for name := range workers {
		awaitTelemetry(t, workers[name], 0, "otelcol_d2c_restarts")
	}
}

// newWorker returns a node with shared.yaml, and more merged over it, of the fleet that has its state in that store.
func newWorker(t *testing.T, w *witness, store store, more ...string) *node {
	t.Helper()
	n := newNode(t, w, "", configs("shared.yaml", more...)...)
	n.wrap = append([]string{"env"}, store.environment()...)
	return n
}

// configs are the arguments for configurations that are merged over the first.
func configs(first string, more ...string) []string {
	args := []string{"--config", first}
	for _, file := range more {
		args = append(args, "--config", file)
	}
	return args
}

// startSharedFleet has three senders at work that take the nodes by turns.
func startSharedFleet(t *testing.T, nodes ...*node) *fleet {
	t.Helper()
	// A new store counts from a second after its first worker has started.
	time.Sleep(1100 * time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	f := &fleet{node: nodes[0], halt: make(chan struct{}), ctx: ctx}
	for i := range 3 {
		s := newSender(t, nodes[0], fmt.Sprintf("producer-%d", i), 0, 20)
		r := &roundRobin{}
		for _, n := range nodes {
			r.clients = append(r.clients, n.client(t))
		}
		r.GRPCClient = r.clients[0]
		s.lanes = []pmetricotlp.GRPCClient{r}
		f.senders = append(f.senders, s)
		f.wg.Go(func() {
			if err := s.run(ctx, f.halt); err != nil {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.err = err
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		f.wg.Wait()
	})
	return f
}

// awaitRounds waits until every sender has had acknowledgements again and again.
func (f *fleet) awaitRounds(t *testing.T) {
	t.Helper()
	for range 5 {
		f.awaitProgress(t)
	}
}

// roundRobin is a client behind a load balancer that knows nothing of streams: each call goes to the next node.
type roundRobin struct {
	pmetricotlp.GRPCClient
	clients []pmetricotlp.GRPCClient
	calls   atomic.Int64
}

func (r *roundRobin) Export(ctx context.Context, request pmetricotlp.ExportRequest, opts ...grpc.CallOption) (pmetricotlp.ExportResponse, error) {
	client := r.clients[int(r.calls.Add(1))%len(r.clients)]
	// Where there is no process it is the next one's turn, and where there is only one, it is worth waiting for.
	reply, err := client.Export(ctx, request, append(opts, grpc.WaitForReady(len(r.clients) == 1))...)
	if status.Code(err) == codes.Unavailable {
		select {
		case <-time.After(time.Millisecond): // as many calls as that do no harm
		case <-ctx.Done():
		}
	}
	return reply, err
}

// redis is a process of the Debian package, as shared.yaml asks for it: with TLS, a password, an append-only file, and no
// evictions.
type redis struct {
	*child
	addr, dir, binary string
}

const redisPassword = "0123456789"

func startRedis(t *testing.T) *redis {
	t.Helper()
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatalf("this test needs the Redis server (Debian: apt-get install redis-server): %v", err)
	}
	r := &redis{binary: binary, dir: t.TempDir()}
	writeCertificate(t, r.dir)
	for attempt := 1; ; attempt++ {
		r.addr = loopback(freePorts(t, 1)[0])
		err := r.launch(t)
		if err == nil {
			break
		}
		if attempt == 3 || !strings.Contains(err.Error(), "Address already in use") {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		r.kill()
		if t.Failed() {
			t.Logf("log of redis-server:\n%s", r.log.String())
		}
	})
	return r
}

func (r *redis) launch(t *testing.T) error {
	t.Helper()
	host, port, _ := net.SplitHostPort(r.addr)
	certificate, key := filepath.Join(r.dir, "tls.crt"), filepath.Join(r.dir, "tls.key")
	c, err := launch(nil, r.binary, "--bind", host, "--port", "0", "--tls-port", port, "--tls-auth-clients", "no",
		"--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", certificate,
		"--requirepass", redisPassword, "--dir", r.dir, "--appendonly", "yes", "--maxmemory-policy", "noeviction")
	if err != nil {
		return err
	}
	r.child = c
	return poll(func() error {
		select {
		case <-c.exited:
			return fatal{fmt.Errorf("exited: %v\n%s", c.cmd.ProcessState, c.log.String())}
		default:
		}
		conn, err := tls.Dial("tcp", r.addr, &tls.Config{InsecureSkipVerify: true}) // asks only whether it listens
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// restart starts a killed server again, with the same data and address.
func (r *redis) restart(t *testing.T) {
	t.Helper()
	if err := r.launch(t); err != nil {
		t.Fatal(err)
	}
}

// environment is what shared.yaml needs to find it.
func (r *redis) environment() []string {
	return []string{
		"REDIS_ENDPOINT=" + r.addr,
		"REDIS_PASSWORD=" + redisPassword,
		"REDIS_CA_FILE=" + filepath.Join(r.dir, "tls.crt"),
	}
}

// writeCertificate writes a certificate for 127.0.0.1 that is its own authority, and its key.
func writeCertificate(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:         true, BasicConstraintsValid: true,
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"tls.crt": {Type: "CERTIFICATE", Bytes: certificate},
		"tls.key": {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
