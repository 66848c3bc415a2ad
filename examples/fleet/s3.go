// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/deltaring/deltaring/internal/ports"
)

// s3 is a process of versitygw, a server of S3 that keeps objects in files. It finds its data again when it is stopped and started.
type s3 struct {
	*process
	binary, dir string
	port        int
	wipes       int
}

// The root account of the server, and its bucket.
const (
	s3AccessKey = "fleet-access-key"
	s3SecretKey = "fleet-secret-key"
	s3Bucket    = "fleet-state"
	s3Prefix    = "d2c" // the extension's default
)

func startS3(ctx context.Context, dir string, _ int) (store, error) {
	s := &s3{dir: filepath.Join(dir, "s3")}
	var err error
	if s.binary, err = tool("VERSITYGW"); err != nil {
		return nil, err
	}
	if s.port, err = ports.Free(); err != nil {
		return nil, err
	}
	// A folder is a bucket.
	for _, folder := range []string{s.bucket(), s.accounts(), s.wiped()} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return nil, err
		}
	}
	return s, s.launch(ctx)
}

func (s *s3) objects() string  { return filepath.Join(s.dir, "objects") }
func (s *s3) bucket() string   { return filepath.Join(s.objects(), s3Bucket) }
func (s *s3) accounts() string { return filepath.Join(s.dir, "accounts") }
func (s *s3) wiped() string    { return filepath.Join(s.dir, "wiped") }

// environment is what s3.yaml needs. Requests are paid for, so there are fewer groups than elsewhere.
func (s *s3) environment() []string {
	return []string{"STATE_GROUPS=16", "S3_ENDPOINT=http://" + loopback(s.port), "S3_BUCKET=" + s3Bucket,
		"S3_ACCESS_KEY=" + s3AccessKey, "S3_SECRET_KEY=" + s3SecretKey}
}

func (s *s3) launch(ctx context.Context) (err error) {
	ready := func() error {
		conn, err := net.DialTimeout("tcp", loopback(s.port), time.Second)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	s.process, err = start(ctx, filepath.Join(s.dir, "log"), nil, ready, s.binary, "--port", loopback(s.port),
		"--access", s3AccessKey, "--secret", s3SecretKey, "--region", "us-east-1", "--iam-dir", s.accounts(), "--quiet", "posix", s.objects())
	return err
}

func (s *s3) signal(sig syscall.Signal) error { return s.process.signal(sig) }

// wipe takes all objects away in the same moment: while one after the other was deleted, workers would write new ones.
func (s *s3) wipe(context.Context) error {
	s.wipes++
	return os.Rename(filepath.Join(s.bucket(), s3Prefix), filepath.Join(s.wiped(), fmt.Sprint(s.wipes)))
}

func (s *s3) kill() {
	if s.process != nil {
		s.process.kill()
	}
}
