// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componentstatus"
)

// TestLoadBalancingBlocks decodes every block and every key that load_balancing documents, as of v0.160.0: its README, the
// configurations in its tests, and its schema. Only what the table in the README says is another thing here.
func TestLoadBalancingBlocks(t *testing.T) {
	var all []*Config
	for name, yaml := range map[string]string{
		"simple": `
routing_key: "service"
protocol: {otlp: {timeout: 1s}}
resolver: {static: {hostnames: [backend-1:4317, backend-2:4317, backend-3:4317, backend-4:4317]}}`,
		"default port": "protocol: {otlp: {timeout: 1s}}\nresolver: {static: {hostnames: [endpoint-1, endpoint-2:55678]}}",
		"queue and retries": `
timeout: 10s
retry_on_failure: {enabled: true, initial_interval: 5s, max_interval: 30s, max_elapsed_time: 300s}
sending_queue: {enabled: true, num_consumers: 2, queue_size: 1000, storage: file_storage/otc}
routing_key: "service"
protocol: {otlp: {timeout: 1s, sending_queue: {enabled: true}}}
resolver: {static: {hostnames: [backend-1:4317]}}`,
		"queue alone": `
sending_queue: {enabled: true}
protocol: {otlp: {sending_queue: {enabled: false}}}
resolver: {static: {hostnames: [backend-1:4317]}}`,
		"insecure": "protocol: {otlp: {timeout: 1s, tls: {insecure: true}}}\nresolver: {static: {hostnames: ['localhost:55690']}}",
		"dns":      "protocol: {otlp: }\nresolver: {dns: {hostname: service-1}}",
		"headless": "resolver: {dns: {hostname: otelcol-headless.observability.svc.cluster.local}}",
		"dns port": "protocol: {otlp: }\nresolver: {dns: {hostname: service-1, port: 55690, interval: 5s, timeout: 1s}}",
		"k8s":      "routing_key: service\nprotocol: {otlp: {timeout: 1s}}\nresolver: {k8s: {service: lb-svc.kube-public, ports: [15317, 16317]}}",
		"all of k8s": `
resolver: {k8s: {service: lb-svc.lb-ns.svc.cluster.local, ports: [4317], timeout: 1m, return_hostnames: true}}`,
		"k8s here":  "resolver: {k8s: {service: lb-svc}}",
		"cloud map": "protocol: {otlp: {timeout: 3s}}\nresolver: {aws_cloud_map: {namespace: aws-namespace, service_name: aws-otel-col-service-name, owner_account: \"123456789012\", interval: 30s}}",
		"all of cloud map": `
resolver: {aws_cloud_map: {namespace: cloudmap-1, service_name: service-1, port: 4319, interval: 30s, timeout: 5s, health_status: HEALTHY_OR_ELSE_ALL, owner_account: "123456789012"}}`,
		"service":    "routing_key: service\n" + anyResolver,
		"traceID":    "routing_key: traceID\n" + anyResolver,
		"metric":     "routing_key: metric\n" + anyResolver,
		"resource":   "routing_key: resource\n" + anyResolver,
		"streamID":   "routing_key: streamID\n" + anyResolver,
		"attributes": "routing_key: attributes\nrouting_attributes: [service.name, span.name, span.kind, log.severity, log.body]\n" + anyResolver,
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := load(t, yaml)
			require.NoError(t, err)
			all = append(all, cfg)
		})
	}
	for _, status := range []string{"HEALTHY", "UNHEALTHY", "ALL", "HEALTHY_OR_ELSE_ALL"} {
		_, err := load(t, "resolver: {aws_cloud_map: {namespace: n, service_name: s, health_status: "+status+"}}")
		assert.NoError(t, err)
	}
	for _, cfg := range all {
		if k := cfg.Resolver.K8s.Get(); k != nil {
			assert.Equal(t, time.Minute, k.Timeout)
			assert.Equal(t, 5*time.Second, k.Debounce)
		}
		if a := cfg.Resolver.AWSCloudMap.Get(); a != nil {
			assert.Equal(t, 30*time.Second, a.Interval)
			assert.Equal(t, 5*time.Second, a.Timeout)
			assert.Equal(t, 1000, a.MaxMembers)
		}
	}
}

