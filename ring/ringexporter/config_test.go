// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/exporter/exportertest"

	"github.com/deltaring/deltaring/ring/ringexporter/internal/metadata"
)

const anyResolver = "resolver: {static: {hostnames: [worker]}}"

func TestDefaultsKeepOrder(t *testing.T) {
	cfg, err := load(t, "{sending_queue: {queue_size: 5000}, "+anyResolver+"}")
	require.NoError(t, err)
	assert.Equal(t, 1, cfg.QueueConfig.Get().NumConsumers)
	assert.Equal(t, 1, cfg.Protocol.OTLP.QueueConfig.Get().NumConsumers)
	assert.True(t, cfg.RetryConfig.Enabled)

	cfg, err = load(t, anyResolver)
	require.NoError(t, err)
	assert.False(t, cfg.QueueConfig.HasValue(), "no queue before splitting")
}

// TestLoadBalancingConfig loads what users of load_balancing have, from its README.
func TestLoadBalancingConfig(t *testing.T) {
	cfg, err := load(t, `
routing_key: attributes
routing_attributes: [service.name, cloud.region]
timeout: 10s
retry_on_failure: {enabled: true, initial_interval: 5s, max_interval: 30s, max_elapsed_time: 300s}
sending_queue: {enabled: true, num_consumers: 2, queue_size: 1000}
protocol:
  otlp:
    timeout: 1s
    tls: {insecure: true}
    sending_queue: {enabled: false}
resolver:
  static:
    hostnames: [backend-1:4317, backend-2:4317, backend-3, "::1", "[fd00::2]:55690"]`)
	require.NoError(t, err)
	assert.Equal(t, time.Second, cfg.Protocol.OTLP.TimeoutConfig.Timeout)
	assert.Equal(t, 2, cfg.QueueConfig.Get().NumConsumers)
	assert.False(t, cfg.Protocol.OTLP.QueueConfig.HasValue())
	list, err := cfg.Resolver.Static.Get().members()
	require.NoError(t, err)
	var addresses []string
	for _, e := range list {
		assert.Equal(t, e.Name, e.Address)
		assert.EqualValues(t, 1, e.Weight)
		addresses = append(addresses, e.Address)
	}
	assert.Equal(t, []string{"backend-1:4317", "backend-2:4317", "backend-3:4317", "[::1]:4317", "[fd00::2]:55690"}, addresses)

	cfg, err = load(t, "resolver: {dns: {hostname: workers, port: '4318', interval: 10s, timeout: 2s}}")
	require.NoError(t, err)
	assert.Equal(t, 5*time.Second, cfg.Resolver.DNS.Get().Debounce)
	assert.Equal(t, 1000, cfg.Resolver.DNS.Get().MaxMembers)
}

func TestMembers(t *testing.T) {
	cfg, err := load(t, `
resolver:
  static:
    members:
      - {name: a, endpoint: 10.0.0.1, weight: 3, zone: z1}
      - {endpoint: "10.0.0.2:4318"}
      - {name: c, endpoint: 10.0.0.3, weight: 0}`)
	require.NoError(t, err)
	list, err := cfg.Resolver.Static.Get().members()
	require.NoError(t, err)
	require.Len(t, list, 3)
	assert.Equal(t, "a", list[0].Name)
	assert.Equal(t, "10.0.0.1:4317", list[0].Address)
	assert.EqualValues(t, 3, list[0].Weight)
	assert.Equal(t, "z1", list[0].Zone)
	assert.Equal(t, "10.0.0.2:4318", list[1].Name)
	assert.EqualValues(t, 1, list[1].Weight)
	assert.Zero(t, list[2].Weight)
}

