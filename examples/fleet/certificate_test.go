// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestFaults(t *testing.T) {
	seen := func(c certificate) certificate { // by increase(), all of it
		c.increased, c.afterFirst, c.counted, c.visible = 90, 100, 100, 100
		c.account.native = 5
		return c
	}
	one := trial{route{backend: prometheus3}, topologies[0], quiet}
	with := func(change func(*route)) trial {
		t := one
		change(&t.route)
		return t
	}
	starts := with(func(r *route) { r.starts = true })
	for _, tc := range []struct {
		name string
		c    certificate
		want string // part of the first fault
	}{
		{"clean", seen(certificate{trial: one}), ""},
		{"died in memory, began anew, late", seen(certificate{trial: one, late: 3, account: account{excused: 3, restarts: 2}}), ""},
		{"counted twice after a kill", seen(certificate{trial: one, requests: 1, samplesRefused: 1, lanes: 1, account: account{twice: 1, restarts: 1}}), ""},
		{"error", certificate{err: errors.New("no port")}, "no port"},
		{"requests", seen(certificate{trial: one, requests: 1}), "1 requests rejected"},
		{"samples", seen(certificate{trial: one, samplesRefused: 2}), "2 samples rejected"},
		{"repeats", seen(certificate{trial: one, samplesRefused: 2, retries: 1}), ""},
		{"more than repeats", seen(certificate{trial: one, samplesRefused: 5, retries: 1}), "3 samples rejected"},
		{"repeats, but lost", seen(certificate{trial: one, samplesRefused: 2, retries: 1, account: account{lost: 1}}), "2 samples rejected"},
		{"lanes", seen(certificate{trial: one, lanes: 1}), "1 items refused"},
		{"clients", seen(certificate{trial: one, refusedClients: 1}), "1 requests of clients"},
		{"lost", seen(certificate{trial: one, account: account{lost: 4}}), "4 samples lost"},
		{"wrong", seen(certificate{trial: one, account: account{wrong: 4}}), "4 samples wrong"},
		{"totals", seen(certificate{trial: one, account: account{totals: 4}}), "4 totals wrong"},
		{"no exponential", certificate{trial: one, counted: 1, visible: 1, afterFirst: 1}, "no exponential"},
		{"first samples unseen", seen(certificate{trial: starts}), "increase() is 90.0"},
		{"thrown away, and known to be", certificate{trial: with(func(r *route) { r.futile = "it is" }), account: account{lost: 9}}, ""},
		{"control", seen(certificate{trial: with(func(r *route) { r.control = true }), account: account{lost: 9}}), ""},
		{"control that is clean", seen(certificate{trial: with(func(r *route) { r.control = true })}), "not noticed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			faults := tc.c.faults()
			if tc.want == "" && len(faults) > 0 || tc.want != "" && (len(faults) == 0 || !strings.Contains(faults[0], tc.want)) {
				t.Errorf("%q", faults)
			}
			var table strings.Builder
			writeCertificates(&table, []*certificate{&tc.c})
			lines := strings.Split(strings.TrimSpace(table.String()), "\n")
			for _, line := range lines {
				if strings.Count(line, "|") != strings.Count(lines[0], "|") {
					t.Errorf("another number of columns: %s", line)
				}
			}
			if strings.Contains(lines[2], "not clean") != (tc.want != "") {
				t.Error(lines[2])
			}
		})
	}
}

func TestSummary(t *testing.T) {
	node, tiers := topologies[0], topologies[1]
	write, otlp := routes[1], routes[3]
	control := routes[slices.IndexFunc(routes, func(r route) bool { return r.control })]
	clean := certificate{increased: 1, afterFirst: 1, counted: 1, visible: 1, account: account{native: 1}}
	of := func(r route, top topology, e happening, a account) *certificate {
		c := clean
		c.trial, c.account = trial{r, top, e}, a
		c.account.native = 1
		return &c
	}
	var out strings.Builder
	writeSummary(&out, []*certificate{
		of(otlp, tiers, scaleOut, account{lost: 1}),
		of(write, node, quiet, account{}),
		of(write, node, killWorker, account{excused: 28}),
		of(control, node, slow, account{lost: 1}),
	})
	const want = `| backend | path | topology | quiet | kill -9 a worker, start it again | scale out, 3 to 4 workers | slow backend, 5 to 2000 ms |
|---|---|---|---|---|---|---|
| Prometheus 3 | remote write 1 | one node | clean | clean, but for 28 |  |  |
| Prometheus 3 | OTLP | 2 gateways, 3 workers |  |  | **not clean** |  |
| Prometheus 3 | OTLP, against the rules: a queue behind lanes | one node |  |  |  | not clean, on purpose |
`
	if out.String() != want {
		t.Error(out.String())
	}
}

