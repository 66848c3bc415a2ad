// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2cprocessor

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/internal/aggregate"
	"github.com/deltaring/deltaring/internal/keys"
	"github.com/deltaring/deltaring/internal/tenant"
)

// Config is the configuration of the processor. NewFactory's default is what most want; the zero value is valid too and
// means no limit, no expiry, no late window.
type Config struct {
	// MaxStale is how long a stream may go without an accepted point before it is forgotten; its next point opens a new
	// stream. Idle streams are looked for every tenth of it, though not more often than every second and at least every
	// minute. Choose it longer than the longest interval at which producers report; a second at least. Zero keeps streams
	// for ever. Default 1h.
	MaxStale time.Duration `mapstructure:"max_stale"`

	// MaxStreams bounds the number of streams, and so the memory. Points of further streams are dropped and counted;
	// known streams are never evicted. Zero means no bound. Default 10000000.
	MaxStreams int `mapstructure:"max_streams"`

	// MaxBuckets bounds the buckets of a histogram with explicit bounds: a point with more is dropped and counted. Default 4096.
	MaxBuckets int `mapstructure:"max_buckets"`

	// Gap says what happens when a delta starts after its stream had ended: "continue" (the zero value) adds it and
	// remembers the gap; "restart" begins the stream anew; "restart_if_moved" does so only where the stream may have been
	// elsewhere meanwhile, by what gateways of the exporter ring say (include_metadata: true at the receiver), and without them
	// always. Producers send nothing for quiet intervals, so that a gap is normal, and "restart" restarts every sparse counter at
	// each. Several Collectors among which streams move, and which share no state, want "restart_if_moved". Default continue.
	Gap d2c.GapPolicy `mapstructure:"gap"`

	// Overlap says what happens when a delta starts before its stream had ended and ends after it: "add" (the zero value)
	// adds it whole, "drop" drops it, "interpolate" adds the share of a sum that lies in time not yet covered.
	// Default add.
	Overlap d2c.OverlapPolicy `mapstructure:"overlap"`

	// Writers says how many producers a stream has. "one" (the zero value): a delta's interval says what was counted, and what
	// covers counted time is not added. "many": producers share an identity (count connectors, pre-forked workers, functions,
	// statsd), intervals order nothing, and each delta is added unless an identical one was within LateWindow. Default one.
	Writers d2c.Writers `mapstructure:"writers"`

	// Identical says what a delta is whose interval and contents are those of one that was counted, with Writers "many": a
	// "repeat" (the zero value), so that a retry does not count, or another one to "add", for producers that never retry and whose
	// times are rounded. Default repeat.
	Identical d2c.Identical `mapstructure:"identical"`

	// MissingTime says what becomes of points without a time: "drop" (the zero value), or "arrival", which gives them the time at
	// which they come. Each is added then, also one that is sent again. Default drop.
	MissingTime d2c.MissingTime `mapstructure:"missing_time"`

	// Repair says which malformed points are repaired because there is no doubt what they mean. All are, by default.
	Repair RepairConfig `mapstructure:"repair"`

	// LateWindow is how far behind its stream a missing delta may come and still be added. Zero remembers no gaps: every
	// delta that ends before its stream does is dropped. A millisecond at least. Default 5m.
	LateWindow time.Duration `mapstructure:"late_window"`

	// Summaries are the names of metrics whose summaries carry deltas, as some libraries send them: a summary has no field that says
	// so. Count and sum are added up by the rules of a histogram, and the quantiles of what is added stay as they came. In a name * is
	// anything and ? any one byte. Default none: summaries pass.
	Summaries []string `mapstructure:"summaries"`

	// Aggregate makes one stream out of many: of the metrics that a rule matches it takes attributes away, and adds up, exactly, what
	// has the same ones left. The first rule that matches counts. Default none.
	Aggregate []AggregateConfig `mapstructure:"aggregate"`

	// WarnDuplicates says what the backend makes labels of, besides the attributes of points, to warn of streams that it takes for
	// one series (d2c_streams_duplicate): whose values print the same, like 200 and "200"; which differ by an empty value, or in
	// characters that become underscores; or else in a resource that is no label. "service": namespace, name and instance of
	// the service, which Prometheus makes job and instance of. "resource": all of the resource, and the scope, for backends and
	// exporters that are told to (promote_all_resource_attributes, resource_constant_labels). "none" does not look. Looked at
	// are streams when they are opened, which takes 0.4 µs, and the latest million is remembered, in 10 bytes each. Default service.
	WarnDuplicates d2c.Duplicates `mapstructure:"warn_duplicates"`

	// EmitZero begins each life of a monotonic sum or a histogram with one more sample of value zero, at its start or, if that is
	// taken or more than five minutes earlier, just before its first sample: without it a backend that goes by samples alone does not
	// count a counter's first delta, nor the first after a restart. Not for backends that make zeros from start timestamps: Prometheus
	// with created-timestamp-zero-ingestion, Mimir. Default false.
	EmitZero bool `mapstructure:"emit_zero"`

	// ReemitInterval gives out again the latest sample of a stream of which nothing has come for that long, and so on until max_stale, so
	// that rate() of a counter that is seldom counted has its points: choose a fourth of the shortest range of such queries. A second at
	// least; zero is off. It costs up to 160 bytes for a stream with five attributes of 12 bytes. Default 0.
	ReemitInterval time.Duration `mapstructure:"reemit_interval"`

	// StaleMarkers gives out a "no recorded value" point of each stream that expires (see MaxStale), as far as ReemitInterval, which it
	// needs, would give it out again: Prometheus ends the series there. Default false.
	StaleMarkers bool `mapstructure:"stale_markers"`

	// MetadataKeys are the client metadata (request headers) that tell tenants apart: their values are part of the identity of every
	// stream in a batch, so that tenants who send the same streams never see each other's totals. Several values count in their
	// order; a header that is missing is not an empty one. Receivers need include_metadata: true, and what comes before this processor
	// must not merge batches of several tenants: the batch processor and queues that batch have metadata_keys of their own.
	// Default none: the metadata does not count.
	MetadataKeys []string `mapstructure:"metadata_keys"`

	// Seed keys the identities of streams, where strangers choose attributes: who knows it can make two streams that are taken for
	// one. Choose it at random, keep it, and give all Collectors that share state the same. With another seed all streams are other
	// ones: state in Storage is refused at start, and what is in Shared under the old one is not read. Default 0.
	Seed uint64 `mapstructure:"seed"`

	// State says where the state of the streams is kept besides in memory. By default it is nowhere: a restart of the
	// process restarts every stream.
	State StateConfig `mapstructure:"state"`

	// prevent unkeyed literal initialization
	_ struct{}
}

