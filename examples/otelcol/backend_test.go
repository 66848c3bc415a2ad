// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/deltaring/deltaring/d2c"
)

const (
	interval  = 10 * time.Second
	intervals = 24
)

// timeline maps interval boundaries to time stamps: interval i lies between at(i) and at(i+1). All of it is past, so
// that minutes of data can be sent in a second, and recent, so that Prometheus takes it.
type timeline struct{ begin time.Time }

func newTimeline() timeline {
	// Not on a millisecond: remote write truncates, and what differs by less than one must not collide.
	return timeline{time.Now().Add(-intervals*interval - time.Minute).Truncate(time.Millisecond).Add(456 * time.Microsecond)}
}

func (l timeline) at(i int) time.Time { return l.begin.Add(time.Duration(i) * interval) }

// end is after every sample of the timeline.
func (l timeline) end() time.Time { return l.at(intervals).Add(5 * time.Second) }

// TestPrometheus runs prometheus.yaml between producers that retry, reorder, lose and restart, and a Prometheus that
// takes samples in order only.
func TestPrometheus(t *testing.T) {
	forEachPrometheus(t, func(t *testing.T, prom *prometheus) { testPrometheus(t, prom) })
}

// TestPrometheusMultipleWorkers does so with the meaning that num_consumers is to have one day.
func TestPrometheusMultipleWorkers(t *testing.T) {
	testPrometheus(t, startPrometheus(t, debianPrometheus), "--feature-gates=exporter.prometheusremotewritexporter.EnableMultipleWorkers")
}

