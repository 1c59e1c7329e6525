{{/* Every address but those that builds must not reach. */}}
{{- define "artifact-builder.outside" -}}
{{- $egress := .Values.networkPolicy.egress -}}
- ipBlock:
    cidr: 0.0.0.0/0
    except:
      {{- concat $egress.metadata.ipv4 $egress.deny | toYaml | nindent 6 }}
- ipBlock:
    cidr: ::/0
    except:
      {{- toYaml $egress.metadata.ipv6 | nindent 6 }}
{{- end }}

{{- define "artifact-builder.tcp" -}}
{{- range . }}
- port: {{ int . }}
  protocol: TCP
{{- end }}
{{- end }}
