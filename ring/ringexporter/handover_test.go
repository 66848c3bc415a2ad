// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/client"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/config/configretry"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/status"

	"github.com/deltaring/deltaring/internal/tenant"
	"github.com/deltaring/deltaring/ring"
)

// nowhere has gRPC connect to nothing.
type nowhere struct{}

func init() { resolver.Register(nowhere{}) }

func (nowhere) Scheme() string { return "nowhere" }

func (nowhere) Build(resolver.Target, resolver.ClientConn, resolver.BuildOptions) (resolver.Resolver, error) {
	return nowhere{}, nil
}

func (nowhere) ResolveNow(resolver.ResolveNowOptions) {}

func (nowhere) Close() {}

// wire stands for the network and what is behind it, so that time may be that of a bubble.
type wire struct {
	mu       sync.Mutex
	answer   map[string]func(context.Context) error // of members, if they do not answer at once
	requests []delivered                            // that were taken, in the order in which they began
	latest   map[string]int64                       // of a stream, that was taken
	underWay map[string]bool                        // streams
	disorder []string
}

// delivered is a request that a member took.
type delivered struct {
	member string
	items  []item
	tenant []string
}

// signal is that of metrics, over the wire.
func (w *wire) signal() *signal[pmetric.Metrics] {
	s := metrics
	s.export = func(*grpc.ClientConn) exportFunc[pmetric.Metrics] {
		return func(ctx context.Context, md pmetric.Metrics, _ ...grpc.CallOption) (partialSuccess, error) {
			return partialSuccess{}, w.take(ctx, metricItems(md))
		}
	}
	return &s
}

func (w *wire) take(ctx context.Context, items []item) error {
	md, _ := metadata.FromOutgoingContext(ctx)
	member := md.Get(tenant.MemberKey)[0]
	w.mu.Lock()
	answer := w.answer[member]
	streams := map[string]int64{}
	for _, i := range items {
		last, ok := streams[i.stream]
		if !ok {
			last, ok = w.latest[i.stream]
			if w.underWay[i.stream] {
				w.disorder = append(w.disorder, fmt.Sprintf("%s: %d at %s while another is under way", i.stream, i.n, member))
			}
			w.underWay[i.stream] = true
		}
		if ok && i.n <= last {
			w.disorder = append(w.disorder, fmt.Sprintf("%s: %d at %s after %d", i.stream, i.n, member, last))
		}
		streams[i.stream] = i.n
	}
	w.mu.Unlock()
	var err error
	if answer != nil {
		err = answer(ctx)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for s := range streams {
		delete(w.underWay, s)
	}
	if err != nil {
		return err
	}
	maps.Copy(w.latest, streams)
	w.requests = append(w.requests, delivered{member, items, md.Get("x-tenant")})
	return nil
}

// until has a member answer when released is closed.
func (w *wire) until(released <-chan struct{}, members ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range members {
		w.answer[m] = func(ctx context.Context) error {
			select {
			case <-released:
				return nil
			case <-ctx.Done():
				return status.FromContextError(ctx.Err()).Err()
			}
		}
	}
}

func (w *wire) away(members ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range members {
		w.answer[m] = func(context.Context) error { return errUnavailable }
	}
}

// got returns what members took, or what one of them took.
func (w *wire) got(members ...string) (all []item) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.requests {
		if len(members) == 0 || slices.Contains(members, r.member) {
			all = append(all, r.items...)
		}
	}
	return all
}

// check has each of the first n of all streams delivered once, and none sent after a later one.
func (w *wire) check(t *testing.T, streams []string, n int) {
	t.Helper()
	assert.Empty(t, w.disorder)
	times := map[item]int{}
	for _, i := range w.got() {
		times[i]++
	}
	assert.Len(t, times, n*len(streams))
	for i, n := range times {
		assert.Equal(t, 1, n, "%v", i)
	}
}

// bubble is a gateway in one.
type bubble struct {
	*gateway[pmetric.Metrics]
	*wire
	streams []string
	sent    int // batches
}

