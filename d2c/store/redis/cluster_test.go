// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"strings"
	"testing"

	goredis "github.com/redis/go-redis/v9"

	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/d2c/store/redis/redistest"
	"github.com/deltaring/deltaring/d2c/storetest"
	"github.com/deltaring/deltaring/streamid"
)

// A load of equally distributed streams is divided evenly.
func TestClusterIsDividedEvenly(t *testing.T) {
	nodes := redistest.StartCluster(t, 3)
	te := openTester(t, connect(t, "cluster", nodes[0].Addr), testOptions())
	var swaps []store.Swap
	for range 12_000 {
		swaps = append(swaps, store.Swap{ID: streamid.ID{Hi: rand.Uint64(), Lo: rand.Uint64()}, Tag: 1, Record: []byte("a")})
	}
	te.must(swaps...)
	for i, node := range nodes {
		n := int64(0)
		for _, key := range keysOf(t, node) {
			if strings.HasSuffix(key, ":d2c:"+layoutVersion+"n") {
				n += node.Do("hlen", key).(int64) - 2
			}
		}
		if n < 3600 || n > 4400 {
			t.Errorf("node %d has %d of 12000 streams", i, n)
		}
		node.Do("script", "flush")
	}
	for i := range swaps {
		swaps[i].Base, swaps[i].Tag = 1, 2
	}
	te.must(swaps...)
}

