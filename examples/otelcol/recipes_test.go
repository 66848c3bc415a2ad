// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"sigs.k8s.io/yaml"
)

// The tests of this file run the configurations of recipes, each over one that is shipped.

// startRecipe runs a recipe over durable.yaml, in front of a tally.
func startRecipe(t *testing.T, recipe string, env ...string) (*node, *tally) {
	t.Helper()
	y := newTally()
	n := newNode(t, nil, t.TempDir(), "--config", "durable.yaml", "--config", filepath.Join("recipes", recipe))
	n.wrap, n.backend = append([]string{"env"}, env...), y
	n.start(t)
	return n, y
}

// pod is a producer with a name of its own that counts what all of a service count.
type pod struct {
	name string
	last time.Time
}

func newPod(name string) *pod { return &pod{name, time.Now().Add(-time.Second)} }

// count is a request with what has happened since the last one: so many orders, and as many baskets.
func (p *pod) count(n int) pmetricotlp.ExportRequest {
	now := time.Now()
	start, end := pcommon.NewTimestampFromTime(p.last), pcommon.NewTimestampFromTime(now)
	p.last = now
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	for key, value := range map[string]string{
		"service.name": "shop", "service.instance.id": p.name, "k8s.pod.name": p.name, "host.name": "host-of-" + p.name,
	} {
		rm.Resource().Attributes().PutStr(key, value)
	}
	metrics := rm.ScopeMetrics().AppendEmpty().Metrics()
	m := metrics.AppendEmpty()
	m.SetName("shop.orders")
	m.SetEmptySum().SetIsMonotonic(true)
	m.Sum().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	dp := m.Sum().DataPoints().AppendEmpty()
	dp.SetStartTimestamp(start)
	dp.SetTimestamp(end)
	dp.SetIntValue(int64(n))
	m = metrics.AppendEmpty()
	m.SetName("shop.basket")
	m.SetEmptyHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	h := m.Histogram().DataPoints().AppendEmpty()
	h.SetStartTimestamp(start)
	h.SetTimestamp(end)
	h.ExplicitBounds().FromRaw([]float64{1, 10})
	h.BucketCounts().FromRaw([]uint64{0, uint64(n), 0})
	h.SetCount(uint64(n))
	h.SetSum(float64(3 * n))
	return pmetricotlp.NewExportRequestFromMetrics(md)
}

// deliver sends a request until it is acknowledged.
func deliver(ctx context.Context, client pmetricotlp.GRPCClient, request pmetricotlp.ExportRequest) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, err := client.Export(attempt, request)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// shop is a number of pods at work, each of which sends to whichever node is next.
type shop struct {
	clients []pmetricotlp.GRPCClient
	turn    atomic.Int64
	orders  atomic.Int64 // acknowledged
	wg      sync.WaitGroup
}

func newShop(t *testing.T, nodes ...*node) *shop {
	s := &shop{}
	for _, n := range nodes {
		s.clients = append(s.clients, n.client(t))
	}
	return s
}

// open has pods report so many times each, some of it twice.
func (s *shop) open(t *testing.T, generation string, pods, reports int) {
	for i := range pods {
		p, random := newPod(fmt.Sprintf("shop-%s-%d", generation, i)), rand.New(rand.NewPCG(uint64(i), 0))
		s.wg.Go(func() {
			for r := range reports {
				n := 1 + random.IntN(9)
				request := p.count(n)
				for again := 0; again == 0 || again == 1 && r%10 == 3; again++ {
					client := s.clients[int(s.turn.Add(1))%len(s.clients)]
					if err := deliver(t.Context(), client, request); err != nil {
						t.Error(err)
						return
					}
				}
				s.orders.Add(int64(n))
				time.Sleep(time.Duration(random.IntN(100)) * time.Millisecond)
			}
		})
	}
}

// check waits for all pods, and then for their total in one series of each metric.
func (s *shop) check(t *testing.T, y *tally) {
	t.Helper()
	s.wg.Wait()
	y.await(t, map[string]int{"shop.orders": int(s.orders.Load()), "shop.basket": int(s.orders.Load())})
	checkOneLife(t, y, "shop.orders", "shop.basket")
}

