// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// row is a way to run Collectors between producers and a backend: a file in rows, whose name has its place and its name.
type row struct {
	name string

	Title    string   `yaml:"title"`
	BasedOn  string   `yaml:"based_on"` // another row, over which this one is merged
	Delta    bool     `yaml:"delta"`    // what comes out is what came in
	Servers  []string `yaml:"servers"`  // what the workers keep their state in, by the names in servers.go
	Gateways int      `yaml:"gateways"` // zero: producers send to workers, a request to each by turns
	Workers  int      `yaml:"workers"`

	GatewayBinary string         `yaml:"gateway_binary"` // "peer", or ours
	Gateway       map[string]any `yaml:"gateway"`        // merged over gateway.yaml
	Worker        map[string]any `yaml:"worker"`         // merged over worker.yaml
}

// readRows returns the rows of a directory in the order of its files.
func readRows(dir string) ([]row, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, err
	}
	texts := map[string][]byte{}
	var names []string
	for _, file := range files {
		_, name, ok := strings.Cut(strings.TrimSuffix(filepath.Base(file), ".yaml"), "-")
		if !ok {
			return nil, fmt.Errorf("%s: want a number and a name, as in 10-bare.yaml", file)
		}
		if texts[name] != nil {
			return nil, fmt.Errorf("%s: there is another row %q", file, name)
		}
		if texts[name], err = os.ReadFile(file); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	rows := make([]row, 0, len(names))
	for _, name := range names {
		r, err := parseRow(name, texts)
		if err != nil {
			return nil, fmt.Errorf("row %q: %w", name, err)
		}
		rows = append(rows, r)
	}
	return rows, nil
}

func parseRow(name string, texts map[string][]byte) (row, error) {
	var r row
	decode := func(text []byte) (map[string]any, error) {
		var all map[string]any
		return all, yaml.Unmarshal(text, &all)
	}
	all, err := decode(texts[name])
	if err != nil {
		return r, err
	}
	if base, ok := all["based_on"].(string); ok {
		if texts[base] == nil {
			return r, fmt.Errorf("based_on: there is no row %q", base)
		}
		under, err := decode(texts[base])
		if err != nil {
			return r, err
		}
		if under["based_on"] != nil {
			return r, fmt.Errorf("based_on: %q is itself based on another", base)
		}
		merge(under, all)
		all = under
	}
	merged, err := yaml.Marshal(all)
	if err != nil {
		return r, err
	}
	d := yaml.NewDecoder(bytes.NewReader(merged))
	d.KnownFields(true)
	if err := d.Decode(&r); err != nil {
		return r, err
	}
	r.name = name
	switch {
	case r.Title == "":
		return r, errors.New("title: missing")
	case r.Workers < 1:
		return r, errors.New("workers: want one at least")
	case (r.Gateways > 0) != (r.Gateway != nil):
		return r, errors.New("gateways and gateway: want both or neither")
	case r.GatewayBinary != "" && r.GatewayBinary != "peer":
		return r, fmt.Errorf("gateway_binary: %q: want peer, or nothing", r.GatewayBinary)
	}
	for _, s := range r.Servers {
		if servers[s] == nil {
			return r, fmt.Errorf("servers: unknown %q, want some of %v", s, slices.Sorted(maps.Keys(servers)))
		}
	}
	return r, nil
}

// merge puts over into under: maps key by key, anything else as a whole.
func merge(under, over map[string]any) {
	for key, value := range over {
		if deep, ok := value.(map[string]any); ok {
			if below, ok := under[key].(map[string]any); ok {
				merge(below, deep)
				continue
			}
		}
		under[key] = value
	}
}

// config writes the configuration of a Collector. Its extensions, processors and exporters are all in use.
func config(file, base string, over map[string]any) error {
	text, err := os.ReadFile(base)
	if err != nil {
		return err
	}
	var all map[string]any
	if err := yaml.Unmarshal(text, &all); err != nil {
		return fmt.Errorf("%s: %w", base, err)
	}
	merge(all, over)
	used := func(class string) []string {
		components, _ := all[class].(map[string]any)
		return slices.Sorted(maps.Keys(components))
	}
	merge(all, map[string]any{"service": map[string]any{
		"extensions": used("extensions"),
		"pipelines": map[string]any{"metrics": map[string]any{
			"receivers": used("receivers"), "processors": used("processors"), "exporters": used("exporters"),
		}},
	}})
	if text, err = yaml.Marshal(all); err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o600)
}

// unknown is what a Collector lacks that a row needs.
type unknown struct{ what string }

func (u unknown) Error() string { return "the Collector does not know it: " + u.what }

// validate asks a Collector whether it takes a configuration. The error is unknown if it lacks a component or a key.
func validate(ctx context.Context, binary, file string, env []string) error {
	cmd := exec.CommandContext(ctx, binary, "validate", "--config", file)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	said := strings.TrimSpace(string(out))
	if strings.Contains(said, "unknown type:") || strings.Contains(said, "has invalid keys:") || strings.Contains(said, "there is no such key") {
		return unknown{strings.Join(strings.Fields(said), " ")}
	}
	return fmt.Errorf("%s validate: %w\n%s", binary, err, said)
}
