// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/streamid"
)

// asCumulative makes the metrics of a batch cumulative as they come in.
func asCumulative(md pmetric.Metrics) pmetric.Metrics {
	forEachMetric(md, func(_ pmetric.ResourceMetrics, _ pmetric.ScopeMetrics, m pmetric.Metric) { makeCumulative(m) })
	return md
}

// merged is several batches in one.
func merged(batches ...pmetric.Metrics) pmetric.Metrics {
	md := pmetric.NewMetrics()
	for _, b := range batches {
		b.ResourceMetrics().MoveAndAppendTo(md.ResourceMetrics())
	}
	return md
}

// aggregateStep is a batch, what becomes of its points, and what is given out, without resource and attributes where these are
// those that are left.
type aggregateStep struct {
	in   pmetric.Metrics
	want string // outcomes
	out  string
}

const left = "map[service.name:shop] requests map[] "

func outcomesOf(r d2c.Result) string {
	var all []string
	for o, n := range r.Counts() {
		all = append(all, fmt.Sprintf("%v %d", o, n))
	}
	return strings.Join(all, ", ")
}

func playAggregate(t *testing.T, conv *d2c.Converter, steps []aggregateStep) {
	t.Helper()
	for i, s := range steps {
		r, err := conv.Convert(context.Background(), s.in)
		if err != nil {
			t.Fatal(err)
		}
		got := strings.ReplaceAll(text(s.in), left, "")
		if outcomes := outcomesOf(r); got != s.out || outcomes != s.want {
			t.Errorf("step %d: %s, got\n%s\nwant %s\n%s", i, outcomes, got, s.want, s.out)
		}
	}
}

