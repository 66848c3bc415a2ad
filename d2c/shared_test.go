// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
)

// fleet is several Converters that share their state. Each batch goes to any of them.
type fleet struct {
	workers []*d2c.Converter
	rand    *rand.Rand
}

var errSkip = errors.New("a history that does not suit")

func newFleet(cfg d2c.Config, seed uint64) (*fleet, error) {
	if cfg.MaxStreams > 0 || cfg.MaxStale > 0 {
		return nil, errSkip // both are about what one worker has in memory
	}
	f := &fleet{rand: rand.New(rand.NewPCG(seed, 0xf1ee7))}
	store := new(d2c.MemoryStore)
	for range 1 + f.rand.IntN(3) {
		conv, err := d2c.Share(cfg, d2c.Shared{Store: store, Owner: "test"})
		if err != nil {
			return nil, err
		}
		f.workers = append(f.workers, conv)
	}
	return f, nil
}

func (f *fleet) next() (*d2c.Converter, error) { return f.workers[f.rand.IntN(len(f.workers))], nil }

func (f *fleet) convert(conv *d2c.Converter, md pmetric.Metrics) (d2c.Result, error) {
	return conv.Convert(context.Background(), md)
}

// TestSharedHistories is TestHistories with a fleet: whichever worker a batch goes to, what comes out is what one that had
// seen all of them would have given out.
func TestSharedHistories(t *testing.T) {
	played := 0
	for _, seed := range seeds(t, 6000) {
		_, err := playHistory(newRandomSource(seed, 30), func(cfg d2c.Config) (subject, error) { return newFleet(cfg, seed) })
		if errors.Is(err, errSkip) {
			continue
		}
		if err != nil {
			t.Fatalf("seed %d (run it alone with D2C_SEED=%d): %v", seed, seed, err)
		}
		played++
	}
	t.Logf("%d histories", played)
}
