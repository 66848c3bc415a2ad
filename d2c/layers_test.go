// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Arrows point down: what a package of d2c may import of the others.
func TestLayers(t *testing.T) {
	const module = "github.com/deltaring/deltaring/"
	allowed := map[string][]string{
		"d2c/internal/fold":     nil,
		"d2c/store":             {"streamid"},
		"d2c/internal/alike":    {"streamid"},
		"d2c/internal/table":    {"streamid", "d2c/internal/fold"},
		"d2c/internal/points":   {"streamid", "d2c/internal/fold", "d2c/internal/table"},
		"d2c/internal/commit":   {"streamid", "d2c/store", "d2c/internal/alike", "d2c/internal/fold", "d2c/internal/table", "d2c/internal/points"},
		"d2c/internal/journal":  {"d2c/store", "d2c/internal/commit", "d2c/internal/table"},
		"d2c/internal/shared":   {"streamid", "d2c/store", "d2c/internal/commit", "d2c/internal/fold", "d2c/internal/table"},
		"d2c/storetest":         {"streamid", "d2c/store"},
		"d2c/store/log":         {"streamid", "d2c/store"},
		"d2c/store/log/logtest": {"d2c/store/log"},
	}
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"d2c/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for line := range strings.Lines(string(out)) {
		imports := strings.Fields(line)
		name := strings.TrimPrefix(imports[0], module)
		may, known := allowed[name]
		if !known {
			if name != "d2c" {
				t.Errorf("%s is in no layer", name)
			}
			continue
		}
		seen++
		for _, path := range imports[1:] {
			if ours, ok := strings.CutPrefix(path, module); ok && !slices.Contains(may, ours) {
				t.Errorf("%s imports %s, which is not below it", name, ours)
			}
			// Folds know no messages of the data model.
			if name == "d2c/internal/fold" && strings.Contains(path, "pdata") {
				t.Errorf("%s imports %s", name, path)
			}
		}
	}
	if seen != len(allowed) {
		t.Errorf("%d packages, want %d", seen, len(allowed))
	}
}