// awaitOrders waits until so many more have been acknowledged.
func (s *shop) awaitOrders(t *testing.T, n int64) {
	t.Helper()
	want := s.orders.Load() + n
	if err := poll(func() error {
		if got := s.orders.Load(); got < want {
			return fmt.Errorf("%d orders, want %d", got, want)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// TestRecipePods has pods, and others in their place, count while their Collector is killed and rolled.
func TestRecipePods(t *testing.T) {
	t.Parallel()
	n, y := startRecipe(t, "pods.yaml")
	s := newShop(t, n)
	s.open(t, "a", 25, 20)
	s.awaitOrders(t, 500)
	if err := n.killRunning(); err != nil {
		t.Fatal(err)
	}
	n.start(t)
	s.open(t, "b", 25, 20)
	s.awaitOrders(t, 500)
	n.stop(t)
	n.start(t)
	s.check(t, y)
}

// TestRecipePodsTwoTiers has pods count through gateways that see to it that one worker has all of a total.
func TestRecipePodsTwoTiers(t *testing.T) {
	t.Parallel()
	redis, names, y := startRedis(t), newNameServer(t), newTally()
	workers, nodes := map[string]*collector{}, map[string]*node{}
	for _, name := range []string{"worker-0", "worker-1", "worker-2"} {
		n := newWorker(t, nil, redis)
		n.backend = y
		n.args = append(n.args, "--config", filepath.Join("recipes", "pods.yaml"))
		n.start(t)
		nodes[name], workers[name] = n, &n.collector
	}
	names.set(workers)
	var gateways []*node
	for range 2 {
		g := newNode(t, nil, "", "--config", "gateway.yaml", "--config", "gateway-shared.yaml", "--config", filepath.Join("recipes", "pods-gateway.yaml"))
		g.backend = y
		g.wrap = []string{"env", "WORKERS_SRV=" + workersService, "DNS_SERVER=" + names.address, "DNS_INTERVAL=100ms", "DNS_DEBOUNCE=0s"}
		g.start(t)
		awaitTelemetry(t, &g.collector, 3, "otelcol_ring_members")
		gateways = append(gateways, g)
	}
	// A new store counts from a second after its first worker has started.
	time.Sleep(1100 * time.Millisecond)
	s := newShop(t, gateways...)
	s.open(t, "a", 25, 30)
	s.awaitOrders(t, 500)
	conflicts := 0.0
	for _, w := range workers {
		m, err := scrape(w.telemetryURL)
		if err != nil {
			t.Fatal(err)
		}
		conflicts += m.sum("otelcol_redis_state_records", `outcome="conflict"`)
	}
	if conflicts != 0 {
		t.Errorf("%v conflicts: a total has more than one worker", conflicts)
	}
	const killed = "worker-1"
	if err := nodes[killed].killRunning(); err != nil {
		t.Fatal(err)
	}
	delete(workers, killed)
	names.set(workers)
	s.open(t, "b", 25, 30)
	s.check(t, y)
}

// TestRecipePodsLists has gateways and workers follow the same rules.
func TestRecipePodsLists(t *testing.T) {
	read := func(file string) (c struct {
		Processors struct {
			D2C struct{ Aggregate []map[string]any } `json:"d2c"`
		}
		Exporters struct {
			Ring struct{ Aggregate []map[string]any }
		}
	}) {
		text, err := os.ReadFile(filepath.Join("recipes", file))
		if err == nil {
			err = yaml.Unmarshal(text, &c)
		}
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	workers, gateways := read("pods.yaml").Processors.D2C.Aggregate, read("pods-gateway.yaml").Exporters.Ring.Aggregate
	if len(workers) == 0 || !reflect.DeepEqual(workers, gateways) {
		t.Errorf("workers have %v, gateways have %v", workers, gateways)
	}
}

// TestRecipeSpans has two Collectors make metrics of spans.
func TestRecipeSpans(t *testing.T) {
	t.Parallel()
	n, y := startRecipe(t, "spans.yaml")
	var clients []ptraceotlp.GRPCClient
	for _, interval := range []string{"200ms", "300ms"} {
		edge := startProducers(t, filepath.Join("..", "..", "recipes", "spans-edge.yaml"), "http://"+n.httpEndpoint, "SPANMETRICS_INTERVAL="+interval)
		conn, err := grpc.NewClient(edge.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		clients = append(clients, ptraceotlp.NewGRPCClient(conn))
	}
	spans := 0
	for i := range 80 {
		td := ptrace.NewTraces()
		rs := td.ResourceSpans().AppendEmpty()
		rs.Resource().Attributes().PutStr("service.name", "shop")
		rs.Resource().Attributes().PutStr("service.instance.id", fmt.Sprintf("shop-%d", i%5))
		for k := range 1 + i%7 {
			span := rs.ScopeSpans().AppendEmpty().Spans().AppendEmpty()
			span.SetName("GET /cart")
			span.SetTraceID([16]byte{1, byte(i)})
			span.SetSpanID([8]byte{1, byte(k)})
			span.SetStartTimestamp(pcommon.NewTimestampFromTime(time.Now().Add(-20 * time.Millisecond)))
			span.SetEndTimestamp(pcommon.NewTimestampFromTime(time.Now()))
			spans++
		}
		if _, err := clients[i%2].Export(t.Context(), ptraceotlp.NewExportRequestFromTraces(td)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	y.await(t, map[string]int{"traces.span.metrics.calls": spans, "traces.span.metrics.duration": spans})
	checkOneLife(t, y, "traces.span.metrics.calls", "traces.span.metrics.duration")
	checkOutcomes(t, n.telemetryURL)
}

// TestRecipeStatsd has two Collectors take statsd messages.
func TestRecipeStatsd(t *testing.T) {
	t.Parallel()
	n, y := startRecipe(t, "statsd.yaml")
	var conns []net.Conn
	for i, interval := range []string{"500ms", "300ms"} {
		edge := startProducers(t, filepath.Join("..", "..", "recipes", "statsd-edge.yaml"), "http://"+n.httpEndpoint,
			"STATSD_INTERVAL="+interval, "STATSD_TRANSPORT=tcp", fmt.Sprintf("COLLECTOR_NAME=edge-%d", i))
		conn, err := net.Dial("tcp", edge.statsd)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		conns = append(conns, conn)
	}
	sent := map[string]int{}
	for i := range 60 {
		for _, conn := range conns {
			text := fmt.Sprintf("cart.add:1|c\ncart.took:%d|ms\n", 1+i%50)
			sent["cart.add"]++
			sent["cart.took"]++
			if i%20 < 3 { // and now and then only
				text += "cart.pay:2|c\n"
				sent["cart.pay"] += 2
			}
			if _, err := conn.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(40 * time.Millisecond)
	}
	y.await(t, sent)
	checkOneLife(t, y, "cart.add", "cart.pay", "cart.took")
	checkOutcomes(t, n.telemetryURL)
}

// TestRecipeFunctions has functions come and go, with one delta each: the writers are forgotten, and what they have counted is not.
func TestRecipeFunctions(t *testing.T) {
	t.Parallel()
	n, y := startRecipe(t, "functions.yaml", "FUNCTIONS_MAX_STALE=2s")
	client := n.client(t)
	const waves, wave = 3, 400
	total := 0
	var first pmetricotlp.ExportRequest
	for w := range waves {
		for i := range wave {
			request := newPod(fmt.Sprintf("function-%d-%d", w, i)).count(1 + i%5)
			if total == 0 {
				first = request
			}
			if err := deliver(t.Context(), client, request); err != nil {
				t.Fatal(err)
			}
			total += 1 + i%5
		}
		y.await(t, map[string]int{"shop.orders": total, "shop.basket": total})
		// Somebody counts on, or the totals would be forgotten, too.
		alive := newPod(fmt.Sprintf("function-%d", w))
		if err := poll(func() error {
			if err := deliver(t.Context(), client, alive.count(1)); err != nil {
				return fatal{err}
			}
			total++
			m, err := scrape(n.telemetryURL)
			if writers := m.sum("otelcol_d2c_writers"); err == nil && (writers == 0 || writers > 2*3) { // some of two totals
				err = fmt.Errorf("%v writers are kept", writers)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	// What was counted long ago is not counted once more.
	if err := deliver(t.Context(), client, first); err != nil {
		t.Fatal(err)
	}
	if err := deliver(t.Context(), client, newPod("last").count(7)); err != nil {
		t.Fatal(err)
	}
	total += 7
	y.await(t, map[string]int{"shop.orders": total, "shop.basket": total})
	checkOneLife(t, y, "shop.orders", "shop.basket")
	m, err := scrape(n.telemetryURL)
	if err != nil {
		t.Fatal(err)
	}
	if streams := m.sum("otelcol_d2c_streams"); streams != 2 {
		t.Errorf("%v totals, want 2", streams)
	}
	if dropped := m.sum("otelcol_d2c_points", `outcome="dropped_too_late"`); dropped != 2 {
		t.Errorf("%v points are too late, want the 2 of a function that is forgotten", dropped)
	}
}

// TestRecipeFunctionsFlood has more functions than there may be.
func TestRecipeFunctionsFlood(t *testing.T) {
	t.Parallel()
	n, y := startRecipe(t, "functions.yaml", "FUNCTIONS_MAX_WRITERS=100")
	client := n.client(t)
	for i := range 300 {
		if err := deliver(t.Context(), client, newPod(fmt.Sprintf("function-%d", i)).count(1)); err != nil {
			t.Fatal(err)
		}
	}
	y.await(t, map[string]int{"shop.orders": 100, "shop.basket": 100})
	m, err := scrape(n.telemetryURL)
	if err != nil {
		t.Fatal(err)
	}
	if dropped := m.sum("otelcol_d2c_points", `outcome="dropped_writers"`); dropped != 2*200 {
		t.Errorf("%v points are dropped, want %d", dropped, 2*200)
	}
}

// TestRecipeCut has a thousand pods report to Prometheus, once as they are and once as one.
func TestRecipeCut(t *testing.T) {
	t.Parallel()
	const pods, rounds = 1000, 4
	for _, tc := range []struct {
		name   string
		args   []string
		series int // of the pods
	}{
		{"before", nil, pods * 6}, // a counter; three buckets, count and sum
		{"after", []string{"--config", filepath.Join("recipes", "cut.yaml")}, 6},
	} {
		t.Run(tc.name, func(t *testing.T) {
			prom := startPrometheus(t, newestPrometheus)
			target, err := url.Parse(prom.url)
			if err != nil {
				t.Fatal(err)
			}
			var requests, sent atomic.Int64
			proxy := httputil.NewSingleHostReverseProxy(target)
			between := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				requests.Add(1)
				r.Body = &countingReader{r.Body, &sent}
				proxy.ServeHTTP(w, r)
			}))
			t.Cleanup(between.Close)
			c := startCollector(t, "durable.yaml", []string{
				"OTLP_BACKEND=" + between.URL + "/api/v1/otlp", "STATE_DIRECTORY=" + t.TempDir(), "AGGREGATE_INTERVAL=1s",
			}, tc.args...)
			client := c.client(t)
			all := make([]*pod, pods)
			for i := range all {
				all[i] = newPod(fmt.Sprintf("shop-%d", i))
			}
			total := 0
			for r := range rounds {
				for i, p := range all {
					n := 1 + (i+r)%9
					if err := deliver(t.Context(), client, p.count(n)); err != nil {
						t.Fatal(err)
					}
					total += n
				}
			}
			for _, metric := range []string{"shop_orders_total", "shop_basket_count"} {
				if err := poll(func() error {
					got, err := prom.query("sum("+metric+")", time.Now().Add(time.Second))
					if err == nil && (len(got["{}"]) != 1 || got["{}"][0].value != float64(total)) {
						err = fmt.Errorf("sum(%s) is %v, want %d", metric, got, total)
					}
					return err
				}); err != nil {
					t.Error(err)
				}
			}
			got, err := prom.query(`{__name__=~"shop_.*"}`, time.Now().Add(time.Second))
			if err != nil || len(got) != tc.series {
				t.Errorf("%d series, want %d (%v)", len(got), tc.series, err)
			}
			head, err := prom.head()
			if err != nil {
				t.Fatal(err)
			}
			m, err := scrape(prom.url + "/metrics")
			if err != nil {
				t.Fatal(err)
			}
			of, err := scrape(c.telemetryURL)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d requests with %d bytes; %d series in %d chunks, %.0f samples; %.0f bytes of state", requests.Load(), sent.Load(), head.NumSeries, head.ChunkCount,
				m.sum("prometheus_tsdb_head_samples_appended_total"), of.sum("otelcol_d2c_state_size"))
		})
	}
}

// countingReader counts what is read.
type countingReader struct {
	io.ReadCloser
	n *atomic.Int64
}

func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.n.Add(int64(n))
	return n, err
}

// headStats is what Prometheus says of its head.
type headStats struct{ NumSeries, ChunkCount int }

func (p *promQL) head() (headStats, error) {
	var reply struct{ Data struct{ HeadStats headStats } }
	body, err := get(p.url + "/api/v1/status/tsdb")
	if err == nil {
		err = json.Unmarshal(body, &reply)
	}
	return reply.Data.HeadStats, err
}
