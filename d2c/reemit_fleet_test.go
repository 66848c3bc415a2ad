// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"context"
	"fmt"
	"testing"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/d2c/store"
)

// Several workers count streams in turns and give them out again, some end and others begin, with state that is shared, or one after
// the other with durable state: what is given out of a stream is later each time, never falls under one start, and all is counted.
func TestReemitKeepsPromises(t *testing.T) {
	for _, mode := range []string{"shared", "durable"} {
		again := 0
		for _, seed := range seeds(t, 300) {
			src := newRandomSource(seed, 200)
			now := int64(1000)
			cfg := reemitting(&now)
			cfg.EmitZero = one(src, 2)
			memory, storage := new(store.Memory), newMemory()
			open := func() *d2c.Converter {
				if mode == "durable" {
					conv, _ := openTest(t, cfg, storage)
					return conv
				}
				conv, err := d2c.OpenShared(context.Background(), cfg, d2c.SharedConfig{Store: memory, Owner: "test"})
				if err != nil {
					t.Fatal(err)
				}
				return conv
			}
			workers := []*d2c.Converter{open()}
			if mode == "shared" {
				workers = append(workers, open(), open())
			}
			now = 1010
			began := float64(now)
			counted, total, ends := map[int]int64{}, map[int]int64{}, map[int]float64{}
			p2 := newTimelines()
			for src.more() {
				w := src.n(len(workers))
				switch src.n(8) {
				case 0:
					now += int64(src.n(25))
				case 1:
					if err := workers[w].Close(context.Background()); err != nil {
						t.Fatal(err)
					}
					workers[w] = open()
				case 2, 3:
					_, err := workers[w].Reemit(context.Background(), nil, func(_ context.Context, md pmetric.Metrics) error {
						again += md.DataPointCount()
						return p2.follow(md)
					})
					if err != nil {
						t.Fatalf("%s, seed %d: %v", mode, seed, err)
					}
				default:
					i := src.n(3)
					start := max(ends[i], began)
					if float64(now) <= start {
						now++
					}
					ends[i] = float64(now)
					v := int64(1 + src.n(5))
					md := ofResource(batch(series(fmt.Sprint("s", i)).int(start, ends[i], v)))
					if _, err := workers[w].Convert(context.Background(), md); err != nil {
						t.Fatal(err)
					}
					if err := p2.follow(md); err != nil {
						t.Fatalf("%s, seed %d: %v", mode, seed, err)
					}
					counted[i] += v
					dps := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints()
					total[i] = dps.At(dps.Len() - 1).IntValue()
				}
			}
			if fmt.Sprint(total) != fmt.Sprint(counted) {
				t.Errorf("%s, seed %d: totals %v, want %v", mode, seed, total, counted)
			}
			for _, w := range workers {
				closeTest(t, w)
			}
		}
		if t.Logf("%s: %d samples given out again", mode, again); again < 100 {
			t.Errorf("%s: only %d samples were given out again", mode, again)
		}
	}
}
