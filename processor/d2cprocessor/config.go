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

// Config is the configuration of the processor. The default of NewFactory suits most users. The zero value is also valid and
// means no limit, no expiry, no late window.
type Config struct {
	// MaxStale is how long a stream may go without an accepted point before it is forgotten; its next point opens a new
	// stream. The processor looks for idle streams every tenth of MaxStale, at most once a second and at least once a
	// minute. Choose a value longer than the longest interval at which producers report; at least a second. Zero keeps
	// streams for ever. Default 1h.
	MaxStale time.Duration `mapstructure:"max_stale"`

	// MaxStreams bounds the number of streams, and so the memory. Points of further streams are dropped and counted; known
	// streams are never evicted. Zero means no bound. Default 10000000.
	MaxStreams int `mapstructure:"max_streams"`

	// MaxBuckets bounds the buckets of a histogram with explicit bounds: a point with more is dropped and counted. Default 4096.
	MaxBuckets int `mapstructure:"max_buckets"`

	// Gap says what happens when a delta starts after its stream had ended. "continue" (the zero value) adds it and
	// remembers the gap. "restart" restarts the stream. "restart_if_moved" restarts it only if another worker may have had
	// the stream in between, according to gateways with the ring exporter (which needs include_metadata: true at the
	// receiver); without such gateways it always restarts. Producers send nothing for quiet intervals, so gaps are normal,
	// and "restart" restarts every sparse counter at each of them. Use "restart_if_moved" if streams move among several
	// Collectors that share no state. Default continue.
	Gap d2c.GapPolicy `mapstructure:"gap"`

	// Overlap says what happens when a delta starts before its stream had ended and ends after that: "add" (the zero value)
	// adds all of it, "drop" drops it, "interpolate" adds the share of a sum that lies in time not yet covered. Default add.
	Overlap d2c.OverlapPolicy `mapstructure:"overlap"`

	// Writers says how many producers a stream has. With "one" (the zero value) a delta's interval shows whether it was
	// counted, and a delta that covers counted time is not added. With "many" producers share an identity (count connectors,
	// pre-forked workers, functions, statsd): intervals do not order deltas, and each delta is added unless an identical one
	// came within LateWindow. Default one.
	Writers d2c.Writers `mapstructure:"writers"`

	// Identical says how to treat a delta with the same interval and contents as one already counted, with Writers "many".
	// "repeat" (the zero value) takes it for a retry and does not count it. "add" counts it, for producers that never retry
	// and round their times. Default repeat.
	Identical d2c.Identical `mapstructure:"identical"`

	// MissingTime says what happens to points without a time: "drop" (the zero value), or "arrival", which gives them their
	// arrival time. Every such point is then added, including one that is sent again. Default drop.
	MissingTime d2c.MissingTime `mapstructure:"missing_time"`

	// Repair says which malformed points are repaired because their meaning is clear. By default all are.
	Repair RepairConfig `mapstructure:"repair"`

	// LateWindow is how far behind its stream a missing delta may arrive and still be added. With zero no gaps are
	// remembered, and every delta that ends before its stream does is dropped. At least a millisecond. Default 5m.
	LateWindow time.Duration `mapstructure:"late_window"`

	// Summaries names the metrics whose summaries carry deltas, as some libraries send them; a summary has no field for
	// that. Count and sum are added up by the rules for histograms, and an added point keeps the quantiles it came with. In
	// a name, * matches anything and ? any one byte. Default none: summaries pass.
	Summaries []string `mapstructure:"summaries"`

	// Aggregate makes one stream out of many: it removes attributes from the metrics that a rule matches, and adds up,
	// exactly, the streams whose remaining attributes are equal. The first rule that matches applies. Default none.
	Aggregate []AggregateConfig `mapstructure:"aggregate"`

	// WarnDuplicates says which labels the backend makes besides the attributes of points, to warn of streams that it takes
	// for one series (d2c_streams_duplicate). Such streams have values that print the same, like 200 and "200", differ only
	// in an empty value or in characters that become underscores, or differ only in parts of the resource that become no
	// label. "service": the namespace, name and instance of the service, which Prometheus turns into job and instance.
	// "resource": the whole resource, and the scope, for backends and exporters configured to use them
	// (promote_all_resource_attributes, resource_constant_labels). "none" turns the check off. Streams are checked when they
	// are opened, which takes 0.4 µs, and the latest million is remembered, at 10 bytes each. Default service.
	WarnDuplicates d2c.Duplicates `mapstructure:"warn_duplicates"`

	// EmitZero begins each life of a monotonic sum or a histogram with an extra sample of value zero, at its start or, if
	// that time is taken or more than five minutes earlier, just before its first sample. Without it a backend that knows a
	// series only by its samples misses a counter's first delta, and the first after each restart. Do not use it with
	// backends that create zeros from start timestamps: Prometheus with created-timestamp-zero-ingestion, and Mimir. Default
	// false.
	EmitZero bool `mapstructure:"emit_zero"`

	// ReemitInterval emits the latest sample of a stream again whenever the stream has been quiet for this long, until
	// max_stale, so that rate() of a counter that rarely changes has enough points. Choose a fourth of the shortest range of
	// such queries; at least a second. Zero turns it off. It costs up to 160 bytes for a stream with five attributes of 12
	// bytes. Default 0.
	ReemitInterval time.Duration `mapstructure:"reemit_interval"`

	// StaleMarkers emits a "no recorded value" point for each stream that expires (see MaxStale), so that Prometheus ends
	// the series there. It needs ReemitInterval, and covers the streams that ReemitInterval would emit again. Default false.
	StaleMarkers bool `mapstructure:"stale_markers"`

	// MetadataKeys names the client metadata (request headers) that tells tenants apart. Its values are part of the identity
	// of every stream in a batch, so tenants that send the same streams never share totals. Several values count in their
	// order, and a missing header differs from an empty one. Receivers need include_metadata: true, and nothing before this
	// processor may merge batches of several tenants: the batch processor and queues that batch have metadata_keys of their
	// own. Default none: metadata does not count.
	MetadataKeys []string `mapstructure:"metadata_keys"`

	// Seed keys the identities of streams. Set it if strangers choose attributes: whoever knows it can construct two streams
	// with the same identity. Choose it at random, keep it, and use the same value for all Collectors that share state.
	// Another seed changes the identity of every stream: state in Storage is refused at start, and state in Shared under the
	// old seed is not read. Default 0.
	Seed uint64 `mapstructure:"seed"`

	// State says where the state of the streams is kept besides in memory. By default it is kept nowhere else: a restart of
	// the process restarts every stream.
	State StateConfig `mapstructure:"state"`

	// prevent unkeyed literal initialization
	_ struct{}
}

