// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"context"
	"maps"
	"slices"
	"testing"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/streamid"
)

// Numbers of a journal come near what is left of an earlier one. That is no continuation: its records are older.
func TestEarlierJournalIsNear(t *testing.T) {
	rec, was := orphaned(t, 17-5+1, 11)
	conv, recovery, err := d2c.OpenDurable(context.Background(), d2c.DefaultConfig(), d2c.DurableConfig{Storage: rec, Owner: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer closeTest(t, conv)
	if got, want := statesOf(conv), statesOf(was); !slices.Equal(got, want) || len(recovery.Damaged) > 0 {
		t.Errorf("found %q, want %q; %+v", got, want, recovery)
	}
}

// Entries that differ in values alone, as those of a source that sends again with the same times, must not look like each
// other to the entry after them.
func TestEarlierJournalOfTheSameTimes(t *testing.T) {
	rec, was := orphaned(t, 22-5+1, 10)
	conv, recovery, err := d2c.OpenDurable(context.Background(), d2c.DefaultConfig(), d2c.DurableConfig{Storage: rec, Owner: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer closeTest(t, conv)
	if got, want := statesOf(conv), statesOf(was); !slices.Equal(got, want) || recovery.Entries != 22 || len(recovery.Damaged) > 0 {
		t.Errorf("found %q, want %q; %+v", got, want, recovery)
	}
}

// A value has become what it was before it was overwritten (an entry that was reported as not stored, and was), and the
// entries after it do not continue it. Some of them are in a checkpoint, so new ones must not take their numbers.
func TestOutdatedEntryBeforeCheckpoint(t *testing.T) {
	ctx := context.Background()
	sum := func(s series) point { return s.int(0, 1, 1) }
	a, b := seriesIn(3, 0, sum), seriesIn(7, 0, sum)
	rec := &recorder{values: stored{}}
	rec.fail = func(n int, ops []operation) ([]operation, error) {
		if n == 1 {
			return ops, errStorage
		}
		return ops, nil
	}
	open := func() (*d2c.Converter, d2c.Recovery) {
		t.Helper()
		conv, recovery, err := d2c.OpenDurable(ctx, d2c.DefaultConfig(), d2c.DurableConfig{Storage: rec, Owner: "test"})
		if err != nil {
			t.Fatal(err)
		}
		conv.StopBackground()
		return conv, recovery
	}
	send := func(conv *d2c.Converter, points ...point) error {
		_, err := conv.Convert(ctx, ofResource(batch(points...)))
		return err
	}
	conv, _ := open()
	if err := send(conv, a.int(10, 20, 1), b.int(10, 20, 1)); err != nil {
		t.Fatal(err)
	}
	if err := send(conv, b.int(20, 30, 7)); err == nil {
		t.Fatal("no error")
	}
	outdated := rec.values[entryOf(2)]
	for i := range 4 {
		from := float64(20 + 10*i)
		if err := send(conv, a.int(from, from+10, 10), b.int(from, from+10, 10)); err != nil {
			t.Fatal(err)
		}
	}
	if err := conv.Checkpoint(ctx, 3); err != nil {
		t.Fatal(err)
	}
	closeTest(t, conv)
	rec.values = maps.Clone(rec.values)
	rec.values[entryOf(2)] = outdated

	conv, recovery := open()
	t.Logf("%+v, %q", recovery, statesOf(conv))
	if err := send(conv, a.int(60, 70, 100)); err != nil {
		t.Fatal(err)
	}
	want := statesOf(conv)
	closeTest(t, conv)
	conv, recovery = open()
	defer closeTest(t, conv)
	if got := statesOf(conv); !slices.Equal(got, want) {
		t.Errorf("what was acknowledged is gone: found %q, want %q; %+v", got, want, recovery)
	}
}

// A forged record may have a stream under the identity of one of another kind.
func TestStreamOfAnotherKind(t *testing.T) {
	inMemory, err := d2c.New(d2c.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	durable, _ := openTest(t, d2c.DefaultConfig(), newMemory())
	defer closeTest(t, durable)
	seen := map[streamid.ID]bool{}
	for _, c := range recordCases() {
		id, _ := c.record(t)
		if seen[id] {
			continue
		}
		seen[id] = true
		for _, conv := range []*d2c.Converter{inMemory, durable} {
			md := clonedMetrics(c.md[0])
			if md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Type() == pmetric.MetricTypeSum {
				continue
			}
			conv.AddSum(id)
			result, err := conv.Convert(context.Background(), md)
			if err != nil || result.Count(d2c.DroppedTooLate) != 1 {
				t.Errorf("%s: %v, %s", c.name, err, describeResult(result))
			}
		}
	}
}
