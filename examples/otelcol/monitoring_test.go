// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// TestAlerts has promtool check and test the alerts, each of which must have been made to fire and to be silent, and looks
// for what they name.
func TestAlerts(t *testing.T) {
	promtool(t, "monitoring", "check", "rules", "alerts.yaml")
	promtool(t, "monitoring", "test", "rules", "alerts.test.yaml")

	var alerts struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	readYAML(t, "monitoring/alerts.yaml", &alerts)
	var tests struct {
		Tests []struct {
			AlertRuleTest []struct {
				Alertname string
				ExpAlerts []any `json:"exp_alerts"`
			} `json:"alert_rule_test"`
		}
	}
	readYAML(t, "monitoring/alerts.test.yaml", &tests)
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, test := range tests.Tests {
		for _, a := range test.AlertRuleTest {
			if len(a.ExpAlerts) > 0 {
				fires[a.Alertname] = true
			} else {
				silent[a.Alertname] = true
			}
		}
	}
	known := knownMetrics(t)
	n := 0
	for _, group := range alerts.Groups {
		for _, rule := range group.Rules {
			n++
			if !fires[rule.Alert] || !silent[rule.Alert] {
				t.Errorf("%s: tested to fire is %v, to be silent %v", rule.Alert, fires[rule.Alert], silent[rule.Alert])
			}
			for _, err := range known.check(rule.Expr) {
				t.Errorf("%s: %v", rule.Alert, err)
			}
		}
	}
	if n == 0 || n != len(fires) {
		t.Errorf("%d alerts, and tests of %d", n, len(fires))
	}
}

