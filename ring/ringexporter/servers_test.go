// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"context"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// patience bounds every wait for a condition; a healthy run needs a fraction of it.
const patience = 30 * time.Second

// watched is state that tests wait on.
type watched struct {
	mu      sync.Mutex
	changed chan struct{}
}

// change changes the state and wakes who waits.
func (w *watched) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
	if w.changed != nil {
		close(w.changed)
		w.changed = nil
	}
}

// await waits until condition, evaluated after each change, is true.
func (w *watched) await(t testing.TB, what string, condition func() bool) {
	t.Helper()
	late := time.After(patience)
	for {
		w.mu.Lock()
		ok := condition()
		if w.changed == nil {
			w.changed = make(chan struct{})
		}
		changed := w.changed
		w.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// item is a data point, span or log record of the tests: the n-th of a stream.
type item struct {
	stream string
	n      int64
}

// worker is a real OTLP server. All fields are of watched.
type worker struct {
	pmetricotlp.UnimplementedGRPCServer
	watched
	address string
	server  *grpc.Server
	serving chan struct{} // closed when Serve has returned

	requests int
	items    []item
	// before, if set, is called before a request is accepted; an error refuses it.
	before func(context.Context) error
	// taken has the accepted requests.
	taken []request
	// partial, if set, is the partial success of every response.
	partial partialSuccess
	// exported, if set, gets the metrics of accepted requests.
	exported func(context.Context, pmetric.Metrics)
}

// request is what came with items.
type request struct {
	metadata metadata.MD
	items    []item
}

// startWorker serves at an address, which may have port 0.
func startWorker(t testing.TB, address string) *worker {
	t.Helper()
	w := &worker{address: address}
	w.start(t)
	t.Cleanup(w.kill)
	return w
}

func (w *worker) start(t testing.TB) {
	t.Helper()
	l, err := net.Listen("tcp", w.address)
	require.NoError(t, err)
	w.address = l.Addr().String()
	w.server, w.serving = grpc.NewServer(), make(chan struct{})
	pmetricotlp.RegisterGRPCServer(w.server, w)
	ptraceotlp.RegisterGRPCServer(w.server, &traceWorker{worker: w})
	plogotlp.RegisterGRPCServer(w.server, &logWorker{worker: w})
	server, serving := w.server, w.serving
	go func() {
		defer close(serving)
		_ = server.Serve(l)
	}()
}

// kill ends the server and all connections; what it is about to answer gets no answer.
func (w *worker) kill() {
	w.server.Stop()
	<-w.serving
}

func (w *worker) take(ctx context.Context, items []item) (partialSuccess, error) {
	w.mu.Lock()
	before := w.before
	w.mu.Unlock()
	if before != nil {
		if err := before(ctx); err != nil {
			return partialSuccess{}, err
		}
	}
	md, _ := metadata.FromIncomingContext(ctx)
	var partial partialSuccess
	w.change(func() {
		w.requests++
		w.items = append(w.items, items...)
		w.taken = append(w.taken, request{md, items})
		partial = w.partial
	})
	return partial, nil
}

func (w *worker) setPartial(p partialSuccess) { w.change(func() { w.partial = p }) }

// gotRequests returns the requests that were accepted.
func (w *worker) gotRequests() []request {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.taken)
}

func (w *worker) setBefore(f func(context.Context) error) { w.change(func() { w.before = f }) }

func (w *worker) got() []item {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.items)
}

// streams returns the streams of which the worker got something.
func (w *worker) streams() map[string]bool {
	all := map[string]bool{}
	for _, i := range w.got() {
		all[i.stream] = true
	}
	return all
}

func (w *worker) Export(ctx context.Context, r pmetricotlp.ExportRequest) (pmetricotlp.ExportResponse, error) {
	partial, err := w.take(ctx, metricItems(r.Metrics()))
	w.mu.Lock()
	exported := w.exported
	w.mu.Unlock()
	if err == nil && exported != nil {
		exported(ctx, r.Metrics())
	}
	response := pmetricotlp.NewExportResponse()
	response.PartialSuccess().SetRejectedDataPoints(partial.rejected)
	response.PartialSuccess().SetErrorMessage(partial.message)
	return response, err
}

type traceWorker struct {
	ptraceotlp.UnimplementedGRPCServer
	*worker
}

