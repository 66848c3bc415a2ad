// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/deltaring/deltaring/internal/kubetest"
)

const chart, releaseName = "helm/otelcol-deltaring", "rel7"

// charts are values by the kustomization that they must amount to.
var charts = map[string]string{
	"one-tier":                      "{}",
	"two-tier":                      "{gateways: {enabled: true}}",
	"two-tier-durable":              "{state: disk, gateways: {enabled: true}}",
	"two-tier-valkey":               "{gateways: {enabled: true}, valkey: {enabled: true}, redis: {insecure: true}}",
	"two-tier-k8s-resolver":         "{gateways: {enabled: true, resolver: k8s}}",
	"two-tier-durable-k8s-resolver": "{state: disk, gateways: {enabled: true, resolver: k8s}}",
	"one-tier-prometheus-operator":  "{podMonitor: {enabled: true}, prometheusRule: {enabled: true}}",
}

// renderChart renders the chart as helm template does, with these values over its own, whose schema they must meet.
func renderChart(values string) ([][]byte, error) {
	c, err := loader.Load(chart)
	if err != nil {
		return nil, err
	}
	var mine map[string]any
	if err := yaml.Unmarshal([]byte(values), &mine); err != nil {
		return nil, err
	}
	all, err := util.ToRenderValues(c, mine, common.ReleaseOptions{Name: releaseName, Namespace: "otelcol", Revision: 1, IsInstall: true}, nil)
	if err != nil {
		return nil, err
	}
	files, err := engine.Engine{Strict: true}.RenderWithContext(context.Background(), c, all)
	if err != nil {
		return nil, err
	}
	var texts [][]byte
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if strings.HasSuffix(name, "NOTES.txt") {
			continue
		}
		for _, text := range regexp.MustCompile(`(?m)^---$`).Split(files[name], -1) {
			if strings.TrimSpace(text) != "" {
				texts = append(texts, []byte(text))
			}
		}
	}
	return texts, nil
}

// TestHelm renders the chart in each of its layouts and looks at it as TestKubernetes does. Each must be the kustomization of its name,
// but for what a release adds.
func TestHelm(t *testing.T) {
	for name, values := range charts {
		t.Run(name, func(t *testing.T) {
			texts, err := renderChart(values)
			if err != nil {
				t.Fatal(err)
			}
			for i, text := range texts {
				texts[i] = []byte(strings.ReplaceAll(string(text), releaseName+"-", ""))
			}
			m := decodeManifests(t, texts)
			m.checkReferences(t)
			tiers := map[string]settings{}
			for _, w := range m.workloads {
				m.checkPod(t, w)
				if w.name != "valkey" {
					tiers[w.String()] = m.checkContainer(t, w)
				}
			}
			checkTiers(t, tiers)

			want, got := plain(t, buildManifests(t, name, kustomizations[name]).texts), plain(t, texts)
			for id := range maps.Keys(want) {
				if got[id] == nil {
					t.Errorf("the chart has no %s", id)
				}
			}
			for id, object := range got {
				if err := differ(id, want[id], object); err != nil && !(strings.HasSuffix(name, "k8s-resolver") && strings.Contains(err.Error(), "Deployment/gateways/spec/template/spec/containers/0/env")) {
					t.Error(err) // with "resolver: k8s" the chart leaves out what the DNS would need
				}
			}
		})
	}
}

