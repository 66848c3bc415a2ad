// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"
)

// account is what a backend has of a load, beside what it should have.
type account struct {
	samples int // that should be there
	// lost is the number of samples that were acknowledged and are not there; excused that of samples which may be lost so by what
	// the configurations say of themselves.
	lost, excused int
	// twice is the number of deltas that were counted by a process and again by the one after it, which the configurations say may be.
	twice int
	// wrong is the number of samples whose value is not the truth, or for which there is no interval.
	wrong int
	// totals is the number of series that lack something in the end, other than what is excused.
	totals int
	// restarts is how often a series began anew. What it was has been counted in full by then, or the sample is wrong.
	restarts int
	// native is the number of samples of buckets of exponential histograms that are right.
	native int
	// zeros is the number of zeros that the backend has put at starts.
	zeros   int
	example string // of what is wrong or lost
}

// rules are what may become of a series.
type rules struct {
	lives   bool                 // it may begin anew: what adds it up has forgotten it
	zeros   bool                 // the backend puts zeros at starts
	excused func(end int64) bool // what was sent for the interval that has ended then may be lost
	twice   func(end int64) bool // or counted again where the series begins anew
	// unseen is how much of what is counted increase() does not see where a series falls from one value to another.
	unseen func(from, to int64) int64
}

// missed is what increase() cannot see.
type missed struct {
	first   int64 // the value of the first sample
	hidden  int64 // at restarts
	excused int64 // deltas that are in no sample, less those that were counted twice
}

// settle compares the samples of a series with what it has to be.
func (c *account) settle(key seriesKey, e expected, samples []sample, r rules) missed {
	var m missed
	begin, step := e.begin, interval.Milliseconds()
	total := func(i int) int64 { // at the end of interval i
		if i < 0 {
			return 0
		}
		return e.totals[i]
	}
	say := func(format string, args ...any) {
		if c.example == "" {
			c.example = fmt.Sprintf("%+v ", key) + fmt.Sprintf(format, args...)
		}
	}
	base, last, value := int64(0), -1, int64(0)
	lacks := false
	miss := func(from, to int) { // intervals of which there is no sample
		anew := last // after the end of this interval it may have begun anew
		for i := from; i < to; i++ {
			end := begin + int64(i+1)*step
			if e.sparse && (total(i) == base || r.lives && total(i) == total(anew)) {
				continue
			}
			anew = i
			if r.excused != nil && r.excused(end) {
				c.excused++
			} else {
				c.lost++
				lacks = lacks || i == len(e.totals)-1
				say("has no sample at %d ms, the end of interval %d of %d", end, i, len(e.totals))
			}
		}
	}

	// again reports whether the latest interval of which there is a sample may have been counted twice.
	again := func() bool { return last >= 0 && e.lives && r.twice != nil && r.twice(begin+int64(last+1)*step) }

	// began finds the interval after whose end a series that is a value at the end of interval i has begun anew.
	began := func(i int, value int64) (int, bool) {
		for k := last; k < i && r.lives && e.lives; k++ {
			if total(k) == total(i)-value {
				return k, true
			}
		}
		return last - 1, again() && total(last-1) == total(i)-value
	}
	// injected reports whether a zero is none that was counted.
	injected := func(i int) bool {
		_, anew := began(i, 0)
		return r.zeros && (i < 0 || r.lives && e.lives && total(i) != base && !anew)
	}

	for n, s := range samples {
		i := int((s.ms-begin)/step) - 1
		off := s.ms < begin || (s.ms-begin)%step != 0 || i >= len(e.totals)
		switch {
		case n > 0 && s == samples[n-1]: // VictoriaMetrics keeps the same sample twice
			continue
		case !off && s.value == 0 && injected(i):
			c.zeros++
			continue
		case !off && i == last && again() && int64(s.value) == total(i)-total(i-1): // VictoriaMetrics has both
			base, value = total(i-1), int64(s.value)
			c.restarts++
			c.twice++
			m.excused += total(i-1) - total(i)
			continue
		case off || i <= last:
			c.wrong++
			say("has %v at %d ms, where no interval ends", s.value, s.ms)
			continue
		}
		v := int64(s.value)
		right := float64(v) == s.value
		if right && v != total(i)-base {
			k, anew := began(i, v)
			if right = anew; anew {
				if k < last {
					c.twice++
				}
				m.excused += total(k) - total(last)
				if value > 0 {
					m.hidden += r.unseen(value, v)
				}
				base = total(k)
				c.restarts++
			}
		}
		miss(last+1, i)
		if last < 0 {
			m.first = v
		}
		last, value = i, v
		if !right {
			c.wrong++
			say("is %v at %d ms, %d were counted, %d of them before it began anew", s.value, s.ms, total(i), base)
		} else if key.name == sizeSeries+"_bucket" {
			c.native++
		}
	}
	miss(last+1, len(e.totals))
	c.samples += len(e.totals)
	if lacks {
		c.totals++
	}
	return m
}

// balance compares all that a backend has.
func (c *account) balance(expectations map[seriesKey]expected, has map[seriesKey][]sample, r rules) map[seriesKey]missed {
	all := map[seriesKey]missed{}
	for key, e := range expectations {
		all[key] = c.settle(key, e, has[key], r)
	}
	for key, samples := range has {
		if _, known := expectations[key]; !known {
			c.wrong += len(samples)
			if c.example == "" {
				c.example = fmt.Sprintf("%+v is not what anybody sent", key)
			}
		}
	}
	return all
}

// complete reports whether the last sample of each series is there. A series that is sparse need not have one at the end, but one of when it
// last changed: until then it may be a new one, which VictoriaMetrics does not show at once.
func complete(expectations map[seriesKey]expected, has map[seriesKey][]sample) bool {
	for key, e := range expectations {
		last := len(e.totals) - 1
		for e.sparse && last > 0 && e.totals[last] == e.totals[last-1] {
			last--
		}
		if e.sparse && (last < 0 || e.totals[last] == 0) {
			continue
		}
		samples := has[key]
		if len(samples) == 0 || samples[len(samples)-1].ms < e.begin+int64(last+1)*interval.Milliseconds() {
			return false
		}
	}
	return true
}

// around returns what may have been held in queues at a time: what was sent for intervals that ended so shortly before.
func around(at time.Time, before time.Duration) func(end int64) bool {
	from, to := at.Add(-before).UnixMilli(), at.UnixMilli()
	return func(end int64) bool { return from <= end && end <= to }
}
