// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package logstate

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	zapobserver "go.uber.org/zap/zaptest/observer"

	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/d2c/store/log"
	"github.com/deltaring/deltaring/d2c/storetest"
	"github.com/deltaring/deltaring/streamid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	testID        = component.MustNewIDWithName("log_state", "test")
	testProcessor = component.MustNewID("d2c")
	errAway       = errors.New("nobody there")
	errWrong      = errors.New("wrong password")
)

// testBackend is logs in memory that can be away.
type testBackend struct {
	logs log.Memory

	mu     sync.Mutex
	err    error
	probes chan struct{} // gets one for each probe, if there is room
	closed bool
}

func (b *testBackend) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
}

func (b *testBackend) failing() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

func (b *testBackend) Driver(name string) (log.Driver, error) {
	if name != testProcessor.String() {
		return nil, errors.New("unknown name " + name)
	}
	return testDriver{&b.logs, b}, nil
}

func (b *testBackend) Probe(context.Context) error {
	select {
	case b.probes <- struct{}{}:
	default:
	}
	return b.failing()
}

func (b *testBackend) Reason(err error) string {
	if errors.Is(err, errWrong) {
		return "credentials"
	}
	return "unreachable"
}

func (b *testBackend) Mistake(err error) bool { return errors.Is(err, errWrong) }

func (b *testBackend) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return nil
}

type testDriver struct {
	log.Driver
	b *testBackend
}

func (d testDriver) Append(ctx context.Context, appends []log.Append) ([]bool, error) {
	if err := d.b.failing(); err != nil {
		return nil, err
	}
	return d.Driver.Append(ctx, appends)
}

// statusHost has the statuses reported.
type statusHost chan *componentstatus.Event

func (statusHost) GetExtensions() map[component.ID]component.Component { return nil }
func (h statusHost) Report(event *componentstatus.Event)               { h <- event }

