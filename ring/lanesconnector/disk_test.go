// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package lanesconnector

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/client"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/extension/xextension/storage"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// disk is a storage extension that outlives Collectors.
type disk struct {
	component.StartFunc
	component.ShutdownFunc
	mu    sync.Mutex
	files map[string]map[string][]byte
	full  bool
	torn  func(key string) bool // what cannot be read
}

func newDisk() *disk { return &disk{files: map[string]map[string][]byte{}} }

func (d *disk) host() hosted {
	return hosted{map[component.ID]component.Component{component.MustNewID("disk"): d}}
}

func (d *disk) GetClient(_ context.Context, kind component.Kind, id component.ID, name string) (storage.Client, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	file := fmt.Sprintf("%v %v %s", kind, id, name)
	if d.files[file] == nil {
		d.files[file] = map[string][]byte{}
	}
	return &diskFile{d, d.files[file]}, nil
}

// copy is the disk after a power cut: what is done to it later is not seen.
func (d *disk) copy() *disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := newDisk()
	for name, file := range d.files {
		c.files[name] = maps.Clone(file)
	}
	return c
}

type diskFile struct {
	disk   *disk
	values map[string][]byte
}

func (f *diskFile) Get(ctx context.Context, key string) ([]byte, error) {
	op := storage.GetOperation(key)
	err := f.Batch(ctx, op)
	return op.Value, err
}

func (f *diskFile) Set(ctx context.Context, key string, value []byte) error {
	return f.Batch(ctx, storage.SetOperation(key, value))
}

func (f *diskFile) Delete(ctx context.Context, key string) error {
	return f.Batch(ctx, storage.DeleteOperation(key))
}

func (f *diskFile) Batch(_ context.Context, ops ...*storage.Operation) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	for _, op := range ops {
		switch op.Type {
		case storage.Get:
			if f.disk.torn != nil && f.disk.torn(op.Key) {
				return errors.New("input/output error")
			}
			op.Value = f.values[op.Key]
		case storage.Set:
			if f.disk.full {
				return errors.New("no space left on device")
			}
			f.values[op.Key] = op.Value
		case storage.Delete:
			delete(f.values, op.Key)
		}
	}
	return nil
}

func (*diskFile) Close(context.Context) error { return nil }

// switched is a backend that can be down.
type switched struct {
	*backend
	mu sync.Mutex
	up bool
}

func newSwitched(t *testing.T) *switched {
	s := &switched{backend: newBackend(t)}
	s.answer = func(pmetric.Metrics) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.up {
			return errDown
		}
		return nil
	}
	return s
}

func (s *switched) set(up bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.up = up
}

const quickRetries = "retry_on_failure: {initial_interval: 10ms, max_interval: 10ms}"

// TestOnDisk stops Collectors, and pulls their plugs, while the backend is down: all is there when it is up again, in order,
// whatever numbers of lanes they had.
func TestOnDisk(t *testing.T) {
	const series = 40
	for _, lanes := range [][]string{
		{"lanes: 4", "lanes: 4", "lanes: 4"},
		{"lanes: 4", "lanes: 7", "lanes: 7"},
		{"lanes: 8", "lanes: 2", "lanes: 8"},
		{"lanes: 3", "lanes: 3, routing_key: resource", "lanes: 1, routing_key: resource"},
		{"lanes: 3", "lanes: 3, " + dropping("service.instance.id"), "lanes: 3, " + dropping("service.instance.id", "pod")},
	} {
		for _, pulled := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v, plug pulled %v", lanes, pulled), func(t *testing.T) {
				d := newDisk()
				var given int
				b := newSwitched(t)
				for i, setting := range lanes {
					// Small batches, so that each is a request of its own.
					yaml := "{" + setting + ", sending_queue: {storage: disk, batch: {flush_timeout: 1ms, min_size: 1}}, " + quickRetries + "}"
					l := newLabOn(t, d.host(), yaml, b)
					for round := range 5 {
						at := uint64(i*5 + round + 1)
						require.NoError(t, l.ConsumeMetrics(t.Context(), batchOf(0, series, 0, at, func(int) float64 { return float64(at) })))
						given += series
					}
					if last := i == len(lanes)-1; !last {
						was := d.copy()
						l.stop()
						assert.Empty(t, l.outcomes(), "it is all on disk")
						if pulled {
							d = was
						}
						continue
					}
					assert.Zero(t, b.stored())
					b.set(true)
					require.Eventually(t, func() bool { return l.count("lanes_items", "", "") >= int64(given) }, 10*time.Second, time.Millisecond)
					outcomes := l.outcomes()
					// What was under way comes behind what waited, as exporterhelper has it, so that some is late.
					assert.EqualValues(t, given, outcomes["sent"]+outcomes["late"], "%v", outcomes)
					l.stop()
				}
				assert.Zero(t, b.rejected)
				for s := range series {
					samples := b.of(0, s)
					require.NotEmpty(t, samples)
					assert.Equal(t, stored{15, 15}, samples[len(samples)-1])
				}
				// What is left of it is one layout, without data.
				layouts, err := parseLayouts(d.files["Connector lanes metrics"][layoutsKey])
				require.NoError(t, err)
				assert.Len(t, layouts, 1)
			})
		}
	}
}

