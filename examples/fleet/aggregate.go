// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// buildAggregatePeer is the Collector with what contrib has to make one series of many.
var buildAggregatePeer = build{"go.opentelemetry.io/collector/cmd/builder@v0.160.0", "aggregate-peer-manifest.yaml", "build/aggregate-peer/otelcol-aggregate-peer"}

// way is one way to have one series of many pods.
type way struct {
	name, title       string
	ours              bool
	backend           backend
	window            bool // the backend takes samples that are out of order, too
	write             bool // what is shipped sends by remote write instead of OTLP
	gateways, workers int
	gateway, worker   []string // configuration files
	redis             bool
	aggregates        bool          // the backend does, and is rolled and killed with the workers
	vm                string        // its file for that
	held              time.Duration // how long anything may take to the backend
}

func recipe(name string) string  { return filepath.Join(shippedDir, "recipes", name) }
func shipped(name string) string { return filepath.Join(shippedDir, name) }

var (
	sharedGateway = []string{shipped("gateway.yaml"), shipped("gateway-shared.yaml"), recipe("pods-gateway.yaml")}
	sharedWorker  = []string{shipped("shared.yaml"), recipe("pods.yaml")}
)

var ways = []way{
	{name: "durable", title: "`durable.yaml`", ours: true, backend: prometheus3, workers: 1, worker: []string{shipped("durable.yaml"), recipe("pods.yaml")}},
	{name: "durable-write", title: "`durable.yaml`, remote write", ours: true, backend: prometheus3, write: true, workers: 1,
		worker: []string{shipped("durable.yaml"), recipe("pods.yaml")}},
	// Its gateways have queues, and wait up to 10 s before they try a worker again.
	{name: "durable-ring", title: "2 gateways, 3 × `durable.yaml`", ours: true, backend: prometheus3, gateways: 2, workers: 3, held: 12 * time.Second,
		gateway: []string{shipped("gateway.yaml"), recipe("pods-gateway.yaml")}, worker: []string{shipped("durable.yaml"), recipe("pods.yaml")}},
	{name: "shared-ring", title: "2 gateways, 3 × `shared.yaml`", ours: true, backend: prometheus3, gateways: 2, workers: 3,
		gateway: sharedGateway, worker: sharedWorker, redis: true},
	{name: "shared", title: "3 × `shared.yaml`, out-of-order window", ours: true, backend: prometheus3, window: true, workers: 3, worker: sharedWorker, redis: true},
	{name: "shared-interval", title: "2 gateways, 3 × `shared.yaml`, `interval: 2s`", ours: true, backend: prometheus3, gateways: 2, workers: 3,
		gateway: sharedGateway, worker: append(slices.Clone(sharedWorker), "aggregate-interval.yaml"), redis: true, held: 5 * time.Second},

	{name: "drop", title: "contrib: attributes dropped, `delta_to_cumulative`", backend: prometheus3, workers: 1,
		worker: []string{"aggregate-peer.yaml", "aggregate-peer-drop.yaml"}},
	{name: "batch", title: "contrib: `batch`, `transform`, `metricstransform`, `delta_to_cumulative`", backend: prometheus3, workers: 1,
		worker: []string{"aggregate-peer.yaml", "aggregate-peer-batch.yaml"}, held: 3 * time.Second},
	{name: "interval", title: "contrib: `delta_to_cumulative`, `interval`, `transform`, `metricstransform`", backend: prometheus3, workers: 1,
		worker: []string{"aggregate-peer.yaml", "aggregate-peer-interval.yaml"}, held: 11 * time.Second},
	{name: "vm-samples", title: "VictoriaMetrics: `sum_samples_total` of deltas", backend: victoriaMetrics, workers: 1, aggregates: true,
		worker: []string{"aggregate-peer.yaml", "aggregate-peer-pass.yaml"}, vm: "aggregate-vm-samples.yaml", held: 6 * time.Second},
	{name: "vm-total", title: "contrib: `delta_to_cumulative`; VictoriaMetrics: `total`", backend: victoriaMetrics, workers: 1, aggregates: true,
		worker: []string{"aggregate-peer.yaml", "aggregate-peer-total.yaml"}, vm: "aggregate-vm-total.yaml", held: 6 * time.Second},
}

