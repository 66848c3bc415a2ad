// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
)

const goldenReductionsFile = "testdata/reductions-v1.json"

// reductionVector is one entry of the golden file of what is left of streams.
type reductionVector struct {
	Description string `json:"description"`
	identity
	Reduction reductionSpec `json:"reduction"`
	Hashes    reducedHashes `json:"hashes"`
}

func TestGoldenReductions(t *testing.T) {
	if *update {
		writeGoldenReductions(t)
	}
	vectors := readGoldenReductions(t)
	if want := len(goldenReductions()); len(vectors) != want {
		t.Fatalf("%s has %d vectors, want %d: run go test -update", goldenReductionsFile, len(vectors), want)
	}
	r := rand.New(rand.NewPCG(44, 1))
	streams, writers := newBijection(t), newBijection(t)
	for _, v := range vectors {
		t.Run(v.Description, func(t *testing.T) {
			if got := v.Reduction.reduce(v.identity); got != v.Hashes {
				t.Errorf("reference: got %+v, want %+v", got, v.Hashes)
			}
			for range 2 {
				of, writer := checkReduced(t, v.identity, v.Reduction)
				if of != v.Hashes.ID || writer != v.Hashes.Writer {
					t.Errorf("got %v and %v, want %v and %v", of, writer, v.Hashes.ID, v.Hashes.Writer)
				}
				v.identity, v.Reduction = v.shuffled(r), v.Reduction.reshuffled(r)
			}
		})
		streams.addText(v.Reduction.canonical()+v.Reduction.left(v.identity).canonical(), v.Hashes.ID)
		writers.addText(v.Reduction.canonical()+v.canonical(), v.Hashes.Writer)
	}
}

func readGoldenReductions(t testing.TB) []reductionVector {
	t.Helper()
	data, err := os.ReadFile(goldenReductionsFile)
	if err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	var vectors []reductionVector
	if err := decoder.Decode(&vectors); err != nil {
		t.Fatalf("%s: %v", goldenReductionsFile, err)
	}
	return vectors
}

// writeGoldenReductions writes one vector a line. It refuses to change a vector that the file has.
func writeGoldenReductions(t *testing.T) {
	t.Helper()
	var frozen []reductionVector
	if _, err := os.Stat(goldenReductionsFile); err == nil {
		frozen = readGoldenReductions(t)
	}
	var lines [][]byte
	for i, v := range goldenReductions() {
		v.Hashes = v.Reduction.reduce(v.identity)
		if i < len(frozen) && frozen[i].Hashes != v.Hashes {
			t.Fatalf("vector %d, %q: encoding v1 is frozen, but the hashes differ", i, frozen[i].Description)
		}
		var line bytes.Buffer
		encoder := json.NewEncoder(&line)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(v); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, bytes.TrimSpace(line.Bytes()))
	}
	out := slices.Concat([]byte("[\n"), bytes.Join(lines, []byte(",\n")), []byte("\n]\n"))
	if err := os.WriteFile(goldenReductionsFile, out, 0o644); err != nil {
		t.Fatal(err)
	}
}

// goldenReductions are the vectors of the golden file, without hashes. Append; do not change.
func goldenReductions() (all []reductionVector) {
	typical := goldenIdentities()[1].identity
	typical.Metric = metric{Name: "http.server.requests", Unit: "{request}", Type: "sum", Monotonic: true, Temporality: "delta"}
	nothing := identity{Metric: metric{Type: "none", Temporality: "unspecified"}}
	pod := reductionSpec{Resource: drop("service.instance.id", "process.pid")}
	add := func(description string, id identity, r reductionSpec) {
		all = append(all, reductionVector{Description: description, identity: id, Reduction: r})
	}
	many := make([]string, 12)
	for i := range many {
		many[i] = fmt.Sprintf("attribute.%02d", i)
	}
	for _, r := range []struct {
		description string
		reductionSpec
	}{
		{"drop of the resource", pod},
		{"keep of the resource", reductionSpec{Resource: keep("service.name", "service.namespace")}},
		{"keep nothing of the resource", reductionSpec{Resource: keep()}},
		{"drop of the scope", reductionSpec{Scope: drop("scope.attribute")}},
		{"keep nothing of the scope", reductionSpec{Scope: keep()}},
		{"drop of the point", reductionSpec{Point: drop("http.route", "server.address")}},
		{"keep of the point", reductionSpec{Point: keep("http.request.method", "http.response.status_code")}},
		{"keep nothing of the point", reductionSpec{Point: keep()}},
		{"drop what is not there", reductionSpec{Point: drop("not there")}},
		{"drop many", reductionSpec{Point: drop(slices.Concat(many, []string{"http.route"})...)}},
		{"keep many", reductionSpec{Point: keep(slices.Concat(many, []string{"http.route"})...)}},
		{"of all parts", reductionSpec{drop("process.pid", "service.instance.id"), keep(), keep("http.route")}},
		{"names not ASCII", reductionSpec{Point: drop("größe", "\x00", "drop", "keep")}},
	} {
		add(r.description, typical, r.reductionSpec)
		add(r.description+" of nothing", nothing, r.reductionSpec)
	}
	for _, edit := range []struct {
		description string
		edit        func(*identity)
	}{
		{"another instance", func(id *identity) {
			id.Resource = []attribute{id.Resource[0], id.Resource[1], attr("service.instance.id", str("another")), attr("process.pid", integer(1))}
		}},
		{"another service", func(id *identity) { id.Resource = id.Resource[1:] }},
		{"cumulative", func(id *identity) { id.Metric.Temporality = "cumulative" }},
		{"no temporality", func(id *identity) { id.Metric.Temporality = "unspecified" }},
		{"unknown temporality", func(id *identity) { id.Metric.Temporality = "unknown" }},
		{"not monotonic", func(id *identity) { id.Metric.Monotonic = false }},
		{"histogram", func(id *identity) { id.Metric.Type, id.Metric.Monotonic = "histogram", false }},
		{"exponential histogram", func(id *identity) { id.Metric.Type, id.Metric.Monotonic = "exponential_histogram", false }},
		{"gauge", func(id *identity) {
			id.Metric.Type, id.Metric.Monotonic, id.Metric.Temporality = "gauge", false, "unspecified"
		}},
		{"a key twice", func(id *identity) { id.Attributes = []attribute{attr("a", str("1")), attr("a", str("2"))} }},
		{"a tenant", func(id *identity) { id.Tenant = []attribute{attr("x-tenant", array(str("acme")))} }},
		{"another tenant", func(id *identity) { id.Tenant = []attribute{attr("x-tenant", array(str("globex")))} }},
		{"a tenant without values", func(id *identity) { id.Tenant = []attribute{attr("x-tenant", array())} }},
		{"another seed", func(id *identity) { id.Seed = 0x9E3779B97F4A7C15 }},
		{"another seed and a tenant", func(id *identity) {
			id.Seed, id.Tenant = 1, []attribute{attr("x-tenant", array(str("acme"))), attr("x-team", array(str("a"), str("")))}
		}},
	} {
		id := typical
		edit.edit(&id)
		add(edit.description, id, pod)
		add(edit.description+", keep nothing of the point", id, reductionSpec{Resource: pod.Resource, Point: keep()})
	}
	return all
}