// The rules of cumulative input, with the process beginning at second 0.
func TestAggregateCumulative(t *testing.T) {
	s := series("requests")
	sum := func(pod string, start, end float64, v int64) pmetric.Metrics {
		return asCumulative(ofPod(pod, s.int(start, end, v)))
	}
	updown := func(pod string, start, end float64, v int64) pmetric.Metrics {
		return asCumulative(ofPod(pod, s.updown(start, end, v)))
	}
	bounds := []float64{1, 2}
	histogram := func(pod string, start, end float64, counts ...uint64) pmetric.Metrics {
		return asCumulative(ofPod(pod, s.histogram(start, end, hist(bounds, counts...))))
	}
	exponential := func(pod string, start, end float64, scale int32, counts ...uint64) pmetric.Metrics {
		return asCumulative(ofPod(pod, s.exponential(start, end, expo(scale, 0, 0, buckets{0, counts}, buckets{}))))
	}
	rows := []struct {
		name  string
		steps []aggregateStep
	}{
		{"differences", []aggregateStep{
			{sum("a", 10, 20, 5), "first 1", "10 20 5"},
			{sum("a", 10, 30, 7), "aligned 1", "10 30 7"},
			{sum("b", 12, 30, 3), "first 1", "10 30.001 10"},
			{sum("a", 10, 40, 7), "aligned 1", "10 40 10"},
			{sum("b", 12, 40, 13), "aligned 1", "10 40.001 20"},
		}},
		{"repeats and what is older", []aggregateStep{
			{sum("a", 10, 20, 5), "first 1", "10 20 5"},
			{sum("a", 10, 30, 7), "aligned 1", "10 30 7"},
			{sum("a", 10, 30, 7), "repeat 1", "10 30 7"},
			{sum("a", 10, 20, 5), "covered 1", "10 30 7"},
			{sum("a", 10, 30, 8), "covered 1", "10 30 7"},
			{sum("a", 10, 40, 9), "aligned 1", "10 40 9"},
		}},
		{"reset by start", []aggregateStep{
			{sum("a", 10, 20, 5), "first 1", "10 20 5"},
			{sum("a", 20, 30, 7), "reset 1", "10 30 12"},
			{sum("a", 35, 40, 7), "reset 1", "10 40 19"},
			{sum("a", 35, 50, 8), "aligned 1", "10 50 20"},
		}},
		{"reset by fall", []aggregateStep{
			{sum("a", 10, 20, 5), "first 1", "10 20 5"},
			{sum("a", 10, 30, 2), "reset 1", "10 30 7"},
			{sum("a", 0, 40, 1), "reset 1", "10 40 8"},
			{sum("a", 0, 50, 4), "aligned 1", "10 50 11"},
			{sum("a", 45, 60, 3), "reset 1", "10 60 14"},
		}},
		{"of a process before", []aggregateStep{
			{sum("a", 10, 20, 5), "first 1", "10 20 5"},
			{sum("a", 25, 30, 2), "reset 1", "10 30 7"},
			{sum("a", 10, 40, 1), "dropped_older_start 1", ""},
			{sum("a", 25, 50, 3), "aligned 1", "10 50 8"},
		}},
		{"unknown start", []aggregateStep{
			{sum("a", 0, 20, 5), "baseline 1", "20 20 0"},
			{sum("a", 0, 30, 7), "aligned 1", "20 30 2"},
			{sum("b", 0, 30, 100), "baseline 1", "20 30.001 2"},
			{sum("b", 0, 40, 101), "aligned 1", "20 40 3"},
		}},
		{"deltas and cumulative points", []aggregateStep{
			{sum("a", 10, 20, 5), "first 1", "10 20 5"},
			{ofPod("b", s.int(10, 20, 3)), "first 1", "10 20.001 8"},
			{merged(sum("a", 10, 30, 6), ofPod("b", s.int(20, 30, 4))), "aligned 2", "10 30 13"},
			{ofPod("a", s.int(20, 30, 10)), "first 1", "10 30.001 23"},
		}},
		{"not monotonic", []aggregateStep{
			{updown("a", 10, 20, 5), "first 1", "10 20 5"},
			{updown("b", 10, 20, -2), "first 1", "10 20.001 3"},
			{updown("a", 10, 30, 1), "aligned 1", "10 30 -1"},
			{updown("a", 30, 40, 4), "reset 1", "10 40 3"},
		}},
		{"histograms", []aggregateStep{
			{histogram("a", 10, 20, 1, 2, 3), "first 1", "10 20 6 0 [1 2 3]"},
			{histogram("b", 10, 20, 1, 0, 0), "first 1", "10 20.001 7 0 [2 2 3]"},
			{histogram("a", 10, 30, 1, 4, 3), "aligned 1", "10 30 9 0 [2 4 3]"},
			{histogram("a", 10, 40, 5, 0, 3), "reset 1", "10 40 17 0 [7 4 6]"},
			{histogram("c", 0, 40, 9, 9, 9), "baseline 1", "10 40.001 17 0 [7 4 6]"},
			{histogram("c", 0, 50, 9, 9, 10), "aligned 1", "10 50 18 0 [7 4 7]"},
		}},
		{"exponential histograms", []aggregateStep{
			{exponential("a", 10, 20, 1, 1, 2, 3, 4), "first 1", "10 20 10 0 1 0 [1 2 3 4]"},
			{exponential("a", 10, 30, 0, 3, 8), "aligned 1", "10 30 11 0 0 0 [3 8]"},
			{exponential("b", 10, 30, 1, 1), "first 1", "10 30.001 12 0 0 0 [4 8]"},
			{exponential("a", 10, 40, 0, 1, 1), "reset 1", "10 40 14 0 0 0 [5 9]"},
		}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			cfg := d2c.DefaultConfig()
			clock(0)(&cfg)
			playAggregate(t, newConverter(t, dropPod(cfg)), row.steps)
		})
	}
}

