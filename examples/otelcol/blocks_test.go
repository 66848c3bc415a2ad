// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"sigs.k8s.io/yaml"
)

// block is a code block of a document.
type block struct {
	file   string // from the root of the repository
	number int    // from 1
	kind   string // yaml, sh, ...
	text   string
}

func (b block) name() string { return fmt.Sprintf("%s %d", b.file, b.number) }

// elsewhere are blocks that other tests run, or compare with what they run.
var elsewhere = map[string]string{
	"DISTRIBUTION.md 1":                         "TestDistributionFromAClone",
	"DISTRIBUTION.md 2":                         "TestDistributionFromAClone",
	"DISTRIBUTION.md 4":                         "TestDistributionFromAClone",
	"DISTRIBUTION.md 7":                         "TestDryRun",
	"README.md 2":                               "TestREADMEShowsWhatIsRun",
	"README.md 3":                               "TestREADMEShowsWhatIsRun",
	"README.md 4":                               "TestREADME",
	"examples/blastradius/README.md 2":          "TestReadme",
	"examples/blastradius/README.md 3":          "TestReadme",
	"examples/blastradius/README.md 4":          "TestReadme",
	"examples/blastradius/README.md 5":          "TestReadme",
	"examples/blastradius/README.md 6":          "TestReadme",
	"examples/otelcol/kubernetes/README.md 2":   "TestKubernetes",
	"examples/quickstart/README.md 2":           "TestTheDemonstrationFitsATerminal",
	"examples/quickstart/README.md 5":           "TestServeShowsDropsLive",
	"examples/quickstart/README.md 6":           "TestServeUnderstandsTheCurlExample",
	"processor/state/postgresstate/README.md 2": "TestREADMEHasTheGrants",
	"processor/state/redisstate/README.md 3":    "TestLeastPermissions",
	"processor/state/redisstate/README.md 4":    "TestLeastPermissionsOfLogs",
}

// TestEveryBlockIsTested finds for every code block of every document what holds it against the code: another test, or here. Configurations
// are accepted by the Collector, alone or with what they leave out; what commands name is there: targets, tests, flags, files, variables.
func TestEveryBlockIsTested(t *testing.T) {
	var tests []string
	blocks := documentBlocks(t)
	if len(blocks) < 60 {
		t.Fatalf("%d blocks", len(blocks))
	}
	used := map[string]bool{}
	for _, b := range blocks {
		t.Run(b.name(), func(t *testing.T) {
			if test, ok := elsewhere[b.name()]; ok {
				used[b.name()] = true
				if tests == nil {
					tests = declared(t, repository, "Test")
				}
				if !slices.Contains(tests, test) {
					t.Errorf("%s is no test", test)
				}
				return
			}
			switch b.kind {
			case "yaml":
				b.checkYAML(t)
			case "sh", "":
				b.checkCommands(t)
			case "json":
				if !json.Valid([]byte(b.text)) {
					t.Errorf("no JSON: %s", b.text)
				}
			default:
				t.Errorf("nothing tests what is %q:\n%s", b.kind, b.text)
			}
		})
	}
	for name := range elsewhere {
		if !used[name] {
			t.Errorf("%s: there is no such block", name)
		}
	}
}

