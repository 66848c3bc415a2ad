// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2cprocessor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/client"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/extension/xextension/storage"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/processor"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/processor/d2cprocessor/internal/metadatatest"
)

// shelf is a storage extension in memory that can be made to fail. The real file_storage is tested with the Collector of
// examples/otelcol.
type shelf struct {
	component.StartFunc
	component.ShutdownFunc

	mu     sync.Mutex
	values map[component.ID]map[string][]byte
	open   int
	fails  error
}

func newShelf() *shelf { return &shelf{values: map[component.ID]map[string][]byte{}} }

func (s *shelf) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fails = err
}

func (s *shelf) GetClient(_ context.Context, kind component.Kind, id component.ID, name string) (storage.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if kind != component.KindProcessor || name != "" {
		return nil, errors.New("unexpected client")
	}
	if s.fails != nil {
		return nil, s.fails
	}
	if s.values[id] == nil {
		s.values[id] = map[string][]byte{}
	}
	s.open++
	return &shelfClient{s, s.values[id]}, nil
}

type shelfClient struct {
	*shelf
	values map[string][]byte
}

func (c *shelfClient) Get(ctx context.Context, key string) ([]byte, error) {
	op := storage.GetOperation(key)
	err := c.Batch(ctx, op)
	return op.Value, err
}

func (c *shelfClient) Set(ctx context.Context, key string, value []byte) error {
	return c.Batch(ctx, storage.SetOperation(key, value))
}

func (c *shelfClient) Delete(ctx context.Context, key string) error {
	return c.Batch(ctx, storage.DeleteOperation(key))
}

func (c *shelfClient) Batch(_ context.Context, ops ...*storage.Operation) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fails != nil {
		return c.fails
	}
	for _, op := range ops {
		switch op.Type {
		case storage.Get:
			op.Value = bytes.Clone(c.values[op.Key])
		case storage.Set:
			c.values[op.Key] = bytes.Clone(op.Value)
		case storage.Delete:
			delete(c.values, op.Key)
		}
	}
	return nil
}

func (c *shelfClient) Close(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open--
	return nil
}

// shelfHost is a host with extensions "shelf", a storage extension, and "other", which is none. It notes statuses.
type shelfHost struct {
	shelf    *shelf
	mu       sync.Mutex
	statuses []*componentstatus.Event
}

type plainExtension struct {
	component.StartFunc
	component.ShutdownFunc
}

func (h *shelfHost) GetExtensions() map[component.ID]component.Component {
	return map[component.ID]component.Component{
		component.MustNewID("shelf"): h.shelf,
		component.MustNewID("other"): plainExtension{},
	}
}

func (h *shelfHost) Report(e *componentstatus.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.statuses = append(h.statuses, e)
}

func (h *shelfHost) reported() (statuses []componentstatus.Status) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.statuses {
		statuses = append(statuses, e.Status())
	}
	return statuses
}

func onShelf() *Config {
	cfg := defaults()
	id := component.MustNewID("shelf")
	cfg.State.Storage = &id
	return cfg
}

// start makes a processor and starts it; the test shuts it down with stop.
func start(t *testing.T, set processor.Settings, cfg *Config, host component.Host) (*consumertest.MetricsSink, processor.Metrics) {
	t.Helper()
	sink := new(consumertest.MetricsSink)
	p, err := NewFactory().CreateMetrics(t.Context(), set, cfg, sink)
	require.NoError(t, err)
	require.NoError(t, p.Start(t.Context(), host))
	return sink, p
}

