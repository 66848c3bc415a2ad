// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"sync"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// ledger knows what has been sent of every series, and holds what comes out against it: each sample when it comes, and in the end
// that the last one of each series has come.
type ledger struct {
	kind    kind
	delta   bool              // what comes out is what came in
	begin   pcommon.Timestamp // of the first interval of every series; set before anything is sent
	batches []sent

	mu        sync.Mutex
	strangers int // samples of no series that there is
	first     string
}

// sent is what there is of a thousand series.
type sent struct {
	mu   sync.Mutex
	ends []pcommon.Timestamp // of the rounds so far
	came [pointsPerBatch]state
}

// state is what has come of a series.
type state struct {
	rounds int32 // the latest sample has as many
	faults fault
}

// fault is a set of what may be wrong with a series.
type fault uint8

const (
	wrongValue fault = 1 << iota // not the sum of what was sent between start and time, or of another temporality
	wrongStart                   // not that of the first delta
	wrongTime                    // not the end of a delta that was sent
	disorder                     // after a later one
	missing                      // the last one has not come
)

// faults is how many series have what is wrong.
type faults struct {
	Series    int // with anything
	Value     int
	Start     int
	Time      int
	Disorder  int
	Missing   int
	Strangers int    // samples of no series that there is
	First     string `json:",omitempty"` // the first of all, in words
}

func newLedger(k kind, series int, delta bool) *ledger {
	return &ledger{kind: k, delta: delta, batches: make([]sent, series/pointsPerBatch)}
}

// next notes the next round of a batch, which ends at end or just after the one before, and returns it.
func (l *ledger) next(index int, end pcommon.Timestamp) (round int, from, to pcommon.Timestamp) {
	b := &l.batches[index]
	b.mu.Lock()
	defer b.mu.Unlock()
	round, from = len(b.ends), l.begin
	if round > 0 {
		from = b.ends[round-1]
	}
	to = max(end, from+1e6) // no two samples of a series within a millisecond
	b.ends = append(b.ends, to)
	return round, from, to
}

// sample is what is compared, of a sum or a histogram.
type sample struct {
	start, time pcommon.Timestamp
	cumulative  bool
	is          func(series, rounds int, v int64) bool // the value is that of a total
}

// take checks what has come to the sink.
func (l *ledger) take(md pmetric.Metrics) {
	for _, rm := range md.ResourceMetrics().All() {
		number := resourceNumber(rm.Resource().Attributes())
		for _, sm := range rm.ScopeMetrics().All() {
			for _, m := range sm.Metrics().All() {
				metric, ok := metricAt[m.Name()]
				if !ok || number < 0 || number >= len(l.batches)*resources {
					l.stranger(m.Name())
					continue
				}
				l.takeMetric(number/resources, (number%resources*perResource+metric)*perMetric, m)
			}
		}
	}
}

// takeMetric checks samples of a batch, of which at is the first series.
func (l *ledger) takeMetric(index, at int, m pmetric.Metric) {
	b := &l.batches[index]
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case l.kind == kindSum && m.Type() == pmetric.MetricTypeSum:
		cumulative := m.Sum().AggregationTemporality() == pmetric.AggregationTemporalityCumulative
		for _, p := range m.Sum().DataPoints().All() {
			l.takePoint(b, index, at, p.Attributes(), sample{p.StartTimestamp(), p.Timestamp(), cumulative, func(_, _ int, v int64) bool {
				return p.IntValue() == v
			}})
		}
	case l.kind == kindHistogram && m.Type() == pmetric.MetricTypeHistogram:
		cumulative := m.Histogram().AggregationTemporality() == pmetric.AggregationTemporalityCumulative
		for _, p := range m.Histogram().DataPoints().All() {
			l.takePoint(b, index, at, p.Attributes(), sample{p.StartTimestamp(), p.Timestamp(), cumulative, func(series, rounds int, v int64) bool {
				count, sum := histogram(rounds, v)
				ok := p.Count() == count && p.Sum() == sum && p.BucketCounts().Len() == len(bounds)+1
				for i := 0; ok && i < p.BucketCounts().Len(); i++ {
					ok = p.BucketCounts().At(i) == bucket(series, i, rounds, v)
				}
				return ok
			}})
		}
	default:
		l.stranger(fmt.Sprintf("%s: a %v", m.Name(), m.Type()))
	}
}

func (l *ledger) takePoint(b *sent, index, at int, attributes pcommon.Map, s sample) {
	n := pointNumber(attributes)
	if n < 0 {
		l.stranger(fmt.Sprint(attributes.AsRaw()))
		return
	}
	series := index*pointsPerBatch + at + n
	came := &b.came[at+n]
	found, rounds := l.judge(b, series, came, s)
	if found != 0 && came.faults == 0 {
		l.note(fmt.Sprintf("series %d: %v: start %v, time %v, %d of %d rounds", series, found, s.start, s.time, rounds, len(b.ends)))
	}
	came.faults |= found
}

// judge returns what is wrong with a sample, and how many rounds it has.
func (l *ledger) judge(b *sent, series int, came *state, s sample) (found fault, rounds int) {
	// Mostly the next.
	for rounds = int(came.rounds) + 1; rounds <= len(b.ends) && b.ends[rounds-1] < s.time; rounds++ {
	}
	for rounds > 1 && (rounds > len(b.ends) || b.ends[rounds-1] > s.time) {
		rounds--
	}
	if rounds > len(b.ends) || b.ends[rounds-1] != s.time {
		return wrongTime, rounds
	}
	from, start := 0, l.begin
	if l.delta {
		from = rounds - 1
		if from > 0 {
			start = b.ends[from-1]
		}
	}
	if s.cumulative == l.delta || !s.is(series, rounds-from, total(series, from, rounds)) {
		found |= wrongValue
	}
	if s.start != start {
		found |= wrongStart
	}
	switch {
	case l.delta && rounds != int(came.rounds)+1: // twice, or one is left out
		found |= disorder
	case rounds < int(came.rounds): // the same sample may come again, where an answer was lost
		found |= disorder
	}
	came.rounds = max(came.rounds, int32(rounds))
	return found, rounds
}

func (l *ledger) stranger(what string) {
	l.mu.Lock()
	l.strangers++
	l.mu.Unlock()
	l.note("no such series: " + what)
}

func (l *ledger) note(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first == "" {
		l.first = what
	}
}

// verdict is what is wrong in the end, when everything sent has been acknowledged.
func (l *ledger) verdict() faults {
	var f faults
	for i := range l.batches {
		b := &l.batches[i]
		b.mu.Lock()
		for n, came := range b.came {
			if int(came.rounds) != len(b.ends) || len(b.ends) == 0 {
				if came.faults == 0 {
					l.note(fmt.Sprintf("series %d: %d of %d rounds", i*pointsPerBatch+n, came.rounds, len(b.ends)))
				}
				came.faults |= missing
			}
			f.add(came.faults)
		}
		b.mu.Unlock()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	f.Strangers, f.First = l.strangers, l.first
	return f
}

func (f *faults) add(found fault) {
	for is, count := range map[fault]*int{wrongValue: &f.Value, wrongStart: &f.Start, wrongTime: &f.Time, disorder: &f.Disorder, missing: &f.Missing} {
		if found&is != 0 {
			*count++
		}
	}
	if found != 0 {
		f.Series++
	}
}

// String says what is wrong.
func (f fault) String() string {
	text := ""
	for i, word := range []string{"value", "start", "time", "disorder", "missing"} {
		if f&(1<<i) != 0 {
			text += " " + word
		}
	}
	return "wrong" + text
}
