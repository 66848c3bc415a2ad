// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/config/configoptional"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/deltaring/deltaring/ring"
)

// ejecting has members ejected that do not answer for 10 s, and back when they have answered for 30 s.
func ejecting(cfg *Config) {
	eject := *cfg.Eject.GetOrInsertDefault()
	eject.SharedState = true
	cfg.Eject = configoptional.Some(eject)
	cfg.Protocol.OTLP.TimeoutConfig.Timeout = 2 * time.Second
	cfg.HandoverTimeout = 30 * time.Second
}

// ejectingAtOnce is ejecting without queues, where each batch is an attempt.
func ejectingAtOnce(cfg *Config) {
	ejecting(cfg)
	withoutQueues(cfg)
}

func (b *bubble) answers(member string) {
	b.wire.mu.Lock()
	defer b.wire.mu.Unlock()
	delete(b.answer, member)
}

// refuses has a member answer with an error.
func (b *bubble) refuses(member string, err error) {
	b.wire.mu.Lock()
	defer b.wire.mu.Unlock()
	b.answer[member] = func(context.Context) error { return err }
}

// hangs has a member never answer.
func (b *bubble) hangs(members ...string) { b.until(make(chan struct{}), members...) }

// during sends a batch each second.
func (b *bubble) during(t *testing.T, d time.Duration) {
	t.Helper()
	for range int(d / time.Second) {
		go func(n int64) { _ = b.consume(context.Background(), metricBatch(n, b.streams...)) }(int64(b.sent))
		b.sent++
		time.Sleep(time.Second)
	}
	synctest.Wait()
}

// names returns the members of the ring.
func (b *bubble) names() []string { return names(b.ring.current.Load()) }

// TestEjection has a member hang, be ejected, and come back.
func TestEjection(t *testing.T) {
	inBubble(t, ejecting, []string{"a", "b", "c", "d"}, func(t *testing.T, b *bubble) {
		before := b.ring.current.Load()
		of := b.owned(b.streams)
		b.send(t, 1)
		b.hangs("b")
		b.during(t, 9*time.Second)
		assert.Len(t, b.names(), 4, "not yet")
		b.during(t, 10*time.Second)
		require.Equal(t, []string{"a", "c", "d"}, b.names())
		out := b.ring.current.Load()
		assert.NotEqual(t, before.term.epoch, out.term.epoch)
		assert.Equal(t, before.term.epoch+"@"+before.term.since, out.term.previous)
		alike, err := ring.New([]ring.Member{{Name: "a", Weight: 1}, {Name: "c", Weight: 1}, {Name: "d", Weight: 1}})
		require.NoError(t, err)
		assert.Equal(t, alike.Epoch(), out.ring.Epoch(), "as if the resolver did not know it")
		assert.Contains(t, b.host.trouble(), `member "b": ejected since `)
		assert.EqualValues(t, 1, sum(t, b.gateway, "otelcol_ring_ejections", "member", "b", "outcome", "ejected"))
		assert.EqualValues(t, 1, sum(t, b.gateway, "otelcol_ring_ejected"))

		b.during(t, time.Minute)
		assert.Equal(t, b.sent*len(b.streams), len(b.got()), "what it did not take went to others")
		assert.Len(t, b.got("b"), len(of["b"]))

		b.answers("b")
		b.during(t, 30*time.Second)
		assert.Len(t, b.names(), 3, "it is to answer for longer")
		b.during(t, 10*time.Second)
		require.Len(t, b.names(), 4)
		assert.Equal(t, before.term.epoch, b.ring.current.Load().term.epoch)
		assert.Equal(t, out.term.epoch+"@"+out.term.since, b.ring.current.Load().term.previous)
		assert.Empty(t, b.host.trouble())
		assert.EqualValues(t, 1, sum(t, b.gateway, "otelcol_ring_ejections", "member", "b", "outcome", "returned"))
		assert.Zero(t, sum(t, b.gateway, "otelcol_ring_ejected"))
		b.during(t, 3*time.Second)
		assert.Greater(t, len(b.got("b")), len(of["b"]))
		require.NoError(t, b.stop())
		b.check(t, b.streams, b.sent)
	})
}

