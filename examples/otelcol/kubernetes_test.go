// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	rbac "k8s.io/api/rbac/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// kustomizations are the directories of kubernetes/ to apply, and kustomizations that would be beside them.
var kustomizations = map[string]string{
	"start":                         "",
	"one-tier":                      "",
	"two-tier":                      "",
	"two-tier-durable":              "",
	"two-tier-valkey":               "resources: [../two-tier]\ncomponents: [../valkey]\n",
	"two-tier-custom-metrics":       "resources: [../two-tier]\ncomponents: [../custom-metrics]\n",
	"two-tier-k8s-resolver":         "resources: [../two-tier]\ncomponents: [../k8s-resolver]\n",
	"two-tier-durable-k8s-resolver": "resources: [../two-tier-durable]\ncomponents: [../k8s-resolver]\n",
	"one-tier-prometheus-operator":  "resources: [../one-tier]\ncomponents: [../prometheus-operator]\n",
}

// TestKubernetes builds the manifests as kubectl does, decodes them as strictly as an API server does, and looks at what no
// schema says: that whatever refers to something refers to something that is there, and that the Collector accepts its
// arguments, environment and files.
func TestKubernetes(t *testing.T) {
	shared := []string{"gateway-shared.yaml", "gateway.yaml", "shared.yaml"}
	cases := map[string]struct {
		configs []string // in ConfigMaps
		scaled  int      // workloads with an autoscaler
		metrics int      // of all autoscalers
		others  []string // kinds that need an operator
	}{
		"start":                         {[]string{"shared.yaml"}, 1, 1, nil},
		"one-tier":                      {[]string{"shared.yaml"}, 1, 1, nil},
		"two-tier":                      {shared, 2, 2, nil},
		"two-tier-durable":              {[]string{"durable.yaml", "gateway.yaml"}, 1, 1, nil},
		"two-tier-valkey":               {shared, 2, 2, nil},
		"two-tier-custom-metrics":       {shared, 2, 5, nil},
		"two-tier-k8s-resolver":         {append([]string{"gateway-k8s.yaml"}, shared...), 2, 2, nil},
		"two-tier-durable-k8s-resolver": {[]string{"durable.yaml", "gateway-k8s.yaml", "gateway.yaml"}, 1, 1, nil},
		"one-tier-prometheus-operator":  {[]string{"shared.yaml"}, 1, 1, []string{"PodMonitor", "PrometheusRule"}},
	}
	for name, kustomization := range kustomizations {
		t.Run(name, func(t *testing.T) {
			tc, found := cases[name]
			if !found {
				t.Fatal("nothing is said of what it must have")
			}
			m := buildManifests(t, name, kustomization)
			m.checkConfigs(t, tc.configs)
			metrics := 0
			for _, h := range m.scalers {
				metrics += len(h.Spec.Metrics)
			}
			if len(m.scalers) != tc.scaled || metrics != tc.metrics {
				t.Errorf("%d autoscalers with %d metrics, want %d with %d", len(m.scalers), metrics, tc.scaled, tc.metrics)
			}
			if !slices.Equal(m.others, tc.others) {
				t.Errorf("has %q, want %q", m.others, tc.others)
			}
			m.checkReferences(t)
			tiers := map[string]settings{}
			for _, w := range m.workloads {
				m.checkPod(t, w)
				if w.name != "valkey" {
					tiers[w.String()] = m.checkContainer(t, w)
				}
			}
			checkTiers(t, tiers)

			// What somebody says in a kustomization of their own has the last word.
			const image = "mine.example.org/collector:1.2.3"
			mine := buildManifests(t, "mine", strings.ReplaceAll(cmp.Or(kustomization, "resources: [../"+name+"]\n"), "../start", "../one-tier")+
				"images: [{name: otelcol-deltaring, newName: mine.example.org/collector, newTag: 1.2.3}]\nnamespace: elsewhere\n")
			for _, w := range mine.workloads {
				if got := w.template.Spec.Containers[0].Image; got != image && w.name != "valkey" {
					t.Errorf("%s: the image is %s in spite of a kustomization that says %s", w, got, image)
				}
			}
			for _, text := range mine.texts {
				if !strings.Contains(string(text), "\n  namespace: elsewhere\n") {
					t.Errorf("is in no namespace:\n%.300s", text)
				}
			}
		})
	}
}

