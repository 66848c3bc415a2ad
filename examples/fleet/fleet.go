// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// side is one way to build a fleet.
type side struct {
	name            string
	gateway, worker []string   // configuration files
	store           *storeKind // with which workers share their state, nil if they do not
	servers         int        // of the store
	flawless        bool       // the verdict must be
	static          bool       // gateways read their members from a file instead of DNS
	build           build
}

var (
	// sharing is ours before it is said in which store.
	sharing = side{name: "deltaring", build: buildOurs, gateway: []string{"gateway.yaml"}, worker: []string{"worker.yaml"}, flawless: true}
	ours    = sharing.on(onRedis)
	peer    = side{name: "contrib", build: buildPeer, gateway: []string{"peer-gateway.yaml"}, worker: []string{"peer-worker.yaml"}, static: true}
	// ejecting is ours whose gateways need nobody to tell them that a worker does not answer.
	ejecting = sharing.ejects().on(onRedis)
	// alone is ours without shared state, for which the verdict must not be in favour.
	alone = side{name: "deltaring, not shared", build: buildOurs, gateway: []string{"gateway.yaml"}, worker: []string{"worker.yaml"}}
)

func (s side) ejects() side {
	s.name += ", `eject`"
	s.gateway = append(slices.Clone(s.gateway), "eject.yaml")
	return s
}

// build is a Collector that the builder makes.
type build struct{ builder, manifest, binary string }

var (
	buildOurs = build{"go.opentelemetry.io/collector/cmd/builder@v0.165.0", "manifest.yaml", "build/otelcol-fleet"}
	buildPeer = build{"go.opentelemetry.io/collector/cmd/builder@v0.160.0", "peer-manifest.yaml", "build/peer/otelcol-peer"}
)

// run builds the Collector and returns its path.
func (b build) run(ctx context.Context) (string, error) {
	if err := os.MkdirAll(filepath.Dir(b.binary), 0o755); err != nil { // the builder makes the last of several directories
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "run", b.builder, "--config", b.manifest)
	// The builder runs compilers; all of them end with it, and at once.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%v: %w\n%s", cmd, err, out)
	}
	return filepath.Abs(b.binary)
}

// detection is how long it takes until somebody notices that a worker is gone and takes it off the list.
const detection = 2 * time.Second

// fleet is a set of processes on loopback addresses.
type fleet struct {
	side
	binary, dir string
	members     []string // names of the workers that gateways, or clients if there are none, know

	names    *nameServer
	prom     *prometheus
	recorder *recorder
	store    store
	gateways []*collector
	workers  map[string]*collector
	targets  targets

	watching sync.Mutex // held to change workers and members, and by those who read them while an event happens
}

// collector is a running Collector that keeps its addresses when it is started again.
type collector struct {
	*process
	name, binary, dir string
	address, health   string
	telemetry         string // URL of its metrics about itself
	args, env         []string
}

func workerName(i int) string { return fmt.Sprintf("worker-%d", i) }

// workerNames are the names of the first n workers.
func workerNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = workerName(i)
	}
	return names
}

// startFleet starts everything but the load.
func startFleet(ctx context.Context, s side, binary, dir string, gateways, workers int) (*fleet, error) {
	f := &fleet{side: s, binary: binary, dir: dir, workers: map[string]*collector{}}
	if err := f.start(ctx, gateways, workers); err != nil {
		f.stop()
		return nil, err
	}
	return f, nil
}

func (f *fleet) start(ctx context.Context, gateways, workers int) (err error) {
	if f.names, err = newNameServer(); err != nil {
		return err
	}
	if f.prom, err = startPrometheus(ctx, f.dir, prometheus2); err != nil {
		return err
	}
	if f.recorder, err = newRecorder(f.prom.writeURL()); err != nil {
		return err
	}
	if f.side.store != nil {
		if f.store, err = f.side.store.start(ctx, f.dir, f.servers); err != nil {
			return err
		}
	}
	names := workerNames(workers)
	if err := f.startWorkers(ctx, names...); err != nil {
		return err
	}
	f.targets.spread = gateways == 0
	if err := f.publish(ctx, names...); err != nil {
		return err
	}
	var addresses []string
	for i := range gateways {
		files, env := f.gateway, []string{"DNS_SERVER=" + f.names.address, "WORKERS_SRV=" + workersSRV}
		if f.static {
			files = append(files[:len(files):len(files)], f.membersFile())
		}
		if f.store != nil {
			env = append(env, f.store.environment()...)
		}
		g, err := f.newCollector(fmt.Sprintf("gateway-%d", i), files, env)
		if err != nil {
			return err
		}
		if err := g.launch(ctx); err != nil {
			return err
		}
		f.gateways = append(f.gateways, g)
		addresses = append(addresses, g.address)
	}
	if gateways > 0 {
		f.targets.set(addresses)
	}
	return nil
}

