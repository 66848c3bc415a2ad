// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package s3state

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/extension"
	"go.uber.org/zap"

	"github.com/deltaring/deltaring/d2c/store/log"
	"github.com/deltaring/deltaring/d2c/store/s3"
	"github.com/deltaring/deltaring/processor/state/internal/logstate"
)

// probeInterval is between probes of a store that answers: each is eight requests, which are paid for. A commit that fails has it probed
// at once.
const probeInterval = 5 * time.Minute

// s3State is the extension.
type s3State struct {
	*logstate.Extension
	cfg    *Config
	logger *zap.Logger
	tel    *telemetry
}

var _ extension.Extension = (*s3State)(nil)

func newExtension(set extension.Settings, cfg *Config) (*s3State, error) {
	tel, err := newTelemetry(set)
	if err != nil {
		return nil, err
	}
	return &s3State{
		Extension: logstate.New(set, cfg.Config, cfg.place(), tel.instruments()), cfg: cfg, logger: set.Logger, tel: tel,
	}, nil
}

// Start does not wait for the store: until it answers, batches are refused and the component's status says so.
func (e *s3State) Start(ctx context.Context, host component.Host) error {
	client, transport, err := connect(ctx, e.cfg)
	if err != nil {
		return fmt.Errorf("s3_state: %w", err)
	}
	if o := client.Options(); o.BaseEndpoint != nil && e.cfg.TLS.HasValue() && e.cfg.TLS.Get().Insecure {
		e.logger.Warn("connections are not encrypted: whoever is on the way reads the counters")
	}
	b := &backend{cfg: e.cfg, client: client, transport: transport, logger: e.logger, tel: e.tel}
	if b.prober, err = b.driver("probe", nil); err != nil {
		return fmt.Errorf("s3_state: %w", err)
	}
	e.Run(ctx, host, b, probeInterval)
	return nil
}

// Shutdown ends what is under way.
func (e *s3State) Shutdown(ctx context.Context) error {
	err := e.Stop(ctx)
	e.tel.builder.Shutdown()
	return err
}

// backend is the store, for logstate.
type backend struct {
	cfg       *Config
	client    *awss3.Client
	transport *http.Transport
	logger    *zap.Logger
	tel       *telemetry
	prober    *s3.Driver
	versions  sync.Once
}

var _ logstate.Backend = (*backend)(nil)

func (b *backend) driver(name string, observer s3.Observer) (*s3.Driver, error) {
	return s3.New(b.client, s3.Options{
		Bucket: b.cfg.Bucket, Prefix: b.cfg.Prefix, Name: name,
		AttemptTimeout: max(b.cfg.Timeout/3, time.Millisecond), MaxRequests: maxRequests,
		LazySnapshots: true, Observer: observer,
	})
}

// Driver implements logstate.Backend.
func (b *backend) Driver(name string) (log.Driver, error) {
	d, err := b.driver(name, b.tel.observer(name))
	if err != nil {
		return nil, err // and not a nil *s3.Driver that is no nil log.Driver
	}
	return d, nil
}

// Probe implements logstate.Backend.
func (b *backend) Probe(ctx context.Context) error {
	err := b.prober.Probe(ctx)
	if b.prober.Versions() {
		b.versions.Do(func() {
			b.logger.Warn("the bucket keeps old versions, one for each commit and group: have a lifecycle rule delete noncurrent versions "+
				"after a day, or use another bucket", zap.String("bucket", b.cfg.Bucket), zap.String("prefix", b.cfg.Prefix+"/"))
		})
	}
	return err
}

// Reason implements logstate.Backend.
func (b *backend) Reason(err error) string { return string(s3.ReasonOf(err)) }

// Mistake implements logstate.Backend.
func (b *backend) Mistake(err error) bool { return s3.Mistake(err) }

// Close implements logstate.Backend.
func (b *backend) Close() error {
	b.transport.CloseIdleConnections()
	return nil
}
