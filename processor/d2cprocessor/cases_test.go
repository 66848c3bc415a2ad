// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2cprocessor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/client"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/processor"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/deltaring/deltaring/processor/d2cprocessor/internal/metadatatest"
)

var casesFlag = flag.String("cases", "", "a `directory` with more cases for TestCases")

// TestCases plays inputs of producers, one a folder, and compares what a backend gets with what a user expects. The format is
// told in testdata/cases/README.md.
func TestCases(t *testing.T) {
	for _, root := range []struct {
		path     string
		optional bool
	}{
		{filepath.Join("testdata", "cases"), false},
		{*casesFlag, *casesFlag == ""},                             // from this directory: go test runs here
		{filepath.Join("..", "..", "..", "shared", "cases"), true}, // beside the checkout
	} {
		entries, err := os.ReadDir(root.path)
		if root.optional && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		require.NoError(t, err)
		found := 0
		for _, e := range entries {
			if !e.IsDir() {
				continue
			}
			found++
			dir := filepath.Join(root.path, e.Name())
			t.Run(strings.TrimLeft(filepath.ToSlash(dir), "./"), func(t *testing.T) { playCase(t, dir) })
		}
		assert.NotZero(t, found, "no cases in %s", root.path)
	}
}

// step is one line of an input.
type step struct {
	Advance         string              `json:"advance"`  // moves the clock on
	Clock           time.Time           `json:"clock"`    // sets it; it does not go back
	Expire          bool                `json:"expire"`   // waits until idle streams have been looked for
	Restart         bool                `json:"restart"`  // a new process without state
	Metadata        map[string][]string `json:"metadata"` // of the requests from here on
	ResourceMetrics json.RawMessage     `json:"resourceMetrics"`

	request pmetric.Metrics
	latest  pcommon.Timestamp // in request
}

func readSteps(t *testing.T, dir string) (steps []step) {
	t.Helper()
	input, err := os.ReadFile(filepath.Join(dir, "input.jsonl"))
	require.NoError(t, err)
	for line := range bytes.Lines(input) {
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var s step
		d := json.NewDecoder(bytes.NewReader(line))
		d.DisallowUnknownFields()
		require.NoError(t, d.Decode(&s), "step %d", len(steps)+1)
		if s.ResourceMetrics != nil {
			s.request, err = new(pmetric.JSONUnmarshaler).UnmarshalMetrics(line)
			require.NoError(t, err, "step %d", len(steps)+1)
			s.latest = latestTime(s.request)
		}
		steps = append(steps, s)
	}
	require.NotEmpty(t, steps)
	return steps
}

// latestTime is the latest time of a point, zero if there is none.
func latestTime(md pmetric.Metrics) (latest pcommon.Timestamp) {
	for _, rm := range md.ResourceMetrics().All() {
		for _, sm := range rm.ScopeMetrics().All() {
			for _, m := range sm.Metrics().All() {
				switch m.Type() {
				case pmetric.MetricTypeSum:
					for _, dp := range m.Sum().DataPoints().All() {
						latest = max(latest, dp.Timestamp())
					}
				case pmetric.MetricTypeHistogram:
					for _, dp := range m.Histogram().DataPoints().All() {
						latest = max(latest, dp.Timestamp())
					}
				case pmetric.MetricTypeExponentialHistogram:
					for _, dp := range m.ExponentialHistogram().DataPoints().All() {
						latest = max(latest, dp.Timestamp())
					}
				case pmetric.MetricTypeSummary:
					for _, dp := range m.Summary().DataPoints().All() {
						latest = max(latest, dp.Timestamp())
					}
				}
			}
		}
	}
	return latest
}

// begin is when the clock of a case begins: at the first time in it, as if the process were no older than the first delta.
func begin(steps []step) time.Time {
	for _, s := range steps {
		switch {
		case !s.Clock.IsZero():
			return s.Clock
		case s.latest != 0:
			return s.latest.AsTime()
		}
	}
	return time.Unix(1_760_000_000, 0)
}

// readConfig decodes config.json, if there is one, as the Collector does, and puts the state where it is to be. The test is skipped
// if the processor does not have the key that the case awaits.
func readConfig(t *testing.T, dir string, awaits any, state string) *Config {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if errors.Is(err, fs.ErrNotExist) {
		text, err = []byte("{}"), nil
	}
	require.NoError(t, err)
	cfg, err := load(t, string(text))
	if awaits, ok := awaits.(string); ok && err != nil && strings.Contains(err.Error(), "has invalid keys: "+awaits) {
		t.Skipf("the processor has no key %q yet", awaits)
	}
	require.NoError(t, err, "config.json")
	switch state {
	case "storage":
		cfg.State.Storage = onShelf().State.Storage
	case "shared":
		cfg.State.Shared = inPool().State.Shared
	}
	return cfg
}

// metadataKeys are what a case's config.json has under metadata_keys.
func metadataKeys(t *testing.T, dir string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	require.NoError(t, err)
	var keys struct {
		MetadataKeys []string `json:"metadata_keys"`
	}
	require.NoError(t, json.Unmarshal(text, &keys))
	return keys.MetadataKeys
}