func TestStateOutlivesTheProcessor(t *testing.T) {
	host := &shelfHost{shelf: newShelf()}
	sink, p := start(t, nop(), onShelf(), host)
	require.NoError(t, p.ConsumeMetrics(t.Context(), batch(delta{"a", 0, 10, 5}, delta{"b", 0, 10, 1})))
	require.NoError(t, p.Shutdown(t.Context()))
	require.NoError(t, p.Shutdown(t.Context()), "twice")
	assert.Zero(t, host.shelf.open, "clients left open")
	assert.Len(t, sink.AllMetrics(), 1)

	core, logs := observer.New(zapcore.InfoLevel)
	set := nop()
	set.Logger = zap.New(core)
	sink, p = start(t, set, onShelf(), host)
	restored := logs.FilterMessage("state restored").All()
	require.Len(t, restored, 1)
	assert.EqualValues(t, 2, restored[0].ContextMap()["streams"])
	require.NoError(t, p.ConsumeMetrics(t.Context(), batch(delta{"a", 10, 20, 2}, delta{"b", 0, 10, 1})))
	require.NoError(t, p.Shutdown(t.Context()))
	// The second is a retry of what had been acknowledged before: the same sample again.
	assert.Equal(t, []sample{{"a", at(0), at(20), 7}, {"b", at(0), at(10), 1}}, samples(t, sink.AllMetrics()[0]))
}

func TestBatchIsRefusedWhileStorageIsOut(t *testing.T) {
	host := &shelfHost{shelf: newShelf()}
	tt := newTestTelemetry(t)
	set := metadatatest.NewSettings(tt)
	core, logs := observer.New(zapcore.InfoLevel)
	set.Logger = zap.New(core)
	sink, p := start(t, set, onShelf(), host)
	require.NoError(t, p.ConsumeMetrics(t.Context(), batch(delta{"a", 0, 10, 5})))

	host.shelf.fail(storage.ErrStorageFull)
	md := batch(delta{"a", 10, 20, 1}, delta{"c", 10, 20, 1})
	for range 3 {
		err := p.ConsumeMetrics(t.Context(), md)
		require.ErrorIs(t, err, storage.ErrStorageFull)
		assert.False(t, consumererror.IsPermanent(err))
	}
	assert.Equal(t, []componentstatus.Status{componentstatus.StatusRecoverableError}, host.reported())
	assert.Equal(t, 1, logs.FilterLevelExact(zapcore.ErrorLevel).Len(), "logged once")
	assert.Len(t, sink.AllMetrics(), 1)

	host.shelf.fail(nil)
	require.NoError(t, p.ConsumeMetrics(t.Context(), md), "the very same batch")
	assert.Equal(t, []sample{{"a", at(0), at(20), 6}, {"c", at(10), at(20), 1}}, samples(t, sink.AllMetrics()[1]))
	assert.Equal(t, []componentstatus.Status{componentstatus.StatusRecoverableError, componentstatus.StatusOK}, host.reported())
	metadatatest.AssertEqualD2cPointsRefused(t, tt, []metricdata.DataPoint[int64]{value[int64](6)}, ignoreTime)
	metadatatest.AssertEqualD2cPoints(t, tt, []metricdata.DataPoint[int64]{
		value[int64](2, "outcome", "first"), value[int64](1, "outcome", "aligned"),
	}, ignoreTime)
	m, err := tt.GetMetric("otelcol_d2c_commit_duration")
	require.NoError(t, err)
	assert.EqualValues(t, 2, m.Data.(metricdata.Histogram[float64]).DataPoints[0].Count)
	m, err = tt.GetMetric("otelcol_d2c_storage_size")
	require.NoError(t, err)
	assert.Len(t, m.Data.(metricdata.Sum[int64]).DataPoints, 2)
	require.NoError(t, p.Shutdown(t.Context()))
}

func TestStorageThatCannotBeUsedIsAnErrorAtStart(t *testing.T) {
	id := func(s string) *component.ID { id := component.MustNewID(s); return &id }
	for name, tc := range map[string]struct {
		id       *component.ID
		fails    error
		host     func(*shelf) component.Host
		mentions []string
	}{
		"not there":  {id: id("absent"), mentions: []string{"state::storage", "absent", "service::extensions", `for state::storage there is "shelf"`}},
		"wrong type": {id: id("other"), mentions: []string{"state::storage", "other", `for state::storage there is "shelf"`}},
		"locked":     {id: id("shelf"), fails: errors.New("timeout"), mentions: []string{"state::storage", "shelf", "another process", `"d2c"`}},
		"fails":      {id: id("shelf"), fails: errors.New("read-only"), mentions: []string{"state::storage", "shelf", "read-only"}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := defaults()
			cfg.State.Storage = tc.id
			host := &shelfHost{shelf: newShelf()}
			host.shelf.fail(tc.fails)
			p, err := NewFactory().CreateMetrics(t.Context(), nop(), cfg, consumertest.NewNop())
			require.NoError(t, err)
			err = p.Start(t.Context(), host)
			require.Error(t, err)
			for _, mention := range tc.mentions {
				assert.ErrorContains(t, err, mention)
			}
			require.NoError(t, p.Shutdown(t.Context()))
			assert.Zero(t, host.shelf.open)
		})
	}
}

