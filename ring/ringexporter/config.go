// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/config/configretry"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/exporter/exporterhelper"
	"go.opentelemetry.io/collector/exporter/otlpexporter"

	"github.com/deltaring/deltaring/internal/aggregate"
	"github.com/deltaring/deltaring/internal/tenant"
	"github.com/deltaring/deltaring/internal/units"
	"github.com/deltaring/deltaring/ring"
	"github.com/deltaring/deltaring/ring/resolve"
	"github.com/deltaring/deltaring/streamid"
)

// Config is the configuration of the exporter, in the shape of contrib's load_balancing exporter.
type Config struct {
	// TimeoutConfig bounds the time for handing a batch to all its owners. Zero, the default, means no bound: each request
	// has the timeout of protocol::otlp.
	TimeoutConfig exporterhelper.TimeoutConfig `mapstructure:",squash"`

	// RetryConfig is for data that a member did not accept, because its queue was full or, if members have no queues,
	// because it did not answer. Only that data is sent again, by the ring in use at that time. Enabled by default.
	RetryConfig configretry.BackOffConfig `mapstructure:"retry_on_failure"`

	// QueueConfig is a queue for batches before they are split. None by default; if there is one, it has one consumer.
	QueueConfig configoptional.Optional[exporterhelper.QueueBatchConfig] `mapstructure:"sending_queue"`

	// RoutingKey is a name that streamid.ParseKey knows, or aggregate. The default is that of load_balancing: traceID for
	// traces, service for metrics and logs.
	RoutingKey string `mapstructure:"routing_key"`

	// RoutingAttributes are the attributes of the routing key "attributes".
	RoutingAttributes []string `mapstructure:"routing_attributes"`

	// Aggregate lists the rules of the routing key "aggregate": those of the members' d2c processors, in the same order. All
	// writers of a total then have one owner. It must be the same on all gateways.
	Aggregate []aggregate.RoutingRuleConfig `mapstructure:"aggregate"`

	// MetadataKeys names the client metadata (request headers) that tells tenants apart. It is sent on to members, and
	// batches with different metadata are never merged. With the routing keys "streamID" and "aggregate" each tenant's
	// streams have their own owners. Set the same keys here and in the members' d2c processors, and include_metadata: true
	// in the receivers of both. Default none.
	MetadataKeys []string `mapstructure:"metadata_keys"`

	// Groups routes all streams of a group to one member. Set it to the number of groups into which a store by log divides
	// streams, which is the groups setting of the members' state extension. A power of two from 16 to 256, for the routing
	// keys "streamID" and "aggregate". Seed and MetadataKeys must then match the members' processors. Zero, the default,
	// routes each stream separately.
	Groups int `mapstructure:"groups"`

	// Seed keys the hashes by which data is routed: whoever knows it can direct data at one member. It must be the same on
	// all gateways. Without groups it may differ from that of the members' processors. Another seed gives most data to other
	// owners. Default 0.
	Seed uint64 `mapstructure:"seed"`

	// HandoverTimeout bounds how long metrics for a member that gains streams are held back: they wait until everything sent
	// to the previous owners, in the queues of members, is done. With zero nothing waits, and moved streams may arrive out
	// of order. It needs queues with one consumer, without batch and wait_for_result. Default 30s.
	HandoverTimeout time.Duration `mapstructure:"handover_timeout"`

	// MaxRequestBytes merges the batches that wait in a member's queue during a request into the next request, up to this
	// size. A batch is never cut. With zero, the default, each batch is a request. It needs queues with one consumer,
	// without batch and wait_for_result.
	MaxRequestBytes int `mapstructure:"max_request_bytes"`

	// Eject keeps members that do not accept data out of the ring for a time. None by default.
	Eject configoptional.Optional[EjectConfig] `mapstructure:"eject"`

	Protocol ProtocolConfig `mapstructure:"protocol"`
	Resolver ResolverConfig `mapstructure:"resolver"`

	// prevent unkeyed literal initialization
	_ struct{}
}

// ProtocolConfig says how to connect to members.
type ProtocolConfig struct {
	// OTLP is the configuration of the Collector's OTLP exporter. Its endpoint is ignored, because each member has its own.
	// sending_queue is a queue for each member, by default with one consumer instead of ten, which keeps streams in order;
	// retry_on_failure applies to the data in it.
	OTLP otlpexporter.Config `mapstructure:"otlp"`

	// prevent unkeyed literal initialization
	_ struct{}
}

