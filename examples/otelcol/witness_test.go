// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
)

// total is the value of a delta or of a cumulative sample. Of a number it has value alone; of a histogram, value is the
// sum.
type total struct {
	monotonic bool
	double    bool
	value     float64 // tests keep to numbers for which float64 is exact

	count    uint64
	min, max float64
	buckets  []uint64
	exponential
}

// add adds a delta of the same kind.
func (a *total) add(d total) {
	if a.buckets == nil && d.buckets != nil {
		a.buckets, a.min, a.max = make([]uint64, len(d.buckets)), d.min, d.max
	}
	a.monotonic, a.double = d.monotonic, d.double
	a.value += d.value
	a.count += d.count
	a.min, a.max = min(a.min, d.min), max(a.max, d.max)
	for i, n := range d.buckets {
		a.buckets[i] += n
	}
	if d.positive != nil {
		a.exponential.add(d.exponential)
	}
}

// coarse returns e at the coarser scale of the two, without empty buckets.
func (e exponential) coarse(scale int32) exponential {
	c := exponential{scale: scale, positive: map[int32]uint64{}, negative: map[int32]uint64{}}
	c.add(e)
	empty := func(_ int32, n uint64) bool { return n == 0 }
	maps.DeleteFunc(c.positive, empty)
	maps.DeleteFunc(c.negative, empty)
	return c
}

// equal is exact; buckets of exponential histograms are compared at the coarser scale of the two.
func (a total) equal(b total) bool {
	scale := min(a.scale, b.scale)
	x, y := a.coarse(scale), b.coarse(scale)
	return a.monotonic == b.monotonic && a.double == b.double && a.value == b.value &&
		a.count == b.count && a.min == b.min && a.max == b.max && slices.Equal(a.buckets, b.buckets) &&
		maps.Equal(x.positive, y.positive) && maps.Equal(x.negative, y.negative) && x.zero == y.zero
}

// fallsTo says what of a monotonic total is lower in the later total b, or "".
func (a total) fallsTo(b total) string {
	if !a.monotonic {
		return ""
	}
	if b.value < a.value || b.count < a.count {
		return "the value"
	}
	for i, n := range a.buckets {
		if b.buckets[i] < n {
			return fmt.Sprintf("bucket %d", i)
		}
	}
	if b.scale > a.scale {
		return "" // reported as a scale that rises
	}
	x := a.coarse(b.scale)
	for i, n := range x.positive {
		if b.positive[i] < n {
			return fmt.Sprintf("bucket +%d", i)
		}
	}
	for i, n := range x.negative {
		if b.negative[i] < n {
			return fmt.Sprintf("bucket -%d", i)
		}
	}
	if b.zero < a.zero {
		return "the zero bucket"
	}
	return ""
}

func (a total) String() string {
	switch {
	case a.buckets != nil:
		return fmt.Sprintf("{count %d sum %v min %v max %v %v}", a.count, a.value, a.min, a.max, a.buckets)
	case a.positive != nil:
		return fmt.Sprintf("{count %d sum %v scale %d zero %d +%v -%v}", a.count, a.value, a.scale, a.zero, a.positive, a.negative)
	}
	return fmt.Sprint(a.value)
}

// cumulative is one sample as the backend gets it.
type cumulative struct {
	start, time int64 // Unix time in nanoseconds
	total
}

func (c cumulative) String() string { return fmt.Sprintf("%v in (%d, %d]", c.total, c.start, c.time) }

func (c cumulative) equal(d cumulative) bool {
	return c.start == d.start && c.time == d.time && c.total.equal(d.total)
}

// witness is an OTLP/HTTP backend that remembers the latest sample of every series and every promise that a sample
// breaks. Samples of a series must arrive in order of their times; those of a producer named in concurrent, whose requests
// overtake each other, must be in order once sorted by time.
type witness struct {
	concurrent string

	mu       sync.Mutex
	away     bool // takes nothing
	mute     bool // takes everything and says that it does not
	samples  int
	latest   map[string]cumulative
	starts   map[string][]int64 // in order of arrival
	sorted   map[string][]cumulative
	breaches []string
	omitted  int // breaches beyond those kept
}

func newWitness(concurrent string) *witness {
	return &witness{
		concurrent: concurrent,
		latest:     map[string]cumulative{},
		starts:     map[string][]int64{},
		sorted:     map[string][]cumulative{},
	}
}

