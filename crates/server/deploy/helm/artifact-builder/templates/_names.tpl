{{- define "artifact-builder.labels" -}}
{{ include "artifact-builder.selector" . }}
app.kubernetes.io/component: artifact-builder
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
component-name: {{ .Values.serviceName }}
{{- end }}

{{- define "artifact-builder.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "artifact-builder.image" -}}
{{- $name := printf "%s/%s" .Values.image.registry .Values.image.name -}}
{{- if .Values.image.digest -}}
{{ $name }}@{{ .Values.image.digest }}
{{- else -}}
{{ $name }}:{{ .Values.image.tag }}
{{- end -}}
{{- end }}

{{- define "artifact-builder.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default .Values.serviceName }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end }}
