// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// shippedDir has the configurations that users copy.
const shippedDir = "../otelcol"

// topology is one of the ways to run them.
type topology struct {
	name, title       string
	gateways, workers int
	otlp, write       string // configuration of the workers by what they send
	shared            bool   // state is on Redis, and nothing in a queue
	events            []happening
}

// happening is an event of a topology.
type happening struct {
	name, title string
	restarts    bool // where totals are in memory, streams begin anew
	run         func(ctx context.Context, s *site) error
}

// In these events all that is acknowledged gets to the backend, and no stream begins anew.
var (
	quiet = happening{name: "quiet", title: "quiet", run: func(ctx context.Context, _ *site) error { return pause(ctx, 2*time.Second) }}

	slow = happening{name: "slow", title: "slow backend, " + jitter.String(), run: func(ctx context.Context, s *site) error {
		s.gate.slow.Store(true)
		return pause(ctx, 5*time.Second)
	}}

	backendRestart = happening{name: "backend-restart", title: "restart of the backend", run: func(ctx context.Context, s *site) error {
		if err := s.db.stop(); err != nil {
			return err
		}
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
		return s.db.launch(ctx)
	}}
)

// In these some do, unless their state is shared.
var (
	scaleOut = happening{name: "scale-out", title: "scale out, 3 to 4 workers", restarts: true, run: func(ctx context.Context, s *site) error { return s.scaleOut(ctx) }}

	// What a worker still has of streams that move must not come to the backend behind what the next worker makes of them.
	slowScaleOut = happening{name: "slow-scale-out", title: "scale out, slow backend", restarts: true, run: func(ctx context.Context, s *site) error {
		s.gate.slow.Store(true)
		if err := pause(ctx, 2*time.Second); err != nil {
			return err
		}
		return s.scaleOut(ctx)
	}}

	rollWorkers = happening{name: "roll", title: "roll all workers", restarts: true, run: func(ctx context.Context, s *site) error { return s.roll(ctx) }}

	slowRoll = happening{name: "slow-roll", title: "roll all workers, slow backend", restarts: true, run: func(ctx context.Context, s *site) error {
		s.gate.slow.Store(true)
		return s.roll(ctx)
	}}

	// Started again, with nothing of what it knew: whoever has its name has its streams.
	killWorker = happening{name: "kill", title: "kill -9 a worker, start it again", restarts: true, run: func(ctx context.Context, s *site) error {
		w := s.workers[workerName(len(s.workers)/2)]
		if err := s.harvest(w); err != nil {
			return err
		}
		s.killed = time.Now()
		w.kill()
		if err := pause(ctx, detection); err != nil {
			return err
		}
		return w.launch(ctx)
	}}
)

var topologies = []topology{
	{name: "one-node", title: "one node", workers: 1, otlp: "one-node.yaml", write: "prometheus.yaml",
		events: []happening{quiet, rollWorkers, killWorker, backendRestart, slow, slowRoll}},
	{name: "two-tiers", title: "2 gateways, 3 workers", gateways: 2, workers: 3, otlp: "worker.yaml", write: "worker.yaml",
		events: []happening{quiet, scaleOut, rollWorkers, killWorker, backendRestart, slow, slowRoll, slowScaleOut}},
	{name: "shared", title: "3 workers, state on Redis", workers: 3, otlp: "shared.yaml", write: "shared.yaml", shared: true,
		events: []happening{quiet, scaleOut, rollWorkers, killWorker, backendRestart, slow, slowRoll, slowScaleOut}},
}

// site is a fleet of shipped configurations in front of a backend.
type site struct {
	fleet
	db   *database
	gate *gate

	way       way      // where one series is made of many
	files     []string // configuration of workers, in order of merging
	args      []string
	env       []string
	telemetry map[*collector]string // URL
	killed    time.Time             // when a worker was

	lanes scraped // what lanes of workers that have ended have said
}