// documentBlocks returns all blocks of all documents.
func documentBlocks(t *testing.T) (blocks []block) {
	t.Helper()
	fence := regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$")
	err := filepath.WalkDir(repository, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != repository && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "build"):
			return fs.SkipDir
		case filepath.Ext(path) != ".md":
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(repository, path)
		if err != nil {
			return err
		}
		for i, m := range fence.FindAllStringSubmatch(string(text), -1) {
			blocks = append(blocks, block{filepath.ToSlash(name), i + 1, m[1], m[2]})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return blocks
}

// checkYAML has the Collector accept a configuration, or a part of one.
func (b block) checkYAML(t *testing.T) {
	var doc map[string]any
	if err := yaml.UnmarshalStrict([]byte(b.text), &doc); err != nil {
		t.Fatalf("%v:\n%s", err, b.text)
	}
	if manifest, is := builderModules(doc); is {
		for _, path := range manifest {
			path, version, _ := strings.Cut(path, " ")
			dir, ours := strings.CutPrefix(path, "github.com/deltaring/deltaring/")
			if _, err := os.Stat(filepath.Join(repository, dir, "go.mod")); !ours || err != nil || version != "v0.0.0" {
				t.Errorf("%s %s is no module of this repository, at the version that stands for a released one", path, version)
			}
		}
		return
	}
	// What stands alone is a component, or a part of the exporter.
	if resolver, ok := doc["resolver"]; ok {
		doc = map[string]any{"ring": map[string]any{"resolver": resolver}}
	}
	if ring, ok := doc["ring"].(map[string]any); ok {
		doc = map[string]any{"exporters": map[string]any{"ring": ring}}
	}
	whole := map[string]any{
		"receivers": map[string]any{"otlp": map[string]any{"protocols": map[string]any{"grpc": map[string]any{"endpoint": "localhost:4317"}}}},
		"exporters": map[string]any{"debug": map[string]any{}},
		"service": map[string]any{"pipelines": map[string]any{
			"metrics": map[string]any{"receivers": []any{"otlp"}, "exporters": []any{"debug"}},
		}},
	}
	if exporters, ok := doc["exporters"].(map[string]any); ok && exporters["ring"] != nil {
		whole["exporters"].(map[string]any)["ring"] = map[string]any{"protocol": map[string]any{"otlp": map[string]any{"tls": map[string]any{"insecure": true}}}}
		if ring := exporters["ring"].(map[string]any); ring["resolver"] == nil {
			ring["resolver"] = map[string]any{"static": map[string]any{"hostnames": []any{"localhost:4317"}}}
		}
	}
	if strings.Contains(b.text, "memory_limiter") {
		whole["processors"] = map[string]any{"memory_limiter": map[string]any{"check_interval": "1s", "limit_percentage": 80}, "d2c": map[string]any{}}
	}
	for _, m := range regexp.MustCompile(`\$\{env:(\w+)\}`).FindAllStringSubmatch(b.text, -1) {
		t.Setenv(m[1], "x")
	}
	var args []string
	for i, part := range []map[string]any{whole, doc} {
		text, err := yaml.Marshal(part)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), fmt.Sprintf("%d.yaml", i))
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", file)
	}
	if out, err := validate(t, args...); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// builderModules returns the modules of a part of a builder manifest.
func builderModules(doc map[string]any) (modules []string, is bool) {
	for _, section := range doc {
		items, _ := section.([]any)
		for _, item := range items {
			if fields, _ := item.(map[string]any); fields["gomod"] != nil {
				modules = append(modules, fmt.Sprint(fields["gomod"]))
			}
		}
	}
	return modules, len(modules) > 0
}

var (
	comment    = regexp.MustCompile(`(^|\s)#.*$`)
	assignment = regexp.MustCompile(`^([A-Z][A-Z0-9_]*)=(.*)$`)
	goFlag     = regexp.MustCompile(`^-{1,2}([a-z][a-z-]*)(=.*)?$`)
)

// checkCommands looks for all that the lines of a block name.
func (b block) checkCommands(t *testing.T) {
	dir := filepath.Join(repository, filepath.Dir(b.file))
	commands := 0
	for line := range strings.Lines(strings.ReplaceAll(b.text, "\\\n", " ")) {
		line = strings.TrimSpace(comment.ReplaceAllString(strings.TrimSpace(line), ""))
		at := dir
		if rest, ok := strings.CutPrefix(line, "(cd ../.. && "); ok {
			line, at = strings.TrimSuffix(rest, ")"), repository
		}
		words := strings.Fields(line)
		for len(words) > 0 {
			m := assignment.FindStringSubmatch(strings.TrimPrefix(words[0], "export "))
			if words[0] != "export" && m == nil {
				break
			}
			if m != nil {
				b.checkVariable(t, m[1])
				commands++
			}
			words = words[1:]
		}
		if len(words) == 0 {
			continue
		}
		commands++
		switch {
		case words[0] == "cd":
			dir = filepath.Join(dir, words[1])
		case words[0] == "make":
			checkMake(t, at, words[1:])
		case words[0] == "go" && words[1] == "test":
			checkGoTest(t, at, words[2:])
		case words[0] == "go" && words[1] == "run" && words[2] == ".":
			checkFlags(t, at, words[3:])
		case words[0] == "go" && words[1] == "run" && strings.Contains(words[2], "@"):
			if makefile := string(read(t, filepath.Join(repository, "Makefile"))); !strings.Contains(makefile, words[2]) {
				t.Errorf("the Makefile does not run %s", words[2])
			}
		case slices.Contains([]string{"docker", "kubectl", "helm", "aws", "apt-get", "for", "do", "done", "timeout"}, words[0]):
		case strings.HasPrefix(words[0], "./build/"):
			if _, over, ok := strings.Cut(line, "--config 'yaml:"); ok {
				checkMerged(t, strings.TrimSuffix(over, "'"))
			}
		default:
			t.Errorf("nothing tests %q", line)
		}
		for _, word := range words {
			b.checkFile(t, word)
		}
	}
	if commands == 0 {
		t.Errorf("nothing tests this:\n%s", b.text)
	}
}

