// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"google.golang.org/grpc"
)

// TestScaleOutAndIn runs gateway.yaml twice in front of two worker.yaml, then of four, then of two again, so that counters leave a
// worker that keeps their old totals, and come back. Gateways are rolled while the workers are the same. What began anew must have
// been elsewhere, or may have been; nothing goes on from a total of then.
func TestScaleOutAndIn(t *testing.T) {
	t.Parallel()
	t.Run("restart_if_moved", func(t *testing.T) {
		t.Parallel()
		s := startScaling(t)
		ended := s.run(t)
		out, in := ended[scaledOut], ended[scaledIn]
		t.Logf("%d counters, %d deltas; %d moved away and %d of them back", len(out.lives), s.deltas, out.moved(), in.back())
		for _, when := range stages {
			t.Logf("%s: %v", when, ended[when])
		}

		for _, when := range stages {
			is := ended[when]
			if is.resumed != 0 || is.overlaps != 0 || is.inexact != 0 || is.byStart != is.counted {
				t.Errorf("%s: %v", when, is)
			}
			if is.byValue+is.hidden != is.counted {
				t.Errorf("%s: the increase by values is %v, of %v: more is wrong than the %v before resets that do not show",
					when, is.byValue, is.counted, is.hidden)
			}
		}
		// Before the first change, and while gateways are rolled.
		checkRestarts(t, &outlook{}, ended[started], func(_ string, before, after []life) bool { return len(after) == 1 })
		checkRestarts(t, ended[started], ended[rolledBefore], unchanged)
		checkRestarts(t, out, ended[rolledAtFour], unchanged)
		checkRestarts(t, in, ended[rolledAfter], unchanged)
		// Scaling out restarts what has another worker, and that once.
		checkRestarts(t, ended[rolledBefore], out, func(_ string, before, after []life) bool {
			return len(after) == 1 || len(after) == 2 && after[0].worker != after[1].worker
		})
		// So does scaling in, and what was silent meanwhile may have been elsewhere.
		checkRestarts(t, ended[rolledAtFour], in, func(metric string, before, after []life) bool {
			if metric == "rare" {
				return len(after) == 2
			}
			return len(after) == 1 || len(after) == 3 && after[0].worker == after[2].worker
		})
		if out.moved() < 50 || in.back() != out.moved() || in.resets == 0 {
			t.Error("that is not what this test is about")
		}
	})
	t.Run("continue", func(t *testing.T) {
		t.Parallel()
		s := startScaling(t, "--config", "yaml:processors::d2c::gap: continue")
		is := s.run(t)[rolledAfter]
		t.Log(is)
		if is.resumed == 0 || is.byValue <= is.counted || is.byStart <= is.counted {
			t.Error("old totals went on, and nobody noticed")
		}
	})
}

// The ends of the stages of a scaling.
const (
	started      = "two workers"
	rolledBefore = "a gateway rolled"
	scaledOut    = "four workers"
	rolledAtFour = "the other gateway rolled"
	scaledIn     = "two workers again"
	rolledAfter  = "a gateway rolled again"
)

var stages = []string{started, rolledBefore, scaledOut, rolledAtFour, scaledIn, rolledAfter}

// scaling is a fleet whose workers become more and fewer, and what its producers have counted. There is one for each gateway.
type scaling struct {
	names    *nameServer
	workers  map[string]*collector
	backends map[string]*tally // of the workers
	gateways []*node
	clients  []pmetricotlp.GRPCClient

	begin   time.Time
	steps   int
	silence bool // of rare counters
	deltas  int
	sent    map[streamKey][]tallied // totals at the ends of the intervals in which something was counted
}

// streamKey tells series apart as the tally does.
type streamKey struct{ metric, key string }

const (
	scalingInterval = 100 * time.Millisecond
	scalingSettled  = 12 // intervals: in so many, each sparse counter counts at least twice
)

func startScaling(t *testing.T, args ...string) *scaling {
	t.Helper()
	s := &scaling{names: newNameServer(t), workers: map[string]*collector{}, backends: map[string]*tally{}, sent: map[streamKey][]tallied{}}
	for i := range 4 {
		name, y := fmt.Sprintf("worker-%d", i), newTally()
		server := httptest.NewServer(y)
		t.Cleanup(server.Close)
		s.workers[name], s.backends[name] = startCollector(t, "worker.yaml", []string{"OTLP_BACKEND=" + server.URL}, args...), y
	}
	s.publish(2)
	for _, debounce := range []string{"0s", "600ms"} { // so that they see a change at different times
		g := newNode(t, newWitness(""), "", "--config", "gateway.yaml")
		g.wrap = []string{"env", "WORKERS_SRV=" + workersService, "DNS_SERVER=" + s.names.address, "DNS_INTERVAL=100ms", "DNS_DEBOUNCE=" + debounce}
		g.start(t)
		s.gateways, s.clients = append(s.gateways, g), append(s.clients, g.client(t))
	}
	s.awaitMembers(t, 2)
	s.begin = time.Now().Truncate(time.Millisecond)
	return s
}