func TestChooseTrials(t *testing.T) {
	every, err := chooseTrials("", false)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, tr := range every {
		names = append(names, tr.name())
	}
	short, err := chooseTrials("", true)
	if err != nil || len(short) != len(telling) {
		t.Errorf("%d of %d, %v", len(short), len(telling), err)
	}
	for _, name := range telling {
		if !slices.Contains(names, name) {
			t.Errorf("there is no %s", name)
		}
	}
	for _, r := range routes {
		if !r.few && !slices.ContainsFunc(short, func(tr trial) bool { return tr.route.backend.name == r.backend.name && tr.route.name == r.name }) {
			t.Errorf("the short form lacks %s by %s", r.backend.name, r.name)
		}
	}
	if some, err := chooseTrials("^prometheus-2/write/shared/", false); err != nil || len(some) != len(topologies[2].events) {
		t.Errorf("%d, %v", len(some), err)
	}
	for _, only := range []string{"(", "nothing"} {
		if _, err := chooseTrials(only, false); err == nil {
			t.Errorf("%q is no error", only)
		}
	}
}

// TestSpread reads what Prometheus and VictoriaMetrics answer.
func TestSpread(t *testing.T) {
	const answer = `[
		{"metric": {"__name__": "shop_queue", "instance": "agent-1", "stream": "0001"}, "values": [[1.5, "7"], [2.5, "3"]]},
		{"metric": {"__name__": "shop_size", "instance": "agent-1", "stream": "0001"}, "histograms": [[1.5, {"count": "3", "sum": "11", "buckets":
			[[3, "-1e-128", "1e-128", "1"], [0, "1.6817928305074292", "2", "2"]]}]]},
		{"metric": {"__name__": "shop_size_bucket", "service_instance_id": "agent-2", "stream": "0001", "vmrange": "1.682e+00...2.000e+00"}, "values": [[1.5, "2"]]},
		{"metric": {"__name__": "shop_size_bucket", "service_instance_id": "agent-2", "stream": "0001", "vmrange": "0...1.000e-09"}, "values": [[1.5, "1"]]}
	]`
	var results []answered
	if err := json.Unmarshal([]byte(answer), &results); err != nil {
		t.Fatal(err)
	}
	got := map[seriesKey][]sample{}
	for _, r := range results {
		if err := r.spread(got); err != nil {
			t.Fatal(err)
		}
	}
	want := map[seriesKey][]sample{
		{"shop_queue", "agent-1", "0001", ""}:               {{1500, 7}, {2500, 3}},
		{"shop_size_count", "agent-1", "0001", ""}:          {{1500, 3}},
		{"shop_size_sum", "agent-1", "0001", ""}:            {{1500, 11}},
		{"shop_size_bucket", "agent-1", "0001", zeroBucket}: {{1500, 1}},
		{"shop_size_bucket", "agent-1", "0001", "3"}:        {{1500, 2}},
		{"shop_size_bucket", "agent-2", "0001", "3"}:        {{1500, 2}},
		{"shop_size_bucket", "agent-2", "0001", zeroBucket}: {{1500, 1}},
	}
	if len(got) != len(want) {
		t.Errorf("%d series, want %d", len(got), len(want))
	}
	for key, samples := range want {
		if !slices.Equal(got[key], samples) {
			t.Errorf("%+v is %v, want %v", key, got[key], samples)
		}
	}
	if results[0].spread(got) == nil {
		t.Error("a second series of the same name is no error")
	}
}

func TestScraped(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "# HELP a b\na{x=\"1\",y=\"2\"} 3\na{x=\"2\"} 4\nab 9\nc NaN?\n")
	}))
	defer server.Close()
	m, err := scrape(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	if m.sum("a") != 7 || m.sum("a", `x="1"`, `y="2"`) != 3 || m.sum("ab") != 9 || m.sum("b") != 0 || !m.has("ab") || m.has("b") {
		t.Errorf("%v", m)
	}
}

func TestFreePortsAreGivenOnce(t *testing.T) {
	seen := map[int]bool{}
	for range 100 { // two of as many are the same in one of five runs, otherwise
		ports, err := freePorts(1)
		if err != nil || seen[ports[0]] {
			t.Fatalf("%v, %v", ports, err)
		}
		seen[ports[0]] = true
	}
}

// TestGate hands on what the backend says, notes what it refuses, and answers nothing for one that is away.
func TestGate(t *testing.T) {
	status := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "out of order sample")
	}))
	g, err := newGate(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()
	post := func() (string, error) {
		resp, err := http.Post(g.url+"/write", "", strings.NewReader("samples"))
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return resp.Status + ": " + string(body), err
	}
	for _, status = range []int{200, 503, 400, 400} {
		if got, err := post(); err != nil || !strings.HasSuffix(got, ": out of order sample") || !strings.HasPrefix(got, strconv.Itoa(status)) {
			t.Errorf("%d: %q, %v", status, got, err)
		}
	}
	server.Close()
	if got, err := post(); err == nil {
		t.Errorf("of a backend that is away: %q", got)
	}
	if n, excuse := g.refusals(); n != 2 || excuse != `/write 400: "out of order sample"` {
		t.Errorf("%d refused, %s", n, excuse)
	}
}

// TestRemoteWrite: what is merged over files that export OTLP exports by remote write, and brings no queues.
func TestRemoteWrite(t *testing.T) {
	file, err := remoteWrite(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Base(file) != "remote-write.yaml" || strings.Contains(string(text), "sending_queue") || !strings.Contains(string(text), "prometheus_remote_write") {
		t.Errorf("%s", text)
	}
}
