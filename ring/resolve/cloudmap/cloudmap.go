// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package cloudmap finds members of a ring among the instances of an AWS Cloud Map service. It is a module of its own, so
// that only who wants it builds the AWS client.
//
// Region and credentials come from the environment, as they do for every AWS client. What the role needs is
// servicediscovery:DiscoverInstances, and for health status ALL servicediscovery:DiscoverInstancesRevision as well.
package cloudmap

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/servicediscovery"
	"github.com/aws/aws-sdk-go-v2/service/servicediscovery/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/deltaring/deltaring/ring"
	"github.com/deltaring/deltaring/ring/resolve"
)

// Service says whose instances are members.
type Service struct {
	Namespace string // its HTTP name
	Name      string
	// HealthStatus is HEALTHY, UNHEALTHY, ALL or HEALTHY_OR_ELSE_ALL. Services without health checks ignore it. Default HEALTHY.
	HealthStatus string
	// Port is that of members, whatever they are registered with. Without it, and without theirs, it is resolve.DefaultPort.
	Port string
	// OwnerAccount owns a namespace that is shared with this account.
	OwnerAccount string
	// Timeout bounds a lookup, with all its attempts.
	Timeout time.Duration
	// Endpoint is the URL of the API instead of that of the region.
	Endpoint string
}

// mostInstances is how many instances an answer can have. There is no second page.
const mostInstances = 1000

// Check returns an error for the first field that cannot be, which begins with the name that it has in configurations.
func (s *Service) Check() error {
	switch {
	case s.Namespace == "":
		return errors.New("namespace: must be set")
	case s.Name == "":
		return errors.New("service_name: must be set")
	}
	if known := types.HealthStatusFilter("").Values(); s.HealthStatus != "" && !slices.Contains(known, types.HealthStatusFilter(s.HealthStatus)) {
		return fmt.Errorf("health_status: %q is none of HEALTHY, UNHEALTHY, ALL and HEALTHY_OR_ELSE_ALL", s.HealthStatus)
	}
	if s.Port != "" {
		if err := resolve.CheckPort(s.Port); err != nil {
			return fmt.Errorf("port: %w", err)
		}
	}
	if s.OwnerAccount != "" && (len(s.OwnerAccount) != 12 || strings.Trim(s.OwnerAccount, "0123456789") != "") {
		return fmt.Errorf("owner_account: %q is not the 12 digits of an account; in YAML write it in quotes", s.OwnerAccount)
	}
	return nil
}

// Source is a resolve.Source. Members are named by the IDs of their instances.
type Source struct {
	service Service
	filter  types.HealthStatusFilter
	config  aws.Config
	region  string // for errors
	client  *servicediscovery.Client

	// revision is that of last, if the service is asked for all its instances.
	revision *int64
	last     resolve.List
}

var _ resolve.Source = (*Source)(nil)

// defaultRegion is that of load_balancing.
const defaultRegion = "us-east-1"

// New returns a source of the instances of a service.
func New(ctx context.Context, s Service) (*Source, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, fmt.Errorf("the AWS configuration of the environment: %w", err)
	}
	region := cfg.Region
	if region == "" {
		cfg.Region = defaultRegion
		region = defaultRegion + ", as AWS_REGION is not set"
	}
	client := servicediscovery.NewFromConfig(cfg, func(o *servicediscovery.Options) {
		if s.Endpoint != "" {
			o.BaseEndpoint = &s.Endpoint
			o.APIOptions = append(o.APIOptions, asGiven)
		}
	})
	filter := cmp.Or(types.HealthStatusFilter(s.HealthStatus), types.HealthStatusFilterHealthy)
	return &Source{service: s, filter: filter, config: cfg, region: region, client: client}, nil
}

// asGiven keeps the client from asking at data-HOST, where AWS has the API that discovers.
func asGiven(stack *middleware.Stack) error {
	return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("asGiven",
		func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
			return next.HandleInitialize(smithyhttp.DisableEndpointHostPrefix(ctx, true), in)
		}), middleware.Before)
}