func TestBadConfigsNameTheKey(t *testing.T) {
	static := func(s string) string { return "resolver: {static: {" + s + "}}" }
	dns := func(s string) string { return "resolver: {dns: {" + s + "}}" }
	for _, tc := range []struct{ yaml, want string }{
		{"routing_key: name, " + anyResolver, `routing_key: .*"name"`},
		{"routing_key: attributes, " + anyResolver, "routing_key: .*at least one attribute"},
		{"routing_attributes: [a], " + anyResolver, "routing_attributes: .*takes no attributes"},
		{"routing_key: service, routing_attributes: [a], " + anyResolver, "routing_attributes: .*takes no attributes"},
		{"routing_key: attributes, routing_attributes: [a, ''], " + anyResolver, "routing_attributes: .*no name"},
		{"routing_key: aggregate, " + anyResolver, "^aggregate: must have the rules of routing_key: aggregate"},
		{"routing_key: aggregate, aggregate: [], " + anyResolver, "^aggregate: must have the rules of routing_key: aggregate"},
		{"aggregate: [{metrics: [a], drop: {resource: [pod]}}], " + anyResolver, "^aggregate: only goes with routing_key: aggregate"},
		{"routing_key: streamID, aggregate: [{metrics: [a], drop: {resource: [pod]}}], " + anyResolver, "^aggregate: only goes with"},
		{"routing_key: aggregate, aggregate: [{metrics: [a], drop: {resource: [pod, pod]}}], " + anyResolver, `^aggregate::0::drop::resource::1: "pod" is listed twice`},
		{"routing_key: aggregate, aggregate: [{metrics: [a], drop: {pod: []}}], " + anyResolver, "aggregate.*pod"},
		{"routing_key: aggregate, aggregate: [{metrics: [a], without: {resource: [pod]}}], " + anyResolver, "aggregate.*without"},
		{"{}", "resolver: set one of"},
		{"resolver: {static: {hostnames: [a]}, dns: {hostname: b}}", "resolver: set only one of"},
		{dns("hostname: w, enabled: false"), "^resolver: set one of"}, // as one turns off what a configuration below has
		{"resolver: {consul: {service: workers}}", "resolver.*\n*.*consul"},
		{static("hostnames: []"), "resolver::static: .*no members"},
		{static("hostnames: [a, 'a:4317']"), `resolver::static: .*"a:4317"`},
		{static("hostnames: [a, '']"), "resolver::static::hostnames::1: must be set"},
		{static("hostnames: ['a:b']"), `resolver::static::hostnames::0: .*port "b"`},
		{static("hostnames: ['a:0']"), `resolver::static::hostnames::0: .*port "0"`},
		{static("hostnames: ['a:65536']"), `resolver::static::hostnames::0: .*port "65536"`},
		{static("hostnames: [':4317']"), `resolver::static::hostnames::0: .*no host`},
		{static("members: [{name: a}]"), "resolver::static::members::0::endpoint: must be set"},
		{static("members: [{name: a, endpoint: x}, {name: a, endpoint: y}]"), `resolver::static: .*"a"`},
		{static("members: [{name: a, endpoint: x, weight: 0}]"), "resolver::static: .*weight"},
		{static("members: [{name: a, endpoint: x, weight: -1}]"), "weight"},
		{static("members: [{name: a, endpoint: x, weight: 4294967296}]"), "weight"},
		{dns("port: '1'"), "resolver::dns::hostname: must be set"},
		{dns("hostname: w, port: otlp"), `resolver::dns::port: port "otlp"`},
		{dns("hostname: w, port: '1', srv: true"), "resolver::dns::port: SRV"},
		{dns("hostname: w, interval: 0s"), "resolver::dns::interval: must be positive"},
		{dns("hostname: w, interval: often"), "interval"},
		{dns("hostname: w, timeout: -1s"), "resolver::dns::timeout: must be positive"},
		{dns("hostname: w, debounce: -1s"), "resolver::dns::debounce: must not be negative"},
		{dns("hostname: w, interval: 5"), "resolver::dns::interval: must be a millisecond at least, got 5ns; is there a unit missing"},
		{dns("hostname: w, interval: 99ms"), "resolver::dns::interval: must be 100ms at least"},
		{dns("hostname: w, timeout: 1"), "resolver::dns::timeout: .*is there a unit missing"},
		{dns("hostname: w, timeout: 99ms"), "resolver::dns::timeout: must be 100ms at least"},
		{dns("hostname: w, debounce: 5"), "resolver::dns::debounce: .*is there a unit missing"},
		{"timeout: 5, " + anyResolver, "^timeout: .*is there a unit missing"},
		{"retry_on_failure: {initial_interval: 5}, " + anyResolver, "^retry_on_failure::initial_interval: .*is there a unit missing"},
		{"retry_on_failure: {max_interval: 30}, " + anyResolver, "retry_on_failure::max_interval: .*is there a unit missing"},
		{"retry_on_failure: {max_elapsed_time: 300}, " + anyResolver, "retry_on_failure::max_elapsed_time: .*is there a unit missing"},
		{"sending_queue: {batch: {flush_timeout: 1}}, " + anyResolver, "^sending_queue::batch::flush_timeout: .*is there a unit missing"},
		{"protocol: {otlp: {timeout: 5}}, " + anyResolver, "protocol::otlp::timeout: .*is there a unit missing"},
		{"protocol: {otlp: {retry_on_failure: {initial_interval: 5}}}, " + anyResolver, "protocol::otlp::retry_on_failure::initial_interval: .*unit missing"},
		{"protocol: {otlp: {retry_on_failure: {max_interval: 5}}}, " + anyResolver, "protocol::otlp::retry_on_failure::max_interval: .*unit missing"},
		{"protocol: {otlp: {retry_on_failure: {max_elapsed_time: 5}}}, " + anyResolver, "protocol::otlp::retry_on_failure::max_elapsed_time: .*unit missing"},
		{"protocol: {otlp: {sending_queue: {batch: {flush_timeout: 1}}}}, " + anyResolver, "protocol::otlp::sending_queue::batch::flush_timeout: .*unit missing"},
		{"protocol: {otlp: {keepalive: {time: 30}}}, " + anyResolver, "protocol::otlp::keepalive::time: .*unit missing"},
		{"protocol: {otlp: {keepalive: {timeout: 30}}}, " + anyResolver, "protocol::otlp::keepalive::timeout: .*unit missing"},
		{"protocol: {otlp: {tls: {reload_interval: 60}}}, " + anyResolver, "protocol::otlp::tls::reload_interval: .*unit missing"},
		{dns("hostname: w, max_members: 0"), "resolver::dns::max_members: must be"},
		{dns("hostname: w, max_members: 65537"), "resolver::dns::max_members: must be"},
		{dns("hostname: w, server: 'a:b'"), "resolver::dns::server: "},
		{"protocol: {otlp: {sending_queue: {storage: file_storage}}}, " + anyResolver, "protocol::otlp::sending_queue::storage: "},
		{"protocol: {otlp: {sending_queue: {num_consumers: 0}}}, " + anyResolver, "protocol::otlp::sending_queue: .*num_consumers"},
		{"sending_queue: {num_consumers: 0}, " + anyResolver, "sending_queue: .*num_consumers"},
		{"protocol: {otlp: {headers: {X-Deltaring-Epoch: '1'}}}, " + anyResolver, "protocol::otlp::headers::X-Deltaring-Epoch: "},
		{"metadata_keys: [x-tenant, ''], " + anyResolver, "metadata_keys::1: must not be empty"},
		{"metadata_keys: [x-tenant, X-Tenant], " + anyResolver, `metadata_keys::1: "X-Tenant" is listed twice`},
		{"metadata_keys: [X-Deltaring-Epoch], " + anyResolver, `metadata_keys::0: "X-Deltaring-Epoch"`},
		{"metadata_keys: ['x tenant'], " + anyResolver, `metadata_keys::0: "x tenant": no header has such a name`},
		{"metadata_keys: ['größe'], " + anyResolver, `metadata_keys::0: "größe": no header has such a name`},
		{"metadata_keys: [a, User-Agent], " + anyResolver, `metadata_keys::1: "User-Agent": gRPC has that for itself`},
		{"metadata_keys: [grpc-timeout], " + anyResolver, `metadata_keys::0: "grpc-timeout": gRPC has that for itself`},
		{"metadata_keys: [x-tenant], protocol: {otlp: {headers: {X-Tenant: a}}}, " + anyResolver, "protocol::otlp::headers::X-Tenant: .*metadata_keys"},
		{"seed: -1, " + anyResolver, "seed"},
		{"routing: service, " + anyResolver, "routing: there is no such key; did you mean routing_key"},
		{"routing_key: streamid, " + anyResolver, `^routing_key: unknown routing key "streamid", did you mean "streamID"`},
		{"routing_key: trace_id, " + anyResolver, `^routing_key: unknown routing key "trace_id", did you mean "traceID"`},
		{"loadbalancing/a: {}, " + anyResolver, "loadbalancing/a: .*directly below this exporter"},
		{"resolver: {kubernetes: {service: w}}", "resolver::kubernetes: .*did you mean resolver::k8s"},
		{"resolver: {aws_cloudmap: {}}", "resolver::aws_cloudmap: .*did you mean resolver::aws_cloud_map"},
		{"resolver: {consul: {}}", "resolver::consul: .*there are aws_cloud_map, dns, k8s, static"},
		{"resolver: {k8s: {service: w, port: 4317}}", "resolver::k8s::port: .*did you mean resolver::k8s::ports"},
		{"resolver: {hostnames: [a]}", "resolver::hostnames: .*did you mean resolver::static::hostnames"},
		{"endpoint: a, " + anyResolver, "endpoint: .*resolver::static::hostnames"},
		{"srv: true, " + anyResolver, "srv: .*did you mean resolver::dns::srv"},
		{"metadata_key: [a], " + anyResolver, "metadata_key: .*did you mean metadata_keys"},
		{"groups: 64, " + anyResolver, `^groups: only goes with routing_key: streamID or aggregate.*got routing_key: ""`},
		{"groups: 64, routing_key: resource, " + anyResolver, "^groups: only goes with routing_key: streamID or aggregate"},
		{"groups: 8, routing_key: streamID, " + anyResolver, "^groups: must be a power of two from 16 to 256, .*got 8"},
		{"groups: 512, routing_key: streamID, " + anyResolver, "^groups: must be a power of two from 16 to 256, .*got 512"},
		{"groups: 48, routing_key: streamID, " + anyResolver, "^groups: must be a power of two from 16 to 256, .*got 48"},
		{"groups: -64, routing_key: streamID, " + anyResolver, "^groups: must be a power of two from 16 to 256, .*got -64"},
		{"groups: 16, routing_key: streamID, resolver: {static: {hostnames: [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q]}}",
			"^groups: 16 are too few for 17 members"},
	} {
		t.Run(tc.yaml, func(t *testing.T) {
			yaml := tc.yaml
			if yaml != "{}" {
				yaml = "{" + yaml + "}"
			}
			_, err := load(t, yaml)
			require.Error(t, err)
			assert.Regexp(t, tc.want, err.Error())
		})
	}
}