// mishap is an event of these fleets.
type mishap struct {
	name, title string
	run         func(ctx context.Context, s *site, d *deployment) error
}

var (
	nothing = mishap{"nothing", "nothing", func(ctx context.Context, _ *site, _ *deployment) error { return pause(ctx, 3*time.Second) }}

	// Each new pod has a name that was never there, and a start of its own.
	podsRolled = mishap{"pods", "pods rolled; 10 killed", func(ctx context.Context, _ *site, d *deployment) error {
		for range podCount / 5 {
			d.scale(ctx, podCount+5)
			d.remove(5, false)
			if err := pause(ctx, 300*time.Millisecond); err != nil {
				return err
			}
		}
		d.remove(10, true)
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
		d.scale(ctx, podCount)
		return nil
	}}

	workersRolled = mishap{"roll", "workers rolled", func(ctx context.Context, s *site, _ *deployment) error {
		for _, name := range slices.Sorted(maps.Keys(s.workers)) {
			if err := roll(ctx, s.workers[name]); err != nil {
				return err
			}
		}
		if s.way.aggregates {
			return errors.Join(s.db.stop(), s.db.launch(ctx))
		}
		return nil
	}}

	workerKilled = mishap{"kill", "a worker killed -9", func(ctx context.Context, s *site, _ *deployment) error {
		for range 2 {
			w := s.workers[workerName(len(s.workers)/2)]
			w.kill()
			if err := pause(ctx, time.Second); err != nil {
				return err
			}
			if err := w.launch(ctx); err != nil {
				return err
			}
			if err := pause(ctx, 2*time.Second); err != nil {
				return err
			}
		}
		if s.way.aggregates {
			s.db.kill()
			return s.db.launch(ctx)
		}
		return nil
	}}

	// All of these, and workers killed while pods are rolled.
	everythingAtOnce = mishap{"all", "all of these", func(ctx context.Context, s *site, d *deployment) error {
		pods := make(chan error, 1)
		go func() { pods <- podsRolled.run(ctx, s, d) }()
		return errors.Join(workerKilled.run(ctx, s, d), <-pods, workersRolled.run(ctx, s, d), podsRolled.run(ctx, s, d))
	}}
)

var mishaps = []mishap{nothing, podsRolled, workersRolled, workerKilled, everythingAtOnce}

// total is a way through an event.
type total struct {
	way    way
	mishap mishap
}

// chooseTotals returns those whose way or "way/event" is named, or all.
func chooseTotals(only string) ([]total, error) {
	var all []total
	wanted := map[string]bool{}
	if only != "" {
		for name := range strings.SplitSeq(only, ",") {
			wanted[name] = false
		}
	}
	for _, w := range ways {
		for _, m := range mishaps {
			_, of := wanted[w.name]
			_, one := wanted[w.name+"/"+m.name]
			if of {
				wanted[w.name] = true
			}
			if one {
				wanted[w.name+"/"+m.name] = true
			}
			if only == "" || of || one {
				all = append(all, total{w, m})
			}
		}
	}
	for name, met := range wanted {
		if !met {
			return nil, fmt.Errorf("-event: unknown %q; with -aggregate there are %s, and after a / %s", name, strings.Join(names(ways, func(w way) string { return w.name }), ", "),
				strings.Join(names(mishaps, func(m mishap) string { return m.name }), ", "))
		}
	}
	return all, nil
}

func names[T any](all []T, of func(T) string) (names []string) {
	for _, one := range all {
		names = append(names, of(one))
	}
	return names
}

