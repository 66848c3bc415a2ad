// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"cmp"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/deltaring/deltaring/internal/kubetest"
)

// operated is what is looked at of an OpenTelemetryCollector. Whether there is anything else, the operator's definition says.
type operated struct {
	meta.ObjectMeta `json:"metadata"`
	Spec            struct {
		Mode, Image, UpgradeStrategy  string
		Env                           []core.EnvVar
		Lifecycle                     *core.Lifecycle
		PodSecurityContext            *core.PodSecurityContext
		Resources                     core.ResourceRequirements
		SecurityContext               *core.SecurityContext
		TerminationGracePeriodSeconds *int64
		Volumes                       []core.Volume
		VolumeMounts                  []core.VolumeMount
		Config                        settings
	}
}

// TestOperator compares what the OpenTelemetry Operator is told with what the manifests of kubernetes/two-tier say, and has the Collector
// validate it. What the operator then makes of it is its own affair: see operator/README.md.
func TestOperator(t *testing.T) {
	m := buildManifests(t, "two-tier", "")
	tiers := map[string]settings{}
	for _, w := range m.workloads {
		var o operated
		file := filepath.Join("operator", w.name+".yaml")
		readYAML(t, file, &o)
		pod, c, s := w.template.Spec, w.template.Spec.Containers[0], o.Spec
		if o.Name != w.name || s.Mode != strings.ToLower(w.kind) || s.Image != c.Image || s.UpgradeStrategy != "none" {
			t.Errorf("%s: %s, a %s of %s", file, o.Name, s.Mode, s.Image)
		}
		mounts := slices.DeleteFunc(slices.Clone(c.VolumeMounts), func(v core.VolumeMount) bool { return v.Name == "config" })
		volumes := slices.DeleteFunc(slices.Clone(pod.Volumes), func(v core.Volume) bool { return v.Name == "config" })
		for what, of := range map[string][2]any{
			"lifecycle":          {s.Lifecycle, c.Lifecycle},
			"podSecurityContext": {s.PodSecurityContext, pod.SecurityContext},
			"resources":          {s.Resources, c.Resources},
			"securityContext":    {s.SecurityContext, c.SecurityContext},
			"grace period":       {s.TerminationGracePeriodSeconds, pod.TerminationGracePeriodSeconds},
			"volumes":            {slices.Concat(s.Volumes, []core.Volume{}), slices.Concat(volumes, []core.Volume{})},
			"volume mounts":      {slices.Concat(s.VolumeMounts, []core.VolumeMount{}), slices.Concat(mounts, []core.VolumeMount{})},
		} {
			if !reflect.DeepEqual(of[0], of[1]) {
				t.Errorf("%s: %s is\n%v\nand in the manifest\n%v", file, what, of[0], of[1])
			}
		}
		env := []string{"PATH=" + os.Getenv("PATH")}
		for i, e := range s.Env {
			if i >= len(c.Env) || !reflect.DeepEqual(e, c.Env[i]) {
				if e.Name != "WORKERS_SRV" || e.Value != "_otlp-grpc._tcp.workers-collector-headless.$(POD_NAMESPACE).svc.cluster.local" {
					t.Errorf("%s: %v is not in the manifest", file, e)
				}
			}
			env = append(env, e.Name+"="+cmp.Or(e.Value, "from.elsewhere:1"))
		}
		if len(s.Env) != len(c.Env) {
			t.Errorf("%s: %d variables, and the manifest has %d", file, len(s.Env), len(c.Env))
		}
		config := filepath.Join(t.TempDir(), "collector.yaml")
		text, err := yaml.Marshal(s.Config)
		if err == nil {
			err = os.WriteFile(config, text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		checkAccepted(t, file, env, []string{"--config=" + config})
		tiers[file] = s.Config
	}
	if len(tiers) != 2 {
		t.Errorf("two tiers: %d", len(tiers))
	}
	checkTiers(t, tiers)
}

// TestOperatorDefinition has a real API server check the resources by the operator's definition of them. No module has that: give its
// path, config/crd/bases/opentelemetry.io_opentelemetrycollectors.yaml of the operator's repository, in OPENTELEMETRY_OPERATOR_CRD.
func TestOperatorDefinition(t *testing.T) {
	file := os.Getenv("OPENTELEMETRY_OPERATOR_CRD")
	if file == "" {
		t.Skip("OPENTELEMETRY_OPERATOR_CRD is not set")
	}
	t.Parallel()
	server := kubetest.Start(t)
	define(t, server, file)
	const namespace = "operated"
	do := doer(server)
	do(t, http.MethodPost, "/api/v1/namespaces", "application/json", fmt.Appendf(nil, `{"metadata": {"name": %q}}`, namespace))
	applyTwice(t, do, namespace, [][]byte{read(t, "operator/workers.yaml"), read(t, "operator/gateways.yaml")})
	wrong := []byte(strings.Replace(string(read(t, "operator/workers.yaml")), "  lifecycle:", "  lifeCycle:", 1))
	code, answer, err := server.Do(t.Context(), http.MethodPatch, pathOf(t, namespace, wrong), "application/apply-patch+yaml", wrong)
	if err != nil || code < 400 {
		t.Errorf("a field that there is not: %d %v %s", code, err, answer)
	}
}
