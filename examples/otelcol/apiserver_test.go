// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/deltaring/deltaring/internal/kubetest"
)

// resources are the paths of the kinds that the manifests have.
var resources = map[string]string{
	"ConfigMap": "configmaps", "Service": "services", "ServiceAccount": "serviceaccounts", "Deployment": "deployments",
	"StatefulSet": "statefulsets", "PodDisruptionBudget": "poddisruptionbudgets", "HorizontalPodAutoscaler": "horizontalpodautoscalers",
	"Role": "roles", "RoleBinding": "rolebindings", "NetworkPolicy": "networkpolicies",
	"PodMonitor": "podmonitors", "PrometheusRule": "prometheusrules", "OpenTelemetryCollector": "opentelemetrycollectors",
}

// prometheusOperator has the definitions of PodMonitor and PrometheusRule.
const prometheusOperator = "github.com/prometheus-operator/prometheus-operator@v0.85.0"

// TestManifestsAreApplied has a real API server take all manifests, as kubectl apply --server-side does, and pods of each workload,
// in namespaces that accept none but restricted ones. Applying them once more, as for an update, changes nothing.
func TestManifestsAreApplied(t *testing.T) {
	t.Parallel()
	server := kubetest.Start(t)
	do := doer(server)
	defineMonitoring(t, server)
	for name, kustomization := range kustomizations {
		t.Run(name, func(t *testing.T) {
			do(t, http.MethodPost, "/api/v1/namespaces", "application/json", fmt.Appendf(nil,
				`{"metadata": {"name": %q, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}`, name))
			m := buildManifests(t, name, kustomization)
			namespace := name
			if name == "start" { // brings its own
				namespace = "otelcol"
			}
			applyTwice(t, do, namespace, m.texts)
			m.postPods(t, do, namespace)
		})
	}
	t.Run("what is wrong is refused", func(t *testing.T) {
		for _, text := range []string{
			"{apiVersion: v1, kind: Service, metadata: {name: x}, spec: {ports: [{port: 1}], selectors: {a: b}}}",
			"{apiVersion: monitoring.coreos.com/v1, kind: PodMonitor, metadata: {name: x}, spec: {selector: {}, podMetricsEndpoint: []}}",
			"{apiVersion: monitoring.coreos.com/v1, kind: PrometheusRule, metadata: {name: x}, spec: {groups: [{rules: []}]}}",
		} {
			code, answer, err := server.Do(context.Background(), http.MethodPatch, pathOf(t, "default", []byte(text)), "application/apply-patch+yaml", []byte(text))
			if err != nil || code != http.StatusBadRequest && code != http.StatusUnprocessableEntity && code != http.StatusInternalServerError {
				t.Errorf("%s: %d %v %s", text, code, err, answer)
			}
		}
	})
}

// postPods makes a pod of each workload, as no controller does here, and only pods are checked for what they may do.
func (m *manifests) postPods(t *testing.T, do func(*testing.T, string, string, string, []byte) []byte, namespace string) {
	t.Helper()
	for _, w := range m.workloads {
		pod := core.Pod{TypeMeta: meta.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: w.template.ObjectMeta, Spec: w.template.Spec}
		pod.GenerateName, pod.Namespace = w.name+"-", namespace
		for _, claim := range w.claims {
			pod.Spec.Volumes = append(pod.Spec.Volumes, core.Volume{Name: claim.Name, VolumeSource: core.VolumeSource{
				PersistentVolumeClaim: &core.PersistentVolumeClaimVolumeSource{ClaimName: claim.Name},
			}})
		}
		body, err := json.Marshal(pod)
		if err != nil {
			t.Fatal(err)
		}
		do(t, http.MethodPost, "/api/v1/namespaces/"+namespace+"/pods?fieldValidation=Strict", "application/json", body)
	}
}

// defineMonitoring brings PodMonitor and PrometheusRule.
func defineMonitoring(t *testing.T, server *kubetest.Server) {
	t.Helper()
	for _, name := range []string{"podmonitors", "prometheusrules"} {
		define(t, server, filepath.Join(module(t, prometheusOperator), "example", "prometheus-operator-crd", "monitoring.coreos.com_"+name+".yaml"))
	}
}

// applyTwice applies objects. The second time nothing may change.
func applyTwice(t *testing.T, do func(*testing.T, string, string, string, []byte) []byte, namespace string, texts [][]byte) {
	t.Helper()
	for _, text := range texts {
		path := pathOf(t, namespace, text)
		first := do(t, http.MethodPatch, path, "application/apply-patch+yaml", text)
		again := do(t, http.MethodPatch, path, "application/apply-patch+yaml", text)
		if version(t, first) != version(t, again) {
			t.Errorf("%s: applied again it is another one", path)
		}
	}
}

