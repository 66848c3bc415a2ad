// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// sum is what a backend has of a deployment.
type sum struct {
	way    way
	mishap mishap

	requests, retries, repeats, refused int
	rejected                            int // requests, by the backend
	excuse                              string
	outcomes                            map[string]float64 // of points, where d2c tells

	expected, counted float64 // by all counters
	increase          float64 // of them, as the backend evaluates it
	series            int
	resets            int     // falls of a value
	wrong, want       int     // series, of all there have to be
	unseen            float64 // first samples of counters, which increase() does not see where no zero came before
	example           string
}

// judge compares the samples of a backend with what each series has to come to. The first value of a series counts, as if there had
// been a zero before it, and so does a value after a fall.
func (s *sum) judge(expected map[seriesKey]int64, stored map[seriesKey][]sample) {
	s.want = len(expected)
	for key, samples := range stored {
		s.series++
		if _, known := expected[key]; !known {
			s.wrong++
			s.example = fmt.Sprintf("%+v is a series that nobody expects", key)
		}
		if key.name == counterSeries {
			s.unseen += samples[0].value
		}
		_, falls := counted(samples)
		s.resets += falls
	}
	for key, want := range expected {
		got, _ := counted(stored[key])
		if key.name == counterSeries {
			s.expected += float64(want)
			s.counted += got
		}
		if got != float64(want) {
			s.wrong++
			s.example = fmt.Sprintf("%+v is %.0f, want %d", key, got, want)
		}
	}
}

func counted(samples []sample) (total float64, falls int) {
	last := 0.0
	for _, v := range samples {
		if v.value >= last {
			total += v.value - last
		} else {
			total += v.value
			falls++
		}
		last = v.value
	}
	return total, falls
}

// flawless is what ours has to be.
func (s *sum) flawless() bool {
	return s.wrong == 0 && s.resets == 0 && s.rejected == 0 && s.refused == 0 && s.series == s.want && s.increase+s.unseen == s.expected
}

// sum reads what the backend has.
func (s *site) sum(ctx context.Context, m mishap, d *deployment) (*sum, error) {
	v := &sum{way: s.way, mishap: m, requests: d.requests, retries: d.retries, repeats: d.repeats, refused: d.refused, outcomes: map[string]float64{}}
	v.rejected, v.excuse = s.gate.refusals()
	if s.way.ours {
		for _, w := range s.workers {
			m, err := scrape(s.telemetry[w])
			if err != nil {
				return nil, err
			}
			for series, n := range m {
				if strings.HasPrefix(series, "otelcol_d2c_points{") || strings.HasPrefix(series, "otelcol_lanes_items{") {
					_, of, _ := strings.Cut(series, `outcome="`)
					of, _, _ = strings.Cut(of, `"`)
					if strings.HasPrefix(series, "otelcol_lanes") {
						of = "lanes " + of
					}
					v.outcomes[of] += n
				}
			}
		}
	}
	stored, err := s.db.everything()
	if err != nil {
		return nil, err
	}
	v.judge(d.expected(), stored)
	selector := counterSeries + "[10m]"
	if s.db.backend.name == prometheus3.name {
		selector += " anchored" // or it is extrapolated
	}
	// The time of a total is later than that of any before, and may be ahead of the clock by some milliseconds.
	results, err := s.db.query("sum(increase("+selector+"))", time.Now().Add(5*time.Second))
	if err != nil {
		return nil, err
	}
	if len(results) == 1 && results[0].Value != nil {
		v.increase = float64(results[0].Value[1])
	}
	return v, ctx.Err()
}

func share(counted, expected float64) string {
	switch {
	case expected == 0:
		return ""
	case counted == expected:
		return "100, exact"
	}
	return fmt.Sprintf("%.2f", 100*counted/expected)
}

func writeSums(out io.Writer, sums []*sum) {
	fmt.Fprintln(out, "| way | event | counted / acknowledged, % | `increase()`, % | resets | series wrong | series | requests rejected |")
	fmt.Fprintln(out, "|---|---|---:|---:|---:|---:|---:|---:|")
	for _, s := range sums {
		title := s.way.title
		if s.way.ours {
			title = "**" + title + "**"
		}
		fmt.Fprintf(out, "| %s | %s | %s | %s | %d | %d of %d | %d | %d |\n", title, s.mishap.title, share(s.counted, s.expected), share(s.increase, s.expected),
			s.resets, s.wrong, s.want, s.series, s.rejected)
	}
}

// line tells it all, for a reader who waits.
func (s *sum) line() string {
	line := fmt.Sprintf("%s/%s: %.0f counted of %.0f, increase %.0f; %d resets; %d of %d series wrong, %d there, %.0f unseen in first samples; %d requests, %d retries, %d sent once more, %d refused, %d rejected by the backend",
		s.way.name, s.mishap.name, s.counted, s.expected, s.increase, s.resets, s.wrong, s.want, s.series, s.unseen, s.requests, s.retries, s.repeats, s.refused, s.rejected)
	var outcomes []string
	for name, n := range s.outcomes {
		if n > 0 {
			outcomes = append(outcomes, fmt.Sprintf("%s %.0f", name, n))
		}
	}
	slices.Sort(outcomes)
	if len(outcomes) > 0 {
		line += "; " + strings.Join(outcomes, ", ")
	}
	for _, more := range []string{s.example, strings.TrimSpace(s.excuse)} {
		if more != "" {
			line += "; " + more
		}
	}
	return line
}
