{{/* Where the service writes logs. */}}
{{- define "artifact-builder.logs" -}}
{{- $given := include "artifact-builder.given" . | fromJson -}}
{{- $logs := get $given "LOG_FILE_ROOT_LOCAL" | default "logs" -}}
{{- if eq (get $given "ENV") "prod" }}{{ $logs = get $given "LOG_FILE_ROOT_PROD" | default "/var/www/artifact-builder/logs" }}{{ end -}}
{{- if hasPrefix "/" $logs }}{{ $logs }}{{ else }}/var/lib/ocibuild/{{ $logs }}{{ end -}}
{{- end }}

{{/* The volume of the logs, where they need one: to be kept, or because they lie outside of the data folder. */}}
{{- define "artifact-builder.logsVolume" -}}
{{- $outside := not (hasPrefix "/var/lib/ocibuild/" (include "artifact-builder.logs" .)) -}}
{{- if .Values.persistence.enabled }}claim{{ else if $outside }}emptyDir{{ end -}}
{{- end }}

{{/* Whether two pods cannot have their volumes at the same time, or must not. */}}
{{- define "artifact-builder.onePodAtATime" -}}
{{- $data := .Values.dataVolume -}}
{{- $sqliteKept := and (eq $data.type "claim") (include "artifact-builder.sqlite" .) -}}
{{- $dataAlone := and (eq $data.type "claim") (not $data.existingClaim) (ne $data.accessMode "ReadWriteMany") -}}
{{- $logsAlone := and .Values.persistence.enabled (ne .Values.persistence.accessMode "ReadWriteMany") -}}
{{- if or $sqliteKept $dataAlone $logsAlone }}true{{ end -}}
{{- end }}

{{/* Darwin mounts the node's Docker socket; the names of such volumes, with commas between them. */}}
{{- define "artifact-builder.sockets" -}}
{{- $names := list -}}
{{- range .Values.volumes -}}
{{- if and .hostPath (regexMatch "/docker\\.sock$" .hostPath.path) }}{{ $names = append $names .name }}{{ end -}}
{{- end -}}
{{ join "," $names }}
{{- end }}

{{- define "artifact-builder.claimTemplate" -}}
accessModes: [{{ .accessMode }}]
{{- with .storageClassName }}
storageClassName: {{ . | quote }}
{{- end }}
resources:
  requests:
    storage: {{ .size }}
{{- end }}

{{- define "artifact-builder.volumes" -}}
- name: data
{{- if eq .Values.dataVolume.type "claim" }}
  persistentVolumeClaim:
    claimName: {{ .Values.dataVolume.existingClaim | default (printf "%s-data" .Values.serviceName) }}
{{- else if eq .Values.dataVolume.type "ephemeral" }}
  ephemeral:
    volumeClaimTemplate:
      spec:
        {{- include "artifact-builder.claimTemplate" (merge (dict "accessMode" "ReadWriteOnce") .Values.dataVolume) | nindent 8 }}
{{- else }}
  emptyDir:
    sizeLimit: {{ .Values.dataVolume.size }}
{{- end }}
- name: tmp
  emptyDir:
    sizeLimit: {{ .Values.tmpVolume.size }}
{{- with include "artifact-builder.logsVolume" . }}
- name: logs
{{- if eq . "claim" }}
  persistentVolumeClaim:
    claimName: {{ $.Values.persistence.existingClaim | default (printf "%s-logs" $.Values.serviceName) }}
{{- else }}
  emptyDir: {}
{{- end }}
{{- end }}
{{- with .Values.files }}
{{- if .dockerConfigSecret }}
- name: docker-config
  secret:
    secretName: {{ .dockerConfigSecret }}
    defaultMode: 0440
    items: [{key: .dockerconfigjson, path: config.json}]
{{- end }}
{{- if .gcpCredentialsSecret }}
- name: gcp-credentials
  secret:
    secretName: {{ .gcpCredentialsSecret }}
    defaultMode: 0440
{{- end }}
{{- if .buildSecretsSecret }}
- name: build-secrets
  secret:
    secretName: {{ .buildSecretsSecret }}
    defaultMode: 0440
{{- end }}
{{- if .certificatesConfigMap }}
- name: certificates
  configMap:
    name: {{ .certificatesConfigMap }}
{{- end }}
{{- end }}
{{- $sockets := splitList "," (include "artifact-builder.sockets" .) }}
{{- range .Values.volumes }}
{{- if not (has .name $sockets) }}
- {{ toYaml . | nindent 2 | trim }}
{{- end }}
{{- end }}
{{- end }}

{{- define "artifact-builder.mounts" -}}
- name: data
  mountPath: /var/lib/ocibuild
- name: tmp
  mountPath: /tmp
{{- if include "artifact-builder.logsVolume" . }}
- name: logs
  mountPath: {{ include "artifact-builder.logs" . }}
{{- end }}
{{- with .Values.files }}
{{- if .dockerConfigSecret }}
- name: docker-config
  mountPath: /etc/ocibuild/docker
  readOnly: true
{{- end }}
{{- if .gcpCredentialsSecret }}
- name: gcp-credentials
  mountPath: /etc/ocibuild/gcp
  readOnly: true
{{- end }}
{{- if .buildSecretsSecret }}
- name: build-secrets
  mountPath: /etc/ocibuild/build-secrets
  readOnly: true
{{- end }}
{{- if .certificatesConfigMap }}
- name: certificates
  mountPath: /etc/ocibuild/certificates
  readOnly: true
{{- end }}
{{- end }}
{{- $sockets := splitList "," (include "artifact-builder.sockets" .) }}
{{- range .Values.volumeMounts }}
{{- if not (has .name $sockets) }}
- {{ toYaml . | nindent 2 | trim }}
{{- end }}
{{- end }}
{{- end }}