// dropping is the routing key "aggregate" with one rule.
func dropping(resource ...string) string {
	return "routing_key: aggregate, aggregate: [{metrics: ['*'], drop: {resource: [" + strings.Join(resource, ", ") + "]}}]"
}

// TestOtherRulesAreOtherLanes, and the same rules in another order of names are not.
func TestOtherRulesAreOtherLanes(t *testing.T) {
	d, b := newDisk(), newSwitched(t)
	generation := func(routing string) int {
		l := newLabOn(t, d.host(), "{lanes: 4, sending_queue: {storage: disk}, "+routing+", "+quickRetries+"}", b)
		require.NoError(t, l.ConsumeMetrics(t.Context(), batchOf(0, 20, 0, 1, one)))
		l.stop()
		layouts, err := parseLayouts(d.files["Connector lanes metrics"][layoutsKey])
		require.NoError(t, err)
		return layouts[len(layouts)-1].Generation
	}
	assert.Equal(t, 1, generation(dropping("pod", "host")))
	assert.Equal(t, 1, generation(dropping("host", "pod")))
	assert.Equal(t, 2, generation(dropping("pod")))
	assert.Equal(t, 3, generation(strings.Replace(dropping("pod"), "'*'", "requests", 1)))
	assert.Equal(t, 4, generation("routing_key: streamID"))
	assert.Equal(t, 5, generation(dropping("pod", "host")))
}

// TestNothingNewerOvertakes has another number of lanes while the backend is still down for what the old ones left.
func TestNothingNewerOvertakes(t *testing.T) {
	d, b := newDisk(), newSwitched(t)
	yaml := func(lanes int) string {
		return fmt.Sprintf("{lanes: %d, sending_queue: {storage: disk}, %s}", lanes, quickRetries)
	}
	l := newLabOn(t, d.host(), yaml(2), b)
	require.NoError(t, l.ConsumeMetrics(t.Context(), batchOf(0, 20, 0, 1, one)))
	l.stop()
	l = newLabOn(t, d.host(), yaml(3), b)
	require.NoError(t, l.ConsumeMetrics(t.Context(), batchOf(0, 20, 0, 2, two)))
	l.stop() // before anything of either is sent
	assert.Empty(t, l.outcomes())
	l = newLabOn(t, d.host(), yaml(4), b)
	require.NoError(t, l.ConsumeMetrics(t.Context(), batchOf(0, 20, 0, 3, func(int) float64 { return 3 })))
	b.set(true)
	require.Eventually(t, func() bool { return b.stored() == 60 }, 10*time.Second, time.Millisecond)
	assert.Equal(t, []stored{{1, 1}, {2, 2}, {3, 3}}, b.of(0, 7))
	require.Eventually(t, func() bool { return l.logs.FilterMessage("what an earlier run has left is sent").Len() == 1 }, 10*time.Second, time.Millisecond)
	l.stop()
	assert.Equal(t, map[string]int64{"sent": 60}, l.outcomes())
}