func (h statusHost) next(t *testing.T, want componentstatus.Status, err error) {
	t.Helper()
	select {
	case e := <-h:
		if e.Status() != want || !errors.Is(e.Err(), err) {
			t.Fatalf("status %v, error %v; want %v, %v", e.Status(), e.Err(), want, err)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("no status, want %v", want)
	}
}

func (h statusHost) none(t *testing.T) {
	t.Helper()
	select {
	case e := <-h:
		t.Fatalf("status %v, error %v; want none", e.Status(), e.Err())
	default:
	}
}

type fixture struct {
	*Extension
	b      *testBackend
	host   statusHost
	logs   *zapobserver.ObservedLogs
	reader *metric.ManualReader
}

func start(t *testing.T, err error) *fixture {
	t.Helper()
	f := &fixture{b: &testBackend{err: err, probes: make(chan struct{}, 1)}, host: make(statusHost, 100), reader: metric.NewManualReader()}
	meter := metric.NewMeterProvider(metric.WithReader(f.reader)).Meter("test")
	var instruments Instruments
	instruments.Duration, _ = meter.Float64Histogram("duration")
	instruments.Records, _ = meter.Int64Counter("records")
	instruments.Errors, _ = meter.Int64Counter("errors")
	instruments.Conflicts, _ = meter.Int64Counter("conflicts")
	instruments.Bytes, _ = meter.Int64Counter("bytes")
	instruments.Aside, _ = meter.Int64Counter("aside")
	core, logs := zapobserver.New(zap.DebugLevel)
	f.logs = logs
	set := extension.Settings{ID: testID}
	set.Logger = zap.New(core)
	f.Extension = New(set, Config{Groups: 16, Timeout: time.Second, RecordTTL: time.Hour}, "memory", instruments)
	if _, err := f.SharedStore(t.Context(), testProcessor); err == nil || err.Error() != "log_state: the extension has not been started" {
		t.Errorf("before the start: %v", err)
	}
	f.Run(t.Context(), f.host, f.b, time.Hour)
	t.Cleanup(func() {
		if err := f.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		if !f.b.closed {
			t.Error("the backend is not closed")
		}
		if _, err := f.SharedStore(context.Background(), testProcessor); err == nil || err.Error() != "log_state: the extension has been shut down" {
			t.Errorf("after shutdown: %v", err)
		}
	})
	return f
}

func (f *fixture) store(t *testing.T) store.Shared {
	t.Helper()
	st, err := f.SharedStore(t.Context(), testProcessor)
	require.NoError(t, err)
	return st
}

func TestStatus(t *testing.T) {
	f := start(t, errAway)
	f.host.next(t, componentstatus.StatusRecoverableError, errAway)
	f.b.fail(errWrong)
	f.host.next(t, componentstatus.StatusPermanentError, errWrong)
	f.b.fail(nil)
	f.host.next(t, componentstatus.StatusOK, nil)
	// What is wrong after it was right is no mistake in the configuration. The store is probed when a commit fails, and in an hour.
	f.b.fail(errWrong)
	if _, err := f.store(t).Lives(t.Context(), store.Life{ID: 1}); !errors.Is(err, errWrong) {
		t.Fatal(err)
	}
	f.host.next(t, componentstatus.StatusRecoverableError, errWrong)
	f.b.fail(nil)
	f.host.next(t, componentstatus.StatusOK, nil)
	f.host.none(t)
	if n := f.logs.FilterLevelExact(zap.ErrorLevel).Len(); n != 2 {
		t.Errorf("%d errors in the log, want one for each time that it was wrong", n)
	}
	if n := f.logs.FilterMessage("shared state can be reached").Len(); n != 2 {
		t.Errorf("the log says %d times that it can be reached", n)
	}
}

func TestReachedAtOnce(t *testing.T) {
	f := start(t, nil)
	<-f.b.probes
	_, err := f.store(t).Lives(t.Context(), store.Life{ID: 1})
	require.NoError(t, err)
	f.host.none(t) // no status is the best
}

func TestShared(t *testing.T) {
	storetest.TestShared(t, func(t *testing.T) storetest.Fixture {
		f := start(t, nil)
		return storetest.Fixture{Open: func() store.Shared { return f.store(t) }, Wipe: f.b.logs.Wipe}
	})
}

func TestTelemetry(t *testing.T) {
	f := start(t, nil)
	st, other := f.store(t), f.store(t)
	lives, err := st.Lives(t.Context(), store.Life{ID: 1})
	require.NoError(t, err)
	id := streamid.ID{Hi: 1}
	swap := func(st store.Shared, s store.Swap) {
		t.Helper()
		s.ID, s.Life = id, lives[0].ID
		_, err := st.Swap(t.Context(), []store.Swap{s})
		require.NoError(t, err)
	}
	swap(st, store.Swap{Tag: 1, Record: []byte("record")})
	swap(st, store.Swap{Base: 1})
	swap(other, store.Swap{Base: 1, Tag: 2, Record: []byte("another")})
	swap(st, store.Swap{Base: 1, Tag: 3, Record: []byte("too late")})
	require.NoError(t, st.SetAside(t.Context(), id, []byte("another")))
	f.b.fail(errAway)
	_, err = st.Swap(t.Context(), []store.Swap{{ID: id, Life: lives[0].ID, Tag: 4, Record: []byte("in vain")}})
	require.ErrorIs(t, err, errAway)

	var rm metricdata.ResourceMetrics
	require.NoError(t, f.reader.Collect(t.Context(), &rm))
	sums := map[string]map[string]int64{}
	for _, m := range rm.ScopeMetrics[0].Metrics {
		sums[m.Name] = map[string]int64{}
		if h, ok := m.Data.(metricdata.Histogram[float64]); ok {
			for _, p := range h.DataPoints {
				sums[m.Name][rest(t, p.Attributes)] = int64(p.Count)
			}
			continue
		}
		for _, p := range m.Data.(metricdata.Sum[int64]).DataPoints {
			sums[m.Name][rest(t, p.Attributes)] = p.Value
		}
	}
	require.Equal(t, map[string]int64{"outcome=swapped": 2, "outcome=confirmed": 1, "outcome=conflict": 1}, sums["records"])
	require.Equal(t, map[string]int64{"": 5}, sums["duration"])
	require.Equal(t, map[string]int64{"": 1}, sums["aside"])
	require.Equal(t, map[string]int64{"method=append,reason=unreachable": 1}, sums["errors"])
	require.Positive(t, sums["conflicts"][""])
	require.Positive(t, sums["bytes"]["method=append"])
	require.Positive(t, sums["bytes"]["method=read"])
}

// rest returns the attributes but for those that all have.
func rest(t *testing.T, set attribute.Set) string {
	t.Helper()
	var parts []string
	for _, kv := range set.ToSlice() {
		switch kv.Key {
		case "extension":
			require.Equal(t, "log_state/test", kv.Value.AsString())
		case "processor":
			require.Equal(t, "d2c", kv.Value.AsString())
		default:
			parts = append(parts, string(kv.Key)+"="+kv.Value.AsString())
		}
	}
	return strings.Join(parts, ",")
}

func TestConfig(t *testing.T) {
	good := Config{Groups: 16, CommitInterval: time.Second, Timeout: time.Second, RecordTTL: DefaultRecordTTL}
	for _, c := range []struct {
		want   string
		change func(*Config)
	}{
		{"", func(*Config) {}},
		{"", func(c *Config) { c.Groups = 1 }},
		{"", func(c *Config) { c.Groups = 256 }},
		{"", func(c *Config) { c.CommitInterval, c.RecordTTL = 0, 0 }},
		{"groups: must be a power of two, 1 to 256, got 0", func(c *Config) { c.Groups = 0 }},
		{"groups: must be", func(c *Config) { c.Groups = -16 }},
		{"groups: must be", func(c *Config) { c.Groups = 3 }},
		{"groups: must be", func(c *Config) { c.Groups = 512 }},
		{"timeout: must be positive", func(c *Config) { c.Timeout = 0 }},
		{"commit_interval: must not be negative", func(c *Config) { c.CommitInterval = -1 }},
		{"record_ttl: must be a second at least", func(c *Config) { c.RecordTTL = -1 }},
		{"record_ttl: must be a second at least", func(c *Config) { c.RecordTTL = time.Millisecond }},
	} {
		cfg := good
		c.change(&cfg)
		if err := cfg.Check(); (err == nil) != (c.want == "") || err != nil && !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%+v: error %v, want %q", cfg, err, c.want)
		}
	}
}
