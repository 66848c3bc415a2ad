// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package k8s

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"k8s.io/client-go/rest"

	"github.com/deltaring/deltaring/internal/kubetest"
	"github.com/deltaring/deltaring/ring"
	"github.com/deltaring/deltaring/ring/resolve"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestAPIServer holds the source against a real API server.
func TestAPIServer(t *testing.T) {
	s := kubetest.Start(t)
	(&cluster{Server: s, t: t}).do(http.MethodPost, "/api/v1/nodes", `{"metadata": {"name": "node"}}`) // where Pods are bound to
	t.Run("follows pods", func(t *testing.T) { followsPods(t, in(t, s, "pods")) })
	t.Run("names", func(t *testing.T) { names(t, in(t, s, "names")) })
	t.Run("ports", func(t *testing.T) { ports(t, in(t, s, "ports")) })
	t.Run("two families", func(t *testing.T) { twoFamilies(t, in(t, s, "families")) })
	t.Run("no service", func(t *testing.T) { noService(t, in(t, s, "none")) })
	t.Run("not granted", func(t *testing.T) { notGranted(t, in(t, s, "rbac")) })
	t.Run("watches break", func(t *testing.T) { watchesBreak(t, in(t, s, "breaks")) })
	t.Run("hundreds of slices", func(t *testing.T) { hundredsOfSlices(t, in(t, s, "huge")) })
	t.Run("storm", func(t *testing.T) { storm(t, in(t, s, "storm")) })
	t.Run("restart", func(t *testing.T) { restart(t, in(t, s, "restart")) }) // last: it has no server for a while
}

func followsPods(t *testing.T, c *cluster) {
	const debounce = time.Second
	c.service("workers", "")
	a, b := c.follow(Service{Name: "workers.pods"}, debounce), c.follow(Service{Name: "workers.pods.svc.cluster.local"}, debounce)
	a.awaitReport(resolve.Empty, `of 0 endpoints of Service "workers" in namespace "pods" none is ready`)
	if !a.now().last.Unknown {
		t.Error("the first lookup is not told as such")
	}
	c.pod("w-0", "10.0.0.1")
	a.awaitReport(resolve.Empty, "of 1 endpoints", "none is ready")
	c.ready("w-0", true)
	a.awaitMembers("10.0.0.1")
	for _, change := range []struct {
		what string
		do   func()
		want []string
	}{
		{"another one", func() { c.pod("w-1", "10.0.0.2"); c.ready("w-1", true) }, []string{"10.0.0.1", "10.0.0.2"}},
		{"not ready", func() { c.ready("w-0", false) }, []string{"10.0.0.2"}},
		{"ready again", func() { c.ready("w-0", true) }, []string{"10.0.0.1", "10.0.0.2"}},
		{"terminating", func() { c.terminate("w-0") }, []string{"10.0.0.2"}},
		{"gone, and another one", func() { c.remove("w-0"); c.pod("w-2", "10.0.0.3"); c.ready("w-2", true) }, []string{"10.0.0.2", "10.0.0.3"}},
	} {
		change.do()
		took := a.awaitMembers(change.want...)
		t.Logf("%s: followed in %v", change.what, took)
		if took > debounce+time.Second {
			t.Errorf("%s: it took %v, with a debounce of %v", change.what, took, debounce)
		}
		b.awaitMembers(change.want...)
		if epochOf(t, a) != epochOf(t, b) {
			t.Errorf("%s: two gateways route differently", change.what)
		}
	}
	// A change that is taken back within the debounce is none.
	patient := c.follow(Service{Name: "workers.pods"}, 4*time.Second)
	patient.awaitMembers("10.0.0.2", "10.0.0.3")
	c.ready("w-1", false)
	c.ready("w-1", true)
	c.pod("w-3", "10.0.0.4")
	c.ready("w-3", true)
	patient.awaitMembers("10.0.0.2", "10.0.0.3", "10.0.0.4")
	if n := patient.now().applied; n != 2 {
		t.Errorf("%d lists, want the first and the last", n)
	}
}

func epochOf(t *testing.T, f *follower) uint64 {
	var members []ring.Member
	for _, m := range f.now().members {
		members = append(members, m.Member)
	}
	r, err := ring.New(members)
	if err != nil {
		t.Fatal(err)
	}
	return r.Epoch()
}