// TestShutdownWhileDraining has no room in the queue for the mark at its end.
func TestShutdownWhileDraining(t *testing.T) {
	d, b := newDisk(), newSwitched(t)
	yaml := func(lanes int) string {
		return fmt.Sprintf("{lanes: %d, sending_queue: {storage: disk, queue_size: 1, batch: {min_size: 1}}, %s}", lanes, quickRetries)
	}
	l := newLabOn(t, d.host(), yaml(1), b)
	require.NoError(t, l.ConsumeMetrics(t.Context(), batchOf(0, 1, 0, 1, one)))
	l.stop()
	newLabOn(t, d.host(), yaml(2), b).stop()
	b.set(true)
	l = newLabOn(t, d.host(), yaml(2), b)
	require.Eventually(t, func() bool { return b.stored() == 1 }, 10*time.Second, time.Millisecond)
	l.stop()
}

// TestTenantsOnDisk has other lanes while the backend is down: what the old ones have of all tenants is sent before anything newer,
// and nothing is forgotten.
func TestTenantsOnDisk(t *testing.T) {
	const tenants = 4
	for range 10 {
		d, b := newDisk(), newSwitched(t)
		b.inflight = nil // of whom is not known there
		yaml := func(lanes int) string {
			return fmt.Sprintf("{lanes: %d, metadata_keys: [x-tenant], sending_queue: {storage: disk, batch: {flush_timeout: 1ms}}, %s}", lanes, quickRetries)
		}
		give := func(l *lab, ms uint64) {
			for i := range tenants {
				require.NoError(t, l.ConsumeMetrics(as(t.Context(), fmt.Sprint(i)), batchOf(i, 1, 0, ms, one)))
			}
		}
		l := newLabOn(t, d.host(), yaml(1), b)
		give(l, 1)
		l.stop()
		l = newLabOn(t, d.host(), yaml(2), b)
		give(l, 2)
		time.Sleep(20 * time.Millisecond)
		b.set(true)
		require.Eventually(t, func() bool { return b.stored() == 2*tenants }, 10*time.Second, time.Millisecond)
		l.stop()
		require.Equal(t, map[string]int64{"sent": 2 * tenants}, l.outcomes())
	}
}

func as(ctx context.Context, tenant string) context.Context {
	return client.NewContext(ctx, client.Info{Metadata: client.NewMetadata(map[string][]string{"x-tenant": {tenant}})})
}

// TestOldLanesEnd leave nothing behind in memory, nor in what is reported, when what they had is sent or given up.
func TestOldLanesEnd(t *testing.T) {
	d, b := newDisk(), newSwitched(t)
	const queue = "sending_queue: {storage: disk}, retry_on_failure: {initial_interval: 10ms, max_interval: 10ms, max_elapsed_time: 30ms}"
	l := newLabOn(t, d.host(), "{lanes: 1, sending_queue: {storage: disk}}", b)
	require.NoError(t, l.ConsumeMetrics(t.Context(), batchOf(0, 10, 0, 1, one)))
	l.stop()
	l = newLabOn(t, d.host(), "{lanes: 2, "+queue+"}", b)
	require.Eventually(t, func() bool { return l.logs.FilterMessage("what an earlier run has left is sent").Len() == 1 }, 10*time.Second, time.Millisecond)
	assert.Equal(t, map[string]int64{"failed": 10}, l.outcomes())
	assert.Zero(t, l.count("lanes_stuck", "", ""))
	assert.Zero(t, l.count("lanes_streams", "", ""))
	l.stop()
}

// TestShortRetriesOnDisk have no time for another attempt when the connector stops. The queue keeps the data all the same.
func TestShortRetriesOnDisk(t *testing.T) {
	d, b := newDisk(), newSwitched(t)
	const yaml = "{lanes: 1, sending_queue: {storage: disk, batch: {min_size: 1}}, " +
		"retry_on_failure: {initial_interval: 1h, max_interval: 1h, max_elapsed_time: 1h}}"
	b.latency = func() time.Duration { return 300 * time.Millisecond }
	l := newLabOn(t, d.host(), yaml, b)
	require.NoError(t, l.ConsumeMetrics(t.Context(), batchOf(0, 10, 0, 1, one)))
	require.Eventually(t, func() bool { return b.under() == 1 }, 10*time.Second, time.Millisecond)
	l.stop()
	require.Empty(t, l.outcomes())
	b.set(true)
	l = newLabOn(t, d.host(), yaml, b)
	require.Eventually(t, func() bool { return b.stored() == 10 }, 10*time.Second, time.Millisecond)
	l.stop()
}

