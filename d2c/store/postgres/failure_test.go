// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/deltaring/deltaring/d2c/store/log"
	"github.com/deltaring/deltaring/d2c/store/postgres/postgrestest"
)

const patience = 10 * time.Second

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// goOn appends until that succeeds, reading on after each error as an owner does, and returns where the log ends.
func goOn(t testing.TB, d *Driver, n int, after log.Position) log.Position {
	t.Helper()
	postgrestest.Eventually(t, "an append succeeds", func() error {
		a := log.Append{Log: n, After: after, ID: rand.Uint64() | 1, Entry: []byte("entry")}
		done, err := d.Append(within(t, 5*time.Second), []log.Append{a})
		if err == nil && done[0] {
			after = log.Position{Number: after.Number + 1, ID: a.ID}
			return nil
		}
		if err != nil && !MayPass(err) {
			t.Fatalf("this is said not to pass: %v", err)
		}
		tail, failed := d.Read(within(t, 5*time.Second), n, after)
		if failed == nil {
			after = tail.End()
		}
		return fmt.Errorf("done %v, error %w", done, err)
	})
	return after
}

// A lost answer is an error, and reading on shows whether the append was done. It was: the server had all it needed.
func TestLostAnswer(t *testing.T) {
	s := postgrestest.Start(t)
	proxy := postgrestest.StartProxy(t, s.Addr)
	d := open(t, connect(t, proxy.Addr), Options{Name: "d2c"})
	end := begin(t, d, 0, 3)
	proxy.LoseAnswer()
	a := log.Append{Log: 0, After: end, ID: 99, Entry: []byte("lost")}
	done, err := d.Append(t.Context(), []log.Append{a})
	if err == nil || ReasonOf(err) != Unreachable || !MayPass(err) {
		t.Fatalf("done %v, error %v, of reason %s", done, err, ReasonOf(err))
	}
	var tail log.Tail
	postgrestest.Eventually(t, "the entry is there", func() error { // the answer was of the statement, so it was before its commit
		if tail, err = d.Read(t.Context(), 0, end); err != nil {
			return err
		}
		if len(tail.Entries) == 0 {
			return fmt.Errorf("the log ends at %v", tail.End())
		}
		return nil
	})
	if tail.From != end || tail.Entries[0].ID != 99 || string(tail.Entries[0].Data) != "lost" {
		t.Errorf("tail %+v", tail)
	}
	proxy.Cut()
	goOn(t, d, 0, tail.End())
}

// What was acknowledged is there after the server was killed, whenever that was.
func TestKilledServer(t *testing.T) {
	s := postgrestest.Start(t)
	d := open(t, connect(t, s.Addr), Options{Name: "d2c"})
	const logs, kills = 4, 4
	var known [logs]log.Position
	var history [logs][]uint64 // IDs of what was acknowledged, or read
	for n := range known {
		known[n] = begin(t, d, n, 1)
		history[n] = []uint64{known[n].ID}
	}
	for kill := range kills {
		killed := make(chan struct{})
		after := 20 + rand.IntN(60)
		var died bool
		for i := 0; !died; i++ {
			if i == after {
				go func() { defer close(killed); s.Crash() }()
			}
			var appends []log.Append
			for n := range known {
				appends = append(appends, log.Append{
					Log: n, After: known[n], ID: rand.Uint64() | 1, Entry: bytes.Repeat([]byte{byte(i)}, 100+rand.IntN(10_000)),
				})
			}
			done, err := d.Append(within(t, 5*time.Second), appends)
			if died = err != nil; died {
				break
			}
			for n := range done {
				if !done[n] {
					t.Fatalf("kill %d: log %d does not end at %v", kill, n, known[n])
				}
				known[n] = log.Position{Number: known[n].Number + 1, ID: appends[n].ID}
				history[n] = append(history[n], appends[n].ID)
			}
			if i%10 == 9 {
				if err := d.Compact(within(t, 5*time.Second), i/10%logs, known[i/10%logs], []byte("snapshot")); err != nil {
					died = true
				}
			}
		}
		<-killed
		s.Kill()
		s.Start()
		for n := range known {
			var tail log.Tail
			postgrestest.Eventually(t, "the log is read", func() (err error) {
				tail, err = d.Read(within(t, 5*time.Second), n, log.Position{})
				return err
			})
			got := tail.End()
			if got != known[n] && got.Number != known[n].Number+1 {
				t.Fatalf("kill %d: log %d ends at %v, and %v was acknowledged", kill, n, got, known[n])
			}
			for i, e := range tail.Entries {
				number := tail.From.Number + uint64(i)
				if number < uint64(len(history[n])) && history[n][number] != e.ID {
					t.Fatalf("kill %d: entry %d of log %d has ID %x, and %x was acknowledged", kill, number+1, n, e.ID, history[n][number])
				}
			}
			if got != known[n] {
				history[n], known[n] = append(history[n], got.ID), got
			}
		}
	}
}

