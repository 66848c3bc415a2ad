// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.opentelemetry.io/collector/client"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/exporter/exporterhelper"
	"google.golang.org/grpc/metadata"

	"github.com/deltaring/deltaring/internal/tenant"
	"github.com/deltaring/deltaring/streamid"
)

// notMetadata are keys that gRPC, or HTTP/2 below it, has for itself: it leaves them out or fails the request.
var notMetadata = []string{
	"connection", "content-length", "content-type", "host", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade",
	"user-agent",
}

// metadataKeys returns the keys that tell tenants apart, or an error that names the one that cannot be.
func metadataKeys(names []string) (tenant.Keys, error) {
	keys, err := tenant.ParseKeys(names)
	if err != nil {
		return nil, fmt.Errorf("metadata_keys::%w", err)
	}
	for i, key := range keys {
		if strings.Trim(key, "0123456789abcdefghijklmnopqrstuvwxyz_-.") != "" {
			return nil, fmt.Errorf("metadata_keys::%d: %q: gRPC has only letters, digits, _ - and . in keys", i, names[i])
		}
		if strings.HasPrefix(key, "grpc-") || slices.Contains(notMetadata, key) {
			return nil, fmt.Errorf("metadata_keys::%d: %q: gRPC has that for itself, and does not send it on", i, names[i])
		}
	}
	return keys, nil
}

// routingOf is what the seed, the keys of tenants and the rules of the key "aggregate" do to epochs: nothing without them, as a ring has
// it then. Gateways that differ in them send one stream to two members, and a member that takes them for one route would trust what
// it knows of the stream. A cryptographic hash, because epochs are sent and shown, and the seed may be a secret.
func routingOf(cfg *Config, key streamid.Key, keys tenant.Keys) uint64 {
	if cfg.Seed == 0 && len(keys) == 0 && len(cfg.Aggregate) == 0 {
		return 0
	}
	text := fmt.Sprintf("%d %q", cfg.Seed, slices.Sorted(slices.Values(keys)))
	if len(cfg.Aggregate) > 0 {
		text += " " + key.String()
	}
	sum := sha256.Sum256([]byte(text))
	return binary.BigEndian.Uint64(sum[:])
}

// unsendable is what is wrong with what the sender has sent, and what it is told.
type unsendable struct{ error }

// sendable returns an error if gRPC does not send such values, or HTTP/2 does not bring them as they are. They are not encoded:
// the member would see another tenant than the gateway, and who reads values as they were sent would know neither.
func sendable(of []streamid.TenantKey) error {
	for _, key := range of {
		if strings.HasSuffix(key.Name, "-bin") {
			continue // sent as base64, and got as it was
		}
		for _, v := range key.Values {
			if strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r > '~' }) || strings.Trim(v, " ") != v {
				return unsendable{fmt.Errorf("metadata_keys: the request has a value of %q that gRPC cannot send: only visible ASCII, and spaces "+
					"within; keys that end in -bin have any", key.Name)}
			}
		}
	}
	return nil
}

// withTenant adds to the request's metadata what tells the tenant.
func withTenant(ctx context.Context, keys tenant.Keys) context.Context {
	var pairs []string
	for _, key := range keys.Of(ctx) {
		for _, v := range key.Values {
			pairs = append(pairs, key.Name, v)
		}
	}
	if pairs == nil {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, pairs...)
}

// termKeys are those that say by which ring a batch was split.
var termKeys = []string{tenant.EpochKey, tenant.SinceKey, tenant.PreviousKey}

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
	all := map[string][]string{tenant.EpochKey: {t.epoch}, tenant.SinceKey: {t.since}}
	if t.previous != "" {
		all[tenant.PreviousKey] = []string{t.previous}
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

// apartBy has a queue that batches make no request of batches with different metadata: of several tenants, or split by different
// rings. A queue that does not batch keeps all metadata; of those that do, what they go by is what they keep.
func apartBy(keys []string, queue configoptional.Optional[exporterhelper.QueueBatchConfig]) configoptional.Optional[exporterhelper.QueueBatchConfig] {
	if !queue.HasValue() || !queue.Get().Batch.HasValue() {
		return queue
	}
	cfg := *queue.Get()
	partition := &cfg.Batch.Get().Partition
	partition.MetadataKeys = slices.Clip(partition.MetadataKeys)
	for _, key := range keys {
		if !slices.ContainsFunc(partition.MetadataKeys, func(k string) bool { return strings.EqualFold(k, key) }) {
			partition.MetadataKeys = append(partition.MetadataKeys, key)
		}
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
