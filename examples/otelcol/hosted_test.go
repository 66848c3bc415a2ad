// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/deltaring/deltaring/d2c"
)

// TestHosted runs prometheus.yaml with what is merged over it for backends that others run, and looks at what comes there.
func TestHosted(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		config string
		env    []string
		check  func(r *http.Request, body []byte) error
	}{
		{"amp.yaml", []string{"AWS_REGION=eu-central-1", "AWS_ACCESS_KEY_ID=AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY=secret"}, func(r *http.Request, body []byte) error {
			return signed(r, body, "eu-central-1")
		}},
		{"mimir.yaml", []string{"TENANT=acme"}, func(r *http.Request, _ []byte) error {
			if tenant := r.Header.Get("X-Scope-OrgID"); tenant != "acme" {
				return fmt.Errorf("of tenant %q", tenant)
			}
			return nil
		}},
	} {
		t.Run(tc.config, func(t *testing.T) {
			checked := make(chan error, 10)
			var limited atomic.Bool // has been, once
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err == nil {
					err = tc.check(r, body)
				}
				checked <- err
				if !limited.Swap(true) {
					w.WriteHeader(http.StatusTooManyRequests)
				}
			}))
			t.Cleanup(server.Close)
			coll := startCollector(t, "prometheus.yaml", append(tc.env, "REMOTE_WRITE_URL="+server.URL+"/api/v1/remote_write"),
				"--config", tc.config, "--feature-gates=exporter.prometheusremotewritexporter.RetryOn429")
			book, line := newLedger(), newTimeline()
			p := newProducer(coll.client(t), book, 3, nil, nil)
			if _, err := p.both(line.at(0), line.at(1), d2c.AddedFirst, line.at(1)); err != nil {
				t.Fatal(err)
			}
			if err := poll(func() error { return coll.compareTelemetry(book) }); err != nil {
				t.Error(err)
			}
			if len(checked) < 2 {
				t.Errorf("%d requests, and the first was refused for the rate", len(checked))
			}
			for range len(checked) {
				if err := <-checked; err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// signed returns an error unless a request has the signature that the SDK of AWS gives it.
func signed(r *http.Request, body []byte, region string) error {
	got := r.Header.Get("Authorization")
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	_, names, found := strings.Cut(got, "SignedHeaders=")
	names, _, _ = strings.Cut(names, ",")
	if err != nil || !found {
		return fmt.Errorf("not signed: %q, %w", got, errors.Join(err))
	}
	again, err := http.NewRequest(r.Method, "http://"+r.Host+r.URL.Path, nil)
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(names, ";") {
		if name != "host" {
			again.Header.Set(name, r.Header.Get(name))
		}
	}
	again.ContentLength = r.ContentLength
	sum := sha256.Sum256(body)
	err = v4.NewSigner().SignHTTP(r.Context(), aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "secret"}, again,
		hex.EncodeToString(sum[:]), "aps", region, at)
	if want := again.Header.Get("Authorization"); err == nil && got != want {
		err = fmt.Errorf("signed %q, want %q", got, want)
	}
	return err
}