func TestOneIDInSeveralPipelinesIsRefused(t *testing.T) {
	host := &shelfHost{shelf: newShelf()}
	_, one := start(t, nop(), onShelf(), host)
	two, err := NewFactory().CreateMetrics(t.Context(), nop(), onShelf(), consumertest.NewNop())
	require.NoError(t, err)
	err = two.Start(t.Context(), host)
	require.ErrorContains(t, err, "d2c/a")
	require.ErrorContains(t, err, "d2c/b")
	require.NoError(t, two.Shutdown(t.Context()))

	// It is the ID that counts, and that the first has ended: a reload starts the new one after the old.
	other := nop()
	other.ID = component.MustNewIDWithName("d2c", "b")
	_, three := start(t, other, onShelf(), host)
	require.NoError(t, one.Shutdown(t.Context()))
	_, four := start(t, nop(), onShelf(), host)
	require.NoError(t, three.Shutdown(t.Context()))
	require.NoError(t, four.Shutdown(t.Context()))
}

func TestDamageIsToldAndCounted(t *testing.T) {
	host := &shelfHost{shelf: newShelf()}
	_, p := start(t, nop(), onShelf(), host)
	require.NoError(t, p.ConsumeMetrics(t.Context(), batch(delta{"a", 0, 10, 5})))
	require.NoError(t, p.Shutdown(t.Context()))
	for _, values := range host.shelf.values {
		for key, value := range values {
			if strings.HasPrefix(key, "j/") {
				value[len(value)-30] ^= 1 // before the trailer
			}
		}
	}
	tt := newTestTelemetry(t)
	set := metadatatest.NewSettings(tt)
	core, logs := observer.New(zapcore.ErrorLevel)
	set.Logger = zap.New(core)
	sink, p := start(t, set, onShelf(), host)
	assert.Equal(t, 2, logs.Len())
	metadatatest.AssertEqualD2cStorageDamaged(t, tt, []metricdata.DataPoint[int64]{value[int64](1)}, ignoreTime)
	require.NoError(t, p.ConsumeMetrics(t.Context(), batch(delta{"a", 10, 20, 1})))
	assert.Equal(t, []sample{{"a", at(10), at(20), 1}}, samples(t, sink.AllMetrics()[0]))
	require.NoError(t, p.Shutdown(t.Context()))
}

// stuck is a client whose Batch does not return while it is held.
type stuck struct {
	*shelf
	entered, release chan struct{}
}

func (s *stuck) GetClient(ctx context.Context, kind component.Kind, id component.ID, name string) (storage.Client, error) {
	c, err := s.shelf.GetClient(ctx, kind, id, name)
	return &stuckClient{c, s}, err
}

type stuckClient struct {
	storage.Client
	stuck *stuck
}

func (c *stuckClient) Batch(ctx context.Context, ops ...*storage.Operation) error {
	if len(ops) == 1 && ops[0].Type == storage.Set {
		c.stuck.entered <- struct{}{}
		<-c.stuck.release
	}
	return c.Client.Batch(ctx, ops...)
}

type stuckHost struct {
	component.Host
	stuck *stuck
}

func (h stuckHost) GetExtensions() map[component.ID]component.Component {
	return map[component.ID]component.Component{component.MustNewID("shelf"): h.stuck}
}