// TestEjectedGoesToStandbys: what an ejected member owned goes to those that ring.Owners has next, nothing else moves but for balance.
func TestEjectedGoesToStandbys(t *testing.T) {
	inBubble(t, ejectingAtOnce, []string{"a", "b", "c", "d"}, func(t *testing.T, b *bubble) {
		was := b.ring.current.Load().ring
		b.hangs("b")
		b.during(t, 20*time.Second)
		now := b.ring.current.Load().ring
		standby, slots := 0, 0
		for slot := range uint64(was.Slots()) {
			key := slot << 46 // 2^18 slots
			owners := was.Owners(key, make([]int, 2))
			if was.Members()[owners[0]].Name != "b" {
				continue
			}
			slots++
			if was.Members()[owners[1]].Name == now.Members()[now.Owner(key)].Name {
				standby++
			}
		}
		assert.Greater(t, float64(standby)/float64(slots), 0.9)
		assert.Less(t, ring.Diff(was, now).Ratio(), 1.05)
		require.NoError(t, b.stop())
	})
}

// TestTroubleOfMany: where more fail than may be out, the cause is another one.
func TestTroubleOfMany(t *testing.T) {
	inBubble(t, ejectingAtOnce, []string{"a", "b", "c"}, func(t *testing.T, b *bubble) {
		b.hangs("a", "b", "c")
		b.during(t, time.Minute)
		assert.Len(t, b.names(), 3)
		for _, m := range []string{"a", "b", "c"} {
			assert.EqualValues(t, 1, sum(t, b.gateway, "otelcol_ring_ejections", "member", m, "outcome", "withheld"), "once a time of trouble")
		}
		assert.Equal(t, 3, b.logs.FilterMessageSnippet("is not ejected").Len())
		b.answers("a")
		b.during(t, time.Minute)
		assert.Len(t, b.names(), 3)
		b.answers("b")
		b.during(t, 10*time.Second)
		assert.Equal(t, []string{"a", "b"}, b.names())
		b.hangs("a")
		b.during(t, time.Minute)
		assert.Equal(t, []string{"a", "b"}, b.names())
		require.NoError(t, b.stop())
	})
}

// TestShareOfTwo: half of two members is more than a third.
func TestShareOfTwo(t *testing.T) {
	inBubble(t, ejectingAtOnce, []string{"a", "b"}, func(t *testing.T, b *bubble) {
		b.hangs("a")
		b.during(t, time.Minute)
		assert.Len(t, b.names(), 2)
		assert.Equal(t, 1, b.logs.FilterMessageSnippet("eject has no effect").Len())
		assert.Equal(t, 1, b.logs.FilterMessageSnippet("is not ejected, with so few members").Len())
		require.NoError(t, b.stop())
	})
	half := func(cfg *Config) {
		ejectingAtOnce(cfg)
		cfg.Eject.Get().MaxShare = 0.5
	}
	inBubble(t, half, []string{"a", "b"}, func(t *testing.T, b *bubble) {
		b.hangs("a")
		b.during(t, time.Minute)
		assert.Equal(t, []string{"b"}, b.names())
		require.NoError(t, b.stop())
	})
}

// TestAnswersEjectNobody: to be refused, for good or for a time, is no reason.
func TestAnswersEjectNobody(t *testing.T) {
	busy, err := status.New(codes.Unavailable, "slow down").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(time.Second)})
	require.NoError(t, err)
	for name, err := range map[string]error{"permanent": status.Error(codes.InvalidArgument, "no"), "throttled": busy.Err()} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, ejectingAtOnce, []string{"a", "b", "c"}, func(t *testing.T, b *bubble) {
				b.refuses("b", err)
				b.during(t, 2*time.Minute)
				assert.Len(t, b.names(), 3)
				require.NoError(t, b.stop())
			})
		})
	}
	t.Run("now and then", func(t *testing.T) {
		inBubble(t, ejectingAtOnce, []string{"a", "b", "c"}, func(t *testing.T, b *bubble) {
			for range 20 {
				b.refuses("b", errUnavailable)
				b.during(t, 8*time.Second)
				b.answers("b")
				b.during(t, time.Second)
			}
			assert.Len(t, b.names(), 3)
			require.NoError(t, b.stop())
		})
	})
}