func names(t *testing.T, c *cluster) {
	c.service("workers", "")
	c.service("others", "")
	c.workers(2)
	c.follow(Service{Name: "workers.names"}, 0).awaitAddresses("10.0.0.1 10.0.0.1:4317", "10.0.0.2 10.0.0.2:4317")
	c.follow(Service{Name: "workers.names", PodNames: true}, 0).awaitAddresses("w-0 10.0.0.1:4317", "w-1 10.0.0.2:4317")
	hostnames := c.follow(Service{Name: "workers.names", Hostnames: true, Ports: []string{"4318"}}, 0)
	hostnames.awaitAddresses("w-0.workers.names w-0.workers.names:4318", "w-1.workers.names w-1.workers.names:4318")
	// The Pods are not those of a StatefulSet with this serviceName.
	c.follow(Service{Name: "others.names", Hostnames: true}, 0).awaitReport(resolve.Empty, "return_hostnames: endpoints have no hostname")

	// The name is that of the Pod, so one that comes back at another address is the same member.
	pods := c.follow(Service{Name: "workers.names", PodNames: true, NotReady: true}, time.Hour)
	pods.awaitMembers("w-0", "w-1")
	c.ready("w-1", false)
	c.terminate("w-1")
	late := c.follow(Service{Name: "workers.names", PodNames: true, NotReady: true}, 0)
	late.awaitMembers("w-0", "w-1")
	c.remove("w-1")
	late.awaitMembers("w-0")
	c.pod("w-1", "10.0.0.9")
	late.awaitAddresses("w-0 10.0.0.1:4317", "w-1 10.0.0.9:4317")
}

func ports(t *testing.T, c *cluster) {
	c.service("workers", "")
	c.workers(1)
	c.follow(Service{Name: "workers.ports", Ports: []string{"other"}}, 0).awaitAddresses("10.0.0.1 10.0.0.1:8080")
	c.follow(Service{Name: "workers.ports", Ports: []string{"otlp", "other", "15317"}}, 0).awaitAddresses(
		"10.0.0.1:15317 10.0.0.1:15317", "10.0.0.1:4317 10.0.0.1:4317", "10.0.0.1:8080 10.0.0.1:8080")
	c.follow(Service{Name: "workers.ports", Ports: []string{"grpc"}}, 0).awaitReport(resolve.Empty, `port "grpc"`, "other, otlp")
	c.do(http.MethodPost, c.core("services"), `{"metadata": {"name": "portless"}, "spec": {"clusterIP": "None", "selector": {"app": "worker"}}}`)
	c.follow(Service{Name: "portless.ports", Ports: []string{"otlp"}}, 0).awaitReport(resolve.Empty, `port "otlp": the Service has no ports with names: write a number`)
	c.follow(Service{Name: "portless.ports", Ports: []string{"1"}}, 0).awaitAddresses("10.0.0.1 10.0.0.1:1")
}

func twoFamilies(t *testing.T, c *cluster) {
	c.service("workers", `, "ipFamilyPolicy": "RequireDualStack"`)
	c.service("six", `, "ipFamilies": ["IPv6"]`)
	for i := range 3 {
		name := fmt.Sprintf("w-%d", i)
		c.pod(name, fmt.Sprintf("10.0.0.%d", i+1), fmt.Sprintf("fd00::%d", i+1))
		c.ready(name, true)
	}
	both := c.follow(Service{Name: "workers.families"}, 0)
	both.await("slices of both families", func() bool {
		both.source.mu.Lock()
		defer both.source.mu.Unlock()
		return len(both.source.slices) >= 2
	})
	both.awaitMembers("10.0.0.1", "10.0.0.2", "10.0.0.3")
	c.follow(Service{Name: "six.families"}, 0).awaitAddresses("fd00::1 [fd00::1]:4317", "fd00::2 [fd00::2]:4317", "fd00::3 [fd00::3]:4317")
	c.follow(Service{Name: "workers.families", PodNames: true}, 0).awaitMembers("w-0", "w-1", "w-2")
}

func noService(t *testing.T, c *cluster) {
	f := c.follow(Service{Name: "workers.none"}, 0)
	f.awaitReport(resolve.Empty, `no EndpointSlice is of Service "workers" in namespace "none"`)
	c.workers(1)
	c.service("workers", "")
	f.awaitMembers("10.0.0.1")
	// Without the Service its slices go, by a controller that is not here, and the last good list is kept.
	c.do(http.MethodDelete, c.core("services/workers"), "")
	c.do(http.MethodDelete, "/apis/discovery.k8s.io/v1/namespaces/none/endpointslices", "")
	f.awaitReport(resolve.Empty)
	f.awaitMembers("10.0.0.1")
}

