// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"fmt"
	"time"
)

// GapPolicy says what happens when a delta starts after the stream's last accepted time.
type GapPolicy uint8

const (
	// GapContinue adds the delta, counts the gap and remembers it so that a late delta can fill it.
	// Right where one process sees all of a stream.
	GapContinue GapPolicy = iota
	// GapRestart begins the stream anew at the delta, the data model's strict reading.
	// Right where a stream may have been elsewhere meanwhile and no state is shared.
	GapRestart
)

// OverlapPolicy says what happens when a delta starts before the stream's last accepted time and ends after it.
type OverlapPolicy uint8

const (
	// OverlapAdd adds the delta whole.
	OverlapAdd OverlapPolicy = iota
	// OverlapDrop drops and counts it.
	OverlapDrop
	// OverlapInterpolate adds the share of a sum that lies in time not yet covered, as if the delta had grown
	// evenly over its interval. Integers round towards zero. Histograms cannot be divided and are added whole.
	OverlapInterpolate
)

var (
	gapNames     = []string{"continue", "restart"}
	overlapNames = []string{"add", "drop", "interpolate"}
)

// String returns the word a configuration file uses.
func (p GapPolicy) String() string { return policyName(gapNames, int(p)) }

// MarshalText implements encoding.TextMarshaler.
func (p GapPolicy) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; an unknown word is an error that lists the known ones.
func (p *GapPolicy) UnmarshalText(text []byte) error {
	i, err := parsePolicy(gapNames, text)
	if err == nil {
		*p = GapPolicy(i)
	}
	return err
}

// String returns the word a configuration file uses.
func (p OverlapPolicy) String() string { return policyName(overlapNames, int(p)) }

// MarshalText implements encoding.TextMarshaler.
func (p OverlapPolicy) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; an unknown word is an error that lists the known ones.
func (p *OverlapPolicy) UnmarshalText(text []byte) error {
	i, err := parsePolicy(overlapNames, text)
	if err == nil {
		*p = OverlapPolicy(i)
	}
	return err
}

func policyName(names []string, i int) string {
	if i < len(names) {
		return names[i]
	}
	return fmt.Sprintf("policy(%d)", i)
}

func parsePolicy(names []string, text []byte) (int, error) {
	for i, name := range names {
		if name == string(text) {
			return i, nil
		}
	}
	return 0, fmt.Errorf("unknown policy %q, want one of %q", text, names)
}

// Config configures a Converter. The zero value is usable: no limits, no expiry, no late window;
// DefaultConfig returns what most want.
type Config struct {
	// Gap is the policy for deltas that start after the stream's last accepted time.
	Gap GapPolicy
	// Overlap is the policy for deltas that start before the stream's last accepted time and end after it.
	Overlap OverlapPolicy
	// LateWindow is how far behind a stream's last accepted time a missing delta is still recognised as missing and
	// added. Zero remembers no gaps: every delta that ends before the last accepted time is dropped.
	LateWindow time.Duration
	// MaxStreams bounds the number of live streams. Points of further streams are dropped and counted (which ones of a
	// batch is not specified); live streams are never evicted. Zero means no bound.
	MaxStreams int
	// MaxStale is how long a stream may go without a point that was added or recognised as a repeat before Expire forgets
	// it; resolution one second. Zero keeps streams for ever.
	MaxStale time.Duration
	// Seed keys the stream identities, for those who ingest attributes chosen by strangers.
	Seed uint64
	// Now is the clock behind MaxStale; nil means time.Now. It is read once per Convert and once per Expire.
	Now func() time.Time
}

// DefaultConfig returns: continue over gaps, add overlaps, a late window of 5 minutes, at most ten million streams,
// expiry after one hour.
func DefaultConfig() Config {
	return Config{LateWindow: 5 * time.Minute, MaxStreams: 10_000_000, MaxStale: time.Hour}
}

// Validate reports the first field that is out of range, by name.
func (c Config) Validate() error {
	switch {
	case int(c.Gap) >= len(gapNames):
		return fmt.Errorf("d2c: Gap: unknown policy %d", c.Gap)
	case int(c.Overlap) >= len(overlapNames):
		return fmt.Errorf("d2c: Overlap: unknown policy %d", c.Overlap)
	case c.LateWindow < 0:
		return fmt.Errorf("d2c: LateWindow: must not be negative, got %v", c.LateWindow)
	case c.MaxStreams < 0:
		return fmt.Errorf("d2c: MaxStreams: must not be negative, got %d", c.MaxStreams)
	case c.MaxStale < 0:
		return fmt.Errorf("d2c: MaxStale: must not be negative, got %v", c.MaxStale)
	}
	return nil
}
