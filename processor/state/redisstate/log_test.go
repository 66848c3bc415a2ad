// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redisstate

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/metric/metricdata/metricdatatest"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/d2c/store/log"
	"github.com/deltaring/deltaring/d2c/store/redis"
	"github.com/deltaring/deltaring/d2c/store/redis/redistest"
	"github.com/deltaring/deltaring/d2c/storetest"
	"github.com/deltaring/deltaring/processor/state/redisstate/internal/metadatatest"
	"github.com/deltaring/deltaring/streamid"
)

func logConfig(endpoints ...string) *Config {
	cfg := testConfig(endpoints...)
	cfg.Layout = LayoutLog
	return cfg
}

func logStore(t testing.TB, cfg *Config) store.Shared {
	t.Helper()
	return sharedStore(t, startExtension(t, cfg), testProcessor)
}

// asker is a store and what it knows of lives.
type asker struct {
	store.Shared
	lives []store.Life
}

// try swaps, and asks for lives before that if they are not known.
func (c *asker) try(swaps ...store.Swap) ([]store.Result, error) {
	if c.lives == nil {
		lives, err := c.Lives(context.Background(), store.Life{ID: 77, Floor: 5})
		if err != nil {
			return nil, err
		}
		c.lives = lives
	}
	for i := range swaps {
		swaps[i].Life = c.lives[store.Group(swaps[i].ID, len(c.lives))].ID
	}
	return c.Swap(context.Background(), swaps)
}

func (c *asker) must(t testing.TB, swaps ...store.Swap) {
	t.Helper()
	results, err := c.try(swaps...)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if r.Status != store.Swapped {
			t.Fatalf("swap %d: %+v", i, r)
		}
	}
}

func TestSharedByLog(t *testing.T) {
	server := redistest.Start(t)
	storetest.TestShared(t, func(t *testing.T) storetest.Fixture {
		server.Do("flushall")
		return storetest.Fixture{
			Open: func() store.Shared { return logStore(t, logConfig(server.Addr)) },
			Wipe: func() { server.Do("flushall") },
		}
	})
}

// Any worker may take any delta, though each of them then has conflicts; and a server that is killed has on disk what it acknowledged.
func TestWorkersByLogCountExactly(t *testing.T) {
	server := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	var stores []store.Shared
	for range 3 {
		stores = append(stores, logStore(t, logConfig(server.Addr)))
	}
	f := newShareTest(t, 50, stores...)
	for range 5 {
		for range 6 {
			f.round(4)
		}
		killed := make(chan struct{})
		go func() {
			defer close(killed)
			server.Stop()
			server.Start()
		}()
		for running := true; running; {
			select {
			case <-killed:
				running = false
			default:
			}
			f.round(3)
		}
	}
	f.verify()

	// Their caches are gone, and so is the script: new workers read the logs.
	server.Do("script", "flush")
	f.workers = []*d2c.Converter{share(t, logStore(t, logConfig(server.Addr))), share(t, logStore(t, logConfig(server.Addr)))}
	f.round(4)
	f.verify()
	t.Logf("%d batches refused and sent again", f.refused.Load())
}

func TestLogOnAClusterThatReshards(t *testing.T) {
	nodes := redistest.StartCluster(t, 3)
	cfg := logConfig(nodes[0].Addr)
	cfg.Mode = ModeCluster
	ext := startExtension(t, cfg)
	f := newShareTest(t, 200, sharedStore(t, ext, testProcessor), sharedStore(t, ext, testProcessor))
	done := make(chan struct{})
	go func() {
		defer close(done)
		redistest.CLI(t, "--cluster", "reshard", nodes[0].Addr, "--cluster-from", nodes[0].Do("cluster", "myid").(string),
			"--cluster-to", nodes[1].Do("cluster", "myid").(string), "--cluster-slots", "800", "--cluster-yes", "--cluster-pipeline", "1")
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		f.round(2)
	}
	f.verify()
	t.Logf("%d batches refused and sent again", f.refused.Load())
}

