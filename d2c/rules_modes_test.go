// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/d2c/store"
)

// mode is a way in which state is kept.
type mode struct {
	name string
	// open returns what gives the Converter for each batch.
	open func(t *testing.T, cfg d2c.Config) (next func() *d2c.Converter)
}

// modes are those in which what one Converter knows, another must: the next process, and each other worker.
var modes = []mode{
	{"memory", func(t *testing.T, cfg d2c.Config) func() *d2c.Converter {
		conv := newConverter(t, cfg)
		return func() *d2c.Converter { return conv }
	}},
	{"durable, a process for each point", func(t *testing.T, cfg d2c.Config) func() *d2c.Converter {
		storage := newMemory()
		n := 0
		var conv *d2c.Converter
		t.Cleanup(func() { closeTest(t, conv) })
		return func() *d2c.Converter {
			if conv != nil {
				if n++; n%2 == 0 { // what is in a checkpoint, and what is in the journal
					if err := conv.Checkpoint(context.Background()); err != nil {
						t.Fatal(err)
					}
				}
				closeTest(t, conv)
			}
			conv, _ = openTest(t, cfg, storage)
			conv.StopBackground()
			return conv
		}
	}},
	{"shared, a worker for each point", func(t *testing.T, cfg d2c.Config) func() *d2c.Converter {
		st := new(store.Memory)
		var workers []*d2c.Converter
		for range 3 {
			conv, err := d2c.OpenShared(context.Background(), cfg, d2c.SharedConfig{Store: st, Owner: "test"})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { closeTest(t, conv) })
			workers = append(workers, conv)
		}
		n := 0
		return func() *d2c.Converter {
			n++
			return workers[n%len(workers)]
		}
	}},
}

// inModes plays a history in all modes, a point at a time.
func inModes(t *testing.T, cfg d2c.Config, history ...exchange) {
	t.Helper()
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			next := mode.open(t, cfg)
			for i, x := range history {
				exchangeOne(t, next(), fmt.Sprintf("point %d", i+1), x)
			}
		})
	}
}

// batchStep is a batch and what must come back.
type batchStep struct {
	in   []point
	out  []point
	want map[d2c.Outcome]uint64
	// repaired is what of the only point.
	repaired d2c.Repairs
}

// batchesInModes plays batches in all modes.
func batchesInModes(t *testing.T, cfg d2c.Config, history ...batchStep) {
	t.Helper()
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			next := mode.open(t, cfg)
			for i, x := range history {
				sendBatch(t, next(), fmt.Sprintf("batch %d", i+1), x)
			}
		})
	}
}

func sendBatch(t *testing.T, conv *d2c.Converter, name string, x batchStep) d2c.Result {
	t.Helper()
	in, md := batch(x.in...), batch(x.in...)
	result := convert(conv, md)
	var want d2c.Result
	for o, n := range x.want {
		want.Note(o, n)
	}
	want.NoteRepairs(x.repaired)
	got := result.Points()
	got.GapOpened, got.GapFilled = 0, 0
	if got != want {
		t.Errorf("%s %v:\n got %s\nwant %s", name, lines(in), describeResult(result), describeResult(want))
	}
	if out := cumulative(x.out...); !sameMetrics(md, out) {
		t.Errorf("%s %v:\n got %v\nwant %v", name, lines(in), lines(md), lines(out))
	}
	return result
}

// TestRowsInAllModes plays the rows with a new process for each point, and with workers that take turns.
func TestRowsInAllModes(t *testing.T) {
	for _, shape := range shapes {
		t.Run(shape.name, func(t *testing.T) {
			for _, row := range rows {
				t.Run(row.name, func(t *testing.T) {
					cfg := d2c.DefaultConfig()
					if row.with != nil {
						row.with(&cfg)
					}
					inModes(t, cfg, exchanges(shape, row.steps)...)
				})
			}
		})
	}
}

// clockAt has a clock that stands at some second.
func clockAt(cfg d2c.Config, second float64) d2c.Config {
	at := time.Unix(0, int64(sec(second)))
	cfg.Now = func() time.Time { return at }
	return cfg
}
