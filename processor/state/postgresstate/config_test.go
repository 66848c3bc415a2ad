// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package postgresstate

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/config/configtls"
	"go.opentelemetry.io/collector/confmap"
)

const secret = "open-sesame-1723"

func TestConfig(t *testing.T) {
	// with is a configuration that is enough, and more.
	with := func(more map[string]any) map[string]any {
		yaml := map[string]any{"endpoint": "127.0.0.1:5432", "username": "d2c"}
		for k, v := range more {
			yaml[k] = v
			if k == "endpoints" {
				delete(yaml, "endpoint")
			}
		}
		return yaml
	}
	for _, c := range []struct {
		name string
		yaml map[string]any
		want string // in the error, none if empty
	}{
		{"endpoint and user are enough", with(nil), ""},
		{"no endpoint", map[string]any{"username": "d2c"}, "endpoint: must be there, as host:port"},
		{"no user", map[string]any{"endpoint": "127.0.0.1:5432"}, "username: must be there"},
		{"both", map[string]any{"username": "d2c", "endpoints": []string{"127.0.0.1:1"}, "endpoint": "127.0.0.1:1"}, "endpoint: must not be there beside endpoints"},
		{"several", with(map[string]any{"endpoints": []string{"127.0.0.1:1", "localhost:2", "[::1]:3"}}), ""},
		{"no port", with(map[string]any{"endpoint": "localhost"}), `endpoint: "localhost": want host:port`},
		{"port zero", with(map[string]any{"endpoint": "localhost:0"}), "want host:port"},
		{"no host", with(map[string]any{"endpoint": ":5432"}), "want host:port"},
		{"one of several is wrong", with(map[string]any{"endpoints": []string{"127.0.0.1:1", "x"}}), "want host:port"},
		{"a URL", with(map[string]any{"endpoint": "postgres://d2c:" + secret + "@db:5432/d2c"}), "endpoint: want host:port, and not a URL"},
		{"a DSN", with(map[string]any{"endpoint": "host=db password=" + secret}), "endpoint: want host:port, and not a URL"},
		{"elsewhere without TLS", with(map[string]any{"endpoint": "db:5432"}), `tls: must be there because "db:5432" is not a loopback address`},
		{"one elsewhere without TLS", with(map[string]any{"endpoints": []string{"127.0.0.1:1", "db:5432"}}), "tls: must be there"},
		{"looks like localhost", with(map[string]any{"endpoint": "localhost.example:5432"}), "tls: must be there"},
		{"elsewhere with TLS", with(map[string]any{"endpoint": "db:5432", "tls": map[string]any{}}), ""},
		{"elsewhere, as written out", with(map[string]any{"endpoint": "db:5432", "tls": map[string]any{"insecure": true}}), ""},
		{"no database", with(map[string]any{"database": ""}), "database: must be there"},
		{"a zero byte", with(map[string]any{"username": "a\x00b"}), "username: must not contain a zero byte"},
		{"schema", with(map[string]any{"schema": "team_1"}), ""},
		{"a schema in capitals", with(map[string]any{"schema": "Team"}), "schema: want small letters"},
		{"no schema", with(map[string]any{"schema": ""}), "schema: want small letters"},
		{"no connections", with(map[string]any{"pool_size": 0}), "pool_size: must be 1 to 1000, got 0"},
		{"groups that are no power of two", with(map[string]any{"groups": 10}), "groups: must be a power of two"},
		{"an interval without a unit", with(map[string]any{"commit_interval": 5}), "commit_interval: must be a millisecond at least, got 5ns; is there a unit missing?"},
		{"no timeout", with(map[string]any{"timeout": "0s"}), "timeout: must be positive"},
		{"for ever", with(map[string]any{"record_ttl": "0s"}), ""},
		{"unknown key", with(map[string]any{"dsn": "x"}), "dsn: there is no such key; write endpoint, database, username and password"},
		{"a key of others", with(map[string]any{"sslmode": "require"}), "did you mean tls?"},
		{"a misspelt key", with(map[string]any{"shcema": "x"}), "did you mean schema?"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := createDefaultConfig()
			err := confmap.NewFromStringMap(c.yaml).Unmarshal(cfg)
			if err == nil {
				err = confmap.Validate(cfg)
			}
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("the password is in the error: %v", err)
			}
		})
	}
}

func TestDefaults(t *testing.T) {
	cfg := createDefaultConfig().(*Config)
	if cfg.Database != "d2c" || cfg.Schema != "d2c" || cfg.PoolSize != 4 || cfg.Groups != 64 || cfg.CommitInterval != 0 ||
		cfg.Timeout != 5*time.Second || cfg.RecordTTL != 24*time.Hour {
		t.Errorf("%+v", cfg)
	}
	cfg.Password = secret
	conf := confmap.New()
	if err := conf.Marshal(cfg); err != nil {
		t.Fatal(err)
	}
	if printed := fmt.Sprintf("%v %+v %v", cfg, cfg, conf.ToStringMap()); strings.Contains(printed, secret) {
		t.Errorf("the password is printed: %s", printed)
	}
}

// Nothing of the environment, or of files in the home directory, changes where a connection goes, who it is of, and how.
func TestEnvironment(t *testing.T) {
	passfile := filepath.Join(t.TempDir(), "pgpass")
	if err := os.WriteFile(passfile, []byte("*:*:*:*:"+secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"PGHOST": "elsewhere", "PGPORT": "99", "PGUSER": "somebody", "PGDATABASE": "other", "PGPASSWORD": secret, "PGPASSFILE": passfile,
		"PGSSLMODE": "disable", "PGOPTIONS": "-c synchronous_commit=off", "PGAPPNAME": "x", "PGTARGETSESSIONATTRS": "standby",
		"PGCHANNELBINDING": "disable", "PGREQUIREAUTH": "password", "PGTZ": "UTC", "PGSSLNEGOTIATION": "direct",
	} {
		t.Setenv(name, value)
	}
	cfg := createDefaultConfig().(*Config)
	cfg.Endpoints, cfg.Username = []string{"db:5432", "standby:5433"}, "d2c"
	cfg.TLS = configoptional.Some(configtls.NewDefaultClientConfig())
	pool, plain, err := connect(context.Background(), cfg)
	if err != nil || plain {
		t.Fatalf("plain %v, error %v", plain, err)
	}
	defer pool.Close()
	got := pool.Config().ConnConfig
	if got.Host != "db" || got.Port != 5432 || got.User != "d2c" || got.Database != "d2c" || got.Password != "" ||
		got.TLSConfig == nil || got.TLSConfig.ServerName != "db" || got.TLSConfig.InsecureSkipVerify ||
		len(got.Fallbacks) != 1 || got.Fallbacks[0].Host != "standby" || got.Fallbacks[0].TLSConfig.ServerName != "standby" ||
		fmt.Sprint(got.RuntimeParams) != "map[application_name:deltaring]" || got.ChannelBinding != "prefer" || got.RequireAuth != "" ||
		got.SSLNegotiation != "" {
		t.Errorf("%+v", got)
	}
	if strings.Contains(got.ConnString(), secret) {
		t.Error("the password is in the connection string")
	}
}
