// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

func main() {
	err := run(os.Args[1:], os.Stdout, os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "blastradius:", err)
		os.Exit(1)
	}
}

// question is what the user asks.
type question struct {
	from, to, keys, names string
	rollAtOnce            int
	ecs, k8s              string
	metrics, png          string
	seed                  uint64
}

func run(args []string, stdout, stderr io.Writer) error {
	var q question
	flags := flag.NewFlagSet("blastradius", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&q.from, "from", "", "members now: a number, a list of name[:weight[:zone]], or a YAML or JSON file")
	flags.StringVar(&q.to, "to", "", "members then, likewise")
	flags.IntVar(&q.rollAtOnce, "roll", 0, "instead of -to: rolling update, so many `members` at a time")
	flags.StringVar(&q.ecs, "ecs", "",
		"instead of -to: rolling update as ECS does it, `min/max` healthy percent, such as 100/200")
	flags.StringVar(&q.k8s, "k8s", "",
		"instead of -to: rolling update as a Deployment does it, `maxSurge/maxUnavailable`, such as 25%/25% or 1/0")
	flags.StringVar(&q.names, "names", "",
		"kept or changed by a rolling update (default kept for -roll, changed for -ecs and -k8s)")
	flags.StringVar(&q.keys, "key", defaultKeys,
		"routing `keys`: streamID, metric, service, resource, or attributes, which need a dot in their name; + joins several to one key")
	flags.StringVar(&q.metrics, "metrics", "",
		"`file` of OTLP metrics as the Collector's file exporter writes them as JSON (default: built-in synthetic ones)")
	flags.Uint64Var(&q.seed, "seed", 1, "of the synthetic metrics")
	flags.StringVar(&q.png, "png", "", "`file` to plot to")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	given := make(map[string]bool)
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	return q.answer(given, stdout)
}

// answer checks all that was asked before the work that takes long.
func (q question) answer(given map[string]bool, stdout io.Writer) error {
	mode := ""
	for _, name := range []string{"to", "roll", "ecs", "k8s"} {
		if !given[name] {
			continue
		}
		if mode != "" {
			return fmt.Errorf("-%s and -%s: want one of -to, -roll, -ecs, -k8s", mode, name)
		}
		mode = name
	}
	if mode == "" {
		return errors.New("what is to change? want one of -to, -roll, -ecs, -k8s")
	}
	if given["metrics"] && given["seed"] {
		return errors.New("-seed is for synthetic metrics, -metrics for real ones: want one of them")
	}
	keys, err := parseKeys(q.keys)
	if err != nil {
		return fmt.Errorf("-key: %w", err)
	}
	from, err := parseFleet(q.from)
	if err != nil {
		return fmt.Errorf("-from: %w", err)
	}
	if mode == "to" {
		if given["names"] {
			return errors.New("-names is for rolling updates")
		}
		to, err := parseFleet(q.to)
		if err != nil {
			return fmt.Errorf("-to: %w", err)
		}
		p, err := q.population(keys)
		if err != nil {
			return err
		}
		c, err := newChange(p, from, to)
		if err != nil {
			return err
		}
		if err := writeChange(stdout, p, c); err != nil {
			return err
		}
		return q.plot(func() error { return plotChange(q.png, p, c) })
	}

	var bounds rollout
	switch mode {
	case "roll":
		bounds, err = parseRoll(len(from), q.rollAtOnce)
	case "ecs":
		bounds, err = parseECS(len(from), q.ecs)
	case "k8s":
		bounds, err = parseK8s(len(from), q.k8s)
	}
	if err != nil {
		return fmt.Errorf("-%s: %w", mode, err)
	}
	keep := mode == "roll"
	switch q.names {
	case "kept":
		keep = true
	case "changed":
		keep = false
	case "":
	default:
		return fmt.Errorf("-names: %q: want kept or changed", q.names)
	}
	p, err := q.population(keys)
	if err != nil {
		return err
	}
	r, err := newRoll(p, from, bounds, keep)
	if err != nil {
		return err
	}
	if err := writeRoll(stdout, p, from, r); err != nil {
		return err
	}
	return q.plot(func() error { return plotRoll(q.png, p, r) })
}

func (q question) population(keys []routingKey) (*population, error) {
	if q.metrics != "" {
		p := newPopulation(q.metrics, keys)
		return p, readJSONLines(q.metrics, p)
	}
	p := newPopulation(fmt.Sprintf("synthetic, seed %d", q.seed), keys)
	addSynthetic(p, q.seed)
	return p, nil
}

func (q question) plot(draw func() error) error {
	if q.png == "" {
		return nil
	}
	return draw()
}
