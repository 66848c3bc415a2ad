// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package s3state

import (
	"context"
	"fmt"
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
		{"a bucket is enough", map[string]any{"bucket": "state"}, ""},
		{"no bucket", map[string]any{}, "bucket: must be there"},
		{"a path", map[string]any{"bucket": "state/d2c"}, `bucket: must be the name of a bucket`},
		{"a URL", map[string]any{"bucket": "s3://state"}, `bucket: must be the name of a bucket`},
		{"a short name", map[string]any{"bucket": "a"}, `bucket: must be`},
		{"dots", map[string]any{"bucket": ".."}, `bucket: must be`},
		{"a compatible store", map[string]any{"bucket": "state", "endpoint": "https://minio.example:9000", "path_style": true}, ""},
		{"on this machine", map[string]any{"bucket": "state", "endpoint": "http://127.0.0.1:9000"}, ""},
		{"on localhost", map[string]any{"bucket": "state", "endpoint": "http://localhost:9000/"}, ""},
		{"IPv6 loopback", map[string]any{"bucket": "state", "endpoint": "http://[::1]:9000"}, ""},
		{"plain and elsewhere", map[string]any{"bucket": "state", "endpoint": "http://minio:9000"}, `endpoint: must be https because "minio" is not a loopback address`},
		{"looks like localhost", map[string]any{"bucket": "state", "endpoint": "http://localhost.example"}, "endpoint: must be https"},
		{"plain with TLS", map[string]any{"bucket": "state", "endpoint": "http://minio:9000", "tls": map[string]any{}}, "endpoint: must be https"},
		{"plain, as written out", map[string]any{"bucket": "state", "endpoint": "http://minio:9000", "tls": map[string]any{"insecure": true}}, ""},
		{"insecure https", map[string]any{"bucket": "state", "endpoint": "https://minio:9000", "tls": map[string]any{"insecure": true}}, "insecure_skip_verify"},
		{"no scheme", map[string]any{"bucket": "state", "endpoint": "minio:9000"}, "endpoint: must be a URL"},
		{"another scheme", map[string]any{"bucket": "state", "endpoint": "ftp://minio:9000"}, `endpoint: must be https or http, got "ftp"`},
		{"a path after it", map[string]any{"bucket": "state", "endpoint": "https://minio:9000/state"}, "endpoint: must have nothing after the port"},
		{"a password in it", map[string]any{"bucket": "state", "endpoint": "https://user:" + secret + "@minio:9000"}, "endpoint: must have no user"},
		{"a password in what is no URL", map[string]any{"bucket": "state", "endpoint": "https://user:" + secret + "@mi nio:9000"}, "endpoint: must be a URL"},
		{"credentials", map[string]any{"bucket": "state", "access_key_id": "key", "secret_access_key": secret}, ""},
		{"a key without a secret", map[string]any{"bucket": "state", "access_key_id": "key"}, "secret_access_key: must be there"},
		{"a secret without a key", map[string]any{"bucket": "state", "secret_access_key": secret}, "access_key_id: must be there"},
		{"prefix", map[string]any{"bucket": "state", "prefix": "teams/billing"}, ""},
		{"no prefix", map[string]any{"bucket": "state", "prefix": ""}, "prefix: must be parts"},
		{"a slash at the end", map[string]any{"bucket": "state", "prefix": "d2c/"}, "prefix: must be parts"},
		{"up", map[string]any{"bucket": "state", "prefix": "d2c/../other"}, "prefix: must be parts"},
		{"a space in the prefix", map[string]any{"bucket": "state", "prefix": "d 2c"}, `prefix: must not contain ' '`},
		{"long prefix", map[string]any{"bucket": "state", "prefix": strings.Repeat("a", 257)}, "prefix: must have at most 256 bytes"},
		{"groups", map[string]any{"bucket": "state", "groups": 4}, ""},
		{"groups that are no power of two", map[string]any{"bucket": "state", "groups": 10}, "groups: must be a power of two"},
		{"at once", map[string]any{"bucket": "state", "commit_interval": "0s"}, ""},
		{"for ever", map[string]any{"bucket": "state", "record_ttl": "0s"}, ""},
		{"an interval without a unit", map[string]any{"bucket": "state", "commit_interval": 5}, "commit_interval: must be a millisecond at least, got 5ns; is there a unit missing?"},
		{"a timeout without a unit", map[string]any{"bucket": "state", "timeout": 10}, "timeout: must be a millisecond at least"},
		{"record_ttl in seconds forgotten", map[string]any{"bucket": "state", "record_ttl": 86400}, "record_ttl: must be a millisecond at least"},
		{"no timeout", map[string]any{"bucket": "state", "timeout": "0s"}, "timeout: must be positive"},
		{"unknown key", map[string]any{"bucket": "state", "role": "x"}, "role: there is no such key; there are access_key_id, "},
		{"a key of others", map[string]any{"bucket": "state", "force_path_style": true}, "did you mean path_style?"},
		{"a misspelt key", map[string]any{"bucket": "state", "comit_interval": "1s"}, "did you mean commit_interval?"},
		{"a key from below", map[string]any{"bucket": "state", "ca_file": "x"}, "did you mean tls::ca_file?"},
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
				t.Errorf("a secret is in the error: %v", err)
			}
		})
	}
}

func TestDefaults(t *testing.T) {
	cfg := createDefaultConfig().(*Config)
	if cfg.Prefix != "d2c" || cfg.RecordTTL != 24*time.Hour || cfg.Groups != 16 || cfg.CommitInterval != 2*time.Second || cfg.Timeout != 10*time.Second {
		t.Errorf("%+v", cfg)
	}
	cfg.AccessKeyID, cfg.SecretAccessKey = secret, secret
	conf := confmap.New()
	if err := conf.Marshal(cfg); err != nil {
		t.Fatal(err)
	}
	if printed := fmt.Sprintf("%v %+v %v", cfg, cfg, conf.ToStringMap()); strings.Contains(printed, secret) {
		t.Errorf("a secret is printed: %s", printed)
	}
}

// What the environment says is held to the same rules.
func TestEnvironment(t *testing.T) {
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", "/nowhere")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	cfg := createDefaultConfig().(*Config)
	cfg.Bucket = "state"
	connected := func(want string) {
		t.Helper()
		_, _, err := connect(context.Background(), cfg)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	connected("region: must be there")
	t.Setenv("AWS_REGION", "eu-central-1")
	connected("")
	t.Setenv("AWS_ENDPOINT_URL", "http://elsewhere:9000")
	connected("endpoint of the environment: must be https")
	t.Setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
	connected("")
	t.Setenv("AWS_REGION", "")
	cfg.Endpoint = "https://minio.example"
	connected("")
}