// startWorkers starts workers, which nobody knows before they are published.
func (f *fleet) startWorkers(ctx context.Context, names ...string) error {
	for _, name := range names {
		env := []string{"REMOTE_WRITE_URL=" + f.recorder.url}
		if f.store != nil {
			env = append(env, f.store.environment()...)
		}
		w, err := f.newCollector(name, f.worker, env)
		if err != nil {
			return err
		}
		if err := w.launch(ctx); err != nil {
			return err
		}
		f.watching.Lock()
		f.workers[name] = w
		f.watching.Unlock()
	}
	return nil
}

// publish makes these workers the members.
func (f *fleet) publish(ctx context.Context, names ...string) error {
	f.watching.Lock()
	f.members = slices.Clone(names)
	f.watching.Unlock()
	addresses := map[string]string{}
	for _, name := range names {
		addresses[name] = f.workers[name].address
	}
	if f.targets.spread {
		f.targets.set(slices.Sorted(maps.Values(addresses)))
		return nil
	}
	if !f.static {
		f.names.set(addresses)
		return nil
	}
	list := "exporters: {load_balancing: {resolver: {static: {hostnames: [" +
		strings.Join(slices.Sorted(maps.Values(addresses)), ", ") + "]}}}}\n"
	if err := os.WriteFile(f.membersFile(), []byte(list), 0o600); err != nil {
		return err
	}
	// Not quite at the same time, as with DNS.
	for _, g := range f.gateways {
		if err := g.signal(syscall.SIGHUP); err != nil {
			return err
		}
		if err := pause(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
	for _, g := range f.gateways {
		if err := poll(ctx, answers(g.health)); err != nil {
			return err
		}
	}
	return nil
}

// withdraw takes one worker off the members.
func (f *fleet) withdraw(ctx context.Context, name string) error {
	return f.publish(ctx, slices.DeleteFunc(slices.Clone(f.members), func(member string) bool { return member == name })...)
}

func (f *fleet) membersFile() string { return filepath.Join(f.dir, "members.yaml") }

// stop ends all processes at once.
func (f *fleet) stop() {
	for _, c := range f.gateways {
		c.kill()
	}
	for _, c := range f.workers {
		if c.process != nil {
			c.kill()
		}
	}
	if f.store != nil {
		f.store.kill()
	}
	if f.recorder != nil {
		f.recorder.stop()
	}
	if f.prom != nil {
		f.prom.kill()
	}
	if f.names != nil {
		f.names.stop()
	}
}

func (f *fleet) newCollector(name string, files, env []string) (*collector, error) {
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	c := &collector{name: name, binary: f.binary, dir: f.dir, address: loopback(ports[0]), health: "http://" + loopback(ports[1]),
		telemetry: "http://" + loopback(ports[2]) + "/metrics"}
	for _, file := range files {
		c.args = append(c.args, "--config", file)
	}
	c.env = append(env,
		"OTLP_GRPC_ENDPOINT="+c.address,
		"HEALTH_ENDPOINT="+loopback(ports[1]),
		fmt.Sprintf("TELEMETRY_PORT=%d", ports[2]))
	return c, nil
}

// launch starts the Collector, at the addresses it had if it was running before.
func (c *collector) launch(ctx context.Context) (err error) {
	c.process, err = start(ctx, filepath.Join(c.dir, c.name+".log"), c.env, answers(c.health), c.binary, c.args...)
	if err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	return nil
}

// roll stops and starts each of these Collectors, one after the other.
func roll(ctx context.Context, collectors ...*collector) error {
	for _, c := range collectors {
		if err := c.stop(); err != nil {
			return err
		}
		if err := c.launch(ctx); err != nil {
			return err
		}
	}
	return nil
}

// stopWorkers has workers end as an orchestrator does, and waits for them.
func (f *fleet) stopWorkers(names ...string) error {
	errs := make(chan error)
	for _, name := range names {
		go func() { errs <- f.workers[name].stop() }()
	}
	var all []error
	for range names {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}