// A slot moves to another node, key by key, while its streams are swapped. What is known goes on while all of it is on one side. The
// rest waits: a server does not do a call of which it has one key and not another.
func TestClusterMovesASlot(t *testing.T) {
	nodes := redistest.StartCluster(t, 3)
	opts := testOptions()
	opts.MaxRetries = 0
	te := openTester(t, connect(t, "cluster", nodes[0].Addr), opts)
	const streams = 60
	id := func(i int) streamid.ID { return streamid.ID{Hi: uint64(i), Lo: uint64(i)} } // all in group 0
	tags := make([]uint64, streams)
	batch := func(what string, n int) (swaps []store.Swap) {
		for i := range n {
			swaps = append(swaps, store.Swap{ID: id(i), Base: tags[i], Tag: tags[i] + 1, Record: []byte(what)})
		}
		// Others, on all nodes, in the same batch.
		for g := 1; g < slotGroups; g++ {
			swaps = append(swaps, store.Swap{ID: streamid.ID{Hi: uint64(g) << 58, Lo: rand.Uint64()}, Tag: 1, Record: []byte(what)})
		}
		return te.on(swaps)
	}
	reads := func(what string, n int) {
		t.Helper()
		ids := make([]streamid.ID, streams)
		for i := range ids {
			ids[i] = id(i)
		}
		results, err := te.Read(context.Background(), ids)
		if err != nil {
			t.Fatalf("%s: reading: %v", what, err)
		}
		for i, r := range results {
			if r.Status != store.Changed || r.Tag != tags[i] || r.Tag == 0 != (r.Record == nil) || i < n && string(r.Record) != what {
				t.Fatalf("%s: stream %d reads as %+v", what, i, r)
			}
		}
	}
	step := func(what string, n int) {
		t.Helper()
		results, err := te.try(batch(what, n)...)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		for i, r := range results {
			if r.Status != store.Swapped {
				t.Fatalf("%s: swap %d: %+v", what, i, r)
			}
		}
		var swaps []store.Swap
		for i := range n {
			tags[i]++
			swaps = append(swaps, store.Swap{ID: id(i), Base: 1 << 40, Unit: int32(i / 4)})
		}
		if results, err = te.try(swaps...); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		for i, r := range results {
			if r.Status != store.Changed || r.Tag != tags[i] || string(r.Record) != what {
				t.Fatalf("%s: stream %d has %+v", what, i, r)
			}
		}
		reads(what, n)
		// Another life is refused now as well, and changes nothing.
		swap := te.on([]store.Swap{{ID: id(0), Base: tags[0], Tag: 1 << 50, Record: []byte("wrong")}})
		swap[0].Life++
		if results, err = te.Swap(context.Background(), swap); err != nil || results[0].Status != store.OtherLife {
			t.Fatalf("%s: under another life: %+v, error %v", what, results, err)
		}
		if _, err := te.Lives(context.Background(), store.Life{ID: 1}); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if err := te.Probe(context.Background()); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	waits := func(what string, swaps ...store.Swap) {
		t.Helper()
		if results, err := te.try(swaps...); !says(err, "TRYAGAIN") || !strings.Contains(err.Error(), "a slot is being moved") || !mayPass(err) {
			t.Fatalf("%s: %+v, error %v", what, results, err)
		}
	}
	began := store.Swap{ID: id(streams), Tag: 1, Record: []byte("new")}
	newer, _, _ := te.where(id(0))
	from, to := nodes[0], nodes[2]
	slot := from.Do("cluster", "keyslot", newer).(int64)
	fromID, toID := from.Do("cluster", "myid").(string), to.Do("cluster", "myid").(string)
	migrate := func(key string) { from.Do("migrate", "127.0.0.1", to.Port(), key, 0, 5000) }

	step("before", 20)
	step("before, others too", 40)
	to.Do("cluster", "setslot", slot, "importing", fromID)
	from.Do("cluster", "setslot", slot, "migrating", toID)
	step("none has moved", 40)
	waits("none has moved", began)
	migrate(te.lifeKey(0))
	waits("the life has moved", batch("", 40)...)
	reads("none has moved", 40)
	to.Do("script", "flush")
	migrate(newer)
	step("all have moved", 40)
	waits("all have moved", began)

	// It waits for as long as it may.
	opts.MaxRetries = 50
	patient := openTester(t, connect(t, "cluster", nodes[1].Addr), opts)
	done := make(chan error, 1)
	to.Do("config", "resetstat")
	go func() {
		_, err := patient.try(began)
		done <- err
	}()
	redistest.Eventually(t, "the swap waits", func() error {
		if !strings.Contains(to.Do("info", "errorstats").(string), "TRYAGAIN") {
			return errors.New("not yet")
		}
		return nil
	})
	for _, left := range from.Do("cluster", "getkeysinslot", slot, 10).([]any) {
		migrate(left.(string))
	}
	for _, node := range []*redistest.Server{to, from, nodes[1]} {
		node.Do("cluster", "setslot", slot, "node", toID)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	step("the slot has moved", streams)
	step("and after", streams)
	te.must(store.Swap{ID: began.ID, Base: 1, Unit: 1}, store.Swap{ID: id(1), Base: tags[1], Unit: 1})
}

// What a replica says is not what is so.
func TestServerIsAReplica(t *testing.T) {
	master, server := redistest.Start(t), redistest.Start(t)
	opts := testOptions()
	opts.TTL, opts.MaxRetries = 0, 0
	te := openTester(t, connect(t, "standalone", master.Addr), opts)
	id := streamid.ID{Hi: 1}
	te.must(store.Swap{ID: id, Tag: 1, Record: []byte("a")})
	host, port, _ := net.SplitHostPort(master.Addr)
	server.Do("replicaof", host, port)
	redistest.Eventually(t, "the replica has it", func() error {
		if server.Info("replication", "master_link_status") != "up" || server.Do("dbsize").(int64) < 2 {
			return errors.New("not yet")
		}
		return nil
	})
	replica := open(t, connect(t, "standalone", server.Addr), opts)
	for _, swap := range []store.Swap{
		{ID: id, Base: 1, Tag: 2, Record: []byte("b")},
		{ID: id, Base: 1},
		{ID: streamid.ID{Hi: 2}},
		{ID: streamid.ID{Hi: 2}, Tag: 2, Record: []byte("b")},
	} {
		for unit := range int32(2) {
			swap.Unit = unit
			swaps := te.on([]store.Swap{swap, {ID: streamid.ID{Hi: 3}, Unit: unit}})
			if _, err := replica.Swap(context.Background(), swaps); err == nil || !says(err, "READONLY") {
				t.Errorf("%+v: error %v", swap, err)
			}
		}
	}
	if _, err := replica.Lives(context.Background(), store.Life{ID: 5}); err == nil || !says(err, "READONLY") {
		t.Errorf("Lives: error %v", err)
	}
	if err := replica.Probe(context.Background()); err == nil || !strings.Contains(err.Error(), "is a replica") {
		t.Errorf("Probe: error %v", err)
	}
}

func TestSharedBehindSentinel(t *testing.T) {
	master := redistest.Start(t)
	sentinel := redistest.StartSentinel(t, master)
	client := func(t testing.TB) goredis.UniversalClient { return connect(t, "sentinel", sentinel.Addr) }
	storetest.TestShared(t, fixtureOf(client, func() { master.Do("flushall") }, testOptions()))
}

// A server that lets us use one command and not another has not done half of a unit.
func TestUnitIsWholeWithoutAPermission(t *testing.T) {
	server := redistest.Start(t)
	te := openTester(t, connect(t, "standalone", server.Addr), testOptions())
	ids := []streamid.ID{{Hi: 1}, {Hi: 2}, {Hi: 3}}
	te.must(store.Swap{ID: ids[0], Tag: 1, Record: []byte("a")}, store.Swap{ID: ids[1], Tag: 1, Record: []byte("b")})
	for _, command := range []string{"hset", "hmget", "pttl", "mget", "hdel", "pexpire", "persist", "renamenx"} {
		server.Do("acl", "setuser", "default", "-"+command)
		swaps := te.on([]store.Swap{
			{ID: ids[0], Base: 1, Tag: 2, Record: []byte("c"), Unit: 1},
			{ID: ids[2], Tag: 2, Record: []byte("d"), Unit: 1},
			{ID: ids[1], Base: 1, Unit: 1},
		})
		_, err := te.Swap(context.Background(), swaps)
		if probe := te.Probe(context.Background()); ReasonOf(probe) != Credentials {
			t.Errorf("without %s: the probe's error %v", command, probe)
		}
		server.Do("acl", "setuser", "default", "+"+command)
		if err == nil {
			if command == "hset" || command == "hmget" || command == "pttl" || command == "mget" {
				t.Errorf("without %s: no error", command)
			}
			te.must(store.Swap{ID: ids[0], Base: 2, Tag: 1, Record: []byte("a")})
			if err := te.SetAside(context.Background(), ids[2], []byte("d")); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if ReasonOf(err) != Credentials {
			t.Errorf("without %s: error %v", command, err)
		}
		if r := te.swap(store.Swap{ID: ids[0], Base: 1}, store.Swap{ID: ids[2]}); r[0].Status != store.Swapped || r[1].Status != store.Swapped {
			t.Errorf("without %s half of the unit was done: %+v", command, r)
		}
	}
}
