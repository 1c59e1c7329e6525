{{/* What cannot work, or would take away what the pod is protected by, ends the installation with its reason. */}}
{{- define "artifact-builder.checks" -}}
{{- include "artifact-builder.checkEnvironment" . -}}
{{- include "artifact-builder.checkVolumes" . -}}
{{- include "artifact-builder.checkReplicas" . -}}
{{- end }}

{{- define "artifact-builder.checkEnvironment" -}}
{{- $names := concat (keys .Values.env) (keys .Values.secretEnv) -}}
{{- range .Values.extraEnvVars }}{{ $names = append $names .name }}{{ end -}}
{{- $ours := dict "OCIBUILD_LISTEN" "service.port" "OCIBUILD_DATA_DIR" "dataVolume" "TMPDIR" "tmpVolume" "OCIBUILD_SHUTDOWN_GRACE" "shutdownGraceSeconds" -}}
{{- range $name, $value := $ours -}}
{{- if has $name $names }}{{ fail (printf "%s is set by this chart: use the value %s" $name $value) }}{{ end -}}
{{- end -}}
{{- $work := get (include "artifact-builder.given" . | fromJson) "BUILD_ARTIFACTS_ROOT" -}}
{{- if and (hasPrefix "/" $work) (not (hasPrefix "/var/lib/ocibuild/" $work)) -}}
{{- fail (printf "BUILD_ARTIFACTS_ROOT is %s, which cannot be written: give a path relative to the data folder" $work) -}}
{{- end -}}
{{- end }}

{{- define "artifact-builder.checkVolumes" -}}
{{- $allowed := list "name" "configMap" "csi" "downwardAPI" "emptyDir" "ephemeral" "persistentVolumeClaim" "projected" "secret" -}}
{{- $sockets := splitList "," (include "artifact-builder.sockets" .) -}}
{{- range $volume := .Values.volumes -}}
{{- if not (has $volume.name $sockets) -}}
{{- range $kind, $_ := $volume -}}
{{- if not (has $kind $allowed) }}{{ fail (printf "the volume %s is of the kind %s, which the restricted profile forbids" $volume.name $kind) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "artifact-builder.checkReplicas" -}}
{{- $most := .Values.replicaCount -}}
{{- if .Values.autoscaling.enabled }}{{ $most = .Values.autoscaling.maxReplicas }}{{ end -}}
{{- if gt (int $most) 1 -}}
{{- if include "artifact-builder.sqlite" . }}{{ fail "several replicas need one task table: set env.MYSQL_HOST" }}{{ end -}}
{{- if include "artifact-builder.onePodAtATime" . -}}
{{- fail "several replicas cannot share a volume that is not ReadWriteMany: see persistence and dataVolume" -}}
{{- end -}}
{{- end -}}
{{- end }}
