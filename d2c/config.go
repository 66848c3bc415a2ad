// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/deltaring/deltaring/d2c/internal/alike"
	"github.com/deltaring/deltaring/d2c/internal/commit"
	"github.com/deltaring/deltaring/d2c/internal/fold"
	"github.com/deltaring/deltaring/d2c/internal/points"
	"github.com/deltaring/deltaring/d2c/internal/table"
	"github.com/deltaring/deltaring/streamid"
)

// GapPolicy says what happens when a delta starts after the stream's last accepted time. Its text form is the word used in a
// configuration file.
type GapPolicy = fold.GapPolicy

const (
	// GapContinue adds the delta, counts the gap and remembers it so that a late delta can fill it. Use it if one process
	// sees all of a stream.
	GapContinue = fold.GapContinue
	// GapRestart restarts the stream at the delta, as the data model strictly requires. Use it if another process may have
	// had the stream in between and no state is shared.
	GapRestart = fold.GapRestart
	// GapRestartIfMoved restarts the stream if, according to the routes that gateways report, another worker may have had it
	// in between, and otherwise continues it. Use it behind gateways if no state is shared: producers send nothing for quiet
	// intervals, so most gaps are not losses.
	GapRestartIfMoved = fold.GapRestartIfMoved
)

// OverlapPolicy says what happens when a delta starts before the stream's last accepted time and ends after it. Its text
// form is the word used in a configuration file.
type OverlapPolicy = fold.OverlapPolicy

const (
	// OverlapAdd adds the delta whole.
	OverlapAdd = fold.OverlapAdd
	// OverlapDrop drops the delta and counts the drop.
	OverlapDrop = fold.OverlapDrop
	// OverlapInterpolate adds the share of a sum that lies in time not yet covered, as if the delta had grown
	// evenly over its interval. Integers round towards zero. Histograms cannot be divided and are added whole.
	OverlapInterpolate = fold.OverlapInterpolate
)

// Writers says how many producers a stream has. Its text form is the word used in a configuration file.
type Writers = fold.Writers

const (
	// WritersOne is what the data model requires: a delta's interval shows whether it was counted.
	WritersOne = fold.WritersOne
	// WritersMany is for producers that share an identity: count connectors, pre-forked workers, functions, statsd.
	// Intervals do not order deltas, and every delta is new unless an identical one came within the late window: see Many
	// writers in the package comment.
	WritersMany = fold.WritersMany
)

// Identical says how to treat a delta with the same interval and contents as one already counted. It applies to WritersMany
// only. Its text form is the word used in a configuration file.
type Identical = fold.Identical

const (
	// IdenticalRepeat treats it as the same delta, sent again.
	IdenticalRepeat = fold.IdenticalRepeat
	// IdenticalAdd treats it as a different delta. Use it if producers do not retry.
	IdenticalAdd = fold.IdenticalAdd
)

// MissingTime says what happens to points without a time. Its text form is the word used in a configuration file.
type MissingTime = fold.MissingTime

const (
	// MissingTimeDrop drops and counts them.
	MissingTimeDrop = fold.MissingTimeDrop
	// MissingTimeArrival gives them their arrival time and no start. Every such point is added, including one that is sent
	// again.
	MissingTimeArrival = fold.MissingTimeArrival
)

// Repairs is a set of kinds of malformed deltas whose meaning is clear.
type Repairs = fold.Repairs

const (
	// RepairInfiniteBound removes a last bound of +Inf, which is implied anyway.
	RepairInfiniteBound = fold.RepairInfiniteBound
	// RepairOverflowBucket restores a missing last bucket: it gets the difference between count and the other buckets.
	RepairOverflowBucket = fold.RepairOverflowBucket
	// RepairTrailingBuckets restores missing last buckets as empty if count equals the sum of the others.
	RepairTrailingBuckets = fold.RepairTrailingBuckets
	// RepairMissingCount sets a missing count to the sum of the buckets.
	RepairMissingCount = fold.RepairMissingCount
	// RepairRoundedBounds treats bounds as those of the stream if they differ only by rounding: 1e-12 of their value.
	RepairRoundedBounds = fold.RepairRoundedBounds
	// RepairStartAfterTime treats a start after its time as unknown.
	RepairStartAfterTime = fold.RepairStartAfterTime
	// RepairAll is all of these repairs.
	RepairAll = fold.RepairAll
)

