// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

func validate(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := exec.Command(binary(t), append([]string{"validate"}, args...)...).CombinedOutput()
	return string(out), err
}

func TestConfigsAreAccepted(t *testing.T) {
	files, err := filepath.Glob("*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	configs := slices.DeleteFunc(files, func(f string) bool { return f == "manifest.yaml" })
	if len(configs) < 2 {
		t.Fatalf("found only %q", configs)
	}
	for _, config := range configs {
		args := []string{"--config", config}
		if config == "gateway-shared.yaml" {
			args = append([]string{"--config", "gateway.yaml"}, args...) // it is merged over that one
		}
		if out, err := validate(t, args...); err != nil {
			t.Errorf("%s: %v\n%s", config, err, out)
		}
	}
}

func TestBadConfigsAreRefusedByName(t *testing.T) {
	for _, tc := range []struct{ setting, mention string }{
		{"max_stale: -1s", "max_stale"},
		{"max_stale: soon", "max_stale"},
		{"late_window: -5m", "late_window"},
		{"max_streams: -1", "max_streams"},
		{"max_streams: many", "max_streams"},
		{"gap: forget", "gap"},
		{"overlap: subtract", "overlap"},
		{"late_windows: 5m", "late_windows"},
		// Not there yet: must not be accepted and then do nothing.
		{"emit_zero: true", "emit_zero"},
		{"reemit_interval: 1m", "reemit_interval"},
	} {
		t.Run(tc.setting, func(t *testing.T) {
			out, err := validate(t, "--config", "one-node.yaml", "--config", "yaml:processors: {d2c: {"+tc.setting+"}}")
			if err == nil {
				t.Fatal("accepted")
			}
			if !regexp.MustCompile(`\b` + tc.mention + `\b`).MatchString(out) {
				t.Errorf("refused without naming %s:\n%s", tc.mention, out)
			}
		})
	}
}
