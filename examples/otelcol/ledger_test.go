// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/deltaring/deltaring/d2c"
)

// sample is one sample of a series. A native histogram has its count as value and the rest beside it.
type sample struct {
	ms     int64 // Unix time
	value  float64
	native *native
}

type native struct {
	sum     float64
	buckets []bucket // with counts above zero, in order
}

type bucket struct{ lower, upper, count float64 }

func (s sample) String() string {
	if s.native == nil {
		return fmt.Sprintf("%v@%d", s.value, s.ms)
	}
	return fmt.Sprintf("{count %v sum %v %v}@%d", s.value, s.native.sum, s.native.buckets, s.ms)
}

// equal is exact, apart from the bounds of native buckets, which the backend computes in its own way.
func (s sample) equal(o sample) bool {
	if s.ms != o.ms || s.value != o.value || (s.native == nil) != (o.native == nil) {
		return false
	}
	return s.native == nil || s.native.sum == o.native.sum && slices.EqualFunc(s.native.buckets, o.native.buckets,
		func(a, b bucket) bool { return near(a.lower, b.lower) && near(a.upper, b.upper) && a.count == b.count })
}

// near allows for the rounding of a few floating-point operations.
func near(a, b float64) bool { return math.Abs(a-b) <= 1e-9*max(math.Abs(a), math.Abs(b)) }

// ledger is what the producers of a test know: the samples that the backend must end up with, no more and no fewer,
// and what must have become of every point. Safe for concurrent use.
type ledger struct {
	mu       sync.Mutex
	series   map[string][]sample // by seriesKey
	outcomes [d2c.NumOutcomes]uint64
	streams  int // streams the processor keeps state of

	gapOpened, gapFilled time.Duration

	repeatedNative int // samples of native histograms that were sent once more
}

func newLedger() *ledger { return &ledger{series: map[string][]sample{}} }

// append notes the next sample of a series.
func (l *ledger) append(key string, s sample) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.series[key] = append(l.series[key], s)
}

// last returns the latest sample of a series.
func (l *ledger) last(key string) sample {
	samples := l.series[key]
	return samples[len(samples)-1]
}

// named returns the keys of the series with one of the given metric names.
func (l *ledger) named(names ...string) []string {
	var keys []string
	for key := range l.series {
		if name, _, _ := strings.Cut(key, "{"); slices.Contains(names, name) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// compare reports the first differences between the ledger and what the backend has.
func (l *ledger) compare(backend map[string][]sample) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var differences []string
	for key, want := range l.series {
		if got := backend[key]; !slices.EqualFunc(got, want, sample.equal) {
			differences = append(differences, fmt.Sprintf("%s\n   has  %v\n   want %v", key, got, want))
		}
	}
	for key, got := range backend {
		if _, ok := l.series[key]; !ok {
			differences = append(differences, fmt.Sprintf("%s\n   has  %v\n   want no such series", key, got))
		}
	}
	if len(differences) == 0 {
		return nil
	}
	slices.Sort(differences)
	const shown = 5
	return fmt.Errorf("%d series differ:\n%s", len(differences), strings.Join(differences[:min(shown, len(differences))], "\n"))
}

// seriesKey writes a series as Prometheus does, labels in order.
func seriesKey(name string, labels map[string]string) string {
	parts := make([]string, 0, len(labels))
	for k, v := range labels {
		parts = append(parts, fmt.Sprintf("%s=%q", k, v))
	}
	slices.Sort(parts)
	return name + "{" + strings.Join(parts, ",") + "}"
}
