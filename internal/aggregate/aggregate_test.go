// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package aggregate

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"

	"github.com/deltaring/deltaring/streamid"
)

// gateway is the part of a configuration that this package is for.
type gateway struct {
	RoutingKey        string              `mapstructure:"routing_key"`
	RoutingAttributes []string            `mapstructure:"routing_attributes"`
	Aggregate         []RoutingRuleConfig `mapstructure:"aggregate"`
}

func load(t *testing.T, yaml string) (streamid.Key, error) {
	t.Helper()
	retrieved, err := confmap.NewRetrievedFromYAML([]byte(yaml))
	require.NoError(t, err)
	conf, err := retrieved.AsConf()
	require.NoError(t, err)
	var cfg gateway
	if err := conf.Unmarshal(&cfg); err != nil {
		return streamid.Key{}, err
	}
	return Key(cfg.RoutingKey, cfg.RoutingAttributes, cfg.Aggregate)
}

func TestKey(t *testing.T) {
	for _, tc := range []struct{ yaml, want string }{
		{"{}", ""},
		{"routing_key: streamID", "streamID"},
		{"{routing_key: streamID, aggregate: []}", "streamID"},
		{"{routing_key: attributes, routing_attributes: [b, a]}", `attributes ["b" "a"]`},
		{"{routing_key: aggregate, aggregate: [{metrics: [b, 'a*'], drop: {resource: [pod, host]}}]}", `aggregate [{["a*" "b"] drop resource ["host" "pod"]}]`},
		{"{routing_key: aggregate, aggregate: [{metrics: ['*'], keep: {resource: []}}]}", `aggregate [{["*"] keep resource []}]`},
		{"{routing_key: aggregate, aggregate: [{metrics: ['*'], drop: {scope: []}, keep: {scope: [a], attributes: []}}]}",
			`aggregate [{["*"] keep scope ["a"], keep attributes []}]`},
		{`
routing_key: aggregate
aggregate:
  - metrics: [http.server.*]
    drop: {resource: [service.instance.id], attributes: [user]}
    keep: {scope: []}
    keep_input: true
    interval: 15s
    max_writers: 1000
  - {metrics: ["*"], drop: {resource: [k8s.pod.name]}, interval: anything, max_writers: [of, any], keep_input: {kind: 1}}
`, `aggregate [{["http.server.*"] drop resource ["service.instance.id"], keep scope [], drop attributes ["user"]} {["*"] drop resource ["k8s.pod.name"]}]`},
	} {
		key, err := load(t, tc.yaml)
		require.NoError(t, err, tc.yaml)
		assert.Equal(t, tc.want, key.String())
	}
}

func TestBadListsNameTheKey(t *testing.T) {
	rules := func(list string) string { return "{routing_key: aggregate, aggregate: " + list + "}" }
	for _, tc := range []struct{ yaml, want string }{
		{"routing_key: name", `^routing_key: .*unknown routing key "name", want one of .*aggregate`},
		{"{routing_key: service, routing_attributes: [a]}", "^routing_key, routing_attributes: .*takes no attributes"},
		{"routing_key: aggregate", "^aggregate: must have the rules of routing_key: aggregate, .*set routing_key: streamID$"},
		{rules("[]"), "^aggregate: must have the rules"},
		{rules("null"), "^aggregate: must have the rules"},
		{"{routing_key: streamID, aggregate: [{metrics: [a], drop: {resource: [b]}}]}", "^aggregate: only goes with routing_key: aggregate; set that, or"},
		{"{aggregate: [{metrics: [a], drop: {resource: [b]}}]}", "^aggregate: only goes with routing_key: aggregate"},
		{"{routing_key: aggregate, routing_attributes: [a], aggregate: [{metrics: [a], drop: {resource: [b]}}]}", "^routing_attributes: does not go with"},
		{rules("{metrics: [a]}"), "aggregate"},
		{rules("[http.*]"), "aggregate"},
		{rules("[{}]"), `^aggregate::0::metrics: must name one at least; "\*" is all$`},
		{rules("[{metrics: [a], drop: {resource: [b]}}, {drop: {resource: [b]}}]"), "^aggregate::1::metrics: must name one"},
		{rules("[{metrics: [a, ''], drop: {resource: [b]}}]"), "^aggregate::0::metrics::1: must not be empty"},
		{rules("[{metrics: [a, b, a], drop: {resource: [b]}}]"), `^aggregate::0::metrics::2: "a" is listed twice`},
		{rules("[{metrics: [http.*], drop: {resource: [b]}}, {metrics: [x, http.server.*], drop: {resource: [b]}}]"),
			`^aggregate::1::metrics::1: "http.server.\*" is never reached: rule 0 comes first and matches all of it; move this rule up or remove it`},
		{rules("[{metrics: [a]}]"), "^aggregate::0: leaves nothing out; name resource, scope or attributes under drop or keep"},
		{rules("[{metrics: [a], drop: {}, keep: {}}]"), "^aggregate::0: leaves nothing out"},
		{rules("[{metrics: [a], drop: {resource: []}}]"), "^aggregate::0: leaves nothing out"},
		{rules("[{metrics: [a], drop: null}]"), "^aggregate::0: leaves nothing out"},
		{rules("[{metrics: [a], drop: {resource: [b, '']}}]"), "^aggregate::0::drop::resource::1: must not be empty"},
		{rules("[{metrics: [a], drop: {resource: ['k8s.*']}}]"), "^aggregate::0::drop::resource::0: \"k8s.*\" is no pattern here"},
		{rules("[{metrics: [a], keep: {scope: [b, b]}}]"), `^aggregate::0::keep::scope::1: "b" is listed twice`},
		{rules("[{metrics: [a], drop: {attributes: [b]}, keep: {attributes: []}}]"),
			"^aggregate::0::drop::attributes: keep::attributes is set as well; set only one, for what is not kept is dropped"},
		{rules("[{metrics: [a], drop: {resource: [b]}, every: 15s}]"), "every"},
		{rules("[{metrics: [a], drop: {point: [b]}}]"), "point"},
		{rules("[{metrics: [a], drop: [b]}]"), "drop"},
		{rules("[{metrics: [a], drop: {resource: {b: c}}}]"), "resource"},
	} {
		_, err := load(t, tc.yaml)
		if assert.Error(t, err, tc.yaml) {
			assert.Regexp(t, tc.want, err.Error())
		}
	}
}

func TestRules(t *testing.T) {
	rules, err := Rules([]RuleConfig{{Metrics: []string{"a"}, Keep: &AttributesConfig{Attributes: []string{}}}})
	require.NoError(t, err)
	assert.Equal(t, 1, rules.Len())
	assert.Equal(t, 0, rules.Find("a"))
	none, err := Rules(nil)
	require.NoError(t, err)
	assert.Zero(t, none.Len())
	_, err = Rules([]RuleConfig{{Metrics: []string{"a"}, Keep: &AttributesConfig{Attributes: []string{"b", ""}}}})
	assert.EqualError(t, err, "0::keep::attributes::1: must not be empty")
}

func TestConfigIsComplete(t *testing.T) {
	assert.NoError(t, componenttest.CheckConfigStruct(&RoutingRuleConfig{}))
	assert.NoError(t, componenttest.CheckConfigStruct(&AttributesConfig{}))
}
