// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/confmap"
	"go.uber.org/zap"

	"github.com/deltaring/deltaring/internal/keys"
	"github.com/deltaring/deltaring/ring/resolve"
	"github.com/deltaring/deltaring/ring/resolve/cloudmap"
	"github.com/deltaring/deltaring/ring/resolve/k8s"
)

// ResolverConfig says who the members are: exactly one of its fields must be set.
type ResolverConfig struct {
	Static      configoptional.Optional[StaticConfig]   `mapstructure:"static"`
	DNS         configoptional.Optional[DNSConfig]      `mapstructure:"dns"`
	K8s         configoptional.Optional[K8sConfig]      `mapstructure:"k8s"`
	AWSCloudMap configoptional.Optional[CloudMapConfig] `mapstructure:"aws_cloud_map"`

	// prevent unkeyed literal initialization
	_ struct{}
}

// K8sConfig makes the endpoints of a Kubernetes Service the members. The service account needs the verbs list and watch on
// endpointslices of API group discovery.k8s.io.
type K8sConfig struct {
	// Service is name, name.namespace or name.namespace.svc.cluster.local. Without a namespace, the Collector's own is used.
	Service string `mapstructure:"service"`

	// Ports are the members' ports, by number or by the name in the Service. With several ports, each endpoint is as many
	// members, whose names include the port. Default 4317.
	Ports []any `mapstructure:"ports"`

	// ReturnHostnames names and reaches members as hostname.service.namespace. The Service must be headless, and be the
	// serviceName of the StatefulSet.
	ReturnHostnames bool `mapstructure:"return_hostnames"`

	// PodNames names members after their pods; they are reached at their addresses.
	PodNames bool `mapstructure:"pod_names"`

	// IncludeNotReady keeps pods as members while they are not ready, or are terminating.
	IncludeNotReady bool `mapstructure:"include_not_ready"`

	// Timeout bounds a request; after it, a watch begins again. At least 1s. Default 1m.
	Timeout time.Duration `mapstructure:"timeout"`

	// Debounce is as in DNSConfig. Default 5s.
	Debounce time.Duration `mapstructure:"debounce"`

	// MaxMembers is as in DNSConfig. Default 1000.
	MaxMembers int `mapstructure:"max_members"`

	// prevent unkeyed literal initialization
	_ struct{}
}

// CloudMapConfig makes the instances of an AWS Cloud Map service the members, named by their IDs. Region and credentials
// come from the environment.
type CloudMapConfig struct {
	// Namespace is the HTTP name of the namespace.
	Namespace string `mapstructure:"namespace"`

	// ServiceName is the name of the service.
	ServiceName string `mapstructure:"service_name"`

	// HealthStatus is HEALTHY, UNHEALTHY, ALL or HEALTHY_OR_ELSE_ALL. Default HEALTHY.
	HealthStatus string `mapstructure:"health_status"`

	// Port is the port of all members. Default: the one each is registered with, or else 4317.
	Port *uint16 `mapstructure:"port"`

	// OwnerAccount is the account that owns the namespace, if it is not this one.
	OwnerAccount *string `mapstructure:"owner_account"`

	// Interval is the time between lookups, at least 100ms. Default 30s.
	Interval time.Duration `mapstructure:"interval"`

	// Timeout bounds a lookup, at least 100ms. Default 5s.
	Timeout time.Duration `mapstructure:"timeout"`

	// Debounce is as in DNSConfig. Default 5s.
	Debounce time.Duration `mapstructure:"debounce"`

	// MaxMembers is as in DNSConfig. Default 1000, and there cannot be more.
	MaxMembers int `mapstructure:"max_members"`

	// Endpoint is the URL of the API, instead of the region's.
	Endpoint string `mapstructure:"endpoint"`

	// prevent unkeyed literal initialization
	_ struct{}
}

const (
	defaultDebounce = 5 * time.Second
	defaultMembers  = 1000
)

func defaultResolverConfig() ResolverConfig {
	return ResolverConfig{
		DNS: configoptional.Default(DNSConfig{
			Interval: 5 * time.Second, Timeout: time.Second, Debounce: defaultDebounce, MaxMembers: defaultMembers,
		}),
		K8s: configoptional.Default(K8sConfig{Timeout: time.Minute, Debounce: defaultDebounce, MaxMembers: defaultMembers}),
		AWSCloudMap: configoptional.Default(CloudMapConfig{
			Interval: 30 * time.Second, Timeout: 5 * time.Second, Debounce: defaultDebounce, MaxMembers: defaultMembers,
		}),
	}
}

