// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/deltaring/deltaring/streamid"
)

var update = flag.Bool("update", false, "add new vectors to testdata/v1.json")

const goldenFile = "testdata/v1.json"

// vector is one entry of the golden file.
type vector struct {
	Description string `json:"description"`
	identity
	Hashes hashes `json:"hashes"`
}

func TestGoldenVectors(t *testing.T) {
	if *update {
		writeGolden(t)
	}
	vectors := readGolden(t)
	if len(vectors) != len(goldenIdentities()) {
		t.Fatalf("%s has %d vectors, want %d: run go test -update", goldenFile, len(vectors), len(goldenIdentities()))
	}
	r := rand.New(rand.NewPCG(9, 10))
	for _, v := range vectors {
		t.Run(v.Description, func(t *testing.T) {
			if got := v.reference(); got != v.Hashes {
				t.Errorf("reference: got %+v, want %+v", got, v.Hashes)
			}
			if got := check(t, v.identity); got != v.Hashes.ID {
				t.Errorf("got %v, want %v", got, v.Hashes.ID)
			}
			if got := check(t, v.shuffled(r)); got != v.Hashes.ID {
				t.Errorf("shuffled: got %v, want %v", got, v.Hashes.ID)
			}
			if got, err := streamid.Parse(v.Hashes.ID.String()); got != v.Hashes.ID || err != nil {
				t.Errorf("parsed: got %v, %v, want %v", got, err, v.Hashes.ID)
			}
		})
	}
}

// TestGoldenVectorsAreOneToOne finds collisions, and streams to which the file gives two IDs.
func TestGoldenVectorsAreOneToOne(t *testing.T) {
	seen := newBijection(t)
	for _, v := range readGolden(t) {
		seen.add(v.identity, v.Hashes.ID)
	}
}

func readGolden(t testing.TB) []vector {
	t.Helper()
	data, err := os.ReadFile(goldenFile)
	if err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	var vectors []vector
	if err := decoder.Decode(&vectors); err != nil {
		t.Fatalf("%s: %v", goldenFile, err)
	}
	return vectors
}

