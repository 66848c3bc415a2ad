// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2cprocessor

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"

	"github.com/deltaring/deltaring/d2c"
)

// load does with the text of a processor's section what the Collector does when it starts.
func load(t *testing.T, yaml string) (*Config, error) {
	t.Helper()
	retrieved, err := confmap.NewRetrievedFromYAML([]byte(yaml))
	require.NoError(t, err)
	conf, err := retrieved.AsConf()
	require.NoError(t, err)
	cfg := createDefaultConfig().(*Config)
	if err := conf.Unmarshal(cfg); err != nil {
		return nil, err
	}
	if err := confmap.Validate(cfg); err != nil {
		return nil, err
	}
	return cfg, nil
}

func TestConfig(t *testing.T) {
	state := StateConfig{OnError: OnErrorReject, MaxOutstanding: 1_000_000}
	redis := component.MustNewIDWithName("redis_state", "a")
	for name, test := range map[string]struct {
		yaml string
		want Config
	}{
		"nothing": {
			yaml: "",
			want: Config{MaxStale: time.Hour, MaxStreams: 10_000_000, MaxBuckets: 4096, LateWindow: 5 * time.Minute, State: state},
		},
		"the defaults, spelled out": {
			yaml: "{max_stale: 1h, max_streams: 10000000, gap: continue, overlap: add, late_window: 5m}",
			want: Config{MaxStale: time.Hour, MaxStreams: 10_000_000, MaxBuckets: 4096, LateWindow: 5 * time.Minute, State: state},
		},
		"everything else": {
			yaml: "{max_stale: 90s, max_streams: 7, gap: restart, overlap: drop, late_window: 1m30s}",
			want: Config{
				MaxStale: 90 * time.Second, MaxStreams: 7, MaxBuckets: 4096,
				Gap: d2c.GapRestart, Overlap: d2c.OverlapDrop, LateWindow: 90 * time.Second, State: state,
			},
		},
		"tenants": {
			yaml: "{metadata_keys: [X-Tenant, x-team], seed: 18446744073709551615}",
			want: Config{
				MaxStale: time.Hour, MaxStreams: 10_000_000, MaxBuckets: 4096, LateWindow: 5 * time.Minute, State: state,
				MetadataKeys: []string{"X-Tenant", "x-team"}, Seed: math.MaxUint64,
			},
		},
		"interpolate": {
			yaml: "overlap: interpolate",
			want: Config{
				MaxStale: time.Hour, MaxStreams: 10_000_000, MaxBuckets: 4096,
				Overlap: d2c.OverlapInterpolate, LateWindow: 5 * time.Minute, State: state,
			},
		},
		"local on error": {
			yaml: "state: {shared: redis_state/a, on_error: local, max_outstanding: 5}",
			want: Config{
				MaxStale: time.Hour, MaxStreams: 10_000_000, MaxBuckets: 4096, LateWindow: 5 * time.Minute,
				State: StateConfig{Shared: &redis, OnError: OnErrorLocal, MaxOutstanding: 5},
			},
		},
		"zeros switch off": {
			yaml: "{max_stale: 0s, max_streams: 0, late_window: 0s}",
			want: Config{MaxBuckets: 4096, State: state},
		},
		"many writers": {
			yaml: "{writers: many, identical: add, missing_time: arrival, repair: {missing_count: false}}",
			want: Config{
				MaxStale: time.Hour, MaxStreams: 10_000_000, MaxBuckets: 4096, LateWindow: 5 * time.Minute, State: state,
				Writers: d2c.WritersMany, Identical: d2c.IdenticalAdd, MissingTime: d2c.MissingTimeArrival,
				Repair: RepairConfig{
					InfiniteBound: true, OverflowBucket: true, TrailingBuckets: true, RoundedBounds: true, StartAfterTime: true,
				},
			},
		},
		"summaries": {
			yaml: "{summaries: [timer.*, jobs], warn_duplicates: none}",
			want: Config{
				MaxStale: time.Hour, MaxStreams: 10_000_000, MaxBuckets: 4096, LateWindow: 5 * time.Minute, State: state,
				Summaries: []string{"timer.*", "jobs"},
			},
		},
		"restart if moved": {
			yaml: "gap: restart_if_moved",
			want: Config{
				MaxStale: time.Hour, MaxStreams: 10_000_000, MaxBuckets: 4096, Gap: d2c.GapRestartIfMoved,
				LateWindow: 5 * time.Minute, State: state,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := load(t, test.yaml)
			require.NoError(t, err)
			if name != "summaries" {
				test.want.WarnDuplicates = d2c.DuplicatesService
			}
			if test.want.Repair == (RepairConfig{}) {
				test.want.Repair = createDefaultConfig().(*Config).Repair
			}
			assert.Equal(t, test.want, *cfg)
			_, err = d2c.New(cfg.converter())
			assert.NoError(t, err)
		})
	}
}

