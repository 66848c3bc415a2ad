// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Release sets and checks what the modules of this repository say of one another, for RELEASING.md.
//
//	go run . set v0.2.0 ROOT          writes the version into every go.mod
//	go run . check v0.2.0 ROOT        says what keeps consumers from using it
//	go run . tags v0.2.0 ROOT         prints the tags, in the order in which they are pushed
//	go run . proxy v0.2.0 ROOT DIR    writes a module proxy with what would be published
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
	"golang.org/x/mod/zip"
)

const home = "github.com/deltaring/deltaring"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 3 {
		return errors.New("want set, check, tags or proxy, a version, and the root of the repository")
	}
	version, root := args[1], args[2]
	if major := semver.Major(version); semver.Canonical(version) != version || major != "v0" && major != "v1" {
		return fmt.Errorf("version %q: want v0.x.y or v1.x.y; from v2 on the paths of modules end in it", version)
	}
	mods, err := published(root)
	if err != nil {
		return err
	}
	switch args[0] {
	case "set":
		return mods.set(version)
	case "check":
		return mods.check(version, root)
	case "tags":
		for _, m := range mods {
			fmt.Println(m.tag(version))
		}
		return nil
	case "proxy":
		if len(args) != 4 {
			return errors.New("proxy: want a directory")
		}
		return mods.proxy(version, args[3])
	}
	return fmt.Errorf("unknown command %q", args[0])
}

// mod is a module that is published.
type mod struct {
	dir, path string
	file      *modfile.File
}

// tag is the name under which Go looks for a version of the module.
func (m *mod) tag(version string) string {
	return path.Join(strings.TrimPrefix(strings.TrimPrefix(m.path, home), "/"), version)
}

// siblings are the modules of this repository that m requires.
func (m *mod) siblings() (required []module.Version) {
	for _, r := range m.file.Require {
		if r.Mod.Path == home || strings.HasPrefix(r.Mod.Path, home+"/") {
			required = append(required, r.Mod)
		}
	}
	return required
}

type mods []*mod

// published returns the modules, each behind those that it requires. What is in examples and in hidden directories is for this
// repository alone.
func published(root string) (mods, error) {
	found := map[string]*mod{}
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && file != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "examples" || d.Name() == "testdata"):
			return fs.SkipDir
		case d.Name() != "go.mod":
			return nil
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		parsed, err := modfile.Parse(file, text, nil)
		if err != nil {
			return err
		}
		m := &mod{filepath.Dir(file), parsed.Module.Mod.Path, parsed}
		found[m.path] = m
		return nil
	})
	if err != nil {
		return nil, err
	}
	var all mods
	seen := map[string]bool{}
	var add func(path string) error
	add = func(path string) error {
		m := found[path]
		switch {
		case m == nil:
			return fmt.Errorf("%s is required and is not published", path)
		case seen[path]:
			return nil
		}
		seen[path] = true
		for _, r := range m.siblings() {
			if err := add(r.Path); err != nil {
				return fmt.Errorf("%s: %w", m.path, err)
			}
		}
		all = append(all, m)
		return nil
	}
	for _, path := range slices.Sorted(maps.Keys(found)) {
		if err := add(path); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (all mods) set(version string) error {
	for _, m := range all {
		for _, r := range m.siblings() {
			if err := m.file.AddRequire(r.Path, version); err != nil {
				return err
			}
		}
		text, err := m.file.Format()
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(m.dir, "go.mod"), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// check looks at what consumers see: they ignore replace, so each requirement must be one that the proxy has.
func (all mods) check(version, root string) error {
	var errs []error
	for _, m := range all {
		for _, r := range m.siblings() {
			if r.Version != version {
				errs = append(errs, fmt.Errorf("%s requires %s %s, want %s", m.path, r.Path, r.Version, version))
			}
		}
		for _, r := range m.file.Replace {
			if r.Old.Path != home && !strings.HasPrefix(r.Old.Path, home+"/") {
				errs = append(errs, fmt.Errorf("%s replaces %s, which consumers do not", m.path, r.Old.Path))
			}
		}
	}
	changes, err := os.ReadFile(filepath.Join(root, "CHANGELOG.md"))
	if err != nil {
		return err
	}
	if !strings.Contains(string(changes), "\n## "+version+"\n") {
		errs = append(errs, fmt.Errorf("CHANGELOG.md has no section %s", version))
	}
	return errors.Join(errs...)
}

// proxy writes the modules as a proxy has them. It is a directory for GOPROXY=file://.
func (all mods) proxy(version, dir string) error {
	for _, m := range all {
		escaped, err := module.EscapePath(m.path)
		if err != nil {
			return err
		}
		at := filepath.Join(dir, filepath.FromSlash(escaped), "@v")
		if err := os.MkdirAll(at, 0o755); err != nil {
			return err
		}
		text, err := m.file.Format()
		if err != nil {
			return err
		}
		f, err := os.Create(filepath.Join(at, version+".zip"))
		if err != nil {
			return err
		}
		err = zip.CreateFromDir(f, module.Version{Path: m.path, Version: version}, m.dir)
		err = errors.Join(err, f.Close(),
			os.WriteFile(filepath.Join(at, version+".mod"), text, 0o644),
			os.WriteFile(filepath.Join(at, version+".info"), []byte(`{"Version":"`+version+`"}`), 0o644),
			os.WriteFile(filepath.Join(at, "list"), []byte(version+"\n"), 0o644))
		if err != nil {
			return fmt.Errorf("%s: %w", m.path, err)
		}
	}
	return nil
}
