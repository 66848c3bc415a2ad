// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const migrationFile = "../../MIGRATION.md"

var peerBinary = sync.OnceValues(func() (string, error) { return collectors{}.of(context.Background(), peer) })

// TestMigration has contrib's fleet switched to ours as MIGRATION.md says, and as it says not to.
func TestMigration(t *testing.T) {
	old, err := peerBinary()
	if err != nil {
		t.Fatalf("no Collector of contrib to test: %v", err)
	}
	next, err := binary()
	if err != nil {
		t.Fatalf("no Collector to test: %v", err)
	}
	migrate := func(t *testing.T, name string, route func(f *fleet, old, next []string)) *verdict {
		e := event{name: name, gateways: 2, workers: 2, run: func(ctx context.Context, f *fleet) error {
			before := slices.Clone(f.targets.addresses)
			after, err := f.startBeside(ctx, next)
			if err != nil {
				return err
			}
			route(f, before, after)
			return pause(ctx, 5*time.Second)
		}}
		v, err := short.happen(t.Context(), e, peer, old)
		if err != nil {
			t.Fatal(err)
		}
		t.Log(row{e, peer, v}.line())
		return v
	}
	t.Run("by the procedure", func(t *testing.T) {
		t.Parallel()
		v := migrate(t, "migrate", func(f *fleet, _, next []string) { f.targets.set(next) })
		unseen := 0 // began anew above their last total, as those may that were nearly at zero
		for _, samples := range v.samples {
			if falls(samples) == 0 {
				unseen++
			}
		}
		if v.resets+unseen != v.series || unseen > v.series/20 || v.wrong > unseen || v.drops+v.lacking+v.rejected+v.refused > 0 {
			t.Errorf("%d of %d series began anew once and %d unseen, %d fell to something else, %d totals are wrong, %d samples are lacking, %d rejected: %s",
				v.resets, v.series, unseen, v.drops, v.wrong, v.lacking, v.rejected, v.excuse)
		}
	})
	t.Run("in both at the same time", func(t *testing.T) {
		t.Parallel()
		v := migrate(t, "migrate-rolling", func(f *fleet, old, next []string) {
			f.targets.mu.Lock()
			f.targets.spread = true
			f.targets.mu.Unlock()
			f.targets.set(append(old, next...))
		})
		if v.drops == 0 || v.wrong < v.series/2 {
			t.Errorf("%d fell to wrong values and %d of %d totals are wrong: MIGRATION.md says what this does", v.drops, v.wrong, v.series)
		}
	})
}

// startBeside starts two workers and two gateways of ours beside contrib's, and returns the addresses of the gateways. They share the backend.
func (f *fleet) startBeside(ctx context.Context, binary string) ([]string, error) {
	beside := fleet{side: alone, binary: binary, dir: f.dir, recorder: f.recorder, names: f.names, workers: map[string]*collector{}}
	launch := func(name string, files, env []string) (*collector, error) {
		c, err := beside.newCollector(name, files, env)
		if err != nil {
			return nil, err
		}
		if err := c.launch(ctx); err != nil {
			return nil, err
		}
		f.workers[name] = c // so that it is stopped
		return c, nil
	}
	members := map[string]string{}
	for i := range 2 {
		name := fmt.Sprintf("new-worker-%d", i)
		w, err := launch(name, alone.worker, []string{"REMOTE_WRITE_URL=" + f.recorder.url})
		if err != nil {
			return nil, err
		}
		members[name] = w.address
	}
	f.names.set(members)
	var gateways []string
	for i := range 2 {
		g, err := launch(fmt.Sprintf("new-gateway-%d", i), alone.gateway, []string{"DNS_SERVER=" + f.names.address, "WORKERS_SRV=" + workersSRV})
		if err != nil {
			return nil, err
		}
		gateways = append(gateways, g.address)
	}
	return gateways, pause(ctx, 3*time.Second) // they ask the DNS, and wait for debounce
}

