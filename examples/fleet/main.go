// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Fleet runs gateways, workers, a store and Prometheus as real processes, has things happen to them under load, and tells
// what became of every counter.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	var opt options
	var only string
	flag.StringVar(&only, "event", "", "run only these events, comma-separated: "+strings.Join(eventNames(), ", "))
	flag.BoolVar(&opt.peer, "peer", false, "also run contrib's load_balancing and delta_to_cumulative through each event")
	flag.BoolVar(&opt.alone, "alone", false, "also run workers of ours that do not share their state")
	flag.BoolVar(&opt.eject, "eject", false, "also run gateways of ours that eject workers which do not answer")
	flag.StringVar(&opt.stores, "store", onRedis.name, "where workers of ours share their state, comma-separated for one after the other: "+strings.Join(storeNames(), ", "))
	flag.BoolVar(&opt.cluster, "cluster", false, "a Redis Cluster of three nodes instead of one server")
	flag.StringVar(&opt.png, "png", "", "draw what happens to a counter in each event into this directory")
	flag.BoolVar(&opt.short, "short", false, "fewer streams for a shorter time")
	flag.BoolVar(&opt.parallel, "parallel", false, "several Collectors in parallel, plain ones and ours; -event names set-ups")
	flag.BoolVar(&opt.aggregate, "aggregate", false, "one series of many pods, by ours and by others; -event names ways, or way/event")
	flag.StringVar(&opt.logs, "logs", "", "keep the logs of all processes in this directory")
	flag.BoolVar(&opt.certify, "certify", false, "run the configurations of examples/otelcol into each backend, by each path, through each event, instead of all this")
	flag.StringVar(&opt.only, "only", "", "run only the rows of -certify whose name, backend/path/topology/event, matches this expression")
	flag.BoolVar(&opt.demo, "demo", false, "show the scale-out of two fleets, ours and contrib's, on a page in the browser")
	flag.StringVar(&opt.http, "http", "127.0.0.1:8080", "`host:port` of that page, on a loopback address")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	do := run
	switch {
	case opt.parallel:
		do = runParallel
	case opt.aggregate:
		do = runAggregate
	case opt.certify:
		do = certify
	case opt.demo:
		do = runDemo
	}
	if err := do(ctx, os.Stdout, opt, only); err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		stop()
		os.Exit(1)
	}
}

type options struct {
	peer, alone, cluster, short bool
	eject                       bool
	parallel, certify           bool
	aggregate                   bool
	png, logs, only, stores     string
	demo                        bool
	http                        string

	stage func(context.Context, side, moment) error // called in happen, unless nil
}

// moment is how far happen has come.
type moment struct {
	stage   stage
	fleet   *fleet
	load    *load
	verdict *verdict // once it is judged
}

type stage int

const (
	stageReady  stage = iota // the fleet runs and has no load yet
	stageEvent               // the event is about to happen
	stageAfter               // it has happened
	stageJudge               // all that was sent is settled
	stageJudged              // the verdict is there; the fleet is about to end
)

func (o options) reached(ctx context.Context, s side, m moment) error {
	if o.stage == nil {
		return nil
	}
	return o.stage(ctx, s, m)
}

var errFlawed = errors.New("not every column of ours is 0")

// run runs events and writes the table. It returns errFlawed if ours has anything but zeros in it.
func run(ctx context.Context, out io.Writer, opt options, only string) error {
	chosen, err := choose(only)
	if err != nil {
		return err
	}
	stores, err := opt.chosenStores()
	if err != nil {
		return err
	}
	if opt.png != "" {
		if err := os.MkdirAll(opt.png, 0o755); err != nil {
			return err
		}
	}
	var rows []row
	flawed := false
	built := collectors{}
	for _, e := range chosen {
		var verdicts []row
		for _, s := range opt.sides(e, stores) {
			binary, err := built.of(ctx, s)
			if err != nil {
				return err
			}
			v, err := opt.happen(ctx, e, s, binary)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", e.name, s.name, err)
			}
			r := row{e, s, v}
			fmt.Fprintln(os.Stderr, r.line())
			verdicts = append(verdicts, r)
			flawed = flawed || s.flawless && !v.flawless()
		}
		if opt.png != "" {
			if err := writeChart(filepath.Join(opt.png, e.name+".png"), verdicts); err != nil {
				return err
			}
		}
		rows = append(rows, verdicts...)
	}
	writeTable(out, rows)
	if flawed {
		return errFlawed
	}
	return nil
}

func (o options) chosenStores() ([]storeKind, error) {
	chosen, err := chooseStores(o.stores)
	for _, k := range chosen {
		if o.cluster && !k.cluster {
			return nil, fmt.Errorf("-cluster: there is none with -store %s", k.name)
		}
	}
	return chosen, err
}

