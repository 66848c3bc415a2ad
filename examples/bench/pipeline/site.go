// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/deltaring/deltaring/internal/ports"
)

// build is a Collector that the builder makes.
type build struct{ builder, manifest, binary string }

var (
	buildOurs = build{"go.opentelemetry.io/collector/cmd/builder@v0.165.0", "manifest.yaml", "build/otelcol-pipeline"}
	buildPeer = build{"go.opentelemetry.io/collector/cmd/builder@v0.160.0", "peer-manifest.yaml", "build/peer/otelcol-peer"}
)

// run builds the Collector and returns its path.
func (b build) run(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "run", b.builder, "--config", b.manifest)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%v: %w\n%s", cmd, err, out)
	}
	return filepath.Abs(b.binary)
}

// binaries are the Collectors that have been built.
type binaries struct{ ours, peer string }

func buildAll(ctx context.Context) (binaries, error) {
	ours, err := buildOurs.run(ctx)
	if err != nil {
		return binaries{}, err
	}
	// Within the other's directory, which is a module of its own.
	peer, err := buildPeer.run(ctx)
	return binaries{ours, peer}, err
}

// role is what a process is for.
type role string

const (
	roleGateway role = "gateway"
	roleWorker  role = "worker"
	roleServer  role = "server"
)

// collector is a running Collector.
type collector struct {
	*process
	address, profile string // of OTLP, and the URL of profiles
}

// site is the processes of a row, and the sink behind them.
type site struct {
	row       row
	sink      *sink
	processes map[role][]*process
	addresses []string // that producers send to
	profiles  []collector
}

// startSite starts everything but the load.
func startSite(ctx context.Context, r row, b binaries, dir, compression string, led *ledger) (*site, error) {
	s := &site{row: r, processes: map[role][]*process{}}
	err := s.start(ctx, b, dir, compression, led)
	if err != nil {
		s.kill()
		return nil, fmt.Errorf("%s: %w", r.name, err)
	}
	return s, nil
}

func (s *site) start(ctx context.Context, b binaries, dir, compression string, led *ledger) (err error) {
	if s.sink, err = startSink(led); err != nil {
		return err
	}
	env := []string{"SINK=" + s.sink.address, "COMPRESSION=" + compression}
	// Before servers are started for a row that cannot be run.
	worker, gateway := filepath.Join(dir, "worker.yaml"), filepath.Join(dir, "gateway.yaml")
	if err := config(worker, "worker.yaml", withProfiles(s.row.Worker)); err != nil {
		return err
	}
	if err := s.check(ctx, b.ours, worker); err != nil {
		return err
	}
	entrance := b.ours
	if s.row.GatewayBinary == "peer" {
		entrance = b.peer
	}
	if s.row.Gateways > 0 {
		if err := config(gateway, "gateway.yaml", withProfiles(s.row.Gateway)); err != nil {
			return err
		}
		if err := s.check(ctx, entrance, gateway); err != nil {
			return err
		}
	}
	for _, name := range s.row.Servers {
		p, more, err := servers[name](ctx, filepath.Join(dir, name))
		if err != nil {
			return err
		}
		s.processes[roleServer] = append(s.processes[roleServer], p)
		env = append(env, more...)
	}
	for i := range s.row.Workers {
		name := fmt.Sprintf("worker-%d", i)
		address, err := s.launch(ctx, roleWorker, name, b.ours, worker, dir, append(env[:len(env):len(env)], "STATE="+filepath.Join(dir, name)))
		if err != nil {
			return err
		}
		s.addresses = append(s.addresses, address)
	}
	if s.row.Gateways > 0 {
		env = append(env, "WORKERS=["+strings.Join(s.addresses, ", ")+"]")
		s.addresses = nil
	}
	for i := range s.row.Gateways {
		address, err := s.launch(ctx, roleGateway, fmt.Sprintf("gateway-%d", i), entrance, gateway, dir, env)
		if err != nil {
			return err
		}
		s.addresses = append(s.addresses, address)
	}
	if len(s.row.Servers) == 0 {
		return nil
	}
	// A new store counts from a second after its first worker has started: deltas from before may be counted in another.
	select {
	case <-time.After(1200 * time.Millisecond):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// check asks the Collector whether it takes a configuration, with something in the place of what is known only later.
func (s *site) check(ctx context.Context, binary, file string) error {
	env := []string{"SINK=127.0.0.1:4317", "COMPRESSION=none", "STATE=" + os.TempDir(), "WORKERS=[127.0.0.1:4317]", "REDIS=127.0.0.1:6379", "POSTGRES=127.0.0.1:5432",
		"S3=http://127.0.0.1:7070", "S3_ACCESS_KEY=a", "S3_SECRET_KEY=b",
		"OTLP_ENDPOINT=127.0.0.1:4317", "HEALTH_ENDPOINT=127.0.0.1:13133", "PROFILE_ENDPOINT=127.0.0.1:1777", "TELEMETRY_PORT=8888"}
	return validate(ctx, binary, file, env)
}

// withProfiles adds to a configuration the extension by which profiles are taken. Idle, it costs nothing.
func withProfiles(over map[string]any) map[string]any {
	all := map[string]any{"extensions": map[string]any{"pprof": map[string]any{"endpoint": "${env:PROFILE_ENDPOINT}"}}}
	merge(all, over)
	return all
}

// launch starts a Collector and returns where it takes OTLP.
func (s *site) launch(ctx context.Context, as role, name, binary, config, dir string, env []string) (string, error) {
	var free [4]int
	for i := range free {
		var err error
		if free[i], err = ports.Free(); err != nil {
			return "", err
		}
	}
	env = append(env[:len(env):len(env)], "OTLP_ENDPOINT="+loopback(free[0]), "HEALTH_ENDPOINT="+loopback(free[1]),
		"PROFILE_ENDPOINT="+loopback(free[2]), fmt.Sprintf("TELEMETRY_PORT=%d", free[3]))
	ready := func() error {
		resp, err := http.Get("http://" + loopback(free[1]))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	}
	p, err := start(ctx, name, filepath.Join(dir, name+".log"), env, ready, binary, "--config", config)
	if err != nil {
		return "", err
	}
	s.processes[as] = append(s.processes[as], p)
	s.profiles = append(s.profiles, collector{p, loopback(free[0]), "http://" + loopback(free[2]) + "/debug/pprof/profile"})
	return loopback(free[0]), nil
}

// usage is what processes of each role have used and have.
func (s *site) usage() (map[role]usage, error) {
	all := map[role]usage{}
	for as, processes := range s.processes {
		var sum usage
		for _, p := range processes {
			u, err := p.usage()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", p.name, err)
			}
			sum.CPU += u.CPU
			sum.Resident += u.Resident
		}
		all[as] = sum
	}
	return all, nil
}

// stop ends all processes in the order in which data flow.
func (s *site) stop() error {
	var errs []error
	for _, as := range []role{roleGateway, roleWorker, roleServer} {
		for _, p := range s.processes[as] {
			errs = append(errs, p.stop())
		}
		delete(s.processes, as)
	}
	s.kill()
	return errors.Join(errs...)
}

// kill ends everything at once; what has ended stays so.
func (s *site) kill() {
	for _, processes := range s.processes {
		for _, p := range processes {
			p.kill()
		}
	}
	if s.sink != nil {
		s.sink.close()
	}
}