// TestBackendThatSaysInterrupted is a Collector that stops, for instance. That is not what keeps data in the queue.
func TestBackendThatSaysInterrupted(t *testing.T) {
	b := newBackend(t)
	b.answer = func(pmetric.Metrics) error { return errors.New("interrupted due to shutdown: try again") }
	l := newLabOn(t, newDisk().host(), "{lanes: 1, sending_queue: {storage: disk}, "+
		"retry_on_failure: {initial_interval: 10ms, max_interval: 10ms, max_elapsed_time: 30ms}}", b)
	require.NoError(t, l.ConsumeMetrics(t.Context(), batchOf(0, 10, 0, 1, one)))
	require.Eventually(t, func() bool { return l.outcomes()["failed"] == 10 }, 10*time.Second, time.Millisecond)
	l.stop()
}

// TestLostMark has a disk that cannot read the mark at the end of an old lane: what comes behind it must not wait for ever.
func TestLostMark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, b := newDisk(), newSwitched(t)
		b.set(true)
		newLabOn(t, d.host(), "{lanes: 2, sending_queue: {storage: disk}}", b).stop()
		lost := 0
		d.torn = func(key string) bool {
			if key == "0" && lost < 2 { // the first item of each old lane
				lost++
				return true
			}
			return false
		}
		l := newLabOn(t, d.host(), "{lanes: 3, sending_queue: {storage: disk}}", b)
		synctest.Wait()
		require.Equal(t, 2, lost)
		require.NoError(t, l.ConsumeMetrics(t.Context(), batchOf(0, 10, 0, 1, one)))
		time.Sleep(time.Minute)
		assert.Equal(t, map[string]int64{"sent": 10}, l.outcomes())
		l.stop()
	})
}

// TestDiskProblems are told by key and name.
func TestDiskProblems(t *testing.T) {
	start := func(d *disk, host hosted) error {
		cfg, err := load(t, "{sending_queue: {storage: disk}}")
		require.NoError(t, err)
		c, err := newConnector(nopSettings(), cfg, &metrics, newBackend(t).ConsumeMetrics, newBackend(t))
		require.NoError(t, err)
		err = c.Start(t.Context(), host)
		if err == nil {
			require.NoError(t, c.Shutdown(t.Context()))
		}
		return err
	}
	assert.ErrorContains(t, start(nil, hosted{}), `sending_queue::storage: no storage extension "disk"`)

	d := newDisk()
	require.NoError(t, start(d, d.host()))
	file := d.files["Connector lanes metrics"]
	good := file[layoutsKey]
	for _, bad := range []string{"", "[{", `[{"lanes": 0, "generation": 1}]`, `[{"lanes": 3, "generation": 0}]`, `[{"lanes": 1000000, "generation": 1}]`,
		`[{"lanes": 3, "generation": 2}, {"lanes": 3, "generation": 2}]`} {
		file[layoutsKey] = []byte(bad)
		err := start(d, d.host())
		assert.ErrorContains(t, err, `sending_queue::storage: "disk": "layouts" of connector "lanes"`)
		assert.Equal(t, bad, string(file[layoutsKey]), "it is left for whoever can read it")
	}
	file[layoutsKey] = good
	require.NoError(t, start(d, d.host()))

	d = newDisk()
	d.full = true
	assert.ErrorContains(t, start(d, d.host()), `sending_queue::storage: writing "layouts": no space left on device`)
}

// TestFullDisk hands back what the queue on disk cannot take.
func TestFullDisk(t *testing.T) {
	d, b := newDisk(), newSwitched(t)
	l := newLabOn(t, d.host(), "{lanes: 2, sending_queue: {storage: disk}, "+quickRetries+"}", b)
	d.mu.Lock()
	d.full = true
	d.mu.Unlock()
	err := l.ConsumeMetrics(t.Context(), batchOf(0, 20, 0, 1, one))
	assert.ErrorContains(t, err, "no space left on device")
	assert.Equal(t, map[string]int64{"returned": 20}, l.outcomes())
	d.mu.Lock()
	d.full = false
	d.mu.Unlock()
	b.set(true)
	require.NoError(t, l.ConsumeMetrics(t.Context(), batchOf(0, 20, 0, 1, one)))
	require.Eventually(t, func() bool { return b.stored() == 20 }, 10*time.Second, time.Millisecond)
	l.stop()
}

