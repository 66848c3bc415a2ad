// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2cprocessor

import (
	"fmt"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"

	"github.com/deltaring/deltaring/d2c"
)

// Config is the configuration of the processor. NewFactory's default is what most want; the zero value is valid too and
// means no limit, no expiry, no late window.
type Config struct {
	// MaxStale is how long a stream may go without an accepted point before it is forgotten; its next point opens a new
	// stream. Idle streams are looked for every tenth of it, though not more often than every second and at least every
	// minute. Choose it longer than the longest interval at which producers report. Zero keeps streams for ever.
	// Default 1h.
	MaxStale time.Duration `mapstructure:"max_stale"`

	// MaxStreams bounds the number of streams, and so the memory. Points of further streams are dropped and counted;
	// known streams are never evicted. Zero means no bound. Default 10000000.
	MaxStreams int `mapstructure:"max_streams"`

	// Gap says what happens when a delta starts after its stream had ended: "continue" (the zero value) adds it and
	// remembers the gap, "restart" begins the stream anew. Several Collectors among which streams may move want
	// "restart". Default continue.
	Gap d2c.GapPolicy `mapstructure:"gap"`

	// Overlap says what happens when a delta starts before its stream had ended and ends after it: "add" (the zero value)
	// adds it whole, "drop" drops it, "interpolate" adds the share of a sum that lies in time not yet covered.
	// Default add.
	Overlap d2c.OverlapPolicy `mapstructure:"overlap"`

	// LateWindow is how far behind its stream a missing delta may come and still be added. Zero remembers no gaps: every
	// delta that ends before its stream does is dropped. Default 5m.
	LateWindow time.Duration `mapstructure:"late_window"`

	// State says where the state of the streams is kept besides in memory. By default it is nowhere: a restart of the
	// process restarts every stream.
	State StateConfig `mapstructure:"state"`

	// prevent unkeyed literal initialization
	_ struct{}
}

// StateConfig says where the state of the streams is kept.
type StateConfig struct {
	// Storage names a storage extension, for instance file_storage. A batch is stored before it is passed on and before it
	// is acknowledged, and refused (the sender may retry) if it cannot be, so that restarts and crashes lose nothing.
	Storage *component.ID `mapstructure:"storage"`

	// prevent unkeyed literal initialization
	_ struct{}
}

var (
	_ component.Config  = (*Config)(nil)
	_ confmap.Validator = (*Config)(nil)
)

func createDefaultConfig() component.Config {
	def := d2c.DefaultConfig()
	return &Config{
		MaxStale:   def.MaxStale,
		MaxStreams: def.MaxStreams,
		Gap:        def.Gap,
		Overlap:    def.Overlap,
		LateWindow: def.LateWindow,
	}
}

// Validate reports the first value that is out of range, by its YAML key. It repeats what d2c.Config.Validate checks
// because that one speaks of Go fields.
func (c *Config) Validate() error {
	switch {
	case c.MaxStale < 0:
		return fmt.Errorf("max_stale: must not be negative, got %v", c.MaxStale)
	case c.MaxStreams < 0:
		return fmt.Errorf("max_streams: must not be negative, got %d", c.MaxStreams)
	case c.Gap > d2c.GapRestart:
		return fmt.Errorf("gap: unknown %v", c.Gap)
	case c.Overlap > d2c.OverlapInterpolate:
		return fmt.Errorf("overlap: unknown %v", c.Overlap)
	case c.LateWindow < 0:
		return fmt.Errorf("late_window: must not be negative, got %v", c.LateWindow)
	}
	return nil
}

func (c *Config) converter() d2c.Config {
	return d2c.Config{
		Gap:        c.Gap,
		Overlap:    c.Overlap,
		LateWindow: c.LateWindow,
		MaxStreams: c.MaxStreams,
		MaxStale:   c.MaxStale,
	}
}
