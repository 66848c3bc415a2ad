// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package k8s

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/deltaring/deltaring/internal/kubetest"
	"github.com/deltaring/deltaring/ring/resolve"
)

// patience bounds every wait for a condition; a healthy run needs a fraction of it.
const patience = 30 * time.Second

// cluster is a namespace of an API server.
type cluster struct {
	*kubetest.Server
	t         *testing.T
	namespace string
}

func in(t *testing.T, s *kubetest.Server, namespace string) *cluster {
	t.Helper()
	c := &cluster{s, t, namespace}
	c.do(http.MethodPost, "/api/v1/namespaces", fmt.Sprintf(`{"metadata": {"name": %q}}`, namespace))
	return c
}

// do wants the request to succeed.
func (c *cluster) do(method, path, body string) {
	c.t.Helper()
	contentType := "application/json"
	if method == http.MethodPatch {
		contentType = "application/merge-patch+json"
	}
	code, answer, err := c.Do(context.Background(), method, path, contentType, []byte(body))
	if err != nil || code >= 300 {
		c.t.Fatalf("%s %s: %d %s %v", method, path, code, answer, err)
	}
}

func (c *cluster) core(rest string) string { return "/api/v1/namespaces/" + c.namespace + "/" + rest }

// service makes a headless Service, whose members are the Pods made by pod.
func (c *cluster) service(name, more string) {
	c.t.Helper()
	c.do(http.MethodPost, c.core("services"), fmt.Sprintf(`{"metadata": {"name": %q}, "spec": {"clusterIP": "None",
		"selector": {"app": "worker"}, "ports": [{"name": "otlp", "port": 4317}, {"name": "other", "port": 80, "targetPort": 8080}] %s}}`, name, more))
}

// pod makes a Pod that is not ready.
func (c *cluster) pod(name string, ips ...string) {
	c.t.Helper()
	c.do(http.MethodPost, c.core("pods"), fmt.Sprintf(`{"metadata": {"name": %q, "labels": {"app": "worker"}},
		"spec": {"nodeName": "node", "hostname": %q, "subdomain": "workers", "terminationGracePeriodSeconds": 300,
		"containers": [{"name": "c", "image": "i"}]}}`, name, name))
	var all []map[string]string
	for _, ip := range ips {
		all = append(all, map[string]string{"ip": ip})
	}
	podIPs, _ := json.Marshal(all)
	c.do(http.MethodPatch, c.core("pods/"+name+"/status"), fmt.Sprintf(`{"status": {"phase": "Running", "podIP": %q, "podIPs": %s}}`, ips[0], podIPs))
}

func (c *cluster) ready(name string, ready bool) {
	c.t.Helper()
	status := map[bool]string{true: "True", false: "False"}[ready]
	c.do(http.MethodPatch, c.core("pods/"+name+"/status"), fmt.Sprintf(`{"status": {"conditions": [{"type": "Ready", "status": %q}]}}`, status))
}

// terminate deletes a Pod, which no kubelet ends: it stays, as one that takes its time.
func (c *cluster) terminate(name string) {
	c.t.Helper()
	c.do(http.MethodDelete, c.core("pods/"+name), "")
}

func (c *cluster) remove(name string) {
	c.t.Helper()
	c.do(http.MethodDelete, c.core("pods/"+name), `{"gracePeriodSeconds": 0}`)
}

// endpoints are pods that are ready, by name and address.
func (c *cluster) workers(n int) {
	c.t.Helper()
	for i := range n {
		name := fmt.Sprintf("w-%d", i)
		c.pod(name, fmt.Sprintf("10.0.0.%d", i+1))
		c.ready(name, true)
	}
}

// slice puts an EndpointSlice that no controller minds.
func (c *cluster) slice(method, name, service string, addresses []string) {
	c.t.Helper()
	endpoints := make([]string, len(addresses))
	for i, a := range addresses {
		endpoints[i] = fmt.Sprintf(`{"addresses": [%q], "conditions": {"ready": true}}`, a)
	}
	path := "/apis/discovery.k8s.io/v1/namespaces/" + c.namespace + "/endpointslices"
	if method == http.MethodPut {
		path += "/" + name
	}
	c.do(method, path, fmt.Sprintf(`{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
		"metadata": {"name": %q, "labels": {"kubernetes.io/service-name": %q}}, "addressType": "IPv4",
		"ports": [{"name": "otlp", "port": 4317, "protocol": "TCP"}], "endpoints": [%s]}`, name, service, strings.Join(endpoints, ",")))
}

