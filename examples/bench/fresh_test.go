// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"testing"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
)

// Every point of the section must open a stream, and nothing else.
func TestFreshOpensEveryStream(t *testing.T) {
	t.Parallel()
	const streams, rounds, passes = 2000, 1, 2
	for _, k := range allKinds {
		var points [d2c.NumOutcomes]uint64
		var convs []*d2c.Converter
		counted := counting(&points, func(c *d2c.Converter) { convs = append(convs, c) })
		row, err := fresh([]side{counted, sides[1], sides[2], sides[3]}, k, streams, effort{rounds, streams / pointsPerBatch * passes})
		if err != nil {
			t.Fatal(err)
		}
		want := [d2c.NumOutcomes]uint64{d2c.AddedFirst: streams * rounds * passes}
		if points != want {
			t.Errorf("%s: outcomes %v, want %v", k, points, want)
		}
		for _, c := range convs {
			if c.Len() != streams {
				t.Errorf("%s: %d streams, want %d", k, c.Len(), streams)
			}
		}
		if len(convs) != rounds*passes {
			t.Errorf("%s: %d converters, want %d", k, len(convs), rounds*passes)
		}
		for _, s := range sides {
			positive(t, string(k)+" "+s.name, row.NsPoint[s.name])
		}
		positive(t, "ratios", row.Ratio, row.Floor)
	}
}

// A side that already has the streams must not pass for one that opens them.
func TestFreshNoticesKnownStreams(t *testing.T) {
	t.Parallel()
	for _, s := range sides {
		if !s.converts {
			continue
		}
		shared, err := s.open()
		if err != nil {
			t.Fatal(err)
		}
		known := side{name: s.name, converts: true, open: func() (consume, error) { return shared, nil }}
		b, err := newBatch(kindSum)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := freshTurn(known, b, 1000, effort{1, 1}); err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
		if _, err := freshTurn(known, b, 1000, effort{1, 1}); err == nil {
			t.Errorf("%s: known streams pass for new ones", s.name)
		}
	}
}

// counting is the library, with outcomes added up, and with each of its converters shown.
func counting(points *[d2c.NumOutcomes]uint64, show func(*d2c.Converter)) side {
	return side{name: nameOurs, converts: true, open: func() (consume, error) {
		conv, err := newConverter()
		if err != nil {
			return nil, err
		}
		show(conv)
		return func(md pmetric.Metrics) error {
			r, err := conv.Convert(context.Background(), md)
			for o, n := range r.Counts() {
				points[o] += n
			}
			return err
		}, nil
	}}
}
