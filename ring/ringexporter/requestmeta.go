// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.opentelemetry.io/collector/client"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/exporter/exporterhelper"
)

// The request metadata that members get. Others rely on it; see README.md.
const (
	ownPrefix   = "x-deltaring-"
	epochKey    = ownPrefix + "epoch"
	sinceKey    = ownPrefix + "since"
	previousKey = ownPrefix + "previous"
	memberKey   = ownPrefix + "member"
)

// termKeys are those that say by which ring a batch was split.
var termKeys = []string{epochKey, sinceKey, previousKey}

// term is the time in which this gateway uses one ring. The epoch alone does not tell a ring from one that was the same before
// others came in between.
type term struct {
	epoch, since string // as they are sent
	previous     string // empty if there is none
	ring         uint64 // the epoch
	began        int64  // in Unix milliseconds
}

// next returns the term of a ring that comes after t, at a time in Unix milliseconds: t itself if the ring is the same. The zero
// term is before the first.
func (t term) next(epoch uint64, now int64) term {
	if t.since == "" {
		return newTerm(epoch, now, "")
	}
	if epoch == t.ring {
		return t
	}
	// The clock may have been set back, and two changes may come within a millisecond.
	return newTerm(epoch, max(now, t.began+1), t.epoch+"@"+t.since)
}

func newTerm(epoch uint64, began int64, previous string) term {
	return term{
		epoch: fmt.Sprintf("%016x", epoch), since: strconv.FormatInt(began, 10), previous: previous, ring: epoch, began: began,
	}
}

// withTerm notes by which ring a batch was split. It is noted in the client metadata because that goes through queues,
// and queues that batch can tell it apart. Metadata of the same names, from a gateway before this one, is replaced.
func withTerm(ctx context.Context, t term) context.Context {
	info := client.FromContext(ctx)
	all := map[string][]string{epochKey: {t.epoch}, sinceKey: {t.since}}
	if t.previous != "" {
		all[previousKey] = []string{t.previous}
	}
	for key := range info.Metadata.Keys() {
		if !isTermKey(key) {
			all[key] = info.Metadata.Get(key)
		}
	}
	info.Metadata = client.NewMetadata(all)
	return client.NewContext(ctx, info)
}

func isTermKey(key string) bool {
	return slices.ContainsFunc(termKeys, func(own string) bool { return strings.EqualFold(key, own) })
}

// termOf returns what withTerm noted, as pairs of keys and values.
func termOf(ctx context.Context) (pairs []string) {
	md := client.FromContext(ctx).Metadata
	for _, key := range termKeys {
		if values := md.Get(key); len(values) > 0 {
			pairs = append(pairs, key, values[0])
		}
	}
	return pairs
}

// apartByTerm has a queue that batches make no request of batches that were split by different rings, or by one before and
// after others. What is no key of the partition does not get through such a queue.
func apartByTerm(queue configoptional.Optional[exporterhelper.QueueBatchConfig]) configoptional.Optional[exporterhelper.QueueBatchConfig] {
	if !queue.HasValue() || !queue.Get().Batch.HasValue() {
		return queue
	}
	cfg := *queue.Get()
	partition := &cfg.Batch.Get().Partition
	keys := slices.DeleteFunc(slices.Clone(partition.MetadataKeys), isTermKey)
	partition.MetadataKeys = append(keys, termKeys...)
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