// inBubble runs a test with a gateway whose members are named, and which waits an hour for what moves: too long for any test that does
// not mean it.
func inBubble(t *testing.T, change func(*Config), members []string, test func(*testing.T, *bubble)) {
	t.Helper()
	cfg := staticConfig(t, map[string]*worker{"overwritten": {address: "127.0.0.1:1"}})
	cfg.HandoverTimeout = time.Hour
	cfg.Protocol.OTLP.TimeoutConfig.Timeout = 24 * time.Hour
	cfg.Protocol.OTLP.RetryConfig.MaxElapsedTime = 0
	cfg.RetryConfig.MaxElapsedTime = 0
	for _, retry := range []*configretry.BackOffConfig{&cfg.RetryConfig, &cfg.Protocol.OTLP.RetryConfig} {
		retry.InitialInterval, retry.MaxInterval = 100*time.Millisecond, 10*time.Second
	}
	if change != nil {
		change(cfg)
	}
	var list StaticConfig
	for _, e := range endpoints(members...) {
		list.Members = append(list.Members, MemberConfig{Name: e.Name, Endpoint: e.address})
	}
	cfg.Resolver.Static = configoptional.Some(list)
	synctest.Test(t, func(t *testing.T) {
		w := &wire{answer: map[string]func(context.Context) error{}, latest: map[string]int64{}, underWay: map[string]bool{}}
		b := &bubble{gateway: startGatewayOf(t, cfg, w.signal()), wire: w, streams: streamNames(100)}
		test(t, b)
	})
}

func endpoints(members ...string) (list []endpoint) {
	for _, m := range members {
		list = append(list, endpoint{ring.Member{Name: m, Weight: 1}, "nowhere:///" + m})
	}
	return list
}

// send sends the next batches.
func (b *bubble) send(t *testing.T, n int) {
	t.Helper()
	for range n {
		require.NoError(t, b.consume(t.Context(), metricBatch(int64(b.sent), b.streams...)))
		b.sent++
	}
	synctest.Wait()
}

// change makes these the members.
func (b *bubble) change(t *testing.T, members ...string) {
	t.Helper()
	require.NoError(t, b.ring.ejector.resolved(t.Context(), endpoints(members...)))
	synctest.Wait()
}

// TestWhatMovesWaits has a member join that must not be sent anything before another has taken what it was sent of the same streams.
func TestWhatMovesWaits(t *testing.T) {
	for _, waits := range []bool{true, false} {
		t.Run(fmt.Sprintf("waits=%v", waits), func(t *testing.T) {
			inBubble(t, func(cfg *Config) {
				if !waits {
					cfg.HandoverTimeout = 0
				}
			}, []string{"a", "b"}, func(t *testing.T, b *bubble) {
				release := make(chan struct{})
				b.until(release, "a")
				b.send(t, 2)
				b.change(t, "a", "b", "c")
				b.send(t, 2)
				assert.Empty(t, b.got("a"))
				assert.Equal(t, waits, len(b.got("c")) == 0)
				of := b.owned(b.streams)
				assert.Greater(t, len(b.got("b")), 3*len(of["b"]), "who gains nothing goes on")
				began := time.Now()
				close(release)
				synctest.Wait()
				assert.Equal(t, began, time.Now())
				require.NoError(t, b.stop())
				assert.Len(t, b.got("c"), 2*len(of["c"]))
				if !waits {
					assert.NotEmpty(t, b.disorder, "or the test shows nothing")
					b.disorder = nil
				}
				b.check(t, b.streams, b.sent)
				assert.Zero(t, b.logs.FilterMessageSnippet("handover_timeout").Len())
			})
		})
	}
}

func TestHandoverEndsInTime(t *testing.T) {
	inBubble(t, nil, []string{"a", "b"}, func(t *testing.T, b *bubble) {
		b.away("a")
		b.send(t, 2)
		b.change(t, "a", "b", "c")
		b.send(t, 2)
		time.Sleep(time.Hour - time.Second)
		synctest.Wait()
		assert.Empty(t, b.got("c"))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		assert.Len(t, b.got("c"), 2*len(b.owned(b.streams)["c"]))
		assert.Equal(t, 1, b.logs.FilterMessageSnippet("see handover_timeout").Len())
		require.NoError(t, b.stop())
	})
}

