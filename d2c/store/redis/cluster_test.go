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
	var before []int64
	for _, node := range nodes {
		before = append(before, node.Do("dbsize").(int64))
	}
	te.must(swaps...)
	for i, node := range nodes {
		if n := node.Do("dbsize").(int64) - before[i]; n < 3600 || n > 4400 {
			t.Errorf("node %d has %d of 12000 streams", i, n)
		}
		node.Do("script", "flush")
	}
	for i := range swaps {
		swaps[i].Base, swaps[i].Tag = 1, 2
	}
	te.must(swaps...)
}

// A slot moves to another node, key by key, while its streams are swapped.
func TestClusterMovesASlot(t *testing.T) {
	nodes := redistest.StartCluster(t, 3)
	opts := testOptions()
	opts.MaxRetries = 0 // nothing here is a failure
	te := openTester(t, connect(t, "cluster", nodes[0].Addr), opts)
	const streams = 60
	id := func(i int) streamid.ID { return streamid.ID{Hi: uint64(i), Lo: uint64(i)} } // all in group 0
	tags := make([]uint64, streams)
	step := func(what string, n int) {
		t.Helper()
		var swaps []store.Swap
		for i := range n {
			swaps = append(swaps, store.Swap{ID: id(i), Base: tags[i], Tag: tags[i] + 1, Record: []byte(what)})
			tags[i]++
		}
		// Others, on all nodes, in the same batch.
		for g := 1; g < slotGroups; g++ {
			swaps = append(swaps, store.Swap{ID: streamid.ID{Hi: uint64(g) << 58, Lo: rand.Uint64()}, Tag: 1, Record: []byte(what)})
		}
		results, err := te.try(swaps...)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		for i, r := range results {
			if r.Status != store.Swapped {
				t.Fatalf("%s: swap %d: %+v", what, i, r)
			}
		}
		for i := range n {
			swaps[i] = store.Swap{ID: id(i), Base: 1 << 40}
		}
		if results, err = te.try(swaps[:n]...); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		for i, r := range results {
			if r.Status != store.Changed || r.Tag != tags[i] || string(r.Record) != what {
				t.Fatalf("%s: stream %d has %+v", what, i, r)
			}
		}
		ids := make([]streamid.ID, streams)
		for i := range ids {
			ids[i] = id(i)
		}
		if results, err = te.Read(context.Background(), ids); err != nil {
			t.Fatalf("%s: reading: %v", what, err)
		}
		for i, r := range results {
			if r.Status != store.Changed || r.Tag != tags[i] || r.Tag == 0 != (r.Record == nil) || i < n && string(r.Record) != what {
				t.Fatalf("%s: stream %d reads as %+v", what, i, r)
			}
		}
		// Another life is refused now as well, and changes nothing.
		swap := te.on([]store.Swap{{ID: id(0), Base: tags[0], Tag: 1 << 50, Record: []byte("wrong")}, {ID: id(streams + 1), Tag: 5, Record: []byte("wrong")}})
		swap[0].Life, swap[1].Life = swap[0].Life+1, swap[1].Life+1
		if results, err = te.Swap(context.Background(), swap); err != nil || results[0].Status != store.OtherLife || results[1].Status != store.OtherLife {
			t.Fatalf("%s: under another life: %+v, error %v", what, results, err)
		}
		if _, err := te.Lives(context.Background(), store.Life{ID: 1}); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	from, to := nodes[0], nodes[2]
	slot := from.Do("cluster", "keyslot", te.key(id(0))).(int64)
	fromID, toID := from.Do("cluster", "myid").(string), to.Do("cluster", "myid").(string)
	migrate := func(key string) { from.Do("migrate", "127.0.0.1", to.Port(), key, 0, 5000) }

	step("before", 20)
	to.Do("cluster", "setslot", slot, "importing", fromID)
	from.Do("cluster", "setslot", slot, "migrating", toID)
	step("none has moved", 30)
	for i := range 15 {
		migrate(te.key(id(2 * i)))
	}
	step("half have moved", 40)
	migrate(te.lifeKey(0))
	step("half have moved, and the life", 50)
	to.Do("script", "flush")
	step("half have moved, and the script is not known", 50)
	// A unit waits.
	unit := []store.Swap{{ID: id(streams + 2), Tag: 1, Record: []byte("a"), Unit: 1}, {ID: id(1), Base: tags[1], Unit: 1}}
	if results, err := te.try(unit...); err == nil {
		t.Fatalf("a unit of keys on two sides: %+v", results)
	}
	for {
		left := from.Do("cluster", "getkeysinslot", slot, 1000).([]any)
		if len(left) == 0 {
			break
		}
		for _, k := range left {
			migrate(k.(string))
		}
	}
	step("all have moved", 55)
	for _, node := range []*redistest.Server{to, from, nodes[1]} {
		node.Do("cluster", "setslot", slot, "node", toID)
	}
	step("the slot has moved", streams)
	step("and after", streams)
	te.must(unit[0], store.Swap{ID: id(1), Base: tags[1], Unit: 1})
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
	for _, command := range []string{"set", "psetex", "setrange", "pexpire", "mget", "get"} {
		server.Do("acl", "setuser", "default", "-"+command)
		swaps := te.on([]store.Swap{
			{ID: ids[0], Base: 1, Tag: 2, Record: []byte("c"), Unit: 1},
			{ID: ids[2], Tag: 2, Record: []byte("d"), Unit: 1},
			{ID: ids[1], Base: 1, Unit: 1},
		})
		_, err := te.Swap(context.Background(), swaps)
		server.Do("acl", "setuser", "default", "+"+command)
		if err == nil {
			if command != "psetex" && command != "setrange" {
				t.Errorf("without %s: no error", command)
			}
			te.must(store.Swap{ID: ids[0], Base: 2, Tag: 1, Record: []byte("a")})
			server.Do("del", te.key(ids[2]))
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
