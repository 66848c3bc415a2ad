// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/streamid"
)

// tenantsOfTests are told apart by all that there is to it. The first is nobody in particular.
var tenantsOfTests = [][]streamid.TenantKey{
	nil,
	{{Name: "x-tenant", Values: []string{"acme"}}},
	{{Name: "x-tenant", Values: []string{"globex"}}},
	{{Name: "x-tenant", Values: []string{""}}},
	{{Name: "x-tenant", Values: []string{"acme", "globex"}}},
	{{Name: "x-tenant", Values: []string{"globex", "acme"}}},
	{{Name: "x-team", Values: []string{"acme"}}},
	{{Name: "x-tenant", Values: []string{"acme"}}, {Name: "x-team", Values: []string{"acme"}}},
}

// keepers has what opens each kind of state, and then returns a Converter for each batch.
func keepers(t *testing.T) map[string]func() (next func() *d2c.Converter) {
	return keepersOf(t, d2c.DefaultConfig())
}

func keepersOf(t *testing.T, cfg d2c.Config) map[string]func() (next func() *d2c.Converter) {
	return map[string]func() func() *d2c.Converter{
		"memory": func() func() *d2c.Converter {
			conv := newConverter(t, cfg)
			return func() *d2c.Converter { return conv }
		},
		"durable": func() func() *d2c.Converter { // a restart each time
			storage := newMemory()
			var conv *d2c.Converter
			return func() *d2c.Converter {
				if conv != nil {
					closeTest(t, conv)
				}
				conv, _ = openTest(t, cfg, storage)
				return conv
			}
		},
		"shared": func() func() *d2c.Converter { // another worker each time
			cfg := cfg
			cfg.Now = func() time.Time { return time.Unix(-1000, 0) } // the store is there before any delta
			memory := new(store.Memory)
			return func() *d2c.Converter {
				conv, err := d2c.OpenShared(context.Background(), cfg, d2c.SharedConfig{Store: memory, Owner: "test"})
				if err != nil {
					t.Fatal(err)
				}
				return conv
			}
		},
	}
}

func TestTenantsDoNotSeeEachOther(t *testing.T) {
	for mode, open := range keepers(t) {
		t.Run(mode, func(t *testing.T) {
			next := open()
			const s = series("s")
			for round := range int64(4) {
				for i, tenant := range tenantsOfTests {
					// Each adds something else, from another time on, and comes twice.
					start, d := float64(1+i), int64(1)<<(4*i)
					from := start + float64(10*round)
					for _, o := range []d2c.Outcome{d2c.AddedAligned, d2c.Repeat} {
						if round == 0 && o == d2c.AddedAligned {
							o = d2c.AddedFirst
						}
						md := batch(s.int(from, from+10, d))
						result, err := next().Convert(d2c.WithTenant(context.Background(), tenant...), md)
						if err != nil {
							t.Fatal(err)
						}
						dp := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints().At(0)
						if result.Count(o) != 1 || dp.IntValue() != (round+1)*d || dp.StartTimestamp() != sec(start) {
							t.Fatalf("round %d, tenant %v: %v, %s, want %v of %d since %v", round, tenant, lines(md), describeResult(result), o, (round+1)*d, start)
						}
					}
				}
			}
		})
	}
}

// What has no value does not count: it is nobody's, or the same as without.
func TestKeysWithoutValuesAreAbsent(t *testing.T) {
	conv := newConverter(t, d2c.DefaultConfig())
	const s = series("s")
	acme, absent := streamid.TenantKey{Name: "x-tenant", Values: []string{"acme"}}, streamid.TenantKey{Name: "x-team"}
	for _, same := range [][][]streamid.TenantKey{{nil, {}, {absent}}, {{acme}, {acme, absent}, {absent, acme}}} {
		for i, tenant := range same {
			md := batch(s.int(float64(10+10*i), float64(20+10*i), 1))
			if _, err := conv.Convert(d2c.WithTenant(context.Background(), tenant...), md); err != nil {
				t.Fatal(err)
			}
			if got := onlyInt(md); got != int64(i+1) {
				t.Errorf("tenant %v: total %d, want %d", tenant, got, i+1)
			}
		}
	}
}

// Batches of several tenants share a commit.
func TestTenantsInOneCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newGated()
		conv, _ := openTest(t, d2c.DefaultConfig(), storage)
		const s = series("s")
		for round := range 2 {
			from := float64(10 + 10*round)
			first := start(context.Background(), conv, series(fmt.Sprint("first ", round)).int(from, from+10, 1))
			synctest.Wait()
			var calls []*call
			for i, tenant := range tenantsOfTests {
				calls = append(calls, start(d2c.WithTenant(context.Background(), tenant...), conv, s.int(from, from+10, 1<<i)))
			}
			synctest.Wait()
			if n := conv.Waiting(); n != len(calls) {
				t.Errorf("%d batches wait, want %d", n, len(calls))
			}
			storage.let(nil)
			first.gives(t, d2c.AddedFirst, 1)
			storage.let(nil)
			for i, c := range calls {
				c.gives(t, []d2c.Outcome{d2c.AddedFirst, d2c.AddedAligned}[round], int64(round+1)<<i)
			}
		}
		if n := storage.puts.Load(); n != 4 {
			t.Errorf("%d Puts, want 4", n)
		}
		closeTest(t, conv)
	})
}

// With another seed all streams are other ones: durable state says so, in shared state each has its own.
func TestAnotherSeedIsAnotherState(t *testing.T) {
	cfg := d2c.DefaultConfig()
	storage := newMemory()
	conv, _ := openTest(t, cfg, storage)
	convert(conv, batch(series("s").int(10, 20, 1)))
	closeTest(t, conv)
	cfg.Seed = 1
	if _, _, err := d2c.OpenDurable(context.Background(), cfg, d2c.DurableConfig{Storage: storage, Owner: "test"}); !errors.Is(err, d2c.ErrOwner) {
		t.Errorf("got %v, want %v", err, d2c.ErrOwner)
	}

	memory := new(store.Memory)
	cfg.Now = func() time.Time { return time.Unix(-1000, 0) }
	for i, seed := range []uint64{0, 1, 0, 1} {
		cfg.Seed = seed
		conv, err := d2c.OpenShared(context.Background(), cfg, d2c.SharedConfig{Store: memory, Owner: "test"})
		if err != nil {
			t.Fatal(err)
		}
		round := i / 2
		md := batch(series("s").int(float64(10+10*round), float64(20+10*round), int64(1+seed)))
		convert(conv, md)
		if got, want := onlyInt(md), int64(1+round)*int64(1+seed); got != want {
			t.Errorf("batch %d: total %d, want %d", i, got, want)
		}
	}
	if memory.Len() != 2 || memory.Aside() != 0 {
		t.Errorf("%d records, %d set aside, want 2 and none", memory.Len(), memory.Aside())
	}
}
