// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// route is a way into a backend.
type route struct {
	name, title string
	backend     backend
	write       bool     // remote write; else OTLP
	args        []string // of the Collectors
	flags       []string // of the backend
	starts      bool     // increase() counts the first sample of a series
	few         bool     // differs by start timestamps only, which is not seen better in all topologies and events
	futile      string   // why nothing arrives, if that is how it is
	control     bool     // is wrong on purpose, to see whether anybody notices
}

// Remote write 2 is behind a gate of the Collector.
var write2 = []string{"--config", filepath.Join(shippedDir, "remote-write-2.yaml"),
	"--feature-gates=exporter.prometheusremotewritexporter.enableSendingRW2"}

const (
	zeroInjection = "--enable-feature=created-timestamp-zero-ingestion"
	keptStarts    = "--enable-feature=st-storage,use-start-timestamps"
)

var routes = []route{
	{name: "write", title: "remote write 1", backend: prometheus2, write: true},
	{name: "write", title: "remote write 1", backend: prometheus3, write: true},
	{name: "write2", title: "remote write 2", backend: prometheus3, write: true, args: write2},
	{name: "otlp", title: "OTLP", backend: prometheus3},
	{name: "write", title: "remote write 1", backend: victoriaMetrics, write: true, starts: true},
	{name: "otlp", title: "OTLP", backend: victoriaMetrics, starts: true},

	{name: "write2-zeros", title: "remote write 2, zeros at starts", backend: prometheus3, write: true, args: write2, flags: []string{zeroInjection}, starts: true, few: true},
	{name: "otlp-zeros", title: "OTLP, zeros at starts", backend: prometheus3, flags: []string{zeroInjection}, starts: true, few: true},
	{name: "write2-starts", title: "remote write 2, start timestamps", backend: prometheus3, write: true, args: write2, flags: []string{keptStarts}, starts: true, few: true},
	{name: "otlp-starts", title: "OTLP, start timestamps", backend: prometheus3, flags: []string{keptStarts}, starts: true, few: true},
	{name: "otlp-control", title: "OTLP, against the rules: a queue behind lanes", backend: prometheus3, few: true, control: true,
		args: []string{"--config", "yaml:exporters::otlp_http::sending_queue::enabled: true"}},
	{name: "write2", title: "remote write 2", backend: victoriaMetrics, write: true, args: write2, few: true,
		futile: "the backend answers that it has taken all, and throws it away"},
}

// trial is one row: a way into a backend, from a topology, through an event.
type trial struct {
	route    route
	topology topology
	event    happening
}

func (t trial) name() string {
	return strings.Join([]string{t.route.backend.name, t.route.name, t.topology.name, t.event.name}, "/")
}

// trials are all there are, those of a backend together.
func trials() []trial {
	var all []trial
	for _, r := range routes {
		for _, top := range topologies {
			for _, e := range top.events {
				if t := (trial{r, top, e}); !r.few || slices.Contains(fewOf(r), top.name+"/"+e.name) {
					all = append(all, t)
				}
			}
		}
	}
	return all
}

func fewOf(r route) []string {
	switch {
	case r.futile != "":
		return []string{"one-node/quiet"}
	case r.control:
		return []string{"one-node/slow"}
	}
	return []string{"one-node/quiet", "two-tiers/scale-out"}
}

// telling are the trials of the short form: each way into each backend, each topology, and the events that are hardest.
var telling = []string{
	"prometheus-2/write/two-tiers/slow-roll",
	"prometheus-2/write/shared/kill",
	"prometheus-3/write/one-node/backend-restart",
	"prometheus-3/write2/two-tiers/slow-roll",
	"prometheus-3/otlp/one-node/slow",
	"prometheus-3/otlp/two-tiers/slow-roll",
	"prometheus-3/otlp/shared/slow-roll",
	"victoriametrics/write/one-node/kill",
	"victoriametrics/otlp/two-tiers/slow-roll",
	"prometheus-3/otlp-zeros/one-node/quiet",
	"prometheus-3/otlp-control/one-node/slow",
}

func chooseTrials(only string, short bool) ([]trial, error) {
	expression, err := regexp.Compile(only)
	if err != nil {
		return nil, fmt.Errorf("-only: %w", err)
	}
	all := slices.DeleteFunc(trials(), func(t trial) bool {
		return !expression.MatchString(t.name()) || short && !slices.Contains(telling, t.name())
	})
	if len(all) == 0 {
		return nil, fmt.Errorf("-only: no row is %q", only)
	}
	return all, nil
}

var errNotClean = errors.New("not every row is clean")

// certify runs trials, one after the other, and writes the table. It returns errNotClean if ours is at fault in any.
func certify(ctx context.Context, out io.Writer, opt options, _ string) error {
	chosen, err := chooseTrials(opt.only, opt.short)
	if err != nil {
		return err
	}
	binary, err := shippedBinary(ctx)
	if err != nil {
		return err
	}
	var certificates []*certificate
	clean := true
	for n, t := range chosen {
		c, err := opt.try(ctx, t, binary)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			c = &certificate{trial: t, err: err}
		}
		fmt.Fprintf(os.Stderr, "%d of %d: %s\n", n+1, len(chosen), c.line())
		certificates = append(certificates, c)
		clean = clean && len(c.faults()) == 0
	}
	writeSummary(out, certificates)
	fmt.Fprintln(out)
	writeCertificates(out, certificates)
	fmt.Fprintln(out)
	for _, b := range []backend{prometheus2, prometheus3, victoriaMetrics} {
		if release, err := b.release(); err == nil && slices.ContainsFunc(chosen, func(t trial) bool { return t.route.backend.name == b.name }) {
			fmt.Fprintf(out, "- %s: %s\n", b.title, release)
		}
	}
	if !clean {
		return errNotClean
	}
	return nil
}