// A process without state does not know what the one before it has counted.
func TestAggregateCumulativeOfBefore(t *testing.T) {
	cfg := dropPod(d2c.DefaultConfig())
	clock(100)(&cfg)
	s := series("requests")
	conv := newConverter(t, cfg)
	playAggregate(t, conv, []aggregateStep{
		{asCumulative(ofPod("a", s.int(50, 110, 1000))), "baseline 1", "110 110 0"},
		{asCumulative(ofPod("b", s.int(105, 110, 1))), "first 1", "110 110.001 1"},
		{asCumulative(ofPod("a", s.int(50, 120, 1007))), "aligned 1", "110 120 8"},
	})
}

func TestAggregateMaxWriters(t *testing.T) {
	cfg := dropPod(d2c.DefaultConfig())
	cfg.Aggregate[0].MaxWriters = 2
	clock(0)(&cfg)
	s := series("requests")
	playAggregate(t, newConverter(t, cfg), []aggregateStep{
		{merged(ofPod("a", s.int(10, 20, 1)), ofPod("b", s.int(10, 20, 2)), ofPod("c", s.int(10, 20, 4))), "first 2, dropped_writers 1", "10 20 3"},
		{ofPod("c", s.int(20, 30, 4)), "dropped_writers 1", ""},
		{ofPod("b", s.int(20, 30, 8)), "aligned 1", "10 30 11"},
	})
}

// A writer that is forgotten leaves what it has counted, and takes nothing from before.
func TestAggregateExpiry(t *testing.T) {
	now := time.Unix(0, 0)
	cfg := dropPod(d2c.DefaultConfig())
	cfg.MaxStale, cfg.Now = 100*time.Second, func() time.Time { return now }
	s := series("requests")
	conv := newConverter(t, cfg)
	playAggregate(t, conv, []aggregateStep{
		{ofPod("a", s.int(10, 20, 1)), "first 1", "10 20 1"},
		{ofPod("b", s.int(10, 20, 2)), "first 1", "10 20.001 3"},
	})
	now = time.Unix(90, 0)
	playAggregate(t, conv, []aggregateStep{{ofPod("b", s.int(20, 90, 4)), "aligned 1", "10 90 7"}})
	now = time.Unix(110, 0)
	if n := conv.Expire(); n != 0 {
		t.Errorf("%d streams have expired", n)
	}
	if got := conv.Stats(); got.Streams != 1 || got.Writers != 1 {
		t.Errorf("%+v", got)
	}
	playAggregate(t, conv, []aggregateStep{
		{ofPod("a", s.int(10, 20, 1)), "dropped_too_late 1", ""}, // again, or for the first time: nobody knows
		{ofPod("c", s.int(5, 15, 1)), "dropped_too_late 1", ""},
		{ofPod("a", s.int(100, 110, 8)), "first 1", "10 110 15"},
	})
	now = time.Unix(1000, 0)
	if n := conv.Expire(); n != 1 {
		t.Errorf("%d streams have expired", n)
	}
	if got := conv.Stats(); got.Streams != 0 || got.Writers != 0 {
		t.Errorf("%+v", got)
	}
}

func TestAggregateKeepInput(t *testing.T) {
	cfg := dropPod(d2c.DefaultConfig())
	cfg.Aggregate[0].KeepInput = true
	clock(0)(&cfg)
	s := series("requests")
	const a, b = "map[pod:a service.name:shop] requests map[] ", "map[pod:b service.name:shop] requests map[] "
	playAggregate(t, newConverter(t, cfg), []aggregateStep{
		{ofPod("a", s.int(10, 20, 1)), "first 2", a + "10 20 1\n10 20 1"},
		{ofPod("b", s.int(10, 20, 2)), "first 2", b + "10 20 2\n10 20.001 3"},
		{asCumulative(ofPod("a", s.int(15, 30, 7))), "passed 1, first 1", a + "15 30 7\n10 30 10"},
	})
}

