// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/deltaring/deltaring/ring"
)

// maxMembers is what a ring takes at most.
const maxMembers = 65536

// parseFleet reads what -from and -to say: a number of members, a list of name[:weight[:zone]], or the name of a YAML or
// JSON file. Members by number are worker-0, worker-1 and so on, so that 3 has those of 2 and one more.
func parseFleet(spec string) ([]ring.Member, error) {
	if spec == "" {
		return nil, errors.New("no members: want a number, a list or a file")
	}
	if n, err := strconv.Atoi(spec); err == nil {
		if n < 1 || n > maxMembers {
			return nil, fmt.Errorf("%d members: want 1 to %d", n, maxMembers)
		}
		return numbered(n), nil
	}
	var members []ring.Member
	var err error
	switch filepath.Ext(spec) {
	case ".yaml", ".yml", ".json":
		members, err = readFleet(spec)
	default:
		members, err = parseMembers(spec)
	}
	if err != nil {
		return nil, err
	}
	// The ring knows best what it does not take; its errors name the offender.
	if _, err := ring.New(members); err != nil {
		return nil, err
	}
	return members, nil
}

func numbered(n int) []ring.Member {
	members := make([]ring.Member, n)
	for i := range members {
		members[i] = ring.Member{Name: fmt.Sprintf("worker-%d", i), Weight: 1}
	}
	return members
}

func parseMembers(list string) ([]ring.Member, error) {
	var members []ring.Member
	for word := range strings.SplitSeq(list, ",") {
		fields := strings.Split(word, ":")
		if len(fields) > 3 {
			return nil, fmt.Errorf("member %q: want name[:weight[:zone]]; names with colons can be given in a file", word)
		}
		m := ring.Member{Name: fields[0], Weight: 1}
		if len(fields) > 1 {
			w, err := strconv.ParseUint(fields[1], 10, 32)
			if err != nil {
				return nil, fmt.Errorf("member %q: weight %q: want a number from 0 to %d", word, fields[1], uint32(1<<32-1))
			}
			m.Weight = uint32(w)
		}
		if len(fields) > 2 {
			m.Zone = fields[2]
		}
		members = append(members, m)
	}
	return members, nil
}

// readFleet reads a list of members from a YAML file. JSON is YAML too.
func readFleet(path string) ([]ring.Member, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var list []struct {
		Name   string
		Weight *uint32 // 1 if not given
		Zone   string
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&list); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: want a list of members with name, weight and zone: %w", path, err)
	}
	members := make([]ring.Member, len(list))
	for i, m := range list {
		members[i] = ring.Member{Name: m.Name, Weight: 1, Zone: m.Zone}
		if m.Weight != nil {
			members[i].Weight = *m.Weight
		}
	}
	return members, nil
}

// routable returns the members that can own something.
func routable(members []ring.Member) []ring.Member {
	var able []ring.Member
	for _, m := range members {
		if m.Weight > 0 {
			able = append(able, m)
		}
	}
	return able
}

// shares returns which part of everything each member should own, by name.
func shares(members []ring.Member) map[string]float64 {
	var sum float64
	for _, m := range members {
		sum += float64(m.Weight)
	}
	part := make(map[string]float64, len(members))
	for _, m := range members {
		part[m.Name] = float64(m.Weight) / sum
	}
	return part
}

// leastMoved returns the part of everything that must move from one fleet to another if both are in balance: what
// members gain.
func leastMoved(from, to []ring.Member) float64 {
	before, least := shares(from), 0.0
	for name, after := range shares(to) {
		least += max(0, after-before[name])
	}
	return least
}
