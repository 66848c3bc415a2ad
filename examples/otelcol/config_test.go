// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

func validate(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := exec.Command(binary(t), append([]string{"validate"}, args...)...).CombinedOutput()
	return string(out), err
}

// under is what files need that are none by themselves: the one that they are merged over, and feature gates.
var under = map[string][]string{
	"gateway-shared.yaml": {"--config", "gateway.yaml"},
	"gateway-k8s.yaml":    {"--config", "gateway.yaml"},
	"gateway-log.yaml":    {"--config", "gateway.yaml", "--config", "gateway-shared.yaml"},
	"gateway-s3.yaml":     {"--config", "gateway.yaml", "--config", "gateway-shared.yaml"},
	"shared-log.yaml":     {"--config", "shared.yaml"},
	"postgres.yaml":       {"--config", "shared.yaml"},
	"s3.yaml":             {"--config", "shared.yaml"},
	"amp.yaml":            {"--config", "prometheus.yaml"},
	"remote-write.yaml":   {"--config", "shared.yaml"},
	"mimir.yaml":          {"--config", "prometheus.yaml"},
	"remote-write-2.yaml": {"--config", "prometheus.yaml",
		"--feature-gates=exporter.prometheusremotewritexporter.enableSendingRW2"},
}

func TestConfigsAreAccepted(t *testing.T) {
	files, err := filepath.Glob("*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	recipes, err := filepath.Glob(filepath.Join("recipes", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, recipe := range recipes {
		switch {
		case strings.HasSuffix(recipe, "-edge.yaml"): // is for another Collector, which runs with it in recipes_test.go
			continue
		case strings.HasSuffix(recipe, "-gateway.yaml"):
			under[recipe] = []string{"--config", "gateway.yaml"}
		default:
			under[recipe] = []string{"--config", "durable.yaml"}
		}
		files = append(files, recipe)
	}
	configs := slices.DeleteFunc(files, func(f string) bool { return f == "manifest.yaml" })
	if len(configs) < 2 {
		t.Fatalf("found only %q", configs)
	}
	for name, value := range map[string]string{ // for amp.yaml, which looks for them elsewhere if they are not there, and s3.yaml
		"AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret", "S3_BUCKET": "telemetry-state",
	} {
		t.Setenv(name, value)
	}
	for _, config := range configs {
		args := append(slices.Clone(under[config]), "--config", config)
		if out, err := validate(t, args...); err != nil {
			t.Errorf("%s: %v\n%s", config, err, out)
		}
	}
}

func TestBadConfigsAreRefusedByName(t *testing.T) {
	for _, tc := range []struct{ setting, mention string }{
		{"max_stale: -1s", "max_stale"},
		{"max_stale: soon", "max_stale"},
		{"late_window: -5m", "late_window"},
		{"max_streams: -1", "max_streams"},
		{"max_streams: many", "max_streams"},
		{"gap: forget", "gap"},
		{"overlap: subtract", "overlap"},
		{"late_windows: 5m", "late_windows"},
		{"reemit_interval: 1ms", "reemit_interval"},
		{"stale_markers: true", "stale_markers"},
	} {
		t.Run(tc.setting, func(t *testing.T) {
			out, err := validate(t, "--config", "one-node.yaml", "--config", "yaml:processors: {d2c: {"+tc.setting+"}}")
			if err == nil {
				t.Fatal("accepted")
			}
			if !regexp.MustCompile(`\b` + tc.mention + `\b`).MatchString(out) {
				t.Errorf("refused without naming %s:\n%s", tc.mention, out)
			}
		})
	}
}

// TestTiers looks at files that are made to run together. TestKubernetes and TestECS do so for theirs.
func TestTiers(t *testing.T) {
	for _, tiers := range [][]string{
		{"one-node.yaml"},
		{"prometheus.yaml"},
		{"durable.yaml"},
		{"shared.yaml"},
		{"gateway.yaml", "worker.yaml"},
		{"gateway.yaml gateway-shared.yaml", "shared.yaml"},
		{"gateway.yaml gateway-k8s.yaml gateway-shared.yaml", "shared.yaml"},
		{"gateway.yaml gateway-shared.yaml gateway-log.yaml", "shared.yaml shared-log.yaml"},
		{"gateway.yaml gateway-shared.yaml gateway-log.yaml", "shared.yaml postgres.yaml"},
		{"gateway.yaml gateway-shared.yaml gateway-s3.yaml", "shared.yaml s3.yaml"},
		{"../fleet/gateway.yaml", "../fleet/worker.yaml"},
		{"../fleet/gateway.yaml", "../fleet/worker.yaml ../fleet/redis.yaml"},
		{"../fleet/gateway.yaml ../fleet/gateway-groups.yaml", "../fleet/worker.yaml ../fleet/redis.yaml ../fleet/redis-log.yaml"},
		{"../fleet/gateway.yaml ../fleet/gateway-groups.yaml", "../fleet/worker.yaml ../fleet/s3.yaml"},
		{"../fleet/gateway.yaml ../fleet/gateway-groups.yaml", "../fleet/worker.yaml ../fleet/postgres.yaml"},
	} {
		t.Run(filepath.Base(tiers[0])+" "+filepath.Base(tiers[len(tiers)-1]), func(t *testing.T) {
			configs := map[string]settings{}
			for _, files := range tiers {
				var args []string
				for file := range strings.FieldsSeq(files) {
					args = append(args, "--config="+file)
				}
				configs[files] = mergeConfig(t, nil, args)
			}
			checkTiers(t, configs)
		})
	}
}