func TestBadResolvers(t *testing.T) {
	k8s := func(s string) string { return "resolver: {k8s: {" + s + "}}" }
	aws := func(s string) string { return "resolver: {aws_cloud_map: {namespace: n, service_name: s, " + s + "}}" }
	static := func(s string) string { return "resolver: {static: {" + s + "}}" }
	for _, tc := range []struct{ yaml, want string }{
		{"load_balancing: {" + anyResolver + "}", "load_balancing: .*the name of contrib's exporter is no key here"},
		{"loadbalancing/2: {" + anyResolver + "}", "loadbalancing/2: .*the name of contrib's exporter"},
		{"{}", "resolver: set one of static, dns, k8s and aws_cloud_map"},
		{"resolver: {k8s: {service: a}, dns: {hostname: b}}", "resolver: set only one of"},
		{k8s("timeout: 1m"), "resolver::k8s::service: must be set"},
		{k8s("service: a.b.c"), "resolver::k8s::service: .*name.namespace"},
		{k8s("service: a, ports: [0]"), `resolver::k8s::ports::0: port "0"`},
		{k8s("service: a, ports: [4317, UPPER]"), `resolver::k8s::ports::1: "UPPER" is neither the number nor the name`},
		{k8s("service: a, ports: [4317, 4317]"), "resolver::k8s::ports::1: 4317 is listed twice"},
		{k8s("service: a, ports: [[1]]"), "resolver::k8s::ports::0: "},
		{k8s("service: a, timeout: 5"), "resolver::k8s::timeout: .*is there a unit missing"},
		{k8s("service: a, timeout: 500ms"), "resolver::k8s::timeout: must be 1s at least"},
		{k8s("service: a, debounce: 5"), "resolver::k8s::debounce: .*is there a unit missing"},
		{k8s("service: a, debounce: -1s"), "resolver::k8s::debounce: must not be negative"},
		{k8s("service: a, max_members: 0"), "resolver::k8s::max_members: must be 1 to"},
		{k8s("service: a, return_hostnames: true, pod_names: true"), "resolver::k8s::pod_names: set only one"},
		{k8s("service: a, interval: 1s"), "interval"},
		{"resolver: {aws_cloud_map: {service_name: s}}", "resolver::aws_cloud_map::namespace: must be set"},
		{"resolver: {aws_cloud_map: {namespace: s}}", "resolver::aws_cloud_map::service_name: must be set"},
		{aws("health_status: healthy"), `resolver::aws_cloud_map::health_status: "healthy" is none of HEALTHY`},
		{aws("port: 0"), `resolver::aws_cloud_map::port: port "0"`},
		{aws("port: 65536"), "port"},
		{aws("owner_account: '1'"), "resolver::aws_cloud_map::owner_account: .*12 digits"},
		{aws("interval: 30"), "resolver::aws_cloud_map::interval: .*is there a unit missing"},
		{aws("interval: 0s"), "resolver::aws_cloud_map::interval: must be positive"},
		{aws("interval: 99ms"), "resolver::aws_cloud_map::interval: must be 100ms at least"},
		{aws("timeout: 99ms"), "resolver::aws_cloud_map::timeout: must be 100ms at least"},
		{aws("debounce: 5"), "resolver::aws_cloud_map::debounce: .*is there a unit missing"},
		{aws("max_members: 1001"), "resolver::aws_cloud_map::max_members: must be 1 to 1000"},
		{static("hostnames: ['http://backend:4317']"), `resolver::static::hostnames::0: "http://backend:4317": write host:port`},
		{static("hostnames: [a, 'dns:///backend']"), `resolver::static::hostnames::1: "dns:///backend": write host:port`},
		{static("hostnames: ['unix:/run/otlp.sock']"), `resolver::static::hostnames::0: `},
	} {
		t.Run(tc.yaml, func(t *testing.T) {
			yaml := tc.yaml
			if yaml != "{}" {
				yaml = "{" + yaml + "}"
			}
			_, err := load(t, yaml)
			require.Error(t, err)
			assert.Regexp(t, tc.want, err.Error())
		})
	}
}

func TestIgnoredSettingsAreTold(t *testing.T) {
	workers := startWorkers(t, "a")
	cfg := staticConfig(t, workers)
	g := startGateway(t, cfg)
	assert.Zero(t, g.logs.FilterMessageSnippet("protocol::otlp::endpoint").Len())
	assert.Zero(t, g.logs.FilterMessageSnippet("has no name").Len())

	cfg = staticConfig(t, workers)
	cfg.Protocol.OTLP.ClientConfig.Endpoint = "backend:4317"
	cfg.Resolver.Static.Get().Members[0].Name = ""
	g = startGateway(t, cfg)
	assert.Equal(t, 1, g.logs.FilterMessageSnippet("protocol::otlp::endpoint is ignored").Len())
	told := g.logs.FilterMessageSnippet("has no name").All()
	require.Len(t, told, 1)
	assert.Equal(t, "resolver::static::members::0::name", told[0].ContextMap()["key"])
}

