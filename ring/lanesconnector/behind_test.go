// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package lanesconnector

import (
	"context"
	"strconv"
	"sync"
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
	next []consumer.Metrics
	by   map[string]consumer.Metrics
	mine map[string]int // of the component: not to be looked at
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
	w := &wrapped{
		Metrics: newBackend(t), next: []consumer.Metrics{exporterOf("otlp_http/a", true), exporterOf("otlp_http/b", false), nil},
		by: map[string]consumer.Metrics{"c": exporterOf("otlp_http/c", true)}, mine: map[string]int{},
	}
	w.self = w
	var running sync.WaitGroup
	stop := make(chan struct{})
	running.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				w.mine[strconv.Itoa(i%100)] = i
			}
		}
	})
	for range 100 {
		assert.Equal(t, []string{"otlp_http/a", "otlp_http/c"}, warnings(w))
	}
	close(stop)
	running.Wait()
	assert.Empty(t, warnings(newBackend(t)))
}
