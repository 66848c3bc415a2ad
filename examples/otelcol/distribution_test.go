// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// repository is the root of it.
const repository = "../.."

// distributionBlocks returns the code blocks of DISTRIBUTION.md: the manifest, what it needs in a clone, and the configuration.
func distributionBlocks(t *testing.T) (manifest, replaces, config string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository, "DISTRIBUTION.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$").FindAllStringSubmatch(string(text), -1)
	if len(blocks) != 3 {
		t.Fatalf("DISTRIBUTION.md has %d blocks of YAML, want 3", len(blocks))
	}
	return blocks[0][1], blocks[1][1], blocks[2][1]
}

// TestREADMEShowsWhatIsRun holds the blocks of the repository's README against those of DISTRIBUTION.md, which are built and run: what it shows
// of them is theirs, line by line and in their order.
func TestREADMEShowsWhatIsRun(t *testing.T) {
	manifest, _, config := distributionBlocks(t)
	text, err := os.ReadFile(filepath.Join(repository, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$").FindAllStringSubmatch(string(text), -1)
	if len(blocks) != 2 {
		t.Fatalf("README.md has %d blocks of YAML, want a manifest and a configuration", len(blocks))
	}
	for i, run := range []string{manifest, config} {
		rest := run
		for line := range strings.Lines(blocks[i][1]) {
			if _, after, found := strings.Cut(rest, line); found {
				rest = after
			} else {
				t.Errorf("DISTRIBUTION.md does not have this, or not here: %s", line)
			}
		}
	}
	// Telemetry is all that the README leaves out of the configuration.
	if left, _, _ := strings.Cut(config, "  telemetry:\n"); left != blocks[1][1] {
		t.Errorf("README.md has\n%s\nwant\n%s", blocks[1][1], left)
	}
}

// inClone puts the path of this working copy into the block that has one.
func inClone(t *testing.T, replaces string) string {
	t.Helper()
	clone, err := filepath.Abs(repository)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(replaces, "/path/to/deltaring", clone)
}

// buildDistribution has the Builder make what a manifest says, in a directory that has nothing else, and returns the directory.
func buildDistribution(t *testing.T, manifest string, env []string, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "manifest.yaml"), []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	runIn(t, dir, env, "go", append([]string{"run", builder, "--config", "manifest.yaml"}, args...)...)
	return dir
}

func runIn(t *testing.T, dir string, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return string(out)
}

// TestDistributionFromAClone does outside of this repository what DISTRIBUTION.md says, up to a configuration that is running.
func TestDistributionFromAClone(t *testing.T) {
	manifest, replaces, config := distributionBlocks(t)
	dir := buildDistribution(t, manifest+inClone(t, replaces), nil)
	if err := os.WriteFile(filepath.Join(dir, "config.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "build", "otelcol-mine")
	runIn(t, dir, []string{"OTLP_BACKEND=http://127.0.0.1:1"}, path, "validate", "--config", "config.yaml")
	c := startOnFreePorts(t, 4, func(ports []int) (*child, error) {
		health := loopback(ports[3])
		return start(t, "http://"+health, []string{
			"OTLP_BACKEND=http://127.0.0.1:1", "STATE_DIRECTORY=" + filepath.Join(dir, "state"), "HEALTH_ENDPOINT=" + health,
			"OTLP_GRPC_ENDPOINT=" + loopback(ports[0]), "OTLP_HTTP_ENDPOINT=" + loopback(ports[1]), fmt.Sprintf("TELEMETRY_PORT=%d", ports[2]),
		}, path, "--config", filepath.Join(dir, "config.yaml"))
	})
	c.stop(t)
}

// TestComponentsFromAClone takes each of our components alone, whose module the block of replacements must be enough for.
func TestComponentsFromAClone(t *testing.T) {
	manifest, replaces, _ := distributionBlocks(t)
	ours := regexp.MustCompile(`(?m)^  - gomod: github.com/deltaring/deltaring\S* v0\.0\.0.*\n(?:    import: .*\n)?`)
	lines := ours.FindAllString(manifest, -1)
	if len(lines) != 6 {
		t.Fatalf("the manifest has %d components of ours, want 6", len(lines))
	}
	kind := regexp.MustCompile(`(?m)^\w+:\n\n`)
	for _, line := range lines {
		module := strings.Fields(line)[2]
		t.Run(filepath.Base(module), func(t *testing.T) {
			alone := ours.ReplaceAllStringFunc(manifest, func(other string) string {
				if other == line {
					return line
				}
				return ""
			})
			buildDistribution(t, kind.ReplaceAllString(alone, "")+inClone(t, replaces), nil, "--skip-compilation")
		})
	}
}

// TestEveryModuleIsReplaced holds the block against the modules that there are.
func TestEveryModuleIsReplaced(t *testing.T) {
	_, replaces, _ := distributionBlocks(t)
	document, err := os.ReadFile(filepath.Join(repository, "RELEASING.md"))
	if err != nil {
		t.Fatal(err)
	}
	tags := strings.Fields(releasing(t, "tags", "v0.1.0", repository))
	for _, tag := range tags {
		dir := strings.TrimSuffix(strings.TrimSuffix(tag, "v0.1.0"), "/")
		module := strings.TrimSuffix("github.com/deltaring/deltaring/"+dir, "/")
		if line := fmt.Sprintf("  - %s => %s\n", module, strings.TrimSuffix("/path/to/deltaring/"+dir, "/")); !strings.Contains(replaces, line) {
			t.Errorf("DISTRIBUTION.md lacks %s", line)
		}
		if row := fmt.Sprintf("| `%s` | `%s` |\n", module, tag); !strings.Contains(string(document), row) {
			t.Errorf("RELEASING.md lacks %s", row)
		}
	}
	if n := strings.Count(replaces, "=>"); n != len(tags) {
		t.Errorf("DISTRIBUTION.md replaces %d modules, and there are %d", n, len(tags))
	}
}

// releasing runs the program of RELEASING.md.
func releasing(t *testing.T, args ...string) string {
	t.Helper()
	for i, arg := range args[2:] {
		absolute, err := filepath.Abs(arg)
		if err != nil {
			t.Fatal(err)
		}
		args[i+2] = absolute
	}
	return runIn(t, filepath.Join(repository, ".ci", "release"), nil, "go", append([]string{"run", "."}, args...)...)
}

// TestDistributionFromARelease does what RELEASING.md says with a copy, and has the Builder take all of our modules from a proxy that has
// what would be published: no line of it replaces anything.
func TestDistributionFromARelease(t *testing.T) {
	version := fmt.Sprintf("v0.1.%d", time.Now().Unix()) // which no cache has
	cache := strings.TrimSpace(runIn(t, repository, nil, "go", "env", "GOMODCACHE"))
	t.Cleanup(func() { forget(t, cache, version) })
	copied, proxy := t.TempDir(), t.TempDir()
	for _, file := range strings.Split(runIn(t, repository, nil, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"), "\x00") {
		if file == "" || strings.HasPrefix(file, "examples/") || strings.HasPrefix(file, ".") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(repository, file))
		if os.IsNotExist(err) {
			continue // deleted, and not yet committed
		}
		to := filepath.Join(copied, file)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(to), 0o755)
		}
		if err == nil {
			err = os.WriteFile(to, text, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	releasing(t, "set", version, copied)
	changes := filepath.Join(copied, "CHANGELOG.md")
	if err := os.WriteFile(changes, []byte("# Changelog\n\n## "+version+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	releasing(t, "check", version, copied)
	releasing(t, "proxy", version, copied, proxy)

	manifest, _, _ := distributionBlocks(t)
	behind := strings.TrimSpace(runIn(t, repository, nil, "go", "env", "GOPROXY"))
	env := []string{
		"GOPROXY=file://" + proxy + "," + behind, "GONOSUMDB=github.com/deltaring/*", "GOFLAGS=-modcacherw", "GOWORK=off",
	}
	dir := buildDistribution(t, strings.ReplaceAll(manifest, " v0.0.0", " "+version), env, "--skip-compilation")
	graph := runIn(t, filepath.Join(dir, "build"), env, "go", "list", "-m", "all")
	if n := strings.Count(graph, "github.com/deltaring/deltaring"); n < 4 || strings.Contains(graph, "=>") {
		t.Errorf("the distribution has %d of our modules, want 4 at least, and none replaced:\n%s", n, graph)
	}
	// As the Builder does, so that nothing but our packages is built.
	runIn(t, filepath.Join(dir, "build"), append(env, "CGO_ENABLED=0"), "go", "build", "-trimpath",
		"github.com/deltaring/deltaring/processor/d2cprocessor", "github.com/deltaring/deltaring/ring/ringexporter",
		"github.com/deltaring/deltaring/ring/lanesconnector", "github.com/deltaring/deltaring/processor/state/redisstate",
		"github.com/deltaring/deltaring/processor/state/postgresstate", "github.com/deltaring/deltaring/processor/state/s3state")
}

// forget removes a version of our modules from the cache.
func forget(t *testing.T, cache, version string) {
	t.Helper()
	for _, at := range []string{filepath.Join(cache, "github.com", "deltaring"), filepath.Join(cache, "cache", "download", "github.com", "deltaring")} {
		err := filepath.WalkDir(at, func(file string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && strings.HasSuffix(file, "@"+version):
				return skipAfter(os.RemoveAll(file))
			case !d.IsDir() && strings.HasPrefix(d.Name(), version+"."):
				return os.Remove(file)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

func skipAfter(err error) error {
	if err == nil {
		return fs.SkipDir
	}
	return err
}

// What is wrong with these configurations, validate cannot see and a start can, as DISTRIBUTION.md says.
func TestDryRun(t *testing.T) {
	_, _, config := distributionBlocks(t)
	for name, c := range map[string]struct{ from, to, want string }{
		"an extension that is not there":       {"storage: file_storage", "shared: redis_state", `state::shared: extension "redis_state" is not there`},
		"an extension of the other kind":       {"storage: file_storage", "shared: file_storage", "did you mean state::storage: file_storage?"},
		"a processor that is in two pipelines": {"metrics/out:", "metrics/b: {receivers: [otlp], processors: [d2c], exporters: [lanes]}\n    metrics/out:", "is in several pipelines"},
	} {
		t.Run(name, func(t *testing.T) {
			wrong := strings.ReplaceAll(config, c.from, c.to)
			if wrong == config {
				t.Fatalf("the configuration has no %q", c.from)
			}
			file := filepath.Join(t.TempDir(), "config.yaml")
			if err := os.WriteFile(file, []byte(wrong), 0o600); err != nil {
				t.Fatal(err)
			}
			ports := freePorts(t, 4)
			env := []string{"OTLP_BACKEND=http://127.0.0.1:1", "STATE_DIRECTORY=" + t.TempDir(), "HEALTH_ENDPOINT=" + loopback(ports[0]),
				"OTLP_GRPC_ENDPOINT=" + loopback(ports[1]), "OTLP_HTTP_ENDPOINT=" + loopback(ports[2]), fmt.Sprintf("TELEMETRY_PORT=%d", ports[3])}
			runIn(t, "", env, binary(t), "validate", "--config", file)
			cmd := exec.CommandContext(t.Context(), "timeout", "--preserve-status", "--signal=TERM", "60", binary(t), "--config", file)
			cmd.Env = append(os.Environ(), env...)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), c.want) {
				t.Errorf("%v, want an error and %q:\n%s", err, c.want, out)
			}
		})
	}
}

// TestDistributionWithoutBackend stops the configuration of DISTRIBUTION.md while its backend is away and a producer has no timeout: the
// producer gets an answer that it may retry, and the Collector ends.
func TestDistributionWithoutBackend(t *testing.T) {
	t.Parallel()
	_, _, config := distributionBlocks(t)
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	ports := freePorts(t, 5)
	cmd := exec.CommandContext(t.Context(), binary(t), "--config", file)
	cmd.Env = append(os.Environ(), "OTLP_BACKEND=http://"+loopback(ports[4]), "STATE_DIRECTORY="+t.TempDir(), "HEALTH_ENDPOINT="+loopback(ports[0]),
		"OTLP_GRPC_ENDPOINT="+loopback(ports[1]), "OTLP_HTTP_ENDPOINT="+loopback(ports[2]), fmt.Sprintf("TELEMETRY_PORT=%d", ports[3]))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if err := poll(func() error {
		resp, err := http.Get("http://" + loopback(ports[0]))
		if err != nil {
			return err
		}
		return resp.Body.Close()
	}); err != nil {
		t.Fatal(err)
	}
	now := time.Now().UnixNano()
	body := fmt.Sprintf(`{"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": "cups", "sum": {"aggregationTemporality": 1,
		"isMonotonic": true, "dataPoints": [{"asInt": "5", "startTimeUnixNano": "%d", "timeUnixNano": "%d"}]}}]}]}]}`, now-1e9, now)
	producer := http.Client{Timeout: patience} // so that the test ends
	resp, err := producer.Post("http://"+loopback(ports[2])+"/v1/metrics", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("status %s, want one that says to try again", resp.Status)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("the Collector does not end")
	}
}