func TestBadConfigNamesTheKey(t *testing.T) {
	for name, test := range map[string]struct {
		yaml string
		want []string // what the error must contain
	}{
		"negative max_stale":    {"max_stale: -1s", []string{"max_stale", "-1s"}},
		"negative max_streams":  {"max_streams: -1", []string{"max_streams", "-1"}},
		"negative late_window":  {"late_window: -5m", []string{"late_window", "-5m"}},
		"max_stale, no unit":    {"max_stale: 3600", []string{"max_stale", "3.6µs", "unit"}},
		"late_window, no unit":  {"late_window: 300", []string{"late_window", "300ns", "unit"}},
		"not a duration":        {"max_stale: soon", []string{"max_stale"}},
		"not a number":          {"max_streams: many", []string{"max_streams"}},
		"unknown gap":           {"gap: ignore", []string{"gap", "ignore", "continue", "restart"}},
		"unknown overlap":       {"overlap: split", []string{"overlap", "split", "add", "drop", "interpolate"}},
		"a number for a word":   {"gap: 3", []string{"gap", "3"}},
		"unknown writers":       {"writers: two", []string{"writers", "two", "one", "many"}},
		"unknown identical":     {"{writers: many, identical: drop}", []string{"identical", "drop", "repeat", "add"}},
		"identical of one":      {"identical: add", []string{"identical", "writers: many"}},
		"gaps of many":          {"{writers: many, gap: restart}", []string{"gap", "writers: many"}},
		"overlaps of many":      {"{writers: many, overlap: drop}", []string{"overlap", "writers: many"}},
		"no window for many":    {"{writers: many, late_window: 0s}", []string{"late_window", "identical: add"}},
		"unknown missing_time":  {"missing_time: now", []string{"missing_time", "now", "drop", "arrival"}},
		"unknown repair":        {"repair: {everything: true}", []string{"repair", "everything"}},
		"moved, and shared":     {"{gap: restart_if_moved, state: {shared: redis_state}}", []string{"gap", "state::shared"}},
		"unknown labels":        {"warn_duplicates: everything", []string{"warn_duplicates", "everything", "none", "service", "resource"}},
		"labels are no switch":  {"warn_duplicates: true", []string{"warn_duplicates"}},
		"empty summary":         {"summaries: [a, '']", []string{"summaries", "empty"}},
		"policies are lower":    {"gap: Restart", []string{"gap", "Restart"}},
		"misspelt key":          {"max_stail: 1h", []string{"max_stail", "did you mean max_stale?"}},
		"swapped letters":       {"staet: {storage: file_storage}", []string{"staet: ", "did you mean state?"}},
		"unknown key of state":  {"state: {store: file_storage}", []string{"state::store", "there are max_outstanding, on_error, shared, storage"}},
		"key from below":        {"on_error: local", []string{"on_error: ", "did you mean state::on_error?"}},
		"key from above":        {"state: {max_stale: 1h}", []string{"state::max_stale: ", "did you mean max_stale?"}},
		"storage at the top":    {"storage: file_storage", []string{"did you mean state::storage?"}},
		"a store as a key":      {"state: {redis_state: {}}", []string{"did you mean state::shared: redis_state?"}},
		"a block of contrib":    {"deltatocumulative: {max_stale: 5m}", []string{"deltatocumulative: ", "directly below this processor"}},
		"unknown key of a rule": {"aggregate: [{metric: [a], drop: {resource: [b]}}]", []string{"aggregate::N::metric: ", "did you mean aggregate::N::metrics?"}},
		"beginning of a key":    {"reemit: 1m", []string{"did you mean reemit_interval?"}},
		"bad storage id":        {"state: {storage: a/b/c d}", []string{"state", "storage"}},
		"storage and shared":    {"state: {storage: file_storage, shared: redis_state}", []string{"state", "storage", "shared"}},
		"on_error":              {"state: {shared: redis_state, on_error: ignore}", []string{"on_error", "ignore", "reject", "local"}},
		"on_error alone":        {"state: {on_error: local}", []string{"on_error", "shared"}},
		"max_outstanding":       {"state: {shared: redis_state, on_error: local, max_outstanding: 0}", []string{"max_outstanding"}},
		"empty metadata key":    {"metadata_keys: [x-tenant, '']", []string{"metadata_keys::1", "empty"}},
		"metadata key twice":    {"metadata_keys: [x-tenant, X-Tenant]", []string{"metadata_keys::1", "X-Tenant", "twice"}},
		"our own metadata":      {"metadata_keys: [x-Deltaring-member]", []string{"metadata_keys::0", "x-Deltaring-member"}},
		"negative seed":         {"seed: -1", []string{"seed"}},
		"emit_zero":             {"emit_zero: perhaps", []string{"emit_zero"}},
		"key of a Go field":     {"MaxStale: 1h", []string{"MaxStale", "did you mean max_stale?"}},
		"beside a good setting": {"{late_window: 1m, max_streams: -7}", []string{"max_streams", "-7"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, test.yaml)
			require.Error(t, err)
			for _, part := range test.want {
				assert.ErrorContains(t, err, part)
			}
		})
	}
}

// Whoever builds a Config in Go may get past the words.
func TestPoliciesOutOfRange(t *testing.T) {
	cfg := createDefaultConfig().(*Config)
	cfg.Gap = 3
	assert.EqualError(t, cfg.Validate(), "gap: unknown policy(3)")
	cfg = createDefaultConfig().(*Config)
	cfg.Overlap = 3
	assert.EqualError(t, cfg.Validate(), "overlap: unknown policy(3)")
}
