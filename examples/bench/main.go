// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Bench measures d2c beside contrib's deltatocumulative processor, in one process and in turns, and beside the least
// that any converter must do: identify every point, and look it up in a Go map. It measures ring beside other consistent
// hashing, and streamid.Splitter beside cloning every point.
//
//	go run .                                   # everything, some minutes
//	go run . -quick                            # small sizes, some 20 s
//	go run . -sizes 100k -kinds sum -growth 0 -gc ""
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
	Go     string      `json:"go"`
	Arch   string      `json:"arch"`
	CPUs   int         `json:"cpus"`
	CPU    string      `json:"cpu,omitempty"`
	Steady []steadyRow `json:"steady,omitempty"`
	Growth *growthRow  `json:"growth,omitempty"`
	GC     []gcRow     `json:"gc,omitempty"`
	Ring   []ringRow   `json:"ring,omitempty"`
	Change []changeRow `json:"change,omitempty"`
	Split  []splitRow  `json:"split,omitempty"`
	Target []targetRow `json:"targets,omitempty"`
}

// sections in the order in which they run.
var sections = []string{"steady", "growth", "gc", "ring", "split"}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	quick := flags.Bool("quick", false, "small sizes and few rounds; flags given explicitly win")
	sizeList := flags.String("sizes", "1k,100k,1M", "numbers of streams in steady state; empty for none")
	kindList := flags.String("kinds", "sum,sumdouble,histogram,exponential", "kinds of points in steady state")
	onlyList := flags.String("only", strings.Join(sections, ","), "sections to run")
	rounds := flags.Int("rounds", 5, "rounds of turns in all sections but growth and gc; medians are taken over them")
	growTo := flags.String("growth", "10M", "number of streams to grow to; 0 for none")
	growRuns := flags.Int("growth-runs", 3, "how often to grow")
	gcList := flags.String("gc", "1k,1M", "numbers of streams to force collections with; empty for none")
	memberList := flags.String("members", "10,100,300,1000", "numbers of members of rings")
	fleets := flags.Int("fleets", 2, "fleets over which a ring's balance and movement are averaged")
	sample := flags.Int("sample", 1<<20, "keys to sample for schemes that do not show their slots")
	jsonFile := flags.String("json", "", "file to write the results to as JSON")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *quick {
		small := map[string]string{"sizes": "1k,100k", "rounds": "3", "growth": "1M", "growth-runs": "2", "gc": "1k,100k",
			"members": "10,100", "fleets": "1"}
		flags.Visit(func(f *flag.Flag) { delete(small, f.Name) })
		for name, value := range small {
			if err := flags.Set(name, value); err != nil {
				return err
			}
		}
	}
	sizes, err := parseSizes(*sizeList)
	if err != nil {
		return err
	}
	kinds, err := parseKinds(*kindList)
	if err != nil {
		return err
	}
	gcSizes, err := parseSizes(*gcList)
	if err != nil {
		return err
	}
	grow, err := parseSize(*growTo)
	if err != nil {
		return err
	}
	members, err := parseMembers(*memberList)
	if err != nil {
		return err
	}
	if *rounds < 1 || *growRuns < 1 || *fleets < 1 || *sample < 1 {
		return fmt.Errorf("rounds, growth-runs, fleets, sample: must be at least 1, got %d, %d, %d and %d",
			*rounds, *growRuns, *fleets, *sample)
	}
	only, err := parseSections(*onlyList)
	if err != nil {
		return err
	}
	if !only["steady"] {
		sizes = nil
	}
	if !only["growth"] {
		grow = 0
	}
	if !only["gc"] {
		gcSizes = nil
	}

	rep := report{Go: runtime.Version(), Arch: runtime.GOOS + "/" + runtime.GOARCH, CPUs: runtime.GOMAXPROCS(0), CPU: cpuModel()}
	fmt.Printf("%s %s, %d CPUs, %s\n", rep.Go, rep.Arch, rep.CPUs, rep.CPU)
	out := newTable(os.Stdout)
	if len(sizes) > 0 {
		out.steadyHead()
		for _, k := range kinds {
			for _, n := range sizes {
				row, err := steady(k, n, *rounds)
				if err != nil {
					return err
				}
				out.steadyRow(row)
				rep.Steady = append(rep.Steady, row)
			}
		}
	}
	var grown *d2c.Converter
	if grow > 0 {
		row, conv, err := growth(grow, *growRuns)
		if err != nil {
			return err
		}
		grown = conv
		out.growth(row)
		rep.Growth = &row
	}
	if len(gcSizes) > 0 {
		if grow > 0 {
			rep.GC = append(rep.GC, gcCost(nameOurs, grow, grown))
			grown = nil // not to be marked along with the others
		}
		for _, s := range sides {
			if !s.converts {
				continue
			}
			for _, n := range gcSizes {
				row, err := gcAt(s, n)
				if err != nil {
					return err
				}
				rep.GC = append(rep.GC, row)
			}
		}
		out.gc(rep.GC)
	}
	if only["ring"] && len(members) > 0 {
		out.ringHead()
		for _, n := range members {
			rows, err := ringRows(n, *fleets, *sample, *rounds)
			if err != nil {
				return err
			}
			out.ringRows(rows)
			rep.Ring = append(rep.Ring, rows...)
			change, err := changeAt(n, *rounds)
			if err != nil {
				return err
			}
			rep.Change = append(rep.Change, change)
		}
		rep.Target = append(rep.Target, ringTargets(rep.Ring, rep.Change)...)
	}
	if only["split"] {
		for _, key := range splitKeys {
			row, err := splitAt(key, *rounds)
			if err != nil {
				return err
			}
			rep.Split = append(rep.Split, row)
		}
		out.split(rep.Split)
		rep.Target = append(rep.Target, splitTargets(rep.Split)...)
	}
	if len(rep.Target) > 0 {
		out.targets(rep.Target)
	}
	if *jsonFile == "" {
		return nil
	}
	data, err := json.MarshalIndent(rep, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(*jsonFile, append(data, '\n'), 0o644)
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
