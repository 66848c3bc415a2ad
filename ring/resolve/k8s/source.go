// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package k8s

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/deltaring/deltaring/ring"
	"github.com/deltaring/deltaring/ring/resolve"
)

// Source is a resolve.Watcher.
type Source struct {
	service         Service
	name, namespace string
	lister          *listWatch
	answered        chan struct{} // closed when the API server has answered for the first time, or could not be asked

	mu      sync.Mutex
	changed func()
	slices  map[string]*discoveryv1.EndpointSlice // by name
	synced  bool
	// listed is when a list was last got. A failure of one verb since then is in failed.
	listed time.Time
	failed map[string]failure
}

type failure struct {
	err   error
	since time.Time
}

var _ resolve.Watcher = (*Source)(nil)

// retry is how an API server that does not answer is asked again: a fleet of gateways is small, so this can be often.
func retry() *wait.Backoff {
	return &wait.Backoff{Duration: 250 * time.Millisecond, Factor: 2, Cap: 2 * time.Second, Steps: 10, Jitter: 1}
}

// Watch watches the slices of the Service until ctx is done.
func (s *Source) Watch(ctx context.Context, changed func()) {
	s.mu.Lock()
	s.changed = changed
	s.mu.Unlock()
	logger := klog.New(nil) // says nothing: Find does
	r := cache.NewReflectorWithOptions(s.lister, &discoveryv1.EndpointSlice{}, store{s}, cache.ReflectorOptions{
		Logger: &logger, Name: "endpointslices", Backoff: retry(),
	})
	r.RunWithContext(klog.NewContext(ctx, logger))
}

// store is a Source as what watches the API server sees it.
type store struct{ *Source }

func (s store) update(f func(map[string]*discoveryv1.EndpointSlice)) error {
	s.mu.Lock()
	f(s.slices)
	s.mu.Unlock()
	s.tell()
	return nil
}

func (s store) Add(o any) error {
	slice := slim(o)
	return s.update(func(all map[string]*discoveryv1.EndpointSlice) { all[slice.Name] = slice })
}

func (s store) Update(o any) error { return s.Add(o) }

func (s store) Delete(o any) error {
	return s.update(func(all map[string]*discoveryv1.EndpointSlice) { delete(all, o.(*discoveryv1.EndpointSlice).Name) })
}

func (s store) Replace(objects []any, _ string) error {
	return s.update(func(all map[string]*discoveryv1.EndpointSlice) {
		clear(all)
		for _, o := range objects {
			slice := slim(o)
			all[slice.Name] = slice
		}
		s.synced = true
	})
}

func (store) Resync() error { return nil }

// slim returns a slice without what is of no use here, which is most of its bytes.
func slim(o any) *discoveryv1.EndpointSlice {
	slice := o.(*discoveryv1.EndpointSlice)
	slice.ManagedFields, slice.Annotations, slice.Labels, slice.OwnerReferences = nil, nil, nil, nil
	return slice
}

// tell has Find called.
func (s *Source) tell() {
	s.mu.Lock()
	changed := s.changed
	if s.synced || len(s.failed) > 0 {
		select {
		case <-s.answered:
		default:
			close(s.answered)
		}
	}
	s.mu.Unlock()
	changed()
}

// asked takes note of what came of a request.
func (s *Source) asked(verb string, err error) {
	// A list or watch from a version that is no longer kept is begun anew at once, from the current one.
	if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		err = nil
	}
	s.mu.Lock()
	was, failing := s.failed[verb]
	now := time.Now()
	switch {
	case err != nil && s.failed == nil:
		s.failed = map[string]failure{verb: {err, now}}
	case err != nil && failing:
		s.failed[verb] = failure{err, was.since}
	case err != nil:
		s.failed[verb] = failure{err, now}
	case verb == "watch":
		s.failed = nil // it can bring the whole list, so nothing else is needed
	default:
		s.listed = now
		delete(s.failed, verb)
	}
	s.mu.Unlock()
	if failing != (err != nil) || failing && was.err.Error() != err.Error() {
		s.tell()
	}
}

// opaque hides from the client those errors after which it would wait without minding that its context is done.
func opaque(err error) error {
	if err != nil && (utilnet.IsConnectionRefused(err) || apierrors.IsTooManyRequests(err)) {
		return errors.New(err.Error())
	}
	return err
}

// firstAnswer is how long Find waits for the first answer of the API server. If that takes longer it is said to be away, until
// it answers.
const firstAnswer = 5 * time.Second