// define brings a kind to a server, from the file of its definition, and waits until it takes objects of that.
func define(t *testing.T, server *kubetest.Server, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
	created := doer(server)(t, http.MethodPost, path, "application/yaml", text)
	var definition meta.PartialObjectMetadata
	if err := json.Unmarshal(created, &definition); err != nil {
		t.Fatal(err)
	}
	if err := poll(func() error {
		_, answer, err := server.Do(context.Background(), http.MethodGet, path+"/"+definition.Name, "", nil)
		if err == nil && !strings.Contains(string(answer), `"type":"Established","status":"True"`) {
			err = fmt.Errorf("%s is not there yet", definition.Name)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// TestGatewayFollowsPods runs a gateway with gateway-k8s.yaml and the rights that the manifests give it, and no others. The members
// are of the API server alone: nothing is at the addresses of its pods, and nothing is sent there.
func TestGatewayFollowsPods(t *testing.T) {
	t.Parallel()
	server := kubetest.Start(t)
	do := doer(server)
	const namespace = "otel"
	core := "/api/v1/namespaces/" + namespace
	post := func(path, format string, values ...any) []byte {
		t.Helper()
		return do(t, http.MethodPost, path, "application/json", fmt.Appendf(nil, format, values...))
	}
	post("/api/v1/nodes", `{"metadata": {"name": "node"}}`)
	post("/api/v1/namespaces", `{"metadata": {"name": %q}}`, namespace)
	post(core+"/serviceaccounts", `{"metadata": {"name": "gateways"}}`)
	var token struct{ Status struct{ Token string } }
	if err := json.Unmarshal(post(core+"/serviceaccounts/gateways/token", `{"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {}}`), &token); err != nil {
		t.Fatal(err)
	}
	kubeconfig := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(kubeconfig, fmt.Appendf(nil, `
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: %q, insecure-skip-tls-verify: true}}]
users: [{name: u, user: {token: %q}}]
contexts: [{name: x, context: {cluster: c, user: u, namespace: %s}}]
current-context: x`, server.URL, token.Status.Token, namespace), 0o600); err != nil {
		t.Fatal(err)
	}
	gateway := startCollector(t, "gateway.yaml", []string{"KUBECONFIG=" + kubeconfig, "DNS_DEBOUNCE=1s"}, "--config", "gateway-k8s.yaml", "--config", "gateway-shared.yaml")
	if err := poll(func() error {
		if !strings.Contains(gateway.log.String(), ` endpointslices in namespace \"otel\": grant the service account the verbs list and watch`) {
			return errors.New("the log does not say which rights lack")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, text := range buildManifests(t, "two-tier-k8s-resolver", "resources: [../two-tier]\ncomponents: [../k8s-resolver]\n").texts {
		do(t, http.MethodPatch, pathOf(t, namespace, text), "application/apply-patch+yaml", text)
	}
	ready := func(name, status string) {
		t.Helper()
		do(t, http.MethodPatch, core+"/pods/"+name+"/status", "application/merge-patch+json",
			fmt.Appendf(nil, `{"status": {"conditions": [{"type": "Ready", "status": %q}]}}`, status))
	}
	for i := range 3 {
		name := fmt.Sprintf("workers-%d", i)
		post(core+"/pods", `{"metadata": {"name": %q, "labels": {"app.kubernetes.io/name": "otelcol-deltaring", "app.kubernetes.io/component": "workers"}},
			"spec": {"nodeName": "node", "containers": [{"name": "otelcol", "image": "x", "ports": [{"name": "otlp", "containerPort": 4317}, {"name": "otlp-http", "containerPort": 4318}]}]}}`, name)
		do(t, http.MethodPatch, core+"/pods/"+name+"/status", "application/merge-patch+json",
			fmt.Appendf(nil, `{"status": {"podIP": "10.0.0.%d", "podIPs": [{"ip": "10.0.0.%d"}]}}`, i+1, i+1))
		ready(name, "True")
	}
	awaitTelemetry(t, gateway, 3, "otelcol_ring_members")
	server.Stop()
	if err := poll(func() error {
		m, err := scrape(gateway.telemetryURL)
		if err == nil && m.sum("otelcol_ring_lookups", `outcome="failed"`) == 0 {
			err = errors.New("no lookup has failed")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	awaitTelemetry(t, gateway, 3, "otelcol_ring_members")
	server.Start()
	ready("workers-1", "False")
	awaitTelemetry(t, gateway, 2, "otelcol_ring_members")
	if !strings.Contains(gateway.log.String(), `"left": ["workers-1"]`) {
		t.Error("the member that left is not workers-1")
	}
	gateway.stop(t)
}

// doer returns what makes requests that must succeed.
func doer(server *kubetest.Server) func(t *testing.T, method, path, contentType string, body []byte) []byte {
	return func(t *testing.T, method, path, contentType string, body []byte) []byte {
		t.Helper()
		code, answer, err := server.Do(context.Background(), method, path, contentType, body)
		if err != nil || code >= 300 {
			t.Fatalf("%s %s: %d %v\n%s\n%s", method, path, code, err, answer, body)
		}
		return answer
	}
}

// pathOf returns where to apply a manifest.
func pathOf(t *testing.T, namespace string, manifest []byte) string {
	t.Helper()
	var object meta.PartialObjectMetadata
	if err := yaml.Unmarshal(manifest, &object); err != nil {
		t.Fatal(err)
	}
	if object.Kind == "Namespace" {
		return fmt.Sprintf("/api/v1/namespaces/%s?fieldManager=test&fieldValidation=Strict&force=true", object.Name)
	}
	root := "/apis/"
	if !strings.Contains(object.APIVersion, "/") {
		root = "/api/"
	}
	resource, ok := resources[object.Kind]
	if !ok {
		t.Fatalf("%s: not expected", object.Kind)
	}
	return fmt.Sprintf("%s%s/namespaces/%s/%s/%s?fieldManager=test&fieldValidation=Strict&force=true", root, object.APIVersion, namespace, resource, object.Name)
}

func version(t *testing.T, object []byte) string {
	t.Helper()
	var m meta.PartialObjectMetadata
	if err := json.Unmarshal(object, &m); err != nil {
		t.Fatal(err)
	}
	return m.ResourceVersion
}
