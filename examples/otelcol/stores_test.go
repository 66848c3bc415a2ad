// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/deltaring/deltaring/d2c/store/postgres/postgrestest"
	"github.com/deltaring/deltaring/d2c/store/s3/s3test"
)

// store is a server that workers share their state on.
type store interface {
	environment() []string // what the configuration needs to find it
	kill()
	restart(t *testing.T) // a killed one, with the same data and address
}

// postgres is a process of the Debian package, as postgres.yaml asks for it: with TLS, and a user who has a database.
type postgres struct {
	*postgrestest.Server
	authority string // file
}

func startPostgres(t *testing.T) store {
	t.Helper()
	p := postgres{postgrestest.Start(t), filepath.Join(t.TempDir(), "ca.crt")}
	pair, _ := postgrestest.Certificate(t)
	p.Write("server.crt", pair.CertificatePEM)
	p.Write("server.key", pair.KeyPEM)
	if err := os.WriteFile(p.authority, pair.CertificatePEM, 0o600); err != nil {
		t.Fatal(err)
	}
	p.Set("ssl=on")
	p.Admit("hostssl d2c d2c all trust", "host all "+postgrestest.Superuser+" all trust")
	p.Exec("CREATE ROLE d2c LOGIN")
	p.Exec("CREATE DATABASE d2c OWNER d2c")
	p.Stop()
	p.Start()
	return p
}

func (p postgres) environment() []string {
	return []string{"POSTGRES_ENDPOINT=" + p.Addr, "POSTGRES_CA_FILE=" + p.authority}
}

func (p postgres) kill() { p.Kill() }

func (p postgres) restart(t *testing.T) {
	t.Helper()
	p.Start()
}

// s3 is a server of S3 without TLS, which s3.yaml talks to only on this machine.
type s3 struct{ *s3test.Server }

func startS3(t *testing.T) store {
	t.Helper()
	return s3{s3test.Start(t)}
}

// environment has commits closer together than s3.yaml, for tests that wait for one after the other.
func (s s3) environment() []string {
	return []string{"S3_ENDPOINT=" + s.URL, "S3_PATH_STYLE=true", "S3_BUCKET=" + s3test.Bucket, "STATE_COMMIT_INTERVAL=50ms",
		"AWS_REGION=" + s3test.Region, "AWS_ACCESS_KEY_ID=" + s3test.AccessKey, "AWS_SECRET_ACCESS_KEY=" + s3test.SecretKey}
}

func (s s3) kill() { s.Stop() }

func (s s3) restart(t *testing.T) {
	t.Helper()
	s.Start()
}