// TestDashboard looks at the layout, has promtool check every expression, and looks for what they name.
func TestDashboard(t *testing.T) {
	var dashboard struct {
		Title, UID    string
		SchemaVersion int
		Templating    struct {
			List []struct {
				Name, Type string
				Query      any
			}
		}
		Panels []panel
	}
	text, err := os.ReadFile("monitoring/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	var variables []string
	for _, v := range dashboard.Templating.List {
		variables = append(variables, v.Name)
	}
	if dashboard.Title == "" || dashboard.UID == "" || dashboard.SchemaVersion == 0 || !slices.Equal(variables, []string{"datasource", "job", "instance"}) {
		t.Errorf("%q %q %d %q", dashboard.Title, dashboard.UID, dashboard.SchemaVersion, variables)
	}
	known := knownMetrics(t)
	ids, taken := map[int]bool{}, map[[2]int]string{}
	var rules strings.Builder
	rules.WriteString("groups:\n- name: dashboard\n  rules:\n")
	for _, p := range dashboard.Panels {
		if p.ID == 0 || ids[p.ID] {
			t.Errorf("%s: id %d", p.Title, p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if was, found := taken[[2]int{x, y}]; found || x >= 24 {
					t.Fatalf("%q is where %q is, or outside", p.Title, was)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		refs := map[string]bool{}
		for _, target := range p.Targets {
			if refs[target.RefID] || target.Datasource.UID != "${datasource}" || p.FieldConfig.Defaults.Unit == "" {
				t.Errorf("%s: target %q of %q in %q", p.Title, target.RefID, target.Datasource.UID, p.FieldConfig.Defaults.Unit)
			}
			refs[target.RefID] = true
			expr := strings.NewReplacer("$__rate_interval", "5m", "$job", ".*", "$instance", ".*").Replace(target.Expr)
			if strings.Contains(expr, "$") {
				t.Errorf("%s: an unknown variable in %s", p.Title, target.Expr)
			}
			quoted, _ := json.Marshal(expr) // of a string; cannot fail
			fmt.Fprintf(&rules, "  - {record: 'panel_%d:%s', expr: %s}\n", p.ID, target.RefID, quoted)
			for _, err := range known.check(expr) {
				t.Errorf("%s: %v", p.Title, err)
			}
			for _, label := range regexp.MustCompile(`{{(\w+)}}`).FindAllStringSubmatch(target.LegendFormat, -1) {
				if !known.has(expr, label[1]) {
					t.Errorf("%s: the legend %q names a label that %s does not have", p.Title, target.LegendFormat, expr)
				}
			}
		}
		if len(refs) == 0 {
			t.Errorf("%s: shows nothing", p.Title)
		}
	}
	directory := t.TempDir()
	if err := os.WriteFile(filepath.Join(directory, "rules.yaml"), []byte(rules.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, directory, "check", "rules", "rules.yaml")
}

// TestAdapterQueries fills in the templates of the Prometheus Adapter as it does, and has promtool check what comes out.
func TestAdapterQueries(t *testing.T) {
	var adapter struct {
		Rules struct {
			Custom, External []struct {
				SeriesQuery, MetricsQuery string
				Name                      struct{ As string }
			}
		}
	}
	readYAML(t, "kubernetes/custom-metrics/prometheus-adapter.yaml", &adapter)
	known := knownMetrics(t)
	names := map[string]bool{}
	rules := "groups:\n- name: adapter\n  rules:\n"
	for _, r := range append(adapter.Rules.Custom, adapter.Rules.External...) {
		names[r.Name.As] = true
		series, _, _ := strings.Cut(r.SeriesQuery, "{")
		query := strings.NewReplacer("<<.Series>>", series, "<<.LabelMatchers>>", `namespace="default",pod=~"a|b"`, "<<.GroupBy>>", "pod").Replace(r.MetricsQuery)
		for _, expr := range []string{r.SeriesQuery, query} {
			for _, err := range known.check(expr) {
				t.Errorf("%s: %v", r.Name.As, err)
			}
			quoted, _ := json.Marshal(expr) // of a string; cannot fail
			rules += fmt.Sprintf("  - {record: 'adapter:%d', expr: %s}\n", strings.Count(rules, "record"), quoted)
		}
	}
	directory := t.TempDir()
	if err := os.WriteFile(filepath.Join(directory, "rules.yaml"), []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, directory, "check", "rules", "rules.yaml")
	asked, err := os.ReadFile("kubernetes/custom-metrics/kustomization.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`metric: {name: (\w+)}`).FindAllStringSubmatch(string(asked), -1) {
		if !names[m[1]] {
			t.Errorf("autoscalers ask for %s, and the adapter has %v", m[1], slices.Sorted(maps.Keys(names)))
		}
		delete(names, m[1])
	}
	if len(names) > 0 {
		t.Errorf("no autoscaler asks for %v", slices.Sorted(maps.Keys(names)))
	}
}

// panel is what is looked at in a panel of Grafana.
type panel struct {
	ID          int
	Type, Title string
	GridPos     struct{ X, Y, W, H int }
	FieldConfig struct{ Defaults struct{ Unit string } }
	Targets     []struct {
		RefID, Expr, LegendFormat string
		Datasource                struct{ UID string }
	}
}

func promtool(t *testing.T, directory string, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatalf("this test needs promtool (Debian: apt-get install prometheus): %v", err)
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = directory
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %v\n%s", cmd, err, out)
	}
}

func readYAML(t *testing.T, name string, into any) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// metrics are those that a Collector has, by name as it serves them.
type metrics map[string]metricKind

type metricKind struct {
	histogram bool
	labels    map[string][]string // the values of each; nil if any will do
}

// Labels that every series has once it is scraped, or that are made by an expression.
var scraped = []string{"job", "instance", "namespace", "pod", "le", "epoch"}

// knownMetrics reads what the components of this repository have from their metadata, and what the Collector has from the
// documentation of its modules, which says nothing of some of the labels.
func knownMetrics(t *testing.T) metrics {
	t.Helper()
	known := metrics{}
	for _, file := range []string{"../../processor/d2cprocessor/metadata.yaml", "../../processor/state/redisstate/metadata.yaml",
		"../../processor/state/postgresstate/metadata.yaml", "../../processor/state/s3state/metadata.yaml", "../../ring/ringexporter/metadata.yaml", "../../ring/lanesconnector/metadata.yaml"} {
		var metadata struct {
			Attributes map[string]struct {
				NameOverride string `json:"name_override"`
				Enum         []string
			}
			Telemetry struct {
				Metrics map[string]struct {
					Attributes []string
					Histogram  any
				}
			}
		}
		readYAML(t, file, &metadata)
		if len(metadata.Telemetry.Metrics) == 0 {
			t.Fatalf("%s has no metrics", file)
		}
		for name, m := range metadata.Telemetry.Metrics {
			kind := metricKind{histogram: m.Histogram != nil, labels: map[string][]string{}}
			for _, a := range m.Attributes {
				name := a
				if o := metadata.Attributes[a].NameOverride; o != "" {
					name = o
				}
				kind.labels[name] = metadata.Attributes[a].Enum
			}
			known["otelcol_"+name] = kind
		}
	}
	labels := map[string][]string{"receiver": nil, "processor": nil, "exporter": nil}
	heading := regexp.MustCompile(`(?m)^### (otelcol_\w+)$`)
	for name, file := range map[string]string{
		"go.opentelemetry.io/collector/service@v0.165.0":                          "documentation.md",
		"go.opentelemetry.io/collector/receiver/receiverhelper@v0.165.0":          "documentation.md",
		"go.opentelemetry.io/collector/processor/memorylimiterprocessor@v0.165.0": "documentation.md",
		"go.opentelemetry.io/collector/exporter/exporterhelper@v0.165.0":          "documentation.md",
	} {
		text, err := os.ReadFile(filepath.Join(module(t, name), file))
		if err != nil {
			t.Fatal(err)
		}
		found := heading.FindAllStringSubmatchIndex(string(text), -1)
		if len(found) == 0 {
			t.Fatalf("%s of %s has no metrics", file, name)
		}
		for i, at := range found {
			end := len(text)
			if i+1 < len(found) {
				end = found[i+1][0]
			}
			known[string(text[at[2]:at[3]])] = metricKind{strings.Contains(string(text[at[0]:end]), "| Histogram |"), labels}
		}
	}
	return known
}

// module returns where the files of a module are, which no go.mod here needs.
func module(t *testing.T, name string) string {
	t.Helper()
	cmd := exec.Command("go", "mod", "download", "-json", name)
	cmd.Dir = t.TempDir() // of no module
	out, err := cmd.Output()
	var downloaded struct{ Dir string }
	if err != nil || json.Unmarshal(out, &downloaded) != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return downloaded.Dir
}

var (
	token    = regexp.MustCompile(`([a-zA-Z_:][\w:]*)(\{[^}]*\})?`)
	matcher  = regexp.MustCompile(`(\w+)(=~|!~|!=|=)"([^"]*)"`)
	grouping = regexp.MustCompile(`by \(([^)]*)\)`)
)

// series are the metrics of an expression with their matchers: all that has some, or the prefix of the Collector's.
func series(expr string) (found [][2]string) {
	for _, m := range token.FindAllStringSubmatch(grouping.ReplaceAllString(expr, ""), -1) {
		if m[2] != "" || strings.HasPrefix(m[1], "otelcol_") {
			found = append(found, [2]string{m[1], m[2]})
		}
	}
	return found
}

// kind returns what a series is of.
func (known metrics) kind(name string) (metricKind, bool) {
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if base, found := strings.CutSuffix(name, suffix); found && known[base].histogram {
			return known[base], true
		}
	}
	kind, found := known[name]
	return kind, found && !kind.histogram
}

// check returns what an expression names that is not there.
func (known metrics) check(expr string) (errs []error) {
	all := series(expr)
	if len(all) == 0 {
		errs = append(errs, fmt.Errorf("no metric in %s", expr))
	}
	for _, s := range all {
		kind, found := known.kind(s[0])
		if !found {
			errs = append(errs, fmt.Errorf("no metric %s", s[0]))
			continue
		}
		for _, m := range matcher.FindAllStringSubmatch(s[1], -1) {
			label, value := m[1], m[3]
			if slices.Contains(scraped, label) {
				continue
			}
			values, found := kind.labels[label]
			pattern := regexp.QuoteMeta(value)
			if strings.Contains(m[2], "~") {
				pattern = value
			}
			if !found {
				errs = append(errs, fmt.Errorf("%s has no label %s", s[0], label))
			} else if values != nil && !slices.ContainsFunc(values, regexp.MustCompile("^(?:"+pattern+")$").MatchString) {
				errs = append(errs, fmt.Errorf("%s has no %s %s", s[0], label, value))
			}
		}
	}
	for _, by := range grouping.FindAllStringSubmatch(expr, -1) {
		for label := range strings.SplitSeq(by[1], ",") {
			if label = strings.TrimSpace(label); !known.has(expr, label) {
				errs = append(errs, fmt.Errorf("nothing in %s has a label %s", expr, label))
			}
		}
	}
	return errs
}

// has reports whether a label is one of some series in an expression.
func (known metrics) has(expr, label string) bool {
	if slices.Contains(scraped, label) {
		return true
	}
	return slices.ContainsFunc(series(expr), func(s [2]string) bool {
		kind, _ := known.kind(s[0])
		_, found := kind.labels[label]
		return found
	})
}
