// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/deltaring/deltaring/internal/ports"
)

// buildParallel is the Collector of all set-ups, plain ones and ours.
var buildParallel = build{"go.opentelemetry.io/collector/cmd/builder@v0.165.0", "parallel-manifest.yaml", "build/parallel/otelcol-parallel"}

const (
	parallelClients  = 9
	parallelInterval = 500 * time.Millisecond
	// overtaking is for how long a request of a client is on its way at most, where requests overtake one another.
	overtaking = time.Second
	// inFlight is how many requests a client has unanswered at most, if it has several.
	inFlight = 8
)

// latency is that of the backend: a request takes as long as any between these.
type latency struct{ from, to time.Duration }

func (l latency) String() string {
	return fmt.Sprintf("%d to %d ms", l.from.Milliseconds(), l.to.Milliseconds())
}

var (
	near = latency{20 * time.Millisecond, 600 * time.Millisecond}
	// far is so slow that requests which are sent one interval after the other are under way at the same time.
	far = latency{50 * time.Millisecond, 1500 * time.Millisecond}
)

// setup is one way to have Collectors between clients and a backend. Clients send to the fronts: each request to another.
type setup struct {
	name, title string
	ours        bool
	fronts      int
	front       []string // configuration files
	workers     int      // behind the fronts
	worker      []string

	latency  latency
	scrape   bool // a Collector scrapes, instead of clients that send
	stay     bool // a client sends to one front, instead of to any of them
	several  bool // clients have several requests under way
	overtake bool // which overtake one another on the way to the fronts
	roll     bool // a worker, or a front if there are none, is stopped and started in the middle of the run
	// forgets has late samples of before the roll come to a worker that does not know any more what it has sent. The backend may
	// reject those, but nothing else.
	forgets bool
}

func files(names ...string) []string {
	all := []string{"parallel-base.yaml"}
	for _, name := range names {
		all = append(all, "parallel-"+name+".yaml")
	}
	return all
}

var setups = []setup{
	{name: "target-info", title: "3 plain: `batch`, default queue, `target_info`", latency: near, fronts: 3, front: files("plain", "batch", "target-info")},
	{name: "batch", title: "3 plain: `batch`, default queue", latency: near, fronts: 3, front: files("plain", "batch")},
	{name: "batch-roll", title: "3 plain: `batch`, default queue; one is rolled", latency: near, fronts: 3, front: files("plain", "batch"), roll: true},
	{name: "queue", title: "3 plain: default queue", latency: near, fronts: 3, front: files("plain")},
	{name: "scrape", title: "scraped; 3 plain: default queue", latency: near, fronts: 3, front: files("plain"), scrape: true},
	{name: "pod", title: "3 plain: `batch`, default queue, a label of its own for each", latency: near, fronts: 3, front: files("plain", "batch", "pod")},
	{name: "otlp", title: "1 plain: OTLP, default queue", latency: far, fronts: 1, front: files("otlp")},
	{name: "stay", title: "3 plain: default queue; each client stays at its Collector", latency: near, fronts: 3, front: files("plain"), stay: true},
	{name: "sync-several", title: "3 plain: no queue; clients do not wait", latency: far, fronts: 3, front: files("plain", "sync"), several: true},
	{name: "sync", title: "3 plain: no queue; one is rolled", latency: near, fronts: 3, front: files("plain", "sync"), roll: true},

	{name: "lanes-wait", title: "3 gateways, 3 workers: `lanes`; a worker is rolled", ours: true, latency: near,
		fronts: 3, front: files("gateway"), workers: 3, worker: files("lanes"), roll: true},
	{name: "lanes", title: "3 gateways, 3 workers: `lanes`; clients do not wait; a worker is rolled", ours: true, latency: near,
		fronts: 3, front: files("gateway"), workers: 3, worker: files("lanes"), several: true, roll: true},
	{name: "lanes-overtake", title: "3 gateways, 3 workers: `lanes`; clients do not wait, their requests overtake one another", ours: true, latency: far,
		fronts: 3, front: files("gateway"), workers: 3, worker: files("lanes"), several: true, overtake: true},
	{name: "lanes-forget", title: "the same; a worker is rolled", ours: true, latency: far,
		fronts: 3, front: files("gateway"), workers: 3, worker: files("lanes"), several: true, overtake: true, roll: true, forgets: true},
	{name: "lanes-queue", title: "3 gateways, 3 workers: `lanes` with queues; clients do not wait; a worker is rolled", ours: true, latency: near,
		fronts: 3, front: files("gateway"), workers: 3, worker: files("lanes", "queue"), several: true, roll: true},
	{name: "lanes-scrape", title: "scraped; 3 gateways, 3 workers: `lanes`", ours: true, latency: near,
		fronts: 3, front: files("gateway"), workers: 3, worker: files("lanes"), scrape: true},
	{name: "lanes-otlp", title: "1 with `lanes`: OTLP; clients do not wait", ours: true, latency: far,
		fronts: 1, front: files("lanes-otlp"), several: true},
}

func setupNames() []string {
	var names []string
	for _, s := range setups {
		names = append(names, s.name)
	}
	return names
}

// chooseSetups returns the named ones, or all.
func chooseSetups(only string) ([]setup, error) {
	if only == "" {
		return setups, nil
	}
	var chosen []setup
	for name := range strings.SplitSeq(only, ",") {
		found := false
		for _, s := range setups {
			if s.name == name {
				chosen, found = append(chosen, s), true
			}
		}
		if !found {
			return nil, fmt.Errorf("-event: unknown %q; with -parallel there are %s", name, strings.Join(setupNames(), ", "))
		}
	}
	return chosen, nil
}