// writeGolden writes one vector a line. It refuses to change a vector that the file has.
func writeGolden(t *testing.T) {
	t.Helper()
	var frozen []vector
	if _, err := os.Stat(goldenFile); err == nil {
		frozen = readGolden(t)
	}
	var lines [][]byte
	for i, g := range goldenIdentities() {
		v := vector{g.description, g.identity, g.reference()}
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
	if err := os.WriteFile(goldenFile, out, 0o644); err != nil {
		t.Fatal(err)
	}
}

type described struct {
	description string
	identity
}

// goldenIdentities are the streams of the golden file. Append; do not change.
func goldenIdentities() []described {
	typical := identity{
		Resource: []attribute{
			attr("service.name", str("checkout")),
			attr("service.namespace", str("shop")),
			attr("service.instance.id", str("627cc493-f310-47de-96bd-71410b7dec09")),
			attr("process.pid", integer(4711)),
		},
		Scope: scope{
			Name: "go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp", Version: "0.60.0",
			Attributes: []attribute{attr("scope.attribute", boolean(true))},
		},
		Metric: metric{Name: "http.server.request.duration", Unit: "s", Type: "histogram", Temporality: "delta"},
		Attributes: []attribute{
			attr("http.request.method", str("GET")),
			attr("http.route", str("/api/v1/cart/{id}")),
			attr("http.response.status_code", integer(200)),
			attr("server.address", str("shop.example.com")),
		},
	}
	nothing := identity{Metric: metric{Type: "none", Temporality: "unspecified"}}
	var all []described
	add := func(description string, id identity) {
		all = append(all, described{description, id})
	}

	add("nothing at all", nothing)
	add("typical", typical)
	for _, seed := range []uint64{1, 0x9E3779B97F4A7C15, math.MaxUint64} {
		id := typical
		id.Seed = seed
		add("typical under another seed", id)
		id = nothing
		id.Seed = seed
		add("nothing under another seed", id)
	}
	for _, kind := range metricTypes {
		for _, temporality := range temporalities {
			for _, monotonic := range []bool{false, true} {
				if temporality != "unspecified" && (kind == "none" || kind == "gauge" || kind == "summary") {
					continue
				}
				if monotonic && kind != "sum" {
					continue
				}
				id := typical
				id.Metric.Type, id.Metric.Temporality, id.Metric.Monotonic = kind, temporality, monotonic
				if id.Metric == typical.Metric {
					continue
				}
				add("metric type and temporality", id)
			}
		}
	}

	values := []struct {
		description string
		value       value
	}{
		{"empty value", empty()},
		{"empty string", str("")},
		{"string of 1 byte", str("x")},
		{"string of 3 bytes", str("xyz")},
		{"string of 4 bytes", str("wxyz")},
		{"string of 8 bytes", str("abcdefgh")},
		{"string of 9 bytes", str("abcdefghi")},
		{"string of 16 bytes", str("abcdefghijklmnop")},
		{"string of 17 bytes", str("abcdefghijklmnopq")},
		{"string of 128 bytes", value{Type: "str", Text: "abcdefgh", Times: 16}},
		{"string of 129 bytes", value{Type: "str", Text: "abc", Times: 43}},
		{"string of 240 bytes", value{Type: "str", Text: "abcdefgh", Times: 30}},
		{"string of 241 bytes", value{Type: "str", Text: "x", Times: 241}},
		{"string of 1025 bytes", value{Type: "str", Text: "abcde", Times: 205}},
		{"string of 1 MiB", value{Type: "str", Text: "0123456789abcdef", Times: 1 << 16}},
		{"string not ASCII", str("größe 尺寸 размер 📏")},
		{"string in another normalization", str("gro\u0308ße 尺寸 размер 📏")},
		{"string with NUL", str("a\x00b")},
		{"string not UTF-8", value{Type: "str", Hex: "ff00fe"}},
		{"false", boolean(false)},
		{"true", boolean(true)},
		{"int 0", integer(0)},
		{"int 1", integer(1)},
		{"int -1", integer(-1)},
		{"int minimum", integer(math.MinInt64)},
		{"int maximum", integer(math.MaxInt64)},
		{"double 0", double(0)},
		{"double -0", double(math.Copysign(0, -1))},
		{"double 1", double(1)},
		{"double 0.1", double(0.1)},
		{"double -infinity", double(math.Inf(-1))},
		{"double +infinity", double(math.Inf(1))},
		{"double smallest", double(math.SmallestNonzeroFloat64)},
		{"double NaN", doubleBits(0x7FF8000000000001)},
		{"double NaN, another quiet one", doubleBits(0x7FF8000000000000)},
		{"double NaN, negative", doubleBits(0xFFF8000000000000)},
		{"double NaN, with payload", doubleBits(0x7FFFFFFFFFFFFFFF)},
		{"double NaN, signalling", doubleBits(0x7FF0000000000001)},
		{"empty map", kvlist()},
		{"map of an empty key and an empty value", kvlist(attr("", empty()))},
		{"map", kvlist(attr("a", str("1")), attr("b", integer(2)))},
		{"map, in another order", kvlist(attr("b", integer(2)), attr("a", str("1")))},
		{"map with a key twice", kvlist(attr("a", str("1")), attr("a", str("1")))},
		{"map in a map", kvlist(attr("a", kvlist(attr("a", kvlist()))), attr("b", array(kvlist(), array())))},
		{"empty slice", array()},
		{"slice of an empty value", array(empty())},
		{"slice of two empty values", array(empty(), empty())},
		{"slice of an empty slice", array(array())},
		{"slice", array(str("a"), str("b"), integer(3), double(4), boolean(true), blob("e"))},
		{"slice, in another order", array(str("b"), str("a"), integer(3), double(4), boolean(true), blob("e"))},
		{"slice of maps", array(kvlist(attr("a", integer(1)), attr("b", integer(2))), kvlist())},
		{"empty bytes", blob("")},
		{"bytes", blob("x")},
		{"bytes, 8 of them", blob("abcdefgh")},
		{"bytes, 1024 of them", value{Type: "bytes", Hex: "00ff", Times: 512}},
		{"bytes, 1025 of them", value{Type: "bytes", Hex: "00ff7f807e", Times: 205}},
		{"bytes, 1 MiB", value{Type: "bytes", Hex: "000102030405060708090a0b0c0d0e0f", Times: 1 << 16}},
	}
	for _, v := range values {
		id := typical
		id.Attributes = []attribute{attr("key", v.value), attr("other", str("value"))}
		add("point attribute: "+v.description, id)
	}

	at := func(description string, as ...attribute) {
		id := nothing
		id.Resource = as
		add("resource: "+description, id)
		id = nothing
		id.Scope.Attributes = as
		add("scope: "+description, id)
		id = nothing
		id.Attributes = as
		add("point: "+description, id)
	}
	at("one attribute", attr("a", str("b")))
	at("empty key and empty value", attr("", empty()))
	at("the same pair twice", attr("a", str("b")), attr("a", str("b")))
	at("the same pair three times", attr("a", str("b")), attr("a", str("b")), attr("a", str("b")))
	at("a key with two values", attr("a", str("b")), attr("a", str("c")))
	at("a key with two values, in another order", attr("a", str("c")), attr("a", str("b")))
	at("key not ASCII", attr("größe", str("1")))
	at("key of 300 bytes", attr(string(bytes.Repeat([]byte("key"), 100)), str("1")))

	boundaries := []scope{{Name: "abc"}, {Name: "ab", Version: "c"}, {Name: "a", Version: "bc"}, {Version: "abc"}}
	for _, b := range boundaries {
		id := nothing
		id.Scope = b
		add("scope name and version", id)
		id = nothing
		id.Metric.Name, id.Metric.Unit = b.Name, b.Version
		add("metric name and unit", id)
	}

	acme := attr("x-tenant", array(str("acme")))
	for _, tenant := range []struct {
		description string
		keys        []attribute
	}{
		{"one value", []attribute{acme}},
		{"another value", []attribute{attr("x-tenant", array(str("globex")))}},
		{"another key", []attribute{attr("x-scope-orgid", array(str("acme")))}},
		{"an empty value", []attribute{attr("x-tenant", array(str("")))}},
		{"no value", []attribute{attr("x-tenant", array())}},
		{"two values", []attribute{attr("x-tenant", array(str("acme"), str("globex")))}},
		{"two values, in another order", []attribute{attr("x-tenant", array(str("globex"), str("acme")))}},
		{"two values in one", []attribute{attr("x-tenant", array(str("acme,globex")))}},
		{"two keys", []attribute{acme, attr("x-team", array(str("a")))}},
		{"two keys, in another order", []attribute{attr("x-team", array(str("a"))), acme}},
		{"two keys, one without a value", []attribute{acme, attr("x-team", array())}},
		{"two keys, one with an empty value", []attribute{acme, attr("x-team", array(str("")))}},
		{"a value not ASCII", []attribute{attr("x-tenant-bin", array(value{Type: "str", Hex: "00ff"}))}},
	} {
		id := typical
		id.Tenant = tenant.keys
		add("tenant: "+tenant.description, id)
	}
	for _, edit := range []func(*identity){
		func(id *identity) { id.Tenant = []attribute{acme} },
		func(id *identity) { id.Resource = []attribute{acme} },
		func(id *identity) { id.Tenant, id.Resource = []attribute{acme}, []attribute{acme} },
		func(id *identity) { id.Tenant, id.Seed = []attribute{acme}, 1 },
	} {
		id := nothing
		edit(&id)
		add("tenant or resource", id)
	}
	return all
}
