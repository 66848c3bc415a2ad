// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"context"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
)

// While the shared store fails nobody knows who else gives a stream out, so nothing is given out again; nothing of that is outstanding.
func TestReemitWaitsForTheStore(t *testing.T) {
	now, st := int64(1000), new(outableStore)
	conv, err := d2c.OpenShared(context.Background(), reemitting(&now), d2c.SharedConfig{Store: st, Owner: "test", MaxOutstanding: 10})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeTest(t, conv) })
	s := series("s")
	now = 1010
	same(t, "first", giveOut(t, conv, batch(s.int(1005, 1010, 5))), s.int(1005, 1010, 5))
	st.out.Store(true)
	now = 1020
	n, err := conv.Reemit(context.Background(), nil, func(_ context.Context, md pmetric.Metrics) error {
		t.Errorf("gave out %v", lines(md))
		return nil
	})
	if n != 0 || !d2c.StoreError(err) {
		t.Errorf("%d, %v, want an error of the store", n, err)
	}
	same(t, "in the outage", giveOut(t, conv, batch(s.int(1010, 1015, 5))), s.int(1005, 1015, 10))
	if n := conv.Stats().Outstanding; n != 1 {
		t.Errorf("%d points outstanding, want 1", n)
	}
	st.out.Store(false)
	if err := conv.Reconcile(context.Background()); err != nil {
		t.Fatal(err)
	}
	now = 1035
	same(t, "after it", lines(givenAgain(t, conv, time.Time{})), s.int(1005, 1035, 10))
	if s := conv.Stats(); s.Outstanding != 0 || s.Missed != 0 {
		t.Errorf("%d outstanding, %d missed, want none", s.Outstanding, s.Missed)
	}
}