// A failover to a replica that had to have what was acknowledged loses nothing.
func TestLogFailsOver(t *testing.T) {
	master := redistest.Start(t, "--repl-diskless-sync-delay", "0")
	replica := startReplica(t, master)
	sentinel := redistest.StartSentinel(t, master)
	redistest.Eventually(t, "the Sentinel knows the replica", func() error {
		out := redistest.CLI(t, "-p", sentinel.Port(), "sentinel", "replicas", "counters")
		if !strings.Contains(out, replica.Port()) {
			return errors.New(out)
		}
		return nil
	})
	cfg := logConfig(sentinel.Addr)
	cfg.Mode, cfg.Sentinel = ModeSentinel, SentinelConfig{MasterName: "counters"}
	cfg.WaitReplicas, cfg.WaitTimeout = 1, 4*time.Second
	f := newShareTest(t, 50, logStore(t, cfg), logStore(t, cfg))
	for range 10 {
		f.round(3)
	}
	master.Stop()
	redistest.Eventually(t, "the replica has taken over", func() error {
		info, err := replica.Admin.Info(context.Background(), "replication").Result() // which closes connections meanwhile
		if err == nil && !strings.Contains(info, "role:master") {
			err = errors.New("not yet")
		}
		return err
	})
	master.Args = append(master.Args, "--replicaof", "127.0.0.1", replica.Port())
	master.Start()
	for range 10 {
		f.round(3)
	}
	f.verify()
}

// A server that lost everything is a new life: each stream restarts once, visibly, and goes on from there.
func TestWipedLog(t *testing.T) {
	server := redistest.Start(t)
	conv := share(t, logStore(t, logConfig(server.Addr)))
	convert := func(from time.Time) (d2c.Result, int64) {
		t.Helper()
		md := newLoad(20, false).next(0, from)
		r, err := conv.Convert(context.Background(), md)
		require.NoError(t, err)
		dps := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints()
		if dps.Len() == 0 {
			return r, 0
		}
		return r, dps.At(0).IntValue()
	}
	from := time.Now().Add(time.Hour) // later than any floor
	for i := range int64(3) {
		_, value := convert(from)
		require.Equal(t, i+1, value)
		from = from.Add(time.Second)
	}
	server.Do("flushall")
	from = from.Add(time.Hour)
	r, value := convert(from)
	require.EqualValues(t, 20, r.Count(d2c.RestartedLost), "%v", r)
	require.EqualValues(t, 1, value)
	_, value = convert(from.Add(time.Second))
	require.EqualValues(t, 2, value)
}

// What one layout keeps is not there for the other, and neither spoils the other's.
func TestLayoutsHaveNothingInCommon(t *testing.T) {
	server := redistest.Start(t)
	records, logs := clientOf(t, startExtension(t, testConfig(server.Addr))), &asker{Shared: logStore(t, logConfig(server.Addr))}
	id := streamid.ID{Hi: 1 << 60, Lo: 7}
	mustSwap(t, records, store.Swap{ID: id, Tag: 1, Record: []byte("record")})
	logs.must(t, store.Swap{ID: id, Tag: 2, Record: []byte("in a log")})
	mustSwap(t, records, store.Swap{ID: id, Base: 1, Tag: 3, Record: []byte("record")})
	logs.must(t, store.Swap{ID: id, Base: 2})
	for _, key := range redisKeys(t, server) {
		if !strings.HasPrefix(key, "d2c:{") {
			t.Errorf("key %q", key)
		}
	}
}

// Groups of another number would be other groups: the logs say how many there are.
func TestGroupsAreTheSameForAll(t *testing.T) {
	server := redistest.Start(t)
	first := &asker{Shared: logStore(t, logConfig(server.Addr))}
	first.must(t, store.Swap{Tag: 1, Record: []byte("record")})
	cfg := logConfig(server.Addr)
	cfg.Groups = 16
	_, err := (&asker{Shared: logStore(t, cfg)}).try(store.Swap{})
	if err == nil || !strings.Contains(err.Error(), "set groups to 64") || redis.ReasonOf(err) != redis.Other {
		t.Errorf("error %v", err)
	}
}

// logACL is the least that a user needs; the README has it.
const logACL = "~d2c:* resetchannels -@all +eval +evalsha +lindex +llen +lrange +lset +ltrim +rpush +persist +pexpire"

