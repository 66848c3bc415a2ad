// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/streamid"
)

// Writers of a total are forgotten one by one. One that comes back takes nothing from before it was: that was counted.
func TestForgottenWriterComesBack(t *testing.T) {
	now := time.Unix(10, 0)
	cfg := dropPod(d2c.Config{LateWindow: 5 * time.Minute, MaxStale: 10 * time.Second, Now: func() time.Time { return now }})
	conv := newConverter(t, cfg)
	s := series("requests")
	convertTotals(t, conv, ofPod("a", s.int(10, 20, 1)))
	now = now.Add(8 * time.Second)
	convertTotals(t, conv, ofPod("b", s.int(10, 20, 2)))
	now = now.Add(8 * time.Second)
	if n := conv.Expire(); n != 0 || conv.Stats().Writers != 1 {
		t.Fatalf("%d totals are forgotten, %d writers are left", n, conv.Stats().Writers)
	}
	convertTotals(t, conv, ofPod("a", s.int(30, 40, 4)))
	md := ofPod("a", s.int(10, 20, 1))
	if r := convertTotals(t, conv, md); r.Count(d2c.DroppedTooLate) != 1 || md.ResourceMetrics().Len() != 0 {
		t.Errorf("a delta that was counted is %s\n%s", describeResult(r), text(md))
	}
}

// A writer whose clock is wrong keeps nobody out when it is forgotten.
func TestForgottenWriterOfTheFuture(t *testing.T) {
	now := time.Unix(10, 0)
	conv := newConverter(t, dropPod(d2c.Config{MaxStale: 10 * time.Second, Now: func() time.Time { return now }}))
	s := series("requests")
	convertTotals(t, conv, together(ofPod("a", s.int(10, 20, 1)), ofPod("ahead", s.int(10, 1e9, 1))))
	for i := range 3 {
		now = now.Add(8 * time.Second)
		convertTotals(t, conv, ofPod("a", s.int(20+float64(i), 21+float64(i), 1)))
		conv.Expire()
	}
	if r := convertTotals(t, conv, ofPod("new", s.int(30, 40, 1))); conv.Stats().Writers != 2 || r.Count(d2c.AddedFirst) != 1 {
		t.Errorf("%d writers, a new one is %s", conv.Stats().Writers, describeResult(r))
	}
}

// A store has lost a total, and somebody who did not know it has begun it anew, before where it began. That is not its successor for who
// does know it, though it is later and counts more: no point moves the start of a total back.
func TestLostTotalBeginsEarlier(t *testing.T) {
	now := time.Unix(0, 0)
	cfg := dropPod(d2c.Config{Now: func() time.Time { return now }})
	st := &rawStore{}
	var convs [2]*d2c.Converter
	for i := range convs {
		var err error
		if convs[i], err = d2c.OpenShared(context.Background(), cfg, d2c.SharedConfig{Store: st}); err != nil {
			t.Fatal(err)
		}
	}
	now = time.Unix(100, 0)
	s := series("requests")
	for i, step := range []struct {
		md   pmetric.Metrics
		want string
	}{
		{ofPod("a", s.int(10, 20, 1)), "10 20 1"},
		{ofPod("b", s.int(5, 30, 100)), "5 30 100"},
		{ofPod("a", s.int(30, 40, 2)), "30 40 2"},
	} {
		if i == 1 {
			clear(st.records)
		}
		convertTotals(t, convs[i%2], step.md)
		if want := "map[service.name:shop] requests map[] " + step.want; text(step.md) != want {
			t.Errorf("got %s, want %s", text(step.md), want)
		}
	}
}

// A writer whose clock is wrong does not move the samples of all others to its time.
func TestWriterOfTheFuture(t *testing.T) {
	for mode, open := range aggregateModes {
		t.Run(mode, func(t *testing.T) {
			conv := open(t, dropPod(clockAt(d2c.DefaultConfig(), 0)))
			s := series("requests")
			for _, step := range []struct {
				md   pmetric.Metrics
				want string
			}{
				{ofPod("ahead", s.int(1e9, 2e9, 1)), "map[service.name:shop] requests map[] 300 300 1"},
				{ofPod("a", s.int(10, 20, 2)), "map[service.name:shop] requests map[] 300 300.001 3"},
				{ofPod("a", s.int(290, 310, 4)), "map[service.name:shop] requests map[] 300 300.002 7"},
			} {
				if convertTotals(t, conv, step.md); text(step.md) != step.want {
					t.Errorf("got %s, want %s", text(step.md), step.want)
				}
			}
		})
	}
}

