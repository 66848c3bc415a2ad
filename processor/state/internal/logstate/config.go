// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package logstate

import (
	"fmt"
	"math/bits"
	"time"
)

// Config is what the configurations of all these extensions have. It is embedded with `mapstructure:",squash"`.
type Config struct {
	// Groups is how many logs there are for a processor: a power of two, 1 to 256. All Collectors that share state have the same. A
	// commit is a request for each group that it has streams of, so where requests are paid for fewer are cheaper; and a group has one
	// writer at a time, so there are more of them than workers, better by far.
	Groups int `mapstructure:"groups"`

	// CommitInterval is how far apart commits are at least: batches that come meanwhile wait for the next. Zero does not wait.
	CommitInterval time.Duration `mapstructure:"commit_interval"`

	// Timeout is for a commit, with all attempts.
	Timeout time.Duration `mapstructure:"timeout"`

	// RecordTTL is how long a record is kept at least after it was last written. All Collectors that share state have the same. Longer
	// than the processor's max_stale, or streams restart that were idle meanwhile. Zero keeps records for ever. Default 24h.
	RecordTTL time.Duration `mapstructure:"record_ttl"`

	// prevent unkeyed literal initialization
	_ struct{}
}

const (
	maxGroups = 256
	// DefaultRecordTTL is the default of RecordTTL.
	DefaultRecordTTL = 24 * time.Hour
)

// Check reports the first value that is out of range, by its YAML key. It is not named Validate, because the one of the whole
// configuration would not be the only one then that is called.
func (c *Config) Check() error {
	switch {
	case c.Groups < 1 || c.Groups > maxGroups || bits.OnesCount(uint(c.Groups)) != 1:
		return fmt.Errorf("groups: must be a power of two, 1 to %d, got %d", maxGroups, c.Groups)
	case c.Timeout <= 0:
		return fmt.Errorf("timeout: must be positive, got %v", c.Timeout)
	case c.CommitInterval < 0:
		return fmt.Errorf("commit_interval: must not be negative, got %v", c.CommitInterval)
	case c.RecordTTL < 0 || c.RecordTTL > 0 && c.RecordTTL < time.Second:
		return fmt.Errorf("record_ttl: must be a second at least, or zero for ever, got %v", c.RecordTTL)
	}
	return nil
}