// TestChangesDuringHandover has members come, go and come back while one of them does not answer.
func TestChangesDuringHandover(t *testing.T) {
	for _, bytes := range []int{0, 1 << 20} {
		t.Run(fmt.Sprintf("max_request_bytes=%d", bytes), func(t *testing.T) {
			inBubble(t, func(cfg *Config) { cfg.MaxRequestBytes = bytes }, []string{"a", "b"}, func(t *testing.T, b *bubble) {
				release := make(chan struct{})
				b.until(release, "a")
				b.send(t, 2)
				for _, members := range [][]string{
					{"a", "b", "c"}, {"a", "b", "c", "d"}, {"a", "b", "d"}, {"a", "d"}, {"b", "d"}, {"a", "b"}, {"c"}, {"a", "b", "c"},
				} {
					b.change(t, members...)
					b.send(t, 2)
				}
				began := time.Now()
				close(release)
				time.Sleep(time.Minute) // retries
				synctest.Wait()
				assert.Len(t, b.got(), b.sent*len(b.streams))
				assert.Less(t, time.Since(began), time.Hour/2)
				require.NoError(t, b.stop())
				b.check(t, b.streams, b.sent)
			})
		})
	}
}

// TestNewAddressWaits has a member come back at another address, which is sent what waited for the old one before anything else.
func TestNewAddressWaits(t *testing.T) {
	inBubble(t, nil, []string{"a", "b"}, func(t *testing.T, b *bubble) {
		b.away("a")
		b.send(t, 3)
		moved := endpoints("a", "b")
		moved[0].address += "/else"
		require.NoError(t, b.ring.ejector.resolved(t.Context(), moved))
		b.send(t, 3)
		answering := make(chan struct{})
		close(answering)
		b.until(answering, "a")
		time.Sleep(time.Minute)
		synctest.Wait()
		require.NoError(t, b.stop())
		b.check(t, b.streams, b.sent)
	})
}

// TestShutdownDuringHandover stops while one member does not answer and another waits for it.
func TestShutdownDuringHandover(t *testing.T) {
	for _, answers := range []bool{true, false} {
		t.Run(fmt.Sprintf("answers=%v", answers), func(t *testing.T) {
			inBubble(t, nil, []string{"a", "b"}, func(t *testing.T, b *bubble) {
				release := make(chan struct{})
				b.until(release, "a")
				b.send(t, 2)
				b.change(t, "a", "b", "c")
				b.send(t, 2)
				began := time.Now()
				if answers {
					stopped := make(chan error)
					go func() { stopped <- b.stop() }()
					synctest.Wait()
					assert.Empty(t, b.got("c"))
					close(release)
					require.NoError(t, <-stopped)
					assert.Equal(t, began, time.Now())
					b.check(t, b.streams, b.sent)
					return
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				require.ErrorIs(t, b.Shutdown(ctx), context.DeadlineExceeded)
				b.gateway.stop = func() error { return nil }
				assert.Equal(t, time.Minute, time.Since(began))
				lost := int(sum(t, b.gateway, "otelcol_ring_items", "outcome", "failed"))
				assert.Equal(t, b.sent*len(b.streams), lost+len(b.got()))
			})
		})
	}
}

// TestHandoverOfBlockedQueues has batches wait for room in the queue of a member that waits, and of the one it waits for.
func TestHandoverOfBlockedQueues(t *testing.T) {
	inBubble(t, func(cfg *Config) {
		cfg.Protocol.OTLP.QueueConfig.Get().BlockOnOverflow = true
		cfg.Protocol.OTLP.QueueConfig.Get().QueueSize = 2
	}, []string{"a", "b"}, func(t *testing.T, b *bubble) {
		release := make(chan struct{})
		b.until(release, "a")
		const producers, rounds = 3, 6
		var wg sync.WaitGroup
		var streams []string
		for p := range producers {
			mine := make([]string, 50)
			for i := range mine {
				mine[i] = fmt.Sprintf("producer-%d-%d", p, i)
			}
			streams = append(streams, mine...)
			wg.Go(func() {
				for n := range rounds {
					assert.NoError(t, b.consume(t.Context(), metricBatch(int64(n), mine...)))
				}
			})
		}
		synctest.Wait()
		b.change(t, "a", "b", "c")
		b.change(t, "b", "c")
		began := time.Now()
		close(release)
		wg.Wait()
		require.NoError(t, b.stop())
		assert.Less(t, time.Since(began), time.Minute)
		b.check(t, streams, rounds)
	})
}

// TestOrderThroughAnyChanges has members come and go, be slow and away, at random.
func TestOrderThroughAnyChanges(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { testOrder(t, seed, nil) })
	}
}