// AggregateConfig is a rule by which streams are added up: streams that differ only in what is left out are the writers of one total. Gateways
// that route by it have the same list.
type AggregateConfig struct {
	aggregate.RuleConfig `mapstructure:",squash"`

	// KeepInput has the metrics given out as well, as if there were no rule. Their points are counted twice in d2c_points. Default
	// false.
	KeepInput bool `mapstructure:"keep_input"`

	// Interval is the time between samples of a total, which come by the clock then and whether or not anything was counted. Zero, the
	// default, gives out a sample of each total with each batch that has a point of it. A second at least, and less than max_stale.
	Interval time.Duration `mapstructure:"interval"`

	// MaxWriters bounds the writers of a total. Points of further ones are dropped and counted; a writer is forgotten max_stale
	// after its last point, what it has counted stays. Default 100000.
	MaxWriters int `mapstructure:"max_writers"`

	// prevent unkeyed literal initialization
	_ struct{}
}

// defaultMaxWriters is what no MaxWriters is: the items of a list have no defaults of their own.
const defaultMaxWriters = 100_000

// RepairConfig says which malformed points are repaired, and counted in d2c_points_repaired. Others are dropped and counted.
type RepairConfig struct {
	// InfiniteBound leaves out a last bound of +Inf. Default true.
	InfiniteBound bool `mapstructure:"infinite_bound"`
	// OverflowBucket puts in a last bucket that is missing, with what count has more than the others. Default true.
	OverflowBucket bool `mapstructure:"overflow_bucket"`
	// TrailingBuckets puts in last buckets that are missing, empty, where count is that of the others. Default true.
	TrailingBuckets bool `mapstructure:"trailing_buckets"`
	// MissingCount puts in the sum of the buckets for a count that is not there. Default true.
	MissingCount bool `mapstructure:"missing_count"`
	// RoundedBounds takes bounds for those of the stream that differ by no more than 1e-12 of their value. Default true.
	RoundedBounds bool `mapstructure:"rounded_bounds"`
	// StartAfterTime takes a start after its time for unknown. Default true.
	StartAfterTime bool `mapstructure:"start_after_time"`

	// prevent unkeyed literal initialization
	_ struct{}
}