func (w *witness) ServeHTTP(reply http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.away {
		reply.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	request, err := readExport(r)
	if err != nil {
		http.Error(reply, err.Error(), http.StatusBadRequest) // a sender that died in the middle of it
		return
	}
	for _, rm := range request.Metrics().ResourceMetrics().All() {
		for _, sm := range rm.ScopeMetrics().All() {
			for _, m := range sm.Metrics().All() {
				w.record(rm.Resource(), m)
			}
		}
	}
	if w.mute {
		reply.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	body, _ := pmetricotlp.NewExportResponse().MarshalProto() // of an empty message; cannot fail
	reply.Header().Set("Content-Type", "application/x-protobuf")
	_, _ = reply.Write(body)
}

func (w *witness) breach(format string, args ...any) {
	const kept = 5
	if len(w.breaches) == kept {
		w.omitted++
		return
	}
	w.breaches = append(w.breaches, fmt.Sprintf(format, args...))
}

func (w *witness) record(resource pcommon.Resource, m pmetric.Metric) {
	producer, _ := resource.Attributes().Get("producer")
	key := func(attributes pcommon.Map) string {
		stream, _ := attributes.Get("stream")
		return seriesOf(producer.Str(), m.Name(), stream.Str())
	}
	temporality := func(t pmetric.AggregationTemporality) {
		if t != pmetric.AggregationTemporalityCumulative {
			w.breach("%s: %v", m.Name(), t)
		}
	}
	put := func(key string, start, time pcommon.Timestamp, t total) {
		if producer.Str() == w.concurrent {
			w.putSorted(key, cumulative{int64(start), int64(time), t})
		} else {
			w.put(key, cumulative{int64(start), int64(time), t})
		}
	}
	switch m.Type() {
	case pmetric.MetricTypeSum:
		temporality(m.Sum().AggregationTemporality())
		for _, pt := range m.Sum().DataPoints().All() {
			t := total{monotonic: m.Sum().IsMonotonic(), value: pt.DoubleValue(), double: true}
			if pt.ValueType() == pmetric.NumberDataPointValueTypeInt {
				t.value, t.double = float64(pt.IntValue()), false
			}
			put(key(pt.Attributes()), pt.StartTimestamp(), pt.Timestamp(), t)
		}
	case pmetric.MetricTypeHistogram:
		temporality(m.Histogram().AggregationTemporality())
		for _, pt := range m.Histogram().DataPoints().All() {
			put(key(pt.Attributes()), pt.StartTimestamp(), pt.Timestamp(), total{
				monotonic: true, value: pt.Sum(), count: pt.Count(), min: pt.Min(), max: pt.Max(),
				buckets: pt.BucketCounts().AsRaw(),
			})
		}
	case pmetric.MetricTypeExponentialHistogram:
		temporality(m.ExponentialHistogram().AggregationTemporality())
		for _, pt := range m.ExponentialHistogram().DataPoints().All() {
			sparse := func(b pmetric.ExponentialHistogramDataPointBuckets) map[int32]uint64 {
				counts := map[int32]uint64{}
				for i, n := range b.BucketCounts().All() {
					if n > 0 {
						counts[b.Offset()+int32(i)] = n
					}
				}
				return counts
			}
			put(key(pt.Attributes()), pt.StartTimestamp(), pt.Timestamp(), total{
				monotonic: true, value: pt.Sum(), count: pt.Count(),
				exponential: exponential{
					scale: pt.Scale(), zero: pt.ZeroCount(), positive: sparse(pt.Positive()), negative: sparse(pt.Negative()),
				},
			})
		}
	default:
		w.breach("%s: a %v", m.Name(), m.Type())
	}
}

// put takes the next sample of a series.
func (w *witness) put(key string, now cumulative) {
	was, known := w.latest[key]
	w.samples++
	w.latest[key] = now
	if !known || now.start != was.start {
		w.starts[key] = append(w.starts[key], now.start)
	}
	if known {
		w.compare(key, was, now)
	}
}

// compare says what is wrong about a series that has one sample after the other.
func (w *witness) compare(key string, was, now cumulative) {
	switch {
	case now.equal(was): // a repeat
	case now.start == was.start && now.time == was.time:
		w.breach("%s: two values at one time: %v, then %v", key, was, now)
	case now.time <= was.time:
		w.breach("%s: time goes back: %v, then %v", key, was, now)
	case now.start == was.start:
		if what := was.fallsTo(now.total); what != "" {
			w.breach("%s: %s falls: %v, then %v", key, what, was, now)
		} else if now.scale > was.scale {
			w.breach("%s: the scale rises: %v, then %v", key, was, now)
		}
	case now.start < was.start:
		w.breach("%s: an older start: %v, then %v", key, was, now)
	case now.start < was.time:
		w.breach("%s: the restart overlaps what was before: %v, then %v", key, was, now)
	}
}

// putSorted takes a sample of a series whose samples come in any order.
func (w *witness) putSorted(key string, now cumulative) {
	w.samples++
	if !slices.Contains(w.starts[key], now.start) {
		w.starts[key] = append(w.starts[key], now.start)
	}
	all := w.sorted[key]
	i, known := slices.BinarySearchFunc(all, now, func(a, b cumulative) int { return int(a.time - b.time) })
	if i > 0 {
		w.compare(key, all[i-1], now)
	}
	switch {
	case known:
		w.compare(key, all[i], now)
	default:
		all = slices.Insert(all, i, now)
		if i+1 < len(all) {
			w.compare(key, now, all[i+1])
		}
	}
	w.sorted[key] = all
	w.latest[key] = all[len(all)-1]
}

// of returns the latest sample of a series.
func (w *witness) of(key string) cumulative {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.latest[key]
}

// check reports the promises that were broken so far.
func (w *witness) check() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.breaches) == 0 {
		return nil
	}
	return fmt.Errorf("promises broken %d times:\n%s", len(w.breaches)+w.omitted, strings.Join(w.breaches, "\n"))
}