func notGranted(t *testing.T, c *cluster) {
	c.service("workers", "")
	c.workers(1)
	f := followWith(t, Service{Name: "workers.rbac"}, 0, c.config(kubetest.Nobody))
	f.awaitReport(resolve.Denied, `not allowed to list endpointslices in namespace "rbac"`, "verbs list and watch", "discovery.k8s.io", `User "nobody" cannot`)
	t.Log(f.now().last.Err)
	// With lists alone members are followed, but slowly, and that is told.
	c.grant("lists", "list")
	f.awaitMembers("10.0.0.1")
	f.awaitReport(resolve.Found, "not allowed to watch endpointslices")
	c.pod("w-9", "10.0.0.9")
	c.ready("w-9", true)
	f.awaitMembers("10.0.0.1", "10.0.0.9")
	c.grant("watches", "watch")
	f.await("no problems", func() bool { return f.last.Err == nil && len(f.last.Problems) == 0 })

	stranger := followWith(t, Service{Name: "workers.rbac"}, 0, c.config("wrong"))
	stranger.awaitReport(resolve.Denied, "does not accept the credentials")
}

// proxy hands connections on to a server, and can cut them.
type proxy struct {
	listener net.Listener
	target   string
	mu       sync.Mutex
	open     map[net.Conn]bool
	wg       sync.WaitGroup
}

func startProxy(t *testing.T, target string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, target: target, open: map[net.Conn]bool{}}
	p.wg.Go(p.serve)
	t.Cleanup(func() {
		_ = l.Close()
		p.cut()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) serve() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		p.open[client], p.open[server] = true, true
		p.mu.Unlock()
		for _, pair := range [][2]net.Conn{{client, server}, {server, client}} {
			p.wg.Go(func() {
				_, _ = io.Copy(pair[0], pair[1])
				_ = pair[0].Close()
				_ = pair[1].Close()
			})
		}
	}
}

func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.open {
		_ = conn.Close()
	}
	clear(p.open)
}

// watchesBreak has watches end every second by themselves, and all connections cut at every change.
func watchesBreak(t *testing.T, c *cluster) {
	c.service("workers", "")
	c.workers(1)
	p := startProxy(t, strings.TrimPrefix(c.URL, "https://"))
	config := c.config(kubetest.Admin)
	config.Host = "https://" + p.listener.Addr().String()
	f := followWith(t, Service{Name: "workers.breaks", Timeout: time.Second}, 0, config)
	f.awaitMembers("10.0.0.1")
	want := []string{"10.0.0.1"}
	for i := 2; i < 8; i++ {
		p.cut()
		name, ip := fmt.Sprintf("w-%d", i), fmt.Sprintf("10.0.0.%d", i)
		c.pod(name, ip)
		c.ready(name, true)
		want = append(want, ip)
		t.Logf("followed in %v", f.awaitMembers(want...))
	}
}

func hundredsOfSlices(t *testing.T, c *cluster) {
	const slicesOf, each = 250, 20
	c.service("workers", "")
	var all []string
	for i := range slicesOf {
		var addresses []string
		for j := range each {
			addresses = append(addresses, fmt.Sprintf("10.1.%d.%d", i, j))
		}
		c.slice(http.MethodPost, fmt.Sprintf("slice-%d", i), "workers", addresses)
		all = append(all, addresses...)
	}
	f := c.follow(Service{Name: "workers.huge"}, 0)
	f.awaitReport(resolve.Failed, "5000 members, more than max_members, 1000")
	began := time.Now()
	list, err := f.source.Find(t.Context())
	if err != nil || len(list.Members) != slicesOf*each {
		t.Errorf("%d members, %v", len(list.Members), err)
	}
	t.Logf("%d members in %d slices: found in %v", len(list.Members), slicesOf, time.Since(began))
	// The same endpoint in two slices, as when it moves from one to another, is one member.
	c.slice(http.MethodPost, "twice", "workers", all[:5])
	f.await("the slice", func() bool {
		f.source.mu.Lock()
		defer f.source.mu.Unlock()
		return f.source.slices["twice"] != nil
	})
	f.awaitReport(resolve.Failed, "5000 members")
}

