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
	// GapRestartIfMoved begins the stream anew where it may have been elsewhere meanwhile, by the routes that gateways tell, and
	// goes on otherwise. Right behind gateways where no state is shared: a producer sends nothing for quiet intervals, so that most
	// gaps are no losses.
	GapRestartIfMoved = fold.GapRestartIfMoved
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

// Writers says how many producers a stream has. Its text is the word that a configuration file uses.
type Writers = fold.Writers

const (
	// WritersOne is what the data model asks for: intervals say what was counted.
	WritersOne = fold.WritersOne
	// WritersMany have one identity: count connectors, pre-forked workers, functions, statsd. Intervals order nothing, and every
	// delta is new that is not identical to one of the late window: see Many writers in the package comment.
	WritersMany = fold.WritersMany
)

// Identical says what a delta is that is identical, by interval and contents, to one that was counted; of WritersMany only. Its
// text is the word that a configuration file uses.
type Identical = fold.Identical

const (
	// IdenticalRepeat takes it for the same delta, sent again.
	IdenticalRepeat = fold.IdenticalRepeat
	// IdenticalAdd takes it for another. Right where producers do not retry.
	IdenticalAdd = fold.IdenticalAdd
)

// MissingTime says what becomes of points without a time. Its text is the word that a configuration file uses.
type MissingTime = fold.MissingTime

const (
	// MissingTimeDrop drops and counts them.
	MissingTimeDrop = fold.MissingTimeDrop
	// MissingTimeArrival gives them the time of their arrival, and no start: each is added, also one that was sent again.
	MissingTimeArrival = fold.MissingTimeArrival
)

// Repairs are the kinds of deltas that are malformed and yet say what they mean.
type Repairs = fold.Repairs

const (
	// RepairInfiniteBound leaves out a last bound of +Inf: it says what is so without it.
	RepairInfiniteBound = fold.RepairInfiniteBound
	// RepairOverflowBucket takes what count has more than the buckets for that of the last bucket, where that is missing.
	RepairOverflowBucket = fold.RepairOverflowBucket
	// RepairTrailingBuckets takes last buckets that are missing for empty, where count is that of the others.
	RepairTrailingBuckets = fold.RepairTrailingBuckets
	// RepairMissingCount takes the sum of the buckets for a count that is not there.
	RepairMissingCount = fold.RepairMissingCount
	// RepairRoundedBounds takes bounds for those of the stream that differ by rounding: 1e-12 of their value.
	RepairRoundedBounds = fold.RepairRoundedBounds
	// RepairStartAfterTime takes a start after its time for unknown.
	RepairStartAfterTime = fold.RepairStartAfterTime
	// RepairAll is all of them.
	RepairAll = fold.RepairAll
)

// Config configures a Converter. The zero value is usable: no limits, no expiry, no late window;
// DefaultConfig returns what most want.
type Config struct {
	// Gap is the policy for deltas that start after the stream's last accepted time.
	Gap GapPolicy
	// Overlap is the policy for deltas that start before the stream's last accepted time and end after it.
	Overlap OverlapPolicy
	// Writers says how many producers a stream has.
	Writers Writers
	// Identical says what a delta is that is identical to one that was counted, of WritersMany.
	Identical Identical
	// MissingTime says what becomes of points without a time.
	MissingTime MissingTime
	// Repair has the kinds of malformed deltas that are repaired. Others are dropped and counted.
	Repair Repairs
	// EmitZero gives out one more sample of monotonic sums and of histograms where a life begins, of value zero: at its start, or
	// just before its first sample. A backend that tells lives apart by samples alone sees the first delta so. See Zeros and re-emission in
	// the package comment. It is not for backends that make zeros themselves from start timestamps.
	EmitZero bool
	// ReemitInterval lets Reemit give out streams again of which nothing has come for that long. It costs memory for who the streams are:
	// at most 160 bytes for a stream with five attributes of 12 bytes. Zero is off, a second the least.
	ReemitInterval time.Duration
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
	// Summaries are the names of metrics whose summaries carry deltas, as some libraries send them: a summary has no field that
	// says so. Count and sum are added up by the same rules as those of a histogram, and the quantiles of what is added stay as they
	// came. In a name * is anything and ? any one byte. All other summaries are Passed.
	Summaries []string
	// Aggregate says of which metrics one stream is made out of many, and how. The first rule that matches counts.
	Aggregate []AggregateRule
	// Duplicates says what labels the backend tells streams apart by, to find those that it takes for one series: see Duplicates.
	// What is found is counted, and told by OnNotice. It costs 10 bytes a stream, for the latest million streams.
	Duplicates Duplicates
	// OnNotice, if not nil, is told what stands out in a batch: points that were dropped or covered, and what its producers may not
	// know. It is called by Convert, for each kind once a batch at most, or once a metric; it should return soon.
	OnNotice func(Notice)
	// Seed keys the stream identities, for those who ingest attributes chosen by strangers: who knows it can make two streams that
	// are taken for one. Choose it at random and keep it: with another seed all streams are other ones. Durable state of another
	// seed is refused (ErrOwner); in shared state each seed has its own records, so all Converters need the same.
	Seed uint64
	// Now is the clock: behind MaxStale, and for the floors of what was lost. Nil means time.Now. It is read once for each Convert
	// in memory and each Expire, and a few times for each commit.
	Now func() time.Time
}

const defaultMaxBuckets = 4096

// MaxBuckets is the largest Config.MaxBuckets.
const MaxBuckets = table.MaxHistogramBuckets

// DefaultConfig returns: one writer, continue over gaps, add overlaps, repair what may be, a late window of 5 minutes, at most
// ten million streams, expiry after one hour.
func DefaultConfig() Config {
	return Config{Repair: RepairAll, LateWindow: 5 * time.Minute, MaxStreams: 10_000_000, MaxBuckets: defaultMaxBuckets, MaxStale: time.Hour}
}

// Validate reports the first field that is out of range, by name.
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
