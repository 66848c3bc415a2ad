// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestFullDisk fills the disk under durable.yaml while it runs, and makes room again.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	disk := newSmallDisk(t, "16m")
	n := newNode(t, newWitness(""), disk.directory, "--config", "durable.yaml",
		"--feature-gates=+extension.healthcheck.useComponentStatus")
	n.wrap = disk.inside
	s := newSender(t, n, "producer-0", 2, 100)
	s.sets = 1
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	n.start(t)
	for range 20 {
		if err := s.next(ctx, 0); err != nil {
			t.Fatal(err)
		}
	}

	disk.fill(t)
	p := sendUntilRefused(ctx, t, n, s, "no space left on device")
	if err := poll(func() error { return n.awaitStatus("StatusRecoverableError") }); err != nil {
		t.Error(err)
	}
	// A restart helps as little as it harms.
	if err := n.killRunning(); err != nil {
		t.Fatal(err)
	}
	n.start(t)
	if err := s.attempt(ctx, 0, p); err != nil && status.Code(err) != codes.Unavailable {
		t.Fatal(err)
	}
	disk.makeRoom(t)
	if err := s.send(ctx, 0, p, false); err != nil {
		t.Fatal(err)
	}
	if err := poll(func() error { return n.awaitStatus("StatusOK") }); err != nil {
		t.Error(err)
	}
	checkAfterTrouble(ctx, t, n, s)
}

// TestFullStorage lets the state reach file_storage's max_size, and raises that.
func TestFullStorage(t *testing.T) {
	t.Parallel()
	n := newNode(t, newWitness(""), t.TempDir(), "--config", "durable.yaml", "--config", "yaml:extensions: {file_storage: {max_size: 1048576}}")
	s := newSender(t, n, "producer-0", 2, 10000)
	s.sets = 1
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	n.start(t)
	p := sendUntilRefused(ctx, t, n, s, "storage")

	// A restart helps as little as it harms.
	n.kill()
	n.start(t)
	if err := s.attempt(ctx, 0, p); err != nil && status.Code(err) != codes.Unavailable {
		t.Fatal(err)
	}

	n.kill()
	n.args[len(n.args)-1] = "yaml:extensions: {file_storage: {max_size: 104857600}}"
	n.start(t)
	if err := s.send(ctx, 0, p, false); err != nil {
		t.Fatal(err)
	}
	checkAfterTrouble(ctx, t, n, s)
}

