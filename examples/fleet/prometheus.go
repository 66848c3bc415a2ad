// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"strconv"
	"strings"
)

// prometheus is a running Prometheus that takes samples in order only: its out-of-order window is the default, 0.
type prometheus struct{ *database }

func startPrometheus(ctx context.Context, dir string, release backend) (*prometheus, error) {
	d, err := startDatabase(ctx, release, dir)
	if err != nil {
		return nil, err
	}
	return &prometheus{d}, nil
}

func (p *prometheus) writeURL() string { return p.url + p.write }

// sample is a value of a series at a time.
type sample struct {
	ms    int64 // Unix time
	value float64
}

// number is a float64 that may be in quotes, as values in the query API are.
type number float64

// UnmarshalJSON implements json.Unmarshaler.
func (n *number) UnmarshalJSON(data []byte) error {
	f, err := strconv.ParseFloat(strings.Trim(string(data), `"`), 64)
	*n = number(f)
	return err
}

// unacceptable are the places where Prometheus counts samples it does not take.
var unacceptable = []string{
	"prometheus_tsdb_out_of_order_samples_total",
	"prometheus_tsdb_out_of_bound_samples_total",
	"prometheus_tsdb_too_old_samples_total",
	"prometheus_target_scrapes_sample_duplicate_timestamp_total",
}