func TestShutdownWaitsForStorageOnlyAsLongAsItMay(t *testing.T) {
	s := &stuck{newShelf(), make(chan struct{}), make(chan struct{})}
	sink, p := start(t, nop(), onShelf(), stuckHost{componenttest.NewNopHost(), s})
	done := make(chan error)
	go func() { done <- p.ConsumeMetrics(context.Background(), batch(delta{"a", 0, 10, 5})) }()
	<-s.entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, p.Shutdown(ctx), context.Canceled)
	close(s.release)
	require.NoError(t, <-done, "what was under way is committed")
	assert.Len(t, sink.AllMetrics(), 1)
	require.Error(t, p.ConsumeMetrics(t.Context(), batch(delta{"a", 10, 20, 5})))
	require.NoError(t, p.Shutdown(t.Context()))
	assert.Zero(t, s.open)
}

// pool is an extension for shared state in memory. The real redis_state has tests of its own.
type pool struct {
	component.StartFunc
	component.ShutdownFunc
	stores map[component.ID]*poolStore
}

type poolStore struct {
	store.Memory
	mu    sync.Mutex
	fails error
}

func (s *poolStore) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fails = err
}

func (s *poolStore) failing() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fails
}

func (s *poolStore) Lives(ctx context.Context, proposed store.Life) ([]store.Life, error) {
	if err := s.failing(); err != nil {
		return nil, err
	}
	return s.Memory.Lives(ctx, proposed)
}

func (s *poolStore) Swap(ctx context.Context, swaps []store.Swap) ([]store.Result, error) {
	if err := s.failing(); err != nil {
		return nil, err
	}
	return s.Memory.Swap(ctx, swaps)
}

func (p *pool) SharedStore(_ context.Context, id component.ID) (store.Shared, error) {
	if p.stores[id] == nil {
		p.stores[id] = new(poolStore)
	}
	return p.stores[id], nil
}

// poolHost is one worker of a fleet: each has an extension of its own, and all of these the same stores.
type poolHost struct {
	shelfHost
	pool *pool
}

func newWorker(stores map[component.ID]*poolStore) *poolHost {
	return &poolHost{pool: &pool{stores: stores}}
}

func (h *poolHost) GetExtensions() map[component.ID]component.Component {
	return map[component.ID]component.Component{component.MustNewID("pool"): h.pool, component.MustNewID("shelf"): newShelf()}
}

func inPool() *Config {
	cfg := defaults()
	id := component.MustNewID("pool")
	cfg.State.Shared = &id
	return cfg
}

func TestSharedStateContinuesOnAnotherWorker(t *testing.T) {
	stores := map[component.ID]*poolStore{}
	one, first := start(t, nop(), inPool(), newWorker(stores))
	two, second := start(t, nop(), inPool(), newWorker(stores))
	other := nop()
	other.ID = component.MustNewIDWithName("d2c", "other")
	three, third := start(t, other, inPool(), newWorker(stores))
	require.NoError(t, first.ConsumeMetrics(t.Context(), batch(delta{"a", 0, 10, 5})))
	require.NoError(t, second.ConsumeMetrics(t.Context(), batch(delta{"a", 10, 20, 2})))
	require.NoError(t, first.ConsumeMetrics(t.Context(), batch(delta{"a", 10, 20, 2})), "a retry elsewhere")
	require.NoError(t, third.ConsumeMetrics(t.Context(), batch(delta{"a", 10, 20, 2})), "another owner")
	assert.Equal(t, []sample{{"a", at(0), at(20), 7}}, samples(t, two.AllMetrics()[0]))
	assert.Equal(t, []sample{{"a", at(0), at(20), 7}}, samples(t, one.AllMetrics()[1]))
	assert.Equal(t, []sample{{"a", at(10), at(20), 2}}, samples(t, three.AllMetrics()[0]))
	for _, p := range []processor.Metrics{first, second, third} {
		require.NoError(t, p.Shutdown(t.Context()))
		require.Error(t, p.ConsumeMetrics(t.Context(), batch(delta{"a", 20, 30, 2})))
	}
}

func TestSharedStateThatFailsRefuses(t *testing.T) {
	for _, err := range []error{errors.New("connection refused"), fmt.Errorf("no answer: %w", context.DeadlineExceeded)} {
		t.Run(err.Error(), func(t *testing.T) { testSharedStateThatFailsRefuses(t, err) })
	}
}