// What is not aggregated stays where it is, and what is left of several resources, scopes and points is one.
func TestAggregateSelections(t *testing.T) {
	cfg := d2c.DefaultConfig()
	clock(0)(&cfg)
	cfg.Aggregate = []d2c.AggregateRule{
		{Metrics: []string{"kept.*"}, Resource: streamid.Selection{Keep: []string{"service.name", "lacking"}}, Attributes: streamid.Selection{Keep: []string{}}},
		{Metrics: []string{"dropped.?"}, Attributes: streamid.Selection{Drop: []string{"worker"}}},
	}
	conv := newConverter(t, cfg)
	md := pmetric.NewMetrics()
	for _, pod := range []string{"a", "b"} {
		rm := md.ResourceMetrics().AppendEmpty()
		rm.Resource().Attributes().PutStr("service.name", "shop")
		rm.Resource().Attributes().PutStr("pod", pod)
		ms := rm.ScopeMetrics().AppendEmpty().Metrics()
		for _, name := range []string{"kept.x", "dropped.y", "other"} {
			m := ms.AppendEmpty()
			m.SetName(name)
			sum := m.SetEmptySum()
			sum.SetIsMonotonic(true)
			sum.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
			for worker := range 2 {
				dp := sum.DataPoints().AppendEmpty()
				dp.SetStartTimestamp(sec(10))
				dp.SetTimestamp(sec(20))
				dp.Attributes().PutInt("worker", int64(worker))
				dp.SetIntValue(1)
			}
		}
		gauge := ms.AppendEmpty()
		gauge.SetName("kept.gauge")
		gauge.SetEmptyGauge().DataPoints().AppendEmpty().SetIntValue(1)
	}
	r := convert(conv, md)
	want := strings.Join([]string{
		"map[pod:a service.name:shop] dropped.y map[] 10 20 2",
		"map[pod:a service.name:shop] other map[worker:0] 10 20 1",
		"map[pod:a service.name:shop] other map[worker:1] 10 20 1",
		"map[pod:b service.name:shop] dropped.y map[] 10 20 2",
		"map[pod:b service.name:shop] other map[worker:0] 10 20 1",
		"map[pod:b service.name:shop] other map[worker:1] 10 20 1",
		"map[service.name:shop] kept.x map[] 10 20 4",
	}, "\n")
	if got := text(md); got != want {
		t.Errorf("%s, got\n%s\nwant\n%s", outcomesOf(r), got, want)
	}
	for _, rm := range md.ResourceMetrics().All() {
		if rm.ScopeMetrics().Len() == 0 || rm.ScopeMetrics().At(0).Metrics().Len() == 0 {
			t.Errorf("an empty resource: %v", rm.Resource().Attributes().AsRaw())
		}
	}
}

func TestAggregateInterval(t *testing.T) {
	now := time.Unix(100, 0)
	cfg := dropPod(d2c.DefaultConfig())
	cfg.Now = func() time.Time { return now }
	cfg.Aggregate[0].Interval = 10 * time.Second
	s := series("requests")
	for _, mode := range []string{"memory", "shared"} {
		t.Run(mode, func(t *testing.T) {
			now = time.Unix(100, 0)
			conv := newConverter(t, cfg)
			if mode == "shared" {
				var err error
				if conv, err = d2c.OpenShared(context.Background(), cfg, d2c.SharedConfig{Store: &store.Memory{}}); err != nil {
					t.Fatal(err)
				}
			}
			emit := func(want string) {
				t.Helper()
				var got []string
				n, err := conv.EmitTotals(context.Background(), 10*time.Second, func(_ context.Context, md pmetric.Metrics) error {
					got = append(got, strings.ReplaceAll(text(md), left, ""))
					return nil
				})
				if err != nil || strings.Join(got, "\n") != want || n != len(got) {
					t.Errorf("%d, %v: got\n%s\nwant\n%s", n, err, strings.Join(got, "\n"), want)
				}
			}
			emit("")
			playAggregate(t, conv, []aggregateStep{
				{ofPod("a", s.int(105, 110, 1)), "first 1", ""},
				{ofPod("b", s.int(105, 110, 2)), "first 1", ""},
			})
			now = time.Unix(111, 0)
			emit("105 111 3")
			playAggregate(t, conv, []aggregateStep{{ofPod("b", s.int(110, 120, 4)), "aligned 1", ""}})
			now = time.Unix(121, 0)
			emit("105 121 7")
			now = time.Unix(131, 0)
			emit("105 131 7")
			if _, err := conv.EmitTotals(context.Background(), time.Second, nil); err == nil {
				t.Error("an interval that no rule has")
			}
			if got, want := conv.Reemit(context.Background(), nil, nil); got != 0 || want != nil {
				t.Errorf("%v, %v", got, want)
			}
		})
	}
}