// TestMigrationNamesEveryKey holds the tables of keys against contrib's types, at the versions of peer-manifest.yaml, and against the READMEs of
// our components, which their own tests hold against ours.
func TestMigrationNamesEveryKey(t *testing.T) {
	text, err := os.ReadFile(migrationFile)
	if err != nil {
		t.Fatal(err)
	}
	type here struct{ theirs, key, ours string }
	rows := map[string]map[string]here{}
	var component string
	header := regexp.MustCompile("^\\| key of `(\\w+)` \\| default \\|")
	row := regexp.MustCompile("^\\| `([\\w:]+)` \\| ([^|]*) \\| `([\\w:]+)` \\| ([^|]*) \\|")
	for line := range strings.Lines(string(text)) {
		line = strings.ReplaceAll(line, "|  |", "| |")
		switch m := header.FindStringSubmatch(line); {
		case m != nil:
			component = m[1]
			rows[component] = map[string]here{}
		case !strings.HasPrefix(line, "|"):
			component = ""
		case component != "":
			line = strings.ReplaceAll(line, "| |", "|  |")
			if m := row.FindStringSubmatch(line); m != nil {
				rows[component][m[1]] = here{m[2], m[3], m[4]}
			}
		}
	}

	ours := map[string]string{"delta_to_cumulative": "../../processor/d2cprocessor/README.md", "load_balancing": "../../ring/ringexporter/README.md"}
	keys := 0
	for _, k := range contribKeys(t) {
		r, said := rows[k.component][k.key]
		if k.own {
			keys++
			if !said {
				t.Errorf("MIGRATION.md lacks key %s of %s", k.key, k.component)
			}
		}
		if !said {
			continue
		}
		delete(rows[k.component], k.key)
		// What is nothing in the configuration may have a default in the code that reads it.
		theirs, _, _ := strings.Cut(r.theirs, " ")
		if k.value != "" && k.value != "0" && k.value != "0s" && theirs != k.value {
			t.Errorf("%s: %s has the default %s, MIGRATION.md has %q", k.component, k.key, k.value, r.theirs)
		}
		if got, ok := readmeDefault(t, ours[k.component], r.key); !ok || got != r.ours {
			t.Errorf("%s has the default %q for %s, MIGRATION.md has %q", ours[k.component], got, r.key, r.ours)
		}
	}
	if keys < 20 {
		t.Errorf("contrib has no more than %d keys", keys)
	}
	for component, rest := range rows {
		for key := range rest {
			t.Errorf("MIGRATION.md has key %s of %s, which there is not", key, component)
		}
	}
}

// readmeDefault returns what a README has as the default of a key.
func readmeDefault(t *testing.T, file, key string) (string, bool) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	// The reference, not what it says of contrib.
	_, reference, _ := strings.Cut(string(text), "\n| key | type | default |")
	for line := range strings.Lines(reference) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) > 4 && strings.Contains(cells[1], "`"+key+"`") && strings.HasPrefix(line, "| `") {
			return strings.TrimSpace(cells[3]), true // several keys of a row have the same default
		}
	}
	return "", false
}

type contribKey struct {
	component, key, value string
	own                   bool
}

// contribKeys asks the types of contrib, which the build of the peer has fetched.
func contribKeys(t *testing.T) (all []contribKey) {
	t.Helper()
	if _, err := peerBinary(); err != nil {
		t.Fatalf("no Collector of contrib: %v", err)
	}
	dir := t.TempDir()
	for from, to := range map[string]string{"build/peer/go.mod": "go.mod", "build/peer/go.sum": "go.sum", "testdata/contribkeys.go.txt": "main.go"} {
		text, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, to), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "go", "run", "-trimpath", ".") // as the builder does, so that all but main is built
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", cmd, err)
	}
	for line := range strings.Lines(string(out)) {
		cells := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		all = append(all, contribKey{cells[0], cells[1], cells[2], cells[3] == "true"})
	}
	return all
}

// TestMigrationNamesEveryMetric looks them up in contrib's documentation and in ours.
func TestMigrationNamesEveryMetric(t *testing.T) {
	if _, err := peerBinary(); err != nil {
		t.Fatalf("no Collector of contrib: %v", err)
	}
	text, err := os.ReadFile(migrationFile)
	if err != nil {
		t.Fatal(err)
	}
	metric := regexp.MustCompile(`(?m)^### (otelcol_\w+)$`)
	metrics := func(file string) (names []string) {
		documentation, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range metric.FindAllStringSubmatch(string(documentation), -1) {
			names = append(names, m[1])
		}
		if len(names) == 0 {
			t.Errorf("no metrics in %s", file)
		}
		return names
	}
	for _, module := range []string{"processor/deltatocumulativeprocessor", "exporter/loadbalancingexporter"} {
		cmd := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/open-telemetry/opentelemetry-collector-contrib/"+module)
		cmd.Dir = "build/peer"
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v", cmd, err)
		}
		for _, name := range metrics(filepath.Join(strings.TrimSpace(string(out)), "documentation.md")) {
			if !strings.Contains(string(text), "\n| `"+name+"`") {
				t.Errorf("MIGRATION.md lacks metric %s", name)
			}
		}
	}
	known := append(metrics("../../processor/d2cprocessor/documentation.md"), metrics("../../ring/ringexporter/documentation.md")...)
	for _, m := range regexp.MustCompile("`(otelcol_(?:d2c|ring)_\\w+)").FindAllStringSubmatch(string(text), -1) {
		if !slices.Contains(known, m[1]) {
			t.Errorf("MIGRATION.md has metric %s, which there is not", m[1])
		}
	}
}