func testSharedStateThatFailsRefuses(t *testing.T, fails error) {
	stores := map[component.ID]*poolStore{}
	host := newWorker(stores)
	sink, p := start(t, nop(), inPool(), host)
	stores[nop().ID].fail(fails)
	md := batch(delta{"a", 0, 10, 5})
	require.ErrorIs(t, p.ConsumeMetrics(t.Context(), md), fails)
	assert.Equal(t, []componentstatus.Status{componentstatus.StatusRecoverableError}, host.reported())
	stores[nop().ID].fail(nil)
	require.NoError(t, p.ConsumeMetrics(t.Context(), md))
	assert.Equal(t, []sample{{"a", at(0), at(10), 5}}, samples(t, sink.AllMetrics()[0]))
	assert.Equal(t, []componentstatus.Status{componentstatus.StatusRecoverableError, componentstatus.StatusOK}, host.reported())
	require.NoError(t, p.Shutdown(t.Context()))
}

// A batch without deltas says nothing of the store: neither that it is well again, nor how long it takes.
func TestBatchesWithoutDeltasDoNotSpeakForTheStore(t *testing.T) {
	stores := map[component.ID]*poolStore{}
	host := newWorker(stores)
	tt := newTestTelemetry(t)
	set := metadatatest.NewSettings(tt)
	core, logs := observer.New(zapcore.InfoLevel)
	set.Logger = zap.New(core)
	sink, p := start(t, set, inPool(), host)
	st := stores[set.ID]
	st.fail(errors.New("connection refused"))
	gauge := func() pmetric.Metrics {
		md := pmetric.NewMetrics()
		m := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
		m.SetName("gauge")
		m.SetEmptyGauge().DataPoints().AppendEmpty().SetIntValue(1)
		return md
	}
	for range 10 {
		require.Error(t, p.ConsumeMetrics(t.Context(), batch(delta{"a", 0, 10, 5})))
		require.NoError(t, p.ConsumeMetrics(t.Context(), gauge()))
	}
	assert.Equal(t, []componentstatus.Status{componentstatus.StatusRecoverableError}, host.reported())
	assert.Equal(t, 1, logs.FilterMessageSnippet("state cannot be stored").Len())
	assert.Zero(t, logs.FilterMessageSnippet("can be stored again").Len())
	assert.Len(t, sink.AllMetrics(), 10)
	_, err := tt.GetMetric("otelcol_d2c_commit_duration")
	require.Error(t, err, "nothing was committed")

	st.fail(nil)
	require.NoError(t, p.ConsumeMetrics(t.Context(), gauge()))
	assert.Len(t, host.reported(), 1)
	require.NoError(t, p.ConsumeMetrics(t.Context(), batch(delta{"a", 0, 10, 5})))
	assert.Equal(t, []componentstatus.Status{componentstatus.StatusRecoverableError, componentstatus.StatusOK}, host.reported())
	require.NoError(t, p.Shutdown(t.Context()))
}