// TestFewFailuresEjectNobody: time alone is not enough.
func TestFewFailuresEjectNobody(t *testing.T) {
	inBubble(t, func(cfg *Config) {
		ejectingAtOnce(cfg)
		cfg.RetryConfig.Enabled = false
	}, []string{"a", "b", "c"}, func(t *testing.T, b *bubble) {
		b.refuses("b", errUnavailable)
		for n := range 2 {
			b.during(t, time.Second)
			time.Sleep(time.Minute)
			assert.Len(t, b.names(), 3, n)
		}
		b.during(t, time.Second)
		assert.Len(t, b.names(), 2)
		require.NoError(t, b.stop())
	})
}

// TestReturnsLater has a member that answers probes and hangs whenever it is back.
func TestReturnsLater(t *testing.T) {
	inBubble(t, ejectingAtOnce, []string{"a", "b", "c"}, func(t *testing.T, b *bubble) {
		outFor := func() time.Duration {
			t.Helper()
			b.hangs("b")
			for len(b.names()) == 3 {
				b.during(t, time.Second)
			}
			b.answers("b")
			began := time.Now()
			for len(b.names()) == 2 {
				b.during(t, time.Second)
			}
			return time.Since(began).Round(10 * time.Second)
		}
		for n, want := range []time.Duration{30, 60, 120, 240, 240} {
			assert.InDelta(t, want, outFor().Seconds(), 10, n)
		}
		b.during(t, 5*time.Minute)
		assert.InDelta(t, 30, outFor().Seconds(), 10, "it had been well for long enough")
		require.NoError(t, b.stop())
	})
}

// TestEjectionAndResolver has the resolver know more than the probes.
func TestEjectionAndResolver(t *testing.T) {
	at := func(t *testing.T, b *bubble, list []endpoint) {
		t.Helper()
		require.NoError(t, b.ring.ejector.resolved(t.Context(), list))
		synctest.Wait()
	}
	inBubble(t, ejectingAtOnce, []string{"a", "b", "c"}, func(t *testing.T, b *bubble) {
		eject := func() {
			t.Helper()
			b.hangs("b")
			b.during(t, 20*time.Second)
			require.Equal(t, []string{"a", "c"}, b.names())
		}
		eject()
		moved := sumFloat(t, b.gateway, "otelcol_ring_moved")
		b.change(t, "a", "c")
		assert.Equal(t, moved, sumFloat(t, b.gateway, "otelcol_ring_moved"), "it moved when it was ejected")
		assert.Zero(t, sum(t, b.gateway, "otelcol_ring_ejected"))
		assert.Empty(t, b.host.trouble())
		b.change(t, "a", "b", "c")
		assert.Len(t, b.names(), 3)

		eject()
		elsewhere := endpoints("a", "b", "c")
		elsewhere[1].address += "/else"
		at(t, b, elsewhere)
		assert.Len(t, b.names(), 3, "another process")
		b.change(t, "a", "b", "c")

		eject()
		heavier := endpoints("a", "b", "c", "d")
		heavier[0].Weight = 2
		at(t, b, heavier)
		assert.Equal(t, []string{"a", "c", "d"}, b.names(), "it stays out whatever others do")
		b.change(t, "a", "b")
		assert.Len(t, b.names(), 2, "of two, one is too many")
		require.NoError(t, b.stop())
	})
	inBubble(t, ejectingAtOnce, []string{"a", "b", "c", "d", "e", "f"}, func(t *testing.T, b *bubble) {
		b.hangs("e")
		b.during(t, 15*time.Second)
		b.hangs("b")
		b.during(t, 15*time.Second)
		require.Equal(t, []string{"a", "c", "d", "f"}, b.names())
		b.change(t, "a", "b", "c", "e")
		assert.Equal(t, []string{"a", "b", "c"}, b.names(), "the first that was ejected remains out")
		require.Error(t, b.ring.ejector.resolved(t.Context(), nil))
		assert.Equal(t, []string{"a", "b", "c"}, b.names())
		assert.EqualValues(t, 1, sum(t, b.gateway, "otelcol_ring_ejected"), "a list that is refused changes nothing")
		b.answers("e")
		b.answers("b")
		time.Sleep(time.Minute)
		assert.Equal(t, []string{"a", "b", "c", "e"}, b.names())
		require.NoError(t, b.stop())
	})
}

