// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestRollingRestarts restarts durable.yaml under load as a rolling update does.
func TestRollingRestarts(t *testing.T) {
	t.Parallel()
	n := newNode(t, newWitness("shared"), t.TempDir(), "--config", "durable.yaml")
	f := startFleet(t, n, false)
	for range 5 {
		n.start(t)
		f.awaitProgress(t)
		n.stop(t)
		f.check(t)
	}
	n.start(t)
	f.stop(t)
	f.finish(t)
	f.checkTelemetry(t)
	n.stop(t)
	t.Log(f.summary())
}

// TestReload has durable.yaml read its configuration again under load, changed and unchanged.
func TestReload(t *testing.T) {
	t.Parallel()
	change := filepath.Join(t.TempDir(), "change.yaml")
	configure := func(lateWindow string) {
		t.Helper()
		if err := os.WriteFile(change, []byte("processors: {d2c: {late_window: "+lateWindow+"}}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	configure("5m")
	n := newNode(t, newWitness("shared"), t.TempDir(), "--config", "durable.yaml", "--config", change)
	f := startFleet(t, n, false)
	n.start(t)
	for _, lateWindow := range []string{"5m", "6m", "6m", "7m"} {
		f.awaitProgress(t)
		configure(lateWindow)
		n.reload(t)
		f.check(t)
	}
	f.awaitProgress(t)
	f.stop(t)
	f.finish(t)
	f.checkTelemetry(t)
	if n.lives != 1 {
		t.Errorf("%d processes, want 1", n.lives)
	}
	n.stop(t)
	t.Log(f.summary())
}

// TestLostAnswers kills durable.yaml when a batch has been counted and its sender does not know.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name       string
		away, mute bool
	}{
		{"the backend has no sample of it", true, false},
		{"the backend has its samples", false, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWitness("")
			n := newNode(t, w, t.TempDir(), "--config", "durable.yaml")
			s := newSender(t, n, "producer-0", 1, 2)
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			n.start(t)
			for _, interval := range []int{0, 2, 1, 3} { // a gap, what fills it, and what follows
				p := s.pack(interval)
				w.set(tc.away, tc.mute)
				if err := s.attempt(ctx, 0, p); status.Code(err) != codes.Unavailable {
					t.Fatalf("the sender got %v, want %v", err, codes.Unavailable)
				}
				n.kill()
				w.set(false, false)
				n.start(t)
				for _, again := range []bool{false, true} {
					if err := s.send(ctx, 0, p, again); err != nil {
						t.Fatal(err)
					}
				}
			}
			s.batch = 4
			if err := s.finish(ctx); err != nil {
				t.Fatal(err)
			}
			if err := w.check(); err != nil {
				t.Error(err)
			}
			if err := w.checkStarts(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestOneStatePerID puts d2c into two pipelines, which makes two processors with one name.
func TestOneStatePerID(t *testing.T) {
	t.Parallel()
	t.Run("one name for both", func(t *testing.T) {
		n := newNode(t, newWitness(""), t.TempDir(), "--config", "durable.yaml", "--config",
			"yaml:service: {pipelines: {metrics/again: {receivers: [otlp], processors: [memory_limiter, d2c], exporters: [lanes]}}}")
		log := n.refuse(t)
		for _, mention := range []string{"d2c/a", "d2c/b"} {
			if !strings.Contains(log, mention) {
				t.Errorf("refused without mentioning %s:\n%s", mention, log)
			}
		}
	})
	t.Run("a name each", func(t *testing.T) {
		w, other := newWitness(""), newWitness("")
		n := newNode(t, w, t.TempDir(), "--config", "durable.yaml", "--config", `yaml:
processors:
  d2c/a: {state: {storage: file_storage}}
  d2c/b: {state: {storage: file_storage}}
exporters:
  otlp_http/b:
    metrics_endpoint: ${env:OTLP_BACKEND}/other
    sending_queue: {enabled: false}
service:
  pipelines:
    metrics: {receivers: [otlp], processors: [d2c/a], exporters: [lanes]}
    metrics/b: {receivers: [otlp], processors: [d2c/b], exporters: [otlp_http/b]}
`)
		mux := http.NewServeMux()
		mux.Handle("/", w)
		mux.Handle("/other", other)
		n.backend = mux
		s := newSender(t, n, "producer-0", 1, 2)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		for range 3 {
			n.start(t)
			for range 5 {
				if err := s.next(ctx, 0); err != nil {
					t.Fatal(err)
				}
			}
			n.kill()
		}
		n.start(t)
		if err := s.finish(ctx); err != nil {
			t.Fatal(err)
		}
		for _, w := range []*witness{w, other} {
			if err := w.check(); err != nil {
				t.Error(err)
			}
			if err := w.checkStarts(); err != nil {
				t.Error(err)
			}
			for key, stream := range s.expected {
				if got := w.of(key); !got.equal(stream.cumulative) {
					t.Errorf("%s: got %v, want %v", key, got, stream.cumulative)
				}
			}
		}
		files, err := os.ReadDir(n.directory)
		if err != nil || len(files) != 2 {
			t.Errorf("the state is in %v, want a file for each (%v)", files, err)
		}
	})
}

// TestUnusableStorage starts durable.yaml with storage that cannot be had.
func TestUnusableStorage(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	file := filepath.Join(directory, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	occupied := filepath.Join(directory, "occupied")
	if err := os.MkdirAll(filepath.Join(occupied, "processor_d2c_"), 0o700); err != nil {
		t.Fatal(err)
	}
	garbage := filepath.Join(directory, "garbage")
	if err := os.Mkdir(garbage, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(garbage, "processor_d2c_"), bytes.Repeat([]byte("garbage."), 1<<13), 0o600); err != nil {
		t.Fatal(err)
	}
	inUse := filepath.Join(directory, "in-use")
	first := newNode(t, newWitness(""), inUse, "--config", "durable.yaml")
	first.start(t)

	for _, tc := range []struct{ name, directory, config, mention string }{
		{"cannot be created", filepath.Join(file, "below"), "", file},
		{"cannot be opened", occupied, "", occupied},
		{"not a database", garbage, "", "file_storage"},
		{"in use", inUse, "", "another process"},
		{"not there", directory, "processors: {d2c: {state: {storage: file_storage/other}}}", "file_storage/other"},
		{"not storage", directory, "processors: {d2c: {state: {storage: health_check}}}", "health_check"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := newNode(t, newWitness(""), tc.directory, "--config", "durable.yaml", "--config", "yaml:"+tc.config)
			log := n.refuse(t)
			// The lines that say what went wrong, not those that come before.
			if lines := errorLines(log); !strings.Contains(lines, tc.mention) {
				t.Errorf("refused without mentioning %s:\n%s", tc.mention, lines)
			}
		})
	}
	first.stop(t)
}

// errorLines returns the lines of a Collector's log that are neither information nor a warning.
func errorLines(log string) string {
	var lines []string
	for line := range strings.Lines(log) {
		if !strings.Contains(line, "\tinfo\t") && !strings.Contains(line, "\twarn\t") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}
