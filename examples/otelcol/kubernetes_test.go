// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
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
	policy "k8s.io/api/policy/v1"
	rbac "k8s.io/api/rbac/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// TestKubernetes builds the manifests as kubectl does, decodes them as strictly as an API server does, and looks at what no
// schema says: that whatever refers to something refers to something that is there, and that the Collector accepts its
// arguments, environment and files.
func TestKubernetes(t *testing.T) {
	for _, tc := range []struct {
		name, kustomization string
		configs             []string // in ConfigMaps
		scaled              int      // workloads with an autoscaler
		metrics             int      // of all autoscalers
	}{
		{"one-tier", "", []string{"shared.yaml"}, 1, 1},
		{"two-tier", "", []string{"gateway-shared.yaml", "gateway.yaml", "shared.yaml"}, 2, 2},
		{"two-tier-durable", "", []string{"durable.yaml", "gateway.yaml"}, 1, 1},
		{"two-tier-custom-metrics", "resources: [../two-tier]\ncomponents: [../custom-metrics]\n",
			[]string{"gateway-shared.yaml", "gateway.yaml", "shared.yaml"}, 2, 5},
		{"two-tier-k8s-resolver", "resources: [../two-tier]\ncomponents: [../k8s-resolver]\n",
			[]string{"gateway-k8s.yaml", "gateway-shared.yaml", "gateway.yaml", "shared.yaml"}, 2, 2},
		{"two-tier-durable-k8s-resolver", "resources: [../two-tier-durable]\ncomponents: [../k8s-resolver]\n",
			[]string{"durable.yaml", "gateway-k8s.yaml", "gateway.yaml"}, 1, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := buildManifests(t, tc.name, tc.kustomization)
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
			if !slices.Equal(configs, tc.configs) {
				t.Errorf("the ConfigMaps have %q, want %q", configs, tc.configs)
			}
			metrics := 0
			for _, h := range m.scalers {
				metrics += len(h.Spec.Metrics)
			}
			if len(m.scalers) != tc.scaled || metrics != tc.metrics {
				t.Errorf("%d autoscalers with %d metrics, want %d with %d", len(m.scalers), metrics, tc.scaled, tc.metrics)
			}
			m.checkReferences(t)
			tiers := map[string]settings{}
			for _, w := range m.workloads {
				tiers[w.String()] = m.checkContainer(t, w)
			}
			checkTiers(t, tiers)
		})
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

// buildManifests builds a directory of kubernetes/, or one that would be beside them and has this kustomization.
func buildManifests(t *testing.T, directory, kustomization string) *manifests {
	t.Helper()
	disk := filesys.MakeFsInMemory()
	copyIn := func(name string) error {
		content, err := os.ReadFile(name)
		return errors.Join(err, disk.WriteFile(path.Join("/otelcol", filepath.ToSlash(name)), content))
	}
	configs, err := filepath.Glob("*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range configs {
		err = errors.Join(err, copyIn(name))
	}
	err = errors.Join(err, filepath.WalkDir("kubernetes", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		return copyIn(name)
	}))
	root := path.Join("/otelcol/kubernetes", directory)
	if kustomization != "" {
		err = errors.Join(err, disk.WriteFile(path.Join(root, "kustomization.yaml"), []byte(kustomization)))
	}
	if err != nil {
		t.Fatal(err)
	}
	options := krusty.MakeDefaultOptions()
	options.LoadRestrictions = types.LoadRestrictionsNone
	resources, err := krusty.MakeKustomizer(options).Run(disk, root)
	if err != nil {
		t.Fatal(err)
	}

	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		apps.AddToScheme, autoscaling.AddToScheme, core.AddToScheme, policy.AddToScheme, rbac.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	decoder := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Yaml: true, Strict: true})
	m := &manifests{}
	for _, r := range resources.Resources() {
		text, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		m.texts = append(m.texts, text)
		object, _, err := decoder.Decode(text, nil, nil)
		if err != nil {
			t.Fatalf("%s: %v\n%s", r.CurId(), err, text)
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
		case *policy.PodDisruptionBudget:
			m.budgets = append(m.budgets, o)
		case *autoscaling.HorizontalPodAutoscaler:
			m.scalers = append(m.scalers, o)
		case *apps.Deployment:
			m.workloads = append(m.workloads, workload{
				r.GetKind(), o.Name, o.Spec.Replicas, o.Spec.Selector, o.Spec.Template, nil, "",
			})
		case *apps.StatefulSet:
			m.workloads = append(m.workloads, workload{
				r.GetKind(), o.Name, o.Spec.Replicas, o.Spec.Selector, o.Spec.Template, o.Spec.VolumeClaimTemplates, o.Spec.ServiceName,
			})
		default:
			t.Errorf("%s: not expected", r.CurId())
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
		if budgets[w.String()] != 1 {
			t.Errorf("%s has %d PodDisruptionBudgets", w, budgets[w.String()])
		}
		// One that is scaled must have no number of its own: applying it would set it back.
		if (scalers[w.String()] == 1) != (w.replicas == nil) {
			t.Errorf("%s has %d autoscalers and replicas %v", w, scalers[w.String()], w.replicas)
		}
		delete(scalers, w.String())
		if w.kind == "StatefulSet" && headless[w.serviceName] == nil {
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

// checkContainer looks at the pod of a workload, and has the Collector validate what it would get in there, which it returns.
func (m *manifests) checkContainer(t *testing.T, w workload) settings {
	t.Helper()
	pod := w.template.Spec
	if len(pod.Containers) != 1 {
		t.Fatalf("%s has %d containers", w, len(pod.Containers))
	}
	c := pod.Containers[0]
	if !strings.HasPrefix(c.Image, "registry.example.com/otelcol-deltaring:") {
		t.Errorf("%s: image %s", w, c.Image)
	}
	for name, probe := range map[string]*core.Probe{"startup": c.StartupProbe, "readiness": c.ReadinessProbe, "liveness": c.LivenessProbe} {
		if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Port.String() != "health" || !hasPort(c, "health") {
			t.Errorf("%s: no %s probe of the port health", w, name)
		}
	}
	if grace := pod.TerminationGracePeriodSeconds; grace == nil || c.Lifecycle != nil && *grace < c.Lifecycle.PreStop.Sleep.Seconds+35 {
		t.Errorf("%s: the grace period is too short", w)
	}
	if s := c.SecurityContext; !*pod.SecurityContext.RunAsNonRoot || *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem ||
		!slices.Equal(s.Capabilities.Drop, []core.Capability{"ALL"}) || *pod.AutomountServiceAccountToken && !m.granted(pod.ServiceAccountName) {
		t.Errorf("%s may do more than it needs", w)
	}
	if c.Resources.Requests.Cpu().IsZero() || c.Resources.Limits.Memory().IsZero() {
		t.Errorf("%s: autoscaling by CPU needs a request, and memory_limiter a limit", w)
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
			value = "redis.example.com:6379"
		}
		env = append(env, e.Name+"="+value)
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
		if name != "PATH" && name != "GOMEMLIMIT" && !slices.Contains(args, "--config=env:"+name) &&
			!strings.Contains(known, "${env:"+name+":-") && !strings.Contains(known, "$("+name+")") {
			t.Errorf("%s: nothing asks for the variable %s", who, name)
		}
	}
}