// testOrder has members come and go, be slow and away, at random. They hang as well if they are to be ejected; it returns how many were.
func testOrder(t *testing.T, seed uint64, eject *EjectConfig) (ejections int64) {
	r := rand.New(rand.NewPCG(seed, 0))
	names := []string{"a", "b", "c", "d", "e"}
	inBubble(t, func(cfg *Config) {
		cfg.HandoverTimeout = 1000 * time.Hour
		cfg.MaxRequestBytes = []int{0, 3000, 1 << 20}[r.IntN(3)]
		queue := cfg.Protocol.OTLP.QueueConfig.Get()
		queue.QueueSize = 1 + r.Int64N(20)
		queue.BlockOnOverflow = r.IntN(2) == 0
		if seed > 1 || eject != nil {
			cfg.Groups = 64 // rings that are quickly made: there are many
		}
		if eject != nil {
			cfg.Eject = configoptional.Some(*eject)
			cfg.Protocol.OTLP.TimeoutConfig.Timeout = 2 * time.Second
		}
	}, names[:2], func(t *testing.T, b *bubble) {
		for _, m := range names {
			slow := rand.New(rand.NewPCG(seed, uint64(m[0])))
			var mu sync.Mutex
			b.answer[m] = func(ctx context.Context) error {
				mu.Lock()
				pause, fails := time.Duration(slow.IntN(500))*time.Millisecond, slow.IntN(5) == 0
				hangs := eject != nil && slow.IntN(5) == 0
				mu.Unlock()
				if hangs {
					<-ctx.Done()
					return status.FromContextError(ctx.Err()).Err()
				}
				time.Sleep(pause)
				if fails {
					return errUnavailable
				}
				return nil
			}
		}
		const producers, rounds = 3, 40
		var wg sync.WaitGroup
		var streams []string
		for p := range producers {
			mine := make([]string, 20)
			for i := range mine {
				mine[i] = fmt.Sprintf("producer-%d-%d", p, i)
			}
			streams = append(streams, mine...)
			wg.Go(func() {
				for n := range rounds {
					time.Sleep(100 * time.Millisecond)
					assert.NoError(t, b.consume(t.Context(), metricBatch(int64(n), mine...)))
				}
			})
		}
		for range 15 {
			time.Sleep(time.Duration(r.IntN(600)) * time.Millisecond)
			members := slices.Clone(names)
			r.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
			n := 1 + r.IntN(len(members))
			if eject != nil {
				n = len(members) - r.IntN(2) // enough for some to be out
			}
			list := endpoints(members[:n]...)
			for i := range list {
				list[i].Weight = 1 + r.Uint32N(3)
				if r.IntN(8) == 0 {
					list[i].address += "/else"
				}
			}
			require.NoError(t, b.ring.ejector.resolved(t.Context(), list))
		}
		began := time.Now()
		wg.Wait()
		for len(b.got()) < rounds*len(streams) && time.Since(began) < 500*time.Hour {
			time.Sleep(time.Second)
		}
		assert.Less(t, time.Since(began), time.Hour, "nothing waits for something that waits for it")
		ejections = sum(t, b.gateway, "otelcol_ring_ejections", "outcome", "ejected")
		require.NoError(t, b.stop())
		b.check(t, streams, rounds)
	})
	return ejections
}

