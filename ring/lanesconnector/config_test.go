// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package lanesconnector

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/connector/connectortest"
	"go.opentelemetry.io/collector/consumer/consumertest"

	"github.com/deltaring/deltaring/ring/lanesconnector/internal/metadata"
)

func TestDefaults(t *testing.T) {
	cfg, err := load(t, "{}")
	require.NoError(t, err)
	assert.Equal(t, 16, cfg.Lanes)
	assert.False(t, cfg.QueueConfig.HasValue(), "acknowledged is at the backend")
	assert.True(t, cfg.RetryConfig.Enabled)
	assert.Zero(t, cfg.RetryConfig.MaxElapsedTime)

	cfg, err = load(t, "{sending_queue: {queue_size: 5000}}")
	require.NoError(t, err)
	q := cfg.QueueConfig.Get()
	assert.Equal(t, 1, q.NumConsumers)
	assert.True(t, q.BlockOnOverflow)
	require.True(t, q.Batch.HasValue())
	assert.Equal(t, 100*time.Millisecond, q.Batch.Get().FlushTimeout)
	assert.Zero(t, q.Batch.Get().MaxSize)

	assert.NoError(t, componenttest.CheckConfigStruct(createDefaultConfig()))
}

func TestBadConfigsNameTheKey(t *testing.T) {
	for _, tc := range []struct{ yaml, want string }{
		{"lanes: 0", "lanes: must be 1 to 1024, got 0"},
		{"lanes: -1", "lanes: must be 1 to 1024, got -1"},
		{"lanes: 1000000000", "lanes: must be 1 to 1024, got 1000000000"},
		{"lanes: many", "lanes"},
		{"lane: 4", "lane: there is no such key; did you mean lanes"},
		{"storage: file_storage", "storage: .*did you mean sending_queue::storage"},
		{"routing_key: name", `routing_key: .*"name"`},
		{"routing_key: attributes", "routing_key: .*at least one attribute"},
		{"routing_attributes: [a]", "routing_key, routing_attributes: .*takes no attributes"},
		{"routing_key: aggregate", "^aggregate: must have the rules of routing_key: aggregate"},
		{"aggregate: [{metrics: [a], drop: {resource: [pod]}}]", "^aggregate: only goes with routing_key: aggregate"},
		{"routing_key: resource, aggregate: [{metrics: [a], drop: {resource: [pod]}}]", "^aggregate: only goes with routing_key: aggregate"},
		{"routing_key: aggregate, routing_attributes: [a], aggregate: [{metrics: [a], drop: {resource: [pod]}}]", "^routing_attributes: does not go"},
		{"routing_key: aggregate, aggregate: [{metrics: [a], drop: {resource: [pod]}, keep: {resource: []}}]", "^aggregate::0::drop::resource: keep::resource is set as well"},
		{"routing_key: aggregate, aggregate: [{metrics: [a], drop: {pod: []}}]", "aggregate.*pod"},
		{"routing_key: aggregate, aggregate: [{metrics: [a], without: {resource: [pod]}}]", "aggregate.*without"},
		{"late: keep", `late: must be drop or pass, got "keep"`},
		{"max_streams: 0", "max_streams: must be positive, got 0; .*late: pass"},
		{"max_stale: 5", "max_stale: .*is there a unit missing"},
		{"max_stale: 10ms", "max_stale: must be a second at least"},
		{"max_stale: -1h", "max_stale: must be a second at least"},
		{"max_request_items: 0", "max_request_items: must be positive"},
		{"max_waiting_items: -1", "max_waiting_items: must be positive"},
		{"metadata_keys: ['']", "metadata_keys::0: must not be empty"},
		{"metadata_keys: [a, A]", "metadata_keys::1: .*listed twice"},
		{"retry_on_failure: {initial_interval: 5}", "retry_on_failure::initial_interval: .*is there a unit missing"},
		{"sending_queue: {num_consumers: 10}", "sending_queue::num_consumers: must be 1, got 10: .*raise lanes"},
		{"sending_queue: {num_consumers: 0}", "sending_queue.*num_consumers"},
		{"sending_queue: {queue_size: 0}", "sending_queue.*queue_size"},
		{"sending_queue: {wait_for_result: true}", "sending_queue::wait_for_result: must not be set"},
		{"sending_queue: {batch: {partition: {metadata_keys: [a]}}}", "sending_queue::batch::partition::metadata_keys: must not be set: .*set metadata_keys"},
		{"sending_queue: {batch: {max_size: 10000}}", "sending_queue::batch::max_size: must not be set"},
		{"sending_queue: {batch: {flush_timeout: 1}}", "sending_queue::batch::flush_timeout: .*is there a unit missing"},
		{"sending_queue: {storage: file_storage}, retry_on_failure: {enabled: false}", "retry_on_failure::enabled: must be true"},
		{"queue: {}", "queue"},
	} {
		t.Run(tc.yaml, func(t *testing.T) {
			_, err := load(t, "{"+tc.yaml+"}")
			require.Error(t, err)
			assert.Regexp(t, tc.want, err.Error())
		})
	}
}

// TestKeyMustFitTheSignal is seen when the connector is made, as only then the signal is known.
func TestKeyMustFitTheSignal(t *testing.T) {
	for key, signals := range map[string][3]bool{ // metrics, traces, logs
		"streamID": {true, false, false}, "metric": {true, false, false}, "traceID": {false, true, true},
		"resource": {true, true, true}, "service": {true, true, true}, "": {true, true, true},
	} {
		cfg, err := load(t, "{routing_key: '"+key+"'}")
		require.NoError(t, err)
		set, f, next := connectortest.NewNopSettings(metadata.Type), NewFactory(), consumertest.NewNop()
		_, m := f.CreateMetricsToMetrics(t.Context(), set, cfg, next)
		_, tr := f.CreateTracesToTraces(t.Context(), set, cfg, next)
		_, l := f.CreateLogsToLogs(t.Context(), set, cfg, next)
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
`)
	require.NoError(t, err)
	set, f, next := connectortest.NewNopSettings(metadata.Type), NewFactory(), consumertest.NewNop()
	_, err = f.CreateMetricsToMetrics(t.Context(), set, cfg, next)
	assert.NoError(t, err)
	_, err = f.CreateTracesToTraces(t.Context(), set, cfg, next)
	assert.ErrorContains(t, err, `routing_key: routing key "aggregate" does not go with traces`)
	_, err = f.CreateLogsToLogs(t.Context(), set, cfg, next)
	assert.ErrorContains(t, err, `routing_key: routing key "aggregate" does not go with logs`)
}
