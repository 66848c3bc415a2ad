// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redisstate

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/metric/metricdata/metricdatatest"

	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/d2c/store/redis/redistest"
	"github.com/deltaring/deltaring/processor/state/redisstate/internal/metadatatest"
	"github.com/deltaring/deltaring/streamid"
)

func TestTelemetry(t *testing.T) {
	tel := componenttest.NewTelemetry()
	t.Cleanup(func() { require.NoError(t, tel.Shutdown(context.Background())) })
	server := redistest.Start(t)
	ext := startExtensionWith(t, metadatatest.NewSettings(tel), testConfig(server.Addr), componenttest.NewNopHost())
	st := clientOf(t, ext)
	id := func(i uint64) streamid.ID { return streamid.ID{Hi: i} }
	mustSwap(t, st, store.Swap{ID: id(1), Tag: 1, Record: []byte("record")}, store.Swap{ID: id(2), Tag: 1, Record: []byte("record")})
	swap(t, st, store.Swap{ID: id(1), Base: 1}, store.Swap{ID: id(2), Base: 7, Tag: 2, Record: []byte("record")})
	require.NoError(t, st.SetAside(context.Background(), id(2), []byte("record")))
	require.NoError(t, st.SetAside(context.Background(), id(2), []byte("record"))) // nothing is there
	_, err := st.Read(context.Background(), []streamid.ID{id(1), id(2), id(3)})
	require.NoError(t, err)
	server.Do("config", "set", "maxmemory", "1")
	_, err = st.try(store.Swap{ID: id(3), Tag: 1, Record: []byte("record")})
	require.Error(t, err)

	instance := []attribute.KeyValue{attribute.String("extension", "redis_state"), attribute.String("processor", "d2c")}
	point := func(value int64, more ...attribute.KeyValue) metricdata.DataPoint[int64] {
		return metricdata.DataPoint[int64]{Attributes: attribute.NewSet(append(more, instance...)...), Value: value}
	}
	outcome := func(s string) attribute.KeyValue { return attribute.String("outcome", s) }
	ignore := metricdatatest.IgnoreTimestamp()
	metadatatest.AssertEqualRedisStateRecords(t, tel, []metricdata.DataPoint[int64]{
		point(2, outcome("swapped")), point(1, outcome("confirmed")), point(1, outcome("conflict")), point(3, outcome("read")),
	}, ignore)
	metadatatest.AssertEqualRedisStateAside(t, tel, []metricdata.DataPoint[int64]{point(1)}, ignore)
	metadatatest.AssertEqualRedisStateErrors(t, tel,
		[]metricdata.DataPoint[int64]{point(1, attribute.String("reason", "memory"))}, ignore)
	metadatatest.AssertEqualRedisStateSwapDuration(t, tel, []metricdata.HistogramDataPoint[float64]{
		{Attributes: attribute.NewSet(instance...), Count: 3},
	}, ignore, metricdatatest.IgnoreValue())
}
