// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/aws-sdk-go-v2/service/servicediscovery"
	discovery "github.com/aws/aws-sdk-go-v2/service/servicediscovery/types"

	"github.com/deltaring/deltaring/d2c"
)

// TestECS decodes the definitions into what AWS's own client takes, has that client check and send them to nobody, and looks
// at what no schema says.
func TestECS(t *testing.T) {
	wire := new(recorder)
	credentials := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: "nobody", SecretAccessKey: "nothing"}, nil
	})
	client := ecs.New(ecs.Options{Region: "us-east-1", HTTPClient: wire, Credentials: credentials, Retryer: aws.NopRetryer{}})
	names := servicediscovery.New(servicediscovery.Options{Region: "us-east-1", HTTPClient: wire, Credentials: credentials, Retryer: aws.NopRetryer{}})

	tasks, tiers := map[string]*ecs.RegisterTaskDefinitionInput{}, map[string]settings{}
	for _, tier := range []string{"workers-amp", "workers", "gateways"} {
		file := filepath.Join("ecs", "task-"+tier+".json")
		task := new(ecs.RegisterTaskDefinitionInput)
		checkRequest(t, wire, file, task, func(ctx context.Context) error {
			_, err := client.RegisterTaskDefinition(ctx, task)
			return err
		})
		tasks[*task.Family] = task
		if len(task.ContainerDefinitions) != 1 {
			t.Fatalf("%s: %d containers", file, len(task.ContainerDefinitions))
		}
		c := task.ContainerDefinitions[0]
		env := environmentOf(t, file, c)
		if task.TaskRoleArn != nil { // which brings these
			env = append(env, "AWS_ACCESS_KEY_ID=AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY=secret")
		}
		checkAccepted(t, file, env, c.Command)
		tiers[file] = mergeConfig(t, env, c.Command)
		if _, tag, _ := strings.Cut(*c.Image, ":"); tag != distribution(t) {
			t.Errorf("%s: image %s, and the manifest of the Collector says %s", file, *c.Image, distribution(t))
		}
		// The image has no shell. TestDockerfile runs what it has.
		if command := c.HealthCheck.Command; !slices.Equal(command, []string{"CMD", "/healthcheck"}) {
			t.Errorf("%s: the health check is %q", file, command)
		}
		if mib := fmt.Sprint(*c.Memory); mib != *task.Memory {
			t.Errorf("%s: memory_limiter goes by the container's limit, %s MiB, and the task has %s", file, mib, *task.Memory)
		}
		const mostOfFargate = 120
		if stop := *c.StopTimeout; stop < 35 || stop > mostOfFargate {
			t.Errorf("%s: stopTimeout is %d", file, stop)
		}
	}

	checkTiers(t, tiers)

	registry := new(servicediscovery.CreateServiceInput)
	checkRequest(t, wire, "ecs/cloud-map-workers.json", registry, func(ctx context.Context) error {
		_, err := names.CreateService(ctx, registry)
		return err
	})
	if records := registry.DnsConfig.DnsRecords; len(records) != 1 || records[0].Type != discovery.RecordTypeSrv ||
		registry.DnsConfig.RoutingPolicy != discovery.RoutingPolicyMultivalue {
		t.Error("Cloud Map: gateways need the SRV records of all workers")
	}

	for _, tier := range []string{"workers", "gateways"} {
		file := filepath.Join("ecs", "service-"+tier+".json")
		service := new(ecs.CreateServiceInput)
		checkRequest(t, wire, file, service, func(ctx context.Context) error {
			_, err := client.CreateService(ctx, service)
			return err
		})
		task := tasks[*service.TaskDefinition]
		if task == nil {
			t.Fatalf("%s: no task definition %s", file, *service.TaskDefinition)
		}
		c := task.ContainerDefinitions[0]
		check := func(container *string, port *int32) {
			t.Helper()
			for _, p := range c.PortMappings {
				if *container == *c.Name && *p.ContainerPort == *port {
					return
				}
			}
			t.Errorf("%s: no port %d of a container %s", file, *port, *container)
		}
		for _, r := range service.ServiceRegistries {
			check(r.ContainerName, r.ContainerPort)
			const mostOfRoute53 = 8 // answers
			if n := *service.DesiredCount * *service.DeploymentConfiguration.MaximumPercent / 100; n > mostOfRoute53 {
				t.Errorf("%s: up to %d workers during a deployment, and an answer names %d", file, n, mostOfRoute53)
			}
		}
		for _, l := range service.LoadBalancers {
			check(l.ContainerName, l.ContainerPort)
		}
		if len(service.ServiceRegistries)+len(service.LoadBalancers) != 1 {
			t.Errorf("%s: must be found in one way", file)
		}
	}
}

// environmentOf is what a container has in its environment, with the files that the README has you put into parameters.
func environmentOf(t *testing.T, file string, c types.ContainerDefinition) (env []string) {
	t.Helper()
	for _, e := range c.Environment {
		env = append(env, *e.Name+"="+*e.Value)
	}
	for _, s := range c.Secrets {
		value := "a secret"
		if _, name, found := strings.Cut(*s.ValueFrom, ":parameter/otelcol/"); found {
			content, err := os.ReadFile(name)
			if err != nil {
				t.Errorf("%s: %v", file, err)
			}
			const most = 8 << 10 // bytes in an advanced parameter
			if len(content) > most {
				t.Errorf("%s: %s has %d bytes, and a parameter takes %d", file, name, len(content), most)
			}
			value = string(content)
		}
		env = append(env, *s.Name+"="+value)
	}
	return env
}