// publish makes the first n workers the members.
func (s *scaling) publish(n int) {
	members := maps.Clone(s.workers)
	maps.DeleteFunc(members, func(name string, _ *collector) bool { return name >= fmt.Sprintf("worker-%d", n) })
	s.names.set(members)
}

func (s *scaling) awaitMembers(t *testing.T, n int) {
	t.Helper()
	for _, g := range s.gateways {
		awaitTelemetry(t, &g.collector, float64(n), "otelcol_ring_members")
	}
}

// run lets everything happen, and returns what there was to see at the end of each stage.
func (s *scaling) run(t *testing.T) map[string]*outlook {
	t.Helper()
	ended := map[string]*outlook{}
	stage := func(name string, silence bool, happen func()) {
		t.Helper()
		s.during(t, happen)
		s.silence = silence
		for range scalingSettled {
			if err := s.step(); err != nil {
				t.Fatal(err)
			}
		}
		ended[name] = s.look(t)
	}
	roll := func(i int) func() {
		return func() {
			s.gateways[i].stop(t)
			s.gateways[i].start(t)
		}
	}
	stage(started, false, func() {})
	stage(rolledBefore, false, roll(0))
	s.silence = true
	stage(scaledOut, true, func() {
		s.publish(4)
		s.awaitMembers(t, 4)
	})
	stage(rolledAtFour, true, roll(1))
	stage(scaledIn, false, func() {
		s.publish(2)
		s.awaitMembers(t, 2)
	})
	stage(rolledAfter, false, func() {
		s.workers["worker-2"].stop(t) // which have given out all that they were sent
		s.workers["worker-3"].stop(t)
		roll(0)()
	})
	return ended
}

// during has producers count while something happens.
func (s *scaling) during(t *testing.T, happen func()) {
	t.Helper()
	halt, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-halt:
				done <- nil
				return
			default:
			}
			if err := s.step(); err != nil {
				done <- err
				return
			}
		}
	}()
	defer func() {
		close(halt)
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	happen()
}