// meant maps keys that other exporters use to the ones used here.
var meant = map[string]string{
	"load_balancing":          "the name of contrib's exporter is no key here: put what is below it directly below this exporter",
	"loadbalancing":           "the name of contrib's exporter is no key here: put what is below it directly below this exporter",
	"endpoint":                "a ring has members: did you mean resolver::static::hostnames?",
	"endpoints":               "did you mean resolver::static::hostnames?",
	"otlp":                    "did you mean protocol::otlp?",
	"tls":                     "did you mean protocol::otlp::tls?",
	"protocol::grpc":          "did you mean protocol::otlp?",
	"resolver::kubernetes":    "did you mean resolver::k8s?",
	"resolver::k8s_service":   "did you mean resolver::k8s?",
	"resolver::endpoints":     "did you mean resolver::static::hostnames?",
	"resolver::aws":           "did you mean resolver::aws_cloud_map?",
	"resolver::cloud_map":     "did you mean resolver::aws_cloud_map?",
	"resolver::cloudmap":      "did you mean resolver::aws_cloud_map?",
	"resolver::srv":           "did you mean resolver::dns, with srv: true?",
	"resolver::k8s::port":     "did you mean resolver::k8s::ports, a list?",
	"resolver::k8s::hostname": "did you mean resolver::k8s::service?",
	"resolver::dns::ports":    "did you mean resolver::dns::port? It has one",
	"resolver::dns::service":  "did you mean resolver::dns::hostname?",
}

// Unmarshal refuses unknown keys, and says which one was meant. It takes a port as a number, too, as load_balancing documents it.
func (c *Config) Unmarshal(conf *confmap.Conf) error {
	if err := keys.Check(conf, c, meant); err != nil {
		return err
	}
	const port = "resolver::dns::port"
	if n, ok := conf.Get(port).(int); ok {
		text := confmap.NewFromStringMap(map[string]any{port: strconv.Itoa(n)})
		if err := conf.Merge(text); err != nil {
			return err
		}
	}
	return conf.Unmarshal(c)
}

const resolverKeys = "static, dns, k8s and aws_cloud_map"

func (c *ResolverConfig) validate() error {
	var set []string
	for key, has := range map[string]bool{"static": c.Static.HasValue(), "dns": c.DNS.HasValue(), "k8s": c.K8s.HasValue(), "aws_cloud_map": c.AWSCloudMap.HasValue()} {
		if has {
			set = append(set, key)
		}
	}
	switch {
	case len(set) == 0:
		return errors.New("resolver: set one of " + resolverKeys)
	case len(set) > 1:
		slices.Sort(set)
		return fmt.Errorf("resolver: set only one of %s, got %s; enabled: false in its block, as in dns: {enabled: false}, switches off one that "+
			"another file has", resolverKeys, strings.Join(set, " and "))
	case c.Static.HasValue():
		_, err := c.Static.Get().members()
		return err
	case c.DNS.HasValue():
		return c.DNS.Get().validate()
	case c.K8s.HasValue():
		return c.K8s.Get().validate()
	}
	return c.AWSCloudMap.Get().validate()
}

// resolver returns what follows the members, which must not be static.
func (c *ResolverConfig) resolver(ctx context.Context) (resolve.Resolver, error) {
	switch {
	case c.K8s.HasValue():
		k := c.K8s.Get()
		source, err := k8s.New(k.service(), nil)
		if err != nil {
			return resolve.Resolver{}, fmt.Errorf("resolver::k8s: %w", err)
		}
		return resolve.Resolver{Source: source, Debounce: k.Debounce, MaxMembers: k.MaxMembers}, nil
	case c.AWSCloudMap.HasValue():
		a := c.AWSCloudMap.Get()
		source, err := cloudmap.New(ctx, a.service())
		if err != nil {
			return resolve.Resolver{}, fmt.Errorf("resolver::aws_cloud_map: %w", err)
		}
		return resolve.Resolver{Source: source, Interval: a.Interval, Debounce: a.Debounce, MaxMembers: a.MaxMembers}, nil
	}
	d := c.DNS.Get()
	return resolve.Resolver{Source: d.source(), Interval: d.Interval, Debounce: d.Debounce, MaxMembers: d.MaxMembers}, nil
}

func (c *DNSConfig) source() *resolve.DNS {
	return &resolve.DNS{Hostname: c.Hostname, SRV: c.SRV, Port: c.Port, Timeout: c.Timeout, Server: c.Server}
}

func (c *K8sConfig) service() k8s.Service {
	s := k8s.Service{
		Name: c.Service, Hostnames: c.ReturnHostnames, PodNames: c.PodNames, NotReady: c.IncludeNotReady, Timeout: c.Timeout,
	}
	for _, port := range c.Ports {
		s.Ports = append(s.Ports, fmt.Sprint(port))
	}
	return s
}