// meant are keys under which others look for what is here.
var meant = map[string]string{
	"delta_to_cumulative": "put what is below it directly below this processor",
	"deltatocumulative":   "put what is below it directly below this processor",
	"storage":             "did you mean state::storage?",
	"state::redis":        "did you mean state::shared: redis_state?",
	"state::redis_state":  "did you mean state::shared: redis_state?",
	"state::file_storage": "did you mean state::storage: file_storage?",
	"interval":            "did you mean reemit_interval, or interval of a rule in aggregate?",
	"max_series":          "did you mean max_streams?",
	"max_staleness":       "did you mean max_stale?",
	"tenants":             "did you mean metadata_keys?",
}

// Unmarshal refuses unknown keys, and says which one was meant.
func (c *Config) Unmarshal(conf *confmap.Conf) error {
	if err := keys.Check(conf, c, meant); err != nil {
		return err
	}
	return conf.Unmarshal(c)
}

func (c *RepairConfig) repairs() (all d2c.Repairs) {
	for kind, on := range map[d2c.Repairs]bool{
		d2c.RepairInfiniteBound:   c.InfiniteBound,
		d2c.RepairOverflowBucket:  c.OverflowBucket,
		d2c.RepairTrailingBuckets: c.TrailingBuckets,
		d2c.RepairMissingCount:    c.MissingCount,
		d2c.RepairRoundedBounds:   c.RoundedBounds,
		d2c.RepairStartAfterTime:  c.StartAfterTime,
	} {
		if on {
			all |= kind
		}
	}
	return all
}

// StateConfig says where the state of the streams is kept.
type StateConfig struct {
	// Storage names a storage extension, for instance file_storage. A batch is stored before it is passed on and before it
	// is acknowledged, and refused (the sender may retry) if it cannot be, so that restarts and crashes lose nothing.
	Storage *component.ID `mapstructure:"storage"`

	// Shared names an extension that keeps the state for a whole fleet, for instance redis_state. Any worker may get any
	// delta of any stream then; max_stale and max_streams are about what one worker has in memory. Not with Storage: what
	// would be true if the two differed?
	Shared *component.ID `mapstructure:"shared"`

	// OnError says what to do with batches while Shared fails: "reject" refuses them (the sender may retry), "local" converts
	// them with what the worker has in memory, remembers up to MaxOutstanding points of them, and commits these when the
	// extension is back. With "local" a crash in that time loses what is outstanding. It is for streams of which one worker
	// sees all: where several do, values may fall under one start, and deltas that came to them by turns are missed and counted in d2c_points_missed.
	// Default reject.
	OnError OnError `mapstructure:"on_error"`

	// MaxOutstanding bounds the points that OnError "local" remembers. Default 1000000.
	MaxOutstanding int `mapstructure:"max_outstanding"`

	// prevent unkeyed literal initialization
	_ struct{}
}

// OnError is a policy for failing shared state.
type OnError string

// The policies.
const (
	OnErrorReject OnError = "reject"
	OnErrorLocal  OnError = "local"
)

var (
	_ component.Config    = (*Config)(nil)
	_ confmap.Unmarshaler = (*Config)(nil)
	_ confmap.Validator   = (*Config)(nil)
)