// StaticConfig lists members that do not change.
type StaticConfig struct {
	// Hostnames are addresses of members with weight 1. With the default port added, they are also the members' names.
	Hostnames []string `mapstructure:"hostnames"`

	// Members are further members.
	Members []MemberConfig `mapstructure:"members"`

	// prevent unkeyed literal initialization
	_ struct{}
}

// MemberConfig is a static member.
type MemberConfig struct {
	// Name decides what the member owns. Default: the endpoint.
	Name string `mapstructure:"name"`
	// Endpoint is the member's address. If it has no port, 4317 is added.
	Endpoint string `mapstructure:"endpoint"`
	// Weight is the member's share relative to the others'. Default 1; a member with 0 is listed but owns nothing.
	Weight *uint32 `mapstructure:"weight"`
	// Zone is the failure domain of the member. It has no influence on who owns what.
	Zone string `mapstructure:"zone"`

	// prevent unkeyed literal initialization
	_ struct{}
}

// DNSConfig finds members by DNS.
type DNSConfig struct {
	// Hostname is the name to look up.
	Hostname string `mapstructure:"hostname"`

	// SRV looks up SRV records of Hostname, for instance _otlp._tcp.workers.default.svc.cluster.local, and names members by
	// the targets of their records. Otherwise A and AAAA records are looked up, and members are named by their addresses.
	// Weights and priorities of SRV records are ignored.
	SRV bool `mapstructure:"srv"`

	// Port is the port of members found by A and AAAA records. Default 4317. SRV records contain their own.
	Port string `mapstructure:"port"`

	// Interval is the time between lookups, at least 100ms. Default 5s.
	Interval time.Duration `mapstructure:"interval"`

	// Timeout bounds a lookup, at least 100ms. Default 1s.
	Timeout time.Duration `mapstructure:"timeout"`

	// Debounce is how long an answer must stay the same before it changes the ring. If answers keep changing, the latest is
	// used after ten times as long. Zero uses every answer. Default 5s.
	Debounce time.Duration `mapstructure:"debounce"`

	// MaxMembers is the maximum number of members. An answer with more is refused, and the last good one stays in use.
	// Default 1000.
	MaxMembers int `mapstructure:"max_members"`

	// Server is the address of a DNS server to ask instead of the system's.
	Server string `mapstructure:"server"`

	// prevent unkeyed literal initialization
	_ struct{}
}

var (
	_ component.Config  = (*Config)(nil)
	_ confmap.Validator = (*Config)(nil)
)

// placeholder makes the OTLP exporter's configuration valid without an endpoint.
const placeholder = "member-of-the-ring:" + resolve.DefaultPort

func createDefaultConfig() component.Config {
	queue := exporterhelper.NewDefaultQueueConfig()
	queue.NumConsumers = 1
	otlp := otlpexporter.NewFactory().CreateDefaultConfig().(*otlpexporter.Config)
	otlp.ClientConfig.Endpoint = placeholder
	otlp.QueueConfig = configoptional.Some(queue)
	return &Config{
		RetryConfig:     configretry.NewDefaultBackOffConfig(),
		QueueConfig:     configoptional.Default(queue),
		HandoverTimeout: 30 * time.Second,
		Eject: configoptional.Default(EjectConfig{
			Failures: 3, After: 10 * time.Second, ProbeInterval: 5 * time.Second, ReturnAfter: 30 * time.Second, MaxShare: 0.34,
		}),
		Protocol: ProtocolConfig{OTLP: *otlp},
		Resolver: defaultResolverConfig(),
	}
}

// Validate returns an error that names the first invalid setting by its key.
func (c *Config) Validate() error {
	if err := units.Check(c); err != nil {
		return err
	}
	if _, err := c.key(); err != nil {
		return err
	}
	if q := c.Protocol.OTLP.QueueConfig; q.HasValue() && q.Get().StorageID != nil {
		return errors.New("protocol::otlp::sending_queue::storage: a member that leaves would leave its data on disk where no " +
			"other finds it; set sending_queue::storage of the exporter itself, and protocol::otlp::sending_queue::enabled to false")
	}
	if err := c.checkHandover(); err != nil {
		return err
	}
	tenants, err := metadataKeys(c.MetadataKeys)
	if err != nil {
		return err
	}
	for key := range c.Protocol.OTLP.ClientConfig.Headers.Iter {
		lower := strings.ToLower(key)
		if strings.HasPrefix(lower, tenant.ReservedPrefix) {
			return fmt.Errorf("protocol::otlp::headers::%s: what begins with %s is set by the exporter", key, tenant.ReservedPrefix)
		}
		if slices.Contains(tenants, lower) {
			return fmt.Errorf("protocol::otlp::headers::%s: is one of metadata_keys, which come from clients", key)
		}
	}
	if c.Eject.HasValue() {
		if err := c.Eject.Get().validate(); err != nil {
			return err
		}
	}
	if err := c.Resolver.validate(); err != nil {
		return err
	}
	return c.checkGroups()
}

