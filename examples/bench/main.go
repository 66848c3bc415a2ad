// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Bench measures d2c beside contrib's deltatocumulative processor, in one process and in turns, and beside the least
// that any converter must do: identify every point, and look it up in a Go map. It measures ring beside other consistent
// hashing, and streamid.Splitter beside cloning every point.
//
//	go run .                                   # everything, some minutes
//	go run . -quick                            # small sizes, less than a minute
//	go run . -chart chart.png -json bench.json # everything, and the chart
//	go run . -only steady -sizes 100k -kinds sum
//	go run . -only ring,split                  # not the converters
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/deltaring/deltaring/d2c"
)

// report is what -json writes.
type report struct {
	Go      string       `json:"go"`
	Arch    string       `json:"arch"`
	CPUs    int          `json:"cpus"`
	CPU     string       `json:"cpu,omitempty"`
	Steady  []steadyRow  `json:"steady,omitempty"`
	Points  []steadyRow  `json:"points,omitempty"`
	New     []freshRow   `json:"new,omitempty"`
	Churn   []churnRow   `json:"churn,omitempty"`
	Cores   []coresRow   `json:"cores,omitempty"`
	Growth  *growthRow   `json:"growth,omitempty"`
	GC      []gcRow      `json:"gc,omitempty"`
	Load    []loadRow    `json:"load,omitempty"`
	Durable []durableRow `json:"durable,omitempty"`
	Ring    []ringRow    `json:"ring,omitempty"`
	Change  []changeRow  `json:"change,omitempty"`
	Split   []splitRow   `json:"split,omitempty"`
	Target  []targetRow  `json:"targets,omitempty"`
}

// sections in the order in which they run.
var sections = []string{"steady", "points", "new", "churn", "cores", "growth", "gc", "load", "durable", "ring", "split"}