// storm has 1000 members, and ten changes a second for RING_STORM.
func storm(t *testing.T, c *cluster) {
	const slicesOf, each = 10, 100
	c.service("workers", "")
	addresses := func(slice, generation int) []string {
		var all []string
		for j := range each {
			all = append(all, fmt.Sprintf("10.%d.%d.%d", slice, generation%200, j))
		}
		return all
	}
	for i := range slicesOf {
		c.slice(http.MethodPost, fmt.Sprintf("slice-%d", i), "workers", addresses(i, 0))
	}
	var requests atomic.Int64
	config := c.config(kubetest.Admin)
	config.Wrap(func(rt http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			requests.Add(1)
			return rt.RoundTrip(r)
		})
	})
	f := followWith(t, Service{Name: "workers.storm"}, 0, config)
	f.await("1000 members", func() bool { return len(f.members) == slicesOf*each })
	memory := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	seconds := 15
	if testing.Short() {
		seconds = 5
	}
	if s := os.Getenv("RING_STORM"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil {
			t.Fatal(err)
		}
		seconds = int(d.Seconds())
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var before uint64
	var goroutines int
	for i := range seconds * 10 {
		if i == 20 {
			before, goroutines = memory(), runtime.NumGoroutine()
		}
		c.slice(http.MethodPut, fmt.Sprintf("slice-%d", i%slicesOf), "workers", addresses(i%slicesOf, i/slicesOf+1))
		<-tick.C
	}
	last := addresses((seconds*10-1)%slicesOf, seconds)[0]
	f.await("the last change", func() bool { return slices.Contains(f.names(), last) })
	after, seen := memory(), f.now()
	t.Logf("%d changes: %d requests, %d lookups, %d rings; heap %d KiB before, %d KiB after", seconds*10, requests.Load(), seen.lookups, seen.applied, before>>10, after>>10)
	if n := requests.Load(); n > 4 {
		t.Errorf("%d requests to the API server", n)
	}
	if seen.lookups > seconds*11+10 {
		t.Errorf("%d lookups", seen.lookups)
	}
	if after > before+before/4+4<<20 {
		t.Errorf("the heap grew from %d to %d bytes", before, after)
	}
	if n := runtime.NumGoroutine(); n > goroutines+5 {
		t.Errorf("%d goroutines, %d before", n, goroutines)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// restart has the API server be away, for the resolver at work and for one that starts.
func restart(t *testing.T, c *cluster) {
	c.service("workers", "")
	c.workers(2)
	f := c.follow(Service{Name: "workers.restart"}, 0)
	f.awaitMembers("10.0.0.1", "10.0.0.2")
	c.Stop()
	f.awaitReport(resolve.Failed, "connection refused")
	if last := f.now().last; last.Unknown || last.Since.IsZero() {
		t.Errorf("%+v", last)
	}
	f.awaitMembers("10.0.0.1", "10.0.0.2")
	late := c.follow(Service{Name: "workers.restart"}, 0)
	late.awaitReport(resolve.Failed, "connection refused")
	if last := late.now().last; !last.Unknown {
		t.Errorf("%+v", last)
	}
	c.follow(Service{Name: "workers.restart"}, 0).stop() // with a server that is away
	c.Start()
	c.ready("w-1", false)
	t.Logf("followed in %v", f.awaitMembers("10.0.0.1"))
	t.Logf("and by one that started without a server in %v", late.awaitMembers("10.0.0.1"))
	f.awaitReport(resolve.Found)
}

// TestOddAnswers has an API server that answers what a good one seldom does.
func TestOddAnswers(t *testing.T) {
	status := func(w http.ResponseWriter, code int, reason string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		fmt.Fprintf(w, `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": %q, "code": %d, "message": "as the test wants"}`, reason, code)
	}
	for name, tc := range map[string]struct {
		answer  http.HandlerFunc
		outcome resolve.Outcome
		want    string
	}{
		"too many requests": {func(w http.ResponseWriter, _ *http.Request) { status(w, 429, "TooManyRequests") }, resolve.Failed, "as the test wants"},
		"an error":          {func(w http.ResponseWriter, _ *http.Request) { status(w, 500, "InternalError") }, resolve.Failed, "as the test wants"},
		"no API server":     {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }, resolve.Failed, "endpointslices"},
		"no answer": {func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
		}, resolve.Failed, "has not sent the EndpointSlices"},
		"no such API": {http.NotFound, resolve.Failed, "could not find"},
		"watches expire at once": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			if r.URL.Query().Get("watch") != "" {
				if r.URL.Query().Get("sendInitialEvents") != "" {
					status(w, 422, "Invalid")
					return
				}
				fmt.Fprint(w, `{"type": "ERROR", "object": {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410}}`)
				return
			}
			fmt.Fprint(w, `{"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1", "metadata": {"resourceVersion": "7"}, "items": [
				{"metadata": {"name": "a"}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {}}]}]}`)
		}, resolve.Found, ""},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(tc.answer)
			defer server.Close()
			f := followWith(t, Service{Name: "workers"}, 0, (&cluster{Server: &kubetest.Server{URL: server.URL}}).config(""))
			defer f.stop()
			f.awaitReport(tc.outcome, tc.want)
		})
	}
}

