// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"
)

// TestCrashLoop kills durable.yaml at random moments, $D2C_KILLS times, under producers that send every batch until it is
// acknowledged. With every acknowledgement the backend must have the exact total, and over the whole run each series one
// start.
func TestCrashLoop(t *testing.T) {
	t.Parallel()
	n := newNode(t, newWitness("shared"), t.TempDir(), "--config", "durable.yaml")
	crashLoop(t, n, kills(t), false)
}

// TestCrashLoopWithQueue does so with the queues of one-node.yaml, from which a kill takes samples that were acknowledged.
func TestCrashLoopWithQueue(t *testing.T) {
	t.Parallel()
	n := newNode(t, newWitness("shared"), t.TempDir(), "--config", "durable.yaml",
		"--config", "yaml:connectors: {lanes: {sending_queue: {queue_size: 1000}, retry_on_failure: {enabled: true}}}")
	crashLoop(t, n, (kills(t)+3)/4, true)
}

// kills returns how often to kill.
func kills(t *testing.T) int {
	t.Helper()
	switch value := os.Getenv("D2C_KILLS"); {
	case value != "":
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 {
			t.Fatalf("D2C_KILLS is %q", value)
		}
		return n
	case testing.Short():
		return 8
	}
	return 20
}

func crashLoop(t *testing.T, n *node, kills int, queued bool) {
	f := startFleet(t, n, queued)
	moment := func(within time.Duration) { // does not wait for anything but the moment
		time.Sleep(rand.N(within))
	}
	how := map[string]int{}
	for range kills {
		switch rand.IntN(4) {
		case 0:
			how["while it starts"]++
			n.launch(t)
			moment(150 * time.Millisecond)
		case 1:
			how["right after it started"]++
			n.start(t)
			moment(10 * time.Millisecond)
		default:
			how["under load"]++
			n.start(t)
			f.awaitProgress(t)
			moment(200 * time.Millisecond)
		}
		if err := n.killRunning(); err != nil {
			t.Fatal(err)
		}
		f.check(t)
	}
	n.start(t)
	f.stop(t)
	f.finish(t)

	// What was written after the last of them is there as well.
	if err := n.killRunning(); err != nil {
		t.Fatal(err)
	}
	n.start(t)
	f.finish(t)
	f.checkTelemetry(t)
	n.stop(t)
	// The test is of checkpoints as much as of the journal.
	stored := readStorage(t, filepath.Join(n.directory, "processor_d2c_"))
	if len(keysOf(stored, checkpoint)) == 0 && kills >= 8 {
		t.Error("no checkpoint was ever written")
	}
	t.Logf("killed %v, then once more; %s", how, f.summary())
}

// fleet is the senders of a test.
type fleet struct {
	node    *node
	senders []*sender
	halt    chan struct{}
	wg      sync.WaitGroup
	ctx     context.Context

	mu  sync.Mutex
	err error
}

// startFleet has senders at work: four, one whose lanes send the same streams at the same time, and one with so many streams
// that not all fit into one round of checkpoints.
func startFleet(t *testing.T, n *node, queued bool) *fleet {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	f := &fleet{node: n, halt: make(chan struct{}), ctx: ctx}
	for i := range 4 {
		f.senders = append(f.senders, newSender(t, n, fmt.Sprintf("producer-%d", i), 2, 40))
	}
	shared := newSender(t, n, n.witness.concurrent, 3, 4)
	shared.concurrent = true
	many := newSender(t, n, "many-4", 1, 6000)
	many.parts = 40
	f.senders = append(f.senders, shared, many)
	for _, s := range f.senders {
		s.queued = queued
		f.wg.Go(func() {
			if err := s.run(ctx, f.halt); err != nil {
				f.mu.Lock()
				defer f.mu.Unlock()
				if f.err == nil {
					f.err = err
				}
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		f.wg.Wait()
	})
	return f
}

// check fails the test if a promise has been broken so far.
func (f *fleet) check(t *testing.T) {
	t.Helper()
	if err := f.broken(); err != nil {
		t.Fatalf("in life %d: %v", f.node.lives, err)
	}
}

func (f *fleet) broken() error {
	f.mu.Lock()
	err := f.err
	f.mu.Unlock()
	if err != nil {
		return err
	}
	if err := f.node.witness.check(); err != nil {
		return err
	}
	return f.node.witness.checkStarts()
}

// awaitProgress waits until every sender has had an acknowledgement.
func (f *fleet) awaitProgress(t *testing.T) {
	t.Helper()
	before := make([]int64, len(f.senders))
	for i, s := range f.senders {
		before[i] = s.acknowledged.Load()
	}
	if err := poll(func() error {
		if err := f.broken(); err != nil {
			return fatal{err}
		}
		for i, s := range f.senders {
			if s.acknowledged.Load() == before[i] {
				return fmt.Errorf("%s has had no acknowledgement", s.name)
			}
		}
		return nil
	}); err != nil {
		t.Fatalf("in life %d: %v", f.node.lives, err)
	}
}

// stop waits until every sender has had its last batch acknowledged.
func (f *fleet) stop(t *testing.T) {
	t.Helper()
	close(f.halt)
	done := make(chan struct{})
	go func() {
		f.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("the senders do not get rid of their last batches")
	}
	f.check(t)
}

// finish compares the totals of all streams.
func (f *fleet) finish(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(f.ctx, patience)
	defer cancel()
	for _, s := range f.senders {
		if err := s.finish(ctx); err != nil {
			t.Fatal(err)
		}
	}
	f.check(t)
}

func (f *fleet) streams() int {
	n := 0
	for _, s := range f.senders {
		n += len(s.expected)
	}
	return n
}

// checkTelemetry compares what the process says about its state.
func (f *fleet) checkTelemetry(t *testing.T) {
	t.Helper()
	m, err := scrape(f.node.telemetryURL)
	if err != nil {
		t.Fatal(err)
	}
	if n := m.sum("otelcol_d2c_streams"); n != float64(f.streams()) {
		t.Errorf("otelcol_d2c_streams is %v, want %d", n, f.streams())
	}
	if n := m.sum("otelcol_d2c_points", `outcome="dropped_`); n != 0 {
		t.Errorf("%v points were dropped", n)
	}
	if n := m.sum("otelcol_d2c_restarts"); n != 0 {
		t.Errorf("%v restarts", n)
	}
}

func (f *fleet) summary() string {
	var acknowledged, refused int64
	for _, s := range f.senders {
		acknowledged += s.acknowledged.Load()
		refused += s.refused.Load()
	}
	w := f.node.witness
	w.mu.Lock()
	defer w.mu.Unlock()
	return fmt.Sprintf("%d lives, %d batches acknowledged, %d answers lost, %d streams, %d samples",
		f.node.lives, acknowledged, refused, f.streams(), w.samples)
}
