// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"

	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // what Collectors send by default
)

// sink is the backend: an OTLP server that answers when it has checked every sample.
type sink struct {
	pmetricotlp.UnimplementedGRPCServer
	address string
	ledger  *ledger
	server  *grpc.Server
	done    chan struct{}
}

func startSink(l *ledger) (*sink, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("sink: %w", err)
	}
	s := &sink{address: listener.Addr().String(), ledger: l, server: grpc.NewServer(grpc.MaxRecvMsgSize(64 << 20)), done: make(chan struct{})}
	pmetricotlp.RegisterGRPCServer(s.server, s)
	go func() {
		defer close(s.done)
		_ = s.server.Serve(listener) // returns on Stop
	}()
	return s, nil
}

// Export implements pmetricotlp.GRPCServer.
func (s *sink) Export(_ context.Context, request pmetricotlp.ExportRequest) (pmetricotlp.ExportResponse, error) {
	s.ledger.take(request.Metrics())
	return pmetricotlp.NewExportResponse(), nil
}

func (s *sink) close() {
	s.server.Stop()
	<-s.done
}