// Config configures a Converter. The zero value is usable: no limits, no expiry, no late window. DefaultConfig suits most
// users.
type Config struct {
	// Gap is the policy for deltas that start after the stream's last accepted time.
	Gap GapPolicy
	// Overlap is the policy for deltas that start before the stream's last accepted time and end after it.
	Overlap OverlapPolicy
	// Writers says how many producers a stream has.
	Writers Writers
	// Identical says how to treat a delta identical to one already counted. It applies to WritersMany only.
	Identical Identical
	// MissingTime says what happens to points without a time.
	MissingTime MissingTime
	// Repair selects the kinds of malformed deltas to repair. Others are dropped and counted.
	Repair Repairs
	// EmitZero begins each life of a monotonic sum or a histogram with an extra sample of value zero, at the life's start or
	// just before its first sample, so that a backend that tells lives apart only by samples counts the first delta. See
	// Zeros and re-emission in the package comment. Do not use it with backends that create zeros from start timestamps.
	EmitZero bool
	// ReemitInterval lets Reemit emit the latest sample of a stream again once the stream has been quiet for this long.
	// Keeping the attributes of streams costs memory: at most 160 bytes for a stream with five attributes of 12 bytes. Zero
	// turns it off; otherwise at least a second.
	ReemitInterval time.Duration
	// LateWindow is how far behind a stream's last accepted time a missing delta is still recognised as missing and added.
	// With zero no gaps are remembered, and every delta that ends before the last accepted time is dropped.
	LateWindow time.Duration
	// MaxStreams bounds the number of live streams. Points of further streams are dropped and counted (it is unspecified
	// which of a batch); live streams are never evicted. Zero means no bound.
	MaxStreams int
	// MaxStale is how long a stream may go without a point that is added or recognised as a repeat before Expire forgets it,
	// with a resolution of one second. Zero keeps streams for ever.
	MaxStale time.Duration
	// MaxBuckets bounds the buckets of an explicit-bounds histogram; a point with more is dropped and counted. Zero means
	// 4096. Exponential histograms keep at most 160 per sign regardless.
	MaxBuckets int
	// Summaries names the metrics whose summaries carry deltas, as some libraries send them; a summary has no field for
	// that. Count and sum are added up by the rules for histograms, and an added point keeps the quantiles it came with. In
	// a name, * matches anything and ? any one byte. All other summaries are Passed.
	Summaries []string
	// Aggregate lists the rules by which many streams become one. The first rule that matches a metric applies.
	Aggregate []AggregateRule
	// Duplicates says which labels the backend uses to tell streams apart, so that streams it would take for one series can
	// be detected: see Duplicates. They are counted, and reported to OnNotice. Detection costs 10 bytes a stream, for the
	// latest million streams.
	Duplicates Duplicates
	// OnNotice, if not nil, is called with what stands out in a batch: points that were dropped or covered, and problems
	// that producers may not know about. Convert calls it at most once per kind and batch, or once per metric; it should
	// return quickly.
	OnNotice func(Notice)
	// Seed keys the stream identities, in case strangers choose the attributes: whoever knows the seed can construct two
	// streams with the same identity. Choose it at random and keep it, because another seed changes the identity of every
	// stream. Durable state of another seed is refused (ErrOwner). In shared state each seed has its own records, so all
	// Converters need the same one.
	Seed uint64
	// Now is the clock, used for MaxStale and for the floors of lost state. Nil means time.Now. It is read once for each
	// Convert in memory and each Expire, and a few times for each commit.
	Now func() time.Time
}

const defaultMaxBuckets = 4096

// MaxBuckets is the largest Config.MaxBuckets.
const MaxBuckets = table.MaxHistogramBuckets

// DefaultConfig returns the default configuration: one writer, continue over gaps, add overlaps, all repairs, a late window
// of 5 minutes, at most ten million streams, expiry after one hour.
func DefaultConfig() Config {
	return Config{Repair: RepairAll, LateWindow: 5 * time.Minute, MaxStreams: 10_000_000, MaxBuckets: defaultMaxBuckets, MaxStale: time.Hour}
}

