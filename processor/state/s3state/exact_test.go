// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package s3state

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/extension/extensiontest"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/processor"
	"go.opentelemetry.io/collector/processor/processortest"

	"github.com/deltaring/deltaring/d2c/store/s3/s3test"
	"github.com/deltaring/deltaring/processor/d2cprocessor"
	"github.com/deltaring/deltaring/processor/state/s3state/internal/metadata"
)

// worker is an extension and a processor that uses it, as a Collector has them.
type worker struct {
	t    *testing.T
	ext  *s3State
	p    processor.Metrics
	sink consumertest.MetricsSink
}

func (w *worker) GetExtensions() map[component.ID]component.Component {
	return map[component.ID]component.Component{component.NewID(metadata.Type): w.ext}
}

func startWorker(t *testing.T, cfg *Config) *worker {
	t.Helper()
	w := &worker{t: t}
	ext, err := NewFactory().Create(context.Background(), extensiontest.NewNopSettings(metadata.Type), cfg)
	require.NoError(t, err)
	w.ext = ext.(*s3State)
	require.NoError(t, ext.Start(context.Background(), w))
	factory := d2cprocessor.NewFactory()
	pcfg := factory.CreateDefaultConfig().(*d2cprocessor.Config)
	id := component.NewID(metadata.Type)
	pcfg.State.Shared = &id
	set := processortest.NewNopSettings(factory.Type())
	set.ID = testProcessor
	w.p, err = factory.CreateMetrics(context.Background(), set, pcfg, &w.sink)
	require.NoError(t, err)
	require.NoError(t, w.p.Start(context.Background(), w))
	return w
}

func (w *worker) stop() {
	w.t.Helper()
	require.NoError(w.t, w.p.Shutdown(context.Background()))
	require.NoError(w.t, w.ext.Shutdown(context.Background()))
}

const (
	testEpoch   = 1_700_000_000
	testStreams = 200
)

// second is a delta of 1 for each stream.
func second(n int) pmetric.Metrics {
	md := pmetric.NewMetrics()
	m := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetName("requests")
	sum := m.SetEmptySum()
	sum.SetIsMonotonic(true)
	sum.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	for i := range testStreams {
		dp := sum.DataPoints().AppendEmpty()
		dp.Attributes().PutInt("stream", int64(i))
		dp.SetStartTimestamp(pcommon.NewTimestampFromTime(time.Unix(testEpoch+int64(n), 0)))
		dp.SetTimestamp(pcommon.NewTimestampFromTime(time.Unix(testEpoch+int64(n)+1, 0)))
		dp.SetIntValue(1)
	}
	return md
}

// send sends a second until it is taken, to any of the workers.
func send(t *testing.T, n int, workers ...*worker) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := workers[rand.IntN(len(workers))].p.ConsumeMetrics(context.Background(), second(n))
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("second %d: %v", n, err)
		}
	}
}

// exact fails unless the worker's latest samples are the totals of so many seconds, under the first start.
func (w *worker) exact(seconds int) {
	w.t.Helper()
	all := w.sink.AllMetrics()
	latest := map[int64]pmetric.NumberDataPoint{}
	for _, md := range all {
		for _, dp := range md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints().All() {
			v, _ := dp.Attributes().Get("stream")
			latest[v.Int()] = dp
		}
	}
	if len(latest) != testStreams {
		w.t.Fatalf("%d streams came out, want %d", len(latest), testStreams)
	}
	for i, dp := range latest {
		if dp.IntValue() != int64(seconds) || dp.StartTimestamp() != pcommon.NewTimestampFromTime(time.Unix(testEpoch, 0)) {
			w.t.Fatalf("stream %d is %d since %v, want %d since the first second", i, dp.IntValue(), dp.StartTimestamp().AsTime(), seconds)
		}
	}
}

// A worker restarts, another takes over while the first still runs and does not know, and it comes back: the totals are exact, each
// time.
func TestExactThroughRestartAndTakeover(t *testing.T) {
	server := s3test.Start(t)
	cfg := testConfig(server.URL)
	n := 0
	step := func(seconds int, w *worker) {
		t.Helper()
		for range seconds {
			send(t, n, w)
			n++
		}
		w.exact(n)
	}
	first := startWorker(t, cfg)
	step(8, first)
	first.stop()
	first = startWorker(t, cfg)
	step(8, first)
	second := startWorker(t, cfg)
	step(8, second)
	step(8, first)
	step(8, second)
	second.stop()
	step(5, first)
	// A retry elsewhere counts nothing.
	third := startWorker(t, cfg)
	send(t, n-1, third)
	third.exact(n)
	first.stop()
	third.stop()
}

// Three workers get deltas of the same streams by turns while requests and answers are lost.
func TestExactThroughFaults(t *testing.T) {
	server := s3test.Start(t)
	proxy := s3test.NewProxy(t, server.URL)
	cfg := testConfig(proxy.URL)
	cfg.Groups = 4
	var workers []*worker
	for range 3 {
		workers = append(workers, startWorker(t, cfg))
	}
	faults := []s3test.Fault{
		{Status: 503, Code: "SlowDown"}, {Status: 500, Code: "InternalError"}, {Status: 409, Code: "ConditionalRequestConflict"},
		{Lose: s3test.Request}, {Lose: s3test.Answer}, {Lose: s3test.Late}, {Lose: s3test.Half},
	}
	proxy.Fail(func(*http.Request) s3test.Fault {
		if rand.IntN(12) > 0 {
			return s3test.Fault{}
		}
		return faults[rand.IntN(len(faults))]
	})
	n := 0
	for range 15 {
		var wg sync.WaitGroup
		for range 3 {
			at := n
			n++
			wg.Go(func() { send(t, at, workers...) })
		}
		wg.Wait()
	}
	proxy.Fail(nil)
	last := startWorker(t, cfg)
	send(t, n, last)
	last.exact(n + 1)
	for _, w := range append(workers, last) {
		w.stop()
	}
}

// A steady commit is one request for each group of streams, whatever else there is.
func TestRequestsPerCommit(t *testing.T) {
	server := s3test.Start(t)
	proxy := s3test.NewProxy(t, server.URL)
	var mu sync.Mutex
	counts := map[string]int{}
	proxy.Fail(func(r *http.Request) s3test.Fault {
		mu.Lock()
		defer mu.Unlock()
		if !strings.Contains(r.URL.Path, "/_probe/") { // the extension's, at some time
			counts[r.Method]++
		}
		return s3test.Fault{}
	})
	for _, groups := range []int{1, 16} {
		t.Run(fmt.Sprint(groups, " groups"), func(t *testing.T) {
			cfg := testConfig(proxy.URL)
			cfg.Groups, cfg.Prefix = groups, fmt.Sprint("d2c/", groups)
			w := startWorker(t, cfg)
			defer w.stop()
			send(t, 0, w)
			mu.Lock()
			clear(counts)
			mu.Unlock()
			const commits = 10
			for n := range commits {
				send(t, n+1, w)
			}
			mu.Lock()
			defer mu.Unlock()
			if counts[http.MethodPut] != commits*groups || len(counts) != 1 {
				t.Errorf("%d commits to %d groups are %v", commits, groups, counts)
			}
		})
	}
}
