// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"flag"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite what README.md and testdata say of the output")

// README.md shows real output.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```\n\\$ go run \\. ([^\n]*)\n(.*?)```\n")
	runs := 0
	renewed := block.ReplaceAllFunc(readme, func(b []byte) []byte {
		runs++
		parts := block.FindSubmatch(b)
		var out bytes.Buffer
		if err := run(strings.Fields(string(parts[1])), &out, io.Discard); err != nil {
			t.Fatalf("%s: %v", parts[1], err)
		}
		if !bytes.Equal(out.Bytes(), parts[2]) && !*update {
			t.Errorf("%s: README.md does not show the output, which is\n%s", parts[1], out.Bytes())
		}
		return []byte("```\n$ go run . " + string(parts[1]) + "\n" + out.String() + "```\n")
	})
	if runs < 4 {
		t.Errorf("%d runs found in README.md, want 4 or more", runs)
	}
	if *update {
		if err := os.WriteFile("README.md", renewed, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestGolden(t *testing.T) {
	for name, args := range map[string]string{
		"change.golden": "-from a:1:x,b:2:y -to a:1:x,b:2:y,c:1:x -metrics testdata/metrics.jsonl",
		"roll.golden":   "-from a,b -roll 2 -metrics testdata/metrics.jsonl -key streamID,country.code+service.name",
	} {
		var out bytes.Buffer
		if err := run(strings.Fields(args), &out, io.Discard); err != nil {
			t.Fatalf("%s: %v", args, err)
		}
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out.Bytes(), want) {
			t.Errorf("%s: got\n%s\nwant\n%s", args, out.Bytes(), want)
		}
	}
}

func TestPlots(t *testing.T) {
	for _, args := range []string{"-from 2 -to 3", "-from 3 -k8s 1/0", "-from 1 -roll 1"} {
		path := filepath.Join(t.TempDir(), "plot.png")
		args := append(strings.Fields(args), "-metrics", "testdata/metrics.jsonl", "-png", path)
		if err := run(args, io.Discard, io.Discard); err != nil {
			t.Fatalf("%s: %v", args, err)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		img, err := png.Decode(file)
		if err != nil {
			t.Fatal(err)
		}
		ours := 0 // pixels in the color of deltaring's bars and lines
		wr, wg, wb, _ := colors[0].RGBA()
		for y := range img.Bounds().Dy() {
			for x := range img.Bounds().Dx() {
				if r, g, b, _ := img.At(x, y).RGBA(); r == wr && g == wg && b == wb {
					ours++
				}
			}
		}
		if ours < 100 {
			t.Errorf("%s: %d pixels show deltaring", args, ours)
		}
	}
	args := "-from 2 -to 3 -metrics testdata/metrics.jsonl -png testdata/missing/plot.png"
	if err := run(strings.Fields(args), io.Discard, io.Discard); err == nil {
		t.Error("a plot that cannot be written is no error")
	}
}

func TestBadInput(t *testing.T) {
	for _, tc := range []struct{ args, want string }{
		{"-from 2", "want one of -to, -roll, -ecs, -k8s"},
		{"-from 2 -to 3 -roll 1", "-to and -roll"},
		{"-from 2 -ecs 100/200 -k8s 1/0", "-ecs and -k8s"},
		{"-to 3", "-from: no members"},
		{"-from 2 -to x,x", "-to: "},
		{"-from 2 -to 3 more", `"more"`},
		{"-from 2 -to 3 -names kept", "-names"},
		{"-from 2 -roll 1 -names other", `-names: "other"`},
		{"-from 2 -roll 3", "-roll: 3 at a time"},
		{"-from 2 -roll 0", "-roll: 0 at a time"},
		{"-from 2 -ecs 100/100", "-ecs: minimum healthy percent 100"},
		{"-from 2 -ecs 101/200", "-ecs: minimum healthy percent"},
		{"-from 2 -k8s 0/0", "-k8s: maxSurge 0 and maxUnavailable 0"},
		{"-from 2 -to 3 -key streamid", `-key: unknown routing key "streamid", did you mean "streamID"?`},
		{"-from 2 -to 3 -key traceID", "traceID"},
		{"-from 2 -to 3 -key attributes", "attributes"},
		{"-from 2 -to 3 -key service,service", "twice"},
		{"-from 2 -to 3 -key service,", "empty"},
		{"-from 2 -to 3 -key a.b+", "attribute 2"},
		{"-from 2 -to 3 -metrics testdata/missing", "testdata/missing"},
		{"-from 2 -to 3 -metrics testdata/metrics.jsonl -seed 2", "-seed"},
		{"-from 2 -to 3 -seed x", "seed"},
	} {
		var out bytes.Buffer
		err := run(strings.Fields(tc.args), &out, io.Discard)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want an error with %q", tc.args, err, tc.want)
		}
		if out.Len() > 0 {
			t.Errorf("%s: wrote %q", tc.args, out.String())
		}
	}
}