func TestLeastPermissionsOfLogs(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), logACL) {
		t.Errorf("the README does not have %q", logACL)
	}
	server := redistest.Start(t)
	server.Do(append([]any{"acl", "setuser", "worker", "on", ">" + secret}, words(logACL)...)...)
	cfg := logConfig(server.Addr)
	cfg.Username, cfg.Password = "worker", secret
	ext := watch(t, cfg)
	st := &asker{Shared: sharedStore(t, ext.redisState, testProcessor)}
	for i := range uint64(400) { // until there are snapshots
		st.must(t, store.Swap{ID: streamid.ID{Lo: i}, Tag: i + 1, Record: make([]byte, 10_000)})
	}
	redistest.Eventually(t, "there is a snapshot", func() error {
		if n := server.Do("llen", "d2c:{mm}:_log:d2c:1:0").(int64); n > 2*350 {
			return errors.New("not yet")
		}
		return nil
	})
	other := &asker{Shared: sharedStore(t, ext.redisState, testProcessor)}
	other.must(t, store.Swap{Base: 1, Tag: 1 << 40, Record: []byte("record")})
	if ext.host.events != nil {
		t.Errorf("status %v", ext.host.events)
	}
	server.Do("acl", "setuser", "worker", "-rpush")
	if _, err := st.try(store.Swap{ID: streamid.ID{Lo: 1 << 40}, Tag: 1, Record: []byte("a")}); redis.ReasonOf(err) != redis.Credentials {
		t.Errorf("error %v", err)
	}
	ext.mustNotSay(t, secret, ext.host.await(t, componentstatus.StatusRecoverableError))
	server.Do("acl", "setuser", "worker", "+rpush")
	ext.host.await(t, componentstatus.StatusOK)
}

func TestServerIsFullOfLogs(t *testing.T) {
	server := redistest.Start(t)
	ext := watch(t, logConfig(server.Addr))
	st := &asker{Shared: sharedStore(t, ext.redisState, testProcessor)}
	st.must(t, store.Swap{ID: streamid.ID{Hi: 1}, Tag: 1, Record: []byte("a")})
	server.Do("config", "set", "maxmemory", "1")
	change := store.Swap{ID: streamid.ID{Hi: 1}, Base: 1, Tag: 2, Record: []byte("b")}
	_, err := st.try(change)
	if err == nil || redis.ReasonOf(err) != redis.Memory || !strings.Contains(err.Error(), "out of memory") {
		t.Fatalf("error %v", err)
	}
	ext.host.await(t, componentstatus.StatusRecoverableError)
	server.Do("config", "set", "maxmemory", "0")
	ext.host.await(t, componentstatus.StatusOK)
	st.must(t, change)
}

func TestLogComesUpLater(t *testing.T) {
	server := redistest.New(t)
	ext := watch(t, logConfig(server.Addr))
	st := &asker{Shared: sharedStore(t, ext.redisState, testProcessor)}
	if _, err := st.try(store.Swap{}); redis.ReasonOf(err) != redis.Unreachable || !strings.Contains(err.Error(), server.Addr) {
		t.Fatalf("error %v", err)
	}
	ext.host.await(t, componentstatus.StatusRecoverableError)
	server.Start()
	ext.host.await(t, componentstatus.StatusOK)
	st.must(t, store.Swap{Tag: 1, Record: []byte("record")})
	if err := ext.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if _, err := st.try(store.Swap{Base: 1}); err == nil {
		t.Error("no error after shutdown")
	}
}

func TestCommitIntervalIsAskedFor(t *testing.T) {
	for _, interval := range []time.Duration{0, 20 * time.Millisecond} {
		cfg := logConfig("127.0.0.1:1")
		cfg.CommitInterval = interval
		paced, ok := logStore(t, cfg).(store.Paced)
		if !ok {
			t.Fatal("the store is not Paced")
		}
		if got, _ := paced.Pace(); got != interval {
			t.Errorf("got %v, want %v", got, interval)
		}
	}
}

