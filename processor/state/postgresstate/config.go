// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package postgresstate

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/configopaque"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/config/configtls"
	"go.opentelemetry.io/collector/confmap"

	"github.com/deltaring/deltaring/d2c/store/postgres"
	"github.com/deltaring/deltaring/internal/keys"
	"github.com/deltaring/deltaring/internal/units"
	"github.com/deltaring/deltaring/processor/state/internal/logstate"
)

// Config is the configuration of the extension. NewFactory's default needs an endpoint and a username; the zero value is not valid.
type Config struct {
	// Endpoint is the address of the server as host:port.
	Endpoint string `mapstructure:"endpoint"`

	// Endpoints are several of them, in its place: a primary and its standbys, in any order. The first is used that takes writes.
	Endpoints []string `mapstructure:"endpoints"`

	// Database is the name of the database. It must be there. Default d2c.
	Database string `mapstructure:"database"`

	// Username and Password are those of the server.
	Username string              `mapstructure:"username"`
	Password configopaque.String `mapstructure:"password"`

	// Schema is where in the database the tables are: small letters, digits and underscores. They are made if they are not there. Fleets
	// with the same database, schema and processor ID share their state. Default d2c.
	Schema string `mapstructure:"schema"`

	// TLS must be there for endpoints that are not loopback addresses: it has TLS on unless insecure: true is written out.
	TLS configoptional.Optional[configtls.ClientConfig] `mapstructure:"tls"`

	// PoolSize bounds the connections. A processor uses one for commits, and more where it reads what others have written. Default 4.
	PoolSize int `mapstructure:"pool_size"`

	// Groups is 64 by default, CommitInterval 0, Timeout 5s, RecordTTL 24h.
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
	"dsn":               "write endpoint, database, username and password as keys of their own",
	"datasource":        "write endpoint, database, username and password as keys of their own",
	"connection_string": "write endpoint, database, username and password as keys of their own",
	"url":               "write endpoint, database, username and password as keys of their own",
	"host":              "did you mean endpoint, as host:port?",
	"port":              "did you mean endpoint, as host:port?",
	"address":           "did you mean endpoint?",
	"db":                "did you mean database?",
	"dbname":            "did you mean database?",
	"user":              "did you mean username?",
	"sslmode":           "did you mean tls?",
	"ssl":               "did you mean tls?",
	"insecure":          "did you mean tls::insecure?",
	"max_connections":   "did you mean pool_size?",
	"table":             "did you mean schema?",
	"interval":          "did you mean commit_interval?",
	"ttl":               "did you mean record_ttl?",
}

// Unmarshal refuses unknown keys, and says which one was meant.
func (c *Config) Unmarshal(conf *confmap.Conf) error {
	return keys.Unmarshal(conf, c, meant)
}

func createDefaultConfig() component.Config {
	return &Config{
		Database: "d2c",
		Schema:   "d2c",
		TLS:      configoptional.Default(configtls.NewDefaultClientConfig()),
		PoolSize: 4,
		Config: logstate.Config{
			Groups:    64,
			Timeout:   5 * time.Second,
			RecordTTL: logstate.DefaultRecordTTL,
		},
	}
}

// Validate reports the first value that is out of range, by its YAML key.
func (c *Config) Validate() error {
	if err := units.Check(c); err != nil {
		return err
	}
	switch {
	case c.Endpoint != "" && len(c.Endpoints) > 0:
		return errors.New("endpoint: must not be there beside endpoints")
	case c.Endpoint == "" && len(c.Endpoints) == 0:
		return errors.New("endpoint: must be there, as host:port")
	}
	for _, endpoint := range c.endpoints() {
		host, _, err := split(endpoint)
		if err != nil {
			return err
		}
		if !c.TLS.HasValue() && !loopback(host) {
			return fmt.Errorf("tls: must be there because %q is not a loopback address; "+
				"without TLS, anybody on the way reads the counters, and may read the password: "+
				"if that is acceptable, write out insecure: true under tls", endpoint)
		}
	}
	for _, name := range []struct{ key, value string }{{"database", c.Database}, {"username", c.Username}} {
		switch {
		case name.value == "":
			return fmt.Errorf("%s: must be there", name.key)
		case strings.ContainsRune(name.value, 0):
			return fmt.Errorf("%s: must not contain a zero byte", name.key)
		}
	}
	if err := postgres.ValidateSchema(c.Schema); err != nil {
		return fmt.Errorf("schema: %w", err)
	}
	if c.PoolSize < 1 || c.PoolSize > 1000 {
		return fmt.Errorf("pool_size: must be 1 to 1000, got %d", c.PoolSize)
	}
	return c.Check()
}

func (c *Config) endpoints() []string {
	if c.Endpoint != "" {
		return []string{c.Endpoint}
	}
	return c.Endpoints
}

// split does not repeat what it is given unless that is an address: it may be a URL with a password.
func split(endpoint string) (host string, port uint16, err error) {
	host, text, err := net.SplitHostPort(endpoint)
	if strings.ContainsAny(endpoint, "/@?= ") {
		return "", 0, errors.New("endpoint: want host:port, and not a URL: see username, password and database")
	}
	n, failed := strconv.ParseUint(text, 10, 16)
	if err != nil || failed != nil || n == 0 || host == "" {
		return "", 0, fmt.Errorf("endpoint: %q: want host:port", endpoint)
	}
	return host, uint16(n), nil
}

// loopback reports whether host can only be this machine.
func loopback(host string) bool {
	if ip := net.ParseIP(host); ip != nil {
		return ip.IsLoopback()
	}
	return host == "localhost"
}

// place is the database, for the log.
func (c *Config) place() string { return strings.Join(c.endpoints(), ",") + "/" + c.Database }
