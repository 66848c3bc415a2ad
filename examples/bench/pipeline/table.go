// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strconv"
	"time"
)

// heading writes what comes before the rows of a table in Markdown.
func heading(w io.Writer, k kind, series int, s settings) {
	fmt.Fprintf(w, "\n%s, %s series; CPU seconds per million points at %s points/s\n\n", k, size(series), size(int(s.rate)))
	fmt.Fprintln(w, "| | gateways | workers | server | all | of bare | MB | points/s | p50 | p99 | wrong series |")
	fmt.Fprintln(w, "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
}

// write writes a row.
func (r result) write(w io.Writer) {
	cpu := func(as role) string {
		if v, ok := r.CPU[as]; ok {
			return fmt.Sprintf("%.2f", v)
		}
		return ""
	}
	var resident int64
	for _, bytes := range r.Resident {
		resident += bytes
	}
	wrong := strconv.Itoa(r.Faults.Series)
	if r.Faults.Strangers > 0 {
		wrong += fmt.Sprintf(", and %d samples of none", r.Faults.Strangers)
	}
	fmt.Fprintf(w, "| %s | %s | %s | %s | %.2f | %.2fx | %d | %dk | %s | %s | %s |\n", r.Title, cpu(roleGateway), cpu(roleWorker), cpu(roleServer), r.Total,
		r.Total/r.Bare, resident>>20, int(r.PointsPerSecond/1000), milliseconds(r.P50), milliseconds(r.P99), wrong)
}

func milliseconds(d time.Duration) string { return fmt.Sprintf("%.1f ms", d.Seconds()*1000) }

// size writes a number the way the flags read it.
func size(n int) string {
	switch {
	case n >= 1_000_000 && n%1_000_000 == 0:
		return strconv.Itoa(n/1_000_000) + "M"
	case n >= 1_000 && n%1_000 == 0:
		return strconv.Itoa(n/1_000) + "k"
	}
	return strconv.Itoa(n)
}
