// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/streamid"
)

// BenchmarkSplit is one call with a batch of 1000 points to 10 owners.
func BenchmarkSplit(b *testing.B) {
	for _, key := range splitKeys {
		b.Run("key="+key, func(b *testing.B) {
			split, err := splitOurs(key, tenth)
			if err != nil {
				b.Fatal(err)
			}
			standard, err := newBatch(kindSum)
			if err != nil {
				b.Fatal(err)
			}
			var spent time.Duration
			for b.Loop() {
				md, err := standard.decoded()
				if err != nil {
					b.Fatal(err)
				}
				begin := time.Now()
				split(md)
				spent += time.Since(begin)
			}
			b.ReportMetric(0, "ns/op") // has the decoding in it
			b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N*pointsPerBatch), "ns/point")
		})
	}
}

// Both ways must give every owner the same streams in the same order, or they are not comparable.
func TestSplitWaysAgree(t *testing.T) {
	t.Parallel()
	b, err := newBatch(kindSum)
	if err != nil {
		t.Fatal(err)
	}
	clones := cloneByPoint(b.md, "streamID", tenth)
	key, err := streamid.ParseKey("streamID", nil)
	if err != nil {
		t.Fatal(err)
	}
	s := &streamid.Splitter{Key: key}
	parts, _ := s.Metrics(b.md, splitOwners, tenth, nil)
	if len(parts) != splitOwners || len(clones) != splitOwners {
		t.Fatalf("%d parts and %d clones, want %d", len(parts), len(clones), splitOwners)
	}
	points := 0
	for _, p := range parts {
		got, want := streams(p.Batch), streams(clones[p.Owner])
		points += len(got)
		if !slices.Equal(got, want) {
			t.Errorf("owner %d: other streams than of clones", p.Owner)
		}
	}
	if points != pointsPerBatch {
		t.Errorf("%d points in all parts, want %d", points, pointsPerBatch)
	}
}

// Points lost must not make a way look fast.
func TestSplitTurnNoticesLoss(t *testing.T) {
	t.Parallel()
	b, err := newBatch(kindSum)
	if err != nil {
		t.Fatal(err)
	}
	wire, err := b.encoded()
	if err != nil {
		t.Fatal(err)
	}
	lossy := func(pmetric.Metrics) func() (int, int) { return func() (int, int) { return 1, pointsPerBatch - 1 } }
	if _, _, err := splitTurn(wire, lossy, 1); err == nil {
		t.Error("a lost point passes")
	}
	for _, key := range splitKeys {
		row, err := splitAt(key, effort{1, 1})
		if err != nil {
			t.Fatal(err)
		}
		if row.Parts < 2 || row.NsPoint[nameSplit] <= 0 || row.AllocsPoint[nameClone] < 1 {
			t.Errorf("%+v: want several parts, some time, and allocations of clones", row)
		}
	}
}

// tenth is the owner of a key among ten.
func tenth(key uint64) int { return int(key >> 32 * splitOwners >> 32) }

func streams(md pmetric.Metrics) (ids []streamid.ID) {
	identify(md, func(id streamid.ID) { ids = append(ids, id) })
	return ids
}