// Where no state is shared a total that may have been elsewhere begins anew, whatever its next point is.
func TestAggregateMoved(t *testing.T) {
	cfg := dropPod(d2c.DefaultConfig())
	cfg.Gap = d2c.GapRestartIfMoved
	now := time.Unix(100, 0)
	cfg.Now = func() time.Time { return now }
	conv := newConverter(t, cfg)
	s := series("requests")
	send := func(epoch uint64, since int64, want, out string, md pmetric.Metrics) {
		t.Helper()
		route := d2c.Route{Epoch: epoch, Member: "w", Since: time.Unix(since, 0)}
		if before := map[uint64]int64{2: 50, 4: 150}[epoch]; before != 0 {
			route.Previous, route.PreviousSince = epoch-1, time.Unix(before, 0)
		}
		ctx := d2c.WithRoute(context.Background(), route)
		r, err := conv.Convert(ctx, md)
		if got := strings.ReplaceAll(text(md), left, ""); err != nil || got != out || outcomesOf(r) != want {
			t.Errorf("%v %s, got %s, want %s %s", err, outcomesOf(r), got, want, out)
		}
	}
	send(1, 50, "first 1", "110 120 1", ofPod("a", s.int(110, 120, 1)))
	send(1, 50, "first 1", "110 120.001 3", ofPod("b", s.int(110, 120, 2)))
	now = time.Unix(200, 0)
	send(2, 130, "aligned 1", "110 130 7", ofPod("a", s.int(120, 130, 4)))
	send(4, 190, "restart_gap 1", "190 200 8", ofPod("b", s.int(120, 200, 8)))
	send(4, 190, "gap 1", "190 200.001 24", ofPod("a", s.int(190, 200, 16)))
}

// countingStore counts the records that are written.
type countingStore struct {
	store.Memory
	written, swaps int
}

func (s *countingStore) Swap(ctx context.Context, swaps []store.Swap) ([]store.Result, error) {
	for _, swap := range swaps {
		s.swaps++
		if swap.Record != nil {
			s.written++
		}
	}
	return s.Memory.Swap(ctx, swaps)
}

// A batch writes one record for each writer that it touches, and one for the total.
func TestAggregateWritesOneRecordAWriter(t *testing.T) {
	cfg := dropPod(d2c.DefaultConfig())
	clock(0)(&cfg)
	st := &countingStore{}
	conv, err := d2c.OpenShared(context.Background(), cfg, d2c.SharedConfig{Store: st})
	if err != nil {
		t.Fatal(err)
	}
	s := series("requests")
	send := func(from, to int, start, end float64) {
		t.Helper()
		var all []pmetric.Metrics
		for i := from; i < to; i++ {
			all = append(all, ofPod(fmt.Sprint(i), s.int(start, end, 1)))
		}
		if _, err := conv.Convert(context.Background(), merged(all...)); err != nil {
			t.Fatal(err)
		}
	}
	send(0, 1000, 10, 20)
	if st.written != 1001 || st.Len() != 1001 {
		t.Errorf("%d records written, %d there", st.written, st.Len())
	}
	st.written, st.swaps = 0, 0
	send(7, 10, 20, 30)
	if st.written != 4 || st.swaps != 4 {
		t.Errorf("%d records written by %d swaps for three writers", st.written, st.swaps)
	}
}

