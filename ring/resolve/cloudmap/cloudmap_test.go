// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package cloudmap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/deltaring/deltaring/ring/resolve"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// instance is what the API says of one.
type instance struct {
	InstanceID   string            `json:"InstanceId"`
	HealthStatus string            `json:"HealthStatus,omitempty"`
	Attributes   map[string]string `json:"Attributes"`
}

func at(id, ip string) instance {
	return instance{id, "HEALTHY", map[string]string{"AWS_INSTANCE_IPV4": ip, "AWS_INSTANCE_PORT": "4319"}}
}

// api is an HTTP server that speaks the protocol of Cloud Map's data plane, and holds one service.
type api struct {
	*httptest.Server
	mu        sync.Mutex
	instances []instance
	revision  int64
	requests  []string        // actions
	last      map[string]any  // the input of the last DiscoverInstances
	errors    []string        // to answer with, one after the other: "status code"
	denies    map[string]bool // actions
}

func startAPI(t *testing.T) *api {
	t.Helper()
	for key, value := range map[string]string{
		"AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "right", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_RETRY_MODE": "standard",
	} {
		t.Setenv(key, value)
	}
	a := &api{denies: map[string]bool{}}
	a.Server = httptest.NewServer(a)
	t.Cleanup(a.Close)
	return a
}

func (a *api) set(instances ...instance) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.instances = instances
	a.revision++
}

func (a *api) fail(errors ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.errors = errors
}

