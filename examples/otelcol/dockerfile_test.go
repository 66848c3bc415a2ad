// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// TestDockerfile reads the Dockerfile as BuildKit does, and runs its commands as they are written, one after the other, in a copy of
// what docker build would have of the repository. There is no engine in it: a directory stands for the build stage, and another for
// the image, which is then run for itself.
func TestDockerfile(t *testing.T) {
	t.Parallel()
	parsed, err := parser.Parse(bytes.NewReader(read(t, "Dockerfile")))
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range parsed.Warnings {
		t.Errorf("Dockerfile: %s", w.Short)
	}
	stages, global, err := instructions.Parse(parsed.AST, nil)
	if err != nil {
		t.Fatal(err)
	}
	args := map[string]string{}
	for _, a := range global {
		for _, arg := range a.Args {
			args[arg.Key] = arg.ValueString()
		}
	}
	if len(stages) != 2 || stages[0].Name != "build" || stages[0].BaseName != "${BUILD_IMAGE}" || stages[1].BaseName != "scratch" ||
		args["BUILD_IMAGE"] != "golang:${GO_VERSION}-bookworm" {
		t.Fatalf("stages %v, arguments %v", stages, args)
	}
	if mod := read(t, "build/go.mod"); !bytes.Contains(mod, []byte("\ngo "+args["GO_VERSION"]+".")) {
		t.Errorf("GO_VERSION is %s, and the Collector is built with another one", args["GO_VERSION"])
	}

	b := &imageBuild{out: t.TempDir(), image: t.TempDir(), source: t.TempDir(), env: map[string]string{}}
	copyContext(t, b.source)
	for _, c := range stages[0].Commands {
		b.run(t, c)
	}
	if want := strings.TrimPrefix(builder, "go.opentelemetry.io/collector/cmd/builder@v"); b.env["OCB_VERSION"] != want {
		t.Errorf("OCB_VERSION is %s, and the tests build with %s", b.env["OCB_VERSION"], want)
	}
	clear(b.env)
	for _, c := range stages[1].Commands {
		b.run(t, c)
	}
	if b.env["VERSION"] != distribution(t) {
		t.Errorf("VERSION is %s, and the manifest says %s", b.env["VERSION"], distribution(t))
	}
	if b.user != "10001:10001" || len(b.entrypoint) != 1 || len(b.command) != 1 || len(b.health) != 2 {
		t.Fatalf("user %q, entry point %q, command %q, health check %q", b.user, b.entrypoint, b.command, b.health)
	}
	b.check(t)
}

// imageBuild is a build of the Dockerfile under way.
type imageBuild struct {
	source, out, image          string            // the directories that stand for /src, /out and the image
	env                         map[string]string // of the stage
	user                        string
	entrypoint, command, health []string
}

// run does what a command of the Dockerfile says.
func (b *imageBuild) run(t *testing.T, command instructions.Command) {
	t.Helper()
	switch c := command.(type) {
	case *instructions.ArgCommand:
		for _, a := range c.Args {
			if a.Value != nil {
				b.env[a.Key] = *a.Value
			}
		}
	case *instructions.EnvCommand:
		for _, e := range c.Env {
			b.env[e.Key] = e.Value
		}
	case *instructions.RunCommand:
		cmd := exec.Command("sh", "-c", strings.Join(c.CmdLine, " "))
		cmd.Dir, cmd.Env = b.source, os.Environ()
		for key, value := range b.env {
			if key == "OUT" {
				value = b.out
			}
			cmd.Env = append(cmd.Env, key+"="+value)
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("RUN %v: %v\n%s", c.CmdLine, err, out)
		}
	case *instructions.CopyCommand:
		if c.From == "" { // the context, which is there
			return
		}
		if len(c.SourcePaths) != 1 || c.From != "build" || c.Chown != "" && c.Chown != "10001:10001" {
			t.Fatalf("%v", c)
		}
		from := c.SourcePaths[0]
		if under, found := strings.CutPrefix(from, "/out/"); found {
			from = filepath.Join(b.out, under) + from[len(strings.TrimRight(from, "/")):]
		}
		to := filepath.Join(b.image, c.DestPath)
		if info, err := os.Stat(from); err != nil {
			t.Fatalf("COPY %s: %v", c.SourcePaths[0], err)
		} else if info.IsDir() {
			err = errors.Join(os.MkdirAll(to, 0o755), os.CopyFS(to, os.DirFS(from)))
			if err != nil {
				t.Fatal(err)
			}
			return
		}
		content, err := os.ReadFile(from)
		if err = errors.Join(err, os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, content, 0o644)); err != nil {
			t.Fatal(err)
		}
	case *instructions.UserCommand:
		b.user = c.User
	case *instructions.EntrypointCommand:
		b.entrypoint = c.CmdLine
	case *instructions.CmdCommand:
		b.command = c.CmdLine
	case *instructions.HealthCheckCommand:
		b.health = c.Health.Test
	case *instructions.WorkdirCommand, *instructions.LabelCommand, *instructions.ExposeCommand:
	default:
		t.Fatalf("%s: not expected", command.Name())
	}
}

