// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package postgresstate

import (
	"context"
	"errors"
	"fmt"
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
	"github.com/deltaring/deltaring/d2c/store/postgres/postgrestest"
	"github.com/deltaring/deltaring/d2c/storetest"
	"github.com/deltaring/deltaring/processor/state/postgresstate/internal/metadata"
	"github.com/deltaring/deltaring/processor/state/postgresstate/internal/metadatatest"
	"github.com/deltaring/deltaring/streamid"
)

var testProcessor = component.MustNewID("d2c")

// testConfig is the default for a test's server.
func testConfig(addr string) *Config {
	cfg := createDefaultConfig().(*Config)
	cfg.Endpoint, cfg.Username, cfg.Database = addr, postgrestest.Superuser, postgrestest.Database
	return cfg
}

// startExtension starts an extension until the end of the test.
func startExtension(t testing.TB, cfg *Config) *postgresState {
	t.Helper()
	return startExtensionWith(t, extensiontest.NewNopSettings(metadata.Type), cfg, componenttest.NewNopHost())
}

func startExtensionWith(t testing.TB, set extension.Settings, cfg *Config, host component.Host) *postgresState {
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
	return ext.(*postgresState)
}

func sharedStore(t testing.TB, ext *postgresState) store.Shared {
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
	postgrestest.Eventually(t, "the status is "+s.String(), func() error {
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
	*postgresState
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
	w.postgresState = startExtensionWith(t, set, cfg, w.host)
	return w
}

// mustNotSay fails if the log, the statuses or an error have a secret.
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
	server := postgrestest.Start(t)
	server.Stop()
	cfg := testConfig(server.Addr)
	ext := watch(t, cfg)
	st := sharedStore(t, ext.postgresState)
	if _, err := st.Lives(context.Background(), store.Life{ID: 1}); err == nil || !strings.Contains(err.Error(), server.Addr) {
		t.Fatalf("error %v", err)
	}
	ext.host.await(t, componentstatus.StatusRecoverableError)
	server.Start()
	ext.host.await(t, componentstatus.StatusOK)
	lives, err := st.Lives(context.Background(), store.Life{ID: 1})
	if err != nil || len(lives) != 64 {
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

// What waiting does not change is a permanent error, and said once, without the password.
func TestMistakes(t *testing.T) {
	server := postgrestest.Start(t, "password_encryption=scram-sha-256")
	server.Exec("CREATE USER worker PASSWORD '" + secret + "'; CREATE SCHEMA newer; CREATE TABLE newer.version AS SELECT 2 AS version;" +
		"GRANT USAGE ON SCHEMA newer TO worker; GRANT SELECT ON newer.version TO worker")
	server.Admit("host all postgres 127.0.0.1/32 trust", "host all all 127.0.0.1/32 scram-sha-256")
	server.Reload()
	for _, c := range []struct {
		name   string
		change func(*Config)
		says   string
	}{
		{"wrong password", func(c *Config) { c.Password = "wrong-" + secret }, "does not accept username and password"},
		{"no database", func(c *Config) { c.Database = "nowhere" }, "the database is not there"},
		{"no tables", func(*Config) {}, "have somebody run\nCREATE SCHEMA"},
		{"newer tables", func(c *Config) { c.Schema = "newer" }, "of version 2"},
		{"no TLS", func(c *Config) { c.TLS = configoptional.Some(configtls.NewDefaultClientConfig()) }, "the server has no TLS"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := testConfig(server.Addr)
			cfg.Username, cfg.Password = "worker", secret
			c.change(cfg)
			ext := watch(t, cfg)
			err := ext.host.await(t, componentstatus.StatusPermanentError)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("status with %v, want %q", err, c.says)
			}
			_, err = sharedStore(t, ext.postgresState).Lives(context.Background(), store.Life{ID: 1})
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want %q", err, c.says)
			}
			ext.mustNotSay(t, []string{secret}, err)
			if n := ext.logs.FilterLevelExact(zap.ErrorLevel).Len(); n != 1 {
				t.Errorf("%d errors in the log, want one", n)
			}
		})
	}
}

