// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"bytes"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the copies that TestCopies compares")

// copies are files of this directory that are needed elsewhere too: kustomize reads nothing above a kustomization, and Helm nothing outside
// a chart.
var copies = map[string]string{
	"kubernetes/gateways/gateway.yaml":          "gateway.yaml",
	"kubernetes/k8s-resolver/gateway-k8s.yaml":  "gateway-k8s.yaml",
	"kubernetes/one-tier/shared.yaml":           "shared.yaml",
	"kubernetes/two-tier/gateway-shared.yaml":   "gateway-shared.yaml",
	"kubernetes/two-tier-durable/durable.yaml":  "durable.yaml",
	"helm/otelcol-deltaring/files/durable.yaml": "durable.yaml",

	"helm/otelcol-deltaring/files/gateway.yaml":        "gateway.yaml",
	"helm/otelcol-deltaring/files/gateway-k8s.yaml":    "gateway-k8s.yaml",
	"helm/otelcol-deltaring/files/gateway-shared.yaml": "gateway-shared.yaml",
	"helm/otelcol-deltaring/files/shared.yaml":         "shared.yaml",
	"helm/otelcol-deltaring/files/alerts.yaml":         "monitoring/alerts.yaml",
}

// embedded are files in which others are the value of the last key, indented: one, from a line on, or several that are merged.
var embedded = map[string]struct {
	key, indent, from string
	files             []string
}{
	"kubernetes/prometheus-operator/prometheus-rule.yaml": {"spec:\n", "  ", "groups:\n", []string{"monitoring/alerts.yaml"}},
	"operator/workers.yaml":                               {"  config:\n", "    ", "extensions:\n", []string{"shared.yaml"}},
	"operator/gateways.yaml":                              {"  config:\n", "    ", "", []string{"gateway.yaml", "gateway-shared.yaml"}},
}

// TestCopies compares what is there twice. After a change run it with -update, which writes the copies.
func TestCopies(t *testing.T) {
	want := map[string][]byte{}
	for name, file := range copies {
		want[name] = read(t, file)
	}
	for name, e := range embedded {
		head, _, found := strings.Cut(string(read(t, name)), "\n"+e.key)
		content := string(read(t, e.files[0]))
		if len(e.files) > 1 {
			var args []string
			for _, file := range e.files {
				args = append(args, "--config="+file)
			}
			merged, err := yaml.Marshal(mergeConfig(t, nil, args))
			if err != nil {
				t.Fatal(err)
			}
			content = string(merged)
		}
		start := strings.Index("\n"+content, "\n"+e.from)
		if !found || start < 0 {
			t.Fatalf("%s has no %q, or %s no %q", name, e.key, e.files, e.from)
		}
		var text strings.Builder
		text.WriteString(head + "\n" + e.key)
		for line := range strings.Lines(content[start:]) {
			if line != "\n" {
				line = e.indent + line
			}
			text.WriteString(line)
		}
		want[name] = []byte(text.String())
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if *update {
			if err := os.WriteFile(filepath.FromSlash(name), want[name], 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(read(t, name), want[name]) {
			t.Errorf("%s is not what it is a copy of: go test -run TestCopies -update .", name)
		}
	}
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.FromSlash(name))
	if err != nil && !*update {
		t.Fatal(err)
	}
	return text
}

// distribution is the version that the manifest of the Collector has.
func distribution(t *testing.T) string {
	t.Helper()
	var manifest struct{ Dist struct{ Version string } }
	if err := yaml.Unmarshal(read(t, "manifest.yaml"), &manifest); err != nil || manifest.Dist.Version == "" {
		t.Fatal(manifest, err)
	}
	return manifest.Dist.Version
}
