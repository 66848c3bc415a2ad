{{- /* All of these take a list: the root, and the component "workers" or "gateways". */ -}}

{{- define "otelcol.selector" -}}
{{- $root := index . 0 -}}
{app.kubernetes.io/name: otelcol-deltaring, app.kubernetes.io/instance: {{ $root.Release.Name }}, app.kubernetes.io/component: {{ index . 1 }}}
{{- end }}

{{- define "otelcol.labels" -}}
{{- $root := index . 0 -}}
{app.kubernetes.io/name: otelcol-deltaring, app.kubernetes.io/instance: {{ $root.Release.Name }}, app.kubernetes.io/component: {{ index . 1 }}, app.kubernetes.io/managed-by: {{ $root.Release.Service }}, helm.sh/chart: {{ $root.Chart.Name }}-{{ $root.Chart.Version }}}
{{- end }}

{{- /* 80 % of the limit, as memory_limiter has it. */ -}}
{{- define "otelcol.gomemlimit" -}}
{{- $memory := .limits.memory -}}
{{- $mib := int (trimSuffix "Mi" $memory) -}}
{{- if hasSuffix "Gi" $memory }}{{ $mib = mul 1024 (int (trimSuffix "Gi" $memory)) }}{{ end -}}
{{ div (mul $mib 8) 10 }}MiB
{{- end }}

{{- define "otelcol.pod" -}}
{{- $root := index . 0 -}}
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{ include "otelcol.selector" . }}
{{- end }}

{{- define "otelcol.image" -}}
image: {{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- if ne .Values.image.pullPolicy "IfNotPresent" }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}
{{- end }}

{{- define "otelcol.confined" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "otelcol.scaler" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $scaling := (index $root.Values $component).autoscaling -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ $root.Release.Name }}-{{ $component }}
  labels: {{ include "otelcol.labels" . }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: {{ index . 2 }}, name: {{ $root.Release.Name }}-{{ $component }}}
  minReplicas: {{ $scaling.minReplicas }}
  maxReplicas: {{ $scaling.maxReplicas }}
  metrics:
    - type: Resource
      resource: {name: cpu, target: {type: Utilization, averageUtilization: {{ $scaling.cpu }}}}
  behavior:
    scaleDown: {stabilizationWindowSeconds: 600, policies: [{type: Pods, value: 1, periodSeconds: 120}]}
{{- end }}

{{- define "otelcol.budget" -}}
{{- $root := index . 0 -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $root.Release.Name }}-{{ index . 1 }}
  labels: {{ include "otelcol.labels" . }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels: {{ include "otelcol.selector" . }}
{{- end }}

{{- /* With a third value, the ports for data, and a fourth, who may send. */ -}}
{{- define "otelcol.policy" -}}
{{- $root := index . 0 -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ $root.Release.Name }}-{{ index . 1 }}
  labels: {{ include "otelcol.labels" . }}
spec:
  podSelector:
    matchLabels: {{ include "otelcol.selector" . }}
  policyTypes: [Ingress]
  ingress:
    - ports: {{ toJson (index . 2) }}
      {{- with index . 3 }}
      from: {{ toJson . }}
      {{- end }}
    - ports: [{port: health}, {port: telemetry}]
      {{- with $root.Values.networkPolicy.monitoring }}
      from: {{ toJson . }}
      {{- end }}
{{- end }}

{{- /* The files of a component, and what "config" merges over them. */ -}}
{{- define "otelcol.files" -}}
{{- $root := index . 0 -}}
{{- range index . 2 }}
  {{ . }}: {{ $root.Files.Get (printf "files/%s" .) | toJson }}
{{- end }}
{{- with (index $root.Values (index . 1)).config }}
  values.yaml: {{ toYaml . | toJson }}
{{- end }}
{{- end }}
