// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// It counts for a few seconds, now and then not at all, and tells what it has counted. Several may run with one identity.

import { AggregationTemporalityPreference, OTLPMetricExporter } from '@opentelemetry/exporter-metrics-otlp-http';
import { resourceFromAttributes } from '@opentelemetry/resources';
import { MeterProvider, PeriodicExportingMetricReader } from '@opentelemetry/sdk-metrics';

const [endpoint, seconds, service = 'forked', interval = '1000'] = process.argv.slice(2);
const reader = new PeriodicExportingMetricReader({
  exporter: new OTLPMetricExporter({
    url: `http://${endpoint}/v1/metrics`,
    temporalityPreference: AggregationTemporalityPreference.DELTA,
  }),
  exportIntervalMillis: Number(interval),
  exportTimeoutMillis: Number(interval),
});
const provider = new MeterProvider({ resource: resourceFromAttributes({ 'service.name': service }), readers: [reader] });
const meter = provider.getMeter('forked');
const hits = meter.createCounter('hits');
const sparse = meter.createCounter('sparse'); // in a second, and not in the next
const rare = meter.createCounter('rare'); // at both ends, and by chance
const took = meter.createHistogram('took', { unit: 's' });

const counted = { hits: 0, sparse: 0, rare: 0, took: 0 };
const begin = Date.now();
const end = begin + seconds * 1000;
const once = () => {
  rare.add(1);
  counted.rare++;
};
once();
while (Date.now() < end) {
  const n = 1 + Math.floor(Math.random() * 5);
  hits.add(n);
  counted.hits += n;
  took.record(Math.random() * 20);
  counted.took++;
  if (Math.floor((Date.now() - begin) / 1000) % 2 === 0) {
    sparse.add(3);
    counted.sparse += 3;
  }
  if (Math.random() < 0.02) once();
  await new Promise((resolve) => setTimeout(resolve, 5 + Math.random() * 20));
}
once();
await provider.shutdown();
console.log(JSON.stringify(counted));
