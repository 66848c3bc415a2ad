// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/deltaring/deltaring/d2c/store/log"
	"github.com/deltaring/deltaring/d2c/store/postgres/postgrestest"
)

// begin appends entries to a log, and returns where it ends.
func begin(t testing.TB, d *Driver, n, entries int) log.Position {
	t.Helper()
	var end log.Position
	for range entries {
		end = must(t, d, n, end)
	}
	return end
}

func must(t testing.TB, d *Driver, n int, after log.Position) log.Position {
	t.Helper()
	a := log.Append{Log: n, After: after, ID: rand.Uint64() | 1, Entry: []byte("entry")}
	done, err := d.Append(t.Context(), []log.Append{a})
	if err != nil || !done[0] {
		t.Fatalf("append to log %d after %v: done %v, error %v", n, after, done, err)
	}
	return log.Position{Number: after.Number + 1, ID: a.ID}
}

// A statement sees the data as it was when it began. One that has to wait must not append at a number that others have used, and
// made free again with a snapshot, meanwhile.
func TestStatementWithAnOldSnapshot(t *testing.T) {
	s := postgrestest.Start(t)
	pool := connect(t, s.Addr)
	stale, owner := open(t, pool, Options{Name: "d2c"}), open(t, pool, Options{Name: "d2c"})
	zero, one := begin(t, owner, 0, 3), begin(t, owner, 1, 3)

	// Somebody is about to append to log 0, and the stale statement waits for what becomes of it, before it comes to log 1.
	ctx := t.Context()
	other, err := pool.Acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Release()
	tx, err := other.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, "INSERT INTO d2c.entries VALUES ('d2c', 0, 4, 7, '')"); err != nil {
		t.Fatal(err)
	}
	waiting := func() int64 {
		return s.Number("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
	}
	await := func(what string, n int64) {
		t.Helper()
		postgrestest.Eventually(t, what, func() error {
			if got := waiting(); got != n {
				return fmt.Errorf("%d wait", got)
			}
			return nil
		})
	}
	var wg sync.WaitGroup
	var done []bool
	var failed error
	wg.Go(func() {
		done, failed = stale.Append(ctx, []log.Append{
			{Log: 0, After: zero, ID: 11, Entry: []byte("late")}, {Log: 1, After: one, ID: 12, Entry: []byte("late")},
		})
	})
	await("the stale statement waits", 1)

	end := must(t, owner, 1, must(t, owner, 1, one))
	compacted := make(chan error, 1)
	wg.Go(func() { compacted <- owner.Compact(ctx, 1, end, []byte("snapshot")) })
	postgrestest.Eventually(t, "the snapshot is there or waits as well", func() error {
		if waiting() == 2 || len(compacted) > 0 {
			return nil
		}
		return errors.New("neither")
	})
	if err := tx.Rollback(ctx); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if err := errors.Join(failed, <-compacted); err != nil {
		t.Fatal(err)
	}
	if !done[0] || done[1] {
		t.Errorf("done %v, want the first only", done)
	}
	tail, err := owner.Read(ctx, 1, log.Position{})
	if err != nil || tail.From != end || string(tail.Snapshot) != "snapshot" || len(tail.Entries) > 0 {
		t.Errorf("log 1 is %+v, error %v, want a snapshot at %v alone", tail, err, end)
	}
}