// What a gateway says of its ring and of the member reaches the converter, and what makes no sense does not.
func TestRoutesOfGateways(t *testing.T) {
	with := func(epoch, since, previous, member string) context.Context {
		md := map[string][]string{}
		for key, value := range map[string]string{
			"X-Deltaring-Epoch": epoch, "x-deltaring-since": since, "X-DELTARING-PREVIOUS": previous, "x-deltaring-member": member,
		} {
			if value != "" {
				md[key] = strings.Split(value, ",")
			}
		}
		return client.NewContext(t.Context(), client.Info{Metadata: client.NewMetadata(md)})
	}
	const epoch, since, previous = "0000000000000abc", "1700000000123", "fedcba9876543210@1699999999999"
	whole := d2c.Route{
		Epoch: 0xabc, Member: "worker-1", Since: time.UnixMilli(1700000000123),
		Previous: 0xfedcba9876543210, PreviousSince: time.UnixMilli(1699999999999),
	}
	first := d2c.Route{Epoch: 0xabc, Member: "worker-1", Since: time.UnixMilli(1700000000123)}
	bare := d2c.Route{Epoch: 0xabc, Member: "worker-1"}
	for _, tc := range []struct {
		ctx  context.Context
		want d2c.Route
	}{
		{with(epoch, since, previous, "worker-1"), whole},
		{with(epoch, since, "", "worker-1"), first},
		{with(epoch, "", "", "worker-1"), bare},
		{t.Context(), d2c.Route{}},
		{with("", since, previous, "w"), d2c.Route{}},
		{with(epoch, since, previous, ""), d2c.Route{}},
		{with("x", since, previous, "w"), d2c.Route{}},
		{with("1,2", since, previous, "w"), d2c.Route{}},
		{with("11111111111111111", since, previous, "w"), d2c.Route{}},
		{with(epoch, since, previous, "v,w"), d2c.Route{}},
		{with(epoch, "soon", "", "worker-1"), bare},
		{with(epoch, "1.5", "", "worker-1"), bare},
		{with(epoch, "0", "", "worker-1"), bare},
		{with(epoch, "-1", "", "worker-1"), bare},
		{with(epoch, "9223372036854775808", "", "worker-1"), bare},
		{with(epoch, "1,2", "", "worker-1"), bare},
		{with(epoch, since, "fedcba9876543210", "worker-1"), first},
		{with(epoch, since, "@1", "worker-1"), first},
		{with(epoch, since, "x@1", "worker-1"), first},
		{with(epoch, since, "1@x", "worker-1"), first},
		{with(epoch, since, "1@", "worker-1"), first},
		{with(epoch, since, "1@2@3", "worker-1"), first},
		{with(epoch, since, previous+","+previous, "worker-1"), first},
	} {
		assert.Equal(t, tc.want, d2c.RouteOf(routed(tc.ctx)))
	}
	far := d2c.RouteOf(routed(with(epoch, "9223372036854775807", "", "w")))
	assert.Equal(t, int64(math.MaxInt64), far.Since.UnixMilli())
}

func TestSharedStateThatFailsIsCaughtUpWith(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores := map[component.ID]*poolStore{}
		host := newWorker(stores)
		cfg := inPool()
		cfg.State.OnError = OnErrorLocal
		cfg.State.MaxOutstanding = 2
		tt := newTestTelemetry(t)
		set := metadatatest.NewSettings(tt)
		core, logs := observer.New(zapcore.ErrorLevel)
		set.Logger = zap.New(core)
		told := func() (messages []string) {
			for _, entry := range logs.TakeAll() {
				messages = append(messages, entry.Message)
			}
			return messages
		}
		sink, p := start(t, set, cfg, host)
		st := stores[metadatatest.NewSettings(tt).ID]
		st.fail(errors.New("connection refused"))
		require.NoError(t, p.ConsumeMetrics(t.Context(), batch(delta{"a", 0, 10, 5})))
		require.NoError(t, p.ConsumeMetrics(t.Context(), batch(delta{"a", 10, 20, 1})))
		assert.Equal(t, []sample{{"a", at(0), at(20), 6}}, samples(t, sink.AllMetrics()[1]))
		metadatatest.AssertEqualD2cPointsOutstanding(t, tt, []metricdata.DataPoint[int64]{value[int64](2)}, ignoreTime)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		assert.Equal(t, []componentstatus.Status{componentstatus.StatusRecoverableError}, host.reported())
		assert.Zero(t, st.Len())
		assert.Equal(t, []string{"state cannot be stored, batches are given out and kept back for it"}, told())
		for range 2 {
			require.ErrorIs(t, p.ConsumeMetrics(t.Context(), batch(delta{"a", 20, 30, 1})), d2c.ErrOutstanding)
		}
		assert.Equal(t, []string{"state cannot be stored, batches are refused and may be sent again"}, told())

		st.fail(nil)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		assert.Equal(t, 1, st.Len())
		metadatatest.AssertEqualD2cPointsOutstanding(t, tt, []metricdata.DataPoint[int64]{value[int64](0)}, ignoreTime)
		metadatatest.AssertEqualD2cPointsMissed(t, tt, []metricdata.DataPoint[int64]{value[int64](0)}, ignoreTime)
		assert.Equal(t, []componentstatus.Status{componentstatus.StatusRecoverableError, componentstatus.StatusOK}, host.reported())
		require.NoError(t, p.ConsumeMetrics(t.Context(), batch(delta{"a", 20, 30, 1})))
		assert.Equal(t, []sample{{"a", at(0), at(30), 7}}, samples(t, sink.AllMetrics()[2]))
		logs.TakeAll()

		st.fail(errors.New("connection refused"))
		require.NoError(t, p.ConsumeMetrics(t.Context(), batch(delta{"a", 30, 40, 1})))
		st.Wipe() // comes back empty
		st.fail(nil)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		metadatatest.AssertEqualD2cPointsMissed(t, tt, []metricdata.DataPoint[int64]{value[int64](1)}, ignoreTime)
		assert.Contains(t, fmt.Sprint(told()), "could not be added")
		require.NoError(t, p.Shutdown(t.Context()))
	})
}