// Validate returns an error that names the first field that is out of range.
func (c Config) Validate() error {
	switch {
	case !fold.KnownGap(c.Gap):
		return fmt.Errorf("d2c: Gap: unknown policy %d", c.Gap)
	case !fold.KnownOverlap(c.Overlap):
		return fmt.Errorf("d2c: Overlap: unknown policy %d", c.Overlap)
	case !fold.KnownWriters(c.Writers):
		return fmt.Errorf("d2c: Writers: unknown %d", c.Writers)
	case !fold.KnownIdentical(c.Identical):
		return fmt.Errorf("d2c: Identical: unknown policy %d", c.Identical)
	case c.Identical != IdenticalRepeat && c.Writers != WritersMany:
		return errors.New("d2c: Identical: is for WritersMany; of one writer, intervals say what was counted")
	case c.Writers == WritersMany && c.Gap != GapContinue:
		return errors.New("d2c: Gap: with WritersMany there are no gaps, leave it at GapContinue")
	case c.Writers == WritersMany && c.Overlap != OverlapAdd:
		return errors.New("d2c: Overlap: with WritersMany every overlap is added, leave it at OverlapAdd")
	case c.Writers == WritersMany && c.Identical == IdenticalRepeat && c.LateWindow <= 0:
		return errors.New("d2c: LateWindow: with WritersMany identical deltas are known for as long; give it a duration, or set IdenticalAdd")
	case !fold.KnownMissingTime(c.MissingTime):
		return fmt.Errorf("d2c: MissingTime: unknown policy %d", c.MissingTime)
	case c.Repair&^RepairAll != 0:
		return fmt.Errorf("d2c: Repair: unknown kinds %b", c.Repair&^RepairAll)
	case !c.Duplicates.Known():
		return fmt.Errorf("d2c: Duplicates: unknown %v", c.Duplicates)
	case slices.Contains(c.Summaries, ""):
		return errors.New("d2c: Summaries: no metric has an empty name")
	case c.ReemitInterval != 0 && c.ReemitInterval < time.Second:
		return fmt.Errorf("d2c: ReemitInterval: must be 0 or a second at least, got %v", c.ReemitInterval)
	case c.LateWindow < 0:
		return fmt.Errorf("d2c: LateWindow: must not be negative, got %v", c.LateWindow)
	case c.MaxStreams < 0:
		return fmt.Errorf("d2c: MaxStreams: must not be negative, got %d", c.MaxStreams)
	case c.MaxBuckets < 0 || c.MaxBuckets > MaxBuckets:
		return fmt.Errorf("d2c: MaxBuckets: must be 0 to %d, got %d", MaxBuckets, c.MaxBuckets)
	case c.MaxStale < 0:
		return fmt.Errorf("d2c: MaxStale: must not be negative, got %v", c.MaxStale)
	}
	_, err := c.aggregates()
	return err
}

// newKey is replaced by tests that want streams in the same places each time.
var newKey = table.NewKey

// apply makes p, which is new, what the configuration and its rules say.
func (c Config) apply(p *commit.Pipeline, a *aggregates) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.MaxBuckets == 0 {
		c.MaxBuckets = defaultMaxBuckets
	}
	p.Rules = fold.Rules{
		Gap: c.Gap, Overlap: c.Overlap, LateWindow: c.LateWindow, Writers: c.Writers, Identical: c.Identical, Repair: c.Repair,
		EmitZero: c.EmitZero,
	}
	p.Table = table.New(newKey(), &p.Rules)
	p.Reading = points.Reading{
		Seed: streamid.Seed(c.Seed), MaxBuckets: c.MaxBuckets, Repair: c.Repair, Arrival: c.MissingTime == MissingTimeArrival,
		Multiset: c.Writers == WritersMany && c.Identical == IdenticalRepeat,
	}
	p.Reading.Summaries, p.OnNotice = slices.Clone(c.Summaries), c.OnNotice
	if c.Duplicates != DuplicatesNone {
		p.Duplicates = alike.NewDetector(c.Duplicates)
	}
	p.MaxStreams, p.MaxStale = c.MaxStreams, c.MaxStale
	p.Time, p.Began = c.Now, c.Now()
	p.Epoch = p.Began
	if c.ReemitInterval > 0 {
		p.NameStreams(false)
	}
	if a != nil {
		p.Aggregate(&a.Aggregates)
		if a.held() && c.ReemitInterval == 0 {
			p.NameStreams(true)
		}
	}
}