// TestK8sMembers has what an API server says decide who gets what; ring/resolve/k8s holds that against a real one.
func TestK8sMembers(t *testing.T) {
	workers := startWorkers(t, "a", "b")
	slice := func(name string, w *worker) string {
		host, p, _ := net.SplitHostPort(w.address)
		return fmt.Sprintf(`{"metadata": {"name": %q}, "addressType": "IPv4", "ports": [{"name": "otlp", "port": %s}],
			"endpoints": [{"addresses": [%q], "targetRef": {"kind": "Pod", "name": %q}, "conditions": {"ready": true}}]}`, name, p, host, name)
	}
	items := slice("a", workers["a"]) + "," + slice("b", workers["b"])
	var forbidden atomic.Bool
	forbidden.Store(true)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		query := r.URL.Query()
		assert.Equal(t, "/apis/discovery.k8s.io/v1/namespaces/otel/endpointslices", r.URL.Path)
		assert.Equal(t, "kubernetes.io/service-name=workers", query.Get("labelSelector"))
		switch {
		case forbidden.Load():
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403, "message": "no"}`)
		case query.Get("sendInitialEvents") != "":
			w.WriteHeader(http.StatusUnprocessableEntity)
			fmt.Fprint(w, `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Invalid", "code": 422}`)
		case query.Get("watch") != "":
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		default:
			fmt.Fprintf(w, `{"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1", "metadata": {"resourceVersion": "1"}, "items": [%s]}`, items)
		}
	}))
	t.Cleanup(server.Close)
	kubeconfig := filepath.Join(t.TempDir(), "config")
	require.NoError(t, os.WriteFile(kubeconfig, fmt.Appendf(nil, `
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: %q}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: x, context: {cluster: c, user: u, namespace: otel}}]
current-context: x`, server.URL), 0o600))
	t.Setenv("KUBECONFIG", kubeconfig)

	cfg := config(t, "{routing_key: streamID, resolver: {k8s: {service: workers, ports: [otlp], pod_names: true}}}")
	g := startGateway(t, cfg)
	t.Cleanup(func() { _ = g.stop() }) // before the server, which waits for the watch
	require.Eventually(t, func() bool { return sum(t, g, "otelcol_ring_lookups", "outcome", "denied") > 0 }, patience, time.Millisecond)
	require.Eventually(t, func() bool { return len(g.host.statuses()) > 0 }, patience, time.Millisecond)
	assert.Regexp(t, `resolver: denied since \d{4}-\S+Z: not allowed to .* endpointslices in namespace "otel": grant the service account the verbs list and watch`, g.host.trouble())
	forbidden.Store(false)
	g.awaitMembers("a", "b")
	require.Eventually(t, func() bool {
		s := g.host.statuses()
		return s[len(s)-1] == componentstatus.StatusOK
	}, patience, time.Millisecond)
	streams := streamNames(100)
	require.NoError(t, g.consume(t.Context(), metricBatch(1, streams...)))
	awaitAll(t, workers, len(streams))
}

func TestCloudMapMembers(t *testing.T) {
	for key, value := range map[string]string{"AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"} {
		t.Setenv(key, value)
	}
	workers := startWorkers(t, "a", "b")
	instance := func(name string) string {
		host, port, _ := net.SplitHostPort(workers[name].address)
		return fmt.Sprintf(`{"InstanceId": %q, "Attributes": {"AWS_INSTANCE_IPV4": %q, "AWS_INSTANCE_PORT": %q}}`, name, host, port)
	}
	var half atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		more := ""
		if half.Load() {
			more = `, {"InstanceId": "c"}`
		}
		fmt.Fprintf(w, `{"Instances": [%s, %s %s]}`, instance("a"), instance("b"), more)
	}))
	t.Cleanup(server.Close)
	cfg := config(t, fmt.Sprintf("{routing_key: streamID, resolver: {aws_cloud_map: {namespace: n, service_name: w, interval: 100ms, endpoint: %q}}}", server.URL))
	g := startGateway(t, cfg)
	g.awaitMembers("a", "b")
	streams := streamNames(100)
	require.NoError(t, g.consume(t.Context(), metricBatch(1, streams...)))
	awaitAll(t, workers, len(streams))
	half.Store(true)
	require.Eventually(t, func() bool { return g.logs.FilterMessageSnippet("not all is well").Len() == 1 }, patience, time.Millisecond)
	half.Store(false)
	require.Eventually(t, func() bool { return g.logs.FilterMessageSnippet("nothing is wrong any more").Len() == 1 }, patience, time.Millisecond)
}