// step waits for the end of the next interval and has every producer send what it has counted in it, until that is acknowledged.
func (s *scaling) step() error {
	k := s.steps
	s.steps++
	start, end := s.begin.Add(time.Duration(k)*scalingInterval), s.begin.Add(time.Duration(k+1)*scalingInterval)
	time.Sleep(time.Until(end))
	errs := make(chan error)
	for i, client := range s.clients {
		request := s.count(i, k, start, end)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			for {
				_, err := client.Export(ctx, request, grpc.WaitForReady(true))
				if err == nil || ctx.Err() != nil {
					errs <- err
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
		}()
	}
	var all error
	for range s.clients {
		all = errors.Join(all, <-errs)
	}
	return all
}

// count is what a producer counts in an interval: a SDK sends nothing of a counter that has not counted, and its intervals begin
// where the ones before end.
func (s *scaling) count(producer, k int, start, end time.Time) pmetricotlp.ExportRequest {
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	rm.Resource().Attributes().PutStr("service.instance.id", fmt.Sprintf("producer-%d", producer))
	metrics := rm.ScopeMetrics().AppendEmpty().Metrics()
	for kind, metric := range []string{"dense", "sparse", "rare"} {
		sum := metrics.AppendEmpty()
		sum.SetName(metric)
		sum.SetEmptySum().SetIsMonotonic(true)
		sum.Sum().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		for i := range 60 {
			if metric != "dense" && (k+i)%(3+i%4) != 0 || metric == "rare" && s.silence {
				continue
			}
			random := rand.New(rand.NewPCG(uint64(producer<<16|kind), uint64(k<<16|i)))
			value := 1 + random.Int64N(9)
			if random.IntN(4) == 0 {
				value *= 20
			}
			pt := sum.Sum().DataPoints().AppendEmpty()
			pt.Attributes().PutInt("counter", int64(i))
			pt.SetStartTimestamp(pcommon.NewTimestampFromTime(start))
			pt.SetTimestamp(pcommon.NewTimestampFromTime(end))
			pt.SetIntValue(value)

			id := streamKey{metric, fmt.Sprint(rm.Resource().Attributes().AsRaw(), "", pt.Attributes().AsRaw())}
			total := float64(value)
			if n := len(s.sent[id]); n > 0 {
				total += s.sent[id][n-1].value
			}
			s.sent[id] = append(s.sent[id], tallied{end.UnixMilli(), pt.StartTimestamp(), total})
			s.deltas++
		}
	}
	return pmetricotlp.NewExportRequestFromMetrics(md)
}

// outlook is what backends see of all counters.
type outlook struct {
	lives   map[streamKey][]life // in the order of time
	counted float64
	// byValue is the increase as a backend sees it that goes by values alone: where one is lower than the one before, all of it
	// is new. byStart is that for one which goes by starts: where that is another one, all of it is new.
	byValue, byStart float64
	// A new life whose first value is no lower than the last of the life before is a reset that does not show in values. What is
	// missing from byValue for that, in hidden, is the last value of the life before.
	resets, hiddenResets int
	hidden               float64
	resumed              int // lives that went on after another one
	overlaps             int // lives that began before the last sample of the one before
	inexact              int // samples at which byStart was not what had been counted
}

func (o *outlook) String() string {
	return fmt.Sprintf("counted %v; by value %v (%+v); by start %v (%+v), inexact at %d samples; %d resets, of which %d do not show and hide %v; %d resumed, %d overlap",
		o.counted, o.byValue, o.byValue-o.counted, o.byStart, o.byStart-o.counted, o.inexact, o.resets, o.hiddenResets, o.hidden, o.resumed, o.overlaps)
}

// moved is the number of series that were at more than one worker.
func (o *outlook) moved() (n int) {
	for _, lives := range o.lives {
		if slices.ContainsFunc(lives, func(l life) bool { return l.worker != lives[0].worker }) {
			n++
		}
	}
	return n
}

// back is the number of those that are where they were in the beginning.
func (o *outlook) back() (n int) {
	for _, lives := range o.lives {
		if len(lives) > 2 && lives[0].worker != lives[1].worker && lives[0].worker == lives[len(lives)-1].worker {
			n++
		}
	}
	return n
}

// unchanged is for checkRestarts: nothing has begun anew.
func unchanged(_ string, before, after []life) bool { return slices.Equal(before, after) }

// checkRestarts reports series whose lives were not to become what they are.
func checkRestarts(t *testing.T, before, after *outlook, ok func(metric string, before, after []life) bool) {
	t.Helper()
	wrong := 0
	for id, lives := range after.lives {
		if was := before.lives[id]; !ok(id.metric, was, lives) {
			if wrong++; wrong <= 3 {
				t.Errorf("%v has the lives %v, and had %v", id, lives, was)
			}
		}
	}
	if wrong > 3 {
		t.Errorf("and %d more", wrong-3)
	}
}

// look waits until backends have what was sent.
func (s *scaling) look(t *testing.T) *outlook {
	t.Helper()
	var o *outlook
	if err := poll(func() (err error) {
		o, err = s.see()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return o
}

// see adds up what backends have, and is an error as long as that is not one sample for each delta.
func (s *scaling) see() (*outlook, error) {
	o := &outlook{lives: map[streamKey][]life{}}
	for id, sent := range s.sent {
		o.counted += sent[len(sent)-1].value
		got := s.samples(id)
		if len(got) != len(sent) {
			return nil, fmt.Errorf("%v has %d samples, want %d", id, len(got), len(sent))
		}
		var increase float64
		var last seen
		for i, is := range got {
			if is.ms != sent[i].ms {
				return nil, fatal{fmt.Errorf("%v has a sample at %d ms, want %d", id, is.ms, sent[i].ms)}
			}
			fell := is.value < last.value
			if fell {
				o.byValue += is.value
			} else {
				o.byValue += is.value - last.value
			}
			switch {
			case i > 0 && is.life == last.life && fell:
				return nil, fatal{fmt.Errorf("%v falls from %v to %v under one start", id, last.value, is.value)}
			case i > 0 && is.life == last.life:
				increase += is.value - last.value
			default:
				increase += is.value
				if slices.Contains(o.lives[id], is.life) {
					o.resumed++
				} else if i > 0 {
					o.resets++
					if !fell {
						o.hiddenResets++
						o.hidden += last.value
					}
				}
				if is.start < last.ms*1e6 {
					o.overlaps++
				}
				o.lives[id] = append(o.lives[id], is.life)
			}
			if increase != sent[i].value {
				o.inexact++
			}
			last = is
		}
		o.byStart += increase
	}
	return o, nil
}

// seen is a sample that a worker has given out.
type seen struct {
	life
	ms    int64
	value float64
}

// samples are those of a series, of all workers, in the order of their times; what was sent again is there once.
func (s *scaling) samples(id streamKey) []seen {
	var all []seen
	for worker, y := range s.backends {
		y.mu.Lock()
		for _, is := range y.series[id.metric][id.key] {
			all = append(all, seen{life{worker, int64(is.start)}, is.ms, is.value})
		}
		y.mu.Unlock()
	}
	slices.SortStableFunc(all, func(a, b seen) int { return cmp.Compare(a.ms, b.ms) })
	return slices.Compact(all)
}