// TestHandoverIsForQueuesInOrder: nothing waits where nothing could be in order, or all is without.
func TestHandoverIsForQueuesInOrder(t *testing.T) {
	workers := startWorkers(t, "a")
	for name, change := range map[string]func(*Config){
		"no queue":        func(cfg *Config) { withoutQueues(cfg) },
		"wait_for_result": func(cfg *Config) { cfg.Protocol.OTLP.QueueConfig.Get().WaitForResult = true },
		"num_consumers":   func(cfg *Config) { cfg.Protocol.OTLP.QueueConfig.Get().NumConsumers = 2 },
		"batch":           func(cfg *Config) { cfg.Protocol.OTLP.QueueConfig.Get().Batch.GetOrInsertDefault() },
		"0s":              func(cfg *Config) { cfg.HandoverTimeout = 0 },
	} {
		cfg := staticConfig(t, workers)
		change(cfg)
		g := startGateway(t, cfg)
		assert.Zero(t, g.ring.handover, name)
		assert.Equal(t, name == "batch", g.logs.FilterMessageSnippet("handover_timeout has no effect").Len() == 1, name)
		require.NoError(t, g.stop())
	}
	cfg := staticConfig(t, workers)
	cfg.RoutingKey = "traceID"
	g := startGatewayOf(t, cfg, &traces)
	assert.Zero(t, g.ring.handover)
	require.NoError(t, g.stop())
	assert.Equal(t, 30*time.Second, startGateway(t, staticConfig(t, workers)).ring.handover)
}

// TestWhatWaitsGoesTogether has batches wait for a member: they go together, but for what is of another tenant or too much.
func TestWhatWaitsGoesTogether(t *testing.T) {
	tenantOf := func(name string) context.Context {
		return client.NewContext(t.Context(), client.Info{Metadata: client.NewMetadata(map[string][]string{"x-tenant": {name}, "other": {name}})})
	}
	one := metrics.size(metricBatch(0, "s"))
	for _, tc := range []struct {
		name    string
		limit   int
		tenants string // of the batches
		want    []int  // items of requests
	}{
		{"all", 1 << 20, "aaaaaa", []int{1, 5}},
		{"up to the limit", 2*one + 2, "aaaaaa", []int{1, 2, 2, 1}},
		{"one by one", 1, "aaaa", []int{1, 1, 1, 1}},
		{"of a tenant", 1 << 20, "aabbba", []int{1, 1, 3, 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inBubble(t, func(cfg *Config) {
				cfg.MaxRequestBytes = tc.limit
				cfg.MetadataKeys = []string{"x-tenant"}
			}, []string{"a"}, func(t *testing.T, b *bubble) {
				step := make(chan struct{})
				b.answer["a"] = func(context.Context) error {
					<-step
					return nil
				}
				for n, tenant := range tc.tenants {
					require.NoError(t, b.consume(tenantOf(string(tenant)), metricBatch(int64(n), "s")))
					synctest.Wait()
				}
				for range tc.want {
					step <- struct{}{}
					synctest.Wait()
				}
				require.NoError(t, b.stop())
				var got []int
				n := 0
				for _, r := range b.requests {
					got = append(got, len(r.items))
					for range r.items {
						assert.Equal(t, []string{tc.tenants[n : n+1]}, r.tenant)
						n++
					}
				}
				assert.Equal(t, tc.want, got)
				b.check(t, []string{"s"}, len(tc.tenants))
			})
		})
	}
}

// TestGivenUpTogetherIsLogged: what is given up is known to nobody but the outbox.
func TestGivenUpTogetherIsLogged(t *testing.T) {
	inBubble(t, func(cfg *Config) {
		cfg.MaxRequestBytes = 1 << 20
		cfg.Protocol.OTLP.RetryConfig.MaxElapsedTime = time.Minute
	}, []string{"a"}, func(t *testing.T, b *bubble) {
		b.away("a")
		b.send(t, 1)
		b.send(t, 2)
		time.Sleep(5 * time.Minute)
		logs := b.logs.FilterMessage("data for a member is dropped").All()
		require.Len(t, logs, 2)
		assert.EqualValues(t, 100, logs[0].ContextMap()["items"])
		assert.EqualValues(t, 200, logs[1].ContextMap()["items"])
		assert.EqualValues(t, 300, sum(t, b.gateway, "otelcol_ring_items", "outcome", "failed"))
		require.NoError(t, b.stop())
	})
}
