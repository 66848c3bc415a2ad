// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redisstate

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/config/configopaque"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/config/configtls"
	"go.opentelemetry.io/collector/extension/extensiontest"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/d2c/store/redis"
	"github.com/deltaring/deltaring/d2c/store/redis/redistest"
	"github.com/deltaring/deltaring/processor/state/redisstate/internal/metadata"
	"github.com/deltaring/deltaring/streamid"
)

// statusHost remembers the statuses reported.
type statusHost struct {
	mu     sync.Mutex
	events []*componentstatus.Event
}

func (*statusHost) GetExtensions() map[component.ID]component.Component { return nil }

func (h *statusHost) Report(event *componentstatus.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, event)
}

// await waits until the latest status is s, and returns its error.
func (h *statusHost) await(t *testing.T, s componentstatus.Status) error {
	t.Helper()
	var last *componentstatus.Event
	redistest.Eventually(t, "the status is "+s.String(), func() error {
		h.mu.Lock()
		defer h.mu.Unlock()
		if len(h.events) == 0 {
			return errors.New("none was reported")
		}
		if last = h.events[len(h.events)-1]; last.Status() != s {
			return fmt.Errorf("it is %v: %v", last.Status(), last.Err())
		}
		return nil
	})
	return last.Err()
}

// watched is an extension whose status and log are looked at.
type watched struct {
	*redisState
	host *statusHost
	logs *observer.ObservedLogs
}

func watch(t *testing.T, cfg *Config) watched {
	t.Helper()
	w := watched{host: new(statusHost)}
	set := extensiontest.NewNopSettings(metadata.Type)
	var core zapcore.Core
	core, w.logs = observer.New(zap.DebugLevel)
	set.Logger = zap.New(core)
	w.redisState = startExtensionWith(t, set, cfg, w.host)
	return w
}

// mustNotSay fails if the log, the statuses or the error have the secret.
func (w watched) mustNotSay(t *testing.T, secret string, errs ...error) {
	t.Helper()
	for _, entry := range w.logs.All() {
		if strings.Contains(fmt.Sprint(entry.Message, entry.ContextMap()), secret) {
			t.Errorf("the secret is in the log: %v", entry)
		}
	}
	w.host.mu.Lock()
	defer w.host.mu.Unlock()
	for _, e := range w.host.events {
		errs = append(errs, e.Err())
	}
	for _, err := range errs {
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("the secret is in an error: %v", err)
		}
	}
}

func errorOf(c *client) error {
	_, err := c.try(store.Swap{ID: streamid.ID{Hi: 1}})
	return err
}

func TestServerComesUpLater(t *testing.T) {
	server := redistest.New(t)
	ext := watch(t, testConfig(server.Addr))
	st := clientOf(t, ext.redisState)
	err := errorOf(st)
	if err == nil || !strings.Contains(err.Error(), server.Addr) || redis.ReasonOf(err) != redis.Unreachable {
		t.Fatalf("error %v, want one that names %s", err, server.Addr)
	}
	ext.host.await(t, componentstatus.StatusRecoverableError)
	server.Start()
	ext.host.await(t, componentstatus.StatusOK)
	mustSwap(t, st, store.Swap{ID: streamid.ID{Hi: 1}, Tag: 1, Record: []byte("record")})
	// It goes away, and comes back with nothing.
	server.Stop()
	if err := errorOf(st); err == nil {
		t.Fatal("no error without a server")
	}
	ext.host.await(t, componentstatus.StatusRecoverableError)
	server.Start()
	ext.host.await(t, componentstatus.StatusOK)
	if r := swap(t, st, store.Swap{ID: streamid.ID{Hi: 1}, Tag: 1, Record: []byte("record")})[0]; r.Status != store.OtherLife {
		t.Fatalf("the server lost all: %+v", r)
	}
	st.lives = nil
	mustSwap(t, st, store.Swap{ID: streamid.ID{Hi: 1}, Tag: 1, Record: []byte("record")})
}

func TestRestartWithData(t *testing.T) {
	server := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	st := openStore(t, testConfig(server.Addr))
	ops := make([]store.Swap, 3000)
	for i := range ops {
		ops[i] = store.Swap{ID: streamid.ID{Hi: uint64(i) << 52, Lo: uint64(i)}, Tag: uint64(i) + 1, Record: []byte("before")}
	}
	mustSwap(t, st, ops...)
	server.Stop()
	server.Start()
	for i := range ops {
		ops[i].Base, ops[i].Tag = uint64(i)+1, uint64(i)+7000
	}
	redistest.Eventually(t, "it has loaded its data", func() error { return errorOf(st) })
	mustSwap(t, st, ops...)
}