// With other rules nothing of the old totals goes on, whether state is durable or shared.
func TestAggregateOtherRules(t *testing.T) {
	s := series("requests")
	for _, mode := range []string{"durable", "shared"} {
		t.Run(mode, func(t *testing.T) {
			now := time.Unix(1, 0)
			storage, shared := newMemory(), &store.Memory{}
			open := func(drop ...string) *d2c.Converter {
				cfg := dropPod(d2c.DefaultConfig())
				cfg.Now = func() time.Time { return now }
				cfg.Aggregate[0].Resource.Drop = drop
				if mode == "durable" {
					conv, _ := openTest(t, cfg, storage)
					return conv
				}
				conv, err := d2c.OpenShared(context.Background(), cfg, d2c.SharedConfig{Store: shared})
				if err != nil {
					t.Fatal(err)
				}
				return conv
			}
			conv := open("pod")
			playAggregate(t, conv, []aggregateStep{
				{ofPod("a", s.int(10, 20, 1)), "first 1", "10 20 1"},
				{ofPod("b", s.int(10, 20, 2)), "first 1", "10 20.001 3"},
			})
			closeTest(t, conv)
			now = time.Unix(25, 0)
			conv = open("pod", "nothing.has.it")
			playAggregate(t, conv, []aggregateStep{
				{ofPod("a", s.int(20, 30, 4)), "first 1", "30 30 4"},
				{ofPod("b", s.int(20, 30, 8)), "first 1", "30 30.001 12"},
				{asCumulative(ofPod("b", s.int(1, 30, 100))), "baseline 1", "30 30.002 12"},
			})
			closeTest(t, conv)
			now = time.Unix(35, 0)
			conv = open("pod")
			playAggregate(t, conv, []aggregateStep{
				{ofPod("a", s.int(10, 20, 1)), "repeat 1", "10 20.001 3"},
				{ofPod("a", s.int(30, 40, 16)), "gap 1", "10 40 19"},
			})
			closeTest(t, conv)
		})
	}
}

func TestAggregateIsChecked(t *testing.T) {
	ok := d2c.AggregateRule{Metrics: []string{"*"}, Resource: streamid.Selection{Drop: []string{"pod"}}}
	for _, row := range []struct {
		name, want string
		change     func(*d2c.Config, *d2c.AggregateRule)
	}{
		{"no metrics", "rule 0: metrics", func(_ *d2c.Config, r *d2c.AggregateRule) { r.Metrics = nil }},
		{"nothing left out", "rule 0", func(_ *d2c.Config, r *d2c.AggregateRule) { r.Resource.Drop = nil }},
		{"both", "rule 0: resource", func(_ *d2c.Config, r *d2c.AggregateRule) { r.Resource.Keep = []string{"x"} }},
		{"twice", "rule 0: resource", func(_ *d2c.Config, r *d2c.AggregateRule) { r.Resource.Drop = []string{"x", "x"} }},
		{"interval", "Interval", func(_ *d2c.Config, r *d2c.AggregateRule) { r.Interval = time.Millisecond }},
		{"long interval", "Interval", func(_ *d2c.Config, r *d2c.AggregateRule) { r.Interval = time.Hour }},
		{"writers", "MaxWriters", func(_ *d2c.Config, r *d2c.AggregateRule) { r.MaxWriters = -1 }},
		{"never reached", "rule 1", func(c *d2c.Config, r *d2c.AggregateRule) { c.Aggregate = append(c.Aggregate, *r) }},
		{"many", "at most", func(c *d2c.Config, r *d2c.AggregateRule) { c.Aggregate = slices.Repeat(c.Aggregate, 251) }},
	} {
		cfg := d2c.DefaultConfig()
		cfg.Aggregate = []d2c.AggregateRule{ok}
		row.change(&cfg, &cfg.Aggregate[0])
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), row.want) || !strings.Contains(err.Error(), "d2c: Aggregate") {
			t.Errorf("%s: %v", row.name, err)
		}
	}
	_, err := d2c.OpenShared(context.Background(), dropPod(d2c.DefaultConfig()), d2c.SharedConfig{Store: &store.Memory{}, MaxOutstanding: 1})
	if err == nil || errors.Is(err, context.Canceled) {
		t.Error("aggregates with MaxOutstanding")
	}
}

