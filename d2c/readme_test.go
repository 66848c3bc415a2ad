// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
)

// consume is what the README of the repository has, between the markers: it compiles.
func consume(ctx context.Context, md pmetric.Metrics, send func(context.Context, pmetric.Metrics) error) error {
	// README: from here
	conv, err := d2c.New(d2c.DefaultConfig())
	if err != nil {
		return err // it names the field
	}
	go func() {
		for range time.Tick(time.Minute) {
			conv.Expire() // forgets streams that were quiet for longer than Config.MaxStale
		}
	}()

	result, err := conv.Convert(ctx, md) // in place; safe for concurrent use
	if err != nil {
		return err // nothing of the batch has left; it may be handed in again
	}
	if n := result.Dropped(); n > 0 {
		slog.Warn("points dropped", "points", n)
	}
	return send(ctx, md) // after an error: send md again, or convert the same deltas again; each counts once
	// README: to here
}

func TestREADME(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "\n"); n > 150 {
		t.Errorf("README.md has %d lines, want 150 at most", n)
	}
	_, shown, _ := strings.Cut(string(text), "```go\n")
	shown, _, _ = strings.Cut(shown, "```")
	source, err := os.ReadFile("readme_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, compiled, _ := strings.Cut(string(source), "// README: from here\n")
	compiled, _, _ = strings.Cut(compiled, "\t// README: to here")
	compiled = strings.TrimPrefix(strings.ReplaceAll(compiled, "\n\t", "\n"), "\t")
	if shown != compiled {
		t.Errorf("README.md has\n%s\nand this is compiled\n%s", shown, compiled)
	}
	_ = consume
}