// AggregateConfig is a rule for adding up streams: streams that differ only in the removed attributes are the writers of one
// total. Gateways that route by aggregate need the same list of rules.
type AggregateConfig struct {
	aggregate.RuleConfig `mapstructure:",squash"`

	// KeepInput also gives out the matched metrics as if there were no rule. Their points are then counted twice in
	// d2c_points. Default false.
	KeepInput bool `mapstructure:"keep_input"`

	// Interval is the time between samples of a total. Samples then come by the clock, whether or not anything was counted.
	// With zero, the default, each batch emits a sample of every total for which it has a point. At least a second, and less
	// than max_stale.
	Interval time.Duration `mapstructure:"interval"`

	// MaxWriters bounds the writers of a total. Points of further writers are dropped and counted. A writer is forgotten
	// max_stale after its last point; what it counted stays. Default 100000.
	MaxWriters int `mapstructure:"max_writers"`

	// prevent unkeyed literal initialization
	_ struct{}
}

// defaultMaxWriters is what no MaxWriters is: the items of a list have no defaults of their own.
const defaultMaxWriters = 100_000

// RepairConfig says which malformed points are repaired, and counted in d2c_points_repaired. Others are dropped and counted.
type RepairConfig struct {
	// InfiniteBound removes a last bound of +Inf. Default true.
	InfiniteBound bool `mapstructure:"infinite_bound"`
	// OverflowBucket restores a missing last bucket with the difference between count and the other buckets. Default true.
	OverflowBucket bool `mapstructure:"overflow_bucket"`
	// TrailingBuckets restores missing last buckets as empty if count equals the sum of the others. Default true.
	TrailingBuckets bool `mapstructure:"trailing_buckets"`
	// MissingCount sets a missing count to the sum of the buckets. Default true.
	MissingCount bool `mapstructure:"missing_count"`
	// RoundedBounds treats bounds as those of the stream if they differ by at most 1e-12 of their value. Default true.
	RoundedBounds bool `mapstructure:"rounded_bounds"`
	// StartAfterTime treats a start after its time as unknown. Default true.
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
	return keys.Unmarshal(conf, c, meant)
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
	// Storage names a storage extension, for instance file_storage. A batch is stored before it is passed on and
	// acknowledged, and refused (the sender may retry) if it cannot be stored, so restarts and crashes lose nothing.
	Storage *component.ID `mapstructure:"storage"`

	// Shared names an extension that keeps the state for a whole fleet, for instance redis_state. Any worker may then
	// receive any delta of any stream; max_stale and max_streams apply to the memory of one worker. It cannot be combined
	// with Storage, because the two could contradict each other.
	Shared *component.ID `mapstructure:"shared"`

	// OnError says what to do with batches while Shared fails. "reject" refuses them (the sender may retry). "local"
	// converts them with what the worker has in memory, remembers up to MaxOutstanding of their points, and commits these
	// when the extension is back; a crash in that time loses them. Use "local" only if one worker sees all points of a
	// stream. Otherwise values may fall under one start, and deltas that alternated between workers may be missed, and are
	// then counted in d2c_points_missed. Default reject.
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

// Validate returns an error that names the first value out of range by its YAML key. It repeats the checks of
// d2c.Config.Validate, whose errors name Go fields.
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
