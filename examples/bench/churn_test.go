// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/deltaring/deltaring/d2c"
)

// In each round a tenth of the points must be first ones and the rest aligned, and as many streams be forgotten, over more
// than one turn of all resources.
func TestChurnReplacesATenth(t *testing.T) {
	t.Parallel()
	const n, rounds = 2, 23
	const streams = n * pointsPerBatch
	now := time.Unix(0, epoch)
	cfg := d2c.DefaultConfig()
	cfg.MaxStale, cfg.Now = churnStale, func() time.Time { return now }
	conv, err := d2c.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	b, err := newBatch(kindSum)
	if err != nil {
		t.Fatal(err)
	}
	var points [d2c.NumOutcomes]uint64
	expired := 0
	c := churner{ager: ager{name: nameOurs, converts: true}, b: b, n: n, aging: &aging{
		consume: func(md pmetric.Metrics) error {
			r, err := conv.Convert(context.Background(), md)
			for o, n := range r.Counts() {
				points[o] += n
			}
			return err
		},
		minute: func() {
			now = now.Add(churnRound)
			expired = conv.Expire()
		},
		streams: conv.Len,
	}}
	for round := range rounds {
		points = [d2c.NumOutcomes]uint64{}
		if _, _, err := c.pass(); err != nil {
			t.Fatal(err)
		}
		want, gone := [d2c.NumOutcomes]uint64{d2c.AddedFirst: streams / 10, d2c.AddedAligned: streams * 9 / 10}, streams/10
		if round == 0 {
			want, gone = [d2c.NumOutcomes]uint64{d2c.AddedFirst: streams}, 0
		}
		if points != want || expired != gone {
			t.Errorf("round %d: outcomes %v and %d expired, want %v and %d", round, points, expired, want, gone)
		}
	}
	points = [d2c.NumOutcomes]uint64{}
	if err := c.comeBack(); err != nil {
		t.Fatal(err)
	}
	if points[d2c.AddedFirst] != streams/10 {
		t.Errorf("%d streams were forgotten, want %d", points[d2c.AddedFirst], streams/10)
	}
}

// Contrib's own sweep must have run once in each round: what it says it tracks is what is left.
func TestChurnSweepsContrib(t *testing.T) {
	t.Parallel()
	const n, rounds = 2, 12
	tel := componenttest.NewTelemetry()
	state, err := openAgingContrib(tel.NewTelemetrySettings())
	if err != nil {
		t.Fatal(err)
	}
	b, err := newBatch(kindSum)
	if err != nil {
		t.Fatal(err)
	}
	tracked := func() int64 {
		m, err := tel.GetMetric("otelcol_deltatocumulative_streams_tracked")
		if err != nil {
			t.Fatal(err)
		}
		return m.Data.(metricdata.Sum[int64]).DataPoints[0].Value
	}
	minute := state.minute
	before := int64(0)
	state.minute = func() {
		before = tracked()
		minute()
	}
	c := churner{ager: ager{name: nameContrib, converts: true}, aging: state, b: b, n: n}
	for round := range rounds {
		if _, _, err := c.pass(); err != nil {
			t.Fatal(err)
		}
		want := int64(n * pointsPerBatch * 11 / 10)
		if round == 0 {
			want = n * pointsPerBatch
		}
		if before != want || tracked() != n*pointsPerBatch {
			t.Errorf("round %d: %d streams before the sweep and %d after, want %d and %d", round, before, tracked(), want,
				n*pointsPerBatch)
		}
	}
	if err := c.comeBack(); err != nil {
		t.Error(err)
	}
	state.close()
	if err := tel.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
}

// A side that forgets nothing, or too much, must not be measured.
func TestChurnNoticesWrongForgetting(t *testing.T) {
	t.Parallel()
	for _, a := range agers {
		if !a.converts {
			continue
		}
		lazy := ager{name: a.name, converts: true, open: func() (*aging, error) {
			state, err := a.open()
			if err == nil {
				state.minute, state.streams = func() {}, nil
			}
			return state, err
		}}
		if _, err := churn([]ager{lazy}, kindSum, 1000, effort{1, 1}); err == nil || !strings.Contains(err.Error(), "back") {
			t.Errorf("%s without forgetting: %v", a.name, err)
		}
		hasty := ager{name: a.name, converts: true, open: func() (*aging, error) {
			state, err := a.open()
			if err == nil {
				minute := state.minute
				state.minute, state.streams = func() { minute(); minute(); minute() }, nil
			}
			return state, err
		}}
		if _, err := churn([]ager{hasty}, kindSum, 1000, effort{1, 1}); err == nil || !strings.Contains(err.Error(), "want") {
			t.Errorf("%s forgetting everything: %v", a.name, err)
		}
	}
}

func TestChurnOfAllKinds(t *testing.T) {
	t.Parallel()
	for _, k := range allKinds {
		row, err := churn(agers, k, 1000, effort{1, 1})
		if err != nil {
			t.Fatal(err)
		}
		if row.Replaced != 100 {
			t.Errorf("%d replaced, want 100", row.Replaced)
		}
		for _, a := range agers {
			positive(t, string(k)+" "+a.name, row.NsPoint[a.name])
			if a.name != nameHash {
				positive(t, string(k)+" "+a.name+" forgetting", float64(row.Forget[a.name]))
			}
		}
		positive(t, "ratio", row.Ratio)
	}
}
