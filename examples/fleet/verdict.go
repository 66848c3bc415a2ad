// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"
)

// verdict is what an event did to the series of a fleet.
type verdict struct {
	// resets is how often a counter fell and began anew: what it fell to has been counted since its last sample, so rates
	// and increases are as if it had not fallen.
	resets int
	// drops is how often it fell to anything else: rates and increases count some of that a second time.
	drops int
	// wrong is the number of series whose total is not what was acknowledged: the last value, and where the counter fell,
	// the values before that.
	wrong int
	// inexact is the number of samples that are not the sum of all that had been acknowledged by then, and lacking that of
	// samples that should be there. Whatever fell is inexact from then on.
	inexact, lacking int
	// example is one of the inexact samples.
	example string
	// rejected is the number of samples in requests that the backend rejected.
	rejected int
	excuse   string
	// stalest is the longest time for which a series had no fresh sample.
	stalest time.Duration
	// retries is how many requests of clients failed and were sent again, refused how many failed for good.
	retries, refused int

	series  int
	begin   time.Time // of the event
	end     time.Time
	samples map[seriesKey][]sample
	truths  map[seriesKey]*truth
}

// judge compares what the backend has with what was acknowledged.
func (v *verdict) judge() {
	v.series = len(v.truths)
	for key, t := range v.truths {
		v.judgeSeries(key, t, v.samples[key])
	}
}

func (v *verdict) judgeSeries(key seriesKey, t *truth, samples []sample) {
	var before float64 // in lives that have ended
	for i, s := range samples {
		if want := t.at(s.ms); s.value != float64(want) {
			v.inexact++
			if v.example == "" {
				v.example = fmt.Sprintf("%+v is %v at %d ms, %d were sent", key, s.value, s.ms, want)
			}
		}
		if i == 0 || s.value >= samples[i-1].value {
			continue
		}
		previous := samples[i-1]
		before += previous.value
		if s.value <= float64(t.at(s.ms)-t.at(previous.ms)) {
			v.resets++
		} else {
			v.drops++
		}
	}
	v.lacking += max(0, len(t.totals)-len(samples))
	if len(samples) == 0 || before+samples[len(samples)-1].value != float64(t.last()) {
		v.wrong++
	}
}

// falls is how often a series fell.
func falls(samples []sample) int {
	n := 0
	for i := 1; i < len(samples); i++ {
		if samples[i].value < samples[i-1].value {
			n++
		}
	}
	return n
}

// flawless reports whether nobody could tell from the backend that anything has happened, but for the time it took.
func (v *verdict) flawless() bool {
	return v.resets == 0 && v.drops == 0 && v.wrong == 0 && v.rejected == 0 && v.refused == 0 && v.inexact == 0 && v.lacking == 0
}