// checkConfigs looks for exactly these files in the ConfigMaps, with what the tests run.
func (m *manifests) checkConfigs(t *testing.T, want []string) {
	t.Helper()
	var configs []string
	for _, c := range m.configs {
		for file, content := range c.Data {
			configs = append(configs, file)
			if tested, err := os.ReadFile(file); err != nil || content != string(tested) {
				t.Errorf("ConfigMap %s: %s is not the tested one (%v)", c.Name, file, err)
			}
		}
	}
	slices.Sort(configs)
	if !slices.Equal(configs, want) {
		t.Errorf("the ConfigMaps have %q, want %q", configs, want)
	}
}

// manifests are the objects of one kustomization.
type manifests struct {
	services  []*core.Service
	configs   []*core.ConfigMap
	budgets   []*policy.PodDisruptionBudget
	scalers   []*autoscaling.HorizontalPodAutoscaler
	workloads []workload
	accounts  []*core.ServiceAccount
	roles     []*rbac.Role
	bindings  []*rbac.RoleBinding
	policies  []*networking.NetworkPolicy
	others    []string // kinds that an operator brings, in alphabetical order
	texts     [][]byte // of all objects, in YAML
}

// workload is a Deployment or a StatefulSet.
type workload struct {
	kind, name  string
	replicas    *int32
	selector    *meta.LabelSelector
	template    core.PodTemplateSpec
	claims      []core.PersistentVolumeClaim
	serviceName string
}

func (w workload) String() string { return w.kind + "/" + w.name }

// buildManifests builds a directory of kubernetes/, or one that would be beside them and has this kustomization. There is nothing
// but kubernetes/, and no flag is set: it is what Flux, Argo and a plain kubectl apply -k do.
func buildManifests(t *testing.T, directory, kustomization string) *manifests {
	t.Helper()
	disk := filesys.MakeFsInMemory()
	err := filepath.WalkDir("kubernetes", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(name)
		return errors.Join(err, disk.WriteFile("/"+filepath.ToSlash(name), content))
	})
	root := path.Join("/kubernetes", directory)
	if kustomization != "" {
		err = errors.Join(err, disk.WriteFile(path.Join(root, "kustomization.yaml"), []byte(kustomization)))
	}
	if err != nil {
		t.Fatal(err)
	}
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(disk, root)
	if err != nil {
		t.Fatal(err)
	}
	var texts [][]byte
	for _, r := range resources.Resources() {
		text, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, text)
	}
	return decodeManifests(t, texts)
}

// decodeManifests decodes objects strictly, but for those of operators, whose types are not here.
func decodeManifests(t *testing.T, texts [][]byte) *manifests {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		apps.AddToScheme, autoscaling.AddToScheme, core.AddToScheme, networking.AddToScheme, policy.AddToScheme, rbac.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	decoder := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Yaml: true, Strict: true})
	m := &manifests{texts: texts}
	for _, text := range texts {
		var kind meta.PartialObjectMetadata
		if err := yaml.Unmarshal(text, &kind); err != nil {
			t.Fatal(err)
		}
		if kind.GroupVersionKind().Group == "monitoring.coreos.com" {
			m.others = append(m.others, kind.Kind)
			slices.Sort(m.others)
			continue
		}
		object, _, err := decoder.Decode(text, nil, nil)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		switch o := object.(type) {
		case *core.Service:
			m.services = append(m.services, o)
		case *core.ConfigMap:
			m.configs = append(m.configs, o)
		case *core.ServiceAccount:
			m.accounts = append(m.accounts, o)
		case *rbac.Role:
			m.roles = append(m.roles, o)
		case *rbac.RoleBinding:
			m.bindings = append(m.bindings, o)
		case *networking.NetworkPolicy:
			m.policies = append(m.policies, o)
		case *core.Namespace: // is looked at by the API server
		case *policy.PodDisruptionBudget:
			m.budgets = append(m.budgets, o)
		case *autoscaling.HorizontalPodAutoscaler:
			m.scalers = append(m.scalers, o)
		case *apps.Deployment:
			m.workloads = append(m.workloads, workload{
				kind.Kind, o.Name, o.Spec.Replicas, o.Spec.Selector, o.Spec.Template, nil, "",
			})
		case *apps.StatefulSet:
			m.workloads = append(m.workloads, workload{
				kind.Kind, o.Name, o.Spec.Replicas, o.Spec.Selector, o.Spec.Template, o.Spec.VolumeClaimTemplates, o.Spec.ServiceName,
			})
		default:
			t.Errorf("%s %s: not expected", kind.Kind, kind.Name)
		}
	}
	return m
}

