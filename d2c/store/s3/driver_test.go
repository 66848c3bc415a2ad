// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"

	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"go.uber.org/goleak"

	"github.com/deltaring/deltaring/d2c/store/log"
	"github.com/deltaring/deltaring/d2c/store/log/logtest"
	"github.com/deltaring/deltaring/d2c/store/s3/s3test"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var background = context.Background()

// open returns a driver with a client of its own.
func open(t testing.TB, url string, change ...func(*Options)) *Driver {
	t.Helper()
	opts := Options{Bucket: s3test.Bucket, Name: "d2c"}
	for _, f := range change {
		f(&opts)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(transport.CloseIdleConnections)
	d, err := New(s3test.Client(url, Tune, func(o *awss3.Options) { o.HTTPClient = &http.Client{Transport: transport} }), opts)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDriver(t *testing.T) {
	server := s3test.Start(t)
	logtest.Run(t, func(t *testing.T) logtest.Fixture {
		prefix := freshPrefix()
		return logtest.Fixture{Open: func() log.Driver {
			return open(t, server.URL, func(o *Options) { o.Prefix = prefix })
		}}
	})
}

var prefixes atomic.Int64

func freshPrefix() string { return fmt.Sprint("d2c/", prefixes.Add(1)) }
