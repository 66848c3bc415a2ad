// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package k8s

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/deltaring/deltaring/ring/resolve"
)

// Service says whose endpoints are members, and how they are named and reached.
type Service struct {
	// Name is that of the Service: name, name.namespace, or name.namespace.svc followed by the domain of the cluster.
	// Without a namespace it is that of the service account, or else that of the kubeconfig.
	Name string
	// Ports are those of members, as numbers or as names of ports of the Service. With several, each endpoint is as many
	// members, whose names have the port. None is resolve.DefaultPort.
	Ports []string
	// Hostnames has members named and reached as hostname.service.namespace. The Service must be headless, and the one that
	// the StatefulSet of the endpoints names in serviceName.
	Hostnames bool
	// PodNames has members named by their Pods, and reached at their addresses. Without it and Hostnames the address is the name.
	PodNames bool
	// NotReady has all endpoints be members, also those that are not ready or terminating. Otherwise it takes an endpoint that
	// is ready, serving, and not terminating, whatever publishNotReadyAddresses says.
	NotReady bool
	// Timeout bounds each request; a watch is begun anew after it.
	Timeout time.Duration
}

// Check returns an error if Name or Ports cannot be, which begins with "service" or "ports".
func (s *Service) Check() error {
	if _, _, err := s.split(); err != nil {
		return fmt.Errorf("service: %w", err)
	}
	seen := map[string]bool{}
	for i, port := range s.Ports {
		if _, err := strconv.Atoi(port); err == nil {
			if err := resolve.CheckPort(port); err != nil {
				return fmt.Errorf("ports::%d: %w", i, err)
			}
		} else if problems := validation.IsValidPortName(port); len(problems) > 0 {
			return fmt.Errorf("ports::%d: %q is neither the number nor the name of a port: %s", i, port, strings.Join(problems, ", "))
		}
		if seen[port] {
			return fmt.Errorf("ports::%d: %s is listed twice", i, port)
		}
		seen[port] = true
	}
	return nil
}

// split returns the namespace as empty if there is none.
func (s *Service) split() (name, namespace string, err error) {
	parts := strings.Split(strings.TrimSuffix(s.Name, "."), ".")
	if s.Name == "" {
		return "", "", errors.New("must be set")
	}
	if len(parts) > 2 && (parts[2] != "svc" || len(parts) == 3) {
		return "", "", fmt.Errorf("%q: write name, name.namespace, or name.namespace.svc.cluster.local", s.Name)
	}
	for _, part := range parts {
		if problems := validation.IsDNS1123Label(part); len(problems) > 0 {
			return "", "", fmt.Errorf("%q: %s", s.Name, strings.Join(problems, ", "))
		}
	}
	if len(parts) > 1 {
		namespace = parts[1]
	}
	return parts[0], namespace, nil
}

// namespaceFile is where a Pod has the namespace of its service account. Tests have another one.
var namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// New returns a source of the endpoints of a Service. A nil config is that of KUBECONFIG, of the service account, or of the
// kubeconfig at home, whichever is first.
func New(s Service, config *rest.Config) (*Source, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	name, namespace, err := s.split()
	if err != nil {
		return nil, err
	}
	if config == nil {
		loading := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(clientcmd.NewDefaultClientConfigLoadingRules(), nil)
		if config, err = loading.ClientConfig(); err != nil {
			return nil, fmt.Errorf("no API server is known: in a Pod, set automountServiceAccountToken to true; elsewhere, set KUBECONFIG: %w", err)
		}
		if namespace == "" && os.Getenv(clientcmd.RecommendedConfigPathEnvVar) != "" {
			namespace, _, _ = loading.Namespace()
		}
	}
	if namespace == "" {
		namespace = metav1.NamespaceDefault
		if content, err := os.ReadFile(namespaceFile); err == nil {
			namespace = strings.TrimSpace(string(content))
		}
	}
	client, err := newClient(config)
	if err != nil {
		return nil, err
	}
	source := &Source{service: s, name: name, namespace: namespace, slices: map[string]*discoveryv1.EndpointSlice{}}
	source.answered = make(chan struct{})
	source.lister = &listWatch{client: client, source: source}
	return source, nil
}

// newClient returns a client that knows EndpointSlices alone: a clientset of all there is takes 20 MB of the binary.
func newClient(config *rest.Config) (*rest.RESTClient, error) {
	scheme := runtime.NewScheme()
	if err := discoveryv1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	metav1.AddToGroupVersion(scheme, metav1.SchemeGroupVersion)
	config = rest.CopyConfig(config)
	config.APIPath, config.GroupVersion = "/apis", &discoveryv1.SchemeGroupVersion
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	config.ContentType, config.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
	if config.UserAgent == "" {
		config.UserAgent = "deltaring"
	}
	return rest.RESTClientFor(config)
}

// listWatch asks for the slices of one Service, and tells the source what came of it.
type listWatch struct {
	client *rest.RESTClient
	source *Source
}

func (l *listWatch) request(options *metav1.ListOptions) *rest.Request {
	options.LabelSelector = discoveryv1.LabelServiceName + "=" + l.source.name
	timeout := int64(max(l.source.service.Timeout.Seconds(), 1))
	options.TimeoutSeconds = &timeout
	return l.client.Get().Namespace(l.source.namespace).Resource("endpointslices").VersionedParams(options, metav1.ParameterCodec)
}

func (l *listWatch) List(options metav1.ListOptions) (runtime.Object, error) {
	return l.ListWithContext(context.Background(), options)
}

func (l *listWatch) ListWithContext(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	bounded, cancel := context.WithTimeout(ctx, max(l.source.service.Timeout, time.Second))
	defer cancel()
	list := &discoveryv1.EndpointSliceList{}
	err := l.request(&options).Do(bounded).Into(list)
	if ctx.Err() == nil {
		l.source.asked("list", err)
	}
	return list, opaque(err)
}

func (l *listWatch) Watch(options metav1.ListOptions) (watch.Interface, error) {
	return l.WatchWithContext(context.Background(), options)
}

// WatchWithContext ends a watch that the API server has not ended in time: it may be gone without a word.
func (l *listWatch) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	bounded, cancel := context.WithTimeout(ctx, 2*max(l.source.service.Timeout, time.Second))
	options.Watch = true
	w, err := l.request(&options).Watch(bounded)
	if ctx.Err() == nil {
		l.source.asked("watch", err)
	}
	if err != nil {
		cancel()
		return nil, opaque(err)
	}
	return boundedWatch{w, cancel}, nil
}

type boundedWatch struct {
	watch.Interface
	cancel context.CancelFunc
}

func (w boundedWatch) Stop() {
	w.cancel()
	w.Interface.Stop()
}
