// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"fmt"
	"time"

	"github.com/deltaring/deltaring/d2c/internal/commit"
	"github.com/deltaring/deltaring/d2c/internal/fold"
	"github.com/deltaring/deltaring/d2c/internal/table"
	"github.com/deltaring/deltaring/streamid"
)

// GapPolicy says what happens when a delta starts after the stream's last accepted time. Its text is the word that a
// configuration file uses.
type GapPolicy = fold.GapPolicy

const (
	// GapContinue adds the delta, counts the gap and remembers it so that a late delta can fill it.
	// Right where one process sees all of a stream.
	GapContinue = fold.GapContinue
	// GapRestart begins the stream anew at the delta, the data model's strict reading.
	// Right where a stream may have been elsewhere meanwhile and no state is shared.
	GapRestart = fold.GapRestart
)

// OverlapPolicy says what happens when a delta starts before the stream's last accepted time and ends after it. Its text is the
// word that a configuration file uses.
type OverlapPolicy = fold.OverlapPolicy

const (
	// OverlapAdd adds the delta whole.
	OverlapAdd = fold.OverlapAdd
	// OverlapDrop drops and counts it.
	OverlapDrop = fold.OverlapDrop
	// OverlapInterpolate adds the share of a sum that lies in time not yet covered, as if the delta had grown
	// evenly over its interval. Integers round towards zero. Histograms cannot be divided and are added whole.
	OverlapInterpolate = fold.OverlapInterpolate
)

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
	// MaxBuckets bounds the buckets of an explicit-bounds histogram; a point with more is dropped and counted. Zero means 4096.
	// (Exponential histograms keep 160 per sign, whatever comes in.)
	MaxBuckets int
	// Seed keys the stream identities, for those who ingest attributes chosen by strangers: who knows it can make two streams that
	// are taken for one. Choose it at random and keep it: with another seed all streams are other ones. Durable state of another
	// seed is refused (ErrOwner); in shared state each seed has its own records, so all Converters need the same.
	Seed uint64
	// Now is the clock: behind MaxStale, and for the floors of what was lost. Nil means time.Now. It is read once for each Convert
	// in memory and each Expire, and a few times for each commit.
	Now func() time.Time
}

const defaultMaxBuckets = 4096

// DefaultConfig returns: continue over gaps, add overlaps, a late window of 5 minutes, at most ten million streams,
// expiry after one hour.
func DefaultConfig() Config {
	return Config{LateWindow: 5 * time.Minute, MaxStreams: 10_000_000, MaxBuckets: defaultMaxBuckets, MaxStale: time.Hour}
}

// Validate reports the first field that is out of range, by name.
func (c Config) Validate() error {
	switch {
	case !fold.KnownGap(c.Gap):
		return fmt.Errorf("d2c: Gap: unknown policy %d", c.Gap)
	case !fold.KnownOverlap(c.Overlap):
		return fmt.Errorf("d2c: Overlap: unknown policy %d", c.Overlap)
	case c.LateWindow < 0:
		return fmt.Errorf("d2c: LateWindow: must not be negative, got %v", c.LateWindow)
	case c.MaxStreams < 0:
		return fmt.Errorf("d2c: MaxStreams: must not be negative, got %d", c.MaxStreams)
	case c.MaxBuckets < 0 || c.MaxBuckets > table.MaxHistogramBuckets:
		return fmt.Errorf("d2c: MaxBuckets: must be 0 to %d, got %d", table.MaxHistogramBuckets, c.MaxBuckets)
	case c.MaxStale < 0:
		return fmt.Errorf("d2c: MaxStale: must not be negative, got %v", c.MaxStale)
	}
	return nil
}

// newKey is replaced by tests that want streams in the same places each time.
var newKey = table.NewKey

// apply makes p, which is new, what the configuration says.
func (c Config) apply(p *commit.Pipeline) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.MaxBuckets == 0 {
		c.MaxBuckets = defaultMaxBuckets
	}
	p.Table = table.New(newKey())
	p.Rules = fold.Rules{Gap: c.Gap, Overlap: c.Overlap, LateWindow: c.LateWindow}
	p.Seed, p.MaxStreams, p.MaxBuckets, p.MaxStale = streamid.Seed(c.Seed), c.MaxStreams, c.MaxBuckets, c.MaxStale
	p.Time, p.Epoch = c.Now, c.Now()
}