// TestDiskIsFullForLong has producers try more often than the queue has room for. When the disk has room again, so has the queue.
func TestDiskIsFullForLong(t *testing.T) {
	d, b := newDisk(), newSwitched(t)
	b.set(true)
	full := func(full bool) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.full = full
	}
	l := newLabOn(t, d.host(), "{lanes: 1, sending_queue: {storage: disk, queue_size: 10}, "+quickRetries+"}", b)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for range 3 {
		full(true)
		for range 100 {
			require.ErrorContains(t, l.ConsumeMetrics(ctx, batchOf(0, 1, 0, 1, one)), "no space left on device")
		}
		full(false)
		require.NoError(t, l.ConsumeMetrics(ctx, batchOf(0, 1, 0, 1, one)))
	}
	l.stop()
}

func FuzzLayouts(f *testing.F) {
	f.Add([]byte(`[{"generation":1,"lanes":16,"key":"streamID","seed":"42"},{"generation":2,"lanes":8,"key":"resource","tenants":["x"],"seed":"1"}]`))
	f.Add([]byte(`[]`))
	f.Add([]byte(`[{"lanes":-1}]`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		layouts, err := parseLayouts(raw)
		if err != nil {
			return
		}
		generation := 0
		for _, l := range layouts {
			if l.Lanes < 1 || l.Lanes > maxLanes || l.Generation <= generation {
				t.Errorf("%q makes %+v", raw, layouts)
			}
			generation = l.Generation
		}
	})
}

// TestPowerCuts stops Collectors or copies their disk at any moment, changes lanes, keys and tenants in between, while the backend
// comes and goes. Of all that was acknowledged, the sample itself or a later one of its stream is at the backend in the end.
func TestPowerCuts(t *testing.T) {
	settings := []string{
		"lanes: 1", "lanes: 3", "lanes: 3, routing_key: resource", "lanes: 2, metadata_keys: [x-tenant]", "lanes: 4, metadata_keys: [x-tenant]",
		"lanes: 2, metadata_keys: [x-tenant, x-other]",
	}
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 4))
			d, b := newDisk(), newSwitched(t)
			b.inflight = nil // what is cut off goes on
			type key struct{ producer, series int }
			acknowledged := map[key]uint64{}
			var at uint64
			give := func(l *lab) {
				at++
				p, first, n := random.IntN(4), random.IntN(5), 1+random.IntN(5)
				value := float64(at)
				err := l.ConsumeMetrics(as(t.Context(), fmt.Sprint(p)), batchOf(p, n, first, at, func(int) float64 { return value }))
				if err == nil {
					for s := range n {
						acknowledged[key{p, first + s}] = at
					}
				}
			}
			yaml := func() string {
				batch := []string{"{flush_timeout: 1ms}", "{flush_timeout: 5ms, min_size: 3}", "{enabled: false}"}[random.IntN(3)]
				return fmt.Sprintf("{%s, sending_queue: {storage: disk, batch: %s}, %s}", settings[random.IntN(len(settings))], batch, quickRetries)
			}
			for range 6 {
				b.set(random.IntN(3) == 0)
				l := newLabOn(t, d.host(), yaml(), b)
				for range random.IntN(12) {
					give(l)
					if random.IntN(4) == 0 {
						time.Sleep(time.Duration(random.IntN(3000)) * time.Microsecond)
					}
					if random.IntN(6) == 0 {
						b.set(random.IntN(2) == 0)
					}
				}
				if random.IntN(2) == 0 {
					d = d.copy() // the old one goes on for a moment, for nobody
				}
				l.stop()
				assert.Zero(t, l.outcomes()["failed"])
			}
			b.set(true)
			l := newLabOn(t, d.host(), yaml(), b)
			done := func() bool {
				for k, ms := range acknowledged {
					if all := b.of(k.producer, k.series); len(all) == 0 || all[len(all)-1].ms < ms {
						return false
					}
				}
				return true
			}
			assert.Eventually(t, done, 5*time.Second, 5*time.Millisecond)
			l.stop()
		})
	}
}
