// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Every row that these Collectors can run is exact, and every row that is there can be run. Times are nobody's promise here.
func TestRows(t *testing.T) {
	rows, err := readRows("rows")
	if err != nil {
		t.Fatal(err)
	}
	b, err := buildAll(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// Where histograms differ from sums is in how they are kept, not in what is in front.
	for k, names := range map[kind]string{kindSum: "", kindHistogram: "memory,disk,redis-records,redis-log"} {
		chosen, err := choose(rows, names)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(string(k), func(t *testing.T) {
			c := comparison{binaries: b, dir: t.TempDir(), kind: k, series: 4000, settings: settings{
				rows: chosen, rate: 10_000, turn: 300 * time.Millisecond, turns: 2, senders: 3, compression: "gzip", profile: t.TempDir()}}
			measured := map[string]bool{}
			err := c.run(t.Context(), func(r result) {
				measured[r.Row] = true
				if f := r.Faults; f.Series > 0 || f.Strangers > 0 {
					t.Errorf("%s: %+v", r.Row, f)
				}
				if r.Points < 2*c.series || r.Resident[roleWorker] == 0 || r.PointsPerSecond == 0 || r.P99 < r.P50 || r.P50 == 0 {
					t.Errorf("%s: not measured: %+v", r.Row, r)
				}
			}, func(r row, why unknown) { t.Errorf("%s: skipped: %v", r.name, why) })
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range chosen {
				if !measured[r.name] {
					t.Errorf("%s: no result", r.name)
				}
				profiles, err := filepath.Glob(filepath.Join(c.profile, r.name+"-"+string(k)+"-4000-worker-*.pprof"))
				if err != nil || len(profiles) != r.Workers {
					t.Errorf("%s: %d profiles of %d workers, %v", r.name, len(profiles), r.Workers, err)
				}
			}
		})
	}
	t.Run("unknown", func(t *testing.T) { testUnknown(t, b) })
}

// A row that needs what the Collector has not is told from one that is wrong.
func testUnknown(t *testing.T, b binaries) {
	for _, c := range []struct {
		name, worker string
		unknown      bool
	}{
		{"a component", "extensions: {nowhere_state: {}}", true},
		{"a key", "extensions: {redis_state: {endpoint: localhost:1, laid_out: log, tls: {insecure: true}}}", true},
		{"a value", "extensions: {redis_state: {endpoint: localhost:1, mode: none, tls: {insecure: true}}}", false},
	} {
		dir := t.TempDir()
		text := "title: it\nworkers: 1\nworker: {" + c.worker + "}\n"
		if err := os.WriteFile(filepath.Join(dir, "10-it.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		rows, err := readRows(dir)
		if err != nil {
			t.Fatal(err)
		}
		_, err = startSite(t.Context(), rows[0], b, dir, "none", newLedger(kindSum, pointsPerBatch, false))
		var lacks unknown
		if err == nil || errors.As(err, &lacks) != c.unknown {
			t.Errorf("%s: unknown is %v, want %v: %v", c.name, !c.unknown, c.unknown, err)
		}
	}
}

func TestReadRows(t *testing.T) {
	for _, c := range []struct{ name, file, text, want string }{
		{"a file without a number", "bare.yaml", "title: a\nworkers: 1\n", "want a number and a name"},
		{"a row without a title", "10-a.yaml", "workers: 1\n", "title: missing"},
		{"no workers", "10-a.yaml", "title: a\n", "workers: want"},
		{"a key that is none", "10-a.yaml", "title: a\nworkers: 1\nworkes: 2\n", "workes"},
		{"a server that is none", "10-a.yaml", "title: a\nworkers: 1\nservers: [mysql]\n", `servers: unknown "mysql"`},
		{"gateways without configuration", "10-a.yaml", "title: a\nworkers: 1\ngateways: 1\n", "both or neither"},
		{"another binary", "10-a.yaml", "title: a\nworkers: 1\ngateway_binary: theirs\n", "want peer"},
		{"based on nothing", "10-a.yaml", "title: a\nworkers: 1\nbased_on: b\n", `no row "b"`},
		{"a name twice", "20-x.yaml", "title: a\nworkers: 1\n", `another row "x"`},
		{"based on what is based", "10-a.yaml", "title: a\nbased_on: y\n", "itself based"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			files := map[string]string{"01-x.yaml": "title: x\nworkers: 1\n", "02-y.yaml": "title: y\nbased_on: x\n", c.file: c.text}
			for file, text := range files {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := readRows(dir); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}

// A row on another has what that one has but for what it says, and does not change it.
func TestBasedOn(t *testing.T) {
	rows, err := readRows("rows")
	if err != nil {
		t.Fatal(err)
	}
	of := func(name string) row {
		i := slices.IndexFunc(rows, func(r row) bool { return r.name == name })
		if i < 0 {
			t.Fatalf("no row %q", name)
		}
		return rows[i]
	}
	gap := func(r row) any { return r.Worker["processors"].(map[string]any)["d2c"].(map[string]any)["gap"] }
	under, over := of("two-tiers"), of("two-tiers-redis-records")
	if gap(under) != "restart_if_moved" || gap(over) != "continue" || over.Gateways != under.Gateways || over.Gateway["exporters"] == nil {
		t.Errorf("gap is %v and %v, gateways %d and %d", gap(under), gap(over), under.Gateways, over.Gateways)
	}
}

func TestParse(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"-rows none", `no row "none"`},
		{"-kinds gauge", `unknown kind "gauge"`},
		{"-series 1500", "multiple of 1000"},
		{"-series 0", "multiple of 1000"},
		{"-rate fast", "points per second"},
		{"-turns 0", "more than none"},
		{"-compression zip", "gzip or none"},
		{"table", "unexpected argument"},
	} {
		if _, err := parse(strings.Fields(c.args)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q in it", c.args, err, c.want)
		}
	}
	s, err := parse(strings.Fields("-rows two-tiers,memory -series 1k,1M -rate 30k"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range s.rows {
		names = append(names, r.name)
	}
	if want := []string{"bare", "memory", "two-tiers"}; !slices.Equal(names, want) || !slices.Equal(s.series, []int{1000, 1_000_000}) || s.rate != 30_000 {
		t.Errorf("rows %v, series %v, rate %v", names, s.series, s.rate)
	}
}