// With many writers to an identity, points of two pods are none of a multiset, however alike they are.
func TestAggregateManyWritersEach(t *testing.T) {
	cfg := manyWriters(dropPod(d2c.DefaultConfig()))
	clock(0)(&cfg)
	s := series("requests")
	a, b := func() pmetric.Metrics { return ofPod("a", s.int(10, 20, 1)) }, func() pmetric.Metrics { return ofPod("b", s.int(10, 20, 1)) }
	playAggregate(t, newConverter(t, cfg), []aggregateStep{
		{merged(a(), b()), "first 2", "10 20 2"},
		{b(), "repeat 1", "10 20 2"},
		{merged(b(), a()), "repeat 2", "10 20 2"},
		{merged(a(), a()), "repeat 1, unordered 1", "10 20.001 3"},
		{ofPod("b", s.int(5, 20, 1)), "unordered 1", "10 20.002 4"},
	})
}

// With shared state nobody knows whether what is not known is of a writer whose record has expired: unless it is of a replay.
func TestAggregateSharedReplay(t *testing.T) {
	cfg := dropPod(d2c.DefaultConfig())
	cfg.Now = func() time.Time { return time.Unix(100_000, 0) }
	conv, err := d2c.OpenShared(context.Background(), cfg, d2c.SharedConfig{Store: &store.Memory{}})
	if err != nil {
		t.Fatal(err)
	}
	s := series("requests")
	playAggregate(t, conv, []aggregateStep{
		{ofPod("a", s.int(10, 20, 1)), "first 1", "10 20 1"},
		{ofPod("b", s.int(10, 20, 2)), "first 1", "10 20.001 3"},
		{ofPod("c", s.int(96_000, 96_300, 4)), "dropped_too_late 1", ""},
	})
}

// Of a total that a store has lost, what ends before it began anew is too late, also where it is aligned with its writer: it may be in
// what was lost.
func TestAggregateLostTotalTakesNothingFromBefore(t *testing.T) {
	cfg := dropPod(d2c.DefaultConfig())
	clock(0)(&cfg)
	st := &store.Memory{}
	conv, err := d2c.OpenShared(context.Background(), cfg, d2c.SharedConfig{Store: st})
	if err != nil {
		t.Fatal(err)
	}
	s := series("requests")
	playAggregate(t, conv, []aggregateStep{
		{ofPod("a", s.int(10, 20, 1)), "first 1", "10 20 1"},
		{ofPod("b", s.int(10, 20, 2)), "first 1", "10 20.001 3"},
		{ofPod("c", s.int(10, 50, 4)), "first 1", "10 50 7"},
	})
	for total := range conv.Streams() {
		lose(t, st, total.ID)
	}
	playAggregate(t, conv, []aggregateStep{
		{ofPod("a", s.int(20, 60, 8)), "restart_lost 1", "50 60 8"},
		{ofPod("b", s.int(20, 30, 16)), "dropped_too_late 1", ""},
		{ofPod("b", s.int(20, 70, 32)), "aligned 1", "50 70 40"},
	})
}

// lose takes a record out of a store.
func lose(t *testing.T, st *store.Memory, id streamid.ID) {
	t.Helper()
	ctx := context.Background()
	lives, err := st.Lives(ctx, store.Life{})
	if err != nil {
		t.Fatal(err)
	}
	there, err := st.Swap(ctx, []store.Swap{{ID: id, Life: lives[0].ID, Base: 2}}) // which no record has
	if err != nil || there[0].Record == nil {
		t.Fatalf("%v: no record of %v", err, id)
	}
	if err := st.SetAside(ctx, id, there[0].Record); err != nil {
		t.Fatal(err)
	}
}
