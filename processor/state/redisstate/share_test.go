// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redisstate

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/d2c/store/redis/redistest"
	"github.com/deltaring/deltaring/streamid"
)

// shareTest is workers that share their state and get deltas of the same streams by turns, several at a time and in any
// order, and clients that send again what was refused. Every value that comes out is checked: it is the number of deltas
// that have been handed in and not refused at most, and where all are in it is exactly that.
type shareTest struct {
	t       *testing.T
	workers []*d2c.Converter
	streams int
	seconds int64 // so far; each has a delta of 1 for each stream
	refused atomic.Int64

	mu     sync.Mutex
	latest []int64 // value of each stream under the latest time
	times  []pcommon.Timestamp
	starts []pcommon.Timestamp
}

const testEpoch = 1_700_000_000

func newShareTest(t *testing.T, streams int, stores ...store.Shared) *shareTest {
	t.Helper()
	f := &shareTest{
		t: t, streams: streams, latest: make([]int64, streams),
		times: make([]pcommon.Timestamp, streams), starts: make([]pcommon.Timestamp, streams),
	}
	for _, st := range stores {
		f.workers = append(f.workers, share(t, st))
	}
	return f
}

// round sends the deltas of so many seconds, all at once, and each to another worker.
func (f *shareTest) round(seconds int) {
	f.t.Helper()
	var wg sync.WaitGroup
	for range seconds {
		second := f.seconds
		f.seconds++
		wg.Go(func() { f.send(second) })
	}
	wg.Wait()
	if f.t.Failed() {
		f.t.FailNow()
	}
}

// send hands in the deltas of one second until a worker takes them.
func (f *shareTest) send(second int64) {
	deadline := time.Now().Add(20 * time.Second)
	for {
		md := f.batch(second)
		_, err := f.workers[rand.IntN(len(f.workers))].Convert(context.Background(), md)
		if err == nil {
			f.check(md)
			return
		}
		if f.refused.Add(1); time.Now().After(deadline) {
			f.t.Error(err)
			return
		}
	}
}

func (f *shareTest) batch(second int64) pmetric.Metrics {
	md := pmetric.NewMetrics()
	m := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetName("requests")
	sum := m.SetEmptySum()
	sum.SetIsMonotonic(true)
	sum.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	for i := range f.streams {
		dp := sum.DataPoints().AppendEmpty()
		dp.Attributes().PutInt("stream", int64(i))
		dp.SetStartTimestamp(pcommon.NewTimestampFromTime(time.Unix(testEpoch+second, 0)))
		dp.SetTimestamp(pcommon.NewTimestampFromTime(time.Unix(testEpoch+second+1, 0)))
		dp.SetIntValue(1)
	}
	return md
}

// check takes note of what came out.
func (f *shareTest) check(md pmetric.Metrics) {
	f.mu.Lock()
	defer f.mu.Unlock()
	dps := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints()
	if dps.Len() != f.streams {
		f.t.Errorf("%d points came out, want %d", dps.Len(), f.streams)
		return
	}
	for _, dp := range dps.All() {
		v, _ := dp.Attributes().Get("stream")
		i := v.Int()
		switch {
		case dp.Timestamp() == f.times[i] && dp.IntValue() != f.latest[i]:
			f.t.Errorf("stream %d has values %d and %d at one time", i, f.latest[i], dp.IntValue())
		case dp.Timestamp() > f.times[i] && dp.IntValue() < f.latest[i]:
			f.t.Errorf("stream %d fell from %d to %d", i, f.latest[i], dp.IntValue())
		}
		if dp.Timestamp() > f.times[i] {
			f.times[i], f.latest[i], f.starts[i] = dp.Timestamp(), dp.IntValue(), dp.StartTimestamp()
		}
	}
}

// verify fails unless every delta has been counted once.
func (f *shareTest) verify() {
	f.t.Helper()
	f.round(1)
	for i, v := range f.latest {
		if v != f.seconds {
			f.t.Errorf("stream %d has %d, want %d", i, v, f.seconds)
		}
		if f.starts[i] != pcommon.NewTimestampFromTime(time.Unix(testEpoch, 0)) {
			f.t.Errorf("stream %d starts at %v", i, f.starts[i])
		}
	}
}