func TestLogTelemetry(t *testing.T) {
	tel := componenttest.NewTelemetry()
	t.Cleanup(func() { require.NoError(t, tel.Shutdown(context.Background())) })
	server := redistest.Start(t)
	ext := startExtensionWith(t, metadatatest.NewSettings(tel), logConfig(server.Addr), componenttest.NewNopHost())
	a := &asker{Shared: sharedStore(t, ext, testProcessor)}
	id := func(group uint64) streamid.ID { return streamid.ID{Hi: group << 58} }
	a.must(t, store.Swap{ID: id(1), Tag: 1, Record: []byte("record")}, store.Swap{ID: id(2), Tag: 1, Record: []byte("record")})
	b := &asker{Shared: logStore(t, logConfig(server.Addr))} // counts elsewhere
	b.must(t, store.Swap{ID: id(1), Base: 1, Tag: 2, Record: []byte("record")})
	results, err := a.try(store.Swap{ID: id(1), Base: 1, Tag: 3, Record: []byte("record")}, store.Swap{ID: id(2), Base: 1, Tag: 3, Record: []byte("record")})
	require.NoError(t, err)
	require.Equal(t, store.Changed, results[0].Status)
	server.Do("config", "set", "maxmemory", "1")
	_, err = a.try(store.Swap{ID: id(3), Tag: 1, Record: []byte("record")})
	require.Error(t, err)

	instance := []attribute.KeyValue{attribute.String("extension", "redis_state"), attribute.String("processor", "d2c")}
	point := func(value int64, more ...attribute.KeyValue) metricdata.DataPoint[int64] {
		return metricdata.DataPoint[int64]{Attributes: attribute.NewSet(append(more, instance...)...), Value: value}
	}
	ignore := metricdatatest.IgnoreTimestamp()
	metadatatest.AssertEqualRedisStateRecords(t, tel, []metricdata.DataPoint[int64]{
		point(3, attribute.String("outcome", "swapped")), point(1, attribute.String("outcome", "conflict")),
	}, ignore)
	m, err := tel.GetMetric("otelcol_redis_state_log_appends")
	require.NoError(t, err)
	appends := map[string]int64{}
	for _, dp := range m.Data.(metricdata.Sum[int64]).DataPoints {
		outcome, _ := dp.Attributes.Value("outcome")
		appends[outcome.AsString()] = dp.Value
	}
	// 64 lives, two entries, and one of the other two; and as many checks as the store sees fit.
	if appends["appended"] < 67 || appends["conflict"] != 1 || len(appends) != 2 {
		t.Errorf("appends %v", appends)
	}
	metadatatest.AssertEqualRedisStateErrors(t, tel, []metricdata.DataPoint[int64]{point(1, attribute.String("reason", "memory"))}, ignore)
	metadatatest.AssertEqualRedisStateLogOwned(t, tel, []metricdata.DataPoint[int64]{point(2)}, ignore)
	metadatatest.AssertEqualRedisStateLogStreams(t, tel, []metricdata.DataPoint[int64]{point(2)}, ignore)
	metadatatest.AssertEqualRedisStateLogReads(t, tel, []metricdata.DataPoint[int64]{point(1, attribute.String("kind", "tail"))}, ignore)
}

// Where several workers write a log all the time it is warned of, and not where logs move from one to another.
func TestConflictsAreWarnedOf(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	now := time.Unix(0, 0)
	c := conflicts{logger: zap.New(core), groups: 64, now: func() time.Time { return now }}
	minutes := func(n, appends, refused int) int {
		before := logs.Len()
		for range n * 6 {
			c.add(appends, refused)
			now = now.Add(10 * time.Second)
		}
		return logs.Len() - before
	}
	if n := minutes(10, 64, 0); n != 0 {
		t.Errorf("%d warnings without a conflict", n)
	}
	minutes(1, 64, 20)
	if n := minutes(10, 64, 1); n != 0 {
		t.Errorf("%d warnings after one minute of conflicts", n)
	}
	if n := minutes(5, 64, 20); n != 1 {
		t.Errorf("%d warnings in five minutes of conflicts, want one", n)
	}
	if n := minutes(30, 64, 20); n != 3 {
		t.Errorf("%d warnings in half an hour of conflicts, want three", n)
	}
	entry := logs.All()[0]
	if !strings.Contains(entry.Message, "several workers append to one log") || entry.ContextMap()["groups"] != int64(64) {
		t.Errorf("the warning is %v", entry)
	}
}

// Two that write one log by turns are warned of, whatever the extension's other processors do.
func TestTwoWritersAreWarnedOf(t *testing.T) {
	server := redistest.Start(t)
	cfg := logConfig(server.Addr)
	ext := watch(t, cfg)
	now := time.Now()
	tel := &logTelemetry{
		processorTelemetry: ext.tel.observer(component.MustNewID("d2c"), ext.failing),
		conflicts:          conflicts{logger: ext.logger, groups: 64, now: func() time.Time { return now }},
	}
	driver, err := redis.NewLog(ext.client, cfg.logOptions("d2c"))
	require.NoError(t, err)
	a, b := &asker{Shared: newLogStore(t, driver, tel)}, &asker{Shared: logStore(t, cfg)}
	a.must(t, store.Swap{Tag: 1, Record: []byte("record")})
	for i := range uint64(100) {
		now = now.Add(5 * time.Second)
		b.must(t, store.Swap{Base: 2*i + 1, Tag: 2*i + 2, Record: []byte("record")})
		a.must(t, store.Swap{Base: 2*i + 2, Tag: 2*i + 3, Record: []byte("record")})
	}
	if n := ext.logs.FilterMessageSnippet("several workers append to one log").Len(); n != 1 {
		t.Errorf("%d warnings, want one", n)
	}
}

func newLogStore(t *testing.T, driver log.Driver, observer log.Observer) store.Shared {
	t.Helper()
	st, err := log.New(driver, log.Options{Observer: observer})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, st.Close(context.Background())) })
	return st
}
