{{/* A value as the text that a variable has; a number keeps all its digits. */}}
{{- define "artifact-builder.text" -}}
{{- if kindIs "float64" . }}{{ int64 . }}{{ else if kindIs "invalid" . }}{{ else }}{{ toString . }}{{ end -}}
{{- end }}

{{/* Every variable with its text, whether secret or not, as JSON: env, then secretEnv, then extraEnvVars. */}}
{{- define "artifact-builder.given" -}}
{{- $given := dict -}}
{{- range $name, $value := .Values.env }}{{ $_ := set $given $name (include "artifact-builder.text" $value) }}{{ end -}}
{{- range $name, $value := .Values.secretEnv }}{{ $_ := set $given $name (include "artifact-builder.text" $value) }}{{ end -}}
{{- range .Values.extraEnvVars -}}
{{- if .valueFrom }}{{ $_ := unset $given .name }}{{ else }}{{ $_ := set $given .name (include "artifact-builder.text" .value) }}{{ end -}}
{{- end -}}
{{ toJson $given }}
{{- end }}

{{/* The variables whose values go into a Secret, wherever they were written, as JSON. */}}
{{- define "artifact-builder.secrets" -}}
{{- $secrets := dict -}}
{{- $names := concat (keys .Values.secretEnv) (list
  "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" "AWS_SESSION_TOKEN" "DATABASE_URL" "GITHUB_TOKEN" "MYSQL_PASSWORD"
  "OCIBUILD_GIT_TOKENS" "OCIBUILD_TOKENS" "OTEL_EXPORTER_OTLP_HEADERS") -}}
{{- range $name, $value := include "artifact-builder.given" . | fromJson -}}
{{- if and $value (has $name $names) }}{{ $_ := set $secrets $name $value }}{{ end -}}
{{- end -}}
{{ toJson $secrets }}
{{- end }}

{{/* The variables that stand in the pod, as JSON. */}}
{{- define "artifact-builder.plain" -}}
{{- $plain := dict -}}
{{- $secrets := include "artifact-builder.secrets" . | fromJson -}}
{{- $given := include "artifact-builder.given" . | fromJson -}}
{{- range $name, $value := $given -}}
{{- if and $value (not (hasKey $secrets $name)) }}{{ $_ := set $plain $name $value }}{{ end -}}
{{- end -}}
{{- $alias := include "artifact-builder.alias" . -}}
{{- if $alias }}{{ $_ := set $plain "OCIBUILD_REGISTRY_ALIAS" $alias }}{{ end -}}
{{- $_ := set $plain "OCIBUILD_DATA_DIR" "/var/lib/ocibuild" -}}
{{- $_ := set $plain "OCIBUILD_LISTEN" "0.0.0.0:8000" -}}
{{- $_ := set $plain "OCIBUILD_SHUTDOWN_GRACE" (printf "%ds" (int .Values.shutdownGraceSeconds)) -}}
{{- $_ := set $plain "TMPDIR" "/tmp" -}}
{{- with .Values.files -}}
{{- if .dockerConfigSecret }}{{ $_ := set $plain "OCIBUILD_DOCKER_CONFIG" "/etc/ocibuild/docker/config.json" }}{{ end -}}
{{- if .gcpCredentialsSecret }}{{ $_ := set $plain "GCP_CREDS_PATH" "/etc/ocibuild/gcp/credentials.json" }}{{ end -}}
{{- if .buildSecretsSecret }}{{ $_ := set $plain "OCIBUILD_SECRETS_DIR" "/etc/ocibuild/build-secrets" }}{{ end -}}
{{- if .certificatesConfigMap }}{{ $_ := set $plain "SSL_CERT_FILE" "/etc/ocibuild/certificates/ca-certificates.crt" }}{{ end -}}
{{- end -}}
{{ toJson $plain }}
{{- end }}

{{/* An address of the node leads a pod to itself; the alias says where the registry is. */}}
{{- define "artifact-builder.alias" -}}
{{- $given := include "artifact-builder.given" . | fromJson -}}
{{- $registry := get $given "LOCAL_REGISTRY" | trimPrefix "http://" | trimPrefix "https://" | trimSuffix "/" -}}
{{- if get $given "OCIBUILD_REGISTRY_ALIAS" -}}
{{ get $given "OCIBUILD_REGISTRY_ALIAS" }}
{{- else if and .Values.localRegistryEndpoint (regexMatch "^(127\\.[0-9.]+|localhost|\\[::1\\])(:[0-9]+)?$" $registry) -}}
{{ $registry }}={{ .Values.localRegistryEndpoint }}
{{- end -}}
{{- end }}

{{/* Whether the task table is in the pod's own SQLite. What a Secret of the user holds is not known here. */}}
{{- define "artifact-builder.sqlite" -}}
{{- $given := include "artifact-builder.given" . | fromJson -}}
{{- $fromElsewhere := false -}}
{{- range .Values.extraEnvVars -}}
{{- if and .valueFrom (has .name (list "MYSQL_HOST" "DATABASE_URL")) }}{{ $fromElsewhere = true }}{{ end -}}
{{- end -}}
{{- $url := get $given "DATABASE_URL" -}}
{{- $server := or (get $given "MYSQL_HOST") .Values.existingSecret $fromElsewhere -}}
{{- if or (hasPrefix "sqlite" $url) (not (or $url $server)) }}true{{ end -}}
{{- end }}
