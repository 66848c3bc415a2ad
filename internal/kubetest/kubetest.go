// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package kubetest runs a Kubernetes API server for tests: that of .ci/apiserver, built by "make tools".
package kubetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/deltaring/deltaring/internal/ports"
)

// binary is what "make tools" makes; the name has the version, as in the Makefile.
const binary = ".tools/apiserver-v1.36.3"

// patience bounds the start of the server: a loaded machine takes its time.
const patience = 2 * time.Minute

const (
	// Admin is the token of somebody who may do everything.
	Admin = "admin"
	// Nobody is the token of user "nobody", who may do nothing that is not granted by a binding.
	Nobody = "nobody"
)

// Server is an API server, its etcd, and the controller of EndpointSlices, in one process.
type Server struct {
	URL string

	t       testing.TB
	dir     string
	client  *http.Client
	output  output
	command *exec.Cmd     // nil if none runs
	ended   chan struct{} // closed when it has ended
}

// New makes what a server needs, but starts none: nothing listens at its URL.
func New(t testing.TB) *Server {
	t.Helper()
	port, err := ports.Free()
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{URL: "https://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), t: t, dir: t.TempDir()}
	// Without verification: the server makes a certificate for itself at its first start.
	s.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	s.write("key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})))
	s.write("tokens.csv", Admin+",admin,1,system:masters\n"+Nobody+",nobody,2\n")
	t.Cleanup(func() {
		s.Stop()
		if t.Failed() {
			t.Logf("API server:\n%s", s.output.tail(8<<10))
		}
	})
	return s
}

// Start starts a server and returns when it serves.
func Start(t testing.TB) *Server {
	t.Helper()
	s := New(t)
	s.Start()
	return s
}

func (s *Server) write(name, content string) {
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(content), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// CAFile has the certificate to trust, once the server has been started.
func (s *Server) CAFile() string { return filepath.Join(s.dir, "certificates", "apiserver.crt") }

// Start starts the server, with what it had when it was stopped.
func (s *Server) Start() {
	s.t.Helper()
	_, port, err := net.SplitHostPort(s.URL[len("https://"):])
	if err != nil {
		s.t.Fatal(err)
	}
	s.command, s.ended = exec.Command(find(s.t), "-data", s.dir, "-host", s.URL, "-token", Admin, "--",
		"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--secure-port="+port,
		"--cert-dir="+filepath.Join(s.dir, "certificates"),
		"--token-auth-file="+filepath.Join(s.dir, "tokens.csv"),
		"--authorization-mode=RBAC",
		"--service-cluster-ip-range=10.96.0.0/16,fd00:96::/112",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+filepath.Join(s.dir, "key.pem"),
		"--service-account-signing-key-file="+filepath.Join(s.dir, "key.pem"),
		"--endpoint-reconciler-type=none",
		// The first needs a controller of service accounts, the second a kubelet.
		"--disable-admission-plugins=ServiceAccount,TaintNodesByCondition",
		"--profiling=false", "--v=0",
	), make(chan struct{})
	s.command.Stdout, s.command.Stderr = &s.output, &s.output
	// It ends with its standard input, so it does not outlive this process.
	if _, err = s.command.StdinPipe(); err == nil {
		err = s.command.Start()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	go func(command *exec.Cmd, ended chan struct{}) {
		defer close(ended)
		_ = command.Wait()
	}(s.command, s.ended)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !s.ready(ctx) {
		select {
		case <-s.ended:
			s.t.Fatalf("the API server ended:\n%s", s.output.tail(4<<10))
		case <-ctx.Done():
			s.t.Fatalf("the API server was not ready within %v", patience)
		case <-tick.C:
		}
	}
}

// Stop kills the server, if it runs. Whatever it has answered is on disk.
func (s *Server) Stop() {
	if s.command == nil {
		return
	}
	_ = s.command.Process.Kill()
	<-s.ended
	s.command = nil
}

func (s *Server) ready(ctx context.Context) bool {
	code, _, err := s.Do(ctx, http.MethodGet, "/readyz", "", nil)
	return err == nil && code == http.StatusOK
}

// Do makes a request of the administrator.
func (s *Server) Do(ctx context.Context, method, path, contentType string, body []byte) (int, []byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, s.URL+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Authorization", "Bearer "+Admin)
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	response, err := s.client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	var answer bytes.Buffer
	_, err = answer.ReadFrom(response.Body)
	return response.StatusCode, answer.Bytes(), err
}

// find returns where the binary is, in the working directory or above.
func find(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if path := filepath.Join(dir, binary); exists(path) {
			return path
		}
		if dir == filepath.Dir(dir) {
			t.Fatalf("there is no %s: run make tools", binary)
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// output is what the server wrote.
type output struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buffer.Write(p)
}

func (o *output) tail(n int) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := o.buffer.Bytes()
	return string(b[max(0, len(b)-n):])
}