// runAggregate has one series made of many pods in each way, through each event, and writes the table. It returns errFlawed if one of
// ours is not exact.
func runAggregate(ctx context.Context, out io.Writer, opt options, only string) error {
	chosen, err := chooseTotals(only)
	if err != nil {
		return err
	}
	var sums []*sum
	flawed := false
	for _, c := range chosen {
		binary, err := c.way.binary(ctx)
		if err != nil {
			return err
		}
		s, err := opt.addUp(ctx, c.way, c.mishap, binary)
		if err != nil {
			return fmt.Errorf("%s/%s: %w", c.way.name, c.mishap.name, err)
		}
		fmt.Fprintln(os.Stderr, s.line())
		sums = append(sums, s)
		flawed = flawed || c.way.ours && !s.flawless()
	}
	writeSums(out, sums)
	if flawed {
		return errFlawed
	}
	return nil
}

// binary builds the Collector of a way.
func (w way) binary(ctx context.Context) (string, error) {
	if w.ours {
		return shippedBinary(ctx)
	}
	return buildAggregatePeer.run(ctx)
}

// addUp runs a way through an event under load, and judges what the backend has of it.
func (o options) addUp(ctx context.Context, w way, m mishap, binary string) (*sum, error) {
	dir, err := o.logDir(event{name: "aggregate-" + w.name}, side{name: m.name})
	if err != nil {
		return nil, err
	}
	if o.logs == "" {
		defer os.RemoveAll(dir)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*patience)
	defer cancel()
	s := &site{fleet: fleet{binary: binary, dir: dir, workers: map[string]*collector{}}, telemetry: map[*collector]string{}, lanes: scraped{}, way: w}
	defer s.stop()
	if err := s.startWay(ctx); err != nil {
		return nil, err
	}
	d := newDeployment(&s.targets)
	defer d.close()
	d.scale(ctx, podCount)
	around := 4 * time.Second
	if o.short {
		around = 2 * time.Second
	}
	if err := pause(ctx, around); err != nil {
		return nil, err
	}
	if err := m.run(ctx, s, d); err != nil {
		return nil, err
	}
	if err := pause(ctx, around); err != nil {
		return nil, err
	}
	if err := d.finish(); err != nil {
		return nil, err
	}
	if err := s.quiet(ctx, d); err != nil {
		return nil, err
	}
	return s.sum(ctx, m, d)
}

// quiet waits until the backend has all, or nothing more has come there for as long as anything may take.
func (s *site) quiet(ctx context.Context, d *deployment) error {
	expected := d.expected()
	since, last := time.Now(), 0.0
	for {
		stored, err := s.db.everything()
		if err != nil {
			return err
		}
		sum, all := 0.0, true
		for key, want := range expected {
			got, _ := counted(stored[key])
			sum += got
			all = all && got == float64(want)
		}
		if sum != last {
			since, last = time.Now(), sum
		}
		if all || time.Since(since) > s.way.held {
			return nil
		}
		if err := pause(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
}

// startWay starts everything but the load.
func (s *site) startWay(ctx context.Context) error {
	w := s.way
	var flags []string
	if w.window {
		w.backend.config = "storage: {tsdb: {out_of_order_time_window: 10m}}\n"
	}
	switch {
	case w.vm != "":
		flags = []string{"-streamAggr.config=" + w.vm}
	case w.backend.name == prometheus3.name:
		flags = []string{"--enable-feature=promql-extended-range-selectors"}
	}
	if err := s.startBackend(ctx, w.backend, flags); err != nil {
		return err
	}
	if s.files = w.worker; w.write {
		file, err := remoteWrite(s.dir)
		if err != nil {
			return err
		}
		s.files = append(slices.Clone(s.files), file)
	}
	if w.redis {
		if err := s.startStore(ctx); err != nil {
			return err
		}
	}
	if err := s.populate(ctx, w.workers, w.gateways, w.gateway); err != nil {
		return err
	}
	switch {
	case w.redis: // a new store counts from a second after its first worker has started
		return pause(ctx, 1100*time.Millisecond)
	case w.aggregates: // what is new in its first two intervals it takes for old
		return pause(ctx, 6*time.Second)
	}
	return nil
}
