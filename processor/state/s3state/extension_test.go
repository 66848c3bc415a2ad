// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package s3state

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/config/configtls"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/collector/extension/extensiontest"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/metric/metricdata/metricdatatest"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/d2c/store/s3/s3test"
	"github.com/deltaring/deltaring/d2c/storetest"
	"github.com/deltaring/deltaring/processor/state/s3state/internal/metadata"
	"github.com/deltaring/deltaring/processor/state/s3state/internal/metadatatest"
	"github.com/deltaring/deltaring/streamid"
)

const secret = s3test.SecretKey

var testProcessor = component.MustNewID("d2c")

// testConfig is the default for a server, without waiting for commits.
func testConfig(url string) *Config {
	cfg := createDefaultConfig().(*Config)
	cfg.Bucket, cfg.Endpoint, cfg.PathStyle = s3test.Bucket, url, true
	cfg.AccessKeyID, cfg.SecretAccessKey = s3test.AccessKey, secret
	cfg.CommitInterval = 0
	return cfg
}

// startExtension starts an extension until the end of the test.
func startExtension(t testing.TB, cfg *Config) *s3State {
	t.Helper()
	return startExtensionWith(t, extensiontest.NewNopSettings(metadata.Type), cfg, componenttest.NewNopHost())
}

func startExtensionWith(t testing.TB, set extension.Settings, cfg *Config, host component.Host) *s3State {
	t.Helper()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	ext, err := NewFactory().Create(context.Background(), set, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := ext.Start(context.Background(), host); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ext.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return ext.(*s3State)
}

func sharedStore(t testing.TB, ext *s3State) store.Shared {
	t.Helper()
	st, err := ext.SharedStore(context.Background(), testProcessor)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

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
	s3test.Eventually(t, "the status is "+s.String(), func() error {
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
	*s3State
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
	w.s3State = startExtensionWith(t, set, cfg, w.host)
	return w
}

// mustNotSay fails if the log, the statuses or an error have a secret, or a key.
func (w watched) mustNotSay(t *testing.T, secrets []string, errs ...error) {
	t.Helper()
	var texts []string
	for _, entry := range w.logs.All() {
		texts = append(texts, fmt.Sprint(entry.Message, entry.ContextMap()))
	}
	w.host.mu.Lock()
	defer w.host.mu.Unlock()
	for _, e := range w.host.events {
		errs = append(errs, e.Err())
	}
	for _, err := range errs {
		texts = append(texts, fmt.Sprint(err))
	}
	for _, text := range texts {
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("a secret is in %q", text)
			}
		}
	}
}

func TestServerComesUpLater(t *testing.T) {
	server := s3test.Start(t)
	server.Stop()
	cfg := testConfig(server.URL)
	cfg.Timeout = 2 * time.Second
	ext := watch(t, cfg)
	st := sharedStore(t, ext.s3State)
	if _, err := st.Lives(context.Background(), store.Life{ID: 1}); err == nil || !strings.Contains(err.Error(), s3test.Bucket) {
		t.Fatalf("error %v", err)
	}
	ext.host.await(t, componentstatus.StatusRecoverableError)
	server.Start()
	ext.host.await(t, componentstatus.StatusOK)
	lives, err := st.Lives(context.Background(), store.Life{ID: 1})
	if err != nil || len(lives) != 16 {
		t.Fatalf("%d lives, error %v", len(lives), err)
	}
	// It goes away: a commit that fails is what tells.
	server.Stop()
	swap := []store.Swap{{Life: lives[0].ID, Tag: 1, Record: []byte("record")}}
	if _, err := st.Swap(context.Background(), swap); err == nil {
		t.Fatal("no error without a server")
	}
	ext.host.await(t, componentstatus.StatusRecoverableError)
	server.Start()
	ext.host.await(t, componentstatus.StatusOK)
	if r, err := st.Swap(context.Background(), swap); err != nil || r[0].Status != store.Swapped {
		t.Fatalf("%+v, error %v", r, err)
	}
}

// What waiting does not change is a permanent error, and said once.
func TestMistakes(t *testing.T) {
	server := s3test.Start(t)
	proxy := s3test.NewProxy(t, server.URL)
	proxy.Fail(func(*http.Request) s3test.Fault {
		return s3test.Fault{Change: s3test.Without("If-Match", "If-None-Match")}
	})
	for _, c := range []struct {
		name   string
		change func(*Config)
		says   string
	}{
		{"wrong secret", func(c *Config) { c.SecretAccessKey = secret + "x" }, "does not accept the credentials"},
		{"unknown key", func(c *Config) { c.AccessKeyID = "a-key-that-nobody-has" }, "does not accept the credentials"},
		{"no bucket", func(c *Config) { c.Bucket = "nowhere" }, "there is no such bucket"},
		{"conditions are ignored", func(c *Config) { c.Endpoint = proxy.URL }, "does not keep two writers apart"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := testConfig(server.URL)
			c.change(cfg)
			ext := watch(t, cfg)
			err := ext.host.await(t, componentstatus.StatusPermanentError)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("status with %v, want %q", err, c.says)
			}
			_, err = sharedStore(t, ext.s3State).Lives(context.Background(), store.Life{ID: 1})
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want %q", err, c.says)
			}
			ext.mustNotSay(t, []string{secret, s3test.AccessKey, "a-key-that-nobody-has"}, err)
			if n := ext.logs.FilterLevelExact(zap.ErrorLevel).Len(); n != 1 {
				t.Errorf("%d errors in the log, want one", n)
			}
		})
	}
}

