// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redisstate

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/configopaque"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/config/configtls"
	"go.opentelemetry.io/collector/confmap"

	"github.com/deltaring/deltaring/d2c/store/redis"
)

// Config is the configuration of the extension. NewFactory's default needs an endpoint; the zero value is not valid.
type Config struct {
	// Mode says what Endpoints are: "standalone" is one server, or whatever looks like one; "sentinel" are Sentinels that
	// know the server; "cluster" are nodes of a Redis Cluster. Default standalone.
	Mode Mode `mapstructure:"mode"`

	// Endpoint is the address of the server as host:port, where one is enough.
	Endpoint string `mapstructure:"endpoint"`

	// Endpoints are several of them, for sentinel and cluster. One that answers is enough.
	Endpoints []string `mapstructure:"endpoints"`

	// Sentinel is for mode sentinel only.
	Sentinel SentinelConfig `mapstructure:"sentinel"`

	// Username and Password are those of the data servers. Without a Username the password is that of the default user.
	Username string              `mapstructure:"username"`
	Password configopaque.String `mapstructure:"password"`

	// Database is the number of the database. A Cluster has only 0. Default 0.
	Database int `mapstructure:"database"`

	// Prefix is what all keys begin with. Fleets with the same prefix and the same processor ID share their state. Printable
	// ASCII without spaces and braces, at most 64 bytes; each byte is paid for with every stream. Default d2c.
	Prefix string `mapstructure:"prefix"`

	// TLS must be there for endpoints that are not loopback addresses: it has TLS on unless insecure: true is written out.
	// Without it, addresses that are not loopback are not talked to, whoever names them.
	TLS configoptional.Optional[configtls.ClientConfig] `mapstructure:"tls"`

	// DialTimeout, ReadTimeout and WriteTimeout are for one attempt. Default 2s, 1s, 1s.
	DialTimeout  time.Duration `mapstructure:"dial_timeout"`
	ReadTimeout  time.Duration `mapstructure:"read_timeout"`
	WriteTimeout time.Duration `mapstructure:"write_timeout"`

	// Timeout is for a batch with all attempts; the batches after it wait as long. Default 5s.
	Timeout time.Duration `mapstructure:"timeout"`

	// MaxRetries bounds how often a call is sent again when a server does not answer or cannot serve it yet. Default 3.
	MaxRetries int `mapstructure:"max_retries"`

	// PoolSize bounds the connections to each server. A processor uses one at a time. Default 10.
	PoolSize int `mapstructure:"pool_size"`

	// RecordTTL is how long a record is kept at least after it was last written; it may be up to twice that. All
	// Collectors that share state have the same. Longer than the processor's max_stale, or streams restart that were idle meanwhile. Zero keeps records for
	// ever. Default 24h.
	RecordTTL time.Duration `mapstructure:"record_ttl"`

	// Layout says how state is kept: "records" is a record for each stream, which any worker can change; "log" is a log for each group of
	// streams, at a tenth of the costs, where gateways send each group to one worker. What one of them keeps is not there for the
	// other. All Collectors that share state have the same. Default records.
	Layout Layout `mapstructure:"layout"`

	// Groups is the number of groups of streams, and so of logs, with layout log: a power of two from 16 to 256, and the same from the first
	// to the last, here and in the exporters that route to the processors. Default 64.
	Groups int `mapstructure:"groups"`

	// CommitInterval has batches wait, with layout log, until so long after the last commit began, so that a commit has several of them.
	// Default 0.
	CommitInterval time.Duration `mapstructure:"commit_interval"`

	// WaitReplicas is the number of replicas that must have what was written before a batch goes out, so that a failover to
	// one of them loses nothing. It costs a round trip of replication per batch. Default 0.
	WaitReplicas int `mapstructure:"wait_replicas"`

	// WaitTimeout is how long they may take. Default 500ms.
	WaitTimeout time.Duration `mapstructure:"wait_timeout"`

	// prevent unkeyed literal initialization
	_ struct{}
}

