// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/streamid"
)

// reemitting is a configuration whose clock the test sets, in seconds.
func reemitting(now *int64) d2c.Config {
	cfg := d2c.DefaultConfig()
	cfg.ReemitInterval = 10 * time.Second
	cfg.Now = func() time.Time { return time.Unix(*now, 0) }
	return cfg
}

// giveOut converts one batch, and returns what comes out.
func giveOut(t *testing.T, conv *d2c.Converter, md pmetric.Metrics) []line {
	t.Helper()
	if _, err := conv.Convert(context.Background(), md); err != nil {
		t.Fatal(err)
	}
	return lines(md)
}

// givenAgain is what Reemit gives out.
func givenAgain(t *testing.T, conv *d2c.Converter, since time.Time) (md pmetric.Metrics) {
	t.Helper()
	md = pmetric.NewMetrics()
	n, err := conv.Reemit(context.Background(), func() (time.Time, func()) { return since, func() {} }, func(_ context.Context, some pmetric.Metrics) error {
		some.ResourceMetrics().MoveAndAppendTo(md.ResourceMetrics())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n != md.DataPointCount() {
		t.Fatalf("told of %d samples, and gave out %d", n, md.DataPointCount())
	}
	return md
}

func same(t *testing.T, what string, got []line, want ...point) {
	t.Helper()
	if w := lines(cumulative(want...)); fmt.Sprint(got) != fmt.Sprint(w) {
		t.Errorf("%s:\n got %v\nwant %v", what, got, w)
	}
}

// What Reemit gives out, in all modes, of all kinds; and what comes after it is later.
func TestReemit(t *testing.T) {
	for _, shape := range shapes {
		now := int64(1000)
		for mode, conv := range converters(t, reemitting(&now)) {
			now = 1000
			name := shape.name + ", " + mode
			same(t, name, giveOut(t, conv, batch(shape.point(1005, 1010, 1))), shape.point(1005, 1010, 1))
			now = 1015
			same(t, name+", not quiet for long enough", lines(givenAgain(t, conv, time.Time{})))
			now = 1020
			same(t, name+", counted since", lines(givenAgain(t, conv, time.Unix(1000, 0))))
			same(t, name+", again", lines(givenAgain(t, conv, time.Unix(1001, 0))), shape.point(1005, 1020, 1))
			same(t, name+", once", lines(givenAgain(t, conv, time.Time{})))
			now = 1030
			same(t, name+", once more", lines(givenAgain(t, conv, time.Time{})), shape.point(1005, 1030, 1))
			same(t, name+", what ended before that", giveOut(t, conv, batch(shape.point(1010, 1025, 2))), shape.point(1005, 1030.001, 3))
			now = 1045
			same(t, name, lines(givenAgain(t, conv, time.Time{})), shape.point(1005, 1045, 3))
			same(t, name+", a marker", giveOut(t, conv, batch(shape.point(1025, 1050, marker))), shape.point(1005, 1050, marker))
			now = 1100
			same(t, name+", after a marker", lines(givenAgain(t, conv, time.Time{})))
			same(t, name, giveOut(t, conv, batch(shape.point(1050, 1090, 4))), shape.point(1005, 1090, 7))
			now = 1110
			same(t, name, lines(givenAgain(t, conv, time.Time{})), shape.point(1005, 1110, 7))
			now = 1100 + 3600
			if n := conv.Expire(); n != 0 {
				t.Errorf("%s: expired before its time", name)
			}
			now += 2 // it expires though it was given out
			if n := conv.Expire(); n != 1 {
				t.Errorf("%s: %d streams expired, want 1", name, n)
			}
			same(t, name+", after it has expired", lines(givenAgain(t, conv, time.Time{})))
		}
	}
}

// Whatever a stream's identity is made of comes out as it came in, and of each tenant for itself.
func TestReemitIdentity(t *testing.T) {
	now := int64(1000)
	for mode, conv := range converters(t, reemitting(&now)) {
		now = 1000
		in := pmetric.NewMetrics()
		rm := in.ResourceMetrics().AppendEmpty()
		rm.SetSchemaUrl("resource schema")
		rm.Resource().Attributes().PutStr("service.name", "shop")
		rm.Resource().Attributes().PutEmptySlice("list").AppendEmpty().SetInt(-5)
		sm := rm.ScopeMetrics().AppendEmpty()
		sm.SetSchemaUrl("scope schema")
		sm.Scope().SetName("scope")
		sm.Scope().SetVersion("v1")
		sm.Scope().Attributes().PutBool("b", true)
		m := sm.Metrics().AppendEmpty()
		m.SetName("orders")
		m.SetUnit("{order}")
		m.SetDescription("of any kind")
		m.SetEmptySum().SetIsMonotonic(true)
		m.Sum().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		for i := range 3 {
			dp := m.Sum().DataPoints().AppendEmpty()
			dp.SetStartTimestamp(sec(1002))
			dp.SetTimestamp(sec(1010))
			dp.SetIntValue(7)
			a := dp.Attributes()
			a.PutInt("i", int64(i))
			a.PutStr("empty", "")
			a.PutStr("long", string(make([]byte, 1000)))
			a.PutDouble("f", 0.1)
			a.PutBool("t", true)
			a.PutBool("u", false)
			a.PutEmpty("nothing")
			a.PutEmptyBytes("bytes").FromRaw([]byte{0, 255})
			a.PutEmptyMap("map").PutStr("k", "v")
			a.PutEmptySlice("slice").AppendEmpty().SetStr("e")
		}
		for i, tenant := range []string{"acme", "zoo", ""} {
			ctx := context.Background()
			if tenant != "" {
				ctx = d2c.WithTenant(ctx, streamid.TenantKey{Name: "x-tenant", Values: []string{tenant}})
			}
			md := pmetric.NewMetrics()
			in.CopyTo(md)
			for _, dp := range md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints().All() {
				dp.SetIntValue(int64(i))
			}
			if r, err := conv.Convert(ctx, md); err != nil || r.Count(d2c.AddedFirst) != 3 {
				t.Fatal(mode, err, describeResult(r))
			}
		}
		now = 1040
		seen := map[string]string{}
		n, err := conv.Reemit(context.Background(), nil, func(ctx context.Context, md pmetric.Metrics) error {
			who := fmt.Sprint(d2c.TenantOf(ctx))
			if seen[who] != "" {
				return errors.New("a tenant twice")
			}
			want := pmetric.NewMetrics()
			in.CopyTo(want)
			wm := want.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0)
			makeCumulative(wm)
			first := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints()
			first.Sort(func(a, b pmetric.NumberDataPoint) bool {
				x, _ := a.Attributes().Get("i")
				y, _ := b.Attributes().Get("i")
				return x.Int() < y.Int()
			})
			seen[who] = fmt.Sprint(first.At(0).IntValue())
			for _, dp := range wm.Sum().DataPoints().All() {
				dp.SetTimestamp(sec(1040))
				dp.SetIntValue(first.At(0).IntValue())
			}
			if got, want := marshal(md), marshal(want); !slices.Equal(got, want) {
				t.Errorf("%s:\n got %v\nwant %v", mode, lines(md), lines(in))
			}
			return nil
		})
		want := map[string]string{"[{x-tenant [acme]}]": "0", "[{x-tenant [zoo]}]": "1", "[]": "2"}
		if err != nil || n != 9 || fmt.Sprint(seen) != fmt.Sprint(want) {
			t.Errorf("%s: %d samples, %v: %v, want %v", mode, n, err, seen, want)
		}
	}
}

// After a restart a stream waits for its next delta, and goes on from what was given out.
func TestReemitAfterRestart(t *testing.T) {
	now, storage := int64(1000), newMemory()
	s := series("s")
	first, _ := openTest(t, reemitting(&now), storage)
	same(t, "first", giveOut(t, first, batch(s.int(1001, 1002, 5))), s.int(1001, 1002, 5))
	now = 1020
	same(t, "again", lines(givenAgain(t, first, time.Time{})), s.int(1001, 1020, 5))
	second, _ := openTest(t, reemitting(&now), storage) // the first was killed
	now = 1040
	same(t, "not known", lines(givenAgain(t, second, time.Time{})))
	same(t, "what ended before", giveOut(t, second, batch(s.int(1002, 1010, 5))), s.int(1001, 1020.001, 10))
	now = 1060
	same(t, "known", lines(givenAgain(t, second, time.Time{})), s.int(1001, 1060, 10))
	closeTest(t, second)
}

// Of several workers the first gives a stream out, and the others learn so and leave it to whoever counts it next.
func TestReemitShared(t *testing.T) {
	now, memory := int64(1000), new(store.Memory)
	open := func() *d2c.Converter {
		conv, err := d2c.OpenShared(context.Background(), reemitting(&now), d2c.SharedConfig{Store: memory, Owner: "test"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closeTest(t, conv) })
		return conv
	}
	a, b := open(), open()
	s := series("s")
	now = 1003
	same(t, "a", giveOut(t, a, batch(s.int(1001, 1002, 5))), s.int(1001, 1002, 5))
	same(t, "b", giveOut(t, b, batch(s.int(1002, 1003, 5))), s.int(1001, 1003, 10)) // it has moved
	now = 1020
	same(t, "a, which does not know", lines(givenAgain(t, a, time.Time{})))
	same(t, "b", lines(givenAgain(t, b, time.Time{})), s.int(1001, 1020, 10))
	now = 1040
	same(t, "b, first this time", lines(givenAgain(t, b, time.Time{})), s.int(1001, 1040, 10))
	same(t, "a", lines(givenAgain(t, a, time.Time{})))
	now = 1050
	same(t, "a, which knows all, and that it is not the one", lines(givenAgain(t, a, time.Time{})))
	same(t, "a, what ended before", giveOut(t, a, batch(s.int(1003, 1030, 5))), s.int(1001, 1040.001, 15))
	now = 1060
	same(t, "b, which has lost it", lines(givenAgain(t, b, time.Time{})))
	same(t, "a", lines(givenAgain(t, a, time.Time{})), s.int(1001, 1060, 15))
	now = 1003 + 3600 + 2
	if n := b.Expire(); n != 1 {
		t.Errorf("%d streams expired at b, want 1: to learn of it makes it no younger", n)
	}
}

// A stream of which a delta is on its way into the state is left alone.
func TestReemitLeavesAloneWhatIsCounted(t *testing.T) {
	now, storage := int64(1000), newGated()
	conv, _ := openTest(t, reemitting(&now), storage)
	s := series("s")
	first := start(context.Background(), conv, s.int(1001, 1002, 5))
	storage.let(nil)
	first.gives(t, d2c.AddedFirst, 5)
	now = 1020
	second := start(context.Background(), conv, s.int(1002, 1003, 5))
	<-storage.arrived
	again, done := pmetric.NewMetrics(), make(chan error, 1)
	go func() {
		_, err := conv.Reemit(context.Background(), nil, func(_ context.Context, md pmetric.Metrics) error {
			md.MoveTo(again)
			return nil
		})
		done <- err
	}()
	eventually(t, func() bool { return conv.Waiting() == 1 })
	storage.end <- nil
	second.gives(t, d2c.AddedAligned, 10)
	if err := <-done; err != nil || again.DataPointCount() != 0 {
		t.Errorf("%v, gave out %v", err, lines(again))
	}
	closeTest(t, conv)
}

// What expires ends with a marker, given out once, and stored before it is.
func TestMarkStale(t *testing.T) {
	for _, shape := range shapes {
		now := int64(1000)
		for mode, conv := range converters(t, reemitting(&now)) {
			now = 1000
			name := shape.name + ", " + mode
			marks := func() []line {
				md := pmetric.NewMetrics()
				if _, err := conv.MarkStale(context.Background(), nil, func(_ context.Context, some pmetric.Metrics) error {
					some.MoveTo(md)
					return nil
				}); err != nil {
					t.Fatal(err)
				}
				return lines(md)
			}
			same(t, name, giveOut(t, conv, batch(shape.point(1005, 1010, 1))), shape.point(1005, 1010, 1))
			now = 1000 + 3600
			same(t, name+", not yet", marks())
			now++
			same(t, name+", now", marks(), shape.point(1005, float64(now), marker))
			same(t, name+", once", marks())
			same(t, name+", no more", lines(givenAgain(t, conv, time.Time{})))
			if n := conv.Expire(); n != 1 {
				t.Errorf("%s: %d streams expired, want 1", name, n)
			}
		}
	}
}

// A store that hangs holds up who gives out again for a few seconds, not for ever.
func TestReemitDoesNotHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now, storage := int64(1000), newGated()
		conv, _ := openTest(t, reemitting(&now), storage)
		first := start(context.Background(), conv, series("s").int(1001, 1002, 5))
		storage.let(nil)
		first.gives(t, d2c.AddedFirst, 5)
		now = 1020
		released := false
		n, err := conv.Reemit(context.Background(), func() (time.Time, func()) { return time.Time{}, func() { released = true } },
			func(context.Context, pmetric.Metrics) error {
				t.Error("gave out what is not stored")
				return nil
			})
		if n != 0 || !errors.Is(err, context.DeadlineExceeded) || !released {
			t.Errorf("%d, %v, released %v", n, err, released)
		}
		storage.let(nil)
		closeTest(t, conv)
	})
}