const minGroups, maxGroups = 16, 256

// checkGroups is for a configuration that is valid otherwise.
func (c *Config) checkGroups() error {
	if c.Groups == 0 {
		return nil
	}
	if c.Groups < minGroups || c.Groups > maxGroups || c.Groups&(c.Groups-1) != 0 {
		return fmt.Errorf("groups: must be a power of two from %d to %d, the groups of the members' store, or 0 to route each stream by itself, got %d",
			minGroups, maxGroups, c.Groups)
	}
	if static := c.Resolver.Static; static.HasValue() {
		list, err := static.Get().members()
		if err != nil {
			return err
		}
		owners := 0
		for _, e := range list {
			if e.Weight > 0 {
				owners++
			}
		}
		if owners > c.Groups {
			return fmt.Errorf("groups: %d are too few for %d members: set more, here and in the members' store", c.Groups, owners)
		}
	}
	return nil
}

// ringOptions are those of all rings of this exporter.
func (c *Config) ringOptions() []ring.Option {
	if c.Groups == 0 {
		return nil
	}
	return []ring.Option{ring.WithSlots(c.Groups)}
}

func (c *Config) checkHandover() error {
	if c.HandoverTimeout < 0 {
		return fmt.Errorf("handover_timeout: must not be negative, got %v; 0s waits for nothing", c.HandoverTimeout)
	}
	if c.MaxRequestBytes < 0 {
		return fmt.Errorf("max_request_bytes: must not be negative, got %d; 0 makes each batch a request", c.MaxRequestBytes)
	}
	if queue := c.Protocol.OTLP.QueueConfig; c.MaxRequestBytes > 0 && queue.HasValue() && !inOrder(queue.Get()) {
		return errors.New("max_request_bytes: is for a queue of members with one consumer: set num_consumers to 1 in " +
			"protocol::otlp::sending_queue, and leave out batch and wait_for_result, or set max_request_bytes to 0")
	}
	return nil
}

// inOrder reports whether a queue has what comes out of it sent in the order in which it came in, whatever comes out at the time.
func inOrder(queue *exporterhelper.QueueBatchConfig) bool {
	return queue.NumConsumers == 1 && !queue.WaitForResult && !queue.Batch.HasValue()
}

func (c *Config) key() (streamid.Key, error) {
	key, err := aggregate.Key(c.RoutingKey, c.RoutingAttributes, c.Aggregate)
	if err != nil || c.Groups == 0 {
		return key, err
	}
	grouped, err := key.Grouped()
	if err != nil {
		return key, fmt.Errorf("groups: only goes with routing_key: streamID or aggregate; set one of these, or groups to 0, got routing_key: %q", c.RoutingKey)
	}
	return grouped, nil
}

func (c *StaticConfig) members() ([]resolve.Member, error) {
	var list []resolve.Member
	for i, h := range c.Hostnames {
		if resolve.HasScheme(h) {
			return nil, fmt.Errorf("resolver::static::hostnames::%d: %q: write host:port, as a scheme would be part of the name of the member; "+
				"what only gRPC understands goes into members, with name and endpoint", i, h)
		}
		address, err := resolve.WithPort(h)
		if err != nil {
			return nil, fmt.Errorf("resolver::static::hostnames::%d: %w", i, err)
		}
		list = append(list, resolve.Member{Member: ring.Member{Name: address, Weight: 1}, Address: address})
	}
	for i, m := range c.Members {
		address, err := resolve.WithPort(m.Endpoint)
		if err != nil {
			return nil, fmt.Errorf("resolver::static::members::%d::endpoint: %w", i, err)
		}
		e := resolve.Member{Member: ring.Member{Name: m.Name, Weight: 1, Zone: m.Zone}, Address: address}
		if m.Name == "" {
			e.Name = address
		}
		if m.Weight != nil {
			e.Weight = *m.Weight
		}
		list = append(list, e)
	}
	members := make([]ring.Member, len(list))
	for i, e := range list {
		members[i] = e.Member
	}
	// The ring has the rules: no members, none with a weight, names used twice.
	if _, err := ring.New(members); err != nil {
		return nil, fmt.Errorf("resolver::static: %w", err)
	}
	return list, nil
}
