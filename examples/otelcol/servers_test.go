// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// The releases of Prometheus that tests ask. A test that depends on what becomes of zeros, quiet streams and restarts asks all of
// them (forEachPrometheus); others ask Debian's.
var (
	debianPrometheus = release{name: "debian", flags: []string{"--enable-feature=native-histograms"}}
	newestPrometheus = release{name: "newest", tool: "PROMETHEUS", otlp: true, flags: []string{"--web.enable-otlp-receiver"}}

	prometheusReleases = []release{debianPrometheus, newestPrometheus}
)

// release is a release of Prometheus.
type release struct {
	name  string
	tool  string   // variable of the Makefile that names it; empty for the one that is installed
	otlp  bool     // takes OTLP
	flags []string // besides those that all have
}

// binary finds the server.
func (r release) binary() (string, error) {
	if r.tool != "" {
		return tool(r.tool)
	}
	path, err := exec.LookPath("prometheus")
	if err != nil {
		return "", fmt.Errorf("this test needs Debian's Prometheus server (apt-get install prometheus): %w", err)
	}
	return path, nil
}

// tool finds what a rule of the Makefile builds, by the variable that names it there.
func tool(variable string) (string, error) {
	const top = "../.."
	makefile, err := os.ReadFile(filepath.Join(top, "Makefile"))
	if err != nil {
		return "", err
	}
	named := regexp.MustCompile(`(?m)^` + variable + `\s*:=\s*(\S+)$`).FindSubmatch(makefile)
	if named == nil {
		return "", fmt.Errorf("the Makefile has no %s", variable)
	}
	target := string(named[1])
	path, err := filepath.Abs(filepath.Join(top, target))
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("this test needs %s: run \"make %s\" at the top of the repository; it takes minutes, once", target, target)
	} else if err != nil {
		return "", err
	}
	return path, nil
}

// forEachPrometheus runs a test with each release, one after the other.
func forEachPrometheus(t *testing.T, test func(t *testing.T, prom *prometheus)) {
	for _, r := range prometheusReleases {
		t.Run(r.name, func(t *testing.T) { test(t, startPrometheus(t, r)) })
	}
}

// victoriaMetrics is a running VictoriaMetrics. It answers Prometheus' queries, and takes samples in any order.
type victoriaMetrics struct {
	*child
	promQL
}

func startVictoriaMetrics(t *testing.T) *victoriaMetrics {
	t.Helper()
	binary, err := tool("VICTORIAMETRICS")
	if err != nil {
		t.Fatal(err)
	}
	v := &victoriaMetrics{}
	dir := t.TempDir()
	v.child = startOnFreePorts(t, 1, func(ports []int) (*child, error) {
		address := loopback(ports[0])
		v.url = "http://" + address
		return start(t, v.url+"/health", nil, binary,
			"-httpListenAddr="+address,
			"-storageDataPath="+filepath.Join(dir, "data"),
			"-search.latencyOffset=0s", // the latest samples are not left out
		)
	})
	return v
}
