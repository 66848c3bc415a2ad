// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/streamid"
)

const allKeys = "streamID,metric,resource,service,service.name+http.route,aws.ecs.task.id"

func keysOf(t *testing.T, list string) []routingKey {
	t.Helper()
	keys, err := parseKeys(list)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// What is predicted must be what a gateway does: the groups of one owner have as many points as the part of that owner
// when a Splitter splits the same batch.
func TestPredictionIsWhatSplitDoes(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for number := range 3 {
		batch := newService(rng, number).task(rng)
		newService(rng, 10+number).task(rng).ResourceMetrics().MoveAndAppendTo(batch.ResourceMetrics())
		batch.ResourceMetrics().At(1).Resource().Attributes().Remove("service.name")
		for _, key := range keysOf(t, strings.Replace(allKeys, "", "", 1)) {
			p := newPopulation("test", []routingKey{key})
			p.add(batch)
			const n = 5
			owner := func(key uint64) int { return int(key % n) }
			var want [n]int
			for _, g := range p.ByKey[0].Groups {
				want[owner(g.Key)] += g.Points
			}
			var got [n]int
			again := pmetric.NewMetrics()
			batch.CopyTo(again)
			splitter := streamid.Splitter{Key: key.Key}
			parts, missing := splitter.Metrics(again, n, owner, nil)
			for _, part := range parts {
				got[part.Owner] += part.Batch.DataPointCount()
			}
			if got != want || missing != p.ByKey[0].Lacking {
				t.Errorf("%s: split into %v, %d lack the key; predicted %v and %d", key.Name, got, missing, want, p.ByKey[0].Lacking)
			}
		}
	}
}

func TestJSONLines(t *testing.T) {
	p := newPopulation("file", keysOf(t, "streamID,metric,service,resource,aws.ecs.task.id"))
	if err := readJSONLines("testdata/metrics.jsonl", p); err != nil {
		t.Fatal(err)
	}
	if p.Streams != 7 || p.Points != 8 {
		t.Errorf("got %d streams, %d points; want 7 and 8", p.Streams, p.Points)
	}
	// Groups in the order in which they are seen: streams and points.
	want := [][][2]int{
		{{1, 2}, {1, 1}, {1, 1}, {1, 1}, {1, 1}, {1, 1}, {1, 1}},
		{{3, 4}, {1, 1}, {1, 1}, {1, 1}, {1, 1}}, // orders, latency, load, size, old
		{{3, 4}, {4, 4}},
		{{3, 4}, {4, 4}},
		{{3, 4}, {4, 4}},
	}
	for k, g := range p.ByKey {
		var got [][2]int
		for _, group := range g.Groups {
			got = append(got, [2]int{group.Streams, group.Points})
		}
		if len(got) != len(want[k]) {
			t.Errorf("%s: got %v, want %v", g.Key.Name, got, want[k])
			continue
		}
		for i := range got {
			if got[i] != want[k][i] {
				t.Errorf("%s: got %v, want %v", g.Key.Name, got, want[k])
			}
		}
		lacking := 0
		if g.Key.Name == "aws.ecs.task.id" {
			lacking = 4
		}
		if g.Lacking != lacking {
			t.Errorf("%s: %d points lack it, want %d", g.Key.Name, g.Lacking, lacking)
		}
	}
}

func TestBadJSONLines(t *testing.T) {
	good, err := os.ReadFile("testdata/metrics.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ name, content, want string }{
		{"not JSON", string(good) + "oops\n", "line 5: not OTLP metrics"},
		{"cut off", string(good[:200]), "line 1: not OTLP metrics"},
		{"empty", "", "no data points"},
		{"traces only", `{"resourceSpans":[]}`, "no data points"},
	} {
		path := filepath.Join(t.TempDir(), "metrics.jsonl")
		if err := os.WriteFile(path, []byte(tc.content), 0o600); err != nil {
			t.Fatal(err)
		}
		err := readJSONLines(path, newPopulation("file", keysOf(t, "service")))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want an error with %q", tc.name, err, tc.want)
		}
	}
	if err := readJSONLines("testdata/missing", newPopulation("file", nil)); err == nil {
		t.Error("a missing file is no error")
	}
}

// The sizes that README.md names.
func TestSyntheticSizes(t *testing.T) {
	p := newPopulation("synthetic", keysOf(t, "service,resource,aws.ecs.task.id"))
	addSynthetic(p, 1)
	if p.Streams != 65_066 || p.Points != 189_895 {
		t.Errorf("got %d streams, %d points", p.Streams, p.Points)
	}
	for i, want := range []int{services, tasks, tasks} {
		if got := len(p.ByKey[i].Groups); got != want {
			t.Errorf("%s: got %d values, want %d", p.ByKey[i].Key.Name, got, want)
		}
		if p.ByKey[i].Lacking != 0 {
			t.Errorf("%s: %d points lack it", p.ByKey[i].Key.Name, p.ByKey[i].Lacking)
		}
	}
	other := newPopulation("synthetic", nil)
	if addSynthetic(other, 2); other.Streams == p.Streams {
		t.Error("another seed gives as many streams")
	}
}
