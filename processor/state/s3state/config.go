// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package s3state

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/configopaque"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/config/configtls"
	"go.opentelemetry.io/collector/confmap"

	"github.com/deltaring/deltaring/d2c/store/s3"
	"github.com/deltaring/deltaring/internal/keys"
	"github.com/deltaring/deltaring/internal/units"
	"github.com/deltaring/deltaring/processor/state/internal/logstate"
)

// Config is the configuration of the extension. NewFactory's default needs a bucket; the zero value is not valid.
type Config struct {
	// Bucket is the name of the bucket. It must be there.
	Bucket string `mapstructure:"bucket"`

	// Region is that of the bucket. Default that of the environment, as the AWS SDK finds it; for another endpoint us-east-1.
	Region string `mapstructure:"region"`

	// Endpoint is the URL of a compatible store, or of another endpoint of S3. Without TLS only this machine is talked to, unless
	// insecure: true is written out under tls. Default S3 in the region.
	Endpoint string `mapstructure:"endpoint"`

	// PathStyle has the bucket in the path of URLs, as most compatible stores want it, and not in the name of the host. Default false.
	PathStyle bool `mapstructure:"path_style"`

	// AccessKeyID and SecretAccessKey are credentials of the store. Default those that the AWS SDK finds: environment, files, the role of
	// a service account, a task or an instance.
	AccessKeyID     configopaque.String `mapstructure:"access_key_id"`
	SecretAccessKey configopaque.String `mapstructure:"secret_access_key"`

	// Prefix is what all keys begin with. Fleets with the same bucket, prefix and processor ID share their state. Default d2c.
	Prefix string `mapstructure:"prefix"`

	// TLS is for an endpoint whose certificate is not of an authority that this system trusts, or that has no TLS.
	TLS configoptional.Optional[configtls.ClientConfig] `mapstructure:"tls"`

	// Groups is 16 by default, CommitInterval 2s, Timeout 10s, RecordTTL 24h.
	logstate.Config `mapstructure:",squash"`

	// prevent unkeyed literal initialization
	_ struct{}
}

var (
	_ component.Config    = (*Config)(nil)
	_ confmap.Unmarshaler = (*Config)(nil)
	_ confmap.Validator   = (*Config)(nil)
)

// meant are keys under which others look for what is here.
var meant = map[string]string{
	"s3_bucket":           "did you mean bucket?",
	"s3_prefix":           "did you mean prefix?",
	"url":                 "did you mean endpoint?",
	"s3uploader":          "its keys have no key above them here: bucket, region, prefix, endpoint",
	"force_path_style":    "did you mean path_style?",
	"s3_force_path_style": "did you mean path_style?",
	"access_key":          "did you mean access_key_id?",
	"secret_key":          "did you mean secret_access_key?",
	"role_arn":            "roles come from the environment, as the AWS SDK finds them: AWS_ROLE_ARN, a service account, a task or an instance",
	"insecure":            "did you mean tls::insecure?",
	"interval":            "did you mean commit_interval?",
	"ttl":                 "did you mean record_ttl?",
}

// Unmarshal refuses unknown keys, and says which one was meant.
func (c *Config) Unmarshal(conf *confmap.Conf) error {
	return keys.Unmarshal(conf, c, meant)
}

func createDefaultConfig() component.Config {
	return &Config{
		Prefix: "d2c",
		TLS:    configoptional.Default(configtls.NewDefaultClientConfig()),
		Config: logstate.Config{
			Groups:         16,
			CommitInterval: 2 * time.Second,
			Timeout:        10 * time.Second,
			RecordTTL:      logstate.DefaultRecordTTL,
		},
	}
}

// bucketName is what stores agree on, and some more that older ones allow. It is a part of paths.
var bucketName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]$`)

// Validate reports the first value that is out of range, by its YAML key.
func (c *Config) Validate() error {
	if err := units.Check(c); err != nil {
		return err
	}
	switch {
	case c.Bucket == "":
		return errors.New("bucket: must be there")
	case !bucketName.MatchString(c.Bucket):
		return fmt.Errorf("bucket: must be the name of a bucket, 3 to 63 letters, digits, dots and hyphens, got %q", c.Bucket)
	case c.AccessKeyID != "" && c.SecretAccessKey == "":
		return errors.New("secret_access_key: must be there beside access_key_id")
	case c.AccessKeyID == "" && c.SecretAccessKey != "":
		return errors.New("access_key_id: must be there beside secret_access_key")
	}
	if err := s3.ValidatePrefix(c.Prefix); err != nil {
		return fmt.Errorf("prefix: %w", err)
	}
	if c.Endpoint != "" {
		if err := c.checkEndpoint(c.Endpoint); err != nil {
			return fmt.Errorf("endpoint: %w", err)
		}
	}
	return c.Check()
}

// checkEndpoint says what is wrong with a URL. The environment can have one too. What it says has no password of the URL.
func (c *Config) checkEndpoint(endpoint string) error {
	u, err := url.Parse(endpoint)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "":
		return errors.New("must be a URL, like https://s3.example:9000")
	case u.User != nil:
		return errors.New("must have no user and no password: see access_key_id and secret_access_key")
	case u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/":
		return fmt.Errorf("must have nothing after the port, got %q", u.Redacted())
	}
	insecure := c.TLS.HasValue() && c.TLS.Get().Insecure
	switch u.Scheme {
	case "https":
		if insecure {
			return errors.New("is https, and insecure: true is written out under tls; for a certificate that cannot be verified, see tls::insecure_skip_verify")
		}
	case "http":
		if !insecure && !loopback(u.Hostname()) {
			return fmt.Errorf("must be https because %q is not a loopback address; without TLS, anybody on the way reads the counters: "+
				"if that is acceptable, write out insecure: true under tls", u.Hostname())
		}
	default:
		return fmt.Errorf("must be https or http, got %q", u.Scheme)
	}
	return nil
}

// loopback reports whether host can only be this machine.
func loopback(host string) bool {
	if ip := net.ParseIP(host); ip != nil {
		return ip.IsLoopback()
	}
	return host == "localhost"
}

// place is the bucket, for the log.
func (c *Config) place() string {
	if c.Endpoint != "" {
		return c.Endpoint + "/" + c.Bucket
	}
	return "s3://" + c.Bucket
}