// SentinelConfig is what only Sentinels need.
type SentinelConfig struct {
	// MasterName is the name under which the Sentinels know the server.
	MasterName string `mapstructure:"master_name"`

	// Username and Password are those of the Sentinels themselves.
	Username string              `mapstructure:"username"`
	Password configopaque.String `mapstructure:"password"`

	// prevent unkeyed literal initialization
	_ struct{}
}

// Mode is how the servers are organised.
type Mode string

// The modes.
const (
	ModeStandalone Mode = "standalone"
	ModeSentinel   Mode = "sentinel"
	ModeCluster    Mode = "cluster"
)

// Layout is how state is kept.
type Layout string

// The layouts.
const (
	LayoutRecords Layout = "records"
	LayoutLog     Layout = "log"
)

const defaultGroups, minGroups, maxGroups = 64, 16, 256

var (
	_ component.Config  = (*Config)(nil)
	_ confmap.Validator = (*Config)(nil)
)

func createDefaultConfig() component.Config {
	return &Config{
		Mode:         ModeStandalone,
		Prefix:       "d2c",
		TLS:          configoptional.Default(configtls.NewDefaultClientConfig()),
		DialTimeout:  2 * time.Second,
		ReadTimeout:  time.Second,
		WriteTimeout: time.Second,
		Timeout:      5 * time.Second,
		MaxRetries:   3,
		PoolSize:     10,
		RecordTTL:    24 * time.Hour,
		Layout:       LayoutRecords,
		WaitTimeout:  500 * time.Millisecond,
	}
}

// Validate reports the first value that is out of range, by its YAML key.
func (c *Config) Validate() error {
	if err := c.validateServers(); err != nil {
		return err
	}
	if err := redis.ValidatePrefix(c.Prefix); err != nil {
		return fmt.Errorf("prefix: %w", err)
	}
	for _, d := range []struct {
		key  string
		d    time.Duration
		zero bool
	}{
		{"dial_timeout", c.DialTimeout, false},
		{"read_timeout", c.ReadTimeout, false},
		{"write_timeout", c.WriteTimeout, false},
		{"timeout", c.Timeout, false},
		{"record_ttl", c.RecordTTL, true},
		{"wait_timeout", c.WaitTimeout, c.WaitReplicas == 0},
	} {
		switch {
		case d.d < 0 || d.d == 0 && !d.zero:
			return fmt.Errorf("%s: must be positive, got %v", d.key, d.d)
		case d.d != 0 && d.d < time.Millisecond:
			return fmt.Errorf("%s: must be a millisecond at least, got %v", d.key, d.d)
		}
	}
	switch {
	case c.MaxRetries < 0:
		return fmt.Errorf("max_retries: must not be negative, got %d", c.MaxRetries)
	case c.PoolSize <= 0:
		return fmt.Errorf("pool_size: must be positive, got %d", c.PoolSize)
	case c.WaitReplicas < 0:
		return fmt.Errorf("wait_replicas: must not be negative, got %d", c.WaitReplicas)
	case c.WaitReplicas > 0 && c.WaitTimeout >= c.Timeout:
		return fmt.Errorf("wait_timeout: must be shorter than timeout, %v, got %v", c.Timeout, c.WaitTimeout)
	}
	return c.validateLayout()
}

