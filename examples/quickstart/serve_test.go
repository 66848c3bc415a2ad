// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
)

// served is a process that runs the command with -serve.
type served struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan string
	seen  []string
}

func startServed(t *testing.T) *served {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("a process cannot be interrupted from outside on Windows")
	}
	cmd := exec.Command(os.Args[0], "-serve", "-grpc", "127.0.0.1:0", "-http", "127.0.0.1:0")
	cmd.Env = append(os.Environ(), asMain+"=1")
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &served{t: t, cmd: cmd, lines: make(chan string)}
	go func() {
		defer close(s.lines)
		for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
			s.lines <- scanner.Text()
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // fails if the test has ended it, as it should
		for range s.lines {
		}
		_ = cmd.Wait()
	})
	return s
}

// until reads output up to a line that matches and returns the match with its groups.
func (s *served) until(pattern string) []string {
	s.t.Helper()
	re := regexp.MustCompile(pattern)
	timeout := time.After(20 * time.Second)
	for {
		select {
		case line, ok := <-s.lines:
			if !ok {
				s.t.Fatalf("output ended without %q:\n%s", pattern, strings.Join(s.seen, "\n"))
			}
			s.seen = append(s.seen, line)
			if m := re.FindStringSubmatch(line); m != nil {
				return m
			}
		case <-timeout:
			s.t.Fatalf("no %q in time:\n%s", pattern, strings.Join(s.seen, "\n"))
		}
	}
}

// interrupt ends the process as Ctrl-C does and returns how it ended.
func (s *served) interrupt() error {
	s.t.Helper()
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil {
		s.t.Fatal(err)
	}
	s.until(`^outcomes: `)
	for range s.lines {
	}
	return s.cmd.Wait()
}

// writerFunc is an io.Writer.
type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestMain looks for goroutines that this leaves behind.
func TestServeEndsAllItStarted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stdout := writerFunc(func(p []byte) (int, error) {
		if strings.Contains(string(p), "Ctrl-C") {
			cancel()
		}
		return len(p), nil
	})
	if status := run(ctx, []string{"-serve", "-grpc", "127.0.0.1:0", "-http", "127.0.0.1:0"}, stdout, os.Stderr); status != exitExact {
		t.Errorf("status %d, want %d", status, exitExact)
	}
}

// An application configured by nothing but the printed environment shows up, and Ctrl-C ends the command cleanly.
func TestServeShowsAnApplicationThatUsesThePrintedEnvironment(t *testing.T) {
	s := startServed(t)
	for range 4 {
		m := s.until(`^ +export (OTEL_[A-Z_]+)=(.*)$`)
		t.Setenv(m[1], m[2])
	}
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=mine,service.instance.id=42")
	s.until(`^Ctrl-C`)

	exporter, err := otlpmetrichttp.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	identity, err := resource.New(t.Context(), resource.WithFromEnv())
	if err != nil {
		t.Fatal(err)
	}
	provider := sdkmetric.NewMeterProvider(
		sdkmetric.WithResource(identity), sdkmetric.WithReader(sdkmetric.NewPeriodicReader(exporter)))
	defer func() {
		if err := provider.Shutdown(context.Background()); err != nil && !errors.Is(err, sdkmetric.ErrReaderShutdown) {
			t.Error(err)
		}
	}()
	counter, err := provider.Meter("test").Int64Counter("visits")
	if err != nil {
		t.Fatal(err)
	}
	want := 0
	for _, n := range []int{3, 4, 5} {
		counter.Add(t.Context(), int64(n), metric.WithAttributes())
		if err := provider.ForceFlush(t.Context()); err != nil {
			t.Fatal(err)
		}
		want += n
	}
	s.until(fmt.Sprintf(`^mine/42 +visits +int counter +%d +\d`, want))
	if err := provider.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.interrupt(); err != nil {
		t.Errorf("after an interrupt: %v", err)
	}
}