// selected returns the one workload whose pods a selector selects.
func (m *manifests) selected(t *testing.T, who string, selector labels.Selector) workload {
	t.Helper()
	var found []workload
	for _, w := range m.workloads {
		if selector.Matches(labels.Set(w.template.Labels)) {
			found = append(found, w)
		}
	}
	if len(found) != 1 || selector.Empty() {
		t.Fatalf("%s selects the pods of %v, want those of one workload", who, found)
	}
	return found[0]
}

// checkReferences looks at what objects say about one another.
func (m *manifests) checkReferences(t *testing.T) {
	t.Helper()
	selector := func(s *meta.LabelSelector) labels.Selector {
		parsed, err := meta.LabelSelectorAsSelector(s)
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	headless := map[string][]string{} // names of ports, by name of the service
	for _, s := range m.services {
		w := m.selected(t, "Service "+s.Name, labels.SelectorFromSet(s.Spec.Selector))
		for _, p := range s.Spec.Ports {
			if !hasPort(w.template.Spec.Containers[0], p.TargetPort.String()) {
				t.Errorf("Service %s: %s has no port %s", s.Name, w, p.TargetPort.String())
			}
			if s.Spec.ClusterIP == core.ClusterIPNone {
				headless[s.Name] = append(headless[s.Name], p.Name)
			}
		}
	}
	policies := map[string]int{}
	for _, p := range m.policies {
		who := "NetworkPolicy " + p.Name
		w := m.selected(t, who, selector(&p.Spec.PodSelector))
		policies[w.String()]++
		for _, rule := range p.Spec.Ingress {
			for _, port := range rule.Ports {
				if !hasPort(w.template.Spec.Containers[0], port.Port.String()) {
					t.Errorf("%s: %s has no port %s", who, w, port.Port)
				}
			}
			for _, from := range rule.From {
				m.selected(t, who, selector(from.PodSelector))
			}
			if len(rule.Ports) == 0 {
				t.Errorf("%s opens all ports", who)
			}
		}
	}
	budgets := map[string]int{}
	for _, b := range m.budgets {
		budgets[m.selected(t, "PodDisruptionBudget "+b.Name, selector(b.Spec.Selector)).String()]++
	}
	scalers := map[string]int{}
	for _, h := range m.scalers {
		scalers[h.Spec.ScaleTargetRef.Kind+"/"+h.Spec.ScaleTargetRef.Name]++
	}
	for _, w := range m.workloads {
		if m.selected(t, w.String(), selector(w.selector)).String() != w.String() {
			t.Errorf("%s does not select its own pods", w)
		}
		if budgets[w.String()] != 1 || policies[w.String()] != 1 {
			t.Errorf("%s has %d PodDisruptionBudgets and %d NetworkPolicies", w, budgets[w.String()], policies[w.String()])
		}
		// One that is scaled must have no number of its own: applying it would set it back.
		if (scalers[w.String()] == 1) != (w.replicas == nil) {
			t.Errorf("%s has %d autoscalers and replicas %v", w, scalers[w.String()], w.replicas)
		}
		delete(scalers, w.String())
		if w.kind == "StatefulSet" && w.name != "valkey" && headless[w.serviceName] == nil {
			t.Errorf("%s: serviceName %q is no headless Service", w, w.serviceName)
		}
		for _, e := range w.template.Spec.Containers[0].Env {
			if e.Name != "WORKERS_SRV" {
				continue
			}
			port, rest, _ := strings.Cut(strings.TrimPrefix(e.Value, "_"), "._tcp.")
			service, rest, _ := strings.Cut(rest, ".")
			if !slices.Contains(headless[service], port) || rest != "$(POD_NAMESPACE).svc.cluster.local" {
				t.Errorf("%s: WORKERS_SRV %q, and headless Services have %v", w, e.Value, headless)
			}
		}
	}
	if len(scalers) > 0 {
		t.Errorf("autoscalers of what is not there: %v", scalers)
	}
}

// granted reports whether a service account has a Role, which then has the rights that "resolver: k8s" needs and no others.
func (m *manifests) granted(account string) bool {
	if len(m.accounts) != 1 || len(m.roles) != 1 || len(m.bindings) != 1 {
		return false
	}
	rules, binding := m.roles[0].Rules, m.bindings[0]
	return m.accounts[0].Name == account &&
		len(rules) == 1 && slices.Equal(rules[0].APIGroups, []string{"discovery.k8s.io"}) &&
		slices.Equal(rules[0].Resources, []string{"endpointslices"}) && slices.Equal(rules[0].Verbs, []string{"list", "watch"}) &&
		binding.RoleRef.Kind == "Role" && binding.RoleRef.Name == m.roles[0].Name &&
		len(binding.Subjects) == 1 && binding.Subjects[0].Kind == "ServiceAccount" && binding.Subjects[0].Name == account
}

func hasPort(c core.Container, name string) bool {
	return slices.ContainsFunc(c.Ports, func(p core.ContainerPort) bool { return p.Name == name })
}

// redisSecret has the keys of the Secret that the README has you create.
var redisSecret = []string{"endpoint", "password", "ca.crt"}

// checkPod looks at what a pod may do and what it may use.
func (m *manifests) checkPod(t *testing.T, w workload) {
	t.Helper()
	pod := w.template.Spec
	if len(pod.Containers) != 1 {
		t.Fatalf("%s has %d containers", w, len(pod.Containers))
	}
	c := pod.Containers[0]
	if c.StartupProbe == nil || c.ReadinessProbe == nil || c.LivenessProbe == nil {
		t.Errorf("%s lacks a probe", w)
	}
	if s := c.SecurityContext; !*pod.SecurityContext.RunAsNonRoot || *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem ||
		!slices.Equal(s.Capabilities.Drop, []core.Capability{"ALL"}) || *pod.AutomountServiceAccountToken && !m.granted(pod.ServiceAccountName) {
		t.Errorf("%s may do more than it needs", w)
	}
	if c.Resources.Requests.Cpu().IsZero() || c.Resources.Limits.Memory().IsZero() {
		t.Errorf("%s: autoscaling by CPU needs a request, and memory_limiter a limit", w)
	}
}

// checkContainer looks at the Collector of a workload, and has it validate what it would get in there, which it returns.
func (m *manifests) checkContainer(t *testing.T, w workload) settings {
	t.Helper()
	pod := w.template.Spec
	c := pod.Containers[0]
	if _, tag, _ := strings.Cut(c.Image, "otelcol-deltaring:"); tag != distribution(t) {
		t.Errorf("%s: image %s, and the manifest of the Collector says %s", w, c.Image, distribution(t))
	}
	for name, probe := range map[string]*core.Probe{"startup": c.StartupProbe, "readiness": c.ReadinessProbe, "liveness": c.LivenessProbe} {
		if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Port.String() != "health" || !hasPort(c, "health") {
			t.Errorf("%s: no %s probe of the port health", w, name)
		}
	}
	if grace := pod.TerminationGracePeriodSeconds; grace == nil || c.Lifecycle != nil && *grace < c.Lifecycle.PreStop.Sleep.Seconds+35 {
		t.Errorf("%s: the grace period is too short", w)
	}

	// What the pod sees at its paths is in a directory here.
	directory := t.TempDir()
	var replace []string
	for _, mount := range c.VolumeMounts {
		replace = append(replace, mount.MountPath+"/", directory+mount.MountPath+"/")
		i := slices.IndexFunc(pod.Volumes, func(v core.Volume) bool { return v.Name == mount.Name })
		var err error
		switch {
		case slices.ContainsFunc(w.claims, func(v core.PersistentVolumeClaim) bool { return v.Name == mount.Name }):
		case i < 0:
			err = errors.New("no such volume")
		case pod.Volumes[i].ConfigMap != nil:
			name := pod.Volumes[i].ConfigMap.Name
			n := slices.IndexFunc(m.configs, func(c *core.ConfigMap) bool { return c.Name == name })
			if n < 0 {
				err = fmt.Errorf("no ConfigMap %s", name)
				break
			}
			err = os.MkdirAll(directory+mount.MountPath, 0o700)
			for file, content := range m.configs[n].Data {
				err = errors.Join(err, os.WriteFile(filepath.Join(directory+mount.MountPath, file), []byte(content), 0o600))
			}
		case pod.Volumes[i].Secret != nil:
			for _, item := range pod.Volumes[i].Secret.Items {
				err = errors.Join(err, checkSecret(pod.Volumes[i].Secret.SecretName, item.Key))
			}
		default:
			err = errors.New("a volume of a kind that is not expected")
		}
		if err != nil {
			t.Errorf("%s: volume mount %s: %v", w, mount.Name, err)
		}
	}
	env := []string{"PATH=" + os.Getenv("PATH")}
	for _, e := range c.Env {
		value := e.Value
		if from := e.ValueFrom; from != nil && from.SecretKeyRef != nil {
			if err := checkSecret(from.SecretKeyRef.Name, from.SecretKeyRef.Key); err != nil {
				t.Errorf("%s: %s: %v", w, e.Name, err)
			}
			value = "redis.example.com:6379" // or a password
		}
		env = append(env, e.Name+"="+value)
	}
	if slices.Contains(env, "REDIS_ENDPOINT=valkey:6379") && !slices.ContainsFunc(m.services, func(s *core.Service) bool {
		return s.Name == "valkey" && s.Spec.Ports[0].Port == 6379
	}) {
		t.Errorf("%s: there is no Service valkey", w)
	}
	var args []string
	for _, arg := range c.Args {
		args = append(args, strings.NewReplacer(replace...).Replace(arg))
	}
	checkAccepted(t, w.String(), env, args)
	return mergeConfig(t, env, args)
}

func checkSecret(name, key string) error {
	if name != "redis-state" || !slices.Contains(redisSecret, key) {
		return fmt.Errorf("no key %s of a Secret %s in the README", key, name)
	}
	return nil
}

// checkAccepted has the Collector validate a configuration with this environment alone, whose every variable must mean
// something to a configuration, to the Go runtime, or to another variable.
func checkAccepted(t *testing.T, who string, env, args []string) {
	t.Helper()
	cmd := exec.Command(binary(t), append([]string{"validate"}, args...)...)
	cmd.Env = env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v: %v\n%s", who, args, err, out)
	}
	configs, err := filepath.Glob("*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	known := strings.Join(env, "\n")
	for _, file := range configs {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		known += string(content)
	}
	for _, variable := range env {
		name, _, _ := strings.Cut(variable, "=")
		if name != "PATH" && name != "GOMEMLIMIT" && !strings.HasPrefix(name, "AWS_") && !slices.Contains(args, "--config=env:"+name) &&
			!strings.Contains(known, "${env:"+name+":-") && !strings.Contains(known, "$("+name+")") {
			t.Errorf("%s: nothing asks for the variable %s", who, name)
		}
	}
}