// What two writers say is not one said twice, whatever comes with it.
func TestWritersThatSayTheSame(t *testing.T) {
	for mode, open := range aggregateModes {
		t.Run(mode, func(t *testing.T) {
			conv := open(t, dropPod(manyWriters(clockAt(d2c.DefaultConfig(), 0))))
			s := series("requests")
			a, b := ofPod("a", s.int(10, 20, 1)), ofPod("b", s.int(10, 20, 1))
			convertTotals(t, conv, together(clonedMetrics(a), clonedMetrics(b)))
			for _, md := range []pmetric.Metrics{b, a} {
				if r := convertTotals(t, conv, md); r.Count(d2c.Repeat) != 1 || text(md) != "map[service.name:shop] requests map[] 10 20 2" {
					t.Errorf("a retry is %s: %s", describeResult(r), text(md))
				}
			}
		})
	}
}

// A cumulative writer opens with what is its own, whatever was folded before it in the batch.
func TestCumulativeWriterHasNoGapsOfOthers(t *testing.T) {
	cfg := dropPod(d2c.DefaultConfig())
	files := newMemory()
	now := time.Unix(5, 0)
	cfg.Now = func() time.Time { return now }
	conv, _ := openTest(t, cfg, files)
	s, c := series("requests"), series("c")
	convertTotals(t, conv, ofPod("a", s.int(10, 20, 1)))
	convertTotals(t, conv, ofPod("a", s.int(30, 40, 1)))
	convertTotals(t, conv, together(ofPod("a", s.int(50, 60, 1)), cumulativeOf(ofPod("b", c.int(10, 12, 1))), cumulativeOf(ofPod("b", s.int(10, 12, 1)))))
	again, recovery := openTest(t, cfg, files)
	if len(recovery.Damaged) > 0 || again.Stats().Writers != 3 {
		t.Errorf("recovery %+v, %d writers", recovery, again.Stats().Writers)
	}
}

// What is left of resources and scopes is given out, and all else is untouched.
func TestAggregateTakesApart(t *testing.T) {
	cfg := clockAt(d2c.DefaultConfig(), 0)
	cfg.Aggregate = []d2c.AggregateRule{
		{Metrics: []string{"kept.*"}, Resource: streamid.Selection{Drop: []string{"pod"}}, KeepInput: true},
		{Metrics: []string{"a.*"}, Resource: streamid.Selection{Drop: []string{"pod"}}},
		{Metrics: []string{"b.*"}, Resource: streamid.Selection{Keep: []string{}}, Scope: streamid.Selection{Drop: []string{"s"}}},
	}
	for mode, open := range aggregateModes {
		t.Run(mode, func(t *testing.T) {
			conv := open(t, cfg)
			md := ofPod("1", series("kept.x").int(10, 20, 1), series("a.x").int(10, 20, 2), series("b.x").int(10, 20, 4), series("other").int(10, 20, 8))
			ofPod("2", series("kept.x").int(10, 20, 16), series("a.x").int(10, 20, 32), series("b.x").int(10, 20, 64)).ResourceMetrics().MoveAndAppendTo(md.ResourceMetrics())
			ofPod("3", series("a.x").int(10, 20, 128)).ResourceMetrics().MoveAndAppendTo(md.ResourceMetrics())
			// Nothing of these is counted, and so they stay as they are.
			empty := md.ResourceMetrics().AppendEmpty()
			empty.Resource().Attributes().PutStr("pod", "empty")
			bare := md.ResourceMetrics().AppendEmpty()
			bare.Resource().Attributes().PutStr("pod", "bare")
			m := bare.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
			m.SetName("a.bare")
			m.SetEmptySum().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
			convertTotals(t, conv, md)
			want := "map[] b.x map[] 10 20 68\n" +
				"map[pod:1 service.name:shop] kept.x map[] 10 20 1\n" +
				"map[pod:1 service.name:shop] other map[] 10 20 8\n" +
				"map[pod:2 service.name:shop] kept.x map[] 10 20 16\n" +
				"map[service.name:shop] a.x map[] 10 20 162\n" +
				"map[service.name:shop] kept.x map[] 10 20 17"
			if got := text(md); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			left := map[string]int{}
			for _, rm := range md.ResourceMetrics().All() {
				if pod, ok := rm.Resource().Attributes().Get("pod"); ok {
					left[pod.Str()]++
				}
				for _, sm := range rm.ScopeMetrics().All() {
					if sm.Metrics().Len() == 0 {
						t.Error("an empty scope is left")
					}
				}
			}
			if got := fmt.Sprint(left); got != "map[1:1 2:1 bare:1 empty:1]" {
				t.Errorf("left are %s", got)
			}
		})
	}
}