// TestKeyMustFitTheSignal is seen when the exporter is made, as only then the signal is known.
func TestKeyMustFitTheSignal(t *testing.T) {
	for key, signals := range map[string][3]bool{ // metrics, traces, logs
		"streamID": {true, false, false}, "metric": {true, false, false}, "traceID": {false, true, true},
		"resource": {true, true, true}, "service": {true, true, true}, "": {true, true, true},
	} {
		cfg, err := load(t, "{routing_key: '"+key+"', "+anyResolver+"}")
		require.NoError(t, err)
		set, f := exportertest.NewNopSettings(metadata.Type), NewFactory()
		_, m := f.CreateMetrics(t.Context(), set, cfg)
		_, tr := f.CreateTraces(t.Context(), set, cfg)
		_, l := f.CreateLogs(t.Context(), set, cfg)
		for i, err := range []error{m, tr, l} {
			if signals[i] {
				assert.NoError(t, err, key)
			} else {
				assert.ErrorContains(t, err, "routing_key: ", key)
			}
		}
	}
}

// TestAggregateGoesWithMetrics alone, with the list of the processor d2c as it is there.
func TestAggregateGoesWithMetrics(t *testing.T) {
	cfg, err := load(t, `
routing_key: aggregate
aggregate:
  - {metrics: [http.*], drop: {resource: [pod]}, keep_input: true, interval: 15s, max_writers: 1000}
  - {metrics: ["*"], keep: {attributes: []}}
`+anyResolver)
	require.NoError(t, err)
	set, f := exportertest.NewNopSettings(metadata.Type), NewFactory()
	_, err = f.CreateMetrics(t.Context(), set, cfg)
	assert.NoError(t, err)
	_, err = f.CreateTraces(t.Context(), set, cfg)
	assert.ErrorContains(t, err, `routing_key: routing key "aggregate" does not go with traces`)
	_, err = f.CreateLogs(t.Context(), set, cfg)
	assert.ErrorContains(t, err, `routing_key: routing key "aggregate" does not go with logs`)
}

func TestDefaultConfigIsComplete(t *testing.T) {
	assert.NoError(t, componenttest.CheckConfigStruct(createDefaultConfig()))
}
