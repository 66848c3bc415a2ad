// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redisstate

import (
	"go.opentelemetry.io/collector/confmap"

	"github.com/deltaring/deltaring/internal/keys"
)

var _ confmap.Unmarshaler = (*Config)(nil)

// meant are keys under which others look for what is here.
var meant = map[string]string{
	"addr":      "did you mean endpoint?",
	"addrs":     "did you mean endpoints?",
	"address":   "did you mean endpoint?",
	"addresses": "did you mean endpoints?",
	"host":      "did you mean endpoint, as host:port?",
	"url":       "did you mean endpoint, as host:port?",
	"db":        "did you mean database?",
	"user":      "did you mean username?",
	"cluster":   "did you mean mode: cluster?",
	"sentinels": "did you mean mode: sentinel, with endpoints?",
	"master":    "did you mean sentinel::master_name?",
	"insecure":  "did you mean tls::insecure?",
	"ttl":       "did you mean record_ttl?",
}

// Unmarshal refuses unknown keys, and says which one was meant.
func (c *Config) Unmarshal(conf *confmap.Conf) error {
	return keys.Unmarshal(conf, c, meant)
}
