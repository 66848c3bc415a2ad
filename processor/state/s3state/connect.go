// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package s3state

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/deltaring/deltaring/d2c/store/s3"
)

// maxRequests bounds the requests under way at once, and the connections.
const maxRequests = 32

// connect does not wait for a connection, and asks nobody for credentials yet.
func connect(ctx context.Context, cfg *Config) (*awss3.Client, *http.Transport, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost, transport.MaxIdleConns, transport.MaxConnsPerHost = maxRequests, maxRequests, 2*maxRequests
	if cfg.TLS.HasValue() {
		tlsConfig, err := cfg.TLS.Get().LoadTLSConfig(ctx)
		if err != nil {
			return nil, nil, fmt.Errorf("tls: %w", err)
		}
		if tlsConfig != nil {
			transport.TLSClientConfig = tlsConfig
		}
	}
	load := []func(*config.LoadOptions) error{}
	if cfg.Region != "" {
		load = append(load, config.WithRegion(cfg.Region))
	}
	if cfg.AccessKeyID != "" {
		load = append(load, config.WithCredentialsProvider(
			credentials.NewStaticCredentialsProvider(string(cfg.AccessKeyID), string(cfg.SecretAccessKey), "")))
	}
	env, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return nil, nil, fmt.Errorf("environment: %w", err)
	}
	client := awss3.NewFromConfig(env, s3.Tune, func(o *awss3.Options) {
		// The client for credentials stays the SDK's own.
		o.HTTPClient = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		o.UsePathStyle = cfg.PathStyle
		if cfg.Endpoint != "" {
			o.BaseEndpoint = aws.String(cfg.Endpoint)
		}
		if o.Region == "" && o.BaseEndpoint != nil {
			o.Region = "us-east-1"
		}
	})
	o := client.Options()
	if o.BaseEndpoint != nil && cfg.Endpoint == "" {
		if err := cfg.checkEndpoint(*o.BaseEndpoint); err != nil {
			return nil, nil, fmt.Errorf("endpoint of the environment: %w", err)
		}
	}
	if o.Region == "" {
		return nil, nil, errors.New("region: must be there, because the environment has none (AWS_REGION)")
	}
	return client, transport, nil
}