func (w *traceWorker) Export(ctx context.Context, r ptraceotlp.ExportRequest) (ptraceotlp.ExportResponse, error) {
	partial, err := w.take(ctx, traceItems(r.Traces()))
	response := ptraceotlp.NewExportResponse()
	response.PartialSuccess().SetRejectedSpans(partial.rejected)
	response.PartialSuccess().SetErrorMessage(partial.message)
	return response, err
}

type logWorker struct {
	plogotlp.UnimplementedGRPCServer
	*worker
}

func (w *logWorker) Export(ctx context.Context, r plogotlp.ExportRequest) (plogotlp.ExportResponse, error) {
	partial, err := w.take(ctx, logItems(r.Logs()))
	response := plogotlp.NewExportResponse()
	response.PartialSuccess().SetRejectedLogRecords(partial.rejected)
	response.PartialSuccess().SetErrorMessage(partial.message)
	return response, err
}

var errUnavailable = status.Error(codes.Unavailable, "as the test wants")

// nameServer is a real DNS server.
type nameServer struct {
	watched
	address string
	queries int // for SRV records
	answer  func(q dns.Question) (rcode int, records []dns.RR)
}

func startNameServer(t testing.TB) *nameServer {
	t.Helper()
	s := &nameServer{answer: func(dns.Question) (int, []dns.RR) { return dns.RcodeNameError, nil }}
	tcp, udp := sameListeners(t)
	s.address = udp.LocalAddr().String()
	for _, server := range []*dns.Server{{PacketConn: udp, Handler: s}, {Listener: tcp, Handler: s}} {
		started, done := make(chan struct{}), make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		go func() {
			defer close(done)
			_ = server.ActivateAndServe()
		}()
		<-started
		t.Cleanup(func() {
			_ = server.Shutdown()
			<-done
		})
	}
	return s
}

// sameListeners listens at one port over TCP and UDP: one that is free for both.
func sameListeners(t testing.TB) (net.Listener, net.PacketConn) {
	t.Helper()
	for range 20 {
		udp, err := net.ListenPacket("udp", "127.0.0.1:0")
		require.NoError(t, err)
		if tcp, err := net.Listen("tcp", udp.LocalAddr().String()); err == nil {
			return tcp, udp
		}
		require.NoError(t, udp.Close())
	}
	t.Fatal("no port is free over both TCP and UDP")
	return nil, nil
}

func (s *nameServer) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	s.mu.Lock()
	answer := s.answer
	s.mu.Unlock()
	reply := new(dns.Msg)
	reply.SetReply(q)
	reply.Compress = true
	reply.Rcode, reply.Answer = answer(q.Question[0])
	if w.RemoteAddr().Network() == "udp" {
		reply.Truncate(dns.MinMsgSize)
	}
	_ = w.WriteMsg(reply)
	if q.Question[0].Qtype == dns.TypeSRV { // not what gRPC asks for
		s.change(func() { s.queries++ })
	}
}

func (s *nameServer) set(answer func(q dns.Question) (int, []dns.RR)) {
	s.change(func() { s.answer = answer })
}

// serve has SRV records of "_otlp._tcp.workers.test." with a target for each name, at the port of its worker, and an A
// record for each target.
func (s *nameServer) serve(workers map[string]*worker) {
	s.set(func(q dns.Question) (int, []dns.RR) { return records(q, workers) })
}

func records(q dns.Question, workers map[string]*worker) (int, []dns.RR) {
	var all []dns.RR
	for name, w := range workers {
		host, port, _ := net.SplitHostPort(w.address)
		n, _ := strconv.ParseUint(port, 10, 16)
		target := name + ".workers.test."
		switch {
		case q.Qtype == dns.TypeSRV && q.Name == "_otlp._tcp.workers.test.":
			all = append(all, &dns.SRV{Hdr: header(q), Port: uint16(n), Target: target})
		case q.Qtype == dns.TypeA && q.Name == target:
			all = append(all, &dns.A{Hdr: header(q), A: net.ParseIP(host)})
		}
	}
	return dns.RcodeSuccess, all
}

func header(q dns.Question) dns.RR_Header {
	return dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET}
}

// awaitQueries waits until n more queries for members are answered.
func (s *nameServer) awaitQueries(t testing.TB, n int) {
	t.Helper()
	s.mu.Lock()
	want := s.queries + n
	s.mu.Unlock()
	s.await(t, "further queries", func() bool { return s.queries >= want })
}