func TestVersionsAreWarnedOf(t *testing.T) {
	server := s3test.Start(t)
	proxy := s3test.NewProxy(t, server.URL)
	proxy.Fail(func(*http.Request) s3test.Fault {
		return s3test.Fault{Answer: func(h http.Header, body []byte) []byte { h.Set("X-Amz-Version-Id", "v1"); return body }}
	})
	ext := watch(t, testConfig(proxy.URL))
	s3test.Eventually(t, "there is a warning", func() error {
		if n := ext.logs.FilterMessageSnippet("keeps old versions").Len(); n != 1 {
			return fmt.Errorf("%d warnings", n)
		}
		return nil
	})
}

// Certificates are verified, by whom the configuration says.
func TestTLS(t *testing.T) {
	server := s3test.Start(t)
	target, err := url.Parse(server.URL)
	require.NoError(t, err)
	front := httptest.NewTLSServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host = target.Scheme, target.Host // and the Host header as it came: it is signed
	}})
	t.Cleanup(front.Close)
	front.Config.ErrorLog = zap.NewStdLog(zap.NewNop())
	ca := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw}), 0o600))
	cfg := testConfig(front.URL)
	ext := watch(t, cfg)
	if err := ext.host.await(t, componentstatus.StatusRecoverableError); !strings.Contains(err.Error(), "certificate") {
		t.Errorf("error %v", err)
	}
	cfg = testConfig(front.URL)
	tls := configtls.NewDefaultClientConfig()
	tls.CAFile = ca
	cfg.TLS = configoptional.Some(tls)
	_, err = sharedStore(t, startExtension(t, cfg)).Lives(context.Background(), store.Life{ID: 1})
	require.NoError(t, err)

	tls.CAFile = "nowhere.pem"
	cfg = testConfig(front.URL)
	cfg.TLS = configoptional.Some(tls)
	bad, err := NewFactory().Create(context.Background(), extensiontest.NewNopSettings(metadata.Type), cfg)
	require.NoError(t, err)
	require.ErrorContains(t, bad.Start(context.Background(), new(statusHost)), "tls: ")
	require.NoError(t, bad.Shutdown(context.Background()))
}

func TestShared(t *testing.T) {
	server := s3test.Start(t)
	n := 0
	storetest.TestShared(t, func(t *testing.T) storetest.Fixture {
		n++
		prefix := fmt.Sprint("d2c/", n)
		return storetest.Fixture{
			Open: func() store.Shared {
				cfg := testConfig(server.URL)
				cfg.Prefix, cfg.Groups = prefix, 4
				return sharedStore(t, startExtension(t, cfg))
			},
			Wipe: func() {
				require.NoError(t, os.RemoveAll(filepath.Join(server.Dir, s3test.Bucket, "d2c", fmt.Sprint(n))))
			},
		}
	})
}

func TestTelemetry(t *testing.T) {
	tel := componenttest.NewTelemetry()
	t.Cleanup(func() { require.NoError(t, tel.Shutdown(context.Background())) })
	server := s3test.Start(t)
	proxy := s3test.NewProxy(t, server.URL)
	cfg := testConfig(proxy.URL)
	cfg.Groups = 1
	ext := startExtensionWith(t, metadatatest.NewSettings(tel), cfg, componenttest.NewNopHost())
	st := sharedStore(t, ext)
	lives, err := st.Lives(context.Background(), store.Life{ID: 1})
	require.NoError(t, err)
	swap := store.Swap{ID: streamid.ID{Hi: 1}, Life: lives[0].ID, Tag: 1, Record: []byte("record")}
	_, err = st.Swap(context.Background(), []store.Swap{swap})
	require.NoError(t, err)
	var once sync.Once
	proxy.Fail(func(*http.Request) (f s3test.Fault) {
		once.Do(func() { f = s3test.Fault{Status: 503, Code: "SlowDown"} })
		return f
	})
	swap.Base, swap.Tag = 1, 2
	_, err = st.Swap(context.Background(), []store.Swap{swap})
	require.NoError(t, err)

	instance := []attribute.KeyValue{attribute.String("extension", "s3_state"), attribute.String("processor", "d2c")}
	point := func(value int64, more ...string) metricdata.DataPoint[int64] {
		attrs := append([]attribute.KeyValue(nil), instance...)
		for i := 0; i < len(more); i += 2 {
			attrs = append(attrs, attribute.String(more[i], more[i+1]))
		}
		return metricdata.DataPoint[int64]{Attributes: attribute.NewSet(attrs...), Value: value}
	}
	ignore := metricdatatest.IgnoreTimestamp()
	metadatatest.AssertEqualS3StateRecords(t, tel, []metricdata.DataPoint[int64]{point(2, "outcome", "swapped")}, ignore)
	// A probe is four puts, two gets and a delete; the head is read once, and put for the life and each swap, once in vain.
	metadatatest.AssertEqualS3StateRequests(t, tel, []metricdata.DataPoint[int64]{
		point(4+3, "operation", "put", "result", "ok"), point(1, "operation", "put", "result", "throttled"),
		point(2+1, "operation", "get", "result", "ok"), point(1, "operation", "delete", "result", "ok"),
	}, ignore)
}
