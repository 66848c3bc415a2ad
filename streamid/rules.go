// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid

import (
	"fmt"
	"slices"
	"strings"
)

// Rule says how to reduce the metrics whose names match one of its patterns.
type Rule struct {
	// Metrics are patterns of names, in which * matches anything and ? any one byte.
	Metrics []string
	// Resource, Scope and Point select the attributes that stay.
	Resource, Scope, Point Selection
}

// Rules say which metrics are reduced, and how. The zero value reduces none. Rules are made by NewRules and do not change.
type Rules struct {
	patterns   [][]string // sorted
	reductions []*Reduction
}

// NewRules returns the Rules for a list, in which the first matching rule applies. An error names the rule by its index,
// from 0.
func NewRules(list []Rule) (*Rules, error) {
	rules := new(Rules)
	for i := range list {
		r := &list[i]
		if len(r.Metrics) == 0 {
			return nil, fmt.Errorf("streamid: rule %d: metrics: name at least one, \"*\" is all", i)
		}
		if slices.Contains(r.Metrics, "") {
			return nil, fmt.Errorf("streamid: rule %d: metrics: no metric has an empty name", i)
		}
		reduction, err := newReduction(r.Resource, r.Scope, r.Point)
		if err != nil {
			return nil, fmt.Errorf("streamid: rule %d: %w", i, err)
		}
		for _, p := range r.Metrics {
			for before, patterns := range rules.patterns {
				if CoversAny(patterns, p) {
					return nil, fmt.Errorf("streamid: rule %d: metrics: %.60q is never reached, rule %d takes all that it matches", i, p, before)
				}
			}
		}
		rules.patterns = append(rules.patterns, slices.Sorted(slices.Values(r.Metrics)))
		rules.reductions = append(rules.reductions, reduction)
	}
	return rules, nil
}

// Len is the number of rules.
func (r *Rules) Len() int { return len(r.reductions) }

// Find returns the index of the first rule that matches a metric's name, or -1.
func (r *Rules) Find(name string) int {
	for i, patterns := range r.patterns {
		if MatchAny(patterns, name) {
			return i
		}
	}
	return -1
}

// Key returns the routing key "aggregate". For metrics that a rule matches, it is the identity of the remaining stream, so
// that all its writers have one owner. For other metrics it is the identity of the stream, as with the key "streamID".
func (r *Rules) Key() Key { return Key{kind: keyAggregate, rules: r} }

// String returns the rules in their order, with sorted patterns and names: what says the same reads the same.
func (r *Rules) String() string {
	var b strings.Builder
	b.WriteByte('[')
	for i, patterns := range r.patterns {
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "{%q %v}", patterns, r.reductions[i])
	}
	b.WriteByte(']')
	return b.String()
}

// At returns the Reduction of a rule.
func (r *Rules) At(i int) *Reduction { return r.reductions[i] }

// MatchAny reports whether one of the patterns matches a name; * matches anything and ? any one byte.
func MatchAny(patterns []string, name string) bool {
	for _, pattern := range patterns {
		if match(pattern, name, false) {
			return true
		}
	}
	return false
}

// CoversAny reports whether one of the patterns matches every name that another pattern matches, so that the other is never
// reached after it. It may miss cases with adjacent ? and *, but a positive result is always correct.
func CoversAny(patterns []string, other string) bool {
	for _, pattern := range patterns {
		if match(pattern, other, true) {
			return true
		}
	}
	return false
}

// match reports whether a pattern matches a name. Where that is a pattern too its * is only matched by another.
func match(pattern, name string, isPattern bool) bool {
	star, again := -1, 0 // the latest * and what of name it was not yet tried on
	p, n := 0, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, again = p, n
			p++
		case p < len(pattern) && (pattern[p] == '?' && !(isPattern && name[n] == '*') || pattern[p] == name[n]):
			p++
			n++
		case star >= 0:
			again++
			p, n = star+1, again
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
