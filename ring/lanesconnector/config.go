// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package lanesconnector

import (
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/config/configretry"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/exporter/exporterhelper"

	"github.com/deltaring/deltaring/internal/aggregate"
	"github.com/deltaring/deltaring/internal/tenant"
	"github.com/deltaring/deltaring/internal/units"
)

// Config is the configuration of the connector.
type Config struct {
	// Lanes is the maximum number of concurrent requests. Default 16.
	Lanes int `mapstructure:"lanes"`

	// RoutingKey is a name that streamid.ParseKey knows, or aggregate. Data with the same key uses the same lane and stays
	// in order. The default is streamID for metrics, traceID for traces and resource for logs. Set it to resource if the
	// backend derives something from a request's resource that must stay in order, too, as Prometheus derives target_info
	// from OTLP.
	RoutingKey string `mapstructure:"routing_key"`

	// RoutingAttributes are the attributes of the routing key "attributes".
	RoutingAttributes []string `mapstructure:"routing_attributes"`

	// Aggregate lists the rules of the routing key "aggregate", the same as in the d2c processor behind the connector: all
	// writers of a total use one lane.
	Aggregate []aggregate.RoutingRuleConfig `mapstructure:"aggregate"`

	// Late says what happens to a sample that is not later than the last one sent of its stream: "drop", the default, or
	// "pass". Only metrics have late samples; deltas always pass.
	Late string `mapstructure:"late"`

	// MaxStreams is the number of streams whose latest sample the connector remembers. Samples of further streams pass.
	// Default 10000000.
	MaxStreams int `mapstructure:"max_streams"`

	// MaxStale is how long a stream without samples is remembered. Default 1h.
	MaxStale time.Duration `mapstructure:"max_stale"`

	// MaxRequestItems is the number of data points, spans or log records up to which batches are merged into one request.
	// The part of a batch that goes to one lane is never cut. Default 8192.
	MaxRequestItems int `mapstructure:"max_request_items"`

	// MaxWaitingItems is how many data points, spans or log records may wait in lanes. Further batches get a retryable
	// error. Queues have sizes of their own. Default 1000000.
	MaxWaitingItems int `mapstructure:"max_waiting_items"`

	// MetadataKeys names the client metadata (request headers) that tells tenants apart. Requests carry the metadata of
	// their batches, no request contains data of two tenants, and each tenant's streams are separate. Default none: requests
	// have no metadata.
	MetadataKeys []string `mapstructure:"metadata_keys"`

	// RetryConfig is for requests that failed, but not permanently. It is enabled by default and has no time limit: retries
	// end when the caller gives up waiting, or are bounded by the size of the queue.
	RetryConfig configretry.BackOffConfig `mapstructure:"retry_on_failure"`

	// QueueConfig is a queue in front of each lane, in memory or, with storage, on disk. None by default: a batch is
	// acknowledged when the component behind the lanes has accepted it.
	QueueConfig configoptional.Optional[exporterhelper.QueueBatchConfig] `mapstructure:"sending_queue"`

	// prevent unkeyed literal initialization
	_ struct{}
}

var (
	_ component.Config  = (*Config)(nil)
	_ confmap.Validator = (*Config)(nil)
)

const (
	lateDrop = "drop"
	latePass = "pass"

	maxLanes = 1024
)

func createDefaultConfig() component.Config {
	retry := configretry.NewDefaultBackOffConfig()
	retry.InitialInterval, retry.MaxInterval, retry.MaxElapsedTime = time.Second, 30*time.Second, 0
	queue := exporterhelper.NewDefaultQueueConfig()
	queue.NumConsumers, queue.BlockOnOverflow = 1, true
	queue.Batch.GetOrInsertDefault().FlushTimeout = 100 * time.Millisecond
	return &Config{
		Lanes:           16,
		Late:            lateDrop,
		MaxStreams:      10_000_000,
		MaxStale:        time.Hour,
		MaxRequestItems: 8192,
		MaxWaitingItems: 1_000_000,
		RetryConfig:     retry,
		QueueConfig:     configoptional.Default(queue),
	}
}

// Validate reports the first setting that cannot be, by its key.
func (c *Config) Validate() error {
	if err := units.Check(c); err != nil {
		return err
	}
	if _, err := aggregate.Key(c.RoutingKey, c.RoutingAttributes, c.Aggregate); err != nil {
		return err
	}
	if _, err := tenant.ParseKeys(c.MetadataKeys); err != nil {
		return fmt.Errorf("metadata_keys::%w", err)
	}
	switch {
	case c.Lanes < 1 || c.Lanes > maxLanes:
		return fmt.Errorf("lanes: must be 1 to %d, got %d", maxLanes, c.Lanes)
	case c.Late != lateDrop && c.Late != latePass:
		return fmt.Errorf("late: must be %s or %s, got %.40q", lateDrop, latePass, c.Late)
	case c.MaxStreams < 1:
		return fmt.Errorf("max_streams: must be positive, got %d; to have no late samples dropped, set late: pass", c.MaxStreams)
	case c.MaxStale < time.Second:
		return fmt.Errorf("max_stale: must be a second at least, got %v", c.MaxStale)
	case c.MaxRequestItems < 1:
		return fmt.Errorf("max_request_items: must be positive, got %d", c.MaxRequestItems)
	case c.MaxWaitingItems < 1:
		return fmt.Errorf("max_waiting_items: must be positive, got %d", c.MaxWaitingItems)
	}
	if !c.QueueConfig.HasValue() {
		return nil
	}
	q := c.QueueConfig.Get()
	if q.NumConsumers != 1 {
		return fmt.Errorf("sending_queue::num_consumers: must be 1, got %d: each lane has a queue of its own, and a second consumer "+
			"would put it out of order; for more requests at once raise lanes", q.NumConsumers)
	}
	if q.WaitForResult {
		return errors.New("sending_queue::wait_for_result: must not be set: without sending_queue, whoever sends a batch waits for what " +
			"becomes of it")
	}
	if q.Batch.HasValue() && q.Batch.Get().MaxSize != 0 {
		return errors.New("sending_queue::batch::max_size: must not be set: what is split can be overtaken by what comes after it; " +
			"min_size bounds requests as well, but for the last batch in them")
	}
	if q.Batch.HasValue() && len(q.Batch.Get().Partition.MetadataKeys) > 0 {
		return errors.New("sending_queue::batch::partition::metadata_keys: must not be set: batches of one stream would overtake one " +
			"another; where streams are told apart by them, set metadata_keys")
	}
	if q.StorageID != nil && !c.RetryConfig.Enabled {
		return errors.New("retry_on_failure::enabled: must be true with sending_queue::storage, or a queue on disk loses what is under " +
			"way when the Collector stops")
	}
	return nil
}