func createDefaultConfig() component.Config {
	def := d2c.DefaultConfig()
	return &Config{
		MaxStale:   def.MaxStale,
		MaxStreams: def.MaxStreams,
		MaxBuckets: def.MaxBuckets,
		Gap:        def.Gap,
		Overlap:    def.Overlap,
		LateWindow: def.LateWindow,

		WarnDuplicates: d2c.DuplicatesService,
		Repair: RepairConfig{
			InfiniteBound: true, OverflowBucket: true, TrailingBuckets: true, MissingCount: true, RoundedBounds: true,
			StartAfterTime: true,
		},
		State: StateConfig{OnError: OnErrorReject, MaxOutstanding: 1_000_000},
	}
}

// Validate reports the first value that is out of range, by its YAML key. It repeats what d2c.Config.Validate checks
// because that one speaks of Go fields.
func (c *Config) Validate() error {
	switch {
	case c.MaxStale < 0:
		return fmt.Errorf("max_stale: must not be negative, got %v", c.MaxStale)
	case c.MaxStale != 0 && c.MaxStale < time.Second:
		return fmt.Errorf("max_stale: must be a second at least, got %v; is there a unit missing?", c.MaxStale)
	case c.MaxStreams < 0:
		return fmt.Errorf("max_streams: must not be negative, got %d", c.MaxStreams)
	case c.MaxBuckets < 0 || c.MaxBuckets > d2c.MaxBuckets:
		return fmt.Errorf("max_buckets: must be 0 to %d, got %d", d2c.MaxBuckets, c.MaxBuckets)
	case c.Gap > d2c.GapRestartIfMoved:
		return fmt.Errorf("gap: unknown %v", c.Gap)
	case c.Gap == d2c.GapRestartIfMoved && c.State.Shared != nil:
		return errors.New("gap: restart_if_moved is for workers that share no state; with state::shared leave it at continue")
	case c.Writers > d2c.WritersMany:
		return fmt.Errorf("writers: unknown %v", c.Writers)
	case c.Identical > d2c.IdenticalAdd:
		return fmt.Errorf("identical: unknown %v", c.Identical)
	case c.MissingTime > d2c.MissingTimeArrival:
		return fmt.Errorf("missing_time: unknown %v", c.MissingTime)
	case c.Identical != d2c.IdenticalRepeat && c.Writers != d2c.WritersMany:
		return errors.New("identical: is for writers: many; of one writer, intervals say what was counted")
	case c.Writers == d2c.WritersMany && c.Gap != d2c.GapContinue:
		return errors.New("gap: with writers: many there are no gaps, leave it at continue")
	case c.Writers == d2c.WritersMany && c.Overlap != d2c.OverlapAdd:
		return errors.New("overlap: with writers: many every overlap is added, leave it at add")
	case c.Writers == d2c.WritersMany && c.Identical == d2c.IdenticalRepeat && c.LateWindow == 0:
		return errors.New("late_window: with writers: many identical deltas are known for as long; give it a duration, or set identical: add")
	case c.Overlap > d2c.OverlapInterpolate:
		return fmt.Errorf("overlap: unknown %v", c.Overlap)
	case slices.Contains(c.Summaries, ""):
		return errors.New("summaries: no metric has an empty name")
	case !c.WarnDuplicates.Known():
		return fmt.Errorf("warn_duplicates: unknown %v", c.WarnDuplicates)
	case c.ReemitInterval != 0 && c.ReemitInterval < time.Second:
		return fmt.Errorf("reemit_interval: must be 0 or a second at least, got %v; is there a unit missing?", c.ReemitInterval)
	case c.StaleMarkers && (c.ReemitInterval == 0 || c.MaxStale == 0):
		return errors.New("stale_markers: needs reemit_interval, for who the streams are, and max_stale, when they expire")
	case c.LateWindow < 0:
		return fmt.Errorf("late_window: must not be negative, got %v", c.LateWindow)
	case c.LateWindow != 0 && c.LateWindow < time.Millisecond:
		return fmt.Errorf("late_window: must be a millisecond at least, got %v; is there a unit missing?", c.LateWindow)
	}
	if _, err := tenant.ParseKeys(c.MetadataKeys); err != nil {
		return fmt.Errorf("metadata_keys::%w", err)
	}
	if err := c.validateAggregate(); err != nil {
		return fmt.Errorf("aggregate::%w", err)
	}
	return c.State.validate()
}