// Each of the two keys names the extensions that there are for it, and knows what was meant for the other.
func TestTheRightExtensionIsNamed(t *testing.T) {
	id := func(s string) *component.ID { id := component.MustNewID(s); return &id }
	worker := newWorker(map[component.ID]*poolStore{})
	for name, tc := range map[string]struct {
		state    StateConfig
		host     component.Host
		mentions []string
	}{
		"not there":    {StateConfig{Shared: id("absent")}, worker, []string{"state::shared: ", `"absent" is not there`, `for state::shared there is "pool"`}},
		"none":         {StateConfig{Shared: id("absent")}, &shelfHost{shelf: newShelf()}, []string{"there is none for state::shared"}},
		"of storage":   {StateConfig{Shared: id("shelf")}, worker, []string{"state::shared: ", "did you mean state::storage: shelf?"}},
		"of sharing":   {StateConfig{Storage: id("pool")}, worker, []string{"state::storage: ", "did you mean state::shared: pool?"}},
		"of something": {StateConfig{Shared: id("other")}, &shelfHost{shelf: newShelf()}, []string{`"other" is not an extension for shared state; there is none`}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := defaults()
			cfg.State = tc.state
			p, err := NewFactory().CreateMetrics(t.Context(), nop(), cfg, consumertest.NewNop())
			require.NoError(t, err)
			err = p.Start(t.Context(), tc.host)
			for _, mention := range tc.mentions {
				require.ErrorContains(t, err, mention)
			}
			require.NoError(t, p.Shutdown(t.Context()))
		})
	}
}

// Producers are told what failed, and not where it is or what it said. The status is that of the error.
func TestProducersAreNotToldOfTheStore(t *testing.T) {
	stores := map[component.ID]*poolStore{}
	set := nop()
	core, logs := observer.New(zapcore.ErrorLevel)
	set.Logger = zap.New(core)
	_, p := start(t, set, inPool(), newWorker(stores))
	secret := errors.New("dial tcp 10.1.2.3:6379: connection refused")
	stores[set.ID].fail(secret)
	err := p.ConsumeMetrics(t.Context(), batch(delta{"a", 0, 10, 5}))
	require.EqualError(t, err, "d2c: the state of streams cannot be stored; send the data again")
	require.ErrorIs(t, err, secret)
	assert.False(t, consumererror.IsPermanent(err))
	assert.Contains(t, fmt.Sprint(logs.All()[0].ContextMap()), "10.1.2.3")
	require.NoError(t, p.Shutdown(t.Context()))
}

// What was given out while the extension failed is committed at the latest when the processor ends.
func TestSharedStateIsCaughtUpWithAtShutdown(t *testing.T) {
	for _, back := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			stores := map[component.ID]*poolStore{}
			cfg := inPool()
			cfg.State.OnError = OnErrorLocal
			_, p := start(t, nop(), cfg, newWorker(stores))
			st := stores[nop().ID]
			st.fail(errors.New("connection refused"))
			require.NoError(t, p.ConsumeMetrics(t.Context(), batch(delta{"a", 0, 10, 5})))
			if !back {
				err := p.Shutdown(t.Context())
				require.ErrorContains(t, err, "1 points")
				require.ErrorContains(t, err, "connection refused")
				require.ErrorIs(t, p.ConsumeMetrics(t.Context(), batch(delta{"a", 10, 20, 5})), d2c.ErrClosed)
				return
			}
			st.fail(nil)
			require.NoError(t, p.Shutdown(t.Context()))
			assert.Equal(t, 1, st.Len())
		})
	}
}
