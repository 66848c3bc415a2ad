// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package aggregate has the list of rules by which the processor d2c makes one stream of many, as its configuration has it. Whoever
// routes in front of the processor takes the same list, for all that is added up must come to one place.
package aggregate

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/deltaring/deltaring/streamid"
)

// RuleConfig says what is left out of metrics, for which the first rule that matches counts.
type RuleConfig struct {
	// Metrics are names of metrics: * is anything and ? any one byte.
	Metrics []string `mapstructure:"metrics"`

	// Drop are attributes that are left out.
	Drop *AttributesConfig `mapstructure:"drop"`

	// Keep are attributes that stay, where all others are left out. An empty list keeps nothing.
	Keep *AttributesConfig `mapstructure:"keep"`

	// prevent unkeyed literal initialization
	_ struct{}
}

// AttributesConfig names attributes. A list that is missing leaves its part of the stream alone.
type AttributesConfig struct {
	Resource   []string `mapstructure:"resource"`
	Scope      []string `mapstructure:"scope"`
	Attributes []string `mapstructure:"attributes"` // of data points

	// prevent unkeyed literal initialization
	_ struct{}
}

// RoutingRuleConfig is a rule as those have it that route in front of the processor. What it says of how to add up has no influence on
// where data goes. It is accepted all the same, and not looked at, so that one list can stand in both places.
type RoutingRuleConfig struct {
	RuleConfig `mapstructure:",squash"`

	KeepInput  any `mapstructure:"keep_input"`
	Interval   any `mapstructure:"interval"`
	MaxWriters any `mapstructure:"max_writers"`

	// prevent unkeyed literal initialization
	_ struct{}
}

// Rules returns the rules of a list. An error begins with the key of what cannot be, in the list: "0::drop::resource: ...".
func Rules(list []RuleConfig) (*streamid.Rules, error) {
	rules := make([]streamid.Rule, len(list))
	for i := range list {
		if err := checkMetrics(list, i); err != nil {
			return nil, fmt.Errorf("%d::metrics%w", i, err)
		}
		var err error
		if rules[i], err = list[i].rule(); err != nil {
			return nil, fmt.Errorf("%d%w", i, err)
		}
	}
	return streamid.NewRules(rules)
}

func checkMetrics(list []RuleConfig, i int) error {
	metrics := list[i].Metrics
	if len(metrics) == 0 {
		return errors.New(`: must name one at least; "*" is all`)
	}
	for j, pattern := range metrics {
		if pattern == "" {
			return fmt.Errorf("::%d: must not be empty", j)
		}
		if slices.Contains(metrics[:j], pattern) {
			return fmt.Errorf("::%d: %.60q is listed twice", j, pattern)
		}
		for before := range i {
			if streamid.CoversAny(list[before].Metrics, pattern) {
				return fmt.Errorf("::%d: %.60q is never reached: rule %d comes first and matches all of it; move this rule up or remove it",
					j, pattern, before)
			}
		}
	}
	return nil
}

func (c *RuleConfig) rule() (streamid.Rule, error) {
	rule := streamid.Rule{Metrics: c.Metrics}
	none := AttributesConfig{}
	drop, keep := &none, &none
	if c.Drop != nil {
		drop = c.Drop
	}
	if c.Keep != nil {
		keep = c.Keep
	}
	takes := false
	for _, part := range []struct {
		key        string
		drop, keep []string
		to         *streamid.Selection
	}{
		{"resource", drop.Resource, keep.Resource, &rule.Resource},
		{"scope", drop.Scope, keep.Scope, &rule.Scope},
		{"attributes", drop.Attributes, keep.Attributes, &rule.Point},
	} {
		if len(part.drop) > 0 && part.keep != nil {
			return rule, fmt.Errorf("::drop::%s: keep::%s is set as well; set only one, for what is not kept is dropped", part.key, part.key)
		}
		for _, list := range []struct {
			key   string
			names []string
		}{{"drop", part.drop}, {"keep", part.keep}} {
			for j, name := range list.names {
				if name == "" {
					return rule, fmt.Errorf("::%s::%s::%d: must not be empty", list.key, part.key, j)
				}
				if strings.ContainsAny(name, "*?") {
					return rule, fmt.Errorf("::%s::%s::%d: %.60q is no pattern here: write each name as it is", list.key, part.key, j, name)
				}
				if slices.Contains(list.names[:j], name) {
					return rule, fmt.Errorf("::%s::%s::%d: %.60q is listed twice", list.key, part.key, j, name)
				}
			}
		}
		*part.to = streamid.Selection{Drop: part.drop, Keep: part.keep}
		takes = takes || len(part.drop) > 0 || part.keep != nil
	}
	if !takes {
		return rule, errors.New(": leaves nothing out; name resource, scope or attributes under drop or keep")
	}
	return rule, nil
}

// Selections returns the rule as package streamid has it. It is for rules that are valid.
func (c *RuleConfig) Selections() streamid.Rule {
	rule, _ := c.rule()
	return rule
}

// Key returns the key that is configured by routing_key, routing_attributes and aggregate. An error begins with those of these keys that
// are to blame.
func Key(name string, attributes []string, list []RoutingRuleConfig) (streamid.Key, error) {
	if name != keyName {
		if len(list) > 0 {
			return streamid.Key{}, fmt.Errorf("aggregate: only goes with routing_key: %s; set that, or remove the list", keyName)
		}
		key, err := streamid.ParseKey(name, attributes)
		switch {
		case err == nil:
			return key, nil
		case len(attributes) > 0:
			return key, fmt.Errorf("routing_key, routing_attributes: %w", err)
		}
		return key, fmt.Errorf("routing_key: %w", err)
	}
	switch {
	case len(attributes) > 0:
		return streamid.Key{}, fmt.Errorf("routing_attributes: does not go with routing_key: %s; the attributes are in the list aggregate", keyName)
	case len(list) == 0:
		return streamid.Key{}, fmt.Errorf("aggregate: must have the rules of routing_key: %s, the list of the processor d2c; without rules, "+
			"set routing_key: streamID", keyName)
	}
	configs := make([]RuleConfig, len(list))
	for i := range list {
		configs[i] = list[i].RuleConfig
	}
	rules, err := Rules(configs)
	if err != nil {
		return streamid.Key{}, fmt.Errorf("aggregate::%w", err)
	}
	return rules.Key(), nil
}

// keyName is the routing key that is made of rules.
const keyName = "aggregate"
