// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
)

// TestStart runs kubernetes/start as its pods would: the store with the arguments of its manifest, and two workers with the arguments,
// environment and files of theirs. The store is killed, and nothing may be lost with it.
func TestStart(t *testing.T) {
	t.Parallel()
	m := buildManifests(t, "start", "")
	container := func(name string) core.Container {
		for _, w := range m.workloads {
			if w.name == name {
				return w.template.Spec.Containers[0]
			}
		}
		t.Fatalf("no workload %s", name)
		return core.Container{}
	}
	v := startValkey(t, container("valkey"))

	worker := container("workers")
	env := []string{"env"}
	for _, e := range worker.Env {
		if !strings.HasPrefix(e.Name, "REDIS_") {
			continue // the test has its own ports and backend
		}
		value := e.Value
		switch {
		case value == "valkey:6379":
			value = v.addr
		case e.ValueFrom != nil && e.ValueFrom.SecretKeyRef.Key == "password":
			value = redisPassword
		}
		env = append(env, e.Name+"="+value)
	}
	for _, want := range []string{"REDIS_ENDPOINT=" + v.addr, "REDIS_PASSWORD=" + redisPassword, "REDIS_INSECURE=true"} {
		if !slices.Contains(env, want) {
			t.Fatalf("the workers have %q, not %s", env, want)
		}
	}
	var args []string
	for _, arg := range worker.Args {
		args = append(args, strings.Replace(arg, "/etc/otelcol/", "kubernetes/one-tier/", 1))
	}
	w := newWitness("")
	var nodes []*node
	for range 2 {
		n := newNode(t, w, "", args...)
		n.wrap = env
		n.start(t)
		nodes = append(nodes, n)
	}
	f := startSharedFleet(t, nodes...)
	f.awaitRounds(t)
	v.kill()
	if err := v.launch(); err != nil {
		t.Fatal(err)
	}
	f.awaitRounds(t)
	f.stop(t)
	f.finish(t)
	t.Log(f.summary())
	for _, n := range nodes {
		awaitTelemetry(t, &n.collector, 0, "otelcol_d2c_restarts")
		n.stop(t)
	}
}

// valkey is the store of kubernetes/valkey: its own server where it is installed, else Redis, of which it has the arguments.
type valkey struct {
	*child
	addr, binary string
	args         []string
}

func startValkey(t *testing.T, c core.Container) *valkey {
	t.Helper()
	v := &valkey{}
	for _, name := range []string{"valkey-server", "redis-server"} {
		if path, err := exec.LookPath(name); err == nil {
			v.binary = path
			break
		}
	}
	if v.binary == "" || !slices.Equal(c.Command, []string{"valkey-server"}) {
		t.Fatalf("this test needs the Redis server (Debian: apt-get install redis-server), or the manifest is not for it: %v", c.Command)
	}
	port := freePorts(t, 1)[0]
	v.addr = loopback(port)
	v.args = append(slices.Clone(c.Args), "--bind", "127.0.0.1")
	for of, with := range map[string]string{"/data": t.TempDir(), "6379": fmt.Sprint(port), "$(VALKEY_PASSWORD)": redisPassword} {
		i := slices.Index(v.args, of)
		if i < 0 {
			t.Fatalf("%q has no %s", c.Args, of)
		}
		v.args[i] = with
	}
	if err := v.launch(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		v.kill()
		if t.Failed() {
			t.Logf("log of %s:\n%s", v.binary, v.log.String())
		}
	})
	if got, err := v.ask("CONFIG GET maxmemory-policy"); err == nil {
		t.Errorf("without a password it answers %q", got)
	}
	for command, want := range map[string]string{
		"CONFIG GET maxmemory-policy": "noeviction", "CONFIG GET maxmemory": "1073741824", "CONFIG GET appendonly": "yes", "CONFIG GET save": "",
	} {
		if got, err := v.ask("AUTH "+redisPassword, command); err != nil || got != want {
			t.Errorf("%s: %q, want %q (%v)", command, got, want, err)
		}
	}
	return v
}

// launch starts the server, with what it had when it was killed.
func (v *valkey) launch() error {
	c, err := launch(nil, v.binary, v.args...)
	if err != nil {
		return err
	}
	v.child = c
	return poll(func() error {
		select {
		case <-c.exited:
			return fatal{fmt.Errorf("exited: %v\n%s", c.cmd.ProcessState, c.log.String())}
		default:
		}
		_, err := v.ask("AUTH "+redisPassword, "CONFIG GET port")
		return err
	})
}

// ask sends commands and returns the second string of the last answer, which is the value of CONFIG GET.
func (v *valkey) ask(commands ...string) (string, error) {
	conn, err := net.Dial("tcp", v.addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	answers := bufio.NewReader(conn)
	line := func() string {
		text, readErr := answers.ReadString('\n')
		err = cmp.Or(err, readErr)
		return strings.TrimSpace(text)
	}
	var value string
	for _, c := range commands {
		if _, err := fmt.Fprintf(conn, "%s\r\n", c); err != nil {
			return "", err
		}
		if first := line(); strings.HasPrefix(first, "-") {
			return "", errors.New(first)
		} else if strings.HasPrefix(first, "*") {
			line() // length and name
			line()
			line()
			value = line()
		}
	}
	return value, err
}