// The example in README.md works as it stands.
func TestServeUnderstandsTheCurlExample(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	example := regexp.MustCompile(`(?s)curl .*?\s(http://127\.0\.0\.1:4318/\S+) .*?-d '(.*?)'"\$\(date \+%s\)000000000"'(.*?)'\n`).FindSubmatch(readme)
	if example == nil {
		t.Fatal("README.md has no curl example of the expected form")
	}
	s := startServed(t)
	endpoint := s.until(`HTTP on (\S+)$`)[1]
	url := strings.Replace(string(example[1]), "127.0.0.1:4318", endpoint, 1)
	now := time.Now().Unix()
	for i := range int64(3) {
		body := fmt.Sprintf("%s%d000000000%s", example[2], now+i, example[3])
		answer, err := http.Post(url, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s", answer.Status, text)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	s.until(`^curl +cups\{drink=tea\} +int counter +15 `)
	if err := s.interrupt(); err != nil {
		t.Errorf("after an interrupt: %v", err)
	}
}

// post sends metrics as curl would.
func post(t *testing.T, url, body string) {
	t.Helper()
	answer, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	text, _ := io.ReadAll(answer.Body)
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", answer.Status, text)
	}
}

// ofShop is a request with a point of each of these sums.
func ofShop(sums ...string) string {
	return `{"resourceMetrics": [{"resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "mine"}}]},
		"scopeMetrics": [{"metrics": [` + strings.Join(sums, ",") + `]}]}]}`
}

func sumOf(name string, temporality int, monotonic bool, value int) string {
	return fmt.Sprintf(`{"name": %q, "sum": {"aggregationTemporality": %d, "isMonotonic": %v, "dataPoints": [{
		"attributes": [{"key": "page", "value": {"stringValue": "home"}}], "asInt": "%d", "timeUnixNano": "%d"}]}}`,
		name, temporality, monotonic, value, time.Now().UnixNano())
}

// Totals are told apart from deltas, and their producer is told how to send these, once.
func TestServeMarksWhatIsNoDelta(t *testing.T) {
	s := startServed(t)
	url := "http://" + s.until(`HTTP on (\S+)$`)[1] + "/v1/metrics"
	s.until(`^Ctrl-C`)
	post(t, url, ofShop(sumOf("visits", 2, true, 5), sumOf("queue", 2, false, 3), sumOf("orders", 1, true, 4)))
	s.until(`mine sends totals \(visits\{page=home\}\), not deltas`)
	s.until(`^ +OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=delta$`)
	s.until(`^mine +orders\{page=home\} +int counter +4 `)
	s.until(`^ +queue\{page=home\} \(passed\) +int up-down +3 `)
	s.until(`^ +visits\{page=home\} \(passed\) +int counter +5 `)
	s.until(`^outcomes: 1 first · 2 passed · 0 dropped$`)
	s.until(`^  \(passed\): came as totals`)
	post(t, url, ofShop(sumOf("visits", 2, true, 6)))
	s.until(`^outcomes: 1 first · 3 passed · 0 dropped$`)
	if err := s.interrupt(); err != nil {
		t.Errorf("after an interrupt: %v", err)
	}
	if n := strings.Count(strings.Join(s.seen, "\n"), "not deltas: they pass"); n != 1 {
		t.Errorf("the producer was told %d times", n)
	}
	s.fits()
}

// An up-down counter is a total by all that is usual: nobody is told to change that.
func TestServeGivesNoAdviceForUpDownCounters(t *testing.T) {
	s := startServed(t)
	url := "http://" + s.until(`HTTP on (\S+)$`)[1] + "/v1/metrics"
	post(t, url, ofShop(sumOf("queue", 2, false, 3)))
	s.until(`^outcomes: 1 passed`)
	if err := s.interrupt(); err != nil {
		t.Errorf("after an interrupt: %v", err)
	}
	if strings.Contains(strings.Join(s.seen, "\n"), "sends totals") {
		t.Error("there is advice")
	}
}

// What is dropped is shown while it happens, though nothing comes out: how many, why, and one of them.
func TestServeShowsDropsLive(t *testing.T) {
	s := startServed(t)
	url := "http://" + s.until(`HTTP on (\S+)$`)[1] + "/v1/metrics"
	s.until(`^Ctrl-C`)
	post(t, url, ofShop(sumOf("orders", 1, true, -4)))
	s.until(`WARN: points are dropped: they are negative`)
	s.until(`Such as mine$|orders\{page=home\}$`)
	s.until(`^outcomes: 1 dropped_negative · 1 dropped$`)
	s.until(`^  not added: 1 dropped_negative, such as mine orders\{page=home\}$`)
	post(t, url, ofShop(sumOf("orders", 1, true, -4)))
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, shown, _ := strings.Cut(string(readme), "\n```\noutcomes: ")
	shown, _, _ = strings.Cut("outcomes: "+shown, "\n```")
	for line := range strings.Lines(shown) {
		s.until("^" + regexp.QuoteMeta(strings.TrimSuffix(line, "\n")) + "$")
	}
	if err := s.interrupt(); err != nil {
		t.Errorf("after an interrupt: %v", err)
	}
	s.fits()
}

// Names are a stranger's: they may be anything but what a terminal obeys.
func TestServePrintsNothingThatMovesTheCursor(t *testing.T) {
	s := startServed(t)
	url := "http://" + s.until(`HTTP on (\S+)$`)[1] + "/v1/metrics"
	evil := strings.Replace(ofShop(sumOf("NAME", 1, true, 4), sumOf("NAME", 1, true, -4)), "NAME", `a\u001b[2J\nb`, 2)
	post(t, url, evil)
	s.until(`^mine +a\?\[2J\?b\{page=home\} +int counter +4 `)
	s.until(`^  not added: 1 dropped_negative, such as mine a\?\[2J\?b\{page=home\}$`)
	if err := s.interrupt(); err != nil {
		t.Errorf("after an interrupt: %v", err)
	}
	if strings.Contains(strings.Join(s.seen, "\n"), "\x1b") {
		t.Error("an escape sequence was printed")
	}
}

// fits looks at the width of all that was printed.
func (s *served) fits() {
	s.t.Helper()
	for _, line := range s.seen {
		if n := utf8.RuneCountInString(line); n > usualWidth {
			s.t.Errorf("%d columns: %q", n, line)
		}
	}
}
