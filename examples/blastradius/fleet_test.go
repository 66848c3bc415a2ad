// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/deltaring/deltaring/ring"
)

func TestParseFleet(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	listed := []ring.Member{{Name: "10.0.0.1:4317", Weight: 2, Zone: "a"}, {Name: "b", Weight: 1}, {Name: "c", Weight: 0}}
	for _, tc := range []struct {
		spec string
		want []ring.Member
	}{
		{"2", ring.Equal("worker-0", "worker-1")},
		{"b,a", ring.Equal("b", "a")},
		{"a:3,b:0,c:1:eu-1a,d:2:", []ring.Member{{Name: "a", Weight: 3}, {Name: "b"}, {Name: "c", Weight: 1, Zone: "eu-1a"}, {Name: "d", Weight: 2}}},
		{file("fleet.yaml", "- {name: '10.0.0.1:4317', weight: 2, zone: a}\n- name: b\n- {name: c, weight: 0}\n"), listed},
		{file("fleet.json", `[{"name": "10.0.0.1:4317", "weight": 2, "zone": "a"}, {"name": "b"}, {"name": "c", "weight": 0}]`), listed},
	} {
		got, err := parseFleet(tc.spec)
		if err != nil || !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %+v, %v; want %+v", tc.spec, got, err, tc.want)
		}
	}
	for _, tc := range []struct{ spec, want string }{
		{"", "no members"},
		{"0", "0 members"},
		{"-1", "-1 members"},
		{"65537", "65537 members"},
		{"a,b,a", `"a"`},
		{"a,,b", "name"},
		{"a:0,b:0", "weight"},
		{"a:-1", `weight "-1"`},
		{"a:4294967296", `weight "4294967296"`},
		{"a:1:z:x", `member "a:1:z:x"`},
		{filepath.Join(dir, "missing.yaml"), "missing.yaml"},
		{file("empty.yaml", ""), "member"},
		{file("typo.yaml", "- {name: a, wieght: 1}\n"), "wieght"},
		{file("shape.json", `{"a": 1}`), "shape.json: want a list"},
		{file("negative.json", `[{"name": "a", "weight": -1}]`), "negative.json"},
	} {
		if got, err := parseFleet(tc.spec); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %+v, %v; want an error with %q", tc.spec, got, err, tc.want)
		}
	}
}

func TestLeastMoved(t *testing.T) {
	for _, tc := range []struct {
		from, to string
		want     float64
	}{
		{"2", "3", 1. / 3},
		{"3", "2", 1. / 3},
		{"100", "101", 1. / 101},
		{"3", "3", 0},
		{"a,b,c", "a,b,d", 1. / 3},
		{"a,b", "c,d", 1},
		{"a:1,b:1", "a:1,b:3", 1. / 4}, // b has 1/2 and then 3/4
		{"a:1,b:1", "a:5,b:5", 0},
		{"a:1,b:1", "a:1,b:0", 1. / 2},
	} {
		from, err := parseFleet(tc.from)
		if err != nil {
			t.Fatal(err)
		}
		to, err := parseFleet(tc.to)
		if err != nil {
			t.Fatal(err)
		}
		if got := leastMoved(from, to); math.Abs(got-tc.want) > 1e-12 {
			t.Errorf("%s to %s: got %v, want %v", tc.from, tc.to, got, tc.want)
		}
	}
}
