// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"
)

// load is the producers: as many batches as there are thousands of series, divided among senders. A sender has one request under
// way, so that the deltas of a series are sent one after the other.
type load struct {
	ledger  *ledger
	senders []*sender
	retries atomic.Int64
}

type sender struct {
	load    *load
	number  int
	batch   *batch
	batches []int // indices of its own
	next    int   // of these
	conns   []*grpc.ClientConn
	turn    int // of conns
}

func newLoad(l *ledger, senders int, addresses []string, compression string) (*load, error) {
	all := &load{ledger: l}
	var options []grpc.DialOption
	if compression == gzip.Name {
		options = append(options, grpc.WithDefaultCallOptions(grpc.UseCompressor(gzip.Name)))
	}
	options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))
	for i := range min(senders, len(l.batches)) {
		s := &sender{load: all, number: i, batch: newBatch(l.kind), turn: i}
		for b := i; b < len(l.batches); b += min(senders, len(l.batches)) {
			s.batches = append(s.batches, b)
		}
		all.senders = append(all.senders, s)
		for _, address := range addresses {
			conn, err := grpc.NewClient(address, options...)
			if err != nil {
				all.close()
				return nil, err
			}
			s.conns = append(s.conns, conn)
		}
	}
	return all, nil
}

func (l *load) close() {
	for _, s := range l.senders {
		for _, conn := range s.conns {
			_ = conn.Close()
		}
	}
}

// pace is how senders go on: with a request when it is due, as many as are due before the end, or as fast as they are answered.
type pace struct {
	rate  float64       // points per second over all senders, zero for as fast as they are answered
	until time.Duration // zero for every batch once
}

// sending is what a run of the load has sent, and how long each request took from when it was due until it was answered.
type sending struct {
	points    int
	took      time.Duration
	latencies []time.Duration
}

// run has all senders send.
func (l *load) run(ctx context.Context, p pace) (sending, error) {
	begin := time.Now()
	latencies, errs := make([][]time.Duration, len(l.senders)), make([]error, len(l.senders))
	var all sync.WaitGroup
	for i, s := range l.senders {
		all.Go(func() { latencies[i], errs[i] = s.run(ctx, begin, p) })
	}
	all.Wait()
	s := sending{took: time.Since(begin), latencies: slices.Concat(latencies...)}
	s.points = len(s.latencies) * pointsPerBatch
	return s, errors.Join(errs...)
}

func (s *sender) run(ctx context.Context, begin time.Time, p pace) (latencies []time.Duration, err error) {
	n := len(s.batches)
	for i := 0; ; i++ {
		due := time.Now()
		if p.rate > 0 {
			number := float64(i*len(s.load.senders) + s.number)
			due = begin.Add(time.Duration(number * pointsPerBatch / p.rate * float64(time.Second)))
			if err := sleep(ctx, time.Until(due)); err != nil {
				return latencies, err
			}
		}
		if p.until == 0 && i == n || p.until > 0 && due.Sub(begin) >= p.until {
			return latencies, nil
		}
		if err := s.send(ctx, s.batches[s.next]); err != nil {
			return latencies, err
		}
		s.next = (s.next + 1) % n
		latencies = append(latencies, time.Since(due))
	}
}

// send sends the next round of a batch until it is acknowledged.
func (s *sender) send(ctx context.Context, index int) error {
	now := pcommon.NewTimestampFromTime(time.Now().Truncate(time.Millisecond))
	round, from, to := s.load.ledger.next(index, now)
	s.batch.load(index, round, from, to)
	request := pmetricotlp.NewExportRequestFromMetrics(s.batch.md)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		// Gateways and workers alike get requests by turns, as behind a load balancer.
		s.turn = (s.turn + 1) % len(s.conns)
		resp, err := pmetricotlp.NewGRPCClient(s.conns[s.turn]).Export(ctx, request)
		if err == nil {
			if n := resp.PartialSuccess().RejectedDataPoints(); n > 0 {
				err = fmt.Errorf("batch %d, round %d: %d points rejected: %s", index, round, n, resp.PartialSuccess().ErrorMessage())
			}
			return err
		}
		if code := status.Code(err); code != codes.Unavailable && code != codes.ResourceExhausted && code != codes.Aborted || ctx.Err() != nil {
			return fmt.Errorf("batch %d, round %d: %w", index, round, err)
		}
		s.load.retries.Add(1)
		if err := sleep(ctx, wait); err != nil {
			return fmt.Errorf("batch %d, round %d: %w", index, round, err)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// quantile returns the q-th of latencies.
func quantile(latencies []time.Duration, q float64) time.Duration {
	if len(latencies) == 0 {
		return 0
	}
	slices.Sort(latencies)
	return latencies[min(len(latencies)-1, int(q*float64(len(latencies))))]
}