// checkMerged has the Collector accept what is merged over the configuration of DISTRIBUTION.md.
func checkMerged(t *testing.T, over string) {
	_, _, config := distributionBlocks(t)
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("OTLP_BACKEND", "http://localhost:1")
	if out, err := validate(t, "--config", file, "--config", "yaml:"+over); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// checkFile looks for a file of the repository that is named, from where the document is or from a directory above.
func (b block) checkFile(t *testing.T, word string) {
	name := strings.TrimPrefix(word, "file://")
	if _, value, ok := strings.Cut(name, "=/etc/otelcol/"); ok { // where an image has it
		name = value
	}
	name = strings.TrimSuffix(strings.TrimSuffix(name, ";"), ",")
	inputs := strings.HasSuffix(name, ".yaml") || strings.HasPrefix(word, "file://") || strings.HasPrefix(name, "kubernetes/") ||
		strings.HasPrefix(name, "helm/") || strings.HasPrefix(name, "examples/")
	switch {
	case !inputs, strings.Contains(name, "..."), strings.Contains(name, "$f"):
		return
	case b.file == "DISTRIBUTION.md" || b.file == "examples/blastradius/README.md": // the reader's own
		return
	}
	names := []string{name}
	if strings.Contains(name, "$tier") {
		names = []string{strings.ReplaceAll(name, "$tier", "workers"), strings.ReplaceAll(name, "$tier", "gateways")}
	}
	for _, name := range names {
		found := false
		for dir := filepath.Dir(b.file); !found; dir = filepath.Dir(dir) {
			_, err := os.Stat(filepath.Join(repository, dir, name))
			if found = err == nil; dir == "." {
				break
			}
		}
		if !found {
			t.Errorf("there is no %s", name)
		}
	}
}

// checkVariable looks for a variable of the environment in what reads it: configurations, tests, or an SDK.
func (b block) checkVariable(t *testing.T, name string) {
	if strings.HasPrefix(name, "OTEL_") || strings.HasPrefix(name, "AWS_") {
		return
	}
	out, _ := exec.Command("grep", "-rlw", "--include=*.go", "--include=*.yaml", "--exclude-dir=.git", "--exclude-dir=build", name, repository).Output()
	if len(out) == 0 {
		t.Errorf("nothing reads %s", name)
	}
}

func checkMake(t *testing.T, dir string, args []string) {
	for len(args) > 1 && args[0] == "-C" {
		dir, args = filepath.Join(dir, args[1]), args[2:]
	}
	makefile := string(read(t, filepath.Join(repository, "Makefile")))
	for _, arg := range args {
		if m := assignment.FindStringSubmatch(arg); m != nil {
			if !strings.Contains(makefile, "$("+m[1]+")") {
				t.Errorf("the Makefile does not read %s", m[1])
			}
		} else if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(arg) + `:`).MatchString(makefile) {
			t.Errorf("there is no target %s", arg)
		}
	}
}

// checkGoTest looks for tests and benchmarks that the expressions match, in the directory of the document or above it.
func checkGoTest(t *testing.T, dir string, args []string) {
	for i, arg := range args {
		kind := map[string]string{"-run": "Test", "-bench": "Benchmark"}[arg]
		if kind == "" || i+1 == len(args) || args[i+1] == "-" || args[i+1] == "." || args[i+1] == "'^$'" {
			continue
		}
		first, _, _ := strings.Cut(strings.Trim(args[i+1], "'"), "/")
		expression, err := regexp.Compile(first)
		if err != nil {
			t.Error(err)
		} else if !slices.ContainsFunc(append(declared(t, dir, kind), declared(t, filepath.Dir(dir), kind)...), expression.MatchString) {
			t.Errorf("go test %s %s has nothing to run", arg, args[i+1])
		}
	}
}

// declared returns the names of the tests or benchmarks in a directory and below.
func declared(t *testing.T, dir, kind string) (names []string) {
	t.Helper()
	out, _ := exec.Command("grep", "-rhoE", "--include=*_test.go", "^func "+kind+`[A-Z]\w*\(`, dir).Output() // fails if it finds nothing
	for line := range strings.Lines(string(out)) {
		names = append(names, strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(line), "func "), "("))
	}
	return names
}

// usages has what programs say of their flags, by directory.
var usages sync.Map

// checkFlags asks the program in a directory for its flags.
func checkFlags(t *testing.T, dir string, args []string) {
	usage, ok := usages.Load(dir)
	if !ok {
		cmd := exec.Command("go", "run", ".", "-h")
		cmd.Dir = dir
		out, _ := cmd.CombinedOutput() // -h is no success everywhere
		usage = string(out)
		usages.Store(dir, usage)
	}
	for _, arg := range args {
		if m := goFlag.FindStringSubmatch(arg); m != nil && !regexp.MustCompile(`(?m)^\s+-`+m[1]+`\b`).MatchString(usage.(string)) {
			t.Errorf("in %s, there is no flag -%s in\n%s", dir, m[1], usage)
		}
	}
}