// TestShutdownWhileEjected ends probes that hang.
func TestShutdownWhileEjected(t *testing.T) {
	inBubble(t, func(cfg *Config) {
		ejectingAtOnce(cfg)
		cfg.RetryConfig.Enabled = false
	}, []string{"a", "b", "c"}, func(t *testing.T, b *bubble) {
		b.hangs("b")
		b.during(t, 15*time.Second)
		require.Len(t, b.names(), 2)
		time.Sleep(5500 * time.Millisecond)
		began := time.Now()
		require.NoError(t, b.stop())
		assert.Less(t, time.Since(began), time.Second)
	})
}

// Metrics can be read while the members change: members that are started need the meter, which is locked while it is read, so one that
// waited for the change would hold it up for good.
func TestMetricsDuringChange(t *testing.T) {
	g := startGateway(t, staticConfig(t, startWorkers(t, "a", "b")))
	read := make(chan int64, 1)
	g.ring.ejector.mu.Lock() // as it is while the members change
	defer g.ring.ejector.mu.Unlock()
	go func() { read <- sum(t, g, "otelcol_ring_members") }()
	select {
	case n := <-read:
		assert.EqualValues(t, 2, n)
	case <-time.After(patience):
		t.Error("metrics wait for the change")
	}
}

// TestEjectionOverTheNetwork has a real server die and come back at its address.
func TestEjectionOverTheNetwork(t *testing.T) {
	for _, kind := range []string{"queues", "no queues", "one queue"} {
		t.Run(kind, func(t *testing.T) {
			workers := startWorkers(t, "a", "b", "c")
			cfg := staticConfig(t, workers)
			ejecting(cfg)
			*cfg.Eject.Get() = EjectConfig{
				SharedState: true, Failures: 2, After: time.Millisecond, ProbeInterval: minProbeInterval, ReturnAfter: time.Millisecond, MaxShare: 0.34,
			}
			if kind != "queues" {
				withoutQueues(cfg)
			}
			if kind == "one queue" {
				cfg.QueueConfig.GetOrInsertDefault()
			}
			g := startGateway(t, cfg)
			streams := streamNames(60)
			require.NoError(t, g.consume(t.Context(), metricBatch(0, streams...)))
			require.Eventually(t, func() bool { // answered, and not only taken
				return sum(t, g, "otelcol_ring_items", "outcome", "sent") == 60
			}, patience, time.Millisecond)
			workers["b"].kill()
			require.NoError(t, g.consume(t.Context(), metricBatch(1, streams...)))
			awaitAll(t, workers, 120)
			assert.Equal(t, []string{"a", "c"}, g.members())
			workers["b"].start(t)
			require.Eventually(t, func() bool { return slices.Contains(g.members(), "b") }, patience, time.Millisecond)
			require.NoError(t, g.consume(t.Context(), metricBatch(2, streams...)))
			for i, n := range awaitAll(t, workers, 180) {
				assert.Equal(t, 1, n, "%v", i)
			}
			require.NoError(t, g.stop())
		})
	}
}

func TestEjectConfig(t *testing.T) {
	cfg := config(t, "eject: {shared_state: true, after: 20s}\nresolver: {static: {hostnames: [a]}}")
	assert.Equal(t, EjectConfig{
		SharedState: true, Failures: 3, After: 20 * time.Second, ProbeInterval: 5 * time.Second, ReturnAfter: 30 * time.Second, MaxShare: 0.34,
	}, *cfg.Eject.Get())
	assert.False(t, config(t, "resolver: {static: {hostnames: [a]}}").Eject.HasValue())
	config(t, "eject: {force: true}\nresolver: {static: {hostnames: [a]}}")
	for _, tc := range []struct{ keys, want string }{
		{"", "set eject::shared_state to true"},
		{"failures: 0", "eject::failures: must be positive, got 0"},
		{"after: -1s", "eject::after: must not be negative, got -1s"},
		{"after: 10", "eject::after"},
		{"probe_interval: 99ms", "eject::probe_interval: must be 100ms at least, got 99ms"},
		{"return_after: -1s", "eject::return_after: must not be negative, got -1s"},
		{"max_share: 0", "eject::max_share: must be above 0 and below 1, got 0"},
		{"max_share: 1", "eject::max_share: must be above 0 and below 1, got 1"},
		{"max_share: .nan", "eject::max_share"},
	} {
		keys := "shared_state: true, " + tc.keys
		if tc.keys == "" {
			keys = ""
		}
		_, err := load(t, fmt.Sprintf("eject: {%s}\nresolver: {static: {hostnames: [a]}}", keys))
		assert.ErrorContains(t, err, tc.want, tc.keys)
	}
}

