// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"go.opentelemetry.io/collector/client"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/exporter/exporterhelper"
)

// The request metadata that members get. Others rely on it; see README.md.
const (
	ownPrefix = "x-deltaring-"
	epochKey  = ownPrefix + "epoch"
	memberKey = ownPrefix + "member"
)

// withEpoch notes by which ring a batch was split. It is noted in the client metadata because that goes through queues,
// and queues that batch can tell it apart. Metadata of the same name, from a gateway before this one, is replaced.
func withEpoch(ctx context.Context, epoch uint64) context.Context {
	info := client.FromContext(ctx)
	all := map[string][]string{epochKey: {fmt.Sprintf("%016x", epoch)}}
	for key := range info.Metadata.Keys() {
		if !strings.EqualFold(key, epochKey) {
			all[key] = info.Metadata.Get(key)
		}
	}
	info.Metadata = client.NewMetadata(all)
	return client.NewContext(ctx, info)
}

// epochOf returns what withEpoch noted.
func epochOf(ctx context.Context) string {
	if values := client.FromContext(ctx).Metadata.Get(epochKey); len(values) > 0 {
		return values[0]
	}
	return ""
}

// apartByEpoch has a queue that batches make no request of batches that were split by different rings.
func apartByEpoch(queue configoptional.Optional[exporterhelper.QueueBatchConfig]) configoptional.Optional[exporterhelper.QueueBatchConfig] {
	if !queue.HasValue() || !queue.Get().Batch.HasValue() {
		return queue
	}
	cfg := *queue.Get()
	partition := &cfg.Batch.Get().Partition
	if !slices.ContainsFunc(partition.MetadataKeys, func(key string) bool { return strings.EqualFold(key, epochKey) }) {
		partition.MetadataKeys = append(slices.Clip(partition.MetadataKeys), epochKey)
	}
	return configoptional.Some(cfg)
}

// metadataValue returns a name as a value that gRPC accepts: a percent sign and whatever is not visible ASCII are
// percent-encoded. gRPC would fail every request with such a value.
func metadataValue(name string) string {
	var b strings.Builder
	for i := range len(name) {
		if c := name[i]; c > ' ' && c <= '~' && c != '%' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
