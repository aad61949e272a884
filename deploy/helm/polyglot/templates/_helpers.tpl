{{/* Name of the release's objects: the release's name, with "polyglot" in it. */}}
{{- define "polyglot.fullname" -}}
{{- $name := ternary .Release.Name (printf "%s-polyglot" .Release.Name) (contains "polyglot" .Release.Name) -}}
{{- $name | trunc 45 | trimSuffix "-" -}}
{{- end -}}

{{/* Labels by which pods are selected; they never change. Takes root and component. */}}
{{- define "polyglot.selector" -}}
app.kubernetes.io/name: polyglot
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* All labels of an object. Takes root and component. */}}
{{- define "polyglot.labels" -}}
{{ include "polyglot.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "polyglot.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "polyglot.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{/* Takes root and program. */}}
{{- define "polyglot.image" -}}
{{- with .root.Values.image.registry }}{{ trimSuffix "/" . }}/{{ end }}{{ .program }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion -}}
{{- end -}}

{{/* A setting as the service reads it: Helm holds numbers as floats, which it would print as 6e+05, and YAML reads on and off
as booleans. */}}
{{- define "polyglot.value" -}}
{{- if kindIs "float64" . }}{{ int64 . }}{{ else if kindIs "bool" . }}{{ ternary "on" "off" . }}{{ else }}{{ . }}{{ end -}}
{{- end -}}

{{/* Keys of the Secret that the service reads. */}}
{{- define "polyglot.secretKeys" -}}
DATABASE_URL SOURCE_DATABASE_URL
{{- if .Values.broker.enabled }} AMQP_URL{{ end }}
{{- if .Values.secret.awsKeys }} AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY{{ end }}
{{- if .Values.secret.maskKey }} MASK_KEY{{ end }}
{{- end -}}

{{/* The environment. Takes root, config (settings of one process) and more (a map of what the chart sets). */}}
{{- define "polyglot.env" -}}
{{- $config := merge (dict) .more .config .root.Values.config -}}
{{- if and .root.Values.migration.enabled (not .migrates) }}{{ $_ := set $config "MIGRATE" "off" }}{{ end -}}
{{- if not .root.Values.broker.enabled }}{{ $_ := set $config "AMQP_URL" "" }}{{ end -}}
{{- range splitList " " (include "polyglot.secretKeys" .root) }}{{ $_ := set $config (printf "%s_FILE" .) (printf "/run/secrets/polyglot/%s" .) }}{{ end -}}
{{- range $name, $value := $config }}
- name: {{ $name }}
  value: {{ include "polyglot.value" $value | quote }}
{{- end }}
{{- end -}}

{{/* Volumes that every pod has. */}}
{{- define "polyglot.volumes" -}}
- name: secrets
  secret:
    secretName: {{ .Values.secret.name }}
    defaultMode: 0440
    # A pod does not start without one of them; its events name the key.
    items:
      {{- range splitList " " (include "polyglot.secretKeys" .) }}
      - {key: {{ . }}, path: {{ . }}}
      {{- end }}
{{- if .Values.authorities.secret }}
- name: authorities
  secret:
    secretName: {{ .Values.authorities.secret }}
    items: [{key: ca.crt, path: ca.crt}]
{{- else if .Values.authorities.configMap }}
- name: authorities
  configMap:
    name: {{ .Values.authorities.configMap }}
    items: [{key: ca.crt, path: ca.crt}]
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "polyglot.volumeMounts" -}}
- {name: secrets, mountPath: /run/secrets/polyglot, readOnly: true}
{{- if or .Values.authorities.secret .Values.authorities.configMap }}
- {name: authorities, mountPath: /etc/polyglot/ca, readOnly: true}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What every container may not do. */}}
{{- define "polyglot.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* The part of a pod's specification that api, workers and jobs have in common. */}}
{{- define "polyglot.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  # For the files of the Secrets and the temporary folder.
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* Pods of one component on different nodes and in different zones, as far as there are some. Takes root and component. */}}
{{- define "polyglot.spread" -}}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "polyglot.selector" $ | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end -}}

{{/* Slots of a worker, and exports in shards that may be open at a time. */}}
{{- define "polyglot.slots" -}}{{ .Values.worker.config.WORKER_SLOTS | default 2 | int64 }}{{- end -}}
{{- define "polyglot.places" -}}{{ .Values.worker.config.MAX_OPEN_SNAPSHOTS | default 4 | int64 }}{{- end -}}
{{/* Connections of one worker to the source at most, as the worker computes them. */}}
{{- define "polyglot.sourceConnections" -}}
{{- .Values.worker.config.SOURCE_CONNECTIONS | default (add (include "polyglot.slots" .) (include "polyglot.places" .) 1) | int64 -}}
{{- end -}}
{{/* The largest number of workers. */}}
{{- define "polyglot.maxWorkers" -}}{{ ternary .Values.autoscaling.maxReplicas .Values.worker.replicas .Values.autoscaling.enabled | int64 }}{{- end -}}

{{/* What the schema cannot say: relations between two values. */}}
{{- define "polyglot.check" -}}
{{- $slots := include "polyglot.slots" . | int64 -}}
{{- $budget := .Values.worker.config.MEMORY_BUDGET_MB | default 64 | int64 -}}
{{- if lt $budget (mul 16 $slots) }}
{{- fail (printf "worker.config.MEMORY_BUDGET_MB: %d slots (WORKER_SLOTS) need at least 16 MiB each, but it is %d" $slots $budget) }}
{{- end }}
{{- $needed := add $slots (include "polyglot.places" .) 1 -}}
{{- if lt (include "polyglot.sourceConnections" . | int64) $needed }}
{{- fail (printf "worker.config.SOURCE_CONNECTIONS: expected at least %d (MAX_OPEN_SNAPSHOTS + WORKER_SLOTS + 1)" $needed) }}
{{- end }}
{{- if gt (int64 .Values.autoscaling.minReplicas) (int64 .Values.autoscaling.maxReplicas) }}
{{- fail "autoscaling.minReplicas: it is greater than autoscaling.maxReplicas" }}
{{- end }}
{{- if and .Values.authorities.secret .Values.authorities.configMap }}
{{- fail "authorities: set secret or configMap, not both" }}
{{- end }}
{{- end -}}