// A server that is stopped says so, and the same pool goes on with it when it is back.
func TestRestart(t *testing.T) {
	s := postgrestest.Start(t)
	d := open(t, connect(t, s.Addr), Options{Name: "d2c"})
	end := begin(t, d, 0, 3)
	s.Stop()
	for range 2 { // the connection that was there, and a new one
		_, err := d.Append(t.Context(), []log.Append{{Log: 0, After: end, ID: 9, Entry: []byte("x")}})
		if ReasonOf(err) != Unreachable || !MayPass(err) {
			t.Fatalf("error %v, of reason %s", err, ReasonOf(err))
		}
	}
	s.Start()
	if got := goOn(t, d, 0, end); got.Number != end.Number+1 {
		t.Errorf("the log ends at %v, and was at %v", got, end)
	}
}

// both returns a pool for two servers, of which that is used which takes writes.
func both(t testing.TB, a, b *postgrestest.Server) *pgxpool.Pool {
	return connectWith(t, a.Addr, func(cfg *pgxpool.Config) {
		host, port, _ := net.SplitHostPort(b.Addr)
		n, _ := strconv.ParseUint(port, 10, 16)
		cfg.ConnConfig.Fallbacks = []*pgconn.FallbackConfig{{Host: host, Port: uint16(n)}}
	})
}

// A standby that is promoted may lack the last commits. Their owner sees that its logs ended before, or go on otherwise, and nothing it
// appends goes to a log that is not as it knows it.
func TestFailover(t *testing.T) {
	primary := postgrestest.Start(t)
	standby := primary.Standby()
	d := open(t, both(t, standby, primary), Options{Name: "d2c"})
	kept := [2]log.Position{begin(t, d, 0, 3), begin(t, d, 1, 3)}
	standby.Follows(primary)
	standby.Stop()
	known := kept
	for n := range known {
		known[n] = must(t, d, n, must(t, d, n, known[n]))
	}
	primary.Kill()
	standby.Start()

	_, err := d.Append(t.Context(), []log.Append{{Log: 0, After: known[0], ID: 5, Entry: []byte("x")}})
	if ReasonOf(err) != Unreachable || !MayPass(err) {
		t.Fatalf("the standby is not promoted: error %v, of reason %s", err, ReasonOf(err))
	}
	if err := d.Probe(t.Context()); ReasonOf(err) != Unreachable {
		t.Errorf("the standby is not promoted: a probe says %v, of reason %s", err, ReasonOf(err))
	}
	standby.Promote()
	var done []bool
	postgrestest.Eventually(t, "the standby is promoted", func() (err error) {
		done, err = d.Append(t.Context(), []log.Append{
			{Log: 0, After: known[0], ID: 5, Entry: []byte("x")}, {Log: 1, After: kept[1], ID: 6, Entry: []byte("other")},
		})
		return err
	})
	if done[0] || !done[1] {
		t.Fatalf("done %v, want only what fits the log that is there", done)
	}
	if _, err := d.Append(t.Context(), []log.Append{{Log: 1, After: log.Position{Number: 4, ID: 6}, ID: 8, Entry: []byte("other")}}); err != nil {
		t.Fatal(err)
	}
	// Log 1 has as many entries as before, but others.
	if done, err := d.Append(t.Context(), []log.Append{{Log: 1, After: known[1], ID: 7, Entry: []byte("x")}}); err != nil || done[0] {
		t.Fatalf("an append to another history: done %v, error %v", done, err)
	}
	for n, end := range []log.Position{kept[0], {Number: 5, ID: 8}} {
		tail, err := d.Read(t.Context(), n, known[n])
		if err != nil || tail.From != (log.Position{}) || tail.End() != end {
			t.Errorf("log %d: tail %+v, error %v, want all of it, to %v", n, tail, err, end)
		}
		goOn(t, d, n, tail.End())
	}
}

// With a synchronous standby a failover loses nothing.
func TestSynchronousStandby(t *testing.T) {
	primary := postgrestest.Start(t)
	standby := primary.Standby()
	d := open(t, both(t, primary, standby), Options{Name: "d2c"})
	end := begin(t, d, 0, 1)
	primary.Exec("ALTER SYSTEM SET synchronous_standby_names = '*'")
	primary.Reload()
	postgrestest.Eventually(t, "the standby is synchronous", func() error {
		if primary.Number("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") != 1 {
			return fmt.Errorf("it is not")
		}
		return nil
	})
	for range 50 {
		end = must(t, d, 0, end)
	}
	primary.Kill()
	standby.Promote()
	var tail log.Tail
	postgrestest.Eventually(t, "the standby is promoted", func() (err error) {
		tail, err = d.Read(within(t, 5*time.Second), 0, end)
		return err
	})
	if tail.From != end || len(tail.Entries) > 0 {
		t.Errorf("tail %+v after %v, want that it ends there", tail, end)
	}
}

func TestMaxConnections(t *testing.T) {
	s := postgrestest.Start(t, "max_connections=5", "superuser_reserved_connections=3")
	s.Exec("CREATE USER worker; CREATE SCHEMA d2c AUTHORIZATION worker")
	d := open(t, connectAs(t, s.Addr, "worker", ""), Options{Name: "d2c"})
	other, err := connectAs(t, s.Addr, "worker", "").Acquire(t.Context()) // besides that of the test
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.Read(t.Context(), 0, log.Position{})
	if ReasonOf(err) != Connections || !MayPass(err) {
		t.Errorf("error %v, of reason %s", err, ReasonOf(err))
	}
	_ = other.Conn().Close(t.Context())
	other.Release()
	goOn(t, d, 0, log.Position{})
}