// Find returns the members that are known, and waits for them if the API server has not been asked yet.
func (s *Source) Find(ctx context.Context) (resolve.List, error) {
	late := time.NewTimer(firstAnswer)
	defer late.Stop()
	select {
	case <-ctx.Done():
		return resolve.List{}, ctx.Err()
	case <-late.C:
	case <-s.answered:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var list resolve.List
	for _, verb := range []string{"list", "watch"} {
		f, ok := s.failed[verb]
		if !ok {
			continue
		}
		err := s.explain(verb, f.err)
		// Where lists are got, only watching is what fails, and nothing is missed: they are got again and again.
		if verb == "watch" && s.listed.After(f.since) && s.synced {
			list.Problems = append(list.Problems, err)
			continue
		}
		return list, err
	}
	if !s.synced {
		return list, fmt.Errorf("the API server has not sent the EndpointSlices of namespace %q yet", s.namespace)
	}
	if len(s.slices) == 0 {
		return list, fmt.Errorf("%w: no EndpointSlice is of Service %q in namespace %q: there is no such Service there, or it has no selector", resolve.ErrNone, s.name, s.namespace)
	}
	f := finder{Source: s, problems: map[string]string{}}
	f.find()
	list.Members = f.members
	for _, what := range slices.Sorted(maps.Keys(f.problems)) {
		list.Problems = append(list.Problems, fmt.Errorf("%s, for instance %s", what, f.problems[what]))
	}
	if len(f.members) == 0 && len(f.problems) == 0 {
		return list, fmt.Errorf("%w: of %d endpoints of Service %q in namespace %q none is ready", resolve.ErrNone, f.endpoints, s.name, s.namespace)
	}
	return list, nil
}

func (s *Source) explain(verb string, err error) error {
	switch {
	case apierrors.IsForbidden(err):
		return fmt.Errorf("%w to %s endpointslices in namespace %q: grant the service account the verbs list and watch on "+
			"resource endpointslices of API group discovery.k8s.io there, by a Role and a RoleBinding: %w", resolve.ErrDenied, verb, s.namespace, err)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("%w to %s endpointslices in namespace %q: the API server does not accept the credentials: %w", resolve.ErrDenied, verb, s.namespace, err)
	}
	return fmt.Errorf("%s endpointslices in namespace %q: %w", verb, s.namespace, err)
}

// finder makes members of slices.
type finder struct {
	*Source
	members   []resolve.Member
	endpoints int
	problems  map[string]string // what, and the first that it is about
}

func (f *finder) problem(what, of string) {
	if first, ok := f.problems[what]; !ok || of < first {
		f.problems[what] = of
	}
}

// find takes the slices of one family of addresses: a Service of two families has slices for each, with the same Pods in
// both. All that see the slices choose alike: IPv4 if there are any, even empty ones, then IPv6, then names.
func (f *finder) find() {
	families := map[discoveryv1.AddressType]bool{}
	for _, slice := range f.slices {
		families[slice.AddressType] = true
	}
	var family discoveryv1.AddressType
	for _, family = range []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6, discoveryv1.AddressTypeFQDN} {
		if families[family] {
			break
		}
	}
	// An endpoint that moves from one slice to another is in both for a while, or in neither: the debounce is for that.
	for _, slice := range f.slices {
		if slice.AddressType == family {
			f.findIn(slice)
		}
	}
}

func (f *finder) findIn(slice *discoveryv1.EndpointSlice) {
	if len(slice.Endpoints) == 0 {
		return // and so it may lack ports
	}
	var ports []string
	for _, port := range f.service.Ports {
		if _, err := strconv.Atoi(port); err == nil {
			ports = append(ports, port)
		} else if number := numberOf(port, slice.Ports); number != "" {
			ports = append(ports, number)
		} else {
			f.problem(fmt.Sprintf("port %q: %s", port, namesOf(slice.Ports)), "EndpointSlice "+slice.Name)
		}
	}
	if len(f.service.Ports) == 0 {
		ports = []string{resolve.DefaultPort}
	}
	for i := range slice.Endpoints {
		e := &slice.Endpoints[i]
		f.endpoints++
		if !f.takes(&e.Conditions) || len(e.Addresses) == 0 {
			continue
		}
		name, address := f.locate(e)
		if name == "" {
			continue
		}
		for _, port := range ports {
			m := resolve.Member{Member: ring.Member{Name: name, Weight: 1}, Address: net.JoinHostPort(address, port)}
			if len(f.service.Ports) > 1 {
				m.Name = net.JoinHostPort(name, port)
			}
			f.members = append(f.members, m)
		}
	}
}

// takes reports whether an endpoint in such a condition is a member. What is not said means ready, and not terminating.
func (f *finder) takes(c *discoveryv1.EndpointConditions) bool {
	is := func(condition *bool, unsaid bool) bool {
		if condition == nil {
			return unsaid
		}
		return *condition
	}
	ready := is(c.Ready, true)
	return f.service.NotReady || ready && is(c.Serving, ready) && !is(c.Terminating, false)
}

// locate returns an empty name if the endpoint has none.
func (f *finder) locate(e *discoveryv1.Endpoint) (name, address string) {
	address = e.Addresses[0] // all there is: a slice has the first one only
	switch {
	case f.service.Hostnames:
		if e.Hostname == nil || *e.Hostname == "" {
			f.problem("return_hostnames: endpoints have no hostname, and are left out: the Service must be headless, and the serviceName of their StatefulSet", address)
			return "", ""
		}
		name = *e.Hostname + "." + f.name + "." + f.namespace
		return name, name
	case f.service.PodNames:
		if e.TargetRef == nil || e.TargetRef.Kind != "Pod" || e.TargetRef.Name == "" {
			f.problem("pod_names: endpoints are no Pods, and are left out", address)
			return "", ""
		}
		return e.TargetRef.Name, address
	}
	return address, address
}

func numberOf(name string, ports []discoveryv1.EndpointPort) string {
	for _, p := range ports {
		if p.Name != nil && *p.Name == name && p.Port != nil {
			return strconv.Itoa(int(*p.Port))
		}
	}
	return ""
}

func namesOf(ports []discoveryv1.EndpointPort) string {
	var all []string
	for _, p := range ports {
		if p.Name != nil && *p.Name != "" {
			all = append(all, *p.Name)
		}
	}
	if len(all) == 0 {
		return "the Service has no ports with names: write a number"
	}
	slices.Sort(all)
	return "the Service has no port of that name, but " + strings.Join(all, ", ")
}
