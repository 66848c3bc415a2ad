// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/streamid"
)

// works checks that calls of Convert return, for all shards.
func works(t *testing.T, conv *d2c.Converter) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		for shard := range d2c.Shards {
			s := seriesIn(shard, 0, func(s series) point { return s.int(0, 1, 1) })
			if _, err := conv.Convert(context.Background(), ofResource(batch(s.int(10, 20, 1)))); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Convert hangs")
	}
}

// panics calls f and reports whether it panicked.
func panics(f func()) (panicked bool) {
	defer func() { panicked = recover() != nil }()
	f()
	return false
}

// A read-only batch is refused before anything is locked or counted, wherever the state is.
func TestReadOnly(t *testing.T) {
	inMemory, err := d2c.New(d2c.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	durable, _ := openTest(t, d2c.DefaultConfig(), newMemory())
	defer closeTest(t, durable)
	shared, err := d2c.OpenShared(context.Background(), d2c.DefaultConfig(), d2c.SharedConfig{Store: new(store.Memory), MaxOutstanding: 100})
	if err != nil {
		t.Fatal(err)
	}
	for name, conv := range map[string]*d2c.Converter{"in memory": inMemory, "durable": durable, "shared": shared} {
		t.Run(name, func(t *testing.T) {
			s := seriesIn(3, 0, func(s series) point { return s.int(0, 1, 1) })
			md := ofResource(batch(s.int(10, 20, 1)))
			md.MarkReadOnly()
			if panics(func() {
				result, err := conv.Convert(context.Background(), md)
				if !errors.Is(err, d2c.ErrReadOnly) || result != (d2c.Result{}) {
					t.Errorf("%v, %s", err, describeResult(result))
				}
			}) {
				t.Error("panics")
			}
			if n := conv.Len(); n != 0 {
				t.Errorf("%d streams", n)
			}
			works(t, conv)
		})
	}
}

// A panic in a fold does not leave the shard locked.
func TestPanicInFold(t *testing.T) {
	conv, err := d2c.New(d2c.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	md := ofResource(batch(series("broken").histogram(10, 20, hist([]float64{1}, 1, 2))))
	rm := md.ResourceMetrics().At(0)
	sm := rm.ScopeMetrics().At(0)
	conv.AddBroken(streamid.Of(rm.Resource(), sm.Scope(), sm.Metrics().At(0), pcommon.NewMap()))
	if !panics(func() { _, _ = conv.Convert(context.Background(), md) }) {
		t.Fatal("does not panic")
	}
	works(t, conv)
}

// Nor does a clock that panics, in Convert or Expire.
func TestPanicInNow(t *testing.T) {
	broken := false
	cfg := d2c.DefaultConfig()
	cfg.MaxStale = time.Hour
	cfg.Now = func() time.Time {
		if broken {
			panic("no time")
		}
		return time.Unix(1000, 0)
	}
	conv, err := d2c.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	broken = true
	md := func() pmetric.Metrics { return ofResource(batch(series("a").int(10, 20, 1))) }
	if !panics(func() { _, _ = conv.Convert(context.Background(), md()) }) || !panics(func() { conv.Expire() }) {
		t.Fatal("does not panic")
	}
	broken = false
	works(t, conv)
}

// panicking is a Storage that panics in Put, if it is to.
type panicking struct {
	*memory
	now bool
}

func (p *panicking) Put(ctx context.Context, values []store.KeyValue, deletes []string) error {
	if p.now {
		panic("no storage")
	}
	return p.memory.Put(ctx, values, deletes)
}

// A checkpoint whose Put panics leaves nothing locked. (A commit does; that is not for here.)
func TestPanicInCheckpoint(t *testing.T) {
	ctx := context.Background()
	storage := &panicking{memory: newMemory()}
	conv, _, err := d2c.OpenDurable(ctx, d2c.DefaultConfig(), d2c.DurableConfig{Storage: storage, Owner: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer closeTest(t, conv)
	conv.StopBackground()
	if _, err := conv.Convert(ctx, ofResource(batch(series("a").int(10, 20, 1)))); err != nil {
		t.Fatal(err)
	}
	storage.now = true
	if !panics(func() { _ = conv.Checkpoint(ctx) }) {
		t.Fatal("does not panic")
	}
	storage.now = false
	works(t, conv)
	if err := conv.Checkpoint(ctx); err != nil {
		t.Error(err)
	}
}