// maxRules is how many rules there may be.
const maxRules = 250

func (c *Config) validateAggregate() error {
	if len(c.Aggregate) == 0 {
		return nil
	}
	if len(c.Aggregate) > maxRules {
		return fmt.Errorf("%d: there may be %d rules at most, and these are %d", maxRules, maxRules, len(c.Aggregate))
	}
	rules := make([]aggregate.RuleConfig, len(c.Aggregate))
	for i := range c.Aggregate {
		r := &c.Aggregate[i]
		rules[i] = r.RuleConfig
		switch {
		case r.Interval != 0 && r.Interval < time.Second:
			return fmt.Errorf("%d::interval: must be 0 or a second at least, got %v; is there a unit missing?", i, r.Interval)
		case r.Interval != 0 && c.MaxStale != 0 && r.Interval >= c.MaxStale:
			return fmt.Errorf("%d::interval: must be less than max_stale, %v, or totals are forgotten before they are given out; got %v", i, c.MaxStale, r.Interval)
		case r.MaxWriters < 0:
			return fmt.Errorf("%d::max_writers: must not be negative, got %d", i, r.MaxWriters)
		}
	}
	if _, err := aggregate.Rules(rules); err != nil {
		return err
	}
	if c.State.OnError == OnErrorLocal && c.State.Shared != nil {
		return errors.New("0: does not go with state::on_error: local, for a total has points of all workers; set it to reject")
	}
	return nil
}

// aggregates are the rules as the converter has them. They are valid.
func (c *Config) aggregates() (rules []d2c.AggregateRule) {
	for i := range c.Aggregate {
		r := &c.Aggregate[i]
		selected := r.Selections()
		rule := d2c.AggregateRule{
			Metrics: r.Metrics, Resource: selected.Resource, Scope: selected.Scope, Attributes: selected.Point,
			KeepInput: r.KeepInput, Interval: r.Interval, MaxWriters: r.MaxWriters,
		}
		if rule.MaxWriters == 0 {
			rule.MaxWriters = defaultMaxWriters
		}
		rules = append(rules, rule)
	}
	return rules
}

func (c *StateConfig) validate() error {
	switch {
	case c.Storage != nil && c.Shared != nil:
		return errors.New("state: storage and shared exclude each other: with shared, nothing of one worker's own needs to last")
	case c.OnError != "" && c.OnError != OnErrorReject && c.OnError != OnErrorLocal:
		return fmt.Errorf("state::on_error: unknown policy %q, want %q or %q", c.OnError, OnErrorReject, OnErrorLocal)
	case c.OnError == OnErrorLocal && c.Shared == nil:
		return errors.New("state::on_error: local is for state::shared")
	case c.OnError == OnErrorLocal && c.MaxOutstanding < 1:
		return fmt.Errorf("state::max_outstanding: must be at least 1, got %d", c.MaxOutstanding)
	}
	return nil
}

func (c *Config) converter() d2c.Config {
	return d2c.Config{
		Gap:         c.Gap,
		Overlap:     c.Overlap,
		LateWindow:  c.LateWindow,
		Writers:     c.Writers,
		Identical:   c.Identical,
		MissingTime: c.MissingTime,
		Repair:      c.Repair.repairs(),
		MaxStreams:  c.MaxStreams,
		MaxBuckets:  c.MaxBuckets,
		MaxStale:    c.MaxStale,
		Seed:        c.Seed,
		Summaries:   c.Summaries,
		Duplicates:  c.WarnDuplicates,
		EmitZero:    c.EmitZero,
		Aggregate:   c.aggregates(),

		ReemitInterval: c.ReemitInterval,
	}
}