func testPrometheus(t *testing.T, prom *prometheus, args ...string) {
	coll := startCollector(t, "prometheus.yaml", prom.environment(), args...)
	book, line := newLedger(), newTimeline()

	var wg sync.WaitGroup
	for i, script := range []func(*producer, timeline) error{retrying, reordered, restarted, withoutStart} {
		resource := map[string]string{"host.name": fmt.Sprintf("host-%d", i)}
		labels := map[string]string{"host_name": fmt.Sprintf("host-%d", i)}
		if i == 0 {
			resource["service.instance.id"], labels["instance"] = "one", "one"
		}
		p := newProducer(coll.client(t), book, uint64(i), resource, labels)
		wg.Go(func() {
			if err := script(p, line); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}

	checkArrived(t, coll, prom, book, line)
	t.Run("last value", func(t *testing.T) { checkLastValues(t, prom, book, line) })
	t.Run("resets", func(t *testing.T) { checkResets(t, prom, book, line) })
	t.Run("increase", func(t *testing.T) { checkIncrease(t, prom, book, line) })
	t.Run("histogram_quantile", func(t *testing.T) { checkQuantiles(t, prom, book, line) })
}

// TestPrometheusOutage stops Prometheus for longer than the exporter would wait by default, while producers go on.
func TestPrometheusOutage(t *testing.T) {
	t.Parallel()
	forEachPrometheus(t, testOutage)
}

func testOutage(t *testing.T, prom *prometheus) {
	coll := startCollector(t, "prometheus.yaml", prom.environment())
	book, line := newLedger(), newTimeline()
	p := newProducer(coll.client(t), book, 7, nil, nil)
	send := func(from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			if _, err := p.both(line.at(i), line.at(i+1), firstOr(d2c.AddedAligned, i), line.at(i+1)); err != nil {
				t.Fatal(err)
			}
		}
	}

	send(0, 5)
	checkArrived(t, coll, prom, book, line)
	prom.stop(t)
	before := coll.attempts(t)
	send(5, 10)
	if err := poll(func() error {
		if n := coll.attempts(t) - before; n < 8 {
			return fmt.Errorf("the exporter has tried %v times", n)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	prom.restart(t)
	send(10, 15)
	checkArrived(t, coll, prom, book, line)
}

// checkArrived waits until the Collector is done and compares all samples that Prometheus has with those it must have.
func checkArrived(t *testing.T, coll *collector, prom *prometheus, book *ledger, line timeline) {
	t.Helper()
	if err := poll(func() error { return coll.compareTelemetry(book) }); err != nil {
		t.Error(err)
	}
	prom.checkNothingRejected(t, book)
	everything, err := prom.query(`{__name__=~".+"}[1h]`, line.end())
	if err != nil {
		t.Fatal(err)
	}
	if err := book.compare(everything); err != nil {
		t.Fatal(err)
	}
}

// both sends the sums and the histograms of an interval.
func (p *producer) both(start, end time.Time, outcome d2c.Outcome, emitted time.Time) ([]export, error) {
	exports := []export{p.sums(start, end), p.histograms(start, end)}
	return exports, p.again(exports, outcome, emitted)
}

// again sends exports, with a common outcome and time of emission.
func (p *producer) again(exports []export, outcome d2c.Outcome, emitted time.Time) error {
	for _, e := range exports {
		if err := p.send(e, outcome, emitted); err != nil {
			return err
		}
	}
	return nil
}

// firstOr is the outcome of interval i if the one before went well.
func firstOr(outcome d2c.Outcome, i int) d2c.Outcome {
	if i == 0 {
		return d2c.AddedFirst
	}
	return outcome
}

// retrying sends requests twice. Its histograms are collected three seconds after its sums, so a retry of the sums is
// older than what the resource has sent since.
func retrying(p *producer, line timeline) error {
	var previous export
	for i := range intervals {
		sums := p.sums(line.at(i), line.at(i+1))
		histograms := p.histograms(line.at(i).Add(3*time.Second), line.at(i+1).Add(3*time.Second))
		for _, e := range []export{sums, histograms} {
			if err := p.send(e, firstOr(d2c.AddedAligned, i), e.end); err != nil {
				return err
			}
		}
		var retries []export
		if i%3 == 1 {
			retries = append(retries, sums)
		}
		if i%4 == 2 {
			retries = append(retries, histograms)
		}
		if err := p.again(retries, d2c.Repeat, time.Time{}); err != nil {
			return err
		}
		if i%10 == 9 { // overtaken by its successor
			if err := p.again([]export{previous}, d2c.Covered, time.Time{}); err != nil {
				return err
			}
		}
		previous = sums
	}
	return nil
}

// reordered delivers some intervals late, and one never.
func reordered(p *producer, line timeline) error {
	const ms = time.Millisecond
	steps := []struct {
		interval int
		outcome  d2c.Outcome
		after    time.Duration // emission after the end of the latest interval
	}{
		{1, d2c.AddedFirst, 0},
		{0, d2c.AddedBeforeFirst, 1 * ms},
		{2, d2c.AddedAligned, 0}, {3, d2c.AddedAligned, 0}, {4, d2c.AddedAligned, 0}, {5, d2c.AddedAligned, 0}, {6, d2c.AddedAligned, 0},
		{8, d2c.AddedGap, 0},
		{7, d2c.AddedLate, 1 * ms},
		{9, d2c.AddedAligned, 0}, {10, d2c.AddedAligned, 0}, {11, d2c.AddedAligned, 0},
		{13, d2c.AddedGap, 0}, // interval 12 is lost
		{14, d2c.AddedAligned, 0},
		{17, d2c.AddedGap, 0},
		{15, d2c.AddedLate, 1 * ms},
		{16, d2c.AddedLate, 2 * ms},
		{18, d2c.AddedAligned, 0}, {19, d2c.AddedAligned, 0}, {20, d2c.AddedAligned, 0},
		{21, d2c.AddedAligned, 0}, {22, d2c.AddedAligned, 0}, {23, d2c.AddedAligned, 0},
	}
	latest := 0
	for _, step := range steps {
		latest = max(latest, step.interval)
		exports, err := p.both(line.at(step.interval), line.at(step.interval+1), step.outcome, line.at(latest+1).Add(step.after))
		if err != nil {
			return err
		}
		if step.outcome == d2c.AddedLate {
			if err := p.again(exports, d2c.Repeat, time.Time{}); err != nil {
				return err
			}
		}
	}
	return nil
}

// restarted is a process that ends with a flush in the same millisecond as its last export, without knowing whether
// either arrived, and comes back after a while under the same identity, with a coarser exponential histogram.
func restarted(p *producer, line timeline) error {
	const died, back = 10, 12
	for i := range died {
		exports, err := p.both(line.at(i), line.at(i+1), firstOr(d2c.AddedAligned, i), line.at(i+1))
		if err != nil {
			return err
		}
		if i == died-1 {
			end := line.at(died)
			flush, err := p.both(end, end.Add(300*time.Microsecond), d2c.AddedAligned, end.Add(time.Millisecond))
			if err != nil {
				return err
			}
			if err := p.again(exports, d2c.Covered, time.Time{}); err != nil { // the flush has overtaken them
				return err
			}
			if err := p.again(flush, d2c.Repeat, time.Time{}); err != nil {
				return err
			}
		}
	}
	p.scale--
	for i := back; i < intervals; i++ {
		start, outcome := line.at(i), d2c.AddedAligned
		if i == back {
			start, outcome = start.Add(interval/4), d2c.AddedGap
		}
		if _, err := p.both(start, line.at(i+1), outcome, line.at(i+1)); err != nil {
			return err
		}
	}
	return nil
}

// withoutStart sends no start timestamps, so that a late delta cannot be told from a repeat, and much that is not a
// delta at all.
func withoutStart(p *producer, line timeline) error {
	p.noStart = true
	var previous []export
	for i := range intervals {
		exports, err := p.both(line.at(i), line.at(i+1), firstOr(d2c.AddedNoStart, i), line.at(i+1))
		if err != nil {
			return err
		}
		if i%5 == 3 {
			if err := p.again(exports, d2c.Repeat, time.Time{}); err != nil {
				return err
			}
			if err := p.again(previous, d2c.DroppedTooLate, time.Time{}); err != nil {
				return err
			}
		}
		if err := p.send(p.oddities(line.at(i), line.at(i+1)), d2c.Passed, line.at(i+1)); err != nil {
			return err
		}
		previous = exports
	}
	return nil
}