func TestShutdownEndsWhatIsUnderWay(t *testing.T) {
	// A server that takes connections and never answers.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg := testConfig(l.Addr().String())
	cfg.ReadTimeout, cfg.Timeout = 10*time.Second, 20*time.Second
	ext, err := NewFactory().Create(context.Background(), extensiontest.NewNopSettings(metadata.Type), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ext.(*redisState).SharedStore(context.Background(), testProcessor); !errors.Is(err, errNotStarted) {
		t.Errorf("before the start: %v", err)
	}
	if err := ext.Start(context.Background(), new(statusHost)); err != nil {
		t.Fatal(err)
	}
	st := clientOf(t, ext.(*redisState))
	done := make(chan error)
	go func() { done <- errorOf(st) }()
	conn, err := l.Accept() // of the probe, or the batch
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	started := time.Now()
	if err := ext.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if err := <-done; err == nil {
		t.Error("no error")
	}
	if took := time.Since(started); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	if err := errorOf(st); err == nil {
		t.Error("no error after shutdown")
	}
	if _, err := ext.(*redisState).SharedStore(context.Background(), testProcessor); !errors.Is(err, errClosed) {
		t.Errorf("after shutdown: %v", err)
	}
}

const secret = "the-secret-that-nobody-may-see"

func TestCredentials(t *testing.T) {
	for _, c := range []struct {
		name     string
		args     []string
		username string
		password configopaque.String
	}{
		{"wrong password", []string{"--requirepass", "other"}, "", secret},
		{"no password", []string{"--requirepass", "other"}, "", ""},
		{"unknown user", nil, "nobody", secret},
		{"wrong password of a user", []string{"--user", "worker", "on", ">other", "~*", "+@all"}, "worker", secret},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := redistest.Start(t, c.args...)
			cfg := testConfig(server.Addr)
			cfg.Username, cfg.Password = c.username, c.password
			ext := watch(t, cfg)
			st := clientOf(t, ext.redisState)
			for _, n := range []int{1, 100} { // as the server has another answer to a large call
				swaps := make([]store.Swap, n)
				_, err := st.Swap(context.Background(), swaps)
				if err == nil || redis.ReasonOf(err) != redis.Credentials || !strings.Contains(err.Error(), "does not accept username and password") {
					t.Errorf("%d records: error %v", n, err)
				}
				ext.mustNotSay(t, secret, err)
			}
			ext.mustNotSay(t, secret, ext.host.await(t, componentstatus.StatusPermanentError))
			if n := ext.logs.FilterLevelExact(zap.ErrorLevel).Len(); n != 1 {
				t.Errorf("%d errors in the log, want one", n)
			}
		})
	}

	t.Run("changed while it runs", func(t *testing.T) {
		server := redistest.Start(t)
		server.Do("acl", "setuser", "worker", "on", ">"+secret, "~*", "+@all")
		cfg := testConfig(server.Addr)
		cfg.Username, cfg.Password = "worker", secret
		ext := watch(t, cfg)
		st := clientOf(t, ext.redisState)
		redistest.Eventually(t, "the first probe has been", func() error {
			if ext.logs.FilterMessage("shared state can be reached").Len() == 0 {
				return errors.New("not yet")
			}
			return nil
		})
		server.Do("acl", "deluser", "worker") // which closes its connections
		server.Do("acl", "setuser", "worker", "on", ">other", "~*", "+@all")
		redistest.Eventually(t, "it is refused", func() error {
			if err := errorOf(st); err == nil || redis.ReasonOf(err) != redis.Credentials {
				return fmt.Errorf("got %v", err)
			}
			return nil
		})
		ext.host.await(t, componentstatus.StatusRecoverableError)
		server.Do("acl", "setuser", "worker", ">"+secret)
		ext.host.await(t, componentstatus.StatusOK)
		if err := errorOf(st); err != nil {
			t.Error(err)
		}
		ext.mustNotSay(t, secret)
	})
}

// acl is the least that a user needs; the README has it.
const acl = "~d2c:* resetchannels -@all +eval +evalsha +get +mget +set +hmget +hset +hdel +pttl +persist +pexpire +renamenx"