// shippedBinary builds the Collector of the shipped manifest, or takes $OTELCOL_BINARY. Go's cache knows what is stale.
func shippedBinary(ctx context.Context) (string, error) {
	if path := os.Getenv("OTELCOL_BINARY"); path != "" {
		return filepath.Abs(path)
	}
	cmd := exec.CommandContext(ctx, "go", "run", buildOurs.builder, "--config", "manifest.yaml")
	cmd.Dir = shippedDir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%v: %w\n%s", cmd, err, out)
	}
	return filepath.Abs(filepath.Join(shippedDir, "build", "otelcol-deltaring"))
}

const (
	beforeEvent = 3 * time.Second
	afterEvent  = 2 * time.Second
	// settling is how long samples may take from their acknowledgement to the backend when all is well again: gateways and lanes wait
	// up to 10 s before they try once more.
	settling = 20 * time.Second
)

// try runs one trial.
func (o options) try(ctx context.Context, t trial, binary string) (*certificate, error) {
	dir, err := o.trialDir(t)
	if err != nil {
		return nil, err
	}
	if o.logs == "" {
		defer os.RemoveAll(dir)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	s, err := startSite(ctx, t.topology, t.route, dir, binary)
	if err != nil {
		return nil, err
	}
	defer s.stop()

	l := newLoad(6*agents, 2*agents, &s.targets)
	defer l.close()
	for _, a := range l.agents {
		a.more = further
	}
	l.start(ctx)
	if err := pause(ctx, beforeEvent); err != nil {
		return nil, err
	}
	if err := t.event.run(ctx, s); err != nil {
		return nil, err
	}
	if err := pause(ctx, afterEvent); err != nil {
		return nil, err
	}
	s.gate.slow.Store(false) // or clients that wait for each answer never catch up
	if err := poll(ctx, func() error {
		if d := l.behind(); d > 2*interval {
			return fmt.Errorf("a client waits for an answer since %v", d)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	if err := l.finish(ctx); err != nil {
		return nil, err
	}
	return s.certificate(ctx, t, l)
}

func (o options) trialDir(t trial) (string, error) {
	if o.logs == "" {
		return os.MkdirTemp("", "fleet-")
	}
	dir, err := filepath.Abs(filepath.Join(o.logs, filepath.FromSlash(t.name())))
	if err != nil {
		return "", err
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o755)
}

// certificate reads what the backend has when everything is there, and judges.
func (s *site) certificate(ctx context.Context, t trial, l *load) (*certificate, error) {
	c := &certificate{trial: t, retries: l.retries(), refusedClients: l.refused()}
	expectations := l.expectations()
	patience := settling
	if t.route.futile != "" {
		patience = 3 * time.Second
	}
	var has map[seriesKey][]sample
	for deadline := time.Now().Add(patience); ; {
		var err error
		if has, err = s.db.everything(); err != nil {
			return nil, err
		}
		if complete(expectations, has) || time.Now().After(deadline) {
			break
		}
		if err := pause(ctx, 300*time.Millisecond); err != nil {
			return nil, err
		}
	}

	r := rules{lives: t.event.restarts && !t.topology.shared, zeros: slices.Contains(t.route.flags, zeroInjection), unseen: t.route.backend.unseen}
	if !t.topology.shared && !s.killed.IsZero() {
		if t.topology.gateways == 0 { // the queues of a healthy Collector are flushed after 0.1 s
			r.excused = around(s.killed, time.Second)
		} else { // gateways send again what was not answered
			r.twice = around(s.killed, time.Second)
		}
	}
	missed := c.balance(expectations, has, r)
	if err := c.increases(s.db, expectations, missed); err != nil {
		return nil, err
	}
	for _, w := range s.workers {
		if err := s.harvest(w); err != nil {
			return nil, err
		}
	}
	for series, v := range s.lanes {
		if v > 0 && strings.HasPrefix(series, "otelcol_lanes_refused") {
			c.excuse = series
		}
	}
	c.lanes = int(s.lanes.sum("otelcol_lanes_items", `outcome="refused"`) + s.lanes.sum("otelcol_lanes_items", `outcome="failed"`))
	c.late = int(s.lanes.sum("otelcol_lanes_items", `outcome="late"`))
	if s.lanes.sum("otelcol_lanes_items", `outcome="sent"`) == 0 {
		return nil, errors.New("lanes report nothing that they have sent")
	}
	requests, excuse := s.gate.refusals()
	c.requests = requests
	if requests > 0 {
		c.excuse = excuse
	}
	var err error
	c.samplesRefused, err = s.db.rejections()
	return c, err
}
