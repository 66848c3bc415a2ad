// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

var errAnswer = errors.New("the answer makes no sense: is this PostgreSQL?")

// Reason classifies why a call failed, for counting.
type Reason string

// The reasons.
const (
	// Unreachable means no connection, no server that accepts writes, or no answer in time. It may pass.
	Unreachable Reason = "unreachable"
	// Connections means that the server has reached its limit of connections. It may pass.
	Connections Reason = "connections"
	// Credentials means a wrong name or password, a missing database, a user that lacks a permission, or TLS that one side
	// requires and the other lacks or does not trust.
	Credentials Reason = "credentials"
	// Space means that the server is out of disk or memory.
	Space Reason = "space"
	// Tables means tables that are missing and cannot be created, of a newer version, damaged, or somebody else's.
	Tables Reason = "tables"
	// Other is everything else. Much of it passes: a deadlock, a cancelled statement.
	Other Reason = "other"
)

// Reasons lists all reasons.
var Reasons = []Reason{Unreachable, Connections, Credentials, Space, Tables, Other}

// ReasonOf returns why a call failed.
func ReasonOf(err error) Reason {
	switch {
	case errors.As(err, new(createError)), errors.As(err, new(versionError)), errors.As(err, new(damagedError)), missing(err),
		foreign(err), errors.Is(err, pgx.ErrNoRows):
		return Tables
	case refused(err), says(err, "42501"), untrusted(err):
		return Credentials
	case says(err, "53300"):
		return Connections
	case says(err, "53100"), says(err, "53200"):
		return Space
	case errors.Is(err, errAnswer):
		return Other
	case elsewhere(err), !fromServer(err):
		return Unreachable
	}
	return Other
}

// MayPass reports whether the same call may soon succeed without a change of configuration, permissions or tables.
func MayPass(err error) bool {
	switch ReasonOf(err) {
	case Credentials, Tables:
		return false
	}
	return !errors.Is(err, errAnswer)
}

// says reports whether a server answered with a code, or one of a class if that has two characters.
func says(err error, code string) bool {
	var answer *pgconn.PgError
	return errors.As(err, &answer) && strings.HasPrefix(answer.Code, code)
}

func fromServer(err error) bool { return says(err, "") }

// missing reports whether a table or a schema is not there.
func missing(err error) bool { return says(err, "42P01") || says(err, "3F000") }

// foreign reports whether tables are not what they should be: a column, its type, the primary key, or the kind of table.
func foreign(err error) bool {
	return says(err, "42703") || says(err, "42804") || says(err, "42883") || says(err, "42P10") || says(err, "42809") || says(err, "23502")
}

// refused reports whether the server does not let us in.
func refused(err error) bool { return says(err, "28") || says(err, "3D000") }

const noTLS = "server refused TLS connection" // the client has no name for it

// untrusted reports whether there is no TLS that suits both sides.
func untrusted(err error) bool {
	return err != nil && strings.Contains(err.Error(), noTLS) || errors.As(err, new(*tls.CertificateVerificationError)) ||
		errors.As(err, new(x509.HostnameError)) || errors.As(err, new(x509.UnknownAuthorityError)) || errors.As(err, new(tls.AlertError))
}

// elsewhere reports whether the server that answered is not, not yet or no longer the one to talk to.
func elsewhere(err error) bool {
	return errors.Is(err, errStandby) || says(err, "25006") || says(err, "57P") || says(err, "08")
}

// createError says that the tables are not there, and that we may not make them.
type createError struct {
	sql string
	err error
}

func (e createError) Error() string {
	return "the tables are not there, and the user may not create them: have somebody run\n" + e.sql + e.err.Error()
}
func (e createError) Unwrap() error { return e.err }

// versionError says that somebody newer has made the tables.
type versionError struct{ version int }

func (e versionError) Error() string {
	return fmt.Sprintf("the tables are of version %d, and this program knows version %d: use the newer program everywhere, or another schema",
		e.version, version)
}

// damagedError says that entries of a log are gone.
type damagedError struct {
	log       int
	got, want uint64
}

func (e damagedError) Error() string {
	return fmt.Sprintf("log %d is damaged: entry %d follows where %d should: somebody has changed the tables", e.log, e.got, e.want)
}

// explain adds where it happened and, where a server does not say it, what it means and what to do. No error of the client has a password.
func (d *Driver) explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	cfg := d.pool.Config().ConnConfig
	hint := ""
	switch {
	case errors.As(err, new(createError)), errors.As(err, new(versionError)), errors.As(err, new(damagedError)):
	case says(err, "42501"):
		hint = "the user lacks a permission: have somebody run\n" + grants(d.schema, pgx.Identifier{cfg.User}.Sanitize())
	case missing(err):
		hint = "the tables are gone: "
	case foreign(err), errors.Is(err, pgx.ErrNoRows):
		hint = "the tables are not ours: name another schema: "
	case says(err, "3D000"):
		hint = "the database is not there: create it, or name another: "
	case says(err, "28000") && cfg.TLSConfig == nil:
		hint = "the server does not let this user in from here; if it asks for TLS, set tls: "
	case refused(err):
		hint = "the server does not accept username and password: "
	case err != nil && strings.Contains(err.Error(), noTLS):
		hint = "the server has no TLS: set ssl = on there, or write out that it may be without (insecure: true under tls): "
	case untrusted(err):
		hint = "the two sides do not trust each other's certificates: "
	case says(err, "53300"):
		hint = "the server has as many connections as it may: raise max_connections there, or lower the pools' sizes: "
	case says(err, "53100"):
		hint = "the server's disk is full: "
	case says(err, "25006"):
		hint = errStandby.Error() + ": "
	case says(err, "57P03"):
		hint = "the server is still starting, or stopping: "
	}
	return fmt.Errorf("postgres at %s: %s: %s%w", servers(cfg), doing, hint, err)
}

func servers(cfg *pgx.ConnConfig) string {
	s := fmt.Sprintf("%s:%d", cfg.Host, cfg.Port)
	for _, f := range cfg.Fallbacks {
		s += fmt.Sprintf(",%s:%d", f.Host, f.Port)
	}
	return s
}