func TestLeastPermissions(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), acl) {
		t.Errorf("the README does not have %q", acl)
	}
	server := redistest.Start(t, "--databases", "2")
	allow(t, server)
	run := func(t *testing.T, cfg *Config) {
		cfg.Username, cfg.Password = "worker", secret
		ext := watch(t, cfg)
		st := clientOf(t, ext.redisState)
		id := streamid.ID{Hi: 5}
		mustSwap(t, st, store.Swap{ID: id, Tag: 1, Record: []byte("record")})
		mustSwap(t, st, store.Swap{ID: id, Base: 1})
		mustSwap(t, st, store.Swap{ID: id, Base: 1, Tag: 2, Record: []byte("record")})
		server.Do("script", "flush")
		if err := st.SetAside(context.Background(), id, []byte("record")); err != nil {
			t.Error(err)
		}
		if ext.host.events != nil {
			t.Errorf("status %v", ext.host.events)
		}
	}
	t.Run("with a time to live", func(t *testing.T) { run(t, testConfig(server.Addr)) })
	t.Run("without", func(t *testing.T) {
		cfg := testConfig(server.Addr)
		cfg.RecordTTL = 0
		run(t, cfg)
	})
	t.Run("in another database", func(t *testing.T) {
		server.Do("acl", "setuser", "worker", "+select")
		cfg := testConfig(server.Addr)
		cfg.Database = 1
		run(t, cfg)
	})
	t.Run("without one of the commands", func(t *testing.T) {
		server.Do("acl", "setuser", "worker", "-hset")
		cfg := testConfig(server.Addr)
		cfg.Username, cfg.Password = "worker", secret
		err := errorOf(openStore(t, cfg)) // which sets nothing
		if err != nil {
			t.Error(err)
		}
		_, err = openStore(t, cfg).try(store.Swap{ID: streamid.ID{Hi: 9}, Tag: 1, Record: []byte("record")})
		if err == nil || redis.ReasonOf(err) != redis.Credentials || !strings.Contains(err.Error(), "lacks a permission") {
			t.Errorf("error %v", err)
		}
		server.Do("acl", "setuser", "worker", "+hset")
	})
	t.Run("under another prefix", func(t *testing.T) {
		cfg := testConfig(server.Addr)
		cfg.Username, cfg.Password, cfg.Prefix = "worker", secret, "other"
		ext := watch(t, cfg)
		err := errorOf(clientOf(t, ext.redisState))
		if err == nil || redis.ReasonOf(err) != redis.Credentials || !strings.Contains(err.Error(), "lacks a permission") {
			t.Errorf("error %v", err)
		}
		ext.host.await(t, componentstatus.StatusPermanentError)
	})
}

func words(s string) (all []any) {
	for _, w := range strings.Fields(s) {
		all = append(all, w)
	}
	return all
}