// Rows are written in the order of the logs, whatever the order of the appends: who waits for a log has those before it already, and asks for
// none of them again. So two never wait for each other.
func TestOrder(t *testing.T) {
	s := postgrestest.Start(t)
	pool := connect(t, s.Addr)
	for _, c := range []struct {
		name             string
		entries, careful int
		row              string // one that the statement writes for a log
	}{
		{"all or none", 1, 0, "INSERT INTO d2c.entries VALUES ('all or none', %d, 2, 7, '')"},
		{"some", 1, 1, "INSERT INTO d2c.entries VALUES ('some', %d, 2, 7, '')"},
		{"to empty logs", 0, 0, "INSERT INTO d2c.logs VALUES ('to empty logs', %d, 0, 0)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := t.Context()
			d := open(t, pool, Options{Name: c.name})
			if err := d.Probe(ctx); err != nil { // makes the tables
				t.Fatal(err)
			}
			last, first := begin(t, d, 1, c.entries), begin(t, d, 0, c.entries)
			d.careful = c.careful
			other, err := pool.Begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := other.Exec(ctx, fmt.Sprintf(c.row, 1)); err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			wg.Go(func() {
				done, err := d.Append(ctx, []log.Append{{Log: 1, After: last, ID: 11, Entry: []byte("x")}, {Log: 0, After: first, ID: 12, Entry: []byte("x")}})
				if err != nil || !done[0] || !done[1] {
					t.Errorf("done %v, error %v", done, err)
				}
			})
			postgrestest.Eventually(t, "the statement waits", func() error {
				if s.Number("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'") == 0 {
					return errors.New("it does not")
				}
				return nil
			})
			third, err := pool.Begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := third.Exec(ctx, "SET LOCAL lock_timeout = '50ms'"); err != nil {
				t.Fatal(err)
			}
			if _, err := third.Exec(ctx, fmt.Sprintf(c.row, 0)); !says(err, "55P03") {
				t.Errorf("log 0 is written after log 1: error %v", err)
			}
			if err := errors.Join(third.Rollback(ctx), other.Rollback(ctx)); err != nil {
				t.Fatal(err)
			}
			wg.Wait()
		})
	}
}

// Many owners of the same logs, each with commits for some of them in any order: every number of a log is one owner's, all owners get on,
// and nobody waits for somebody who waits for him.
func TestWritersAtOnce(t *testing.T) {
	s := postgrestest.Start(t)
	pool := connect(t, s.Addr)
	const writers, logs, commits = 6, 12, 60
	var mu sync.Mutex
	owners := map[[2]uint64]uint64{} // of numbers of logs, by ID
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			d := open(t, pool, Options{Name: "d2c"})
			random := rand.New(rand.NewPCG(1, uint64(w)))
			var ends [logs]log.Position
			for range commits {
				var appends []log.Append
				for _, n := range random.Perm(logs)[:1+random.IntN(logs)] {
					appends = append(appends, log.Append{Log: n, After: ends[n], ID: random.Uint64() | 1, Entry: []byte("entry")})
				}
				done, err := d.Append(context.Background(), appends)
				if err != nil {
					t.Error(err)
					return
				}
				for i, a := range appends {
					if !done[i] {
						tail, err := d.Read(context.Background(), a.Log, a.After)
						if err != nil {
							t.Error(err)
							return
						}
						if ends[a.Log] = tail.End(); ends[a.Log] == a.After {
							t.Errorf("an append to log %d after %v is refused, and that is where it ends", a.Log, a.After)
						}
						continue
					}
					ends[a.Log] = log.Position{Number: a.After.Number + 1, ID: a.ID}
					key := [2]uint64{uint64(a.Log), ends[a.Log].Number}
					mu.Lock()
					if owners[key] != 0 {
						t.Errorf("entry %d of log %d was appended twice", key[1], key[0])
					}
					owners[key] = a.ID
					mu.Unlock()
					if random.IntN(20) == 0 {
						if err := d.Compact(context.Background(), a.Log, ends[a.Log], []byte("snapshot")); err != nil {
							t.Error(err)
							return
						}
					}
				}
			}
		})
	}
	wg.Wait()
	d := open(t, pool, Options{Name: "d2c"})
	for n := range logs {
		tail, err := d.Read(t.Context(), n, log.Position{})
		if err != nil {
			t.Fatal(err)
		}
		for i, e := range tail.Entries {
			if key := [2]uint64{uint64(n), tail.From.Number + uint64(i) + 1}; owners[key] != e.ID {
				t.Errorf("entry %d of log %d has ID %x, and %x was acknowledged", key[1], n, e.ID, owners[key])
			}
		}
	}
	if deadlocks := s.Number("SELECT sum(deadlocks) FROM pg_stat_database"); deadlocks != 0 {
		t.Errorf("%d deadlocks", deadlocks)
	}
}

