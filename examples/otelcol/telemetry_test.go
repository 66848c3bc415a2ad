// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"fmt"
	"strconv"
	"strings"
)

// telemetry is what a process says about itself in the Prometheus text format: values by name and labels as written.
type telemetry map[string]float64

func scrape(url string) (telemetry, error) {
	body, err := get(url)
	if err != nil {
		return nil, err
	}
	m := telemetry{}
	for line := range strings.Lines(string(body)) {
		line = strings.TrimSpace(line)
		end := strings.LastIndexByte(line, ' ')
		if end < 0 || line[0] == '#' {
			continue
		}
		if m[line[:end]], err = strconv.ParseFloat(line[end+1:], 64); err != nil {
			return nil, fmt.Errorf("%s: %q: %w", url, line, err)
		}
	}
	return m, nil
}

// sum adds the series of a name whose labels contain every given fragment, for instance `code="400"`.
func (m telemetry) sum(name string, fragments ...string) float64 {
	var total float64
series:
	for series, v := range m {
		metric, labels, _ := strings.Cut(series, "{")
		if metric != name {
			continue
		}
		for _, f := range fragments {
			if !strings.Contains(labels, f) {
				continue series
			}
		}
		total += v
	}
	return total
}

// has reports whether any series of that name exists.
func (m telemetry) has(name string) bool {
	for series := range m {
		if metric, _, _ := strings.Cut(series, "{"); metric == name {
			return true
		}
	}
	return false
}