// Certificates are verified, by whom the configuration says.
func TestTLS(t *testing.T) {
	pair, _ := postgrestest.Certificate(t)
	server := postgrestest.Start(t)
	server.Write("server.crt", pair.CertificatePEM)
	server.Write("server.key", pair.KeyPEM)
	server.Set("ssl=on")
	server.Stop()
	server.Start()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(ca, pair.CertificatePEM, 0o600))
	cfg := testConfig(server.Addr)
	tls := configtls.NewDefaultClientConfig()
	cfg.TLS = configoptional.Some(tls)
	ext := watch(t, cfg)
	if err := ext.host.await(t, componentstatus.StatusPermanentError); !strings.Contains(err.Error(), "certificate") {
		t.Errorf("error %v", err)
	}
	tls.CAFile = ca
	cfg = testConfig(server.Addr)
	cfg.TLS = configoptional.Some(tls)
	_, err := sharedStore(t, startExtension(t, cfg)).Lives(context.Background(), store.Life{ID: 1})
	require.NoError(t, err)
	if n := server.Number("SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl AND application_name = 'deltaring'"); n == 0 {
		t.Error("no connection has TLS")
	}

	tls.Insecure, tls.CAFile = true, ""
	cfg.TLS = configoptional.Some(tls)
	insecure := watch(t, cfg)
	if insecure.logs.FilterMessageSnippet("connections are not encrypted").Len() != 1 {
		t.Error("nothing is said of a connection that is not encrypted")
	}

	tls.Insecure, tls.CAFile = false, "nowhere.pem"
	cfg.TLS = configoptional.Some(tls)
	bad, err := NewFactory().Create(context.Background(), extensiontest.NewNopSettings(metadata.Type), cfg)
	require.NoError(t, err)
	require.ErrorContains(t, bad.Start(context.Background(), new(statusHost)), "tls: ")
	require.NoError(t, bad.Shutdown(context.Background()))
}

func TestShared(t *testing.T) {
	server := postgrestest.Start(t, "max_connections=500")
	n := 0
	storetest.TestShared(t, func(t *testing.T) storetest.Fixture {
		n++
		schema := fmt.Sprint("d2c_", n)
		return storetest.Fixture{
			Open: func() store.Shared {
				cfg := testConfig(server.Addr)
				cfg.Schema, cfg.Groups = schema, 4
				return sharedStore(t, startExtension(t, cfg))
			},
			Wipe: func() { server.Exec(fmt.Sprintf("TRUNCATE %[1]s.logs, %[1]s.entries", schema)) },
		}
	})
}

func TestTelemetry(t *testing.T) {
	tel := componenttest.NewTelemetry()
	t.Cleanup(func() { require.NoError(t, tel.Shutdown(context.Background())) })
	server := postgrestest.Start(t)
	cfg := testConfig(server.Addr)
	cfg.Groups = 1
	ext := startExtensionWith(t, metadatatest.NewSettings(tel), cfg, componenttest.NewNopHost())
	st := sharedStore(t, ext)
	lives, err := st.Lives(context.Background(), store.Life{ID: 1})
	require.NoError(t, err)
	swap := store.Swap{ID: streamid.ID{Hi: 1}, Life: lives[0].ID, Tag: 1, Record: []byte("record")}
	_, err = st.Swap(context.Background(), []store.Swap{swap})
	require.NoError(t, err)
	server.Exec("ALTER TABLE d2c.entries RENAME TO away")
	_, err = st.Swap(context.Background(), []store.Swap{{ID: streamid.ID{Hi: 1}, Life: lives[0].ID, Base: 1, Tag: 2, Record: []byte("record")}})
	require.Error(t, err)

	attrs := func(more ...string) attribute.Set {
		set := []attribute.KeyValue{attribute.String("extension", "postgres_state"), attribute.String("processor", "d2c")}
		for i := 0; i < len(more); i += 2 {
			set = append(set, attribute.String(more[i], more[i+1]))
		}
		return attribute.NewSet(set...)
	}
	ignore := metricdatatest.IgnoreTimestamp()
	metadatatest.AssertEqualPostgresStateRecords(t, tel, []metricdata.DataPoint[int64]{{Attributes: attrs("outcome", "swapped"), Value: 1}}, ignore)
	metadatatest.AssertEqualPostgresStateErrors(t, tel, []metricdata.DataPoint[int64]{
		{Attributes: attrs("method", "append", "reason", "tables"), Value: 1},
	}, ignore)
}

// A processor asks for how long records are kept by this method, see d2cprocessor.SharedState.
func TestRecordTTLIsTold(t *testing.T) {
	cfg := testConfig("localhost:1")
	cfg.RecordTTL = time.Hour
	ext, err := NewFactory().Create(t.Context(), extensiontest.NewNopSettings(metadata.Type), cfg)
	require.NoError(t, err)
	told, ok := ext.(interface{ RecordTTL() time.Duration })
	if !ok || told.RecordTTL() != time.Hour {
		t.Errorf("got %v %v, want one hour", told, ok)
	}
}