// settings are the flags.
type settings struct {
	only     map[string]bool
	effort   effort
	sizes    []int
	kinds    []kind
	points   []int // per call
	grow     int
	growRuns int
	gc       []int
	load     int
	members  []int
	fleets   int
	sample   int
	json     string
	chart    string
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse(args []string) (settings, error) {
	var s settings
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	quick := flags.Bool("quick", false, "small sizes and few rounds; flags given explicitly win")
	sizes := flags.String("sizes", "1k,100k,1M", "numbers of streams in steady, new, churn and cores")
	kinds := flags.String("kinds", "sum,histogram,exponential", "kinds of points in steady, new and churn; sumdouble too")
	points := flags.String("points", "10,10k", "numbers of points per call, beside 1000")
	only := flags.String("only", strings.Join(sections, ","), "sections to run")
	flags.IntVar(&s.effort.rounds, "rounds", 5, "rounds of turns where sides take turns; medians are taken over them")
	flags.IntVar(&s.effort.calls, "calls", 200, "calls of 1000 points in a turn, at the least")
	grow := flags.String("growth", "10M", "number of streams to grow to")
	flags.IntVar(&s.growRuns, "growth-runs", 3, "how often to grow")
	gc := flags.String("gc", "1k,1M", "numbers of streams to force collections with")
	load := flags.String("load", "1M", "number of streams under load")
	members := flags.String("members", "10,100,300,1000", "numbers of members of rings")
	flags.IntVar(&s.fleets, "fleets", 2, "fleets over which a ring's balance and movement are averaged")
	flags.IntVar(&s.sample, "sample", 1<<20, "keys to sample for schemes that do not show their slots")
	flags.StringVar(&s.json, "json", "", "file to write the results to as JSON")
	flags.StringVar(&s.chart, "chart", "", "file to draw steady state to as PNG")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	if flags.NArg() > 0 {
		return s, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if *quick {
		small := map[string]string{"sizes": "1k,100k", "rounds": "3", "calls": "100", "growth": "1M", "growth-runs": "2", "gc": "1k,100k",
			"load": "100k", "members": "10,100", "fleets": "1"}
		flags.Visit(func(f *flag.Flag) { delete(small, f.Name) })
		for name, value := range small {
			if err := flags.Set(name, value); err != nil {
				return s, err
			}
		}
	}
	var err error
	if s.sizes, err = parseSizes(*sizes); err != nil {
		return s, err
	}
	if s.kinds, err = parseKinds(*kinds); err != nil {
		return s, err
	}
	if s.points, err = parsePoints(*points); err != nil {
		return s, err
	}
	if s.grow, err = parseSize(*grow); err != nil {
		return s, err
	}
	if s.gc, err = parseSizes(*gc); err != nil {
		return s, err
	}
	if s.load, err = parseSize(*load); err != nil {
		return s, err
	}
	if s.members, err = parseMembers(*members); err != nil {
		return s, err
	}
	if s.effort.rounds < 1 || s.effort.calls < 1 || s.growRuns < 1 || s.fleets < 1 || s.sample < 1 {
		return s, fmt.Errorf("rounds, calls, growth-runs, fleets, sample: must be at least 1, got %d, %d, %d, %d and %d",
			s.effort.rounds, s.effort.calls, s.growRuns, s.fleets, s.sample)
	}
	if s.only, err = parseSections(*only); err != nil {
		return s, err
	}
	if s.chart != "" && !s.only["steady"] {
		return s, fmt.Errorf("chart: draws steady state, which -only leaves out")
	}
	return s, nil
}

func run(args []string) error {
	s, err := parse(args)
	if err != nil {
		return err
	}
	rep := report{Go: runtime.Version(), Arch: runtime.GOOS + "/" + runtime.GOARCH, CPUs: runtime.GOMAXPROCS(0), CPU: cpuModel()}
	fmt.Printf("%s %s, %d CPUs, %s\n", rep.Go, rep.Arch, rep.CPUs, rep.CPU)
	out := newTable(os.Stdout)
	for _, measure := range []func(settings, table, *report) error{converters, collections, durability, routing} {
		if err := measure(s, out, &rep); err != nil {
			return err
		}
	}
	rep.Target = slices.Concat(converterTargets(&rep), ringTargets(rep.Ring, rep.Change), splitTargets(rep.Split))
	if len(rep.Target) > 0 {
		out.targets(rep.Target)
	}
	if s.chart != "" {
		if err := writeChart(s.chart, rep.Steady, rep.CPU); err != nil {
			return err
		}
	}
	if s.json == "" {
		return nil
	}
	data, err := json.MarshalIndent(rep, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(s.json, append(data, '\n'), 0o644)
}

// fewStreams is the most streams in calls of other sizes than 1000 points, and with points that are not sums where streams
// come and go.
const fewStreams = 100_000

// fewStreams is the largest of the sizes up to that, or 0.
func (s settings) fewStreams() int {
	most := 0
	for _, n := range s.sizes {
		if n <= fewStreams {
			most = max(most, n)
		}
	}
	return most
}

// converters measures what points cost.
func converters(s settings, out table, rep *report) error {
	if s.only["steady"] && len(s.sizes) > 0 {
		out.steadyHead("Steady state")
		for _, k := range s.kinds {
			for _, n := range s.sizes {
				row, err := steady(k, n, pointsPerBatch, s.effort)
				if err != nil {
					return err
				}
				out.steadyRow(row)
				rep.Steady = append(rep.Steady, row)
			}
		}
	}
	if n := s.fewStreams(); s.only["points"] && n > 0 && len(s.points) > 0 {
		out.steadyHead("Small and large calls")
		for _, points := range s.points {
			row, err := steady(kindSum, n, points, s.effort)
			if err != nil {
				return err
			}
			out.steadyRow(row)
			rep.Points = append(rep.Points, row)
		}
	}
	if s.only["new"] && len(s.sizes) > 0 {
		out.freshHead()
		err := s.comeAndGo(func(k kind, n int) error {
			row, err := fresh(sides, k, n, s.effort)
			if err == nil {
				out.freshRow(row)
				rep.New = append(rep.New, row)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	if s.only["churn"] && len(s.sizes) > 0 {
		out.churnHead()
		err := s.comeAndGo(func(k kind, n int) error {
			row, err := churn(agers, k, n, s.effort)
			if err == nil {
				out.churnRow(row)
				rep.Churn = append(rep.Churn, row)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	if s.only["cores"] && len(s.sizes) > 0 && rep.CPUs > 1 {
		out.coresHead(rep.CPUs)
		for _, how := range sharings {
			for _, n := range s.sizes {
				// Each core needs a batch. What is shared in a million streams takes long to show little.
				if batches(n) < rep.CPUs || how.name != nameDisjoint && n > fewStreams {
					continue
				}
				row, err := cores(coreSides(how), how, n, rep.CPUs, s.effort)
				if err != nil {
					return err
				}
				out.coresRow(row)
				rep.Cores = append(rep.Cores, row)
			}
		}
	}
	return nil
}

// comeAndGo calls measure with kinds and numbers of streams for the sections where streams come and go.
func (s settings) comeAndGo(measure func(kind, int) error) error {
	for _, k := range s.kinds {
		for _, n := range s.sizes {
			if k != kindSum && n > fewStreams {
				continue
			}
			if err := measure(k, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// collections measures growth and what the garbage collector has to do.
func collections(s settings, out table, rep *report) error {
	var grown *d2c.Converter
	if s.only["growth"] && s.grow > 0 {
		row, conv, err := growth(s.grow, s.growRuns)
		if err != nil {
			return err
		}
		grown = conv
		out.growth(row)
		rep.Growth = &row
	}
	if s.only["gc"] && len(s.gc) > 0 {
		if grown != nil {
			rep.GC = append(rep.GC, gcCost(nameOurs, s.grow, grown))
			grown = nil // not to be marked along with the others
		}
		for _, side := range sides {
			if !side.converts {
				continue
			}
			for _, n := range s.gc {
				row, err := gcAt(side, n)
				if err != nil {
					return err
				}
				rep.GC = append(rep.GC, row)
			}
		}
		out.gc(rep.GC)
	}
	if s.only["load"] && s.load > 0 {
		for _, side := range loadSides {
			row, err := underLoad(side, s.load, uint64(s.effort.rounds))
			if err != nil {
				return err
			}
			rep.Load = append(rep.Load, row)
		}
		out.load(rep.Load)
	}
	return nil
}

// durability measures what it costs to keep state in storage.
func durability(s settings, out table, rep *report) error {
	if !s.only["durable"] || len(s.sizes) == 0 {
		return nil
	}
	out.durableHead()
	for _, n := range s.sizes {
		for _, fsync := range []bool{false, true} {
			if fsync && n != s.fewStreams() {
				continue // the disk alone is what it measures
			}
			row, err := durable(n, max(s.effort.rounds, s.effort.calls/batches(n)), fsync)
			if err != nil {
				return err
			}
			out.durableRow(row)
			rep.Durable = append(rep.Durable, row)
		}
	}
	return nil
}

// routing measures ring and Splitter.
func routing(s settings, out table, rep *report) error {
	if s.only["ring"] && len(s.members) > 0 {
		out.ringHead()
		for _, n := range s.members {
			rows, err := ringRows(n, s.fleets, s.sample, s.effort.rounds)
			if err != nil {
				return err
			}
			out.ringRows(rows)
			rep.Ring = append(rep.Ring, rows...)
			change, err := changeAt(n, s.effort.rounds)
			if err != nil {
				return err
			}
			rep.Change = append(rep.Change, change)
		}
	}
	if s.only["split"] {
		for _, key := range splitKeys {
			row, err := splitAt(key, s.effort)
			if err != nil {
				return err
			}
			rep.Split = append(rep.Split, row)
		}
		out.split(rep.Split)
	}
	return nil
}

// parseSections reads a comma-separated list of sections.
func parseSections(list string) (map[string]bool, error) {
	only := make(map[string]bool)
	for word := range strings.SplitSeq(list, ",") {
		if !slices.Contains(sections, word) {
			return nil, fmt.Errorf("only: unknown section %q, want some of %v", word, sections)
		}
		only[word] = true
	}
	return only, nil
}

// parseMembers reads a comma-separated list of numbers of members; the empty list is empty. A ring of one has no leave.
func parseMembers(list string) ([]int, error) {
	if list == "" {
		return nil, nil
	}
	var members []int
	for word := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < 2 || n > 5000 {
			return nil, fmt.Errorf("members: %q: want a number from 2 to 5000", word)
		}
		members = append(members, n)
	}
	return members, nil
}

// parsePoints reads a comma-separated list of numbers of points that batches can have; the empty list is empty.
func parsePoints(list string) ([]int, error) {
	if list == "" {
		return nil, nil
	}
	var points []int
	for word := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(strings.Replace(word, "k", "000", 1))
		if err != nil || n < perMetric || n > fewStreams || n%perMetric != 0 || n > perResource*perMetric && n%(perResource*perMetric) != 0 {
			return nil, fmt.Errorf("points: %q: want a multiple of 10 below 100, or of 100 up to %d", word, fewStreams)
		}
		points = append(points, n)
	}
	return points, nil
}

// parseSizes reads a comma-separated list of sizes; the empty list is empty.
func parseSizes(list string) ([]int, error) {
	if list == "" {
		return nil, nil
	}
	var sizes []int
	for word := range strings.SplitSeq(list, ",") {
		n, err := parseSize(word)
		if err != nil {
			return nil, err
		}
		sizes = append(sizes, n)
	}
	return sizes, nil
}

// parseSize reads a number of streams, such as 1k or 10M, and rounds it up to whole batches.
func parseSize(word string) (int, error) {
	digits, unit := word, 1
	switch {
	case strings.HasSuffix(word, "k"):
		digits, unit = word[:len(word)-1], 1_000
	case strings.HasSuffix(word, "M"):
		digits, unit = word[:len(word)-1], 1_000_000
	}
	n, err := strconv.Atoi(digits)
	if err != nil || n < 0 || n > maxStreams/unit {
		return 0, fmt.Errorf("size %q: want a number up to %d, or with k or M behind it", word, maxStreams)
	}
	return batches(n*unit) * pointsPerBatch, nil
}

// cpuModel returns the processor's name where the system tells it.
func cpuModel() string {
	data, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.TrimSpace(strings.TrimLeft(name, "\t :"))
		}
	}
	return ""
}