// check looks at what has become of the image, and runs it.
func (b *imageBuild) check(t *testing.T) {
	t.Helper()
	var files []string
	err := filepath.WalkDir(b.image, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, _ := filepath.Rel(b.image, path) // it is under it
		files = append(files, name)
		if info, err := entry.Info(); err != nil || info.Mode()&0o004 == 0 {
			t.Errorf("%s cannot be read by the user of the image: %v", name, err)
		}
		if !strings.HasPrefix(name, "etc/") {
			binary, err := elf.Open(path)
			if err != nil {
				return err
			}
			defer binary.Close()
			if needs, err := binary.ImportedLibraries(); err != nil || len(needs) > 0 || binary.Section(".interp") != nil {
				t.Errorf("%s needs %q, and the image has no libraries (%v)", name, needs, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"healthcheck", "otelcol-deltaring", "etc/ssl/certs/ca-certificates.crt"}
	configs, err := filepath.Glob("*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range configs {
		if c == "manifest.yaml" {
			continue
		}
		want = append(want, "etc/otelcol/"+c)
		if !bytes.Equal(read(t, filepath.Join(b.image, "etc/otelcol", c)), read(t, c)) {
			t.Errorf("%s in the image is not the tested one", c)
		}
	}
	slices.Sort(want)
	slices.Sort(files)
	if !slices.Equal(files, want) {
		t.Errorf("the image has\n%q, want\n%q", files, want)
	}
	if info, err := os.Stat(filepath.Join(b.image, "var/lib/otelcol-deltaring")); err != nil || !info.IsDir() {
		t.Errorf("there is no place for state: %v", err)
	}

	// In the image's own root, where the kernel lets us; there, nothing else is at hand.
	inside := []string{"unshare", "-rm", "sh", "-c", `mkdir -p "$0/proc" && mount --rbind /proc "$0/proc" && exec chroot "$0" "$@"`, b.image}
	if err := exec.Command("unshare", "-rm", "true").Run(); err != nil {
		t.Logf("no user namespaces (%v): the image is run in the root of this machine", err)
		inside = []string{"sh", "-c", `program=$1; shift; exec "$0$program" "$@"`, b.image}
		b.command[0] = strings.Replace(b.command[0], "/etc/", b.image+"/etc/", 1)
	}
	var env []string
	ports := freePorts(t, 4)
	port := regexp.MustCompile(`^0\.0\.0\.0:\d+$`)
	n := 0
	for _, name := range slices.Sorted(maps.Keys(b.env)) {
		value := b.env[name]
		if port.MatchString(value) {
			value = fmt.Sprintf("0.0.0.0:%d", ports[n])
			n++
		}
		env = append(env, name+"="+value)
	}
	env = append(env, fmt.Sprintf("TELEMETRY_PORT=%d", ports[3]))
	if n != 3 {
		t.Fatalf("the image listens at %v", b.env)
	}
	command := func(args ...string) *exec.Cmd {
		cmd := exec.Command(inside[0], append(inside[1:], args...)...)
		cmd.Env = append(os.Environ(), env...)
		return cmd
	}
	health := func() error {
		if out, err := command(b.health[1]).CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	if err := health(); err == nil {
		t.Error("healthy before it is started")
	}
	args := slices.Concat(inside[1:], b.entrypoint, b.command)
	c, err := launch(env, inside[0], args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.kill() })
	if err := poll(func() error {
		select {
		case <-c.exited:
			return fatal{errors.New("it has ended")}
		default:
			return health()
		}
	}); err != nil {
		t.Fatalf("%v\n%s", err, c.log.String())
	}
	c.stop(t)
	if err := health(); err == nil {
		t.Error("healthy after its end")
	}
	for _, config := range []string{"durable.yaml", "shared.yaml", "prometheus.yaml"} {
		path := "/etc/otelcol/" + config
		if inside[0] == "sh" {
			path = b.image + path
		}
		if out, err := command(b.entrypoint[0], "validate", "--config="+path).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", config, err, out)
		}
	}
}

// copyContext copies what docker build would send: what is in the repository, or will be, but for what is ignored.
func copyContext(t *testing.T, to string) {
	t.Helper()
	patterns, err := ignorefile.ReadAll(bytes.NewReader(read(t, "Dockerfile.dockerignore")))
	if err != nil {
		t.Fatal(err)
	}
	ignored, err := patternmatcher.New(patterns)
	if err != nil {
		t.Fatal(err)
	}
	const top = "../.."
	list := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = top
	names, err := list.Output()
	if err != nil {
		t.Fatalf("%v: %v", list, err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		if out, err := ignored.MatchesOrParentMatches(name); err != nil || out {
			if err != nil {
				t.Fatal(err)
			}
			continue
		}
		content, err := os.ReadFile(filepath.Join(top, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted, and not yet committed
		}
		path := filepath.Join(to, name)
		if err = errors.Join(err, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, content, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
}
