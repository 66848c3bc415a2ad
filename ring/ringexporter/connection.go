// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/configgrpc"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/exporterhelper"
	"go.opentelemetry.io/collector/exporter/otlpexporter"
	"go.opentelemetry.io/otel/metric/noop"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/deltaring/deltaring/internal/tenant"
)

// connection sends requests to one member over OTLP/gRPC. It does what the Collector's OTLP exporter does, of which it has
// the configuration; that one does not tell what of a request a member rejected.
type connection[B batch] struct {
	cfg     otlpexporter.Config
	member  string      // as it is sent
	tenants tenant.Keys // of the metadata that is sent
	conn    *grpc.ClientConn
	export  exportFunc[B]
}

// exportFunc sends a request and returns the partial success of the response, if that says anything.
type exportFunc[B batch] = func(context.Context, B, ...grpc.CallOption) (partialSuccess, error)

// partialSuccess is what a member says of a request that it took: how many items it rejected, and why; or a warning.
type partialSuccess struct {
	rejected int64
	message  string
}

// dial returns a connection to the member, which connects in the background.
func dial[B batch](
	ctx context.Context, host component.Host, set exporter.Settings, cfg otlpexporter.Config, e endpoint, tenants tenant.Keys,
	sig *signal[B],
) (*connection[B], error) {
	cfg.ClientConfig.Endpoint = e.address
	tel := set.TelemetrySettings
	tel.MeterProvider = noop.NewMeterProvider() // would count everything once more
	agent := fmt.Sprintf("%s/%s (%s/%s)", set.BuildInfo.Description, set.BuildInfo.Version, runtime.GOOS, runtime.GOARCH)
	conn, err := cfg.ClientConfig.ToClientConn(ctx, host.GetExtensions(), tel,
		configgrpc.WithGrpcDialOption(grpc.WithUserAgent(agent)))
	if err != nil {
		return nil, err
	}
	return &connection[B]{cfg: cfg, member: metadataValue(e.Name), tenants: tenants, conn: conn, export: sig.export(conn)}, nil
}

// send makes one request. The error is permanent if it is no use to try again.
func (c *connection[B]) send(ctx context.Context, data B) (partialSuccess, error) {
	if c.cfg.TimeoutConfig.Timeout != 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.cfg.TimeoutConfig.Timeout)
		defer cancel()
	}
	ctx = metadata.AppendToOutgoingContext(ctx, append(termOf(ctx), tenant.MemberKey, c.member)...)
	ctx = withTenant(ctx, c.tenants)
	partial, err := c.export(ctx, data, grpc.WaitForReady(c.cfg.ClientConfig.WaitForReady))
	return partial, classify(err)
}

func (c *connection[B]) close() error { return c.conn.Close() }

// classify makes an error permanent, or a throttling one, by the rules of OTLP.
func classify(err error) error {
	if err == nil {
		return nil
	}
	s := status.Convert(err)
	info := retryInfo(s)
	switch s.Code() {
	case codes.OK:
		return nil
	case codes.Canceled, codes.DeadlineExceeded, codes.Aborted, codes.OutOfRange, codes.Unavailable, codes.DataLoss:
	case codes.ResourceExhausted:
		// Only with a RetryInfo the server says that this passes.
		if info == nil {
			return consumererror.NewPermanent(err)
		}
	default:
		return consumererror.NewPermanent(err)
	}
	if delay := info.GetRetryDelay().AsDuration(); delay > 0 {
		return exporterhelper.NewThrottleRetry(err, delay)
	}
	return err
}

// retryInfo returns what the server says about trying again, or nil.
func retryInfo(s *status.Status) *errdetails.RetryInfo {
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			return info
		}
	}
	return nil
}

// retryInfoOf is retryInfo of an error that may be wrapped.
func retryInfoOf(err error) *errdetails.RetryInfo {
	var s interface{ GRPCStatus() *status.Status }
	if errors.As(err, &s) {
		return retryInfo(s.GRPCStatus())
	}
	return nil
}