// plain returns objects by kind and name, without what a release or a kustomization adds to names and labels.
func plain(t *testing.T, texts [][]byte) map[string]any {
	t.Helper()
	hash := regexp.MustCompile(`^(workers|gateways)-[a-z0-9]{10}$`)
	var strip func(value any) any
	strip = func(value any) any {
		switch v := value.(type) {
		case map[string]any:
			for _, key := range []string{"app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "helm.sh/chart", "checksum/config"} {
				delete(v, key)
			}
			for key, of := range v {
				v[key] = strip(of)
			}
			if env, ok := v["env"].([]any); ok { // in any order
				slices.SortFunc(env, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
			}
		case []any:
			for i, of := range v {
				v[i] = strip(of)
			}
		case string:
			return hash.ReplaceAllString(v, "$1")
		}
		return value
	}
	objects := map[string]any{}
	for _, text := range texts {
		var object map[string]any
		if err := yaml.Unmarshal(text, &object); err != nil {
			t.Fatal(err)
		}
		strip(object)
		metadata := object["metadata"].(map[string]any)
		if object["apiVersion"] == "monitoring.coreos.com/v1" {
			metadata["name"] = "otelcol-deltaring" // that of the release, in a chart
		}
		delete(metadata, "labels") // a chart labels more of its objects
		objects[fmt.Sprint(object["kind"], "/", metadata["name"])] = object
	}
	return objects
}

// differ returns where two values differ.
func differ(where string, want, got any) error {
	switch w := want.(type) {
	case map[string]any:
		g, _ := got.(map[string]any)
		for _, key := range slices.Sorted(maps.Keys(w)) {
			if err := differ(where+"/"+key, w[key], g[key]); err != nil {
				return err
			}
		}
		for key := range g {
			if _, found := w[key]; !found {
				return fmt.Errorf("%s/%s is not in the kustomization: %v", where, key, g[key])
			}
		}
		return nil
	case []any:
		if g, _ := got.([]any); len(g) == len(w) {
			for i := range w {
				if err := differ(fmt.Sprint(where, "/", i), w[i], g[i]); err != nil {
					return err
				}
			}
			return nil
		}
	}
	if !reflect.DeepEqual(want, got) {
		return fmt.Errorf("%s is\n%v\nand in the kustomization\n%v", where, got, want)
	}
	return nil
}

// TestHelmIsApplied has a real API server take what the chart makes, and pods of it in a namespace that takes none but restricted ones.
func TestHelmIsApplied(t *testing.T) {
	t.Parallel()
	server := kubetest.Start(t)
	do := doer(server)
	defineMonitoring(t, server)
	for name, values := range charts {
		t.Run(name, func(t *testing.T) {
			do(t, http.MethodPost, "/api/v1/namespaces", "application/json", fmt.Appendf(nil,
				`{"metadata": {"name": %q, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}`, name))
			texts, err := renderChart(values)
			if err != nil {
				t.Fatal(err)
			}
			applyTwice(t, do, name, texts)
			decodeManifests(t, texts).postPods(t, do, name)
		})
	}
}

// TestHelmValues sets what can be set, and looks for it where it belongs.
func TestHelmValues(t *testing.T) {
	texts, err := renderChart(`
image: {repository: mine.example.org/collector, tag: 1.2.3, pullPolicy: Always, pullSecrets: [{name: pull}]}
backend: http://otlp.example.org:4318
redis: {existingSecret: redis-state, endpoint: "redis.example.org:6380"}
workers:
  autoscaling: {minReplicas: 5, maxReplicas: 7, cpu: 50}
  resources: {requests: {cpu: 250m, memory: 512Mi}, limits: {memory: 512Mi}}
  config: {processors: {d2c: {late_window: 10m}}}
  extraEnv: [{name: REDIS_PREFIX, value: mine}]
gateways:
  enabled: true
  config: {exporters: {ring: {routing_key: streamID}}}
networkPolicy: {producers: [{namespaceSelector: {}}], monitoring: [{podSelector: {matchLabels: {app: prometheus}}}]}
`)
	if err != nil {
		t.Fatal(err)
	}
	for i, text := range texts {
		texts[i] = []byte(strings.ReplaceAll(string(text), releaseName+"-", ""))
	}
	m := decodeManifests(t, texts)
	for _, w := range m.workloads {
		c, pod := w.template.Spec.Containers[0], w.template.Spec
		if c.Image != "mine.example.org/collector:1.2.3" || c.ImagePullPolicy != core.PullAlways || len(pod.ImagePullSecrets) != 1 {
			t.Errorf("%s: image %s, %s, secrets %v", w, c.Image, c.ImagePullPolicy, pod.ImagePullSecrets)
		}
		c.Image = "otelcol-deltaring:" + distribution(t)
		w.template.Spec.Containers[0] = c
		config := m.checkContainer(t, w)
		env := map[string]string{}
		for _, e := range c.Env {
			env[e.Name] = e.Value
		}
		if w.name == "gateways" {
			if key := config.at("exporters", "ring", "routing_key"); key != "streamID" {
				t.Errorf("routing_key is %v", key)
			}
			continue
		}
		if window := config.at("processors", "d2c", "late_window"); window != "10m" {
			t.Errorf("late_window is %v", window)
		}
		for name, want := range map[string]string{
			"OTLP_BACKEND": "http://otlp.example.org:4318", "REDIS_ENDPOINT": "redis.example.org:6380", "REDIS_PREFIX": "mine", "GOMEMLIMIT": "409MiB",
		} {
			if env[name] != want {
				t.Errorf("%s is %q, want %q", name, env[name], want)
			}
		}
	}
	for _, h := range m.scalers {
		if h.Name == "workers" && (*h.Spec.MinReplicas != 5 || h.Spec.MaxReplicas != 7 || *h.Spec.Metrics[0].Resource.Target.AverageUtilization != 50) {
			t.Errorf("the autoscaler is %v", h.Spec)
		}
	}
	for _, p := range m.policies {
		data, telemetry := p.Spec.Ingress[0].From, p.Spec.Ingress[1].From
		if len(data) != 1 || (p.Name == "gateways") != (data[0].NamespaceSelector != nil) || len(telemetry) != 1 {
			t.Errorf("NetworkPolicy %s: %v", p.Name, p.Spec)
		}
	}
}

// TestHelmRefuses sets what is wrong. The message must name it.
func TestHelmRefuses(t *testing.T) {
	for values, mention := range map[string]string{
		"{stat: disk}":                                   "stat",
		"{state: s3}":                                    "state",
		"{state: disk}":                                  "gateways",
		"{valkey: {enabled: true}}":                      "insecure",
		"{backend: 'backend:4318'}":                      "backend",
		"{workers: {replicas: 0}}":                       "replicas",
		"{workers: {resources: {limits: {memory: 2G}}}}": "memory",
		"{workers: {config: []}}":                        "config",
		"{gateways: {resolver: consul}}":                 "resolver",
		"{redis: {endpoint: redis}}":                     "endpoint",
		"{podMonitor: {interval: 15}}":                   "interval",
	} {
		if _, err := renderChart(values); err == nil || !strings.Contains(err.Error(), mention) {
			t.Errorf("%s: %v", values, err)
		}
	}
}

// TestHelmSchema compares the keys of the schema with those of values.yaml, which is where they are explained.
func TestHelmSchema(t *testing.T) {
	type schema struct {
		Properties  map[string]json.RawMessage
		Definitions map[string]json.RawMessage
		Ref         string `json:"$ref"`
	}
	var top schema
	if err := json.Unmarshal(read(t, chart+"/values.schema.json"), &top); err != nil {
		t.Fatal(err)
	}
	var values map[string]any
	readYAML(t, chart+"/values.yaml", &values)
	var walk func(path string, s schema, value any)
	walk = func(path string, s schema, value any) {
		if name, found := strings.CutPrefix(s.Ref, "#/definitions/"); found {
			if err := json.Unmarshal(top.Definitions[name], &s); err != nil {
				t.Fatal(err)
			}
		}
		of, _ := value.(map[string]any)
		for key, raw := range s.Properties {
			if path+key == "global" { // every chart has it
				continue
			}
			var inner schema
			if err := json.Unmarshal(raw, &inner); err != nil {
				t.Fatal(err)
			}
			if _, found := of[key]; !found {
				t.Errorf("values.yaml has no %s%s", path, key)
			}
			walk(path+key+".", inner, of[key])
		}
	}
	walk("", top, values)

	var about struct {
		AppVersion, Version string
		meta.TypeMeta
	}
	readYAML(t, chart+"/Chart.yaml", &about)
	if about.AppVersion != distribution(t) {
		t.Errorf("the appVersion is %s, and the manifest of the Collector says %s", about.AppVersion, distribution(t))
	}
}