// asked returns the actions since it was called last.
func (a *api) asked() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := a.requests
	a.requests = nil
	return all
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	refuse := func(status int, code string) {
		w.Header().Set("X-Amzn-ErrorType", code)
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"__type": %q, "message": "as the test wants"}`, code)
	}
	action, ok := strings.CutPrefix(r.Header.Get("X-Amz-Target"), "Route53AutoNaming_v20170314.")
	a.requests = append(a.requests, action)
	authorization := r.Header.Get("Authorization")
	input := map[string]any{}
	switch err := json.NewDecoder(r.Body).Decode(&input); {
	case !ok || err != nil || r.Method != http.MethodPost:
		refuse(400, "UnknownOperationException")
		return
	case !strings.Contains(authorization, "Credential=right/") || !strings.Contains(authorization, "/eu-central-1/servicediscovery/aws4_request"):
		refuse(403, "UnrecognizedClientException")
		return
	case a.denies[action]:
		refuse(403, "AccessDeniedException")
		return
	case len(a.errors) > 0:
		status, code := 400, a.errors[0]
		_, _ = fmt.Sscan(code, &status, &code)
		a.errors = a.errors[1:]
		refuse(status, code)
		return
	case input["NamespaceName"] != "otel" && input["OwnerAccount"] != "123456789012":
		refuse(400, "NamespaceNotFound")
		return
	case input["ServiceName"] != "workers":
		refuse(400, "ServiceNotFound")
		return
	}
	output := map[string]any{"InstancesRevision": a.revision}
	if action == "DiscoverInstances" {
		a.last = input
		output["Instances"] = filtered(a.instances, input)
	}
	_ = json.NewEncoder(w).Encode(output)
}

func filtered(all []instance, input map[string]any) []instance {
	want := func(i instance) bool {
		return i.HealthStatus == "" || input["HealthStatus"] == "ALL" || i.HealthStatus == input["HealthStatus"]
	}
	found := []instance{}
	for _, i := range all {
		if want(i) {
			found = append(found, i)
		}
	}
	if input["HealthStatus"] == "HEALTHY_OR_ELSE_ALL" {
		found = filtered(all, map[string]any{"HealthStatus": "HEALTHY"})
		if len(found) == 0 {
			found = all
		}
	}
	most := 100
	if n, ok := input["MaxResults"].(float64); ok {
		most = int(n)
	}
	return found[:min(len(found), most)]
}

func (a *api) source(t *testing.T, change func(*Service)) *Source {
	t.Helper()
	s := Service{Namespace: "otel", Name: "workers", Timeout: 10 * time.Second, Endpoint: a.URL}
	if change != nil {
		change(&s)
	}
	source, err := New(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return source
}

// find returns members as "name address".
func find(t *testing.T, s *Source) ([]string, []error) {
	t.Helper()
	list, err := s.Find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, m := range list.Members {
		all = append(all, m.Name+" "+m.Address)
	}
	slices.Sort(all)
	return all, list.Problems
}

func wantMembers(t *testing.T, s *Source, want ...string) {
	t.Helper()
	if got, problems := find(t, s); !slices.Equal(got, want) || len(problems) > 0 {
		t.Errorf("%q, %v; want %q", got, problems, want)
	}
}

func wantError(t *testing.T, s *Source, is error, words ...string) {
	t.Helper()
	_, err := s.Find(t.Context())
	if err == nil || is != nil && !errors.Is(err, is) {
		t.Fatalf("%v, want %v", err, is)
	}
	if is == nil && (errors.Is(err, resolve.ErrDenied) || errors.Is(err, resolve.ErrNone)) {
		t.Errorf("%v is more than a failure", err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%v: lacks %q", err, w)
		}
	}
}

func TestMembers(t *testing.T) {
	a := startAPI(t)
	a.set(at("b", "10.0.0.2"), at("a", "10.0.0.1"),
		instance{"six", "", map[string]string{"AWS_INSTANCE_IPV6": "fd00::1"}},
		instance{"name", "", map[string]string{"AWS_INSTANCE_CNAME": "worker.example.com", "AWS_INSTANCE_PORT": "1"}},
	)
	wantMembers(t, a.source(t, nil), "a 10.0.0.1:4319", "b 10.0.0.2:4319", "name worker.example.com:1", "six [fd00::1]:4317")
	wantMembers(t, a.source(t, func(s *Service) { s.Port = "7" }), "a 10.0.0.1:7", "b 10.0.0.2:7", "name worker.example.com:7", "six [fd00::1]:7")
	if a.last["MaxResults"] != 1000.0 || a.last["HealthStatus"] != "HEALTHY" || a.last["OwnerAccount"] != nil {
		t.Errorf("asked with %v", a.last)
	}
	wantMembers(t, a.source(t, func(s *Service) { s.Namespace, s.OwnerAccount = "theirs", "123456789012" }),
		"a 10.0.0.1:4319", "b 10.0.0.2:4319", "name worker.example.com:1", "six [fd00::1]:4317")
}

func TestMoreThanHundredInstances(t *testing.T) {
	a := startAPI(t)
	many := func(n int) (all []instance) {
		for i := range n {
			all = append(all, at(fmt.Sprintf("i-%04d", i), fmt.Sprintf("10.0.%d.%d", i/250, i%250)))
		}
		return all
	}
	a.set(many(999)...)
	s := a.source(t, nil)
	if got, _ := find(t, s); len(got) != 999 {
		t.Errorf("%d members, want 999", len(got))
	}
	a.set(many(1200)...) // 1000 of them come, and nobody knows which
	wantError(t, s, nil, "1000 instances, the most that Cloud Map gives")
}

func TestHealth(t *testing.T) {
	a := startAPI(t)
	sick := at("b", "10.0.0.2")
	sick.HealthStatus = "UNHEALTHY"
	a.set(at("a", "10.0.0.1"), sick)
	status := func(status string) *Source { return a.source(t, func(s *Service) { s.HealthStatus = status }) }
	wantMembers(t, status(""), "a 10.0.0.1:4319")
	wantMembers(t, status("UNHEALTHY"), "b 10.0.0.2:4319")
	wantMembers(t, status("ALL"), "a 10.0.0.1:4319", "b 10.0.0.2:4319")
	wantMembers(t, status("HEALTHY_OR_ELSE_ALL"), "a 10.0.0.1:4319")
	a.set(sick)
	wantError(t, status(""), resolve.ErrNone, "no instances of health status HEALTHY in eu-central-1")
	wantMembers(t, status("HEALTHY_OR_ELSE_ALL"), "b 10.0.0.2:4319")
}

func TestHalfRegisteredInstances(t *testing.T) {
	a := startAPI(t)
	bad := at("c", "10.0.0.3")
	bad.Attributes["AWS_INSTANCE_PORT"] = "none"
	a.set(at("a", "10.0.0.1"), instance{"b", "", nil}, instance{"b2", "", map[string]string{}}, bad, instance{"", "", map[string]string{"AWS_INSTANCE_IPV4": "10.0.0.9"}})
	got, problems := find(t, a.source(t, nil))
	if !slices.Equal(got, []string{"a 10.0.0.1:4319"}) || len(problems) != 3 || !strings.Contains(fmt.Sprint(problems), `none of AWS_INSTANCE_IPV4, AWS_INSTANCE_IPV6 and AWS_INSTANCE_CNAME, and are left out, for instance "b"`) {
		t.Errorf("%q, %v", got, problems)
	}
	a.set()
	wantError(t, a.source(t, nil), resolve.ErrNone)
}

// TestRevision asks for instances only if some have come or gone, and where health counts each time.
func TestRevision(t *testing.T) {
	a := startAPI(t)
	a.set(at("a", "10.0.0.1"))
	all := a.source(t, func(s *Service) { s.HealthStatus = "ALL" })
	for range 3 {
		wantMembers(t, all, "a 10.0.0.1:4319")
	}
	a.set(at("b", "10.0.0.2"))
	wantMembers(t, all, "b 10.0.0.2:4319")
	want := []string{"DiscoverInstances", "DiscoverInstancesRevision", "DiscoverInstancesRevision", "DiscoverInstancesRevision", "DiscoverInstances"}
	if got := a.asked(); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	a.denies["DiscoverInstancesRevision"] = true
	wantMembers(t, all, "b 10.0.0.2:4319")
	a.asked()
	healthy := a.source(t, nil)
	for range 2 {
		wantMembers(t, healthy, "b 10.0.0.2:4319")
	}
	if got := a.asked(); !slices.Equal(got, []string{"DiscoverInstances", "DiscoverInstances"}) {
		t.Errorf("%q", got)
	}
}

func TestTrouble(t *testing.T) {
	a := startAPI(t)
	a.set(at("a", "10.0.0.1"))
	s := a.source(t, nil)
	wantMembers(t, s, "a 10.0.0.1:4319")
	a.fail("400 RequestLimitExceeded", "429 ThrottlingException") // the third attempt is answered
	wantMembers(t, s, "a 10.0.0.1:4319")
	a.fail(slices.Repeat([]string{"400 RequestLimitExceeded"}, 3)...)
	wantError(t, s, nil, "RequestLimitExceeded")
	a.fail(slices.Repeat([]string{"500 InternalFailure"}, 3)...)
	wantError(t, s, nil, "InternalFailure")
	a.fail("400 InvalidInput")
	wantError(t, s, nil, "InvalidInput")
	wantError(t, a.source(t, func(s *Service) { s.Namespace = "x" }), resolve.ErrNone, `no namespace "x" in eu-central-1`, "owner_account")
	wantError(t, a.source(t, func(s *Service) { s.Name = "x" }), resolve.ErrNone, `no service "x" in namespace "otel"`)
	a.denies["DiscoverInstances"] = true
	wantError(t, s, resolve.ErrDenied, "give the role servicediscovery:DiscoverInstances", "AccessDeniedException")
	delete(a.denies, "DiscoverInstances")

	t.Setenv("AWS_ACCESS_KEY_ID", "wrong")
	wantError(t, a.source(t, nil), resolve.ErrDenied, "UnrecognizedClientException")
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	wantError(t, a.source(t, nil), resolve.ErrDenied, "there are no AWS credentials")
	t.Setenv("AWS_ACCESS_KEY_ID", "right")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_REGION", "")
	wantError(t, a.source(t, nil), resolve.ErrDenied, "us-east-1, as AWS_REGION is not set")
	t.Setenv("AWS_REGION", "eu-central-1")
	a.Close()
	wantError(t, a.source(t, nil), nil, "connection refused")
}

// TestHungAPI has an API that takes requests and never answers.
func TestHungAPI(t *testing.T) {
	a := startAPI(t)
	hung := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then it is noticed that the client is gone
		<-r.Context().Done()
	}))
	t.Cleanup(hung.Close)
	s := a.source(t, func(s *Service) { s.Endpoint, s.Timeout = hung.URL, 100*time.Millisecond })
	wantError(t, s, nil, "deadline exceeded")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Find(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestFollowed has two gateways that see the same instances route alike.
func TestFollowed(t *testing.T) {
	a := startAPI(t)
	a.set(at("b", "10.0.0.2"), at("a", "10.0.0.1"))
	var lists [2][]resolve.Member
	for i := range lists {
		r := resolve.Resolver{Source: a.source(t, nil), Interval: 100 * time.Millisecond, MaxMembers: 10}
		ctx, cancel := context.WithCancel(t.Context())
		r.Follow(ctx, func(list []resolve.Member) error {
			lists[i] = slices.Clone(list)
			cancel()
			return nil
		}, func(resolve.Report) {})
		a.set(at("a", "10.0.0.1"), at("b", "10.0.0.2")) // in another order
	}
	if !slices.Equal(lists[0], lists[1]) || len(lists[0]) != 2 {
		t.Errorf("%v, %v", lists[0], lists[1])
	}
}

func TestCheck(t *testing.T) {
	for want, s := range map[string]Service{
		"namespace: must be set":                      {Name: "w"},
		"service_name: must be set":                   {Namespace: "n"},
		`health_status: "healthy" is none of HEALTHY`: {Namespace: "n", Name: "w", HealthStatus: "healthy"},
		`port: port "0"`:                              {Namespace: "n", Name: "w", Port: "0"},
		`owner_account: "1234"`:                       {Namespace: "n", Name: "w", OwnerAccount: "1234"},
	} {
		if err := s.Check(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
