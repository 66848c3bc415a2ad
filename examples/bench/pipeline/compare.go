// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
)

const nameBare = "bare"

// result is what a row costs.
type result struct {
	Row    string `json:"row"`
	Title  string `json:"title"`
	Kind   kind   `json:"kind"`
	Series int    `json:"series"`

	// CPU seconds per million points, user and system, at the rate of the report.
	CPU   map[role]float64 `json:"cpu"`
	Total float64          `json:"cpu_total"`
	Bare  float64          `json:"cpu_bare"` // of the bare Collector in the turns between

	Resident map[role]int64 `json:"resident_bytes"` // at the end

	PointsPerSecond float64       `json:"points_per_second"` // as fast as they are answered
	P50             time.Duration `json:"p50_ns"`            // of a batch, at half of that
	P99             time.Duration `json:"p99_ns"`

	Points  int    `json:"points"`  // sent in all
	Retries int64  `json:"retries"` // requests that were sent again
	Faults  faults `json:"faults"`
}

// comparison measures all rows with one kind and number of series.
type comparison struct {
	settings
	binaries
	dir    string
	kind   kind
	series int
}

// trial is a site with its load.
type trial struct {
	*site
	load   *load
	ledger *ledger
	points int
}

// run measures row after row, each by turns with the first, which stays.
func (c *comparison) run(ctx context.Context, done func(result), skipped func(row, unknown)) error {
	bare, err := c.begin(ctx, c.rows[0])
	if err != nil {
		return err
	}
	defer bare.abandon()
	for i, r := range c.rows {
		if i == 0 {
			res, err := c.measure(ctx, bare, nil)
			if err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
			res.Faults, res.Points = bare.ledger.verdict(), bare.points
			done(res)
			continue
		}
		t, err := c.begin(ctx, r)
		var lacks unknown
		if errors.As(err, &lacks) {
			skipped(r, lacks)
			continue
		}
		if err != nil {
			return err
		}
		res, err := c.measure(ctx, t, bare)
		if err == nil {
			err = t.stop()
		}
		t.abandon()
		if err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		res.Faults, res.Points = t.ledger.verdict(), t.points
		done(res)
	}
	return nil
}

// begin starts a row, and sends a first round of every series.
func (c *comparison) begin(ctx context.Context, r row) (*trial, error) {
	dir := filepath.Join(c.dir, r.name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	t := &trial{ledger: newLedger(c.kind, c.series, r.Delta)}
	var err error
	if t.site, err = startSite(ctx, r, c.binaries, dir, c.compression, t.ledger); err != nil {
		return nil, err
	}
	t.ledger.begin = pcommon.NewTimestampFromTime(time.Now().Truncate(time.Millisecond))
	if t.load, err = newLoad(t.ledger, c.senders, t.addresses, c.compression); err != nil {
		t.kill()
		return nil, err
	}
	if _, err := t.run(ctx, pace{}); err != nil {
		t.abandon()
		return nil, fmt.Errorf("%s: %w", r.name, err)
	}
	return t, nil
}

func (t *trial) run(ctx context.Context, p pace) (sending, error) {
	s, err := t.load.run(ctx, p)
	t.points += s.points
	return s, err
}

func (t *trial) abandon() {
	t.load.close()
	t.kill()
}

// spent is what a trial's processes have used for so many points.
type spent struct {
	cpu    map[role]time.Duration
	points int
}

// turn sends for a while, at a rate.
func (t *trial) turn(ctx context.Context, p pace, to *spent) error {
	before, err := t.usage()
	if err != nil {
		return err
	}
	s, err := t.run(ctx, p)
	if err != nil {
		return err
	}
	after, err := t.usage()
	if err != nil {
		return err
	}
	for as, u := range after {
		to.cpu[as] += u.CPU - before[as].CPU
	}
	to.points += s.points
	return nil
}

// perMillion is in seconds.
func (s spent) perMillion(as role) float64 { return s.cpu[as].Seconds() / float64(s.points) * 1e6 }

// measure measures t, by turns with other if there is one.
func (c *comparison) measure(ctx context.Context, t, other *trial) (result, error) {
	res := result{Row: t.row.name, Title: t.row.Title, Kind: c.kind, Series: c.series, CPU: map[role]float64{}, Resident: map[role]int64{}}
	own, others := spent{cpu: map[role]time.Duration{}}, spent{cpu: map[role]time.Duration{}}
	steady := pace{rate: c.rate, until: c.turn}
	for i := range c.turns {
		if other != nil && i%2 == 0 { // before and after in turn, so that no drift is always for the one
			if err := other.turn(ctx, steady, &others); err != nil {
				return res, err
			}
		}
		if err := t.turn(ctx, steady, &own); err != nil {
			return res, err
		}
		if other != nil && i%2 == 1 {
			if err := other.turn(ctx, steady, &others); err != nil {
				return res, err
			}
		}
	}
	for as := range own.cpu {
		res.CPU[as] = own.perMillion(as)
		res.Total += res.CPU[as]
	}
	res.Bare = res.Total
	if other != nil {
		res.Bare = others.perMillion(roleWorker)
	}
	s, err := t.run(ctx, pace{until: c.turn})
	if err != nil {
		return res, err
	}
	res.PointsPerSecond = float64(s.points) / s.took.Seconds()
	half, err := t.run(ctx, pace{rate: res.PointsPerSecond / 2, until: c.turn})
	if err != nil {
		return res, err
	}
	res.P50, res.P99 = quantile(half.latencies, 0.5), quantile(half.latencies, 0.99)
	if c.profile != "" {
		if err := c.profiles(ctx, t, steady); err != nil {
			return res, err
		}
	}
	now, err := t.usage()
	if err != nil {
		return res, err
	}
	for as, u := range now {
		res.Resident[as] = u.Resident
	}
	res.Retries = t.load.retries.Load()
	return res, nil
}

// profiles takes a CPU profile of each Collector in one more turn.
func (c *comparison) profiles(ctx context.Context, t *trial, p pace) error {
	if err := os.MkdirAll(c.profile, 0o755); err != nil {
		return err
	}
	seconds := max(1, int(p.until.Seconds()))
	p.until = time.Duration(seconds)*time.Second + time.Second // longer than the profiles
	errs := make([]error, len(t.profiles))
	var all sync.WaitGroup
	for i, p := range t.profiles {
		file := filepath.Join(c.profile, fmt.Sprintf("%s-%s-%d-%s.pprof", t.row.name, c.kind, c.series, p.name))
		all.Go(func() { errs[i] = download(ctx, fmt.Sprintf("%s?seconds=%d", p.profile, seconds), file) })
	}
	_, err := t.run(ctx, p)
	all.Wait()
	return errors.Join(append(errs, err)...)
}

func download(ctx context.Context, url, file string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s: %s", url, resp.Status, body)
	}
	return os.WriteFile(file, body, 0o644)
}
