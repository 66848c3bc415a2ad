// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redisstate

import (
	"context"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/confmap"
)

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		name string
		yaml map[string]any
		want string // in the error, none if empty
	}{
		{"one server here", map[string]any{"endpoint": "127.0.0.1:6379"}, ""},
		{"localhost", map[string]any{"endpoint": "localhost:6379"}, ""},
		{"IPv6 loopback", map[string]any{"endpoint": "[::1]:6379"}, ""},
		{"list of one", map[string]any{"endpoints": []any{"127.0.0.2:6379"}}, ""},
		{"elsewhere", map[string]any{"endpoint": "redis:6379"}, `tls: must be there because "redis:6379" is not a loopback address`},
		{"looks like localhost", map[string]any{"endpoint": "localhost.example:6379"}, "tls: "},
		{"one of them elsewhere", map[string]any{"mode": "cluster", "endpoints": []any{"127.0.0.1:1", "10.0.0.1:1"}}, `tls: must be there because "10.0.0.1:1"`},
		{"elsewhere with TLS", map[string]any{"endpoint": "redis:6379", "tls": map[string]any{}}, ""},
		{"elsewhere with an empty key", map[string]any{"endpoint": "redis:6379", "tls": nil}, ""},
		{"elsewhere and insecure", map[string]any{"endpoint": "redis:6379", "tls": map[string]any{"insecure": true}}, ""},
		{"elsewhere and insecure: false", map[string]any{"endpoint": "redis:6379", "tls": map[string]any{"insecure": false}}, ""},
		{"TLS half", map[string]any{"endpoint": "redis:6379", "tls": map[string]any{"cert_file": "x"}}, "tls: "},
		{"nothing", map[string]any{}, "endpoint: must be there"},
		{"both", map[string]any{"endpoint": "127.0.0.1:1", "endpoints": []any{"127.0.0.1:1"}}, "endpoint: must not be there beside endpoints"},
		{"no port", map[string]any{"endpoint": "127.0.0.1"}, `endpoint: "127.0.0.1": want host:port`},
		{"port zero", map[string]any{"endpoint": "127.0.0.1:0"}, "want host:port"},
		{"no host", map[string]any{"endpoint": ":6379"}, "want host:port"},
		{"a URL", map[string]any{"endpoint": "redis://127.0.0.1:6379"}, "want host:port"},
		{"several without a mode", map[string]any{"endpoints": []any{"127.0.0.1:1", "127.0.0.1:2"}}, "endpoints: one is all"},
		{"unknown mode", map[string]any{"mode": "ring", "endpoint": "127.0.0.1:1"}, `mode: unknown "ring"`},
		{"sentinel", map[string]any{"mode": "sentinel", "endpoints": []any{"127.0.0.1:1", "127.0.0.1:2"}, "sentinel": map[string]any{"master_name": "m"}}, ""},
		{"sentinel without a name", map[string]any{"mode": "sentinel", "endpoint": "127.0.0.1:1"}, "sentinel::master_name: must be there"},
		{"a name without sentinel", map[string]any{"endpoint": "127.0.0.1:1", "sentinel": map[string]any{"master_name": "m"}}, "sentinel: must not be there"},
		{"sentinel user only", map[string]any{"mode": "sentinel", "endpoint": "127.0.0.1:1", "sentinel": map[string]any{"master_name": "m", "username": "u"}}, "sentinel::password: "},
		{"user only", map[string]any{"endpoint": "127.0.0.1:1", "username": "u"}, "password: must be there beside username"},
		{"database", map[string]any{"endpoint": "127.0.0.1:1", "database": 3}, ""},
		{"database below zero", map[string]any{"endpoint": "127.0.0.1:1", "database": -1}, "database: "},
		{"database of a cluster", map[string]any{"mode": "cluster", "endpoint": "127.0.0.1:1", "database": 1}, "database: a cluster has only 0"},
		{"no prefix", map[string]any{"endpoint": "127.0.0.1:1", "prefix": ""}, "prefix: must not be empty"},
		{"prefix with a brace", map[string]any{"endpoint": "127.0.0.1:1", "prefix": "a{b"}, "prefix: must not contain '{'"},
		{"prefix with a space", map[string]any{"endpoint": "127.0.0.1:1", "prefix": "a b"}, "prefix: must not contain ' '"},
		{"prefix with an umlaut", map[string]any{"endpoint": "127.0.0.1:1", "prefix": "ä"}, "prefix: must not contain"},
		{"long prefix", map[string]any{"endpoint": "127.0.0.1:1", "prefix": strings.Repeat("a", 65)}, "prefix: must have at most 64 bytes, got 65"},
		{"no timeout", map[string]any{"endpoint": "127.0.0.1:1", "timeout": "0s"}, "timeout: must be positive"},
		{"dial_timeout", map[string]any{"endpoint": "127.0.0.1:1", "dial_timeout": "-1s"}, "dial_timeout: must be positive"},
		{"read_timeout", map[string]any{"endpoint": "127.0.0.1:1", "read_timeout": "0"}, "read_timeout: must be positive"},
		{"write_timeout", map[string]any{"endpoint": "127.0.0.1:1", "write_timeout": "1us"}, "write_timeout: must be a millisecond at least"},
		{"for ever", map[string]any{"endpoint": "127.0.0.1:1", "record_ttl": "0s"}, ""},
		{"record_ttl below zero", map[string]any{"endpoint": "127.0.0.1:1", "record_ttl": "-1h"}, "record_ttl: "},
		{"record_ttl in seconds forgotten", map[string]any{"endpoint": "127.0.0.1:1", "record_ttl": 86400}, "record_ttl: must be a millisecond at least"},
		{"max_retries", map[string]any{"endpoint": "127.0.0.1:1", "max_retries": -1}, "max_retries: "},
		{"pool_size", map[string]any{"endpoint": "127.0.0.1:1", "pool_size": 0}, "pool_size: "},
		{"wait_replicas", map[string]any{"endpoint": "127.0.0.1:1", "wait_replicas": -1}, "wait_replicas: "},
		{"wait_timeout", map[string]any{"endpoint": "127.0.0.1:1", "wait_replicas": 1, "wait_timeout": "5s"}, "wait_timeout: must be shorter than timeout"},
		{"no wait_timeout", map[string]any{"endpoint": "127.0.0.1:1", "wait_replicas": 1, "wait_timeout": "0s"}, "wait_timeout: must be positive"},
		{"unknown key", map[string]any{"endpoint": "127.0.0.1:1", "replicas": 1}, "replicas: there is no such key"},
		{"an address", map[string]any{"addr": "127.0.0.1:1"}, "addr: there is no such key; did you mean endpoint?"},
		{"a key from below", map[string]any{"endpoint": "127.0.0.1:1", "master_name": "m"}, "did you mean sentinel::master_name?"},
		{"by log", map[string]any{"endpoint": "127.0.0.1:1", "layout": "log", "groups": 128, "commit_interval": "5ms"}, ""},
		{"by record", map[string]any{"endpoint": "127.0.0.1:1", "layout": "records"}, ""},
		{"unknown layout", map[string]any{"endpoint": "127.0.0.1:1", "layout": "logs"}, `layout: unknown "logs", want records or log`},
		{"groups of records", map[string]any{"endpoint": "127.0.0.1:1", "groups": 64}, "groups: only goes with layout: log"},
		{"groups of records, by name", map[string]any{"endpoint": "127.0.0.1:1", "layout": "records", "groups": 64}, "groups: only goes with layout: log"},
		{"commit_interval of records", map[string]any{"endpoint": "127.0.0.1:1", "commit_interval": "5ms"}, "commit_interval: only goes with layout: log"},
		{"few groups", map[string]any{"endpoint": "127.0.0.1:1", "layout": "log", "groups": 8}, "groups: must be a power of two from 16 to 256, got 8"},
		{"many groups", map[string]any{"endpoint": "127.0.0.1:1", "layout": "log", "groups": 512}, "groups: must be a power of two"},
		{"odd groups", map[string]any{"endpoint": "127.0.0.1:1", "layout": "log", "groups": 100}, "groups: must be a power of two"},
		{"groups below zero", map[string]any{"endpoint": "127.0.0.1:1", "layout": "log", "groups": -64}, "groups: must be a power of two"},
		{"commit_interval below zero", map[string]any{"endpoint": "127.0.0.1:1", "layout": "log", "commit_interval": "-1s"}, "commit_interval: must not be negative"},
		{"commit_interval in milliseconds forgotten", map[string]any{"endpoint": "127.0.0.1:1", "layout": "log", "commit_interval": 5}, "commit_interval: must be a millisecond at least"},
		{"long commit_interval", map[string]any{"endpoint": "127.0.0.1:1", "layout": "log", "commit_interval": "5s"}, "commit_interval: must be shorter than timeout"},
		{"short record_ttl of a log", map[string]any{"endpoint": "127.0.0.1:1", "layout": "log", "record_ttl": "10ms"}, "record_ttl: must be a second at least with layout: log"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := createDefaultConfig()
			err := confmap.NewFromStringMap(c.yaml).Unmarshal(cfg)
			if err == nil {
				err = confmap.Validate(cfg)
			}
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				// Whoever says tls and not insecure: true, has TLS.
				tlsConfig, plain, err := cfg.(*Config).transport(context.Background())
				written, said := c.yaml["tls"]
				section, _ := written.(map[string]any)
				insecure := section["insecure"] == true
				if err != nil || (tlsConfig != nil) != (said && !insecure) || plain != insecure {
					t.Errorf("TLS %v, plain %v, error %v", tlsConfig != nil, plain, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestDefaults(t *testing.T) {
	cfg := createDefaultConfig().(*Config)
	if cfg.Prefix != "d2c" || cfg.RecordTTL != 24*time.Hour || cfg.Mode != ModeStandalone || cfg.Layout != LayoutRecords || cfg.groups() != 64 || cfg.WaitReplicas != 0 {
		t.Errorf("%+v", cfg)
	}
	cfg.Password, cfg.Sentinel.Password = secret, secret
	conf := confmap.New()
	if err := conf.Marshal(cfg); err != nil {
		t.Fatal(err)
	}
	for key, value := range conf.ToStringMap() {
		if text, ok := value.(string); ok && strings.Contains(text, secret) {
			t.Errorf("%s is printed", key)
		}
	}
}
