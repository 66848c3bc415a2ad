// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/streamid"
)

// labelled is a delta of a stream with some attributes.
func labelled(host, name string, from float64, attrs map[string]any) point {
	return place(host, func(md pmetric.Metrics) {
		series(name).int(from, from+10, 1)(md)
		forEachAttributes(md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0), func(m pcommon.Map) {
			if err := m.FromRaw(attrs); err != nil {
				panic(err)
			}
		})
	})
}

type attributes = map[string]any

// Streams that are one series to the backend are found when the second of them is opened, in every mode.
func TestDuplicates(t *testing.T) {
	for labels, across := range map[d2c.Duplicates][]string{
		d2c.DuplicatesService:  {"duplicate 1: map[host:two] scope two a map[code:200] (10, 20] of (10, 20]"},
		d2c.DuplicatesResource: nil,
		d2c.DuplicatesNone:     nil,
	} {
		var got told
		cfg := d2c.DefaultConfig()
		cfg.OnNotice, cfg.Duplicates = got.hear, labels
		for mode, open := range keepersOf(t, cfg) {
			t.Run(fmt.Sprint(labels, " ", mode), func(t *testing.T) {
				conv := open()()
				result := convert(conv, batch(labelled("one", "a", 10, attributes{"code": 200}), gauge("g"), labelled("one", "a", 10, attributes{"code": 201})))
				if told := got.take(); told != nil || result.Duplicates != 0 {
					t.Errorf("%d duplicates, %q", result.Duplicates, told)
				}
				result = convert(conv, batch(labelled("two", "a", 10, attributes{"code": 200})))
				if told := got.take(); !slices.Equal(told, across) || result.Duplicates != uint64(len(across)) {
					t.Errorf("%d duplicates, %q, want %q", result.Duplicates, told, across)
				}
				if labels == d2c.DuplicatesNone {
					return
				}
				result = convert(conv, batch(
					labelled("one", "b.c", 10, attributes{"k": "v"}), labelled("one", "a", 20, attributes{"code": 200}), gauge("g"),
					labelled("one", "b_c", 10, attributes{"k": "v"}), labelled("one", "a", 10, attributes{"code": "201", "none": ""})))
				want := []string{
					"duplicate 1: map[host:one] scope one b_c map[k:v] (10, 20] of (10, 20]",
					"duplicate 1: map[host:one] scope one a map[code:201 none:] (10, 20] of (10, 20]",
				}
				if told := got.take(); !slices.Equal(told, want) || result.Duplicates != 2 {
					t.Errorf("%d duplicates\ngot  %q\nwant %q", result.Duplicates, told, want)
				}
				result = convert(conv, batch(labelled("one", "b_c", 20, attributes{"k": "v"})))
				if told := got.take(); told != nil || result.Duplicates != 0 {
					t.Errorf("it is open by now: %d duplicates, %q", result.Duplicates, told)
				}
			})
		}
	}
}

// Each resource of a batch is itself.
func TestDuplicatesOfResources(t *testing.T) {
	cfg := d2c.DefaultConfig()
	cfg.Duplicates = d2c.DuplicatesResource
	conv := newConverter(t, cfg)
	if result := convert(conv, batch(labelled("one", "a", 10, nil), labelled("two", "a", 10, nil), labelled("three", "a", 10, nil))); result.Duplicates != 0 {
		t.Errorf("%d duplicates", result.Duplicates)
	}
	result := convert(conv, batch(labelled("two", "a", 10, attributes{"k": ""}), labelled("three", "b", 10, attributes{"k": ""})))
	if result.Duplicates != 1 {
		t.Errorf("%d duplicates, want 1", result.Duplicates)
	}
}

// Tenants have backends, or labels, of their own.
func TestDuplicatesOfTenants(t *testing.T) {
	cfg := d2c.DefaultConfig()
	cfg.Duplicates = d2c.DuplicatesService
	conv := newConverter(t, cfg)
	for i, tenant := range []string{"acme", "globex", "acme"} {
		ctx := d2c.WithTenant(context.Background(), streamid.TenantKey{Name: "x-tenant", Values: []string{tenant}})
		result, err := conv.Convert(ctx, batch(labelled(fmt.Sprint(i), "a", 10, nil)))
		if want := uint64(i / 2); err != nil || result.Duplicates != want {
			t.Errorf("batch %d: %d duplicates, %v, want %d", i, result.Duplicates, err, want)
		}
	}
}

// A stream that has expired and comes again is no duplicate of its own.
func TestDuplicatesAndExpiry(t *testing.T) {
	clock := time.Unix(1000, 0)
	cfg := d2c.DefaultConfig()
	cfg.Duplicates, cfg.MaxStale, cfg.Now = d2c.DuplicatesService, time.Second, func() time.Time { return clock }
	conv := newConverter(t, cfg)
	for i, host := range []string{"one", "one", "two", "two"} {
		result := convert(conv, batch(labelled(host, "a", 2000, nil)))
		if want := uint64(i / 2); result.Count(d2c.AddedFirst) != 1 || result.Duplicates != want {
			t.Errorf("%d duplicates, %s, want %d", result.Duplicates, describeResult(result), want)
		}
		clock = clock.Add(time.Minute)
		if n := conv.Expire(); n != 1 {
			t.Fatalf("%d expired", n)
		}
	}
}