// grant gives user nobody these verbs on EndpointSlices.
func (c *cluster) grant(name string, verbs ...string) {
	c.t.Helper()
	list, _ := json.Marshal(verbs)
	path := "/apis/rbac.authorization.k8s.io/v1/namespaces/" + c.namespace
	c.do(http.MethodPost, path+"/roles", fmt.Sprintf(`{"metadata": {"name": %q}, "rules": [{"apiGroups": ["discovery.k8s.io"],
		"resources": ["endpointslices"], "verbs": %s}]}`, name, list))
	c.do(http.MethodPost, path+"/rolebindings", fmt.Sprintf(`{"metadata": {"name": %q}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io",
		"kind": "Role", "name": %q}, "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "nobody"}]}`, name, name))
}

func (c *cluster) config(token string) *rest.Config {
	return &rest.Config{Host: c.URL, BearerToken: token, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
}

// follower is a Resolver at work.
type follower struct {
	t      *testing.T
	source *Source
	stop   func()

	mu      sync.Mutex
	changed chan struct{}
	state
}

// state is what a follower has seen.
type state struct {
	members []resolve.Member // not changed
	applied int
	last    resolve.Report
	lookups int
}

// now is for where the lock is not held, as it is by conditions of await.
func (f *follower) now() state {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state
}

// follow follows a Service until the test ends or stop is called.
func (c *cluster) follow(s Service, debounce time.Duration) *follower {
	c.t.Helper()
	return followWith(c.t, s, debounce, c.config(kubetest.Admin))
}

func followWith(t *testing.T, s Service, debounce time.Duration, config *rest.Config) *follower {
	t.Helper()
	if s.Timeout == 0 {
		s.Timeout = time.Minute
	}
	source, err := New(s, config)
	if err != nil {
		t.Fatal(err)
	}
	f := &follower{t: t, source: source, changed: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r := resolve.Resolver{Source: source, Debounce: debounce, MaxMembers: 1000}
		r.Follow(ctx, func(list []resolve.Member) error {
			f.change(func() {
				f.members = slices.Clone(list)
				f.applied++
			})
			return nil
		}, func(r resolve.Report) {
			f.change(func() {
				f.last = r
				f.lookups++
			})
		})
	}()
	f.stop = sync.OnceFunc(func() {
		began := time.Now()
		cancel()
		<-done
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("it took %v to stop", took)
		}
	})
	t.Cleanup(f.stop)
	return f
}

func (f *follower) change(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	close(f.changed)
	f.changed = make(chan struct{})
}

// await waits until a condition, called with the lock held, is true, and returns how long it took.
func (f *follower) await(what string, condition func() bool) time.Duration {
	f.t.Helper()
	began, late := time.Now(), time.After(patience)
	for {
		f.mu.Lock()
		ok, changed := condition(), f.changed
		f.mu.Unlock()
		if ok {
			return time.Since(began)
		}
		select {
		case <-changed:
		case <-late:
			f.mu.Lock()
			defer f.mu.Unlock()
			f.t.Fatalf("not within %v: %s; members %v, last report %+v", patience, what, f.names(), f.last)
		}
	}
}

func (f *follower) names() []string {
	names := make([]string, len(f.members))
	for i, m := range f.members {
		names[i] = m.Name
	}
	return names
}

func (f *follower) awaitMembers(names ...string) time.Duration {
	f.t.Helper()
	return f.await(fmt.Sprintf("members %q", names), func() bool { return slices.Equal(f.names(), names) })
}

func (f *follower) awaitAddresses(want ...string) {
	f.t.Helper()
	f.await(fmt.Sprintf("members %q", want), func() bool {
		var got []string
		for _, m := range f.members {
			got = append(got, m.Name+" "+m.Address)
		}
		return slices.Equal(got, want)
	})
}

func (f *follower) awaitReport(outcome resolve.Outcome, words ...string) {
	f.t.Helper()
	f.await(fmt.Sprintf("a report %s with %q", outcome, words), func() bool {
		text := fmt.Sprint(f.last.Err, f.last.Problems)
		return f.last.Outcome == outcome && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) })
	})
}
