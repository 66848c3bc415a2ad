// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Command quickstart shows in a few seconds what deltaring is for. It runs a real OpenTelemetry Collector with the d2c
// processor in its own process, sends it real deltas with the OpenTelemetry Go SDK, shows the cumulative totals that
// come out, and compares them with what the producers counted themselves.
//
// It compiles first: a minute or two the first time.
//
//	go run .          the whole story, about eight seconds; exit status 0 exact, 1 not exact, 2 could not run
//	go run . -serve   listen on the usual OTLP ports for your own application and show what it sends
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/sdk"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
)

// Exit statuses.
const (
	exitExact    = 0
	exitNotExact = 1
	exitSetup    = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop) // a second interrupt ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	flags.SetOutput(stderr)
	serving := flags.Bool("serve", false, "listen for your own application until interrupted, instead of the demonstration")
	grpcAddr := flags.String("grpc", "", "`host:port` for OTLP/gRPC (default any free port; with -serve 127.0.0.1:4317)")
	httpAddr := flags.String("http", "", "`host:port` for OTLP/HTTP (default any free port; with -serve 127.0.0.1:4318)")
	lasting := flags.Duration("for", 6*time.Second, "how `long` the producers work, at least 1s")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return exitExact
	case err != nil:
		return exitSetup
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "quickstart: unexpected argument %q\n", flags.Arg(0))
		return exitSetup
	case *lasting < time.Second:
		fmt.Fprintf(stderr, "quickstart: -for: must be at least 1s, got %v\n", *lasting)
		return exitSetup
	}

	exact := true
	var err error
	if *serving {
		err = serve(ctx, or(*grpcAddr, "127.0.0.1:4317"), or(*httpAddr, "127.0.0.1:4318"), stdout)
	} else {
		// The SDK reports exports that fail to a global handler. Here the verdict does.
		otel.SetErrorHandler(otel.ErrorHandlerFunc(func(error) {}))
		const pace = 10 * time.Millisecond
		d := demonstration{
			grpc: or(*grpcAddr, "127.0.0.1:0"), http: or(*httpAddr, "127.0.0.1:0"),
			load: load{steps: int(*lasting / pace), pace: pace, interval: 500 * time.Millisecond, pause: 300 * time.Millisecond},
		}
		exact, err = d.run(ctx, stdout)
	}
	if err != nil {
		fmt.Fprintln(stderr, "quickstart:", err)
	}
	return exitStatus(exact, err)
}

func exitStatus(exact bool, err error) int {
	switch {
	case err != nil:
		return exitSetup
	case !exact:
		return exitNotExact
	}
	return exitExact
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// demonstration is the main job.
type demonstration struct {
	grpc, http string
	load       load

	// For tests, which must see the verdict fail: tamper changes what leaves the Collector, uris its configuration.
	tamper func(pmetric.Metrics)
	uris   []string
}

// run does it all, writes to out, and reports whether what came out is exact. It leaves no goroutine behind.
func (d demonstration) run(ctx context.Context, out io.Writer) (exact bool, err error) {
	b := newBoard()
	b.tamper = d.tamper
	c, err := startCollector(ctx, d.grpc, d.http, b, d.uris...)
	if err != nil {
		return false, err
	}
	stopped := sync.OnceValue(c.stop)
	defer func() { err = errors.Join(err, stopped()) }()
	proxy, err := startLossyProxy(c.http, func(points, bytes int) {
		b.note("the answer to a request of %s/2 got lost; the SDK will send its %d points (%d bytes) again", serviceName, points, bytes)
	})
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, proxy.stop(context.WithoutCancel(ctx))) }()

	producers := d.producers(c, proxy, b.note)
	introduce(out, c, d.load, producers)
	// Two snapshots, at moments when no export is due.
	s := startScreen(b, out, time.Duration(d.load.steps)*d.load.pace/3+d.load.interval/4, nil)
	err = runAll(ctx, producers)
	s.stop()
	if ctx.Err() != nil {
		return false, errors.New("interrupted before there was a verdict")
	}
	if err != nil {
		return false, err
	}

	e := evidence{producers: producers, board: b, unlucky: producers[1]}
	if e.accounts, err = c.accounts(ctx); err != nil {
		return false, err
	}
	e.resent, e.resentErr = proxy.lost()
	// The Collector flushes nothing on its way out that a backend should not have seen: what it says then counts too.
	if err := stopped(); err != nil {
		return false, err
	}
	fmt.Fprintln(out)
	return e.print(out), nil
}