// TestRemoteWrite compares the exporter of remote-write.yaml with that of prometheus.yaml, which explains it.
func TestRemoteWrite(t *testing.T) {
	over := mergeConfig(t, nil, []string{"--config=remote-write.yaml"})
	whole := mergeConfig(t, nil, []string{"--config=prometheus.yaml"})
	for _, path := range [][]string{{"exporters", "prometheus_remote_write"}, {"processors", "d2c", "warn_duplicates"}} {
		if a, b := over.at(path...), whole.at(path...); a == nil || !reflect.DeepEqual(a, b) {
			t.Errorf("%v is\n%v, and in prometheus.yaml\n%v", path, a, b)
		}
	}
	for _, file := range []string{"shared.yaml", "durable.yaml", "worker.yaml"} {
		if out, err := validate(t, "--config", file, "--config", "remote-write.yaml"); err != nil {
			t.Errorf("%s: %v\n%s", file, err, out)
		}
	}
}

// checkTiers looks at what the configurations of a fleet must know of each other, by their names. Workers behind gateways are told by
// which ring a batch came, and make use of it; without gateways, and where they share their state, nothing moves.
func checkTiers(t *testing.T, configs map[string]settings) {
	t.Helper()
	gateways := slices.ContainsFunc(slices.Collect(maps.Values(configs)), func(c settings) bool {
		return len(c.components("exporters", "ring")) > 0
	})
	workers := 0
	// Groups that differ, or that only one of the tiers knows of, are written by several workers: right, but slow.
	routed, kept := map[any]bool{}, map[any]bool{}
	for name, config := range configs {
		for id, ring := range config.components("exporters", "ring") {
			routed[ring.at("groups")] = true
			queue := ring.at("protocol", "otlp", "sending_queue", "enabled") != false
			if timeout := ring.at("handover_timeout"); queue && (timeout == nil || timeout == "0s") {
				t.Errorf("%s: handover_timeout of %s is %v, and it has queues", name, id, timeout)
			}
		}
		for id, d2c := range config.components("processors", "d2c") {
			workers++
			store, shared := d2c.at("state", "shared").(string)
			if shared {
				extension, _ := config.at("extensions", store).(map[string]any)
				if extension == nil {
					t.Errorf("%s: %s has its state in %s, and there is none", name, id, store)
				}
				if used, _ := config.at("service", "extensions").([]any); !slices.Contains(used, any(store)) {
					t.Errorf("%s: %s is not among the extensions of the service", name, store)
				}
				kept[extension["groups"]] = true
			}
			want := "continue"
			if gateways && !shared {
				want = "restart_if_moved"
			}
			if gap := d2c.at("gap"); gap != want && !(gap == nil && want == "continue") {
				t.Errorf("%s: gap of %s is %v, want %s", name, id, gap, want)
			}
			for id, lanes := range config.components("connectors", "lanes") {
				if lanes.at("sending_queue") != nil && gateways && !shared {
					t.Errorf("%s: %s has a queue: what is in it comes behind what the next owner of its streams makes", name, id)
				}
			}
			for id, otlp := range config.components("receivers", "otlp") {
				if include := otlp.at("protocols", "grpc", "include_metadata"); gateways && include != true {
					t.Errorf("%s: include_metadata of %s is %v, and gateways are in front", name, id, include)
				}
			}
		}
	}
	if gateways && len(kept) > 0 && !maps.Equal(routed, kept) {
		t.Errorf("groups of gateways are %v, those of the store %v", routed, kept)
	}
	if workers == 0 {
		t.Error("there are no workers")
	}
}

// settings are a part of a configuration.
type settings map[string]any

// at is the value at a path, nil if there is none.
func (s settings) at(path ...string) any {
	value := any(map[string]any(s))
	for _, key := range path {
		of, _ := value.(map[string]any)
		value = of[key]
	}
	return value
}

// components are those of a type, by their IDs.
func (s settings) components(class, kind string) map[string]settings {
	found := map[string]settings{}
	of, _ := s.at(class).(map[string]any)
	for id, value := range of {
		if name, _, _ := strings.Cut(id, "/"); name == kind {
			component, _ := value.(map[string]any)
			found[id] = component
		}
	}
	return found
}

// mergeConfig reads the configurations that arguments name and merges each over those before, as a Collector does. It leaves
// references to the environment in them as they are.
func mergeConfig(t *testing.T, env, args []string) settings {
	t.Helper()
	all := map[string]any{}
	for _, arg := range args {
		if strings.HasPrefix(arg, "--feature-gates=") {
			continue
		}
		uri, ok := strings.CutPrefix(arg, "--config=")
		if !ok {
			t.Fatalf("argument %q", arg)
		}
		var text []byte
		switch kind, rest, _ := strings.Cut(uri, ":"); kind {
		case "yaml":
			text = []byte(rest)
		case "env":
			for _, variable := range env {
				if value, ok := strings.CutPrefix(variable, rest+"="); ok {
					text = []byte(value)
				}
			}
		default:
			var err error
			if text, err = os.ReadFile(uri); err != nil {
				t.Fatal(err)
			}
		}
		var one map[string]any
		if err := yaml.Unmarshal(text, &one); err != nil || len(one) == 0 {
			t.Fatalf("%s: %v, %v", arg, one, err)
		}
		merge(all, one)
	}
	return all
}

func merge(over, one map[string]any) {
	for key, value := range one {
		if first, rest, nested := strings.Cut(key, "::"); nested {
			key, value = first, map[string]any{rest: value}
		}
		of, isMap := value.(map[string]any)
		if !isMap {
			over[key] = value
			continue
		}
		if _, isMap := over[key].(map[string]any); !isMap {
			over[key] = map[string]any{}
		}
		merge(over[key].(map[string]any), of)
	}
}