// playCase plays one case with the state in memory, with the state in storage, and, unless processes end or streams are forgotten
// in it, with state that is shared by two workers who get the requests by turns: all must come to the same.
func playCase(t *testing.T, dir string) {
	want := readWant(t, dir)
	states := []string{"memory", "storage", "shared"}
	if named, ok := want["states"].([]any); ok {
		states = nil
		for _, state := range named {
			states = append(states, state.(string))
		}
	} else if slices.ContainsFunc(readSteps(t, dir), func(s step) bool { return s.Expire || s.Restart }) {
		states = states[:2]
	}
	for _, state := range states {
		t.Run(state, func(t *testing.T) {
			steps, cfg := readSteps(t, dir), readConfig(t, dir, want["awaits"], state)
			synctest.Test(t, func(t *testing.T) {
				f := &fleetOfCase{t: t, state: state, cfg: cfg, backend: newBackend(metadataKeys(t, dir)...), telemetry: newTestTelemetry(t)}
				f.play(steps)
				f.compare(want)
			})
		})
	}
}

func readWant(t *testing.T, dir string) (want map[string]any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "want.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &want), "want.json")
	return want
}

// fleetOfCase is what a case is played on, within a bubble: its clock is the one that time.Now returns, and the processor's own
// sweeper and timers go by it.
type fleetOfCase struct {
	t         *testing.T
	state     string
	cfg       *Config
	backend   *backend
	telemetry *componenttest.Telemetry

	workers  []processor.Metrics
	latestIn pcommon.Timestamp
	pointsIn int64
}

// start starts the workers, with nothing that any before them had.
func (f *fleetOfCase) start() {
	next, err := consumer.NewMetrics(f.backend.consume)
	require.NoError(f.t, err)
	host := component.Host(&shelfHost{shelf: newShelf()})
	n := 1
	stores := map[component.ID]*poolStore{}
	if f.state == "shared" {
		n = 2
	}
	for range n {
		if f.state == "shared" {
			host = newWorker(stores)
		}
		cfg := *f.cfg
		p, err := NewFactory().CreateMetrics(f.t.Context(), metadatatest.NewSettings(f.telemetry), &cfg, next)
		require.NoError(f.t, err)
		require.NoError(f.t, p.Start(f.t.Context(), host))
		f.workers = append(f.workers, p)
	}
}

func (f *fleetOfCase) stop() {
	for _, p := range f.workers {
		require.NoError(f.t, p.Shutdown(context.Background()))
	}
	f.workers = nil
}

// sleepUntil moves the clock on. Time in the year 2262 is a producer's mistake, and the clock does not follow.
func sleepUntil(at time.Time) {
	if d := time.Until(at); d > 0 && d < 30*365*24*time.Hour {
		time.Sleep(d)
		synctest.Wait()
	}
}

func (f *fleetOfCase) play(steps []step) {
	at := begin(steps)
	if f.state == "shared" {
		// What is shared knows when it began, and takes nothing from before: it is older than the fleet.
		at = at.Add(-time.Hour)
	}
	sleepUntil(at)
	f.start()
	defer f.stop()
	sleepUntil(begin(steps))

	ctx := f.t.Context()
	for i, s := range steps {
		if s.Advance != "" {
			d, err := time.ParseDuration(s.Advance)
			require.NoError(f.t, err, "step %d", i+1)
			time.Sleep(d)
		}
		sleepUntil(s.Clock)
		if s.Expire && f.cfg.MaxStale > 0 {
			time.Sleep(sweepInterval(f.cfg.MaxStale))
		}
		if s.Restart {
			f.stop()
			f.start()
		}
		if s.Metadata != nil {
			ctx = client.NewContext(f.t.Context(), client.Info{Metadata: client.NewMetadata(s.Metadata)})
		}
		if s.ResourceMetrics != nil {
			f.latestIn = max(f.latestIn, s.latest)
			sleepUntil(s.latest.AsTime())
			f.pointsIn += int64(s.request.DataPointCount())
			if s.latest == 0 {
				f.latestIn = max(f.latestIn, pcommon.NewTimestampFromTime(time.Now())) // of arrival
			}
			require.NoError(f.t, f.workers[i%len(f.workers)].ConsumeMetrics(ctx, s.request), "step %d", i+1)
		}
		synctest.Wait()
	}
}

// outcomes are the numbers of points by what became of them, as the processor tells them.
func (f *fleetOfCase) outcomes() map[string]int64 {
	outcomes := map[string]int64{}
	m, err := f.telemetry.GetMetric("otelcol_d2c_points")
	if err != nil {
		return outcomes // nothing has been counted
	}
	for _, dp := range m.Data.(metricdata.Sum[int64]).DataPoints {
		outcome, _ := dp.Attributes.Value("outcome")
		outcomes[outcome.AsString()] += dp.Value
	}
	return outcomes
}

