// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
)

// row is what one event did to one side.
type row struct {
	event event
	side  side
	*verdict
}

func writeTable(out io.Writer, rows []row) {
	if len(rows) == 0 {
		return
	}
	fmt.Fprintln(out, "| event | side | resets | value drops | wrong totals | rejected samples | longest without a fresh sample | client retries |")
	fmt.Fprintln(out, "|---|---|---:|---:|---:|---:|---:|---:|")
	for _, r := range rows {
		retries := fmt.Sprint(r.retries)
		if r.refused > 0 {
			retries += fmt.Sprintf(", %d refused", r.refused)
		}
		fmt.Fprintf(out, "| %s | %s | %d | %d | %d | %d | %.1f s | %s |\n",
			r.event.title, r.side.name, r.resets, r.drops, r.wrong, r.rejected, r.stalest.Seconds(), retries)
	}
	fmt.Fprintf(out, "\n%d series.\n", rows[0].series)
}

// line tells it all, for a reader who waits.
func (r row) line() string {
	s := fmt.Sprintf("%s, %s: %d resets, %d drops, %d of %d totals wrong, %d samples inexact, %d lacking, %d rejected, %.2f s without a fresh sample, %d retries, %d refused, event took %.1f s",
		r.event.name, r.side.name, r.resets, r.drops, r.wrong, r.series, r.inexact, r.lacking, r.rejected, r.stalest.Seconds(), r.retries, r.refused, r.end.Sub(r.begin).Seconds())
	if r.example != "" {
		s += "; " + r.example
	}
	if r.excuse != "" {
		s += "; " + strings.TrimSpace(r.excuse)
	}
	return s
}