// checkStarts reports the series that had another number of starts than one.
func (w *witness) checkStarts() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var restarted []string
	for key, starts := range w.starts {
		if len(starts) != 1 {
			restarted = append(restarted, fmt.Sprintf("%s: %d starts: %v", key, len(starts), starts[:min(4, len(starts))]))
		}
	}
	if len(restarted) == 0 {
		return nil
	}
	slices.Sort(restarted)
	return fmt.Errorf("%d of %d series restarted:\n%s",
		len(restarted), len(w.starts), strings.Join(restarted[:min(5, len(restarted))], "\n"))
}

// set makes the backend go away, or lose its voice.
func (w *witness) set(away, mute bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.away, w.mute = away, mute
}

// seriesOf is the key of a series at the witness.
func seriesOf(producer, metric, stream string) string { return producer + "/" + metric + "/" + stream }

// TestWitness shows that the witness sees what it is there to see.
func TestWitness(t *testing.T) {
	number := func(v float64) total { return total{monotonic: true, value: v} }
	histogram := func(counts ...uint64) total { return total{monotonic: true, count: 9, buckets: counts} }
	size := func(scale int32, index int32, n uint64) total {
		return total{monotonic: true, count: 9, exponential: exponential{scale: scale, positive: map[int32]uint64{index: n}}}
	}
	for _, tc := range []struct {
		name     string
		was, now cumulative
		want     string
	}{
		{"grows", cumulative{1, 5, number(3)}, cumulative{1, 6, number(4)}, ""},
		{"repeats", cumulative{1, 5, number(3)}, cumulative{1, 5, number(3)}, ""},
		{"restarts", cumulative{1, 5, number(3)}, cumulative{5, 6, number(1)}, ""},
		{"two values", cumulative{1, 5, number(3)}, cumulative{1, 5, number(4)}, "two values at one time"},
		{"back in time", cumulative{1, 5, number(3)}, cumulative{1, 4, number(3)}, "time goes back"},
		{"falls", cumulative{1, 5, number(3)}, cumulative{1, 6, number(2)}, "the value falls"},
		{"a bucket falls", cumulative{1, 5, histogram(3, 6)}, cumulative{1, 6, histogram(4, 5)}, "bucket 1 falls"},
		{"an exponential bucket falls", cumulative{1, 5, size(3, 2, 4)}, cumulative{1, 6, size(2, 1, 3)}, "bucket +1 falls"},
		{"an exponential bucket stays", cumulative{1, 5, size(3, 2, 4)}, cumulative{1, 6, size(2, 1, 4)}, ""},
		{"the scale rises", cumulative{1, 5, size(2, 1, 4)}, cumulative{1, 6, size(3, 2, 4)}, "the scale rises"},
		{"an older start", cumulative{4, 5, number(3)}, cumulative{1, 6, number(9)}, "an older start"},
		{"overlaps", cumulative{1, 5, number(3)}, cumulative{4, 6, number(1)}, "overlaps"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			check := func(how string, w *witness) {
				t.Helper()
				switch err := w.check(); {
				case tc.want == "" && err != nil:
					t.Errorf("%s: %v", how, err)
				case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
					t.Errorf("%s: got %v, want %q", how, err, tc.want)
				}
				if restarted := w.checkStarts() != nil; restarted != (tc.was.start != tc.now.start) {
					t.Errorf("%s: restarted is %v", how, restarted)
				}
			}
			w := newWitness("")
			w.put("s", tc.was)
			w.put("s", tc.now)
			check("in order", w)
			if tc.now.time > tc.was.time {
				w = newWitness("")
				w.putSorted("s", tc.now)
				w.putSorted("s", tc.was)
				check("swapped", w)
			}
		})
	}
}
