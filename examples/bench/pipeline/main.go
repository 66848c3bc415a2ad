// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Pipeline measures what converting deltas costs where it is paid: in whole Collectors, with OTLP in and OTLP out, beside a Collector
// that does nothing but hand on. Rows are files in rows; each is measured by turns with the bare one.
//
//	go run .                                       # sums and histograms, 100 k series
//	go run . -series 100k,1M -json out.json -chart pipeline.png
//	go run . -rows bare,two-tiers -kinds sum -turns 8
//	go run . -rows two-tiers -profile profiles     # and a CPU profile of each Collector
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// settings are the flags.
type settings struct {
	rows        []row
	kinds       []kind
	series      []int
	rate        float64
	turn        time.Duration
	turns       int
	senders     int
	compression string
	json        string
	chart       string
	profile     string
}

// report is what -json writes.
type report struct {
	Go          string   `json:"go"`
	Arch        string   `json:"arch"`
	CPUs        int      `json:"cpus"`
	Rate        float64  `json:"rate"` // points per second
	Turn        string   `json:"turn"`
	Turns       int      `json:"turns"`
	Compression string   `json:"compression"`
	Took        string   `json:"took"`
	Results     []result `json:"results"`
	Skipped     []string `json:"skipped,omitempty"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "pipeline:", err)
		os.Exit(1)
	}
}

func parse(args []string) (settings, error) {
	var s settings
	flags := flag.NewFlagSet("pipeline", flag.ContinueOnError)
	rows := flags.String("rows", "", "rows to measure, by name; all if empty")
	kinds := flags.String("kinds", "sum,histogram", "kinds of metrics")
	series := flags.String("series", "100k", "numbers of series, in thousands")
	rate := flags.String("rate", "20k", "points per second while CPU time is measured")
	flags.DurationVar(&s.turn, "turn", 5*time.Second, "how long a turn is")
	flags.IntVar(&s.turns, "turns", 4, "turns of each row, and of the bare one beside it, in which CPU time is measured")
	flags.IntVar(&s.senders, "senders", 8, "producers, each with one request under way")
	flags.StringVar(&s.compression, "compression", "gzip", "of producers, gateways and workers: gzip, which is what Collectors do by default, or none")
	flags.StringVar(&s.json, "json", "", "file to write the results to as JSON")
	flags.StringVar(&s.chart, "chart", "", "file to draw the CPU time of the first kind and number of series to as PNG")
	flags.StringVar(&s.profile, "profile", "", "directory to write a CPU profile of each Collector to, taken in another turn")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	if flags.NArg() > 0 {
		return s, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	all, err := readRows("rows")
	if err != nil {
		return s, err
	}
	if s.rows, err = choose(all, *rows); err != nil {
		return s, err
	}
	for word := range strings.SplitSeq(*kinds, ",") {
		if k := kind(word); k != kindSum && k != kindHistogram {
			return s, fmt.Errorf("kinds: unknown kind %q, want %s or %s", word, kindSum, kindHistogram)
		}
		s.kinds = append(s.kinds, kind(word))
	}
	for word := range strings.SplitSeq(*series, ",") {
		n, err := number(word)
		if err != nil || n < pointsPerBatch || n%pointsPerBatch != 0 {
			return s, fmt.Errorf("series: %q: want a multiple of 1000, such as 100k or 1M", word)
		}
		s.series = append(s.series, n)
	}
	n, err := number(*rate)
	if err != nil || n < 1 {
		return s, fmt.Errorf("rate: %q: want points per second, such as 20k", *rate)
	}
	s.rate = float64(n)
	if s.turn <= 0 || s.turns < 1 || s.senders < 1 {
		return s, fmt.Errorf("turn, turns, senders: want more than none, got %v, %d and %d", s.turn, s.turns, s.senders)
	}
	if s.compression != "gzip" && s.compression != "none" {
		return s, fmt.Errorf("compression: %q: want gzip or none", s.compression)
	}
	return s, nil
}

// number reads a number that may end in k or M.
func number(word string) (int, error) {
	factor := 1
	if digits, ok := strings.CutSuffix(word, "k"); ok {
		word, factor = digits, 1000
	} else if digits, ok := strings.CutSuffix(word, "M"); ok {
		word, factor = digits, 1_000_000
	}
	n, err := strconv.Atoi(word)
	return n * factor, err
}

// choose returns the rows of these names, always with the bare one, and that one first.
func choose(all []row, names string) ([]row, error) {
	at := slices.IndexFunc(all, func(r row) bool { return r.name == nameBare })
	if at < 0 {
		return nil, fmt.Errorf("rows: there is no row %q", nameBare)
	}
	chosen := []row{all[at]}
	want := strings.Split(names, ",")
	for _, name := range want {
		if name != "" && !slices.ContainsFunc(all, func(r row) bool { return r.name == name }) {
			return nil, fmt.Errorf("rows: there is no row %q", name)
		}
	}
	for _, r := range all {
		if r.name != nameBare && (names == "" || slices.Contains(want, r.name)) {
			chosen = append(chosen, r)
		}
	}
	return chosen, nil
}

func run(ctx context.Context, args []string) error {
	s, err := parse(args)
	if err != nil {
		return err
	}
	b, err := buildAll(ctx)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "pipeline-")
	if err != nil {
		return err
	}
	begin := time.Now()
	rep := report{Go: runtime.Version(), Arch: runtime.GOOS + "/" + runtime.GOARCH, CPUs: runtime.GOMAXPROCS(0), Rate: s.rate,
		Turn: s.turn.String(), Turns: s.turns, Compression: s.compression}
	for _, k := range s.kinds {
		for _, n := range s.series {
			heading(os.Stdout, k, n, s)
			c := comparison{settings: s, binaries: b, dir: filepath.Join(dir, fmt.Sprintf("%s-%d", k, n)), kind: k, series: n}
			err := c.run(ctx, func(r result) {
				r.write(os.Stdout)
				rep.Results = append(rep.Results, r)
			}, func(r row, why unknown) {
				line := fmt.Sprintf("%s: skipped. %v", r.name, why)
				fmt.Fprintln(os.Stderr, line)
				rep.Skipped = append(rep.Skipped, line)
			})
			if err != nil {
				return fmt.Errorf("%w (logs are in %s)", err, dir)
			}
		}
	}
	rep.Took = time.Since(begin).Round(time.Second).String()
	fmt.Printf("\n%s.\n", rep.Took)
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if s.chart != "" {
		if err := writeChart(s.chart, rep.Results); err != nil {
			return err
		}
	}
	if s.json != "" {
		text, err := json.MarshalIndent(rep, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(s.json, append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	for _, r := range rep.Results {
		if r.Faults.Series > 0 || r.Faults.Strangers > 0 {
			err = errors.Join(err, fmt.Errorf("%s, %s, %d series: %+v", r.Row, r.Kind, r.Series, r.Faults))
		}
	}
	return err
}