func (o options) sides(e event, stores []storeKind) []side {
	var all []side
	for _, k := range stores {
		all = append(all, sharing.on(k))
		if o.cluster {
			all[len(all)-1].servers = 3
		}
		if o.eject {
			all = append(all, sharing.ejects().on(k))
		}
	}
	if o.alone && !e.store {
		all = append(all, alone)
	}
	if o.peer && !e.store {
		all = append(all, peer)
	}
	return all
}

// streams returns how many counters and histograms there are, and for how long they are watched before an event and after.
func (o options) streams() (counters, histograms int, before, after time.Duration) {
	switch {
	case o.demo && o.short:
		return 400, 8, 5 * time.Second, 8 * time.Second
	case o.demo: // two fleets at a time
		return 800, 16, 12 * time.Second, 20 * time.Second
	case o.short:
		return 800, 16, 5 * time.Second, 3 * time.Second
	}
	return 2400, 80, 10 * time.Second, 10 * time.Second
}

// happen starts a fleet and its load, has the event happen, and judges what is in Prometheus after everything has been
// acknowledged.
func (o options) happen(ctx context.Context, e event, s side, binary string) (*verdict, error) {
	dir, err := o.logDir(e, s)
	if err != nil {
		return nil, err
	}
	if o.logs == "" {
		defer os.RemoveAll(dir)
	}
	f, err := startFleet(ctx, s, binary, dir, e.gateways, e.workers)
	if err != nil {
		return nil, err
	}
	defer f.stop()
	counters, histograms, before, after := o.streams()
	l := newLoad(counters, histograms, &f.targets)
	defer l.close()
	if err := o.reached(ctx, s, moment{stageReady, f, l, nil}); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, before+after+4*patience)
	defer cancel()
	l.start(ctx)
	if err := pause(ctx, before); err != nil {
		return nil, err
	}

	if err := o.reached(ctx, s, moment{stageEvent, f, l, nil}); err != nil {
		return nil, err
	}
	v := &verdict{begin: time.Now()}
	f.recorder.watch()
	if err := e.run(ctx, f); err != nil {
		return nil, err
	}
	v.end = time.Now()
	if err := o.reached(ctx, s, moment{stageAfter, f, l, nil}); err != nil {
		return nil, err
	}
	if err := pause(ctx, after); err != nil {
		return nil, err
	}
	if err := poll(ctx, func() error {
		if d := l.behind(); d > 2*interval {
			return fmt.Errorf("a client waits for an answer since %v", d)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	v.stalest = f.recorder.unwatch()
	if err := l.finish(ctx); err != nil {
		return nil, err
	}
	if err := o.reached(ctx, s, moment{stageJudge, f, l, nil}); err != nil {
		return nil, err
	}

	v.truths, v.retries, v.refused = l.truths(), l.retries(), l.refused()
	if v.samples, err = f.prom.everything(); err != nil {
		return nil, err
	}
	v.rejected, v.excuse = f.recorder.refused()
	counted, err := f.prom.rejections()
	if err != nil {
		return nil, err
	}
	v.rejected = max(v.rejected, counted)
	v.judge()
	return v, o.reached(ctx, s, moment{stageJudged, f, l, v})
}

func (o options) logDir(e event, s side) (string, error) {
	if o.logs == "" {
		return os.MkdirTemp("", "fleet-")
	}
	dir, err := filepath.Abs(filepath.Join(o.logs, e.name, strings.ReplaceAll(s.name, " ", "-")))
	if err != nil {
		return "", err
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o755)
}

// collectors are the paths of what has been built.
type collectors map[build]string

// of returns the Collector of a side: $OTELCOL_BINARY for ours if it is set, or what the side's manifest builds.
func (c collectors) of(ctx context.Context, s side) (string, error) {
	if path := os.Getenv("OTELCOL_BINARY"); path != "" && s.build == buildOurs {
		return filepath.Abs(path)
	}
	if c[s.build] == "" {
		path, err := s.build.run(ctx)
		if err != nil {
			return "", err
		}
		c[s.build] = path
	}
	return c[s.build], nil
}

func eventNames() []string {
	var names []string
	for _, e := range events {
		names = append(names, e.name)
	}
	return names
}

// choose returns the named events, or all.
func choose(only string) ([]event, error) {
	if only == "" {
		return events, nil
	}
	var chosen []event
	for name := range strings.SplitSeq(only, ",") {
		found := false
		for _, e := range events {
			if e.name == name {
				chosen, found = append(chosen, e), true
			}
		}
		if !found {
			return nil, fmt.Errorf("-event: unknown %q; there are %s", name, strings.Join(eventNames(), ", "))
		}
	}
	return chosen, nil
}