// runParallel runs set-ups, one after the other, and writes the table. It returns errFlawed if one of ours loses anything.
func runParallel(ctx context.Context, out io.Writer, opt options, only string) error {
	chosen, err := chooseSetups(only)
	if err != nil {
		return err
	}
	binary, err := buildParallel.run(ctx)
	if err != nil {
		return err
	}
	var results []*result
	flawed := false
	for _, s := range chosen {
		r, err := opt.inParallel(ctx, s, binary)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Fprintln(os.Stderr, r.line())
		results = append(results, r)
		flawed = flawed || s.ours && !r.flawless()
	}
	writeResults(out, results)
	if flawed {
		return errFlawed
	}
	return nil
}

// inParallel runs one set-up under load, and judges what the backend has when all is settled.
func (o options) inParallel(ctx context.Context, s setup, binary string) (*result, error) {
	dir, err := o.logDir(event{name: "parallel"}, side{name: s.name})
	if err != nil {
		return nil, err
	}
	if o.logs == "" {
		defer os.RemoveAll(dir)
	}
	ctx, cancel := context.WithTimeout(ctx, 3*patience)
	defer cancel()
	p := &parallel{setup: s, fleet: &fleet{binary: binary, dir: dir}}
	defer p.kill()
	if err := p.start(ctx); err != nil {
		return nil, err
	}
	half := 10 * time.Second
	if o.short {
		half = 3 * time.Second
	}
	if err := pause(ctx, half); err != nil {
		return nil, err
	}
	if s.roll {
		if err := roll(ctx, p.rolled()); err != nil {
			return nil, err
		}
	}
	if err := pause(ctx, half); err != nil {
		return nil, err
	}
	if err := p.finish(ctx); err != nil {
		return nil, err
	}
	return p.result()
}

// parallel is a set-up that runs.
type parallel struct {
	setup
	fleet *fleet // makes Collectors

	prom      *prometheus
	backend   *slowBackend // in front of prom
	telemetry *telemetry
	fronts    []*collector
	workers   []*collector
	clients   *clients // that send, or
	targets   *targetServer
	balancer  *balancer
	scraper   *collector
}

func (p *parallel) start(ctx context.Context) (err error) {
	if p.prom, err = startPrometheus(ctx, p.fleet.dir, prometheus3); err != nil {
		return err
	}
	if p.backend, err = newSlowBackend(p.prom.url, p.latency); err != nil {
		return err
	}
	if p.telemetry, err = newTelemetry(); err != nil {
		return err
	}
	var members, https []string
	for i := range p.setup.workers {
		c, _, err := p.launch(ctx, workerName(i), p.worker)
		if err != nil {
			return err
		}
		p.workers = append(p.workers, c)
		members = append(members, fmt.Sprintf("{name: %s, endpoint: %q}", c.name, c.address))
	}
	var addresses []string
	for i := range p.setup.fronts {
		c, http, err := p.launch(ctx, fmt.Sprintf("front-%d", i), p.front, "WORKERS=["+strings.Join(members, ", ")+"]")
		if err != nil {
			return err
		}
		p.fronts = append(p.fronts, c)
		addresses, https = append(addresses, c.address), append(https, http)
	}
	if !p.scrape {
		p.clients, err = startClients(ctx, p.setup, addresses)
		return err
	}
	if p.targets, err = newTargetServer(); err != nil {
		return err
	}
	if p.balancer, err = newBalancer(https); err != nil {
		return err
	}
	p.scraper, _, err = p.launch(ctx, "scraper", files("scrape"), "SCRAPE_TARGET="+p.targets.address, "BALANCER_URL="+p.balancer.url)
	if err != nil {
		return err
	}
	return poll(ctx, p.targets.scraped) // which takes the receiver some seconds
}

// launch starts a Collector and returns where it takes OTLP over HTTP, too.
func (p *parallel) launch(ctx context.Context, name string, files []string, env ...string) (*collector, string, error) {
	port, err := ports.Free()
	if err != nil {
		return nil, "", err
	}
	env = append(env, "COLLECTOR_NAME="+name, "BACKEND_URL="+p.backend.url, "TELEMETRY_URL="+p.telemetry.url, "OTLP_HTTP_ENDPOINT="+loopback(port))
	c, err := p.fleet.newCollector(name, files, env)
	if err != nil {
		return nil, "", err
	}
	return c, "http://" + loopback(port), c.launch(ctx)
}

// rolled is the Collector that is stopped and started in the run.
func (p *parallel) rolled() *collector {
	if len(p.workers) > 0 {
		return p.workers[0]
	}
	return p.fronts[0]
}

// finish ends the load, waits until all of it has come to the backend or nowhere, and stops the Collectors, which tell then what
// they have counted.
func (p *parallel) finish(ctx context.Context) error {
	if p.clients != nil {
		if err := p.clients.finish(ctx); err != nil {
			return err
		}
	} else {
		p.targets.stop()
		// What has been scraped leaves the scraper at once; its queue is what stop waits for.
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
		if err := p.scraper.stop(); err != nil {
			return err
		}
	}
	if err := poll(ctx, p.backend.settled); err != nil {
		return err
	}
	for _, c := range append(p.fronts, p.workers...) {
		if err := c.stop(); err != nil {
			return err
		}
	}
	return nil
}

// kill ends everything at once.
func (p *parallel) kill() {
	if p.clients != nil {
		p.clients.close()
	}
	for _, c := range append(append(p.fronts[:len(p.fronts):len(p.fronts)], p.workers...), p.scraper) {
		if c != nil && c.process != nil {
			c.kill()
		}
	}
	if p.prom != nil {
		p.prom.kill()
	}
	for _, s := range []*httpServer{p.backend.http(), p.telemetry.http(), p.targets.http(), p.balancer.http()} {
		s.close()
	}
}