func (d demonstration) producers(c *collector, proxy *lossyProxy, note func(string, ...any)) []*producer {
	steady := newProducer("1", "gRPC, deltas from every instrument", 1, d.load, note)
	steady.connect = overGRPC(c.grpc)

	unlucky := newProducer("2", "HTTP, the usual preference \"delta\": up-down counters are totals; loses an answer",
		2, d.load, note)
	unlucky.connect, unlucky.temporality = overHTTP(proxy.addr), sdkmetric.DeltaTemporalitySelector

	restarted := newProducer("3", "gRPC, deltas from every instrument; restarts under the same identity", 3, d.load, note)
	restarted.connect, restarted.restarts = overGRPC(c.grpc), true

	return []*producer{steady, unlucky, restarted}
}

// runAll runs the producers side by side and returns when all have ended. If one fails, all stop, and its error is
// the one returned.
func runAll(ctx context.Context, producers []*producer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	for _, p := range producers {
		all.Go(func() {
			if err := p.run(ctx); err != nil {
				cancel(err)
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

func introduce(out io.Writer, c *collector, l load, producers []*producer) {
	fmt.Fprintf(out, `deltaring quickstart: real OTLP deltas in, exact cumulative totals out

  collector  otlp receiver -> d2c processor -> this table
             gRPC %s, HTTP %s
  producers  OpenTelemetry Go SDK %s, exporting every %v
`, c.grpc, c.http, sdk.Version(), l.interval)
	for _, p := range producers {
		fmt.Fprint(out, wrap(fmt.Sprintf("    %s   %s", p.name(), p.how), len("  producers  "), usualWidth))
	}
	fmt.Fprintln(out)
}

// serve shows what other programs send until ctx ends.
func serve(ctx context.Context, grpcAddr, httpAddr string, out io.Writer) error {
	b := newBoard()
	c, err := startCollector(ctx, grpcAddr, httpAddr, b)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, `deltaring quickstart: listening for OTLP metrics,
gRPC on %[1]s and HTTP on %[2]s

Start your application with these and watch its totals here:

  export OTEL_EXPORTER_OTLP_ENDPOINT=http://%[2]s
  export OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf
  export %[3]s=delta
  export OTEL_METRIC_EXPORT_INTERVAL=1000

For gRPC: OTEL_EXPORTER_OTLP_PROTOCOL=grpc
and OTEL_EXPORTER_OTLP_ENDPOINT=http://%[1]s
Ctrl-C ends it.

`, c.grpc, c.http, temporalityPreference)
	s := startScreen(b, out, time.Second, func() string { return c.footer(ctx, b) })
	select {
	case <-ctx.Done():
	case err = <-c.exited: // it died; stop will return nil from the closed channel
		err = errors.Join(errors.New("the Collector ended by itself"), err)
	}
	s.stop()
	a, accountsErr := c.accounts(context.WithoutCancel(ctx))
	err = errors.Join(err, c.stop())
	fmt.Fprintf(out, "\n%s\n", b.table(usualWidth))
	if err != nil {
		return err
	}
	if accountsErr != nil {
		return accountsErr
	}
	fmt.Fprint(out, a.footer(b))
	return nil
}

// footer says what has become of the points so far. It is empty once the Collector has ended.
func (c *collector) footer(ctx context.Context, b *board) string {
	a, err := c.accounts(ctx)
	if err != nil {
		return ""
	}
	return a.footer(b)
}