func TestTLS(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	cert, key := ca.issue(t, "server")
	clientCert, clientKey := ca.issue(t, "client")
	server := redistest.New(t)
	server.Run("--port", "0", "--tls-port", server.Port(), "--bind", "127.0.0.1", "--save", "", "--dir", server.Dir,
		"--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", ca.file, "--tls-auth-clients", "yes")
	config := func(change func(*configtls.ClientConfig)) *Config {
		cfg := testConfig(server.Addr)
		c := configtls.NewDefaultClientConfig()
		c.CAFile, c.CertFile, c.KeyFile = ca.file, clientCert, clientKey
		if change != nil {
			change(&c)
		}
		cfg.TLS = configoptional.Some(c)
		return cfg
	}
	st := openStore(t, config(nil))
	redistest.Eventually(t, "the server answers", func() error { return errorOf(st) })
	mustSwap(t, st, store.Swap{ID: streamid.ID{Hi: 5}, Tag: 1, Record: []byte("record")})

	for name, change := range map[string]func(*configtls.ClientConfig){
		"another authority":     func(c *configtls.ClientConfig) { c.CAFile = other.file },
		"the system's":          func(c *configtls.ClientConfig) { c.CAFile = "" },
		"another name":          func(c *configtls.ClientConfig) { c.ServerName = "elsewhere.example" },
		"no client certificate": func(c *configtls.ClientConfig) { c.CertFile, c.KeyFile = "", "" },
		"no TLS":                func(c *configtls.ClientConfig) { *c = configtls.ClientConfig{Insecure: true} },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(change)
			cfg.ReadTimeout, cfg.MaxRetries = 200*time.Millisecond, 0
			if err := errorOf(openStore(t, cfg)); err == nil {
				t.Error("no error")
			}
		})
	}
	// It takes some tries until such a connection is still there when the extension ends.
	t.Run("Shutdown is not what fails", func(t *testing.T) {
		cfg := config(func(c *configtls.ClientConfig) { c.CertFile, c.KeyFile = "", "" })
		cfg.MaxRetries = 0
		for range 40 {
			ext, err := newExtension(extensiontest.NewNopSettings(metadata.Type), cfg)
			if err != nil {
				t.Fatal(err)
			}
			if err := ext.Start(context.Background(), new(statusHost)); err != nil {
				t.Fatal(err)
			}
			if err := errorOf(clientOf(t, ext)); err == nil {
				t.Fatal("no error")
			}
			if err := ext.Shutdown(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("a server without TLS", func(t *testing.T) {
		cfg := config(nil)
		addr := redistest.Start(t).Addr
		cfg.Endpoints, cfg.DialTimeout = []string{addr}, 200*time.Millisecond
		for _, retries := range []int{0, 10} { // which there is no time for
			cfg.MaxRetries, cfg.Timeout = retries, 700*time.Millisecond
			if err := errorOf(openStore(t, cfg)); err == nil || !strings.Contains(err.Error(), "TLS handshake with "+addr) {
				t.Errorf("%d retries: error %v", retries, err)
			}
		}
	})
	t.Run("no such file", func(t *testing.T) {
		cfg := config(func(c *configtls.ClientConfig) { c.CAFile = "nowhere.pem" })
		ext, err := newExtension(extensiontest.NewNopSettings(metadata.Type), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := ext.Start(context.Background(), new(statusHost)); err == nil || !strings.HasPrefix(err.Error(), "tls: ") {
			t.Errorf("error %v", err)
		}
		if err := ext.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// authority issues certificates for 127.0.0.1.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	dir  string
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"},
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	a.file, _, a.key = a.write(t, "ca", a.cert, nil)
	return a
}

func (a *authority) issue(t *testing.T, name string) (certFile, keyFile string) {
	t.Helper()
	certFile, keyFile, _ = a.write(t, name, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.key)
	return certFile, keyFile
}

// write signs with signer, or if that is nil with the certificate's own key.
func (a *authority) write(
	t *testing.T, name string, cert *x509.Certificate, signer *ecdsa.PrivateKey,
) (certFile, keyFile string, key *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if signer == nil {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, a.cert, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(a.dir, name+".crt"), filepath.Join(a.dir, name+".key")
	for file, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: der},
		keyFile:  {Type: "PRIVATE KEY", Bytes: pkcs8},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile, key
}

// Without TLS, only this machine is talked to, even if somebody else names the address.
func TestNoPlainConnectionElsewhere(t *testing.T) {
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	var elsewhere string
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if ip := a.(*net.IPNet).IP; !ip.IsLoopback() && ip.To4() != nil {
			elsewhere = net.JoinHostPort(ip.String(), port)
		}
	}
	ctx := context.Background()
	for _, address := range []string{"127.0.0.1:" + port, "localhost:" + port} {
		conn, err := dialer(time.Second, nil, false)(ctx, "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
	}
	if elsewhere == "" {
		t.Log("this machine has no other address")
		return
	}
	if conn, err := dialer(time.Second, nil, false)(ctx, "tcp", elsewhere); err == nil {
		_ = conn.Close()
		t.Errorf("a plain connection to %s", elsewhere)
	} else if !strings.Contains(err.Error(), "insecure: true") {
		t.Error(err)
	}
	conn, err := dialer(time.Second, nil, true)(ctx, "tcp", elsewhere)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

// At maxmemory a batch is refused, and nothing is lost of what is there.
func TestServerIsFull(t *testing.T) {
	server := redistest.Start(t)
	ext := watch(t, testConfig(server.Addr))
	st := clientOf(t, ext.redisState)
	mustSwap(t, st, store.Swap{ID: streamid.ID{Hi: 1}, Tag: 1, Record: []byte("a")})
	server.Do("config", "set", "maxmemory", "1")
	ops := []store.Swap{{ID: streamid.ID{Hi: 1}, Base: 1, Tag: 2, Record: []byte("b")}}
	_, err := st.try(ops...)
	if err == nil || redis.ReasonOf(err) != redis.Memory || !strings.Contains(err.Error(), "out of memory") {
		t.Fatalf("error %v", err)
	}
	ext.host.await(t, componentstatus.StatusRecoverableError)
	server.Do("config", "set", "maxmemory", "0")
	ext.host.await(t, componentstatus.StatusOK)
	mustSwap(t, st, ops...)
}