// compare compares what came out with what is wanted.
func (f *fleetOfCase) compare(want map[string]any) {
	t := f.t
	outcomes := f.outcomes()
	for _, d := range differences(want, f.backend.figures(f.latestIn), outcomes) {
		t.Error(d)
	}
	for i, breach := range f.backend.breaches() {
		if i == 3 {
			t.Errorf("and %d more", len(f.backend.breaches())-i)
			break
		}
		t.Error(breach)
	}
	var counted int64
	for _, n := range outcomes {
		counted += n
	}
	assert.Equal(t, f.pointsIn, counted, "every point has one outcome")
	if t.Failed() {
		t.Logf("outcomes: %v", outcomes)
	}
}

// differences says where figures and outcomes are not what is wanted.
func differences(wants map[string]any, figures map[string]any, outcomes map[string]int64) (differences []string) {
	differ := func(format string, args ...any) { differences = append(differences, fmt.Sprintf(format, args...)) }
	known := func(text any) (value any) { // as JSON has it
		b, err := json.Marshal(text)
		if err == nil {
			err = json.Unmarshal(b, &value)
		}
		if err != nil {
			return err
		}
		return value
	}
	for key, want := range wants {
		got, found := figures[key]
		got = known(got)
		switch key {
		case "why":
			if text, ok := want.(string); !ok || text == "" {
				differ("why: want a sentence")
			}
		case "outcomes":
			byOutcome, ok := want.(map[string]any)
			if !ok {
				differ("outcomes: want an object, got %v", want)
			}
			for outcome, n := range byOutcome {
				if n != float64(outcomes[outcome]) {
					differ("outcomes: %d points are %s, want %v", outcomes[outcome], outcome, n)
				}
			}
		case "states", "awaits":
		case "ahead_ms", "samples_at_most":
			most, ok := want.(float64)
			if g, isNumber := got.(float64); !ok || !isNumber || g > most {
				differ("%s: got %v, want %v at most", key, got, want)
			}
		case "samples_at_least":
			least, ok := want.(float64)
			if n, isNumber := known(figures["samples"]).(float64); !ok || !isNumber || n < least {
				differ("%s: got %v, want %v at least", key, n, want)
			}
		default:
			if !found {
				if figure := []string{"scale", "zero_count", "zero_threshold", "bounds", "buckets"}; slices.Contains(figure, key) {
					differ("%s: no histogram of that kind was given out", key)
				} else {
					differ("want.json: unknown key %q", key)
				}
			} else if !assert.ObjectsAreEqual(want, got) {
				differ("%s: got %v, want %v", key, got, want)
			}
		}
	}
	slices.Sort(differences)
	return differences
}

func TestDifferences(t *testing.T) {
	figures := newBackend().figures(0)
	figures["total"], figures["ahead_ms"], figures["bounds"] = 5, 0.5, []float64{1, 2}
	figures["totals"] = map[string]float64{"a": 2, "b": 3}
	outcomes := map[string]int64{"first": 2}
	for want, expected := range map[string]string{
		`{"total":5,"resets":0,"ahead_ms":1,"bounds":[1,2],"totals":{"a":2,"b":3},"min":null,"why":"it is so"}`: "",
		`{"outcomes":{"first":2,"covered":0}}`: "",
		`{"total":6}`:                          "total: got 5, want 6",
		`{"total":"5"}`:                        "total: got 5, want 5",
		`{"totals":{"a":2}}`:                   "totals: got map[a:2 b:3]",
		`{"bounds":[1]}`:                       "bounds: got [1 2], want [1]",
		`{"samples_at_least":1}`:               "samples_at_least: got 0, want 1",
		`{"states":["memory"]}`:                "",
		`{"ahead_ms":0}`:                       "ahead_ms: got 0.5, want 0 at most",
		`{"min":1}`:                            "min: got <nil>, want 1",
		`{"scale":1}`:                          "scale: no histogram of that kind",
		`{"outcomes":{"first":1}}`:             "outcomes: 2 points are first, want 1",
		`{"outcomes":{"covered":1}}`:           "outcomes: 0 points are covered, want 1",
		`{"outcomes":3}`:                       "outcomes: want an object",
		`{"why":""}`:                           "why: want a sentence",
		`{"tota":5}`:                           `unknown key "tota"`,
	} {
		var wants map[string]any
		require.NoError(t, json.Unmarshal([]byte(want), &wants))
		got := strings.Join(differences(wants, figures, outcomes), "\n")
		if expected == "" {
			assert.Empty(t, got, want)
		} else {
			assert.Contains(t, got, expected, want)
		}
	}
}

// Each case of this directory says why it is one, and is in its README.
func TestCasesAreDescribed(t *testing.T) {
	root := filepath.Join("testdata", "cases")
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	require.NoError(t, err)
	wants, err := filepath.Glob(filepath.Join(root, "*", "want.json"))
	require.NoError(t, err)
	for _, want := range wants {
		dir := filepath.Dir(want)
		assert.Contains(t, string(readme), fmt.Sprintf("\n| %s |", filepath.Base(dir)))
		assert.Contains(t, string(readme), fmt.Sprintf(" | %s |\n", readWant(t, dir)["why"]))
	}
}