// TestHungWatch has an API server that stops talking without closing anything.
func TestHungWatch(t *testing.T) {
	slice := func(name, ip string) string {
		return fmt.Sprintf(`{"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "metadata": {"name": %q, "resourceVersion": "8"},
			"addressType": "IPv4", "endpoints": [{"addresses": [%q], "conditions": {}}]}`, name, ip)
	}
	var watches atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.URL.Query().Get("sendInitialEvents") != "":
			w.WriteHeader(http.StatusUnprocessableEntity)
			fmt.Fprint(w, `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Invalid", "code": 422}`)
		case r.URL.Query().Get("watch") != "":
			if watches.Add(1) > 1 {
				fmt.Fprintf(w, `{"type": "ADDED", "object": %s}`, slice("b", "10.0.0.2"))
			}
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		default:
			fmt.Fprintf(w, `{"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1", "metadata": {"resourceVersion": "7"}, "items": [%s]}`, slice("a", "10.0.0.1"))
		}
	}))
	defer server.Close()
	f := followWith(t, Service{Name: "workers", Timeout: time.Second}, 0, (&cluster{Server: &kubetest.Server{URL: server.URL}}).config(""))
	defer f.stop()
	f.awaitMembers("10.0.0.1")
	f.awaitMembers("10.0.0.1", "10.0.0.2")
}

// TestNamespace has a Service without one be in that of the kubeconfig, of the service account, or in "default".
func TestNamespace(t *testing.T) {
	was := namespaceFile
	t.Cleanup(func() { namespaceFile = was })
	dir := t.TempDir()
	namespaceFile = filepath.Join(dir, "namespace")
	namespace := func(name string, config *rest.Config) string {
		t.Helper()
		s, err := New(Service{Name: name, Timeout: time.Second}, config)
		if err != nil {
			t.Fatal(err)
		}
		return s.namespace
	}
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	here := &rest.Config{Host: "127.0.0.1:1"}
	if got := namespace("w", here); got != "default" {
		t.Errorf("nowhere: %q", got)
	}
	write("namespace", "otel\n")
	if got := namespace("w", here); got != "otel" {
		t.Errorf("in a Pod: %q", got)
	}
	if got := namespace("w.other", here); got != "other" {
		t.Errorf("with a namespace: %q", got)
	}
	write("config", `{apiVersion: v1, kind: Config, clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}], users: [{name: u}],
		contexts: [{name: x, context: {cluster: c, user: u, namespace: mine}}], current-context: x}`)
	t.Setenv("KUBECONFIG", filepath.Join(dir, "config"))
	if got := namespace("w", nil); got != "mine" {
		t.Errorf("with a kubeconfig: %q", got)
	}
	t.Setenv("KUBECONFIG", filepath.Join(dir, "none"))
	if _, err := New(Service{Name: "w"}, nil); err == nil || !strings.Contains(err.Error(), "no API server is known: in a Pod, set automountServiceAccountToken") {
		t.Errorf("without an API server: %v", err)
	}
}

func TestCheck(t *testing.T) {
	for _, tc := range []struct {
		service Service
		want    string
	}{
		{Service{}, "service: must be set"},
		{Service{Name: "a.b.c"}, "service: \"a.b.c\": write name, name.namespace"},
		{Service{Name: "a.b.svc"}, "service: \"a.b.svc\": write name, name.namespace"},
		{Service{Name: "a..svc.x"}, "service: \"a..svc.x\": "},
		{Service{Name: "Workers"}, "service: \"Workers\": "},
		{Service{Name: "a", Ports: []string{"1", "0"}}, "ports::1: port \"0\""},
		{Service{Name: "a", Ports: []string{"-1"}}, "ports::0: port \"-1\""},
		{Service{Name: "a", Ports: []string{"O"}}, "ports::0: \"O\" is neither"},
		{Service{Name: "a", Ports: []string{"1", "1"}}, "ports::1: 1 is listed twice"},
		{Service{Name: "a.b.svc.cluster.local", Ports: []string{"1", "otlp-grpc"}}, ""},
	} {
		got := ""
		if err := tc.service.Check(); err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, tc.want) || tc.want == "" && got != "" {
			t.Errorf("%+v: %q, want %q", tc.service, got, tc.want)
		}
	}
}
