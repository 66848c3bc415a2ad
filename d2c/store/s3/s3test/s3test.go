// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package s3test starts a real S3 server for tests, and a proxy before it that counts requests and has them fail.
package s3test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/deltaring/deltaring/internal/ports"
)

// The root account of each server, its region, and the bucket that it has.
const (
	AccessKey = "d2c-access-key"
	SecretKey = "d2c-secret-key-that-nobody-may-see"
	Region    = "us-east-1"
	Bucket    = "d2c-bucket"
)

// Server is a process of versitygw, a gateway that speaks S3 and keeps objects in files, of the test that started it.
type Server struct {
	// Addr is its address, URL its endpoint, Dir has a folder for each bucket.
	Addr, URL, Dir string

	t    testing.TB
	args []string
	cmd  *exec.Cmd
	out  bytes.Buffer
}

// Start starts a server with a bucket, and waits until it answers. More are more arguments of its posix command.
func Start(t testing.TB, more ...string) *Server {
	t.Helper()
	s := &Server{t: t, Addr: FreeAddress(t), Dir: t.TempDir(), args: more}
	s.URL = "http://" + s.Addr
	t.Cleanup(func() {
		s.Stop()
		if t.Failed() {
			t.Logf("versitygw at %s:\n%.4000s", s.Addr, s.out.String())
		}
	})
	s.Start()
	if _, err := s.Admin().CreateBucket(context.Background(), &awss3.CreateBucketInput{Bucket: aws.String(Bucket)}); err != nil {
		t.Fatal(err)
	}
	return s
}

// Start starts the process and waits until it answers.
func (s *Server) Start() {
	s.t.Helper()
	args := []string{"--port", s.Addr, "--access", AccessKey, "--secret", SecretKey, "--region", Region, "--iam-dir", s.t.TempDir(), "--quiet", "posix"}
	args = append(append(args, s.args...), s.Dir)
	s.cmd = exec.Command(binary(s.t), args...)
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	Eventually(s.t, "versitygw answers", func() error {
		conn, err := net.Dial("tcp", s.Addr)
		if err == nil {
			err = conn.Close()
		}
		return err
	})
}

// Stop kills the process, if there is one.
func (s *Server) Stop() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// Admin returns a client of the root account.
func (s *Server) Admin() *awss3.Client { return Client(s.URL) }

// Client returns a client of the root account for an endpoint.
func Client(url string, more ...func(*awss3.Options)) *awss3.Client {
	return awss3.New(awss3.Options{
		Region: Region, BaseEndpoint: aws.String(url), UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(AccessKey, SecretKey, ""),
	}, more...)
}

// version is that of the Makefile.
const version = "versitygw-v1.8.0"

// binary returns the path of what "make tools" builds.
func binary(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		path := filepath.Join(dir, ".tools", version)
		if _, err := os.Stat(path); err == nil {
			return path
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatalf("these tests need a real server, .tools/%s: make tools", version)
		}
		dir = parent
	}
}

// FreeAddress returns an address whose port is free.
func FreeAddress(t testing.TB) string {
	t.Helper()
	port, err := ports.Free()
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

// Objects returns the keys of all objects of the bucket.
func (s *Server) Objects() (keys []string) {
	s.t.Helper()
	pages := awss3.NewListObjectsV2Paginator(s.Admin(), &awss3.ListObjectsV2Input{Bucket: aws.String(Bucket)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(context.Background())
		if err != nil {
			s.t.Fatal(err)
		}
		for _, o := range page.Contents {
			keys = append(keys, *o.Key)
		}
	}
	return keys
}

// Eventually returns when f does not fail any more.
func Eventually(t testing.TB, what string, f func() error) {
	t.Helper()
	const patience, interval = 20 * time.Second, 5 * time.Millisecond
	err := errors.New("it was not tried")
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(interval) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatal(fmt.Errorf("after %v it still is not so that %s: %w", patience, what, err))
}

// AddUser adds an account that may do nothing that a bucket does not grant.
func (s *Server) AddUser(access, secret string) {
	s.t.Helper()
	out, err := exec.Command(binary(s.t), "admin", "--access", AccessKey, "--secret", SecretKey, "--region", Region, "--endpoint-url", s.URL,
		"create-user", "--access", access, "--secret", secret, "--role", "user").CombinedOutput()
	if err != nil {
		s.t.Fatalf("%v: %s", err, out)
	}
}
