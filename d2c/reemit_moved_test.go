// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
)

// A worker does not give out again, nor mark, what may have moved to another since: the two would take turns in one series, and each
// sample of the one would be a reset after that of the other.
func TestWhatMayHaveMovedIsNotGivenOutAgain(t *testing.T) {
	byKey := func(a, b line) int { return strings.Compare(a.key, b.key) }
	now := int64(1_000)
	cfg := reemitting(&now)
	cfg.Gap, cfg.MaxStale = d2c.GapRestartIfMoved, time.Minute
	for mode, open := range map[string]func() *d2c.Converter{
		"memory": func() *d2c.Converter { return newConverter(t, cfg) },
		"durable": func() *d2c.Converter {
			conv, _ := openTest(t, cfg, newMemory())
			t.Cleanup(func() { closeTest(t, conv) })
			return conv
		},
	} {
		t.Run(mode, func(t *testing.T) {
			now = 1_000
			conv := open()
			stays, moves, direct := series("s"), series("moves"), series("direct")
			count := func(route d2c.Route, points ...point) {
				t.Helper()
				ctx := context.Background()
				if route.Epoch != 0 {
					ctx = d2c.WithRoute(ctx, route)
				}
				if _, err := conv.Convert(ctx, batch(points...)); err != nil {
					t.Fatal(err)
				}
			}
			again := func(what func(context.Context, func() (time.Time, func()), func(context.Context, pmetric.Metrics) error) (int, error), want ...point) {
				t.Helper()
				var got []line
				if _, err := what(context.Background(), nil, func(_ context.Context, md pmetric.Metrics) error {
					got = append(got, lines(md)...)
					return nil
				}); err != nil {
					t.Fatal(err)
				}
				expected := lines(cumulative(want...))
				slices.SortFunc(got, byKey)
				slices.SortFunc(expected, byKey)
				if !slices.Equal(got, expected) {
					t.Errorf("at %d\n got %v\nwant %v", now, got, expected)
				}
			}
			first := d2c.Route{Epoch: 1, Member: "me", Since: time.Unix(900, 0)}
			second := d2c.Route{Epoch: 2, Member: "me", Since: time.Unix(1_030, 0), Previous: 1, PreviousSince: time.Unix(900, 0)}

			now = 1_010
			count(d2c.Route{}, direct.int(1_000, 1_010, 1))
			now = 1_021
			again(conv.Reemit, direct.int(1_000, 1_021, 1)) // no gateway has told of a ring
			count(first, stays.int(1_010, 1_020, 5), moves.int(1_010, 1_020, 7))
			now = 1_032
			again(conv.Reemit, stays.int(1_010, 1_032, 5), moves.int(1_010, 1_032, 7))
			count(second, stays.int(1_020, 1_031, 5))
			now = 1_044
			again(conv.Reemit, stays.int(1_010, 1_044, 10))
			// Those that come again by the ring of now are given out.
			count(second, moves.int(1_035, 1_045, 7))
			now = 1_057
			again(conv.Reemit, stays.int(1_010, 1_057, 10), moves.int(1_010, 1_057, 14))
			third := d2c.Route{Epoch: 3, Member: "me", Since: time.Unix(1_060, 0), Previous: 2, PreviousSince: time.Unix(1_030, 0)}
			count(third, stays.int(1_031, 1_061, 1))
			now = 1_200
			again(conv.MarkStale, shapes[0].point(1_010, 1_200, marker))
		})
	}
}