// Find asks once.
func (s *Source) Find(ctx context.Context) (resolve.List, error) {
	ctx, cancel := context.WithTimeout(ctx, s.service.Timeout)
	defer cancel()
	if s.config.Credentials != nil {
		if _, err := s.config.Credentials.Retrieve(ctx); err != nil {
			return resolve.List{}, fmt.Errorf("%w to ask Cloud Map: there are no AWS credentials; give the task or instance a role, or set AWS_ACCESS_KEY_ID: %w", resolve.ErrDenied, err)
		}
	}
	same, err := s.unchanged(ctx)
	if err != nil {
		return resolve.List{}, s.explain("DiscoverInstancesRevision", err)
	}
	if same {
		return clone(s.last), nil
	}
	out, err := s.client.DiscoverInstances(ctx, &servicediscovery.DiscoverInstancesInput{
		NamespaceName: &s.service.Namespace,
		ServiceName:   &s.service.Name,
		HealthStatus:  s.filter,
		OwnerAccount:  orNil(s.service.OwnerAccount),
		MaxResults:    aws.Int32(mostInstances), // 100 if it is not set, and which ones is left to chance
	})
	if err != nil {
		return resolve.List{}, s.explain("DiscoverInstances", err)
	}
	if len(out.Instances) >= mostInstances {
		return resolve.List{}, fmt.Errorf("the answer has %d instances, the most that Cloud Map gives, so some may be missing, and others at each gateway: use several services, or resolver dns", len(out.Instances))
	}
	if len(out.Instances) == 0 {
		return resolve.List{}, fmt.Errorf("%w: service %q in namespace %q has no instances of health status %s in %s", resolve.ErrNone, s.service.Name, s.service.Namespace, s.filter, s.region)
	}
	s.last, s.revision = s.members(out.Instances), out.InstancesRevision
	return clone(s.last), nil
}

// unchanged asks whether instances have come or gone, which costs less than to ask for them. A revision says nothing of their
// health, so it is of use only where that does not matter.
func (s *Source) unchanged(ctx context.Context) (bool, error) {
	if s.filter != types.HealthStatusFilterAll || s.revision == nil {
		return false, nil
	}
	out, err := s.client.DiscoverInstancesRevision(ctx, &servicediscovery.DiscoverInstancesRevisionInput{
		NamespaceName: &s.service.Namespace,
		ServiceName:   &s.service.Name,
		OwnerAccount:  orNil(s.service.OwnerAccount),
	})
	if denied(err) {
		return false, nil // a role may have the right to discover instances alone, as load_balancing needs it
	}
	return err == nil && out.InstancesRevision != nil && *out.InstancesRevision == *s.revision, err
}

func (s *Source) members(instances []types.HttpInstanceSummary) resolve.List {
	problems := map[string]string{} // what, and the first that it is about
	var list resolve.List
	for _, i := range instances {
		id, a := aws.ToString(i.InstanceId), i.Attributes
		host := cmp.Or(a["AWS_INSTANCE_IPV4"], a["AWS_INSTANCE_IPV6"], a["AWS_INSTANCE_CNAME"])
		port := cmp.Or(s.service.Port, a["AWS_INSTANCE_PORT"], resolve.DefaultPort)
		var problem string
		switch {
		case id == "":
			problem = "instances have no ID, and are left out"
		case host == "":
			problem = "instances have none of AWS_INSTANCE_IPV4, AWS_INSTANCE_IPV6 and AWS_INSTANCE_CNAME, and are left out"
		case resolve.CheckPort(port) != nil:
			problem = "instances have an AWS_INSTANCE_PORT that is none, and are left out; port can be set instead"
		default:
			m := resolve.Member{Member: ring.Member{Name: id, Weight: 1}, Address: net.JoinHostPort(host, port)}
			list.Members = append(list.Members, m)
			continue
		}
		if first, ok := problems[problem]; !ok || id < first {
			problems[problem] = id
		}
	}
	for _, what := range slices.Sorted(maps.Keys(problems)) {
		list.Problems = append(list.Problems, fmt.Errorf("%s, for instance %q", what, problems[what]))
	}
	return list
}

func clone(l resolve.List) resolve.List {
	return resolve.List{Members: slices.Clone(l.Members), Problems: slices.Clone(l.Problems)}
}

func orNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// denials are the codes of errors by which AWS says no. None is among the types of the client.
var denials = []string{
	"AccessDeniedException", "UnrecognizedClientException", "InvalidSignatureException", "ExpiredTokenException", "InvalidClientTokenId",
	"SignatureDoesNotMatch", "MissingAuthenticationTokenException", "IncompleteSignatureException", "NotAuthorized",
}

func denied(err error) bool {
	var api smithy.APIError
	return errors.As(err, &api) && slices.Contains(denials, api.ErrorCode())
}

func (s *Source) explain(action string, err error) error {
	_, noNamespace := errors.AsType[*types.NamespaceNotFound](err)
	_, noService := errors.AsType[*types.ServiceNotFound](err)
	switch {
	case denied(err):
		return fmt.Errorf("%w to ask Cloud Map in %s: give the role servicediscovery:%s, for a namespace of another account too, and look at its credentials: %w", resolve.ErrDenied, s.region, action, err)
	case noNamespace:
		return fmt.Errorf("%w: there is no namespace %q in %s; if it is another account's, set owner_account: %w", resolve.ErrNone, s.service.Namespace, s.region, err)
	case noService:
		return fmt.Errorf("%w: there is no service %q in namespace %q in %s: %w", resolve.ErrNone, s.service.Name, s.service.Namespace, s.region, err)
	}
	return err
}