// A metric whose kind changes is another total under one name.
func TestAggregateKindChanges(t *testing.T) {
	for mode, open := range aggregateModes {
		t.Run(mode, func(t *testing.T) {
			conv := open(t, dropPod(clockAt(d2c.DefaultConfig(), 0)))
			s := series("x")
			md := together(
				ofPod("a", s.int(10, 20, 1)), ofPod("a", s.updown(10, 20, 2)), ofPod("a", s.histogram(10, 20, hist([]float64{1}, 1, 2))),
				ofPod("a", s.exponential(10, 20, expo(0, 0, 0, buckets{1, []uint64{7}}, buckets{}))), cumulativeOf(ofPod("a", s.int(10, 21, 5))), ofPod("b", s.double(10, 20, 0.5)),
			)
			r := convertTotals(t, conv, md)
			want := "map[service.name:shop] x map[] 10 20 2\nmap[service.name:shop] x map[] 10 20 3 0 [1 2]\n" +
				"map[service.name:shop] x map[] 10 20 7 0 0 1 [7]\nmap[service.name:shop] x map[] 10 21 6.5"
			if got := text(md); got != want || r.Count(d2c.AddedFirst) != 6 {
				t.Errorf("got\n%s\nwant\n%s\n%s", got, want, describeResult(r))
			}
			if got := conv.Stats(); mode != "shared" && (got.Streams != 4 || got.Writers != 6) {
				t.Errorf("%+v", got)
			}
		})
	}
}

// Batches, expiry, figures and totals by the clock at the same time, of several workers.
func TestAggregateConcurrently(t *testing.T) {
	const goroutines, rounds, pods = 4, 50, 8
	for mode, open := range aggregateModes {
		t.Run(mode, func(t *testing.T) {
			ctx := context.Background()
			var clockLock sync.Mutex
			now := time.Unix(1000, 0)
			cfg := dropPod(d2c.Config{LateWindow: time.Hour, MaxStale: time.Hour, Now: func() time.Time {
				clockLock.Lock()
				defer clockLock.Unlock()
				return now
			}})
			cfg.Aggregate = append([]d2c.AggregateRule{{Metrics: []string{"held"}, Resource: cfg.Aggregate[0].Resource, Interval: time.Second}}, cfg.Aggregate...)
			conv := open(t, cfg)
			clockLock.Lock()
			now = now.Add(time.Hour)
			clockLock.Unlock()
			s, h := series("requests"), series("held")
			var convs, others sync.WaitGroup
			done := make(chan struct{})
			others.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
						conv.Expire()
						conv.Stats()
						for range conv.Streams() {
						}
					}
				}
			})
			others.Go(func() {
				last := 0.0
				for {
					select {
					case <-done:
						return
					default:
					}
					_, err := conv.EmitTotals(ctx, time.Second, func(_ context.Context, md pmetric.Metrics) error {
						v := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints().At(0)
						if float64(v.IntValue()) < last {
							t.Errorf("%d after %v", v.IntValue(), last)
						}
						last = float64(v.IntValue())
						return nil
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
			for g := range goroutines {
				convs.Go(func() {
					for i := range rounds {
						var batches []pmetric.Metrics
						for pod := range pods { // each goroutine has pods of its own, and sends all twice
							at := 4000 + 10*float64(i)
							batches = append(batches, ofPod(fmt.Sprint(g, " ", pod), s.int(at, at+10, 1), h.int(at, at+10, 1)))
						}
						md := together(batches...)
						for range 2 {
							if _, err := conv.Convert(ctx, clonedMetrics(md)); err != nil {
								t.Error(err)
							}
						}
					}
				})
			}
			convs.Wait()
			close(done)
			others.Wait()
			for stream := range conv.Streams() {
				if stream.Int != goroutines*rounds*pods {
					t.Errorf("total %d, want %d", stream.Int, goroutines*rounds*pods)
				}
			}
			if got := conv.Stats(); got.Streams != 2 || got.Writers != 2*goroutines*pods {
				t.Errorf("%d totals, %d writers", got.Streams, got.Writers)
			}
		})
	}
}

// Workers with one store, at the same time.
func TestAggregateWorkersConcurrently(t *testing.T) {
	const workers, rounds, pods = 3, 40, 5
	st := &store.Memory{}
	now := time.Unix(1000, 0)
	cfg := dropPod(d2c.Config{LateWindow: time.Hour, Now: func() time.Time { return now }})
	var convs []*d2c.Converter
	for range workers {
		conv, err := d2c.OpenShared(context.Background(), cfg, d2c.SharedConfig{Store: st})
		if err != nil {
			t.Fatal(err)
		}
		convs = append(convs, conv)
	}
	s := series("requests")
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range rounds {
				for pod := range pods {
					at := 4000 + 10*float64(i)
					md := ofPod(fmt.Sprint(w, " ", pod), s.int(at, at+10, 1))
					before := aggBytes(md)
					for n := 0; n < 3; { // to any worker, and again
						if _, err := convs[(w+n+i)%workers].Convert(context.Background(), md); err == nil {
							n++
							md = ofPod(fmt.Sprint(w, " ", pod), s.int(at, at+10, 1))
						} else if !bytes.Equal(before, aggBytes(md)) {
							t.Error("a batch that was refused has changed")
						}
					}
				}
			}
		})
	}
	wg.Wait()
	md := ofPod("last", s.int(5000, 5010, 1))
	convertTotals(t, convs[0], md)
	if got := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints().At(0).IntValue(); got != workers*rounds*pods+1 {
		t.Errorf("total %d, want %d", got, workers*rounds*pods+1)
	}
}