// TestECSRemoteWrite runs the container of task-workers-amp.json, with a Redis and ports of the test, before a server that takes what is
// signed as Amazon's takes it, limits the rate once, and hands the rest to Prometheus.
func TestECSRemoteWrite(t *testing.T) {
	t.Parallel()
	const file = "ecs/task-workers-amp.json"
	var task ecs.RegisterTaskDefinitionInput
	if err := json.Unmarshal(read(t, file), &task); err != nil {
		t.Fatal(err)
	}
	c := task.ContainerDefinitions[0]
	prom := startPrometheus(t, newestPrometheus)
	behind, err := url.Parse(prom.url)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(behind)
	var limited atomic.Bool
	refused := make(chan error, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = signed(r, body, "us-east-1")
		}
		switch {
		case err != nil || r.URL.Path != "/workspaces/ws-00000000-0000-0000-0000-000000000000/api/v1/remote_write":
			select {
			case refused <- fmt.Errorf("%s: %w", r.URL.Path, err):
			default:
			}
			w.WriteHeader(http.StatusForbidden)
		case !limited.Swap(true):
			w.WriteHeader(http.StatusTooManyRequests)
		default:
			r.URL.Path, r.Body = "/api/v1/write", io.NopCloser(bytes.NewReader(body))
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	redis := startRedis(t)

	env := environmentOf(t, file, c)
	for i, variable := range env {
		env[i] = strings.Replace(variable, "https://aps-workspaces.us-east-1.amazonaws.com", server.URL, 1)
	}
	if !slices.Contains(env, "REMOTE_WRITE_URL="+server.URL+"/workspaces/ws-00000000-0000-0000-0000-000000000000/api/v1/remote_write") {
		t.Fatalf("%s does not write to Amazon: %q", file, env)
	}
	env = append(append(env, redis.environment()...), "AWS_ACCESS_KEY_ID=AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY=secret")
	first, found := strings.CutPrefix(c.Command[0], "--config=")
	if !found {
		t.Fatalf("%q", c.Command)
	}
	coll := startCollector(t, first, env, c.Command[1:]...)

	// A new store counts from a second after its first worker has started.
	time.Sleep(1100 * time.Millisecond)
	from := time.Now().Truncate(time.Millisecond)
	to := from.Add(100 * time.Millisecond)
	book, line := newLedger(), newTimeline()
	line.begin = line.begin.Add(to.Sub(line.end()))
	p := newProducer(coll.client(t), book, 3, nil, nil)
	// The first batch meets the limit, and comes again.
	exports := []export{p.sums(from, to), p.histograms(from, to)}
	if err := p.send(exports[0], d2c.AddedFirst, to); err == nil {
		t.Fatal("the batch that met the limit was acknowledged")
	}
	if err := p.again(exports, d2c.AddedFirst, to); err != nil {
		t.Fatal(err)
	}
	checkLastValues(t, prom, book, line)
	for range len(refused) {
		t.Error(<-refused)
	}
	coll.stop(t)

	// What the task's role may do is that, and nothing else.
	var policy struct {
		Statement []struct {
			Effect, Resource string
			Action           []string
		}
	}
	readYAML(t, "ecs/policy-remote-write.json", &policy)
	if s := policy.Statement; len(s) != 1 || s[0].Effect != "Allow" || !slices.Equal(s[0].Action, []string{"aps:RemoteWrite"}) ||
		!strings.HasSuffix(s[0].Resource, ":workspace/ws-00000000-0000-0000-0000-000000000000") {
		t.Errorf("%+v", s)
	}
}

// checkRequest decodes a file into the input of an operation, and compares what the client sends with what the file says.
// encoding/json does not mind the case of a field and AWS does: the comparison does as well.
func checkRequest(t *testing.T, wire *recorder, file string, input any, send func(context.Context) error) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(input); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	checkEnums(t, file, reflect.ValueOf(input))
	if err := send(context.Background()); !errors.Is(err, errSentToNobody) {
		t.Fatalf("%s: %v", file, err) // what the client found missing
	}
	var want, got map[string]any
	if err := errors.Join(json.Unmarshal(text, &want), json.Unmarshal(wire.sent, &got)); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	delete(got, "clientToken") // the client makes them
	delete(got, "CreatorRequestId")
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: the client sends\n%v\nwhich is not the file's\n%v", file, got, want)
	}
}

// checkEnums reports values that their types do not have.
func checkEnums(t *testing.T, where string, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			checkEnums(t, where, v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() {
				checkEnums(t, where+"::"+f.Name, v.Field(i))
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			checkEnums(t, where, v.Index(i))
		}
	case reflect.String:
		values := v.MethodByName("Values")
		if !values.IsValid() || v.Len() == 0 {
			return
		}
		known := values.Call(nil)[0]
		for i := range known.Len() {
			if known.Index(i).String() == v.String() {
				return
			}
		}
		t.Errorf("%s: %q is none of %v", where, v.String(), known)
	}
}

var errSentToNobody = errors.New("sent to nobody")

// recorder is an HTTP client that keeps the body of the last request and sends nothing.
type recorder struct{ sent []byte }

func (r *recorder) Do(request *http.Request) (*http.Response, error) {
	r.sent = nil
	if request.Body != nil {
		r.sent, _ = io.ReadAll(request.Body) // of a request in memory
	}
	return nil, errSentToNobody
}