// TestRandomEjections has members hang and recover at random while the resolver's list changes: nothing is lost, and all are in order.
func TestRandomEjections(t *testing.T) {
	var ejections int64
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			ejections += testOrder(t, seed, &EjectConfig{
				SharedState: true, Failures: 2, After: time.Second, ProbeInterval: minProbeInterval, ReturnAfter: time.Second, MaxShare: 0.7,
			})
		})
	}
	assert.Greater(t, ejections, int64(5), "or the test shows nothing")
}

func TestShareOf(t *testing.T) {
	for _, tc := range []struct {
		share float64
		n     int
		want  int
	}{
		{0.34, 0, 0}, {0.34, 1, 0}, {0.34, 2, 0}, {0.34, 3, 1}, {0.34, 100, 34}, {0.5, 2, 1}, {0.29, 100, 29}, {0.57, 100, 57}, {0.339, 3, 1}, {0.33, 3, 0},
		{0.9999999999999999, 5, 4},
	} {
		assert.Equal(t, tc.want, shareOf(tc.share, tc.n), "%v of %d", tc.share, tc.n)
	}
}

// TestProbeThatCannotStart has the certificates that a connection needs go away while a member is out, and come back.
func TestProbeThatCannotStart(t *testing.T) {
	ca := filepath.Join(t.TempDir(), "ca.pem")
	certificate := testCertificate(t)
	inBubble(t, func(cfg *Config) {
		ejectingAtOnce(cfg)
		require.NoError(t, os.WriteFile(ca, certificate, 0o600))
		cfg.Protocol.OTLP.ClientConfig.TLS.Insecure, cfg.Protocol.OTLP.ClientConfig.TLS.CAFile = false, ca
	}, []string{"a", "b", "c"}, func(t *testing.T, b *bubble) {
		b.hangs("b")
		b.during(t, 5*time.Second)
		require.NoError(t, os.Remove(ca))
		b.during(t, 10*time.Second)
		require.Len(t, b.names(), 2)
		b.answers("b")
		b.during(t, 2*time.Minute)
		require.Len(t, b.names(), 2, "nobody can ask it")
		assert.NotZero(t, b.logs.FilterMessageSnippet("cannot be probed").Len())
		require.NoError(t, os.WriteFile(ca, certificate, 0o600))
		b.during(t, time.Minute)
		assert.Len(t, b.names(), 3)
		require.NoError(t, b.stop())
	})
}

// testCertificate returns a certificate that nobody uses.
func testCertificate(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// TestReturnsWhenAllProbesAreAnswered has a member answer two of three.
func TestReturnsWhenAllProbesAreAnswered(t *testing.T) {
	inBubble(t, ejectingAtOnce, []string{"a", "b", "c"}, func(t *testing.T, b *bubble) {
		b.hangs("b")
		b.during(t, 15*time.Second)
		require.Len(t, b.names(), 2)
		probes := 0
		b.wire.mu.Lock()
		b.answer["b"] = func(context.Context) error {
			if probes++; probes%3 == 0 {
				return errUnavailable
			}
			return nil
		}
		b.wire.mu.Unlock()
		b.during(t, 5*time.Minute)
		assert.Len(t, b.names(), 2)
		b.answers("b")
		b.during(t, time.Minute)
		assert.Len(t, b.names(), 3)
		require.NoError(t, b.stop())
	})
}