// Who begins at the same time finds no tables, and all of them make them.
func TestBeginAtOnce(t *testing.T) {
	s := postgrestest.Start(t)
	pool := connect(t, s.Addr)
	for round := range 3 {
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				d := open(t, pool, Options{Name: fmt.Sprint(i), Schema: fmt.Sprint("round", round)})
				if _, err := d.Read(context.Background(), 0, log.Position{}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
}

// A commit is one statement, however many logs it is for.
func TestStatementsPerCommit(t *testing.T) {
	s := postgrestest.Start(t, "shared_preload_libraries=pg_stat_statements", "pg_stat_statements.track=all")
	s.Exec("CREATE EXTENSION pg_stat_statements")
	s.Exec("CREATE USER worker; GRANT CREATE ON DATABASE postgres TO worker")
	d := open(t, connectAs(t, s.Addr, "worker", ""), Options{Name: "d2c"})
	const logs, commits = 64, 20
	statements := func() int64 {
		return s.Number("SELECT coalesce(sum(calls), 0) FROM pg_stat_statements WHERE userid = 'worker'::regrole")
	}
	var ends [logs]log.Position
	commit := func() {
		t.Helper()
		var appends []log.Append
		for n := range ends {
			appends = append(appends, log.Append{Log: n, After: ends[n], ID: rand.Uint64() | 1, Entry: []byte("entry")})
			ends[n] = log.Position{Number: ends[n].Number + 1, ID: appends[n].ID}
		}
		done, err := d.Append(t.Context(), appends)
		if err != nil {
			t.Fatal(err)
		}
		for n := range done {
			if !done[n] {
				t.Fatalf("append to log %d is refused", n)
			}
		}
	}
	if _, err := d.Read(t.Context(), 0, log.Position{}); err != nil { // makes the tables
		t.Fatal(err)
	}
	for range 2 { // to logs that are empty, and to others
		before := statements()
		commit()
		if got := statements() - before; got != 1 {
			t.Errorf("a commit is %d statements", got)
		}
	}
	before := statements()
	for range commits {
		commit()
	}
	if got := statements() - before; got != commits {
		t.Errorf("%d commits are %d statements", commits, got)
	}
	if err := d.Compact(t.Context(), 3, ends[3], []byte("snapshot")); err != nil {
		t.Fatal(err)
	}
	if got := statements() - before; got != commits+1 {
		t.Errorf("a snapshot is %d statements", got-commits)
	}
}

// Plans are made once, when tables are small or empty. They go by the primary keys even so, or a commit would read all entries.
func TestPlans(t *testing.T) {
	s := postgrestest.Start(t)
	pool := connect(t, s.Addr)
	d := open(t, pool, Options{Name: "d2c"})
	begin(t, d, 0, 1)
	s.Exec("VACUUM ANALYZE d2c.entries")
	s.Exec("VACUUM ANALYZE d2c.logs")
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	if _, err := conn.Exec(t.Context(), "SET plan_cache_mode = force_generic_plan"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, sql, args string
	}{
		{"appendAll", d.sql.appendAll, "'d2c', '{0}', '{1}', '{1}', '{1}', '{1}', '{1}', 'x'"},
		{"appendSome", d.sql.appendSome, "'d2c', '{0}', '{1}', '{1}', '{1}', '{1}', '{1}', 'x'"},
		{"read", d.sql.read, "'d2c', 0, 0, 0"},
		{"compact", d.sql.compact, "'d2c', 0, 1, 1, 'x'"},
	} {
		if _, err := conn.Exec(t.Context(), "PREPARE p AS "+c.sql); err != nil {
			t.Fatal(err)
		}
		rows, err := conn.Query(t.Context(), "EXPLAIN EXECUTE p ("+c.args+")", pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			t.Fatal(err)
		}
		plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		checkPlan(t, c.name, plan)
		if _, err := conn.Exec(t.Context(), "DEALLOCATE p"); err != nil {
			t.Fatal(err)
		}
	}
}

func checkPlan(t *testing.T, name string, plan []string) {
	t.Helper()
	scans := 0
	for i, line := range plan {
		switch {
		case strings.Contains(line, "Seq Scan"):
			t.Errorf("%s reads a whole table: %s", name, strings.TrimSpace(line))
		case strings.Contains(line, "Scan using entries"):
			scans++
			if cond := plan[i+1]; !strings.Contains(cond, "number") {
				t.Errorf("%s reads more entries than it needs: %s", name, strings.TrimSpace(cond))
			}
		}
	}
	if scans == 0 || t.Failed() {
		t.Errorf("%s has %d scans of entries:\n%s", name, scans, strings.Join(plan, "\n"))
	}
}
