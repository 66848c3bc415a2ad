// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redisstate

import (
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.opentelemetry.io/collector/component/componentstatus"

	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/d2c/store/redis"
	"github.com/deltaring/deltaring/d2c/store/redis/redistest"
	"github.com/deltaring/deltaring/streamid"
)

// startReplica starts a replica of the server and waits until it follows.
func startReplica(t *testing.T, master *redistest.Server) *redistest.Server {
	t.Helper()
	host, port, _ := net.SplitHostPort(master.Addr)
	replica := redistest.Start(t, "--replicaof", host, port, "--repl-diskless-sync-delay", "0")
	redistest.Eventually(t, "the replica follows", func() error {
		if state := replica.Info("replication", "master_link_status"); state != "up" {
			return errors.New(state)
		}
		return nil
	})
	return replica
}

func TestWaitForReplicas(t *testing.T) {
	master := redistest.Start(t, "--repl-diskless-sync-delay", "0")
	cfg := testConfig(master.Addr)
	cfg.WaitReplicas, cfg.WaitTimeout = 1, time.Second
	cfg.Username, cfg.Password = "worker", secret
	allow(t, master, "+wait")
	ext := watch(t, cfg)
	st := clientOf(t, ext.redisState)
	id := streamid.ID{Hi: 1}
	refused := func(what string, st *client, ops ...store.Swap) {
		t.Helper()
		_, err := st.try(ops...)
		if err == nil || redis.ReasonOf(err) != redis.Replicas || !strings.Contains(err.Error(), "0 of 1 replicas") {
			t.Fatalf("%s: error %v", what, err)
		}
	}
	refused("no replica, and no life", st, store.Swap{ID: id})
	plain := testConfig(master.Addr)
	plain.Username, plain.Password = "worker", secret
	unsafe := openStore(t, plain)
	mustSwap(t, unsafe, store.Swap{ID: id})
	st.lives = unsafe.lives
	refused("no replica", st, store.Swap{ID: id, Tag: 1, Record: []byte("record")})
	ext.host.await(t, componentstatus.StatusRecoverableError)

	replica := startReplica(t, master)
	ext.host.await(t, componentstatus.StatusOK)
	mustSwap(t, st, store.Swap{ID: id, Base: 1, Tag: 2, Record: []byte("record")}) // done, though not confirmed

	cfg.RecordTTL = 0
	other := openStore(t, cfg)
	swap(t, other, store.Swap{ID: id, Base: 9})

	stopped := replica.Cmd.Process
	signal := func(sig syscall.Signal) {
		if err := stopped.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	signal(syscall.SIGSTOP)
	refused("the replica hangs", st, store.Swap{ID: id, Base: 2, Tag: 3, Record: []byte("record")})
	// What another has written may not go out either before a replica has it, even if this worker writes nothing.
	refused("the replica hangs, and nothing is written", other, store.Swap{ID: id, Base: 9})
	signal(syscall.SIGCONT)
	redistest.Eventually(t, "the replica has caught up", func() error {
		_, err := st.try(store.Swap{ID: id, Base: 3})
		return err
	})
	mustSwap(t, st, store.Swap{ID: id, Base: 3, Tag: 4, Record: []byte("record")})
}

func TestSentinelFailover(t *testing.T) {
	master := redistest.Start(t, "--repl-diskless-sync-delay", "0")
	replica := startReplica(t, master)
	sentinel := redistest.StartSentinel(t, master, "requirepass "+secret)
	redistest.Eventually(t, "the Sentinel knows the replica", func() error {
		out := redistest.CLI(t, "-p", sentinel.Port(), "--no-auth-warning", "-a", secret, "sentinel", "replicas", "counters")
		if !strings.Contains(out, replica.Port()) {
			return errors.New(out)
		}
		return nil
	})
	config := func() *Config {
		// One of the Sentinels is not there.
		cfg := testConfig(redistest.FreeAddress(t), sentinel.Addr)
		cfg.Mode = ModeSentinel
		cfg.Sentinel = SentinelConfig{MasterName: "counters", Password: secret}
		return cfg
	}
	st := openStore(t, config())
	safe := config()
	safe.WaitReplicas, safe.WaitTimeout = 1, 4*time.Second
	confirmed := openStore(t, safe)

	var ops []store.Swap
	for i := range 2000 {
		ops = append(ops, store.Swap{ID: streamid.ID{Hi: uint64(i) << 50, Lo: 1}, Tag: uint64(i) + 1, Record: []byte("before")})
	}
	mustSwap(t, confirmed, ops...)
	master.Stop()
	var err error
	redistest.Eventually(t, "the replica has taken over", func() error {
		err = errorOf(st)
		return err
	})
	for i := range ops {
		ops[i].Base, ops[i].Tag = uint64(i)+1, uint64(i)+5000
	}
	mustSwap(t, st, ops...)
	if role := replica.Info("replication", "role"); role != "master" {
		t.Errorf("the replica is a %s", role)
	}

	// The old one comes back, with what it had: nobody listens to it.
	master.Args = append(master.Args, "--replicaof", "127.0.0.1", replica.Port())
	master.Start()
	for i := range ops {
		ops[i].Base = uint64(i) + 5000
		ops[i].Tag = uint64(i) + 9000
	}
	redistest.Eventually(t, "the old one follows", func() error {
		if state := master.Info("replication", "master_link_status"); state != "up" {
			return errors.New(state)
		}
		return nil
	})
	redistest.Eventually(t, "a replica confirms", func() error { return errorOf(confirmed) })
	mustSwap(t, confirmed, ops...)

	t.Run("wrong password of the Sentinel", func(t *testing.T) {
		cfg := config()
		cfg.Endpoints = []string{sentinel.Addr}
		cfg.Sentinel.Password = "wrong-" + secret
		ext := watch(t, cfg)
		err := errorOf(clientOf(t, ext.redisState))
		if err == nil {
			t.Error("no error")
		}
		ext.mustNotSay(t, secret, err)
	})
}