// TestChurn has streams come and go: storage must forget with memory, and remember with it.
func TestChurn(t *testing.T) {
	t.Parallel()
	n := newNode(t, newWitness(""), t.TempDir(), "--config", "durable.yaml", "--config", "yaml:processors: {d2c: {max_stale: 1s}}")
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	n.start(t)
	steady := newSender(t, n, "steady", 1, 20)
	steady.sets = 20
	// Streams of short lives, 2000 at a time, until several times as many have been there as could be at once.
	const waves = 20
	for i := range waves {
		wave := newSender(t, n, fmt.Sprintf("wave-%d", i), 1, 400)
		wave.sets = 400
		for _, s := range []*sender{wave, steady, wave} {
			if err := s.send(ctx, 0, s.pack(s.batch), false); err != nil {
				t.Fatal(err)
			}
			s.batch++
		}
	}
	size := func() (streams, stored float64, err error) {
		if err := steady.next(ctx, 0); err != nil {
			return 0, 0, fatal{err}
		}
		m, err := scrape(n.telemetryURL)
		return m.sum("otelcol_d2c_streams"), m.sum("otelcol_d2c_storage_size", `part="checkpoints"`), err
	}
	live := float64(len(steady.expected))
	if err := poll(func() error {
		// A record of these streams is 100 bytes on average and 400 at most.
		streams, stored, err := size()
		if err == nil && (streams != live || stored > 400*live) {
			err = fmt.Errorf("%v streams in memory and %v bytes of checkpoints, want %v streams", streams, stored, live)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := n.killRunning(); err != nil {
		t.Fatal(err)
	}
	bytes := 0
	for _, value := range readStorage(t, filepath.Join(n.directory, "processor_d2c_")) {
		bytes += len(value)
	}
	t.Logf("%d bytes stored after %d streams of which %v live", bytes, 2000*waves, live)
	n.start(t)
	if streams, _, err := size(); err != nil || streams != live {
		t.Errorf("%v streams after a restart, want %v (%v)", streams, live, err)
	}
	if err := steady.finish(ctx); err != nil {
		t.Fatal(err)
	}
	if err := n.witness.check(); err != nil {
		t.Error(err)
	}
	if err := n.witness.checkStarts(); err != nil {
		t.Error(err)
	}
}

// sendUntilRefused sends batches, each with new streams, until one is refused for the given reason, and returns that one.
// The backend must have nothing of it.
func sendUntilRefused(ctx context.Context, t *testing.T, n *node, s *sender, reason string) *parcel {
	t.Helper()
	for {
		s.sets = min(s.sets+5, s.maxSets)
		p := s.pack(s.batch)
		s.batch++
		err := s.attempt(ctx, 0, p)
		if err == nil {
			s.count(p)
			if err := s.checkArrived(p); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if status.Code(err) != codes.Unavailable {
			t.Fatalf("refused with %v, want %v", err, codes.Unavailable)
		}
		// The producer is told that it can send again, and the operator why.
		if err := poll(func() error {
			if log := n.child.log.String(); !strings.Contains(log, reason) {
				return fmt.Errorf("batch %d is refused with %v, and the log does not have %q", s.batch, err, reason)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		for key := range p.deltas {
			got := s.witness.of(key)
			want := cumulative{}
			if known := s.expected[key]; known != nil {
				want = known.cumulative
			}
			if !got.equal(want) {
				t.Fatalf("%s: refused, and the backend has %v, want %v", key, got, want)
			}
		}
		return p
	}
}

// checkAfterTrouble goes on for a while, with a kill in between, and compares all totals.
func checkAfterTrouble(ctx context.Context, t *testing.T, n *node, s *sender) {
	t.Helper()
	for range 2 {
		for range 10 {
			if err := s.next(ctx, 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := n.killRunning(); err != nil {
			t.Fatal(err)
		}
		n.start(t)
	}
	if err := s.finish(ctx); err != nil {
		t.Fatal(err)
	}
	if err := n.witness.check(); err != nil {
		t.Error(err)
	}
	if err := n.witness.checkStarts(); err != nil {
		t.Error(err)
	}
	n.stop(t)
}

// awaitStatus returns an error while the status of the processor d2c is not want.
func (n *node) awaitStatus(want string) error {
	body, err := get(n.health + "/?verbose")
	if err != nil {
		return err
	}
	type component struct {
		Status     string
		Error      string
		Components map[string]component
	}
	var all component
	if err := json.Unmarshal(body, &all); err != nil {
		return err
	}
	got, ok := all.Components["pipeline:metrics"].Components["processor:d2c"]
	if !ok {
		return fatal{fmt.Errorf("no status of d2c: %s", body)}
	}
	if got.Status != want {
		return fmt.Errorf("the status of d2c is %s (%s), want %s", got.Status, got.Error, want)
	}
	return nil
}

// smallDisk is a file system that is easily full. It can be seen by its holder and what runs inside.
type smallDisk struct {
	directory string   // where it is, inside
	inside    []string // runs a command inside
	holder    *child
}

// newSmallDisk makes a file system in memory, in a user namespace and so without any privileges, where the kernel allows
// that.
func newSmallDisk(t *testing.T, size string) *smallDisk {
	t.Helper()
	if out, err := exec.Command("unshare", "-rm", "true").CombinedOutput(); err != nil {
		t.Skipf("needs user namespaces: unshare: %v: %s", err, out)
	}
	d := &smallDisk{directory: t.TempDir()}
	mounted := filepath.Join(d.directory, "mounted")
	holder, err := launch([]string{"DIRECTORY=" + d.directory, "SIZE=" + size}, "unshare", "-rm", "sh", "-ec",
		`mount -t tmpfs -o size="$SIZE" tmpfs "$DIRECTORY"; : >"$DIRECTORY/mounted"; exec sleep infinity`)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(holder.kill)
	d.holder = holder
	if err := poll(func() error {
		_, err := os.Stat(d.outside("mounted"))
		return err
	}); err != nil {
		t.Fatalf("%s: %v\n%s", mounted, err, holder.log.String())
	}
	d.inside = []string{"nsenter", "--target", fmt.Sprint(holder.cmd.Process.Pid), "--user", "--mount", "--wd=.", "--preserve-credentials"}
	return d
}

// outside returns the path by which the test sees a file of the disk.
func (d *smallDisk) outside(name string) string {
	return filepath.Join(fmt.Sprintf("/proc/%d/root", d.holder.cmd.Process.Pid), d.directory, name)
}

// fill takes all the room that is left.
func (d *smallDisk) fill(t *testing.T) {
	t.Helper()
	f, err := os.Create(d.outside("ballast"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for chunk := make([]byte, 1<<16); err == nil; {
		_, err = f.Write(chunk)
	}
	if !strings.Contains(err.Error(), "no space left") {
		t.Fatal(err)
	}
}

// makeRoom undoes fill.
func (d *smallDisk) makeRoom(t *testing.T) {
	t.Helper()
	if err := os.Remove(d.outside("ballast")); err != nil {
		t.Fatal(err)
	}
}