func (c *CloudMapConfig) service() cloudmap.Service {
	s := cloudmap.Service{
		Namespace: c.Namespace, Name: c.ServiceName, HealthStatus: c.HealthStatus, Timeout: c.Timeout, Endpoint: c.Endpoint,
	}
	if c.Port != nil {
		s.Port = strconv.Itoa(int(*c.Port))
	}
	if c.OwnerAccount != nil {
		s.OwnerAccount = *c.OwnerAccount
	}
	return s
}

// shortestLookup bounds the load on whoever is asked, and the time it has to answer.
const shortestLookup = 100 * time.Millisecond

// atLeast checks that the duration of a key is not too short.
func atLeast(least time.Duration, key string, d time.Duration) error {
	switch {
	case d <= 0:
		return fmt.Errorf("%s: must be positive, got %v", key, d)
	case d < least:
		return fmt.Errorf("%s: must be %v at least, got %v; is there a unit missing?", key, least, d)
	}
	return nil
}

// validateCommon checks the settings that all resolvers have.
func validateCommon(key string, debounce time.Duration, members, most int) error {
	switch {
	case debounce < 0:
		return fmt.Errorf("%s::debounce: must not be negative, got %v", key, debounce)
	case members < 1 || members > most:
		return fmt.Errorf("%s::max_members: must be 1 to %d, got %d", key, most, members)
	}
	return nil
}

func (c *DNSConfig) validate() error {
	switch {
	case c.Hostname == "":
		return errors.New("resolver::dns::hostname: must be set")
	case c.SRV && c.Port != "":
		return errors.New("resolver::dns::port: SRV records have their own ports")
	}
	if c.Port != "" {
		if err := resolve.CheckPort(c.Port); err != nil {
			return fmt.Errorf("resolver::dns::port: %w", err)
		}
	}
	if err := c.source().Check(); err != nil {
		return fmt.Errorf("resolver::dns::server: %w", err)
	}
	if err := atLeast(shortestLookup, "resolver::dns::interval", c.Interval); err != nil {
		return err
	}
	if err := atLeast(shortestLookup, "resolver::dns::timeout", c.Timeout); err != nil {
		return err
	}
	return validateCommon("resolver::dns", c.Debounce, c.MaxMembers, ringLimit)
}

func (c *K8sConfig) validate() error {
	for i, port := range c.Ports {
		switch p := port.(type) {
		case int, string:
		default:
			return fmt.Errorf("resolver::k8s::ports::%d: %v is neither the number nor the name of a port", i, p)
		}
	}
	s := c.service()
	if err := s.Check(); err != nil {
		return fmt.Errorf("resolver::k8s::%w", err)
	}
	if c.ReturnHostnames && c.PodNames {
		return errors.New("resolver::k8s::pod_names: set only one of return_hostnames and pod_names")
	}
	// Kubernetes counts the timeout of a request in seconds.
	if err := atLeast(time.Second, "resolver::k8s::timeout", c.Timeout); err != nil {
		return err
	}
	return validateCommon("resolver::k8s", c.Debounce, c.MaxMembers, ringLimit)
}

func (c *CloudMapConfig) validate() error {
	s := c.service()
	if err := s.Check(); err != nil {
		return fmt.Errorf("resolver::aws_cloud_map::%w", err)
	}
	if err := atLeast(shortestLookup, "resolver::aws_cloud_map::interval", c.Interval); err != nil {
		return err
	}
	if err := atLeast(shortestLookup, "resolver::aws_cloud_map::timeout", c.Timeout); err != nil {
		return err
	}
	return validateCommon("resolver::aws_cloud_map", c.Debounce, c.MaxMembers, defaultMembers)
}

// warnOfIgnored warns of settings that have no effect, or not the one that is meant.
func (e *ringExporter[B]) warnOfIgnored() {
	if endpoint := e.cfg.Protocol.OTLP.ClientConfig.Endpoint; endpoint != placeholder && endpoint != "" {
		e.set.Logger.Warn("protocol::otlp::endpoint is ignored, as each member has its own: remove it", zap.String("endpoint", endpoint))
	}
	for i, rule := range e.cfg.Aggregate {
		if kept, _ := rule.KeepInput.(bool); kept && e.cfg.Groups > 0 {
			e.set.Logger.Warn("deltas that keep_input has stay go where their total goes, which is not where their own group is: the members' "+
				"store will see several writers of a log", zap.String("key", fmt.Sprintf("aggregate::%d::keep_input", i)))
		}
	}
	static := e.cfg.Resolver.Static
	if !static.HasValue() {
		return
	}
	for i, m := range static.Get().Members {
		if m.Name == "" {
			e.set.Logger.Warn("a member has no name, so it is named by its endpoint, and what it owns moves when that changes: give it one",
				zap.String("key", fmt.Sprintf("resolver::static::members::%d::name", i)), zap.String("endpoint", m.Endpoint))
		}
	}
}