func TestThreeWorkersCountExactly(t *testing.T) {
	server := redistest.Start(t)
	var stores []store.Shared
	for range 3 {
		stores = append(stores, openStore(t, testConfig(server.Addr)))
	}
	f := newShareTest(t, 50, stores...)
	for range 60 {
		f.round(4)
	}
	f.verify()

	// Their caches are gone, and with some of the streams so is the script.
	server.Do("script", "flush")
	f.workers = []*d2c.Converter{share(t, stores[0]), share(t, stores[1])}
	f.round(4)
	f.verify()
}

// Whatever else is in the place of a record is set aside, and the stream begins.
func TestForeignBytesAreSetAside(t *testing.T) {
	server := redistest.Start(t)
	st := openStore(t, testConfig(server.Addr))
	f := newShareTest(t, 6, st)
	f.round(1)
	const records = "d2c:{1}:d2c:3n"
	all, err := server.Admin.HGetAll(context.Background(), records).Result()
	if err != nil {
		t.Fatal(err)
	}
	var broken []string
	for field, value := range all {
		if field == "about" || field == "version" { // of no stream
			continue
		}
		switch len(broken) {
		case 0:
			value = "\x00foreign"
		case 1:
			value = ""
		case 2:
			value = value[:len(value)-1]
		case 3:
			value = value[:len(value)-1] + string(value[len(value)-1]^1)
		default:
			continue
		}
		server.Do("hset", records, field, value)
		broken = append(broken, field)
	}
	if len(broken) != 4 {
		t.Fatalf("%d streams", len(broken))
	}
	var troubles []error
	conv, err := d2c.OpenShared(context.Background(), d2c.DefaultConfig(), d2c.SharedConfig{
		Store: st, Owner: testProcessor.String(),
		OnDamaged: func(_ streamid.ID, err error) { troubles = append(troubles, err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	r, err := conv.Convert(context.Background(), f.batch(1))
	if err != nil {
		t.Fatal(err)
	}
	if len(troubles) != 4 || r.Count(d2c.AddedFirst) != 4 || r.Count(d2c.AddedAligned) != 2 {
		t.Errorf("troubles %v, outcomes %v", troubles, r)
	}
	kept := 0
	for _, key := range redisKeys(t, server) {
		if strings.Contains(key, "}:_damaged:") {
			kept++
		}
	}
	if kept != 4 {
		t.Errorf("%d values are kept, want 4", kept)
	}
}

// redis-cli moves slots while a Converter works.
func TestClusterReshardsUnderLoad(t *testing.T) {
	nodes := redistest.StartCluster(t, 3)
	ext := startExtension(t, clusterConfig(nodes))
	f := newShareTest(t, 200, sharedStore(t, ext, testProcessor), sharedStore(t, ext, testProcessor))
	done := make(chan struct{})
	go func() {
		defer close(done)
		from := fmt.Sprint(nodes[0].Do("cluster", "myid"))
		to := fmt.Sprint(nodes[1].Do("cluster", "myid"))
		redistest.CLI(t, "--cluster", "reshard", nodes[0].Addr, "--cluster-from", from, "--cluster-to", to,
			"--cluster-slots", "800", "--cluster-yes", "--cluster-pipeline", "1")
	}()
	rounds := 0
	for running := true; running; rounds++ {
		select {
		case <-done:
			running = false
		default:
		}
		f.round(2)
	}
	f.verify()
	t.Logf("%d rounds, %d batches refused and sent again", rounds, f.refused.Load())
}

func clusterConfig(nodes []*redistest.Server) *Config {
	cfg := testConfig(nodes[0].Addr)
	cfg.Mode = ModeCluster
	return cfg
}

func redisKeys(t testing.TB, server *redistest.Server) []string {
	t.Helper()
	keys, err := server.Admin.Keys(context.Background(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	return keys
}
