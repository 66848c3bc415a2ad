// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/deltaring/deltaring/d2c/store/log"
	"github.com/deltaring/deltaring/d2c/store/postgres/postgrestest"
)

const secret = "open-sesame-1723"

// works fails unless a driver can do all that it must.
func works(t testing.TB, d *Driver) {
	t.Helper()
	end := begin(t, d, 0, 3)
	must(t, d, 0, end)
	if done, err := d.Append(t.Context(), []log.Append{{Log: 0, After: end}}); err != nil || done[0] {
		t.Fatalf("a check: done %v, error %v", done, err)
	}
	if err := d.Compact(t.Context(), 0, end, []byte("snapshot")); err != nil {
		t.Fatal(err)
	}
	if err := d.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	tail, err := d.Read(t.Context(), 0, log.Position{})
	if err != nil || tail.From != end || len(tail.Entries) != 1 {
		t.Fatalf("tail %+v, error %v", tail, err)
	}
}

// Whatever is wrong is said, with what to do, by each method, and never a password.
func TestErrors(t *testing.T) {
	cert, roots := postgrestest.Certificate(t)
	s := postgrestest.Start(t, "password_encryption=scram-sha-256")
	s.Write("server.crt", cert.CertificatePEM)
	s.Write("server.key", cert.KeyPEM)
	s.Stop()
	s.Set("ssl=on")
	s.Admit("host all postgres 127.0.0.1/32 trust", "hostssl all encrypted 127.0.0.1/32 scram-sha-256",
		"hostnossl all encrypted 127.0.0.1/32 reject", "host all all 127.0.0.1/32 scram-sha-256")
	s.Start()
	plain := postgrestest.Start(t)
	s.Exec("CREATE USER worker PASSWORD '" + secret + "'; CREATE USER encrypted PASSWORD '" + secret + "';" +
		"GRANT CREATE ON DATABASE postgres TO encrypted;" +
		"CREATE SCHEMA newer; CREATE TABLE newer.version AS SELECT 2 AS version; GRANT USAGE ON SCHEMA newer TO worker; GRANT SELECT ON newer.version TO worker;" +
		"CREATE SCHEMA others AUTHORIZATION worker; SET ROLE worker; CREATE TABLE others.logs (line text); RESET ROLE;" +
		"CREATE SCHEMA emptied AUTHORIZATION worker; SET ROLE worker; CREATE TABLE emptied.version (version integer); RESET ROLE;" +
		"CREATE SCHEMA hidden; CREATE TABLE hidden.version AS SELECT 1 AS version; GRANT USAGE ON SCHEMA hidden TO worker")
	trusting := &tls.Config{RootCAs: roots, ServerName: "localhost"}

	for name, c := range map[string]struct {
		addr, user, password, database, schema string
		tls                                    *tls.Config
		reason                                 Reason
		says                                   string
	}{
		"wrong password":   {user: "worker", password: "wrong-" + secret, reason: Credentials, says: "does not accept username and password"},
		"no password":      {user: "worker", reason: Credentials, says: ""},
		"no such user":     {user: "nobody", password: secret, reason: Credentials, says: "does not accept username and password"},
		"no such database": {user: "worker", password: secret, database: "counters", reason: Credentials, says: "the database is not there"},
		"TLS is asked for": {user: "encrypted", password: secret, reason: Credentials, says: "if it asks for TLS, set tls"},
		"no TLS there":     {addr: plain.Addr, user: "worker", password: secret, tls: trusting, reason: Credentials, says: "the server has no TLS: set ssl = on"},
		"unknown authority": {user: "encrypted", password: secret, tls: &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "localhost"},
			reason: Credentials, says: "do not trust each other's certificates"},
		"another name": {user: "encrypted", password: secret, tls: &tls.Config{RootCAs: roots, ServerName: "db.example"},
			reason: Credentials, says: "do not trust each other's certificates"},
		"may not create": {user: "worker", password: secret, reason: Tables,
			says: "have somebody run\nCREATE SCHEMA IF NOT EXISTS \"d2c\";\nCREATE TABLE"},
		"a newer version":   {user: "worker", password: secret, schema: "newer", reason: Tables, says: "of version 2, and this program knows version 1"},
		"somebody's tables": {user: "worker", password: secret, schema: "others", reason: Tables, says: "the tables are not ours: name another schema"},
		"no version":        {user: "worker", password: secret, schema: "emptied", reason: Tables, says: "the tables are not ours: name another schema"},
		"may not read":      {user: "worker", password: secret, schema: "hidden", reason: Credentials, says: "have somebody run\nGRANT USAGE ON SCHEMA \"hidden\" TO \"worker\""},
		"nobody is there":   {addr: "127.0.0.1:1", user: "worker", password: secret, reason: Unreachable, says: "127.0.0.1:1"},
		"something else":    {addr: postgrestest.Nonsense(t), user: "worker", password: secret, reason: Unreachable},
		"it ends at once":   {addr: postgrestest.Silence(t), user: "worker", password: secret, reason: Unreachable},
		"the right way":     {user: "encrypted", password: secret, tls: trusting, schema: "right"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.addr == "" {
				c.addr = s.Addr
			}
			pool := connectWith(t, c.addr, func(cfg *pgxpool.Config) {
				cfg.ConnConfig.User, cfg.ConnConfig.Password, cfg.ConnConfig.TLSConfig = c.user, c.password, c.tls
				if c.database != "" {
					cfg.ConnConfig.Database = c.database
				}
			})
			d := open(t, pool, Options{Name: "d2c", Schema: c.schema})
			if c.reason == "" {
				works(t, d)
				return
			}
			ctx := within(t, patience)
			_, readErr := d.Read(ctx, 0, log.Position{})
			_, appendErr := d.Append(ctx, []log.Append{{Log: 0, ID: 1, Entry: []byte("x")}})
			compactErr := d.Compact(ctx, 0, log.Position{Number: 1, ID: 1}, []byte("x"))
			for _, err := range []error{readErr, appendErr, compactErr, d.Probe(ctx)} {
				if err == nil {
					t.Fatal("no error")
				}
				if got := ReasonOf(err); got != c.reason {
					t.Errorf("reason %s, want %s: %v", got, c.reason, err)
				}
				if want := c.reason == Unreachable; MayPass(err) != want {
					t.Errorf("may pass: %v, want %v: %v", !want, want, err)
				}
				if !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "postgres at "+c.addr) {
					t.Errorf("error %q, want that it says %q", err, c.says)
				}
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the password is in %q", err)
				}
			}
		})
	}

	// Who is told to have somebody run SQL can work when that was done, and not do more.
	t.Run("SQL of somebody else", func(t *testing.T) {
		d := open(t, connectAs(t, s.Addr, "worker", secret), Options{Name: "d2c"})
		err := d.Probe(t.Context())
		var create createError
		if !errors.As(err, &create) {
			t.Fatal(err)
		}
		s.Exec(create.sql)
		s.Exec(create.sql) // does nothing
		works(t, d)
	})

	t.Run("tables that are taken away", func(t *testing.T) {
		d := open(t, connectAs(t, s.Addr, "postgres", ""), Options{Name: "d2c", Schema: "gone"})
		end := begin(t, d, 0, 3)
		s.Exec("DROP SCHEMA gone CASCADE")
		if _, err := d.Append(t.Context(), []log.Append{{Log: 0, After: end, ID: 1, Entry: []byte("x")}}); ReasonOf(err) != Tables {
			t.Errorf("error %v, of reason %s", err, ReasonOf(err))
		}
		if done, err := d.Append(t.Context(), []log.Append{{Log: 0, After: end, ID: 1, Entry: []byte("x")}}); err != nil || done[0] {
			t.Errorf("the log is gone: done %v, error %v", done, err)
		}
		works(t, d)
	})

	t.Run("an entry that is taken away", func(t *testing.T) {
		d := open(t, connectAs(t, s.Addr, "postgres", ""), Options{Name: "d2c", Schema: "damaged"})
		begin(t, d, 5, 3)
		s.Exec("DELETE FROM damaged.entries WHERE number = 2")
		_, err := d.Read(t.Context(), 5, log.Position{})
		if ReasonOf(err) != Tables || !strings.Contains(err.Error(), "log 5 is damaged: entry 3 follows where 2 should") {
			t.Errorf("error %v, of reason %s", err, ReasonOf(err))
		}
	})

	t.Run("a connection that forgets", func(t *testing.T) {
		pool := connectWith(t, s.Addr, func(cfg *pgxpool.Config) { cfg.MaxConns = 1 })
		d := open(t, pool, Options{Name: "d2c", Schema: "forgets"})
		end := begin(t, d, 0, 2)
		if _, err := pool.Exec(t.Context(), "DEALLOCATE ALL"); err != nil {
			t.Fatal(err)
		}
		goOn(t, d, 0, end)
	})
}

func TestOptions(t *testing.T) {
	pool := connect(t, "127.0.0.1:1")
	for _, c := range []struct {
		opts Options
		says string
	}{
		{Options{}, "name: must be text of 1 to 1024 bytes"},
		{Options{Name: strings.Repeat("x", 1025)}, "name"},
		{Options{Name: "a\x00b"}, "name"},
		{Options{Name: "a\xff"}, "name"},
		{Options{Name: "d2c", Schema: "D2C"}, "schema: want small letters"},
		{Options{Name: "d2c", Schema: "1d"}, "schema"},
		{Options{Name: "d2c", Schema: `a";DROP TABLE x`}, "schema"},
		{Options{Name: "d2c", Schema: "pg_d2c"}, "PostgreSQL's own"},
		{Options{Name: "d2c", Schema: strings.Repeat("x", 64)}, "at most 63 bytes"},
	} {
		if _, err := New(pool, c.opts); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: error %v, want that it says %q", c.opts, err, c.says)
		}
	}
}