func (c *Config) validateLayout() error {
	switch c.Layout {
	case LayoutRecords:
		switch {
		case c.Groups != 0:
			return fmt.Errorf("groups: only goes with layout: %s; set that, or remove groups", LayoutLog)
		case c.CommitInterval != 0:
			return fmt.Errorf("commit_interval: only goes with layout: %s; set that, or remove commit_interval", LayoutLog)
		}
		return nil
	case LayoutLog:
	default:
		return fmt.Errorf("layout: unknown %q, want %s or %s", c.Layout, LayoutRecords, LayoutLog)
	}
	switch n := c.Groups; {
	case n != 0 && (n < minGroups || n > maxGroups || n&(n-1) != 0):
		return fmt.Errorf("groups: must be a power of two from %d to %d, got %d", minGroups, maxGroups, n)
	case c.RecordTTL != 0 && c.RecordTTL < time.Second:
		return fmt.Errorf("record_ttl: must be a second at least with layout: %s, or 0 to keep records for ever, got %v", LayoutLog, c.RecordTTL)
	case c.CommitInterval < 0:
		return fmt.Errorf("commit_interval: must not be negative, got %v", c.CommitInterval)
	case c.CommitInterval != 0 && c.CommitInterval < time.Millisecond:
		return fmt.Errorf("commit_interval: must be a millisecond at least, or 0, got %v; is there a unit missing", c.CommitInterval)
	case c.CommitInterval > 0 && c.CommitInterval >= c.Timeout:
		return fmt.Errorf("commit_interval: must be shorter than timeout, %v, got %v", c.Timeout, c.CommitInterval)
	}
	return nil
}

// groups is how many there are with layout log.
func (c *Config) groups() int {
	if c.Groups == 0 {
		return defaultGroups
	}
	return c.Groups
}

func (c *Config) validateServers() error {
	switch c.Mode {
	case ModeStandalone, ModeSentinel, ModeCluster:
	default:
		return fmt.Errorf("mode: unknown %q, want %s, %s or %s", c.Mode, ModeStandalone, ModeSentinel, ModeCluster)
	}
	sentinel := c.Mode == ModeSentinel
	switch {
	case c.Endpoint != "" && len(c.Endpoints) > 0:
		return errors.New("endpoint: must not be there beside endpoints")
	case c.Endpoint == "" && len(c.Endpoints) == 0:
		return errors.New("endpoint: must be there, as host:port")
	case len(c.Endpoints) > 1 && c.Mode == ModeStandalone:
		return fmt.Errorf("endpoints: one is all that mode %s has, got %d", c.Mode, len(c.Endpoints))
	case sentinel && c.Sentinel.MasterName == "":
		return fmt.Errorf("sentinel::master_name: must be there in mode %s", c.Mode)
	case !sentinel && c.Sentinel != SentinelConfig{}:
		return fmt.Errorf("sentinel: must not be there in mode %s", c.Mode)
	case c.Username != "" && c.Password == "":
		return errors.New("password: must be there beside username")
	case c.Sentinel.Username != "" && c.Sentinel.Password == "":
		return errors.New("sentinel::password: must be there beside sentinel::username")
	case c.Database < 0:
		return fmt.Errorf("database: must not be negative, got %d", c.Database)
	case c.Database > 0 && c.Mode == ModeCluster:
		return fmt.Errorf("database: a cluster has only 0, got %d", c.Database)
	}
	for _, endpoint := range c.endpoints() {
		host, port, err := net.SplitHostPort(endpoint)
		if err != nil {
			return fmt.Errorf("endpoint: %q: want host:port", endpoint)
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" {
			return fmt.Errorf("endpoint: %q: want host:port", endpoint)
		}
		if !c.TLS.HasValue() && !loopback(host) {
			return fmt.Errorf("tls: must be there because %q is not a loopback address; "+
				"without TLS, anybody on the way reads the password and the counters: "+
				"if that is acceptable, write out insecure: true under tls", endpoint)
		}
	}
	return nil
}

func (c *Config) endpoints() []string {
	if c.Endpoint != "" {
		return []string{c.Endpoint}
	}
	return c.Endpoints
}

// transport returns what connections are made with; nil means without TLS, and open that this is so for any address.
func (c *Config) transport(ctx context.Context) (cfg *tls.Config, open bool, err error) {
	if !c.TLS.HasValue() {
		return nil, false, nil
	}
	cfg, err = c.TLS.Get().LoadTLSConfig(ctx)
	if err != nil {
		return nil, false, fmt.Errorf("tls: %w", err)
	}
	return cfg, cfg == nil, nil
}

// loopback reports whether host can only be this machine.
func loopback(host string) bool {
	if ip := net.ParseIP(host); ip != nil {
		return ip.IsLoopback()
	}
	return host == "localhost"
}
