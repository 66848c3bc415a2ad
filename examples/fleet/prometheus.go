// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// prometheus is a running Prometheus that takes remote writes, in order only: its out-of-order window is the default, 0.
type prometheus struct {
	*process
	url string
}

func startPrometheus(ctx context.Context, dir string) (*prometheus, error) {
	binary, err := exec.LookPath("prometheus")
	if err != nil {
		return nil, fmt.Errorf("the Prometheus server (Debian: apt-get install prometheus): %w", err)
	}
	config := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	p := &prometheus{url: "http://" + loopback(port)}
	p.process, err = start(ctx, filepath.Join(dir, "prometheus.log"), nil, answers(p.url+"/-/ready"), binary,
		"--config.file="+config,
		"--storage.tsdb.path="+filepath.Join(dir, "prometheus"),
		"--web.listen-address="+loopback(port),
		"--web.enable-remote-write-receiver")
	return p, err
}

func (p *prometheus) writeURL() string { return p.url + "/api/v1/write" }

// sample is a value of a series at a time.
type sample struct {
	ms    int64 // Unix time
	value float64
}

// samples reads all samples of the load, in order.
func (p *prometheus) samples() (map[seriesKey][]sample, error) {
	body, err := get(p.url + "/api/v1/query?" + url.Values{
		"query": {`{job="shop"}[1h]`},
		"time":  {strconv.FormatInt(time.Now().Unix()+5, 10)},
	}.Encode())
	if err != nil {
		return nil, err
	}
	var reply struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Values [][2]number // Unix seconds, value
			}
		}
	}
	if err := json.Unmarshal(body, &reply); err != nil {
		return nil, fmt.Errorf("prometheus: %w", err)
	}
	all := map[seriesKey][]sample{}
	for _, r := range reply.Data.Result {
		key := seriesKey{r.Metric["__name__"], r.Metric["instance"], r.Metric["stream"], r.Metric["le"]}
		if all[key] != nil {
			return nil, fmt.Errorf("prometheus has two series for %v", key)
		}
		for _, v := range r.Values {
			all[key] = append(all[key], sample{int64(math.Round(float64(v[0]) * 1000)), float64(v[1])})
		}
	}
	return all, nil
}

// number is a float64 that may be in quotes, as values in the query API are.
type number float64

// UnmarshalJSON implements json.Unmarshaler.
func (n *number) UnmarshalJSON(data []byte) error {
	f, err := strconv.ParseFloat(strings.Trim(string(data), `"`), 64)
	*n = number(f)
	return err
}

// unacceptable are the places where Prometheus counts samples it does not take.
var unacceptable = []string{
	"prometheus_tsdb_out_of_order_samples_total",
	"prometheus_tsdb_out_of_bound_samples_total",
	"prometheus_tsdb_too_old_samples_total",
	"prometheus_target_scrapes_sample_duplicate_timestamp_total",
}

// rejected adds them up.
func (p *prometheus) rejected() (int, error) {
	body, err := get(p.url + "/metrics")
	if err != nil {
		return 0, err
	}
	values := map[string]float64{}
	for line := range strings.Lines(string(body)) {
		series, value, found := strings.Cut(strings.TrimSpace(line), " ")
		name, _, _ := strings.Cut(series, "{")
		if v, err := strconv.ParseFloat(value, 64); found && err == nil {
			values[name] += v
		}
	}
	var sum float64
	for _, name := range unacceptable {
		v, has := values[name]
		if !has {
			return 0, fmt.Errorf("this Prometheus does not report %s", name)
		}
		sum += v
	}
	return int(sum), nil
}
