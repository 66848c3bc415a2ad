// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redisstate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.opentelemetry.io/collector/component/componentstatus"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/streamid"
)

// startReplica starts a replica of the server and waits until it follows.
func startReplica(t *testing.T, master *redisServer) *redisServer {
	t.Helper()
	host, port, _ := net.SplitHostPort(master.addr)
	replica := startRedis(t, "--replicaof", host, port, "--repl-diskless-sync-delay", "0")
	eventually(t, "the replica follows", func() error {
		if state := replica.info("replication", "master_link_status"); state != "up" {
			return errors.New(state)
		}
		return nil
	})
	return replica
}

func TestWaitForReplicas(t *testing.T) {
	master := startRedis(t, "--repl-diskless-sync-delay", "0")
	cfg := testConfig(master.addr)
	cfg.WaitReplicas, cfg.WaitTimeout = 1, time.Second
	cfg.Username, cfg.Password = "worker", secret
	master.allow("+wait")
	ext := watch(t, cfg)
	st := sharedStore(t, ext.redisState, testProcessor)
	id := streamid.ID{Hi: 1}
	refused := func(what string, st d2c.SharedStore, ops ...d2c.SwapOp) {
		t.Helper()
		err := st.Swap(context.Background(), ops)
		if err == nil || reason(err) != "replicas" || !strings.Contains(err.Error(), "0 of 1 replicas") {
			t.Fatalf("%s: error %v", what, err)
		}
	}
	refused("no replica", st, d2c.SwapOp{ID: id, Record: record(1, "")})
	ext.host.await(t, componentstatus.StatusRecoverableError)

	replica := startReplica(t, master)
	ext.host.await(t, componentstatus.StatusOK)
	mustSwap(t, st, d2c.SwapOp{ID: id, Base: 1, Record: record(2, "")}) // done, though not confirmed

	cfg.RecordTTL = 0
	other := openStore(t, cfg)
	swap(t, other, d2c.SwapOp{ID: id, Base: 9})

	stopped := replica.cmd.Process
	signal := func(sig syscall.Signal) {
		if err := stopped.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	signal(syscall.SIGSTOP)
	refused("the replica hangs", st, d2c.SwapOp{ID: id, Base: 2, Record: record(3, "")})
	// What another has written may not go out either before a replica has it, even if this worker writes nothing.
	refused("the replica hangs, and nothing is written", other, d2c.SwapOp{ID: id, Base: 9})
	signal(syscall.SIGCONT)
	eventually(t, "the replica has caught up", func() error {
		return st.Swap(context.Background(), []d2c.SwapOp{{ID: id, Base: 3}})
	})
	mustSwap(t, st, d2c.SwapOp{ID: id, Base: 3, Record: record(4, "")})
}

func TestSentinelFailover(t *testing.T) {
	master := startRedis(t, "--repl-diskless-sync-delay", "0")
	replica := startReplica(t, master)
	sentinel := startSentinel(t, master, "requirepass "+secret)
	eventually(t, "the Sentinel knows the replica", func() error {
		out := redisCLI(t, "-p", sentinel.port(), "--no-auth-warning", "-a", secret, "sentinel", "replicas", "counters")
		if !strings.Contains(out, replica.port()) {
			return errors.New(out)
		}
		return nil
	})
	config := func() *Config {
		// One of the Sentinels is not there.
		cfg := testConfig(freeAddress(t), sentinel.addr)
		cfg.Mode = ModeSentinel
		cfg.Sentinel = SentinelConfig{MasterName: "counters", Password: secret}
		return cfg
	}
	st := openStore(t, config())
	safe := config()
	safe.WaitReplicas, safe.WaitTimeout = 1, 4*time.Second
	confirmed := openStore(t, safe)

	var ops []d2c.SwapOp
	for i := range 2000 {
		ops = append(ops, d2c.SwapOp{ID: streamid.ID{Hi: uint64(i) << 50, Lo: 1}, Record: record(uint64(i)+1, "before")})
	}
	mustSwap(t, confirmed, ops...)
	master.stop()
	var err error
	eventually(t, "the replica has taken over", func() error {
		err = errorOf(st)
		return err
	})
	for i := range ops {
		ops[i].Base, ops[i].Record = uint64(i)+1, record(uint64(i)+5000, "after")
	}
	mustSwap(t, st, ops...)
	if role := replica.info("replication", "role"); role != "master" {
		t.Errorf("the replica is a %s", role)
	}

	// The old one comes back, with what it had: nobody listens to it.
	master.args = append(master.args, "--replicaof", "127.0.0.1", replica.port())
	master.start()
	for i := range ops {
		ops[i].Base = uint64(i) + 5000
		ops[i].Record = record(uint64(i)+9000, "later")
	}
	eventually(t, "the old one follows", func() error {
		if state := master.info("replication", "master_link_status"); state != "up" {
			return errors.New(state)
		}
		return nil
	})
	eventually(t, "a replica confirms", func() error { return errorOf(confirmed) })
	mustSwap(t, confirmed, ops...)

	t.Run("wrong password of the Sentinel", func(t *testing.T) {
		cfg := config()
		cfg.Endpoints = []string{sentinel.addr}
		cfg.Sentinel.Password = "wrong-" + secret
		ext := watch(t, cfg)
		err := errorOf(sharedStore(t, ext.redisState, testProcessor))
		if err == nil {
			t.Error("no error")
		}
		ext.mustNotSay(t, secret, err)
	})
}

func clusterConfig(nodes []*redisServer) *Config {
	cfg := testConfig(nodes[0].addr)
	cfg.Mode = ModeCluster
	return cfg
}

func TestCluster(t *testing.T) {
	nodes := startCluster(t, 3)
	st := openStore(t, clusterConfig(nodes)).(*store)
	testContract(t, st, func(id streamid.ID, value []byte) {
		key := string(st.appendKey(nil, id))
		if err := st.server.cluster.Set(context.Background(), key, value, 0).Err(); err != nil {
			t.Fatal(err)
		}
	})

	// A load of equally distributed streams is divided evenly.
	var ops []d2c.SwapOp
	for range 12_000 {
		ops = append(ops, d2c.SwapOp{ID: streamid.ID{Hi: rand.Uint64(), Lo: rand.Uint64()}, Record: record(1, "")})
	}
	var before []int64
	for _, node := range nodes {
		before = append(before, node.do("dbsize").(int64))
	}
	mustSwap(t, st, ops...)
	for i, node := range nodes {
		if n := node.do("dbsize").(int64) - before[i]; n < 3600 || n > 4400 {
			t.Errorf("node %d has %d of 12000 streams", i, n)
		}
	}

	for _, node := range nodes {
		node.do("script", "flush")
	}
	for i := range ops {
		ops[i].Base, ops[i].Record = 1, record(2, "")
	}
	mustSwap(t, st, ops...)
}

// A slot moves to another node, key by key, while its streams are swapped.
func TestClusterMovesASlot(t *testing.T) {
	nodes := startCluster(t, 3)
	cfg := clusterConfig(nodes)
	cfg.MaxRetries = 0 // nothing here is a failure
	cfg.Username, cfg.Password = "worker", secret
	for _, node := range nodes {
		node.allow("+cluster|slots", "+asking")
	}
	st := openStore(t, cfg).(*store)
	const streams = 60
	id := func(i int) streamid.ID { return streamid.ID{Hi: uint64(i), Lo: uint64(i)} } // all in group 0
	key := func(i int) string { return string(st.appendKey(nil, id(i))) }
	tags := make([]uint64, streams)
	step := func(what string, n int) {
		t.Helper()
		var ops []d2c.SwapOp
		for i := range n {
			tag := tags[i] + 1
			ops = append(ops, d2c.SwapOp{ID: id(i), Base: tags[i], Record: record(tag, what)})
			tags[i] = tag
		}
		// Others, on all nodes, in the same batch.
		for g := 1; g < groups; g++ {
			ops = append(ops, d2c.SwapOp{ID: streamid.ID{Hi: uint64(g) << 58, Lo: rand.Uint64()}, Record: record(1, what)})
		}
		if err := st.Swap(context.Background(), ops); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		for i, op := range ops {
			if !op.Swapped {
				t.Fatalf("%s: op %d was not done, there is %q", what, i, op.Current)
			}
		}
		for i := range n {
			ops[i] = d2c.SwapOp{ID: id(i), Base: 1 << 40}
		}
		if err := st.Swap(context.Background(), ops[:n]); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		for i, op := range ops[:n] {
			if op.Swapped || !same(op.Current, record(tags[i], what)) {
				t.Fatalf("%s: stream %d has %q, swapped %v", what, i, op.Current, op.Swapped)
			}
		}
	}
	from, to := nodes[0], nodes[2]
	slot := from.do("cluster", "keyslot", key(0)).(int64)
	fromID, toID := from.do("cluster", "myid").(string), to.do("cluster", "myid").(string)
	migrate := func(i int) { from.do("migrate", "127.0.0.1", to.port(), key(i), 0, 5000) }

	step("before", 20)
	to.do("cluster", "setslot", slot, "importing", fromID)
	from.do("cluster", "setslot", slot, "migrating", toID)
	step("none has moved", 30)
	for i := range 15 {
		migrate(2 * i)
	}
	step("half have moved", 40)
	step("half have moved, again", 50)
	to.do("script", "flush")
	step("half have moved, and the script is not known", 50)
	for {
		left := from.do("cluster", "getkeysinslot", slot, 1000).([]any)
		if len(left) == 0 {
			break
		}
		for _, k := range left {
			from.do("migrate", "127.0.0.1", to.port(), k, 0, 5000)
		}
	}
	step("all have moved", 55)
	for _, node := range []*redisServer{to, from, nodes[1]} {
		node.do("cluster", "setslot", slot, "node", toID)
	}
	step("the slot has moved", streams)
	step("and after", streams)

	t.Run("with replicas to wait for", func(t *testing.T) {
		cfg := clusterConfig(nodes)
		cfg.WaitReplicas, cfg.WaitTimeout = 1, 50*time.Millisecond
		err := errorOf(openStore(t, cfg)) // there are none
		if err == nil || reason(err) != "replicas" {
			t.Errorf("error %v", err)
		}
	})
}

// redis-cli moves slots while a Converter works.
func TestClusterReshardsUnderLoad(t *testing.T) {
	nodes := startCluster(t, 3)
	ext := startExtension(t, clusterConfig(nodes))
	f := newShareTest(t, 200, sharedStore(t, ext, testProcessor), sharedStore(t, ext, testProcessor))
	done := make(chan struct{})
	go func() {
		defer close(done)
		from := fmt.Sprint(nodes[0].do("cluster", "myid"))
		to := fmt.Sprint(nodes[1].do("cluster", "myid"))
		redisCLI(t, "--cluster", "reshard", nodes[0].addr, "--cluster-from", from, "--cluster-to", to,
			"--cluster-slots", "800", "--cluster-yes", "--cluster-pipeline", "1")
	}()
	rounds := 0
	for running := true; running; rounds++ {
		select {
		case <-done:
			running = false
		default:
		}
		f.round(2)
	}
	f.verify()
	t.Logf("%d rounds, %d batches refused and sent again", rounds, f.refused.Load())
}