func startSite(ctx context.Context, t topology, r route, dir, binary string) (*site, error) {
	s := &site{fleet: fleet{binary: binary, dir: dir, workers: map[string]*collector{}}, telemetry: map[*collector]string{}, lanes: scraped{}}
	if err := s.start(ctx, t, r); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

func (s *site) start(ctx context.Context, t topology, r route) error {
	if err := s.startBackend(ctx, r.backend, r.flags); err != nil {
		return err
	}
	s.files, s.args = []string{filepath.Join(shippedDir, t.otlp)}, r.args
	if r.write {
		s.files = []string{filepath.Join(shippedDir, t.write)}
		if t.write != remoteWriteFile {
			file, err := remoteWrite(s.dir)
			if err != nil {
				return err
			}
			s.files = append(s.files, file)
		}
	}
	if t.shared {
		if err := s.startStore(ctx); err != nil {
			return err
		}
	}
	if err := s.populate(ctx, t.workers, t.gateways, []string{filepath.Join(shippedDir, "gateway.yaml")}); err != nil {
		return err
	}
	if t.shared { // a new store counts from a second after its first worker has started
		return pause(ctx, 1100*time.Millisecond)
	}
	return nil
}

// startBackend starts the backend, with what can make it slow in front, and a name server.
func (s *site) startBackend(ctx context.Context, b backend, flags []string) (err error) {
	if s.names, err = newNameServer(); err != nil {
		return err
	}
	if s.db, err = startDatabase(ctx, b, s.dir, flags...); err != nil {
		return err
	}
	if s.gate, err = newGate(s.db.url); err != nil {
		return err
	}
	s.env = []string{"REMOTE_WRITE_URL=" + s.gate.url + s.db.write, "OTLP_BACKEND=" + s.gate.url + s.db.otlp}
	return nil
}

// startStore starts what workers share their state in. It counts from a second after its first worker has started.
func (s *site) startStore(ctx context.Context) error {
	r, err := startRedis(ctx, s.dir, 1)
	if r != nil {
		s.store = r
	}
	if err != nil {
		return err
	}
	s.env = append(s.env, "REDIS_ENDPOINT="+loopback(r.nodes[0].port), "REDIS_INSECURE=true")
	return nil
}

// populate starts workers and, with some configuration, gateways in front of them, if there are to be any.
func (s *site) populate(ctx context.Context, workers, gateways int, gateway []string) error {
	s.targets.spread = gateways == 0
	names := workerNames(workers)
	if err := s.addWorkers(ctx, names...); err != nil {
		return err
	}
	if err := s.publish(ctx, names...); err != nil {
		return err
	}
	var addresses []string
	for i := range gateways {
		g, err := s.shippedCollector(fmt.Sprintf("gateway-%d", i), gateway, []string{
			"DNS_SERVER=" + s.names.address, "WORKERS_SRV=" + workersSRV, "DNS_INTERVAL=500ms", "DNS_DEBOUNCE=1s"})
		if err != nil {
			return err
		}
		s.gateways = append(s.gateways, g)
		addresses = append(addresses, g.address)
	}
	if err := launchAll(ctx, s.gateways...); err != nil {
		return err
	}
	if gateways > 0 {
		s.targets.set(addresses)
	}
	return nil
}

// addWorkers starts workers, which nobody knows before they are published.
func (s *site) addWorkers(ctx context.Context, names ...string) error {
	var added []*collector
	for _, name := range names {
		w, err := s.shippedCollector(name, s.files, append(slices.Clone(s.env), "STATE_DIRECTORY="+filepath.Join(s.dir, name)))
		if err != nil {
			return err
		}
		w.args = append(w.args, s.args...)
		s.workers[name] = w
		added = append(added, w)
	}
	return launchAll(ctx, added...)
}

func (s *site) shippedCollector(name string, files, env []string) (*collector, error) {
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	c, err := s.newCollector(name, files, slices.Clone(env))
	if err != nil {
		return nil, err
	}
	// The last of a name is what counts.
	c.env = append(c.env, "OTLP_HTTP_ENDPOINT="+loopback(ports[0]), "TELEMETRY_HOST=127.0.0.1", fmt.Sprintf("TELEMETRY_PORT=%d", ports[1]))
	s.telemetry[c] = "http://" + loopback(ports[1]) + "/metrics"
	return c, nil
}

// launchAll starts Collectors at the same time.
func launchAll(ctx context.Context, all ...*collector) error {
	errs := make(chan error)
	for _, c := range all {
		go func() { errs <- c.launch(ctx) }()
	}
	var failed []error
	for range all {
		failed = append(failed, <-errs)
	}
	return errors.Join(failed...)
}

// scaleOut adds a worker.
func (s *site) scaleOut(ctx context.Context) error {
	name := workerName(len(s.workers))
	if err := s.addWorkers(ctx, name); err != nil {
		return err
	}
	if err := s.publish(ctx, workerNames(len(s.workers))...); err != nil {
		return err
	}
	return pause(ctx, 3*time.Second) // gateways ask the DNS, and wait for debounce
}

// roll stops and starts each worker, one after the other. Their names stay on the list.
func (s *site) roll(ctx context.Context) error {
	for _, name := range slices.Sorted(maps.Keys(s.workers)) {
		w := s.workers[name]
		if err := s.harvest(w); err != nil {
			return err
		}
		if err := roll(ctx, w); err != nil {
			return err
		}
	}
	return nil
}

// harvest reads what the lanes of a worker say that is about to end.
func (s *site) harvest(w *collector) error {
	m, err := scrape(s.telemetry[w])
	if err != nil {
		return err
	}
	for series, v := range m {
		if strings.HasPrefix(series, "otelcol_lanes_") {
			s.lanes[series] += v
		}
	}
	return nil
}

func (s *site) stop() {
	for name, w := range s.workers {
		if w.process == nil { // never launched
			delete(s.workers, name)
		}
	}
	s.gateways = slices.DeleteFunc(s.gateways, func(c *collector) bool { return c.process == nil })
	s.fleet.stop()
	if s.gate != nil {
		s.gate.close()
	}
	if s.db != nil && s.db.process != nil {
		s.db.kill()
	}
}

// remoteWriteFile has the exporter that every configuration is to take for remote write.
const remoteWriteFile = "prometheus.yaml"

// remoteWrite writes a configuration to be merged over another that exports OTLP, with what prometheus.yaml exports by.
func remoteWrite(dir string) (string, error) {
	text, err := os.ReadFile(filepath.Join(shippedDir, remoteWriteFile))
	if err != nil {
		return "", err
	}
	var config struct {
		Exporters map[string]any `json:"exporters"`
	}
	if err := yaml.Unmarshal(text, &config); err != nil {
		return "", err
	}
	merged := map[string]any{
		"exporters": config.Exporters,
		"service":   map[string]any{"pipelines": map[string]any{"metrics/lanes": map[string]any{"exporters": slices.Collect(maps.Keys(config.Exporters))}}},
	}
	text, err = yaml.Marshal(merged)
	file := filepath.Join(dir, "remote-write.yaml")
	return file, errors.Join(err, os.WriteFile(file, text, 0o600))
}
