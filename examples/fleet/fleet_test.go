// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"sync"
	"testing"
)

// short is a small fleet, for a quarter of a minute.
var short = options{short: true}

// binary is built once, not by each of the tests that run at the same time.
var binary = sync.OnceValues(func() (string, error) { return collectors{}.of(context.Background(), ours) })

func happen(t *testing.T, name string, s side) *verdict {
	t.Helper()
	chosen, err := choose(name)
	if err != nil {
		t.Fatal(err)
	}
	path, err := binary()
	if err != nil {
		t.Fatalf("no Collector to test: %v", err)
	}
	v, err := short.happen(t.Context(), chosen[0], s, path)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(row{chosen[0], s, v}.line())
	return v
}

// TestEvents has the events happen that are the most different from one another; all others, and more of each, happen with
// go run.
func TestEvents(t *testing.T) {
	for _, name := range []string{"scale-out", "roll-workers", "kill", "store-wipe", "no-gateways"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if v := happen(t, name, ours); !v.flawless() {
				t.Error("not all of this is 0")
			}
		})
	}
	t.Run("cluster", func(t *testing.T) {
		t.Parallel()
		cluster := ours
		cluster.servers = 3
		if v := happen(t, "scale-in", cluster); !v.flawless() {
			t.Error("not all of this is 0")
		}
	})
	for _, tc := range []struct {
		event string
		store storeKind
	}{{"store-wipe", onRedisLog}, {"kill", onS3}, {"scale-out", onPostgres}} {
		t.Run(tc.event+", "+tc.store.name, func(t *testing.T) {
			t.Parallel()
			if v := happen(t, tc.event, sharing.on(tc.store)); !v.flawless() {
				t.Error("not all of this is 0")
			}
		})
	}
	t.Run("hang", func(t *testing.T) {
		t.Parallel()
		if v := happen(t, "hang", ejecting); !v.flawless() {
			t.Error("not all of this is 0")
		}
	})
	// The same verdict, for workers that do not share their state.
	t.Run("not shared", func(t *testing.T) {
		t.Parallel()
		v := happen(t, "scale-out", alone)
		if v.resets < v.series/4 {
			t.Errorf("%d of %d series began anew, of which half have moved", v.resets, v.series)
		}
		if v.flawless() {
			t.Error("flawless")
		}
	})
}

func TestChooseStores(t *testing.T) {
	if all, err := (options{stores: "redis,redis-log,s3,postgres"}).chosenStores(); err != nil || len(all) != len(storeKinds) {
		t.Errorf("%v, %v", all, err)
	}
	if all, err := (options{stores: "redis-log,redis", cluster: true}).chosenStores(); err != nil || len(all) != 2 || all[0].name != "redis-log" {
		t.Errorf("%v, %v", all, err)
	}
	for _, bad := range []options{{}, {stores: "etcd"}, {stores: "s3,"}, {stores: "redis,s3", cluster: true}} {
		if chosen, err := bad.chosenStores(); err == nil {
			t.Errorf("%+v: %v", bad, chosen)
		}
	}
}

func TestChooseEvents(t *testing.T) {
	if all, err := choose(""); err != nil || len(all) != len(events) {
		t.Errorf("%d events, %v", len(all), err)
	}
	if some, err := choose("kill,pause"); err != nil || len(some) != 2 || some[1].name != "pause" {
		t.Errorf("%v, %v", some, err)
	}
	if _, err := choose("kill,nothing"); err == nil {
		t.Error("an unknown event is no error")
	}
}
