{{- define "tiktok-shop-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* Short enough for a shard's name behind it. */}}
{{- define "tiktok-shop-operator.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- $name := include "tiktok-shop-operator.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/* Of names that the whole cluster shares: two releases of one name in two namespaces must not meet. */}}
{{- define "tiktok-shop-operator.clusterName" -}}
{{- $fullname := include "tiktok-shop-operator.fullname" . }}
{{- if eq $fullname .Release.Namespace }}{{ $fullname }}{{ else }}{{ printf "%s:%s" .Release.Namespace $fullname }}{{ end }}
{{- end }}

{{- define "tiktok-shop-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tiktok-shop-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tiktok-shop-operator.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "tiktok-shop-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tiktok-shop-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "tiktok-shop-operator.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "tiktok-shop-operator.leaseNamespace" -}}
{{- default .Release.Namespace .Values.leaseNamespace }}
{{- end }}

{{- define "tiktok-shop-operator.image" -}}
{{- $image := .Values.image }}
{{- if $image.digest }}{{ $image.repository }}@{{ $image.digest }}
{{- else }}{{ $image.repository }}:{{ default .Chart.AppVersion $image.tag }}{{ end }}
{{- end }}

{{/* A Go duration in milliseconds. */}}
{{- define "tiktok-shop-operator.milliseconds" -}}
{{- $sum := 0.0 }}
{{- range regexFindAll "[0-9]+(\\.[0-9]+)?(ms|s|m|h)" . -1 }}
{{- $number := regexFind "^[0-9.]+" . | float64 }}
{{- $unit := regexFind "[a-z]+$" . }}
{{- $sum = addf $sum (mulf $number (get (dict "ms" 1.0 "s" 1000.0 "m" 60000.0 "h" 3600000.0) $unit)) }}
{{- end }}
{{- $sum }}
{{- end }}

{{/* See docs/src/guarantees.md, "Stopping". */}}
{{- define "tiktok-shop-operator.gracePeriod" -}}
{{- $timeout := divf (include "tiktok-shop-operator.milliseconds" .Values.requestTimeout) 1000 | ceil | int }}
{{- $least := add (mul 2 $timeout) 30 | int }}
{{- $wanted := .Values.terminationGracePeriodSeconds }}
{{- if kindIs "invalid" $wanted }}
{{- $least }}
{{- else if lt (int $wanted) $least }}
{{- fail (printf "terminationGracePeriodSeconds: %d is too short: an answer of TikTok that is in flight must be stored before the pod ends. Write %d (twice requestTimeout and 30) or more, or leave it out." (int $wanted) $least) }}
{{- else }}
{{- int $wanted }}
{{- end }}
{{- end }}

{{/* What to run: one operator, or one for each shard. As JSON: {"operators": […]}. */}}
{{- define "tiktok-shop-operator.operators" -}}
{{- $fullname := include "tiktok-shop-operator.fullname" . }}
{{- $operators := list }}
{{- range .Values.shards }}
{{- $replicas := $.Values.replicas }}
{{- if hasKey . "replicas" }}{{ $replicas = .replicas }}{{ end }}
{{- $operators = append $operators (dict "name" (printf "%s-%s" $fullname .name) "shard" .name "selector" .selector "replicas" (int $replicas) "resources" (default $.Values.resources .resources)) }}
{{- else }}
{{- $operators = append $operators (dict "name" $fullname "shard" "" "selector" .Values.watchLabelSelector "replicas" (int .Values.replicas) "resources" .Values.resources) }}
{{- end }}
{{- dict "operators" $operators | toJson }}
{{- end }}

{{/* What can be wrong between values, which a schema can't say. */}}
{{- define "tiktok-shop-operator.check" -}}
{{- if .Values.shards }}
{{- if .Values.watchLabelSelector }}
{{- fail "watchLabelSelector and shards: each shard has a selector of its own. Leave watchLabelSelector empty." }}
{{- end }}
{{- if .Values.leaseName }}
{{- fail "leaseName and shards: the shards would contend for one Lease, and one alone would work. Leave leaseName empty: the operator names a Lease after each selector." }}
{{- end }}
{{- $names := list }}{{ $selectors := list }}
{{- range .Values.shards }}
{{- if has .name $names }}{{ fail (printf "shards: two are named %q." .name) }}{{ end }}
{{- if has .selector $selectors }}{{ fail (printf "shards: two have the selector %q, and would contend for one Lease." .selector) }}{{ end }}
{{- $names = append $names .name }}{{ $selectors = append $selectors .selector }}
{{- end }}
{{- end }}
{{- range (include "tiktok-shop-operator.operators" . | fromJson).operators }}
{{- if and (not $.Values.leaderElect) (gt (int .replicas) 1) }}
{{- fail (printf "leaderElect: false with %d replicas: all of them would act. Set replicas to 1, or leave leaderElect true." (int .replicas)) }}
{{- end }}
{{- end }}
{{- if and .Values.caBundle.configMapName .Values.caBundle.secretName }}
{{- fail "caBundle: name a ConfigMap or a Secret, not both." }}
{{- end }}
{{- if and .Values.serviceMonitor.enabled (not .Values.service.enabled) }}
{{- fail "serviceMonitor.enabled needs service.enabled." }}
{{- end }}
{{- include "tiktok-shop-operator.checkFlags" . }}
{{- end }}

{{/* What the operator would refuse when it starts, and an address that no probe reaches. */}}
{{- define "tiktok-shop-operator.checkFlags" -}}
{{- range list (list "requestTimeout" "100ms" "5m") (list "refreshBefore" "5m" "144h") (list "statusInterval" "1s" "24h") (list "secretPollInterval" "1s" "24h") }}
{{- $text := get $.Values (index . 0) }}
{{- $value := include "tiktok-shop-operator.milliseconds" $text | float64 }}
{{- $least := include "tiktok-shop-operator.milliseconds" (index . 1) | float64 }}
{{- $most := include "tiktok-shop-operator.milliseconds" (index . 2) | float64 }}
{{- if or (lt $value $least) (gt $value $most) }}
{{- fail (printf "%s: %q is not between %s and %s." (index . 0) $text (index . 1) (index . 2)) }}
{{- end }}
{{- end }}
{{- $rate := toString .Values.requestsPerSecond | float64 }}
{{- if or (lt $rate 0.001) (gt $rate 100000.0) }}
{{- fail (printf "requestsPerSecond: %v is not between 0.001 and 100000." .Values.requestsPerSecond) }}
{{- end }}
{{- /* A URL is not shown: it may hold a password. */}}
{{- range list "tokenEndpoint" "authorizationEndpoint" "shopsEndpoint" }}
{{- if not (regexMatch "^(https://[^/?#@\\s]+|http://(localhost|127(\\.[0-9]{1,3}){3}|\\[::1\\])(:[0-9]+)?)(/[^?#\\s]*)?$" (get $.Values .)) }}
{{- fail (printf "%s: write https://HOST/PATH, without user, query or fragment (http:// is taken for 127.0.0.0/8, [::1] and localhost alone)." .) }}
{{- end }}
{{- end }}
{{- $selectors := list }}
{{- with .Values.watchLabelSelector }}{{ $selectors = append $selectors . }}{{ end }}
{{- range .Values.shards }}{{ $selectors = append $selectors .selector }}{{ end }}
{{- $word := "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?" }}
{{- $key := printf "([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?%s" $word }}
{{- $list := printf "\\(\\s*(%[1]s)?\\s*(,\\s*(%[1]s)?\\s*)*\\)" $word }}
{{- $one := printf "\\s*(!\\s*%[1]s|%[1]s(\\s*(=|==|!=)\\s*(%[2]s)?|\\s+(in|notin)\\s*%[3]s)?)\\s*" $key $word $list }}
{{- range $selectors }}
{{- if not (regexMatch (printf "^%[1]s(,%[1]s)*$" $one) .) }}
{{- fail (printf "%s: %q is no label selector; write as for kubectl -l: shard=a, or tier in (gold,silver),!canary." (ternary "shards" "watchLabelSelector" (not (empty $.Values.shards))) .) }}
{{- end }}
{{- end }}
{{- $port := regexFind "[0-9]+$" .Values.listen | int }}
{{- if gt $port 65535 }}
{{- fail (printf "listen: %q has a port above 65535." .Values.listen) }}
{{- end }}
{{- if regexMatch "^(127\\.|\\[::1\\])" .Values.listen }}
{{- fail (printf "listen: %q is reached from within the pod alone, not by the probes; write 0.0.0.0:%d, or [::]:%d where there is IPv6 alone." .Values.listen $port $port) }}
{{- end }}
{{- end }}

{{/* What the operator uses, each right with the request that needs it. */}}
{{- define "tiktok-shop-operator.rules" -}}
- apiGroups: [tiktokshop.dev]
  resources: [tiktokshopintegrations]
  verbs: [list, watch]
- apiGroups: [tiktokshop.dev]
  resources: [tiktokshopintegrations/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [secrets]
  {{- if eq .Values.secretAccess "named" }}
  verbs: [get, patch]
  {{- else }}
  verbs: [get, patch, list, watch]
  {{- end }}
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- if .Values.rolloutRestart.enabled }}
- apiGroups: [apps]
  resources: [deployments, statefulsets, daemonsets]
  verbs: [patch]
{{- end }}
{{- end }}
