// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package lanesconnector

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/exporter/exporterhelper"
	"go.opentelemetry.io/collector/exporter/exportertest"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// wrapped is a consumer as the Collector's graph wraps them.
type wrapped struct {
	consumer.Metrics
	self *wrapped // a cycle
	next []any
}

func TestExportersWithQueuesAreSeen(t *testing.T) {
	exporterOf := func(id string, queue bool) consumer.Metrics {
		set := exportertest.NewNopSettings(component.MustNewType("otlp_http"))
		require.NoError(t, set.ID.UnmarshalText([]byte(id)))
		q := configoptional.None[exporterhelper.QueueBatchConfig]()
		if queue {
			q = configoptional.Some(exporterhelper.NewDefaultQueueConfig())
		}
		e, err := exporterhelper.NewMetrics(t.Context(), set, struct{}{}, func(context.Context, pmetric.Metrics) error { return nil },
			exporterhelper.WithQueue(q))
		require.NoError(t, err)
		return e
	}
	warnings := func(next consumer.Metrics) (ids []string) {
		l := newLab(t, "{}", next)
		l.stop()
		for _, w := range l.logs.FilterMessageSnippet("has a queue of its own").All() {
			ids = append(ids, w.ContextMap()["exporter"].(string))
		}
		return ids
	}
	assert.Empty(t, warnings(exporterOf("otlp_http", false)))
	assert.Equal(t, []string{"otlp_http"}, warnings(exporterOf("otlp_http", true)))
	w := &wrapped{Metrics: newBackend(t), next: []any{
		map[string]consumer.Metrics{"a": exporterOf("otlp_http/a", true)}, exporterOf("otlp_http/b", false), nil, 1, func() {},
	}}
	w.self = w
	assert.Equal(t, []string{"otlp_http/a"}, warnings(w))
	assert.Empty(t, warnings(newBackend(t)))
}
